"""Tests of what a policy is shown of a study, and of what it recommends."""

from typing import Any

from absl.testing import absltest
from absl.testing import parameterized
import numpy as np

from acme_cbo import types
from acme_cbo.policies import base
from acme_cbo.study import advice
from acme_cbo.study import adviser as adviser_lib
from acme_cbo.study import state as state_lib

_COLUMNS = ['a', 'b', 'w', 'y']
_METADATA = {
  'scms': {'max_variables': 8, 'max_centre': 2.5, 'max_width': 6.0},
  'horizon': {'num_observations': 100, 'num_interventions': 40},
}


def _records(number: int = 20) -> np.ndarray:
  return np.random.default_rng(0).standard_normal((number, len(_COLUMNS)))


def _state(*events: tuple[str, dict[str, Any]], **settings) -> state_lib.State:
  """Returns a state with records after (kind, payload) events."""
  state = state_lib.State()
  created = {
    'target': 'y',
    'goal': 'maximize',
    'columns': _COLUMNS,
    'variables': {'a': {'domain': [-2, 2]}, 'b': {'domain': [-2, 2]}},
    'interventions': {'max_size': 2},
  }
  state.apply('created', created | settings)
  rows = _records()
  state.apply('records', {'interventions': {}, 'size': len(rows), 'rows': rows})
  for kind, payload in events:
    state.apply(kind, payload)
  return state


def _observed(y: float, **do: float) -> tuple[str, dict[str, Any]]:
  return 'observed', {'outcomes': [{'do': do, 'outcome': {'y': y}}]}


def _best_outcome(max_set_size: int) -> base.PolicyFunctions:
  """Returns a policy that recommends the best outcome that it was shown.

  As the network does, it leaves out what the problem does not allow.
  """
  del max_set_size

  def recommend(memory):
    problem, steps = memory

    def value(step):
      made, outcome = step
      mask = made.mask
      inside = (problem.low <= made.values) & (made.values <= problem.high)
      is_allowed = (problem.sets == mask).all(1).any() and inside[mask].all()
      return float(outcome[problem.target][0]) if is_allowed else -np.inf

    made, _ = max(steps, key=value)
    # As rounded as the shipped policy's.
    values = made.values.astype(np.float32).astype(float)
    return types.Intervention(made.mask, values)

  return base.PolicyFunctions(
    lambda problem, rows, number: (problem, []),
    lambda key, memory: recommend(memory),
    lambda memory, step, made, outcome: (
      memory[0],
      [*memory[1], (made, outcome)],
    ),
    recommend,
  )


def _adviser() -> adviser_lib.Adviser:
  return adviser_lib.Adviser(_best_outcome, _METADATA)


def _evidence(state, is_choice=False) -> adviser_lib.Evidence:
  sets = state.space.sets
  shown = adviser_lib.evidence(state, sets, [], 100, 40, is_choice)
  assert shown is not None
  return shown


class EvidenceTest(parameterized.TestCase):
  @parameterized.parameters(
    ({'y': 1.0},),
    ({'y': 1.0, 'w': 3.0},),
    ({'y': 1.0, 'a': 1.8, 'w': 3.0, 'b': 0.5},),
  )
  def test_shows_the_values_that_were_set(self, outcome):
    state = _state(
      ('observed', {'outcomes': [{'do': {'a': 1.9}, 'outcome': outcome}]})
    )
    ((made, shown),) = _evidence(state).steps
    realised = outcome.get('a', 1.9)
    self.assertEqual(made.mask[:4].tolist(), [True, False, False, False])
    self.assertEqual((made.values[0], shown[0]), (realised, realised))
    median = np.median(_records()[:, 1])
    self.assertAlmostEqual(shown[1], outcome.get('b', median), delta=0.2)
    self.assertEqual(shown[3], 1.0)

  def test_values_a_little_outside_move_to_the_domain(self):
    state = _state(_observed(1.0, a=2.01), _observed(1.0, a=2.5))
    (near, shown), (far, _) = _evidence(state).steps
    self.assertEqual((near.values[0], shown[0]), (2.0, 2.01))
    self.assertEqual(far.values[0], 2.5)

  def test_number_of_experiments(self):
    outcomes = [_observed(1.0, a=0.1 * k) for k in range(5)]
    for number, is_choice, limit, expected in (
      (4, True, 5, 5),
      (5, False, 5, 5),
      (5, True, 5, 10),
      (4, True, None, 40),
    ):
      state = _state(*outcomes[:number], experiments=limit)
      shown = _evidence(state, is_choice)
      self.assertEqual(shown.num_interventions, expected)

  def test_past_experiments_do_not_count_as_planned(self):
    rows = _records(10)
    past = {str(k): ['a'] for k in range(10)}
    event = ('records', {'interventions': past, 'size': 10, 'rows': rows})
    self.assertEqual(_evidence(_state(event)).num_interventions, 40)
    state = _state(event, experiments=20)
    self.assertEqual(_evidence(state).num_interventions, 30)


