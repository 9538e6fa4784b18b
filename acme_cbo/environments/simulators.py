"""Systems that are no JAX programs: objects of Python, or processes.

A simulator is whatever `environment.Simulator` describes; where they come from
and how many of them play at once is here.
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
  """What makes a simulator.

  Raises:
    errors.UsageError: there is no such function.
  """
  if settings.command:
    return lambda: simulator_process.Process(shlex.split(settings.command))
  module, _, name = settings.make.partition(':')
  try:
    found = getattr(importlib.import_module(module), name)
  except (ImportError, AttributeError, ValueError) as error:
    raise errors.UsageError(
      f'config.simulator.make is {settings.make!r}, which cannot be imported: '
      f'{error}'
    ) from error
  return found


def matching_factory(
  make: Callable[[], environment.Simulator], first: environment.Simulator
) -> Callable[[], environment.Simulator]:
  """Makes simulators that say the same of themselves as the first one.

  Args:
    make: makes one.
    first: that was made before.

  Returns:
    What makes one, and raises errors.UsageError where it is another system.
  """

  def comparable(simulator):
    *rest, domains = problem.describe(simulator)
    return *rest, {name: np.asarray(x).tolist() for name, x in domains.items()}

  expected = comparable(first)

  def checked():
    with contextlib.ExitStack() as unless_alike:
      made = make()
      unless_alike.callback(close, made)
      if (said := comparable(made)) != expected:
        raise errors.UsageError(
          f'{simulator_process.display_name(made)} said that its variables, '
          f'target, goal and domains are {said}, and {expected} when it was '
          'made before; they have to be the same each time'
        )
      unless_alike.pop_all()
    return made

  return checked


def close(simulator: environment.Simulator) -> None:
  """Ends it, where that means anything."""
  if ends := getattr(simulator, 'close', None):
    ends()
