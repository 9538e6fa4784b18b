import pathlib
import tempfile

from absl.testing import absltest
import pytest

from acme_cbo.experiments.performance import startup
from acme_cbo.infra import errors

_ROOT = pathlib.Path(__file__).resolve().parents[3]


class StartupTest(absltest.TestCase):
  def test_a_run_that_ends_at_once_is_reported(self):
    with self.assertRaisesRegex(
      errors.UsageError, 'ended before its first update: error: .*nowhere.py'
    ):
      startup.measure(['--config=nowhere.py'], 1)

  @pytest.mark.slow
  def test_a_warm_start_is_faster(self):
    config = _ROOT / 'configs' / 'grpo.py'
    starts = startup.measure([f'--config={config}:smoke'], 1)
    ((cold,), (warm,)) = starts['cold'], starts['warm']
    # On two cores, 6 and 33 seconds: see docs/performance.md.
    self.assertBetween(warm.seconds, 0.5, 0.8 * cold.seconds)
    # Compiling takes memory: a start without it needs about 700 MiB.
    self.assertBetween(warm.peak_memory, 0.3 * 2**30, cold.peak_memory)

  def test_an_incomplete_line_is_no_update(self):
    with tempfile.TemporaryDirectory() as directory:
      path = pathlib.Path(directory) / 'metrics.jsonl'
      self.assertFalse(startup._has_update(path))
      path.write_text('{"step": 0}\n{"step": 1, "lo')
      self.assertFalse(startup._has_update(path))
      path.write_text('{"step": 0}\n{"step": 1}\n')
      self.assertTrue(startup._has_update(path))


if __name__ == '__main__':
  absltest.main()
