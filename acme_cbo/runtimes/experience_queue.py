"""What stands between actors and a learner: tickets out, experience in.

A ticket is for one update. It is given out once, with the latest parameters,
and no earlier than they may be used: those of an update are at most `max_lag`
updates old when it is made. What comes back is taken in the order of the
updates, so that nothing is lost, nothing comes twice, and no more waits than
`max_lag` + 1.

Nothing here knows of arrays.
"""

from __future__ import annotations

from collections.abc import Callable
import threading
import time
from typing import Any, NamedTuple

from acme_cbo.infra import errors


class WorkItem(NamedTuple):
  """What an actor is asked for.

  Attributes:
    update: its number, counted from 1.
    key: from which it is drawn.
    version: of the parameters: the number of updates that made them.
    params: of the policy that acts.
  """

  update: int
  key: Any
  version: int
  params: Any


class Result(NamedTuple):
  """What an actor brought for an update.

  Attributes:
    version: of the parameters that it acted with.
    experience: of it.
  """

  version: int
  experience: Any


class ExperienceQueue:
  """Shared by any number of actors and one learner.

  Actors call `get_work`, `put` and `put_error`, the learner the other methods.
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
    """Begins after an update.

    Args:
      version: its number.
      params: that it made.
      key: from which the next one is drawn.
      next_key: the key of an update -> that of the next one.
      max_lag: how many updates old parameters may be: 0 is lockstep.
      stall_seconds: how long the learner waits for one update.
    """
    self._changed = threading.Condition()
    self._version, self._params = version, params
    self._update, self._key = version + 1, key
    self._next_key = next_key
    self._max_lag = max_lag
    self._stall_seconds = stall_seconds
    self._brought: dict[int, Result] = {}
    self._at_work: dict[int, tuple[str, float]] = {}
    self._consumed = version
    self._error: BaseException | None = None
    self._closed = False
    self._actors_waited = 0.0

  def get_work(self) -> WorkItem | None:
    """Waits for the next update that may be acted for; None at the end."""
    begin = time.monotonic()
    with self._changed:
      self._changed.wait_for(
        lambda: (
          self._closed or self._update <= self._version + self._max_lag + 1
        )
      )
      self._actors_waited += time.monotonic() - begin
      if self._closed:
        return None
      ticket = WorkItem(self._update, self._key, self._version, self._params)
      self._update, self._key = ticket.update + 1, self._next_key(ticket.key)
      name = threading.current_thread().name
      self._at_work[ticket.update] = name, time.monotonic()
      return ticket

  def put(self, update: int, version: int, experience: Any) -> None:
    """Hands over what was asked for.

    Raises:
      RuntimeError: nobody was asked for it, or it was brought already.
    """
    with self._changed:
      if self._at_work.pop(update, None) is None:
        raise RuntimeError(
          f'experience of update {update} was brought, which nobody was asked '
          'for or which was here already'
        )
      self._brought[update] = Result(version, experience)
      self._changed.notify_all()

  def put_error(self, error: BaseException) -> None:
    """Lets the learner raise what an actor did: the first, if several do."""
    with self._changed:
      if self._error is None:
        self._error = error
      self._changed.notify_all()

  def get(self) -> tuple[Result, float]:
    """What was brought for the next update, and the seconds until it was.

    Raises:
      BaseException: what an actor raised.
      errors.PeerError: an actor has been at it for too long.
      RuntimeError: the parameters that it acted with are too old.
    """
    begin = time.monotonic()
    with self._changed:
      update = self._consumed + 1
      there = self._changed.wait_for(
        lambda: self._error or update in self._brought, self._stall_seconds
      )
      if self._error is not None:
        raise self._error
      waited = time.monotonic() - begin
      if not there:
        raise errors.PeerError(self._stalled(update, waited))
      brought = self._brought.pop(update)
      lag = self._consumed - brought.version
      if lag > self._max_lag:
        raise RuntimeError(
          f'experience of update {update} is of parameters that are {lag} '
          f'updates old; config.runtime.max_lag is {self._max_lag}'
        )
      self._consumed = update
      return brought, waited

  def publish(self, version: int, params: Any) -> None:
    """Lets actors use the parameters that an update made."""
    with self._changed:
      self._version, self._params = version, params
      self._changed.notify_all()

  def pop_actor_wait_seconds(self) -> float:
    """Seconds that actors have waited since this was asked, all together."""
    with self._changed:
      waited, self._actors_waited = self._actors_waited, 0.0
      return waited

  def close(self) -> None:
    """Sends the actors home."""
    with self._changed:
      self._closed = True
      self._changed.notify_all()

  def _stalled(self, update: int, waited: float) -> str:
    said = f'update {update}: nothing was brought for {waited:.0f} s'
    if update in self._at_work:
      name, since = self._at_work[update]
      said += f'; {name} has been at it for {time.monotonic() - since:.0f} s'
    return f'{said}; raise config.runtime.stall_seconds if that is no mistake'
