"""Tests that acknowledged checkpoints survive real kills and a full disk."""

import pathlib
import subprocess
import sys
import tempfile
import textwrap
import time

from absl.testing import absltest
import jax
import numpy as np
import pytest

from acme_cbo.training import checkpoints
from tests.training import toy

_ROOT = pathlib.Path(__file__).resolve().parents[2]
_NUM_KILLS = 20


def _start(program, directory):
  return subprocess.Popen(
    [sys.executable, '-c', textwrap.dedent(program), str(directory)],
    cwd=_ROOT,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


@pytest.mark.fault
class FaultsTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    root = self.enterContext(tempfile.TemporaryDirectory())
    self.directory = pathlib.Path(root) / 'checkpoints'

  def _restore(self):
    """Returns the step of the latest checkpoint and checks its contents."""
    with checkpoints.Checkpointer(self.directory) as checkpointer:
      state, metadata = checkpointer.restore(toy.init())
    step = int(state.step)
    self.assertEqual(metadata, {'n': step})
    for a, b in zip(
      jax.tree.leaves(state.params),
      jax.tree.leaves(toy.init(step).params),
      strict=True,
    ):
      np.testing.assert_array_equal(a, b)
    return step

  @pytest.mark.slow
  @pytest.mark.timeout(600)
  def test_no_kill_loses_what_was_acknowledged(self):
    rng = np.random.default_rng(0)
    program = """
      import sys
      from acme_cbo.training import checkpoints
      from tests.training import toy

      with checkpoints.Checkpointer(sys.argv[1], 3) as checkpointer:
        step = checkpointer.latest_step() or 0
        while True:
          step += 1
          checkpointer.save(step, toy.init(step), {'n': step})
          print(step, flush=True)
    """
    acknowledged = 0
    for kill in range(_NUM_KILLS):
      with _start(program, self.directory) as process:
        assert process.stdout
        process.stdout.readline()  # The loop has started.
        time.sleep(rng.uniform(0, 0.5))
        process.kill()
        stdout, _ = process.communicate()
      steps = [int(x) for x in stdout.split()]
      acknowledged = max([acknowledged, *steps])
      with self.subTest(kill):
        self.assertGreaterEqual(self._restore(), acknowledged)
    self.assertGreater(acknowledged, 2 * _NUM_KILLS)

  def test_a_full_disk_raises_at_once_and_leaves_what_was_there(self):
    # A limit on file sizes makes the kernel refuse a write in the same call, as
    # a full disk does.
    program = """
      import resource, signal, sys
      from acme_cbo.training import checkpoints
      from tests.training import toy

      signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
      with checkpoints.Checkpointer(sys.argv[1], 3) as checkpointer:
        checkpointer.save(1, toy.init(1), {'n': 1})
        resource.setrlimit(resource.RLIMIT_FSIZE, (64, 64))
        try:
          checkpointer.save(2, toy.init(2), {'n': 2})
        except Exception as error:
          print('raised', type(error).__name__)
    """
    with _start(program, self.directory) as process:
      stdout, stderr = process.communicate(timeout=60)
    self.assertStartsWith(stdout, 'raised ', stderr)
    self.assertEqual(self._restore(), 1)


if __name__ == '__main__':
  absltest.main()
