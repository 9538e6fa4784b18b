"""Numbers with as many digits as people can use."""

import math

import numpy as np

# Share of a range that is worth a digit, of data and of estimates.
_SHARE = 1e-3
_ESTIMATE_SHARE = 0.05
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


def cost(value: float) -> str:
  """Returns a cost, or a sum of costs, without the rounding of the sum."""
  return exact(round(value, _MAX_DECIMALS) + 0.0)


def of_range(value: float, width: float) -> str:
  """Returns a number rounded to about a thousandth of a range.

  Args:
    value: the number.
    width: width of the range that it belongs to.
  """
  text = _rounded(value, width, _SHARE, min_decimals=0)
  if '.' not in text or 'e' in text:
    return text
  return text.rstrip('0').rstrip('.')


def estimate(value: float, width: float) -> str:
  """Returns an estimate rounded to about a twentieth of its interval.

  Args:
    value: the estimate, or an end of the interval.
    width: width of the interval.
  """
  return _rounded(value, width, _ESTIMATE_SHARE)


def _rounded(
  value: float, width: float, share: float, min_decimals: int = -_MAX_DECIMALS
) -> str:
  if not 0 < width < math.inf or not math.isfinite(value):
    return f'{value:.6g}'
  if width < _SMALL:
    return f'{value:.4g}'
  decimals = max(min_decimals, -math.floor(math.log10(width * share)))
  if abs(value) >= 1e15 or decimals > _MAX_DECIMALS:
    return f'{value:.12g}'
  # No zero has a sign.
  return f'{round(value, decimals) + 0.0:.{max(0, decimals)}f}'
