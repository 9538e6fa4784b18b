"""Exact Gaussian-process regression, and expected improvement.

Data are padded to a fixed number of rows and inputs to a fixed number of
columns, so that one compiled program serves all steps of an episode and all
sets of variables: rows that are not known and columns that are not used change
nothing.

  P  points, C of them candidates
  R  rows of data, padded
  D  columns of the inputs

Inputs and outputs are in units in which their spread is about 1. All numbers
are float64.

The matrices are small, and LAPACK is OpenBLAS, which shares each one out among
threads: on a busy machine that takes up to 100 times as long as the work. Start
Python with OPENBLAS_NUM_THREADS=1 in its environment; it is read when numpy and
scipy are imported.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import optimize
from scipy import special
from scipy import stats
from scipy.stats import qmc
import tinygp

# Of jax within compiled functions, of numpy on the host.
Array = Any


class Points(NamedTuple):
  """Where a process is asked, and what is believed there before any data.

  Attributes:
    inputs: [P, D].
    mean: [P] the prior mean.
    deviation: [P] s of the kernel, see `Kernel`; 0 for a plain one.
  """

  inputs: Array
  mean: Array
  deviation: Array


class Data(NamedTuple):
  """What was seen.

  Attributes:
    points: R `Points`.
    outputs: [R].
    known: [R] bool, False where a row is padding.
  """

  points: Points
  outputs: Array
  known: Array


class Parameters(NamedTuple):
  """Hyperparameters of a process, as natural logarithms.

  Attributes:
    length: [D] of the length scales.
    amplitude: [] of the standard deviation of the radial part.
    noise: [] of the standard deviation of the noise.
  """

  length: Array
  amplitude: Array
  noise: Array


# Of the weak normal prior of the logarithms: its deviations, and bounds.
_DEVIATION = Parameters(length=1.0, amplitude=1.0, noise=1.5)
_LOWEST = Parameters(length=np.log(0.02), amplitude=np.log(0.02), noise=-9.0)
_HIGHEST = Parameters(length=np.log(1e3), amplitude=np.log(1e2), noise=3.0)
_MOST_ITERATIONS = 50
_LEAST_VARIANCE = 1e-18
# Below it the closed form of the improvement cancels.
_TAIL = -100.0
# Hyperparameters that an acquisition is averaged over, a power of 2.
_NUM_SAMPLES = 16
_LEAST_PRECISION = 0.25


class Kernel(tinygp.kernels.Kernel):
  """`a² exp(-½ Σ_d ((x_d - x'_d) / l_d)²) + s(x) s(x')`.

  The second term is that of the causal prior of Aglietti et al., "Causal
  Bayesian Optimization" (2020), section 3.2; s is a part of the point. Of a
  point and one that is padding it is 0.

  Attributes:
    inverse_length: [D], 0 for a column that is not used.
    variance: [] a².
  """

  inverse_length: jax.Array
  variance: jax.Array

  def evaluate(self, X1, X2):
    """Of two points (inputs [D], s [], known [] bool)."""
    (x, s, known), (other_x, other_s, other_known) = X1, X2
    distance = jnp.square((x - other_x) * self.inverse_length).sum()
    radial = self.variance * jnp.exp(-0.5 * distance)
    return jnp.where(known & other_known, radial + s * other_s, 0.0)


def prior_mode(columns: np.ndarray, length: float) -> Parameters:
  """What the hyperparameters are most probably, before any data.

  Args:
    columns: [D] bool, the columns that are used.
    length: the length scale, were it one column.

  Returns:
    An amplitude of 1, noise of 0.1, and length scales that grow as the square
    root of the number of columns, as distances do (Hvarfner et al., "Vanilla
    Bayesian Optimization Performs Great in High Dimensions", 2024).
  """
  grown = length * np.sqrt(max(int(columns.sum()), 1))
  return Parameters(
    length=np.full(columns.shape, np.log(grown)),
    amplitude=np.log(1.0),
    noise=np.log(0.1),
  )


def process(
  parameters: Parameters, columns: jax.Array, data: Data
) -> tinygp.GaussianProcess:
  """The prior process at the data; padding is noise of its own.

  Args:
    parameters: its hyperparameters.
    columns: [D] bool, the columns that are used.
    data: R rows.

  Returns:
    A process of mean 0, to be conditioned on `data.outputs` less their mean.
  """
  kernel = Kernel(
    inverse_length=jnp.where(columns, jnp.exp(-parameters.length), 0.0),
    variance=jnp.exp(2 * parameters.amplitude),
  )
  noise = jnp.where(data.known, jnp.exp(2 * parameters.noise), 1.0)
  located: Any = data.points.inputs, data.points.deviation, data.known
  return tinygp.GaussianProcess(kernel, located, diag=noise)


def log_density(
  parameters: Parameters, columns: jax.Array, data: Data, prior: Parameters
) -> jax.Array:
  """Log of the marginal likelihood times the prior of the hyperparameters.

  Args:
    parameters: the hyperparameters.
    columns: [D] bool, the columns that are used.
    data: R rows.
    prior: the mode of their prior.

  Returns:
    [] up to a constant.
  """
  at_data = process(parameters, columns, data)
  likelihood = at_data.log_probability(_residuals(data))
  strays = jax.tree.map(
    lambda value, mode, deviation: jnp.square((value - mode) / deviation).sum(),
    parameters,
    prior,
    _DEVIATION,
  )
  return likelihood - 0.5 * sum(strays)


def _loss(vector, columns, data, prior):
  return -log_density(_unpacked(vector), columns, data, prior)


_loss_and_slope = jax.jit(jax.value_and_grad(_loss))


def fit(
  columns: np.ndarray,
  data: Data,
  prior: Parameters,
  starts: tuple[Parameters, ...] = (),
) -> Parameters:
  """The most probable hyperparameters.

  Args:
    columns: [D] bool, the columns that are used.
    data: R rows; with none known the mode of the prior is returned.
    prior: that mode.
    starts: where to search from, beside it and one of shorter lengths.

  Returns:
    The best that a bounded quasi-Newton search from each start reached.
  """
  if not np.any(data.known):
    return prior
  short = prior._replace(length=prior.length - 1.5, noise=prior.noise - 1.0)
  lowest, highest = _bounds(columns)
  given = jax.tree.map(jnp.asarray, (columns, data, prior))

  def loss(vector):
    value, slope = _loss_and_slope(vector, *given)
    return float(value), np.asarray(slope)

  ends = [
    optimize.minimize(
      loss,
      np.clip(_packed(start), lowest, highest),
      jac=True,
      method='L-BFGS-B',
      bounds=optimize.Bounds(lowest, highest),
      options={'maxiter': _MOST_ITERATIONS, 'ftol': 1e-7},
    )
    for start in (prior, short, *starts)
  ]
  best = min(ends, key=lambda end: end.fun)
  return jax.tree.map(np.asarray, _unpacked(best.x))


class Sample(NamedTuple):
  """Draws from the posterior of the hyperparameters.

  Attributes:
    parameters: `Parameters` with a leading axis K.
    log_weight: [K] of each draw; the weights sum to 1.
  """

  parameters: Parameters
  log_weight: Array


def sample(
  columns: np.ndarray, data: Data, prior: Parameters, mode: Parameters
) -> Sample:
  """Hyperparameters in proportion to how probable they are.

  A handful of outcomes leave them open, and the most probable ones can say that
  the function is flat; so an acquisition is averaged over them (Snoek,
  Larochelle and Adams, "Practical Bayesian Optimization of Machine Learning
  Algorithms", 2012, section 3.1). Here by importance sampling from the Laplace
  approximation around the mode.

  Args:
    columns: [D] bool, the columns that are used.
    data: R rows; with none known the draws are of the prior.
    prior: the mode of the prior.
    mode: that of the posterior, from `fit`.

  Returns:
    The same draws at every call with the same data.
  """
  centre = _packed(mode)
  slopes = np.asarray(_curvature(centre, columns, data, prior))
  precision, axes = np.linalg.eigh(slopes)
  spread = axes / np.sqrt(np.maximum(precision, _LEAST_PRECISION))
  level = qmc.Sobol(centre.size, rng=0).random(_NUM_SAMPLES)
  normal = stats.norm.ppf(level)
  vectors = np.clip(centre + normal @ spread.T, *_bounds(columns))
  log_weight = 0.5 * np.square(normal).sum(1) - np.asarray(
    _losses(vectors, columns, data, prior)
  )
  log_weight -= special.logsumexp(log_weight)
  parameters = Parameters(vectors[:, :-2], vectors[:, -2], vectors[:, -1])
  return Sample(parameters, log_weight)


_curvature = jax.jit(jax.hessian(_loss))
_losses = jax.jit(jax.vmap(_loss, (0, None, None, None)))


def _bounds(columns):
  size = np.shape(columns)
  return tuple(
    _packed(Parameters(np.full(size, limit.length), *limit[1:]))
    for limit in (_LOWEST, _HIGHEST)
  )


def predict(
  at_data: tinygp.GaussianProcess, data: Data, points: Points
) -> tuple[jax.Array, jax.Array]:
  """The posterior of the function, without the noise.

  Args:
    at_data: the prior process at the data, from `process`.
    data: R rows.
    points: P `Points`.

  Returns:
    [P] means and [P] standard deviations.
  """
  residuals = _residuals(data)

  def predict_one(x, s):
    point: Any = x[None], s[None], jnp.ones(1, bool)
    conditioned = at_data.condition(residuals, point, diag=jnp.zeros(1)).gp
    return conditioned.loc[0], conditioned.variance[0]

  # One at a time, or the covariances of all of them are computed.
  shift, variance = jax.vmap(predict_one)(points.inputs, points.deviation)
  # Rounding can carry the variance at a row of the data below 0.
  deviation = jnp.sqrt(jnp.maximum(variance, _LEAST_VARIANCE))
  return points.mean + shift, deviation


def log_expected_improvement(
  mean: jax.Array, deviation: jax.Array, best: jax.Array
) -> jax.Array:
  """`log E[max(f - best, 0)]` of `f ~ N(mean, deviation²)`.

  With `z = (mean - best) / deviation` it is `log deviation + log h(z)`, where
  `h(z) = φ(z) + z Φ(z)` (Jones, Schonlau and Welch, "Efficient Global
  Optimization of Expensive Black-Box Functions", 1998, (15)), and in the lower
  tail `h(z) ≈ φ(z) / (z² + 3)`, as in Ament et al., "Unexpected Improvements to
  Expected Improvement" (2023), so that its slope never vanishes.

  Args:
    mean: [P].
    deviation: [P], positive.
    best: [] what is to be improved upon.

  Returns:
    [P].
  """
  z = (mean - best) / deviation
  # Each branch is given what it can bear, so that no slope is NaN.
  tail = jnp.minimum(z, _TAIL)
  middle = jnp.clip(z, _TAIL, 0.0)
  upper = jnp.maximum(z, 0.0)
  normal = jax.scipy.stats.norm
  log_middle = normal.logpdf(middle)
  ratio = jnp.exp(normal.logcdf(middle) - log_middle)
  log_h = jnp.where(
    z < _TAIL,
    normal.logpdf(tail) - jnp.log(tail**2 + 3.0),
    jnp.where(
      z < 0,
      log_middle + jnp.log1p(middle * ratio),
      jnp.log(normal.pdf(upper) + upper * normal.cdf(upper)),
    ),
  )
  return jnp.log(deviation) + log_h


def _residuals(data: Data) -> jax.Array:
  """Outputs less their prior mean; 0 where a row is padding: [R]."""
  return jnp.where(data.known, data.outputs - data.points.mean, 0.0)


def _packed(parameters: Parameters) -> np.ndarray:
  return np.concatenate([np.ravel(leaf) for leaf in parameters])


def _unpacked(vector) -> Parameters:
  return Parameters(vector[:-2], vector[-2], vector[-1])
