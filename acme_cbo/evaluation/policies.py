"""Policies with one signature: the trained one, heuristics, the oracle.

A policy is told a `types.Problem` and rows of data, nothing else; only the
`oracle` is made from the task itself.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from acme_cbo import distributions
from acme_cbo import networks
from acme_cbo import types
from acme_cbo.beliefs import belief as beliefs
from acme_cbo.scms import simulate


def _no_recommendation(memory: Any) -> types.Intervention:
  raise NotImplementedError(f'a policy with {type(memory)} recommends nothing')


class Policy(NamedTuple):
  """How to choose interventions.

  Attributes:
    init: (problem, observations [N, D], num_interventions T) -> memory.
    choose: (key, memory) -> `Intervention`; the key is consumed.
    observe: (memory, step, intervention, outcome [D]) -> memory, after the
      intervention of number `step`, counted from 0.
    believed: memory -> states of the policy's beliefs; empty if it has none.
    parents: R such states, stacked -> {name of a belief: [R, D] probability
      that each variable is a parent of the target}.
    recommend: memory -> `Intervention`, what it would set if no more
      experiments came.
  """

  init: Callable[..., Any]
  choose: Callable[..., types.Intervention]
  observe: Callable[..., Any]
  believed: Callable[[Any], dict[str, Any]] = lambda memory: {}
  parents: Callable[[dict[str, Any]], dict[str, jax.Array]] = lambda states: {}
  recommend: Callable[[Any], types.Intervention] = _no_recommendation


# Makes a policy for a task. All but the oracle ignore the task.
Factory = Callable[[types.Task], Policy]


class _Known(NamedTuple):
  problem: types.Problem
  correlation: jax.Array


def _signed_correlation(problem, observations):
  """Standardised slope of the signed target on each variable alone: [D]."""
  centred = observations - observations.mean(0)
  target = jnp.where(problem.target, centred, 0.0).sum(-1)
  norms = jnp.sqrt(jnp.square(centred).sum(0) * jnp.square(target).sum())
  slope = (centred * target[:, None]).sum(0) / jnp.where(norms > 0, norms, 1)
  return problem.goal * slope


def _know(problem, observations, num_interventions):
  del num_interventions
  return _Known(problem, _signed_correlation(problem, observations))


def _forget(memory, step, intervention, outcome):
  del step, intervention, outcome
  return memory


def random() -> Policy:
  """Any settable variable, anywhere in its domain."""

  def choose(key, memory):
    key_variable, key_fraction = jax.random.split(key)
    logits = jnp.where(memory.problem.settable, 0.0, -1e9)
    variable = jax.random.categorical(key_variable, logits)
    fraction = jax.random.uniform(key_fraction)
    return simulate.intervene_on(memory.problem, variable, fraction)

  return Policy(_know, choose, _forget)


def slope() -> Policy:
  """The variable of largest standardised marginal slope, at its better end."""

  def choose(key, memory):
    del key
    size = jnp.where(memory.problem.settable, jnp.abs(memory.correlation), -1.0)
    variable = jnp.argmax(size)
    end = (memory.correlation[variable] > 0).astype(jnp.float32)
    return simulate.intervene_on(memory.problem, variable, end)

  return Policy(_know, choose, _forget)


class _Tried(NamedTuple):
  known: _Known
  tried: jax.Array
  outcome: jax.Array


def explore_then_commit() -> Policy:
  """Each variable once at the end its slope suggests, then the best seen."""

  def init(problem, observations, num_interventions):
    known = _know(problem, observations, num_interventions)
    return _Tried(
      known,
      tried=~problem.settable,
      outcome=jnp.full(problem.low.shape, -jnp.inf),
    )

  def choose(key, memory):
    del key
    known = memory.known
    size = jnp.where(memory.tried, -1.0, jnp.abs(known.correlation))
    variable = jnp.where(
      memory.tried.all(), jnp.argmax(memory.outcome), jnp.argmax(size)
    )
    end = (known.correlation[variable] > 0).astype(jnp.float32)
    return simulate.intervene_on(known.problem, variable, end)

  def observe(memory, step, intervention, outcome):
    del step
    problem = memory.known.problem
    target = jnp.where(problem.target, outcome, 0.0).sum() * problem.goal
    first = intervention.mask & ~memory.tried
    return memory._replace(
      tried=memory.tried | intervention.mask,
      outcome=jnp.where(first, target, memory.outcome),
    )

  return Policy(init, choose, observe)


def oracle(task: types.Task) -> Policy:
  """The best single intervention, known from the SCM itself."""
  mask = jnp.arange(task.scm.order.size) == task.objective.best_variable
  best = types.Intervention(
    mask=mask, values=jnp.where(mask, task.objective.best_value, 0.0)
  )
  return Policy(_know, lambda key, memory: best, _forget)


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

  def observe(memories, step, intervention, outcome):
    return [
      p.observe(m, step, intervention, outcome)
      for p, m in zip(candidates, memories, strict=True)
    ]

  def believed(memories):
    return pick(
      [p.believed(m) for p, m in zip(candidates, memories, strict=True)]
    )

  return Policy(init, choose, observe, believed, candidates[0].parents)


class _Episode(NamedTuple):
  problem: types.Problem
  prefix: networks.Prefix
  cache: networks.Cache
  heads: networks.Heads
  num_interventions: jax.Array
  believed: dict[str, Any]


def trained(
  network: networks.Network, params: Any, kinds: Sequence[str]
) -> Policy:
  """The network's most probable decision.

  Args:
    network: its functions.
    params: its parameters.
    kinds: of `beliefs.KINDS`, the beliefs that are followed beside it.

  Returns:
    The greedy policy.
  """
  followed = {kind: beliefs.KINDS[kind]() for kind in kinds}

  def init(problem, observations, num_interventions):
    num_variables = problem.low.shape[-1]
    prefix = network.prefix(params, problem, observations)
    empty = network.empty_cache(num_interventions + 1, num_variables)
    heads, cache = network.append(
      params, problem, prefix, empty, 0, networks.start_row(num_variables)
    )
    horizon = jnp.float32(num_interventions)
    believed = {
      kind: belief.init(problem, observations, heads.parent_logits)
      for kind, belief in followed.items()
    }
    return _Episode(problem, prefix, cache, heads, horizon, believed)

  def choose(key, memory):
    del key
    problem = memory.problem
    log_probs = distributions.choice(
      memory.heads.joint_logits, problem.settable
    )
    decision = distributions.mode(log_probs)
    return simulate.intervene_on(problem, decision.variable, decision.fraction)

  def observe(memory, step, intervention, outcome):
    left = 1 - (step + 1) / memory.num_interventions
    row = networks.outcome_row(intervention.mask, outcome, left)
    heads, cache = network.append(
      params, memory.problem, memory.prefix, memory.cache, step + 1, row
    )
    believed = {
      kind: belief.update(
        memory.believed[kind], intervention.mask, outcome, heads.parent_logits
      )
      for kind, belief in followed.items()
    }
    return memory._replace(heads=heads, cache=cache, believed=believed)

  def parents(believed):
    return {
      kind: jax.vmap(belief.parents)(believed[kind])
      for kind, belief in followed.items()
    }

  return Policy(init, choose, observe, lambda memory: memory.believed, parents)
