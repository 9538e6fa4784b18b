"""Trained runs that are to be compared, and whether they may be.

Runs whose settings differ in the seed alone are of one configuration.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import json
import math
import pathlib
from typing import Any

from acme_cbo.evaluation import plots
from acme_cbo.infra import config_schema
from acme_cbo.infra import errors
from acme_cbo.infra import run_directory

# Settings that change nothing of what is learnt.
_CADENCE = (
  'training.eval_every',
  'training.checkpoint_every',
  'training.max_checkpoints',
  'training.best_checkpoints',
  'training.profile_from',
  'training.profile_updates',
)
# Those of which the interventions of a training are the product.
_BUDGET = (
  'training.num_updates',
  'grpo.num_tasks',
  'grpo.num_generations',
  'horizon.num_interventions',
)
_MAX_SHOWN = 6
_TAGS = {'scores': 'eval/score_last'}


@dataclasses.dataclass(frozen=True)
class Run:
  """A run whose policy is to be compared.

  Attributes:
    model: its name among all that are compared, with its seed.
    configuration: the name that it shares with runs of other seeds.
    directory: where it is.
    settings: {'grpo.beta': value, ...}, all of them.
    updates: that were made.
    revision: of the code that trained it; None where it is not known.
    mismatches: sentences, why it is not comparable to the first one; only
      where that was allowed.
  """

  model: str
  configuration: str
  directory: pathlib.Path
  settings: dict[str, Any]
  updates: int | None
  revision: str | None
  mismatches: tuple[str, ...] = ()


def read(
  directories: Sequence[pathlib.Path], allow_mismatch: bool
) -> list[Run]:
  """The runs of some directories.

  Args:
    directories: of launchers/train.py.
    allow_mismatch: take also what was stopped early, trained with another
      number of interventions, or evaluated otherwise, and mark it.

  Returns:
    A `Run` for each, in the same order.

  Raises:
    errors.UsageError: one has no policy, or, unless that is allowed, they do
      not match.
  """
  found = [_read(directory) for directory in directories]
  runs = []
  for run, unfinished in found:
    first = found[0][0]
    of_settings = mismatches_of(run.settings, first.settings, first.directory)
    mismatches = (*unfinished, *of_settings)
    if mismatches and not allow_mismatch:
      raise errors.UsageError(
        f'{run.directory}: '
        f'{errors.format_list(mismatches, _MAX_SHOWN, "more")}; '
        '--allow_mismatch compares it all the same, and marks it'
      )
    runs.append(dataclasses.replace(run, mismatches=mismatches))
  return _named(runs)


def _read(directory: pathlib.Path) -> tuple[Run, list[str]]:
  """A run, not yet named, and why it is not finished, if it is not."""
  config = run_directory.read_config(directory)
  for field, kind, instead in (
    ('seeds', 'study', 'runs/*'),
    ('paths', 'comparison', 'evaluation/*'),
  ):
    if field in config:
      raise errors.UsageError(
        f'{directory} is a {kind}; name what is in it: {directory}/{instead}'
      )
  try:
    config_schema.check(config)
  except errors.UsageError as error:
    raise errors.UsageError(f'{directory / "config.json"}: {error}') from error
  summary = run_directory.read_summary(directory)
  if not (directory / 'policy' / 'policy.json').exists():
    status = summary['status'] if summary else 'has not ended'
    if status == 'finished':
      raise errors.UsageError(
        f'{directory} is damaged: its run is finished, and its policy is gone'
      )
    raise errors.UsageError(
      f'{directory} holds no policy to compare, for the run is not finished '
      f'({status}); python launchers/train.py --resume --workdir={directory} '
      'goes on with it'
    )
  settings = config_schema.flat(config)
  unfinished = []
  if not summary or summary['status'] != 'finished':
    unfinished.append('it is not finished')
  elif summary['updates'] != settings['training.num_updates']:
    unfinished.append(
      f'it stopped after {summary["updates"]} of '
      f'{settings["training.num_updates"]} updates'
    )
  run = Run(
    '',
    settings['name'],
    directory,
    settings,
    summary['updates'] if summary else None,
    run_directory.revision(directory),
  )
  return run, unfinished


def mismatches_of(
  settings: Mapping[str, Any], of_first: Mapping[str, Any], first: object
) -> list[str]:
  """Why a training cannot be compared to another one.

  Args:
    settings: of it, {'grpo.beta': value, ...}.
    of_first: of the other one.
    first: what that is called.

  Returns:
    Sentences; none where it can.
  """
  found = []
  own, other = _interventions(settings), _interventions(of_first)
  if own != other:
    found.append(f'trained with {own:,} interventions, {first} with {other:,}')
  for name in sorted(settings.keys() | of_first.keys()):
    of_evaluation = name.startswith(('evaluation.', 'horizon.'))
    value, wanted = settings.get(name), of_first.get(name)
    if of_evaluation and value != wanted:
      found.append(f'{name} is {value}, that of {first} {wanted}')
  return found


def _interventions(settings: Mapping[str, Any]) -> int:
  """How many a training is to make."""
  return math.prod(settings[name] for name in _BUDGET)


def _decisive(run: Run) -> str:
  """All that a policy depends on but the seed."""
  return json.dumps(
    {
      name: value
      for name, value in run.settings.items()
      if name not in ('name', 'seed', *_CADENCE)
    },
    sort_keys=True,
  )


def _named(runs: Sequence[Run]) -> list[Run]:
  """Runs with names of their own, and of their configurations.

  A configuration is called as its config is, and, where several are called the
  same, as the first directory of it as well.
  """
  kinds: dict[str, list[Run]] = {}
  for run in runs:
    kinds.setdefault(_decisive(run), []).append(run)
  called = [group[0].configuration for group in kinds.values()]
  named = {}
  for group in kinds.values():
    first = group[0]
    name = first.configuration
    if called.count(name) > 1:
      others = [group[0].directory.name for group in kinds.values()]
      alone = others.count(first.directory.name) == 1
      name = f'{name} ({first.directory.name if alone else first.directory})'
    seeds = [run.settings['seed'] for run in group]
    for run, seed in zip(group, seeds, strict=True):
      if seeds.count(seed) > 1:
        raise errors.UsageError(
          f'{run.directory}: another run has the same settings and the same '
          f'seed, {seed}; it is no independent one'
        )
      named[run.directory] = dataclasses.replace(
        run, model=f'{name}, seed {seed}', configuration=name
      )
  return [named[run.directory] for run in runs]


def learning_curve(run: Run) -> dict[str, list[float]]:
  """`updates`, and the held-out `scores` of the last choice after each."""
  log = run.directory / 'metrics.jsonl'
  lines = log.read_text().splitlines() if log.exists() else []
  try:
    updates, curves = plots.curves_of([*map(json.loads, lines)], _TAGS)
  except (KeyError, TypeError, ValueError) as error:
    raise errors.UsageError(
      f'{log} is damaged: {error!r}; move it away to go on without the '
      'learning curve'
    ) from error
  return {'updates': [*map(float, updates)], **curves}


def differences(runs: Sequence[Run]) -> dict[str, dict[str, Any]]:
  """{setting: {configuration: value}} of those that are not the same in all."""
  names = sorted({name for run in runs for name in run.settings})
  found = {
    name: {run.configuration: run.settings.get(name) for run in runs}
    for name in names
    if name not in ('name', 'seed')
  }
  return {
    name: values
    for name, values in found.items()
    if len({json.dumps(value) for value in values.values()}) > 1
  }
