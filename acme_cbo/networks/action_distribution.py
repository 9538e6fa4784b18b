"""The policy's distribution: variables, a cell of each domain, a point in it.

A decision is made in up to Z turns. Each adds a variable and its value to what
is chosen already, or adds none, and then none is added any more. Two orders of
the same variables are two decisions, each with a probability of its own.

A value has an atom at each end of the domain and a constant density on each of
the K cells between them. With respect to the measure that counts the two ends
and is uniform (Lebesgue) between them, the density of a value in cell c is
`p_c` at an end and `K p_c` inside; its logarithm, entropy and divergence are
closed forms of the cells' probabilities.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from acme_cbo import types
from acme_cbo.scms import intervention_sets
from acme_cbo.scms import sampling

# Stands for minus infinity: its probability is 0 exactly, and 0 times its log
# probability is 0, not NaN.
_NEVER = -1e9


class Choice(NamedTuple):
  """Log probabilities of one turn.

  Attributes:
    variable: [D + 1] of adding each variable; of adding none, last.
    cell: [D, C] of each cell, given the variable.
  """

  variable: jax.Array
  cell: jax.Array


class PartialIntervention(NamedTuple):
  """What is chosen before a turn.

  Attributes:
    mask: [D] bool, the variables.
    fractions: [D] where in their domains; 0 elsewhere.
    closed: [] bool, none is added any more.
  """

  mask: jax.Array
  fractions: jax.Array
  closed: jax.Array


def empty_intervention(num_variables: int) -> PartialIntervention:
  """Before the first turn, for D variables."""
  return PartialIntervention(
    jnp.zeros(num_variables, bool), jnp.zeros(num_variables), jnp.array(False)
  )


def added(
  partial: PartialIntervention, variable: jax.Array, fraction: jax.Array
) -> PartialIntervention:
  """After a turn.

  Args:
    partial: before it.
    variable: [] int32; D if none was added.
    fraction: [] where in its domain.

  Returns:
    What is chosen then.
  """
  num_variables = partial.mask.size
  new = jnp.arange(num_variables) == variable
  return PartialIntervention(
    partial.mask | new,
    jnp.where(new, fraction, partial.fractions),
    partial.closed | (variable == num_variables),
  )


def before_each_turn(
  decision: types.Decision, num_variables: int
) -> PartialIntervention:
  """What was chosen before each of Z turns, stacked: `Partial` of [Z, ...]."""

  def turn(partial, taken):
    return added(partial, *taken), partial

  # Unrolled: a loop of two turns costs more than it saves.
  return jax.lax.scan(
    turn,
    empty_intervention(num_variables),
    (decision.variable, decision.fraction),
    unroll=True,
  )[1]


def choice(
  joint_logits: jax.Array,
  none_logit: jax.Array,
  sets: jax.Array,
  partial: PartialIntervention,
) -> Choice:
  """The distribution of one turn.

  Args:
    joint_logits: [D, C] to add each variable at each cell.
    none_logit: [] to add none.
    sets: [M, D] bool, the sets that are allowed.
    partial: what is chosen already.

  Returns:
    The factorised `Choice`; whatever leads to no allowed set has probability 0.
  """
  may = intervention_sets.may_add(sets, partial.mask) & ~partial.closed
  # Where nothing is allowed at all, nothing is added.
  stop = intervention_sets.may_stop(sets, partial.mask) | ~may.any()
  logits = jnp.append(jax.nn.logsumexp(joint_logits, axis=-1), none_logit)
  return Choice(
    variable=jax.nn.log_softmax(
      jnp.where(jnp.append(may, stop), logits, _NEVER)
    ),
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


def sample(
  key: jax.Array, log_probs: Choice
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Draws a turn: variable, cell, fraction. The key is consumed."""
  num_variables, num_cells = log_probs.cell.shape
  drawn = sampling.levels(
    key, {'variable': (num_variables + 1,), 'cell': (num_cells,), 'offset': ()}
  )
  variable = jnp.argmax(log_probs.variable + sampling.gumbel(drawn['variable']))
  cells = log_probs.cell[jnp.minimum(variable, num_variables - 1)]
  cell = jnp.argmax(cells + sampling.gumbel(drawn['cell']))
  return _turn(variable, cell, drawn['offset'], num_cells)


