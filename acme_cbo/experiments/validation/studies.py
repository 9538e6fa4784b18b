"""Simulated studies, which `study_summary` judges.

Each study is of another system, drawn from the prior that the policy was
trained on or from one of its shifts (`scms.shifts`), with single noisy
outcomes. It is asked and told through `Study`, as by a user. What E[Y | do] of
its recommendations is, which it is not told, is recorded beside what it says.
"""

from collections.abc import Iterator, Sequence
from concurrent import futures
import functools
import json
import math
import multiprocessing
import os
import pathlib
import tempfile
from typing import Any, NamedTuple

import jax
import numpy as np
import pandas as pd

from acme_cbo import types
from acme_cbo.evaluation import episodes
from acme_cbo.experiments.validation import fitted_process
from acme_cbo.infra import files
from acme_cbo.infra import jax_environment
from acme_cbo.policies import base
from acme_cbo.policies import policy as policy_lib
from acme_cbo.scms import intervention_sets
from acme_cbo.scms import interventions
from acme_cbo.scms import optimum
from acme_cbo.scms import registry as scm_registry
from acme_cbo.scms import shifts
from acme_cbo.study import advice as advice_lib
from acme_cbo.study import adviser as adviser_lib
from acme_cbo.study import padding
from acme_cbo.study import study as study_lib

# Numbers of experiments of the studies, in turn.
LENGTHS = (10, 20, 30, 40)
NUM_RECORDS = 100
# Names of what is known after each experiment, see `_Player.known`.
_KNOWN = ('do', 'mean', 'low', 'high', 'gain', 'stop', 'warnings')
# Names of how good the predictions are, see `_Player.judge`.
_JUDGED = ('contained', 'crps', 'process_crps')
# Draws of the noise of which expected outcomes are means.
_NUM_DRAWS = 2**12
# Random interventions that are predicted after a study.
_NUM_ASKED = 8
_MAX_BYTES = 10**9
SHIFTED = tuple(name for name in shifts.NAMES if name != shifts.AS_TRAINED)


class Item(NamedTuple):
  """One study to simulate.

  Attributes:
    scm: name of a shift of the prior, or `shifts.AS_TRAINED`.
    repeat: number of the system, from 0.
    length: maximum number of experiments.
  """

  scm: str
  repeat: int
  length: int


# Keys of a row.
_COLUMNS = {
  *Item._fields,
  *_KNOWN,
  *_JUDGED,
  'same_decisions',
  'range',
  'expected',
  'score',
}


