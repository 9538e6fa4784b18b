"""Structural equations and noise: one array program for every family."""

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
  """Kinds of structural equation that the prior draws."""

  LINEAR = 0
  FOURIER = 1
  TANH = 2
  SIGMOID = 3
  PRODUCT = 4
  EXPONENTIAL = 5
  # Each variable of one of the above.
  MIXED = 6
  # Of no preset: policies are tested on what they were not trained on.
  BUMPS = 7


class Activation(enum.IntEnum):
  """Nonlinearities of the hidden units. A sigmoid is a tanh, rescaled."""

  COSINE = 0
  TANH = 1
  SQUARE = 2
  EXPONENTIAL = 3
  BUMP = 4


class Noise(enum.IntEnum):
  """Noise distributions, all of mean 0 and variance 1."""

  NORMAL = 0
  UNIFORM = 1
  LAPLACE = 2
  # Of no preset, as the bumps.
  GUMBEL = 3


# Beyond this a square flattens out, so that a chain of products stays finite.
_SQUARE_BEND = 6.0
# Beyond this an exponential stays what it is.
_EXPONENT_BOUND = 5.0
# Coefficients of cos(2 pi sqrt(s)) for s from 0 to 1/4, the highest first; the
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
  """The structural equation of one variable.

  Args:
    mechanism: the equations, of any registered kind.
    j: [] int32, the variable.
    u: [S, D] values of all variables; only those of j's parents are used.
    noise: [S, D] of all variables, from `noise_at`; only j's own is used.

  Returns:
    [S] values, in internal units.
  """
  raise TypeError(f'{type(mechanism)} holds no structural equations')


@functools.singledispatch
def noise_at(mechanism: Any, level: jax.Array) -> jax.Array:
  """Quantiles of every variable's noise.

  Args:
    mechanism: of any registered kind.
    level: [S, D] in [0, 1].

  Returns:
    [S, D] in internal units.
  """
  raise TypeError(f'{type(mechanism)} says nothing of noise')


@value.register
def _(mechanism: types.Mechanism, j, u, noise):
  return signal(mechanism, j, u) + noise[:, j]


def signal(mechanism: types.Mechanism, j: jax.Array, u: jax.Array) -> jax.Array:
  """The structural equation of one variable, without its noise.

  Args:
    mechanism: the equations.
    j: [] int32, the variable.
    u: [S, D] values of all variables; only those of j's parents are used.

  Returns:
    [S] values, in internal units.
  """
  z = u @ mechanism.hidden[j].T + mechanism.shift[j]  # [S, H]
  kind = mechanism.activation[j]
  square = jnp.square(z) / (1 + jnp.square(z / _SQUARE_BEND))
  # One exponential for three of them: it is what a simulation waits for.
  power = jnp.exp(
    jnp.select(
      [kind == Activation.TANH, kind == Activation.BUMP],
      [-2 * jnp.abs(z), -jnp.square(z) / 2],
      jnp.minimum(z, _EXPONENT_BOUND),
    )
  )
  active = jnp.select(
    [
      kind == Activation.COSINE,
      kind == Activation.TANH,
      kind == Activation.SQUARE,
    ],
    [_cosine(z), jnp.sign(z) * (1 - power) / (1 + power), square],
    power,
  )
  return (
    mechanism.bias[j] + u @ mechanism.linear[j] + active @ mechanism.output[j]
  )


def _cosine(z: jax.Array) -> jax.Array:
  """`jnp.cos`, to a few roundings of z, in a fifteenth of the time on a CPU.

  A polynomial in the square of what is left of z after whole turns.
  """
  turns = z / (2 * jnp.pi)
  square = jnp.square(turns - jnp.round(turns))
  return jnp.polyval(jnp.asarray(_COSINE, z.dtype), square, unroll=len(_COSINE))


def noise(
  key: jax.Array, mechanism: Any, num_draws: int, num_variables: int
) -> jax.Array:
  """Independent draws of every variable's noise.

  Args:
    key: consumed.
    mechanism: of any registered kind.
    num_draws: S.
    num_variables: D.

  Returns:
    [S, D] in internal units.
  """
  return noise_at(
    mechanism, jax.random.uniform(key, (num_draws, num_variables))
  )


