"""What a noisy curve of a training says: does it rise, and has it arrived?

Values are averaged over blocks first, so that intervals hold where neighbours
are alike, as they are in a training.
"""

import functools
import math
from typing import NamedTuple

import numpy as np
import scipy.stats

# Fewer values say nothing of a whole curve.
MIN_VALUES = 10
_NUM_BLOCKS = 20
# Share of a curve at either end that is compared.
_TENTH = 0.1
# Values behind and ahead over which a curve is smoothed, as a share of it.
_SMOOTHING = 0.05


class Estimate(NamedTuple):
  """A number with its interval.

  Attributes:
    mean: the estimate.
    low: lower end of the interval.
    high: upper end.
  """

  mean: float
  low: float
  high: float


class Analysis(NamedTuple):
  """What a whole curve came to.

  Attributes:
    improvement: mean of the last tenth less that of the first.
    trend: by how much the second half changed, from its start to its end.
    converged_at: number of values after which `has_converged` said so, asked
      every twentieth of a window; None where it never did.
    noise: standard deviation around the smoothed curve.
    largest_fall: of the smoothed curve below what it had reached.
  """

  improvement: Estimate
  trend: Estimate
  converged_at: int | None
  noise: float
  largest_fall: float


def estimate_change(values: np.ndarray, confidence: float) -> Estimate:
  """By how much a stretch of a curve changes from its start to its end.

  Args:
    values: [n], 2 or more for each of 20 blocks for an interval; the oldest are
      left out where they make no whole block.
    confidence: of the interval.

  Returns:
    Slope of a straight line through the means of the blocks, times the length,
    with Student's interval; an infinite one for fewer than 40 values.

  Raises:
    FloatingPointError: a value is not finite.
  """
  values = _finite(values)
  if len(values) < 2 * _NUM_BLOCKS:
    return Estimate(0.0, -math.inf, math.inf)
  size = len(values) // _NUM_BLOCKS
  blocks = values[-size * _NUM_BLOCKS :].reshape(_NUM_BLOCKS, size).mean(1)
  place = size * (np.arange(_NUM_BLOCKS) - (_NUM_BLOCKS - 1) / 2) / len(values)
  spread = place @ place
  slope = float(place @ blocks / spread)
  left = blocks - blocks.mean() - slope * place
  error = math.sqrt(left @ left / (_NUM_BLOCKS - 2) / spread)
  half = error * _quantile(confidence)
  return Estimate(slope, slope - half, slope + half)


def has_converged(
  values: np.ndarray, window: int, tolerance: float, confidence: float = 0.999
) -> bool:
  """Says whether a curve has stopped changing, beyond chance.

  It has where the interval of its change over `window` values, judged by its
  second half or that many values, whichever is more, lies within the tolerance
  on either side: a curve that falls has not converged, nor has one that is too
  noisy to tell. Asked again and again in a run, the chance to be wrong once is
  some ten times `1 - confidence`.

  Args:
    values: [n] so far.
    window: 40 or more.
    tolerance: the change over a window that does not matter.
    confidence: of the interval.

  Returns:
    Whether it has.

  Raises:
    FloatingPointError: a value is not finite.
  """
  if window < 2 * _NUM_BLOCKS:
    raise ValueError(
      f'window is {window}; it must be at least {2 * _NUM_BLOCKS}, for an '
      'interval of the change'
    )
  values = _finite(values)
  if len(values) < window:
    return False
  span = max(window, len(values) // 2)
  estimate = estimate_change(values[-span:], confidence)
  scale = window / span
  return scale * estimate.low > -tolerance and scale * estimate.high < tolerance


def is_check_due(num_values: int, window: int) -> bool:
  """Says whether `has_converged` is asked after so many values of a run."""
  return num_values % max(1, window // _NUM_BLOCKS) == 0


def analyze(
  values: np.ndarray, confidence: float, window: int, tolerance: float
) -> Analysis:
  """Looks back at a whole curve.

  Args:
    values: [n], 10 or more.
    confidence: of the intervals.
    window: over which a change is judged, for `converged_at`.
    tolerance: change over a window that does not matter.

  Returns:
    The `Analysis`.

  Raises:
    FloatingPointError: a value is not finite.
    ValueError: there are fewer than 10 values.
  """
  values = _finite(values)
  if len(values) < MIN_VALUES:
    raise ValueError(
      f'a curve of {len(values)} values says nothing; give {MIN_VALUES}'
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


def _difference(first, last, confidence) -> Estimate:
  """Of two means, with Welch's interval."""
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
  """Means over a window around each value, shorter at the ends: [n] -> [n]."""
  reach = max(1, round(_SMOOTHING * len(values)))
  sums = np.concatenate([[0.0], np.cumsum(values)])
  place = np.arange(len(values))
  start = np.maximum(place - reach, 0)
  end = np.minimum(place + reach + 1, len(values))
  return (sums[end] - sums[start]) / (end - start)


@functools.cache
def _quantile(confidence: float) -> float:
  """Of Student's distribution, for a line through the blocks."""
  return float(scipy.stats.t.ppf((1 + confidence) / 2, _NUM_BLOCKS - 2))


def _finite(values) -> np.ndarray:
  values = np.asarray(values, float)
  lost = np.flatnonzero(~np.isfinite(values))
  if lost.size:
    raise FloatingPointError(
      f'value {lost[0]} of {values.size} is {values[lost[0]]}; a curve has to '
      'be finite'
    )
  return values
