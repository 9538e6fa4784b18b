import functools

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acme_cbo import types
from acme_cbo.scms import interventions
from acme_cbo.scms import mechanisms
from acme_cbo.scms import objective as objective_lib
from acme_cbo.scms import simulate
from tests.support import chance
from tests.support import drawn_tasks
from tests.support import hand_made_scms

_ACTIVATIONS = {
  mechanisms.Activation.COSINE: np.cos,
  mechanisms.Activation.TANH: np.tanh,
  mechanisms.Activation.SQUARE: lambda z: 36 * z**2 / (36 + z**2),
  mechanisms.Activation.EXPONENTIAL: lambda z: np.exp(np.minimum(z, 5)),
  mechanisms.Activation.BUMP: lambda z: np.exp(-(z**2) / 2),
}
_NUM_VARIABLES = drawn_tasks.PRIOR.max_variables
_NUM_DRAWS = 32

_propagate = jax.jit(simulate.propagate)
_sample = jax.jit(simulate.sample, static_argnums=3)
_expected_outcome = jax.jit(simulate.expected_outcome)
_expectation = jax.jit(simulate.expectation)
_objective = jax.jit(objective_lib.objective, static_argnums=(2, 3))
_relabel = jax.jit(simulate.relabel)
_intervene_on = jax.jit(interventions.intervene_on)


def _do(settings, num_variables=_NUM_VARIABLES):
  return hand_made_scms.do(settings, num_variables)


def _doubles(tree):
  """Converts a tree to numpy arrays, floats in float64."""
  return jax.tree.map(
    lambda leaf: (
      np.asarray(leaf, np.float64)
      if jnp.issubdtype(leaf.dtype, jnp.floating)
      else np.asarray(leaf)
    ),
    tree,
  )


def _by_recursion(scm, intervention, noise):
  """Internal values by recursion over the parents: [S, D] in float64."""
  scm, intervention = _doubles(scm), _doubles(intervention)
  values = (intervention.values - scm.location) / scm.scale
  equations, nothing = scm.mechanism, np.zeros(len(noise))

  @functools.cache
  def value(j):
    if not scm.present[j]:
      return nothing
    if intervention.mask[j]:
      return nothing + values[j]
    causes = {i: value(i) for i in np.flatnonzero(scm.parents[j])}
    total = equations.bias[j] + noise[:, j]
    for i, u in causes.items():
      total = total + equations.linear[j, i] * u
    for h, output in enumerate(equations.output[j]):
      z = nothing + equations.shift[j, h]
      for i, u in causes.items():
        z = z + equations.hidden[j, h, i] * u
      total = total + output * _ACTIVATIONS[equations.activation[j]](z)
    return total

  return np.stack([value(j) for j in range(noise.shape[1])], 1)


def _draw_noise(rng, scm, num_draws):
  """Samples scaled noise from the distributions of numpy."""
  shape = (num_draws, scm.mechanism.noise.size)
  kinds = np.stack(
    [
      rng.normal(size=shape),
      rng.uniform(-(3**0.5), 3**0.5, shape),
      rng.laplace(scale=0.5**0.5, size=shape),
    ]
  )
  column = np.arange(shape[1])
  drawn = kinds[np.asarray(scm.mechanism.noise), :, column].T
  return drawn * np.asarray(scm.mechanism.noise_scale, np.float64)


def _some_interventions(rng, problem):
  """Interventions on 0, 1, 2 and all variables, anywhere in the domains."""
  problem = _doubles(problem)
  settable = rng.permutation(np.flatnonzero(problem.settable))
  for variables in ([], settable[:1], settable[:2], settable):
    place = rng.uniform(problem.low, problem.high)
    yield _do({j: place[j] for j in variables})


def _scms(num_per_family):
  """SCMs of every family, with latent variables."""
  for family in mechanisms.Family:
    batch = drawn_tasks.some(num_per_family, family, drawn_tasks.GENERAL).scm
    for index in range(num_per_family):
      yield family, drawn_tasks.unstack(batch, index)


def _transfer(scm, intervention):
  """[D], [D, D]: u = offset + transfer @ noise of a linear SCM under do().

  In closed form, (I - B)^-1, where the rows of what is set are empty.
  """
  scm, intervention = _doubles(scm), _doubles(intervention)
  free = ~intervention.mask & scm.present
  values = (intervention.values - scm.location) / scm.scale
  inverse = np.linalg.inv(
    np.eye(free.size) - scm.mechanism.linear * free[:, None]
  )
  constant = np.where(intervention.mask, values, scm.mechanism.bias * free)
  return inverse @ constant, inverse * free