class RecommendTest(parameterized.TestCase):
  def test_the_best(self):
    state = _state(_observed(1, a=1), _observed(3, b=1), _observed(2, a=2))
    self.assertEqual(_adviser().recommend(state), 2)

  def test_none_without_an_allowed_one(self):
    self.assertIsNone(_adviser().recommend(_state()))
    self.assertIsNone(_adviser().recommend(_state(_observed(1, a=1.0, w=1.0))))

  def test_constraints_that_came_later(self):
    state = _state(
      _observed(9, a=2.0, b=2.0),
      _observed(1, a=0.1, b=0.1),
      ('changed', {'constraints': ['a + b <= 1']}),
    )
    self.assertEqual(_adviser().recommend(state), 2)
    self.assertEqual(_adviser().unchanged(state), 1)

  def test_carried_out_a_little_outside(self):
    state = _state(_observed(1, a=0.0), _observed(9, a=2.01))
    self.assertEqual(_adviser().recommend(state), 2)

  def test_domains_of_other_sizes(self):
    # float32 moves a value of `a` by more than the whole domain of `b`.
    state = _state(
      _observed(1, a=733.3, b=1e-9),
      _observed(2, a=733.3, b=5e-9),
      _observed(9, a=733.3, b=9e-9),
      variables={'a': {'domain': [100, 1500]}, 'b': {'domain': [1e-9, 1e-8]}},
    )
    self.assertEqual(_adviser().recommend(state), 3)


class PlannedTest(parameterized.TestCase):
  @parameterized.parameters(
    ({}, 40),
    ({'experiments': 100}, 100),
    ({'budget': 10}, 10),
    ({'budget': 1000}, 40),
    ({'experiments': 100, 'budget': 10}, 10),
    ({'experiments': 5, 'budget': 10}, 5),
  )
  def test_limits(self, settings, expected):
    state = _state(**settings)
    self.assertEqual(_adviser().planned(state), expected)
    if settings and settings != {'budget': 1000}:
      self.assertEqual(advice.experiments_left(state), expected)


class UnchangedTest(absltest.TestCase):
  def test_counts_own_experiments(self):
    past = {
      'interventions': {'0': ['a']},
      'size': 1,
      'rows': np.array([[0.5, 0.0, 0.0, -5.0]]),
    }
    state = _state(
      ('records', past),
      _observed(1, a=1),
      _observed(2, b=1),
      _observed(0, a=2),
    )
    self.assertEqual(_adviser().unchanged(state), 2)
    # One of a table that was added later changes nothing, and does not count.
    state.apply('records', past)
    self.assertEqual(_adviser().unchanged(state), 2)
    state.apply(*_observed(0, b=2))
    self.assertEqual(_adviser().unchanged(state), 3)
    state.apply(*_observed(5, b=0.5))
    self.assertEqual(_adviser().unchanged(state), 1)

  def test_nothing_yet(self):
    self.assertEqual(_adviser().unchanged(_state()), 0)


if __name__ == '__main__':
  absltest.main()
