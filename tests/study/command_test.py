"""Tests of the command of studies, as a process on real files."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

from absl.testing import absltest
from absl.testing import parameterized

import acme_cbo
from acme_cbo.infra import errors
from acme_cbo.study import config
from tests.support import source_tree

_LAUNCHER = source_tree.ROOT / 'launchers/study.py'
_EXAMPLE = source_tree.ROOT / 'docs/studies'


class CommandTest(absltest.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls._directory = pathlib.Path(
      cls.enterClassContext(tempfile.TemporaryDirectory())
    )
    cls._study = cls._directory / 'psa.study'
    cls._created = cls._run(
      'create', f'--config={_EXAMPLE / "psa.yaml"}', '--number=1'
    )

  @classmethod
  def _run(cls, action, *words, stdin='', rc=0, location=None) -> str:
    """Runs an action; returns what it prints on both streams."""
    done = subprocess.run(
      [
        *(sys.executable, str(_LAUNCHER), action),
        *(str(location or cls._study), *words),
      ],
      input=stdin,
      capture_output=True,
      text=True,
      timeout=200,
      cwd=cls._directory,
    )
    output = done.stdout + done.stderr
    if done.returncode != rc:
      raise AssertionError(f'exit code {done.returncode}: {output}')
    return output

  def test_the_first_suggestion_fits_a_terminal(self):
    self.assertStartsWith(self._created, 'experiment 17: set ')
    self.assertIn('expected, the outcome in', self._created)
    self.assertLess(max(map(len, self._created.splitlines())), 81)

  def test_from_outcomes_to_a_report(self):
    shutil.copy(self._study, self._directory / 'copy.study')
    study = self._directory / 'copy.study'
    self._run('observe', '17', 'psa=5.2', 'age=60', location=study)
    self._run('observe', '--do=statin=0.4', 'psa=5.5', location=study)
    stored = self._run(
      'observe',
      '--data=-',
      stdin='experiment;intervention_targets;aspirin;psa\n;aspirin;0,3;5,75\n',
      location=study,
    )
    self.assertEqual(stored, 'stored: experiment 19\n')
    self._run('amend', '18', 'psa=5.6', location=study)
    best = json.loads(self._run('recommend', '--json', location=study))
    self.assertContainsSubset(best['do'], ['aspirin', 'statin'])
    self.assertLess(best['prediction']['mean'], best['nothing']['mean'])
    status = self._run('status', location=study)
    self.assertIn('184 records, 19 outcomes, 0 pending, 0 failed', status)
    report = self._directory / 'report.html'
    self._run('report', f'--out={report}', location=study)
    self.assertIn('<svg', report.read_text())
    self.assertNotRegex(report.read_text(), r'(src|href)="(?!#|data:)')
    # The whole study as JSON, and back.
    export = self._directory / 'study.json'
    self._run('export', f'--out={export}', location=study)
    again = self._directory / 'again.study'
    self._run('import', f'--data={export}', location=again)
    with (
      acme_cbo.Study.open(again).log as log,
      acme_cbo.Study.open(study).log as old,
    ):
      self.assertEqual(log.read(), old.read())

  def test_mistakes_are_told_in_a_line(self):
    before = self._study.read_bytes()
    for words, message in (
      (('sugest',), "no action 'sugest'; did you mean suggest?"),
      (('suggest', '--reason=x'), '--reason is no flag of study suggest'),
      (('observe', '17', 'psa=low'), "'low' is no number"),
      (('observe', '99', 'psa=3'), 'there is no experiment 99'),
      (('observe', '17', 'pas=3'), 'did you mean psa?'),
      (('create', '--target=psa'), 'a new study needs --set'),
    ):
      with self.subTest(words):
        output = self._run(*words, rc=2)
        self.assertStartsWith(output, 'error: ')
        self.assertIn(message, output)
        self.assertLen(output.splitlines(), 1)
    self.assertEqual(self._study.read_bytes(), before)


class ConfigTest(parameterized.TestCase):
  def test_variables(self):
    self.assertEqual(
      config.variables(
        [
          'feed rate 0..5 step 0.25 cost 3',
          'x -1.5 .. 2e1',
          'stirring 200, 400,800 cost 2',
          'coated False,True',
        ]
      ),
      {
        'feed rate': {'domain': [0, 5], 'step': 0.25, 'cost': 3},
        'x': {'domain': [-1.5, 20]},
        'stirring': {'values': [200, 400, 800], 'cost': 2},
        'coated': {'values': [False, True]},
      },
    )

  @parameterized.parameters('feed', 'feed 3', 'feed 0-5', 'feed 0..5 stp 2', '')
  def test_wrong_variables(self, text):
    with self.assertRaisesRegex(errors.UsageError, 'NAME LOW..HIGH'):
      config.variables([text])

  @parameterized.parameters(
    (None, None),
    ('all', 'all'),
    ('2', {'max_size': 2}),
    ('a; b; a, b', {'sets': [['a'], ['b'], ['a', 'b']]}),
  )
  def test_interventions(self, text, expected):
    self.assertEqual(config.interventions(text), expected)

  @parameterized.parameters(
    ('target: y', ':1:1: the key variables is missing'),
    ('target: y\ntarget: z\nvariables: {}', "'target' is given twice"),
    ('target: y\nvarables: {}', 'did you mean variables'),
    ('- a', 'the file must have keys'),
    ('a: &x 1', 'anchors'),
    ('a: !!python/name:os.system', 'tags'),
    ('', 'the file is empty'),
  )
  def test_wrong_files(self, text, message):
    path = pathlib.Path(self.create_tempfile('s.yaml', text).full_path)
    with self.assertRaisesRegex(errors.UsageError, message):
      config.read(path)

  def test_the_example_is_what_its_program_makes(self):
    arguments = config.read(_EXAMPLE / 'psa.yaml')
    self.assertEqual(arguments['data'], _EXAMPLE / 'psa.csv')
    self.assertEqual(
      arguments['variables']['statin'], {'domain': [0, 1], 'step': 0.05}
    )
    with tempfile.TemporaryDirectory() as directory:
      program = shutil.copy(_EXAMPLE / 'psa.py', directory)
      subprocess.run(
        [sys.executable, program],
        check=True,
        timeout=100,
        env={**os.environ, 'PYTHONPATH': str(source_tree.ROOT)},
      )
      made = pathlib.Path(directory, 'psa.csv').read_text()
    self.assertEqual(made, (_EXAMPLE / 'psa.csv').read_text())


if __name__ == '__main__':
  absltest.main()
