"""Tests of the measures of an episode, with values computed by hand."""

import math

from absl.testing import absltest
from absl.testing import parameterized

from acme_cbo.evaluation.comparison import measures
from tests.evaluation import aggregate_test

_episode = aggregate_test.episode


class EpisodeMeasuresTest(parameterized.TestCase):
  def test_by_hand(self):
    # The recommendations achieve .95, .5, .9 and .95 of a gain from 0 to 10.
    values = measures.episode_measures(
      _episode(
        [2.0, 8.0, 4.0, 8.0],
        recommended=[9.5, 5.0, 9.0, 9.5],
        causes=(True, True, False),
        parent_probabilities={'learned': [0.9, 0.2, 0.6]},
        seconds=[0.4, 0.1, 0.2, 0.3],
      ),
      6,
    )
    self.assertEqual(tuple(values), tuple(measures.MEASURES))
    expected = {
      'score': 0.95,
      'simple_regret': 0.05,
      'cumulative_regret': 0.8 + 0.2 + 0.6 + 0.2,
      'success': 1.0,
      # From the third recommendation on, all are successes.
      'convergence': 3.0,
      # One of two causes is predicted, and one other variable: 2 / (2 + 2).
      'parent_f1': 0.5,
      'seconds': 0.25,
    }
    for name, value in expected.items():
      self.assertAlmostEqual(values[name], value, places=12, msg=name)

  def test_lower_is_better(self):
    values = measures.episode_measures(
      _episode([-2.0], goal=-1.0, no_intervention=1.0, optimum=-4.0), 1
    )
    self.assertAlmostEqual(values['score'], 3 / 5)
    self.assertAlmostEqual(values['cumulative_regret'], 2 / 5)

  def test_without_success_convergence_is_after_the_end(self):
    values = measures.episode_measures(_episode([9.0, 9.5, 8.0]), 5)
    self.assertEqual((values['success'], values['convergence']), (0, 6))
    values = measures.episode_measures(_episode([9.0, 9.5]), 5)
    self.assertEqual((values['success'], values['convergence']), (1, 1))

  @parameterized.parameters(
    ({}, (True, False)), ({'learned': [0.1, 0.2]}, (False, False))
  )
  def test_f1_without_belief_or_causes_is_nan(self, probabilities, causes):
    values = measures.episode_measures(
      _episode([9.0], parent_probabilities=probabilities, causes=causes), 1
    )
    self.assertTrue(math.isnan(values['parent_f1']))

  def test_table(self):
    episodes = [_episode([1.0], scm='a', repeat=i) for i in range(2)]
    table = measures.table('mine', episodes, 1)
    self.assertEqual(table['repeat'].tolist(), [0, 1])
    self.assertEqual(set(table['model']), {'mine'})
    self.assertEqual(table['score'].tolist(), [0.1, 0.1])

  def test_an_episode_that_ended_early_is_extended(self):
    table = measures.table('mine', [_episode([1.0, 5.0])], 4)
    self.assertEqual(
      measures.curve_columns(2), ['score_after_1', 'score_after_2']
    )
    scores = table[measures.curve_columns(4)].to_numpy()[0]
    self.assertEqual(scores.tolist(), [0.1, 0.5, 0.5, 0.5])


if __name__ == '__main__':
  absltest.main()
