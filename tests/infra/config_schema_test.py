"""The schema is that of the code, and refuses what is not in it."""

import typing

from absl.testing import absltest
from absl.testing import parameterized

from acme_cbo.agents.grpo import config as grpo_config
from acme_cbo.beliefs import exact_posterior
from acme_cbo.infra import config_schema
from acme_cbo.infra import errors
from acme_cbo.networks import config as networks_config
from acme_cbo.scms import graphs
from acme_cbo.scms import mechanisms
from configs import grpo


def _changed(*changes):
  """The default config with some fields set, of any type, new or not."""
  values = grpo.get_config().to_dict()
  for path, value in changes:
    *sections, field = path.split('.')
    inner = values
    for section in sections:
      inner = inner[section]
    inner[field] = value
  return values


def _fields(values, prefix=''):
  """Paths of all fields but the name."""
  for name, value in values.items():
    if isinstance(value, dict):
      yield from _fields(value, f'{prefix}{name}.')
    elif name != 'name':
      yield f'{prefix}{name}'


def _default(path):
  value = grpo.get_config().to_dict()
  for name in path.split('.'):
    value = value[name]
  return value


_NUMBERS = tuple(
  path
  for path, field in config_schema.FIELDS.items()
  if not field.options and not field.pattern
)


class FieldsTest(parameterized.TestCase):
  def test_are_those_of_the_config(self):
    self.assertCountEqual(
      config_schema.FIELDS, _fields(grpo.get_config().to_dict())
    )

  def test_options_and_members_are_those_of_the_code(self):
    for section, classes in (
      ('rewards', (grpo_config.RewardKinds,)),
      ('network', (networks_config.NetworkConfig,)),
      ('grpo', (grpo_config.LossConfig,)),
    ):
      for cls in classes:
        for name, hint in typing.get_type_hints(cls).items():
          options = config_schema.FIELDS[f'{section}.{name}'].options
          self.assertEqual(options, typing.get_args(hint), name)
    for name, kind in (
      ('graph_weights', graphs.Graph),
      ('family_weights', mechanisms.Family),
      ('noise_weights', mechanisms.Noise),
    ):
      members = tuple(member.name.lower() for member in kind)
      self.assertEqual(config_schema.FIELDS[f'scms.{name}'].members, members)
    self.assertEqual(
      config_schema._MAX_EXACT_VARIABLES, exact_posterior.MAX_VARIABLES
    )

  @parameterized.parameters(*config_schema.FIELDS)
  def test_has_the_type_of_its_default_and_a_meaning(self, path):
    field, default = config_schema.FIELDS[path], _default(path)
    if path in _NUMBERS:
      value = default[0] if field.members else default
      self.assertIs(type(value), field.kind)
    self.assertRegex(field.meaning, r'^[^\n]{8,80}$')

  @parameterized.parameters(*_NUMBERS)
  def test_both_ends_are_allowed_and_nothing_beyond(self, path):
    field = config_schema.FIELDS[path]
    config_schema._check_number(path, field.low, field)
    config_schema._check_number(path, field.high, field)
    beyond = (float('nan'), float('inf')) if field.kind is float else ()
    for value in (field.low - 1, field.high + 1, -(10**400), *beyond):
      with self.assertRaisesRegex(
        errors.UsageError,
        rf'^config\.{path} is {value}; it must be at least {field.low} and at '
        'most',
      ):
        config_schema._check_number(path, value, field)

  def test_the_table_has_a_line_for_each(self):
    lines = config_schema.table().splitlines()
    self.assertLen(lines, len(config_schema.FIELDS) + 1)
    for path, line in zip(config_schema.FIELDS, lines[1:], strict=True):
      self.assertStartsWith(line, f'--config.{path} ')
      self.assertIn(config_schema.FIELDS[path].meaning, line)


_FAMILIES = 'linear, fourier, tanh, sigmoid, product, exponential, mixed, bumps'


