"""Reads a causal graph, without its mechanisms, from a file.

The suffix of the file name selects the format:

  .txt, .edges, .csv  one edge per line: `A -> B`, `A --> B`, `A, B` or `A B`.
      `A` alone declares a variable, `U [latent]` a latent one, and # starts a
      comment. A .csv may begin with a header, `from,to` or `source,target`.
  .dot, .gv  Graphviz: `digraph { A -> B -> C; A -> {D E}; U [latent] }`. If all
      nodes are numbers and have labels, the labels are the names.
  .dagitty  DAGitty: `dag { A -> B <- C  U [latent,pos="0,1"] }`.
  .gml  GML with `directed 1`; the names are the labels.
  .bif  Bayesian network interchange format; only the parents of each
      probability table are read.

A node of DOT, DAGitty or GML is latent if it has one of the attributes `latent`
and `unobserved`, or `observed=no`. Other attributes, such as colors and
positions, are ignored, except those that make an edge undirected, bidirected,
reversed or invisible, see `edge_marks`: such edges are errors. A latent common
cause has to be a variable of its own. Variables keep the order of their first
mention. Letters are compared in the Unicode normal form NFC.
"""

from collections.abc import Callable, Iterable, Mapping
import graphlib
import html
import pathlib
import re
from typing import NamedTuple
import unicodedata

import numpy as np

from acme_cbo.infra import errors
from acme_cbo.infra import files
from acme_cbo.infra import text as text_lib
from acme_cbo.scms.files import edge_marks
from acme_cbo.scms.files import graph_tokens

_MAX_BYTES = 10**7
_MAX_VARIABLES = 256
# Of a file: a short text may repeat edges of large groups many times.
_MAX_EDGES = 10**6
_MAX_DEPTH = 32  # Nesting of brackets.
# Of a name before it is normalized, which may take the square of its length.
_MAX_RAW_LENGTH = 4 * graph_tokens.MAX_LENGTH

