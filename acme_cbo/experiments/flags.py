"""Flags that several launchers share."""

from collections.abc import Callable
import runpy
from typing import Any

from absl import flags

from acme_cbo.infra import config_schema
from acme_cbo.infra import errors
from acme_cbo.runtimes import process_group


def define_playing(scms: list[str], who: str) -> None:
  """Defines the flags that `evaluation.config.config_from_flags` reads.

  Args:
    scms: on which is played if nothing is said.
    who: plays an episode, as 'method'.
  """
  flags.DEFINE_string('out', None, 'Directory for all that comes out.')
  flags.DEFINE_list(
    'scm', scms, 'Benchmarks, families, groups of them, YAML files.'
  )
  for name, default, meaning in (
    ('repeats', 20, f'Episodes of each {who} on each SCM.'),
    ('samples', 1, 'Draws of which each outcome is the mean.'),
    ('seed', 0, 'Of data and noise.'),
    ('jobs', 1, 'Processes.'),
  ):
    flags.DEFINE_integer(name, default, meaning)
  flags.DEFINE_float(
    'budget',
    None,
    'What the interventions of an episode may cost; without it, as the SCM '
    'says.',
  )
  flags.DEFINE_float(
    'confidence', 0.95, 'Of the intervals, and of decisions by them.'
  )


def define_place() -> None:
  """Defines the flags that `place` reads."""
  flags.DEFINE_string(
    'coordinator',
    None,
    "Several processes train as one: 'host:port' of process 0, the same for "
    "all; or 'slurm', where srun starts them.",
  )
  flags.DEFINE_integer('num_processes', None, 'How many there are.')
  flags.DEFINE_integer('process_id', None, 'Which this one is, from 0.')


def place() -> process_group.ProcessSpec | None:
  """Which of several processes this is, see `process_group.spec_from_flags`."""
  names = ('coordinator', 'num_processes', 'process_id')
  return process_group.spec_from_flags(
    *(flags.FLAGS[name].value for name in names)
  )


def required_config(
  flag: Any, example: str = 'configs/grpo.py', is_training: bool = True
) -> dict[str, Any]:
  """The config that a flag of `config_flags` names, as plain values.

  Args:
    flag: holder of the flag.
    example: a file that it may name.
    is_training: whether it is one of a training, and checked as such.

  Returns:
    {section: {field: value}}.

  Raises:
    errors.UsageError: the flag is missing, its file cannot be read, or a field
      is not as it should be.
  """
  try:
    config = flag.value
    if config is None:
      raise errors.UsageError(f'no config; give one as --config={example}')
    values = config.to_dict()
  except (OSError, ImportError, ValueError) as error:
    raise errors.UsageError(f'--config: {error}') from error
  if is_training:
    config_schema.check(values)
  return values


def required_function(flag: Any, name: str) -> Callable[..., Any]:
  """A function beside `get_config` in the file that a flag names.

  Args:
    flag: holder of the flag, of a config that was read.
    name: of the function.

  Returns:
    The function.

  Raises:
    errors.UsageError: there is none.
  """
  given: Any = flags.FLAGS[flag.name]
  path, _, _ = given.config_filename.partition(':')
  found = runpy.run_path(path).get(name)
  if not callable(found):
    raise errors.UsageError(
      f'{path} has no function {name}(); it is no config of this launcher'
    )
  return found
