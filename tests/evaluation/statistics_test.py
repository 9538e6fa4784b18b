import itertools
import json

from absl.testing import absltest
from absl.testing import parameterized
import numpy as np
import pandas as pd
import pytest
import scipy.stats

from acme_cbo.evaluation import statistics
from tests.support import chance

# (family, variables) of fifteen tasks. Two families and two sizes have too few
# tasks to be reported alone, but fourier and product count as nonlinear.
_TASKS = (
  [('linear', 3)] * 6
  + [('tanh', 4)] * 5
  + [('fourier', 5)] * 3
  + [('product', 6)] * 1
)


def _results(shifts: dict[str, float], tasks=_TASKS) -> pd.DataFrame:
  """Gives task i the scores i, i + 100, i + 300, i + 200, plus the shift."""
  return pd.DataFrame(
    [
      {
        'policy': policy,
        'task': i,
        'family': family,
        'graph': 'chain',
        'variables': variables,
        'score_first': i + shift,
        'score_mean': i + 100 + shift,
        'score_best': i + 300 + shift,
        'score_last': i + 200 + shift,
      }
      for policy, shift in shifts.items()
      for i, (family, variables) in enumerate(tasks)
    ]
  )


class InterquartileMeanTest(parameterized.TestCase):
  @parameterized.parameters(
    # A quarter of the values, rounded down, is trimmed at each end.
    ([6, 3, 1, 5, 8, 2, 7, 4], (3 + 4 + 5 + 6) / 4),
    ([1, 2, 4, 4, 9], (2 + 4 + 4) / 3),
    ([-1e9, 1, 2, 1e9], 1.5),
  )
  def test_by_hand(self, values, expected):
    actual = statistics.interquartile_mean(np.array(values, float))
    self.assertAlmostEqual(actual, expected, places=12)

  def test_axis(self):
    values = np.array([[4.0, 1.0], [3.0, 8.0], [2.0, 2.0], [1.0, 3.0]])
    np.testing.assert_allclose(
      statistics.interquartile_mean(values, axis=0), [2.5, 2.5]
    )


class BootstrapTest(parameterized.TestCase):
  @pytest.mark.stat
  def test_mean_matches_the_normal_approximation(self):
    # The end of a 90 % interval by 4,000 resamples has a standard error of
    # sqrt(0.05 * 0.95 / 4000) / pdf(1.645) = 0.033 errors of the mean.
    values = np.random.default_rng(0).gamma(4.0, size=4000)
    low, high = statistics.bootstrap_interval(values, 0.9)
    error = values.std() / np.sqrt(values.size)
    reach = scipy.stats.norm.ppf(0.95) * error
    self.assertAlmostEqual(
      low, values.mean() - reach, delta=chance.SIGMAS * 0.033 * error
    )
    self.assertAlmostEqual(
      high, values.mean() + reach, delta=chance.SIGMAS * 0.033 * error
    )

  @pytest.mark.stat
  def test_interquartile_mean_matches_its_asymptotic_error(self):
    # Tukey and McLaughlin: the standard error of a mean with a quarter trimmed
    # at each end is the winsorized deviation over half the root of n.
    values = np.random.default_rng(1).standard_t(3, size=4000)
    low, high = statistics.bootstrap_interval(
      values, 0.9, statistics.interquartile_mean
    )
    winsorized = np.clip(values, *np.quantile(values, [0.25, 0.75]))
    error = winsorized.std() / (0.5 * np.sqrt(values.size))
    self.assertAlmostEqual(
      (high - low) / (2 * scipy.stats.norm.ppf(0.95) * error), 1, delta=0.1
    )

  @pytest.mark.stat
  def test_coverage(self):
    # 1,000 samples of 40 normal values. Without Student's correction a 90 %
    # interval covers a little less, by a known amount.
    size, level = 40, 0.9
    samples = np.random.default_rng(2).normal(3.0, 2.0, (1000, size))
    low, high = statistics.bootstrap_interval(samples, level)
    reach = scipy.stats.norm.ppf(0.5 + level / 2) * np.sqrt((size - 1) / size)
    expected = 1 - 2 * scipy.stats.t.sf(reach, size - 1)
    # Two error terms for the resamples, which all the samples share.
    variance = expected * (1 - expected) / len(samples) + 2 * 0.0034**2
    covered = ((low <= 3) & (high >= 3)).mean()
    self.assertAlmostEqual(
      covered, expected, delta=chance.SIGMAS * np.sqrt(variance)
    )

  def test_higher_confidence_widens_the_interval(self):
    values = np.random.default_rng(3).normal(size=(2, 50))
    low, high = statistics.bootstrap_interval(values, 0.8)
    lower, higher = statistics.bootstrap_interval(values, 0.99)
    self.assertTrue((lower < low).all() and (high < higher).all())

  def test_constant_values(self):
    low, high = statistics.bootstrap_interval(np.full(6, 0.25), 0.99)
    self.assertEqual((low, high), (0.25, 0.25))

  def test_too_few_units_raise(self):
    with self.assertRaisesRegex(ValueError, '^4 tasks are too few'):
      statistics.bootstrap_interval(np.zeros((3, 4)), 0.99)

  @parameterized.parameters(np.nan, np.inf, -np.inf)
  def test_non_finite_values_raise(self, value):
    values = np.zeros((2, 8))
    values[1, 3] = value
    with self.assertRaisesRegex(ValueError, 'not finite'):
      statistics.bootstrap_interval(values, 0.99)


