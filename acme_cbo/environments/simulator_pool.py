"""A pool of threads that steps many simulators at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent import futures
import contextlib
import functools
import threading

from absl import logging
import numpy as np

from acme_cbo.environments import environment
from acme_cbo.environments import real_numbers
from acme_cbo.environments import simulator_process
from acme_cbo.environments import simulators
from acme_cbo.infra import cli
from acme_cbo.infra import errors

# Number of simulators that are stepped at the same time.
_MAX_THREADS = 32


class Stopped(Exception):
  """Raised by calls of a pool that has been stopped."""


class Pool:
  """Pool of simulators that are reset and stepped concurrently."""

  def __init__(
    self,
    make: Callable[[], environment.Simulator],
    size: int,
    stall_seconds: float,
  ):
    """Creates the simulators.

    Args:
      make: factory of simulators.
      size: number of simulators.
      stall_seconds: timeout of one reset or step of the whole pool.
    """
    self._stall_seconds = stall_seconds
    self._threads = futures.ThreadPoolExecutor(
      min(size, _MAX_THREADS),
      # The prefix marks the threads as part of an actor, see `cli`.
      thread_name_prefix=f'{cli.ACTOR_THREAD}: simulators',
    )
    self._stopped = threading.Event()
    # Seed and rollout of each simulator's current episode.
    self._episodes: list[tuple[int, int]] = []
    self._simulators: list[environment.Simulator] = []
    with contextlib.ExitStack() as stack:
      stack.callback(self.close)
      # One at a time, so that an error common to all is reported once.
      for _ in range(size):
        self._simulators.append(make())
      stack.pop_all()  # Keeps the pool open.
    first = self._simulators[0]
    self.variables = tuple(first.variables)
    self._target = self.variables.index(first.target)
    ends = [first.domains.get(name, (0, 0)) for name in self.variables]
    self._tolerance = _tolerance(np.array(ends, np.float64))

  def reset(
    self, seeds: Sequence[int], rollouts: Sequence[int], num_observations: int
  ) -> np.ndarray:
    """Starts an episode in each simulator.

    Args:
      seeds: seed of the system of each simulator.
      rollouts: index of the episode on that system, of each simulator.
      num_observations: number of observational rows, N.

    Returns:
      [simulators, N, D] observations.

    Raises:
      errors.PeerError: a simulator does not answer.
      errors.UsageError: observations are not finite real numbers, have the
        wrong shape, or differ between rollouts with the same seed.
    """

    def describe_call(i):
      return f'reset(seed={seeds[i]}, rollout={rollouts[i]}, ...)'

    results = self._map(
      describe_call,
      lambda simulator, seed, rollout: simulator.reset(
        seed, rollout, num_observations
      ),
      seeds,
      rollouts,
    )
    observations = self._stack(
      describe_call, results, (num_observations, self._width)
    )
    self._episodes = list(zip(seeds, rollouts, strict=True))
    first: dict[int, np.ndarray] = {}
    for i, (seed, rows) in enumerate(zip(seeds, observations, strict=True)):
      if not np.array_equal(first.setdefault(seed, rows), rows):
        raise errors.UsageError(
          f'{self._name(i)}: {describe_call(i)} returned other observations '
          'than another rollout; they must depend on the seed alone'
        )
    self._warn_of_observations(list(first.values()))
    return observations

  def step(self, mask: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Performs one intervention in each simulator.

    Args:
      mask: [simulators, D] bool, variables that are set.
      values: [simulators, D] values they are set to.

    Returns:
      [simulators, D] outcomes.

    Raises:
      errors.PeerError: a simulator does not answer.
      errors.UsageError: outcomes are not finite real numbers, have the wrong
        shape, or do not have the values that were set.
    """
    interventions = [
      {
        name: float(value)
        for name, value, is_set in zip(self.variables, *row, strict=True)
        if is_set
      }
      for row in zip(values, mask, strict=True)
    ]

    def describe_call(i):
      seed, rollout = self._episodes[i]
      return f'step({interventions[i]}) of seed {seed}, rollout {rollout},'

    results = self._map(
      describe_call,
      lambda simulator, intervention: simulator.step(intervention),
      interventions,
    )
    outcomes = self._stack(describe_call, results, (self._width,))
    self._check_set_values(describe_call, mask, values, outcomes)
    return outcomes

  def stop(self) -> None:
    """Cancels calls in progress: processes at once, objects after a step."""
    self._stopped.set()
    for simulator in self._simulators:
      if isinstance(simulator, simulator_process.Process):
        simulator.kill()

  def close(self) -> None:
    """Closes all simulators."""
    self._stopped.set()
    self._threads.shutdown(wait=False, cancel_futures=True)
    for simulator in self._simulators:
      simulators.close(simulator)

  @property
  def _width(self) -> int:
    return len(self.variables)

  def _map(self, describe_call, function, *arguments):
    """Applies a function to all simulators, concurrently.

    Args:
      describe_call: index of a simulator -> description of its call, for error
        messages.
      function: function of a simulator and its arguments.
      *arguments: sequences with one element per simulator.

    Returns:
      List of the results, one per simulator.

    Raises:
      errors.PeerError: not all results arrive within `stall_seconds`.
      Stopped: the pool has been stopped.
    """

    def call(i, simulator, *args):
      if self._stopped.is_set():
        raise Stopped
      try:
        return function(simulator, *args)
      except Exception as error:
        # Errors of processes already name the simulator.
        if not isinstance(simulator, simulator_process.Process):
          name = simulator_process.display_name(simulator)
          error.add_note(f'raised by {name}, {describe_call(i)}')
        raise

    calls = [
      self._threads.submit(call, i, *args)
      for i, args in enumerate(zip(self._simulators, *arguments, strict=True))
    ]
    done, _ = futures.wait(calls, self._stall_seconds, futures.FIRST_EXCEPTION)
    results = [future.result() for future in calls if future in done]
    if len(results) < len(calls):
      self.stop()
      late = next(i for i, future in enumerate(calls) if future not in done)
      raise errors.PeerError(
        f'timed out after {self._stall_seconds:.0f} s waiting for '
        f'{self._name(late)}; increase config.runtime.stall_seconds if this is '
        'expected'
      )
    return results

  def _stack(self, describe_call, results, shape) -> np.ndarray:
    """Checks the types, shape and values of all results, and stacks them."""
    arrays = []
    for i, result in enumerate(results):
      try:
        arrays.append(real_numbers.to_array(result))
      except ValueError as error:
        raise errors.UsageError(
          f'{self._name(i)}: {describe_call(i)} returned {error}; it must '
          'return an array of real numbers'
        ) from error
      if arrays[-1].shape != shape:
        raise errors.UsageError(
          f'{self._name(i)}: {describe_call(i)} returned an array of shape '
          f'{arrays[-1].shape}; the shape must be {shape}'
        )
    stacked = np.stack(arrays)
    for i, *_, j in np.argwhere(~np.isfinite(stacked)):
      raise errors.UsageError(
        f'{self._name(i)}: {describe_call(i)} returned a value of '
        f'{self.variables[j]!r} that is not finite'
      )
    return stacked

  def _check_set_values(self, describe_call, mask, values, outcomes) -> None:
    """Raises unless all outcomes have the values that were set."""
    is_other = np.abs(outcomes - values) > self._tolerance
    for i, j in np.argwhere(mask & is_other):
      matches = np.abs(outcomes[i] - values[i, j]) <= self._tolerance[j]
      hint = ''.join(
        f'; {self.variables[k]!r} has that value: the columns must be in the '
        f'order {", ".join(self.variables)}'
        for k in np.flatnonzero(matches)[:1]
      )
      raise errors.UsageError(
        f'{self._name(i)}: {describe_call(i)} returned {outcomes[i, j]} as '
        f'{self.variables[j]!r}, which was set to {values[i, j]}'
        f'{hint or "; an outcome must have the values that were set"}'
      )

  def _warn_of_observations(self, systems: list[np.ndarray]) -> None:
    """Warns of observations that make scores or intervals meaningless.

    Args:
      systems: observations of each seed, arrays of [N, D].
    """
    if len(systems) > 1 and all(
      np.array_equal(rows, systems[0]) for rows in systems
    ):
      _warn_once(
        'the simulator returned the same observations for '
        f'{len(systems)} different seeds: if the seed does not determine the '
        'system, all systems are the same one, and intervals over systems mean '
        'nothing'
      )
    target = self._target
    if any((rows[:, target] == rows[0, target]).all() for rows in systems):
      _warn_once(
        f'the target {self.variables[target]!r} does not vary in the '
        'observations of a seed: there is no standard deviation to measure its '
        'improvement by, so that it is measured in units of the target itself'
      )

  def _name(self, i):
    return simulator_process.display_name(self._simulators[i])


def _tolerance(ends: np.ndarray) -> np.ndarray:
  """Returns the largest deviations of set values in outcomes.

  It allows for simulators in float32 or that print six digits.

  Args:
    ends: [D, 2] ends of the domains; zeros where there is none.

  Returns:
    [D] a hundred-thousandth of the largest value of the domain, but at most a
    hundredth of its width.
  """
  width = ends[:, 1] - ends[:, 0]
  return np.minimum(1e-5 * np.abs(ends).max(1), 0.01 * width)


@functools.cache
def _warn_once(sentence: str) -> None:
  """Logs a warning, the first time that it is called with it."""
  logging.warning('%s', sentence)
