"""Jobs for tests of what runs jobs: functions that a process can import."""

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

# Learning rates of trainings that do so.
FAILS, DIES, LASTS = 1.0, 2.0, 3.0
# Environment variable: directory of the policy that every training ends with.
POLICY = 'POLICY_OF_TESTS'


def says(words: str) -> None:
  """Prints."""
  print(words)


def counts_cores(path: str) -> None:
  """Writes down on which cores it may run."""
  pathlib.Path(path).write_text(json.dumps(sorted(os.sched_getaffinity(0))))


def fails() -> None:
  """Raises."""
  raise RuntimeError('broken on purpose')


def is_refused() -> None:
  """Raises what a user can mend."""
  raise errors.UsageError('no such thing')


def dies() -> None:
  """Is killed."""
  os.kill(os.getpid(), signal.SIGKILL)


def lasts(path: str) -> None:
  """Writes down its process, and stays until it is told to end."""
  told = threading.Event()
  signal.signal(signal.SIGTERM, lambda *unused: told.set())
  new = pathlib.Path(f'{path}.new')
  new.write_text(str(os.getpid()))
  new.rename(path)
  while not told.wait(0.05):
    pass
  pathlib.Path(path).write_text('ended in good order')


def train(config: dict[str, Any], workdir: str) -> None:
  """Leaves what a training leaves; its learning rate says how it ends."""
  path = pathlib.Path(workdir)
  with (path.parent.parent / 'began').open('a') as file:
    file.write(f'{path.name}\n')
  rate = config['optimizer']['learning_rate']
  if rate == FAILS:
    fails()
  if rate == DIES:
    dies()
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
  comparing: Mapping[str, Any], paths: Sequence[str], left_out: Sequence[str]
) -> None:
  """Compares on the systems of tests."""
  # What no other job needs takes the most of their time.
  from acme_cbo.evaluation.comparison import run as compare_lib  # noqa: PLC0415
  from tests.support import tiny_environments  # noqa: PLC0415

  settings = compare_lib.from_flags(types.SimpleNamespace(**comparing), paths)
  settings = dataclasses.replace(settings, left_out=tuple(left_out))
  compare_lib.run(settings, tiny_environments.resolve)


def names_them(
  comparing: Mapping[str, Any], paths: Sequence[str], left_out: Sequence[str]
) -> None:
  """Compares nothing, and leaves what a comparison leaves."""
  report = pathlib.Path(comparing['out'])
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
  comparing: Mapping[str, Any], paths: Sequence[str], left_out: Sequence[str]
) -> None:
  """Raises what a user can mend."""
  del comparing, paths, left_out
  is_refused()
