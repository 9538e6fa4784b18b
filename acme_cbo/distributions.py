"""The policy's distribution: a variable, a cell of its domain, a point in it.

A value has an atom at each end of the domain and a constant density on each of
the K cells between them. With respect to the measure that counts the two ends
and is uniform (Lebesgue) between them, the density of a value in cell c is
`p_c` at an end and `K p_c` inside; its logarithm, entropy and divergence are
closed forms of the cells' probabilities.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from acme_cbo import draws
from acme_cbo import types

# Stands for minus infinity: its probability is 0 exactly, and 0 times its log
# probability is 0, not NaN.
_NEVER = -1e9


class Choice(NamedTuple):
  """Log probabilities of a decision.

  Attributes:
    variable: [D] of setting each variable.
    cell: [D, C] of each cell, given the variable.
  """

  variable: jax.Array
  cell: jax.Array


def choice(joint_logits: jax.Array, settable: jax.Array) -> Choice:
  """From logits over variables and cells.

  Args:
    joint_logits: [D, C].
    settable: [D] bool; the others have probability 0. At least one is True.

  Returns:
    The factorised `Choice`.
  """
  logits = jax.nn.logsumexp(joint_logits, axis=-1)
  return Choice(
    variable=jax.nn.log_softmax(jnp.where(settable, logits, _NEVER)),
    cell=jax.nn.log_softmax(joint_logits, axis=-1),
  )


def fraction_at(
  cell: jax.Array, offset: jax.Array, num_cells: int
) -> jax.Array:
  """The point of a domain at `offset` in [0, 1) of a cell: [] in [0, 1]."""
  inside = (cell - 1 + offset) / num_cells
  return jnp.where(
    cell == 0, 0.0, jnp.where(cell == num_cells + 1, 1.0, inside)
  )


def sample(key: jax.Array, log_probs: Choice) -> types.Decision:
  """Draws a decision. The key is consumed."""
  num_variables, num_cells = log_probs.cell.shape
  drawn = draws.levels(
    key, {'variable': (num_variables,), 'cell': (num_cells,), 'offset': ()}
  )
  variable = jnp.argmax(log_probs.variable + draws.gumbel(drawn['variable']))
  cell = jnp.argmax(log_probs.cell[variable] + draws.gumbel(drawn['cell']))
  return _decision(variable, cell, drawn['offset'], log_probs)


def mode(log_probs: Choice) -> types.Decision:
  """The most probable variable and cell together, at the cell's centre."""
  joint = log_probs.variable[:, None] + log_probs.cell
  variable, cell = jnp.unravel_index(jnp.argmax(joint), joint.shape)
  return _decision(variable, cell, jnp.float32(0.5), log_probs)


def log_prob(
  log_probs: Choice, decision: types.Decision
) -> tuple[jax.Array, jax.Array]:
  """Log probabilities of the variable, and of the cell given it: [], []."""
  cell = log_probs.cell[decision.variable, decision.cell]
  return log_probs.variable[decision.variable], cell


def log_density(log_probs: Choice, decision: types.Decision) -> jax.Array:
  """Log density of the decision's value, given its variable: []."""
  num_cells = log_probs.cell.shape[-1] - 2
  inside = (decision.cell > 0) & (decision.cell <= num_cells)
  cell = log_probs.cell[decision.variable, decision.cell]
  return cell + jnp.where(inside, jnp.log(float(num_cells)), 0.0)


def entropy(log_probs: Choice) -> tuple[jax.Array, jax.Array]:
  """Entropy of the variable, and expected entropy of the cell given it."""
  weight = jnp.exp(log_probs.variable)
  of_variable = -(weight * log_probs.variable).sum()
  per_variable = -(jnp.exp(log_probs.cell) * log_probs.cell).sum(-1)
  return of_variable, (weight * per_variable).sum()


def kl(log_probs: Choice, reference: Choice) -> jax.Array:
  """KL(policy || reference) of the whole decision, in closed form: []."""
  weight = jnp.exp(log_probs.variable)
  of_variable = (weight * (log_probs.variable - reference.variable)).sum()
  difference = log_probs.cell - reference.cell
  per_variable = (jnp.exp(log_probs.cell) * difference).sum(-1)
  return of_variable + (weight * per_variable).sum()


def _decision(variable, cell, offset, log_probs):
  num_cells = log_probs.cell.shape[-1] - 2
  return types.Decision(
    variable=variable.astype(jnp.int32),
    cell=cell.astype(jnp.int32),
    fraction=fraction_at(cell, offset, num_cells),
  )
