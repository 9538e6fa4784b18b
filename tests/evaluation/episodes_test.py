"""Episodes on SCMs whose expected outcomes are worked out by hand."""

import dataclasses

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acme_cbo.evaluation import episodes
from acme_cbo.infra import errors
from acme_cbo.policies import base
from acme_cbo.policies import heuristics
from acme_cbo.policies import host_policy
from acme_cbo.scms import optimum
from acme_cbo.scms import systems
from tests.support import hand_made_scms

_PROTOCOL = episodes.Protocol(
  num_observations=6,
  num_interventions=3,
  num_samples=1,
  budget=None,
  seed=0,
)


def _constant(settings):
  """Always does the same."""
  choice = hand_made_scms.do(settings, 4)
  return base.Policy(
    init=lambda problem, observations, num_interventions: [observations],
    choose=lambda key, memory: choice,
    observe=lambda memory, step, intervention, outcome: [*memory, outcome],
    recommend=lambda memory: choice,
  )


def _play(policy, scm=None, name='chain', repeat=0, **changes):
  protocol = dataclasses.replace(_PROTOCOL, **changes)
  scm = episodes.told(scm or hand_made_scms.chain(), protocol)
  key = episodes.key_of(protocol.seed, name, repeat)
  return episodes.play(key, policy, scm, protocol)


