"""Starts a command and reports its failures: one clear line, exit code not 0.

Only a mistake that the user can correct is shortened to a line. Every other
exception keeps its traceback.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
import contextlib
import errno
import io
import logging as std_logging
import os
import pathlib
import shlex
import shutil
import signal
import sys
import threading
import traceback
from typing import Any, NoReturn

from absl import app
from absl import flags
from absl import logging

from acme_cbo.infra import errors
from acme_cbo.infra import provenance
from acme_cbo.infra import signals
from acme_cbo.infra import text

# The console script of the installed package.
PROGRAM = 'acme-cbo'
# Prefix of the names of threads that act and may hang: they do not keep a
# process that fails from ending.
ACTOR_THREAD = 'actor'

# Errors of a write for which there is no room.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# Errors of a path that the user has to change, or to make accessible.
_UNUSABLE = (
  errno.EACCES,
  errno.EISDIR,
  errno.ELOOP,
  errno.ENAMETOOLONG,
  errno.ENOTDIR,
  errno.EPERM,
  errno.EROFS,
)

_CONFIG_HELP = flags.DEFINE_bool(
  'config_help', False, 'List every field of a config and exit.'
)


def run(
  main: Callable[[Sequence[str]], None],
  argv: Sequence[str] | None = None,
  takes_arguments: bool = False,
  passes_on: bool = False,
  config_help: Callable[[], str] | None = None,
) -> None:
  """Parses the flags and calls `main`.

  `--help` shows the docstring and the flags of the module of `main`.

  Args:
    main: Function of the arguments that are not flags, preceded by the name of
      the program.
    argv: Name of the program and its arguments; None for `sys.argv`.
    takes_arguments: Whether arguments that are not flags are allowed.
    passes_on: Whether unknown flags are passed on as such arguments.
    config_help: Returns the table of fields that --config_help prints; None
      where the command takes no config of a training.

  Raises:
    SystemExit: With code 2 after an `errors.UsageError`, with 1 after an
      `errors.PeerError`, and with 128 plus the signal's number after an
      `errors.Interrupted`.
  """
  # Ctrl-C ends the process at once and silently until a run handles it: while
  # modules are imported it would print a traceback, or be swallowed.
  signal.signal(signal.SIGINT, signal.SIG_DFL)
  # Log lines are for users: no thread names, no source lines.
  logging.get_absl_handler().setFormatter(_Formatter())
  _open_missing_streams()
  # What the encoding of a terminal or of a log lacks is escaped.
  for stream in (sys.stdout, sys.stderr):
    if isinstance(stream, io.TextIOWrapper):
      stream.reconfigure(errors='backslashreplace')
  argv = list(sys.argv if argv is None else argv)
  app.define_help_flags()
  for name, full in (('help', False), ('helpshort', False), ('helpfull', True)):
    flags.DEFINE_flag(
      _HelpFlag(name, main.__module__, argv[0], full), module_name=__name__
    )

  def guarded(argv):
    with (
      _ending_actors(),
      signals.ending_at_closed_pipe(),
      _telling_os_errors(),
    ):
      _guard(main, argv, takes_arguments or passes_on, config_help)

  def parse(argv):
    with signals.ending_at_closed_pipe(), _telling_os_errors():
      return _parse(argv, passes_on)

  app.run(guarded, argv, flags_parser=parse)


def _open_missing_streams() -> None:
  """Opens the null device for standard streams that a process lacks.

  A process may be started without them, such as by `2>&-`. The files that it
  opens would take their numbers, and its children would lack them, too.
  """
  for number in range(3):
    try:
      os.fstat(number)
    except OSError:
      # The lowest number that is free is this one.
      os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
  for name, number in (('stdout', 1), ('stderr', 2)):
    if getattr(sys, name) is None:
      stream = open(number, 'w', encoding='utf-8', closefd=False)  # noqa: SIM115
      setattr(sys, name, stream)


class _Formatter(std_logging.Formatter):
  """Formats log lines, which may quote files of others."""

  def __init__(self):
    super().__init__('%(levelname)s: %(message)s')

  def format(self, record: std_logging.LogRecord) -> str:
    return text.printable(super().format(record))


class _HelpFlag(flags.BooleanFlag):
  """A flag that prints the help and exits with 0, where absl's exit with 1."""

  def __init__(self, name: str, module: str, program: str, full: bool):
    super().__init__(
      name,
      False,
      'Show all flags and exit.' if full else 'Show this help and exit.',
      short_name='?' if name == 'help' else None,
      allow_override=True,
    )
    self._module = module
    self._program = program
    self._full = full

  def parse(self, argument: Any) -> None:
    super().parse(argument)
    if self.value:
      print(_help(self._module, self._program, self._full), flush=True)
      sys.exit(0)


def _help(module: str, program: str, full: bool) -> str:
  """Returns the docstring and the flags of a command's module."""
  word = module.rpartition('.')[2]
  description = (sys.modules[module].__doc__ or '').replace(
    f'{PROGRAM} {word}', ' '.join(_command(word))
  )
  if full:
    return f'{description}\nflags:\n{flags.FLAGS.get_help()}'
  own = flags.FLAGS.module_help(module).replace(
    f'\n{module}:', f'\n{program}:', 1
  )
  return (
    f'{description}\nflags:\n{own}\n\n'
    'Try --helpfull to get a list of all flags.'
  )


