from absl.testing import absltest

from acme_cbo.experiments.performance import report

_TIMES = {'median': 0.0125, 'min': 0.01, 'max': 0.5}
_RESULTS = {
  'machine': {'cores': 2, 'device': 'cpu', 'platform': 'cpu', 'jax': '0.0'},
  'sizes': {
    'num_tasks': 64,
    'num_generations': 4,
    'num_observations': 20,
    'num_interventions': 10,
    'max_variables': 8,
  },
  'ceilings': {'operations_per_second': 2e11, 'bytes_per_second': 5e10},
  'ceiling_share': {'actor': 0.234},
  'memory_share': {'actor': 0.5},
  'interventions_per_second': {'actor': 12345.0},
  'decision_ms': {'grpo': {'median': 0.75, 'min': 0.5, 'max': 1.0}},
  'startup_s': {'cold': 31.25, 'warm': 7.0},
  'starts': {'cold': {'median': 31.25, 'min': 30.0, 'max': 33.0}},
  'compile': {
    'actor': {
      'seconds_to_trace': 1.25,
      'seconds_to_compile': 9.0,
      'mebibytes': 30.4,
    }
  },
  'share_of_acting': {'rewards': 0.02, 'exact_belief': None},
  'python_share': 0.013,
  'trainer_overhead': 0.008,
  'peak_memory': 3 * 2**30,
  'ratios': {'cached_over_recompute': 10.04, 'decision_over_botorch': None},
  'seconds': {'act': _TIMES},
}


class TableTest(absltest.TestCase):
  def test_shows_every_result(self):
    table = report.table(_RESULTS)
    lines = [' '.join(line.split()) for line in table.splitlines()]
    for line in (
      '2 cores, cpu, jax 0.0; matrix product 200 GFLOP/s in float32, memory '
      '50 GB/s',
      '64 SCMs x 4 episodes of 10 interventions, 20 observations, 8 variables',
      'interventions per second, actor 12,345',
      'milliseconds per decision, grpo 0.75',
      'seconds to the first update, cold 31.2',
      'fastest and slowest start, cold 30.0 - 33.0',
      'acting time added by, exact belief not measured',
      'seconds to trace and to compile, actor 1.2 + 9.0',
      'mebibytes of temporary arrays, actor 30',
      'share of an update in Python 1.3%',
      'peak gibibytes of a training run 3.0',
      'cached over recompute 10.0',
      'decision over botorch not measured',
      'actor 23% 50%',
      'act 12.5 10 500',
    ):
      self.assertIn(line, lines)
    self.assertLessEqual(max(map(len, table.splitlines())), 80)


if __name__ == '__main__':
  absltest.main()
