"""Tests of what a policy recommends and proposes to a study."""

from absl.testing import absltest
from absl.testing import parameterized
import numpy as np

from acme_cbo import types
from acme_cbo.policies import base
from acme_cbo.policies import prediction
from acme_cbo.study import advice
from acme_cbo.study import adviser as adviser_lib
from acme_cbo.study import terminal
from tests.support import studies


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
  return adviser_lib.Adviser(_best_outcome, studies.METADATA)


def _parabola(interventions) -> list[prediction.Prediction]:
  """Predicts that the target is best at b = 1."""
  means = [-((do['b'] - 1) ** 2) for do in interventions]
  return [
    prediction.Prediction(mean, mean + spread, mean + 10 * spread)
    for mean in means
    for spread in [0.1 * (prediction.LEVELS - 0.5)]
  ]


class RecommendTest(parameterized.TestCase):
  def test_the_best(self):
    state = studies.state(
      studies.observed(1, a=1),
      studies.observed(3, b=1),
      studies.observed(2, a=2),
    )
    self.assertEqual(_adviser().recommend(state), 2)

  def test_none_without_an_allowed_one(self):
    self.assertIsNone(_adviser().recommend(studies.state()))
    self.assertIsNone(
      _adviser().recommend(studies.state(studies.observed(1, a=1.0, w=1.0)))
    )

  def test_constraints_that_came_later(self):
    state = studies.state(
      studies.observed(9, a=2.0, b=2.0),
      studies.observed(1, a=0.1, b=0.1),
      ('changed', {'constraints': ['a + b <= 1']}),
    )
    self.assertEqual(_adviser().recommend(state), 2)
    self.assertEqual(_adviser().unchanged(state), 1)

  def test_carried_out_a_little_outside(self):
    state = studies.state(
      studies.observed(1, a=0.0), studies.observed(9, a=2.01)
    )
    self.assertEqual(_adviser().recommend(state), 2)

  def test_domains_of_other_sizes(self):
    # float32 moves a value of `a` by more than the whole domain of `b`.
    state = studies.state(
      studies.observed(1, a=733.3, b=1e-9),
      studies.observed(2, a=733.3, b=5e-9),
      studies.observed(9, a=733.3, b=9e-9),
      variables={'a': {'domain': [100, 1500]}, 'b': {'domain': [1e-9, 1e-8]}},
    )
    self.assertEqual(_adviser().recommend(state), 3)


class ProposalsTest(absltest.TestCase):
  def test_are_new_and_of_all_sets(self):
    state = studies.state(studies.observed(1, a=1), studies.observed(3, b=1))
    proposals = _adviser().proposals(state)
    self.assertNotIn({'a': 1.0}, proposals)
    self.assertNotIn({'b': 1.0}, proposals)
    sets = {tuple(do) for do in proposals}
    self.assertContainsSubset({('a',), ('b',), ('a', 'b')}, sets)

  def test_are_allowed(self):
    state = studies.state(
      studies.observed(1, a=1), ('changed', {'constraints': ['a + b <= 1']})
    )
    proposals = _adviser().proposals(state)
    self.assertNotEmpty(proposals)
    for do in proposals:
      self.assertEqual(state.space.complaint(do), '')


class UntriedTest(absltest.TestCase):
  def test_what_is_predicted_to_be_better(self):
    state = studies.state(
      studies.observed(-1, b=0.0), studies.observed(-1, b=2.0)
    )
    untried = [{'b': 0.5}, {'b': 1.0}]
    best = advice.recommendation(state, _parabola, 1, untried)
    self.assertIsNone(best.number)
    self.assertEqual(best.do, {'b': 1.0})
    self.assertIn(best.runner_up, [{'b': 0.0}, {'b': 2.0}])
    self.assertEqual(best.better_than_runner_up, 1)
    self.assertIn('not tried yet', terminal.verdict(state, best)[0])

  def test_what_is_predicted_to_be_worse(self):
    state = studies.state(
      studies.observed(0, b=1.0), studies.observed(-1, b=2.0)
    )
    best = advice.recommendation(state, _parabola, 1, [{'b': 0.5}])
    self.assertEqual(best.number, 1)
    self.assertEqual(best.do, {'b': 1.0})


class UnchangedTest(absltest.TestCase):
  def test_counts_own_experiments(self):
    past = {
      'interventions': {'0': ['a']},
      'size': 1,
      'rows': np.array([[0.5, 0.0, 0.0, -5.0]]),
    }
    state = studies.state(
      ('records', past),
      studies.observed(1, a=1),
      studies.observed(2, b=1),
      studies.observed(0, a=2),
    )
    self.assertEqual(_adviser().unchanged(state), 2)
    # One of a table that was added later changes nothing, and does not count.
    state.apply('records', past)
    self.assertEqual(_adviser().unchanged(state), 2)
    state.apply(*studies.observed(0, b=2))
    self.assertEqual(_adviser().unchanged(state), 3)
    state.apply(*studies.observed(5, b=0.5))
    self.assertEqual(_adviser().unchanged(state), 1)

  def test_nothing_yet(self):
    self.assertEqual(_adviser().unchanged(studies.state()), 0)


if __name__ == '__main__':
  absltest.main()
