"""Structural equations and noise, as one array program for all families."""

import enum
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy import polynomial

from acme_cbo import types
from acme_cbo.scms import sampling


class Family(enum.IntEnum):
  """Families of structural equations."""

  LINEAR = 0
  FOURIER = 1
  TANH = 2
  SIGMOID = 3
  PRODUCT = 4
  EXPONENTIAL = 5
  # The family of each variable is drawn from those above.
  MIXED = 6
  # In no training preset; reserved for tests of generalization.
  BUMPS = 7


class Activation(enum.IntEnum):
  """Nonlinearities of the hidden units; sigmoids are rescaled tanh units."""

  COSINE = 0
  TANH = 1
  SQUARE = 2
  EXPONENTIAL = 3
  BUMP = 4


class Noise(enum.IntEnum):
  """Noise distributions, each with mean 0 and variance 1."""

  NORMAL = 0
  UNIFORM = 1
  LAPLACE = 2
  # In no training preset; reserved for tests of generalization.
  GUMBEL = 3
  # Student's t with four degrees of freedom.
  STUDENT = 4


# Scale at which a square saturates, so that a chain of products stays finite.
_SQUARE_BEND = 6.0
# Largest exponent; beyond it an exponential is constant.
_EXPONENT_BOUND = 5.0
# Largest logarithm of the factor by which causes change the noise.
_MAX_UNEVENNESS = 1.5
# Coefficients of cos(2 pi sqrt(s)) for s in [0, 1/4], highest power first. The
# error is 1e-14.
_COSINE = (
  polynomial.Chebyshev.interpolate(
    lambda s: np.cos(2 * np.pi * np.sqrt(s)), 9, domain=(0, 0.25)
  )
  .convert(kind=polynomial.Polynomial)
  .coef[::-1]
)


@functools.singledispatch
def value(
  mechanism: Any, j: jax.Array, u: jax.Array, noise: jax.Array
) -> jax.Array:
  """Evaluates the structural equation of one variable.

  Args:
    mechanism: structural equations, of any registered type.
    j: [] int32, the variable.
    u: [S, D] values of all variables; only those of j's parents are used.
    noise: [S, D] noise of all variables, from `noise_at`; only that of j is
      used.

  Returns:
    [S] values, in internal units.
  """
  raise TypeError(
    f'mechanisms.value is not implemented for {type(mechanism)}; register it'
  )


@functools.singledispatch
def noise_at(mechanism: Any, level: jax.Array) -> jax.Array:
  """Returns quantiles of the noise of all variables.

  Args:
    mechanism: structural equations, of any registered type.
    level: [S, D] probability levels in [0, 1].

  Returns:
    [S, D] noise, in internal units.
  """
  raise TypeError(
    f'mechanisms.noise_at is not implemented for {type(mechanism)}; register it'
  )


@value.register
def _(mechanism: types.Mechanism, j, u, noise):
  return signal(mechanism, j, u) + noise[:, j] * noise_factor(mechanism, j, u)


def signal(mechanism: types.Mechanism, j: jax.Array, u: jax.Array) -> jax.Array:
  """Evaluates the structural equation of one variable, without its noise.

  Args:
    mechanism: structural equations.
    j: [] int32, the variable.
    u: [S, D] values of all variables; only those of j's parents are used.

  Returns:
    [S] values, in internal units.
  """
  z = u @ mechanism.hidden[j].T + mechanism.shift[j]  # [S, H]
  activation = mechanism.activation[j]
  square = jnp.square(z) / (1 + jnp.square(z / _SQUARE_BEND))
  # Three activations share one exponential, the bottleneck of a simulation.
  power = jnp.exp(
    jnp.select(
      [activation == Activation.TANH, activation == Activation.BUMP],
      [-2 * jnp.abs(z), -jnp.square(z) / 2],
      jnp.minimum(z, _EXPONENT_BOUND),
    )
  )
  active = jnp.select(
    [
      activation == Activation.COSINE,
      activation == Activation.TANH,
      activation == Activation.SQUARE,
    ],
    [_cosine(z), jnp.sign(z) * (1 - power) / (1 + power), square],
    power,
  )
  return (
    mechanism.bias[j] + u @ mechanism.linear[j] + active @ mechanism.output[j]
  )