class HandMadeTest(parameterized.TestCase):
  """The chain of `hand_made_scms.chain`, worked out by hand."""

  def test_propagates_from_causes_to_effects(self):
    noise = jnp.array([[0.5, -1.0, 0.25, 7.0]])
    u = _propagate(hand_made_scms.chain(), _do({}, 4), noise)
    # x1 = 1 + 2 * 0.5 - 1, x2 = -1 + 0.25.
    np.testing.assert_allclose(u, [[0.5, 1.0, -0.75, 0.0]])

  def test_do_removes_the_influence_of_causes(self):
    noise = jnp.array([[0.5, -1.0, 0.25, 7.0]])
    u = _propagate(hand_made_scms.chain(), _do({1: 2.0}, 4), noise)
    np.testing.assert_allclose(u, [[0.5, 2.0, -1.75, 0.0]])

  def test_units(self):
    scm = hand_made_scms.chain(
      location=[10.0, 0.0, -1.0, 5.0], scale=[2.0, 1.0, 4.0, 3.0]
    )
    noise = jnp.array([[0.5, -1.0, 0.25, 7.0]])
    # x0 = 14 is 2 deviations from its origin, so x1 = 1 + 4 - 1.
    u = _propagate(scm, _do({0: 14.0}, 4), noise)
    np.testing.assert_allclose(u, [[2.0, 4.0, -3.75, 0.0]])

  @parameterized.parameters(1.0, -1.0)
  def test_expected_outcome_is_signed_by_the_goal(self, goal):
    scm = hand_made_scms.chain(goal)
    bank = simulate.noise_bank(jax.random.key(0), scm, 4)
    for settings, expected in (
      ({}, -1.0), ({0: 0.5}, -2.0), ({1: 2.0}, -2.0), ({0: 9.0, 1: 0.5}, -0.5)
    ):  # fmt: skip
      outcome = _expected_outcome(scm, bank, _do(settings, 4))
      self.assertAlmostEqual(outcome, goal * expected)

  @parameterized.parameters(
    # The target ranges from -5 at do(x0 = 2) to 1 at do(x0 = -1).
    (1.0, -5.0, 1.0, -1.0),
    (-1.0, -1.0, 5.0, 2.0),
  )
  def test_objective(self, goal, worst, best, best_value):
    scm = hand_made_scms.chain(goal)
    objective = _objective(scm, jnp.zeros((4, 4)), 2)
    self.assertAlmostEqual(objective.baseline, -goal)
    self.assertAlmostEqual(objective.worst, worst, places=5)
    self.assertAlmostEqual(objective.best, best, places=5)
    mask, values = objective.choice
    np.testing.assert_array_equal(mask, [True, False, False, False])
    np.testing.assert_array_equal(values, [best_value, 0, 0, 0])
    # The only partial intervention sets no variable.
    self.assertFalse(objective.partial.mask.any())
    np.testing.assert_allclose(objective.partial_outcome, [-goal], rtol=1e-6)
    # The ends of the domains and the centers of their halves.
    x0 = np.array([-1.0, -0.25, 1.25, 2.0])
    x1 = np.array([-0.5, 0.125, 1.375, 2.0])
    curve = [-1 - 2 * x0, -x1, [-1.0] * 4, [-1.0] * 4]
    np.testing.assert_allclose(
      objective.curves, goal * np.array([curve]), atol=1e-5
    )

  def test_objective_excludes_forbidden_variables(self):
    scm = hand_made_scms.chain()
    only_x1 = jnp.array([[False, True, False, False], [False] * 4])
    scm = scm._replace(problem=scm.problem._replace(sets=only_x1))
    objective = _objective(scm, jnp.zeros((4, 4)), 2)
    self.assertAlmostEqual(objective.worst, -2.0, places=5)
    self.assertAlmostEqual(objective.best, 0.5, places=5)
    np.testing.assert_array_equal(objective.choice.mask, only_x1[0])
    np.testing.assert_allclose(objective.curves[0, 0], -1.0)

  def test_grid(self):
    np.testing.assert_allclose(
      interventions.grid(4), [0, 0.125, 0.375, 0.625, 0.875, 1]
    )

  def test_noise_bank(self):
    scm = hand_made_scms.chain()
    key = jax.random.key(1)
    np.testing.assert_array_equal(simulate.noise_bank(key, scm, 5), 0.0)
    curved = scm._replace(family=jnp.int32(mechanisms.Family.TANH))
    np.testing.assert_array_equal(
      simulate.noise_bank(key, curved, 5),
      mechanisms.stratified_noise(key, scm.mechanism, 5, 4),
    )


