from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate
from scipy import stats

from acme_cbo.scms import mechanisms
from tests.support import chance
from tests.support import hand_made_scms

_ACTIVATIONS = {
  mechanisms.Activation.COSINE: np.cos,
  mechanisms.Activation.TANH: np.tanh,
  # z^2, saturating at 36.
  mechanisms.Activation.SQUARE: lambda z: 36 * z**2 / (36 + z**2),
  mechanisms.Activation.EXPONENTIAL: lambda z: np.exp(np.minimum(z, 5)),
  mechanisms.Activation.BUMP: lambda z: np.exp(-(z**2) / 2),
}
# The standard error of a variance depends on the kurtosis.
_NOISE = {
  mechanisms.Noise.NORMAL: (stats.norm(), 3.0),
  mechanisms.Noise.UNIFORM: (stats.uniform(-(3**0.5), 2 * 3**0.5), 1.8),
  mechanisms.Noise.LAPLACE: (stats.laplace(scale=0.5**0.5), 6.0),
  mechanisms.Noise.GUMBEL: (
    stats.gumbel_r(-np.euler_gamma * 6**0.5 / np.pi, 6**0.5 / np.pi),
    5.4,
  ),
  # Its fourth moment is infinite; that of 1,000 draws is not.
  mechanisms.Noise.STUDENT: (stats.t(4, scale=0.5**0.5), 30.0),
}

_NUM_DRAWS = 1000
_NUM_HIDDEN = 3


# Those that a variable can be of.
_FAMILIES = tuple(f for f in mechanisms.Family if f != mechanisms.Family.MIXED)


@jax.jit
def _sample(key, family, parents, min_length_scale):
  def one(key):
    return mechanisms.sample(
      key, family, parents, _NUM_HIDDEN, min_length_scale
    )

  return jax.vmap(one)(jax.random.split(key, _NUM_DRAWS))


def _draw(family, parents, min_length_scale=0.7):
  """Samples _NUM_DRAWS mechanisms of one family on the same graph."""
  parents = jnp.asarray(parents, bool)
  families = jnp.full(len(parents), family, jnp.int32)
  key = jax.random.key(family)
  return _sample(key, families, parents, min_length_scale)


# Nodes 0 and 1 are roots, 2 has both as parents, 3 has all three.
_PARENTS = [[0, 0, 0, 0], [0, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0]]


_signal = jax.jit(mechanisms.signal)
_signal_of_each = jax.jit(jax.vmap(mechanisms.signal, (0, None, None)))


def _signals(drawn, j, u):
  """Signals [draws, S] of node j in each mechanism."""
  return np.asarray(_signal_of_each(drawn, j, jnp.float32(u)))


_draw_noise = jax.jit(mechanisms.noise, static_argnums=(2, 3))
_draw_stratified = jax.jit(mechanisms.stratified_noise, static_argnums=(2, 3))


def _noise(kinds, scales):
  """Samples [50000, D] noise of the given kinds."""
  number = len(kinds)
  equations = hand_made_scms.mechanism(number, noise=kinds, noise_scale=scales)
  drawn = _draw_noise(jax.random.key(1), equations, 50_000, number)
  return np.asarray(drawn, np.float64)


