"""Simulated studies: are the predictions right, and is the advice good?

Each study is of another system, drawn from the prior that the policy was
trained on or from one of its shifts (`scms.shifts`), with single noisy
outcomes. It is asked and told through `Study`, as by a user, and judged by
E[Y | do] of the system, which it is not told.
"""

from collections.abc import Iterator, Mapping, Sequence
from concurrent import futures
import functools
import json
import math
import multiprocessing
import pathlib
import tempfile
from typing import Any, NamedTuple

import jax
import numpy as np
import pandas as pd

from acme_cbo import types
from acme_cbo.evaluation import episodes
from acme_cbo.evaluation import statistics
from acme_cbo.infra import errors
from acme_cbo.infra import files
from acme_cbo.infra import jax_environment
from acme_cbo.infra import run_directory
from acme_cbo.policies import base
from acme_cbo.policies import policy as policy_lib
from acme_cbo.scms import intervention_sets
from acme_cbo.scms import interventions
from acme_cbo.scms import optimum
from acme_cbo.scms import registry as scm_registry
from acme_cbo.scms import shifts
from acme_cbo.study import advice as advice_lib
from acme_cbo.study import adviser
from acme_cbo.study import study as study_lib

# Numbers of experiments of the studies, in turn.
LENGTHS = (10, 20, 30, 40)
NUM_RECORDS = 100
_KNOWN = ('do', 'mean', 'low', 'high', 'gain', 'stop', 'warnings')
# Loss of score that stopping early may cost.
HARMLESS = 0.03
# Draws of the noise of which expected outcomes are means.
_NUM_DRAWS = 2**12
_MAX_BYTES = 10**9
_SHIFTED = tuple(name for name in shifts.NAMES if name != shifts.AS_TRAINED)


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


