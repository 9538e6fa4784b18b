"""Prints how long a decision takes, by the number of variables set at once.

  python docs/studies/decision_times.py --rounds=30

A row per number: the median milliseconds to choose an experiment that sets all
of 10 variables but those that are left out, to take in its outcome, and to
predict 16 others; after 20 experiments, with 100 records.
"""

import argparse
import time

from acme_cbo.infra import jax_environment

# ruff: noqa: E402 - jax and numpy read the environment when they are imported.
jax_environment.set_defaults(small_programs=True)

import jax
import numpy as np
import pandas as pd

from acme_cbo import types
from acme_cbo.environments import problem as problem_lib
from acme_cbo.policies import policy as policy_lib

_NUM_VARIABLES = 10
_NUM_BEFORE = 20
_MAX_ROUNDS = 40


def main() -> None:
  """Times the decisions and prints the table."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument(
    '--rounds',
    type=int,
    choices=range(1, _MAX_ROUNDS + 1),
    default=15,
    metavar=f'1..{_MAX_ROUNDS}',
  )
  parser.add_argument(
    '--at_once', type=int, nargs='+', default=[1, 2, 4, 7, 10]
  )
  arguments = parser.parse_args()
  table = {
    number: _milliseconds(number, arguments.rounds)
    for number in arguments.at_once
  }
  print(pd.DataFrame(table).T.to_string(float_format='{:.2f}'.format))


def _milliseconds(number: int, rounds: int) -> dict[str, float]:
  """Returns median times of a study of designs of this many variables."""
  rng = np.random.default_rng(0)
  names = [f'x{i}' for i in range(_NUM_VARIABLES)]
  columns = [*names, 'y']
  problem = problem_lib.make(
    columns, 'y', 'maximize', dict.fromkeys(names[:number], (-2, 2)), 1
  )
  whole = np.array([name in names[:number] for name in columns])
  problem = problem._replace(sets=whole[None])
  functions = policy_lib.load_policy().functions(number)
  records = rng.normal(size=(100, len(columns)))
  memory = functions.init(problem, records, _NUM_BEFORE + rounds)
  asked = types.Intervention._make(
    (
      np.broadcast_to(whole, (16, whole.size)),
      np.where(whole, rng.uniform(-2, 2, (16, whole.size)), 0.0),
    )
  )
  times: dict[str, list[float]] = {'choose': [], 'observe': [], 'predict': []}

  def timed(name, function, *inputs):
    start = time.perf_counter()
    result = jax.block_until_ready(function(*inputs))
    times[name].append(1e3 * (time.perf_counter() - start))
    return result

  for step in range(_NUM_BEFORE + rounds):
    key = jax.random.PRNGKey(step)
    made = timed('choose', functions.choose, key, memory)
    outcome = rng.normal(size=len(columns))
    outcome = np.where(made.mask, made.values, outcome)
    memory = timed('observe', functions.observe, memory, step, made, outcome)
    timed('predict', functions.predict, memory, asked)
  return {
    name: float(np.median(values[_NUM_BEFORE:]))
    for name, values in times.items()
  }


if __name__ == '__main__':
  main()