class SummarizeTest(parameterized.TestCase):
  def test_structure(self):
    summary = statistics.summarize(_results({'b': 0.0, 'a': 0.5}), 0.99)
    self.assertEqual(list(summary), ['b', 'a'])
    scores = {*statistics.SCORES, 'num_tasks'}
    for entry in summary.values():
      self.assertEqual(entry.keys(), scores | {'by_family', 'by_variables'})
      self.assertEqual(
        entry['by_family'].keys(), {'linear', 'tanh', 'nonlinear'}
      )
      self.assertEqual(entry['by_variables'].keys(), {'3', '4'})
      groups = [*entry['by_family'].values(), *entry['by_variables'].values()]
      for group in groups:
        self.assertEqual(group.keys(), scores)
      for group in (entry, *groups):
        for name in statistics.SCORES:
          self.assertEqual(
            group[name].keys(), {'mean', 'interval', 'iqm', 'iqm_interval'}
          )
          for middle in ('mean', 'iqm'):
            interval = 'interval' if middle == 'mean' else 'iqm_interval'
            low, high = group[name][interval]
            self.assertLess(low, group[name][middle])
            self.assertLess(group[name][middle], high)
    self.assertEqual(json.loads(json.dumps(summary)), summary)

  def test_values_by_hand(self):
    # Task i of 15 scores i; the linear ones are 0 to 5, the tanh ones 6 to 10.
    entry = statistics.summarize(_results({'a': 0.5}), 0.99)['a']
    means = {name: entry[name]['mean'] for name in statistics.SCORES}
    self.assertEqual(
      means,
      {
        'score_first': 7.5,
        'score_mean': 107.5,
        'score_best': 307.5,
        'score_last': 207.5,
      },
    )
    groups = entry['by_family'] | entry['by_variables']
    self.assertEqual(
      {key: group['score_first']['mean'] for key, group in groups.items()},
      {'linear': 3.0, 'tanh': 8.5, 'nonlinear': 10.5, '3': 3.0, '4': 8.5},
    )
    self.assertEqual(
      {key: group['num_tasks'] for key, group in groups.items()},
      {'linear': 6, 'tanh': 5, 'nonlinear': 9, '3': 6, '4': 5},
    )
    self.assertEqual(entry['num_tasks'], 15)
    # One value is trimmed at each end, of 0 to 5 as well as of 6 to 10.
    self.assertEqual(groups['linear']['score_first']['iqm'], 3.0)
    self.assertEqual(groups['tanh']['score_last']['iqm'], 208.5)

  def test_linear_tasks_only(self):
    results = _results({'a': 0.0}, [('linear', 3)] * 5)
    entry = statistics.summarize(results, 0.9)['a']
    self.assertEqual(entry['by_family'].keys(), {'linear'})

  def test_intervals_match_the_bootstrap(self):
    entry = statistics.summarize(_results({'a': 0.0}), 0.8)['a']
    linear = np.arange(6.0) + 200
    self.assertEqual(
      entry['by_family']['linear']['score_last']['interval'],
      list(statistics.bootstrap_interval(linear, 0.8)),
    )
    self.assertEqual(
      entry['by_family']['linear']['score_last']['iqm_interval'],
      list(
        statistics.bootstrap_interval(
          linear, 0.8, statistics.interquartile_mean
        )
      ),
    )


