import functools
import importlib.util
import json
import pathlib
import sys
import tempfile
import unittest

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from acme_cbo import types
from acme_cbo.infra import errors
from acme_cbo.scms import families
from acme_cbo.scms import mechanisms
from acme_cbo.scms import objective as objective_lib
from acme_cbo.scms import simulate
from tests.support import chance

_NETWORKS = ('ecoli70', 'magic-niab', 'magic-irri')
_DRAWN = tuple(name for name in families.FAMILIES if name not in _NETWORKS)
_SIZES = (3, 5, 8, 10, 20, 30)
_NUM_REPEATS = 150


@functools.cache
def _many(name):
  return [families.FAMILIES[name](k) for k in range(_NUM_REPEATS)]


def _hint(system):
  assert system.optimum_hint is not None
  return system.optimum_hint


def _parents(system):
  return np.asarray(system.scm.parents)


def _target(system):
  return int(np.argmax(system.scm.problem.target))


def _ancestors(parents, j):
  """Ancestors of a node, by walking every path backwards."""
  result, open_ = set(), [j]
  while open_:
    for i in np.flatnonzero(parents[open_.pop()]).tolist():
      if i not in result:
        result.add(i)
        open_.append(i)
  return result


_noise_bank = jax.jit(simulate.noise_bank, static_argnums=2)
_outcome = jax.jit(simulate.expected_outcome)
_objective = jax.jit(objective_lib.objective, static_argnums=2)


@jax.jit
def _outcomes(scm, bank, values):
  """[C, D] outcomes of setting each variable to each of [C, D] values."""
  mask = jnp.eye(values.shape[1], dtype=bool)

  def outcome(mask, value):
    intervention = types.Intervention(mask, jnp.where(mask, value, 0.0))
    return simulate.expected_outcome(scm, bank, intervention)

  return jax.vmap(jax.vmap(outcome), (None, 0))(
    mask, values[..., None] * jnp.ones_like(mask, values.dtype)
  )


class NamesTest(parameterized.TestCase):
  def test_all(self):
    expected = [
      f'{kind}_{size}'
      for kind in ('chain', 'fork', 'star', 'sparse')
      for size in _SIZES
    ]
    for size in (10, 15, 20, 50):
      expected += [f'er_linear_{size}', f'er_tanh_{size}']
    self.assertCountEqual(
      families.FAMILIES, [*expected, 'caasl_10', *_NETWORKS]
    )

  @parameterized.parameters(*_DRAWN)
  def test_every_family(self, name):
    system = families.FAMILIES[name](3)
    scm, problem = system.scm, system.scm.problem
    size = int(name.split('_')[-1])
    self.assertEqual(system.name, f'{name}/3')
    self.assertEqual(system.variables, tuple(f'x{j}' for j in range(size)))
    np.testing.assert_array_equal(scm.present, np.ones(size))
    np.testing.assert_array_equal(problem.exists, np.ones(size))
    np.testing.assert_array_equal(scm.location, np.zeros(size))
    np.testing.assert_array_equal(scm.scale, np.ones(size))
    np.testing.assert_array_equal(problem.cost, np.ones(size))
    self.assertEqual(problem.budget, np.inf)
    half = 5 if name.startswith('er_') else 1 if name == 'caasl_10' else 3
    np.testing.assert_array_equal(problem.low, np.full(size, -half))
    np.testing.assert_array_equal(problem.high, np.full(size, half))
    self.assertEqual(problem.goal, -1 if name.startswith('er_') else 1)
    # All variables except the target, one at a time; one is its ancestor.
    target = np.asarray(problem.target)
    self.assertEqual(target.sum(), 1)
    np.testing.assert_array_equal(problem.sets, np.diag(~target))
    self.assertNotEmpty(_ancestors(_parents(system), _target(system)))
    # Causes come first.
    place = np.argsort(scm.order)
    for j, i in np.argwhere(scm.parents):
      self.assertLess(place[i], place[j])
    # Weights are where the edges are.
    weights = (scm.mechanism.linear != 0) | (scm.mechanism.hidden != 0).any(1)
    np.testing.assert_array_equal(weights, scm.parents)
    linear = 'tanh' not in name
    self.assertEqual(scm.family == mechanisms.Family.LINEAR, linear)
    self.assertEqual(system.optimum_hint is not None, linear)

  def test_refuses_a_negative_repeat(self):
    with self.assertRaisesRegex(errors.UsageError, 'must be 0 or more, got -1'):
      families.FAMILIES['chain_3'](-1)


