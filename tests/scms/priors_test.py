"""Tests of the training prior: what it draws, and what it leaks.

A leak is anything that tells causes from effects without an experiment.
"""

import dataclasses

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from acme_cbo.scms import config
from acme_cbo.scms import graphs
from acme_cbo.scms import mechanisms
from acme_cbo.scms import priors
from tests.support import chance
from tests.support import drawn_tasks
from tests.support import miniature

_PRIOR = drawn_tasks.PRIOR
_NUM_VARIABLES = _PRIOR.max_variables


def _scms():
  return drawn_tasks.tasks().scm


def _num_scms():
  return _scms().family.size


def _target_ancestors():
  """[M, D] bool: the causes, direct or not, of the target."""
  target = _scms().problem.target.argmax(1)
  return drawn_tasks.closure(_scms().parents)[np.arange(_num_scms()), target]


def _others():
  """[M, D] bool: what is neither the target nor padding."""
  return _scms().problem.exists & ~_scms().problem.target


def _target_correlations():
  """[M, D] absolute correlation of each other variable with the target."""
  rows = drawn_tasks.observations()
  deviation = np.where(_scms().problem.exists, rows.std(1), 1)
  rows = (rows - rows.mean(1, keepdims=True)) / deviation[:, None]
  target = (rows * _scms().problem.target[:, None]).sum(2)
  correlation = np.abs((rows * target[:, :, None]).mean(1))
  return np.where(_others(), correlation, 0.0)


def _domains():
  """[M, D] half-widths and centers, in observational deviations."""
  rows, problem = drawn_tasks.observations(), _scms().problem
  deviation = np.where(problem.exists, rows.std(1), 1)
  low = (problem.low - rows.mean(1)) / deviation
  high = (problem.high - rows.mean(1)) / deviation
  return (high - low) / 2, (high + low) / 2


def _sortability(score):
  """Share of paths along which a score grows, per SCM with an edge.

  Reisach et al. (2021), https://arxiv.org/abs/2102.13647: the share of the
  directed paths, counted once for every length and pair of ends, along which
  the score is larger at the end; ties count half.
  """
  edges = _scms().parents.astype(int)
  grows = (score[:, :, None] > score[:, None]) + 0.5 * (
    score[:, :, None] == score[:, None]
  )
  paths, along, right = edges, np.zeros(len(edges)), np.zeros(len(edges))
  for _ in range(_NUM_VARIABLES):
    along = along + paths.sum((1, 2))
    right = right + (paths * grows).sum((1, 2))
    paths = (paths @ edges > 0).astype(int)
  return right / along


