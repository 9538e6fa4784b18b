"""Reads YAML node by node, without constructing Python objects from it.

Tags, anchors and aliases are errors, a name is the string that was written
(`NO` and `Y` are no booleans) in the normal form NFC, and errors name the line
and the column.
"""

from collections.abc import Sequence
import re
from typing import NoReturn

import numpy as np
import yaml

from acme_cbo.infra import errors
from acme_cbo.scms.files import graph_files

_MAX_DEPTH = 8
# Largest absolute value of a number: its cube does not overflow in float32.
_MAX_NUMBER = 1e12
_NUMBER = re.compile(
  r'[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?', re.ASCII
)

_BOOLEANS = {
  **dict.fromkeys(('true', 'True', 'TRUE'), True),
  **dict.fromkeys(('false', 'False', 'FALSE'), False),
}
# Terminals may act on these, no file can hold the last ones (halves of pairs in
# UTF-16), and none of them is part of a text.
_CONTROL = re.compile(r'[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]')

_START = yaml.Mark('', 0, 0, 0, None, 0)


class NodeError(Exception):
  """An error at a line and column of a YAML file.

  Attributes:
    position: 'line:column', counted from 1.
  """

  def __init__(self, reason: str, mark: yaml.Mark, shift: int = 0):
    """Computes the position.

    Args:
      reason: what is wrong.
      mark: YAML's mark of the position.
      shift: columns to add to it.
    """
    super().__init__(reason)
    self.position = f'{mark.line + 1}:{mark.column + 1 + shift}'


class _Loader(yaml.SafeLoader):
  """Composes nodes; tags, anchors, aliases and deep nesting are errors."""

  _depth = 0

  def compose_node(self, parent, index):
    event = self.peek_event()
    mark = event.start_mark
    if isinstance(event, yaml.AliasEvent) or event.anchor:
      raise NodeError('anchors (&) and aliases (*) are not supported', mark)
    if event.tag:
      raise NodeError('tags (!) are not supported', mark)
    if self._depth == _MAX_DEPTH:
      raise NodeError(f'nested more than {_MAX_DEPTH} levels deep', mark)
    self._depth += 1
    node = super().compose_node(parent, index)
    self._depth -= 1
    return node

  def compose_mapping_node(self, anchor):
    node = super().compose_mapping_node(anchor)
    for key, _ in node.value:
      if isinstance(key, yaml.ScalarNode):
        key.value = graph_files.normalized_name(key.value)
    return node


def compose(text: str) -> yaml.Node:
  """Composes the tree of nodes of a text.

  Args:
    text: YAML text.

  Returns:
    The root node.

  Raises:
    NodeError: the text is empty or invalid.
  """
  try:
    root = yaml.compose(text, Loader=_Loader)
  except yaml.reader.ReaderError as error:
    before = text[: error.position]
    mark = yaml.Mark(
      '', 0, before.count('\n'), len(before) - before.rfind('\n') - 1, None, 0
    )
    raise NodeError('invalid character', mark) from error
  except yaml.MarkedYAMLError as error:
    problem = ' '.join(f'{error.problem}'.split()).removeprefix('but ')
    raise NodeError(
      f'invalid YAML: {problem}', error.problem_mark or _START
    ) from error
  # The code of a character, or a version, is too large for a number.
  except (ValueError, OverflowError) as error:
    raise NodeError('invalid YAML: a number is too large', _START) from error
  if root is None:
    raise NodeError('the file is empty; it must describe a system', _START)
  return root


def fail(node: yaml.Node, reason: str) -> NoReturn:
  """Raises a `NodeError` at the position of a node."""
  raise NodeError(reason, node.start_mark)


def pairs(
  node: yaml.Node, label: str
) -> list[tuple[yaml.ScalarNode, yaml.Node]]:
  """Returns the keys of a mapping, unique strings, and their values."""
  if not isinstance(node, yaml.MappingNode):
    fail(node, f'{label} must be a mapping (key: value)')
  keys = set()
  for key, _ in node.value:
    word(key, f'a key of {label}')
    if key.value in keys:
      fail(key, f'{label}: duplicate key {short(key.value)}')
    keys.add(key.value)
  return node.value


