"""Queue between actors and a learner: work items out, experience in.

A work item asks an actor for the experience of one update. It is handed out
once, with the latest parameters, and not before these satisfy the lag limit:
when update n is made, the parameters that acted for it are at most `max_lag`
updates old. The learner gets experience in the order of the updates, so that
none is lost or used twice, and at most `max_lag` + 1 items are outstanding.

This module does not depend on jax.
"""

from __future__ import annotations

from collections.abc import Callable
import threading
import time
from typing import Any, NamedTuple

from acme_cbo.infra import errors


class WorkItem(NamedTuple):
  """Request for the experience of one update.

  Attributes:
    update: number of the update, counted from 1.
    key: random key of the update.
    version: number of updates that produced the parameters.
    params: parameters of the policy to act with.
  """

  update: int
  key: Any
  version: int
  params: Any


class Result(NamedTuple):
  """Experience of one update, and the parameters that produced it.

  Attributes:
    version: number of updates that produced the parameters of the actor.
    experience: experience of the update.
  """

  version: int
  experience: Any


class ExperienceQueue:
  """Queue shared by any number of actor threads and one learner thread.

  Actors call `get_work`, `put` and `put_error`; the learner calls the other
  methods.
  """

  def __init__(
    self,
    version: int,
    params: Any,
    key: Any,
    next_key: Callable[[Any], Any],
    max_lag: int,
    stall_seconds: float,
  ):
    """Creates a queue that starts after an update.

    Args:
      version: number of updates made.
      params: parameters after these updates.
      key: random key of the next update.
      next_key: random key of an update -> random key of the following one.
      max_lag: largest age of the parameters in updates; 0 is lockstep.
      stall_seconds: number of seconds that the learner waits for one update.
    """
    self._changed = threading.Condition()
    self._version, self._params = version, params
    self._update, self._key = version + 1, key
    self._next_key = next_key
    self._max_lag = max_lag
    self._stall_seconds = stall_seconds
    self._results: dict[int, Result] = {}
    self._in_progress: dict[int, tuple[str, float]] = {}
    self._consumed = version
    self._error: BaseException | None = None
    self._is_closed = False
    self._actor_wait_seconds = 0.0

  def get_work(self) -> WorkItem | None:
    """Waits for the next work item.

    Returns:
      The work item, or None once the queue is closed.
    """
    begin = time.monotonic()
    with self._changed:
      self._changed.wait_for(
        lambda: (
          self._is_closed or self._update <= self._version + self._max_lag + 1
        )
      )
      self._actor_wait_seconds += time.monotonic() - begin
      if self._is_closed:
        return None
      item = WorkItem(self._update, self._key, self._version, self._params)
      self._update, self._key = item.update + 1, self._next_key(item.key)
      name = threading.current_thread().name
      self._in_progress[item.update] = name, time.monotonic()
      return item

  def put(self, update: int, version: int, experience: Any) -> None:
    """Adds the experience of a work item.

    Args:
      update: number of the update.
      version: number of updates that produced the parameters of the actor.
      experience: experience of the update.

    Raises:
      RuntimeError: the update was not requested, or was added before.
    """
    with self._changed:
      if self._in_progress.pop(update, None) is None:
        raise RuntimeError(
          f'experience of update {update} was not requested, or was added '
          'before'
        )
      self._results[update] = Result(version, experience)
      self._changed.notify_all()

  def put_error(self, error: BaseException) -> None:
    """Makes `get` raise an exception of an actor; the first one counts.

    Args:
      error: exception of the actor.
    """
    with self._changed:
      if self._error is None:
        self._error = error
      self._changed.notify_all()

  def get(self) -> tuple[Result, float]:
    """Waits for the experience of the next update.

    Returns:
      Result of the update, and the number of seconds that this waited.

    Raises:
      BaseException: exception of an actor.
      errors.PeerError: there was no experience within `stall_seconds`.
      RuntimeError: the parameters of the actor exceed the lag limit.
    """
    begin = time.monotonic()
    with self._changed:
      update = self._consumed + 1
      has_result = self._changed.wait_for(
        lambda: self._error or update in self._results, self._stall_seconds
      )
      if self._error is not None:
        raise self._error
      waited = time.monotonic() - begin
      if not has_result:
        raise errors.PeerError(self._timeout_message(update, waited))
      result = self._results.pop(update)
      lag = self._consumed - result.version
      if lag > self._max_lag:
        raise RuntimeError(
          f'the parameters that acted for update {update} are {lag} updates '
          f'old; config.runtime.max_lag is {self._max_lag}'
        )
      self._consumed = update
      return result, waited

  def publish(self, version: int, params: Any) -> None:
    """Makes new parameters available to the actors.

    Args:
      version: number of updates that produced the parameters.
      params: parameters of the policy.
    """
    with self._changed:
      self._version, self._params = version, params
      self._changed.notify_all()

  def pop_actor_wait_seconds(self) -> float:
    """Returns the seconds that all actors have waited since the last call."""
    with self._changed:
      waited, self._actor_wait_seconds = self._actor_wait_seconds, 0.0
      return waited

  def close(self) -> None:
    """Makes `get_work` return None, which ends the actors."""
    with self._changed:
      self._is_closed = True
      self._changed.notify_all()

  def _timeout_message(self, update: int, waited: float) -> str:
    message = f'update {update}: timed out after {waited:.0f} s'
    if update in self._in_progress:
      name, since = self._in_progress[update]
      seconds = time.monotonic() - since
      message += f' waiting for {name}, which started {seconds:.0f} s ago'
    return (
      f'{message}; increase config.runtime.stall_seconds if this is expected'
    )
