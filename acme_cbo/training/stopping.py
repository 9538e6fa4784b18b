"""When a run ends before its last update."""

from __future__ import annotations

from typing import Any

import numpy as np

from acme_cbo.training import analysis
from acme_cbo.training import trainer as trainer_lib


class EarlyStopping(trainer_lib.Callback):
  """Stops after evaluations that brought nothing better."""

  def __init__(self, tag: str, patience: int, min_delta: float = 0.0):
    """Chooses what has to get better.

    Args:
      tag: of the metric of an evaluation; higher is better.
      patience: evaluations in a row without a better one.
      min_delta: by how much a better one is better.
    """
    if patience < 1:
      raise ValueError(f'patience is {patience}; it must be at least 1.')
    self._tag = tag
    self._patience = patience
    self._min_delta = min_delta
    self._best: float | None = None
    self._since = 0

  def on_validation_end(self, trainer, state, metrics):
    """Counts."""
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
    """The best value and how long ago it was."""
    return {'best': self._best, 'since': self._since}

  def load_state_dict(self, state):
    """Goes on counting."""
    self._best, self._since = state['best'], state['since']


class Convergence(trainer_lib.Callback):
  """Finds the update at which a metric has stopped changing.

  See `analysis.has_converged`.
  """

  def __init__(self, tag: str, window: int, tolerance: float, stop: bool):
    """Chooses what has to stand still.

    Args:
      tag: of a metric of every update.
      window: updates over which it has to.
      tolerance: change over a window that does not matter.
      stop: whether the run ends then.
    """
    self._tag = tag
    self._window = window
    self._tolerance = tolerance
    self._stop = stop
    self._values: list[float] = []
    self.converged_at: int | None = None

  def on_after_log(self, trainer, state, metrics):
    """Asks, unless it was found."""
    self._values.append(metrics[self._tag])
    asked = analysis.is_check_due(len(self._values), self._window)
    if self.converged_at is not None or not asked:
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
    """All values so far."""
    return {'values': self._values, 'converged_at': self.converged_at}

  def load_state_dict(self, state):
    """Goes on with them."""
    self._values = list(state['values'])
    self.converged_at = state['converged_at']
