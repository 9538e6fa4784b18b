"""Tests of a message connection, with both ends in one process."""

import socket
import threading
import time
from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized
import pytest

from acme_cbo.runtimes import connection

# More than the buffers between two sockets hold.
_LARGE = bytes(1 << 26)


class ConnectionTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    one, other = socket.socketpair()
    self.one = connection.Connection(one)
    self.other = connection.Connection(other, len(_LARGE))
    self.addCleanup(self.one.close)
    self.addCleanup(self.other.close)

  def _receive(self, number):
    """Returns the next objects."""
    messages = []
    while len(messages) < number:
      messages += self.other.receive(True)[0]
    return messages

  def test_objects_and_payloads_arrive_as_sent(self):
    sender = threading.Thread(target=self.one.send, args=({'a': 1}, _LARGE))
    sender.start()
    (message,) = self._receive(1)
    sender.join()
    self.assertEqual(message, {'a': 1, 'bytes': len(_LARGE), 'payload': _LARGE})
    self.one.send_heartbeat()
    self.one.send({'b': [2]})
    self.assertEqual(self._receive(1), [{'b': [2]}])

  def test_a_heartbeat_does_not_wait_for_another_message(self):
    sender = threading.Thread(target=self.one.send, args=({}, _LARGE))
    sender.start()
    time.sleep(0.2)
    begin = time.monotonic()
    self.one.send_heartbeat()
    self.assertLess(time.monotonic() - begin, 2)
    self.assertTrue(sender.is_alive())
    (message,) = self._receive(1)  # The heartbeat has not corrupted it.
    self.assertEqual(message['payload'], _LARGE)
    sender.join()

  @pytest.mark.fault
  def test_sends_nothing_after_a_partial_object(self):
    with mock.patch.object(connection, 'SILENCE_SECONDS', 0.3):
      one = connection.Connection(self.one.socket)
    other = self.other
    one.send({'a': 1}, _LARGE)
    one.send({'b': 2})
    one.close()
    messages, cause = [], ''
    while not cause:
      more, cause = other.receive(True)
      messages += more
    self.assertEqual(messages, [])
    self.assertEqual(cause, 'disconnected unexpectedly')

  @parameterized.parameters(
    (b'\xff\xfe\n', r"sent an invalid message: b'\xff\xfe'"),
    (b'[1]\n', "sent an invalid message: b'[1]'"),
    (b'{"a": \n', 'sent an invalid message: b\'{"a": \''),
    (b'[' * 100_000 + b'\n', f"sent an invalid message: b'{'[' * 60}'"),
    (b'1' * 5_000 + b'\n', f"sent an invalid message: b'{'1' * 60}'"),
    (b'{"payload": "x"}\n', """sent an invalid message: b'{"payload": "x"}'"""),
    (
      b'{"bytes": 1000000000000000}\n',
      'announced 1000000000000000 bytes where at most 67,108,864 are expected',
    ),
    (
      b'{"bytes": -1}\n',
      'announced -1 bytes where at most 67,108,864 are expected',
    ),
    (
      b'{"bytes": "\\u001b[2J"}\n',
      r'announced \x1b[2J bytes where at most 67,108,864 are expected',
    ),
  )
  def test_invalid_data_is_the_loss_of_the_peer(self, sent, cause):
    self.one.send({'a': 1})
    self.one.socket.sendall(sent)
    time.sleep(0.01)
    self.assertEqual(self.other.receive(True), ([{'a': 1}], cause))

  def test_a_line_without_end_is_the_loss_of_the_peer(self):
    line = bytes(connection.MAX_LINE + 1)
    sender = threading.Thread(target=self.one.socket.sendall, args=(line,))
    sender.start()
    cause = ''
    while not cause:
      messages, cause = self.other.receive(True)
      self.assertEqual(messages, [])
    sender.join()
    self.assertEqual(cause, 'sent a line of more than 1,048,576 bytes')

  @parameterized.parameters(b'{"a": 1', b'{"bytes": 1000}\n12')
  def test_a_message_has_to_be_completed_in_time(self, start):
    with mock.patch.object(connection, 'SILENCE_SECONDS', 0.1):
      self.one.socket.sendall(start)
      begin, cause = time.monotonic(), ''
      while not cause:  # It is never silent.
        self.one.socket.sendall(b' ')
        messages, cause = self.other.receive(True)
        self.assertEqual(messages, [])
        time.sleep(0.005)
    self.assertStartsWith(cause, 'did not complete a message within ')
    self.assertBetween(time.monotonic() - begin, 0.2, 2)

  def test_messages_in_pieces_may_go_on_for_ever(self):
    with mock.patch.object(connection, 'SILENCE_SECONDS', 0.05):
      self.one.socket.sendall(b'{"a": 0')
      for i in range(40):
        time.sleep(0.005)
        self.one.socket.sendall(b'}\n{"a": %d' % (i + 1))
        self.assertEqual(self.other.receive(True), ([{'a': i}], ''))

  def test_silence_is_the_loss_of_the_peer(self):
    self.assertEqual(self.other.receive(False), ([], ''))
    time.sleep(0.02)
    with mock.patch.object(connection, 'SILENCE_SECONDS', 0.01):
      self.assertEqual(self.other.receive(False), ([], 'sent nothing for 0 s'))

  def test_the_first_line_has_a_deadline(self):
    is_over = threading.Event()

    def drip():
      while not is_over.wait(0.01):
        self.one.socket.sendall(b'x')

    sender = threading.Thread(target=drip)
    sender.start()
    begin = time.monotonic()
    with self.assertRaisesRegex(TimeoutError, 'did not send a whole line'):
      self.other.receive_line(begin + 0.1)
    self.assertBetween(time.monotonic() - begin, 0.1, 2)
    is_over.set()
    sender.join()

  def test_the_first_line_has_a_limit(self):
    self.one.socket.sendall(b'x' * 11)
    with self.assertRaisesRegex(ConnectionError, 'line of more than 10 bytes'):
      self.other.receive_line(time.monotonic() + 10, 10)

  def test_what_follows_the_first_object_is_kept(self):
    self.one.send({'a': 1})
    self.one.send({'b': 2})
    deadline = time.monotonic() + 10
    self.assertEqual(self.other.receive_first(deadline), {'a': 1})
    self.assertEqual(self.other.receive(False), ([{'b': 2}], ''))

  def test_the_end_before_the_first_line(self):
    self.one.close()
    with self.assertRaisesRegex(ConnectionError, 'disconnected unexpectedly'):
      self.other.receive_first(time.monotonic() + 10)


class PrintableTest(absltest.TestCase):
  def test_control_characters_are_escaped(self):
    self.assertEqual(
      connection.printable("p\x1b[2J\u202e\ud800 'é'\n"),
      r"p\x1b[2J\u202e\ud800 'é'\n",
    )

  def test_long_text_is_cut_off(self):
    self.assertEqual(connection.printable('x' * 1000), 'x' * 500)


if __name__ == '__main__':
  absltest.main()
