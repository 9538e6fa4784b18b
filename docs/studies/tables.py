"""Plays studies whose experiments a table of measurements answers.

  python docs/studies/tables.py crossed_barrel.csv --target=toughness

Every column but the target is set in each experiment. An experiment is answered
by a row of the nearest design of the table, of its replicates one at random; so
the values that were set are those of the row. A score is 0 at the mean of the
table and 1 at its best design, by the mean of the replicates; what a method
recommends at the end counts. The methods:

  study   `acme_cbo.Study`, with nothing but its own experiments
  gp_bo   the baseline of `evaluate`: a Gaussian process, expected improvement
  botorch with --botorch=PYTHON: a process and qLogNoisyExpectedImprovement
          after 5 Sobol designs, see tests/peers/requirements.txt
  random  designs at random; the best outcome is recommended
"""

import argparse
from collections.abc import Callable, Sequence
import json
import pathlib
import subprocess
import sys
import tempfile
from typing import Any

from acme_cbo.infra import jax_environment

# ruff: noqa: E402 - jax and numpy read the environment when they are imported.
jax_environment.set_defaults(small_programs=True)

import jax
import numpy as np
import pandas as pd
from scipy.stats import qmc

from acme_cbo.environments import problem as problem_lib
from acme_cbo.evaluation import statistics
from acme_cbo.policies.baselines import gp_bo
from acme_cbo.study import study as study_lib

_NUM_SOBOL = 5
_PEER = pathlib.Path(__file__).parents[2] / 'tests/peers/botorch_step.py'


class Table:
  """A table that answers experiments.

  Attributes:
    settings: names of the columns to set.
    low: [D] their lowest values.
    high: [D] their highest values.
    outcomes: target of every row.
  """

  def __init__(self, path: pathlib.Path, target: str):
    """Reads a CSV file.

    Args:
      path: the file; all its columns are numbers.
      target: column to maximize.
    """
    table = pd.read_csv(path)
    self.target = target
    self.settings = [name for name in table.columns if name != target]
    self._designs = table[self.settings].to_numpy(float)
    self.outcomes = table[target].to_numpy(float)
    self.low, self.high = self._designs.min(0), self._designs.max(0)
    means = table.groupby(self.settings)[target].mean()
    self._worst, self._best = float(self.outcomes.mean()), float(means.max())

  def _nearest(self, values: np.ndarray) -> np.ndarray:
    """Returns the numbers of the rows of the nearest design."""
    scaled = (self._designs - values) / (self.high - self.low)
    nearest = self._designs[np.argmin((scaled**2).sum(1))]
    return np.flatnonzero((self._designs == nearest).all(1))

  def measure(
    self, values: np.ndarray, rng: np.random.Generator
  ) -> tuple[np.ndarray, float]:
    """Returns [D] the values that were set, and the outcome."""
    row = rng.choice(self._nearest(values))
    return self._designs[row], float(self.outcomes[row])

  def score(self, values: np.ndarray) -> float:
    """Returns the score of a design."""
    mean = self.outcomes[self._nearest(values)].mean()
    return float((mean - self._worst) / (self._best - self._worst))


def play_study(table: Table, seed: int, number: int, constraints) -> Any:
  """Returns the design that a study recommends."""
  rng = np.random.default_rng(seed)
  with tempfile.TemporaryDirectory() as directory:
    study = study_lib.Study.create(
      pathlib.Path(directory) / 'table.study',
      target=table.target,
      variables={
        name: {'domain': (float(low), float(high))}
        for name, low, high in zip(
          table.settings, table.low, table.high, strict=True
        )
      },
      interventions='all',
      constraints=constraints,
      experiments=number,
      seed=seed,
    )
    for _ in range(number):
      (trial,) = study.suggest()
      asked = np.array([trial.do[name] for name in table.settings])
      done, outcome = table.measure(asked, rng)
      study.observe(
        trial,
        {
          **dict(zip(table.settings, done.tolist(), strict=True)),
          table.target: outcome,
        },
      )
    best = study.recommend()
    assert best is not None
    return np.array([best.do[name] for name in table.settings])


