"""Tests of the strict conversion to real numbers."""

import decimal

from absl.testing import absltest
from absl.testing import parameterized
import jax.numpy as jnp
import numpy as np

from acme_cbo.environments import real_numbers

_MASKED = np.ma.masked_less(np.array([1.0, -1.0]), 0)


class ToArrayTest(parameterized.TestCase):
  @parameterized.parameters(
    ([1, 2.5], [1.0, 2.5]),
    ([np.float32(1), np.int8(2)], [1.0, 2.0]),
    ([jnp.float32(1), 2], [1.0, 2.0]),
    ([np.array([1.0, 2.0]), (3, 4)], [[1.0, 2.0], [3.0, 4.0]]),
    (np.array([1, 2]), [1.0, 2.0]),
    (np.array([1, 2.5], object), [1.0, 2.5]),
    (np.ma.array([1.0, 2.0]), [1.0, 2.0]),
    (5, 5.0),
    ([np.nan], [np.nan]),
  )
  def test_converts_numbers(self, values, expected):
    array = real_numbers.to_array(values)
    self.assertIs(type(array), np.ndarray)
    self.assertEqual(array.dtype, np.float64)
    np.testing.assert_array_equal(array, expected)

  @parameterized.parameters(
    (['1.5', 2.0], 'texts'),
    ('abc', 'texts'),
    (np.array(['1.5']), 'texts'),
    ([1.0, True], 'truth values'),
    (np.array([True]), 'truth values'),
    ([1.0, np.True_], 'truth values'),
    (np.array([1.0 + 0j]), 'complex numbers'),
    ([1.0, 1j], 'complex numbers'),
    (_MASKED, 'masked (missing) values'),
    ([_MASKED, _MASKED], 'masked (missing) values'),
    ([[np.ma.masked, 1.0]], 'masked (missing) values'),
    ([[1.0, 2.0], [3.0]], 'rows of different lengths'),
    ([np.ones((2, 3)), np.ones((2, 4))], 'rows of different lengths'),
    ([10**400], 'a number that is too large for 64 bits'),
    (None, 'values of type NoneType'),
    ([1.0, None], 'values of type NoneType'),
    ([{'x': 1.0}], 'values of type dict'),
    ([decimal.Decimal(1)], 'values of type Decimal'),
    (np.array(['2020-01-01'], 'datetime64[D]'), 'values of type datetime64[D]'),
  )
  def test_refuses_anything_else(self, values, noun):
    with self.assertRaises(ValueError) as caught:
      real_numbers.to_array(values)
    self.assertEqual(str(caught.exception), noun)


if __name__ == '__main__':
  absltest.main()
