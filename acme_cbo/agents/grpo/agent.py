"""The GRPO agent: the parts of an update and the programs that run it."""

from collections.abc import Callable, Iterator, Mapping
import dataclasses
import functools
from typing import Any, NamedTuple, TypeVar

import jax
from jax import stages
import jax.numpy as jnp
import numpy as np
import optax

from acme_cbo import types
from acme_cbo.agents.grpo import acting
from acme_cbo.agents.grpo import config as grpo_config
from acme_cbo.agents.grpo import learning
from acme_cbo.agents.grpo import losses
from acme_cbo.environments import config as environments_config
from acme_cbo.infra import errors
from acme_cbo.networks import base
from acme_cbo.scms import config as scms_config
from acme_cbo.scms import priors

TreeT = TypeVar('TreeT')
Step = Callable[
  [types.TrainingState], tuple[types.TrainingState, Mapping[str, Any]]
]
# So many updates in a row without one live group are an error.
_MAX_DEAD_UPDATES = 20


@dataclasses.dataclass(frozen=True)
class Parts:
  """Parts of an update.

  Attributes:
    network: functions of the policy.
    optimizer: the gradient transformation.
    prior: the distribution of SCMs.
    horizon: size of an episode, N and T.
    rewards: weights and kinds of the reward components.
    update: sizes and options of the update.
  """

  network: base.Network
  optimizer: optax.GradientTransformation
  prior: scms_config.Prior
  horizon: environments_config.HorizonConfig
  rewards: grpo_config.RewardConfig
  update: grpo_config.UpdateConfig


def init(key: jax.Array, parts: Parts) -> types.TrainingState:
  """Returns the state before the first update. The key is consumed."""
  shapes, _ = priors.sample_task.eval_shape(key, parts.prior)
  task = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
  return learning.init(key, parts.network, parts.optimizer, task)


def initial_state(seed: int, parts: Parts) -> types.TrainingState:
  """Returns `init` of a seed, compiled."""
  return programs(parts)['init'](jax.random.PRNGKey(seed))


def task_keys(key: jax.Array, tasks: types.Task) -> jax.Array:
  """Returns [B] keys, one for the rollouts on each task; `key` is consumed."""
  return jax.random.split(key, len(tasks.scm.order))


def act(params, key: jax.Array, tasks: types.Task, parts: Parts):
  """Returns `act_on_each` with the `task_keys` of a key, which is consumed."""
  return act_on_each(params, task_keys(key, tasks), tasks, parts)


def act_on_each(params, keys: jax.Array, tasks: types.Task, parts: Parts):
  """Samples a group of rollouts on every task, and checks them.

  Args:
    params: parameters of the network.
    keys: [B] random keys of the tasks, consumed.
    tasks: B tasks.
    parts: parts of the update.

  Returns:
    Observations and trajectories, see `acting.act`, and their
    `acting.non_finite_mask`.
  """
  data = acting.act(
    keys,
    params,
    parts.network,
    tasks,
    parts.horizon,
    parts.update.num_generations,
    parts.rewards,
  )
  return data, acting.non_finite_mask(*data)


def learn(
  state: types.TrainingState,
  tasks,
  observations,
  trajectories,
  parts: Parts,
  axis: str | None = None,
):
  """Updates the state with the experience of `act`, see `learning.update`."""
  return learning.update(
    state,
    parts.network,
    parts.optimizer,
    tasks,
    observations,
    trajectories,
    parts.rewards,
    parts.update,
    axis,
  )


def learner_faults(
  state: types.TrainingState, tasks, observations, trajectories, parts: Parts
) -> jax.Array:
  """Returns the `learning.non_finite_mask` of an update."""
  return learning.non_finite_mask(
    state.params,
    state.reference,
    parts.network,
    tasks,
    observations,
    trajectories,
    parts.rewards,
    parts.update,
  )


def programs(parts: Parts) -> dict[str, stages.Wrapped]:
  """Returns the programs of an update, each compiled on its own.

  Args:
    parts: parts of the update.

  Returns:
    'init': key -> state; 'fill': key -> tasks and whether they are all there,
    see `priors.fill`; 'act': (params, key, tasks) -> what `act` returns;
    'learn': (state, tasks, observations, trajectories) -> state and metrics,
    where the state that is given is donated; 'faults': the same ->
    `learner_faults`, for when an update has failed.
  """
  return {
    'init': jax.jit(lambda key: init(key, parts)),
    'fill': jax.jit(
      lambda key: priors.fill(key, parts.prior, parts.update.num_tasks)
    ),
    'act': jax.jit(lambda params, key, tasks: act(params, key, tasks, parts)),
    'learn': jax.jit(
      lambda state, tasks, observations, trajectories: learn(
        state, tasks, observations, trajectories, parts
      ),
      donate_argnums=0,
    ),
    'faults': jax.jit(
      lambda state, tasks, observations, trajectories: learner_faults(
        state, tasks, observations, trajectories, parts
      )
    ),
  }


