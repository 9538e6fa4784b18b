"""A small prior, small networks and a small update, which tests share.

Functions whose results are slow to draw or to compile are cached.
"""

import dataclasses
import functools
import re
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

from acme_cbo import types
from acme_cbo.agents.grpo import agent
from acme_cbo.agents.grpo import config as grpo_config
from acme_cbo.environments import config as environments_config
from acme_cbo.environments import normalization
from acme_cbo.networks import base
from acme_cbo.networks import candidate_features
from acme_cbo.networks import config as networks_config
from acme_cbo.networks import outcome_distribution
from acme_cbo.networks import transformer
from acme_cbo.scms import config as scms_config
from acme_cbo.scms import priors

NUM_CELLS = 3
# For networks that look at no candidates.
EMPTY_HISTORY = candidate_features.empty_history(0, 0, 0)
HORIZON = environments_config.HorizonConfig(
  num_observations=4, num_interventions=3
)

# Every kind of graph and of mechanism, and padding: 3 to 5 of 5 variables.
PRIOR = scms_config.Prior(
  min_variables=3,
  max_variables=5,
  graph_weights=scms_config.GraphWeights(erdos_renyi=1.0),
  family_weights=scms_config.FamilyWeights(linear=1.0),
  min_density=0.2,
  max_density=0.8,
  min_noise=0.3,
  max_noise=1.5,
  settable=0.8,
  min_width=1.0,
  max_width=3.0,
  max_centre=1.0,
  min_gain=0.1,
  min_length_scale=0.7,
  max_set_size=1,
  latent=0.0,
  averaged=0.0,
  budgeted=0.0,
  num_hidden=2,
  bank_size=8,
  num_cells=NUM_CELLS,
  num_interventions=HORIZON.num_interventions,
)
# Whatever else a problem can have: sets of two, costs, latent causes, means of
# many outcomes, and every family.
GENERAL = dataclasses.replace(
  PRIOR,
  min_variables=4,
  family_weights=scms_config.FamilyWeights(
    linear=1.0, exponential=1.0, mixed=1.0, bumps=1.0
  ),
  noise_weights=scms_config.NoiseWeights(gumbel=1.0),
  max_set_size=2,
  latent=0.15,
  averaged=0.5,
  budgeted=0.5,
)

REWARDS = grpo_config.RewardConfig()

# Of 4 rollouts on each of 4 SCMs.
UPDATE = grpo_config.UpdateConfig(
  num_tasks=4,
  num_generations=4,
  num_minibatches=1,
  gradient_accumulation_steps=1,
  variable_entropy=0.01,
  cell_entropy=0.01,
  parent_coefficient=0.5,
  outcome_coefficient=0.5,
)


@functools.cache
def network(
  num_blocks: int = 1, belief_input: Literal['none', 'exact'] = 'none'
) -> base.Network:
  """Attention of width 8."""
  return transformer.make(
    networks_config.NetworkConfig(
      width=8,
      num_blocks=num_blocks,
      num_heads=2,
      mlp_factor=2,
      num_cells=NUM_CELLS,
      belief_input=belief_input,
    )
  )


