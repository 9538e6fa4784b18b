"""Tests of what is said of models: of tables by hand, and of known truths."""

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
from tests.support import drawn_tasks


def _found(scores, configurations=None, **kwargs):
  return verdict.found(
    tables.table(scores, **kwargs),
    configurations or {m: m for m in scores},
    0.95,
  )


class FoundTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.rng = np.random.default_rng(0)

  def test_single_models_are_compared_episode_by_episode(self):
    common = self.rng.normal(size=20)
    noise = self.rng.normal(scale=0.1, size=20)
    found = _found({'a': common, 'b': common + 0.5 + noise})
    self.assertEqual(found['unit'], verdict.EPISODE)
    (pair,) = found['measures']['score']['pairs']
    self.assertEqual((pair['first'], pair['second']), ('b', 'a'))
    self.assertEqual(pair['test']['name'], 'paired t')
    self.assertEqual(pair['test']['df'], (39,))
    self.assertAlmostEqual(pair['difference'], 0.5 + noise.mean())
    (sentence,) = found['verdict']
    self.assertStartsWith(sentence, 'b is better than a by ')

  def test_seeds_are_the_units_where_there_are_several(self):
    seeds = {
      f'{name}{seed}': self.rng.normal(level, 0.1, 20)
      for name, level in (('a', 0.0), ('b', 0.5))
      for seed in range(6)
    }
    found = _found(seeds, {model: model[0] for model in seeds})
    self.assertEqual(found['unit'], verdict.SEED)
    (pair,) = found['measures']['score']['pairs']
    self.assertEqual(pair['test']['name'], 'Welch t')
    about = found['measures']['score']['models']['a']
    self.assertEqual(about['units'], 6)
    # Both SCMs count, and that of index 1 adds 1.
    means = [np.mean(seeds[f'a{seed}']) + 0.5 for seed in range(6)]
    self.assertAlmostEqual(about['mean'], np.mean(means))
    self.assertAlmostEqual(about['sd'], np.std(means, ddof=1))

  def test_seeds_are_good_or_bad_on_all_scms_at_once(self):
    # Were they drawn again SCM by SCM, intervals would be too narrow.
    seeds = {
      f'a{i}': np.full(2, x) for i, x in enumerate((0, 0.1, 0.3, 0.4, 1))
    }
    found = verdict.found(
      tables.table(seeds | {'b0': np.zeros(2)}, num_scms=4),
      {model: model[0] for model in (*seeds, 'b0')},
      0.95,
    )
    about = found['measures']['score']['models']['a']
    # Scores of the SCM of index i are i higher: Student's of the five means.
    means = np.array([values[0] for values in seeds.values()]) + 1.5
    reach = 2.776 * means.std(ddof=1) / np.sqrt(5)
    np.testing.assert_allclose(
      about['interval'], [means.mean() - reach, means.mean() + reach], 1e-3
    )
    self.assertAlmostEqual(found['curves']['a']['low'][1], about['interval'][0])

  def test_intervals_of_seeds_cover_the_truth(self):
    covered = []
    for _ in range(300):
      of_seed = self.rng.normal(0, 0.1, (5, 1)) + np.zeros(4)
      low, high = statistics.crossed_estimate(of_seed, 0.95)['interval']
      covered.append(low <= 0 <= high)
    self.assertBetween(np.mean(covered), 0.91, 0.99)

  def test_one_pair_without_variance_leaves_the_others(self):
    found = _found(
      {
        'a': np.full(5, 0.2),
        'b': np.full(5, 0.1 + 0.2),
        'c': np.full(5, 0.3),
        'd': self.rng.normal(1.0, 0.1, 5),
      },
      num_scms=1,
    )
    about = found['measures']['score']
    pairs = {(x['first'], x['second']): x for x in about['pairs']}
    self.assertTrue(pairs['d', 'a']['decided'])
    self.assertEqual(pairs['b', 'c']['untested'], '')
    self.assertIn('without any variance', pairs['c', 'a']['untested'])
    self.assertIn(
      'Nothing is decided between c and a: they differ by 0.1 without any '
      'variance, so that there is nothing to test it by.',
      found['verdict'],
    )

  def test_configurations_without_variance_are_compared(self):
    seeds = {
      f'{name}{seed}': np.full(3, level + spread * seed)
      for name, level, spread in (('a', 0, 0.1), ('b', 1, 0.1), ('c', 2, 0.0))
      for seed in range(5)
    }
    found = _found(seeds, {model: model[0] for model in seeds})
    about = found['measures']['score']
    self.assertIsNone(about['omnibus'])
    self.assertEqual(about['ranking'], ['c', 'b', 'a'])

  def test_less_is_better_of_a_regret(self):
    noise = self.rng.normal(scale=0.1, size=20)
    found = _found({'a': noise, 'b': 0.5 + noise[::-1]})
    about = found['measures']['simple_regret']
    self.assertEqual(about['ranking'], ['b', 'a'])
    (pair,) = about['pairs']
    self.assertLess(pair['difference'], 0)
    self.assertLess(pair['test']['statistic'], 0)
    self.assertLess(pair['interval'][0], pair['interval'][1])

  def test_what_other_measures_tell(self):
    scores = {name: self.rng.normal(size=20) for name in 'abc'}
    table = tables.table(scores)
    slower = np.where(table['model'] == 'a', 0.0, 9.0)
    table['convergence'] = slower + self.rng.normal(size=len(table))
    found = verdict.found(table, {name: name for name in scores}, 0.95)
    (sentence,) = found['beside']
    self.assertRegex(sentence, '^By convergence, a is better than [bc], [bc].$')

  def test_few_seeds_decide_nothing(self):
    seeds = {f'{n}{s}': self.rng.normal(size=9) for n in 'ab' for s in '12'}
    found = _found(seeds, {model: model[0] for model in seeds})
    (sentence,) = found['verdict']
    self.assertEqual(
      sentence,
      'Nothing is decided: there are 2 training seeds of each, and 5 are the '
      'least.',
    )
    del seeds['a1']
    (sentence,) = _found(seeds, {model: model[0] for model in seeds})['verdict']
    self.assertStartsWith(
      sentence, 'Nothing is decided: a has 1 training seed,'
    )

  def test_what_does_not_vary_is_said(self):
    found = _found({'a': np.arange(9.0), 'b': np.arange(9.0) + 1})
    self.assertIn('without any variance', found['measures']['score']['nothing'])
    self.assertStartsWith(found['verdict'][0], 'Nothing is decided')
    # All of the other measures are 0.
    self.assertFalse(found['measures']['success']['pairs'][0]['decided'])

  def test_who_is_told_apart_over_the_head_of_another(self):
    drawn = self.rng.normal(size=40)
    drawn = (drawn - drawn.mean()) / drawn.std(ddof=1)
    scores = {
      name: level + np.roll(drawn, 13 * i)
      for i, (name, level) in enumerate(zip('abc', (0.8, 0.4, 0), strict=True))
    }
    sentences = _found(scores, num_scms=1)['verdict']
    self.assertLen(sentences, 3)
    self.assertStartsWith(sentences[0], 'The data cannot tell a from b')
    self.assertStartsWith(sentences[1], 'a is better than c')
    self.assertStartsWith(sentences[2], 'The data cannot tell b from c')

  def test_what_is_the_same_everywhere_is_said(self):
    values = self.rng.normal(size=9)
    (sentence,) = _found({'a': values, 'b': values})['verdict']
    self.assertEqual(sentence, 'a and b came to the same score everywhere.')

  def test_profiles(self):
    found = _found({'a': np.linspace(0, 1, 11), 'b': np.ones(11)}, num_scms=1)
    at = np.searchsorted(verdict.THRESHOLDS, 0.55)
    self.assertAlmostEqual(found['profiles']['a']['mean'][at], 5 / 11)
    self.assertBetween(found['profiles']['a']['low'][at], 0.1, 0.3)
    self.assertEqual(found['profiles']['b']['mean'][at], 1.0)
    self.assertEqual(found['profiles']['b']['high'][at], 1.0)

  def test_curves(self):
    found = _found({'a': np.linspace(0, 1, 11), 'b': np.ones(11)})['curves']
    self.assertEqual(found['a']['mean'][0], 0.0)
    self.assertAlmostEqual(found['a']['mean'][1], 1.0)
    self.assertLess(found['a']['low'][1], 0.95)
    self.assertEqual((found['b']['low'][1], found['b']['high'][1]), (1.5, 1.5))

  def test_too_few_for_bands(self):
    found = _found({'a': np.ones(3), 'b': np.zeros(3)})
    for name in ('curves', 'profiles'):
      self.assertIsNone(found[name]['a']['low'])

  def test_seeds_of_one_configuration_are_compared_as_single_models(self):
    noise = self.rng.normal(scale=0.1, size=20)
    found = _found(
      {'a0': noise, 'a1': noise[::-1] + 0.5}, {'a0': 'a', 'a1': 'a'}
    )
    self.assertEqual(found['unit'], verdict.EPISODE)
    self.assertEqual(found['measures']['score']['ranking'], ['a1', 'a0'])

  def test_models_have_to_meet_the_same(self):
    table = tables.table({'a': np.arange(9.0), 'b': np.arange(9.0)})
    names = {'a': 'a', 'b': 'b'}
    with self.assertRaisesRegex(
      errors.UsageError, 'only b has played s0, repeat 0'
    ):
      verdict.found(table[1:], names, 0.95)
    table.loc[1, 'optimum'] = 12.0
    with self.assertRaisesRegex(errors.UsageError, 's0, repeat 1, of a is ano'):
      verdict.found(table, names, 0.95)
    with self.assertRaisesRegex(errors.UsageError, 'needs two'):
      verdict.found(table[:18], {'a': 'a'}, 0.95)


