"""Values that satisfy linear constraints, by mixed-integer programming."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
import math

import numpy as np
from scipy import optimize

from acme_cbo.study import constraints as constraints_lib
from acme_cbo.study import variables as variables_lib

# Smallest tolerance of the solver of linear programs.
_TOLERANCE = 1e-10
_MAX_SECONDS = 10.0


def nearest(
  variables: Sequence[variables_lib.Variable],
  constraints: Sequence[constraints_lib.Constraint],
  wanted: Mapping[str, float],
  fixed: Collection[str],
) -> dict[str, float] | None:
  """Returns the values that satisfy constraints and are nearest to others.

  Their largest distance, as a share of the domain, is the smallest.

  Args:
    variables: the variables that the constraints concern.
    constraints: the constraints.
    wanted: {variable: value}.
    fixed: variables whose value has to stay.

  Returns:
    {variable: value}, or None if there are none, or none are found in time.
  """
  # The unknowns are positions within the domains, from 0 to 1.
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