class SignalTest(parameterized.TestCase):
  @parameterized.parameters(*mechanisms.Activation)
  def test_against_numpy(self, activation):
    rng = np.random.default_rng(0)
    bias, shift = rng.normal(size=3), rng.normal(size=(3, 2))
    linear, hidden = rng.normal(size=(3, 3)), rng.normal(size=(3, 2, 3))
    output, u = rng.normal(size=(3, 2)), 2 * rng.normal(size=(5, 3))
    equations = hand_made_scms.mechanism(
      3,
      2,
      bias=bias,
      linear=linear,
      hidden=hidden,
      shift=shift,
      output=output,
      activation=activation,
    )
    for j in range(3):
      # The formula of `types.Mechanism`, one unit at a time.
      expected = bias[j] + u @ linear[j]
      for h in range(2):
        z = u @ hidden[j, h] + shift[j, h]
        expected = expected + output[j, h] * _ACTIVATIONS[activation](z)
      actual = _signal(equations, j, jnp.float32(u))
      np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)

  def test_each_variable_has_its_own_activation(self):
    equations = hand_made_scms.mechanism(
      5,
      hidden=np.eye(5)[[0] * 5][:, None],
      output=1.0,
      activation=list(mechanisms.Activation),
    )
    u = jnp.array([[2.0, 0.0, 0.0, 0.0, 0.0]])
    signals = [_signal(equations, j, u)[0] for j in range(5)]
    # 36 * 4 / 40 of the square.
    expected = [np.cos(2.0), np.tanh(2.0), 3.6, np.exp(2.0), np.exp(-2.0)]
    np.testing.assert_allclose(signals, expected, rtol=1e-5)

  @parameterized.parameters((np.float32, 1e-5), (np.float64, 1e-13))
  def test_activations_over_many_turns_and_both_signs(self, dtype, tolerance):
    with jax.enable_x64(dtype == np.float64):
      for kind, function in _ACTIVATIONS.items():
        z = np.linspace(-40, 40, 1001)
        equations = hand_made_scms.mechanism(
          1, hidden=np.ones((1, 1, 1)), output=1.0, activation=[kind]
        )
        equations = jax.tree.map(
          lambda leaf: leaf.astype(dtype) if leaf.dtype.kind == 'f' else leaf,
          equations,
        )
        actual = mechanisms.signal(equations, jnp.int32(0), dtype(z[:, None]))
        expected = function(np.float64(dtype(z)))
        error = np.abs(actual - expected) / np.maximum(np.abs(expected), 1)
        self.assertLess(error.max(), tolerance, kind)


class DispatchTest(absltest.TestCase):
  def test_value_is_signal_and_noise(self):
    rng = np.random.default_rng(0)
    u, noise = jnp.float32(rng.normal(size=(2, 5, 3)))
    equations = hand_made_scms.mechanism(
      3, hidden=rng.normal(size=(3, 1, 3)), output=1.0
    )
    for j in range(3):
      node = jnp.int32(j)
      np.testing.assert_array_equal(
        mechanisms.value(equations, node, u, noise),
        mechanisms.signal(equations, node, u) + noise[:, j],
      )

  def test_refuses_unregistered_types(self):
    nothing = jnp.zeros((1, 1))
    with self.assertRaisesRegex(
      TypeError, 'value is not implemented for .*int'
    ):
      mechanisms.value(0, jnp.int32(0), nothing, nothing)
    with self.assertRaisesRegex(
      TypeError, 'noise_at is not implemented for .*int'
    ):
      mechanisms.noise_at(0, nothing)


class NoiseTest(parameterized.TestCase):
  @parameterized.parameters(*mechanisms.Noise)
  @pytest.mark.stat
  def test_distribution(self, kind):
    drawn = _noise(list(mechanisms.Noise), 1.0)[:, kind]
    distribution, kurtosis = _NOISE[kind]
    self.assertAlmostEqual(
      drawn.mean(), 0, delta=chance.SIGMAS / np.sqrt(drawn.size)
    )
    self.assertAlmostEqual(
      drawn.var(), 1, delta=chance.SIGMAS * np.sqrt((kurtosis - 1) / drawn.size)
    )
    self.assertGreater(
      stats.kstest(drawn, distribution.cdf).pvalue, chance.LEAST_P
    )
    # Levels within 1e-6 of either end are clipped, as quantiles are infinite.
    self.assertLess(np.abs(drawn).max(), distribution.isf(0.9e-6))

  def test_kinds_and_scales_of_columns(self):
    drawn = _noise([1, 2, 0], [2.0, 0.5, 0.0])
    # Uniform noise ends at sqrt(3) deviations; Laplace noise passes 5.
    self.assertBetween(np.abs(drawn[:, 0]).max(), 3.46, 2 * 3**0.5 + 1e-5)
    self.assertGreater(np.abs(drawn[:, 1]).max(), 0.5 * 5)
    np.testing.assert_array_equal(drawn[:, 2], 0.0)

  @pytest.mark.stat
  def test_columns_are_independent(self):
    drawn = _noise(list(mechanisms.Noise), 1.0)
    correlation = np.corrcoef(drawn.T)[np.triu_indices(len(_NOISE), 1)]
    bound = chance.SIGMAS / np.sqrt(drawn.shape[0])
    self.assertLess(np.abs(correlation).max(), bound)


