"""Invariance of policies, beliefs and rewards.

None of them may depend on the units of the variables, on whether a target is
minimized or its negative maximized, or on the order of the variables.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from acme_cbo import types
from acme_cbo.agents.grpo import agent
from acme_cbo.agents.grpo import learning
from acme_cbo.agents.grpo import rewards as rewards_lib
from acme_cbo.agents.grpo import total_loss
from acme_cbo.beliefs import belief as beliefs
from acme_cbo.networks import tokens
from acme_cbo.scms import simulate


class Episode(NamedTuple):
  """A group of rollouts on one task, as numpy arrays.

  Attributes:
    task: SCM with its objective.
    observations: [N, D] observations.
    trajectories: G rollouts.
  """

  task: types.Task
  observations: Any
  trajectories: types.Trajectory


class Outputs(NamedTuple):
  """Outputs of policy, beliefs and rewards on an episode.

  Attributes:
    choice: [G, T, Z, D, C] probability of the variable and cell of each action
      step.
    learned: [G, T + 1, D] probability of being a parent, by the network.
    exact: [G, T + 1, D] probability of being a parent, by the exact belief.
    rewards: [G, T, E] reward components.
    advantages: [G, T] advantages.
  """

  choice: jax.Array
  learned: jax.Array
  exact: jax.Array
  rewards: jax.Array
  advantages: jax.Array


def make_evaluator(
  parts: agent.Parts,
) -> Callable[[Any, Episode], Outputs]:
  """Returns a compiled function (parameters, episode) -> `Outputs`."""
  network = parts.network

  def evaluate_rollout(params, task, observations, prefix, trajectory):
    problem = task.scm.problem
    rows = tokens.episode_rows(
      problem, trajectory.intervened, trajectory.outcomes
    )
    encodings = network.full(params, problem, prefix, rows)
    log_probs = total_loss.step_distributions(
      network, params, problem, prefix, encodings, trajectory
    )
    choice = jnp.exp(log_probs.variable[..., :-1, None] + log_probs.cell)

    kinds = {kind: make() for kind, make in beliefs.FACTORIES.items()}
    belief_states = {
      kind: beliefs.unroll(
        belief,
        problem,
        observations,
        trajectory.intervened,
        trajectory.outcomes,
        encodings.parent_logits,
      )
      for kind, belief in kinds.items()
    }
    intervention = types.Intervention(trajectory.intervened, trajectory.values)
    components = rewards_lib.components(
      task,
      parts.rewards,
      kinds[parts.rewards.belief],
      belief_states[parts.rewards.belief],
      intervention,
      trajectory.outcomes,
      rewards_lib.expected_outcomes(task, intervention),
    )
    learned, exact = (
      jax.vmap(kinds[kind].parents)(belief_states[kind])
      for kind in ('learned', 'exact')
    )
    return choice, learned, exact, components

  @jax.jit
  def evaluate(params, episode):
    task, observations, trajectories = episode
    prefix = network.prefix(params, task.scm.problem, observations)
    choice, learned, exact, components = jax.vmap(
      evaluate_rollout, (None, None, None, None, 0)
    )(params, task, observations, prefix, trajectories)
    reached = jax.lax.cummax(components[..., rewards_lib.OPTIMIZATION], 1)
    advantages, _ = learning.compute_advantages(
      components[None], reached[None], parts.rewards, parts.update
    )
    return Outputs(choice, learned, exact, components, advantages[0])

  return evaluate


def rescale(episode: Episode, factor: np.ndarray, shift: np.ndarray) -> Episode:
  """Returns the episode with each variable x replaced by `factor x + offset`.

  Args:
    episode: episode with D variables.
    factor: [D] positive factors.
    shift: [D] shifts, in widths of each variable's domain.

  Returns:
    The rescaled `Episode`.
  """
  task, observations, trajectories = jax.tree.map(np.asarray, episode)
  problem = task.scm.problem
  width = np.float64(problem.high) - problem.low
  offset = factor * shift * width
  dtype = observations.dtype

  def transform(values):
    return np.asarray(factor * np.float64(values) + offset, dtype)

  scm = task.scm._replace(
    problem=problem._replace(
      low=transform(problem.low), high=transform(problem.high)
    ),
    location=transform(task.scm.location),
    scale=np.asarray(factor * np.float64(task.scm.scale), dtype),
  )
  exists = problem.exists
  return Episode(
    task._replace(
      scm=scm,
      objective=_with_interventions(
        task.objective,
        lambda mask, values: (mask, np.where(mask, transform(values), 0)),
      ),
    ),
    np.where(exists, transform(observations), 0),
    trajectories._replace(
      outcomes=np.where(exists, transform(trajectories.outcomes), 0),
      values=np.where(
        trajectories.intervened, transform(trajectories.values), 0
      ),
    ),
  )


def negate_target(episode: Episode) -> Episode:
  """Returns the episode with the target negated and the goal reversed."""
  task, observations, trajectories = jax.tree.map(np.asarray, episode)
  scm, problem = task.scm, task.scm.problem
  sign = np.where(problem.target, -1, 1).astype(observations.dtype)
  mechanism = scm.mechanism._replace(
    bias=sign * scm.mechanism.bias,
    linear=sign[:, None] * scm.mechanism.linear * sign,
    hidden=scm.mechanism.hidden * sign,
    output=sign[:, None] * scm.mechanism.output,
    noise_scale=sign * scm.mechanism.noise_scale,
  )
  low, high = sign * problem.low, sign * problem.high
  return Episode(
    task._replace(
      scm=scm._replace(
        problem=problem._replace(
          goal=-problem.goal,
          low=np.minimum(low, high),
          high=np.maximum(low, high),
        ),
        mechanism=mechanism,
        location=sign * scm.location,
      ),
      objective=_with_interventions(
        task.objective, lambda mask, values: (mask, sign * values)
      )._replace(bank=sign * task.objective.bank),
    ),
    sign * observations,
    trajectories._replace(
      outcomes=sign * trajectories.outcomes, values=sign * trajectories.values
    ),
  )


def permute(episode: Episode, permutation: np.ndarray) -> Episode:
  """Returns the episode with old variable `permutation[k]` at index k."""
  task, observations, trajectories = jax.tree.map(np.asarray, episode)
  # The index that stands for no variable is not permuted.
  new_index = np.append(np.argsort(permutation), len(permutation))
  objective = task.objective
  return Episode(
    types.Task(
      simulate.relabel(
        jax.tree.map(jnp.asarray, task.scm), jnp.asarray(permutation)
      ),
      _with_interventions(
        objective,
        lambda mask, values: (mask[..., permutation], values[..., permutation]),
      )._replace(
        bank=objective.bank[:, permutation],
        curves=objective.curves[:, permutation],
      ),
    ),
    observations[:, permutation],
    trajectories._replace(
      decision=trajectories.decision._replace(
        variable=new_index[trajectories.decision.variable].astype(np.int32)
      ),
      intervened=trajectories.intervened[..., permutation],
      values=trajectories.values[..., permutation],
      outcomes=trajectories.outcomes[..., permutation],
    ),
  )


def _with_interventions(objective, change):
  """Returns the objective with all of its interventions transformed."""
  return objective._replace(
    choice=types.Intervention(*change(*objective.choice)),
    partial=types.Intervention(*change(*objective.partial)),
  )


def permute_outputs(outputs: Outputs, permutation: np.ndarray) -> Outputs:
  """Returns the outputs with the variables permuted as by `permute`."""
  return outputs._replace(
    choice=outputs.choice[..., permutation, :],
    learned=outputs.learned[..., permutation],
    exact=outputs.exact[..., permutation],
  )


def max_differences(first: Outputs, second: Outputs) -> dict[str, float]:
  """Returns {output: largest absolute difference}."""
  return {
    name: float(np.abs(np.asarray(a) - np.asarray(b)).max())
    for name, a, b in zip(Outputs._fields, first, second, strict=True)
  }


def to_float64(tree: Any) -> Any:
  """Converts float32 arrays to float64, for use within `jax.enable_x64`."""
  return jax.tree.map(
    lambda leaf: np.asarray(
      leaf, np.float64 if np.asarray(leaf).dtype == np.float32 else None
    ),
    tree,
  )


def equivalent_episodes(
  rng: np.random.Generator, episode: Episode, outputs: Outputs
) -> dict[str, tuple[Episode, Outputs]]:
  """Returns the episode under every transformation, with expected outputs.

  Args:
    rng: generator of the units and the permutation.
    episode: episode with D variables.
    outputs: outputs on the episode.

  Returns:
    {name of the transformation: (transformed episode, expected outputs)}.
  """
  num_variables = episode.observations.shape[-1]
  ones, zeros = np.ones(num_variables), np.zeros(num_variables)
  factor = 10.0 ** rng.uniform(-12, 12, num_variables)
  shift = rng.uniform(-1000, 1000, num_variables)
  permutation = rng.permutation(num_variables)
  return {
    'units scaled by 1e-12 to 1e12': (
      rescale(episode, factor, zeros),
      outputs,
    ),
    'origins shifted by up to 1,000 domains': (
      rescale(episode, ones, shift),
      outputs,
    ),
    'units scaled and origins shifted': (
      rescale(episode, factor, shift),
      outputs,
    ),
    'target negated and goal reversed': (negate_target(episode), outputs),
    'variables permuted': (
      permute(episode, permutation),
      permute_outputs(outputs, permutation),
    ),
  }