class SampleTest(parameterized.TestCase):
  @pytest.mark.oracle
  def test_against_recursion_over_the_parents(self):
    rng = np.random.default_rng(0)
    for family, scm in _scms(3):
      noise = _draw_noise(rng, scm, _NUM_DRAWS)
      for intervention in _some_interventions(rng, scm.problem):
        with self.subTest(f'{family.name} {intervention.mask.nonzero()}'):
          u = _propagate(scm, intervention, noise.astype(np.float32))
          expected = _by_recursion(scm, intervention, noise)
          np.testing.assert_allclose(u, expected, rtol=1e-4, atol=1e-4)

  def test_sample_is_in_own_units_and_set_values_are_exact(self):
    rng, key = np.random.default_rng(1), jax.random.key(1)
    for _, scm in _scms(2):
      noise = mechanisms.noise(key, scm.mechanism, _NUM_DRAWS, _NUM_VARIABLES)
      for intervention in _some_interventions(rng, scm.problem):
        rows = np.asarray(_sample(key, scm, intervention, _NUM_DRAWS))
        u = _by_recursion(scm, intervention, np.asarray(noise, np.float64))
        exists, mask = scm.problem.exists, intervention.mask
        expected = np.where(exists, scm.location + scm.scale * u, 0.0)
        error = np.abs(rows - expected) / scm.scale
        self.assertLess(error.max(), 1e-4)
        np.testing.assert_array_equal(
          rows[:, mask], np.tile(intervention.values[mask], (_NUM_DRAWS, 1))
        )
        np.testing.assert_array_equal(rows[:, ~exists], 0.0)
        # On the same draws, the expectation is the mean of the rows.
        mean = np.asarray(_expectation(scm, noise, intervention)[0])
        error = np.abs(mean - expected.mean(0)) / scm.scale
        self.assertLess(error.max(), 1e-4)
        np.testing.assert_array_equal(mean[mask], intervention.values[mask])
        np.testing.assert_array_equal(mean[~exists], 0.0)

  def test_latent_variables_have_effects_and_are_not_observed(self):
    num_latent = 0
    rng, key = np.random.default_rng(2), jax.random.key(2)
    nothing = interventions.no_intervention(_NUM_VARIABLES)
    for _, scm in _scms(4):
      latent = scm.present & ~scm.problem.exists
      moved = drawn_tasks.closure(scm.parents)[:, latent].any(1)
      moved &= scm.problem.exists
      if not moved.any():
        continue
      num_latent += 1
      rows = np.asarray(_sample(key, scm, nothing, _NUM_DRAWS))
      np.testing.assert_array_equal(rows[:, latent], 0.0)
      without = scm._replace(present=scm.problem.exists)
      others = np.asarray(_sample(key, without, nothing, _NUM_DRAWS))
      change = np.abs(rows - others).max(0) / scm.scale
      np.testing.assert_array_equal(change > 1e-3, moved)
      # In internal units they vary as much as the others.
      noise = _draw_noise(rng, scm, 200).astype(np.float32)
      u = np.asarray(_propagate(scm, nothing, noise))
      self.assertBetween(u[:, latent].std(), 0.5, 2.0)
    self.assertGreater(num_latent, 0)


