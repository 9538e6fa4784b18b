"""Rows of data in the form that a network takes."""

import jax
import jax.numpy as jnp

from acme_cbo import types
from acme_cbo.networks import base


def start_row(num_variables: int) -> base.Rows:
  """Returns the row before the first intervention: `Rows` of R = 1."""
  return base.Rows(
    values=jnp.zeros((1, num_variables)),
    intervened=jnp.zeros((1, num_variables), bool),
    budget_left=jnp.ones(1),
    start=jnp.ones(1, bool),
  )


def outcome_row(
  intervened: jax.Array, values: jax.Array, budget_left: jax.Array
) -> base.Rows:
  """Returns the row of one intervention and its outcome.

  Args:
    intervened: [D] bool, the variables that were intervened on.
    values: [D] observed values.
    budget_left: [] share of the budget that is left.

  Returns:
    `Rows` of R = 1.
  """
  return base.Rows(
    values[None], intervened[None], budget_left[None], jnp.zeros(1, bool)
  )


def budget_left(
  problem: types.Problem, spent: jax.Array, share: jax.Array
) -> jax.Array:
  """Returns the share of the budget that is left.

  It is the smaller of two shares: of the cost budget and of the number of
  interventions.

  Args:
    problem: problem with its cost budget.
    spent: [] cost of all interventions so far.
    share: [] share of the interventions that are left.

  Returns:
    [] in [0, 1].
  """
  return jnp.minimum(share, jnp.maximum(1 - spent / problem.budget, 0))


def episode_rows(
  problem: types.Problem, intervened: jax.Array, values: jax.Array
) -> base.Rows:
  """Returns all rows of an episode of T interventions.

  Args:
    problem: problem with its costs and its cost budget.
    intervened: [T, D] bool, the variables that each step intervened on.
    values: [T, D] observed values after each step.

  Returns:
    `Rows` of R = T + 1, the start row first.
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
