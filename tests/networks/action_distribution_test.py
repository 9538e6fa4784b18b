"""Tests of the action distribution."""

import itertools
import math
from typing import Any

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special
from scipy import stats

from acme_cbo import types
from acme_cbo.networks import action_distribution
from tests.support import chance

_NUM_CELLS = 4
_NUM_DRAWS = 20_000
_SETTABLE = np.array([True, False, True, True])

_step_distribution = jax.jit(action_distribution.step_distribution)
_entropy = jax.jit(action_distribution.entropy)
_fraction_at = jax.jit(action_distribution.fraction_at, static_argnums=2)
_kl = jax.jit(action_distribution.kl)
_log_density = jax.jit(action_distribution.log_density)
_log_prob = jax.jit(action_distribution.log_prob)


@jax.jit
def _one_variable(logits, settable):
  """Returns the distribution where interventions set one variable."""
  sets, nothing = (
    jnp.diag(settable),
    action_distribution.empty_intervention(settable.size),
  )
  return action_distribution.step_distribution(
    logits, jnp.zeros(()), sets, nothing
  )


@jax.jit
def _mode(log_probs):
  return types.Decision(*action_distribution.mode(jax.random.key(0), log_probs))


def _logits(seed=0, scale=1.5):
  shape = (_SETTABLE.size, _NUM_CELLS + 2)
  return scale * np.random.default_rng(seed).normal(size=shape)


def _random_distribution(seed=0):
  return _one_variable(jnp.float32(_logits(seed)), jnp.asarray(_SETTABLE))


def _joint(seed=0):
  """Returns [D, C] probabilities by one softmax over all allowed pairs."""
  logits = np.where(_SETTABLE[:, None], _logits(seed), -np.inf)
  return special.softmax(logits)


def _decision(variable, cell, fraction=0.5):
  return types.Decision(
    jnp.int32(variable), jnp.int32(cell), jnp.float32(fraction)
  )


@jax.jit
def _draw(key, log_probs):
  keys = jax.random.split(key, _NUM_DRAWS)
  return types.Decision(
    *jax.vmap(action_distribution.sample, (0, None))(keys, log_probs)
  )


class StepDistributionTest(parameterized.TestCase):
  def test_factorizes_one_softmax(self):
    log_probs = _random_distribution()
    variable = np.exp(log_probs.variable)[:-1]
    product = variable[:, None] * np.exp(log_probs.cell)
    np.testing.assert_allclose(product, _joint(), atol=1e-6)
    np.testing.assert_allclose(np.exp(log_probs.cell).sum(1), 1, rtol=1e-6)

  def test_what_may_not_be_set_has_probability_0(self):
    logits = jnp.float32(_logits()).at[1].set(1e4)
    probability = np.exp(_one_variable(logits, jnp.asarray(_SETTABLE)).variable)
    self.assertEqual(probability[1], 0.0)
    self.assertAlmostEqual(probability.sum(), 1, places=6)

  def test_a_sole_variable_is_certain(self):
    settable = jnp.array([False, False, True, False])
    log_probs = _one_variable(jnp.float32(_logits()), settable)
    self.assertEqual(log_probs.variable[2], 0.0)

  def test_log_prob_by_hand(self):
    # Variables 1 : 3, cells 1 : 1 : 2 and 4 : 1 : 1.
    weights = np.array([[1.0, 1, 2], [8.0, 2, 2]])
    log_probs = _one_variable(jnp.log(weights), jnp.ones(2, bool))
    variable, cell = _log_prob(log_probs, _decision(0, 2))
    self.assertAlmostEqual(variable, math.log(1 / 4), places=6)
    self.assertAlmostEqual(cell, math.log(1 / 2), places=6)
    variable, cell = _log_prob(log_probs, _decision(1, 0))
    self.assertAlmostEqual(variable, math.log(3 / 4), places=6)
    self.assertAlmostEqual(cell, math.log(2 / 3), places=6)

  def test_to_add_none_is_one_more_choice(self):
    # Variables 1 : 3 : 4, where 1 is chosen already; none has 4.
    logits = jnp.log(jnp.array([[1.0, 0], [1, 2], [2, 2]]) + 1e-30)
    sets = jnp.array([[0, 1, 0], [1, 1, 0], [0, 1, 1]], bool)
    partial = action_distribution.add_variable(
      action_distribution.empty_intervention(3), jnp.int32(1), jnp.float32(0.3)
    )
    log_probs = _step_distribution(logits, jnp.log(5.0), sets, partial)
    np.testing.assert_allclose(
      np.exp(log_probs.variable), [0.1, 0, 0.4, 0.5], rtol=1e-6
    )
    # Where the partial intervention is no allowed set, none has probability 0.
    log_probs = _step_distribution(logits, jnp.log(5.0), sets[1:], partial)
    np.testing.assert_allclose(
      np.exp(log_probs.variable), [0.2, 0, 0.8, 0.0], rtol=1e-6
    )
    # If no variable is added, the cell has log probability 0.
    log_prob = _log_prob(log_probs, _decision(3, 1))
    self.assertEqual(log_prob[1], 0.0)


