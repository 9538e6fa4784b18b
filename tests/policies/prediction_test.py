"""Tests of predictions against closed forms."""

from absl.testing import absltest
import jax
import jax.numpy as jnp
import numpy as np
from scipy import special
from scipy import stats

from acme_cbo.environments import normalization
from acme_cbo.networks import outcome_distribution
from acme_cbo.policies import prediction


def _normal(mean, deviation):
  values = mean + deviation * special.ndtri(prediction.LEVELS)
  return prediction.Prediction(np.asarray(mean), values, 2 * values)


class PredictionTest(absltest.TestCase):
  def test_intervals_of_a_normal_distribution(self):
    one = _normal(3.0, 0.5)
    low, high = one.interval
    np.testing.assert_allclose(low, 3 - 0.5 * 1.645, atol=0.005)
    np.testing.assert_allclose(high, 3 + 0.5 * 1.645, atol=0.005)
    np.testing.assert_allclose(one.outcome_interval, (2 * low, 2 * high))
    self.assertTrue(one.contains(high - 1e-6))
    self.assertFalse(one.contains(high + 1e-6))

  def test_crps_of_a_normal_distribution(self):
    # Gneiting and Raftery (2007), equation 20.
    z = np.array([-2.0, 0.0, 0.7])
    exact = z * (2 * stats.norm.cdf(z) - 1) + 2 * stats.norm.pdf(z)
    exact -= 1 / np.sqrt(np.pi)
    one = _normal(3.0, 0.5)
    scores = [one.crps(y) for y in 3 + 0.5 * z]
    np.testing.assert_allclose(scores, 0.5 * exact, atol=0.003)

  def test_probability_of_a_difference(self):
    above = _normal(1.0, 0.3).probability_above(_normal(0.5, 0.4))
    self.assertAlmostEqual(above, special.ndtr(1.0), delta=0.003)

  def test_several_at_once(self):
    both = jax.tree.map(
      lambda *leaves: np.stack(leaves), _normal(3.0, 0.5), _normal(-1.0, 2.0)
    )
    expected = np.array([3.2, 0.0])
    np.testing.assert_allclose(
      both.crps(expected),
      [
        _normal(3.0, 0.5).crps(np.float64(3.2)),
        _normal(-1.0, 2.0).crps(np.float64(0.0)),
      ],
    )
    np.testing.assert_array_equal(both.contains(expected), [True, True])

  def test_of_a_mixture_of_the_normalized_target(self):
    # Less is better: the scale is negative, and values ascend all the same.
    mixture = outcome_distribution.Mixture(
      jnp.log(jnp.array([0.25, 0.75])),
      jnp.array([-1.0, 2.0]),
      jnp.array([0.5, 0.2]),
    )
    wider = mixture._replace(deviations=2 * mixture.deviations)
    one = jax.jit(prediction.from_distribution)(
      outcome_distribution.OutcomeDistribution(
        mixture,
        wider,
        normalization.Normalization(jnp.float32(10.0), jnp.float32(-4.0)),
      )
    )
    rng = np.random.default_rng(0)
    means, deviations = np.array([[-1.0, 2.0], [0.5, 0.2]])
    kinds = (rng.random(100_000) < 0.75).astype(int)
    noise = rng.normal(size=kinds.size)
    for values, factor in ((one.expected, 1), (one.outcome, 2)):
      draws = means[kinds] + factor * deviations[kinds] * noise
      target = 10 - 4 * 3 * np.sinh(draws / 3)
      below = (target < np.asarray(values)[:, None]).mean(-1)
      np.testing.assert_allclose(below, prediction.LEVELS, atol=0.005)
      if factor == 1:
        np.testing.assert_allclose(one.mean, target.mean(), atol=0.05)


if __name__ == '__main__':
  absltest.main()
