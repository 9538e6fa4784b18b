"""Transformer over variables and rows, in Haiku, with a key-value cache.

Blocks alternate attention across the variables of a row, attention across the
rows of a variable, and an MLP, each on a normalized residual stream (Lorch et
al., "Amortized Inference for Causal Structure Learning", 2022). Attention
across rows is block-causal: the observations attend to each other, the start
row attends to all of them, and the row of an intervention attends to the
observations and to the rows before it. The encoding of a row is therefore
final, and one function has three forms:

  prefix   encodes the observations, once per SCM;
  append   encodes one more row on top of the cache, for the actor;
  full     encodes all rows of a rollout at once on top of the prefix, for the
           learner.

The intervention is then chosen one variable after the other, from the same
encoding:

  action_head  logits of every variable and value, given the partial
               intervention;
  predict      distribution of the outcome of the partial intervention as it
               is.

The action head also gets features of each candidate, computed in closed form
from the rows close to it, see `candidate_features`. Attention would have to
learn to look that closely.

All functions are unbatched. L is the number of blocks. A heads of width W / A
have their own queries and share one key and one value per token (Shazeer, "Fast
Transformer Decoding: One Write-Head is All You Need", 2019): reading the cache
dominates the time of an actor, and this makes it A times as small.
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
from acme_cbo.networks import outcome_distribution
from acme_cbo.scms import interventions

# Components of a predicted distribution, and the least and the largest
# deviation of each, in deviations of the observations. An improbable component
# that is wider than that would decide the mean in the target's own units.
_NUM_COMPONENTS = 4
_MIN_DEVIATION = 0.01
_MAX_DEVIATION = 4.0
# Log odds of what is known of an edge.
_KNOWN_LOG_ODDS = 12.0


@functools.cache
def make(architecture: config.NetworkConfig) -> base.Network:
  """Returns the network of a given architecture, for any D, N and T.

  The result is cached, one network per architecture: programs that are compiled
  for it serve all parameters.
  """
  transformed = hk.multi_transform(lambda: _methods(architecture))
  prefix, append, full, action_head, predict = transformed.apply

  def empty_cache(num_rows, num_variables):
    head_width = architecture.width // architecture.num_heads
    keys = jnp.zeros((num_variables, head_width, num_rows))
    values = jnp.zeros((num_variables, num_rows, head_width))
    history = candidate_features.empty_history(
      num_rows, num_variables, architecture.num_cells + 2
    )
    evidence = None
    if architecture.belief_input == 'exact':
      evidence = exact_posterior.empty_evidence(num_variables)
    num_blocks = architecture.num_blocks
    return base.Cache(
      (keys,) * num_blocks, (values,) * num_blocks, history, evidence
    )

  # The functions are deterministic, so that they need no random key.
  return base.Network(
    init=lambda key, *args: layers.sample_weights(
      key, transformed.init(None, *args)
    ),
    prefix=lambda params, *args: prefix(params, None, *args),
    append=lambda params, *args: append(params, None, *args),
    full=lambda params, *args: full(params, None, *args),
    action_head=lambda params, *args: action_head(params, None, *args),
    predict=lambda params, *args: predict(params, None, *args),
    empty_cache=empty_cache,
  )


def _methods(architecture):
  """Returns an initializer and the methods, for `hk.multi_transform`."""
  module = _Transformer(architecture)

  def init(problem, observations, rows):
    prefix = module.prefix(problem, observations)
    encoding = module.full(problem, prefix, rows)
    nothing = action_distribution.empty_intervention(observations.shape[-1])
    last = base.select_rows(encoding, -1)
    return (
      module.action_head(problem, prefix, last, nothing),
      module.predict(problem, prefix, last, nothing),
    )

  return init, (
    module.prefix,
    module.append,
    module.full,
    module.action_head,
    module.predict,
  )


def _propagate_non_finite(outputs: Any) -> Any:
  """Replaces all outputs by NaN if any of them is not finite.

  A single bad logit could go unnoticed: because its action is not the one that
  is chosen, or because a belief clips it.
  """
  leaves = jax.tree.leaves(outputs)
  finite = jnp.stack([jnp.isfinite(leaf).all() for leaf in leaves]).all()
  return jax.tree.map(lambda leaf: jnp.where(finite, leaf, jnp.nan), outputs)


class _Transformer(hk.Module):
  """Blocks and heads; all methods share the parameters."""

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
    self._edge_weights = [
      hk.get_parameter(f'block{i}_edges', [4, num_heads], init=jnp.zeros)
      for i in range(architecture.num_blocks)
    ]
    self._last_norm = layers.norm('last_norm')
    self._parent = layers.linear('parent', 1)
    self._given = layers.linear('given', width)
    self._after_in = layers.linear('after_in', width)
    self._after_out = layers.linear('after_out', width)
    self._candidate = layers.Candidate.make('candidate')
    self._none = layers.Candidate.make('none')
    self._prediction = layers.PredictionHead.make(
      'prediction', 4 * _NUM_COMPONENTS
    )
    self._outcome = layers.linear('outcome', num_cells)
    self._correction = layers.linear('correction', num_cells, scale=0.1)

  def prefix(self, problem, observations):
    chex.assert_rank(observations, 2)
    units = _oriented_units(problem, observations)
    no_row = jnp.zeros(observations.shape[0])
    rows = base.Rows(
      observations,
      jnp.zeros(observations.shape, bool),
      no_row,
      no_row.astype(bool),
    )
    belief_state = parents = None
    if self._belief is not None:
      belief_state = self._belief.init(problem, observations, None)
      parents = self._belief.parents(belief_state)
    x = self._embed(problem, units, rows, parents)
    records = candidate_features.fit_records(
      self._row_features(problem, units, rows, None), problem.settable
    )
    _, (keys, values) = self._blocks(x, problem, None, None, None)
    return base.Prefix(units, base.Cache(keys, values), records, belief_state)

  def append(self, problem, prefix, cache, position, row):
    parents, evidence = self._update_belief(prefix, cache.evidence, row)
    x = self._embed(problem, prefix.units, row, parents)
    x, (keys, values) = self._blocks(x, problem, prefix.cache, cache, position)
    features = self._row_features(problem, prefix.units, row, prefix.records)
    history = candidate_features.append_rows(
      cache.history, position, features, problem.samples
    )
    tokens, parent_logits = _propagate_non_finite(self._heads(problem, x[0]))
    return (
      base.Encoding(tokens, parent_logits, history.rows.row_mask, history),
      base.Cache(keys, values, history, evidence),
    )

  def full(self, problem, prefix, rows):
    empty_evidence = exact_posterior.empty_evidence(problem.exists.size)
    parents, _ = self._update_belief(prefix, empty_evidence, rows)
    x = self._embed(problem, prefix.units, rows, parents)
    x, _ = self._blocks(x, problem, prefix.cache, None, None)
    features = self._row_features(problem, prefix.units, rows, prefix.records)
    empty = candidate_features.empty_history(
      *rows.values.shape, num_points=self._points.size
    )
    history = candidate_features.append_rows(
      empty, jnp.int32(0), features, problem.samples
    )
    row_mask = jnp.tri(rows.start.size, dtype=bool) & features.row_mask
    return base.Encoding(*self._heads(problem, x), row_mask, history)

  def action_head(self, *args):
    return _propagate_non_finite(self._action_head(*args))

  def predict(self, *args):
    return _propagate_non_finite(self._predict(*args))

  def _predict(self, problem, prefix, encoding, partial):
    """Computes `predict` without the check for non-finite outputs."""
    # The compiler removes everything else as dead code.
    _, x, _, features = self._partial(problem, prefix, encoding, partial)
    token = _mean_token(x, partial)
    raw = self._prediction(token, features)
    shift, log_width, weight, log_noise = jnp.split(raw, 4, -1)
    deviation = features[candidate_features.DEVIATION] * jnp.exp(
      features[candidate_features.LOG_SCALE]
    )
    # The components start around the prediction of the Gaussian processes.
    start = jnp.linspace(-1.0, 1.0, _NUM_COMPONENTS)
    means = features[candidate_features.EXPECTED] + deviation * (start + shift)
    # Smooth, so that there is a gradient at either end.
    widths = deviation * jnp.exp(log_width)
    widths = _MIN_DEVIATION + widths / jnp.hypot(1.0, widths / _MAX_DEVIATION)
    noise = jnp.exp(log_noise) * jax.lax.rsqrt(problem.samples)
    log_weights = jax.nn.log_softmax(weight)
    mixture = outcome_distribution.Mixture
    units = jax.tree.map(
      lambda leaf: jnp.where(problem.target, leaf, 0.0).sum(), prefix.units
    )
    return outcome_distribution.OutcomeDistribution(
      mixture(log_weights, means, widths),
      mixture(log_weights, means, jnp.hypot(widths, noise)),
      units,
    )

  def _partial(self, problem, prefix, encoding, partial):
    """Relates a partial intervention to the encoding.

    Args:
      problem: problem of D variables.
      prefix: encoded observations.
      encoding: encoding after a row.
      partial: partial intervention.

    Returns:
      [D] bool, whether each domain is flipped; [D, W] tokens; [D, C, F]
      features of the candidates and [F] those of the partial intervention.
    """
    flipped = prefix.units.scale < 0
    fractions = jnp.where(flipped, 1 - partial.fractions, partial.fractions)
    fractions = jnp.where(partial.mask, fractions, 0.0)
    partial = partial._replace(fractions=fractions)
    of_candidates, of_partial = candidate_features.candidate_features(
      prefix.records,
      encoding.row_mask,
      encoding.history,
      self._points,
      partial,
      problem.samples,
    )

    x = encoding.tokens
    chosen = self._given(
      jnp.concatenate([x, _position_features(partial.fractions)], -1)
    )
    chosen = jnp.where(partial.mask[:, None], chosen, 0.0).sum(0)
    x = x + self._after_out(jax.nn.gelu(self._after_in(x) + chosen))
    return flipped, x, of_candidates, of_partial

  def _action_head(self, problem, prefix, encoding, partial):
    """Computes `action_head` without the check for non-finite outputs."""
    flipped, x, of_candidates, of_partial = self._partial(
      problem, prefix, encoding, partial
    )

    # The cells of the network are in the oriented units: flip them where the
    # domain is flipped.
    def flip(cells):
      return jnp.where(flipped[:, None], cells[..., ::-1], cells)

    low, width = problem.low[:, None], (problem.high - problem.low)[:, None]
    value = normalization.asinh_normalize(
      prefix.units, (low + width * self._points).T
    ).T
    value = jnp.where(problem.settable[:, None], flip(value), 0.0)
    position = _position_features(self._points)
    position = jnp.broadcast_to(position, (value.shape[0], *position.shape))
    of_candidates = jnp.concatenate(
      [
        of_candidates,
        position,
        value.astype(position.dtype)[..., None],
      ],
      -1,
    )
    scores = self._candidate(x[:, None], of_candidates)  # [D, C, 2]
    outcome = self._outcome(x) + scores[..., 0]
    outcome_weight, *improvement_weights = hk.get_parameter(
      'start', [3], init=jnp.ones
    )

    def initial_logits(outcome, features):
      # The policy starts from its own predictions and from the acquisition
      # function of Bayesian optimization. The gradient of the policy does not
      # reach the predictions, so that they remain predictions.
      as_is, completed = (
        weight * features[..., index]
        for weight, index in zip(
          improvement_weights,
          (
            candidate_features.LOG_IMPROVEMENT,
            candidate_features.LOG_COMPLETED_IMPROVEMENT,
          ),
          strict=True,
        )
      )
      return outcome_weight * jax.lax.stop_gradient(outcome) + as_is + completed

    joint = initial_logits(outcome, of_candidates)
    joint += self._correction(x) + scores[..., 1]

    none_outcome, none = self._none(_mean_token(x, partial), of_partial)
    none += initial_logits(none_outcome, of_partial)

    return base.ActionHeadOutput(
      joint_logits=flip(joint),
      none_logit=none,
      outcome_logits=flip(outcome),
      none_outcome=none_outcome,
    )

  def _row_features(self, problem, units, rows, records):
    """Returns rows in the form that the candidate features are made from."""
    width = jnp.where(problem.settable, problem.high - problem.low, 1.0)
    fractions = (rows.values - problem.low) / width
    fractions = jnp.where(units.scale < 0, 1 - fractions, fractions)
    fractions = jnp.where(problem.settable, fractions, 0.0)
    value = normalization.asinh_normalize(units, rows.values)
    return candidate_features.row_features(
      row_mask=~rows.start,
      outcomes=jnp.where(problem.target, value, 0.0).sum(-1),
      intervened=rows.intervened,
      fractions=fractions,
      points=self._points,
      records=records,
    )

  def _update_belief(self, prefix, evidence, rows):
    """Updates the exact belief, if it is an input, by one row at a time.

    Args:
      prefix: encoding of the observations.
      evidence: evidence of the rows since the observations.
      rows: R new rows.

    Returns:
      [R, D] probability that each variable is a parent of the target, after
      each new row, and the evidence including the new rows; None and None if
      no belief is an input.
    """
    if self._belief is None:
      return None, None
    belief_state = prefix.belief_state

    def add(state, row):
      # A row is no evidence about the parents of a variable that was
      # intervened on, and the start row is no evidence at all.
      excluded = row.intervened | row.start
      state = self._belief.update(state, excluded, row.values, None)
      return state, state.evidence

    start = belief_state._replace(evidence=evidence)
    last, added = jax.lax.scan(add, start, rows)
    total = jax.tree.map(jnp.add, belief_state.evidence, added)  # [R, ...]
    parents = jax.vmap(
      lambda evidence: self._belief.parents(
        belief_state._replace(evidence=evidence)
      )
    )(total)
    return parents, last.evidence

  def _embed(self, problem, units, rows, parents):
    """Returns the tokens of rows before the first block: [R, D, W]."""
    shape = rows.values.shape
    has_values = ~rows.start[:, None]
    value = jnp.where(
      has_values, normalization.asinh_normalize(units, rows.values), 0.0
    )  # [R, D]
    outcome = jnp.where(problem.target, value, 0.0).sum(-1, keepdims=True)
    outcome = jnp.broadcast_to(outcome, shape)
    intervened = rows.intervened.astype(value.dtype)
    any_intervened = intervened.max(-1, keepdims=True)
    low, high = (
      normalization.asinh_normalize(units, end)
      for end in (problem.low, problem.high)
    )
    domain = problem.settable
    is_joint = (problem.sets.sum(-1) > 1)[:, None]
    # The products give the first layer correlations that attention would have
    # to learn: without them nothing is learned for 50 updates.
    features = [
      value,
      outcome,
      value * outcome,
      intervened,
      intervened * value,
      intervened * outcome,
      any_intervened,
      problem.target,
      problem.settable,
      (problem.sets & is_joint).any(0),
      (problem.sets & ~is_joint).any(0),
      jnp.sqrt(problem.cost / problem.budget),
      jax.lax.rsqrt(problem.samples),
      jnp.where(domain, jnp.minimum(low, high), 0.0),
      jnp.where(domain, jnp.maximum(low, high), 0.0),
      rows.budget_left[:, None],
      rows.start[:, None],
    ]
    if parents is not None:
      features.append(parents)
    features = [
      jnp.broadcast_to(feature, shape).astype(value.dtype)
      for feature in features
    ]
    return self._embedding(jnp.stack(features, -1))

  def _blocks(self, x, problem, prefix, cache, position):
    """Runs the blocks on new rows.

    Args:
      x: [Q, D, W] tokens of the new rows.
      problem: problem of D variables.
      prefix: `Cache` of rows that every new row attends to, or None.
      cache: `Cache` of earlier rows with room for the one new row, or None.
      position: [] index in `cache` of the new row, or None.

    Returns:
      [Q, D, W] tokens, and the keys and values of the new rows, written into
      those of `cache` if there is one.
    """
    written = []
    edges = _edge_features(problem)
    for i, block in enumerate(self._stack):
      attention = block.across_variables
      query, key, value = self._project(attention, x)
      logits = query @ jnp.swapaxes(key, -1, -2)  # [Q, A D, D]
      if edges is not None:
        bias = jnp.moveaxis(edges @ self._edge_weights[i], -1, 0)  # [A, D, D]
        logits += bias.reshape(logits.shape[1:])
      logits = jnp.where(problem.exists, logits, -1e9)
      mixed = jax.nn.softmax(logits) @ value
      x = x + attention.merge(self._join_heads(mixed))

      attention = block.across_rows
      query, key, value = self._project(attention, jnp.swapaxes(x, 0, 1))
      key = jnp.swapaxes(key, -1, -2)
      visible = None
      product = jnp.matmul
      if cache is not None:
        write = jax.lax.dynamic_update_slice_in_dim
        key = write(cache.keys[i], key, position, -1)
        value = write(cache.values[i], value, position, -2)
        visible = jnp.arange(key.shape[-1])[None] <= position
        product = layers.few_rows_times_matrix
      elif prefix is not None:
        visible = jnp.tri(key.shape[-1], dtype=bool)
      written.append((key, value))
      logits = product(query, key)  # [D, A Q, rows]
      if visible is not None:
        visible = jnp.tile(visible, (self._num_heads, 1))
        logits = jnp.where(visible, logits, -1e9)
      if prefix is None:
        mixed = product(jax.nn.softmax(logits), value)
      else:
        # Two sums instead of one over the concatenated rows, so that the
        # prefix is not copied for each rollout that shares it.
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
    """Projects tokens to scaled queries, keys and values.

    Args:
      attention: the attention layer.
      x: [N, M, W] tokens; those along the second axis attend to each other.

    Returns:
      [N, A M, W / A] queries, [N, M, W / A] keys and [N, M, W / A] values.
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
    """Concatenates the heads: [N, A M, W / A] -> [N, M, W]."""
    num_heads, head_width = self._num_heads, mixed.shape[-1]
    mixed = mixed.reshape(mixed.shape[0], num_heads, -1, head_width)
    mixed = jnp.swapaxes(mixed, 1, 2)
    return mixed.reshape(*mixed.shape[:2], num_heads * head_width)

  def _heads(self, problem, x):
    """Returns final tokens [..., D, W] and parent logits [..., D]."""
    x = self._last_norm(x)
    logits = self._parent(x)[..., 0]
    if problem.edges is not None:
      # What is known is believed.
      known = jnp.where(problem.target[:, None], problem.edges, 0.0).sum(0)
      logits = jnp.where(known == 0, logits, _KNOWN_LOG_ODDS * known)
    return x, logits


