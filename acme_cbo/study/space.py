"""Interventions that a study allows: domains, steps, sets and constraints."""

from __future__ import annotations

import ast
from collections.abc import Collection, Mapping, Sequence
import dataclasses
import itertools
import math
import numbers
import re
from typing import Any

import numpy as np
from scipy import optimize

from acme_cbo.infra import errors
from acme_cbo.scms import interventions
from acme_cbo.study import digits

# Keys of the settings of a variable.
_KEYS = ('domain', 'step', 'values', 'cost')
# Largest end of a domain; its width is finite.
_MAX_END = 1e300
_MAX_VALUES = 1_000
_MAX_STEPS = 10**9
_MAX_SETS = 5_000
_MAX_ALL = 10
_MAX_DRAWS = 20
# Share of the sizes of its terms up to which a constraint may be violated, and
# of a step up to which a value may miss its grid, by rounding.
_SLACK = 1e-9
# Distance in shares of the domains below which experiments set the same.
SAME = 0.02
# Smallest tolerance of the solver of linear programs.
_TOLERANCE = 1e-10
_MAX_SECONDS = 10.0
# Smallest width of a domain, as a share of its ends.
_MIN_WIDTH = 1e-12
# The same of a step: a value of the grid has 15 digits.
_MIN_STEP = 1e-13

_MAX_LENGTH = 1_000
# Numbers, which stay, or names.
_NAME = re.compile(
  r'(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|`(?P<quoted>[^`]+)`'
  r'|(?P<name>[^\W\d]\w*)'
)


@dataclasses.dataclass(frozen=True)
class Variable:
  """A variable that may be set.

  Attributes:
    name: its name.
    low: lowest value.
    high: highest value.
    step: distance between neighboring values, counted from `low`; None where
      all values between the ends are allowed, or those of `values`.
    values: the allowed values in ascending order, or None.
    is_bool: whether the values are False and True, as 0 and 1.
    cost: cost of setting it once.
  """

  name: str
  low: float
  high: float
  step: float | None = None
  values: tuple[float, ...] | None = None
  is_bool: bool = False
  cost: float = 1.0

  def nearest(self, value: float) -> float:
    """Returns the allowed value that is nearest to a value."""
    if self.values is not None:
      return min(self.values, key=lambda allowed: abs(allowed - value))
    value = min(max(value, self.low), self.high)
    if self.step is None:
      return value
    # 15 digits are free of the rounding of a product: 0.3, not 3 * 0.1.
    k = round((value - self.low) / self.step)
    return min(float(f'{self.low + k * self.step:.15g}'), self.high)

  def allows(self, value: float) -> bool:
    """Returns whether a value is allowed, up to rounding."""
    if not math.isfinite(value):
      return False
    size = max(abs(self.low), abs(self.high))
    tolerance = _SLACK * (self.step or 0.0) + 4 * np.spacing(size)
    return abs(self.nearest(value) - value) <= tolerance

  def format(self, value: float) -> str:
    """Returns a value as text, with as many digits as can be set."""
    if self.is_bool and value in (0, 1):
      return str(bool(value))
    if self.values is not None or self.step is not None:
      return digits.exact(value)
    return digits.of_range(value, self.high - self.low)

  def describe(self) -> str:
    """Returns the allowed values in words, for messages."""
    if self.is_bool:
      return 'False or True'
    if self.values is not None:
      shown = [digits.exact(value) for value in self.values]
      return f'one of {errors.format_list(shown, 10, "more", ", ")}'
    low, high = map(digits.exact, (self.low, self.high))
    steps = ''
    if self.step is not None:
      steps = f' in steps of {digits.exact(self.step)}'
    return f'between {low} and {high}{steps}'


