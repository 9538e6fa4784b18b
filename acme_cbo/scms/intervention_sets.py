"""Which variables may be set together, and which of them can be paid for.

An intervention is put together one variable after the other, so what matters is
which variables may be added to those that are already chosen, and whether what
is chosen may be done as it is.
"""

import itertools

import jax
import numpy as np

from acme_cbo import types

_SLACK = 1e-5


def subsets(settable: np.ndarray, max_size: int) -> np.ndarray:
  """All sets of at most so many variables, the smaller first.

  Args:
    settable: [D] bool, numpy: the variables that may be in one.
    max_size: of a set, at least 1.

  Returns:
    [M, D] bool.
  """
  members = np.flatnonzero(settable)
  of_sizes = [np.zeros((0, len(settable)), bool)]
  for size in range(1, min(max_size, len(members)) + 1):
    chosen = np.array(list(itertools.combinations(members, size)))
    sets = np.zeros((len(chosen), len(settable)), bool)
    np.put_along_axis(sets, chosen, True, axis=1)
    of_sizes.append(sets)
  return np.concatenate(of_sizes)


def max_size(problem: types.Problem) -> int:
  """How many variables an intervention sets at most. Not under `jit`."""
  return int(np.asarray(problem.sets).sum(-1).max())


def is_within_budget(budget, total):
  """Whether a budget pays for a total cost; elementwise, of any arrays.

  A rounding error must not forbid the last intervention of a budget.
  """
  return total <= budget * (1 + _SLACK)


def affordable(problem: types.Problem, spent: jax.Array) -> jax.Array:
  """The sets that can still be paid for.

  Args:
    problem: with its costs and its budget.
    spent: [] cost of all interventions so far.

  Returns:
    [M, D] bool: `problem.sets`, empty where one costs more than is left.
  """
  total = spent + problem.sets @ problem.cost
  return problem.sets & is_within_budget(problem.budget, total)[:, None]


def may_add(sets: jax.Array, chosen: jax.Array) -> jax.Array:
  """The variables that lead from a part of a set on towards a whole one.

  Args:
    sets: [M, D] bool.
    chosen: [D] bool.

  Returns:
    [D] bool.
  """
  around = ~(chosen & ~sets).any(-1)
  return (sets & around[:, None]).any(0) & ~chosen


def may_stop(sets: jax.Array, chosen: jax.Array) -> jax.Array:
  """Whether what is chosen is a set, and not an empty one: [] bool."""
  return (sets == chosen).all(-1).any() & chosen.any()