class PairedDifferencesTest(absltest.TestCase):
  def test_by_hand(self):
    # The tasks differ widely, but two policies by the same on each of them.
    results = _results({'a': 0.5, 'b': 0.25, 'c': 1.5})
    differences = statistics.paired_differences(results, 'a', 0.99)
    for other, expected in (('b', 0.25), ('c', -1.0)):
      self.assertEqual(differences[other].keys(), set(statistics.SCORES))
      for entry in differences[other].values():
        self.assertEqual(
          entry, {'mean': expected, 'interval': [expected, expected]}
        )
    self.assertEqual(list(differences), ['b', 'c'])

  def test_rows_are_paired_by_task_in_any_order(self):
    results = _results({'a': 0.5, 'b': 0.25}).sample(frac=1, random_state=0)
    differences = statistics.paired_differences(results, 'a', 0.99)
    self.assertEqual(differences['b']['score_last']['interval'], [0.25, 0.25])

  def test_is_tighter_than_unpaired_where_policies_are_correlated(self):
    # The variance of a difference is 2 * 0.1^2 paired and 2 * (1 + 0.1^2)
    # unpaired. The test compares with the variance of one policy, a lower bound
    # of the latter.
    rng = np.random.default_rng(0)
    results = _results({'a': 0.0, 'b': 0.0}, [('linear', 3)] * 60)
    difficulty = np.tile(rng.normal(size=60), 2)
    score = difficulty + 0.1 * rng.normal(size=120)
    results = results.assign(score_last=score.tolist())
    paired = statistics.paired_differences(results, 'a', 0.99)
    alone = statistics.summarize(results, 0.99)['a']
    width = np.ptp(paired['b']['score_last']['interval'])
    self.assertLess(width, 0.3 * np.ptp(alone['score_last']['interval']))

  def test_a_task_that_one_policy_lacks_raises(self):
    results = _results({'a': 0.5, 'b': 0.25}).iloc[:-1]
    with self.assertRaisesRegex(ValueError, 'not finite'):
      statistics.paired_differences(results, 'a', 0.99)


def _auroc(score, label) -> float:
  """Computes how often a parent ranks above another, ties counting half."""
  pairs = list(itertools.product(score[label], score[~label]))
  return float(np.mean([(a > b) + (a == b) / 2 for a, b in pairs]))


