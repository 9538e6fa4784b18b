import inspect
from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import ml_collections

from acme_cbo import errors
from acme_cbo import experiment
from acme_cbo import learner
from acme_cbo import rewards
from acme_cbo.runtimes import fused
from configs import grpo
from configs import rewards as balances

# The presets that configs/grpo.py tells of.
_PRESETS = ('', 'smoke', 'linear', 'large', 'benchmark')
_TOP = ('name', 'seed')


def _changed(path: str, value) -> ml_collections.ConfigDict:
  """The default config with one field set, of any type, new or not."""
  values = grpo.get_config().to_dict()
  *sections, field = path.split('.')
  inner = values
  for section in sections:
    inner = inner[section]
  inner[field] = value
  return ml_collections.ConfigDict(values, type_safe=False)


def _numbers(values: dict, prefix: str = ''):
  """Paths of all fields that are a number or a tuple of them."""
  for name, value in values.items():
    if isinstance(value, dict):
      yield from _numbers(value, f'{prefix}{name}.')
    elif not isinstance(value, str | bool):
      yield f'{prefix}{name}'


_NUMBERS = tuple(_numbers(grpo.get_config().to_dict()))


class PresetsTest(parameterized.TestCase):
  @parameterized.parameters(*_PRESETS)
  def test_builds(self, preset):
    config = grpo.get_config(preset)
    built = experiment.from_config(config)
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
    built = experiment.from_config(balances.get_config(balance))
    usual = experiment.from_config(grpo.get_config())
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


class RangesTest(parameterized.TestCase):
  def test_every_number_has_a_range_and_every_range_a_number(self):
    self.assertCountEqual(experiment._RANGES, _NUMBERS)

  @parameterized.parameters(*_NUMBERS)
  def test_both_ends_are_allowed_and_nothing_beyond(self, path):
    low, high = experiment._RANGES[path]
    default = grpo.get_config()
    for name in path.split('.'):
      default = default[name]

    def check(value):
      if isinstance(default, tuple):
        experiment._check_value(path, (value,), tuple[float, ...])
      else:
        experiment._check_value(path, value, float)

    check(low)
    check(high)
    for value in (low - 1, high + 1, float('nan'), float('inf'), -(10**400)):
      with self.assertRaisesRegex(
        errors.UsageError,
        rf'^config\.{path} is {value}; it must be at least {low} and at most',
      ):
        check(value)


