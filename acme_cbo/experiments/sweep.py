"""Sweep: trainings of several configurations and seeds, and their comparison.

S/config.json  config of the sweep
S/runs/        one run directory per training, as launchers/train.py writes it
S/logs/        output of each job
S/report/      the comparison, as launchers/compare.py writes it: index.html

Rerunning the same command resumes; finished trainings are not repeated.
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
from acme_cbo.infra import files
from acme_cbo.infra import jax_environment
from acme_cbo.infra import run_directory

_COMPARISON = 'comparison'
_POLL_SECONDS = 0.2
_MAX_SUMMARY_BYTES = 10**9


def run(
  config: Mapping[str, Any],
  configurations: Mapping[str, Mapping[str, Any]],
  workdir: pathlib.Path,
  jobs: int,
  make_executor: Callable[[int, pathlib.Path], executors.Executor],
) -> list[str]:
  """Runs the trainings that are not finished, then compares all of them.

  Args:
    config: config of the sweep: `seeds`, and `evaluation` with the settings of
      the comparison.
    configurations: {name: config of a training}.
    workdir: directory of the sweep.
    jobs: number of jobs to run at a time.
    make_executor: (jobs, directory for logs) -> executor of the jobs.

  Returns:
    One sentence for each job that failed.

  Raises:
    errors.UsageError: a setting is invalid.
    errors.Interrupted: a signal was received; rerunning the command resumes.
  """
  if jobs < 1:
    raise errors.UsageError(f'--jobs is {jobs}; it must be at least 1')
  sweep_config.check(config)
  trainings = sweep_config.make_trainings(
    configurations, config['seeds'], workdir / 'runs'
  )
  report = workdir / 'report'
  comparison: dict[str, Any] = {
    **config['evaluation'],
    'jobs': 1,
    'out': str(report),
  }
  sweep_config.check_comparable(trainings, comparison['allow_mismatch'])
  _check(trainings, comparison)
  run_directory.prepare_resumable(
    workdir, '--workdir', 'a sweep', 'seeds', ('logs',)
  )
  logs = workdir / 'logs'
  with run_directory.lock(workdir):
    logs.mkdir(exist_ok=True)
    executor = make_executor(jobs, logs)
    run_directory.record_start(workdir, json.loads(json.dumps(config)), [])
    with _Scheduler(executor, jobs, trainings) as scheduler:
      failures = scheduler.train()
      if sum(training.is_finished() for training in trainings) > 1:
        failures += scheduler.compare(comparison, failures)
      else:
        failures.append(
          'there is no comparison: fewer than two trainings are finished'
        )
  if scheduler.has_compared():
    # Imported late because it imports jax: a job in a process of its own
    # imports this module before it sets the environment that jax reads.
    from acme_cbo.evaluation.comparison import run  # noqa: PLC0415

    summary = files.read_json(report / 'summary.json', _MAX_SUMMARY_BYTES)
    print(f'\n{run.text(summary)}\n\nreport: {report / "index.html"}')
  return failures


def _check(
  trainings: Sequence[sweep_config.Training], comparison: Mapping[str, Any]
) -> None:
  """Raises early for errors that would show only after hours of training."""
  import jax  # noqa: PLC0415

  from acme_cbo.evaluation import config  # noqa: PLC0415
  from acme_cbo.experiments import builder  # noqa: PLC0415
  from acme_cbo.scms import registry  # noqa: PLC0415

  for training in trainings:
    builder.from_config(config_lib.GRPOConfig.from_dict(training.config))
  comparison_config = config.from_flags(
    config.ComparisonConfig, types.SimpleNamespace(**comparison), paths=()
  )
  comparison_config.validate()
  with jax.enable_x64(True):  # As in the evaluation.
    registry.resolve(comparison_config.scms, trainings[0].config)


def _train(config: dict[str, Any], workdir: str) -> None:
  """Job that starts or resumes a training."""
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
  comparison: Mapping[str, Any], paths: Sequence[str], left_out: Sequence[str]
) -> None:
  """Job that compares finished runs."""
  jax_environment.set_defaults(small_programs=True)
  from acme_cbo.evaluation.comparison import run  # noqa: PLC0415
  from acme_cbo.scms import registry  # noqa: PLC0415

  settings = run.from_flags(types.SimpleNamespace(**comparison), paths)
  settings = dataclasses.replace(settings, left_out=tuple(left_out))
  run.run(settings, registry.resolve)


class _Job(NamedTuple):
  """Job of a sweep.

  Attributes:
    name: name of the job.
    function: function of this module.
    args: arguments of the function, plain values.
    get_row: log of the ended job -> its row in the progress table.
  """

  name: str
  function: Callable[..., Any]
  args: tuple[Any, ...]
  get_row: Callable[[pathlib.Path], sweep_progress.Row]


class _Scheduler:
  """Starts jobs on an executor and shows their progress."""

  def __init__(
    self,
    executor: executors.Executor,
    jobs: int,
    trainings: Sequence[sweep_config.Training],
  ):
    self._executor = executor
    self._num_jobs = jobs
    self._trainings = trainings
    self._rows = {
      training.name: _training_row(training, None, pathlib.Path())
      if training.is_finished()
      else sweep_progress.Row(training.name, sweep_progress.WAITING, '')
      for training in trainings
    }
    self._rows[_COMPARISON] = sweep_progress.Row(
      _COMPARISON, sweep_progress.WAITING, ''
    )

  def __enter__(self) -> '_Scheduler':
    self._table = sweep_progress.ProgressTable(
      sys.stderr, [*self._rows.values()]
    )
    return self

  def __exit__(self, *unused: object) -> None:
    self._table.close()
    self._executor.stop()

  def train(self) -> list[str]:
    """Runs the unfinished trainings; returns a sentence for each failure."""
    return self._run_jobs(
      [
        _Job(
          training.name,
          _train,
          (training.config, str(training.directory)),
          functools.partial(
            _training_row, training, _summary_time(training.directory)
          ),
        )
        for training in self._trainings
        if not training.is_finished()
      ]
    )

  def compare(
    self, comparison: Mapping[str, Any], failures: Sequence[str]
  ) -> list[str]:
    """Compares the finished trainings; returns a sentence if that failed."""
    report = pathlib.Path(comparison['out'])
    finished = [x for x in self._trainings if x.is_finished()]
    return self._run_jobs(
      [
        _Job(
          _COMPARISON,
          _compare,
          (
            dict(comparison),
            [str(training.directory) for training in finished],
            [f'{sentence}.' for sentence in failures],
          ),
          functools.partial(_report_row, report, _summary_time(report)),
        )
      ]
    )

  def has_compared(self) -> bool:
    """Returns whether this start has finished a comparison."""
    return self._rows[_COMPARISON].state == sweep_progress.FINISHED

  def _run_jobs(self, jobs: Sequence[_Job]) -> list[str]:
    """Runs jobs; returns a sentence for each failure."""
    rows, running = self._rows, self._executor.running()
    # On a cluster, jobs of an earlier start may still be running.
    started = {job.name: job for job in jobs if job.name in running}
    waiting = [job for job in jobs if job.name not in started]
    logs: dict[str, pathlib.Path] = {}
    with _recorded_signals() as received:
      while started or waiting:
        if received:
          self._executor.stop()
          raise errors.Interrupted(received[0], self._progress())
        running = self._executor.running()
        logs |= running
        for name in started.keys() - running.keys():
          rows[name] = started.pop(name).get_row(logs[name])
        while waiting and len(started) < self._num_jobs:
          job = waiting.pop(0)
          logs[job.name] = self._executor.start(
            job.name, job.function, *job.args
          )
          started[job.name] = job
        for name in started:
          message = sweep_progress.last_line(logs[name])
          rows[name] = sweep_progress.Row(name, sweep_progress.RUNNING, message)
        self._table.show([*rows.values()])
        time.sleep(_POLL_SECONDS if started else 0)
    return [
      f'{job.name} failed: {rows[job.name].message}'
      for job in jobs
      if rows[job.name].state == sweep_progress.FAILED
    ]

  def _progress(self) -> str:
    finished = [
      row for row in self._rows.values() if row.state == sweep_progress.FINISHED
    ]
    return (
      f'with {len(finished)} of {len(self._rows)} jobs finished; rerun the '
      'same command to resume'
    )


def _summary_time(directory: pathlib.Path) -> int | None:
  """Returns when `summary.json` was written, or None if it is missing."""
  path = directory / 'summary.json'
  return path.stat().st_mtime_ns if path.exists() else None


def _training_row(
  training: sweep_config.Training,
  previous_time: int | None,
  log: pathlib.Path,
) -> sweep_progress.Row:
  """Returns the row of a training that has ended.

  Args:
    training: the training.
    previous_time: `_summary_time` before the job was started.
    log: log of the job.
  """
  summary = training.summary() if training.is_started() else {}
  if summary.get('status') == 'finished':
    score = summary['evaluation']['grpo']['score_last']['mean']
    return sweep_progress.Row(
      training.name,
      sweep_progress.FINISHED,
      f'held-out score {score:.2f} after {summary["updates"]} updates',
    )
  # Without a new summary, the last line of the log is the only information.
  has_summary = _summary_time(training.directory) not in (None, previous_time)
  reason = summary['reason'] if has_summary else sweep_progress.last_line(log)
  return _failed_row(training.name, reason, log)


def _report_row(
  report: pathlib.Path, previous_time: int | None, log: pathlib.Path
) -> sweep_progress.Row:
  """Returns the row of a comparison that has ended.

  Args:
    report: directory of the report, which may hold that of an earlier start.
    previous_time: `_summary_time` before the job was started.
    log: log of the job.
  """
  if _summary_time(report) not in (None, previous_time):
    path = str(report / 'index.html')
    return sweep_progress.Row(_COMPARISON, sweep_progress.FINISHED, path)
  return _failed_row(_COMPARISON, sweep_progress.last_line(log), log)


def _failed_row(
  name: str, reason: str, log: pathlib.Path
) -> sweep_progress.Row:
  if not reason or reason.startswith('---'):
    reason = 'the process was killed'
  return sweep_progress.Row(name, sweep_progress.FAILED, f'{reason} ({log})')


@contextlib.contextmanager
def _recorded_signals() -> Iterator[list[int]]:
  """Context manager that records the first signal; a second ends the process.

  Yields:
    List that receives the number of the signal.
  """
  received: list[int] = []

  def record(signal, frame):
    del frame
    received.append(signal)
    for each in handlers:
      signals.signal(each, signals.SIG_DFL)

  handlers = {
    signal: signals.signal(signal, record)
    for signal in (signals.SIGINT, signals.SIGTERM)
  }
  try:
    yield received
  finally:
    for signal, handler in handlers.items():
      signals.signal(signal, handler)
