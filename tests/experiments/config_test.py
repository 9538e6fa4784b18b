"""The fields of `GRPOConfig`, and the values that are refused."""

import dataclasses
import json
import pathlib
import tempfile
from typing import Any
from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized

from acme_cbo.beliefs import exact_posterior
from acme_cbo.experiments import config as config_lib
from acme_cbo.experiments import presets
from acme_cbo.infra import config_schema
from acme_cbo.infra import errors
from acme_cbo.scms import config as scms_config
from acme_cbo.scms import graphs
from acme_cbo.scms import mechanisms
from acme_cbo.training import config as training_config

_FIELDS = config_schema.fields(config_lib.GRPOConfig)
_NUMBERS = tuple(path for path, field in _FIELDS.items() if field.is_number)


def _changed(*changes: tuple[str, Any]) -> dict[str, Any]:
  """Plain values of the default config with some fields set."""
  values = config_lib.GRPOConfig().to_dict()
  for path, value in changes:
    *sections, name = path.split('.')
    inner = values
    for section in sections:
      inner = inner[section]
    inner[name] = value
  return values


def _check(*changes: tuple[str, Any]) -> None:
  config_lib.GRPOConfig.from_dict(_changed(*changes))


class FieldsTest(parameterized.TestCase):
  def test_defaults_are_valid(self):
    config_lib.GRPOConfig().validate()

  @parameterized.parameters(*_FIELDS)
  def test_has_a_meaning_and_a_range_of_its_type(self, path):
    field = _FIELDS[path]
    self.assertRegex(field.meaning, r'^[^\n]{8,150}$')
    if path in _NUMBERS:
      self.assertIs(type(field.low), field.kind)
      self.assertIs(type(field.high), field.kind)

  @parameterized.parameters(*_NUMBERS)
  def test_nothing_beyond_the_ends_is_allowed(self, path):
    field = _FIELDS[path]
    beyond = (float('nan'), float('inf')) if field.kind is float else ()
    for value in (field.low - 1, field.high + 1, -(10**400), *beyond):
      with self.assertRaisesRegex(
        errors.UsageError,
        rf'^config\.{path} is {value}; it must be at least {field.low} and at '
        'most',
      ):
        _check((path, value))

  @parameterized.parameters(
    (scms_config.GraphWeights, graphs.Graph),
    (scms_config.FamilyWeights, mechanisms.Family),
    (scms_config.NoiseWeights, mechanisms.Noise),
  )
  def test_weights_are_in_the_order_of_the_enumeration(self, weights, members):
    names = [member.name.lower() for member in members]
    self.assertEqual(
      [field.name for field in dataclasses.fields(weights)], names
    )
    self.assertEqual([int(member) for member in members], [*range(len(names))])
    for member in members:
      only = weights.only(member.name.lower())
      self.assertEqual(
        only.in_order, tuple(float(other == member) for other in members)
      )

  def test_limit_of_the_exact_belief_is_that_of_the_code(self):
    self.assertEqual(
      config_lib._MAX_EXACT_VARIABLES, exact_posterior.MAX_VARIABLES
    )

  def test_help_has_every_field(self):
    lines = config_lib.help_text().splitlines()
    flags = [line.partition('=')[0] for line in lines if line.startswith('--')]
    self.assertEqual(flags, [f'--config.{path}' for path in _FIELDS])
    text = ' '.join(' '.join(lines).split())
    for field in _FIELDS.values():
      self.assertIn(f' ({field.allowed()}) {field.meaning}', text)
    self.assertLessEqual(max(map(len, lines)), 80)


