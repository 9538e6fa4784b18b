"""Tests of updates over several devices: they are those of one."""

import json
import os
from typing import Any

from absl.testing import absltest
import pytest

from tests.support import processes


class OverDevicesTest(absltest.TestCase):
  """In a process of its own, which is told how many devices it has."""

  found: dict[str, Any]

  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    env = {**os.environ, 'JAX_NUM_CPU_DEVICES': '4'}
    code, said = processes.finish('tests/runtimes/over_devices.py', env=env)
    assert code == 0, said
    cls.found = json.loads(said.splitlines()[-1])

  def test_is_the_update_of_one_device_but_for_rounding(self):
    self.assertEqual(self.found['devices'], 4)
    self.assertLess(self.found['metrics'], 1e-5)
    self.assertLess(self.found['params'], 1e-5)
    self.assertGreater(self.found['metrics'], 0)

  def test_every_device_has_the_same_state(self):
    self.assertEqual(self.found['between devices'], 0)

  def test_threads_on_devices_of_their_own_are_in_lockstep(self):
    self.assertEqual(self.found['threads'], 0)

  @pytest.mark.fault
  def test_what_is_not_finite_is_named_in_the_order_of_the_tasks(self):
    for name in ('outcome', 'gradient'):
      self.assertStartsWith(
        self.found[name],
        f'update 1: {name} is not finite on SCM 11 of 16 (on 1 in all)',
      )

  def test_tasks_that_cannot_be_shared_out_are_refused(self):
    self.assertIn(
      '4 devices share each part of a minibatch, which has 2 SCMs',
      self.found['refused'],
    )


if __name__ == '__main__':
  absltest.main()
