"""Actors whose systems are simulators that are no JAX programs.

The learner is that of `threaded`. What the truth would be needed for is not
there: rewards are of the noisy outcomes that were watched, in deviations of the
target in the observations, and neither parents nor expected outcomes are
learnt.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
import contextlib
import dataclasses
import functools
from typing import Any

import jax
from jax import stages
import jax.numpy as jnp
import numpy as np

from acme_cbo import types
from acme_cbo.agents.grpo import acting
from acme_cbo.agents.grpo import agent
from acme_cbo.beliefs import belief as beliefs
from acme_cbo.environments import environment
from acme_cbo.environments import normalization
from acme_cbo.environments import simulator_pool
from acme_cbo.infra import errors
from acme_cbo.networks import base
from acme_cbo.runtimes import experience_queue
from acme_cbo.runtimes import threaded
from acme_cbo.scms import intervention_sets
from acme_cbo.scms import interventions
from acme_cbo.scms import simulate
from acme_cbo.scms import systems

_MAX_SEED = 2**31 - 1


class Simulated(threaded.Threaded):
  """Every actor has simulators of its own, one for each of its rollouts."""

  def __init__(
    self,
    parts: agent.Parts,
    num_actors: int,
    max_lag: int,
    stall_seconds: float,
    problem: types.Problem,
    make: Callable[[], environment.Simulator],
  ):
    """Chooses how far actors may be ahead.

    Args:
      parts: of the update.
      num_actors: how many threads act.
      max_lag: how many updates old their parameters may be.
      stall_seconds: how long the learner waits for one of them.
      problem: of all systems.
      make: makes a simulator.
    """
    super().__init__(parts, num_actors, max_lag, stall_seconds)
    self.layout = f'simulators of {problem.sets.shape}'
    self._parts, self._problem, self._make = parts, problem, make
    del self.programs['fill'], self.programs['act']
    self.programs |= _programs(parts, intervention_sets.max_size(problem))

  def trace(self) -> Iterator[tuple[str, stages.Traced]]:
    """See `fused.Fused.trace`."""
    parts, problem = self._parts, self._problem
    num_tasks, size = parts.num_tasks, problem.exists.size
    batch = (num_tasks, parts.num_generations)
    key = jax.eval_shape(lambda: jax.random.PRNGKey(0))
    problems = jax.eval_shape(
      lambda: normalization.stack_copies(problem, num_tasks)
    )
    rows = jax.ShapeDtypeStruct(
      (num_tasks, parts.horizon.num_observations, size), jnp.float32
    )
    outcomes = jax.ShapeDtypeStruct((*batch, size), jnp.float32)
    step = jax.ShapeDtypeStruct((), jnp.int32)
    traced = functools.partial(agent.traced_with, self.programs)
    program, state = traced('init', key)
    yield program
    program, (prefix, first) = traced(
      'begin', state.params, key, problems, rows
    )
    yield program
    program, _ = traced(
      'watch', state.params, key, problems, prefix, first[-1], step, outcomes
    )
    yield program
    history = [first[:2]] * parts.horizon.num_interventions
    last = first[0]
    program, (tasks, data, _) = traced(
      'end', problems, rows, history, last, [outcomes] * len(history)
    )
    yield program
    program, _ = traced('learn', state, tasks, *data)
    yield program

  def init_state(
    self, run: Mapping[str, Callable[..., Any]], seed: int
  ) -> types.TrainingState:
    """See `fused.Fused.init_state`."""
    return run['init'](jax.random.PRNGKey(seed))

  @contextlib.contextmanager
  def _acting(
    self, run: Mapping[str, Callable[..., Any]], state: types.TrainingState
  ) -> Iterator[threaded.Actors]:
    del state
    size = self._parts.num_tasks * self._parts.num_generations
    with contextlib.ExitStack() as stack:
      pools = []
      for _ in self._actors:
        pools.append(simulator_pool.Pool(self._make, size, self._stall_seconds))
        stack.callback(pools[-1].close)

      def stop():
        for pool in pools:
          pool.stop()

      yield threaded.Actors(
        [
          lambda ticket, pool=pool: self._acted(run, pool, ticket)
          for pool in pools
        ],
        stop,
      )

  def _acted(
    self,
    run: Mapping[str, Callable[..., Any]],
    pool: simulator_pool.Pool,
    ticket: experience_queue.WorkItem,
  ) -> agent.Experience:
    """A group of rollouts on every one of B new systems.

    Raises:
      errors.NonFiniteError: an observation, an outcome or a logit is not
        finite.
      errors.UsageError: a simulator is not as it should be.
    """
    parts = self._parts
    num_tasks, group = parts.num_tasks, parts.num_generations
    num_steps = parts.horizon.num_interventions
    key, key_seeds, key_act = jax.random.split(ticket.key, 3)
    seeds = np.asarray(
      jax.random.randint(key_seeds, (num_tasks,), 0, _MAX_SEED)
    ).tolist()
    own = pool.reset(
      np.repeat(seeds, group).tolist(),
      list(range(group)) * num_tasks,
      parts.horizon.num_observations,
    )
    scale = normalization.UnitConverter(self._problem, own[::group])
    keys = jax.random.split(key_act, num_steps)
    problems, rows = scale.problems, scale.to_normalized(own[::group])
    prefix, (believed, chosen, players) = run['begin'](
      ticket.params, keys[0], problems, rows
    )
    history, outcomes = [(believed, chosen)], []
    for step in range(num_steps):
      mask, values = map(np.asarray, chosen.intervention)
      own = pool.step(
        mask.reshape(-1, mask.shape[-1]),
        scale.to_own_units(values).reshape(-1, mask.shape[-1]),
      )
      outcomes.append(scale.to_normalized(own.reshape(*values.shape)))
      believed, chosen, players = run['watch'](
        ticket.params,
        keys[min(step + 1, num_steps - 1)],
        problems,
        prefix,
        players,
        jnp.int32(step),
        outcomes[-1],
      )
      history.append((believed, chosen))
    *history, (last, _) = history
    tasks, data, faults = run['end'](problems, rows, history, last, outcomes)
    errors.check_finite(
      ticket.update, acting.CHECKED_NAMES, np.asarray(faults), str(seeds)
    )
    return agent.Experience(tasks, data, str(seeds), key)


def _programs(parts: agent.Parts, num_turns: int) -> dict[str, stages.Wrapped]:
  """What is compiled of acting: the first choice, each other one, the end."""
  network, horizon = parts.network, parts.horizon
  # Of what stands for the expected outcome below.
  kinds = dataclasses.replace(parts.kinds, outcome='expected')
  belief = beliefs.FACTORIES[kinds.belief]()

  def policy(params, problem: types.Problem, prefix: base.Prefix):
    return acting.Policy(
      network,
      params,
      problem,
      prefix,
      horizon.num_interventions,
      num_turns,
      belief,
    )

  def chosen(plays, key, player):
    """What is believed, chosen, and known after that."""
    choice, after = plays.choose(jax.random.split(key, num_turns), player)
    return player.believed, choice, after

  def keys(key):
    """[B, G] of all rollouts."""
    return jax.random.split(key, (parts.num_tasks, parts.num_generations))

  def begin(params, key, problems, observations):
    def group(keys, problem, rows):
      prefix = network.prefix(params, problem, rows)
      plays = policy(params, problem, prefix)
      player = plays.begin(rows)
      return prefix, jax.vmap(lambda key: chosen(plays, key, player))(keys)

    return jax.vmap(group)(keys(key), problems, observations)

  def watch(params, key, problems, prefixes, players, step, outcomes):
    def group(keys, problem, prefix, players, outcomes):
      plays = policy(params, problem, prefix)
      return jax.vmap(
        lambda key, player, outcome: chosen(
          plays, key, plays.watch(player, step, outcome)
        )
      )(keys, players, outcomes)

    return jax.vmap(group)(keys(key), problems, prefixes, players, outcomes)

  def end(problems, observations, history, last, outcomes):
    def stacked(*leaves):
      return jnp.stack(leaves, 2)  # [B, G, T, ...]

    believed = jax.tree.map(stacked, *[x for x, _ in history], last)
    choices = jax.tree.map(stacked, *[x for _, x in history])
    tasks = jax.vmap(lambda problem: _task(problem, num_turns, parts))(problems)

    def rollout(task, choices, outcomes, believed):
      # Far ones bent, as the policy sees them: a lucky system must not count
      # for all others.
      seen = simulate.sampled_outcome(task.scm, outcomes)
      seen = normalization.asinh_normalize(
        normalization.Normalization(jnp.zeros(()), jnp.ones(())), seen
      )
      return acting.trajectory(task, kinds, choices, outcomes, seen, believed)

    trajectories = jax.vmap(jax.vmap(rollout, (None, 0, 0, 0)))(
      tasks, choices, jnp.stack(outcomes, 2), believed
    )
    data = observations, trajectories
    return tasks, data, acting.non_finite_mask(*data)

  return {
    'begin': jax.jit(begin),
    'watch': jax.jit(watch, donate_argnums=4),
    'end': jax.jit(end),
  }


def _task(
  problem: types.Problem, num_turns: int, parts: agent.Parts
) -> types.Task:
  """What the learner is told of a system of which nobody knows the equations.

  Its units are those of the observations, and the reward of an outcome is how
  many deviations better it is than their mean.
  """
  size, num_points = problem.exists.size, parts.prior.num_cells + 2
  nothing = interventions.no_intervention(size)
  scm = types.SCM(
    problem=problem,
    mechanism=(),
    present=problem.exists,
    parents=jnp.zeros((size, size), bool),
    order=jnp.arange(size),
    location=jnp.zeros(size),
    scale=jnp.ones(size),
    graph=jnp.int32(systems.NO_KIND),
    family=jnp.int32(systems.NO_KIND),
  )
  objective = types.Objective(
    bank=jnp.zeros((1, size)),
    baseline=jnp.zeros(()),
    worst=jnp.zeros(()),
    best=jnp.ones(()),
    choice=nothing,
    partial=jax.tree.map(lambda leaf: jnp.stack([leaf] * num_turns), nothing),
    partial_outcome=jnp.zeros(num_turns),
    curves=jnp.zeros((num_turns, size, num_points)),
  )
  return types.Task(scm, objective)
