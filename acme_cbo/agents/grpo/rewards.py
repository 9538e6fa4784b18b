"""Four rewards of one intervention and their weighted sum.

Each is pure, per step and bounded, and no shift or positive scale of a
variable changes it.
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

# Bits for each candidate: as wrong as a belief can be, or nearly.
_LEAST_POTENTIAL = -16.0
# Equal parts of a domain that count as places tried by `exploration`.
_REGIONS = 4


def total(
  components: jax.Array, reward_config: config.RewardConfig
) -> jax.Array:
  """The weighted sum over the last axis, of `COMPONENTS`: [..., 4] -> [...]."""
  return components @ jnp.array(reward_config.weights, components.dtype)


def optimization(outcome: jax.Array, objective: types.Objective) -> jax.Array:
  """Normalizes an outcome by the worst and the best reachable one.

  `(E[Y | do] - worst) / (best - worst)`: 1 at the best intervention, to the
  resolution of the search for it (see `objective.objective`).

  Args:
    outcome: [] outcome, signed by the goal and in internal units: expected,
      from `simulate.expected_outcome`, or sampled.
    objective: of the same SCM.

  Returns:
    [] the reward: in [0, 1] of an expected outcome; of a sampled one as far
    beyond as the noise goes.
  """
  return (outcome - objective.worst) / (objective.best - objective.worst)


def log_posterior(log_prob: jax.Array, candidates: jax.Array) -> jax.Array:
  """`log2 P(true parents) / number of candidates`, at least -16.

  A potential of `structure`: 0 for certainty of the truth, -1 for a belief of
  one half for every candidate. It pays for being right alone: what leads to a
  wrong certainty costs.

  Args:
    log_prob: [] that the belief gives to the true parents, in nats.
    candidates: [D] bool, the variables that could be a parent.

  Returns:
    [] in [-16, 0].
  """
  return jnp.maximum(_bits_each(log_prob, candidates), _LEAST_POTENTIAL)


def certainty(entropy: jax.Array, candidates: jax.Array) -> jax.Array:
  """`-H(parents) / number of candidates`, in bits.

  A potential of `structure`: 0 for certainty, of whatever, -1 for a belief of
  one half for every candidate. It needs no truth, and pays for wrong certainty.

  Args:
    entropy: [] of the belief over sets of parents, in nats.
    candidates: [D] bool, the variables that could be a parent.

  Returns:
    [] in [-1, 0].
  """
  return _bits_each(-entropy, candidates)


def structure(before: jax.Array, after: jax.Array) -> jax.Array:
  """Gain in a potential: it telescopes, so going to and fro earns nothing.

  A total of 1 leads from a belief of one half everywhere to certainty.

  Args:
    before: [] potential before the intervention.
    after: [] after it.

  Returns:
    [] the reward; an episode of any length earns at most minus the potential
    that it starts from.
  """
  return after - before


def parent(probability: jax.Array, intervened: jax.Array) -> jax.Array:
  """Returns the probability that the variables set are parents of the target.

  Args:
    probability: [D] that a variable is a parent of the target: the belief
      before the intervention, or the truth.
    intervened: [D] bool, what was set.

  Returns:
    [] mean probability over the variables that were set, in [0, 1].
  """
  summed = jnp.where(intervened, probability, 0.0).sum()
  return summed / jnp.maximum(intervened.sum(), 1)


def exploration(intervened: jax.Array, fractions: jax.Array) -> jax.Array:
  """Halves with every earlier visit to a variable, and to the part of it.

  `(2^-n_variable + 2^-n_region) / 2` with the numbers of earlier steps that
  set the same variable, and the same quarter of its domain: every variable
  earns at most 5 in an episode, however long that is. Of several variables
  that are set together it is the mean.

  Args:
    intervened: [T, D] bool, what each step sets.
    fractions: [T, D] where in the domain of each variable.

  Returns:
    [T] rewards in [0, 1].
  """
  region = jnp.minimum((fractions * _REGIONS).astype(jnp.int32), _REGIONS - 1)
  num_steps = intervened.shape[0]
  earlier = jnp.tri(num_steps, k=-1, dtype=bool)[:, :, None]
  same_variable = earlier & intervened[None]  # [T, T, D]
  same_region = same_variable & (region[:, None] == region[None])
  visits = jnp.stack([same_variable.sum(1), same_region.sum(1)])
  each = jnp.exp2(-visits.astype(fractions.dtype)).mean(0)  # [T, D]
  number = jnp.maximum(intervened.sum(1), 1)
  return jnp.where(intervened, each, 0.0).sum(1) / number


def _bits_each(nats, candidates):
  return nats / (jnp.log(2.0) * jnp.maximum(candidates.sum(), 1))


def potential(
  task: types.Task,
  kinds: config.RewardConfig,
  belief: beliefs.Belief,
  state: Any,
) -> jax.Array:
  """Returns [] the potential of a belief state, for `structure`."""
  candidates = beliefs.candidates(task.scm.problem)
  if kinds.potential == 'entropy':
    return certainty(belief.entropy(state), candidates)
  log_prob = belief.log_prob(state, graphs.target_parents(task.scm))
  return log_posterior(log_prob, candidates)


def expected_outcomes(
  task: types.Task, intervention: types.Intervention
) -> jax.Array:
  """`simulate.expected_outcome` of each of T interventions: [T]."""
  bank = task.objective.bank
  return jax.vmap(
    lambda chosen: simulate.expected_outcome(task.scm, bank, chosen)
  )(intervention)


def components(
  task: types.Task,
  kinds: config.RewardConfig,
  belief: beliefs.Belief,
  belief_states: Any,
  intervention: types.Intervention,
  outcomes: jax.Array,
  expected: jax.Array,
) -> jax.Array:
  """The rewards of an episode. No choice depends on them: all steps at once.

  Args:
    task: the SCM and its objective.
    kinds: of the rewards.
    belief: that the states are of.
    belief_states: T + 1 belief states, before each intervention and after
      the last.
    intervention: [T, D] what each step set.
    outcomes: [T, D] what was watched.
    expected: [T] E[Y | do] of each, see `simulate.expected_outcome`.

  Returns:
    [T, 4] in the order of `COMPONENTS`.
  """
  scm, objective = task

  def known(state):
    """Returns the potential and the parent probabilities of a belief state."""
    worth = potential(task, kinds, belief, state)
    if kinds.parents == 'truth':
      return worth, graphs.target_parents(scm).astype(worth.dtype)
    return worth, belief.parents(state)

  worth, probability = jax.vmap(known)(belief_states)  # [T + 1], [T + 1, D]
  if kinds.outcome == 'sampled':
    reached = simulate.sampled_outcome(scm, outcomes)
  else:
    reached = expected
  found = {
    'optimization': optimization(reached, objective),
    'structure': structure(worth[:-1], worth[1:]),
    'parent': jax.vmap(parent)(probability[:-1], intervention.mask),
    'exploration': exploration(
      intervention.mask, interventions.to_fractions(scm.problem, intervention)
    ),
  }
  return jnp.stack([found[name] for name in COMPONENTS], -1)
