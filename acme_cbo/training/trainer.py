"""Training loop and callback interface, independent of the domain.

One run calls, in this order:

  on_fit_start
  step -> on_train_batch_end -> logger.write -> on_after_log   (each update)
  on_fit_end

Evaluation, checkpoints and rates are callbacks. The step of every logged metric
is the number of updates made, read from the state.
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
  """Base class of callbacks; every hook does nothing unless overridden.

  Hooks have the names of Lightning's `Callback` where they mean the same. One
  update corresponds to Lightning's train batch, one evaluation on the held-out
  tasks to its validation:

    on_fit_start        as in Lightning: once, before the first update
    on_train_batch_end  as in Lightning: after each update, before its metrics
                        are logged; entries added to `metrics` are logged too
    on_validation_end   as in Lightning: after each evaluation; called by
                        `callbacks.Evaluation` from within one of its own hooks
    on_after_log        no counterpart: after the metrics of an update were
                        logged, when `metrics` is complete
    on_fit_end          as in Lightning: once, after the last update
    on_exception        as in Lightning: when the loop raised
    state_dict, load_state_dict
                        as in Lightning: state saved in checkpoints

  Instead of Lightning's module and batch, hooks receive the training state.
  They may use it only until they return: the next update may donate its
  buffers.

  Example:
    A callback in a module `my_callbacks`, and a config that names it:

    >>> import acme_cbo
    >>> class Entropy(acme_cbo.Callback):
    ...   def on_train_batch_end(self, trainer, state, metrics):
    ...     parts = 'policy/entropy_variable', 'policy/entropy_cell'
    ...     metrics['policy/entropy'] = sum(metrics[part] for part in parts)
    >>> config = acme_cbo.preset('smoke').override(
    ...   {'training.callbacks': ('my_callbacks:Entropy',)}
    ... )
  """

  def on_fit_start(self, trainer: Trainer[Any], state: Any) -> None:
    """Runs once, before the first update.

    Args:
      trainer: trainer that runs the loop.
      state: training state before the first update of this process.
    """

  def on_train_batch_end(
    self, trainer: Trainer[Any], state: Any, metrics: dict[str, float]
  ) -> None:
    """Runs after each update, before its metrics are logged.

    Args:
      trainer: trainer that runs the loop.
      state: training state after the update.
      metrics: metrics of the update by tag; entries may be added and are then
        logged with it.
    """

  def on_validation_end(
    self, trainer: Trainer[Any], state: Any, metrics: dict[str, float]
  ) -> None:
    """Runs after each evaluation on the held-out tasks.

    Args:
      trainer: trainer that runs the loop.
      state: training state that was evaluated.
      metrics: metrics of the evaluation by tag.
    """

  def on_after_log(
    self, trainer: Trainer[Any], state: Any, metrics: dict[str, float]
  ) -> None:
    """Runs after the metrics of an update were logged.

    Args:
      trainer: trainer that runs the loop.
      state: training state after the update.
      metrics: all metrics logged for the update by tag; not to be changed.
    """

  def on_fit_end(self, trainer: Trainer[Any], state: Any) -> None:
    """Runs once, after the last update.

    Args:
      trainer: trainer that runs the loop.
      state: training state after the last update.
    """

  def on_exception(
    self, trainer: Trainer[Any], exception: BaseException
  ) -> None:
    """Runs when the loop raised, which ends the training.

    Args:
      trainer: trainer that runs the loop.
      exception: exception that `Trainer.fit` raises after these hooks.
    """

  def state_dict(self) -> dict[str, Any]:
    """Returns the state to save in checkpoints, as JSON values."""
    return {}

  def load_state_dict(self, state: Mapping[str, Any]) -> None:
    """Restores the state that `state_dict` returned."""


_RAISED_BY = 'raised by the callback'


class State(Protocol):
  """Interface of training states: they count their updates."""

  @property
  def step(self) -> jax.Array:
    """Number of updates made, an int32 scalar."""


StateT = TypeVar('StateT', bound=State)


@dataclasses.dataclass
class Trainer(Generic[StateT]):
  """Runs updates, loggers and callbacks in a fixed order.

  Attributes:
    step: function that makes one update: state -> (new state, whose `step` is
      one more, and a flat dict of scalar metrics). It may donate the state.
    num_updates: number of updates of the whole run.
    logger: logger of all metrics; closed when `fit` returns or raises.
    callbacks: callbacks in the order in which their hooks are called.
    get_signal: function that returns the number of a signal received, or None;
      called after each update.
    to_local: function that converts the state for callbacks, such as to arrays
      on one device.
    updates: number of updates made.
    state: converted state after the latest update; None during an update.
    stop_reason: reason to end before `num_updates`, or None.

  Example:
    `acme_cbo.train` makes the trainer of a run. It runs other updates as well:

    >>> import acme_cbo
    >>> import collections
    >>> import jax.numpy as jnp
    >>> State = collections.namedtuple('State', 'step total')
    >>> def update(state):
    ...   after = State(state.step + 1, state.total + 2)
    ...   return after, {'total': after.total}
    >>> trainer = acme_cbo.Trainer(update, num_updates=3)
    >>> float(trainer.fit(State(jnp.int32(0), jnp.float32(0))).total)
    6.0
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
    """Trains until `num_updates` updates are made or a callback stops the run.

    Args:
      state: state to start from, after `state.step` updates; may be donated.

    Returns:
      State after the last update.

    Raises:
      FloatingPointError: a metric is not finite.
      errors.Interrupted: a signal was received; the current update was
        finished.
      BaseException: any exception of a part, unchanged, after the
        `on_exception` hooks ran. Notes on it name the callback that raised it
        and any failure of these hooks or of closing the logger.
    """
    self.state, self.updates = self.to_local(state), int(state.step)
    try:
      state = self._fit(state)
    except BaseException as exception:
      hooks = [
        functools.partial(callback.on_exception, self, exception)
        for callback in self.callbacks
      ]
      for clean_up in (*hooks, self.logger.close):
        try:
          clean_up()
        except Exception as error:  # noqa: BLE001 - keep the first exception.
          exception.add_note(f'Cleaning up failed too: {error!r}')
      raise
    self.logger.close()
    return state

  def stop(self, reason: str) -> None:
    """Ends the run after the current update; the first reason is kept.

    Args:
      reason: reason shown to the user, a sentence without a period.
    """
    self.stop_reason = self.stop_reason or reason

  def call_hooks(self, hook: str, *args: Any) -> None:
    """Calls one hook of every callback.

    Args:
      hook: name of the hook.
      *args: arguments of the hook after the trainer.

    Raises:
      Exception: exception of a callback, with a note that names the callback.
    """
    for callback in self.callbacks:
      with _note_callback(callback, hook):
        getattr(callback, hook)(self, *args)

  def state_dict(self) -> dict[str, Any]:
    """Returns the state of the logger and the callbacks, as JSON values."""
    states = {}
    for key, callback in self._callbacks_by_key():
      with _note_callback(callback, 'state_dict'):
        states[key] = callback.state_dict()
        json.dumps(states[key], allow_nan=False)
    return {
      'stop_reason': self.stop_reason,
      'logger': self.logger.state_dict(),
      'callbacks': states,
    }

  def load_state_dict(self, state: Mapping[str, Any]) -> None:
    """Restores the state of the logger and the callbacks.

    A run that a callback had stopped stays stopped.

    Args:
      state: return value of `state_dict`.

    Raises:
      errors.UsageError: data logged before `state_dict` is missing, and nothing
        was changed; or the state is not that of this logger and callbacks.
    """
    with _refuse_foreign_state('the logger'):
      self.logger.check_state_dict(state['logger'])
      self.logger.load_state_dict(state['logger'])
      self.stop_reason = state['stop_reason']
    for key, callback in self._callbacks_by_key():
      with _refuse_foreign_state(f'the callback {type(callback).__name__}'):
        callback.load_state_dict(state['callbacks'][key])

  def _fit(self, state: StateT) -> StateT:
    if self.updates > self.num_updates:
      raise ValueError(
        f'The state already has {self.updates} updates; num_updates is'
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

  def _callbacks_by_key(self) -> Iterator[tuple[str, Callback]]:
    """Yields callbacks with their keys in checkpoints, 'ClassName number'."""
    counts: dict[str, int] = {}
    for callback in self.callbacks:
      name = type(callback).__name__
      counts[name] = counts.get(name, 0) + 1
      yield f'{name} {counts[name]}', callback


@contextlib.contextmanager
def _refuse_foreign_state(owner: str) -> Iterator[None]:
  """Turns the errors of a state of another form into an `errors.UsageError`."""
  try:
    yield
  except errors.UsageError:
    raise
  except (
    ArithmeticError,
    AttributeError,
    LookupError,
    TypeError,
    ValueError,
  ) as error:
    raise errors.UsageError(
      f'the checkpoint has no state that {owner} can restore ({error!r}); '
      'resume from another one with --resume_step, or start a new run'
    ) from error


@contextlib.contextmanager
def _note_callback(callback: Callback, method: str) -> Iterator[None]:
  """Adds a note to an exception that names the callback that raised it."""
  try:
    yield
  except Exception as error:
    # A hook may call hooks of other callbacks; only the innermost is named.
    if not any(_RAISED_BY in note for note in errors.notes(error)):
      error.add_note(f'{_RAISED_BY} {type(callback).__name__} in {method}')
    raise
