"""Data structures of acme_cbo, with the glossary of array shapes.

Shapes, used in every docstring and trailing comment:

  B  SCMs per update
  G  rollouts per SCM (the group: same SCM, same observational rows)
  T  interventions per episode
  N  observational rows
  R  rows that a rollout adds to the observations: a start row and T outcomes,
     R = T + 1
  D  variables, padded to the largest SCM of the batch
  M  allowed sets of variables (those that may be set together)
  Z  maximum number of variables per intervention, chosen one after another
  P  partial interventions whose continuations are evaluated
  H  hidden units of a mechanism
  S  draws of the noise bank
  K  cells that a domain is divided into
  C  cells plus the two ends of the domain, C = K + 2
  E  components of the reward

Every structure is an immutable pytree. Field shapes are documented unbatched;
`jax.vmap` adds leading axes.
"""

from typing import Any, NamedTuple

import jax


class Problem(NamedTuple):
  """Public part of an SCM: everything but the graph and the mechanism.

  Attributes:
    exists: [D] bool, True for observed variables; False for padding and latent
      variables.
    sets: [M, D] bool, the sets of variables that may be set together; an empty
      row is padding.
    target: [D] bool, True for the one variable to optimize.
    goal: [] +1 to maximize the target, -1 to minimize it.
    low: [D] lower ends of the domains, in the variables' own units.
    high: [D] upper ends of the domains, in the variables' own units.
    cost: [D] cost of setting each variable once.
    budget: [] maximum total cost of all interventions; infinite if only their
      number is limited.
    samples: [] number of draws that each observed outcome is the mean of.
    edges: [D, D] what is known of the graph: `edges[j, i]` is 1 if i is known
      to be a direct cause of j, -1 if it is known not to be, and 0 if nothing
      is known; None if nothing is known of any edge.
    levels: [D] number of equally spaced values of the domain, its ends
      included, to which a variable may be set; 0 if it may be set to any. None
      if all may be set to any.
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
  edges: jax.Array | None = None
  levels: jax.Array | None = None

  @property
  def settable(self) -> jax.Array:
    """Variables that may be set, alone or together with others: [D] bool."""
    return self.sets.any(-2)


class Mechanism(NamedTuple):
  """Structural equations of all variables, in internal units.

  `u_j = bias_j + linear_j . u + sum_h output_jh a_j(hidden_jh . u + shift_jh) +
  noise_scale_j e_j`, where the activation `a_j` is one of
  `mechanisms.Activation` and `e_j` has mean 0 and variance 1.

  Attributes:
    bias: [D] constant terms.
    linear: [D, D] linear weights; row j belongs to the equation of variable j.
    hidden: [D, H, D] input weights of the hidden units.
    shift: [D, H] biases of the hidden units.
    output: [D, H] output weights of the hidden units.
    activation: [D] int32, a `mechanisms.Activation`.
    noise: [D] int32, a `mechanisms.Noise`.
    noise_scale: [D] standard deviations of the noise.
    unevenness: [D, D] weights of the logarithm of the factor by which the
      causes of variable j change its noise; None where they do not.
  """

  bias: jax.Array
  linear: jax.Array
  hidden: jax.Array
  shift: jax.Array
  output: jax.Array
  activation: jax.Array
  noise: jax.Array
  noise_scale: jax.Array
  unevenness: jax.Array | None = None


class SCM(NamedTuple):
  """A structural causal model. Its values are `location + scale * u`.

  Attributes:
    problem: public part, without the graph and the mechanism.
    mechanism: structural equations, in internal units u: a `Mechanism` or any
      type that `mechanisms.value` is registered for.
    present: [D] bool, False where a variable is padding. A latent variable is
      present but does not exist in the problem; it is never observed.
    parents: [D, D] bool, `parents[j, i]` is True if i is a direct cause of j.
    order: [D] int32, topological order of the variables, padding last.
    location: [D] origin of each variable's own units.
    scale: [D] size of each variable's own units, positive.
    graph: [] int32, a `graphs.Graph`, or `systems.NO_KIND`; used in reports
      and to decide whether an SCM is held out.
    family: [] int32, a `mechanisms.Family`, or `systems.NO_KIND`. Expectations
      of the LINEAR family are computed in closed form.
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
  """The intervention do(x_j = values_j for every j in mask).

  Attributes:
    mask: [D] bool, the variables that are set.
    values: [D] values they are set to, in their own units; 0 elsewhere.
  """

  mask: jax.Array
  values: jax.Array


class Objective(NamedTuple):
  """Expected outcomes E[Y | do] of an SCM, and their range.

  Outcomes are in the SCM's internal units and signed by the goal: higher is
  always better.

  Attributes:
    bank: [S, D] noise draws over which outcomes are averaged.
    baseline: [] outcome of no intervention.
    worst: [] lowest outcome over the allowed interventions.
    best: [] highest outcome over the allowed interventions.
    choice: intervention that attains `best`.
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
  """An SCM with its objective, on which a policy is trained and scored."""

  scm: SCM
  objective: Objective


class Decision(NamedTuple):
  """Action of the policy, before its conversion to an `Intervention`.

  It has one entry for each of Z action steps, each of which adds a variable.

  Attributes:
    variable: [Z] int32, index of the variable that is set; D once the policy
      has stopped adding variables.
    cell: [Z] int32 in 0 .. C - 1, index of a part of its domain; 0 and C - 1
      are the two ends, the others K equal cells between them.
    fraction: [Z] position of the value within the domain, in [0, 1].
  """

  variable: jax.Array
  cell: jax.Array
  fraction: jax.Array


class Trajectory(NamedTuple):
  """Record of one episode, as the learner consumes it.

  Attributes:
    decision: `Decision` of [T, Z] arrays.
    intervened: [T, D] bool, variables set at each step. Once the budget affords
      no set, the last intervention is repeated.
    values: [T, D] values they were set to, in the variables' own units; 0
      elsewhere.
    outcomes: [T, D] row observed after each step.
    affordable: [T, M] bool, sets that the remaining budget paid for at each
      step. Recorded because a recomputation may differ by a rounding error and
      exclude the set that was chosen.
    log_prob_variable: [T] log probability of the chosen variables.
    log_prob_cell: [T] log probability of the cells, given the variables.
    components: [T, E] rewards, in the order of `rewards.COMPONENTS`.
    expected_reward: [T] `optimization` reward of the expected outcome.
    reached: [T] `optimization` reward of the best so far after each step, see
      `config.RewardConfig.best`.
    question_key: random key of further interventions whose outcomes the learner
      predicts.
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
  reached: jax.Array
  question_key: jax.Array


class TrainingState(NamedTuple):
  """State of the training loop.

  Attributes:
    params: parameters of the network.
    reference: parameters of the reference policy of the KL penalty.
    opt_state: state of the optimizer.
    key: random key of the next update.
    step: [] int32, number of updates so far.
    dead_updates: [] int32, number of consecutive updates in which the
      advantages of every group were zero.
  """

  params: Any
  reference: Any
  opt_state: Any
  key: jax.Array
  step: jax.Array
  dead_updates: jax.Array
