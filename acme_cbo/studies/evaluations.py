"""Evaluations that were made before: what methods came to, from the disk.

A directory of launchers/evaluate.py, or a table like its results.csv, whoever
wrote it: a row for each step of each episode, with `COLUMNS`.
"""

import collections
from collections.abc import Sequence
import pathlib
from typing import Any, NamedTuple

import pandas as pd

from acme_cbo import episode_log
from acme_cbo import errors
from acme_cbo import run_directory
from acme_cbo.evaluation import episodes as episodes_lib

# What a table must have; what else it has is not read. `no_intervention` and
# `optimum` are E[Y | do] where nothing and where the best is done.
COLUMNS = (
  'method',
  'scm',
  'repeat',
  'step',
  'no_intervention',
  'optimum',
  'expected_outcome',
  'score',
  'seconds',
)
_NUMBERS = COLUMNS[2:]
# What decides what an episode is, beside its SCM.
_PROTOCOL = ('observations', 'interventions', 'samples', 'budget', 'seed')


class Evaluation(NamedTuple):
  """What is in one directory or table.

  Attributes:
    path: of it.
    methods: {method: its episodes}.
    protocol: {'observations': ...}, how they were played; empty where a table
      is all that is known.
    left_out: sentences, of methods that cannot play on some of the SCMs.
  """

  path: pathlib.Path
  methods: dict[str, list[episodes_lib.Episode]]
  protocol: dict[str, Any]
  left_out: tuple[str, ...] = ()


def is_one(path: pathlib.Path) -> bool:
  """Whether a path is one of an evaluation, and not of a training run."""
  return path.suffix == '.csv' or episode_log.is_in(path)


def read(path: pathlib.Path) -> Evaluation:
  """An evaluation that was made before; nothing in it is touched.

  Args:
    path: of its directory, or of a table. The latter says nothing of beliefs
      in parents.

  Returns:
    The `Evaluation`.

  Raises:
    errors.UsageError: it cannot be read, or is not finished.
  """
  if path.suffix == '.csv':
    return Evaluation(path, _by_method(_of_table(path)), {})
  config = run_directory.read_config(path)
  methods = _by_method(episode_log.read(path))
  on = {
    method: collections.Counter(episode.scm for episode in episodes)
    for method, episodes in methods.items()
  }
  left_out = []
  for scm in config['scms']:
    played = {method: counts[scm] for method, counts in on.items()}
    if not any(played.values()) or {*played.values()} - {0, config['repeats']}:
      raise errors.UsageError(
        f'{path} is not finished: on {scm} not all of {config["repeats"]} '
        'repeats were played; the command that began it goes on with it'
      )
    for method, count in played.items():
      if not count and method in methods:
        del methods[method]
        left_out.append(
          f'{method} of {path} did not play on {scm}, and is left out.'
        )
  protocol = {name: config[name] for name in _PROTOCOL}
  return Evaluation(path, methods, protocol, tuple(left_out))


def mismatches(first: dict[str, Any], other: dict[str, Any]) -> list[str]:
  """How the protocols of two differ, in which none is empty."""
  if not first or not other:
    return []
  return [
    f'{name} is {other[name]}, not {first[name]}'
    for name in _PROTOCOL
    if first[name] != other[name]
  ]


def _by_method(
  episodes: Sequence[episodes_lib.Episode],
) -> dict[str, list[episodes_lib.Episode]]:
  found: dict[str, list[episodes_lib.Episode]] = {}
  for episode in episodes:
    found.setdefault(episode.method, []).append(episode)
  return found


def _of_table(path: pathlib.Path) -> list[episodes_lib.Episode]:
  try:
    table = pd.read_csv(path, dtype={'method': str, 'scm': str})
  except (OSError, ValueError) as error:
    raise errors.UsageError(f'{path} cannot be read: {error}') from error
  lacking = [name for name in COLUMNS if name not in table.columns]
  if lacking:
    raise errors.UsageError(
      f'{path} lacks the columns {", ".join(lacking)}; it must have those of '
      "an evaluation's results.csv"
    )
  if not len(table):
    raise errors.UsageError(f'{path} has no rows')
  for name in _NUMBERS:
    numbers = pd.to_numeric(table[name], errors='coerce')
    wrong = numbers[numbers.isna() | numbers.abs().eq(float('inf'))]
    if len(wrong):
      raise errors.UsageError(
        f'{path}, line {wrong.index[0] + 2}: {name} is '
        f'{table[name][wrong.index[0]]}; it must be a finite number'
      )
  return [
    _episode(path, which, rows.sort_values('step'))
    for which, rows in table.groupby(['method', 'scm', 'repeat'], sort=False)
  ]


def _episode(path, which, rows) -> episodes_lib.Episode:
  method, scm, repeat = which
  steps = rows['step'].tolist()
  if steps != list(range(1, len(steps) + 1)):
    raise errors.UsageError(
      f'{path}: the steps of {method} on {scm}, repeat {repeat}, are '
      f'{errors.listed([str(step) for step in steps], 5, "more", ", ")}; they '
      'must be 1, 2, 3, ...'
    )
  no_intervention = float(rows['no_intervention'].iloc[0])
  optimum = float(rows['optimum'].iloc[0])
  if optimum == no_intervention:
    raise errors.UsageError(
      f'{path}: on {scm}, repeat {repeat}, nothing can be gained: the optimum '
      f'is {optimum:g}, and so is the outcome of no intervention'
    )
  return episodes_lib.Episode(
    method=method,
    scm=scm,
    repeat=int(repeat),
    goal=1.0 if optimum > no_intervention else -1.0,
    no_intervention=no_intervention,
    optimum=optimum,
    steps={
      name: rows[name].astype(float).tolist()
      for name in ('expected_outcome', 'score', 'seconds')
    },
    causes=[],
    believed={},
  )
