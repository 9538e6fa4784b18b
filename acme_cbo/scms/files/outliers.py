"""Outliers of measured values: typing errors and codes for missing ones."""

import math

import numpy as np

# Values are outliers where a gap separates them from all others that is wider
# than the range of these by this factor. Even heavy tails have no such gap.
_MIN_GAP = 5.0
_MAX_OUTLIER_SHARE = 0.1
# Usual codes for missing values, of either sign; they may be more.
MISSING_CODES = 99.0, 999.0, 9999.0, 99999.0, 999999.0
_MAX_MISSING_SHARE = 0.5


def find(values: np.ndarray) -> np.ndarray:
  """Finds values far from all others, such as typing errors and -999.

  Args:
    values: [N] values of a variable.

  Returns:
    [N] bool.
  """
  distances = np.abs(values - np.median(values))
  ordered = np.sort(distances)
  is_edge = np.diff(ordered) > _MIN_GAP * 2 * ordered[:-1]
  # Most values are alike or near each other, and are no outliers.
  is_edge &= ordered[:-1] > 0
  farthest = values[distances == ordered[-1]]
  is_code = np.isin(np.abs(farthest), MISSING_CODES).all()
  share = _MAX_MISSING_SHARE if is_code else _MAX_OUTLIER_SHARE
  is_edge[: math.ceil((1 - share) * len(values)) - 1] = False
  if not is_edge.any():
    return np.zeros(len(values), bool)
  return distances > ordered[np.argmax(is_edge)]
