"""Where the jobs of a study run: processes of this machine, or a cluster.

A job is a function of a module with plain values; what it came to is on the
disk. An executor only knows which of them are at work.
"""

from collections.abc import Callable, Mapping, Sequence
import datetime
import functools
import json
import multiprocessing
from multiprocessing import context as contexts
import os
import pathlib
import signal
import sys
import traceback
from typing import Any, Protocol, TYPE_CHECKING
import urllib.parse

from acme_cbo.infra import child_process
from acme_cbo.infra import cpu
from acme_cbo.infra import errors
from acme_cbo.infra import extras
from acme_cbo.infra import run_directory

if TYPE_CHECKING:
  import submitit

# A training that is told to end takes 8 seconds at most.
_EXIT_SECONDS = 15.0


class Executor(Protocol):
  """Where jobs run."""

  def start(
    self, name: str, function: Callable[..., Any], *args: Any
  ) -> pathlib.Path:
    """Starts a job of a name that no job at work has; its log."""

  def at_work(self) -> dict[str, pathlib.Path]:
    """{name of a job that has not ended: its log}."""

  def stop(self) -> None:
    """Ends what ends with this process, each in good order."""


class Local:
  """Processes of this machine, each on cores of its own.

  They are spawned: a fork of a process that runs jax may hang. They end with
  this one, however it ends. That only Ctrl-C of this one ends them, not that of
  the terminal itself, leaves them the time to save what they have.
  """

  def __init__(self, jobs: int, logs: pathlib.Path):
    """Parts the cores of this machine.

    Args:
      jobs: that are at work at a time, at most.
      logs: directory for what they print.

    Raises:
      errors.UsageError: there are fewer cores.
    """
    number = len(os.sched_getaffinity(0))
    if jobs > number:
      raise errors.UsageError(
        f'--jobs is {jobs}, but there are {number} cores here; each job needs '
        'one'
      )
    self._logs = logs
    self._free = cpu.split_cores(jobs)[::-1]
    self._context = multiprocessing.get_context('spawn')
    self._processes: dict[str, tuple[contexts.SpawnProcess, set[int]]] = {}

  def start(
    self, name: str, function: Callable[..., Any], *args: Any
  ) -> pathlib.Path:
    """Starts a job of a name that no job at work has; its log."""
    own = self._free.pop()
    log = _log(self._logs, name)
    process = self._context.Process(target=_work, args=(log, function, args))
    # A process inherits those of the thread that starts it, and whatever
    # library counts them counts what it may use.
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, own)
    try:
      process.start()
    finally:
      os.sched_setaffinity(0, before)
    self._processes[name] = process, own
    return log

  def at_work(self) -> dict[str, pathlib.Path]:
    """{name of a job that has not ended: its log}."""
    for name, (process, own) in [*self._processes.items()]:
      if process.exitcode is not None:
        process.join()
        del self._processes[name]
        self._free.append(own)
    return {name: _log(self._logs, name) for name in self._processes}

  def stop(self) -> None:
    """Ends all of them, each in good order."""
    for process, _ in self._processes.values():
      process.terminate()
    for process, _ in self._processes.values():
      process.join(_EXIT_SECONDS)
      if process.exitcode is None:
        process.kill()
        process.join()


def _log(logs: pathlib.Path, name: str) -> pathlib.Path:
  return logs / f'{urllib.parse.quote(name, safe=" ,()")}.log'


def _work(log: pathlib.Path, function: Callable[..., Any], args: Any) -> None:
  """What a process does: one job, all that it prints into a file."""
  os.setsid()
  with log.open('ab', buffering=0) as file:
    for stream in (sys.stdout, sys.stderr):
      os.dup2(file.fileno(), stream.fileno())
  # What stands above was said at an earlier start.
  print(f'--- {datetime.datetime.now():%Y-%m-%d %H:%M:%S}', flush=True)
  signal.signal(signal.SIGINT, signal.SIG_DFL)
  with child_process.ExitWithParent():
    try:
      function(*args)
    except errors.Interrupted as error:
      print(f'interrupted: {error}', flush=True)
      code = 128 + error.signal
    except errors.UsageError as error:
      print(f'error: {error}', flush=True)
      code = 2
    except Exception:  # noqa: BLE001 Whoever reads the log can see it.
      traceback.print_exc()
      code = 1
    else:
      code = 0
  sys.exit(code)


