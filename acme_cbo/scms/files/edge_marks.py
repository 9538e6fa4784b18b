"""Decides whether the marks at the ends of an edge make it a directed one.

A program for causal discovery writes the edges of its result as directed ones
and adds marks for those that are not: an edge `A -> B [arrowhead=none]` is
undirected, and a circle at an end stands for any mark. An edge has the meaning
with which Graphviz draws it.
"""

from collections.abc import Mapping
import re

ADVICE = (
  'write A -> B if A causes B, and model a latent common cause of A and B as a '
  'variable: U [latent], U -> A, U -> B'
)
# Attributes of an edge that decide its meaning.
ATTRIBUTES = ('dir', 'arrowhead', 'arrowtail', 'style', 'color', 'penwidth')

# Values of attributes with which Graphviz does not draw an edge.
_HIDDEN = {
  'style': re.compile(r'(?:.*[\s,])?invis(?:[\s,].*)?'),
  'color': re.compile('transparent|#[0-9a-f]{6}00'),
  'penwidth': re.compile(r'0+(?:\.0*)?|\.0+'),
}
_DIRECTIONS = ('forward', 'back', 'both', 'none')
_KINDS = {
  ('none', 'none'): 'an undirected edge',
  ('arrow', 'arrow'): 'a bidirected edge',
  ('arrow', 'none'): 'an edge in the other direction',
}
_CIRCLE = 'an edge of a partial ancestral graph, whose direction is not known'
# Texts of edges that are not directed.
_MARKS = {
  '--': _KINDS['none', 'none'],
  '<->': _KINDS['arrow', 'arrow'],
  'o->': _CIRCLE,
  '<-o': _CIRCLE,
  'o-o': _CIRCLE,
}
_MARK = re.compile(r'(?<!\w)o-(?:o(?!\w)|>)|<-o(?!\w)|<->|--')


def check_mark(text: str) -> str:
  """Returns why a text is not a directed edge; '' if it is no edge.

  Args:
    text: an edge such as `A -- B`, or the mark alone.
  """
  match = _MARK.search(text)
  if match is None:
    return ''
  return f'{match.group()} is {_MARKS[match.group()]}; {ADVICE}'


def check_attributes(attributes: Mapping[str, str]) -> str:
  """Returns why attributes of an edge do not make it directed; '' if they do.

  Args:
    attributes: {name: value} of those in `ATTRIBUTES` that are given, in lower
      case.
  """
  given = ' '.join(
    f'{name}={value}'
    for name, value in attributes.items()
    if name not in _HIDDEN
  )
  for name, hidden in _HIDDEN.items():
    value = attributes.get(name, '')
    if hidden.fullmatch(value):
      return (
        f'{name}={value} hides this edge; remove the edge if it is there for '
        f'the layout only, or else the {name}'
      )
  direction = attributes.get('dir', 'forward')
  if direction not in _DIRECTIONS:
    return f'dir must be {" or ".join(_DIRECTIONS)}, got {direction}'
  head = tail = 'none'
  if direction in ('forward', 'both'):
    head = _kind(attributes.get('arrowhead', 'normal'))
  if direction in ('back', 'both'):
    tail = _kind(attributes.get('arrowtail', 'normal'))
  elif 'dir' not in attributes:
    # Graphviz does not draw it, but whoever wrote it meant it.
    tail = _kind(attributes.get('arrowtail', 'none'))
  if 'circle' in (head, tail):
    return f'{given} is {_CIRCLE}; {ADVICE}'
  kind = _KINDS.get((tail, head), '')
  return kind and f'{given} is {kind}; {ADVICE}'


def _kind(shape: str) -> str:
  """Returns the meaning of an arrow shape: arrow, none or circle."""
  if 'dot' in shape or 'circle' in shape:
    return 'circle'
  return 'none' if shape in ('none', '') else 'arrow'
