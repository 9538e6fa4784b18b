"""The GRPO agent: the parts of an update and the programs that run it."""

from __future__ import annotations

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
# Number of consecutive updates without a live group that is an error.
_MAX_DEAD_UPDATES = 20


@dataclasses.dataclass(frozen=True)
class Parts:
  """Parts of an update.

  Attributes:
    network: functions of the policy.
    optimizer: optimizer of stacked parameters.
    prior: distribution of SCMs.
    horizon: size of an episode, N and T.
    rewards: weights and variants of the reward components.
    update: sizes and options of the update.
    other_sizes: the same parts for episodes and sets of other sizes; each
      update has one of all of these sizes.
  """

  network: base.Network
  optimizer: optax.GradientTransformation
  prior: scms_config.Prior
  horizon: environments_config.HorizonConfig
  rewards: grpo_config.RewardConfig
  update: grpo_config.UpdateConfig
  other_sizes: tuple[Parts, ...] = ()


def init(key: jax.Array, parts: Parts) -> types.TrainingState:
  """Returns the state before the first update. The key is consumed."""
  shapes, _ = priors.sample_task.eval_shape(key, parts.prior)
  task = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
  return learning.init(key, parts.network, parts.optimizer, task)


def initial_state(seed: int, parts: Parts) -> types.TrainingState:
  """Returns the state before the first update, from a seed; compiled."""
  return programs(parts)['init'](jax.random.PRNGKey(seed))


def task_keys(key: jax.Array, tasks: types.Task) -> jax.Array:
  """Returns a key for the rollouts on each task: [B]; `key` is consumed."""
  return jax.random.split(key, len(tasks.scm.order))


def act(params, key: jax.Array, tasks: types.Task, parts: Parts):
  """Samples rollouts from one key, which is consumed; see `act_with_keys`."""
  return act_with_keys(params, task_keys(key, tasks), tasks, parts)


