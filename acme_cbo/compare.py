"""Compares the policies of trained runs, its files in one directory.

C/evaluations/  what `evaluate` writes, of each run
C/units.csv     a row for each episode, with what it came to
C/summary.json  who is better, by how much and how surely; settings that differ

The same command goes on after a kill.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import pathlib
from typing import Any
import urllib.parse

import pandas as pd

from acme_cbo import episode_log
from acme_cbo import evaluate
from acme_cbo import run_directory
from acme_cbo.evaluation import environments
from acme_cbo.evaluation import report
from acme_cbo.studies import measures
from acme_cbo.studies import runs as runs_lib
from acme_cbo.studies import verdict


@dataclasses.dataclass(frozen=True)
class Settings(evaluate.Playing):
  """What runs are compared, and how.

  Attributes:
    runs: their directories.
    allow_mismatch: see `runs.read`.
  """

  runs: tuple[pathlib.Path, ...]
  allow_mismatch: bool


def from_flags(given: Any, arguments: Sequence[str]) -> Settings:
  """The settings that the flags of the launcher name.

  Args:
    given: the flags, or what has attributes of their names.
    arguments: directories of runs.

  Returns:
    The `Settings`.

  Raises:
    errors.UsageError: no directory is named for what comes out.
  """
  return Settings(
    **vars(evaluate.playing(given)),
    runs=tuple(map(pathlib.Path, arguments)),
    allow_mismatch=given.allow_mismatch,
  )


def run(settings: Settings, resolve: environments.Resolve) -> dict[str, Any]:
  """Plays what was not played yet, says who is better, and writes it down.

  Every run plays with as many observations and interventions as it was trained
  with, on the same SCMs, with the same data and noise.

  Args:
    settings: what is compared.
    resolve: see `evaluate.run`.

  Returns:
    What `summary.json` holds.

  Raises:
    errors.UsageError: a setting cannot be used, or the runs do not match.
  """
  found = runs_lib.read(settings.runs, settings.allow_mismatch)
  run_directory.make(settings.out, '--out')
  names = [field.name for field in dataclasses.fields(evaluate.Playing)]
  played = {name: getattr(settings, name) for name in names}
  tables = []
  for number, one in enumerate(found, 1):
    print(f'{number} of {len(found)}: {one.model}', flush=True)
    horizon = one.settings['horizon.num_interventions']
    out = settings.out / 'evaluations' / urllib.parse.quote(one.model, safe='')
    evaluate.play(
      evaluate.Settings(
        **played | {'out': out},
        methods=('grpo',),
        policy=one.directory / 'policy',
        observations=one.settings['horizon.num_observations'],
        interventions=horizon,
      ),
      resolve,
    )
    episodes = episode_log.EpisodeLog(out).episodes.values()
    tables.append(measures.table(one.model, [*episodes], horizon))
  table = pd.concat(tables, ignore_index=True)
  table = table.sort_values(['model', 'scm', 'repeat'], ignore_index=True)
  summary = {
    'runs': {
      one.model: {
        'configuration': one.configuration,
        'directory': str(one.directory),
        'seed': one.settings['seed'],
        'mismatches': list(one.mismatches),
      }
      for one in found
    },
    'differences': runs_lib.differences(found),
    **verdict.found(
      table,
      {one.model: one.configuration for one in found},
      settings.confidence,
    ),
  }
  run_directory.write(settings.out / 'units.csv', table.to_csv(index=False))
  run_directory.write_json(settings.out / 'summary.json', summary)
  print(f'\n{text(summary)}\n\nall of it in {settings.out}', flush=True)
  return summary


def text(summary: Mapping[str, Any]) -> str:
  """Who is better, and what all came to, as text of fixed width."""
  names = list(summary['measures']['score']['models'])
  lines = [
    ['', *names],
    *(
      [measures.MEASURES[measure].title, *(_cell(about, n) for n in names)]
      for measure, about in summary['measures'].items()
    ),
  ]
  marked = [
    f'{model}: {sentence}'
    for model, about in summary['runs'].items()
    for sentence in about['mismatches']
  ]
  differing = [
    f'{setting}: '
    + ', '.join(f'{name} {value}' for name, value in values.items())
    for setting, values in summary['differences'].items()
  ]
  return '\n'.join(
    [
      *summary['verdict'],
      *(f'Not comparable: {line}.' for line in marked),
      '',
      f'Mean [{summary["confidence"]:.0%} interval]; the unit is the '
      f'{summary["unit"]}.',
      report.align(lines, 1),
      *(['', 'What differs:', *differing] if differing else []),
    ]
  )


def _cell(about: Mapping[str, Any], name: str) -> str:
  """A mean with its interval."""
  if name not in about.get('models', {}):
    return '-'
  entry = about['models'][name]
  if entry['interval'] is None:
    return f'{entry["mean"]:.3g}'
  low, high = entry['interval']
  return f'{entry["mean"]:.3g} [{low:.3g}, {high:.3g}]'
