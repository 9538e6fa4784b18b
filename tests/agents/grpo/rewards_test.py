import math

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np

from acme_cbo import types
from acme_cbo.agents.grpo import config
from acme_cbo.agents.grpo import rewards
from acme_cbo.infra import config_schema
from acme_cbo.scms import mechanisms
from acme_cbo.scms import objective as objective_lib
from acme_cbo.scms import simulate
from tests.support import drawn_tasks
from tests.support import hand_made_scms

_objective = jax.jit(objective_lib.objective, static_argnums=2)
_optimization = jax.jit(rewards.optimization)
_certainty = jax.jit(rewards.certainty)
_log_posterior = jax.jit(rewards.log_posterior)
_parent = jax.jit(rewards.parent)
_structure = jax.jit(rewards.structure)


@jax.jit
def _exploration(variables, fractions):
  """Rewards [T] of T steps; step t sets variable `variables[t]` of 5."""
  intervened = variables[:, None] == jnp.arange(5)
  return rewards.exploration(
    intervened, jnp.where(intervened, fractions[:, None], 0.0)
  )


class TotalTest(parameterized.TestCase):
  def test_is_the_weighted_sum(self):
    weights = config.RewardConfig(
      optimization=2.0, structure=0.5, parent=0.25, exploration=-1.0
    )
    components = jnp.array([[1.0, 4.0, 8.0, 3.0], [0.0, 0.0, 0.0, 1.0]])
    # 2 + 2 + 2 - 3.
    np.testing.assert_allclose(rewards.total(components, weights), [3.0, -1.0])

  def test_weights_stand_in_the_order_of_the_components(self):
    self.assertEqual(
      rewards.COMPONENTS,
      ('optimization', 'structure', 'parent', 'exploration'),
    )
    usual = config.RewardConfig()
    self.assertEqual(usual.weights, (1.0, 0.5, 0.3, 0.1))
    other = usual.with_weights((2.0, 3.0, 4.0, 5.0))
    self.assertEqual((other.structure, other.exploration), (3.0, 5.0))
    self.assertEqual(other.belief, usual.belief)

  def test_a_component_of_weight_zero_has_no_effect(self):
    components = jnp.array([0.3, -0.2, 0.7, 0.9])
    for index, name in enumerate(rewards.COMPONENTS):
      with self.subTest(name):
        without = config_schema.override(config.RewardConfig(), {name: 0.0})
        change = rewards.total(components.at[index].add(1e6), without)
        self.assertEqual(change, rewards.total(components, without))
        gradient = jax.grad(rewards.total)(components, without)
        self.assertEqual(gradient[index], 0.0)


class OptimizationTest(parameterized.TestCase):
  @parameterized.parameters(1.0, -1.0)
  def test_by_hand(self, goal):
    # The chain's target reaches from -5 to 1.
    scm, bank = hand_made_scms.chain(goal), jnp.zeros((1, 4))
    objective = _objective(scm, bank, 2)
    for outcome, share in ((-5.0, 0.0), (-2.0, 0.5), (1.0, 1.0)):
      self.assertAlmostEqual(
        _optimization(goal * outcome, objective),
        share if goal > 0 else 1 - share,
        places=5,
      )

  def test_lies_between_0_and_1_wherever_it_was_searched(self):
    scms, objectives = drawn_tasks.some(500)
    (curve,) = np.moveaxis(np.asarray(objectives.curves), 1, 0)
    reward = jax.vmap(jax.vmap(rewards.optimization, (0, None)))(
      curve.reshape(scms.family.size, -1), objectives
    )
    reward = np.asarray(reward).reshape(curve.shape)
    settable = reward[scms.problem.settable]
    self.assertGreaterEqual(settable.min(), -1e-5)
    self.assertLessEqual(settable.max(), 1 + 1e-5)
    # Some point of the grid earns most of it.
    best = np.where(scms.problem.settable[:, :, None], reward, -1).max((1, 2))
    self.assertGreater(best.min(), 0.9)

  def test_does_not_depend_on_units(self):
    equations = hand_made_scms.mechanism(
      3,
      hidden=[[[0.0] * 3], [[2.0, 0, 0]], [[0, 1.5, 0.5]]],
      shift=[[0.0], [0.3], [0.1]],
      output=1.0,
    )
    low, high = np.array([-1.0, -0.5, 0.0]), np.array([2.0, 1.0, 1.0])
    place = np.linspace(low, high, 5)

    @jax.jit
    def reward(factor, shift):
      about = hand_made_scms.problem(3, 2)._replace(
        low=shift + factor * low, high=shift + factor * high
      )
      scm = hand_made_scms.scm(
        equations, about, family=mechanisms.Family.TANH
      )._replace(location=shift, scale=factor)
      bank = simulate.noise_bank(jax.random.key(0), scm, 16)
      objective = objective_lib.objective(scm, bank, 4)

      def of(mask, values):
        chosen = types.Intervention(mask, jnp.where(mask, values, 0.0))
        outcome = simulate.expected_outcome(scm, bank, chosen)
        return rewards.optimization(outcome, objective)

      masks = jnp.array([[True, False, False], [True, True, False]])
      values = shift + factor * place
      return jax.vmap(jax.vmap(of, (None, 0)), (0, None))(masks, values)

    expected = reward(jnp.ones(3), jnp.zeros(3))
    self.assertGreater(np.ptp(expected), 0.3)
    rng = np.random.default_rng(0)
    for _ in range(5):
      factor = jnp.float32(np.exp(rng.normal(size=3)))
      shift = jnp.float32(5 * rng.normal(size=3))
      np.testing.assert_allclose(reward(factor, shift), expected, atol=1e-4)


