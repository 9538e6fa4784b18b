"""Loggers of metrics: TensorBoard, JSON lines, or none."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
import contextlib
import json
import os
import pathlib
import time
from typing import Any, Protocol

import numpy as np
from tensorboardX import event_file_writer
from tensorboardX import summary as summary_lib
from tensorboardX.proto import event_pb2

from acme_cbo.infra import errors
from acme_cbo.infra import files
from acme_cbo.infra import run_directory

# Protobuf creates these at import time, where a type checker cannot see them.
_Event = event_pb2.Event  # pyrefly: ignore[missing-attribute]
_NUM_BINS = 40
_SessionLog = event_pb2.SessionLog  # pyrefly: ignore[missing-attribute]


class Logger(Protocol):
  """Interface of loggers of metrics, texts, images and histograms.

  Example:
    >>> import acme_cbo
    >>> class Printer(acme_cbo.Logger):
    ...   def write(self, step, metrics):
    ...     print(step, metrics)
    >>> Printer().write(1, {'reward/total': 0.5})
    1 {'reward/total': 0.5}
  """

  def write(self, step: int, metrics: Mapping[str, float]) -> None:
    """Writes the metrics of one step.

    Args:
      step: number of updates made.
      metrics: scalars by tag.
    """

  def write_text(self, tag: str, text: str) -> None:
    """Writes a text that describes the whole run, such as its config.

    Args:
      tag: name of the text.
      text: Markdown.
    """

  def write_image(self, step: int, tag: str, pixels: np.ndarray) -> None:
    """Writes an image, if the logger supports images.

    Args:
      step: number of updates made.
      tag: name of the image.
      pixels: [H, W, 3] uint8.
    """
    del step, tag, pixels

  def write_histogram(self, step: int, tag: str, values: np.ndarray) -> None:
    """Writes a histogram, if the logger supports histograms.

    Args:
      step: number of updates made.
      tag: name of the histogram.
      values: [n] values to count.
    """
    del step, tag, values

  def close(self) -> None:
    """Flushes and closes the logger; a second call does nothing."""

  def state_dict(self) -> dict[str, Any]:
    """Returns the extent of the data written so far, as JSON values."""
    return {}

  def check_state_dict(self, state: Mapping[str, Any]) -> None:
    """Raises unless the data written before `state_dict` still exist.

    Args:
      state: return value of `state_dict`.

    Raises:
      errors.UsageError: a file is missing or shorter.
    """
    del state

  def load_state_dict(self, state: Mapping[str, Any]) -> None:
    """Removes the data written after `state_dict`.

    Args:
      state: return value of `state_dict`.
    """
    del state


class NoopLogger(Logger):
  """Logger that writes nothing."""

  def write(self, step: int, metrics: Mapping[str, float]) -> None:
    """Does nothing."""

  def write_text(self, tag: str, text: str) -> None:
    """Does nothing."""

  def close(self) -> None:
    """Does nothing."""


class TensorBoardLogger(Logger):
  """Logger that writes event files to `<workdir>/tb`.

  It uses the event writer of tensorboardX instead of its `SummaryWriter`, which
  writes in a daemon thread: on a full disk that class would not raise, but hang
  the run once its queue is full. Here a failed write raises at once.
  """

  def __init__(
    self,
    workdir: str | os.PathLike[str],
    *,
    flush_seconds: float = 10.0,
  ):
    """Opens a new event file.

    Args:
      workdir: directory of the run.
      flush_seconds: number of seconds between two flushes, the most that a
        killed run loses.
    """
    self._workdir = pathlib.Path(workdir)
    self._directory = self._workdir / 'tb'
    self._directory.mkdir(parents=True, exist_ok=True)
    # The writer's own names have a resolution of one second: a quick resume
    # would overwrite the file. `run_directory.event_files` knows them by this.
    self._suffix = f'.{time.time_ns()}.{os.getpid()}'
    self._writer = event_file_writer.EventsWriter(
      str(self._directory / 'events'), self._suffix
    )
    self._writer.flush()  # Creates the file.
    self._flush_seconds = flush_seconds
    self._flushed = time.monotonic()
    self._closed = False
    self._step = 0

  def write(self, step: int, metrics: Mapping[str, float]) -> None:
    """Writes one event with all scalars."""
    # The evaluation of the initial state is logged after the first update.
    self._step = max(self._step, step)
    summary = _Event().summary
    for tag, value in metrics.items():
      summary.MergeFrom(summary_lib.scalar(tag, value))
    self._add(_Event(step=step, summary=summary))

  def write_text(self, tag: str, text: str) -> None:
    """Writes a text to the text tab."""
    self._add(_Event(summary=summary_lib.text(tag, text)))

  def write_image(self, step: int, tag: str, pixels: np.ndarray) -> None:
    """Writes an image to the images tab."""
    self._add(
      _Event(step=step, summary=summary_lib.image(tag, pixels, 1, 'HWC'))
    )

  def write_histogram(self, step: int, tag: str, values: np.ndarray) -> None:
    """Writes a histogram to the histograms and distributions tabs."""
    summary = summary_lib.histogram(tag, values, bins=_NUM_BINS)
    self._add(_Event(step=step, summary=summary))

  def write_layout(self, layout: Mapping[str, Mapping[str, list[str]]]) -> None:
    """Writes the layout of the custom scalars tab.

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
      values: hyperparameters by name.
      tags: tags of the scalars whose latest values are shown beside them.
    """
    for summary in summary_lib.hparams(dict(values), dict.fromkeys(tags)):
      self._add(_Event(summary=summary))

  def close(self) -> None:
    """Flushes and closes the event file."""
    if not self._closed:
      self._closed = True
      with files.naming(self._directory):
        self._writer.close()

  def state_dict(self) -> dict[str, Any]:
    """Returns the sizes of the event files and the latest step in them."""
    with files.naming(self._directory):
      self._writer.flush()
    paths = run_directory.event_files(self._workdir)
    return {
      'step': self._step,
      'sizes': {path.name: _sync(path) for path in paths},
    }

  def check_state_dict(self, state: Mapping[str, Any]) -> None:
    """Raises an `errors.UsageError` if an event file is missing or shorter."""
    for name, size in state['sizes'].items():
      _check_size(self._directory / name, size)

  def load_state_dict(self, state: Mapping[str, Any]) -> None:
    """Truncates the event files and writes a session start.

    The session start makes an open TensorBoard drop the later events. Event
    files of other programs are left as they are.
    """
    for path in run_directory.event_files(self._workdir):
      if path.name in state['sizes']:
        os.truncate(path, state['sizes'][path.name])
      elif not path.name.endswith(self._suffix):
        path.unlink()
    self._step = state['step']
    start = _SessionLog(status=_SessionLog.START)
    self._add(_Event(step=self._step + 1, session_log=start))

  def _add(self, event: Any) -> None:
    event.wall_time = time.time()
    with files.naming(self._directory):
      self._writer.write_event(event)
      if time.monotonic() - self._flushed >= self._flush_seconds:
        self._writer.flush()
        self._flushed = time.monotonic()


class JsonlLogger(Logger):
  """Logger that appends a JSON object per write to `<workdir>/metrics.jsonl`.

  Texts go to `texts.jsonl`, so that every line of `metrics.jsonl` is a row of
  numbers: `{"step": 3, "time": 1.7e9, "train/loss": 0.1}`.
  """

  def __init__(self, workdir: str | os.PathLike[str]):
    directory = pathlib.Path(workdir)
    directory.mkdir(parents=True, exist_ok=True)
    self._file = (directory / 'metrics.jsonl').open('a', encoding='utf-8')
    self._texts = directory / 'texts.jsonl'

  def write(self, step: int, metrics: Mapping[str, float]) -> None:
    """Appends a line and flushes it; NaN and infinity raise a ValueError."""
    if reserved := {'step', 'time'} & metrics.keys():
      raise ValueError(f'{sorted(reserved)} cannot be tags of metrics.')
    row = {'step': step, 'time': time.time(), **metrics}
    with files.naming(pathlib.Path(self._file.name)):
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
    """Returns the sizes of both files."""
    return {
      path.name: _sync(path) if path.exists() else 0 for path in self._paths()
    }

  def check_state_dict(self, state: Mapping[str, Any]) -> None:
    """Raises an `errors.UsageError` if a file is missing or shorter."""
    for path in self._paths():
      _check_size(path, state[path.name])

  def load_state_dict(self, state: Mapping[str, Any]) -> None:
    """Truncates both files."""
    for path in self._paths():
      if path.exists():
        os.truncate(path, state[path.name])

  def _paths(self):
    return pathlib.Path(self._file.name), self._texts


class LoggerGroup(Logger):
  """Logger that forwards everything to several loggers."""

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
    """Closes each logger, even if another one fails to close."""
    with contextlib.ExitStack() as stack:
      for logger in self._loggers:
        stack.callback(logger.close)

  def state_dict(self) -> dict[str, Any]:
    """Returns the state of each logger."""
    return {'loggers': [logger.state_dict() for logger in self._loggers]}

  def check_state_dict(self, state: Mapping[str, Any]) -> None:
    """Checks the state of each logger."""
    for logger, part in zip(self._loggers, state['loggers'], strict=True):
      logger.check_state_dict(part)

  def load_state_dict(self, state: Mapping[str, Any]) -> None:
    """Restores the state of each logger."""
    for logger, part in zip(self._loggers, state['loggers'], strict=True):
      logger.load_state_dict(part)


def _sync(path: pathlib.Path) -> int:
  """Flushes a file to disk and returns its size in bytes."""
  with path.open('rb') as file:
    os.fsync(file.fileno())
    return os.fstat(file.fileno()).st_size


def _check_size(path: pathlib.Path, size: int) -> None:
  """Raises an `errors.UsageError` if a file is shorter than `size` bytes."""
  actual = path.stat().st_size if path.exists() else 0
  if not 0 <= size <= actual:
    raise errors.UsageError(
      f'{path} has {actual} bytes; it had {size} when the checkpoint was '
      'saved, and the run cannot be resumed without them'
    )
