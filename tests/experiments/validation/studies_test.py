"""Tests of simulated studies, two of them real ones."""

import json
import pathlib
import tempfile

from absl.testing import absltest
import pytest

from acme_cbo.experiments.validation import studies
from acme_cbo.infra import errors
from acme_cbo.scms import shifts
from tests.support import simulated_studies


class ItemsTest(absltest.TestCase):
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


class RunTest(absltest.TestCase):
  def _path(self):
    directory = self.enterContext(tempfile.TemporaryDirectory())
    return pathlib.Path(directory) / 'studies.jsonl'

  def test_a_file_of_other_studies(self):
    path = self._path()
    path.write_text(
      json.dumps(simulated_studies.row(studies.items(2, 7)[0])) + '\n'
    )
    with self.assertRaisesRegex(errors.UsageError, 'line 1, .* another study'):
      list(studies.run(2, 0, 1, path))

  def test_a_study_that_is_there_twice(self):
    path = self._path()
    line = json.dumps(simulated_studies.row(studies.items(2, 0)[0])) + '\n'
    path.write_text(2 * line)
    with self.assertRaisesRegex(errors.UsageError, 'line 2, .* two of'):
      list(studies.run(2, 0, 1, path))

  def test_a_damaged_line(self):
    row = simulated_studies.row(studies.items(2, 0)[0])
    for changes in (
      {'score': 1},
      {'score': []},
      {'score': [1]},
      {'crps': [0.1]},
    ):
      path = self._path()
      text = json.dumps(row | changes) + '\n'
      path.write_text(text)
      with self.assertRaisesRegex(errors.UsageError, 'line 1, is damaged'):
        list(studies.run(2, 0, 1, path))
      self.assertEqual(path.read_text(), text)

  @pytest.mark.slow
  def test_plays_as_evaluate_does_and_resumes(self):
    path = self._path()
    rows = list(studies.run(2, 0, 1, path))
    for row in rows:
      self.assertTrue(row['same_decisions'])
      self.assertLen(row['score'], row['length'])
      # Of what is recommended, and of random interventions.
      self.assertLen(row['crps'], 9)
      self.assertEqual(
        row['contained'][0],
        row['low'][-1] <= row['expected'][-1] <= row['high'][-1],
      )
    # A kill left half a line.
    lines = path.read_text().splitlines(keepends=True)
    path.write_text(lines[0] + lines[1][:100])
    self.assertEqual(list(studies.run(2, 0, 1, path)), rows)
    self.assertEqual(path.read_text(), ''.join(lines))


if __name__ == '__main__':
  absltest.main()
