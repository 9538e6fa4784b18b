"""Random directed acyclic graphs, padded to a common size.

Every function gives `parents[j, i]` (i is a direct cause of j) with the nodes
in causal order: the matrix is strictly lower triangular and its rows and
columns from `size` on are empty.
"""

import enum

import jax
import jax.numpy as jnp

from acme_cbo import types
from acme_cbo.scms import sampling


def target_parents(scm: types.SCM) -> jax.Array:
  """The true parents of the target: [..., D] bool."""
  return (scm.parents & scm.problem.target[..., None]).any(-2)


class Graph(enum.IntEnum):
  """Kinds of graph."""

  CHAIN = 0
  FORK = 1
  STAR = 2
  ERDOS_RENYI = 3
  SCALE_FREE = 4


def chain(size: jax.Array, num_nodes: int) -> jax.Array:
  """Each node is caused by the one before it: [D, D] bool."""
  return _within(jnp.eye(num_nodes, k=-1, dtype=bool), size)


def fork(size: jax.Array, num_nodes: int) -> jax.Array:
  """The first node causes all others: [D, D] bool."""
  parents = jnp.zeros((num_nodes, num_nodes), bool)
  return _within(parents.at[1:, 0].set(True), size)


def star(size: jax.Array, num_nodes: int) -> jax.Array:
  """The last node is caused by all others: [D, D] bool."""
  node = jnp.arange(num_nodes)
  hub = (node == size - 1)[:, None]
  return _within(hub & (node[None] < size - 1), size)


def erdos_renyi(
  key: jax.Array, size: jax.Array, density: jax.Array, num_nodes: int
) -> jax.Array:
  """Each pair is joined with probability `density`: [D, D] bool.

  Args:
    key: consumed.
    size: [] number of nodes in use.
    density: [] probability of an edge, in [0, 1].
    num_nodes: D.

  Returns:
    [D, D] bool.
  """
  joined = jax.random.uniform(key, (num_nodes, num_nodes)) < density
  return _within(jnp.tril(joined, -1), size)


def scale_free(key: jax.Array, size: jax.Array, num_nodes: int) -> jax.Array:
  """Preferential attachment (Barabasi and Albert, Science 286, 1999).

  Each node joins one or two earlier ones with probability proportional to one
  more than their degree. In half of the graphs the hubs are causes, in the
  other half (the transpose) they are effects.

  Args:
    key: consumed.
    size: [] number of nodes in use.
    num_nodes: D.

  Returns:
    [D, D] bool.
  """
  drawn = sampling.levels(
    key, {'links': (), 'attach': (num_nodes, num_nodes), 'flip': ()}
  )
  links = 1 + (drawn['links'] < 0.5)
  gumbel = sampling.gumbel(drawn['attach'])
  node = jnp.arange(num_nodes)

  def attach(parents, j):
    degree = parents.sum(0) + parents.sum(1)
    earlier = node < j
    score = jnp.where(earlier, jnp.log1p(degree) + gumbel[j], -jnp.inf)
    rank = (score[None] > score[:, None]).sum(1)
    return parents.at[j].set(earlier & (rank < links)), None

  empty = jnp.zeros((num_nodes, num_nodes), bool)
  parents = _within(jax.lax.scan(attach, empty, node)[0], size)
  # Reversing every edge keeps the matrix triangular when the order of the
  # nodes in use is reversed as well.
  mirror = jnp.where(node < size, size - 1 - node, node)
  flipped = parents.T[mirror][:, mirror]
  return jnp.where(drawn['flip'] < 0.5, flipped, parents)


def sample(
  key: jax.Array,
  kind: jax.Array,
  size: jax.Array,
  density: jax.Array,
  num_nodes: int,
) -> jax.Array:
  """A graph of the given kind.

  Args:
    key: consumed.
    kind: [] int32, a `Graph`.
    size: [] number of nodes in use.
    density: [] probability of an edge, for Erdos-Renyi graphs.
    num_nodes: D.

  Returns:
    [D, D] bool, `parents[j, i]`.
  """
  kinds = {
    Graph.CHAIN: chain(size, num_nodes),
    Graph.FORK: fork(size, num_nodes),
    Graph.STAR: star(size, num_nodes),
    Graph.ERDOS_RENYI: erdos_renyi(key, size, density, num_nodes),
    Graph.SCALE_FREE: scale_free(key, size, num_nodes),
  }
  return jnp.stack([kinds[graph] for graph in Graph])[kind]


def ancestors(parents: jax.Array) -> jax.Array:
  """The transitive closure.

  Args:
    parents: [D, D] bool, in any order of the nodes.

  Returns:
    [D, D] bool, `[j, i]` where a directed path leads from i to j.
  """
  reach = parents
  for _ in range(max(1, (parents.shape[-1] - 1).bit_length())):
    reach = reach | (reach[:, :, None] & reach[None]).any(1)
  return reach


def _within(parents, size):
  used = jnp.arange(parents.shape[-1]) < size
  return parents & used[:, None] & used[None]
