"""Conversion of a simulator's description to a `Problem`."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from acme_cbo import types
from acme_cbo.environments import environment
from acme_cbo.environments import simulator_process
from acme_cbo.infra import errors
from acme_cbo.scms import intervention_sets

_GOALS = {'maximize': 1.0, 'minimize': -1.0}


def from_simulator(
  simulator: environment.Simulator, max_set_size: int
) -> types.Problem:
  """Builds the problem that a simulator describes.

  Args:
    simulator: the simulator.
    max_set_size: maximum number of variables that are set together.

  Returns:
    The `Problem`, in the variables' own units.

  Raises:
    errors.UsageError: an attribute of the simulator is missing or invalid.
  """
  names, target, goal, domains = describe(simulator)
  unknown = [name for name in [target, *domains] if name not in names]
  invalid = [name for name, domain in domains.items() if not _is_domain(domain)]
  if unknown:
    message = (
      f'{unknown[0]!r} is its target or has a domain, but is not one of its '
      f'variables, {", ".join(map(repr, names))}'
    )
  elif len(set(names)) < len(names):
    message = 'its variables contain a name twice; use unique names'
  elif goal not in list(_GOALS):
    message = f"its goal is {goal!r}; it must be 'maximize' or 'minimize'"
  elif target in domains:
    message = f'its target {target!r} has a domain, but may not be set'
  elif not domains:
    message = 'its domains are empty; at least one variable needs a domain'
  elif invalid:
    message = (
      f'the domain of {invalid[0]!r} is {domains[invalid[0]]}; it must be two '
      'finite numbers, the lower first'
    )
  else:
    message = ''
  if message:
    raise errors.UsageError(
      f'{simulator_process.display_name(simulator)}: {message}'
    )
  settable = np.array([name in domains for name in names])
  low, high = (
    np.array([domains.get(name, (0.0, 0.0))[i] for name in names], np.float32)
    for i in (0, 1)
  )
  size = len(names)
  return types.Problem(
    exists=jnp.ones(size, bool),
    sets=jnp.asarray(intervention_sets.subsets(settable, max_set_size)),
    target=jnp.array([name == target for name in names]),
    goal=jnp.float32(_GOALS[goal]),
    low=jnp.asarray(low),
    high=jnp.asarray(high),
    cost=jnp.ones(size),
    budget=jnp.float32(jnp.inf),
    samples=jnp.float32(1.0),
  )


def describe(simulator: environment.Simulator):
  """Returns the variables, target, goal and domains of a simulator, unchecked.

  Args:
    simulator: the simulator.

  Returns:
    List of variables, target, goal, and dictionary of domains.

  Raises:
    errors.UsageError: an attribute is missing or has the wrong type.
  """
  try:
    names, target = list(simulator.variables), simulator.target
    return names, target, simulator.goal, dict(simulator.domains)
  except (AttributeError, TypeError, ValueError) as error:
    raise errors.UsageError(
      f'{simulator_process.display_name(simulator)} does not implement '
      f'acme_cbo.environments.environment.Simulator: {error}'
    ) from error


def _is_domain(domain) -> bool:
  """Returns whether a value is two finite numbers, the lower first."""
  try:
    low, high = map(float, domain)
  except (TypeError, ValueError):
    return False
  return -np.inf < low < high < np.inf
