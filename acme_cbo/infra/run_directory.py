"""The directory of a run: who may begin or go on there, and how it ended.

W/config.json       the resolved config
W/environment.json  code, versions, devices and command line, of each start
W/summary.json      how the run ended and what it came to; written last
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
import shlex
import signal as signals
import subprocess
import sys
import tempfile
import time
from typing import Any, NamedTuple

from acme_cbo.infra import config_schema
from acme_cbo.infra import errors
from acme_cbo.infra import provenance
from acme_cbo.infra import signals as infra_signals

# Differences of configs that an error message spells out.
_MAX_SHOWN = 8
# What a run without a checkpoint leaves, and begins anew.
_OUTPUTS = ('metrics.jsonl', 'texts.jsonl', 'tb')
# What may be there of something that was killed as it began.
_BEGINNINGS = ('config.json.new', 'environment.json', 'environment.json.new')
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
  """Where a run goes if nobody says where: runs/<name>-<time>."""
  now = datetime.datetime.now()
  return pathlib.Path('runs') / f'{name}-{now:%Y%m%d-%H%M%S}'


@contextlib.contextmanager
def _create_and_check(
  directory: pathlib.Path, flag: str
) -> Iterator[list[str]]:
  """Makes a directory; whether it may be used is checked while it is entered.

  Args:
    directory: may exist already.
    flag: that named it.

  Yields:
    The names of what is in it; whether it can be written to is tried after.

  Raises:
    errors.UsageError: it cannot be made, read or written to.
  """
  try:
    directory.mkdir(parents=True, exist_ok=True)
    yield [path.name for path in directory.iterdir()]
    with tempfile.TemporaryFile(dir=directory):
      pass
  except OSError as error:
    raise errors.UsageError(
      f'{flag}={directory} cannot be made, read or written to: {error.strerror}'
    ) from error


def create(directory: pathlib.Path, flag: str) -> None:
  """`_create_and_check`, whatever is in it."""
  with _create_and_check(directory, flag):
    pass


def check_file(path: pathlib.Path, flag: str) -> None:
  """Raises an `errors.UsageError` unless a file can be written there."""
  if path.is_dir():
    raise errors.UsageError(f'{flag}={path} is a directory; name a file')
  create(path.parent, flag)


def prepare(workdir: pathlib.Path) -> None:
  """Makes the directory of a run.

  Args:
    workdir: does not exist yet, or is empty but for what a run leaves that was
      killed as it began.

  Raises:
    errors.UsageError: there is something in it already, or it cannot be made
      or written to.
  """
  with _create_and_check(workdir, '--workdir') as names:
    if set(names) - set(_BEGINNINGS):
      raise errors.UsageError(
        f'--workdir={workdir} is not empty; nothing in it is touched: choose a '
        'directory that is new or empty, or go on with its run by --resume'
      )


def prepare_resumable(
  directory: pathlib.Path,
  flag: str,
  kind: str,
  field: str,
  leftovers: Sequence[str] = (),
) -> None:
  """Makes a directory whose command is started again to go on.

  Args:
    directory: does not exist yet, is empty, or was begun by such a command.
    flag: that named it.
    kind: of what is in it, as 'an evaluation'.
    field: that the `config.json` of this kind alone has.
    leftovers: what may be there before that is written.

  Raises:
    errors.UsageError: it cannot be made, or holds something else.
  """
  with _create_and_check(directory, flag) as names:
    begun = 'config.json' in names and field in read_config(directory)
    if set(names) - {*_BEGINNINGS, *leftovers} and not begun:
      raise errors.UsageError(
        f'{flag}={directory} holds something else than {kind}; nothing in it '
        f'is touched: choose a directory that is new, empty, or of {kind}'
      )


def check_resumable(workdir: pathlib.Path, config: dict[str, Any]) -> None:
  """Raises unless the run of a directory can go on with a config.

  Args:
    workdir: of the run.
    config: that it is to go on with.

  Raises:
    errors.UsageError: there is no run, it is finished, or it was begun with
      another config.
  """
  read_config(workdir)  # Without one, nothing was begun.
  summary = read_summary(workdir)
  if summary and summary['status'] == 'finished':
    raise errors.UsageError(
      f'the run in --workdir={workdir} is finished: nothing is left to resume'
    )
  differing = config_changes(workdir, config)
  if differing:
    raise errors.UsageError(
      f'the run in --workdir={workdir} was begun with another config, and a '
      'resumed run is to end as if it had never stopped: '
      + errors.format_list(differing, _MAX_SHOWN, 'more')
    )


def config_changes(workdir: pathlib.Path, config: dict[str, Any]) -> list[str]:
  """How a config differs from that which a run was begun with.

  Raises:
    errors.UsageError: that cannot be read.
  """
  old = config_schema.flat(read_config(workdir))
  new = config_schema.flat(json.loads(json.dumps(config)))
  return [
    f'config.{name}: {old.get(name, "nothing")} -> {new.get(name, "nothing")}'
    for name in sorted(old.keys() | new.keys())
    if old.get(name) != new.get(name)
  ]


def read_config(workdir: pathlib.Path) -> dict[str, Any]:
  """The config that a run has written down.

  Args:
    workdir: of the run.

  Returns:
    What its `config.json` holds.

  Raises:
    errors.UsageError: it has none, or none that can be read.
  """
  try:
    values = json.loads((workdir / 'config.json').read_text())
  except OSError as error:
    raise errors.UsageError(
      f'{workdir} holds no config.json that can be read ({error.strerror}): '
      'nothing was begun there'
    ) from error
  except ValueError as error:
    raise errors.UsageError(
      f'{workdir / "config.json"} is damaged: {error}'
    ) from error
  if not isinstance(values, dict):
    raise errors.UsageError(
      f'{workdir / "config.json"} is damaged: it holds no object'
    )
  return values


def read_summary(workdir: pathlib.Path) -> dict[str, Any] | None:
  """How a run ended.

  Args:
    workdir: of the run.

  Returns:
    What its `summary.json` holds; None where the run was killed or goes on.

  Raises:
    errors.UsageError: it cannot be read.
  """
  path = workdir / 'summary.json'
  if not path.exists():
    return None
  try:
    summary = json.loads(path.read_text())
    summary['status'], summary['updates']
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise errors.UsageError(f'{path} is damaged: {error!r}') from error
  return summary


def revision(workdir: pathlib.Path) -> str | None:
  """Of the code that a run went on with last; None where it is not known."""
  starts = _read_starts(workdir)
  try:
    git = starts[-1]['git'] if starts else None
    return git and f'{git["revision"][:12]}{" changed" if git["dirty"] else ""}'
  except (KeyError, TypeError) as error:
    raise errors.UsageError(
      f'{workdir / "environment.json"} is damaged: {error!r}; move it away to '
      'go on without it'
    ) from error


def _read_starts(workdir: pathlib.Path) -> list[dict[str, Any]]:
  """What each start of a run began with.

  Args:
    workdir: of the run.

  Returns:
    The entries of its `environment.json`; none where there is none yet.

  Raises:
    errors.UsageError: it cannot be read.
  """
  path = workdir / 'environment.json'
  if not path.exists():
    return []
  try:
    return list(json.loads(path.read_text())['starts'])
  except (ValueError, KeyError, TypeError) as error:
    raise errors.UsageError(
      f'{path} is damaged: {error!r}; move it away to go on without it'
    ) from error


def environment_changes(starts: list[dict[str, Any]]) -> list[str]:
  """How the last start differs from the one before, as the numbers may."""
  if len(starts) < 2:
    return []
  names = ('git', 'python', 'versions', 'devices', 'cpus', 'xla_flags')
  before, now = (
    config_schema.flat({name: start.get(name) for name in names})
    for start in starts[-2:]
  )
  return [
    f'{name}: {before.get(name)} -> {now.get(name)}'
    for name in {**before, **now}
    if before.get(name) != now.get(name)
  ]


def clear(workdir: pathlib.Path) -> None:
  """Removes the files of a run that was killed before its first update.

  Args:
    workdir: of the run.

  Raises:
    errors.UsageError: it has made updates.
  """
  metrics = workdir / 'metrics.jsonl'
  if metrics.exists() and '\n' in metrics.read_text():
    raise errors.UsageError(
      f'the run in --workdir={workdir} has made updates and has no checkpoints '
      'any more; begin anew in another directory'
    )
  for name in _OUTPUTS:
    path = workdir / name
    if path.is_dir():
      for file in path.iterdir():
        file.unlink()
    else:
      path.unlink(missing_ok=True)


def record_start(
  workdir: pathlib.Path, config: dict[str, Any], devices: list[str]
) -> list[dict[str, Any]]:
  """Writes down what a run begins or goes on with.

  Args:
    workdir: of the run.
    config: all its settings.
    devices: that it computes on.

  Returns:
    What `environment.json` holds of each start, this one the last.
  """
  starts = [*_read_starts(workdir), _environment(devices)]
  write_json(workdir / 'environment.json', {'starts': starts})
  write_json(workdir / 'config.json', config)
  (workdir / 'summary.json').unlink(missing_ok=True)
  return starts


@contextlib.contextmanager
def lock(workdir: pathlib.Path, flag: str = '--workdir') -> Iterator[None]:
  """Keeps other processes out of a directory, until the process ends.

  Args:
    workdir: of a run.
    flag: that named it.

  Raises:
    errors.UsageError: another one is at work in it, or there is none.
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
        f'another process is at work in {flag}={workdir}; wait for its end'
      ) from error
    yield
  finally:
    os.close(descriptor)