class DrawnTest(parameterized.TestCase):
  def test_every_kind_occurs(self):
    scms = _scms()
    with self.subTest('graphs'):
      counts = np.bincount(scms.graph, minlength=len(graphs.Graph))
      self.assertGreater(counts.min(), 0.08 * _num_scms())
    with self.subTest('families'):
      counts = np.bincount(scms.family, minlength=len(mechanisms.Family))
      asked_for = np.array(_PRIOR.family_weights.in_order) > 0
      self.assertGreater(counts[asked_for].min(), 0.1 * _num_scms())
      self.assertEqual(counts[~asked_for].sum(), 0)
    with self.subTest('noise'):
      kinds = scms.mechanism.noise[scms.problem.exists]
      share = np.bincount(kinds, minlength=len(mechanisms.Noise)) / kinds.size
      asked_for = np.array(_PRIOR.noise_weights.in_order)
      error = np.sqrt(2 / 9 / kinds.size)
      np.testing.assert_allclose(
        share, asked_for / 3, atol=chance.SIGMAS * error
      )
    with self.subTest('sizes'):
      sizes, counts = np.unique(scms.problem.exists.sum(1), return_counts=True)
      np.testing.assert_array_equal(
        sizes, np.arange(_PRIOR.min_variables, _NUM_VARIABLES + 1)
      )
      self.assertGreater(counts.min(), 0.5 * _num_scms() / sizes.size)

  def test_goals_have_both_signs(self):
    goals = _scms().problem.goal
    np.testing.assert_array_equal(np.unique(goals), [-1, 1])
    self.assertLess(abs(goals.mean()), chance.SIGMAS / np.sqrt(goals.size))

  def test_is_a_valid_scm(self):
    scms = _scms()
    exists = scms.problem.exists
    place = np.argsort(scms.order, 1)
    # Every edge leads forward in the order, from and to what exists.
    m, j, i = scms.parents.nonzero()
    self.assertTrue((place[m, i] < place[m, j]).all())
    self.assertTrue((exists[m, i] & exists[m, j]).all())
    # Padding stands last.
    self.assertTrue(
      (place[exists] < np.repeat(exists.sum(1), exists.sum(1))).all()
    )
    np.testing.assert_array_equal(scms.problem.target.sum(1), 1)
    self.assertFalse((scms.problem.target & ~exists).any())
    self.assertFalse((scms.problem.settable & ~_others()).any())
    tasks = drawn_tasks.tasks()
    np.testing.assert_array_equal(scms.problem.budget, np.inf)
    problem = scms.problem._replace(budget=jnp.float32(0))
    jax.tree.map(
      lambda leaf: self.assertTrue(np.isfinite(leaf).all()),
      tasks._replace(scm=scms._replace(problem=problem)),
    )

  def test_equations_use_the_parents_alone(self):
    scms = _scms()
    used = (scms.mechanism.linear != 0) | (scms.mechanism.hidden != 0).any(2)
    self.assertFalse((used & ~scms.parents).any())

  def test_target_has_a_cause_that_may_be_set(self):
    causes = _target_ancestors() & _scms().problem.settable
    self.assertTrue(causes.any(1).all())

  def test_gain_is_at_least_the_minimum(self):
    objectives = drawn_tasks.tasks().objective
    gain = objectives.best - objectives.baseline
    self.assertGreaterEqual(gain.min(), _PRIOR.min_gain)
    self.assertGreater((objectives.best - objectives.worst).min(), 0.0)

  def test_tasks_differ(self):
    locations = _scms().location
    self.assertLen(np.unique(locations, axis=0), _num_scms())

  @pytest.mark.stat
  def test_variables_have_mean_0_and_deviation_1_inside(self):
    scms, rows = _scms(), drawn_tasks.observations()
    u = (rows - scms.location[:, None]) / scms.scale[:, None]
    exists = scms.problem.exists
    # 256 draws standardize what 500 rows measure, of kurtosis up to 6 or more:
    # errors of about a tenth.
    deviation = u.std(1)[exists]
    self.assertLess(np.abs(deviation - 1).mean(), 0.06)
    self.assertLess(np.quantile(np.abs(deviation - 1), 0.99), 0.25)
    self.assertLess(np.quantile(np.abs(u.mean(1)[exists]), 0.99), 0.35)

  @pytest.mark.stat
  def test_domains_are_within_the_limits(self):
    exists = _scms().problem.exists
    half, centre = (x[exists] for x in _domains())
    # The deviations are known to about a tenth, see above.
    self.assertGreater(np.quantile(half, 0.005), 0.85 * _PRIOR.min_width)
    self.assertLess(np.quantile(half, 0.995), 1.15 * _PRIOR.max_width)
    bound = 1.15 * _PRIOR.max_centre
    self.assertLess(np.quantile(np.abs(centre), 0.99), bound)
    middle = (_PRIOR.min_width + _PRIOR.max_width) / 2
    self.assertAlmostEqual(half.mean(), middle, delta=0.03 * middle)

  def test_same_key_same_tasks(self):
    again, complete = drawn_tasks.program()(jax.random.key(0))
    self.assertTrue(complete)
    first = drawn_tasks.some(again.scm.family.size)
    jax.tree.map(np.testing.assert_array_equal, again, first)

  def test_default_problems_set_one_variable_without_costs(self):
    problem = _scms().problem
    np.testing.assert_array_equal(_scms().present, problem.exists)
    self.assertEqual(problem.sets.sum(2).max(), 1)
    np.testing.assert_array_equal(problem.budget, np.inf)
    np.testing.assert_array_equal(problem.samples, 1)

  def test_refuses_an_impossible_prior(self):
    impossible = dataclasses.replace(
      _PRIOR,
      max_variables=3,
      family_weights=config.FamilyWeights.only('linear'),
      min_gain=1e6,
      num_hidden=2,
      bank_size=1,
      num_cells=1,
    )
    with self.assertRaisesRegex(ValueError, 'lower scms.min_gain'):
      priors.sample(jax.random.key(0), impossible, 2)

  def test_calls_no_lapack(self):
    # Several batched factorizations in one program deadlock jax 0.10.2 on a
    # CPU of two cores.
    solve = jax.jit(jnp.linalg.solve).lower(jnp.eye(2), jnp.ones(2))
    self.assertNotEmpty(miniature.lapack_calls(solve))
    self.assertEmpty(miniature.lapack_calls(drawn_tasks.lowered()))


