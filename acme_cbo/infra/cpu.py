"""Cores of this machine, shared out among processes."""

import os


def split_cores(number: int) -> list[set[int]]:
  """Cores of its own for each of so many processes.

  Args:
    number: of processes.

  Returns:
    As many sets of cores; all of them all that there are, where there are fewer
    cores than processes.
  """
  cores = sorted(os.sched_getaffinity(0))
  each = len(cores) // number
  if not each:
    return [set(cores)] * number
  return [set(cores[i * each : (i + 1) * each]) for i in range(number)]
