"""Programs that are kept are those that would be compiled."""

import hashlib
import os
import pathlib
import tempfile
from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized
import jax
from jax.experimental.compilation_cache import compilation_cache
import jax.numpy as jnp
import numpy as np

from acme_cbo.infra import provenance
from acme_cbo.runtimes import compilation


class ReadyTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.kept = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
    self._patch_config('jax_compilation_cache_dir', str(self.kept))
    self.compiled = 0

  def _patch_config(self, name, value):
    self.addCleanup(jax.config.update, name, jax.config.values[name])
    jax.config.update(name, value)

  def _ready(self, settings='settings', slope=2.0):
    """Programs of a line, and of its sum with what is given."""

    def trace():
      x = jax.ShapeDtypeStruct((3,), jnp.float32)
      yield 'line', jax.jit(lambda x: {'y': slope * x}).trace(x)
      add = jax.jit(lambda x, y: x + y['y'], donate_argnums=0)
      yield 'add', add.trace(x, {'y': x})

    def count():
      self.compiled += 1

    return compilation.load_or_compile(
      settings, jax.local_devices()[:1], trace, count
    )

  def _sets(self):
    return sorted((self.kept / 'sets').iterdir())

  def test_are_compiled_once(self):
    for _ in range(3):
      run = self._ready()
      x = jnp.arange(3.0)
      line = run['line'](x)
      np.testing.assert_array_equal(line['y'], [0.0, 2.0, 4.0])
      np.testing.assert_array_equal(run['add'](x, line), [0.0, 3.0, 6.0])
      self.assertTrue(x.is_deleted())  # It was donated.
    self.assertEqual(self.compiled, 1)
    self.assertLen(self._sets(), 1)

  def test_one_that_jax_has_kept_too(self):
    # What is loaded from jax's cache lacks parts when it is serialised again.
    self._patch_config('jax_persistent_cache_min_compile_time_secs', 0.0)
    compilation_cache.reset_cache()
    self.addCleanup(compilation_cache.reset_cache)
    x = jnp.arange(3.0)
    for settings in ('a', 'b', 'b'):
      jax.clear_caches()
      np.testing.assert_array_equal(
        self._ready(settings)['line'](x)['y'], [0.0, 2.0, 4.0]
      )

  def test_take_no_other_shapes(self):
    self._ready()
    with self.assertRaisesRegex(TypeError, 'float32'):
      self._ready()['line'](jnp.zeros(4))

  @parameterized.parameters(
    'settings', 'source', 'installed', 'jax', 'flags', 'machine', 'cores'
  )
  def test_are_compiled_anew_where_something_else_is(self, what):
    self._ready()
    settings = 'settings'
    if what == 'settings':
      settings = 'others'
    elif what == 'source':
      package = self.kept / 'package'
      package.mkdir()
      (package / 'module.py').write_text('x = 1')
      self.enterContext(mock.patch.object(provenance, 'PACKAGE', package))
      self._ready()
      self.assertEqual(self.compiled, 2)
      (package / 'module.py').write_text('x = 2')
    elif what == 'installed':
      found = mock.Mock(version='1')
      found.name = 'jax'
      self.enterContext(
        mock.patch('importlib.metadata.distributions', lambda: [found])
      )
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
    run = self._ready(settings, slope=3.0)
    self.assertEqual(self.compiled, before + 1)
    np.testing.assert_array_equal(run['line'](jnp.ones(3))['y'], [3.0] * 3)

  @parameterized.parameters(0, 31, 40, -1)
  def test_damaged_ones_are_compiled_anew(self, end):
    self._ready()
    (path,) = self._sets()
    path.write_bytes(path.read_bytes()[:end])
    with self.assertLogs(level='WARNING') as logs:
      run = self._ready()
    self.assertIn(
      f'{path} is not used, and compiled anew: it is damaged', logs.output[0]
    )
    np.testing.assert_array_equal(run['line'](jnp.ones(3))['y'], [2.0] * 3)
    self._ready()
    self.assertEqual(self.compiled, 2)

  def test_what_cannot_be_read_is_compiled_anew(self):
    self._ready()
    (path,) = self._sets()
    other = b'no program'
    path.write_bytes(hashlib.sha256(other).digest() + other)
    with self.assertLogs(level='WARNING') as logs:
      self._ready()
    self.assertIn('is not used', logs.output[0])
    self.assertEqual(self.compiled, 2)

  def test_what_cannot_be_kept_is_there_all_the_same(self):
    (self.kept / 'sets').write_text('a file where a folder should be')
    with self.assertLogs(level='WARNING') as logs:
      run = self._ready()
    self.assertIn('cannot be kept', logs.output[-1])
    np.testing.assert_array_equal(run['line'](jnp.ones(3))['y'], [2.0] * 3)

  def test_what_may_be_read_alone_is_used(self):
    self._ready()
    forbidden = PermissionError('no')
    with mock.patch.object(compilation.os, 'utime', side_effect=forbidden):
      self._ready()
    self.assertEqual(self.compiled, 1)

  def test_what_is_no_set_is_left_alone(self):
    (self.kept / 'sets' / 'of_somebody').mkdir(parents=True)
    with self.assertNoLogs(level='WARNING'):
      self._ready()
    self.assertLen(self._sets(), 2)

  def test_settings_are_those_that_a_file_would_hold(self):
    self._ready({'b': (1, 2), 'a': None})
    self._ready({'a': None, 'b': [1, 2]})
    self.assertEqual(self.compiled, 1)

  def test_those_not_used_for_longest_go(self):
    self.enterContext(mock.patch.object(compilation, '_MAX_SETS', 2))
    for age, settings in enumerate('ab'):
      self._ready(settings)
      newest = max(self._sets(), key=lambda path: path.stat().st_mtime)
      os.utime(newest, (age, age))
    self._ready('a')  # Now 'b' is the older one.
    self._ready('c')
    self.assertEqual(self.compiled, 3)
    self.assertLen(self._sets(), 2)
    self._ready('a')
    self.assertEqual(self.compiled, 3)
    self._ready('b')
    self.assertEqual(self.compiled, 4)

  @parameterized.parameters(
    ('jax_compilation_cache_dir', None), ('jax_enable_compilation_cache', False)
  )
  def test_are_not_kept_where_nothing_is(self, name, value):
    self._patch_config(name, value)
    for _ in range(2):
      self._ready()
    self.assertEqual(self.compiled, 2)
    self.assertEmpty(list(self.kept.glob('sets/*')))

  def test_what_is_raised_in_tracing_comes_out_and_nothing_is_kept(self):
    def trace():
      yield 'fine', jax.jit(jnp.sin).trace(jnp.ones(3))
      raise ValueError('not to be traced')

    with self.assertRaisesRegex(ValueError, 'not to be traced'):
      compilation.load_or_compile(
        'settings', jax.local_devices()[:1], trace, lambda: None
      )
    self.assertEmpty(list(self.kept.glob('sets/*')))


if __name__ == '__main__':
  absltest.main()
