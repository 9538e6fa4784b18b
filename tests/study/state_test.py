"""Tests of the state of a study, computed from its events."""

import math

from absl.testing import absltest
from absl.testing import parameterized
import numpy as np

from acme_cbo.infra import errors
from acme_cbo.study import state as state_lib

_CREATED = {
  'target': 'y',
  'goal': 'maximize',
  'columns': ['a', 'b', 'w', 'y'],
  'variables': {'a': {'domain': [0, 1]}, 'b': {'domain': [0, 10], 'cost': 3}},
  'interventions': {'max_size': 2},
}


def _state(*events, **settings) -> state_lib.State:
  """Returns the state after `created` and (kind, payload) events."""
  state = state_lib.State()
  state.apply('created', {**_CREATED, **settings})
  for kind, payload in events:
    state.apply(kind, payload)
  return state


_SUGGESTED = ('suggested', {'suggestions': [{'a': 0.5}, {'b': 2.0}]})


class SettingsTest(parameterized.TestCase):
  @parameterized.parameters(
    ({'target': 'z'}, "the target 'z' is no variable"),
    ({'target': 'a'}, "the target 'a' cannot be among the variables to set"),
    ({'goal': 'max'}, "'maximize' or 'minimize'"),
    ({'columns': ['a', 'b', 'a', 'y']}, 'the same name'),
    ({'columns': ['a', 'b', '\x1b', 'y']}, 'a text that can be shown'),
    ({'columns': ['a', 'y']}, "there is no variable 'b'"),
    ({'budget': 0}, 'finite and above 0'),
    ({'budget': True}, 'finite and above 0'),
    ({'budget': math.nan}, 'finite and above 0'),
    ({'experiments': 2.5}, 'a whole number from 1 to 1,000'),
    ({'experiments': 10**6}, 'a whole number from 1 to 1,000'),
    ({'seed': -1}, 'an int from 0'),
    ({'variables': {}}, 'a dict of those that may be set'),
    ({'unknown': 1}, 'is damaged'),
    ({'constraints': 'a + b <= 1'}, 'must be a list of texts'),
    ({'columns': ['a', 'b', 'experiment', 'y']}, 'cannot be named'),
    ({'columns': ['a', 'b', 'x;y', 'y']}, 'cannot be named'),
  )
  def test_wrong_settings(self, settings, message):
    with self.assertRaisesRegex(errors.UsageError, message):
      _state(**settings)

  def test_changes(self):
    state = _state(
      (
        'changed',
        {
          'goal': 'minimize',
          'variables': {'a': None, 'b': {'domain': [0, 5]}},
        },
      )
    )
    self.assertEqual(state.settings.goal, 'minimize')
    self.assertEqual([*state.space.variables], ['b'])
    self.assertEqual(state.space.variables['b'].high, 5)
    state.apply('changed', {'variables': {'w': {'domain': [0, 1]}}})
    self.assertEqual([*state.space.variables], ['b', 'w'])

  @parameterized.parameters(
    ({'target': 'w'}, 'cannot be changed'),
    ({'budgt': 3}, 'did you mean budget'),
    ({'budget': -3}, 'finite and above 0'),
    ({'variables': {'aa': None}}, 'did you mean a'),
    ({}, 'name what to change'),
  )
  def test_wrong_changes(self, settings, message):
    state = _state()
    with self.assertRaisesRegex(errors.UsageError, message):
      state.apply('changed', settings)
    self.assertEqual(state.num_events, 1)
    self.assertIsNone(state.settings.budget)

  def test_a_cost_changes_for_what_comes(self):
    state = _state(
      ('observed', {'outcomes': [{'do': {'b': 1}, 'outcome': {'y': 1}}]}),
      ('changed', {'variables': {'b': {'cost': 5}}}),
      ('observed', {'outcomes': [{'do': {'b': 1}, 'outcome': {'y': 1}}]}),
    )
    self.assertEqual(state.spent, 3 + 5)
    self.assertEqual(state.space.variables['b'].high, 10)
    state.apply('changed', {'variables': {'b': {'values': [1, 2]}}})
    self.assertEqual(state.space.variables['b'].values, (1, 2))
    self.assertEqual(state.space.variables['b'].cost, 5)

  def test_range_of_the_target(self):
    state = _state()
    self.assertEqual(state.target_range, 0)
    for y, expected in ((2.0, 0.0), (5.0, 3.0), (1.0, 4.0)):
      state.apply(
        'observed', {'outcomes': [{'do': {'b': 1}, 'outcome': {'y': y}}]}
      )
      self.assertEqual(state.target_range, expected)
    before = state.copy()
    state.apply('withdrawn', {'experiment': 2})
    self.assertEqual((state.target_range, before.target_range), (1.0, 4.0))

  def test_outcomes_out_of_all_proportion(self):
    state = _state(
      ('observed', {'outcomes': [{'do': {'b': 1}, 'outcome': {'y': 2}}]})
    )
    wrong = {'outcomes': [{'do': {'b': 1}, 'outcome': {'y': 1e100}}]}
    with self.assertRaisesRegex(errors.UsageError, 'the digits and the unit'):
      state.apply('observed', wrong)

  @parameterized.parameters(
    (0.3, 0.1, 3),  # 0.3 / 0.1 is a little below 3.
    (0.29, 0.1, 2),
    (-1.0, 0.1, 0),
    (5.0, 3.0, 1),
  )
  def test_experiments_that_a_budget_pays_for(self, budget, cost, number):
    state = _state(
      ('changed', {'variables': {'a': {'cost': cost}}}), budget=100
    )
    self.assertEqual(state.num_affordable(budget), number)

  @parameterized.parameters('created', 'magic', '__init__')
  def test_wrong_kinds(self, kind):
    with self.assertRaisesRegex(errors.UsageError, 'cannot be'):
      _state((kind, _CREATED))


