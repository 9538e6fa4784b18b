"""A comparison of policies that play on small SCMs, and goes on when ended."""

import contextlib
import io
import json
import pathlib
import tempfile
from unittest import mock

from absl.testing import absltest
import pandas as pd

from acme_cbo import compare
from acme_cbo import errors
from tests import tiny_environments
from tests.studies import run_directories


class CompareTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.root = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
    self.runs = tuple(
      run_directories.write(
        self.root / name,
        policy_seed=seed,
        name=name,
        seed=seed,
        rewards__parent=parent,
        horizon__num_observations=20,
        horizon__num_interventions=2,
      )
      for name, seed, parent in (('one', 0, 0.3), ('other', 1, 0.0))
    )
    self.settings = compare.Settings(
      runs=self.runs,
      allow_mismatch=False,
      scms=('chain',),
      repeats=5,
      samples=1,
      budget=None,
      seed=0,
      confidence=0.95,
      jobs=1,
      out=self.root / 'out',
    )

  def _run(self):
    """What comes out, and what is printed."""
    printed = io.StringIO()
    with (
      mock.patch('sys.stderr', io.StringIO()),
      contextlib.redirect_stdout(printed),
      self.assertLogs('absl', 'WARNING'),  # Asked for more variables.
    ):
      return compare.run(self.settings, tiny_environments.resolve), (
        printed.getvalue()
      )

  def test_says_who_is_better_and_goes_on(self):
    summary, printed = self._run()
    out = self.settings.out
    written = (out / 'summary.json').read_text()
    self.assertEqual(written, json.dumps(summary, indent=2) + '\n')
    self.assertEqual(summary['unit'], 'episode')
    self.assertEqual(
      summary['differences'],
      {'rewards.parent': {'one': 0.3, 'other': 0.0}},
    )
    units = pd.read_csv(out / 'units.csv')
    self.assertLen(units, 2 * 5)
    means = units.groupby('model')['score'].mean()
    for name, about in summary['measures']['score']['models'].items():
      self.assertAlmostEqual(about['mean'], means[name])
    self.assertIn(summary['verdict'][0], printed)
    self.assertIn('rewards.parent: one 0.3, other 0.0', printed)

    before = {path: path.read_bytes() for path in out.glob('*.*')}
    again, printed = self._run()
    self.assertEqual(again, summary)
    self.assertIn('0 episodes to play, 5 are there already', printed)
    for path, content in before.items():
      self.assertEqual(path.read_bytes(), content)

  def test_runs_that_do_not_match_are_refused_before_any_plays(self):
    summary = {'status': 'interrupted', 'updates': 2}
    (self.runs[1] / 'summary.json').write_text(json.dumps(summary))
    with self.assertRaisesRegex(errors.UsageError, 'it is not finished'):
      compare.run(self.settings, tiny_environments.resolve)
    self.assertFalse(self.settings.out.exists())


if __name__ == '__main__':
  absltest.main()
