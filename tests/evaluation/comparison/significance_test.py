"""Tests against published examples, statsmodels, and simulated null data."""

from absl.testing import absltest
from absl.testing import parameterized
import numpy as np
import pytest
import scipy.stats
from statsmodels.stats import multitest
from statsmodels.stats import weightstats

from acme_cbo.evaluation.comparison import significance
from tests.support import chance

# Extra hours of sleep of ten patients under two drugs (Student, "The Probable
# Error of a Mean", 1908).
_SLEEP = {
  'second': np.array([1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]),
  'first': np.array([0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]),
}
# Depression scale of nine patients at two visits (Hollander and Wolfe,
# "Nonparametric Statistical Methods", 1973, page 29).
_DEPRESSION = {
  'before': np.array([1.83, 0.50, 1.62, 2.48, 1.68, 1.88, 1.55, 3.06, 1.30]),
  'after': np.array([0.878, 0.647, 0.598, 2.05, 1.06, 1.29, 1.06, 3.14, 1.29]),
}
# Seconds of 22 players who round first base in three ways (ibid., page 140).
_ROUNDING = np.array(
  [
    (5.40, 5.50, 5.55),
    (5.85, 5.70, 5.75),
    (5.20, 5.60, 5.50),
    (5.55, 5.50, 5.40),
    (5.90, 5.85, 5.70),
    (5.45, 5.55, 5.60),
    (5.40, 5.40, 5.35),
    (5.45, 5.50, 5.35),
    (5.25, 5.15, 5.00),
    (5.85, 5.80, 5.70),
    (5.25, 5.20, 5.10),
    (5.65, 5.55, 5.45),
    (5.60, 5.35, 5.45),
    (5.05, 5.00, 4.95),
    (5.50, 5.50, 5.40),
    (5.45, 5.55, 5.50),
    (5.55, 5.55, 5.35),
    (5.45, 5.50, 5.55),
    (5.50, 5.45, 5.25),
    (5.65, 5.60, 5.40),
    (5.70, 5.65, 5.55),
    (6.30, 6.30, 6.25),
  ]
)


def _only_pair(comparison: significance.Comparison) -> significance.Pair:
  (pair,) = comparison.pairs.values()
  return pair


def _sample(mean, deviation, n, seed=0):
  """Returns n values with exactly this mean and standard deviation."""
  drawn = np.random.default_rng(seed).normal(size=n)
  return mean + deviation * (drawn - drawn.mean()) / drawn.std(ddof=1)


