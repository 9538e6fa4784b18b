"""Reads a causal graph, without its mechanisms, from a file.

The suffix says the format:

  .txt, .edges, .csv  an edge a line: `A -> B`, `A, B` or `A B`. `A` alone is a
      variable, `U [latent]` one that nobody watches, and the rest of a line
      from # on a comment. A first line `from,to` or `source,target` of a .csv
      is its header.
  .dot, .gv  of Graphviz: `digraph { A -> B -> C; A -> {D E}; U [latent] }`.
  .dagitty  of DAGitty: `dag { A -> B <- C  U [latent,pos="0,1"] }`.
  .gml  GML with `directed 1`, and `latent 1` in a node that nobody watches.
  .bif  the interchange format of Bayesian networks: of a table only the
      parents are read.

What a file says beyond the graph, as colours and positions, is left aside. An
edge with no direction, or with two, is refused: a latent common cause has to be
a variable of its own. The variables keep the order of their first mention.
"""

from collections.abc import Callable
import graphlib
import pathlib
import re
from typing import NamedTuple

import numpy as np

from acme_cbo.infra import errors

_MAX_BYTES = 10**7
_MAX_VARIABLES = 256
_MAX_LENGTH = 64  # Of a name.
_MAX_DEPTH = 32  # Of brackets.

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
_WAYS = {'--': 'no direction', '<->': 'two directions'}


class Graph(NamedTuple):
  """A directed acyclic graph over named variables.

  Attributes:
    variables: D names.
    parents: [D, D] bool, `parents[j, i]` where i is a direct cause of j.
    latent: [D] bool, the variables that nobody watches.
  """

  variables: tuple[str, ...]
  parents: np.ndarray
  latent: np.ndarray


def read(path: str | pathlib.Path) -> Graph:
  """Reads a graph; the formats are those at the top of this module.

  Args:
    path: a text file in UTF-8.

  Returns:
    The graph.

  Raises:
    errors.UsageError: the file cannot be read, does not follow its format, or
      holds no directed acyclic graph.
  """
  path = pathlib.Path(path)
  if path.suffix.lower() not in _READERS:
    raise errors.UsageError(
      f'{path} is of no format that a graph is read from; its name has to end '
      f'in {", ".join(_READERS)}'
    )
  return parse(read_text(path, _MAX_BYTES), path.suffix, str(path))


def read_text(path: pathlib.Path, most: int) -> str:
  """Reads a file of a user.

  Args:
    path: the file.
    most: bytes that it may have.

  Returns:
    Its text.

  Raises:
    errors.UsageError: it cannot be read, is longer, or not in UTF-8.
  """
  try:
    with path.open('rb') as file:
      content = file.read(most + 1)
  except OSError as error:
    raise errors.UsageError(
      f'{path} cannot be read: {error.strerror}'
    ) from error
  except ValueError as error:  # A path with a null character in it.
    raise errors.UsageError(f'{str(path)!r} is no path') from error
  if len(content) > most:
    raise errors.UsageError(
      f'{path} is too large: it may have {most:,} bytes at most'
    )
  try:
    return content.decode('utf-8-sig')
  except UnicodeDecodeError as error:
    line = content[: error.start].count(b'\n') + 1
    raise errors.UsageError(
      f'{path}, line {line}: this is no text in UTF-8; save the file as such'
    ) from error


def parse(text: str, suffix: str, source: str) -> Graph:
  """`read`, of a text.

  Args:
    text: what the file holds.
    suffix: of its name, one that `read` knows.
    source: what messages call it.

  Returns:
    The graph.

  Raises:
    errors.UsageError: as `read`.
  """
  found = _Found(source)
  _READERS[suffix.lower()](text, found)
  return found.graph()


def causal_order(parents: np.ndarray) -> list[int]:
  """The variables from causes to effects.

  Args:
    parents: [D, D] bool, `parents[j, i]` where i is a direct cause of j.

  Returns:
    D indices.

  Raises:
    graphlib.CycleError: there is a cycle.
  """
  causes = {j: np.flatnonzero(row).tolist() for j, row in enumerate(parents)}
  return list(graphlib.TopologicalSorter(causes).static_order())


class _Token(NamedTuple):
  """A word, in its quotes where it has some, or a mark; '' at the end."""

  text: str
  line: int

  @property
  def is_word(self) -> bool:
    return self.text[:1] == '"' or _NAME.fullmatch(self.text) is not None

  @property
  def name(self) -> str:
    return _unquoted(self.text)


