"""Tests of processes that train as one: who is told what, who is lost."""

import os
import signal
import socket
import subprocess
import sys
import time
from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized
import pytest

from acme_cbo.infra import errors
from acme_cbo.runtimes import process_group

_MEMBER = os.path.join(os.path.dirname(__file__), 'member.py')
_SIZE = 3


def _start(number, size, port, what):
  return subprocess.Popen(
    [sys.executable, _MEMBER, str(number), str(size), str(port), what],
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )


def _finish(members):
  """[(exit code, what was said)], once all have ended."""
  ended = []
  for member in members:
    said, _ = member.communicate(timeout=40)
    ended.append((member.returncode, said))
  return ended


def _run(what, size=_SIZE):
  """How processes ended among which something happened, and in which time."""
  port = process_group.free_port()
  # Process 0 may be the last to come.
  members = [_start(i, size, port, what) for i in reversed(range(size))][::-1]
  begin = time.monotonic()
  if 'stops' in what:
    stopped = members[int(what[0])]
    ended = _finish([x for x in members if x is not stopped])
    stopped.kill()
    stopped.communicate()
    return ended, time.monotonic() - begin
  return _finish(members), time.monotonic() - begin


class PlaceTest(parameterized.TestCase):
  def test_one_process_says_nothing(self):
    self.assertIsNone(process_group.spec_from_flags(None, None, None))

  @parameterized.parameters(
    ('10.0.0.1:8476', '10.0.0.1'), ('[::1]:8476', '::1'), ('a.b:8476', 'a.b')
  )
  def test_as_flags_say(self, coordinator, host):
    self.assertEqual(
      process_group.spec_from_flags(coordinator, 4, 3),
      process_group.ProcessSpec(host, 8476, 4, 3),
    )

  @parameterized.parameters(
    ('host:1', None, 0, 'all three'),
    ('host:1', 2, None, 'all three'),
    (None, 2, 0, 'all three'),
    ('host', 2, 0, '--coordinator=host is no address'),
    ('host:', 2, 0, 'is no address'),
    ('host:70000', 2, 0, 'is no address'),
    (':8476', 2, 0, 'is no address'),
    ('host:1', 2, 2, '--process_id is 2 and --num_processes 2'),
    ('host:1', 0, 0, '--num_processes 0'),
    ('host:1', 2, -1, '--process_id is -1'),
    ('slurm', 2, 0, 'leave them out'),
    ('slurm', None, None, 'not started by srun'),
  )
  def test_is_refused(self, coordinator, number, process_id, sentence):
    with (
      mock.patch.dict(os.environ),
      self.assertRaisesRegex(errors.UsageError, sentence),
    ):
      os.environ.pop('SLURM_PROCID', None)
      process_group.spec_from_flags(coordinator, number, process_id)

  def test_of_slurm(self):
    of_srun = {
      'SLURM_JOB_ID': '123456',
      'SLURM_NTASKS': '8',
      'SLURM_PROCID': '5',
      'SLURM_JOB_NODELIST': 'gpu[003-004,7],login1',
      'SLURM_JOB_NUM_NODES': '4',
    }
    with mock.patch.dict(os.environ, of_srun):
      self.assertEqual(
        process_group.spec_from_flags('slurm', None, None),
        process_group.ProcessSpec('gpu003', 23456, 8, 5),
      )


