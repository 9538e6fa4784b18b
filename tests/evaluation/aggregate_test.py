"""Tests of the measures of episodes, with values worked out by hand."""

from absl.testing import absltest
from absl.testing import parameterized
import numpy as np
import pandas as pd

from acme_cbo.evaluation import aggregate
from acme_cbo.evaluation import episodes as episodes_lib


def episode(
  expected,
  recommended=None,
  goal=1.0,
  method='grpo',
  scm='s',
  repeat=0,
  no_intervention=0.0,
  optimum=10.0,
  causes=(True, False),
  parent_probabilities=None,
  predicted=None,
  seconds=None,
) -> episodes_lib.Episode:
  recommended = recommended or expected
  gain = optimum - no_intervention
  steps = {
    'variables': ['A'] * len(expected),
    'values': ['1'] * len(expected),
    'outcome': [x + 0.5 for x in expected],
    'expected_outcome': list(expected),
    'best_expected': (
      goal * np.maximum.accumulate(goal * np.asarray(expected))
    ).tolist(),
    'recommended_variables': ['A'] * len(expected),
    'recommended_values': ['1'] * len(expected),
    'recommended_expected': list(recommended),
    'score': [(x - no_intervention) / gain for x in recommended],
    'seconds': seconds or [0.1] * len(expected),
  }
  return episodes_lib.Episode(
    method,
    scm,
    repeat,
    goal,
    no_intervention,
    optimum,
    steps,
    list(causes),
    parent_probabilities or {},
    predicted or {},
  )


class EpisodeMeasuresTest(parameterized.TestCase):
  def test_by_hand(self):
    result = aggregate.episode_measures(
      episode([2.0, 8.0, 4.0, 8.0], recommended=[2.0, 8.0, 8.0, 7.0]), 4
    )
    self.assertEqual(tuple(result), aggregate.MEASURES)
    # The best is 8 of 10, first reached at the second of 4 steps:
    # (0.8 + (4 - 2) / 4) / (1 + 3 / 4) = 1.3 / 1.75.
    expected = {
      'best_expected': 8.0,
      'recommended_expected': 7.0,
      'score': 0.7,
      'simple_regret': 3.0,
      'cumulative_regret': 8 + 2 + 6 + 2,
      'mean_regret': 4.5,
      'gap': 0.8,
      'gap_speed': 1.3 / 1.75,
    }
    for name, value in expected.items():
      self.assertAlmostEqual(result[name], value, places=12, msg=name)

  def test_minimization(self):
    # From 1 down to -4: -2 is 3 of 5, reached at the first of 2 steps.
    result = aggregate.episode_measures(
      episode(
        [-2.0, 3.0],
        recommended=[-2.0, -3.0],
        goal=-1.0,
        no_intervention=1.0,
        optimum=-4.0,
      ),
      2,
    )
    expected = {
      'best_expected': -2.0,
      'recommended_expected': -3.0,
      'score': 0.8,
      'simple_regret': 1.0,
      'cumulative_regret': 2.0 + 7.0,
      'mean_regret': 4.5,
      'gap': 0.6,
      'gap_speed': (0.6 + 0.5) / 1.5,
    }
    for name, value in expected.items():
      self.assertAlmostEqual(result[name], value, places=12, msg=name)

  @parameterized.parameters(1, 5)
  def test_the_optimum_at_once_has_score_1_and_no_regret(self, horizon):
    result = aggregate.episode_measures(episode([10.0] * horizon), horizon)
    for name in ('score', 'gap', 'gap_speed'):
      self.assertAlmostEqual(result[name], 1, places=12)
    for name in ('simple_regret', 'cumulative_regret', 'mean_regret'):
      self.assertAlmostEqual(result[name], 0, places=12)

  def test_worse_than_no_intervention_is_below_0(self):
    result = aggregate.episode_measures(episode([-5.0, -1.0]), 2)
    self.assertAlmostEqual(result['gap'], -0.1)
    self.assertAlmostEqual(result['gap_speed'], -0.1 / 1.5)

  def test_an_episode_that_ended_early(self):
    # The speed refers to the whole horizon.
    result = aggregate.episode_measures(episode([2.0, 4.0]), 4)
    self.assertAlmostEqual(result['gap_speed'], (0.4 + 0.5) / 1.75)
    self.assertAlmostEqual(result['mean_regret'], 7.0)


