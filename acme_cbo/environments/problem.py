"""Problems from names: of simulators, and of a user's own system."""

from __future__ import annotations

import collections
from collections.abc import Collection, Mapping, Sequence, Set
import numbers
import reprlib
from typing import Any, NamedTuple

import numpy as np

from acme_cbo import types
from acme_cbo.environments import environment
from acme_cbo.environments import simulator_process
from acme_cbo.infra import errors
from acme_cbo.scms import intervention_sets
from acme_cbo.scms import interventions

_GOALS = {'maximize': 1.0, 'minimize': -1.0}
# Maximum number of variables that a message names.
_MAX_NAMES = 20
# Largest end of a domain: the width is finite.
_MAX_END = 1e300
# Attributes of a simulator.
_ATTRIBUTES = ('variables', 'target', 'goal', 'domains', 'reset', 'step')


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
  fields: dict[str, Any] = dict(
    exists=np.ones(len(variables), bool),
    sets=sets,
    target=np.array([name == target for name in variables]),
    goal=np.float64(_GOALS[goal]),
    low=low,
    high=high,
    cost=cost,
    budget=np.float64(np.inf if budget is None else budget),
    samples=np.float64(1.0),
  )
  return types.Problem(**fields)


def from_simulator(
  simulator: environment.Simulator, max_set_size: int
) -> types.Problem:
  """Returns the problem of a simulator; see `make`.

  Args:
    simulator: any one of its kind.
    max_set_size: number of variables that one intervention sets at most.

  Raises:
    errors.UsageError: an attribute of the simulator is missing, or wrong.
  """
  return make(*describe(simulator), max_set_size)


class Description(NamedTuple):
  """Description that a simulator gives of itself, as equal types.

  Attributes:
    variables: names of the D variables.
    target: name of the variable to optimize.
    goal: 'maximize' or 'minimize'.
    domains: {variable: (low, high)} of each variable that may be set.
  """

  variables: list[str]
  target: str
  goal: str
  domains: dict[str, tuple[float, float]]


def describe(simulator: environment.Simulator) -> Description:
  """Returns the description of a simulator.

  Args:
    simulator: the simulator.

  Raises:
    errors.UsageError: an attribute of it is missing, or wrong.
  """
  name = simulator_process.display_name(simulator)
  for attribute in _ATTRIBUTES:
    if not hasattr(simulator, attribute):
      raise errors.UsageError(
        f'{name} has no attribute {attribute!r} of '
        'acme_cbo.environments.environment.Simulator'
      )
  variables, domains = simulator.variables, simulator.domains
  if not _is_ordered(variables) or not all(
    isinstance(one, str) for one in variables
  ):
    raise errors.UsageError(
      f'{name}: the variables are {_shown(variables)}; they must be a list of '
      'names'
    )
  variables = [str(one) for one in variables]
  target, goal = simulator.target, simulator.goal
  if message := _description_complaint(variables, target, goal, domains):
    raise errors.UsageError(f'{name}: {message}')
  return Description(
    variables,
    target,
    goal,
    {name: (float(low), float(high)) for name, (low, high) in domains.items()},
  )


def _complaint(
  variables, target, goal, domains, max_set_size, costs, budget
) -> str:
  """Returns what is wrong with the arguments of `make`; empty if nothing is."""
  if message := _description_complaint(variables, target, goal, domains):
    return message
  if message := _named_complaint('cost', costs, variables):
    return message
  if not isinstance(max_set_size, numbers.Integral) or max_set_size < 1:
    return f'max_set_size is {max_set_size!r}; it must be an int of 1 or more'
  for name, cost in costs.items():
    if not _is_positive(cost):
      return f'the cost of {name!r} is {cost!r}; it must be finite and above 0'
  if budget is not None and not _is_positive(budget):
    return f'the budget is {budget!r}; it must be finite and above 0'
  return ''


def _description_complaint(variables, target, goal, domains) -> str:
  """Returns what is wrong with the names and the domains."""
  for name, count in collections.Counter(map(repr, variables)).items():
    if count > 1:
      return f'two variables have the same name, {name}'
  for name in variables:
    if name == '':
      return 'a variable has an empty name'
    if isinstance(name, str) and not name.isprintable():
      return f'the name {name!r} has characters that cannot be shown'
  if target not in list(variables):
    return f'the target is {_is_none_of(target, variables)}'
  if goal not in list(_GOALS):
    return f"the goal is {_shown(goal)}; it must be 'maximize' or 'minimize'"
  if message := _named_complaint('domain', domains, variables):
    return message
  if target in domains:
    return f'the target {target!r} has a domain, but it cannot be set'
  if not domains:
    return 'no variable has a domain, so that none can be set'
  for name, domain in domains.items():
    if not _is_domain(domain):
      return (
        f'the domain of {name!r} is {_shown(domain)}; it must be two numbers '
        f'within ±{_MAX_END:g}, the lower first'
      )
  return ''


def _named_complaint(what: str, named: Any, variables: Sequence[str]) -> str:
  """Returns what is wrong with a dict by variable."""
  if not isinstance(named, Mapping):
    return f'the {what}s are {_shown(named)}; they must be a dict by variable'
  for name in named:
    if name not in variables:
      return f'there is a {what} of {_is_none_of(name, variables)}'
  return ''


def _is_none_of(name: Any, variables: Sequence[str]) -> str:
  """Returns the end of a sentence about a name that is no variable."""
  known = errors.format_list(
    list(map(repr, variables)), _MAX_NAMES, 'more', ', '
  )
  return f'{_shown(name)}, which is none of the variables, {known}'


def _shown(value: Any) -> str:
  """Returns a wrong value for a message, shortened."""
  short = reprlib.Repr()
  short.maxstring = short.maxother = 100
  return short.repr(value)


def _is_ordered(value: Any) -> bool:
  """Returns whether it is a list of some kind: no text, dict or set."""
  return isinstance(value, Collection) and not isinstance(
    value, str | bytes | Mapping | Set
  )


def _is_positive(value) -> bool:
  """Returns whether it is a finite number above 0."""
  return 0 < interventions.to_float(value) < np.inf


def _is_domain(domain) -> bool:
  """Returns whether it is two numbers within the limits, the lower first."""
  if not _is_ordered(domain) or len(domain) != 2:
    return False
  if any(isinstance(end, bool | np.bool_ | complex) for end in domain):
    return False
  low, high = map(interventions.to_float, domain)
  return -_MAX_END <= low < high <= _MAX_END
