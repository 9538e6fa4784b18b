import math

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special
from scipy import stats

from acme_cbo import distributions
from acme_cbo import types

_NUM_CELLS = 4
_NUM_DRAWS = 20_000
_SETTABLE = np.array([True, False, True, True])

_choice = jax.jit(distributions.choice)
_entropy = jax.jit(distributions.entropy)
_fraction_at = jax.jit(distributions.fraction_at, static_argnums=2)
_kl = jax.jit(distributions.kl)
_log_density = jax.jit(distributions.log_density)
_log_prob = jax.jit(distributions.log_prob)
_mode = jax.jit(distributions.mode)


def _logits(seed=0, scale=1.5):
  shape = (_SETTABLE.size, _NUM_CELLS + 2)
  return scale * np.random.default_rng(seed).normal(size=shape)


def _random_choice(seed=0):
  return _choice(jnp.float32(_logits(seed)), jnp.asarray(_SETTABLE))


def _joint(seed=0):
  """[D, C] probabilities: one softmax over all that may be chosen."""
  logits = np.where(_SETTABLE[:, None], _logits(seed), -np.inf)
  return special.softmax(logits)


def _decision(variable, cell, fraction=0.5):
  return types.Decision(
    jnp.int32(variable), jnp.int32(cell), jnp.float32(fraction)
  )


@jax.jit
def _draw(key, log_probs):
  keys = jax.random.split(key, _NUM_DRAWS)
  return jax.vmap(distributions.sample, (0, None))(keys, log_probs)


class ChoiceTest(parameterized.TestCase):
  def test_factorises_one_softmax(self):
    log_probs = _random_choice()
    product = np.exp(log_probs.variable)[:, None] * np.exp(log_probs.cell)
    np.testing.assert_allclose(product, _joint(), atol=1e-6)
    np.testing.assert_allclose(np.exp(log_probs.cell).sum(1), 1, rtol=1e-6)

  def test_what_may_not_be_set_has_probability_0(self):
    logits = jnp.float32(_logits()).at[1].set(1e4)
    probability = np.exp(_choice(logits, jnp.asarray(_SETTABLE)).variable)
    self.assertEqual(probability[1], 0.0)
    self.assertAlmostEqual(probability.sum(), 1, places=6)

  def test_a_sole_variable_is_certain(self):
    settable = jnp.array([False, False, True, False])
    log_probs = _choice(jnp.float32(_logits()), settable)
    self.assertEqual(log_probs.variable[2], 0.0)

  def test_log_prob_by_hand(self):
    # Variables 1 : 3, cells 1 : 1 : 2 and 4 : 1 : 1.
    weights = np.array([[1.0, 1, 2], [8.0, 2, 2]])
    log_probs = _choice(jnp.log(weights), jnp.ones(2, bool))
    variable, cell = _log_prob(log_probs, _decision(0, 2))
    self.assertAlmostEqual(variable, math.log(1 / 4), places=6)
    self.assertAlmostEqual(cell, math.log(1 / 2), places=6)
    variable, cell = _log_prob(log_probs, _decision(1, 0))
    self.assertAlmostEqual(variable, math.log(3 / 4), places=6)
    self.assertAlmostEqual(cell, math.log(2 / 3), places=6)


class DensityTest(parameterized.TestCase):
  def test_by_hand(self):
    # Two cells between the ends, with probabilities 1/8, 1/4, 1/2 and 1/8.
    weights = jnp.array([[1.0, 2.0, 4.0, 1.0]])
    log_probs = _choice(jnp.log(weights), jnp.ones(1, bool))
    for cell, density in enumerate([1 / 8, 2 / 4, 2 / 2, 1 / 8]):
      actual = _log_density(log_probs, _decision(0, cell))
      self.assertAlmostEqual(actual, math.log(density), places=6)

  def test_atoms_and_density_integrate_to_1(self):
    log_probs = _random_choice()
    places = (np.arange(1000) + 0.5) / 1000
    # Which cell a place lies in, not by the code's own formula.
    cells = np.digitize(places, np.linspace(0, 1, _NUM_CELLS + 1))
    log_density = jax.jit(jax.vmap(distributions.log_density, (None, 0)))

    def density(variable, cells, places):
      variables = jnp.full(len(cells), variable)
      decision = types.Decision(variables, jnp.array(cells), jnp.array(places))
      return np.exp(log_density(log_probs, decision))

    ends = [0, _NUM_CELLS + 1], [0.0, 1.0]
    for variable in range(_SETTABLE.size):
      inside = density(variable, cells, places).mean()
      self.assertAlmostEqual(
        inside + density(variable, *ends).sum(), 1, places=5
      )


class FractionTest(parameterized.TestCase):
  def test_by_hand(self):
    for cell, offset, expected in (
      (0, 0.7, 0.0),
      (1, 0.0, 0.0),
      (1, 0.5, 0.125),
      (3, 0.5, 0.625),
      (4, 1.0, 1.0),
      (5, 0.7, 1.0),
    ):
      fraction = _fraction_at(cell, offset, _NUM_CELLS)
      self.assertAlmostEqual(fraction, expected, places=6)


