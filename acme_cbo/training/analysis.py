"""Statistics of noisy training curves: improvement, trend and convergence.

Values are averaged over blocks first, so that confidence intervals hold for
autocorrelated curves, as those of a training are.
"""

import functools
import math
from typing import NamedTuple

import numpy as np
import scipy.stats

# Smallest number of values that a whole curve needs.
MIN_VALUES = 10
_NUM_BLOCKS = 20
# Fraction of a curve at either end whose means are compared.
_TENTH = 0.1
# Half width of the smoothing window, as a fraction of the curve.
_SMOOTHING = 0.05


class Estimate(NamedTuple):
  """Estimate with a confidence interval.

  Attributes:
    mean: point estimate.
    low: lower end of the interval.
    high: upper end of the interval.
  """

  mean: float
  low: float
  high: float


class Analysis(NamedTuple):
  """Statistics of a whole curve.

  Attributes:
    improvement: mean of the last tenth minus mean of the first tenth.
    trend: change over the second half, from its start to its end.
    converged_at: number of values after which `has_converged` first held,
      tested every twentieth of a window; None if it never did.
    noise: standard deviation around the smoothed curve.
    largest_fall: largest fall of the smoothed curve below its running maximum.
  """

  improvement: Estimate
  trend: Estimate
  converged_at: int | None
  noise: float
  largest_fall: float


def estimate_change(values: np.ndarray, confidence: float) -> Estimate:
  """Estimates the change of a curve from its start to its end.

  Args:
    values: [n] curve; fewer than 40 values give an infinite interval. The
      oldest values are left out if n is not a multiple of 20, the number of
      blocks.
    confidence: confidence level of the interval.

  Returns:
    Slope of a straight line through the means of the blocks, times the length
    of the curve, with Student's t interval.

  Raises:
    FloatingPointError: a value is not finite.
  """
  values = _require_finite(values)
  if len(values) < 2 * _NUM_BLOCKS:
    return Estimate(0.0, -math.inf, math.inf)
  size = len(values) // _NUM_BLOCKS
  blocks = values[-size * _NUM_BLOCKS :].reshape(_NUM_BLOCKS, size).mean(1)
  position = (
    size * (np.arange(_NUM_BLOCKS) - (_NUM_BLOCKS - 1) / 2) / len(values)
  )
  spread = position @ position
  slope = float(position @ blocks / spread)
  residuals = blocks - blocks.mean() - slope * position
  error = math.sqrt(residuals @ residuals / (_NUM_BLOCKS - 2) / spread)
  half = error * _t_quantile(confidence)
  return Estimate(slope, slope - half, slope + half)


def has_converged(
  values: np.ndarray, window: int, tolerance: float, confidence: float = 0.999
) -> bool:
  """Returns whether a curve has stopped changing.

  It has if the confidence interval of its change over `window` values lies
  within the tolerance on both sides. The change is estimated from the second
  half of the curve or from `window` values, whichever is longer. A curve that
  falls has not converged, nor has one that is too noisy to decide. If the test
  is repeated throughout a run, the probability of one false positive is about
  ten times `1 - confidence`.

  Args:
    values: [n] curve so far.
    window: number of values over which the change is measured, at least 40.
    tolerance: largest change over a window that counts as converged.
    confidence: confidence level of the interval.

  Returns:
    Whether the curve has converged.

  Raises:
    FloatingPointError: a value is not finite.
  """
  if window < 2 * _NUM_BLOCKS:
    raise ValueError(
      f'window is {window}; it must be at least {2 * _NUM_BLOCKS}, for an '
      'interval of the change'
    )
  values = _require_finite(values)
  if len(values) < window:
    return False
  span = max(window, len(values) // 2)
  estimate = estimate_change(values[-span:], confidence)
  scale = window / span
  return scale * estimate.low > -tolerance and scale * estimate.high < tolerance


def is_check_due(num_values: int, window: int) -> bool:
  """Returns whether to test for convergence after so many values of a run.

  Args:
    num_values: number of values so far.
    window: window of `has_converged`.
  """
  return num_values % max(1, window // _NUM_BLOCKS) == 0


def analyze(
  values: np.ndarray, confidence: float, window: int, tolerance: float
) -> Analysis:
  """Computes the statistics of a whole curve.

  Args:
    values: [n] curve of at least 10 values.
    confidence: confidence level of the intervals.
    window: window of `has_converged`, for `converged_at`.
    tolerance: tolerance of `has_converged`, for `converged_at`.

  Returns:
    The `Analysis`.

  Raises:
    FloatingPointError: a value is not finite.
    ValueError: there are fewer than 10 values.
  """
  values = _require_finite(values)
  if len(values) < MIN_VALUES:
    raise ValueError(
      f'the curve has {len(values)} values; an analysis needs {MIN_VALUES}'
    )
  tenth = max(2, round(_TENTH * len(values)))
  first, last = values[:tenth], values[-tenth:]
  smoothed = smooth(values)
  converged = (
    n
    for n in range(window, len(values) + 1)
    if is_check_due(n, window) and has_converged(values[:n], window, tolerance)
  )
  return Analysis(
    improvement=_difference(first, last, confidence),
    trend=estimate_change(values[len(values) // 2 :], confidence),
    converged_at=next(converged, None),
    noise=float(np.std(values - smoothed)),
    largest_fall=float((np.maximum.accumulate(smoothed) - smoothed).max()),
  )


def _difference(
  first: np.ndarray, last: np.ndarray, confidence: float
) -> Estimate:
  """Estimates the difference of two means, with Welch's t interval."""
  mean = float(last.mean() - first.mean())
  squares = [x.var(ddof=1) / len(x) for x in (first, last)]
  if not sum(squares):
    return Estimate(mean, mean, mean)
  degrees = sum(squares) ** 2 / sum(
    s**2 / (len(x) - 1) for s, x in zip(squares, (first, last), strict=True)
  )
  quantile = scipy.stats.t.ppf((1 + confidence) / 2, degrees)
  half = float(quantile * math.sqrt(sum(squares)))
  return Estimate(mean, mean - half, mean + half)


def smooth(values: np.ndarray) -> np.ndarray:
  """Returns means over a window around each value, shorter at the ends.

  Args:
    values: [n] curve.

  Returns:
    [n] smoothed curve.
  """
  reach = max(1, round(_SMOOTHING * len(values)))
  sums = np.concatenate([[0.0], np.cumsum(values)])
  index = np.arange(len(values))
  start = np.maximum(index - reach, 0)
  end = np.minimum(index + reach + 1, len(values))
  return (sums[end] - sums[start]) / (end - start)


@functools.cache
def _t_quantile(confidence: float) -> float:
  """Returns the quantile of Student's t for a line through the blocks."""
  return float(scipy.stats.t.ppf((1 + confidence) / 2, _NUM_BLOCKS - 2))


def _require_finite(values: np.ndarray) -> np.ndarray:
  values = np.asarray(values, float)
  non_finite = np.flatnonzero(~np.isfinite(values))
  if non_finite.size:
    raise FloatingPointError(
      f'value {non_finite[0]} of {values.size} is {values[non_finite[0]]}; a '
      'curve has to be finite'
    )
  return values
