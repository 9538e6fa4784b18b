"""Normalization of variables by the statistics of the observations.

Results computed from normalized values do not depend on the origin and the size
of a variable's own units.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from acme_cbo import types
from acme_cbo.infra import errors

# Least width of a domain in normalized units, in steps of float32 at its ends.
_MIN_STEPS = 100
# Standardized values from which `asinh_normalize` is rather logarithmic.
ASINH_BEND = 3.0


class Normalization(NamedTuple):
  """Origin and size of the normalized units of each variable.

  Attributes:
    location: [D] mean of the observations.
    scale: [D] standard deviation of the observations, with a floor.
  """

  location: jax.Array
  scale: jax.Array


def fit(problem: types.Problem, observations: jax.Array) -> Normalization:
  """Fits the normalization to N observations.

  Args:
    problem: the problem that defines the domains.
    observations: [N, D] observational rows, N at least 2.

  Returns:
    `Normalization` with positive scales.

  Raises:
    ValueError: there are fewer than two observations.
  """
  if observations.shape[0] < 2:
    raise ValueError(
      'normalization needs at least 2 observational rows, got '
      f'{observations.shape[0]}'
    )
  location = observations.mean(0)
  deviation = (observations - location).std(0)
  # The computed mean of a constant, and its deviation, may be off by roundings.
  rounding = jnp.finfo(deviation.dtype).eps * jnp.abs(observations).max(0)
  is_constant = deviation <= rounding
  location = jnp.where(is_constant, observations[0], location)
  deviation = jnp.where(is_constant, 0.0, deviation)
  # The floor is relative to the domain, so that it follows a change of units.
  deviation = jnp.maximum(deviation, 1e-3 * (problem.high - problem.low))
  return Normalization(location, jnp.where(deviation > 0, deviation, 1.0))


@jax.jit
def _fit_each(problem, observations):
  """Fits the normalization to [..., N, D] observations of each system."""
  fit_each = functools.partial(fit, problem)
  for _ in range(observations.ndim - 2):
    fit_each = jax.vmap(fit_each)
  return fit_each(observations)


def asinh_normalize(units: Normalization, values: jax.Array) -> jax.Array:
  """Normalizes values to `3 asinh(z / 3)`, where z are standardized values.

  It is close to z for small z, and grows like log z for large ones.

  Args:
    units: normalization of D variables.
    values: [..., D] values in the variables' own units.

  Returns:
    [..., D] normalized values.
  """
  standardized = (values - units.location) / units.scale
  return ASINH_BEND * jnp.arcsinh(standardized / ASINH_BEND)


def from_asinh_normalized(units: Normalization, values: jax.Array) -> jax.Array:
  """Returns the values that `asinh_normalize` makes such values of: [..., D].

  Args:
    units: normalization of D variables.
    values: [..., D] normalized values.
  """
  standardized = ASINH_BEND * jnp.sinh(values / ASINH_BEND)
  return units.location + units.scale * standardized


@dataclasses.dataclass(frozen=True)
class UnitConverter:
  """Converts values of one or more systems between own and normalized units.

  The conversion is linear, unlike `asinh_normalize`. Values in the variables'
  own units are float64 and normalized ones, which a policy uses, float32, so
  that a variable far from 0 or of little variation loses no digits. Arrays may
  have leading axes, with one entry for each system.

  Attributes:
    problem: the `Problem` in normalized units, float32.
    location: [..., D] origin of the normalized units, float64.
    scale: [..., D] size of the normalized units, float64.
    low: [D] lower ends of the domains in the variables' own units, float64.
    high: [D] upper ends of the domains in the variables' own units, float64.
    names: names of the variables for error messages, or None.
  """

  problem: types.Problem
  location: np.ndarray
  scale: np.ndarray
  low: np.ndarray
  high: np.ndarray
  names: Sequence[str] | None

  @classmethod
  def fit(
    cls,
    problem: types.Problem,
    observations: np.ndarray,
    names: Sequence[str] | None = None,
  ) -> UnitConverter:
    """Fits the normalized units to observations.

    Args:
      problem: problem that all systems share, in the variables' own units.
      observations: [..., N, D] observational rows of each system, N at least 2.
      names: names of the variables for error messages, instead of their
        numbers.

    Returns:
      The converter.

    Raises:
      errors.UsageError: float32 cannot hold a domain in normalized units.
    """
    problem = jax.tree.map(np.asarray, problem)
    low, high = (np.asarray(x, np.float64) for x in (problem.low, problem.high))
    with np.errstate(over='ignore', invalid='ignore'):
      with jax.enable_x64(True):
        location, scale = map(
          np.asarray, _fit_each(problem, np.asarray(observations, np.float64))
        )
      # Variables that may not be set have no domain; their ends may be
      # infinite.
      normalized = {
        name: np.float32(
          np.where(problem.settable, (end - location) / scale, 0.0)
        )
        for name, end in (('low', low), ('high', high))
      }
      copies = jax.tree.map(
        lambda leaf: np.broadcast_to(
          leaf if leaf.dtype == bool else np.float32(leaf),
          (*location.shape[:-1], *leaf.shape),
        ),
        problem,
      )
    units = cls(
      copies._replace(**normalized), location, scale, low, high, names
    )
    units._check(np.asarray(np.isfinite(observations).all(-2)))
    return units

  def _check(self, is_finite: np.ndarray) -> None:
    """Raises if a variable cannot be normalized.

    Args:
      is_finite: [..., D] bool, whether all observations are finite. The caller
        handles the others.
    """
    for *system, j in np.argwhere(is_finite & ~np.isfinite(self.scale)):
      raise errors.UsageError(
        f'{self._name(j)} cannot be normalized: its observations, of mean '
        f'{self.location[*system, j]:.3g}, are too large'
      )
    low, high = self.problem.low, self.problem.high
    step = np.spacing(np.maximum(np.abs(low), np.abs(high)))
    is_held = high - low >= _MIN_STEPS * step
    for *system, j in np.argwhere(is_finite & self.problem.settable & ~is_held):
      raise errors.UsageError(
        f'the domain of {self._name(j)} is [{self.low[j]:.12g}, '
        f'{self.high[j]:.12g}], which float32 cannot resolve in units of the '
        f'observations, of mean {self.location[*system, j]:.6g} and standard '
        f'deviation {self.scale[*system, j]:.3g}; it must be wider, or the '
        'observations closer to it'
      )

  def to_normalized(self, values: np.ndarray) -> np.ndarray:
    """Converts [..., D] values in own units to normalized ones, float32.

    Args:
      values: [..., D] values in own units; normalized, they may be not finite
        only where they are not.

    Raises:
      errors.UsageError: a value is too large for float32.
    """
    values = np.asarray(values)
    location, scale = (
      self._add_axes(values, x) for x in (self.location, self.scale)
    )
    with np.errstate(over='ignore'):
      normalized = ((values - location) / scale).astype(np.float32)
    for *index, j in np.argwhere(
      np.isfinite(values) & ~np.isfinite(normalized)
    ):
      raise errors.UsageError(
        f'{self._name(j)} is {values[*index, j]:.6g}, which is too large for '
        'float32 in units of its observations'
      )
    return normalized

  def to_own_units(self, values: np.ndarray) -> np.ndarray:
    """Converts [..., D] normalized values to own units, float64.

    The ends of the domains are converted exactly, as are values within a
    rounding of them, and other values are clipped to the domains.

    Args:
      values: [..., D] values in normalized units.

    Returns:
      [..., D] values in own units.
    """
    values = np.asarray(values)
    location, scale, low, high = (
      self._add_axes(values, x)
      for x in (self.location, self.scale, self.problem.low, self.problem.high)
    )
    own = np.clip(
      location + scale * values.astype(np.float64), self.low, self.high
    )
    step = np.spacing(np.maximum(np.abs(low), np.abs(high)))
    own = np.where(values <= low + step, self.low, own)
    return np.where(values >= high - step, self.high, own)

  def to_own_intervention(
    self, intervention: types.Intervention
  ) -> types.Intervention:
    """Converts an intervention to own units; 0 where a variable is not set."""
    mask = np.asarray(intervention.mask)
    values = np.where(
      mask, self.to_own_units(np.asarray(intervention.values)), 0.0
    )
    return types.Intervention._make((mask, values))

  def _name(self, j):
    """Returns the name of variable j in messages."""
    return f'variable {j}' if self.names is None else repr(self.names[j])

  def _add_axes(self, values, array):
    """Reshapes a [..., D] array so that it broadcasts to values."""
    lead = array.shape[:-1]
    inner = values.ndim - 1 - len(lead)
    return array.reshape(*lead, *(1,) * inner, array.shape[-1])


def stack_copies(problem: types.Problem, times: int) -> types.Problem:
  """Stacks copies of a problem of numpy arrays along a new leading axis."""
  return jax.tree.map(
    lambda leaf: np.broadcast_to(leaf, (times, *np.shape(leaf))), problem
  )
