"""Whole studies: of jobs that only leave what trainings do; slow, real ones."""

import contextlib
import functools
import io
import json
import os
import pathlib
import signal
import tempfile
import threading
import time
from unittest import mock

from absl.testing import absltest
import psutil
import pytest

from acme_cbo.experiments import executors
from acme_cbo.experiments import sweep
from acme_cbo.infra import errors
from configs import grpo
from tests.experiments import jobs_that_end
from tests.support import processes
from tests.support import tiny_environments

_EVALUATION = {
  'scm': ('chain',),
  'repeats': 2,
  'samples': 1,
  'budget': None,
  'seed': 0,
  'confidence': 0.95,
  'allow_mismatch': False,
}


class WorkflowTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.root = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
    self.workdir = self.root / 'S'
    self.configurations = {}
    for name, parent in (('with', 0.3), ('without', 0.0)):
      config = grpo.get_config('smoke')
      config.rewards.parent = parent
      config.horizon.num_interventions = 2
      self.configurations[name] = config.to_dict()
    policy = self.root / 'policy'
    tiny_environments.save_policy(policy)
    environment = {jobs_that_end.POLICY: str(policy)}
    self.enterContext(mock.patch.dict(os.environ, environment))
    self._becomes('_train', jobs_that_end.train)
    self._becomes('_compare', jobs_that_end.names_them)
    # The systems of tests are none that flags may name.
    self.enterContext(mock.patch.object(sweep, '_check'))

  def _run(self, executor=executors.Local, seeds=(0,)):
    """What failed, and what was printed."""
    printed = io.StringIO()
    config = {'seeds': seeds, 'evaluation': _EVALUATION}
    settings = sweep.Settings(self.workdir, 1, executor)
    with (
      contextlib.redirect_stderr(printed),
      contextlib.redirect_stdout(printed),
    ):
      failed = sweep.run(config, self.configurations, settings)
    return failed, printed.getvalue()

  def _becomes(self, job, function):
    self.enterContext(mock.patch.object(sweep, job, function))

  def _ends(self, name, how):
    self.configurations[name]['optimizer']['learning_rate'] = how

  def _begun(self):
    return (self.workdir / 'began').read_text().split()

  def test_trains_and_compares(self):
    self._becomes('_compare', jobs_that_end.compare)
    failed, printed = self._run()
    self.assertEmpty(failed)
    self.assertEqual(self._begun(), ['with-seed0', 'without-seed0'])
    summary = json.loads((self.workdir / 'report/summary.json').read_text())
    self.assertEqual(
      [one['configuration'] for one in summary['models'].values()],
      ['with', 'without'],
    )
    self.assertIn('with, seed 0: finished, held-out score 0.50', printed)
    self.assertIn(summary['verdict'][0], printed)
    page = self.workdir / 'report' / 'index.html'
    self.assertIn(str(page), printed)
    self.assertIn(summary['verdict'][0], page.read_text())

  def test_begins_nothing_twice(self):
    self._run()
    failed, _ = self._run()
    self.assertEmpty(failed)
    self.assertLen(self._begun(), 2)
    # More of them is no other study.
    failed, printed = self._run(seeds=(0, 1))
    self.assertEqual(self._begun()[2:], ['with-seed1', 'without-seed1'])
    for name in ('with-seed0', 'without-seed1'):
      self.assertIn(f'Compared: {name}.', printed)

  @pytest.mark.fault
  def test_what_fails_is_told_and_stops_no_other(self):
    self.configurations |= {
      name: json.loads(json.dumps(self.configurations['with']))
      for name in ('breaks', 'is_killed')
    }
    self._ends('breaks', jobs_that_end.FAILS)
    self._ends('is_killed', jobs_that_end.DIES)
    failed, printed = self._run()
    self.assertLen(failed, 2)
    self.assertRegex(
      failed[0], r'breaks, seed 0 failed: RuntimeError: broken on .*\.log\)$'
    )
    self.assertRegex(failed[1], r'is_killed, seed 0 failed: it was killed \(')
    self.assertIn('with-seed0', printed)
    self.assertNotIn('breaks-seed0', printed.partition('Compared')[2])
    summary = json.loads((self.workdir / 'report/summary.json').read_text())
    self.assertEqual(summary['remarks'], [f'{one}.' for one in failed])
    # It is tried again, and nothing else is.
    self.configurations['breaks']['optimizer']['learning_rate'] = 0.01
    failed, _ = self._run()
    self.assertEqual(self._begun()[4:], ['breaks-seed0', 'is_killed-seed0'])
    self.assertLen(failed, 1)

  @pytest.mark.fault
  def test_a_comparison_that_fails_is_no_old_one(self):
    self._run()
    self._becomes('_compare', jobs_that_end.cannot_compare)
    failed, printed = self._run()
    self.assertRegex(failed[0], r'comparison failed: error: no such thing \(')
    self.assertNotIn('Compared', printed)
    # That of before is left where it is.
    self.assertTrue((self.workdir / 'report' / 'summary.json').exists())

  def test_nothing_to_compare(self):
    self._ends('with', jobs_that_end.FAILS)
    failed, _ = self._run()
    self.assertLen(failed, 2)
    self.assertIn('fewer than two trainings are finished', failed[1])
    self.assertFalse((self.workdir / 'report').exists())

  @pytest.mark.fault
  def test_a_signal_ends_it_in_good_order(self):
    self._ends('without', jobs_that_end.LASTS)

    def interrupt():
      while not (self.workdir / 'began').exists() or len(self._begun()) < 2:
        time.sleep(0.02)
      os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with self.assertRaisesRegex(
      errors.Interrupted, 'SIGINT with 1 of 3 jobs finished; the same command'
    ):
      self._run()
    thread.join()
    self.assertEmpty(psutil.Process().children(recursive=False)[1:])

  def test_on_a_cluster(self):
    cluster = functools.partial(_cluster, self.root / 'cluster')
    failed, _ = self._run(cluster)
    self.assertEmpty(failed)
    self.assertTrue((self.workdir / 'report' / 'summary.json').exists())

  def test_a_directory_of_something_else(self):
    self.workdir.mkdir()
    (self.workdir / 'mine').touch()
    with self.assertRaisesRegex(
      errors.UsageError, 'something other than a sweep'
    ):
      self._run()


