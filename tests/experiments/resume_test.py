"""Real processes, killed and resumed: nothing is lost, nothing is different."""

import functools
import json
import pathlib
import signal
import tempfile
import time

from absl.testing import absltest
from absl.testing import parameterized
import numpy as np
import pytest
from tensorboard.backend.event_processing import event_accumulator

from acme_cbo.training import trainer as trainer_lib
from tests.support import processes

_UPDATES = 40
_CONFIG = [
  '--config=configs/grpo.py:smoke',
  f'--config.training.num_updates={_UPDATES}',
  '--config.training.eval_every=5',
  '--config.training.checkpoint_every=4',
  '--config.scms.max_variables=4',
  '--config.horizon.num_interventions=3',
  '--config.grpo.num_tasks=8',
  '--config.evaluation.num_tasks=10',
]


_start = functools.partial(processes.start, 'launchers/train.py')
_finish = functools.partial(processes.finish, 'launchers/train.py')


def _rows(workdir):
  """Returns the logged rows without measured times."""
  lines = (workdir / 'metrics.jsonl').read_text().splitlines()
  return [
    {
      tag: value
      for tag, value in json.loads(line).items()
      if tag != 'time' and not tag.startswith('perf/')
    }
    for line in lines
  ]


def _points(workdir):
  """{tag: [(step, value)]} as a reader that knows of no restart sees it."""
  events = event_accumulator.EventAccumulator(
    str(workdir / 'tb'), purge_orphaned_data=False
  ).Reload()
  return {
    tag: [(event.step, event.value) for event in events.Scalars(tag)]
    for tag in events.scalars.Keys()
    if not tag.startswith('perf/')
  }


def _arrays(workdir):
  """The digests of the last state."""
  path = workdir / 'checkpoints' / str(_UPDATES) / 'digests' / 'metadata'
  return json.loads(path.read_text())['leaves']


class Stops(trainer_lib.Callback):
  def on_after_log(self, trainer, state, metrics):
    if trainer.updates == 6:
      trainer.stop('enough')


class Breaks(trainer_lib.Callback):
  def on_after_log(self, trainer, state, metrics):
    if trainer.updates == 6:
      raise ValueError('broken')


