"""The interface that all policies share."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from acme_cbo import types
from acme_cbo.policies import prediction


class PolicyFunctions(NamedTuple):
  """Pure functions of a policy that chooses interventions.

  `policy.Policy` wraps those of a trained policy for use from Python.

  Attributes:
    init: (problem, observations [N, D], num_interventions T) -> memory.
    choose: (key, memory) -> `Intervention`; the key is consumed.
    observe: (memory, step, intervention, outcome [D]) -> memory, after the
      intervention of number `step`, counted from 0.
    recommend: memory -> the `Intervention` with the best expected outcome.
    belief_states: memory -> {name of a belief: its state}; empty if the policy
      has none.
    parents: R such states, stacked -> {name of a belief: [R, D] probability
      that each variable is a parent of the target}.
    predict: (memory, `Intervention` of [R, D] arrays) -> `Prediction` of [R,
      ...] arrays; None if the policy predicts nothing.
  """

  init: Callable[..., Any]
  choose: Callable[..., types.Intervention]
  observe: Callable[..., Any]
  recommend: Callable[[Any], types.Intervention]
  belief_states: Callable[[Any], dict[str, Any]] = lambda memory: {}
  parents: Callable[[dict[str, Any]], dict[str, jax.Array]] = lambda states: {}
  predict: Callable[..., prediction.Prediction] | None = None


# Makes a policy for a task. Only the oracle looks at the task.
Factory = Callable[[types.Task], PolicyFunctions]


def parent_probabilities(
  policy: PolicyFunctions, memory: Any
) -> dict[str, np.ndarray]:
  """Returns the beliefs of a policy about the parents of the target.

  Args:
    policy: the policy.
    memory: its memory.

  Returns:
    {belief: [D] probability that each variable is a parent of the target}.
  """
  states = jax.tree.map(
    lambda leaf: jnp.asarray(leaf)[None], policy.belief_states(memory)
  )
  return {
    belief: np.asarray(probability)[0]
    for belief, probability in policy.parents(states).items()
  }


def predict_one(
  policy: PolicyFunctions, memory: Any, intervention: types.Intervention
) -> prediction.Prediction:
  """Returns what a policy predicts under one intervention.

  Args:
    policy: policy that predicts.
    memory: its memory.
    intervention: the intervention.
  """
  assert policy.predict is not None
  asked = jax.tree.map(lambda leaf: leaf[None], intervention)
  return jax.tree.map(lambda leaf: leaf[0], policy.predict(memory, asked))


def select(
  candidates: Sequence[PolicyFunctions], index: jax.Array
) -> PolicyFunctions:
  """Returns a policy that acts as `candidates[index]`, in one program for all.

  Args:
    candidates: policies whose beliefs, if they have any, are of one kind.
    index: [] int32, may be traced.
  """

  def pick(choices):
    return jax.tree.map(lambda *leaves: jnp.stack(leaves)[index], *choices)

  def init(problem, observations, num_interventions):
    return [
      p.init(problem, observations, num_interventions) for p in candidates
    ]

  def choose(key, memories):
    return pick(
      [p.choose(key, m) for p, m in zip(candidates, memories, strict=True)]
    )

  def recommend(memories):
    return pick(
      [p.recommend(m) for p, m in zip(candidates, memories, strict=True)]
    )

  def observe(memories, step, intervention, outcome):
    return [
      p.observe(m, step, intervention, outcome)
      for p, m in zip(candidates, memories, strict=True)
    ]

  def belief_states(memories):
    return pick(
      [p.belief_states(m) for p, m in zip(candidates, memories, strict=True)]
    )

  return PolicyFunctions(
    init, choose, observe, recommend, belief_states, candidates[0].parents
  )
