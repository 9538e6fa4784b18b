"""The policy's action distribution: variables, and a value for each of them.

A decision takes up to Z action steps. Each step adds a variable and its value
to the partial intervention, or stops: no variable is added from then on. Two
orders of the same variables are two decisions with their own probabilities.

The distribution of a value has an atom at each end of the domain and a constant
density on each of the K cells between them. With respect to the measure that is
the sum of counting measure on the two ends and Lebesgue measure between them,
the density of a value in cell c is `p_c` at an end and `K p_c` inside; log
density, entropy and divergence are closed forms of the cells' probabilities.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from acme_cbo import types
from acme_cbo.scms import intervention_sets
from acme_cbo.scms import interventions
from acme_cbo.scms import sampling

# Stands for minus infinity: the probability is exactly 0, and 0 times the log
# probability is 0, not NaN.
_NEVER = -1e9


class StepDistribution(NamedTuple):
  """Log probabilities of one action step.

  Attributes:
    variable: [D + 1] log probability of adding each variable; the last entry is
      that of adding none.
    cell: [D, C] log probability of each cell, given the variable.
  """

  variable: jax.Array
  cell: jax.Array


class PartialIntervention(NamedTuple):
  """The variables and values that are chosen before an action step.

  Attributes:
    mask: [D] bool, the chosen variables.
    fractions: [D] positions of their values in the domains; 0 elsewhere.
    closed: [] bool, True if no more variables are added.
  """

  mask: jax.Array
  fractions: jax.Array
  closed: jax.Array


def empty_intervention(num_variables: int) -> PartialIntervention:
  """Returns the partial intervention on none of D variables."""
  return PartialIntervention(
    jnp.zeros(num_variables, bool), jnp.zeros(num_variables), jnp.array(False)
  )


def of_intervention(
  problem: types.Problem, intervention: types.Intervention
) -> PartialIntervention:
  """Returns the partial intervention on all variables of an intervention.

  Args:
    problem: the problem that defines the domains.
    intervention: an intervention, or several, with leading axes.
  """
  return PartialIntervention(
    intervention.mask,
    interventions.to_fractions(problem, intervention),
    jnp.zeros(intervention.mask.shape[:-1], bool),
  )


def add_variable(
  partial: PartialIntervention, variable: jax.Array, fraction: jax.Array
) -> PartialIntervention:
  """Applies one action step.

  Args:
    partial: partial intervention before the step.
    variable: [] int32, the variable that is added; D closes the intervention.
    fraction: [] position of its value in the domain.

  Returns:
    The partial intervention after the step.
  """
  num_variables = partial.mask.size
  new = jnp.arange(num_variables) == variable
  return PartialIntervention(
    partial.mask | new,
    jnp.where(new, fraction, partial.fractions),
    partial.closed | (variable == num_variables),
  )


def partial_before_each_step(
  decision: types.Decision, num_variables: int
) -> PartialIntervention:
  """Replays a decision.

  Args:
    decision: a decision of Z action steps.
    num_variables: D.

  Returns:
    The partial intervention before each step, with a leading axis Z.
  """

  def step(partial, action):
    return add_variable(partial, *action), partial

  # Unrolled: for so few steps a loop costs more than it saves.
  return jax.lax.scan(
    step,
    empty_intervention(num_variables),
    (decision.variable, decision.fraction),
    unroll=True,
  )[1]


def step_distribution(
  joint_logits: jax.Array,
  none_logit: jax.Array,
  sets: jax.Array,
  partial: PartialIntervention,
) -> StepDistribution:
  """Returns the distribution of one action step.

  Args:
    joint_logits: [D, C] logits of adding each variable at each cell.
    none_logit: [] logit of adding none.
    sets: [M, D] bool, the allowed sets of variables.
    partial: partial intervention before the step.

  Returns:
    The distribution, factorized into variable and cell. A step after which no
    allowed set can be reached has probability 0.
  """
  may_add = intervention_sets.may_add(sets, partial.mask) & ~partial.closed
  # If no variable may be added, adding none has probability 1.
  may_stop = intervention_sets.may_stop(sets, partial.mask) | ~may_add.any()
  logits = jnp.append(jax.nn.logsumexp(joint_logits, axis=-1), none_logit)
  return StepDistribution(
    variable=jax.nn.log_softmax(
      jnp.where(jnp.append(may_add, may_stop), logits, _NEVER)
    ),
    cell=jax.nn.log_softmax(joint_logits, axis=-1),
  )


def fraction_at(
  cell: jax.Array, offset: jax.Array, num_cells: int
) -> jax.Array:
  """Returns the position in the domain of a point in a cell.

  Args:
    cell: [] int32 in 0 .. K + 1; 0 and K + 1 are the ends of the domain.
    offset: [] in [0, 1), position in the cell; ignored at the ends.
    num_cells: K.

  Returns:
    [] in [0, 1].
  """
  inside = (cell - 1 + offset) / num_cells
  return jnp.where(
    cell == 0, 0.0, jnp.where(cell == num_cells + 1, 1.0, inside)
  )


def sample(
  key: jax.Array, log_probs: StepDistribution
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Samples an action step.

  Args:
    key: the key is consumed.
    log_probs: distribution of the step.

  Returns:
    Variable, cell and fraction.
  """
  num_variables, num_cells = log_probs.cell.shape
  draws = sampling.levels(
    key, {'variable': (num_variables + 1,), 'cell': (num_cells,), 'offset': ()}
  )
  variable = jnp.argmax(log_probs.variable + sampling.gumbel(draws['variable']))
  cells = log_probs.cell[jnp.minimum(variable, num_variables - 1)]
  cell = jnp.argmax(cells + sampling.gumbel(draws['cell']))
  return _action(variable, cell, draws['offset'], num_cells)


