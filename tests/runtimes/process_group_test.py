"""Tests of process groups: commands, and the detection of lost processes."""

import contextlib
import dataclasses
import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import ClassVar
from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized
import pytest

from acme_cbo.infra import errors
from acme_cbo.runtimes import addresses
from acme_cbo.runtimes import handshake
from acme_cbo.runtimes import process_group

_MEMBER = os.path.join(os.path.dirname(__file__), 'member.py')
_SIZE = 3
_SECRET = 64 * 'a'


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
  port = addresses.free_port()
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
  def setUp(self):
    super().setUp()
    self.enterContext(
      mock.patch.dict(os.environ, {handshake.VARIABLE: _SECRET})
    )

  def test_is_none_without_flags(self):
    self.assertIsNone(process_group.spec_from_flags(None, None, None))

  @parameterized.parameters(
    ('10.0.0.1:8476', '10.0.0.1'), ('[::1]:8476', '::1'), ('a.b:8476', 'a.b')
  )
  def test_as_flags_say(self, coordinator, host):
    self.assertEqual(
      process_group.spec_from_flags(coordinator, 4, 3),
      process_group.ProcessSpec(host, 8476, 4, 3, _SECRET),
    )

  def test_a_secret_is_needed(self):
    os.environ.pop(handshake.VARIABLE)
    with self.assertRaisesRegex(errors.UsageError, 'set it: export ACME_CBO'):
      process_group.spec_from_flags('10.0.0.1:8476', 4, 3)

  def test_the_secret_is_not_shown(self):
    spec = process_group.spec_from_flags('10.0.0.1:8476', 4, 3)
    self.assertNotIn(_SECRET, repr(spec))

  @parameterized.parameters(
    ('host:1', None, 0, 'all three'),
    ('host:1', 2, None, 'all three'),
    (None, 2, 0, 'all three'),
    ('host', 2, 0, '--coordinator=host is not an address'),
    ('host:', 2, 0, 'is not an address'),
    ('host:70000', 2, 0, 'is not an address'),
    (':8476', 2, 0, 'is not an address'),
    ('a..b:8476', 2, 0, 'is not an address'),
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
        process_group.ProcessSpec('gpu003', 23456, 8, 5, _SECRET),
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
    port = addresses.free_port()
    ended = _finish([_start(i, 3, port, '- alone') for i in (0, 2)])
    for code, output in ended:
      self.assertEqual(code, 1)
      self.assertRegex(
        output, 'process 1 of 3 did not connect to .* within 2 s'
      )

  def test_process_0_is_not_reachable(self):
    ((code, output),) = _finish(
      [_start(1, 2, addresses.free_port(), '- alone')]
    )
    self.assertEqual(code, 1)
    self.assertRegex(output, 'process 0 cannot be reached at .* within 2 s')

  @parameterized.parameters((1, 3), (3, 3), (2, 4), (0, 3))
  def test_an_extra_process_is_refused(self, process_id, size):
    port = addresses.free_port()
    members = [_start(0, 3, port, '-'), _start(1, 3, port, '-')]
    time.sleep(0.5)
    if process_id == 0:
      message = f'cannot listen on port {port} of 127.0.0.1'
    else:
      message = rf'waits for \[2\]; it cannot accept {process_id} of {size}'
    ((code, output),) = _finish([_start(process_id, size, port, '-')])
    self.assertEqual(code, 1)
    self.assertRegex(output, message)
    ended = _finish([*members, _start(2, 3, port, '-')])
    self.assertEqual([code for code, _ in ended], [0, 0, 0], ended)

  def test_other_clients_are_ignored(self):
    port = addresses.free_port()
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
      b'{"process": 1, "of": 2, "name": "x"}\n',
    ):
      with socket.create_connection(address, 5) as stranger:
        stranger.sendall(sent)
    ended = _finish([coordinator, _start(1, 2, port, '-')])
    self.assertEqual([code for code, _ in ended], [0, 0], ended)


