from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np

from acme_cbo import types
from acme_cbo.environments import environment
from acme_cbo.networks import action_distribution
from acme_cbo.scms import intervention_sets
from acme_cbo.scms import interventions
from acme_cbo.scms import priors
from tests.support import chance
from tests.support import drawn_tasks
from tests.support import hand_made_scms

_reset = jax.jit(environment.reset, static_argnums=2)
_step = jax.jit(environment.step)
_sample_outcome = jax.jit(environment.sample_outcome)
_intervene_on = jax.jit(interventions.intervene_on)


def _problems(number):
  """Problems of the general prior in which some variable may be set."""
  draw = jax.jit(
    jax.vmap(lambda key: priors.sample_scm(key, drawn_tasks.GENERAL).problem)
  )
  drawn = jax.device_get(draw(jax.random.split(jax.random.key(7), 2 * number)))
  index = np.flatnonzero(drawn.settable.any(1))[:number]
  return jax.tree.map(lambda leaf: leaf[index], drawn)


def _do(settings):
  return hand_made_scms.do(settings, 5)


def _problem():
  """0 and 1 may be set, 2 is the target, 3 is forbidden, 4 is padding."""
  problem = hand_made_scms.problem(
    5, 2, settable=[0, 1], low=[-1.1, 0.3, -1, -1, 0], high=[0.7, 2.9, 1, 1, 0]
  )
  return problem._replace(exists=jnp.arange(5) < 4)


class CheckInterventionTest(parameterized.TestCase):
  @parameterized.named_parameters(
    ('above', {0: 0.75}, r'variable 0 is set to 0\.75, outside its domain \['),
    ('below', {1: 0.25}, r'variable 1 is set to 0\.25, outside .* 2\.9.*\]$'),
    ('second_of_two', {0: 0.0, 1: 3.0}, 'variable 1 is set to 3.0, outside'),
    ('target', {2: 0.0}, 'variable 2 is the target, which may not be set'),
    ('forbidden', {3: 0.0}, 'variable 3 may not be set'),
    ('padding', {4: 0.0}, 'variable 4 is padding or latent; the problem has 4'),
    ('nan', {0: np.nan}, 'variable 0 is set to nan; set a finite value'),
    ('infinite', {0: np.inf}, 'variable 0 is set to inf; set a finite value'),
    ('minus_infinite', {1: -np.inf}, 'set to -inf; set a finite value'),
    ('nothing', {}, 'sets no variable; set at least one'),
    ('together', {0: 0.5, 1: 0.5}, '^variable 0, variable 1 may not be'),
  )  # fmt: skip
  def test_refuses(self, settings, sentence):
    with self.assertRaisesRegex(ValueError, sentence):
      environment.check_intervention(_problem(), _do(settings))

  def test_names_the_variables(self):
    with self.assertRaisesRegex(ValueError, "^'c' is the target"):
      environment.check_intervention(_problem(), _do({2: 0.0}), 'abcde')

  def test_step_outside_jit_checks_the_intervention(self):
    scm = hand_made_scms.scm(hand_made_scms.mechanism(5), _problem())
    key = jax.random.PRNGKey(0)
    for settings in ({2: 0.0}, {0: np.nan}, {0: 0.75}):
      with self.assertRaisesRegex(ValueError, 'variable [02] is '):
        environment.step(key, scm, _do(settings))
    np.testing.assert_array_equal(
      environment.step(key, scm, _do({0: 0.5})),
      _step(key, scm, _do({0: 0.5})),
    )

  @parameterized.parameters((1, 5), (5, 1), (4, 4))
  def test_refuses_other_shapes(self, num_masks, num_values):
    wrong = types.Intervention(jnp.ones(num_masks, bool), jnp.zeros(num_values))
    with self.assertRaisesRegex(
      ValueError,
      rf'must have shape \(5,\), got \({num_masks},\) and \({num_values},\)',
    ):
      environment.check_intervention(_problem(), wrong)

  def test_refuses_the_next_number_beyond_an_end(self):
    low, high = np.float32(-1.1), np.float32(0.7)
    for value in (np.nextafter(low, -2), np.nextafter(high, 2)):
      with self.assertRaisesRegex(ValueError, 'outside its domain'):
        environment.check_intervention(_problem(), _do({0: value}))

  def test_accepts_both_ends_and_values_between(self):
    problem = _problem()
    for fraction in (0.0, 0.3, 1.0):
      for variable in (0, 1):
        environment.check_intervention(
          problem, _intervene_on(problem, variable, fraction)
        )
    for settings in ({0: np.float32(-1.1)}, {1: np.float32(2.9)}):
      environment.check_intervention(problem, _do(settings))

  def test_only_whole_sets_are_allowed(self):
    # Variables 0 and 1 together, or 1 alone.
    sets = [[1, 1, 0, 0, 0], [0, 1, 0, 0, 0], [0, 0, 0, 0, 0]]
    problem = _problem()._replace(sets=jnp.array(sets, bool))
    for settings in ({1: 0.5}, {0: 0.5, 1: 0.5}):
      environment.check_intervention(problem, _do(settings))
    with self.assertRaisesRegex(ValueError, 'variable 0 may not be set toget'):
      environment.check_intervention(problem, _do({0: 0.5}))
    with self.assertRaisesRegex(ValueError, 'sets no variable'):
      environment.check_intervention(problem, _do({}))


