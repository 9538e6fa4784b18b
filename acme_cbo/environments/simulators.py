"""Construction of simulators: Python objects or processes, not JAX programs.

A simulator implements `environment.Simulator`. `simulator_pool` steps many
of them at once.
"""

from __future__ import annotations

from collections.abc import Callable
import contextlib
import importlib
import shlex

import numpy as np

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
    errors.UsageError: `settings.make` cannot be imported.
  """
  if settings.command:
    return lambda: simulator_process.Process(shlex.split(settings.command))
  module, _, name = settings.make.partition(':')
  try:
    factory = getattr(importlib.import_module(module), name)
  except (ImportError, AttributeError, ValueError) as error:
    raise errors.UsageError(
      f'config.simulator.make is {settings.make!r}, which cannot be imported: '
      f'{error}'
    ) from error
  return factory


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

  def comparable(simulator):
    *rest, domains = problem.describe(simulator)
    return *rest, {name: np.asarray(x).tolist() for name, x in domains.items()}

  expected = comparable(first)

  def make_checked():
    with contextlib.ExitStack() as stack:
      simulator = make()
      stack.callback(close, simulator)
      if (description := comparable(simulator)) != expected:
        raise errors.UsageError(
          f'{simulator_process.display_name(simulator)} has the variables, '
          f'target, goal and domains {description}, an earlier one had '
          f'{expected}; they must be the same for all instances'
        )
      stack.pop_all()  # Keeps the simulator open.
    return simulator

  return make_checked


def close(simulator: environment.Simulator) -> None:
  """Closes a simulator if it has a `close` method."""
  if close_simulator := getattr(simulator, 'close', None):
    close_simulator()
