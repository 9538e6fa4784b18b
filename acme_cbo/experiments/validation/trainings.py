"""Short trainings for several seeds and balances of the rewards at once.

All of them are one program, vectorised over seeds and balances: it is compiled
once, and small policies fill a machine.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from acme_cbo import types
from acme_cbo.agents.grpo import agent
from acme_cbo.agents.grpo import config
from acme_cbo.agents.grpo import rewards
from acme_cbo.scms import priors


def train(
  parts: agent.Parts,
  balances: list[config.RewardWeights],
  seeds: list[int],
  num_updates: int,
) -> tuple[Any, Any]:
  """Trains a policy from each seed with each balance of the rewards.

  Args:
    parts: of an update; its weights are replaced by the balances.
    balances: W of them.
    seeds: S of them; the policies of a seed begin with the same parameters and
      meet the same SCMs.
    num_updates: of each training.

  Returns:
    Parameters before ([S]) and after ([W, S] leading axes).

  Raises:
    FloatingPointError: something was not finite, or a batch was not full.
  """

  def of_one(weights, seed):
    own = dataclasses.replace(parts, weights=config.RewardWeights(*weights))
    start = agent.init(jax.random.PRNGKey(seed), own)

    def update(state, _):
      key, key_tasks, key_act = jax.random.split(state.key, 3)
      tasks, complete = priors.fill(key_tasks, own.prior, own.num_tasks)
      data, faults = agent.act(state.params, key_act, tasks, own)
      state, metrics = agent.learn(state._replace(key=key), tasks, *data, own)
      finite = jnp.isfinite(jnp.stack([*metrics.values()])).all()
      return state, jnp.stack([complete, finite & ~faults.any()])

    end, fine = jax.lax.scan(update, start, length=num_updates)
    return start.params, end.params, fine

  over_seeds = jax.vmap(of_one, (None, 0))
  before, after, fine = jax.jit(jax.vmap(over_seeds, (0, None)))(
    jnp.array(balances, jnp.float32), jnp.array(seeds)
  )
  lost = np.argwhere(~np.asarray(fine))  # Of [W, S, updates, 2].
  if lost.size:
    w, s, update, what = lost[0]
    said = 'the prior rejects nearly every SCM', 'something is not finite'
    raise FloatingPointError(
      f'validation, update {update + 1} of the training of seed {seeds[s]} '
      f'with {balances[w]}: {said[what]}'
    )
  return jax.tree.map(lambda leaf: leaf[0], before), after


def measure(
  parts: agent.Parts, params: Any, key: jax.Array, tasks: types.Task
) -> np.ndarray:
  """Mean rewards of policies that act as they do in training.

  Args:
    parts: of an update.
    params: of policies, with two leading axes.
    key: consumed; every policy meets the same data and the same noise.
    tasks: M tasks.

  Returns:
    [., ., 4] mean components per step, `structure` per episode.
  """

  def of_one(params):
    (_, trajectories), _ = agent.act(params, key, tasks, parts)
    per_step = trajectories.components.mean((0, 1, 2))
    place = rewards.COMPONENTS.index('structure')
    return per_step.at[place].multiply(parts.horizon.num_interventions)

  return np.asarray(jax.jit(jax.vmap(jax.vmap(of_one)))(params))
