"""A whole study: trainings, then their comparison; its files in one directory.

S/config.json  what the study is
S/runs/        a directory for each training, as launchers/train.py leaves it
S/logs/        what each job printed
S/report/      the comparison, as launchers/compare.py leaves it: index.html

What is finished is not done again: the same command goes on after a kill.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
import contextlib
import dataclasses
import functools
import json
import pathlib
import signal as signals
import sys
import time
import types
from typing import Any, NamedTuple

from acme_cbo.experiments import config as config_lib
from acme_cbo.experiments import executors
from acme_cbo.experiments import sweep_config
from acme_cbo.experiments import sweep_progress
from acme_cbo.infra import errors
from acme_cbo.infra import jax_environment
from acme_cbo.infra import run_directory

_COMPARISON = 'comparison'
_POLL_SECONDS = 0.2


@dataclasses.dataclass(frozen=True)
class Settings:
  """Of a start of a study.

  Attributes:
    workdir: S.
    jobs: that are at work at a time.
    executor: (jobs, directory for logs) -> where they run.
  """

  workdir: pathlib.Path
  jobs: int
  executor: Callable[[int, pathlib.Path], executors.Executor]


def run(
  config: Mapping[str, Any],
  configurations: Mapping[str, Mapping[str, Any]],
  settings: Settings,
) -> list[str]:
  """Trains what was not trained yet, then compares all of it.

  Args:
    config: of the study: `seeds`, and `evaluation` with what `compare` reads.
    configurations: {name: config of a training}.
    settings: how.

  Returns:
    A sentence for each job that failed.

  Raises:
    errors.UsageError: a setting cannot be used.
    errors.Interrupted: a signal came in; the same command goes on.
  """
  workdir = settings.workdir
  if settings.jobs < 1:
    raise errors.UsageError(f'--jobs is {settings.jobs}; it must be 1 or more')
  sweep_config.check(config)
  trainings = sweep_config.make_trainings(
    configurations, config['seeds'], workdir / 'runs'
  )
  report = workdir / 'report'
  comparing: dict[str, Any] = {
    **config['evaluation'],
    'jobs': 1,
    'out': str(report),
  }
  sweep_config.check_comparable(trainings, comparing['allow_mismatch'])
  _check(trainings, comparing)
  run_directory.prepare_resumable(
    workdir, '--workdir', 'a sweep', 'seeds', ('logs',)
  )
  logs = workdir / 'logs'
  with run_directory.lock(workdir):
    logs.mkdir(exist_ok=True)
    executor = settings.executor(settings.jobs, logs)
    run_directory.record_start(workdir, json.loads(json.dumps(config)), [])
    with _Desk(executor, settings.jobs, trainings) as desk:
      failed = desk.train()
      if sum(one.is_finished() for one in trainings) > 1:
        failed += desk.compare(comparing, failed)
      else:
        failed.append(
          'nothing is compared: fewer than two trainings are finished'
        )
  if desk.has_compared():
    # Late, as wherever jax comes with it: a job that is a process of its own
    # imports this module before it has set what jax reads.
    from acme_cbo.evaluation.comparison import run  # noqa: PLC0415

    summary = json.loads((report / 'summary.json').read_text())
    print(f'\n{run.text(summary)}\n\nread {report / "index.html"}')
  return failed


def _check(
  trainings: Sequence[sweep_config.Training], comparing: Mapping[str, Any]
) -> None:
  """Raises at what would be refused only after hours of training."""
  from acme_cbo.evaluation import config  # noqa: PLC0415
  from acme_cbo.experiments import builder  # noqa: PLC0415
  from acme_cbo.scms import registry  # noqa: PLC0415

  for one in trainings:
    builder.from_config(config_lib.GRPOConfig.from_dict(one.config))
  playing = config.config_from_flags(types.SimpleNamespace(**comparing))
  config.check_config(playing)
  registry.resolve(playing.scms, trainings[0].config)


def _train(config: dict[str, Any], workdir: str) -> None:
  """A job: begins a training, or goes on with it."""
  jax_environment.set_defaults()
  from acme_cbo.experiments import builder  # noqa: PLC0415
  from acme_cbo.experiments import train  # noqa: PLC0415

  directory = pathlib.Path(workdir)
  train.train_and_evaluate(
    builder.from_config(config_lib.GRPOConfig.from_dict(config)),
    directory,
    resume=(directory / 'config.json').exists(),
  )


def _compare(
  comparing: Mapping[str, Any], paths: Sequence[str], left_out: Sequence[str]
) -> None:
  """A job: compares runs."""
  jax_environment.set_defaults(small_programs=True)
  from acme_cbo.evaluation.comparison import run  # noqa: PLC0415
  from acme_cbo.scms import registry  # noqa: PLC0415

  settings = run.from_flags(types.SimpleNamespace(**comparing), paths)
  settings = dataclasses.replace(settings, left_out=tuple(left_out))
  run.run(settings, registry.resolve)


class _Task(NamedTuple):
  """A job that is to be done.

  Attributes:
    name: of it.
    function: of this module.
    args: plain values.
    outcome: (its log) -> how it ended.
  """

  name: str
  function: Callable[..., Any]
  args: tuple[Any, ...]
  outcome: Callable[[pathlib.Path], sweep_progress.Row]


class _Desk:
  """Hands jobs to an executor, and shows how all of them stand."""

  def __init__(
    self,
    executor: executors.Executor,
    jobs: int,
    trainings: Sequence[sweep_config.Training],
  ):
    self._executor = executor
    self._jobs = jobs
    self._trainings = trainings
    self._rows = {
      one.name: _row_of_training(one, None, pathlib.Path())
      if one.is_finished()
      else sweep_progress.Row(one.name, sweep_progress.WAITING, '')
      for one in trainings
    }
    self._rows[_COMPARISON] = sweep_progress.Row(
      _COMPARISON, sweep_progress.WAITING, ''
    )

  def __enter__(self) -> '_Desk':
    self._board = sweep_progress.ProgressTable(
      sys.stderr, [*self._rows.values()]
    )
    return self

  def __exit__(self, *unused: object) -> None:
    self._board.close()
    self._executor.stop()

  def train(self) -> list[str]:
    """Trains what is not finished; a sentence for each that failed."""
    return self._work_off(
      [
        _Task(
          one.name,
          _train,
          (one.config, str(one.directory)),
          functools.partial(_row_of_training, one, _stamp(one.directory)),
        )
        for one in self._trainings
        if not one.is_finished()
      ]
    )

  def compare(
    self, comparing: Mapping[str, Any], failed: Sequence[str]
  ) -> list[str]:
    """Compares what is finished; a sentence if that failed."""
    report = pathlib.Path(comparing['out'])
    finished = [one for one in self._trainings if one.is_finished()]
    return self._work_off(
      [
        _Task(
          _COMPARISON,
          _compare,
          (
            dict(comparing),
            [str(one.directory) for one in finished],
            [f'{sentence}.' for sentence in failed],
          ),
          functools.partial(_row_of_report, report, _stamp(report)),
        )
      ]
    )

  def has_compared(self) -> bool:
    """Whether there is a comparison of now."""
    return self._rows[_COMPARISON].state == sweep_progress.FINISHED

  def _work_off(self, tasks: Sequence[_Task]) -> list[str]:
    """Does some tasks; a sentence for each that failed."""
    rows, at_work = self._rows, self._executor.at_work()
    # On a cluster they may be at work since an earlier start.
    begun = {task.name: task for task in tasks if task.name in at_work}
    waiting = [task for task in tasks if task.name not in begun]
    logs: dict[str, pathlib.Path] = {}
    with _signals() as received:
      while begun or waiting:
        if received:
          self._executor.stop()
          raise errors.Interrupted(received[0], self._progress())
        at_work = self._executor.at_work()
        logs |= at_work
        for name in begun.keys() - at_work.keys():
          rows[name] = begun.pop(name).outcome(logs[name])
        while waiting and len(begun) < self._jobs:
          task = waiting.pop(0)
          logs[task.name] = self._executor.start(
            task.name, task.function, *task.args
          )
          begun[task.name] = task
        for name in begun:
          says = sweep_progress.last_line(logs[name])
          rows[name] = sweep_progress.Row(name, sweep_progress.RUNNING, says)
        self._board.show([*rows.values()])
        time.sleep(_POLL_SECONDS if begun else 0)
    return [
      f'{task.name} failed: {rows[task.name].says}'
      for task in tasks
      if rows[task.name].state == sweep_progress.FAILED
    ]

  def _progress(self) -> str:
    finished = [
      row for row in self._rows.values() if row.state == sweep_progress.FINISHED
    ]
    return (
      f'with {len(finished)} of {len(self._rows)} jobs finished; the same '
      'command goes on'
    )


def _stamp(directory: pathlib.Path) -> int | None:
  """When the summary in a directory was written; None where there is none."""
  path = directory / 'summary.json'
  return path.stat().st_mtime_ns if path.exists() else None


def _row_of_training(
  one: sweep_config.Training, stamp: int | None, log: pathlib.Path
) -> sweep_progress.Row:
  """How a training ended, whose summary was that of `stamp` when it began."""
  summary = one.summary() if one.is_begun() else {}
  if summary.get('status') == 'finished':
    score = summary['evaluation']['grpo']['score_last']['mean']
    return sweep_progress.Row(
      one.name,
      sweep_progress.FINISHED,
      f'held-out score {score:.2f} after {summary["updates"]} updates',
    )
  # Where it left none, the last that it said is all there is.
  told = _stamp(one.directory) not in (None, stamp)
  reason = summary['reason'] if told else sweep_progress.last_line(log)
  return _failed(one.name, reason, log)


def _row_of_report(
  report: pathlib.Path, stamp: int | None, log: pathlib.Path
) -> sweep_progress.Row:
  """How the comparison ended; that of an earlier start may still be there."""
  if _stamp(report) not in (None, stamp):
    says = str(report / 'index.html')
    return sweep_progress.Row(_COMPARISON, sweep_progress.FINISHED, says)
  return _failed(_COMPARISON, sweep_progress.last_line(log), log)


def _failed(name: str, reason: str, log: pathlib.Path) -> sweep_progress.Row:
  if not reason or reason.startswith('---'):
    reason = 'it was killed'
  return sweep_progress.Row(name, sweep_progress.FAILED, f'{reason} ({log})')


@contextlib.contextmanager
def _signals() -> Iterator[list[int]]:
  """While it is entered, a first signal is noted; a second one ends all."""
  received: list[int] = []

  def note(signal, frame):
    del frame
    received.append(signal)
    for each in before:
      signals.signal(each, signals.SIG_DFL)

  before = {
    signal: signals.signal(signal, note)
    for signal in (signals.SIGINT, signals.SIGTERM)
  }
  try:
    yield received
  finally:
    for signal, handler in before.items():
      signals.signal(signal, handler)