class _Found:
  """What a reader has found, in the order of the file."""

  def __init__(self, source: str):
    self.source = source
    self.variables: dict[str, bool] = {}  # Whether each is latent.
    self.edges: dict[tuple[str, str], int] = {}  # The line of each.

  def variable(self, name: str, line: int, latent: bool = False) -> None:
    """Adds a variable, or says of one that is there that it is latent."""
    if not _NAME.fullmatch(name) or len(name) > _MAX_LENGTH:
      raise self.refuse(
        line,
        f'{name[:_MAX_LENGTH]!r} cannot name a variable; use letters, digits '
        f'and _, with single . or - between them, {_MAX_LENGTH} at most',
      )
    self.variables[name] = self.variables.get(name, False) or latent
    if len(self.variables) > _MAX_VARIABLES:
      raise self.refuse(
        line,
        f'{name!r} is one variable too many; {_MAX_VARIABLES} can be read',
      )

  def edge(self, cause: str, effect: str, line: int) -> None:
    """Adds an edge between variables that are there."""
    if cause == effect:
      raise self.refuse(
        line, f'{cause!r} is a cause of itself; remove this edge'
      )
    if (cause, effect) in self.edges:
      raise self.refuse(
        line,
        f'the edge {cause} -> {effect} of line {self.edges[cause, effect]} '
        'stands here again; keep one of them',
      )
    self.edges[cause, effect] = line

  def refuse(self, line: int, sentence: str) -> errors.UsageError:
    """An error at a line, to be raised."""
    return errors.UsageError(f'{self.source}, line {line}: {sentence}')

  def graph(self) -> Graph:
    """All of it.

    Raises:
      errors.UsageError: it has a cycle, or too few variables.
    """
    names, latent = tuple(self.variables), list(self.variables.values())
    if latent.count(False) < 2:
      raise errors.UsageError(
        f'{self.source}: a graph has two variables or more that are not '
        f'latent, this one {latent.count(False)}'
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
        f'{self.source}: the edges go in a circle, {cycle}; remove one of them'
      ) from error
    return Graph(names, parents, np.array(latent))


def _unquoted(word):
  return word[1:-1] if word.startswith('"') else word


class _Tokens:
  """The tokens of a text, taken one after the other."""

  def __init__(self, text: str, found: _Found):
    self._found = found
    self._tokens: list[_Token] = []
    line = 1
    for match in _TOKEN.finditer(text):
      token = match.group()
      if token in ('"', '/*'):
        raise found.refuse(line, f'what begins with {token} here never ends')
      if match['blank'] is None:
        self._tokens.append(_Token(token, line))
      line += token.count('\n')
    self._tokens.append(_Token('', line))
    self._place = 0

  @property
  def next(self) -> _Token:
    """The token to be taken next; the last one stays."""
    return self._tokens[self._place]

  @property
  def after(self) -> _Token:
    """The one after that."""
    return self._tokens[min(self._place + 1, len(self._tokens) - 1)]

  def take(self) -> _Token:
    token = self.next
    self._place = min(self._place + 1, len(self._tokens) - 1)
    return token

  def skipped(self, *texts: str) -> bool:
    """Takes the next token if it is one of these."""
    if self.next.text.lower() not in texts:
      return False
    self.take()
    return True

  def expect(self, *texts: str) -> None:
    """Takes the next token, which has to be one of these."""
    if not self.skipped(*texts):
      raise self.refuse(' or '.join(texts) or 'the end of the file')

  def word(self, what: str = 'the name of a variable') -> _Token:
    """Takes the next token, which has to be a word."""
    if not self.next.is_word:
      raise self.refuse(what)
    return self.take()

  def value(self) -> str:
    """Takes a number or a word."""
    self.skipped('-', '+')
    self.skipped('.')
    return self.word('a number or a word').name

  def skip_block(self) -> None:
    """Takes all between braces, and these."""
    self.expect('{')
    begin, depth = self.next.line, 1
    while depth:
      if not self.next.text:
        raise self._found.refuse(begin, 'the block that begins here never ends')
      text = self.take().text
      depth += (text == '{') - (text == '}')

  def refuse(self, right: str) -> errors.UsageError:
    """An error at the next token, to be raised.

    Args:
      right: what would be right in its place.
    """
    text, line = self.next
    found = text[:_MAX_LENGTH] or 'the end of the file'
    sentence = _undirected(text) or f'{right} has to stand here, not {found}'
    return self._found.refuse(line, sentence)