def stratified_noise(
  key: jax.Array, mechanism: Any, num_draws: int, num_variables: int
) -> jax.Array:
  """Draws of every variable's noise that together cover its distribution.

  A Latin hypercube (McKay, Beckman and Conover, Technometrics 21, 1979): each
  variable has one draw in each of S equally probable parts, in random order.
  Means over the draws are unbiased, and closer than over independent ones.

  Args:
    key: consumed.
    mechanism: of any registered kind.
    num_draws: S.
    num_variables: D.

  Returns:
    [S, D] in internal units.
  """
  shape = (num_draws, num_variables)
  drawn = sampling.levels(key, {'order': shape, 'place': shape})
  part = jnp.argsort(drawn['order'], axis=0)
  return noise_at(mechanism, (part + drawn['place']) / num_draws)


@noise_at.register
def _(mechanism: types.Mechanism, level):
  centred = sampling.centred(level)
  normal = sampling.normal(level)
  uniform = jnp.sqrt(3.0) * centred
  tail = jnp.log1p(-jnp.abs(centred)) / jnp.sqrt(2.0)
  laplace = -jnp.sign(centred) * tail
  # Of deviation 1 by its variance, pi^2 / 6.
  skewed = sampling.gumbel((1 + centred) / 2) - np.euler_gamma
  skewed *= math.sqrt(6) / math.pi
  kind = mechanism.noise
  drawn = jnp.select(
    [kind == Noise.NORMAL, kind == Noise.UNIFORM, kind == Noise.LAPLACE],
    [normal, uniform, laplace],
    skewed,
  )
  return mechanism.noise_scale * drawn


def sample(
  key: jax.Array,
  family: jax.Array,
  parents: jax.Array,
  num_hidden: int,
  min_length_scale: float,
) -> types.Mechanism:
  """Draws raw equations: neither centred nor scaled yet, without noise.

  Args:
    key: consumed.
    family: [D] int32, the `Family` of each variable; none is `MIXED`.
    parents: [D, D] bool, `parents[j, i]`.
    num_hidden: H, at least 2.
    min_length_scale: of the Fourier features, in deviations of the causes; the
      largest is 2.5.

  Returns:
    A `Mechanism` whose noise scales are 0.
  """
  num_nodes = parents.shape[-1]
  edges = parents.astype(jnp.float32)
  fan_in = jnp.maximum(edges.sum(1), 1)  # [D]
  square = (num_nodes, num_nodes)
  units = (num_nodes, num_hidden)
  drawn = sampling.levels(
    key,
    {
      'magnitude': square,
      'sign': square,
      'directions': (*units, num_nodes),
      'length_scale': (num_nodes, 1, 1),
      'phase': units,
      'output': units,
      'steepness': units,
      'place': units,
      'steps': units,
      'rank': square,
    },
  )

  magnitude = sampling.between(drawn['magnitude'], 0.25, 1.0)
  slopes = edges * magnitude * sampling.sign(drawn['sign'])

  # Random Fourier features of a radial kernel (Rahimi and Recht, 2007); the
  # same directions serve the tanh network.
  directions = sampling.normal(drawn['directions'])
  directions = directions * edges[:, None] / jnp.sqrt(fan_in)[:, None, None]
  length_scale = jnp.exp(
    sampling.between(
      drawn['length_scale'], jnp.log(min_length_scale), jnp.log(2.5)
    )
  )
  phase = 2 * jnp.pi * drawn['phase']
  output = sampling.normal(drawn['output'])

  # Monotone steps along one direction, each of its own place and steepness.
  total = jnp.abs(slopes).sum(1, keepdims=True)
  index = slopes / jnp.where(total > 0, total, 1)
  steepness = sampling.between(drawn['steepness'], 1.0, 3.0)
  place = 1.5 * sampling.normal(drawn['place'])
  steps = drawn['steps'] * (jnp.arange(num_hidden) < 2)

  # x_a x_b is the difference of two squares, of the sum and of the difference
  # of the pair; a sole parent is paired with itself.
  rank = jnp.where(parents, drawn['rank'], -1.0)
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
    Family.SIGMOID: place,
    Family.BUMPS: place,
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
  node = jnp.arange(num_nodes)

  def pick(table, default):
    rows = [table.get(member, default) for member in Family]
    return jnp.stack(rows)[family, node]

  kind = jnp.array(
    [activation.get(member, Activation.TANH) for member in Family], jnp.int32
  )[family]
  return types.Mechanism(
    bias=jnp.zeros(num_nodes),
    linear=pick(linear, jnp.zeros(square)),
    hidden=pick(hidden, wide),
    shift=pick(shift, flat),
    output=pick(weights, flat),
    activation=kind,
    noise=jnp.zeros(num_nodes, jnp.int32),
    noise_scale=jnp.zeros(num_nodes),
  )