class PartialTest(parameterized.TestCase):
  def test_by_hand(self):
    # Variable 2, then 0, then none, and then none again.
    decision = types.Decision(
      jnp.array([2, 0, 3, 3]), jnp.zeros(4, int), jnp.array([0.5, 0.25, 1, 1])
    )
    mask, fractions, closed = action_distribution.partial_before_each_step(
      decision, 3
    )
    np.testing.assert_array_equal(
      mask, np.array([[0, 0, 0], [0, 0, 1], [1, 0, 1], [1, 0, 1]], bool)
    )
    np.testing.assert_array_equal(
      fractions, [[0, 0, 0], [0, 0, 0.5], [0.25, 0, 0.5], [0.25, 0, 0.5]]
    )
    np.testing.assert_array_equal(closed, [False, False, False, True])


class DensityTest(parameterized.TestCase):
  def test_by_hand(self):
    # Two cells between the ends, with probabilities 1/8, 1/4, 1/2 and 1/8.
    weights = jnp.array([[1.0, 2.0, 4.0, 1.0]])
    log_probs = _one_variable(jnp.log(weights), jnp.ones(1, bool))
    for cell, density in enumerate([1 / 8, 2 / 4, 2 / 2, 1 / 8]):
      actual = _log_density(log_probs, _decision(0, cell))
      self.assertAlmostEqual(actual, math.log(density), places=6)

  def test_atoms_and_density_integrate_to_1(self):
    log_probs = _random_distribution()
    positions = (np.arange(1000) + 0.5) / 1000
    # The cell of each position, independently of the code's own formula.
    cells = np.digitize(positions, np.linspace(0, 1, _NUM_CELLS + 1))
    log_density = jax.jit(jax.vmap(action_distribution.log_density, (None, 0)))

    def density(variable, cells, positions):
      variables = jnp.full(len(cells), variable)
      decision = types.Decision(
        variables, jnp.array(cells), jnp.array(positions)
      )
      return np.exp(log_density(log_probs, decision))

    ends = [0, _NUM_CELLS + 1], [0.0, 1.0]
    for variable in range(_SETTABLE.size):
      inside = density(variable, cells, positions).mean()
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
    draws = _draw(jax.random.key(0), _random_distribution())
    counts = np.zeros((_SETTABLE.size, _NUM_CELLS + 2))
    np.add.at(counts, (draws.variable, draws.cell), 1)
    self.assertEqual(counts[1].sum(), 0)
    test = stats.chisquare(
      counts[_SETTABLE].ravel(), _NUM_DRAWS * _joint()[_SETTABLE].ravel(),
      sum_check=False,
    )  # fmt: skip
    self.assertGreater(test.pvalue, chance.LEAST_P)

  def test_values_are_uniform_within_their_cell(self):
    draws = _draw(jax.random.key(1), _random_distribution())
    cell, fraction = np.asarray(draws.cell), np.asarray(draws.fraction)
    np.testing.assert_array_equal(fraction[cell == 0], 0.0)
    np.testing.assert_array_equal(fraction[cell == _NUM_CELLS + 1], 1.0)
    inside = (cell > 0) & (cell <= _NUM_CELLS)
    offset = fraction[inside] * _NUM_CELLS - (cell[inside] - 1)
    self.assertBetween(offset.min(), -1e-5, 0.01)
    self.assertBetween(offset.max(), 0.99, 1 + 1e-5)
    self.assertGreater(stats.kstest(offset, 'uniform').pvalue, chance.LEAST_P)

  def test_never_draws_what_may_not_be_set(self):
    logits = jnp.float32(_logits()).at[1].set(1e4)
    log_probs = _one_variable(logits, jnp.asarray(_SETTABLE))
    draws = _draw(jax.random.key(2), log_probs)
    self.assertFalse((draws.variable == 1).any())


