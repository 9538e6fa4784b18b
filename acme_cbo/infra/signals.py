"""Graceful shutdown: on SIGINT and SIGTERM, and when a pipe is closed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
import contextlib
import os
import select
import signal as signals
import sys
import threading
from typing import Any

_SIGNALS = (signals.SIGINT, signals.SIGTERM)


class SignalGuard:
  """Context manager that records a signal, so that a run can end by itself.

  A second signal, or the end of a grace period, ends the process. A thread does
  that, because no Python code runs in the main thread while it waits for a
  compiled program.
  """

  def __init__(
    self, on_abort: Callable[[int], Any], grace_seconds: float = 8.0
  ):
    """Creates the guard.

    Args:
      on_abort: function of the signal number, called before the process is
        ended with exit code 128 plus that number.
      grace_seconds: number of seconds that a run has to end by itself.
    """
    self._on_abort = on_abort
    self._grace = grace_seconds
    self._signal: int | None = None

  def __call__(self) -> int | None:
    """Returns the number of the received signal, or None."""
    return self._signal

  def __enter__(self) -> SignalGuard:
    """Installs the signal handlers; must be called in the main thread."""
    self._reader, self._writer = os.pipe()
    os.set_blocking(self._writer, False)
    self._handlers = {s: signals.signal(s, self._record) for s in _SIGNALS}
    self._wakeup = signals.set_wakeup_fd(self._writer)
    self._thread = threading.Thread(target=self._watch)
    self._thread.start()
    return self

  def __exit__(self, *unused: object) -> None:
    """Restores the signal handlers."""
    signals.set_wakeup_fd(self._wakeup)
    for signal, handler in self._handlers.items():
      signals.signal(signal, handler)
    os.close(self._writer)
    self._thread.join()
    os.close(self._reader)

  def _record(self, signal: int, frame: object) -> None:
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
    """Waits for the next signal.

    Args:
      seconds: timeout in seconds; None waits forever.

    Returns:
      Number of the signal, None after the timeout, 0 if the guard was left.
    """
    while True:
      ready, _, _ = select.select([self._reader], [], [], seconds)
      if not ready:
        return None
      number = os.read(self._reader, 1)
      if not number:
        return 0
      if number[0] in _SIGNALS:
        return number[0]


@contextlib.contextmanager
def ending_at_closed_pipe() -> Iterator[None]:
  """Ends the process quietly when the reader, such as `head`, has gone."""
  try:
    yield
  except BrokenPipeError:
    # Output that is still buffered would fail again at exit.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(128 + signals.SIGPIPE)
