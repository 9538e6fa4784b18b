"""Tests of comparisons of tables made by hand, and of simulated tables."""

from absl.testing import absltest
from absl.testing import parameterized
import jax
import numpy as np

from acme_cbo import types
from acme_cbo.evaluation import statistics
from acme_cbo.evaluation.comparison import significance
from acme_cbo.evaluation.comparison import verdict
from acme_cbo.infra import errors
from acme_cbo.scms import interventions
from acme_cbo.scms import simulate
from tests.evaluation.comparison import tables
from tests.support import chance
from tests.support import drawn_tasks


def _compare(scores, configurations=None, **kwargs):
  return verdict.compare(
    tables.table(scores, **kwargs),
    configurations or {m: m for m in scores},
    0.95,
  )


class CompareTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.rng = np.random.default_rng(0)

  def test_single_models_are_compared_episode_by_episode(self):
    common = self.rng.normal(size=20)
    noise = self.rng.normal(scale=0.1, size=20)
    result = _compare({'a': common, 'b': common + 0.5 + noise})
    self.assertEqual(result['unit'], verdict.EPISODE)
    (pair,) = result['measures']['score']['pairs']
    self.assertEqual((pair['first'], pair['second']), ('b', 'a'))
    self.assertEqual(pair['test']['name'], 'paired t')
    self.assertEqual(pair['test']['df'], (39,))
    self.assertAlmostEqual(pair['difference'], 0.5 + noise.mean())
    (sentence,) = result['verdict']
    self.assertStartsWith(sentence, 'b is better than a by ')

  def test_seeds_are_the_units_where_there_are_several(self):
    seeds = {
      f'{name}{seed}': self.rng.normal(level, 0.1, 20)
      for name, level in (('a', 0.0), ('b', 0.5))
      for seed in range(6)
    }
    result = _compare(seeds, {model: model[0] for model in seeds})
    self.assertEqual(result['unit'], verdict.SEED)
    (pair,) = result['measures']['score']['pairs']
    self.assertEqual(pair['test']['name'], 'Welch t')
    entry = result['measures']['score']['models']['a']
    self.assertEqual(entry['units'], 6)
    # Both SCMs count, and that of index 1 adds 1.
    means = [np.mean(seeds[f'a{seed}']) + 0.5 for seed in range(6)]
    self.assertAlmostEqual(entry['mean'], np.mean(means))
    self.assertAlmostEqual(entry['sd'], np.std(means, ddof=1))

  def test_intervals_of_seeds_resample_whole_seeds(self):
    # Resampling seeds for each SCM separately would give narrow intervals.
    seeds = {
      f'a{i}': np.full(2, x) for i, x in enumerate((0, 0.1, 0.3, 0.4, 1))
    }
    result = verdict.compare(
      tables.table(seeds | {'b0': np.zeros(2)}, num_scms=4),
      {model: model[0] for model in (*seeds, 'b0')},
      0.95,
    )
    entry = result['measures']['score']['models']['a']
    # Scores on SCM i are i higher; the interval is Student's of five means.
    means = np.array([values[0] for values in seeds.values()]) + 1.5
    reach = 2.776 * means.std(ddof=1) / np.sqrt(5)
    np.testing.assert_allclose(
      entry['interval'], [means.mean() - reach, means.mean() + reach], 1e-3
    )
    self.assertAlmostEqual(
      result['curves']['a']['low'][1], entry['interval'][0]
    )

  def test_intervals_of_seeds_cover_the_truth(self):
    covered, num_draws = [], 600
    for _ in range(num_draws):
      of_seed = self.rng.normal(0, 0.1, (5, 1)) + np.zeros(4)
      low, high = statistics.crossed_estimate(of_seed, 0.95)['interval']
      covered.append(low <= 0 <= high)
    error = np.sqrt(0.95 * 0.05 / num_draws)
    self.assertAlmostEqual(np.mean(covered), 0.95, delta=chance.SIGMAS * error)

  def test_one_pair_without_variance_leaves_the_others(self):
    result = _compare(
      {
        'a': np.full(5, 0.2),
        'b': np.full(5, 0.1 + 0.2),
        'c': np.full(5, 0.3),
        'd': self.rng.normal(1.0, 0.1, 5),
      },
      num_scms=1,
    )
    by_score = result['measures']['score']
    pairs = {(x['first'], x['second']): x for x in by_score['pairs']}
    self.assertTrue(pairs['d', 'a']['decided'])
    self.assertEqual(pairs['b', 'c']['untested'], '')
    self.assertIn('without any variance', pairs['c', 'a']['untested'])
    self.assertIn(
      'No conclusion about c and a: they differ by 0.1 without any variance, '
      'so the difference cannot be tested.',
      result['verdict'],
    )

  def test_configurations_without_variance_are_compared(self):
    seeds = {
      f'{name}{seed}': np.full(3, level + spread * seed)
      for name, level, spread in (('a', 0, 0.1), ('b', 1, 0.1), ('c', 2, 0.0))
      for seed in range(5)
    }
    result = _compare(seeds, {model: model[0] for model in seeds})
    by_score = result['measures']['score']
    self.assertIsNone(by_score['omnibus'])
    self.assertEqual(by_score['ranking'], ['c', 'b', 'a'])

  def test_lower_regret_is_better(self):
    noise = self.rng.normal(scale=0.1, size=20)
    result = _compare({'a': noise, 'b': 0.5 + noise[::-1]})
    by_regret = result['measures']['simple_regret']
    self.assertEqual(by_regret['ranking'], ['b', 'a'])
    (pair,) = by_regret['pairs']
    self.assertLess(pair['difference'], 0)
    self.assertLess(pair['test']['statistic'], 0)
    self.assertLess(pair['interval'][0], pair['interval'][1])

  def test_sentences_about_other_measures(self):
    scores = {name: self.rng.normal(size=20) for name in 'abc'}
    table = tables.table(scores)
    slower = np.where(table['model'] == 'a', 0.0, 9.0)
    table['convergence'] = slower + self.rng.normal(size=len(table))
    result = verdict.compare(table, {name: name for name in scores}, 0.95)
    (sentence,) = result['beside']
    self.assertRegex(sentence, '^By convergence, a is better than [bc], [bc].$')

  def test_too_few_seeds(self):
    seeds = {f'{n}{s}': self.rng.normal(size=9) for n in 'ab' for s in '12'}
    result = _compare(seeds, {model: model[0] for model in seeds})
    (sentence,) = result['verdict']
    self.assertEqual(
      sentence,
      'No conclusion: each model has 2 training seeds, and at least 5 are '
      'needed.',
    )
    del seeds['a1']
    (sentence,) = _compare(seeds, {model: model[0] for model in seeds})[
      'verdict'
    ]
    self.assertStartsWith(sentence, 'No conclusion: a has 1 training seed,')

  def test_a_constant_difference(self):
    result = _compare({'a': np.arange(9.0), 'b': np.arange(9.0) + 1})
    self.assertIn(
      'without any variance', result['measures']['score']['nothing']
    )
    self.assertStartsWith(result['verdict'][0], 'No conclusion')
    # All other measures are 0.
    self.assertFalse(result['measures']['success']['pairs'][0]['decided'])

  def test_a_significant_pair_that_are_no_neighbors(self):
    drawn = self.rng.normal(size=40)
    drawn = (drawn - drawn.mean()) / drawn.std(ddof=1)
    scores = {
      name: level + np.roll(drawn, 13 * i)
      for i, (name, level) in enumerate(zip('abc', (0.8, 0.4, 0), strict=True))
    }
    sentences = _compare(scores, num_scms=1)['verdict']
    self.assertLen(sentences, 3)
    self.assertStartsWith(
      sentences[0], 'The difference between a and b is not significant'
    )
    self.assertStartsWith(sentences[1], 'a is better than c')
    self.assertStartsWith(
      sentences[2], 'The difference between b and c is not significant'
    )

  def test_identical_scores(self):
    values = self.rng.normal(size=9)
    (sentence,) = _compare({'a': values, 'b': values})['verdict']
    self.assertEqual(sentence, 'a and b have identical scores.')

  def test_profiles(self):
    result = _compare(
      {'a': np.linspace(0, 1, 11), 'b': np.ones(11)}, num_scms=1
    )
    at = np.searchsorted(verdict.THRESHOLDS, 0.55)
    self.assertAlmostEqual(result['profiles']['a']['mean'][at], 5 / 11)
    self.assertBetween(result['profiles']['a']['low'][at], 0.1, 0.3)
    self.assertEqual(result['profiles']['b']['mean'][at], 1.0)
    self.assertEqual(result['profiles']['b']['high'][at], 1.0)

  def test_curves(self):
    result = _compare({'a': np.linspace(0, 1, 11), 'b': np.ones(11)})['curves']
    self.assertEqual(result['a']['mean'][0], 0.0)
    self.assertAlmostEqual(result['a']['mean'][1], 1.0)
    self.assertLess(result['a']['low'][1], 0.95)
    self.assertEqual(
      (result['b']['low'][1], result['b']['high'][1]), (1.5, 1.5)
    )

  def test_too_few_for_bands(self):
    result = _compare({'a': np.ones(3), 'b': np.zeros(3)})
    for name in ('curves', 'profiles'):
      self.assertIsNone(result[name]['a']['low'])

  def test_seeds_of_one_configuration_are_compared_as_single_models(self):
    noise = self.rng.normal(scale=0.1, size=20)
    result = _compare(
      {'a0': noise, 'a1': noise[::-1] + 0.5}, {'a0': 'a', 'a1': 'a'}
    )
    self.assertEqual(result['unit'], verdict.EPISODE)
    self.assertEqual(result['measures']['score']['ranking'], ['a1', 'a0'])

  def test_models_must_have_the_same_episodes(self):
    table = tables.table({'a': np.arange(9.0), 'b': np.arange(9.0)})
    names = {'a': 'a', 'b': 'b'}
    with self.assertRaisesRegex(errors.UsageError, 'only b has s0, repeat 0'):
      verdict.compare(table[1:], names, 0.95)
    table.loc[1, 'optimum'] = 12.0
    with self.assertRaisesRegex(
      errors.UsageError, 's0, repeat 1, is another SCM for a'
    ):
      verdict.compare(table, names, 0.95)
    with self.assertRaisesRegex(errors.UsageError, 'needs at least two'):
      verdict.compare(table[:18], {'a': 'a'}, 0.95)


