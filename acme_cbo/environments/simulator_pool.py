"""A pool of threads that steps many simulators at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent import futures
import contextlib
import threading

import numpy as np

from acme_cbo.environments import environment
from acme_cbo.environments import simulator_process
from acme_cbo.environments import simulators
from acme_cbo.infra import cli
from acme_cbo.infra import errors

# Threads that wait for simulators at once; of a name that says whose they are.
_MAX_THREADS = 32


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
      min(size, _MAX_THREADS),
      thread_name_prefix=f'{cli.ACTOR_THREAD}: simulators',
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
          f'{self._name(i)}: {said(i)} gave other observations than '
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
      if isinstance(simulator, simulator_process.Process):
        simulator.kill()

  def close(self) -> None:
    """Ends all of them."""
    self._stopped.set()
    self._threads.shutdown(wait=False, cancel_futures=True)
    for simulator in self._made:
      simulators.close(simulator)

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
        if not isinstance(
          simulator, simulator_process.Process
        ):  # Which says it itself.
          error.add_note(
            f'raised by {simulator_process.display_name(simulator)}, {said(i)}'
          )
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
        f'{self._name(late)} has not answered for '
        f'{self._stall_seconds:.0f} s; raise config.runtime.stall_seconds if '
        'that is no mistake'
      )
    return answers

  def _stacked(self, said, rows, shape) -> np.ndarray:
    for i, row in enumerate(rows):
      if np.shape(row) != shape:
        raise errors.UsageError(
          f'{self._name(i)}: {said(i)} gave an array of shape '
          f'{np.shape(row)}; it must be {shape}'
        )
    found = np.stack([np.asarray(row, np.float64) for row in rows])
    for i, *_, j in np.argwhere(~np.isfinite(found)):
      raise errors.UsageError(
        f'{self._name(i)}: {said(i)} gave a value of '
        f'{self.variables[j]!r} that is not finite'
      )
    return found

  def _name(self, i):
    return simulator_process.display_name(self._made[i])
