"""Tests of systems that are no JAX programs, objects and processes."""

import contextlib
import os
import pathlib
import shlex
import signal
import sys
import threading
import time
from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized
import numpy as np
import psutil
import pytest

from acme_cbo.environments import config
from acme_cbo.environments import normalization
from acme_cbo.environments import problem as problem_lib
from acme_cbo.environments import simulator_pool
from acme_cbo.environments import simulator_process
from acme_cbo.environments import simulators
from acme_cbo.infra import errors
from tests.support import hand_made_simulators as made

_ROOT = pathlib.Path(__file__).resolve().parents[2]
_PROGRAM = str(_ROOT / 'tests' / 'support' / 'hand_made_simulators.py')


def _process(what='fine', pids=None):
  process = simulator_process.Process([sys.executable, _PROGRAM, what])
  if pids is not None:
    pids.append(process.pid)
  return process


def _pool(make, size, stall_seconds=60.0):
  return contextlib.closing(simulator_pool.Pool(make, size, stall_seconds))


class MakerTest(parameterized.TestCase):
  def test_of_a_function(self):
    make = simulators.make_factory(
      config.SimulatorConfig('tests.support.hand_made_simulators:Slope', '')
    )
    self.assertIsInstance(make(), made.Slope)

  def test_of_a_command(self):
    command = f'{sys.executable} {_PROGRAM} fine'
    process = simulators.make_factory(config.SimulatorConfig('', command))()
    assert isinstance(process, simulator_process.Process)
    self.assertEqual(process.variables, made.Slope.variables)
    process.close()

  @parameterized.parameters(
    'no_such_module:Slope',
    'tests.support.hand_made_simulators:Nothing',
    'tests:',
  )
  def test_what_is_not_there_is_refused(self, name):
    with self.assertRaisesRegex(errors.UsageError, 'cannot be imported'):
      simulators.make_factory(config.SimulatorConfig(name, ''))

  def test_whether_there_are_any(self):
    self.assertFalse(config.SimulatorConfig('', ''))
    self.assertTrue(config.SimulatorConfig('a:b', ''))
    self.assertTrue(config.SimulatorConfig('', 'a'))


class ProblemTest(parameterized.TestCase):
  def test_is_what_a_simulator_says(self):
    problem = problem_lib.from_simulator(made.Slope(), 2)
    np.testing.assert_array_equal(problem.target, [False, False, True])
    np.testing.assert_array_equal(problem.settable, [True, True, False])
    np.testing.assert_array_equal(problem.low, [-1000, 0, 0])
    np.testing.assert_array_equal(problem.high, [3000, 1, 0])
    self.assertLen(problem.sets, 3)  # x, z, and both.
    self.assertEqual(problem.goal, 1)
    with mock.patch.object(made.Slope, 'goal', 'minimize'):
      self.assertEqual(problem_lib.from_simulator(made.Slope(), 1).goal, -1)

  @parameterized.parameters(
    ('target', 'w', "Slope: 'w', its target or a name in its domains, is none"),
    ('goal', 'more', "goal is 'more'; it must be 'maximize' or 'minimize'"),
    ('goal', ['maximize'], "goal is ['maximize']; it must be"),
    ('variables', ('x', 'x', 'y'), "is none of its variables, 'x', 'x', 'y'"),
    ('variables', ('x', 'z', 'y', 'z'), 'a name twice'),
    ('domains', {'y': (0, 1)}, "target 'y' has a domain"),
    ('domains', {}, 'none of its variables has a domain'),
    ('domains', {'x': (1, 0)}, "the domain of 'x' is (1, 0); it must be two"),
    ('domains', {'x': (0, np.inf)}, "the domain of 'x'"),
    ('domains', {'x': (0, 1, 2)}, "the domain of 'x'"),
    ('domains', {'x': 5}, "the domain of 'x' is 5; it must be two"),
    ('domains', {'x': ('a', 'b')}, "the domain of 'x'"),
    ('domains', {'v': (0, 1)}, "'v', its target or a name in its domains"),
    ('domains', None, 'lacks what every one has'),
  )
  def test_is_refused(self, attribute, value, sentence):
    with (
      mock.patch.object(made.Slope, attribute, value),
      self.assertRaises(errors.UsageError) as caught,
    ):
      problem_lib.from_simulator(made.Slope(), 1)
    self.assertIn(sentence, str(caught.exception))


