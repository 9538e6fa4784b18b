"""Tests of whole sweeps, with stub jobs and (slow) with real ones."""

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

# Imported before `_run` redirects stderr: its import closes the handlers of all
# loggers, and absl's then closes a stream that sys.stderr does not refer to.
import submitit  # noqa: F401

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
  'edges': 'unknown',
  'seed': 0,
  'confidence': 0.95,
  'allow_mismatch': False,
}


class SweepTest(absltest.TestCase):
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
    self._patch_job('_train', jobs_that_end.train)
    self._patch_job('_compare', jobs_that_end.write_names)
    # Flags cannot name the environments of tests.
    self.enterContext(mock.patch.object(sweep, '_check'))

  def _run(self, executor=executors.Local, seeds=(0,)):
    """Returns failures and the printed text."""
    printed = io.StringIO()
    config = {'seeds': seeds, 'evaluation': _EVALUATION}
    with (
      contextlib.redirect_stderr(printed),
      contextlib.redirect_stdout(printed),
    ):
      failures = sweep.run(
        config, self.configurations, self.workdir, 1, executor
      )
    return failures, printed.getvalue()

  def _patch_job(self, job, function):
    self.enterContext(mock.patch.object(sweep, job, function))

  def _set_ending(self, name, rate):
    self.configurations[name]['optimizer']['learning_rate'] = rate

  def _started_runs(self):
    return (self.workdir / 'began').read_text().split()

  def test_trains_and_compares(self):
    self._patch_job('_compare', jobs_that_end.compare)
    failures, printed = self._run()
    self.assertEmpty(failures)
    self.assertEqual(self._started_runs(), ['with-seed0', 'without-seed0'])
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

  def test_repeats_nothing(self):
    self._run()
    failures, _ = self._run()
    self.assertEmpty(failures)
    self.assertLen(self._started_runs(), 2)
    # More seeds are not another sweep.
    failures, printed = self._run(seeds=(0, 1))
    self.assertEqual(self._started_runs()[2:], ['with-seed1', 'without-seed1'])
    for name in ('with-seed0', 'without-seed1'):
      self.assertIn(f'Compared: {name}.', printed)

  @pytest.mark.fault
  def test_a_failure_is_reported_and_stops_no_other_job(self):
    self.configurations |= {
      name: json.loads(json.dumps(self.configurations['with']))
      for name in ('breaks', 'is_killed')
    }
    self._set_ending('breaks', jobs_that_end.FAILS)
    self._set_ending('is_killed', jobs_that_end.DIES)
    failures, printed = self._run()
    self.assertLen(failures, 2)
    self.assertRegex(
      failures[0], r'breaks, seed 0 failed: RuntimeError: broken on .*\.log\)$'
    )
    self.assertRegex(
      failures[1], r'is_killed, seed 0 failed: the process was killed \('
    )
    self.assertIn('with-seed0', printed)
    self.assertNotIn('breaks-seed0', printed.partition('Compared')[2])
    summary = json.loads((self.workdir / 'report/summary.json').read_text())
    self.assertEqual(summary['remarks'], [f'{x}.' for x in failures])
    # Only the failed trainings are repeated.
    self.configurations['breaks']['optimizer']['learning_rate'] = 0.01
    failures, _ = self._run()
    self.assertEqual(
      self._started_runs()[4:], ['breaks-seed0', 'is_killed-seed0']
    )
    self.assertLen(failures, 1)

  @pytest.mark.fault
  def test_a_failed_comparison_shows_no_earlier_one(self):
    self._run()
    self._patch_job('_compare', jobs_that_end.cannot_compare)
    failures, printed = self._run()
    self.assertRegex(failures[0], r'comparison failed: error: no such thing \(')
    self.assertNotIn('Compared', printed)
    # The earlier report is kept.
    self.assertTrue((self.workdir / 'report' / 'summary.json').exists())

  def test_nothing_to_compare(self):
    self._set_ending('with', jobs_that_end.FAILS)
    failures, _ = self._run()
    self.assertLen(failures, 2)
    self.assertIn('fewer than two trainings are finished', failures[1])
    self.assertFalse((self.workdir / 'report').exists())

  @pytest.mark.fault
  def test_a_signal_ends_it_gracefully(self):
    self._set_ending('without', jobs_that_end.LASTS)

    def interrupt():
      while (
        not (self.workdir / 'began').exists() or len(self._started_runs()) < 2
      ):
        time.sleep(0.02)
      os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with self.assertRaisesRegex(
      errors.Interrupted, 'SIGINT with 1 of 3 jobs finished; rerun the same'
    ):
      self._run()
    thread.join()
    self.assertEmpty(psutil.Process().children(recursive=False)[1:])

  def test_on_a_cluster(self):
    cluster = functools.partial(_cluster, self.root / 'cluster')
    failures, _ = self._run(cluster)
    self.assertEmpty(failures)
    self.assertTrue((self.workdir / 'report' / 'summary.json').exists())

  def test_refuses_another_directory(self):
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
  """Returns the report without times and paths."""
  text = (workdir / 'report' / 'index.html').read_text()
  head, _, _ = text.partition('<h2>Date and computing time</h2>')
  return head.replace(str(workdir), 'S')


@pytest.mark.slow
@pytest.mark.timeout(1500)
class SmokeTest(absltest.TestCase):
  """Runs the sweep that the README shows, as a user starts it."""

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
        output, _ = process.communicate(timeout=600)
      self.assertEqual(process.returncode, 0, output)

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
        output, _ = process.communicate(timeout=600)
      self.assertEqual(process.returncode, 0, output)
      for path, before in finished.items():
        self.assertEqual((path.stat().st_mtime_ns, path.read_bytes()), before)
      self.assertEqual(_page(killed), _page(whole))


if __name__ == '__main__':
  absltest.main()
