"""The data that flows through acme_cbo, and the glossary of its shapes.

Shapes, used in every docstring and trailing comment:

  B  SCMs per update
  G  rollouts per SCM (the group: same SCM, same observational rows)
  T  interventions per episode
  N  observational rows
  R  rows a rollout adds to the observations: a start row and T outcomes, T + 1
  D  variables, padded to the largest SCM of the batch
  M  sets of variables that may be set together
  Z  variables that one intervention sets at most, chosen one after the other
  P  partial interventions whose continuations are known
  H  hidden units of a mechanism
  S  draws of the noise bank
  K  cells that a domain is cut into; with its two ends there are C = K + 2

Every structure is an immutable pytree; its fields are given unbatched, and a
leading axis is added by `jax.vmap`.
"""

from typing import Any, NamedTuple

import jax


class Problem(NamedTuple):
  """What the experimenter is told: everything but the causal mechanism.

  Attributes:
    exists: [D] bool, False where a variable is padding, or never watched.
    sets: [M, D] bool, each set of variables that may be set together; an empty
      one is padding.
    target: [D] bool, True for the one variable to optimise.
    goal: [] +1 to maximise the target, -1 to minimise it.
    low: [D] lower ends of the domains, in the variables' own units.
    high: [D] upper ends of the domains, in the variables' own units.
    cost: [D] what setting each variable costs, once.
    budget: [] what all interventions together may cost; infinite where their
      number alone is limited.
    samples: [] draws of the system of which each watched outcome is the mean.
  """

  exists: jax.Array
  sets: jax.Array
  target: jax.Array
  goal: jax.Array
  low: jax.Array
  high: jax.Array
  cost: jax.Array
  budget: jax.Array
  samples: jax.Array

  @property
  def settable(self) -> jax.Array:
    """The variables that may be set, alone or with others: [D] bool."""
    return self.sets.any(-2)


class Mechanism(NamedTuple):
  """Structural equations of every variable, in internal units.

  `u_j = bias_j + linear_j . u + sum_h output_jh a_j(hidden_jh . u + shift_jh) +
  noise_scale_j e_j`, where the activation `a_j` is one of
  `mechanisms.Activation` and `e_j` has mean 0 and variance 1.

  Attributes:
    bias: [D] constants.
    linear: [D, D] weights; row j belongs to the equation of variable j.
    hidden: [D, H, D] weights into the hidden units.
    shift: [D, H] biases of the hidden units.
    output: [D, H] weights out of the hidden units.
    activation: [D] int32, a `mechanisms.Activation`.
    noise: [D] int32, a `mechanisms.Noise`.
    noise_scale: [D] standard deviations of the noise.
  """

  bias: jax.Array
  linear: jax.Array
  hidden: jax.Array
  shift: jax.Array
  output: jax.Array
  activation: jax.Array
  noise: jax.Array
  noise_scale: jax.Array


class SCM(NamedTuple):
  """A structural causal model. Its values are `location + scale * u`.

  Attributes:
    problem: what of it may be seen.
    mechanism: the structural equations, in internal units u: a `Mechanism`, or
      whatever `mechanisms.value` is registered for.
    present: [D] bool, False where a variable is padding. Latent are those that
      are present and do not exist in the problem: nobody ever sees them.
    parents: [D, D] bool, `parents[j, i]` where i is a direct cause of j.
    order: [D] int32, the variables from causes to effects, padding last.
    location: [D] origin of each variable's own units.
    scale: [D] size of each variable's own units, positive.
    graph: [] int32, a `graphs.Graph`, for reports alone.
    family: [] int32, a `mechanisms.Family`, for reports alone.
  """

  problem: Problem
  mechanism: Any
  present: jax.Array
  parents: jax.Array
  order: jax.Array
  location: jax.Array
  scale: jax.Array
  graph: jax.Array
  family: jax.Array


class Intervention(NamedTuple):
  """do(x_j = values_j for every j in mask).

  Attributes:
    mask: [D] bool, the variables that are set.
    values: [D] what they are set to, in their own units; 0 elsewhere.
  """

  mask: jax.Array
  values: jax.Array


class Objective(NamedTuple):
  """E[Y | do] of an SCM, and the range that interventions can reach.

  Outcomes are in the SCM's internal units and signed by the goal, so that more
  is always better.

  Attributes:
    bank: [S, D] noise draws over which outcomes are averaged.
    baseline: [] the outcome of no intervention.
    worst: [] the lowest outcome over the allowed interventions.
    best: [] the highest.
    choice: the intervention that reaches it.
    partial: [P, ...] partial interventions; the first sets no variable.
    partial_outcome: [P] outcome of each partial intervention on its own.
    curves: [P, D, C] outcome of setting one more variable to each point of
      `interventions.grid`; `partial_outcome` where the variable cannot be added
      or is set already.
  """

  bank: jax.Array
  baseline: jax.Array
  worst: jax.Array
  best: jax.Array
  choice: Intervention
  partial: Intervention
  partial_outcome: jax.Array
  curves: jax.Array


class Task(NamedTuple):
  """An SCM with its objective: what a policy is trained and scored on."""

  scm: SCM
  objective: Objective


class Decision(NamedTuple):
  """One choice of the policy, before it becomes an `Intervention`.

  One entry for each of Z turns.

  Attributes:
    variable: [Z] int32, which variable is set; D where none is added any more.
    cell: [Z] int32 in 0 .. C - 1, which part of its domain; 0 and C - 1 are its
      two ends, the others K equal cells between them.
    fraction: [Z] in [0, 1], where in the domain the value lies.
  """

  variable: jax.Array
  cell: jax.Array
  fraction: jax.Array


class Trajectory(NamedTuple):
  """One episode, as the learner needs it.

  Attributes:
    decision: `Decision` of [T, Z] arrays.
    intervened: [T, D] bool, what each step set; where the budget was spent, and
      nothing could be chosen, what was set last stayed as it was.
    values: [T, D] to what, in the variables' own units; 0 elsewhere.
    outcomes: [T, D] the row that was watched after each step.
    affordable: [T, M] bool, sets that the remaining budget paid for at each
      step. Recorded because a recomputation may differ by a rounding error and
      exclude the set that was chosen.
    log_prob_variable: [T] log probability of the choice of the variables.
    log_prob_cell: [T] log probability of the cells, given the variables.
    components: [T, 4] rewards, in the order of `rewards.COMPONENTS`.
    expected_reward: [T] `optimization` reward of the expected outcome.
  """

  decision: Decision
  intervened: jax.Array
  values: jax.Array
  outcomes: jax.Array
  affordable: jax.Array
  log_prob_variable: jax.Array
  log_prob_cell: jax.Array
  components: jax.Array
  expected_reward: jax.Array


class TrainingState(NamedTuple):
  """All that changes while training.

  Attributes:
    params: parameters of the network.
    reference: parameters of the reference policy of the KL penalty.
    opt_state: state of the optimiser.
    key: the random key from which the next update is drawn.
    step: [] int32, updates made so far.
    dead_updates: [] int32, updates in a row in which every group was dead.
  """

  params: Any
  reference: Any
  opt_state: Any
  key: jax.Array
  step: jax.Array
  dead_updates: jax.Array
