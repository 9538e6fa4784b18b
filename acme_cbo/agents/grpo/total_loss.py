"""Total loss of a minibatch: policy, entropy, belief and prediction terms."""

from collections.abc import Callable
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from acme_cbo import types
from acme_cbo.agents.grpo import config
from acme_cbo.agents.grpo import losses
from acme_cbo.agents.grpo import rewards
from acme_cbo.beliefs import belief as beliefs
from acme_cbo.environments import normalization
from acme_cbo.networks import action_distribution
from acme_cbo.networks import base
from acme_cbo.networks import tokens
from acme_cbo.scms import graphs
from acme_cbo.scms import intervention_sets
from acme_cbo.scms import objective as objective_lib
from acme_cbo.scms import simulate

_GOLDEN_RATIO = (math.sqrt(5) - 1) / 2


def apply_after_rows(
  head: Callable[..., Any],
  params,
  problem: types.Problem,
  prefix: base.Prefix,
  encodings: base.Encoding,
  partials: action_distribution.PartialIntervention,
) -> Any:
  """Applies a head of the network after each of R rows.

  Args:
    head: `Network.action_head` or `Network.predict`.
    params: parameters of the network.
    problem: problem of D variables.
    prefix: encoded observations.
    encodings: encodings after each row, from `Network.full`.
    partials: [R, ...] partial intervention after each row.

  Returns:
    Output of the head, with a leading axis R.
  """
  return jax.vmap(
    lambda encoding, partial: head(params, problem, prefix, encoding, partial),
    (base.ENCODING_IN_AXES, 0),
  )(encodings, partials)


def step_distributions(
  network: base.Network,
  params,
  problem: types.Problem,
  prefix: base.Prefix,
  encodings: base.Encoding,
  trajectory: types.Trajectory,
  first: base.ActionHeadOutput | None = None,
) -> action_distribution.StepDistribution:
  """Computes the distributions of the action steps of an episode.

  Args:
    network: functions of the network.
    params: parameters of the network.
    problem: problem of D variables.
    prefix: encoded observations.
    encodings: encodings after each of R rows, from `Network.full`.
    trajectory: the episode.
    first: [T, ...] output of the action head for the first action step, with an
      empty partial intervention, if it has been computed already.

  Returns:
    `StepDistribution` with leading axes T and Z.
  """
  sets = problem.sets & trajectory.affordable[..., None]  # [T, M, D]
  partials = jax.vmap(action_distribution.partial_before_each_step, (0, None))(
    trajectory.decision, problem.exists.size
  )  # [T, Z, ...]
  acting = base.select_rows(encodings, slice(-1))
  outputs = [] if first is None else [first]
  max_set_size = trajectory.decision.variable.shape[-1]
  outputs += [
    apply_after_rows(
      network.action_head,
      params,
      problem,
      prefix,
      acting,
      jax.tree.map(lambda leaf, step=step: leaf[:, step], partials),
    )
    for step in range(len(outputs), max_set_size)
  ]
  joint_logits, none_logits = jax.tree.map(
    lambda *leaves: jnp.stack(leaves, 1), *[output.logits for output in outputs]
  )
  every_step = jax.vmap(action_distribution.step_distribution, (0, 0, None, 0))
  return jax.vmap(every_step)(joint_logits, none_logits, sets, partials)


def _past_steps(num_steps: int) -> np.ndarray:
  """Returns one past step for each step t: [T] numbers from 0 to t.

  The golden ratio spreads their ages evenly, for any number of steps.
  """
  step = np.arange(num_steps)
  return ((step + 1) * ((step + 1) * _GOLDEN_RATIO % 1)).astype(np.int32)


