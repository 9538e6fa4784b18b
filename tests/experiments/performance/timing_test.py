from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized
import numpy as np

from acme_cbo.experiments.performance import timing


class TimeInterleavedTest(parameterized.TestCase):
  @parameterized.parameters(
    (1, 'ababab', {'a': [1.0, 2.0], 'b': [10.0, 20.0]}),
    (2, 'abaabb', {'a': [1.0, 2.0], 'b': [10.0, 20.0]}),
  )
  def test_takes_turns_after_a_warm_up(self, calls_per_turn, order, expected):
    # On a fake clock, calls of a take 100, 1, 2 and those of b 200, 10, 20.
    now, calls = [0.0], []

    def make(name, seconds):
      seconds = iter(seconds)

      def run():
        calls.append(name)
        now[0] += next(seconds)
        return np.zeros(1)

      return run

    functions = {'a': make('a', (100, 1, 2)), 'b': make('b', (200, 10, 20))}
    with mock.patch.object(timing.time, 'perf_counter', lambda: now[0]):
      seconds = timing.time_interleaved(
        functions, 2 // calls_per_turn, calls_per_turn
      )
    self.assertEqual(seconds, expected)
    self.assertEqual(''.join(calls), order)

  def test_spread(self):
    seconds = {'a': [3.0, 1.0, 8.0]}
    self.assertEqual(timing.medians(seconds), {'a': 3.0})
    self.assertEqual(
      timing.spread(seconds), {'a': {'median': 3.0, 'min': 1.0, 'max': 8.0}}
    )


if __name__ == '__main__':
  absltest.main()
