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
from acme_cbo.networks import action_distribution
from acme_cbo.policies import episode
from acme_cbo.policies import network_policy
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
    num_tasks, size = parts.update.num_tasks, problem.exists.size
    batch = (num_tasks, parts.update.num_generations)
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
    program, (prefixes, states) = traced('begin', state.params, problems, rows)
    yield program
    program, chosen = traced(
      'choose', state.params, key, problems, prefixes, states
    )
    yield program
    _, choices = chosen
    program, states = traced(
      'observe',
      state.params,
      problems,
      prefixes,
      states,
      step,
      choices.intervention,
      outcomes,
    )
    yield program
    history = [(*chosen, outcomes)] * parts.horizon.num_interventions
    program, (tasks, data, _) = traced('end', problems, rows, history, states)
    yield program
    program, _ = traced('learn', state, tasks, *data)
    yield program

  def init_state(
    self, programs: Mapping[str, Callable[..., Any]], seed: int
  ) -> types.TrainingState:
    """See `fused.Fused.init_state`."""
    return programs['init'](jax.random.PRNGKey(seed))

  @contextlib.contextmanager
  def _actors(
    self,
    programs: Mapping[str, Callable[..., Any]],
    state: types.TrainingState,
  ) -> Iterator[threaded.Actors]:
    del state
    size = self._parts.update.num_tasks * self._parts.update.num_generations
    with contextlib.ExitStack() as stack:
      pools = []
      for _ in self._actor_devices:
        pools.append(simulator_pool.Pool(self._make, size, self._stall_seconds))
        stack.callback(pools[-1].close)

      def stop():
        for pool in pools:
          pool.stop()

      yield threaded.Actors(
        [
          lambda item, pool=pool: self._collect(programs, pool, item)
          for pool in pools
        ],
        stop,
      )

  def _collect(
    self,
    programs: Mapping[str, Callable[..., Any]],
    pool: simulator_pool.Pool,
    item: experience_queue.WorkItem,
  ) -> agent.Experience:
    """A group of rollouts on every one of B new systems.

    Raises:
      errors.NonFiniteError: an observation, an outcome or a logit is not
        finite.
      errors.UsageError: a simulator is not as it should be.
    """
    parts = self._parts
    num_tasks, group = parts.update.num_tasks, parts.update.num_generations
    num_steps = parts.horizon.num_interventions
    key, key_seeds, key_act = jax.random.split(item.key, 3)
    seeds = np.asarray(
      jax.random.randint(key_seeds, (num_tasks,), 0, _MAX_SEED)
    ).tolist()
    own = pool.reset(
      np.repeat(seeds, group).tolist(),
      list(range(group)) * num_tasks,
      parts.horizon.num_observations,
    )
    observations = own[::group]
    units = normalization.UnitConverter.fit(self._problem, observations)
    problems, rows = units.problem, units.to_normalized(observations)
    choice_keys = jax.random.split(key_act, num_steps)
    prefixes, states = programs['begin'](item.params, problems, rows)

    def choose(step, states):
      return programs['choose'](
        item.params, choice_keys[step], problems, prefixes, states
      )

    def respond(step, chosen):
      del step
      intervention = units.to_own_intervention(chosen[1].intervention)
      own = pool.step(
        *(np.asarray(x).reshape(-1, x.shape[-1]) for x in intervention)
      )
      return units.to_normalized(own.reshape(intervention.values.shape))

    def observe(states, step, chosen, outcomes):
      return programs['observe'](
        item.params,
        problems,
        prefixes,
        states,
        jnp.int32(step),
        chosen[1].intervention,
        outcomes,
      )

    steps = list(episode.on_host(choose, respond, observe, states, num_steps))
    history = [(*chosen, outcomes) for chosen, outcomes, _ in steps]
    *_, end = steps[-1]
    tasks, data, faults = programs['end'](problems, rows, history, end)
    errors.check_finite(
      item.update, acting.CHECKED_NAMES, np.asarray(faults), str(seeds)
    )
    return agent.Experience(tasks, data, str(seeds), key)