class StratifiedNoiseTest(parameterized.TestCase):
  def _drawn(self, key, scales=1.0):
    kinds = list(mechanisms.Noise)
    equations = hand_made_scms.mechanism(
      len(kinds), noise=kinds, noise_scale=scales
    )
    drawn = _draw_stratified(jax.random.key(key), equations, 40, len(kinds))
    return np.asarray(drawn, np.float64)

  @parameterized.parameters(*mechanisms.Noise)
  def test_each_stratum_has_one_draw(self, kind):
    distribution, _ = _NOISE[kind]
    level = distribution.cdf(self._drawn(0, scales=2.0)[:, kind] / 2)
    part = np.floor(40 * level).astype(int)
    np.testing.assert_array_equal(np.sort(part), np.arange(40))

  @pytest.mark.stat
  def test_columns_are_independent_and_uniform_within_a_stratum(self):
    drawn = np.stack([self._drawn(key) for key in range(200)])
    correlation = np.mean([np.corrcoef(d.T) for d in drawn], 0)
    # The correlation of 40 pairs has a deviation of 1 / sqrt(39).
    bound = chance.SIGMAS / np.sqrt(39 * 200)
    self.assertLess(
      np.abs(correlation[np.triu_indices(len(_NOISE), 1)]).max(), bound
    )
    uniform = drawn[:, :, mechanisms.Noise.UNIFORM] / 12**0.5 + 0.5
    place = 40 * uniform % 1
    self.assertAlmostEqual(
      place.mean(), 0.5, delta=chance.SIGMAS / np.sqrt(12 * place.size)
    )


