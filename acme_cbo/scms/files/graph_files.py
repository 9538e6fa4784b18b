"""Reads a causal graph, without its mechanisms, from a file.

The suffix of the file name selects the format:

  .txt, .edges, .csv  one edge per line: `A -> B`, `A, B` or `A B`. `A` alone
      declares a variable, `U [latent]` a latent one, and # starts a comment. A
      .csv may begin with a header, `from,to` or `source,target`.
  .dot, .gv  Graphviz: `digraph { A -> B -> C; A -> {D E}; U [latent] }`.
  .dagitty  DAGitty: `dag { A -> B <- C  U [latent,pos="0,1"] }`.
  .gml  GML with `directed 1`; a latent node has `latent 1`.
  .bif  Bayesian network interchange format; only the parents of each
      probability table are read.

Everything else in a file, such as colors and positions, is ignored. Undirected
and bidirected edges are errors: a latent common cause has to be a variable of
its own. Variables keep the order of their first mention.
"""

from collections.abc import Callable
import graphlib
import pathlib
import re
from typing import NamedTuple
import unicodedata

import numpy as np

from acme_cbo.infra import errors
from acme_cbo.infra import files

_MAX_BYTES = 10**7
_MAX_VARIABLES = 256
_MAX_LENGTH = 64  # Characters of a name.
_MAX_DEPTH = 32  # Nesting of brackets.

_NAME = re.compile(r'\w+(?:[.-]\w+)*')
_WORD = rf'"[^"\n]*"|{_NAME.pattern}'
_TOKEN = re.compile(
  r'(?P<blank>\s+|//[^\n]*|#[^\n]*|/\*.*?\*/)'
  rf'|{_WORD}|<->|->|<-|--|/\*|.',
  re.DOTALL,
)
_LINE = re.compile(
  rf'(?P<cause>{_WORD})(?:\s*\[\s*(?P<latent>latent|unobserved)\s*\]'
  rf'|(?:\s*(?:,|->)\s*|\s+)(?P<effect>{_WORD}))?'
)
_HEADERS = (('from', 'to'), ('source', 'target'))
_LATENT = ('latent', 'unobserved')
_NOT_DIRECTED = {'--': 'an undirected', '<->': 'a bidirected'}


class Graph(NamedTuple):
  """A directed acyclic graph over named variables.

  Attributes:
    variables: names of the D variables.
    parents: [D, D] bool, `parents[j, i]` where i is a direct cause of j.
    latent: [D] bool, True for latent variables.
  """

  variables: tuple[str, ...]
  parents: np.ndarray
  latent: np.ndarray


def read(path: str | pathlib.Path) -> Graph:
  """Reads a graph in one of the formats that the module docstring lists.

  Args:
    path: text file in UTF-8.

  Returns:
    The graph.

  Raises:
    errors.UsageError: the file cannot be read, does not follow its format, or
      does not hold a directed acyclic graph.
  """
  path = pathlib.Path(path)
  if path.suffix.lower() not in _READERS:
    raise errors.UsageError(
      f'{path} is not in a supported graph format; its name must end in '
      f'{", ".join(_READERS)}'
    )
  return parse(files.read_text(path, _MAX_BYTES), path.suffix, str(path))


def parse(text: str, suffix: str, source: str) -> Graph:
  """Parses the text of a graph file.

  Args:
    text: content of the file.
    suffix: suffix of the file name, which selects the format.
    source: name of the file in error messages.

  Returns:
    The graph.

  Raises:
    errors.UsageError: as for `read`.
  """
  builder = _Builder(source)
  _READERS[suffix.lower()](text, builder)
  return builder.graph()


def normalized_name(name: str) -> str:
  """Returns a name in the Unicode normal form NFC.

  Programs write the same letter in different ways: 'ö' may be one character, or
  'o' and a combining mark. Names are compared in this form.

  Args:
    name: name of a variable as a file has it.
  """
  return unicodedata.normalize('NFC', name)


def causal_order(parents: np.ndarray) -> list[int]:
  """Sorts the variables from causes to effects.

  Args:
    parents: [D, D] bool, `parents[j, i]` where i is a direct cause of j.

  Returns:
    Indices of the D variables.

  Raises:
    graphlib.CycleError: there is a cycle.
  """
  causes = {j: np.flatnonzero(row).tolist() for j, row in enumerate(parents)}
  return list(graphlib.TopologicalSorter(causes).static_order())


class _Token(NamedTuple):
  """A word, including quotes, or a punctuation mark; '' at the end."""

  text: str
  line: int

  @property
  def is_word(self) -> bool:
    return self.text[:1] == '"' or _NAME.fullmatch(self.text) is not None

  @property
  def name(self) -> str:
    return _unquoted(self.text)


