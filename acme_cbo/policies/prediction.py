"""Predictions of the target under interventions, in the target's own units."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from acme_cbo.environments import normalization
from acme_cbo.networks import outcome_distribution

# Number of equally likely values that stand for a distribution, Q, and the
# levels that they are the quantiles at.
NUM_VALUES = 100
LEVELS = (np.arange(NUM_VALUES) + 0.5) / NUM_VALUES
# Probability of the intervals.
COVERAGE = 0.9


class Estimate(NamedTuple):
  """Prediction of the target under an intervention, as numbers.

  Attributes:
    mean: expected target.
    interval: interval of the expected target, of the probability `COVERAGE`.
    outcome_interval: the same of the next outcome.
  """

  mean: float
  interval: tuple[float, float]
  outcome_interval: tuple[float, float]


class Prediction(NamedTuple):
  """Prediction of the target under an intervention, as distributions.

  A distribution is given by Q equally likely values in ascending order, its
  quantiles at `LEVELS`. Arrays may have leading axes, with an entry for
  each of several interventions.

  Attributes:
    mean: [...] expected target.
    expected: [..., Q] belief about E[Y | do].
    outcome: [..., Q] distribution of the target in one more outcome.
  """

  mean: Any
  expected: Any
  outcome: Any

  @property
  def interval(self) -> tuple[Any, Any]:
    """Interval of E[Y | do] of the probability `COVERAGE`: two [...]."""
    return _interval(self.expected)

  @property
  def outcome_interval(self) -> tuple[Any, Any]:
    """Interval of the next outcome of the probability `COVERAGE`: two [...]."""
    return _interval(self.outcome)

  @property
  def estimate(self) -> Estimate:
    """Mean and intervals, of a prediction without leading axes."""
    ends = self.interval, self.outcome_interval
    return Estimate(
      float(self.mean), *((float(low), float(high)) for low, high in ends)
    )

  def contains(self, expected: Any) -> Any:
    """Returns whether the interval of E[Y | do] contains its value: [...]."""
    low, high = self.interval
    return (low <= expected) & (expected <= high)

  def crps(self, expected: Any) -> Any:
    """Returns the continuous ranked probability score of E[Y | do]: [...].

    It is `E|X - y| - E|X - X'| / 2`, a proper score; less is better (Gneiting
    and Raftery, "Strictly Proper Scoring Rules, Prediction, and Estimation",
    2007, equation 21).

    Args:
      expected: [...] true value.
    """
    # Of sorted values, the mean of |X - X'| is a weighted sum of them.
    weights = (4 * LEVELS - 2) / NUM_VALUES
    to_value = abs(self.expected - expected[..., None]).mean(-1)
    return to_value - (weights * self.expected).sum(-1) / 2

  def probability_above(self, other: Prediction) -> Any:
    """Returns the probability that E[Y | do] is above another one: [...].

    Both are taken as independent.

    Args:
      other: prediction under another intervention.
    """
    above = self.expected[..., None] > other.expected[..., None, :]
    return above.mean((-2, -1))


def from_distribution(
  predicted: outcome_distribution.OutcomeDistribution,
) -> Prediction:
  """Returns what a network predicts, in the target's own units.

  Args:
    predicted: its output, without leading axes.
  """

  def values(mixture):
    normalized = jax.vmap(outcome_distribution.quantile, (None, 0))(
      mixture, jnp.asarray(LEVELS, mixture.means.dtype)
    )
    return jnp.sort(
      normalization.from_asinh_normalized(predicted.units, normalized)
    )

  mean = outcome_distribution.mean(predicted.expected)
  return Prediction(
    predicted.units.location + predicted.units.scale * mean,
    values(predicted.expected),
    values(predicted.outcome),
  )


def _interval(values):
  """Returns the ends of the central interval."""
  # Between two of the levels.
  position = NUM_VALUES * (1 - COVERAGE) / 2 - 0.5
  index = int(position)
  share = position - index
  low, high = (
    (1 - share) * values[..., outer] + share * values[..., inner]
    for outer, inner in ((index, index + 1), (-1 - index, -2 - index))
  )
  return low, high