class InDouble(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.enterContext(jax.enable_x64(True))


class KeyTest(InDouble):
  def test_depends_on_all_three_and_on_nothing_else(self):
    keys = [
      tuple(np.asarray(episodes.key_of(*what)).tolist())
      for what in ((0, 'a', 0), (1, 'a', 0), (0, 'b', 0), (0, 'a', 1))
    ]
    self.assertLen(set(keys), 4)
    again = tuple(np.asarray(episodes.key_of(0, 'a', 0)).tolist())
    self.assertEqual(again, keys[0])


class PlayTest(InDouble):
  def test_methods_meet_the_same_data_and_the_same_noise(self):
    # x2 = -x1 + e2: under do(x1) the noise is what is left of the target.
    noise, data = [], []
    for value in (-0.5, 1.5):
      moves, memory = _play(_constant({1: value}))
      noise.append([move.outcome[2] + value for move in moves])
      data.append(memory[0])
    np.testing.assert_array_equal(*data)
    np.testing.assert_allclose(*noise, atol=1e-14)
    self.assertLen(set(np.round(noise[0], 9)), 3)  # Of each step its own.
    # x0 is noise alone where x1 is set, and x1 = 1 + 2 x0 + e1 where x0 is.
    other, _ = _play(_constant({0: 1.0}))
    row = other[0].outcome
    self.assertAlmostEqual(row[2] + row[1], noise[0][0], places=12)

  def test_everything_is_double(self):
    (move, *_), memory = _play(_constant({1: 0.1}))
    self.assertEqual(memory[0].dtype, np.float64)
    self.assertEqual(move.outcome.dtype, np.float64)
    self.assertEqual(move.outcome[1], 0.1)  # To the bit.

  @parameterized.parameters(dict(repeat=1), dict(name='another'), dict(seed=1))
  def test_another_episode_meets_others(self, **changes):
    one, memory = _play(_constant({1: 0.0}))
    two, other_memory = _play(_constant({1: 0.0}), **changes)
    self.assertNotEqual(one[0].outcome[2], two[0].outcome[2])
    self.assertFalse((memory[0] == other_memory[0]).any(0)[:3].any())

  def test_a_longer_episode_begins_as_a_shorter_one(self):
    short, _ = _play(_constant({1: 0.0}))
    long, _ = _play(_constant({1: 0.0}), num_interventions=5)
    self.assertLen(long, 5)
    for one, two in zip(short, long, strict=False):
      np.testing.assert_array_equal(one.outcome, two.outcome)

  @pytest.mark.stat
  def test_an_outcome_is_the_mean_of_its_samples(self):
    # The noise of the target under do(x1) has deviation 1: that of a mean of
    # 10,000 draws is 0.01. A set value stays as it is, to the bit.
    moves, _ = _play(_constant({1: 0.3}), num_samples=10_000)
    for move in moves:
      self.assertEqual(move.outcome[1], 0.3)
      self.assertAlmostEqual(move.outcome[2], -0.3, delta=0.04)
      self.assertGreater(abs(move.outcome[2] + 0.3), 1e-6)

  def test_ends_before_what_the_budget_does_not_pay_for(self):
    scm = hand_made_scms.chain()  # Setting a variable costs 1.
    for budget, expected in ((2.5, 2), (2.0, 2), (0.5, 0), (9.0, 3)):
      moves, _ = _play(_constant({1: 0.0}), scm, budget=budget)
      self.assertLen(moves, expected)
    scm = scm._replace(problem=scm.problem._replace(budget=jnp.array(1.0)))
    self.assertLen(_play(_constant({1: 0.0}), scm)[0], 1)
    self.assertLen(_play(_constant({1: 0.0}), scm, budget=2.0)[0], 2)

  @pytest.mark.fault
  def test_what_is_not_allowed_raises(self):
    for settings, sentence in (
      ({2: 0.0}, 'variable 2 is the target'),
      ({0: 5.0}, 'outside its domain'),
      ({0: 0.0, 1: 0.0}, 'may not be set together'),
    ):
      with self.assertRaisesRegex(ValueError, sentence):
        _play(_constant(settings))
    allowed = _constant({0: 0.0})
    forbidden = _constant({0: 5.0})
    with self.assertRaisesRegex(ValueError, 'outside its domain'):
      _play(allowed._replace(recommend=forbidden.recommend))

  @pytest.mark.fault
  def test_what_is_not_finite_raises(self):
    scm = hand_made_scms.chain()
    bias = jnp.array([0.0, jnp.nan, 0.0, 0.0])
    scm = scm._replace(mechanism=scm.mechanism._replace(bias=bias))
    with self.assertRaisesRegex(errors.UsageError, 'an observation is nan; '):
      _play(_constant({1: 0.0}), scm)

  def test_what_runs_in_single_precision_sees_doubles(self):
    # The ends of the domains to the bit, on an SCM far from 0.
    scm = hand_made_scms.chain(location=1e6, scale=1e-3)
    problem = scm.problem._replace(
      low=jnp.array([1e6 - 1e-3, 1e6 - 1e-3, 0, 0]),
      high=jnp.array([1e6 + 2e-3, 1e6 + 2e-3, 0, 0]),
    )
    scm = scm._replace(problem=problem)
    policy = host_policy.compiled(lambda _: heuristics.explore_then_commit())(
      ()
    )
    moves, _ = _play(policy, scm)
    # Y falls as B does, and as A does: which of the two comes first is luck.
    for move, (j, value) in zip(
      moves, [(1, 1e6 - 1e-3), (0, 1e6 - 1e-3)], strict=False
    ):
      np.testing.assert_array_equal(move.intervention.mask, np.arange(4) == j)
      self.assertEqual(move.intervention.values[j], value)

  def test_a_policy_that_has_spent_its_budget_sets_nothing(self):
    policy = _constant({})
    self.assertEmpty(_play(policy, budget=1.0)[0])
    with self.assertRaisesRegex(ValueError, 'sets no variable'):
      _play(policy)

  def test_heuristics_end_where_the_budget_does(self):
    for make in (
      heuristics.random,
      heuristics.slope,
      heuristics.explore_then_commit,
    ):
      moves, _ = _play(
        host_policy.compiled(lambda _, make=make: make())(()), budget=2.0
      )
      self.assertLen(moves, 2)

  def test_seconds_are_those_of_the_policy(self):
    (move, *_), _ = _play(_constant({1: 0.0}))
    self.assertGreater(move.seconds, 0)
    self.assertLess(move.seconds, 0.1)


class JudgedTest(InDouble):
  def setUp(self):
    super().setUp()
    # In the target's units, to be made small: no intervention 5 + 3 (-1) = 2,
    # do(x1 = v) is 5 - 3 v, the best is do(x0 = 2): 5 + 3 (-5) = -10. Values
    # are set in units of their own as well: u = (v - 5) / 3.
    self.scm = hand_made_scms.chain(goal=-1.0, location=5.0, scale=3.0)
    nothing = hand_made_scms.do({}, 4)
    self.best = optimum.Optimum(
      bank=np.zeros((2, 4)),
      baseline=2.0,
      worst=20.0,
      best=-10.0,
      choice=nothing,
      by_set=(),
    )
    self.judge = episodes.ExpectedOutcome(self.scm, self.best)

  def test_expected_outcomes_by_hand(self):
    # u0 = (2 - 5) / 3 = -1, so u1 = -1 and u2 = 1.
    for settings, expected in (({}, 2.0), ({1: 0.5}, 9.5), ({0: 2.0}, 8.0)):
      actual = self.judge(hand_made_scms.do(settings, 4))
      self.assertAlmostEqual(actual, expected, places=12)

  def test_an_episode_by_hand(self):
    system = systems.System('name', '', ('A', 'B', 'Y', '-'), self.scm, None)

    def move(settings, outcome, recommended):
      return episodes.StepRecord(
        hand_made_scms.do(settings, 4),
        np.array([0.0, 0.0, outcome, 0.0]),
        hand_made_scms.do(recommended, 4),
        0.5,
      )

    episode = episodes.judged(
      'me',
      7,
      'theirs',
      system,
      self.best,
      self.judge,
      [
        move({1: 0.5}, 1.25, {1: 0.5}),
        move({0: 2.0}, 2.25, {0: 2.0}),
        move({0: 1.1, 1: 0.1}, 3.25, {0: 2.0}),
      ],
      {'learned': np.array([0.25, 0.5, 0.0, 0.0])},
    )
    # do(x1 = v) is 5 + 3 (-(v - 5) / 3) = 10 - v, whatever x0.
    expected = [9.5, 8.0, 9.9]
    self.assertEqual(episode.method, 'me')
    self.assertEqual((episode.scm, episode.repeat), ('theirs', 7))
    self.assertEqual(episode.goal, -1)
    self.assertEqual((episode.no_intervention, episode.optimum), (2.0, -10.0))
    steps = episode.steps
    self.assertEqual(tuple(steps), episodes.COLUMNS)
    self.assertEqual(steps['variables'], ['B', 'A', 'A B'])
    self.assertEqual(
      steps['values'],
      ['0.5', '2', '1.1000000000000001 0.10000000000000001'],
    )
    self.assertEqual(steps['outcome'], [1.25, 2.25, 3.25])
    np.testing.assert_allclose(steps['expected_outcome'], expected)
    np.testing.assert_allclose(steps['best_expected'], [9.5, 8.0, 8.0])
    np.testing.assert_allclose(steps['recommended_expected'], [9.5, 8.0, 8.0])
    # (2 - 9.5) / (2 + 10) and (2 - 8) / 12: worse than nothing.
    np.testing.assert_allclose(steps['score'], [-0.625, -0.5, -0.5])
    self.assertEqual(steps['seconds'], [0.5] * 3)
    # Of A and B, B alone is a parent of Y.
    self.assertEqual(episode.causes, [False, True])
    self.assertEqual(episode.believed, {'learned': [0.25, 0.5]})


if __name__ == '__main__':
  absltest.main()
