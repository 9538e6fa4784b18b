"""Simulator that runs as a child process and communicates in lines of JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import contextlib
import json
import math
import os
import secrets
import select
import shlex
import signal
import subprocess
import threading
import time
from typing import Any, IO

import numpy as np

from acme_cbo.environments import environment
from acme_cbo.environments import real_numbers
from acme_cbo.infra import errors

# Timeout for the first line of a process, and for its exit after its standard
# input is closed.
_START_SECONDS = 120.0
_EXIT_SECONDS = 2.0
# Interval at which a process that sends nothing is checked for its end.
_POLL_SECONDS = 0.1
# Maximum length of a line, beside the numbers of the observations.
_LINE_BYTES = 2**22
_NUMBER_BYTES = 100
_CHUNK_BYTES = 2**16
# Number of characters of an invalid line that a message shows.
_SHOWN = 200
_PROC = '/proc'


class Process:
  """Simulator implemented by another program, controlled by lines of JSON.

  Its first line describes the system; every further line answers one request:

    {"variables": ["x", "y"], "target": "y", "goal": "maximize",
     "domains": {"x": [0, 1]}}
    <- {"reset": {"seed": 7, "rollout": 0, "num_observations": 20}}
    -> {"observations": [[0.1, 0.2], ...]}
    <- {"step": {"x": 0.5}}
    -> {"outcome": [0.5, 0.7]}

  It must exit at the end of its standard input. Its standard error is passed
  through.

  Attributes:
    variables: see `environment.Simulator`; as the first line has it.
    target: likewise.
    goal: likewise.
    domains: likewise.
  """

  def __init__(self, command: Sequence[str]):
    """Starts the process and reads its description.

    Args:
      command: program and arguments.

    Raises:
      errors.PeerError: it exits, or sends no line within two minutes.
      errors.UsageError: it cannot be started, or its first line is not a
        description.
    """
    self._command = shlex.join(command)
    # All processes that it starts inherit this variable, also those that leave
    # its group and lose their parent.
    self._mark = f'ACME_CBO_SIMULATOR_{secrets.token_hex(8)}'
    self._killed = threading.Event()
    # Held during a request, so that `close` does not close files in use.
    self._in_use = threading.Lock()
    self._received = bytearray()
    try:
      self._process = subprocess.Popen(
        list(command),
        bufsize=0,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, self._mark: '1'},
        # In a group of its own it does not receive Ctrl-C but ends with its
        # standard input, and `kill` ends its children too.
        process_group=0,
      )
    except (OSError, ValueError) as error:
      reason = getattr(error, 'strerror', None) or error
      raise errors.UsageError(
        f'config.simulator.command: {self._command!r} cannot be started: '
        f'{reason}'
      ) from error
    assert self._process.stdin is not None
    assert self._process.stdout is not None
    self._stdin: IO[bytes] = self._process.stdin
    self._stdout: IO[bytes] = self._process.stdout
    with contextlib.ExitStack() as stack:
      stack.callback(self.close)
      try:
        line = self._read(_LINE_BYTES, time.monotonic() + _START_SECONDS)
      except TimeoutError as error:
        raise errors.PeerError(
          f'the simulator {self} sent no line within {_START_SECONDS:.0f} s; '
          'it must write and flush a line that describes it'
        ) from error
      description = self._parse(line)
      try:
        self.variables: Sequence[str] = description['variables']
        self.target: str = description['target']
        self.goal: str = description['goal']
        self.domains: Mapping[str, Sequence[float]] = description['domains']
      except (KeyError, TypeError) as error:
        raise errors.UsageError(
          f'the first line of the simulator {self} is {line[:_SHOWN]!r}; it '
          'must be an object with variables, target, goal and domains'
        ) from error
      stack.pop_all()  # Keeps the process running.

  def reset(self, seed: int, rollout: int, num_observations: int) -> np.ndarray:
    """See `environment.Simulator.reset`."""
    arguments = {
      'seed': int(seed),
      'rollout': int(rollout),
      'num_observations': num_observations,
    }
    return self._request({'reset': arguments}, 'observations', num_observations)

  def step(self, intervention: Mapping[str, float]) -> np.ndarray:
    """See `environment.Simulator.step`."""
    return self._request({'step': dict(intervention)}, 'outcome', 1)

  def kill(self) -> None:
    """Kills the process and all that it has started."""
    self._killed.set()
    with contextlib.suppress(ProcessLookupError):
      os.killpg(self.pid, signal.SIGKILL)
    _kill_marked(self._mark)

  def close(self) -> None:
    """Ends the process; kills it if it does not exit by itself."""
    if not self._in_use.acquire(blocking=False):
      self.kill()
      self._in_use.acquire()
    try:
      self._stdin.close()
      self._wait()
      self._stdout.close()
    finally:
      self._in_use.release()

  @property
  def pid(self) -> int:
    """Process id."""
    return self._process.pid

  def __str__(self) -> str:
    """Returns its command and process id."""
    return f'{self._command!r} (pid {self.pid})'

  def _wait(self) -> str:
    """Waits briefly for the exit, then kills; returns what has happened."""
    try:
      event = f'exited with code {self._process.wait(_EXIT_SECONDS)}'
    except subprocess.TimeoutExpired:
      event = 'closed its standard output and did not exit'
    self.kill()
    self._process.wait()
    return event

  def _request(
    self, request: dict[str, Any], key: str, num_rows: int
  ) -> np.ndarray:
    """Sends a request; returns the array under a key of the response."""
    size = _LINE_BYTES + _NUMBER_BYTES * num_rows * len(self.variables)
    with self._in_use:
      self._write(json.dumps(request).encode() + b'\n')
      line = self._read(size)
    response = self._parse(line)
    try:
      return real_numbers.to_array(response[key])
    except (KeyError, TypeError, ValueError) as error:
      found = f', not {error}' if isinstance(error, ValueError) else ''
      raise errors.UsageError(
        f'the simulator {self} answered {line[:_SHOWN]!r} to {request}; '
        f'the answer must be an object with an array of numbers {key!r}{found}'
      ) from error

  def _parse(self, line: str) -> Any:
    """Parses a line of JSON."""
    try:
      return json.loads(line)
    except (ValueError, RecursionError) as error:
      raise errors.UsageError(
        f'the simulator {self} wrote {line[:_SHOWN]!r}, which cannot be read '
        'as JSON; its standard output is for answers only, anything else must '
        'go to its standard error'
      ) from error

  def _write(self, line: bytes) -> None:
    """Writes a line, unless the process has ended."""
    # Chunks of this size are written without waiting.
    for i in range(0, len(line), select.PIPE_BUF):
      if self._is_ready(self._stdin, select.POLLOUT):
        # At the end of the process, `_read` raises with its exit code.
        with contextlib.suppress(BrokenPipeError):
          os.write(self._stdin.fileno(), line[i : i + select.PIPE_BUF])

  def _read(self, max_bytes: int, deadline: float = math.inf) -> str:
    """Reads a line.

    Args:
      max_bytes: maximum length of the line.
      deadline: `time.monotonic()` at which to raise TimeoutError.

    Returns:
      The line, without spaces around it.

    Raises:
      errors.PeerError: the process has ended.
      errors.UsageError: the line is too long.
      TimeoutError: the line is not complete at the deadline.
    """
    searched = 0
    while (end := self._received.find(b'\n', searched)) < 0:
      searched = len(self._received)
      if searched > max_bytes:
        break
      if not self._is_ready(self._stdout, select.POLLIN, deadline):
        break
      chunk = os.read(self._stdout.fileno(), _CHUNK_BYTES)
      if not chunk:
        break
      self._received += chunk
    is_complete = end >= 0
    if max(end, searched) > max_bytes:
      raise errors.UsageError(
        f'the simulator {self} wrote a line of more than {max_bytes:,} bytes, '
        f'{bytes(self._received[:_SHOWN])!r}...; it must write and flush one '
        'short line for each request'
      )
    if not is_complete and (self._killed.is_set() or not self._received):
      raise errors.PeerError(f'the simulator {self} {self._wait()}')
    end = end if is_complete else len(self._received)
    line = self._received[:end].decode('utf-8', 'replace').strip()
    del self._received[: end + 1]
    return line

  def _is_ready(
    self, file: IO[bytes], event: int, deadline: float = math.inf
  ) -> bool:
    """Waits until a file can be read or written.

    The end of the process is noticed even if a child of it keeps its files
    open.

    Args:
      file: file to read or write.
      event: POLLIN or POLLOUT.
      deadline: `time.monotonic()` at which to raise TimeoutError.

    Returns:
      False if the process has ended and has left nothing to read.
    """
    while not self._killed.is_set():
      if time.monotonic() > deadline:
        raise TimeoutError
      # Asked first, so that what it wrote before its end is still read.
      has_ended = self._process.poll() is not None
      poll = select.poll()
      poll.register(file, event)
      if poll.poll(0 if has_ended else 1000 * _POLL_SECONDS):
        return True
      if has_ended:
        return False
    return False


def _kill_marked(mark: str) -> None:
  """Kills all processes with an environment variable. Works on Linux only."""
  found: set[int] = set()
  # Again, for what they have started in the meantime.
  while pids := _marked(mark) - found:
    for pid in pids:
      with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    found |= pids


def _marked(mark: str) -> set[int]:
  """Returns the ids of all processes with an environment variable."""
  pids = set()
  for name in os.listdir(_PROC) if os.path.isdir(_PROC) else []:
    # A process may end meanwhile, or belong to another user.
    with contextlib.suppress(OSError):
      if name.isdigit():
        with open(f'{_PROC}/{name}/environ', 'rb', 0) as environment_file:
          if mark.encode() in environment_file.read():
            pids.add(int(name))
  return pids


def display_name(simulator: environment.Simulator) -> str:
  """Returns its name in messages: command and process id, or its class."""
  is_process = isinstance(simulator, Process)
  return (
    f'the simulator {simulator if is_process else type(simulator).__name__}'
  )
