"""Tests of the handshake, with attackers on real sockets."""

import contextlib
import io
import os
import socket
import threading
import time
from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized
import pytest

from acme_cbo.infra import errors
from acme_cbo.runtimes import addresses
from acme_cbo.runtimes import connection
from acme_cbo.runtimes import handshake

_SECRET = 32 * 'ab'
_NONCE = 32 * '01'


def _wait_for_end(client):
  """Waits until the other side has closed the connection."""
  with contextlib.suppress(ConnectionResetError):
    while client.recv(1000):
      pass


class SecretTest(parameterized.TestCase):
  def test_is_that_of_the_environment(self):
    with mock.patch.dict(os.environ, {handshake.VARIABLE: _SECRET}):
      self.assertEqual(handshake.secret_from_environment(), _SECRET)

  @parameterized.parameters(
    (None, r'have to know a common secret; set it: export ACME_CBO_SECRET='),
    ('', 'ACME_CBO_SECRET has 0 characters, which can be guessed'),
    ('x' * 31, 'has 31 characters, .* at least 32: export ACME_CBO_SECRET='),
  )
  def test_others_are_refused(self, secret, sentence):
    with (
      mock.patch.dict(os.environ),
      self.assertRaisesRegex(errors.UsageError, sentence),
    ):
      os.environ.pop(handshake.VARIABLE, None)
      if secret is not None:
        os.environ[handshake.VARIABLE] = secret
      handshake.secret_from_environment()

  def test_new_ones_differ(self):
    one, other = handshake.new_secret(), handshake.new_secret()
    self.assertNotEqual(one, other)
    self.assertLen(one, 64)


