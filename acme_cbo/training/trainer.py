"""The training loop: a dataclass of parts and one visible function.

It knows the order of things and nothing of the domain:

  evaluate
  step -> log -> on_step_end     for every update
    evaluate -> on_eval_end      every `eval_every` updates and after the last

The x of every logged metric is the number of updates made, read from the state.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Mapping
import dataclasses
import functools
import math
import time
from typing import Any, Generic, Protocol, TypeVar

import jax
import numpy as np

from acme_cbo.training import callbacks as callbacks_lib
from acme_cbo.training import loggers

# Updates over which the logged rates are averaged.
_WINDOW = 20


class State(Protocol):
  """What the loop asks of a training state: how many updates made it."""

  @property
  def step(self) -> jax.Array:
    """The number of updates made, an int32 scalar."""


StateT = TypeVar('StateT', bound=State)


@dataclasses.dataclass(frozen=True)
class Trainer(Generic[StateT]):
  """Runs updates, evaluations, loggers and callbacks in a fixed order.

  Attributes:
    step: makes one update; it may donate the state that it is given. Returns
      the new state, whose `step` is one more, and a flat dict of scalars.
    evaluate: scores a state, which it must leave as it is.
    num_updates: the number of updates of the whole run.
    eval_every: updates between two evaluations.
    interventions_per_update: interventions that one update consumes.
    logger: receives every metric; closed when `fit` ends, however it ends.
    callbacks: called in this order at each of the five hooks.
  """

  step: Callable[[StateT], tuple[StateT, Mapping[str, Any]]]
  evaluate: Callable[[StateT], Mapping[str, Any]]
  num_updates: int
  eval_every: int
  interventions_per_update: int
  logger: loggers.Logger = dataclasses.field(default_factory=loggers.NoopLogger)
  callbacks: tuple[callbacks_lib.Callback, ...] = ()

  def __post_init__(self):
    for name, least in (
      ('num_updates', 0),
      ('eval_every', 1),
      ('interventions_per_update', 1),
    ):
      if getattr(self, name) < least:
        raise ValueError(
          f'{name} is {getattr(self, name)}; it must be at least {least}.'
        )

  def fit(self, state: StateT) -> StateT:
    """Trains until `num_updates` updates are made.

    Args:
      state: where to begin, at update `state.step`; `step` may donate it.

    Returns:
      The state after the last update.

    Raises:
      FloatingPointError: a metric is not finite.
      BaseException: whatever a part raised, unchanged, once every callback was
        told. A failure of that, or of closing the logger, is a note on it.
    """
    try:
      state = self._fit(state)
    except BaseException as exception:
      tell = [
        functools.partial(callback.on_exception, self, exception)
        for callback in self.callbacks
      ]
      for clean_up in (*tell, self.logger.close):
        try:
          clean_up()
        except Exception as error:  # noqa: BLE001 - it must not hide the first.
          exception.add_note(f'Cleaning up after it failed too: {error!r}')
      raise
    self.logger.close()
    return state

  def evaluates_after(self, updates: int) -> bool:
    """Says whether an evaluation follows that update."""
    return updates % self.eval_every == 0 or updates == self.num_updates

  def _fit(self, state: StateT) -> StateT:
    first = updates = int(state.step)
    if updates > self.num_updates:
      raise ValueError(
        f'The state has made {updates} updates already; num_updates is'
        f' {self.num_updates}.'
      )
    for callback in self.callbacks:
      callback.on_fit_start(self, state)
    self._evaluate(updates, state)

    seconds = collections.deque[float](maxlen=_WINDOW)
    while updates < self.num_updates:
      begin = time.perf_counter()
      state, metrics = self.step(state)
      updates += 1
      metrics = _to_floats(updates, metrics)  # Waits for the device.
      elapsed = time.perf_counter() - begin
      if int(state.step) != updates:
        raise ValueError(
          f'After update {updates} the step of the state is'
          f' {int(state.step)}; every update must add one.'
        )
      if updates == first + 1:
        metrics['perf/compile_seconds'] = elapsed
      else:
        seconds.append(elapsed)
        rate = len(seconds) / sum(seconds)
        metrics['perf/updates_per_second'] = rate
        metrics['perf/interventions_per_second'] = (
          rate * self.interventions_per_update
        )
      self.logger.write(updates, metrics)
      for callback in self.callbacks:
        callback.on_step_end(self, state, metrics)
      if self.evaluates_after(updates):
        self._evaluate(updates, state)

    for callback in self.callbacks:
      callback.on_fit_end(self, state)
    return state

  def _evaluate(self, updates: int, state: StateT) -> None:
    metrics = _to_floats(updates, self.evaluate(state))
    self.logger.write(updates, metrics)
    for callback in self.callbacks:
      callback.on_eval_end(self, state, metrics)


def _to_floats(updates: int, metrics: Mapping[str, Any]) -> dict[str, float]:
  """Fetches scalars to the host; raises unless all of them are finite."""
  arrays = {t: np.asarray(x) for t, x in jax.device_get(dict(metrics)).items()}
  shapes = {tag: x.shape for tag, x in arrays.items() if x.shape}
  if shapes:
    raise ValueError(f'Metrics must be scalars; got the shapes {shapes}.')
  floats = {tag: float(x) for tag, x in arrays.items()}
  bad = [f'{tag} = {x}' for tag, x in floats.items() if not math.isfinite(x)]
  if bad:
    raise FloatingPointError(
      f'After update {updates} these metrics are not finite: {", ".join(bad)}.'
    )
  return floats
