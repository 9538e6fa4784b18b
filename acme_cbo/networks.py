"""Attention over variables and rows, in Haiku, with a key-value cache.

Blocks alternate attention across the variables of a row, attention across the
rows of a variable, and an MLP, each on a normalised residual stream (Lorch et
al., "Amortized Inference for Causal Structure Learning", 2022). The rows are
block-causal: observational rows see each other, a start row sees them all,
and the row of an intervention sees them and the rows before it. A row is thus
encoded once and for all, and three ways to evaluate are one function:

  prefix   the observational rows, once per SCM;
  append   one more row on top of the cache, for the actor;
  full     all rows of a rollout at once on top of the prefix, for the learner.

What is to be set is then chosen one variable after the other, from the same
encoding:

  turn     logits of every variable and value, given what is chosen already;
  predict  what that alone is predicted to earn.

Beside its encoding each of these candidates is told what was seen close to it,
see `surrogate`. Attention would have to learn to look that closely.

All are unbatched. L is the number of blocks. A heads of width W / A ask, and
share one key and one value for each token (Shazeer, "Fast Transformer
Decoding: One Write-Head is All You Need", 2019): the cache is what an actor
waits for, and it is A times as small.
"""

from collections.abc import Callable
import dataclasses
import functools
import math
from typing import Any, Literal, NamedTuple

import chex
import haiku as hk
import jax
from jax import flatten_util
import jax.numpy as jnp

from acme_cbo import distributions
from acme_cbo import surrogate
from acme_cbo import types
from acme_cbo import units as units_lib
from acme_cbo.beliefs import belief as beliefs
from acme_cbo.beliefs import exact
from acme_cbo.scms import simulate

# Hidden units of what is said of a candidate.
_HIDDEN = 32
# Standard deviation of a standard normal variable between -2 and 2.
_DEVIATION_WITHIN_TWO = 0.87962566


@dataclasses.dataclass(frozen=True)
class Architecture:
  """Size of the network.

  Attributes:
    width: W, of the residual stream.
    num_blocks: L.
    num_heads: A, divides the width.
    mlp_factor: width of an MLP's hidden layer over W.
    num_cells: K, the cells of a domain that the policy tells apart.
    belief_input: 'exact' tells each token how probable it is, by the exact
      belief, that its variable is a parent of the target; 'none' does not.
  """

  width: int
  num_blocks: int
  num_heads: int
  mlp_factor: int
  num_cells: int
  belief_input: Literal['none', 'exact']


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
  tried: surrogate.Tried | None = None
  evidence: exact.Evidence | None = None


class Prefix(NamedTuple):
  """All that later rows need of the observational ones.

  Attributes:
    units: of each variable, with a negative scale where it falls as the target
      improves.
    cache: keys and values of the N rows.
    seen: of the same rows, for the candidates.
    believed: state of the exact belief after them, if it is an input.
  """

  units: units_lib.Units
  cache: Cache
  seen: surrogate.Seen
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
  tried: surrogate.Tried


class Turn(NamedTuple):
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
    """Those of the choice, as `distributions.choice` takes them."""
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
  turn: Callable[..., Turn]
  predict: Callable[..., jax.Array]
  empty_cache: Callable[[int, int], Cache]


# The axes of R rows in what `Network.full` returns, for `jax.vmap`.
EVERY_ROW: Any = Encoding._make((0, 0, 0, None))


def after(encodings: Encoding, rows: Any) -> Encoding:
  """Those of some rows, of what `Network.full` returns."""
  tokens, parent_logits, known, tried = encodings
  return Encoding(tokens[rows], parent_logits[rows], known[rows], tried)


def start_row(num_variables: int) -> Rows:
  """The row before the first intervention: R = 1."""
  return Rows(
    values=jnp.zeros((1, num_variables)),
    intervened=jnp.zeros((1, num_variables), bool),
    left=jnp.ones(1),
    start=jnp.ones(1, bool),
  )


def outcome_row(
  intervened: jax.Array, values: jax.Array, left: jax.Array
) -> Rows:
  """The row of one intervention: R = 1.

  Args:
    intervened: [D] bool, what was set.
    values: [D] what came out.
    left: [] share of the budget left.

  Returns:
    `Rows` of length 1.
  """
  return Rows(values[None], intervened[None], left[None], jnp.zeros(1, bool))


