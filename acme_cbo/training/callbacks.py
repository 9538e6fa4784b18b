"""What happens beside the training: five hooks, a progress bar, checkpoints."""

from __future__ import annotations

import collections
from collections.abc import Callable, Mapping
import datetime as dt
import statistics
import sys
import time
import typing
from typing import Any, TextIO

from rich import console as console_lib
from rich import live
from rich import progress_bar
from rich import table
from rich import text

from acme_cbo.training import checkpoints

if typing.TYPE_CHECKING:
  from acme_cbo.training import trainer as trainer_lib

# Updates over which the rate is averaged, and seconds between two redraws.
_WINDOW = 50
_REDRAW_SECONDS = 0.1


class Callback:
  """Base of all callbacks: each hook does nothing until it is overridden.

  `state` is lent until the hook returns: the next update may donate it.
  """

  def on_fit_start(self, trainer: trainer_lib.Trainer, state: Any) -> None:
    """Called once, before the first evaluation."""

  def on_step_end(
    self, trainer: trainer_lib.Trainer, state: Any, metrics: dict[str, float]
  ) -> None:
    """Called after each update, once its metrics are logged."""

  def on_eval_end(
    self, trainer: trainer_lib.Trainer, state: Any, metrics: dict[str, float]
  ) -> None:
    """Called after each evaluation, once its metrics are logged."""

  def on_fit_end(self, trainer: trainer_lib.Trainer, state: Any) -> None:
    """Called once, after the last evaluation."""

  def on_exception(
    self, trainer: trainer_lib.Trainer, exception: BaseException
  ) -> None:
    """Called when anything in the loop raised, which ends the training."""


class Checkpoint(Callback):
  """Saves every `every` updates and at the end; not after an exception.

  The metadata of a checkpoint is what is given here and the latest metrics, of
  the update and of the evaluation before it. An update is saved before it is
  evaluated, so that a failing evaluation loses no training.
  """

  def __init__(
    self,
    checkpointer: checkpoints.Checkpointer,
    every: int,
    metadata: Mapping[str, Any],
  ):
    if every < 1:
      raise ValueError(f'every is {every}; it must be at least 1.')
    self._checkpointer = checkpointer
    self._every = every
    self._metadata = dict(metadata)
    self._latest: dict[str, Any] = {}

  def on_fit_start(self, trainer, state):
    """Forgets the metrics of an earlier fit."""
    self._latest = {'metrics': {}, 'evaluation': {}}

  def on_step_end(self, trainer, state, metrics):
    """Saves when it is time to."""
    self._latest['metrics'] = metrics
    if int(state.step) % self._every == 0:
      self._save(state)

  def on_eval_end(self, trainer, state, metrics):
    """Remembers the metrics and the update they belong to."""
    self._latest['evaluation'] = {'step': int(state.step), **metrics}

  def on_fit_end(self, trainer, state):
    """Saves unless this step is there already."""
    if self._checkpointer.latest_step() != int(state.step):
      self._save(state)

  def _save(self, state: Any) -> None:
    step = int(state.step)
    metadata = {**self._metadata, **self._latest, 'step': step}
    self._checkpointer.save(step, state, metadata)


class Progress(Callback):
  """Shows how far the training is, how fast, how good, and when it will end.

  On a terminal it is a bar that redraws itself; elsewhere plain lines: one an
  evaluation, and between them at most one every `every_seconds`. The time left
  is that of the updates to come, at the rate of the latest ones, and of the
  evaluations to come. Compilation is left out: the first update is not counted,
  nor the first evaluation once a second one is timed; until then the time left
  is a bound, and marked with a `<`.
  """

  def __init__(
    self,
    metrics: Mapping[str, str],
    stream: TextIO | None = None,
    every_seconds: float = 10.0,
    clock: Callable[[], float] = time.monotonic,
  ):
    """Chooses what to show and where.

    Args:
      metrics: tags to show by their labels, as `{'reward': 'reward/total'}`.
      stream: where to show it; None is stderr.
      every_seconds: seconds between two lines where there is no terminal.
      clock: tells the time in seconds.
    """
    self._metrics = dict(metrics)
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
    """Starts the clock; an evaluation comes next."""
    self._updates = int(state.step)
    self._values: dict[str, float] = {}
    self._compiled = False
    self._seconds = collections.deque[float](maxlen=_WINDOW)
    to_come = range(self._updates + 1, trainer.num_updates + 1)
    self._evaluations = 1 + sum(map(trainer.evaluates_after, to_come))
    self._eval_seconds = collections.deque[float](maxlen=2)
    self._start = self._mark = self._clock()
    if self._live:
      self._live.start()
    self._show(trainer, 'evaluating …')

  def on_step_end(self, trainer, state, metrics):
    """Times the update, unless it was the first, which compiles."""
    elapsed = self._lap()
    self._updates = int(state.step)
    self._values.update(metrics)
    if self._compiled:
      self._seconds.append(elapsed)
    elif unknown := set(self._metrics.values()) - self._values.keys():
      raise ValueError(
        f'Progress cannot show {sorted(unknown)}: the metrics of this run are'
        f' {sorted(self._values)}.'
      )
    self._compiled = True
    if self._mark - self._shown >= self._every:
      self._show(trainer, self._time_left(trainer))

  def on_eval_end(self, trainer, state, metrics):
    """Times the evaluation and shows what it found."""
    self._eval_seconds.append(self._lap())
    self._evaluations -= 1
    self._values.update(metrics)
    self._show(trainer, self._time_left(trainer))

  def on_fit_end(self, trainer, state):
    """Shows what the whole took."""
    self._show(trainer, f'done in {_duration(self._clock() - self._start)}')
    if self._live:
      self._live.stop()

  def on_exception(self, trainer, exception):
    """Gives the terminal back, the bar left as it was last shown."""
    if self._live:
      self._live.stop()

  def _lap(self) -> float:
    """Returns the seconds since the last call."""
    before, self._mark = self._mark, self._clock()
    return self._mark - before

  def _time_left(self, trainer: trainer_lib.Trainer) -> str:
    updates = trainer.num_updates - self._updates
    if updates and not self._seconds:
      return 'ETA unknown' if self._compiled else 'compiling, a minute or two …'
    seconds = self._evaluations * self._eval_seconds[-1]
    if updates:
      seconds += updates * statistics.fmean(self._seconds)
    bound = '< ' if self._evaluations and len(self._eval_seconds) == 1 else ''
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
      interventions = rate * trainer.interventions_per_update
      tail += [
        f'{_number(rate)} updates/s',
        f'{_number(interventions)} interventions/s',
      ]
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
