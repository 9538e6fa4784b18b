"""Jobs in processes of their own, and what is left when something ends."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

from absl.testing import absltest
from absl.testing import parameterized
import psutil
import pytest

from acme_cbo.experiments import executors
from acme_cbo.infra import errors
from tests.experiments import jobs_that_end

_ROOT = pathlib.Path(__file__).resolve().parents[2]


def _wait_for(condition, seconds=60):
  end = time.monotonic() + seconds
  while not condition():
    if time.monotonic() > end:
      raise TimeoutError
    time.sleep(0.02)


class _TestCase(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.root = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))


class LocalTest(_TestCase):
  def _executor(self, jobs=1):
    executor = executors.Local(jobs, self.root)
    self.addCleanup(executor.stop)
    return executor

  def _finish(self, executor):
    _wait_for(lambda: not executor.at_work())

  @parameterized.parameters(
    (jobs_that_end.says, ('some words',), 'some words\n'),
    (jobs_that_end.fails, (), 'RuntimeError: broken on purpose\n'),
    (jobs_that_end.is_refused, (), 'error: no such thing\n'),
    (jobs_that_end.dies, (), ''),
  )
  def test_what_a_job_says_is_in_its_log(self, function, args, end):
    executor = self._executor()
    executor.start('a, seed 0', function, *args)
    (log,) = executor.at_work().values()
    self._finish(executor)
    self.assertEndsWith(log.read_text(), end)
    # What is said later stands below.
    executor.start('a, seed 0', jobs_that_end.says, 'again')
    self._finish(executor)
    self.assertEqual(log.read_text().count('again'), 1)
    self.assertIn(end, log.read_text())

  def test_each_has_cores_of_its_own(self):
    here = sorted(os.sched_getaffinity(0))
    jobs = len(here)
    executor = self._executor(jobs)
    paths = [self.root / f'cores{i}' for i in range(jobs)]
    for path in paths:
      executor.start(path.name, jobs_that_end.counts_cores, str(path))
    self._finish(executor)
    found = [json.loads(path.read_text()) for path in paths]
    self.assertEqual(sorted(core for cores in found for core in cores), here)
    self.assertEqual(sorted(os.sched_getaffinity(0)), here)
    # A core is free again when its job has ended.
    executor.start('again', jobs_that_end.counts_cores, str(paths[0]))
    self._finish(executor)
    self.assertIn(json.loads(paths[0].read_text()), found)

  def test_more_jobs_than_cores(self):
    with self.assertRaisesRegex(errors.UsageError, '--jobs is 9999, but there'):
      executors.Local(9999, self.root)

  @pytest.mark.fault
  def test_stopping_ends_them_in_good_order(self):
    executor = self._executor()
    path = self.root / 'pid'
    executor.start('a', jobs_that_end.lasts, str(path))
    _wait_for(path.exists)
    executor.stop()
    self.assertEqual(path.read_text(), 'ended in good order')
    self.assertEmpty(executor.at_work())

  @pytest.mark.fault
  def test_they_end_with_whoever_started_them(self):
    path = self.root / 'pid'
    program = (
      'import pathlib, time\n'
      'from acme_cbo.experiments import executors\n'
      'from tests.experiments import jobs_that_end\n'
      'if __name__ == "__main__":\n'
      f'  executor = executors.Local(1, pathlib.Path({str(self.root)!r}))\n'
      f'  executor.start("a", jobs_that_end.lasts, {str(path)!r})\n'
      '  time.sleep(600)\n'
    )
    file = self.root / 'starts_one.py'
    file.write_text(program)
    environment = os.environ | {'PYTHONPATH': str(_ROOT)}
    with subprocess.Popen([sys.executable, file], env=environment) as process:
      _wait_for(path.exists)
      job = psutil.Process(int(path.read_text()))
      # Ctrl-C of the terminal is not the job's.
      self.assertNotEqual(os.getpgid(job.pid), os.getpgid(process.pid))
      process.send_signal(signal.SIGKILL)
      process.wait()
    _wait_for(lambda: not psutil.pid_exists(job.pid))


class ClusterTest(_TestCase):
  def _cluster(self):
    return executors.Cluster(self.root, {'timeout_min': 2}, cluster='local')

  def test_jobs_by_submitit(self):
    cluster = self._cluster()
    cluster.start('a', jobs_that_end.says, 'some words')
    cluster.start('b', jobs_that_end.fails)
    logs = cluster.at_work()
    self.assertEqual(set(logs), {'a', 'b'})
    _wait_for(lambda: not cluster.at_work())
    self.assertIn('some words\n', logs['a'].read_text())
    self.assertIn('RuntimeError: broken on purpose', logs['b'].read_text())

  def test_whoever_comes_back_knows_them(self):
    cluster = self._cluster()
    cluster.start('a', jobs_that_end.says, 'some words')
    _wait_for(lambda: not cluster.at_work())
    known = json.loads((self.root / 'jobs.json').read_text())
    self.assertEqual(list(known), ['a'])
    again = self._cluster()
    self.assertEmpty(again.at_work())
    again.start('b', jobs_that_end.says, 'more')
    _wait_for(lambda: not again.at_work())
    known = json.loads((self.root / 'jobs.json').read_text())
    self.assertEqual(list(known), ['a', 'b'])

  def test_no_cluster(self):
    with self.assertRaisesRegex(errors.UsageError, '--executor=slurm: .*srun'):
      executors.slurm([], 2, self.root)

  @parameterized.parameters(
    ({'timeout': 2}, '--executor=slurm'), ({'timeout_min': 'x'}, '--exec')
  )
  def test_parameters_that_are_none(self, parameters, sentence):
    with self.assertRaisesRegex(errors.UsageError, sentence):
      executors.Cluster(self.root, parameters, cluster='local')

  def test_a_parameter_without_a_value(self):
    with self.assertRaisesRegex(errors.UsageError, "'timeout_min' has no val"):
      executors.slurm(['timeout_min'], 2, self.root)


if __name__ == '__main__':
  absltest.main()
