"""Construction of simulators: Python objects or processes, not JAX programs.

A simulator implements `environment.Simulator`. `simulator_pool` steps many
of them at once.
"""

from __future__ import annotations

from collections.abc import Callable
import contextlib
import importlib
import inspect
import reprlib
import shlex

from acme_cbo.environments import config
from acme_cbo.environments import environment
from acme_cbo.environments import problem
from acme_cbo.environments import simulator_process
from acme_cbo.infra import errors


def make_factory(
  settings: config.SimulatorConfig,
) -> Callable[[], environment.Simulator]:
  """Returns the factory of simulators that the configuration selects.

  Args:
    settings: source of the simulators, with one nonempty field.

  Returns:
    Function without arguments that returns a new simulator.

  Raises:
    errors.UsageError: `settings.make` cannot be imported or called without
      arguments, or `settings.command` is not a command.
  """
  if settings.command:
    command = _split(settings.command)
    return lambda: simulator_process.Process(command)
  module, _, name = settings.make.partition(':')
  path = f'config.simulator.make is {settings.make!r}, which'
  try:
    factory = getattr(importlib.import_module(module), name)
  except (ImportError, AttributeError) as error:
    raise errors.UsageError(f'{path} cannot be imported: {error}') from error
  if not callable(factory):
    raise errors.UsageError(
      f'{path} is {reprlib.repr(factory)}; name a function or a class'
    )
  try:
    parameters = inspect.signature(factory)
  except ValueError:  # Some functions written in C have no signature.
    return factory
  try:
    parameters.bind()
  except TypeError as error:
    raise errors.UsageError(
      f'{path} cannot be called without arguments: {error}'
    ) from error
  return factory


def _split(command: str) -> list[str]:
  """Splits a command into the program and its arguments."""
  try:
    words = shlex.split(command)
  except ValueError as error:
    raise errors.UsageError(
      f'config.simulator.command is {command!r}: {error}'
    ) from error
  if not words:
    raise errors.UsageError(
      f'config.simulator.command is {command!r}; it must name a program'
    )
  return words


def matching_factory(
  make: Callable[[], environment.Simulator], first: environment.Simulator
) -> Callable[[], environment.Simulator]:
  """Wraps a factory to check that its simulators match an existing one.

  Args:
    make: factory of simulators.
    first: existing simulator.

  Returns:
    Factory that raises errors.UsageError, and closes the new simulator, if its
    variables, target, goal or domains differ from those of `first`.
  """
  expected = problem.describe(first)

  def make_checked():
    with contextlib.ExitStack() as stack:
      simulator = make()
      stack.callback(close, simulator)
      if (description := problem.describe(simulator)) != expected:
        raise errors.UsageError(
          f'{simulator_process.display_name(simulator)} has the variables, '
          f'target, goal and domains {tuple(description)}, an earlier one had '
          f'{tuple(expected)}; they must be the same for all instances'
        )
      stack.pop_all()  # Keeps the simulator open.
    return simulator

  return make_checked


def close(simulator: environment.Simulator) -> None:
  """Closes a simulator if it has a `close` method."""
  if close_simulator := getattr(simulator, 'close', None):
    close_simulator()
