"""Tests of actors on simulators: their experience, and how they fail."""

import dataclasses
import functools
import os
import pathlib
import signal
import sys
import threading
import time
from typing import Any
from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized
import jax
import numpy as np
import pytest

from acme_cbo.agents.grpo import config
from acme_cbo.environments import problem as problem_lib
from acme_cbo.environments import simulator_process
from acme_cbo.infra import errors
from acme_cbo.runtimes import experience_queue
from acme_cbo.runtimes import simulated
from tests.support import hand_made_simulators as made
from tests.support import miniature

_ROOT = pathlib.Path(__file__).resolve().parents[2]
_PROGRAM = str(_ROOT / 'tests' / 'support' / 'hand_made_simulators.py')
_PARTS = miniature.parts(
  rewards=config.RewardConfig(1.0, 0.0, 0.0, 0.1),
  update=dataclasses.replace(
    miniature.UPDATE, parent_coefficient=0.0, outcome_coefficient=0.0
  ),
)
_MAX_SET_SIZE = 2


def _runtime(make=made.Slope, num_actors=1, max_lag=0, stall_seconds=60.0):
  return simulated.Simulated(
    _PARTS,
    num_actors,
    max_lag,
    stall_seconds,
    problem_lib.from_simulator(made.Slope(), _MAX_SET_SIZE),
    make,
  )


@functools.cache
def _programs() -> dict[str, Any]:
  return dict(_runtime().programs)


def _state() -> Any:
  return _programs()['init'](jax.random.PRNGKey(0))


@functools.cache
def _collect():
  """Returns an experience and all calls of the simulators for it."""
  calls: list[Any] = []
  step = made.Slope.step

  def recorded(simulator, intervention):
    row = step(simulator, intervention)
    calls.append((intervention, row))
    return row

  runtime, state = _runtime(), _state()
  with (
    mock.patch.object(made.Slope, 'step', recorded),
    runtime._actors(_programs(), state) as actors,
  ):
    item = experience_queue.WorkItem(1, state.key, 0, state.params)
    return actors.collect[0](item), calls


class ExperienceTest(absltest.TestCase):
  def test_matches_the_calls_of_the_simulators(self):
    experience, calls = _collect()
    observations, trajectories = jax.device_get(experience.data)
    self.assertEqual(observations.shape, (4, 4, 3))
    self.assertEqual(trajectories.outcomes.shape, (4, 4, 3, 3))
    self.assertLen(calls, 4 * 4 * 3)
    problem = jax.device_get(experience.tasks.scm.problem)
    # Variables that were set have the value that was set, in normalized units.
    for i in range(4):
      for g in range(4):
        for t in range(3):
          mask = trajectories.intervened[i, g, t]
          self.assertTrue(mask.any())
          self.assertFalse(mask[2])
          np.testing.assert_allclose(
            trajectories.outcomes[i, g, t][mask],
            trajectories.values[i, g, t][mask],
            atol=1e-4,
          )
          self.assertTrue(
            (trajectories.values[i, g, t] <= problem.high[i]).all()
          )
    of_x = [x['x'] for x, _ in calls if 'x' in x]
    self.assertBetween(min(of_x), -1000, 3000)
    self.assertBetween(max(of_x), -1000, 3000)

  def test_seeds_fit_32_bits_and_are_not_those_of_held_out_systems(self):
    drawn = np.array([5, 2**31 - 2, 2**31 - 2**20, 2**31 - 2**20 - 1])
    pool = mock.Mock()
    pool.reset.side_effect = InterruptedError  # Nothing else is of interest.
    state = _state()
    item = experience_queue.WorkItem(1, state.key, 0, state.params)
    with (
      mock.patch.object(jax.random, 'randint', return_value=drawn),
      self.assertRaises(InterruptedError),
    ):
      _runtime()._collect(_programs(), pool, item)
    seeds, rollouts, _ = pool.reset.call_args.args
    kept = 2**31 - 2**20 - 1
    self.assertEqual(seeds[::4], [5, 2**20 - 2, 0, kept])
    self.assertEqual(rollouts, [0, 1, 2, 3] * 4)

  def test_a_set_value_that_does_not_come_back(self):
    step = made.Slope.step
    with (
      mock.patch.object(
        made.Slope, 'step', lambda *args: step(*args)[[1, 0, 2]]
      ),
      self.assertRaisesRegex(errors.UsageError, "as '[xz]', which was set to"),
      _runtime().session(_programs(), _state()) as update,
    ):
      update(_state())

  def test_rewards_are_in_standard_deviations_of_the_target(self):
    experience, _ = _collect()
    observations, trajectories = jax.device_get(experience.data)
    np.testing.assert_allclose(observations.mean(1), 0, atol=1e-5)
    np.testing.assert_allclose(observations.std(1), 1, atol=1e-3)
    of_target = trajectories.outcomes[..., 2]
    np.testing.assert_allclose(
      trajectories.components[..., 0], 3 * np.arcsinh(of_target / 3), rtol=1e-5
    )
    np.testing.assert_array_equal(trajectories.components[..., 1:3] * 0, 0)

  def test_a_group_shares_its_observations(self):
    experience, _ = _collect()
    observations, _ = experience.data
    self.assertLen(np.unique(np.asarray(observations)[:, 0, 0]), 4)

  def test_the_learner_evaluates_the_policy_that_acted(self):
    state = _state()
    with _runtime().session(_programs(), state) as step:
      for update in range(1, 3):
        state, metrics = step(state)
        self.assertEqual(state.step, update)
        self.assertLess(metrics['policy/log_ratio_max'], 1e-4)
        self.assertGreater(metrics['train/update_norm'], 0)

  def test_lockstep_does_not_depend_on_the_number_of_actors(self):
    ends = []
    for num_actors in (1, 2):
      state = _state()
      with _runtime(num_actors=num_actors).session(_programs(), state) as step:
        for _ in range(3):
          state, _ = step(state)
      ends.append(jax.device_get(state.params))
    jax.tree.map(np.testing.assert_array_equal, *ends)


