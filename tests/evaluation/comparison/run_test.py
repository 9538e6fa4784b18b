"""A comparison of policies that play on small SCMs, and goes on when ended."""

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

from acme_cbo.evaluation.comparison import run
from acme_cbo.infra import errors
from tests.evaluation.comparison import run_directories
from tests.support import tiny_environments


def _timeless(path):
  """The content of a file without when, and in how many seconds."""
  if path.name == 'index.html':
    return path.read_text().partition('<h2>When, and how fast</h2>')[0]
  if path.name == 'summary.json':
    return json.loads(path.read_text()) | {'made': None}
  return b'' if path.name == 'environment.json' else path.read_bytes()


def _run(settings):
  """What comes out, and what is printed."""
  printed = io.StringIO()
  with (
    contextlib.redirect_stdout(printed),
    contextlib.redirect_stderr(io.StringIO()),
  ):
    summary = run.run(settings, tiny_environments.resolve)
  return summary, printed.getvalue()


def _evaluation(settings):
  """Where the policies of runs have played."""
  (found,) = (settings.out / 'evaluation').iterdir()
  return found


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
    cls.settings = run.Settings(
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
    cls.summary, cls.printed = _run(cls.settings)

  def _changed(self, **changes: Any):
    usual: dict[str, Any] = {'out': self.root / self._testMethodName}
    return dataclasses.replace(self.settings, **(usual | changes))

  def test_says_who_is_better_and_goes_on(self):
    summary, printed = self.summary, self.printed
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
    means = units.groupby('configuration')['score'].mean()
    for name, about in summary['measures']['score']['models'].items():
      self.assertAlmostEqual(about['mean'], means[name])
    self.assertIn(summary['verdict'][0], printed)
    self.assertIn('rewards.parent: one 0.3, other 0.0', printed)

    before = {path: _timeless(path) for path in out.glob('*.*')}
    self.assertLen(before, 8)
    again, printed = _run(self.settings)
    self.assertEqual(again | {'made': None}, summary | {'made': None})
    self.assertIn('0 episodes to play, 10 are there already', printed)
    for path, content in before.items():
      self.assertEqual(_timeless(path), content, path)

  def test_evaluations_that_were_made_before(self):
    evaluation = _evaluation(self.settings)
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

  def test_what_was_evaluated_otherwise_is_refused_or_marked(self):
    evaluation, copy = _evaluation(self.settings), self.root / 'copy'
    shutil.copytree(evaluation, copy)
    config = json.loads((copy / 'config.json').read_text())
    (copy / 'config.json').write_text(json.dumps(config | {'samples': 9}))
    settings = self._changed(paths=(evaluation, copy))
    with self.assertRaisesRegex(
      errors.UsageError, r'otherwise than one, seed 0 .*samples is 9, not 1; '
    ):
      _run(settings)
    summary, _ = _run(dataclasses.replace(settings, allow_mismatch=True))
    self.assertLen(summary['models'], 4)
    page = (settings.out / 'index.html').read_text()
    self.assertIn('samples is 9, not 1.', page)

  def test_paths_and_patterns(self):
    flags = types.SimpleNamespace(
      **vars(self.settings),
      scm=['chain'],
    )
    given = [f'{self.root}/o*e*', str(self.root / 'one')]
    found = run.from_flags(flags, given)
    self.assertEqual(found.paths, (*self.runs, self.runs[0]))
    with self.assertRaisesRegex(errors.UsageError, 'one is named twice'):
      run.run(found, tiny_environments.resolve)
    with self.assertRaisesRegex(errors.UsageError, 'there is no .*/nothing'):
      run.from_flags(flags, [f'{self.root}/nothing*'])
    alone = dataclasses.replace(found, paths=self.runs[:1])
    with self.assertRaisesRegex(errors.UsageError, 'name two or more'):
      run.run(alone, tiny_environments.resolve)

  def test_what_is_refused_leaves_what_was_there(self):
    out = self.settings.out
    before = {path: path.read_bytes() for path in out.glob('*.*')}
    for changes in (dict(scms=('nothing',)), dict(paths=self.runs[:1])):
      with self.assertRaises(errors.UsageError):
        _run(self._changed(out=out, **changes))
      self.assertEqual(
        {path: path.read_bytes() for path in out.glob('*.*')}, before
      )

  def test_an_evaluation_beside_runs(self):
    evaluation = _evaluation(self.settings)
    other = self.root / 'evaluated'
    shutil.copytree(evaluation, other)
    log = other / 'episodes.jsonl'
    log.write_text(log.read_text().replace('one, seed 0', 'slope'))
    settings = self._changed(paths=(*self.runs, other))
    with self.assertRaisesRegex(errors.UsageError, "called 'other, seed 1'"):
      _run(settings)
    log.write_text(log.read_text().replace('other, seed 1', 'one'))
    summary, _ = _run(settings)
    # A method that is called like a configuration is no seed of it.
    self.assertEqual(
      [one['configuration'] for one in summary['models'].values()],
      ['one', 'other', 'slope', f'one ({other})'],
    )
    with self.assertRaisesRegex(
      errors.UsageError, 'slope has played 5 repeats on chain, and runs would'
    ):
      _run(dataclasses.replace(settings, repeats=6))
    twice = self._changed(paths=(other, other / 'results.csv'))
    with self.assertRaisesRegex(errors.UsageError, 'twice, also as'):
      _run(twice)

  def test_a_pattern_that_is_a_path(self):
    path = self.root / 'a[1]'
    path.mkdir(exist_ok=True)
    flags = types.SimpleNamespace(**vars(self.settings), scm=['chain'])
    found = run.from_flags(flags, [str(path)])
    self.assertEqual(found.paths, (path,))

  def test_nothing_of_a_run_is_overwritten(self):
    config = (self.runs[0] / 'config.json').read_bytes()
    with self.assertRaisesRegex(
      errors.UsageError, 'holds something else than a comparison'
    ):
      _run(self._changed(out=self.runs[0]))
    self.assertEqual((self.runs[0] / 'config.json').read_bytes(), config)

  def test_runs_that_do_not_match_are_refused_before_any_plays(self):
    stopped = self.root / 'stopped'
    shutil.copytree(self.runs[1], stopped)
    summary = {'status': 'interrupted', 'updates': 2}
    (stopped / 'summary.json').write_text(json.dumps(summary))
    settings = self._changed(paths=(self.runs[0], stopped))
    with self.assertRaisesRegex(errors.UsageError, 'it is not finished'):
      _run(settings)
    self.assertFalse(settings.out.exists())


if __name__ == '__main__':
  absltest.main()
