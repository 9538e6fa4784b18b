"""Tests of actor threads beside a learner, and of how they end."""

import contextlib
import functools
import threading
import time
from typing import Any
from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized
import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acme_cbo.agents.grpo import agent
from acme_cbo.infra import errors
from acme_cbo.runtimes import threaded
from tests.support import miniature

_PARTS = miniature.parts()


@functools.cache
def _programs() -> dict[str, Any]:
  """Returns programs shared by all tests; tasks are always the same."""
  tasks = jax.tree.map(jnp.asarray, miniature.tasks(4))
  return {**agent.programs(_PARTS), 'fill': lambda key: (tasks, True)}


def _state() -> Any:
  return _programs()['init'](jax.random.PRNGKey(0))


def _runtime(num_actors=1, max_lag=0, stall_seconds=60.0):
  return threaded.Threaded(_PARTS, num_actors, max_lag, stall_seconds)


def _actors():
  return [x for x in threading.enumerate() if x.name.startswith('actor')]


class LearningTest(parameterized.TestCase):
  @parameterized.parameters(1, 3)
  def test_lockstep_is_fused_bit_for_bit(self, num_actors):
    step, expected = agent.make_step(_programs()), _state()
    state = _state()
    with _runtime(num_actors).session(_programs(), state) as threaded_step:
      for _ in range(5):
        expected, metrics = step(expected)
        state, actual = threaded_step(state)
        self.assertEqual(actual['policy/lag'], 0)
        chex.assert_trees_all_equal(
          {name: actual[name] for name in metrics}, dict(metrics)
        )
    chex.assert_trees_all_equal(state, expected)

  def test_ratios_are_to_the_policy_that_acted(self):
    # Before each update the actor has collected all that the lag limit allows:
    # from the second on with parameters that are one update old.
    programs, state, expected = _programs(), _state(), _state()
    before = jax.tree.map(jnp.copy, expected.params)
    calls = []

    def act(*args):
      calls.append(args)
      return programs['act'](*args)

    with _runtime(max_lag=1).session({**programs, 'act': act}, state) as step:
      for update in range(1, 5):
        while len(calls) < update + 1:
          time.sleep(0.001)
        state, actual = step(state)
        now = jax.tree.map(jnp.copy, expected.params)
        experience = agent.collect(programs, before, expected.key, update)
        expected, metrics = agent.update(programs, expected, experience)
        before = now
        self.assertEqual(actual['policy/lag'], min(update - 1, 1))
        chex.assert_trees_all_equal(
          {name: actual[name] for name in metrics}, dict(metrics)
        )
        if update > 1:
          self.assertGreater(actual['policy/log_ratio_max'], 1e-3)
        else:
          self.assertLess(actual['policy/log_ratio_max'], 1e-5)
    chex.assert_trees_all_equal(state.params, expected.params)

  def test_waiting_is_reported_of_both_sides(self):
    with _runtime().session(_programs(), _state()) as step:
      _, metrics = step(_state())
    for side in ('learner', 'actors'):
      self.assertBetween(metrics[f'perf/{side}_waiting'], 0.0, 1.0)


@pytest.mark.fault
class FaultTest(parameterized.TestCase):
  tries = 3

  def tearDown(self):
    super().tearDown()
    self.assertEmpty(_actors())

  @contextlib.contextmanager
  def _patch_collect(self, act):
    """Replaces the function of the actors."""
    with mock.patch.object(agent, 'collect', act):
      yield

  def test_an_actor_that_raises(self):
    def act(programs, params, key, update):
      del programs, params, key
      raise KeyError(f'at update {update}')

    for num_actors in range(1, self.tries + 1):
      begin = time.monotonic()
      with (
        self._patch_collect(act),
        self.assertRaisesRegex(KeyError, 'at update') as caught,
        _runtime(num_actors, 2).session(_programs(), _state()) as step,
      ):
        step(_state())
      self.assertLess(time.monotonic() - begin, 5)
      (note,) = errors.notes(caught.exception)
      self.assertRegex(note, r'raised by actor \d')

  def test_an_actor_that_stalls(self):
    for _ in range(self.tries):
      ended = threading.Event()

      def act(*unused, ended=ended):
        ended.wait(20)
        raise KeyError('too late')

      with (
        self._patch_collect(act),
        self.assertRaisesRegex(
          errors.PeerError, 'timed out after .* waiting for actor 0'
        ),
        _runtime(stall_seconds=0.2).session(_programs(), _state()) as step,
      ):
        try:
          step(_state())
        finally:
          ended.set()

  def test_an_actor_that_never_ends_is_named(self):
    ended = threading.Event()
    with (
      mock.patch.object(threaded, '_JOIN_SECONDS', 0.2),
      self._patch_collect(lambda *unused: ended.wait(20)),
    ):
      with (
        self.assertRaises(errors.PeerError) as caught,
        _runtime(stall_seconds=0.2).session(_programs(), _state()) as step,
      ):
        step(_state())
      (note,) = errors.notes(caught.exception)
      self.assertEqual(note, 'actor 0 did not end within 0 s')
      with (
        self.assertRaisesRegex(errors.PeerError, 'actor 0 did not end'),
        _runtime(stall_seconds=0.2).session(_programs(), _state()),
      ):
        pass
      ended.set()
      for thread in _actors():
        thread.join()

  def test_an_actor_that_is_slow_to_end_is_waited_for(self):
    with (
      mock.patch.object(threaded, '_JOIN_SECONDS', 0.2),
      self._patch_collect(lambda *unused: time.sleep(0.6)),
      _runtime(stall_seconds=30.0).session(_programs(), _state()),
    ):
      time.sleep(0.1)
    self.assertEmpty(_actors())

  def test_a_learner_that_raises(self):
    programs = {
      **_programs(),
      'learn': mock.Mock(side_effect=KeyError('of the learner')),
    }
    for num_actors in range(1, self.tries + 1):
      with (
        self.assertRaisesRegex(KeyError, 'of the learner'),
        _runtime(num_actors, 2).session(programs, _state()) as step,
      ):
        step(_state())

  def test_started_and_stopped_again_and_again(self):
    for i in range(50):
      state = _state()
      with _runtime(1 + i % 3, i % 4).session(_programs(), state) as step:
        if i % 2:  # The queue is full.
          time.sleep(0.01)
        for _ in range(i % 3):
          state, _ = step(state)
      self.assertEmpty(_actors())

  def test_a_number_that_is_not_finite_is_named(self):
    faulty = {**_programs()}
    act = faulty['act']

    def act_with_fault(*args):
      data, faults = act(*args)
      return data, np.asarray(faults) | (np.arange(4) == 2)

    faulty['act'] = act_with_fault
    with (
      self.assertRaisesRegex(
        errors.NonFiniteError, 'observation is not finite'
      ),
      _runtime().session(faulty, _state()) as step,
    ):
      step(_state())


@pytest.mark.slow
class ManyTriesTest(FaultTest):
  tries = 30


if __name__ == '__main__':
  absltest.main()
