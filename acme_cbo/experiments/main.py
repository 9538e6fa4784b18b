"""The program `acme-cbo`, which runs a command such as `acme-cbo train`.

Every module of `acme_cbo.experiments.commands` is a command: its name is the
word that users type, the first line of its docstring is shown by --help, and
its function `run` parses the flags and runs it.
"""

import ast
from collections.abc import Mapping, Sequence
import importlib
import os
import pathlib
import sys
import textwrap
from typing import NoReturn

from acme_cbo.infra import errors
from acme_cbo.infra import signals
from acme_cbo.infra import version


def main() -> None:
  """Runs the command that the first argument names."""
  word, *rest = sys.argv[1:] or ['--help']
  modules = _modules()
  if word in ('--help', '-h', 'help'):
    with signals.ending_at_closed_pipe():
      print(_usage(modules), flush=True)
  elif word == '--version':
    print(f'acme-cbo {version.__version__}')
  elif word not in modules:
    _fail(word, sorted(modules))
  else:
    # Flags name Python modules of the user, such as --config=...:module:Class.
    sys.path.append(os.getcwd())
    command = importlib.import_module(f'acme_cbo.experiments.commands.{word}')
    command.run([f'acme-cbo {word}', *rest])


def child_command(word: str) -> list[str]:
  """Returns the command line of a command that runs in a child process.

  Args:
    word: Name of the command, such as 'train'.

  Returns:
    The program and its first arguments. `child_process.python_path` must be the
    environment variable PYTHONPATH of the process.
  """
  # -P: the working directory is not searched for the package.
  return [sys.executable, '-P', '-m', 'acme_cbo.experiments.main', word]


def _modules() -> dict[str, pathlib.Path]:
  """Returns {command: its module}; no module is imported."""
  directory = pathlib.Path(__file__).parent / 'commands'
  return {module.stem: module for module in sorted(directory.glob('[!_]*.py'))}


def _usage(modules: Mapping[str, pathlib.Path]) -> str:
  """Returns the help: every command with its purpose."""
  width = max(map(len, modules))
  lines = []
  for word, module in modules.items():
    docstring = ast.get_docstring(ast.parse(module.read_text('utf-8'))) or ''
    lines += textwrap.wrap(
      docstring.partition('\n')[0],
      initial_indent=f'  {word:<{width}}  ',
      subsequent_indent=' ' * (width + 4),
      width=80,
    )
  return '\n'.join(
    [
      'Trains and evaluates policies for causal Bayesian optimization.',
      '',
      'acme-cbo COMMAND --FLAG=VALUE ...',
      '',
      'commands:',
      *lines,
      '',
      'acme-cbo COMMAND --help shows the flags of a command,',
      'acme-cbo --version the version.',
    ]
  )


def _fail(word: str, words: Sequence[str]) -> NoReturn:
  hint = errors.did_you_mean_or_options(word, words)
  print(f'error: there is no command {word!r}{hint}', file=sys.stderr)
  sys.exit(2)


if __name__ == '__main__':
  main()
