"""Exact Gaussian-process regression, and expected improvement.

Data are padded to a fixed number of rows and inputs to a fixed number of
columns, so that one compiled program serves all steps of an episode and all
sets of variables. Masked rows and unused columns have no effect.

  P  points, C of them candidates
  R  rows of data, padded
  D  columns of the inputs
  K  hyperparameter samples

Inputs and outputs are in units in which their spread is about 1. All numbers
are float64.

Set OPENBLAS_NUM_THREADS=1 before numpy and scipy are imported. The matrices are
small, and OpenBLAS distributes each of them over threads, which on a busy
machine takes up to 100 times as long as the computation itself.
"""

from collections.abc import Callable
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import optimize
from scipy import special
from scipy import stats
from scipy.stats import qmc
import tinygp

# A jax array within compiled functions, a numpy array on the host.
Array = Any


class Points(NamedTuple):
  """Inputs of a process, with its prior at these inputs.

  Attributes:
    inputs: [P, D] inputs.
    mean: [P] prior mean.
    deviation: [P] s of the kernel, see `Kernel`; 0 for a radial kernel.
  """

  inputs: Array
  mean: Array
  deviation: Array


class Data(NamedTuple):
  """Data of a process.

  Attributes:
    points: R `Points`.
    outputs: [R] outputs.
    row_mask: [R] bool, False where a row is padding.
  """

  points: Points
  outputs: Array
  row_mask: Array


class Parameters(NamedTuple):
  """Hyperparameters of a process, as natural logarithms.

  Attributes:
    length: [D] log length scales.
    amplitude: [] log standard deviation of the radial part.
    noise: [] log standard deviation of the noise.
  """

  length: Array
  amplitude: Array
  noise: Array


# Weak normal prior of the log hyperparameters: standard deviations and bounds.
_DEVIATION = Parameters(length=1.0, amplitude=1.0, noise=1.5)
_LOWEST = Parameters(length=np.log(0.02), amplitude=np.log(0.02), noise=-9.0)
_HIGHEST = Parameters(length=np.log(1e3), amplitude=np.log(1e2), noise=3.0)
_MAX_ITERATIONS = 50
_MIN_VARIANCE = 1e-18
# Standardized improvement below which its closed form cancels numerically.
_TAIL = -100.0
# Number of hyperparameters that an acquisition function is averaged over, a
# power of 2.
_NUM_SAMPLES = 16
_MIN_PRECISION = 0.25


class Kernel(tinygp.kernels.Kernel):
  """`a² exp(-½ Σ_d ((x_d - x'_d) / l_d)²) + s(x) s(x')`.

  The second term is the causal prior of Aglietti et al., "Causal Bayesian
  Optimization" (2020), section 3.2; s is part of a point. The kernel is 0 if
  one of the points is padding.

  Attributes:
    inverse_length: [D] inverse length scales; 0 for unused columns.
    variance: [] a².
  """

  inverse_length: jax.Array
  variance: jax.Array

  def evaluate(self, X1, X2):
    """Evaluates the kernel at two points (inputs [D], s [], mask [] bool)."""
    (x, s, mask), (other_x, other_s, other_mask) = X1, X2
    distance = jnp.square((x - other_x) * self.inverse_length).sum()
    radial = self.variance * jnp.exp(-0.5 * distance)
    return jnp.where(mask & other_mask, radial + s * other_s, 0.0)


def prior_mode(columns: np.ndarray, length: float) -> Parameters:
  """Returns the mode of the prior of the hyperparameters.

  Args:
    columns: [D] bool, the columns that are used.
    length: length scale of a single column.

  Returns:
    An amplitude of 1, noise of 0.1, and length scales that grow as the square
    root of the number of columns, as distances do (Hvarfner et al., "Vanilla
    Bayesian Optimization Performs Great in High Dimensions", 2024).
  """
  scaled = length * np.sqrt(max(int(columns.sum()), 1))
  return Parameters(
    length=np.full(columns.shape, np.log(scaled)),
    amplitude=np.log(1.0),
    noise=np.log(0.1),
  )


