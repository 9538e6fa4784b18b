"""Padding of arrays to a few sizes, each of which is compiled once."""

from typing import Any

import numpy as np

from acme_cbo import types

_SMALLEST = 8


def size(number: int, factor: int = 2) -> int:
  """Returns the smallest size of 8, 8 * factor, 8 * factor**2, ... that fits.

  Args:
    number: number of entries.
    factor: ratio of consecutive sizes, at least 2.
  """
  fitting = _SMALLEST
  while fitting < number:
    fitting *= factor
  return fitting


def rows(array: np.ndarray, number: int) -> np.ndarray:
  """Pads the first axis of an array with zeros.

  Args:
    array: [N, ...].
    number: number of rows of the result.
  """
  rest = [(0, 0)] * (array.ndim - 1)
  return np.pad(array, [(0, number - array.shape[0]), *rest])


def columns(array: np.ndarray, number: int) -> np.ndarray:
  """Pads the last axis of an array with zeros.

  Args:
    array: [..., D].
    number: number of columns of the result.
  """
  rest = [(0, 0)] * (array.ndim - 1)
  return np.pad(array, [*rest, (0, number - array.shape[-1])])


def problem(whole: types.Problem) -> types.Problem:
  """Pads the variables and the sets of a problem.

  Args:
    whole: a problem of numpy arrays.
  """
  num_sets, number = map(size, whole.sets.shape)
  changes: dict[str, Any] = {
    name: columns(getattr(whole, name), number)
    for name in ('exists', 'sets', 'target', 'low', 'high', 'cost')
  }
  changes['sets'] = rows(changes['sets'], num_sets)
  if whole.edges is not None:
    changes['edges'] = rows(columns(np.asarray(whole.edges), number), number)
  return whole._replace(**changes)
