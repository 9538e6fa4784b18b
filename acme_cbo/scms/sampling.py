"""Many random draws from one call of the generator.

Each call of a `jax.random` function costs half a second of compilation on a
CPU, and the prior needs some thirty: here one call draws the levels of all of
them, uniform in [0, 1), and quantile functions make of a level what is needed.
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
  """Independent uniform draws in [0, 1).

  Args:
    key: consumed.
    shapes: a name and a shape for each array.

  Returns:
    The arrays by their names.
  """
  sizes = [math.prod(shape) for shape in shapes.values()]
  flat = jax.random.uniform(key, (sum(sizes),))
  drawn = {}
  for (name, shape), size in zip(shapes.items(), sizes, strict=True):
    drawn[name], flat = flat[:size].reshape(shape), flat[size:]
  return drawn


def centred(level: jax.Array) -> jax.Array:
  """Uniform in (-1, 1), short of its ends by 2e-6."""
  return 2 * jnp.clip(level, _EDGE, 1 - _EDGE) - 1


def normal(level: jax.Array) -> jax.Array:
  """Standard normal, within 4.8 deviations."""
  return jnp.sqrt(2.0) * jax.lax.erf_inv(centred(level))


def gumbel(level: jax.Array) -> jax.Array:
  """Standard Gumbel; minus infinity at 0.

  The largest of log probabilities, each plus such a draw, is a draw from them
  (the Gumbel-max trick).
  """
  return -jnp.log(-jnp.log(level))


def between(level: jax.Array, low, high) -> jax.Array:
  """Uniform from `low` to `high`."""
  return low + (high - low) * level


def sign(level: jax.Array) -> jax.Array:
  """-1.0 or 1.0, each with probability one half."""
  return jnp.where(level < 0.5, -1.0, 1.0)


def category(level: jax.Array, weights: tuple[float, ...]) -> jax.Array:
  """An index with probability proportional to its weight: int32.

  Args:
    level: of any shape.
    weights: not negative, not all 0.

  Returns:
    Indices, of the shape of `level`; never one of weight 0.
  """
  total = jnp.cumsum(jnp.array(weights, jnp.float32))
  reached = level[..., None] * total[-1] >= total
  last = max(i for i, weight in enumerate(weights) if weight > 0)
  return jnp.minimum(reached.sum(-1), last).astype(jnp.int32)
