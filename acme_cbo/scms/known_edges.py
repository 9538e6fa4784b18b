"""Edges of a causal graph that a user knows, or rules out."""

from collections.abc import Mapping, Sequence
import graphlib
from typing import Any

import numpy as np

from acme_cbo.infra import errors

# Kinds of known edges, and their entries in `types.Problem.edges`.
_KINDS = {'required': 1.0, 'forbidden': -1.0}
_ARROW = '->'


def parse(edges: Any, names: Sequence[str]) -> np.ndarray | None:
  """Returns known edges as an array.

  Args:
    edges: {'required': edges, 'forbidden': edges}, either of which may be
      missing; an edge is 'cause -> effect' or a pair (cause, effect). None if
      nothing is known.
    names: names of the D variables.

  Returns:
    [D, D] entries [effect, cause]: 1 where a variable is a direct cause of
    another one, -1 where it is none, 0 where that is unknown; None if nothing
    is known.

  Raises:
    errors.UsageError: the edges have another form, name no variables, or
      contradict each other.
  """
  if edges is None:
    return None
  if not isinstance(edges, Mapping):
    raise errors.UsageError(
      f'the edges are {edges!r}; they must be a dict with the keys '
      f'{" and ".join(_KINDS)}'
    )
  known = np.zeros((len(names), len(names)))
  for kind, listed in edges.items():
    if kind not in _KINDS:
      hint = errors.did_you_mean_or_options(str(kind), [*_KINDS])
      raise errors.UsageError(f'edges cannot be {kind!r}{hint}')
    if isinstance(listed, str | Mapping) or not isinstance(listed, Sequence):
      raise errors.UsageError(
        f'the {kind} edges are {listed!r}; they must be a list, such as '
        "['dose -> yield']"
      )
    for edge in listed:
      cause, effect = _ends(edge, names)
      if known[effect, cause] == -_KINDS[kind]:
        raise errors.UsageError(
          f'the edge {_text([names[cause], names[effect]])!r} is both required '
          'and forbidden'
        )
      known[effect, cause] = _KINDS[kind]
  _check_acyclic(known, names)
  return known if known.any() else None


def _ends(edge: Any, names: Sequence[str]) -> tuple[int, int]:
  """Returns the indices of the cause and of the effect."""
  is_text = isinstance(edge, str)
  ends = [end.strip() for end in edge.split(_ARROW)] if is_text else edge
  if not isinstance(ends, Sequence) or len(ends) != 2:
    raise errors.UsageError(
      f"{edge!r} is no edge; write it as 'cause -> effect'"
    )
  for end in ends:
    if end not in names:
      hint = errors.did_you_mean_or_options(str(end), [*map(str, names)])
      raise errors.UsageError(
        f'{end!r} in the edge {_text(ends)!r} is no observed variable{hint}'
      )
  cause, effect = map([*names].index, ends)
  if cause == effect:
    raise errors.UsageError(f'{ends[0]!r} cannot be a cause of itself')
  return cause, effect


def _check_acyclic(known: np.ndarray, names: Sequence[str]) -> None:
  """Raises if the required edges form a cycle."""
  causes = {j: np.flatnonzero(row > 0).tolist() for j, row in enumerate(known)}
  try:
    graphlib.TopologicalSorter(causes).prepare()
  except graphlib.CycleError as error:
    cycle = _text([names[j] for j in error.args[1]])
    raise errors.UsageError(
      f'the required edges form a cycle: {cycle}'
    ) from error


def _text(path: Sequence[Any]) -> str:
  return f' {_ARROW} '.join(map(str, path))
