"""Progress of an evaluation in the terminal."""

from collections.abc import Callable, Sequence
import datetime as dt
import math
import time
from typing import TextIO

import numpy as np

from acme_cbo.evaluation import episodes as episodes_lib

# Seconds between two lines, and between two updates of the line of a terminal.
_LINE_SECONDS = 10.0
_REDRAW_SECONDS = 0.2


class Progress:
  """Shows the number of finished episodes and the estimated time left.

  The estimate uses the median duration of the episodes of each method. It is
  marked with a `>`, as a lower bound, until every method has finished one.
  """

  def __init__(
    self,
    methods: Sequence[str],
    jobs: int,
    stream: TextIO,
    clock: Callable[[], float] = time.monotonic,
  ):
    """Starts the clock.

    Args:
      methods: method of each episode that is to be run.
      jobs: number of processes.
      stream: stream that the progress is written to.
      clock: function that returns the time in seconds.
    """
    self._left = {name: methods.count(name) for name in methods}
    self._total, self._jobs = len(methods), jobs
    self._seconds: dict[str, list[float]] = {}
    self._stream, self._clock = stream, clock
    self._is_terminal = stream.isatty()
    self._interval = _REDRAW_SECONDS if self._is_terminal else _LINE_SECONDS
    self._last_end = clock()
    self._last_shown = -math.inf

  def update(self, episode: episodes_lib.Episode) -> None:
    """Counts a finished episode."""
    now = self._clock()
    # The other processes finish episodes in the meantime.
    seconds = (now - self._last_end) * self._jobs
    self._last_end = now
    self._seconds.setdefault(episode.method, []).append(seconds)
    self._left[episode.method] -= 1
    if now - self._last_shown >= self._interval or not any(self._left.values()):
      self._last_shown = now
      self._show(f'{episode.method} on {episode.scm}, repeat {episode.repeat}')

  def close(self) -> None:
    """Ends the line of a terminal."""
    if self._is_terminal and self._last_shown > -math.inf:
      print(file=self._stream)

  def _show(self, text: str) -> None:
    left = sum(self._left.values())
    seconds, unknown = 0.0, False
    for method, count in self._left.items():
      durations = self._seconds.get(method)
      unknown |= bool(count) and not durations
      # The median ignores that the first episode compiles.
      seconds += count * float(np.median(durations)) if durations else 0.0
    eta = dt.timedelta(seconds=round(seconds / self._jobs))
    done = self._total - left
    line = (
      f'{done / self._total:.0%}  {done}/{self._total} episodes  '
      f'ETA {"> " if unknown else ""}{eta}  {text}'
    )
    if self._is_terminal:
      print(f'\r\x1b[K{line}', end='', file=self._stream, flush=True)
    else:
      print(line, file=self._stream, flush=True)
