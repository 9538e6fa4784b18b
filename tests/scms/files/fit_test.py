"""Tests of fitting SCMs to data."""

import pathlib
import tempfile
from typing import Any

from absl.testing import absltest
from absl.testing import parameterized
import hypothesis
from hypothesis import strategies
import jax
import numpy as np
import pytest
from scipy import optimize

from acme_cbo.environments import environment
from acme_cbo.infra import errors
from acme_cbo.scms import assemble
from acme_cbo.scms import interventions
from acme_cbo.scms import objective as objective_lib
from acme_cbo.scms import simulate
from acme_cbo.scms.files import fit
from acme_cbo.scms.files import graph_files
from tests.support import chance
from tests.support import hand_made_scms

_sample = jax.jit(simulate.sample, static_argnums=3)
_objective = jax.jit(objective_lib.objective, static_argnums=2)
_expected_outcome = jax.jit(simulate.expected_outcome)


def _graph(text):
  return graph_files.parse(text, '.txt', 'a graph')


def _table(rows, names=('A', 'B', 'C')):
  """Returns a table whose rows start on line 2 of a file."""
  return fit.Table('d.csv', tuple(names), rows, 2 + np.arange(len(rows)))


def _fit(graph, rows, names=('A', 'B', 'C'), kind='linear', **options: Any):
  """Fits a system with target C in which all other variables are settable."""
  fitted = fit.fit(graph, _table(rows, names), kind, 'a source', **options)
  target = graph.variables.index('C')
  settable = ~graph.latent & (np.arange(len(graph.latent)) != target)
  return assemble.system(
    'a name',
    'a source',
    graph.variables,
    parents=graph.parents,
    target=target,
    goal=1,
    sets=np.diag(settable)[settable],
    low=fitted.quality.minimum,
    high=fitted.quality.maximum,
    mechanism=fitted.mechanism,
    family=fitted.family,
    latent=graph.latent,
    location=fitted.location,
    scale=fitted.scale,
  )


def _mean_of_target(system, settings):
  """Returns E[target | do] in the target's own units, for a dict of names."""
  scm = system.scm
  do = hand_made_scms.do(
    {system.variables.index(name): x for name, x in settings.items()},
    len(system.variables),
  )
  bank = simulate.noise_bank(jax.random.key(0), scm, 64)
  outcome = float(scm.problem.goal * _expected_outcome(scm, bank, do))
  j = int(np.argmax(scm.problem.target))
  return float(scm.location[j]) + float(scm.scale[j]) * outcome


def _implied(system):
  """Returns means and covariances of a linear SCM, from (I - B)^-1."""
  scm = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), system.scm)
  total = np.linalg.inv(np.eye(len(scm.order)) - scm.mechanism.linear)
  half = total * scm.mechanism.noise_scale * scm.scale[:, None]
  mean = scm.location + scm.scale * (total @ scm.mechanism.bias)
  return mean, half @ half.T


_TRIANGLE = 'A B\nA C\nB C'
_FRONT_DOOR = 'A B\nB C\nU [latent]\nU A\nU C'


def _front_door(rng, num_rows, sign=1.0):
  """A -> B -> C with a latent cause of A and C."""
  u, a, b, c = rng.normal(size=(4, num_rows))
  a = u + a
  b = 2 + 0.8 * a + b
  c = 5 - 1.2 * b + 2 * sign * u + c
  return np.stack([a, b, c], 1)


