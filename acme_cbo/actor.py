"""Rollouts: the prefix once per SCM, then T cached steps in each rollout."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from acme_cbo import distributions
from acme_cbo import environment
from acme_cbo import interventions
from acme_cbo import networks
from acme_cbo import rewards
from acme_cbo import types
from acme_cbo.beliefs import belief as beliefs
from acme_cbo.scms import simulate


@dataclasses.dataclass(frozen=True)
class Horizon:
  """Size of an episode.

  Attributes:
    num_observations: N, passive rows before the first intervention.
    num_interventions: T.
  """

  num_observations: int
  num_interventions: int


def target_parents(scm: types.SCM) -> jax.Array:
  """The true parents of the target: [..., D] bool."""
  return (scm.parents & scm.problem.target[..., None]).any(-2)


def rollout(
  key: jax.Array,
  params,
  network: networks.Network,
  task: types.Task,
  prefix: networks.Prefix,
  observations: jax.Array,
  num_interventions: int,
  kinds: rewards.Kinds,
) -> types.Trajectory:
  """One sampled episode.

  Args:
    key: consumed.
    params: parameters of the network.
    network: its functions.
    task: the SCM and its objective.
    prefix: the encoded observations, shared by the group.
    observations: [N, D] themselves.
    num_interventions: T.
    kinds: of the rewards.

  Returns:
    The `Trajectory`.
  """
  scm, problem = task.scm, task.scm.problem
  num_variables = problem.low.shape[-1]
  num_turns = task.objective.given_outcome.size
  belief = beliefs.KINDS[kinds.belief]()

  def append(cache, position, row):
    return network.append(params, problem, prefix, cache, position, row)

  def act(carry, inputs):
    encoding, cache, believed, spent, before = carry
    step, key = inputs
    *key_turns, key_outcome = jax.random.split(key, num_turns + 1)
    sets = interventions.affordable(problem, spent)
    decision, *log_prob = distributions.decide(
      key_turns,
      lambda partial: (
        network.turn(params, problem, prefix, encoding, partial).logits
      ),
      sets,
      distributions.sample,
    )
    chosen = simulate.carried_out(problem, decision)
    intervention, spent = environment.paid_for(problem, spent, chosen, before)
    outcome, expected = environment.watch(
      key_outcome, scm, task.objective.bank, intervention
    )
    left = networks.budget_left(
      problem, spent, 1 - (step + 1) / num_interventions
    )
    row = networks.outcome_row(intervention.mask, outcome, left)
    new_encoding, cache = append(cache, step + 1, row)
    new_believed = belief.update(
      believed, intervention.mask, outcome, new_encoding.parent_logits
    )
    return (new_encoding, cache, new_believed, spent, intervention), (
      decision,
      intervention,
      outcome,
      expected,
      sets.any(-1),
      log_prob,
      believed,
    )

  empty = network.empty_cache(num_interventions + 1, num_variables)
  encoding, cache = append(empty, 0, networks.start_row(num_variables))
  believed = belief.init(problem, observations, encoding.parent_logits)
  nothing = simulate.no_intervention(num_variables)
  steps = jnp.arange(num_interventions)
  keys = jax.random.split(key, num_interventions)
  start = encoding, cache, believed, jnp.zeros(()), nothing
  (_, _, last, *_), history = jax.lax.scan(act, start, (steps, keys))
  decision, intervention, outcomes, expected, paid, log_prob, before = history
  return types.Trajectory(
    decision=decision,
    intervened=intervention.mask,
    values=intervention.values,
    outcomes=outcomes,
    paid=paid,
    log_prob_variable=log_prob[0],
    log_prob_cell=log_prob[1],
    components=components(
      task,
      kinds,
      belief,
      beliefs.joined(before, last),
      intervention,
      outcomes,
      expected,
    ),
    reached=rewards.optimization(expected, task.objective),
  )


def potential(
  task: types.Task, kinds: rewards.Kinds, belief: beliefs.Belief, state: Any
) -> jax.Array:
  """What a state of a belief is worth to `structure`: [], see `rewards`."""
  candidates = beliefs.candidates(task.scm.problem)
  if kinds.potential == 'entropy':
    return rewards.certainty(belief.entropy(state), candidates)
  log_prob = belief.log_prob(state, target_parents(task.scm))
  return rewards.log_posterior(log_prob, candidates)


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
  kinds: rewards.Kinds,
  belief: beliefs.Belief,
  believed: Any,
  intervention: types.Intervention,
  outcomes: jax.Array,
  expected: jax.Array,
) -> jax.Array:
  """The rewards of an episode. No choice depends on them: all steps at once.

  Args:
    task: the SCM and its objective.
    kinds: of the rewards.
    belief: that the states are of.
    believed: T + 1 states of the belief, before each intervention and after
      the last.
    intervention: [T, D] what each step set.
    outcomes: [T, D] what was watched.
    expected: [T] E[Y | do] of each, see `simulate.expected_outcome`.

  Returns:
    [T, 4] in the order of `rewards.COMPONENTS`.
  """
  scm, objective = task

  def known(state):
    """What a belief is worth, and what it says of each variable."""
    worth = potential(task, kinds, belief, state)
    if kinds.parents == 'truth':
      return worth, target_parents(scm).astype(worth.dtype)
    return worth, belief.parents(state)

  worth, probability = jax.vmap(known)(believed)  # [T + 1], [T + 1, D]
  if kinds.outcome == 'sampled':
    reached = simulate.sampled_outcome(scm, outcomes)
  else:
    reached = expected
  found = {
    'optimization': rewards.optimization(reached, objective),
    'structure': rewards.structure(worth[:-1], worth[1:]),
    'parent': jax.vmap(rewards.parent)(probability[:-1], intervention.mask),
    'exploration': rewards.exploration(
      intervention.mask, simulate.fractions(scm.problem, intervention)
    ),
  }
  return jnp.stack([found[name] for name in rewards.COMPONENTS], -1)


# What an episode is made of, causes first.
FAULTS = (
  'observation',
  'outcome',
  'logit',
  *(f'reward/{name}' for name in rewards.COMPONENTS),
)


def faults(
  observations: jax.Array, trajectories: types.Trajectory
) -> jax.Array:
  """On which tasks something is not finite.

  Args:
    observations: [B, N, D].
    trajectories: with leading axes [B, G].

  Returns:
    [len(FAULTS), B] bool.
  """
  parts = (
    observations,
    trajectories.outcomes,
    # NaN where any logit of the decision is.
    trajectories.log_prob_variable + trajectories.log_prob_cell,
    *jnp.moveaxis(trajectories.components, -1, 0),
  )
  return jnp.stack(
    [~jnp.isfinite(part).all(tuple(range(1, part.ndim))) for part in parts]
  )


def act(
  keys: jax.Array,
  params,
  network: networks.Network,
  tasks: types.Task,
  horizon: Horizon,
  num_generations: int,
  kinds: rewards.Kinds,
) -> tuple[jax.Array, types.Trajectory]:
  """A group of rollouts on every task.

  Args:
    keys: [B] of each task, consumed.
    params: parameters of the network.
    network: its functions.
    tasks: B tasks.
    horizon: N and T.
    num_generations: G.
    kinds: of the rewards.

  Returns:
    [B, N, D] observations and trajectories with leading axes [B, G].
  """

  def group(key, task):
    key_reset, key_rollout = jax.random.split(key)
    observations = environment.reset(
      key_reset, task.scm, horizon.num_observations
    )
    prefix = network.prefix(params, task.scm.problem, observations)
    keys = jax.random.split(key_rollout, num_generations)
    trajectories = jax.vmap(
      lambda k: rollout(
        k,
        params,
        network,
        task,
        prefix,
        observations,
        horizon.num_interventions,
        kinds,
      )
    )(keys)
    return observations, trajectories

  return jax.vmap(group)(keys, tasks)