@pytest.mark.stat
class SampleTest(parameterized.TestCase):
  def test_frequencies(self):
    drawn = _draw(jax.random.key(0), _random_choice())
    counts = np.zeros((_SETTABLE.size, _NUM_CELLS + 2))
    np.add.at(counts, (drawn.variable, drawn.cell), 1)
    self.assertEqual(counts[1].sum(), 0)
    test = stats.chisquare(
      counts[_SETTABLE].ravel(), _NUM_DRAWS * _joint()[_SETTABLE].ravel(),
      sum_check=False,
    )  # fmt: skip
    self.assertGreater(test.pvalue, 1e-4)

  def test_values_are_uniform_within_their_cell(self):
    drawn = _draw(jax.random.key(1), _random_choice())
    cell, fraction = np.asarray(drawn.cell), np.asarray(drawn.fraction)
    np.testing.assert_array_equal(fraction[cell == 0], 0.0)
    np.testing.assert_array_equal(fraction[cell == _NUM_CELLS + 1], 1.0)
    inside = (cell > 0) & (cell <= _NUM_CELLS)
    offset = fraction[inside] * _NUM_CELLS - (cell[inside] - 1)
    self.assertBetween(offset.min(), -1e-5, 0.01)
    self.assertBetween(offset.max(), 0.99, 1 + 1e-5)
    self.assertGreater(stats.kstest(offset, 'uniform').pvalue, 1e-4)

  def test_never_draws_what_may_not_be_set(self):
    logits = jnp.float32(_logits()).at[1].set(1e4)
    log_probs = _choice(logits, jnp.asarray(_SETTABLE))
    drawn = _draw(jax.random.key(2), log_probs)
    self.assertFalse((drawn.variable == 1).any())


class ModeTest(parameterized.TestCase):
  def test_is_the_most_probable_pair(self):
    # Variable 0 has probability 0.6, and 0.15 in each of its cells; variable 1
    # has 0.4, but 0.37 of it in one cell.
    weights = np.array([[0.15] * 4, [0.01, 0.01, 0.37, 0.01]])
    decision = _mode(_choice(jnp.log(weights), jnp.ones(2, bool)))
    self.assertEqual((decision.variable, decision.cell), (1, 2))
    self.assertEqual(decision.fraction, 0.75)

  def test_ends(self):
    for cell, fraction in ((0, 0.0), (3, 1.0)):
      logits = jnp.zeros((2, 4)).at[0, cell].set(1.0)
      decision = _mode(_choice(logits, jnp.ones(2, bool)))
      self.assertEqual((decision.variable, decision.cell), (0, cell))
      self.assertEqual(decision.fraction, fraction)

  def test_passes_over_what_may_not_be_set(self):
    logits = jnp.float32(_logits()).at[1].set(1e4)
    log_probs = _choice(logits, jnp.asarray(_SETTABLE))
    best = np.unravel_index(_joint().argmax(), _joint().shape)
    decision = _mode(log_probs)
    self.assertEqual((decision.variable, decision.cell), best)


class InformationTest(parameterized.TestCase):
  """Against sums over all pairs of a variable and a cell, in float64."""

  def test_entropy(self):
    joint = _joint()[_SETTABLE]
    of_variable, of_cell = _entropy(_random_choice())
    self.assertAlmostEqual(of_variable, stats.entropy(joint.sum(1)), places=5)
    whole = -(joint * np.log(joint)).sum()
    self.assertAlmostEqual(of_variable + of_cell, whole, places=5)

  def test_entropy_of_even_odds(self):
    log_probs = _choice(jnp.zeros((4, 6)), jnp.asarray(_SETTABLE))
    of_variable, of_cell = _entropy(log_probs)
    self.assertAlmostEqual(of_variable, math.log(3), places=6)
    self.assertAlmostEqual(of_cell, math.log(6), places=6)

  def test_kl(self):
    policy, reference = _joint(0)[_SETTABLE], _joint(1)[_SETTABLE]
    expected = (policy * np.log(policy / reference)).sum()
    actual = _kl(_random_choice(0), _random_choice(1))
    self.assertAlmostEqual(actual, expected, places=5)
    self.assertGreater(expected, 0.1)

  def test_kl_from_itself_is_0(self):
    self.assertEqual(_kl(_random_choice(), _random_choice()), 0)

  def test_gradients_are_finite_where_something_may_not_be_set(self):
    def everything(logits):
      log_probs = distributions.choice(logits, jnp.asarray(_SETTABLE))
      return (
        sum(_entropy(log_probs))
        + _kl(log_probs, _random_choice(1))
        + sum(_log_prob(log_probs, _decision(2, 1)))
        + _log_density(log_probs, _decision(2, 1))
      )

    for scale in (1.0, 100.0):
      gradient = jax.grad(everything)(jnp.float32(_logits(0, scale)))
      self.assertTrue(np.isfinite(gradient).all())
      np.testing.assert_array_equal(gradient[1], 0.0)


if __name__ == '__main__':
  absltest.main()
