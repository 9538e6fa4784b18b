"""Tests of the regression against formulas in numpy."""

import functools

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate
from scipy import special
from scipy import stats

from acme_cbo.policies.baselines import gaussian_processes as gp

_PARAMETERS = gp.Parameters(
  length=np.log([0.7, 2.0]), amplitude=np.log(1.3), noise=np.log(0.2)
)
_BOTH = np.array([True, True])
_PRIOR = gp.prior_mode(_BOTH, 0.3)


def _points(rng, num_points, num_columns=2):
  return gp.Points(
    inputs=rng.normal(size=(num_points, num_columns)),
    mean=rng.normal(size=num_points),
    deviation=rng.uniform(0.1, 1.0, size=num_points),
  )


def _data(num_rows=6, num_columns=2, seed=0):
  rng = np.random.default_rng(seed)
  return gp.Data(
    _points(rng, num_rows, num_columns),
    rng.normal(size=num_rows),
    np.ones(num_rows, bool),
  )


def _kernel(one, other):
  length, amplitude = np.exp(_PARAMETERS.length), np.exp(_PARAMETERS.amplitude)
  scaled = (one.inputs[:, None] - other.inputs[None]) / length
  radial = amplitude**2 * np.exp(-0.5 * (scaled**2).sum(-1))
  return radial + one.deviation[:, None] * other.deviation


@jax.jit
def _predict(parameters, columns, data, points):
  return gp.predict(gp.process(parameters, columns, data), data, points)


def _padded(data, columns, num_rows, num_columns):
  """Pads data with masked rows and unused columns of arbitrary values."""
  more_rows = num_rows - data.outputs.size
  more_columns = num_columns - columns.size

  def pad(leaf):
    return np.pad(leaf, (0, more_rows), constant_values=3.0)

  inputs = np.pad(
    data.points.inputs,
    ((0, more_rows), (0, more_columns)),
    constant_values=5.0,
  )
  inputs[:, columns.size :] += np.arange(num_rows)[:, None]
  points = gp.Points(inputs, pad(data.points.mean), pad(data.points.deviation))
  row_mask = np.arange(num_rows) < data.outputs.size
  return (
    gp.Data(points, pad(data.outputs), row_mask),
    np.pad(columns, (0, more_columns)),
  )


class RegressionTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.enterContext(jax.enable_x64(True))

  @pytest.mark.oracle
  def test_posterior(self):
    # Rasmussen and Williams (2006), (2.25) and (2.26).
    data, points = _data(), _points(np.random.default_rng(1), 5)
    mean, deviation = _predict(_PARAMETERS, _BOTH, data, points)
    noisy = _kernel(data.points, data.points) + 0.2**2 * np.eye(6)
    across = _kernel(points, data.points)
    weights = across @ np.linalg.inv(noisy)
    expected = points.mean + weights @ (data.outputs - data.points.mean)
    variance = np.diag(_kernel(points, points) - weights @ across.T)
    np.testing.assert_allclose(mean, expected, atol=1e-8)
    np.testing.assert_allclose(deviation, np.sqrt(variance), atol=1e-8)

  @pytest.mark.oracle
  def test_density(self):
    # The multivariate normal density, and the weak prior less its constant.
    data = _data()
    noisy = _kernel(data.points, data.points) + 0.2**2 * np.eye(6)
    center = np.log(0.3) + 0.5 * np.log(2)
    penalty = (_PARAMETERS.length - center) ** 2
    expected = stats.multivariate_normal(data.points.mean, noisy).logpdf(
      data.outputs
    )
    expected -= 0.5 * (
      penalty.sum() + np.log(1.3) ** 2 + (np.log(0.2 / 0.1) / 1.5) ** 2
    )
    actual = gp.log_density(_PARAMETERS, jnp.array(_BOTH), data, _PRIOR)
    np.testing.assert_allclose(actual, expected, atol=1e-8)

  def test_padding_changes_nothing(self):
    data = _data()
    padded, columns = _padded(data, _BOTH, 11, 4)
    parameters = _PARAMETERS._replace(
      length=np.append(_PARAMETERS.length, [0.1, 0.2])
    )
    points = _points(np.random.default_rng(1), 5, 4)
    short = points._replace(inputs=points.inputs[:, :2])
    for actual, expected in zip(
      _predict(parameters, columns, padded, points),
      _predict(_PARAMETERS, _BOTH, data, short),
      strict=True,
    ):
      np.testing.assert_allclose(actual, expected, atol=1e-9)
    prior = gp.prior_mode(columns, 0.3)
    fitted, plain = gp.fit(columns, padded, prior), gp.fit(_BOTH, data, _PRIOR)
    np.testing.assert_allclose(fitted.length[:2], plain.length, atol=1e-3)
    np.testing.assert_allclose(fitted.noise, plain.noise, atol=1e-3)
    # Unused hyperparameters stay at the mode of the prior.
    np.testing.assert_allclose(fitted.length[2:], prior.length[2:], atol=1e-6)

  def test_interpolates_without_noise(self):
    data = _data()
    exact = _PARAMETERS._replace(noise=np.log(1e-6))
    mean, deviation = _predict(exact, _BOTH, data, data.points)
    np.testing.assert_allclose(mean, data.outputs, atol=1e-6)
    self.assertLess(np.max(deviation), 1e-5)

  def test_fit_recovers_the_hyperparameters(self):
    rng = np.random.default_rng(0)
    inputs = rng.uniform(-1.7, 1.7, (60, 2))
    outputs = np.sin(3 * inputs[:, 0]) + 0.1 * rng.normal(size=60)
    zeros = np.zeros(60)
    data = gp.Data(gp.Points(inputs, zeros, zeros), outputs, np.ones(60, bool))
    fitted = gp.fit(_BOTH, data, _PRIOR)
    # The second column does not matter; the noise has deviation 0.1.
    self.assertGreater(fitted.length[1] - fitted.length[0], 1.0)
    self.assertAlmostEqual(np.exp(fitted.noise), 0.1, delta=0.03)
    # The gradient is 0 at a mode.
    slope = jax.grad(gp.log_density)(
      jax.tree.map(jnp.asarray, fitted), _BOTH, data, _PRIOR
    )
    self.assertLess(max(np.max(np.abs(leaf)) for leaf in slope), 0.1)

  @parameterized.parameters(0, 1, 2, 3)
  def test_few_points_give_finite_results(self, num_known):
    # All points coincide.
    zeros = np.zeros(4)
    data = gp.Data(
      gp.Points(np.zeros((4, 2)), zeros, zeros),
      outputs=np.full(4, 1e3),
      row_mask=np.arange(4) < num_known,
    )
    mode = gp.fit(_BOTH, data, _PRIOR)
    sample = gp.sample(_BOTH, data, _PRIOR, mode)
    for leaf in jax.tree.leaves((mode, sample)):
      self.assertTrue(np.isfinite(leaf).all())
    np.testing.assert_allclose(np.exp(sample.log_weight).sum(), 1)

  def test_sample_does_not_depend_on_rounding(self):
    # Of two points that differ in one coordinate alone, nothing is known of the
    # other length scale, and the Hessian has equal eigenvalues.
    zeros = np.zeros(2)
    points = gp.Points(np.array([[1.7, -1.7], [-1.7, -1.7]]), zeros, zeros)
    samples = []
    for rounding in (0.0, 1e-14, -1e-14):
      outputs = np.array([-0.3 + rounding, 0.0])
      data = gp.Data(points, outputs, np.ones(2, bool))
      prior = gp.prior_mode(_BOTH, 0.3)
      mode = gp.fit(_BOTH, data, prior)
      samples.append(gp.sample(_BOTH, data, prior, mode))
    for other in samples[1:]:
      jax.tree.map(
        functools.partial(np.testing.assert_allclose, atol=1e-9),
        samples[0],
        other,
      )

  @pytest.mark.oracle
  def test_sample_is_of_the_posterior(self):
    # Mean and deviation of the log length scale, by sums over a grid.
    column = np.array([True])
    zeros = np.zeros(4)
    data = gp.Data(
      gp.Points(np.array([[-1.5], [-0.5], [0.4], [1.4]]), zeros, zeros),
      outputs=np.array([0.9, -0.2, 0.3, 0.5]),
      row_mask=np.ones(4, bool),
    )
    prior = gp.prior_mode(column, 0.3)
    mode = gp.fit(column, data, prior)
    sample = gp.sample(column, data, prior, mode)
    weight = np.exp(sample.log_weight)
    length = sample.parameters.length[:, 0]
    mean = weight @ length
    deviation = np.sqrt(weight @ (length - mean) ** 2)

    axes = (
      np.linspace(-5, 4, 40),
      np.linspace(-4, 4, 30),
      np.linspace(-9, 3, 30),
    )
    grid = np.stack(np.meshgrid(*axes, indexing='ij'), -1).reshape(-1, 3)
    logs = jax.jit(jax.vmap(gp.log_density, (0, None, None, None)))(
      gp.Parameters(grid[:, :1], grid[:, 1], grid[:, 2]), column, data, prior
    )
    density = np.exp(logs - special.logsumexp(logs))
    expected = density @ grid[:, 0]
    spread = np.sqrt(density @ (grid[:, 0] - expected) ** 2)
    self.assertAlmostEqual(mean, expected, delta=0.25 * spread)
    self.assertAlmostEqual(deviation, spread, delta=0.35 * spread)


class ImprovementTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.enterContext(jax.enable_x64(True))

  @pytest.mark.oracle
  @parameterized.parameters(
    (0.3, 0.5, 0.1), (-1.0, 0.7, 0.4), (2.0, 0.1, 0.0), (-2.0, 0.5, 1.0)
  )
  def test_against_quadrature(self, mean, deviation, best):
    expected, _ = integrate.quad(
      lambda f: (f - best) * stats.norm.pdf(f, mean, deviation),
      best,
      max(best, mean) + 12 * deviation,
      epsabs=1e-14,
    )
    actual = gp.log_expected_improvement(
      jnp.array(mean), jnp.array(deviation), jnp.array(best)
    )
    np.testing.assert_allclose(np.exp(actual), expected, rtol=1e-7)

  @pytest.mark.oracle
  def test_tails(self):
    # h(z) / φ(z) = 1 + z √(π/2) erfcx(-z / √2), for z < 0.
    z = np.array([-2000.0, -101, -99, -40, -10, -1, -1e-9])
    mills = np.sqrt(np.pi / 2) * special.erfcx(-z / np.sqrt(2))
    expected = stats.norm.logpdf(z) + np.log1p(z * mills)
    expected[0] = stats.norm.logpdf(z[0]) - 2 * np.log(-z[0])
    one = jnp.ones(())

    def at(z):
      return gp.log_expected_improvement(z, one, 0 * one)

    actual = jax.jit(jax.vmap(at))(jnp.array(z))
    np.testing.assert_allclose(actual, expected, atol=2e-6)
    everywhere = jnp.concatenate([jnp.array(z), jnp.array([0.0, 5, 50, 1e4])])
    slopes = jax.jit(jax.vmap(jax.grad(at)))(everywhere)
    self.assertTrue(np.isfinite(slopes).all())
    self.assertGreater(np.min(slopes), 0)
    np.testing.assert_allclose(at(jnp.array(1e4)), np.log(1e4))


if __name__ == '__main__':
  absltest.main()
