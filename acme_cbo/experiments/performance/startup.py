"""Seconds from the start of a training to its first update."""

import json
import os
import pathlib
import subprocess
import tempfile
import time
from typing import NamedTuple

from acme_cbo.experiments import main
from acme_cbo.infra import child_process
from acme_cbo.infra import errors

# How often it is looked whether the update is there.
_LOOK_EVERY = 0.05


class Start(NamedTuple):
  """A training up to its first update.

  Attributes:
    seconds: from the shell.
    peak_memory: bytes of main memory that it has held at most.
  """

  seconds: float
  peak_memory: int


def measure(flags: list[str], repeats: int) -> dict[str, list[Start]]:
  """Starts trainings, and ends each when its first update is made.

  Args:
    flags: of the command train: the config.
    repeats: starts of each kind, in turn.

  Returns:
    `cold`, where nothing that was compiled before is kept, and `warm`, with
    what the cold start before it has kept.

  Raises:
    errors.UsageError: the training ended without an update.
  """
  starts: dict[str, list[Start]] = {'cold': [], 'warm': []}
  for _ in range(repeats):
    with tempfile.TemporaryDirectory() as kept:
      for kind, made in starts.items():
        made.append(_to_first_update(flags, pathlib.Path(kept), kind))
  return starts


def _to_first_update(flags: list[str], kept: pathlib.Path, kind: str) -> Start:
  workdir = kept / kind
  begin = time.perf_counter()
  with tempfile.TemporaryFile('w+') as printed:
    process = subprocess.Popen(
      [*main.child_command('train'), *flags, f'--workdir={workdir}'],
      env=os.environ
      | {
        'JAX_COMPILATION_CACHE_DIR': str(kept / 'programs'),
        'PYTHONPATH': child_process.python_path(),
      },
      stdout=printed,
      stderr=subprocess.STDOUT,
    )
    try:
      while not _is_updated(workdir / 'metrics.jsonl'):
        if process.poll() is not None:
          printed.seek(0)
          last = printed.read().strip().splitlines()[-1:]
          raise errors.UsageError(
            f'the training ended before its first update: {"".join(last)}'
          )
        time.sleep(_LOOK_EVERY)
      seconds = time.perf_counter() - begin
      process.kill()
      _, process.returncode, usage = os.wait4(process.pid, 0)
      return Start(seconds, 1024 * usage.ru_maxrss)
    finally:
      if process.returncode is None:
        process.kill()
        process.wait()


def _is_updated(path: pathlib.Path) -> bool:
  """Whether the metrics of an update are written, whole."""
  if not path.exists():
    return False
  whole = path.read_text().rpartition('\n')[0].splitlines()
  return any(json.loads(line)['step'] > 0 for line in whole)
