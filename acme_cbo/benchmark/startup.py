"""Seconds from the start of launchers/train.py to its first update."""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

from acme_cbo import errors

_TRAIN = pathlib.Path(__file__).parents[2] / 'launchers' / 'train.py'
# How often it is looked whether the update is there.
_LOOK_EVERY = 0.05


def measure(flags: list[str]) -> dict[str, float]:
  """Starts a training twice, and ends it when its first update is made.

  Args:
    flags: of launchers/train.py: the config.

  Returns:
    `cold`, where nothing that was compiled before is kept, and `warm`, with
    what the first start has kept.

  Raises:
    errors.UsageError: the training ended without an update.
  """
  with tempfile.TemporaryDirectory() as kept:
    return {
      kind: _seconds_to_first_update(flags, pathlib.Path(kept), kind)
      for kind in ('cold', 'warm')
    }


def _seconds_to_first_update(flags, kept, kind):
  workdir = kept / kind
  begin = time.perf_counter()
  with tempfile.TemporaryFile('w+') as printed:
    process = subprocess.Popen(
      [sys.executable, str(_TRAIN), *flags, f'--workdir={workdir}'],
      env=os.environ | {'JAX_COMPILATION_CACHE_DIR': str(kept / 'programs')},
      stdout=printed,
      stderr=subprocess.STDOUT,
    )
    try:
      while not _is_updated(workdir / 'metrics.jsonl'):
        if process.poll() is not None:
          printed.seek(0)
          last = printed.read().strip().splitlines()[-1:]
          raise errors.UsageError(
            f'{_TRAIN.name} ended before its first update: {"".join(last)}'
          )
        time.sleep(_LOOK_EVERY)
      return time.perf_counter() - begin
    finally:
      process.kill()
      process.wait()


def _is_updated(path: pathlib.Path) -> bool:
  """Whether the metrics of an update are written, whole."""
  if not path.exists():
    return False
  whole = path.read_text().rpartition('\n')[0].splitlines()
  return any(json.loads(line)['step'] > 0 for line in whole)
