"""Tests of the loss against plain numpy, by hand, and a bandit's gradient."""

import functools
import itertools

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acme_cbo import types
from acme_cbo.agents.grpo import losses
from acme_cbo.networks import action_distribution
from acme_cbo.networks import outcome_distribution
from tests.support import chance


class ReturnsTest(parameterized.TestCase):
  """Expected values are computed by hand."""

  @parameterized.parameters(
    ('process', [[6.0, 15], [5, 5], [3, 5]]), ('outcome', [[6.0, 15]] * 3)
  )
  def test_returns(self, supervision, expected):
    actual = losses.returns(jnp.array([[1.0, 10], [2, 0], [3, 5]]), supervision)
    np.testing.assert_allclose(actual, expected)

  @parameterized.parameters(
    (0.0, [0.2, 0.5, 0.1, 0.6]),
    # 4 times .2, 3 times .3, none, and once .1.
    (1.0, [0.8, 0.9, 0.0, 0.1]),
    (0.25, [0.35, 0.6, 0.075, 0.475]),
  )
  def test_regret_rewards(self, simple_regret_share, expected):
    earned = jnp.array([[0.2, 0.5, 0.1, 0.6]])
    best = jnp.array([[0.2, 0.5, 0.5, 0.6]])
    actual = losses.regret_rewards(earned, best, simple_regret_share)
    np.testing.assert_allclose(actual, [expected], rtol=1e-5, atol=1e-7)

  def test_a_recommendation_may_become_worse(self):
    # It gains .4 for three steps, loses .1 for two, and gains .5 for one.
    reached = jnp.array([[0.4, 0.3, 0.8]])
    actual = losses.regret_rewards(jnp.zeros((1, 3)), reached, 1.0)
    np.testing.assert_allclose(actual, [[1.2, -0.2, 0.5]], rtol=1e-5)
    np.testing.assert_allclose(actual.sum(), reached.sum(), rtol=1e-5)

  def test_before_each_step(self):
    reached = jnp.array([[0.2, 0.5, 0.5, 0.6], [-0.3, -0.1, 0.4, 0.3]])
    np.testing.assert_allclose(
      losses.before_each_step(reached),
      [[0.0, 0.2, 0.5, 0.5], [0.0, 0.0, 0.0, 0.4]],
      rtol=1e-6,
    )

  def test_by_factors(self):
    earned = np.array([0.0, 0.5, 0.9, 0.99, 1.0])
    actual = losses.logarithmic_rewards(jnp.array(earned), 0.01)
    regret = 1 - earned
    expected = 1 - np.log((regret + 0.01) / 0.01) / np.log(1.01 / 0.01)
    np.testing.assert_allclose(actual, expected, atol=1e-6)
    self.assertEqual((actual[0], actual[-1]), (0.0, 1.0))
    # More than the best that was found is the best.
    self.assertEqual(losses.logarithmic_rewards(jnp.array(1.01), 0.01), 1.0)
    linear = losses.logarithmic_rewards(jnp.array(earned), 0.0)
    np.testing.assert_array_equal(linear, jnp.array(earned))


class WithoutReachedTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    rng = np.random.default_rng(0)
    self.own, self.reached = rng.normal(size=(2, 6, 4, 3))

  def test_what_follows_from_what_was_reached_is_taken_out(self):
    # Each step has a slope of its own; a group's mean is nobody's credit.
    slopes = np.array([-2.0, 0.0, 3.0])
    within = self.reached - self.reached.mean(1, keepdims=True)
    returns = 5 + slopes * within
    actual = losses.subtract_reached(
      jnp.array(returns), jnp.array(self.reached)
    )
    np.testing.assert_allclose(actual, 5.0, rtol=1e-5)

  def test_it_is_least_squares_within_the_groups(self):
    actual = losses.subtract_reached(
      jnp.array(self.own), jnp.array(self.reached)
    )
    for step in range(3):
      own, reached = (
        (leaf - leaf.mean(1, keepdims=True))[..., step].flatten()
        for leaf in (self.own, self.reached)
      )
      slope, *_ = np.linalg.lstsq(reached[:, None], own)
      left = np.asarray(actual)[..., step]
      left = left - left.mean(1, keepdims=True)
      expected = own - slope * reached
      np.testing.assert_allclose(left.flatten(), expected, atol=1e-5)

  def test_before_the_first_step_nothing_was_reached(self):
    actual = losses.subtract_reached(
      jnp.array(self.own), jnp.zeros(self.own.shape)
    )
    np.testing.assert_allclose(actual, self.own, rtol=1e-6)


