"""Interventions that a study allows: domains, steps, sets and constraints."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
import dataclasses
import itertools
import math
import numbers
from typing import Any

import numpy as np

from acme_cbo.infra import errors
from acme_cbo.study import constraints as constraints_lib
from acme_cbo.study import digits
from acme_cbo.study import feasibility
from acme_cbo.study import variables as variables_lib

_MAX_SETS = 5_000
_MAX_ALL = 10
_MAX_DRAWS = 20
# Distance in shares of the domains below which experiments set the same.
SAME = 0.02


@dataclasses.dataclass(frozen=True)
class Space:
  """The interventions that are allowed.

  A constraint concerns interventions that set all of its variables. One that
  sets only some of them is not allowed, because what the others would be is not
  known.

  Attributes:
    variables: the variables that may be set.
    sets: the sets of names that may be set together.
    constraints: the linear constraints.
  """

  variables: Mapping[str, variables_lib.Variable]
  sets: tuple[frozenset[str], ...]
  constraints: tuple[constraints_lib.Constraint, ...] = ()

  @property
  def sets_all(self) -> bool:
    """Whether every intervention sets all variables."""
    return self.sets == (frozenset(self.variables),)

  def complaint(self, do: Mapping[str, float]) -> str:
    """Returns why an intervention is not allowed; '' if it is.

    Args:
      do: {variable: value}.
    """
    if message := self._name_complaint(do):
      return message
    for name, value in do.items():
      if not self.variables[name].allows(value):
        return (
          f'{name!r} is set to {digits.exact(value)}; it must be '
          f'{self.variables[name].describe()}'
        )
    if frozenset(do) not in self.sets:
      for constraint in self.constraints:
        missing = constraint.coefficients.keys() - do.keys()
        if missing and missing != constraint.coefficients.keys():
          return (
            f'{_listed(do)} cannot be set without {_listed(missing)}: the '
            f'constraint {constraint.text!r} concerns them together'
          )
      return f'{_listed(do)} may not be set together'
    for constraint in self._constraints_of(do):
      if not constraint.is_satisfied(do):
        return f'the constraint {constraint.text!r} is violated'
    return ''

  def nearest(
    self, do: Mapping[str, float], fixed: Collection[str] = ()
  ) -> dict[str, float] | None:
    """Returns the nearest allowed intervention on the same variables.

    Every value moves to the nearest allowed one. If that violates a constraint,
    mixed-integer linear programming finds the values whose largest distance, as
    a share of the domain, is the smallest.

    Args:
      do: {variable: value}; the variables are one of `sets`.
      fixed: variables whose value has to stay; it is allowed.

    Returns:
      {variable: value}, or None if the constraints leave no values.
    """
    values = {
      name: float(value)
      if name in fixed
      else self.variables[name].nearest(value)
      for name, value in do.items()
    }
    constraints = self._constraints_of(do)
    if all(constraint.is_satisfied(values) for constraint in constraints):
      return values
    involved = {name for one in constraints for name in one.coefficients}
    moved = feasibility.nearest(
      [self.variables[name] for name in do if name in involved],
      constraints,
      do,
      frozenset(fixed),
    )
    return None if moved is None else values | moved

  def has(self, do: Mapping[str, float]) -> bool:
    """Returns whether an intervention is allowed, as far as can be carried out.

    What was set may differ a little from what was asked for.

    Args:
      do: {variable: value}.
    """
    if frozenset(do) not in self.sets:
      return False
    allowed = self.nearest(do)
    return allowed is not None and self.distance(allowed, do) <= SAME

  def distance(
    self, do: Mapping[str, float], other: Mapping[str, float]
  ) -> float:
    """Returns the distance of two interventions.

    Args:
      do: {variable: value}.
      other: {variable: value}.

    Returns:
      The largest difference of a variable in shares of its domain, or infinity
      where they set other variables, or one that may not be set.
    """
    if do.keys() != other.keys() or not do.keys() <= self.variables.keys():
      return math.inf
    return max(
      abs(value - other[name])
      / (self.variables[name].high - self.variables[name].low)
      for name, value in do.items()
    )

  def sample(
    self, rng: np.random.Generator, number: int
  ) -> list[dict[str, float]]:
    """Draws allowed interventions: a set, then values between its ends.

    Args:
      rng: source of randomness.
      number: number of interventions; it may be fewer where constraints leave
        nearly nothing.
    """
    drawn: list[dict[str, float]] = []
    for _ in range(_MAX_DRAWS * number):
      if len(drawn) == number:
        break
      names = self.sets[rng.integers(len(self.sets))]
      do = self.nearest(
        {
          name: rng.uniform(one.low, one.high)
          for name, one in self.variables.items()
          if name in names
        }
      )
      if do is not None:
        drawn.append(do)
    return drawn

  def _constraints_of(
    self, do: Collection[str]
  ) -> list[constraints_lib.Constraint]:
    """Returns the constraints that concern an intervention."""
    return [one for one in self.constraints if one.coefficients.keys() <= {*do}]

  def _name_complaint(self, do: Mapping[str, float]) -> str:
    if not do:
      return 'the intervention sets no variable; set at least one'
    for name in do:
      if name not in self.variables:
        hint = errors.did_you_mean_or_options(str(name), [*self.variables])
        return f'{name!r} is no variable that may be set{hint}'
    return ''


def parse(
  variables: Mapping[str, Any],
  allowed: Any = None,
  constraints: Sequence[str] = (),
) -> Space:
  """Makes a space from its description.

  Args:
    variables: {name: settings} of the variables that may be set. Settings are
      `domain`, (low, high); with it, optionally, `step`; or instead of both
      `values`, a list of numbers or `[False, True]`; and `cost`, 1 where it is
      left out.
    allowed: which variables may be set together: `{'max_size': 2}`,
      `{'sets': [['a'], ['a', 'b']]}`, or 'all', all of them every time; one at
      a time where it is left out.
    constraints: linear constraints such as '2*a + b <= 10'. Names with spaces
      or signs stand between backticks.

  Returns:
    The `Space`.

  Raises:
    errors.UsageError: a setting is wrong, or no values satisfy the
      constraints.
  """
  if not isinstance(variables, Mapping) or not variables:
    raise errors.UsageError(
      f'the variables are {variables!r}; they must be a dict of those that may '
      "be set, such as {'temperature': {'domain': (20, 40)}}"
    )
  settable = {
    name: variables_lib.parse(name, s) for name, s in variables.items()
  }
  if isinstance(constraints, str) or not isinstance(constraints, Sequence):
    raise errors.UsageError(
      f'the constraints are {constraints!r}; they must be a list of texts'
    )
  parsed = tuple(
    one for text in constraints for one in constraints_lib.parse(text, settable)
  )
  sets = _sets(allowed, settable, parsed)
  space = Space(settable, sets, parsed)
  for names in {
    frozenset(
      name for one in space._constraints_of(s) for name in one.coefficients
    )
    for s in sets
  } - {frozenset()}:
    middle = {
      name: (settable[name].low + settable[name].high) / 2 for name in names
    }
    if space.nearest(middle) is None:
      texts = [repr(one.text) for one in space._constraints_of(names)]
      raise errors.UsageError(
        f'no allowed values of {_listed(names)} satisfy {" and ".join(texts)}'
      )
  return space


def _sets(
  allowed: Any,
  variables: Mapping[str, variables_lib.Variable],
  constraints: Sequence[constraints_lib.Constraint],
) -> tuple[frozenset[str], ...]:
  """Returns the sets of variables that may be set together."""

  def broken(names: frozenset[str]) -> constraints_lib.Constraint | None:
    """Returns a constraint that concerns some, but not all of the names."""
    for one in constraints:
      concerned = one.coefficients.keys() & names
      if concerned and concerned != one.coefficients.keys():
        return one
    return None

  if allowed is None:
    allowed = {'max_size': 1}
  if allowed == 'all':
    if len(variables) > _MAX_ALL:
      raise errors.UsageError(
        f'interventions on all {len(variables)} variables at once; at most '
        f'{_MAX_ALL} are supported'
      )
    return (frozenset(variables),)
  if isinstance(allowed, Mapping) and [*allowed] == ['max_size']:
    size = allowed['max_size']
    if (
      not isinstance(size, numbers.Integral)
      or isinstance(size, bool)
      or (size < 1)
    ):
      raise errors.UsageError(
        f'interventions: max_size is {size!r}; it must be an int of 1 or more'
      )
    size = min(int(size), len(variables))
    number = sum(math.comb(len(variables), k) for k in range(1, size + 1))
    if number > _MAX_SETS:
      raise errors.UsageError(
        f'interventions: there are {number:,} sets of up to {size} out of '
        f'{len(variables)} variables; at most {_MAX_SETS:,} are supported: '
        'lower max_size, or list the sets'
      )
    sets = [
      frozenset(names)
      for k in range(1, size + 1)
      for names in itertools.combinations(variables, k)
    ]
    kept = tuple(names for names in sets if not broken(names))
    unused = variables.keys() - frozenset().union(*kept)
    if unused:
      one = broken(frozenset(unused)) or next(
        c for c in constraints if c.coefficients.keys() & unused
      )
      raise errors.UsageError(
        f'interventions: the constraint {one.text!r} concerns '
        f'{len(one.coefficients)} variables, which have to be set together, '
        f'and max_size is {size}; raise max_size'
      )
    return kept
  if isinstance(allowed, Mapping) and [*allowed] == ['sets']:
    return _listed_sets(allowed['sets'], variables, broken)
  raise errors.UsageError(
    f"interventions are {allowed!r}; they must be {{'max_size': 2}}, "
    "{'sets': [['a'], ['a', 'b']]} or 'all'"
  )


def _listed_sets(listed, variables, broken) -> tuple[frozenset[str], ...]:
  """Returns the sets of a list of lists of names."""
  is_list = isinstance(listed, Sequence) and not isinstance(listed, str)
  if not is_list or not 1 <= len(listed) <= _MAX_SETS:
    raise errors.UsageError(
      f'interventions: the sets are {listed!r}; they must be 1 to '
      f"{_MAX_SETS:,} lists of names, such as [['a'], ['a', 'b']]"
    )
  sets: dict[frozenset[str], None] = {}
  for names in listed:
    if isinstance(names, str) or not isinstance(names, Collection) or not names:
      raise errors.UsageError(
        f'interventions: the set {names!r} must be a list of names'
      )
    for name in names:
      if name not in variables:
        hint = errors.did_you_mean_or_options(str(name), [*variables])
        raise errors.UsageError(
          f'interventions: {name!r} is no variable that may be set{hint}'
        )
    if one := broken(frozenset(names)):
      raise errors.UsageError(
        f'interventions: the set of {_listed(names)} has only some of the '
        f'variables of the constraint {one.text!r}; add the others'
      )
    sets[frozenset(names)] = None
  return tuple(sets)


def _listed(names: Collection[str]) -> str:
  return ', '.join(map(repr, sorted(names)))
