"""Numbers with as many digits as people can use."""

import math

import numpy as np

# Share of a range that is worth a digit.
_SHARE = 1e-3
_MAX_DECIMALS = 12
# Width below which numbers have exponents.
_SMALL = 1e-5


def exact(value: float) -> str:
  """Returns a number with all of its digits, without an exponent if it can."""
  if value and not 1e-6 <= abs(value) < 1e15:
    return f'{value:.15g}'
  return np.format_float_positional(
    float(f'{value:.15g}'), trim='-', fractional=False
  )


def of_range(value: float, width: float) -> str:
  """Returns a number rounded to about a thousandth of a range.

  Args:
    value: the number.
    width: width of the range that it belongs to.
  """
  if not 0 < width < math.inf or not math.isfinite(value):
    return f'{value:.6g}'
  if width < _SMALL:
    return f'{value:.4g}'
  decimals = -math.floor(math.log10(width * _SHARE))
  if abs(value) >= 1e15 or decimals > _MAX_DECIMALS:
    return f'{value:.12g}'
  if decimals <= 0:
    return f'{value:.0f}'
  text = f'{value:.{decimals}f}'.rstrip('0').rstrip('.')
  return '0' if text == '-0' else text
