"""Distribution of the target under an intervention: a mixture of normals.

It is a distribution of the normalized target, more is better, see
`normalization.asinh_normalize`. The components share their means between the
expected target E[Y | do] and one more outcome, whose components are wider by
their noise.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from acme_cbo.environments import normalization

# Halvings of the interval that a quantile is in.
_NUM_HALVINGS = 40


class Mixture(NamedTuple):
  """Mixture of normal distributions.

  Attributes:
    log_weights: [..., K] logarithms of the weights of the components.
    means: [..., K] means of the components.
    deviations: [..., K] standard deviations of the components, positive.
  """

  log_weights: jax.Array
  means: jax.Array
  deviations: jax.Array


class OutcomeDistribution(NamedTuple):
  """Prediction of the target under an intervention.

  Attributes:
    expected: distribution of the normalized E[Y | do].
    outcome: distribution of the normalized target in one more outcome.
    units: normalization of the target, of [] arrays; its scale is negative
      where less is better.
  """

  expected: Mixture
  outcome: Mixture
  units: normalization.Normalization


def log_density(mixture: Mixture, value: jax.Array) -> jax.Array:
  """Returns the log density of a mixture at a value: [...]."""
  standardized = (value[..., None] - mixture.means) / mixture.deviations
  logs = jax.scipy.stats.norm.logpdf(standardized) - jnp.log(mixture.deviations)
  return jax.nn.logsumexp(mixture.log_weights + logs, axis=-1)


def cdf(mixture: Mixture, value: jax.Array) -> jax.Array:
  """Returns the probability of at most a value: [...]."""
  standardized = (value[..., None] - mixture.means) / mixture.deviations
  below = jax.scipy.stats.norm.cdf(standardized)
  return (jnp.exp(mixture.log_weights) * below).sum(-1)


def quantile(mixture: Mixture, level: jax.Array) -> jax.Array:
  """Returns the value that a mixture is below with a probability: [...].

  Args:
    mixture: the mixture.
    level: [...] probabilities in (0, 1).
  """
  reach = jax.scipy.stats.norm.ppf(level)[..., None] * mixture.deviations
  ends = mixture.means + reach
  # Where all components are below with at most the probability, so is the
  # mixture, and the other way round.
  low, high = ends.min(-1), ends.max(-1)

  def halve(_, interval):
    low, high = interval
    middle = (low + high) / 2
    is_below = cdf(mixture, middle) < level
    return jnp.where(is_below, middle, low), jnp.where(is_below, high, middle)

  low, high = jax.lax.fori_loop(0, _NUM_HALVINGS, halve, (low, high))
  return (low + high) / 2


def mean(mixture: Mixture) -> jax.Array:
  """Returns the mean of the target that a mixture is of, standardized: [...].

  The mixture is of the normalized target. That of its inverse, a hyperbolic
  sine, has a closed form.
  """
  bend = normalization.ASINH_BEND
  squares = jnp.square(mixture.deviations / bend) / 2
  of_components = bend * jnp.sinh(mixture.means / bend) * jnp.exp(squares)
  return (jnp.exp(mixture.log_weights) * of_components).sum(-1)