class TableTest(absltest.TestCase):
  def test_a_row_for_each_step(self):
    table = aggregate.table(
      [episode([1.0, 2.0]), episode([3.0], method='random', repeat=4)]
    )
    self.assertEqual(
      ','.join(table.columns),
      'method,scm,repeat,step,no_intervention,optimum,variables,values,'
      'outcome,expected_outcome,best_expected,recommended_variables,'
      'recommended_values,recommended_expected,score,seconds',
    )
    rows = table[['method', 'repeat', 'step', 'expected_outcome']]
    self.assertEqual(
      rows.to_numpy().tolist(),
      [['grpo', 0, 1, 1.0], ['grpo', 0, 2, 2.0], ['random', 4, 1, 3.0]],
    )

  def test_no_episodes(self):
    table = aggregate.table([])
    self.assertEqual(list(table.columns), list(aggregate.COLUMNS))
    self.assertEmpty(table)


def _repeats(method, shift, num_repeats=6, **fields):
  return [
    episode(
      [1.0 + shift + repeat, 2.0 + shift + repeat],
      method=method,
      repeat=repeat,
      **fields,
    )
    for repeat in range(num_repeats)
  ]


class SummarizeTest(parameterized.TestCase):
  def test_means_and_differences_by_hand(self):
    episodes = _repeats('grpo', 1.0) + _repeats('random', 0.0)
    result = aggregate.summarize(episodes, 2, 0.9)
    scm = result['scms']['s']
    self.assertEqual(
      (scm['goal'], scm['no_intervention'], scm['optimum']),
      (1.0, 0.0, 10.0),
    )
    self.assertEqual(list(scm['methods']), ['grpo', 'random'])
    # The last outcomes of the repeats are 3 .. 8 and 2 .. 7.
    for method, mean in (('grpo', 5.5), ('random', 4.5)):
      entry = scm['methods'][method]
      self.assertAlmostEqual(entry['best_expected']['mean'], mean)
      self.assertAlmostEqual(entry['score']['mean'], mean / 10)
      self.assertEqual((entry['repeats'], entry['ended_early']), (6, 0))
      low, high = entry['score']['interval']
      self.assertLess(low, mean / 10)
      self.assertLess(mean / 10, high)
    # All paired differences are equal.
    difference = scm['grpo_minus']['random']['best_expected']
    self.assertAlmostEqual(difference['mean'], 1.0)
    np.testing.assert_allclose(difference['interval'], [1.0, 1.0])
    self.assertNotIn('grpo', scm['grpo_minus'])

  def test_without_a_trained_policy_there_are_no_differences(self):
    result = aggregate.summarize(_repeats('random', 0.0), 2, 0.9)
    self.assertEmpty(result['scms']['s']['grpo_minus'])

  def test_few_repeats_have_no_interval_but_a_reason(self):
    result = aggregate.summarize(_repeats('random', 0.0, 4), 2, 0.9)
    for entry in (
      result['scms']['s']['methods']['random']['gap'],
      result['overall']['random']['score'],
    ):
      self.assertIsNone(entry['interval'])
      self.assertIsNone(entry['iqm_interval'])
      self.assertEqual(entry['no_interval'], '4 repeats; an interval needs 5')

  def test_overall_pools_all_scms(self):
    episodes = [
      *_repeats('random', 0.0, scm='one'),
      *_repeats('random', 2.0, scm='two'),
    ]
    result = aggregate.summarize(episodes, 2, 0.9)
    self.assertAlmostEqual(result['overall']['random']['score']['mean'], 0.55)
    self.assertEqual(list(result['scms']), ['one', 'two'])

  def test_seconds_are_the_median_of_all_decisions(self):
    episodes = [
      episode([1.0] * 3, method='random', repeat=i, seconds=s)
      for i, s in enumerate(([1.0, 2.0, 3.0], [4.0, 100.0, 5.0]))
    ]
    result = aggregate.summarize(episodes, 3, 0.9)
    entry = result['scms']['s']['methods']['random']
    self.assertEqual(entry['seconds_per_decision'], 3.5)

  def test_beliefs_after_the_last_step(self):
    # Over both repeats, parents have probability 0.9 and 0.4, others 0.6 and
    # 0.1. One of the two parents and one other exceed one half, so that F1 is
    # 2 / (2 + 2). Three of the four pairs of a parent and another are in order.
    episodes = [
      episode(
        [1.0],
        repeat=i,
        parent_probabilities={'learned': probabilities},
        causes=(True, False),
      )
      for i, probabilities in enumerate(([0.9, 0.6], [0.4, 0.1]))
    ]
    result = aggregate.summarize(episodes, 1, 0.9)
    quality = result['scms']['s']['methods']['grpo']['parents']['learned']
    self.assertAlmostEqual(quality['f1'], 0.5)
    self.assertAlmostEqual(quality['auroc'], 0.75)

  def test_predictions_of_the_last_recommendations(self):
    # The first interval contains 4, the second does not contain 6.
    episodes = [
      episode(
        [9.0, recommended],
        repeat=i,
        predicted={'mean': 5.0, 'low': 4.0, 'high': 5.5, 'crps': crps},
      )
      for i, (recommended, crps) in enumerate([(4.0, 0.1), (6.0, 0.4)])
    ]
    episodes += [episode([1.0], repeat=i, method='random') for i in range(2)]
    overall = aggregate.summarize(episodes, 2, 0.9)['overall']
    self.assertEqual(
      overall['grpo']['predicted'], {'covered': 0.5, 'crps': 0.25}
    )
    self.assertIsNone(overall['random']['predicted'])

  def test_beliefs_if_all_candidates_are_parents(self):
    episodes = [
      episode([1.0], parent_probabilities={'x': [0.9]}, causes=(True,))
    ]
    result = aggregate.summarize(episodes, 1, 0.9)
    quality = result['scms']['s']['methods']['grpo']['parents']['x']
    self.assertIn('all candidates are parents', quality['undefined'])

  def test_methods_with_different_repeats_raise(self):
    with self.assertRaisesRegex(ValueError, 'compared in pairs'):
      aggregate.summarize(
        _repeats('grpo', 0.0, 6) + _repeats('random', 0.0, 5), 2, 0.9
      )

  def test_episodes_that_ended_early_are_counted(self):
    episodes = [episode([1.0] * n, repeat=i) for i, n in enumerate((3, 2, 1))]
    entry = aggregate.summarize(episodes, 3, 0.9)['scms']['s']['methods'][
      'grpo'
    ]
    self.assertEqual(entry['ended_early'], 2)


