"""Units in which a policy sees the variables, fixed by the observations.

Whatever is computed in them does not change with the origin and the size of a
variable's own units.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from acme_cbo import types


class Units(NamedTuple):
  """Origin and size of the units of each variable.

  Attributes:
    location: [D] mean of the observations.
    scale: [D] their standard deviation, with a floor.
  """

  location: jax.Array
  scale: jax.Array


def fit(problem: types.Problem, observations: jax.Array) -> Units:
  """The units that N observations fix.

  Args:
    problem: whose domains are used.
    observations: [N, D], N at least 2.

  Returns:
    `Units` with positive scales.

  Raises:
    ValueError: there is only one observation.
  """
  if observations.shape[0] < 2:
    raise ValueError(
      f'{observations.shape[0]} observational row(s); a deviation needs 2'
    )
  location = observations.mean(0)
  deviation = (observations - location).std(0)
  # A floor on the deviation that moves with the variable's units.
  deviation = jnp.maximum(deviation, 1e-3 * (problem.high - problem.low))
  return Units(location, jnp.where(deviation > 0, deviation, 1.0))


def bent(units: Units, values: jax.Array) -> jax.Array:
  """Values in units, `3 asinh(z / 3)`: what is near stays, what is far bends.

  Args:
    units: of D variables.
    values: [..., D].

  Returns:
    [..., D].
  """
  return 3 * jnp.arcsinh((values - units.location) / units.scale / 3)