class ExperimentTest(parameterized.TestCase):
  def test_outcomes_in_any_order(self):
    state = _state(
      _SUGGESTED,
      (
        'observed',
        {'outcomes': [{'experiment': 2, 'outcome': {'y': 1, 'b': 2.1}}]},
      ),
      (
        'observed',
        {'outcomes': [{'do': {'a': 0.1, 'b': 4}, 'outcome': {'y': 3}}]},
      ),
      (
        'observed',
        {'outcomes': [{'experiment': 1, 'outcome': {'y': 2, 'w': 7}}]},
      ),
    )
    # The values that were measured count as those that were set.
    self.assertEqual(
      [(one.number, one.do, one.outcome) for one in state.observed],
      [
        (1, {'a': 0.5}, {'y': 2, 'w': 7}),
        (2, {'b': 2.1}, {'y': 1, 'b': 2.1}),
        (3, {'a': 0.1, 'b': 4}, {'y': 3}),
      ],
    )
    self.assertEqual(
      [one.is_suggested for one in state.observed], [True, True, False]
    )
    self.assertEqual(state.spent, 1 + 3 + 4)

  def test_other_values_than_asked_for(self):
    state = _state(
      _SUGGESTED,
      (
        'observed',
        {'outcomes': [{'experiment': 1, 'do': {'b': 11}, 'outcome': {'y': 1}}]},
      ),
    )
    self.assertEqual(state.experiments[1].do, {'b': 11})

  def test_failed_and_abandoned(self):
    state = _state(
      _SUGGESTED,
      ('failed', {'experiment': 1, 'reason': 'leak'}),
      ('abandoned', {'experiment': 2}),
      ('failed', {'do': {'b': 1}}),
    )
    self.assertEmpty(state.observed)
    self.assertEqual([one.number for one in state.failed], [1, 3])
    self.assertEqual(state.experiments[1].reason, 'leak')
    self.assertEqual(state.spent, 1 + 3)  # What is abandoned costs nothing.
    # A late outcome replaces the failure.
    state.apply(
      'observed', {'outcomes': [{'experiment': 1, 'outcome': {'y': 1}}]}
    )
    self.assertEqual(state.experiments[1].status, 'observed')
    self.assertEqual(state.experiments[1].events, (1, 2, 5))

  def test_amends(self):
    state = _state(
      _SUGGESTED,
      (
        'observed',
        {
          'outcomes': [{'experiment': 1, 'outcome': {'y': 1, 'a': 0.4, 'w': 2}}]
        },
      ),
      ('amended', {'experiment': 1, 'outcome': {'y': 10}}),
    )
    self.assertEqual(state.experiments[1].outcome, {'y': 10, 'a': 0.4, 'w': 2})
    state.apply('amended', {'experiment': 1, 'do': {'a': 0.6}})
    self.assertEqual(state.experiments[1].do, {'a': 0.6})
    self.assertEqual(state.experiments[1].outcome, {'y': 10, 'w': 2})

  def test_withdraws(self):
    state = _state(
      _SUGGESTED,
      ('observed', {'outcomes': [{'experiment': 1, 'outcome': {'y': 1}}]}),
      ('withdrawn', {'experiment': 1, 'reason': 'wrong sample'}),
    )
    self.assertEmpty(state.observed)
    self.assertLen(state.pending, 1)
    # The numbers of others do not change.
    state.apply(
      'observed', {'outcomes': [{'do': {'a': 1}, 'outcome': {'y': 1}}]}
    )
    self.assertIn(3, state.experiments)

  @parameterized.parameters(
    (
      'observed',
      {'outcomes': [{'experiment': 3, 'outcome': {'y': 1}}]},
      'there are 1 to 2',
    ),
    (
      'observed',
      {'outcomes': [{'experiment': 1, 'outcome': {'a': 1}}]},
      'no value of the target',
    ),
    (
      'observed',
      {'outcomes': [{'experiment': 1, 'outcome': {'y': math.nan}}]},
      'finite number',
    ),
    (
      'observed',
      {'outcomes': [{'experiment': 1, 'outcome': {'y': '1'}}]},
      'finite number',
    ),
    (
      'observed',
      {'outcomes': [{'experiment': 1, 'outcome': {'y': 1, 'ww': 1}}]},
      'did you mean w',
    ),
    (
      'observed',
      {'outcomes': [{'experiment': 1, 'outcome': [1]}]},
      'must be a dict',
    ),
    ('observed', {'outcomes': [{'outcome': {'y': 1}}]}, 'say which experiment'),
    (
      'observed',
      {'outcomes': [{'do': {}, 'outcome': {'y': 1}}]},
      'must be a dict',
    ),
    (
      'observed',
      {'outcomes': [{'do': {'y': 1}, 'outcome': {'y': 1}}]},
      "'y' cannot be set",
    ),
    (
      'observed',
      {'outcomes': [{'do': {'a': math.inf}, 'outcome': {'y': 1}}]},
      'finite number',
    ),
    ('failed', {'experiment': 9}, 'there are 1 to 2'),
    ('abandoned', {'do': {'a': 1}}, 'name the suggestion'),
    ('amended', {'experiment': 1, 'outcome': {'y': 1}}, 'is pending; only one'),
    ('withdrawn', {}, 'name one experiment'),
    ('withdrawn', {'experiment': 1, 'records': 0}, 'name one experiment'),
    ('withdrawn', {'records': 0}, 'those with records: none'),
    ('amended', {'experiment': 1}, 'give what to correct'),
    ('suggested', {'suggestions': [{'a': 2}]}, 'between 0 and 1'),
    ('suggested', {'suggestions': 3}, 'is damaged'),
    ('observed', {'outcomes': [{'experiment': 1}]}, 'is damaged'),
    (
      'observed',
      {'outcomes': [{'experiment': [], 'outcome': {'y': 1}}]},
      'is damaged',
    ),
  )
  def test_wrong_events(self, kind, payload, message):
    state = _state(_SUGGESTED)
    with self.assertRaisesRegex(errors.UsageError, message):
      state.apply(kind, payload)
    self.assertEqual(state.num_events, 2)
    self.assertLen(state.pending, 2)

  def test_an_outcome_is_reported_once(self):
    observed = (
      'observed',
      {'outcomes': [{'experiment': 1, 'outcome': {'y': 1}}]},
    )
    with self.assertRaisesRegex(errors.UsageError, 'amend it'):
      _state(_SUGGESTED, observed, observed)


