"""The training loop: a dataclass of parts and one visible function.

It knows the order of things and nothing of the domain:

  on_fit_start
  step -> on_train_batch_end -> log -> on_after_log      for every update
  on_fit_end

Evaluations, checkpoints, rates and all else are callbacks. The x of every
logged metric is the number of updates made, read from the state.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
import contextlib
import dataclasses
import functools
import json
import time
from typing import Any, Generic, Protocol, TypeVar

import jax

from acme_cbo.infra import errors
from acme_cbo.training import loggers
from acme_cbo.training import scalars


class Callback:
  """Base of all callbacks: each hook does nothing until it is overridden.

  `state` is lent until the hook returns: the next update may donate it.
  """

  def on_fit_start(self, trainer: Trainer, state: Any) -> None:
    """Called once, before the first update."""

  def on_train_batch_end(
    self, trainer: Trainer, state: Any, metrics: dict[str, float]
  ) -> None:
    """Called after each update; what is added to the metrics is logged."""

  def on_validation_end(
    self, trainer: Trainer, state: Any, metrics: dict[str, float]
  ) -> None:
    """Called by `Evaluation` with what it found."""

  def on_after_log(
    self, trainer: Trainer, state: Any, metrics: dict[str, float]
  ) -> None:
    """Called after each update, once all its metrics are logged."""

  def on_fit_end(self, trainer: Trainer, state: Any) -> None:
    """Called once, after the last update."""

  def on_exception(self, trainer: Trainer, exception: BaseException) -> None:
    """Called when anything in the loop raised, which ends the training."""

  def state_dict(self) -> dict[str, Any]:
    """What it has to know to go on after a restart, as JSON can hold it."""
    return {}

  def load_state_dict(self, state: Mapping[str, Any]) -> None:
    """Goes on from what `state_dict` gave."""


_RAISED_BY = 'raised by the callback'


class State(Protocol):
  """What the loop asks of a training state: how many updates made it."""

  @property
  def step(self) -> jax.Array:
    """The number of updates made, an int32 scalar."""


StateT = TypeVar('StateT', bound=State)


@dataclasses.dataclass
class Trainer(Generic[StateT]):
  """Runs updates, loggers and callbacks in a fixed order.

  Attributes:
    step: makes one update; it may donate the state that it is given. Returns
      the new state, whose `step` is one more, and a flat dict of scalars.
    num_updates: the number of updates of the whole run.
    logger: receives every metric; closed when `fit` ends, however it ends.
    callbacks: called in this order at each of the hooks.
    get_signal: asked after each update for the number of a signal that came
      in, if one did.
    to_local: what of a state callbacks are shown.
    updates: how many were made.
    state: what is shown of the state after the last update; None while the next
      one is made.
    stop_reason: why the run ends before its last update, if it does.
  """

  step: Callable[[StateT], tuple[StateT, Mapping[str, Any]]]
  num_updates: int
  logger: loggers.Logger = dataclasses.field(default_factory=loggers.NoopLogger)
  callbacks: tuple[Callback, ...] = ()
  get_signal: Callable[[], int | None] = lambda: None
  to_local: Callable[[StateT], StateT] = lambda state: state
  updates: int = dataclasses.field(default=0, init=False)
  state: StateT | None = dataclasses.field(default=None, init=False)
  stop_reason: str | None = dataclasses.field(default=None, init=False)

  def __post_init__(self):
    if self.num_updates < 0:
      raise ValueError(
        f'num_updates is {self.num_updates}; it must be at least 0.'
      )

  def fit(self, state: StateT) -> StateT:
    """Trains until `num_updates` updates are made or a callback stops it.

    Args:
      state: where to begin, at update `state.step`; `step` may donate it.

    Returns:
      The state after the last update.

    Raises:
      FloatingPointError: a metric is not finite.
      errors.Interrupted: a signal came in; the update under way was finished.
      BaseException: whatever a part raised, unchanged, once every callback was
        told. Which callback it was, and a failure of the telling or of closing
        the logger, are notes on it.
    """
    self.state, self.updates = self.to_local(state), int(state.step)
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

  def stop(self, reason: str) -> None:
    """Ends the run after the update under way; called by callbacks."""
    self.stop_reason = self.stop_reason or reason

  def call_hooks(self, hook: str, *what: Any) -> None:
    """Calls a hook of every callback; one that raises is named.

    Args:
      hook: its name.
      *what: its arguments after the trainer.

    Raises:
      Exception: what a callback raised, with its name as a note.
    """
    for callback in self.callbacks:
      with _naming(callback, hook):
        getattr(callback, hook)(self, *what)

  def state_dict(self) -> dict[str, Any]:
    """What loggers and callbacks have to know to go on, as JSON can hold it."""
    known = {}
    for name, callback in self._named():
      with _naming(callback, 'state_dict'):
        known[name] = callback.state_dict()
        json.dumps(known[name], allow_nan=False)
    return {
      'stop_reason': self.stop_reason,
      'logger': self.logger.state_dict(),
      'callbacks': known,
    }

  def load_state_dict(self, state: Mapping[str, Any]) -> None:
    """Goes on from where `state_dict` was taken, which may be a stop.

    Raises:
      errors.UsageError: what was logged by then is not there any more; nothing
        was changed.
    """
    self.logger.check_state_dict(state['logger'])
    self.logger.load_state_dict(state['logger'])
    self.stop_reason = state['stop_reason']
    for name, callback in self._named():
      with _naming(callback, 'load_state_dict'):
        callback.load_state_dict(state['callbacks'][name])

  def _fit(self, state: StateT) -> StateT:
    if self.updates > self.num_updates:
      raise ValueError(
        f'The state has made {self.updates} updates already; num_updates is'
        f' {self.num_updates}.'
      )
    self.call_hooks('on_fit_start', self.state)
    while self.updates < self.num_updates and self.stop_reason is None:
      begin = time.perf_counter()
      self.state = None
      state, arrays = self.step(state)
      updates = self.updates + 1
      metrics = scalars.to_finite_floats(f'After update {updates}', arrays)
      metrics['perf/update_seconds'] = time.perf_counter() - begin
      if int(state.step) != updates:
        raise ValueError(
          f'After update {updates} the step of the state is'
          f' {int(state.step)}; every update must add one.'
        )
      self.state, self.updates = self.to_local(state), updates
      self.call_hooks('on_train_batch_end', self.state, metrics)
      self.logger.write(
        updates, scalars.to_finite_floats(f'After update {updates}', metrics)
      )
      self.call_hooks('on_after_log', self.state, metrics)
      if signal := self.get_signal():
        raise errors.Interrupted(signal, f'after update {updates}')
    self.call_hooks('on_fit_end', self.state)
    return state

  def _named(self) -> Iterator[tuple[str, Callback]]:
    """Callbacks by their class and, of one class, by their number."""
    seen: dict[str, int] = {}
    for callback in self.callbacks:
      name = type(callback).__name__
      seen[name] = seen.get(name, 0) + 1
      yield f'{name} {seen[name]}', callback


@contextlib.contextmanager
def _naming(callback: Callback, method: str) -> Iterator[None]:
  """Adds to an exception which callback raised it."""
  try:
    yield
  except Exception as error:
    # Callbacks may tell others: the innermost is the one.
    if not any(_RAISED_BY in note for note in errors.notes(error)):
      error.add_note(f'{_RAISED_BY} {type(callback).__name__} in {method}')
    raise