class RepeatsTest(parameterized.TestCase):
  @parameterized.parameters('chain_5', 'er_tanh_10', 'caasl_10')
  def test_the_same_in_either_precision(self, name):
    single = families.FAMILIES[name](7)
    with jax.enable_x64(True):
      double = families.FAMILIES[name](7)
      self.assertEqual(double.scm.mechanism.linear.dtype, np.float64)
    jax.tree.map(
      lambda one, two: np.testing.assert_array_equal(
        one, np.asarray(two, one.dtype)
      ),
      single.scm,
      double.scm,
    )

  def test_repeats_differ(self):
    first = [
      np.asarray(families.FAMILIES[name](repeat).scm.mechanism.linear)
      for name in ('sparse_10', 'er_linear_10', 'caasl_10')
      for repeat in range(4)
    ]
    for n, one in enumerate(first):
      for other in first[:n]:
        self.assertFalse(np.array_equal(one, other))

  def test_golden_digests(self):
    # Results on a repeat are comparable only if its SCM never changes.
    system = families.FAMILIES['sparse_3'](0)
    linear = np.asarray(system.scm.mechanism.linear)
    np.testing.assert_allclose(
      linear[linear != 0], [1.067247, -1.010826, -1.280963], rtol=1e-6
    )


class ShapesTest(parameterized.TestCase):
  @parameterized.parameters(*_SIZES)
  def test_chain(self, size):
    for system in [families.FAMILIES[f'chain_{size}'](k) for k in range(5)]:
      parents = _parents(system)
      self.assertEqual(parents.sum(), size - 1)
      self.assertLessEqual(parents.sum(0).max(), 1)
      self.assertLen(_ancestors(parents, _target(system)), size - 1)

  @parameterized.parameters(*_SIZES)
  def test_fork(self, size):
    for system in [families.FAMILIES[f'fork_{size}'](k) for k in range(5)]:
      parents = _parents(system)
      self.assertEqual(parents.sum(), size - 1)
      self.assertEqual(parents.sum(0).max(), size - 1)
      self.assertLen(_ancestors(parents, _target(system)), 1)

  @parameterized.parameters(*_SIZES)
  def test_star(self, size):
    for system in [families.FAMILIES[f'star_{size}'](k) for k in range(5)]:
      self.assertEqual(_parents(system).sum(), size - 1)
      self.assertEqual(_parents(system)[_target(system)].sum(), size - 1)

  @pytest.mark.stat
  @parameterized.parameters(
    ('sparse_10', 2 / 9),
    ('er_linear_15', 1 / 14),
    ('er_tanh_20', 1 / 19),
    ('caasl_10', 1 / 3),
  )
  def test_density(self, name, density):
    parents = np.stack([_parents(system) for system in _many(name)])
    size = parents.shape[1]
    pairs = size * (size - 1) / 2
    spread = np.sqrt(density * (1 - density) * pairs)
    edges = parents.sum((1, 2))
    self.assertAlmostEqual(
      edges.mean(),
      density * pairs,
      delta=chance.SIGMAS * spread / _NUM_REPEATS**0.5,
    )
    self.assertAlmostEqual(
      edges.var() / spread**2,
      1,
      delta=chance.SIGMAS * np.sqrt(2 / _NUM_REPEATS),
    )

  @pytest.mark.stat
  @parameterized.parameters('chain_10', 'er_linear_10')
  def test_columns_are_in_random_order(self, name):
    # By symmetry edges go up as often as down, and the target is anywhere.
    parents = np.stack([_parents(system) for system in _many(name)])
    up, down = np.tril(parents).sum(), np.triu(parents).sum()
    self.assertLess(abs(up - down), chance.SIGMAS * np.sqrt(up + down))
    places = np.bincount([_target(s) for s in _many(name)], minlength=10)
    self.assertGreater(stats.chisquare(places).pvalue, chance.LEAST_P)


