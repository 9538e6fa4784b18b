"""Tests of config sections, on a small config."""

import dataclasses
import json
import math
from typing import Any, Literal

from absl.testing import absltest
from absl.testing import parameterized

from acme_cbo.infra import config_schema
from acme_cbo.infra import errors


@dataclasses.dataclass(frozen=True)
class _Weights(config_schema.Section):
  left: float = config_schema.field(1.0, 'weight of left', low=0.0, high=9.0)
  right: float = config_schema.field(0.0, 'weight of right', low=0.0, high=9.0)


@dataclasses.dataclass(frozen=True)
class _Loss(config_schema.Section):
  size: int = config_schema.field(4, 'number of things', low=2, high=8)
  kind: Literal['mean', 'sum'] = config_schema.field('mean', 'kind of loss')
  quick: bool = config_schema.field(False, 'whether to be quick')
  weights: _Weights = dataclasses.field(default_factory=_Weights)

  def check(self, path: str) -> None:
    if self.size > 4 and self.quick:
      raise errors.UsageError(f'{path}.size is too large to be quick')


@dataclasses.dataclass(frozen=True)
class _Config(config_schema.Section):
  name: str = config_schema.field(
    'a', 'name of all', pattern=r'[a-z]+', form='small letters'
  )
  loss: _Loss = dataclasses.field(default_factory=_Loss)
  hooks: tuple[Any, ...] = config_schema.field(
    (),
    'hooks to call',
    pattern=r'\w+:\w+',
    form="'module:Class'",
    with_arguments=True,
  )


def _changed(path: str, value: Any) -> dict[str, Any]:
  """Plain values of the config with one of them set, or deleted where None."""
  values = config_schema.to_dict(_Config())
  *sections, name = path.split('.')
  inner = values
  for section in sections:
    inner = inner[section]
  if value is None:
    del inner[name]
  else:
    inner[name] = value
  return values


@dataclasses.dataclass(frozen=True)
class _Task(config_schema.Section):
  limit: float | None = config_schema.field(None, 'a limit', low=0.5, high=2.0)
  # The text stands for anything that is no setting.
  out: str = config_schema.argument('output')
  note: str = config_schema.argument('remark', '')


class FieldsTest(parameterized.TestCase):
  def test_are_in_order_with_default_range_and_options(self):
    fields = config_schema.fields(_Config)
    self.assertEqual(
      [*fields],
      [
        'name',
        'loss.size',
        'loss.kind',
        'loss.quick',
        'loss.weights.left',
        'loss.weights.right',
        'hooks',
      ],
    )
    size = fields['loss.size']
    self.assertEqual((size.default, size.low, size.high), (4, 2, 8))
    self.assertEqual(fields['loss.kind'].options, ('mean', 'sum'))
    self.assertEqual(fields['loss.quick'].options, (False, True))

  def test_a_number_needs_a_range(self):
    with self.assertRaisesRegex(TypeError, "'of it' needs low and high"):
      config_schema.field(1.0, 'of it', low=0.0)
    with self.assertRaisesRegex(TypeError, "'of it' needs low and high"):
      config_schema.field(None, 'of it')

  def test_a_float_that_may_be_none(self):
    field = config_schema.fields(_Task)['limit']
    self.assertIs(field.kind, float)
    self.assertEqual(field.allowed(), 'None or float, 0.5 to 2')
    for value in (None, 0.5, 2):
      config_schema.check(_Task(limit=value, out=''))
    with self.assertRaisesRegex(errors.UsageError, '^limit is 0.1; it must be'):
      config_schema.check(_Task(limit=0.1, out=''), path='')

  def test_arguments_are_no_settings(self):
    self.assertEqual([*config_schema.fields(_Task)], ['limit'])
    self.assertEqual(
      config_schema.meanings(_Task),
      {'limit': 'a limit', 'out': 'output', 'note': 'remark'},
    )
    self.assertEqual(_Task(out='o').note, '')
    with self.assertRaises(TypeError):
      _Task()  # pyrefly: ignore[missing-argument]

  def test_table(self):
    table = config_schema.table(_Config)
    self.assertIn('\n--config.loss.size=4  (int, 2 to 8)\n    number of', table)
    self.assertIn("\n--config.loss.kind=mean  ('mean', 'sum')\n    k", table)
    self.assertIn('\n--config.hooks=', table)
    self.assertLessEqual(max(map(len, table.splitlines())), 80)


