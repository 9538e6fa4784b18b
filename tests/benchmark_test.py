import json
import math
import os
import pathlib
import subprocess
import sys
import tempfile
from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized
import chex
import jax
import numpy as np
import optax
import pytest

from acme_cbo import actor
from acme_cbo import benchmark
from acme_cbo.training import loggers
from tests import miniature
from tests.training import toy

_ROOT = pathlib.Path(__file__).resolve().parents[1]


@pytest.mark.timeout(240)  # It compiles all four programs.
class MeasureTest(parameterized.TestCase):
  """What is timed is one computation done in two ways."""

  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    interleaved = benchmark.interleaved

    def record(runs, repeats):
      cls.outputs = {name: run() for name, run in runs.items()}
      cls.seconds = interleaved(runs, repeats)
      return cls.seconds

    parts = miniature.parts(
      network=miniature.network(),
      num_tasks=2,
      num_generations=3,
      horizon=actor.Horizon(num_observations=3, num_interventions=2),
    )
    with mock.patch.object(benchmark, 'interleaved', record):
      cls.figures = benchmark.measure(parts, repeats=3)

  def test_recomputing_gives_the_same_outcomes(self):
    cached, recomputed = (
      self.outputs[name][1].outcomes
      for name in ('act_cached', 'act_recomputed')
    )
    self.assertEqual(cached.shape, (2, 3, 2, 5))
    np.testing.assert_allclose(recomputed, cached, rtol=1e-4, atol=1e-6)
    # Rollouts differ, so that a mix-up of theirs would show.
    self.assertLen(np.unique(cached.reshape(6, -1), axis=0), 6)

  def test_sharing_gives_the_same_gradient(self):
    shared = self.outputs['gradient_shared']
    unshared = self.outputs['gradient_unshared']
    chex.assert_trees_all_equal_shapes(shared, unshared)
    difference = jax.tree.map(lambda a, b: a - b, shared, unshared)
    size = optax.tree.norm(shared)
    self.assertGreater(size, 1e-3)
    self.assertLess(optax.tree.norm(difference), 1e-4 * size)

  def test_beliefs_are_those_of_all_rollouts(self):
    for size in (5, 8):
      logs = self.outputs[f'exact_belief_{size}']
      self.assertEqual(logs.shape, (6, 2 ** (size - 1)))
      np.testing.assert_allclose(np.exp(logs).sum(1), 1, rtol=1e-4)

  def test_figures(self):
    figures = json.loads(json.dumps(self.figures))
    self.assertEqual(
      figures['sizes'],
      {
        'num_tasks': 2,
        'num_generations': 3,
        'num_observations': 3,
        'num_interventions': 2,
        'max_variables': 5,
      },
    )
    self.assertCountEqual(figures['seconds'], self.outputs)
    middle = {}
    for name, entry in figures['seconds'].items():
      lowest, middle[name], highest = sorted(self.seconds[name])
      self.assertEqual(
        entry, {'min': lowest, 'median': middle[name], 'max': highest}
      )
      self.assertGreater(lowest, 0)
    # How many times as fast: the slow way over the quick one.
    self.assertEqual(
      figures['ratios'],
      {
        'cached_over_recompute': middle['act_recomputed']
        / middle['act_cached'],
        'shared_over_unshared': middle['gradient_unshared']
        / middle['gradient_shared'],
        # Two steps of acting, one of the beliefs.
        'policy_over_exact_belief_5': middle['act_cached']
        / (2 * middle['exact_belief_5']),
        'policy_over_exact_belief_8': middle['act_cached']
        / (2 * middle['exact_belief_8']),
      },
    )
    for ratio in figures['ratios'].values():
      self.assertTrue(math.isfinite(ratio) and ratio > 0)


class TrainerOverheadTest(absltest.TestCase):
  def test_is_that_of_a_fit_over_the_bare_updates(self):
    # By a clock of its own: an update takes 1 s, each write of a log 0.1 s.
    now = [0.0]

    def step(state):
      now[0] += 1.0
      return state._replace(step=state.step + 1), {'reward/total': 0.5}

    class Slow(loggers.JsonlLogger):
      def write(self, step, metrics):
        now[0] += 0.1
        super().write(step, metrics)

    with (
      mock.patch.object(benchmark.time, 'perf_counter', lambda: now[0]),
      mock.patch.object(loggers, 'JsonlLogger', Slow),
    ):
      overhead = benchmark.trainer_overhead(step, toy.init(), 3)
    self.assertAlmostEqual(overhead, 0.1)


class InterleavedTest(absltest.TestCase):
  def test_takes_turns_and_leaves_the_first_out(self):
    # By a clock of its own: a's runs take 100, 1, 2 and b's 200, 10, 20.
    now, calls = [0.0], []

    def make(name, seconds):
      seconds = iter(seconds)

      def run():
        calls.append(name)
        now[0] += next(seconds)
        return np.zeros(1)

      return run

    runs = {'a': make('a', (100, 1, 2)), 'b': make('b', (200, 10, 20))}
    with mock.patch.object(benchmark.time, 'perf_counter', lambda: now[0]):
      seconds = benchmark.interleaved(runs, 2)
    self.assertEqual(seconds, {'a': [1.0, 2.0], 'b': [10.0, 20.0]})
    self.assertEqual(calls, ['a', 'b'] * 3)


class LauncherTest(absltest.TestCase):
  def test_writes_what_was_measured(self):
    # Only the measuring is replaced; by what it was given.
    launcher = str(_ROOT / 'launchers' / 'benchmark.py')
    with tempfile.TemporaryDirectory() as directory:
      done = subprocess.run(
        [
          sys.executable,
          '-c',
          'import runpy, sys\n'
          'from acme_cbo import benchmark\n'
          'benchmark.measure = lambda parts, repeats: {\n'
          '  "tasks": parts.num_tasks, "repeats": repeats}\n'
          'benchmark.trainer_overhead = lambda step, state, repeats: 0.25\n'
          f'sys.argv = [{launcher!r}, "--out=figures.json", "--repeats=3",\n'
          '  "--config.grpo.num_tasks=8"]\n'
          f'runpy.run_path({launcher!r}, run_name="__main__")\n',
        ],
        cwd=directory,
        env=os.environ | {'PYTHONPATH': str(_ROOT)},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
      )
      self.assertEqual(done.returncode, 0, done.stderr)
      written = (pathlib.Path(directory) / 'figures.json').read_text()
    self.assertEqual(
      json.loads(written),
      {'tasks': 8, 'repeats': 3, 'trainer_overhead': 0.25},
    )
    self.assertEqual(done.stdout, written)


if __name__ == '__main__':
  absltest.main()
