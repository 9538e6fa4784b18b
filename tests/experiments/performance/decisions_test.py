"""Tests of the benchmark of decisions, and of errors of the BoTorch process."""

import sys

from absl.testing import absltest
import jax.numpy as jnp
import numpy as np
import pytest

from acme_cbo.agents.grpo import agent
from acme_cbo.experiments.performance import decisions
from acme_cbo.infra import errors
from acme_cbo.scms import families
from tests.support import miniature

# Speaks the protocol of tests/peers/botorch_step.py, and responds with the
# number of rows and the best outcome.
_PEER = """
import json, sys
data = json.loads(input())
print(json.dumps('ready'), flush=True)
for line in sys.stdin:
  print(json.dumps([len(data['inputs']), max(data['outcomes'])]), flush=True)
"""


class PeerTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self._problem = families.FAMILIES['sparse_5'](0).scm.problem
    rows = np.random.default_rng(0).normal(size=(7, 5))
    self._rows = rows
    target = rows[:, np.argmax(self._problem.target)]
    self._best = float((float(self._problem.goal) * target).max())

  def test_responds_to_every_step(self):
    command = [sys.executable, '-c', _PEER]
    with decisions._peer(command, self._problem, self._rows) as step:
      for _ in range(2):
        self.assertEqual(step(), [7, self._best])

  def test_a_process_that_exits_is_reported(self):
    command = [sys.executable, '-c', 'import no_such_module']
    with (
      self.assertRaisesRegex(errors.UsageError, "No module named 'no_such_mod"),
      decisions._peer(command, self._problem, self._rows),
    ):
      self.fail('it started')

  def test_a_command_without_botorch_is_reported(self):
    for command, sentence in (
      (['/nonexistent/python'], 'python cannot be started: No such file'),
      (['echo', 'nonsense'], "echo is not a Python with BoTorch.*'nonsense'"),
    ):
      with (
        self.assertRaisesRegex(errors.UsageError, sentence),
        decisions._peer(command, self._problem, self._rows),
      ):
        self.fail('it started')


@pytest.mark.slow
@pytest.mark.timeout(300)
class MeasureTest(absltest.TestCase):
  def test_ratios_follow_from_the_milliseconds(self):
    parts = miniature.parts(network=miniature.network())
    params = agent.initial_state(0, parts).params
    command = [sys.executable, '-c', _PEER]
    results = decisions.measure(parts.network, params, 2, command)
    median = {n: t['median'] for n, t in results['decision_ms'].items()}
    self.assertCountEqual(
      median,
      [
        'grpo',
        'grpo_from_scratch',
        'cbo',
        'gp_bo',
        'botorch',
        'grpo_of_1000_at_once',
      ],
    )
    ratios = results['ratios']
    self.assertEqual(
      ratios['decision_over_cbo'], median['cbo'] / median['grpo']
    )
    self.assertEqual(
      ratios['from_scratch_over_botorch'],
      median['botorch'] / median['grpo_from_scratch'],
    )
    self.assertEqual(jnp.zeros(()).dtype, jnp.float32)


if __name__ == '__main__':
  absltest.main()
