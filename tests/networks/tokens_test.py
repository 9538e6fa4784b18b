"""Tests of the rows that networks take."""

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np

from acme_cbo.networks import tokens
from tests.support import hand_made_scms


class RowsTest(parameterized.TestCase):
  """Against values computed by hand."""

  def setUp(self):
    super().setUp()
    problem = hand_made_scms.problem(3, 2, budget=10.0)
    self.problem = problem._replace(cost=jnp.array([2.0, 5.0, 100.0]))

  def test_budget_left_is_the_smaller_of_cost_and_number(self):
    mask = jnp.array([[1, 0, 0], [0, 1, 0], [1, 0, 0], [1, 1, 0]], bool)
    values = jnp.float32(np.arange(12).reshape(4, 3))
    rows = tokens.episode_rows(self.problem, mask, values)
    # Left are 8, 3, 1 and less than 0 of 10, and 3/4, 2/4, 1/4, 0 of the steps.
    np.testing.assert_allclose(
      rows.budget_left, [1, 0.75, 0.3, 0.1, 0], atol=1e-6
    )
    unlimited = self.problem._replace(budget=jnp.array(jnp.inf))
    rows = tokens.episode_rows(unlimited, mask, values)
    np.testing.assert_allclose(rows.budget_left, [1, 0.75, 0.5, 0.25, 0])
    np.testing.assert_array_equal(rows.start, [1, 0, 0, 0, 0])
    np.testing.assert_array_equal(rows.intervened[1:], mask)
    np.testing.assert_array_equal(rows.values[1:], values)
    self.assertFalse(rows.intervened[0].any())

  def test_rows_one_by_one_are_the_same(self):
    mask = jnp.array([[1, 0, 0], [0, 1, 0]], bool)
    values = jnp.float32(np.arange(6).reshape(2, 3))
    rows = tokens.episode_rows(self.problem, mask, values)
    for step, spent in enumerate((2.0, 7.0)):
      budget_left = tokens.budget_left(
        self.problem, jnp.array(spent), jnp.array(1 - (step + 1) / 2)
      )
      row = tokens.outcome_row(mask[step], values[step], budget_left)
      jax.tree.map(
        np.testing.assert_array_equal,
        row,
        jax.tree.map(lambda x, i=step: x[i + 1 : i + 2], rows),
      )


if __name__ == '__main__':
  absltest.main()
