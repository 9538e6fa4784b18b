"""Flags that several commands share."""

from collections.abc import Callable
import os
import pathlib
import runpy
from typing import Any

from absl import flags
from ml_collections.config_flags import config_flags

from acme_cbo.evaluation import config as evaluation_config
from acme_cbo.experiments import config as config_lib
from acme_cbo.infra import config_schema
from acme_cbo.infra import errors
from acme_cbo.infra import files
from acme_cbo.infra import provenance
from acme_cbo.runtimes import process_group

# A flag belongs to the command that calls a function of this module, and is
# listed by its --help.
flags.disclaim_key_flags()

_MAX_CONFIG_BYTES = 10**6


def define_config(meaning: str) -> flags.FlagHolder[Any]:
  """Defines --config, a config file whose fields can be overridden.

  Args:
    meaning: Help text; where files are searched is appended to it.

  Returns:
    The holder of the flag, for `required_config` and `required_function`.
  """
  holder = config_flags.DEFINE_config_file(
    'config',
    help_string=f'{meaning} A relative path is searched in the working '
    'directory, then in the package.',
  )
  flags.FLAGS[holder.name].parser = _ConfigFileParser(holder.name)
  return holder


class _ConfigFileParser(config_flags.ConfigFileFlagParser):
  """Loads config files of the working directory or of the package."""

  def parse(self, path: str) -> Any:
    """Returns the config of 'path' or 'path:preset'."""
    existing = _existing(path)
    file = existing.partition(':')[0]
    if not file:
      raise errors.UsageError('name a config file, such as configs/grpo.py')
    files.open_regular(pathlib.Path(file), _MAX_CONFIG_BYTES).close()
    return super().parse(existing)


def _existing(path: str) -> str:
  """Returns the path of the shipped file where a relative one is missing.

  Args:
    path: Path of a config file, 'path' or 'path:preset'.

  Returns:
    The path itself if its file exists or nothing like it is shipped. The wheel
    has configs/ inside the package, a clone of the project beside it.
  """
  file, colon, preset = path.partition(':')
  if not file or pathlib.Path(file).exists():
    return path
  for root in (provenance.PACKAGE, provenance.PACKAGE.parent):
    shipped = root / file
    if shipped.is_file() and shipped.is_relative_to(root / 'configs'):
      return f'{shipped}{colon}{preset}'
  return path


def define_evaluation(cls: type[evaluation_config.EvaluationConfig]) -> None:
  """Defines --out, and a flag for each setting of an evaluation.

  Args:
    cls: Class of the config, for `evaluation.config.from_flags`.
  """
  flags.DEFINE_string('out', None, 'Output directory; required.')
  define: dict[type, Callable[..., Any]] = {
    bool: flags.DEFINE_bool,
    float: flags.DEFINE_float,
    int: flags.DEFINE_integer,
    tuple: flags.DEFINE_list,
  }
  for name, field in config_schema.fields(cls).items():
    is_list = field.kind is tuple
    flag = evaluation_config.flag(name)
    meaning = f'{field.meaning[0].upper()}{field.meaning[1:]}.'
    if field.kind is str:
      flags.DEFINE_enum(flag, field.default, field.options, meaning)
      continue
    holder = define[field.kind](
      flag, [*field.default] if is_list else field.default, meaning
    )
    if is_list:
      flags.FLAGS[holder.name].parser = _ListParser()


class _ListParser(flags.ListParser):
  """Splits a list at its commas, unless it is the path of a file."""

  def parse(self, argument: str | list[str]) -> list[str]:
    """Returns the entries."""
    if isinstance(argument, str) and os.path.isfile(argument):
      return [argument]
    return super().parse(argument)


def define_processes() -> None:
  """Defines the flags that `process_spec` reads."""
  flags.DEFINE_string(
    'coordinator',
    None,
    "'host:port' of process 0, with the next two flags, or 'slurm' under srun. "
    'All processes that train together need the same, and the same secret in '
    'the environment variable ACME_CBO_SECRET.',
  )
  flags.DEFINE_integer('num_processes', None, 'Number of processes.')
  flags.DEFINE_integer(
    'process_id', None, 'Index of this process, counted from 0.'
  )


def process_spec() -> process_group.ProcessSpec | None:
  """Returns this process among several, see `process_group.spec_from_flags`."""
  names = ('coordinator', 'num_processes', 'process_id')
  return process_group.spec_from_flags(
    *(flags.FLAGS[name].value for name in names)
  )


def required_config(
  flag: flags.FlagHolder[Any], example: str = 'configs/grpo.py'
) -> dict[str, Any]:
  """Returns the config of the flag --config as plain values.

  Args:
    flag: Holder of the flag.
    example: Config file that an error message names.

  Returns:
    {section: {field: value}}.

  Raises:
    errors.UsageError: The flag is missing, or its file cannot be read.
  """
  try:
    config = flag.value
    if config is None:
      raise errors.UsageError(f'no config; give one as --config={example}')
    return config.to_dict()
  except (OSError, ImportError, ValueError) as error:
    raise errors.UsageError(f'--config: {error}') from error


def required_training_config(
  flag: flags.FlagHolder[Any],
) -> config_lib.GRPOConfig:
  """Returns the validated config of a training run of the flag --config.

  Args:
    flag: Holder of the flag.

  Returns:
    The config.

  Raises:
    errors.UsageError: The flag is missing, its file cannot be read, or a field
      is invalid.
  """
  return config_lib.GRPOConfig.from_dict(required_config(flag))


def required_function(
  flag: flags.FlagHolder[Any], name: str
) -> Callable[..., Any]:
  """Returns a function defined beside `get_config` in the file of --config.

  Args:
    flag: Holder of the flag, which has been read by `required_config`.
    name: Name of the function.

  Returns:
    The function.

  Raises:
    errors.UsageError: The file does not define it.
  """
  config_flag: Any = flags.FLAGS[flag.name]
  path, _, _ = _existing(config_flag.config_filename).partition(':')
  function = runpy.run_path(path).get(name)
  if not callable(function):
    raise errors.UsageError(
      f'{path} defines no function {name}(), which this command needs'
    )
  return function
