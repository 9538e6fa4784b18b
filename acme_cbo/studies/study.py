"""A study: configurations × seeds that are to be trained and then compared."""

from collections.abc import Mapping, Sequence
import dataclasses
import pathlib
import re
from typing import Any

from acme_cbo import errors
from acme_cbo import run_directory
from acme_cbo import schema

# What a directory may be called everywhere.
_NAME = re.compile(r'[\w.+=-]+')


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
    if not isinstance(seed, int):
      raise errors.UsageError(f'config.seeds has {seed!r}; name whole numbers')
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


def trainings(
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
  if not configurations or not all(map(_NAME.fullmatch, configurations)):
    raise errors.UsageError(
      'sweep() names the configurations '
      f'{", ".join(map(repr, configurations)) or "not at all"}; a name is made '
      'of letters, digits and any of . _ + = -'
    )
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
        schema.check(config)
      except errors.UsageError as error:
        raise errors.UsageError(f'{name}: {error}') from error
      training = Training(
        f'{name}, seed {seed}', config, directory / f'{name}-seed{seed}'
      )
      if training.is_begun():
        changes = run_directory.changes(training.directory, config)
        if changes:
          raise errors.UsageError(
            f'{training.directory} was trained otherwise than the study says: '
            f'{errors.listed(changes, 4, "more")}; name another --workdir=, or '
            'move that directory away'
          )
      found.append(training)
  return found
