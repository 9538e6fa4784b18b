"""What the cache and the shared prefix save, and what the trainer costs.

Every figure is a ratio of medians of runs that take turns in one process.
"""

from collections.abc import Callable
import statistics
import tempfile
import time
from typing import Any

import jax
import jax.numpy as jnp

from acme_cbo import actor
from acme_cbo import learner
from acme_cbo import networks
from acme_cbo import types
from acme_cbo.beliefs import belief as beliefs
from acme_cbo.runtimes import fused
from acme_cbo.scms import priors
from acme_cbo.training import loggers
from acme_cbo.training import monitors
from acme_cbo.training import stopping
from acme_cbo.training import trainer as trainer_lib

# Variables for which the exact belief is timed.
_BELIEF_SIZES = (5, 8)
# Of a run whose overhead is measured.
_UPDATES = 10


def recomputing(network: networks.Network) -> networks.Network:
  """The same network, but every decision encodes all rows again.

  Args:
    network: its functions.

  Returns:
    A `Network` to act with. Its prefix are the bare observations and its cache
    the rows of the episode, at full length, as a compiled loop needs them.
  """

  def append(params, problem, observations, rows, position, row):
    rows = jax.tree.map(
      lambda all_rows, new: jax.lax.dynamic_update_slice_in_dim(
        all_rows, new, position, 0
      ),
      rows,
      row,
    )
    # Each rollout encodes the observations for itself, as a policy without a
    # cache would: they are made to depend on the rollout, or `vmap` would
    # encode them once for the whole group.
    own = observations + 0 * rows.values[-1]
    prefix = network.prefix(params, problem, own)
    encodings = network.full(params, problem, prefix, rows)
    return networks.after(encodings, position), rows

  def turn(params, problem, observations, encoding, partial):
    prefix = network.prefix(params, problem, observations)
    return network.turn(params, problem, prefix, encoding, partial)

  def empty_cache(num_rows, num_variables):
    return jax.tree.map(
      lambda leaf: jnp.zeros((num_rows, *leaf.shape[1:]), leaf.dtype),
      networks.start_row(num_variables),
    )

  return network._replace(
    prefix=lambda params, problem, observations: observations,
    append=append,
    turn=turn,
    empty_cache=empty_cache,
  )


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


def posteriors(num_beliefs: int, num_variables: int) -> Callable[[], Any]:
  """One step of the exact belief in each of many rollouts.

  Args:
    num_beliefs: rollouts.
    num_variables: D.

  Returns:
    A function that adds a row to each belief and takes its posterior: [., P].
  """
  rows = jax.random.normal(
    jax.random.PRNGKey(0), (num_beliefs, 21, num_variables)
  )
  column = jnp.arange(num_variables)
  problem = types.Problem(
    exists=jnp.ones(num_variables, bool),
    sets=jnp.eye(num_variables, dtype=bool) & (column > 0),
    target=column == 0,
    goal=jnp.float32(1),
    low=jnp.full(num_variables, -2.0),
    high=jnp.full(num_variables, 2.0),
    cost=jnp.ones(num_variables),
    budget=jnp.array(jnp.inf),
    samples=jnp.ones(()),
  )
  belief = beliefs.exact()
  start = jax.jit(jax.vmap(lambda rows: belief.init(problem, rows, None)))(
    rows[:, :-1]
  )

  @jax.jit
  @jax.vmap
  def step(state, row):
    return beliefs.log_posterior(belief.update(state, column == 1, row, None))

  return lambda: step(start, rows[:, -1])


def measure(parts: fused.Parts, repeats: int) -> dict[str, Any]:
  """Times acting and learning with and without the cache and the sharing.

  Args:
    parts: of an update; its sizes are what is measured.
    repeats: runs of each, in turn.

  Returns:
    `ratios` (`cached_over_recompute`, `shared_over_unshared`: how many times
    as fast; `policy_over_exact_belief_D`: a cached step of all rollouts over a
    step of their exact beliefs of D variables) and `seconds`, median and range
    of each run.
  """
  key = jax.random.PRNGKey(0)
  params = fused.initial_state(0, parts).params
  tasks = priors.sample(key, parts.prior, parts.num_tasks)
  how = (parts.horizon, parts.num_generations, parts.kinds)

  def act_with(network):
    return jax.jit(lambda k, p, t: actor.act(k, p, network, t, *how))

  act, act_again = act_with(parts.network), act_with(recomputing(parts.network))
  learn = jax.jit(lambda p, *data: gradient(p, parts, *data))
  observations, trajectories = act(key, params, tasks)
  shared = (tasks, observations, trajectories)
  unshared = ungroup(*shared)
  num_rollouts = parts.num_tasks * parts.num_generations
  seconds = interleaved(
    {
      'act_cached': lambda: act(key, params, tasks),
      'act_recomputed': lambda: act_again(key, params, tasks),
      'gradient_shared': lambda: learn(params, *shared),
      'gradient_unshared': lambda: learn(params, *unshared),
    }
    | {
      f'exact_belief_{size}': posteriors(num_rollouts, size)
      for size in _BELIEF_SIZES
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
    }
    | {
      f'policy_over_exact_belief_{size}': medians['act_cached']
      / (parts.horizon.num_interventions * medians[f'exact_belief_{size}'])
      for size in _BELIEF_SIZES
    },
    'seconds': {
      name: {'median': medians[name], 'min': min(runs), 'max': max(runs)}
      for name, runs in seconds.items()
    },
  }


def trainer_overhead(
  step: Callable[[Any], tuple[Any, Any]], state: Any, repeats: int
) -> float:
  """What the trainer adds to its updates, as a share of the bare loop.

  Loggers and the callbacks of every update write as in a run; evaluations and
  checkpoints, which are work of their own, are left out.

  Args:
    step: makes one update.
    state: to begin with.
    repeats: runs of each, in turn.

  Returns:
    Seconds of `Trainer.fit` over those of calling `step` as often, less 1.
  """

  def bare():
    now = jax.tree.map(jnp.copy, state)
    for _ in range(_UPDATES):
      now, _ = step(now)
    return now

  def trained():
    with tempfile.TemporaryDirectory() as directory:
      trainer = trainer_lib.Trainer(
        step=step,
        num_updates=int(state.step) + _UPDATES,
        logger=loggers.LoggerGroup(
          loggers.TensorBoardLogger(directory), loggers.JsonlLogger(directory)
        ),
        callbacks=(
          monitors.Throughput(1),
          monitors.LearningRate(lambda update: 0.0),
          stopping.Convergence('reward/total', 100, 0.02, stop=False),
        ),
      )
      return trainer.fit(jax.tree.map(jnp.copy, state))

  seconds = interleaved({'bare': bare, 'trained': trained}, repeats)
  medians = {name: statistics.median(runs) for name, runs in seconds.items()}
  return medians['trained'] / medians['bare'] - 1


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