def _general():
  return drawn_tasks.some(500, prior=drawn_tasks.GENERAL).scm


# What else a laboratory meets. All linear: effects are known without sampling.
_WIDE = dataclasses.replace(
  drawn_tasks.GENERAL,
  family_weights=config.FamilyWeights.only('linear'),
  set_weights=config.SetWeights(single=0.25, any_size=0.25, largest=0.5),
  noise_weights=config.NoiseWeights(student=1.0),
  latent=0.0,
  noiseless=0.4,
  uneven=0.5,
  confounded=0.5,
  informed=0.5,
  stepped=0.5,
)


def _wide():
  return drawn_tasks.some(500, prior=_WIDE).scm


def _total_effects(scms, noise_too=False):
  """Effects `[M, j, i]` of i on j along all paths, in internal units."""
  linear = scms.mechanism.linear
  identity = np.eye(linear.shape[-1])
  effects = np.linalg.inv(identity - linear)
  return effects * scms.mechanism.noise_scale[:, None] if noise_too else effects


def _is_confounded():
  """[M] bool: a latent first cause of the target and of a cause of it."""
  scms = _wide()
  latent = scms.present & ~scms.problem.exists
  target = scms.problem.target.argmax(1)
  of_target = scms.parents[np.arange(len(target)), target]
  both = latent[:, None] & scms.parents & of_target[:, :, None]
  return (latent & of_target & both.any(1)).any(1)


class SharesTestCase(parameterized.TestCase):
  def _assert_share(self, happens, probability):
    # Twice as wide, as what is refused is not drawn evenly.
    error = np.sqrt(probability * (1 - probability) / happens.size)
    self.assertAlmostEqual(
      happens.mean(), probability, delta=2 * chance.SIGMAS * error
    )