def loss(
  params,
  reference,
  network: base.Network,
  tasks: types.Task,
  observations: jax.Array,
  trajectories: types.Trajectory,
  advantages: jax.Array,
  update_config: config.UpdateConfig,
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """Computes the loss over B groups, and its terms.

  Args:
    params: parameters of the policy.
    reference: parameters of the reference policy.
    network: functions of the network.
    tasks: B tasks.
    observations: [B, N, D] observations.
    trajectories: trajectories with leading axes [B, G].
    advantages: [B, G, T] advantages.
    update_config: options of the update.

  Returns:
    [] loss, and scalars to log.
  """

  def predictions(task, prefix, encodings, trajectory):
    """Returns the losses of predicted E[Y | do], and of predicted outcomes.

    After each row these are of one past intervention, of the next one, whose
    outcome is also predicted, and of a random one.
    """
    problem, objective = task.scm.problem, task.objective
    num_rows = len(trajectory.intervened) + 1

    def predict(rows, asked):
      return apply_after_rows(
        network.predict,
        params,
        problem,
        prefix,
        base.select_rows(encodings, rows),
        action_distribution.of_intervention(problem, asked),
      )

    def mean_loss(predicted, expected):
      own = simulate.in_target_units(task.scm, expected)
      return losses.prediction_loss(
        predicted.expected, normalization.asinh_normalize(predicted.units, own)
      )

    made = types.Intervention(trajectory.intervened, trajectory.values)
    worst, best = objective.worst, objective.best
    expected = worst + trajectory.expected_reward * (best - worst)
    past = _past_steps(num_rows - 1)
    of_past = predict(
      slice(1, None), jax.tree.map(lambda leaf: leaf[past], made)
    )
    of_next = predict(slice(-1), made)
    random, random_expected = objective_lib.random_interventions(
      trajectory.question_key, problem, objective, num_rows
    )
    of_random = predict(slice(None), random)
    target = jnp.where(problem.target, trajectory.outcomes, 0.0).sum(-1)
    return (
      mean_loss(of_past, expected[past])
      + mean_loss(of_next, expected)
      + mean_loss(of_random, random_expected)
    ) / 3, losses.prediction_loss(
      of_next.outcome, normalization.asinh_normalize(of_next.units, target)
    )

  def episode(task, prefix, old_prefix, trajectory, advantage):
    problem, objective = task.scm.problem, task.objective
    rows = tokens.episode_rows(
      problem, trajectory.intervened, trajectory.outcomes
    )
    encoding = network.full(params, problem, prefix, rows)
    # After each row, the outcomes of what extends the empty intervention, with
    # which every decision begins, and another partial intervention in turn.
    num_rows, num_partials = len(rows.start), len(objective.partial_outcome)
    turns = np.arange(num_rows) % max(num_partials - 1, 1) + 1
    asked = np.stack([np.zeros_like(turns), turns])[:num_partials]
    partials = action_distribution.of_intervention(problem, objective.partial)
    predicted = [
      apply_after_rows(
        network.action_head,
        params,
        problem,
        prefix,
        encoding,
        jax.tree.map(lambda leaf, of_row=of_row: leaf[of_row], partials),
      )
      for of_row in asked
    ]
    first = jax.tree.map(lambda leaf: leaf[:-1], predicted[0])
    log_probs = step_distributions(
      network, params, problem, prefix, encoding, trajectory, first
    )
    variable, cell = jax.tree.map(
      lambda logs: logs.sum(1),
      jax.vmap(jax.vmap(action_distribution.log_prob))(
        log_probs, trajectory.decision
      ),
    )

    def log_ratios(level):
      return losses.log_ratios(
        variable,
        cell,
        trajectory.log_prob_variable,
        trajectory.log_prob_cell,
        level,
      )

    log_ratio = log_ratios(update_config.importance_sampling_level)
    # Whole decisions, at any level of the clipped ratios.
    decision_log_ratio = log_ratios('decision')
    bounds = (update_config.epsilon, update_config.epsilon_high)
    surrogate = jax.vmap(
      lambda ratio: losses.clipped_surrogate(ratio, advantage, *bounds)
    )(log_ratio).sum()
    clipped = jax.vmap(
      lambda ratio: losses.clip_fraction(ratio, advantage, *bounds)
    )(log_ratio).mean()
    variable_entropy, cell_entropy = jax.vmap(
      jax.vmap(action_distribution.entropy)
    )(log_probs)
    if update_config.beta:
      old_encoding = network.full(reference, problem, old_prefix, rows)
      old_log_probs = step_distributions(
        network, reference, problem, old_prefix, old_encoding, trajectory
      )
      divergence = jax.vmap(jax.vmap(action_distribution.kl))(
        log_probs, old_log_probs
      )
      divergence = divergence.sum(1).mean()
    else:
      divergence = jnp.zeros(())
    truth = graphs.target_parents(task.scm)
    parent = jax.vmap(
      lambda logits: losses.parent_loss(
        logits, truth, beliefs.candidates(problem)
      )
    )(encoding.parent_logits).mean()
    outcome_logits, none_outcome = jax.tree.map(
      lambda *leaves: jnp.concatenate(leaves),
      *[(output.outcome_logits, output.none_outcome) for output in predicted],
    )
    asked_partials = jax.tree.map(lambda leaf: leaf[asked.flatten()], partials)
    outcome = losses.outcome_loss(
      outcome_logits,
      none_outcome,
      rewards.optimization(objective.curves, objective)[asked.flatten()],
      rewards.optimization(objective.partial_outcome, objective)[
        asked.flatten()
      ],
      jax.vmap(intervention_sets.may_add, (None, 0))(
        problem.sets, asked_partials.mask
      ),
      asked_partials.mask.any(-1),
    )
    of_expected, of_outcome = predictions(task, prefix, encoding, trajectory)
    return {
      'loss/surrogate': surrogate,
      'loss/parent': parent,
      'loss/outcome': outcome,
      'loss/predicted_mean': of_expected,
      'loss/predicted_outcome': of_outcome,
      'policy/kl_reference': divergence,
      'policy/entropy_variable': variable_entropy.sum(1).mean(),
      'policy/entropy_cell': cell_entropy.sum(1).mean(),
      'policy/clip_fraction': clipped,
      # k3 estimate (Schulman, 2020) of KL(acting || trained).
      'policy/kl_acting': (
        jnp.exp(decision_log_ratio) - 1 - decision_log_ratio
      ).mean(),
      'policy/log_ratio_max': jnp.maximum(
        jnp.abs(log_ratio).max(), jnp.abs(decision_log_ratio).max()
      ),
    }

  def group(task, rows, trajectory, advantage):
    problem = task.scm.problem
    prefix = network.prefix(params, problem, rows)
    old_prefix = prefix
    if update_config.beta:
      old_prefix = network.prefix(reference, problem, rows)
    return jax.vmap(episode, (None, None, None, 0, 0))(
      task, prefix, old_prefix, trajectory, advantage
    )

  parts = jax.vmap(group)(tasks, observations, trajectories, advantages)
  largest = parts['policy/log_ratio_max'].max()
  parts = jax.tree.map(jnp.mean, parts)
  parts['policy/log_ratio_max'] = largest
  total = (
    parts['loss/surrogate']
    + update_config.beta * parts['policy/kl_reference']
    - update_config.variable_entropy * parts['policy/entropy_variable']
    - update_config.cell_entropy * parts['policy/entropy_cell']
    + update_config.parent_coefficient * parts['loss/parent']
    + update_config.outcome_coefficient * parts['loss/outcome']
    + update_config.prediction_coefficient
    * (parts['loss/predicted_mean'] + parts['loss/predicted_outcome'])
  )
  return total, parts | {'loss/total': total}
