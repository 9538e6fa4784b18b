"""Run directories: creation, locking, resume checks, and the final summary.

W/config.json       resolved config
W/environment.json  code, versions, devices and command line of each start
W/summary.json      how the run ended and its results; written last
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
import contextlib
import datetime
import fcntl
import importlib.metadata
import json
import os
import pathlib
import platform
import re
import shlex
import signal as signals
import subprocess
import sys
import tempfile
import time
from typing import Any, NamedTuple

from acme_cbo.infra import config_schema
from acme_cbo.infra import errors
from acme_cbo.infra import files
from acme_cbo.infra import provenance
from acme_cbo.infra import signals as infra_signals

# Number of config differences that an error message lists.
_MAX_SHOWN = 8
# Outputs of a run without a checkpoint, which starts from the beginning.
_OUTPUTS = ('metrics.jsonl', 'texts.jsonl')
# Names that `training.loggers` gives to event files end in a time in
# nanoseconds and a process id.
_EVENT_FILE = re.compile(r'events\..+\.[0-9]{19}\.[0-9]+')
_MAX_JSON_BYTES = 10**7
_MAX_LOG_BYTES = 4 * 10**9
_MOVE_AWAY = 'move it away to continue without it'
# Files that a command may leave if it is killed while it starts.
_STARTUP_FILES = ('config.json.new', 'environment.json', 'environment.json.new')
_VERSIONS = (
  'jax',
  'jaxlib',
  'dm-haiku',
  'optax',
  'rlax',
  'orbax-checkpoint',
  'numpy',
  'pandas',
  'scipy',
  'tinygp',
)


def default_workdir(name: str) -> pathlib.Path:
  """Returns the default run directory, runs/<name>-<time>.

  Args:
    name: name of the run.
  """
  now = datetime.datetime.now()
  return pathlib.Path('runs') / f'{name}-{now:%Y%m%d-%H%M%S}'


@contextlib.contextmanager
def _create_and_check(
  directory: pathlib.Path, flag: str
) -> Iterator[list[str]]:
  """Creates a directory, lets the body check its contents, and tests writing.

  Args:
    directory: path, which may exist.
    flag: flag that names it, for messages.

  Yields:
    Names of the files in the directory.

  Raises:
    errors.UsageError: the directory cannot be created, read or written to.
  """
  try:
    directory.mkdir(parents=True, exist_ok=True)
    yield [path.name for path in directory.iterdir()]
    with tempfile.TemporaryFile(dir=directory):
      pass
  except OSError as error:
    raise errors.UsageError(
      f'{flag}={directory} cannot be created, read or written to: '
      f'{error.strerror}'
    ) from error


def create(directory: pathlib.Path, flag: str) -> None:
  """Creates a directory, whatever it contains.

  Args:
    directory: path, which may exist.
    flag: flag that names it, for messages.

  Raises:
    errors.UsageError: the directory cannot be created, read or written to.
  """
  with _create_and_check(directory, flag):
    pass


def check_file(path: pathlib.Path, flag: str) -> None:
  """Raises unless a file can be written to a path.

  Args:
    path: path of the file, which may exist.
    flag: flag that names it, for messages.

  Raises:
    errors.UsageError: the path is a directory or cannot be written to.
  """
  if path.is_dir():
    raise errors.UsageError(f'{flag}={path} is a directory; name a file')
  create(path.parent, flag)


def prepare(workdir: pathlib.Path) -> None:
  """Creates the directory of a new run.

  Args:
    workdir: path; if it exists, it must contain nothing but the files of a run
      that was killed while it started.

  Raises:
    errors.UsageError: the directory is not empty, cannot be created or written
      to, holds a link, or has a path that is not UTF-8.
  """
  if not str(workdir.absolute()).isprintable():
    raise errors.UsageError(
      f'--workdir={workdir} has characters that cannot be shown, or bytes that '
      'are not UTF-8, which checkpoints cannot have; choose another directory'
    )
  with _create_and_check(workdir, '--workdir') as names:
    if set(names) - set(_STARTUP_FILES):
      raise errors.UsageError(
        f'--workdir={workdir} is not empty; nothing in it was changed: choose '
        'a new or empty directory, or resume its run with --resume'
      )
    files.check_tree(workdir)


def prepare_resumable(
  directory: pathlib.Path,
  flag: str,
  kind: str,
  field: str,
  leftovers: Sequence[str] = (),
) -> None:
  """Creates the output directory of a command that resumes when rerun.

  Args:
    directory: path; if it exists, it must be empty or an output directory of
      the same command.
    flag: flag that names it, for messages.
    kind: noun for its contents, such as 'an evaluation'.
    field: field that only the `config.json` of this command has.
    leftovers: names that may exist before `config.json` is written.

  Raises:
    errors.UsageError: the directory cannot be created, it has other contents,
      or it holds a link.
  """
  with _create_and_check(directory, flag) as names:
    is_resumed = 'config.json' in names and field in read_config(directory)
    if set(names) - {*_STARTUP_FILES, *leftovers} and not is_resumed:
      raise errors.UsageError(
        f'{flag}={directory} contains something other than {kind}; nothing in '
        f'it was changed: choose a directory that is new, empty, or of {kind}'
      )
    files.check_tree(directory)


def check_resumable(workdir: pathlib.Path, changes: Sequence[str]) -> None:
  """Raises unless a run can be resumed.

  Args:
    workdir: directory of the run.
    changes: differences of the config to resume with from that of the run, as
      texts such as 'config.seed: 0 -> 1'.

  Raises:
    errors.UsageError: there is no run, it is finished, the config differs, or
      the directory holds a link.
  """
  read_config(workdir)  # Raises if no run was started here.
  files.check_tree(workdir)
  summary = read_summary(workdir)
  if summary and summary['status'] == 'finished':
    raise errors.UsageError(
      f'the run in --workdir={workdir} is finished: nothing is left to resume'
    )
  if changes:
    raise errors.UsageError(
      f'the run in --workdir={workdir} was started with another config, and a '
      'run can be resumed only with its own: '
      + errors.format_list(changes, _MAX_SHOWN, 'more')
    )


def read_config(workdir: pathlib.Path) -> dict[str, Any]:
  """Reads the config of a run.

  Args:
    workdir: directory of the run.

  Returns:
    Contents of `config.json`.

  Raises:
    errors.UsageError: the file is missing or cannot be read.
  """
  path = workdir / 'config.json'
  if not path.exists():
    raise errors.UsageError(
      f'{workdir} has no config.json: no run was started there'
    )
  return _read_object(path)


def read_summary(workdir: pathlib.Path) -> dict[str, Any] | None:
  """Reads the summary of a run.

  Args:
    workdir: directory of the run.

  Returns:
    Contents of `summary.json`; None if the run was killed or is still running.

  Raises:
    errors.UsageError: the file cannot be read.
  """
  path = workdir / 'summary.json'
  if not path.exists():
    return None
  summary = _read_object(path)
  if not isinstance(summary.get('status'), str) or not isinstance(
    summary.get('updates'), int
  ):
    raise errors.UsageError(
      f'{path} is damaged: it lacks the status or the number of updates'
    )
  return summary


def read_metrics(workdir: pathlib.Path) -> list[dict[str, Any]]:
  """Reads the log of a run.

  Args:
    workdir: directory of the run.

  Returns:
    Complete rows of `metrics.jsonl`; none if the file does not exist.

  Raises:
    errors.UsageError: the file cannot be read, or a line is damaged.
  """
  rows, _ = files.read_lines(
    workdir / 'metrics.jsonl',
    _MAX_LOG_BYTES,
    _parse_row,
    'move the file away to continue without the learning curve',
  )
  return rows


def _parse_row(line: bytes) -> dict[str, Any]:
  """Returns the row in a line; raises a `ValueError` if there is none."""
  row = files.parse_json(line)
  numbers = isinstance(row, dict) and all(
    isinstance(value, int | float) for value in row.values()
  )
  if not numbers or not isinstance(row.get('step'), int):
    raise ValueError('it is no row of numbers with a step')
  return row


def _read_object(path: pathlib.Path, advice: str = '') -> dict[str, Any]:
  """Reads a JSON object; see `files.read_json`."""
  value = files.read_json(path, _MAX_JSON_BYTES, advice)
  if not isinstance(value, dict):
    raise errors.UsageError(
      f'{path} is damaged: it is not a JSON object{advice and f"; {advice}"}'
    )
  return value


def revision(workdir: pathlib.Path) -> str | None:
  """Returns the code revision of the latest start of a run.

  Args:
    workdir: directory of the run.

  Returns:
    Abbreviated revision, with ' changed' if the code was modified; None if it
    is unknown.

  Raises:
    errors.UsageError: `environment.json` cannot be read.
  """
  starts = _read_starts(workdir)
  git = starts[-1].get('git') if starts else None
  if git is None:
    return None
  try:
    return f'{git["revision"][:12]}{" changed" if git["dirty"] else ""}'
  except (KeyError, TypeError) as error:
    raise errors.UsageError(
      f'{workdir / "environment.json"} is damaged: {error!r}; {_MOVE_AWAY}'
    ) from error


def _read_starts(workdir: pathlib.Path) -> list[dict[str, Any]]:
  """Reads the recorded starts of a run.

  Args:
    workdir: directory of the run.

  Returns:
    Entries of `environment.json`; none if the file does not exist.

  Raises:
    errors.UsageError: the file cannot be read.
  """
  path = workdir / 'environment.json'
  if not path.exists():
    return []
  starts = _read_object(path, _MOVE_AWAY).get('starts')
  if not isinstance(starts, list) or not all(
    isinstance(start, dict) for start in starts
  ):
    raise errors.UsageError(
      f'{path} is damaged: it has no list of starts; {_MOVE_AWAY}'
    )
  return starts


def environment_changes(starts: list[dict[str, Any]]) -> list[str]:
  """Returns how the environment of the latest start differs from the previous.

  Args:
    starts: return value of `record_start`.

  Returns:
    Texts such as 'cpus: 2 -> 1' for values that the results may depend on.
  """
  if len(starts) < 2:
    return []
  names = ('git', 'python', 'versions', 'devices', 'cpus', 'xla_flags')
  previous, latest = (
    config_schema.flat({name: start.get(name) for name in names})
    for start in starts[-2:]
  )
  return [
    f'{name}: {previous.get(name)} -> {latest.get(name)}'
    for name in {**previous, **latest}
    if previous.get(name) != latest.get(name)
  ]


def clear(workdir: pathlib.Path) -> None:
  """Removes the outputs of a run that was killed before its first update.

  Args:
    workdir: directory of the run.

  Raises:
    errors.UsageError: the run has made updates.
  """
  if read_metrics(workdir):
    raise errors.UsageError(
      f'the run in --workdir={workdir} has made updates but has no '
      'checkpoints; start a new run in another directory'
    )
  for name in _OUTPUTS:
    (workdir / name).unlink(missing_ok=True)
  for path in event_files(workdir):
    path.unlink()


def event_files(workdir: pathlib.Path) -> list[pathlib.Path]:
  """Returns the event files of a run, without those of other programs.

  Args:
    workdir: directory of the run.
  """
  return [
    path
    for path in (workdir / 'tb').glob('events.*')
    if _EVENT_FILE.fullmatch(path.name)
  ]


def record_start(
  workdir: pathlib.Path, config: dict[str, Any], devices: list[str]
) -> list[dict[str, Any]]:
  """Records the start or resume of a run.

  Writes `config.json` and `environment.json` and removes `summary.json`.

  Args:
    workdir: directory of the run.
    config: resolved config.
    devices: names of the devices in use.

  Returns:
    Entries of `environment.json`, one per start, this one the last.
  """
  starts = [*_read_starts(workdir), _environment(devices)]
  write_json(workdir / 'environment.json', {'starts': starts})
  write_json(workdir / 'config.json', config)
  (workdir / 'summary.json').unlink(missing_ok=True)
  return starts


@contextlib.contextmanager
def lock(workdir: pathlib.Path, flag: str = '--workdir') -> Iterator[None]:
  """Locks a directory against other processes.

  Args:
    workdir: directory of a run.
    flag: flag that names it, for messages.

  Raises:
    errors.UsageError: another process holds the lock, or the directory does not
      exist.
  """
  try:
    descriptor = os.open(workdir, os.O_RDONLY)
  except OSError as error:
    raise errors.UsageError(f'{flag}={workdir}: {error.strerror}') from error
  try:
    try:
      fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
      raise errors.UsageError(
        f'another process is using {flag}={workdir}; wait until it has ended'
      ) from error
    yield
  finally:
    os.close(descriptor)


class RunGuard(NamedTuple):
  """Handles on a run inside `summary_on_exit`.

  Attributes:
    get_signal: function that returns the number of a received signal, or None.
    record_failure: function that writes a failed summary with a reason, for a
      process that has to exit without unwinding.
  """

  get_signal: infra_signals.SignalGuard
  record_failure: Callable[[str], None]


@contextlib.contextmanager
def summary_on_exit(
  workdir: pathlib.Path, facts: dict[str, Any], start: float
) -> Iterator[RunGuard]:
  """Context manager that writes `summary.json` when the body ends.

  The summary has `status`, 'finished', 'interrupted', 'diverged' or 'failed',
  the `reason`, the `facts`, and the `seconds` since the start.

  Args:
    workdir: directory of the run.
    facts: JSON values about the run; entries that the body adds are written
      too, `finished_by` as the reason of a finished run.
    start: value of `time.monotonic` at the start.

  Yields:
    The `RunGuard`.

  Raises:
    BaseException: any exception of the body.
  """

  def write_summary(status, reason):
    write_json(
      workdir / 'summary.json',
      {'status': status, 'reason': reason}
      | {name: x for name, x in facts.items() if name != 'finished_by'}
      | {'seconds': time.monotonic() - start},
    )

  def abort(signal):
    name = signals.Signals(signal).name
    reason = f'{name}, without waiting for the current update'
    # A progress bar has hidden the cursor and is not closed by this exit.
    stream = sys.__stderr__ or sys.stderr
    show_cursor = '\x1b[?25h\n' if stream.isatty() else ''
    print(f'{show_cursor}interrupted: {reason}', file=stream, flush=True)
    write_summary('interrupted', reason)

  with infra_signals.SignalGuard(abort) as get_signal:
    try:
      yield RunGuard(get_signal, lambda reason: write_summary('failed', reason))
    except BaseException as error:
      if isinstance(error, errors.Interrupted):
        status, message = 'interrupted', str(error)
      elif isinstance(error, FloatingPointError):
        status, message = 'diverged', str(error)
      else:
        status, message = 'failed', f'{type(error).__name__}: {error}'
      write_summary(status, '; '.join([message, *errors.notes(error)]))
      if isinstance(error, SystemExit):
        # The exit code may be 0, that of a finished run.
        raise RuntimeError(f'the run was ended by {error!r}') from error
      raise
    write_summary('finished', facts['finished_by'])


def write_json(path: pathlib.Path, value: Any) -> None:
  """Writes JSON values atomically.

  Args:
    path: path of the file.
    value: JSON values without NaN and infinity.
  """
  write_text(path, json.dumps(value, indent=2, allow_nan=False) + '\n')


def write_text(path: pathlib.Path, text: str) -> None:
  r"""Writes a text file atomically.

  Bytes of paths that are not UTF-8 are escaped, as in '\udcff'.

  Args:
    path: path of the file.
    text: contents.
  """
  new = path.with_name(f'{path.name}.new')
  with files.naming(path):
    new.write_text(text, encoding='utf-8', errors='backslashreplace')
    new.replace(path)


def _environment(devices: list[str]) -> dict[str, Any]:
  """Returns everything besides the config that results may depend on."""
  return {
    'time': datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds'),
    'command': shlex.join([sys.executable, *sys.argv]),
    'git': _git(),
    'python': platform.python_version(),
    'versions': {name: importlib.metadata.version(name) for name in _VERSIONS},
    'platform': platform.platform(),
    'devices': devices,
    'cpus': len(os.sched_getaffinity(0)),
    'xla_flags': os.environ.get('XLA_FLAGS', ''),
  }


def _git() -> dict[str, Any] | None:
  """Returns the code revision and whether it was changed; None without git."""
  root = provenance.PACKAGE.parent
  try:
    revision, changes = (
      subprocess.run(
        ['git', '-C', str(root), *command],
        capture_output=True,
        text=True,
        check=True,
      ).stdout.strip()
      for command in (
        ['rev-parse', 'HEAD'],
        ['status', '--porcelain'],
      )
    )
  except (OSError, subprocess.CalledProcessError):
    return None
  return {'revision': revision, 'dirty': bool(changes)}