class _Builder:
  """Collects variables and edges in the order of the file."""

  def __init__(self, source: str):
    self.source = source
    self.variables: dict[str, bool] = {}  # Name: is latent.
    self.edges: dict[tuple[str, str], int] = {}  # Edge: line.

  def variable(self, name: str, line: int, latent: bool = False) -> None:
    """Adds a variable, or marks an existing one as latent."""
    if not _NAME.fullmatch(name) or len(name) > _MAX_LENGTH:
      raise self.error(
        line,
        f'{name[:_MAX_LENGTH]!r} is not a valid variable name; use at most '
        f'{_MAX_LENGTH} letters, digits and _, with single . or - between them',
      )
    self.variables[name] = self.variables.get(name, False) or latent
    if len(self.variables) > _MAX_VARIABLES:
      raise self.error(
        line,
        f'variable {name!r} exceeds the limit of {_MAX_VARIABLES} variables',
      )

  def edge(self, cause: str, effect: str, line: int) -> None:
    """Adds an edge between existing variables."""
    if cause == effect:
      raise self.error(
        line, f'{cause!r} is a cause of itself; remove this edge'
      )
    if (cause, effect) in self.edges:
      raise self.error(
        line,
        f'duplicate edge {cause} -> {effect}, first on line '
        f'{self.edges[cause, effect]}; remove one of them',
      )
    self.edges[cause, effect] = line

  def error(self, line: int, sentence: str) -> errors.UsageError:
    """Returns an error at a line, to be raised by the caller."""
    return errors.UsageError(f'{self.source}, line {line}: {sentence}')

  def graph(self) -> Graph:
    """Returns the graph.

    Raises:
      errors.UsageError: the graph has a cycle, or too few variables.
    """
    names, latent = tuple(self.variables), list(self.variables.values())
    if latent.count(False) < 2:
      raise errors.UsageError(
        f'{self.source}: a graph needs at least two variables that are not '
        f'latent; this one has {latent.count(False)}'
      )
    index = {name: j for j, name in enumerate(names)}
    parents = np.zeros((len(names), len(names)), bool)
    for cause, effect in self.edges:
      parents[index[effect], index[cause]] = True
    try:
      causal_order(parents)
    except graphlib.CycleError as error:
      cycle = ' -> '.join(names[j] for j in error.args[1])
      raise errors.UsageError(
        f'{self.source}: the graph has a cycle, {cycle}; remove an edge of it'
      ) from error
    return Graph(names, parents, np.array(latent))


def _unquoted(word):
  return word[1:-1] if word.startswith('"') else word


class _Tokens:
  """Stream of the tokens of a text."""

  def __init__(self, text: str, builder: _Builder):
    self._builder = builder
    self._tokens: list[_Token] = []
    line = 1
    for match in _TOKEN.finditer(text):
      token = match.group()
      if token in ('"', '/*'):
        raise builder.error(line, f'{token} is never closed')
      if match['blank'] is None:
        self._tokens.append(_Token(token, line))
      line += token.count('\n')
    self._tokens.append(_Token('', line))
    self._position = 0

  @property
  def next(self) -> _Token:
    """The next token; the last one is returned again and again."""
    return self._tokens[self._position]

  @property
  def after(self) -> _Token:
    """The token after the next one."""
    return self._tokens[min(self._position + 1, len(self._tokens) - 1)]

  def take(self) -> _Token:
    token = self.next
    self._position = min(self._position + 1, len(self._tokens) - 1)
    return token

  def skip(self, *texts: str) -> bool:
    """Takes the next token if it is one of these; returns whether it was."""
    if self.next.text.lower() not in texts:
      return False
    self.take()
    return True

  def expect(self, *texts: str) -> None:
    """Takes the next token, which must be one of these."""
    if not self.skip(*texts):
      raise self.error(' or '.join(texts) or 'the end of the file')

  def word(self, expected: str = 'a variable name') -> _Token:
    """Takes the next token, which must be a word."""
    if not self.next.is_word:
      raise self.error(expected)
    return self.take()

  def value(self) -> str:
    """Takes a number or a word, without its sign."""
    self.skip('-', '+')
    self.skip('.')
    return self.word('a number or a word').name

  def skip_block(self) -> None:
    """Takes a block in braces."""
    self.expect('{')
    begin, depth = self.next.line, 1
    while depth:
      if not self.next.text:
        raise self._builder.error(begin, 'this { is never closed')
      text = self.take().text
      depth += (text == '{') - (text == '}')

  def error(self, expected: str) -> errors.UsageError:
    """Returns an error at the next token, to be raised by the caller.

    Args:
      expected: description of what would be right instead.
    """
    text, line = self.next
    actual = text[:_MAX_LENGTH] or 'the end of the file'
    sentence = _undirected(text) or f'expected {expected}, got {actual}'
    return self._builder.error(line, sentence)


