"""Tests of the experience queue, without jax, actors or a learner."""

import random
import threading
import time
from typing import Any

from absl.testing import absltest
from absl.testing import parameterized
import pytest

from acme_cbo.infra import errors
from acme_cbo.runtimes import experience_queue


def _make_queue(max_lag=2, version=0, stall_seconds=5.0):
  return experience_queue.ExperienceQueue(
    version,
    f'params {version}',
    100,
    lambda key: key + 1,
    max_lag,
    stall_seconds,
  )


def _put(work, item):
  work.put(item.update, item.version, f'of {item.update}')


class OrderTest(parameterized.TestCase):
  def test_items_have_the_updates_in_order(self):
    work = _make_queue(version=7)
    for i in range(3):
      self.assertEqual(
        work.get_work(),
        experience_queue.WorkItem(8 + i, 100 + i, 7, 'params 7'),
      )

  def test_get_returns_experience_in_the_order_of_the_updates(self):
    work = _make_queue()
    items = [work.get_work() for _ in range(3)]
    for item in reversed(items):
      _put(work, item)
    for i in range(3):
      (version, experience), _ = work.get()
      self.assertEqual((version, experience), (0, f'of {i + 1}'))

  @parameterized.parameters(0, 1, 3)
  def test_hands_out_no_item_beyond_the_lag_limit(self, max_lag):
    work = _make_queue(max_lag)
    for _ in range(max_lag + 1):
      _put(work, work.get_work())
    items: list[Any] = []
    thread = threading.Thread(target=lambda: items.append(work.get_work()))
    thread.start()
    thread.join(0.05)
    self.assertEmpty(items)
    work.get()
    thread.join(0.05)
    self.assertEmpty(items)  # Consumed, but no newer parameters were published.
    work.publish(1, 'params 1')
    thread.join(5)
    self.assertEqual(items[0].update, max_lag + 2)
    self.assertEqual((items[0].version, items[0].params), (1, 'params 1'))

  @parameterized.product(num_actors=[1, 2, 5], max_lag=[0, 1, 4])
  def test_no_experience_is_lost_duplicated_or_too_old(
    self, num_actors, max_lag
  ):
    work = _make_queue(max_lag)
    rng = random.Random(num_actors)
    pauses = [rng.uniform(0, 0.002) for _ in range(64)]

    def act():
      while (item := work.get_work()) is not None:
        time.sleep(pauses[item.update % 64])
        self.assertEqual(item.params, f'params {item.version}')
        self.assertEqual(item.key, 99 + item.update)
        _put(work, item)

    threads = [threading.Thread(target=act) for _ in range(num_actors)]
    for thread in threads:
      thread.start()
    lags = []
    for update in range(1, 101):
      (version, experience), _ = work.get()
      self.assertEqual(experience, f'of {update}')
      lags.append(update - 1 - version)
      work.publish(update, f'params {update}')
    work.close()
    for thread in threads:
      thread.join(5)
      self.assertFalse(thread.is_alive())
    self.assertBetween(max(lags), min(max_lag, 1), max_lag)
    self.assertGreaterEqual(min(lags), 0)

  def test_measures_waiting(self):
    work = _make_queue(max_lag=0)
    first = work.get_work()
    threading.Timer(0.1, lambda: _put(work, first)).start()
    _, waited = work.get()
    self.assertBetween(waited, 0.05, 1.0)
    threading.Timer(0.1, lambda: work.publish(1, 'params 1')).start()
    work.get_work()
    self.assertBetween(work.pop_actor_wait_seconds(), 0.05, 1.0)
    self.assertEqual(work.pop_actor_wait_seconds(), 0.0)


@pytest.mark.fault
class FaultTest(parameterized.TestCase):
  def test_refuses_experience_that_was_not_requested(self):
    work = _make_queue()
    item = work.get_work()
    _put(work, item)
    for update in (1, 2):  # Added twice, and never requested.
      with self.assertRaisesRegex(
        RuntimeError, f'of update {update} was not requested'
      ):
        work.put(update, 0, 'again')

  def test_parameters_that_are_too_old_are_refused(self):
    work = _make_queue(max_lag=2, version=7)
    work.get_work()
    work.put(8, 4, 'late')
    with self.assertRaisesRegex(
      RuntimeError, 'acted for update 8 are 3 updates old.*is 2'
    ):
      work.get()

  def test_an_error_of_an_actor_reaches_the_learner_at_once(self):
    for _ in range(20):
      work = _make_queue()
      work.get_work()
      error = KeyError('of an actor')
      threading.Timer(0.01, lambda p=work, e=error: p.put_error(e)).start()
      begin = time.monotonic()
      with self.assertRaises(KeyError) as caught:
        work.get()
      self.assertIs(caught.exception, error)
      self.assertLess(time.monotonic() - begin, 2)

  def test_raises_the_first_error(self):
    work = _make_queue()
    work.put_error(KeyError('first'))
    work.put_error(KeyError('second'))
    with self.assertRaisesRegex(KeyError, 'first'):
      work.get()

  def test_an_actor_that_stalls_is_named(self):
    work = _make_queue(stall_seconds=0.1)
    thread = threading.Thread(target=work.get_work, name='actor 3')
    thread.start()
    thread.join()
    with self.assertRaisesRegex(
      errors.PeerError,
      'update 1: timed out.*waiting for actor 3, which.*stall_s',
    ):
      work.get()

  def test_close_wakes_waiting_actors(self):
    for _ in range(50):
      work = _make_queue(max_lag=0)
      work.get_work()
      items: list[Any] = ['nothing']
      thread = threading.Thread(
        target=lambda t=items, p=work: t.append(p.get_work())
      )
      thread.start()
      work.close()
      thread.join(5)
      self.assertEqual(items, ['nothing', None])


if __name__ == '__main__':
  absltest.main()