class EquationsTest(parameterized.TestCase):
  def _pooled(self, name, of_target=True):
    """Weights, root of the number of causes and noise, of all repeats."""
    weights, fan_in, noise = [], [], []
    for system in _many(name):
      scm, keep = system.scm, np.ones(len(system.variables), bool)
      keep[_target(system)] = of_target
      parents = _parents(system) & keep[:, None]
      weights.append(np.asarray(scm.mechanism.linear)[parents])
      fan_in.append(np.repeat(parents.sum(1), parents.sum(1)))
      noise.append(np.asarray(scm.mechanism.noise_scale)[keep])
    return map(np.concatenate, (weights, fan_in, noise))

  def _follows(self, values, distribution):
    self.assertGreater(
      stats.kstest(values, distribution).pvalue, chance.LEAST_P
    )

  @pytest.mark.stat
  def test_weights_have_random_signs(self):
    weights, _, noise = self._pooled('star_10')
    self._follows(np.abs(weights), stats.uniform(0.5, 1).cdf)
    self._follows(noise, stats.uniform(0.8, 0.4).cdf)
    bound = chance.SIGMAS * np.sqrt(weights.size)
    self.assertLess(abs(np.sign(weights).sum()), bound)

  @pytest.mark.stat
  def test_er_linear(self):
    weights, _, noise = self._pooled('er_linear_20')
    self._follows(weights, stats.norm(2, 1).cdf)
    np.testing.assert_array_equal(noise, 1)

  @pytest.mark.stat
  def test_er_tanh(self):
    pooled = {'bias': [], 'hidden': [], 'shift': [], 'output': []}
    for system in _many('er_tanh_20'):
      parents, mechanism = _parents(system), system.scm.mechanism
      caused = parents.any(1)
      self.assertEqual(mechanism.output.shape, (20, 5))
      np.testing.assert_array_equal(
        mechanism.activation, mechanisms.Activation.TANH
      )
      np.testing.assert_allclose(mechanism.noise_scale, 0.1)
      np.testing.assert_array_equal(mechanism.linear, 0)
      for name, values in pooled.items():
        array = np.asarray(getattr(mechanism, name))
        where = parents if name == 'hidden' else caused
        by_unit = array.swapaxes(1, -1) if name == 'hidden' else array
        self.assertFalse(by_unit[~where].any())
        values.append(by_unit[where].ravel())
    for name, values in pooled.items():
      with self.subTest(name):
        self._follows(np.concatenate(values), stats.norm.cdf)

  @pytest.mark.stat
  def test_caasl(self):
    # Equations of the target are excluded: SCMs in which it hardly moves are
    # rejected.
    weights, fan_in, noise = self._pooled('caasl_10', of_target=False)
    self._follows(weights * np.sqrt(fan_in), stats.norm.cdf)
    self._follows(noise**2, stats.invgamma(10).cdf)


