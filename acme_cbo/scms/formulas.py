"""Structural equations that a person writes down, such as `exp(-X) + e`.

An equation is read by Python's own parser, every node of the tree is held
against a list of what is allowed, and what is left becomes functions of
arrays. Nothing is ever evaluated as Python. Allowed are numbers, + - * /, **
with a whole number up to 8, parentheses, the functions and constants below,
the names of the variables, and `e`, the variable's own noise.
"""

import ast
from collections.abc import Callable, Mapping, Sequence
import dataclasses
import functools
import keyword
import math
import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import interpolate
from scipy import stats

from acme_cbo.infra import errors
from acme_cbo.scms import mechanisms
from acme_cbo.scms import sampling

# The name of a variable's own noise.
NOISE = 'e'
CONSTANTS = {'pi': math.pi}
# Each with the number of its arguments.
FUNCTIONS: dict[str, tuple[int, Callable[..., jax.Array]]] = {
  'exp': (1, jnp.exp),
  'log': (1, jnp.log),
  'sin': (1, jnp.sin),
  'cos': (1, jnp.cos),
  'tanh': (1, jnp.tanh),
  'sigmoid': (1, jax.nn.sigmoid),
  'abs': (1, jnp.abs),
  'sqrt': (1, jnp.sqrt),
  'min': (2, jnp.minimum),
  'max': (2, jnp.maximum),
}
_OPERATIONS: dict[type[ast.operator], Callable[..., jax.Array]] = {
  ast.Add: jnp.add,
  ast.Sub: jnp.subtract,
  ast.Mult: jnp.multiply,
  ast.Div: jnp.divide,
}
_SUMS = (ast.Add, ast.Sub)
_PRODUCTS = (ast.Mult, ast.Div)

_MAX_LENGTH = 500
_MAX_DEPTH = 20
_MAX_POWER = 8
# Beyond it a number may be infinite in float32.
_MAX_NUMBER = 1e30
_NAME = re.compile(r'[A-Za-z][A-Za-z0-9_]{0,63}')
_TOKEN = re.compile(
  r'(?P<space>\s+)'
  r'|(?P<number>(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)'
  r'|(?P<name>[A-Za-z_][A-Za-z0-9_]*)'
  r'|(?P<sign>[-+*/(),])',
  re.ASCII,
)
_INSTEAD = {'^': '; a power is written **', '=': '; write the right side only'}


class FormulaError(errors.UsageError):
  """An equation that cannot be used.

  Attributes:
    reason: what is wrong, without the position.
    column: position in the equation, counted from 1.
  """

  def __init__(self, reason: str, column: int):
    """Composes the message from the reason and the column."""
    super().__init__(f'{reason} (column {column} of the equation)')
    self.reason = reason
    self.column = column


class Equation(NamedTuple):
  """One equation.

  Attributes:
    names: the variables that it mentions, each once, without `e`.
    noisy: whether it mentions `e`.
    evaluate: (values of the names and of `e`, each [S]; an array [S]) ->
      [S] values. The array gives constants their shape and type.
  """

  names: tuple[str, ...]
  noisy: bool
  evaluate: Callable[[Mapping[str, jax.Array], jax.Array], jax.Array]


class Noise(NamedTuple):
  """The distribution of `e` in one equation.

  Attributes:
    kind: of `NOISES`.
    parameters: normal: mean and deviation; uniform: low and high; laplace:
      location and scale; gamma: shape, location and scale; none: nothing.
  """

  kind: str = 'normal'
  parameters: tuple[float, ...] = (0.0, 1.0)


# What the parameters of each kind are called.
NOISES = {
  'normal': ('mean', 'deviation'),
  'uniform': ('low', 'high'),
  'laplace': ('location', 'scale'),
  'gamma': ('shape', 'location', 'scale'),
  'none': (),
}
# Shapes for which the quantiles stay above the smallest float64, and below
# which the table of them was checked.
_MIN_SHAPE, _MAX_SHAPE = 0.05, 1e4


