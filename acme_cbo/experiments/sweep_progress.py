"""What the jobs of a study do: a table on a terminal, lines elsewhere."""

from collections.abc import Sequence
import datetime as dt
import pathlib
import time
from typing import NamedTuple, TextIO

from rich import console as console_lib
from rich import live
from rich import text

FINISHED, FAILED, RUNNING, WAITING = 'finished', 'failed', 'at work', 'waiting'
_STYLES = {FINISHED: 'green', FAILED: 'red', RUNNING: 'cyan', WAITING: 'dim'}
# What is cut off where a terminal is low, comes last.
_ORDER = (RUNNING, FAILED, FINISHED, WAITING)
_LINE_SECONDS = 30.0
_TAIL_BYTES = 4096


class Row(NamedTuple):
  """A job.

  Attributes:
    name: of it.
    state: one of the above.
    says: what it printed last, or came to.
  """

  name: str
  state: str
  says: str


class ProgressTable:
  """Shows rows while they change."""

  def __init__(self, stream: TextIO, rows: Sequence[Row]):
    """Starts the clock.

    Args:
      stream: where to show them.
      rows: as they are at the start.
    """
    self._stream = stream
    self._start = self._spoke = time.monotonic()
    self._before = {row.name: row for row in rows}
    self._live: live.Live | None = None
    console = console_lib.Console(file=stream)
    if console.is_terminal and not console.is_dumb_terminal:
      self._live = live.Live(console=console, auto_refresh=False)
      self._live.start()

  def show(self, rows: Sequence[Row]) -> None:
    """Shows how it stands.

    Args:
      rows: one for each job, always the same ones.
    """
    counts = {
      state: sum(row.state == state for row in rows) for state in _STYLES
    }
    seconds = round(time.monotonic() - self._start)
    caption = ', '.join(
      f'{count} {state}' for state, count in counts.items() if count
    )
    caption = f'{caption}; {dt.timedelta(seconds=seconds)}'
    if self._live:
      width = max(len(row.name) for row in rows)
      lines = [
        text.Text.assemble(
          f'{row.name:{width}}  ',
          (f'{row.state:8}', _STYLES[row.state]),
          f'  {row.says}',
          no_wrap=True,
          overflow='ellipsis',
        )
        for row in sorted(rows, key=lambda row: _ORDER.index(row.state))
      ]
      grid = console_lib.Group(*lines, text.Text(caption, 'bold'))
      self._live.update(grid, refresh=True)
      return
    for row in rows:
      if row.state != self._before[row.name].state:
        says = f', {row.says}' if row.says else ''
        self._say(f'{row.name}: {row.state}{says}  ({caption})')
    self._before = {row.name: row for row in rows}
    if time.monotonic() - self._spoke > _LINE_SECONDS:
      for row in rows:
        if row.state == RUNNING:
          self._say(f'{row.name}: {row.says}')

  def close(self) -> None:
    """Leaves the terminal as it was, the table as it was shown last."""
    if self._live:
      self._live.stop()

  def _say(self, line: str) -> None:
    self._spoke = time.monotonic()
    print(line, file=self._stream, flush=True)


def last_line(log: pathlib.Path) -> str:
  """What a job printed last; empty where it has printed nothing yet."""
  if not log.exists():
    return ''
  with log.open('rb') as file:
    file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
    lines = file.read().decode(errors='replace').split('\n')
  return next((line.strip() for line in lines[::-1] if line.strip()), '')
