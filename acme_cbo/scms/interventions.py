"""Construction of interventions, and conversions of their values."""

from collections.abc import Mapping, Sequence
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from acme_cbo import types
from acme_cbo.infra import errors


def intervene(
  problem: types.Problem, mask: jax.Array, fractions: jax.Array
) -> types.Intervention:
  """Returns do(variables = the points at `fractions` of their domains).

  A variable that may be set to a few values only has the nearest of them.

  Args:
    problem: the problem that defines the domains.
    mask: [D] bool, the variables to set.
    fractions: [D] positions within the domains, in [0, 1]; or [], the same
      position for all variables.

  Returns:
    The intervention on the variables of `mask`.
  """
  if problem.levels is not None:
    steps = jnp.maximum(problem.levels - 1, 1)
    nearest = jnp.round(fractions * steps) / steps
    fractions = jnp.where(problem.levels > 0, nearest, fractions)
  # This form gives the ends bit for bit at fractions 0 and 1. Rounding can
  # carry a fraction close to an end beyond it, hence the clip.
  values = (1 - fractions) * problem.low + fractions * problem.high
  values = jnp.clip(values, problem.low, problem.high)
  return types.Intervention(mask=mask, values=jnp.where(mask, values, 0.0))


def from_names(
  do: Mapping[str, float], names: Sequence[str]
) -> types.Intervention:
  """Returns the intervention that a dict describes.

  Args:
    do: {variable: value} of the variables to set.
    names: names of the D variables.

  Returns:
    The intervention, of numpy arrays in float64.

  Raises:
    errors.UsageError: `do` is no such dict, names no variable, or has a value
      that is not finite.
  """
  if not isinstance(do, Mapping):
    raise errors.UsageError(
      f'the intervention is {do!r}; it must be a dict {{variable: value}}'
    )
  for name, value in do.items():
    if name not in names:
      hint = errors.did_you_mean_or_options(str(name), list(names))
      raise errors.UsageError(f'there is no variable {name!r}{hint}')
    if not math.isfinite(to_float(value)):
      raise errors.UsageError(
        f'{name!r} is set to {value!r}; set it to a finite number'
      )
  return types.Intervention._make(
    (
      np.array([name in do for name in names]),
      np.array([to_float(do.get(name, 0.0)) for name in names]),
    )
  )


def to_float(value: Any) -> float:
  """Returns a number as a float, and NaN for anything else.

  Texts and integers that are too large for a float are something else.
  """
  try:
    return math.nan if isinstance(value, str | bytes) else float(value)
  except (OverflowError, TypeError, ValueError):
    return math.nan


def intervene_on(
  problem: types.Problem, variable: jax.Array, fraction: jax.Array
) -> types.Intervention:
  """Returns do(variable = the point at `fraction` of its domain).

  Args:
    problem: the problem that defines the domains.
    variable: [] int32, the variable to set; D for none.
    fraction: [] position within its domain, in [0, 1].

  Returns:
    The intervention on one variable.
  """
  mask = jnp.arange(problem.low.shape[-1]) == variable
  return intervene(problem, mask, fraction)


def extend(
  problem: types.Problem,
  partial: types.Intervention,
  variable: jax.Array,
  fraction: jax.Array,
) -> types.Intervention:
  """Adds one more variable to a partial intervention.

  Args:
    problem: the problem that defines the domains.
    partial: the intervention to extend.
    variable: [] int32, the variable to add; D adds none.
    fraction: [] position within its domain, in [0, 1].

  Returns:
    The extended intervention.
  """
  added = intervene_on(problem, variable, fraction)
  return types.Intervention(
    mask=partial.mask | added.mask,
    values=jnp.where(added.mask, added.values, partial.values),
  )


def from_decision(
  problem: types.Problem, decision: types.Decision
) -> types.Intervention:
  """Returns the intervention that a decision of Z action steps describes.

  Args:
    problem: the problem that defines the domains.
    decision: `Decision` of [Z] arrays.

  Returns:
    The intervention on all variables of the decision.
  """
  singles = jax.vmap(intervene_on, (None, 0, 0))(
    problem, decision.variable, decision.fraction
  )
  return types.Intervention(singles.mask.any(0), singles.values.sum(0))


def to_fractions(
  problem: types.Problem, intervention: types.Intervention
) -> jax.Array:
  """Returns the positions of an intervention's values within the domains.

  Args:
    problem: the problem that defines the domains.
    intervention: `Intervention` of [..., D] arrays.

  Returns:
    [..., D] fractions, in [0, 1] within the domains; 0 where a variable is not
    set.
  """
  width = jnp.where(problem.settable, problem.high - problem.low, 1.0)
  share = (intervention.values - problem.low) / width
  return jnp.where(intervention.mask, share, 0.0)


def no_intervention(num_variables: int) -> types.Intervention:
  """Returns the intervention that sets none of D variables."""
  return types.Intervention(
    mask=jnp.zeros(num_variables, bool), values=jnp.zeros(num_variables)
  )


def grid(num_cells: int) -> jax.Array:
  """Returns the points that represent a domain: its ends and K cell centers.

  Args:
    num_cells: number of cells, K.

  Returns:
    [C] fractions in ascending order, C = K + 2.
  """
  centers = (jnp.arange(num_cells) + 0.5) / num_cells
  return jnp.concatenate([jnp.zeros(1), centers, jnp.ones(1)])
