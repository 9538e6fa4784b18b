"""Tests of the interventions that a study allows."""

import itertools
import math
from typing import Any

from absl.testing import absltest
from absl.testing import parameterized
import numpy as np
import pytest

from acme_cbo.infra import errors
from acme_cbo.study import space

_VARIABLES = {
  'temperature': {'domain': (28, 37)},
  'feed': {'domain': (0, 5), 'step': 0.25, 'cost': 3},
  'stirring': {'values': [400, 200, 800]},
  'is coated': {'values': [False, True]},
}
_MIXTURE = {name: {'domain': (0, 100)} for name in 'abcde'}


def _random_space(rng: np.random.Generator) -> space.Space:
  """Returns a space of all kinds of variables with random constraints.

  Each constraint is satisfied by one allowed point, so that the space is not
  empty.
  """
  variables, point = {}, {}
  for j in range(rng.integers(2, 7)):
    low = float(rng.normal() * 10.0 ** rng.integers(-3, 4))
    width = float(rng.uniform(0.5, 2) * 10.0 ** rng.integers(-3, 4))
    kind = rng.integers(3)
    settings: dict[str, Any] = {'domain': (low, low + width)}
    if kind == 1:
      settings['step'] = width / int(rng.integers(1, 40))
    elif kind == 2:
      settings = {'values': [low + width * k for k in range(3)]}
    variables[f'v{j}'] = settings
  free = space.parse(variables, 'all')
  for name, variable in free.variables.items():
    point[name] = variable.nearest(rng.uniform(variable.low, variable.high))
  constraints = []
  for _ in range(rng.integers(1, 4)):
    names = rng.choice([*variables], rng.integers(1, len(variables) + 1), False)
    terms = {name: float(rng.normal()) for name in names}
    total = math.fsum(c * point[name] for name, c in terms.items())
    # No other point of a grid satisfies an equality with such coefficients.
    varies = any([*variables[name]] == ['domain'] for name in names)
    relation = rng.choice(['<=', '>=', *(['='] if varies else [])])
    slack = {'<=': abs(rng.normal()), '>=': -abs(rng.normal()), '=': 0.0}
    total += slack[relation] * 0.1 * abs(total)
    texts = [f'{c!r} * {name}' for name, c in terms.items()]
    constraints.append(f'{" + ".join(texts)} {relation} {total!r}')
  return space.parse(variables, 'all', constraints)


def _nearest(allowed: space.Space, do, **arguments) -> dict[str, float]:
  nearest = allowed.nearest(do, **arguments)
  assert nearest is not None
  return nearest


def _violations(num_spaces: int, num_points: int, seed: int) -> tuple[int, int]:
  """Returns how many points violate a constraint, and how many are not found.

  All spaces have a point, but the solver may not find it where the terms of a
  constraint differ by many orders of magnitude.
  """
  rng = np.random.default_rng(seed)
  violations = missed = 0
  for _ in range(num_spaces):
    try:
      random_space = _random_space(rng)
    except errors.UsageError:
      missed += num_points
      continue
    for _ in range(num_points):
      do = {
        name: rng.uniform(2 * v.low - v.high, 2 * v.high - v.low)
        for name, v in random_space.variables.items()
      }
      nearest = random_space.nearest(do)
      if nearest is None:
        missed += 1
      else:
        violations += bool(random_space.complaint(nearest))
  return violations, missed


