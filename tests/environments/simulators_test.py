"""Tests of simulators: Python objects and processes."""

import contextlib
import json
import os
import pathlib
import shlex
import signal
import sys
import threading
import time
from typing import Any, cast
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
from acme_cbo.infra import config_schema
from acme_cbo.infra import errors
from tests.support import hand_made_simulators as made

_ROOT = pathlib.Path(__file__).resolve().parents[2]
_PROGRAM = str(_ROOT / 'tests' / 'support' / 'hand_made_simulators.py')


def _process(what='fine', pids=None):
  process = simulator_process.Process([sys.executable, _PROGRAM, what])
  if pids is not None:
    pids.append(process.pid)
  return process


# Description of a simulator of two variables.
_DESCRIPTION = json.dumps(
  {
    'variables': ['x', 'y'],
    'target': 'y',
    'goal': 'maximize',
    'domains': {'x': [0, 1]},
  }
)


def _script(text):
  """Returns a simulator process that is a program of bash."""
  return simulator_process.Process(['bash', '-c', text])


def _is_running(argument):
  """Returns whether a process with an argument has not ended."""
  return any(
    argument in (process.info['cmdline'] or [])
    for process in psutil.process_iter(['cmdline'])
  )


def _happens(condition, *args):
  """Returns whether a condition becomes true within two seconds."""
  deadline = time.monotonic() + 2
  while not (is_true := condition(*args)) and time.monotonic() < deadline:
    time.sleep(0.01)
  return is_true


def _pool(make, size, stall_seconds=60.0):
  return contextlib.closing(simulator_pool.Pool(make, size, stall_seconds))


class MakeFactoryTest(parameterized.TestCase):
  def test_function(self):
    make = simulators.make_factory(
      config.SimulatorConfig('tests.support.hand_made_simulators:Slope', '')
    )
    self.assertIsInstance(make(), made.Slope)

  def test_command(self):
    command = f'{sys.executable} {_PROGRAM} fine'
    process = simulators.make_factory(config.SimulatorConfig('', command))()
    assert isinstance(process, simulator_process.Process)
    self.assertEqual(process.variables, ['x', 'z', 'y'])
    process.close()

  @parameterized.parameters(
    'no_such_module:Slope',
    'tests.support.hand_made_simulators:Nothing',
    'tests:',
  )
  def test_refuses_a_missing_function(self, name):
    with self.assertRaisesRegex(errors.UsageError, 'cannot be imported'):
      simulators.make_factory(config.SimulatorConfig(name, ''))

  @parameterized.parameters(
    ('os:sep', "'os:sep', which is '/'; name a function or a class"),
    ('os:getenv', "without arguments: missing a required argument: 'key'"),
  )
  def test_refuses_what_cannot_be_called(self, name, sentence):
    with self.assertRaisesRegex(errors.UsageError, sentence):
      simulators.make_factory(config.SimulatorConfig(name, ''))

  @parameterized.parameters('.made:Slope', 'made.:Slope', ':Slope', 'made')
  def test_config_refuses_a_path_that_is_none(self, name):
    with self.assertRaisesRegex(ValueError, "empty or 'module:function'"):
      config_schema.check(config.SimulatorConfig(name, ''))

  @parameterized.parameters(
    ("python 'open", 'is "python \'open": No closing quotation'),
    ('  ', "is '  '; it must name a program"),
    ('a\0b', 'cannot be started: embedded null byte'),
    ("''", 'cannot be started'),
  )
  def test_refuses_a_command_that_is_none(self, command, sentence):
    with self.assertRaisesRegex(errors.UsageError, sentence):
      simulators.make_factory(config.SimulatorConfig('', command))()

  def test_config_is_true_if_simulators_are_used(self):
    self.assertFalse(config.SimulatorConfig('', ''))
    self.assertTrue(config.SimulatorConfig('a:b', ''))
    self.assertTrue(config.SimulatorConfig('', 'a'))


