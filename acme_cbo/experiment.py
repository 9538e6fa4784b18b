"""From a config to wired parts."""

from collections.abc import Callable
import dataclasses
import typing
from typing import Any, Literal

import numpy as np

from acme_cbo import actor
from acme_cbo import learner
from acme_cbo import losses
from acme_cbo import networks
from acme_cbo import rewards
from acme_cbo import schema
from acme_cbo import simulators
from acme_cbo.runtimes import fused
from acme_cbo.scms import priors

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
class Batch:
  """Size of an update: B SCMs, a group of G rollouts on each."""

  num_tasks: int
  num_generations: int


@dataclasses.dataclass(frozen=True)
class Optimizer:
  """Muon with clipping, linear warm-up and cosine decay.

  Attributes:
    learning_rate: at its highest.
    warmup_updates: updates over which it rises.
    final_fraction: share of it that is left at the end.
    max_grad_norm: global norm at which a gradient is clipped.
    weight_decay: of the matrices.
  """

  learning_rate: float
  warmup_updates: int
  final_fraction: float
  max_grad_norm: float
  weight_decay: float


@dataclasses.dataclass(frozen=True)
class Runtime:
  """How actor and learner are run.

  Attributes:
    kind: 'fused', in turn on one device; 'mesh', so on all of them; 'threaded',
      beside each other.
    num_actors: of 'threaded', how many threads act.
    max_lag: of 'threaded', how many updates old the parameters may be that an
      actor acts with; 0 is lockstep.
    stall_seconds: of 'threaded', how long the learner waits for actors.
  """

  kind: Literal['fused', 'mesh', 'threaded']
  num_actors: int
  max_lag: int
  stall_seconds: float


@dataclasses.dataclass(frozen=True)
class Training:
  """Cadence of a run in updates, and when it stops before its end.

  Attributes:
    num_updates: of the whole run.
    eval_every: updates between two evaluations.
    checkpoint_every: updates between two checkpoints.
    max_checkpoints: how many of the latest are kept.
    best_checkpoints: how many are kept beside them of those with the highest
      held-out score at the last choice.
    quick_compile: compile quickly rather than well.
    patience: evaluations without a higher held-out score at the last choice
      after which the run stops; 0 is never.
    convergence_window: updates over which the reward has to stand still.
    convergence_tolerance: change over a window that does not matter.
    stop_when_converged: stop then.
    profile_from: the update from which a profile is written; 0 is never.
    profile_updates: how many updates that takes in.
    callbacks: 'module:Class' of each callback of the user's own.
  """

  num_updates: int
  eval_every: int
  checkpoint_every: int
  max_checkpoints: int
  best_checkpoints: int
  quick_compile: bool
  patience: int
  convergence_window: int
  convergence_tolerance: float
  stop_when_converged: bool
  profile_from: int
  profile_updates: int
  callbacks: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Evaluation:
  """The held-out SCMs.

  Attributes:
    num_tasks: how many.
    seed: from which they are drawn: the same for every training seed.
    bank_size: noise draws over which E[Y | do] is averaged.
    confidence: of every interval.
  """

  num_tasks: int
  seed: int
  bank_size: int
  confidence: float


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
  parts: fused.Parts
  parts_from: dict[str, Any]
  learning_rate: Callable[[int], float]
  runtime: Runtime
  simulator: simulators.Settings
  training: Training
  evaluation: Evaluation

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
    errors.UsageError: see `schema.check`.
  """
  schema.check(config)
  (architecture,) = _section(config, 'network', networks.Architecture)
  (prior,) = _section(
    config,
    'scms',
    priors.Prior,
    given={
      'num_cells': architecture.num_cells,
      'num_interventions': config['horizon']['num_interventions'],
    },
  )
  (horizon,) = _section(config, 'horizon', actor.Horizon)
  weights, kinds = _section(config, 'rewards', rewards.Weights, rewards.Kinds)
  grpo, settings, batch = _section(
    config, 'grpo', losses.Settings, learner.Settings, Batch
  )
  (optimizer,) = _section(config, 'optimizer', Optimizer)
  (runtime,) = _section(config, 'runtime', Runtime)
  (simulator,) = _section(config, 'simulator', simulators.Settings)
  (training,) = _section(config, 'training', Training)
  (evaluation,) = _section(config, 'evaluation', Evaluation)

  per_update = settings.steps_per_update
  schedule = learner.schedule(
    optimizer.learning_rate,
    warmup_steps=optimizer.warmup_updates * per_update,
    total_steps=max(training.num_updates, optimizer.warmup_updates + 1)
    * per_update,
    final_fraction=optimizer.final_fraction,
  )
  parts = fused.Parts(
    network=networks.make(architecture),
    optimizer=learner.make_optimizer(
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