def fields(
  node: yaml.Node,
  label: str,
  allowed: Sequence[str],
  required: Sequence[str] = (),
) -> dict[str, yaml.Node]:
  """Returns the values of a mapping by their keys.

  Args:
    node: the mapping.
    label: description of the mapping in error messages.
    allowed: allowed keys.
    required: keys that must be present.

  Returns:
    {key: value}.

  Raises:
    NodeError: the node is no mapping, or has wrong keys.
  """
  values = {}
  for key, value in pairs(node, label):
    if key.value not in allowed:
      hint = errors.did_you_mean_or_options(key.value, allowed)
      fail(key, f'{label}: unknown key {short(key.value)}{hint}')
    values[key.value] = value
  for name in required:
    if name not in values:
      fail(node, f'{label}: {name} is missing')
  return values


def items(node: yaml.Node, label: str) -> list[yaml.Node]:
  """Returns the nodes of a list."""
  if not isinstance(node, yaml.SequenceNode):
    fail(node, f'{label} must be a list [...]')
  return node.value


def scalar(node: yaml.Node, label: str) -> yaml.ScalarNode:
  """Returns the node itself, a string with something to see in it."""
  if not isinstance(node, yaml.ScalarNode):
    fail(node, f'{label} must be a string')
  if not node.value.strip():
    fail(node, f'{label} is empty')
  if _CONTROL.search(node.value):
    fail(
      node,
      f'{label} must not contain control characters, got {short(node.value)}',
    )
  return node


def word(node: yaml.Node, label: str) -> str:
  """Returns a string as written, whatever type YAML would give it."""
  return scalar(node, label).value


def name(node: yaml.Node, label: str) -> str:
  """Returns the name of a variable in its normal form."""
  return graph_files.normalized_name(word(node, label))


def boolean(node: yaml.Node, label: str) -> bool:
  """Returns a boolean."""
  value = word(node, label)
  if value not in _BOOLEANS:
    fail(node, f'{label} must be true or false, got {short(value)}')
  return _BOOLEANS[value]


def option(node: yaml.Node, label: str, options: Sequence[str]) -> str:
  """Returns a string that is one of several options."""
  value = word(node, label)
  if value not in options:
    fail(node, f'{label} must be {" or ".join(options)}, got {short(value)}')
  return value


def index(node: yaml.Node, label: str, names: Sequence[str]) -> int:
  """Returns the index of the variable that a string names."""
  variable = name(node, label)
  if variable not in names:
    hint = errors.did_you_mean_or_options(variable, names)
    fail(node, f'{label}: unknown variable {short(variable)}{hint}')
  return list(names).index(variable)


def number(node: yaml.Node, label: str) -> float:
  """Returns a finite number; it must not be quoted."""
  written = scalar(node, label)
  text = written.value
  is_number = _NUMBER.fullmatch(text)
  if is_number and written.style is not None:
    fail(
      node,
      f'{label} must be a number, got the text {short(text)}; write it without '
      'quotes',
    )
  if not is_number:
    fail(node, f'{label} must be a finite number, got {short(text)}')
  value = float(text)
  if abs(value) > _MAX_NUMBER:
    fail(
      node,
      f'{label} must be a number within ±{_MAX_NUMBER:g}, got {short(text)}; '
      'choose a larger unit',
    )
  return value


def positive(node: yaml.Node, label: str) -> float:
  """Returns a number that is positive, also in float32."""
  value = number(node, label)
  if not np.float32(value) > 0:
    fail(node, f'{label} must be positive, got {value:g}')
  return value


def short(word: str) -> str:
  """Quotes and shortens a string for an error message."""
  return repr(word if len(word) <= 40 else f'{word[:40]}…')
