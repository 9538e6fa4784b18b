"""Tests of the summary of simulated studies."""

from absl.testing import absltest

from acme_cbo.experiments.validation import studies
from acme_cbo.experiments.validation import study_summary
from tests.support import simulated_studies


class SummaryTest(absltest.TestCase):
  def test_shares(self):
    rows = [simulated_studies.row(item) for item in studies.items(48, 0)]
    number = studies.LENGTHS[0]
    rows[0] |= {
      'low': [0.6] * number,
      'same_decisions': False,
      # It was better where the advice was to stop than it is at the end.
      'score': [0.86] * (number - 1) + [0.9],
    }
    summary = study_summary.summarize(rows)
    prior, shifted = summary.iloc[0], summary.iloc[1]
    self.assertEqual(prior['studies'], 24)
    for column in ('same', 'covered', 'harmless'):
      self.assertAlmostEqual(prior[column], 23 / 24)
      self.assertEqual(shifted[column], 1)
    self.assertEqual(shifted['width'], 0.25)
    self.assertEqual(shifted['saved'], 0.5)
    self.assertEqual(shifted['random'], 0.5)
    self.assertAlmostEqual(shifted['crps'], 0.2)
    self.assertAlmostEqual(shifted['process'], 0.4)
    self.assertEqual((prior['warned'], shifted['warned']), (0, 1))
    self.assertEqual(study_summary.auroc(rows), 1)

  def test_as_many_warnings_tell_nothing(self):
    rows = [
      simulated_studies.row(item, warnings=[2]) for item in studies.items(8, 0)
    ]
    self.assertEqual(study_summary.auroc(rows), 0.5)

  def test_report(self):
    rows = [simulated_studies.row(item) for item in studies.items(12, 0)]
    page = study_summary.report('the command', rows)
    self.assertIn('the command', page)
    self.assertIn('| training prior | 6 | 1.00 |', page)
    self.assertIn('AUROC of 1.00', page)
    # As many as there are, of 6.
    self.assertIn('`harmless`: training prior [0.61, 1.00]', page)
    for line in study_summary.table(rows).splitlines():
      self.assertLessEqual(len(line), 100)


if __name__ == '__main__':
  absltest.main()