def _command(word: str) -> list[str]:
  """Returns ['acme-cbo', word], or the launcher of a clone of this project."""
  launcher = provenance.PACKAGE.parent / 'launchers' / f'{word}.py'
  if pathlib.Path(sys.argv[0]).name == PROGRAM or not launcher.exists():
    return [PROGRAM, word]
  return ['python', f'launchers/{word}.py']


def command(word: str) -> str:
  """Returns the shell command that runs another command of this program.

  Args:
    word: Name of the command, such as 'train'.

  Returns:
    'acme-cbo train', or 'python launchers/train.py' where that is how this
    process was started.
  """
  program, argument = _command(word)
  return f'{executable(program)} {argument}'


def output_file(flag: str, value: str) -> pathlib.Path:
  """Returns the path of a file to write, before work is done for it.

  Args:
    flag: Name of the flag that names the file.
    value: Value of the flag.

  Raises:
    errors.UsageError: It is a directory, or its directory does not exist.
  """
  path = pathlib.Path(value)
  if path.is_dir() or not path.parent.is_dir():
    raise errors.UsageError(
      f'--{flag}={value} cannot be written; name a file in an existing '
      'directory'
    )
  return path


def executable(name: str) -> str:
  """Returns the shell command of an executable of this Python environment.

  Args:
    name: Name of the executable, such as 'tensorboard'.

  Returns:
    The name where the shell finds it, else its path.
  """
  path = pathlib.Path(sys.executable).parent / name
  if shutil.which(name) == str(path) or not path.exists():
    return name
  here = pathlib.Path.cwd()
  return shlex.quote(
    str(path.relative_to(here) if here in path.parents else path)
  )


def invocation() -> str:
  """Returns the shell command that this process was started with."""
  program, *arguments = sys.argv
  if pathlib.Path(program).name == PROGRAM:
    return shlex.join([PROGRAM, *arguments])
  return shlex.join(['python', program, *arguments])


def _parse(argv, passes_on):
  try:
    rest = flags.FLAGS(argv, known_only=passes_on)
  except flags.Error as error:
    # The error of a config file contains a traceback, the cause last.
    message = str(error)
    if 'Traceback' in message:
      message = message.strip().splitlines()[-1].removeprefix('ValueError: ')
    _fail(message)
  except (AttributeError, KeyError, TypeError, ValueError) as error:
    # ml_collections raises these where an override names a missing field or has
    # another type; it wraps one exception in another.
    cause = error.args[0] if error.args else error
    message = cause.args[0] if isinstance(cause, Exception) else cause
    _fail(f'cannot override the config: {message}')
  # The log lines of libraries at level INFO would hide ours.
  if flags.FLAGS['verbosity'].using_default_value:
    flags.FLAGS.verbosity = logging.WARNING
  return rest


@contextlib.contextmanager
def _ending_actors() -> Iterator[None]:
  """Ends a failing process although actor threads may hang."""
  try:
    yield
  except BaseException as error:
    names = [thread.name for thread in threading.enumerate()]
    if not any(name.startswith(ACTOR_THREAD) for name in names):
      raise
    code = error.code if isinstance(error, SystemExit) else 1
    if not isinstance(error, SystemExit):
      traceback.print_exception(error)
    logging.flush()
    sys.stdout.flush()
    os._exit(code if isinstance(code, int) else 1)


@contextlib.contextmanager
def _telling_os_errors() -> Iterator[None]:
  """Exits with a sentence at errors that the user can mend."""
  try:
    yield
  except OSError as error:
    if error.errno in _UNUSABLE and error.filename:
      _fail(f'{error.filename} cannot be used: {error.strerror}')
    if error.errno not in _FULL:
      raise
    file = error.filename or 'a file'
    _print(
      [
        f'error: {file} could not be written: {error.strerror}; make room, '
        'and resume',
        *errors.notes(error),
      ]
    )
    sys.exit(1)


def _guard(main, argv, takes_arguments, config_help):
  if len(argv) > 1 and not takes_arguments:
    _fail(f'unexpected argument {argv[1]!r}; flags begin with --')
  try:
    if _CONFIG_HELP.value:
      if config_help is None:
        raise errors.UsageError(
          'this command takes no config of a training; use '
          f'{command("train")} --config_help'
        )
      print(config_help(), flush=True)
      return
    main(argv)
  except errors.UsageError as error:
    _fail(str(error))
  except errors.PeerError as error:
    _print([f'error: {error}', *errors.notes(error)])
    sys.exit(1)
  except errors.Interrupted as error:
    _print([f'interrupted: {error}', *errors.notes(error)])
    sys.exit(128 + error.signal)


def _fail(message: str) -> NoReturn:
  # One line, but for a list of problems.
  lines = [' '.join(part.split()) for part in message.split('\n- ')]
  _print([f'error: {lines[0]}', *(f'- {line}' for line in lines[1:])])
  sys.exit(2)


def _print(lines: Sequence[str]) -> None:
  """Prints lines, which may quote files of others, to standard error."""
  print(*map(text.printable, lines), sep='\n', file=sys.stderr)