class SampleTest(parameterized.TestCase):
  @parameterized.parameters(*_FAMILIES)
  def test_only_parents_matter(self, family):
    drawn = _draw(family, _PARENTS)
    rng = np.random.default_rng(1)
    u, other = rng.normal(size=(2, 6, 4))
    for j, row in enumerate(_PARENTS):
      used = np.array(row, bool)
      same = _signals(drawn, j, np.where(used, u, other))
      np.testing.assert_array_equal(_signals(drawn, j, u), same)
      if used.any():
        changed = _signals(drawn, j, np.where(used, other, u))
        self.assertGreater(np.abs(changed - same).max(1).min(), 1e-4)

  def test_equations_are_raw(self):
    drawn = _draw(mechanisms.Family.TANH, _PARENTS)
    np.testing.assert_array_equal(drawn.noise_scale, 0.0)
    np.testing.assert_array_equal(drawn.bias, 0.0)

  def test_linear_slopes(self):
    drawn = _draw(mechanisms.Family.LINEAR, _PARENTS)
    np.testing.assert_array_equal(drawn.hidden, 0.0)
    slopes = np.asarray(drawn.linear)[:, np.array(_PARENTS, bool)]
    self.assertBetween(np.abs(slopes).min(), 0.25, 0.26)
    self.assertBetween(np.abs(slopes).max(), 0.99, 1.0)
    error = 1 / np.sqrt(slopes.size)
    self.assertAlmostEqual(
      np.sign(slopes).mean(), 0, delta=chance.SIGMAS * error
    )

  def test_product_of_two_parents(self):
    drawn = _draw(mechanisms.Family.PRODUCT, _PARENTS)
    u = np.random.default_rng(2).uniform(-1, 1, (50, 4))
    a, b = u[:, 0], u[:, 1]
    straight = u @ np.asarray(drawn.linear)[:, 2].T  # [S, draws]
    product = _signals(drawn, 2, u) - straight.T
    # A square falls short of z^2 by at most z^4 / 36.
    bend = ((a + b) ** 4 + (a - b) ** 4) / 4 / 36
    self.assertLess((np.abs(product - a * b) - bend).max(), 1e-5)
    self.assertLess(bend.mean(), 0.04)
    # The saturated square gives it exactly.
    square = _ACTIVATIONS[mechanisms.Activation.SQUARE]
    np.testing.assert_allclose(
      product,
      np.tile((square(a + b) - square(a - b)) / 4, (_NUM_DRAWS, 1)),
      atol=1e-5,
    )

  def test_product_takes_any_two_of_three_parents(self):
    drawn = _draw(mechanisms.Family.PRODUCT, _PARENTS)
    u = np.array([[0.0, 0.4, 0.3, 9.0], [0.2, 0.0, 0.3, 9], [0.2, 0.4, 0, 9]])
    straight = u @ np.asarray(drawn.linear)[:, 3].T
    product = _signals(drawn, 3, u) - straight.T  # [draws, pairs]
    happens = np.abs(product) > 1e-3
    np.testing.assert_array_equal(happens.sum(1), 1)
    self.assertGreater(happens.sum(0).min(), _NUM_DRAWS // 4)

  def test_product_of_a_sole_parent_is_its_square(self):
    drawn = _draw(mechanisms.Family.PRODUCT, np.eye(4, k=-1))
    u = np.linspace(-0.2, 0.2, 9)[:, None] * np.ones(4)
    straight = u @ np.asarray(drawn.linear)[:, 1].T
    product = _signals(drawn, 1, u) - straight.T
    bend = (0.4**4) / 36 / 4
    np.testing.assert_allclose(
      product, np.tile(u[:, 0] ** 2, (_NUM_DRAWS, 1)), atol=bend + 1e-6
    )

  @parameterized.parameters(
    mechanisms.Family.SIGMOID, mechanisms.Family.EXPONENTIAL
  )
  def test_is_monotone_in_every_parent(self, family):
    drawn = _draw(family, _PARENTS)
    for i in (0, 1):
      u = np.zeros((41, 4))
      u[:, i] = np.linspace(-5, 5, 41)
      steps = np.diff(_signals(drawn, 2, u), axis=1)
      falls, rises = (steps < -1e-6).any(1), (steps > 1e-6).any(1)
      self.assertFalse((falls & rises).any())
      self.assertGreater(min(falls.sum(), rises.sum()), _NUM_DRAWS // 3)

  def test_tanh_is_bounded(self):
    drawn = _draw(mechanisms.Family.TANH, _PARENTS)
    u = np.random.default_rng(3).normal(size=(50, 4)) * 100
    bound = np.abs(drawn.output)[:, 2].sum(1)
    self.assertTrue((np.abs(_signals(drawn, 2, u)).max(1) <= bound).all())

  def test_exponential_of_a_sole_parent(self):
    drawn = _draw(mechanisms.Family.EXPONENTIAL, np.eye(4, k=-1))
    u = np.linspace(-2, 2, 9)[:, None] * np.ones(4)
    logs = np.log(_signals(drawn, 1, u))
    # exp(z) with a rate between 1/2 and 3/2, either way.
    rate = np.diff(logs, axis=1) / 0.5
    np.testing.assert_allclose(rate, rate[:, :1] * np.ones(8), atol=1e-3)
    self.assertBetween(np.abs(rate).min(), 0.5 - 1e-3, 0.51)
    self.assertBetween(np.abs(rate).max(), 1.49, 1.5 + 1e-3)
    error = 0.5 / np.sqrt(_NUM_DRAWS)
    self.assertAlmostEqual(
      (rate[:, 0] > 0).mean(), 0.5, delta=chance.SIGMAS * error
    )

  def test_each_variable_has_its_own_family(self):
    families = [f for f in _FAMILIES if f != mechanisms.Family.TANH][:4]
    parents = jnp.asarray(_PARENTS, bool)
    drawn, alone = (
      _sample(jax.random.key(0), jnp.asarray(each, jnp.int32), parents, 0.7)
      for each in (families, [families[3]] * 4)
    )
    kinds = mechanisms.Activation
    np.testing.assert_array_equal(
      drawn.activation[0], [kinds.TANH, kinds.COSINE, kinds.TANH, kinds.SQUARE]
    )
    # Each equals its equation in an SCM of that family alone.
    jax.tree.map(
      lambda a, b: np.testing.assert_array_equal(a[:, 3], b[:, 3]), drawn, alone
    )

  @pytest.mark.stat
  @parameterized.parameters(0.7, 0.25)
  def test_fourier_features_have_the_kernel_of_their_length_scales(
    self, min_length_scale
  ):
    drawn = _draw(mechanisms.Family.FOURIER, _PARENTS, min_length_scale)
    # Pairs of points sqrt(6) apart, many because their phases differ.
    start = np.random.default_rng(4).normal(size=(40, 4)) * 50
    there = start + np.sqrt(6) * np.array([0.6, -0.8, 0.0, 0.0])
    products = _signals(drawn, 2, start) * _signals(drawn, 2, there)
    products = products.mean(1)
    # H / 2 times exp(-r^2 / 2 l^2), at r^2 = 6 / fan-in = 3, with l
    # log-uniform between the smallest and 2.5.
    low, high = np.log(min_length_scale), np.log(2.5)
    kernel, _ = integrate.quad(
      lambda log_l: np.exp(-1.5 * np.exp(-2 * log_l)) / (high - low), low, high
    )
    error = products.std() / np.sqrt(_NUM_DRAWS)
    self.assertAlmostEqual(
      products.mean(), _NUM_HIDDEN / 2 * kernel, delta=chance.SIGMAS * error
    )


if __name__ == '__main__':
  absltest.main()