def _undirected(mark):
  """What is wrong with an edge's mark; '' where that is something else."""
  if mark not in _WAYS:
    return ''
  return (
    f'{mark} is an edge with {_WAYS[mark]}; write -> and, for a latent common '
    'cause of A and B, a variable of its own: U [latent], U -> A, U -> B'
  )


def _read_edges(text, found):
  """One edge, or one variable, a line."""
  for number, line in enumerate(text.split('\n'), 1):
    content = line.partition('#')[0].strip()
    if not content:
      continue
    match = _LINE.fullmatch(content)
    if match is None:
      mark = next((mark for mark in _WAYS if mark in content), '')
      raise found.refuse(
        number,
        _undirected(mark)
        or 'a line holds one edge, as A -> B or A, B or A B, or one variable, '
        f'as A or A [latent], not {content[:_MAX_LENGTH]}',
      )
    cause = _unquoted(match['cause'])
    found.variable(cause, number, latent=match['latent'] is not None)
    if match['effect'] is not None:
      effect = _unquoted(match['effect'])
      found.variable(effect, number)
      found.edge(cause, effect, number)


def _read_csv(text, found):
  first, end, rest = text.partition('\n')
  names = tuple(name.strip(' \t\r"').lower() for name in first.split(','))
  _read_edges(f'{end}{rest}' if names in _HEADERS else text, found)


def _read_dot(text, found):
  tokens = _Tokens(text, found)
  tokens.skipped('strict')
  tokens.expect('digraph')
  _read_body(tokens, found, ('graph', 'node', 'edge'))


def _read_dagitty(text, found):
  tokens = _Tokens(text, found)
  tokens.expect('dag')
  _read_body(tokens, found, ())


def _read_body(tokens, found, defaults):
  """From the name of the whole to the end of the file."""
  if tokens.next.is_word:
    tokens.take()
  _group(tokens, found, defaults, 0)
  tokens.expect('')


def _group(tokens, found, defaults, depth):
  """A variable, or statements in braces: the variables in it.

  Args:
    tokens: to take it from.
    found: to note it in.
    defaults: words that begin a list of attributes of nothing in particular.
    depth: of the braces around it.

  Returns:
    Names.
  """
  if depth and defaults and tokens.skipped('subgraph') and tokens.next.is_word:
    tokens.take()
  if depth and tokens.next.text != '{':
    token = tokens.word()
    found.variable(token.name, token.line)
    return [token.name]
  if depth > _MAX_DEPTH:
    raise tokens.refuse(f'at most {_MAX_DEPTH} braces inside each other')
  tokens.expect('{')
  inside: list[str] = []
  while not tokens.skipped('}'):
    if tokens.next.text.lower() in defaults:
      tokens.take()
      tokens.expect('[')
      _attributes(tokens, found)
    elif tokens.after.text == '=':
      tokens.word('an attribute')
      tokens.take()
      tokens.value()
    elif not tokens.skipped(';', ','):
      inside += _chain(tokens, found, defaults, depth + 1)
  return list(dict.fromkeys(inside))


def _chain(tokens, found, defaults, depth):
  """Variables with their attributes, or edges: the variables in them."""
  names = last = _group(tokens, found, defaults, depth)
  while tokens.next.text in ('->', '<-'):
    arrow = tokens.take()
    group = _group(tokens, found, defaults, depth)
    causes, effects = (last, group) if arrow.text == '->' else (group, last)
    for cause in causes:
      for effect in effects:
        found.edge(cause, effect, arrow.line)
    names, last = names + group, group
  line = tokens.next.line
  if tokens.skipped('[') and _attributes(tokens, found):
    if len(names) != 1:
      raise found.refuse(line, 'only a variable is latent; say so beside one')
    found.variable(names[0], line, latent=True)
  return names


def _attributes(tokens, found):
  """Takes attributes and the bracket after them: whether one says latent."""
  latent = False
  while not tokens.skipped(']'):
    if tokens.skipped(',', ';'):
      continue
    token = tokens.word('an attribute')
    key = token.name.lower()
    value = tokens.value().lower() if tokens.skipped('=') else 'true'
    if key in _LATENT:
      if value not in ('true', 'false'):
        raise found.refuse(token.line, f'{key} is true or false, not {value}')
      latent = value == 'true'
    if key == 'dir' and value != 'forward':
      raise found.refuse(
        token.line, f'dir={value} turns an edge; write it as A -> B alone'
      )
  return latent


