"""Tests of the interface of both beliefs, and of each belief."""

import functools
import math

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np

from acme_cbo.beliefs import belief as beliefs
from acme_cbo.beliefs import exact_posterior
from tests.support import hand_made_scms

# Of five columns, 2 is the target and 4 padding.
_PROBLEM = hand_made_scms.problem(
  5, 2, (0, 1), low=[-7, -2, 0, -9, 0], high=[5, 4, 0, 9, 0], size=4
)
_CANDIDATES = (0, 1, 3)
_LOGITS = jnp.array([0.5, -1.5, 7.0, 2.5, 9.0])

_log_posterior = jax.jit(beliefs.log_posterior)


def _episode(seed=0):
  """Observations, and the masks and outcomes of three interventions."""
  rng = np.random.default_rng(seed)
  rows = rng.normal(size=(9, 5)) * [2.0, 1.0, 1.0, 0.1, 0.0]
  rows[:, 2] += rows[:, 0]
  chosen = np.array([0, 1, 0])
  return rows[:6], chosen[:, None] == np.arange(5), rows[6:]


@functools.cache
def _belief(kind):
  """A belief whose functions are compiled."""
  return beliefs.Belief(*map(jax.jit, beliefs.FACTORIES[kind]()))


def _state_after(belief, problem, episode, logits=_LOGITS):
  """The state after an episode."""
  observations, intervened, outcomes = episode
  state = belief.init(problem, observations, logits)
  for was_set, outcome in zip(intervened, outcomes, strict=True):
    state = belief.update(state, was_set, outcome, logits)
  return state


def _subsets():
  for number in range(8):
    chosen = [i for k, i in enumerate(_CANDIDATES) if number >> k & 1]
    yield np.isin(np.arange(5), chosen)


class BeliefTest(parameterized.TestCase):
  @parameterized.parameters(*beliefs.FACTORIES)
  def test_functions_describe_one_distribution(self, kind):
    belief = _belief(kind)
    state = _state_after(belief, _PROBLEM, _episode())
    logs = np.array([belief.log_prob(state, parents) for parents in _subsets()])
    weights = np.exp(logs)
    self.assertAlmostEqual(weights.sum(), 1, places=5)
    self.assertLess(weights.max(), 0.99)
    members = np.array(list(_subsets()))
    np.testing.assert_allclose(
      belief.parents(state), weights @ members, rtol=0, atol=1e-5
    )
    self.assertAlmostEqual(
      belief.entropy(state), -(weights * logs).sum(), places=4
    )

  @parameterized.parameters(*beliefs.FACTORIES)
  def test_unroll_equals_updates_row_by_row(self, kind):
    belief, (observations, intervened, outcomes) = _belief(kind), _episode()
    logits = np.random.default_rng(1).normal(size=(4, 5)).astype(np.float32)
    states = beliefs.unroll(
      belief, _PROBLEM, *map(jnp.array, (*_episode(), logits))
    )
    state = belief.init(_PROBLEM, observations, logits[0])
    for t in range(4):
      if t:
        row = intervened[t - 1], outcomes[t - 1]
        state = belief.update(state, *row, logits[t])
      actual = jax.tree.map(lambda leaf, t=t: leaf[t], states)
      np.testing.assert_allclose(
        belief.parents(actual), belief.parents(state), atol=1e-5
      )

  @parameterized.parameters(*beliefs.FACTORIES)
  def test_certainty_has_no_entropy_and_no_nan(self, kind):
    belief = _belief(kind)
    rows = np.random.default_rng(0).normal(size=(400, 5))
    rows[:, 2] = rows[:, 0] + 1e-3 * rows[:, 2]
    never = np.zeros((0, 5), bool)
    logits = jnp.array([1e3, -1e3, 0.0, -1e3, 0.0])
    state = _state_after(belief, _PROBLEM, (rows, never, never), logits)
    self.assertGreaterEqual(belief.entropy(state), -1e-6)
    self.assertTrue(np.isfinite(belief.entropy(state)))
    for parents in _subsets():
      self.assertTrue(np.isfinite(belief.log_prob(state, parents)))


