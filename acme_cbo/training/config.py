"""Config of a training run. Nothing here needs jax."""

import dataclasses
from typing import Any

from acme_cbo.infra import config_schema
from acme_cbo.infra import errors

_MANY = 10**7


@dataclasses.dataclass(frozen=True)
class TrainingConfig(config_schema.Section):
  """Length and cadence of a run in updates, and when it stops early."""

  num_updates: int = config_schema.field(
    260, 'number of updates of the run', low=0, high=_MANY
  )
  eval_every: int = config_schema.field(
    20, 'number of updates between two evaluations', low=1, high=_MANY
  )
  checkpoint_every: int = config_schema.field(
    60, 'number of updates between two checkpoints', low=1, high=_MANY
  )
  max_checkpoints: int = config_schema.field(
    3, 'number of latest checkpoints to keep', low=1, high=10**4
  )
  best_checkpoints: int = config_schema.field(
    1,
    'number of checkpoints with the best held-out scores (last intervention) '
    'to keep as well',
    low=0,
    high=10**4,
  )
  # Half the time to compile, and half the speed after it: for a few updates.
  quick_compile: bool = config_schema.field(
    False, 'whether programs compile in half the time and run at half the speed'
  )
  patience: int = config_schema.field(
    0,
    'number of evaluations without a better held-out score before the run '
    'stops; 0: never',
    low=0,
    high=_MANY,
  )
  convergence_window: int = config_schema.field(
    100,
    'number of updates over which a converged reward does not change',
    low=40,
    high=_MANY,
  )
  convergence_tolerance: float = config_schema.field(
    0.02,
    'largest change of the reward over a window that counts as no change',
    low=1e-12,
    high=1e6,
  )
  stop_when_converged: bool = config_schema.field(
    False, 'whether the run stops once the reward has converged'
  )
  profile_from: int = config_schema.field(
    0,
    'first update that is profiled, from 2 on; 0: no profile',
    low=0,
    high=_MANY,
  )
  profile_updates: int = config_schema.field(
    3, 'number of updates that are profiled', low=1, high=_MANY
  )
  callbacks: tuple[str | tuple[str, dict[str, Any]], ...] = config_schema.field(
    (),
    "your own callbacks: 'module:Class' or ('module:Class', {argument: value})",
    pattern=r'[\w.]+:\w+',
    form="'module:Class'",
    with_arguments=True,
  )

  def check(self, path: str) -> None:
    """Raises where something is asked for that would never happen."""
    if self.profile_from > self.num_updates:
      raise errors.UsageError(
        f'{path}.profile_from is {self.profile_from}, after the last update, '
        f'which is {self.num_updates}'
      )
    if self.stop_when_converged and self.convergence_window > self.num_updates:
      raise errors.UsageError(
        f'{path}.stop_when_converged is True, and convergence_window is '
        f'{self.convergence_window}, longer than the run of '
        f'{self.num_updates} updates'
      )
    if self.profile_from == 1:
      raise errors.UsageError(
        f'{path}.profile_from is 1; it must be 0, for never, or 2 or more: a '
        'trace begins after an update'
      )
