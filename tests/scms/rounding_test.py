"""Tests of telling deviations from rounding."""

from absl.testing import absltest
from absl.testing import parameterized
import numpy as np

from acme_cbo.scms import rounding


class StandardDeviationTest(parameterized.TestCase):
  @parameterized.product(
    value=(0.0, 0.1, 14.62, -1e8 / 3, 1e-9), number=(2, 3, 100, 10_000)
  )
  def test_of_a_constant(self, value, number):
    column = np.full((number, 2), value)
    np.testing.assert_array_equal(rounding.standard_deviation(column), 0.0)

  @parameterized.parameters(1.0, 1e-9, 1e9)
  def test_of_small_units(self, unit):
    values = unit * np.array([1.0, 2.0, 3.0])
    np.testing.assert_allclose(
      rounding.standard_deviation(values), unit * np.sqrt(2 / 3)
    )

  def test_far_from_0(self):
    # Alternately 1e8 and 1e8 + 2e-4: a deviation of 1e-4.
    values = 1e8 + 2e-4 * (np.arange(100) % 2)
    np.testing.assert_allclose(
      rounding.standard_deviation(values), 1e-4, rtol=1e-3
    )

  def test_of_columns(self):
    rows = np.array([[14.62, 1.0], [14.62, -1.0]] * 50)
    np.testing.assert_array_equal(rounding.standard_deviation(rows), [0, 1])


if __name__ == '__main__':
  absltest.main()
