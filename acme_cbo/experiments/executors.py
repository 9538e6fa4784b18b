"""Executors of the jobs of a sweep: local processes or a cluster.

A job is a call of an importable function with plain values. Jobs write their
results to disk; an executor only knows which jobs are running.
"""

from collections.abc import Callable, Mapping, Sequence
import datetime
import functools
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
from acme_cbo.infra import files
from acme_cbo.infra import run_directory

if TYPE_CHECKING:
  import submitit

# A training ends within 8 seconds of a signal.
_EXIT_SECONDS = 15.0
_MAX_JOBS_BYTES = 10**7


class Executor(Protocol):
  """Interface of executors."""

  def start(
    self, name: str, function: Callable[..., Any], *args: Any
  ) -> pathlib.Path:
    """Starts a job.

    Args:
      name: name of the job; no running job may have it.
      function: importable function to call.
      *args: plain values to call it with.

    Returns:
      Path of the log.
    """

  def running(self) -> dict[str, pathlib.Path]:
    """Returns {name: log} of the jobs that have not ended."""

  def stop(self) -> None:
    """Ends gracefully all jobs that must not outlive this process."""


class Local:
  """Executor of local processes, each pinned to its own cores.

  Processes are spawned, because a fork of a process that uses jax may hang.
  They exit with this process, even if it is killed. Each is in a session of its
  own, so that Ctrl-C in the terminal reaches only this process, which then
  gives them time to save their state.
  """

  def __init__(self, jobs: int, logs: pathlib.Path):
    """Creates the executor and divides the cores among jobs.

    Args:
      jobs: maximum number of jobs that run at a time.
      logs: directory for the logs.

    Raises:
      errors.UsageError: there are fewer cores than jobs.
    """
    num_cores = len(os.sched_getaffinity(0))
    if jobs > num_cores:
      raise errors.UsageError(
        f'--jobs is {jobs}, but this machine has {num_cores} cores; each job '
        'needs one'
      )
    self._logs = logs
    self._free = cpu.split_cores(jobs)[::-1]
    self._context = multiprocessing.get_context('spawn')
    self._processes: dict[str, tuple[contexts.SpawnProcess, set[int]]] = {}

  def start(
    self, name: str, function: Callable[..., Any], *args: Any
  ) -> pathlib.Path:
    """Starts a job and returns its log; see `Executor.start`."""
    cores = self._free.pop()
    log = _log(self._logs, name)
    process = self._context.Process(target=_run_job, args=(log, function, args))
    # The process inherits the cores of this thread, so that its libraries count
    # only these cores when they are imported.
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
      process.start()
    finally:
      os.sched_setaffinity(0, before)
    self._processes[name] = process, cores
    return log

  def running(self) -> dict[str, pathlib.Path]:
    """Returns {name: log} of the jobs that have not ended."""
    for name, (process, cores) in [*self._processes.items()]:
      if process.exitcode is not None:
        process.join()
        del self._processes[name]
        self._free.append(cores)
    return {name: _log(self._logs, name) for name in self._processes}

  def stop(self) -> None:
    """Ends all jobs gracefully, and kills those that do not end in time."""
    for process, _ in self._processes.values():
      process.terminate()
    for process, _ in self._processes.values():
      process.join(_EXIT_SECONDS)
      if process.exitcode is None:
        process.kill()
        process.join()


def _log(logs: pathlib.Path, name: str) -> pathlib.Path:
  return logs / f'{urllib.parse.quote(name, safe=" ,()")}.log'


def _run_job(
  log: pathlib.Path, function: Callable[..., Any], args: Any
) -> None:
  """Main function of a process: runs a job with its output in a log."""
  os.setsid()
  with log.open('ab', buffering=0) as file:
    for stream in (sys.stdout, sys.stderr):
      os.dup2(file.fileno(), stream.fileno())
  # Separates the output from that of an earlier start.
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
    except Exception:  # noqa: BLE001 - the log has the traceback.
      traceback.print_exc()
      code = 1
    else:
      code = 0
  sys.exit(code)


