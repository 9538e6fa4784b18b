"""The interface of a network, and the data that it passes on."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from acme_cbo.beliefs import exact_posterior
from acme_cbo.environments import normalization
from acme_cbo.networks import candidate_features


class Rows(NamedTuple):
  """Rows that a rollout adds to the observations.

  Attributes:
    values: [R, D] outcomes in their own units; anything in the start row.
    intervened: [R, D] bool, what was set; nothing in the start row.
    left: [R] share of the budget that is left after the row.
    start: [R] bool, True in the start row.
  """

  values: jax.Array
  intervened: jax.Array
  left: jax.Array
  start: jax.Array


class Cache(NamedTuple):
  """Keys and values of rows, an array of each for every block.

  Laid out as the products need them, so that no step copies what earlier ones
  wrote, and not as one array for all blocks: a row is then written in place.

  Attributes:
    keys: [D, W / A, rows] for each block.
    values: [D, rows, W / A] for each block.
    tried: of the rows since the observations; None in those themselves.
    evidence: of the rows since the observations, if the belief is an input.
  """

  keys: tuple[jax.Array, ...]
  values: tuple[jax.Array, ...]
  tried: candidate_features.InterventionHistory | None = None
  evidence: exact_posterior.Evidence | None = None


class Prefix(NamedTuple):
  """All that later rows need of the observational ones.

  Attributes:
    units: of each variable, with a negative scale where it falls as the target
      improves.
    cache: keys and values of the N rows.
    seen: of the same rows, for the candidates.
    believed: state of the exact belief after them, if it is an input.
  """

  units: normalization.Normalization
  cache: Cache
  seen: candidate_features.RowFeatures
  believed: Any = None


class Encoding(NamedTuple):
  """What is known after a row.

  Attributes:
    tokens: [D, W] of the variables.
    parent_logits: [D] log odds that a variable is a parent of the target: the
      learned belief.
    known: [R] bool, which rows since the observations it knows of.
    tried: all of them.
  """

  tokens: jax.Array
  parent_logits: jax.Array
  known: jax.Array
  tried: candidate_features.InterventionHistory


class ActionHeadOutput(NamedTuple):
  """What the network says to what is chosen already.

  Attributes:
    joint_logits: [D, C] to add each variable at each cell, before masking.
    none_logit: [] to add none.
    outcome_logits: [D, C] logit of the `optimization` reward that what is
      chosen and one variable at one cell are predicted to earn together.
    none_outcome: [] the same of what is chosen alone.
  """

  joint_logits: jax.Array
  none_logit: jax.Array
  outcome_logits: jax.Array
  none_outcome: jax.Array

  @property
  def logits(self) -> tuple[jax.Array, jax.Array]:
    """Those of the choice, as `action_distribution.choice` takes them."""
    return self.joint_logits, self.none_logit


class Network(NamedTuple):
  """Pure functions of one set of parameters.

  Attributes:
    init: (key, problem, observations, rows) -> params.
    prefix: (params, problem, observations [N, D]) -> Prefix.
    append: (params, problem, prefix, cache, position, row) -> (Encoding,
      Cache): `row` is a `Rows` of R = 1, `cache` has room for the row
      `position`.
    full: (params, problem, prefix, rows) -> Encoding after each of R rows: with
      a leading axis R, but for what `EVERY_ROW` says is the same for all.
    turn: (params, problem, prefix, encoding, partial) -> Turn.
    predict: likewise -> its `none_outcome`, for a fraction of the work.
    empty_cache: (num_rows, num_variables) -> Cache of zeros.
  """

  init: Callable[..., Any]
  prefix: Callable[..., Prefix]
  append: Callable[..., tuple[Encoding, Cache]]
  full: Callable[..., Encoding]
  turn: Callable[..., ActionHeadOutput]
  predict: Callable[..., jax.Array]
  empty_cache: Callable[[int, int], Cache]


# The axes of R rows in what `Network.full` returns, for `jax.vmap`.
EVERY_ROW: Any = Encoding._make((0, 0, 0, None))


def after(encodings: Encoding, rows: Any) -> Encoding:
  """Those of some rows, of what `Network.full` returns."""
  tokens, parent_logits, known, tried = encodings
  return Encoding(tokens[rows], parent_logits[rows], known[rows], tried)