class AlikeTest(absltest.TestCase):
  def test_another_one_of_the_same(self):
    make = simulators.matching_factory(made.Slope, made.Slope())
    self.assertIsInstance(make(), made.Slope)
    domains = {name: np.array(x) for name, x in made.Slope.domains.items()}
    with mock.patch.object(made.Slope, 'domains', domains):
      self.assertIsInstance(make(), made.Slope)

  def test_another_system_is_refused_and_closed(self):
    first, closed = made.Slope(), []

    class Other(made.Slope):
      variables = ('z', 'x', 'y')

      def close(self):
        closed.append(True)

    with self.assertRaisesRegex(errors.UsageError, 'Other said that its vari'):
      simulators.matching_factory(Other, first)()
    self.assertTrue(closed)


class HostUnitsTest(absltest.TestCase):
  def test_no_digits_are_lost_far_from_zero(self):
    problem = problem_lib.from_simulator(made.Slope(), 1)
    rng = np.random.default_rng(0)
    rows = rng.normal([1e7, 0, -1e9], 1.0, (4, 30, 3))
    units = normalization.UnitConverter.fit(problem, rows)
    scaled = units.to_normalized(rows)
    np.testing.assert_allclose(scaled.mean(1), 0, atol=1e-5)
    np.testing.assert_allclose(scaled.std(1)[:, 2], 1, rtol=1e-4)

  def test_ends_of_domains_are_those_to_the_bit(self):
    problem = problem_lib.from_simulator(made.Slope(), 1)
    rows = np.random.default_rng(0).normal(size=(4, 30, 3)) * 77.7
    units = normalization.UnitConverter.fit(problem, rows)
    for end in ('low', 'high'):
      own = units.to_own_units(np.asarray(getattr(units.problem, end)))
      np.testing.assert_array_equal(
        own[:, :2], np.broadcast_to(getattr(problem, end)[:2], (4, 2))
      )


class PoolTest(parameterized.TestCase):
  @parameterized.parameters(made.Slope, _process)
  def test_plays_many_at_once(self, make):
    alone = made.Slope()
    with _pool(make, 4) as pool:
      rows = pool.reset([5, 5, 6, 6], [0, 1, 0, 1], 3)
      np.testing.assert_array_equal(rows[0], alone.reset(5, 0, 3))
      np.testing.assert_array_equal(rows[0], rows[1])
      self.assertFalse((rows[0] == rows[2]).all())
      mask = np.array([[True, False, False]] * 4)
      outcomes = pool.step(mask, np.array([[2000.0, 0.5, 0.0]] * 4))
      np.testing.assert_array_equal(outcomes[0], alone.step({'x': 2000.0}))
      np.testing.assert_array_equal(outcomes[:, 0], 2000)
      # The noise of two rollouts differs.
      self.assertNotEqual(outcomes[0, 2], outcomes[1, 2])

  def test_slow_ones_are_waited_for_at_once(self):
    def slow(self, seed, rollout, number):
      time.sleep(0.2)
      return np.ones((number, 3))

    with (
      mock.patch.object(made.Slope, 'reset', slow),
      _pool(made.Slope, 16) as pool,
    ):
      begin = time.monotonic()
      pool.reset([0] * 16, range(16), 2)
      self.assertLess(time.monotonic() - begin, 1.6)

  def test_none_is_left(self):
    pids = []
    with _pool(lambda: _process(pids=pids), 3):
      pass
    self.assertLen(pids, 3)
    for pid in pids:
      self.assertFalse(pathlib.Path('/proc', str(pid)).exists())