class GroupAdvantagesTest(parameterized.TestCase):
  """The groups [1, 2, 3] and [0, 0, 6] have variances 2/3 and 8."""

  def setUp(self):
    super().setUp()
    self.returns = jnp.array([[1.0, 2.0, 3.0], [0.0, 0.0, 6.0]])[..., None]

  @parameterized.parameters(
    ('group', [2 / 3, 8]), ('batch', [13 / 3, 13 / 3]), ('none', [1, 1])
  )
  def test_scale(self, scale_rewards, variances):
    actual, dead = losses.group_advantages(self.returns, scale_rewards)
    centred = np.array([[-1, 0, 1], [-2, -2, 4]])
    expected = centred / np.sqrt(variances)[:, None]
    np.testing.assert_allclose(actual[..., 0], expected, rtol=1e-6)
    self.assertFalse(dead.any())

  def test_each_step_has_its_own_group(self):
    both = jnp.concatenate([self.returns, 1 - self.returns], 2)
    actual, _ = losses.group_advantages(both, 'group')
    np.testing.assert_allclose(actual[..., 1], -actual[..., 0], rtol=1e-6)

  @parameterized.product(
    scale_rewards=('group', 'batch', 'none'),
    size=(0.0, 1e-6, 1.0, 1e6),
  )
  def test_rounding_is_no_advantage(self, scale_rewards, size):
    # One sum in all six orders: the results differ by rounding.
    terms = np.float32(size) * np.array([0.1, 0.2, 0.7], np.float32)
    sums = [(a + b) + c for a, b, c in itertools.permutations(terms)]
    equal = np.array(sums)[None, :, None]
    near = equal * (1 + 1e-7 * np.arange(6)[None, :, None]).astype(np.float32)
    for group in (equal, near):
      actual, dead = losses.group_advantages(jnp.array(group), scale_rewards)
      np.testing.assert_array_equal(actual, np.zeros_like(group))
      self.assertTrue(dead.all())

  def test_small_rewards_that_differ_are_alive(self):
    actual, dead = losses.group_advantages(1e-6 * self.returns, 'group')
    expected, _ = losses.group_advantages(self.returns, 'group')
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)
    self.assertFalse(dead.any())

  def test_a_dead_group_leaves_the_scale_of_the_batch_alone(self):
    batch = jnp.concatenate([self.returns, jnp.full((1, 3, 1), 5.0)])
    actual, is_dead = losses.group_advantages(batch, 'batch')
    expected, _ = losses.group_advantages(self.returns, 'batch')
    np.testing.assert_allclose(actual[:2], expected, rtol=1e-6)
    np.testing.assert_array_equal(actual[2], 0)
    np.testing.assert_array_equal(is_dead[:, 0], [False, False, True])
    # Of one group that is alive, the scale of the batch is its own.
    batch = batch.at[1].set(5.0)
    actual, _ = losses.group_advantages(batch, 'batch')
    expected, _ = losses.group_advantages(batch, 'group')
    np.testing.assert_allclose(actual, expected, rtol=1e-6)


class LogRatiosTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.variable = jnp.array([-1.0, -2.0, -0.5])

  def _ratios(self, variable, level):
    return losses.log_ratios(
      variable,
      jnp.array([-0.1, -0.4, -3.0]),
      jnp.array([-1.5, -1.0, -0.5]),
      jnp.array([-0.2, -0.5, -2.0]),
      level,
    )

  @parameterized.parameters(
    ('factor', [[0.5, -1.0, 0.0], [0.1, 0.1, -1.0]]),
    ('decision', [[0.6, -0.9, -1.0]]),
    ('sequence', [[-1.3 / 3, -1.3 / 3, -1.3 / 3]]),
  )
  def test_values_by_hand(self, level, expected):
    actual = self._ratios(self.variable, level)
    np.testing.assert_allclose(actual, expected, atol=1e-6)

  @parameterized.parameters('factor', 'decision', 'sequence')
  def test_are_0_for_the_policy_that_acted(self, level):
    cell = jnp.array([-0.1, -0.4, -3.0])
    same = (self.variable, cell) * 2
    np.testing.assert_array_equal(losses.log_ratios(*same, level), 0)

  def _sequence_objective(self, variable, advantages):
    log_ratio = self._ratios(variable, 'sequence')[0]
    # So wide that nothing is clipped.
    return -losses.clipped_surrogate(log_ratio, advantages, 0.9, 9.0)

  def test_sequence_is_gspo(self):
    # Zheng et al. (2025), sections 4.1 and 4.2: with one advantage A for the
    # whole sequence, J = s A, and dJ / d log π_t = s A / T.
    s, advantage = np.exp(-1.3 / 3), 0.7
    objective = functools.partial(
      self._sequence_objective, advantages=jnp.full(3, advantage)
    )
    value, gradient = jax.value_and_grad(objective)(self.variable)
    self.assertAlmostEqual(float(value), s * advantage, places=6)
    np.testing.assert_allclose(gradient, np.full(3, s * advantage / 3), 1e-5)

  def test_sequence_credits_each_step_with_its_own_advantage(self):
    # Zheng et al. (2025), section 4.3, GSPO-token: with an advantage for
    # each step, dJ / d log π_t = s A_t / T.
    s, advantages = np.exp(-1.3 / 3), jnp.array([0.7, -0.2, 1.5])
    objective = functools.partial(
      self._sequence_objective, advantages=advantages
    )
    value, gradient = jax.value_and_grad(objective)(self.variable)
    self.assertAlmostEqual(float(value), s * advantages.mean(), places=6)
    np.testing.assert_allclose(gradient, s * advantages / 3, 1e-5)


class ClippedSurrogateTest(parameterized.TestCase):
  @parameterized.parameters((0.2, 0.2), (0.1, 0.5), (0.4, 0.2))
  def test_value_gradient_and_clip_fraction(self, epsilon, epsilon_high):
    # In plain numpy: Schulman et al. (2017), equation 7, with the upper bound
    # of DAPO (Yu et al., 2025), section 3.1.
    rng = np.random.default_rng(0)
    log_ratio = 0.5 * rng.normal(size=200)
    advantages = rng.normal(size=200)
    ratio = np.exp(log_ratio)
    clipped = np.clip(ratio, 1 - epsilon, 1 + epsilon_high)
    objective = np.minimum(ratio * advantages, clipped * advantages)
    whole = ratio * advantages <= clipped * advantages
    slope = np.where(whole, ratio * advantages, 0) / 200

    args = jnp.array(log_ratio), jnp.array(advantages), epsilon, epsilon_high
    value, gradient = jax.value_and_grad(losses.clipped_surrogate)(*args)
    np.testing.assert_allclose(value, -objective.mean(), rtol=1e-5)
    np.testing.assert_allclose(gradient, -slope, rtol=1e-4, atol=1e-9)
    fraction = losses.clip_fraction(*args)
    self.assertGreater(fraction, 0.1)
    np.testing.assert_allclose(fraction, (~whole).mean(), rtol=1e-6)

  def test_no_advantage_no_gradient(self):
    gradient = jax.grad(losses.clipped_surrogate)(
      jnp.array([0.0, 0.1, -0.5, 3.0]), jnp.zeros(4), 0.2, 0.2
    )
    np.testing.assert_array_equal(gradient, np.zeros(4))

  @parameterized.product(log_ratio=(20.0, 1e3, -1e3), advantage=(1.0, -1.0))
  def test_finite_however_far_apart(self, log_ratio, advantage):
    # The ratio is bounded by exp(20) = 4.85e8.
    value, gradient = jax.value_and_grad(losses.clipped_surrogate)(
      jnp.array([log_ratio]), jnp.array([advantage]), 0.2, 0.2
    )
    self.assertLessEqual(abs(value), 4.86e8)
    self.assertLessEqual(np.abs(gradient).max(), 4.86e8)


