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
import dataclasses
import datetime as dt
import math
import pathlib
import sys
import time
from typing import Any, NamedTuple, TextIO
import urllib.parse

from absl import logging
import jax
import numpy as np
import pandas as pd

from acme_cbo import episode_log
from acme_cbo import errors
from acme_cbo import players
from acme_cbo import run_directory
from acme_cbo.evaluation import comparison
from acme_cbo.evaluation import environments as environments_lib
from acme_cbo.evaluation import episodes as episodes_lib
from acme_cbo.evaluation import methods as methods_lib
from acme_cbo.evaluation import plots
from acme_cbo.evaluation import statistics
from acme_cbo.evaluation import tables
from acme_cbo.scms import systems

# The policy that comes with the package, where no other one is named.
SHIPPED = pathlib.Path(__file__).parent / 'pretrained' / 'general'
# Seconds between two lines, and between two on a terminal, which are one.
_LINE_SECONDS = 10.0
_REDRAW_SECONDS = 0.2
# Names that a warning spells out.
_MAX_SHOWN = 3


@dataclasses.dataclass(frozen=True)
class Playing:
  """On what, and how, whoever is compared plays.

  Attributes:
    scms: names and files, see `environments.resolve`.
    repeats: episodes of each on each SCM.
    samples: draws of which each outcome is the mean.
    budget: what the interventions of an episode may cost; None is the SCM's.
    seed: of data and noise.
    confidence: of the intervals.
    jobs: processes.
    out: the directory.
  """

  scms: tuple[str, ...]
  repeats: int
  samples: int
  budget: float | None
  seed: int
  confidence: float
  jobs: int
  out: pathlib.Path


@dataclasses.dataclass(frozen=True)
class Settings(Playing):
  """What methods are compared, and how.

  Attributes:
    methods: of `methods.NAMES`, or of `policies`.
    policies: {method: directory of the trained policy that plays as it}.
    observations: N.
    interventions: T.
  """

  methods: tuple[str, ...]
  policies: Mapping[str, pathlib.Path]
  observations: int
  interventions: int


def from_flags(given: Any) -> Settings:
  """The settings that the flags of the launcher name.

  Args:
    given: the flags, or what has attributes of their names.

  Returns:
    The `Settings`, checked.

  Raises:
    errors.UsageError: one of them cannot be used.
  """
  if given.workdir and given.policy:
    raise errors.UsageError(
      '--workdir and --policy both name a trained policy; give one of them'
    )
  policy = SHIPPED if 'grpo' in given.methods else None
  if given.policy:
    policy = pathlib.Path(given.policy)
  if given.workdir:
    policy = pathlib.Path(given.workdir) / 'policy'
  named = Settings(
    **vars(playing(given)),
    methods=tuple(given.methods),
    policies={'grpo': policy} if policy else {},
    observations=given.observations,
    interventions=given.interventions,
  )
  check(named)
  return named


def playing(given: Any) -> Playing:
  """What the flags of `command_line.define_playing` name.

  Raises:
    errors.UsageError: no directory is named for what comes out.
  """
  if not given.out:
    raise errors.UsageError('name a directory for what comes out: --out=')
  names = ('repeats', 'samples', 'budget', 'seed', 'confidence', 'jobs')
  return Playing(
    scms=tuple(given.scm),
    out=pathlib.Path(given.out),
    **{name: getattr(given, name) for name in names},
  )


def check_playing(settings: Playing) -> None:
  """Raises an `errors.UsageError` at a setting that cannot be used."""
  _check_list('--scm', settings.scms)
  for name, least in (('repeats', 1), ('samples', 1), ('seed', 0), ('jobs', 1)):
    _check_least(settings, name, least)
  if settings.seed >= 2**32:
    raise errors.UsageError(
      f'--seed is {settings.seed}; it must be below {2**32}'
    )
  budget = settings.budget
  if budget is not None and not (budget > 0 and math.isfinite(budget)):
    raise errors.UsageError(
      f'--budget is {budget}; it must be a finite number above 0'
    )
  if not 0 < settings.confidence < 1:
    raise errors.UsageError(
      f'--confidence is {settings.confidence}; it must be between 0 and 1'
    )


