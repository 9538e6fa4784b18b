"""Timing of functions that take turns in one process.

Interleaving spreads other load of the machine evenly over all of them.
"""

from collections.abc import Callable, Mapping
import statistics
import time
from typing import Any

import jax


def time_interleaved(
  functions: Mapping[str, Callable[[], Any]],
  repeats: int,
  calls_per_turn: int = 1,
) -> dict[str, list[float]]:
  """Times functions in turn, after one warm-up call of each.

  Args:
    functions: {name: function}; a call ends when its results are ready.
    repeats: number of turns of each function.
    calls_per_turn: number of consecutive calls in a turn, all of them timed. A
      single call of a millisecond would mostly measure how long it takes to
      refill the caches that the other functions have used.

  Returns:
    {name: seconds of every call}.
  """
  for function in functions.values():
    jax.block_until_ready(function())
  seconds: dict[str, list[float]] = {name: [] for name in functions}
  for _ in range(repeats):
    for name, function in functions.items():
      for _ in range(calls_per_turn):
        begin = time.perf_counter()
        jax.block_until_ready(function())
        seconds[name].append(time.perf_counter() - begin)
  return seconds


class Stopwatch:
  """Measures the total time spent in wrapped functions.

  Attributes:
    seconds: total time so far.
  """

  def __init__(self):
    self.seconds = 0.0

  def wrap(self, function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns the function with its calls timed, until results are ready."""

    def run(*args):
      begin = time.perf_counter()
      result = jax.block_until_ready(function(*args))
      self.seconds += time.perf_counter() - begin
      return result

    return run


def medians(seconds: Mapping[str, list[float]]) -> dict[str, float]:
  """Returns {name: median}."""
  return {name: statistics.median(calls) for name, calls in seconds.items()}


def spread(seconds: Mapping[str, list[float]]) -> dict[str, dict[str, float]]:
  """Returns {name: {'median', 'min', 'max'}}."""
  return {
    name: {
      'median': statistics.median(calls),
      'min': min(calls),
      'max': max(calls),
    }
    for name, calls in seconds.items()
  }