class LinearTest(parameterized.TestCase):
  def test_reproduces_the_moments_of_the_data(self):
    # A graph that joins every pair has a parameter for every moment.
    rows = np.random.default_rng(0).exponential(size=(60, 3)) @ [
      [100.0, 2.0, -0.5],
      [0.0, 0.1, 3.0],
      [0.0, 0.0, 7.0],
    ]
    with jax.enable_x64(True):
      mean, covariance = _implied(_fit(_graph(_TRIANGLE), rows))
    np.testing.assert_allclose(mean, rows.mean(0), rtol=1e-12)
    np.testing.assert_allclose(covariance, np.cov(rows.T, ddof=0), rtol=1e-9)

  def test_in_single_precision_too(self):
    rows = 3e3 + np.random.default_rng(0).normal(size=(60, 3)) @ np.tri(3)
    system = _fit(_graph(_TRIANGLE), rows)
    self.assertEqual(system.scm.mechanism.linear.dtype, np.float32)
    mean, covariance = _implied(system)
    np.testing.assert_allclose(mean, rows.mean(0), rtol=1e-6)
    np.testing.assert_allclose(covariance, np.cov(rows.T, ddof=0), rtol=1e-5)

  @pytest.mark.stat
  def test_samples_have_the_moments_of_the_data(self):
    rows = np.random.default_rng(1).normal(size=(200, 3)) @ np.tri(3) + [
      1,
      2,
      3,
    ]
    system = _fit(_graph(_TRIANGLE), rows)
    nothing = interventions.no_intervention(3)
    drawn = np.asarray(_sample(jax.random.key(1), system.scm, nothing, 20_000))
    deviation = rows.std(0)
    error = np.abs(drawn.mean(0) - rows.mean(0)) / deviation
    self.assertLess(error.max(), chance.SIGMAS / np.sqrt(20_000))
    scaled = (np.cov(drawn.T) - np.cov(rows.T, ddof=0)) / np.outer(
      deviation, deviation
    )
    # A product of two standard normals has a variance of 2 at most.
    self.assertLess(np.abs(scaled).max(), chance.SIGMAS * np.sqrt(2 / 20_000))

  @pytest.mark.stat
  def test_interventional_means_of_a_known_scm(self):
    # E[C | do(A = a)] = 1 + 3 (2 a - 1) + 0.5 a, E[C | do(B = b)] = 1 + 3 b
    # + 0.5 * 4, as A has the mean 4. Regressing C on B alone would be wrong.
    noise = np.random.default_rng(2).normal(size=(3, 5000))
    a = 4 + noise[0]
    b = 2 * a - 1 + noise[1]
    c = 1 + 3 * b + 0.5 * a + noise[2]
    system = _fit(_graph(_TRIANGLE), np.stack([a, b, c], 1))
    for value in (3.0, 5.0):
      with self.subTest(f'{value}'):
        # With other seeds these differ by deviations of 0.08 and 0.03.
        self.assertAlmostEqual(
          _mean_of_target(system, {'A': value}), 6.5 * value - 2, delta=0.4
        )
        self.assertAlmostEqual(
          _mean_of_target(system, {'B': value}), 3 * value + 3, delta=0.6
        )

  def test_columns_are_found_by_their_names(self):
    rows = np.random.default_rng(3).normal(size=(50, 3)) @ np.tri(3)
    one = _fit(_graph(_TRIANGLE), rows)
    two = _fit(_graph(_TRIANGLE), rows[:, [2, 0, 1]], names=('C', 'A', 'B'))
    jax.tree.map(np.testing.assert_array_equal, one.scm, two.scm)

  def test_units_and_ranges_of_observed_variables(self):
    rows = np.random.default_rng(4).normal(size=(50, 3)) @ np.tri(3)
    graph = _graph('U [latent]\nU A\n' + _TRIANGLE)
    fitted = fit.fit(graph, _table(rows), 'linear', 'a source')
    for actual, latent_value, expected in (
      (fitted.location, 0.0, rows.mean(0)),
      (fitted.scale, 1.0, rows.std(0)),
      (fitted.quality.minimum, 0.0, rows.min(0)),
      (fitted.quality.maximum, 0.0, rows.max(0)),
    ):
      np.testing.assert_allclose(actual, [latent_value, *expected], rtol=1e-12)

  def test_is_an_scm_as_any_other(self):
    rows = np.random.default_rng(5).normal(size=(50, 3)) @ np.tri(3)
    scm = _fit(_graph(_TRIANGLE), rows).scm
    self.assertEqual(environment.reset(jax.random.key(0), scm, 7).shape, (7, 3))
    do = hand_made_scms.do({1: float(scm.problem.high[1])}, 3)
    outcome = environment.step(jax.random.key(1), scm, do)
    self.assertEqual(outcome[1], scm.problem.high[1])
    objective = _objective(
      scm, simulate.noise_bank(jax.random.key(0), scm, 4), 4
    )
    self.assertLess(objective.worst, objective.best)

  def test_a_variable_that_follows_from_its_causes_has_no_noise(self):
    a, b = np.random.default_rng(6).normal(size=(2, 50))
    rows = np.stack([a, b, 2 * a - b], 1)
    with jax.enable_x64(True):
      system = _fit(_graph('A C\nB C'), rows)
    self.assertLess(np.asarray(system.scm.mechanism.noise_scale)[1], 1e-7)


