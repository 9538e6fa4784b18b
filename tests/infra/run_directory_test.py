"""Tests of run directories: creation, resume checks, locks and summaries."""

import json
import os
import pathlib
import signal
import tempfile
import time
from typing import Any

from absl.testing import absltest
from absl.testing import parameterized
import pytest

from acme_cbo.infra import errors
from acme_cbo.infra import run_directory


class DirectoryTestCase(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    root = self.enterContext(tempfile.TemporaryDirectory())
    self.directory = pathlib.Path(root)


class PrepareTest(DirectoryTestCase):
  def test_makes_what_is_missing(self):
    workdir = self.directory / 'a' / 'b'
    run_directory.prepare(workdir)
    self.assertEmpty(list(workdir.iterdir()))

  def test_takes_an_empty_directory(self):
    run_directory.prepare(self.directory)
    self.assertEmpty(list(self.directory.iterdir()))

  def test_refuses_and_leaves_what_is_there(self):
    (self.directory / '.hidden').write_text('mine')
    with self.assertRaisesRegex(errors.UsageError, 'is not empty'):
      run_directory.prepare(self.directory)
    self.assertLen(list(self.directory.iterdir()), 1)

  @parameterized.parameters(b'a\xff', b'a\nb')
  def test_refuses_a_path_that_cannot_be_shown(self, name):
    workdir = self.directory / os.fsdecode(name)
    with self.assertRaisesRegex(errors.UsageError, 'cannot be shown'):
      run_directory.prepare(workdir)
    self.assertFalse(workdir.exists())

  def test_refuses_a_link_in_place_of_a_leftover(self):
    mine = self.directory / 'mine'
    mine.write_text('mine')
    workdir = self.directory / 'a'
    workdir.mkdir()
    (workdir / 'config.json.new').symlink_to(mine)
    with self.assertRaisesRegex(errors.UsageError, 'config.json.new is a link'):
      run_directory.prepare(workdir)
    self.assertEqual(mine.read_text(), 'mine')

  def test_refuses_a_file(self):
    (self.directory / 'a').write_text('mine')
    for workdir in (self.directory / 'a', self.directory / 'a' / 'b'):
      with self.assertRaisesRegex(errors.UsageError, 'cannot be created'):
        run_directory.prepare(workdir)


class WriteTest(DirectoryTestCase):
  def test_bytes_of_a_path_that_are_not_utf8(self):
    path = self.directory / 'page'
    run_directory.write_text(path, os.fsdecode(b'runs/\xff'))
    self.assertEqual(path.read_text(), r'runs/\udcff')


class CheckFileTest(DirectoryTestCase):
  def test_where_a_file_can_be(self):
    path = self.directory / 'new' / 'figures.json'
    run_directory.check_file(path, '--out')
    self.assertFalse(path.exists())
    path.write_text('old')
    run_directory.check_file(path, '--out')
    self.assertEqual(path.read_text(), 'old')

  def test_where_none_can_be(self):
    with self.assertRaisesRegex(errors.UsageError, '--out=.* is a directory'):
      run_directory.check_file(self.directory, '--out')
    (self.directory / 'file').touch()
    with self.assertRaisesRegex(errors.UsageError, '--out=.*file cannot be'):
      run_directory.check_file(self.directory / 'file' / 'a.json', '--out')


class ResumableTest(DirectoryTestCase):
  def setUp(self):
    super().setUp()
    self.config = {'seed': 0, 'grpo': {'beta': 0.0, 'weights': (1.0, 2.0)}}

  def _begin(self):
    run_directory.record_start(self.directory, self.config, ['cpu:0'])

  def test_the_same_config_resumes(self):
    self._begin()
    run_directory.check_resumable(self.directory, [])

  def test_another_config_is_refused_with_the_difference(self):
    self._begin()
    differences = ['config.grpo.beta: 0.0 -> 0.5', 'config.x: nothing -> 3']
    with self.assertRaisesRegex(
      errors.UsageError,
      r'config\.grpo\.beta: 0\.0 -> 0\.5; config\.x: nothing -> 3$',
    ):
      run_directory.check_resumable(self.directory, differences)

  @parameterized.parameters(
    ('', 'has no config.json'),
    ('{"seed": 0', 'config.json is damaged'),
    ('[]', 'config.json is damaged'),
  )
  def test_no_run(self, text, sentence):
    if text:
      (self.directory / 'config.json').write_text(text)
    with self.assertRaisesRegex(errors.UsageError, sentence):
      run_directory.check_resumable(self.directory, [])

  @parameterized.parameters(
    ('{"status": "finished", "updates": 3}', 'is finished'),
    ('{"status": "fin', 'summary.json is damaged'),
    ('{}', 'summary.json is damaged'),
    ('[]', 'summary.json is damaged'),
  )
  def test_how_the_run_ended(self, text, sentence):
    self._begin()
    (self.directory / 'summary.json').write_text(text)
    with self.assertRaisesRegex(errors.UsageError, sentence):
      run_directory.check_resumable(self.directory, [])
    (self.directory / 'summary.json').write_text(
      '{"status": "interrupted", "updates": 3}'
    )
    run_directory.check_resumable(self.directory, [])

  def test_every_start_is_recorded(self):
    self._begin()
    (self.directory / 'summary.json').write_text('{"status": "interrupted"}')
    self._begin()
    environment = json.loads((self.directory / 'environment.json').read_text())
    self.assertLen(environment['starts'], 2)
    start = environment['starts'][1]
    self.assertEqual(start['devices'], ['cpu:0'])
    self.assertRegex(start['versions']['jax'], r'^\d+\.\d+')
    if (pathlib.Path(__file__).parents[2] / '.git').exists():
      self.assertLen(start['git']['revision'], 40)
      self.assertIsInstance(start['git']['dirty'], bool)
    # The summary of the previous start is removed.
    self.assertFalse((self.directory / 'summary.json').exists())

  def test_returns_changes_since_the_previous_start(self):
    starts = [{'cpus': 2, 'git': None}, {'cpus': 1, 'git': None, 'time': 'x'}]
    self.assertEqual(
      run_directory.environment_changes(starts), ['cpus: 2 -> 1']
    )
    self.assertEmpty(run_directory.environment_changes(starts[:1]))

  def test_a_damaged_record_is_named(self):
    (self.directory / 'environment.json').write_text('{"starts": [')
    with self.assertRaisesRegex(errors.UsageError, 'ment.json is damaged'):
      self._begin()
    self.assertFalse((self.directory / 'config.json').exists())

  def test_clears_only_a_run_without_updates(self):
    (self.directory / 'tb').mkdir()
    own = 'events.out.tfevents.1700000000.host.1700000000123456789.42'
    foreign = 'events.out.tfevents.1700000000.host.42.0'
    for name in (own, foreign):
      (self.directory / 'tb' / name).write_text('x')
    metrics = self.directory / 'metrics.jsonl'
    metrics.write_text('{"step": 1}\n')
    with self.assertRaisesRegex(errors.UsageError, 'but has no checkpoints'):
      run_directory.clear(self.directory)
    self.assertTrue(metrics.exists())
    metrics.write_text('{"st')
    run_directory.clear(self.directory)
    self.assertFalse(metrics.exists())
    left = [path.name for path in (self.directory / 'tb').iterdir()]
    self.assertEqual(left, [foreign])


class LockedTest(DirectoryTestCase):
  def test_one_at_a_time(self):
    with (
      run_directory.lock(self.directory),
      self.assertRaisesRegex(errors.UsageError, 'another process is using'),
      run_directory.lock(self.directory),
    ):
      self.fail('The directory was locked twice.')
    with run_directory.lock(self.directory):
      pass

  def test_no_directory(self):
    with (
      self.assertRaisesRegex(errors.UsageError, 'nothing: No such file'),
      run_directory.lock(self.directory / 'nothing'),
    ):
      self.fail('The directory was locked twice.')


@pytest.mark.fault
class EndingTest(DirectoryTestCase):
  def _summary(self):
    return json.loads((self.directory / 'summary.json').read_text())

  def test_a_run_that_finishes(self):
    facts: dict[str, Any] = {'name': 'a'}
    with run_directory.summary_on_exit(self.directory, facts, time.monotonic()):
      facts['updates'] = 3
      facts['finished_by'] = 'all updates were made'
    summary = self._summary()
    self.assertGreaterEqual(summary.pop('seconds'), 0)
    self.assertEqual(
      summary,
      {
        'status': 'finished',
        'reason': 'all updates were made',
        'name': 'a',
        'updates': 3,
      },
    )

  @parameterized.parameters(
    (
      errors.Interrupted(15, 'after update 4'),
      'interrupted',
      'SIGTERM after update 4',
    ),
    (FloatingPointError('update 4: nan'), 'diverged', 'update 4: nan'),
    (OSError(28, 'disk full'), 'failed', 'OSError: [Errno 28] disk full'),
    (KeyError('x'), 'failed', "KeyError: 'x'"),
  )
  def test_a_run_that_does_not(self, exception, status, reason):
    exception.add_note('raised by the callback Progress')
    with (
      self.assertRaises(type(exception)),
      # The reason of a finished run is not written.
      run_directory.summary_on_exit(
        self.directory, {'finished_by': 'all of it'}, time.monotonic()
      ),
    ):
      raise exception
    summary = self._summary()
    self.assertEqual(summary['status'], status)
    self.assertEqual(
      summary['reason'], f'{reason}; raised by the callback Progress'
    )

  def test_an_early_exit_is_a_failure(self):
    with (
      self.assertRaisesRegex(RuntimeError, r'ended by SystemExit\(0\)'),
      run_directory.summary_on_exit(self.directory, {}, time.monotonic()),
    ):
      raise SystemExit(0)
    self.assertEqual(self._summary()['status'], 'failed')

  @parameterized.parameters(signal.SIGINT, signal.SIGTERM)
  def test_a_signal_is_only_recorded(self, number):
    before = signal.getsignal(number)
    facts: dict[str, Any] = {'finished_by': 'all updates were made'}
    start = time.monotonic() - 100
    with run_directory.summary_on_exit(self.directory, facts, start) as guard:
      self.assertIsNone(guard.get_signal())
      os.kill(os.getpid(), number)
      time.sleep(0.05)
      self.assertEqual(guard.get_signal(), number)
    self.assertEqual(self._summary()['status'], 'finished')
    self.assertGreater(self._summary()['seconds'], 100)
    self.assertEqual(signal.getsignal(number), before)


if __name__ == '__main__':
  absltest.main()