def items(number: int, first: int) -> list[Item]:
  """Returns studies, half of the prior and half of its shifts.

  Args:
    number: number of studies.
    first: number of the first system; others are other systems.
  """
  return [
    Item(
      SHIFTED[i // 2 % len(SHIFTED)] if i % 2 else shifts.AS_TRAINED,
      first + i // 2,
      LENGTHS[i // 2 // len(SHIFTED) % len(LENGTHS)],
    )
    for i in range(number)
  ]


class Simulator:
  """Simulates studies, one after another."""

  def __init__(self):
    """Loads the shipped policy and finds the systems."""
    self._policy = policy_lib.load_policy()
    with jax.enable_x64(True):
      self._environments = {
        one.name: one
        for one in scm_registry.resolve(['shifts'], self._policy.metadata)
      }

  def run(self, item: Item) -> dict[str, Any]:
    """Simulates a study.

    Args:
      item: the study.

    Returns:
      A row of JSON types: the item; lists of what `_Player` knew after each
      experiment, with E[Y | do] of what it recommended (`expected`) and its
      score; whether the policy makes the same experiments where `evaluate`
      plays it (`same_decisions`); and how good the predictions of the study
      are at the end, see `_Player.judge`.
    """
    protocol = episodes.Protocol(
      NUM_RECORDS, item.length, 1, None, 'unknown', seed=0
    )
    key = episodes.episode_key(protocol.seed, item.scm, item.repeat)
    environment = self._environments[item.scm]
    with jax.enable_x64(True), tempfile.TemporaryDirectory() as directory:
      system = environment.make(item.repeat)
      system = system._replace(scm=episodes.with_protocol(system.scm, protocol))
      scm = system.scm
      best = optimum.search(system, _NUM_DRAWS)
      observed = _observed(scm.problem)
      size = intervention_sets.max_size(observed)
      player = _Player(
        pathlib.Path(directory) / 'simulated.study',
        # `run_episode` gives the policy this key.
        jax.random.split(key, 3)[2],
      )
      played, evaluated = (
        episodes.run_episode(
          key,
          _of_observed_variables(policy, scm.problem, shown),
          scm,
          protocol,
        )[0]
        for policy, shown in (
          (player.functions(), observed),
          (self._policy.functions(size), padding.problem(observed)),
        )
      )
      expected_outcome = episodes.ExpectedOutcome(scm, best)
      expected = [expected_outcome(one.recommended) for one in played]
      asked = [
        played[-1].recommended,
        *_random_interventions(scm.problem, np.random.default_rng(item.repeat)),
      ]
      judged = player.judge(
        asked,
        [*map(expected_outcome, asked)],
        scm.problem,
        adviser_lib.Adviser(self._policy.functions, self._policy.metadata),
      )
    baseline, top = float(best.baseline), float(best.best)
    return {
      **item._asdict(),
      'same_decisions': _made(played) == _made(evaluated),
      **judged,
      'range': abs(top - baseline),
      **player.known,
      'expected': expected,
      'score': [(one - baseline) / (top - baseline) for one in expected],
    }


def run(
  number: int, first: int, jobs: int, path: pathlib.Path
) -> Iterator[dict[str, Any]]:
  """Simulates studies and appends a row of each to a file.

  Args:
    number: number of studies.
    first: number of the first system.
    jobs: number of processes.
    path: file of JSON lines. Studies that it has are not simulated again.

  Yields:
    The row of each study, see `Simulator.run`; those in the file first.
  """
  planned: dict[Item, dict[str, Any] | None] = dict.fromkeys(
    items(number, first)
  )

  def add(line):
    row = _decode(line)
    item = Item(row['scm'], row['repeat'], row['length'])
    if item not in planned:
      raise ValueError(f'it is of another study, {item}')
    if planned[item] is not None:
      raise ValueError(f'there are two of {item}')
    planned[item] = row
    return row

  rows, incomplete_from = files.read_lines(
    path, _MAX_BYTES, add, 'name another file, or remove the line'
  )
  if incomplete_from is not None:
    os.truncate(path, incomplete_from)
  yield from rows
  left = [item for item, row in planned.items() if row is None]
  context = multiprocessing.get_context('spawn')
  with (
    futures.ProcessPoolExecutor(min(jobs, len(left) or 1), context) as pool,
    files.naming(path),
    path.open('a', encoding='utf-8') as file,
  ):
    for row in pool.map(_simulate, left):
      file.write(f'{json.dumps(row)}\n')
      file.flush()
      os.fsync(file.fileno())
      yield row


def _decode(line: bytes) -> dict[str, Any]:
  """Decodes a row; raises a `ValueError` if it is none."""
  row = files.parse_json(line)
  if not isinstance(row, dict) or not row.keys() >= _COLUMNS:
    raise ValueError(f'it is no object with {", ".join(sorted(_COLUMNS))}')
  for names in ((*_KNOWN, 'expected', 'score'), _JUDGED):
    lists = [row[name] for name in names]
    if not all(isinstance(one, list) and one for one in lists) or (
      len({*map(len, lists)}) > 1
    ):
      raise ValueError('its lists have no entry, or differ in length')
  return row


def _simulate(item: Item) -> dict[str, Any]:
  return _simulator().run(item)


@functools.cache
def _simulator() -> Simulator:
  jax_environment.set_defaults(small_programs=True)
  return Simulator()


class _Player:
  """Plays a study as a policy, and keeps what it says.

  Attributes:
    known: {name: list with an entry for each experiment}: what is recommended
      after it (`do`), `mean`, `low` and `high` of its prediction, `gain` and
      `stop` of the advice to stop, and the number of `warnings`.
  """

  def __init__(self, path: pathlib.Path, key: jax.Array):
    """Creates a player of one study.

    Args:
      path: file of the study.
      key: random key of its decisions.
    """
    self.known: dict[str, list[Any]] = {name: [] for name in _KNOWN}
    self._path = path
    high, low = np.asarray(key).tolist()
    self._seed = (high << 32) + low
    self._trial: advice_lib.Trial | None = None
    self._study: study_lib.Study | None = None

  def functions(self) -> base.PolicyFunctions:
    """Returns the functions of the policy; the memory is the study."""
    return base.PolicyFunctions(
      self._create, self._suggest, self._observe, self._recommend
    )

  def _create(self, problem, observations, num_interventions):
    names = _names(problem.exists.size)
    budget = float(problem.budget)
    with jax.enable_x64(False):
      self._study = study_lib.Study.create(
        self._path,
        data=pd.DataFrame(observations, columns=names),
        target=names[int(np.argmax(problem.target))],
        goal='maximize' if problem.goal > 0 else 'minimize',
        variables={
          names[j]: {
            'domain': (float(problem.low[j]), float(problem.high[j])),
            'cost': float(problem.cost[j]),
          }
          for j in np.flatnonzero(problem.settable)
        },
        interventions={
          'sets': [
            [names[j] for j in np.flatnonzero(one)] for one in problem.sets
          ]
        },
        budget=budget if math.isfinite(budget) else None,
        experiments=num_interventions,
        seed=self._seed,
      )
    return self._study

  def _suggest(self, key, study):
    del key
    with jax.enable_x64(False):
      (self._trial,) = study.suggest()
    return interventions.from_names(self._trial.do, study.settings.columns)

  def _observe(self, study, step, intervention, outcome):
    del step, intervention
    names, trial = study.settings.columns, self._trial
    assert trial is not None
    with jax.enable_x64(False):
      study.observe(trial, dict(zip(names, outcome.tolist(), strict=True)))
      best = study.recommend()
      advice = study.stop_advice()
    row = (
      best.do,
      best.prediction.mean,
      *best.prediction.interval,
      advice.expected_gain,
      advice.stop,
      len(trial.warnings),
    )
    for name, value in zip(_KNOWN, row, strict=True):
      self.known[name].append(value)
    return study

  def _recommend(self, study):
    # `run_episode` asks after each outcome; the study has just been asked.
    do = self.known['do'][-1]
    return interventions.from_names(do, study.settings.columns)

  def judge(
    self,
    asked: Sequence[types.Intervention],
    expected: Sequence[float],
    problem: types.Problem,
    adviser: adviser_lib.Adviser,
  ) -> dict[str, Any]:
    """Judges the predictions of the study.

    Args:
      asked: interventions on the variables of `problem`.
      expected: E[Y | do] of each.
      problem: the problem; the study has its observed variables.
      adviser: predicts as the study does.

    Returns:
      {name: list with an entry for each intervention}: whether the interval
      contains E[Y | do] (`contained`), and the CRPS of it in deviations of the
      records, also of a process that is fitted to the study (`process_crps`).
    """
    study = self._study
    assert study is not None
    places = np.flatnonzero(problem.exists)
    wanted = [
      {
        name: float(one.values[j])
        for name, j in zip(study.settings.columns, places, strict=True)
        if one.mask[j]
      }
      for one in asked
    ]
    column = study.settings.columns.index(study.settings.target)
    deviation = float(np.std(study.state.records[:, column]))
    with jax.enable_x64(False):
      predicted = adviser.predict(study.state, wanted)
      assert predicted is not None
      by_process = fitted_process.FittedProcess(study.state).predict(wanted)

    def scores(each):
      return [
        float(one.crps(np.float64(y))) / deviation
        for one, y in zip(each, expected, strict=True)
      ]

    return {
      'contained': [
        bool(one.contains(y))
        for one, y in zip(predicted, expected, strict=True)
      ],
      'crps': scores(predicted),
      'process_crps': scores(by_process),
    }


def _random_interventions(
  problem: types.Problem, rng: np.random.Generator
) -> list[types.Intervention]:
  """Returns random allowed interventions."""
  sets = np.asarray(problem.sets)
  chosen = rng.choice(sets[sets.any(1)], _NUM_ASKED)
  values = rng.uniform(
    np.where(chosen, problem.low, 0.0), np.where(chosen, problem.high, 0.0)
  )
  return [
    types.Intervention._make(one) for one in zip(chosen, values, strict=True)
  ]


def _names(number: int) -> list[str]:
  return [f'x{j}' for j in range(number)]


def _made(records: list[episodes.StepRecord]) -> list[Any]:
  return [
    (one.intervention.mask.tolist(), one.intervention.values.tolist())
    for one in records
  ]


def _of_observed_variables(
  policy: base.PolicyFunctions, whole: types.Problem, shown: types.Problem
) -> base.PolicyFunctions:
  """Returns a policy that is shown the observed variables and no others.

  Args:
    policy: a policy on the host.
    whole: the problem of D variables, some of them padding or latent.
    shown: the problem that the policy is shown instead: of the observed
      variables, in their order, and perhaps of padding after them.
  """
  places = np.flatnonzero(whole.exists)

  def part(array):
    observed = np.asarray(array)[..., places]
    return padding.columns(observed, shown.exists.size)

  def in_place(leaf):
    placed = np.zeros(whole.exists.size, leaf.dtype)
    placed[places] = leaf[: places.size]
    return placed

  return base.PolicyFunctions(
    lambda _, rows, number: policy.init(shown, part(rows), number),
    lambda key, memory: jax.tree.map(in_place, policy.choose(key, memory)),
    lambda memory, step, made, outcome: policy.observe(
      memory, step, jax.tree.map(part, made), part(outcome)
    ),
    lambda memory: jax.tree.map(in_place, policy.recommend(memory)),
  )


def _observed(problem: types.Problem) -> types.Problem:
  """Returns the part of a problem that a user knows.

  It is of the observed variables, and of costs and domains has those of the
  variables that may be set.
  """
  changes: dict[str, Any] = {
    name: getattr(problem, name)[..., problem.exists]
    for name in ('exists', 'sets', 'target', 'low', 'high', 'cost')
  }
  changes['sets'] = changes['sets'][changes['sets'].any(1)]
  settable = changes['sets'].any(0)
  cost = changes['cost']
  changes['cost'] = np.where(settable, cost, cost[settable].mean())
  for end in ('low', 'high'):
    changes[end] = np.where(settable, changes[end], 0.0)
  return problem._replace(**changes)
