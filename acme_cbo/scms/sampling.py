"""Many random draws from one call of the random number generator.

Each call of a `jax.random` function costs half a second of compilation on a
CPU, and the prior needs about thirty. Here one call draws the levels of all of
them, uniform in [0, 1), and quantile functions turn levels into samples of the
required distributions.
"""

from collections.abc import Mapping
import math

import jax
import jax.numpy as jnp

# Quantile functions may be infinite at 0 and 1.
_EDGE = 1e-6


def levels(
  key: jax.Array, shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, jax.Array]:
  """Samples arrays of independent uniform levels in [0, 1).

  Args:
    key: random key, consumed.
    shapes: mapping from name to shape of each array.

  Returns:
    Mapping from name to array.
  """
  sizes = [math.prod(shape) for shape in shapes.values()]
  flat = jax.random.uniform(key, (sum(sizes),))
  arrays = {}
  for (name, shape), size in zip(shapes.items(), sizes, strict=True):
    arrays[name], flat = flat[:size].reshape(shape), flat[size:]
  return arrays


def centered(level: jax.Array) -> jax.Array:
  """Maps levels to a uniform draw in (-1, 1), at least 2e-6 from its ends."""
  return 2 * jnp.clip(level, _EDGE, 1 - _EDGE) - 1


def normal(level: jax.Array) -> jax.Array:
  """Maps levels to a standard normal draw, truncated at 4.8 deviations."""
  return jnp.sqrt(2.0) * jax.lax.erf_inv(centered(level))


def gumbel(level: jax.Array) -> jax.Array:
  """Maps levels to a standard Gumbel draw; minus infinity at level 0.

  The argmax of log probabilities plus independent Gumbel draws is a sample from
  the categorical distribution (the Gumbel-max trick).
  """
  return -jnp.log(-jnp.log(level))


def between(level: jax.Array, low, high) -> jax.Array:
  """Maps levels to a uniform draw from `low` to `high`."""
  return low + (high - low) * level


def sign(level: jax.Array) -> jax.Array:
  """Maps levels to -1.0 or 1.0, each with probability one half."""
  return jnp.where(level < 0.5, -1.0, 1.0)


def category(level: jax.Array, weights: tuple[float, ...]) -> jax.Array:
  """Maps levels to indices drawn with probability proportional to a weight.

  Args:
    level: uniform levels, of any shape.
    weights: nonnegative weight of each index, not all 0.

  Returns:
    int32 indices of the shape of `level`; never an index of weight 0.
  """
  total = jnp.cumsum(jnp.array(weights, jnp.float32))
  passed = level[..., None] * total[-1] >= total
  last = max(i for i, weight in enumerate(weights) if weight > 0)
  return jnp.minimum(passed.sum(-1), last).astype(jnp.int32)