class ModeTest(parameterized.TestCase):
  def test_is_the_most_probable_pair(self):
    # Variable 0 has probability 0.6, and 0.15 in each of its cells; variable 1
    # has 0.4, but 0.37 of it in one cell.
    weights = np.array([[0.15] * 4, [0.01, 0.01, 0.37, 0.01]])
    decision = _mode(_one_variable(jnp.log(weights), jnp.ones(2, bool)))
    self.assertEqual((decision.variable, decision.cell), (1, 2))
    self.assertEqual(decision.fraction, 0.75)

  def test_ends(self):
    for cell, fraction in ((0, 0.0), (3, 1.0)):
      logits = jnp.zeros((2, 4)).at[0, cell].set(1.0)
      decision = _mode(_one_variable(logits, jnp.ones(2, bool)))
      self.assertEqual((decision.variable, decision.cell), (0, cell))
      self.assertEqual(decision.fraction, fraction)

  def test_passes_over_what_may_not_be_set(self):
    logits = jnp.float32(_logits()).at[1].set(1e4)
    log_probs = _one_variable(logits, jnp.asarray(_SETTABLE))
    best = np.unravel_index(_joint().argmax(), _joint().shape)
    decision = _mode(log_probs)
    self.assertEqual((decision.variable, decision.cell), best)

  @parameterized.parameters(0.26, 0.3, 0.4, 0.49, 0.55, 0.63, 0.74)
  def test_between_cells_by_the_top_of_a_parabola(self, top):
    # The log probabilities are a parabola with a known maximum.
    points = np.array([0, *(np.arange(8) + 0.5) / 8, 1.0])
    logits = -30 * (points - top) ** 2
    logits[[0, -1]] = -5.0
    decision = _mode(_one_variable(jnp.float32([logits]), jnp.ones(1, bool)))
    self.assertAlmostEqual(decision.fraction, top, places=5)
    self.assertEqual(decision.cell, 1 + int(8 * top))

  @parameterized.parameters((1, 0.0625), (8, 0.9375))
  def test_in_the_middle_of_the_cells_next_to_the_ends(self, cell, fraction):
    logits = (
      jnp.arange(10.0)[None] if cell == 8 else jnp.arange(10.0)[None, ::-1]
    )
    end = 0 if cell == 1 else -1
    decision = _mode(
      _one_variable(logits.at[0, end].set(-9.0), jnp.ones(1, bool))
    )
    self.assertEqual((decision.cell, decision.fraction), (cell, fraction))

  def test_even_odds_have_no_top(self):
    logits = jnp.zeros((1, 10)).at[0, 0].set(-1.0)
    decision = _mode(_one_variable(logits, jnp.ones(1, bool)))
    self.assertEqual((decision.cell, decision.fraction), (1, 0.0625))
    # Nor has a plateau of two cells and more, to its left and its right.
    logits = jnp.zeros((1, 10)).at[0, 4:7].set(1.0)
    decision = _mode(_one_variable(logits, jnp.ones(1, bool)))
    self.assertEqual(decision.cell, 4)
    # By hand: of (0, 1, 1) the top is half a cell to the right, the edge.
    self.assertAlmostEqual(decision.fraction, 0.5, delta=1e-3)

  @parameterized.parameters(0.01, 1.0, 100.0)
  def test_stays_in_its_cell(self, scale):
    rng = np.random.default_rng(0)
    logits = scale * rng.normal(size=(1000, 3, 10))
    settable = jnp.array([True, False, True])
    decision = jax.device_get(
      jax.jit(jax.vmap(lambda x: _mode(_one_variable(x, settable))))(
        jnp.float32(logits)
      )
    )
    joint = np.where(settable[:, None], logits, -np.inf).reshape(1000, -1)
    np.testing.assert_array_equal(
      10 * decision.variable + decision.cell, joint.argmax(1)
    )
    edges = np.concatenate([[0], np.linspace(0, 1, 9), [1]])
    low, high = edges[decision.cell], edges[decision.cell + 1]
    # Half open, so that the cell of the fraction is the one that was chosen.
    self.assertTrue((low <= decision.fraction).all())
    ends = (decision.cell == 0) | (decision.cell == 9)
    self.assertTrue((ends | (decision.fraction < high)).all())
    middle = (low + high) / 2
    inner = (decision.cell > 1) & (decision.cell < 8)
    np.testing.assert_allclose(decision.fraction[~inner], middle[~inner])
    moved = np.abs(decision.fraction - middle)[inner]
    self.assertGreater(moved.mean(), 0.1 / 8)


