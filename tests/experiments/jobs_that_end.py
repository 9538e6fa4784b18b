"""Jobs for tests of executors and sweeps, as importable functions."""

from collections.abc import Mapping, Sequence
import dataclasses
import json
import os
import pathlib
import shutil
import signal
import threading
import time
import types
from typing import Any

from acme_cbo.infra import errors

# Learning rates that make `train` fail, kill itself or wait.
FAILS, DIES, LASTS = 1.0, 2.0, 3.0
# Environment variable with the directory of the policy that `train` copies.
POLICY = 'POLICY_OF_TESTS'


def print_text(text: str) -> None:
  """Prints a text."""
  print(text)


def write_cores(path: str) -> None:
  """Writes the cores that this process may use."""
  pathlib.Path(path).write_text(json.dumps(sorted(os.sched_getaffinity(0))))


def fail() -> None:
  """Raises an exception."""
  raise RuntimeError('broken on purpose')


def raise_usage_error() -> None:
  """Raises a `UsageError`."""
  raise errors.UsageError('no such thing')


def kill_itself() -> None:
  """Kills this process."""
  os.kill(os.getpid(), signal.SIGKILL)


def wait_for_signal(path: str) -> None:
  """Writes the pid of this process and waits for SIGTERM."""
  received = threading.Event()
  signal.signal(signal.SIGTERM, lambda *unused: received.set())
  new = pathlib.Path(f'{path}.new')
  new.write_text(str(os.getpid()))
  new.rename(path)
  while not received.wait(0.05):
    pass
  pathlib.Path(path).write_text('ended gracefully')


def train(config: dict[str, Any], workdir: str) -> None:
  """Writes the files of a training; its learning rate decides how it ends."""
  path = pathlib.Path(workdir)
  with (path.parent.parent / 'began').open('a') as file:
    file.write(f'{path.name}\n')
  rate = config['optimizer']['learning_rate']
  if rate == FAILS:
    fail()
  if rate == DIES:
    kill_itself()
  if rate == LASTS:
    time.sleep(600)
  shutil.copytree(os.environ[POLICY], path / 'policy')
  (path / 'config.json').write_text(json.dumps(config))
  summary = {
    'status': 'finished',
    'updates': config['training']['num_updates'],
    'evaluation': {'grpo': {'score_last': {'mean': 0.5}}},
  }
  (path / 'summary.json').write_text(json.dumps(summary))


def compare(
  comparison: Mapping[str, Any], paths: Sequence[str], left_out: Sequence[str]
) -> None:
  """Compares on small environments."""
  # Imported late: no other job needs it, and it takes most of the time.
  from acme_cbo.evaluation.comparison import run as compare_lib  # noqa: PLC0415
  from tests.support import tiny_environments  # noqa: PLC0415

  settings = compare_lib.from_flags(types.SimpleNamespace(**comparison), paths)
  settings = dataclasses.replace(settings, left_out=tuple(left_out))
  compare_lib.run(settings, tiny_environments.resolve)


def write_names(
  comparison: Mapping[str, Any], paths: Sequence[str], left_out: Sequence[str]
) -> None:
  """Writes the files of a comparison that only names the runs."""
  report = pathlib.Path(comparison['out'])
  report.mkdir(exist_ok=True)
  summary = {
    'verdict': [f'Compared: {pathlib.Path(path).name}.' for path in paths],
    'beside': [],
    'remarks': left_out,
    'models': {},
    'measures': {'score': {'models': {}}},
    'differences': {},
    'unit': 'episode',
    'confidence': 0.9,
  }
  (report / 'summary.json').write_text(json.dumps(summary))


def cannot_compare(
  comparison: Mapping[str, Any], paths: Sequence[str], left_out: Sequence[str]
) -> None:
  """Raises a `UsageError`."""
  del comparison, paths, left_out
  raise_usage_error()
