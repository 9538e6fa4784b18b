"""Strict conversion of a simulator's answers to arrays of numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

_KINDS = {
  'b': 'truth values',
  'c': 'complex numbers',
  'S': 'texts',
  'U': 'texts',
}
# Types that have no mask.
_PLAIN = (float, int, list)


def to_array(values: Any) -> np.ndarray:
  """Returns real numbers as a float64 array.

  Unlike `np.asarray`, it converts no texts, truth values or complex numbers,
  and ignores no mask.

  Args:
    values: array, nested lists of numbers, or a number.

  Raises:
    ValueError: the values are not real numbers. The message is a noun for what
      they are, such as 'texts'.
  """
  has_dtype = hasattr(values, '__array__')
  rows = values if isinstance(values, list | tuple) else [values]
  # Rows of a list may be masked arrays, whose masks numpy would drop.
  if any(np.ma.is_masked(row) for row in rows if type(row) not in _PLAIN):
    raise ValueError('masked (missing) values')
  try:
    # As objects, the elements of a list keep types that numpy would merge.
    array = np.asarray(values) if has_dtype else np.array(values, object)
  except ValueError as error:
    raise ValueError('rows of different lengths') from error
  if array.dtype != object:
    _check_kind(array.dtype, array.dtype.name)
  else:
    for x in array.reshape(-1):  # `flat` refuses deeply nested lists.
      if type(x) is not float and type(x) is not int:
        _check_element(x)
  try:
    return array.astype(np.float64)
  except OverflowError as error:
    raise ValueError('a number that is too large for 64 bits') from error


def _check_element(value: Any) -> None:
  """Raises unless an element of a list is a real number."""
  if np.ma.is_masked(value):
    raise ValueError('masked (missing) values')
  if isinstance(value, list | tuple) or np.ndim(value):
    raise ValueError('rows of different lengths')
  _check_kind(np.asarray(value).dtype, type(value).__name__)


def _check_kind(dtype: np.dtype, name: str) -> None:
  """Raises unless a dtype is one of real numbers."""
  if dtype.kind not in 'iuf':
    raise ValueError(_KINDS.get(dtype.kind, f'values of type {name}'))