def _cluster(folder, jobs, logs):
  del jobs, logs
  folder.mkdir(exist_ok=True)
  return executors.Cluster(folder, {'timeout_min': 5}, cluster='local')


def _page(workdir):
  """The report, but for when it was made, and where."""
  text = (workdir / 'report' / 'index.html').read_text()
  head, _, _ = text.partition('<h2>Date and computing time</h2>')
  return head.replace(str(workdir), 'S')


@pytest.mark.slow
@pytest.mark.timeout(1500)
class SmokeTest(absltest.TestCase):
  """The study that the README shows, as a user starts it."""

  def _start(self, workdir):
    return processes.start(
      'launchers/workflow.py',
      '--config=configs/workflow.py:smoke',
      f'--workdir={workdir}',
    )

  def test_a_kill_repeats_nothing_and_changes_nothing(self):
    with tempfile.TemporaryDirectory() as directory:
      root = pathlib.Path(directory)
      whole, killed = root / 'whole', root / 'killed'
      with self._start(whole) as process:
        said, _ = process.communicate(timeout=600)
      self.assertEqual(process.returncode, 0, said)

      with self._start(killed) as process:
        while len([*killed.glob('runs/*/summary.json')]) < 5:
          time.sleep(0.1)
        process.kill()
        process.wait()
      finished = {
        path: (path.stat().st_mtime_ns, path.read_bytes())
        for path in killed.glob('runs/*/summary.json')
      }
      with self._start(killed) as process:
        said, _ = process.communicate(timeout=600)
      self.assertEqual(process.returncode, 0, said)
      for path, before in finished.items():
        self.assertEqual((path.stat().st_mtime_ns, path.read_bytes()), before)
      self.assertEqual(_page(killed), _page(whole))


if __name__ == '__main__':
  absltest.main()