def check(settings: Settings) -> None:
  """Raises an `errors.UsageError` at a setting that cannot be used."""
  check_playing(settings)
  _check_list('--methods', settings.methods)
  methods_lib.check([x for x in settings.methods if x not in settings.policies])
  # A deviation, which methods standardise by, needs two observations.
  for name, least in (('observations', 2), ('interventions', 1)):
    _check_least(settings, name, least)
  if 'grpo' in settings.methods and 'grpo' not in settings.policies:
    raise errors.UsageError(
      'the method grpo is a trained policy, and none is named'
    )
  for name, directory in settings.policies.items():
    if name not in settings.methods:
      raise errors.UsageError(
        f'a trained policy is given, {directory}, but {name} is not among '
        '--methods; add it, or leave the policy out'
      )


def _check_list(flag: str, items: Sequence[str]) -> None:
  if not items or not all(items):
    raise errors.UsageError(
      f'{flag}={",".join(items)} has an empty entry; name one or more, '
      'parted by commas'
    )
  for item in items:
    if items.count(item) > 1:
      raise errors.UsageError(f'{flag} names {item} twice')


def _check_least(settings: Any, name: str, least: int) -> None:
  value = getattr(settings, name)
  if value < least:
    raise errors.UsageError(f'--{name} is {value}; it must be {least} or more')