def traced_with(
  programs: Mapping[str, stages.Wrapped], name: str, *args: Any
) -> tuple[tuple[str, stages.Traced], Any]:
  """Traces one of the programs: its name and itself, and what it returns."""
  program = programs[name].trace(*args)
  made = jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), program.out_info
  )
  return (name, program), made


def trace(
  programs: Mapping[str, stages.Wrapped],
) -> Iterator[tuple[str, stages.Traced]]:
  """Traces what every update calls, one after the other, without a call.

  Args:
    programs: as `programs` gives them.

  Yields:
    The name of each and what it was traced to.
  """
  key = jax.eval_shape(lambda: jax.random.PRNGKey(0))
  traced = functools.partial(traced_with, programs)
  program, state = traced('init', key)
  yield program
  program, (tasks, _) = traced('fill', key)
  yield program
  program, (data, _) = traced('act', state.params, key, tasks)
  yield program
  program, _ = traced('learn', state, tasks, *data)
  yield program


class Experience(NamedTuple):
  """Experience that an actor hands to the learner.

  Attributes:
    tasks: B tasks.
    data: observations and trajectories on them.
    seed: from which the tasks were drawn.
    next_key: from which the next update is drawn.
  """

  tasks: types.Task
  data: tuple[jax.Array, types.Trajectory]
  seed: str
  next_key: jax.Array


def collect(
  run: Mapping[str, Callable[..., Any]], params, key: jax.Array, update: int
) -> Experience:
  """The first half of an update: tasks are drawn, and rollouts made on them.

  Args:
    run: the `programs`.
    params: of the policy that acts.
    key: of the update, consumed.
    update: its number, counted from 1.

  Returns:
    The `Experience`.

  Raises:
    errors.UsageError: the prior cannot fill a batch.
    errors.NonFiniteError: an observation, a logit or a reward is not finite.
  """
  key, key_tasks, key_act = jax.random.split(key, 3)
  seed = str(jax.random.key_data(key_tasks).tolist())
  tasks = priors.require_complete(*run['fill'](key_tasks))
  data, faults = run['act'](params, key_act, tasks)
  errors.check_finite(update, acting.CHECKED_NAMES, np.asarray(faults), seed)
  return Experience(tasks, data, seed, key)


def update(
  run: Mapping[str, Callable[..., Any]],
  state: types.TrainingState,
  experience: Experience,
) -> tuple[types.TrainingState, dict[str, jax.Array]]:
  """The second half of an update: what it does to the state, and metrics.

  Args:
    run: the `programs`.
    state: before the update; donated.
    experience: of the update.

  Returns:
    The state after it, whose key is the next one, and the metrics.

  Raises:
    errors.NonFiniteError: a loss or a gradient is not finite.
    FloatingPointError: the policy has diverged from the one that acted, or
      every group had zero advantage for many updates.
  """
  update = int(state.step) + 1
  tasks, data, seed, key = experience
  state, metrics = run['learn'](state._replace(key=key), tasks, *data)
  lost = [
    name
    for name, value in jax.device_get(metrics).items()
    if not np.isfinite(value)
  ]
  if lost:
    faults = np.asarray(run['faults'](state, tasks, *data))
    errors.check_finite(update, learning.CHECKED_NAMES, faults, seed)
  largest = float(metrics['policy/log_ratio_max'])
  # Also where it is NaN.
  if not largest <= losses.MAX_LOG_RATIO:
    raise FloatingPointError(
      f'update {update}: a log importance ratio of {largest:.1f} '
      f'is beyond {losses.MAX_LOG_RATIO}; lower optimizer.learning_rate or '
      'grpo.num_iterations'
    )
  if lost:
    raise FloatingPointError(
      f'update {update}: not finite: {", ".join(lost)}, though the loss and '
      'the gradient of each SCM are; lower optimizer.learning_rate'
    )
  if int(state.dead_updates) >= _MAX_DEAD_UPDATES:
    raise FloatingPointError(
      f'update {update}: for {_MAX_DEAD_UPDATES} updates in a row '
      'all rollouts of every group have earned the same; raise the weights '
      'of the entropy, or check the weights of the rewards'
    )
  return state, metrics


def make_step(
  run: Mapping[str, Callable[..., Any]],
) -> Step:
  """One update as a function of the state, which it donates.

  Args:
    run: the `programs`.

  Returns:
    `step(state) -> (state, metrics)`. It raises as `acted` and `learned` do.
  """

  def step(state):
    number = int(state.step) + 1
    return update(run, state, collect(run, state.params, state.key, number))

  return step