def mode(
  key: jax.Array, log_probs: StepDistribution
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Returns the most probable action step.

  No variable is added if that is at least as probable as each variable, summed
  over cells. Otherwise the step is the most probable pair of variable and cell;
  the value is at the maximum of the parabola through the log probabilities of
  the cell and its two neighbors.

  Args:
    key: unused; the signature is that of `sample`.
    log_probs: distribution of the step.

  Returns:
    Variable, cell and fraction.
  """
  del key
  num_variables, num_cells = log_probs.cell.shape
  joint = log_probs.variable[:-1, None] + log_probs.cell
  variable, cell = jnp.unravel_index(jnp.argmax(joint), joint.shape)
  none = log_probs.variable[-1] >= jnp.max(log_probs.variable[:-1])
  offset = 0.5 + _parabola_maximum(log_probs.cell[variable], cell)
  variable = jnp.where(none, num_variables, variable)
  return _action(variable, cell, offset, num_cells)


def _parabola_maximum(logs, cell):
  """Returns the maximum's offset from the center of a cell: [] in (-.5, .5)."""
  # The ends are points, not cells, so that a cell next to one lacks a neighbor.
  inner = (cell > 1) & (cell < logs.size - 2)
  left, here, right = (logs[cell + step] for step in (-1, 0, 1))
  curvature = 2 * here - left - right
  maximum = 0.5 * (right - left) / jnp.where(curvature > 0, curvature, 1.0)
  return jnp.where(
    inner & (curvature > 0), jnp.clip(maximum, -0.499, 0.499), 0.0
  )


def log_prob(
  log_probs: StepDistribution, decision: types.Decision
) -> tuple[jax.Array, jax.Array]:
  """Returns the log probabilities of an action step.

  Args:
    log_probs: distribution of the step.
    decision: entries of the decision for this step, [] arrays.

  Returns:
    [] log probability of the variable, and [] that of the cell given the
    variable; the latter is 0 where no variable is added.
  """
  num_variables = log_probs.cell.shape[0]
  variable = jnp.minimum(decision.variable, num_variables - 1)
  cell = log_probs.cell[variable, decision.cell]
  none = decision.variable == num_variables
  return log_probs.variable[decision.variable], jnp.where(none, 0.0, cell)


def log_density(
  log_probs: StepDistribution, decision: types.Decision
) -> jax.Array:
  """Returns the log density of a step's value, given its variable: []."""
  num_cells = log_probs.cell.shape[-1] - 2
  inside = (decision.cell > 0) & (decision.cell <= num_cells)
  cell = log_probs.cell[decision.variable, decision.cell]
  return cell + jnp.where(inside, jnp.log(float(num_cells)), 0.0)


def entropy(log_probs: StepDistribution) -> tuple[jax.Array, jax.Array]:
  """Returns entropy of the variable, and expected entropy of the cell."""
  weight = jnp.exp(log_probs.variable)
  variable_entropy = -(weight * log_probs.variable).sum()
  per_variable = -(jnp.exp(log_probs.cell) * log_probs.cell).sum(-1)
  return variable_entropy, (weight[:-1] * per_variable).sum()


def kl(log_probs: StepDistribution, reference: StepDistribution) -> jax.Array:
  """Returns KL(policy || reference) of a step, in closed form: []."""
  weight = jnp.exp(log_probs.variable)
  variable_kl = (weight * (log_probs.variable - reference.variable)).sum()
  difference = log_probs.cell - reference.cell
  per_variable = (jnp.exp(log_probs.cell) * difference).sum(-1)
  return variable_kl + (weight[:-1] * per_variable).sum()


def decide(
  keys: Sequence[Any],
  logits: Callable[[PartialIntervention], tuple[jax.Array, jax.Array]],
  sets: jax.Array,
  pick: Callable[..., Any],
) -> tuple[types.Decision, jax.Array, jax.Array]:
  """Makes a decision of Z action steps.

  Args:
    keys: [Z] one key for each step; they are consumed.
    logits: partial intervention -> [D, C] joint logits and [] logit of none.
    sets: [M, D] bool, the allowed sets of variables.
    pick: `sample` or `mode`.

  Returns:
    The `Decision`, the [] log probability of its variables and the [] log
    probability of its cells given the variables.
  """
  partial = empty_intervention(sets.shape[-1])
  decisions, log_probs_of_steps = [], []
  for key in keys:
    log_probs = step_distribution(*logits(partial), sets, partial)
    decision = types.Decision(*pick(key, log_probs))
    log_probs_of_steps.append(log_prob(log_probs, decision))
    partial = add_variable(partial, decision.variable, decision.fraction)
    decisions.append(decision)
  stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *decisions)
  of_variables, of_cells = zip(*log_probs_of_steps, strict=True)
  return stacked, jnp.stack(of_variables).sum(), jnp.stack(of_cells).sum()


def _action(variable, cell, offset, num_cells):
  return (
    variable.astype(jnp.int32),
    cell.astype(jnp.int32),
    fraction_at(cell, offset, num_cells - 2),
  )
