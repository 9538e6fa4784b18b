import functools

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acme_cbo.scms import graphs
from tests.support import chance

_SIZES = tuple(range(2, 9))
_NUM_NODES = 8
_NUM_GRAPHS = 4000


@jax.jit
def _draw(key, kind, size, density):
  keys = jax.random.split(key, _NUM_GRAPHS)
  return jax.vmap(lambda k: graphs.sample(k, kind, size, density, _NUM_NODES))(
    keys
  )


@functools.cache
def _many(kind, size, density=0.4):
  """Samples [_NUM_GRAPHS, D, D] graphs of one kind."""
  drawn = _draw(
    jax.random.key(size),
    jnp.int32(kind),
    jnp.int32(size),
    jnp.float32(density),
  )
  return np.asarray(drawn)


def _reachable(parents, j):
  """The ancestors of j by walking every path backwards."""
  ancestors = set()
  for i in np.flatnonzero(parents[j]):
    ancestors |= {int(i)} | _reachable(parents, i)
  return ancestors


class ShapesTest(parameterized.TestCase):
  """Three of four nodes are in use; expected graphs are written by hand."""

  def test_chain(self):
    np.testing.assert_array_equal(
      graphs.chain(jnp.int32(3), 4),
      [[0, 0, 0, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]],
    )

  def test_fork(self):
    np.testing.assert_array_equal(
      graphs.fork(jnp.int32(3), 4),
      [[0, 0, 0, 0], [1, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]],
    )

  def test_star(self):
    np.testing.assert_array_equal(
      graphs.star(jnp.int32(3), 4),
      [[0, 0, 0, 0], [0, 0, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0]],
    )

  @parameterized.parameters((0.0, 0), (1.0, 3))
  def test_erdos_renyi_of_certain_edges(self, density, num_edges):
    parents = graphs.erdos_renyi(
      jax.random.key(0), jnp.int32(3), jnp.float32(density), 4
    )
    self.assertEqual(parents.sum(), num_edges)

  @parameterized.product(kind=tuple(graphs.Graph), size=_SIZES)
  def test_is_acyclic_and_padding_is_empty(self, kind, size):
    parents = _many(kind, size)
    self.assertEqual(parents.shape, (_NUM_GRAPHS, _NUM_NODES, _NUM_NODES))
    self.assertEqual(parents.dtype, bool)
    # Strictly lower triangular: no path can return.
    self.assertFalse(np.triu(parents).any())
    self.assertFalse(parents[:, size:].any())
    self.assertFalse(parents[:, :, size:].any())

  @parameterized.parameters(*_SIZES)
  def test_number_of_edges(self, size):
    for kind in (graphs.Graph.CHAIN, graphs.Graph.FORK, graphs.Graph.STAR):
      with self.subTest(kind.name):
        edges = _many(kind, size).sum((1, 2))
        np.testing.assert_array_equal(edges, size - 1)

  def test_sample_returns_the_requested_kind(self):
    size, density = jnp.int32(5), jnp.float32(0.4)
    random = {
      graphs.Graph.ERDOS_RENYI: lambda key: graphs.erdos_renyi(
        key, size, density, _NUM_NODES
      ),
      graphs.Graph.SCALE_FREE: lambda key: graphs.scale_free(
        key, size, _NUM_NODES
      ),
    }
    certain = {
      graphs.Graph.CHAIN: graphs.chain,
      graphs.Graph.FORK: graphs.fork,
      graphs.Graph.STAR: graphs.star,
    }
    self.assertLen(random | certain, len(graphs.Graph))
    keys = jax.random.split(jax.random.key(5), _NUM_GRAPHS)
    for kind, draw in random.items():
      with self.subTest(kind.name):
        expected = jax.jit(jax.vmap(draw))(keys)
        np.testing.assert_array_equal(_many(kind, 5), expected)
    for kind, make in certain.items():
      with self.subTest(kind.name):
        expected = np.tile(make(size, _NUM_NODES), (_NUM_GRAPHS, 1, 1))
        np.testing.assert_array_equal(_many(kind, 5), expected)


