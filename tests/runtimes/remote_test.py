"""Tests of arrays that go from process to process as they are in memory."""

from absl.testing import absltest
import jax
import jax.numpy as jnp
import numpy as np

from acme_cbo.runtimes import remote

_TREE = {
  'floats': jnp.array([[1.5, -0.0, jnp.nan]]),
  'rest': (jnp.uint32(2**32 - 1), jnp.array([True, False]), jnp.zeros((0, 4))),
}


class PackingTest(absltest.TestCase):
  def test_brings_back_every_bit(self):
    found = remote.unpacked(remote.packed(_TREE), _TREE)
    for one, other in zip(
      jax.tree.leaves(found), jax.tree.leaves(_TREE), strict=True
    ):
      self.assertEqual((one.shape, one.dtype), (other.shape, other.dtype))
      self.assertEqual(one.tobytes(), np.asarray(other).tobytes())

  def test_shapes_are_enough(self):
    like = jax.eval_shape(lambda: _TREE)
    found = remote.unpacked(remote.packed(_TREE), like)
    self.assertEqual(found['rest'][0], 2**32 - 1)

  def test_other_bytes_are_refused(self):
    content = remote.packed(_TREE)
    for wrong in (b'', content[:-1], content + b'0'):
      with self.assertRaisesRegex(
        ValueError, 'where arrays of 18 are expected'
      ):
        remote.unpacked(wrong, _TREE)


if __name__ == '__main__':
  absltest.main()