def mode(
  key: jax.Array, log_probs: Choice
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """The most probable turn.

  Adding none is compared with each variable as a whole; then the variable and
  cell that are most probable together, at the top of the parabola through the
  log probabilities of the cell and its two neighbours.

  Args:
    key: not used.
    log_probs: of the turn.

  Returns:
    Variable, cell and fraction.
  """
  del key
  num_variables, num_cells = log_probs.cell.shape
  joint = log_probs.variable[:-1, None] + log_probs.cell
  variable, cell = jnp.unravel_index(jnp.argmax(joint), joint.shape)
  none = log_probs.variable[-1] >= jnp.max(log_probs.variable[:-1])
  offset = 0.5 + _top(log_probs.cell[variable], cell)
  variable = jnp.where(none, num_variables, variable)
  return _turn(variable, cell, offset, num_cells)


def _top(logs, cell):
  """How far from a cell's centre the top of a curve is: [] in (-.5, .5)."""
  # The two ends are points, not cells: next to them there is no parabola.
  inner = (cell > 1) & (cell < logs.size - 2)
  left, here, right = (logs[cell + step] for step in (-1, 0, 1))
  bend = 2 * here - left - right
  top = 0.5 * (right - left) / jnp.where(bend > 0, bend, 1.0)
  return jnp.where(inner & (bend > 0), jnp.clip(top, -0.499, 0.499), 0.0)


def log_prob(
  log_probs: Choice, decision: types.Decision
) -> tuple[jax.Array, jax.Array]:
  """Log probabilities of a turn: of the variable, and of the cell given it.

  Args:
    log_probs: of the turn.
    decision: its entries for that turn: of [] arrays.

  Returns:
    [] and []; the second is 0 where no variable was added.
  """
  num_variables = log_probs.cell.shape[0]
  variable = jnp.minimum(decision.variable, num_variables - 1)
  cell = log_probs.cell[variable, decision.cell]
  none = decision.variable == num_variables
  return log_probs.variable[decision.variable], jnp.where(none, 0.0, cell)


def log_density(log_probs: Choice, decision: types.Decision) -> jax.Array:
  """Log density of a turn's value, given its variable: []."""
  num_cells = log_probs.cell.shape[-1] - 2
  inside = (decision.cell > 0) & (decision.cell <= num_cells)
  cell = log_probs.cell[decision.variable, decision.cell]
  return cell + jnp.where(inside, jnp.log(float(num_cells)), 0.0)


def entropy(log_probs: Choice) -> tuple[jax.Array, jax.Array]:
  """Entropy of the variable, and expected entropy of the cell given it."""
  weight = jnp.exp(log_probs.variable)
  of_variable = -(weight * log_probs.variable).sum()
  per_variable = -(jnp.exp(log_probs.cell) * log_probs.cell).sum(-1)
  return of_variable, (weight[:-1] * per_variable).sum()


def kl(log_probs: Choice, reference: Choice) -> jax.Array:
  """KL(policy || reference) of a turn, in closed form: []."""
  weight = jnp.exp(log_probs.variable)
  of_variable = (weight * (log_probs.variable - reference.variable)).sum()
  difference = log_probs.cell - reference.cell
  per_variable = (jnp.exp(log_probs.cell) * difference).sum(-1)
  return of_variable + (weight[:-1] * per_variable).sum()


def decide(
  keys: Sequence[Any],
  turn: Callable[[PartialIntervention], tuple[jax.Array, jax.Array]],
  sets: jax.Array,
  pick: Callable[..., Any],
) -> tuple[types.Decision, jax.Array, jax.Array]:
  """A whole decision of Z turns.

  Args:
    keys: [Z] consumed, one for each turn.
    turn: what is chosen already -> [D, C] joint logits and [] that of none.
    sets: [M, D] bool, the sets that are allowed.
    pick: `sample` or `mode`.

  Returns:
    The `Decision`, and the log probabilities of its variables and of its cells:
    [] and [].
  """
  partial = empty_intervention(sets.shape[-1])
  taken, log_probs_of_turns = [], []
  for key in keys:
    log_probs = choice(*turn(partial), sets, partial)
    decision = types.Decision(*pick(key, log_probs))
    log_probs_of_turns.append(log_prob(log_probs, decision))
    partial = added(partial, decision.variable, decision.fraction)
    taken.append(decision)
  stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *taken)
  of_variables, of_cells = zip(*log_probs_of_turns, strict=True)
  return stacked, jnp.stack(of_variables).sum(), jnp.stack(of_cells).sum()


def _turn(variable, cell, offset, num_cells):
  return (
    variable.astype(jnp.int32),
    cell.astype(jnp.int32),
    fraction_at(cell, offset, num_cells - 2),
  )
