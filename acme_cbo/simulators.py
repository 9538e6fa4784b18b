"""Systems that are no JAX programs: objects of Python, or processes.

A simulator is whatever `environment.Simulator` describes; where they come from
and how many of them play at once is here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent import futures
import contextlib
import importlib
import json
import os
import shlex
import signal
import subprocess
import threading
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from acme_cbo import environment
from acme_cbo import errors
from acme_cbo import interventions
from acme_cbo import types
from acme_cbo import units as units_lib

# Threads that wait for simulators at once; of a name that says whose they are.
_MAX_THREADS = 32
_GOALS = {'maximize': 1.0, 'minimize': -1.0}
# How long a process may take to say what it is, and to end once it has nothing
# more to read.
_START_SECONDS = 120.0
_EXIT_SECONDS = 2.0


class Settings(NamedTuple):
  """Where simulators come from; none of both where there are none.

  Attributes:
    make: 'module:function' that makes one, called without arguments.
    command: that starts a process which is one, see `Process`.
  """

  make: str
  command: str

  def __bool__(self) -> bool:
    """Whether there are any."""
    return bool(self.make or self.command)


def maker(settings: Settings) -> Callable[[], environment.Simulator]:
  """What makes a simulator.

  Raises:
    errors.UsageError: there is no such function.
  """
  if settings.command:
    return lambda: Process(shlex.split(settings.command))
  module, _, name = settings.make.partition(':')
  try:
    found = getattr(importlib.import_module(module), name)
  except (ImportError, AttributeError, ValueError) as error:
    raise errors.UsageError(
      f'config.simulator.make is {settings.make!r}, which cannot be imported: '
      f'{error}'
    ) from error
  return found


def problem(
  simulator: environment.Simulator, max_set_size: int
) -> types.Problem:
  """What may be seen and set of a simulator.

  Args:
    simulator: any one of its kind.
    max_set_size: how many variables may be set at once.

  Returns:
    The `Problem`.

  Raises:
    errors.UsageError: it does not say so, or what it says does not fit.
  """
  names, target, goal, domains = _described(simulator)
  unknown = [name for name in [target, *domains] if name not in names]
  wrong = [name for name, domain in domains.items() if not _is_domain(domain)]
  if unknown:
    said = (
      f'{unknown[0]!r}, its target or a name in its domains, is none of its '
      f'variables, {", ".join(map(repr, names))}'
    )
  elif len(set(names)) < len(names):
    said = 'its variables have a name twice'
  elif goal not in list(_GOALS):
    said = f"its goal is {goal!r}; it must be 'maximize' or 'minimize'"
  elif target in domains:
    said = f'its target {target!r} has a domain, and may not be set'
  elif not domains:
    said = 'none of its variables has a domain, and nothing may be set'
  elif wrong:
    said = (
      f'the domain of {wrong[0]!r} is {domains[wrong[0]]}; it must be two '
      'finite numbers, the lower first'
    )
  else:
    said = ''
  if said:
    raise errors.UsageError(f'{_named(simulator)}: {said}')
  settable = np.array([name in domains for name in names])
  low, high = (
    np.array([domains.get(name, (0.0, 0.0))[i] for name in names], np.float32)
    for i in (0, 1)
  )
  size = len(names)
  return types.Problem(
    exists=jnp.ones(size, bool),
    sets=jnp.asarray(interventions.subsets(settable, max_set_size)),
    target=jnp.array([name == target for name in names]),
    goal=jnp.float32(_GOALS[goal]),
    low=jnp.asarray(low),
    high=jnp.asarray(high),
    cost=jnp.ones(size),
    budget=jnp.float32(jnp.inf),
    samples=jnp.float32(1.0),
  )


def alike(
  make: Callable[[], environment.Simulator], first: environment.Simulator
) -> Callable[[], environment.Simulator]:
  """Makes simulators that say the same of themselves as the first one.

  Args:
    make: makes one.
    first: that was made before.

  Returns:
    What makes one, and raises errors.UsageError where it is another system.
  """

  def comparable(simulator):
    *rest, domains = _described(simulator)
    return *rest, {name: np.asarray(x).tolist() for name, x in domains.items()}

  expected = comparable(first)

  def checked():
    with contextlib.ExitStack() as unless_alike:
      made = make()
      unless_alike.callback(close, made)
      if (said := comparable(made)) != expected:
        raise errors.UsageError(
          f'{_named(made)} said that its variables, '
          f'target, goal and domains are {said}, and {expected} when it was '
          'made before; they have to be the same each time'
        )
      unless_alike.pop_all()
    return made

  return checked


def _described(simulator: environment.Simulator):
  """Its variables, target, goal and domains, as they are."""
  try:
    names, target = list(simulator.variables), simulator.target
    return names, target, simulator.goal, dict(simulator.domains)
  except (AttributeError, TypeError, ValueError) as error:
    raise errors.UsageError(
      f'{_named(simulator)} lacks what every one has, see '
      f'acme_cbo.environment.Simulator: {error}'
    ) from error


def _named(simulator: environment.Simulator) -> str:
  """What it is called in errors: by its command and number, or by its class."""
  is_process = isinstance(simulator, Process)
  return (
    f'the simulator {simulator if is_process else type(simulator).__name__}'
  )


def _is_domain(domain) -> bool:
  """Whether it is two finite numbers, the lower first."""
  try:
    low, high = map(float, domain)
  except (TypeError, ValueError):
    return False
  return -np.inf < low < high < np.inf


def close(simulator: environment.Simulator) -> None:
  """Ends it, where that means anything."""
  if ends := getattr(simulator, 'close', None):
    ends()


class Scale:
  """Units in which the observations of each system are of size 1.

  In float64, so that a variable that is far from 0 or hardly moves loses no
  digits.

  Attributes:
    problems: B problems in these units.
  """

  def __init__(self, problem: types.Problem, observations: np.ndarray):
    """Fits them.

    Args:
      problem: of all systems, in the variables' own units.
      observations: [B, N, D] of each.
    """
    with jax.enable_x64(True):
      fitted = jax.vmap(units_lib.fit, (None, 0))(
        problem, jnp.asarray(observations, float)
      )
    self._location, self._size = map(np.asarray, fitted)
    self._low, self._high = (
      np.asarray(x, float) for x in (problem.low, problem.high)
    )
    settable = np.asarray(problem.settable)
    low, high = (
      np.where(settable, (x - self._location) / self._size, 0.0)
      for x in (self._low, self._high)
    )
    self.problems = repeated(problem, len(observations))._replace(
      low=jnp.asarray(low, jnp.float32), high=jnp.asarray(high, jnp.float32)
    )

  def scaled(self, values: np.ndarray) -> jax.Array:
    """[B, ..., D] in own units -> in these, float32."""
    location, size = self._like(values)
    return jnp.asarray((values - location) / size, jnp.float32)

  def own(self, values: np.ndarray) -> np.ndarray:
    """[B, ..., D] in these units -> in own, to the bit at the ends."""
    location, size = self._like(values)
    low, high = (
      self._with_axes(np.asarray(end), values)
      for end in (self.problems.low, self.problems.high)
    )
    own = np.clip(
      location + size * np.asarray(values, float), self._low, self._high
    )
    own = np.where(values <= low, self._low, own)
    return np.where(values >= high, self._high, own)

  def _like(self, values):
    """Location and size of each system, with as many axes as values."""
    return (self._with_axes(x, values) for x in (self._location, self._size))

  def _with_axes(self, of_each, values):
    return of_each.reshape(
      len(values), *(1,) * (values.ndim - 2), values.shape[-1]
    )


def repeated(problem: types.Problem, times: int) -> types.Problem:
  """As many of a problem, stacked."""
  return jax.tree.map(
    lambda leaf: jnp.broadcast_to(leaf, (times, *jnp.shape(leaf))), problem
  )


class Stopped(Exception):
  """Nobody waits for what was asked for any more."""


class Pool:
  """Many simulators of a kind that play at once."""

  def __init__(
    self,
    make: Callable[[], environment.Simulator],
    size: int,
    stall_seconds: float,
  ):
    """Makes them.

    Args:
      make: makes one.
      size: how many there are.
      stall_seconds: how long all together may take over one reset or step.
    """
    self._stall_seconds = stall_seconds
    self._threads = futures.ThreadPoolExecutor(
      min(size, _MAX_THREADS), thread_name_prefix='actor: simulators'
    )
    self._stopped = threading.Event()
    self._begun: list[tuple[int, int]] = []  # Seed and rollout of each.
    self._made: list[environment.Simulator] = []
    with contextlib.ExitStack() as unless_made:
      unless_made.callback(self.close)
      # One by one: what is wrong with all of them is said once.
      for _ in range(size):
        self._made.append(make())
      unless_made.pop_all()
    self.variables = tuple(self._made[0].variables)

  def reset(
    self, seeds: Sequence[int], rollouts: Sequence[int], num_observations: int
  ) -> np.ndarray:
    """Puts each at the beginning of an episode.

    Args:
      seeds: of the systems, one for each simulator.
      rollouts: which of the episodes on that system it is.
      num_observations: N.

    Returns:
      [simulators, N, D] observations.

    Raises:
      errors.PeerError: one does not answer.
      errors.UsageError: they have not the shape, are not finite, or rollouts on
        a system have not the same ones.
    """

    def said(i):
      return f'reset(seed={seeds[i]}, rollout={rollouts[i]}, ...)'

    rows = self._each(
      said,
      lambda simulator, seed, rollout: simulator.reset(
        seed, rollout, num_observations
      ),
      seeds,
      rollouts,
    )
    found = self._stacked(said, rows, (num_observations, self._width))
    self._begun = list(zip(seeds, rollouts, strict=True))
    first: dict[int, np.ndarray] = {}
    for i, (seed, row) in enumerate(zip(seeds, found, strict=True)):
      if not np.array_equal(first.setdefault(seed, row), row):
        raise errors.UsageError(
          f'{_named(self._made[i])}: {said(i)} gave other observations than '
          'another rollout; they have to be those of the seed alone'
        )
    return found

  def step(self, mask: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Does one intervention in each.

    Args:
      mask: [simulators, D] bool, what is set.
      values: [simulators, D] to what.

    Returns:
      [simulators, D] outcomes.

    Raises:
      errors.PeerError: one does not answer.
      errors.UsageError: they have not the shape, or are not finite.
    """
    asked = [
      {
        name: float(value)
        for name, value, is_set in zip(self.variables, *row, strict=True)
        if is_set
      }
      for row in zip(values, mask, strict=True)
    ]

    def said(i):
      seed, rollout = self._begun[i]
      return f'step({asked[i]}) of seed {seed}, rollout {rollout},'

    rows = self._each(
      said, lambda simulator, chosen: simulator.step(chosen), asked
    )
    return self._stacked(said, rows, (self._width,))

  def stop(self) -> None:
    """Ends what is under way: processes at once, others after a step."""
    self._stopped.set()
    for simulator in self._made:
      if isinstance(simulator, Process):
        simulator.kill()

  def close(self) -> None:
    """Ends all of them."""
    self._stopped.set()
    self._threads.shutdown(wait=False, cancel_futures=True)
    for simulator in self._made:
      close(simulator)

  @property
  def _width(self) -> int:
    return len(self.variables)

  def _each(self, said, function, *arguments):
    """What a function of each simulator gives, many at once.

    Args:
      said: the number of one -> what it is asked, for whoever reads an error.
      function: of a simulator and its arguments.
      *arguments: of all of them.
    """

    def call(i, simulator, *args):
      if self._stopped.is_set():
        raise Stopped
      try:
        return function(simulator, *args)
      except Exception as error:
        if not isinstance(simulator, Process):  # Which says it itself.
          error.add_note(f'raised by {_named(simulator)}, {said(i)}')
        raise

    asked = [
      self._threads.submit(call, i, *args)
      for i, args in enumerate(zip(self._made, *arguments, strict=True))
    ]
    done, _ = futures.wait(asked, self._stall_seconds, futures.FIRST_EXCEPTION)
    answers = [one.result() for one in asked if one in done]
    if len(answers) < len(asked):
      self.stop()
      late = next(i for i, one in enumerate(asked) if one not in done)
      raise errors.PeerError(
        f'{_named(self._made[late])} has not answered for '
        f'{self._stall_seconds:.0f} s; raise config.runtime.stall_seconds if '
        'that is no mistake'
      )
    return answers

  def _stacked(self, said, rows, shape) -> np.ndarray:
    for i, row in enumerate(rows):
      if np.shape(row) != shape:
        raise errors.UsageError(
          f'{_named(self._made[i])}: {said(i)} gave an array of shape '
          f'{np.shape(row)}; it must be {shape}'
        )
    found = np.stack([np.asarray(row, np.float64) for row in rows])
    for i, *_, j in np.argwhere(~np.isfinite(found)):
      raise errors.UsageError(
        f'{_named(self._made[i])}: {said(i)} gave a value of '
        f'{self.variables[j]!r} that is not finite'
      )
    return found


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