@functools.cache
def linear_network() -> base.Network:
  """Without memory, and linear in a few features of each row and variable."""

  def prefix(params, problem, observations):
    del params
    return base.Prefix(
      normalization.fit(problem, observations),
      empty_cache(0, 0),
      candidate_features.Records(
        EMPTY_HISTORY.rows, jnp.zeros(0, bool), jnp.zeros(0)
      ),
    )

  def full(params, problem, prefix, rows):
    shape = rows.values.shape
    value = (rows.values - prefix.units.location) / prefix.units.scale
    features = [
      jnp.ones(shape),
      jnp.where(rows.start[:, None], 0.0, value),
      rows.intervened,
      rows.budget_left[:, None],
      problem.target,
      problem.goal,
      (problem.high - problem.low) / prefix.units.scale,
    ]
    tokens = jnp.stack([jnp.broadcast_to(x, shape) for x in features], -1)
    return base.Encoding(
      tokens,
      (tokens @ params['parent'])[..., 0],
      jnp.zeros((shape[0], 0), bool),
      EMPTY_HISTORY,
    )

  def turn(params, problem, prefix, encoding, partial):
    del problem, prefix
    # One of the chosen: how much, and of which kind.
    chosen = jnp.where(partial.mask[:, None], encoding.tokens, 0.0).sum(0)
    features = [
      encoding.tokens,
      partial.mask[:, None],
      partial.fractions[:, None],
      jnp.broadcast_to(partial.fractions.sum(), (partial.mask.size, 1)),
      jnp.broadcast_to(chosen[1], (partial.mask.size, 1)),
    ]
    features = jnp.concatenate(features, -1)
    return base.ActionHeadOutput(
      joint_logits=features @ params['joint'],
      none_logit=(features @ params['none']).mean(),
      outcome_logits=features @ params['outcome'],
      none_outcome=(features @ params['none_outcome']).mean(),
    )

  def predict(params, problem, prefix, encoding, partial):
    center = turn(params, problem, prefix, encoding, partial).none_outcome
    means = jnp.stack([center, -2 * center])
    widths = jnp.stack([0.5 + jax.nn.sigmoid(center), jnp.ones(())])
    log_weights = jnp.log(jnp.array([0.25, 0.75]))
    location, scale = (
      jnp.where(problem.target, leaf, 0.0).sum() for leaf in prefix.units
    )
    return outcome_distribution.OutcomeDistribution(
      outcome_distribution.Mixture(log_weights, means, widths),
      outcome_distribution.Mixture(log_weights, means, 2 * widths),
      normalization.Normalization(location, problem.goal * scale),
    )

  def init(key, problem, observations, rows):
    del problem, observations, rows
    shapes = {
      'joint': (11, NUM_CELLS + 2),
      'parent': (7, 1),
      'outcome': (11, NUM_CELLS + 2),
      'none': (11, 1),
      'none_outcome': (11, 1),
    }
    keys = jax.random.split(key, len(shapes))
    return {
      name: 0.3 * jax.random.normal(key, shape)
      for key, (name, shape) in zip(keys, shapes.items(), strict=True)
    }

  def append(params, problem, prefix, cache, position, row):
    del position
    encodings = full(params, problem, prefix, row)
    return base.select_rows(encodings, 0), cache

  def empty_cache(num_rows, num_variables):
    del num_rows, num_variables
    return base.Cache((), (), EMPTY_HISTORY)

  return base.Network(init, prefix, append, full, turn, predict, empty_cache)


def loud(params, gain: float):
  """Enlarges weights and moves biases, so that no output is flat."""
  rng = np.random.default_rng(0)
  return jax.tree.map(
    lambda leaf: np.float32(gain * leaf + 0.1 * rng.normal(size=leaf.shape)),
    params,
  )


def doubles(tree):
  """Turns floats into float64; for use within `jax.enable_x64`."""
  return jax.tree.map(
    lambda leaf: leaf.astype(float) if leaf.dtype == jnp.float32 else leaf,
    tree,
  )


@functools.cache
def _drawn_tasks(prior: scms_config.Prior) -> types.Task:
  draw = jax.jit(jax.vmap(lambda key: priors.sample_task(key, prior)))
  # 64-bit draws are others, and the first ones are kept.
  with jax.enable_x64(False):
    drawn, taken = draw(jax.random.split(jax.random.key(0), 32))
  return jax.tree.map(lambda leaf: np.asarray(leaf)[taken], drawn)


def tasks(num_tasks: int, prior: scms_config.Prior = PRIOR) -> types.Task:
  """At most 16 tasks of a prior, always the same."""
  return jax.tree.map(lambda leaf: leaf[:num_tasks], _drawn_tasks(prior))


def parts(**changes) -> agent.Parts:
  """An update of 4 rollouts on each of 4 SCMs; `changes` replace fields."""
  usual = agent.Parts(
    network=linear_network(),
    optimizer=optax.adam(1e-2),
    prior=PRIOR,
    horizon=HORIZON,
    rewards=REWARDS,
    update=UPDATE,
  )
  return dataclasses.replace(usual, **changes)


def lapack_calls(lowered: jax.stages.Lowered) -> list[str]:
  """Returns the calls of LAPACK in a program."""
  return re.findall(r'custom_call @lapack\w*', lowered.as_text())
