"""Measures of episodes that are written down, worked out by hand."""

from absl.testing import absltest
from absl.testing import parameterized
import numpy as np
import pandas as pd

from acme_cbo.evaluation import aggregate
from acme_cbo.evaluation import episodes


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
  believed=None,
  seconds=None,
) -> episodes.Episode:
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
    'recommended_expected': list(recommended),
    'score': [(x - no_intervention) / gain for x in recommended],
    'seconds': seconds or [0.1] * len(expected),
  }
  return episodes.Episode(
    method,
    scm,
    repeat,
    goal,
    no_intervention,
    optimum,
    steps,
    list(causes),
    believed or {},
  )


class OfEpisodeTest(parameterized.TestCase):
  def test_by_hand(self):
    found = aggregate.episode_measures(
      episode([2.0, 8.0, 4.0, 8.0], recommended=[2.0, 8.0, 8.0, 7.0]), 4
    )
    self.assertEqual(tuple(found), aggregate.MEASURES)
    # The best is 8 of 10, found at the second of 4 steps:
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
      self.assertAlmostEqual(found[name], value, places=12, msg=name)

  def test_where_less_is_better(self):
    # From 1 down to -4: -2 is 3 of 5, found at the first of 2 steps.
    found = aggregate.episode_measures(
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
      self.assertAlmostEqual(found[name], value, places=12, msg=name)

  @parameterized.parameters(1, 5)
  def test_the_optimum_at_once_is_1_and_costs_no_regret(self, horizon):
    found = aggregate.episode_measures(episode([10.0] * horizon), horizon)
    for name in ('score', 'gap', 'gap_speed'):
      self.assertAlmostEqual(found[name], 1, places=12)
    for name in ('simple_regret', 'cumulative_regret', 'mean_regret'):
      self.assertAlmostEqual(found[name], 0, places=12)

  def test_worse_than_nothing_is_below_0(self):
    found = aggregate.episode_measures(episode([-5.0, -1.0]), 2)
    self.assertAlmostEqual(found['gap'], -0.1)
    self.assertAlmostEqual(found['gap_speed'], -0.1 / 1.5)

  def test_an_episode_that_ended_early_had_the_whole_horizon(self):
    found = aggregate.episode_measures(episode([2.0, 4.0]), 4)
    self.assertAlmostEqual(found['gap_speed'], (0.4 + 0.5) / 1.75)
    self.assertAlmostEqual(found['mean_regret'], 7.0)


class TableTest(absltest.TestCase):
  def test_a_row_for_each_step(self):
    table = aggregate.table(
      [episode([1.0, 2.0]), episode([3.0], method='random', repeat=4)]
    )
    self.assertEqual(
      ','.join(table.columns),
      'method,scm,repeat,step,no_intervention,optimum,variables,values,'
      'outcome,expected_outcome,best_expected,recommended_expected,score,seconds',
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


def _several(method, shift, num_repeats=6, **fields):
  return [
    episode(
      [1.0 + shift + repeat, 2.0 + shift + repeat],
      method=method,
      repeat=repeat,
      **fields,
    )
    for repeat in range(num_repeats)
  ]


class SummariseTest(parameterized.TestCase):
  def test_means_and_differences_by_hand(self):
    played = _several('grpo', 1.0) + _several('random', 0.0)
    found = aggregate.summarize(played, 2, 0.9)
    about = found['scms']['s']
    self.assertEqual(
      (about['goal'], about['no_intervention'], about['optimum']),
      (1.0, 0.0, 10.0),
    )
    self.assertEqual(list(about['methods']), ['grpo', 'random'])
    # The last of each repeat: 3 .. 8, and 2 .. 7.
    for method, mean in (('grpo', 5.5), ('random', 4.5)):
      entry = about['methods'][method]
      self.assertAlmostEqual(entry['best_expected']['mean'], mean)
      self.assertAlmostEqual(entry['score']['mean'], mean / 10)
      self.assertEqual((entry['repeats'], entry['ended_early']), (6, 0))
      low, high = entry['score']['interval']
      self.assertLess(low, mean / 10)
      self.assertLess(mean / 10, high)
    # In pairs all differences are the same.
    difference = about['grpo_minus']['random']['best_expected']
    self.assertAlmostEqual(difference['mean'], 1.0)
    np.testing.assert_allclose(difference['interval'], [1.0, 1.0])
    self.assertNotIn('grpo', about['grpo_minus'])

  def test_without_a_trained_policy_nothing_is_subtracted(self):
    found = aggregate.summarize(_several('random', 0.0), 2, 0.9)
    self.assertEmpty(found['scms']['s']['grpo_minus'])

  def test_few_repeats_have_no_interval_and_it_says_why(self):
    found = aggregate.summarize(_several('random', 0.0, 4), 2, 0.9)
    for entry in (
      found['scms']['s']['methods']['random']['gap'],
      found['overall']['random']['score'],
    ):
      self.assertIsNone(entry['interval'])
      self.assertIsNone(entry['iqm_interval'])
      self.assertEqual(entry['no_interval'], '4 repeats; an interval needs 5')

  def test_overall_is_over_all_scms(self):
    played = [
      *_several('random', 0.0, scm='one'),
      *_several('random', 2.0, scm='two'),
    ]
    found = aggregate.summarize(played, 2, 0.9)
    self.assertAlmostEqual(found['overall']['random']['score']['mean'], 0.55)
    self.assertEqual(list(found['scms']), ['one', 'two'])

  def test_seconds_are_the_median_of_all_decisions(self):
    played = [
      episode([1.0] * 3, method='random', repeat=i, seconds=s)
      for i, s in enumerate(([1.0, 2.0, 3.0], [4.0, 100.0, 5.0]))
    ]
    found = aggregate.summarize(played, 3, 0.9)
    entry = found['scms']['s']['methods']['random']
    self.assertEqual(entry['seconds_per_decision'], 3.5)

  def test_beliefs_after_the_last_step(self):
    # Over both repeats: causes are believed at 0.9 and 0.4, others at 0.6 and
    # 0.1. One of two is found and one that is none: F1 is 2 / (2 + 2); of four
    # pairs of a cause and another three are in order.
    played = [
      episode(
        [1.0], repeat=i, believed={'learned': believed}, causes=(True, False)
      )
      for i, believed in enumerate(([0.9, 0.6], [0.4, 0.1]))
    ]
    found = aggregate.summarize(played, 1, 0.9)
    quality = found['scms']['s']['methods']['grpo']['parents']['learned']
    self.assertAlmostEqual(quality['f1'], 0.5)
    self.assertAlmostEqual(quality['auroc'], 0.75)

  def test_beliefs_where_nothing_can_be_told_apart(self):
    played = [episode([1.0], believed={'x': [0.9]}, causes=(True,))]
    found = aggregate.summarize(played, 1, 0.9)
    quality = found['scms']['s']['methods']['grpo']['parents']['x']
    self.assertIn('all candidates are parents', quality['undefined'])

  def test_methods_of_different_repeats_raise(self):
    with self.assertRaisesRegex(ValueError, 'compared in pairs'):
      aggregate.summarize(
        _several('grpo', 0.0, 6) + _several('random', 0.0, 5), 2, 0.9
      )

  def test_episodes_that_ended_early_are_counted(self):
    played = [episode([1.0] * n, repeat=i) for i, n in enumerate((3, 2, 1))]
    entry = aggregate.summarize(played, 3, 0.9)['scms']['s']['methods']['grpo']
    self.assertEqual(entry['ended_early'], 2)


class CurvesTest(absltest.TestCase):
  def test_by_hand(self):
    played = [
      episode([5.0, 3.0, 6.0], no_intervention=2.0, optimum=6.0),
      episode([4.0], no_intervention=2.0, optimum=6.0, repeat=1),
    ]
    for normalised, expected in (
      (False, [[5, 5, 6], [4, 4, 4]]),
      (True, [[0.75, 0.75, 1], [0.5, 0.5, 0.5]]),
    ):
      curves = aggregate.curves(played, 'best_expected', 3, normalised)
      self.assertEqual(list(curves), ['grpo'])
      np.testing.assert_allclose(curves['grpo'], expected)

  def test_seconds_are_medians_of_each_step_summed_up(self):
    played = [
      episode([1.0] * len(spent), repeat=i, seconds=spent)
      for i, spent in enumerate(([1.0, 4.0, 8.0], [2.0, 5.0], [9.0]))
    ]
    (spent,) = aggregate.cumulative_seconds(played, 4).values()
    np.testing.assert_allclose(spent, [2.0, 6.5, 14.5, 14.5])

  def test_the_table_says_the_same(self):
    played = _several('grpo', 0.0, 3)
    table = aggregate.table(played)
    wide = pd.pivot_table(table, index='repeat', columns='step', values='score')
    curves = aggregate.curves(played, 'score', 2, False)
    np.testing.assert_array_equal(curves['grpo'], wide.to_numpy())


if __name__ == '__main__':
  absltest.main()
