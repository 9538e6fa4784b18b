"""The trained policy."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from acme_cbo import types
from acme_cbo.beliefs import belief as beliefs
from acme_cbo.networks import action_distribution
from acme_cbo.networks import base as networks_base
from acme_cbo.networks import tokens
from acme_cbo.policies import base as policies_base
from acme_cbo.scms import intervention_sets
from acme_cbo.scms import interventions

# Deviations of the difference of two equal outcomes that are unlikely.
_UNLIKELY = 2.0


def one_of(
  candidates: Sequence[policies_base.Policy], index: jax.Array
) -> policies_base.Policy:
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

  return policies_base.Policy(
    init, choose, observe, recommend, believed, candidates[0].parents
  )


class _Episode(NamedTuple):
  """What `trained` keeps.

  `done` are `number` of T interventions and `outcomes` [T] the signed target
  after each, in deviations of the records.
  """

  problem: types.Problem
  prefix: networks_base.Prefix
  cache: networks_base.Cache
  encoding: networks_base.Encoding
  num_interventions: jax.Array
  spent: jax.Array
  done: types.Intervention
  outcomes: jax.Array
  number: jax.Array
  believed: dict[str, Any]


def trained(
  network: networks_base.Network,
  params: Any,
  kinds: Sequence[str],
  num_turns: int,
  pick: Callable[..., Any],
) -> policies_base.Policy:
  """The network's decisions.

  It recommends, of what it did, what it predicts to be best, but for what came
  out worse than the best did by more than noise is likely to make of it. Before
  it did anything it recommends its most probable decision.

  Args:
    network: its functions.
    params: its parameters.
    kinds: of `beliefs.FACTORIES`, the beliefs that are followed beside it.
    num_turns: Z, how many variables it may set at once.
    pick: `action_distribution.sample` to draw decisions as in training, so that
      different ones are tried, `action_distribution.mode` for the most
      probable ones.

  Returns:
    The policy.
  """
  followed = {kind: beliefs.FACTORIES[kind]() for kind in kinds}

  def init(problem, observations, num_interventions):
    num_variables = problem.low.shape[-1]
    prefix = network.prefix(params, problem, observations)
    empty = network.empty_cache(num_interventions + 1, num_variables)
    encoding, cache = network.append(
      params, problem, prefix, empty, 0, tokens.start_row(num_variables)
    )
    horizon = jnp.float32(num_interventions)
    believed = {
      kind: belief.init(problem, observations, encoding.parent_logits)
      for kind, belief in followed.items()
    }
    spent = jnp.zeros((), observations.dtype)
    nothing = interventions.no_intervention(num_variables)
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
    return network.action_head(
      params, memory.problem, memory.prefix, memory.encoding, partial
    )

  def decided(keys, memory, sets, pick):
    decision, *_ = action_distribution.decide(
      keys, lambda partial: turn(memory, partial).logits, sets, pick
    )
    return interventions.from_decision(memory.problem, decision)

  def choose(key, memory):
    sets = intervention_sets.affordable(memory.problem, memory.spent)
    return decided(jax.random.split(key, num_turns), memory, sets, pick)

  def recommend(memory):
    problem = memory.problem
    keys = [None] * num_turns
    best = decided(keys, memory, problem.sets, action_distribution.mode)
    every = jax.tree.map(
      lambda done, one: jnp.concatenate([done, one[None]]), memory.done, best
    )
    partials = action_distribution.PartialIntervention(
      every.mask,
      interventions.to_fractions(problem, every),
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
    left = tokens.budget_left(
      problem, spent, 1 - (step + 1) / memory.num_interventions
    )
    row = tokens.outcome_row(intervention.mask, outcome, left)
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

  return policies_base.Policy(
    init, choose, observe, recommend, lambda memory: memory.believed, parents
  )
