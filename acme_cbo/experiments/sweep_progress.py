"""Progress of the jobs of a sweep: a table on a terminal, lines elsewhere."""

from collections.abc import Sequence
import datetime as dt
import pathlib
import time
from typing import NamedTuple, TextIO

from rich import console as console_lib
from rich import live
from rich import text

from acme_cbo.infra import files
from acme_cbo.infra import text as text_lib

FINISHED, FAILED, RUNNING, WAITING = 'finished', 'failed', 'running', 'waiting'
_STYLES = {FINISHED: 'green', FAILED: 'red', RUNNING: 'cyan', WAITING: 'dim'}
# Order of the rows; a low terminal cuts off the last ones.
_ORDER = (RUNNING, FAILED, FINISHED, WAITING)
_LINE_SECONDS = 30.0
_TAIL_BYTES = 4096
_MAX_LOG_BYTES = 10**11


class Row(NamedTuple):
  """Row of a job.

  Attributes:
    name: name of the job.
    state: one of the states above.
    message: last line of its output, or its result.
  """

  name: str
  state: str
  message: str


class ProgressTable:
  """Shows the rows of all jobs while they change."""

  def __init__(self, stream: TextIO, rows: Sequence[Row]):
    """Starts the clock.

    Args:
      stream: output stream.
      rows: initial rows, one per job.
    """
    self._stream = stream
    self._start = self._last_printed = time.monotonic()
    self._previous = {row.name: row for row in rows}
    self._live: live.Live | None = None
    console = console_lib.Console(file=stream)
    if console.is_terminal and not console.is_dumb_terminal:
      self._live = live.Live(console=console, auto_refresh=False)
      self._live.start()

  def show(self, rows: Sequence[Row]) -> None:
    """Shows the current rows.

    Args:
      rows: one row per job, for the same jobs each time.
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
          f'  {row.message}',
          no_wrap=True,
          overflow='ellipsis',
        )
        for row in sorted(rows, key=lambda row: _ORDER.index(row.state))
      ]
      grid = console_lib.Group(*lines, text.Text(caption, 'bold'))
      self._live.update(grid, refresh=True)
      return
    for row in rows:
      if row.state != self._previous[row.name].state:
        message = f', {row.message}' if row.message else ''
        self._print(f'{row.name}: {row.state}{message}  ({caption})')
    self._previous = {row.name: row for row in rows}
    if time.monotonic() - self._last_printed > _LINE_SECONDS:
      for row in rows:
        if row.state == RUNNING:
          self._print(f'{row.name}: {row.message}')

  def close(self) -> None:
    """Restores the terminal and leaves the table as last shown."""
    if self._live:
      self._live.stop()

  def _print(self, line: str) -> None:
    self._last_printed = time.monotonic()
    print(line, file=self._stream, flush=True)


def last_line(log: pathlib.Path) -> str:
  """Returns the last line of a log that is not blank, or ''.

  Args:
    log: path of the log, which need not exist.
  """
  if not log.exists():
    return ''
  with files.open_regular(log, _MAX_LOG_BYTES) as file:
    file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
    lines = file.read().decode(errors='replace').split('\n')
  last = next((line.strip() for line in lines[::-1] if line.strip()), '')
  return text_lib.printable(last)
