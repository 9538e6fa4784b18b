"""From a config to wired parts."""

from collections.abc import Callable
import dataclasses
import typing
from typing import Any

import numpy as np

from acme_cbo.agents.grpo import agent
from acme_cbo.agents.grpo import config as grpo_config
from acme_cbo.agents.grpo import optimizer as optimizer_lib
from acme_cbo.environments import config as environments_config
from acme_cbo.environments import environment
from acme_cbo.evaluation import config as evaluation_config
from acme_cbo.infra import config_schema
from acme_cbo.networks import config as networks_config
from acme_cbo.networks import transformer
from acme_cbo.runtimes import config as runtimes_config
from acme_cbo.scms import config as scms_config
from acme_cbo.training import config as training_config

# Of a config; all else decides what an update is made of.
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
  """Everything that a run is made of, checked.

  Attributes:
    name: of the run.
    seed: of the training.
    parts: of an update.
    parts_from: the values of the config that the parts are made from.
    learning_rate: by the number of updates made.
    runtime: how it is run.
    simulator: where its systems come from, if not from the prior.
    training: its cadence, and when it stops.
    evaluation: the held-out SCMs.
  """

  name: str
  seed: int
  parts: agent.Parts
  parts_from: dict[str, Any]
  learning_rate: Callable[[int], float]
  runtime: runtimes_config.RuntimeConfig
  simulator: environments_config.SimulatorConfig
  training: training_config.TrainingConfig
  evaluation: evaluation_config.HeldOutConfig

  @property
  def can_be_replayed(self) -> bool:
    """Whether its updates do not depend on time, nor on what is no program."""
    in_lockstep = self.runtime.kind != 'threaded' or not self.runtime.max_lag
    return in_lockstep and not self.simulator


def from_config(config: dict[str, Any]) -> Experiment:
  """Wires the parts that a config describes.

  Args:
    config: {section: {field: value}}, as `configs/grpo.py` makes it.

  Returns:
    The `Experiment`.

  Raises:
    errors.UsageError: see `config_schema.check`.
  """
  config_schema.check(config)
  (architecture,) = _section(config, 'network', networks_config.NetworkConfig)
  (prior,) = _section(
    config,
    'scms',
    scms_config.PriorConfig,
    given={
      'num_cells': architecture.num_cells,
      'num_interventions': config['horizon']['num_interventions'],
    },
  )
  (horizon,) = _section(config, 'horizon', environment.Horizon)
  weights, kinds = _section(
    config, 'rewards', grpo_config.RewardWeights, grpo_config.RewardKinds
  )
  grpo, settings, batch = _section(
    config,
    'grpo',
    grpo_config.LossConfig,
    grpo_config.LearnerConfig,
    grpo_config.BatchConfig,
  )
  (optimizer,) = _section(config, 'optimizer', grpo_config.OptimizerConfig)
  (runtime,) = _section(config, 'runtime', runtimes_config.RuntimeConfig)
  (simulator,) = _section(
    config, 'simulator', environments_config.SimulatorConfig
  )
  (training,) = _section(config, 'training', training_config.TrainingConfig)
  (evaluation,) = _section(
    config, 'evaluation', evaluation_config.HeldOutConfig
  )

  per_update = settings.steps_per_update
  schedule = optimizer_lib.schedule(
    optimizer.learning_rate,
    warmup_steps=optimizer.warmup_updates * per_update,
    total_steps=max(training.num_updates, optimizer.warmup_updates + 1)
    * per_update,
    final_fraction=optimizer.final_fraction,
  )
  parts = agent.Parts(
    network=transformer.make(architecture),
    optimizer=optimizer_lib.make_optimizer(
      schedule, optimizer.max_grad_norm, optimizer.weight_decay
    ),
    prior=prior,
    horizon=horizon,
    num_tasks=batch.num_tasks,
    num_generations=batch.num_generations,
    weights=weights,
    kinds=kinds,
    settings=settings,
    grpo=grpo,
  )
  return Experiment(
    name=config['name'],
    seed=config['seed'],
    parts=parts,
    parts_from={
      **{k: v for k, v in config.items() if k not in _NOT_OF_PARTS},
      'num_updates': training.num_updates,
    },
    learning_rate=lambda update: np.asarray(
      schedule(update * per_update)
    ).item(),
    runtime=runtime,
    simulator=simulator,
    training=training,
    evaluation=evaluation,
  )


def _section(
  config: dict[str, Any],
  section: str,
  *classes: Any,
  given: dict[str, Any] | None = None,
) -> list[Any]:
  """Builds dataclasses or NamedTuples from one section of a config.

  Args:
    config: all of it, checked.
    section: its part; holds every field of every class.
    *classes: what is built.
    given: fields that another section holds.

  Returns:
    One instance of each class.
  """
  # A tuple given as a list is one; settings are hashed.
  known = {
    name: tuple(value) if isinstance(value, list) else value
    for name, value in (config[section] | (given or {})).items()
  }
  return [
    cls(**{name: known[name] for name in typing.get_type_hints(cls)})
    for cls in classes
  ]
