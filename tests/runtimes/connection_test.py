"""Tests of a message connection, with both ends in one process."""

import socket
import threading
import time
from unittest import mock

from absl.testing import absltest
import pytest

from acme_cbo.runtimes import connection

# More than the buffers between two sockets hold.
_LARGE = bytes(1 << 26)


class ConnectionTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.one, self.other = map(connection.Connection, socket.socketpair())
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
    self.assertLess(time.monotonic() - begin, 0.1)
    self.assertTrue(sender.is_alive())
    (message,) = self._receive(1)  # The heartbeat has not corrupted it.
    self.assertEqual(message['payload'], _LARGE)
    sender.join()

  @pytest.mark.fault
  def test_sends_nothing_after_a_partial_object(self):
    with mock.patch.object(connection, 'SILENCE_SECONDS', 0.3):
      one, other = map(connection.Connection, socket.socketpair())
    self.addCleanup(one.close)
    self.addCleanup(other.close)
    one.send({'a': 1}, _LARGE)
    one.send({'b': 2})
    one.close()
    messages, cause = [], ''
    while not cause:
      more, cause = other.receive(True)
      messages += more
    self.assertEqual(messages, [])
    self.assertEqual(cause, 'disconnected unexpectedly')


if __name__ == '__main__':
  absltest.main()
