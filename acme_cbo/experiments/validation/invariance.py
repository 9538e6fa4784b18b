"""One episode told in other units, in other words, in another order.

Nothing that a policy, a belief or a reward says may depend on how variables
are measured, on whether a target is minimised or its negative maximised, or on
how the variables are numbered.
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
    task: the SCM and its objective.
    observations: [N, D].
    trajectories: G of them.
  """

  task: types.Task
  observations: Any
  trajectories: types.Trajectory


class Said(NamedTuple):
  """What is said of an episode.

  Attributes:
    choice: [G, T, Z, D, C] probability of each turn's variable and cell.
    learned: [G, T + 1, D] probability of each parent, by the network.
    exact: [G, T + 1, D] by the exact belief.
    rewards: [G, T, 4].
    advantages: [G, T].
  """

  choice: jax.Array
  learned: jax.Array
  exact: jax.Array
  rewards: jax.Array
  advantages: jax.Array


def listener(parts: agent.Parts) -> Callable[[Any, Episode], Said]:
  """A compiled function of parameters and an episode: what is said of it."""
  network = parts.network

  def of_rollout(params, task, observations, prefix, trajectory):
    problem = task.scm.problem
    rows = tokens.episode_rows(
      problem, trajectory.intervened, trajectory.outcomes
    )
    encodings = network.full(params, problem, prefix, rows)
    log_probs = total_loss.choices(
      network, params, problem, prefix, encodings, trajectory
    )
    choice = jnp.exp(log_probs.variable[..., :-1, None] + log_probs.cell)

    kinds = {kind: make() for kind, make in beliefs.FACTORIES.items()}
    followed = {
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
      parts.kinds,
      kinds[parts.kinds.belief],
      followed[parts.kinds.belief],
      intervention,
      trajectory.outcomes,
      rewards_lib.expected_outcomes(task, intervention),
    )
    learned, exact = (
      jax.vmap(kinds[kind].parents)(followed[kind])
      for kind in ('learned', 'exact')
    )
    return choice, learned, exact, components

  @jax.jit
  def listen(params, episode):
    task, observations, trajectories = episode
    prefix = network.prefix(params, task.scm.problem, observations)
    choice, learned, exact, components = jax.vmap(
      of_rollout, (None, None, None, None, 0)
    )(params, task, observations, prefix, trajectories)
    judged, _ = learning.advantages(components[None], parts.weights, parts.grpo)
    return Said(choice, learned, exact, components, judged[0])

  return listen


def measured(
  episode: Episode, factor: np.ndarray, shift: np.ndarray
) -> Episode:
  """The episode in units `factor x + shift`.

  Args:
    episode: of D variables.
    factor: [D] above 0.
    shift: [D], in lengths of each variable's domain.

  Returns:
    The `Episode`.
  """
  task, observations, trajectories = jax.tree.map(np.asarray, episode)
  problem = task.scm.problem
  length = np.float64(problem.high) - problem.low
  offset = factor * shift * length
  kind = observations.dtype

  def told(values):
    return np.asarray(factor * np.float64(values) + offset, kind)

  scm = task.scm._replace(
    problem=problem._replace(low=told(problem.low), high=told(problem.high)),
    location=told(task.scm.location),
    scale=np.asarray(factor * np.float64(task.scm.scale), kind),
  )
  exists = problem.exists
  return Episode(
    task._replace(
      scm=scm,
      objective=_with_interventions(
        task.objective,
        lambda mask, values: (mask, np.where(mask, told(values), 0)),
      ),
    ),
    np.where(exists, told(observations), 0),
    trajectories._replace(
      outcomes=np.where(exists, told(trajectories.outcomes), 0),
      values=np.where(trajectories.intervened, told(trajectories.values), 0),
    ),
  )


def negated(episode: Episode) -> Episode:
  """The episode with the negative of the target, and the goal turned round."""
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


def renumbered(episode: Episode, permutation: np.ndarray) -> Episode:
  """The episode with old variable `permutation[k]` as number k."""
  task, observations, trajectories = jax.tree.map(np.asarray, episode)
  # The number that stands for no variable stays what it is.
  place = np.append(np.argsort(permutation), len(permutation))
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
        variable=place[trajectories.decision.variable].astype(np.int32)
      ),
      intervened=trajectories.intervened[..., permutation],
      values=trajectories.values[..., permutation],
      outcomes=trajectories.outcomes[..., permutation],
    ),
  )


def _with_interventions(objective, change):
  """The objective, with its interventions told in another way."""
  return objective._replace(
    choice=types.Intervention(*change(*objective.choice)),
    partial=types.Intervention(*change(*objective.partial)),
  )


def renumber_said(said: Said, permutation: np.ndarray) -> Said:
  """What is said of an episode, for the variables in another order."""
  return said._replace(
    choice=said.choice[..., permutation, :],
    learned=said.learned[..., permutation],
    exact=said.exact[..., permutation],
  )


def largest_difference(one: Said, other: Said) -> dict[str, float]:
  """The largest absolute difference in each thing that is said."""
  return {
    name: float(np.abs(np.asarray(a) - np.asarray(b)).max())
    for name, a, b in zip(Said._fields, one, other, strict=True)
  }


def in_double(tree: Any) -> Any:
  """Floats as float64, for use within `jax.enable_x64`."""
  return jax.tree.map(
    lambda leaf: np.asarray(
      leaf, np.float64 if np.asarray(leaf).dtype == np.float32 else None
    ),
    tree,
  )


def retold(
  rng: np.random.Generator, episode: Episode, said: Said
) -> dict[str, tuple[Episode, Said]]:
  """The episode told in every other way, and what is to be said of it then.

  Args:
    rng: draws units and numbers.
    episode: of D variables.
    said: of the episode as it is.

  Returns:
    {way of telling: (the episode, what is to be said)}.
  """
  num_variables = episode.observations.shape[-1]
  one, nought = np.ones(num_variables), np.zeros(num_variables)
  factor = 10.0 ** rng.uniform(-12, 12, num_variables)
  shift = rng.uniform(-1000, 1000, num_variables)
  permutation = rng.permutation(num_variables)
  return {
    'units 1e-12 to 1e12 times as large': (
      measured(episode, factor, nought),
      said,
    ),
    'origins up to 1,000 domains away': (measured(episode, one, shift), said),
    'both': (measured(episode, factor, shift), said),
    'the negative of the target, and the other goal': (negated(episode), said),
    'variables in another order': (
      renumbered(episode, permutation),
      renumber_said(said, permutation),
    ),
  }
