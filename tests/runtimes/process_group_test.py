"""Tests of process groups: commands, and the detection of lost processes."""

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


def _start(process_id, size, port, event):
  return subprocess.Popen(
    [sys.executable, _MEMBER, str(process_id), str(size), str(port), event],
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )


def _finish(members):
  """Waits for all processes; returns [(exit code, output)]."""
  ended = []
  for member in members:
    output, _ = member.communicate(timeout=40)
    ended.append((member.returncode, output))
  return ended


def _run(event, size=_SIZE):
  """Returns how processes ended after an event, and in how many seconds."""
  port = process_group.free_port()
  # Process 0 may be the last to start.
  members = [_start(i, size, port, event) for i in reversed(range(size))][::-1]
  begin = time.monotonic()
  if 'stops' in event:
    stopped = members[int(event[0])]
    ended = _finish([x for x in members if x is not stopped])
    stopped.kill()
    stopped.communicate()
    return ended, time.monotonic() - begin
  return _finish(members), time.monotonic() - begin


def _wait_for_port(address):
  deadline = time.monotonic() + 10
  while True:
    try:
      socket.create_connection(address, 5).close()
      return
    except ConnectionRefusedError:
      if time.monotonic() > deadline:
        raise
      time.sleep(0.05)


class SpecFromFlagsTest(parameterized.TestCase):
  def test_is_none_without_flags(self):
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
    ('host', 2, 0, '--coordinator=host is not an address'),
    ('host:', 2, 0, 'is not an address'),
    ('host:70000', 2, 0, 'is not an address'),
    (':8476', 2, 0, 'is not an address'),
    ('host:1', 2, 2, '--process_id is 2 and --num_processes is 2'),
    ('host:1', 0, 0, '--num_processes is 0'),
    ('host:1', 2, -1, '--process_id is -1'),
    ('slurm', 2, 0, 'omit them'),
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
    variables = {
      'SLURM_JOB_ID': '123456',
      'SLURM_NTASKS': '8',
      'SLURM_PROCID': '5',
      'SLURM_JOB_NODELIST': 'gpu[003-004,7],login1',
      'SLURM_JOB_NUM_NODES': '4',
    }
    with mock.patch.dict(os.environ, variables):
      self.assertEqual(
        process_group.spec_from_flags('slurm', None, None),
        process_group.ProcessSpec('gpu003', 23456, 8, 5),
      )


@pytest.mark.fault
class GroupTest(parameterized.TestCase):
  tries = 1

  def _assert_lost(self, ended, named, how):
    """Checks that all other processes exited with a line that names it."""
    for code, output in ended:
      if code != -signal.SIGKILL:
        self.assertEqual(code, 1, output)
        self.assertRegex(
          output, rf'error: process {named} \(\S+, pid \d+\) {how}'
        )

  def test_workers_receive_the_commands_of_process_0(self):
    ended, _ = _run('- nothing')
    steps = ''.join(f"{{'step': {i}}}\n" for i in range(4)) + 'left\n'
    self.assertEqual(ended, [(0, ''), (0, steps), (0, steps)])

  @parameterized.parameters(
    ('1 dies', 1, 'disconnected unexpectedly'),
    ('2 dies', 2, 'disconnected unexpectedly'),
    ('0 dies', 0, 'disconnected unexpectedly'),
    ('1 resets', 1, 'disconnected unexpectedly'),
    ('1 stops', 1, r'sent nothing for \d s'),
    ('1 stops unread', 1, r'sent nothing for \d s'),
    ('0 stops', 0, r'sent nothing for \d s'),
    ('0 raises', 0, "failed: KeyError: 'broken on purpose'"),
    ('0 hangs', 1, 'disconnected unexpectedly'),
  )
  def test_a_lost_process_ends_the_others_and_is_named(self, event, named, how):
    for _ in range(self.tries):
      ended, seconds = _run(event)
      if event == '0 raises':
        self.assertIn("KeyError: 'broken on purpose'", ended[0][1])
        del ended[0]
      self._assert_lost(ended, named, how)
      self.assertLess(seconds, 20)
      if event == '0 hangs':
        self.assertRegex(ended[0][1], 'written: PeerError: process 1')

  def test_a_worker_that_raises_ends_the_others(self):
    ended, _ = _run('2 raises')
    code, output = ended.pop()
    self.assertEqual(code, 1)
    self.assertIn("KeyError: 'broken on purpose'", output)
    self._assert_lost(ended, 2, "failed: KeyError: 'broken on purpose'")

  @parameterized.parameters('0 is interrupted', '1 receives a signal')
  def test_a_signal_ends_all_processes(self, event):
    for code, output in _run(event)[0]:
      self.assertEqual(code, 128 + signal.SIGTERM, output)
      self.assertIn('interrupted: SIGTERM', output)

  def test_another_config_is_refused(self):
    ended, _ = _run('1 has another config')
    self.assertRegex(
      ended[1][1], 'different config than process 0: seed differ'
    )
    self._assert_lost([ended[0], ended[2]], 1, 'failed: UsageError')

  def test_another_program_is_refused(self):
    ended, _ = _run('1 is another program')
    self.assertRegex(ended[1][1], 'this process runs a different program than')
    self._assert_lost([ended[0], ended[2]], 1, 'failed: UsageError')

  def test_a_worker_that_does_not_connect(self):
    port = process_group.free_port()
    ended = _finish([_start(i, 3, port, '-') for i in (0, 2)])
    for code, output in ended:
      self.assertEqual(code, 1)
      self.assertRegex(
        output, 'process 1 of 3 did not connect to .* within 2 s'
      )

  def test_process_0_is_not_reachable(self):
    ((code, output),) = _finish([_start(1, 2, process_group.free_port(), '-')])
    self.assertEqual(code, 1)
    self.assertRegex(output, 'process 0 cannot be reached at .* within 2 s')

  @parameterized.parameters((1, 3), (3, 3), (2, 4), (0, 3))
  def test_an_extra_process_is_refused(self, process_id, size):
    port = process_group.free_port()
    members = [_start(0, 3, port, '-'), _start(1, 3, port, '-')]
    time.sleep(0.5)
    if process_id == 0:
      message = f'cannot listen on port {port} of this machine'
    else:
      message = rf'waits for \[2\]; it cannot accept {process_id} of {size}'
    ((code, output),) = _finish([_start(process_id, size, port, '-')])
    self.assertEqual(code, 1)
    self.assertRegex(output, message)
    ended = _finish([*members, _start(2, 3, port, '-')])
    self.assertEqual([code for code, _ in ended], [0, 0, 0], ended)

  def test_other_clients_are_ignored(self):
    port = process_group.free_port()
    coordinator = _start(0, 2, port, '-')
    address = ('127.0.0.1', port)
    _wait_for_port(address)
    for sent in (
      b'',
      b'GET / HTTP/1.1\r\n\r\n',
      b'\xff\xfe\n',
      b'[1]\n',
      b'[' * 100_000 + b'\n',
      b'{"process": [], "of": 2, "name": "x"}\n',
      b'{"process": true, "of": 2, "name": "x"}\n',
    ):
      with socket.create_connection(address, 5) as stranger:
        stranger.sendall(sent)
    ended = _finish([coordinator, _start(1, 2, port, '-')])
    self.assertEqual([code for code, _ in ended], [0, 0], ended)


@pytest.mark.slow
class ManyTriesTest(GroupTest):
  tries = 30


if __name__ == '__main__':
  absltest.main()