def _undirected(mark):
  """Returns why a mark is not a directed edge; '' if it is no such mark."""
  if mark not in _NOT_DIRECTED:
    return ''
  return (
    f'{mark} is {_NOT_DIRECTED[mark]} edge; write -> and model a latent common '
    'cause of A and B as a variable: U [latent], U -> A, U -> B'
  )


def _read_edges(text, builder):
  """Reads one edge or one variable per line."""
  for number, line in enumerate(text.split('\n'), 1):
    content = line.partition('#')[0].strip()
    if not content:
      continue
    match = _LINE.fullmatch(content)
    if match is None:
      mark = next((mark for mark in _NOT_DIRECTED if mark in content), '')
      raise builder.error(
        number,
        _undirected(mark)
        or 'expected one edge (A -> B, A, B or A B) or one variable (A or '
        f'A [latent]), got {content[:_MAX_LENGTH]}',
      )
    cause = _unquoted(match['cause'])
    builder.variable(cause, number, latent=match['latent'] is not None)
    if match['effect'] is not None:
      effect = _unquoted(match['effect'])
      builder.variable(effect, number)
      builder.edge(cause, effect, number)


def _read_csv(text, builder):
  first, end, rest = text.partition('\n')
  names = tuple(name.strip(' \t\r"').lower() for name in first.split(','))
  _read_edges(f'{end}{rest}' if names in _HEADERS else text, builder)


def _read_dot(text, builder):
  tokens = _Tokens(text, builder)
  tokens.skip('strict')
  tokens.expect('digraph')
  _read_body(tokens, builder, ('graph', 'node', 'edge'))


def _read_dagitty(text, builder):
  tokens = _Tokens(text, builder)
  tokens.expect('dag')
  _read_body(tokens, builder, ())


def _read_body(tokens, builder, defaults):
  """Reads a graph from its name to the end of the file."""
  if tokens.next.is_word:
    tokens.take()
  _group(tokens, builder, defaults, 0)
  tokens.expect('')


def _group(tokens, builder, defaults, depth):
  """Reads a variable, or statements in braces.

  Args:
    tokens: token stream.
    builder: collects variables and edges.
    defaults: keywords that begin a list of default attributes.
    depth: nesting depth of the braces.

  Returns:
    Names of the variables in the group.
  """
  if depth and defaults and tokens.skip('subgraph') and tokens.next.is_word:
    tokens.take()
  if depth and tokens.next.text != '{':
    token = tokens.word()
    builder.variable(token.name, token.line)
    return [token.name]
  if depth > _MAX_DEPTH:
    raise builder.error(
      tokens.next.line, f'braces are nested more than {_MAX_DEPTH} deep'
    )
  tokens.expect('{')
  names: list[str] = []
  while not tokens.skip('}'):
    if tokens.next.text.lower() in defaults:
      tokens.take()
      tokens.expect('[')
      _attributes(tokens, builder)
    elif tokens.after.text == '=':
      tokens.word('an attribute')
      tokens.take()
      tokens.value()
    elif not tokens.skip(';', ','):
      names += _chain(tokens, builder, defaults, depth + 1)
  return list(dict.fromkeys(names))


def _chain(tokens, builder, defaults, depth):
  """Reads variables and their attributes, or edges; returns their names."""
  names = last = _group(tokens, builder, defaults, depth)
  while tokens.next.text in ('->', '<-'):
    arrow = tokens.take()
    group = _group(tokens, builder, defaults, depth)
    causes, effects = (last, group) if arrow.text == '->' else (group, last)
    for cause in causes:
      for effect in effects:
        builder.edge(cause, effect, arrow.line)
    names, last = names + group, group
  line = tokens.next.line
  if tokens.skip('[') and _attributes(tokens, builder):
    if len(names) != 1:
      raise builder.error(line, '[latent] must follow a single variable')
    builder.variable(names[0], line, latent=True)
  return names


def _attributes(tokens, builder):
  """Reads attributes to the closing bracket; returns whether latent is set."""
  latent = False
  while not tokens.skip(']'):
    if tokens.skip(',', ';'):
      continue
    token = tokens.word('an attribute')
    key = token.name.lower()
    value = tokens.value().lower() if tokens.skip('=') else 'true'
    if key in _LATENT:
      if value not in ('true', 'false'):
        raise builder.error(
          token.line, f'{key} must be true or false, got {value}'
        )
      latent = value == 'true'
    if key == 'dir' and value != 'forward':
      raise builder.error(
        token.line,
        f'dir={value} changes the direction of an edge; write A -> B alone',
      )
  return latent


