"""Processes of this machine that train as one, started and ended together."""

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
from acme_cbo.runtimes import process_group

# Linux: a process is sent this signal as its parent ends.
_PR_SET_PDEATHSIG = 1
# The others know in a second or so that one has ended, and end by themselves.
_GRACE_SECONDS = 40.0
_POLL_SECONDS = 0.1
_COLOURS = (36, 33, 35, 32, 34, 31)


def run(command: Sequence[str], flags: Sequence[str], size: int) -> int:
  """Runs a program as processes that train as one, until all have ended.

  What they print is printed, each line after the name of its process. An
  interruption is one of process 0, which ends the others in good order.

  Args:
    command: program and first arguments of each process.
    flags: of all processes.
    size: how many there are.

  Returns:
    The exit code: that of process 0, or of another that failed.

  Raises:
    errors.UsageError: there are none.
  """
  if size < 1:
    raise errors.UsageError(f'--processes is {size}; it must be at least 1')
  port = process_group.free_port()
  shares = cpu.split_cores(size)
  processes = [
    subprocess.Popen(
      [
        *command,
        *flags,
        f'--coordinator=127.0.0.1:{port}',
        f'--num_processes={size}',
        f'--process_id={number}',
      ],
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      # Ctrl-C of a terminal would reach all of them.
      process_group=0,
      # There are no threads here yet that a fork could do harm to.
      preexec_fn=lambda number=number: _begin(shares[number]),
    )
    for number in range(size)
  ]
  for name in (signal.SIGINT, signal.SIGTERM):
    signal.signal(name, lambda number, _: _send(processes[0], number))
  printing = threading.Lock()
  readers = [
    threading.Thread(
      target=_print, args=(process.stdout, number, size, printing)
    )
    for number, process in enumerate(processes)
  ]
  for reader in readers:
    reader.start()
  _wait(processes)
  for reader in readers:
    reader.join()
  codes = [process.returncode for process in processes]
  failed = [code for code in codes if code]
  # A process that a signal ended has minus its number.
  code = codes[0] or (failed[0] if failed else 0)
  return 128 - code if code < 0 else code


def _begin(own: set[int]) -> None:
  """What a process does before it is one: it ends with its parent."""
  os.sched_setaffinity(0, own)
  ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _send(process: subprocess.Popen[bytes], number: int) -> None:
  with contextlib.suppress(ProcessLookupError):
    process.send_signal(number)


def _print(
  stream: IO[bytes], number: int, size: int, printing: threading.Lock
) -> None:
  """Prints lines as they come, each after the name of their process."""
  name = f'process {number:<{len(str(size - 1))}} | '
  if sys.stdout.isatty():
    name = f'\x1b[{_COLOURS[number % len(_COLOURS)]}m{name}\x1b[0m'
  for line in stream:
    with printing:
      sys.stdout.buffer.write(name.encode() + line.rstrip(b'\r\n') + b'\n')
      sys.stdout.buffer.flush()


def _wait(processes: Sequence[subprocess.Popen[bytes]]) -> None:
  """Until all have ended; once one has, the others may take so long."""
  deadline = None
  while None in (codes := [process.poll() for process in processes]):
    if deadline is None and any(code is not None for code in codes):
      deadline = time.monotonic() + _GRACE_SECONDS
    if deadline is not None and time.monotonic() > deadline:
      for process in processes:
        _send(process, signal.SIGKILL)
    time.sleep(_POLL_SECONDS)
