"""A study: configurations × seeds that are to be trained and then compared."""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import json
import pathlib
import traceback
from typing import Any

from acme_cbo.evaluation.comparison import runs
from acme_cbo.experiments import config as config_lib
from acme_cbo.infra import config_schema
from acme_cbo.infra import errors
from acme_cbo.infra import run_directory


@dataclasses.dataclass(frozen=True)
class Training:
  """One of the trainings of a study.

  Attributes:
    name: of it, with its seed.
    config: its settings.
    directory: where it goes.
  """

  name: str
  config: dict[str, Any]
  directory: pathlib.Path

  def is_begun(self) -> bool:
    """Whether there is a run to go on with, or a finished one."""
    return (self.directory / 'config.json').exists()

  def summary(self) -> dict[str, Any]:
    """How it ended; its `status` is 'killed' where nothing says."""
    found = run_directory.read_summary(self.directory)
    return found or {'status': 'killed', 'reason': 'it ended without a word'}

  def is_finished(self) -> bool:
    """Whether there is nothing left to train."""
    return self.is_begun() and self.summary()['status'] == 'finished'


# What the config of a study has, and which types.
_FIELDS: dict[str, tuple[type, ...]] = {
  'seeds': (tuple, list),
  'evaluation': (dict,),
}
_EVALUATION: dict[str, tuple[type, ...]] = {
  'scm': (tuple, list),
  'repeats': (int,),
  'samples': (int,),
  'budget': (float, int, type(None)),
  'seed': (int,),
  'confidence': (float,),
  'allow_mismatch': (bool,),
}


def check(config: Mapping[str, Any]) -> None:
  """Raises an `errors.UsageError` unless a config is one of a study."""
  _check_fields(config, _FIELDS, 'config')
  _check_fields(config['evaluation'], _EVALUATION, 'config.evaluation')
  for seed in config['seeds']:
    if type(seed) is not int:
      raise errors.UsageError(f'config.seeds has {seed!r}; name whole numbers')
  for scm in config['evaluation']['scm']:
    if not isinstance(scm, str):
      raise errors.UsageError(f'config.evaluation.scm has {scm!r}; name texts')
  try:
    json.dumps(config, allow_nan=False)
  except (TypeError, ValueError) as error:
    raise errors.UsageError(
      f'the config of the study is no plain value: {error}'
    ) from error
  for name in config['evaluation'].keys() - _EVALUATION.keys():
    raise errors.UsageError(
      f'config.evaluation has {name}, which means nothing to a comparison; '
      f'there are {", ".join(_EVALUATION)}'
    )


def _check_fields(values, fields, path):
  for name, kinds in fields.items():
    if name not in values:
      raise errors.UsageError(
        f'{path} has no field {name}, as that of a study has: see '
        'configs/workflow.py'
      )
    # Python's bool is an int.
    fits = isinstance(values[name], kinds)
    if not fits or (isinstance(values[name], bool) and bool not in kinds):
      raise errors.UsageError(
        f'{path}.{name} is {values[name]!r}; see configs/workflow.py for what '
        'it may be'
      )


def expand(sweep: Callable[[Any], Any], config: Any) -> dict[str, Any]:
  """What the `sweep` of a config file says, as plain values.

  Args:
    sweep: config of the study -> {name: config of a training}.
    config: what it is called with.

  Returns:
    {name: {section: {field: value}}}.

  Raises:
    errors.UsageError: it fails, or says something else.
  """
  try:
    said = sweep(config)
  except Exception as error:  # Whatever is written there.
    place = traceback.extract_tb(error.__traceback__)[-1]
    raise errors.UsageError(
      f'sweep() of the study failed: {error!r}, in line {place.lineno} of '
      f'{place.filename}'
    ) from error
  if not isinstance(said, Mapping) or not said:
    raise errors.UsageError(
      f'sweep() of the study returned {said!r}; it is to return '
      '{name: config of a training}'
    )
  found = {}
  for name, one in said.items():
    plain = one.to_dict() if hasattr(one, 'to_dict') else one
    if not isinstance(name, str) or not isinstance(plain, Mapping):
      raise errors.UsageError(
        f'sweep() of the study names {name!r}: {one!r}; it is to name a text '
        'and the config of a training'
      )
    found[name] = plain
  return found


def check_comparable(
  trainings: Sequence['Training'], allow_mismatch: bool
) -> None:
  """Raises where a comparison would be refused after all of the training."""
  first = trainings[0]
  for one in trainings:
    settings, of_first = (
      config_schema.flat(one.config),
      config_schema.flat(first.config),
    )
    found = runs.find_mismatches(settings, of_first, first.name)
    if settings['training.patience']:
      found.append('training.patience may end it early')
    if settings['training.stop_when_converged']:
      found.append('training.stop_when_converged may end it early')
    if found and not allow_mismatch:
      raise errors.UsageError(
        f'{one.name} could not be compared: {"; ".join(found)}; '
        'config.evaluation.allow_mismatch=True compares it all the same, and '
        'marks it'
      )


def make_trainings(
  configurations: Mapping[str, Mapping[str, Any]],
  seeds: Sequence[int],
  directory: pathlib.Path,
) -> list[Training]:
  """The trainings of a study, all configurations of a seed before the next.

  What the first of a configuration compiles serves its other seeds.

  Args:
    configurations: {name: config of a training}.
    seeds: of each.
    directory: for the directories of all of them.

  Returns:
    A `Training` for each configuration and seed.

  Raises:
    errors.UsageError: a name or a seed cannot be used, or something else was
      trained in one of the directories.
  """
  if not seeds or len({*seeds}) < len(seeds):
    raise errors.UsageError(
      f'the seeds of the study are {", ".join(map(str, seeds)) or "none"}; '
      'name one or more, none of them twice'
    )
  found = []
  for seed in seeds:
    for name, config in configurations.items():
      config = dict(config) | {'name': name, 'seed': seed}
      try:
        trained = config_lib.GRPOConfig.from_dict(config)
      except errors.UsageError as error:
        raise errors.UsageError(f'{name}: {error}') from error
      training = Training(
        f'{name}, seed {seed}', config, directory / f'{name}-seed{seed}'
      )
      if training.is_begun():
        changes = config_lib.differences(training.directory, trained)
        if changes:
          raise errors.UsageError(
            f'{training.directory} was trained otherwise than the study says: '
            f'{errors.format_list(changes, 4, "more")}; name another '
            '--workdir=, or move that directory away'
          )
      found.append(training)
  return found
