"""Possibly optimal interventions, and identification of causal effects.

Latent variables are marginalized first. The result is an acyclic directed mixed
graph, whose bidirected edges join variables with a common latent cause
(Richardson and Spirtes, "Ancestral Graph Markov Models", 2002).
`possibly_optimal_sets` follows Lee and Bareinboim, "Structural Causal Bandits:
Where to Intervene?" (2018), and "Structural Causal Bandits with Non-manipulable
Variables" (2019). `factorize` follows Tian and Pearl, "A General Identification
Condition for Causal Effects" (2002).

All of it runs on the host, on sets of column indices instead of arrays.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from acme_cbo import types

Variables = frozenset[int]


class MixedGraph(NamedTuple):
  """An acyclic graph of directed and bidirected edges.

  Attributes:
    order: variables, causes first.
    parents: {variable: its direct causes}.
    siblings: {variable: variables that share a latent cause with it}.
  """

  order: tuple[int, ...]
  parents: Mapping[int, Variables]
  siblings: Mapping[int, Variables]


class Factorization(NamedTuple):
  """Factors of the observational distribution that predict a target under do().

  The joint distribution is a product with one factor for the target and each of
  its ancestors: the distribution of the variable, conditional on `given`. If
  one of the conditioning variables is intervened on, the factor takes its
  natural value (the value without intervention) if it is in the variable's own
  `component`, else the value that is set.

  Attributes:
    order: the target and its ancestors, causes first.
    given: {variable: variables that its factor is conditional on}.
    component: {variable: its c-component, i.e. the variables of `order` that
      bidirected edges connect with it, including itself}.
  """

  order: tuple[int, ...]
  given: Mapping[int, Variables]
  component: Mapping[int, Variables]


def project(
  parents: np.ndarray, order: Iterable[int], kept: Iterable[int]
) -> MixedGraph:
  """Computes the latent projection of a directed graph on some variables.

  Args:
    parents: [D, D] bool, `parents[j, i]` where i is a direct cause of j.
    order: the D variables, causes first.
    kept: variables to keep.

  Returns:
    The graph of the kept variables: i is a parent of j if a directed path leads
    from i to j, and a sibling if directed paths lead from one removed variable
    to both. Inner variables of the paths are removed ones.
  """
  order, kept = [int(j) for j in order], frozenset(map(int, kept))
  # The variables with a directed path to each through removed ones.
  sources: dict[int, set[int]] = {}
  for j in order:
    sources[j] = set()
    for i in map(int, np.flatnonzero(parents[j])):
      sources[j] |= {i} if i in kept else {i} | sources[i]
  kept_order = tuple(j for j in order if j in kept)
  hidden = {j: sources[j] - kept for j in kept_order}
  return MixedGraph(
    order=kept_order,
    parents={j: kept & sources[j] for j in kept_order},
    siblings={
      j: frozenset(i for i in kept_order if i != j and hidden[i] & hidden[j])
      for j in kept_order
    },
  )


def observed_graph(scm: types.SCM) -> MixedGraph:
  """Returns the graph of the observed variables; the others are latent."""
  return project(
    np.asarray(scm.parents),
    np.asarray(scm.order),
    np.flatnonzero(scm.problem.exists),
  )


def possibly_optimal_sets(scm: types.SCM) -> list[Variables]:
  """Returns the allowed sets that can be optimal under some mechanisms.

  A set is excluded if the graph alone implies that another allowed set, or no
  intervention, is at least as good in every SCM: either it is not minimal (a
  member has no effect on the target when the others are intervened on), or its
  interventional border is another set. If all sets of settable variables are
  allowed, the result is the possibly optimal minimal intervention sets, except
  for the empty set, which is no intervention. If few sets are allowed, a set is
  kept if those that would replace it are not allowed.

  Args:
    scm: SCM of which the graph and the allowed sets are used.

  Returns:
    Sets of column indices, in the order of `problem.sets`.
  """
  graph, target = _settable_graph(scm)
  allowed = allowed_sets(scm.problem)

  def is_kept(chosen):
    minimal = minimal_subset(graph, target, chosen)
    replacements = {minimal, border(graph, target, minimal)} - {chosen}
    return bool(minimal) and not replacements & set(allowed)

  return [chosen for chosen in allowed if is_kept(chosen)]


def allowed_sets(problem: types.Problem) -> list[Variables]:
  """Returns the distinct non-empty sets of a problem, as column indices."""
  rows = [frozenset(np.flatnonzero(row).tolist()) for row in problem.sets]
  return list(dict.fromkeys(row for row in rows if row))


def minimal_subset(
  graph: MixedGraph, target: int, chosen: Variables
) -> Variables:
  """Returns the members that affect the target when all are intervened on."""
  return chosen & _ancestors(_intervene(graph, chosen), target)


def border(graph: MixedGraph, target: int, chosen: Variables) -> Variables:
  """Returns the interventional border of the target under do() of a set.

  Lee and Bareinboim (2018), definitions 3 and 4: the parents of a territory,
  which is the smallest set of ancestors of the target that contains the target
  and is closed under siblings and descendants. An intervention on the border
  with its best values is at least as good as one on `chosen`.

  Args:
    graph: graph in which all variables but the target can be intervened on.
    target: the variable to optimize.
    chosen: variables that are intervened on.

  Returns:
    The parents of the territory that are not in it.
  """
  graph = _within(
    _intervene(graph, chosen), _ancestors(_intervene(graph, chosen), target)
  )
  territory, grown = frozenset(), frozenset({target})
  while grown != territory:
    territory = grown
    joined = frozenset().union(*(_component(graph, j) for j in territory))
    grown = joined | {j for j in graph.order if _ancestors(graph, j) & joined}
  outside = frozenset().union(*(graph.parents[j] for j in territory))
  return outside - territory


def factorize(graph: MixedGraph, target: int) -> Factorization:
  """Factorizes the distribution of the target's ancestors by c-components.

  Args:
    graph: graph of the observed variables.
    target: the variable to predict.

  Returns:
    The factors of Tian and Pearl (2002), lemma 1. Each variable is conditional
    on its parents, on the earlier variables of its c-component, and on their
    parents.
  """
  graph = _within(graph, _ancestors(graph, target))
  given = {}
  for index, j in enumerate(graph.order):
    earlier = _within(graph, frozenset(graph.order[: index + 1]))
    joined = _component(earlier, j)
    causes = frozenset().union(*(graph.parents[i] for i in joined))
    given[j] = (joined | causes) - {j}
  component = {j: _component(graph, j) for j in graph.order}
  return Factorization(graph.order, given, component)


def is_identified(
  graph: MixedGraph, target: int, chosen: Iterable[int]
) -> bool:
  """Returns whether `factorize` predicts the target under do() of a set.

  It does if no member of the set is a parent of an ancestor of the target in
  its own c-component: the factor of this ancestor would need both the value
  that is set and the natural value (Tian and Pearl, 2002, theorem 3). The
  condition is sufficient, not necessary.

  Args:
    graph: graph of the observed variables.
    target: the variable to predict.
    chosen: variables that are intervened on.

  Returns:
    True if the effect is identified by this condition.
  """
  chosen = frozenset(chosen)
  component = factorize(graph, target).component
  # Variables that affect the target by a path outside the set.
  acting = _ancestors(_intervene(graph, chosen), target) - chosen
  return not any(graph.parents[j] & chosen & component[j] for j in acting)


def _settable_graph(scm: types.SCM) -> tuple[MixedGraph, int]:
  """Returns the projection on settable variables and target, and the target."""
  problem = scm.problem
  kept = np.asarray(problem.settable) | np.asarray(problem.target)
  graph = project(
    np.asarray(scm.parents), np.asarray(scm.order), np.flatnonzero(kept)
  )
  return graph, int(np.argmax(problem.target))


def _within(graph: MixedGraph, kept: Variables) -> MixedGraph:
  """Returns the subgraph of some variables."""
  order = tuple(j for j in graph.order if j in kept)
  return MixedGraph(
    order=order,
    parents={j: graph.parents[j] & kept for j in order},
    siblings={j: graph.siblings[j] & kept for j in order},
  )


def _intervene(graph: MixedGraph, chosen: Variables) -> MixedGraph:
  """Returns the graph without the edges into the variables of a set."""
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
  """Returns the ancestors of a variable, including itself."""
  return _reachable(graph.parents, variable)


def _component(graph: MixedGraph, variable: int) -> Variables:
  """Returns the c-component of a variable, including itself."""
  return _reachable(graph.siblings, variable)


def _reachable(edges: Mapping[int, Variables], start: int) -> Variables:
  reached, new = {start}, [start]
  while new:
    neighbors = edges[new.pop()] - reached
    reached |= neighbors
    new.extend(neighbors)
  return frozenset(reached)
