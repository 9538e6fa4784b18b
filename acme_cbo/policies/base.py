"""The interface of a policy."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from acme_cbo import types


class Policy(NamedTuple):
  """How to choose interventions.

  Attributes:
    init: (problem, observations [N, D], num_interventions T) -> memory.
    choose: (key, memory) -> `Intervention`; the key is consumed.
    observe: (memory, step, intervention, outcome [D]) -> memory, after the
      intervention of number `step`, counted from 0.
    recommend: memory -> the `Intervention` that it would make if there were no
      more to learn from.
    believed: memory -> states of the policy's beliefs; empty if it has none.
    parents: R such states, stacked -> {name of a belief: [R, D] probability
      that each variable is a parent of the target}.
  """

  init: Callable[..., Any]
  choose: Callable[..., types.Intervention]
  observe: Callable[..., Any]
  recommend: Callable[[Any], types.Intervention]
  believed: Callable[[Any], dict[str, Any]] = lambda memory: {}
  parents: Callable[[dict[str, Any]], dict[str, jax.Array]] = lambda states: {}


# Makes a policy for a task. All but the oracle ignore the task.
Factory = Callable[[types.Task], Policy]
