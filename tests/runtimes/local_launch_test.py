"""Tests of processes that are started and ended together, with real ones."""

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
# What runs them, with less patience than usual.
_RUN = """
import sys
from acme_cbo.runtimes import local_launch
local_launch._GRACE_SECONDS = 1.0
command = [sys.executable, sys.argv[1]]
sys.exit(local_launch.run(command, sys.argv[2:-1], int(sys.argv[-1])))
"""
# What they do: --what=WORD of each in turn, and a file of who is there.
_PROGRAM = """
import os, pathlib, sys, time
flags = dict(x.removeprefix('--').split('=') for x in sys.argv[1:])
number, size = int(flags['process_id']), int(flags['num_processes'])
what = flags['what'].split(',')[number]
print('of', size, 'at', flags['coordinator'], what, flush=True)
print('cores', len(os.sched_getaffinity(0)), flush=True)
pathlib.Path(flags['there'], str(os.getpid())).touch()
if what == 'lasts':
  time.sleep(60)
if what == 'dies':
  os.kill(os.getpid(), 9)
if what == 'fails':
  sys.exit(3)
print('done\\nwithout a last newline', end='')
"""


class LocalLaunchTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    root = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
    self.program, self.there = root / 'program.py', root / 'there'
    self.program.write_text(_PROGRAM)
    self.there.mkdir()

  def _start(self, *what):
    return subprocess.Popen(
      [
        *(sys.executable, '-c', _RUN, str(self.program)),
        *(f'--what={",".join(what)}', f'--there={self.there}'),
        str(len(what)),
      ],
      cwd=_ROOT,
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
    )

  def _finish(self, process):
    said, _ = process.communicate(timeout=30)
    return process.returncode, said

  def _wait_for(self, number):
    while len(list(self.there.iterdir())) < number:
      time.sleep(0.02)

  def _assert_none_left(self):
    deadline = time.monotonic() + 10
    for path in self.there.iterdir():
      while pathlib.Path('/proc', path.name).exists():
        self.assertLess(time.monotonic(), deadline, path.name)
        time.sleep(0.02)

  def test_lines_have_the_name_of_their_process(self):
    code, said = self._finish(self._start('ends', 'ends', 'ends'))
    self.assertEqual(code, 0)
    lines = said.splitlines()
    self.assertLen(lines, 12)
    addresses = set()
    for number in range(3):
      prefix = f'process {number} | '
      first, *rest = [
        line.removeprefix(prefix) for line in lines if line.startswith(prefix)
      ]
      self.assertRegex(first, r'^of 3 at 127.0.0.1:\d+ ends$')
      addresses.add(first)
      self.assertEqual(rest[1:], ['done', 'without a last newline'])
      cores = len(os.sched_getaffinity(0))
      self.assertEqual(rest[0], f'cores {cores // 3 or cores}')
    self.assertLen(addresses, 1)

  @parameterized.parameters(
    (('fails', 'ends'), 3),
    (('ends', 'fails'), 3),
    (('lasts', 'fails', 'lasts'), 128 + signal.SIGKILL),
    (('ends', 'dies'), 128 + signal.SIGKILL),
    (('ends', 'lasts'), 128 + signal.SIGKILL),
  )
  def test_one_that_ends_ends_the_others(self, what, expected):
    code, _ = self._finish(self._start(*what))
    self.assertEqual(code, expected)
    self._assert_none_left()

  @parameterized.parameters(signal.SIGINT, signal.SIGTERM)
  def test_a_signal_is_one_of_process_0(self, number):
    process = self._start('lasts', 'lasts')
    self._wait_for(2)
    process.send_signal(number)
    code, said = self._finish(process)
    if number == signal.SIGINT:  # As Python has it.
      self.assertRegex(said, 'process 0 | KeyboardInterrupt')
    self.assertEqual(code, 128 + number)
    self.assertFalse(re.search('process 1 .*KeyboardInterrupt', said))
    self._assert_none_left()

  @pytest.mark.fault
  def test_none_is_left_where_it_is_killed(self):
    process = self._start('lasts', 'lasts', 'lasts')
    self._wait_for(3)
    process.kill()
    process.communicate()
    self._assert_none_left()


if __name__ == '__main__':
  absltest.main()
