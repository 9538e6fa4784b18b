"""Compares trained runs and evaluations, and writes a report.

C/evaluation/   evaluations of the runs' policies as `evaluate` writes them, one
                directory per set of policies and evaluation settings
C/index.html    report: which model is better, by how much, and how certainly
C/*.png         figures of the report
C/summary.json  all numbers of the report
C/units.csv     measures of each episode

Rerunning the command after an interruption resumes the comparison.
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

from acme_cbo.evaluation import config as config_lib
from acme_cbo.evaluation import episodes as episodes_lib
from acme_cbo.evaluation import plots
from acme_cbo.evaluation import report
from acme_cbo.evaluation import run as run_lib
from acme_cbo.evaluation import tables
from acme_cbo.evaluation.comparison import evaluations
from acme_cbo.evaluation.comparison import figures
from acme_cbo.evaluation.comparison import measures
from acme_cbo.evaluation.comparison import page
from acme_cbo.evaluation.comparison import runs as runs_lib
from acme_cbo.evaluation.comparison import verdict
from acme_cbo.infra import errors
from acme_cbo.infra import run_directory
from acme_cbo.policies import saving
from acme_cbo.scms import registry

# Fields of `config.EvaluationConfig` that do not affect the episodes.
_WITHOUT_EFFECT = ('out', 'jobs', 'confidence')


def from_flags(
  flags: Any, arguments: Sequence[str]
) -> config_lib.ComparisonConfig:
  """Returns the config that the command line specifies.

  Args:
    flags: the parsed flags, or any object with attributes of their names.
    arguments: paths or glob patterns.

  Returns:
    The config, not validated.

  Raises:
    errors.UsageError: there is no output directory, or a path does not exist.
  """
  paths: list[pathlib.Path] = []
  for argument in arguments:
    exists = pathlib.Path(argument).exists()
    matches = [argument] if exists else sorted(glob.glob(argument))
    if not matches:
      raise errors.UsageError(
        f'{argument} does not exist, and matches no file or directory'
      )
    paths += map(pathlib.Path, matches)
  return config_lib.from_flags(
    config_lib.ComparisonConfig, flags, paths=tuple(paths)
  )


def run(
  config: config_lib.ComparisonConfig, resolve: registry.Resolve
) -> dict[str, Any]:
  """Evaluates the runs, compares all models, and writes the report.

  Policies of runs are evaluated on the same SCMs with the same data and noise,
  and with as many observations and interventions as the first run was trained
  with. Episodes that exist already are reused.

  Args:
    config: config of the comparison.
    resolve: see `acme_cbo.evaluation.run.run`.

  Returns:
    The content of `summary.json`.

  Raises:
    errors.UsageError: a setting is invalid, or the models do not match.
  """
  config.validate()
  _check_paths(config.paths)
  existing = [
    evaluations.read(path)
    for path in config.paths
    if evaluations.is_evaluation(path)
  ]
  runs = runs_lib.read(
    [path for path in config.paths if not evaluations.is_evaluation(path)],
    config.allow_mismatch,
  )
  if len(runs) + sum(len(evaluation.methods) for evaluation in existing) < 2:
    raise errors.UsageError(
      'a comparison needs two or more models: name directories of training '
      'runs, directories of evaluations, or their results.csv'
    )
  if runs and existing:
    _check_same_scms(existing, runs[0], config, resolve)
  learning_curves = _learning_curves(runs)
  out = config.out
  run_directory.prepare_resumable(
    out, 'out', 'a comparison', 'paths', ('evaluation',)
  )
  with run_directory.lock(out, 'out'):
    models = _models(runs, existing, config, resolve)
    table = _table(models)
    summary = _summary(config, models, table, runs)
    summary['training'] = learning_curves
    # An earlier report is replaced only when everything is computed.
    starts = run_directory.record_start(
      out,
      {
        field.name: _as_json(getattr(config, field.name))
        for field in dataclasses.fields(config)
      },
      [f'{device} ({device.device_kind})' for device in jax.devices()],
    )
    summary |= {'made': starts[-1]}
    _write(out, summary, table)
  print(f'\n{text(summary)}\n\nall results are in {out}', flush=True)
  return summary


def _check_same_scms(
  existing: Sequence[evaluations.Evaluation],
  run: runs_lib.Run,
  config: config_lib.ComparisonConfig,
  resolve: registry.Resolve,
) -> None:
  """Raises unless runs are to be evaluated on the SCMs of the evaluations."""
  trained_on = runs_lib.read_config(run.directory)
  with jax.enable_x64(True):
    names = {
      environment.name for environment in resolve(config.scms, trained_on)
    }
  for evaluation in existing:
    for method, episodes in evaluation.methods.items():
      scms = {episode.scm for episode in episodes}
      repeats = 1 + max(episode.repeat for episode in episodes)
      if scms != names or repeats != config.repeats:
        raise errors.UsageError(
          f'{evaluation.path}: {method} was evaluated with {repeats} repeats '
          f'on {", ".join(sorted(scms))}, but the runs would be evaluated with '
          f'{config.repeats} on {", ".join(sorted(names))}; choose the '
          'SCMs and repeats of the evaluation'
        )


def _check_paths(paths: Sequence[pathlib.Path]) -> None:
  """Raises if two paths denote the same run or evaluation."""
  path_by_target: dict[pathlib.Path, pathlib.Path] = {}
  for path in paths:
    target = path.resolve()
    # The table in the directory of an evaluation has the same content.
    if target.name == 'results.csv' and evaluations.is_evaluation(
      target.parent
    ):
      target = target.parent
    if target in path_by_target:
      raise errors.UsageError(
        f'{path} is named twice'
        + (
          ''
          if path == path_by_target[target]
          else f', also as {path_by_target[target]}'
        )
      )
    path_by_target[target] = path


def _as_json(value: Any) -> Any:
  """Returns a value of the config as JSON can hold it."""
  if isinstance(value, tuple):
    return [_as_json(item) for item in value]
  return str(value) if isinstance(value, pathlib.Path) else value


@dataclasses.dataclass(frozen=True)
class _Model:
  """A model of the comparison.

  Attributes:
    name: unique name of the model.
    configuration: name that it shares with models of other training seeds.
    metadata: origin of the model, for the report.
    evaluation: evaluation that holds its episodes.
    episodes: episodes of the model.
    mismatches: reasons why it is not comparable to the others.
  """

  name: str
  configuration: str
  metadata: dict[str, Any]
  evaluation: evaluations.Evaluation
  episodes: list[episodes_lib.Episode]
  mismatches: tuple[str, ...] = ()


def _models(
  runs: Sequence[runs_lib.Run],
  existing: Sequence[evaluations.Evaluation],
  config: config_lib.ComparisonConfig,
  resolve: registry.Resolve,
) -> list[_Model]:
  """Returns all models that are compared, with their episodes.

  Raises:
    errors.UsageError: two models have the same name, or a model was evaluated
      differently from the rest and `allow_mismatch` is false.
  """
  used = [method for evaluation in existing for method in evaluation.methods]
  used += {run.configuration for run in runs}
  from_evaluations = [
    _Model(
      name := (
        f'{method} ({evaluation.path})' if used.count(method) > 1 else method
      ),
      name,
      {
        'path': str(evaluation.path),
        'seed': None,
        'updates': None,
        'code': None,
      },
      evaluation,
      episodes,
    )
    for evaluation in existing
    for method, episodes in evaluation.methods.items()
  ]
  names = [run.model for run in runs]
  names += [model.name for model in from_evaluations]
  for name in names:
    if names.count(name) > 1:
      raise errors.UsageError(
        f'two models are called {name!r}: a run, and a method of an evaluation '
        'of that run; leave one of them out'
      )
  evaluated = [_evaluate(config, runs, resolve)] if runs else []
  from_runs = [
    _Model(
      run.model,
      run.configuration,
      {
        'path': str(run.directory),
        'seed': run.config['seed'],
        'updates': run.updates,
        'code': run.revision,
      },
      evaluation,
      evaluation.methods[run.model],
      run.mismatches,
    )
    for evaluation in evaluated
    for run in runs
  ]
  models = [*from_runs, *from_evaluations]
  # The reference is a model with a complete protocol, if there is one: that of
  # a table is incomplete.
  reference = max(models, key=lambda model: len(model.evaluation.protocol))
  return [
    _with_mismatches(model, reference, config.allow_mismatch)
    for model in models
  ]


def _with_mismatches(
  model: _Model, reference: _Model, allow_mismatch: bool
) -> _Model:
  """Adds how the evaluation of a model differs from that of another one."""
  differing = evaluations.find_mismatches(
    reference.evaluation, model.evaluation
  )
  if differing and not allow_mismatch:
    raise errors.UsageError(
      f'{model.name} was not evaluated like {reference.name}: '
      f'{"; ".join(differing)}; set allow_mismatch to compare it anyway, '
      'with a warning'
    )
  return dataclasses.replace(model, mismatches=(*model.mismatches, *differing))


def _evaluate(
  config: config_lib.ComparisonConfig,
  runs: Sequence[runs_lib.Run],
  resolve: registry.Resolve,
) -> evaluations.Evaluation:
  """Evaluates the policies of runs; each is a method of the evaluation."""
  names = [
    field.name for field in dataclasses.fields(config_lib.EvaluationConfig)
  ]
  shared = {name: getattr(config, name) for name in names}
  trained_with = runs[0].config
  policies = {run.model: run.directory / 'policy' for run in runs}
  # Every combination of policies and settings has a directory of its own, so
  # that the episodes of earlier comparisons stay.
  key = [
    [(name, saving.read_description(path)) for name, path in policies.items()],
    {k: _as_json(v) for k, v in shared.items() if k not in _WITHOUT_EFFECT},
  ]
  digest = hashlib.sha256(json.dumps(key).encode()).hexdigest()
  out = config.out / 'evaluation' / digest[:12]
  evaluation_config = config_lib.MethodEvaluationConfig(
    **shared | {'out': out},
    methods=tuple(policies),
    policies=policies,
    observations=trained_with['horizon.num_observations'],
    interventions=trained_with['horizon.num_interventions'],
  )
  with run_lib.run_episodes(evaluation_config, resolve) as result:
    for (model, scm), reason in result.refusals.items():
      raise errors.UsageError(f'{model} cannot be evaluated on {scm}: {reason}')
    return evaluations.read(out)._replace(remarks=tuple(result.warnings))


def _table(models: Sequence[_Model]) -> pd.DataFrame:
  """Returns the content of `units.csv`: `measures.table` of all models."""
  horizon = max(
    *(model.evaluation.protocol['interventions'] for model in models),
    *(
      len(episode.steps['score'])
      for model in models
      for episode in model.episodes
    ),
  )
  tables = [
    measures.table(model.name, model.episodes, horizon).assign(
      configuration=model.configuration
    )
    for model in models
  ]
  return pd.concat(tables, ignore_index=True)


def _summary(
  config: config_lib.ComparisonConfig,
  models: Sequence[_Model],
  table: pd.DataFrame,
  runs: Sequence[runs_lib.Run],
) -> dict[str, Any]:
  """Returns `summary.json` without `training` and `made`."""
  configurations = {model.name: model.configuration for model in models}
  comparison = verdict.compare(table, configurations, config.confidence)
  protocol = max((model.evaluation.protocol for model in models), key=len)
  return {
    'models': {
      model.name: {
        'configuration': model.configuration,
        **model.metadata,
        'mismatches': list(model.mismatches),
      }
      for model in models
    },
    'remarks': [
      *config.left_out,
      *dict.fromkeys(
        sentence for model in models for sentence in model.evaluation.remarks
      ),
    ],
    'differences': runs_lib.differences(runs),
    'played': {
      'SCMs': ', '.join(comparison['by_scm']),
      'episodes of each model on each': int(
        table.groupby(['model', 'scm']).size().max()
      ),
      **protocol,
    },
    **comparison,
  }


def _learning_curves(
  runs: Sequence[runs_lib.Run],
) -> dict[str, dict[str, Any]]:
  """Returns {configuration: {model: its learning curve}}."""
  curves: dict[str, dict[str, Any]] = {}
  for run in runs:
    curve = runs_lib.learning_curve(run)
    if curve['updates']:
      curves.setdefault(run.configuration, {})[run.model] = curve
  return curves


def _write(
  out: pathlib.Path, summary: Mapping[str, Any], table: pd.DataFrame
) -> None:
  """Writes the table, the figures, the report and the summary."""
  run_directory.write_text(out / 'units.csv', tables.to_csv(table))
  result, confidence = summary['measures']['score'], summary['confidence']
  ranking = page.ranking(summary)
  figure_by_name = {
    'curves': figures.curves(summary['curves'], ranking, confidence),
    'profiles': figures.profiles(summary['profiles'], ranking, confidence),
  }
  if 'ranking' in result:
    figure_by_name['ranking'] = figures.ranking(result, confidence)
  if summary['training']:
    figure_by_name['training'] = figures.training(summary['training'], ranking)
  images = {}
  for name, figure in figure_by_name.items():
    path = out / f'{name}.png'
    plots.save(path, figure)
    images[name] = path.read_bytes()
  run_directory.write_text(out / 'index.html', page.render(summary, images))
  run_directory.write_json(out / 'summary.json', summary)


def text(summary: Mapping[str, Any]) -> str:
  """Returns the conclusions and the mean of every measure as plain text."""
  lines = [
    ['', *(measure.title for measure in measures.MEASURES.values())],
    *(
      [name, *(_cell(result, name) for result in summary['measures'].values())]
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
      *page.warnings(summary),
      '',
      f'Mean{_interval_note(summary)}; the independent unit is the '
      f'{summary["unit"]}.',
      report.align(lines, 1),
      *(['', 'Settings that differ:', *differing] if differing else []),
    ]
  )


def _interval_note(summary: Mapping[str, Any]) -> str:
  models = summary['measures']['score']['models'].values()
  if all(entry['interval'] is None for entry in models):
    return ' (too few repeats or seeds for intervals)'
  return f' [{page.format_percent(summary["confidence"])} interval]'


def _cell(result: Mapping[str, Any], name: str) -> str:
  """Returns the mean of a model with its interval."""
  entry = result.get('models', {}).get(name)
  if not entry:
    return '-'
  ends = page.format_interval(entry['interval'])
  return f'{page.format_number(entry["mean"])} {ends}'.rstrip()
