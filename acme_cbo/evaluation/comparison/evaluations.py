"""Evaluations that were made before: what methods came to, from the disk.

A directory of launchers/evaluate.py, or a table like its results.csv, whoever
wrote it: a row for each step of each episode, with `COLUMNS`.
"""

import collections
from collections.abc import Sequence
import pathlib
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from acme_cbo.evaluation import episode_store
from acme_cbo.evaluation import episodes as episodes_lib
from acme_cbo.infra import errors
from acme_cbo.infra import run_directory

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
# Sums of numbers beyond it may not be finite.
_HUGE = 1e100
# What decides what an episode is, beside its SCM.
_PROTOCOL = ('observations', 'interventions', 'samples', 'budget', 'seed')


class Evaluation(NamedTuple):
  """What is in one directory or table.

  Attributes:
    path: of it.
    methods: {method: its episodes}.
    protocol: {'observations': ...}, how they were played; only `interventions`
      where a table is all that is known.
    scms: {SCM: digest of what it was made from, if that may change}.
    remarks: sentences, of what is not in it, or was not made for it.
  """

  path: pathlib.Path
  methods: dict[str, list[episodes_lib.Episode]]
  protocol: dict[str, Any]
  scms: dict[str, str]
  remarks: tuple[str, ...] = ()


def is_one(path: pathlib.Path) -> bool:
  """Whether a path is one of an evaluation, and not of a training run."""
  return path.suffix == '.csv' or episode_store.is_in(path)


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
    played = _of_table(path)
    most = max(len(episode.steps['score']) for episode in played)
    return Evaluation(path, _by_method(played), {'interventions': most}, {})
  config = run_directory.read_config(path)
  lacking = {'scms', 'repeats', *_PROTOCOL} - config.keys()
  if lacking:
    raise errors.UsageError(
      f'{path / "config.json"} is damaged: it lacks {", ".join(lacking)}'
    )
  played = episode_store.read(path)
  for episode in played:
    if not _is_whole(episode):
      raise errors.UsageError(
        f'{path}: the episode of {episode.method} on {episode.scm}, repeat '
        f'{episode.repeat}, is damaged; remove its line from episodes.jsonl to '
        'have it played again'
      )
  methods = _by_method(played)
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
  return Evaluation(path, methods, protocol, config['scms'], tuple(left_out))


def _is_whole(episode: episodes_lib.Episode) -> bool:
  """Whether all that is computed with is there, and finite."""
  try:
    steps = np.array(
      [
        episode.steps[name] for name in ('expected_outcome', 'score', 'seconds')
      ],
      float,
    )
    ends = np.array([episode.no_intervention, episode.optimum], float)
    beliefs = [len(belief) for belief in episode.believed.values()]
    return bool(
      steps.shape[1]
      and np.isfinite(steps).all()
      and np.isfinite(ends).all()
      and ends[0] != ends[1]
      and {*beliefs} <= {len(episode.causes)}
      and isinstance(episode.repeat, int)
    )
  except (AttributeError, KeyError, IndexError, TypeError, ValueError):
    return False


def mismatches(first: Evaluation, other: Evaluation) -> list[str]:
  """How what two of them were played with differs, as far as it is known."""
  known = first.protocol.keys() & other.protocol.keys()
  return [
    f'{name} is {other.protocol[name]}, not {first.protocol[name]}'
    for name in _PROTOCOL
    if name in known and first.protocol[name] != other.protocol[name]
  ] + [
    f'{scm} is another SCM of that name'
    for scm in sorted(first.scms.keys() & other.scms.keys())
    if first.scms[scm] != other.scms[scm]
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
    # A method may be called NA.
    table = pd.read_csv(
      path, dtype={'method': str, 'scm': str}, keep_default_na=False
    )
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
  for name in COLUMNS:
    if name in _NUMBERS:
      numbers = pd.to_numeric(table[name], errors='coerce')
      wrong = ~(numbers.abs() < _HUGE)
      wanted = 'a finite number'
      if name in ('repeat', 'step'):
        wrong |= numbers % 1 != 0
        wanted = 'a whole number'
      table[name] = numbers.mask(wrong, table[name])
    else:
      wrong, wanted = table[name] == '', 'a name'
    if wrong.any():
      row = int(wrong.to_numpy().argmax())
      given = table[name][row]
      raise errors.UsageError(
        f'{path}, line {row + 2}: {name} is '
        f'{"empty" if given == "" else given}; it must be {wanted}'
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
      f'{errors.format_list([str(step) for step in steps], 5, "more", ", ")}; '
      'they must be 1, 2, 3, ...'
    )
  for name in ('no_intervention', 'optimum'):
    if rows[name].nunique() > 1:
      raise errors.UsageError(
        f'{path}: {name} is not the same in all steps of {method} on {scm}, '
        f'repeat {repeat}'
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
