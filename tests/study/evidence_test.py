"""Tests of what a policy is shown of a study."""

from absl.testing import absltest
from absl.testing import parameterized
import numpy as np

from acme_cbo.study import advice
from acme_cbo.study import evidence
from tests.support import studies


def _evidence(state, is_choice=False) -> evidence.Evidence:
  sets = state.space.sets
  shown = evidence.of(state, sets, [], 100, 40, is_choice)
  assert shown is not None
  return shown


class EvidenceTest(parameterized.TestCase):
  @parameterized.parameters(
    ({'y': 1.0},),
    ({'y': 1.0, 'w': 3.0},),
    ({'y': 1.0, 'a': 1.8, 'w': 3.0, 'b': 0.5},),
  )
  def test_shows_the_values_that_were_set(self, outcome):
    state = studies.state(
      ('observed', {'outcomes': [{'do': {'a': 1.9}, 'outcome': outcome}]})
    )
    ((made, shown),) = _evidence(state).steps
    realised = outcome.get('a', 1.9)
    self.assertEqual(made.mask[:4].tolist(), [True, False, False, False])
    self.assertEqual((made.values[0], shown[0]), (realised, realised))
    median = np.median(studies.records()[:, 1])
    self.assertAlmostEqual(shown[1], outcome.get('b', median), delta=0.2)
    self.assertEqual(shown[3], 1.0)

  def test_values_a_little_outside_move_to_the_domain(self):
    state = studies.state(
      studies.observed(1.0, a=2.01), studies.observed(1.0, a=2.5)
    )
    (near, shown), (far, _) = _evidence(state).steps
    self.assertEqual((near.values[0], shown[0]), (2.0, 2.01))
    self.assertEqual(far.values[0], 2.5)

  def test_number_of_experiments(self):
    outcomes = [studies.observed(1.0, a=0.1 * k) for k in range(5)]
    for number, is_choice, limit, expected in (
      (4, True, 5, 5),
      (5, False, 5, 5),
      (5, True, 5, 10),
      (4, True, None, 40),
    ):
      state = studies.state(*outcomes[:number], experiments=limit)
      shown = _evidence(state, is_choice)
      self.assertEqual(shown.num_interventions, expected)

  def test_past_experiments_do_not_count_as_planned(self):
    rows = studies.records(10)
    past = {str(k): ['a'] for k in range(10)}
    event = ('records', {'interventions': past, 'size': 10, 'rows': rows})
    self.assertEqual(_evidence(studies.state(event)).num_interventions, 40)
    state = studies.state(event, experiments=20)
    self.assertEqual(_evidence(state).num_interventions, 30)


class RoomTest(parameterized.TestCase):
  @parameterized.parameters(
    ({}, 40),
    ({'experiments': 100}, 100),
    ({'budget': 10}, 10),
    ({'budget': 1000}, 40),
    ({'experiments': 100, 'budget': 10}, 10),
    ({'experiments': 5, 'budget': 10}, 5),
  )
  def test_limits(self, settings, expected):
    state = studies.state(**settings)
    self.assertEqual(evidence.room(state, 40), expected)
    if settings and settings != {'budget': 1000}:
      self.assertEqual(advice.experiments_left(state), expected)


if __name__ == '__main__':
  absltest.main()
