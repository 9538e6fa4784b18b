"""Which interventions a causal graph lets be the best, and how to predict them.

Variables that nobody sees are summed over first: what is left is an acyclic
directed mixed graph, whose bidirected edges join variables with a latent cause
in common (Richardson and Spirtes, "Ancestral Graph Markov Models", 2002).
`possibly_optimal_sets` is after Lee and Bareinboim, "Structural Causal Bandits:
Where to Intervene?" (2018), and "Structural Causal Bandits with Non-manipulable
Variables" (2019). `factorise` is after Tian and Pearl, "A General
Identification Condition for Causal Effects" (2002).

Graph theory on the host, in sets of column numbers; no arrays.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from acme_cbo import types

Variables = frozenset[int]


class MixedGraph(NamedTuple):
  """An acyclic graph of directed and bidirected edges.

  Attributes:
    order: its variables, causes first.
    parents: of each variable, its direct causes.
    siblings: of each variable, those that share a latent cause with it.
  """

  order: tuple[int, ...]
  parents: Mapping[int, Variables]
  siblings: Mapping[int, Variables]


class Factorisation(NamedTuple):
  """How observational data predict the target under do() of a set.

  The joint distribution is a product of one factor for each ancestor of the
  target: of the variable, given its `given`. Under do() the factor of a
  variable reads, of each that it is given, the value that this would have taken
  by itself if it is of the variable's own `component`, else the value that it
  was set to.

  Attributes:
    order: the ancestors of the target and itself, causes first.
    given: of each of them, the variables it is regressed on.
    component: of each, the variables that are joined with it by bidirected
      edges, among those of `order`; itself too.
  """

  order: tuple[int, ...]
  given: Mapping[int, Variables]
  component: Mapping[int, Variables]


def project(
  parents: np.ndarray, order: Iterable[int], kept: Iterable[int]
) -> MixedGraph:
  """The latent projection of a directed graph on some of its variables.

  Args:
    parents: [D, D] bool, `parents[j, i]` where i is a direct cause of j.
    order: the D variables, causes first.
    kept: those that stay.

  Returns:
    The graph of those that stay: i is a parent of j where a directed path leads
    from i to j, and a sibling where directed paths lead to both from one that
    went; in either case through such as went only.
  """
  order, kept = [int(j) for j in order], frozenset(map(int, kept))
  # Of each variable, what reaches it through such as went.
  sources: dict[int, set[int]] = {}
  for j in order:
    sources[j] = set()
    for i in map(int, np.flatnonzero(parents[j])):
      sources[j] |= {i} if i in kept else {i} | sources[i]
  place = tuple(j for j in order if j in kept)
  hidden = {j: sources[j] - kept for j in place}
  return MixedGraph(
    order=place,
    parents={j: kept & sources[j] for j in place},
    siblings={
      j: frozenset(i for i in place if i != j and hidden[i] & hidden[j])
      for j in place
    },
  )


def observed_graph(scm: types.SCM) -> MixedGraph:
  """The graph of the variables that are watched; the others are latent."""
  return project(
    np.asarray(scm.parents),
    np.asarray(scm.order),
    np.flatnonzero(scm.problem.exists),
  )


def possibly_optimal_sets(scm: types.SCM) -> list[Variables]:
  """The allowed sets that are worth setting, whatever the mechanisms are.

  A set is left out where the graph alone tells that another allowed set, or
  setting nothing, does as well in every SCM: it is not minimal (a member has no
  effect on the target when the others are set), or its interventional border
  is another set. Where all sets of settable variables are allowed these are
  the possibly-optimal minimal intervention sets, but for the empty one, which
  is no experiment. Where few are allowed, a set stays if those that would
  replace it are not allowed.

  Args:
    scm: whose graph and allowed sets are used.

  Returns:
    Sets of column numbers, in the order of `problem.sets`.
  """
  graph, target = _settable_graph(scm)
  allowed = allowed_sets(scm.problem)

  def stays(chosen):
    minimal = minimal_subset(graph, target, chosen)
    replacements = {minimal, border(graph, target, minimal)} - {chosen}
    return bool(minimal) and not replacements & set(allowed)

  return [chosen for chosen in allowed if stays(chosen)]


def minimal_intervention_sets(scm: types.SCM) -> list[Variables]:
  """The allowed sets of which each member has an effect on the target.

  Args:
    scm: whose graph and allowed sets are used.

  Returns:
    Sets of column numbers, in the order of `problem.sets`.
  """
  graph, target = _settable_graph(scm)
  return [
    chosen
    for chosen in allowed_sets(scm.problem)
    if minimal_subset(graph, target, chosen) == chosen
  ]


def allowed_sets(problem: types.Problem) -> list[Variables]:
  """The sets of a problem that are not empty, each once, as column numbers."""
  rows = [frozenset(np.flatnonzero(row).tolist()) for row in problem.sets]
  return list(dict.fromkeys(row for row in rows if row))


def minimal_subset(
  graph: MixedGraph, target: int, chosen: Variables
) -> Variables:
  """The members of a set that act on the target when all of it is set."""
  return chosen & _ancestors(_set(graph, chosen), target)


def border(graph: MixedGraph, target: int, chosen: Variables) -> Variables:
  """The interventional border of the target when a set is set.

  Lee and Bareinboim (2018), definitions 3 and 4: the parents of the least set
  that holds the target, what shares a latent cause with a member, and what a
  member causes, among the target's ancestors. Setting them to their best values
  does as well as setting `chosen`.

  Args:
    graph: all of whose variables but the target can be set.
    target: the variable to optimise.
    chosen: what is set.

  Returns:
    Such parents as are not members.
  """
  graph = _within(_set(graph, chosen), _ancestors(_set(graph, chosen), target))
  territory, grown = frozenset(), frozenset({target})
  while grown != territory:
    territory = grown
    joined = frozenset().union(*(_component(graph, j) for j in territory))
    grown = joined | {j for j in graph.order if _ancestors(graph, j) & joined}
  outside = frozenset().union(*(graph.parents[j] for j in territory))
  return outside - territory


def factorise(graph: MixedGraph, target: int) -> Factorisation:
  """One factor for each ancestor of the target, by c-components.

  Args:
    graph: of the variables that are watched.
    target: the variable to predict.

  Returns:
    The factors of Tian and Pearl (2002), lemma 1: each variable is given its
    parents, what came before it of its c-component, and their parents.
  """
  graph = _within(graph, _ancestors(graph, target))
  given = {}
  for place, j in enumerate(graph.order):
    so_far = _within(graph, frozenset(graph.order[: place + 1]))
    joined = _component(so_far, j)
    causes = frozenset().union(*(graph.parents[i] for i in joined))
    given[j] = (joined | causes) - {j}
  component = {j: _component(graph, j) for j in graph.order}
  return Factorisation(graph.order, given, component)


def is_identified(
  graph: MixedGraph, target: int, chosen: Iterable[int]
) -> bool:
  """Whether `factorise` predicts the target under do() of a set.

  It does where no member of the set causes an ancestor of the target of its own
  c-component directly: that one's factor would have to read the member both as
  it was set and as it would have been (Tian and Pearl, 2002, theorem 3). This
  is sufficient, not necessary.

  Args:
    graph: of the variables that are watched.
    target: the variable to predict.
    chosen: what is set.

  Returns:
    Whether it does.
  """
  chosen = frozenset(chosen)
  component = factorise(graph, target).component
  # What acts on the target by a path that avoids the set.
  acting = _ancestors(_set(graph, chosen), target) - chosen
  return not any(graph.parents[j] & chosen & component[j] for j in acting)


def _settable_graph(scm: types.SCM) -> tuple[MixedGraph, int]:
  """The projection on what may be set and the target, and which it is."""
  problem = scm.problem
  kept = np.asarray(problem.settable) | np.asarray(problem.target)
  graph = project(
    np.asarray(scm.parents), np.asarray(scm.order), np.flatnonzero(kept)
  )
  return graph, int(np.argmax(problem.target))


def _within(graph: MixedGraph, kept: Variables) -> MixedGraph:
  """The graph without the other variables and their edges."""
  order = tuple(j for j in graph.order if j in kept)
  return MixedGraph(
    order=order,
    parents={j: graph.parents[j] & kept for j in order},
    siblings={j: graph.siblings[j] & kept for j in order},
  )


def _set(graph: MixedGraph, chosen: Variables) -> MixedGraph:
  """The graph when a set is set: nothing else acts on its members."""
  return MixedGraph(
    order=graph.order,
    parents={
      j: frozenset() if j in chosen else graph.parents[j] for j in graph.order
    },
    siblings={
      j: frozenset() if j in chosen else graph.siblings[j] - chosen
      for j in graph.order
    },
  )


def _ancestors(graph: MixedGraph, variable: int) -> Variables:
  """What causes the variable, and itself."""
  return _reached(graph.parents, variable)


def _component(graph: MixedGraph, variable: int) -> Variables:
  """What bidirected edges join with the variable, and itself."""
  return _reached(graph.siblings, variable)


def _reached(edges: Mapping[int, Variables], start: int) -> Variables:
  reached, new = {start}, [start]
  while new:
    found = edges[new.pop()] - reached
    reached |= found
    new.extend(found)
  return frozenset(reached)
