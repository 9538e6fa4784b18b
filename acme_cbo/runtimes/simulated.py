"""Threaded runtime whose actors run simulators that are not JAX programs.

The learner is that of `threaded`. The true SCM of a simulator is unknown:
rewards use the observed noisy outcomes, in standard deviations of the target's
observations, and the losses of the parents and of the expected outcomes do not
apply.
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


class Simulated(threaded.Threaded):
  """Runtime in which every actor has one simulator for each of its rollouts."""

  def __init__(
    self,
    parts: agent.Parts,
    num_actors: int,
    max_lag: int,
    stall_seconds: float,
    problem: types.Problem,
    make: Callable[[], environment.Simulator],
  ):
    """Creates the runtime.

    Args:
      parts: parts of an update.
      num_actors: number of actor threads.
      max_lag: largest age of an actor's parameters in updates.
      stall_seconds: number of seconds that the learner waits for an actor.
      problem: problem of all simulators.
      make: factory of simulators.
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
    traced = functools.partial(agent.trace_program, self.programs)
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
    """Yields actors, each with its own pool of simulators."""
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
    """Collects a group of rollouts on each of B newly seeded simulators.

    Args:
      programs: programs by name.
      pool: B * G simulators of the actor.
      item: work item.

    Returns:
      The `agent.Experience`.

    Raises:
      errors.NonFiniteError: an observation, an outcome or a logit is not
        finite.
      errors.UsageError: a simulator returned an invalid value.
    """
    parts = self._parts
    num_tasks, group = parts.update.num_tasks, parts.update.num_generations
    num_steps = parts.horizon.num_interventions
    key, key_seeds, key_act = jax.random.split(item.key, 3)
    drawn = jax.random.randint(key_seeds, (num_tasks,), 0, environment.MAX_SEED)
    seeds = (np.asarray(drawn) % environment.FIRST_HELD_OUT_SEED).tolist()
    own = pool.reset(
      np.repeat(seeds, group).tolist(),
      list(range(group)) * num_tasks,
      parts.horizon.num_observations,
    )
    observations = own[::group]
    units = normalization.UnitConverter.fit(
      self._problem, observations, pool.variables
    )
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
    tasks, data, non_finite_mask = programs['end'](problems, rows, history, end)
    errors.check_finite(
      item.update,
      acting.CHECKED_NAMES,
      np.asarray(non_finite_mask),
      str(seeds),
    )
    return agent.Experience(tasks, data, str(seeds), key)


def _programs(
  parts: agent.Parts, max_set_size: int
) -> dict[str, stages.Wrapped]:
  """Returns the jitted programs of acting on simulators.

  Args:
    parts: parts of an update.
    max_set_size: largest number of variables of one intervention.

  Returns:
    'begin': (params, problems, observations) -> prefixes and policy states;
    'choose': (params, key, problems, prefixes, states) -> belief states and
    choices; 'observe': (params, problems, prefixes, states, which are donated,
    step, interventions, outcomes) -> policy states; 'end': (problems,
    observations, history of steps, last policy states) -> tasks, data as those
    of 'act' in `agent.programs`, and their non-finite mask.
  """
  network, horizon = parts.network, parts.horizon
  # `rollout` below passes the sampled outcome as the expected one.
  reward_config = dataclasses.replace(parts.rewards, outcome='expected')

  def policy(params, problem, prefix):
    return network_policy.NetworkPolicy(
      network,
      params,
      problem,
      prefix,
      horizon.num_interventions,
      max_set_size,
      {reward_config.belief: beliefs.FACTORIES[reward_config.belief]()},
    )

  def belief(state):
    return state.belief_states[reward_config.belief]

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
      network_agent = policy(params, problem, prefix)

      def rollout(key, state):
        choice = network_agent.choose(
          jax.random.split(key, max_set_size),
          state,
          action_distribution.sample,
        )
        return belief(state), choice

      return jax.vmap(rollout)(keys, states)

    return jax.vmap(group)(keys, problems, prefixes, states)

  def observe(params, problems, prefixes, states, step, made, outcomes):
    def group(problem, prefix, states, made, outcomes):
      network_agent = policy(params, problem, prefix)
      return jax.vmap(network_agent.observe, (0, None, 0, 0))(
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
      # Outcomes are compressed as for the policy, so that extreme outcomes of
      # one simulator do not dominate the rewards.
      observed = simulate.sampled_outcome(task.scm, outcomes)
      observed = normalization.asinh_normalize(
        normalization.Normalization(jnp.zeros(()), jnp.ones(())), observed
      )
      # A simulator has no budget: every chosen intervention is made.
      steps = episode.Steps(
        choice, choice.intervention, outcomes, observed, belief_states, None
      )
      # Unused: the learner predicts nothing of simulators.
      key = jax.random.PRNGKey(0)
      return acting.trajectory(task, reward_config, steps, None, key)

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
  """Returns the task of a simulator, whose equations are unknown.

  Its units are those of the observations: the reward of an outcome is the
  number of standard deviations by which it is better than their mean.

  Args:
    problem: problem of the simulator, in normalized units.
    max_set_size: largest number of variables of one intervention.
    parts: parts of an update.
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
