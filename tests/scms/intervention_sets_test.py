"""Tests by hand, and against Python sets on random examples."""

import itertools

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np

from acme_cbo.scms import intervention_sets
from tests.support import hand_made_scms

_may_add = jax.jit(intervention_sets.may_add)
_may_stop = jax.jit(intervention_sets.may_stop)
_affordable = jax.jit(intervention_sets.affordable)


def _mask(members, num_variables=4):
  return np.isin(np.arange(num_variables), list(members))


def _sets(*sets):
  return jnp.array([_mask(members) for members in sets])


class SubsetsTest(parameterized.TestCase):
  @parameterized.parameters(
    (1, [{0}, {2}, {3}]),
    (2, [{0}, {2}, {3}, {0, 2}, {0, 3}, {2, 3}]),
    (3, [{0}, {2}, {3}, {0, 2}, {0, 3}, {2, 3}, {0, 2, 3}]),
    (9, [{0}, {2}, {3}, {0, 2}, {0, 3}, {2, 3}, {0, 2, 3}]),
  )
  def test_by_hand(self, max_size, expected):
    actual = intervention_sets.subsets(_mask({0, 2, 3}), max_size)
    self.assertEqual(actual.dtype, bool)
    self.assertEqual([set(np.flatnonzero(row)) for row in actual], expected)

  def test_without_settable_variables(self):
    actual = intervention_sets.subsets(np.zeros(3, bool), 2)
    self.assertEqual(actual.shape, (0, 3))


class LargestTest(absltest.TestCase):
  def test_by_hand(self):
    problem = hand_made_scms.problem(4, 3)
    for sets, size in (([[]], 0), ([{0}, {1}], 1), ([{1}, {0, 1, 2}, {}], 3)):
      problem = problem._replace(sets=_sets(*sets))
      self.assertEqual(intervention_sets.max_size(problem), size)


class AffordableTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    # The sets cost 1, 2, 3 and 6; the last one is padding.
    problem = hand_made_scms.problem(
      4, 3, sets=_sets({0}, {1}, {0, 1}, {2}, {})
    )
    self.problem = problem._replace(
      cost=jnp.array([1.0, 2.0, 6.0, 50.0]), budget=jnp.array(7.0)
    )

  @parameterized.parameters(
    (0.0, [1, 1, 1, 1]),
    (1.0, [1, 1, 1, 1]),
    (1.1, [1, 1, 1, 0]),
    (4.5, [1, 1, 0, 0]),
    (6.0, [1, 0, 0, 0]),
    (6.5, [0, 0, 0, 0]),
    (7.0, [0, 0, 0, 0]),
    (9.0, [0, 0, 0, 0]),
  )
  def test_by_hand(self, spent, expected):
    actual = np.asarray(_affordable(self.problem, spent))
    kept = np.array([*expected, 0], bool)[:, None] & self.problem.sets
    np.testing.assert_array_equal(actual, kept)

  def test_without_a_budget_all_are_affordable(self):
    problem = self.problem._replace(budget=jnp.array(jnp.inf))
    np.testing.assert_array_equal(_affordable(problem, 1e6), problem.sets)

  def test_rounding_does_not_forbid_the_last_intervention(self):
    # In float32, 1 less nine times 0.1 is less than 0.1.
    problem = self.problem._replace(
      cost=jnp.full(4, 0.1), budget=jnp.array(1.0)
    )
    spent = jnp.float32(0)
    for _ in range(9):
      spent += jnp.float32(0.1)
    self.assertLess(1 - spent, jnp.float32(0.1))
    self.assertTrue(_affordable(problem, spent)[0].any())
    self.assertFalse(_affordable(problem, spent + 0.1).any())


class TurnsTest(parameterized.TestCase):
  @parameterized.parameters(
    # Chosen, may be added, may stop.
    ((), {0, 1, 2}, False),
    ({0}, {1}, True),
    ({1}, {0, 2}, False),
    ({2}, {1}, False),
    ({0, 1}, {}, True),
    ({0, 2}, {}, False),
    ({1, 2}, {}, True),
    ({3}, {}, False),
  )
  def test_by_hand(self, chosen, may_add, may_stop):
    sets = _sets({0}, {0, 1}, {1, 2}, {})
    chosen = jnp.asarray(_mask(chosen))
    np.testing.assert_array_equal(_may_add(sets, chosen), _mask(may_add))
    self.assertEqual(_may_stop(sets, chosen), may_stop)

  def test_without_affordable_sets_nothing_may_be_added(self):
    sets = jnp.zeros((3, 4), bool)
    for chosen in ((), {1}):
      chosen = jnp.asarray(_mask(chosen))
      self.assertFalse(_may_add(sets, chosen).any())
      self.assertFalse(_may_stop(sets, chosen))

  def test_against_sets(self):
    rng = np.random.default_rng(0)
    everything = [
      set(members)
      for size in range(5)
      for members in itertools.combinations(range(4), size)
    ]
    for _ in range(30):
      sets = [everything[i] for i in rng.integers(len(everything), size=4)]
      array = _sets(*sets)
      for chosen in everything:
        mask = jnp.asarray(_mask(chosen))
        more = {j for s in sets if s > chosen for j in s - chosen}
        np.testing.assert_array_equal(_may_add(array, mask), _mask(more))
        stop = bool(chosen) and chosen in sets
        self.assertEqual(_may_stop(array, mask), stop)


if __name__ == '__main__':
  absltest.main()