def noise_factor(
  mechanism: types.Mechanism, j: jax.Array, u: jax.Array
) -> jax.Array | float:
  """Returns the factor of the noise of one variable that its parents decide.

  Args:
    mechanism: structural equations.
    j: [] int32, the variable.
    u: [S, D] values of all variables; only those of j's parents are used.

  Returns:
    [S] factors; 1 where the noise of no variable depends on others.
  """
  if mechanism.unevenness is None:
    return 1.0
  exponent = u @ mechanism.unevenness[j]
  return jnp.exp(jnp.clip(exponent, -_MAX_UNEVENNESS, _MAX_UNEVENNESS))


def _cosine(z: jax.Array) -> jax.Array:
  """Computes cos(z) with a polynomial, 15 times faster than `jnp.cos` on a CPU.

  Whole turns are removed from z first. The error is that of a few roundings of
  z.
  """
  turns = z / (2 * jnp.pi)
  square = jnp.square(turns - jnp.round(turns))
  return jnp.polyval(jnp.asarray(_COSINE, z.dtype), square, unroll=len(_COSINE))


def noise(
  key: jax.Array, mechanism: Any, num_draws: int, num_variables: int
) -> jax.Array:
  """Samples independent draws of the noise of all variables.

  Args:
    key: random key, consumed.
    mechanism: structural equations, of any registered type.
    num_draws: number of draws, S.
    num_variables: number of variables, D.

  Returns:
    [S, D] noise, in internal units.
  """
  return noise_at(
    mechanism, jax.random.uniform(key, (num_draws, num_variables))
  )


def stratified_noise(
  key: jax.Array, mechanism: Any, num_draws: int, num_variables: int
) -> jax.Array:
  """Samples stratified draws of the noise of all variables.

  Latin hypercube sampling (McKay, Beckman and Conover, Technometrics 21, 1979):
  each variable has one draw in each of S equally probable strata, in random
  order. Means over the draws are unbiased and have a lower variance than means
  over independent draws.

  Args:
    key: random key, consumed.
    mechanism: structural equations, of any registered type.
    num_draws: number of draws, S.
    num_variables: number of variables, D.

  Returns:
    [S, D] noise, in internal units.
  """
  shape = (num_draws, num_variables)
  levels = sampling.levels(key, {'order': shape, 'position': shape})
  stratum = jnp.argsort(levels['order'], axis=0)
  return noise_at(mechanism, (stratum + levels['position']) / num_draws)


@noise_at.register
def _(mechanism: types.Mechanism, level):
  centered = sampling.centered(level)
  normal = sampling.normal(level)
  uniform = jnp.sqrt(3.0) * centered
  tail = jnp.log1p(-jnp.abs(centered)) / jnp.sqrt(2.0)
  laplace = -jnp.sign(centered) * tail
  # Standardized by the mean and the variance, pi^2 / 6, of a Gumbel draw.
  skewed = sampling.gumbel((1 + centered) / 2) - np.euler_gamma
  skewed *= math.sqrt(6) / math.pi
  kind = mechanism.noise
  standard = jnp.select(
    [
      kind == Noise.NORMAL,
      kind == Noise.UNIFORM,
      kind == Noise.LAPLACE,
      kind == Noise.GUMBEL,
    ],
    [normal, uniform, laplace, skewed],
    _student(centered),
  )
  return mechanism.noise_scale * standard


def _student(centered):
  """Returns standardized quantiles of Student's t with 4 degrees of freedom.

  In closed form (Shaw, "Sampling Student's T distribution", 2006, section 2.3).

  Args:
    centered: twice the probability level, minus one; inside (-1, 1).
  """
  root = jnp.sqrt(1 - jnp.square(centered))
  square = jnp.cos(jnp.arccos(root) / 3) / root - 1
  # The variance of t is 2.
  return jnp.sign(centered) * jnp.sqrt(2 * jnp.maximum(square, 0.0))


