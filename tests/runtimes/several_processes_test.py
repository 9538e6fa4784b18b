"""Tests of whole trainings in several processes, also with one killed."""

import contextlib
import functools
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time

from absl.testing import absltest
from absl.testing import parameterized
import pytest

from acme_cbo.runtimes import addresses
from acme_cbo.runtimes import handshake
from tests.support import processes

_UPDATES = 20
_CONFIG = [
  '--config=configs/grpo.py:smoke',
  f'--config.training.num_updates={_UPDATES}',
  '--config.training.eval_every=10',
  '--config.training.checkpoint_every=4',
  '--config.scms.max_variables=4',
  '--config.horizon.num_interventions=3',
  '--config.grpo.num_tasks=16',
  '--config.evaluation.num_tasks=10',
]
_MESH = '--config.runtime.kind=mesh'
_LOCKSTEP = ('--config.runtime.kind=threaded', '--config.runtime.max_lag=0')
_TRAIN, _LOCAL = 'launchers/train.py', 'launchers/local.py'
_PID = re.compile(rb'--process_id=(\d+)\x00')


def _rows(workdir):
  """Returns the logged rows without times."""
  lines = (workdir / 'metrics.jsonl').read_text().splitlines()
  return [
    {
      tag: value
      for tag, value in json.loads(line).items()
      if tag not in ('time', 'policy/lag') and not tag.startswith('perf/')
    }
    for line in lines
  ]


def _wait_for_updates(process, workdir, number):
  path = workdir / 'metrics.jsonl'
  while not path.exists() or len(path.read_text().splitlines()) < number:
    assert process.poll() is None, process.communicate()[0]
    time.sleep(0.05)


def _members(workdir):
  """Returns {process_id: pid} of the processes of a run."""
  pids = {}
  for path in pathlib.Path('/proc').glob('[0-9]*/cmdline'):
    with contextlib.suppress(OSError):
      command = path.read_bytes()
      match = _PID.search(command)
      if match and f'--workdir={workdir}'.encode() in command:
        pids[int(match[1])] = int(path.parent.name)
  return pids