class InformationTest(parameterized.TestCase):
  """Against sums over all pairs of a variable and a cell, in float64."""

  def test_entropy(self):
    joint = _joint()[_SETTABLE]
    of_variable, of_cell = _entropy(_random_distribution())
    self.assertAlmostEqual(of_variable, stats.entropy(joint.sum(1)), places=5)
    whole = -(joint * np.log(joint)).sum()
    self.assertAlmostEqual(of_variable + of_cell, whole, places=5)

  def test_entropy_of_even_odds(self):
    log_probs = _one_variable(jnp.zeros((4, 6)), jnp.asarray(_SETTABLE))
    of_variable, of_cell = _entropy(log_probs)
    self.assertAlmostEqual(of_variable, math.log(3), places=6)
    self.assertAlmostEqual(of_cell, math.log(6), places=6)

  def test_kl(self):
    policy, reference = _joint(0)[_SETTABLE], _joint(1)[_SETTABLE]
    expected = (policy * np.log(policy / reference)).sum()
    actual = _kl(_random_distribution(0), _random_distribution(1))
    self.assertAlmostEqual(actual, expected, places=5)
    self.assertGreater(expected, 0.1)

  def test_kl_from_itself_is_0(self):
    self.assertEqual(_kl(_random_distribution(), _random_distribution()), 0)

  def test_gradients_are_finite_where_something_may_not_be_set(self):
    sets = jnp.array([[1, 0, 0, 0], [1, 0, 1, 0]], bool)
    partial = action_distribution.add_variable(
      action_distribution.empty_intervention(4), jnp.int32(0), jnp.float32(0.5)
    )

    def everything(logits, none_logit):
      first = _one_variable(logits, jnp.asarray(_SETTABLE))
      # Of 1 and 3, neither of which leads to a set, 2, and none.
      second = action_distribution.step_distribution(
        logits, none_logit, sets, partial
      )
      return sum(
        sum(_entropy(log_probs))
        + _kl(log_probs, reference)
        + sum(_log_prob(log_probs, _decision(2, 1)))
        + _log_density(log_probs, _decision(2, 1))
        for log_probs, reference in (
          (first, _random_distribution(1)),
          (
            second,
            action_distribution.step_distribution(
              -logits, none_logit, sets, partial
            ),
          ),
        )
      )

    for scale in (1.0, 100.0):
      gradient, of_none = jax.grad(everything, (0, 1))(
        jnp.float32(_logits(0, scale)), jnp.float32(scale)
      )
      self.assertTrue(np.isfinite(gradient).all())
      self.assertTrue(np.isfinite(of_none))
      np.testing.assert_array_equal(gradient[1], 0.0)


_D, _C = 3, 4  # Two cells and two ends.
_KINDS_OF_SETS = {
  'one at a time': [{0}, {1}, {2}],
  'all subsets': [{0}, {1}, {2}, {0, 1}, {0, 2}, {1, 2}, {0, 1, 2}],
  'pairs': [{0, 1}, {0, 2}, {1, 2}],
  'one or two': [{0}, {1}, {2}, {0, 1}, {0, 2}, {1, 2}],
  'all of them': [{0, 1, 2}],
  'any': [{0}, {1, 2}, {0, 1, 2}, set()],
  'none': [set(), set()],
}

# At least as many action steps as the largest set has variables.
_KINDS_AND_STEPS = [
  (kind, num_steps)
  for kind, sets in _KINDS_OF_SETS.items()
  for num_steps in (1, 2, 3)
  if num_steps >= max(map(len, sets))
]


def _array_of(sets):
  return jnp.array([np.isin(np.arange(_D), list(members)) for members in sets])


