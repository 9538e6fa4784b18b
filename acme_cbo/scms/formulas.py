"""Structural equations written as text, such as `exp(-X) + e`.

Python's parser reads an equation, every node of the syntax tree is checked
against a list of allowed nodes, and the tree is converted to functions of
arrays. Nothing is ever evaluated as Python. Allowed are numbers, + - * /, **
with an integer exponent up to 8, parentheses, the functions and constants
below, the names of the variables, and `e`, the variable's own noise. `e**2` is
an error: it may have been meant as the square of Euler's number.
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

# Name of a variable's own noise in its equation.
NOISE = 'e'
CONSTANTS = {'pi': math.pi}
# Name -> number of arguments and function.
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
# Results with larger numbers may be infinite in float32.
_MAX_NUMBER = 1e30
_NAME = re.compile(r'[A-Za-z][A-Za-z0-9_]{0,63}')
_TOKEN = re.compile(
  r'(?P<space>\s+)'
  r'|(?P<number>(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)'
  r'|(?P<name>[A-Za-z_][A-Za-z0-9_]*)'
  r'|(?P<sign>[-+*/(),])',
  re.ASCII,
)
# What to write instead of what other languages have.
_STEP = (
  'an equation has no conditions; a step at c is written '
  'sigmoid(100 * (x - c)), and one from a to b '
  'a + (b - a) * sigmoid(100 * (x - c))'
)
_POWER = 'write sqrt(x) for x**0.5, and exp(y * log(x)) for x**y'
_EULER = 'e is the noise of the variable, not the number 2.718'
_INSTEAD_OF_CHARACTERS = {
  '^': 'a power is written **',
  '²': 'a power is written **',
  '³': 'a power is written **',
  '=': 'write the right side only',
  '×': 'a product is written *',
  '·': 'a product is written *',
  '\N{MINUS SIGN}': 'a minus sign is written -',
  **dict.fromkeys('<>!?&|≤≥', _STEP),
}
_INSTEAD_OF_NAMES = {
  'ln': 'write log(x)',
  'log10': 'write log(x) / log(10)',
  'log2': 'write log(x) / log(2)',
  'tan': 'write sin(x) / cos(x)',
  'square': 'write x**2',
  'relu': 'write max(0, x)',
  'clip': 'write min(max(x, low), high)',
  **dict.fromkeys(('expit', 'logistic'), 'write sigmoid(x)'),
  **dict.fromkeys(('pow', 'power'), f'write x**2 for a square; {_POWER}'),
  **dict.fromkeys(('E', 'euler'), f'write exp(1) for 2.718; {_EULER}'),
  **dict.fromkeys(('np', 'numpy', 'math'), 'write exp(x), not np.exp(x)'),
  **dict.fromkeys(
    ('if', 'else', 'and', 'or', 'not', 'where', 'ifelse', 'step', 'sign',
     'heaviside'),
    _STEP,
  ),
}  # fmt: skip


class FormulaError(errors.UsageError):
  """Error in an equation.

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
  """A parsed equation.

  Attributes:
    names: variables that it uses, each once, without `e`.
    noisy: whether it uses `e`.
    evaluate: function from a mapping of the names and `e` to [S] values, and an
      [S] array, to [S] values. The array defines the shape and type of
      constants.
  """

  names: tuple[str, ...]
  noisy: bool
  evaluate: Callable[[Mapping[str, jax.Array], jax.Array], jax.Array]


class Noise(NamedTuple):
  """The distribution of `e` in one equation.

  Attributes:
    kind: name of the distribution, a key of `NOISES`.
    parameters: parameters of the distribution, in the order of `NOISES`.
  """

  kind: str = 'normal'
  parameters: tuple[float, ...] = (0.0, 1.0)


# Names of the parameters of each distribution.
NOISES = {
  'normal': ('mean', 'deviation'),
  'uniform': ('low', 'high'),
  'laplace': ('location', 'scale'),
  'gamma': ('shape', 'location', 'scale'),
  'none': (),
}
# Range of shapes of the gamma distribution: below it quantiles underflow
# float64, above it the table of quantiles has not been tested.
_MIN_SHAPE, _MAX_SHAPE = 0.05, 1e4


def check_name(name: str) -> None:
  """Raises unless a text is a valid name of a variable.

  Args:
    name: the text.

  Raises:
    errors.UsageError: the name has other characters than letters, digits and _,
      or is reserved.
  """
  if not _NAME.fullmatch(name):
    raise errors.UsageError(
      f'{name[:70]!r} is not a valid name of a variable; use a letter, then up '
      'to 63 letters, digits or _'
    )
  if name == NOISE or name in CONSTANTS or name in FUNCTIONS:
    raise errors.UsageError(
      f'{name} has a meaning in equations; give the variable another name'
    )
  if keyword.iskeyword(name):
    raise errors.UsageError(
      f'{name} is a Python keyword and cannot be used in equations; give the '
      'variable another name'
    )