@pytest.mark.fault
class FaultTest(parameterized.TestCase):
  tries = 3

  @parameterized.product(
    case=[
      ('raises', RuntimeError, 'broken on purpose'),
      (
        'wide',
        errors.UsageError,
        r"step\({'x': 1.0, 'z': 1.0}\) of seed 1, rollout 0, gave an array of "
        r'shape \(4,\); it',
      ),
      (
        'nan',
        errors.UsageError,
        r"step\({'x': 1.0, 'z': 1.0}\) of seed 1, rollout 0, gave a value of "
        "'x' that is not finite",
      ),
      (
        'short',
        errors.UsageError,
        r'reset\(seed=1, rollout=0, \.\.\.\) gave an array of shape \(2, 3\)',
      ),
      ('differs', errors.UsageError, 'gave other observations than another'),
    ]
  )
  def test_what_an_object_does_wrong_is_told(self, case):
    what, error, sentence = case
    with (
      mock.patch.object(made.Faulty, 'what', what),
      _pool(made.Faulty, 4) as pool,
      self.assertRaisesRegex(error, sentence) as caught,
    ):
      pool.reset([1, 1, 2, 2], [0, 1, 0, 1], 3)
      for _ in range(3):
        pool.step(np.ones((4, 3), bool) & [1, 1, 0], np.ones((4, 3)))
    if what == 'raises':
      (note,) = errors.notes(caught.exception)
      self.assertRegex(
        note, r"by the simulator Faulty, step\({'x': 1.0, 'z': 1.0}\) of seed 1"
      )

  @parameterized.parameters(
    ('dies', errors.PeerError, r'dies. \(pid \d+\) has ended, with code 7'),
    ('raises', errors.PeerError, 'has ended, with code 1'),
    ('forgets', errors.UsageError, "it must be an object with 'observations'"),
    ('is no JSON', errors.UsageError, "said 'hello', which is no JSON"),
    ('says nothing', errors.PeerError, 'has ended, with code 0'),
  )
  def test_what_a_process_does_wrong_is_told(self, what, error, sentence):
    with (
      self.assertRaisesRegex(error, sentence),
      contextlib.closing(_process(what)) as process,
    ):
      process.reset(1, 0, 3)
      for _ in range(3):
        process.step({'x': 1.0})

  def test_a_process_that_says_nothing_at_the_start(self):
    with (
      mock.patch.object(simulator_process, '_START_SECONDS', 0.5),
      self.assertRaisesRegex(errors.PeerError, r'\(pid \d+\) has said nothing'),
    ):
      _process('is silent')

  def test_a_process_that_goes_on_without_its_output(self):
    with (
      mock.patch.object(simulator_process, '_EXIT_SECONDS', 0.5),
      contextlib.closing(_process('closes')) as process,
      self.assertRaisesRegex(errors.PeerError, 'has ended, with code -9'),
    ):
      process.reset(1, 0, 3)

  def test_a_process_that_does_not_end_by_itself(self):
    with mock.patch.object(simulator_process, '_EXIT_SECONDS', 0.5):
      process = _process('stays')
      process.close()
    self.assertFalse(pathlib.Path('/proc', str(process.pid)).exists())

  @parameterized.parameters('sleeps', 'raises')
  def test_what_a_process_has_started_ends_with_it(self, what):
    # As with `uv run` and others, which do not become what they start.
    inner = shlex.join([sys.executable, _PROGRAM, what])
    command, groups = ['bash', '-c', f'{inner}; sleep 60'], []

    def make():
      process = simulator_process.Process(command)
      groups.append(process.pid)
      return process

    with (
      mock.patch.object(simulator_process, '_EXIT_SECONDS', 0.5),
      self.assertRaisesRegex(errors.PeerError, r'pid \d+\) has (not|ended)'),
      _pool(make, 2, stall_seconds=1.0) as pool,
    ):
      pool.reset([1, 1], [0, 1], 3)
      for _ in range(3):
        pool.step(np.eye(3, dtype=bool)[[0, 0]], np.ones((2, 3)))
    self.assertLen(groups, 2)
    # What has ended may be there until somebody asks how.
    alive = [
      process.pid
      for process in psutil.process_iter()
      if process.status() != psutil.STATUS_ZOMBIE
    ]
    left = [pid for pid in alive if os.getpgid(pid) in groups]
    self.assertEmpty(left)

  def test_an_object_that_hangs(self):
    with (
      mock.patch.object(made.Faulty, 'what', 'hangs'),
      _pool(made.Faulty, 2, stall_seconds=0.5) as pool,
      self.assertRaisesRegex(
        errors.PeerError, 'simulator Faulty has not answered for 0'
      ),
    ):
      pool.reset([1, 1], [0, 1], 3)
      for _ in range(3):
        pool.step(np.eye(3, dtype=bool)[[0, 0]], np.ones((2, 3)))

  def test_a_program_that_is_not_there(self):
    with self.assertRaisesRegex(
      errors.UsageError, 'cannot be started: No such'
    ):
      simulator_process.Process(['/no/such/program'])

  def test_a_process_that_is_killed(self):
    for _ in range(self.tries):
      pids = []
      with _pool(lambda pids=pids: _process(pids=pids), 2) as pool:
        pool.reset([1, 1], [0, 1], 3)
        os.kill(pids[1], signal.SIGKILL)
        with self.assertRaisesRegex(errors.PeerError, 'ended, with code -9'):
          pool.step(np.eye(3, dtype=bool)[[0, 0]], np.ones((2, 3)))

  def test_what_hangs_can_be_ended(self):
    with _pool(lambda: _process('sleeps'), 2) as pool:
      pool.reset([1, 1], [0, 1], 3)
      threading.Timer(0.3, pool.stop).start()
      with self.assertRaisesRegex(
        (errors.PeerError, simulator_pool.Stopped), 'code -9|^$'
      ):
        for _ in range(3):
          pool.step(np.eye(3, dtype=bool)[[0, 0]], np.ones((2, 3)))


if __name__ == '__main__':
  absltest.main()
