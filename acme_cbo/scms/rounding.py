"""Differences between numbers that are no more than errors of rounding."""

import numpy as np


def resolution(values: np.ndarray) -> np.ndarray:
  """Returns the largest deviation that rounding alone can explain.

  The computed mean of n equal numbers is off by up to n / 2 roundings of their
  size, and so is their computed deviation from it. It is thus no more than
  rounding if it is below n roundings of the largest number.

  Args:
    values: [n, ...] floating-point numbers.

  Returns:
    [...] bounds, in the units of the numbers.
  """
  values = np.asarray(values)
  return len(values) * np.finfo(values.dtype).eps * np.abs(values).max(0)


def standard_deviation(values: np.ndarray) -> np.ndarray:
  """Returns standard deviations, and exactly 0 for constants.

  Args:
    values: [n, ...] floating-point numbers.

  Returns:
    [...] deviations over the first axis.
  """
  deviation = np.asarray(values).std(0)
  return np.where(deviation > resolution(values), deviation, 0.0)