def from_flags(
  kind: str, parameters: Sequence[str]
) -> Callable[[int, pathlib.Path], Executor]:
  """(jobs, logs) -> where jobs run, as --executor and --slurm say."""
  if kind == 'slurm':
    return functools.partial(slurm, parameters)
  if parameters:
    raise errors.UsageError(
      '--slurm says how jobs run on a cluster; give --executor=slurm as well'
    )
  return Local


def slurm(
  parameters: Sequence[str], jobs: int, logs: pathlib.Path
) -> 'Cluster':
  """A `Cluster` of Slurm.

  Args:
    parameters: as 'timeout_min=600'; whole numbers are taken as such.
    jobs: that are at work at a time, which is not the cluster's business.
    logs: its folder.

  Returns:
    The `Cluster`.

  Raises:
    errors.UsageError: a parameter has no value, or see `Cluster`.
  """
  del jobs
  named: dict[str, Any] = {}
  for parameter in parameters:
    name, equals, value = parameter.partition('=')
    if not equals:
      raise errors.UsageError(
        f'--slurm: {parameter!r} has no value; write timeout_min=600'
      )
    named[name] = int(value) if value.isdecimal() else value
  return Cluster(logs, named)


class Cluster:
  """Jobs of Slurm, by submitit; they go on when this process has ended.

  F/jobs.json  which job of the cluster each is, for who comes back to them
  F/*_log.out  what they print
  """

  def __init__(
    self,
    folder: pathlib.Path,
    parameters: Mapping[str, Any],
    cluster: str = 'slurm',
  ):
    """Finds the jobs that were started before and have not ended.

    Args:
      folder: for submissions and logs, on a disk that all machines see.
      parameters: of `submitit.AutoExecutor`, as 'timeout_min'.
      cluster: of submitit; 'local' is for tests.

    Raises:
      errors.UsageError: there is no such cluster here, or a parameter is not
        one.
    """
    self._submitit = extras.import_module('submitit', '--executor=slurm')
    # What is submitted finds the package where it is here.
    os.environ['PYTHONPATH'] = child_process.python_path()
    try:
      self._executor = self._submitit.AutoExecutor(folder, cluster=cluster)
      self._executor.update_parameters(
        **{'stderr_to_stdout': True, **parameters}
      )
    # The last of these is how submitit says that a type is wrong.
    except (RuntimeError, NameError, ValueError, AssertionError) as error:
      raise errors.UsageError(f'--executor=slurm: {error}') from error
    self._list = folder / 'jobs.json'
    known = _known(self._list)
    found = (
      self._submitit.SlurmJob if cluster == 'slurm' else self._submitit.LocalJob
    )
    self._jobs: dict[str, submitit.Job[Any]] = {
      name: found(folder=folder, job_id=number)
      for name, number in known.items()
    }

  def start(
    self, name: str, function: Callable[..., Any], *args: Any
  ) -> pathlib.Path:
    """Starts a job of a name that no job at work has; its log."""
    try:
      self._jobs[name] = self._executor.submit(function, *args)
    except self._submitit.core.utils.FailedJobError as error:
      raise errors.UsageError(
        f'--executor=slurm: {name} cannot be submitted: {error}'
      ) from error
    run_directory.write_json(
      self._list, {name: job.job_id for name, job in self._jobs.items()}
    )
    return self._jobs[name].paths.stdout

  def at_work(self) -> dict[str, pathlib.Path]:
    """{name of a job that has not ended: its log}."""
    return {
      name: job.paths.stdout
      for name, job in self._jobs.items()
      if not job.done()
    }

  def stop(self) -> None:
    """Leaves them to the cluster."""


def _known(path: pathlib.Path) -> dict[str, str]:
  """{name: number of a job} of an earlier start."""
  if not path.exists():
    return {}
  try:
    return {str(x): str(y) for x, y in json.loads(path.read_text()).items()}
  except (ValueError, AttributeError) as error:
    raise errors.UsageError(
      f'{path} is damaged: {error}; where no job of it is at work any more, '
      'remove it'
    ) from error