def _logit_functions(seed):
  """Returns logits that depend on the partial intervention, in two forms."""
  rng = np.random.default_rng(seed)
  start, none = rng.normal(size=(_D, _C)), rng.normal()
  joint_moves = rng.normal(size=(_D, _C, _D, _C))
  none_moves = rng.normal(size=(_D, _C))

  def of_cells(chosen):
    """Computes the logits of {variable: cell}, in numpy."""
    joint, nothing = start.copy(), none
    for variable, cell in chosen.items():
      joint += joint_moves[variable, cell]
      nothing += none_moves[variable, cell]
    return joint, nothing

  def of_partial(partial):
    fraction = partial.fractions
    cell = 1 + jnp.floor(2 * fraction).astype(int)
    cell = jnp.where(fraction == 0, 0, jnp.where(fraction == 1, _C - 1, cell))
    chosen = jax.nn.one_hot(cell, _C) * partial.mask[:, None]
    return (
      jnp.float32(start) + jnp.einsum('ab,abjc->jc', chosen, joint_moves),
      jnp.float32(none) + (chosen * none_moves).sum(),
    )

  return of_cells, of_partial


def _enumerate(sets, of_cells, num_steps):
  """Returns {((variable, cell), ...): probability} of all decisions.

  A step that adds no variable is None. Each step is one softmax over all that
  is allowed, computed with sets of Python.
  """
  probabilities = {}

  def extend(taken, probability):
    if len(taken) == num_steps:
      probabilities[taken] = probability
      return
    chosen = dict(pair for pair in taken if pair is not None)
    members = set(chosen)
    more = {j for s in sets if s > members for j in s - members}
    if None in taken:
      more = set()
    joint, none = of_cells(chosen)
    weights: dict[Any, Any] = {
      (j, c): np.exp(joint[j, c]) for j in sorted(more) for c in range(_C)
    }
    if not more or (members and members in sets):
      weights[None] = np.exp(none)
    for pair, weight in weights.items():
      extend((*taken, pair), probability * weight / sum(weights.values()))

  extend((), 1.0)
  return probabilities


def _decisions(taken):
  """Returns one `Decision` of [n, Z]; values are centers of their cells."""
  pairs = np.array([[pair or (_D, 0) for pair in one] for one in taken])
  variable, cell = pairs[..., 0], pairs[..., 1]
  fraction = np.array([0, 0.25, 0.75, 1])[cell]
  return types.Decision(
    jnp.int32(variable), jnp.int32(cell), jnp.float32(fraction)
  )


def _step_distributions(of_partial, sets, decision):
  """Returns the distribution of each step of a decision."""
  partials = action_distribution.partial_before_each_step(decision, _D)
  return jax.vmap(
    lambda partial: action_distribution.step_distribution(
      of_partial(partial)[0], of_partial(partial)[1], sets, partial
    )
  )(partials)