def _read_gml(text, builder):
  tokens = _Tokens(text, builder)
  graph = _field(builder, _gml_list(tokens, builder, '', 0), 'graph', 1)
  inside = _pairs(builder, graph)
  if _text(builder, _field(builder, inside, 'directed', graph.line)) != '1':
    raise builder.error(
      graph.line,
      'the graph must have directed 1; undirected graphs are not supported',
    )
  labels: dict[str, str] = {}
  for node in inside:
    if node.key == 'node':
      fields = _pairs(builder, node)
      number = _text(builder, _field(builder, fields, 'id', node.line))
      label = _text(builder, _field(builder, fields, 'label', node.line))
      latent = any(f.key in _LATENT and f.value == '1' for f in fields)
      if number in labels or label in builder.variables:
        raise builder.error(
          node.line, f'the id {number} or the label {label} is already in use'
        )
      labels[number] = label
      builder.variable(label, node.line, latent=latent)
  for edge in inside:
    if edge.key == 'edge':
      fields = _pairs(builder, edge)
      ends = []
      for end in ('source', 'target'):
        number = _text(builder, _field(builder, fields, end, edge.line))
        if number not in labels:
          raise builder.error(
            edge.line, f'there is no node with the id {number}'
          )
        ends.append(labels[number])
      builder.edge(*ends, edge.line)


class _Pair(NamedTuple):
  """A key of GML with its value: a string, or a list of pairs."""

  key: str
  value: 'str | list[_Pair]'
  line: int


def _gml_list(tokens, builder, end, depth):
  """Reads pairs up to and including a mark; returns a list of `_Pair`."""
  if depth > _MAX_DEPTH:
    raise builder.error(
      tokens.next.line, f'brackets are nested more than {_MAX_DEPTH} deep'
    )
  pairs = []
  while not tokens.skip(end):
    token = tokens.word('a key')
    inner = tokens.skip('[')
    if inner:
      value = _gml_list(tokens, builder, ']', depth + 1)
    else:
      value = tokens.value()
    pairs.append(_Pair(token.name.lower(), value, token.line))
  return pairs


def _field(builder, pairs, key, line):
  """Returns the one pair with a key."""
  matches = [pair for pair in pairs if pair.key == key]
  if len(matches) != 1:
    raise builder.error(
      line, f'expected exactly one field {key!r}, got {len(matches)}'
    )
  return matches[0]


def _pairs(builder, pair):
  if isinstance(pair.value, str):
    raise builder.error(pair.line, f'{pair.key} must be a list in [ ]')
  return pair.value


def _text(builder, pair):
  if not isinstance(pair.value, str):
    raise builder.error(pair.line, f'{pair.key} must be one value, not a list')
  return pair.value


def _read_bif(text, builder):
  tokens = _Tokens(text, builder)
  has_table: set[str] = set()
  while not tokens.skip(''):
    line = tokens.next.line
    if tokens.skip('network'):
      if tokens.next.is_word:
        tokens.take()
    elif tokens.skip('variable'):
      name = tokens.word().name
      if name in builder.variables:
        raise builder.error(line, f'duplicate variable {name}')
      builder.variable(name, line)
    elif tokens.skip('probability'):
      names = _bif_table(tokens)
      for name in names:
        if name not in builder.variables:
          raise builder.error(line, f'variable {name} is not declared above')
      effect, *causes = names
      if effect in has_table:
        raise builder.error(line, f'duplicate probability of {effect}')
      has_table.add(effect)
      for cause in causes:
        builder.edge(cause, effect, line)
    else:
      raise tokens.error('network, variable or probability')
    tokens.skip_block()
  for name in builder.variables:
    if name not in has_table:
      raise errors.UsageError(
        f'{builder.source}: variable {name} has no probability'
      )


def _bif_table(tokens):
  """Reads `(A | B, C)`; returns the names."""
  tokens.expect('(')
  names = [tokens.word().name]
  if tokens.skip('|'):
    names.append(tokens.word().name)
    while tokens.skip(','):
      names.append(tokens.word().name)
  tokens.expect(')')
  return names


_READERS: dict[str, Callable[[str, _Builder], None]] = {
  '.txt': _read_edges,
  '.edges': _read_edges,
  '.csv': _read_csv,
  '.dot': _read_dot,
  '.gv': _read_dot,
  '.dagitty': _read_dagitty,
  '.gml': _read_gml,
  '.bif': _read_bif,
}