class StructureTest(parameterized.TestCase):
  @parameterized.parameters(_log_posterior, lambda x, c: _certainty(-x, c))
  def test_potential_by_hand(self, potential):
    candidates = jnp.array([True, False, True, True])
    for probability, bits in ((1.0, 0), (0.5, 1), (1 / 8, 3)):
      actual = potential(jnp.log(probability), candidates)
      self.assertAlmostEqual(actual, -bits / 3, places=6)

  def test_ignorance_is_minus_1(self):
    candidates = jnp.ones(5, bool)
    even = 5 * math.log(2.0)
    self.assertAlmostEqual(_log_posterior(-even, candidates), -1, places=6)
    self.assertAlmostEqual(_certainty(even, candidates), -1, places=6)

  def test_is_bounded(self):
    # Also where the truth was thought impossible.
    for log_prob in (-1e3, -1e30, -jnp.inf):
      potential = _log_posterior(log_prob, jnp.ones(3, bool))
      self.assertEqual(potential, -16.0)

  def test_of_one_candidate(self):
    alone = jnp.array([False, True])
    self.assertAlmostEqual(_log_posterior(math.log(0.5), alone), -1, places=6)

  def test_without_candidates_nothing_is_to_be_known(self):
    nobody = jnp.zeros(2, bool)
    self.assertEqual(_log_posterior(0.0, nobody), 0.0)
    self.assertEqual(_certainty(0.0, nobody), 0.0)

  def test_telescopes(self):
    rng = np.random.default_rng(1)
    potential = jnp.float32(-rng.exponential(size=21))
    gained = jax.vmap(_structure)(potential[:-1], potential[1:])
    self.assertAlmostEqual(gained.sum(), potential[-1] - potential[0], places=4)
    # Going to and fro earns nothing.
    there = _structure(potential[0], potential[1])
    back = _structure(potential[1], potential[0])
    self.assertEqual(there + back, 0.0)


class ParentTest(parameterized.TestCase):
  def test_by_hand(self):
    probability = jnp.array([0.5, 0.75, 1.0, 0.0])
    for mask, expected in (
      ([1, 0, 0, 0], 0.5),
      ([0, 1, 0, 0], 0.75),
      ([1, 1, 0, 0], 0.625),
      ([0, 0, 1, 0], 1.0),
      ([0, 0, 0, 1], 0.0),
      ([0, 0, 0, 0], 0.0),
    ):
      self.assertEqual(_parent(probability, jnp.array(mask, bool)), expected)


class ExplorationTest(parameterized.TestCase):
  def test_by_hand(self):
    reward = _exploration(
      jnp.array([0, 0, 1, 0, 0, 0]),
      jnp.array([0.1, 0.2, 0.1, 0.9, 1.0, 0.25]),
    )
    # Visits before to the variable and the quarter: (0, 0), (1, 1), (0, 0),
    # (2, 0), (3, 1) and (4, 0); a quarter holds its lower end, the last one
    # both.
    expected = [1.0, 0.5, 1.0, 1 / 8 + 1 / 2, 1 / 16 + 1 / 4, 1 / 32 + 1 / 2]
    np.testing.assert_allclose(reward, expected)

  def test_of_several_at_once_by_hand(self):
    reward = rewards.exploration(
      jnp.array([[1, 1, 0], [1, 0, 0], [1, 1, 0], [0, 0, 0]], bool),
      jnp.array([[0.1, 0.6, 0], [0.2, 0, 0], [0.9, 0.7, 0], [0, 0, 0]]),
    )
    # In the third step visits before are (2, 0) of variable 0, (1, 1) of 1; the
    # last one sets nothing.
    third = ((1 / 4 + 1) / 2 + 1 / 2) / 2
    np.testing.assert_allclose(reward, [1.0, 0.5, third, 0.0])

  @parameterized.parameters(1, 3)
  def test_is_bounded_however_long_the_episode(self, num_variables):
    num_steps = 400
    # Round and round over the variables and the quarters of their domains.
    step = jnp.arange(num_steps)
    reward = _exploration(
      step % num_variables, (step // num_variables % 4) / 4 + 0.1
    )
    # A variable's visits sum to (1 + 1/2 + ...) / 2 = 1, those to each of its
    # four quarters to 1 as well: 5 in all.
    self.assertLessEqual(reward.sum(), 5 * num_variables + 1e-3)
    self.assertAlmostEqual(reward.sum(), 5 * num_variables, delta=1e-3)

  def test_does_not_depend_on_the_names_of_the_variables(self):
    rng = np.random.default_rng(2)
    variables, fractions = rng.integers(5, size=30), rng.random(30)
    names = rng.permutation(5)
    np.testing.assert_array_equal(
      _exploration(jnp.asarray(variables), jnp.float32(fractions)),
      _exploration(jnp.asarray(names[variables]), jnp.float32(fractions)),
    )

  def test_lies_between_0_and_1(self):
    rng = np.random.default_rng(3)
    reward = _exploration(
      jnp.asarray(rng.integers(2, size=400)), jnp.float32(rng.random(400))
    )
    self.assertEqual(reward.max(), 1.0)
    self.assertGreaterEqual(reward.min(), 0.0)


if __name__ == '__main__':
  absltest.main()
