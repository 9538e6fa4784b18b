"""Builds the parts of a training run from its config."""

from collections.abc import Callable
import dataclasses
import functools
from typing import Any

import numpy as np
import optax

from acme_cbo.agents.grpo import agent
from acme_cbo.agents.grpo import optimizer as optimizer_lib
from acme_cbo.experiments import config as config_lib
from acme_cbo.networks import base as networks_base
from acme_cbo.networks import factory as network_factory
from acme_cbo.scms import config as scms_config

# Sections that decide nothing of what an update computes.
_NOT_OF_PARTS = (
  'name',
  'seed',
  'runtime',
  'simulator',
  'training',
  'evaluation',
)


@dataclasses.dataclass(frozen=True)
class Experiment:
  """A config and the parts that are built from it.

  Attributes:
    config: validated config of the run.
    parts: parts of an update.
    learning_rate: learning rate after a number of updates.
  """

  config: config_lib.GRPOConfig
  parts: agent.Parts
  learning_rate: Callable[[int], float]

  @property
  def parts_from(self) -> dict[str, Any]:
    """Values that decide what is traced, as JSON can hold them."""
    values = self.config.to_dict()
    return {
      **{name: x for name, x in values.items() if name not in _NOT_OF_PARTS},
      # Length of the learning-rate schedule.
      'num_updates': self.config.training.num_updates,
    }

  @property
  def can_be_replayed(self) -> bool:
    """Returns whether the updates depend on the config and the seed alone."""
    runtime = self.config.runtime
    in_lockstep = runtime.kind != 'threaded' or not runtime.max_lag
    return in_lockstep and not self.config.simulator


def from_config(config: config_lib.GRPOConfig) -> Experiment:
  """Builds the parts that a config describes.

  Args:
    config: config of a training run.

  Returns:
    The `Experiment`.

  Raises:
    errors.UsageError: a value cannot be used, see `GRPOConfig.validate`.
  """
  config.validate()
  optimizer, training = config.optimizer, config.training
  per_update = config.grpo.steps_per_update
  schedule = optimizer_lib.schedule(
    optimizer.learning_rate,
    warmup_steps=optimizer.warmup_updates * per_update,
    total_steps=max(training.num_updates, optimizer.warmup_updates + 1)
    * per_update,
    final_fraction=optimizer.final_fraction,
  )
  make = functools.partial(
    _parts,
    network=network_factory.make(config.network),
    optimizer=optimizer_lib.make_optimizer(
      schedule, optimizer.max_grad_norm, optimizer.weight_decay
    ),
  )
  parts = dataclasses.replace(
    make(config), other_sizes=tuple(map(make, config.of_further_sizes))
  )
  return Experiment(
    config=config,
    parts=parts,
    learning_rate=lambda update: np.asarray(
      schedule(update * per_update)
    ).item(),
  )


def _parts(
  config: config_lib.GRPOConfig,
  network: networks_base.Network,
  optimizer: optax.GradientTransformation,
) -> agent.Parts:
  """Returns the parts of one size."""
  return agent.Parts(
    network=network,
    optimizer=optimizer,
    prior=scms_config.Prior(
      **vars(config.scms),
      num_cells=config.network.num_cells,
      num_interventions=config.horizon.num_interventions,
    ),
    horizon=config.horizon,
    rewards=config.rewards,
    update=config.grpo,
  )