class ResetTest(parameterized.TestCase):
  def test_same_key_same_rows(self):
    scm = hand_made_scms.chain()
    rows = _reset(jax.random.key(0), scm, 6)
    self.assertEqual(rows.shape, (6, 4))
    np.testing.assert_array_equal(rows, _reset(jax.random.key(0), scm, 6))
    other = _reset(jax.random.key(1), scm, 6)
    self.assertTrue((rows != other)[:, :3].all())

  def test_rows_are_passive_and_differ(self):
    scm = hand_made_scms.chain()
    number = 1000
    rows = np.asarray(_reset(jax.random.key(2), scm, number))
    self.assertLen(np.unique(rows[:, 0]), number)
    # By hand: x1 is 1 + 2 x0 and noise, of variance 5; the target -x1 and
    # noise, of variance 6.
    variance = np.array([1, 5, 6])
    z = (rows.mean(0)[:3] - [0, 1, -1]) / np.sqrt(variance / number)
    self.assertLess(np.abs(z).max(), chance.SIGMAS)
    z = (rows.var(0)[:3] / variance - 1) / np.sqrt(2 / number)
    self.assertLess(np.abs(z).max(), chance.SIGMAS)
    np.testing.assert_array_equal(rows[:, 3], 0.0)


class StepTest(parameterized.TestCase):
  def test_same_key_same_row(self):
    scm = hand_made_scms.chain()
    intervention = _intervene_on(scm.problem, 1, 0.25)
    row = _step(jax.random.key(0), scm, intervention)
    self.assertEqual(row.shape, (4,))
    np.testing.assert_array_equal(
      row, _step(jax.random.key(0), scm, intervention)
    )
    other = _step(jax.random.key(1), scm, intervention)
    self.assertNotEqual(row[2], other[2])

  def test_set_values_are_exact(self):
    # Units in which nothing is a round number.
    scm = hand_made_scms.chain(location=3.3, scale=0.7)
    rng = np.random.default_rng(3)
    for seed, (x0, x1) in enumerate(rng.normal(size=(20, 2))):
      values = jnp.array([x0, x1, 0.0, 0.0])
      mask = jnp.array([True, True, False, False])
      row = _step(jax.random.key(seed), scm, types.Intervention(mask, values))
      np.testing.assert_array_equal(row[:2], values[:2])
      self.assertTrue(np.isfinite(row).all())

  def test_changes_effects_and_not_causes(self):
    scm, key = hand_made_scms.chain(), jax.random.key(4)
    passive = _step(key, scm, interventions.no_intervention(4))
    low = _step(key, scm, _intervene_on(scm.problem, 1, 0.0))
    high = _step(key, scm, _intervene_on(scm.problem, 1, 1.0))
    self.assertEqual(low[0], passive[0])
    # With the same noise the target falls by as much as x1 rises.
    self.assertAlmostEqual(high[2] - low[2], low[1] - high[1], places=5)


class SampleOutcomeTest(parameterized.TestCase):
  def _sample(self, scm, samples, settings, seed=0):
    scm = scm._replace(problem=scm.problem._replace(samples=samples))
    bank = jnp.array([[1.0, -1, 2, 0], [3.0, 0, 0, 0]])
    chosen = hand_made_scms.do(settings, 4)
    return _sample_outcome(jax.random.key(seed), scm, bank, chosen)[0]

  def test_one_sample_is_that_of_step(self):
    scm = hand_made_scms.chain()
    for seed in range(3):
      np.testing.assert_array_equal(
        self._sample(scm, 1.0, {1: 0.5}, seed),
        _step(jax.random.key(seed), scm, hand_made_scms.do({1: 0.5}, 4)),
      )

  def test_many_are_the_mean_over_the_bank_by_hand(self):
    scm = hand_made_scms.chain(location=[1.0, 0, -1, 9], scale=[2.0, 1, 4, 3])
    # x0 is 1 + 2 (1 + 3) / 2; under do(x1 = 0.5) the target is, in internal
    # units, -0.5 + (2 + 0) / 2.
    for seed in range(2):
      row = self._sample(scm, 1000.0, {1: 0.5}, seed)
      np.testing.assert_allclose(row, [5.0, 0.5, 1.0, 0.0], rtol=1e-6)
      self.assertEqual(row[1], 0.5)

  def test_latent_causes_have_effects_and_are_not_observed(self):
    scm = hand_made_scms.chain()
    exists = jnp.array([False, True, True, False])
    scm = scm._replace(problem=scm.problem._replace(exists=exists))
    for samples in (1.0, 1000.0):
      row = self._sample(scm, samples, {})
      self.assertEqual(row[0], 0.0)
      # x1 = 1 + 2 x0 + e1 has the mean 1 + 2 * 2 - 0.5 over the bank.
      if samples > 1:
        self.assertEqual(row[1], 4.5)
    without = scm._replace(present=scm.problem.exists)
    self.assertNotEqual(
      self._sample(without, 1.0, {})[1], self._sample(scm, 1.0, {})[1]
    )


