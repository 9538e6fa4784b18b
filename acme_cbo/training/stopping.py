"""Callbacks that end a run before its last update."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from acme_cbo.training import analysis
from acme_cbo.training import trainer as trainer_lib


class EarlyStopping(trainer_lib.Callback):
  """Stops the run after evaluations without a better score."""

  def __init__(self, tag: str, patience: int, min_delta: float = 0.0):
    """Creates the callback.

    Args:
      tag: tag of the evaluation metric; higher is better.
      patience: number of consecutive evaluations without a better value after
        which the run stops.
      min_delta: smallest increase that counts as better.
    """
    if patience < 1:
      raise ValueError(f'patience is {patience}; it must be at least 1.')
    self._tag = tag
    self._patience = patience
    self._min_delta = min_delta
    self._best: float | None = None
    self._since = 0

  def on_validation_end(
    self,
    trainer: trainer_lib.Trainer[Any],
    state: Any,
    metrics: dict[str, float],
  ) -> None:
    """Counts evaluations since the best one and stops the run."""
    value = metrics[self._tag]
    if self._best is None or value > self._best + self._min_delta:
      self._best, self._since = value, 0
      return
    self._since += 1
    if self._since >= self._patience:
      trainer.stop(
        f'{self._tag} was not above {self._best:.4g} in {self._since} '
        'evaluations in a row'
      )

  def state_dict(self) -> dict[str, Any]:
    """Returns the best value and the number of evaluations since then."""
    return {'best': self._best, 'since': self._since}

  def load_state_dict(self, state: Mapping[str, Any]) -> None:
    """Restores the best value and the number of evaluations since then."""
    self._best, self._since = state['best'], state['since']


class Convergence(trainer_lib.Callback):
  """Detects the update at which a metric has stopped changing.

  See `analysis.has_converged`.

  Attributes:
    converged_at: number of updates after which the metric had converged; None
      before that.
  """

  def __init__(self, tag: str, window: int, tolerance: float, stop: bool):
    """Creates the callback.

    Args:
      tag: tag of a metric of every update.
      window: number of updates over which the change is measured.
      tolerance: largest change over a window that counts as converged.
      stop: whether to end the run on convergence.
    """
    self._tag = tag
    self._window = window
    self._tolerance = tolerance
    self._stop = stop
    self._values: list[float] = []
    self.converged_at: int | None = None

  def on_after_log(
    self,
    trainer: trainer_lib.Trainer[Any],
    state: Any,
    metrics: dict[str, float],
  ) -> None:
    """Tests for convergence, until it is found."""
    self._values.append(metrics[self._tag])
    is_due = analysis.is_check_due(len(self._values), self._window)
    if self.converged_at is not None or not is_due:
      return
    values = np.array(self._values)
    if analysis.has_converged(values, self._window, self._tolerance):
      self.converged_at = int(state.step)
      if self._stop:
        trainer.stop(
          f'{self._tag} changes by less than {self._tolerance:g} in '
          f'{self._window} updates'
        )

  def state_dict(self) -> dict[str, Any]:
    """Returns all values so far and the update of convergence."""
    return {'values': self._values, 'converged_at': self.converged_at}

  def load_state_dict(self, state: Mapping[str, Any]) -> None:
    """Restores the values and the update of convergence."""
    self._values = list(state['values'])
    self.converged_at = state['converged_at']
