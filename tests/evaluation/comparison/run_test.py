"""Tests of whole comparisons of policies on small SCMs, and of resuming."""

import contextlib
import dataclasses
import io
import json
import pathlib
import shutil
import tempfile
import types
from typing import Any

from absl.testing import absltest
import pandas as pd

from acme_cbo.evaluation import config as config_lib
from acme_cbo.evaluation.comparison import run
from acme_cbo.infra import errors
from tests.evaluation.comparison import run_directories
from tests.support import tiny_environments


def _timeless(path):
  """Returns the content of a file without dates and computing times."""
  if path.name == 'index.html':
    return path.read_text().partition('<h2>Date and computing time</h2>')[0]
  if path.name == 'summary.json':
    return json.loads(path.read_text()) | {'made': None}
  return b'' if path.name == 'environment.json' else path.read_bytes()


def _run(config):
  """Runs a comparison; returns its summary and the printed text."""
  printed = io.StringIO()
  with (
    contextlib.redirect_stdout(printed),
    contextlib.redirect_stderr(io.StringIO()),
  ):
    summary = run.run(config, tiny_environments.resolve)
  return summary, printed.getvalue()


def _evaluation(config):
  """Returns the directory of the evaluation of the runs' policies."""
  (directory,) = (config.out / 'evaluation').iterdir()
  return directory


