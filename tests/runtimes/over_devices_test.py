"""Tests that updates on several devices equal those on one."""

import json
import os
from typing import Any

from absl.testing import absltest
import pytest

from tests.support import processes


# Compiling on four devices takes most of a minute on an idle core.
@pytest.mark.timeout(300)
class OverDevicesTest(absltest.TestCase):
  """Runs `over_devices.py` in a process with four devices."""

  results: dict[str, Any]

  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    env = {**os.environ, 'JAX_NUM_CPU_DEVICES': '4'}
    code, output = processes.finish('tests/runtimes/over_devices.py', env=env)
    assert code == 0, output
    cls.results = json.loads(output.splitlines()[-1])

  def test_is_the_update_of_one_device_but_for_rounding(self):
    self.assertEqual(self.results['devices'], 4)
    self.assertLess(self.results['metrics'], 1e-5)
    self.assertLess(self.results['params'], 1e-5)
    self.assertGreater(self.results['metrics'], 0)

  def test_every_device_has_the_same_state(self):
    self.assertEqual(self.results['between devices'], 0)

  def test_updates_of_several_sizes_have_the_same_programs(self):
    self.assertTrue(self.results['sizes'])

  def test_threads_on_devices_of_their_own_are_in_lockstep(self):
    self.assertEqual(self.results['threads'], 0)

  @pytest.mark.fault
  def test_what_is_not_finite_is_named_in_the_order_of_the_tasks(self):
    for name in ('outcome', 'gradient'):
      self.assertStartsWith(
        self.results[name],
        f'update 1: {name} is not finite on SCM 11 of 16 (on 1 in all)',
      )

  def test_tasks_that_cannot_be_divided_are_refused(self):
    self.assertIn(
      '4 devices share each part of a minibatch, which has 2 SCMs',
      self.results['refused'],
    )


if __name__ == '__main__':
  absltest.main()
