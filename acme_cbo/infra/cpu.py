"""CPU cores of this machine, divided among processes."""

import os


def split_cores(num_processes: int) -> list[set[int]]:
  """Divides the available cores evenly among processes.

  Args:
    num_processes: number of processes.

  Returns:
    One set of cores per process, disjoint; if there are fewer cores than
    processes, every set holds all cores.
  """
  cores = sorted(os.sched_getaffinity(0))
  each = len(cores) // num_processes
  if not each:
    return [set(cores)] * num_processes
  return [set(cores[i * each : (i + 1) * each]) for i in range(num_processes)]
