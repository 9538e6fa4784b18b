"""Tests of the addresses that process 0 listens on."""

import socket

from absl.testing import absltest
from absl.testing import parameterized

from acme_cbo.infra import errors
from acme_cbo.runtimes import addresses

# An address for documentation, which no machine has.
_FOREIGN = '203.0.113.7'


def _own_address():
  """Returns an address of this machine that is not a loopback, or None."""
  with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
    try:
      client.connect((_FOREIGN, 9))  # Sends nothing.
    except OSError:
      return None
    return client.getsockname()[0]


class AddressesTest(parameterized.TestCase):
  @parameterized.parameters(
    ('10.0.0.1:8476', '10.0.0.1'), ('[::1]:8476', '::1'), ('a.b:8476', 'a.b')
  )
  def test_text_and_back(self, text, host):
    self.assertEqual(addresses.parse(text), (host, 8476))
    self.assertEqual(addresses.to_text(host, 8476), text)

  @parameterized.parameters('127.0.0.1', '::1', 'localhost')
  def test_listens_at_the_given_host_alone(self, host):
    with addresses.listen(host, 0) as server:
      address, port = server.getsockname()[:2]
      self.assertIn(address, ('127.0.0.1', '::1'))
      self.assertEqual(addresses.resolve(host), address)
      socket.create_connection((host, port), 5).close()
      others = ['127.0.0.2', _own_address()]
      for other in filter(None, others):
        with self.assertRaises(ConnectionRefusedError):
          socket.create_connection((other, port), 5)

  @parameterized.parameters(
    (_FOREIGN, '203.0.113.7 is not an address of this machine; process 0'),
    ('no-such-host.invalid', 'no-such-host.invalid is not known on this'),
  )
  def test_another_host_is_refused(self, host, sentence):
    with self.assertRaisesRegex(errors.UsageError, sentence):
      addresses.listen(host, 0)

  def test_a_port_in_use_is_refused(self):
    with (
      addresses.listen('127.0.0.1', 0) as server,
      self.assertRaisesRegex(
        errors.UsageError,
        'on port [0-9]+ of 127.0.0.1: Address already in use; choose another',
      ),
    ):
      addresses.listen('127.0.0.1', server.getsockname()[1])

  @parameterized.parameters(
    ('node1', '127.0.1.1', True),
    ('node1', '10.0.0.1', False),
    ('localhost', '127.0.0.1', False),
    ('localhost', '::1', False),
    ('127.0.1.1', '127.0.1.1', False),
    ('::1', '::1', False),
    ('node1', 'fe80::1%eth0', False),
  )
  def test_a_name_that_only_its_machine_can_reach(self, host, address, is_so):
    self.assertEqual(addresses.is_hidden_loopback(host, address), is_so)


if __name__ == '__main__':
  absltest.main()