@pytest.mark.fault
class GroupTest(parameterized.TestCase):
  tries = 1

  def _assert_lost(self, ended, named, how):
    """All that were not the lost one ended with a line that names it."""
    for code, said in ended:
      if code != -signal.SIGKILL:
        self.assertEqual(code, 1, said)
        self.assertRegex(
          said, rf'error: process {named} \(\S+, pid \d+\) {how}'
        )

  def test_all_do_what_process_0_says_until_its_end(self):
    ended, _ = _run('- nothing')
    steps = ''.join(f"{{'step': {i}}}\n" for i in range(4)) + 'left\n'
    self.assertEqual(ended, [(0, ''), (0, steps), (0, steps)])

  @parameterized.parameters(
    ('1 dies', 1, 'has ended without a word'),
    ('2 dies', 2, 'has ended without a word'),
    ('0 dies', 0, 'has ended without a word'),
    ('1 resets', 1, 'has ended without a word'),
    ('1 stops', 1, r'was not heard of for \d s'),
    ('1 stops unread', 1, r'was not heard of for \d s'),
    ('0 stops', 0, r'was not heard of for \d s'),
    ('0 raises', 0, "has failed: KeyError: 'broken on purpose'"),
    ('0 hangs', 1, 'has ended without a word'),
  )
  def test_one_that_is_lost_ends_the_others_and_is_named(
    self, what, named, how
  ):
    for _ in range(self.tries):
      ended, seconds = _run(what)
      if what == '0 raises':
        self.assertIn("KeyError: 'broken on purpose'", ended[0][1])
        del ended[0]
      self._assert_lost(ended, named, how)
      self.assertLess(seconds, 20)
      if what == '0 hangs':
        self.assertRegex(ended[0][1], 'written: PeerError: process 1')

  def test_one_that_raises_ends_the_others(self):
    ended, _ = _run('2 raises')
    code, said = ended.pop()
    self.assertEqual(code, 1)
    self.assertIn("KeyError: 'broken on purpose'", said)
    self._assert_lost(ended, 2, "has failed: KeyError: 'broken on purpose'")

  @parameterized.parameters('0 is interrupted', '1 was told to end')
  def test_an_interruption_is_one_of_all(self, what):
    for code, said in _run(what)[0]:
      self.assertEqual(code, 128 + signal.SIGTERM, said)
      self.assertIn('interrupted: SIGTERM', said)

  def test_another_config_is_refused(self):
    ended, _ = _run('1 has another config')
    self.assertRegex(ended[1][1], 'another config than process 0: seed differ')
    self._assert_lost([ended[0], ended[2]], 1, 'has failed: UsageError')

  def test_another_program_is_refused(self):
    ended, _ = _run('1 is another program')
    self.assertRegex(ended[1][1], 'this process is another program than')
    self._assert_lost([ended[0], ended[2]], 1, 'has failed: UsageError')

  def test_one_that_does_not_come(self):
    port = process_group.free_port()
    ended = _finish([_start(i, 3, port, '-') for i in (0, 2)])
    for code, said in ended:
      self.assertEqual(code, 1)
      self.assertRegex(said, 'process 1 of 3 has not come to .* within 2 s')

  def test_process_0_does_not_come(self):
    ((code, said),) = _finish([_start(1, 2, process_group.free_port(), '-')])
    self.assertEqual(code, 1)
    self.assertRegex(said, 'process 0 cannot be reached at .* within 2 s')

  @parameterized.parameters((1, 3), (3, 3), (2, 4), (0, 3))
  def test_one_too_many_is_sent_away(self, number, size):
    port = process_group.free_port()
    right = [_start(0, 3, port, '-'), _start(1, 3, port, '-')]
    time.sleep(0.5)
    if number == 0:
      sentence = f'port {port} of this machine cannot be listened at'
    else:
      sentence = rf'waits for \[2\]; it cannot take in {number} of {size}'
    ((code, said),) = _finish([_start(number, size, port, '-')])
    self.assertEqual(code, 1)
    self.assertRegex(said, sentence)
    ended = _finish([*right, _start(2, 3, port, '-')])
    self.assertEqual([code for code, _ in ended], [0, 0, 0], ended)

  def test_whoever_else_is_at_the_door_is_passed_over(self):
    port = process_group.free_port()
    leader = _start(0, 2, port, '-')
    time.sleep(0.3)
    port_of = ('127.0.0.1', port)
    for sent in (
      b'',
      b'GET / HTTP/1.1\r\n\r\n',
      b'\xff\xfe\n',
      b'[1]\n',
      b'[' * 100_000 + b'\n',
      b'{"process": [], "of": 2, "name": "x"}\n',
      b'{"process": true, "of": 2, "name": "x"}\n',
    ):
      with socket.create_connection(port_of, 5) as stranger:
        stranger.sendall(sent)
    ended = _finish([leader, _start(1, 2, port, '-')])
    self.assertEqual([code for code, _ in ended], [0, 0], ended)


@pytest.mark.slow
class ManyTriesTest(GroupTest):
  tries = 30


if __name__ == '__main__':
  absltest.main()
