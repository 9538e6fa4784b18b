"""Existing evaluations, read from disk.

An evaluation is a directory written by launchers/evaluate.py, or a table like
its results.csv from any other source: one row for each step of each episode,
with the columns `COLUMNS`.
"""

import collections
from collections.abc import Sequence
import io
import pathlib
from typing import Any, NamedTuple

import pandas as pd

from acme_cbo.evaluation import episode_store
from acme_cbo.evaluation import episodes as episodes_lib
from acme_cbo.infra import errors
from acme_cbo.infra import files
from acme_cbo.infra import text

# Required columns of a table; all others are ignored. `no_intervention` and
# `optimum` are E[Y | do] of no intervention and of the best one.
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
# The optimum is found by a search: a method may come out a little better.
_MAX_SCORE = 1.01
# Least gain that scores can be relative to, and as a share of the optimum.
_MIN_GAIN, _RESOLUTION = 1e-100, 1e-12
_MAX_BYTES = 10**9


class Evaluation(NamedTuple):
  """Content of one directory or table.

  Attributes:
    path: path of the directory or table.
    methods: {method: its episodes}.
    protocol: settings of the episodes, {'observations': ...}; a table has
      `interventions` only.
    scms: {SCM: digest of its source, if the source may change}.
    remarks: sentences for the report, about methods that are left out or were
      not designed for these SCMs.
  """

  path: pathlib.Path
  methods: dict[str, list[episodes_lib.Episode]]
  protocol: dict[str, Any]
  scms: dict[str, str]
  remarks: tuple[str, ...] = ()


def is_evaluation(path: pathlib.Path) -> bool:
  """Returns whether a path is an evaluation, as opposed to a training run."""
  return path.suffix == '.csv' or episode_store.has_episodes(path)


def read(path: pathlib.Path) -> Evaluation:
  """Reads an evaluation; nothing is written.

  Args:
    path: directory of the evaluation, or a table. A table has no beliefs about
      parents.

  Returns:
    The `Evaluation`.

  Raises:
    errors.UsageError: it cannot be read, or is not finished.
  """
  if path.suffix == '.csv':
    episodes = _read_table(path)
    first, *others = episodes
    length = len(first.steps['score'])
    for other in others:
      if len(other.steps['score']) != length:
        raise errors.UsageError(
          f'{path}: {first.method} has {length} interventions on {first.scm}, '
          f'repeat {first.repeat}, and {other.method} '
          f'{len(other.steps["score"])} on {other.scm}, repeat {other.repeat}; '
          'leave out the steps that the other lacks, or, if a budget ends the '
          'episodes, name the directory of the evaluation'
        )
    return Evaluation(path, _by_method(episodes), {'interventions': length}, {})
  config = episode_store.read_config(path)
  episodes = episode_store.read(path)
  episode_store.check_agreement(path, episodes, config)
  for episode in episodes:
    if complaint := _complaint(episode):
      raise errors.UsageError(
        f'{path}: {complaint}; remove its line from episodes.jsonl and rerun '
        'the evaluation'
      )
  methods = _by_method(episodes)
  num_episodes = {
    method: collections.Counter(episode.scm for episode in own)
    for method, own in methods.items()
  }
  remarks = []
  for scm in config['scms']:
    counts = {method: by_scm[scm] for method, by_scm in num_episodes.items()}
    if not any(counts.values()) or {*counts.values()} - {0, config['repeats']}:
      raise errors.UsageError(
        f'{path} is not finished: on {scm}, some of the {config["repeats"]} '
        'repeats are missing; rerun the command that started it to continue'
      )
    for method, count in counts.items():
      if not count and method in methods:
        del methods[method]
        remarks.append(
          f'{method} of {path} was not evaluated on {scm}, and is left out.'
        )
  protocol = {name: config[name] for name in episode_store.PROTOCOL}
  return Evaluation(path, methods, protocol, config['scms'], tuple(remarks))


