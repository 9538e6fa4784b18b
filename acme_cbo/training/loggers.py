"""Where metrics go: TensorBoard, JSON lines, the terminal, or nowhere."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
import contextlib
import json
import os
import pathlib
import time
from typing import Any, Protocol, TextIO

import numpy as np
from tensorboardX import event_file_writer
from tensorboardX import summary as summary_lib
from tensorboardX.proto import event_pb2

from acme_cbo.infra import errors

# Made at import time, where a type checker cannot see them.
_Event = event_pb2.Event  # pyrefly: ignore[missing-attribute]
_NUM_BINS = 40
_SessionLog = event_pb2.SessionLog  # pyrefly: ignore[missing-attribute]


class Logger(Protocol):
  """Receives scalars by update and texts by name."""

  def write(self, step: int, metrics: Mapping[str, float]) -> None:
    """Writes the scalars of one update (x = number of updates made)."""

  def write_text(self, tag: str, text: str) -> None:
    """Writes a text that holds for the whole run, such as its config."""

  def write_image(self, step: int, tag: str, pixels: np.ndarray) -> None:
    """Writes a picture, [H, W, 3] uint8, where pictures can be shown."""
    del step, tag, pixels

  def write_histogram(self, step: int, tag: str, values: np.ndarray) -> None:
    """Writes how numbers are distributed, where that can be shown."""
    del step, tag, values

  def close(self) -> None:
    """Flushes and closes; a second call does nothing."""

  def state_dict(self) -> dict[str, Any]:
    """How far it has written, as JSON can hold it."""
    return {}

  def check_state_dict(self, state: Mapping[str, Any]) -> None:
    """Raises where what was written by then is not there any more."""
    del state

  def load_state_dict(self, state: Mapping[str, Any]) -> None:
    """Forgets what was written after `state_dict` was taken."""
    del state


class NoopLogger(Logger):
  """Writes nothing."""

  def write(self, step: int, metrics: Mapping[str, float]) -> None:
    """Does nothing."""

  def write_text(self, tag: str, text: str) -> None:
    """Does nothing."""

  def close(self) -> None:
    """Does nothing."""


class TensorBoardLogger(Logger):
  """Writes event files to `<workdir>/tb`.

  It uses the writer below tensorboardX's `SummaryWriter`, not that class: there
  a daemon thread writes, so that a full disk does not raise but hangs the run
  as soon as the queue is full. Here a failed write raises where it happens.
  """

  def __init__(
    self,
    workdir: str | os.PathLike[str],
    *,
    flush_seconds: float = 10.0,
  ):
    """Opens an event file of its own.

    Args:
      workdir: the directory of the run.
      flush_seconds: the most that a killed run loses.
    """
    self._directory = pathlib.Path(workdir) / 'tb'
    self._directory.mkdir(parents=True, exist_ok=True)
    # The writer's own names have seconds only: a quick resume would overwrite.
    self._suffix = f'.{time.time_ns()}.{os.getpid()}'
    self._writer = event_file_writer.EventsWriter(
      str(self._directory / 'events'), self._suffix
    )
    self._writer.flush()  # The file is there from now on.
    self._flush_seconds = flush_seconds
    self._flushed = time.monotonic()
    self._closed = False
    self._step = 0

  def write(self, step: int, metrics: Mapping[str, float]) -> None:
    """Writes one event with all the scalars."""
    # That of what a run begins with is logged after the first update.
    self._step = max(self._step, step)
    summary = _Event().summary
    for tag, value in metrics.items():
      summary.MergeFrom(summary_lib.scalar(tag, value))
    self._add(_Event(step=step, summary=summary))

  def write_text(self, tag: str, text: str) -> None:
    """Writes Markdown to the text tab."""
    self._add(_Event(summary=summary_lib.text(tag, text)))

  def write_image(self, step: int, tag: str, pixels: np.ndarray) -> None:
    """Writes to the images tab."""
    self._add(
      _Event(step=step, summary=summary_lib.image(tag, pixels, 1, 'HWC'))
    )

  def write_histogram(self, step: int, tag: str, values: np.ndarray) -> None:
    """Writes to the histograms and distributions tabs."""
    summary = summary_lib.histogram(tag, values, bins=_NUM_BINS)
    self._add(_Event(step=step, summary=summary))

  def write_layout(self, layout: Mapping[str, Mapping[str, list[str]]]) -> None:
    """Writes which charts the custom scalars tab has.

    Args:
      layout: {category: {chart: regular expressions of its tags}}.
    """
    charts = {
      category: {chart: ['Multiline', tags] for chart, tags in charts.items()}
      for category, charts in layout.items()
    }
    self._add(_Event(summary=summary_lib.custom_scalars(charts)))

  def write_hparams(
    self, values: Mapping[str, bool | float | str], tags: Iterable[str]
  ) -> None:
    """Writes the row of this run in the hparams tab.

    Args:
      values: settings by name.
      tags: of the scalars that are shown beside them, as they are last.
    """
    for summary in summary_lib.hparams(dict(values), dict.fromkeys(tags)):
      self._add(_Event(summary=summary))

  def close(self) -> None:
    """Flushes and closes the event file."""
    if not self._closed:
      self._closed = True
      self._writer.close()

  def state_dict(self) -> dict[str, Any]:
    """The sizes of the event files and the latest step in them."""
    self._writer.flush()
    sizes = {path.name: _synced(path) for path in self._files()}
    return {'step': self._step, 'sizes': sizes}

  def check_state_dict(self, state: Mapping[str, Any]) -> None:
    """Raises where an event file is gone or shorter."""
    for name, size in state['sizes'].items():
      _check_size(self._directory / name, size)

  def load_state_dict(self, state: Mapping[str, Any]) -> None:
    """Cuts off what came later, and tells a TensorBoard that is open."""
    for path in self._files():
      if path.name in state['sizes']:
        os.truncate(path, state['sizes'][path.name])
      elif not path.name.endswith(self._suffix):
        path.unlink()
    self._step = state['step']
    start = _SessionLog(status=_SessionLog.START)
    self._add(_Event(step=self._step + 1, session_log=start))

  def _files(self):
    return list(self._directory.glob('events.*'))

  def _add(self, event: Any) -> None:
    event.wall_time = time.time()
    self._writer.write_event(event)
    if time.monotonic() - self._flushed >= self._flush_seconds:
      self._writer.flush()
      self._flushed = time.monotonic()


class JsonlLogger(Logger):
  """Appends one JSON object a write to `<workdir>/metrics.jsonl`.

  Texts go to `texts.jsonl` beside it, so that every line of the first is a row
  of numbers: `{"step": 3, "time": 1.7e9, "train/loss": 0.1}`.
  """

  def __init__(self, workdir: str | os.PathLike[str]):
    directory = pathlib.Path(workdir)
    directory.mkdir(parents=True, exist_ok=True)
    self._file = (directory / 'metrics.jsonl').open('a', encoding='utf-8')
    self._texts = directory / 'texts.jsonl'

  def write(self, step: int, metrics: Mapping[str, float]) -> None:
    """Appends a line and flushes it; NaN and infinity raise ValueError."""
    if reserved := {'step', 'time'} & metrics.keys():
      raise ValueError(f'{sorted(reserved)} cannot be tags of metrics.')
    row = {'step': step, 'time': time.time(), **metrics}
    self._file.write(json.dumps(row, allow_nan=False) + '\n')
    self._file.flush()

  def write_text(self, tag: str, text: str) -> None:
    """Appends a line to `texts.jsonl`."""
    row = {'time': time.time(), 'tag': tag, 'text': text}
    with self._texts.open('a', encoding='utf-8') as file:
      file.write(json.dumps(row) + '\n')

  def close(self) -> None:
    """Closes the file."""
    self._file.close()

  def state_dict(self) -> dict[str, Any]:
    """The sizes of both files."""
    return {
      path.name: _synced(path) if path.exists() else 0 for path in self._paths()
    }

  def check_state_dict(self, state: Mapping[str, Any]) -> None:
    """Raises where a file is gone or shorter."""
    for path in self._paths():
      _check_size(path, state[path.name])

  def load_state_dict(self, state: Mapping[str, Any]) -> None:
    """Cuts off what came later."""
    for path in self._paths():
      if path.exists():
        os.truncate(path, state[path.name])

  def _paths(self):
    return pathlib.Path(self._file.name), self._texts


class TerminalLogger(Logger):
  """Prints the chosen tags of a write in one line, when it has any of them."""

  def __init__(self, tags: tuple[str, ...], stream: TextIO | None = None):
    self._tags = tags
    self._stream = stream  # None is whatever sys.stdout is at the time.

  def write(self, step: int, metrics: Mapping[str, float]) -> None:
    """Prints `update 3  train/loss 0.1`."""
    shown = [
      f'{tag} {metrics[tag]:.4g}' for tag in self._tags if tag in metrics
    ]
    if shown:
      print(f'update {step}', *shown, sep='  ', file=self._stream, flush=True)

  def write_text(self, tag: str, text: str) -> None:
    """Prints the text below its name."""
    print(f'{tag}\n{text}', file=self._stream, flush=True)

  def close(self) -> None:
    """Leaves the stream open: it belongs to the caller."""


class LoggerGroup(Logger):
  """Passes everything on to each of several loggers."""

  def __init__(self, *loggers: Logger):
    self._loggers = loggers

  def write(self, step: int, metrics: Mapping[str, float]) -> None:
    """Writes to each logger."""
    for logger in self._loggers:
      logger.write(step, metrics)

  def write_text(self, tag: str, text: str) -> None:
    """Writes to each logger."""
    for logger in self._loggers:
      logger.write_text(tag, text)

  def write_image(self, step: int, tag: str, pixels: np.ndarray) -> None:
    """Writes to each logger."""
    for logger in self._loggers:
      logger.write_image(step, tag, pixels)

  def write_histogram(self, step: int, tag: str, values: np.ndarray) -> None:
    """Writes to each logger."""
    for logger in self._loggers:
      logger.write_histogram(step, tag, values)

  def close(self) -> None:
    """Closes each logger, also when another one fails to close."""
    with contextlib.ExitStack() as stack:
      for logger in self._loggers:
        stack.callback(logger.close)

  def state_dict(self) -> dict[str, Any]:
    """That of each logger."""
    return {'loggers': [logger.state_dict() for logger in self._loggers]}

  def check_state_dict(self, state: Mapping[str, Any]) -> None:
    """Asks each for its own."""
    for logger, own in zip(self._loggers, state['loggers'], strict=True):
      logger.check_state_dict(own)

  def load_state_dict(self, state: Mapping[str, Any]) -> None:
    """Passes each its own."""
    for logger, own in zip(self._loggers, state['loggers'], strict=True):
      logger.load_state_dict(own)


def _synced(path: pathlib.Path) -> int:
  """Sees to it that a file is on the disk; returns its size."""
  with path.open('rb') as file:
    os.fsync(file.fileno())
    return os.fstat(file.fileno()).st_size


def _check_size(path: pathlib.Path, size: int) -> None:
  """Raises where a file is shorter than it was."""
  found = path.stat().st_size if path.exists() else 0
  if found < size:
    raise errors.UsageError(
      f'{path} has {found} bytes; it had {size} when the checkpoint was made, '
      'and the run cannot go on without them'
    )