def _scores(tasks, key, shrinkage):
  """Returns the scores of a policy that misses the best intervention.

  Args:
    tasks: SCMs.
    key: key from which the normal errors are drawn.
    shrinkage: share of the way by which the values are moved to the middle of
      their domains.
  """

  @jax.jit
  @jax.vmap
  def score(task, key):
    problem, best = task.scm.problem, task.objective.choice
    fraction = interventions.to_fractions(problem, best)
    fraction += 0.2 * jax.random.normal(key, fraction.shape)
    fraction = jax.numpy.clip(fraction, 0, 1)
    fraction += shrinkage * (0.5 - fraction)
    chosen = types.Intervention(
      best.mask,
      jax.numpy.where(
        best.mask, problem.low + fraction * (problem.high - problem.low), 0
      ),
    )
    objective = task.objective
    y = simulate.expected_outcome(task.scm, objective.bank, chosen)
    return (y - objective.baseline) / (objective.best - objective.baseline)

  count = len(tasks.scm.order)
  return np.asarray(score(tasks, jax.random.split(key, count)), float)


class KnownTruthTest(absltest.TestCase):
  """Tests 500 comparisons on 60 of the SCMs of a known population."""

  def setUp(self):
    super().setUp()
    tasks = drawn_tasks.batch(0)
    keys = jax.random.split(jax.random.key(1), 2)
    self.policy = _scores(tasks, keys[0], 0.0)
    self.degraded = _scores(tasks, keys[0], 0.3)
    self.twin = _scores(tasks, keys[1], 0.0)
    self.rng = np.random.default_rng(0)

  def _comparisons(self, first, second):
    for _ in range(500):
      drawn = self.rng.integers(len(first), size=60)
      result = significance.compare(
        {'first': first[drawn], 'second': second[drawn]}, True, 0.95
      )
      ((names, pair),) = result.pairs.items()
      sign = 1 if names[0] == 'first' else -1
      low, high = sorted(sign * end for end in pair.interval)
      yield sign, pair, low, high

  def test_a_true_difference_is_detected_and_covered(self):
    truth = np.mean(self.policy - self.degraded)
    self.assertGreater(truth, 0.05)
    comparisons = [*self._comparisons(self.policy, self.degraded)]
    covered = np.mean([low <= truth <= high for *_, low, high in comparisons])
    # The differences are skewed: with other seeds 94 % are covered, not 95 %.
    error = np.sqrt(0.94 * 0.06 / len(comparisons))
    self.assertAlmostEqual(covered, 0.94, delta=chance.SIGMAS * error)
    self.assertEqual({sign for sign, *_ in comparisons}, {1})
    self.assertGreater(
      np.mean([pair.decided for _, pair, *_ in comparisons]), 0.9
    )

  def test_twins_do_not_differ(self):
    # The same policy with other errors. Its mean over all SCMs is shifted to be
    # exactly that of the other one.
    twin = self.twin + np.mean(self.policy - self.twin)
    decided = [
      pair.decided for _, pair, *_ in self._comparisons(self.policy, twin)
    ]
    error = np.sqrt(0.05 * 0.95 / len(decided))
    self.assertLess(np.mean(decided), 0.05 + chance.SIGMAS * error)
    same = significance.compare(
      {'a': self.policy, 'b': self.policy.copy()}, True, 0.95
    )
    self.assertEqual(same.groups, (('a', 'b'),))


if __name__ == '__main__':
  absltest.main()