def play_gp_bo(table: Table, seed: int, number: int) -> Any:
  """Returns the design that `gp_bo` recommends."""
  rng = np.random.default_rng(seed)
  size = len(table.settings)
  problem = problem_lib.make(
    [*table.settings, table.target],
    table.target,
    'maximize',
    {
      name: (float(low), float(high))
      for name, low, high in zip(
        table.settings, table.low, table.high, strict=True
      )
    },
    size,
  )
  problem = problem._replace(sets=problem.sets[problem.sets.sum(1) == size])
  policy = gp_bo.gp_bo()
  with jax.enable_x64(True):
    # Of observations it takes the units of the target alone.
    units = np.zeros((2, size + 1))
    units[:, -1] = table.outcomes.mean() + table.outcomes.std() * np.array(
      [-1.0, 1.0]
    )
    memory = policy.init(problem, units, number)
    for step in range(number):
      key = jax.random.fold_in(jax.random.PRNGKey(seed), step)
      made = policy.choose(key, memory)
      done, outcome = table.measure(np.asarray(made.values)[:-1], rng)
      made = made._replace(values=np.append(done, 0.0))
      memory = policy.observe(memory, step, made, np.append(done, outcome))
    return np.asarray(policy.recommend(memory).values)[:-1]


def play_random(table: Table, seed: int, number: int) -> Any:
  """Returns the design of the best outcome of random ones."""
  rng = np.random.default_rng(seed)
  made = [
    table.measure(rng.uniform(table.low, table.high), rng)
    for _ in range(number)
  ]
  return max(made, key=lambda one: one[1])[0]


class BoTorch:
  """BoTorch, in a Python of its own."""

  def __init__(self, python: str):
    """Starts the process.

    Args:
      python: path of the Python.
    """
    self._process = subprocess.Popen(
      [python, str(_PEER)],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      text=True,
    )

  def __call__(self, table: Table, seed: int, number: int) -> Any:
    """Returns the design of the highest posterior mean among those made."""
    rng = np.random.default_rng(seed)
    first = qmc.Sobol(len(table.settings), rng=rng).random(_NUM_SOBOL)
    asked = [*(table.low + first * (table.high - table.low))]
    made: list[tuple[np.ndarray, float]] = []
    answer: dict[str, Any] = {}
    for step in range(number + 1):
      if step >= _NUM_SOBOL:
        answer = self._ask(table, made)
        asked.append(np.array(answer['point']))
      if step < number:
        made.append(table.measure(asked[step], rng))
    return made[answer['best']][0]

  def _ask(self, table, made) -> dict[str, Any]:
    data = {
      'inputs': [done.tolist() for done, _ in made],
      'outcomes': [outcome for _, outcome in made],
      'low': table.low.tolist(),
      'high': table.high.tolist(),
      'noisy': True,
    }
    requests, responses = self._process.stdin, self._process.stdout
    assert requests
    assert responses
    print(json.dumps(data), file=requests, flush=True)
    return json.loads(responses.readline())


def main(arguments: Sequence[str]) -> None:
  """Prints a row of Markdown for each method."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('table', type=pathlib.Path)
  parser.add_argument('--target', required=True)
  parser.add_argument('--total', type=float, help='sum of all settings')
  parser.add_argument('--experiments', type=int, default=30)
  parser.add_argument('--repeats', type=int, default=20)
  parser.add_argument('--botorch', help='Python with BoTorch')
  options = parser.parse_args(arguments)
  table = Table(options.table, options.target)
  total = ' + '.join(table.settings)
  constraints = [f'{total} = {options.total:g}'] if options.total else []
  methods: dict[str, Callable[[Table, int, int], Any]] = {
    'study': lambda *args: play_study(*args, constraints),
    'gp_bo': play_gp_bo,
    'random': play_random,
  }
  if options.botorch:
    methods['botorch'] = BoTorch(options.botorch)
  for name, play in methods.items():
    scores = [
      table.score(play(table, seed, options.experiments))
      for seed in range(options.repeats)
    ]
    low, high = statistics.bootstrap_interval(np.array(scores), 0.95)
    print(
      f'| {options.table.stem} | {name} | {np.mean(scores):.2f} '
      f'[{low:.2f}, {high:.2f}] |',
      flush=True,
    )


if __name__ == '__main__':
  main(sys.argv[1:])
