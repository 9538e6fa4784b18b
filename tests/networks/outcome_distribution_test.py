"""Tests of mixtures of normals, against scipy and against samples."""

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np
import scipy.integrate
import scipy.stats

from acme_cbo.networks import outcome_distribution

_MIXTURE = outcome_distribution.Mixture._make(
  map(np.array, (np.log([0.2, 0.7, 0.1]), [-1.0, 0.5, 4.0], [0.3, 1.0, 0.1]))
)


def _density(value):
  weights = np.exp(_MIXTURE.log_weights)
  return weights @ scipy.stats.norm.pdf(
    value, _MIXTURE.means, _MIXTURE.deviations
  )


class MixtureTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.enterContext(jax.enable_x64(True))
    self.mixture = jax.tree.map(jnp.asarray, _MIXTURE)

  @parameterized.parameters(-3.0, 0.4, 4.05, 30.0)
  def test_density_and_cdf_are_those_of_the_components(self, value):
    value = jnp.float64(value)
    log_density = outcome_distribution.log_density(self.mixture, value)
    if value < 10:
      np.testing.assert_allclose(log_density, np.log(_density(value)))
    self.assertTrue(np.isfinite(log_density))
    expected, _ = scipy.integrate.quad(
      _density, -20, value, points=[-1, 0.5, 4.0], limit=200
    )
    np.testing.assert_allclose(
      outcome_distribution.cdf(self.mixture, value), expected, atol=1e-7
    )

  @parameterized.parameters(0.001, 0.05, 0.5, 0.95, 0.999)
  def test_a_quantile_inverts_the_cdf(self, level):
    value = outcome_distribution.quantile(self.mixture, jnp.float64(level))
    np.testing.assert_allclose(
      outcome_distribution.cdf(self.mixture, value), level, rtol=1e-6
    )

  def test_the_mean_is_that_of_the_inverse_of_the_normalization(self):
    expected, _ = scipy.integrate.quad(
      lambda y: 3 * np.sinh(y / 3) * _density(y),
      -20,
      20,
      points=[-1, 0.5, 4.0],
      limit=200,
    )
    np.testing.assert_allclose(
      outcome_distribution.mean(self.mixture), expected, rtol=1e-6
    )

  def test_leading_axes_are_those_of_many_mixtures(self):
    many = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf + 1]), self.mixture)
    # Weights too large by a factor are no mixture, but a sum all the same.
    for function in (
      outcome_distribution.log_density,
      outcome_distribution.cdf,
    ):
      each = function(many, jnp.array([0.3, 0.4]))
      self.assertEqual(each.shape, (2,))
      np.testing.assert_allclose(
        each[0], function(self.mixture, jnp.float64(0.3))
      )


if __name__ == '__main__':
  absltest.main()
