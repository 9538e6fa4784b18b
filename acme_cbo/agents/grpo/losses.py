"""Losses of group relative policy optimization (GRPO), on rlax.

Shao et al., "DeepSeekMath", 2024, section 4.1: the baseline of a rollout is
the mean return of its group, so that no value function is needed. Here a group
is the G rollouts on one SCM, from the same observational rows.
"""

import math
from typing import Any

import chex
import jax
import jax.numpy as jnp
import rlax

from acme_cbo.networks import outcome_distribution

# A larger log ratio means that the data are too far off-policy, and the caller
# raises. Up to here, `exp` and its gradient stay finite.
MAX_LOG_RATIO = 20.0
# Returns of a group that differ by less than this, relative to the largest,
# differ by rounding only.
_DEAD_SPREAD = 1e-5


def logarithmic_rewards(
  optimization: jax.Array, regret_floor: float
) -> jax.Array:
  """Returns rewards that are linear in the logarithm of the regret.

  `1 - log(1 + regret / floor) / log(1 + 1 / floor)`, which leaves 0 and 1
  unchanged. With a small floor, the step from .9 to .99 is worth as much as the
  step from 0 to .9.

  Args:
    optimization: [..., T] rewards; the regret is 1 minus the reward.
    regret_floor: regret below which the scale is linear; 0 leaves the rewards
      unchanged.

  Returns:
    [..., T] rewards.
  """
  if not regret_floor:
    return optimization
  # The search for the best intervention is inexact: a regret may be negative.
  regret = jnp.maximum(1 - optimization, 0.0)
  largest = math.log1p(1 / regret_floor)
  return 1 - jnp.log1p(regret / regret_floor) / largest


def regret_rewards(
  optimization: jax.Array, reached: jax.Array, simple_regret_share: float
) -> jax.Array:
  """Mixes the rewards of cumulative regret and of simple regret.

  At a share of 1, a change of the best so far counts once for each step from
  then on, so that the rewards of an episode add up to the sum of the best so
  far.

  Args:
    optimization: [..., T] rewards.
    reached: [..., T] reward of the best so far after each step.
    simple_regret_share: share of the simple regret, in [0, 1].

  Returns:
    [..., T] rewards.
  """
  gained = jnp.maximum(reached, 0.0) - before_each_step(reached)
  steps_left = gained.shape[-1] - jnp.arange(gained.shape[-1])
  share = simple_regret_share
  return (1 - share) * optimization + share * steps_left * gained


def before_each_step(reached: jax.Array) -> jax.Array:
  """Returns the best so far before each step instead, at least 0: [..., T]."""
  before = jnp.zeros_like(reached).at[..., 1:].set(reached[..., :-1])
  return jnp.maximum(before, 0.0)


def subtract_reached(group_returns: jax.Array, reached: jax.Array) -> jax.Array:
  """Subtracts the part of the returns that earlier rewards explain.

  A rollout that has reached less has more left to gain, which is no merit of
  its next decision. The part of the returns that is linear in what was reached
  is estimated by least squares over the batch, within the groups: a control
  variate (Glasserman, "Monte Carlo Methods in Financial Engineering", 2003,
  section 4.1). It depends on later decisions only through its coefficient, one
  per step.

  Args:
    group_returns: [B, G, T] returns.
    reached: [B, G, T] best reward before each step.

  Returns:
    [B, G, T] returns.
  """
  returns, reached = (
    leaf - leaf.mean(1, keepdims=True) for leaf in (group_returns, reached)
  )
  squares = jnp.square(reached).sum((0, 1))
  slope = (returns * reached).sum((0, 1)) / jnp.where(squares > 0, squares, 1)
  return group_returns - slope * reached


