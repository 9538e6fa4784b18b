"""The `Problem` of a simulator."""

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
  """What may be seen and set of a simulator.

  Args:
    simulator: any one of its kind.
    max_set_size: how many variables may be set at once.

  Returns:
    The `Problem`.

  Raises:
    errors.UsageError: it does not say so, or what it says does not fit.
  """
  names, target, goal, domains = describe(simulator)
  unknown = [name for name in [target, *domains] if name not in names]
  wrong = [name for name, domain in domains.items() if not _is_domain(domain)]
  if unknown:
    said = (
      f'{unknown[0]!r}, its target or a name in its domains, is none of its '
      f'variables, {", ".join(map(repr, names))}'
    )
  elif len(set(names)) < len(names):
    said = 'its variables have a name twice'
  elif goal not in list(_GOALS):
    said = f"its goal is {goal!r}; it must be 'maximize' or 'minimize'"
  elif target in domains:
    said = f'its target {target!r} has a domain, and may not be set'
  elif not domains:
    said = 'none of its variables has a domain, and nothing may be set'
  elif wrong:
    said = (
      f'the domain of {wrong[0]!r} is {domains[wrong[0]]}; it must be two '
      'finite numbers, the lower first'
    )
  else:
    said = ''
  if said:
    raise errors.UsageError(
      f'{simulator_process.display_name(simulator)}: {said}'
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
  """Its variables, target, goal and domains, as they are."""
  try:
    names, target = list(simulator.variables), simulator.target
    return names, target, simulator.goal, dict(simulator.domains)
  except (AttributeError, TypeError, ValueError) as error:
    raise errors.UsageError(
      f'{simulator_process.display_name(simulator)} lacks what every one '
      'has, see '
      f'acme_cbo.environment.Simulator: {error}'
    ) from error


def _is_domain(domain) -> bool:
  """Whether it is two finite numbers, the lower first."""
  try:
    low, high = map(float, domain)
  except (TypeError, ValueError):
    return False
  return -np.inf < low < high < np.inf