def check_name(name: str) -> None:
  """Refuses what cannot be the name of a variable.

  Args:
    name: what somebody wants to call one.

  Raises:
    errors.UsageError: it is not letters, digits and _, or has a meaning.
  """
  if not _NAME.fullmatch(name):
    raise errors.UsageError(
      f'{name[:70]!r} is no name of a variable; use a letter, then up to 63 '
      'letters, digits or _'
    )
  if name == NOISE or name in CONSTANTS or name in FUNCTIONS:
    raise errors.UsageError(
      f'{name} has a meaning in equations; give the variable another name'
    )
  if keyword.iskeyword(name):
    raise errors.UsageError(
      f'{name} is a word of Python and cannot be read in equations; give the '
      'variable another name'
    )


def check_noise(noise: Noise) -> None:
  """Refuses what is no distribution.

  Args:
    noise: what somebody wants `e` to be.

  Raises:
    errors.UsageError: the kind is unknown, or a parameter has no meaning.
  """
  kind, parameters = noise
  if kind not in NOISES:
    hint = errors.did_you_mean(kind, list(NOISES))
    raise errors.UsageError(
      f'noise {kind[:70]!r} is unknown{hint}; there are {", ".join(NOISES)}'
    )
  expected = NOISES[kind]
  if len(parameters) != len(expected):
    meanings = f' ({", ".join(expected)})' if expected else ''
    raise errors.UsageError(
      f'{kind} noise takes {len(expected)} numbers{meanings}, got '
      f'{len(parameters)}'
    )
  for name, number in zip(expected, parameters, strict=True):
    if not math.isfinite(number):
      raise errors.UsageError(f'{name} of {kind} noise must be finite')
    if name in ('deviation', 'scale') and not number > 0:
      raise errors.UsageError(
        f'{name} of {kind} noise must be positive, got {number:g}; for no '
        'noise, write none'
      )
  if kind == 'uniform' and not parameters[0] < parameters[1]:
    raise errors.UsageError(
      f'uniform noise needs low < high, got {parameters[0]:g} and '
      f'{parameters[1]:g}'
    )
  if kind == 'gamma' and not _MIN_SHAPE <= parameters[0] <= _MAX_SHAPE:
    raise errors.UsageError(
      f'shape of gamma noise must be {_MIN_SHAPE:g} to {_MAX_SHAPE:g}, got '
      f'{parameters[0]:g}'
    )


def parse(text: str, names: Sequence[str]) -> Equation:
  """Reads one equation.

  Args:
    text: its right side, as 'exp(-X) + e'.
    names: the variables that there are.

  Returns:
    The equation.

  Raises:
    FormulaError: it is outside the grammar, or mentions an unknown name.
  """
  if len(text) > _MAX_LENGTH:
    raise FormulaError(
      f'an equation has at most {_MAX_LENGTH} characters, got {len(text)}',
      _MAX_LENGTH + 1,
    )
  mentioned = _check_tokens(text, names)
  # The parser takes neither spaces before an expression nor new lines in it.
  left = len(text) - len(text.lstrip())
  flat = re.sub(r'\s', ' ', text)[left:]
  if not flat:
    raise FormulaError('the equation is empty', 1)
  try:
    tree = ast.parse(flat, mode='eval').body
  except SyntaxError as error:
    column = left + (error.offset or len(flat) + 1)
    raise FormulaError('the equation cannot be read', column) from error
  evaluate = _Builder(left).build(tree, 1)
  causes = [name for name in mentioned if name in names]
  return Equation(tuple(causes), NOISE in mentioned, evaluate)


def _check_tokens(text: str, names: Sequence[str]) -> list[str]:
  """Refuses characters, numbers and names that are outside the grammar.

  Done before Python's parser sees the text, so that a complaint is about what
  somebody wrote and not about Python, and so that it never meets a text.

  Args:
    text: the equation.
    names: the variables that there are.

  Returns:
    The names that it mentions, each once.
  """
  known = set(names) | {NOISE} | set(CONSTANTS) | set(FUNCTIONS)
  found: dict[str, None] = {}
  place = 0
  while place < len(text):
    token = _TOKEN.match(text, place)
    if not token:
      character = text[place]
      raise FormulaError(
        f'{character!r} is not part of an equation'
        f'{_INSTEAD.get(character, "")}',
        place + 1,
      )
    word = token.group()
    if token.lastgroup == 'number':
      after = text[token.end() : token.end() + 1]
      if after == '.' or after == '_' or (after.isascii() and after.isalnum()):
        raise FormulaError(
          f'{word + after!r} is no number; a product is written 2 * X',
          place + 1,
        )
      if float(word) > _MAX_NUMBER:
        raise FormulaError(
          f'a number is too large; at most {_MAX_NUMBER:g}', place + 1
        )
    if token.lastgroup == 'name':
      if word not in known:
        hint = errors.did_you_mean_or_options(word, sorted(known))
        raise FormulaError(f'{word} is unknown{hint}', place + 1)
      found[word] = None
    place = token.end()
  return list(found)