def _scores(tasks, key, short_of):
  """Scores of what misses the best intervention by chance, and falls short.

  Args:
    tasks: SCMs.
    key: of the misses.
    short_of: share of the way back to the middle of the domain.
  """

  @jax.jit
  @jax.vmap
  def one(task, key):
    problem, best = task.scm.problem, task.objective.choice
    place = interventions.to_fractions(problem, best)
    place += 0.2 * jax.random.normal(key, place.shape)
    place = jax.numpy.clip(place, 0, 1)
    place += short_of * (0.5 - place)
    chosen = types.Intervention(
      best.mask,
      jax.numpy.where(
        best.mask, problem.low + place * (problem.high - problem.low), 0
      ),
    )
    objective = task.objective
    y = simulate.expected_outcome(task.scm, objective.bank, chosen)
    return (y - objective.baseline) / (objective.best - objective.baseline)

  count = len(tasks.scm.order)
  return np.asarray(one(tasks, jax.random.split(key, count)), float)


class KnownTruthTest(absltest.TestCase):
  """500 studies of 60 SCMs each, of which all there are is known."""

  def setUp(self):
    super().setUp()
    tasks = drawn_tasks.batch(0)
    keys = jax.random.split(jax.random.key(1), 2)
    self.policy = _scores(tasks, keys[0], 0.0)
    self.degraded = _scores(tasks, keys[0], 0.3)
    self.twin = _scores(tasks, keys[1], 0.0)
    self.rng = np.random.default_rng(0)

  def _studies(self, first, second):
    for _ in range(500):
      drawn = self.rng.integers(len(first), size=60)
      found = significance.compare(
        {'first': first[drawn], 'second': second[drawn]}, True, 0.95
      )
      ((names, pair),) = found.pairs.items()
      sign = 1 if names[0] == 'first' else -1
      low, high = sorted(sign * end for end in pair.interval)
      yield sign, pair, low, high

  def test_a_planted_difference_is_found_and_covered(self):
    truth = np.mean(self.policy - self.degraded)
    self.assertGreater(truth, 0.05)
    studies = [*self._studies(self.policy, self.degraded)]
    covered = np.mean([low <= truth <= high for *_, low, high in studies])
    self.assertBetween(covered, 0.93, 0.97)
    self.assertEqual({sign for sign, *_ in studies}, {1})
    self.assertGreater(np.mean([pair.decided for _, pair, *_ in studies]), 0.95)

  def test_twins_cannot_be_told_apart(self):
    # The same policy with other luck: its mean over all SCMs is not quite that
    # of the other, so that the twins are made to differ by nothing.
    twin = self.twin + np.mean(self.policy - self.twin)
    decided = [pair.decided for _, pair, *_ in self._studies(self.policy, twin)]
    self.assertLess(np.mean(decided), 0.07)
    same = significance.compare(
      {'a': self.policy, 'b': self.policy.copy()}, True, 0.95
    )
    self.assertEqual(same.groups, (('a', 'b'),))


if __name__ == '__main__':
  absltest.main()