@pytest.mark.slow
@pytest.mark.fault
@pytest.mark.timeout(3600)
class SeveralProcessesTest(parameterized.TestCase):
  tries = 3

  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    root = tempfile.TemporaryDirectory()
    cls.addClassCleanup(root.cleanup)
    cls.root = pathlib.Path(root.name)

  @classmethod
  @functools.cache
  def _whole(cls, *flags, devices=1, size=0):
    """Returns the rows of an undisturbed training.

    It runs in one process with a number of devices, or in `size` processes.
    """
    workdir = cls.root / f'{len(list(cls.root.iterdir()))} whole'
    code, output = processes.finish(
      *((_LOCAL, f'--processes={size}') if size else (_TRAIN,)),
      *_CONFIG,
      *flags,
      f'--workdir={workdir}',
      env={**os.environ, 'JAX_NUM_CPU_DEVICES': str(devices)},
    )
    assert code == 0, output
    return _rows(workdir)

  def _assert_apart(self, rows, others, tolerance):
    for row, other in zip(rows, others, strict=True):
      self.assertEqual(row.keys(), other.keys())
      for tag, value in row.items():
        self.assertLess(abs(value - other[tag]), tolerance, tag)

  def test_two_processes_are_two_devices_of_one(self):
    # Sums depend on the number of threads. `launchers/local.py` divides the
    # cores among processes; these two processes use all of them.
    workdir, secret = self.root / 'two', handshake.new_secret()
    port = addresses.free_port()
    members = [
      processes.start(
        _TRAIN,
        *(*_CONFIG, _MESH, f'--workdir={workdir}'),
        f'--coordinator=127.0.0.1:{port}',
        '--num_processes=2',
        f'--process_id={number}',
        env={
          **os.environ,
          handshake.VARIABLE: secret,
          'JAX_NUM_CPU_DEVICES': '1',
        },
      )
      for number in range(2)
    ]
    for member in members:
      output, _ = member.communicate(timeout=600)
      self.assertEqual(member.returncode, 0, output)
    self.assertEqual(_rows(workdir), self._whole(_MESH, devices=2))

  def test_many_devices_are_one_but_for_rounding(self):
    # Small steps, so that rounding does not grow from update to update.
    flags = (
      '--config.optimizer.learning_rate=1e-5',
      '--config.grpo.gradient_accumulation_steps=1',
    )
    one = self._whole(*flags)
    for devices in (2, 4):
      self._assert_apart(self._whole(_MESH, *flags, devices=devices), one, 1e-5)

  @parameterized.parameters(1, 3)
  def test_actors_in_lockstep_are_one_process(self, size):
    # On two cores neither of these divides them.
    self.assertEqual(self._whole(*_LOCKSTEP, size=size), self._whole())

  @parameterized.parameters(1, 2)
  def test_threads_are_interrupted(self, times):
    for i in range(self.tries):
      workdir = self.root / f'interrupted {times} {i}'
      flags = (*_CONFIG, *_LOCKSTEP, f'--workdir={workdir}')
      with processes.start(_TRAIN, *flags) as process:
        _wait_for_updates(process, workdir, 5 + 3 * i)
        begin = time.monotonic()
        for _ in range(times):
          process.send_signal(signal.SIGINT)
          time.sleep(0.05)
        output, _ = process.communicate(timeout=60)
      self.assertEqual(process.returncode, 130, output)
      self.assertLess(time.monotonic() - begin, 10)
      summary = json.loads((workdir / 'summary.json').read_text())
      self.assertEqual(summary['status'], 'interrupted')
      code, output = processes.finish(
        _TRAIN, f'--workdir={workdir}', '--resume'
      )
      self.assertEqual(code, 0, output)
      self.assertEqual(_rows(workdir), self._whole())

  @parameterized.product(victim=[0, 1], kind=['mesh', 'threaded'])
  def test_one_is_killed(self, victim, kind):
    flags = [_MESH] if kind == 'mesh' else [*_LOCKSTEP]
    for i in range(self.tries):
      workdir = self.root / f'{kind} {victim} killed {i}'
      run = (_LOCAL, '--processes=2', f'--workdir={workdir}')
      with processes.start(*run, *_CONFIG, *flags) as local:
        _wait_for_updates(local, workdir, 5 + 3 * i)
        members = _members(workdir)
        self.assertLen(members, 2)
        begin = time.monotonic()
        os.kill(members[victim], signal.SIGKILL)
        output, _ = local.communicate(timeout=120)
      self.assertLess(time.monotonic() - begin, 60)
      self.assertEqual(local.returncode, 137 if victim == 0 else 1, output)
      self.assertRegex(
        output,
        rf'process {1 - victim} \| error: process {victim} \(\S+, pid '
        rf'{members[victim]}\) disconnected unexpectedly',
      )
      self.assertEmpty(_members(workdir))
      if victim == 1:
        self.assertIn('launchers/train.py --resume', output)
        summary = json.loads((workdir / 'summary.json').read_text())
        self.assertEqual(summary['status'], 'failed')
        self.assertIn('process 1', summary['reason'])
      code, output = processes.finish(*run, '--resume')
      self.assertEqual(code, 0, output)
      self.assertEqual(_rows(workdir), self._whole(*flags, size=2))

  def test_goes_on_in_another_number_of_processes(self):
    workdir = self.root / 'fewer'
    flags = (*_CONFIG, _MESH, f'--workdir={workdir}')
    with processes.start(_LOCAL, '--processes=2', *flags) as local:
      _wait_for_updates(local, workdir, 7)
      local.terminate()
      output, _ = local.communicate(timeout=120)
    self.assertEqual(local.returncode, 143, output)
    code, output = processes.finish(
      _LOCAL, '--processes=1', f'--workdir={workdir}', '--resume'
    )
    self.assertEqual(code, 0, output)
    rows, whole = _rows(workdir), self._whole(_MESH, size=2)
    self.assertLen(rows, len(whole))
    # Rows before the resume are equal, later ones up to rounding.
    self.assertEqual(rows[:5], whole[:5])
    self.assertAlmostEqual(
      rows[-1]['reward/total'], whole[-1]['reward/total'], delta=0.02
    )


