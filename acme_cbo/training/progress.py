"""A progress bar in the terminal, or plain lines where there is none."""

from __future__ import annotations

import collections
from collections.abc import Callable, Mapping
import datetime as dt
import statistics
import sys
import time
from typing import TextIO

from rich import console as console_lib
from rich import live
from rich import progress_bar
from rich import table
from rich import text

from acme_cbo.training import callbacks
from acme_cbo.training import monitors
from acme_cbo.training import trainer as trainer_lib

# Seconds between two redraws.
_REDRAW_SECONDS = 0.1


class Progress(trainer_lib.Callback):
  """Shows how far the training is, how fast, how good, and when it will end.

  On a terminal it is a bar that redraws itself; elsewhere plain lines: one an
  evaluation, and between them at most one every `every_seconds`. The time left
  is that of the updates to come, at the rate of the latest ones, and of the
  evaluations to come. Compilation is left out: the first update is not counted,
  nor the first evaluation once a second one is timed; until then the time left
  is a bound, and marked with a `<`, or with a `>` where none was seen yet.
  """

  def __init__(
    self,
    metrics: Mapping[str, str],
    evaluation: callbacks.Evaluation,
    stream: TextIO | None = None,
    every_seconds: float = 10.0,
    clock: Callable[[], float] = time.monotonic,
  ):
    """Chooses what to show and where.

    Args:
      metrics: tags to show by their labels, as `{'reward': 'reward/total'}`.
      evaluation: knows how many evaluations there will be; to be called after
        this one.
      stream: where to show it; None is stderr.
      every_seconds: seconds between two lines where there is no terminal.
      clock: tells the time in seconds.
    """
    self._metrics = dict(metrics)
    self._evaluation = evaluation
    self._values: dict[str, float] = {}
    self._stream = stream or sys.stderr
    self._every = every_seconds
    self._clock = clock
    self._live: live.Live | None = None
    console = console_lib.Console(file=self._stream, force_terminal=True)
    if self._stream.isatty() and not console.is_dumb_terminal:
      self._every = _REDRAW_SECONDS
      self._live = live.Live(
        console=console,
        auto_refresh=False,
        # What is printed meanwhile goes above the bar, unless it has a pipe.
        redirect_stdout=sys.stdout.isatty(),
        redirect_stderr=sys.stderr.isatty(),
      )

  def on_fit_start(self, trainer, state):
    """Starts the clock."""
    self._updates = int(state.step)
    self._made_one = self._done = False
    self._seconds = collections.deque[float](maxlen=monitors.WINDOW)
    self._eval_seconds = collections.deque[float](maxlen=2)
    self._start = self._mark = self._clock()
    if self._live:
      self._live.start()
    self._show(trainer, 'starting …')

  def on_train_batch_end(self, trainer, state, metrics):
    """Times the update, unless it was the first, which may compile."""
    elapsed = self._lap()
    self._updates = int(state.step)
    self._values.update(metrics)
    first = not self._made_one
    if not first:
      self._seconds.append(elapsed)
    # Rates are there from the second update on.
    unknown = set(self._metrics.values()) - self._values.keys()
    if unknown and self._seconds:
      raise ValueError(
        f'Progress cannot show {sorted(unknown)}: the metrics of this run are'
        f' {sorted(self._values)}.'
      )
    self._made_one = True
    if first or self._mark - self._shown >= self._every:
      self._show(trainer, self._time_left(trainer))

  def on_validation_end(self, trainer, state, metrics):
    """Times the evaluation and shows what it found."""
    self._eval_seconds.append(self._lap())
    self._values.update(metrics)
    if not self._done:
      self._show(trainer, self._time_left(trainer))

  def on_fit_end(self, trainer, state):
    """Shows what the whole took; an evaluation may still come."""
    self._done = True
    self._show(trainer, f'done in {_duration(self._clock() - self._start)}')
    if self._live:
      self._live.stop()

  def on_exception(self, trainer, exception):
    """Gives the terminal back, the bar left as it was last shown."""
    if self._live:
      self._live.stop()

  def state_dict(self):
    """The latest values, which may not come again for a while."""
    return {'values': self._values}

  def load_state_dict(self, state):
    """Shows those until there are newer ones."""
    self._values = dict(state['values'])

  def _lap(self) -> float:
    """Returns the seconds since the last call."""
    before, self._mark = self._mark, self._clock()
    return self._mark - before

  def _time_left(self, trainer: trainer_lib.Trainer) -> str:
    updates = trainer.num_updates - self._updates
    if updates and not self._seconds:
      return 'ETA unknown'
    evaluations = self._evaluation.num_remaining(trainer)
    seconds = updates * statistics.fmean(self._seconds) if updates else 0.0
    if evaluations and self._eval_seconds:
      seconds += evaluations * self._eval_seconds[-1]
    bound = ''
    if evaluations and len(self._eval_seconds) < 2:
      bound = '< ' if self._eval_seconds else '> '
    return f'ETA {bound}{_duration(seconds)}'

  def _show(self, trainer: trainer_lib.Trainer, phase: str) -> None:
    total = trainer.num_updates
    head = f'{self._updates / max(total, 1):.0%}  {self._updates}/{total}'
    tail = [
      f'{label} {_number(self._values[tag])}'
      for label, tag in self._metrics.items()
      if tag in self._values
    ]
    if self._seconds:
      rate = 1 / statistics.fmean(self._seconds)
      tail.append(f'{_number(rate)} updates/s')
    if self._live:
      bar = table.Table.grid(padding=(0, 1), expand=True)
      bar.add_column(ratio=1)
      bar.add_column(no_wrap=True)
      bar.add_row(
        progress_bar.ProgressBar(total=max(total, 1), completed=self._updates),
        f'{head}  {phase}',
      )
      line = text.Text('  '.join(tail), no_wrap=True, overflow='ellipsis')
      self._live.update(console_lib.Group(bar, line), refresh=True)
    else:
      print(head, phase, *tail, sep='  ', file=self._stream, flush=True)
    self._shown = self._clock()


def _number(x: float) -> str:
  return f'{x:,.0f}' if 100 <= abs(x) < 1e9 else f'{x:.3g}'


def _duration(seconds: float) -> str:
  return str(dt.timedelta(seconds=round(seconds)))
