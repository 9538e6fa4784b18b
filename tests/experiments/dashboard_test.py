"""The pages for TensorBoard show the interventions that were made."""

import re

from absl.testing import absltest
import jax
import jax.numpy as jnp
import numpy as np

from acme_cbo import types
from acme_cbo.agents.grpo import agent
from acme_cbo.agents.grpo import optimizer as optimizer_lib
from acme_cbo.evaluation import held_out
from acme_cbo.evaluation import rollouts
from acme_cbo.experiments import config as config_lib
from acme_cbo.experiments import dashboard
from acme_cbo.infra import config_schema
from tests.support import miniature


class LayoutTest(absltest.TestCase):
  def test_every_chart_has_tags(self):
    # Of a run of 10 interventions; see train_test for those of all runs.
    tags = [
      *(f'eval/score_{x}' for x in ('first', 'mean', 'last', 'last_linear')),
      *(f'reward/{x}' for x in ('optimization', 'structure', 'total')),
      *(f'belief/learned_{x}_after_10' for x in ('f1', 'auroc', 'ece')),
      'eval/coverage_recommended',
      'eval/crps_random',
      'policy/entropy_cell',
      'policy/kl_acting',
      'train/gradient_norm',
      'train/dead_groups',
    ]
    for category, charts in dashboard.layout(10).items():
      for chart, patterns in charts.items():
        with self.subTest(f'{category} {chart}'):
          found = [x for x in tags for p in patterns if re.match(p, x)]
          self.assertNotEmpty(found)
          self.assertNotIn('reward/total', found)


class HparamsTest(absltest.TestCase):
  def test_every_setting_is_there_by_its_name(self):
    config = config_lib.GRPOConfig()
    flat = dashboard.hparams(config)
    self.assertEqual(flat['name'], 'grpo')
    self.assertEqual(flat['grpo.beta'], 0.0)
    self.assertIs(flat['training.quick_compile'], False)
    self.assertEqual(flat['scms.graph_weights.erdos_renyi'], 2.0)
    self.assertEqual(flat['training.callbacks'], '()')
    self.assertEqual([*flat], [*config_schema.fields(config_lib.GRPOConfig)])


class HistogramsTest(absltest.TestCase):
  def test_of_choices(self):
    # In two steps on each of two tasks: one variable, and two at once.
    problem = miniature.tasks(2).scm.problem
    first, last = (
      np.array([np.flatnonzero(x)[end] for x in problem.settable])
      for end in (0, -1)
    )
    column = np.arange(5)
    mask = np.stack(
      [
        column == first[:, None],
        (column == first[:, None]) | (column == last[:, None]),
      ],
      1,
    )
    share = np.random.default_rng(0).random(mask.shape)
    low, high = problem.low[:, None], problem.high[:, None]
    values = np.where(mask, low + share * (high - low), 0)
    nothing = jnp.zeros((2, 2))
    outcome = rollouts.Outcome(
      score=nothing,
      intervention=types.Intervention(jnp.array(mask), jnp.array(values)),
      target=nothing,
      parents={},
      finite=nothing,
      after_last={},
    )
    state = jax.eval_shape(
      lambda: agent.init(jax.random.PRNGKey(0), miniature.parts())
    )
    tasks = held_out.HeldOut(0, miniature.PRIOR, 2, miniature.HORIZON)
    tasks.tasks = miniature.tasks(2)
    shown = dashboard.histograms(tasks, {'grpo': outcome})
    choices = shown['choices'](state)
    expected = [
      j for of_task in mask for of_step in of_task for j in column[of_step]
    ]
    np.testing.assert_array_equal(choices['variable'], expected)
    np.testing.assert_allclose(
      choices['share_of_domain'], share[mask], atol=1e-5
    )

  def test_of_parameters_and_of_the_mean_of_their_gradients(self):
    optimizer = optimizer_lib.make_optimizer(lambda step: 0.1, 1e6, 0.0)
    parts = miniature.parts(network=miniature.network(), optimizer=optimizer)
    state = jax.jit(lambda key: agent.init(key, parts))(jax.random.PRNGKey(0))
    gradient = jax.tree.map(lambda x: jnp.full_like(x, 2.0), state.params)
    _, opt_state = jax.jit(optimizer.update)(
      optimizer_lib.stack_by_shape(gradient),
      state.opt_state,
      optimizer_lib.stack_by_shape(state.params),
    )
    state = state._replace(opt_state=opt_state)
    tasks = held_out.HeldOut(0, miniature.PRIOR, 2, miniature.HORIZON)
    shown = dashboard.histograms(tasks, {})
    parameters, gradients = (
      shown[name](state) for name in ('parameters', 'gradients')
    )
    self.assertEqual(parameters.keys(), gradients.keys())
    self.assertLen(parameters, len(jax.tree.leaves(state.params)))
    for name, mean in gradients.items():
      self.assertEqual(mean.shape, parameters[name].shape)
      # One step of a mean that begins at 0.
      self.assertBetween(mean.max(), 0.05, 1.0)
      self.assertEqual(mean.min(), mean.max())


if __name__ == '__main__':
  absltest.main()