class LatentTest(parameterized.TestCase):
  @parameterized.parameters(1.0, -1.0)
  def test_front_door(self, sign):
    """Pearl's formula: the slope of B on A, times that of C on B given A.

    This graph has as many parameters as moments, so that these are the maximum
    likelihood estimates.
    """
    rows = _front_door(np.random.default_rng(7), 500, sign)
    with jax.enable_x64(True):
      system = _fit(_graph(_FRONT_DOOR), rows)
      mean, covariance = _implied(system)
      effect = _mean_of_target(system, {'A': 2.0}) - _mean_of_target(
        system, {'A': 1.0}
      )
      of_b = _mean_of_target(system, {'B': 2.0}) - _mean_of_target(
        system, {'B': 1.0}
      )
    observed = ~_graph(_FRONT_DOOR).latent
    np.testing.assert_allclose(mean[observed], rows.mean(0), rtol=1e-9)
    # Relative to the deviations, as a covariance may be close to 0.
    deviation = rows.std(0)
    difference = covariance[np.ix_(observed, observed)] - np.cov(rows.T, ddof=0)
    scaled = difference / np.outer(deviation, deviation)
    self.assertLess(np.abs(scaled).max(), 1e-4)
    a, b, c = (rows - rows.mean(0)).T
    first = (a @ b) / (a @ a)
    second = np.linalg.lstsq(np.stack([b, a], 1), c, rcond=None)[0][0]
    self.assertAlmostEqual(effect, first * second, delta=1e-3)
    self.assertAlmostEqual(of_b, second, delta=1e-3)
    # The confounded regression slope is far away.
    self.assertGreater(abs((a @ c) / (a @ a) - effect), 0.5)

  def test_maximizes_the_likelihood(self):
    """Against scipy's search over all parameters, where not all moments fit."""
    graph = _graph('U [latent]\nA B\nU B\nU C\nU D\nU E')
    rng = np.random.default_rng(19)
    rows = rng.normal(size=(60, 5))
    rows[:, 1:] += rng.normal(size=(60, 1)) * [2.0, -1.0, 0.5, 1.0]
    rows[:, 1] += rows[:, 0]
    with jax.enable_x64(True):
      system = _fit(graph, rows, names='ABCDE')
      covariance = _implied(system)[1]
    observed = ~graph.latent
    data_covariance = np.cov(rows.T, ddof=0)
    num_edges = graph.parents.sum()

    def implied(parameters):
      linear = np.zeros(graph.parents.shape)
      linear[graph.parents] = parameters[:num_edges]
      noise = np.where(graph.latent, 1.0, 0.0)
      noise[observed] = np.exp(parameters[num_edges:])
      total = np.linalg.inv(np.eye(6) - linear)
      return ((total * noise) @ total.T)[np.ix_(observed, observed)]

    def cost(parameters):
      matrix = implied(parameters)
      trace = np.trace(np.linalg.solve(matrix, data_covariance))
      return np.linalg.slogdet(matrix)[1] + trace

    best = min(
      (
        optimize.minimize(cost, rng.normal(size=num_edges + 5) / 2)
        for _ in range(4)
      ),
      key=lambda end: end.fun,
    )
    np.testing.assert_allclose(
      covariance[np.ix_(observed, observed)], implied(best.x), atol=2e-3
    )
    # The model cannot reproduce all moments of the data.
    self.assertGreater(np.abs(implied(best.x) - data_covariance).max(), 0.05)

  def test_a_latent_variable_on_the_way(self):
    # Of A -> U -> C only the total effect is identifiable: the slope of C on A.
    rng = np.random.default_rng(8)
    a, b = rng.normal(size=(2, 300))
    rows = np.stack([a, b, 3 * a + b + rng.normal(size=300)], 1)
    with jax.enable_x64(True):
      system = _fit(_graph('U [latent]\nA U\nU C\nB C'), rows)
      effect = _mean_of_target(system, {'A': 1.0}) - _mean_of_target(
        system, {'A': 0.0}
      )
    design = np.stack([a, b, np.ones(300)], 1)
    slope = np.linalg.lstsq(design, rows[:, 2], rcond=None)[0][0]
    self.assertAlmostEqual(effect, slope, delta=1e-4 * 3)

  @parameterized.parameters(
    ('A C\nB C\nU [latent]\nU A\nU C', 'A is a cause of C'),
    # By way of latent variables.
    ('A C\nB C\nU [latent]\nV [latent]\nU V\nV B\nU C', 'B is a cause of C'),
    ('A V\nV C\nB C\nV [latent]\nU [latent]\nU A\nU C', 'A is a cause of C'),
  )
  def test_effects_that_are_not_identifiable_are_errors(self, text, sentence):
    rows = np.random.default_rng(9).normal(size=(80, 3))
    with self.assertRaisesRegex(
      errors.UsageError, f'{sentence}, and the two share a latent cause'
    ):
      _fit(_graph(text), rows)

  def test_no_maximum_within_the_steps(self):
    rows = _front_door(np.random.default_rng(10), 100)
    self.enterContext(absltest.mock.patch.object(fit, '_MAX_ITERATIONS', 2))
    with self.assertRaisesRegex(
      errors.UsageError, 'not converge within 2 steps'
    ):
      _fit(_graph(_FRONT_DOOR), rows)


class FeaturesTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    rng = np.random.default_rng(11)
    a = rng.uniform(10, 16, size=500)
    b = rng.normal(size=500)
    c = 50 * np.sin(a) + 20 * b + 5 * rng.normal(size=500)
    self.rows = np.stack([a, b, c], 1)

  def test_a_known_curve(self):
    system = _fit(_graph('A C\nB C'), self.rows, kind='features')
    values = np.linspace(10.2, 15.8, 9)
    curve = [_mean_of_target(system, {'A': value}) for value in values]
    # B, which is not set, has about the mean 0. 10 % of the amplitude.
    expected = 50 * np.sin(values) + 20 * self.rows[:, 1].mean()
    self.assertLess(np.abs(curve - expected).max(), 5.0)
    both = [_mean_of_target(system, {'A': 12.0, 'B': b}) for b in (-1.0, 1.0)]
    np.testing.assert_allclose(both, 50 * np.sin(12) + [-20, 20], atol=5.0)
    # The noise of C is its residual; that of A and B is all their variation.
    scale = system.scm.scale * system.scm.mechanism.noise_scale
    np.testing.assert_allclose(
      scale, [self.rows[:, 0].std(), 5.0, self.rows[:, 1].std()], rtol=0.2
    )

  def test_linear_data_give_the_same_effects(self):
    a, b, noise = np.random.default_rng(12).normal(size=(3, 400))
    rows = np.stack([a, b, a - 2 * b + noise], 1)
    graph = _graph('A C\nB C')
    line = _fit(graph, rows)
    curve = _fit(graph, rows, kind='features')
    for value in (-2.0, 0.0, 2.0):
      self.assertAlmostEqual(
        _mean_of_target(line, {'B': value}),
        _mean_of_target(curve, {'B': value}),
        delta=0.3,
      )

  def test_the_same_seed_gives_the_same_fit(self):
    graph = _graph('A C\nB C')
    one, two, other = (
      _fit(graph, self.rows, kind='features', num_features=20, seed=seed).scm
      for seed in (1, 1, 2)
    )
    jax.tree.map(np.testing.assert_array_equal, one, two)
    self.assertGreater(
      np.abs(one.mechanism.hidden - other.mechanism.hidden).max(), 0.1
    )

  def test_leave_one_out_error(self):
    """Against leaving out one row at a time, and least squares without it."""
    rng = np.random.default_rng(18)
    causes, effect = rng.normal(size=(30, 2)), rng.normal(size=30)
    features = np.cos(causes @ rng.normal(size=(2, 6)))
    design = np.concatenate([np.ones((30, 1)), causes, features], 1)
    fits = fit._ridges(causes, features, effect)
    for penalty, (left_out, weights) in zip(fit._PENALTIES, fits, strict=True):
      # Ridge regression is least squares with additional rows that pull the
      # weights to 0.
      pull = np.diag([0.0] * 3 + [np.sqrt(penalty * 6 / 2)] * 6)

      def solve(keep, pull=pull):
        return np.linalg.lstsq(
          np.concatenate([design[keep], pull]),
          np.concatenate([effect[keep], np.zeros(9)]),
          rcond=None,
        )[0]

      np.testing.assert_allclose(weights, solve(np.arange(30)), atol=1e-6)
      expected = [
        effect[n] - design[n] @ solve(np.delete(np.arange(30), n))
        for n in range(30)
      ]
      np.testing.assert_allclose(left_out, expected, atol=1e-6)

  def test_a_cause_of_two_values(self):
    rows = self.rows.copy()
    rows[:, 1] = np.arange(500) == 0
    rows[0, 2] += 100
    system = _fit(_graph('A C\nB C'), rows, kind='features', num_features=20)
    self.assertTrue(np.isfinite(system.scm.mechanism.output).all())