def check_noise(noise: Noise) -> None:
  """Raises unless a noise distribution is valid.

  Args:
    noise: the distribution.

  Raises:
    errors.UsageError: the kind is unknown, or a parameter is out of range.
  """
  kind, parameters = noise
  if kind not in NOISES:
    hint = errors.did_you_mean(kind, list(NOISES))
    raise errors.UsageError(
      f'noise {kind[:70]!r} is unknown{hint}; there are {", ".join(NOISES)}'
    )
  expected = NOISES[kind]
  if len(parameters) != len(expected):
    names = f' ({", ".join(expected)})' if expected else ''
    raise errors.UsageError(
      f'{kind} noise takes {len(expected)} numbers{names}, got '
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
  """Parses one equation.

  Args:
    text: right side of the equation, such as 'exp(-X) + e'.
    names: names of all variables.

  Returns:
    The parsed equation.

  Raises:
    FormulaError: the text is outside the grammar, or uses an unknown name.
  """
  if len(text) > _MAX_LENGTH:
    raise FormulaError(
      f'an equation has at most {_MAX_LENGTH} characters, got {len(text)}',
      _MAX_LENGTH + 1,
    )
  used = _check_tokens(text, names)
  # Python's parser rejects leading spaces and line breaks.
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
  causes = [name for name in used if name in names]
  return Equation(tuple(causes), NOISE in used, evaluate)


def _check_tokens(text: str, names: Sequence[str]) -> list[str]:
  """Checks that characters, numbers and names belong to the grammar.

  This runs before Python's parser, so that errors refer to the equation rather
  than to Python, and so that the parser never sees arbitrary text.

  Args:
    text: the equation.
    names: names of all variables.

  Returns:
    The names that the equation uses, each once.
  """
  allowed = set(names) | {NOISE} | set(CONSTANTS) | set(FUNCTIONS)
  used: dict[str, None] = {}
  position = 0
  while position < len(text):
    token = _TOKEN.match(text, position)
    if not token:
      character = text[position]
      advice = _INSTEAD_OF_CHARACTERS.get(character, '')
      if text.startswith('==', position):
        advice = _STEP
      raise FormulaError(
        f'{character!r} is not part of an equation{advice and f"; {advice}"}',
        position + 1,
      )
    word = token.group()
    if token.lastgroup == 'number':
      after = text[token.end() : token.end() + 1]
      if after == '.' or after == '_' or (after.isascii() and after.isalnum()):
        raise FormulaError(
          f'{word + after!r} is not a number; a product is written 2 * X',
          position + 1,
        )
      if float(word) > _MAX_NUMBER:
        raise FormulaError(
          f'a number is too large; at most {_MAX_NUMBER:g}', position + 1
        )
    if token.lastgroup == 'name':
      if word not in allowed:
        hint = (
          f'; {_INSTEAD_OF_NAMES[word]}'
          if word in _INSTEAD_OF_NAMES
          else errors.did_you_mean_or_options(word, sorted(allowed))
        )
        raise FormulaError(f'{word} is unknown{hint}', position + 1)
      used[word] = None
    position = token.end()
  return list(used)


class _Builder:
  """Converts syntax trees to functions of arrays."""

  def __init__(self, shift: int):
    """Initializes the builder.

    Args:
      shift: number of columns of the equation before the parsed text.
    """
    self._shift = shift

  def build(self, node: ast.expr, depth: int) -> Callable[..., jax.Array]:
    """Returns the function of a node.

    Args:
      node: the node.
      depth: its depth in the tree, from 1.

    Returns:
      A function as `Equation.evaluate`.

    Raises:
      FormulaError: the tree contains a node outside the grammar.
    """
    if depth > _MAX_DEPTH:
      raise self._error(
        node, f'operations are nested more than {_MAX_DEPTH} deep'
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
      case ast.UnaryOp(op=ast.UAdd(), operand=inner):
        return self.build(inner, depth + 1)
      case ast.BinOp(left=ast.Name(id=name), op=ast.Pow()) if name == NOISE:
        raise self._error(
          node,
          f'{_EULER}; write exp(x) for a power of that number, and e * e for '
          'the square of the noise',
        )
      case ast.BinOp(left=base, op=ast.Pow(), right=power):
        exponent = self._exponent(power)
        # `jnp.power` has a derivative at 0 that is not finite.
        return self._apply(
          lambda x: jax.lax.integer_pow(x, exponent),
          [self.build(base, depth + 1)],
        )
      case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATIONS:
        # A sum or product of many terms is as deep as one of two.
        is_chain = isinstance(left, ast.BinOp) and any(
          isinstance(op, group) and isinstance(left.op, group)
          for group in (_SUMS, _PRODUCTS)
        )
        sides = [
          self.build(left, depth if is_chain else depth + 1),
          self.build(right, depth + 1),
        ]
        return self._apply(_OPERATIONS[type(op)], sides)
      case ast.Call(func=ast.Name(id=name), args=args, keywords=[]):
        return self._call(node, name, args, depth)
    raise self._error(node, 'this is not part of an equation')

  def _call(self, node, name, args, depth):
    if name not in FUNCTIONS:
      raise self._error(
        node, f'{name} is not a function; there are {", ".join(FUNCTIONS)}'
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
      node,
      f'a power must be an integer from -{_MAX_POWER} to {_MAX_POWER}; '
      f'{_POWER}',
    )

  def _error(self, node: ast.expr, reason: str) -> FormulaError:
    return FormulaError(reason, self._shift + node.col_offset + 1)


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Formulas:
  """Mechanism given by equations in text form.

  It holds no arrays; to jax it is static, a constant of compiled programs.

  Attributes:
    names: names of the D variables, in the order of the columns.
    texts: their equations.
    noises: distribution of `e` in each equation.
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
    # Parses the equations now, so that errors are raised at construction.
    _ = self.equations

  @functools.cached_property
  def equations(self) -> tuple[Equation, ...]:
    """Parsed equations."""
    return tuple(parse(text, self.names) for text in self.texts)

  @property
  def parents(self) -> np.ndarray:
    """[D, D] bool, `parents[j, i]` is True if the equation of j uses i."""
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
  standardized = [_standardize(noise) for noise in mechanism.noises]
  values = jnp.zeros_like(level)
  for quantile in dict.fromkeys(s.quantile for s in standardized):
    columns = np.array([s.quantile == quantile for s in standardized])
    values = jnp.where(
      columns, _QUANTILES[quantile[0]](level, *quantile[1:]), values
    )
  location = jnp.array([s.location for s in standardized], level.dtype)
  scale = jnp.array([s.scale for s in standardized], level.dtype)
  return location + scale * values


class _Standardized(NamedTuple):
  """A noise distribution as `location + scale * quantile(level)`.

  Variables with the same standard quantile function share its evaluation.

  Attributes:
    quantile: key of `_QUANTILES`, then the function's further arguments.
    location: origin of the distribution.
    scale: scale of the distribution.
  """

  quantile: tuple[Any, ...]
  location: float
  scale: float


def _standardize(noise: Noise) -> _Standardized:
  match noise:
    case Noise('uniform', (low, high)):
      return _Standardized(('uniform',), low, high - low)
    case Noise('gamma', (shape, location, scale)):
      return _Standardized(('gamma', shape), location, scale)
    case Noise('none'):
      return _Standardized(('uniform',), 0.0, 0.0)
    case Noise(kind, (location, scale)):
      return _Standardized((kind,), location, scale)
  raise ValueError(f'{noise} is not a valid noise distribution')


def _laplace(level: jax.Array) -> jax.Array:
  centered = sampling.centered(level)
  return -jnp.sign(centered) * jnp.log1p(-jnp.abs(centered))


def _gamma(level: jax.Array, shape: float) -> jax.Array:
  """Computes gamma quantiles of scale 1, by cubic interpolation."""
  knots, coefficients = _gamma_table(shape)
  z = sampling.normal(level)
  last = knots.size - 2
  index = jnp.floor((z - knots[0]) / (knots[1] - knots[0])).astype(jnp.int32)
  index = jnp.clip(index, 0, last)
  offset = z - jnp.array(knots, level.dtype)[index]
  table = jnp.array(coefficients, level.dtype)
  log_quantile = jnp.zeros_like(level)
  for row in table:  # Highest power first.
    log_quantile = log_quantile * offset + row[index]
  return jnp.exp(log_quantile)


@functools.lru_cache
def _gamma_table(shape: float) -> tuple[np.ndarray, np.ndarray]:
  """Tabulates the log quantile as a function of the normal quantile.

  In these coordinates it is smooth up to both tails.

  Args:
    shape: shape of the gamma distribution.

  Returns:
    The knots, and [4, knots - 1] coefficients of the cubic between them.
  """
  # Slightly wider than the range of `sampling.normal`.
  knots = np.linspace(-4.8, 4.8, 1025)
  # Each half is computed from its own tail, for precision.
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
