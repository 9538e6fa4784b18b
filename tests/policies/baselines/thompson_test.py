"""Tests of Thompson sampling against the exact posterior and by hand."""

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acme_cbo.beliefs import exact_posterior
from acme_cbo.environments import environment
from acme_cbo.infra import errors
from acme_cbo.policies.baselines import thompson
from tests.policies.baselines import known_scms
from tests.support import chance
from tests.support import hand_made_scms


def _evidence(num_rows=15, seed=0):
  """Returns evidence of x0 -> x1 -> x2, with one intervention on x1."""
  rng = np.random.default_rng(seed)
  rows = rng.normal(size=(num_rows, 3))
  rows[:, 1] += 0.7 * rows[:, 0]
  rows[:, 2] -= 0.5 * rows[:, 1]
  intervened = np.zeros(rows.shape, bool)
  intervened[0, 1] = True

  @jax.jit
  def evaluate():
    evidence = exact_posterior.add_rows(
      exact_posterior.empty_evidence(3),
      jnp.asarray(rows),
      jnp.asarray(intervened),
    )
    return evidence, exact_posterior.log_scores(evidence, jnp.ones(3, bool))

  return jax.tree.map(np.asarray, evaluate())


_LINE = known_scms.KnownSCM(
  equations={
    'X': lambda v, e: e,
    'Z': lambda v, e: 1.2 * v['X'] + e,
    'W': lambda v, e: e,
    'Y': lambda v, e: -1.5 * v['Z'] + 0.8 * v['W'] + e,
  },
  parents={'X': '', 'Z': 'X', 'W': '', 'Y': 'ZW'},
  latent='',
  domains={'X': (-1.0, 1.0), 'Z': (-2.0, 3.0), 'W': (-1.0, 1.0)},
)


class ThompsonTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.enterContext(jax.enable_x64(True))

  @pytest.mark.stat
  def test_graphs_are_of_the_posterior(self):
    _, scores = _evidence(num_rows=60)
    posterior = jax.jit(exact_posterior.log_posterior)(jnp.asarray(scores))
    members = exact_posterior.parent_sets(3).astype(float)
    expected = np.einsum('jp,jpi->ji', np.exp(posterior), members)
    rng, num_draws = np.random.default_rng(1), 3000
    graphs = thompson.sample_graphs(rng, scores, num_draws)
    actual = graphs.mean(0)
    error = np.sqrt(np.maximum(expected * (1 - expected), 1e-4) / num_draws)
    self.assertLess(np.max(np.abs(actual - expected) / error), chance.SIGMAS)
    self.assertGreater(np.ptp(expected), 0.3)
    # And there is no cycle.
    walks = np.linalg.matrix_power(graphs.astype(int), 3)
    self.assertEqual(np.trace(walks, axis1=1, axis2=2).sum(), 0)

  @pytest.mark.stat
  def test_weights_are_of_the_posterior(self):
    # Given one graph, x0 -> x1 -> x2 and x0 -> x2: the equation of x2 in closed
    # form, as ridge regression of the rows and two more of the prior.
    evidence, _ = _evidence()
    chosen = np.full((3, 4), -1e30)
    chosen[0, 0] = chosen[1, 1] = chosen[2, 3] = 0.0
    rng, num_draws = np.random.default_rng(1), 2000
    models = thompson.sample_models(rng, evidence, chosen, num_draws)
    slopes = np.stack([model.weights[2, :2] for model in models])
    variance = np.array([model.variance[2] for model in models])

    count = evidence.count[2]
    mean = evidence.total[2] / (count + 1)
    matrix = evidence.scatter[2] - (count + 1) * np.outer(mean, mean)
    matrix += 0.5 * np.eye(3)
    center = np.linalg.solve(matrix[:2, :2], matrix[:2, 2])
    residual = matrix[2, 2] - matrix[2, :2] @ center
    # Of an inverse chi-squared variable of count + 2 + 3 degrees.
    expected = residual / (count + 3)
    error = variance.std() / np.sqrt(num_draws)
    self.assertLess(abs(variance.mean() - expected), chance.SIGMAS * error)
    spread = expected * np.linalg.inv(matrix[:2, :2])
    error = np.sqrt(np.diag(spread) / num_draws)
    self.assertLess(
      np.max(np.abs(slopes.mean(0) - center) / error), chance.SIGMAS
    )
    np.testing.assert_allclose(np.cov(slopes.T), spread, rtol=0.2, atol=0.01)
    # x0 has no causes, so that its weights are 0.
    self.assertEqual(np.abs([m.weights[0] for m in models]).max(), 0)

  def test_expected_target_by_hand(self):
    # x1 = 1 + 2 x0, x2 = 3 - x1 + x0: 2 - x0 without intervention, so that
    # do(x0) has the slope -1, do(x1) -1, and do(x0, x1) 1 and -1.
    weights = np.zeros((3, 3))
    weights[1, 0], weights[2, 1], weights[2, 0] = 2.0, -1.0, 1.0
    model = thompson.LinearModel(weights, np.array([0.5, 1, 3]), np.ones(3))
    for mask, constant, slopes in (
      ([0, 0, 0], 2 - 0.5, [0, 0, 0]),
      ([1, 0, 0], 2, [-1, 0, 0]),
      ([0, 1, 0], 3.5, [0, -1, 0]),
      ([1, 1, 0], 3, [1, -1, 0]),
    ):
      constant_and_slopes = thompson.expected_target(
        model, np.array(mask, bool), 2
      )
      np.testing.assert_allclose(constant_and_slopes[0], constant)
      np.testing.assert_allclose(constant_and_slopes[1], slopes, atol=1e-12)

  @parameterized.parameters(1.0, -1.0)
  def test_finds_the_best_of_a_linear_scm(self, goal):
    # -1.5 z + 0.8 w is smallest at do(Z = 3), largest at do(Z = -2), with W.
    for sets, expected in (
      (None, {1: -2.0 if goal > 0 else 3.0, 2: goal}),
      (['X', 'Z', 'W'], {1: -2.0 if goal > 0 else 3.0}),
      (['X', 'W'], {0: -goal}),
    ):
      scm = _LINE.to_scm(sets, goal=goal)
      policy = thompson.posterior_thompson()
      rng = np.random.default_rng(1)
      rows = jnp.asarray(_LINE.sample(rng, {}, 100))
      memory = policy.init(scm.problem, rows, 30)
      for step, key in enumerate(jax.random.split(jax.random.key(1), 30)):
        choice = policy.choose(key, memory)
        environment.check_intervention(scm.problem, choice)
        settings = {
          int(j): float(choice.values[j]) for j in np.flatnonzero(choice.mask)
        }
        outcome = jnp.asarray(_LINE.sample(rng, settings, 1)[0])
        memory = policy.observe(memory, step, choice, outcome)
      best = policy.recommend(memory)
      for j, value in expected.items():
        self.assertTrue(best.mask[j])
        self.assertEqual(float(best.values[j]), value)

  def test_samples_differ_and_depend_on_the_key(self):
    scm = _LINE.to_scm(['X', 'Z', 'W'])
    policy = thompson.posterior_thompson()
    rows = jnp.asarray(_LINE.sample(np.random.default_rng(0), {}, 4))
    memory = policy.init(scm.problem, rows, 3)
    keys = jax.random.split(jax.random.key(0), 20)
    chosen = [policy.choose(key, memory) for key in keys]
    again = [policy.choose(key, memory) for key in keys]
    for one, other in zip(chosen, again, strict=True):
      np.testing.assert_array_equal(one.values, other.values)
    self.assertGreater(len({tuple(c.values.tolist()) for c in chosen}), 2)

  def test_columns_that_do_not_exist(self):
    # Padding changes nothing, also where it makes more than 8 columns.
    policy = thompson.posterior_thompson()
    scm = _LINE.to_scm()
    rows = _LINE.sample(np.random.default_rng(0), {}, 20)
    plain = policy.choose(
      jax.random.key(0), policy.init(scm.problem, jnp.asarray(rows), 3)
    )
    wide = jax.tree.map(
      lambda leaf: (
        jnp.pad(leaf, [(0, 0)] * (leaf.ndim - 1) + [(0, 6)])
        if leaf.ndim
        else leaf
      ),
      scm.problem,
    )
    padded = policy.choose(
      jax.random.key(0),
      policy.init(wide, jnp.pad(rows, ((0, 0), (0, 6))), 3),
    )
    np.testing.assert_array_equal(padded.values[:4], plain.values)
    np.testing.assert_array_equal(padded.mask[:4], plain.mask)
    self.assertFalse(padded.mask[4:].any())

  def test_the_budget_holds(self):
    scm = _LINE.to_scm(['X', 'Z'], cost=[1.0, 5.0, 1.0, 0.0], budget=2.0)
    policy = thompson.posterior_thompson()
    rows = jnp.asarray(_LINE.sample(np.random.default_rng(0), {}, 20))
    memory = policy.init(scm.problem, rows, 3)
    for step in range(2):
      choice = policy.choose(jax.random.key(step), memory)
      np.testing.assert_array_equal(choice.mask, [True, False, False, False])
      memory = policy.observe(memory, step, choice, jnp.zeros(4))
    self.assertFalse(policy.choose(jax.random.key(2), memory).mask.any())
    # The recommendation is one of the affordable sets.
    recommended = policy.recommend(memory)
    np.testing.assert_array_equal(recommended.mask, [True, False, False, False])

  @pytest.mark.fault
  def test_errors(self):
    policy = thompson.posterior_thompson()
    problem = hand_made_scms.problem(9, 0)
    with self.assertRaisesRegex(errors.UsageError, '9 variables.*most 8'):
      policy.init(problem, jnp.zeros((5, 9)), 3)
    with self.assertRaisesRegex(errors.UsageError, 'float32'):
      policy.init(problem, jnp.zeros((5, 9), jnp.float32), 3)


if __name__ == '__main__':
  absltest.main()