def budget_left(
  problem: types.Problem, spent: jax.Array, share: jax.Array
) -> jax.Array:
  """Share of the budget that is left, of cost or of number: the less.

  Args:
    problem: with its budget of cost.
    spent: [] of it so far.
    share: [] of the interventions that are left.

  Returns:
    [] in [0, 1].
  """
  return jnp.minimum(share, jnp.maximum(1 - spent / problem.budget, 0))


def episode_rows(
  problem: types.Problem, intervened: jax.Array, values: jax.Array
) -> Rows:
  """All rows of an episode of T interventions.

  Args:
    problem: with its costs.
    intervened: [T, D] bool, what each step set.
    values: [T, D] what came out.

  Returns:
    `Rows` of length R = T + 1, the start row first.
  """
  num_steps, num_variables = values.shape
  spent = jnp.cumsum(intervened @ problem.cost)
  left = budget_left(
    problem, spent, 1 - jnp.arange(1, num_steps + 1) / num_steps
  )
  steps = Rows(values, intervened, left, jnp.zeros(num_steps, bool))
  return jax.tree.map(
    lambda a, b: jnp.concatenate([a, b]), start_row(num_variables), steps
  )


@functools.cache
def make(architecture: Architecture) -> Network:
  """The network of a given size, for any D, N and T.

  There is one of each size: what is compiled of it serves all parameters.
  """
  transformed = hk.multi_transform(lambda: _methods(architecture))
  prefix, append, full, turn, predict = transformed.apply

  def empty_cache(num_rows, num_variables):
    head_width = architecture.width // architecture.num_heads
    keys = jnp.zeros((num_variables, head_width, num_rows))
    values = jnp.zeros((num_variables, num_rows, head_width))
    tried = surrogate.none_tried(
      num_rows, num_variables, architecture.num_cells + 2
    )
    evidence = None
    if architecture.belief_input == 'exact':
      evidence = exact.no_evidence(num_variables)
    num_blocks = architecture.num_blocks
    return Cache((keys,) * num_blocks, (values,) * num_blocks, tried, evidence)

  # The functions draw nothing at random.
  return Network(
    init=lambda key, *args: _drawn(key, transformed.init(None, *args)),
    prefix=lambda params, *args: prefix(params, None, *args),
    append=lambda params, *args: append(params, None, *args),
    full=lambda params, *args: full(params, None, *args),
    turn=lambda params, *args: turn(params, None, *args),
    predict=lambda params, *args: predict(params, None, *args),
    empty_cache=empty_cache,
  )


def _methods(architecture):
  module = _Transformer(architecture)

  def init(problem, observations, rows):
    prefix = module.prefix(problem, observations)
    encoding = module.full(problem, prefix, rows)
    nothing = distributions.nothing_yet(observations.shape[-1])
    return module.turn(problem, prefix, after(encoding, -1), nothing)

  return init, (
    module.prefix,
    module.append,
    module.full,
    module.turn,
    module.predict,
  )


def _all_or_none(said: Any) -> Any:
  """NaN everywhere if anything is not finite.

  One logit alone could pass unseen: it was not chosen, or a belief bounds it.
  """
  leaves = jax.tree.leaves(said)
  finite = jnp.stack([jnp.isfinite(leaf).all() for leaf in leaves]).all()
  return jax.tree.map(lambda leaf: jnp.where(finite, leaf, jnp.nan), said)


