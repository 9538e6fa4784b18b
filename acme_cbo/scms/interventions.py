"""Interventions: how they are made from choices and described."""

import jax
import jax.numpy as jnp

from acme_cbo import types


def intervene(
  problem: types.Problem, mask: jax.Array, fractions: jax.Array
) -> types.Intervention:
  """do(variables = the points at `fractions` of their domains).

  Args:
    problem: whose domains are used.
    mask: [D] bool, the variables.
    fractions: [D] in [0, 1], or [] for all of them.

  Returns:
    An intervention on all of them.
  """
  # Written so that fractions 0 and 1 give the ends to the bit, and clipped
  # because rounding can carry a fraction close to them beyond.
  values = (1 - fractions) * problem.low + fractions * problem.high
  values = jnp.clip(values, problem.low, problem.high)
  return types.Intervention(mask=mask, values=jnp.where(mask, values, 0.0))


def intervene_on(
  problem: types.Problem, variable: jax.Array, fraction: jax.Array
) -> types.Intervention:
  """do(variable = the point at `fraction` of its domain).

  Args:
    problem: whose domains are used.
    variable: [] int32.
    fraction: [] in [0, 1].

  Returns:
    An intervention on one variable.
  """
  mask = jnp.arange(problem.low.shape[-1]) == variable
  return intervene(problem, mask, fraction)


def extend(
  problem: types.Problem,
  given: types.Intervention,
  variable: jax.Array,
  fraction: jax.Array,
) -> types.Intervention:
  """The given intervention and, with it, one on one more variable.

  Args:
    problem: whose domains are used.
    given: what is set already.
    variable: [] int32; D leaves the given as it is.
    fraction: [] in [0, 1], where in its domain.

  Returns:
    The intervention on all of them.
  """
  more = intervene_on(problem, variable, fraction)
  return types.Intervention(
    mask=given.mask | more.mask,
    values=jnp.where(more.mask, more.values, given.values),
  )


def from_decision(
  problem: types.Problem, decision: types.Decision
) -> types.Intervention:
  """What a decision of Z turns sets.

  Args:
    problem: whose domains are used.
    decision: of [Z] arrays.

  Returns:
    The intervention on all of its variables.
  """
  each = jax.vmap(intervene_on, (None, 0, 0))(
    problem, decision.variable, decision.fraction
  )
  return types.Intervention(each.mask.any(0), each.values.sum(0))


def to_fractions(
  problem: types.Problem, intervention: types.Intervention
) -> jax.Array:
  """Where in their domains variables are set.

  Args:
    problem: whose domains are used.
    intervention: of [..., D] arrays.

  Returns:
    [..., D] in [0, 1]; 0 where a variable is not set.
  """
  width = jnp.where(problem.settable, problem.high - problem.low, 1.0)
  share = (intervention.values - problem.low) / width
  return jnp.where(intervention.mask, jnp.clip(share, 0.0, 1.0), 0.0)


def no_intervention(num_variables: int) -> types.Intervention:
  """do() of nothing, for D variables."""
  return types.Intervention(
    mask=jnp.zeros(num_variables, bool), values=jnp.zeros(num_variables)
  )


def grid(num_cells: int) -> jax.Array:
  """The points that stand for a domain's cells: its ends and K centres.

  Args:
    num_cells: K.

  Returns:
    [C] fractions in ascending order, C = K + 2.
  """
  centres = (jnp.arange(num_cells) + 0.5) / num_cells
  return jnp.concatenate([jnp.zeros(1), centres, jnp.ones(1)])