def from_flags(
  kind: str, parameters: Sequence[str]
) -> Callable[[int, pathlib.Path], Executor]:
  """Returns the executor that --executor and --slurm specify.

  Args:
    kind: value of --executor, 'local' or 'slurm'.
    parameters: value of --slurm.

  Returns:
    (maximum number of jobs at a time, directory for logs) -> executor.

  Raises:
    errors.UsageError: there are parameters, but the kind is not 'slurm'.
  """
  if kind == 'slurm':
    return functools.partial(slurm, parameters)
  if parameters:
    raise errors.UsageError(
      '--slurm has parameters of a cluster; add --executor=slurm'
    )
  return Local


def slurm(
  parameters: Sequence[str], jobs: int, logs: pathlib.Path
) -> 'Cluster':
  """Returns a `Cluster` of Slurm.

  Args:
    parameters: texts such as 'timeout_min=600'; digits become integers.
    jobs: maximum number of jobs at a time, which does not concern the cluster.
    logs: directory for submissions and logs.

  Raises:
    errors.UsageError: a parameter has no value, or see `Cluster`.
  """
  del jobs
  parsed: dict[str, Any] = {}
  for parameter in parameters:
    name, equals, value = parameter.partition('=')
    if not equals:
      raise errors.UsageError(
        f'--slurm: {parameter!r} has no value; write for example '
        'timeout_min=600'
      )
    parsed[name] = int(value) if value.isdecimal() else value
  return Cluster(logs, parsed)


class Cluster:
  """Executor of Slurm jobs by submitit; jobs outlive this process.

  F/jobs.json  {name: Slurm job number}, for a later start
  F/*_log.out  output of the jobs
  """

  def __init__(
    self,
    folder: pathlib.Path,
    parameters: Mapping[str, Any],
    cluster: str = 'slurm',
  ):
    """Creates the executor and reads the jobs of an earlier start.

    Args:
      folder: directory for submissions and logs, on a disk shared by all
        machines.
      parameters: parameters of `submitit.AutoExecutor`, such as 'timeout_min'.
      cluster: cluster type of submitit; 'local' is for tests.

    Raises:
      errors.UsageError: submitit is not installed, the cluster is not
        available here, or a parameter is invalid.
    """
    self._submitit = extras.import_module('submitit', '--executor=slurm')
    # Jobs import the package from the same path as this process.
    os.environ['PYTHONPATH'] = child_process.python_path()
    try:
      self._executor = self._submitit.AutoExecutor(folder, cluster=cluster)
      self._executor.update_parameters(
        **{'stderr_to_stdout': True, **parameters}
      )
    # submitit raises an AssertionError for a parameter of the wrong type.
    except (RuntimeError, NameError, ValueError, AssertionError) as error:
      raise errors.UsageError(f'--executor=slurm: {error}') from error
    self._list = folder / 'jobs.json'
    numbers = _read_job_numbers(self._list)
    job_class = (
      self._submitit.SlurmJob if cluster == 'slurm' else self._submitit.LocalJob
    )
    self._jobs: dict[str, submitit.Job[Any]] = {
      name: job_class(folder=folder, job_id=number)
      for name, number in numbers.items()
    }

  def start(
    self, name: str, function: Callable[..., Any], *args: Any
  ) -> pathlib.Path:
    """Starts a job and returns its log; see `Executor.start`."""
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

  def running(self) -> dict[str, pathlib.Path]:
    """Returns {name: log} of the jobs that have not ended."""
    return {
      name: job.paths.stdout
      for name, job in self._jobs.items()
      if not job.done()
    }

  def stop(self) -> None:
    """Does nothing: jobs go on running on the cluster."""


def _read_job_numbers(path: pathlib.Path) -> dict[str, str]:
  """Returns {name: Slurm job number} of an earlier start."""
  if not path.exists():
    return {}
  advice = 'remove it once none of its jobs is running'
  numbers = files.read_json(path, _MAX_JOBS_BYTES, advice)
  if not isinstance(numbers, dict) or not all(
    isinstance(number, str) and number.isdecimal()
    for number in numbers.values()
  ):
    raise errors.UsageError(
      f'{path} is damaged: it is not an object of job numbers; {advice}'
    )
  return numbers
