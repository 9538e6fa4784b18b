"""Progress bar of a training on a terminal, plain lines elsewhere."""

from __future__ import annotations

import collections
from collections.abc import Callable, Mapping
import datetime as dt
import statistics
import sys
import time
from typing import Any, TextIO

from rich import console as console_lib
from rich import live
from rich import progress_bar
from rich import table
from rich import text

from acme_cbo.training import callbacks
from acme_cbo.training import monitors
from acme_cbo.training import trainer as trainer_lib

# Minimum number of seconds between two redraws on a terminal.
_REDRAW_SECONDS = 0.1


class Progress(trainer_lib.Callback):
  """Shows updates made, rate, metrics and remaining time.

  On a terminal it redraws a bar; elsewhere it prints a line for each evaluation
  and at most one every `every_seconds` between them. The remaining time (ETA)
  is that of the remaining updates, at the rate of the latest ones, plus that of
  the remaining evaluations. It leaves out compilation: the first update is not
  timed, and the first evaluation is ignored once a second one was timed. Before
  that the ETA is an upper bound, marked `<`, or a lower bound, marked `>`, if
  no evaluation was timed yet.
  """

  def __init__(
    self,
    metrics: Mapping[str, str],
    evaluation: callbacks.Evaluation,
    stream: TextIO | None = None,
    every_seconds: float = 10.0,
    clock: Callable[[], float] = time.monotonic,
  ):
    """Creates the callback.

    Args:
      metrics: tags of the metrics to show by label, such as
        `{'reward': 'reward/total'}`.
      evaluation: callback that evaluates; it has to come after this one.
      stream: output stream; None is stderr.
      every_seconds: minimum number of seconds between two lines if the stream
        is not a terminal.
      clock: function that returns the time in seconds.
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
        # Printed lines go above the bar, unless they are redirected to a pipe.
        redirect_stdout=sys.stdout.isatty(),
        redirect_stderr=sys.stderr.isatty(),
      )

  def on_fit_start(self, trainer: trainer_lib.Trainer[Any], state: Any) -> None:
    """Starts the clock and the display."""
    self._updates = int(state.step)
    self._has_updated = self._is_done = False
    self._seconds = collections.deque[float](maxlen=monitors.WINDOW)
    self._eval_seconds = collections.deque[float](maxlen=2)
    self._start = self._mark = self._clock()
    if self._live:
      self._live.start()
    self._show(trainer, 'starting …')

  def on_train_batch_end(
    self,
    trainer: trainer_lib.Trainer[Any],
    state: Any,
    metrics: dict[str, float],
  ) -> None:
    """Times the update, except for the first, which may include compilation."""
    elapsed = self._lap()
    self._updates = int(state.step)
    self._values.update(metrics)
    is_first = not self._has_updated
    if not is_first:
      self._seconds.append(elapsed)
    # Rates are logged from the second update on.
    missing = set(self._metrics.values()) - self._values.keys()
    if missing and self._seconds:
      raise ValueError(
        f'Progress cannot show {sorted(missing)}: the metrics of this run are'
        f' {sorted(self._values)}.'
      )
    self._has_updated = True
    if is_first or self._mark - self._shown >= self._every:
      self._show(trainer, self._time_left(trainer))

  def on_validation_end(
    self,
    trainer: trainer_lib.Trainer[Any],
    state: Any,
    metrics: dict[str, float],
  ) -> None:
    """Times the evaluation and shows its metrics."""
    self._eval_seconds.append(self._lap())
    self._values.update(metrics)
    if not self._is_done:
      self._show(trainer, self._time_left(trainer))

  def on_fit_end(self, trainer: trainer_lib.Trainer[Any], state: Any) -> None:
    """Shows the total duration; an evaluation may still follow."""
    self._is_done = True
    self._show(trainer, f'done in {_duration(self._clock() - self._start)}')
    if self._live:
      self._live.stop()

  def on_exception(
    self, trainer: trainer_lib.Trainer[Any], exception: BaseException
  ) -> None:
    """Restores the terminal and leaves the bar as last shown."""
    if self._live:
      self._live.stop()

  def state_dict(self) -> dict[str, Any]:
    """Returns the latest values, to be shown after a resume."""
    return {'values': self._values}

  def load_state_dict(self, state: Mapping[str, Any]) -> None:
    """Restores the latest values."""
    self._values = dict(state['values'])

  def _lap(self) -> float:
    """Returns the seconds since the last call."""
    before, self._mark = self._mark, self._clock()
    return self._mark - before

  def _time_left(self, trainer: trainer_lib.Trainer[Any]) -> str:
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

  def _show(self, trainer: trainer_lib.Trainer[Any], phase: str) -> None:
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
