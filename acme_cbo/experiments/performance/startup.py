"""Timing of a training run from its start to the first update."""

import os
import pathlib
import subprocess
import tempfile
import time
from typing import NamedTuple

from acme_cbo.experiments import main
from acme_cbo.infra import child_process
from acme_cbo.infra import errors
from acme_cbo.infra import run_directory

# Interval at which the metrics file is read.
_POLL_SECONDS = 0.05


class Start(NamedTuple):
  """Start of a training run up to its first update.

  Attributes:
    seconds: time since the process was started.
    peak_memory: peak use of main memory, in bytes.
  """

  seconds: float
  peak_memory: int


def measure(flags: list[str], repeats: int) -> dict[str, list[Start]]:
  """Starts training runs, and kills each after its first update.

  Args:
    flags: flags of the command `train` that select the config.
    repeats: number of starts of each kind, in turn.

  Returns:
    `cold` starts with an empty compilation cache, and `warm` starts, each with
    the cache of the cold start before it.

  Raises:
    errors.UsageError: a run ended before its first update.
  """
  starts: dict[str, list[Start]] = {'cold': [], 'warm': []}
  for _ in range(repeats):
    with tempfile.TemporaryDirectory() as directory:
      for kind, starts_of_kind in starts.items():
        starts_of_kind.append(
          _time_first_update(flags, pathlib.Path(directory), kind)
        )
  return starts


def _time_first_update(
  flags: list[str], directory: pathlib.Path, kind: str
) -> Start:
  workdir = directory / kind
  begin = time.perf_counter()
  with tempfile.TemporaryFile('w+') as output:
    process = subprocess.Popen(
      [*main.child_command('train'), *flags, f'--workdir={workdir}'],
      env=os.environ
      | {
        'JAX_COMPILATION_CACHE_DIR': str(directory / 'programs'),
        'PYTHONPATH': child_process.python_path(),
      },
      stdout=output,
      stderr=subprocess.STDOUT,
    )
    try:
      while not _has_update(workdir / 'metrics.jsonl'):
        if process.poll() is not None:
          output.seek(0)
          last = output.read().strip().splitlines()[-1:]
          raise errors.UsageError(
            f'the training ended before its first update: {"".join(last)}'
          )
        time.sleep(_POLL_SECONDS)
      seconds = time.perf_counter() - begin
      process.kill()
      _, process.returncode, usage = os.wait4(process.pid, 0)
      return Start(seconds, 1024 * usage.ru_maxrss)
    finally:
      if process.returncode is None:
        process.kill()
        process.wait()


def _has_update(path: pathlib.Path) -> bool:
  """Returns whether the metrics file has a complete line of an update."""
  return any(row['step'] > 0 for row in run_directory.read_metrics(path.parent))
