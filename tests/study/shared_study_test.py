"""Tests of studies that several processes share, and that are killed."""

import json
import pathlib
import random
import subprocess
import sys
import tempfile
import time
import unittest

from absl.testing import absltest
import numpy as np
import pandas as pd
import pytest

import acme_cbo
from tests.support import postgresql

_ROOT = pathlib.Path(__file__).resolve().parents[2]
_ARGUMENTS = dict(
  data=pd.DataFrame(
    np.random.default_rng(0).uniform(size=(20, 3)), columns=['a', 'b', 'y']
  ),
  target='y',
  variables={'a': {'domain': (0, 1)}, 'b': {'domain': (0, 9)}},
)
# Carries out what is pending, or suggested next, until there are `count`
# outcomes, and says what the study has acknowledged.
_WORKER = """
import json, sys
import acme_cbo
location, count, how = sys.argv[1], int(sys.argv[2]), sys.argv[3]
study = acme_cbo.Study.open(location)
def say(*words):
  print(json.dumps(words), flush=True)
say('ready', 0)
while len(study.state.observed) < count:
  # Others carry out what they asked for.
  pending = study.pending() if how == 'alone' else []
  trial = pending[0] if pending else study.suggest()[0]
  say('suggested', trial.number, trial.do)
  outcome = round(sum(trial.do.values()), 2)
  study.observe(trial, {'y': outcome})
  say('observed', trial.number, outcome)
"""


def _start(location, count, how):
  return subprocess.Popen(
    [sys.executable, '-c', _WORKER, str(location), str(count), how],
    cwd=_ROOT,
    stdout=subprocess.PIPE,
    text=True,
  )


@pytest.mark.timeout(300)
class _SharedTest(absltest.TestCase):
  num_kills = 3
  location: str

  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    if cls is _SharedTest:
      raise unittest.SkipTest('it has no place for studies')

  def _assert_has(self, study, said):
    """Asserts that a study has all that it acknowledged."""
    experiments = study.state.experiments
    for line in said:
      kind, *values = json.loads(line)
      if kind == 'suggested':
        number, do = values
        self.assertEqual(experiments[number].do, do)
      elif kind == 'observed':
        number, outcome = values
        self.assertEqual(experiments[number].outcome, {'y': outcome})

  def test_several_processes_at_once(self):
    study = acme_cbo.Study.create(self.location, **_ARGUMENTS)
    workers = [_start(self.location, 10, 'together') for _ in range(3)]
    said = [worker.communicate(timeout=300)[0] for worker in workers]
    self.assertEqual([worker.returncode for worker in workers], [0, 0, 0])
    for text in said:
      self._assert_has(study, text.splitlines())
    made = [one.do for one in study.state.experiments.values()]
    # None was lost, none is there twice: each worker may finish one more.
    self.assertBetween(len(made), 10, 12)
    self.assertLen(study.state.observed, len(made))
    lines = [json.loads(x) for text in said for x in text.splitlines()]
    suggested = [number for kind, number, *_ in lines if kind == 'suggested']
    self.assertCountEqual(suggested, range(1, len(made) + 1))
    # No two were asked to do the same at the same time.
    asked: list[dict[str, float]] = []
    pending: set[int] = set()
    for event in study.log.read():
      for do in event.payload.get('suggestions', []):
        self.assertNotIn(do, [asked[number - 1] for number in pending])
        asked.append(do)
        pending.add(len(asked))
      for one in event.payload.get('outcomes', []):
        pending.remove(one['experiment'])
    self.assertEmpty(pending)

  def test_a_killed_study_goes_on_as_if_nothing_had_happened(self):
    self._kill(self.num_kills)

  def _kill(self, num_kills):
    """Kills a study again and again; compares it with one that was not."""
    length = 3 * num_kills + 4
    uninterrupted = pathlib.Path(tempfile.mkdtemp()) / 'whole.study'
    acme_cbo.Study.create(uninterrupted, **_ARGUMENTS)
    with _start(uninterrupted, length, 'alone') as worker:
      assert worker.stdout
      # When it is ready, and after each suggestion and outcome.
      times = [time.monotonic() for _ in worker.stdout]
    durations = np.diff(times)
    study = acme_cbo.Study.create(self.location, **_ARGUMENTS)
    rng = random.Random(0)
    for _ in range(num_kills):
      with _start(self.location, length, 'alone') as worker:
        assert worker.stdout
        # It is killed while it works on the next line, or on the one after.
        num_lines = rng.randint(1, 4)
        said = [worker.stdout.readline() for _ in range(num_lines)]
        self.assertTrue(said[-1])
        # Some lines take longer: they wait for a program to be compiled.
        likely = durations[0] if num_lines == 1 else 2 * np.median(durations)
        time.sleep(rng.uniform(0, likely))
        worker.kill()
        said += worker.stdout.readlines()
      # The last line may be cut.
      self._assert_has(study, [x for x in said if x.endswith(']\n')])
    self.assertLess(len(study.state.observed), length)
    _start(self.location, length, 'alone').communicate()
    expected = acme_cbo.Study.open(uninterrupted).state.experiments
    actual = study.state.experiments
    self.assertEqual(
      [(one.do, one.outcome) for one in actual.values()],
      [(one.do, one.outcome) for one in expected.values()],
    )


class SQLiteTest(_SharedTest):
  def setUp(self):
    super().setUp()
    self.location = str(pathlib.Path(tempfile.mkdtemp()) / 'shared.study')

  @pytest.mark.slow
  @pytest.mark.timeout(3000)
  def test_fifty_kills(self):
    self._kill(50)


@unittest.skipUnless(postgresql.HAS_PSYCOPG, 'needs psycopg')
class PostgreSQLTest(_SharedTest):
  num_kills = 1

  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.port = cls.enterClassContext(postgresql.server())

  def setUp(self):
    super().setUp()
    database = self.id().rsplit('.', 1)[1][:40].lower()
    with postgresql.connect(self.port) as connection:
      connection.execute(f'CREATE DATABASE {database}')
    self.location = postgresql.url(self.port, database)


if __name__ == '__main__':
  absltest.main()