class RecordsTest(parameterized.TestCase):
  _ROWS = np.array(
    [[0.1, 1, 2, 3], [0.2, math.nan, 2, 4], [0.3, 5, math.nan, 5]]
  )

  def test_passive_records_and_experiments(self):
    state = state_lib.State()
    state.apply(
      'created',
      {**_CREATED, 'records': {'size': 3, 'interventions': {'2': ['a', 'b']}}},
      self._ROWS,
    )
    np.testing.assert_array_equal(state.records, self._ROWS[:2])
    self.assertEqual(state.experiments[1].do, {'a': 0.3, 'b': 5})
    self.assertEqual(state.experiments[1].outcome, {'a': 0.3, 'b': 5, 'y': 5})
    self.assertEqual(state.spent, 0)  # The study has not paid for the past.
    state.apply('records', {'size': 3, 'interventions': {}}, self._ROWS)
    self.assertLen(state.records, 5)
    state.apply('withdrawn', {'records': 0})
    np.testing.assert_array_equal(state.records, self._ROWS)

  @parameterized.parameters(
    ({'0': ['y']}, "'y' cannot be set"),
    ({'1': ['b']}, "row 1 of the records sets 'b', which has no value"),
    ({'9': ['a']}, 'is damaged'),
    ({'x': ['a']}, 'is damaged'),
    ({'-1': ['a']}, 'is damaged'),
    ({'00': ['a']}, 'is damaged'),
    ({'0': 3}, 'is damaged'),
    ([], 'is damaged'),
  )
  def test_wrong_experiments(self, interventions, message):
    state = _state()
    with self.assertRaisesRegex(errors.UsageError, message):
      state.apply(
        'records', {'size': 3, 'interventions': interventions}, self._ROWS
      )
    self.assertEmpty(state.records)
    self.assertEmpty(state.experiments)

  def test_wrong_rows(self):
    state = _state()
    rows = self._ROWS.copy()
    rows[0, 3] = math.nan
    for wrong in (rows, self._ROWS[:, :3], self._ROWS[0], None):
      with self.assertRaises(errors.UsageError):
        state.apply('records', {'size': 3, 'interventions': {}}, wrong)
    self.assertEmpty(state.records)


if __name__ == '__main__':
  absltest.main()
