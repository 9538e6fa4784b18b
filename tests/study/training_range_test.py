"""Tests of the warnings that a study lies outside of training."""

from absl.testing import absltest
from absl.testing import parameterized
import numpy as np

from acme_cbo.study import state as state_lib
from acme_cbo.study import training_range
from tests.support import studies

_NAMES = ['a', 'b', 'y']


def _warnings(records, domain=(-1, 1), experiments=None):
  """Returns the warnings of a study that may set `a` or `b`."""
  state = state_lib.State()
  state.apply(
    'created',
    {
      'target': 'y',
      'goal': 'maximize',
      'columns': _NAMES,
      'variables': {'a': {'domain': [*domain]}, 'b': {'domain': [-1, 1]}},
      'experiments': experiments,
    },
  )
  if len(records):
    state.apply(
      'records',
      {'interventions': {}, 'size': len(records), 'rows': np.array(records)},
    )
  return training_range.warnings(state, studies.METADATA)


def _ordinary(number=200):
  rng = np.random.default_rng(0)
  a, b, noise = rng.standard_normal((3, number))
  return np.stack([a, b, a + b + noise], 1)


class WarningsTest(parameterized.TestCase):
  @parameterized.parameters(5, 20, 200, 20_000)
  def test_ordinary_records(self, number):
    self.assertEmpty(_warnings(_ordinary(number)))

  def test_more_experiments_than_trained_on(self):
    (warning,) = _warnings(_ordinary(), experiments=41)
    self.assertIn('41 interventions (trained on at most 40)', warning)

  @parameterized.parameters(0, 4)
  def test_few_records(self, number):
    (warning,) = _warnings(_ordinary(number))
    self.assertIn(f'{number} passive records', warning)

  def test_far_domain(self):
    (warning,) = _warnings(_ordinary(), domain=(-1, 20))
    self.assertRegex(warning, "'a' that reaches [12][0-9] standard deviations")

  def test_skewed_records(self):
    a, b = np.random.default_rng(0).exponential(size=(2, 100))
    (warning,) = _warnings(np.stack([a, b, a + 0.2 * b], 1))
    self.assertIn('a mean absolute skewness of', warning)

  def test_heavy_tails(self):
    records = _ordinary(100)
    # One column of three, on both sides: little skewness.
    records[:2, 1] = -30, 30
    (warning,) = _warnings(records)
    self.assertIn('an excess kurtosis of', warning)

  def test_noise(self):
    rng = np.random.default_rng(0)
    (warning,) = _warnings(rng.standard_normal((1000, 3)))
    self.assertIn('no correlation of two columns above 0.0', warning)

  @parameterized.parameters((2, False), (49, False), (50, True))
  def test_a_few_levels_have_no_shape(self, levels, has_shape):
    column = np.minimum(np.arange(100), levels - 1.0) == levels - 1
    # One of the levels is far from the others.
    values = np.where(column, -1e6, np.minimum(np.arange(100), levels - 1.0))
    values[levels:] = np.arange(100 - levels) % (levels - 1)
    records = np.stack([values, values, values], 1)
    self.assertEqual(bool(_warnings(records)), has_shape)

  def test_missing_values(self):
    records = _ordinary()
    records[::2, 0] = records[1::2, 1] = np.nan
    # No row has both, but each has the target.
    self.assertEmpty(_warnings(records))


class RecordShapeTest(absltest.TestCase):
  def test_values(self):
    column = np.arange(50.0)
    column[-1] = 1000
    standard = (column - column.mean()) / column.std()
    expected = (standard**3).mean(), (standard**4).mean() - 3
    records = np.stack([column, -column, np.full(50, np.nan)], 1)
    shape = training_range.record_shape(records)
    self.assertAlmostEqual(shape['skewness'], expected[0])
    self.assertAlmostEqual(shape['kurtosis'], expected[1])
    self.assertAlmostEqual(shape['correlation'], 1.0)

  def test_no_column(self):
    shape = training_range.record_shape(np.zeros((0, 3)))
    self.assertTrue(np.isnan([*shape.values()]).all())


if __name__ == '__main__':
  absltest.main()
