"""Tests of whole evaluations, in this process and as the launcher runs them."""

import dataclasses
import functools
import io
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time
import types
from typing import Any
from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized
import jax
import numpy as np
import pandas as pd
from PIL import Image
import psutil
import pytest

from acme_cbo.evaluation import aggregate
from acme_cbo.evaluation import config
from acme_cbo.evaluation import episodes
from acme_cbo.evaluation import progress as progress_lib
from acme_cbo.evaluation import run
from acme_cbo.evaluation import workers
from acme_cbo.infra import errors
from acme_cbo.policies import saving
from acme_cbo.scms import systems
from tests.support import processes
from tests.support import tiny_environments

_ROOT = pathlib.Path(__file__).resolve().parents[2]
_CONFIG = config.MethodEvaluationConfig(
  scms=('chain',),
  methods=('random', 'slope'),
  policies={},
  observations=4,
  interventions=3,
  repeats=2,
  samples=1,
  budget=None,
  seed=0,
  confidence=0.9,
  jobs=1,
  out=pathlib.Path('nowhere'),
)
_SMALL = (
  '--scm=chain,fresh',
  '--methods=explore_then_commit,random,oracle',
  '--observations=4',
  '--interventions=3',
  '--repeats=6',
)


_start = functools.partial(processes.start, 'tests/support/tiny_evaluation.py')
_finish = functools.partial(
  processes.finish, 'tests/support/tiny_evaluation.py', timeout=200
)


def _lines(out):
  """Returns the number of episodes in the file."""
  path = out / 'episodes.jsonl'
  return path.read_bytes().count(b'\n') if path.exists() else 0


def _wait_for(condition, seconds=100):
  end = time.monotonic() + seconds
  while not condition():
    if time.monotonic() > end:
      raise TimeoutError
    time.sleep(0.005)


def _results(out):
  """Returns the lines of the results without the last column, the seconds."""
  lines = (out / 'results.csv').read_text().splitlines()
  return [line.rpartition(',')[0] for line in lines]


def _without_seconds(summary):
  """Removes measured times from a summary."""
  if isinstance(summary, dict):
    return {
      name: _without_seconds(value)
      for name, value in summary.items()
      if name != 'seconds_per_decision'
    }
  return summary


class FlagsTest(parameterized.TestCase):
  def _flags(self, **changes):
    defaults = {
      field.name: getattr(_CONFIG, field.name)
      for field in dataclasses.fields(_CONFIG)
    }
    defaults |= {'scm': ['chain'], 'workdir': None, 'policy': None, 'out': 'o'}
    return types.SimpleNamespace(**(defaults | changes))

  def test_policy_of_a_run_or_a_directory(self):
    for flags in ({'workdir': 'runs/a'}, {'policy': 'runs/a/policy'}):
      result = run.from_flags(self._flags(methods=['grpo'], **flags))
      self.assertEqual(result.policies['grpo'], pathlib.Path('runs/a/policy'))

  def test_the_pretrained_policy_is_the_default(self):
    result = run.from_flags(self._flags(methods=['grpo']))
    about = saving.load(result.policies['grpo']).metadata
    self.assertEqual(about['scms']['max_set_size'], 2)

  def test_two_policies_are_refused(self):
    with self.assertRaisesRegex(errors.UsageError, '--workdir and --policy bo'):
      run.from_flags(self._flags(policy='p', workdir='w'))


class ProgressTest(absltest.TestCase):
  def _update(self, progress, method):
    episode = mock.create_autospec(episodes.Episode, instance=True)
    episode.method, episode.scm, episode.repeat = method, 'toy', 3
    progress.update(episode)

  def test_lines_by_hand(self):
    stream, now = io.StringIO(), [0.0]
    progress = progress_lib.Progress(
      ['a', 'a', 'a', 'b', 'b'], 1, stream, lambda: now[0]
    )
    for seconds, method in ((30, 'a'), (5, 'a'), (5, 'b'), (1, 'a'), (20, 'b')):
      now[0] += seconds
      self._update(progress, method)
    progress.close()
    # The second line would come too soon after the first. Two episodes of a
    # took 30 and 5 seconds, one of b took 5, and one of each is left.
    self.assertEqual(
      stream.getvalue().splitlines(),
      [
        '20%  1/5 episodes  ETA > 0:01:00  a on toy, repeat 3',
        '60%  3/5 episodes  ETA 0:00:22  b on toy, repeat 3',
        '100%  5/5 episodes  ETA 0:00:00  b on toy, repeat 3',
      ],
    )

  def test_two_processes_halve_the_estimate(self):
    stream, now = io.StringIO(), [0.0]
    progress = progress_lib.Progress(['a'] * 5, 2, stream, lambda: now[0])
    now[0] = 10.0
    self._update(progress, 'a')
    # An episode ends every 10 seconds.
    self.assertIn('ETA 0:00:40', stream.getvalue())