def items(number: int, first: int) -> list[Item]:
  """Returns studies, half of the prior and half of its shifts.

  Args:
    number: number of studies.
    first: number of the first system; others are other systems.
  """
  return [
    Item(
      _SHIFTED[i // 2 % len(_SHIFTED)] if i % 2 else shifts.AS_TRAINED,
      first + i // 2,
      LENGTHS[i // 2 // len(_SHIFTED) % len(LENGTHS)],
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
      score; and whether the policy makes the same experiments where `evaluate`
      plays it (`same_decisions`).
    """
    protocol = episodes.Protocol(NUM_RECORDS, item.length, 1, None, seed=0)
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
          (self._policy.functions(size), adviser.pad_problem(observed)),
        )
      )
      expected_outcome = episodes.ExpectedOutcome(scm, best)
      expected = [expected_outcome(one.recommended) for one in played]
    baseline, top = float(best.baseline), float(best.best)
    return {
      **item._asdict(),
      'same_decisions': _made(played) == _made(evaluated),
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
  rows = []
  if path.exists():
    lines = files.read_text(path, _MAX_BYTES).splitlines(keepends=True)
    # A kill may have left part of a line.
    rows = [json.loads(line) for line in lines if line.endswith('\n')]
    run_directory.write_text(
      path, ''.join(line for line in lines if line.endswith('\n'))
    )
  planned = dict.fromkeys(items(number, first))
  for row in rows:
    item = Item(row['scm'], row['repeat'], row['length'])
    if item not in planned:
      raise errors.UsageError(
        f'{path} has other studies, such as {item}; name another directory'
      )
    planned[item] = row
    yield row
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
      yield row


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

  def functions(self) -> base.PolicyFunctions:
    """Returns the functions of the policy; the memory is the study."""
    return base.PolicyFunctions(
      self._create, self._suggest, self._observe, self._recommend
    )

  def _create(self, problem, observations, num_interventions):
    names = _names(problem.exists.size)
    budget = float(problem.budget)
    with jax.enable_x64(False):
      return study_lib.Study.create(
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

  def _suggest(self, key, study):
    del key
    with jax.enable_x64(False):
      try:
        (self._trial,) = study.suggest()
      except errors.UsageError as error:
        if 'budget' not in str(error):
          raise
        return interventions.no_intervention(len(study.settings.columns))
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
    return adviser.pad_columns(observed, shown.exists.size)

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


def summarize(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
  """Summarizes studies, by the distribution that their systems are from.

  Args:
    rows: results of `Simulator.run`, in which at least one experiment was made.

  Returns:
    A row for the prior, for all its shifts together and for each of them, with
    the columns of `COLUMNS`.
  """
  table = pd.DataFrame([_measures(row) for row in rows])
  is_prior = table['scm'] == shifts.AS_TRAINED
  groups = {
    'training prior': table[is_prior],
    'shifted priors': table[~is_prior],
    **{name: table[table['scm'] == name] for name in _SHIFTED},
  }
  return pd.DataFrame(
    {
      name: [len(part), *(part[column].mean() for column in [*COLUMNS][1:])]
      for name, part in groups.items()
    },
    index=[*COLUMNS],
  ).T


# Columns of a summary, with what they are.
COLUMNS = {
  'studies': 'number of studies',
  'same': 'share of them in which `evaluate` makes the same experiments',
  'covered': (
    'share of the 90% intervals of what is recommended at the end that contain '
    'its expected target'
  ),
  'width': (
    'their mean half width; 1 is the range between no intervention and the '
    'best one'
  ),
  'score': 'mean score of what is recommended at the end',
  'saved': 'mean share of the experiments that is left at the advice to stop',
  'harmless': (
    f'share of studies in which stopping costs at most {HARMLESS} of the score'
  ),
  'warned': 'share of studies with a warning',
}


def _measures(row: Mapping[str, Any]) -> dict[str, Any]:
  """Returns what a study contributes to the columns of `COLUMNS`."""
  number = len(row['score'])
  stops = [step for step, stop in enumerate(row['stop'], 1) if stop]
  end = min([*stops, number])
  return {
    'scm': row['scm'],
    'same': row['same_decisions'],
    'covered': row['low'][-1] <= row['expected'][-1] <= row['high'][-1],
    'width': (row['high'][-1] - row['low'][-1]) / 2 / row['range'],
    'score': row['score'][-1],
    'saved': 1 - end / number,
    'harmless': row['score'][end - 1] >= row['score'][-1] - HARMLESS,
    'warned': row['warnings'][0] > 0,
  }


def auroc(rows: Sequence[Mapping[str, Any]]) -> float:
  """Returns how well the number of warnings tells shifts from the prior.

  Args:
    rows: results of `Simulator.run`.

  Returns:
    The probability that a study of a shift has more warnings than one of the
    prior, plus half the probability that it has as many.
  """
  number = np.array([row['warnings'][0] for row in rows])
  is_shifted = np.array([row['scm'] != shifts.AS_TRAINED for row in rows])
  return statistics.auroc(number, is_shifted)


def table(rows: Sequence[Mapping[str, Any]]) -> str:
  """Returns the summary of studies for a terminal.

  Args:
    rows: results of `Simulator.run`.
  """
  lines = summarize(rows).to_string(
    formatters={'studies': '{:.0f}'.format}, float_format='{:.2f}'.format
  )
  return f'{lines}\n\n{_about_warnings(rows)}'


def report(command: str, rows: Sequence[Mapping[str, Any]]) -> str:
  """Formats the summary of studies as a Markdown page.

  Args:
    command: command that simulated them.
    rows: results of `Simulator.run`.
  """
  summary = summarize(rows)
  lines = [
    ['', *COLUMNS],
    ['---'] * (1 + len(COLUMNS)),
    *(
      [
        str(name),
        f'{values.iloc[0]:.0f}',
        *map('{:.2f}'.format, values.iloc[1:]),
      ]
      for name, values in summary.iterrows()
    ),
  ]
  cells = '\n'.join(f'| {" | ".join(line)} |' for line in lines)
  meanings = '\n'.join(f'- `{name}`: {text}' for name, text in COLUMNS.items())
  return f"""# Simulated studies

Created by

```sh
{command}
```

Each study is of another system, with {NUM_RECORDS} records and up to
{', '.join(map(str, LENGTHS))} single noisy outcomes, asked and told through
`Study` with the shipped policy. The systems are those of
`evaluate --scm=shifts`: half of the distribution that the policy was trained
on, half of its shifts. What `Study` reads off its predictions was chosen on
other systems (`--first=100000`).

{cells}

{meanings}

{_about_warnings(rows)}
"""


def _about_warnings(rows) -> str:
  return (
    'The number of warnings tells the shifts from the training prior with an '
    f'AUROC of {auroc(rows):.2f}.'
  )
