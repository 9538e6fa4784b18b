"""Tests of reading runs, of their names and of their mismatches."""

import json
import pathlib
import tempfile

from absl.testing import absltest
from absl.testing import parameterized

from acme_cbo.evaluation.comparison import runs
from acme_cbo.infra import errors
from tests.evaluation.comparison import run_directories


class ReadTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.root = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))

  def _write(self, directory, **settings):
    return run_directories.write(self.root / directory, **settings)

  def test_seeds_of_a_configuration_share_its_name(self):
    paths = [
      self._write(f'{name}{seed}', name=name, seed=seed, rewards__parent=parent)
      for name, parent in (('with', 0.3), ('without', 0.0))
      for seed in (0, 1)
    ]
    loaded = runs.read(paths, False)
    self.assertEqual(
      [run.model for run in loaded],
      ['with, seed 0', 'with, seed 1', 'without, seed 0', 'without, seed 1'],
    )
    self.assertEqual(
      runs.differences(loaded),
      {'rewards.parent': {'with': 0.3, 'without': 0.0}},
    )
    self.assertEqual(loaded[0].updates, 6)

  def test_two_configurations_with_the_same_name(self):
    paths = [self._write('a'), self._write('b', rewards__parent=0.0)]
    loaded = runs.read(paths, False)
    self.assertEqual(
      [run.model for run in loaded],
      ['grpo-smoke (a), seed 0', 'grpo-smoke (b), seed 0'],
    )

  def test_learning_curve(self):
    path = self._write('a')
    (run,) = runs.read([path], False)
    self.assertEqual(runs.learning_curve(run)['updates'], [])
    rows = [
      {'step': 0, 'eval/score_last': 0.1},
      {'step': 1, 'reward/total': 0.2},
      {'step': 2, 'eval/score_last': 0.3},
    ]
    (path / 'metrics.jsonl').write_text(
      ''.join(f'{json.dumps(row)}\n' for row in rows)
    )
    self.assertEqual(
      runs.learning_curve(run), {'updates': [0.0, 2.0], 'scores': [0.1, 0.3]}
    )

  def test_two_directories_with_the_same_name(self):
    (self.root / 'p').mkdir()
    (self.root / 'q').mkdir()
    paths = [self._write('p/run'), self._write('q/run', rewards__parent=0.0)]
    loaded = runs.read(paths, False)
    self.assertEqual(
      [run.configuration for run in loaded],
      [f'grpo-smoke ({path})' for path in paths],
    )

  @parameterized.parameters(
    ('{"seeds": []}', 'is a sweep, not a run; name the runs in it: .*/runs/'),
    ('{"paths": []}', 'is a comparison, not a run; name the evaluations in it'),
    ('{}', 'config.json is damaged: config.scms is None; it must be a sect'),
    ('{"scms": 5}', 'is damaged: config.scms is 5; it must be a section'),
    ('[]', 'is damaged: it is not a JSON object'),
    ('[' * 10**5, 'is damaged: the JSON value is nested too deeply'),
  )
  def test_directories_of_something_else(self, config, sentence):
    paths = [self._write('a'), self._write('b')]
    (paths[1] / 'config.json').write_text(config)
    with self.assertRaisesRegex(errors.UsageError, f'/b.*{sentence}'):
      runs.read(paths, True)

  def test_a_damaged_log(self):
    (run,) = runs.read([self._write('a')], False)
    (run.directory / 'metrics.jsonl').write_text('{"step": 1}\n{"st\n')
    with self.assertRaisesRegex(
      errors.UsageError, 'metrics.jsonl, line 2, is damaged'
    ):
      runs.learning_curve(run)

  def test_cadence_does_not_distinguish_configurations(self):
    paths = [
      self._write('a'),
      self._write('b', seed=1, training__checkpoint_every=1),
    ]
    self.assertLen({run.configuration for run in runs.read(paths, False)}, 1)

  @parameterized.named_parameters(
    ('stopped', dict(updates=3), 'stopped after 3 of 6 updates'),
    ('interrupted', dict(status='interrupted'), 'is not finished'),
    (
      'budget',
      dict(grpo__num_tasks=32),
      '7,680 interventions, .*/a with 15,360',
    ),
    ('evaluation', dict(evaluation__seed=2), 'evaluation.seed is 2, but 1 in'),
    (
      'horizon',
      dict(horizon__num_observations=9),
      'horizon.num_observations is 9',
    ),
  )
  def test_mismatches_are_refused_or_recorded(self, settings, sentence):
    paths = [self._write('a'), self._write('b', seed=1, **settings)]
    with self.assertRaisesRegex(errors.UsageError, f'/b: .*{sentence}'):
      runs.read(paths, False)
    first, second = runs.read(paths, True)
    self.assertEmpty(first.mismatches)
    self.assertRegex(second.mismatches[0], sentence)

  def test_runs_without_a_policy(self):
    paths = [self._write('a'), self._write('b', status='interrupted')]
    (paths[1] / 'policy' / 'policy.json').unlink()
    for allowed in (True, False):
      with self.assertRaisesRegex(
        errors.UsageError, r'\(interrupted\).*resume'
      ):
        runs.read(paths, allowed)
    (paths[0] / 'policy' / 'policy.json').unlink()
    with self.assertRaisesRegex(errors.UsageError, 'its policy is missing'):
      runs.read(paths[:1], False)

  def test_duplicates_and_missing_runs(self):
    path, same = self._write('a'), self._write('b')
    with self.assertRaisesRegex(errors.UsageError, 'are not independent'):
      runs.read([path, same], False)
    with self.assertRaisesRegex(errors.UsageError, 'has no config.json'):
      runs.read([path, self.root], False)


if __name__ == '__main__':
  absltest.main()
