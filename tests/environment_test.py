from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np

from acme_cbo import distributions
from acme_cbo import environment
from acme_cbo import types
from acme_cbo.scms import simulate
from tests import drawn_tasks
from tests import hand_made_scms

_reset = jax.jit(environment.reset, static_argnums=2)
_step = jax.jit(environment.step)
_intervene_on = jax.jit(simulate.intervene_on)


def _do(settings):
  return hand_made_scms.do(settings, 5)


def _problem():
  """0 and 1 may be set, 2 is the target, 3 is forbidden, 4 is padding."""
  about = hand_made_scms.problem(
    5, 2, settable=[0, 1], low=[-1.1, 0.3, -1, -1, 0], high=[0.7, 2.9, 1, 1, 0]
  )
  return about._replace(exists=jnp.arange(5) < 4)


class CheckInterventionTest(parameterized.TestCase):
  @parameterized.named_parameters(
    ('above', {0: 0.75}, r'variable 0 is set to 0\.75, outside its domain \['),
    ('below', {1: 0.25}, r'variable 1 is set to 0\.25, outside .* 2\.9.*\]$'),
    ('second_of_two', {0: 0.0, 1: 3.0}, 'variable 1 is set to 3.0, outside'),
    ('target', {2: 0.0}, 'variable 2 is the target, which may not be set'),
    ('forbidden', {3: 0.0}, 'variable 3 may not be set'),
    ('padding', {4: 0.0}, 'variable 4 is padding: the problem has 4 variables'),
    ('nan', {0: np.nan}, 'variable 0 is set to nan; set a finite value'),
    ('infinite', {0: np.inf}, 'variable 0 is set to inf; set a finite value'),
    ('minus_infinite', {1: -np.inf}, 'set to -inf; set a finite value'),
    ('nothing', {}, 'sets no variable; set at least one'),
  )  # fmt: skip
  def test_refuses(self, settings, sentence):
    with self.assertRaisesRegex(ValueError, sentence):
      environment.check_intervention(_problem(), _do(settings))

  def test_a_step_outside_jit_is_refused(self):
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
      rf'of shape \(5,\), got \({num_masks},\) and \({num_values},\)',
    ):
      environment.check_intervention(_problem(), wrong)

  def test_refuses_the_next_number_beyond_an_end(self):
    low, high = np.float32(-1.1), np.float32(0.7)
    for value in (np.nextafter(low, -2), np.nextafter(high, 2)):
      with self.assertRaisesRegex(ValueError, 'outside its domain'):
        environment.check_intervention(_problem(), _do({0: value}))

  def test_accepts_both_ends_and_what_lies_between(self):
    about = _problem()
    for fraction in (0.0, 0.3, 1.0):
      for variable in (0, 1):
        environment.check_intervention(
          about, _intervene_on(about, variable, fraction)
        )
    environment.check_intervention(
      about, _do({0: np.float32(-1.1), 1: np.float32(2.9)})
    )


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
    rows = np.asarray(_reset(jax.random.key(2), scm, 1000))
    self.assertLen(np.unique(rows[:, 0]), 1000)
    # By hand: x1 is 1 + 2 x0 and noise, of variance 5; the target -x1 and
    # noise, of variance 6.
    np.testing.assert_allclose(rows.mean(0)[:3], [0, 1, -1], atol=0.3)
    np.testing.assert_allclose(rows.var(0)[:3], [1, 5, 6], rtol=0.2)
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

  def test_sets_what_it_sets_to_the_bit(self):
    # Units in which nothing is a round number.
    scm = hand_made_scms.chain(location=3.3, scale=0.7)
    rng = np.random.default_rng(3)
    for seed, (x0, x1) in enumerate(rng.normal(size=(20, 2))):
      values = jnp.array([x0, x1, 0.0, 0.0])
      mask = jnp.array([True, True, False, False])
      row = _step(jax.random.key(seed), scm, types.Intervention(mask, values))
      np.testing.assert_array_equal(row[:2], values[:2])
      self.assertTrue(np.isfinite(row).all())

  def test_causes_do_not_feel_it_and_effects_do(self):
    scm, key = hand_made_scms.chain(), jax.random.key(4)
    passive = _step(key, scm, simulate.no_intervention(4))
    low = _step(key, scm, _intervene_on(scm.problem, 1, 0.0))
    high = _step(key, scm, _intervene_on(scm.problem, 1, 1.0))
    self.assertEqual(low[0], passive[0])
    # By the same noise: the target falls by as much as x1 rises.
    self.assertAlmostEqual(high[2] - low[2], low[1] - high[1], places=5)


class PolicyTest(parameterized.TestCase):
  def test_no_decision_is_ever_refused(self):
    num_problems, num_draws = 100, 100
    problems = drawn_tasks.some(num_problems).scm.problem
    shape = (drawn_tasks.PRIOR.max_variables, drawn_tasks.PRIOR.num_cells + 2)

    @jax.jit
    @jax.vmap
    def decide(key, problem):
      key_scale, key_logits, key_draws = jax.random.split(key, 3)
      # From even odds to near certainty, of what may not be set too.
      scale = jnp.exp(jax.random.uniform(key_scale, minval=-3.0, maxval=5.0))
      logits = scale * jax.random.normal(key_logits, shape)
      log_probs = distributions.choice(logits, problem.settable)

      def draw(key):
        decision = distributions.sample(key, log_probs)
        return simulate.intervene_on(
          problem, decision.variable, decision.fraction
        )

      best = distributions.mode(log_probs)
      return (
        jax.vmap(draw)(jax.random.split(key_draws, num_draws)),
        simulate.intervene_on(problem, best.variable, best.fraction),
      )

    keys = jax.random.split(jax.random.key(5), num_problems)
    drawn, best = jax.tree.map(np.asarray, decide(keys, problems))
    # All 10,000 at once; then the mode and one in 25 by the check itself.
    mask, values = drawn
    np.testing.assert_array_equal(mask.sum(-1), 1)
    self.assertFalse((mask & ~problems.settable[:, None]).any())
    low, high = problems.low[:, None], problems.high[:, None]
    self.assertTrue((~mask | ((values >= low) & (values <= high))).all())
    ends = mask & ((values == low) | (values == high))
    self.assertBetween(ends.sum(), 100, 5000)
    for index in range(num_problems):
      problem = drawn_tasks.unstack(problems, index)
      chosen = [drawn_tasks.unstack(best, index)]
      for draw in range(4):
        chosen.append(
          types.Intervention(mask[index, draw], values[index, draw])
        )
      for intervention in chosen:
        environment.check_intervention(problem, intervention)


if __name__ == '__main__':
  absltest.main()