class VariableTest(parameterized.TestCase):
  def test_kinds(self):
    parsed = space.parse(_VARIABLES)
    nearest = [
      variable.nearest(value)
      for variable, value in zip(
        parsed.variables.values(), (50, 1.1, 310, 0.7), strict=True
      )
    ]
    self.assertEqual(nearest, [37, 1.0, 400, 1.0])
    self.assertEqual(parsed.variables['feed'].cost, 3)
    self.assertTrue(parsed.variables['is coated'].is_bool)

  def test_steps_have_no_rounding(self):
    variable = space.parse({'x': {'domain': (0, 1), 'step': 0.1}}).variables[
      'x'
    ]
    self.assertEqual(variable.nearest(0.31), 0.3)  # Not 3 * 0.1.

  def test_a_domain_may_end_between_steps(self):
    variable = space.parse({'x': {'domain': (0, 1), 'step': 0.3}}).variables[
      'x'
    ]
    self.assertEqual(variable.nearest(1.0), 0.9)
    self.assertEqual(variable.high, 0.9)

  @parameterized.parameters(
    ({}, 'neither a domain nor values'),
    ({'domain': (1, 1)}, 'the lower first'),
    ({'domain': (0, math.inf)}, 'two numbers'),
    ({'domain': '05'}, 'two numbers'),
    ({'domain': (False, True)}, 'two numbers'),
    ({'domain': (0, 1), 'step': 2}, 'at most 1, the width'),
    ({'domain': (0, 1), 'step': 0}, 'above 0'),
    ({'domain': (0, 1), 'step': 1e-12}, 'leave the step out'),
    (
      {'domain': (1e12, 1e12 + 10), 'step': 1e-5},
      'too small for the digits',
    ),
    ({'domain': (1e12, 1e12 + 0.0001)}, 'too narrow for its digits'),
    ({'domain': (0, 1), 'values': [1, 2]}, 'one or the other'),
    ({'values': [1]}, '2 to 1,000 different numbers'),
    ({'values': [1, 1.0]}, 'different numbers'),
    ({'values': [1, math.nan]}, 'different numbers'),
    ({'values': [True, 2]}, 'or of False and True'),
    ({'values': ['red', 'blue']}, 'unordered categories are not supported'),
    ({'domain': (0, 1), 'cost': 0}, 'finite and above 0'),
    ({'domian': (0, 1)}, 'did you mean domain'),
    ((0, 1), "a dict such as {'domain': (0, 1)}"),
  )
  def test_wrong_settings(self, settings, message):
    with self.assertRaises(errors.UsageError) as caught:
      space.parse({'x': settings})
    self.assertIn(message, str(caught.exception))
    self.assertIn("variable 'x'", str(caught.exception))

  @parameterized.parameters(
    ([],), ({},), ({1: {'domain': (0, 1)}},), ({'\x1b': {}},)
  )
  def test_wrong_variables(self, variables):
    with self.assertRaises(errors.UsageError):
      space.parse(variables)


class SetsTest(parameterized.TestCase):
  @parameterized.parameters(
    (None, 4), ({'max_size': 2}, 10), ('all', 1), ({'max_size': 9}, 15)
  )
  def test_number_of_sets(self, allowed, expected):
    self.assertLen(space.parse(_VARIABLES, allowed).sets, expected)

  def test_listed(self):
    parsed = space.parse(
      _VARIABLES,
      {'sets': [['feed'], ('feed', 'stirring'), ['stirring', 'feed']]},
    )
    self.assertLen(parsed.sets, 2)
    self.assertEqual(parsed.complaint({'feed': 1}), '')
    self.assertIn(
      'may not be set together', parsed.complaint({'stirring': 200})
    )

  @parameterized.parameters(
    ({'max_size': 0}, 'an int of 1 or more'),
    ({'max_size': True}, 'an int of 1 or more'),
    ({'sets': []}, '1 to 5,000 lists'),
    ({'sets': ['feed']}, 'must be a list of names'),
    ({'sets': [['fed']]}, 'did you mean feed'),
    ({'size': 2}, "'max_size': 2"),
    ('each', "'max_size': 2"),
  )
  def test_wrong_sets(self, allowed, message):
    with self.assertRaisesRegex(errors.UsageError, message):
      space.parse(_VARIABLES, allowed)

  def test_too_many(self):
    many = {f'v{j}': {'domain': (0, 1)} for j in range(30)}
    with self.assertRaisesRegex(errors.UsageError, 'lower max_size'):
      space.parse(many, {'max_size': 4})
    with self.assertRaisesRegex(errors.UsageError, 'at most 10'):
      space.parse(many, 'all')

  @parameterized.parameters(
    ({}, 'sets no variable'),
    ({'fed': 1}, 'did you mean feed'),
    ({'feed': 1.1}, 'between 0 and 5 in steps of 0.25'),
    ({'stirring': 300}, 'one of 200, 400, 800'),
    ({'is coated': 2}, 'False or True'),
    ({'temperature': 27}, 'between 28 and 37'),
    ({'feed': 1, 'temperature': 30}, 'may not be set together'),
    ({'feed': math.nan}, 'between'),
  )
  def test_complaints(self, do, message):
    self.assertIn(message, space.parse(_VARIABLES).complaint(do))


