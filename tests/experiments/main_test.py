"""Tests of the program `acme-cbo` as a process of its own."""

import os
import pathlib
import subprocess
import sys
import tempfile

from absl.testing import absltest
from absl.testing import parameterized

import acme_cbo
from acme_cbo.experiments import main
from acme_cbo.infra import child_process

_ROOT = pathlib.Path(__file__).resolve().parents[2]
_WORDS = [path.stem for path in sorted((_ROOT / 'launchers').glob('*.py'))]
# Runs the console script, as pip writes it.
_SCRIPT = """
import sys
from acme_cbo.experiments import main
sys.argv[0] = '/somewhere/bin/acme-cbo'
try:
  main.main()
finally:
  heavy = sorted({'absl', 'jax', 'numpy'} & set(sys.modules))
  print('imported', heavy, file=sys.stderr)
"""


class MainTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    root = self.enterContext(tempfile.TemporaryDirectory())
    self.directory = pathlib.Path(root)

  def _run(self, *arguments, code=0):
    done = subprocess.run(
      [sys.executable, '-P', '-c', _SCRIPT, *arguments],
      cwd=self.directory,
      env=os.environ | {'PYTHONPATH': child_process.python_path()},
      capture_output=True,
      text=True,
      timeout=50,
    )
    self.assertEqual(done.returncode, code, done)
    return done

  @parameterized.parameters(((),), (('--help',),), (('-h',),))
  def test_help_lists_all_commands(self, arguments):
    done = self._run(*arguments)
    lines = done.stdout.splitlines()
    first = lines.index('commands:') + 1
    commands = [line.split()[0] for line in lines[first:] if line[2:3].strip()]
    self.assertContainsSubset(_WORDS, commands)
    self.assertIn('  evaluate   Evaluates methods on SCMs', done.stdout)
    self.assertLessEqual(max(map(len, lines)), 80)
    self.assertEqual(done.stderr, 'imported []\n')

  def test_version(self):
    done = self._run('--version')
    self.assertEqual(done.stdout, f'acme-cbo {acme_cbo.__version__}\n')
    self.assertEqual(done.stderr, 'imported []\n')

  @parameterized.parameters(
    ('trian', "there is no command 'trian'; did you mean train?"),
    ('--config=a.py', "there is no command '--config=a.py'; .*benchmark, comp"),
  )
  def test_unknown_command(self, word, message):
    done = self._run(word, code=2)
    self.assertEmpty(done.stdout)
    first, *rest = done.stderr.splitlines()
    self.assertRegex(first, f'^error: {message}')
    self.assertEqual(rest, ['imported []'])

  @parameterized.parameters(_WORDS)
  def test_help_of_a_command(self, word):
    done = self._run(word, '--help')
    self.assertEqual(done.stderr, "imported ['absl']\n")
    self.assertIn(f'\nacme-cbo {word}', done.stdout)
    self.assertIn(f'\n\nflags:\n\nacme-cbo {word}:\n  --', done.stdout)
    self.assertNotIn('launchers/', done.stdout)
    self.assertLessEqual(max(map(len, done.stdout.splitlines())), 80)

  def test_shared_flags_are_in_the_help(self):
    help_text = self._run('evaluate', '--help').stdout
    for flag in ('scm', 'out', 'repeats', 'confidence', 'methods'):
      self.assertIn(f'\n  --{flag}: ', help_text)

  def test_errors_of_a_command(self):
    done = self._run('train', '--config=nowhere.py', code=2)
    self.assertIn(': nowhere.py cannot be read: No such file', done.stderr)

  def test_a_shipped_config_is_found_from_anywhere(self):
    done = self._run('train', '--config=configs/grpo.py:no_preset', code=2)
    self.assertRegex(done.stderr, "^error: .*no preset 'no_preset'")
    # A file of the working directory comes first.
    (self.directory / 'configs').mkdir()
    mine = self.directory / 'configs' / 'grpo.py'
    mine.write_text('def get_config(preset):\n  raise ValueError("mine")\n')
    done = self._run('train', '--config=configs/grpo.py:smoke', code=2)
    self.assertRegex(done.stderr, '^error: .*mine')

  @parameterized.parameters(
    ('../README.md', '../README.md cannot be read: No such file'),
    ('acme_cbo/types.py', 'acme_cbo/types.py cannot be read: No such file'),
    ('.', '. cannot be read: it is a directory'),
    ('', 'name a config file, such as'),
  )
  def test_other_files_are_not(self, path, message):
    done = self._run('train', f'--config={path}', code=2)
    self.assertStartsWith(
      done.stderr, f'error: flag --config={path}: {message}'
    )

  def test_a_child_process_runs_the_same_package(self):
    (self.directory / 'acme_cbo').mkdir()
    (self.directory / 'acme_cbo' / '__init__.py').touch()
    done = subprocess.run(
      [*main.child_command('evaluate'), '--methods=none', '--out=o'],
      cwd=self.directory,
      env=os.environ | {'PYTHONPATH': child_process.python_path()},
      capture_output=True,
      text=True,
      timeout=50,
    )
    self.assertEqual(done.returncode, 2, done)
    self.assertRegex(done.stderr, "^error: .*'?none'?")


if __name__ == '__main__':
  absltest.main()