@dataclasses.dataclass(frozen=True)
class Constraint:
  """A linear constraint: the sum of coefficients times values, and a bound.

  Attributes:
    text: the constraint as it was written.
    coefficients: {variable: coefficient}.
    is_equality: whether the sum has to equal the bound; otherwise it has to be
      at most the bound.
    bound: the bound.
    slack: excess that counts as rounding.
  """

  text: str
  coefficients: Mapping[str, float]
  is_equality: bool
  bound: float
  slack: float

  def is_satisfied(self, values: Mapping[str, float]) -> bool:
    """Returns whether values of all its variables satisfy it."""
    excess = self.bound - math.fsum(
      c * values[name] for name, c in self.coefficients.items()
    )
    return (
      abs(excess) <= self.slack if self.is_equality else (-excess <= self.slack)
    )


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

  variables: Mapping[str, Variable]
  sets: tuple[frozenset[str], ...]
  constraints: tuple[Constraint, ...] = ()

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
    moved = _nearest_feasible(
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

  def _constraints_of(self, do: Collection[str]) -> list[Constraint]:
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
  settable = {name: _variable(name, s) for name, s in variables.items()}
  if isinstance(constraints, str) or not isinstance(constraints, Sequence):
    raise errors.UsageError(
      f'the constraints are {constraints!r}; they must be a list of texts'
    )
  parsed = tuple(
    one for text in constraints for one in _constraint(text, settable)
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


def _variable(name: Any, settings: Any) -> Variable:
  """Returns a variable from its settings."""
  if not isinstance(name, str) or not name.strip() or not name.isprintable():
    raise errors.UsageError(
      f'a variable has the name {name!r}; it must be a text that can be shown'
    )
  where = f'variable {name!r}'
  if not isinstance(settings, Mapping):
    raise errors.UsageError(
      f"{where} is {settings!r}; it must be a dict such as {{'domain': (0, 1)}}"
    )
  for key in settings:
    if key not in _KEYS:
      hint = errors.did_you_mean_or_options(str(key), _KEYS)
      raise errors.UsageError(f'{where} has the setting {key!r}{hint}')
  cost = settings.get('cost', 1.0)
  if not 0 < interventions.to_float(cost) < math.inf:
    raise errors.UsageError(
      f'{where}: the cost is {cost!r}; it must be finite and above 0'
    )
  if 'values' in settings:
    if settings.keys() & {'domain', 'step'}:
      raise errors.UsageError(
        f'{where} has values beside a domain or a step; give one or the other'
      )
    values, is_bool = _values(where, settings['values'])
    return Variable(
      name,
      values[0],
      values[-1],
      values=values,
      is_bool=is_bool,
      cost=float(cost),
    )
  if 'domain' not in settings:
    raise errors.UsageError(f'{where} has neither a domain nor values')
  low, high = _domain(where, settings['domain'])
  step = settings.get('step')
  if step is None:
    return Variable(name, low, high, cost=float(cost))
  size = interventions.to_float(step)
  if not 0 < size <= (high - low) * (1 + _SLACK) or isinstance(step, bool):
    raise errors.UsageError(
      f'{where}: the step is {step!r}; it must be above 0 and at most '
      f'{high - low:g}, the width of the domain'
    )
  count = math.floor((high - low) / size * (1 + _SLACK) + _SLACK)
  if count > _MAX_STEPS:
    raise errors.UsageError(
      f'{where}: the domain has {count:,} steps; leave the step out'
    )
  # The last value of the grid, which the domain may exceed.
  last = min(float(f'{low + count * size:.15g}'), high)
  if size < _MIN_STEP * max(abs(low), abs(high)):
    raise errors.UsageError(
      f'{where}: the step {step!r} is too small for the digits of the domain'
    )
  return Variable(name, low, last, step=size, cost=float(cost))


def _domain(where: str, domain: Any) -> tuple[float, float]:
  """Returns the ends of a domain."""
  ends = list(domain) if isinstance(domain, Sequence | np.ndarray) else []
  if (
    len(ends) != 2
    or any(isinstance(end, bool | np.bool_) for end in ends)
    or not -_MAX_END
    <= (low := interventions.to_float(ends[0]))
    < (high := interventions.to_float(ends[1]))
    <= _MAX_END
  ):
    raise errors.UsageError(
      f'{where}: the domain is {domain!r}; it must be two numbers within '
      f'±{_MAX_END:g}, the lower first'
    )
  if high - low < _MIN_WIDTH * max(abs(low), abs(high)):
    raise errors.UsageError(
      f'{where}: the domain {domain!r} is too narrow for its digits; subtract '
      'a constant from the variable'
    )
  return low, high


def _values(where: str, values: Any) -> tuple[tuple[float, ...], bool]:
  """Returns the allowed values in ascending order, and whether all are bool."""
  listed = list(values) if isinstance(values, Sequence | np.ndarray) else []
  if isinstance(values, str):
    listed = []
  are_bool = [isinstance(value, bool | np.bool_) for value in listed]
  if (
    any(isinstance(value, str) for value in listed)
    or any(are_bool) != all(are_bool)
    or not 2 <= len(listed) <= _MAX_VALUES
    or not all(
      abs(interventions.to_float(value)) <= _MAX_END for value in listed
    )
    or len({float(value) for value in listed}) < len(listed)
  ):
    categories = (
      '; unordered categories are not supported: give an order by numbers, or '
      'run a study for each of them'
      if any(isinstance(value, str) for value in listed)
      else ''
    )
    raise errors.UsageError(
      f'{where}: the values are {values!r}; they must be a list of 2 to '
      f'{_MAX_VALUES:,} different numbers, or of False and True{categories}'
    )
  return tuple(sorted(map(float, listed))), all(are_bool)


def _sets(
  allowed: Any,
  variables: Mapping[str, Variable],
  constraints: Sequence[Constraint],
) -> tuple[frozenset[str], ...]:
  """Returns the sets of variables that may be set together."""

  def broken(names: frozenset[str]) -> Constraint | None:
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


def _constraint(
  text: Any, variables: Mapping[str, Variable]
) -> list[Constraint]:
  """Returns the linear constraints that a text such as '0 <= a - b <= 1' has.

  Python's parser reads it, after names were replaced by placeholders; nothing
  is evaluated as Python.
  """
  if not isinstance(text, str) or len(text) > _MAX_LENGTH:
    raise errors.UsageError(
      f'the constraint {text!r} must be a text of at most {_MAX_LENGTH:,} '
      "characters, such as '2*a + b <= 10'"
    )
  where = f'the constraint {text!r}'
  names: list[str] = []

  def placeholder(match: re.Match) -> str:
    name = match['quoted'] or match['name']
    if not name:
      return match[0]
    if name not in variables:
      hint = errors.did_you_mean_or_options(name, [*variables])
      if not all(map(str.isidentifier, variables)):
        hint += '; write names with spaces or signs between backticks (`)'
      raise errors.UsageError(
        f'{where}: {name!r} is no variable that may be set{hint}'
      )
    names.append(name)
    return f'_{len(names) - 1}'

  # A single = is read as ==.
  plain = re.sub(r'(?<![<>=!])=(?!=)', '==', _NAME.sub(placeholder, text))
  try:
    tree = ast.parse(plain.strip(), mode='eval').body
    if not isinstance(tree, ast.Compare):
      raise errors.UsageError(f'{where} has none of <=, >= and =')
    sums = [
      _linear(node, names, where) for node in (tree.left, *tree.comparators)
    ]
  except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
    if isinstance(error, errors.UsageError):
      raise
    raise errors.UsageError(
      f'{where} cannot be read; write sums of numbers times variables, with '
      '<=, >= or = between them, and names with spaces or signs between '
      'backticks (`)'
    ) from error
  return [
    _comparison(text, where, relation, left, right, variables)
    for relation, left, right in zip(tree.ops, sums[:-1], sums[1:], strict=True)
  ]


def _comparison(
  text: str,
  where: str,
  relation: ast.cmpop,
  left: Mapping[str, float],
  right: Mapping[str, float],
  variables: Mapping[str, Variable],
) -> Constraint:
  """Returns the constraint between two sums; '' is the key of a constant."""
  if not isinstance(relation, ast.LtE | ast.GtE | ast.Eq):
    raise errors.UsageError(
      f'{where} has a relation other than <=, >= and =; write one of these'
    )
  sign = -1.0 if isinstance(relation, ast.GtE) else 1.0
  total = {
    name: sign * (left.get(name, 0.0) - right.get(name, 0.0))
    for name in {**left, **right}
  }
  bound = -total.pop('', 0.0)
  total = {name: value for name, value in total.items() if value}
  if not total:
    raise errors.UsageError(f'{where} compares no variable')
  if not all(map(math.isfinite, (bound, *total.values()))):
    raise errors.UsageError(f'{where} has a number that is too large')
  sizes = [
    abs(c) * max(abs(variables[name].low), abs(variables[name].high))
    for name, c in total.items()
  ]
  slack = _SLACK * max(abs(bound), *sizes)
  return Constraint(text, total, isinstance(relation, ast.Eq), bound, slack)


def _linear(
  node: ast.expr, names: Sequence[str], where: str
) -> dict[str, float]:
  """Returns {name: coefficient} of a linear expression; '' is the constant."""
  match node:
    case ast.Constant(value=int() | float() as number) if not isinstance(
      number, bool
    ):
      return {'': float(number)}
    case ast.Name(id=placeholder):
      return {names[int(placeholder[1:])]: 1.0}
    case ast.UnaryOp(op=ast.UAdd() | ast.USub() as sign, operand=operand):
      factor = -1.0 if isinstance(sign, ast.USub) else 1.0
      return _scaled(_linear(operand, names, where), factor)
    case ast.BinOp(left=left, op=operation, right=right):
      a, b = (_linear(side, names, where) for side in (left, right))
      if isinstance(operation, ast.Sub):
        b, operation = _scaled(b, -1.0), ast.Add()
      if isinstance(operation, ast.Add):
        return {
          name: a.get(name, 0.0) + b.get(name, 0.0) for name in {**a, **b}
        }
      if isinstance(operation, ast.Mult) and [*a] == ['']:
        a, b = b, a
      if isinstance(operation, ast.Mult | ast.Div) and [*b] == ['']:
        if isinstance(operation, ast.Mult):
          return _scaled(a, b[''])
        if b['']:
          return _scaled(a, 1 / b[''])
        raise errors.UsageError(f'{where} divides by 0')
  raise errors.UsageError(
    f'{where} is not linear; write sums of numbers times variables, such as '
    "'2*a + b'"
  )


def _scaled(terms: Mapping[str, float], factor: float) -> dict[str, float]:
  return {name: factor * value for name, value in terms.items()}


class _Program:
  """A mixed-integer linear program; its unknowns are columns of a matrix."""

  def __init__(self):
    self._columns: list[tuple[float, float, float, bool]] = []
    self._at_most: list[tuple[dict[int, float], float]] = []
    self._equal: list[tuple[dict[int, float], float]] = []

  def add(self, low: float, high: float, cost=0.0, is_whole=False) -> int:
    """Adds an unknown between two ends; returns its column."""
    self._columns.append((low, high, cost, is_whole))
    return len(self._columns) - 1

  def at_most(self, terms: dict[int, float], bound: float) -> None:
    """Bounds a sum of {column: coefficient}."""
    self._at_most.append((terms, bound))

  def equal(self, terms: dict[int, float], bound: float) -> None:
    """Fixes a sum of {column: coefficient}."""
    self._equal.append((terms, bound))

  def solve(self) -> np.ndarray | None:
    """Returns the values of the unknowns with the least cost, or None."""
    low, high, cost, is_whole = map(np.array, zip(*self._columns, strict=True))
    solution = self._solve(low, high, cost, is_whole)
    if solution is None or not is_whole.any():
      return solution
    # The solver's whole numbers are whole up to a tolerance, which the other
    # unknowns make up for; with exact ones they are exact too.
    rounded = np.round(solution)
    low, high = (np.where(is_whole, rounded, end) for end in (low, high))
    return self._solve(low, high, cost, np.zeros_like(is_whole))

  def _solve(self, low, high, cost, is_whole):
    (left, most), (fixed, values) = map(
      self._matrix, (self._at_most, self._equal)
    )
    return optimize.linprog(
      cost,
      left,
      most,
      fixed,
      values,
      np.stack([low, high], 1),
      integrality=is_whole,
      options={
        'primal_feasibility_tolerance': _TOLERANCE,
        'time_limit': _MAX_SECONDS,
        # With it, the solver may print lines of its own.
        'presolve': not is_whole.any(),
      },
    ).x

  def _matrix(self, rows):
    matrix = np.zeros((len(rows), len(self._columns)))
    for i, (terms, _) in enumerate(rows):
      matrix[i, list(terms)] = list(terms.values())
    return matrix, [bound for _, bound in rows]


def _nearest_feasible(
  variables: Sequence[Variable],
  constraints: Sequence[Constraint],
  wanted: Mapping[str, float],
  fixed: Collection[str],
) -> dict[str, float] | None:
  """Returns the nearest values that satisfy constraints, or None.

  The unknowns are positions within the domains, from 0 to 1.
  """
  program = _Program()
  largest = program.add(0.0, np.inf, cost=1.0)
  positions = {}
  for variable in variables:
    width = variable.high - variable.low
    aim = (wanted[variable.name] - variable.low) / width
    is_fixed = variable.name in fixed
    ends = (aim, aim) if is_fixed else (0.0, 1.0)
    position = positions[variable.name] = program.add(*ends)
    # Of equally near points, the one with the smallest sum of distances.
    distance = program.add(0.0, np.inf, cost=0.001)
    for sign in (1.0, -1.0):
      program.at_most({position: sign, distance: -1.0}, sign * aim)
    program.at_most({distance: 1.0, largest: -1.0}, 0.0)
    if is_fixed:
      continue
    if variable.step is not None:
      count = round(width / variable.step)
      k = program.add(0.0, count, is_whole=True)
      program.equal({position: count, k: -1.0}, 0.0)
    elif variable.values is not None:
      choices = {
        program.add(0.0, 1.0, is_whole=True): (value - variable.low) / width
        for value in variable.values
      }
      program.equal(dict.fromkeys(choices, 1.0), 1.0)
      program.equal({position: -1.0, **choices}, 0.0)
  ends = {v.name: (v.low, v.high - v.low) for v in variables}
  for one in constraints:
    terms = {
      positions[name]: coefficient * ends[name][1]
      for name, coefficient in one.coefficients.items()
    }
    size = max(map(abs, terms.values()))
    rest = one.bound - math.fsum(
      coefficient * ends[name][0]
      for name, coefficient in one.coefficients.items()
    )
    require = program.equal if one.is_equality else program.at_most
    require(
      {column: value / size for column, value in terms.items()}, rest / size
    )
  solution = program.solve()
  if solution is None:
    return None
  values = {}
  for variable in variables:
    low, width = ends[variable.name]
    value = low + width * float(solution[positions[variable.name]])
    is_fixed = variable.name in fixed
    values[variable.name] = (
      float(wanted[variable.name]) if is_fixed else variable.nearest(value)
    )
  # The tolerance of the solver may exceed that of a constraint whose terms
  # differ by many orders of magnitude: then no values are known.
  return values if all(c.is_satisfied(values) for c in constraints) else None


def _listed(names: Collection[str]) -> str:
  return ', '.join(map(repr, sorted(names)))
