"""Random directed acyclic graphs, padded to a common size.

The functions that build graphs return `parents[j, i]` (i is a direct cause of
j) with the nodes in causal order: the matrix is strictly lower triangular, and
its rows and columns from `size` on are empty.
"""

import enum

import jax
import jax.numpy as jnp

from acme_cbo import types
from acme_cbo.scms import sampling


def target_parents(scm: types.SCM) -> jax.Array:
  """Returns the true parents of the target: [..., D] bool."""
  return (scm.parents & scm.problem.target[..., None]).any(-2)


class Graph(enum.IntEnum):
  """Kinds of random graph."""

  CHAIN = 0
  FORK = 1
  STAR = 2
  ERDOS_RENYI = 3
  SCALE_FREE = 4


def chain(size: jax.Array, num_nodes: int) -> jax.Array:
  """Returns a chain, in which each node causes the next one: [D, D] bool."""
  return _mask_padding(jnp.eye(num_nodes, k=-1, dtype=bool), size)


def fork(size: jax.Array, num_nodes: int) -> jax.Array:
  """Returns a fork, in which the first node causes all others: [D, D] bool."""
  parents = jnp.zeros((num_nodes, num_nodes), bool)
  return _mask_padding(parents.at[1:, 0].set(True), size)


def star(size: jax.Array, num_nodes: int) -> jax.Array:
  """Returns a star, in which all others cause the last node: [D, D] bool."""
  node = jnp.arange(num_nodes)
  hub = (node == size - 1)[:, None]
  return _mask_padding(hub & (node[None] < size - 1), size)


def erdos_renyi(
  key: jax.Array, size: jax.Array, density: jax.Array, num_nodes: int
) -> jax.Array:
  """Samples an Erdos-Renyi graph: each edge has probability `density`.

  Args:
    key: random key, consumed.
    size: [] number of nodes in use.
    density: [] probability of an edge, in [0, 1].
    num_nodes: number of nodes including padding, D.

  Returns:
    [D, D] bool, `parents[j, i]`.
  """
  edges = jax.random.uniform(key, (num_nodes, num_nodes)) < density
  return _mask_padding(jnp.tril(edges, -1), size)


def scale_free(key: jax.Array, size: jax.Array, num_nodes: int) -> jax.Array:
  """Samples a scale-free graph by preferential attachment.

  As in Barabasi and Albert (Science 286, 1999), each node is attached to one or
  two earlier ones with probability proportional to their degree plus one. In
  half of the graphs the hubs are causes, in the other half (the transpose) they
  are effects.

  Args:
    key: random key, consumed.
    size: [] number of nodes in use.
    num_nodes: number of nodes including padding, D.

  Returns:
    [D, D] bool, `parents[j, i]`.
  """
  levels = sampling.levels(
    key, {'links': (), 'attach': (num_nodes, num_nodes), 'flip': ()}
  )
  links = 1 + (levels['links'] < 0.5)
  gumbel = sampling.gumbel(levels['attach'])
  node = jnp.arange(num_nodes)

  def attach(parents, j):
    degree = parents.sum(0) + parents.sum(1)
    earlier = node < j
    score = jnp.where(earlier, jnp.log1p(degree) + gumbel[j], -jnp.inf)
    rank = (score[None] > score[:, None]).sum(1)
    return parents.at[j].set(earlier & (rank < links)), None

  empty = jnp.zeros((num_nodes, num_nodes), bool)
  parents = _mask_padding(jax.lax.scan(attach, empty, node)[0], size)
  # Reversing every edge keeps the matrix triangular if the order of the nodes
  # in use is reversed as well.
  mirror = jnp.where(node < size, size - 1 - node, node)
  flipped = parents.T[mirror][:, mirror]
  return jnp.where(levels['flip'] < 0.5, flipped, parents)


def sample(
  key: jax.Array,
  kind: jax.Array,
  size: jax.Array,
  density: jax.Array,
  num_nodes: int,
) -> jax.Array:
  """Samples a graph of one kind.

  Args:
    key: random key, consumed.
    kind: [] int32, a `Graph`.
    size: [] number of nodes in use.
    density: [] probability of an edge, for Erdos-Renyi graphs.
    num_nodes: number of nodes including padding, D.

  Returns:
    [D, D] bool, `parents[j, i]`.
  """
  candidates = {
    Graph.CHAIN: chain(size, num_nodes),
    Graph.FORK: fork(size, num_nodes),
    Graph.STAR: star(size, num_nodes),
    Graph.ERDOS_RENYI: erdos_renyi(key, size, density, num_nodes),
    Graph.SCALE_FREE: scale_free(key, size, num_nodes),
  }
  return jnp.stack([candidates[graph] for graph in Graph])[kind]


def known_edges(parents: jax.Array, exists: jax.Array) -> jax.Array:
  """Returns all that can be known of the edges among the observed variables.

  Nothing is known of a pair of which one acts on the other through latent
  variables alone: it is a direct cause among the observed ones, and none in the
  graph.

  Args:
    parents: [D, D] bool, in any order of the nodes.
    exists: [D] bool, the observed variables.

  Returns:
    [D, D] as `types.Problem.edges`.
  """
  through = _closure(parents, ~exists)
  is_known = (parents == through) & exists & exists[:, None]
  is_known &= ~jnp.eye(len(parents), dtype=bool)
  return is_known * jnp.where(parents, 1.0, -1.0)


def ancestors(parents: jax.Array) -> jax.Array:
  """Returns the ancestors of all nodes: the transitive closure of a graph.

  Args:
    parents: [D, D] bool, in any order of the nodes.

  Returns:
    [D, D] bool, `[j, i]` is True if a directed path leads from i to j.
  """
  return _closure(parents, jnp.ones(parents.shape[-1], bool))


def _closure(parents, through):
  """Returns which nodes directed paths lead to, through some nodes alone."""
  reach = parents
  # Each round doubles the length of the longest path.
  for _ in range(max(1, (parents.shape[-1] - 1).bit_length())):
    reach = reach | ((reach & through)[:, :, None] & reach[None]).any(1)
  return reach


def _mask_padding(parents, size):
  used = jnp.arange(parents.shape[-1]) < size
  return parents & used[:, None] & used[None]
