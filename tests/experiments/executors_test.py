"""Tests of the executors of jobs, with real processes."""

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
    _wait_for(lambda: not executor.running())

  @parameterized.parameters(
    (jobs_that_end.print_text, ('some words',), 'some words\n'),
    (jobs_that_end.fail, (), 'RuntimeError: broken on purpose\n'),
    (jobs_that_end.raise_usage_error, (), 'error: no such thing\n'),
    (jobs_that_end.kill_itself, (), ''),
  )
  def test_the_log_has_the_output_of_a_job(self, function, args, end):
    executor = self._executor()
    executor.start('a, seed 0', function, *args)
    (log,) = executor.running().values()
    self._finish(executor)
    self.assertEndsWith(log.read_text(), end)
    # Later output is appended.
    executor.start('a, seed 0', jobs_that_end.print_text, 'again')
    self._finish(executor)
    self.assertEqual(log.read_text().count('again'), 1)
    self.assertIn(end, log.read_text())

  def test_each_has_cores_of_its_own(self):
    here = sorted(os.sched_getaffinity(0))
    jobs = len(here)
    executor = self._executor(jobs)
    paths = [self.root / f'cores{i}' for i in range(jobs)]
    for path in paths:
      executor.start(path.name, jobs_that_end.write_cores, str(path))
    self._finish(executor)
    core_sets = [json.loads(path.read_text()) for path in paths]
    self.assertEqual(
      sorted(core for cores in core_sets for core in cores), here
    )
    self.assertEqual(sorted(os.sched_getaffinity(0)), here)
    # A core is free again when its job has ended.
    executor.start('again', jobs_that_end.write_cores, str(paths[0]))
    self._finish(executor)
    self.assertIn(json.loads(paths[0].read_text()), core_sets)

  def test_more_jobs_than_cores(self):
    with self.assertRaisesRegex(errors.UsageError, '--jobs is 9999, but this'):
      executors.Local(9999, self.root)

  @pytest.mark.fault
  def test_stop_ends_jobs_gracefully(self):
    executor = self._executor()
    path = self.root / 'pid'
    executor.start('a', jobs_that_end.wait_for_signal, str(path))
    _wait_for(path.exists)
    executor.stop()
    self.assertEqual(path.read_text(), 'ended gracefully')
    self.assertEmpty(executor.running())

  @pytest.mark.fault
  def test_jobs_end_with_their_parent(self):
    path = self.root / 'pid'
    program = (
      'import pathlib, time\n'
      'from acme_cbo.experiments import executors\n'
      'from tests.experiments import jobs_that_end\n'
      'if __name__ == "__main__":\n'
      f'  executor = executors.Local(1, pathlib.Path({str(self.root)!r}))\n'
      f'  executor.start("a", jobs_that_end.wait_for_signal, {str(path)!r})\n'
      '  time.sleep(600)\n'
    )
    file = self.root / 'starts_one.py'
    file.write_text(program)
    environment = os.environ | {'PYTHONPATH': str(_ROOT)}
    with subprocess.Popen([sys.executable, file], env=environment) as process:
      _wait_for(path.exists)
      job = psutil.Process(int(path.read_text()))
      # Ctrl-C in the terminal does not reach the job.
      self.assertNotEqual(os.getpgid(job.pid), os.getpgid(process.pid))
      process.send_signal(signal.SIGKILL)
      process.wait()
    _wait_for(lambda: not psutil.pid_exists(job.pid))


class ClusterTest(_TestCase):
  def _cluster(self):
    return executors.Cluster(self.root, {'timeout_min': 2}, cluster='local')

  def test_jobs_by_submitit(self):
    cluster = self._cluster()
    cluster.start('a', jobs_that_end.print_text, 'some words')
    cluster.start('b', jobs_that_end.fail)
    logs = cluster.running()
    self.assertEqual(set(logs), {'a', 'b'})
    _wait_for(lambda: not cluster.running())
    self.assertIn('some words\n', logs['a'].read_text())
    self.assertIn('RuntimeError: broken on purpose', logs['b'].read_text())

  def test_a_later_start_reads_the_jobs(self):
    cluster = self._cluster()
    cluster.start('a', jobs_that_end.print_text, 'some words')
    _wait_for(lambda: not cluster.running())
    numbers = json.loads((self.root / 'jobs.json').read_text())
    self.assertEqual(list(numbers), ['a'])
    again = self._cluster()
    self.assertEmpty(again.running())
    again.start('b', jobs_that_end.print_text, 'more')
    _wait_for(lambda: not again.running())
    numbers = json.loads((self.root / 'jobs.json').read_text())
    self.assertEqual(list(numbers), ['a', 'b'])

  def test_no_cluster(self):
    with self.assertRaisesRegex(errors.UsageError, '--executor=slurm: .*srun'):
      executors.slurm([], 2, self.root)

  @parameterized.parameters(
    ({'timeout': 2}, '--executor=slurm'), ({'timeout_min': 'x'}, '--exec')
  )
  def test_invalid_parameters(self, parameters, sentence):
    with self.assertRaisesRegex(errors.UsageError, sentence):
      executors.Cluster(self.root, parameters, cluster='local')

  def test_a_parameter_without_a_value(self):
    with self.assertRaisesRegex(errors.UsageError, "'timeout_min' has no val"):
      executors.slurm(['timeout_min'], 2, self.root)


if __name__ == '__main__':
  absltest.main()