class AuxiliaryLossesTest(absltest.TestCase):
  def test_parent_loss_by_hand(self):
    # The truth has probabilities 1/2, 3/4, 3/4; the last is no candidate.
    actual = losses.parent_loss(
      jnp.array([0.0, np.log(3), -np.log(3), 50.0]),
      jnp.array([True, True, False, False]),
      jnp.array([True, True, True, False]),
    )
    expected = (np.log(2) + 2 * np.log(4 / 3)) / 3
    np.testing.assert_allclose(actual, expected, rtol=1e-6)

  def test_parent_loss_without_candidates_is_0(self):
    nothing = jnp.zeros(2, bool)
    actual = losses.parent_loss(jnp.array([5.0, -5.0]), nothing, nothing)
    self.assertEqual(actual, 0)

  def test_parent_loss_of_an_extreme_belief_is_finite(self):
    # -log(1 - sigmoid(1e4)) is 1e4 to rounding, and its slope is 1.
    truth = jnp.array([False])
    value, gradient = jax.value_and_grad(losses.parent_loss)(
      jnp.array([1e4]), truth, ~truth
    )
    self.assertAlmostEqual(float(value), 1e4, places=2)
    np.testing.assert_allclose(gradient, [1.0])

  def test_outcome_loss_by_hand(self):
    # Of nothing given, variable 0 may be added: cross-entropies of 3/4 from a
    # prediction of 1/2, and of 1/4 from 1/4; nothing itself is not predicted.
    # Of variable 0 given, 1 may be added: of 1 from 1/4 and of 0 from 3/4; and
    # 0 alone has 1/2 from 1/2. What the search has missed, beyond 1, counts
    # as 1.
    log_3 = np.log(3)
    logits = jnp.array(
      [[[0.0, -log_3], [9.0, 9.0]], [[-9.0, 9.0], [-log_3, log_3]]]
    )
    actual = losses.outcome_loss(
      logits,
      jnp.array([7.0, 0.0]),
      jnp.array([[[0.75, 0.25], [0.0, 0.0]], [[0.5, 0.5], [1.1, -0.1]]]),
      jnp.array([0.3, 0.5]),
      jnp.array([[True, False], [False, True]]),
      jnp.array([False, True]),
    )
    right = -(0.25 * np.log(0.25) + 0.75 * np.log(0.75))
    first = (np.log(2) + right) / 2
    second = (2 * np.log(4) + np.log(2)) / 3
    np.testing.assert_allclose(actual, (first + second) / 2, rtol=1e-6)

  def test_outcome_loss_is_the_mean_over_questions(self):
    rng = np.random.default_rng(0)
    logits, nones = rng.normal(size=(3, 2, 4)), rng.normal(size=3)
    rewards, given = rng.random(size=(3, 2, 4)), rng.random(3)
    may_add = np.array([[True, True], [False, False], [True, False]])

    def loss(some):
      return losses.outcome_loss(
        jnp.float32(logits[some]),
        jnp.float32(nones[some]),
        jnp.float32(rewards[some]),
        jnp.float32(given[some]),
        may_add[some],
        np.array([False, True, True])[some],
      )

    each = np.mean([loss([question]) for question in range(3)])
    np.testing.assert_allclose(loss([0, 1, 2]), each, rtol=1e-6)

  def test_outcome_loss_is_least_at_the_reward(self):
    rewards = jnp.array([[[0.2, 0.9], [0.5, 0.01]], [[0.3, 0.4], [0.6, 0.7]]])
    given = jnp.array([0.0, 0.8])

    def logit(p):
      return jnp.log(p / (1 - p))

    gradient = jax.grad(losses.outcome_loss, (0, 1))(
      logit(rewards),
      jnp.array([3.0, logit(0.8)]),
      rewards,
      given,
      jnp.ones((2, 2), bool),
      jnp.array([False, True]),
    )
    for leaf in gradient:
      np.testing.assert_allclose(leaf, np.zeros_like(leaf), atol=1e-7)

  def test_prediction_loss_by_hand(self):
    # Of two distributions, one of which has a component that is far away.
    mixture = outcome_distribution.Mixture(
      jnp.log(jnp.array([[0.5, 0.5], [1.0, 0.0]])),
      jnp.array([[0.0, 100.0], [1.0, 0.0]]),
      jnp.array([[2.0, 1.0], [1.0, 1.0]]),
    )
    actual = losses.prediction_loss(mixture, jnp.array([0.0, 3.0]))
    root = np.log(np.sqrt(2 * np.pi))
    expected = ((root + np.log(2) - np.log(0.5)) + (root + 2.0)) / 2
    np.testing.assert_allclose(actual, expected, rtol=1e-6)