@pytest.mark.fault
class MemberTest(parameterized.TestCase):
  """Process 0 in this process; another member or a stranger on a socket."""

  def setUp(self):
    super().setUp()
    self.spec = process_group.ProcessSpec(
      '127.0.0.1', addresses.free_port(), 2, 0, _SECRET, 20.0
    )
    self.welcome = {'config': {'a': 1}, 'port': 1, 'installed': 'x'}

  def _start_member(self, introduction=None):
    """Starts a member that follows the protocol so far; returns a function that
    waits for its connection."""
    peers = []

    def run():
      spec = dataclasses.replace(self.spec, process_id=1)
      peer = process_group._connect(spec)
      self.addCleanup(peer.close)
      peer.send(introduction or {'process': 1, 'of': 2, 'name': 'process 1'})
      peers.append(peer)

    thread = threading.Thread(target=run)
    thread.start()

    def wait():
      thread.join()
      return peers[0]

    return wait

  @contextlib.contextmanager
  def _group(self):
    """Yields process 0, and the connection of the other member."""
    wait = self._start_member()
    group = process_group.Coordinator(self.spec, self.welcome)
    peer = wait()
    self.assertEqual(
      peer.receive_first(time.monotonic() + 10),
      {'name': group.names[0], **self.welcome},
    )
    try:
      yield group, peer
    finally:
      peer.send({'left': True})
      group.leave(None, lambda: None)
      self.assertNotIn('processes', [x.name for x in threading.enumerate()])

  def _wait_for_loss(self, group):
    """Returns the error of the main thread of process 0."""
    self.assertTrue(group._is_lost.wait(10))
    with self.assertRaises(errors.PeerError) as caught:
      group.command({'step': 0})
    return str(caught.exception)

  @parameterized.parameters(
    (b'\xff\xfe\n', r"sent an invalid message: b'\\xff\\xfe'"),
    (b'[1]\n', r"sent an invalid message: b'\[1\]'"),
    (
      b'{"bytes": 1000000000000000}\n',
      'announced 10{15} bytes where at most 0',
    ),
    (b'{"bytes": 5}\n', 'announced 5 bytes where at most 0 are expected'),
    (b'x' * ((1 << 20) + 1), 'sent a line of more than 1,048,576 bytes'),
    (b'{"signal": 1000}\n', 'sent an invalid message: signal 1000'),
    (b'{"signal": [15]}\n', r'sent an invalid message: signal \[15\]'),
    (b'{"answer": 1}\n', 'sent an invalid message: answer without payload'),
    (b'{"failed": "\\u001b[2J"}\n', r'\\x1b\[2J'),
  )
  def test_garbage_is_the_loss_of_its_sender(self, sent, sentence):
    with self._group() as (group, peer):
      peer.socket.sendall(sent)
      self.assertRegex(self._wait_for_loss(group), f'^process 1 {sentence}')

  def test_garbage_of_the_thread_of_an_update(self):
    with self._group() as (group, peer):
      peer.socket.sendall(b'\xff\n')
      with self.assertRaisesRegex(
        errors.PeerError, 'process 1 sent an invalid'
      ):
        group.request(1, 1, b'', 0)

  def _reply(self, peer, message, payload):
    """Sends a reply once the request has come."""

    def run():
      while not peer.receive(True)[0]:
        pass
      peer.send(message, payload)

    thread = threading.Thread(target=run)
    thread.start()
    self.addCleanup(thread.join)

  def test_the_reply_to_a_request(self):
    with self._group() as (group, peer):
      self._reply(peer, {'answer': 7, 'seed': 's'}, b'12')
      self.assertEqual(
        group.request(1, 7, b'', 2),
        {'answer': 7, 'seed': 's', 'bytes': 2, 'payload': b'12'},
      )

  @parameterized.parameters(
    ({'answer': 6}, b'12', 'sent its reply to 6 where that to 7 was expected'),
    ({'answer': 'barrier'}, b'12', 'sent its reply to barrier where that to 7'),
    ({'answer': '\x1b'}, b'12', r'sent its reply to \\x1b where that to 7'),
    ({'answer': 7}, b'1', 'sent 1 bytes for update 7, which takes 2'),
    ({'answer': 7}, b'123', 'announced 3 bytes where at most 2 are expected'),
  )
  def test_another_reply_is_refused(self, message, payload, sentence):
    with self._group() as (group, peer):
      self._reply(peer, message, payload)
      with self.assertRaisesRegex(errors.PeerError, f'^process 1 {sentence}'):
        group.request(1, 7, b'', 2)

  def test_the_reply_at_a_barrier_is_none_to_an_update(self):
    with self._group() as (group, peer):
      peer.send({'answer': 7}, b'')
      with self.assertRaisesRegex(errors.PeerError, 'where that to barrier'):
        group.barrier()

  def test_the_death_of_the_watching_thread_ends_the_run(self):
    with (
      contextlib.redirect_stderr(io.StringIO()) as output,
      mock.patch.object(
        process_group, '_invalid_part', side_effect=KeyError('on purpose')
      ),
      # The end of the group raises it too: without an error of its own the run
      # would seem to have ended well.
      self.assertRaisesRegex(errors.PeerError, 'no longer receives messages'),
      self._group() as (group, peer),
    ):
      peer.send({'signal': 15})
      reason = f"{group.names[0]} no longer receives messages: KeyError: 'on p"
      self.assertStartsWith(self._wait_for_loss(group), reason)
      messages = []
      while not messages:
        messages, _ = peer.receive(True)
      self.assertStartsWith(messages[0]['lost'], reason)
    self.assertIn('Traceback', output.getvalue())

  @parameterized.parameters(
    ({'process': [], 'of': 2, 'name': 'x'}, r'accept \[\] of 2'),
    ({'process': True, 'of': 2, 'name': 'x'}, 'accept True of 2'),
    ({'process': 2, 'of': 2, 'name': 'x'}, 'accept 2 of 2'),
    ({'process': 1, 'of': 3, 'name': 'x'}, 'accept 1 of 3'),
    ({'hello': 1}, 'accept None of None'),
  )
  def test_another_introduction_is_refused(self, introduction, sentence):
    wait = self._start_member(introduction)
    spec = dataclasses.replace(self.spec, join_seconds=0.5)
    with self.assertRaisesRegex(errors.PeerError, 'process 1 of 2 did not'):
      process_group.Coordinator(spec, self.welcome)
    refused = wait().receive_first(time.monotonic() + 10)
    self.assertRegex(refused['lost'], sentence)

  def test_names_are_printable(self):
    wait = self._start_member({'process': 1, 'of': 2, 'name': '\x1b[2J'})
    group = process_group.Coordinator(self.spec, self.welcome)
    wait().send({'left': True})
    self.assertEqual(group.names[1], r'\x1b[2J')
    group.leave(None, lambda: None)


