"""Tests of a line between two processes, in one."""

import socket
import threading
import time
from unittest import mock

from absl.testing import absltest
import pytest

from acme_cbo.runtimes import connection

# More than waits between two sockets.
_MUCH = bytes(1 << 26)


class LineTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.one, self.other = map(connection.Connection, socket.socketpair())
    self.addCleanup(self.one.close)
    self.addCleanup(self.other.close)

  def _hear(self, number):
    """As many objects as are to come."""
    said = []
    while len(said) < number:
      said += self.other.heard(True)[0]
    return said

  def test_objects_and_bytes_come_as_they_were_sent(self):
    sent = threading.Thread(target=self.one.send, args=({'a': 1}, _MUCH))
    sent.start()
    (said,) = self._hear(1)
    sent.join()
    self.assertEqual(said, {'a': 1, 'bytes': len(_MUCH), 'payload': _MUCH})
    self.one.beat()
    self.one.send({'b': [2]})
    self.assertEqual(self._hear(1), [{'b': [2]}])

  def test_a_beat_waits_for_nothing_that_is_being_sent(self):
    sent = threading.Thread(target=self.one.send, args=({}, _MUCH))
    sent.start()
    time.sleep(0.2)
    begin = time.monotonic()
    self.one.beat()
    self.assertLess(time.monotonic() - begin, 0.1)
    self.assertTrue(sent.is_alive())
    (said,) = self._hear(1)  # The beat has torn nothing.
    self.assertEqual(said['payload'], _MUCH)
    sent.join()

  @pytest.mark.fault
  def test_nothing_follows_half_an_object(self):
    with mock.patch.object(connection, 'SILENCE_SECONDS', 0.3):
      one, other = map(connection.Connection, socket.socketpair())
    self.addCleanup(one.close)
    self.addCleanup(other.close)
    one.send({'a': 1}, _MUCH)
    one.send({'b': 2})
    one.close()
    said, cause = [], ''
    while not cause:
      more, cause = other.heard(True)
      said += more
    self.assertEqual(said, [])
    self.assertEqual(cause, 'has ended without a word')


if __name__ == '__main__':
  absltest.main()
