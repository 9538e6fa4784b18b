"""Tests of the summary of simulated studies, and of two real ones."""

import json
import pathlib
import tempfile

from absl.testing import absltest
import pytest

from acme_cbo.experiments.validation import studies
from acme_cbo.infra import errors
from acme_cbo.scms import shifts


def _row(item, **changes):
  """Returns a row in which all is well, and the advice is to stop half-way."""
  number = item.length
  half = number // 2
  return {
    **item._asdict(),
    'same_decisions': True,
    'do': [{'x0': 0.0}] * number,
    'mean': [0.0] * number,
    'low': [-1.0] * number,
    'high': [1.0] * number,
    'gain': [1.0] * number,
    'stop': [False] * (half - 1) + [True] * (number - half + 1),
    'warnings': [0 if item.scm == shifts.AS_TRAINED else 1] * number,
    'expected': [0.5] * number,
    'score': [0.9] * number,
    'range': 4.0,
  } | changes


class SummaryTest(absltest.TestCase):
  def test_half_of_the_studies_are_of_the_prior(self):
    items = studies.items(500, 0)
    self.assertLen({(one.scm, one.repeat) for one in items}, 500)
    of_prior = [one for one in items if one.scm == shifts.AS_TRAINED]
    self.assertLen(of_prior, 250)
    self.assertEqual({one.length for one in of_prior}, {10, 20, 30, 40})
    self.assertEqual({one.scm for one in items}, {*shifts.NAMES})

  def test_other_systems(self):
    first = {one.repeat for one in studies.items(500, 0)}
    others = {one.repeat for one in studies.items(500, 100_000)}
    self.assertFalse(first & others)

  def test_shares(self):
    rows = [_row(item) for item in studies.items(48, 0)]
    number = studies.LENGTHS[0]
    rows[0] |= {
      'low': [0.6] * number,
      'same_decisions': False,
      # It was better where the advice was to stop than it is at the end.
      'score': [0.86] * (number - 1) + [0.9],
    }
    summary = studies.summarize(rows)
    prior, shifted = summary.iloc[0], summary.iloc[1]
    self.assertEqual(prior['studies'], 24)
    for column in ('same', 'covered', 'harmless'):
      self.assertAlmostEqual(prior[column], 23 / 24)
      self.assertEqual(shifted[column], 1)
    self.assertEqual(shifted['width'], 0.25)
    self.assertEqual(shifted['saved'], 0.5)
    self.assertEqual((prior['warned'], shifted['warned']), (0, 1))
    self.assertEqual(studies.auroc(rows), 1)

  def test_as_many_warnings_tell_nothing(self):
    rows = [_row(item, warnings=[2]) for item in studies.items(8, 0)]
    self.assertEqual(studies.auroc(rows), 0.5)

  def test_report(self):
    rows = [_row(item) for item in studies.items(12, 0)]
    page = studies.report('the command', rows)
    self.assertIn('the command', page)
    self.assertIn('| training prior | 6 | 1.00 |', page)
    self.assertIn('AUROC of 1.00', page)
    for line in studies.table(rows).splitlines():
      self.assertLessEqual(len(line), 100)


class RunTest(absltest.TestCase):
  def _path(self):
    directory = self.enterContext(tempfile.TemporaryDirectory())
    return pathlib.Path(directory) / 'studies.jsonl'

  def test_a_file_of_other_studies(self):
    path = self._path()
    path.write_text(json.dumps(_row(studies.items(2, 7)[0])) + '\n')
    with self.assertRaisesRegex(errors.UsageError, 'has other studies'):
      list(studies.run(2, 0, 1, path))

  @pytest.mark.slow
  def test_plays_as_evaluate_does_and_resumes(self):
    path = self._path()
    rows = list(studies.run(2, 0, 1, path))
    for row in rows:
      self.assertTrue(row['same_decisions'])
      self.assertLen(row['score'], row['length'])
    # A kill left half a line.
    lines = path.read_text().splitlines(keepends=True)
    path.write_text(lines[0] + lines[1][:100])
    self.assertEqual(list(studies.run(2, 0, 1, path)), rows)
    self.assertEqual(path.read_text(), ''.join(lines))


if __name__ == '__main__':
  absltest.main()