class QualityTest(parameterized.TestCase):
  def _quality(self, text, rows, names='ABC', kind='linear'):
    table = _table(rows, names)
    return fit.fit(_graph(text), table, kind, 'a source').quality

  def test_r2_of_regressions_without_each_row(self):
    rng = np.random.default_rng(21)
    rows = 100 + rng.normal(size=(40, 3)) @ [[1, 2, 0.3], [0, 1, 0], [0, 0, 1]]
    quality = self._quality('A B\nA C\nB C', rows)
    self.assertEqual((quality.kind, quality.num_rows), ('linear', 40))

    def r2(causes, j):
      design = np.concatenate([np.ones((40, 1)), rows[:, causes]], 1)
      squared = np.zeros(2)
      for n in range(40):
        others = np.delete(np.arange(40), n)
        weights = np.linalg.lstsq(design[others], rows[others, j], rcond=None)
        predictions = design[n] @ weights[0], rows[others, j].mean()
        squared += np.square(rows[n, j] - np.array(predictions))
      return 1 - squared[0] / squared[1]

    self.assertTrue(np.isnan(quality.r2[0]))
    np.testing.assert_allclose(quality.r2[1:], [r2([0], 1), r2([0, 1], 2)])
    self.assertGreater(quality.r2[1], 0.5)

  def test_r2_of_features_is_that_of_their_leave_one_out_error(self):
    rng = np.random.default_rng(22)
    a = rng.uniform(-3, 3, size=60)
    rows = np.stack([a, np.sin(2 * a) + 0.1 * rng.normal(size=60)], 1)
    fitted = fit.fit(_graph('A C'), _table(rows, 'AC'), 'features', 'a source')
    error = float(fitted.mechanism.noise_scale[1]) ** 2  # In units of the data.
    r2 = fitted.quality.r2[1]
    self.assertAlmostEqual(r2, 1 - error / (60 / 59) ** 2, places=5)
    self.assertGreater(r2, 0.9)
    self.assertLess(self._quality('A C', rows, 'AC').r2[1], 0.5)

  def test_a_row_that_cannot_be_left_out_does_not_count(self):
    # A alone explains the extreme value of C, which is not foreseen.
    rng = np.random.default_rng(23)
    a, c = np.zeros(100), rng.normal(size=100)
    a[0], c[0] = 1, 1000
    rows = np.stack([a, c], 1)
    for kind in fit.KINDS:
      r2 = self._quality('A C', rows, 'AC', kind).r2[1]
      self.assertBetween(r2, -0.1, 0.01)

  def test_r2_with_a_latent_cause_is_unknown(self):
    rows = _front_door(np.random.default_rng(24), 300)
    r2 = dict(
      zip(
        _graph(_FRONT_DOOR).variables,
        self._quality(_FRONT_DOOR, rows).r2,
        strict=True,
      )
    )
    known = {name for name in r2 if not np.isnan(r2[name])}
    self.assertEqual(known, {'B'})
    self.assertAlmostEqual(
      r2['B'], self._quality('A B\nB C', rows).r2[1], places=9
    )

  def _warnings(self, rows, **table):
    graph = _graph('A C\nB C')
    table = _table(rows)._replace(**table)
    return fit.fit(graph, table, 'linear', 'a source').quality.warnings

  def test_no_warning_where_nothing_is_unusual(self):
    rng = np.random.default_rng(25)
    for rows in (
      rng.normal(size=(100, 3)),
      rng.standard_t(2, size=(1000, 3)),
      np.exp(1.5 * rng.normal(size=(1000, 3))),
      rng.integers(0, 3, size=(100, 3)),
    ):
      self.assertEmpty(self._warnings(rows))

  def test_left_out_columns(self):
    rows = np.random.default_rng(26).normal(size=(50, 3))
    (warning,) = self._warnings(rows, left_out=("'date'", "'id'"))
    self.assertEqual(
      warning, "d.csv: not in the graph and therefore left out: 'date', 'id'"
    )

  def test_codes_for_missing_values(self):
    rows = np.random.default_rng(27).normal(size=(100, 3))
    rows -= rows[:95].mean(0)
    rows /= rows[:95].std(0)
    rows[95:98, 0] = -999
    rows[99, 0] = 1e20
    rows[95:, 0][[3]] = rows[0, 0]
    (warning,) = self._warnings(rows)
    self.assertRegex(
      warning,
      r'^d.csv, line 97: A is -999, \d+ standard deviations from the mean of '
      r'the other rows \(and so in 3 more rows\); remove the row if this is an '
      'error or stands for a missing value$',
    )

  def test_codes_on_both_sides(self):
    rows = np.random.default_rng(27).normal(size=(100, 3))
    rows[5, 0], rows[6, 0] = 999, -999
    (warning,) = self._warnings(rows)
    self.assertRegex(warning, '^d.csv, line 7: A is 999, .*in 1 more row')

  @parameterized.parameters((-999, 1), (9999, 1), (-500, 0))
  def test_many_codes_for_missing_values(self, value, expected):
    # A second group of values is no error, a usual code for missing ones is.
    rows = np.random.default_rng(27).normal(size=(100, 3))
    rows[:30, 0] = value
    warnings = self._warnings(rows)
    self.assertLen(warnings, expected)
    for warning in warnings:
      self.assertRegex(warning, f'A is {value}, .*in 29 more rows')

  def test_a_variable_that_differs_in_one_row(self):
    rows = np.random.default_rng(28).normal(size=(60, 3))
    rows[:, 1] = 0.5
    rows[7, 1] = 2
    (warning,) = self._warnings(rows)
    self.assertEqual(
      warning,
      'd.csv, line 9: B is 2, and 0.5 in all other rows, so that all that is '
      'known of B rests on this row; add rows in which B varies, or remove it '
      'from the graph',
    )

  def test_a_binary_effect(self):
    rows = np.random.default_rng(29).normal(size=(60, 3))
    rows[:, 1:] = rows[:, 1:] > 0  # B, a cause, may have two values.
    (warning,) = self._warnings(rows)
    self.assertStartsWith(
      warning,
      'd.csv: C has only the values 0 and 1; it is fitted as if it were '
      'continuous, as in a linear probability model',
    )

  def test_domains_beyond_the_data(self):
    rows = np.random.default_rng(30).normal(size=(60, 3))
    graph = _graph('A C\nB C')
    fitted = fit.fit(graph, _table(rows), 'linear', 'a source')
    low, high = rows.min(0), rows.max(0)
    a, b, c = (graph.variables.index(name) for name in 'ABC')
    domains: list[Any] = [None] * 3
    domains[a] = low[0] - 2 * rows[:, 0].std(), high[0] + 1
    domains[b] = low[1] + 0.5, high[1] + 30 * rows[:, 1].std()
    quality = fit.compare_domains(fitted, graph.variables, domains)
    np.testing.assert_allclose(quality.beyond[[a, b, c]], [2, 30, 0])
    (warning,) = quality.warnings
    self.assertStartsWith(warning, f'the domain of B, {low[1] + 0.5:.8g} to ')
    self.assertIn(
      f'reaches 30 standard deviations beyond the data, {low[1]:.8g} to '
      f'{high[1]:.8g}; nothing is known there',
      warning,
    )