def process(
  parameters: Parameters, columns: jax.Array, data: Data
) -> tinygp.GaussianProcess:
  """Returns the prior process at the data; padding is independent noise.

  Args:
    parameters: hyperparameters.
    columns: [D] bool, the columns that are used.
    data: R rows.

  Returns:
    A process of mean 0, to be conditioned on outputs less their prior mean.
  """
  kernel = Kernel(
    inverse_length=jnp.where(columns, jnp.exp(-parameters.length), 0.0),
    variance=jnp.exp(2 * parameters.amplitude),
  )
  noise = jnp.where(data.row_mask, jnp.exp(2 * parameters.noise), 1.0)
  located: Any = data.points.inputs, data.points.deviation, data.row_mask
  return tinygp.GaussianProcess(kernel, located, diag=noise)


def log_density(
  parameters: Parameters,
  columns: jax.Array,
  data: Data,
  prior: Parameters,
  deviation: Parameters = _DEVIATION,
) -> jax.Array:
  """Computes the log posterior density of hyperparameters.

  Args:
    parameters: hyperparameters.
    columns: [D] bool, the columns that are used.
    data: R rows.
    prior: mode of the prior.
    deviation: its standard deviations.

  Returns:
    [] log of the marginal likelihood times the prior, up to a constant.
  """
  at_data = process(parameters, columns, data)
  likelihood = at_data.log_probability(_residuals(data))
  penalties = jax.tree.map(
    lambda value, mode, deviation: jnp.square((value - mode) / deviation).sum(),
    parameters,
    prior,
    deviation,
  )
  return likelihood - 0.5 * sum(penalties)


def _loss(deviation, vector, columns, data, prior):
  return -log_density(_unpack(vector), columns, data, prior, deviation)


class Programs(NamedTuple):
  """Compiled functions of hyperparameters, as a vector, and of the data.

  Each takes (vector, columns, data, prior), as `log_density` does.

  Attributes:
    loss_and_gradient: less the log density of one vector, and its gradient.
    losses: the same without the gradient, of [K, ...] vectors.
    hessian: second derivatives at one vector.
  """

  loss_and_gradient: Callable[..., Any]
  losses: Callable[..., Any]
  hessian: Callable[..., Any]


def programs_for(deviation: Parameters) -> Programs:
  """Returns the programs of a prior with these standard deviations."""
  loss = functools.partial(_loss, deviation)
  return Programs(
    jax.jit(jax.value_and_grad(loss)),
    jax.jit(jax.vmap(loss, (0, None, None, None))),
    jax.jit(jax.hessian(loss)),
  )


PROGRAMS = programs_for(_DEVIATION)


def fit(
  columns: np.ndarray,
  data: Data,
  prior: Parameters,
  starts: tuple[Parameters, ...] = (),
  programs: Programs = PROGRAMS,
) -> Parameters:
  """Returns the most probable hyperparameters.

  Args:
    columns: [D] bool, the columns that are used.
    data: R rows; if all are masked, the mode of the prior is returned.
    prior: mode of the prior.
    starts: starting points of the search, besides `prior` and one with shorter
      length scales.
    programs: programs for arguments of these shapes.

  Returns:
    The best result of a bounded quasi-Newton search from each start.
  """
  if not np.any(data.row_mask):
    return prior
  short = prior._replace(length=prior.length - 1.5, noise=prior.noise - 1.0)
  lowest, highest = _bounds(columns)
  arguments = jax.tree.map(jnp.asarray, (columns, data, prior))

  def loss(vector):
    value, gradient = programs.loss_and_gradient(vector, *arguments)
    return float(value), np.asarray(gradient)

  results = [
    optimize.minimize(
      loss,
      np.clip(_pack(start), lowest, highest),
      jac=True,
      method='L-BFGS-B',
      bounds=optimize.Bounds(lowest, highest),
      options={'maxiter': _MAX_ITERATIONS, 'ftol': 1e-7},
    )
    for start in (prior, short, *starts)
  ]
  best = min(results, key=lambda result: result.fun)
  return jax.tree.map(np.asarray, _unpack(best.x))


