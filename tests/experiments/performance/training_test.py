import dataclasses
import json
import math
from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acme_cbo.environments import config
from acme_cbo.experiments.performance import timing
from acme_cbo.experiments.performance import training
from acme_cbo.networks import tokens
from acme_cbo.training import loggers
from tests.support import miniature
from tests.training import toy


class WorkTest(absltest.TestCase):
  def test_a_matrix_product(self):
    x = jnp.zeros((64, 128))
    work = training.Work.from_function(lambda x: x @ x.T, x)
    self.assertEqual(work.operations, 2 * 64 * 128 * 64)
    # At least the input and the output.
    self.assertGreaterEqual(work.bytes, 4 * (64 * 128 + 64 * 64))
    self.assertEqual(work.times(3).operations, 3 * work.operations)
    self.assertEqual((work + work).bytes, 2 * work.bytes)

  def test_acting_counts_every_iteration_of_the_loop(self):
    network = miniature.network()
    tasks = miniature.tasks(2)

    def work(num_interventions, num_generations):
      parts = miniature.parts(
        network=network,
        update=dataclasses.replace(
          miniature.UPDATE, num_tasks=2, num_generations=num_generations
        ),
        horizon=config.HorizonConfig(4, num_interventions),
      )
      params = jax.eval_shape(
        lambda key: network.init(
          key,
          jax.tree.map(lambda x: x[0], tasks.scm.problem),
          jnp.zeros((2, 5)),
          tokens.start_row(5),
        ),
        jax.random.PRNGKey(0),
      )
      return training.acting_work(parts, params, tasks).operations

    # The prefix is computed once per group, for any number of rollouts.
    single, pair = work(3, 1), work(3, 2)
    self.assertGreater(pair, 1.3 * single)
    self.assertLess(pair, 2 * single)
    # Six steps cost about twice as much as three, apart from the prefix.
    self.assertGreater(work(6, 1) - single, 0.8 * (pair - single))


class CompiledTest(absltest.TestCase):
  def test_runs_and_records_its_costs(self):
    compiled = training.Compiled.from_function(
      lambda x: jnp.sin(x).sum(), jnp.ones(3)
    )
    self.assertAlmostEqual(
      float(compiled.run(jnp.ones(3))), 3 * math.sin(1), places=5
    )
    self.assertGreater(compiled.seconds_to_trace, 0)
    self.assertGreater(compiled.seconds_to_compile, 0)

  def test_restores_the_compilation_cache(self):
    before = jax.config.values['jax_compilation_cache_dir']
    training.Compiled.from_function(lambda x: x + 1, jnp.ones(3))
    self.assertEqual(jax.config.values['jax_compilation_cache_dir'], before)


@pytest.mark.slow
@pytest.mark.timeout(900)  # Compiles 16 programs.
class MeasureTest(absltest.TestCase):
  """Tests the whole benchmark, at sizes too small for meaningful numbers."""

  def test_results_follow_from_the_seconds(self):
    parts = miniature.parts(
      network=miniature.network(),
      update=dataclasses.replace(
        miniature.UPDATE, num_tasks=2, num_generations=3
      ),
      horizon=config.HorizonConfig(num_observations=3, num_interventions=2),
    )
    results = training.measure(parts, repeats=2)
    json.dumps(results)
    median = {n: t['median'] for n, t in results['seconds'].items()}
    fast = median['prior'] + median['act'] + median['learn']
    slow = (
      median['prior'] + median['act_recomputed'] + median['learn_recomputed']
    )
    self.assertEqual(
      results['ratios'],
      {
        'cached_over_recompute': median['act_recomputed'] / median['act'],
        'unshared_over_recompute': median['act_recomputed']
        / median['act_unshared'],
        'shared_over_unshared': median['gradient_unshared']
        / median['gradient'],
        'training_over_recompute': slow / fast,
      },
    )
    self.assertEqual(
      results['interventions_per_second']['training'],
      2 * 3 * 2 / median['update'],
    )
    for name, share in results['ceiling_share'].items():
      self.assertTrue(0 < share < 1, (name, share))


class TrainerOverheadTest(parameterized.TestCase):
  def test_is_relative_to_the_updates(self):
    # On a fake clock, an update takes 1 s and each write of a log 0.1 s.
    now = [0.0]

    def step(state):
      now[0] += 1.0
      return state._replace(step=state.step + 1), {'reward/total': 0.5}

    class Slow(loggers.JsonlLogger):
      def write(self, step, metrics):
        now[0] += 0.1
        super().write(step, metrics)

    with (
      mock.patch.object(timing.time, 'perf_counter', lambda: now[0]),
      mock.patch.object(loggers, 'JsonlLogger', Slow),
    ):
      overhead = training.trainer_overhead(
        step, toy.init(), 3, lambda update: 0.1
      )
    np.testing.assert_allclose(overhead, 0.1, rtol=1e-6)


if __name__ == '__main__':
  absltest.main()