@pytest.mark.fault
class WorkerTest(parameterized.TestCase):
  """A worker in this process; process 0 on a socket."""

  _WELCOME: ClassVar = {
    'name': 'process 0',
    'config': {},
    'port': 1,
    'installed': 'x',
  }

  def _start(self, *sent):
    """Returns the worker and its connection to a process 0 that sends bytes."""
    server = self.enterContext(addresses.listen('127.0.0.1', 0))
    port = server.getsockname()[1]
    peers = []

    def run():
      with contextlib.closing(
        handshake.accept(server, _SECRET, 1, time.monotonic() + 10)
      ) as accepted:
        peer, _ = next(accepted)
      self.addCleanup(peer.close)
      for content in sent:
        peer.socket.sendall(content)
      peers.append(peer)

    thread = threading.Thread(target=run)
    thread.start()
    try:
      worker = process_group.Worker(
        process_group.ProcessSpec('127.0.0.1', port, 2, 1, _SECRET, 5.0)
      )
    finally:
      thread.join()
    return worker, peers[0]

  @parameterized.parameters(
    (b'\xff\n', r"process 0 at .* sent an invalid message: b'\\xff'"),
    (b'{}\n', 'process 0 at .* sent an invalid welcome: no name'),
    (b'{"name": 1}\n', 'process 0 at .* sent an invalid welcome: no name'),
    (b'{"lost": "\\u001b[2J"}\n', r'^\\x1b\[2J$'),
    (b'x' * ((1 << 20) + 1), 'sent a line of more than 1,048,576 bytes'),
  )
  def test_another_welcome_is_refused(self, sent, sentence):
    with self.assertRaisesRegex(errors.PeerError, sentence):
      self._start(sent)

  @parameterized.parameters(
    (b'\xff\n', r"process 0 sent an invalid message: b'\xff'"),
    (b'{"lost": "\\u001b[2J"}\n', r'\x1b[2J'),
    (
      b'{"interrupted": 1000}\n',
      'process 0 sent an invalid message: interrupted 1000',
    ),
    (
      b'{"update": 1}\n',
      'process 0 sent an invalid message: update without payload',
    ),
    (
      b'{"bytes": 1000000000000000}\n',
      'process 0 announced 1000000000000000 bytes where at most 1,073,741,824 '
      'are expected',
    ),
  )
  def test_ends_with_one_line_at_garbage(self, sent, line):
    self._assert_exits(line, sent)

  def test_the_death_of_the_watching_thread_ends_the_process(self):
    with (
      contextlib.redirect_stderr(io.StringIO()) as output,
      mock.patch.object(
        process_group, '_invalid_part', side_effect=KeyError('on purpose')
      ),
    ):
      self._assert_exits(
        "this process no longer receives messages: KeyError: 'on purpose'",
        b'{"step": 1}\n',
      )
    self.assertIn('Traceback', output.getvalue())

  def _assert_exits(self, line, sent):
    """Checks that the watching thread exits this process with a line."""
    reasons, has_exited = [], threading.Event()

    def exit_once(reason):
      reasons.append(reason)
      has_exited.set()
      worker._has_left.wait()  # The real one does not return.

    with mock.patch.object(process_group, '_exit', exit_once):
      welcome = json.dumps(self._WELCOME).encode() + b'\n'
      worker, peer = self._start(welcome)
      peer.socket.sendall(sent)
      self.assertTrue(has_exited.wait(10))
      worker.leave(None, lambda: None)
    self.assertEqual(reasons, [line])

  def test_another_secret(self):
    server = self.enterContext(addresses.listen('127.0.0.1', 0))
    port = server.getsockname()[1]

    def accept():
      with contextlib.redirect_stderr(io.StringIO()):
        for _ in handshake.accept(server, 64 * 'b', 1, time.monotonic() + 0.5):
          pass

    thread = threading.Thread(target=accept)
    thread.start()
    self.addCleanup(thread.join)
    with self.assertRaisesRegex(
      errors.PeerError,
      f'^process 0 at 127.0.0.1:{port} has another secret; all processes need '
      'the same ACME_CBO_SECRET$',
    ):
      process_group.Worker(
        process_group.ProcessSpec('127.0.0.1', port, 2, 1, _SECRET, 5.0)
      )


