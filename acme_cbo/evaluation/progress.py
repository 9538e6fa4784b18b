"""Progress of an evaluation in the terminal."""

from collections.abc import Callable, Sequence
import datetime as dt
import math
import time
from typing import TextIO

import numpy as np

from acme_cbo.evaluation import episodes as episodes_lib

# Seconds between two lines, and between two on a terminal, which are one.
_LINE_SECONDS = 10.0
_REDRAW_SECONDS = 0.2


class Progress:
  """Says how many episodes are played and how long the rest will take.

  Methods differ: the time left is that of each method's episodes, as far as one
  of it was seen, and marked with a `>` until one of each was.
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
      methods: of each episode that is to be played.
      jobs: the number of processes.
      stream: where to show it.
      clock: tells the time in seconds.
    """
    self._left = {name: methods.count(name) for name in methods}
    self._total, self._jobs = len(methods), jobs
    self._seconds: dict[str, list[float]] = {}
    self._stream, self._clock = stream, clock
    self._is_terminal = stream.isatty()
    self._every = _REDRAW_SECONDS if self._is_terminal else _LINE_SECONDS
    self._mark = clock()
    self._shown = -math.inf

  def update(self, episode: episodes_lib.Episode) -> None:
    """Counts an episode that has ended."""
    now = self._clock()
    # Others end in the meantime where several are at work.
    seconds = (now - self._mark) * self._jobs
    self._mark = now
    self._seconds.setdefault(episode.method, []).append(seconds)
    self._left[episode.method] -= 1
    if now - self._shown >= self._every or not any(self._left.values()):
      self._shown = now
      self._show(f'{episode.method} on {episode.scm}, repeat {episode.repeat}')

  def close(self) -> None:
    """Leaves the line."""
    if self._is_terminal and self._shown > -math.inf:
      print(file=self._stream)

  def _show(self, what: str) -> None:
    left = sum(self._left.values())
    seconds, unknown = 0.0, False
    for method, count in self._left.items():
      seen = self._seconds.get(method)
      unknown |= bool(count) and not seen
      # The median: the first one compiles.
      seconds += count * float(np.median(seen)) if seen else 0.0
    eta = dt.timedelta(seconds=round(seconds / self._jobs))
    done = self._total - left
    line = (
      f'{done / self._total:.0%}  {done}/{self._total} episodes  '
      f'ETA {"> " if unknown else ""}{eta}  {what}'
    )
    if self._is_terminal:
      print(f'\r\x1b[K{line}', end='', file=self._stream, flush=True)
    else:
      print(line, file=self._stream, flush=True)
