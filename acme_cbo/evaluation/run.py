"""Evaluates methods on SCMs and writes the results to a directory O.

O/results.csv   a row per method, SCM, repeat and step
O/summary.json  means, intervals and paired differences
O/table.md      the same as tables
O/curves_*.png  curves over the interventions, a figure per SCM
O/scores.png    scores over the interventions, all SCMs together
O/scores_over_seconds.png  scores over the computing time, all SCMs together

The directory also holds the files of `episode_store`. Finished episodes are
kept: rerunning the command resumes after the last one, also after a kill.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
import contextlib
import pathlib
import sys
from typing import Any, NamedTuple
import urllib.parse

from absl import logging
import jax
import numpy as np
import pandas as pd

from acme_cbo.evaluation import aggregate
from acme_cbo.evaluation import config as config_lib
from acme_cbo.evaluation import episode_store
from acme_cbo.evaluation import episodes as episodes_lib
from acme_cbo.evaluation import fit_report
from acme_cbo.evaluation import plots
from acme_cbo.evaluation import progress as progress_lib
from acme_cbo.evaluation import statistics
from acme_cbo.evaluation import tables
from acme_cbo.evaluation import workers
from acme_cbo.infra import errors
from acme_cbo.infra import files
from acme_cbo.infra import run_directory
from acme_cbo.policies import registry as policy_registry
from acme_cbo.policies import saving
from acme_cbo.scms import registry as scm_registry
from acme_cbo.scms import systems

# Maximum number of methods that a warning names.
_MAX_NAMES = 3


def from_flags(flags: Any) -> config_lib.MethodEvaluationConfig:
  """Returns the config that the command line specifies.

  Args:
    flags: the parsed flags, or any object with attributes of their names.

  Returns:
    The config, not validated.

  Raises:
    errors.UsageError: there is no output directory, or there are two policies.
  """
  if flags.workdir and flags.policy:
    raise errors.UsageError(
      '--workdir and --policy both name a trained policy; give one of them'
    )
  policy = saving.SHIPPED if 'grpo' in flags.methods else None
  if flags.policy:
    policy = pathlib.Path(flags.policy)
  if flags.workdir:
    policy = pathlib.Path(flags.workdir) / 'policy'
  return config_lib.from_flags(
    config_lib.MethodEvaluationConfig,
    flags,
    policies={'grpo': policy} if policy else {},
  )


def run(
  config: config_lib.MethodEvaluationConfig, resolve: scm_registry.Resolve
) -> dict[str, Any]:
  """Runs the missing episodes, then writes and prints the results.

  Args:
    config: config of the evaluation.
    resolve: function of a module that finds SCMs by name, such as
      `scms.registry.resolve`.

  Returns:
    The content of `summary.json`.

  Raises:
    errors.UsageError: see `run_episodes`.
  """
  with run_episodes(config, resolve) as result:
    summary = _write(config, result)
  print(
    f'\n{tables.terminal(summary)}\n\nresults written to {config.out}',
    flush=True,
  )
  return summary


class EvaluationResult(NamedTuple):
  """Episodes of an evaluation, and the setting they were run in.

  Attributes:
    environments: {SCM: its `Environment`}.
    largest: {SCM: the system with the most variables over all repeats}.
    episodes: all episodes, sorted by SCM, method and repeat.
    settings: the settings that the episodes depend on.
    warnings: sentences about methods that are used outside their training
      distribution or not run on an SCM, and about the data of fitted SCMs.
    refusals: {(method, SCM): reason why the method cannot be run on the SCM}.
    fits: {fitted SCM: how well its equations fit, see `fit_report.summarize`}.
  """

  environments: Mapping[str, scm_registry.Environment]
  largest: Mapping[str, systems.System]
  episodes: list[episodes_lib.Episode]
  settings: dict[str, Any]
  warnings: list[str]
  refusals: Mapping[tuple[str, str], str]
  fits: Mapping[str, dict[str, Any]]


@contextlib.contextmanager
def run_episodes(
  config: config_lib.MethodEvaluationConfig, resolve: scm_registry.Resolve
) -> Iterator[EvaluationResult]:
  """Runs the missing episodes and locks the directory until the exit.

  Args:
    config: config of the evaluation.
    resolve: see `run`.

  Yields:
    The episodes of `results.csv` and `episodes.jsonl`.

  Raises:
    errors.UsageError: a setting is invalid, or the directory holds another
      evaluation.
  """
  config.validate()
  policy_registry.check([x for x in config.methods if x not in config.policies])
  spec = workers.EvaluationSpec(
    protocol=episodes_lib.Protocol(
      num_observations=config.observations,
      num_interventions=config.interventions,
      num_samples=config.samples,
      budget=config.budget,
      edges=config.edges,
      seed=config.seed,
    ),
    scms=config.scms,
    methods=config.methods,
    policies=config.policies,
    resolve=resolve,
  )
  runner = workers.EpisodeRunner(spec)
  largest = {
    name: runner.largest_system(name, config.repeats)
    for name in runner.environments
  }
  refusals = _refusals(runner, largest, config)
  fits, fit_warnings = _fits(runner, largest)
  for name, entry in fits.items():
    print(f'{fit_report.table(name, entry)}\n', flush=True)
  warnings = [
    *fit_warnings,
    *_warnings(runner, largest, config),
    *(
      f'{method} is not run on {scm}: {reason}'
      for (method, scm), reason in refusals.items()
    ),
  ]
  for warning in warnings:
    logging.warning('%s', warning)
  out = config.out
  run_directory.prepare_resumable(out, 'out', 'an evaluation', 'methods')
  with run_directory.lock(out, 'out'):
    log = episode_store.EpisodeLog(out)
    settings = _episode_settings(config, runner)
    starts = episode_store.record_start(
      out,
      settings,
      [f'{device} ({device.device_kind})' for device in jax.devices()],
      log.episodes,
    )
    for change in run_directory.environment_changes(starts):
      print(
        'warning: environment changed since the last start; results may '
        f'differ: {change}',
        flush=True,
      )
    scms = list(runner.environments)
    work_items = _work_items(config, scms, {*log.episodes, *refusals})
    _announce(config, work_items, log)
    jobs = min(config.jobs, len(work_items))
    if jobs > 1:
      lines = workers.run_parallel(
        spec, runner.digests, runner.optima, work_items, jobs
      )
    else:
      lines = workers.run_serial(runner, work_items)
    progress = progress_lib.Progress(
      [method for item in work_items for method in item.methods],
      jobs,
      sys.stderr,
    )
    # Worker processes are ended even if a line cannot be written.
    with (
      contextlib.closing(lines),  # pyrefly: ignore
      _results_file(out, aggregate.table([*log.episodes.values()])) as append,
    ):
      for line in lines:
        episode = log.append(line)
        append(aggregate.table([episode]))
        progress.update(episode)
    progress.close()
    episodes = log.ordered(scms, config.methods)
    table = aggregate.table(episodes)
    run_directory.write_text(out / 'results.csv', tables.to_csv(table))
    yield EvaluationResult(
      runner.environments,
      largest,
      episodes,
      settings,
      warnings,
      refusals,
      fits,
    )


@contextlib.contextmanager
def _results_file(
  out: pathlib.Path, table: pd.DataFrame
) -> Iterator[Callable[[pd.DataFrame], None]]:
  """Writes `results.csv` and yields a function that appends rows to it."""
  path = out / 'results.csv'
  run_directory.write_text(path, tables.to_csv(table))
  with files.naming(path), path.open('a', encoding='utf-8') as file:

    def append(rows):
      file.write(tables.to_csv(rows, header=False))
      file.flush()

    yield append


def _episode_settings(
  config: config_lib.MethodEvaluationConfig, runner: workers.EpisodeRunner
) -> dict[str, Any]:
  """Returns the settings that determine the episodes, with digests."""
  return {
    **{name: getattr(config, name) for name in episode_store.PROTOCOL},
    'repeats': config.repeats,
    **runner.digests,
  }


def _warnings(
  runner: workers.EpisodeRunner,
  largest: dict[str, systems.System],
  config: config_lib.MethodEvaluationConfig,
) -> list[str]:
  """Returns a sentence for each use outside a training distribution."""
  methods: dict[tuple[str, str], list[str]] = {}
  for scm, system in largest.items():
    for method, metadata in runner.metadata.items():
      system_scm = system.scm
      beyond = policy_registry.beyond_training(
        metadata,
        system_scm.problem,
        config.observations,
        config.interventions,
        bool(np.any(system_scm.present & ~system_scm.problem.exists)),
      )
      if beyond:
        methods.setdefault((scm, ', '.join(beyond)), []).append(method)
  return [
    f'{errors.format_list(names, _MAX_NAMES, "more", ", ")} on {scm}: used '
    f'outside {"its" if len(names) == 1 else "their"} training distribution: '
    f'{beyond}'
    for (scm, beyond), names in methods.items()
  ]


def _fits(
  runner: workers.EpisodeRunner, largest: Mapping[str, systems.System]
) -> tuple[dict[str, dict[str, Any]], list[str]]:
  """Returns {fitted SCM: quality of its fit}, and warnings about the fits."""
  fits, warnings = {}, []
  for name, system in largest.items():
    if system.fit is not None:
      best = runner.optimum(name)
      with jax.enable_x64(True):
        fits[name] = fit_report.summarize(system, best)
      warnings += [f'{name}: {warning}' for warning in system.fit.warnings]
      outside = fit_report.optimum_warning(system, best, fits[name])
      warnings += [f'{name}: {outside}'] if outside else []
  return fits, warnings


def _refusals(
  runner: workers.EpisodeRunner,
  largest: dict[str, systems.System],
  config: config_lib.MethodEvaluationConfig,
) -> dict[tuple[str, str], str]:
  """Returns {(method, SCM): reason why it cannot be run on all repeats}.

  Raises:
    errors.UsageError: no method can be run on an SCM.
  """
  refusals = {
    (method, scm): reason
    for scm, system in largest.items()
    for method in config.methods
    if (reason := runner.refusal(method, system))
  }
  for scm in largest:
    reasons = [refusals.get((method, scm)) for method in config.methods]
    if all(reasons):
      raise errors.UsageError(
        f'none of the methods can be run on {scm}: {reasons[0]}'
      )
  return refusals


def _work_items(
  config: config_lib.MethodEvaluationConfig,
  scms: Sequence[str],
  excluded: Set[tuple[Any, ...]],
) -> list[workers.WorkItem]:
  """Returns the episodes that are left to run.

  Args:
    config: config of the evaluation.
    scms: names of the SCMs.
    excluded: (method, SCM, repeat) of each finished episode, and (method, SCM)
      of each method that cannot be run on an SCM.

  Returns:
    The work items, none of them empty.
  """
  work_items = [
    workers.WorkItem(
      scm,
      repeat,
      [
        method
        for method in config.methods
        if not {(method, scm, repeat), (method, scm)} & excluded
      ],
    )
    for scm in scms
    for repeat in range(config.repeats)
  ]
  return [item for item in work_items if item.methods]


def _announce(config, work_items, log) -> None:
  remaining = sum(len(item.methods) for item in work_items)
  finished = len(log.episodes)
  print(
    f'{remaining} episode{"" if remaining == 1 else "s"} to run'
    f'{f", {finished} already finished" if finished else ""}; '
    f'{config.observations} observations, {config.interventions} '
    'interventions. Rerun the command to resume after Ctrl-C or a kill.',
    flush=True,
  )


def _write(
  config: config_lib.MethodEvaluationConfig, result: EvaluationResult
) -> dict[str, Any]:
  """Writes the summary, the tables and the figures; returns the summary."""
  out = config.out
  aggregates = aggregate.summarize(
    result.episodes, config.interventions, config.confidence
  )
  for name, environment in result.environments.items():
    aggregates['scms'][name] |= {
      'held_out': environment.held_out,
      'fresh': environment.fresh,
      'source': result.largest[name].source,
      **({'fit': result.fits[name]} if name in result.fits else {}),
    }
  summary = {
    'settings': result.settings,
    'confidence': config.confidence,
    'warnings': result.warnings,
    **aggregates,
  }
  run_directory.write_text(out / 'table.md', tables.markdown(summary))
  _draw(config, result)
  run_directory.write_json(out / 'summary.json', summary)
  return summary


_PANELS = {
  'best of all interventions made': 'best_expected',
  'last recommendation': 'recommended_expected',
}


def _draw(
  config: config_lib.MethodEvaluationConfig, result: EvaluationResult
) -> None:
  """Draws a figure per SCM, and the scores over all SCMs if there are several.

  Args:
    config: config of the evaluation.
    result: the episodes.
  """
  horizon, episodes = config.interventions, result.episodes
  scores: dict[str, list[np.ndarray]] = {}
  for name, environment in result.environments.items():
    part = [episode for episode in episodes if episode.scm == name]
    # If every repeat has its own SCM, the optima differ between repeats.
    normalized = environment.fresh
    panels = {
      title: {
        method: _curve([values], config.confidence)
        for method, values in aggregate.curves(
          part, column, horizon, normalized
        ).items()
      }
      for title, column in _PANELS.items()
    }
    levels = {
      'optimum': 1.0 if normalized else part[0].optimum,
      'no intervention': 0.0 if normalized else part[0].no_intervention,
    }
    better = 'higher' if part[0].goal > 0 else 'lower'
    figure = plots.methods(
      f'{name}: {_averaging(config)}',
      panels,
      levels,
      'score' if normalized else f'E[Y | do] ({better} is better)',
      policy_registry.NAMES,
    )
    safe = urllib.parse.quote(name, safe='')
    plots.save(config.out / f'curves_{safe}.png', figure)
    for method, values in aggregate.curves(
      part, 'recommended_expected', horizon, True
    ).items():
      scores.setdefault(method, []).append(values)
  if len(result.environments) > 1:
    curves = {
      method: _curve(strata, config.confidence)
      for method, strata in scores.items()
      if len(strata) == len(result.environments)
    }
    seconds = aggregate.cumulative_seconds(episodes, horizon)
    over_seconds = {
      method: curve._replace(seconds=seconds[method])
      for method, curve in curves.items()
    }
    for file, panel in (
      ('scores.png', curves),
      ('scores_over_seconds.png', over_seconds),
    ):
      figure = plots.methods(
        f'{len(result.environments)} SCMs: {_averaging(config)}',
        {'score of the last recommendation': panel},
        {'optimum': 1.0, 'no intervention': 0.0},
        'score',
        policy_registry.NAMES,
      )
      plots.save(config.out / file, figure)


def _averaging(config: config_lib.MethodEvaluationConfig) -> str:
  """Returns the part of a title that names the mean and its intervals."""
  reason = statistics.no_interval_reason(config.repeats)
  intervals = f'{config.repeats} repeats, {config.confidence:.0%} intervals'
  return f'mean of {reason or intervals}'


def _curve(strata: list[np.ndarray], confidence: float) -> plots.Curve:
  """Returns the mean over the episodes of all strata, [n, T] each."""
  band = statistics.stratified_band(strata, confidence)
  low, high = band or (None, None)
  return plots.Curve(np.concatenate(strata).mean(0), low, high)
