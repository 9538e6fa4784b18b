"""Tests of numbers with as many digits as people can use."""

import math

from absl.testing import absltest
from absl.testing import parameterized

from acme_cbo.study import digits


class DigitsTest(parameterized.TestCase):
  @parameterized.parameters(
    (101414.0, '101414'),
    (0.30000000000000004, '0.3'),
    (-2.50, '-2.5'),
    (0.0, '0'),
    (1e-9, '1e-09'),
    (1e20, '1e+20'),
    (100000000.5, '100000000.5'),
  )
  def test_exact(self, value, expected):
    self.assertEqual(digits.exact(value), expected)

  @parameterized.parameters(
    (33.418723, 9, '33.419'),
    (0.0081981, 1, '0.008'),
    (101414.37, 2000, '101414'),
    (100000000.41234, 1, '100000000.412'),
    (1.5e-9, 1e-9, '1.5e-09'),
    (2.0, 5, '2'),
    (-0.0001, 1, '0'),
    (3.14159, 0, '3.14159'),
    (math.nan, 1, 'nan'),
    (12345.6, 1e6, '12346'),
  )
  def test_of_range(self, value, width, expected):
    self.assertEqual(digits.of_range(value, width), expected)

  @parameterized.parameters(
    (0.692, 0.675, '0.69'),
    (0.4, 0.675, '0.40'),
    (-0.0001, 0.675, '0.00'),
    (101414.37, 2000, '101400'),
    (100.0, 3, '100.0'),
    (1.5e-9, 1e-9, '1.5e-09'),
    (3.14159, 0, '3.14159'),
  )
  def test_estimate(self, value, width, expected):
    self.assertEqual(digits.estimate(value, width), expected)


if __name__ == '__main__':
  absltest.main()
