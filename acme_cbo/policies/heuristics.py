"""Heuristic policies, and an oracle.

A policy observes a `types.Problem` and rows of data, nothing else; only the
`oracle` is constructed from the task itself.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from acme_cbo import types
from acme_cbo.policies import base
from acme_cbo.scms import intervention_sets
from acme_cbo.scms import interventions


class _Memory(NamedTuple):
  """State of a heuristic.

  Attributes:
    problem: the problem.
    correlation: [D] correlation of the signed target with each variable.
    spent: [] cost of all interventions so far.
    best: the intervention with the best outcome so far.
    outcome: [] signed target of that outcome.
  """

  problem: types.Problem
  correlation: jax.Array
  spent: jax.Array
  best: types.Intervention
  outcome: jax.Array


def _signed_correlation(problem, observations):
  """Returns the correlation of the signed target with each variable: [D]."""
  centered = observations - observations.mean(0)
  target = jnp.where(problem.target, centered, 0.0).sum(-1)
  norms = jnp.sqrt(jnp.square(centered).sum(0) * jnp.square(target).sum())
  slope = (centered * target[:, None]).sum(0) / jnp.where(norms > 0, norms, 1)
  return problem.goal * slope


def _init(problem, observations, num_interventions):
  del num_interventions
  correlation = _signed_correlation(problem, observations)
  nothing = interventions.no_intervention(correlation.size)
  return _Memory(
    problem, correlation, jnp.zeros(()), nothing, jnp.array(-jnp.inf)
  )


def _observe(memory, step, intervention, outcome):
  del step
  problem = memory.problem
  target = problem.goal * jnp.where(problem.target, outcome, 0.0).sum()
  better = target > memory.outcome
  return memory._replace(
    spent=memory.spent + intervention.mask @ problem.cost,
    best=jax.tree.map(
      lambda new, old: jnp.where(better, new, old), intervention, memory.best
    ),
    outcome=jnp.where(better, target, memory.outcome),
  )


def _better_ends(memory):
  """Returns the better end of each domain by its slope: [D], 0 or 1."""
  return (memory.correlation > 0).astype(memory.correlation.dtype)


def _set_scores(memory, sets):
  """Returns the sum of the absolute slopes of each set, -1 if empty: [M]."""
  size = jnp.where(sets, jnp.abs(memory.correlation), 0.0).sum(-1)
  return jnp.where(sets.any(-1), size, -1.0)


def random() -> base.PolicyFunctions:
  """Returns a policy that draws sets and values uniformly.

  It recommends the intervention with the best single, noisy outcome.
  """

  def choose(key, memory):
    problem = memory.problem
    key_set, key_fractions = jax.random.split(key)
    sets = intervention_sets.affordable(problem, memory.spent)
    logits = jnp.where(sets.any(-1), 0.0, -1e9)
    chosen = sets[jax.random.categorical(key_set, logits)]
    fractions = jax.random.uniform(key_fractions, problem.low.shape)
    return interventions.intervene(problem, chosen, fractions)

  return base.PolicyFunctions(
    _init, choose, _observe, lambda memory: memory.best
  )


def slope() -> base.PolicyFunctions:
  """Returns a policy that always makes one intervention, chosen by slopes.

  It sets the affordable set with the largest sum of standardized marginal
  slopes, each variable to the end of its domain that its slope suggests.
  """

  def choose(key, memory):
    del key
    sets = intervention_sets.affordable(memory.problem, memory.spent)
    chosen = sets[jnp.argmax(_set_scores(memory, sets))]
    return interventions.intervene(memory.problem, chosen, _better_ends(memory))

  def recommend(memory):
    return choose(None, memory._replace(spent=jnp.zeros_like(memory.spent)))

  return base.PolicyFunctions(_init, choose, _observe, recommend)


class _ExploreMemory(NamedTuple):
  """State of `explore_then_commit`.

  Attributes:
    common: the state that all heuristics have.
    explored: [M] bool, the sets that were intervened on.
    outcomes: [M] signed target of the first intervention on each set.
  """

  common: _Memory
  explored: jax.Array
  outcomes: jax.Array


def explore_then_commit() -> base.PolicyFunctions:
  """Returns a policy that intervenes on each set once, then on the best one.

  Values are the ends of the domains that the slopes suggest. Sets of large
  slopes come first, as there may be more sets than interventions.
  """

  def init(problem, observations, num_interventions):
    common = _init(problem, observations, num_interventions)
    explored = jnp.zeros(problem.sets.shape[0], bool)
    return _ExploreMemory(common, explored, jnp.full(explored.shape, -jnp.inf))

  def choose(key, memory):
    del key
    common = memory.common
    sets = intervention_sets.affordable(common.problem, common.spent)
    scores = _set_scores(common, sets)
    unexplored = (scores >= 0) & ~memory.explored
    index = jnp.where(
      unexplored.any(),
      jnp.argmax(jnp.where(unexplored, scores, -1.0)),
      jnp.argmax(jnp.where(scores >= 0, memory.outcomes, -jnp.inf)),
    )
    return interventions.intervene(
      common.problem, sets[index], _better_ends(common)
    )

  def observe(memory, step, intervention, outcome):
    common = memory.common
    problem = common.problem
    target = problem.goal * jnp.where(problem.target, outcome, 0.0).sum()
    # Only the first outcome counts: a set that is repeated because its outcome
    # was good by chance would bias the comparison.
    first = (problem.sets == intervention.mask).all(-1) & ~memory.explored
    return _ExploreMemory(
      _observe(common, step, intervention, outcome),
      memory.explored | first,
      jnp.where(first, target, memory.outcomes),
    )

  def recommend(memory):
    sets = memory.common.problem.sets
    index = jnp.where(
      memory.explored.any(),
      jnp.argmax(memory.outcomes),
      jnp.argmax(_set_scores(memory.common, sets)),
    )
    return interventions.intervene(
      memory.common.problem, sets[index], _better_ends(memory.common)
    )

  return base.PolicyFunctions(init, choose, observe, recommend)


# Trained policies are evaluated beside each of these.
BY_NAME: dict[str, Callable[[], base.PolicyFunctions]] = {
  'random': random,
  'slope': slope,
  'explore_then_commit': explore_then_commit,
}


def constant(intervention: types.Intervention) -> base.PolicyFunctions:
  """Returns a policy that always makes the same intervention."""
  return base.PolicyFunctions(
    init=lambda problem, observations, num_interventions: (),
    choose=lambda key, memory: intervention,
    observe=lambda memory, step, done, outcome: memory,
    recommend=lambda memory: intervention,
  )


def oracle(task: types.Task) -> base.PolicyFunctions:
  """Returns a policy that makes the best intervention of a task."""
  return constant(task.objective.choice)
