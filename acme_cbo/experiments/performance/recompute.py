"""The policy network without its cache: a slow baseline and a test oracle.

Every decision encodes the whole history anew, as the published amortized
designs do, and nothing is shared within a group.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from acme_cbo import types
from acme_cbo.environments import normalization
from acme_cbo.networks import base
from acme_cbo.networks import tokens


class RawPrefix(NamedTuple):
  """Prefix that holds the observations instead of their encoding.

  Attributes:
    units: normalization, as in every prefix.
    observations: [N, D] observations.
  """

  units: normalization.Normalization
  observations: jax.Array


def without_cache(network: base.Network) -> base.Network:
  """Returns the same network, except that every decision encodes all rows.

  Args:
    network: network with a cache.

  Returns:
    A `Network` for acting and learning. Its prefix is a `RawPrefix`, and its
    cache holds the rows of the episode at full length, as a compiled loop needs
    a fixed shape.
  """

  def raw_prefix(params, problem, observations) -> Any:
    return RawPrefix(
      network.prefix(params, problem, observations).units, observations
    )

  def encode(params, problem, raw, rows, position):
    # The observations are made to depend on the row, since `vmap` would
    # otherwise encode them once for all decisions.
    observations = raw.observations + 0 * rows.values[position]
    prefix = network.prefix(params, problem, observations)
    return base.select_rows(
      network.full(params, problem, prefix, rows), position
    )

  def append(params, problem, raw, rows, position, row):
    rows = jax.tree.map(
      lambda all_rows, new: jax.lax.dynamic_update_slice_in_dim(
        all_rows, new, position, 0
      ),
      rows,
      row,
    )
    return encode(params, problem, raw, rows, position), rows

  def full(params, problem, raw, rows):
    every = jax.vmap(encode, (None, None, None, None, 0))(
      params, problem, raw, rows, jnp.arange(rows.start.size)
    )
    # The intervention history is the same after every row.
    return every._replace(
      history=jax.tree.map(lambda leaf: leaf[0], every.history)
    )

  def with_prefix(head):
    def head_with_prefix(params, problem, raw, encoding, partial):
      prefix = network.prefix(params, problem, raw.observations)
      return head(params, problem, prefix, encoding, partial)

    return head_with_prefix

  def empty_cache(num_rows, num_variables):
    return jax.tree.map(
      lambda leaf: jnp.zeros((num_rows, *leaf.shape[1:]), leaf.dtype),
      tokens.start_row(num_variables),
    )

  return network._replace(
    prefix=raw_prefix,
    append=append,
    full=full,
    action_head=with_prefix(network.action_head),
    predict=with_prefix(network.predict),
    empty_cache=empty_cache,
  )


def ungroup(
  tasks: types.Task, observations, trajectories: types.Trajectory
) -> tuple[types.Task, Any, types.Trajectory]:
  """Reshapes B groups of G rollouts to B G groups of one rollout each."""
  num_generations = trajectories.log_prob_cell.shape[1]

  def repeat(leaf):
    return jnp.repeat(leaf, num_generations, axis=0)

  return (
    jax.tree.map(repeat, tasks),
    repeat(observations),
    jax.tree.map(
      lambda leaf: leaf.reshape(-1, 1, *leaf.shape[2:]), trajectories
    ),
  )
