import json

from absl.testing import absltest
from absl.testing import parameterized
import numpy as np

from acme_cbo.training import callbacks
from acme_cbo.training import stopping
from acme_cbo.training import trainer as trainer_lib
from tests.training import toy


def _fit(values, callback, start=0, saved=None):
  """Trains with these values as evaluation metric, one per update."""
  evaluation = callbacks.Evaluation(
    lambda state: {'eval/score': values[int(state.step)]}, 1
  )

  class Reward(trainer_lib.Callback):
    def on_train_batch_end(self, trainer, state, metrics):
      metrics['reward/total'] = values[int(state.step)]

  trainer = trainer_lib.Trainer(
    step=toy.update,
    num_updates=len(values) - 1,
    callbacks=(evaluation, Reward(), callback),
  )
  if saved:
    trainer.load_state_dict(saved)
  trainer.fit(toy.init(start))
  return trainer


class EarlyStoppingTest(parameterized.TestCase):
  @parameterized.parameters(
    ((0.1, 0.2, 0.2, 0.1, 0.9, 0.9), 2, 0.0, 3),
    ((0.1, 0.2, 0.2, 0.3, 0.3, 0.3), 2, 0.0, 5),
    ((0.1, 0.2, 0.3, 0.4, 0.5, 0.6), 1, 0.0, None),
    ((0.1, 0.15, 0.2, 0.25, 0.3, 0.4), 1, 0.06, 1),
    # A slow rise is measured from the best, not from the last.
    ((0.1, 0.15, 0.2, 0.25, 0.3, 0.4), 2, 0.06, None),
  )
  def test_stops_where_nothing_got_better(self, values, patience, delta, stop):
    callback = stopping.EarlyStopping('eval/score', patience, delta)
    trainer = _fit(values, callback)
    self.assertEqual(trainer.updates, stop or len(values) - 1)
    self.assertEqual(trainer.stop_reason is None, stop is None)
    if stop:
      self.assertRegex(
        str(trainer.stop_reason), rf'eval/score was not above .* in {patience} '
      )

  def test_resumes_counting(self):
    values = (0.1, 0.5, 0.4, 0.3, 0.2, 0.1)
    first = stopping.EarlyStopping('eval/score', 3)
    saved = json.loads(json.dumps(_fit(values[:3], first).state_dict()))
    trainer = _fit(values, stopping.EarlyStopping('eval/score', 3), 2, saved)
    self.assertEqual(trainer.updates, 4)

  def test_patience_is_positive(self):
    with self.assertRaisesRegex(ValueError, 'patience is 0'):
      stopping.EarlyStopping('eval/score', 0)


class ConvergenceTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    rise = np.linspace(0, 1, 51)
    noise = 0.001 * np.random.default_rng(0).normal(size=200)
    self.values = [float(x) for x in np.append(rise, 1 + noise)]

  @parameterized.parameters(True, False)
  def test_finds_the_plateau(self, stop):
    callback = stopping.Convergence('reward/total', 40, 0.01, stop)
    trainer = _fit(self.values, callback)
    self.assertBetween(callback.converged_at, 85, 115)
    if stop:
      self.assertEqual(trainer.updates, callback.converged_at)
      self.assertIn('reward/total changes by less', str(trainer.stop_reason))
    else:
      self.assertEqual(trainer.updates, 250)
      self.assertIsNone(trainer.stop_reason)

  def test_resumes_with_the_earlier_values(self):
    whole = stopping.Convergence('reward/total', 40, 0.01, False)
    _fit(self.values, whole)
    first = stopping.Convergence('reward/total', 40, 0.01, False)
    saved = json.loads(json.dumps(_fit(self.values[:71], first).state_dict()))
    second = stopping.Convergence('reward/total', 40, 0.01, False)
    _fit(self.values, second, 70, saved)
    self.assertEqual(second.converged_at, whole.converged_at)


if __name__ == '__main__':
  absltest.main()
