"""Units in which a policy sees the variables, fixed by the observations.

Whatever is computed in them does not change with the origin and the size of a
variable's own units.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from acme_cbo import types


class Normalization(NamedTuple):
  """Origin and size of the units of each variable.

  Attributes:
    location: [D] mean of the observations.
    scale: [D] their standard deviation, with a floor.
  """

  location: jax.Array
  scale: jax.Array


def fit(problem: types.Problem, observations: jax.Array) -> Normalization:
  """The units that N observations fix.

  Args:
    problem: whose domains are used.
    observations: [N, D], N at least 2.

  Returns:
    `Units` with positive scales.

  Raises:
    ValueError: there is only one observation.
  """
  if observations.shape[0] < 2:
    raise ValueError(
      f'{observations.shape[0]} observational row(s); a deviation needs 2'
    )
  location = observations.mean(0)
  deviation = (observations - location).std(0)
  # A floor on the deviation that moves with the variable's units.
  deviation = jnp.maximum(deviation, 1e-3 * (problem.high - problem.low))
  return Normalization(location, jnp.where(deviation > 0, deviation, 1.0))


def asinh_normalize(units: Normalization, values: jax.Array) -> jax.Array:
  """Values in units, `3 asinh(z / 3)`: what is near stays, what is far bends.

  Args:
    units: of D variables.
    values: [..., D].

  Returns:
    [..., D].
  """
  return 3 * jnp.arcsinh((values - units.location) / units.scale / 3)


class UnitConverter:
  """Units in which the observations of each system are of size 1.

  In float64, so that a variable that is far from 0 or hardly moves loses no
  digits.

  Attributes:
    problems: B problems in these units.
  """

  def __init__(self, problem: types.Problem, observations: np.ndarray):
    """Fits them.

    Args:
      problem: of all systems, in the variables' own units.
      observations: [B, N, D] of each.
    """
    with jax.enable_x64(True):
      fitted = jax.vmap(fit, (None, 0))(
        problem, jnp.asarray(observations, float)
      )
    self._location, self._size = map(np.asarray, fitted)
    self._low, self._high = (
      np.asarray(x, float) for x in (problem.low, problem.high)
    )
    settable = np.asarray(problem.settable)
    low, high = (
      np.where(settable, (x - self._location) / self._size, 0.0)
      for x in (self._low, self._high)
    )
    self.problems = stack_copies(problem, len(observations))._replace(
      low=jnp.asarray(low, jnp.float32), high=jnp.asarray(high, jnp.float32)
    )

  def to_normalized(self, values: np.ndarray) -> jax.Array:
    """[B, ..., D] in own units -> in these, float32."""
    location, size = self._like(values)
    return jnp.asarray((values - location) / size, jnp.float32)

  def to_own_units(self, values: np.ndarray) -> np.ndarray:
    """[B, ..., D] in these units -> in own, to the bit at the ends."""
    location, size = self._like(values)
    low, high = (
      self._with_axes(np.asarray(end), values)
      for end in (self.problems.low, self.problems.high)
    )
    own = np.clip(
      location + size * np.asarray(values, float), self._low, self._high
    )
    own = np.where(values <= low, self._low, own)
    return np.where(values >= high, self._high, own)

  def _like(self, values):
    """Location and size of each system, with as many axes as values."""
    return (self._with_axes(x, values) for x in (self._location, self._size))

  def _with_axes(self, of_each, values):
    return of_each.reshape(
      len(values), *(1,) * (values.ndim - 2), values.shape[-1]
    )


def stack_copies(problem: types.Problem, times: int) -> types.Problem:
  """As many of a problem, stacked."""
  return jax.tree.map(
    lambda leaf: jnp.broadcast_to(leaf, (times, *jnp.shape(leaf))), problem
  )