_NAME = re.compile(r'\w+(?:[.-]\w+)*')
_WORD = rf'"[^"\n]*"|{graph_tokens.NAME.pattern}'
_LINE = re.compile(
  rf'(?P<cause>{_WORD})(?:\s*\[\s*(?P<latent>latent|unobserved)\s*\]'
  rf'|(?:\s*(?:,|-?->)\s*|\s+)(?P<effect>{_WORD}))?'
)
_HEADERS = (('from', 'to'), ('source', 'target'))
# Attribute of a node: whether the node is latent if it is true.
_LATENT = {'latent': True, 'unobserved': True, 'observed': False}
_TRUTH = {
  **dict.fromkeys(('true', 'yes', '1'), True),
  **dict.fromkeys(('false', 'no', '0'), False),
}
# Attributes that are read; others are ignored.
_ATTRIBUTES = (*_LATENT, *edge_marks.ATTRIBUTES, 'label')
# Attribute of the graphics of an edge in GML: the attribute in DOT.
_GRAPHICS = {
  'arrow': 'dir',
  'sourcearrow': 'arrowtail',
  'targetarrow': 'arrowhead',
}
_DIRECTIONS = {'first': 'back', 'last': 'forward'}
_ENTITY = re.compile(r'&#?[0-9A-Za-z]{1,10};')


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
  'o' and a combining mark. Names are compared in this form. A text that is too
  long to be a name is returned as it is, since to normalize it could take long.

  Args:
    name: name of a variable as a file has it.
  """
  if len(name) > _MAX_RAW_LENGTH:
    return name
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


class _Builder:
  """Collects variables and edges in the order of the file.

  Attributes:
    source: name of the file in error messages.
    variables: {name: whether the variable is latent}.
    edges: {edge: its line}.
    allows_duplicates: whether an edge that is given twice is one edge.
  """

  def __init__(self, source: str):
    self.source = source
    self.variables: dict[str, bool] = {}
    self.edges: dict[tuple[str, str], int] = {}
    self.allows_duplicates = False
    self._num_edges = 0  # Including duplicates.

  def name(self, text: str, line: int) -> str:
    """Returns the normal form of a name, which must be valid."""
    if text in self.variables:
      return text
    name = normalized_name(text)
    if not _NAME.fullmatch(name) or len(name) > graph_tokens.MAX_LENGTH:
      raise self.error(
        line,
        f'{name[: graph_tokens.MAX_LENGTH]!r} is not a valid variable name; '
        f'use at most {graph_tokens.MAX_LENGTH} letters, digits and _, with '
        f'single . or - between them{_proposal(name)}',
      )
    return name

  def variable(self, text: str, line: int, latent: bool = False) -> str:
    """Adds a variable unless it exists.

    Args:
      text: its name.
      line: line of the name.
      latent: whether a new variable is latent.

    Returns:
      The normal form of the name.
    """
    name = self.name(text, line)
    self.variables.setdefault(name, latent)
    if len(self.variables) > _MAX_VARIABLES:
      raise self.error(
        line,
        f'variable {name!r} exceeds the limit of {_MAX_VARIABLES} variables',
      )
    return name

  def edge(self, cause: str, effect: str, line: int) -> None:
    """Adds an edge between existing variables."""
    self._num_edges += 1
    if self._num_edges > _MAX_EDGES:
      raise self.error(line, f'the file has more than {_MAX_EDGES:,} edges')
    if cause == effect:
      raise self.error(
        line, f'{cause!r} is a cause of itself; remove this edge'
      )
    if (cause, effect) in self.edges and not self.allows_duplicates:
      raise self.error(
        line,
        f'duplicate edge {cause} -> {effect}, first on line '
        f'{self.edges[cause, effect]}; remove one of them',
      )
    self.edges.setdefault((cause, effect), line)

  def rename(self, names: Mapping[str, str]) -> None:
    """Renames all variables; `names` is {old name: new name}."""
    self.variables = {names[n]: latent for n, latent in self.variables.items()}
    self.edges = {
      (names[cause], names[effect]): line
      for (cause, effect), line in self.edges.items()
    }

  def error(self, line: int, sentence: str) -> errors.UsageError:
    """Returns an error at a line, to be raised by the caller.

    Args:
      line: the line, counted from 1.
      sentence: what is wrong; may quote the file.
    """
    shown = text_lib.printable(sentence, keep='')
    return errors.UsageError(f'{self.source}, line {line}: {shown}')

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


def _proposal(name):
  """Returns the end of a sentence that proposes a valid name."""
  valid = '_'.join(re.findall(r'\w+', name))[: graph_tokens.MAX_LENGTH]
  if not valid:
    return ''
  return f'; rename it in all files, for example to {valid}'


def _unquoted(word):
  return word[1:-1] if word.startswith('"') else word


def _read_edges(text, builder):
  """Reads one edge or one variable per line."""
  for number, line in enumerate(text.split('\n'), 1):
    content = line.partition('#')[0].strip()
    if not content:
      continue
    match = _LINE.fullmatch(content)
    if match is None:
      raise builder.error(
        number,
        edge_marks.check_mark(content)
        or 'expected one edge (A -> B, A, B or A B) or one variable (A or '
        f'A [latent]), got {content[: graph_tokens.MAX_LENGTH]}',
      )
    cause = builder.variable(_unquoted(match['cause']), number)
    if match['latent'] is not None:
      builder.variables[cause] = True
    if match['effect'] is not None:
      effect = builder.variable(_unquoted(match['effect']), number)
      builder.edge(cause, effect, number)


def _read_csv(text, builder):
  first, end, rest = text.partition('\n')
  names = tuple(name.strip(' \t\r"').lower() for name in first.split(','))
  if names[::-1] in _HEADERS:
    raise builder.error(
      1, f'the columns are {first.strip()}; put that of the causes first'
    )
  _read_edges(f'{end}{rest}' if names in _HEADERS else text, builder)


def _read_dot(text, builder):
  tokens = graph_tokens.Tokens(text, builder.error, dot=True)
  builder.allows_duplicates = tokens.skip('strict')
  tokens.expect('digraph')
  body = _Body(tokens, builder, has_keywords=True)
  body.read()
  # Programs that number the nodes keep the names in the labels.
  if body.labels and all(name.isdecimal() for name in builder.variables):
    builder.rename(_labels(builder, body.labels))


def _labels(builder, labels):
  """Returns {node: its label}, the label being a unique name."""
  names: dict[str, str] = {}
  for node in builder.variables:
    if node not in labels:
      raise errors.UsageError(
        f'{builder.source}: node {node} has no label, and others have; label '
        'each node with the name of its variable, or none'
      )
    label, line = labels[node]
    name = builder.name(_decoded(label), line)
    if name in names:
      raise builder.error(
        line,
        f'nodes {names[name]} and {node} have the same label {name}; label '
        'each node with the name of its variable',
      )
    names[name] = node
  return {node: name for name, node in names.items()}


def _decoded(text):
  """Replaces the entities of HTML, such as &#246;, by their characters."""

  def character(entity):
    # Nothing comes out for control characters, which no name may contain.
    return html.unescape(entity.group()) or entity.group()

  return _ENTITY.sub(character, text)


