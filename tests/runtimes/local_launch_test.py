"""Tests of launching several local processes."""

import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time

from absl.testing import absltest
from absl.testing import parameterized
import pytest

_ROOT = pathlib.Path(__file__).resolve().parents[2]
# Program that launches them, with a short grace period.
_RUN = """
import sys
from acme_cbo.runtimes import local_launch
local_launch._GRACE_SECONDS = 1.0
command = [sys.executable, sys.argv[1]]
sys.exit(local_launch.run(command, sys.argv[2:-1], int(sys.argv[-1])))
"""
# Program of each process: --actions=WORD,... gives one action per process, and
# a file in --pids records its pid.
_PROGRAM = """
import os, pathlib, sys, time
flags = dict(x.removeprefix('--').split('=') for x in sys.argv[1:])
number, size = int(flags['process_id']), int(flags['num_processes'])
action = flags['actions'].split(',')[number]
print('of', size, 'at', flags['coordinator'], action, flush=True)
print('cores', len(os.sched_getaffinity(0)), flush=True)
print('secret', os.environ['ACME_CBO_SECRET'], flush=True)
pathlib.Path(flags['pids'], str(os.getpid())).touch()
if action == 'lasts':
  time.sleep(60)
if action == 'dies':
  os.kill(os.getpid(), 9)
if action == 'fails':
  sys.exit(3)
print('done\\nwithout a last newline', end='')
"""


class LocalLaunchTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    root = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
    self.program, self.pids = root / 'program.py', root / 'pids'
    self.program.write_text(_PROGRAM)
    self.pids.mkdir()

  def _start(self, *actions):
    return subprocess.Popen(
      [
        *(sys.executable, '-c', _RUN, str(self.program)),
        *(f'--actions={",".join(actions)}', f'--pids={self.pids}'),
        str(len(actions)),
      ],
      cwd=_ROOT,
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
    )

  def _finish(self, process):
    output, _ = process.communicate(timeout=30)
    return process.returncode, output

  def _wait_for(self, number):
    while len(list(self.pids.iterdir())) < number:
      time.sleep(0.02)

  def _assert_none_left(self):
    deadline = time.monotonic() + 10
    for path in self.pids.iterdir():
      while pathlib.Path('/proc', path.name).exists():
        self.assertLess(time.monotonic(), deadline, path.name)
        time.sleep(0.02)

  def test_prefixes_lines_with_their_process(self):
    code, output = self._finish(self._start('ends', 'ends', 'ends'))
    self.assertEqual(code, 0)
    lines = output.splitlines()
    self.assertLen(lines, 15)
    addresses, secrets = set(), set()
    for number in range(3):
      prefix = f'process {number} | '
      first, *rest = [
        line.removeprefix(prefix) for line in lines if line.startswith(prefix)
      ]
      self.assertRegex(first, r'^of 3 at 127.0.0.1:\d+ ends$')
      addresses.add(first)
      self.assertRegex(rest[1], '^secret [0-9a-f]{64}$')
      secrets.add(rest[1])
      self.assertEqual(rest[2:], ['done', 'without a last newline'])
      cores = len(os.sched_getaffinity(0))
      self.assertEqual(rest[0], f'cores {cores // 3 or cores}')
    self.assertLen(addresses, 1)
    self.assertLen(secrets, 1)

  def test_every_launch_has_a_secret_of_its_own(self):
    outputs = [self._finish(self._start('ends'))[1] for _ in range(2)]
    secrets = [re.findall('secret (.*)', x) for x in outputs]
    self.assertEqual([*map(len, secrets)], [1, 1])
    self.assertNotEqual(*secrets)

  @parameterized.parameters(
    (('fails', 'ends'), 3),
    (('ends', 'fails'), 3),
    (('lasts', 'fails', 'lasts'), 128 + signal.SIGKILL),
    (('ends', 'dies'), 128 + signal.SIGKILL),
    (('ends', 'lasts'), 128 + signal.SIGKILL),
  )
  def test_a_process_that_ends_ends_the_others(self, actions, expected):
    code, _ = self._finish(self._start(*actions))
    self.assertEqual(code, expected)
    self._assert_none_left()

  @parameterized.parameters(signal.SIGINT, signal.SIGTERM)
  def test_a_signal_is_forwarded_to_process_0(self, number):
    process = self._start('lasts', 'lasts')
    self._wait_for(2)
    process.send_signal(number)
    code, output = self._finish(process)
    if number == signal.SIGINT:  # As Python has it.
      self.assertRegex(output, 'process 0 | KeyboardInterrupt')
    self.assertEqual(code, 128 + number)
    self.assertFalse(re.search('process 1 .*KeyboardInterrupt', output))
    self._assert_none_left()

  @pytest.mark.fault
  def test_no_process_is_left_if_the_launcher_is_killed(self):
    process = self._start('lasts', 'lasts', 'lasts')
    self._wait_for(3)
    process.kill()
    process.communicate()
    self._assert_none_left()


if __name__ == '__main__':
  absltest.main()