def _read_gml(text, found):
  tokens = _Tokens(text, found)
  graph = _field(found, _gml_list(tokens, '', 0), 'graph', 1)
  inside = _pairs(found, graph)
  if _text(found, _field(found, inside, 'directed', graph.line)) != '1':
    raise found.refuse(
      graph.line, 'the graph has to say directed 1, and its edges to mean it'
    )
  labels: dict[str, str] = {}
  for node in inside:
    if node.key == 'node':
      fields = _pairs(found, node)
      number = _text(found, _field(found, fields, 'id', node.line))
      label = _text(found, _field(found, fields, 'label', node.line))
      latent = any(f.key in _LATENT and f.value == '1' for f in fields)
      if number in labels or label in found.variables:
        raise found.refuse(
          node.line, f'the id {number} or the label {label} is already taken'
        )
      labels[number] = label
      found.variable(label, node.line, latent=latent)
  for edge in inside:
    if edge.key == 'edge':
      fields = _pairs(found, edge)
      ends = []
      for end in ('source', 'target'):
        number = _text(found, _field(found, fields, end, edge.line))
        if number not in labels:
          raise found.refuse(
            edge.line, f'there is no node with the id {number}'
          )
        ends.append(labels[number])
      found.edge(*ends, edge.line)


class _Pair(NamedTuple):
  """Of GML: a key with a text, or with pairs."""

  key: str
  value: 'str | list[_Pair]'
  line: int


def _gml_list(tokens, end, depth):
  """Takes pairs up to a mark, and that: a list of `_Pair`."""
  if depth > _MAX_DEPTH:
    raise tokens.refuse(f'at most {_MAX_DEPTH} brackets inside each other')
  pairs = []
  while not tokens.skipped(end):
    token = tokens.word('a key')
    inner = tokens.skipped('[')
    value = _gml_list(tokens, ']', depth + 1) if inner else tokens.value()
    pairs.append(_Pair(token.name.lower(), value, token.line))
  return pairs


def _field(found, pairs, key, line):
  """The one pair with a key."""
  fitting = [pair for pair in pairs if pair.key == key]
  if len(fitting) != 1:
    raise found.refuse(
      line, f'what begins here has {len(fitting)} fields {key!r}, and needs one'
    )
  return fitting[0]


def _pairs(found, pair):
  if isinstance(pair.value, str):
    raise found.refuse(pair.line, f'{pair.key} needs a list in [ ]')
  return pair.value


def _text(found, pair):
  if not isinstance(pair.value, str):
    raise found.refuse(pair.line, f'{pair.key} needs one value, not a list')
  return pair.value


def _read_bif(text, found):
  tokens = _Tokens(text, found)
  has_table: set[str] = set()
  while not tokens.skipped(''):
    line = tokens.next.line
    if tokens.skipped('network'):
      if tokens.next.is_word:
        tokens.take()
    elif tokens.skipped('variable'):
      name = tokens.word().name
      if name in found.variables:
        raise found.refuse(line, f'there is a variable {name} already')
      found.variable(name, line)
    elif tokens.skipped('probability'):
      names = _bif_table(tokens)
      for name in names:
        if name not in found.variables:
          raise found.refuse(
            line, f'no variable {name} is declared before this'
          )
      effect, *causes = names
      if effect in has_table:
        raise found.refuse(line, f'{effect} has a probability already')
      has_table.add(effect)
      for cause in causes:
        found.edge(cause, effect, line)
    else:
      raise tokens.refuse('network, variable or probability')
    tokens.skip_block()
  for name in found.variables:
    if name not in has_table:
      raise errors.UsageError(f'{found.source}: {name} has no probability')


def _bif_table(tokens):
  """Takes `(A | B, C)`: these names."""
  tokens.expect('(')
  names = [tokens.word().name]
  if tokens.skipped('|'):
    names.append(tokens.word().name)
    while tokens.skipped(','):
      names.append(tokens.word().name)
  tokens.expect(')')
  return names


_READERS: dict[str, Callable[[str, _Found], None]] = {
  '.txt': _read_edges,
  '.edges': _read_edges,
  '.csv': _read_csv,
  '.dot': _read_dot,
  '.gv': _read_dot,
  '.dagitty': _read_dagitty,
  '.gml': _read_gml,
  '.bif': _read_bif,
}