def returns(components: jax.Array, supervision: str) -> jax.Array:
  """Computes the return of each step, for each reward component.

  Args:
    components: [..., T, E] rewards.
    supervision: 'process' for the return-to-go, 'outcome' for the return of the
      episode.

  Returns:
    [..., T, E] returns.
  """
  # One episode or all groups: an array without the last axis is an error.
  chex.assert_rank(components, {2, 4})
  if supervision == 'outcome':
    total = components.sum(-2, keepdims=True)
    return jnp.broadcast_to(total, components.shape)
  return jnp.flip(jnp.cumsum(jnp.flip(components, -2), -2), -2)


def group_advantages(
  group_returns: jax.Array, scale_rewards: str
) -> tuple[jax.Array, jax.Array]:
  """Computes `(R - mean of the group) / standard deviation`, per step.

  A group is dead at a step if its standard deviation is at most 1e-5 of its
  largest absolute return. Its advantages are exactly 0 there, instead of a
  division by rounding errors.

  Args:
    group_returns: [B, G, T] returns.
    scale_rewards: returns whose standard deviation divides the advantages:
      'group', 'batch' or 'none'.

  Returns:
    [B, G, T] advantages, and [B, T] bool, True where the group is dead.
  """
  chex.assert_rank(group_returns, 3)
  centered = group_returns - group_returns.mean(1, keepdims=True)
  spread = jnp.sqrt(jnp.square(centered).mean(1, keepdims=True))
  largest = jnp.abs(group_returns).max(1, keepdims=True)
  dead = spread <= _DEAD_SPREAD * largest
  live = ~dead
  if scale_rewards == 'group':
    scale = jnp.where(dead, 1.0, spread)
  elif scale_rewards == 'batch':
    count = jnp.maximum(live.sum(0, keepdims=True), 1)
    variance = jnp.where(dead, 0.0, jnp.square(spread)).sum(0, keepdims=True)
    scale = jnp.sqrt(variance / count)
    scale = jnp.where(scale > 0, scale, 1.0)
  else:
    scale = jnp.ones_like(spread)
  return jnp.where(dead, 0.0, centered / scale), dead[:, 0]


def log_ratios(
  log_prob_variable: jax.Array,
  log_prob_cell: jax.Array,
  old_log_prob_variable: jax.Array,
  old_log_prob_cell: jax.Array,
  level: str,
) -> jax.Array:
  """Computes the log importance ratios of one episode.

  Args:
    log_prob_variable: [T] log probability of the variables, under the policy
      that is trained.
    log_prob_cell: [T] log probability of the cells, under the same policy.
    old_log_prob_variable: [T] log probability of the variables, under the
      policy that acted.
    old_log_prob_cell: [T] log probability of the cells, under the same policy.
    level: level of the ratio: 'decision', 'factor' or 'sequence'.

  Returns:
    [F, T], where F = 2 for 'factor' and 1 otherwise.
  """
  factors = jnp.stack(
    [
      log_prob_variable - old_log_prob_variable,
      log_prob_cell - old_log_prob_cell,
    ]
  )
  if level == 'factor':
    return factors
  joint = factors.sum(0, keepdims=True)
  if level == 'sequence':
    # The value is that of the mean, the gradient that of each step's own share
    # (GSPO-token): each step is credited with its own advantage.
    mean = jax.lax.stop_gradient(joint.mean())
    return mean + (joint - jax.lax.stop_gradient(joint))
  return joint


def clipped_surrogate(
  log_ratio_t: jax.Array,
  advantages_t: jax.Array,
  epsilon: float,
  epsilon_high: float,
) -> jax.Array:
  """Computes `-mean min(r A, clip(r, 1 - epsilon, 1 + epsilon_high) A)`.

  The upper bound only acts on positive advantages and the lower one on negative
  advantages. A symmetric bound, chosen by the sign of each advantage, therefore
  clips asymmetrically and exactly.

  Args:
    log_ratio_t: [T] log importance ratios.
    advantages_t: [T] advantages.
    epsilon: distance of the lower bound from 1.
    epsilon_high: distance of the upper bound from 1.

  Returns:
    [] loss. At ratio 1 it is minus the mean advantage.
  """
  chex.assert_rank([log_ratio_t, advantages_t], 1)
  ratio = jnp.exp(jnp.clip(log_ratio_t, -MAX_LOG_RATIO, MAX_LOG_RATIO))
  bound = jnp.where(advantages_t > 0, epsilon_high, epsilon)
  per_step: Any = jax.vmap(rlax.clipped_surrogate_pg_loss)
  return per_step(ratio[:, None], advantages_t[:, None], bound).mean()