class ConstructionTest(parameterized.TestCase):
  def test_by_sections(self):
    config = config_lib.GRPOConfig(
      seed=1, training=training_config.TrainingConfig(num_updates=5)
    )
    config.validate()
    self.assertEqual(config.training.num_updates, 5)
    self.assertEqual(config.network, config_lib.GRPOConfig().network)

  def test_is_validated(self):
    config = config_lib.GRPOConfig(
      training=training_config.TrainingConfig(num_updates=-5)
    )
    with self.assertRaisesRegex(
      errors.UsageError, 'config.training.num_updates is -5; it must be at'
    ):
      config.validate()

  @parameterized.parameters(*presets.PRESETS)
  def test_survives_json(self, name):
    config = config_schema.override(
      presets.preset(name),
      {'training.callbacks': ('a:B', ('c:D', {'every': 5, 'of': [1, 2]}))},
    )
    text = json.dumps(config.to_dict())
    self.assertEqual(config_lib.GRPOConfig.from_dict(json.loads(text)), config)


class BadValuesTest(parameterized.TestCase):
  def assert_refused(self, values, sentence):
    """Asserts that the whole message is this, on one line."""
    with self.assertRaises(errors.UsageError) as caught:
      config_lib.GRPOConfig.from_dict(values)
    self.assertEqual(str(caught.exception), sentence)

  @parameterized.parameters(
    ('optimizer.learning_rate', 0.0, 'at least 1e-12 and at most'),
    ('optimizer.learning_rate', '2e-3', 'a number of type float'),
    ('rewards.parent', True, 'a number of type float'),
    ('training.quick_compile', 1, 'one of False, True'),
    ('seed', 1.0, 'a number of type int'),
    ('grpo.num_generations', 1, 'at least 2 and at most 4096'),
    ('grpo.scale_rewards', 'std', "one of 'group', 'batch', 'none'"),
    ('grpo.baseline', 'mean', "one of 'group', 'reached'"),
    ('grpo.supervision', ['process'], "one of 'process', 'outcome'"),
    ('network.belief_input', None, "one of 'none', 'exact'"),
    ('runtime.kind', 'parallel', "one of 'fused', 'mesh', 'threaded'"),
    ('simulator.make', 'a.b', "empty or 'module:function'"),
    ('simulator.command', 'a\nb', 'a command on one line'),
    ('evaluation.num_tasks', 9, 'at least 10 and at most 1000000'),
  )
  def test_value(self, path, value, right):
    with self.assertRaises(errors.UsageError) as caught:
      _check((path, value))
    message = str(caught.exception)
    value = tuple(value) if isinstance(value, list) else value
    self.assertStartsWith(
      message, f'config.{path} is {value!r}; it must be {right}'
    )
    self.assertNotIn('\n', message)

  @parameterized.parameters(
    '../../etc', '', '.', '..', '.hidden', 'a/b', 'a b', 'a\n', 'é', 'x' * 65, 7
  )
  def test_name(self, name):
    self.assert_refused(
      _changed(('name', name)),
      f'config.name is {name!r}; it must be 1 to 64 letters, digits, ".", "_" '
      'or "-", beginning with a letter or a digit',
    )

  @parameterized.parameters('a', '7', 'x' * 64, 'Run-1.2_b', 'a..')
  def test_good_name(self, name):
    _check(('name', name))

  @parameterized.parameters(
    ('sede', 'config.sede is unknown; did you mean seed?'),
    (
      'grpo.num_generation',
      'config.grpo.num_generation is unknown; '
      'did you mean grpo.num_generations?',
    ),
    ('grpo.qqqq', 'config.grpo.qqqq is unknown'),
    (
      'scms.family_weights.fourrier',
      'config.scms.family_weights.fourrier is unknown; '
      'did you mean scms.family_weights.fourier?',
    ),
    # A field of the network that the prior shares is set there alone.
    ('scms.num_cells', 'config.scms.num_cells is unknown'),
  )
  def test_unknown_field(self, path, sentence):
    self.assert_refused(_changed((path, 1)), sentence)

  @parameterized.parameters(3, None, 'auto')
  def test_section_that_is_none(self, value):
    self.assert_refused(
      _changed(('horizon', value)),
      f'config.horizon is {value!r}; it must be a section with the fields '
      'num_observations, num_interventions, mixture',
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
    scms = vars(config_lib.GRPOConfig().scms)
    names = ('variables', 'density', 'noise', 'width')
    _check(*((f'scms.min_{x}', scms[f'max_{x}']) for x in names))

  @parameterized.parameters(
    ('graph', 'chain, fork, star, erdos_renyi, scale_free'),
    ('noise', 'normal, uniform, laplace, gumbel, student'),
  )
  def test_weights_that_are_all_nothing(self, kind, names):
    weights = dict.fromkeys(names.split(', '), 0)
    self.assert_refused(
      _changed((f'scms.{kind}_weights', weights)),
      f'all weights of config.scms.{kind}_weights are 0; one of {names} must '
      'be above 0',
    )

  def test_heads_that_do_not_divide_the_width(self):
    self.assert_refused(
      _changed(('network.num_heads', 5)),
      'config.network.num_heads is 5; it must divide the width, which is 48',
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
    _check(*fits)
    with self.assertRaisesRegex(
      errors.UsageError, f"^config.{name} is 'exact', .* 100 rows; .* are 101 "
    ):
      _check(*fits, ('horizon.num_interventions', 11))

  def test_callbacks(self):
    _check(('training.callbacks', ('a.b:C', 'd:E', ('f:G', {'every': 5}))))
    for value, sentence in (
      ('mine:A', "is 'mine:A'; it must be a tuple of texts"),
      (('mine.A',), "has 'mine.A'; each entry must be 'module:Class', or a pa"),
      ((('mine:A', {}, 3),), r'has .*; a pair must be a text and a dict'),
    ):
      with self.assertRaisesRegex(
        errors.UsageError, rf'^config.training.callbacks {sentence}'
      ):
        _check(('training.callbacks', value))

  def test_the_first_update_is_not_profiled(self):
    _check(('training.profile_from', 2))
    with self.assertRaisesRegex(errors.UsageError, '_from is 1; it must'):
      _check(('training.profile_from', 1))

  @parameterized.parameters(
    (('profile_from', 300), 'profile_from is 300, after the last update'),
    (('convergence_window', 300), 'window is 300, longer than the run of 260'),
  )
  def test_what_would_never_happen(self, change, sentence):
    name, value = change
    with self.assertRaisesRegex(errors.UsageError, sentence):
      _check(
        ('training.stop_when_converged', True), (f'training.{name}', value)
      )

  def test_rewards_that_are_all_nothing(self):
    names = ('optimization', 'structure', 'parent', 'exploration')
    with self.assertRaisesRegex(
      errors.UsageError, 'are 0, and no intervention'
    ):
      _check(*((f'rewards.{name}', 0.0) for name in names))

  def test_minibatches_that_do_not_divide_the_tasks(self):
    self.assert_refused(
      _changed(('grpo.num_minibatches', 24)),
      'config.grpo.num_minibatches times '
      'config.grpo.gradient_accumulation_steps is 48; it must divide '
      'config.grpo.num_tasks, which is 64',
    )

  @parameterized.parameters(
    ('simulator.command', 'x', 'config.simulator has both make and command'),
    ('runtime.kind', 'fused', "kind is 'fused'; a simulator needs 'threaded'"),
    ('rewards.parent', 0.5, 'config.rewards.parent is 0.5, which needs the tr'),
    ('grpo.regret_floor', 0.1, 'config.grpo.regret_floor is 0.1, which needs'),
  )
  def test_simulator(self, path, value, sentence):
    config = presets.simulator('a.b:C')
    config.validate()
    with self.assertRaisesRegex(errors.UsageError, sentence):
      config_schema.override(config, {path: value}).validate()


class ResumeTest(parameterized.TestCase):
  """Run directories that somebody else may have made."""

  def setUp(self):
    super().setUp()
    self.root = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))

  @parameterized.parameters(
    ('simulator.command', 'touch proof'),
    ('simulator.make', 'os:getcwd'),
    ('training.callbacks', ['antigravity:Fly']),
  )
  def test_a_directory_runs_no_program(self, field, value):
    values = _changed((field, value))
    (self.root / 'config.json').write_text(json.dumps(values))
    with (
      mock.patch.object(config_lib.GRPOConfig, 'validate', autospec=True),
      self.assertRaisesRegex(
        errors.UsageError,
        f'{self.root} would run a program .*config.{field} = ',
      ),
    ):
      config_lib.read_to_resume(self.root)

  def test_a_directory_without_programs(self):
    (self.root / 'config.json').write_text(json.dumps(_changed()))
    config = config_lib.read_to_resume(self.root)
    self.assertEqual(config, config_lib.read(self.root))


