import json
import math
from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acme_cbo.environments import environment
from acme_cbo.experiments.performance import timing
from acme_cbo.experiments.performance import training
from acme_cbo.networks import tokens
from acme_cbo.training import loggers
from tests.support import miniature
from tests.training import toy


class WorkTest(absltest.TestCase):
  def test_of_a_product_by_hand(self):
    x = jnp.zeros((64, 128))
    work = training.Work.of(lambda x: x @ x.T, x)
    self.assertEqual(work.operations, 2 * 64 * 128 * 64)
    # At least what comes in and what goes out.
    self.assertGreaterEqual(work.bytes, 4 * (64 * 128 + 64 * 64))
    self.assertEqual(work.times(3).operations, 3 * work.operations)
    self.assertEqual((work + work).bytes, 2 * work.bytes)

  def test_of_acting_is_of_the_loop_as_often_as_it_turns(self):
    network = miniature.network()
    tasks = miniature.tasks(2)

    def work(num_interventions, num_generations):
      parts = miniature.parts(
        network=network,
        num_tasks=2,
        num_generations=num_generations,
        horizon=environment.Horizon(4, num_interventions),
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
      return training.work_of_acting(parts, params, tasks).operations

    # The prefix is that of the group, however many rollouts it has.
    alone, pair = work(3, 1), work(3, 2)
    self.assertGreater(pair, 1.3 * alone)
    self.assertLess(pair, 2 * alone)
    # Six steps are at least as much as twice three, but for the prefix.
    self.assertGreater(work(6, 1) - alone, 0.8 * (pair - alone))


class CompiledTest(absltest.TestCase):
  def test_runs_and_says_what_it_took(self):
    compiled = training.Compiled.of(lambda x: jnp.sin(x).sum(), jnp.ones(3))
    self.assertAlmostEqual(
      float(compiled.run(jnp.ones(3))), 3 * math.sin(1), places=5
    )
    self.assertGreater(compiled.seconds_to_trace, 0)
    self.assertGreater(compiled.seconds_to_compile, 0)

  def test_what_is_kept_is_left_alone(self):
    before = jax.config.values['jax_compilation_cache_dir']
    training.Compiled.of(lambda x: x + 1, jnp.ones(3))
    self.assertEqual(jax.config.values['jax_compilation_cache_dir'], before)


@pytest.mark.slow
@pytest.mark.timeout(900)  # It compiles 16 programs.
class MeasureTest(absltest.TestCase):
  """The whole of it, at sizes at which no figure means anything."""

  def test_figures_follow_from_the_seconds(self):
    parts = miniature.parts(
      network=miniature.network(),
      num_tasks=2,
      num_generations=3,
      horizon=environment.Horizon(num_observations=3, num_interventions=2),
    )
    figures = training.measure(parts, repeats=2)
    json.dumps(figures)
    median = {n: one['median'] for n, one in figures['seconds'].items()}
    whole = median['prior'] + median['act'] + median['learn']
    slowly = (
      median['prior'] + median['act_recomputed'] + median['learn_recomputed']
    )
    self.assertEqual(
      figures['ratios'],
      {
        'cached_over_recompute': median['act_recomputed'] / median['act'],
        'unshared_over_recompute': median['act_recomputed']
        / median['act_unshared'],
        'shared_over_unshared': median['gradient_unshared']
        / median['gradient'],
        'training_over_recompute': slowly / whole,
      },
    )
    self.assertEqual(
      figures['interventions_per_second']['training'],
      2 * 3 * 2 / median['update'],
    )
    for name, share in figures['ceiling_share'].items():
      self.assertTrue(0 < share < 1, (name, share))


class TrainerOverheadTest(parameterized.TestCase):
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
      mock.patch.object(timing.time, 'perf_counter', lambda: now[0]),
      mock.patch.object(loggers, 'JsonlLogger', Slow),
    ):
      overhead = training.trainer_overhead(
        step, toy.init(), 3, lambda update: 0.1
      )
    np.testing.assert_allclose(overhead, 0.1, rtol=1e-6)


if __name__ == '__main__':
  absltest.main()
