"""The learner: updates the parameters from trajectories."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from acme_cbo import types
from acme_cbo.agents.grpo import config
from acme_cbo.agents.grpo import losses
from acme_cbo.agents.grpo import optimizer as optimizer_lib
from acme_cbo.agents.grpo import rewards
from acme_cbo.agents.grpo import total_loss
from acme_cbo.networks import base
from acme_cbo.networks import tokens


def init(
  key: jax.Array,
  network: base.Network,
  optimizer: optax.GradientTransformation,
  task: types.Task,
) -> types.TrainingState:
  """Returns the state before the first update.

  Args:
    key: random key, consumed.
    network: functions of the network.
    optimizer: optimizer of stacked parameters.
    task: any task; only its shapes are used.

  Returns:
    The `TrainingState`.
  """
  key_params, key = jax.random.split(key)
  num_variables = task.scm.order.shape[-1]
  params = network.init(
    key_params,
    task.scm.problem,
    jnp.zeros((2, num_variables)),
    tokens.start_row(num_variables),
  )
  return types.TrainingState(
    params=params,
    reference=jax.tree.map(jnp.copy, params),
    opt_state=optimizer.init(optimizer_lib.stack_by_shape(params)),
    key=key,
    step=jnp.int32(0),
    dead_updates=jnp.int32(0),
  )


def compute_advantages(
  components: jax.Array,
  reached: jax.Array,
  reward_config: config.RewardConfig,
  update_config: config.UpdateConfig,
) -> tuple[jax.Array, jax.Array]:
  """Computes how much better than its group each decision was.

  Args:
    components: [B, G, T, E] rewards.
    reached: [B, G, T] reward of the best so far after each step.
    reward_config: weights of the components.
    update_config: options of the update.

  Returns:
    [B, G, T] advantages, and [B, T] bool, True where the group is dead.
  """
  # Only `optimization` depends on the kind of regret: the other components
  # reward the path to the best, so that all their steps count.
  optimization, reached = (
    losses.logarithmic_rewards(leaf, update_config.regret_floor)
    for leaf in (components[..., rewards.OPTIMIZATION], reached)
  )
  counted = components.at[..., rewards.OPTIMIZATION].set(
    losses.regret_rewards(
      optimization, reached, update_config.simple_regret_share
    )
  )
  returns = losses.returns(counted, update_config.supervision)  # [B, G, T, E]
  if update_config.scale_components == 'group':
    returns, _ = jax.vmap(
      lambda component: losses.group_advantages(component, 'group'), -1, -1
    )(returns)
  group_returns = rewards.total(returns, reward_config)
  if update_config.baseline == 'reached':
    group_returns = losses.subtract_reached(
      group_returns, losses.before_each_step(reached)
    )
  return losses.group_advantages(group_returns, update_config.scale_rewards)


# Names of the quantities that `non_finite_mask` checks, causes first.
CHECKED_NAMES = (
  'loss/surrogate',
  'loss/parent',
  'loss/outcome',
  'loss/predicted_mean',
  'loss/predicted_outcome',
  'policy/kl_reference',
  'policy/entropy_variable',
  'policy/entropy_cell',
  'policy/kl_acting',
  'policy/log_ratio_max',
  'loss/total',
  'gradient',
)


def non_finite_mask(
  params,
  reference,
  network: base.Network,
  tasks: types.Task,
  observations: jax.Array,
  trajectories: types.Trajectory,
  reward_config: config.RewardConfig,
  update_config: config.UpdateConfig,
) -> jax.Array:
  """Finds the tasks on which a term of the loss or its gradient is not finite.

  It is slow, task by task, and meant for an update that has failed.

  Args:
    params: parameters of the policy.
    reference: parameters of the reference policy.
    network: functions of the network.
    tasks: B tasks.
    observations: [B, N, D] observations.
    trajectories: trajectories with leading axes [B, G].
    reward_config: weights of the reward components.
    update_config: options of the update.

  Returns:
    [len(CHECKED_NAMES), B] bool, True where a quantity is not finite.
  """
  advantages, _ = compute_advantages(
    trajectories.components,
    trajectories.reached,
    reward_config,
    update_config,
  )

  def finite(data):
    batch = jax.tree.map(lambda leaf: leaf[None], data)
    gradient, parts = jax.grad(total_loss.loss, has_aux=True)(
      params, reference, network, *batch, update_config
    )
    parts['gradient'] = optax.tree.norm(gradient)
    return jnp.isfinite(jnp.stack([parts[name] for name in CHECKED_NAMES]))

  data = (tasks, observations, trajectories, advantages)
  return ~jax.lax.map(finite, data).T


def update(
  state: types.TrainingState,
  network: base.Network,
  optimizer: optax.GradientTransformation,
  tasks: types.Task,
  observations: jax.Array,
  trajectories: types.Trajectory,
  reward_config: config.RewardConfig,
  update_config: config.UpdateConfig,
  axis: str | None = None,
) -> tuple[types.TrainingState, dict[str, jax.Array]]:
  """Makes `num_iterations` passes of `num_minibatches` gradient steps.

  Where a loss or a gradient is not finite, the parameters stay as they were
  before that step, so that `non_finite_mask` can find the task; the metrics are
  not finite.

  Args:
    state: state before the update.
    network: functions of the network.
    optimizer: optimizer of stacked parameters.
    tasks: B tasks.
    observations: [B, N, D] observations.
    trajectories: trajectories with leading axes [B, G].
    reward_config: weights of the reward components.
    update_config: options of the update.
    axis: axis of devices within `jax.shard_map`. Each device has other tasks,
      the same number for every part of a minibatch, and the same state. None if
      all tasks are on this device.

  Returns:
    The state after the update, the same on every device, and scalars to log.
  """
  components, reached = (
    _gather_tasks(leaf, axis)
    for leaf in (trajectories.components, trajectories.reached)
  )  # [B, G, T, E] and [B, G, T]
  advantages, dead = compute_advantages(
    components, reached, reward_config, update_config
  )
  data = (tasks, observations, trajectories, _own_tasks(advantages, axis))
  batch_shape = (
    update_config.num_minibatches,
    update_config.gradient_accumulation_steps,
  )
  batches = jax.tree.map(
    lambda leaf: leaf.reshape(*batch_shape, -1, *leaf.shape[1:]), data
  )

  def gradient_step(carry, batch):
    params, opt_state, finite = carry
    tree = optimizer_lib.unstack(params, state.params)

    def part_gradient(part):
      gradient, parts = jax.grad(total_loss.loss, has_aux=True)(
        tree, state.reference, network, *part, update_config
      )
      return optimizer_lib.stack_by_shape(gradient), parts

    gradients, parts = jax.lax.map(part_gradient, batch)
    gradient = jax.tree.map(lambda leaf: leaf.mean(0), gradients)
    gradient, parts = _reduce_over_devices(gradient, parts, axis)
    parts['train/gradient_norm'] = optax.tree.norm(gradient)
    updates, new_opt_state = optimizer.update(gradient, opt_state, params)
    new = optax.apply_updates(params, updates), new_opt_state
    parts['train/update_norm'] = optax.tree.norm(updates)
    for name in ('loss/total', 'train/gradient_norm', 'train/update_norm'):
      finite &= jnp.isfinite(parts[name]).all()
    params, opt_state = jax.tree.map(
      lambda after, before: jnp.where(finite, after, before),
      new,
      (params, opt_state),
    )
    return (params, opt_state, finite), parts

  def one_pass(carry, _):
    return jax.lax.scan(gradient_step, carry, batches)

  (params, opt_state, _), parts = jax.lax.scan(
    one_pass,
    (optimizer_lib.stack_by_shape(state.params), state.opt_state, True),
    length=update_config.num_iterations,
  )
  metrics: dict[str, Any] = jax.tree.map(jnp.mean, parts)
  metrics['policy/log_ratio_max'] = parts['policy/log_ratio_max'].max()
  metrics['train/parameter_norm'] = optax.tree.norm(params)
  metrics['reward/total'] = rewards.total(components, reward_config).mean()
  for i, name in enumerate(rewards.COMPONENTS):
    metrics[f'reward/{name}'] = components[..., i].mean()
  optimization = components[..., rewards.OPTIMIZATION]
  metrics['reward/optimization_last'] = optimization[..., -1].mean()
  metrics['reward/optimization_best'] = optimization.max(-1).mean()
  metrics['train/dead_groups'] = dead.mean()

  params = optimizer_lib.unstack(params, state.params)
  step = state.step + 1
  reference = jax.lax.cond(
    step % update_config.reference_every == 0,
    lambda: params,
    lambda: state.reference,
  )
  return state._replace(
    params=params,
    reference=reference,
    opt_state=opt_state,
    step=step,
    dead_updates=jnp.where(dead.all(), state.dead_updates + 1, 0),
  ), metrics


def _gather_tasks(own: jax.Array, axis: str | None) -> jax.Array:
  """Gathers the values of the tasks of all devices: [B, ...]."""
  if axis is None:
    return own
  return jax.lax.all_gather(own, axis, tiled=True)


def _own_tasks(gathered: jax.Array, axis: str | None) -> jax.Array:
  """Returns the values of this device's tasks; inverts `_gather_tasks`."""
  if axis is None:
    return gathered
  size = len(gathered) // jax.lax.axis_size(axis)
  start = jax.lax.axis_index(axis) * size
  return jax.lax.dynamic_slice_in_dim(gathered, start, size)


def _reduce_over_devices(
  gradient: Any, parts: dict[str, jax.Array], axis: str | None
):
  """Returns means over the devices, and the maximum of the log ratio."""
  if axis is None:
    return gradient, parts
  largest = jax.lax.pmax(parts['policy/log_ratio_max'], axis)
  gradient, parts = jax.lax.pmean((gradient, parts), axis)
  return gradient, parts | {'policy/log_ratio_max': largest}