class ParentSetQualityTest(absltest.TestCase):
  def test_by_hand(self):
    # Above one half are 0.9 and 0.6, hits, and 0.7, a miss; the parent at 0.5
    # is not chosen: F1 = 2 * 2 / (3 + 3). The parents at 0.9, 0.6 and 0.5 rank
    # above 0.7 and 0.2 in 2, 1 and 1 of 2 cases. Only candidates count.
    probability = np.array([[0.9, 0.7, 1.0], [0.6, 0.5, 0.2]])
    truth = np.array([[True, False, False], [True, True, False]])
    candidates = np.array([[True, True, False], [True, True, True]])
    quality = statistics.parent_set_quality(probability, truth, candidates)
    # In bins of a tenth, each with a fifth of the variables: 0.9 is off by 0.1,
    # 0.7 by 0.7, 0.6 by 0.4, 0.5 by 0.5 and 0.2 by 0.2.
    self.assertEqual((quality['f1'], quality['auroc']), (4 / 6, 4 / 6))
    self.assertAlmostEqual(quality['ece'], (0.1 + 0.7 + 0.4 + 0.5 + 0.2) / 5)

  def test_ece_compares_frequencies_not_single_cases(self):
    # Three of ten variables at 0.3 are parents, and four of five at 1.
    probability = np.repeat([0.3, 1.0], [10, 5])[None]
    truth = np.isin(np.arange(15), [0, 1, 2, 10, 11, 12, 13])[None]
    quality = statistics.parent_set_quality(
      probability, truth, np.ones((1, 15), bool)
    )
    self.assertAlmostEqual(quality['ece'], 0.2 * 5 / 15)

  def test_auroc_matches_all_pairs_with_ties(self):
    rng = np.random.default_rng(0)
    score = rng.integers(0, 6, (30, 4)) / 5
    truth = rng.random((30, 4)) < 0.2 + 0.5 * score
    candidates = rng.random((30, 4)) < 0.7
    actual = statistics.parent_set_quality(score, truth, candidates)
    expected = _auroc(score[candidates], truth[candidates])
    self.assertAlmostEqual(actual['auroc'], expected, places=12)
    self.assertGreater(expected, 0.6)

  def test_f1_is_0_if_nothing_is_chosen(self):
    quality = statistics.parent_set_quality(
      np.array([[0.1, 0.1]]), np.array([[True, False]]), np.ones((1, 2), bool)
    )
    self.assertAlmostEqual(quality.pop('ece'), 0.4)
    self.assertEqual(quality, {'f1': 0.0, 'auroc': 0.5})

  def test_a_single_class_raises(self):
    for truth in (np.zeros((1, 3), bool), np.ones((1, 3), bool)):
      with self.assertRaisesRegex(ValueError, 'parents and others'):
        statistics.parent_set_quality(
          np.full((1, 3), 0.5), truth, np.ones((1, 3), bool)
        )


class EstimatesTest(parameterized.TestCase):
  def test_match_the_bootstrap(self):
    values = np.random.default_rng(0).normal(size=(2, 12))
    for entry, row in zip(
      statistics.estimates(values, 0.9), values, strict=True
    ):
      self.assertAlmostEqual(entry['mean'], row.mean())
      self.assertAlmostEqual(entry['iqm'], np.sort(row)[3:9].mean())
      for name, mean in (('interval', np.mean), ('iqm_interval', None)):
        statistic = mean or statistics.interquartile_mean
        expected = statistics.bootstrap_interval(row, 0.9, statistic)
        # The tolerance allows for different resamples.
        np.testing.assert_allclose(entry[name], expected, atol=0.08)
      self.assertNotIn('no_interval', entry)

  def test_too_few_units_have_no_interval(self):
    (entry,) = statistics.estimates(np.ones((1, 4)), 0.9)
    self.assertEqual(
      entry,
      {
        'mean': 1.0,
        'interval': None,
        'iqm': 1.0,
        'iqm_interval': None,
        'no_interval': '4 repeats; an interval needs 5',
      },
    )
    (entry,) = statistics.estimates(np.ones((1, 5)), 0.9)
    self.assertEqual(entry['interval'], [1.0, 1.0])

  def test_non_finite_values_raise(self):
    with self.assertRaisesRegex(ValueError, 'not finite'):
      statistics.estimates(np.array([[1.0, 2.0, np.nan, 4.0, 5.0]]), 0.9)


