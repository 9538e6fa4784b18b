"""What happens beside the updates: the hooks, and what every run has."""

from __future__ import annotations

from collections.abc import Callable, Mapping
import importlib
from typing import Any

import jax
import jax.numpy as jnp

from acme_cbo.infra import errors
from acme_cbo.training import checkpoints
from acme_cbo.training import scalars
from acme_cbo.training import trainer as trainer_lib


def load(names: tuple[str, ...]) -> tuple[trainer_lib.Callback, ...]:
  """Makes callbacks by their names.

  Args:
    names: 'module:Class' of each; made without arguments.

  Returns:
    The callbacks.

  Raises:
    errors.UsageError: there is no such class, or it is no `Callback`.
  """
  made = []
  for name in names:
    module, _, cls = name.partition(':')
    try:
      found = getattr(importlib.import_module(module), cls)
    except (ImportError, AttributeError) as error:
      raise errors.UsageError(
        f'config.training.callbacks has {name!r}, which cannot be imported: '
        f'{error}'
      ) from error
    if not (
      isinstance(found, type) and issubclass(found, trainer_lib.Callback)
    ):
      raise errors.UsageError(
        f'config.training.callbacks has {name!r}, which is no subclass of '
        'acme_cbo.training.trainer.Callback'
      )
    made.append(found())
  return tuple(made)


class Evaluation(trainer_lib.Callback):
  """Scores what the run begins with, then every so often, and at the end.

  What it begins with is scored after the first update: what an evaluation
  compiles would keep that one waiting. Tells the other callbacks by
  `on_validation_end`.
  """

  def __init__(self, evaluate: Callable[[Any], Mapping[str, Any]], every: int):
    """Chooses what to ask and how often.

    Args:
      evaluate: scores a state, which it must leave as it is: scalars by tag.
      every: updates between two evaluations.
    """
    if every < 1:
      raise ValueError(f'every is {every}; it must be at least 1.')
    self._evaluate = evaluate
    self._every = every
    self._latest = -1
    self._begun_with: Any = None

  def num_remaining(self, trainer: trainer_lib.Trainer) -> int:
    """How many evaluations there will be after the latest."""
    last, every = trainer.num_updates, self._every
    at_the_end = self._latest < last and last % every > 0
    return last // every - self._latest // every + at_the_end

  def _is_due(self, trainer, updates):
    return updates % self._every == 0 or updates == trainer.num_updates

  def on_fit_start(self, trainer, state):
    """Keeps what the run begins with: an update may donate it."""
    if self._latest < 0:
      copy = jax.jit(lambda state: jax.tree.map(jnp.copy, state))
      self._begun_with = copy(state)

  def on_train_batch_end(self, trainer, state, metrics):
    """Scores the state when it is time to."""
    if self._is_due(trainer, int(state.step)):
      self._score_the_beginning(trainer)
      metrics.update(self._run(trainer, state))

  def on_after_log(self, trainer, state, metrics):
    """Scores what the run began with."""
    self._score_the_beginning(trainer)

  def on_fit_end(self, trainer, state):
    """Scores what the run ends with, where it was stopped in between."""
    self._score_the_beginning(trainer)
    if self._latest != int(state.step):
      self._alone(trainer, state)

  def state_dict(self):
    """Which update was evaluated last."""
    return {'latest': self._latest}

  def load_state_dict(self, state):
    """Evaluates that one not again."""
    self._latest = state['latest']

  def _score_the_beginning(self, trainer):
    state, self._begun_with = self._begun_with, None
    if state is not None:
      self._alone(trainer, state)

  def _alone(self, trainer, state):
    """Evaluates where no update is logged."""
    trainer.logger.write(int(state.step), self._run(trainer, state))

  def _run(self, trainer, state) -> dict[str, float]:
    self._latest = int(state.step)
    metrics = scalars.to_finite_floats(
      f'In the evaluation after update {self._latest}', self._evaluate(state)
    )
    trainer.call_hooks('on_validation_end', state, metrics)
    return metrics


class Checkpoint(trainer_lib.Callback):
  """Saves every so many updates, after evaluations, at the end, and when told.

  To be the last callback: what it saves is all that the others have to know.
  After an interruption it saves the state of the last update; after any other
  exception nothing. The metadata are what is given here, the latest metrics and
  the state of loggers and callbacks.
  """

  def __init__(
    self,
    checkpointer: checkpoints.Checkpointer,
    every: int,
    metadata: Mapping[str, Any],
    score: str = '',
  ):
    """Chooses what to save and how often.

    Args:
      checkpointer: writes and keeps them.
      every: updates between two checkpoints.
      metadata: values that JSON can hold.
      score: tag of the evaluation by which the best checkpoints are kept.
    """
    if every < 1:
      raise ValueError(f'every is {every}; it must be at least 1.')
    self._checkpointer = checkpointer
    self._every = every
    self._metadata = dict(metadata)
    self._score = score
    self._metrics: dict[str, float] = {}

  def on_fit_start(self, trainer, state):
    """Saves what the run begins with, unless it is there."""
    self._save_once(trainer, state)

  def on_after_log(self, trainer, state, metrics):
    """Saves when it is time to, and what was evaluated."""
    self._metrics = metrics
    if int(state.step) % self._every == 0 or self._score in metrics:
      self._save(trainer, state)

  def on_fit_end(self, trainer, state):
    """Saves unless this step is there already."""
    self._save_once(trainer, state)

  def on_exception(self, trainer, exception):
    """Saves what an interruption would lose."""
    if isinstance(exception, errors.Interrupted):
      self._save_once(trainer, trainer.state)

  def _save_once(self, trainer, state):
    if self._checkpointer.latest_step() != int(state.step):
      self._save(trainer, state)

  def _save(self, trainer, state) -> None:
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
