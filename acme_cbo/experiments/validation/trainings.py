"""Short training runs for several seeds and reward weights at once.

All of them are one program, vectorized over seeds and weights: it is compiled
once, and many small policies use all cores.
"""

from collections.abc import Sequence
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from acme_cbo import types
from acme_cbo.agents.grpo import agent
from acme_cbo.agents.grpo import rewards
from acme_cbo.scms import priors


def train(
  parts: agent.Parts,
  balances: Sequence[Sequence[float]],
  seeds: Sequence[int],
  num_updates: int,
) -> tuple[Any, Any]:
  """Trains a policy from each seed with each balance of the rewards.

  Args:
    parts: parts of an update; its reward weights are replaced.
    balances: W tuples of reward weights.
    seeds: S seeds; policies of the same seed start from the same parameters and
      are trained on the same SCMs.
    num_updates: number of updates of each training run.

  Returns:
    Parameters before training, with leading axis [S], and after training, with
    leading axes [W, S].

  Raises:
    FloatingPointError: a value is not finite, or the prior could not fill a
      batch of SCMs.
  """

  def train_one(weights, seed):
    own = dataclasses.replace(
      parts, rewards=parts.rewards.with_weights(tuple(weights))
    )
    start = agent.init(jax.random.PRNGKey(seed), own)

    def update(state, _):
      key, key_tasks, key_act = jax.random.split(state.key, 3)
      tasks, complete = priors.fill(key_tasks, own.prior, own.update.num_tasks)
      data, non_finite = agent.act(state.params, key_act, tasks, own)
      state, metrics = agent.learn(state._replace(key=key), tasks, *data, own)
      finite = jnp.isfinite(jnp.stack([*metrics.values()])).all()
      return state, jnp.stack([complete, finite & ~non_finite.any()])

    end, passed = jax.lax.scan(update, start, length=num_updates)
    return start.params, end.params, passed

  over_seeds = jax.vmap(train_one, (None, 0))
  before, after, passed = jax.jit(jax.vmap(over_seeds, (0, None)))(
    jnp.array(balances, jnp.float32), jnp.array(seeds)
  )
  failures = np.argwhere(~np.asarray(passed))  # Of [W, S, updates, 2].
  if failures.size:
    w, s, update, index = failures[0]
    causes = 'the prior rejects nearly every SCM', 'a value is not finite'
    raise FloatingPointError(
      f'validation, update {update + 1} of the training of seed {seeds[s]} '
      f'with the weights {balances[w]}: {causes[index]}'
    )
  return jax.tree.map(lambda leaf: leaf[0], before), after


def measure(
  parts: agent.Parts, params: Any, key: jax.Array, tasks: types.Task
) -> np.ndarray:
  """Computes mean rewards of policies that act as in training.

  Args:
    parts: parts of an update.
    params: parameters of policies, with two leading axes [W, S].
    key: random key, consumed; all policies have the same data and noise.
    tasks: M tasks.

  Returns:
    [W, S, E] mean reward components per step; `structure` is per episode.
  """

  def mean_components(params):
    (_, trajectories), _ = agent.act(params, key, tasks, parts)
    per_step = trajectories.components.mean((0, 1, 2))
    structure = rewards.COMPONENTS.index('structure')
    return per_step.at[structure].multiply(parts.horizon.num_interventions)

  return np.asarray(jax.jit(jax.vmap(jax.vmap(mean_components)))(params))
