from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from acme_cbo.scms import sampling
from tests.support import chance

_NUM = 20000


def _levels(seed=0):
  drawn = sampling.levels(
    jax.random.PRNGKey(seed), {'a': (_NUM,), 'b': (_NUM,)}
  )
  return drawn['a'], drawn['b']


class LevelsTest(absltest.TestCase):
  def test_shapes(self):
    shapes = {'scalar': (), 'matrix': (2, 3), 'none': (0,), 'row': (4,)}
    drawn = sampling.levels(jax.random.PRNGKey(0), shapes)
    self.assertEqual({name: x.shape for name, x in drawn.items()}, shapes)
    every = np.concatenate([np.ravel(x) for x in drawn.values()])
    self.assertLen(np.unique(every), 11)  # None is used twice.

  def test_uniform_and_independent(self):
    a, b = _levels()
    for x in (np.asarray(a), np.asarray(b)):
      self.assertGreater(stats.kstest(x, 'uniform').pvalue, chance.LEAST_P)
      self.assertTrue(((x >= 0) & (x < 1)).all())
    self.assertLess(abs(np.corrcoef(a, b)[0, 1]), chance.SIGMAS / np.sqrt(_NUM))


class QuantilesTest(parameterized.TestCase):
  @parameterized.parameters(
    (sampling.normal, stats.norm),
    (sampling.gumbel, stats.gumbel_r),
    (sampling.centered, stats.uniform(-1, 2)),
    (lambda level: sampling.between(level, 2.0, 5.0), stats.uniform(2, 3)),
  )
  def test_matches_the_distribution(self, quantile, distribution):
    level = jnp.linspace(0.01, 0.99, 99)
    np.testing.assert_allclose(
      quantile(level), distribution.ppf(np.asarray(level)), rtol=1e-4, atol=1e-5
    )

  def test_finite_at_the_ends(self):
    ends = jnp.array([0, 1 - 2**-24], jnp.float32)
    self.assertTrue(np.isfinite(sampling.normal(ends)).all())
    self.assertEqual(sampling.gumbel(ends)[0], -np.inf)
    self.assertTrue(np.isfinite(sampling.gumbel(ends)[1]))

  def test_sign(self):
    drawn = np.asarray(sampling.sign(_levels()[0]))
    self.assertEqual(set(drawn.tolist()), {-1.0, 1.0})
    self.assertLess(abs(drawn.mean()), chance.SIGMAS / np.sqrt(_NUM))


class CategoryTest(absltest.TestCase):
  def test_frequencies_match_the_weights(self):
    weights = (0.0, 3.0, 0.0, 1.0, 4.0, 0.0)
    drawn = np.asarray(sampling.category(_levels()[0], weights))
    share = np.bincount(drawn, minlength=6) / _NUM
    np.testing.assert_array_equal(share[[0, 2, 5]], 0)
    expected = np.array(weights) / 8
    error = np.sqrt(expected * (1 - expected) / _NUM)
    bound = chance.SIGMAS * error + 1e-12
    np.testing.assert_array_less(np.abs(share - expected), bound)

  def test_highest_level_is_a_valid_index(self):
    level = jnp.array([0.0, 1 - 2**-24], jnp.float32)
    drawn = sampling.category(level, (0.0, 0.1, 0.1, 0.1, 0.0))
    self.assertEqual(drawn.tolist(), [1, 3])


if __name__ == '__main__':
  absltest.main()