def run(
  settings: Settings, resolve: environments_lib.Resolve
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

  environments: Mapping[str, environments_lib.Environment]
  largest: Mapping[str, systems.System]
  episodes: list[episodes_lib.Episode]
  config: dict[str, Any]
  warnings: list[str]
  refusals: Mapping[tuple[str, str], str]


@contextlib.contextmanager
def playing_in(
  settings: Settings, resolve: environments_lib.Resolve
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
  check(settings)
  cast = players.Cast(
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
  player = players.Player(cast)
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
  run_directory.prepare_again(out, '--out', 'an evaluation', 'methods')
  with run_directory.locked(out, '--out'):
    log = episode_log.EpisodeLog(out)
    config = _config(settings, player)
    starts = episode_log.begin(
      out,
      config,
      [f'{device} ({device.device_kind})' for device in jax.devices()],
      log.episodes,
    )
    for difference in run_directory.differences(starts):
      print(
        f'not as at the last start, so that numbers may differ: {difference}',
        flush=True,
      )
    there = {*log.episodes, *refusals}
    blocks = _blocks(settings, list(player.environments), there)
    _announce(settings, blocks, log)
    jobs = min(settings.jobs, len(blocks))
    if jobs > 1:
      lines = players.play_there(cast, player.digests, blocks, jobs)
    else:
      lines = players.play_here(player, blocks)
    progress = Progress(
      [m for b in blocks for m in b.methods], jobs, sys.stderr
    )
    # What plays elsewhere is ended even where a line cannot be written.
    with (
      contextlib.closing(lines),  # pyrefly: ignore
      _table(out, comparison.table([*log.episodes.values()])) as add,
    ):
      for line in lines:
        episode = log.append(line)
        add(comparison.table([episode]))
        progress.update(episode)
    progress.close()
    episodes = log.ordered(list(player.environments), settings.methods)
    table = comparison.table(episodes)
    run_directory.write(out / 'results.csv', table.to_csv(index=False))
    yield Played(
      player.environments, largest, episodes, config, warnings, refusals
    )


@contextlib.contextmanager
def _table(
  out: pathlib.Path, so_far: pd.DataFrame
) -> Iterator[Callable[[pd.DataFrame], None]]:
  """The table of results while it grows; in the order in which episodes end."""
  path = out / 'results.csv'
  run_directory.write(path, so_far.to_csv(index=False))
  with path.open('a') as file:

    def add(rows):
      file.write(rows.to_csv(index=False, header=False))
      file.flush()

    yield add


def _config(settings: Settings, player: players.Player) -> dict[str, Any]:
  """What the episodes depend on, and which there are."""
  names = ('observations', 'interventions', 'samples', 'budget', 'seed')
  return {
    **{name: getattr(settings, name) for name in names},
    'repeats': settings.repeats,
    **player.digests,
  }


def _warnings(
  player: players.Player,
  largest: dict[str, systems.System],
  settings: Settings,
) -> list[str]:
  """What trained policies are asked for that they were not trained for."""
  asked: dict[tuple[str, str], list[str]] = {}
  for scm, system in largest.items():
    for method, about in player.abouts.items():
      beyond = methods_lib.beyond_training(
        about, system.scm, settings.observations, settings.interventions
      )
      if beyond:
        asked.setdefault((scm, ', '.join(beyond)), []).append(method)
  return [
    f'{errors.listed(who, _MAX_SHOWN, "more", ", ")} on {scm}: asked for more '
    f'than {"it was" if len(who) == 1 else "they were"} trained for: {beyond}'
    for (scm, beyond), who in asked.items()
  ]


def _refusals(
  player: players.Player,
  largest: dict[str, systems.System],
  settings: Settings,
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
  settings: Settings, scms: Sequence[str], there: Set[tuple[Any, ...]]
) -> list[players.Block]:
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
    players.Block(
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


class Progress:
  """Says how many episodes are played and how long the rest will take.

  Methods differ: the time left is that of each method's episodes, as far as one
  of it was seen, and marked with a `>` until one of each was.
  """

  def __init__(
    self,
    methods: Sequence[str],
    jobs: int,
    stream: TextIO,
    clock: Callable[[], float] = time.monotonic,
  ):
    """Starts the clock.

    Args:
      methods: of each episode that is to be played.
      jobs: the number of processes.
      stream: where to show it.
      clock: tells the time in seconds.
    """
    self._left = {name: methods.count(name) for name in methods}
    self._total, self._jobs = len(methods), jobs
    self._seconds: dict[str, list[float]] = {}
    self._stream, self._clock = stream, clock
    self._is_terminal = stream.isatty()
    self._every = _REDRAW_SECONDS if self._is_terminal else _LINE_SECONDS
    self._mark = clock()
    self._shown = -math.inf

  def update(self, episode: episodes_lib.Episode) -> None:
    """Counts an episode that has ended."""
    now = self._clock()
    # Others end in the meantime where several are at work.
    seconds = (now - self._mark) * self._jobs
    self._mark = now
    self._seconds.setdefault(episode.method, []).append(seconds)
    self._left[episode.method] -= 1
    if now - self._shown >= self._every or not any(self._left.values()):
      self._shown = now
      self._show(f'{episode.method} on {episode.scm}, repeat {episode.repeat}')

  def close(self) -> None:
    """Leaves the line."""
    if self._is_terminal and self._shown > -math.inf:
      print(file=self._stream)

  def _show(self, what: str) -> None:
    left = sum(self._left.values())
    seconds, unknown = 0.0, False
    for method, count in self._left.items():
      seen = self._seconds.get(method)
      unknown |= bool(count) and not seen
      # The median: the first one compiles.
      seconds += count * float(np.median(seen)) if seen else 0.0
    eta = dt.timedelta(seconds=round(seconds / self._jobs))
    done = self._total - left
    line = (
      f'{done / self._total:.0%}  {done}/{self._total} episodes  '
      f'ETA {"> " if unknown else ""}{eta}  {what}'
    )
    if self._is_terminal:
      print(f'\r\x1b[K{line}', end='', file=self._stream, flush=True)
    else:
      print(line, file=self._stream, flush=True)


def _write(settings: Settings, played: Played) -> dict[str, Any]:
  """Writes the summary, the page and the figures."""
  out = settings.out
  found = comparison.summarise(
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
  run_directory.write(out / 'table.md', tables.markdown(summary))
  _draw(settings, played)
  run_directory.write_json(out / 'summary.json', summary)
  return summary


_PANELS = {
  'best of all interventions made': 'best_expected',
  'last recommendation': 'recommended_expected',
}


def _draw(settings: Settings, played: Played) -> None:
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
        for method, values in comparison.curves(
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
      methods_lib.NAMES,
    )
    safe = urllib.parse.quote(name, safe='')
    plots.save(settings.out / f'curves_{safe}.png', figure)
    for method, values in comparison.curves(
      part, 'recommended_expected', horizon, True
    ).items():
      scores.setdefault(method, []).append(values)
  if len(played.environments) > 1:
    curves = {
      method: _curve(strata, settings.confidence)
      for method, strata in scores.items()
      if len(strata) == len(played.environments)
    }
    seconds = comparison.seconds(episodes, horizon)
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
        methods_lib.NAMES,
      )
      plots.save(settings.out / file, figure)


def _of_what(settings: Settings) -> str:
  repeats = settings.repeats
  few = statistics.too_few(repeats)
  with_intervals = f'{repeats} repeats, {settings.confidence:.0%} intervals'
  return f'mean of {few or with_intervals}'


def _curve(strata: list[np.ndarray], confidence: float) -> plots.Curve:
  """The mean over the steps: [n, T] of each stratum."""
  band = statistics.stratified_band(strata, confidence)
  low, high = band or (None, None)
  return plots.Curve(np.concatenate(strata).mean(0), low, high)