class ProblemTest(parameterized.TestCase):
  def test_follows_the_description(self):
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
    ('target', 'w', "Slope: the target is 'w', which is none of the variables"),
    ('goal', 'more', "goal is 'more'; it must be 'maximize' or 'minimize'"),
    ('goal', ['maximize'], "goal is ['maximize']; it must be"),
    ('variables', ('x', 'x', 'y'), "two variables have the same name, 'x'"),
    ('variables', ('x', 'z\x1b', 'y'), r"the name 'z\x1b' has characters that"),
    ('variables', ('x', 'w', 'y'), "there is a domain of 'z', which is none"),
    ('domains', {'y': (0, 1)}, "target 'y' has a domain"),
    ('domains', {}, 'no variable has a domain'),
    ('domains', {'x': (1, 0)}, "the domain of 'x' is (1, 0); it must be two"),
    ('domains', {'x': (0, np.inf)}, "the domain of 'x'"),
    ('domains', {'x': (-1.7e308, 1.7e308)}, 'two numbers within ±1e+300'),
    ('variables', ('x', '', 'y'), 'a variable has an empty name'),
    ('domains', {'x': (0, 1, 2)}, "the domain of 'x'"),
    ('domains', {'x': 5}, "the domain of 'x' is 5; it must be two"),
    ('domains', {'x': ('a', 'b')}, "the domain of 'x'"),
    ('domains', {'v': (0, 1)}, "there is a domain of 'v', which is none of"),
    ('domains', None, 'the domains are None; they must be a dict by variable'),
    ('domains', [['x', (0, 1)]], "the domains are [['x', (0, 1)]]; they must"),
    ('domains', {'x': '05'}, "the domain of 'x' is '05'; it must be two"),
    ('domains', {'x': ('0', '5')}, "the domain of 'x' is ('0', '5'); it must"),
    ('domains', {'x': (False, True)}, "the domain of 'x' is (False, True); it"),
    ('domains', {'x': {0: 1, 5: 2}}, "the domain of 'x' is {0: 1, 5: 2}; it"),
    ('domains', {'x': np.array([0, 1j])}, "the domain of 'x' is array([0.+0.j"),
    ('domains', {'x': (0, 10**400)}, "the domain of 'x' is (0, 1000000"),
    ('domains', {'x': (2**53, 2**53 + 1)}, "the domain of 'x' is (9007199254"),
    ('variables', 'xzy', "Slope: the variables are 'xzy'; they must be a list"),
    ('variables', {'x': 0, 'z': 1, 'y': 2}, "the variables are {'x': 0, 'y': "),
    ('variables', {'y'}, "the variables are {'y'}; they must be a list"),
    ('variables', ('x', 'z', 5), "the variables are ('x', 'z', 5); they must"),
    ('variables', None, 'the variables are None; they must be a list of names'),
    ('target', ['y'], "the target is ['y'], which is none of the variables"),
  )
  def test_refuses_an_invalid_description(self, attribute, value, sentence):
    with (
      mock.patch.object(made.Slope, attribute, value),
      self.assertRaises(errors.UsageError) as caught,
    ):
      problem_lib.from_simulator(made.Slope(), 1)
    self.assertIn(sentence, str(caught.exception))

  def test_refuses_an_object_without_the_interface(self):
    with self.assertRaisesRegex(
      errors.UsageError, "simulator object has no attribute 'variables'"
    ):
      problem_lib.from_simulator(cast(Any, object()), 1)

  def test_ends_of_domains_have_all_digits(self):
    with mock.patch.object(
      made.Slope, 'domains', {'x': (-0.7, 0.3), 'z': [10**8, 10**8 + 1]}
    ):
      problem = problem_lib.from_simulator(made.Slope(), 1)
    self.assertEqual(list(problem.low), [-0.7, 1e8, 0])
    self.assertEqual(list(problem.high), [0.3, 1e8 + 1, 0])


class MatchingFactoryTest(absltest.TestCase):
  def test_makes_a_matching_simulator(self):
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

    with self.assertRaisesRegex(errors.UsageError, 'Other has the variables'):
      simulators.matching_factory(Other, first)()
    self.assertTrue(closed)


