"""Seconds of functions that take turns in one process, and their spread.

What else the machine does then falls on all of them alike.
"""

from collections.abc import Callable, Mapping
import statistics
import time
from typing import Any

import jax


def interleaved(
  runs: Mapping[str, Callable[[], Any]], repeats: int, in_a_row: int = 1
) -> dict[str, list[float]]:
  """Seconds of each run, in turn, after one run that is not counted.

  Args:
    runs: {name: function}; what it returns is waited for.
    repeats: turns of each.
    in_a_row: runs of a turn, all of them counted: what takes a millisecond is
      otherwise mostly the time to bring back what others drove from the caches.

  Returns:
    {name: seconds of every run}.
  """
  for run in runs.values():
    jax.block_until_ready(run())
  seconds: dict[str, list[float]] = {name: [] for name in runs}
  for _ in range(repeats):
    for name, run in runs.items():
      for _ in range(in_a_row):
        begin = time.perf_counter()
        jax.block_until_ready(run())
        seconds[name].append(time.perf_counter() - begin)
  return seconds


class Stopwatch:
  """Runs while functions do.

  Attributes:
    seconds: for which it has run.
  """

  def __init__(self):
    self.seconds = 0.0

  def timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, whose results are waited for, and timed."""

    def run(*args):
      begin = time.perf_counter()
      result = jax.block_until_ready(function(*args))
      self.seconds += time.perf_counter() - begin
      return result

    return run


def medians(seconds: Mapping[str, list[float]]) -> dict[str, float]:
  """{name: median of its runs}."""
  return {name: statistics.median(runs) for name, runs in seconds.items()}


def spread(seconds: Mapping[str, list[float]]) -> dict[str, dict[str, float]]:
  """{name: median, smallest and largest of its runs}."""
  return {
    name: {
      'median': statistics.median(runs),
      'min': min(runs),
      'max': max(runs),
    }
    for name, runs in seconds.items()
  }
