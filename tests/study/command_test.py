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
import pandas as pd

import acme_cbo
from acme_cbo.infra import errors
from acme_cbo.study import config
from tests.support import source_tree

_LAUNCHER = source_tree.ROOT / 'launchers/study.py'
_EXAMPLE = source_tree.ROOT / 'docs/studies'


# Runs several commands in one process, because jax takes seconds to start. It
# reads [[word, ...], ...] and writes [[exit code, output], ...] as JSON.
_DRIVER = """
import contextlib, io, json, sys
from absl import flags
from acme_cbo.experiments.commands import study
results = []
for words in json.load(sys.stdin):
  output = io.StringIO()
  with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
    try:
      flags.FLAGS.unparse_flags()
      for name in flags.FLAGS:
        flags.FLAGS[name].unparse()
      study.main(flags.FLAGS(['study', *words]))
      code = 0
    except study.errors.UsageError as error:
      code = 2
      print('error:', error)
  results.append([code, output.getvalue()])
json.dump(results, sys.stdout)
"""


class CommandTest(absltest.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls._directory = pathlib.Path(
      cls.enterClassContext(tempfile.TemporaryDirectory())
    )
    cls._study = cls._directory / 'psa.study'
    done = cls._start(
      [
        *(_LAUNCHER, 'create', cls._study),
        *(f'--config={_EXAMPLE / "psa.yaml"}', '--number=1'),
      ]
    )
    cls._created = done.stdout + done.stderr

  @classmethod
  def _start(cls, words, stdin='') -> subprocess.CompletedProcess:
    return subprocess.run(
      [sys.executable, *words],
      input=stdin,
      capture_output=True,
      text=True,
      timeout=200,
      cwd=cls._directory,
      env={**os.environ, 'PYTHONPATH': str(source_tree.ROOT)},
    )

  def _run(self, *commands, code: int = 0) -> list[str]:
    """Runs commands, each without the program; returns what each prints."""
    done = self._start(
      ['-c', _DRIVER],
      json.dumps([[str(word) for word in words] for words in commands]),
    )
    self.assertEqual(done.returncode, 0, done.stderr)
    results = json.loads(done.stdout)
    for (given, output), words in zip(results, commands, strict=True):
      self.assertEqual(given, code, f'{words}: {output}')
    return [output for _, output in results]

  def test_the_first_suggestion_fits_a_terminal(self):
    self.assertStartsWith(self._created, 'experiment 17: set ')
    self.assertIn('expected, the outcome in', self._created)
    self.assertLess(max(map(len, self._created.splitlines())), 81)

  def test_from_outcomes_to_a_report(self):
    study = shutil.copy(self._study, self._directory / 'copy.study')
    again = self._directory / 'again.study'
    outcomes = self._directory / 'outcomes.csv'
    outcomes.write_text(
      'experiment;intervention_targets;aspirin;psa\n;aspirin;0,3;5,75\n'
    )
    report, export, table = (
      self._directory / f'out.{suffix}' for suffix in ('html', 'json', 'csv')
    )
    outputs = self._run(
      ['observe', study, 17, 'psa=5.2', 'age=60'],
      ['observe', study, '--do=statin=0.4', 'psa=5.5'],
      ['observe', study, f'--data={outcomes}'],
      ['amend', study, 18, 'psa=5.6', '--do=aspirin=0.2'],
      ['recommend', study, '--json'],
      ['status', study],
      ['report', study, f'--out={report}'],
      ['report', study, f'--out={report}'],  # Replaces the older one.
      ['export', study, f'--out={export}'],
      ['export', study, f'--out={table}'],
      ['import', again, f'--data={export}'],
    )
    stored, amended, best, status = outputs[2:6]
    self.assertEqual(
      ' '.join(amended.split()),
      'stored: experiment 18, statin 0.4 -> none, psa 5.5 -> 5.6, aspirin none '
      '-> 0.2, what was set: aspirin',
    )
    self.assertEqual(stored, 'stored: experiment 19\n')
    self.assertLess(
      max(map(len, ''.join(outputs[:4] + outputs[5:]).splitlines())), 81
    )
    best = json.loads(best)
    self.assertContainsSubset(best['do'], ['aspirin', 'statin'])
    self.assertLess(best['prediction']['mean'], best['nothing']['mean'])
    self.assertIn('184 records, 16 past experiments', status)
    self.assertIn('3 outcomes, 0 pending, 0 failed', ' '.join(status.split()))
    self.assertIn('<svg', report.read_text())
    self.assertIn('>observed, not suggested, amended<', report.read_text())
    # Nothing is loaded from elsewhere.
    self.assertNotRegex(report.read_text(), r'\b(src|href)="(?!#|data:)')
    self.assertLen(table.read_text().splitlines(), 20)
    with (
      acme_cbo.Study.open(again).log as log,
      acme_cbo.Study.open(study).log as old,
    ):
      self.assertEqual(log.read(), old.read())

  def test_known_edges(self):
    study = shutil.copy(self._study, self._directory / 'edges.study')
    status, causes, _, after = self._run(
      ['change', study, '--required_edge=statin -> psa',
       '--forbidden_edge=aspirin->psa', '--forbidden_edge=age -> psa'],
      ['causes', study, '--json'],
      ['change', study, '--forbidden_edge=aspirin -> psa'],
      ['causes', study, '--json'],
    )  # fmt: skip
    status = ' '.join(status.split())
    self.assertIn('known causes: statin -> psa', status)
    self.assertIn('ruled out as causes: age -> psa, aspirin -> psa', status)
    causes, after = json.loads(causes), json.loads(after)
    self.assertGreater(causes['statin'], 0.9999)
    self.assertLess(max(causes['aspirin'], causes['age']), 1e-4)
    # The new ones replace all before.
    self.assertLess(after['aspirin'], 1e-4)
    self.assertBetween(after['statin'], 1e-4, 0.9999)
    (line,) = self._run(['change', study, '--required_edge=psa'], code=2)
    self.assertIn("'psa' is no edge; write it as 'cause -> effect'", line)

  def test_outcomes_from_stdin(self):
    study = shutil.copy(self._study, self._directory / 'stdin.study')
    done = self._start(
      [_LAUNCHER, 'observe', study, '--data=-'], 'experiment,psa\n17,5.2\n'
    )
    self.assertEqual(done.stdout, 'stored: experiment 17\n', done.stderr)

  def test_mistakes_are_told_in_a_line(self):
    before = self._study.read_bytes()
    page = self._directory / 'page.html'
    page.write_text('<!doctype html>')
    cases = {
      ('sugest', self._study): "no action 'sugest'; did you mean suggest?",
      ('suggest',): 'name the file of the study',
      ('suggest', self._study, '--reason=x'): '--reason is no flag of study',
      ('observe', self._study, 17, 'psa=low'): "'low' is no number",
      ('observe', self._study, 17, 'psa=1_0'): "'1_0' is no number",
      ('change', self._study, '--unset=statn'): 'did you mean statin',
      ('export', self._study, '--out=no/a.csv'): 'there is no directory',
      ('observe', self._study, 99, 'psa=3'): 'there is no experiment 99',
      ('observe', self._study, 17, 'pas=3'): 'did you mean psa?',
      ('observe', self._study, 17): 'give one or more NAME=VALUE',
      ('create', 'new.study', '--target=psa'): 'a new study needs --set',
      ('report', self._study, '--out=a.pdf'): '--out=FILE.html',
      ('report', self._study, f'--out={page}'): 'exists; name a new file',
      ('status', self._directory / 'none'): 'cannot be read',
      (
        *('create', self._directory / 'many.study', '--target=y'),
        *('--set=x 0..1', '--number=200'),
      ): 'the study was created, but has no suggestion: 200 suggestions',
    }
    for output, message in zip(
      self._run(*cases, code=2), cases.values(), strict=True
    ):
      with self.subTest(message):
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
    with tempfile.TemporaryDirectory() as directory:
      path = pathlib.Path(directory, 's.yaml')
      path.write_text(text)
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
      made = pd.read_csv(pathlib.Path(directory, 'psa.csv'))
    # Another machine may round the last digit the other way.
    pd.testing.assert_frame_equal(
      made, pd.read_csv(_EXAMPLE / 'psa.csv'), rtol=0, atol=0.011
    )


if __name__ == '__main__':
  absltest.main()
