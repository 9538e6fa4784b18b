"""Tests of Bayesian optimization on SCMs with a known optimum."""

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acme_cbo.environments import environment
from acme_cbo.infra import errors
from acme_cbo.policies.baselines import cbo
from acme_cbo.policies.baselines import gp_bo
from acme_cbo.scms.files import yaml_spec
from tests.policies.baselines import known_scms
from tests.support import hand_made_scms

_TOY, _COMPLETE = known_scms.toy(), known_scms.complete()


def _rows(known, seed=0, num_rows=30):
  return jnp.asarray(known.sample(np.random.default_rng(seed), {}, num_rows))


def _settings(intervention):
  return {
    int(j): float(intervention.values[j])
    for j in np.flatnonzero(intervention.mask)
  }


def _episode(policy, known, problem, num_steps, seed=0, noisy=False):
  """Runs an episode; returns its interventions and the last memory."""
  rng = np.random.default_rng(seed)
  memory = policy.init(problem, _rows(known, seed), num_steps)
  choices = []
  for step, key in enumerate(jax.random.split(jax.random.key(seed), num_steps)):
    choice = policy.choose(key, memory)
    choices.append(choice)
    if not choice.mask.any():
      break
    rows = known.sample(rng, _settings(choice), 1 if noisy else 1000)
    memory = policy.observe(memory, step, choice, jnp.asarray(rows.mean(0)))
  return choices, memory


def _expected_outcome(known, intervention):
  """Estimates E[Y | do] of an intervention."""
  rows = known.sample(
    np.random.default_rng(7), _settings(intervention), 100_000
  )
  return rows[:, list(known.equations).index('Y')].mean()


class BaselinesTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.enterContext(jax.enable_x64(True))

  def policies(self, scm):
    return {'gp_bo': gp_bo.gp_bo(), 'cbo': cbo.cbo(scm)}

  @pytest.mark.slow
  @pytest.mark.stat
  @pytest.mark.timeout(900)
  def test_better_than_random_search(self):
    # On toy, 40 of 42 episodes of ten interventions end below -1.8, at one of
    # two local optima; the best of ten random interventions is in 46 %.
    num_steps, scm = 10, _TOY.to_scm()
    for name, policy in self.policies(scm).items():
      outcomes = []
      for seed in range(20):
        _, memory = _episode(policy, _TOY, scm.problem, num_steps, seed)
        outcomes.append(_expected_outcome(_TOY, policy.recommend(memory)))
      reached = np.sum(np.array(outcomes) < -1.8)
      self.assertGreaterEqual(reached, 13, (name, outcomes))

  def test_chooses_from_allowed_sets(self):
    # Of complete; see `identification_test`.
    pairs = ['BD', 'BE', 'DE']
    names = list(_COMPLETE.equations)
    for sets, of_gp_bo, of_cbo in (
      (None, ['BDE'], ['B', 'D', 'E', 'BD', 'DE']),
      (['B', 'D'], ['B', 'D'], ['B', 'D']),
      ([*pairs, 'E'], pairs, ['E', 'BD', 'DE']),
    ):
      scm = _COMPLETE.to_scm(sets)
      for name, policy in self.policies(scm).items():
        memory = policy.init(scm.problem, _rows(_COMPLETE, num_rows=10), 3)
        sets_of_arms = [
          ''.join(names[j] for j in np.flatnonzero(arm.mask))
          for arm in memory.arms
        ]
        expected = {'gp_bo': of_gp_bo, 'cbo': of_cbo}[name]
        self.assertSameElements(sets_of_arms, expected)
        environment.check_intervention(scm.problem, policy.recommend(memory))

  def test_interventions_are_allowed(self):
    for sets in (['X', 'Z', 'XZ'], ['X', 'Z'], ['X']):
      scm = _TOY.to_scm(sets)
      for policy in self.policies(scm).values():
        choices, memory = _episode(policy, _TOY, scm.problem, 3)
        for choice in [*choices, policy.recommend(memory)]:
          environment.check_intervention(scm.problem, choice)

  @parameterized.parameters('gp_bo', 'cbo')
  def test_a_constant_target_at_another_origin(self, name):
    # The target is constant until X or Z is set; only its origin differs.
    choices = []
    for origin in (0.0, 14.62):
      scm = yaml_spec.parse(
        'name: constant\ntarget: Y\ngoal: maximize\nvariables:\n'
        '  X: {equation: 0, domain: [0, 10]}\n'
        '  Z: {equation: 0, domain: [0, 10]}\n'
        f'  Y: {{equation: {origin} + X * Z * exp(-X / 2 - Z / 3)}}\n'
        'interventions: {sets: [[X, Z]]}\n'
      ).scm
      policy = self.policies(scm)[name]
      rows = np.tile([0.0, 0.0, origin], (100, 1))
      memory = policy.init(scm.problem, jnp.asarray(rows), 4)
      self.assertEqual((memory.location, memory.scale), (origin, 1.0))
      for step in range(4):
        choice = policy.choose(jax.random.key(step), memory)
        choices.append(np.asarray(choice.values))
        x, z, _ = choices[-1]
        y = origin + x * z * np.exp(-x / 2 - z / 3)
        memory = policy.observe(memory, step, choice, np.array([x, z, y]))
    np.testing.assert_allclose(choices[:4], choices[4:], atol=1e-6)

  def test_the_budget_holds(self):
    # X costs 1 and Z 3; a set of both 4.
    scm = _TOY.to_scm(['X', 'Z', 'XZ'], cost=[1.0, 3.0, 0.0], budget=9.0)
    for name, policy in self.policies(scm).items():
      choices, _ = _episode(policy, _TOY, scm.problem, 6)
      spent = [float(scm.problem.cost[c.mask].sum()) for c in choices]
      self.assertLessEqual(sum(spent), 9.0)
      # Once the budget affords no set, interventions are empty.
      self.assertEqual(
        spent, {'gp_bo': [4.0, 4.0, 0.0], 'cbo': [3.0, 3.0, 3.0, 0.0]}[name]
      )

  def test_sets_beyond_the_whole_budget_are_excluded(self):
    scm = _TOY.to_scm(['X', 'Z', 'XZ'], cost=[1.0, 3.0, 0.0], budget=2.0)
    for policy in self.policies(scm).values():
      choices, _ = _episode(policy, _TOY, scm.problem, 3)
      spent = [float(scm.problem.cost[c.mask].sum()) for c in choices]
      self.assertEqual(spent, [1.0, 1.0, 0.0])

  def test_cbo_counts_the_cost(self):
    # X and Z have the same effect, so that the expensive one is not used.
    known = known_scms.KnownSCM(
      equations={
        'X': lambda v, e: e,
        'Z': lambda v, e: e,
        'Y': lambda v, e: v['X'] + v['Z'] + e,
      },
      parents={'X': '', 'Z': '', 'Y': 'XZ'},
      latent='',
      domains={'X': (-2.0, 2.0), 'Z': (-2.0, 2.0)},
    )
    for expensive in range(2):
      costs = np.where(np.arange(3) == expensive, 1e6, 1.0)
      scm = known.to_scm(['X', 'Z'], cost=costs)
      choices, _ = _episode(cbo.cbo(scm), known, scm.problem, 2)
      for choice in choices:
        self.assertFalse(choice.mask[expensive])

  def test_recommends_its_best_intervention(self):
    # Points are far apart and almost without noise: it is the best outcome.
    for goal in (-1.0, 1.0):
      scm = _TOY.to_scm(goal=goal)
      for policy in (gp_bo.gp_bo(), cbo.cbo(scm)):
        memory = policy.init(scm.problem, _rows(_TOY), 4)
        both = memory.arms[0].mask
        for step, (z, y) in enumerate(
          ((-4.0, 0.0), (0.0, -3.0), (8.0, 3.0), (18.0, 1.0))
        ):
          do = hand_made_scms.do({0: 1.0, 1: z} if both[0] else {1: z}, 3)
          outcome = jnp.array([0.0, z, y])
          memory = policy.observe(memory, step, do, outcome)
        best = policy.recommend(memory)
        np.testing.assert_allclose(best.values[1], 8.0 if goal > 0 else 0.0)
        np.testing.assert_array_equal(best.mask, both)

  def test_follows_the_prior_before_any_outcome(self):
    # By the observations alone, Y is smallest where Z is about 3. There are
    # none below -1.
    scm = _TOY.to_scm(
      low=np.array([-5.0, -1.0, 0.0]), high=np.array([5.0, 6.0, 0.0])
    )
    policy = cbo.cbo(scm)
    memory = policy.init(scm.problem, _rows(_TOY, num_rows=100), 3)
    best = policy.recommend(memory)
    np.testing.assert_array_equal(best.mask, [False, True, False])
    self.assertBetween(float(best.values[1]), 2.0, 4.0)

  def test_without_identification_the_prior_is_flat(self):
    # A bow: X causes Y, and a latent variable causes both.
    known = known_scms.KnownSCM(
      equations={
        'U': lambda v, e: e,
        'X': lambda v, e: v['U'] + e,
        'Y': lambda v, e: v['X'] + 2 * v['U'] + e,
      },
      parents={'U': '', 'X': 'U', 'Y': 'XU'},
      latent='U',
      domains={'X': (-2.0, 2.0)},
    )
    scm = known.to_scm()
    memory = cbo.cbo(scm).init(scm.problem, _rows(known), 3)
    (arm,) = memory.arms
    np.testing.assert_array_equal(arm.candidates.mean, 0)
    np.testing.assert_array_equal(arm.candidates.deviation, 0)

  def test_choices_depend_on_the_key(self):
    scm = _TOY.to_scm()
    first, _ = _episode(gp_bo.gp_bo(), _TOY, scm.problem, 4, seed=3)
    again, _ = _episode(gp_bo.gp_bo(), _TOY, scm.problem, 4, seed=3)
    other, _ = _episode(gp_bo.gp_bo(), _TOY, scm.problem, 4, seed=4)
    for a, b, c in zip(first, again, other, strict=True):
      np.testing.assert_array_equal(a.values, b.values)
      self.assertTrue((a.values != c.values).any())

  def test_an_outcome_of_another_set_only_costs(self):
    scm = _TOY.to_scm()
    policy = gp_bo.gp_bo()
    memory = policy.init(scm.problem, _rows(_TOY), 3)
    other = hand_made_scms.do({1: 1.0}, 3)
    after = policy.observe(memory, 0, other, jnp.full(3, 5.0))
    self.assertEqual(after.spent, memory.spent + float(scm.problem.cost[1]))
    key = jax.random.key(0)
    expected, chosen = (policy.choose(key, one) for one in (memory, after))
    jax.tree.map(np.testing.assert_array_equal, chosen, expected)

  @pytest.mark.fault
  def test_errors(self):
    scm = _TOY.to_scm()
    policy = gp_bo.gp_bo()
    with jax.enable_x64(False):
      rows = _rows(_TOY)
    with self.assertRaisesRegex(errors.UsageError, 'float32.*enable_x64'):
      policy.init(scm.problem, rows, 3)
    with self.assertRaisesRegex(errors.UsageError, 'observations have 1 row'):
      policy.init(scm.problem, _rows(_TOY)[:1], 3)
    memory = policy.init(scm.problem, _rows(_TOY), 1)
    both = hand_made_scms.do({0: 1.0, 1: 1.0}, 3)
    with self.assertRaisesRegex(errors.UsageError, 'nan after intervention 0'):
      policy.observe(memory, 0, both, jnp.array([0.0, 0.0, jnp.nan]))
    memory = policy.observe(memory, 0, both, jnp.zeros(3))
    with self.assertRaisesRegex(
      errors.UsageError, 'over after 1 interventions'
    ):
      policy.observe(memory, 1, both, jnp.zeros(3))
    without_cost = _TOY.to_scm(cost=[0.0, 0.0, 0.0])
    with self.assertRaisesRegex(
      errors.UsageError, 'is 0; the improvement per cost'
    ):
      cbo.cbo(without_cost).init(without_cost.problem, _rows(_TOY), 3)
    no_effect = scm._replace(parents=jnp.zeros((3, 3), bool))
    with self.assertRaisesRegex(errors.UsageError, 'no allowed set'):
      cbo.cbo(no_effect).init(scm.problem, _rows(_TOY), 3)

  @pytest.mark.slow
  @pytest.mark.timeout(1500)
  def test_reaches_published_results(self):
    # 40 interventions, each the mean of 1,000 draws, and 100 observations:
    # -2.1687 on toy and -3.44 to -3.49 on complete by the original code.
    for known, bars in (
      (_TOY, {'cbo': -2.12, 'gp_bo': -2.0}),
      (_COMPLETE, {'cbo': -3.3}),
    ):
      scm = known.to_scm()
      for name, policy in self.policies(scm).items():
        if name not in bars:
          continue
        # About one episode in ten ends at a local optimum.
        outcomes = []
        for seed in range(6):
          _, memory = _episode(policy, known, scm.problem, 40, seed)
          outcomes.append(_expected_outcome(known, policy.recommend(memory)))
          if np.sum(np.array(outcomes) < bars[name]) == 2:
            break
        else:
          self.fail(f'{name} reached {bars[name]} less than twice: {outcomes}')


if __name__ == '__main__':
  absltest.main()