@contextlib.contextmanager
def _two_hosts():
  """Two network namespaces that see nothing but each other: commands to run in
  each, and the address of the first."""
  names, addresses = ('acme-cbo-a', 'acme-cbo-b'), ('10.77.7.1', '10.77.7.2')

  def ip(*words):
    subprocess.run(['ip', *words], check=True, capture_output=True)

  with contextlib.ExitStack() as stack:
    for name, address in zip(names, addresses, strict=True):
      ip('netns', 'add', name)
      stack.callback(ip, 'netns', 'del', name)
      # The host's own name has to be an address that the other can reach.
      hosts = pathlib.Path('/etc/netns', name, 'hosts')
      hosts.parent.mkdir(parents=True)
      stack.callback(shutil.rmtree, hosts.parent)
      hosts.write_text(
        f'127.0.0.1 localhost\n{address} {socket.gethostname()}\n'
      )
    ip('link', 'add', names[0], 'type', 'veth', 'peer', 'name', names[1])
    for name, address in zip(names, addresses, strict=True):
      ip('link', 'set', name, 'netns', name)
      ip('-n', name, 'addr', 'add', f'{address}/24', 'dev', name)
      ip('-n', name, 'link', 'set', name, 'up')
      ip('-n', name, 'link', 'set', 'lo', 'up')
    yield [['ip', 'netns', 'exec', name] for name in names], addresses[0]


def _may_make_hosts():
  try:
    with _two_hosts():
      return True
  except (OSError, subprocess.CalledProcessError):
    return False


@pytest.mark.slow
@pytest.mark.fault
@pytest.mark.timeout(1800)
class TwoHostsTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    if not _may_make_hosts():
      self.skipTest('no network namespaces may be made here')
    self.root = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
    self.env = {**os.environ, handshake.VARIABLE: handshake.new_secret()}

  def _start(self, hosts, address, number, *flags):
    place = (
      f'--coordinator={address}:8476',
      '--num_processes=2',
      f'--process_id={number}',
    )
    return processes.start(
      _TRAIN,
      *(*_CONFIG, _MESH, *place, *flags),
      before=hosts[number],
      env=self.env,
    )

  def test_train_as_one(self):
    with _two_hosts() as (hosts, address):
      # Only process 0 has the directory.
      members = [
        self._start(hosts, address, 0, f'--workdir={self.root / "run"}'),
        self._start(hosts, address, 1, f'--workdir={self.root / "none"}'),
      ]
      for member in members:
        output, _ = member.communicate(timeout=600)
        self.assertEqual(member.returncode, 0, output)
    self.assertLen(_rows(self.root / 'run'), _UPDATES + 1)
    self.assertFalse((self.root / 'none').exists())

  def test_a_cable_is_pulled(self):
    with _two_hosts() as (hosts, address):
      long = '--config.training.num_updates=100000'
      workdir = self.root / 'run'
      members = [
        self._start(hosts, address, 0, long, f'--workdir={workdir}'),
        self._start(hosts, address, 1, long, f'--workdir={self.root / "none"}'),
      ]
      _wait_for_updates(members[0], workdir, 5)
      begin = time.monotonic()
      subprocess.run(
        [*hosts[1], 'ip', 'link', 'set', 'acme-cbo-b', 'down'], check=True
      )
      for number, member in enumerate(members):
        output, _ = member.communicate(timeout=120)
        self.assertEqual(member.returncode, 1, output)
        self.assertRegex(
          output,
          rf'error: process {1 - number} \(.*\) sent nothing for \d+ s',
        )
      self.assertLess(time.monotonic() - begin, 60)


if __name__ == '__main__':
  absltest.main()