class CompareTest(absltest.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    root = cls.enterClassContext(tempfile.TemporaryDirectory())
    cls.root = pathlib.Path(root)
    cls.runs = tuple(
      run_directories.write(
        cls.root / name,
        policy_seed=seed,
        name=name,
        seed=seed,
        rewards__parent=parent,
        horizon__num_observations=20,
        horizon__num_interventions=2,
      )
      for name, seed, parent in (('one', 0, 0.3), ('other', 1, 0.0))
    )
    cls.config = config_lib.ComparisonConfig(
      paths=cls.runs,
      allow_mismatch=False,
      scms=('chain',),
      repeats=5,
      samples=1,
      budget=None,
      seed=0,
      confidence=0.95,
      jobs=1,
      out=cls.root / 'out',
    )
    cls.summary, cls.printed = _run(cls.config)

  def _changed(self, **changes: Any):
    defaults: dict[str, Any] = {'out': self.root / self._testMethodName}
    return dataclasses.replace(self.config, **(defaults | changes))

  def test_writes_a_report_and_resumes(self):
    summary, printed = self.summary, self.printed
    out = self.config.out
    written = (out / 'summary.json').read_text()
    self.assertEqual(written, json.dumps(summary, indent=2) + '\n')
    self.assertEqual(summary['unit'], 'episode')
    self.assertEqual(
      summary['differences'],
      {'rewards.parent': {'one': 0.3, 'other': 0.0}},
    )
    units = pd.read_csv(out / 'units.csv')
    self.assertLen(units, 2 * 5)
    means = units.groupby('configuration')['score'].mean()
    for name, entry in summary['measures']['score']['models'].items():
      self.assertAlmostEqual(entry['mean'], means[name])
    self.assertIn(summary['verdict'][0], printed)
    self.assertIn('rewards.parent: one 0.3, other 0.0', printed)

    before = {path: _timeless(path) for path in out.glob('*.*')}
    self.assertLen(before, 8)
    again, printed = _run(self.config)
    self.assertEqual(again | {'made': None}, summary | {'made': None})
    self.assertIn('0 episodes to run, 10 already finished', printed)
    for path, content in before.items():
      self.assertEqual(_timeless(path), content, path)

  def test_existing_evaluations(self):
    evaluation = _evaluation(self.config)
    for number, path in enumerate((evaluation, evaluation / 'results.csv')):
      out = self.root / f'evaluation{number}'
      summary, _ = _run(self._changed(paths=(path,), out=out))
      self.assertEqual(
        list(summary['models']), ['one, seed 0', 'other, seed 1']
      )
      for name in ('score', 'success', 'convergence'):
        before, now = (
          [entry['mean'] for entry in x['measures'][name]['models'].values()]
          for x in (self.summary, summary)
        )
        self.assertEqual(now, before)

  def test_other_protocols_are_refused_or_have_a_warning(self):
    evaluation, copy = _evaluation(self.config), self.root / 'copy'
    shutil.copytree(evaluation, copy)
    written = json.loads((copy / 'config.json').read_text())
    (copy / 'config.json').write_text(json.dumps(written | {'samples': 9}))
    config = self._changed(paths=(evaluation, copy))
    with self.assertRaisesRegex(
      errors.UsageError,
      r'not evaluated like one, seed 0 .*samples is 9, not 1; ',
    ):
      _run(config)
    summary, _ = _run(dataclasses.replace(config, allow_mismatch=True))
    self.assertLen(summary['models'], 4)
    page = (config.out / 'index.html').read_text()
    self.assertIn('samples is 9, not 1.', page)

  def test_paths_and_patterns(self):
    flags = types.SimpleNamespace(
      **vars(self.config),
      scm=['chain'],
    )
    arguments = [f'{self.root}/o*e*', str(self.root / 'one')]
    config = run.from_flags(flags, arguments)
    self.assertEqual(config.paths, (*self.runs, self.runs[0]))
    with self.assertRaisesRegex(errors.UsageError, 'one is named twice'):
      run.run(config, tiny_environments.resolve)
    with self.assertRaisesRegex(errors.UsageError, 'nothing.* does not exist'):
      run.from_flags(flags, [f'{self.root}/nothing*'])
    single = dataclasses.replace(config, paths=self.runs[:1])
    with self.assertRaisesRegex(errors.UsageError, 'needs two or more'):
      run.run(single, tiny_environments.resolve)

  def test_an_error_leaves_the_earlier_report(self):
    out = self.config.out
    before = {path: path.read_bytes() for path in out.glob('*.*')}
    for changes in (dict(scms=('nothing',)), dict(paths=self.runs[:1])):
      with self.assertRaises(errors.UsageError):
        _run(self._changed(out=out, **changes))
      self.assertEqual(
        {path: path.read_bytes() for path in out.glob('*.*')}, before
      )

  def test_an_evaluation_beside_runs(self):
    evaluation = _evaluation(self.config)
    other = self.root / 'evaluated'
    shutil.copytree(evaluation, other)
    log = other / 'episodes.jsonl'
    log.write_text(log.read_text().replace('one, seed 0', 'slope'))
    config = self._changed(paths=(*self.runs, other))
    with self.assertRaisesRegex(errors.UsageError, "called 'other, seed 1'"):
      _run(config)
    log.write_text(log.read_text().replace('other, seed 1', 'one'))
    summary, _ = _run(config)
    # A method with the name of a configuration is not one of its seeds.
    self.assertEqual(
      [model['configuration'] for model in summary['models'].values()],
      ['one', 'other', 'slope', f'one ({other})'],
    )
    with self.assertRaisesRegex(
      errors.UsageError,
      'slope was evaluated with 5 repeats on chain, but the runs would',
    ):
      _run(dataclasses.replace(config, repeats=6))
    twice = self._changed(paths=(other, other / 'results.csv'))
    with self.assertRaisesRegex(errors.UsageError, 'twice, also as'):
      _run(twice)

  def test_a_pattern_that_is_a_path(self):
    path = self.root / 'a[1]'
    path.mkdir(exist_ok=True)
    flags = types.SimpleNamespace(**vars(self.config), scm=['chain'])
    config = run.from_flags(flags, [str(path)])
    self.assertEqual(config.paths, (path,))

  def test_a_run_is_not_overwritten(self):
    before = (self.runs[0] / 'config.json').read_bytes()
    with self.assertRaisesRegex(
      errors.UsageError, 'contains something other than a comparison'
    ):
      _run(self._changed(out=self.runs[0]))
    self.assertEqual((self.runs[0] / 'config.json').read_bytes(), before)

  def test_mismatches_are_refused_before_the_evaluation(self):
    stopped = self.root / 'stopped'
    shutil.copytree(self.runs[1], stopped)
    summary = {'status': 'interrupted', 'updates': 2}
    (stopped / 'summary.json').write_text(json.dumps(summary))
    config = self._changed(paths=(self.runs[0], stopped))
    with self.assertRaisesRegex(errors.UsageError, 'it is not finished'):
      _run(config)
    self.assertFalse(config.out.exists())


if __name__ == '__main__':
  absltest.main()
