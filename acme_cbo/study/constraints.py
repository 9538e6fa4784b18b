"""Linear constraints on what an experiment sets."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
import dataclasses
import math
import re
from typing import Any

from acme_cbo.infra import errors
from acme_cbo.study import variables as variables_lib

# Share of the sizes of its terms up to which a constraint may be violated, by
# rounding.
_SLACK = 1e-9
_MAX_LENGTH = 1_000
# Numbers, which stay, or names.
_NAME = re.compile(
  r'(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|`(?P<quoted>[^`]+)`'
  r'|(?P<name>[^\W\d]\w*)'
)


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


def parse(
  text: Any, variables: Mapping[str, variables_lib.Variable]
) -> list[Constraint]:
  """Returns the linear constraints that a text such as '0 <= a - b <= 1' has.

  Python's parser reads it, after names were replaced by placeholders; nothing
  is evaluated as Python.

  Args:
    text: the constraint. Names with spaces or signs stand between backticks.
    variables: {name: the variable} of those that may be set.

  Raises:
    errors.UsageError: it is none, or not linear.
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
    # Spaces keep it apart from a number: 2b is no sum that can be read.
    return f' _{len(names) - 1} '

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
      f"{where} cannot be read; write sums such as '2*a + b', with <=, >= or = "
      'between them, and names with spaces or signs between backticks (`)'
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
  variables: Mapping[str, variables_lib.Variable],
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
