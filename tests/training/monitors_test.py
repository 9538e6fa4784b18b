import gzip
import json
import pathlib
import tempfile

from absl.testing import absltest
from absl.testing import parameterized

from acme_cbo.training import callbacks
from acme_cbo.training import monitors
from acme_cbo.training import trainer as trainer_lib
from tests.training import toy


def _fit(num_updates, *others):
  recorder = toy.Recorder()
  trainer_lib.Trainer(
    step=toy.update, num_updates=num_updates, logger=recorder, callbacks=others
  ).fit(toy.init())
  return [metrics for _, metrics in recorder.metrics]


class ThroughputTest(parameterized.TestCase):
  @parameterized.parameters(0, 7)
  def test_rates_leave_out_compilation(self, start):
    class Clock(trainer_lib.Callback):
      def on_train_batch_end(self, trainer, state, metrics):
        first = int(state.step) == start + 1
        metrics['perf/update_seconds'] = 100.0 if first else 0.25

    recorder = toy.Recorder()
    trainer_lib.Trainer(
      step=toy.update,
      num_updates=start + 3,
      logger=recorder,
      callbacks=(Clock(), monitors.Throughput(10)),
    ).fit(toy.init(start))
    rates = {
      'perf/updates_per_second': 4.0,
      'perf/interventions_per_second': 40.0,
    }
    for metrics, expected in zip(
      [row for _, row in recorder.metrics],
      [{'perf/first_update_seconds': 100.0}, rates, rates],
      strict=True,
    ):
      del metrics['perf/update_seconds']
      rates_of_row = {tag: x for tag, x in metrics.items() if tag[:4] == 'perf'}
      self.assertEqual(rates_of_row, expected)

  def test_an_update_has_interventions(self):
    with self.assertRaisesRegex(ValueError, 'interventions_per_update is 0'):
      monitors.Throughput(0)


class LearningRateTest(absltest.TestCase):
  def test_is_the_rate_at_the_start_of_the_update(self):
    rows = _fit(3, monitors.LearningRate(lambda update: 0.5**update))
    rates = [row['train/learning_rate'] for row in rows]
    self.assertEqual(rates, [1.0, 0.5, 0.25])


class FiguresTest(absltest.TestCase):
  def test_draws_the_curves_so_far_also_after_a_restart(self):
    drawn = []

    def draw(curves):
      drawn.append({tag: len(x) for tag, x in curves.items()})

    def trainer(num_updates):
      return trainer_lib.Trainer(
        step=toy.update,
        num_updates=num_updates,
        callbacks=(
          callbacks.Evaluation(toy.evaluate, 2),
          monitors.Figures('train/', {'figures/a': draw}),
        ),
      )

    first = trainer(3)
    state = first.fit(toy.init())
    second = trainer(4)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    second.fit(state)
    # Drawn at 0, 2, 3 and 4, before the evaluated update itself is added.
    self.assertEqual(
      drawn, [{}, {'train/loss': 1}, {'train/loss': 2}, {'train/loss': 3}]
    )


class ProfileTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    root = self.enterContext(tempfile.TemporaryDirectory())
    self.directory = pathlib.Path(root)

  @parameterized.parameters((5, 2), (3, 9))
  def test_writes_a_trace(self, num_updates, length):
    _fit(num_updates, monitors.Profile(self.directory, 2, length))
    (path,) = self.directory.rglob('perfetto_trace.json.gz')
    with gzip.open(path) as file:
      trace = json.load(file)
    self.assertNotEmpty(trace['traceEvents'])

  def test_an_interrupted_trace_is_written(self):
    class Break(trainer_lib.Callback):
      def on_train_batch_end(self, trainer, state, metrics):
        if trainer.updates == 3:
          raise ValueError('broken')

    with self.assertRaisesRegex(ValueError, 'broken'):
      _fit(5, monitors.Profile(self.directory, 2, 9), Break())
    self.assertLen(list(self.directory.rglob('perfetto_trace.json.gz')), 1)

  def test_the_first_update_compiles(self):
    with self.assertRaisesRegex(ValueError, 'first_update is 1'):
      monitors.Profile(self.directory, 1, 3)


if __name__ == '__main__':
  absltest.main()