class BadValuesTest(parameterized.TestCase):
  def assert_refused(self, config, sentence):
    """Asserts that the whole message is this, on one line."""
    with self.assertRaises(errors.UsageError) as caught:
      config_schema.check(config)
    self.assertEqual(str(caught.exception), sentence)

  @parameterized.parameters(
    ('optimizer.learning_rate', float('nan'), 'at least 1e-12 and at most'),
    ('optimizer.learning_rate', float('inf'), 'at least 1e-12 and at most'),
    ('optimizer.learning_rate', 0.0, 'at least 1e-12 and at most'),
    ('optimizer.learning_rate', '2e-3', 'a number of type float'),
    ('optimizer.learning_rate', None, 'a number of type float'),
    ('rewards.parent', -0.25, 'at least 0.0 and at most 1000.0'),
    ('rewards.parent', True, 'a number of type float'),
    ('training.quick_compile', 1, 'one of False, True'),
    ('seed', -1, 'at least 0 and at most 2147483647'),
    ('seed', 1.0, 'a number of type int'),
    ('grpo.num_tasks', True, 'a number of type int'),
    ('grpo.num_tasks', 16.0, 'a number of type int'),
    ('grpo.num_tasks', (16,), 'a number of type int'),
    ('grpo.num_generations', 1, 'at least 2 and at most 4096'),
    ('grpo.num_generations', 10**400, 'at least 2 and at most 4096'),
    ('grpo.scale_rewards', 'std', "one of 'group', 'batch', 'none'"),
    ('grpo.scale_rewards', None, "one of 'group', 'batch', 'none'"),
    ('grpo.baseline', 'mean', "one of 'group', 'reached'"),
    ('grpo.regret_floor', -0.1, 'at least 0.0 and at most 1.0'),
    ('grpo.supervision', ['process'], "one of 'process', 'outcome'"),
    ('grpo.simple_regret_share', 1.5, 'at least 0.0 and at most 1.0'),
    ('scms.graph_weights', 1.0, 'a tuple of numbers'),
    ('scms.graph_weights', '11121', 'a tuple of numbers'),
    ('evaluation.num_tasks', 9, 'at least 10 and at most 1000000'),
  )
  def test_value(self, path, value, right):
    with self.assertRaises(errors.UsageError) as caught:
      config_schema.check(_changed((path, value)))
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
      _changed(('scms.family_weights', (1.0, value, 1.0, 1.0, 1.0))),
      f'config.scms.family_weights is {value!r}; it must be {right}',
    )

  @parameterized.parameters(
    '../../etc', '', '.', '..', '.hidden', 'a/b', 'a b', 'a\n', 'é', 'x' * 65, 7
  )
  def test_name(self, name):
    self.assert_refused(
      _changed(('name', name)),
      f'config.name is {name!r}; a name begins with a letter or a digit, goes '
      'on with those, ".", "_" or "-", and has at most 64 of them',
    )

  @parameterized.parameters('a', '7', 'x' * 64, 'Run-1.2_b', 'a..')
  def test_good_name(self, name):
    config_schema.check(_changed(('name', name)))

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
    self.assert_refused(_changed((path, 1)), sentence)

  @parameterized.parameters(*_NUMBERS, 'name', 'rewards', 'grpo.supervision')
  def test_missing_field(self, path):
    values = grpo.get_config().to_dict()
    *sections, field = path.split('.')
    inner = values
    for section in sections:
      inner = inner[section]
    del inner[field]
    self.assert_refused(values, f'config.{path} is missing')

  @parameterized.parameters(3, None, 'auto')
  def test_section_that_is_none(self, value):
    self.assert_refused(
      _changed(('network', value)),
      f'config.network is {value!r}; it must be a section',
    )

  @parameterized.parameters(
    ('variables', 9, 8), ('density', 0.9, 0.8), ('noise', 2.0, 1.5)
  )
  def test_lower_end_above_the_upper(self, name, low, high):
    self.assert_refused(
      _changed((f'scms.min_{name}', low)),
      f'config.scms.min_{name} is {low}, above config.scms.max_{name}, which '
      f'is {high}',
    )

  def test_equal_ends_are_fine(self):
    scms = grpo.get_config().scms
    names = ('variables', 'density', 'noise', 'width')
    config_schema.check(
      _changed(*((f'scms.min_{x}', scms[f'max_{x}']) for x in names))
    )

  @parameterized.parameters(
    ('graph', (1.0, 1.0), 'chain, fork, star, erdos_renyi, scale_free'),
    ('graph', (0, 0, 0, 0, 0), 'chain, fork, star, erdos_renyi, scale_free'),
    ('family', (), _FAMILIES),
    ('family', (1.0,) * 6, _FAMILIES),
  )
  def test_weights(self, name, weights, members):
    self.assert_refused(
      _changed((f'scms.{name}_weights', weights)),
      f'config.scms.{name}_weights is {weights}; it must have one weight for '
      f'each of {members}, and one of them above 0',
    )

  def test_heads_that_do_not_divide_the_width(self):
    self.assert_refused(
      _changed(('network.num_heads', 5)),
      'config.network.num_heads is 5; it must divide config.network.width, '
      'which is 48',
    )

  @parameterized.parameters(
    ('rewards.belief', 'learned'), ('network.belief_input', 'none')
  )
  def test_exact_belief_of_too_many_variables(self, name, other):
    self.assert_refused(
      _changed(('scms.max_variables', 9), (name, 'exact')),
      f"config.{name} is 'exact', which sums over all sets of at most 8 "
      'variables; config.scms.max_variables is 9: lower it, or choose '
      f'{other!r}',
    )

  @parameterized.parameters('rewards.belief', 'network.belief_input')
  def test_exact_belief_of_too_many_rows(self, name):
    fits = ('horizon.num_observations', 90), (name, 'exact')
    config_schema.check(_changed(*fits))
    with self.assertRaisesRegex(
      errors.UsageError, f"^config.{name} is 'exact', .* 100 rows; .* are 101 "
    ):
      config_schema.check(_changed(*fits, ('horizon.num_interventions', 11)))

  @parameterized.parameters(
    ('mine:A', "is 'mine:A'; it must be a tuple of texts"),
    (('mine.A',), r"has 'mine.A'; each has to match [\w.]+:\w+"),
    ((3,), r'has 3; each has to match [\w.]+:\w+'),
  )
  def test_callbacks(self, value, sentence):
    config_schema.check(_changed(('training.callbacks', ('a.b:C', 'd:E'))))
    self.assert_refused(
      _changed(('training.callbacks', value)),
      f'config.training.callbacks {sentence}',
    )

  def test_the_first_update_is_not_profiled(self):
    config_schema.check(_changed(('training.profile_from', 2)))
    with self.assertRaisesRegex(errors.UsageError, '_from is 1; it must'):
      config_schema.check(_changed(('training.profile_from', 1)))

  @parameterized.parameters(
    (('profile_from', 300), 'profile_from is 300, after the last update'),
    (('convergence_window', 300), 'window is 300, longer than the run of 260'),
  )
  def test_what_would_never_happen(self, change, sentence):
    name, value = change
    changes = (
      ('training.stop_when_converged', True),
      (f'training.{name}', value),
    )
    with self.assertRaisesRegex(errors.UsageError, sentence):
      config_schema.check(_changed(*changes))

  def test_rewards_that_are_all_nothing(self):
    names = ('optimization', 'structure', 'parent', 'exploration')
    with self.assertRaisesRegex(
      errors.UsageError, 'are 0, and no intervention'
    ):
      config_schema.check(
        _changed(*((f'rewards.{name}', 0.0) for name in names))
      )

  def test_minibatches_that_do_not_divide_the_tasks(self):
    self.assert_refused(
      _changed(('grpo.num_minibatches', 24)),
      'config.grpo.num_minibatches times '
      'config.grpo.gradient_accumulation_steps is 48; it must divide '
      'config.grpo.num_tasks, which is 64',
    )


if __name__ == '__main__':
  absltest.main()
