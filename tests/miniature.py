"""The smallest parts that show everything: a prior, a network, an update.

What is costly to draw or to compile is kept, so that the tests share it.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import optax

from acme_cbo import actor
from acme_cbo import learner
from acme_cbo import losses
from acme_cbo import networks
from acme_cbo import rewards
from acme_cbo.runtimes import fused
from acme_cbo.scms import priors

NUM_CELLS = 3

# Every kind of graph and of mechanism, and padding: 3 to 5 of 5 variables.
PRIOR = priors.Prior(
  min_variables=3,
  max_variables=5,
  graph_weights=(1.0, 1.0, 1.0, 1.0, 1.0),
  family_weights=(1.0, 1.0, 1.0, 1.0, 1.0),
  min_density=0.2,
  max_density=0.8,
  min_noise=0.3,
  max_noise=1.5,
  settable=0.8,
  min_width=1.0,
  max_width=3.0,
  max_centre=1.0,
  min_gain=0.1,
  num_hidden=2,
  bank_size=8,
  num_cells=NUM_CELLS,
)

GRPO = losses.Settings(
  epsilon=0.2,
  epsilon_high=0.2,
  beta=0.0,
  scale_rewards='group',
  supervision='process',
  importance_sampling_level='decision',
  step_weights='cumulative',
  variable_entropy=0.01,
  cell_entropy=0.01,
)

LEARNER = learner.Settings(
  num_iterations=1,
  num_minibatches=1,
  parent_coefficient=0.5,
  outcome_coefficient=0.5,
  reference_every=50,
)

HORIZON = actor.Horizon(num_observations=4, num_interventions=3)


@functools.cache
def network(width: int = 8, num_blocks: int = 1) -> networks.Network:
  """A network with two heads of attention."""
  return networks.make(
    networks.Architecture(
      width=width,
      num_blocks=num_blocks,
      num_heads=2,
      mlp_factor=2,
      num_cells=NUM_CELLS,
    )
  )


@functools.cache
def tasks(num_tasks: int, seed: int = 0, num_variables: int = 5):
  """Tasks of the prior; the largest SCMs have `num_variables`."""
  prior = dataclasses.replace(PRIOR, max_variables=num_variables)
  draw = jax.jit(lambda key: priors.sample(key, prior, num_tasks))
  drawn, complete = draw(jax.random.key(seed))
  if not complete:
    raise ValueError(f'the tiny prior could not fill {num_tasks} tasks')
  return drawn


def loud(params, size: float = 0.5, seed: int = 0):
  """Adds noise to every parameter, so that no output is flat or symmetric."""
  leaves, structure = jax.tree.flatten(params)
  keys = jax.random.split(jax.random.key(seed), len(leaves))
  return jax.tree.unflatten(
    structure,
    [
      leaf + size * jax.random.normal(key, leaf.shape, leaf.dtype)
      for key, leaf in zip(keys, leaves, strict=True)
    ],
  )


def parts(**changes) -> fused.Parts:
  """An update of 4 SCMs with 4 rollouts each; `changes` replace fields."""
  usual = fused.Parts(
    network=network(),
    optimizer=optax.adam(1e-2),
    prior=PRIOR,
    horizon=HORIZON,
    num_tasks=4,
    num_generations=4,
    weights=rewards.Weights(),
    settings=LEARNER,
    grpo=GRPO,
  )
  return dataclasses.replace(usual, **changes)