class WideTest(SharesTestCase):
  """Options of a prior: no noise, uneven noise, confounding, kinds of sets."""

  @pytest.mark.stat
  def test_noiseless(self):
    scms = _wide()
    is_silent = scms.mechanism.noise_scale < 1e-3
    is_root = ~scms.parents.any(2)
    self.assertFalse((is_silent & is_root & scms.present).any())
    of_target = (is_silent & scms.problem.target).any(1)
    self._assert_share(of_target, _WIDE.noiseless)
    everywhere = (is_silent | is_root | ~scms.present).all(1)
    self.assertTrue(of_target[everywhere].all())
    inner = scms.present & ~is_root & ~scms.problem.target
    several = inner.any(1)
    self._assert_share(everywhere[several], _WIDE.noiseless / 2)
    self.assertFalse((is_silent & inner)[~everywhere].any())

  @pytest.mark.stat
  def test_uneven_noise_follows_the_parents(self):
    scms = _wide()
    weights = scms.mechanism.unevenness
    self.assertFalse(((weights != 0) & ~scms.parents).any())
    self._assert_share((weights != 0).any((1, 2)), _WIDE.uneven)
    index = int(np.abs(weights).max(2).max(1).argmax())
    one = jax.tree.map(lambda leaf: leaf[index], scms)
    j = np.abs(one.mechanism.unevenness).max(1).argmax()
    slope = one.mechanism.unevenness[j]
    u = (
      np.array([-100, -0.2, 0.2, 100], np.float32)[:, None]
      * slope
      / (slope @ slope)
    )
    np.testing.assert_allclose(
      mechanisms.noise_factor(one.mechanism, j, u),
      np.exp([-1.5, -0.2, 0.2, 1.5]),
      rtol=1e-5,
    )
    noise = np.ones_like(u)
    difference = mechanisms.value(one.mechanism, j, u, noise)
    difference -= mechanisms.signal(one.mechanism, j, u)
    np.testing.assert_allclose(difference, np.exp([-1.5, -0.2, 0.2, 1.5]), 1e-3)

  @pytest.mark.stat
  def test_confounding_turns_correlations_around(self):
    scms, confounded = _wide(), _is_confounded()
    self.assertBetween(confounded.mean(), 0.3, 0.5)
    target = scms.problem.target.argmax(1)
    rows = np.arange(len(target))
    effects = _total_effects(scms)[rows, target]  # [M, D]
    spread = _total_effects(scms, noise_too=True)
    covariances = spread @ np.swapaxes(spread, 1, 2)
    passive = covariances[rows, target]
    causes = scms.parents[rows, target] & scms.problem.settable
    is_wrong = (effects * passive < 0) & (abs(effects) > 0.05) & causes
    self.assertGreater(is_wrong.any(1)[confounded].mean(), 0.3)
    self.assertLess(is_wrong.any(1)[~confounded].mean(), 0.15)

  @pytest.mark.stat
  def test_known_edges(self):
    scms = _wide()
    edges, exists = np.asarray(scms.problem.edges), scms.problem.exists
    pairs = exists[:, None] & exists[:, :, None]
    self.assertFalse((edges != 0)[~pairs].any())
    self.assertTrue(scms.parents[edges == 1].all())
    self.assertFalse(scms.parents[edges == -1].any())
    # Where a share of 2 in 3 or more was drawn, all is known that can be.
    known = (edges != 0).any((1, 2))
    all_known = (edges != 0) | ~pairs | np.eye(edges.shape[1], dtype=bool)
    self._assert_share(known, _WIDE.informed)
    without_latent = (scms.present == exists).all(1)
    self._assert_share(
      all_known.all((1, 2))[without_latent], _WIDE.informed / 3
    )

  def test_nothing_is_known_of_what_a_latent_cause_joins(self):
    # 0 -> 1 (latent) -> 2 -> 3, and 0 -> 3 directly.
    parents = np.zeros((4, 4), bool)
    parents[[1, 2, 3, 3], [0, 1, 2, 0]] = True
    exists = np.array([True, False, True, True])
    known = graphs.known_edges(jnp.array(parents), jnp.array(exists))
    np.testing.assert_array_equal(
      known, [[0, 0, -1, -1], [0, 0, 0, 0], [0, 0, 0, -1], [1, 0, 1, 0]]
    )

  @pytest.mark.stat
  def test_levels(self):
    tasks = drawn_tasks.some(500, prior=_WIDE)
    problem = tasks.scm.problem
    levels = np.asarray(problem.levels)
    np.testing.assert_array_equal(np.unique(levels), [0, *range(2, 13)])
    stepped = (levels > 0).any(1)
    size = levels.shape[1]
    self._assert_share(stepped, _WIDE.stepped * (1 - 0.5**size))
    # The best intervention is one of the allowed ones.
    choice = tasks.objective.choice
    width = problem.high - problem.low
    place = (choice.values - problem.low) / np.where(width > 0, width, 1)
    steps = place * (levels - 1)
    limited = choice.mask & (levels > 0)
    self.assertGreater(limited.sum(), 50)
    np.testing.assert_allclose(
      steps[limited], np.round(steps[limited]), atol=1e-3
    )

  @pytest.mark.stat
  def test_kinds_of_sets_have_their_weights(self):
    problem = _wide().problem
    sizes, settable = problem.sets.sum(2), problem.settable.sum(1)
    several = settable > 1
    self._assert_share((sizes.max(1) == 1)[several], 0.25)
    is_one = sizes == 1
    self._assert_share(
      (sizes.max(1) > 1)[several] & ~is_one.any(1)[several], 0.5
    )