@pytest.mark.fault
class FaultTest(parameterized.TestCase):
  tries = 1

  def tearDown(self):
    super().tearDown()
    deadline = time.monotonic() + 5
    while any(x.name.startswith('actor') for x in threading.enumerate()):
      self.assertLess(time.monotonic(), deadline)
      time.sleep(0.01)

  def _assert_raises(self, runtime, error, sentence):
    begin = time.monotonic()
    with (
      self.assertRaisesRegex(error, sentence),
      runtime.session(_programs(), _state()) as step,
    ):
      step(_state())
    self.assertLess(time.monotonic() - begin, 10)

  @parameterized.parameters(
    ('raises', RuntimeError, 'broken on purpose'),
    ('wide', errors.UsageError, r'step\(.*rollout 0, returned an array of sh'),
    (
      'nan',
      errors.UsageError,
      r"step\(.* returned a value of 'x' that is not fini",
    ),
  )
  def test_of_an_object(self, what, error, sentence):
    with mock.patch.object(made.Faulty, 'what', what):
      self._assert_raises(_runtime(made.Faulty), error, sentence)

  def test_a_process_that_is_killed(self):
    for _ in range(self.tries):
      pids = []

      def make(pids=pids):
        process = simulator_process.Process([sys.executable, _PROGRAM, 'fine'])
        pids.append(process.pid)
        return process

      state = _state()
      with (
        self.assertRaisesRegex(
          errors.PeerError, r'\(pid \d+\) exited with code'
        ),
        _runtime(make, max_lag=2).session(_programs(), state) as step,
      ):
        state, _ = step(state)
        os.kill(pids[5], signal.SIGKILL)
        for _ in range(9):
          state, _ = step(state)
      for pid in pids:
        self.assertFalse(pathlib.Path('/proc', str(pid)).exists())

  def test_a_simulator_that_hangs_is_reported_and_ended(self):
    for _ in range(self.tries):
      make = functools.partial(
        simulator_process.Process, [sys.executable, _PROGRAM, 'sleeps']
      )
      self._assert_raises(
        _runtime(make, stall_seconds=1.0),
        errors.PeerError,
        'timed out after .* waiting for actor 0',
      )


@pytest.mark.slow
@pytest.mark.timeout(600)
class ManyTriesTest(FaultTest):
  tries = 30


if __name__ == '__main__':
  absltest.main()