def act_with_keys(params, keys: jax.Array, tasks: types.Task, parts: Parts):
  """Samples a group of rollouts on every task, and checks them.

  Args:
    params: parameters of the network.
    keys: [B] random key of each task, consumed.
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
  """Updates the state from the output of `act`, see `learning.update`."""
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


def learner_non_finite_mask(
  state: types.TrainingState, tasks, observations, trajectories, parts: Parts
) -> jax.Array:
  """Finds the tasks of a failed update, see `learning.non_finite_mask`."""
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
  """Returns the programs of an update, which are compiled separately.

  Args:
    parts: parts of the update.

  Returns:
    'init': key -> state; 'fill': key -> tasks and whether the batch is
    complete, see `priors.fill`; 'act': (params, key, tasks) -> output of `act`;
    'learn': (state, tasks, observations, trajectories) -> state and metrics,
    and the state is donated; 'faults': the same arguments -> mask from
    `learner_non_finite_mask`, after a failed update. Those of further sizes
    have a number after the name, see `programs_of_update`.
  """
  start = {'init': jax.jit(lambda key: init(key, parts))}
  return start | programs_of_all_sizes(parts, _programs_of_size)


def programs_of_all_sizes(
  parts: Parts, make: Callable[[Parts], Mapping[str, stages.Wrapped]]
) -> dict[str, stages.Wrapped]:
  """Returns programs of all sizes, by name, for `programs_of_update`.

  Args:
    parts: parts of an update.
    make: parts of one size -> its programs by name.
  """
  return {
    _sized_name(name, index): program
    for index, sized in enumerate((parts, *parts.other_sizes))
    for name, program in make(sized).items()
  }


def programs_of_update(
  programs: Mapping[str, Any], update: int
) -> dict[str, Any]:
  """Returns the programs of the size of an update, by name.

  Args:
    programs: programs of all sizes, from `programs`.
    update: number of the update, which decides the size.
  """
  by_size: list[dict[str, Any]] = []
  for name, program in programs.items():
    kind, _, index = name.partition('@')
    while len(by_size) <= int(index or 0):
      by_size.append({})
    by_size[int(index or 0)][kind] = program
  return by_size[np.random.default_rng(update).integers(len(by_size))]


def names_of(programs: Mapping[str, Any], kind: str) -> list[str]:
  """Returns the names of the programs of a kind, such as 'act', of all sizes.

  Args:
    programs: programs of all sizes, from `programs`.
    kind: name of the program of the first size.
  """
  return [name for name in programs if name.split('@')[0] == kind]


def _sized_name(name: str, index: int) -> str:
  return f'{name}@{index}' if index else name


def _programs_of_size(parts: Parts) -> dict[str, stages.Wrapped]:
  return {
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
      lambda state, tasks, observations, trajectories: learner_non_finite_mask(
        state, tasks, observations, trajectories, parts
      )
    ),
  }


def trace_program(
  programs: Mapping[str, stages.Wrapped], name: str, *args: Any
) -> tuple[tuple[str, stages.Traced], Any]:
  """Traces a program; returns (name, traced program) and its output shapes."""
  program = programs[name].trace(*args)
  output = jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), program.out_info
  )
  return (name, program), output


def trace_programs(
  programs: Mapping[str, stages.Wrapped],
) -> Iterator[tuple[str, stages.Traced]]:
  """Traces the programs that every update calls, without calling them.

  Args:
    programs: programs of an update, from `programs`.

  Yields:
    Name and traced program of each, in the order of the calls.
  """
  key = jax.eval_shape(lambda: jax.random.PRNGKey(0))
  traced = functools.partial(trace_program, programs)
  program, state = traced('init', key)
  yield program
  for fill in names_of(programs, 'fill'):
    act, learn = (fill.replace('fill', name) for name in ('act', 'learn'))
    program, (tasks, _) = traced(fill, key)
    yield program
    program, (data, _) = traced(act, state.params, key, tasks)
    yield program
    program, _ = traced(learn, state, tasks, *data)
    yield program


class Experience(NamedTuple):
  """Experience that an actor passes to a learner.

  Attributes:
    tasks: B tasks.
    data: observations and trajectories on the tasks.
    seed: seed that the tasks were drawn from, for error messages.
    next_key: random key of the next update.
  """

  tasks: types.Task
  data: tuple[jax.Array, types.Trajectory]
  seed: str
  next_key: jax.Array


def collect(
  programs: Mapping[str, Callable[..., Any]],
  params,
  key: jax.Array,
  update: int,
) -> Experience:
  """Draws tasks and samples rollouts on them, the first half of an update.

  Args:
    programs: programs of the update.
    params: parameters of the policy that acts.
    key: random key of the update, consumed.
    update: number of the update, from 1.

  Returns:
    The `Experience`.

  Raises:
    errors.UsageError: the prior cannot fill a batch.
    errors.NonFiniteError: an observation, a logit or a reward is not finite.
  """
  programs = programs_of_update(programs, update)
  key, key_tasks, key_act = jax.random.split(key, 3)
  seed = str(jax.random.key_data(key_tasks).tolist())
  tasks = priors.require_complete(*programs['fill'](key_tasks))
  data, non_finite = programs['act'](params, key_act, tasks)
  errors.check_finite(
    update, acting.CHECKED_NAMES, np.asarray(non_finite), seed
  )
  return Experience(tasks, data, seed, key)


def update(
  programs: Mapping[str, Callable[..., Any]],
  state: types.TrainingState,
  experience: Experience,
) -> tuple[types.TrainingState, dict[str, jax.Array]]:
  """Updates the state from experience, the second half of an update.

  Args:
    programs: programs of the update.
    state: state before the update; donated.
    experience: experience of the update.

  Returns:
    State after the update, with the key of the next one, and metrics.

  Raises:
    errors.NonFiniteError: a loss or a gradient is not finite.
    FloatingPointError: the data are too far off-policy, or all groups were dead
      in too many consecutive updates.
  """
  update = int(state.step) + 1
  programs = programs_of_update(programs, update)
  tasks, data, seed, key = experience
  state, metrics = programs['learn'](state._replace(key=key), tasks, *data)
  non_finite = [
    name
    for name, value in jax.device_get(metrics).items()
    if not np.isfinite(value)
  ]
  if non_finite:
    mask = np.asarray(programs['faults'](state, tasks, *data))
    errors.check_finite(update, learning.CHECKED_NAMES, mask, seed)
  largest = float(metrics['policy/log_ratio_max'])
  # True for NaN as well.
  if not largest <= losses.MAX_LOG_RATIO:
    raise FloatingPointError(
      f'update {update}: a log importance ratio of {largest:.1f} '
      f'is beyond {losses.MAX_LOG_RATIO}; lower optimizer.learning_rate or '
      'grpo.num_iterations'
    )
  if non_finite:
    raise FloatingPointError(
      f'update {update}: not finite: {", ".join(non_finite)}, though the loss '
      'and the gradient of each SCM are; lower optimizer.learning_rate'
    )
  if int(state.dead_updates) >= _MAX_DEAD_UPDATES:
    raise FloatingPointError(
      f'update {update}: zero advantage: every rollout in every group got the '
      f'same return for {_MAX_DEAD_UPDATES} updates; increase the entropy '
      'weights, or check the reward weights'
    )
  return state, metrics


def make_step(
  programs: Mapping[str, Callable[..., Any]],
) -> Step:
  """Returns an update as a function of the state, which it donates.

  Args:
    programs: programs of the update.

  Returns:
    `step(state) -> (state, metrics)`. It raises as `collect` and `update` do.
  """

  def step(state):
    number = int(state.step) + 1
    experience = collect(programs, state.params, state.key, number)
    return update(programs, state, experience)

  return step
