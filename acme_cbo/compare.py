"""Compares trained runs and evaluations, its files in one directory.

C/evaluation/   what `evaluate` writes of the policies of runs that play here
C/index.html    the report: who is better, by how much and how surely
C/*.png         its figures
C/summary.json  all of its numbers
C/units.csv     a row for each episode, with what it came to

The same command goes on after a kill.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import glob
import pathlib
from typing import Any

import jax
import pandas as pd

from acme_cbo import errors
from acme_cbo import evaluate
from acme_cbo import run_directory
from acme_cbo.evaluation import environments
from acme_cbo.evaluation import episodes as episodes_lib
from acme_cbo.evaluation import plots
from acme_cbo.evaluation import report
from acme_cbo.studies import evaluations
from acme_cbo.studies import figures
from acme_cbo.studies import measures
from acme_cbo.studies import page
from acme_cbo.studies import runs as runs_lib
from acme_cbo.studies import verdict


@dataclasses.dataclass(frozen=True)
class Settings(evaluate.Playing):
  """What is compared, and how.

  Attributes:
    paths: directories of runs and of evaluations, and tables of the latter.
    allow_mismatch: compare also what was not made alike, and mark it.
    left_out: sentences, what should be compared and is not there.
  """

  paths: tuple[pathlib.Path, ...]
  allow_mismatch: bool
  left_out: tuple[str, ...] = ()


def from_flags(given: Any, arguments: Sequence[str]) -> Settings:
  """The settings that the flags of the launcher name.

  Args:
    given: the flags, or what has attributes of their names.
    arguments: paths, or patterns of them.

  Returns:
    The `Settings`.

  Raises:
    errors.UsageError: no directory is named for what comes out, or nothing is
      where a path says.
  """
  paths: list[pathlib.Path] = []
  for argument in arguments:
    matching = sorted(glob.glob(argument))
    if not matching:
      raise errors.UsageError(f'there is no {argument} to be compared')
    paths += map(pathlib.Path, matching)
  return Settings(
    **vars(evaluate.playing(given)),
    paths=tuple(paths),
    allow_mismatch=given.allow_mismatch,
  )


def run(settings: Settings, resolve: environments.Resolve) -> dict[str, Any]:
  """Plays what was not played yet, says who is better, and writes it down.

  The policies of runs play on the same SCMs, with the same data and noise, with
  as many observations and interventions as the first one was trained with.

  Args:
    settings: what is compared.
    resolve: see `evaluate.run`.

  Returns:
    What `summary.json` holds.

  Raises:
    errors.UsageError: a setting cannot be used, or what is compared does not
      match.
  """
  evaluate.check_playing(settings)
  given = settings.paths
  for path in given:
    if [*map(pathlib.Path.resolve, given)].count(path.resolve()) > 1:
      raise errors.UsageError(f'{path} is named twice')
  before = [
    evaluations.read(path) for path in given if evaluations.is_one(path)
  ]
  runs = runs_lib.read(
    [path for path in given if not evaluations.is_one(path)],
    settings.allow_mismatch,
  )
  if len(runs) + sum(len(one.methods) for one in before) < 2:
    raise errors.UsageError(
      'name two or more to be compared: directories of training runs, of '
      'evaluations, or their results.csv'
    )
  out = settings.out
  run_directory.prepare_again(out, '--out', 'a comparison', 'paths')
  with run_directory.locked(out, '--out'):
    starts = run_directory.begin(
      out,
      {
        field.name: _plain(getattr(settings, field.name))
        for field in dataclasses.fields(settings)
      },
      [f'{device} ({device.device_kind})' for device in jax.devices()],
    )
    models = [
      *(_of_runs(runs, _play(settings, runs, resolve)) if runs else []),
      *_of_evaluations(before),
    ]
    models = _checked(models, settings.allow_mismatch)
    settings = dataclasses.replace(
      settings,
      left_out=(
        *settings.left_out,
        *(x for one in before for x in one.left_out),
      ),
    )
    summary = _summary(settings, models, runs) | {'made': starts[-1]}
    _write(out, summary)
  print(f'\n{text(summary)}\n\nall of it in {out}', flush=True)
  return summary


def _plain(value: Any) -> Any:
  """A setting as JSON can hold it."""
  if isinstance(value, tuple):
    return [_plain(item) for item in value]
  return str(value) if isinstance(value, pathlib.Path) else value


@dataclasses.dataclass(frozen=True)
class _Model:
  """What is compared.

  `about` is what the report says of where it comes from; `protocol` and
  `episodes` are as in `evaluations.Evaluation`.
  """

  name: str
  configuration: str
  about: dict[str, Any]
  protocol: dict[str, Any]
  episodes: list[episodes_lib.Episode]
  mismatches: tuple[str, ...] = ()


def _play(
  settings: Settings,
  runs: Sequence[runs_lib.Run],
  resolve: environments.Resolve,
) -> evaluations.Evaluation:
  """Lets the policies of runs play; each is a method of the evaluation."""
  names = [field.name for field in dataclasses.fields(evaluate.Playing)]
  out = settings.out / 'evaluation'
  trained_with = runs[0].settings
  playing = evaluate.Settings(
    **{name: getattr(settings, name) for name in names} | {'out': out},
    methods=tuple(one.model for one in runs),
    policies={one.model: one.directory / 'policy' for one in runs},
    observations=trained_with['horizon.num_observations'],
    interventions=trained_with['horizon.num_interventions'],
  )
  with evaluate.playing_in(playing, resolve) as played:
    for (model, scm), reason in played.refusals.items():
      raise errors.UsageError(f'{model} cannot play on {scm}: {reason}')
    return evaluations.read(out)


def _of_runs(
  runs: Sequence[runs_lib.Run], played: evaluations.Evaluation
) -> list[_Model]:
  return [
    _Model(
      one.model,
      one.configuration,
      {
        'path': str(one.directory),
        'seed': one.settings['seed'],
        'updates': one.updates,
        'code': one.revision,
      },
      played.protocol,
      played.methods[one.model],
      one.mismatches,
    )
    for one in runs
  ]


def _of_evaluations(
  before: Sequence[evaluations.Evaluation],
) -> list[_Model]:
  called = [method for one in before for method in one.methods]
  return [
    _Model(
      name := f'{method} ({one.path})' if called.count(method) > 1 else method,
      name,
      {'path': str(one.path), 'seed': None, 'updates': None, 'code': None},
      one.protocol,
      episodes,
    )
    for one in before
    for method, episodes in one.methods.items()
  ]


def _checked(models: Sequence[_Model], allow_mismatch: bool) -> list[_Model]:
  """Marks what was played otherwise than the first.

  Raises:
    errors.UsageError: something was, and it was not allowed.
  """
  found = []
  for model in models:
    differing = evaluations.mismatches(models[0].protocol, model.protocol)
    if differing and not allow_mismatch:
      raise errors.UsageError(
        f'{model.name} was evaluated otherwise than {models[0].name}: '
        f'{"; ".join(differing)}; --allow_mismatch compares it all the same, '
        'and marks it'
      )
    found.append(
      dataclasses.replace(model, mismatches=(*model.mismatches, *differing))
    )
  return found


def _summary(
  settings: Settings, models: Sequence[_Model], runs: Sequence[runs_lib.Run]
) -> dict[str, Any]:
  """All that `summary.json` holds but for when it was made."""
  horizon = max(
    *(model.protocol.get('interventions', 0) for model in models),
    *(len(one.steps['score']) for model in models for one in model.episodes),
  )
  table = pd.concat(
    [measures.table(model.name, model.episodes, horizon) for model in models],
    ignore_index=True,
  )
  configurations = {model.name: model.configuration for model in models}
  of_models = table['model'].map(configurations)
  units = table.assign(configuration=of_models).to_csv(index=False)
  run_directory.write(settings.out / 'units.csv', units)
  found = verdict.found(table, configurations, settings.confidence)
  return {
    'models': {
      model.name: {
        'configuration': model.configuration,
        **model.about,
        'mismatches': list(model.mismatches),
      }
      for model in models
    },
    'left_out': list(settings.left_out),
    'differences': runs_lib.differences(runs),
    'played': {
      'SCMs': ', '.join(found['by_scm']),
      'episodes of each model on each': int(
        table.groupby(['model', 'scm']).size().max()
      ),
      **models[0].protocol,
    },
    'training': _training(runs),
    **found,
  }


def _training(runs: Sequence[runs_lib.Run]) -> dict[str, dict[str, Any]]:
  """{configuration: {model: its learning curve}}."""
  found: dict[str, dict[str, Any]] = {}
  for one in runs:
    curve = runs_lib.learning_curve(one)
    if curve['updates']:
      found.setdefault(one.configuration, {})[one.model] = curve
  return found


def _write(out: pathlib.Path, summary: Mapping[str, Any]) -> None:
  """Writes the figures, the page and the summary."""
  about, confidence = summary['measures']['score'], summary['confidence']
  ranked = page.ranking(summary)
  drawn = {
    'curves': figures.curves(summary['curves'], ranked, confidence),
    'profiles': figures.profiles(summary['profiles'], ranked, confidence),
  }
  if 'ranking' in about:
    drawn['ranking'] = figures.ranking(about, confidence)
  if summary['training']:
    drawn['training'] = figures.training(summary['training'], ranked)
  images = {}
  for name, figure in drawn.items():
    path = out / f'{name}.png'
    plots.save(path, figure)
    images[name] = path.read_bytes()
  run_directory.write(out / 'index.html', page.render(summary, images))
  run_directory.write_json(out / 'summary.json', summary)


def text(summary: Mapping[str, Any]) -> str:
  """Who is better, and what all came to, as text of fixed width."""
  lines = [
    ['', *(one.title for one in measures.MEASURES.values())],
    *(
      [name, *(_cell(about, name) for about in summary['measures'].values())]
      for name in page.ranking(summary)
    ),
  ]
  differing = [
    f'{setting}: '
    + ', '.join(f'{name} {value}' for name, value in values.items())
    for setting, values in summary['differences'].items()
  ]
  return '\n'.join(
    [
      *summary['verdict'],
      *page.marks(summary),
      '',
      f'Mean{_of_intervals(summary)}; the unit is the {summary["unit"]}.',
      report.align(lines, 1),
      *(['', 'What differs:', *differing] if differing else []),
    ]
  )


def _of_intervals(summary: Mapping[str, Any]) -> str:
  models = summary['measures']['score']['models'].values()
  if all(entry['interval'] is None for entry in models):
    return ', without intervals of so few'
  return f' [{summary["confidence"]:.0%} interval]'


def _cell(about: Mapping[str, Any], name: str) -> str:
  """A mean with its interval."""
  entry = about.get('models', {}).get(name)
  if not entry:
    return '-'
  ends = page.interval(entry['interval'])
  return f'{page.number(entry["mean"])} {ends}'.rstrip()