def _programs(
  parts: agent.Parts, max_set_size: int
) -> dict[str, stages.Wrapped]:
  """Returns the programs of acting: begin, choose, observe, end."""
  network, horizon = parts.network, parts.horizon
  # Of what stands for the expected outcome below.
  kinds = dataclasses.replace(parts.rewards, outcome='expected')

  def policy(params, problem, prefix):
    return network_policy.NetworkPolicy(
      network,
      params,
      problem,
      prefix,
      horizon.num_interventions,
      max_set_size,
      {kinds.belief: beliefs.FACTORIES[kinds.belief]()},
    )

  def belief(state):
    return state.belief_states[kinds.belief]

  def begin(params, problems, observations):
    def group(problem, rows):
      prefix = network.prefix(params, problem, rows)
      state = policy(params, problem, prefix).begin(rows)
      repeated = jax.tree.map(
        lambda leaf: jnp.broadcast_to(
          leaf, (parts.update.num_generations, *leaf.shape)
        ),
        state,
      )
      return prefix, repeated

    return jax.vmap(group)(problems, observations)

  def choose(params, key, problems, prefixes, states):
    keys = jax.random.split(
      key, (parts.update.num_tasks, parts.update.num_generations)
    )

    def group(keys, problem, prefix, states):
      acting = policy(params, problem, prefix)

      def one(key, state):
        choice = acting.choose(
          jax.random.split(key, max_set_size),
          state,
          action_distribution.sample,
        )
        return belief(state), choice

      return jax.vmap(one)(keys, states)

    return jax.vmap(group)(keys, problems, prefixes, states)

  def observe(params, problems, prefixes, states, step, made, outcomes):
    def group(problem, prefix, states, made, outcomes):
      acting = policy(params, problem, prefix)
      return jax.vmap(acting.observe, (0, None, 0, 0))(
        states, step, made, outcomes
      )

    return jax.vmap(group)(problems, prefixes, states, made, outcomes)

  def end(problems, observations, history, states):
    def stacked(*leaves):
      return jnp.stack(leaves, 2)  # [B, G, T, ...]

    before, choices, outcomes = zip(*history, strict=True)
    belief_states = jax.tree.map(stacked, *before, belief(states))
    choices = jax.tree.map(stacked, *choices)
    tasks = jax.vmap(lambda problem: _task(problem, max_set_size, parts))(
      problems
    )

    def rollout(task, choice, outcomes, belief_states):
      # Far ones bent, as the policy sees them: a lucky system must not count
      # for all others.
      seen = simulate.sampled_outcome(task.scm, outcomes)
      seen = normalization.asinh_normalize(
        normalization.Normalization(jnp.zeros(()), jnp.ones(())), seen
      )
      # A simulator has no budget: what is chosen is made.
      steps = episode.Steps(
        choice, choice.intervention, outcomes, seen, belief_states
      )
      return acting.trajectory(task, kinds, steps)

    trajectories = jax.vmap(jax.vmap(rollout, (None, 0, 0, 0)))(
      tasks, choices, jnp.stack(outcomes, 2), belief_states
    )
    data = observations, trajectories
    return tasks, data, acting.non_finite_mask(*data)

  return {
    'begin': jax.jit(begin),
    'choose': jax.jit(choose),
    'observe': jax.jit(observe, donate_argnums=3),
    'end': jax.jit(end),
  }


def _task(
  problem: types.Problem, max_set_size: int, parts: agent.Parts
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
    partial=jax.tree.map(
      lambda leaf: jnp.stack([leaf] * max_set_size), nothing
    ),
    partial_outcome=jnp.zeros(max_set_size),
    curves=jnp.zeros((max_set_size, size, num_points)),
  )
  return types.Task(scm, objective)