class PolicyTest(parameterized.TestCase):
  def test_every_decision_is_allowed(self):
    # Whole episodes with pairs of variables and costs, beyond the budget.
    num_problems, num_draws, num_steps = 200, 20, 20
    prior = drawn_tasks.GENERAL
    problems = _problems(num_problems)
    shape = (num_steps, prior.max_variables, prior.num_cells + 2)

    def decide(keys, logits, sets, pick):
      def turn(partial):
        # Other logits in the second action step.
        joint, none = logits
        second = partial.mask.any()
        joint = jnp.where(second, joint[::-1], joint)
        return joint, jnp.where(second, -none, none)

      return action_distribution.decide(keys, turn, sets, pick)

    def episode(key, problem, logits, pick):
      def step(spent, inputs):
        key, logits = inputs
        sets = intervention_sets.affordable(problem, spent)
        keys = list(jax.random.split(key))
        decision, *_ = decide(keys, logits, sets, pick)
        chosen = interventions.from_decision(problem, decision)
        spent += chosen.mask @ problem.cost
        return spent, (chosen, spent, sets.any())

      inputs = jax.random.split(key, num_steps), logits
      return jax.lax.scan(step, jnp.zeros(()), inputs)[1]

    @jax.jit
    @jax.vmap
    def run_episodes(key, problem):
      key_scale, key_logits, key_none, key_draws = jax.random.split(key, 4)
      # From even odds to near certainty, also for forbidden variables.
      scale = jnp.exp(jax.random.uniform(key_scale, minval=-3.0, maxval=5.0))
      joint = scale * jax.random.normal(key_logits, shape)
      none = scale * jax.random.normal(key_none, (num_steps,))
      drawn = jax.vmap(
        lambda key: episode(
          key, problem, (joint, none), action_distribution.sample
        )
      )(jax.random.split(key_draws, num_draws))
      best = episode(key, problem, (joint, none), action_distribution.mode)
      return jax.tree.map(
        lambda a, b: jnp.concatenate([a, b[None]]), drawn, best
      )

    keys = jax.random.split(jax.random.key(5), num_problems)
    chosen, spent, affordable = jax.tree.map(
      np.asarray, run_episodes(keys, problems)
    )
    mask, values = chosen
    # All 84,000 interventions are checked here, one in 100 also by
    # `check_intervention` below.
    same = (mask[:, :, :, None] == problems.sets[:, None, None]).all(-1).any(-1)
    self.assertTrue(same[affordable].all())
    self.assertFalse(mask[~affordable].any())
    wide = (slice(None), None, None)
    low, high = problems.low[wide], problems.high[wide]
    self.assertTrue((~mask | ((values >= low) & (values <= high))).all())
    ends = mask & ((values == low) | (values == high))
    self.assertBetween(ends.mean(), 0.001, 0.5)
    # No episode exceeds its budget, and an episode ends only when the rest of
    # the budget affords no set.
    budget = problems.budget[wide]
    self.assertTrue((spent <= budget * (1 + 1e-4)).all())
    cost = problems.sets @ problems.cost[:, :, None]
    cheapest = np.where(cost > 0, cost, np.inf).min((1, 2))
    left = budget - spent
    np.testing.assert_array_equal(affordable[:, :, 0], True)
    with self.subTest('stops when no set is affordable'):
      ended = ~affordable[..., 1:]
      self.assertGreater(ended.mean(), 0.005)
      short = left[..., :-1] < cheapest[:, None, None]
      np.testing.assert_array_equal(short, ended)
    # Interventions set one or two variables, both often.
    sizes = np.bincount(mask[affordable].sum(-1), minlength=4)
    self.assertEqual(sizes[0] + sizes[3], 0)
    self.assertGreater(sizes[1:3].min(), 0.2 * affordable.sum())
    for m, draw, t in np.argwhere(affordable)[::100]:
      environment.check_intervention(
        drawn_tasks.unstack(problems, m),
        types.Intervention(mask[m, draw, t], values[m, draw, t]),
      )


if __name__ == '__main__':
  absltest.main()