class EarlierVersionsTest(parameterized.TestCase):
  """Directories of runs that hold the weights as lists, by position."""

  def setUp(self):
    super().setUp()
    self.root = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
    self.values = _changed(
      ('scms.graph_weights', [1.0, 2.0, 3.0, 4.0, 5.0]),
      ('scms.family_weights', [1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 2.0]),
      ('scms.noise_weights', [0.0, 1.0, 0.0, 3.0]),
      ('training.callbacks', ['a:B']),
    )

  def _write(self):
    (self.root / 'config.json').write_text(json.dumps(self.values))

  def test_weights_are_read_by_name(self):
    self._write()
    config = config_lib.read(self.root)
    scms = config.scms
    self.assertEqual(scms.graph_weights.in_order, (1.0, 2.0, 3.0, 4.0, 5.0))
    self.assertEqual(scms.family_weights.bumps, 2.0)
    self.assertEqual(scms.noise_weights.gumbel, 3.0)
    self.assertEqual(config.training.callbacks, ('a:B',))
    self.assertEmpty(config_lib.differences(self.root, config))
    other = config_schema.override(config, {'scms.noise_weights.gumbel': 0.5})
    self.assertEqual(
      config_lib.differences(self.root, other),
      ['config.scms.noise_weights.gumbel: 3.0 -> 0.5'],
    )

  def test_arguments_of_callbacks_are_the_same_after_json(self):
    config = config_schema.override(
      config_lib.GRPOConfig(),
      {
        'training.callbacks': (
          ('a:B', {'every': 5, 'names': ('x', 'y')}),
          'c:D',
        )
      },
    )
    self.values = config.to_dict()
    self._write()
    self.assertEmpty(config_lib.differences(self.root, config))
    self.assertEmpty(
      config_lib.differences(self.root, config_lib.read(self.root))
    )

  @parameterized.parameters(3, 5)
  def test_another_number_of_weights_is_refused(self, number):
    self.values['scms']['noise_weights'] = [1.0] * number
    self._write()
    with self.assertRaisesRegex(
      errors.UsageError, 'config.scms.noise_weights is .*; it must be a section'
    ):
      config_lib.read(self.root)

  def test_values_without_scms_are_left_as_they_are(self):
    self.assertEqual(scms_config.with_named_weights({'a': 1}), {'a': 1})

  def test_a_field_that_is_missing(self):
    del self.values['scms']['latent']
    self._write()
    with self.assertRaisesRegex(errors.UsageError, 'scms.latent is missing'):
      config_lib.read(self.root)
    self.assertEqual(
      config_lib.differences(
        self.root,
        config_schema.override(
          config_lib.GRPOConfig.from_dict(_changed()),
          {
            'scms.graph_weights': vars(scms_config.GraphWeights(1, 2, 3, 4, 5)),
            'scms.family_weights': vars(
              scms_config.FamilyWeights(1, 0, 0, 0, 0, 0, 0, 2)
            ),
            'scms.noise_weights': vars(scms_config.NoiseWeights(0, 1, 0, 3)),
            'training.callbacks': ('a:B',),
          },
        ),
      ),
      ['config.scms.latent: nothing -> 0.0'],
    )


if __name__ == '__main__':
  absltest.main()