class JoinXlaTest(absltest.TestCase):
  def test_listens_at_the_host_alone(self):
    import jax  # noqa: PLC0415 - the other tests need no jax.

    spec = process_group.ProcessSpec('::1', 8476, 2, 0, _SECRET, 5.0)
    with (
      mock.patch.object(jax.distributed, 'initialize') as initialize,
      mock.patch.object(jax.config, 'update'),
    ):
      process_group._join_xla(spec, 1234)
      process_group._join_xla(dataclasses.replace(spec, process_id=1), 1234)
    own, others = initialize.call_args_list
    self.assertEqual(own.args, ('[::1]:1234', 2, 0))
    self.assertEqual(own.kwargs['coordinator_bind_address'], '[::1]:1234')
    self.assertEqual(others.args, ('[::1]:1234', 2, 1))
    self.assertIsNone(others.kwargs['coordinator_bind_address'])


class NotJoinedTest(absltest.TestCase):
  def test_a_name_that_is_a_loopback_is_told(self):
    spec = process_group.ProcessSpec('node1', 8476, 3, 0, _SECRET, 5.0)
    with addresses.listen('127.0.0.1', 0) as server:
      self.assertEqual(
        process_group._not_joined_message({2}, server, spec),
        'process 2 of 3 did not connect to node1:8476 within 5 s; node1 is '
        '127.0.0.1 on its own machine, which no other machine can reach: give '
        'its address in the network instead',
      )


@pytest.mark.slow
class ManyTriesTest(GroupTest):
  tries = 30


if __name__ == '__main__':
  absltest.main()