def _read_dagitty(text, builder):
  builder.allows_duplicates = True
  tokens = graph_tokens.Tokens(text, builder.error, dot=True)
  tokens.expect('dag')
  _Body(tokens, builder, has_keywords=False).read()


class _Body:
  """Reader of the statements of DOT and DAGitty.

  Attributes:
    labels: {node: its label and the line of it}.
  """

  def __init__(
    self,
    tokens: graph_tokens.Tokens,
    builder: _Builder,
    has_keywords: bool,
  ):
    """Initializes the reader.

    Args:
      tokens: token stream.
      builder: collects variables and edges.
      has_keywords: whether graph, node, edge and subgraph are keywords.
    """
    self.labels: dict[str, tuple[str, int]] = {}
    self._tokens = tokens
    self._builder = builder
    self._has_keywords = has_keywords

  def read(self) -> None:
    """Reads a graph from its name to the end of the file."""
    if self._tokens.next.is_word:
      self._tokens.take()
    self._group({'graph': {}, 'node': {}, 'edge': {}}, 0)
    self._tokens.expect('')

  def _group(
    self, defaults: Mapping[str, Mapping[str, str]], depth: int
  ) -> dict[str, None]:
    """Reads a variable, or statements in braces.

    Args:
      defaults: {keyword: default attributes} set before the group.
      depth: nesting depth of the braces.

    Returns:
      Names of the variables in the group, as keys.
    """
    tokens = self._tokens
    if depth and self._has_keywords and tokens.skip('subgraph'):
      if tokens.next.is_word:
        tokens.take()
    elif depth and tokens.next.text != '{':
      token = tokens.word()
      latent = _is_latent(self._builder, token.line, defaults['node'])
      return {self._builder.variable(token.value, token.line, latent): None}
    if depth > _MAX_DEPTH:
      raise self._builder.error(
        tokens.next.line, f'braces are nested more than {_MAX_DEPTH} deep'
      )
    tokens.expect('{')
    own = {keyword: {**defaults[keyword]} for keyword in defaults}
    names: dict[str, None] = {}
    while not tokens.skip('}'):
      keyword = tokens.next.text.lower()
      if self._has_keywords and keyword in own:
        tokens.take()
        tokens.expect('[')
        own[keyword] |= self._attributes()
      elif tokens.after.text == '=':
        tokens.word('an attribute')
        tokens.take()
        tokens.value()
      elif not tokens.skip(';', ','):
        names |= self._chain(own, depth + 1)
    return names

  def _chain(
    self, defaults: Mapping[str, Mapping[str, str]], depth: int
  ) -> dict[str, None]:
    """Reads variables or edges, and their attributes; returns the names."""
    tokens = self._tokens
    last = self._group(defaults, depth)
    names = dict(last)
    edges: list[tuple[Iterable[str], Iterable[str], int]] = []
    while tokens.next.text in ('->', '<-'):
      arrow = tokens.take()
      group = self._group(defaults, depth)
      edges.append(
        (last, group, arrow.line)
        if arrow.text == '->'
        else (group, last, arrow.line)
      )
      names |= group
      last = group
    line = tokens.next.line
    attributes = self._attributes() if tokens.skip('[') else {}
    if edges:
      reason = edge_marks.check_attributes(
        _marks({**defaults['edge'], **attributes})
      )
      if reason:
        raise self._builder.error(edges[0][2], reason)
    for causes, effects, edge_line in edges:
      for cause in causes:
        for effect in effects:
          self._builder.edge(cause, effect, edge_line)
    if not attributes.keys().isdisjoint(_LATENT):
      latent = _is_latent(self._builder, line, attributes)
      if latent and (edges or len(names) != 1):
        raise self._builder.error(
          line, '[latent] must follow a single variable'
        )
      for name in names:
        self._builder.variables[name] |= latent
    if 'label' in attributes and not edges and len(names) == 1:
      self.labels[next(iter(names))] = attributes['label'], line
    return names

  def _attributes(self) -> dict[str, str]:
    """Reads attributes to the closing bracket; returns those that count."""
    tokens = self._tokens
    attributes: dict[str, str] = {}
    # A list may follow the other: [dir=both] [arrowtail=none].
    while not tokens.skip(']') or tokens.skip('['):
      if tokens.skip(',', ';'):
        continue
      key = tokens.word('an attribute').value.lower()
      value = tokens.value() if tokens.skip('=') else 'true'
      if key in _ATTRIBUTES:
        attributes[key] = value
    return attributes


