"""Variables that may be set: domains, steps and lists of allowed values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
import math
from typing import Any

import numpy as np

from acme_cbo.infra import errors
from acme_cbo.scms import interventions
from acme_cbo.study import digits

# Keys of the settings of a variable.
_KEYS = ('domain', 'step', 'values', 'cost')
# Largest end of a domain; its width is finite.
_MAX_END = 1e300
_MAX_VALUES = 1_000
_MAX_STEPS = 10**9
# Share of a step up to which a value may miss its grid, by rounding.
_SLACK = 1e-9
# Smallest width of a domain, as a share of its ends.
_MIN_WIDTH = 1e-12
# The same of a step: a value of the grid has 15 digits.
_MIN_STEP = 1e-13


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
    is_listed = self.values is not None or self.step is not None
    if is_listed and self.allows(value):
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


def parse(name: Any, settings: Any) -> Variable:
  """Makes a variable from its settings.

  Args:
    name: its name.
    settings: `domain`, (low, high); with it, optionally, `step`; or instead of
      both `values`, a list of numbers or `[False, True]`; and `cost`, 1 where
      it is left out.

  Raises:
    errors.UsageError: the name or a setting is wrong.
  """
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