class PolicyGradientTest(parameterized.TestCase):
  """Layer 1: the surrogate's gradient on a bandit of 3 variables, 4 cells.

  In closed form, d E[r] / d logit_a = π_a (r_a - E[r]) for a softmax over all
  arms. A mean over the group that holds the rollout itself takes a G-th of it.
  """

  @pytest.mark.stat
  @parameterized.parameters(('decision', 2), ('factor', 5))
  def test_mean_over_groups_is_the_closed_form(self, level, num_generations):
    logits = jax.random.normal(jax.random.key(0), (3, 4))
    table = jax.random.normal(jax.random.key(1), (3, 4))
    # One at a time, and none is no choice.
    sets, nothing = (
      jnp.eye(3, dtype=bool),
      action_distribution.empty_intervention(3),
    )

    def group_gradient(key):
      keys = jax.random.split(key, num_generations)
      log_probs = action_distribution.step_distribution(
        logits, jnp.zeros(()), sets, nothing
      )
      sample = functools.partial(
        action_distribution.sample, log_probs=log_probs
      )
      decisions = types.Decision(*jax.vmap(sample)(keys))
      rewards = table[decisions.variable, decisions.cell]
      advantages, _ = losses.group_advantages(
        rewards[None, :, None], 'none'
      )  # [1, G, 1]

      def loss(logits):
        log_probs = action_distribution.step_distribution(
          logits, jnp.zeros(()), sets, nothing
        )

        def rollout(decision, advantage):
          now = action_distribution.log_prob(log_probs, decision)
          old = jax.lax.stop_gradient(now)
          ratios = losses.log_ratios(
            *(x[None] for x in (*now, *old)), level=level
          )
          surrogates = [
            losses.clipped_surrogate(ratio, advantage, 0.2, 0.2)
            for ratio in ratios
          ]
          return jnp.stack(surrogates).sum()

        return jax.vmap(rollout)(decisions, advantages[0]).mean()

      return -jax.grad(loss)(logits)

    keys = jax.random.split(jax.random.key(2), 20_000)
    gradients = np.asarray(jax.jit(jax.vmap(group_gradient))(keys), float)
    policy = np.exp(logits) / np.exp(logits).sum()
    closed = policy * (table - (policy * table).sum())
    expected = (1 - 1 / num_generations) * closed
    error = gradients.std(0) / np.sqrt(len(keys))
    z = (gradients.mean(0) - expected) / error
    self.assertLess(np.abs(z).max(), chance.SIGMAS)
    # A test with power: without the factor it would fail.
    self.assertGreater(np.abs((closed - expected) / error).max(), 8)


if __name__ == '__main__':
  absltest.main()
