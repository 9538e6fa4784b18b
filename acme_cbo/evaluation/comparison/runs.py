"""Training runs that are compared, and checks that they are comparable.

Runs whose settings differ in the seed only belong to one configuration.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import json
import math
import pathlib
from typing import Any

from acme_cbo.evaluation import plots
from acme_cbo.infra import cli
from acme_cbo.infra import config_schema
from acme_cbo.infra import errors
from acme_cbo.infra import run_directory
from acme_cbo.policies import saving

# Settings that do not affect what is learned.
_CADENCE = (
  'training.eval_every',
  'training.checkpoint_every',
  'training.max_checkpoints',
  'training.best_checkpoints',
  'training.profile_from',
  'training.profile_updates',
)
# Settings whose product is the number of interventions of a training run.
_BUDGET = (
  'training.num_updates',
  'grpo.num_tasks',
  'grpo.num_generations',
  'horizon.num_interventions',
)
# Fields without which a run cannot be compared.
_NEEDED = ('name', 'seed', *_BUDGET)
_MAX_SHOWN = 6
_TAGS = {'scores': 'eval/score_last'}


@dataclasses.dataclass(frozen=True)
class Run:
  """A training run whose policy is compared.

  Attributes:
    model: name of the model, unique in the comparison; it includes the seed.
    configuration: name that the run shares with runs that differ in the seed
      only.
    directory: directory of the run.
    config: flat config of the run, {'grpo.beta': value, ...}.
    updates: number of updates made; None if unknown.
    revision: revision of the code that trained it; None if unknown.
    mismatches: reasons why the run is not comparable to the first one; empty
      unless mismatches are allowed.
  """

  model: str
  configuration: str
  directory: pathlib.Path
  config: dict[str, Any]
  updates: int | None
  revision: str | None
  mismatches: tuple[str, ...] = ()


def read(
  directories: Sequence[pathlib.Path], allow_mismatch: bool
) -> list[Run]:
  """Reads runs, and checks that they are comparable.

  Args:
    directories: directories written by launchers/train.py.
    allow_mismatch: whether to accept runs that stopped early, were trained with
      another number of interventions, or have other evaluation settings; their
      `mismatches` say so.

  Returns:
    A `Run` for each directory, in the same order.

  Raises:
    errors.UsageError: a run has no policy, or the runs do not match and
      `allow_mismatch` is false.
  """
  unnamed = [_read(directory) for directory in directories]
  runs = []
  for run, unfinished in unnamed:
    first = unnamed[0][0]
    differing = find_mismatches(run.config, first.config, first.directory)
    mismatches = (*unfinished, *differing)
    if mismatches and not allow_mismatch:
      raise errors.UsageError(
        f'{run.directory}: '
        f'{errors.format_list(mismatches, _MAX_SHOWN, "more")}; '
        'set allow_mismatch to compare it anyway, with a warning'
      )
    runs.append(dataclasses.replace(run, mismatches=mismatches))
  return _assign_names(runs)


def read_config(directory: pathlib.Path) -> dict[str, Any]:
  """Returns the config of a run, in its present form."""
  return saving.check_training_settings(
    run_directory.read_config(directory),
    f'{directory / "config.json"} is damaged: config',
  )


def _read(directory: pathlib.Path) -> tuple[Run, list[str]]:
  """Returns a run without a name, and the reasons why it is unfinished."""
  for field, kind, parts, pattern in (
    ('seeds', 'sweep', 'runs', 'runs/*'),
    ('paths', 'comparison', 'evaluations', 'evaluation/*'),
  ):
    if field in run_directory.read_config(directory):
      raise errors.UsageError(
        f'{directory} is a {kind}, not a run; name the {parts} in it: '
        f'{directory}/{pattern}'
      )
  flat = config_schema.flat(read_config(directory))
  for name in _NEEDED:
    kind = str if name == 'name' else int
    if not isinstance(flat.get(name), kind):
      raise errors.UsageError(
        f'{directory / "config.json"} is damaged: config.{name} is '
        f'{flat.get(name)!r}; it must be of type {kind.__name__}'
      )
  summary = run_directory.read_summary(directory)
  if not (directory / 'policy' / 'policy.json').exists():
    status = summary['status'] if summary else 'has not ended'
    if status == 'finished':
      raise errors.UsageError(
        f'{directory} is damaged: its run is finished, but its policy is '
        'missing'
      )
    raise errors.UsageError(
      f'{directory} holds no policy to compare, because the run is not '
      f'finished ({status}); to continue it, run: {cli.command("train")} '
      f'--resume --workdir={directory}'
    )
  unfinished = []
  if not summary or summary['status'] != 'finished':
    unfinished.append('it is not finished')
  elif summary['updates'] != flat['training.num_updates']:
    unfinished.append(
      f'it stopped after {summary["updates"]} of '
      f'{flat["training.num_updates"]} updates'
    )
  run = Run(
    '',
    flat['name'],
    directory,
    flat,
    summary['updates'] if summary else None,
    run_directory.revision(directory),
  )
  return run, unfinished


def find_mismatches(
  config: Mapping[str, Any], first_config: Mapping[str, Any], first: object
) -> list[str]:
  """Returns the reasons why a training run is not comparable to another one.

  Args:
    config: flat config of the run, {'grpo.beta': value, ...}.
    first_config: flat config of the run that it is compared with.
    first: name of the run that it is compared with.

  Returns:
    The reasons; empty if the runs are comparable.
  """
  reasons = []
  own, other = _num_interventions(config), _num_interventions(first_config)
  if own != other:
    reasons.append(
      f'trained with {own:,} interventions, {first} with {other:,}'
    )
  for name in sorted(config.keys() | first_config.keys()):
    is_evaluation = name.startswith(('evaluation.', 'horizon.'))
    value, expected = config.get(name), first_config.get(name)
    if is_evaluation and value != expected:
      reasons.append(f'{name} is {value}, but {expected} in {first}')
  return reasons


def _num_interventions(config: Mapping[str, Any]) -> int:
  """Returns the number of interventions of a complete training run."""
  return math.prod(config[name] for name in _BUDGET)


def _configuration_key(run: Run) -> str:
  """Returns a text that is equal for runs that differ in the seed only."""
  return json.dumps(
    {
      name: value
      for name, value in run.config.items()
      if name not in ('name', 'seed', *_CADENCE)
    },
    sort_keys=True,
  )


def _assign_names(runs: Sequence[Run]) -> list[Run]:
  """Returns the runs with unique names, and with names of configurations.

  A configuration has the name that its config gives it. If several have the
  same name, the directory of their first run is added.
  """
  groups: dict[str, list[Run]] = {}
  for run in runs:
    groups.setdefault(_configuration_key(run), []).append(run)
  config_names = [group[0].configuration for group in groups.values()]
  named = {}
  for group in groups.values():
    first = group[0]
    name = first.configuration
    if config_names.count(name) > 1:
      folders = [group[0].directory.name for group in groups.values()]
      is_unique = folders.count(first.directory.name) == 1
      folder = first.directory.name if is_unique else first.directory
      name = f'{name} ({folder})'
    seeds = [run.config['seed'] for run in group]
    for run, seed in zip(group, seeds, strict=True):
      if seeds.count(seed) > 1:
        raise errors.UsageError(
          f'{run.directory}: another run has the same settings and the same '
          f'seed, {seed}, so that the two are not independent; leave one of '
          'them out'
        )
      named[run.directory] = dataclasses.replace(
        run, model=f'{name}, seed {seed}', configuration=name
      )
  return [named[run.directory] for run in runs]


def learning_curve(run: Run) -> dict[str, list[float]]:
  """Returns the `updates` at which a run was evaluated, and its `scores`.

  The score is that of the last intervention on the held-out SCMs.
  """
  rows = run_directory.read_metrics(run.directory)
  updates, curves = plots.extract_curves(rows, _TAGS)
  return {'updates': [*map(float, updates)], **curves}


def differences(runs: Sequence[Run]) -> dict[str, dict[str, Any]]:
  """Returns {setting: {configuration: value}} of the settings that differ."""
  names = sorted({name for run in runs for name in run.config})
  values_by_setting = {
    name: {run.configuration: run.config.get(name) for run in runs}
    for name in names
    if name not in ('name', 'seed')
  }
  return {
    name: values
    for name, values in values_by_setting.items()
    if len({json.dumps(value) for value in values.values()}) > 1
  }