class LinearTest(parameterized.TestCase):
  @pytest.mark.oracle
  def test_mean_and_covariance_in_closed_form(self):
    # A linear SCM is affine in the noise: its values without noise and for the
    # noise of each variable alone determine mean and covariance.
    rng = np.random.default_rng(2)
    unit = np.concatenate(
      [np.zeros((1, _NUM_VARIABLES)), np.eye(_NUM_VARIABLES)]
    )
    batch = drawn_tasks.some(8, mechanisms.Family.LINEAR).scm
    for index in range(8):
      scm = drawn_tasks.unstack(batch, index)
      variance = np.square(_doubles(scm).mechanism.noise_scale)
      for intervention in _some_interventions(rng, scm.problem):
        u = np.asarray(
          _propagate(scm, intervention, unit.astype(np.float32)), np.float64
        )
        offset, transfer = _transfer(scm, intervention)
        np.testing.assert_allclose(u[0], offset, atol=1e-4)
        actual = (u[1:] - u[0]).T
        np.testing.assert_allclose(
          (actual * variance) @ actual.T,
          (transfer * variance) @ transfer.T,
          atol=1e-4,
        )

  @pytest.mark.stat
  def test_mean_and_covariance_of_samples(self):
    num_samples = 20_000
    scm = hand_made_scms.chain(scale=[1.0, 2.0, 0.5, 1.0])
    for settings in ({}, {1: 0.5}):
      rows = _sample(jax.random.key(3), scm, _do(settings, 4), num_samples)
      rows = np.asarray(rows, np.float64)[:, :3]
      offset, transfer = _transfer(scm, _do(settings, 4))
      scale = np.asarray(scm.scale)[:3]
      mean = (offset[:3] + 0) * scale
      covariance = (transfer @ transfer.T)[:3, :3] * np.outer(scale, scale)
      diagonal = np.diag(covariance)
      error = np.sqrt(diagonal / num_samples) + 1e-6
      self.assertLess(
        np.abs((rows.mean(0) - mean) / error).max(), chance.SIGMAS
      )
      # Isserlis: the error of a sample covariance of normal variables.
      error = np.outer(diagonal, diagonal) + np.square(covariance)
      error = np.sqrt(error / num_samples) + 1e-6
      self.assertLess(
        np.abs((np.cov(rows.T) - covariance) / error).max(), chance.SIGMAS
      )

  @pytest.mark.oracle
  def test_expected_outcome_is_exact(self):
    rng, num_scms = np.random.default_rng(4), 40
    batch = drawn_tasks.some(num_scms, mechanisms.Family.LINEAR)
    for index in range(num_scms):
      scm, objective = drawn_tasks.unstack(batch, index)
      for intervention in _some_interventions(rng, scm.problem):
        mean, _ = _transfer(scm, intervention)
        self.assertAlmostEqual(
          _expected_outcome(scm, objective.bank, intervention),
          scm.problem.goal * mean[scm.problem.target.argmax()],
          delta=1e-4,
        )


class NonlinearTest(parameterized.TestCase):
  @pytest.mark.oracle
  @pytest.mark.stat
  def test_expected_outcome_against_monte_carlo(self):
    rng, num_draws, num_bank = np.random.default_rng(5), 200_000, 2000
    draw_bank = jax.jit(simulate.noise_bank, static_argnums=2)
    for index, (family, scm) in enumerate(_scms(2)):
      if family == mechanisms.Family.LINEAR:
        continue
      target = scm.problem.target.argmax()
      bank = draw_bank(jax.random.key(index), scm, num_bank)
      noise = _draw_noise(rng, scm, num_draws)
      for intervention in list(_some_interventions(rng, scm.problem))[:2]:
        outcomes = (
          scm.problem.goal
          * (_by_recursion(scm, intervention, noise)[:, target])
        )
        actual = _expected_outcome(scm, bank, intervention)
        variance = outcomes.var() * (1 / num_draws + 1 / num_bank)
        z = (actual - outcomes.mean()) / np.sqrt(variance)
        self.assertLess(abs(z), chance.SIGMAS)


class NothingToReachTest(parameterized.TestCase):
  def test_refuses_an_scm_in_which_worst_equals_best(self):
    # x1 has no effect on the target, and x0 may not be set.
    linear = np.zeros((3, 3))
    linear[2, 0] = 1.0
    scm = hand_made_scms.scm(
      hand_made_scms.mechanism(3, linear=linear),
      hand_made_scms.problem(3, 2, (1,)),
    )
    with self.assertRaisesRegex(ValueError, 'no allowed intervention changes'):
      objective_lib.objective(scm, jnp.zeros((1, 3)), 4)


