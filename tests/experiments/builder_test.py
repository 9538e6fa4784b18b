import inspect
import json
from unittest import mock

from absl.testing import absltest
import jax
import jax.numpy as jnp
import numpy as np

from acme_cbo.agents.grpo import agent
from acme_cbo.agents.grpo import optimizer as optimizer_lib
from acme_cbo.agents.grpo import rewards as grpo_rewards
from acme_cbo.experiments import builder
from acme_cbo.experiments import config as config_lib
from acme_cbo.infra import config_schema
from acme_cbo.infra import errors


class BuiltPartsTest(absltest.TestCase):
  """Each value of the config reaches the part that it configures."""

  def setUp(self):
    super().setUp()
    # Values that no other field has and that no code has as a default.
    self.config = config_schema.override(
      config_lib.GRPOConfig(),
      {
        'name': 'mine',
        'seed': 123,
        'rewards.belief': 'exact',
        'rewards.potential': 'entropy',
        'grpo.num_iterations': 3,
        'grpo.beta': 0.0625,
        'network.num_cells': 9,
        'network.width': 20,
        'network.num_heads': 2,
        'horizon.num_interventions': 7,
        'scms.graph_weights.chain': 0.0,
        'scms.graph_weights.star': 3.0,
        **{
          f'rewards.{name}': 0.125 + i
          for i, name in enumerate(grpo_rewards.COMPONENTS)
        },
      },
    )

  def test_values(self):
    config = self.config
    built = builder.from_config(config)
    parts = built.parts
    self.assertEqual(built.config, config)
    self.assertEqual(parts.horizon, config.horizon)
    self.assertEqual(parts.rewards, config.rewards)
    self.assertEqual(parts.update, config.grpo)
    for name, value in vars(config.scms).items():
      self.assertEqual(getattr(parts.prior, name), value, name)
    self.assertEqual(parts.prior.num_cells, 9)
    self.assertEqual(parts.prior.num_interventions, 7)

  def test_further_sizes(self):
    config = config_schema.override(
      self.config,
      {'rewards.belief': 'learned', 'horizon.mixture': '30x5x2x9 3x4x1x6'},
    )
    parts = builder.from_config(config).parts
    sizes = [
      (
        one.horizon.num_observations,
        one.horizon.num_interventions,
        one.prior.num_interventions,
        one.prior.max_set_size,
        one.prior.max_variables,
      )
      for one in (parts, *parts.other_sizes)
    ]
    self.assertEqual(
      sizes, [(20, 7, 7, 1, 8), (30, 5, 5, 2, 9), (3, 4, 4, 1, 6)]
    )
    for one in parts.other_sizes:
      self.assertIs(one.network, parts.network)
      self.assertIs(one.optimizer, parts.optimizer)
      self.assertEmpty(one.other_sizes)

  def test_wrong_sizes(self):
    for mixture, message in (
      ('30x5x2', 'NxTxZxD'),
      ('30x5x2x8 30x5x2x99', 'config.scms.max_variables is 99'),
      ('1x5x2x8', 'config.horizon.num_observations is 1'),
      ('30x5x2x2', 'config.scms.min_variables is 3, above'),
      # The exact belief is for fewer variables.
      ('30x5x2x9', "config.rewards.belief is 'exact'"),
    ):
      config = config_schema.override(self.config, {'horizon.mixture': mixture})
      with (
        self.subTest(mixture),
        self.assertRaisesRegex(errors.UsageError, message),
      ):
        builder.from_config(config)

  def test_is_validated(self):
    config = config_schema.override(self.config, {'grpo.num_minibatches': 24})
    with self.assertRaisesRegex(errors.UsageError, 'num_minibatches times'):
      builder.from_config(config)

  def test_programs_are_kept_apart_by_what_is_traced(self):
    def parts_from(**changes):
      changed = {name.replace('__', '.'): x for name, x in changes.items()}
      config = config_schema.override(self.config, changed)
      return json.dumps(builder.from_config(config).parts_from)

    usual = parts_from()
    self.assertEqual(parts_from(name='other', seed=7), usual)
    self.assertEqual(parts_from(training__eval_every=3), usual)
    self.assertEqual(parts_from(evaluation__num_tasks=30), usual)
    for changes in (
      {'training__num_updates': 3},
      {'scms__noise_weights__gumbel': 1.0},
      {'rewards__parent': 0.5},
      {'network__num_blocks': 1},
      {'grpo__beta': 0.5},
      {'optimizer__weight_decay': 0.5},
      {'horizon__num_observations': 7},
    ):
      self.assertNotEqual(parts_from(**changes), usual, changes)

  def test_network(self):
    # From the shapes of its parameters and of what it gives.
    parts = builder.from_config(self.config).parts
    state = jax.eval_shape(lambda: agent.init(jax.random.key(0), parts))
    shapes = {
      name: leaves['w'].shape
      for name, leaves in state.params.items()
      if 'w' in leaves
    }
    blocks = {name.split('/')[-1].split('_')[0] for name in shapes}
    self.assertLen([name for name in blocks if name.startswith('block')], 3)
    by_name = {name.split('/')[-1]: shape for name, shape in shapes.items()}
    self.assertEqual(by_name['embedding'][1], 20)
    self.assertEqual(by_name['block0_mlp_in'], (20, 40))
    self.assertEqual(by_name['outcome'], (20, 9 + 2))
    cache = jax.eval_shape(lambda: parts.network.empty_cache(7, 4))
    self.assertEqual([key.shape for key in cache.keys], [(4, 10, 7)] * 3)
    self.assertEqual([v.shape for v in cache.values], [(4, 7, 10)] * 3)

  def test_optimizer_counts_gradient_steps(self):
    # 3 passes of 4 minibatches are 12 gradient steps an update.
    config = config_schema.override(self.config, {'training.num_updates': 100})
    with mock.patch.object(
      optimizer_lib, 'schedule', wraps=optimizer_lib.schedule
    ) as make:
      built = builder.from_config(config)
    arguments = inspect.signature(optimizer_lib.schedule).bind(
      *make.call_args.args, **make.call_args.kwargs
    )
    self.assertEqual(
      arguments.arguments,
      {
        'learning_rate': 6e-3,
        'warmup_steps': 5 * 12,
        'total_steps': 100 * 12,
        'final_fraction': 0.05,
      },
    )
    # By update: up to the highest after the warm-up, down to a share of it.
    rates = [float(built.learning_rate(update)) for update in (0, 5, 100)]
    np.testing.assert_allclose(rates, (0.0, 6e-3, 3e-4), rtol=1e-5)

  def test_warm_up_that_is_longer_than_the_run(self):
    for updates in (0, 4, 5):
      config = config_schema.override(
        self.config,
        {'optimizer.warmup_updates': 5, 'training.num_updates': updates},
      )
      optimizer = builder.from_config(config).parts.optimizer
      params = optimizer_lib.stack_by_shape({'w': jnp.ones(2)})
      optimizer.update(params, optimizer.init(params), params)


if __name__ == '__main__':
  absltest.main()