@pytest.mark.timeout(240)
class InProcessTest(parameterized.TestCase):
  """Tests in this process, which keeps compiled programs."""

  def setUp(self):
    super().setUp()
    root = self.enterContext(tempfile.TemporaryDirectory())
    self.root = pathlib.Path(root)

  def _run(self, **changes: Any):
    changed = dataclasses.replace(_CONFIG, out=self.root / 'out', **changes)
    with mock.patch('sys.stderr', io.StringIO()):
      return run.run(changed, tiny_environments.resolve)

  def test_warns_of_a_policy_outside_its_training_distribution(self):
    policy = self.root / 'policy'
    tiny_environments.save_policy(policy)
    with self.assertLogs('absl', 'WARNING') as logged:
      summary = self._run(
        scms=('chain', 'fresh'),
        methods=('grpo', 'random'),
        policies={'grpo': policy},
      )
    expected = [
      'grpo on chain: used outside its training distribution: 3 variables with '
      'the target and those never set (trained on at most 2), 3 interventions '
      '(trained on at most 2)',
      'grpo on fresh: used outside its training distribution: 3 variables with '
      'the target and those never set (trained on at most 2), 3 interventions '
      '(trained on at most 2)',
    ]
    self.assertEqual(summary['warnings'], expected)
    self.assertEqual([x.getMessage() for x in logged.records], expected)
    out = self.root / 'out'
    self.assertIn(expected[0], (out / 'table.md').read_text())
    self.assertEqual(json.loads((out / 'summary.json').read_text()), summary)
    entry = summary['scms']['chain']['methods']['grpo']
    self.assertEqual(list(entry['parents']), ['learned'])
    self.assertBetween(entry['parents']['learned']['auroc'], 0, 1)
    self.assertEqual(list(summary['scms']['chain']['grpo_minus']), ['random'])
    self.assertLen(summary['settings']['methods']['grpo'], 64)

    # Another policy in the same directory is refused.
    tiny_environments.save_policy(policy, seed=1)
    with (
      self.assertLogs('absl', 'WARNING'),
      self.assertRaisesRegex(errors.UsageError, 'the trained policy of grpo'),
    ):
      self._run(
        scms=('chain', 'fresh'),
        methods=('grpo', 'random'),
        policies={'grpo': policy},
      )

  def test_a_method_that_cannot_be_run_on_every_scm(self):
    methods = 'posterior_thompson', 'random'
    with self.assertLogs('absl', 'WARNING') as logged:
      summary = self._run(scms=('chain', 'wide'), methods=methods)
    (record,) = logged.records
    expected = (
      'posterior_thompson is not run on wide: 9 variables; the exact '
      'posterior supports at most 8'
    )
    self.assertEqual(record.getMessage(), expected)
    self.assertEqual(summary['warnings'], [expected])
    self.assertEqual(
      {name: [*entry['methods']] for name, entry in summary['scms'].items()},
      {'chain': [*methods], 'wide': ['random']},
    )
    overall = summary['overall']
    self.assertIsNone(overall['posterior_thompson']['score'])
    self.assertIsNotNone(overall['random']['score'])
    page = (self.root / 'out' / 'table.md').read_text()
    self.assertRegex(page, r'\| posterior_thompson \| [^|]* \| - \|')

    with self.assertRaisesRegex(
      errors.UsageError,
      'none of the methods can be run on wide: 9 variables',
    ):
      self._run(scms=('wide',), methods=methods[:1])

  def test_an_unknown_method_is_refused(self):
    with self.assertRaisesRegex(
      errors.UsageError, "unknown method 'slopes'; did you mean slope.; avail"
    ):
      self._run(methods=('slopes',))
    self.assertFalse((self.root / 'out').exists())

  def test_a_missing_policy_is_refused(self):
    with self.assertRaisesRegex(errors.UsageError, 'cannot read a policy from'):
      self._run(methods=('grpo',), policies={'grpo': self.root / 'none'})
    self.assertFalse((self.root / 'out').exists())

  def test_methods_and_repeats_can_be_added(self):
    calls = []
    run_episode = workers.EpisodeRunner.run_episode

    def record(runner, *args):
      calls.append(args)
      return run_episode(runner, *args)

    with mock.patch.object(workers.EpisodeRunner, 'run_episode', record):
      self._run()
      first = _results(self.root / 'out')
      self._run(methods=('oracle', 'random', 'slope'), repeats=3)
      self._run(methods=('oracle', 'random', 'slope'), repeats=3)
    self.assertLen(calls, 9)
    self.assertLen(set(calls), 9)
    rows = _results(self.root / 'out')
    self.assertLen(rows, 1 + 3 * 3 * 3)
    self.assertContainsSubset(first, rows)
    table = pd.read_csv(self.root / 'out' / 'results.csv')
    order = table[['method', 'repeat', 'step']].to_numpy().tolist()
    self.assertEqual(
      order,
      [
        [method, repeat, step]
        for method in ('oracle', 'random', 'slope')
        for repeat in range(3)
        for step in (1, 2, 3)
      ],
    )

  def test_says_how_well_a_fitted_scm_fits(self):
    # The optimum, do(A = -1), is outside the data.
    quality = systems.FitQuality(
      kind='linear',
      num_rows=50,
      minimum=np.array([-0.5, -9.0, -9.0, 0.0]),
      maximum=np.array([0.5, 9.0, 9.0, 0.0]),
      r2=np.array([np.nan, 0.75, 0.5, np.nan]),
      beyond=np.array([0.5, 0.0, 0.0, 0.0]),
      warnings=('a warning about the data',),
    )
    search = mock.Mock(wraps=tiny_environments.search)

    def resolve(texts, metadata):
      (environment,) = tiny_environments.resolve(texts, metadata)
      system = environment.make(0)._replace(fit=quality)
      return [environment._replace(make=lambda _: system, search=search)]

    changed = dataclasses.replace(_CONFIG, out=self.root / 'out')
    with (
      mock.patch('sys.stderr', io.StringIO()),
      mock.patch('sys.stdout', io.StringIO()) as stdout,
      self.assertLogs('absl', 'WARNING') as logged,
    ):
      run.run(changed, resolve)
    self.assertStartsWith(
      stdout.getvalue(), 'chain: equations fitted to 50 rows (linear)\n'
    )
    summary = json.loads((self.root / 'out' / 'summary.json').read_text())
    fitted = summary['scms']['chain']['fit']['variables']
    self.assertEqual(
      {name: entry['r2'] for name, entry in fitted.items()},
      {'A': None, 'B': 0.75, 'Y': 0.5},
    )
    self.assertEqual(fitted['A']['optimum'], -1)
    self.assertEqual(summary['warnings'][0], 'chain: a warning about the data')
    self.assertStartsWith(
      summary['warnings'][1],
      'chain: the optimum of the fitted equations, do(A = -1), lies outside '
      'the data: there A is -1 (data: -0.5 to 0.5); ',
    )
    self.assertEqual(
      [x.getMessage() for x in logged.records], summary['warnings']
    )
    search.assert_called_once()

  def test_a_changed_file_is_refused(self):
    path = self.root / 'mine.yaml'
    path.write_text('one')
    self._run(scms=(str(path),), repeats=1)
    path.write_text('two')
    with self.assertRaisesRegex(errors.UsageError, 'the SCM file has changed'):
      self._run(scms=(str(path),), repeats=1)
    path.write_text('one')
    self._run(scms=(str(path),), repeats=2)

  def test_two_scms_with_the_same_name_are_refused(self):
    paths = [self.root / name for name in ('a.yaml', 'b.yaml')]
    for path in paths:
      path.write_text('')
    with self.assertRaisesRegex(errors.UsageError, 'SCM file is named twice'):
      self._run(scms=tuple(map(str, paths)))

  def test_too_small_a_budget_is_refused(self):
    with self.assertRaisesRegex(
      errors.UsageError, 'chain: the budget 0.25 pays for no intervention'
    ):
      self._run(budget=0.25)

  def test_a_budget_ends_episodes(self):
    summary = self._run(budget=2.0)
    entry = summary['scms']['chain']['methods']['random']
    self.assertEqual((entry['repeats'], entry['ended_early']), (2, 2))
    self.assertLen(_results(self.root / 'out'), 1 + 2 * 2 * 2)

  def test_an_scm_without_effects_is_refused(self):
    with self.assertRaisesRegex(
      errors.UsageError, 'flat: no allowed intervention changes the'
    ):
      self._run(scms=('flat',))

  @pytest.mark.fault
  def test_an_error_names_the_episode(self):
    with self.assertRaisesRegex(RuntimeError, 'on purpose') as context:
      self._run(scms=('fails',))
    self.assertEqual(context.exception.__notes__, ['random on fails, repeat 1'])
    # Episodes that were finished before are kept.
    self.assertLen(_results(self.root / 'out'), 1 + 2 * 3)

  def test_another_process_in_the_directory_is_refused(self):
    out = self.root / 'out'
    self._run()
    with (
      run.run_directory.lock(out),
      self.assertRaisesRegex(errors.UsageError, 'is using out='),
    ):
      self._run()


