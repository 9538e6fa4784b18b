import inspect
from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np

from acme_cbo.agents.grpo import agent
from acme_cbo.agents.grpo import optimizer as optimizer_lib
from acme_cbo.agents.grpo import rewards as grpo_rewards
from acme_cbo.experiments import builder
from configs import grpo
from configs import rewards as balances

# The presets that configs/grpo.py tells of.
_PRESETS = ('', 'smoke', 'linear', 'large', 'general')
_TOP = ('name', 'seed')


class PresetsTest(parameterized.TestCase):
  @parameterized.parameters(*_PRESETS)
  def test_builds(self, preset):
    config = grpo.get_config(preset)
    built = builder.from_config(config.to_dict())
    self.assertEqual(built.name, f'grpo-{preset}' if preset else 'grpo')
    self.assertTrue(config.is_locked)

  def test_an_unknown_preset_is_refused(self):
    with self.assertRaisesRegex(ValueError, "no preset 'smok'; .*smoke, lin"):
      grpo.get_config('smok')


class BalancesTest(parameterized.TestCase):
  @parameterized.parameters(
    ('balanced', (1.0, 0.5, 0.3, 0.1)),
    ('optimization_only', (1.0, 0.0, 0.0, 0.0)),
    ('structure_heavy', None),
    ('exploration_heavy', None),
  )
  def test_changes_the_weights_alone(self, balance, weights):
    built = builder.from_config(balances.get_config(balance).to_dict())
    usual = builder.from_config(grpo.get_config().to_dict())
    self.assertEqual(built.name, f'grpo-{balance}')
    self.assertEqual(built.training, usual.training)
    self.assertEqual(built.parts.kinds, usual.parts.kinds)
    self.assertEqual(built.parts.grpo, usual.parts.grpo)
    found = built.parts.weights
    if weights:
      self.assertEqual(found, weights)
    else:
      heaviest = balance.removesuffix('_heavy')
      self.assertEqual(getattr(found, heaviest), max(found))
      self.assertEqual(sum(weight == max(found) for weight in found), 1)

  def test_a_preset_stands_behind_it(self):
    config = balances.get_config('structure_heavy:smoke')
    self.assertEqual(config.name, 'grpo-smoke-structure_heavy')
    self.assertEqual(config.training, grpo.get_config('smoke').training)

  def test_an_unknown_balance_is_refused(self):
    with self.assertRaisesRegex(ValueError, "no balance 'even'; .*balanced"):
      balances.get_config('even')


class BuiltPartsTest(absltest.TestCase):
  """What is built carries the values of the config, each in its place."""

  def setUp(self):
    super().setUp()
    self.config = grpo.get_config()
    # Values that no other field has and that no code has as a default.
    self.config.name = 'mine'
    self.config.seed = 123
    for i, name in enumerate(grpo_rewards.COMPONENTS):
      self.config.rewards[name] = 0.125 + i
    self.config.rewards.belief = 'exact'
    self.config.rewards.potential = 'entropy'
    self.config.grpo.num_iterations = 3
    self.config.grpo.beta = 0.0625
    self.config.grpo.epsilon_high = 0.28
    self.config.grpo.scale_rewards = 'none'
    self.config.network.num_cells = 9
    self.config.network.width = 20
    self.config.network.num_heads = 2
    self.config.scms.graph_weights = (0.0, 1.0, 2.0, 3.0, 4.0)

  def assert_carries(self, part, section, names=None):
    for name in names or section:
      self.assertEqual(getattr(part, name), section[name], name)

  def test_values(self):
    config = self.config
    built = builder.from_config(config.to_dict())
    parts = built.parts
    self.assert_carries(built, config, _TOP)
    self.assert_carries(built.training, config.training)
    self.assert_carries(built.evaluation, config.evaluation)
    self.assert_carries(parts.prior, config.scms)
    self.assertEqual(parts.prior.num_cells, 9)
    self.assert_carries(parts.horizon, config.horizon)
    self.assert_carries(parts.weights, config.rewards, grpo_rewards.COMPONENTS)
    self.assert_carries(parts.kinds, config.rewards, vars(parts.kinds))
    for part in (parts.grpo, parts.settings):
      self.assert_carries(part, config.grpo, vars(part))
    self.assert_carries(parts, config.grpo, ('num_tasks', 'num_generations'))

  def test_every_field_of_grpo_is_used(self):
    parts = builder.from_config(self.config.to_dict()).parts
    used = {*vars(parts.grpo), *vars(parts.settings)}
    used |= {'num_tasks', 'num_generations'}
    self.assertCountEqual(self.config.grpo, used)

  def test_network(self):
    # From the shapes of its parameters and of what it gives.
    parts = builder.from_config(self.config.to_dict()).parts
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
    self.config.training.num_updates = 100
    with mock.patch.object(
      optimizer_lib, 'schedule', wraps=optimizer_lib.schedule
    ) as make:
      built = builder.from_config(self.config.to_dict())
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
    self.config.optimizer.warmup_updates = 5
    for updates in (0, 4, 5):
      self.config.training.num_updates = updates
      optimizer = builder.from_config(self.config.to_dict()).parts.optimizer
      params = optimizer_lib.stacked({'w': jnp.ones(2)})
      optimizer.update(params, optimizer.init(params), params)


if __name__ == '__main__':
  absltest.main()