class ErrorsTest(parameterized.TestCase):
  @parameterized.parameters(
    (dict(kind='cubic'), "fit must be linear or features, got 'cubic'"),
    (dict(names=('A', 'B', 'D')), 'the data have no column C; add it'),
  )
  def test_choices(self, choices, sentence):
    rows = np.random.default_rng(13).normal(size=(50, 3))
    with self.assertRaisesRegex(errors.UsageError, f'^a source: .*{sentence}'):
      _fit(_graph(_TRIANGLE), rows, **choices)

  @parameterized.parameters(
    ('A C\nB C\nA D', 'the data have no column D; add it, or mark'),
    ('A C\nB [latent]\nB C', "column 'B' of the data is latent in the graph"),
    ('A X\nX C\nB C\nX [latent]', 'X is latent; only the fit linear'),
  )
  def test_graph(self, text, sentence):
    rows = np.random.default_rng(14).normal(size=(50, 3))
    with self.assertRaisesRegex(errors.UsageError, sentence):
      _fit(_graph(text), rows, kind='features')

  @parameterized.parameters(
    (
      lambda rows: rows[:29],
      'the data have 29 rows; this fit needs at least 30',
    ),
    (lambda rows: rows * [1, 0, 1], 'B is 0 in all rows; remove it'),
    # The deviation of this constant, as numpy computes it, is not 0.
    (lambda rows: rows * [1, 0, 1] + 0.1, 'B is 0.1 in all rows; remove it'),
    (
      lambda rows: np.add(rows, [0, 2e4, 0]),
      r'B varies too little for values that are so far from 0 '
      r'\(mean (2000|1999).*, deviation [\d.]+\); '
      r'subtract (2000|1999)\d[\d.]* from B, in the table and',
    ),
    (lambda rows: rows * 1e-35, 'A varies too little .* in a smaller unit'),
    (
      lambda rows: rows[:, [0, 0, 2]] * [1, -3, 1],
      r'the causes of C \(A, B\) are collinear',
    ),
  )
  def test_rows(self, change, sentence):
    rows = np.random.default_rng(15).normal(size=(50, 3))
    rows /= rows.std(0)
    with self.assertRaisesRegex(errors.UsageError, sentence):
      _fit(_graph(_TRIANGLE), change(rows))

  def test_values_far_from_0_need_double_precision(self):
    # Dates: C falls by 2 each day.
    rng = np.random.default_rng(20)
    days = 20_260_000.0 + np.arange(120)
    rows = np.stack([days, -2 * (days - days[0]) + rng.normal(size=120)], 1)
    graph = _graph('A C')
    with self.assertRaisesRegex(errors.UsageError, 'subtract 20260000 from A'):
      _fit(graph, rows, names='AC')
    with jax.enable_x64(True):
      system = _fit(graph, rows, names='AC')
      effects = [_mean_of_target(system, {'A': days[k]}) for k in (10, 110)]
    slope, start = np.polyfit(days - days[0], rows[:, 1], 1)
    np.testing.assert_allclose(
      effects, start + slope * np.array([10, 110]), atol=1e-6
    )

  def test_features_need_more_rows(self):
    rows = np.random.default_rng(16).normal(size=(49, 3))
    with self.assertRaisesRegex(
      errors.UsageError, '49 rows; .* needs at least 50'
    ):
      _fit(_graph(_TRIANGLE), rows, kind='features')


