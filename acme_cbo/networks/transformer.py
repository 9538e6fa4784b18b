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

import functools
from typing import Any

import chex
import haiku as hk
import jax
import jax.numpy as jnp

from acme_cbo.beliefs import belief as beliefs
from acme_cbo.beliefs import exact_posterior
from acme_cbo.environments import normalization
from acme_cbo.networks import action_distribution
from acme_cbo.networks import base
from acme_cbo.networks import candidate_features
from acme_cbo.networks import config
from acme_cbo.networks import layers
from acme_cbo.scms import interventions


@functools.cache
def make(architecture: config.NetworkConfig) -> base.Network:
  """The network of a given size, for any D, N and T.

  There is one of each size: what is compiled of it serves all parameters.
  """
  transformed = hk.multi_transform(lambda: _methods(architecture))
  prefix, append, full, turn, predict = transformed.apply

  def empty_cache(num_rows, num_variables):
    head_width = architecture.width // architecture.num_heads
    keys = jnp.zeros((num_variables, head_width, num_rows))
    values = jnp.zeros((num_variables, num_rows, head_width))
    tried = candidate_features.empty_history(
      num_rows, num_variables, architecture.num_cells + 2
    )
    evidence = None
    if architecture.belief_input == 'exact':
      evidence = exact_posterior.empty_evidence(num_variables)
    num_blocks = architecture.num_blocks
    return base.Cache(
      (keys,) * num_blocks, (values,) * num_blocks, tried, evidence
    )

  # The functions draw nothing at random.
  return base.Network(
    init=lambda key, *args: layers.drawn(key, transformed.init(None, *args)),
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
    nothing = action_distribution.empty_intervention(observations.shape[-1])
    return module.turn(problem, prefix, base.after(encoding, -1), nothing)

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

  def __init__(self, architecture: config.NetworkConfig):
    super().__init__(name='transformer')
    width, num_cells = architecture.width, architecture.num_cells + 2
    self._points = interventions.grid(architecture.num_cells)
    num_heads = architecture.num_heads
    self._num_heads = num_heads
    self._belief = None
    if architecture.belief_input == 'exact':
      self._belief = beliefs.exact()
    self._embedding = layers.linear('embedding', width)
    self._stack = [
      layers.Block(
        across_variables=layers.Attention.make(
          f'block{i}_variables', width, num_heads
        ),
        across_rows=layers.Attention.make(f'block{i}_rows', width, num_heads),
        mlp_norm=layers.norm(f'block{i}_mlp_norm'),
        mlp_in=layers.linear(
          f'block{i}_mlp_in', architecture.mlp_factor * width
        ),
        mlp_out=layers.linear(f'block{i}_mlp_out', width),
      )
      for i in range(architecture.num_blocks)
    ]
    self._last_norm = layers.norm('last_norm')
    self._parent = layers.linear('parent', 1)
    self._given = layers.linear('given', width)
    self._after_in = layers.linear('after_in', width)
    self._after_out = layers.linear('after_out', width)
    self._candidate = layers.Candidate.make('candidate')
    self._none = layers.Candidate.make('none')
    self._outcome = layers.linear('outcome', num_cells)
    self._correction = layers.linear('correction', num_cells, scale=0.1)

  def prefix(self, problem, observations):
    chex.assert_rank(observations, 2)
    units = _turned_units(problem, observations)
    no_row = jnp.zeros(observations.shape[0])
    rows = base.Rows(
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
    return base.Prefix(units, base.Cache(keys, values), seen, believed)

  def append(self, problem, prefix, cache, position, row):
    parents, evidence = self._believe(prefix, cache.evidence, row)
    x = self._embed(problem, prefix.units, row, parents)
    x, (keys, values) = self._blocks(
      x, problem.exists, prefix.cache, cache, position
    )
    seen = self._see(problem, prefix.units, row)
    tried = candidate_features.append_rows(
      cache.tried, position, seen, problem.samples
    )
    tokens, parent_logits = _all_or_none(self._heads(x[0]))
    return (
      base.Encoding(tokens, parent_logits, tried.seen.known, tried),
      base.Cache(keys, values, tried, evidence),
    )

  def full(self, problem, prefix, rows):
    nothing = exact_posterior.empty_evidence(problem.exists.size)
    parents, _ = self._believe(prefix, nothing, rows)
    x = self._embed(problem, prefix.units, rows, parents)
    x, _ = self._blocks(x, problem.exists, prefix.cache, None, None)
    seen = self._see(problem, prefix.units, rows)
    room = candidate_features.empty_history(
      *rows.values.shape, num_points=self._points.size
    )
    start = jnp.int32(0)
    tried = candidate_features.append_rows(room, start, seen, problem.samples)
    so_far = jnp.tri(rows.start.size, dtype=bool) & seen.known
    return base.Encoding(*self._heads(x), so_far, tried)

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
    of_candidates, of_chosen = candidate_features.candidate_features(
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
    value = normalization.asinh_normalize(
      prefix.units, (low + width * self._points).T
    ).T
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
      improvement = told[..., candidate_features.LOG_IMPROVEMENT]
      return sharpness * jax.lax.stop_gradient(outcome) + (
        eagerness * improvement
      )

    joint = start(outcome, of_candidates)
    joint += self._correction(x) + found[..., 1]

    mean = jnp.where(partial.mask[:, None], x, 0.0).sum(0)
    mean /= jnp.maximum(partial.mask.sum(), 1)
    none_outcome, none = self._none(mean, of_chosen)
    none += start(none_outcome, of_chosen)

    return base.ActionHeadOutput(
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
    value = normalization.asinh_normalize(units, rows.values)
    return candidate_features.row_features(
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
    value = jnp.where(
      seen, normalization.asinh_normalize(units, rows.values), 0.0
    )  # [R, D]
    outcome = jnp.where(problem.target, value, 0.0).sum(-1, keepdims=True)
    outcome = jnp.broadcast_to(outcome, shape)
    was_set = rows.intervened.astype(value.dtype)
    any_set = was_set.max(-1, keepdims=True)
    low, high = (
      normalization.asinh_normalize(units, end)
      for end in (problem.low, problem.high)
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
        product = layers.few_rows_times_matrix
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


def _turned_units(problem, observations):
  """Units in which every variable rises as the target improves.

  Which way round a variable was recorded is then one thing less to learn.

  Args:
    problem: whose target and goal are used.
    observations: [N, D].

  Returns:
    `Units`, with a negative scale where a variable is turned.
  """
  units = normalization.fit(problem, observations)
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
