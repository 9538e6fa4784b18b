"""The acting core: how a network begins, chooses, observes and recommends.

The actor scans it over the steps of an episode; host programs call it step by
step. Only this module turns outputs of a network into interventions.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

from acme_cbo import types
from acme_cbo.beliefs import belief as beliefs
from acme_cbo.networks import action_distribution
from acme_cbo.networks import base
from acme_cbo.networks import outcome_distribution
from acme_cbo.networks import tokens
from acme_cbo.scms import intervention_sets
from acme_cbo.scms import interventions

# Deviations of the difference of two equal outcomes that are unlikely.
_UNLIKELY = 2.0
# Quantile of chi squared that bounds the noise of replicates from above. A
# larger one, of .05, believes more outcomes that agree by chance.
_LOW_QUANTILE = 0.01
# Parts of an episode, between which the best outcome may be replicated.
_NUM_PARTS = 4


class State(NamedTuple):
  """State of one episode after its latest row.

  Attributes:
    encoding: network state after the latest row.
    cache: keys and values of the rows since the observations.
    belief_states: {kind of belief: its state}.
    spent: [] cost of all interventions so far.
  """

  encoding: base.Encoding
  cache: base.Cache
  belief_states: dict[str, Any]
  spent: jax.Array


class Choice(NamedTuple):
  """One decision of the network.

  Attributes:
    decision: `Decision` of [Z] arrays.
    intervention: the `Intervention` that the decision stands for.
    affordable: [M] bool, the sets that the rest of the budget pays for.
    log_prob_variable: [] log probability of the variables.
    log_prob_cell: [] log probability of the cells, given the variables.
  """

  decision: types.Decision
  intervention: types.Intervention
  affordable: jax.Array
  log_prob_variable: jax.Array
  log_prob_cell: jax.Array


class History(NamedTuple):
  """Interventions of one episode and their outcomes, for a recommendation.

  Attributes:
    interventions: T of them; only the first `length` were made.
    outcomes: [T] signed target after each, in deviations of the observations.
    length: [] int32, number of interventions made so far.
  """

  interventions: types.Intervention
  outcomes: jax.Array
  length: jax.Array

  @property
  def made(self) -> jax.Array:
    """Whether each of the interventions was made: [T] bool."""
    return jnp.arange(self.outcomes.size) < self.length


@dataclasses.dataclass(frozen=True)
class NetworkPolicy:
  """Decisions of a network on one problem.

  Attributes:
    network: functions of the network.
    params: parameters of the network.
    problem: the problem to act on.
    prefix: encoded observations; the rollouts of a group share them.
    num_interventions: T, number of interventions of the episode.
    max_set_size: Z, number of variables that one intervention sets at most.
    beliefs: {kind: `Belief`} that is updated after every row.
  """

  network: base.Network
  params: Any
  problem: types.Problem
  prefix: base.Prefix
  num_interventions: int | jax.Array
  max_set_size: int
  beliefs: Mapping[str, beliefs.Belief]

  def begin(self, observations: jax.Array) -> State:
    """Returns the state before the first choice.

    `num_interventions` has to be an int here: it is the size of the cache.

    Args:
      observations: [N, D] rows that `prefix` encodes.
    """
    num_variables = self.problem.low.shape[-1]
    num_rows = int(self.num_interventions) + 1
    empty = self.network.empty_cache(num_rows, num_variables)
    encoding, cache = self._append(empty, 0, tokens.start_row(num_variables))
    return State(
      encoding,
      cache,
      {
        kind: belief.init(self.problem, observations, encoding.parent_logits)
        for kind, belief in self.beliefs.items()
      },
      jnp.zeros(()),
    )

  def choose(
    self, keys: Sequence[jax.Array] | jax.Array, state: State, pick: Callable
  ) -> Choice:
    """Returns a decision among the sets that the rest of the budget pays for.

    Where it pays for none, the decision means nothing: the episode is over,
    see `intervention_sets.is_exhausted`.

    Args:
      keys: Z keys, one for each action step; consumed.
      state: state of the episode.
      pick: `action_distribution.sample` or `action_distribution.mode`.
    """
    sets = intervention_sets.affordable(self.problem, state.spent)
    return self._decide(keys, state, sets, pick)

  def observe(
    self,
    state: State,
    step: jax.Array,
    intervention: types.Intervention,
    outcome: jax.Array,
  ) -> State:
    """Returns the state after an intervention.

    Args:
      state: state before the intervention.
      step: number of the intervention, from 0.
      intervention: the one that was made, chosen by the policy or not.
      outcome: [D] its outcome.
    """
    spent = state.spent + intervention.mask @ self.problem.cost
    left = tokens.budget_left(
      self.problem, spent, 1 - (step + 1) / self.num_interventions
    )
    row = tokens.outcome_row(intervention.mask, outcome, left)
    encoding, cache = self._append(state.cache, step + 1, row)
    return State(
      encoding,
      cache,
      {
        kind: belief.update(
          state.belief_states[kind],
          intervention.mask,
          outcome,
          encoding.parent_logits,
        )
        for kind, belief in self.beliefs.items()
      },
      spent,
    )

  def best_made(self, state: State, history: History) -> types.Intervention:
    """Returns the intervention of the best predicted outcome among those made.

    Before the first one it sets no variable.

    Args:
      state: state of the episode after its latest row.
      history: interventions of the episode, all of them allowed.
    """
    predicted = outcome_distribution.mean(
      self.predict(state, history.interventions).expected
    )
    best = jnp.argmax(jnp.where(history.made, predicted, -jnp.inf))
    return jax.tree.map(lambda leaf: leaf[best], history.interventions)

  def recommend(self, state: State, history: History) -> types.Intervention:
    """Returns the intervention of the best predicted outcome among those made.

    An intervention does not count if the problem does not allow it, or if its
    observed outcome was so much worse than another one that the noise of that
    is unlikely to explain the difference, see `_noise`: where replicates agree,
    the best outcome is recommended. Where none counts, such as before the first
    one, the most probable decision is returned.

    Args:
      state: state of the episode after its latest row.
      history: interventions of the episode, with their outcomes.
    """
    problem = self.problem
    keys = [None] * self.max_set_size
    mode = self._decide(keys, state, problem.sets, action_distribution.mode)
    candidates = jax.tree.map(
      lambda made, new: jnp.concatenate([made, new[None]]),
      history.interventions,
      mode.intervention,
    )
    predicted = outcome_distribution.mean(
      self.predict(state, candidates).expected
    )
    made = history.made & self._allows(history.interventions)
    at_least = history.outcomes - _UNLIKELY * jnp.sqrt(2) * self._noise(history)
    least = jnp.max(at_least, where=made, initial=-jnp.inf)
    eligible = jnp.append(made & (history.outcomes >= least), ~made.any())
    best = jnp.argmax(jnp.where(eligible, predicted, -jnp.inf))
    return jax.tree.map(lambda leaf: leaf[best], candidates)

  def predict(
    self, state: State, asked: types.Intervention
  ) -> outcome_distribution.OutcomeDistribution:
    """Predicts the target under R interventions, allowed or not.

    Args:
      state: state of the episode after its latest row.
      asked: the interventions.

    Returns:
      The distributions, with a leading axis R.
    """
    partials = action_distribution.of_intervention(self.problem, asked)
    return jax.vmap(self.network.predict, (None, None, None, None, 0))(
      self.params, self.problem, self.prefix, state.encoding, partials
    )

  def replicate(
    self, state: State, history: History
  ) -> tuple[jax.Array, types.Intervention]:
    """Returns whether to replicate the best outcome, and its intervention.

    It is time after each quarter of the episode, if the set of variables has no
    replicates yet, and two interventions were made to choose from. Replicates
    tell `recommend` the noise, which the network does not know.

    Args:
      state: state of the episode after its latest row.
      history: interventions of the episode, with their outcomes.
    """
    made = history.made & self._allows(history.interventions)
    best = jnp.argmax(jnp.where(made, history.outcomes, -jnp.inf))
    intervention = jax.tree.map(lambda leaf: leaf[best], history.interventions)
    sets = intervention_sets.affordable(self.problem, state.spent)
    is_affordable = intervention_sets.may_stop(sets, intervention.mask)
    number, _ = self._replicates(history)
    quarter = jnp.ceil(self.num_interventions / _NUM_PARTS)
    is_time = (history.length % quarter == 0) & (history.length > 1)
    is_new = made[best] & (number[best] == 0)
    return is_time & is_affordable & is_new, intervention

  def _noise(self, history: History) -> jax.Array:
    """Returns an upper bound of the noise of each outcome: [T] deviations.

    It is that of the replicates on the same variables; and no more than the
    target's deviation in the records, to which its noise contributes.
    """
    number, squares = self._replicates(history)
    quantiles = 2 * special.gammaincinv(
      np.arange(1, history.outcomes.size + 1) / 2, _LOW_QUANTILE
    )
    bound = jnp.sqrt(squares / jnp.asarray(quantiles, jnp.float32)[number - 1])
    of_records = jax.lax.rsqrt(self.problem.samples)
    return jnp.where(number > 0, jnp.minimum(bound, of_records), of_records)

  def _replicates(self, history: History) -> tuple[jax.Array, jax.Array]:
    """Counts the replicates among interventions on the same variables.

    Args:
      history: interventions of the episode, with their outcomes.

    Returns:
      [T] degrees of freedom and [T] sums of squares, within replicates, of all
      interventions on the variables of each.
    """
    mask, values = history.interventions
    made = history.made
    same_set = (mask[:, None] == mask).all(-1) & made[:, None] & made
    is_near = abs(values[:, None] - values) <= self._rounding
    same = same_set & (is_near | ~mask).all(-1)
    number = jnp.maximum(same.sum(-1), 1)
    differences = history.outcomes[:, None] - history.outcomes
    # Summed over the replicates of a point, these are its degrees of freedom
    # and its sum of squares.
    freedom = 1 - 1 / number
    squares = jnp.sum(differences**2, -1, where=same) / (2 * number)
    return (
      jnp.round(same_set @ freedom).astype(jnp.int32),
      same_set @ squares,
    )

  def empty_history(self) -> History:
    """Returns the history of an episode without interventions.

    `num_interventions` has to be an int here.
    """
    size = int(self.num_interventions)
    nothing = interventions.no_intervention(self.problem.low.shape[-1])
    room = jax.tree.map(
      lambda leaf: jnp.zeros((size, *leaf.shape), leaf.dtype), nothing
    )
    return History(room, jnp.zeros(size), jnp.int32(0))

  def extend(
    self,
    history: History,
    step: jax.Array,
    intervention: types.Intervention,
    outcome: jax.Array,
  ) -> History:
    """Returns the history after an intervention, see `observe`."""
    units = self.prefix.units
    deviations = (
      self.problem.goal * (outcome - units.location) / abs(units.scale)
    )
    target = jnp.where(self.problem.target, deviations, 0.0).sum()
    return History(
      jax.tree.map(
        lambda made, new: made.at[step].set(new),
        history.interventions,
        intervention,
      ),
      history.outcomes.at[step].set(target),
      jnp.asarray(step + 1, jnp.int32),
    )

  def _allows(self, made: types.Intervention) -> jax.Array:
    """Returns whether the problem allows each of T interventions: [T] bool."""
    problem = self.problem
    is_set = (made.mask[:, None] == problem.sets).all(-1).any(-1)
    is_inside = (made.values >= problem.low - self._rounding) & (
      made.values <= problem.high + self._rounding
    )
    return is_set & (is_inside | ~made.mask).all(-1)

  @property
  def _rounding(self) -> jax.Array:
    """Differences of values that are the same but for rounding: [D]."""
    return 1e-4 * (self.problem.high - self.problem.low)

  def _decide(self, keys, state, sets, pick) -> Choice:
    decision, log_prob_variable, log_prob_cell = action_distribution.decide(
      keys,
      lambda partial: (
        self.network.action_head(
          self.params, self.problem, self.prefix, state.encoding, partial
        ).logits
      ),
      sets,
      pick,
    )
    return Choice(
      decision,
      interventions.from_decision(self.problem, decision),
      sets.any(-1),
      log_prob_variable,
      log_prob_cell,
    )

  def _append(self, cache, position, row):
    return self.network.append(
      self.params, self.problem, self.prefix, cache, position, row
    )
