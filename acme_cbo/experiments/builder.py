"""Builds the parts of a training run from its config."""

from collections.abc import Callable
import dataclasses
from typing import Any

import numpy as np

from acme_cbo.agents.grpo import agent
from acme_cbo.agents.grpo import optimizer as optimizer_lib
from acme_cbo.experiments import config as config_lib
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
  horizon = config.horizon
  parts = agent.Parts(
    network=network_factory.make(config.network),
    optimizer=optimizer_lib.make_optimizer(
      schedule, optimizer.max_grad_norm, optimizer.weight_decay
    ),
    prior=scms_config.Prior(
      **vars(config.scms),
      num_cells=config.network.num_cells,
      num_interventions=horizon.num_interventions,
    ),
    horizon=horizon,
    rewards=config.rewards,
    update=config.grpo,
  )
  parts = dataclasses.replace(
    parts,
    other_sizes=tuple(
      _with_size(parts, *size) for size in horizon.further_sizes
    ),
  )
  return Experiment(
    config=config,
    parts=parts,
    learning_rate=lambda update: np.asarray(
      schedule(update * per_update)
    ).item(),
  )


def _with_size(
  parts: agent.Parts,
  num_observations: int,
  num_interventions: int,
  max_set_size: int,
  max_variables: int,
) -> agent.Parts:
  """Returns the parts for episodes and sets of another size."""
  return dataclasses.replace(
    parts,
    prior=dataclasses.replace(
      parts.prior,
      num_interventions=num_interventions,
      max_set_size=max_set_size,
      max_variables=max_variables,
    ),
    horizon=dataclasses.replace(
      parts.horizon,
      num_observations=num_observations,
      num_interventions=num_interventions,
      mixture='',
    ),
  )