@pytest.mark.fault
@pytest.mark.timeout(600)
class ProcessesTest(parameterized.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    root = tempfile.TemporaryDirectory()
    cls.addClassCleanup(root.cleanup)
    cls.root = pathlib.Path(root.name)
    # All launched processes, but not their workers, share a compilation cache.
    cls.enterClassContext(
      mock.patch.dict(
        os.environ,
        JAX_COMPILATION_CACHE_DIR=str(cls.root / 'jax'),
        JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS='0',
      )
    )
    cls.complete = cls.root / 'complete'
    code, cls.printed = _finish(*_SMALL, f'--out={cls.complete}')
    assert code == 0, cls.printed

  def _assert_same(self, out):
    self.assertEqual(_results(out), _results(self.complete))
    summaries = [
      _without_seconds(json.loads((x / 'summary.json').read_text()))
      for x in (out, self.complete)
    ]
    self.assertEqual(*summaries)

  def test_files(self):
    names = sorted(path.name for path in self.complete.iterdir())
    self.assertEqual(
      names,
      [
        'config.json',
        'curves_chain.png',
        'curves_fresh.png',
        'environment.json',
        'episodes.jsonl',
        'results.csv',
        'scores.png',
        'scores_over_seconds.png',
        'summary.json',
        'table.md',
      ],
    )
    for name in names:
      if name.endswith('.png'):
        with Image.open(self.complete / name) as image:
          self.assertEqual(image.format, 'PNG')
          self.assertGreater(image.width, 600)
    self.assertIn('36/36 episodes', self.printed)
    self.assertIn(f'results written to {self.complete}', self.printed)

  def test_results(self):
    table = pd.read_csv(self.complete / 'results.csv')
    self.assertEqual(tuple(table.columns), aggregate.COLUMNS)
    self.assertLen(table, 2 * 3 * 6 * 3)
    chain = table[table['scm'] == 'chain']
    # The oracle makes the best intervention, to the resolution of the search.
    oracle = chain[chain['method'] == 'oracle']
    np.testing.assert_allclose(oracle['expected_outcome'], 1.0)
    np.testing.assert_allclose(oracle['score'], 1.0)
    # By hand: A set to v makes -1 - 2 v of Y, B set to v makes it -v.
    value = chain['values'].astype(float)
    by_hand = np.where(chain['variables'] == 'A', -1 - 2 * value, -value)
    np.testing.assert_allclose(chain['expected_outcome'], by_hand, atol=1e-12)
    np.testing.assert_allclose(
      chain['score'], (chain['recommended_expected'] + 1) / 2, atol=1e-12
    )
    best = chain.groupby(['method', 'repeat'])['expected_outcome'].cummax()
    np.testing.assert_array_equal(chain['best_expected'], best)
    self.assertGreater(table['seconds'].min(), 0)
    # The times do not include compilation.
    self.assertLess(table['seconds'].median(), 0.05)

  def test_equal_interventions_get_the_same_noise(self):
    # In `fresh` only B can be set, and the rest of Y is its noise.
    table = pd.read_csv(self.complete / 'results.csv')
    table = table[table['scm'] == 'fresh']
    noise = table['outcome'] - table['expected_outcome']
    wide = table.assign(noise=noise).pivot(
      index=['repeat', 'step'], columns='method', values='noise'
    )
    np.testing.assert_allclose(wide['random'], wide['oracle'], atol=1e-12)
    np.testing.assert_allclose(
      wide['explore_then_commit'], wide['oracle'], atol=1e-12
    )
    self.assertLen(np.unique(wide['oracle'].round(9)), 18)

  def test_two_processes_resume_a_killed_evaluation(self):
    out = self.root / 'killed'
    with _start(*_SMALL, f'--out={out}') as process:
      _wait_for(lambda: _lines(out) >= 10 or process.poll() is not None)
      process.kill()
    self.assertEqual(process.returncode, -signal.SIGKILL)
    # The last line is cut off in the middle.
    before = (out / 'episodes.jsonl').read_bytes()
    with (out / 'episodes.jsonl').open('ab') as file:
      file.write(before[: before.index(b'\n') // 2])
    self.assertLess(_lines(out), 36)
    code, printed = _finish(*_SMALL, f'--out={out}', '--jobs=2')
    self.assertEqual(code, 0, printed)
    self.assertIn('already finished', printed)
    after = (out / 'episodes.jsonl').read_bytes()
    # No finished episode was lost or run again.
    self.assertStartsWith(after, before[: before.rfind(b'\n') + 1])
    self.assertEqual(after.count(b'\n'), 36)
    self._assert_same(out)

  def _fail(self, scm):
    """Runs an evaluation in which one worker sleeps and the other one fails."""
    out = self.root / scm
    code, printed = _finish(
      f'--scm=lasts,{scm}',
      '--methods=random',
      '--observations=4',
      '--interventions=2',
      '--repeats=2',
      '--jobs=2',
      f'--out={out}',
    )
    self.assertEqual(code, 1, printed)
    self.assertEqual(_lines(out), 2)  # The episodes finished before.
    return printed

  def test_a_worker_that_fails_ends_the_evaluation(self):
    printed = self._fail('fails')
    self.assertIn('RuntimeError: broken on purpose', printed)
    self.assertIn('random on fails, repeat 1', printed)

  @pytest.mark.slow
  def test_a_worker_that_is_killed_ends_the_evaluation(self):
    printed = self._fail('dies')
    self.assertIn('ended unexpectedly, with exit code -9', printed)

  def _end(self, number):
    """Ends the parent with a signal and checks that the workers end as well."""
    out = self.root / f'ended {number}'
    with _start(
      '--scm=lasts',
      '--methods=random',
      '--observations=4',
      '--interventions=2',
      '--repeats=3',
      '--jobs=2',
      f'--out={out}',
      start_new_session=True,
    ) as process:
      _wait_for(lambda: _lines(out) or process.poll() is not None)
      children = psutil.Process(process.pid).children(recursive=True)
      self.assertGreaterEqual(len(children), 2)
      if number == signal.SIGINT:
        os.killpg(process.pid, number)  # As a terminal does.
      else:
        process.send_signal(number)
      printed, _ = process.communicate(timeout=20)
      self.assertEqual(process.returncode, -number, printed)
      self.assertNotIn('Traceback', printed)
      gone, alive = psutil.wait_procs(children, timeout=10)
      self.assertEmpty(alive)
      self.assertLen(gone, len(children))

  def test_workers_end_with_a_killed_parent(self):
    self._end(signal.SIGKILL)

  @parameterized.parameters(signal.SIGINT, signal.SIGTERM)
  @pytest.mark.slow
  def test_a_signal_ends_parent_and_workers(self, number):
    self._end(number)


class LauncherTest(absltest.TestCase):
  def test_a_usage_error_is_one_line(self):
    done = subprocess.run(
      [
        sys.executable,
        'launchers/evaluate.py',
        '--scm=nothing',
        '--methods=random',
        '--repeats=0',
        '--out=o',
      ],
      cwd=_ROOT,
      capture_output=True,
      text=True,
      timeout=100,
      check=False,
    )
    self.assertEqual(done.returncode, 2, done)
    self.assertEqual(
      done.stderr,
      'error: repeats is 0; it must be at least 1 and at most 1000000000\n',
    )


class EpisodeRunnerTest(absltest.TestCase):
  def test_is_deterministic_and_leaves_the_precision_unchanged(self):
    spec = workers.EvaluationSpec(
      protocol=episodes.Protocol(4, 3, 1, None, 'unknown', 0),
      scms=('chain',),
      methods=('random',),
      policies={},
      resolve=tiny_environments.resolve,
    )
    one, two = (
      workers.EpisodeRunner(spec).run_episode('chain', 1, 'random')
      for _ in range(2)
    )
    for episode in (one, two):
      episode.steps.pop('seconds')
    self.assertEqual(one, two)
    self.assertEqual(jax.numpy.zeros(1).dtype, np.float32)
    self.assertTrue(re.fullmatch(r'-?\d\.\d+', one.steps['values'][0]))


if __name__ == '__main__':
  absltest.main()
