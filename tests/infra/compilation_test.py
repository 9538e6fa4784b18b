"""Tests that cached programs are those that would be compiled."""

import hashlib
import os
import pathlib
import pickle
import subprocess
import sys
import tempfile
from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized
import jax
from jax.experimental.compilation_cache import compilation_cache
import jax.numpy as jnp
import numpy as np

from acme_cbo.infra import compilation
from acme_cbo.infra import provenance


class LoadOrCompileTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.cache = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
    # After the config is restored: jax keeps using the directory until then.
    self.addCleanup(compilation_cache.reset_cache)
    self._patch_config('jax_compilation_cache_dir', str(self.cache))
    self.addCleanup(provenance.digest.cache_clear)
    self.compiled = 0

  def _patch_config(self, name, value):
    self.addCleanup(jax.config.update, name, jax.config.values[name])
    jax.config.update(name, value)

  def _programs(self, settings='settings', slope=2.0):
    """Returns programs that compute a line and add it to an array."""

    def trace():
      x = jax.ShapeDtypeStruct((3,), jnp.float32)
      yield 'line', jax.jit(lambda x: {'y': slope * x}).trace(x)
      add = jax.jit(lambda x, y: x + y['y'], donate_argnums=0)
      yield 'add', add.trace(x, {'y': x})

    def count():
      self.compiled += 1

    # As in another process: within one, the sources do not change.
    provenance.digest.cache_clear()

    return compilation.load_or_compile(
      settings, jax.local_devices()[:1], trace, count
    )

  def _sets(self):
    return sorted((self.cache / 'sets').iterdir())

  def test_are_compiled_once(self):
    for _ in range(3):
      programs = self._programs()
      x = jnp.arange(3.0)
      line = programs['line'](x)
      np.testing.assert_array_equal(line['y'], [0.0, 2.0, 4.0])
      np.testing.assert_array_equal(programs['add'](x, line), [0.0, 3.0, 6.0])
      self.assertTrue(x.is_deleted())  # It was donated.
    self.assertEqual(self.compiled, 1)
    self.assertLen(self._sets(), 1)

  def test_a_program_that_jax_has_cached_too(self):
    # A program loaded from jax's cache is incomplete when serialized again.
    self._patch_config('jax_persistent_cache_min_compile_time_secs', 0.0)
    compilation_cache.reset_cache()
    x = jnp.arange(3.0)
    for settings in ('a', 'b', 'b'):
      jax.clear_caches()
      np.testing.assert_array_equal(
        self._programs(settings)['line'](x)['y'], [0.0, 2.0, 4.0]
      )

  def test_linear_algebra_in_a_process_that_lowers_nothing(self):
    # jax loads LAPACK when it lowers a call of it.
    code = """
import sys
import jax, numpy as np
from acme_cbo.infra import compilation
jax.config.update('jax_compilation_cache_dir', sys.argv[1])
root = jax.jit(lambda x: jax.numpy.linalg.cholesky(x))
def trace():
  assert sys.argv[2] == 'first'
  yield 'root', root.trace(np.eye(2, dtype=np.float32))
programs = compilation.load_or_compile(
  '', jax.local_devices()[:1], trace, lambda: None)
print(np.asarray(programs['root'](4 * np.eye(2, dtype=np.float32))).tolist())
"""
    for start in ('first', 'second'):
      process = subprocess.run(
        [sys.executable, '-c', code, str(self.cache), start],
        capture_output=True,
        text=True,
        check=False,
      )
      self.assertEqual(process.stdout, '[[2.0, 0.0], [0.0, 2.0]]\n', process)

  def test_take_no_other_shapes(self):
    self._programs()
    with self.assertRaisesRegex(TypeError, 'float32'):
      self._programs()['line'](jnp.zeros(4))

  @parameterized.parameters(
    'settings', 'source', 'installed', 'jax', 'flags', 'machine', 'cores'
  )
  def test_compiles_again_if_anything_differs(self, what):
    self._programs()
    settings = 'settings'
    if what == 'settings':
      settings = 'others'
    elif what == 'source':
      package = self.cache / 'package'
      package.mkdir()
      (package / 'module.py').write_text('x = 1')
      self.enterContext(mock.patch.object(provenance, 'PACKAGE', package))
      self._programs()
      self.assertEqual(self.compiled, 2)
      (package / 'module.py').write_text('x = 2')
    elif what == 'installed':
      (self.cache / 'jax-1.dist-info').mkdir()
      path = [*sys.path, str(self.cache)]
      self.enterContext(mock.patch.object(sys, 'path', path))
    elif what == 'jax':
      name = 'jax_disable_most_optimizations'
      self._patch_config(name, not jax.config.values[name])
    elif what == 'flags':
      self.enterContext(mock.patch.dict(os.environ, XLA_FLAGS='--other'))
    elif what == 'cores':
      self.enterContext(
        mock.patch.object(os, 'sched_getaffinity', lambda _: set(range(9)))
      )
    else:
      topology = mock.Mock(platform_version='1')
      topology.fingerprint.return_value = 7
      self.enterContext(
        mock.patch.object(
          compilation.xla_client, 'get_topology_for_devices', lambda _: topology
        )
      )
    before = self.compiled
    programs = self._programs(settings, slope=3.0)
    self.assertEqual(self.compiled, before + 1)
    np.testing.assert_array_equal(programs['line'](jnp.ones(3))['y'], [3.0] * 3)

  @parameterized.parameters(0, 31, 40, -1)
  def test_compiles_again_if_the_file_is_damaged(self, end):
    self._programs()
    (path,) = self._sets()
    path.write_bytes(path.read_bytes()[:end])
    with self.assertLogs(level='WARNING') as logs:
      programs = self._programs()
    self.assertIn(
      f'{path} cannot be used; compiling again: it is damaged', logs.output[0]
    )
    np.testing.assert_array_equal(programs['line'](jnp.ones(3))['y'], [2.0] * 3)
    self._programs()
    self.assertEqual(self.compiled, 2)

  def test_compiles_again_if_the_file_cannot_be_loaded(self):
    self._programs()
    (path,) = self._sets()
    other = b'no program'
    path.write_bytes(hashlib.sha256(other).digest() + other)
    with self.assertLogs(level='WARNING') as logs:
      self._programs()
    self.assertIn('cannot be used', logs.output[0])
    self.assertEqual(self.compiled, 2)

  def test_returns_programs_that_cannot_be_saved(self):
    (self.cache / 'sets').write_text('a file where a folder should be')
    with self.assertLogs(level='WARNING') as logs:
      programs = self._programs()
    self.assertIn('cannot be saved', logs.output[-1])
    np.testing.assert_array_equal(programs['line'](jnp.ones(3))['y'], [2.0] * 3)

  def test_loads_from_a_read_only_cache(self):
    self._programs()
    forbidden = PermissionError('no')
    with mock.patch.object(compilation.os, 'utime', side_effect=forbidden):
      self._programs()
    self.assertEqual(self.compiled, 1)

  def test_leaves_other_files_alone(self):
    self.enterContext(mock.patch.object(compilation, '_MAX_SETS', 1))
    own = self.cache / 'sets' / 'thesis.txt'
    own.parent.mkdir(mode=0o700)
    own.write_text('mine')
    os.utime(own, (0, 0))
    (own.parent / f'{0:064}').mkdir()
    with self.assertNoLogs(level='WARNING'):
      self._programs('a')
      self._programs('b')
    self.assertLen(self._sets(), 3)
    self.assertEqual(own.read_text(), 'mine')

  def test_is_for_this_user_alone(self):
    self.addCleanup(os.umask, os.umask(0))
    self._programs()
    (path,) = self._sets()
    self.assertEqual(path.parent.stat().st_mode & 0o777, 0o700)
    self.assertEqual(path.stat().st_mode & 0o777, 0o600)

  def _plant(self, path, kind):
    """Replaces a set by one that would create a file when it is loaded."""
    proof = self.cache / 'proof'

    class Exploit:
      def __reduce__(self):
        return pathlib.Path.touch, (proof,)

    content = pickle.dumps(Exploit())
    content = hashlib.sha256(content).digest() + content
    path.unlink()
    if kind == 'link':
      (self.cache / 'target').write_bytes(content)
      path.symlink_to(self.cache / 'target')
    elif kind == 'pipe':
      os.mkfifo(path)
    elif kind == 'device':
      path.symlink_to('/dev/zero')
    else:
      path.write_bytes(content)
      path.chmod(0o666 if kind == 'file' else 0o600)
      path.parent.chmod(0o777 if kind == 'directory' else 0o700)
    return proof

  @parameterized.parameters(
    ('file', 'can be written to by others'),
    ('directory', 'sets can be written to by others; remove it, or run: chmod'),
    ('link', 'Too many levels of symbolic links'),
    ('device', 'Too many levels of symbolic links'),
    ('pipe', 'it is a pipe'),
  )
  def test_a_planted_file_is_not_run(self, kind, reason):
    self._programs()
    (path,) = self._sets()
    proof = self._plant(path, kind)
    with self.assertLogs(level='WARNING') as logs:
      programs = self._programs()
    self.assertIn('cannot be used; compiling again', logs.output[0])
    self.assertIn(reason, logs.output[0])
    self.assertFalse(proof.exists())
    np.testing.assert_array_equal(programs['line'](jnp.ones(3))['y'], [2.0] * 3)

  def test_the_planted_file_would_run(self):
    self._programs()
    (path,) = self._sets()
    proof = self._plant(path, 'none')
    with self.assertLogs(level='WARNING'):
      self._programs()
    self.assertTrue(proof.exists())

  def test_settings_are_compared_as_json(self):
    self._programs({'b': (1, 2), 'a': None})
    self._programs({'a': None, 'b': [1, 2]})
    self.assertEqual(self.compiled, 1)

  def test_removes_the_least_recently_used(self):
    self.enterContext(mock.patch.object(compilation, '_MAX_SETS', 2))
    for age, settings in enumerate('ab'):
      self._programs(settings)
      newest = max(self._sets(), key=lambda path: path.stat().st_mtime)
      os.utime(newest, (age, age))
    self._programs('a')  # Now 'b' is the least recently used.
    self._programs('c')
    self.assertEqual(self.compiled, 3)
    self.assertLen(self._sets(), 2)
    self._programs('a')
    self.assertEqual(self.compiled, 3)
    self._programs('b')
    self.assertEqual(self.compiled, 4)

  @parameterized.parameters(
    ('jax_compilation_cache_dir', None), ('jax_enable_compilation_cache', False)
  )
  def test_saves_nothing_without_a_cache(self, name, value):
    self._patch_config(name, value)
    for _ in range(2):
      self._programs()
    self.assertEqual(self.compiled, 2)
    self.assertEmpty(list(self.cache.glob('sets/*')))

  def test_an_exception_of_tracing_propagates_and_saves_nothing(self):
    def trace():
      yield 'fine', jax.jit(jnp.sin).trace(jnp.ones(3))
      raise ValueError('not to be traced')

    with self.assertRaisesRegex(ValueError, 'not to be traced'):
      compilation.load_or_compile(
        'settings', jax.local_devices()[:1], trace, lambda: None
      )
    self.assertEmpty(list(self.cache.glob('sets/*')))


if __name__ == '__main__':
  absltest.main()
