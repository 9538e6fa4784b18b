"""Tests of how numbers that are not finite are reported."""

from absl.testing import absltest
import numpy as np
import pytest

from acme_cbo.infra import errors


@pytest.mark.fault
class CheckFiniteTest(absltest.TestCase):
  def test_names_the_first_component_and_scm(self):
    faulty = np.zeros((3, 5), bool)
    faulty[1, [2, 4]] = faulty[2, 0] = True
    with self.assertRaises(errors.NonFiniteError) as caught:
      errors.check_finite(17, ('a', 'b', 'c'), faulty, '[1, 2]')
    self.assertEqual(
      str(caught.exception),
      'update 17: b is not finite on SCM 2 of 5 (on 2 in all), drawn from the '
      'seed [1, 2]',
    )
    self.assertEqual((caught.exception.update, caught.exception.task), (17, 2))

  def test_says_where_the_scm_is_one_held_out(self):
    faulty = np.array([[False, True]])
    with self.assertRaises(errors.NonFiniteError) as caught:
      errors.check_finite(3, ('score',), faulty, '7', held_out=True)
    self.assertIn(
      'score is not finite on held-out SCM 1', str(caught.exception)
    )
    self.assertTrue(caught.exception.held_out)

  def test_takes_what_is_finite(self):
    errors.check_finite(1, ('a', 'b'), np.zeros((2, 3), bool), '')

  def test_components_and_rows_belong_together(self):
    with self.assertRaises(ValueError):
      errors.check_finite(1, ('a',), np.zeros((2, 3), bool), '')


if __name__ == '__main__':
  absltest.main()
