"""Units in which a policy sees the variables, fixed by the observations.

Whatever is computed in them does not change with the origin and the size of a
variable's own units.
"""

from __future__ import annotations

import dataclasses
import functools
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


@dataclasses.dataclass(frozen=True)
class UnitConverter:
  """Units in which the observations of each system are of size 1.

  The one conversion between a variable's own units, in float64, and those of a
  policy, in float32: a variable that is far from 0 or hardly moves loses no
  digits. All arrays may have leading axes, one entry for each system.

  Attributes:
    problem: the `Problem` in these units, float32.
    location: [..., D] origin of these units, float64.
    scale: [..., D] size of these units, float64.
    low: [D] lower ends of the domains in the variables' own units, float64.
    high: [D] upper ends.
  """

  problem: types.Problem
  location: np.ndarray
  scale: np.ndarray
  low: np.ndarray
  high: np.ndarray

  @classmethod
  def fit(
    cls, problem: types.Problem, observations: np.ndarray
  ) -> UnitConverter:
    """Returns the units that observations fix.

    Args:
      problem: of all systems, in the variables' own units.
      observations: [..., N, D], N at least 2.
    """
    problem = jax.tree.map(np.asarray, problem)
    with jax.enable_x64(True):
      fit_each = functools.partial(fit, problem)
      for _ in np.shape(observations)[:-2]:
        fit_each = jax.vmap(fit_each)
      location, scale = map(
        np.asarray, fit_each(jnp.asarray(observations, jnp.float64))
      )
    low, high = (np.asarray(x, np.float64) for x in (problem.low, problem.high))
    repeated = jax.tree.map(
      lambda leaf: np.broadcast_to(
        leaf if leaf.dtype == bool else np.float32(leaf),
        (*location.shape[:-1], *leaf.shape),
      ),
      problem,
    )
    # The ends of no domain mean nothing, and may be infinite.
    scaled = {
      name: np.float32(
        np.where(problem.settable, (end - location) / scale, 0.0)
      )
      for name, end in (('low', low), ('high', high))
    }
    return cls(repeated._replace(**scaled), location, scale, low, high)

  def to_normalized(self, values: np.ndarray) -> np.ndarray:
    """Converts [..., D] values to these units, float32."""
    values = np.asarray(values)
    location, scale = (
      self._like(values, x) for x in (self.location, self.scale)
    )
    return ((values - location) / scale).astype(np.float32)

  def to_own_units(self, values: np.ndarray) -> np.ndarray:
    """Converts [..., D] values to own units, exact at the ends of domains."""
    values = np.asarray(values)
    location, scale, low, high = (
      self._like(values, x)
      for x in (self.location, self.scale, self.problem.low, self.problem.high)
    )
    own = np.clip(
      location + scale * values.astype(np.float64), self.low, self.high
    )
    own = np.where(values <= low, self.low, own)
    return np.where(values >= high, self.high, own)

  def to_own_intervention(
    self, intervention: types.Intervention
  ) -> types.Intervention:
    """Converts an intervention to own units; 0 where nothing is set."""
    mask = np.asarray(intervention.mask)
    values = np.where(
      mask, self.to_own_units(np.asarray(intervention.values)), 0.0
    )
    return types.Intervention._make((mask, values))

  def _like(self, values, of_each):
    """Returns [..., D] arrays with as many axes as values."""
    lead = of_each.shape[:-1]
    inner = values.ndim - 1 - len(lead)
    return of_each.reshape(*lead, *(1,) * inner, of_each.shape[-1])


def stack_copies(problem: types.Problem, times: int) -> types.Problem:
  """As many of a problem, stacked."""
  return jax.tree.map(
    lambda leaf: jnp.broadcast_to(leaf, (times, *jnp.shape(leaf))), problem
  )
