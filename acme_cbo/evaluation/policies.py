"""Policies with one signature: the trained one, heuristics, the oracle.

A policy is told a `types.Problem` and rows of data, nothing else; only the
`oracle` is made from the task itself.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from acme_cbo import distributions
from acme_cbo import interventions
from acme_cbo import networks
from acme_cbo import types
from acme_cbo.beliefs import belief as beliefs
from acme_cbo.scms import simulate

# Deviations of the difference of two equal outcomes that are unlikely.
_UNLIKELY = 2.0


class Policy(NamedTuple):
  """How to choose interventions.

  Attributes:
    init: (problem, observations [N, D], num_interventions T) -> memory.
    choose: (key, memory) -> `Intervention`; the key is consumed.
    observe: (memory, step, intervention, outcome [D]) -> memory, after the
      intervention of number `step`, counted from 0.
    recommend: memory -> the `Intervention` that it would make if there were no
      more to learn from.
    believed: memory -> states of the policy's beliefs; empty if it has none.
    parents: R such states, stacked -> {name of a belief: [R, D] probability
      that each variable is a parent of the target}.
  """

  init: Callable[..., Any]
  choose: Callable[..., types.Intervention]
  observe: Callable[..., Any]
  recommend: Callable[[Any], types.Intervention]
  believed: Callable[[Any], dict[str, Any]] = lambda memory: {}
  parents: Callable[[dict[str, Any]], dict[str, jax.Array]] = lambda states: {}


# Makes a policy for a task. All but the oracle ignore the task.
Factory = Callable[[types.Task], Policy]


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
  nothing = simulate.no_intervention(correlation.size)
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


def random() -> Policy:
  """Any allowed set of variables, anywhere in their domains.

  It recommends what came out best, of one noisy outcome each.
  """

  def choose(key, memory):
    problem = memory.problem
    key_set, key_fractions = jax.random.split(key)
    sets = interventions.affordable(problem, memory.spent)
    logits = jnp.where(sets.any(-1), 0.0, -1e9)
    chosen = sets[jax.random.categorical(key_set, logits)]
    fractions = jax.random.uniform(key_fractions, problem.low.shape)
    return simulate.intervene(problem, chosen, fractions)

  return Policy(_know, choose, _remember, lambda memory: memory.best)


def slope() -> Policy:
  """The set of largest standardised marginal slopes, at their better ends."""

  def choose(key, memory):
    del key
    sets = interventions.affordable(memory.problem, memory.spent)
    chosen = sets[jnp.argmax(_slopes(memory, sets))]
    return simulate.intervene(memory.problem, chosen, _better_ends(memory))

  def recommend(memory):
    return choose(None, memory._replace(spent=jnp.zeros_like(memory.spent)))

  return Policy(_know, choose, _remember, recommend)


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


def explore_then_commit() -> Policy:
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
    sets = interventions.affordable(known.problem, known.spent)
    slopes = _slopes(known, sets)
    new = (slopes >= 0) & ~memory.tried
    index = jnp.where(
      new.any(),
      jnp.argmax(jnp.where(new, slopes, -1.0)),
      jnp.argmax(jnp.where(slopes >= 0, memory.outcomes, -jnp.inf)),
    )
    return simulate.intervene(known.problem, sets[index], _better_ends(known))

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
    return simulate.intervene(
      memory.known.problem, sets[index], _better_ends(memory.known)
    )

  return Policy(init, choose, observe, recommend)


def constant(intervention: types.Intervention) -> Policy:
  """One intervention, whatever comes of it."""
  return Policy(
    init=lambda problem, observations, num_interventions: (),
    choose=lambda key, memory: intervention,
    observe=lambda memory, step, done, outcome: memory,
    recommend=lambda memory: intervention,
  )


def oracle(task: types.Task) -> Policy:
  """The best intervention, known from the SCM itself."""
  return constant(task.objective.choice)


def one_of(candidates: Sequence[Policy], index: jax.Array) -> Policy:
  """The policy of a number that may be traced: one program for all of them.

  Args:
    candidates: policies whose beliefs, if they have any, are of one kind.
    index: [] int32.

  Returns:
    What acts as `candidates[index]`.
  """

  def pick(choices):
    return jax.tree.map(lambda *leaves: jnp.stack(leaves)[index], *choices)

  def init(problem, observations, num_interventions):
    return [
      p.init(problem, observations, num_interventions) for p in candidates
    ]

  def choose(key, memories):
    return pick(
      [p.choose(key, m) for p, m in zip(candidates, memories, strict=True)]
    )

  def recommend(memories):
    return pick(
      [p.recommend(m) for p, m in zip(candidates, memories, strict=True)]
    )

  def observe(memories, step, intervention, outcome):
    return [
      p.observe(m, step, intervention, outcome)
      for p, m in zip(candidates, memories, strict=True)
    ]

  def believed(memories):
    return pick(
      [p.believed(m) for p, m in zip(candidates, memories, strict=True)]
    )

  return Policy(
    init, choose, observe, recommend, believed, candidates[0].parents
  )


class _Episode(NamedTuple):
  """What `trained` keeps.

  `done` are `number` of T interventions and `outcomes` [T] the signed target
  after each, in deviations of the records.
  """

  problem: types.Problem
  prefix: networks.Prefix
  cache: networks.Cache
  encoding: networks.Encoding
  num_interventions: jax.Array
  spent: jax.Array
  done: types.Intervention
  outcomes: jax.Array
  number: jax.Array
  believed: dict[str, Any]


def trained(
  network: networks.Network,
  params: Any,
  kinds: Sequence[str],
  num_turns: int,
  pick: Callable[..., Any],
) -> Policy:
  """The network's decisions.

  It recommends, of what it did, what it predicts to be best, but for what came
  out worse than the best did by more than noise is likely to make of it. Before
  it did anything it recommends its most probable decision.

  Args:
    network: its functions.
    params: its parameters.
    kinds: of `beliefs.KINDS`, the beliefs that are followed beside it.
    num_turns: Z, how many variables it may set at once.
    pick: `distributions.sample` to draw decisions as in training, so that
      different ones are tried, `distributions.mode` for the most probable ones.

  Returns:
    The policy.
  """
  followed = {kind: beliefs.KINDS[kind]() for kind in kinds}

  def init(problem, observations, num_interventions):
    num_variables = problem.low.shape[-1]
    prefix = network.prefix(params, problem, observations)
    empty = network.empty_cache(num_interventions + 1, num_variables)
    encoding, cache = network.append(
      params, problem, prefix, empty, 0, networks.start_row(num_variables)
    )
    horizon = jnp.float32(num_interventions)
    believed = {
      kind: belief.init(problem, observations, encoding.parent_logits)
      for kind, belief in followed.items()
    }
    spent = jnp.zeros((), observations.dtype)
    nothing = simulate.no_intervention(num_variables)
    room = jax.tree.map(
      lambda leaf: jnp.zeros((num_interventions, *leaf.shape), leaf.dtype),
      nothing,
    )
    return _Episode(
      problem,
      prefix,
      cache,
      encoding,
      horizon,
      spent,
      room,
      jnp.zeros(num_interventions),
      jnp.int32(0),
      believed,
    )

  def turn(memory, partial):
    return network.turn(
      params, memory.problem, memory.prefix, memory.encoding, partial
    )

  def decided(keys, memory, sets, pick):
    decision, *_ = distributions.decide(
      keys, lambda partial: turn(memory, partial).logits, sets, pick
    )
    return simulate.carried_out(memory.problem, decision)

  def choose(key, memory):
    sets = interventions.affordable(memory.problem, memory.spent)
    return decided(jax.random.split(key, num_turns), memory, sets, pick)

  def recommend(memory):
    problem = memory.problem
    keys = [None] * num_turns
    best = decided(keys, memory, problem.sets, distributions.mode)
    every = jax.tree.map(
      lambda done, one: jnp.concatenate([done, one[None]]), memory.done, best
    )
    partials = distributions.Partial(
      every.mask,
      simulate.fractions(problem, every),
      jnp.zeros(len(every.mask), bool),
    )
    predicted = jax.vmap(network.predict, (None, None, None, None, 0))(
      params, problem, memory.prefix, memory.encoding, partials
    )
    did = jnp.arange(memory.outcomes.size) < memory.number
    least = jnp.max(memory.outcomes, where=did, initial=-jnp.inf)
    # The target's deviation in the records is no less than that of its noise.
    least -= _UNLIKELY * jnp.sqrt(2 / problem.samples)
    candidates = jnp.append(
      did & (memory.outcomes >= least), memory.number == 0
    )
    place = jnp.argmax(jnp.where(candidates, predicted, -jnp.inf))
    return jax.tree.map(lambda leaf: leaf[place], every)

  def observe(memory, step, intervention, outcome):
    problem = memory.problem
    spent = memory.spent + intervention.mask @ problem.cost
    left = networks.budget_left(
      problem, spent, 1 - (step + 1) / memory.num_interventions
    )
    row = networks.outcome_row(intervention.mask, outcome, left)
    encoding, cache = network.append(
      params, problem, memory.prefix, memory.cache, step + 1, row
    )
    believed = {
      kind: belief.update(
        memory.believed[kind],
        intervention.mask,
        outcome,
        encoding.parent_logits,
      )
      for kind, belief in followed.items()
    }
    units = memory.prefix.units
    deviations = problem.goal * (outcome - units.location) / abs(units.scale)
    target = jnp.where(problem.target, deviations, 0.0).sum()
    return memory._replace(
      encoding=encoding,
      cache=cache,
      outcomes=memory.outcomes.at[step].set(target),
      spent=spent,
      done=jax.tree.map(
        lambda done, one: done.at[step].set(one), memory.done, intervention
      ),
      number=jnp.asarray(step + 1, jnp.int32),
      believed=believed,
    )

  def parents(believed):
    return {
      kind: jax.vmap(belief.parents)(believed[kind])
      for kind, belief in followed.items()
    }

  return Policy(
    init, choose, observe, recommend, lambda memory: memory.believed, parents
  )
