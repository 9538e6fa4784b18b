"""A simulator in a process of its own, which speaks lines of JSON."""

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

# How long a process may take to say what it is, and to end once it has nothing
# more to read.
_START_SECONDS = 120.0
_EXIT_SECONDS = 2.0


class Process:
  """A simulator that is another program, asked by lines of JSON.

  Its first line says what it is, every other one answers one that it read:

    {"variables": ["x", "y"], "target": "y", "goal": "maximize",
     "domains": {"x": [0, 1]}}
    <- {"reset": {"seed": 7, "rollout": 0, "num_observations": 20}}
    -> {"observations": [[0.1, 0.2], ...]}
    <- {"step": {"x": 0.5}}
    -> {"outcome": [0.5, 0.7]}

  It ends at the end of what it reads. What it says on its standard error is
  shown as it is.
  """

  def __init__(self, command: Sequence[str]):
    """Starts it.

    Args:
      command: program and arguments.

    Raises:
      errors.UsageError: it cannot be started, or says something else.
    """
    self._command = shlex.join(command)
    try:
      self._process = subprocess.Popen(
        list(command),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        encoding='utf-8',
        errors='replace',
        # It is to hear nothing of a Ctrl-C, and to end with what it reads; what
        # it starts ends with it.
        process_group=0,
      )
    except OSError as error:
      raise errors.UsageError(
        f'config.simulator.command: {self._command} cannot be started: '
        f'{error.strerror}'
      ) from error
    with contextlib.ExitStack() as unless_fit:
      unless_fit.callback(self.close)
      said = self._first()
      try:
        self.variables = tuple(said['variables'])
        self.target, self.goal = said['target'], said['goal']
        self.domains: Mapping[str, Sequence[float]] = said['domains']
      except (KeyError, TypeError) as error:
        raise errors.UsageError(
          f'the simulator {self} began with {said!r}; it must say variables, '
          'target, goal and domains'
        ) from error
      unless_fit.pop_all()

  def reset(self, seed: int, rollout: int, num_observations: int) -> np.ndarray:
    """As `environment.Simulator`."""
    asked = {
      'seed': int(seed),
      'rollout': int(rollout),
      'num_observations': num_observations,
    }
    return self._ask({'reset': asked}, 'observations')

  def step(self, intervention: Mapping[str, float]) -> np.ndarray:
    """As `environment.Simulator`."""
    return self._ask({'step': dict(intervention)}, 'outcome')

  def kill(self) -> None:
    """Ends it, and what it has started, at once."""
    with contextlib.suppress(ProcessLookupError):
      os.killpg(self.pid, signal.SIGKILL)

  def close(self) -> None:
    """Ends it, at once where it does not by itself."""
    stdin, stdout = self._process.stdin, self._process.stdout
    assert stdin is not None and stdout is not None
    with contextlib.suppress(OSError):
      stdin.close()
    self._end()
    stdout.close()

  @property
  def pid(self) -> int:
    """Number of the process."""
    return self._process.pid

  def __str__(self) -> str:
    """Its command and number."""
    return f'{self._command!r} (pid {self.pid})'

  def _end(self) -> int:
    """Waits for its end a little; returns the code that it ended with."""
    with contextlib.suppress(subprocess.TimeoutExpired):
      self._process.wait(_EXIT_SECONDS)
    self.kill()
    return self._process.wait()

  def _first(self) -> Any:
    """What it says at the start, for which it has a while."""
    late = threading.Event()

    def end():
      late.set()
      self.kill()

    timer = threading.Timer(_START_SECONDS, end)
    timer.daemon = True
    timer.start()
    try:
      return self._read()
    except errors.PeerError as error:
      if late.is_set():
        raise errors.PeerError(
          f'the simulator {self} has said nothing for {_START_SECONDS:.0f} s; '
          'its first line, flushed, must say what it is'
        ) from error
      raise
    finally:
      timer.cancel()

  def _ask(self, question: dict[str, Any], answer: str) -> np.ndarray:
    assert self._process.stdin is not None
    try:
      self._process.stdin.write(json.dumps(question) + '\n')
      self._process.stdin.flush()
    except (OSError, ValueError):
      pass  # It has ended, as the answer will tell.
    said = self._read()
    try:
      return np.array(said[answer], np.float64)
    except (KeyError, TypeError, ValueError) as error:
      raise errors.UsageError(
        f'the simulator {self} answered {str(said)[:200]!r} to {question}; it '
        f'must be an object with {answer!r}, numbers'
      ) from error

  def _read(self) -> Any:
    assert self._process.stdout is not None
    try:
      line = self._process.stdout.readline()
    except (OSError, ValueError):
      line = ''
    if not line:
      code = self._end()
      raise errors.PeerError(
        f'the simulator {self} has ended, with code {code}'
      )
    try:
      return json.loads(line)
    except (ValueError, RecursionError) as error:
      raise errors.UsageError(
        f'the simulator {self} said {line.strip()[:200]!r}, which is no JSON; '
        'its standard output is for answers alone, anything else goes to its '
        'standard error'
      ) from error


def display_name(simulator: environment.Simulator) -> str:
  """Returns what errors call it: its command and number, or its class."""
  is_process = isinstance(simulator, Process)
  return (
    f'the simulator {simulator if is_process else type(simulator).__name__}'
  )