class UnitConverterTest(parameterized.TestCase):
  def test_no_digits_are_lost_far_from_zero(self):
    problem = problem_lib.from_simulator(made.Slope(), 1)
    rng = np.random.default_rng(0)
    rows = rng.normal([1e7, 0, -1e9], 1.0, (4, 30, 3))
    converter = normalization.UnitConverter.fit(problem, rows)
    normalized = converter.to_normalized(rows)
    np.testing.assert_allclose(normalized.mean(1), 0, atol=1e-5)
    np.testing.assert_allclose(normalized.std(1)[:, 2], 1, rtol=1e-4)

  def test_ends_of_domains_are_exact(self):
    problem = problem_lib.from_simulator(made.Slope(), 1)
    rows = np.random.default_rng(0).normal(size=(4, 30, 3)) * 77.7
    converter = normalization.UnitConverter.fit(problem, rows)
    for end in ('low', 'high'):
      own = converter.to_own_units(np.asarray(getattr(converter.problem, end)))
      np.testing.assert_array_equal(
        own[:, :2], np.broadcast_to(getattr(problem, end)[:2], (4, 2))
      )

  def _fit(self, rows, **domains):
    with mock.patch.object(made.Slope, 'domains', domains):
      problem = problem_lib.from_simulator(made.Slope(), 1)
    return normalization.UnitConverter.fit(
      problem, np.asarray(rows), made.Slope.variables
    )

  @parameterized.parameters(
    (-0.7, 0.3, 0.0),
    (1e8, 1e8 + 1, 1e8 + 0.4),
    (0.0, 1e-50, 4e-51),
    (0.0, 1e39, 3e38),
  )
  def test_values_are_in_the_domain_to_the_bit(self, low, high, value):
    rng = np.random.default_rng(0)
    rows = rng.normal([value, 0, 0], [(high - low) / 5, 1, 1], (2, 30, 3))
    units = self._fit(rows, x=(low, high))
    for end, expected in (('low', low), ('high', high)):
      own = units.to_own_units(getattr(units.problem, end))
      np.testing.assert_array_equal(own[:, 0], [expected, expected])
    low_and_high = np.stack([units.problem.low, units.problem.high])
    middle = units.to_own_units(low_and_high.mean(0))
    np.testing.assert_allclose(
      middle[:, 0], (low + high) / 2, rtol=0, atol=1e-5 * (high - low)
    )

  @parameterized.parameters(
    (0.0, 1e-50, r"of 'x' is \[0, 1e-50\], which float32 cannot resolve"),
    (1e8, 1e8 + 1, r"of 'x' is \[100000000, 100000001\], .* mean 0.5 and"),
  )
  def test_refuses_a_domain_beyond_float32(self, low, high, sentence):
    rows = [[0.25, 0, 1], [0.75, 1, 2]]
    with self.assertRaisesRegex(errors.UsageError, sentence):
      self._fit([rows, rows], x=(low, high))

  def test_refuses_values_beyond_float32(self):
    rows = [[0.25, 0, 1], [0.75, 1, 2]]
    units = self._fit(rows, x=(0, 1))
    with self.assertRaisesRegex(
      errors.UsageError,
      "'y' is 1e\\+39, which is too large for float32 in units",
    ):
      units.to_normalized(np.array([[0.5, 0.5, 1e39]]))
    np.testing.assert_array_equal(
      units.to_normalized(np.array([0.5, 0.5, np.inf])), [0, 0, np.inf]
    )
    with self.assertRaisesRegex(
      errors.UsageError,
      "'y' cannot be normalized: its observations, of mean 5e\\+199, a",
    ):
      self._fit([[0.25, 0, 0], [0.75, 1, 1e200]], x=(0, 1))