class LearnedTest(parameterized.TestCase):
  def test_by_hand(self):
    belief = _belief('learned')
    state = _state_after(belief, _PROBLEM, _episode())
    probability = 1 / (1 + np.exp(-np.array(_LOGITS, float)))
    for parents in _subsets():
      terms = [
        math.log(probability[i] if parents[i] else 1 - probability[i])
        for i in _CANDIDATES
      ]
      self.assertAlmostEqual(
        belief.log_prob(state, parents), sum(terms), places=5
      )

  def test_log_odds_are_bounded_by_8(self):
    belief = _belief('learned')
    logits = jnp.array([1e6, -1e6, 0.0, -1e6, 0.0])
    state = belief.init(_PROBLEM, jnp.zeros((2, 5)), logits)
    right, wrong = np.eye(5, dtype=bool)[[0, 1]]
    certain = -math.log1p(math.exp(-8))
    self.assertAlmostEqual(belief.log_prob(state, right), 3 * certain, places=6)
    self.assertAlmostEqual(
      belief.log_prob(state, wrong), 3 * certain - 16, places=4
    )


class ExactTest(parameterized.TestCase):
  def _state(self, problem, episode):
    return _state_after(_belief('exact'), problem, episode)

  def test_is_the_posterior_of_all_rows_in_fixed_units(self):
    observations, intervened, outcomes = _episode()
    rows = np.concatenate([observations, outcomes])
    scale = np.where(np.arange(5) < 4, observations.std(0), 1.0)
    rows = 3 * np.arcsinh((rows - observations.mean(0)) / scale / 3)
    was_set = np.concatenate([np.zeros((6, 5), bool), intervened])
    evidence = exact_posterior.add_rows(
      exact_posterior.empty_evidence(5), jnp.float32(rows), jnp.asarray(was_set)
    )
    scores = exact_posterior.log_scores(evidence, _PROBLEM.exists)
    expected = np.exp(jax.jit(exact_posterior.log_posterior)(scores)[2])
    state = self._state(_PROBLEM, _episode())
    np.testing.assert_allclose(
      np.exp(_log_posterior(state)), expected, rtol=0, atol=1e-5
    )

  def test_ignores_the_logits_of_the_network(self):
    state = self._state(_PROBLEM, _episode())
    other = _state_after(_belief('exact'), _PROBLEM, _episode(), -_LOGITS)
    np.testing.assert_array_equal(_log_posterior(state), _log_posterior(other))

  def test_units_and_signs_do_not_matter(self):
    factor = np.array([1e-3, -7.0, 40.0, -0.2, 1.0])
    shift = np.array([3.0, -2.0, 90.0, 0.1, 0.0])
    observations, intervened, outcomes = _episode()
    ends = np.stack(
      [shift + factor * _PROBLEM.low, shift + factor * _PROBLEM.high]
    )
    problem = _PROBLEM._replace(
      low=jnp.array(ends.min(0)), high=jnp.array(ends.max(0))
    )
    other = (
      shift + factor * observations,
      intervened,
      shift + factor * outcomes,
    )
    np.testing.assert_allclose(
      _belief('exact').parents(self._state(problem, other)),
      _belief('exact').parents(self._state(_PROBLEM, _episode())),
      rtol=0,
      atol=1e-4,
    )

  def test_outlier_leaves_it_finite(self):
    observations, intervened, outcomes = _episode()
    outcomes[1, 2] = 1e8
    state = self._state(_PROBLEM, (observations, intervened, outcomes))
    logs = np.asarray(_log_posterior(state))
    self.assertTrue(np.isfinite(logs).all())
    self.assertAlmostEqual(np.exp(logs).sum(), 1, places=5)

  def test_intervention_distinguishes_cause_from_effect(self):
    # Observations only show that 0 and 2 are correlated.
    rng = np.random.default_rng(1)
    cause = rng.normal(size=20)
    rows = np.zeros((20, 5))
    rows[:, 0], rows[:, 2] = cause, cause + 0.3 * rng.normal(size=20)
    rows[:, [1, 3]] = rng.normal(size=(20, 2))
    belief, mask = _belief('exact'), np.eye(5, dtype=bool)[:1]
    before = belief.parents(
      _state_after(belief, _PROBLEM, (rows, mask[:0], rows[:0]))
    )
    self.assertBetween(before[0], 0.3, 0.7)
    for moves, expected in ((True, 0.9), (False, 0.1)):
      outcome = np.array([[3.0, 0.0, 3.0 * moves, 0.0, 0.0]])
      after = _state_after(belief, _PROBLEM, (rows, mask, outcome))
      (self.assertGreater if moves else self.assertLess)(
        belief.parents(after)[0], expected
      )


if __name__ == '__main__':
  absltest.main()