class GeneralTest(SharesTestCase):
  """Options of a prior: sets, costs, latent causes, means, mixtures."""

  @pytest.mark.stat
  def test_shares(self):
    problem, prior = _general().problem, drawn_tasks.GENERAL
    self._assert_share(problem.budget < np.inf, prior.budgeted)
    self._assert_share(problem.samples > 1, prior.averaged)
    np.testing.assert_array_equal(np.unique(problem.samples), [1, 1000])
    # Not the one without the other.
    both = (problem.budget < np.inf) & (problem.samples > 1)
    self._assert_share(both, prior.budgeted * prior.averaged)

  @pytest.mark.stat
  def test_latent_variables(self):
    scms = _general()
    latent = scms.present & ~scms.problem.exists
    self.assertFalse((scms.problem.exists & ~scms.present).any())
    others = scms.present & ~scms.problem.target
    self._assert_share(latent[others], drawn_tasks.GENERAL.latent)
    # They are causes like others, and nobody may set them.
    causes = scms.parents.any(1)
    self.assertGreater(causes[latent].mean(), 0.4)
    self.assertFalse((scms.problem.settable & latent).any())
    self.assertFalse((scms.problem.target & latent).any())
    # Sizes are those of all that is present.
    np.testing.assert_array_equal(
      np.unique(scms.present.sum(1)),
      np.arange(drawn_tasks.GENERAL.min_variables, _NUM_VARIABLES + 1),
    )

  @pytest.mark.stat
  def test_kinds_of_sets(self):
    problem = _general().problem
    sizes, settable = problem.sets.sum(2), problem.settable.sum(1)
    self.assertFalse((problem.sets & problem.target[:, None]).any())
    # All of a kind, and each once: of n that may be set there are n sets of
    # one and n (n - 1) / 2 of two.
    ones, twos = (sizes == 1).sum(1), (sizes == 2).sum(1)
    self.assertEqual(sizes.max(), 2)
    kinds = (
      (ones == settable) & (twos == 0),
      (ones == settable) & (twos == settable * (settable - 1) // 2),
      (ones == 0) & (twos == settable * (settable - 1) // 2),
    )
    several = settable > 1
    total = np.sum(kinds, 0)
    np.testing.assert_array_equal(total[several], 1)
    self.assertTrue((total[~several] >= 1).all())
    for kind, probability in zip(kinds, (0.3, 0.5, 0.2), strict=True):
      self._assert_share(kind[several], probability)
    for sets in problem.sets:
      full = sets[sets.any(1)]
      self.assertLen(np.unique(full, axis=0), len(full))

  def test_costs_and_budgets(self):
    problem, num_steps = _general().problem, 40
    self.assertEqual(drawn_tasks.GENERAL.num_interventions, num_steps)
    # Log-uniform between 1 and 20.
    level = np.log(problem.cost) / np.log(20)
    self.assertGreater(level.min(), -1e-5)
    self.assertLess(level.max(), 1 + 1e-5)
    error = np.sqrt(1 / 12 / level.size)
    self.assertAlmostEqual(level.mean(), 0.5, delta=chance.SIGMAS * error)
    cost = (problem.sets @ problem.cost[:, :, None])[..., 0]
    real = problem.sets.any(2)
    mean = cost.sum(1) / real.sum(1)
    share = problem.budget / (num_steps * mean)
    dearest = cost.max(1)
    for budget, low in zip(problem.budget, dearest, strict=True):
      self.assertGreaterEqual(budget, low * (1 - 1e-5))
    # For 30 % to 100 % of the interventions, if they cost the mean.
    bounded = problem.budget < np.inf
    bound_by_dearest = np.isclose(problem.budget, dearest)
    free = bounded & ~bound_by_dearest
    self.assertGreater(free.sum(), 200)
    self.assertBetween(share[free].min(), 0.3 - 1e-5, 0.4)
    self.assertBetween(share[free].max(), 0.9, 1 + 1e-5)

  def test_each_variable_of_a_mixture_has_its_own_family(self):
    scms = _general()
    mixed = scms.family == mechanisms.Family.MIXED
    self.assertGreater(mixed.sum(), 100)
    inner = scms.parents.any(2)
    equations = scms.mechanism
    linear = (equations.linear != 0).any(2) & ~(equations.hidden != 0).any(
      (2, 3)
    )
    activations = np.where(linear, -1, equations.activation)
    numbers = [
      len(np.unique(row[on]))
      for row, on in zip(activations, inner, strict=True)
    ]
    several = inner.sum(1) > 2
    np.testing.assert_array_equal(np.array(numbers)[~mixed], 1)
    self.assertGreater(np.mean(np.array(numbers)[mixed & several] > 1), 0.85)
    # All of them, about as often as each other: two are of a tanh.
    kinds, counts = np.unique(
      activations[mixed][inner[mixed]], return_counts=True
    )
    np.testing.assert_array_equal(kinds, [-1, 0, 1, 2, 3])
    share = counts / counts.sum()
    np.testing.assert_allclose(
      share, [1 / 6, 1 / 6, 1 / 3, 1 / 6, 1 / 6], atol=0.09
    )

  def test_length_scales(self):
    # Directions have norms of about 1, so that the steepest hidden unit of many
    # tells the shortest length scale.
    def steepest(prior):
      draw = jax.jit(
        jax.vmap(lambda key: priors.sample_scm(key, prior).mechanism)
      )
      hidden = draw(jax.random.split(jax.random.key(0), 200)).hidden
      size = np.sqrt(np.square(hidden).sum(-1).mean(-1))
      return np.quantile(size[size > 0], [0.01, 0.99])

    long_ = dataclasses.replace(
      miniature.PRIOR,
      family_weights=config.FamilyWeights.only('fourier'),
      num_hidden=32,
    )
    low, high = steepest(long_)
    short_low, short_high = steepest(
      dataclasses.replace(long_, min_length_scale=0.07)
    )
    self.assertAlmostEqual(high, 1 / 0.7, delta=0.3)
    self.assertAlmostEqual(short_high, 1 / 0.07, delta=3)
    self.assertAlmostEqual(low, 1 / 2.5, delta=0.1)
    self.assertAlmostEqual(short_low, 1 / 2.5, delta=0.1)

  def test_target_has_a_cause_that_may_be_set(self):
    scms = _general()
    target = scms.problem.target.argmax(1)
    ancestors = drawn_tasks.closure(scms.parents)[np.arange(500), target]
    self.assertTrue((ancestors & scms.problem.settable).any(1).all())

  def test_everything_is_finite(self):
    tasks = drawn_tasks.some(500, prior=drawn_tasks.GENERAL)
    problem = tasks.scm.problem
    unbounded = problem.budget == np.inf
    problem = problem._replace(budget=jnp.where(unbounded, 0, problem.budget))
    tasks = tasks._replace(scm=tasks.scm._replace(problem=problem))
    for path, leaf in jax.tree.leaves_with_path(tasks):
      self.assertTrue(np.isfinite(leaf).all(), jax.tree_util.keystr(path))


@pytest.mark.stat
class LeaksTest(parameterized.TestCase):
  def test_target_is_anywhere_in_the_order(self):
    scms = _scms()
    place = np.argsort(scms.order, 1)
    place = (place * scms.problem.target).sum(1)
    sizes = scms.problem.exists.sum(1)
    # It has a cause; a target without effects is last or among other leaves.
    self.assertEqual(place.min(), 1)
    for size in range(max(3, _PRIOR.min_variables), _NUM_VARIABLES + 1):
      with self.subTest(f'{size} variables'):
        counts = np.bincount(place[sizes == size], minlength=size)[1:]
        self.assertGreater(counts.min(), 0)
        # Of three, the last is the target of 65 % in many more draws.
        self.assertLess(counts.max() / counts.sum(), 0.85)
    # In many more draws 11 % and 45 %.
    self.assertGreater((place == 1)[sizes > 3].mean(), 0.05)
    self.assertLess((place == sizes - 1).mean(), 0.55)

  def test_columns_carry_no_information(self):
    scms = _scms()
    # Every position of the causal order, and so padding too, and the target.
    for name, column in (
      ('target', scms.problem.target.argmax(1)),
      ('first', scms.order[:, 0]),
      ('second', scms.order[:, 1]),
      ('third', scms.order[:, 2]),
      ('last', scms.order[:, -1]),
    ):
      with self.subTest(name):
        counts = np.bincount(column, minlength=_NUM_VARIABLES)
        self.assertGreater(stats.chisquare(counts).pvalue, chance.LEAST_P)
    # Effects stand to the right of their causes half of the time.
    _, j, i = scms.parents.nonzero()
    bound = chance.SIGMAS * 0.5 / np.sqrt(_num_scms())
    self.assertLess(abs((j > i).mean() - 0.5), bound)

  def test_variance_carries_no_information(self):
    # Measured: 0.50. The units are arbitrary, so the variances are.
    sortability = _sortability(drawn_tasks.observations().var(1)).mean()
    self.assertBetween(sortability, 0.42, 0.58)

  def test_explained_variance_carries_no_information(self):
    # Reisach et al. (2023), https://arxiv.org/abs/2303.18211. Measured: 0.51, a
    # mixture: 0.15 in forks, 0.99 in stars, 0.4 to 0.5 in the others.
    rows, exists = drawn_tasks.observations(), _scms().problem.exists
    explained = np.zeros(exists.shape)
    for m, present in enumerate(exists):
      correlation = np.corrcoef(rows[m][:, present].T)
      # The inverse's diagonal is 1 / (1 - R^2).
      explained[m, present] = 1 - 1 / np.linalg.inv(correlation).diagonal()
    self.assertBetween(_sortability(explained).mean(), 0.4, 0.6)

  def test_strongest_correlation_need_not_be_a_cause(self):
    # Measured: 21 % are none.
    strongest = _target_correlations().argmax(1)
    is_cause = _target_ancestors()[np.arange(_num_scms()), strongest]
    self.assertBetween(is_cause.mean(), 0.5, 0.88)

  def test_parents_may_all_be_weak(self):
    # Measured: 13 % of the targets.
    scms = _scms()
    parents = (scms.parents & scms.problem.target[:, :, None]).any(1)
    strongest = np.where(parents, _target_correlations(), 0).max(1)
    self.assertGreater((strongest < 0.3).mean(), 0.08)

  def test_domains_are_asymmetric_but_not_to_one_side(self):
    exists = _scms().problem.exists
    half, centre = (x[exists] for x in _domains())
    error = centre.std() / np.sqrt(centre.size)
    self.assertLess(abs(centre.mean()), chance.SIGMAS * error)
    # One side is longer than the other by a fifth, more often than not.
    self.assertGreater((np.abs(centre) > 0.1 * half).mean(), 0.7)

  def test_optimum_need_not_be_at_an_end(self):
    # Measured: 28 % of the nonlinear SCMs, none of the linear ones.
    scms, objectives = drawn_tasks.tasks()
    mask, values = objectives.choice
    np.testing.assert_array_equal(mask.sum(1), 1)
    value, low, high = (
      x[mask] for x in (values, scms.problem.low, scms.problem.high)
    )
    inside = (value > low) & (value < high)
    linear = scms.family == mechanisms.Family.LINEAR
    self.assertGreater(inside[~linear].mean(), 0.15)
    self.assertEqual(inside[linear].mean(), 0.0)

  def test_many_variables_are_not_causes(self):
    # Measured: 40 % of those that may be set.
    settable = _scms().problem.settable
    self.assertLess(_target_ancestors()[settable].mean(), 0.8)

  def test_units_and_domains_carry_no_information(self):
    scms, others = _scms(), _others()
    is_cause = _target_ancestors()[others]
    half, centre = _domains()
    for name, clue in (
      ('scale', np.log(scms.scale)),
      ('origin', scms.location / scms.scale),
      ('width', half),
      ('centre', centre),
      ('asymmetry', np.abs(centre)),
    ):
      with self.subTest(name):
        correlation = np.corrcoef(clue[others], is_cause)[0, 1]
        self.assertLess(
          abs(correlation), chance.SIGMAS / np.sqrt(is_cause.size)
        )

  def test_settable_variables_carry_little_information(self):
    # Measured: 0.04. The target must have a cause that may be set, so what may
    # be set is a little likelier to be one.
    others = _others()
    clue, is_cause = (
      _scms().problem.settable[others],
      _target_ancestors()[others],
    )
    self.assertLess(abs(np.corrcoef(clue, is_cause)[0, 1]), 0.1)


if __name__ == '__main__':
  absltest.main()