class PoolTest(parameterized.TestCase):
  @parameterized.parameters(made.Slope, _process)
  def test_steps_many_at_once(self, make):
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

  def test_slow_simulators_are_waited_for_concurrently(self):
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

  def _step(self, change, values=(0.25, 0.75)):
    """Steps a pool with x and z set, whose outcomes are changed."""
    step = made.Slope.step
    with (
      mock.patch.object(
        made.Slope, 'domains', {'x': (0.0, 1.0), 'z': (1e3, 1e3 + 10)}
      ),
      mock.patch.object(made.Slope, 'step', lambda *args: change(step(*args))),
      _pool(made.Slope, 1) as pool,
    ):
      pool.reset([5], [0], 3)
      return pool.step(
        np.array([[True, True, False]]), np.array([[*values, 0]])
      )

  @parameterized.parameters(
    (
      lambda row: row[[1, 0, 2]],
      r"returned 1003.0 as 'x', which was set to 0.25"
      r"; 'z' has that value: the columns must be in the order x, z, y",
    ),
    (
      lambda row: np.minimum(row, 0.1),
      "returned 0.1 as 'x', which was set to "
      '0.25; an outcome must have the values that were set',
    ),
    (
      lambda row: np.add(row, [0, 0.2, 0]),
      "returned 1003.2 as 'z', which was set to 10",
    ),
    (lambda row: [1, 2, 3], "returned 1.0 as 'x', which was set to 0.25"),
  )
  def test_set_values_have_to_come_back(self, change, sentence):
    with self.assertRaisesRegex(errors.UsageError, sentence):
      self._step(change, (0.25, 1003.0))

  @parameterized.parameters(
    np.float32, lambda row: [float(f'{value:.6g}') for value in row]
  )
  def test_set_values_may_be_rounded(self, change):
    x, z, _ = self._step(change, (1 / 3, 1000 + 1 / 3))[0]
    np.testing.assert_allclose([x, z], [1 / 3, 1000 + 1 / 3], rtol=1e-5)

  @parameterized.parameters(
    (lambda row: row + 0j, 'returned complex numbers; it must return an array'),
    (lambda row: [str(x) for x in row], 'returned texts'),
    (lambda row: np.ma.masked_less(row, 1e9), r'masked \(missing\) values'),
    (lambda row: [*row[:2], True], 'returned truth values'),
  )
  def test_outcomes_are_real_numbers(self, change, noun):
    with self.assertRaisesRegex(
      errors.UsageError,
      rf"Slope: step\({{'x': 0.25, 'z': 1003.0}}\) of seed 5, .*{noun}",
    ):
      self._step(change, (0.25, 1003.0))

  def _warnings(self, rows, seeds=(1, 2)):
    """Returns what is logged while observations are returned twice."""
    simulator_pool._warn_once.cache_clear()

    def reset(simulator, seed, rollout, number):
      del simulator, rollout, number
      return np.array(rows(seed))

    with (
      mock.patch.object(made.Slope, 'reset', reset),
      mock.patch.object(simulator_pool.logging, 'warning') as warning,
      _pool(made.Slope, len(seeds)) as pool,
    ):
      for _ in range(2):
        pool.reset(seeds, [0] * len(seeds), 2)
    return [call.args[1] for call in warning.call_args_list]

  def test_warns_of_an_ignored_seed(self):
    (warning,) = self._warnings(lambda seed: [[1, 2, 3], [4, 5, 6]])
    self.assertRegex(warning, 'same observations for 2 different seeds: if')
    self.assertEmpty(self._warnings(lambda seed: [[1, 2, 3], [4, 5, seed]]))
    self.assertEmpty(
      self._warnings(lambda seed: [[1, 2, 3], [4, 5, 6]], [7, 7])
    )

  def test_warns_of_a_constant_target(self):
    (warning,) = self._warnings(lambda seed: [[1, 2, seed], [4, 5, 2]])
    self.assertRegex(warning, "target 'y' does not vary in the observations of")

  def test_closes_all_processes(self):
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
        r"step\({'x': 1.0, 'z': 1.0}\) of seed 1, rollout 0, returned an array "
        r'of shape \(4,\); the shape',
      ),
      (
        'nan',
        errors.UsageError,
        r"step\({'x': 1.0, 'z': 1.0}\) of seed 1, rollout 0, returned a value "
        "of 'x' that is not finite",
      ),
      (
        'short',
        errors.UsageError,
        r'reset\(seed=1, rollout=0, \.\.\.\) returned an array of shape \(2',
      ),
      (
        'differs',
        errors.UsageError,
        'returned other observations than another',
      ),
    ]
  )
  def test_faulty_object(self, case):
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
    ('dies', errors.PeerError, r'dies. \(pid \d+\) exited with code 7'),
    ('raises', errors.PeerError, 'exited with code 1'),
    (
      'forgets',
      errors.UsageError,
      "must be an object with an array of numbers 'observations'",
    ),
    (
      'is no JSON',
      errors.UsageError,
      "wrote 'hello', which cannot be read as JSON",
    ),
    ('says nothing', errors.PeerError, 'exited with code 0'),
  )
  def test_faulty_process(self, what, error, sentence):
    with (
      self.assertRaisesRegex(error, sentence),
      contextlib.closing(_process(what)) as process,
    ):
      process.reset(1, 0, 3)
      for _ in range(3):
        process.step({'x': 1.0})

  def test_process_without_a_first_line(self):
    with (
      mock.patch.object(simulator_process, '_START_SECONDS', 0.5),
      self.assertRaisesRegex(
        errors.PeerError, r'\(pid \d+\) sent no line within'
      ),
    ):
      _process('is silent')

  @parameterized.parameters(
    '["x", "y"]',
    '5',
    '{"variables": ["x", "y"]}',
  )
  def test_process_without_a_description(self, line):
    with self.assertRaisesRegex(
      errors.UsageError, 'must be an object with variables, target, goal and'
    ):
      _script(f"echo '{line}'; read")

  @parameterized.parameters(
    ('{"outcome": ["0.5", 1]}', "an array of numbers 'outcome', not texts"),
    ('{"outcome": [true, 1]}', "numbers 'outcome', not truth values"),
    ('{"outcome": [[1], [1, 2]]}', 'not rows of different lengths'),
    ('{"outcome": "12"}', 'not texts'),
    (f'{{"outcome": [1{"0" * 400}]}}', 'not a number that is too large for'),
    (f'{{"outcome": [{"1" * 5000}]}}', 'which cannot be read as JSON'),
    ('[' * 5000, 'which cannot be read as JSON'),
    (f'{{"outcome": {"[" * 90}{"]" * 90}}}', "numbers 'outcome', not rows of"),
    (
      f'{{"result": {"[" * 900}{"]" * 900}}}',
      'must be an object with an array',
    ),
  )
  def test_process_with_an_invalid_answer(self, line, sentence):
    with (
      contextlib.closing(
        _script(f"echo '{_DESCRIPTION}'; read; echo '{line}'; read")
      ) as process,
      self.assertRaisesRegex(errors.UsageError, sentence) as caught,
    ):
      process.step({'x': 0.5})
    self.assertLess(len(str(caught.exception)), 8000)

  def test_process_that_writes_its_answer_in_parts_and_exits(self):
    with contextlib.closing(
      _script(
        f"printf '{_DESCRIPTION[:9]}'; sleep .2; echo '{_DESCRIPTION[9:]}';"
        'read; printf \'{"outcome": [1,\'; sleep .2; printf " 2]}"'
      )
    ) as process:
      np.testing.assert_array_equal(process.step({'x': 1.0}), [1, 2])
      with self.assertRaisesRegex(errors.PeerError, 'exited with code 0'):
        process.step({'x': 1.0})

  def test_line_without_an_end(self):
    with (
      contextlib.closing(
        _script(f"echo '{_DESCRIPTION}'; read; tr '\\000' a </dev/zero")
      ) as process,
      self.assertRaisesRegex(
        errors.UsageError, 'wrote a line of more than 4,194,504 bytes, b.aaa'
      ),
    ):
      process.step({'x': 0.5})

  def test_observations_may_be_longer_than_other_lines(self):
    with (
      mock.patch.object(simulator_process, '_LINE_BYTES', 300),
      contextlib.closing(_process()) as process,
    ):
      self.assertEqual(process.reset(1, 0, 400).shape, (400, 3))

  def test_line_that_is_never_complete(self):
    drips = 'while printf a; do sleep .02; done'
    begin = time.monotonic()
    with (
      mock.patch.object(simulator_process, '_START_SECONDS', 0.5),
      self.assertRaisesRegex(errors.PeerError, 'sent no line within'),
    ):
      _script(drips)
    with (
      _pool(
        lambda: _script(f"echo '{_DESCRIPTION}'; {drips}"), 1, stall_seconds=0.5
      ) as pool,
      self.assertRaisesRegex(errors.PeerError, 'timed out'),
    ):
      pool.reset([1], [0], 3)
    self.assertLess(time.monotonic() - begin, 5)

  @parameterized.parameters(
    ('exit 3', 'exited with code 3'),
    ('sleep 60', 'timed out after 1 s'),
    ('while printf a; do sleep .02; done', 'timed out after 1 s'),
  )
  def test_children_that_leave_the_group_end_with_it(self, rest, sentence):
    # It keeps the output open, in a session of its own and without a parent.
    seconds = f'60.{os.getpid()}'
    daemon = f"setsid bash -c 'sleep {seconds} & wait' &"
    begin = time.monotonic()
    with (
      _pool(
        lambda: _script(f"echo '{_DESCRIPTION}'; ({daemon}) ; read; {rest}"),
        1,
        stall_seconds=1.0,
      ) as pool,
      self.assertRaisesRegex(errors.PeerError, sentence),
    ):
      self.assertTrue(_happens(_is_running, seconds))
      pool.reset([1], [0], 3)
    self.assertLess(time.monotonic() - begin, 8)
    self.assertTrue(_happens(lambda: not _is_running(seconds)))

  def test_process_that_closes_its_output(self):
    with (
      mock.patch.object(simulator_process, '_EXIT_SECONDS', 0.5),
      contextlib.closing(_process('closes')) as process,
      self.assertRaisesRegex(errors.PeerError, 'closed its standard output'),
    ):
      process.reset(1, 0, 3)

  def test_process_that_does_not_exit_by_itself(self):
    with mock.patch.object(simulator_process, '_EXIT_SECONDS', 0.5):
      process = _process('stays')
      process.close()
    self.assertFalse(pathlib.Path('/proc', str(process.pid)).exists())

  @parameterized.parameters('sleeps', 'raises')
  def test_children_of_a_process_end_with_it(self, what):
    # Launchers such as `uv run` keep running as parents of what they start.
    inner = shlex.join([sys.executable, _PROGRAM, what])
    command, groups = ['bash', '-c', f'{inner}; sleep 60'], []

    def make():
      process = simulator_process.Process(command)
      groups.append(process.pid)
      return process

    with (
      mock.patch.object(simulator_process, '_EXIT_SECONDS', 0.5),
      self.assertRaisesRegex(
        errors.PeerError, r'^timed out .*\(pid \d+\)|\(pid \d+\) exited'
      ),
      _pool(make, 2, stall_seconds=1.0) as pool,
    ):
      pool.reset([1, 1], [0, 1], 3)
      for _ in range(3):
        pool.step(np.eye(3, dtype=bool)[[0, 0]], np.ones((2, 3)))
    self.assertLen(groups, 2)
    # Processes that have ended may remain as zombies until they are reaped.
    alive = [
      process.pid
      for process in psutil.process_iter()
      if process.status() != psutil.STATUS_ZOMBIE
    ]
    left = [pid for pid in alive if os.getpgid(pid) in groups]
    self.assertEmpty(left)

  def test_object_that_hangs(self):
    with (
      mock.patch.object(made.Faulty, 'what', 'hangs'),
      _pool(made.Faulty, 2, stall_seconds=0.5) as pool,
      self.assertRaisesRegex(
        errors.PeerError, 'timed out after 0 s waiting for the simulator Faulty'
      ),
    ):
      pool.reset([1, 1], [0, 1], 3)
      for _ in range(3):
        pool.step(np.eye(3, dtype=bool)[[0, 0]], np.ones((2, 3)))

  def test_missing_program(self):
    with self.assertRaisesRegex(
      errors.UsageError, 'cannot be started: No such'
    ):
      simulator_process.Process(['/no/such/program'])

  def test_killed_process(self):
    for _ in range(self.tries):
      pids = []
      with _pool(lambda pids=pids: _process(pids=pids), 2) as pool:
        pool.reset([1, 1], [0, 1], 3)
        os.kill(pids[1], signal.SIGKILL)
        with self.assertRaisesRegex(errors.PeerError, 'exited with code -9'):
          pool.step(np.eye(3, dtype=bool)[[0, 0]], np.ones((2, 3)))

  def test_hanging_call_can_be_stopped(self):
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
