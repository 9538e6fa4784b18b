"""Simulator that runs as a child process and communicates in lines of JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import contextlib
import json
import os
import shlex
import signal
import subprocess
import threading
from typing import Any

import numpy as np

from acme_cbo.environments import environment
from acme_cbo.infra import errors

# Timeout for the first line of a process, and for its exit after its standard
# input is closed.
_START_SECONDS = 120.0
_EXIT_SECONDS = 2.0


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
    try:
      self._process = subprocess.Popen(
        list(command),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        encoding='utf-8',
        errors='replace',
        # In a group of its own it does not receive Ctrl-C but ends with its
        # standard input, and `kill` ends its children too.
        process_group=0,
      )
    except OSError as error:
      raise errors.UsageError(
        f'config.simulator.command: {self._command} cannot be started: '
        f'{error.strerror}'
      ) from error
    with contextlib.ExitStack() as stack:
      stack.callback(self.close)
      description = self._read_description()
      try:
        self.variables = tuple(description['variables'])
        self.target, self.goal = description['target'], description['goal']
        self.domains: Mapping[str, Sequence[float]] = description['domains']
      except (KeyError, TypeError) as error:
        raise errors.UsageError(
          f'the first line of the simulator {self} is {description!r}; it must '
          'be an object with variables, target, goal and domains'
        ) from error
      stack.pop_all()  # Keeps the process running.

  def reset(self, seed: int, rollout: int, num_observations: int) -> np.ndarray:
    """See `environment.Simulator.reset`."""
    arguments = {
      'seed': int(seed),
      'rollout': int(rollout),
      'num_observations': num_observations,
    }
    return self._request({'reset': arguments}, 'observations')

  def step(self, intervention: Mapping[str, float]) -> np.ndarray:
    """See `environment.Simulator.step`."""
    return self._request({'step': dict(intervention)}, 'outcome')

  def kill(self) -> None:
    """Kills the process and its children."""
    with contextlib.suppress(ProcessLookupError):
      os.killpg(self.pid, signal.SIGKILL)

  def close(self) -> None:
    """Ends the process; kills it if it does not exit by itself."""
    stdin, stdout = self._process.stdin, self._process.stdout
    assert stdin is not None and stdout is not None
    with contextlib.suppress(OSError):
      stdin.close()
    self._wait()
    stdout.close()

  @property
  def pid(self) -> int:
    """Process id."""
    return self._process.pid

  def __str__(self) -> str:
    """Returns its command and process id."""
    return f'{self._command!r} (pid {self.pid})'

  def _wait(self) -> int:
    """Waits briefly for the exit, then kills; returns the exit code."""
    with contextlib.suppress(subprocess.TimeoutExpired):
      self._process.wait(_EXIT_SECONDS)
    self.kill()
    return self._process.wait()

  def _read_description(self) -> Any:
    """Reads the first line, with a timeout."""
    timed_out = threading.Event()

    def on_timeout():
      timed_out.set()
      self.kill()

    timer = threading.Timer(_START_SECONDS, on_timeout)
    timer.daemon = True
    timer.start()
    try:
      return self._read()
    except errors.PeerError as error:
      if timed_out.is_set():
        raise errors.PeerError(
          f'the simulator {self} sent no line within {_START_SECONDS:.0f} s; '
          'it must write and flush a line that describes it'
        ) from error
      raise
    finally:
      timer.cancel()

  def _request(self, request: dict[str, Any], key: str) -> np.ndarray:
    """Sends a request; returns the array under a key of the response."""
    assert self._process.stdin is not None
    try:
      self._process.stdin.write(json.dumps(request) + '\n')
      self._process.stdin.flush()
    except (OSError, ValueError):
      pass  # The process has exited; `_read` raises with its exit code.
    response = self._read()
    try:
      return np.array(response[key], np.float64)
    except (KeyError, TypeError, ValueError) as error:
      raise errors.UsageError(
        f'the simulator {self} answered {str(response)[:200]!r} to {request}; '
        f'the answer must be an object with an array of numbers {key!r}'
      ) from error

  def _read(self) -> Any:
    """Reads one line of JSON."""
    assert self._process.stdout is not None
    try:
      line = self._process.stdout.readline()
    except (OSError, ValueError):
      line = ''
    if not line:
      code = self._wait()
      raise errors.PeerError(f'the simulator {self} exited with code {code}')
    try:
      return json.loads(line)
    except (ValueError, RecursionError) as error:
      raise errors.UsageError(
        f'the simulator {self} wrote {line.strip()[:200]!r}, which is not '
        'JSON; its standard output is for answers only, anything else must go '
        'to its standard error'
      ) from error


def display_name(simulator: environment.Simulator) -> str:
  """Returns its name in messages: command and process id, or its class."""
  is_process = isinstance(simulator, Process)
  return (
    f'the simulator {simulator if is_process else type(simulator).__name__}'
  )
