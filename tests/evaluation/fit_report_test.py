"""Tests of reports on fitted systems."""

import json

from absl.testing import absltest
import jax
import numpy as np

from acme_cbo.evaluation import fit_report
from acme_cbo.scms import optimum
from acme_cbo.scms import systems
from tests.support import hand_made_scms

_NAMES = ('A', 'B', 'C', 'U')
_LEGEND = """
R2: leave-one-out, of a variable given its direct causes; 1 is perfect, 0
no better than the mean; "latent" if unknown because a cause is latent.
beyond: by how many standard deviations of the data the domain leaves
them. Scores are those of the fitted equations; they hold for the real
system only as far as these do."""


def _system():
  """Returns a system fitted to data.

  B = A + e and C = 2 B + U + e in standard deviations, which are 2, 2 and 1; A
  and B have the domain [-6, 6].
  """
  linear = np.zeros((4, 4))
  linear[1, 0], linear[2, 1], linear[2, 3] = 1.0, 2.0, 1.0
  scm = hand_made_scms.scm(
    hand_made_scms.mechanism(4, linear=linear),
    hand_made_scms.problem(4, 2, settable=[0, 1], low=-6, high=6, size=3),
    order=[3, 0, 1, 2],
    location=np.array([0.0, 10.0, 0.0, 0.0]),
    scale=np.array([2.0, 2.0, 1.0, 1.0]),
  )
  quality = systems.FitQuality(
    kind='linear',
    num_rows=1234,
    minimum=np.array([-4.0, 2.0, -9.0, 0.0]),
    maximum=np.array([5.0, 15.0, 9.0, 0.0]),
    r2=np.array([np.nan, 0.5, np.nan, np.nan]),
    beyond=np.array([1.0, 4.0, 0.0, 0.0]),
    warnings=('a warning',),
  )
  return systems.System('mine', '', _NAMES, scm, fit=quality)


def _optimum(variable, value):
  return optimum.Optimum(
    bank=np.zeros((2, 4)),
    baseline=0.0,
    worst=0.0,
    best=1.0,
    choice=hand_made_scms.do({variable: value}, 4),
    by_set=(),
    deviation=1.0,
  )


def _summarize(system, best):
  with jax.enable_x64(True):
    return fit_report.summarize(system, best)


class FitReportTest(absltest.TestCase):
  def test_entry_by_hand(self):
    # At do(A = 4), which is 2 standard deviations: B = 10 + 2 * 2, C = 2 * 2.
    entry = _summarize(_system(), _optimum(0, 4.0))
    expected = {
      'kind': 'linear',
      'rows': 1234,
      'variables': {
        'A': {
          'r2': None,
          'causes': 'none',
          'data': [-4, 5],
          'deviation': 2,
          'domain': [-6, 6],
          'beyond': 1,
          'optimum': 4,
        },
        'B': {
          'r2': 0.5,
          'causes': 'observed',
          'data': [2, 15],
          'deviation': 2,
          'domain': [-6, 6],
          'beyond': 4,
          'optimum': 14,
        },
        'C': {
          'r2': None,
          'causes': 'latent',
          'data': [-9, 9],
          'deviation': 1,
          'domain': None,
          'beyond': 0,
          'optimum': 4,
        },
      },
    }
    self.assertEqual(json.loads(json.dumps(entry)), expected)

  def test_an_optimum_outside_the_data(self):
    system, best = _system(), _optimum(0, 6.0)
    self.assertEqual(
      fit_report.optimum_warning(system, best, _summarize(system, best)),
      'the optimum of the fitted equations, do(A = 6), lies outside the data: '
      'there A is 6 (data: -4 to 5), B is 16 (data: 2 to 15); the real system '
      'may differ there, and so may its optimum',
    )

  def test_an_optimum_at_the_end_of_the_data(self):
    system, best = _system(), _optimum(0, 5.0)
    entry = _summarize(system, best)
    self.assertEmpty(fit_report.optimum_warning(system, best, entry))

  def test_table(self):
    table = fit_report.table('mine', _summarize(_system(), _optimum(0, 4.0)))
    self.assertEqual(
      table,
      """mine: equations fitted to 1,234 rows (linear)

variable      R2         data       domain  beyond
A              -  -4.0 to 5.0  -6.0 to 6.0     1.0
B           0.50  2.0 to 15.0  -6.0 to 6.0     4.0
C         latent  -9.0 to 9.0            -       -
"""
      + _LEGEND,
    )

  def test_a_table_has_at_most_80_columns(self):
    entry = _summarize(_system(), _optimum(0, 4.0))
    variable = entry['variables']['B'] | {
      'r2': -123456.7,
      'data': [-1.234e-30, -1.234e-31],
      'domain': [-1e30, -2.345e29],
      'deviation': 1e-31,
      'beyond': 1.234e300,
    }
    names = [f'{"x" * 60}{k}' for k in range(33)]
    entry['variables'] = dict.fromkeys(names, variable)
    lines = fit_report.table('mine', entry).splitlines()
    self.assertLessEqual(max(map(len, lines)), 80)
    self.assertEqual(lines[3].split()[0], 'x' * 13 + '...')
    self.assertEqual(lines[33], '... and 3 more in summary.json')


if __name__ == '__main__':
  absltest.main()