class OptimumTest(parameterized.TestCase):
  @parameterized.parameters(
    'chain_10', 'fork_10', 'star_10', 'sparse_10', 'er_linear_10', 'caasl_10'
  )
  def test_linear(self, name):
    """The hint against all ends by simulation, and total effects by hand."""
    with jax.enable_x64(True):
      for repeat in range(2):
        system = families.FAMILIES[name](repeat)
        scm, target = system.scm, _target(system)
        low, high = np.asarray(scm.problem.low), np.asarray(scm.problem.high)
        values = np.stack([low, 0.3 * low + 0.7 * high, high])
        bank = _noise_bank(jax.random.key(0), scm, 2)
        outcomes = np.asarray(_outcomes(scm, bank, jnp.asarray(values)))
        # Total effects: the sum over all paths of the products of weights.
        linear = np.asarray(scm.mechanism.linear)
        effects, paths = np.zeros_like(linear), np.eye(len(linear))
        for _ in range(len(linear)):
          paths = linear @ paths
          effects += paths
        expected = float(scm.problem.goal) * effects[target] * values
        others = np.arange(len(linear)) != target
        np.testing.assert_allclose(
          outcomes[:, others], expected[:, others], rtol=1e-9, atol=1e-9
        )
        best = outcomes[:, others].max()
        hint = _outcome(scm, bank, _hint(system))
        self.assertAlmostEqual(float(hint), best, delta=1e-9 * abs(best))
        # It moves the target by more than the noise of the target.
        noise = np.asarray(scm.mechanism.noise_scale)[target]
        spread = outcomes[2, others] - outcomes[0, others]
        self.assertGreaterEqual(np.abs(spread).max(), noise * (1 - 1e-9))
        self.assertEqual(np.asarray(_hint(system).mask).sum(), 1)

  @parameterized.parameters('caasl_10', 'er_linear_10', 'sparse_10')
  def test_some_variable_moves_the_target_by_its_noise(self, name):
    for system in _many(name):
      scm, target = system.scm, _target(system)
      linear = np.asarray(scm.mechanism.linear, np.float64)
      effects = np.linalg.inv(np.eye(10) - linear)[target]
      effects[target] = 0.0
      width = np.asarray(scm.problem.high - scm.problem.low)
      self.assertGreaterEqual(
        np.abs(effects * width).max(),
        float(scm.mechanism.noise_scale[target]) * (1 - 1e-5),
      )

  @parameterized.parameters('er_tanh_10', 'er_tanh_20')
  def test_tanh_moves(self, name):
    with jax.enable_x64(True):
      for repeat in range(5):
        system = families.FAMILIES[name](repeat)
        scm = system.scm
        values = jnp.stack([scm.problem.low, scm.problem.high])
        # Without noise, as in the rejection criterion.
        bank = jnp.zeros((1, len(system.variables)))
        low, high = np.asarray(_outcomes(scm, bank, values))
        others = ~np.asarray(scm.problem.target)
        self.assertGreaterEqual(np.abs(high - low)[others].max(), 0.1)
        bank = _noise_bank(jax.random.key(0), scm, 256)
        low, high = np.asarray(_outcomes(scm, bank, values))
        self.assertGreater(np.abs(high - low)[others].max(), 0.05)


_SMALL = {
  'nodes': ['yield', 'gene.a', 'gene.b', 'other', 'effect'],
  'cpds': {
    'yield': {
      'coefficients': {
        '(Intercept)': [1.0],
        'gene.a': [2.0],
        'gene.b': [-3.0],
      },
      'variance': [0.25],
    },
    'gene.a': {'coefficients': {'(Intercept)': [10.0]}, 'variance': [4.0]},
    'gene.b': {
      'coefficients': {'(Intercept)': [0.0], 'gene.a': [0.5]},
      'variance': [3.0],
    },
    'other': {'coefficients': {'(Intercept)': [5.0]}, 'variance': [1.0]},
    'effect': {
      'coefficients': {'(Intercept)': [0.0], 'other': [1.0]},
      'variance': [1.0],
    },
  },
}