class PublishedTest(parameterized.TestCase):
  """Tests against published numbers."""

  def test_students_pairs(self):
    pair = _only_pair(significance.compare(_SLEEP, True, 0.95))
    self.assertAlmostEqual(pair.difference, 1.58)
    # R prints this for these data in `help(t.test)`.
    self.assertAlmostEqual(pair.test.statistic, 4.0621, delta=5e-5)
    self.assertEqual(pair.test.df, (9,))
    self.assertAlmostEqual(pair.test.p, 0.002833, delta=5e-7)
    np.testing.assert_allclose(pair.interval, (0.7001142, 2.4598858), 1e-7)
    self.assertTrue(pair.decided)

  def test_welchs_t(self):
    pair = _only_pair(significance.compare(_SLEEP, False, 0.95))
    self.assertAlmostEqual(pair.test.statistic, 1.8608, delta=5e-5)
    self.assertAlmostEqual(pair.test.df[0], 17.776, delta=5e-4)
    self.assertAlmostEqual(pair.test.p, 0.07939, delta=5e-6)
    np.testing.assert_allclose(pair.interval, (-0.2054832, 3.3654832), 1e-6)
    self.assertFalse(pair.decided)

  def test_wilcoxon(self):
    pair = _only_pair(significance.compare(_DEPRESSION, True, 0.95))
    # V = 40 of 45, and .01953 one-sided.
    self.assertEqual(pair.ranks.statistic, 45 - 40)
    self.assertAlmostEqual(pair.ranks.p, 2 * 0.01953125)

  def test_friedman(self):
    samples = {name: -_ROUNDING[:, i] for i, name in enumerate('abc')}
    comparison = significance.compare(samples, True, 0.95)
    test = comparison.omnibus
    assert test is not None
    self.assertEqual(test.name, 'Friedman')
    self.assertAlmostEqual(test.statistic, 11.143, delta=5e-4)
    self.assertAlmostEqual(test.p, 0.003805, delta=5e-7)
    self.assertEqual(comparison.ranking[0], 'c')

  def test_welchs_anova_of_two_equals_his_t_test(self):
    # Of Student's data F = 3.4626 on 1 and 17.776, p = .07939, as R prints it
    # in `help(oneway.test)`.
    test = significance.omnibus(list(_SLEEP.values()), paired=False)
    assert test
    self.assertAlmostEqual(test.statistic, 3.4626, delta=5e-5)
    np.testing.assert_allclose(test.df, (1, 17.776), 1e-4)
    self.assertAlmostEqual(test.p, 0.07939, delta=5e-6)

  def test_hedges_g_of_independent_samples(self):
    # Borenstein et al., page 27: d = .5970, g = .5924 with variance .0411.
    g, error = significance.hedges_g(
      _sample(103, 5.5, 50), _sample(100, 4.5, 50, seed=1), paired=False
    )
    self.assertAlmostEqual(g, 0.5924, delta=5e-5)
    self.assertAlmostEqual(error**2, 0.0411, delta=5e-5)

  def test_hedges_g_of_pairs(self):
    # Page 29: differences of deviation 5.5 with a correlation of .7, so that
    # the deviation within is 7.1005: g = .4160 with variance .0126.
    within, correlation = 7.1005, 0.7
    common = _sample(0, 1, 50)
    own = _sample(0, 1, 50, seed=1)
    own = own - common * (own @ common) / (common @ common)
    own = own / own.std(ddof=1)
    other = correlation * common + np.sqrt(1 - correlation**2) * own
    first, second = 103 + within * common, 100 + within * other
    self.assertAlmostEqual(np.std(first - second, ddof=1), 5.5, delta=1e-3)
    g, error = significance.hedges_g(first, second, paired=True)
    self.assertAlmostEqual(g, 0.4160, delta=1e-4)
    self.assertAlmostEqual(error**2, 0.0126, delta=1e-4)

  def test_holm(self):
    # Of p = .01, .04, .03 and .005 (Wikipedia, "Holm-Bonferroni method") the
    # first and the last are rejected at .05: .03, .06, .06 and .02.
    corrected = significance.holm([0.01, 0.04, 0.03, 0.005])
    np.testing.assert_allclose(corrected, [0.03, 0.06, 0.06, 0.02])
    drawn = np.random.default_rng(0).uniform(size=9) ** 3
    _, expected, *_ = multitest.multipletests(drawn, method='holm')
    np.testing.assert_allclose(significance.holm(drawn), expected)
    np.testing.assert_array_equal(significance.holm([0.7, 0.6]), 1)

  def test_shapiro_and_wilk(self):
    # The weights of eleven men of their paper of 1965, page 606: W = .79.
    weights = [148, 154, 158, 160, 161, 162, 166, 170, 182, 195, 236]
    samples = {'men': np.array(weights, float), 'others': _sample(0, 1, 11)}
    comparison = significance.compare(samples, False, 0.95)
    normal = comparison.assumptions['men is normal']
    self.assertAlmostEqual(normal.statistic, 0.79, delta=5e-3)

  def test_smallest_detectable_difference(self):
    # Cohen, 1988, table 2.4.1: 64 in each group for d = .5 at .05 two-sided.
    first, second = _sample(0, 1, 64), _sample(0, 1, 64, seed=1)
    least = significance.detectable_difference(first, second, False, 0.95)
    self.assertAlmostEqual(least, 0.5, delta=2e-3)
    # 34 pairs for d = .5, and a deviation of 2.
    pairs = _sample(0, 2, 34)
    least = significance.detectable_difference(pairs, np.zeros(34), True, 0.95)
    self.assertAlmostEqual(least, 2 * 0.5, delta=1e-2)

  def test_probability_of_improvement(self):
    first, second = np.array([1.0, 2.0, 4.0]), np.array([0.0, 2.0, 3.0])
    # In five of nine pairs of values the first is above, and one is a tie.
    expected = scipy.stats.mannwhitneyu(first, second).statistic / 9
    self.assertAlmostEqual(expected, 5.5 / 9)
    estimate = significance.probability_of_improvement(
      first, second, paired=False
    )
    self.assertAlmostEqual(estimate, expected)
    estimate = significance.probability_of_improvement(
      first, second, paired=True
    )
    self.assertAlmostEqual(estimate, 2.5 / 3)


class CompareTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.rng = np.random.default_rng(0)

  def test_groups_join_models_that_do_not_differ(self):
    common = self.rng.normal(size=40)
    samples = {
      name: level + common + 0.1 * self.rng.normal(size=40)
      for name, level in (('low', 0.0), ('mid', 1.0), ('twin', 1.01))
    }
    samples['top'] = 3 + common + 0.1 * self.rng.normal(size=40)
    comparison = significance.compare(samples, True, 0.95)
    self.assertEqual(comparison.groups[0], ('top',))
    self.assertEqual(set(comparison.groups[1]), {'mid', 'twin'})
    self.assertEqual(comparison.groups[2], ('low',))

  def test_groups_may_overlap(self):
    # Only a and c differ significantly.
    names = ('a', 'b', 'c')
    samples = {
      name: _sample(mean, 1, 20, seed)
      for seed, (name, mean) in enumerate(
        zip(names, (1.0, 0.5, 0), strict=True)
      )
    }
    comparison = significance.compare(samples, False, 0.95)
    self.assertTrue(comparison.pairs['a', 'c'].decided)
    self.assertEqual(comparison.groups, (('a', 'b'), ('b', 'c')))

  def test_too_few_units_for_a_test(self):
    samples = {'a': np.arange(4.0), 'b': np.array([9.0, 10, 11, 13])}
    comparison = significance.compare(samples, True, 0.95)
    self.assertEqual(comparison.pairs, {})
    self.assertEqual(comparison.groups, (('b', 'a'),))

  def test_identical_samples(self):
    values = self.rng.normal(size=20)
    for paired in (True, False):
      comparison = significance.compare(
        {'a': values, 'b': values.copy()}, paired, 0.95
      )
      pair = _only_pair(comparison)
      self.assertFalse(pair.decided)
      self.assertEqual((pair.difference, pair.test.p), (0, 1))

  def test_with_a_constant_sample(self):
    # For example the oracle, whose score is always 1.
    values = self.rng.uniform(size=20)
    comparison = significance.compare(
      {'a': values, 'o': np.ones(20)}, True, 0.95
    )
    pair = _only_pair(comparison)
    self.assertTrue(pair.decided)
    self.assertTrue(np.isfinite([pair.g, *pair.g_interval]).all())

  @parameterized.named_parameters(
    ('one', {'a': np.zeros(9)}, True, '1 models'),
    ('nan', {'a': np.zeros(9), 'b': np.full(9, np.nan)}, True, 'of b is not'),
    ('empty', {'a': np.zeros(9), 'b': np.zeros(0)}, False, 'no values of b'),
    ('lengths', {'a': np.zeros(9), 'b': np.ones(8)}, True, 'paired'),
    ('shift', {'a': np.zeros(9), 'b': np.ones(9)}, True, 'variance'),
    ('flat', {'a': np.zeros(9), 'b': np.ones(8)}, False, 'variance'),
  )
  def test_degenerate(self, samples, paired, sentence):
    with self.assertRaisesRegex(ValueError, sentence):
      significance.compare(samples, paired, 0.95)

  def test_against_statsmodels(self):
    first, second = self.rng.normal(1, 2, 12), self.rng.gamma(2, size=30)
    pair = _only_pair(
      significance.compare({'a': first, 'b': second}, False, 0.9)
    )
    means = weightstats.CompareMeans.from_data(first, second)
    t, p, df = weightstats.ttest_ind(first, second, usevar='unequal')
    sign = np.sign(pair.difference) * np.sign(t)
    self.assertAlmostEqual(pair.test.statistic, sign * t)
    self.assertAlmostEqual(pair.test.p, p)
    self.assertAlmostEqual(pair.test.df[0], df)
    interval = sorted(
      sign * x for x in means.tconfint_diff(0.1, usevar='unequal')
    )
    np.testing.assert_allclose(pair.interval, interval)


@pytest.mark.slow
@pytest.mark.timeout(900)
class NullTest(parameterized.TestCase):
  """Tests of the rate of false positives."""

  @parameterized.parameters(True, False)
  def test_false_positives(self, paired):
    rng = np.random.default_rng(1)
    num_draws = 2000
    any_pair = one_pair = 0
    for _ in range(num_draws):
      common = rng.normal(size=20) if paired else 0.0
      samples = {name: common + rng.normal(size=20) for name in 'abcd'}
      comparison = significance.compare(samples, paired, 0.95)
      ab = comparison.pairs.get(('a', 'b')) or comparison.pairs['b', 'a']
      one_pair += ab.test.p < 0.05
      any_pair += any(pair.decided for pair in comparison.pairs.values())
    bound = chance.SIGMAS * np.sqrt(0.05 * 0.95 / num_draws)
    self.assertAlmostEqual(one_pair / num_draws, 0.05, delta=bound)
    self.assertLess(any_pair / num_draws, 0.05 + bound)
    self.assertGreater(any_pair, 0)


if __name__ == '__main__':
  absltest.main()