class ObjectiveTest(parameterized.TestCase):
  @pytest.mark.stat
  def test_worst_and_best_against_a_fine_grid(self):
    num_tasks, num_points = 200, 400
    scms, objectives = drawn_tasks.some(num_tasks)

    def outcomes(task):
      """Outcomes [D, points] by brute force."""
      scm, objective = task

      def at(variable, fraction):
        intervention = interventions.intervene_on(
          scm.problem, variable, fraction
        )
        return simulate.expected_outcome(scm, objective.bank, intervention)

      variables = jnp.arange(_NUM_VARIABLES)
      points = jnp.linspace(0, 1, num_points)
      return jax.vmap(jax.vmap(at, (None, 0)), (0, None))(variables, points)

    def all_outcomes(tasks):
      return jax.lax.map(outcomes, tasks, batch_size=8)

    program = jax.jit(all_outcomes, compiler_options=drawn_tasks.QUICK)
    fine = np.asarray(program((scms, objectives)))
    settable = scms.problem.settable[:, :, None]
    best = np.where(settable, fine, -np.inf).max((1, 2))
    worst = np.where(settable, fine, np.inf).min((1, 2))
    span = objectives.best - objectives.worst
    over = (best - objectives.best) / span
    under = (objectives.worst - worst) / span
    # Between the points of its search the objective misses at most 0.23 % of
    # the range here, and 0.02 % in 95 of 100 SCMs.
    for missed in (over, under):
      self.assertLess(missed.max(), 0.01)
      self.assertLess(np.quantile(missed, 0.95), 1e-3)
      # Its optimum is attainable: the fine grid comes as close.
      self.assertGreater(missed.min(), -1e-3)

  @parameterized.parameters(drawn_tasks.PRIOR, drawn_tasks.GENERAL)
  def test_random_interventions_are_allowed_and_have_their_outcomes(
    self, prior
  ):
    num_scms, number = 50, 8
    scms, objectives = drawn_tasks.some(num_scms, prior=prior)

    def draw(key, scm, objective):
      drawn, expected = objective_lib.random_interventions(
        key, scm.problem, objective, number
      )
      outcomes = jax.vmap(simulate.expected_outcome, (None, None, 0))(
        scm, objective.bank, drawn
      )
      return drawn, expected, outcomes

    keys = jax.random.split(jax.random.PRNGKey(0), num_scms)
    drawn, expected, outcomes = jax.jit(jax.vmap(draw))(keys, scms, objectives)
    np.testing.assert_allclose(expected, outcomes, rtol=1e-4, atol=1e-4)
    problem = scms.problem
    same = (problem.sets[:, None] == drawn.mask[:, :, None]).all(-1)
    self.assertTrue(same.any(-1).all())
    inside = (drawn.values >= problem.low[:, None]) & (
      drawn.values <= problem.high[:, None]
    )
    self.assertTrue((inside | ~drawn.mask).all())
    self.assertGreater(len(np.unique(drawn.values[drawn.mask])), num_scms)

  @parameterized.parameters(drawn_tasks.PRIOR, drawn_tasks.GENERAL)
  def test_choice_is_allowed_and_attains_the_best(self, prior):
    scms, objectives = drawn_tasks.some(200, prior=prior)
    mask, values = objectives.choice
    self.assertEqual(mask.dtype, bool)
    outcome = jax.jit(jax.vmap(simulate.expected_outcome))(
      scms, objectives.bank, objectives.choice
    )
    np.testing.assert_allclose(outcome, objectives.best, rtol=1e-4, atol=1e-4)
    problem = scms.problem
    same = (problem.sets == mask[:, None]).all(-1)
    self.assertTrue(same.any(1).all())
    inside = (values >= problem.low) & (values <= problem.high)
    self.assertTrue((inside | ~mask).all())
    np.testing.assert_array_equal(values[~mask], 0.0)


