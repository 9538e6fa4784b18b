"""Compares trained runs and evaluations, its files in one directory.

C/evaluation/   what `evaluate` writes of the policies of runs that play here, a
                directory for each set of them and each way to play
C/index.html    the report: who is better, by how much and how surely
C/*.png         its figures
C/summary.json  all of its numbers
C/units.csv     a row for each episode, with what it came to

The same command goes on after a kill.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import glob
import hashlib
import json
import pathlib
from typing import Any

import jax
import pandas as pd

from acme_cbo.evaluation import config
from acme_cbo.evaluation import episodes as episodes_lib
from acme_cbo.evaluation import plots
from acme_cbo.evaluation import report
from acme_cbo.evaluation import run as run_lib
from acme_cbo.evaluation.comparison import evaluations
from acme_cbo.evaluation.comparison import figures
from acme_cbo.evaluation.comparison import measures
from acme_cbo.evaluation.comparison import page
from acme_cbo.evaluation.comparison import runs as runs_lib
from acme_cbo.evaluation.comparison import verdict
from acme_cbo.infra import errors
from acme_cbo.infra import run_directory
from acme_cbo.scms import registry

# Of `config.EvaluationConfig`, what changes nothing of an episode.
_NOT_DECISIVE = ('out', 'jobs', 'confidence')


@dataclasses.dataclass(frozen=True)
class Settings(config.EvaluationConfig):
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
    exists = pathlib.Path(argument).exists()
    matching = [argument] if exists else sorted(glob.glob(argument))
    if not matching:
      raise errors.UsageError(f'there is no {argument} to be compared')
    paths += map(pathlib.Path, matching)
  return Settings(
    **vars(config.config_from_flags(given)),
    paths=tuple(paths),
    allow_mismatch=given.allow_mismatch,
  )


def run(settings: Settings, resolve: registry.Resolve) -> dict[str, Any]:
  """Plays what was not played yet, says who is better, and writes it down.

  The policies of runs play on the same SCMs, with the same data and noise, with
  as many observations and interventions as the first one was trained with.

  Args:
    settings: what is compared.
    resolve: see `run.run`.

  Returns:
    What `summary.json` holds.

  Raises:
    errors.UsageError: a setting cannot be used, or what is compared does not
      match.
  """
  config.check_config(settings)
  _check_paths(settings.paths)
  before = [
    evaluations.read(path)
    for path in settings.paths
    if evaluations.is_one(path)
  ]
  runs = runs_lib.read(
    [path for path in settings.paths if not evaluations.is_one(path)],
    settings.allow_mismatch,
  )
  if len(runs) + sum(len(one.methods) for one in before) < 2:
    raise errors.UsageError(
      'name two or more to be compared: directories of training runs, of '
      'evaluations, or their results.csv'
    )
  if runs and before:
    _check_beside(before, runs[0], settings, resolve)
  learning = _learning(runs)
  out = settings.out
  run_directory.prepare_resumable(
    out, '--out', 'a comparison', 'paths', ('evaluation',)
  )
  with run_directory.lock(out, '--out'):
    models = _models(runs, before, settings, resolve)
    table = _table(models)
    summary = _summary(settings, models, table, runs)
    summary['training'] = learning
    # What was there stays until all of this is.
    starts = run_directory.record_start(
      out,
      {
        field.name: _plain(getattr(settings, field.name))
        for field in dataclasses.fields(settings)
      },
      [f'{device} ({device.device_kind})' for device in jax.devices()],
    )
    summary |= {'made': starts[-1]}
    _write(out, summary, table)
  print(f'\n{text(summary)}\n\nall of it in {out}', flush=True)
  return summary


def _check_beside(
  before: Sequence[evaluations.Evaluation],
  run: runs_lib.Run,
  settings: Settings,
  resolve: registry.Resolve,
) -> None:
  """Raises where runs would play on something else than evaluations were."""
  trained_on = run_directory.read_config(run.directory)
  with jax.enable_x64(True):
    names = {one.name for one in resolve(settings.scms, trained_on)}
  for one in before:
    for method, episodes in one.methods.items():
      scms = {episode.scm for episode in episodes}
      repeats = 1 + max(episode.repeat for episode in episodes)
      if scms != names or repeats != settings.repeats:
        raise errors.UsageError(
          f'{one.path}: {method} has played {repeats} repeats on '
          f'{", ".join(sorted(scms))}, and runs would play {settings.repeats} '
          f'on {", ".join(sorted(names))}: give --scm= and --repeats= as they '
          'were there'
        )


def _check_paths(paths: Sequence[pathlib.Path]) -> None:
  """Raises where something is named twice, in whatever words."""
  named: dict[pathlib.Path, pathlib.Path] = {}
  for path in paths:
    same = path.resolve()
    # The table of an evaluation holds nothing else than it.
    if same.name == 'results.csv' and evaluations.is_one(same.parent):
      same = same.parent
    if same in named:
      raise errors.UsageError(
        f'{path} is named twice'
        + ('' if path == named[same] else f', also as {named[same]}')
      )
    named[same] = path


def _plain(value: Any) -> Any:
  """A setting as JSON can hold it."""
  if isinstance(value, tuple):
    return [_plain(item) for item in value]
  return str(value) if isinstance(value, pathlib.Path) else value


@dataclasses.dataclass(frozen=True)
class _Model:
  """What is compared; `about` is what the report says of its origin."""

  name: str
  configuration: str
  about: dict[str, Any]
  evaluation: evaluations.Evaluation
  episodes: list[episodes_lib.Episode]
  mismatches: tuple[str, ...] = ()


def _models(
  runs: Sequence[runs_lib.Run],
  before: Sequence[evaluations.Evaluation],
  settings: Settings,
  resolve: registry.Resolve,
) -> list[_Model]:
  """All that is compared, once it has played.

  Raises:
    errors.UsageError: two are called the same, or something was played
      otherwise than the rest, and it was not allowed.
  """
  called = [method for one in before for method in one.methods]
  called += {one.configuration for one in runs}
  of_evaluations = [
    _Model(
      name := f'{method} ({one.path})' if called.count(method) > 1 else method,
      name,
      {'path': str(one.path), 'seed': None, 'updates': None, 'code': None},
      one,
      episodes,
    )
    for one in before
    for method, episodes in one.methods.items()
  ]
  names = [one.model for one in runs] + [one.name for one in of_evaluations]
  for name in names:
    if names.count(name) > 1:
      raise errors.UsageError(
        f'two of what is compared are called {name!r}: a run, and a method of '
        'an evaluation of it; leave one of them out'
      )
  evaluated = [_play(settings, runs, resolve)] if runs else []
  played = [
    _Model(
      one.model,
      one.configuration,
      {
        'path': str(one.directory),
        'seed': one.settings['seed'],
        'updates': one.updates,
        'code': one.revision,
      },
      evaluation,
      evaluation.methods[one.model],
      one.mismatches,
    )
    for evaluation in evaluated
    for one in runs
  ]
  # Of a table less is known than of what is beside it.
  known = [*played, *of_evaluations]
  first = max(known, key=lambda model: len(model.evaluation.protocol))
  return [_checked(model, first, settings.allow_mismatch) for model in known]


def _checked(model: _Model, first: _Model, allow_mismatch: bool) -> _Model:
  """Marks what was played otherwise than another one."""
  differing = evaluations.mismatches(first.evaluation, model.evaluation)
  if differing and not allow_mismatch:
    raise errors.UsageError(
      f'{model.name} was evaluated otherwise than {first.name}: '
      f'{"; ".join(differing)}; --allow_mismatch compares it all the same, '
      'and marks it'
    )
  return dataclasses.replace(model, mismatches=(*model.mismatches, *differing))


def _play(
  settings: Settings,
  runs: Sequence[runs_lib.Run],
  resolve: registry.Resolve,
) -> evaluations.Evaluation:
  """Lets the policies of runs play; each is a method of the evaluation."""
  names = [field.name for field in dataclasses.fields(config.EvaluationConfig)]
  played_with = {name: getattr(settings, name) for name in names}
  trained_with = runs[0].settings
  policies = {one.model: one.directory / 'policy' for one in runs}
  # Others than before play elsewhere, and leave what those played alone.
  decisive = [
    [
      (name, (path / 'policy.json').read_text())
      for name, path in policies.items()
    ],
    {k: _plain(v) for k, v in played_with.items() if k not in _NOT_DECISIVE},
  ]
  digest = hashlib.sha256(json.dumps(decisive).encode()).hexdigest()
  out = settings.out / 'evaluation' / digest[:12]
  playing = config.MethodEvaluationConfig(
    **played_with | {'out': out},
    methods=tuple(policies),
    policies=policies,
    observations=trained_with['horizon.num_observations'],
    interventions=trained_with['horizon.num_interventions'],
  )
  with run_lib.playing_in(playing, resolve) as played:
    for (model, scm), reason in played.refusals.items():
      raise errors.UsageError(f'{model} cannot play on {scm}: {reason}')
    return evaluations.read(out)._replace(remarks=tuple(played.warnings))


def _table(models: Sequence[_Model]) -> pd.DataFrame:
  """What `units.csv` holds: a row for each episode, see `measures.table`."""
  horizon = max(
    *(model.evaluation.protocol['interventions'] for model in models),
    *(len(one.steps['score']) for model in models for one in model.episodes),
  )
  tables = [
    measures.table(model.name, model.episodes, horizon).assign(
      configuration=model.configuration
    )
    for model in models
  ]
  return pd.concat(tables, ignore_index=True)


def _summary(
  settings: Settings,
  models: Sequence[_Model],
  table: pd.DataFrame,
  runs: Sequence[runs_lib.Run],
) -> dict[str, Any]:
  """What `summary.json` holds of who is better."""
  configurations = {model.name: model.configuration for model in models}
  found = verdict.found(table, configurations, settings.confidence)
  protocol = max((model.evaluation.protocol for model in models), key=len)
  return {
    'models': {
      model.name: {
        'configuration': model.configuration,
        **model.about,
        'mismatches': list(model.mismatches),
      }
      for model in models
    },
    'remarks': [
      *settings.left_out,
      *dict.fromkeys(
        sentence for model in models for sentence in model.evaluation.remarks
      ),
    ],
    'differences': runs_lib.differences(runs),
    'played': {
      'SCMs': ', '.join(found['by_scm']),
      'episodes of each model on each': int(
        table.groupby(['model', 'scm']).size().max()
      ),
      **protocol,
    },
    **found,
  }


def _learning(runs: Sequence[runs_lib.Run]) -> dict[str, dict[str, Any]]:
  """{configuration: {model: its learning curve}}."""
  found: dict[str, dict[str, Any]] = {}
  for one in runs:
    curve = runs_lib.learning_curve(one)
    if curve['updates']:
      found.setdefault(one.configuration, {})[one.model] = curve
  return found


def _write(
  out: pathlib.Path, summary: Mapping[str, Any], table: pd.DataFrame
) -> None:
  """Writes the table, the figures, the page and the summary."""
  run_directory.write_text(out / 'units.csv', table.to_csv(index=False))
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
  run_directory.write_text(out / 'index.html', page.render(summary, images))
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
      *summary['beside'],
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
    return ', without intervals of so few repeats or seeds'
  return f' [{page.percent(summary["confidence"])} interval]'


def _cell(about: Mapping[str, Any], name: str) -> str:
  """A mean with its interval."""
  entry = about.get('models', {}).get(name)
  if not entry:
    return '-'
  ends = page.interval(entry['interval'])
  return f'{page.number(entry["mean"])} {ends}'.rstrip()
