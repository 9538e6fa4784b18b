"""Components of the reward of an intervention, and their weighted sum.

Each component is a pure function, given per step and bounded. It does not
depend on the units of the variables.

To add a component, add its weight to `config.RewardConfig` and its values to
`components`.
"""

from typing import Any

import jax
import jax.numpy as jnp

from acme_cbo import types
from acme_cbo.agents.grpo import config
from acme_cbo.beliefs import belief as beliefs
from acme_cbo.scms import graphs
from acme_cbo.scms import interventions
from acme_cbo.scms import simulate

# Names of the components; the order of every array of them.
COMPONENTS = config.COMPONENTS
OPTIMIZATION = COMPONENTS.index('optimization')

# Lower bound of a potential, in bits per candidate.
_MIN_POTENTIAL = -16.0
# Number of equal regions of a domain for `exploration`.
_NUM_REGIONS = 4


def total(
  components: jax.Array, reward_config: config.RewardConfig
) -> jax.Array:
  """Returns the weighted sum over the last axis: [..., E] -> [...]."""
  return components @ jnp.array(reward_config.weights, components.dtype)


def optimization(outcome: jax.Array, objective: types.Objective) -> jax.Array:
  """Rewards an outcome by its position between the worst and the best one.

  `(E[Y | do] - worst) / (best - worst)`: 1 at the best intervention, to the
  resolution of the search for it (see `objective.objective`).

  Args:
    outcome: [] outcome, signed by the goal and in internal units: expected,
      from `simulate.expected_outcome`, or sampled.
    objective: objective of the same SCM.

  Returns:
    [] reward, in [0, 1] for an expected outcome; noise can move that of a
    sampled outcome beyond.
  """
  return (outcome - objective.worst) / (objective.best - objective.worst)


def log_posterior(log_prob: jax.Array, candidates: jax.Array) -> jax.Array:
  """Computes `log2 P(true parents) / number of candidates`, at least -16.

  Potential of `structure`: 0 if the belief is certain of the truth, -1 if it is
  one half for every candidate. It rewards being right: certainty of a wrong set
  of parents costs.

  Args:
    log_prob: [] log probability of the true parents under the belief, in nats.
    candidates: [D] bool, variables that could be parents.

  Returns:
    [] potential in [-16, 0].
  """
  return jnp.maximum(_bits_per_candidate(log_prob, candidates), _MIN_POTENTIAL)


def certainty(entropy: jax.Array, candidates: jax.Array) -> jax.Array:
  """Computes `-H(parents) / number of candidates`, in bits.

  Potential of `structure`: 0 for certainty of any set of parents, -1 for a
  belief of one half for every candidate. It does not need the truth, and
  rewards wrong certainty too.

  Args:
    entropy: [] entropy of the belief over sets of parents, in nats.
    candidates: [D] bool, variables that could be parents.

  Returns:
    [] potential in [-1, 0].
  """
  return _bits_per_candidate(-entropy, candidates)


def structure(before: jax.Array, after: jax.Array) -> jax.Array:
  """Rewards the gain in a potential.

  The gains telescope: going back and forth earns nothing, and an episode of any
  length earns at most minus its first potential. A total of 1 is the way from a
  belief of one half everywhere to certainty.

  Args:
    before: [] potential before the intervention.
    after: [] potential after the intervention.

  Returns:
    [] reward.
  """
  return after - before


def parent(probability: jax.Array, intervened: jax.Array) -> jax.Array:
  """Rewards interventions on parents of the target.

  Args:
    probability: [D] probability that a variable is a parent of the target: the
      belief before the intervention, or the truth.
    intervened: [D] bool, variables of the intervention.

  Returns:
    [] mean probability over these variables, in [0, 1].
  """
  summed = jnp.where(intervened, probability, 0.0).sum()
  return summed / jnp.maximum(intervened.sum(), 1)


def exploration(intervened: jax.Array, fractions: jax.Array) -> jax.Array:
  """Rewards new variables and new regions of their domains.

  `(2^-n_variable + 2^-n_region) / 2` with the numbers of earlier steps that
  set the same variable, and the same quarter of its domain. Every variable
  earns at most 5 in an episode of any length. If several variables are set
  together, the reward is their mean.

  Args:
    intervened: [T, D] bool, variables of each intervention.
    fractions: [T, D] position in the domain of each variable.

  Returns:
    [T] rewards in [0, 1].
  """
  region = jnp.minimum(
    (fractions * _NUM_REGIONS).astype(jnp.int32), _NUM_REGIONS - 1
  )
  num_steps = intervened.shape[0]
  earlier = jnp.tri(num_steps, k=-1, dtype=bool)[:, :, None]
  same_variable = earlier & intervened[None]  # [T, T, D]
  same_region = same_variable & (region[:, None] == region[None])
  visits = jnp.stack([same_variable.sum(1), same_region.sum(1)])
  per_variable = jnp.exp2(-visits.astype(fractions.dtype)).mean(0)  # [T, D]
  number = jnp.maximum(intervened.sum(1), 1)
  return jnp.where(intervened, per_variable, 0.0).sum(1) / number


def _bits_per_candidate(nats, candidates):
  return nats / (jnp.log(2.0) * jnp.maximum(candidates.sum(), 1))


def potential(
  task: types.Task,
  reward_config: config.RewardConfig,
  belief: beliefs.Belief,
  state: Any,
) -> jax.Array:
  """Returns the potential of `structure` in a state of the belief: []."""
  candidates = beliefs.candidates(task.scm.problem)
  if reward_config.potential == 'entropy':
    return certainty(belief.entropy(state), candidates)
  log_prob = belief.log_prob(state, graphs.target_parents(task.scm))
  return log_posterior(log_prob, candidates)


def expected_outcomes(
  task: types.Task, intervention: types.Intervention
) -> jax.Array:
  """Returns `simulate.expected_outcome` of each of T interventions: [T]."""
  bank = task.objective.bank
  return jax.vmap(lambda one: simulate.expected_outcome(task.scm, bank, one))(
    intervention
  )


def components(
  task: types.Task,
  reward_config: config.RewardConfig,
  belief: beliefs.Belief,
  belief_states: Any,
  intervention: types.Intervention,
  outcomes: jax.Array,
  expected: jax.Array,
) -> jax.Array:
  """Computes the reward components of an episode, all steps at once.

  Args:
    task: the SCM and its objective.
    reward_config: variants of the components.
    belief: functions of the belief.
    belief_states: T + 1 states of the belief, before each intervention and
      after the last one.
    intervention: [T, D] interventions.
    outcomes: [T, D] observed outcomes.
    expected: [T] E[Y | do] of each, see `simulate.expected_outcome`.

  Returns:
    [T, E] components, in the order of `COMPONENTS`.
  """
  scm, objective = task

  def evaluate(state):
    """Returns the potential, and the probability of each parent."""
    value = potential(task, reward_config, belief, state)
    if reward_config.parents == 'truth':
      return value, graphs.target_parents(scm).astype(value.dtype)
    return value, belief.parents(state)

  # [T + 1], [T + 1, D]
  potentials, probability = jax.vmap(evaluate)(belief_states)
  if reward_config.outcome == 'sampled':
    outcome = simulate.sampled_outcome(scm, outcomes)
  else:
    outcome = expected
  values = {
    'optimization': optimization(outcome, objective),
    'structure': structure(potentials[:-1], potentials[1:]),
    'parent': jax.vmap(parent)(probability[:-1], intervention.mask),
    'exploration': exploration(
      intervention.mask, interventions.to_fractions(scm.problem, intervention)
    ),
  }
  return jnp.stack([values[name] for name in COMPONENTS], -1)