class _Builder:
  """Makes functions of trees; `shift` are the columns before the tree's."""

  def __init__(self, shift: int):
    self._shift = shift

  def build(self, node: ast.expr, depth: int) -> Callable[..., jax.Array]:
    """The function of a node, at a depth that counts from 1."""
    if depth > _MAX_DEPTH:
      raise self._error(
        node, f'operations lie within each other over {_MAX_DEPTH} deep'
      )
    match node:
      case ast.Constant(value=int() | float() as number):
        number = float(number)
        return lambda values, like: jnp.full_like(like, number)
      case ast.Name(id=name) if name in CONSTANTS:
        number = CONSTANTS[name]
        return lambda values, like: jnp.full_like(like, number)
      case ast.Name(id=name) if name in FUNCTIONS:
        raise self._error(node, f'{name} is a function; write {name}(...)')
      case ast.Name(id=name):
        return lambda values, like: values[name]
      case ast.UnaryOp(op=ast.USub(), operand=inner):
        return self._apply(jnp.negative, [self.build(inner, depth + 1)])
      case ast.BinOp(left=base, op=ast.Pow(), right=power):
        exponent = self._exponent(power)
        # Not `jnp.power`, whose derivative at 0 is not finite.
        return self._apply(
          lambda x: jax.lax.integer_pow(x, exponent),
          [self.build(base, depth + 1)],
        )
      case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATIONS:
        # A sum of many terms is as deep as one of two.
        longer = isinstance(left, ast.BinOp) and any(
          isinstance(op, kinds) and isinstance(left.op, kinds)
          for kinds in (_SUMS, _PRODUCTS)
        )
        sides = [
          self.build(left, depth if longer else depth + 1),
          self.build(right, depth + 1),
        ]
        return self._apply(_OPERATIONS[type(op)], sides)
      case ast.Call(func=ast.Name(id=name), args=args, keywords=[]):
        return self._call(node, name, args, depth)
    raise self._error(node, 'this is not part of an equation')

  def _call(self, node, name, args, depth):
    if name not in FUNCTIONS:
      raise self._error(
        node, f'{name} is no function; there are {", ".join(FUNCTIONS)}'
      )
    number, function = FUNCTIONS[name]
    if len(args) != number:
      raise self._error(
        node, f'{name} takes {number} argument{"s"[: number - 1]}, got '
        f'{len(args)}'
      )  # fmt: skip
    return self._apply(function, [self.build(arg, depth + 1) for arg in args])

  def _apply(self, function, arguments):
    return lambda values, like: function(
      *[argument(values, like) for argument in arguments]
    )

  def _exponent(self, node: ast.expr) -> int:
    match node:
      case ast.Constant(value=int() as power) if power <= _MAX_POWER:
        return power
      case ast.UnaryOp(
        op=ast.USub(), operand=ast.Constant(value=int() as power)
      ) if power <= _MAX_POWER:
        return -power
    raise self._error(
      node, f'a power must be a whole number, -{_MAX_POWER} to {_MAX_POWER}'
    )

  def _error(self, node: ast.expr, reason: str) -> FormulaError:
    return FormulaError(reason, self._shift + node.col_offset + 1)


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Formulas:
  """The equations of an SCM as a mechanism: no arrays, a constant of programs.

  Attributes:
    names: of the D variables, in the order of the columns.
    texts: their equations.
    noises: the distribution of `e` in each.
  """

  names: tuple[str, ...]
  texts: tuple[str, ...]
  noises: tuple[Noise, ...]

  def __post_init__(self):
    if not len(self.names) == len(self.texts) == len(self.noises) > 0:
      raise errors.UsageError(
        f'{len(self.names)} names, {len(self.texts)} equations and '
        f'{len(self.noises)} noises; give one of each for every variable'
      )
    for name in self.names:
      check_name(name)
    for noise in self.noises:
      check_noise(noise)
    if len(set(self.names)) < len(self.names):
      raise errors.UsageError('two variables have the same name')
    # Parsed here, so that what is wrong is told at once.
    _ = self.equations

  @functools.cached_property
  def equations(self) -> tuple[Equation, ...]:
    """The parsed equations."""
    return tuple(parse(text, self.names) for text in self.texts)

  @property
  def parents(self) -> np.ndarray:
    """`parents[j, i]` where the equation of j mentions i: [D, D] bool."""
    return np.array(
      [
        [name in equation.names for name in self.names]
        for equation in self.equations
      ]
    )


