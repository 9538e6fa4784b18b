"""Config of a sweep, and its trainings: configurations × seeds."""

from collections.abc import Callable, Iterable, Mapping, Sequence
import dataclasses
import json
import pathlib
import traceback
from typing import Any

from acme_cbo.evaluation import config as evaluation_config
from acme_cbo.evaluation.comparison import runs
from acme_cbo.experiments import config as config_lib
from acme_cbo.infra import config_schema
from acme_cbo.infra import errors
from acme_cbo.infra import run_directory


@dataclasses.dataclass(frozen=True)
class Training:
  """One training of a sweep.

  Attributes:
    name: name of the configuration and seed.
    config: config of the training.
    directory: run directory.
  """

  name: str
  config: dict[str, Any]
  directory: pathlib.Path

  def is_started(self) -> bool:
    """Returns whether the directory contains a run, finished or not."""
    return (self.directory / 'config.json').exists()

  def summary(self) -> dict[str, Any]:
    """Returns the summary of the run; `status` is 'killed' if it has none."""
    summary = run_directory.read_summary(self.directory)
    return summary or {'status': 'killed', 'reason': 'the run has no summary'}

  def is_finished(self) -> bool:
    """Returns whether the training is complete."""
    return self.is_started() and self.summary()['status'] == 'finished'


# Required fields of the config of a sweep, and their types.
_FIELDS: dict[str, tuple[type, ...]] = {
  'seeds': (tuple, list),
  'evaluation': (dict,),
}
# Fields of `evaluation` by the names of their flags. A sweep has its own jobs.
EVALUATION = {
  evaluation_config.flag(name): field
  for name, field in config_schema.fields(
    evaluation_config.ComparisonConfig
  ).items()
  if name != 'jobs'
}


def check(config: Mapping[str, Any]) -> None:
  """Raises unless a config is a valid config of a sweep.

  Args:
    config: config of the sweep.

  Raises:
    errors.UsageError: a field is missing or invalid.
  """
  _check_present(config, _FIELDS, 'config')
  for name, kinds in _FIELDS.items():
    if not isinstance(config[name], kinds):
      raise errors.UsageError(
        f'config.{name} is {config[name]!r}; see configs/workflow.py for valid '
        'values'
      )
  for seed in config['seeds']:
    if type(seed) is not int:
      raise errors.UsageError(f'config.seeds has {seed!r}; use integers')
  evaluation = config['evaluation']
  _check_present(evaluation, EVALUATION, 'config.evaluation')
  for name, value in evaluation.items():
    if name not in EVALUATION:
      raise errors.UsageError(
        f'config.evaluation has the unknown field {name}; the fields are '
        f'{", ".join(EVALUATION)}'
      )
    config_schema.check_value(
      f'config.evaluation.{name}', value, EVALUATION[name]
    )
  try:
    json.dumps(config, allow_nan=False)
  except (TypeError, ValueError) as error:
    raise errors.UsageError(
      f'the config of the sweep has a value that JSON cannot hold: {error}'
    ) from error


def _check_present(
  values: Mapping[str, Any], names: Iterable[str], path: str
) -> None:
  for name in names:
    if name not in values:
      raise errors.UsageError(
        f'{path} lacks the field {name} of a sweep; see configs/workflow.py'
      )


def expand(sweep: Callable[[Any], Any], config: Any) -> dict[str, Any]:
  """Calls the function `sweep` of a config file.

  Args:
    sweep: config of the sweep -> {name: config of a training}.
    config: config of the sweep.

  Returns:
    {name: {section: {field: value}}}.

  Raises:
    errors.UsageError: the function raised an exception or returned something
      else.
  """
  try:
    configurations = sweep(config)
  except Exception as error:  # User code may raise anything.
    frame = traceback.extract_tb(error.__traceback__)[-1]
    raise errors.UsageError(
      f'sweep() of the config failed: {error!r}, in line {frame.lineno} of '
      f'{frame.filename}'
    ) from error
  if not isinstance(configurations, Mapping) or not configurations:
    raise errors.UsageError(
      f'sweep() of the config returned {configurations!r}; it must return '
      '{name: config of a training}'
    )
  plain_configs = {}
  for name, value in configurations.items():
    plain = value.to_dict() if hasattr(value, 'to_dict') else value
    if not isinstance(name, str) or not isinstance(plain, Mapping):
      raise errors.UsageError(
        f'sweep() of the config returned {name!r}: {value!r}; it must map a '
        'string to the config of a training'
      )
    plain_configs[name] = plain
  return plain_configs


def check_comparable(
  trainings: Sequence['Training'], allow_mismatch: bool
) -> None:
  """Raises if the comparison would refuse the finished trainings.

  Args:
    trainings: trainings of the sweep.
    allow_mismatch: whether to compare trainings of different size.

  Raises:
    errors.UsageError: the trainings cannot be compared.
  """
  first = trainings[0]
  for training in trainings:
    settings, first_settings = (
      config_schema.flat(training.config),
      config_schema.flat(first.config),
    )
    mismatches = runs.find_mismatches(settings, first_settings, first.name)
    if settings['training.patience']:
      mismatches.append('training.patience may end it early')
    if settings['training.stop_when_converged']:
      mismatches.append('training.stop_when_converged may end it early')
    if mismatches and not allow_mismatch:
      raise errors.UsageError(
        f'{training.name} cannot be compared: {"; ".join(mismatches)}; set '
        'config.evaluation.allow_mismatch=True to compare it nevertheless and '
        'mark it in the report'
      )


def make_trainings(
  configurations: Mapping[str, Mapping[str, Any]],
  seeds: Sequence[int],
  directory: pathlib.Path,
) -> list[Training]:
  """Returns the trainings of a sweep, all configurations of a seed in a row.

  The seeds of a configuration share its compiled programs.

  Args:
    configurations: {name: config of a training}.
    seeds: random seeds of each configuration.
    directory: parent of all run directories.

  Returns:
    One `Training` per configuration and seed.

  Raises:
    errors.UsageError: a name or a seed is invalid, or a run directory contains
      a run with another config.
  """
  if not seeds or len({*seeds}) < len(seeds):
    raise errors.UsageError(
      f'config.seeds is {", ".join(map(str, seeds)) or "empty"}; give one or '
      'more distinct seeds'
    )
  trainings = []
  for seed in seeds:
    for name, config in configurations.items():
      config = dict(config) | {'name': name, 'seed': seed}
      try:
        parsed = config_lib.GRPOConfig.from_dict(config)
      except errors.UsageError as error:
        raise errors.UsageError(f'{name}: {error}') from error
      training = Training(
        f'{name}, seed {seed}', config, directory / f'{name}-seed{seed}'
      )
      if training.is_started():
        changes = config_lib.differences(training.directory, parsed)
        if changes:
          raise errors.UsageError(
            f'{training.directory} has a run with another config: '
            f'{errors.format_list(changes, 4, "more")}; choose another '
            '--workdir or move that directory away'
          )
      trainings.append(training)
  return trainings
