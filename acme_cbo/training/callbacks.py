"""Evaluation and checkpointing callbacks, and loading of callbacks by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import importlib
import inspect
from typing import Any

import jax
import jax.numpy as jnp

from acme_cbo.infra import errors
from acme_cbo.training import checkpoints
from acme_cbo.training import scalars
from acme_cbo.training import trainer as trainer_lib


def load(
  entries: Sequence[str | Sequence[Any]],
) -> tuple[trainer_lib.Callback, ...]:
  """Makes the callbacks that a config names.

  Args:
    entries: 'module:Class' of each, or a pair of it and a dict of keyword
      arguments of its constructor.

  Returns:
    The callbacks.

  Raises:
    errors.UsageError: there is no such class, it is no `Callback`, or it takes
      other arguments.
  """
  return tuple(
    _make(entry, {}) if isinstance(entry, str) else _make(*entry)
    for entry in entries
  )


def _make(name: str, arguments: Mapping[str, Any]) -> trainer_lib.Callback:
  """Makes one callback."""
  field = 'config.training.callbacks'
  module, _, cls = name.partition(':')
  try:
    callback = getattr(importlib.import_module(module), cls)
  except (ImportError, AttributeError) as error:
    raise errors.UsageError(
      f'{field} has {name!r}, which cannot be imported: {error}'
    ) from error
  if not (
    isinstance(callback, type) and issubclass(callback, trainer_lib.Callback)
  ):
    raise errors.UsageError(
      f'{field} has {name!r}, which is no subclass of '
      'acme_cbo.training.trainer.Callback'
    )
  _check_arguments(field, name, callback, arguments)
  return callback(**arguments)


def _check_arguments(
  field: str,
  name: str,
  callback: type[trainer_lib.Callback],
  arguments: Mapping[str, Any],
) -> None:
  """Raises unless the constructor of a callback takes these arguments."""
  signature = inspect.signature(callback)
  parameters = signature.parameters
  takes_any = any(
    parameter.kind is inspect.Parameter.VAR_KEYWORD
    for parameter in parameters.values()
  )
  for argument in arguments:
    if argument not in parameters and not takes_any:
      hint = errors.did_you_mean(argument, list(parameters))
      raise errors.UsageError(
        f'{field} has {name!r} with the argument {argument!r}, which '
        f'{callback.__name__}{signature} does not take{hint}'
      )
  try:
    signature.bind(**arguments)
  except TypeError as error:
    raise errors.UsageError(
      f'{field} has {name!r} with wrong arguments for '
      f'{callback.__name__}{signature}: {error}'
    ) from error


class Evaluation(trainer_lib.Callback):
  """Evaluates the initial state, every so many updates, and the final state.

  The initial state is evaluated after the first update, so that compilation of
  the evaluation does not delay that update. Calls the `on_validation_end` hooks
  of all callbacks.
  """

  def __init__(self, evaluate: Callable[[Any], Mapping[str, Any]], every: int):
    """Creates the callback.

    Args:
      evaluate: state, which must not be modified -> scalar metrics by tag.
      every: number of updates between two evaluations.
    """
    if every < 1:
      raise ValueError(f'every is {every}; it must be at least 1.')
    self._evaluate = evaluate
    self._every = every
    self._latest = -1
    self._initial_state: Any = None

  def num_remaining(self, trainer: trainer_lib.Trainer[Any]) -> int:
    """Returns the number of evaluations that are still to come.

    Args:
      trainer: trainer that runs the loop.
    """
    last, every = trainer.num_updates, self._every
    at_the_end = self._latest < last and last % every > 0
    return last // every - self._latest // every + at_the_end

  def _is_due(self, trainer: trainer_lib.Trainer[Any], updates: int) -> bool:
    return updates % self._every == 0 or updates == trainer.num_updates

  def on_fit_start(self, trainer: trainer_lib.Trainer[Any], state: Any) -> None:
    """Copies the initial state, which the first update may donate."""
    if self._latest < 0:
      copy = jax.jit(lambda state: jax.tree.map(jnp.copy, state))
      self._initial_state = copy(state)

  def on_train_batch_end(
    self,
    trainer: trainer_lib.Trainer[Any],
    state: Any,
    metrics: dict[str, float],
  ) -> None:
    """Evaluates the state if that is due, and adds the metrics."""
    if self._is_due(trainer, int(state.step)):
      self._evaluate_initial_state(trainer)
      metrics.update(self._run(trainer, state))

  def on_after_log(
    self,
    trainer: trainer_lib.Trainer[Any],
    state: Any,
    metrics: dict[str, float],
  ) -> None:
    """Evaluates the initial state after the first update."""
    self._evaluate_initial_state(trainer)

  def on_fit_end(self, trainer: trainer_lib.Trainer[Any], state: Any) -> None:
    """Evaluates the final state unless its update was evaluated."""
    self._evaluate_initial_state(trainer)
    if self._latest != int(state.step):
      self._run_and_log(trainer, state)

  def state_dict(self) -> dict[str, Any]:
    """Returns the number of the latest evaluated update."""
    return {'latest': self._latest}

  def load_state_dict(self, state: Mapping[str, Any]) -> None:
    """Restores the number of the latest evaluated update."""
    self._latest = state['latest']

  def _evaluate_initial_state(self, trainer: trainer_lib.Trainer[Any]) -> None:
    state, self._initial_state = self._initial_state, None
    if state is not None:
      self._run_and_log(trainer, state)

  def _run_and_log(self, trainer: trainer_lib.Trainer[Any], state: Any) -> None:
    """Evaluates a state and logs the metrics in a row of their own."""
    trainer.logger.write(int(state.step), self._run(trainer, state))

  def _run(
    self, trainer: trainer_lib.Trainer[Any], state: Any
  ) -> dict[str, float]:
    self._latest = int(state.step)
    metrics = scalars.to_finite_floats(
      f'In the evaluation after update {self._latest}', self._evaluate(state)
    )
    trainer.call_hooks('on_validation_end', state, metrics)
    return metrics


class Checkpoint(trainer_lib.Callback):
  """Saves the state periodically, after evaluations, and at both ends.

  It has to come after every callback whose state a checkpoint should hold.
  After an interruption it saves the state of the last update; after any other
  exception it saves nothing. The metadata of a checkpoint are the given ones,
  the latest metrics, and the state of the logger and the callbacks.
  """

  def __init__(
    self,
    checkpointer: checkpoints.Checkpointer,
    every: int,
    metadata: Mapping[str, Any],
    score: str = '',
  ):
    """Creates the callback.

    Args:
      checkpointer: writer of the checkpoints.
      every: number of updates between two checkpoints.
      metadata: JSON values to save with each checkpoint.
      score: tag of the evaluation metric by which the best checkpoints are
        kept.
    """
    if every < 1:
      raise ValueError(f'every is {every}; it must be at least 1.')
    self._checkpointer = checkpointer
    self._every = every
    self._metadata = dict(metadata)
    self._score = score
    self._metrics: dict[str, float] = {}

  def on_fit_start(self, trainer: trainer_lib.Trainer[Any], state: Any) -> None:
    """Saves the initial state, unless its checkpoint exists."""
    self._save_once(trainer, state)

  def on_after_log(
    self,
    trainer: trainer_lib.Trainer[Any],
    state: Any,
    metrics: dict[str, float],
  ) -> None:
    """Saves the state if that is due or it was evaluated."""
    self._metrics = metrics
    if int(state.step) % self._every == 0 or self._score in metrics:
      self._save(trainer, state)

  def on_fit_end(self, trainer: trainer_lib.Trainer[Any], state: Any) -> None:
    """Saves the final state, unless its checkpoint exists."""
    self._save_once(trainer, state)

  def on_exception(
    self, trainer: trainer_lib.Trainer[Any], exception: BaseException
  ) -> None:
    """Saves the state of the last update after an interruption."""
    if isinstance(exception, errors.Interrupted):
      self._save_once(trainer, trainer.state)

  def _save_once(self, trainer: trainer_lib.Trainer[Any], state: Any) -> None:
    if self._checkpointer.latest_step() != int(state.step):
      self._save(trainer, state)

  def _save(self, trainer: trainer_lib.Trainer[Any], state: Any) -> None:
    self._checkpointer.save(
      int(state.step),
      state,
      {
        **self._metadata,
        'step': int(state.step),
        'metrics': self._metrics,
        'trainer': trainer.state_dict(),
      },
      self._metrics.get(self._score),
    )
