"""Tests of episodes, with expected outcomes worked out by hand."""

import dataclasses
from unittest import mock

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
from acme_cbo.policies import prediction
from acme_cbo.scms import optimum
from acme_cbo.scms import simulate
from acme_cbo.scms import systems
from acme_cbo.scms.files import yaml_spec
from tests.support import chance
from tests.support import hand_made_scms

_PROTOCOL = episodes.Protocol(
  num_observations=6,
  num_interventions=3,
  num_samples=1,
  budget=None,
  edges='unknown',
  seed=0,
)


def _constant(settings):
  """Returns a policy that always makes the same intervention."""
  choice = hand_made_scms.do(settings, 4)
  return base.PolicyFunctions(
    init=lambda problem, observations, num_interventions: [observations],
    choose=lambda key, memory: choice,
    observe=lambda memory, step, intervention, outcome: [*memory, outcome],
    recommend=lambda memory: choice,
  )


def _run_episode(policy, scm=None, name='chain', repeat=0, **changes):
  protocol = dataclasses.replace(_PROTOCOL, **changes)
  scm = episodes.with_protocol(scm or hand_made_scms.chain(), protocol)
  key = episodes.episode_key(protocol.seed, name, repeat)
  return episodes.run_episode(key, policy, scm, protocol)


class Float64TestCase(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.enterContext(jax.enable_x64(True))


class WithProtocolTest(Float64TestCase):
  def test_edges(self):
    scm = hand_made_scms.chain()
    self.assertIsNone(episodes.with_protocol(scm, _PROTOCOL).problem.edges)
    protocol = dataclasses.replace(_PROTOCOL, edges='known')
    edges = episodes.with_protocol(scm, protocol).problem.edges
    exists = np.asarray(scm.problem.exists)
    pairs = exists & exists[:, None] & ~np.eye(len(exists), dtype=bool)
    np.testing.assert_array_equal(
      edges, np.where(pairs, np.where(scm.parents, 1, -1), 0)
    )


class EpisodeKeyTest(Float64TestCase):
  def test_depends_on_all_arguments_alone(self):
    keys = [
      tuple(np.asarray(episodes.episode_key(*args)).tolist())
      for args in ((0, 'a', 0), (1, 'a', 0), (0, 'b', 0), (0, 'a', 1))
    ]
    self.assertLen(set(keys), 4)
    again = tuple(np.asarray(episodes.episode_key(0, 'a', 0)).tolist())
    self.assertEqual(again, keys[0])


class RunEpisodeTest(Float64TestCase):
  def test_methods_get_the_same_data_and_noise(self):
    # x2 = -x1 + e2: under do(x1) the noise is the target plus x1.
    noise, data = [], []
    for value in (-0.5, 1.5):
      records, memory = _run_episode(_constant({1: value}))
      noise.append([record.outcome[2] + value for record in records])
      data.append(memory[0])
    np.testing.assert_array_equal(*data)
    np.testing.assert_allclose(*noise, atol=1e-14)
    # Every step has its own noise.
    self.assertLen(set(np.round(noise[0], 9)), 3)
    # The noise of x2 is the same if x0 is set instead of x1.
    other, _ = _run_episode(_constant({0: 1.0}))
    row = other[0].outcome
    self.assertAlmostEqual(row[2] + row[1], noise[0][0], places=12)

  def test_everything_is_float64(self):
    (record, *_), memory = _run_episode(_constant({1: 0.1}))
    self.assertEqual(memory[0].dtype, np.float64)
    self.assertEqual(record.outcome.dtype, np.float64)
    self.assertEqual(record.outcome[1], 0.1)  # Exactly.

  @parameterized.parameters(dict(repeat=1), dict(name='another'), dict(seed=1))
  def test_another_episode_has_other_data_and_noise(self, **changes):
    one, memory = _run_episode(_constant({1: 0.0}))
    two, other_memory = _run_episode(_constant({1: 0.0}), **changes)
    self.assertNotEqual(one[0].outcome[2], two[0].outcome[2])
    self.assertFalse((memory[0] == other_memory[0]).any(0)[:3].any())

  def test_a_longer_episode_starts_like_a_shorter_one(self):
    short, _ = _run_episode(_constant({1: 0.0}))
    long, _ = _run_episode(_constant({1: 0.0}), num_interventions=5)
    self.assertLen(long, 5)
    for one, two in zip(short, long, strict=False):
      np.testing.assert_array_equal(one.outcome, two.outcome)

  @pytest.mark.stat
  def test_an_outcome_is_the_mean_of_its_samples(self):
    # The noise of the target under do(x1) has a standard deviation of 1, and
    # that of a mean of 10,000 draws 0.01. A set value stays exact.
    records, _ = _run_episode(_constant({1: 0.3}), num_samples=10_000)
    for record in records:
      self.assertEqual(record.outcome[1], 0.3)
      self.assertAlmostEqual(
        record.outcome[2], -0.3, delta=chance.SIGMAS * 0.01
      )
      self.assertGreater(abs(record.outcome[2] + 0.3), 1e-6)

  def test_ends_before_exceeding_the_budget(self):
    scm = hand_made_scms.chain()  # Setting a variable costs 1.
    for budget, expected in ((2.5, 2), (2.0, 2), (0.5, 0), (9.0, 3)):
      records, _ = _run_episode(_constant({1: 0.0}), scm, budget=budget)
      self.assertLen(records, expected)
    scm = scm._replace(problem=scm.problem._replace(budget=jnp.array(1.0)))
    self.assertLen(_run_episode(_constant({1: 0.0}), scm)[0], 1)
    self.assertLen(_run_episode(_constant({1: 0.0}), scm, budget=2.0)[0], 2)

  @pytest.mark.fault
  def test_forbidden_interventions_raise(self):
    for settings, message in (
      ({2: 0.0}, 'variable 2 is the target'),
      ({0: 5.0}, 'outside its domain'),
      ({0: 0.0, 1: 0.0}, 'may not be set together'),
    ):
      with self.assertRaisesRegex(ValueError, message):
        _run_episode(_constant(settings))
    allowed = _constant({0: 0.0})
    forbidden = _constant({0: 5.0})
    with self.assertRaisesRegex(ValueError, 'outside its domain'):
      _run_episode(allowed._replace(recommend=forbidden.recommend))

  @pytest.mark.fault
  def test_non_finite_observations_raise(self):
    scm = hand_made_scms.chain()
    bias = jnp.array([0.0, jnp.nan, 0.0, 0.0])
    scm = scm._replace(mechanism=scm.mechanism._replace(bias=bias))
    with self.assertRaisesRegex(
      errors.UsageError, '^variable 1 is nan in an observation; '
    ):
      _run_episode(_constant({1: 0.0}), scm)

  @pytest.mark.fault
  def test_a_rare_value_that_is_not_finite_names_its_equation(self):
    # W is negative in half of the draws, and no cause of the target.
    system = yaml_spec.parse(
      'name: rare\ntarget: Y\ngoal: maximize\nvariables:\n'
      '  W: {equation: log(e)}\n'
      '  X: {equation: e, domain: [0, 1]}\n'
      '  Y: {equation: X + e}\n'
    )
    with self.assertRaisesRegex(
      errors.UsageError, r"^W: 'log\(e\)' is nan in an observation; "
    ):
      _run_episode(_constant({1: 0.0}), system.scm)

  def test_a_policy_in_float32_sets_exact_float64_values(self):
    # The ends of the domains are exact, even for an SCM far from 0.
    scm = hand_made_scms.chain(location=1e6, scale=1e-3)
    problem = scm.problem._replace(
      low=jnp.array([1e6 - 1e-3, 1e6 - 1e-3, 0, 0]),
      high=jnp.array([1e6 + 2e-3, 1e6 + 2e-3, 0, 0]),
    )
    scm = scm._replace(problem=problem)
    policy = host_policy.compiled(lambda _: heuristics.explore_then_commit())(
      ()
    )
    records, _ = _run_episode(policy, scm)
    # Y decreases in A and in B, so that both are set to their lower ends. The
    # order depends on the random key.
    for record, (j, value) in zip(
      records, [(1, 1e6 - 1e-3), (0, 1e6 - 1e-3)], strict=False
    ):
      np.testing.assert_array_equal(record.intervention.mask, np.arange(4) == j)
      self.assertEqual(record.intervention.values[j], value)

  def test_setting_no_variable_is_allowed_only_with_a_budget(self):
    policy = _constant({})
    self.assertEmpty(_run_episode(policy, budget=1.0)[0])
    with self.assertRaisesRegex(ValueError, 'sets no variable'):
      _run_episode(policy)

  def test_heuristics_stop_at_the_end_of_the_budget(self):
    for make in (
      heuristics.random,
      heuristics.slope,
      heuristics.explore_then_commit,
    ):
      records, _ = _run_episode(
        host_policy.compiled(lambda _, make=make: make())(()), budget=2.0
      )
      self.assertLen(records, 2)

  def test_seconds_are_those_of_the_policy(self):
    # On a fake clock, a choice takes 1 s, its outcome 100, observing 10.
    now = [0.0]

    def taking(seconds, function):
      def run(*args):
        now[0] += seconds
        return function(*args)

      return run

    policy = _constant({1: 0.0})
    policy = policy._replace(
      choose=taking(1, policy.choose), observe=taking(10, policy.observe)
    )
    sample = taking(100, episodes._sample_outcome)
    with (
      mock.patch.object(episodes.time, 'perf_counter', lambda: now[0]),
      mock.patch.object(episodes, '_sample_outcome', sample),
    ):
      records, _ = _run_episode(policy)
    self.assertEqual([record.seconds for record in records], [11.0] * 3)


class EvaluateEpisodeTest(Float64TestCase):
  def setUp(self):
    super().setUp()
    # To minimize, in the target's units: no intervention gives 5 + 3 (-1) = 2,
    # do(x1 = v) gives 5 - 3 v, and the best, do(x0 = 2), 5 + 3 (-5) = -10. Set
    # values are in their own units as well: u = (v - 5) / 3.
    self.scm = hand_made_scms.chain(goal=-1.0, location=5.0, scale=3.0)
    no_intervention = hand_made_scms.do({}, 4)
    self.best = optimum.Optimum(
      bank=np.zeros((2, 4)),
      baseline=2.0,
      worst=20.0,
      best=-10.0,
      choice=no_intervention,
      by_set=(),
      deviation=3.0,
    )
    self.expected_outcome = episodes.ExpectedOutcome(self.scm, self.best)

  def test_expected_outcomes_by_hand(self):
    # u0 = (2 - 5) / 3 = -1, so u1 = -1 and u2 = 1.
    for settings, expected in (({}, 2.0), ({1: 0.5}, 9.5), ({0: 2.0}, 8.0)):
      actual = self.expected_outcome(hand_made_scms.do(settings, 4))
      self.assertAlmostEqual(actual, expected, places=12)

  def test_far_from_0(self):
    # Y = 1e8 + A / 4 + e / 10, without an intervention 1e8: the mean of the
    # noise, which do() shares, is about 0.
    system = yaml_spec.parse(
      'name: far\ntarget: Y\ngoal: maximize\nvariables:\n'
      '  A: {equation: 0, domain: [0, 1]}\n'
      '  Y: {equation: 1e8 + A / 4 + e / 10}\n'
    )
    bank = simulate.noise_bank(jax.random.key(0), system.scm, 2**14)
    best = self.best._replace(bank=np.asarray(bank))
    expected_outcome = episodes.ExpectedOutcome(system.scm, best)
    nothing, quarter = (
      expected_outcome(hand_made_scms.do(settings, 2))
      for settings in ({}, {0: 1.0})
    )
    self.assertAlmostEqual(quarter - nothing, 0.25, delta=4e-8)
    self.assertAlmostEqual(
      nothing - 1e8, float(bank[:, 1].mean()) / 10, delta=4e-8
    )

  def test_an_episode_by_hand(self):
    system = systems.System('name', '', ('A', 'B', 'Y', '-'), self.scm, None)

    def record(settings, outcome, recommended):
      return episodes.StepRecord(
        hand_made_scms.do(settings, 4),
        np.array([0.0, 0.0, outcome, 0.0]),
        hand_made_scms.do(recommended, 4),
        0.5,
      )

    episode = episodes.evaluate_episode(
      'method',
      7,
      'scm',
      system,
      self.best,
      self.expected_outcome,
      [
        record({1: 0.5}, 1.25, {1: 0.5}),
        record({0: 2.0}, 2.25, {0: 2.0}),
        record({0: 1.1, 1: 0.1}, 3.25, {0: 2.0}),
      ],
      {'learned': np.array([0.25, 0.5, 0.0, 0.0])},
      prediction.Prediction(
        7.0, np.linspace(6.0, 8.0, 100), np.linspace(5.0, 9.0, 100)
      ),
    )
    # do(x1 = v) gives 5 + 3 (-(v - 5) / 3) = 10 - v, for any x0.
    expected = [9.5, 8.0, 9.9]
    self.assertEqual(episode.method, 'method')
    self.assertEqual((episode.scm, episode.repeat), ('scm', 7))
    self.assertEqual(episode.goal, -1)
    self.assertEqual((episode.no_intervention, episode.optimum), (2.0, -10.0))
    steps = episode.steps
    self.assertEqual(tuple(steps), episodes.COLUMNS)
    self.assertEqual(steps['variables'], ['B', 'A', 'A B'])
    self.assertEqual(
      steps['values'],
      ['0.5', '2', '1.1 0.1'],
    )
    self.assertEqual(steps['recommended_variables'], ['B', 'A', 'A'])
    self.assertEqual(steps['recommended_values'], ['0.5', '2', '2'])
    self.assertEqual(steps['outcome'], [1.25, 2.25, 3.25])
    np.testing.assert_allclose(steps['expected_outcome'], expected)
    np.testing.assert_allclose(steps['best_expected'], [9.5, 8.0, 8.0])
    np.testing.assert_allclose(steps['recommended_expected'], [9.5, 8.0, 8.0])
    # (2 - 9.5) / (2 + 10) and (2 - 8) / 12 are worse than no intervention.
    np.testing.assert_allclose(steps['score'], [-0.625, -0.5, -0.5])
    self.assertEqual(steps['seconds'], [0.5] * 3)
    # Of the candidates A and B, B alone is a parent of Y.
    self.assertEqual(episode.causes, [False, True])
    self.assertEqual(episode.parent_probabilities, {'learned': [0.25, 0.5]})
    # Uniform in [6, 8]: the mean distance to 8 is 1, and that of two draws is
    # 2 / 3; the gain of the optimum is 12.
    predicted = episode.predicted
    self.assertEqual(predicted['mean'], 7.0)
    self.assertAlmostEqual(predicted['low'], 6.1, delta=0.02)
    self.assertAlmostEqual(predicted['high'], 7.9, delta=0.02)
    self.assertAlmostEqual(predicted['crps'], (1 - 1 / 3) / 12, delta=1e-3)


if __name__ == '__main__':
  absltest.main()