class ErdosRenyiTest(parameterized.TestCase):
  @pytest.mark.stat
  def test_every_edge_has_probability_density(self):
    density = 0.3
    parents = _many(graphs.Graph.ERDOS_RENYI, 5, density)
    frequency = parents.mean(0)[np.tril_indices(5, -1)]
    error = np.sqrt(density * (1 - density) / _NUM_GRAPHS)
    self.assertLess(np.abs(frequency - density).max(), chance.SIGMAS * error)
    # Edges are independent: their number has the variance of a binomial, with
    # a relative standard error of sqrt(2 / n).
    edges = parents.sum((1, 2))
    variance = 10 * density * (1 - density)
    self.assertAlmostEqual(
      edges.var() / variance, 1, delta=chance.SIGMAS * np.sqrt(2 / _NUM_GRAPHS)
    )


class ScaleFreeTest(parameterized.TestCase):
  def test_node_is_attached_to_one_or_two_others(self):
    parents = _many(graphs.Graph.SCALE_FREE, 6)[:, :6, :6]
    joins = [np.minimum(np.arange(6), links) for links in (1, 2)]
    causes_are_hubs = [(parents.sum(2) == j).all(1) for j in joins]
    # The transpose: a node has one or two effects, counted from the end.
    effects_are_hubs = [(parents.sum(1) == j[::-1]).all(1) for j in joins]
    shapes = np.array([*causes_are_hubs, *effects_are_hubs])
    np.testing.assert_array_equal(shapes.any(0), True)
    self.assertGreater(shapes.sum(1).min(), _NUM_GRAPHS // 5)

  @pytest.mark.stat
  def test_half_of_the_graphs_are_flipped(self):
    parents = _many(graphs.Graph.SCALE_FREE, 6)
    most_effects = parents.sum(1).max(1)
    most_causes = parents.sum(2).max(1)
    # By symmetry each is the larger one equally often.
    out, in_ = (most_effects > most_causes), (most_effects < most_causes)
    difference = int(out.sum()) - int(in_.sum())
    self.assertLess(abs(difference), chance.SIGMAS * np.sqrt((out | in_).sum()))
    self.assertGreater(in_.sum(), _NUM_GRAPHS // 4)

  @pytest.mark.stat
  def test_hubs_attract(self):
    parents = _many(graphs.Graph.SCALE_FREE, 4)
    edges = parents.sum((1, 2))
    # One link each makes a tree of three edges, two make 1 + 2 + 2.
    np.testing.assert_array_equal(np.unique(edges), [3, 5])
    tree = edges == 3
    self.assertAlmostEqual(
      tree.mean(), 0.5, delta=chance.SIGMAS * 0.5 / np.sqrt(_NUM_GRAPHS)
    )
    # The first three nodes of a tree have degrees 2, 1, 1 in some order, so
    # the last joins the hub with probability 3 / (3 + 2 + 2).
    degree = parents[tree].sum(1) + parents[tree].sum(2)
    star = (degree.max(1) == 3).mean()
    error = np.sqrt(3 / 7 * 4 / 7 / tree.sum())
    self.assertAlmostEqual(star, 3 / 7, delta=chance.SIGMAS * error)


class AncestorsTest(parameterized.TestCase):
  @parameterized.parameters(2, 5, 8, 9)
  def test_longest_path(self, size):
    # Every earlier node of a chain is an ancestor.
    np.testing.assert_array_equal(
      graphs.ancestors(graphs.chain(jnp.int32(size), size)),
      np.tri(size, k=-1),
    )

  @parameterized.parameters(3, 6, 7)
  def test_against_walking_every_path(self, size):
    closure = jax.jit(jax.vmap(graphs.ancestors))
    parents = _many(graphs.Graph.ERDOS_RENYI, size)[:30, :size, :size]
    shuffle = np.random.default_rng(size).permutation(size)
    parents = parents[:, shuffle][:, :, shuffle]
    for graph, reach in zip(parents, closure(parents), strict=True):
      for j in range(size):
        self.assertEqual(
          set(np.flatnonzero(reach[j]).tolist()), _reachable(graph, j)
        )


if __name__ == '__main__':
  absltest.main()
