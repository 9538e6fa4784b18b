"""Two kinds of belief about the parents of the target, with one interface.

`learned` is the network's head: independent log odds for each variable, for any
number of variables and any mechanism. `exact` is the posterior over parent sets
of a linear SCM with normal noise, for up to 8 variables.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from acme_cbo import types
from acme_cbo.beliefs import exact_posterior
from acme_cbo.environments import normalization

# Bound of the learned log odds, so that log probabilities are bounded too.
_MAX_LOG_ODDS = 8.0


class Belief(NamedTuple):
  """Functions of a belief that is updated along an episode.

  `parents`, `log_prob` and `entropy` may be expensive: evaluate them for all
  states of an episode at once, by `jax.vmap`, rather than after each update.

  Attributes:
    init: (problem, observations [N, D], parent_logits [D]) -> state; the logits
      are those of the network after the start row.
    update: (state, intervened [D] bool, outcome [D], parent_logits [D]) ->
      state after one intervention.
    parents: state -> [D] probability that each variable is a parent of the
      target.
    log_prob: (state, parents [D] bool) -> [] log probability that the target
      has exactly these parents, in nats.
    entropy: state -> [] entropy of the distribution over parent sets, in nats.
  """

  init: Callable[..., Any]
  update: Callable[..., Any]
  parents: Callable[..., Any]
  log_prob: Callable[..., Any]
  entropy: Callable[..., Any]


def append_state(before: Any, last: Any) -> Any:
  """Appends the last state of a belief to T stacked states: T + 1 states."""
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
  """Computes the states of a belief along a recorded episode.

  Args:
    belief: the belief.
    problem: problem of D variables.
    observations: [N, D] observational rows.
    intervened: [T, D] bool, variables set at each step.
    outcomes: [T, D] observed outcomes.
    parent_logits: [T + 1, D] logits of the network; required by the learned
      belief.

  Returns:
    T + 1 stacked states, before each intervention and after the last.
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
  """Returns the variables that could be parents of the target: [D] bool."""
  return problem.exists & ~problem.target


class _LearnedState(NamedTuple):
  """State of the learned belief.

  Attributes:
    candidates: [D] bool, variables that could be parents of the target.
    logits: [D] log odds that each variable is a parent.
  """

  candidates: jax.Array
  logits: jax.Array


def learned() -> Belief:
  """Returns the belief of the network's head: independent for each variable."""

  def init(problem, observations, parent_logits):
    del observations
    return _LearnedState(candidates(problem), parent_logits)

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
    entropies = jax.nn.sigmoid(-logits) * logits - jax.nn.log_sigmoid(logits)
    return jnp.where(state.candidates, entropies, 0.0).sum()

  return Belief(init, update, parents, log_prob, entropy)


class _ExactState(NamedTuple):
  """State of the exact belief.

  Attributes:
    problem: problem of D variables.
    units: normalization fitted to the observations.
    evidence: sufficient statistics of all rows.
  """

  problem: types.Problem
  units: normalization.Normalization
  evidence: exact_posterior.Evidence


def exact() -> Belief:
  """Returns the exact posterior of a linear SCM with normal noise.

  It supports up to 8 variables. Values are normalized by
  `normalization.asinh_normalize`, fitted to the observations, so that the
  belief is invariant to shifts and scales of the variables and robust to
  outliers. A state holds sufficient statistics only; the posterior is computed
  on each call of `parents`, `log_prob` or `entropy`.
  """

  def add(state, rows, intervened):
    rows = normalization.asinh_normalize(state.units, rows)
    rows = jnp.where(state.problem.exists, rows, 0.0)
    evidence = exact_posterior.add_rows(state.evidence, rows, intervened)
    return state._replace(evidence=evidence)

  def init(problem, observations, parent_logits):
    del parent_logits
    units = normalization.fit(problem, observations)
    empty = exact_posterior.empty_evidence(problem.exists.size)
    intervened = jnp.zeros(observations.shape, bool)
    return add(_ExactState(problem, units, empty), observations, intervened)

  def update(state, intervened, outcome, parent_logits):
    del parent_logits
    return add(state, outcome[None], intervened[None])

  def parents(state):
    target = state.problem.target
    members = exact_posterior.parent_sets(target.size)  # [D, P, D]
    members_of_target = (members & target[:, None, None]).any(0)  # [P, D]
    return jnp.exp(log_posterior(state)) @ members_of_target

  def log_prob(state, parents):
    target = state.problem.target
    index = exact_posterior.set_index(target[:, None] & parents)  # [D]
    index = jnp.where(target, index, 0).sum()
    return log_posterior(state)[index]

  def entropy(state):
    # Log probabilities of impossible sets are finite, so products are 0.
    logs = log_posterior(state)
    return -(jnp.exp(logs) * logs).sum()

  return Belief(init, update, parents, log_prob, entropy)


def log_posterior(state: _ExactState) -> jax.Array:
  """Returns log probabilities of the target's parent sets, [P].

  Args:
    state: state of the exact belief.

  Returns:
    [P] log probabilities, in the order of `exact_posterior.parent_sets`.
  """
  scores = exact_posterior.log_scores(state.evidence, state.problem.exists)
  posterior = exact_posterior.log_posterior(scores)  # [D, P]
  target = state.problem.target[:, None]
  return jax.nn.log_softmax(jnp.where(target, posterior, 0.0).sum(0))


# Constructor of each kind of belief, by name.
FACTORIES: dict[str, Callable[[], Belief]] = {
  'learned': learned,
  'exact': exact,
}