@mechanisms.value.register
def _(mechanism: Formulas, j, u, noise):
  own = jnp.take(noise, j, axis=1)  # [S]

  def branch(equation):
    columns = {name: mechanism.names.index(name) for name in equation.names}

    def evaluate(u, own):
      values = {name: u[:, column] for name, column in columns.items()}
      return equation.evaluate({**values, NOISE: own}, own)

    return evaluate

  return jax.lax.switch(j, [branch(e) for e in mechanism.equations], u, own)


@mechanisms.noise_at.register
def _(mechanism: Formulas, level):
  standard = [_standard(noise) for noise in mechanism.noises]
  drawn = jnp.zeros_like(level)
  for quantile in dict.fromkeys(s.quantile for s in standard):
    columns = np.array([s.quantile == quantile for s in standard])
    drawn = jnp.where(
      columns, _QUANTILES[quantile[0]](level, *quantile[1:]), drawn
    )
  location = jnp.array([s.location for s in standard], level.dtype)
  scale = jnp.array([s.scale for s in standard], level.dtype)
  return location + scale * drawn


class _Standard(NamedTuple):
  """location + scale * (a quantile that others may share)."""

  quantile: tuple[Any, ...]
  location: float
  scale: float


def _standard(noise: Noise) -> _Standard:
  match noise:
    case Noise('uniform', (low, high)):
      return _Standard(('uniform',), low, high - low)
    case Noise('gamma', (shape, location, scale)):
      return _Standard(('gamma', shape), location, scale)
    case Noise('none'):
      return _Standard(('uniform',), 0.0, 0.0)
    case Noise(kind, (location, scale)):
      return _Standard((kind,), location, scale)
  raise ValueError(f'{noise} is no noise')


def _laplace(level: jax.Array) -> jax.Array:
  centred = sampling.centred(level)
  return -jnp.sign(centred) * jnp.log1p(-jnp.abs(centred))


def _gamma(level: jax.Array, shape: float) -> jax.Array:
  """Quantiles of a gamma distribution of scale 1, by cubic interpolation."""
  knots, coefficients = _gamma_table(shape)
  z = sampling.normal(level)
  last = knots.size - 2
  part = jnp.floor((z - knots[0]) / (knots[1] - knots[0])).astype(jnp.int32)
  part = jnp.clip(part, 0, last)
  away = z - jnp.array(knots, level.dtype)[part]
  table = jnp.array(coefficients, level.dtype)
  log = jnp.zeros_like(level)
  for row in table:  # Highest power first.
    log = log * away + row[part]
  return jnp.exp(log)


@functools.lru_cache
def _gamma_table(shape: float) -> tuple[np.ndarray, np.ndarray]:
  """The logarithm of the quantile against the normal quantile of its level.

  In these units it is smooth up to both tails.

  Args:
    shape: of the gamma distribution.

  Returns:
    The knots, and [4, knots - 1] coefficients of the cubic between them.
  """
  # A little beyond the range of `sampling.normal`.
  knots = np.linspace(-4.8, 4.8, 1025)
  # Each half from its own tail, where it is exact.
  value = np.where(
    knots < 0,
    stats.gamma.ppf(stats.norm.cdf(knots), shape),
    stats.gamma.isf(stats.norm.sf(knots), shape),
  )
  # d log q / dz = density of z / (density of log q).
  log_density = stats.gamma.logpdf(value, shape) + np.log(value)
  slope = np.exp(stats.norm.logpdf(knots) - log_density)
  spline = interpolate.CubicHermiteSpline(knots, np.log(value), slope)
  return knots, spline.c


_QUANTILES: dict[str, Callable[..., jax.Array]] = {
  'normal': sampling.normal,
  'uniform': lambda level: level,
  'laplace': _laplace,
  'gamma': _gamma,
}
