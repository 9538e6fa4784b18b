"""Tests of what stands between actors and a learner, without either."""

import random
import threading
import time
from typing import Any

from absl.testing import absltest
from absl.testing import parameterized
import pytest

from acme_cbo.infra import errors
from acme_cbo.runtimes import experience_queue


def _pipeline(max_lag=2, version=0, stall_seconds=5.0):
  return experience_queue.ExperienceQueue(
    version,
    f'params {version}',
    100,
    lambda key: key + 1,
    max_lag,
    stall_seconds,
  )


def _bring(pipeline, ticket):
  pipeline.put(ticket.update, ticket.version, f'of {ticket.update}')


class OrderTest(parameterized.TestCase):
  def test_tickets_are_of_the_updates_in_order(self):
    pipeline = _pipeline(version=7)
    for i in range(3):
      self.assertEqual(
        pipeline.get_work(),
        experience_queue.WorkItem(8 + i, 100 + i, 7, 'params 7'),
      )

  def test_experience_is_taken_in_the_order_of_the_updates(self):
    pipeline = _pipeline()
    tickets = [pipeline.get_work() for _ in range(3)]
    for ticket in reversed(tickets):
      _bring(pipeline, ticket)
    for i in range(3):
      (version, experience), _ = pipeline.get()
      self.assertEqual((version, experience), (0, f'of {i + 1}'))

  @parameterized.parameters(0, 1, 3)
  def test_no_more_are_given_out_than_may_be_old(self, max_lag):
    pipeline = _pipeline(max_lag)
    for _ in range(max_lag + 1):
      _bring(pipeline, pipeline.get_work())
    taken: list[Any] = []
    thread = threading.Thread(target=lambda: taken.append(pipeline.get_work()))
    thread.start()
    thread.join(0.05)
    self.assertEmpty(taken)
    pipeline.get()
    thread.join(0.05)
    self.assertEmpty(taken)  # It was consumed, but nothing is newer yet.
    pipeline.publish(1, 'params 1')
    thread.join(5)
    self.assertEqual(taken[0].update, max_lag + 2)
    self.assertEqual((taken[0].version, taken[0].params), (1, 'params 1'))

  @parameterized.product(num_actors=[1, 2, 5], max_lag=[0, 1, 4])
  def test_nothing_is_lost_or_twice_or_too_old(self, num_actors, max_lag):
    pipeline = _pipeline(max_lag)
    rng = random.Random(num_actors)
    pauses = [rng.uniform(0, 0.002) for _ in range(64)]

    def act():
      while (ticket := pipeline.get_work()) is not None:
        time.sleep(pauses[ticket.update % 64])
        self.assertEqual(ticket.params, f'params {ticket.version}')
        self.assertEqual(ticket.key, 99 + ticket.update)
        _bring(pipeline, ticket)

    threads = [threading.Thread(target=act) for _ in range(num_actors)]
    for thread in threads:
      thread.start()
    lags = []
    for update in range(1, 101):
      (version, experience), _ = pipeline.get()
      self.assertEqual(experience, f'of {update}')
      lags.append(update - 1 - version)
      pipeline.publish(update, f'params {update}')
    pipeline.close()
    for thread in threads:
      thread.join(5)
      self.assertFalse(thread.is_alive())
    self.assertBetween(max(lags), min(max_lag, 1), max_lag)
    self.assertGreaterEqual(min(lags), 0)

  def test_waiting_is_counted(self):
    pipeline = _pipeline(max_lag=0)
    first = pipeline.get_work()
    threading.Timer(0.1, lambda: _bring(pipeline, first)).start()
    _, waited = pipeline.get()
    self.assertBetween(waited, 0.05, 1.0)
    threading.Timer(0.1, lambda: pipeline.publish(1, 'params 1')).start()
    pipeline.get_work()
    self.assertBetween(pipeline.pop_actor_wait_seconds(), 0.05, 1.0)
    self.assertEqual(pipeline.pop_actor_wait_seconds(), 0.0)


@pytest.mark.fault
class FaultTest(parameterized.TestCase):
  def test_what_was_not_asked_for_is_refused(self):
    pipeline = _pipeline()
    ticket = pipeline.get_work()
    _bring(pipeline, ticket)
    for update in (1, 2):  # Twice, and of nobody.
      with self.assertRaisesRegex(RuntimeError, f'of update {update} was bro'):
        pipeline.put(update, 0, 'again')

  def test_parameters_that_are_too_old_are_refused(self):
    pipeline = _pipeline(max_lag=2, version=7)
    pipeline.get_work()
    pipeline.put(8, 4, 'late')
    with self.assertRaisesRegex(
      RuntimeError, 'update 8 is of parameters that are 3 updates old.*is 2'
    ):
      pipeline.get()

  def test_an_error_of_an_actor_reaches_the_learner_at_once(self):
    for _ in range(20):
      pipeline = _pipeline()
      pipeline.get_work()
      error = KeyError('of an actor')
      threading.Timer(0.01, lambda p=pipeline, e=error: p.put_error(e)).start()
      begin = time.monotonic()
      with self.assertRaises(KeyError) as caught:
        pipeline.get()
      self.assertIs(caught.exception, error)
      self.assertLess(time.monotonic() - begin, 2)

  def test_the_first_error_is_the_one(self):
    pipeline = _pipeline()
    pipeline.put_error(KeyError('first'))
    pipeline.put_error(KeyError('second'))
    with self.assertRaisesRegex(KeyError, 'first'):
      pipeline.get()

  def test_an_actor_that_stalls_is_named(self):
    pipeline = _pipeline(stall_seconds=0.1)
    thread = threading.Thread(target=pipeline.get_work, name='actor 3')
    thread.start()
    thread.join()
    with self.assertRaisesRegex(
      errors.PeerError, 'update 1: nothing.*actor 3 has been at it for.*stall_s'
    ):
      pipeline.get()

  def test_the_end_wakes_who_waits(self):
    for _ in range(50):
      pipeline = _pipeline(max_lag=0)
      pipeline.get_work()
      taken: list[Any] = ['nothing']
      thread = threading.Thread(
        target=lambda t=taken, p=pipeline: t.append(p.get_work())
      )
      thread.start()
      pipeline.close()
      thread.join(5)
      self.assertEqual(taken, ['nothing', None])


if __name__ == '__main__':
  absltest.main()
