"""What the machine can do: the ceilings that programs are measured against."""

from collections.abc import Callable
import os
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

# Of the square matrices whose product is the ceiling.
_SIDE = 2048
# Of the array that is read and written: beyond the caches.
_ELEMENTS = 2**26


class Ceiling(NamedTuple):
  """A program that does one thing only.

  Attributes:
    run: it.
    amount: what it does: floating-point operations, or bytes read and written.
  """

  run: Callable[[], Any]
  amount: float


def matrix_product() -> Ceiling:
  """A product of two large matrices of float32: operations."""
  key = jax.random.PRNGKey(0)
  left, right = jax.random.normal(key, (2, _SIDE, _SIDE))
  product = jax.jit(jnp.matmul)
  return Ceiling(lambda: product(left, right), 2.0 * _SIDE**3)


def memory() -> Ceiling:
  """An array that does not fit the caches, changed in place: bytes."""
  change = jax.jit(lambda x: x + 1, donate_argnums=0)
  kept = [jnp.zeros(_ELEMENTS)]

  def run():
    kept[0] = change(kept[0])
    return kept[0]

  return Ceiling(run, 2.0 * 4 * _ELEMENTS)


def facts() -> dict[str, Any]:
  """What the figures are of."""
  device = jax.devices()[0]
  return {
    'device': device.device_kind,
    'platform': device.platform,
    'cores': len(os.sched_getaffinity(0)),
    'jax': jax.__version__,
  }