class _Transformer(hk.Module):
  """The blocks and heads; parameters are shared by the three evaluations."""

  def __init__(self, architecture: Architecture):
    super().__init__(name='transformer')
    width, num_cells = architecture.width, architecture.num_cells + 2
    self._points = simulate.grid(architecture.num_cells)
    num_heads = architecture.num_heads
    self._num_heads = num_heads
    self._belief = None
    if architecture.belief_input == 'exact':
      self._belief = beliefs.exact()
    self._embedding = _linear('embedding', width)
    self._stack = [
      _Block(
        across_variables=_Attention.make(
          f'block{i}_variables', width, num_heads
        ),
        across_rows=_Attention.make(f'block{i}_rows', width, num_heads),
        mlp_norm=_norm(f'block{i}_mlp_norm'),
        mlp_in=_linear(f'block{i}_mlp_in', architecture.mlp_factor * width),
        mlp_out=_linear(f'block{i}_mlp_out', width),
      )
      for i in range(architecture.num_blocks)
    ]
    self._last_norm = _norm('last_norm')
    self._parent = _linear('parent', 1)
    self._given = _linear('given', width)
    self._after_in = _linear('after_in', width)
    self._after_out = _linear('after_out', width)
    self._candidate = _Candidate.make('candidate')
    self._none = _Candidate.make('none')
    self._outcome = _linear('outcome', num_cells)
    self._correction = _linear('correction', num_cells, scale=0.1)

  def prefix(self, problem, observations):
    chex.assert_rank(observations, 2)
    units = _turned_units(problem, observations)
    no_row = jnp.zeros(observations.shape[0])
    rows = Rows(
      observations,
      jnp.zeros(observations.shape, bool),
      no_row,
      no_row.astype(bool),
    )
    believed = parents = None
    if self._belief is not None:
      believed = self._belief.init(problem, observations, None)
      parents = self._belief.parents(believed)
    x = self._embed(problem, units, rows, parents)
    seen = self._see(problem, units, rows)
    _, (keys, values) = self._blocks(x, problem.exists, None, None, None)
    return Prefix(units, Cache(keys, values), seen, believed)

  def append(self, problem, prefix, cache, position, row):
    parents, evidence = self._believe(prefix, cache.evidence, row)
    x = self._embed(problem, prefix.units, row, parents)
    x, (keys, values) = self._blocks(
      x, problem.exists, prefix.cache, cache, position
    )
    seen = self._see(problem, prefix.units, row)
    tried = surrogate.try_out(cache.tried, position, seen, problem.samples)
    tokens, parent_logits = _all_or_none(self._heads(x[0]))
    return (
      Encoding(tokens, parent_logits, tried.seen.known, tried),
      Cache(keys, values, tried, evidence),
    )

  def full(self, problem, prefix, rows):
    nothing = exact.no_evidence(problem.exists.size)
    parents, _ = self._believe(prefix, nothing, rows)
    x = self._embed(problem, prefix.units, rows, parents)
    x, _ = self._blocks(x, problem.exists, prefix.cache, None, None)
    seen = self._see(problem, prefix.units, rows)
    room = surrogate.none_tried(
      *rows.values.shape, num_points=self._points.size
    )
    start = jnp.int32(0)
    tried = surrogate.try_out(room, start, seen, problem.samples)
    so_far = jnp.tri(rows.start.size, dtype=bool) & seen.known
    return Encoding(*self._heads(x), so_far, tried)

  def turn(self, *args):
    return _all_or_none(self._turn(*args))

  def predict(self, *args):
    # The rest of it is compiled away.
    return self._turn(*args).none_outcome

  def _turn(self, problem, prefix, encoding, partial):
    """`turn`, whatever is not finite."""
    turned = prefix.units.scale < 0
    places = jnp.where(turned, 1 - partial.fractions, partial.fractions)
    partial = partial._replace(fractions=jnp.where(partial.mask, places, 0.0))
    of_candidates, of_chosen = surrogate.told(
      prefix.seen, encoding.known, encoding.tried, self._points, partial
    )

    x = encoding.tokens
    given = self._given(
      jnp.concatenate([x, _place_features(partial.fractions)], -1)
    )
    given = jnp.where(partial.mask[:, None], given, 0.0).sum(0)
    x = x + self._after_out(jax.nn.gelu(self._after_in(x) + given))

    # The network's cells run from its own low end to its own high one.
    def turn_round(cells):
      return jnp.where(turned[:, None], cells[..., ::-1], cells)

    low, width = problem.low[:, None], (problem.high - problem.low)[:, None]
    value = units_lib.bent(prefix.units, (low + width * self._points).T).T
    value = jnp.where(problem.settable[:, None], turn_round(value), 0.0)
    place = _place_features(self._points)
    place = jnp.broadcast_to(place, (value.shape[0], *place.shape))
    of_candidates = jnp.concatenate(
      [
        of_candidates,
        place,
        value.astype(place.dtype)[..., None],
      ],
      -1,
    )
    found = self._candidate(x[:, None], of_candidates)  # [D, C, 2]
    outcome = self._outcome(x) + found[..., 0]
    sharpness, eagerness = hk.get_parameter('start', [2], init=jnp.ones)

    def start(outcome, told):
      # The policy starts from what it predicts and from what Bayesian
      # optimisation would do; the gradient of its choices leaves the
      # predictions alone, so that they stay predictions.
      improvement = told[..., surrogate.LOG_IMPROVEMENT]
      return sharpness * jax.lax.stop_gradient(outcome) + (
        eagerness * improvement
      )

    joint = start(outcome, of_candidates)
    joint += self._correction(x) + found[..., 1]

    mean = jnp.where(partial.mask[:, None], x, 0.0).sum(0)
    mean /= jnp.maximum(partial.mask.sum(), 1)
    none_outcome, none = self._none(mean, of_chosen)
    none += start(none_outcome, of_chosen)

    return Turn(
      joint_logits=turn_round(joint),
      none_logit=none,
      outcome_logits=turn_round(outcome),
      none_outcome=none_outcome,
    )

  def _see(self, problem, units, rows):
    """What is kept of rows, for the candidates."""
    width = jnp.where(problem.settable, problem.high - problem.low, 1.0)
    places = (rows.values - problem.low) / width
    places = jnp.where(units.scale < 0, 1 - places, places)
    places = jnp.where(problem.settable, places, 0.0)
    value = units_lib.bent(units, rows.values)
    return surrogate.see(
      known=~rows.start,
      outcomes=jnp.where(problem.target, value, 0.0).sum(-1),
      intervened=rows.intervened,
      places=places,
      points=self._points,
    )

  def _believe(self, prefix, evidence, rows):
    """What the exact belief, if it is an input, says after each new row.

    Args:
      prefix: of the observations.
      evidence: of the rows since then.
      rows: R more.

    Returns:
      [R, D] probability of being a parent of the target, and the evidence with
      that of the rows; None and None where no belief is an input.
    """
    if self._belief is None:
      return None, None
    believed = prefix.believed

    def add(state, row):
      # A variable tells nothing in a row in which it was set, and the start
      # row tells nothing of any.
      silent = row.intervened | row.start
      state = self._belief.update(state, silent, row.values, None)
      return state, state.evidence

    start = believed._replace(evidence=evidence)
    last, added = jax.lax.scan(add, start, rows)
    known = jax.tree.map(jnp.add, believed.evidence, added)  # [R, ...]
    parents = jax.vmap(
      lambda evidence: self._belief.parents(
        believed._replace(evidence=evidence)
      )
    )(known)
    return parents, last.evidence

  def _embed(self, problem, units, rows, parents):
    """Tokens of rows: [R, D, W]."""
    shape = rows.values.shape
    seen = ~rows.start[:, None]
    value = jnp.where(seen, units_lib.bent(units, rows.values), 0.0)  # [R, D]
    outcome = jnp.where(problem.target, value, 0.0).sum(-1, keepdims=True)
    outcome = jnp.broadcast_to(outcome, shape)
    was_set = rows.intervened.astype(value.dtype)
    any_set = was_set.max(-1, keepdims=True)
    low, high = (
      units_lib.bent(units, end) for end in (problem.low, problem.high)
    )
    domain = problem.settable
    of_two = (problem.sets.sum(-1) > 1)[:, None]
    # The products let the first layer see a correlation that attention would
    # have to be taught: without them nothing is learnt for 50 updates.
    features = [
      value,
      outcome,
      value * outcome,
      was_set,
      was_set * value,
      was_set * outcome,
      any_set,
      problem.target,
      problem.settable,
      (problem.sets & of_two).any(0),
      (problem.sets & ~of_two).any(0),
      jnp.sqrt(problem.cost / problem.budget),
      jax.lax.rsqrt(problem.samples),
      jnp.where(domain, jnp.minimum(low, high), 0.0),
      jnp.where(domain, jnp.maximum(low, high), 0.0),
      rows.left[:, None],
      rows.start[:, None],
    ]
    if parents is not None:
      features.append(parents)
    features = [
      jnp.broadcast_to(feature, shape).astype(value.dtype)
      for feature in features
    ]
    return self._embedding(jnp.stack(features, -1))

  def _blocks(self, x, exists, prefix, cache, position):
    """Runs the blocks on new rows.

    Args:
      x: [Q, D, W] tokens of the new rows.
      exists: [D] bool.
      prefix: `Cache` of rows that every new one sees, or None.
      cache: `Cache` of earlier rows with room for the new one, or None.
      position: [] where in `cache` the new row goes, or None.

    Returns:
      [Q, D, W], and the keys and values of the new rows, within those of
      `cache` if given.
    """
    written = []
    for i, block in enumerate(self._stack):
      attention = block.across_variables
      query, key, value = self._project(attention, x)
      logits = query @ jnp.swapaxes(key, -1, -2)  # [Q, A D, D]
      logits = jnp.where(exists, logits, -1e9)
      mixed = jax.nn.softmax(logits) @ value
      x = x + attention.merge(self._join_heads(mixed))

      attention = block.across_rows
      query, key, value = self._project(attention, jnp.swapaxes(x, 0, 1))
      key = jnp.swapaxes(key, -1, -2)
      seen = None
      product = jnp.matmul
      if cache is not None:
        write = jax.lax.dynamic_update_slice_in_dim
        key = write(cache.keys[i], key, position, -1)
        value = write(cache.values[i], value, position, -2)
        seen = jnp.arange(key.shape[-1])[None] <= position
        product = _few_rows_times_matrix
      elif prefix is not None:
        seen = jnp.tri(key.shape[-1], dtype=bool)
      written.append((key, value))
      logits = product(query, key)  # [D, A Q, rows]
      if seen is not None:
        seen = jnp.tile(seen, (self._num_heads, 1))
        logits = jnp.where(seen, logits, -1e9)
      if prefix is None:
        mixed = product(jax.nn.softmax(logits), value)
      else:
        # Two sums instead of one over joined rows, so that the prefix is not
        # copied for every rollout that shares it.
        early = query @ prefix.keys[i]
        weights = jax.nn.softmax(jnp.concatenate([early, logits], -1))
        early, late = jnp.split(weights, [early.shape[-1]], -1)
        mixed = early @ prefix.values[i] + product(late, value)
      mixed = attention.merge(self._join_heads(mixed))
      x = x + jnp.swapaxes(mixed, 0, 1)

      hidden = jax.nn.gelu(block.mlp_in(block.mlp_norm(x)))
      x = x + block.mlp_out(hidden)
    return x, tuple(zip(*written, strict=True))

  def _project(self, attention, x):
    """Normalised queries of [N, M] tokens, and the keys and values of all.

    Args:
      attention: whose weights are used.
      x: [N, M, W] tokens; M of them see each other.

    Returns:
      [N, A M, W / A] queries, [N, M, W / A] keys and as many values.
    """
    num_heads, width = self._num_heads, x.shape[-1]
    head_width = width // num_heads
    projected = attention.project(attention.norm(x))
    query, key, value = jnp.split(
      projected, [width, width + head_width], axis=-1
    )
    query = query.reshape(*x.shape[:2], num_heads, head_width)
    query = jnp.swapaxes(query, 1, 2).reshape(x.shape[0], -1, head_width)
    return query / jnp.sqrt(head_width), key, value

  def _join_heads(self, mixed):
    """[N, A M, W / A] -> [N, M, W]."""
    num_heads, head_width = self._num_heads, mixed.shape[-1]
    mixed = mixed.reshape(mixed.shape[0], num_heads, -1, head_width)
    mixed = jnp.swapaxes(mixed, 1, 2)
    return mixed.reshape(*mixed.shape[:2], num_heads * head_width)

  def _heads(self, x):
    """[..., D, W] tokens, and [..., D] log odds of being a parent."""
    x = self._last_norm(x)
    return x, self._parent(x)[..., 0]


