"""Tests of packing arrays as bytes, and of remote actors."""

import types
from typing import Any

from absl.testing import absltest
import jax
import jax.numpy as jnp
import numpy as np

from acme_cbo.agents.grpo import agent
from acme_cbo.runtimes import experience_queue
from acme_cbo.runtimes import remote

_TREE = {
  'floats': jnp.array([[1.5, -0.0, jnp.nan]]),
  'rest': (jnp.uint32(2**32 - 1), jnp.array([True, False]), jnp.zeros((0, 4))),
}


class PackingTest(absltest.TestCase):
  def test_restores_every_bit(self):
    restored = remote.unpack(remote.pack(_TREE), _TREE)
    for one, other in zip(
      jax.tree.leaves(restored), jax.tree.leaves(_TREE), strict=True
    ):
      self.assertEqual((one.shape, one.dtype), (other.shape, other.dtype))
      self.assertEqual(one.tobytes(), np.asarray(other).tobytes())

  def test_shapes_are_enough(self):
    like = jax.eval_shape(lambda: _TREE)
    restored = remote.unpack(remote.pack(_TREE), like)
    self.assertEqual(restored['rest'][0], 2**32 - 1)

  def test_other_bytes_are_refused(self):
    content = remote.pack(_TREE)
    for wrong in (b'', content[:-1], content + b'0'):
      with self.assertRaisesRegex(ValueError, 'but the arrays have 18'):
        remote.unpack(wrong, _TREE)


class MakeCollectTest(absltest.TestCase):
  def test_sends_the_parameters_of_each_work_item(self):
    requests = []

    class Group:
      def request(self, number, update, payload, reply_bytes):
        requests.append((number, update, payload, reply_bytes))
        reply = experience.tasks, experience.data, experience.next_key
        return {'seed': experience.seed, 'payload': remote.pack(reply)}

    key: Any = np.array([3, 4], np.uint32)
    tasks: Any = np.arange(3.0)
    data: Any = np.ones(2), np.array([True])
    state: Any = types.SimpleNamespace(key=key)
    experience = agent.Experience(tasks, data, '[7, 8]', key)
    programs = {
      'fill': types.SimpleNamespace(out_info=(experience.tasks, None)),
      'act': types.SimpleNamespace(out_info=(experience.data, None)),
    }
    group: Any = Group()
    collect = remote.make_collect(group, 2, programs, state)
    for update in (5, 6):
      params = {'w': np.full(2, float(update))}
      item = experience_queue.WorkItem(update, key + update, update - 1, params)
      jax.tree.map(np.testing.assert_array_equal, collect(item), experience)
      process_id, number, payload, reply_bytes = requests.pop()
      # Three float64, two float64 and a bool, and two uint32.
      self.assertEqual((process_id, number, reply_bytes), (2, update, 49))
      sent, sent_key = remote.unpack(payload, (params, key))
      np.testing.assert_array_equal(sent['w'], params['w'])
      np.testing.assert_array_equal(sent_key, key + update)


if __name__ == '__main__':
  absltest.main()
