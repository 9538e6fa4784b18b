"""Takes YAML apart, node by node; nothing is ever constructed from it.

No tag, anchor or alias is followed, a name is what was written (`NO` and `Y`
are no truth values), and whatever is wrong is told with its line and column.
"""

from collections.abc import Sequence
import re
from typing import NoReturn

import numpy as np
import yaml

from acme_cbo.infra import errors

_MAX_DEPTH = 8
# Numbers beyond it are nobody's units, and would be infinite in float32.
_MAX_NUMBER = 1e9
_NUMBER = re.compile(
  r'[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?', re.ASCII
)

_START = yaml.Mark('', 0, 0, 0, None, 0)


class Complaint(Exception):
  """What is wrong, and the place: a mark of YAML's."""

  def __init__(self, what: str, mark: yaml.Mark, shift: int = 0):
    super().__init__(what)
    self.place = f'{mark.line + 1}:{mark.column + 1 + shift}'


class _Loader(yaml.SafeLoader):
  """Composes nodes, and refuses what would make one of them mean more."""

  _depth = 0

  def compose_node(self, parent, index):
    event = self.peek_event()
    mark = event.start_mark
    if isinstance(event, yaml.AliasEvent) or event.anchor:
      raise Complaint('anchors (&) and aliases (*) are not read', mark)
    if event.tag:
      raise Complaint('tags (!) are not read', mark)
    if self._depth == _MAX_DEPTH:
      raise Complaint(f'nested over {_MAX_DEPTH} deep', mark)
    self._depth += 1
    node = super().compose_node(parent, index)
    self._depth -= 1
    return node


def compose(text: str) -> yaml.Node:
  """The tree of nodes of a text."""
  try:
    root = yaml.compose(text, Loader=_Loader)
  except yaml.reader.ReaderError as error:
    before = text[: error.position]
    mark = yaml.Mark(
      '', 0, before.count('\n'), len(before) - before.rfind('\n') - 1, None, 0
    )
    raise Complaint('a character that no text has', mark) from error
  except yaml.MarkedYAMLError as error:
    what = ' '.join(f'{error.problem}'.split()).removeprefix('but ')
    raise Complaint(
      f'not YAML: {what}', error.problem_mark or _START
    ) from error
  # A code of a character, or a version, that is too large for a number.
  except (ValueError, OverflowError) as error:
    raise Complaint('not YAML: a number is too large', _START) from error
  if root is None:
    raise Complaint('empty; it must describe a system', _START)
  return root


def refuse(node: yaml.Node, what: str) -> NoReturn:
  """Complains at the place of a node."""
  raise Complaint(what, node.start_mark)


def pairs(
  node: yaml.Node, what: str
) -> list[tuple[yaml.ScalarNode, yaml.Node]]:
  """Keys, which are words, each once, and their nodes."""
  if not isinstance(node, yaml.MappingNode):
    refuse(node, f'{what} must be a mapping (key: value)')
  seen = set()
  for key, _ in node.value:
    word(key, f'a key of {what}')
    if key.value in seen:
      refuse(key, f'{what}: {short(key.value)} is there twice')
    seen.add(key.value)
  return node.value


def fields(
  node: yaml.Node,
  what: str,
  known: Sequence[str],
  needed: Sequence[str] = (),
) -> dict[str, yaml.Node]:
  """Nodes by their keys, of which some are known and some are needed."""
  found = {}
  for key, value in pairs(node, what):
    if key.value not in known:
      hint = errors.did_you_mean_or_options(key.value, known)
      refuse(key, f'{what}: key {short(key.value)} is unknown{hint}')
    found[key.value] = value
  for name in needed:
    if name not in found:
      refuse(node, f'{what}: {name} is missing')
  return found


def items(node: yaml.Node, what: str) -> list[yaml.Node]:
  """The nodes of a list."""
  if not isinstance(node, yaml.SequenceNode):
    refuse(node, f'{what} must be a list [...]')
  return node.value


def scalar(node: yaml.Node, what: str) -> yaml.ScalarNode:
  """A node that holds a text, which is not empty."""
  if not isinstance(node, yaml.ScalarNode):
    refuse(node, f'{what} must be a text')
  if not node.value.strip():
    refuse(node, f'{what} is empty')
  return node


def word(node: yaml.Node, what: str) -> str:
  """A text as it was written, whatever YAML would make of it."""
  return scalar(node, what).value


def option(node: yaml.Node, what: str, options: Sequence[str]) -> str:
  """A word that is one of some."""
  said = word(node, what)
  if said not in options:
    refuse(node, f'{what} must be {" or ".join(options)}, got {short(said)}')
  return said


def index(node: yaml.Node, what: str, names: Sequence[str]) -> int:
  """Which of the variables a word names."""
  said = word(node, what)
  if said not in names:
    hint = errors.did_you_mean_or_options(said, names)
    refuse(node, f'{what}: {short(said)} is no variable{hint}')
  return list(names).index(said)


def number(node: yaml.Node, what: str) -> float:
  """A finite number, written as one."""
  written = scalar(node, what)
  text = written.value
  if written.style is not None or not _NUMBER.fullmatch(text):
    refuse(node, f'{what} must be a finite number, got {short(text)}')
  value = float(text)
  if abs(value) > _MAX_NUMBER:
    refuse(
      node,
      f'{what} must be a number within ±{_MAX_NUMBER:g}, got {short(text)}',
    )
  return value


def positive(node: yaml.Node, what: str) -> float:
  """A number above 0, in float32 too."""
  value = number(node, what)
  if not np.float32(value) > 0:
    refuse(node, f'{what} must be positive, got {value:g}')
  return value


def short(word: str) -> str:
  """A word in quotes, on one line and not too long."""
  return repr(word if len(word) <= 40 else f'{word[:40]}…')
