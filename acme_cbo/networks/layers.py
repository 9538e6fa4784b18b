"""Layers of the transformer."""

import math
from typing import NamedTuple

import haiku as hk
import jax
from jax import flatten_util
import jax.numpy as jnp

# Hidden units of `Candidate` and of `PredictionHead`.
_HIDDEN = 32
# Standard deviation of a standard normal variable between -2 and 2.
_DEVIATION_WITHIN_TWO = 0.87962566


class Candidate(NamedTuple):
  """Small MLP that scores candidates.

  It maps a token and the features of a candidate to two numbers: a logit of the
  predicted outcome and a correction of the policy's logit.
  """

  token: hk.Linear
  features: hk.Linear
  outcome: hk.Linear
  correction: hk.Linear

  @classmethod
  def make(cls, name):
    """Creates the layers; `name` is the prefix of their names."""
    return cls(
      token=linear(f'{name}_token', _HIDDEN),
      features=linear(f'{name}_features', _HIDDEN),
      outcome=linear(f'{name}_outcome', 1),
      correction=linear(f'{name}_correction', 1, scale=0.1),
    )

  def __call__(self, token, features):
    """Returns [..., 2], the outcome and the correction of each candidate."""
    hidden = jax.nn.relu(self.token(token) + self.features(features))
    return jnp.concatenate([self.outcome(hidden), self.correction(hidden)], -1)


class PredictionHead(NamedTuple):
  """Small MLP that predicts the outcome of an intervention."""

  token: hk.Linear
  features: hk.Linear
  hidden: hk.Linear
  output: hk.Linear

  @classmethod
  def make(cls, name, num_outputs):
    """Creates the layers; `name` is the prefix of their names."""
    return cls(
      token=linear(f'{name}_token', _HIDDEN),
      features=linear(f'{name}_features', _HIDDEN),
      hidden=linear(f'{name}_hidden', _HIDDEN),
      output=linear(f'{name}_output', num_outputs, scale=0.1),
    )

  def __call__(self, token, features):
    """Returns [..., num_outputs]."""
    hidden = jax.nn.relu(self.token(token) + self.features(features))
    return self.output(jax.nn.relu(self.hidden(hidden)))


class Attention(NamedTuple):
  """Multi-query attention along one axis."""

  norm: hk.LayerNorm
  project: hk.Linear
  merge: hk.Linear

  @classmethod
  def make(cls, name, width, num_heads):
    """Creates the layers; `name` is the prefix of their names."""
    return cls(
      norm=norm(f'{name}_norm'),
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
  """Computes `rows @ matrix`, [..., Q, M] and [..., M, K], for a small Q.

  It is a sum of M outer products, which the compiler fuses into one vectorized
  loop. On a CPU this is faster than thousands of products of a few rows each.
  """
  return sum(
    rows[..., m : m + 1] * matrix[..., m : m + 1, :]
    for m in range(matrix.shape[-2])
  )


class _Norm(hk.Module):
  """Layer norm with its means as matrix products, which are faster than sums.

  Its parameters are those of `hk.LayerNorm`.
  """

  def __call__(self, x):
    width = x.shape[-1]
    scale = hk.get_parameter('scale', [width], init=jnp.ones)
    offset = hk.get_parameter('offset', [width], init=jnp.zeros)
    mean = jnp.full((width, 1), 1 / width, x.dtype)
    centered = x - x @ mean
    deviation = jax.lax.rsqrt(jnp.square(centered) @ mean + 1e-5)
    return scale * deviation * centered + offset


def norm(name):
  """Returns a layer norm over the last axis."""
  return _Norm(name)


def linear(name, size, scale=1.0):
  """Returns a linear layer whose weights `sample_weights` initializes."""

  def deviation(shape, dtype):
    # Not the weight itself: `sample_weights` replaces it by a random one.
    return jnp.full(shape, scale / math.sqrt(shape[0]), dtype)

  return hk.Linear(size, w_init=deviation, name=name)


def sample_weights(key: jax.Array, params: hk.Params) -> hk.Params:
  """Samples the initial parameters.

  Weights are truncated normal, within two standard deviations before scaling.
  All of them are drawn at once: drawn one by one, they would compile to a
  program with as many loops as the actor's.

  Args:
    key: the key is consumed.
    params: parameters in which each weight is its own standard deviation.

  Returns:
    The parameters with random weights; biases, scales and offsets unchanged.
  """
  weights, others = hk.data_structures.partition(
    lambda module, name, value: name == 'w', params
  )
  deviations, unravel = flatten_util.ravel_pytree(weights)
  draws = jax.random.truncated_normal(key, -2.0, 2.0, deviations.shape)
  return hk.data_structures.merge(
    others, unravel(deviations * draws / _DEVIATION_WITHIN_TWO)
  )