@pytest.mark.slow
@pytest.mark.fault
@pytest.mark.timeout(1800)
class ResumeTest(parameterized.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    root = tempfile.TemporaryDirectory()
    cls.addClassCleanup(root.cleanup)
    cls.root = pathlib.Path(root.name)
    cls.whole = cls.root / 'whole'
    code, output = _finish(*_CONFIG, f'--workdir={cls.whole}')
    assert code == 0, output

  def _updates(self, workdir):
    path = workdir / 'metrics.jsonl'
    return len(path.read_text().splitlines()) if path.exists() else 0

  def _assert_same(self, workdir):
    self.assertEqual(_rows(workdir), _rows(self.whole))
    self.assertEqual(_points(workdir), _points(self.whole))
    self.assertEqual(_arrays(workdir), _arrays(self.whole))
    for name in ('results.csv', 'texts.jsonl', 'config.json'):
      one, other = ((x / name).read_text() for x in (workdir, self.whole))
      if name == 'texts.jsonl':
        one, other = (json.loads(x)['text'] for x in (one, other))
      self.assertEqual(one, other)
    summaries = [
      json.loads((x / 'summary.json').read_text())
      for x in (workdir, self.whole)
    ]
    for summary in summaries:
      self.assertEqual(summary['status'], 'finished')
      del summary['seconds']
    self.assertEqual(*summaries)

  @parameterized.parameters(0, 1, 2)
  def test_killed_at_random_moments(self, seed):
    rng = np.random.default_rng(seed)
    workdir = self.root / f'killed {seed}'
    flags = _CONFIG
    for kill_after in np.sort(rng.uniform(0, _UPDATES, 3)):
      with _start(*flags, f'--workdir={workdir}') as process:
        while self._updates(workdir) < kill_after and process.poll() is None:
          time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.3))
        process.kill()
      flags = ['--resume']
    code, output = _finish('--resume', f'--workdir={workdir}')
    self.assertEqual(code, 0, output)
    self._assert_same(workdir)

  @parameterized.parameters((signal.SIGINT, 130), (signal.SIGTERM, 143))
  def test_a_signal_saves_and_ends_within_ten_seconds(self, number, code):
    workdir = self.root / f'interrupted {code}'
    with _start(*_CONFIG, f'--workdir={workdir}') as process:
      while self._updates(workdir) < 10:
        time.sleep(0.01)
      begin = time.monotonic()
      process.send_signal(number)
      output, _ = process.communicate(timeout=60)
      self.assertLess(time.monotonic() - begin, 10)
    self.assertEqual(process.returncode, code, output)
    self.assertNotIn('Traceback', output)
    summary = json.loads((workdir / 'summary.json').read_text())
    self.assertEqual(summary['status'], 'interrupted')
    self.assertGreaterEqual(summary['updates'], 9)
    self.assertEqual(summary['latest_checkpoint'], summary['updates'])
    self.assertIn(f'after update {summary["updates"]}', output)
    (command,) = (
      x for x in output.splitlines() if x.startswith('resume with: ')
    )
    self.assertEndsWith(command, f"--resume '--workdir={workdir}'")
    code, output = _finish('--resume', f'--workdir={workdir}')
    self.assertEqual(code, 0, output)
    self._assert_same(workdir)

  def test_a_second_signal_ends_it_at_once(self):
    workdir = self.root / 'twice'
    with _start(*_CONFIG, f'--workdir={workdir}') as process:
      # While it compiles, no Python code could see a signal.
      while not (workdir / 'config.json').exists():
        time.sleep(0.01)
      time.sleep(1.0)
      process.send_signal(signal.SIGTERM)
      time.sleep(0.5)
      begin = time.monotonic()
      process.send_signal(signal.SIGTERM)
      output, _ = process.communicate(timeout=60)
      self.assertLess(time.monotonic() - begin, 1)
    self.assertEqual(process.returncode, 143, output)
    summary = json.loads((workdir / 'summary.json').read_text())
    self.assertEqual(summary['status'], 'interrupted')

  @parameterized.parameters(
    ((), 0, 'finished', 'all updates were made'),
    (
      ('--config.training.callbacks=("tests.experiments.resume_test:Stops",)',),
      0,
      'finished',
      'enough',
    ),
    (
      (
        '--config.training.callbacks=("tests.experiments.resume_test:Breaks",)',
      ),
      1,
      'failed',
      'ValueError: broken; raised by the callback Breaks in on_after_log',
    ),
    (
      (
        '--config.optimizer.learning_rate=1e6',
        '--config.optimizer.warmup_updates=0',
      ),
      1,
      'diverged',
      'is not finite on SCM',
    ),
  )
  def test_every_end_is_told_and_quick(self, flags, code, status, reason):
    workdir = self.root / f'{status} {len(flags)}'
    found, output = _finish(*_CONFIG, *flags, f'--workdir={workdir}')
    ended = time.time()
    self.assertEqual(found, code, output)
    summary = json.loads((workdir / 'summary.json').read_text())
    self.assertEqual(summary['status'], status)
    self.assertIn(reason, summary['reason'])
    self.assertLess(ended - (workdir / 'summary.json').stat().st_mtime, 15)

  def test_two_processes_do_not_share_a_directory(self):
    workdir = self.root / 'shared'
    with _start(*_CONFIG, f'--workdir={workdir}') as process:
      while self._updates(workdir) < 5:
        time.sleep(0.01)
      code, output = _finish('--resume', f'--workdir={workdir}')
      self.assertIsNone(process.poll())
      process.kill()
    self.assertEqual(code, 2)
    self.assertIn('another process is using', output)

  def test_what_is_gone_is_said_and_nothing_else_is_lost(self):
    workdir = self.root / 'robbed'
    with _start(*_CONFIG, f'--workdir={workdir}') as process:
      while self._updates(workdir) < 14:
        time.sleep(0.01)
      process.kill()
    (workdir / 'metrics.jsonl').unlink()
    steps = sorted(x.name for x in (workdir / 'checkpoints').iterdir())
    whole = [x for x in steps if x.isdigit()]
    code, output = _finish(f'--resume_step={whole[0]}', f'--workdir={workdir}')
    self.assertEqual(code, 2)
    self.assertIn('metrics.jsonl has 0 bytes', output)
    left = sorted(x.name for x in (workdir / 'checkpoints').iterdir())
    self.assertContainsSubset(whole, left)

  def test_an_earlier_step_can_be_chosen(self):
    workdir = self.root / 'earlier'
    with _start(*_CONFIG, f'--workdir={workdir}') as process:
      while self._updates(workdir) < 20:
        time.sleep(0.01)
      process.kill()
    steps = sorted(int(x.name) for x in (workdir / 'checkpoints').iterdir())
    code, output = _finish(f'--resume_step={steps[-2]}', f'--workdir={workdir}')
    self.assertEqual(code, 0, output)
    self.assertIn(f'resuming after update {steps[-2]}\n', output)
    self._assert_same(workdir)

  def test_another_config_and_a_finished_run_are_refused(self):
    code, output = _finish('--resume', f'--workdir={self.whole}')
    self.assertEqual(code, 2)
    self.assertIn('is finished', output)
    workdir = self.root / 'changed'
    workdir.mkdir()
    (workdir / 'config.json').write_text(
      (self.whole / 'config.json').read_text()
    )
    flags = [*_CONFIG, '--config.grpo.beta=0.1', '--config.seed=3']
    code, output = _finish(*flags, '--resume', f'--workdir={workdir}')
    self.assertEqual(code, 2)
    self.assertIn('config.grpo.beta: 0.0 -> 0.1; config.seed: 0 -> 3', output)
    self.assertEqual([x.name for x in workdir.iterdir()], ['config.json'])


if __name__ == '__main__':
  absltest.main()
