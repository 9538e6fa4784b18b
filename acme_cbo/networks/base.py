"""Interface of a policy network, and the data it exchanges with its callers."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from acme_cbo.beliefs import exact_posterior
from acme_cbo.environments import normalization
from acme_cbo.networks import candidate_features
from acme_cbo.networks import outcome_distribution


class Rows(NamedTuple):
  """Rows that a rollout adds to the observations.

  Attributes:
    values: [R, D] observed values in the variables' own units; ignored in the
      start row.
    intervened: [R, D] bool, True where the variable was intervened on; all
      False in the start row.
    budget_left: [R] share of the budget that is left after the row.
    start: [R] bool, True for the start row.
  """

  values: jax.Array
  intervened: jax.Array
  budget_left: jax.Array
  start: jax.Array


class Cache(NamedTuple):
  """Key-value cache: one array of keys and one of values per block.

  The layout is that of the matrix products, so that no step copies the rows of
  earlier steps. The blocks have separate arrays so that a new row is written in
  place.

  Attributes:
    keys: [D, W / A, rows] for each block.
    values: [D, rows, W / A] for each block.
    history: interventions and outcomes since the observations; None in the
      cache of the observations themselves.
    evidence: evidence of the rows since the observations, if the exact belief
      is an input of the network.
  """

  keys: tuple[jax.Array, ...]
  values: tuple[jax.Array, ...]
  history: candidate_features.InterventionHistory | None = None
  evidence: exact_posterior.Evidence | None = None


class Prefix(NamedTuple):
  """Encoding of the observations, shared by all rollouts of an SCM.

  Attributes:
    units: normalization of each variable; the scale is negative where the
      variable decreases as the target improves.
    cache: keys and values of the N observations.
    records: the observations as inputs of the candidate features.
    belief_state: state of the exact belief after the observations, if it is an
      input of the network.
  """

  units: normalization.Normalization
  cache: Cache
  records: candidate_features.Records
  belief_state: Any = None


class Encoding(NamedTuple):
  """Network state after processing one row of data.

  Attributes:
    tokens: [D, W] one token per variable.
    parent_logits: [D] log odds that each variable is a parent of the target:
      the learned belief.
    row_mask: [R] bool, True for the rows since the observations that this
      encoding may depend on.
    history: all rows since the observations.
  """

  tokens: jax.Array
  parent_logits: jax.Array
  row_mask: jax.Array
  history: candidate_features.InterventionHistory


class ActionHeadOutput(NamedTuple):
  """Logits for the next variable and value, given the partial intervention.

  Attributes:
    joint_logits: [D, C] logits of adding each variable at each cell, before
      masking.
    none_logit: [] logit of adding no variable.
    outcome_logits: [D, C] logits of the predicted `optimization` reward of the
      partial intervention extended by each variable at each cell.
    none_outcome: [] logit of the predicted reward of the partial intervention
      as it is.
  """

  joint_logits: jax.Array
  none_logit: jax.Array
  outcome_logits: jax.Array
  none_outcome: jax.Array

  @property
  def logits(self) -> tuple[jax.Array, jax.Array]:
    """Policy logits, as `action_distribution.step_distribution` takes them."""
    return self.joint_logits, self.none_logit


class Network(NamedTuple):
  """Pure functions of a policy network.

  Attributes:
    init: (key, problem, observations, rows) -> params.
    prefix: (params, problem, observations [N, D]) -> Prefix.
    append: (params, problem, prefix, cache, position, row) -> (Encoding,
      Cache): `row` is a `Rows` of R = 1, `cache` has room for the row
      `position`.
    full: (params, problem, prefix, rows) -> Encoding after each of R rows. Its
      fields have a leading axis R, except those that `ENCODING_IN_AXES` marks
      as shared by all rows.
    action_head: (params, problem, prefix, encoding, partial) ->
      ActionHeadOutput.
    predict: same arguments -> `OutcomeDistribution` of the partial intervention
      as it is.
    empty_cache: (num_rows, num_variables) -> Cache of zeros.
  """

  init: Callable[..., Any]
  prefix: Callable[..., Prefix]
  append: Callable[..., tuple[Encoding, Cache]]
  full: Callable[..., Encoding]
  action_head: Callable[..., ActionHeadOutput]
  predict: Callable[..., outcome_distribution.OutcomeDistribution]
  empty_cache: Callable[[int, int], Cache]


# `in_axes` of `jax.vmap` over the R rows in the result of `Network.full`.
ENCODING_IN_AXES: Any = Encoding._make((0, 0, 0, None))


def select_rows(encodings: Encoding, rows: Any) -> Encoding:
  """Indexes the row axis of the encodings that `Network.full` returns."""
  tokens, parent_logits, row_mask, history = encodings
  return Encoding(tokens[rows], parent_logits[rows], row_mask[rows], history)