class SetsTest(parameterized.TestCase):
  """Sets of two and more variables, by hand and by brute force."""

  def _sum_of_three(self, sets, goal=1.0):
    """x3 = x0 + 2 x1 - x2; domains [-1, 1]."""
    linear = np.zeros((4, 4))
    linear[3] = [1, 2, -1, 0]
    sets = [np.isin(np.arange(4), members) for members in sets]
    problem = hand_made_scms.problem(4, 3, goal=goal, sets=sets)
    return hand_made_scms.scm(
      hand_made_scms.mechanism(4, linear=linear), problem
    )

  @parameterized.parameters(
    ([[0], [1]], 1, [0, 1, 0], 2, -2),
    ([[0], [0, 1], [0, 2]], 2, [1, 1, 0], 3, -3),
    ([[0, 2], [1]], 2, [0, 1, 0], 2, -2),
    ([[0, 1, 2]], 3, [1, 1, -1], 4, -4),
    ([[0], [1], [2], [0, 1], [0, 2], [1, 2]], 2, [1, 1, 0], 3, -3),
  )
  def test_by_hand(self, sets, max_size, choice, best, worst):
    scm = self._sum_of_three(sets)
    objective = _objective(
      scm, jnp.zeros((1, 4)), 4, max_size, jax.random.key(0)
    )
    self.assertAlmostEqual(objective.best, best, places=5)
    self.assertAlmostEqual(objective.worst, worst, places=5)
    np.testing.assert_allclose(objective.choice.values, [*choice, 0])
    np.testing.assert_array_equal(
      objective.choice.mask, [*(np.array(choice) != 0), False]
    )
    self.assertEqual(objective.curves.shape, (max_size, 4, 6))

  def test_values_are_refined_with_the_others_fixed(self):
    # x2 = (x0 + x1) / 2 - (x0 - x1)^2, on points 1/8 apart. Alone each is best
    # at 1/4; beside x0 there, x1 is at 1/2; beside x1 there, x0 is at 3/4; and
    # beside that, x1 at 1: 7/8 - 1/16. At (1, 1) it would be 1.
    equations = hand_made_scms.mechanism(
      3,
      linear=[[0] * 3, [0] * 3, [0.5, 0.5, 0]],
      hidden=[[[0] * 3], [[0] * 3], [[1, -1, 0]]],
      output=[[0], [0], [-1]],
      activation=mechanisms.Activation.SQUARE,
    )
    sets = [[1, 0, 0], [0, 1, 0], [1, 1, 0]]
    scm = hand_made_scms.scm(
      equations,
      hand_made_scms.problem(3, 2, sets=sets),
      family=mechanisms.Family.PRODUCT,
    )
    objective = _objective(scm, jnp.zeros((1, 3)), 4, 2, jax.random.key(0))
    np.testing.assert_allclose(
      objective.choice.values, [0.75, 1.0, 0.0], rtol=1e-6
    )
    # The square saturates slightly.
    self.assertAlmostEqual(objective.best, 7 / 8 - 1 / 16, delta=1e-3)

  def test_partial_interventions_need_a_key(self):
    with self.assertRaisesRegex(ValueError, 'max_size > 1 needs a key'):
      _objective(self._sum_of_three([[0], [0, 1]]), jnp.zeros((1, 4)), 4, 2)

  def test_curves_are_outcomes_with_one_more_variable(self):
    scms, objectives = drawn_tasks.some(100, prior=drawn_tasks.GENERAL)
    num_cells = drawn_tasks.GENERAL.num_cells
    places = np.concatenate(
      [[0], (np.arange(num_cells) + 0.5) / num_cells, [1]]
    )

    @jax.jit
    @jax.vmap
    @functools.partial(jax.vmap, in_axes=(None, 0, 0))
    def outcome(task, mask, values):
      return simulate.expected_outcome(
        task.scm, task.objective.bank, types.Intervention(mask, values)
      )

    problem, partial = scms.problem, objectives.partial
    task = types.Task(scms, objectives)
    with self.subTest('as they are'):
      self.assertFalse(partial.mask[:, 0].any())
      np.testing.assert_allclose(
        outcome(task, *partial),
        objectives.partial_outcome,
        rtol=1e-4,
        atol=1e-4,
      )
      np.testing.assert_allclose(
        objectives.partial_outcome[:, 0], objectives.baseline, atol=1e-6
      )
    with self.subTest('part of a set, at or close to points of the grid'):
      np.testing.assert_array_equal(partial.mask[:, 1].sum(1), 1)
      within = partial.mask[:, 1] & ~problem.settable
      self.assertFalse(within.any())
    # Every variable and point, one call for each point.
    low, high = problem.low[:, None], problem.high[:, None]
    variables = np.eye(_NUM_VARIABLES, dtype=bool)
    sizes = np.zeros(3, int)
    for c, place in enumerate(places):
      for p in range(2):
        mask = partial.mask[:, p, None] | variables  # [M, D, D]
        values = (1 - place) * low + place * high
        values = np.where(variables, values, partial.values[:, p, None])
        values = np.where(mask, values, 0.0).astype(np.float32)
        expected = np.asarray(outcome(task, mask, values))
        # It may be added if both together are part of a set.
        part = (~mask[:, :, None] | problem.sets[:, None]).all(-1).any(-1)
        part &= ~partial.mask[:, p]
        expected = np.where(
          part, expected, objectives.partial_outcome[:, p, None]
        )
        np.testing.assert_allclose(
          objectives.curves[:, p, :, c], expected, rtol=1e-3, atol=1e-3
        )
        sizes[p] += part.sum()
    self.assertGreater(sizes[:2].min(), 1000)

  def test_half_of_the_partial_interventions_are_greedy(self):
    _, objectives = drawn_tasks.some(500, prior=drawn_tasks.GENERAL)
    partial, first = objectives.partial, objectives.curves[:, 0]
    reached = objectives.partial_outcome[:, 1]
    # The greedy one is better than every single point of the grid; any other
    # is so by chance.
    best = first.max((1, 2))
    share = (reached >= best - 1e-4).mean()
    self.assertBetween(share, 0.45, 0.7)
    self.assertLen(np.unique(partial.values[:, 1], axis=0), 500)

  @parameterized.parameters(
    # In more draws, more than 0.01 is missed by 1 %, 4 % and 4 %. Of a product
    # each factor alone may do nothing, and the search takes another variable.
    (mechanisms.Family.LINEAR, 0.1, 0.02),
    (mechanisms.Family.PRODUCT, 0.3, 0.15),
    (mechanisms.Family.MIXED, 0.2, 0.06),
  )
  def test_against_brute_force(self, family, share, mean):
    # All sets of one and two variables, on 18 points each.
    tasks = drawn_tasks.some(40, family, drawn_tasks.GENERAL)
    best, worst = map(np.asarray, _brute_force()(tasks))
    objectives = tasks.objective
    span = objectives.best - objectives.worst
    missed = np.stack([best - objectives.best, objectives.worst - worst]) / span
    # What the search finds is there: the grid comes close to it, except where a
    # curve is steep.
    self.assertGreater(np.quantile(missed, 0.05), -0.1)
    self.assertLess((missed > 0.01).mean(), share)
    self.assertLess(missed.mean(), mean)