def _marks(attributes):
  """Returns the attributes that decide the meaning of an edge."""
  return {
    name: attributes[name].lower()
    for name in edge_marks.ATTRIBUTES
    if name in attributes
  }


def _is_latent(builder, line, attributes):
  """Returns whether the attributes of a node make it latent."""
  latent = False
  for key, meaning in _LATENT.items():
    if key in attributes:
      value = attributes[key].lower()
      if value not in _TRUTH:
        raise builder.error(line, f'{key} must be true or false, got {value}')
      latent |= _TRUTH[value] == meaning
  return latent


def _read_gml(text, builder):
  tokens = graph_tokens.Tokens(text, builder.error)
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
      name = builder.name(label, node.line)
      if number in labels or name in builder.variables:
        raise builder.error(
          node.line, f'the id {number} or the label {name} is already in use'
        )
      latent = _is_latent(builder, node.line, _gml_attributes(fields))
      labels[number] = builder.variable(name, node.line, latent)
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
      reason = edge_marks.check_attributes(_marks(_gml_attributes(fields)))
      if reason:
        raise builder.error(edge.line, reason)
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
      value = _decoded(tokens.value())
    pairs.append(_Pair(token.value.lower(), value, token.line))
  return pairs


def _gml_attributes(fields):
  """Returns the attributes of a node or an edge, named as in DOT."""
  attributes: dict[str, str] = {}
  for key, value, _ in fields:
    if isinstance(value, str):
      attributes[key] = value
    elif key == 'graphics':
      for inner in value:
        if inner.key in _GRAPHICS and isinstance(inner.value, str):
          name = inner.value.lower()
          attributes[_GRAPHICS[inner.key]] = _DIRECTIONS.get(name, name)
  return attributes


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
  tokens = graph_tokens.Tokens(text, builder.error)
  has_table: set[str] = set()
  while not tokens.skip(''):
    line = tokens.next.line
    if tokens.skip('network'):
      if tokens.next.is_word:
        tokens.take()
    elif tokens.skip('variable'):
      name = builder.name(tokens.word().value, line)
      if name in builder.variables:
        raise builder.error(line, f'duplicate variable {name}')
      builder.variable(name, line)
    elif tokens.skip('probability'):
      effect, *causes = _bif_table(tokens, builder)
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


def _bif_table(tokens, builder):
  """Reads `(A | B, C)`, in some files `(A | B C)` or `(A B C)`.

  Args:
    tokens: token stream.
    builder: has the variables.

  Returns:
    Names of the variables, the effect first.
  """
  tokens.expect('(')
  names: list[str] = []
  while not names or not tokens.skip(')'):
    token = tokens.word()
    name = builder.name(token.value, token.line)
    if name not in builder.variables:
      raise builder.error(token.line, f'variable {name} is not declared above')
    tokens.skip(',' if names else '|')
    names.append(name)
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
