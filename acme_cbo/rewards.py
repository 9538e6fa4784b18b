"""Four rewards of one intervention and their weighted sum.

Each is pure, per step and bounded, and no shift or positive scale of a
variable changes it.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from acme_cbo import types

# The order of every array of components.
COMPONENTS = ('optimization', 'structure', 'parent', 'exploration')

# A belief's log odds are bounded, so that its log probability is.
_MAX_LOG_ODDS = 8.0
# Equal parts of a domain that count as places tried by `exploration`.
_REGIONS = 4


class Weights(NamedTuple):
  """Weight of each component in the reward."""

  optimization: float = 1.0
  structure: float = 0.5
  parent: float = 0.3
  exploration: float = 0.1


def total(components: jax.Array, weights: Weights) -> jax.Array:
  """The weighted sum over the last axis, of `COMPONENTS`: [..., 4] -> [...]."""
  return components @ jnp.array(weights, components.dtype)


def optimization(outcome: jax.Array, objective: types.Objective) -> jax.Array:
  """Where the outcome lies between the worst and the best that can be reached.

  `(E[Y | do] - worst) / (best - worst)`: 1 at the best single intervention, to
  the resolution of the search for it (see `simulate.objective`).

  Args:
    outcome: [] expected outcome, signed by the goal, from
      `simulate.expected_outcome`.
    objective: of the same SCM.

  Returns:
    [] the reward.
  """
  return (outcome - objective.worst) / (objective.best - objective.worst)


def log_belief(
  parent_logits: jax.Array, is_parent: jax.Array, candidates: jax.Array
) -> jax.Array:
  """Mean log2 probability that the belief gives to the truth.

  The potential of `structure`: 0 for certainty of the truth, -1 for a belief
  of one half everywhere.

  Args:
    parent_logits: [D] log odds that a variable is a parent of the target.
    is_parent: [D] bool, the truth.
    candidates: [D] bool, the variables that could be one.

  Returns:
    [] at most 0.
  """
  bounded = jnp.clip(parent_logits, -_MAX_LOG_ODDS, _MAX_LOG_ODDS)
  log_prob = jax.nn.log_sigmoid(jnp.where(is_parent, bounded, -bounded))
  share = candidates / jnp.maximum(candidates.sum(), 1)
  return (share * log_prob).sum() / jnp.log(2.0)


def structure(before: jax.Array, after: jax.Array) -> jax.Array:
  """Gain in `log_belief`: a difference of a potential, so it telescopes.

  A total of 1 leads from a belief of one half everywhere to certainty.

  Args:
    before: [] `log_belief` before the intervention.
    after: [] after it.

  Returns:
    [] the reward.
  """
  return after - before


def parent(parent_logits: jax.Array, intervened: jax.Array) -> jax.Array:
  """The belief that what was set is a parent of the target.

  Args:
    parent_logits: [D] log odds, before the intervention.
    intervened: [D] bool, what was set.

  Returns:
    [] mean probability over the variables that were set, in [0, 1].
  """
  belief = jnp.where(intervened, jax.nn.sigmoid(parent_logits), 0.0)
  return belief.sum() / jnp.maximum(intervened.sum(), 1)


def exploration(variables: jax.Array, fractions: jax.Array) -> jax.Array:
  """Halves with every earlier visit to the variable, and to the part of it.

  `(2^-n_variable + 2^-n_region) / 2` with the numbers of earlier steps that
  set the same variable, and the same quarter of its domain: every variable
  earns at most 5 in an episode, however long that is.

  Args:
    variables: [T] int32, the variable that each step sets.
    fractions: [T] where in its domain.

  Returns:
    [T] rewards in (0, 1].
  """
  region = jnp.minimum((fractions * _REGIONS).astype(jnp.int32), _REGIONS - 1)
  earlier = jnp.tri(variables.size, k=-1, dtype=bool)
  same_variable = earlier & (variables[:, None] == variables[None])
  same_region = same_variable & (region[:, None] == region[None])
  visits = jnp.stack([same_variable.sum(1), same_region.sum(1)])
  return jnp.exp2(-visits.astype(jnp.float32)).mean(0)
