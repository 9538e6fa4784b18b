"""The trained policy, behind the interface that all policies share."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from acme_cbo import types
from acme_cbo.beliefs import belief as beliefs
from acme_cbo.networks import action_distribution
from acme_cbo.networks import base as networks_base
from acme_cbo.policies import base
from acme_cbo.policies import network_policy
from acme_cbo.policies import prediction


class _Memory(NamedTuple):
  """Memory of the policy between its calls."""

  problem: types.Problem
  prefix: networks_base.Prefix
  num_interventions: jax.Array
  state: network_policy.State
  history: network_policy.History


def deployed(
  network: networks_base.Network, params: Any, max_set_size: int
) -> base.PolicyFunctions:
  """Returns the policy of a trained network as it is used after training.

  It draws its decisions, and replicates the best outcome.

  Args:
    network: functions of the network.
    params: parameters of the network.
    max_set_size: Z, number of variables that one intervention sets at most.
  """
  return trained(
    network,
    params,
    ('learned',),
    max_set_size,
    action_distribution.sample,
    replicates=True,
  )


def trained(
  network: networks_base.Network,
  params: Any,
  kinds: Sequence[str],
  max_set_size: int,
  pick: Callable[..., Any],
  replicates: bool = False,
) -> base.PolicyFunctions:
  """Returns the policy of a trained network.

  Args:
    network: functions of the network.
    params: parameters of the network.
    kinds: beliefs to update after every row, keys of `beliefs.FACTORIES`.
    max_set_size: Z, number of variables that one intervention sets at most.
    pick: `action_distribution.sample` to draw decisions as in training, so that
      different ones are made, `action_distribution.mode` for the most probable
      ones.
    replicates: whether the policy sometimes repeats the intervention of the
      best outcome instead, see `NetworkPolicy.replicate`.
  """
  followed = {kind: beliefs.FACTORIES[kind]() for kind in kinds}

  def core(problem, prefix, num_interventions):
    return network_policy.NetworkPolicy(
      network,
      params,
      problem,
      prefix,
      num_interventions,
      max_set_size,
      followed,
    )

  def core_of(memory):
    return core(memory.problem, memory.prefix, memory.num_interventions)

  def init(problem, observations, num_interventions):
    prefix = network.prefix(params, problem, observations)
    acting = core(problem, prefix, num_interventions)
    return _Memory(
      problem,
      prefix,
      jnp.float32(num_interventions),
      acting.begin(observations),
      acting.empty_history(),
    )

  def choose(key, memory):
    keys = jax.random.split(key, max_set_size)
    acting = core_of(memory)
    chosen = acting.choose(keys, memory.state, pick).intervention
    if not replicates:
      return chosen
    is_due, best = acting.replicate(memory.state, memory.history)
    return jax.tree.map(
      lambda again, new: jnp.where(is_due, again, new), best, chosen
    )

  def observe(memory, step, intervention, outcome):
    acting = core_of(memory)
    return memory._replace(
      state=acting.observe(memory.state, step, intervention, outcome),
      history=acting.extend(memory.history, step, intervention, outcome),
    )

  def recommend(memory):
    return core_of(memory).recommend(memory.state, memory.history)

  def predict(memory, asked):
    return jax.vmap(prediction.from_distribution)(
      core_of(memory).predict(memory.state, asked)
    )

  def parents(belief_states):
    return {
      kind: jax.vmap(belief.parents)(belief_states[kind])
      for kind, belief in followed.items()
    }

  return base.PolicyFunctions(
    init,
    choose,
    observe,
    recommend,
    lambda memory: memory.state.belief_states,
    parents,
    predict,
  )
