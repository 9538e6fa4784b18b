"""SIGINT and SIGTERM end a run in good order, and within seconds."""

from __future__ import annotations

from collections.abc import Callable
import os
import select
import signal as signals
import threading
from typing import Any

_SIGNALS = (signals.SIGINT, signals.SIGTERM)


class SignalGuard:
  """While it is entered, a signal is noted, for the run to end by itself.

  A second signal, or a run that has not ended after the grace period, ends the
  process: by a thread, since what is compiled is waited for in no Python code
  that could see a signal.
  """

  def __init__(
    self, on_abort: Callable[[int], Any], grace_seconds: float = 8.0
  ):
    """Chooses what happens where the process has to be ended.

    Args:
      on_abort: called with the number of the signal, before the process ends
        with 128 more than that.
      grace_seconds: how long a run may take to end by itself.
    """
    self._on_abort = on_abort
    self._grace = grace_seconds
    self._signal: int | None = None

  def __call__(self) -> int | None:
    """The number of the signal that came in, if one did."""
    return self._signal

  def __enter__(self) -> SignalGuard:
    """Takes the signals over; to be called in the main thread."""
    self._reader, self._writer = os.pipe()
    os.set_blocking(self._writer, False)
    self._handlers = {s: signals.signal(s, self._note) for s in _SIGNALS}
    self._wakeup = signals.set_wakeup_fd(self._writer)
    self._thread = threading.Thread(target=self._watch)
    self._thread.start()
    return self

  def __exit__(self, *unused: object) -> None:
    """Gives the signals back."""
    signals.set_wakeup_fd(self._wakeup)
    for signal, handler in self._handlers.items():
      signals.signal(signal, handler)
    os.close(self._writer)
    self._thread.join()
    os.close(self._reader)

  def _note(self, signal: int, frame: object) -> None:
    del frame
    self._signal = signal

  def _watch(self) -> None:
    first = self._wait(None)
    if first and (self._wait(self._grace) != 0):
      try:
        self._on_abort(first)
      finally:
        os._exit(128 + first)

  def _wait(self, seconds: float | None) -> int | None:
    """The next signal; None after so many seconds, 0 at the end."""
    while True:
      ready, _, _ = select.select([self._reader], [], [], seconds)
      if not ready:
        return None
      number = os.read(self._reader, 1)
      if not number:
        return 0
      if number[0] in _SIGNALS:
        return number[0]