def clip_fraction(
  log_ratio_t: jax.Array,
  advantages_t: jax.Array,
  epsilon: float,
  epsilon_high: float,
) -> jax.Array:
  """Returns the share of steps whose gradient is clipped to 0: []."""
  ratio = jnp.exp(log_ratio_t)
  above = (advantages_t > 0) & (ratio > 1 + epsilon_high)
  below = (advantages_t < 0) & (ratio < 1 - epsilon)
  return (above | below).mean()


def parent_loss(
  parent_logits: jax.Array, is_parent: jax.Array, candidates: jax.Array
) -> jax.Array:
  """Computes the cross-entropy of the learned belief, over the candidates.

  Args:
    parent_logits: [D] log odds that a variable is a parent of the target.
    is_parent: [D] bool, the true parents.
    candidates: [D] bool, variables that could be parents.

  Returns:
    [] mean cross-entropy in nats.
  """
  return _mean_cross_entropy(parent_logits, is_parent, candidates)


def outcome_loss(
  outcome_logits: jax.Array,
  none_outcome: jax.Array,
  rewards: jax.Array,
  partial_rewards: jax.Array,
  may_add: jax.Array,
  is_one: jax.Array,
) -> jax.Array:
  """Computes the cross-entropy of the predicted rewards of interventions.

  As for a squared error, the minimum is at the posterior mean of the reward.

  Args:
    outcome_logits: [Q, D, C] logits of the predicted rewards of adding one
      variable to each of Q partial interventions.
    none_outcome: [Q] logits of the predicted rewards of each partial
      intervention as it is.
    rewards: [Q, D, C] `optimization` rewards. They are in [0, 1], except where
      the search for the best and the worst intervention was inexact.
    partial_rewards: [Q] `optimization` rewards of each partial intervention as
      it is.
    may_add: [Q, D] bool, variables that may be added.
    is_one: [Q] bool, False where the partial intervention is empty, which is
      not an intervention.

  Returns:
    [] mean cross-entropy in nats.
  """

  def one_loss(logits, none_logit, rewards, partial_reward, may_add, is_one):
    all_logits = jnp.append(logits.flatten(), none_logit)
    mask = jnp.broadcast_to(may_add[:, None], rewards.shape)
    return _mean_cross_entropy(
      all_logits,
      jnp.clip(jnp.append(rewards.flatten(), partial_reward), 0.0, 1.0),
      jnp.append(mask.flatten(), is_one),
    )

  return jax.vmap(one_loss)(
    outcome_logits, none_outcome, rewards, partial_rewards, may_add, is_one
  ).mean()


def prediction_loss(
  mixture: outcome_distribution.Mixture, values: jax.Array
) -> jax.Array:
  """Returns minus the mean log density of predicted distributions: [].

  A strictly proper score (Gneiting and Raftery, 2007, section 4.1).

  Args:
    mixture: [...] predicted distributions of normalized targets.
    values: [...] the targets.
  """
  return -outcome_distribution.log_density(mixture, values).mean()


def _mean_cross_entropy(logits, labels, mask):
  labels = labels.astype(logits.dtype)
  log_loss = -labels * jax.nn.log_sigmoid(logits)
  log_loss -= (1 - labels) * jax.nn.log_sigmoid(-logits)
  return jnp.where(mask, log_loss, 0.0).sum() / jnp.maximum(mask.sum(), 1)