class CurvesTest(absltest.TestCase):
  def test_by_hand(self):
    episodes = [
      episode([5.0, 3.0, 6.0], no_intervention=2.0, optimum=6.0),
      episode([4.0], no_intervention=2.0, optimum=6.0, repeat=1),
    ]
    for normalized, expected in (
      (False, [[5, 5, 6], [4, 4, 4]]),
      (True, [[0.75, 0.75, 1], [0.5, 0.5, 0.5]]),
    ):
      curves = aggregate.curves(episodes, 'best_expected', 3, normalized)
      self.assertEqual(list(curves), ['grpo'])
      np.testing.assert_allclose(curves['grpo'], expected)

  def test_seconds_are_cumulative_medians_of_the_steps(self):
    episodes = [
      episode([1.0] * len(seconds), repeat=i, seconds=seconds)
      for i, seconds in enumerate(([1.0, 4.0, 8.0], [2.0, 5.0], [9.0]))
    ]
    (seconds,) = aggregate.cumulative_seconds(episodes, 4).values()
    np.testing.assert_allclose(seconds, [2.0, 6.5, 14.5, 14.5])

  def test_matches_the_table(self):
    episodes = _repeats('grpo', 0.0, 3)
    table = aggregate.table(episodes)
    wide = pd.pivot_table(table, index='repeat', columns='step', values='score')
    curves = aggregate.curves(episodes, 'score', 2, False)
    np.testing.assert_array_equal(curves['grpo'], wide.to_numpy())


if __name__ == '__main__':
  absltest.main()