class StratifiedTest(absltest.TestCase):
  def test_differences_between_strata_do_not_widen_the_interval(self):
    # Each stratum is constant, so resampling within strata changes nothing.
    entry = statistics.stratified_estimate(
      [np.full(5, 1.0), np.full(7, 13.0)], 0.9
    )
    self.assertAlmostEqual(entry['mean'], 8.0)
    np.testing.assert_allclose(entry['interval'], [8.0, 8.0])

  @pytest.mark.stat
  def test_matches_the_normal_approximation(self):
    # For two strata of n units with deviations 1 and 3 around means far apart,
    # the standard error of the overall mean is sqrt((1 + 9) / n) / 2. The
    # tolerance is that of `BootstrapTest`.
    rng = np.random.default_rng(0)
    strata = [rng.normal(0, 1, 2000), rng.normal(100, 3, 2000)]
    error = np.sqrt(sum(x.var() / 2000 for x in strata)) / 2
    reach = scipy.stats.norm.ppf(0.95) * error
    entry = statistics.stratified_estimate(strata, 0.9)
    mean = np.concatenate(strata).mean()
    np.testing.assert_allclose(
      entry['interval'],
      [mean - reach, mean + reach],
      atol=chance.SIGMAS * 0.033 * error,
    )

  def test_a_band_is_the_interval_at_every_step(self):
    rng = np.random.default_rng(1)
    strata = [rng.normal(size=(6, 3)), rng.normal(size=(8, 3))]
    band = statistics.stratified_band(strata, 0.9)
    assert band is not None
    low, high = band
    for t in range(3):
      entry = statistics.stratified_estimate([x[:, t] for x in strata], 0.9)
      np.testing.assert_allclose(entry['interval'], [low[t], high[t]])

  def test_a_stratum_with_too_few_units_has_no_interval(self):
    strata = [np.ones(9), np.ones(3)]
    entry = statistics.stratified_estimate(strata, 0.9)
    self.assertIsNone(entry['interval'])
    self.assertEqual(entry['no_interval'], '3 repeats; an interval needs 5')
    self.assertIsNone(
      statistics.stratified_band([x[:, None] for x in strata], 0.9)
    )

  def test_non_finite_values_raise(self):
    with self.assertRaisesRegex(ValueError, 'not finite'):
      statistics.stratified_band([np.array([[1.0], [np.inf]])], 0.9)


class LowerBoundTest(absltest.TestCase):
  def test_matches_a_one_sided_t_test(self):
    values = np.random.default_rng(0).normal(0.5, 1.0, 8)
    bound = statistics.lower_bound(values, 0.99)
    test = scipy.stats.ttest_1samp(values, bound, alternative='greater')
    self.assertAlmostEqual(test.pvalue, 0.01, places=9)

  def test_of_a_difference_matches_welchs_test(self):
    rng = np.random.default_rng(0)
    values, others = rng.normal(1.0, 0.1, 8), rng.normal(0.0, 2.0, 30)
    bound = statistics.lower_bound_of_difference(values, others, 0.99)
    test = scipy.stats.ttest_ind(
      values - bound, others, equal_var=False, alternative='greater'
    )
    self.assertAlmostEqual(test.pvalue, 0.01, places=9)
    with self.assertRaisesRegex(ValueError, 'no bound on the mean'):
      statistics.lower_bound_of_difference(values, np.ones(8), 0.99)

  def test_refuses_values_without_a_bound(self):
    for values, sentence in (
      (np.arange(4.0), '4 values; a bound needs 5'),
      (np.ones(8), 'no bound on the mean'),
      (np.array([1.0, 2, 3, 4, np.nan]), 'no bound on the mean'),
      (np.array([1.0, 2, 3, 4, np.inf]), 'no bound on the mean'),
    ):
      with (
        np.errstate(invalid='ignore'),
        self.assertRaisesRegex(ValueError, sentence),
      ):
        statistics.lower_bound(values, 0.99)


class ByStepTest(absltest.TestCase):
  def test_makes_a_list_over_the_steps(self):
    rows = [
      ('a', 'all', 0, 0.1, 0.2, 0.3),
      ('a', 'all', 1, 0.4, 0.5, 0.6),
      ('b', 'linear', 0, 0.7, 0.8, 0.9),
    ]
    quality = pd.DataFrame(
      rows, columns=['belief', 'group', 'interventions', 'f1', 'auroc', 'ece']
    )
    self.assertEqual(
      statistics.by_step(quality),
      {
        'a': {
          'all': {'f1': [0.1, 0.4], 'auroc': [0.2, 0.5], 'ece': [0.3, 0.6]}
        },
        'b': {'linear': {'f1': [0.7], 'auroc': [0.8], 'ece': [0.9]}},
      },
    )


if __name__ == '__main__':
  absltest.main()
