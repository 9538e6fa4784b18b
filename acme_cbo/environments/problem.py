"""Problems from names: of simulators, and of a user's own system."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import numbers

import jax
import jax.numpy as jnp
import numpy as np

from acme_cbo import types
from acme_cbo.environments import environment
from acme_cbo.environments import simulator_process
from acme_cbo.infra import errors
from acme_cbo.scms import intervention_sets
from acme_cbo.scms import interventions

_GOALS = {'maximize': 1.0, 'minimize': -1.0}


def make(
  variables: Sequence[str],
  target: str,
  goal: str,
  domains: Mapping[str, Sequence[float]],
  max_set_size: int,
  costs: Mapping[str, float] | None = None,
  budget: float | None = None,
) -> types.Problem:
  """Makes a problem from names.

  Args:
    variables: names of the D variables.
    target: name of the variable to optimize.
    goal: 'maximize' or 'minimize'.
    domains: {variable: (low, high)} of each variable that may be set.
    max_set_size: number of variables that one intervention sets at most.
    costs: {variable: cost of setting it once}; 1 where it is left out.
    budget: maximum total cost of all interventions; None is unlimited.

  Returns:
    The `Problem`, of numpy arrays in float64.

  Raises:
    errors.UsageError: an argument is wrong, or does not fit the others.
  """
  costs = {} if costs is None else costs
  if message := _complaint(
    variables, target, goal, domains, max_set_size, costs, budget
  ):
    raise errors.UsageError(message)
  settable = np.array([name in domains for name in variables])
  sets = intervention_sets.subsets(settable, max_set_size)
  cost = np.array([float(costs.get(name, 1.0)) for name in variables])
  if budget is not None and not intervention_sets.is_within_budget(
    budget, (cheapest := (sets @ cost).min())
  ):
    raise errors.UsageError(
      f'the budget is {budget}; the cheapest intervention costs {cheapest:g}'
    )
  low, high = (
    np.array([float(domains.get(name, (0, 0))[i]) for name in variables])
    for i in (0, 1)
  )
  return types.Problem._make(
    (
      np.ones(len(variables), bool),
      sets,
      np.array([name == target for name in variables]),
      np.float64(_GOALS[goal]),
      low,
      high,
      cost,
      np.float64(np.inf if budget is None else budget),
      np.float64(1.0),
    )
  )


def from_simulator(
  simulator: environment.Simulator, max_set_size: int
) -> types.Problem:
  """Returns the problem of a simulator, of jax arrays.

  Args:
    simulator: any one of its kind.
    max_set_size: number of variables that one intervention sets at most.

  Raises:
    errors.UsageError: an attribute of the simulator is missing, or wrong.
  """
  description = describe(simulator)
  try:
    problem = make(*description, max_set_size)
  except errors.UsageError as error:
    raise errors.UsageError(
      f'{simulator_process.display_name(simulator)}: {error}'
    ) from error
  return jax.tree.map(jnp.asarray, problem)


def _complaint(
  variables, target, goal, domains, max_set_size, costs, budget
) -> str:
  """Returns what is wrong with the arguments of `make`; empty if nothing is."""
  for name in variables:
    if variables.count(name) > 1:
      return f'two variables have the same name, {name!r}'
  for what, named in (('domains', domains), ('costs', costs)):
    if not isinstance(named, Mapping):
      return f'the {what} are {named!r}; they must be a dict by variable'
  for what, names in (
    ('the target is', [target]),
    ('there is a domain of', domains),
    ('there is a cost of', costs),
  ):
    for name in names:
      if name not in variables:
        return (
          f'{what} {name!r}, which is none of the variables, '
          f'{", ".join(map(repr, variables))}'
        )
  if goal not in list(_GOALS):
    return f"the goal is {goal!r}; it must be 'maximize' or 'minimize'"
  if target in domains:
    return f'the target {target!r} has a domain, but it cannot be set'
  if not domains:
    return 'no variable has a domain, so that none can be set'
  for name, domain in domains.items():
    if not _is_domain(domain):
      return (
        f'the domain of {name!r} is {domain}; it must be two finite numbers, '
        'the lower first'
      )
  if not isinstance(max_set_size, numbers.Integral) or max_set_size < 1:
    return f'max_set_size is {max_set_size!r}; it must be an int of 1 or more'
  for name, cost in costs.items():
    if not _is_positive(cost):
      return f'the cost of {name!r} is {cost!r}; it must be finite and above 0'
  if budget is not None and not _is_positive(budget):
    return f'the budget is {budget!r}; it must be finite and above 0'
  return ''


def describe(simulator: environment.Simulator):
  """Returns its variables, target, goal and domains, unchecked.

  Raises:
    errors.UsageError: one of them is missing.
  """
  try:
    names, target = list(simulator.variables), simulator.target
    return names, target, simulator.goal, dict(simulator.domains)
  except (AttributeError, TypeError, ValueError) as error:
    raise errors.UsageError(
      f'{simulator_process.display_name(simulator)} lacks an attribute of '
      f'acme_cbo.environments.environment.Simulator: {error}'
    ) from error


def _is_positive(value) -> bool:
  """Returns whether it is a finite number above 0."""
  return 0 < interventions.to_float(value) < np.inf


def _is_domain(domain) -> bool:
  """Returns whether it is two finite numbers, the lower first."""
  try:
    low, high = map(interventions.to_float, domain)
  except (TypeError, ValueError):
    return False
  return -np.inf < low < high < np.inf
