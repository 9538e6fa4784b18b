"""How much faster the cache and the shared prefix make acting and learning.

Every figure is a ratio of medians of runs that take turns in one process.
"""

from collections.abc import Callable
import statistics
import time
from typing import Any

import jax
import jax.numpy as jnp

from acme_cbo import actor
from acme_cbo import distributions
from acme_cbo import environment
from acme_cbo import learner
from acme_cbo import networks
from acme_cbo import types
from acme_cbo.runtimes import fused
from acme_cbo.scms import priors
from acme_cbo.scms import simulate


def act_by_recomputing(
  key, params, network: networks.Network, tasks, horizon, num_generations
):
  """As `actor.act`, but every decision encodes all rows again.

  Args:
    key: consumed.
    params: parameters of the network.
    network: its functions.
    tasks: B tasks.
    horizon: N and T.
    num_generations: G.

  Returns:
    [B, G, T, D] outcomes.
  """
  num_steps = horizon.num_interventions

  def rollout(key, scm, observations):
    problem = scm.problem
    num_variables = problem.low.shape[-1]
    intervened = jnp.zeros((0, num_variables), bool)
    outcomes = jnp.zeros((0, num_variables))
    left = jnp.ones(1)
    for t, key_step in enumerate(jax.random.split(key, num_steps)):
      key_choice, key_outcome = jax.random.split(key_step)
      start = networks.start_row(num_variables)
      rows = networks.Rows(
        jnp.concatenate([start.values, outcomes]),
        jnp.concatenate([start.intervened, intervened]),
        left,
        jnp.arange(t + 1) == 0,
      )
      # Without the barrier the compiler would encode the observations once.
      again, rows = jax.lax.optimization_barrier((observations, rows))
      prefix = network.prefix(params, problem, again)
      heads = network.full(params, problem, prefix, rows)
      log_probs = distributions.choice(heads.joint_logits[-1], problem.settable)
      decision = distributions.sample(key_choice, log_probs)
      intervention = simulate.intervene_on(
        problem, decision.variable, decision.fraction
      )
      outcome = environment.step(key_outcome, scm, intervention)
      intervened = jnp.concatenate([intervened, intervention.mask[None]])
      outcomes = jnp.concatenate([outcomes, outcome[None]])
      left = jnp.append(left, 1 - (t + 1) / num_steps)
    return outcomes

  def group(key, task):
    key_reset, key_rollout = jax.random.split(key)
    observations = environment.reset(
      key_reset, task.scm, horizon.num_observations
    )
    # Each rollout encodes the observations for itself, as a policy without a
    # cache would.
    keys = jax.random.split(key_rollout, num_generations)
    copies = jnp.broadcast_to(
      observations, (num_generations, *observations.shape)
    )
    return jax.vmap(rollout, (0, None, 0))(keys, task.scm, copies)

  keys = jax.random.split(key, tasks.scm.order.shape[0])
  return jax.vmap(group)(keys, tasks)


def gradient(params, parts: fused.Parts, tasks, observations, trajectories):
  """Gradient of the loss, for advantages of 1."""
  advantages = jnp.ones(trajectories.log_prob_cell.shape)
  return jax.grad(
    lambda p: learner.loss(
      p,
      p,
      parts.network,
      tasks,
      observations,
      trajectories,
      advantages,
      parts.settings,
      parts.grpo,
    )[0]
  )(params)


def ungroup(
  tasks: types.Task, observations, trajectories: types.Trajectory
) -> tuple[types.Task, Any, types.Trajectory]:
  """B groups of G rollouts as B G groups of one: nothing is shared."""
  num_generations = trajectories.log_prob_cell.shape[1]

  def repeat(leaf):
    return jnp.repeat(leaf, num_generations, axis=0)

  return (
    jax.tree.map(repeat, tasks),
    repeat(observations),
    jax.tree.map(
      lambda leaf: leaf.reshape(-1, 1, *leaf.shape[2:]), trajectories
    ),
  )


def measure(parts: fused.Parts, repeats: int) -> dict[str, Any]:
  """Times acting and learning with and without the cache and the sharing.

  Args:
    parts: of an update; its sizes are what is measured.
    repeats: runs of each, in turn.

  Returns:
    `ratios` (`cached_over_recompute`, `shared_over_unshared`: how many times
    as fast) and `seconds`, median and range of each run.
  """
  key = jax.random.PRNGKey(0)
  params = jax.jit(lambda k: fused.init(k, parts))(key).params
  tasks, complete = jax.jit(
    lambda k: priors.sample(k, parts.prior, parts.num_tasks)
  )(key)
  if not complete:
    raise ValueError(priors.REFUSAL)
  sizes = (parts.horizon, parts.num_generations)
  act = jax.jit(lambda k, p, t: actor.act(k, p, parts.network, t, *sizes))
  # Of the outcomes alone, so that the compiler leaves the rewards out, which
  # recomputing does not draw either.
  cached = jax.jit(
    lambda k, p, t: actor.act(k, p, parts.network, t, *sizes)[1].outcomes
  )
  recomputed = jax.jit(
    lambda k, p, t: act_by_recomputing(k, p, parts.network, t, *sizes)
  )
  learn = jax.jit(lambda p, *data: gradient(p, parts, *data))
  observations, trajectories = act(key, params, tasks)
  shared = (tasks, observations, trajectories)
  unshared = ungroup(*shared)
  seconds = interleaved(
    {
      'act_cached': lambda: cached(key, params, tasks),
      'act_recomputed': lambda: recomputed(key, params, tasks),
      'gradient_shared': lambda: learn(params, *shared),
      'gradient_unshared': lambda: learn(params, *unshared),
    },
    repeats,
  )
  medians = {name: statistics.median(runs) for name, runs in seconds.items()}
  return {
    'sizes': {
      'num_tasks': parts.num_tasks,
      'num_generations': parts.num_generations,
      **parts.horizon.__dict__,
      'max_variables': parts.prior.max_variables,
    },
    'ratios': {
      'cached_over_recompute': medians['act_recomputed']
      / medians['act_cached'],
      'shared_over_unshared': medians['gradient_unshared']
      / medians['gradient_shared'],
    },
    'seconds': {
      name: {'median': medians[name], 'min': min(runs), 'max': max(runs)}
      for name, runs in seconds.items()
    },
  }


def interleaved(
  runs: dict[str, Callable[[], Any]], repeats: int
) -> dict[str, list[float]]:
  """Seconds of each run, in turn, after one run that is not counted."""
  for run in runs.values():
    jax.block_until_ready(run())
  seconds: dict[str, list[float]] = {name: [] for name in runs}
  for _ in range(repeats):
    for name, run in runs.items():
      begin = time.perf_counter()
      jax.block_until_ready(run())
      seconds[name].append(time.perf_counter() - begin)
  return seconds
