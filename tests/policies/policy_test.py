"""Tests of trained policies on arrays and named variables."""

import functools
from typing import Any

from absl.testing import absltest
from absl.testing import parameterized
import numpy as np
import pandas as pd

from acme_cbo.infra import errors
from acme_cbo.policies import policy as policy_lib

# Always the same, so that the programs are compiled once.
_NUM_INTERVENTIONS = 4
_DOMAINS = {'x': (-3.0, 3.0), 'z': (-900.0, 900.0)}
_shipped = functools.cache(policy_lib.load_policy)


def _records(num_rows=20):
  """Records of x, z = 300 x + noise and y = -(z / 300 - 1)^2."""
  rng = np.random.default_rng(0)
  x = rng.normal(size=num_rows)
  z = 300 * x + rng.normal(size=num_rows)
  return pd.DataFrame({'x': x, 'z': z, 'y': -((z / 300 - 1) ** 2)})


def _start(observations=None, variables=None, **changes):
  arguments: dict[str, Any] = dict(
    target='y', domains=_DOMAINS, num_interventions=_NUM_INTERVENTIONS
  )
  return _shipped().start(
    _records() if observations is None else observations,
    variables,
    **(arguments | changes),
  )


def _outcome(do):
  z = do.get('z', 300 * do.get('x', 0.0))
  return {'x': do.get('x', 0.0), 'z': z, 'y': -((z / 300 - 1) ** 2)}


def _play(session, num_steps=_NUM_INTERVENTIONS):
  """Returns the interventions that a session chooses."""
  made = []
  for _ in range(num_steps):
    made.append(session.choose())
    session.observe(_outcome(made[-1]))
  return made


class StartTest(parameterized.TestCase):
  def test_arrays_and_data_frames_are_the_same(self):
    records = _records()
    made = _play(_start(records))
    self.assertEqual(made, _play(_start(records.to_numpy(), ['x', 'z', 'y'])))
    self.assertEqual(made, _play(_start(records.to_numpy().tolist(), 'xzy')))

  def test_columns_are_found_by_name(self):
    records = _records()
    shuffled = records.assign(note='text')[['y', 'note', 'z', 'x']]
    session = _start(shuffled, ['x', 'z', 'y'])
    self.assertEqual(session.variables, ('x', 'z', 'y'))
    self.assertEqual(_play(session), _play(_start(records)))

  def test_the_seed_decides(self):
    self.assertEqual(_play(_start(seed=1)), _play(_start(seed=1)))
    self.assertNotEqual(_play(_start(seed=1)), _play(_start(seed=2)))

  @parameterized.parameters(
    ({'variables': ['x', 'w', 'y']}, "a domain of 'z', which is none"),
    ({'variables': ['x', 'z', 'y', 'w']}, "have no column 'w'"),
    ({'variables': ['x', 'x', 'y']}, "two variables have the same name, 'x'"),
    ({'target': 'w'}, "the target is 'w', which is none of the variables"),
    ({'goal': 'more'}, "the goal is 'more'; it must be 'maximize' or"),
    ({'domains': None}, 'the domains are None; they must be a dict'),
    ({'domains': {}}, 'no variable has a domain'),
    ({'domains': {'y': (0, 1)}}, "the target 'y' has a domain"),
    ({'domains': {'x': (1, 0)}}, "the domain of 'x' is .1, 0.; it must be two"),
    ({'domains': {'x': ('0', '1')}}, "the domain of 'x' is"),
    ({'num_interventions': 0}, 'num_interventions is 0; it must be an int of'),
    ({'num_interventions': 2.5}, 'num_interventions is 2.5; it must be an int'),
    ({'num_interventions': '3'}, "num_interventions is '3'; it must be an int"),
    ({'max_set_size': 1.5}, 'max_set_size is 1.5; it must be an int of 1 or'),
    ({'costs': {'x': 'a'}}, "the cost of 'x' is 'a'; it must be finite and"),
    ({'costs': {'w': 1}}, "there is a cost of 'w', which is none"),
    ({'costs': 5}, 'the costs are 5; they must be a dict'),
    ({'budget': 'x'}, "the budget is 'x'; it must be finite and above 0"),
    ({'budget': 0.5}, 'the budget is 0.5; the cheapest intervention costs 1'),
    ({'domains': {'x': (0, 10**400)}}, "the domain of 'x' is"),
    (
      {'domains': dict.fromkeys(range(400), (0, 1)), 'max_set_size': 2}
      | {'variables': [*range(400), 'y'], 'observations': np.ones((9, 401))},
      '80,200 sets of up to 2 out of 400 variables, at most 24,937 are allowed',
    ),
    (
      {'observations': _records().assign(x=1 + 1j)},
      "observation 0 of 'x' is .*1.1j.*; it must be a finite number",
    ),
    (
      {'observations': np.ma.masked_less(_records(), 0), 'variables': 'xzy'},
      'masked .missing. values',
    ),
    ({'observations': [[1, 2, 3]] * 5}, 'name the columns of the observations'),
    ({'observations': _records(1)}, '1 observations; there must be 2 or more'),
    (
      {'observations': [[1, 2], [3]], 'variables': 'xzy'},
      '^observations: ',
    ),
    (
      {'observations': [[1, 2], [3, 4]], 'variables': 'xzy'},
      'must be rows of 3 values, one for each of x, z, y',
    ),
    (
      {'observations': _records().assign(z=['a', *range(19)])},
      "observation 0 of 'z' is 'a'; it must be a finite number",
    ),
    (
      {'observations': _records().assign(z=[*range(19), np.nan])},
      "observation 19 of 'z' is nan; it must be a finite number",
    ),
  )
  def test_bad_arguments(self, arguments, sentence):
    with self.assertRaisesRegex(errors.UsageError, sentence):
      _start(**arguments)

  def test_no_policy(self):
    with self.assertRaisesRegex(errors.UsageError, 'cannot read a policy from'):
      policy_lib.load_policy('nowhere')


