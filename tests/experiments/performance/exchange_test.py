"""Tests of the costs of communication between processes."""

from absl.testing import absltest
from absl.testing import parameterized

from acme_cbo.experiments.performance import exchange

_TEXT = """
  %a = f32[2]{0} all-reduce(%x), channel_id=1, replica_groups={{0,1}}
  %b = (f32[1,32,16]{2,1,0}, /*index=1*/f32[]) all-reduce(%y, %z), channel_id=1
  %c = f32[64,4]{1,0} all-gather(%p), channel_id=1, dimensions={0}
  %d = pred[7,8]{1,0} all-gather(%q), channel_id=1
  %e = f32[9] add(%a, %b), metadata={op_name="all-reduce("}
"""
_TRAFFIC = exchange.Traffic(4, 2, 1000, 1, 500)
_LINK = exchange.Link(latency=1e-3, bandwidth=1e6)


class ExchangeTest(parameterized.TestCase):
  def test_count_traffic(self):
    self.assertEqual(
      exchange.count_traffic([_TEXT, ''], steps=3),
      exchange.Traffic(3, 2, 4 * (2 + 32 * 16 + 1), 2, 4 * 64 * 4 + 7 * 8),
    )
    self.assertEqual(_TRAFFIC.bytes, 4500)

  def test_exchange_seconds_in_a_ring(self):
    # With two processes there are 17 messages. Both halves of the reduced bytes
    # are sent and received, and half of the gathered bytes is received.
    self.assertAlmostEqual(
      exchange.exchange_seconds(_LINK, _TRAFFIC, 2), 17e-3 + (4000 + 250) * 1e-6
    )
    self.assertEqual(exchange.exchange_seconds(_LINK, _TRAFFIC, 1), 0)

  @parameterized.parameters(1.0, 10.0)
  def test_max_processes_is_where_a_tenth_is_communication(self, computing):
    size = exchange.max_processes(_LINK, _TRAFFIC, lambda _: computing)
    seconds = exchange.exchange_seconds(_LINK, _TRAFFIC, size)
    self.assertLess(seconds / (seconds + computing), 0.1)
    seconds = exchange.exchange_seconds(_LINK, _TRAFFIC, size + size // 50 + 2)
    self.assertGreater(seconds / (seconds + computing), 0.1)

  def test_max_processes_is_smaller_for_a_fixed_batch(self):
    weak = exchange.max_processes(_LINK, _TRAFFIC, lambda _: 10.0)
    strong = exchange.max_processes(_LINK, _TRAFFIC, lambda size: 10.0 / size)
    self.assertBetween(strong, 2, weak - 1)


if __name__ == '__main__':
  absltest.main()