class _Candidate(NamedTuple):
  """From a token and features of a candidate to an outcome and a correction."""

  token: hk.Linear
  features: hk.Linear
  outcome: hk.Linear
  correction: hk.Linear

  @classmethod
  def make(cls, name):
    return cls(
      token=_linear(f'{name}_token', _HIDDEN),
      features=_linear(f'{name}_features', _HIDDEN),
      outcome=_linear(f'{name}_outcome', 1),
      correction=_linear(f'{name}_correction', 1, scale=0.1),
    )

  def __call__(self, token, features):
    hidden = jax.nn.relu(self.token(token) + self.features(features))
    return jnp.concatenate([self.outcome(hidden), self.correction(hidden)], -1)


class _Attention(NamedTuple):
  norm: hk.LayerNorm
  project: hk.Linear
  merge: hk.Linear

  @classmethod
  def make(cls, name, width, num_heads):
    return cls(
      norm=_norm(f'{name}_norm'),
      project=_linear(f'{name}_project', width + 2 * (width // num_heads)),
      merge=_linear(f'{name}_merge', width),
    )


class _Block(NamedTuple):
  across_variables: _Attention
  across_rows: _Attention
  mlp_norm: hk.LayerNorm
  mlp_in: hk.Linear
  mlp_out: hk.Linear


def _turned_units(problem, observations):
  """Units in which every variable rises as the target improves.

  Which way round a variable was recorded is then one thing less to learn.

  Args:
    problem: whose target and goal are used.
    observations: [N, D].

  Returns:
    `Units`, with a negative scale where a variable is turned.
  """
  units = units_lib.fit(problem, observations)
  centred = observations - units.location
  target = jnp.where(problem.target, centred, 0.0).sum(-1)
  slope = problem.goal * (centred * target[:, None]).sum(0)
  sign = jnp.where(slope < 0, -1.0, 1.0)
  # Also where the target never moved.
  sign = jnp.where(problem.target, problem.goal, sign)
  return units._replace(scale=sign * units.scale)


def _place_features(place):
  """[...] places in a domain -> [..., 6]."""
  turn = 2 * jnp.pi * place
  return jnp.stack(
    [
      2 * place - 1,
      jnp.square(2 * place - 1),
      jnp.sin(turn),
      jnp.cos(turn),
      jnp.sin(2 * turn),
      jnp.cos(2 * turn),
    ],
    -1,
  )


def _few_rows_times_matrix(rows, matrix):
  """`rows @ matrix`, [..., Q, M] and [..., M, K], for a small Q.

  Written out as a sum of M outer products, which the compiler fuses into one
  vectorised loop: on a CPU thousands of products of a few rows are slower.
  """
  return sum(
    rows[..., m : m + 1] * matrix[..., m : m + 1, :]
    for m in range(matrix.shape[-2])
  )


class _Norm(hk.Module):
  """`hk.LayerNorm`, its means as products, which are quicker than sums."""

  def __call__(self, x):
    width = x.shape[-1]
    scale = hk.get_parameter('scale', [width], init=jnp.ones)
    offset = hk.get_parameter('offset', [width], init=jnp.zeros)
    mean = jnp.full((width, 1), 1 / width, x.dtype)
    centred = x - x @ mean
    deviation = jax.lax.rsqrt(jnp.square(centred) @ mean + 1e-5)
    return scale * deviation * centred + offset


def _norm(name):
  return _Norm(name)


def _linear(name, size, scale=1.0):
  def deviation(shape, dtype):
    # Of what `_drawn` draws.
    return jnp.full(shape, scale / math.sqrt(shape[0]), dtype)

  return hk.Linear(size, w_init=deviation, name=name)


def _drawn(key: jax.Array, params: hk.Params) -> hk.Params:
  """Parameters to begin with, from the deviations of the weights.

  All weights are drawn at once, normal within two deviations: one by one they
  would make a program of as many loops as that of the actor.
  """
  weights, others = hk.data_structures.partition(
    lambda module, name, value: name == 'w', params
  )
  deviations, unravel = flatten_util.ravel_pytree(weights)
  draws = jax.random.truncated_normal(key, -2.0, 2.0, deviations.shape)
  return hk.data_structures.merge(
    others, unravel(deviations * draws / _DEVIATION_WITHIN_TWO)
  )