class WholeDecisionTest(parameterized.TestCase):
  """Several action steps, against an enumeration of all decisions."""

  def _everything(self, num_steps):
    one = [None, *itertools.product(range(_D), range(_C))]
    return list(itertools.product(one, repeat=num_steps))

  @parameterized.parameters(*_KINDS_AND_STEPS)
  def test_probabilities(self, kind, num_steps):
    sets = _KINDS_OF_SETS[kind]
    of_cells, of_partial = _logit_functions(0)
    expected = _enumerate(sets, of_cells, num_steps)
    everything = self._everything(num_steps)
    array = _array_of(sets)

    @jax.jit
    @jax.vmap
    def log_prob(decision):
      log_probs = _step_distributions(of_partial, array, decision)
      of_steps = jax.vmap(action_distribution.log_prob)(log_probs, decision)
      return jnp.stack(of_steps).sum()

    actual = np.exp(np.float64(log_prob(_decisions(everything))))
    self.assertAlmostEqual(actual.sum(), 1, places=5)
    for taken, probability in zip(everything, actual, strict=True):
      if taken in expected:
        self.assertAlmostEqual(probability, expected[taken], places=6)
        members = {pair[0] for pair in taken if pair is not None}
        self.assertTrue(members in sets or kind == 'none')
      else:
        # Exactly.
        self.assertEqual(probability, 0.0, taken)

  @parameterized.parameters(*_KINDS_AND_STEPS)
  def test_entropy_and_divergence(self, kind, num_steps):
    # Chain rule: the expected sum over steps is that of the whole decision.
    sets = _KINDS_OF_SETS[kind]
    of_cells, of_partial = _logit_functions(0)
    of_other_cells, of_other_partial = _logit_functions(1)
    expected = _enumerate(sets, of_cells, num_steps)
    others = _enumerate(sets, of_other_cells, num_steps)
    array = _array_of(sets)

    @jax.jit
    @jax.vmap
    def information(decision):
      log_probs = _step_distributions(of_partial, array, decision)
      reference = _step_distributions(of_other_partial, array, decision)
      entropy = jax.vmap(action_distribution.entropy)(log_probs)
      divergence = jax.vmap(action_distribution.kl)(log_probs, reference)
      return jnp.stack(entropy).sum(), divergence.sum()

    entropy, divergence = map(
      np.float64, information(_decisions(list(expected)))
    )
    p = np.array(list(expected.values()))
    q = np.array([others[taken] for taken in expected])
    self.assertAlmostEqual((p * entropy).sum(), -(p * np.log(p)).sum(), 5)
    whole = (p * np.log(p / q)).sum()
    self.assertAlmostEqual((p * divergence).sum(), whole, 5)
    if kind != 'none':
      self.assertGreater(whole, 0.1)

  @pytest.mark.stat
  @parameterized.parameters(
    ('all subsets', 3), ('pairs', 2), ('pairs', 3), ('any', 3)
  )
  def test_samples(self, kind, num_steps):
    sets, num_draws = _KINDS_OF_SETS[kind], 20_000
    of_cells, of_partial = _logit_functions(0)
    array = _array_of(sets)

    @jax.jit
    @jax.vmap
    def decide(key):
      keys = list(jax.random.split(key, num_steps))
      decision, *log_probs = action_distribution.decide(
        keys, of_partial, array, action_distribution.sample
      )
      distributions = _step_distributions(of_partial, array, decision)
      recomputed = jax.vmap(action_distribution.log_prob)(
        distributions, decision
      )
      return decision, log_probs, [x.sum() for x in recomputed]

    keys = jax.random.split(jax.random.key(0), num_draws)
    decision, log_probs, recomputed = jax.device_get(decide(keys))
    np.testing.assert_allclose(log_probs, recomputed, rtol=0, atol=1e-6)
    expected = _enumerate(sets, of_cells, num_steps)
    counts = dict.fromkeys(expected, 0)
    for variables, cells in zip(decision.variable, decision.cell, strict=True):
      pairs = zip(variables.tolist(), cells.tolist(), strict=True)
      counts[tuple(pair if pair[0] < _D else None for pair in pairs)] += 1
    # Rare decisions are pooled.
    p = np.array(list(expected.values()))
    order = np.argsort(-p)
    often = order[num_draws * p[order] >= 5]
    observed = np.array(list(counts.values()))
    cut = np.append(p[often], 1 - p[often].sum())
    counted = np.append(observed[often], num_draws - observed[often].sum())
    test = stats.chisquare(counted, num_draws * cut, sum_check=False)
    self.assertGreater(test.pvalue, chance.LEAST_P)
    self.assertGreater(len(often), 30)

  @parameterized.product(kind=list(_KINDS_OF_SETS), seed=(0, 1, 2))
  def test_mode_takes_the_best_of_each_step(self, kind, seed):
    sets = _KINDS_OF_SETS[kind]
    of_cells, of_partial = _logit_functions(seed)
    decision, *log_probs = action_distribution.decide(
      [None] * 3, of_partial, _array_of(sets), action_distribution.mode
    )
    taken, probability = (), 1.0
    for step in range(3):
      # One step at a time, from the enumeration of decisions of that length.
      following = _enumerate(sets, of_cells, step + 1)
      following = {
        one: p / probability
        for one, p in following.items()
        if one[:step] == taken
      }
      of_variable = {}
      for one, p in following.items():
        name = one[-1] and one[-1][0]
        of_variable[name] = of_variable.get(name, 0) + p
      none = of_variable.pop(None, 0)
      if none >= max(of_variable.values(), default=0):
        best = (*taken, None)
      else:
        adding = {one: p for one, p in following.items() if one[-1]}
        best = max(adding, key=lambda j: adding[j])
      probability *= following[best]
      taken = best
    for step, pair in enumerate(taken):
      variable = int(decision.variable[step])
      if pair is None:
        self.assertEqual(variable, _D)
      else:
        self.assertEqual((variable, int(decision.cell[step])), pair)
    np.testing.assert_allclose(sum(log_probs), np.log(probability), atol=1e-5)


if __name__ == '__main__':
  absltest.main()