@pytest.mark.fault
class AcceptTest(parameterized.TestCase):
  """The test's thread accepts; clients are in threads, or write beforehand."""

  def setUp(self):
    super().setUp()
    self.server = self.enterContext(addresses.listen('127.0.0.1', 0))
    self.address = self.server.getsockname()
    self.clients = self.enterContext(contextlib.ExitStack())

  def _connect(self, sent=b''):
    """Returns the socket of a client that has sent something."""
    client = self.clients.enter_context(
      socket.create_connection(self.address, 5)
    )
    client.sendall(sent)
    return client

  def _join(self, name, secret=_SECRET):
    """Starts a worker that introduces itself."""

    def run():
      peer = connection.Connection(self._connect())
      handshake.prove_to_coordinator(peer, secret)
      peer.send({'name': name})

    thread = threading.Thread(target=run)
    thread.start()
    self.addCleanup(thread.join)

  def _accept(self, number=1, size=1):
    """Returns the introductions of so many clients, and the warnings."""
    messages = []
    deadline = time.monotonic() + 20
    with (
      contextlib.redirect_stderr(io.StringIO()) as output,
      contextlib.closing(
        handshake.accept(self.server, _SECRET, size, deadline)
      ) as accepted,
    ):
      for peer, message in accepted:
        self.addCleanup(peer.close)
        messages.append(message)
        if len(messages) == number:
          break
    self.assertLen(messages, number)
    self.assertNotIn('handshake', [x.name for x in threading.enumerate()])
    return messages, output.getvalue().splitlines()

  def _refuse(self, *clients):
    """Returns the warnings about clients, all of which have to be refused."""

    def run():
      for client in clients:
        _wait_for_end(client)
      self._join('last')

    thread = threading.Thread(target=run)
    thread.start()
    messages, warnings = self._accept()
    thread.join()
    self.assertEqual(messages, [{'name': 'last'}])
    return warnings

  def _warning(self, client, reason):
    host, port = client.getsockname()
    return (
      f'warning: refused a connection from {host}:{port}, which {reason}; all '
      'processes of this run need the same ACME_CBO_SECRET'
    )

  def test_a_worker_is_accepted(self):
    self._join('one')
    self.assertEqual(self._accept(1), ([{'name': 'one'}], []))

  @parameterized.parameters(
    b'{"process": 1, "of": 2, "name": "x"}\n',
    b'GET / HTTP/1.1\r\n\r\n',
    b'\xff\xfe\n',
    b'\n',
    (_NONCE + ' ' + _NONCE + '\n').encode(),
    (_NONCE[2:] + '\n').encode(),
    (2 * _NONCE + '\n').encode(),
  )
  def test_garbage_is_refused(self, sent):
    client = self._connect(sent)
    self.assertEqual(
      self._refuse(client),
      [self._warning(client, 'sent no proof of the secret')],
    )

  def test_a_long_line_is_refused_at_its_limit(self):
    client = self._connect(b'0' * 130)
    self.assertEqual(
      self._refuse(client),
      [self._warning(client, 'sent a line of more than 129 bytes')],
    )

  def test_a_wrong_proof_is_refused(self):
    client = self._connect(f'{_NONCE}\n{_NONCE}\n'.encode())
    self.assertEqual(
      self._refuse(client), [self._warning(client, 'has another secret')]
    )

  def test_the_proof_of_process_0_is_none_of_a_worker(self):
    client = self._connect((_NONCE + '\n').encode())

    def reflect():
      _, proof = client.recv(1000).split()
      client.sendall(proof + b'\n{"name": "x"}\n')
      self._join('last')

    thread = threading.Thread(target=reflect)
    thread.start()
    messages, warnings = self._accept()
    thread.join()
    self.assertEqual(messages, [{'name': 'last'}])
    self.assertEqual(warnings, [self._warning(client, 'has another secret')])

  def test_a_recorded_proof_is_not_accepted_again(self):
    sent = []
    send = handshake._send

    def record(peer, *values):
      sent.append(b' '.join(x.hex().encode() for x in values) + b'\n')
      send(peer, *values)

    with mock.patch.object(handshake, '_send', record):
      self._join('one')
      self.assertEqual(self._accept()[0], [{'name': 'one'}])
    nonce, _, proof = sent
    client = self._connect(nonce + proof + b'{"name": "x"}\n')
    self.assertEqual(
      self._refuse(client), [self._warning(client, 'has another secret')]
    )

  def test_both_sides_see_that_secrets_differ(self):
    causes = []

    def run():
      peer = connection.Connection(self._connect())
      try:
        handshake.prove_to_coordinator(peer, 32 * 'cd')
      except handshake.WrongSecretError as error:
        causes.append(str(error))
        peer.socket.shutdown(socket.SHUT_WR)
        _wait_for_end(peer.socket)
      self._join('last')

    thread = threading.Thread(target=run)
    thread.start()
    messages, (warning,) = self._accept()
    thread.join()
    self.assertEqual(messages, [{'name': 'last'}])
    self.assertEqual(causes, ['has another secret'])
    self.assertIn(', which disconnected unexpectedly; all', warning)

  def test_silent_clients_do_not_delay_a_worker(self):
    for _ in range(6):
      self._connect()
      self._connect(b'0')
    self._join('one')
    with mock.patch.object(handshake, 'SECONDS', 30):
      begin = time.monotonic()
      self.assertEqual(self._accept(), ([{'name': 'one'}], []))
    self.assertLess(time.monotonic() - begin, 10)

  def test_a_silent_client_is_refused_in_time(self):
    client = self._connect()
    with mock.patch.object(handshake, 'SECONDS', 0.5):
      warnings = self._refuse(client)
    self.assertEqual(
      warnings, [self._warning(client, 'did not send a whole line in time')]
    )

  def test_the_oldest_of_too_many_is_dropped(self):
    silent = [self._connect() for _ in range(5)]
    with (
      mock.patch.object(handshake, '_MAX_STRANGERS', 2),
      mock.patch.object(handshake, 'SECONDS', 30),
    ):
      # Three may wait at once.
      self.assertEqual(self._refuse(*silent[:2]), [])

  def test_many_refused_clients_are_not_all_reported(self):
    clients = [self._connect(b'x\n') for _ in range(4)]
    with mock.patch.object(handshake, '_MAX_WARNINGS', 2):
      warnings = self._refuse(*clients)
    self.assertLen(warnings, 2)
    self.assertEndsWith(warnings[1], '; later ones are not reported')

  def test_ends_at_its_deadline(self):
    begin = time.monotonic()
    with contextlib.closing(
      handshake.accept(self.server, _SECRET, 1, begin + 0.1)
    ) as accepted:
      self.assertEmpty([*accepted])
    self.assertGreaterEqual(time.monotonic() - begin, 0.1)


@pytest.mark.fault
class ImpostorTest(parameterized.TestCase):
  """Another program has the port of process 0."""

  def setUp(self):
    super().setUp()
    one, self.impostor = socket.socketpair()
    self.peer = connection.Connection(one)
    self.addCleanup(one.close)
    self.addCleanup(self.impostor.close)

  @parameterized.parameters(
    (b'HTTP/1.1 400 Bad Request\r\n', 'sent no proof of the secret'),
    (f'{_NONCE} {_NONCE}\n'.encode(), 'has another secret'),
  )
  def test_gets_nothing_but_a_nonce(self, sent, cause):
    self.impostor.sendall(sent)
    with self.assertRaisesRegex(handshake.WrongSecretError, cause):
      handshake.prove_to_coordinator(self.peer, _SECRET)
    self.peer.close()
    self.assertLen(self.impostor.recv(1000), len(_NONCE) + 1)

  def test_a_silent_one_is_given_up(self):
    with (
      mock.patch.object(handshake, 'SECONDS', 0.1),
      self.assertRaises(TimeoutError),
    ):
      handshake.prove_to_coordinator(self.peer, _SECRET)


if __name__ == '__main__':
  absltest.main()
