"""Group relative policy optimisation on rlax.

Shao et al., "DeepSeekMath", 2024, section 4.1: the baseline of a rollout is
the mean return of its group, so that no value function is needed. Here the
group are the G rollouts on one SCM from the same observational rows.
"""

import math
from typing import Any

import chex
import jax
import jax.numpy as jnp
import rlax

# Beyond this a log ratio means that policy and data have come apart; the
# caller raises. Inside, `exp` and its gradient stay finite.
MAX_LOG_RATIO = 20.0
# A group whose returns differ by rounding alone has nothing to tell.
_DEAD_SPREAD = 1e-5


def by_factors(optimization: jax.Array, regret_floor: float) -> jax.Array:
  """Rewards that rise as much wherever a regret shrinks by a factor.

  `1 - log(1 + regret / floor) / log(1 + 1 / floor)`, so that 0 and 1 stay what
  they are. What is left to be gained is as large from .9 to .99 as from 0 to
  .9, for a floor that is small.

  Args:
    optimization: [..., T] rewards; the regret is what is missing to 1.
    regret_floor: 0 leaves them.

  Returns:
    [..., T].
  """
  if not regret_floor:
    return optimization
  # The search for the best misses a little now and then.
  regret = jnp.maximum(1 - optimization, 0.0)
  whole = math.log1p(1 / regret_floor)
  return 1 - jnp.log1p(regret / regret_floor) / whole


def regret_rewards(
  optimization: jax.Array, simple_regret_share: float
) -> jax.Array:
  """Weighs each step's `optimization` reward by the regret it leaves.

  At a share of 1 an improvement on the best so far counts once for each step
  from then on, so that an episode adds up to the sum of the best so far.

  Args:
    optimization: [..., T] rewards.
    simple_regret_share: in [0, 1].

  Returns:
    [..., T].
  """
  gained = jnp.maximum(optimization - best_before(optimization), 0.0)
  steps_left = gained.shape[-1] - jnp.arange(gained.shape[-1])
  share = simple_regret_share
  return (1 - share) * optimization + share * steps_left * gained


def best_before(optimization: jax.Array) -> jax.Array:
  """The best of the rewards before each step, at least 0: [..., T]."""
  best = jax.lax.cummax(optimization, optimization.ndim - 1)
  best = jnp.zeros_like(best).at[..., 1:].set(best[..., :-1])
  return jnp.maximum(best, 0.0)


def without_reached(group_returns: jax.Array, reached: jax.Array) -> jax.Array:
  """Returns without what is owed to what had been reached before.

  Rollouts of a group drift apart. Who has found less has more left to find,
  which is not to the credit of the next decision. Subtracted is what the
  returns change with what was reached, by least squares over the batch within
  the groups: a control variate (Glasserman, "Monte Carlo Methods in Financial
  Engineering", 2003, section 4.1), which depends on no later decision but
  through its one coefficient for each step.

  Args:
    group_returns: [B, G, T].
    reached: [B, G, T] before each step.

  Returns:
    [B, G, T].
  """
  returns, reached = (
    leaf - leaf.mean(1, keepdims=True) for leaf in (group_returns, reached)
  )
  squares = jnp.square(reached).sum((0, 1))
  slope = (returns * reached).sum((0, 1)) / jnp.where(squares > 0, squares, 1)
  return group_returns - slope * reached


def returns(components: jax.Array, supervision: str) -> jax.Array:
  """Computes the return of each decision.

  Args:
    components: [..., T, 4] rewards, each on its own.
    supervision: 'process' or 'outcome'.

  Returns:
    [..., T, 4] sums of the rewards from each step on, or from the first one on.
  """
  # Of one episode or of all groups; without its last axis T would be mistaken.
  chex.assert_rank(components, {2, 4})
  if supervision == 'outcome':
    total = components.sum(-2, keepdims=True)
    return jnp.broadcast_to(total, components.shape)
  return jnp.flip(jnp.cumsum(jnp.flip(components, -2), -2), -2)


def group_advantages(
  group_returns: jax.Array, scale_rewards: str
) -> tuple[jax.Array, jax.Array]:
  """`(R - mean over the group) / deviation`, per step.

  A group is dead at a step if its deviation is at most 1e-5 of its largest
  absolute return: its advantages are 0 exactly, and never a division by a
  rounding error.

  Args:
    group_returns: [B, G, T].
    scale_rewards: 'group', 'batch' or 'none'.

  Returns:
    [B, G, T] advantages and [B, T] bool, where the group is dead.
  """
  chex.assert_rank(group_returns, 3)
  centred = group_returns - group_returns.mean(1, keepdims=True)
  spread = jnp.sqrt(jnp.square(centred).mean(1, keepdims=True))
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
  return jnp.where(dead, 0.0, centred / scale), dead[:, 0]