def _complaint(episode: episodes_lib.Episode) -> str:
  """Returns what is wrong with the values of an episode; '' if nothing is."""
  episode_name = (
    f'the episode of {episode.method} on {episode.scm}, repeat '
    f'{episode.repeat},'
  )
  gain = episode.optimum - episode.no_intervention
  if not abs(gain) > max(_MIN_GAIN, _RESOLUTION * abs(episode.optimum)):
    return (
      f'{episode_name} has nothing to gain: the optimum is {episode.optimum:g} '
      f'and the outcome of no intervention {episode.no_intervention:g}'
    )
  if (score := max(episode.steps['score'])) > _MAX_SCORE:
    return (
      f'{episode_name} has a score of {score:g}, but the best is 1; a score is '
      'a share of the possible gain, no per cent'
    )
  for outcome in episode.steps['expected_outcome']:
    if (outcome - episode.no_intervention) / gain > _MAX_SCORE:
      return (
        f'{episode_name} has an expected outcome of {outcome:g}, which is '
        f'better than the optimum, {episode.optimum:g}'
      )
  if (seconds := min(episode.steps['seconds'])) < 0:
    return f'{episode_name} has a decision of {seconds:g} seconds'
  return ''


def find_mismatches(first: Evaluation, other: Evaluation) -> list[str]:
  """Returns how the protocol and the SCMs of two evaluations differ.

  Settings that are unknown for one of them are not compared.
  """
  shared = first.protocol.keys() & other.protocol.keys()
  return [
    f'{name} is {other.protocol[name]}, not {first.protocol[name]}'
    for name in episode_store.PROTOCOL
    if name in shared and first.protocol[name] != other.protocol[name]
  ] + [
    f'{scm} is another SCM of that name'
    for scm in sorted(first.scms.keys() & other.scms.keys())
    if first.scms[scm] != other.scms[scm]
  ]


def _by_method(
  episodes: Sequence[episodes_lib.Episode],
) -> dict[str, list[episodes_lib.Episode]]:
  methods: dict[str, list[episodes_lib.Episode]] = {}
  for episode in episodes:
    methods.setdefault(episode.method, []).append(episode)
  return methods


def _read_table(path: pathlib.Path) -> list[episodes_lib.Episode]:
  content = files.read_bytes(path, _MAX_BYTES)

  def parse(**options) -> pd.DataFrame:
    # By default, pandas reads a method called NA as a missing value.
    return pd.read_csv(io.BytesIO(content), keep_default_na=False, **options)

  try:
    header = parse(header=None, nrows=1, dtype=str).iloc[0].tolist()
    table = parse(
      dtype={'method': str, 'scm': str}, usecols=lambda x: x in COLUMNS
    )
  except ValueError as error:
    raise errors.UsageError(f'{path} cannot be read: {error}') from error
  if not isinstance(table.index, pd.RangeIndex):
    raise errors.UsageError(
      f'{path}, line 2: more values than names of columns; remove the comma or '
      'the value at the end'
    )
  for name in COLUMNS:
    if header.count(name) > 1:
      raise errors.UsageError(f'{path} has {header.count(name)} columns {name}')
  missing = [name for name in COLUMNS if name not in header]
  if missing:
    raise errors.UsageError(
      f'{path} lacks the columns {", ".join(missing)}; it must have those of '
      "an evaluation's results.csv"
    )
  if not len(table):
    raise errors.UsageError(f'{path} has no rows')
  for name in COLUMNS:
    if name in _NUMBERS:
      numbers = pd.to_numeric(table[name], errors='coerce')
      invalid = ~(numbers.abs() < episode_store.MAX_NUMBER)
      expected = 'a finite number'
      if name in ('repeat', 'step'):
        invalid |= numbers % 1 != 0
        expected = 'a whole number'
      table[name] = numbers.mask(invalid, table[name])
    else:
      table[name] = table[name].map(text.unquote_cell)
      invalid = ~table[name].map(episode_store.is_name).astype(bool)
      expected = episode_store.NAME
    if invalid.any():
      row = int(invalid.to_numpy().argmax())
      value = table[name][row]
      raise errors.UsageError(
        f'{path}, line {row + 2}: {name} is '
        f'{"empty" if value == "" else f"{value!s:.100}"}; it must be '
        f'{expected}'
      )
  return [
    _episode(path, key, rows.sort_values('step'))
    for key, rows in table.groupby(['method', 'scm', 'repeat'], sort=False)
  ]


def _episode(path, key, rows) -> episodes_lib.Episode:
  """Returns the episode in the rows of one (method, SCM, repeat)."""
  method, scm, repeat = key
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
  episode = episodes_lib.Episode(
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
    parent_probabilities={},
    predicted={},
  )
  if complaint := _complaint(episode):
    raise errors.UsageError(f'{path}: {complaint}')
  return episode
