"""Policies with one signature: the trained one, heuristics, the oracle.

A policy is told a `types.Problem` and rows of data, nothing else; only the
`oracle` is made from the task itself.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from acme_cbo import types
from acme_cbo.policies import base
from acme_cbo.scms import intervention_sets
from acme_cbo.scms import interventions


class _Known(NamedTuple):
  """What the heuristics keep.

  Attributes:
    problem: what they were told.
    correlation: [D] standardised slope of the signed target on each variable.
    spent: [] of the budget.
    best: the intervention after which the target was best.
    outcome: [] the signed target then.
  """

  problem: types.Problem
  correlation: jax.Array
  spent: jax.Array
  best: types.Intervention
  outcome: jax.Array


def _signed_correlation(problem, observations):
  """Standardised slope of the signed target on each variable alone: [D]."""
  centred = observations - observations.mean(0)
  target = jnp.where(problem.target, centred, 0.0).sum(-1)
  norms = jnp.sqrt(jnp.square(centred).sum(0) * jnp.square(target).sum())
  slope = (centred * target[:, None]).sum(0) / jnp.where(norms > 0, norms, 1)
  return problem.goal * slope


def _know(problem, observations, num_interventions):
  del num_interventions
  correlation = _signed_correlation(problem, observations)
  nothing = interventions.no_intervention(correlation.size)
  return _Known(
    problem, correlation, jnp.zeros(()), nothing, jnp.array(-jnp.inf)
  )


def _remember(memory, step, intervention, outcome):
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
  """Which end of each domain its slope suggests: [D], 0 or 1."""
  return (memory.correlation > 0).astype(memory.correlation.dtype)


def _slopes(memory, sets):
  """Sum of the slopes of each set, the largest first to be tried: [M]."""
  size = jnp.where(sets, jnp.abs(memory.correlation), 0.0).sum(-1)
  return jnp.where(sets.any(-1), size, -1.0)


def random() -> base.Policy:
  """Any allowed set of variables, anywhere in their domains.

  It recommends what came out best, of one noisy outcome each.
  """

  def choose(key, memory):
    problem = memory.problem
    key_set, key_fractions = jax.random.split(key)
    sets = intervention_sets.affordable(problem, memory.spent)
    logits = jnp.where(sets.any(-1), 0.0, -1e9)
    chosen = sets[jax.random.categorical(key_set, logits)]
    fractions = jax.random.uniform(key_fractions, problem.low.shape)
    return interventions.intervene(problem, chosen, fractions)

  return base.Policy(_know, choose, _remember, lambda memory: memory.best)


def slope() -> base.Policy:
  """The set of largest standardised marginal slopes, at their better ends."""

  def choose(key, memory):
    del key
    sets = intervention_sets.affordable(memory.problem, memory.spent)
    chosen = sets[jnp.argmax(_slopes(memory, sets))]
    return interventions.intervene(memory.problem, chosen, _better_ends(memory))

  def recommend(memory):
    return choose(None, memory._replace(spent=jnp.zeros_like(memory.spent)))

  return base.Policy(_know, choose, _remember, recommend)


class _Tried(NamedTuple):
  """What `explore_then_commit` keeps.

  Attributes:
    known: as the other heuristics.
    tried: [M] bool, the sets that were set.
    outcomes: [M] the signed target when each was set for the first time.
  """

  known: _Known
  tried: jax.Array
  outcomes: jax.Array


def explore_then_commit() -> base.Policy:
  """Each set once at the ends its slopes suggest, then the best seen.

  Sets of large slopes come first, for there may be more of them than
  experiments.
  """

  def init(problem, observations, num_interventions):
    known = _know(problem, observations, num_interventions)
    tried = jnp.zeros(problem.sets.shape[0], bool)
    return _Tried(known, tried, jnp.full(tried.shape, -jnp.inf))

  def choose(key, memory):
    del key
    known = memory.known
    sets = intervention_sets.affordable(known.problem, known.spent)
    slopes = _slopes(known, sets)
    new = (slopes >= 0) & ~memory.tried
    index = jnp.where(
      new.any(),
      jnp.argmax(jnp.where(new, slopes, -1.0)),
      jnp.argmax(jnp.where(slopes >= 0, memory.outcomes, -jnp.inf)),
    )
    return interventions.intervene(
      known.problem, sets[index], _better_ends(known)
    )

  def observe(memory, step, intervention, outcome):
    known = memory.known
    problem = known.problem
    target = problem.goal * jnp.where(problem.target, outcome, 0.0).sum()
    # What is repeated because it was lucky is not lucky again.
    first = (problem.sets == intervention.mask).all(-1) & ~memory.tried
    return _Tried(
      _remember(known, step, intervention, outcome),
      memory.tried | first,
      jnp.where(first, target, memory.outcomes),
    )

  def recommend(memory):
    sets = memory.known.problem.sets
    index = jnp.where(
      memory.tried.any(),
      jnp.argmax(memory.outcomes),
      jnp.argmax(_slopes(memory.known, sets)),
    )
    return interventions.intervene(
      memory.known.problem, sets[index], _better_ends(memory.known)
    )

  return base.Policy(init, choose, observe, recommend)


def constant(intervention: types.Intervention) -> base.Policy:
  """One intervention, whatever comes of it."""
  return base.Policy(
    init=lambda problem, observations, num_interventions: (),
    choose=lambda key, memory: intervention,
    observe=lambda memory, step, done, outcome: memory,
    recommend=lambda memory: intervention,
  )


def oracle(task: types.Task) -> base.Policy:
  """The best intervention, known from the SCM itself."""
  return constant(task.objective.choice)
