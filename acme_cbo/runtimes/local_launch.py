"""Launcher of several local processes that train together."""

from collections.abc import Sequence
import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from typing import IO

from acme_cbo.infra import cpu
from acme_cbo.infra import errors
from acme_cbo.runtimes import addresses
from acme_cbo.runtimes import handshake

# Linux: option of prctl that sets the signal sent when the parent exits.
_PR_SET_PDEATHSIG = 1
# Seconds that the other processes have to end once one has ended; they detect
# that in about a second.
_GRACE_SECONDS = 40.0
_POLL_SECONDS = 0.1
_COLORS = (36, 33, 35, 32, 34, 31)


def run(
  command: Sequence[str], flags: Sequence[str], num_processes: int
) -> int:
  """Runs a program in several processes until all have ended.

  They listen on this machine alone, and get a common secret. Prints their
  output, with the name of the process before each line. Signals are forwarded
  to process 0, which shuts down the others.

  Args:
    command: program and first arguments of each process.
    flags: command line flags of all processes.
    num_processes: number of processes.

  Returns:
    Exit code of process 0, or of another process that failed.

  Raises:
    errors.UsageError: `num_processes` is below 1.
  """
  if num_processes < 1:
    raise errors.UsageError(
      f'--processes is {num_processes}; it must be at least 1'
    )
  port = addresses.free_port()
  environment = {**os.environ, handshake.VARIABLE: handshake.new_secret()}
  cores = cpu.split_cores(num_processes)
  processes = [
    subprocess.Popen(
      [
        *command,
        *flags,
        f'--coordinator=127.0.0.1:{port}',
        f'--num_processes={num_processes}',
        f'--process_id={process_id}',
      ],
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      env=environment,
      # Otherwise Ctrl-C in a terminal would reach all of them.
      process_group=0,
      # Safe after a fork: this process has not started any threads yet.
      preexec_fn=lambda process_id=process_id: _set_up(cores[process_id]),
    )
    for process_id in range(num_processes)
  ]
  for name in (signal.SIGINT, signal.SIGTERM):
    signal.signal(name, lambda number, _: _send(processes[0], number))
  print_lock = threading.Lock()
  readers = [
    threading.Thread(
      target=_print,
      args=(process.stdout, process_id, num_processes, print_lock),
    )
    for process_id, process in enumerate(processes)
  ]
  for reader in readers:
    reader.start()
  _wait(processes)
  for reader in readers:
    reader.join()
  codes = [process.returncode for process in processes]
  failed = [code for code in codes if code]
  # A process that a signal ended has minus the number of the signal.
  code = codes[0] or (failed[0] if failed else 0)
  return 128 - code if code < 0 else code


def _set_up(cores: set[int]) -> None:
  """Pins a forked process to cores and makes it end with its parent."""
  os.sched_setaffinity(0, cores)
  # A shell's background job ignores SIGINT, and so would its children.
  signal.signal(signal.SIGINT, signal.SIG_DFL)
  ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _send(process: subprocess.Popen[bytes], signal_number: int) -> None:
  with contextlib.suppress(ProcessLookupError):
    process.send_signal(signal_number)


def _print(
  stream: IO[bytes],
  process_id: int,
  num_processes: int,
  print_lock: threading.Lock,
) -> None:
  """Prints lines as they arrive, each after the name of their process."""
  name = f'process {process_id:<{len(str(num_processes - 1))}} | '
  if sys.stdout.isatty():
    name = f'\x1b[{_COLORS[process_id % len(_COLORS)]}m{name}\x1b[0m'
  for line in stream:
    with print_lock:
      sys.stdout.buffer.write(name.encode() + line.rstrip(b'\r\n') + b'\n')
      sys.stdout.buffer.flush()


def _wait(processes: Sequence[subprocess.Popen[bytes]]) -> None:
  """Waits for all processes; kills those left a while after one has ended."""
  deadline = None
  while None in (codes := [process.poll() for process in processes]):
    if deadline is None and any(code is not None for code in codes):
      deadline = time.monotonic() + _GRACE_SECONDS
    if deadline is not None and time.monotonic() > deadline:
      for process in processes:
        _send(process, signal.SIGKILL)
    time.sleep(_POLL_SECONDS)
