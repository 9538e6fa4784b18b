"""Tests of what is said of exchanges between processes."""

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
_WHAT = exchange.Exchanged(4, 2, 1000, 1, 500)
_LINK = exchange.Link(latency=1e-3, bandwidth=1e6)


class ExchangeTest(parameterized.TestCase):
  def test_is_read_from_programs(self):
    self.assertEqual(
      exchange.exchanged([_TEXT, ''], steps=3),
      exchange.Exchanged(3, 2, 4 * (2 + 32 * 16 + 1), 2, 4 * 64 * 4 + 7 * 8),
    )
    self.assertEqual(_WHAT.bytes, 4500)

  def test_seconds_of_a_ring(self):
    # Two processes: 17 messages; all that is reduced goes there and back in
    # halves, half of what is gathered comes in.
    self.assertAlmostEqual(
      exchange.seconds(_LINK, _WHAT, 2), 17e-3 + (4000 + 250) * 1e-6
    )
    self.assertEqual(exchange.seconds(_LINK, _WHAT, 1), 0)

  @parameterized.parameters(1.0, 10.0)
  def test_most_is_where_a_tenth_is_exchanged(self, computing):
    most = exchange.most(_LINK, _WHAT, lambda size: computing)
    taken = exchange.seconds(_LINK, _WHAT, most)
    self.assertLess(taken / (taken + computing), 0.1)
    taken = exchange.seconds(_LINK, _WHAT, most + most // 50 + 2)
    self.assertGreater(taken / (taken + computing), 0.1)

  def test_fewer_may_share_the_same_work(self):
    weak = exchange.most(_LINK, _WHAT, lambda size: 10.0)
    strong = exchange.most(_LINK, _WHAT, lambda size: 10.0 / size)
    self.assertBetween(strong, 2, weak - 1)


if __name__ == '__main__':
  absltest.main()