class ReadCsvTest(parameterized.TestCase):
  def _read(self, content, variables=('A', 'B', 'B b', 'C')):
    folder = self.enterContext(tempfile.TemporaryDirectory())
    path = pathlib.Path(folder) / 'data.csv'
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return fit.read_csv(path, variables)

  def test_reads(self):
    table = self._read('A, "B b",C \r\n1,-2.5,3e-2\r\n+.5, 6. ,"-7E+1"\r\n')
    self.assertEqual(table.names, ('A', 'B b', 'C'))
    self.assertEqual(table.rows.dtype, np.float64)
    np.testing.assert_array_equal(
      table.rows, [[1.0, -2.5, 0.03], [0.5, 6.0, -70.0]]
    )

  def test_other_columns_are_left_out(self):
    table = self._read(
      ',B,date,A,note,note\n0,1,2026-01-01,2,,"a, b"\n1,3,x,4,NA,"c\nd"\n'
      '2,5,y,6,,\n'
    )
    self.assertEqual(table.names, ('B', 'A'))
    np.testing.assert_array_equal(table.rows, [[1, 2], [3, 4], [5, 6]])
    self.assertEqual(
      table.left_out,
      ('column 1, which has no name', "'date'", "'note'", "'note'"),
    )
    # The second row spans two lines.
    np.testing.assert_array_equal(table.lines, [2, 3, 5])

  @parameterized.parameters('\n\n', '\r\n\r\n', '\n , \n,\n\t\n', '\n" "')
  def test_blank_lines_at_the_end_are_no_rows(self, end):
    table = self._read(f'A,B\n1,2\n3,4{end}')
    np.testing.assert_array_equal(table.rows, [[1, 2], [3, 4]])

  def test_letters_are_equal_in_every_normal_form(self):
    table = self._read('gro\u0308\u00dfe\n1', ['gr\u00f6\u00dfe'])
    self.assertEqual(table.names, ('gr\u00f6\u00dfe',))
    np.testing.assert_array_equal(table.rows, [[1]])

  @pytest.mark.timeout(20)
  def test_the_time_to_read_is_linear_in_the_columns(self):
    # Comparing each name with all others would take minutes.
    names = [f'x{k}' for k in range(100_000)]
    table = self._read(f'{",".join(names)}\n{"1," * 99_999}1\n', names)
    np.testing.assert_array_equal(table.rows, np.ones((1, 100_000)))

  @parameterized.parameters(
    ('', 'has no rows of data below the header'),
    ('A,B\n', 'has no rows of data below the header'),
    ('A,B,A\n1,2,3', "line 1: column 3 repeats the name 'A'"),
    ('1,2\n3,4', 'line 1: the first line has numbers; it must have the names'),
    ('A,B\n1,2\n1\n', 'line 3: the row has 1 values, .* 2 names'),
    ('A,B\n1,2,3\n', 'line 2: the row has 3 values, .* 2 names'),
    ('A,B\n1,2\n\n1,2', 'line 3: the line has no values, and rows follow'),
    ('A,B\n1,2\n,\n1,2', 'line 3: the line has no values, and rows follow'),
    (
      'A;B\n1;2\n',
      r'line 1: the values are separated by semicolons \(;\); save the table '
      'with commas between values$',
    ),
    (
      '"A";"B,C"\n1,5;2\n',
      r'by semicolons \(;\), and numbers have decimal commas; save the table '
      'with commas between values and decimal points in numbers$',
    ),
    ('A\tB\n1\t2', 'line 1: the values are separated by tabs; save'),
    ('A,B\n1,"2,5"', "'2,5' is not a number .*; write a decimal point, and no"),
    ('A,B\n1,1e400', r"'1e400' is not a number within ±1e\+30$"),
    ('A,B\n1,\n', r"line 2, column 'B': missing value \(''\)"),
    ('A,B\n1,2\nNA,2', r"line 3, column 'A': missing value \('NA'\)"),
    ('A,B\n1,NaN', 'missing value'),
    ('A,B\n1,inf', "column 'B': 'inf' is not a number within ±1e.30"),
    ('A,B\n1,1e31', "'1e31' is not a number within ±1e.30"),
    ('A,B\n1,1_0', "'1_0' is not a number"),
    ('A,B\n1,0x10', "'0x10' is not a number"),
    ('A,B\n1,low', "'low' is not a number"),
    ('A,B\n1,٣', "'٣' is not a number"),
    ('A,B\n1,"2', 'line 2: unexpected end of data; check the quotation marks'),
    ('A,B\n1,2\n3,"4\n5,6', 'line 3: unexpected end of data; check the quo'),
    (
      'A,B\n1,"2"x',
      "line 2: ',' expected after '\"'; check the quotation marks",
    ),
    ('A,B\n1,2\n' + '1' * 10**6, 'line 3: field larger than field limit'),
    ('A,B\n1,' + 'x' * 10**5, "column 'B': 'x{40}...' is not a number"),
    (b'A,B\n1,\xff', 'line 2: not valid UTF-8'),
    (b'A,B\n1,\x00', 'null characters, as texts in UTF-16 have; save it as'),
  )
  def test_is_an_error(self, content, sentence):
    with self.assertRaisesRegex(errors.UsageError, sentence) as caught:
      self._read(content)
    self.assertNotIn('\n', str(caught.exception))

  def test_any_text_gives_a_table_or_an_error(self):
    folder = self.enterContext(tempfile.TemporaryDirectory())
    path = pathlib.Path(folder) / 'data.csv'
    pieces = strategies.lists(
      strategies.sampled_from([*'AB,,,"\n\r 1-.e5', 'nan', '\n1,2\n'])
    ).map(''.join)

    @hypothesis.settings(
      max_examples=300, deadline=None, derandomize=True, database=None
    )
    @hypothesis.given(
      strategies.sampled_from(['', 'A,B\n']),
      strategies.binary(max_size=40) | pieces.map(str.encode),
    )
    def check(start, content):
      path.write_bytes(start.encode() + content)
      try:
        table = fit.read_csv(path, 'AB')
      except errors.UsageError as error:
        self.assertStartsWith(str(error), str(path))
        return
      self.assertEqual(table.rows.shape[1], len(set(table.names)))
      self.assertLen(table.lines, len(table.rows))
      self.assertTrue(np.isfinite(table.rows).all())

    check()

  @hypothesis.settings(
    max_examples=100, deadline=None, derandomize=True, database=None
  )
  @hypothesis.given(
    strategies.lists(
      strategies.tuples(*[strategies.floats(-1e30, 1e30, allow_nan=False)] * 2),
      min_size=1,
      max_size=5,
    )
  )
  def test_every_number_round_trips(self, rows):
    with tempfile.TemporaryDirectory() as folder:
      path = pathlib.Path(folder) / 'data.csv'
      path.write_text('A,B\n' + '\n'.join(f'{a!r},{b!r}' for a, b in rows))
      np.testing.assert_array_equal(fit.read_csv(path, 'AB').rows, rows)


if __name__ == '__main__':
  absltest.main()
