"""Policies on held-out SCMs: same SCMs, data and noise for all of them."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from acme_cbo import types
from acme_cbo.environments import environment
from acme_cbo.policies import base
from acme_cbo.policies import episode as episode_lib

# Tasks evaluated at once; the noise banks of more would not fit a cache.
_CHUNK = 64


class Outcome(NamedTuple):
  """What a policy reached in one episode.

  Attributes:
    score: [T] E[Y | do] of every choice: 0 at no intervention, 1 at the best
      one that is allowed. Below 0 where it is worse than doing nothing.
    intervention: [T, D] what was set, to values in the variables' own units.
    target: [T] what the target was seen to be then, in its own units.
    parents: {belief: [T + 1, D] probability of being a parent of the target,
      before each step and after the last}, for each belief that the policy has.
    finite: [2] bool, whether all observations are finite, and all outcomes.
  """

  score: jax.Array
  intervention: types.Intervention
  target: jax.Array
  parents: dict[str, jax.Array]
  finite: jax.Array


def score(expected: jax.Array, objective: types.Objective) -> jax.Array:
  """`(E[Y | do] - baseline) / (best - baseline)`, signed by the goal."""
  gain = objective.best - objective.baseline
  return (expected - objective.baseline) / gain


def episode(
  key: jax.Array,
  policy: base.Policy,
  task: types.Task,
  num_observations: int,
  num_interventions: int,
) -> Outcome:
  """One episode of one policy.

  Args:
    key: consumed. The data and the noise of each step depend on it alone, so
      that policies with the same key meet the same luck.
    policy: who chooses.
    task: the SCM and its objective.
    num_observations: N.
    num_interventions: T.

  Returns:
    The `Outcome`.
  """
  scm, objective = task
  key_reset, key_noise, key_policy = jax.random.split(key, 3)
  observations = environment.reset(key_reset, scm, num_observations)

  steps = episode_lib.on_device(
    lambda key, memory: (policy.choose(key, memory), ()),
    policy.observe,
    policy.belief_states,
    policy.init(scm.problem, observations, num_interventions),
    task,
    jax.random.split(key_policy, num_interventions),
    jax.random.split(key_noise, num_interventions),
  )
  return Outcome(
    score=score(steps.expected, objective),
    intervention=steps.intervention,
    target=jnp.where(scm.problem.target, steps.outcomes, 0.0).sum(-1),
    parents=policy.parents(steps.belief_states),
    finite=jnp.stack(
      [jnp.isfinite(x).all() for x in (observations, steps.outcomes)]
    ),
  )


def evaluate(
  key: jax.Array,
  factory: base.Factory,
  tasks: types.Task,
  num_observations: int,
  num_interventions: int,
) -> Outcome:
  """One episode of a policy on each of M tasks.

  Args:
    key: consumed; give every policy the same one.
    factory: makes the policy of a task.
    tasks: M tasks.
    num_observations: N.
    num_interventions: T.

  Returns:
    `Outcome` with a leading axis M.
  """
  num_tasks = tasks.scm.order.shape[0]

  def one(inputs):
    key, task = inputs
    return episode(
      key, factory(task), task, num_observations, num_interventions
    )

  keys = jax.random.split(key, num_tasks)
  return jax.lax.map(one, (keys, tasks), batch_size=min(_CHUNK, num_tasks))