def _edge_features(problem):
  """Returns what is known of each pair of variables: [D, D, 4], or None.

  Whether the second one is known to be a direct cause of the first one, the
  first one of the second one; and whether each is known not to be.
  """
  if problem.edges is None:
    return None
  both = jnp.stack([problem.edges, problem.edges.T], -1)
  known = jnp.concatenate([both > 0, both < 0], -1)
  return known.astype(problem.edges.dtype)


def _mean_token(x, partial):
  """Returns the mean token of the variables of a partial intervention: [W]."""
  summed = jnp.where(partial.mask[:, None], x, 0.0).sum(0)
  return summed / jnp.maximum(partial.mask.sum(), 1)


def _oriented_units(problem, observations):
  """Returns units in which every variable increases as the target improves.

  The network then does not have to learn both orientations of a variable.

  Args:
    problem: problem with its target and goal.
    observations: [N, D].

  Returns:
    `Normalization` with a negative scale where a variable is flipped.
  """
  units = normalization.fit(problem, observations)
  centered = observations - units.location
  target = jnp.where(problem.target, centered, 0.0).sum(-1)
  slope = problem.goal * (centered * target[:, None]).sum(0)
  sign = jnp.where(slope < 0, -1.0, 1.0)
  # The slope of the target itself is 0 where it is constant.
  sign = jnp.where(problem.target, problem.goal, sign)
  return units._replace(scale=sign * units.scale)


def _position_features(fraction):
  """Returns features of positions in a domain: [...] -> [..., 6]."""
  angle = 2 * jnp.pi * fraction
  return jnp.stack(
    [
      2 * fraction - 1,
      jnp.square(2 * fraction - 1),
      jnp.sin(angle),
      jnp.cos(angle),
      jnp.sin(2 * angle),
      jnp.cos(2 * angle),
    ],
    -1,
  )
