"""Actor and learner in turn, in one process on one device."""

from collections.abc import Callable, Iterator, Mapping
import dataclasses
from typing import Any

import jax
from jax import stages
import jax.numpy as jnp
import numpy as np
import optax

from acme_cbo import actor
from acme_cbo import errors
from acme_cbo import learner
from acme_cbo import losses
from acme_cbo import networks
from acme_cbo import rewards
from acme_cbo import types
from acme_cbo.scms import priors

# So many updates in a row without one live group are an error.
_MAX_DEAD_UPDATES = 20


@dataclasses.dataclass(frozen=True)
class Parts:
  """What an update is made of.

  Attributes:
    network: functions of the policy.
    optimizer: the gradient transformation.
    prior: the distribution of SCMs.
    horizon: N and T.
    num_tasks: B, SCMs per update.
    num_generations: G, rollouts per SCM.
    weights: of the reward components.
    kinds: what they are made of.
    settings: of the learner.
    grpo: of the loss.
  """

  network: networks.Network
  optimizer: optax.GradientTransformation
  prior: priors.Prior
  horizon: actor.Horizon
  num_tasks: int
  num_generations: int
  weights: rewards.Weights
  kinds: rewards.Kinds
  settings: learner.Settings
  grpo: losses.Settings


def init(key: jax.Array, parts: Parts) -> types.TrainingState:
  """The state before the first update. The key is consumed."""
  shapes, _ = priors.sample_task.eval_shape(key, parts.prior)
  task = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
  return learner.init(key, parts.network, parts.optimizer, task)


def initial_state(seed: int, parts: Parts) -> types.TrainingState:
  """`init` from a seed, compiled."""
  return programs(parts)['init'](jax.random.PRNGKey(seed))


def act(params, key: jax.Array, tasks: types.Task, parts: Parts):
  """A group of rollouts on every task, and what of it is not finite.

  Args:
    params: parameters of the network.
    key: consumed.
    tasks: B tasks.
    parts: of the update.

  Returns:
    Observations and trajectories, see `actor.act`, and `actor.faults` of them.
  """
  data = actor.act(
    key,
    params,
    parts.network,
    tasks,
    parts.horizon,
    parts.num_generations,
    parts.kinds,
  )
  return data, actor.faults(*data)


def learn(
  state: types.TrainingState, tasks, observations, trajectories, parts: Parts
):
  """Updates the state from what `act` brought."""
  return learner.update(
    state,
    parts.network,
    parts.optimizer,
    tasks,
    observations,
    trajectories,
    parts.weights,
    parts.settings,
    parts.grpo,
  )


def programs(parts: Parts) -> dict[str, stages.Wrapped]:
  """What is compiled of an update, each for itself.

  Args:
    parts: of the update.

  Returns:
    'init': key -> state; 'fill': key -> tasks and whether they are all there,
    see `priors.fill`; 'act': (params, key, tasks) -> what `act` returns;
    'learn': (state, tasks, observations, trajectories) -> state and metrics,
    where the state that is given is donated.
  """
  return {
    'init': jax.jit(lambda key: init(key, parts)),
    'fill': jax.jit(lambda key: priors.fill(key, parts.prior, parts.num_tasks)),
    'act': jax.jit(lambda params, key, tasks: act(params, key, tasks, parts)),
    'learn': jax.jit(
      lambda state, tasks, observations, trajectories: learn(
        state, tasks, observations, trajectories, parts
      ),
      donate_argnums=0,
    ),
  }


def trace(parts: Parts) -> Iterator[tuple[str, stages.Traced]]:
  """Traces `programs` one after the other, without a call of any."""
  wrapped = programs(parts)
  key = jax.eval_shape(lambda: jax.random.PRNGKey(0))

  def traced(name, *args):
    program = wrapped[name].trace(*args)
    made = jax.tree.map(
      lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype),
      program.out_info,
    )
    return (name, program), made

  program, state = traced('init', key)
  yield program
  program, (tasks, _) = traced('fill', key)
  yield program
  program, (data, _) = traced('act', state.params, key, tasks)
  yield program
  program, _ = traced('learn', state, tasks, *data)
  yield program


def make_step(
  parts: Parts, compiled: Mapping[str, Callable[..., Any]] | None = None
) -> Callable[[types.TrainingState], tuple[types.TrainingState, dict]]:
  """One update as a function of the state, which it donates.

  Args:
    parts: of the update.
    compiled: its `programs`; they are compiled as they are called if not given.

  Returns:
    `step(state) -> (state, metrics)`. It raises an `errors.UsageError` where
    the prior cannot fill a batch, an `errors.NonFiniteError` where an
    observation, a logit, a reward, a loss or a gradient is not finite, and a
    `FloatingPointError` where the policy has left the data behind or no group
    has told anything for a long time.
  """
  run = compiled or programs(parts)
  jit_learner_faults = jax.jit(
    lambda state, tasks, observations, trajectories: learner.faults(
      state.params,
      state.reference,
      parts.network,
      tasks,
      observations,
      trajectories,
      parts.weights,
      parts.settings,
      parts.grpo,
    )
  )

  def step(state):
    update = int(state.step) + 1
    key, key_tasks, key_act = jax.random.split(state.key, 3)
    seed = str(jax.random.key_data(key_tasks).tolist())
    tasks = priors.filled(*run['fill'](key_tasks))
    data, faults = run['act'](state.params, key_act, tasks)
    errors.check_finite(update, actor.FAULTS, np.asarray(faults), seed)
    state, metrics = run['learn'](state._replace(key=key), tasks, *data)
    lost = [
      name
      for name, value in jax.device_get(metrics).items()
      if not np.isfinite(value)
    ]
    if lost:
      faults = np.asarray(jit_learner_faults(state, tasks, *data))
      errors.check_finite(update, learner.FAULTS, faults, seed)
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

  return step
