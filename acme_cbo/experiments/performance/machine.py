"""Limits of the hardware, to which programs are compared."""

from collections.abc import Callable
import os
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

# Number of rows of the square matrices that are multiplied.
_NUM_ROWS = 2048
# Size of the array that is read and written; it exceeds the caches.
_NUM_ELEMENTS = 2**26


class Ceiling(NamedTuple):
  """Program whose speed is a limit of the hardware.

  Attributes:
    run: function that runs the program once.
    amount: floating-point operations, or bytes read and written, per run.
  """

  run: Callable[[], Any]
  amount: float


def matrix_product() -> Ceiling:
  """Returns a product of two large float32 matrices, with its operations."""
  key = jax.random.PRNGKey(0)
  left, right = jax.random.normal(key, (2, _NUM_ROWS, _NUM_ROWS))
  product = jax.jit(jnp.matmul)
  return Ceiling(lambda: product(left, right), 2.0 * _NUM_ROWS**3)


def memory() -> Ceiling:
  """Returns an in-place update of a large array, with its bytes."""
  increment = jax.jit(lambda x: x + 1, donate_argnums=0)
  state = [jnp.zeros(_NUM_ELEMENTS)]

  def run():
    state[0] = increment(state[0])
    return state[0]

  return Ceiling(run, 2.0 * 4 * _NUM_ELEMENTS)


def describe() -> dict[str, Any]:
  """Returns device, number of cores, and the version of jax."""
  device = jax.devices()[0]
  return {
    'device': device.device_kind,
    'platform': device.platform,
    'cores': len(os.sched_getaffinity(0)),
    'jax': jax.__version__,
  }
