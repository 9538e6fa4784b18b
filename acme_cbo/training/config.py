"""Settings of a training run. Nothing here needs jax."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
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