class DictsTest(parameterized.TestCase):
  def test_there_and_back_through_json(self):
    config = config_schema.override(
      _Config(),
      {
        'loss.weights.right': 3.0,
        'hooks': ('a:B', ('c:D', {'every': 5, 'names': ['x']})),
      },
    )
    values = json.loads(json.dumps(config_schema.to_dict(config)))
    self.assertEqual(config_schema.from_dict(_Config, values), config)
    self.assertEqual(config.loss.weights.right, 3.0)
    self.assertEqual(_Config().loss.weights.right, 0.0)
    self.assertEqual(config_schema.flat(values)['loss.weights.right'], 3.0)

  @parameterized.parameters(
    ('loss.sizes', 1, 'config.loss.sizes is unknown; did you mean loss.size?'),
    ('losss', 1, 'config.losss is unknown; did you mean loss?'),
    ('loss.size', None, 'config.loss.size is missing'),
    ('loss', None, 'config.loss is missing'),
    (
      'loss.weights',
      (1.0, 2.0),
      'config.loss.weights is (1.0, 2.0); it must be a section with the fields '
      'left, right',
    ),
  )
  def test_members_that_do_not_fit(self, path, value, sentence):
    with self.assertRaises(errors.UsageError) as caught:
      config_schema.from_dict(_Config, _changed(path, value))
    self.assertEqual(str(caught.exception), sentence)

  def test_an_override_that_is_not_there(self):
    for path in ('loss.sizes', 'los.size'):
      with self.assertRaisesRegex(errors.UsageError, 'is unknown; did you'):
        config_schema.override(_Config(), {path: 3})


class CheckTest(parameterized.TestCase):
  @parameterized.parameters(
    ('loss.size', 9, 'is 9; it must be at least 2 and at most 8'),
    ('loss.size', 1, 'is 1; it must be at least 2 and at most 8'),
    ('loss.size', 10**400, 'at least 2 and at most 8'),
    ('loss.size', 4.0, 'is 4.0; it must be a number of type int'),
    ('loss.size', True, 'is True; it must be a number of type int'),
    ('loss.size', (4,), r'is \(4,\); it must be a number of type int'),
    ('loss.weights.left', math.nan, 'is nan; it must be at least 0.0'),
    ('loss.weights.left', math.inf, 'is inf; it must be at least 0.0'),
    ('loss.weights.left', '1', "is '1'; it must be a number of type float"),
    ('loss.kind', 'median', "is 'median'; it must be one of 'mean', 'sum'"),
    ('loss.kind', ['mean'], "it must be one of 'mean', 'sum'"),
    ('loss.quick', 1, 'is 1; it must be one of False, True'),
    ('name', 'A', "is 'A'; it must be small letters"),
    ('name', 'a\n', 'it must be small letters'),
    ('name', 7, 'is 7; it must be small letters'),
    ('hooks', 'a:B', "is 'a:B'; it must be a tuple of texts"),
    (
      'hooks',
      ('a.B',),
      r"has 'a.B'; each entry must be 'module:Class', or a pair "
      r"\('module:Class', {argument: value}\)$",
    ),
    ('hooks', (3,), "has 3; each entry must be 'module:Class'"),
    ('hooks', (('a', {}),), "each entry must be 'module:Class'"),
    ('hooks', (('a:B', 3),), 'a pair must be a text and a dict of its arg'),
    ('hooks', (('a:B',),), 'a pair must be a text and a dict of its arguments'),
    ('hooks', (('a:B', {'1': 2}),), "the argument '1'; an argument must be"),
    ('hooks', (('a:B', {'x': {1}}),), 'arguments that JSON cannot hold'),
    ('hooks', (('a:B', {'x': math.nan}),), 'arguments that JSON cannot hold'),
  )
  def test_values_that_do_not_fit(self, path, value, sentence):
    config = config_schema.from_dict(_Config, _changed(path, value))
    with self.assertRaisesRegex(
      errors.UsageError, rf'^config\.{path} .*{sentence}'
    ) as caught:
      config_schema.check(config)
    self.assertNotIn('\n', str(caught.exception))

  @parameterized.parameters(
    ('loss.size', 2),
    ('loss.size', 8),
    ('loss.weights.left', 9),
    ('loss.kind', 'sum'),
    ('hooks', ('a:B', ('c:D', {}), ['e:F', {'x': [1, None]}])),
  )
  def test_values_that_fit(self, path, value):
    config = config_schema.from_dict(_Config, _changed(path, value))
    config_schema.check(config)

  def test_a_section_checks_itself(self):
    config = _Config(loss=_Loss(size=5, quick=True))
    with self.assertRaisesRegex(errors.UsageError, '^config.loss.size is too'):
      config_schema.check(config)

  def test_a_section_of_another_class(self):
    wrong: Any = _Weights()
    with self.assertRaisesRegex(errors.UsageError, 'config.loss is .*a _Loss'):
      config_schema.check(_Config(loss=wrong))


if __name__ == '__main__':
  absltest.main()