class NetworksTest(parameterized.TestCase):
  def _install(self, text):
    """A folder that Python finds as the package pgmpy."""
    root = self.enterContext(tempfile.TemporaryDirectory())
    models = pathlib.Path(root) / 'pgmpy' / 'utils' / 'example_models'
    models.mkdir(parents=True)
    # Importing it would fail.
    (models.parents[1] / '__init__.py').write_text('raise RuntimeError')
    (models / 'ecoli70.json').write_text(text)
    self.enterContext(
      absltest.mock.patch.object(sys, 'path', [root, *sys.path])
    )
    importlib.invalidate_caches()

  def test_by_hand(self):
    self._install(json.dumps(_SMALL))
    system = families.FAMILIES['ecoli70'](4)
    scm, problem = system.scm, system.scm.problem
    self.assertEqual(system.variables, tuple(_SMALL['nodes']))
    np.testing.assert_array_equal(problem.target, [1, 0, 0, 0, 0])
    np.testing.assert_array_equal(problem.sets, np.diag([0, 1, 1, 1, 1]))
    np.testing.assert_array_equal(
      scm.parents,
      [[0, 1, 1, 0, 0], [0] * 5, [0, 1, 0, 0, 0], [0] * 5, [0, 0, 0, 1, 0]],
    )
    # gene.b has the mean 5 and the variance 0.25 * 4 + 3; the yield the mean
    # 1 + 20 - 15 and, as 0.5 gene.a - 3 noise, the variance 1 + 27 + 0.25.
    root = np.sqrt(28.25)
    np.testing.assert_allclose(
      problem.low, [6 - 2 * root, 6, 1, 3, 5 - np.sqrt(8)], rtol=1e-6
    )
    np.testing.assert_allclose(
      problem.high, [6 + 2 * root, 14, 9, 7, 5 + np.sqrt(8)], rtol=1e-6
    )
    # do(gene.b = 1) gives 1 + 20 - 3, do(gene.a = 14) 1 + 28 - 21.
    np.testing.assert_array_equal(_hint(system).mask, [0, 0, 1, 0, 0])
    np.testing.assert_allclose(_hint(system).values, [0, 0, 1, 0, 0])
    bank = _noise_bank(jax.random.key(0), scm, 2)
    self.assertAlmostEqual(
      float(_outcome(scm, bank, _hint(system))),
      18.0,
      delta=1e-4,
    )

  @parameterized.parameters(
    (
      '{',
      'is damaged: Expecting .*; run pip install --no-deps pgmpy',
    ),
    ('{"nodes": ["A"], "cpds": {}}', 'does not contain a linear network'),
    (
      '{"nodes": ["A"], "cpds": {"A": {"variance": []}}}',
      'not contain a linear',
    ),
    ('[]', 'does not contain a linear network'),
  )
  def test_refuses_a_damaged_file(self, text, sentence):
    self._install(text)
    with self.assertRaisesRegex(errors.UsageError, sentence):
      families.FAMILIES['ecoli70'](0)

  def test_refuses_another_version(self):
    self._install('{}')
    with self.assertRaisesRegex(errors.UsageError, 'cannot be read'):
      families.FAMILIES['magic-irri'](0)

  @parameterized.parameters(*_NETWORKS)
  def test_not_installed(self, name):
    self.enterContext(absltest.mock.patch.dict(sys.modules, {'pgmpy': None}))
    with self.assertRaisesRegex(
      errors.UsageError,
      f'{name} needs pgmpy, .* run pip install --no-deps pgmpy==1.1.2',
    ):
      families.FAMILIES[name](0)

  @parameterized.parameters(
    ('ecoli70', 46, 70, 'ftsJ', 14),
    ('magic-niab', 44, 66, 'YLD', 34),
    ('magic-irri', 64, 102, 'YLD', 48),
  )
  @unittest.skipIf(
    importlib.util.find_spec('pgmpy') is None, 'pgmpy is not installed'
  )
  def test_installed(self, name, size, num_edges, target, num_ancestors):
    system = families.FAMILIES[name](0)
    scm, parents = system.scm, _parents(system)
    self.assertLen(system.variables, size)
    self.assertEqual(parents.sum(), num_edges)
    self.assertEqual(system.variables[_target(system)], target)
    self.assertLen(_ancestors(parents, _target(system)), num_ancestors)
    objective = _objective(scm, _noise_bank(jax.random.key(0), scm, 2), 4)
    np.testing.assert_array_equal(
      _hint(system).mask, np.arange(size) == objective.best_variable
    )


if __name__ == '__main__':
  absltest.main()
