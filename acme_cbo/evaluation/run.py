"""Compares methods on SCMs, its files in one directory.

O/results.csv   a row per method, SCM, repeat and step
O/summary.json  what they come to, with intervals
O/table.md      the same as tables
O/curves_*.png  each SCM over the interventions; scores.png, all of them;
                scores_over_seconds.png, all of them over the time they take

and what `episode_log` writes. An episode that is finished is never played
again: the same command goes on after a kill at any moment.
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
from acme_cbo.evaluation import plots
from acme_cbo.evaluation import progress as progress_lib
from acme_cbo.evaluation import statistics
from acme_cbo.evaluation import tables
from acme_cbo.evaluation import workers
from acme_cbo.infra import errors
from acme_cbo.infra import run_directory
from acme_cbo.policies import registry as policy_registry
from acme_cbo.scms import registry as scm_registry
from acme_cbo.scms import systems

# Names that a warning spells out.
_MAX_SHOWN = 3


def run(
  settings: config_lib.MethodEvaluationConfig, resolve: scm_registry.Resolve
) -> dict[str, Any]:
  """Plays what was not played yet, writes and prints what all of it came to.

  Args:
    settings: what is compared.
    resolve: a module's function that knows the SCMs by their names.

  Returns:
    What `summary.json` holds.

  Raises:
    errors.UsageError: see `playing_in`.
  """
  with playing_in(settings, resolve) as played:
    summary = _write(settings, played)
  print(
    f'\n{tables.terminal(summary)}\n\nall of it in {settings.out}', flush=True
  )
  return summary


class Played(NamedTuple):
  """What was played.

  Attributes:
    environments: {SCM: `Environment`}.
    largest: {SCM: the system with the most variables of its repeats}.
    episodes: by SCM, method and repeat.
    config: what they depend on.
    warnings: sentences, of what methods were not made for.
    refusals: {(method, SCM): why it did not play there}.
  """

  environments: Mapping[str, scm_registry.Environment]
  largest: Mapping[str, systems.System]
  episodes: list[episodes_lib.Episode]
  config: dict[str, Any]
  warnings: list[str]
  refusals: Mapping[tuple[str, str], str]


@contextlib.contextmanager
def playing_in(
  settings: config_lib.MethodEvaluationConfig, resolve: scm_registry.Resolve
) -> Iterator[Played]:
  """Plays what was not played yet; the directory is locked until it is left.

  Args:
    settings: what is compared.
    resolve: as for `run`.

  Yields:
    What `results.csv` and `episodes.jsonl` hold.

  Raises:
    errors.UsageError: a setting cannot be used, or the directory holds another
      comparison.
  """
  config_lib.check_method_config(settings)
  cast = workers.EvaluationSpec(
    protocol=episodes_lib.Protocol(
      num_observations=settings.observations,
      num_interventions=settings.interventions,
      num_samples=settings.samples,
      budget=settings.budget,
      seed=settings.seed,
    ),
    scms=settings.scms,
    methods=settings.methods,
    policies=settings.policies,
    resolve=resolve,
  )
  player = workers.EpisodeRunner(cast)
  largest = {
    name: player.largest(name, settings.repeats) for name in player.environments
  }
  refusals = _refusals(player, largest, settings)
  warnings = [
    *_warnings(player, largest, settings),
    *(
      f'{method} does not play on {scm}: {reason}'
      for (method, scm), reason in refusals.items()
    ),
  ]
  for sentence in warnings:
    logging.warning('%s', sentence)
  out = settings.out
  run_directory.prepare_resumable(out, '--out', 'an evaluation', 'methods')
  with run_directory.lock(out, '--out'):
    log = episode_store.EpisodeLog(out)
    config = _config(settings, player)
    starts = episode_store.begin(
      out,
      config,
      [f'{device} ({device.device_kind})' for device in jax.devices()],
      log.episodes,
    )
    for difference in run_directory.environment_changes(starts):
      print(
        f'not as at the last start, so that numbers may differ: {difference}',
        flush=True,
      )
    there = {*log.episodes, *refusals}
    blocks = _blocks(settings, list(player.environments), there)
    _announce(settings, blocks, log)
    jobs = min(settings.jobs, len(blocks))
    if jobs > 1:
      lines = workers.run_in_processes(cast, player.digests, blocks, jobs)
    else:
      lines = workers.run_here(player, blocks)
    progress = progress_lib.Progress(
      [m for b in blocks for m in b.methods], jobs, sys.stderr
    )
    # What plays elsewhere is ended even where a line cannot be written.
    with (
      contextlib.closing(lines),  # pyrefly: ignore
      _table(out, aggregate.table([*log.episodes.values()])) as add,
    ):
      for line in lines:
        episode = log.append(line)
        add(aggregate.table([episode]))
        progress.update(episode)
    progress.close()
    episodes = log.ordered(list(player.environments), settings.methods)
    table = aggregate.table(episodes)
    run_directory.write_text(out / 'results.csv', table.to_csv(index=False))
    yield Played(
      player.environments, largest, episodes, config, warnings, refusals
    )


@contextlib.contextmanager
def _table(
  out: pathlib.Path, so_far: pd.DataFrame
) -> Iterator[Callable[[pd.DataFrame], None]]:
  """The table of results while it grows; in the order in which episodes end."""
  path = out / 'results.csv'
  run_directory.write_text(path, so_far.to_csv(index=False))
  with path.open('a') as file:

    def add(rows):
      file.write(rows.to_csv(index=False, header=False))
      file.flush()

    yield add


def _config(
  settings: config_lib.MethodEvaluationConfig, player: workers.EpisodeRunner
) -> dict[str, Any]:
  """What the episodes depend on, and which there are."""
  names = ('observations', 'interventions', 'samples', 'budget', 'seed')
  return {
    **{name: getattr(settings, name) for name in names},
    'repeats': settings.repeats,
    **player.digests,
  }


def _warnings(
  player: workers.EpisodeRunner,
  largest: dict[str, systems.System],
  settings: config_lib.MethodEvaluationConfig,
) -> list[str]:
  """What trained policies are asked for that they were not trained for."""
  asked: dict[tuple[str, str], list[str]] = {}
  for scm, system in largest.items():
    for method, about in player.abouts.items():
      beyond = policy_registry.beyond_training(
        about, system.scm, settings.observations, settings.interventions
      )
      if beyond:
        asked.setdefault((scm, ', '.join(beyond)), []).append(method)
  return [
    f'{errors.format_list(who, _MAX_SHOWN, "more", ", ")} on {scm}: asked for '
    f'more than {"it was" if len(who) == 1 else "they were"} trained for: '
    f'{beyond}'
    for (scm, beyond), who in asked.items()
  ]


def _refusals(
  player: workers.EpisodeRunner,
  largest: dict[str, systems.System],
  settings: config_lib.MethodEvaluationConfig,
) -> dict[tuple[str, str], str]:
  """{(method, SCM): why the method cannot play on all repeats of it}.

  Raises:
    errors.UsageError: no method can play on an SCM.
  """
  found = {
    (method, scm): reason
    for scm, system in largest.items()
    for method in settings.methods
    if (reason := player.refusal(method, system))
  }
  for scm in largest:
    reasons = [found.get((method, scm)) for method in settings.methods]
    if all(reasons):
      raise errors.UsageError(
        f'--methods: none of them can play on {scm}: {reasons[0]}'
      )
  return found


def _blocks(
  settings: config_lib.MethodEvaluationConfig,
  scms: Sequence[str],
  there: Set[tuple[Any, ...]],
) -> list[workers.WorkItem]:
  """What is left to be played.

  Args:
    settings: what is compared.
    scms: their names.
    there: (method, SCM, repeat) of what was played already, (method, SCM) of
      what cannot be.

  Returns:
    The `Block`s, none of them empty.
  """
  blocks = [
    workers.WorkItem(
      scm,
      repeat,
      [
        method
        for method in settings.methods
        if not {(method, scm, repeat), (method, scm)} & there
      ],
    )
    for scm in scms
    for repeat in range(settings.repeats)
  ]
  return [block for block in blocks if block.methods]


def _announce(settings, blocks, log) -> None:
  left = sum(len(block.methods) for block in blocks)
  there = len(log.episodes)
  print(
    f'{left} episode{"" if left == 1 else "s"} to play'
    f'{f", {there} are there already" if there else ""}; '
    f'{settings.observations} observations, {settings.interventions} '
    'interventions. The same command goes on after Ctrl-C or a kill.',
    flush=True,
  )


def _write(
  settings: config_lib.MethodEvaluationConfig, played: Played
) -> dict[str, Any]:
  """Writes the summary, the page and the figures."""
  out = settings.out
  found = aggregate.summarize(
    played.episodes, settings.interventions, settings.confidence
  )
  for name, environment in played.environments.items():
    found['scms'][name] |= {
      'held_out': environment.held_out,
      'fresh': environment.fresh,
      'source': played.largest[name].source,
    }
  summary = {
    'settings': played.config,
    'confidence': settings.confidence,
    'warnings': played.warnings,
    **found,
  }
  run_directory.write_text(out / 'table.md', tables.markdown(summary))
  _draw(settings, played)
  run_directory.write_json(out / 'summary.json', summary)
  return summary


_PANELS = {
  'best of all interventions made': 'best_expected',
  'last recommendation': 'recommended_expected',
}


def _draw(settings: config_lib.MethodEvaluationConfig, played: Played) -> None:
  """A figure for each SCM, and one of the scores where there are several."""
  horizon, episodes = settings.interventions, played.episodes
  scores: dict[str, list[np.ndarray]] = {}
  for name, environment in played.environments.items():
    part = [episode for episode in episodes if episode.scm == name]
    # SCMs of their own have optima of their own.
    normalised = environment.fresh
    panels = {
      title: {
        method: _curve([values], settings.confidence)
        for method, values in aggregate.curves(
          part, column, horizon, normalised
        ).items()
      }
      for title, column in _PANELS.items()
    }
    levels = {
      'optimum': 1.0 if normalised else part[0].optimum,
      'no intervention': 0.0 if normalised else part[0].no_intervention,
    }
    better = 'more' if part[0].goal > 0 else 'less'
    figure = plots.methods(
      f'{name}: {_of_what(settings)}',
      panels,
      levels,
      'score' if normalised else f'E[Y | do], {better} is better',
      policy_registry.NAMES,
    )
    safe = urllib.parse.quote(name, safe='')
    plots.save(settings.out / f'curves_{safe}.png', figure)
    for method, values in aggregate.curves(
      part, 'recommended_expected', horizon, True
    ).items():
      scores.setdefault(method, []).append(values)
  if len(played.environments) > 1:
    curves = {
      method: _curve(strata, settings.confidence)
      for method, strata in scores.items()
      if len(strata) == len(played.environments)
    }
    seconds = aggregate.cumulative_seconds(episodes, horizon)
    over_seconds = {
      method: curve._replace(seconds=seconds[method])
      for method, curve in curves.items()
    }
    for file, drawn in (
      ('scores.png', curves),
      ('scores_over_seconds.png', over_seconds),
    ):
      figure = plots.methods(
        f'{len(played.environments)} SCMs: {_of_what(settings)}',
        {'score of the last recommendation': drawn},
        {'optimum': 1.0, 'no intervention': 0.0},
        'score',
        policy_registry.NAMES,
      )
      plots.save(settings.out / file, figure)


def _of_what(settings: config_lib.MethodEvaluationConfig) -> str:
  repeats = settings.repeats
  few = statistics.no_interval_reason(repeats)
  with_intervals = f'{repeats} repeats, {settings.confidence:.0%} intervals'
  return f'mean of {few or with_intervals}'


def _curve(strata: list[np.ndarray], confidence: float) -> plots.Curve:
  """The mean over the steps: [n, T] of each stratum."""
  band = statistics.stratified_band(strata, confidence)
  low, high = band or (None, None)
  return plots.Curve(np.concatenate(strata).mean(0), low, high)