def sample(
  key: jax.Array,
  family: jax.Array,
  parents: jax.Array,
  num_hidden: int,
  min_length_scale: float,
  is_uneven: jax.Array | None = None,
) -> types.Mechanism:
  """Samples raw equations, not yet centered or scaled, and without noise.

  Args:
    key: random key, consumed.
    family: [D] int32, the `Family` of each variable; none is `MIXED`.
    parents: [D, D] bool, `parents[j, i]`.
    num_hidden: number of hidden units, H, at least 2.
    min_length_scale: smallest length scale of the Fourier features, in standard
      deviations of the causes; the largest is 2.5.
    is_uneven: [] bool, whether the noise depends on the causes; None if it
      never does.

  Returns:
    A `Mechanism` with noise scales of 0.
  """
  num_nodes = parents.shape[-1]
  edges = parents.astype(jnp.float32)
  fan_in = jnp.maximum(edges.sum(1), 1)  # [D]
  square = (num_nodes, num_nodes)
  units = (num_nodes, num_hidden)
  levels = sampling.levels(
    key,
    {
      'magnitude': square,
      'sign': square,
      'directions': (*units, num_nodes),
      'length_scale': (num_nodes, 1, 1),
      'phase': units,
      'output': units,
      'steepness': units,
      'position': units,
      'steps': units,
      'rank': square,
      'unevenness': square,
    },
  )

  magnitude = sampling.between(levels['magnitude'], 0.25, 1.0)
  slopes = edges * magnitude * sampling.sign(levels['sign'])

  # Random Fourier features of a radial kernel (Rahimi and Recht, 2007). The
  # tanh network uses the same directions.
  directions = sampling.normal(levels['directions'])
  directions = directions * edges[:, None] / jnp.sqrt(fan_in)[:, None, None]
  length_scale = jnp.exp(
    sampling.between(
      levels['length_scale'], jnp.log(min_length_scale), jnp.log(2.5)
    )
  )
  phase = 2 * jnp.pi * levels['phase']
  output = sampling.normal(levels['output'])

  # Monotone steps along one direction, each with its position and steepness.
  total = jnp.abs(slopes).sum(1, keepdims=True)
  index = slopes / jnp.where(total > 0, total, 1)
  steepness = sampling.between(levels['steepness'], 1.0, 3.0)
  position = 1.5 * sampling.normal(levels['position'])
  steps = levels['steps'] * (jnp.arange(num_hidden) < 2)

  # x_a x_b = ((x_a + x_b)^2 - (x_a - x_b)^2) / 4 for a pair of parents; a sole
  # parent is paired with itself.
  rank = jnp.where(parents, levels['rank'], -1.0)
  first = jax.nn.one_hot(jnp.argmax(rank, 1), num_nodes) * edges
  second = jax.nn.one_hot(jnp.argmax(rank - 2 * first, 1), num_nodes) * edges
  second = jnp.where(edges.sum(1, keepdims=True) > 1, second, first)
  pair = jnp.zeros((*units, num_nodes))
  pair = pair.at[:, 0].set(first + second).at[:, 1].set(first - second)
  sides = jnp.zeros(units).at[:, 0].set(0.25).at[:, 1].set(-0.25)

  wide, flat = jnp.zeros((*units, num_nodes)), jnp.zeros(units)
  linear = {
    Family.LINEAR: slopes,
    Family.PRODUCT: 0.5 * slopes,
  }
  hidden = {
    Family.FOURIER: directions / length_scale,
    Family.TANH: 1.5 * directions,
    Family.SIGMOID: steepness[:, :, None] * index[:, None],
    Family.PRODUCT: pair,
    Family.EXPONENTIAL: steepness[:, :, None] / 2 * index[:, None],
    Family.BUMPS: steepness[:, :, None] * directions,
  }
  shift = {
    Family.FOURIER: phase,
    Family.TANH: phase / jnp.pi - 1,
    Family.SIGMOID: position,
    Family.BUMPS: position,
  }
  weights = {
    Family.FOURIER: output,
    Family.TANH: output,
    Family.SIGMOID: steps,
    Family.PRODUCT: sides,
    Family.EXPONENTIAL: jnp.ones(units) * (jnp.arange(num_hidden) < 1),
    Family.BUMPS: output,
  }
  activation = {
    Family.FOURIER: Activation.COSINE,
    Family.PRODUCT: Activation.SQUARE,
    Family.EXPONENTIAL: Activation.EXPONENTIAL,
    Family.BUMPS: Activation.BUMP,
  }
  unevenness = None
  if is_uneven is not None:
    weights_of_causes = sampling.normal(levels['unevenness']) * edges
    unevenness = jnp.where(
      is_uneven, weights_of_causes / jnp.sqrt(fan_in)[:, None], 0.0
    )
  node = jnp.arange(num_nodes)

  def pick(table, default):
    rows = [table.get(member, default) for member in Family]
    return jnp.stack(rows)[family, node]

  activations = jnp.array(
    [activation.get(member, Activation.TANH) for member in Family], jnp.int32
  )[family]
  return types.Mechanism(
    bias=jnp.zeros(num_nodes),
    linear=pick(linear, jnp.zeros(square)),
    hidden=pick(hidden, wide),
    shift=pick(shift, flat),
    output=pick(weights, flat),
    activation=activations,
    noise=jnp.zeros(num_nodes, jnp.int32),
    noise_scale=jnp.zeros(num_nodes),
    unevenness=unevenness,
  )