class RunGuard(NamedTuple):
  """What `summary_on_exit` gives to whoever can end a run.

  Attributes:
    get_signal: the signal that came in, if one did.
    record_failure: writes that the run failed, and why, where the process has
      to be ended without anything else.
  """

  get_signal: infra_signals.SignalGuard
  record_failure: Callable[[str], None]


@contextlib.contextmanager
def summary_on_exit(
  workdir: pathlib.Path, facts: dict[str, Any], start: float
) -> Iterator[RunGuard]:
  """Writes how the run ended to `summary.json`, however it does.

  `facts` go into it, with `status`, 'finished', 'interrupted', 'diverged' or
  'failed'; `reason`, why; and `seconds` since the start.

  Args:
    workdir: of the run.
    facts: about it; what the body adds is written too, `finished_by` as the
      reason of a run that ended well.
    start: what `time.monotonic` said at the start.

  Yields:
    The `RunGuard`.

  Raises:
    BaseException: what the body raises.
  """

  def end(status, reason):
    write_json(
      workdir / 'summary.json',
      {'status': status, 'reason': reason}
      | {name: x for name, x in facts.items() if name != 'finished_by'}
      | {'seconds': time.monotonic() - start},
    )

  def abort(signal):
    name = signals.Signals(signal).name
    reason = f'{name}, without waiting for what was under way'
    # A progress bar hides the cursor of a terminal, and hears nothing of this.
    stream = sys.__stderr__ or sys.stderr
    shown = '\x1b[?25h\n' if stream.isatty() else ''
    print(f'{shown}interrupted: {reason}', file=stream, flush=True)
    end('interrupted', reason)

  with infra_signals.SignalGuard(abort) as interrupted:
    try:
      yield RunGuard(interrupted, lambda reason: end('failed', reason))
    except BaseException as error:
      if isinstance(error, errors.Interrupted):
        status, said = 'interrupted', str(error)
      elif isinstance(error, FloatingPointError):
        status, said = 'diverged', str(error)
      else:
        status, said = 'failed', f'{type(error).__name__}: {error}'
      end(status, '; '.join([said, *errors.notes(error)]))
      if isinstance(error, SystemExit):
        # Its code may be that of a run that ended well.
        raise RuntimeError(f'the run was ended by {error!r}') from error
      raise
    end('finished', facts['finished_by'])


def write_json(path: pathlib.Path, value: Any) -> None:
  """Writes an object of finite numbers, all of it or nothing."""
  write_text(path, json.dumps(value, indent=2, allow_nan=False) + '\n')


def write_text(path: pathlib.Path, text: str) -> None:
  """Writes a file, all of it or nothing."""
  new = path.with_name(f'{path.name}.new')
  new.write_text(text, encoding='utf-8')
  new.replace(path)


def _environment(devices: list[str]) -> dict[str, Any]:
  """What the numbers of a run may depend on beside its config."""
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
  """Revision of the code and whether it was changed; None without a git."""
  root = provenance.PACKAGE.parent
  try:
    said = [
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
    ]
  except (OSError, subprocess.CalledProcessError):
    return None
  return {'revision': said[0], 'dirty': bool(said[1])}
