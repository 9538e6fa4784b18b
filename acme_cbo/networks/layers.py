"""Layers of the transformer."""

import math
from typing import NamedTuple

import haiku as hk
import jax
from jax import flatten_util
import jax.numpy as jnp

# Hidden units of what is said of a candidate.
_HIDDEN = 32
# Standard deviation of a standard normal variable between -2 and 2.
_DEVIATION_WITHIN_TWO = 0.87962566


class Candidate(NamedTuple):
  """From a token and features of a candidate to an outcome and a correction."""

  token: hk.Linear
  features: hk.Linear
  outcome: hk.Linear
  correction: hk.Linear

  @classmethod
  def make(cls, name):
    """Creates the layers under a prefix of their names."""
    return cls(
      token=linear(f'{name}_token', _HIDDEN),
      features=linear(f'{name}_features', _HIDDEN),
      outcome=linear(f'{name}_outcome', 1),
      correction=linear(f'{name}_correction', 1, scale=0.1),
    )

  def __call__(self, token, features):
    """Returns [..., 2] the outcome and the correction of each candidate."""
    hidden = jax.nn.relu(self.token(token) + self.features(features))
    return jnp.concatenate([self.outcome(hidden), self.correction(hidden)], -1)


class Attention(NamedTuple):
  """Multi-query attention along one axis."""

  norm: hk.LayerNorm
  project: hk.Linear
  merge: hk.Linear

  @classmethod
  def make(cls, name, width, num_heads):
    """Creates the layers under a prefix of their names."""
    return cls(
      norm=norm(f'{name}norm'),
      project=linear(f'{name}_project', width + 2 * (width // num_heads)),
      merge=linear(f'{name}_merge', width),
    )


class Block(NamedTuple):
  """Attention across variables, then across rows, then an MLP."""

  across_variables: Attention
  across_rows: Attention
  mlp_norm: hk.LayerNorm
  mlp_in: hk.Linear
  mlp_out: hk.Linear


def few_rows_times_matrix(rows, matrix):
  """`rows @ matrix`, [..., Q, M] and [..., M, K], for a small Q.

  Written out as a sum of M outer products, which the compiler fuses into one
  vectorised loop: on a CPU thousands of products of a few rows are slower.
  """
  return sum(
    rows[..., m : m + 1] * matrix[..., m : m + 1, :]
    for m in range(matrix.shape[-2])
  )


class _Norm(hk.Module):
  """`hk.LayerNorm`, its means as products, which are quicker than sums."""

  def __call__(self, x):
    width = x.shape[-1]
    scale = hk.get_parameter('scale', [width], init=jnp.ones)
    offset = hk.get_parameter('offset', [width], init=jnp.zeros)
    mean = jnp.full((width, 1), 1 / width, x.dtype)
    centred = x - x @ mean
    deviation = jax.lax.rsqrt(jnp.square(centred) @ mean + 1e-5)
    return scale * deviation * centred + offset


def norm(name):
  """Returns a layer norm over the last axis."""
  return _Norm(name)


def linear(name, size, scale=1.0):
  """Returns a linear layer whose weights are drawn by `drawn`."""

  def deviation(shape, dtype):
    # Of what `drawn` draws.
    return jnp.full(shape, scale / math.sqrt(shape[0]), dtype)

  return hk.Linear(size, w_init=deviation, name=name)


def drawn(key: jax.Array, params: hk.Params) -> hk.Params:
  """Parameters to begin with, from the deviations of the weights.

  All weights are drawn at once, normal within two deviations: one by one they
  would make a program of as many loops as that of the actor.
  """
  weights, others = hk.data_structures.partition(
    lambda module, name, value: name == 'w', params
  )
  deviations, unravel = flatten_util.ravel_pytree(weights)
  draws = jax.random.truncated_normal(key, -2.0, 2.0, deviations.shape)
  return hk.data_structures.merge(
    others, unravel(deviations * draws / _DEVIATION_WITHIN_TWO)
  )
