"""Two beliefs about the parents of the target, with one interface.

`learned` is the network's head: one log odds for each variable, any number of
variables, any mechanism. `exact` is the posterior of a linear SCM with normal
noise, over whole sets of parents, for up to 8 variables.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from acme_cbo import types
from acme_cbo.beliefs import exact_posterior
from acme_cbo.environments import normalization

# A learned log odds is bounded, so that its log probability is.
_MAX_LOG_ODDS = 8.0


class Belief(NamedTuple):
  """How a belief follows an episode.

  Attributes:
    init: (problem, observations [N, D], parent_logits [D]) -> state; the logits
      are the network's, after the start row.
    update: (state, intervened [D] bool, outcome [D], parent_logits [D]) ->
      state, after one intervention.
    parents: state -> [D] probability that each variable is a parent of the
      target. What a state says is to be asked of all states of an episode at
      once, by `jax.vmap`.
    log_prob: (state, parents [D] bool) -> [] log probability that exactly these
      are its parents, in nats.
    entropy: state -> [] of the distribution of its parents, in nats.
  """

  init: Callable[..., Any]
  update: Callable[..., Any]
  parents: Callable[..., Any]
  log_prob: Callable[..., Any]
  entropy: Callable[..., Any]


def append_state(before: Any, last: Any) -> Any:
  """T states of a belief and the one after them: T + 1 states, stacked."""
  return jax.tree.map(
    lambda states, state: jnp.concatenate([states, state[None]]), before, last
  )


def unroll(
  belief: Belief,
  problem: types.Problem,
  observations: jax.Array,
  intervened: jax.Array,
  outcomes: jax.Array,
  parent_logits: jax.Array | None = None,
) -> Any:
  """The states of a belief in an episode that was recorded.

  Args:
    belief: whose states they are.
    problem: of D variables.
    observations: [N, D].
    intervened: [T, D] bool, what each step set.
    outcomes: [T, D] what was watched.
    parent_logits: [T + 1, D] of the network, if the belief is the learned one.

  Returns:
    Its T + 1 states, before each intervention and after the last, stacked.
  """

  def step(state, row):
    return belief.update(state, *row), state

  first = later = None
  if parent_logits is not None:
    first, later = parent_logits[0], parent_logits[1:]
  start = belief.init(problem, observations, first)
  last, before = jax.lax.scan(step, start, (intervened, outcomes, later))
  return append_state(before, last)


def candidates(problem: types.Problem) -> jax.Array:
  """The variables that could be a parent of the target: [D] bool."""
  return problem.exists & ~problem.target


class _Learned(NamedTuple):
  candidates: jax.Array
  logits: jax.Array


def learned() -> Belief:
  """The network's head, each variable on its own."""

  def init(problem, observations, parent_logits):
    del observations
    return _Learned(candidates(problem), parent_logits)

  def update(state, intervened, outcome, parent_logits):
    del intervened, outcome
    return state._replace(logits=parent_logits)

  def parents(state):
    return jnp.where(state.candidates, jax.nn.sigmoid(state.logits), 0.0)

  def log_prob(state, parents):
    logits = jnp.clip(state.logits, -_MAX_LOG_ODDS, _MAX_LOG_ODDS)
    logs = jax.nn.log_sigmoid(jnp.where(parents, logits, -logits))
    return jnp.where(state.candidates, logs, 0.0).sum()

  def entropy(state):
    logits = state.logits
    # H(p) = -log p + (1 - p) logit p.
    each = jax.nn.sigmoid(-logits) * logits - jax.nn.log_sigmoid(logits)
    return jnp.where(state.candidates, each, 0.0).sum()

  return Belief(init, update, parents, log_prob, entropy)


class _Exact(NamedTuple):
  problem: types.Problem
  units: normalization.Normalization
  evidence: exact_posterior.Evidence


def exact() -> Belief:
  """The posterior of a linear SCM with normal noise, for up to 8 variables.

  Values are in the units of `normalization.asinh_normalize`, fixed by the
  observations, so that no
  shift or scale of a variable changes the belief and no outlier breaks it. The
  state is the evidence alone; whoever asks for the posterior pays for it.
  """

  def add(state, rows, intervened):
    rows = normalization.asinh_normalize(state.units, rows)
    rows = jnp.where(state.problem.exists, rows, 0.0)
    evidence = exact_posterior.add_rows(state.evidence, rows, intervened)
    return state._replace(evidence=evidence)

  def init(problem, observations, parent_logits):
    del parent_logits
    units = normalization.fit(problem, observations)
    nothing = exact_posterior.empty_evidence(problem.exists.size)
    never = jnp.zeros(observations.shape, bool)
    return add(_Exact(problem, units, nothing), observations, never)

  def update(state, intervened, outcome, parent_logits):
    del parent_logits
    return add(state, outcome[None], intervened[None])

  def parents(state):
    target = state.problem.target
    members = exact_posterior.parent_sets(target.size)  # [D, P, D]
    holds = (members & target[:, None, None]).any(0)  # [P, D]
    return jnp.exp(log_posterior(state)) @ holds

  def log_prob(state, parents):
    target = state.problem.target
    number = exact_posterior.set_index(target[:, None] & parents)  # [D]
    number = jnp.where(target, number, 0).sum()
    return log_posterior(state)[number]

  def entropy(state):
    # What is impossible has a log probability that is finite.
    logs = log_posterior(state)
    return -(jnp.exp(logs) * logs).sum()

  return Belief(init, update, parents, log_prob, entropy)


def log_posterior(state: _Exact) -> jax.Array:
  """Of the exact belief: log probability of the target's parent sets, [P]."""
  scores = exact_posterior.log_scores(state.evidence, state.problem.exists)
  posterior = exact_posterior.log_posterior(scores)  # [D, P]
  target = state.problem.target[:, None]
  return jax.nn.log_softmax(jnp.where(target, posterior, 0.0).sum(0))


FACTORIES: dict[str, Callable[[], Belief]] = {
  'learned': learned,
  'exact': exact,
}