class BadValuesTest(parameterized.TestCase):
  def assert_refused(self, config, sentence):
    """Asserts that the whole message is this, on one line."""
    with self.assertRaises(errors.UsageError) as caught:
      experiment.from_config(config)
    self.assertEqual(str(caught.exception), sentence)

  @parameterized.parameters(
    ('optimizer.learning_rate', float('nan'), 'at least 1e-12 and at most'),
    ('optimizer.learning_rate', float('inf'), 'at least 1e-12 and at most'),
    ('optimizer.learning_rate', 0.0, 'at least 1e-12 and at most'),
    ('optimizer.learning_rate', '2e-3', 'a number of type float'),
    ('optimizer.learning_rate', None, 'a number of type float'),
    ('rewards.parent', -0.25, 'at least 0.0 and at most 1000.0'),
    ('rewards.parent', True, 'a number of type float'),
    ('training.quick_compile', 1, 'True or False'),
    ('seed', -1, 'at least 0 and at most 2147483647'),
    ('seed', 1.0, 'a number of type int'),
    ('grpo.num_tasks', True, 'a number of type int'),
    ('grpo.num_tasks', 16.0, 'a number of type int'),
    ('grpo.num_tasks', (16,), 'a number of type int'),
    ('grpo.num_generations', 1, 'at least 2 and at most 4096'),
    ('grpo.num_generations', 10**400, 'at least 2 and at most 4096'),
    ('grpo.scale_rewards', 'std', "one of 'group', 'batch', 'none'"),
    ('grpo.scale_rewards', None, "one of 'group', 'batch', 'none'"),
    ('grpo.supervision', ['process'], "one of 'process', 'outcome'"),
    ('grpo.simple_regret_share', 1.5, 'at least 0.0 and at most 1.0'),
    ('scms.graph_weights', 1.0, 'a tuple of numbers'),
    ('scms.graph_weights', '11121', 'a tuple of numbers'),
    ('evaluation.num_tasks', 9, 'at least 10 and at most 1000000'),
  )
  def test_value(self, path, value, right):
    with self.assertRaises(errors.UsageError) as caught:
      experiment.from_config(_changed(path, value))
    message = str(caught.exception)
    self.assertStartsWith(
      message, f'config.{path} is {value!r}; it must be {right}'
    )
    self.assertNotIn('\n', message)

  @parameterized.parameters(
    (-1.0, 'at least 0.0 and at most 1000.0'),
    (float('nan'), 'at least 0.0 and at most 1000.0'),
    ('a', 'a number of type float'),
    (False, 'a number of type float'),
  )
  def test_value_in_a_tuple(self, value, right):
    self.assert_refused(
      _changed('scms.family_weights', (1.0, value, 1.0, 1.0, 1.0)),
      f'config.scms.family_weights is {value!r}; it must be {right}',
    )

  @parameterized.parameters(
    '../../etc', '', '.', '..', '.hidden', 'a/b', 'a b', 'a\n', 'é', 'x' * 65, 7
  )
  def test_name(self, name):
    self.assert_refused(
      _changed('name', name),
      f'config.name is {name!r}; a name begins with a letter or a digit, goes '
      'on with those, ".", "_" or "-", and has at most 64 of them',
    )

  @parameterized.parameters('a', '7', 'x' * 64, 'Run-1.2_b', 'a..')
  def test_good_name(self, name):
    self.assertEqual(experiment.from_config(_changed('name', name)).name, name)

  @parameterized.parameters(
    ('sede', 'config.sede is unknown; did you mean seed?'),
    (
      'grpo.num_generation',
      'config.grpo.num_generation is unknown; '
      'did you mean grpo.num_generations?',
    ),
    ('grpo.qqqq', 'config.grpo.qqqq is unknown'),
    # A field of the network that the prior shares is set there alone.
    ('scms.num_cells', 'config.scms.num_cells is unknown'),
  )
  def test_unknown_field(self, path, sentence):
    self.assert_refused(_changed(path, 1), sentence)

  @parameterized.parameters(*_NUMBERS, 'name', 'rewards', 'grpo.supervision')
  def test_missing_field(self, path):
    values = grpo.get_config().to_dict()
    *sections, field = path.split('.')
    inner = values
    for section in sections:
      inner = inner[section]
    del inner[field]
    self.assert_refused(
      ml_collections.ConfigDict(values), f'config.{path} is missing'
    )

  @parameterized.parameters(3, None, 'auto')
  def test_section_that_is_none(self, value):
    self.assert_refused(
      _changed('network', value),
      f'config.network is {value!r}; it must be a section',
    )

  @parameterized.parameters(
    ('variables', 9, 8), ('density', 0.9, 0.8), ('noise', 2.0, 1.5)
  )
  def test_lower_end_above_the_upper(self, name, low, high):
    self.assert_refused(
      _changed(f'scms.min_{name}', low),
      f'config.scms.min_{name} is {low}, above config.scms.max_{name}, which '
      f'is {high}',
    )

  def test_equal_ends_are_fine(self):
    config = grpo.get_config()
    config.scms.min_variables = config.scms.max_variables
    config.scms.min_density = config.scms.max_density
    config.scms.min_noise = config.scms.max_noise
    config.scms.min_width = config.scms.max_width
    experiment.from_config(config)

  @parameterized.parameters(
    ('graph', (1.0, 1.0), 'chain, fork, star, erdos_renyi, scale_free'),
    ('graph', (0, 0, 0, 0, 0), 'chain, fork, star, erdos_renyi, scale_free'),
    ('family', (), 'linear, fourier, tanh, sigmoid, product'),
    ('family', (1.0,) * 6, 'linear, fourier, tanh, sigmoid, product'),
  )
  def test_weights(self, name, weights, members):
    self.assert_refused(
      _changed(f'scms.{name}_weights', weights),
      f'config.scms.{name}_weights is {weights}; it must have one weight for '
      f'each of {members}, and one of them above 0',
    )

  def test_heads_that_do_not_divide_the_width(self):
    self.assert_refused(
      _changed('network.num_heads', 5),
      'config.network.num_heads is 5; it must divide config.network.width, '
      'which is 48',
    )

  @parameterized.parameters(
    ('rewards.belief', 'learned'), ('network.belief_input', 'none')
  )
  def test_exact_belief_of_too_many_variables(self, name, other):
    config = _changed('scms.max_variables', 9)
    config.update_from_flattened_dict({name: 'exact'})
    self.assert_refused(
      config,
      f"config.{name} is 'exact', which sums over all sets of at most 8 "
      'variables; config.scms.max_variables is 9: lower it, or choose '
      f'{other!r}',
    )

  def test_minibatches_that_do_not_divide_the_tasks(self):
    self.assert_refused(
      _changed('grpo.num_minibatches', 24),
      'config.grpo.num_minibatches is 24; it must divide '
      'config.grpo.num_tasks, which is 64',
    )


