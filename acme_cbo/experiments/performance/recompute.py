"""The same policy without what makes it fast, as the oracle of its tests.

Every decision encodes the whole history anew, as the published amortised
designs do, and nothing is shared within a group.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from acme_cbo import types
from acme_cbo.environments import normalization
from acme_cbo.networks import base
from acme_cbo.networks import tokens


class Bare(NamedTuple):
  """A prefix in which nothing is encoded.

  Attributes:
    units: as of any prefix.
    observations: [N, D] themselves.
  """

  units: normalization.Normalization
  observations: jax.Array


def recomputing(network: base.Network) -> base.Network:
  """The same network, but every decision encodes all rows again.

  Args:
    network: its functions.

  Returns:
    A `Network` to act and to learn with. Its prefix is `Bare` and its cache are
    the rows of the episode, at full length, as a compiled loop needs them.
  """

  def bare(params, problem, observations) -> Any:
    return Bare(
      network.prefix(params, problem, observations).units, observations
    )

  def encoded(params, problem, bare, rows, position):
    # Each decision encodes the observations for itself: they are made to depend
    # on it, or `vmap` would encode them once for all of them.
    own = bare.observations + 0 * rows.values[position]
    prefix = network.prefix(params, problem, own)
    return base.select_rows(
      network.full(params, problem, prefix, rows), position
    )

  def append(params, problem, bare, rows, position, row):
    rows = jax.tree.map(
      lambda all_rows, new: jax.lax.dynamic_update_slice_in_dim(
        all_rows, new, position, 0
      ),
      rows,
      row,
    )
    return encoded(params, problem, bare, rows, position), rows

  def full(params, problem, bare, rows):
    every = jax.vmap(encoded, (None, None, None, None, 0))(
      params, problem, bare, rows, jnp.arange(rows.start.size)
    )
    # What was tried is no encoding: it is the same after every row.
    return every._replace(
      history=jax.tree.map(lambda leaf: leaf[0], every.history)
    )

  def with_prefix(said):
    def says(params, problem, bare, encoding, partial):
      prefix = network.prefix(params, problem, bare.observations)
      return said(params, problem, prefix, encoding, partial)

    return says

  def empty_cache(num_rows, num_variables):
    return jax.tree.map(
      lambda leaf: jnp.zeros((num_rows, *leaf.shape[1:]), leaf.dtype),
      tokens.start_row(num_variables),
    )

  return network._replace(
    prefix=bare,
    append=append,
    full=full,
    action_head=with_prefix(network.action_head),
    predict=with_prefix(network.predict),
    empty_cache=empty_cache,
  )


def ungroup(
  tasks: types.Task, observations, trajectories: types.Trajectory
) -> tuple[types.Task, Any, types.Trajectory]:
  """B groups of G rollouts as B G groups of one: nothing is shared."""
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
