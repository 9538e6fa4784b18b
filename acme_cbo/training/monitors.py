"""What is shown of a training: rates, distributions, pictures, a profile."""

from __future__ import annotations

import collections
from collections.abc import Callable, Mapping
import pathlib
import statistics
from typing import Any

import jax
import numpy as np

from acme_cbo.training import trainer as trainer_lib

# Updates over which a rate is averaged.
WINDOW = 20


class Throughput(trainer_lib.Callback):
  """Logs rates without the first update, and what that took.

  In the first update of a process all is new, and may be compiled.
  """

  def __init__(self, interventions_per_update: int):
    """Takes how many interventions one update consumes."""
    if interventions_per_update < 1:
      raise ValueError(
        f'interventions_per_update is {interventions_per_update}; it must be '
        'at least 1.'
      )
    self._interventions = interventions_per_update

  def on_fit_start(self, trainer, state):
    """Starts to count."""
    self._seconds: collections.deque[float] | None = None

  def on_train_batch_end(self, trainer, state, metrics):
    """Adds the rates over the latest updates."""
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
  """Logs the learning rate that an update began with."""

  def __init__(self, schedule: Callable[[int], float]):
    """Takes the learning rate by the number of updates made."""
    self._schedule = schedule

  def on_train_batch_end(self, trainer, state, metrics):
    """Adds it."""
    metrics['train/learning_rate'] = self._schedule(int(state.step) - 1)


class Histograms(trainer_lib.Callback):
  """Logs how numbers are distributed, with every evaluation."""

  def __init__(
    self, values: Mapping[str, Callable[[Any], Mapping[str, np.ndarray]]]
  ):
    """Chooses what is looked at.

    Args:
      values: {prefix of the tags: state -> {rest of the tag: numbers}}.
    """
    self._values = dict(values)

  def on_validation_end(self, trainer, state, metrics):
    """Writes them."""
    for prefix, of_state in self._values.items():
      for name, numbers in of_state(state).items():
        tag = f'{prefix}/{name}'
        trainer.logger.write_histogram(int(state.step), tag, np.ravel(numbers))


class Figures(trainer_lib.Callback):
  """Logs pictures, with every evaluation."""

  def __init__(
    self, tags: str, figures: Mapping[str, Callable[[dict[str, Any]], Any]]
  ):
    """Chooses what is drawn.

    Args:
      tags: beginning of those of the metrics whose curves are drawn.
      figures: {tag: {metric: [n] values} -> matplotlib figure, or None where
        there is nothing to draw yet}.
    """
    self._tags = tags
    self._figures = dict(figures)
    self._curves: dict[str, list[float]] = {}

  def on_after_log(self, trainer, state, metrics):
    """Remembers the curves."""
    for tag, value in metrics.items():
      if tag.startswith(self._tags):
        self._curves.setdefault(tag, []).append(value)

  def on_validation_end(self, trainer, state, metrics):
    """Draws."""
    curves = {tag: np.array(values) for tag, values in self._curves.items()}
    for tag, draw in self._figures.items():
      figure = draw(curves)
      if figure is not None:
        figure.canvas.draw()
        pixels = np.asarray(figure.canvas.buffer_rgba())[..., :3]
        trainer.logger.write_image(int(state.step), tag, pixels)

  def state_dict(self):
    """The curves so far."""
    return {'curves': self._curves}

  def load_state_dict(self, state):
    """Goes on with them."""
    self._curves = {tag: list(x) for tag, x in state['curves'].items()}


class Profile(trainer_lib.Callback):
  """Writes a trace of some updates, by jax's profiler."""

  def __init__(
    self, directory: pathlib.Path, first_update: int, num_updates: int
  ):
    """Chooses what is traced.

    Args:
      directory: where the trace goes; Perfetto and TensorBoard's profile plugin
        read it.
      first_update: the first that is traced, from 2: what is before an update
        ends is not known, so that it begins when the one before has ended.
      num_updates: how many.
    """
    if first_update < 2:
      raise ValueError(
        f'first_update is {first_update}; it must be 2 or more: a trace begins '
        'after an update'
      )
    self._directory = directory
    self._first = first_update
    self._last = first_update + num_updates - 1
    self._traces = False

  def on_after_log(self, trainer, state, metrics):
    """Begins and ends between two updates."""
    if trainer.updates == self._first - 1:
      jax.profiler.start_trace(str(self._directory), create_perfetto_trace=True)
      self._traces = True
    elif trainer.updates == self._last:
      self._end()

  def on_fit_end(self, trainer, state):
    """Ends what a short run left open."""
    self._end()

  def on_exception(self, trainer, exception):
    """Writes what there is."""
    self._end()

  def _end(self):
    if self._traces:
      self._traces = False
      jax.profiler.stop_trace()