@functools.cache
def _brute_force():
  """tasks -> [M] best and worst outcomes of sets of two, on a grid."""
  points = interventions.grid(16)
  pairs = np.array(
    [(i, j) for i in range(_NUM_VARIABLES) for j in range(i, _NUM_VARIABLES)]
  )

  def of_pair(task, pair):
    scm, objective = task
    variables = jnp.arange(_NUM_VARIABLES)
    mask = (variables == pair[0]) | (variables == pair[1])

    def at(first, second):
      problem = scm.problem
      place = jnp.where(variables == pair[0], first, second)
      values = (1 - place) * problem.low + place * problem.high
      return simulate.expected_outcome(
        scm, objective.bank, types.Intervention(mask, values)
      )

    outcomes = jax.vmap(jax.vmap(at, (None, 0)), (0, None))(points, points)
    allowed = (scm.problem.sets == mask).all(-1).any()
    most = jnp.where(allowed, outcomes.max(), -jnp.inf)
    return most, jnp.where(allowed, outcomes.min(), jnp.inf)

  def of_task(task):
    most, least = jax.lax.map(lambda pair: of_pair(task, pair), pairs)
    return most.max(), least.min()

  return jax.jit(
    lambda tasks: jax.lax.map(of_task, tasks, batch_size=8),
    compiler_options=drawn_tasks.QUICK,
  )


class InterveneOnTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    rng = np.random.default_rng(6)
    low = rng.normal(size=(1000, 3)) * np.exp(rng.normal(size=(1000, 1)) * 4)
    high = low + np.exp(rng.normal(size=(1000, 3)) * 4)
    self.low, self.high = low.astype(np.float32), high.astype(np.float32)
    template = hand_made_scms.problem(3, 0)

    def value(low, high, fraction):
      problem = template._replace(low=low, high=high)
      return _intervene_on(problem, 1, fraction)

    self.put = jax.jit(jax.vmap(value))

  def test_ends_are_exact(self):
    for fraction, ends in ((0.0, self.low), (1.0, self.high)):
      chosen = self.put(self.low, self.high, np.full(1000, fraction))
      np.testing.assert_array_equal(chosen.values[:, 1], ends[:, 1])

  def test_stays_within_the_domain(self):
    # Uniform, close to either end, and the largest float32 below 1.
    fraction = np.random.default_rng(7).uniform(size=1000)
    for place in (
      fraction,
      1e-7 * fraction,
      1 - 1e-7 * fraction,
      np.full(1000, 1 - 2.0**-24),
    ):
      chosen = self.put(self.low, self.high, place.astype(np.float32))
      values = np.asarray(chosen.values)[:, 1]
      self.assertTrue((values >= self.low[:, 1]).all())
      self.assertTrue((values <= self.high[:, 1]).all())

  def test_sets_one_variable_in_proportion(self):
    problem = hand_made_scms.problem(3, 0, low=-2.0, high=6.0)
    chosen = _intervene_on(problem, 1, 0.75)
    np.testing.assert_array_equal(chosen.mask, [False, True, False])
    np.testing.assert_array_equal(chosen.values, [0.0, 4.0, 0.0])


class RelabelTest(parameterized.TestCase):
  def test_by_hand(self):
    # Column 0 holds the old 2, column 1 the padding, then 0 and 1.
    scm = _relabel(hand_made_scms.chain(), jnp.array([2, 3, 0, 1]))
    np.testing.assert_array_equal(scm.order, [2, 3, 0, 1])
    np.testing.assert_array_equal(scm.problem.exists, [1, 0, 1, 1])
    np.testing.assert_array_equal(scm.problem.target, [1, 0, 0, 0])
    np.testing.assert_array_equal(scm.problem.settable, [0, 0, 1, 1])
    np.testing.assert_array_equal(scm.problem.low, [0.0, 0.0, -1.0, -0.5])
    np.testing.assert_array_equal(scm.mechanism.bias, [0.0, 0.0, 0.0, 1.0])
    self.assertEqual(scm.problem.goal, 1.0)
    np.testing.assert_array_equal(
      scm.parents, [[0, 0, 0, 1], [0] * 4, [0] * 4, [0, 0, 1, 0]]
    )
    np.testing.assert_array_equal(
      scm.mechanism.linear, [[0, 0, 0, -1], [0] * 4, [0] * 4, [0, 0, 2, 0]]
    )

  def test_back_and_forth(self):
    rng = np.random.default_rng(8)
    for _, scm in _scms(2):
      permutation = rng.permutation(_NUM_VARIABLES)
      relabeled = _relabel(scm, permutation)
      jax.tree.map(
        np.testing.assert_array_equal,
        _relabel(relabeled, np.argsort(permutation)),
        scm,
      )

  def test_commutes_with_simulation(self):
    rng = np.random.default_rng(9)
    for _, scm in _scms(3):
      noise = _draw_noise(rng, scm, _NUM_DRAWS).astype(np.float32)
      permutation = rng.permutation(_NUM_VARIABLES)
      relabeled = _relabel(scm, permutation)
      for intervention in _some_interventions(rng, scm.problem):
        moved = jax.tree.map(lambda x: x[permutation], intervention)  # noqa: B023
        np.testing.assert_allclose(
          _propagate(relabeled, moved, noise[:, permutation]),
          _propagate(scm, intervention, noise)[:, permutation],
          atol=1e-4,
        )


class UnitsTest(parameterized.TestCase):
  def test_other_units_commute_with_simulation(self):
    rng, key = np.random.default_rng(10), jax.random.key(10)
    for _, scm in _scms(2):
      factor = np.exp(rng.normal(size=_NUM_VARIABLES)).astype(np.float32)
      shift = rng.normal(size=_NUM_VARIABLES).astype(np.float32)
      other = scm._replace(
        location=shift + factor * scm.location, scale=factor * scm.scale
      )
      for intervention in _some_interventions(rng, scm.problem):
        mask = intervention.mask
        set_to = jnp.where(mask, shift + factor * intervention.values, 0.0)
        rows = _sample(key, scm, intervention, _NUM_DRAWS)
        others = _sample(
          key, other, types.Intervention(mask, set_to), _NUM_DRAWS
        )
        expected = np.where(scm.problem.exists, shift + factor * rows, 0.0)
        error = np.abs(others - expected) / other.scale
        self.assertLess(error.max(), 1e-3)


if __name__ == '__main__':
  absltest.main()