class ConstraintTest(parameterized.TestCase):
  @parameterized.parameters(
    ('2*a + b <= 10', {'a': 2, 'b': 1}, False, 10),
    ('a/2 - b >= -1.5e1', {'a': -0.5, 'b': 1}, False, 15),
    ('10 >= a', {'a': 1}, False, 10),
    ('a + b = c', {'a': 1, 'b': 1, 'c': -1}, True, 0),
    ('3*(a + b) - 2*a == 1', {'a': 1, 'b': 3}, True, 1),
    ('`a` + 1 <= 2*`b`', {'a': 1, 'b': -2}, False, -1),
  )
  def test_reads(self, text, coefficients, is_equality, bound):
    (parsed,) = space.parse(_MIXTURE, 'all', [text]).constraints
    self.assertEqual(dict(parsed.coefficients), coefficients)
    self.assertEqual((parsed.is_equality, parsed.bound), (is_equality, bound))

  def test_two_relations(self):
    parsed = space.parse(_MIXTURE, 'all', ['10 <= a + b <= 20'])
    self.assertLen(parsed.constraints, 2)
    self.assertEqual(
      sum(_nearest(parsed, dict.fromkeys('abcde', 1.0)).values()), 13
    )

  @parameterized.parameters(
    ('a * b <= 1', 'not linear'),
    ('a ** 2 <= 1', 'not linear'),
    ('1 / a <= 1', 'not linear'),
    ('a + 1', 'none of <=, >= and ='),
    ('a < 1', 'relation other than'),
    ('a - a <= 1', 'compares no variable'),
    ('1 <= 2', 'compares no variable'),
    ('a / 0 <= 2', 'divides by 0'),
    ('2 a <= 1', 'cannot be read'),
    ('2a <= 1', 'cannot be read'),
    ('b + 2`a` <= 1', 'cannot be read'),
    ('a <= ', 'cannot be read'),
    ('', 'cannot be read'),
    ('ab <= 1', 'no variable that may be set'),
    ('__import__("os").system("true") <= 1', 'no variable that may be set'),
    ('a <= 1e999', 'too large'),
    ('(' * 400 + 'a' + ')' * 400 + ' <= 1', 'cannot be read'),
    ('a <= ' + '1' * 2000, 'at most 1,000 characters'),
    (3, 'must be a text'),
    ('a = 101', "no allowed values of 'a' satisfy"),
    ('a + b >= 201', "no allowed values of 'a', 'b' satisfy"),
  )
  def test_wrong_constraints(self, text, message):
    with self.assertRaisesRegex(errors.UsageError, message):
      space.parse(_MIXTURE, 'all', [text])

  def test_a_text_is_no_list(self):
    with self.assertRaisesRegex(errors.UsageError, 'list of texts'):
      space.parse(_MIXTURE, 'all', 'a <= 1')

  def test_variables_of_a_constraint_are_set_together(self):
    parsed = space.parse(
      _VARIABLES, {'max_size': 2}, ['feed + temperature <= 40']
    )
    for names in itertools.chain(parsed.sets):
      self.assertEqual('feed' in names, 'temperature' in names)
    self.assertIn('cannot be set without', parsed.complaint({'feed': 1}))
    with self.assertRaisesRegex(errors.UsageError, 'raise max_size'):
      space.parse(_VARIABLES, {'max_size': 1}, ['feed + temperature <= 40'])
    with self.assertRaisesRegex(errors.UsageError, 'add the others'):
      space.parse(
        _VARIABLES, {'sets': [['feed']]}, ['feed + temperature <= 40']
      )

  def test_mixtures_sum_to_the_total(self):
    mixture = space.parse(
      _MIXTURE, 'all', ['a + b + c + d + e = 100', 'a <= 50']
    )
    nearest = _nearest(mixture, {'a': 90, 'b': 60, 'c': 60, 'd': 60, 'e': 0})
    # The excess of 130 is shared by those that can give: d = 70/3 each.
    self.assertAlmostEqual(sum(nearest.values()), 100, delta=1e-9)
    self.assertEqual(nearest['e'], 0)
    self.assertAlmostEqual(nearest['b'], nearest['c'])

  def test_fixed_values_stay(self):
    mixture = space.parse(_MIXTURE, 'all', ['a + b + c + d + e = 100'])
    nearest = _nearest(mixture, dict.fromkeys('abcde', 70.0), fixed=['a'])
    self.assertEqual(nearest['a'], 70)
    self.assertEqual(mixture.complaint(nearest), '')
    self.assertIsNone(
      mixture.nearest(dict.fromkeys('abcde', 70.0), fixed=['a', 'b'])
    )

  def test_allowed_values_stay(self):
    mixture = space.parse(_MIXTURE, 'all', ['a + b + c + d + e <= 100'])
    do = {'a': 1 / 3, 'b': 0.1, 'c': 0.2, 'd': 7.0, 'e': 9.0}
    self.assertEqual(_nearest(mixture, do), do)

  def test_steps_under_a_sum(self):
    steps = {name: {'domain': (0, 100), 'step': 0.1} for name in 'abc'}
    mixture = space.parse(steps, 'all', ['a + b + c = 100'])
    nearest = _nearest(mixture, {'a': 33.34, 'b': 33.34, 'c': 33.34})
    self.assertEqual(mixture.complaint(nearest), '')
    self.assertEqual(sorted(nearest.values()), [33.3, 33.3, 33.4])

  def test_no_violations(self):
    self.assertEqual(_violations(num_spaces=60, num_points=10, seed=0), (0, 0))

  @pytest.mark.slow
  @pytest.mark.timeout(600)
  def test_no_violation_in_100_000(self):
    violations, missed = _violations(num_spaces=2_020, num_points=50, seed=1)
    self.assertEqual(violations, 0)
    self.assertLess(missed, 1000)


if __name__ == '__main__':
  absltest.main()