def log_ratios(
  log_prob_variable: jax.Array,
  log_prob_cell: jax.Array,
  old_log_prob_variable: jax.Array,
  old_log_prob_cell: jax.Array,
  level: str,
) -> jax.Array:
  """Log importance ratios of one episode.

  Args:
    log_prob_variable: [T] under the policy that is trained.
    log_prob_cell: [T] likewise.
    old_log_prob_variable: [T] under the policy that acted.
    old_log_prob_cell: [T] likewise.
    level: 'decision', 'factor' or 'sequence'.

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
    # The value of the mean, the gradient of each step's own share (GSPO-token),
    # so that each step is credited with its own advantage.
    mean = jax.lax.stop_gradient(joint.mean())
    return mean + (joint - jax.lax.stop_gradient(joint))
  return joint


def clipped_surrogate(
  log_ratio_t: jax.Array,
  advantages_t: jax.Array,
  epsilon: float,
  epsilon_high: float,
) -> jax.Array:
  """`-mean min(r A, clip(r, 1 - epsilon, 1 + epsilon_high) A)`.

  The upper bound acts on positive advantages alone and the lower one on
  negative, so a symmetric bound chosen by the sign of each advantage gives
  asymmetric clipping exactly.

  Args:
    log_ratio_t: [T] log importance ratios.
    advantages_t: [T].
    epsilon: distance of the lower bound from 1.
    epsilon_high: distance of the upper bound from 1.

  Returns:
    [] the loss. At ratio 1 its value is minus the mean advantage.
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
  """Share of steps whose gradient the clipping has cut off: []."""
  ratio = jnp.exp(log_ratio_t)
  above = (advantages_t > 0) & (ratio > 1 + epsilon_high)
  below = (advantages_t < 0) & (ratio < 1 - epsilon)
  return (above | below).mean()


def parent_loss(
  parent_logits: jax.Array, is_parent: jax.Array, candidates: jax.Array
) -> jax.Array:
  """Cross-entropy of the learned belief, over the possible parents.

  Args:
    parent_logits: [D] log odds.
    is_parent: [D] bool, the truth.
    candidates: [D] bool, the variables that could be one.

  Returns:
    [] in nats.
  """
  return _mean_cross_entropy(parent_logits, is_parent, candidates)


def outcome_loss(
  outcome_logits: jax.Array,
  none_outcome: jax.Array,
  rewards: jax.Array,
  given_rewards: jax.Array,
  may_add: jax.Array,
) -> jax.Array:
  """Cross-entropy of the predicted rewards of interventions.

  Its minimum is the posterior mean of the reward, as a squared error's.

  Args:
    outcome_logits: [P, R, D, C] logits of the predicted rewards of one more
      variable beside each of P partial interventions, after each of R rows.
    none_outcome: [P, R] the same of each alone.
    rewards: [P, D, C] the `optimization` rewards. They are in [0, 1], but for
      what the search for the best and the worst has missed.
    given_rewards: [P] the same of each partial intervention alone; the first is
      of no variable, which is no intervention.
    may_add: [P, D] bool, the variables that may be added.

  Returns:
    [] in nats.
  """

  def each(logits, nones, rewards, given_reward, may_add, is_one):
    whole = jnp.append(logits.flatten(), nones)
    mask = jnp.broadcast_to(may_add[:, None], rewards.shape)
    return _mean_cross_entropy(
      whole,
      jnp.clip(jnp.append(rewards.flatten(), given_reward), 0.0, 1.0),
      jnp.append(mask.flatten(), is_one),
    )

  after_rows = jax.vmap(each, (0, 0, None, None, None, None))
  is_one = jnp.arange(len(given_rewards)) > 0
  return jax.vmap(after_rows)(
    outcome_logits, none_outcome, rewards, given_rewards, may_add, is_one
  ).mean()


def made_loss(logits: jax.Array, earned: jax.Array) -> jax.Array:
  """`outcome_loss` of interventions that were made.

  Args:
    logits: [R] logits of the predicted reward of one of them, after each row.
    earned: [R] the `optimization` rewards of these.

  Returns:
    [] in nats.
  """
  everything = jnp.ones(logits.shape, bool)
  return _mean_cross_entropy(logits, jnp.clip(earned, 0.0, 1.0), everything)


def _mean_cross_entropy(logits, labels, mask):
  labels = labels.astype(logits.dtype)
  log_loss = -labels * jax.nn.log_sigmoid(logits)
  log_loss -= (1 - labels) * jax.nn.log_sigmoid(-logits)
  return jnp.where(mask, log_loss, 0.0).sum() / jnp.maximum(mask.sum(), 1)
