"""Tests of the launchers as processes of their own."""

import contextlib
import io
import os
import pathlib
import subprocess
import sys
import tempfile
from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized

from acme_cbo.infra import cli
from acme_cbo.infra import jax_environment

_ROOT = pathlib.Path(__file__).resolve().parents[2]
_TRAIN = str(_ROOT / 'launchers' / 'train.py')
_SMOKE = f'--config={_ROOT / "configs" / "grpo.py"}:smoke'


class LauncherTestCase(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    root = self.enterContext(tempfile.TemporaryDirectory())
    self.directory = pathlib.Path(root)

  def run_python(self, *arguments):
    return subprocess.run(
      [sys.executable, *arguments],
      cwd=self.directory,
      env=os.environ | {'PYTHONPATH': str(_ROOT)},
      capture_output=True,
      text=True,
      timeout=50,
      check=False,
    )

  def assert_one_line(self, *arguments):
    """Asserts that a launcher fails with one line; returns the line."""
    done = self.run_python(_TRAIN, *arguments)
    self.assertEqual(done.returncode, 2, done)
    self.assertEmpty(done.stdout)
    self.assertStartsWith(done.stderr, 'error: ')
    self.assertEqual(done.stderr.count('\n'), 1, done.stderr)
    return done.stderr


class MistakesTest(LauncherTestCase):
  @parameterized.parameters(
    (
      [_SMOKE, '--config.grpo.num_generation=3'],
      'num_generation.* [Dd]id you mean .?num_generations',
    ),
    (
      [_SMOKE, '--config.grpp.num_tasks=3'],
      '[Dd]id you mean .?grpo',
    ),
    (
      ['--config=mine.py'],
      '--config=mine.py: mine.py cannot be read: No such file',
    ),
    (
      [_SMOKE.replace('smoke', 'smok')],
      "error: there is no preset 'smok'; .*smoke",
    ),
    ([_SMOKE, 'seed=3'], "unexpected argument 'seed=3'; flags begin with --"),
    ([], '--config: no config; give one as --config='),
    ([_SMOKE, '--config.seed=1.5'], 'config.seed=1.5'),
  )
  def test_are_reported_in_one_line(self, arguments, sentence):
    self.assertRegex(self.assert_one_line(*arguments), sentence)
    self.assertEmpty(list(self.directory.iterdir()))

  def test_a_non_empty_directory_is_left_alone(self):
    mine = self.directory / 'mine'
    mine.mkdir()
    (mine / 'notes.txt').write_text('precious')
    line = self.assert_one_line(_SMOKE, '--workdir=mine')
    self.assertRegex(line, '--workdir=mine is not empty; nothing in it was')
    self.assertEqual([path.name for path in mine.iterdir()], ['notes.txt'])
    self.assertEqual((mine / 'notes.txt').read_text(), 'precious')

  def test_other_exceptions_keep_their_traceback(self):
    done = self.run_python(
      '-c',
      'from acme_cbo.infra import cli\n'
      'def main(argv):\n'
      '  raise ValueError("a bug")\n'
      'cli.run(main)\n',
    )
    self.assertEqual(done.returncode, 1)
    self.assertRegex(done.stderr, r'Traceback[^$]*ValueError: a bug\n')


class HelpTest(LauncherTestCase):
  @parameterized.parameters('train', 'benchmark')
  def test_help_is_quick(self, name):
    launcher = str(_ROOT / 'launchers' / f'{name}.py')
    done = self.run_python(
      '-c',
      'import runpy, sys\n'
      f'sys.argv = [{launcher!r}, "--help"]\n'
      'try:\n'
      f'  runpy.run_path({launcher!r}, run_name="__main__")\n'
      'except SystemExit as end:\n'
      '  heavy = sorted({"jax", "numpy"} & set(sys.modules))\n'
      '  print("exit", end.code, "with", heavy)\n',
    )
    self.assertEndsWith(done.stdout, '\nexit 0 with []\n')
    self.assertIn(f'\npython launchers/{name}.py --config=', done.stdout)
    self.assertIn('--config: Path of the config file', done.stdout)
    self.assertEmpty(done.stderr)


class CommandTest(parameterized.TestCase):
  @parameterized.parameters(
    ('launchers/train.py', 'python launchers/replay.py'),
    ('/venv/bin/acme-cbo', 'acme-cbo replay'),
  )
  def test_is_that_of_the_program_that_runs(self, program, expected):
    with mock.patch.object(sys, 'argv', [program, '--x']):
      self.assertEndsWith(cli.command('replay'), expected)

  @parameterized.parameters(
    (['launchers/a.py', '--b=c d'], "python launchers/a.py '--b=c d'"),
    (['/venv/bin/acme-cbo', 'a', '--b'], 'acme-cbo a --b'),
  )
  def test_invocation(self, arguments, expected):
    with mock.patch.object(sys, 'argv', arguments):
      self.assertEqual(cli.invocation(), expected)

  def test_executable(self):
    with mock.patch.dict(os.environ, {'PATH': ''}):
      path = cli.executable('python')
      self.assertEndsWith(path, '/python')
      os.environ['PATH'] = str(pathlib.Path(sys.executable).parent)
      self.assertEqual(cli.executable('python'), 'python')
    self.assertEqual(cli.executable('no_such_program'), 'no_such_program')


class OutputTest(LauncherTestCase):
  def _run(self, main, encoding='utf-8', closed=''):
    """Runs the source of a main function as a command; returns its output.

    Args:
      main: the source.
      encoding: encoding of the terminal.
      closed: what closes streams in a shell, such as '>&-'.
    """
    lines = (
      'import os, sys',
      'from acme_cbo.infra import cli, errors',
      f'def main(argv): {main}',
      'cli.run(main)',
    )
    return subprocess.run(
      [
        *('bash', '-c', f'exec "$@" {closed}', '-'),
        *(sys.executable, '-c', '\n'.join(lines)),
      ],
      env={
        **os.environ,
        'PYTHONIOENCODING': encoding,
        'PYTHONPATH': str(_ROOT),
      },
      capture_output=True,
      check=False,
    )

  @parameterized.parameters('ascii', 'latin-1')
  def test_any_encoding_of_the_terminal(self, encoding):
    done = self._run('print("compiling \u2026")', encoding)
    self.assertEqual((done.returncode, done.stderr), (0, b''))
    self.assertEqual(done.stdout, b'compiling \\u2026\n')

  def test_without_a_terminal(self):
    done = self._run(
      'sys.stdout.flush(); sys.stderr.write("x")', closed='>&- 2>&-'
    )
    self.assertEqual(done.returncode, 0)

  def test_children_have_the_streams_that_a_process_lacks(self):
    path = self.directory / 'taken'
    child = 'import os; [os.fstat(k) for k in range(3)]; print(1)'
    main = (
      f'code = {child!r}; import subprocess; file = open({str(path)!r}, "w"); '
      'file.write(str(subprocess.call([sys.executable, "-c", code]))); '
      'file.write(f" {file.fileno() > 2}")'
    )
    for closed in ('<&- >&-', '<&-', '>&- 2>&-', '<&- >&- 2>&-'):
      done = self._run(main, closed=closed)
      self.assertEqual(done.returncode, 0, done.stderr)
      self.assertEqual(path.read_text(), '0 True', closed)

  def test_control_characters_are_escaped(self):
    done = self._run('raise errors.UsageError("a\\x1b[2J")')
    self.assertEqual(done.returncode, 2)
    self.assertEqual(done.stderr, b'error: a\\x1b[2J\n')

  def test_a_path_that_cannot_be_used_is_told(self):
    done = self._run('os.stat("a" * 300)')
    self.assertEqual(done.returncode, 2)
    self.assertEqual(
      done.stderr,
      b'error: %s cannot be used: File name too long\n' % (b'a' * 300),
    )

  def test_a_full_disk_is_told(self):
    done = self._run('raise OSError(28, os.strerror(28), "runs/x")')
    self.assertEqual(done.returncode, 1)
    self.assertEqual(
      done.stderr,
      b'error: runs/x could not be written: No space left on device; make '
      b'room, and resume\n',
    )


class EnvironmentTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self._home = self.enterContext(tempfile.TemporaryDirectory())

  def test_is_below_the_home_directory(self):
    with mock.patch.dict(os.environ, {'HOME': self._home}, clear=True):
      jax_environment.set_defaults()
      cache = pathlib.Path(self._home, '.cache', 'acme_cbo', 'jax')
      self.assertEqual(os.environ['JAX_COMPILATION_CACHE_DIR'], str(cache))
      self.assertNotIn('JAX_ENABLE_COMPILATION_CACHE', os.environ)
    for directory in (cache, cache.parent, cache.parent.parent):
      self.assertEqual(directory.stat().st_mode & 0o777, 0o700)

  def test_a_user_without_a_home_directory_has_no_cache(self):
    with (
      mock.patch.dict(os.environ, {}, clear=True),
      mock.patch.object(os.path, 'expanduser', lambda path: path),
      contextlib.redirect_stderr(io.StringIO()) as stderr,
    ):
      jax_environment.set_defaults()
      self.assertEqual(os.environ['JAX_ENABLE_COMPILATION_CACHE'], 'false')
    self.assertIn('has no home directory; set HOME', stderr.getvalue())

  def test_an_address_is_no_directory_of_the_cache(self):
    environment = {'JAX_COMPILATION_CACHE_DIR': 'gs://bucket/jax'}
    with (
      mock.patch.dict(os.environ, environment, clear=True),
      contextlib.redirect_stderr(io.StringIO()) as stderr,
    ):
      jax_environment.set_defaults()
      self.assertEqual(os.environ['JAX_ENABLE_COMPILATION_CACHE'], 'false')
    self.assertIn('is the address gs://bucket/jax; set', stderr.getvalue())

  def test_follows_xdg(self):
    environment = {'HOME': '/home/me', 'XDG_CACHE_HOME': f'{self._home}/fast'}
    with mock.patch.dict(os.environ, environment, clear=True):
      jax_environment.set_defaults()
      self.assertEqual(
        os.environ['JAX_COMPILATION_CACHE_DIR'],
        f'{self._home}/fast/acme_cbo/jax',
      )

  @parameterized.parameters(0o777, 0o775, 0o1777)
  def test_a_directory_that_others_can_write_to_is_not_used(self, mode):
    cache = pathlib.Path(self._home, 'cache')
    cache.mkdir()
    cache.chmod(mode)
    environment = {'JAX_COMPILATION_CACHE_DIR': str(cache)}
    with (
      mock.patch.dict(os.environ, environment, clear=True),
      contextlib.redirect_stderr(io.StringIO()) as stderr,
    ):
      jax_environment.set_defaults()
      self.assertEqual(os.environ['JAX_ENABLE_COMPILATION_CACHE'], 'false')
    self.assertEqual(
      stderr.getvalue(),
      f'warning: compiled programs are not cached: {cache} can be written to '
      f'by others; remove it, or run: chmod go-w {cache}\n',
    )

  @parameterized.parameters((0o777, False), (0o1777, True), (0o775, True))
  def test_directories_above_it(self, mode, is_safe):
    above = pathlib.Path(self._home, 'above')
    above.mkdir()
    above.chmod(mode)
    environment = {'JAX_COMPILATION_CACHE_DIR': f'{above}/cache'}
    with (
      mock.patch.dict(os.environ, environment, clear=True),
      contextlib.redirect_stderr(io.StringIO()) as stderr,
    ):
      jax_environment.set_defaults()
    complaint = f'is not safe: {above}, above it, can be written to by others'
    self.assertEqual(complaint not in stderr.getvalue(), is_safe)

  def test_small_programs_have_one_thread(self):
    for small in (False, True):
      with mock.patch.dict(os.environ, {'HOME': self._home}, clear=True):
        jax_environment.set_defaults(small)
        self.assertEqual('multi_thread' in os.environ['XLA_FLAGS'], small)
        self.assertIn('optimization_level=2', os.environ['XLA_FLAGS'])
        # Raises at a flag that it does not know.
        done = subprocess.run(
          [sys.executable, '-c', 'import jax; jax.devices()'],
          check=True,
          capture_output=True,
        )
        self.assertEmpty(done.stdout)

  def test_values_that_are_set_are_kept(self):
    environment = {
      'HOME': '/home/me',
      'JAX_COMPILATION_CACHE_DIR': f'{self._home}/mine',
      'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '7',
      'OPENBLAS_NUM_THREADS': '3',
      'JAX_DEFAULT_MATMUL_PRECISION': 'tensorfloat32',
      'XLA_FLAGS': '--xla_cpu_multi_thread_eigen=true',
    }
    with mock.patch.dict(os.environ, environment, clear=True):
      jax_environment.set_defaults(small_programs=True)
      self.assertEqual(dict(os.environ), environment)


class HangingActorTest(parameterized.TestCase):
  """A process waits for its threads, but an actor may hang forever."""

  @parameterized.parameters(
    ("errors.PeerError('it stalled')", 1, 'error: it stalled'),
    ("errors.UsageError('no such thing')", 2, 'error: no such thing'),
    ("KeyError('broken')", 1, "KeyError: 'broken'"),
  )
  def test_does_not_keep_a_failing_process(self, error, code, sentence):
    program = f"""
import threading, time
from acme_cbo.infra import cli, errors

def main(argv):
  threading.Thread(target=time.sleep, args=(60,), name='actor 0').start()
  raise {error}

cli.run(main)
"""
    done = subprocess.run(
      [sys.executable, '-c', program],
      cwd=_ROOT,
      capture_output=True,
      text=True,
      timeout=20,
    )
    self.assertEqual(done.returncode, code)
    self.assertEndsWith(done.stderr.strip(), sentence)


class PipeTest(parameterized.TestCase):
  @parameterized.parameters(
    ([_TRAIN, '--config_help'],),
    ([_TRAIN, '--help'],),
    (['-m', 'acme_cbo.experiments.main', '--help'],),
  )
  def test_a_closed_pipe_is_not_an_error(self, arguments):
    with subprocess.Popen(
      [sys.executable, *arguments],
      cwd=_ROOT,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    ) as process:
      assert process.stdout and process.stderr
      process.stdout.close()
      message = process.stderr.read()
    self.assertEqual((process.returncode, message), (128 + 13, ''))


if __name__ == '__main__':
  absltest.main()
