"""Tests of `SignalGuard` with real processes."""

import pathlib
import signal
import subprocess
import sys
import textwrap
import time

from absl.testing import absltest
from absl.testing import parameterized
import pytest

_ROOT = pathlib.Path(__file__).resolve().parents[2]


def _start(body, grace):
  program = f"""
    import sys, time
    from acme_cbo.infra import signals

    def abort(signal):
      print('aborted by', signal, flush=True)

    with signals.SignalGuard(abort, grace_seconds={grace}) as get_signal:
      print('ready', flush=True)
      {body}
    print('ended by itself', flush=True)
  """
  process = subprocess.Popen(
    [sys.executable, '-c', textwrap.dedent(program)],
    cwd=_ROOT,
    stdout=subprocess.PIPE,
    text=True,
  )
  assert process.stdout
  process.stdout.readline()
  return process


@pytest.mark.fault
class SignalGuardTest(parameterized.TestCase):
  @parameterized.parameters(signal.SIGINT, signal.SIGTERM)
  def test_a_run_that_asks_ends_by_itself(self, number):
    body = 'while not get_signal(): time.sleep(0.01)'
    with _start(body, 60) as process:
      process.send_signal(number)
      stdout, _ = process.communicate(timeout=30)
    self.assertEqual((process.returncode, stdout), (0, 'ended by itself\n'))

  @parameterized.parameters((signal.SIGINT, 130), (signal.SIGTERM, 143))
  def test_one_that_does_not_is_ended_after_the_grace(self, number, code):
    with _start('time.sleep(60)', 0.5) as process:
      begin = time.monotonic()
      process.send_signal(number)
      stdout, _ = process.communicate(timeout=30)
      self.assertBetween(time.monotonic() - begin, 0.4, 5)
    self.assertEqual(process.returncode, code)
    self.assertEqual(stdout, f'aborted by {int(number)}\n')

  def test_a_second_signal_ends_it_at_once(self):
    with _start('time.sleep(60)', 60) as process:
      process.send_signal(signal.SIGTERM)
      time.sleep(0.3)
      begin = time.monotonic()
      process.send_signal(signal.SIGINT)
      stdout, _ = process.communicate(timeout=30)
      self.assertLess(time.monotonic() - begin, 5)
    self.assertEqual(process.returncode, 143)
    self.assertEqual(stdout, 'aborted by 15\n')

  def test_no_thread_is_left(self):
    with _start('time.sleep(0.1)', 60) as process:
      stdout, _ = process.communicate(timeout=30)
    self.assertEqual((process.returncode, stdout), (0, 'ended by itself\n'))


if __name__ == '__main__':
  absltest.main()
