"""Callbacks that log rates, histograms, figures and a profile."""

from __future__ import annotations

import collections
from collections.abc import Callable, Mapping
import pathlib
import statistics
from typing import Any

import jax
import numpy as np

from acme_cbo.training import trainer as trainer_lib

# Number of latest updates over which a rate is averaged.
WINDOW = 20


class Throughput(trainer_lib.Callback):
  """Logs updates and interventions per second.

  The first update of a process may include compilation: it is left out of the
  rates, and its duration is logged as `perf/first_update_seconds`.
  """

  def __init__(self, interventions_per_update: int):
    """Creates the callback.

    Args:
      interventions_per_update: number of interventions per update.
    """
    if interventions_per_update < 1:
      raise ValueError(
        f'interventions_per_update is {interventions_per_update}; it must be '
        'at least 1.'
      )
    self._interventions = interventions_per_update

  def on_fit_start(self, trainer: trainer_lib.Trainer[Any], state: Any) -> None:
    """Clears the measured durations."""
    self._seconds: collections.deque[float] | None = None

  def on_train_batch_end(
    self,
    trainer: trainer_lib.Trainer[Any],
    state: Any,
    metrics: dict[str, float],
  ) -> None:
    """Adds the rates over the latest updates to the metrics."""
    elapsed = metrics['perf/update_seconds']
    if self._seconds is None:
      self._seconds = collections.deque(maxlen=WINDOW)
      metrics['perf/first_update_seconds'] = elapsed
      return
    self._seconds.append(elapsed)
    rate = 1 / statistics.fmean(self._seconds)
    metrics['perf/updates_per_second'] = rate
    metrics['perf/interventions_per_second'] = rate * self._interventions


class LearningRate(trainer_lib.Callback):
  """Logs the learning rate at the start of each update."""

  def __init__(self, schedule: Callable[[int], float]):
    """Creates the callback.

    Args:
      schedule: number of updates made -> learning rate.
    """
    self._schedule = schedule

  def on_train_batch_end(
    self,
    trainer: trainer_lib.Trainer[Any],
    state: Any,
    metrics: dict[str, float],
  ) -> None:
    """Adds the learning rate to the metrics."""
    metrics['train/learning_rate'] = self._schedule(int(state.step) - 1)


class Histograms(trainer_lib.Callback):
  """Logs histograms with every evaluation."""

  def __init__(
    self, values: Mapping[str, Callable[[Any], Mapping[str, np.ndarray]]]
  ):
    """Creates the callback.

    Args:
      values: {prefix of the tags: state -> {rest of the tag: values}}.
    """
    self._values = dict(values)

  def on_validation_end(
    self,
    trainer: trainer_lib.Trainer[Any],
    state: Any,
    metrics: dict[str, float],
  ) -> None:
    """Writes one histogram for each tag."""
    for prefix, get_values in self._values.items():
      for name, values in get_values(state).items():
        tag = f'{prefix}/{name}'
        trainer.logger.write_histogram(int(state.step), tag, np.ravel(values))


class Figures(trainer_lib.Callback):
  """Logs figures of training curves with every evaluation."""

  def __init__(
    self, tags: str, figures: Mapping[str, Callable[[dict[str, Any]], Any]]
  ):
    """Creates the callback.

    Args:
      tags: prefix of the tags of the metrics whose curves are collected.
      figures: {tag: {metric: [n] values} -> matplotlib figure, or None while
        there is nothing to draw}.
    """
    self._tags = tags
    self._figures = dict(figures)
    self._curves: dict[str, list[float]] = {}

  def on_after_log(
    self,
    trainer: trainer_lib.Trainer[Any],
    state: Any,
    metrics: dict[str, float],
  ) -> None:
    """Extends the curves by the metrics of an update."""
    for tag, value in metrics.items():
      if tag.startswith(self._tags):
        self._curves.setdefault(tag, []).append(value)

  def on_validation_end(
    self,
    trainer: trainer_lib.Trainer[Any],
    state: Any,
    metrics: dict[str, float],
  ) -> None:
    """Draws and writes the figures."""
    curves = {tag: np.array(values) for tag, values in self._curves.items()}
    for tag, draw in self._figures.items():
      figure = draw(curves)
      if figure is not None:
        figure.canvas.draw()
        pixels = np.asarray(figure.canvas.buffer_rgba())[..., :3]
        trainer.logger.write_image(int(state.step), tag, pixels)

  def state_dict(self) -> dict[str, Any]:
    """Returns the curves so far."""
    return {'curves': self._curves}

  def load_state_dict(self, state: Mapping[str, Any]) -> None:
    """Restores the curves."""
    self._curves = {tag: list(x) for tag, x in state['curves'].items()}


class Profile(trainer_lib.Callback):
  """Writes a trace of some updates with jax's profiler."""

  def __init__(
    self, directory: pathlib.Path, first_update: int, num_updates: int
  ):
    """Creates the callback.

    Args:
      directory: output directory; Perfetto and TensorBoard's profile plugin
        read it.
      first_update: number of the first traced update, at least 2: no hook runs
        right before an update, so that tracing starts after the one before.
      num_updates: number of traced updates.
    """
    if first_update < 2:
      raise ValueError(
        f'first_update is {first_update}; it must be at least 2: tracing '
        'starts after an update'
      )
    self._directory = directory
    self._first = first_update
    self._last = first_update + num_updates - 1
    self._is_tracing = False

  def on_after_log(
    self,
    trainer: trainer_lib.Trainer[Any],
    state: Any,
    metrics: dict[str, float],
  ) -> None:
    """Starts or stops tracing between two updates."""
    if trainer.updates == self._first - 1:
      jax.profiler.start_trace(str(self._directory), create_perfetto_trace=True)
      self._is_tracing = True
    elif trainer.updates == self._last:
      self._stop_trace()

  def on_fit_end(self, trainer: trainer_lib.Trainer[Any], state: Any) -> None:
    """Writes the trace of a run that ended before the last traced update."""
    self._stop_trace()

  def on_exception(
    self, trainer: trainer_lib.Trainer[Any], exception: BaseException
  ) -> None:
    """Writes the trace so far."""
    self._stop_trace()

  def _stop_trace(self):
    if self._is_tracing:
      self._is_tracing = False
      jax.profiler.stop_trace()