class SessionTest(parameterized.TestCase):
  def test_outcomes_by_name_and_by_position_are_the_same(self):
    outcomes = (
      {'y': 0.2, 'x': 1.0, 'z': 30.0},
      pd.Series({'y': 0.2, 'x': 1.0, 'z': 30.0}),
      [1.0, 30.0, 0.2],
      np.array([1.0, 30.0, 0.2]),
    )
    following = []
    for outcome in outcomes:
      session = _start()
      session.observe(outcome, do={'x': 1.0})
      following.append((session.choose(), session.parent_probabilities()))
    for other in following[1:]:
      self.assertEqual(following[0], other)

  def test_recommends_one_that_was_made(self):
    session = _start()
    made = _play(session)
    self.assertIn(session.recommend(), made)

  @parameterized.parameters(900.0, -900.0, 1 / 3)
  def test_recommends_the_very_value(self, value):
    session = _start()
    session.observe({'x': 0.0, 'z': value, 'y': 1.0}, do={'z': value})
    self.assertEqual(session.recommend(), {'z': value})

  def test_interventions_are_allowed(self):
    session = _start(max_set_size=2)
    for do in _play(session):
      for name, value in do.items():
        low, high = _DOMAINS[name]
        self.assertBetween(value, low, high)

  def test_predictions(self):
    session = _start(num_interventions=8)
    for z in (-900.0, 0.0, 300.0, 900.0):
      for _ in range(2):
        session.observe(_outcome({'z': z}), do={'z': z})
    near, far = (session.predict({'z': z}) for z in (300.0, -900.0))
    self.assertGreater(near.mean, far.mean)
    for one in (near, far):
      low, high = one.interval
      self.assertBetween(one.mean, low, high)
      self.assertGreater(np.ptp(one.outcome_interval), high - low)
    with self.assertRaisesRegex(errors.UsageError, "no variable 'q'"):
      session.predict({'q': 1.0})
    with self.assertRaisesRegex(errors.UsageError, "'y' has no domain"):
      session.predict({'y': 1.0})
    with self.assertRaisesRegex(errors.UsageError, 'give one or more values'):
      session.predict({})

  def test_known_edges(self):
    edges = {'required': ['z -> y'], 'forbidden': ['x -> y']}
    session = _start(edges=edges)
    _play(session, 2)
    belief = session.parent_probabilities()
    self.assertGreater(belief['z'], 0.9999)
    self.assertLess(belief['x'], 1e-4)
    with self.assertRaisesRegex(errors.UsageError, "'q' in the edge"):
      _start(edges={'required': ['q -> y']})

  def test_parent_probabilities(self):
    probabilities = _start().parent_probabilities()
    self.assertEqual(list(probabilities), ['x', 'z'])
    self.assertBetween(min(probabilities.values()), 0, 1)
    self.assertBetween(max(probabilities.values()), 0, 1)

  @parameterized.parameters(
    ({'x': 0, 'z': 0}, "the outcome has no value of 'y'"),
    ({'x': 0, 'z': 0, 'y': 0, 'w': 0}, "has a value of 'w', which is no"),
    ({'x': 0, 'z': 0, 'y': 'a'}, "the outcome of 'y' is 'a'; it must be a fin"),
    ({'x': 0, 'z': 0, 'y': None}, "the outcome of 'y' is None"),
    ({'x': 0, 'z': np.inf, 'y': 0}, "the outcome of 'z' is inf"),
    ([0, 0], 'the outcome has 2 values; it must have 3, one for each of x'),
    (0.5, 'the outcome has 1 values; it must have 3'),
  )
  def test_bad_outcomes(self, outcome, sentence):
    session = _start()
    with self.assertRaisesRegex(errors.UsageError, sentence):
      session.observe(outcome, do={'x': 0.0})
    self.assertEqual(session.num_observed, 0)

  @parameterized.parameters(
    ('x', "the intervention is 'x'; it must be a dict"),
    ({'w': 0.0}, "there is no variable 'w'; there are x, z, y"),
    ({'x': 'a'}, "'x' is set to 'a'; set it to a finite number"),
    ({'x': np.nan}, "'x' is set to nan; set it to a finite number"),
    ({'x': 4.0}, r"'x' is set to 4.0, outside its domain \[-3.0, 3.0\]"),
    ({'y': 1.0}, "'y' is the target, which may not be set"),
    ({'x': 1.0, 'z': 1.0}, "'x', 'z' may not be set together"),
    ({}, 'sets no variable; set at least one'),
    (None, r'no intervention was chosen .*: choose\(\) first'),
  )
  def test_bad_interventions(self, do, sentence):
    with self.assertRaisesRegex(errors.UsageError, sentence):
      _start().observe(_outcome({}), do)

  def test_ends_after_the_planned_interventions(self):
    session = _start()
    _play(session)
    for call in (session.choose, lambda: session.observe(_outcome({}))):
      with self.assertRaisesRegex(errors.UsageError, 'all 4 interventions'):
        call()

  def test_ends_with_the_budget(self):
    session = _start(costs={'x': 2, 'z': 2}, budget=4.5)
    _play(session, 2)
    with self.assertRaisesRegex(errors.UsageError, 'is spent: 4 of 4.5'):
      session.choose()
    sentence = 'the intervention costs 2; of the budget of 4.5, 0.5 is left'
    with self.assertRaisesRegex(errors.UsageError, sentence):
      session.observe(_outcome({}), do={'x': 0.0})
    self.assertEqual(session.num_observed, 2)


if __name__ == '__main__':
  absltest.main()
