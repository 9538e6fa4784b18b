"""Allowed sets of intervened variables, and the sets that a budget affords.

An intervention is built one variable after another. At each step two masks
matter: which variables may be added to those chosen so far, and whether the
chosen variables already form an allowed set.
"""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np

from acme_cbo import types
from acme_cbo.infra import errors

# Maximum number of sets, and of entries in their masks.
MAX_SETS = 50_000
_MAX_ENTRIES = 10**7
# Relative tolerance of the budget.
_SLACK = 1e-5


def subsets(settable: np.ndarray, max_size: int) -> np.ndarray:
  """Returns all sets of 1 to `max_size` variables, smaller sets first.

  Args:
    settable: [D] bool numpy array, the variables that may be in a set.
    max_size: maximum size of a set, at least 1.

  Returns:
    [M, D] bool, one set per row.

  Raises:
    errors.UsageError: there are more than 50,000 sets, or than 10 million
      entries.
  """
  members = np.flatnonzero(settable)
  max_size = min(max_size, len(members))
  number = sum(math.comb(len(members), k) for k in range(1, max_size + 1))
  most = min(MAX_SETS, _MAX_ENTRIES // len(settable))
  if number > most:
    raise errors.UsageError(
      f'{number:,} sets of up to {max_size} out of {len(members)} variables, '
      f'at most {most:,} are allowed; lower max_size, or set fewer variables'
    )
  by_size = [np.zeros((0, len(settable)), bool)]
  for size in range(1, max_size + 1):
    chosen = np.array(list(itertools.combinations(members, size)))
    sets = np.zeros((len(chosen), len(settable)), bool)
    np.put_along_axis(sets, chosen, True, axis=1)
    by_size.append(sets)
  return np.concatenate(by_size)


def max_size(problem: types.Problem) -> int:
  """Returns the size of the largest allowed set. Not traceable by `jit`."""
  return int(np.asarray(problem.sets).sum(-1).max())


def is_within_budget(budget, total):
  """Returns whether a budget covers a total cost, elementwise.

  A small tolerance keeps a rounding error from forbidding the last intervention
  that the budget allows.
  """
  return total <= budget * (1 + _SLACK)


def affordable(problem: types.Problem, spent: jax.Array) -> jax.Array:
  """Returns the sets that the remaining budget affords.

  Args:
    problem: the problem that defines the sets, their costs and the budget.
    spent: [] cost of all interventions so far.

  Returns:
    [M, D] bool: `problem.sets`, with an empty row for each set that costs more
    than the remaining budget.
  """
  total = spent + problem.sets @ problem.cost
  return problem.sets & is_within_budget(problem.budget, total)[:, None]


def is_exhausted(problem: types.Problem, spent: jax.Array) -> jax.Array:
  """Returns whether the rest of the budget affords no set: the episode is over.

  Args:
    problem: the problem that defines the sets, their costs and the budget.
    spent: [] cost of all interventions so far.

  Returns:
    [] bool.
  """
  return ~affordable(problem, spent).any()


def contain(sets: jax.Array, chosen: jax.Array) -> jax.Array:
  """Returns whether sets contain all chosen variables: [M] bool.

  Args:
    sets: [M, D] bool.
    chosen: [D] bool.
  """
  # Variable by variable: where nothing is chosen yet, `chosen` is a constant,
  # and XLA takes seconds to compute a reduction of constants when it compiles.
  each = jnp.unstack(sets | ~chosen, axis=-1)
  return functools.reduce(jnp.logical_and, each)


def may_add(sets: jax.Array, chosen: jax.Array) -> jax.Array:
  """Returns the variables that may be added to the chosen ones.

  A variable may be added if some allowed set contains it and all chosen ones.

  Args:
    sets: [M, D] bool, the allowed sets.
    chosen: [D] bool, the variables chosen so far.

  Returns:
    [D] bool.
  """
  return (sets & contain(sets, chosen)[:, None]).any(0) & ~chosen


def may_stop(sets: jax.Array, chosen: jax.Array) -> jax.Array:
  """Returns whether the chosen variables form an allowed set: [] bool."""
  return (sets == chosen).all(-1).any() & chosen.any()