class Sample(NamedTuple):
  """Weighted samples from the posterior of the hyperparameters.

  Attributes:
    parameters: `Parameters` with a leading axis K.
    log_weight: [K] log weight of each sample; the weights sum to 1.
  """

  parameters: Parameters
  log_weight: Array


def sample(
  columns: np.ndarray,
  data: Data,
  prior: Parameters,
  mode: Parameters,
  programs: Programs = PROGRAMS,
) -> Sample:
  """Samples hyperparameters from their posterior.

  A few outcomes hardly determine the hyperparameters, and the most probable
  ones may describe a flat function. An acquisition function is therefore
  averaged over samples (Snoek, Larochelle and Adams, "Practical Bayesian
  Optimization of Machine Learning Algorithms", 2012, section 3.1). This is
  importance sampling from the Laplace approximation around the mode.

  Args:
    columns: [D] bool, the columns that are used.
    data: R rows; if all are masked, the samples are from the prior.
    prior: mode of the prior.
    mode: mode of the posterior, from `fit`.
    programs: programs for arguments of these shapes.

  Returns:
    The samples; they are deterministic, given the arguments.
  """
  center = _pack(mode)
  hessian = np.asarray(programs.hessian(center, columns, data, prior))
  precision, axes = np.linalg.eigh(hessian)
  # The symmetric root: unlike the axes, whose signs are arbitrary, and whose
  # directions are where precisions are equal, it does not depend on rounding.
  spread = axes / np.sqrt(np.maximum(precision, _MIN_PRECISION)) @ axes.T
  level = qmc.Sobol(center.size, rng=0).random(_NUM_SAMPLES)
  normal = stats.norm.ppf(level)
  vectors = np.clip(center + normal @ spread, *_bounds(columns))
  log_weight = 0.5 * np.square(normal).sum(1) - np.asarray(
    programs.losses(vectors, columns, data, prior)
  )
  log_weight -= special.logsumexp(log_weight)
  parameters = Parameters(vectors[:, :-2], vectors[:, -2], vectors[:, -1])
  return Sample(parameters, log_weight)


def _bounds(columns):
  size = np.shape(columns)
  return tuple(
    _pack(Parameters(np.full(size, limit.length), *limit[1:]))
    for limit in (_LOWEST, _HIGHEST)
  )


def predict(
  at_data: tinygp.GaussianProcess, data: Data, points: Points
) -> tuple[jax.Array, jax.Array]:
  """Predicts the function, without noise.

  Args:
    at_data: prior process at the data, from `process`.
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

  # One point at a time, so that covariances between points are not computed.
  shift, variance = jax.vmap(predict_one)(points.inputs, points.deviation)
  # Rounding errors can make the variance at a row of the data negative.
  deviation = jnp.sqrt(jnp.maximum(variance, _MIN_VARIANCE))
  return points.mean + shift, deviation


def log_expected_improvement(
  mean: jax.Array, deviation: jax.Array, best: jax.Array
) -> jax.Array:
  """Computes `log E[max(f - best, 0)]` for `f ~ N(mean, deviation²)`.

  With `z = (mean - best) / deviation` the result is `log deviation + log h(z)`,
  where `h(z) = φ(z) + z Φ(z)` (Jones, Schonlau and Welch, "Efficient Global
  Optimization of Expensive Black-Box Functions", 1998, (15)), and in the lower
  tail `h(z) ≈ φ(z) / (z² + 3)`, as in Ament et al., "Unexpected Improvements to
  Expected Improvement" (2023), so that the gradient never vanishes.

  Args:
    mean: [P] means.
    deviation: [P] standard deviations, positive.
    best: [] value to improve upon.

  Returns:
    [P] log expected improvements.
  """
  z = (mean - best) / deviation
  # The input of each branch is clipped, so that no gradient is NaN.
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
  """Returns outputs less their prior mean, 0 for padding: [R]."""
  return jnp.where(data.row_mask, data.outputs - data.points.mean, 0.0)


def _pack(parameters: Parameters) -> np.ndarray:
  return np.concatenate([np.ravel(leaf) for leaf in parameters])


def _unpack(vector) -> Parameters:
  return Parameters(vector[:-2], vector[-2], vector[-1])
