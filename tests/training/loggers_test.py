import json
import pathlib
import tempfile
from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized
from tensorboard.backend.event_processing import event_accumulator
from tensorboard.backend.event_processing import event_file_loader
from tensorboardX import event_file_writer

from acme_cbo.infra import errors
from acme_cbo.training import loggers
from tests.training import toy


def _read(workdir):
  accumulator = event_accumulator.EventAccumulator(str(workdir / 'tb'))
  accumulator.Reload()
  return accumulator


def _points(accumulator, tag):
  return [(event.step, event.value) for event in accumulator.Scalars(tag)]


class WorkdirTestCase(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    root = self.enterContext(tempfile.TemporaryDirectory())
    self.workdir = pathlib.Path(root) / 'new' / 'run'


class TensorBoardLoggerTest(WorkdirTestCase):
  def test_scalars_and_texts_are_read_back(self):
    logger = loggers.TensorBoardLogger(self.workdir)
    logger.write_text('config', 'num_generations = 16')
    logger.write(0, {'eval/grpo/score_last': 0.25})
    logger.write(1, {'train/loss': -1.5, 'perf/updates_per_second': 3.0})
    logger.write(2, {'train/loss': 2.0})
    logger.close()
    logger.close()
    events = _read(self.workdir)
    self.assertCountEqual(
      events.scalars.Keys(),
      ['eval/grpo/score_last', 'perf/updates_per_second', 'train/loss'],
    )
    self.assertEqual(_points(events, 'eval/grpo/score_last'), [(0, 0.25)])
    self.assertEqual(_points(events, 'train/loss'), [(1, -1.5), (2, 2.0)])
    (config,) = events.Tensors('config/text_summary')
    self.assertEqual(config.tensor_proto.string_val[0], b'num_generations = 16')

  def test_flushes_while_it_is_open(self):
    logger = loggers.TensorBoardLogger(self.workdir, flush_seconds=0.0)
    logger.write(1, {'train/loss': 0.5})
    self.assertEqual(_points(_read(self.workdir), 'train/loss'), [(1, 0.5)])
    logger.close()

  def test_a_resumed_run_hides_what_it_does_again(self):
    # Both files are opened within one second: neither overwrites the other.
    first = loggers.TensorBoardLogger(self.workdir)
    for step in (1, 2):
      first.write(step, {'train/loss': float(step)})
    # The initial state may be evaluated later.
    first.write(0, {'eval/score': 0.5})
    saved = first.state_dict()
    first.write(3, {'train/loss': 3.0})
    first.close()
    second = loggers.TensorBoardLogger(self.workdir)
    second.load_state_dict(json.loads(json.dumps(saved)))
    for step in (3, 4):
      second.write(step, {'train/loss': 10.0 * step})
    second.close()
    files = sorted((self.workdir / 'tb').iterdir())
    self.assertLen(files, 2)
    self.assertEqual(
      _points(_read(self.workdir), 'train/loss'),
      [(1, 1.0), (2, 2.0), (3, 30.0), (4, 40.0)],
    )
    # A TensorBoard that has read the old file drops its later events.
    (start,) = (
      event
      for event in event_file_loader.EventFileLoader(str(files[1])).Load()
      if event.HasField('session_log')
    )
    self.assertEqual(start.step, 3)

  def test_what_a_killed_start_wrote_is_gone(self):
    first = loggers.TensorBoardLogger(self.workdir)
    first.write(1, {'train/loss': 1.0})
    saved = first.state_dict()
    first.close()
    for value in (20.0, 30.0):
      again = loggers.TensorBoardLogger(self.workdir)
      again.load_state_dict(saved)
      again.write(2, {'train/loss': value})
      again.close()
    self.assertLen(list((self.workdir / 'tb').iterdir()), 2)
    self.assertEqual(
      _points(_read(self.workdir), 'train/loss'), [(1, 1.0), (2, 30.0)]
    )

  def test_a_write_that_fails_raises(self):
    logger = loggers.TensorBoardLogger(self.workdir)
    with (
      mock.patch.object(
        event_file_writer.RecordWriter, 'write', side_effect=OSError(28, 'full')
      ),
      self.assertRaisesRegex(OSError, 'full: .*/tb'),
    ):
      logger.write(1, {'train/loss': 0.5})
    logger.close()

  def test_a_write_after_close_raises(self):
    logger = loggers.TensorBoardLogger(self.workdir)
    logger.close()
    with self.assertRaisesRegex(ValueError, 'closed file'):
      logger.write(1, {'train/loss': 0.5})


class JsonlLoggerTest(WorkdirTestCase):
  def _rows(self):
    lines = (self.workdir / 'metrics.jsonl').read_text().splitlines()
    return [json.loads(line) for line in lines]

  def test_one_object_a_line_readable_while_open(self):
    logger = loggers.JsonlLogger(self.workdir)
    logger.write(3, {'train/loss': 0.1, 'reward/total': 1.0})
    (row,) = self._rows()
    self.assertEqual(list(row), ['step', 'time', 'train/loss', 'reward/total'])
    self.assertGreater(row.pop('time'), 1.7e9)
    self.assertEqual(row, {'step': 3, 'train/loss': 0.1, 'reward/total': 1.0})
    logger.close()
    logger.close()

  def test_appends_to_what_is_there(self):
    for step in (1, 2):
      logger = loggers.JsonlLogger(self.workdir)
      logger.write(step, {})
      logger.close()
    self.assertEqual([row['step'] for row in self._rows()], [1, 2])

  def test_forgets_what_came_after_its_state(self):
    logger = loggers.JsonlLogger(self.workdir)
    logger.write_text('config', 'a')
    logger.write(1, {'train/loss': 0.5})
    saved = json.loads(json.dumps(logger.state_dict()))
    logger.write(2, {'train/loss': 0.6})
    logger.write_text('config', 'b')
    logger.close()
    with (self.workdir / 'metrics.jsonl').open('a') as file:
      file.write('{"step": 3, "tra')  # As after a kill.
    again = loggers.JsonlLogger(self.workdir)
    again.load_state_dict(saved)
    again.write(2, {'train/loss': 0.7})
    again.close()
    rows = [(row['step'], row['train/loss']) for row in self._rows()]
    self.assertEqual(rows, [(1, 0.5), (2, 0.7)])
    self.assertLen((self.workdir / 'texts.jsonl').read_text().splitlines(), 1)

  def test_rows_that_are_gone_cannot_be_gone_on_from(self):
    logger = loggers.JsonlLogger(self.workdir)
    logger.write(1, {'train/loss': 0.5})
    saved = logger.state_dict()
    logger.close()
    (self.workdir / 'metrics.jsonl').write_text('')
    again = loggers.JsonlLogger(self.workdir)
    with self.assertRaisesRegex(errors.UsageError, 'metrics.jsonl has 0 bytes'):
      again.check_state_dict(saved)
    again.close()

  @parameterized.parameters(float('nan'), float('inf'))
  def test_refuses_what_json_cannot_hold(self, value):
    logger = loggers.JsonlLogger(self.workdir)
    with self.assertRaises(ValueError):
      logger.write(1, {'train/loss': value})
    logger.close()
    self.assertEqual(self._rows(), [])

  @parameterized.parameters('step', 'time')
  def test_refuses_tags_that_would_replace_its_own(self, tag):
    logger = loggers.JsonlLogger(self.workdir)
    with self.assertRaisesRegex(ValueError, tag):
      logger.write(1, {tag: 0.0})
    logger.close()

  def test_texts_are_kept_apart(self):
    logger = loggers.JsonlLogger(self.workdir)
    logger.write_text('config', 'a = 1\nb = 2')
    logger.close()
    self.assertEqual(self._rows(), [])
    (line,) = (self.workdir / 'texts.jsonl').read_text().splitlines()
    row = json.loads(line)
    self.assertEqual((row['tag'], row['text']), ('config', 'a = 1\nb = 2'))


class LoggerGroupTest(absltest.TestCase):
  def test_passes_everything_on(self):
    members = toy.Recorder(), toy.Recorder()
    group = loggers.LoggerGroup(*members)
    group.write(1, {'a': 2.0})
    group.write_text('config', 'x')
    group.close()
    for member in members:
      self.assertEqual(member.metrics, [(1, {'a': 2.0})])
      self.assertEqual(
        member.calls, [('write', 1), ('write_text', 'config', 'x'), ('close',)]
      )

  def test_closes_all_though_one_fails(self):
    for failing in range(3):
      members = [toy.Recorder() for _ in range(3)]
      members[failing].failures['close'] = OSError('broken')
      with self.assertRaisesRegex(OSError, 'broken'):
        loggers.LoggerGroup(*members).close()
      self.assertEqual([member.calls for member in members], [[('close',)]] * 3)


class NoopLoggerTest(absltest.TestCase):
  def test_has_every_method(self):
    logger = loggers.NoopLogger()
    logger.write(1, {'a': 1.0})
    logger.write_text('config', 'x')
    logger.close()


if __name__ == '__main__':
  absltest.main()
