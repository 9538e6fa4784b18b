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

All are unbatched. L is the number of blocks. A heads of width W / A ask, and
share one key and one value for each token (Shazeer, "Fast Transformer
Decoding: One Write-Head is All You Need", 2019): the cache is what an actor
waits for, and it is A times as small.
"""

from collections.abc import Callable
import dataclasses
from typing import Any, Literal, NamedTuple

import chex
import haiku as hk
import jax
import jax.numpy as jnp

from acme_cbo import units as units_lib
from acme_cbo.beliefs import belief as beliefs
from acme_cbo.beliefs import exact


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
    evidence: of the rows since the observations, if the belief is an input.
  """

  keys: tuple[jax.Array, ...]
  values: tuple[jax.Array, ...]
  evidence: exact.Evidence | None = None


class Prefix(NamedTuple):
  """All that later rows need of the observational ones.

  Attributes:
    units: of each variable, with a negative scale where it falls as the target
      improves.
    cache: keys and values of the N rows.
    believed: state of the exact belief after them, if it is an input.
  """

  units: units_lib.Units
  cache: Cache
  believed: Any = None


class Heads(NamedTuple):
  """What the network says after a row.

  Attributes:
    joint_logits: [D, C] to set each variable to each cell, before masking.
    parent_logits: [D] log odds that a variable is a parent of the target: the
      learned belief.
    outcome_logits: [D, C] logit of the `optimization` reward that setting a
      variable to a cell is predicted to earn.
  """

  joint_logits: jax.Array
  parent_logits: jax.Array
  outcome_logits: jax.Array


class Network(NamedTuple):
  """Pure functions of one set of parameters.

  Attributes:
    init: (key, problem, observations, rows) -> params.
    prefix: (params, problem, observations [N, D]) -> Prefix.
    append: (params, problem, prefix, cache, position, row) -> (Heads, Cache):
      `row` is a `Rows` of R = 1, `cache` has room for the row `position`.
    full: (params, problem, prefix, rows) -> Heads with a leading axis R.
    empty_cache: (num_rows, num_variables) -> Cache of zeros.
  """

  init: Callable[..., Any]
  prefix: Callable[..., Prefix]
  append: Callable[..., tuple[Heads, Cache]]
  full: Callable[..., Heads]
  empty_cache: Callable[[int, int], Cache]


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


def episode_rows(intervened: jax.Array, values: jax.Array) -> Rows:
  """All rows of an episode of T interventions.

  Args:
    intervened: [T, D] bool, what each step set.
    values: [T, D] what came out.

  Returns:
    `Rows` of length R = T + 1, the start row first.
  """
  num_steps, num_variables = values.shape
  left = 1 - jnp.arange(1, num_steps + 1) / num_steps
  steps = Rows(values, intervened, left, jnp.zeros(num_steps, bool))
  return jax.tree.map(
    lambda a, b: jnp.concatenate([a, b]), start_row(num_variables), steps
  )


def make(architecture: Architecture) -> Network:
  """The network of a given size, for any D, N and T."""
  transformed = hk.multi_transform(lambda: _methods(architecture))
  prefix, append, full = transformed.apply

  def empty_cache(num_rows, num_variables):
    head_width = architecture.width // architecture.num_heads
    keys = jnp.zeros((num_variables, head_width, num_rows))
    values = jnp.zeros((num_variables, num_rows, head_width))
    evidence = None
    if architecture.belief_input == 'exact':
      evidence = exact.no_evidence(num_variables)
    num_blocks = architecture.num_blocks
    return Cache((keys,) * num_blocks, (values,) * num_blocks, evidence)

  # The functions draw nothing at random.
  return Network(
    init=transformed.init,
    prefix=lambda params, *args: prefix(params, None, *args),
    append=lambda params, *args: append(params, None, *args),
    full=lambda params, *args: full(params, None, *args),
    empty_cache=empty_cache,
  )


def _methods(architecture):
  module = _Transformer(architecture)

  def init(problem, observations, rows):
    return module.full(problem, module.prefix(problem, observations), rows)

  return init, (module.prefix, module.append, module.full)


def _all_or_none(heads: Heads) -> Heads:
  """NaN everywhere if anything is not finite.

  One logit alone could pass unseen: it was not chosen, or a belief bounds it.
  """
  finite = jnp.stack([jnp.isfinite(leaf).all() for leaf in heads]).all()
  return jax.tree.map(lambda leaf: jnp.where(finite, leaf, jnp.nan), heads)


class _Transformer(hk.Module):
  """The blocks and heads; parameters are shared by the three evaluations."""

  def __init__(self, architecture: Architecture):
    super().__init__(name='transformer')
    width, num_cells = architecture.width, architecture.num_cells + 2
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
    self._outcome = _linear('outcome', num_cells)
    self._parent = _linear('parent', 1)
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
    _, cache = self._blocks(x, problem.exists, None, None, None)
    return Prefix(units, cache, believed)

  def append(self, problem, prefix, cache, position, row):
    parents, evidence = self._believe(prefix, cache.evidence, row)
    x = self._embed(problem, prefix.units, row, parents)
    x, cache = self._blocks(x, problem.exists, prefix.cache, cache, position)
    heads = self._heads(x, prefix.units.scale)
    heads = _all_or_none(jax.tree.map(lambda leaf: leaf[0], heads))
    return heads, cache._replace(evidence=evidence)

  def full(self, problem, prefix, rows):
    nothing = exact.no_evidence(problem.exists.size)
    parents, _ = self._believe(prefix, nothing, rows)
    x = self._embed(problem, prefix.units, rows, parents)
    x, _ = self._blocks(x, problem.exists, prefix.cache, None, None)
    return self._heads(x, prefix.units.scale)

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
      [Q, D, W], and the `Cache` of the new rows, within `cache` if given.
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
    keys, values = zip(*written, strict=True)
    return x, Cache(keys, values)

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

  def _heads(self, x, scale):
    x = self._last_norm(x)

    # The network's cells run from its own low end to its own high one.
    def in_own_units(cells):
      return jnp.where(scale[:, None] < 0, cells[..., ::-1], cells)

    outcome = self._outcome(x)
    sharpness = hk.get_parameter('sharpness', [], init=jnp.ones)
    # The policy starts from what it predicts; the gradient of its choices
    # leaves the predictions alone, so that they stay predictions.
    joint = sharpness * jax.lax.stop_gradient(outcome) + self._correction(x)
    return Heads(
      joint_logits=in_own_units(joint),
      parent_logits=self._parent(x)[..., 0],
      outcome_logits=in_own_units(outcome),
    )


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


def _few_rows_times_matrix(rows, matrix):
  """`rows @ matrix`, [..., Q, M] and [..., M, K], for a small Q.

  Written out as a sum of M outer products, which the compiler fuses into one
  vectorised loop: on a CPU thousands of products of a few rows are slower.
  """
  return sum(
    rows[..., m : m + 1] * matrix[..., m : m + 1, :]
    for m in range(matrix.shape[-2])
  )


def _norm(name):
  return hk.LayerNorm(-1, create_scale=True, create_offset=True, name=name)


def _linear(name, size, scale=1.0):
  init = hk.initializers.VarianceScaling(scale**2, 'fan_in')
  return hk.Linear(size, w_init=init, name=name)
