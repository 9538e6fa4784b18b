"""Rows of data as inputs of a network."""

import jax
import jax.numpy as jnp

from acme_cbo import types
from acme_cbo.networks import base


def start_row(num_variables: int) -> base.Rows:
  """The row before the first intervention: R = 1."""
  return base.Rows(
    values=jnp.zeros((1, num_variables)),
    intervened=jnp.zeros((1, num_variables), bool),
    left=jnp.ones(1),
    start=jnp.ones(1, bool),
  )


def outcome_row(
  intervened: jax.Array, values: jax.Array, left: jax.Array
) -> base.Rows:
  """The row of one intervention: R = 1.

  Args:
    intervened: [D] bool, what was set.
    values: [D] what came out.
    left: [] share of the budget left.

  Returns:
    `Rows` of length 1.
  """
  return base.Rows(
    values[None], intervened[None], left[None], jnp.zeros(1, bool)
  )


def budget_left(
  problem: types.Problem, spent: jax.Array, share: jax.Array
) -> jax.Array:
  """Share of the budget that is left, of cost or of number: the less.

  Args:
    problem: with its budget of cost.
    spent: [] of it so far.
    share: [] of the interventions that are left.

  Returns:
    [] in [0, 1].
  """
  return jnp.minimum(share, jnp.maximum(1 - spent / problem.budget, 0))


def episode_rows(
  problem: types.Problem, intervened: jax.Array, values: jax.Array
) -> base.Rows:
  """All rows of an episode of T interventions.

  Args:
    problem: with its costs.
    intervened: [T, D] bool, what each step set.
    values: [T, D] what came out.

  Returns:
    `Rows` of length R = T + 1, the start row first.
  """
  num_steps, num_variables = values.shape
  spent = jnp.cumsum(intervened @ problem.cost)
  left = budget_left(
    problem, spent, 1 - jnp.arange(1, num_steps + 1) / num_steps
  )
  steps = base.Rows(values, intervened, left, jnp.zeros(num_steps, bool))
  return jax.tree.map(
    lambda a, b: jnp.concatenate([a, b]), start_row(num_variables), steps
  )