class BuiltPartsTest(absltest.TestCase):
  """What is built carries the values of the config, each in its place."""

  def setUp(self):
    super().setUp()
    self.config = grpo.get_config()
    # Values that no other field has and that no code has as a default.
    self.config.name = 'mine'
    self.config.seed = 123
    for i, name in enumerate(rewards.COMPONENTS):
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
    built = experiment.from_config(config)
    parts = built.parts
    self.assert_carries(built, config, _TOP)
    self.assert_carries(built.training, config.training)
    self.assert_carries(built.evaluation, config.evaluation)
    self.assert_carries(parts.prior, config.scms)
    self.assertEqual(parts.prior.num_cells, 9)
    self.assert_carries(parts.horizon, config.horizon)
    self.assert_carries(parts.weights, config.rewards, rewards.COMPONENTS)
    self.assert_carries(parts.kinds, config.rewards, vars(parts.kinds))
    for part in (parts.grpo, parts.settings):
      self.assert_carries(part, config.grpo, vars(part))
    self.assert_carries(parts, config.grpo, ('num_tasks', 'num_generations'))

  def test_every_field_of_grpo_is_used(self):
    parts = experiment.from_config(self.config).parts
    used = {*vars(parts.grpo), *vars(parts.settings)}
    used |= {'num_tasks', 'num_generations'}
    self.assertCountEqual(self.config.grpo, used)

  def test_network(self):
    # From the shapes of its parameters and of what it gives.
    parts = experiment.from_config(self.config).parts
    state = jax.eval_shape(lambda: fused.init(jax.random.key(0), parts))
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
      learner, 'make_optimizer', wraps=learner.make_optimizer
    ) as make:
      experiment.from_config(self.config)
    arguments = inspect.signature(learner.make_optimizer).bind(
      *make.call_args.args, **make.call_args.kwargs
    )
    self.assertEqual(
      arguments.arguments,
      {
        'learning_rate': 6e-3,
        'warmup_steps': 5 * 12,
        'total_steps': 100 * 12,
        'final_fraction': 0.05,
        'max_grad_norm': 1.0,
        'weight_decay': 1e-4,
      },
    )

  def test_warm_up_that_is_longer_than_the_run(self):
    self.config.optimizer.warmup_updates = 5
    for updates in (0, 4, 5):
      self.config.training.num_updates = updates
      optimizer = experiment.from_config(self.config).parts.optimizer
      params = {'w': jnp.ones(2)}
      optimizer.update(params, optimizer.init(params), params)


if __name__ == '__main__':
  absltest.main()
