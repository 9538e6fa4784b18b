"""Benchmarks of acting, learning and training against limits and baselines."""

from collections.abc import Callable, Mapping
import dataclasses
import tempfile
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from acme_cbo import types
from acme_cbo.agents.grpo import agent
from acme_cbo.agents.grpo import optimizer
from acme_cbo.agents.grpo import total_loss
from acme_cbo.beliefs import exact_posterior
from acme_cbo.experiments.performance import machine
from acme_cbo.experiments.performance import recompute
from acme_cbo.experiments.performance import timing
from acme_cbo.infra import compilation
from acme_cbo.networks import action_distribution
from acme_cbo.networks import tokens
from acme_cbo.scms import priors
from acme_cbo.training import loggers
from acme_cbo.training import monitors
from acme_cbo.training import stopping
from acme_cbo.training import trainer as trainer_lib


class Work(NamedTuple):
  """Work of a program, by XLA's cost analysis of the compiled program.

  Attributes:
    operations: number of floating-point operations, of all kinds.
    bytes: number of bytes read and written, in caches or memory.
  """

  operations: float
  bytes: float

  @classmethod
  def from_function(cls, function: Callable[..., Any], *args: Any) -> 'Work':
    """Returns the work of a function of arrays, or of their shapes.

    XLA counts the body of a loop once. The only loop of the network is that
    over rows in `candidate_features.append_rows`; counting one row of it misses
    about a hundredth of the operations.
    """
    costs: Any = jax.jit(function).lower(*args).compile().cost_analysis()
    return cls(costs['flops'], costs['bytes accessed'])

  def times(self, number: float) -> 'Work':
    """Returns the work of that many runs."""
    return Work(number * self.operations, number * self.bytes)

  def __add__(self, other: tuple) -> 'Work':
    return Work(self.operations + other[0], self.bytes + other[1])


class Compiled(NamedTuple):
  """Compiled program with the costs of its compilation.

  Attributes:
    run: compiled function.
    seconds_to_trace: seconds of tracing and lowering in Python.
    seconds_to_compile: seconds of compiling, without the compilation cache.
    bytes: size of the temporary arrays.
  """

  run: Callable[..., Any]
  seconds_to_trace: float
  seconds_to_compile: float
  bytes: int

  @classmethod
  def from_function(
    cls, function: Callable[..., Any], *args: Any
  ) -> 'Compiled':
    """Compiles a function for arguments of the shapes of `args`."""
    begin = time.perf_counter()
    lowered = jax.jit(function).lower(*args)
    lowered_at = time.perf_counter()
    with compilation.cache_disabled():
      compiled: Any = lowered.compile()
      seconds = time.perf_counter() - lowered_at
    return cls(
      compiled,
      lowered_at - begin,
      seconds,
      compiled.memory_analysis().temp_size_in_bytes,
    )


def acting_work(parts: agent.Parts, params: Any, tasks: types.Task) -> Work:
  """Returns the work of the network in `acting.act`, over all its iterations.

  Args:
    parts: parts of the update.
    params: parameters of the network.
    tasks: B tasks.

  Returns:
    The `Work`, without that of simulating the SCMs.
  """
  network, horizon = parts.network, parts.horizon
  problems = tasks.scm.problem
  num_tasks, num_variables = problems.exists.shape
  group = (num_tasks, parts.update.num_generations)

  def zeros(shape, like):
    return jax.tree.map(lambda x: jnp.zeros((*shape, *x.shape), x.dtype), like)

  observations = jnp.zeros((num_tasks, horizon.num_observations, num_variables))
  row = zeros(group, tokens.start_row(num_variables))
  cache = zeros(
    group, network.empty_cache(horizon.num_interventions + 1, num_variables)
  )
  partial = zeros(group, action_distribution.empty_intervention(num_variables))

  def vmap_groups(function, *axes):
    """Maps over B tasks, and over G rollouts of arguments whose axis is 0."""
    return jax.vmap(
      jax.vmap(function, (None, None, None, *axes)), (None, 0, 0, *axes)
    )

  encode = jax.vmap(network.prefix, (None, 0, 0))
  prefix = jax.eval_shape(encode, params, problems, observations)
  append = vmap_groups(network.append, 0, None, 0)
  args = (params, problems, prefix, cache, jnp.int32(0), row)
  encoding, _ = jax.eval_shape(append, *args)
  decide = vmap_groups(network.action_head, 0, 0)
  max_set_size = tasks.objective.partial_outcome.shape[-1]
  return (
    Work.from_function(encode, params, problems, observations)
    + Work.from_function(append, *args).times(horizon.num_interventions + 1)
    + Work.from_function(
      decide, params, problems, prefix, encoding, partial
    ).times(horizon.num_interventions * max_set_size)
  )


def measure(parts: agent.Parts, repeats: int) -> dict[str, Any]:
  """Times acting, learning and updates, with hardware limits and baselines.

  Args:
    parts: parts of an update, with the sizes to measure.
    repeats: number of timed calls of each program, in turn.

  Returns:
    `sizes`; `seconds`, with the spread of each program; `ceilings`, the limits
    of the hardware; `operations`, and `ceiling_share`, their rate as a share of
    the limit; `memory_share`, the same for bytes read and written;
    `interventions_per_second`; `ratios`, the speedups over the baselines;
    `share_of_acting`, the share of the rewards and the relative time added by
    the exact belief, which is None with more variables than it supports;
    `compile`; and `python_share` of an update.
  """
  key = jax.random.PRNGKey(0)
  state = agent.initial_state(0, parts)
  params = state.params
  tasks = priors.sample(key, parts.prior, parts.update.num_tasks)
  settings = parts.update
  slow = dataclasses.replace(
    parts,
    network=recompute.without_cache(parts.network),
    # The histories of all tasks together do not fit the memory.
    update=dataclasses.replace(
      settings,
      gradient_accumulation_steps=settings.num_tasks
      // settings.num_minibatches,
    ),
  )

  def act_with(parts, select=lambda data: data):
    return lambda params, key, tasks: select(
      agent.act(params, key, tasks, parts)[0]
    )

  def learn_with(parts):
    return lambda state, tasks, observations, trajectories: agent.learn(
      state, tasks, observations, trajectories, parts
    )

  def without_rewards(data):
    observations, trajectories = data
    return observations, trajectories._replace(
      components=None, expected_reward=None, reached=None
    )

  def gradient(params, *data):
    return jax.grad(_loss, has_aux=True)(params, parts, *data)[0]

  act = Compiled.from_function(act_with(parts), params, key, tasks)
  observations, trajectories = act.run(params, key, tasks)
  data = (tasks, observations, trajectories)
  learn = Compiled.from_function(learn_with(parts), state, *data)
  num_chunks = settings.num_parts
  chunk = jax.tree.map(lambda x: x[: settings.num_tasks // num_chunks], data)
  ungrouped_chunk = recompute.ungroup(*chunk)
  optimizer_args = (
    optimizer.stack_by_shape(params),
    state.opt_state,
    optimizer.stack_by_shape(params),
  )
  ungrouped = dataclasses.replace(
    parts,
    update=dataclasses.replace(
      parts.update,
      num_tasks=parts.update.num_tasks * parts.update.num_generations,
      num_generations=1,
    ),
  )
  ungrouped_tasks = recompute.ungroup(*data)[0]
  ceilings = {
    'matrix_product': machine.matrix_product(),
    'memory': machine.memory(),
  }
  compiled = agent.programs(parts)
  step = agent.make_step(compiled)
  programs = {
    'act': lambda: act.run(params, key, tasks),
    'learn': lambda: learn.run(state, *data),
    'prior': lambda: compiled['fill'](key),
  }
  variants = {
    'update': lambda: step(_copy(state)),
    'forward': _jitted(_loss_of(parts), params, *chunk),
    'gradient': _jitted(gradient, params, *chunk),
    'optimizer': _jitted(parts.optimizer.update, *optimizer_args),
    'gradient_unshared': _jitted(gradient, params, *ungrouped_chunk),
    'act_unshared': _jitted(act_with(ungrouped), params, key, ungrouped_tasks),
    'act_without_rewards': _jitted(
      act_with(parts, without_rewards), params, key, tasks
    ),
    'act_recomputed': _jitted(act_with(slow), params, key, tasks),
    'learn_recomputed': _jitted(learn_with(slow), state, *data),
  }
  if parts.prior.max_variables <= exact_posterior.MAX_VARIABLES:
    with_exact = dataclasses.replace(
      parts, rewards=dataclasses.replace(parts.rewards, belief='exact')
    )
    variants['act_with_exact_belief'] = _jitted(
      act_with(with_exact), params, key, tasks
    )
  seconds = timing.time_interleaved(
    {name: ceiling.run for name, ceiling in ceilings.items()}
    | programs
    | variants,
    repeats,
  )
  median = timing.medians(seconds)
  limits = {name: c.amount / median[name] for name, c in ceilings.items()}
  forward = Work.from_function(_loss_of(parts), params, *chunk)
  backward = Work.from_function(gradient, params, *chunk)
  # XLA counts the body of a loop once. The optimizer unrolls its iterations if
  # they all have the same coefficients, and then all of them are counted.
  unrolled_state = jax.tree_util.tree_map_with_path(
    lambda path, leaf: (
      leaf[0] if jax.tree_util.keystr(path).endswith('.ns_coeffs') else leaf
    ),
    state.opt_state,
  )
  stacks, _, _ = optimizer_args
  optimizer_work = Work.from_function(
    parts.optimizer.update, stacks, unrolled_state, stacks
  )
  steps = settings.steps_per_update
  work = {
    'actor': acting_work(parts, params, tasks),
    'learner': backward.times(num_chunks * settings.num_iterations)
    + optimizer_work.times(steps),
    'forward': forward,
    'gradient': backward,
    'optimizer': optimizer_work,
  }
  seconds_of = median | {'actor': median['act'], 'learner': median['learn']}
  num_interventions = (
    settings.num_tasks
    * settings.num_generations
    * parts.horizon.num_interventions
  )
  fast_seconds = median['act'] + median['learn'] + median['prior']
  slow_seconds = (
    median['act_recomputed'] + median['learn_recomputed'] + median['prior']
  )
  return {
    'sizes': {
      'num_tasks': parts.update.num_tasks,
      'num_generations': parts.update.num_generations,
      **vars(parts.horizon),
      'max_variables': parts.prior.max_variables,
    },
    'ceilings': {
      'operations_per_second': limits['matrix_product'],
      'bytes_per_second': limits['memory'],
    },
    'ceiling_share': {
      name: program.operations / seconds_of[name] / limits['matrix_product']
      for name, program in work.items()
    },
    'operations': {name: program.operations for name, program in work.items()},
    'memory_share': {
      name: program.bytes / seconds_of[name] / limits['memory']
      for name, program in work.items()
    },
    'interventions_per_second': {
      'actor': num_interventions / median['act'],
      'learner': num_interventions / median['learn'],
      'training': num_interventions / median['update'],
    },
    'ratios': {
      'cached_over_recompute': median['act_recomputed'] / median['act'],
      'unshared_over_recompute': median['act_recomputed']
      / median['act_unshared'],
      'shared_over_unshared': median['gradient_unshared'] / median['gradient'],
      'training_over_recompute': slow_seconds / fast_seconds,
    },
    'share_of_acting': {
      'rewards': 1 - median['act_without_rewards'] / median['act'],
      'exact_belief': median['act_with_exact_belief'] / median['act'] - 1
      if 'act_with_exact_belief' in median
      else None,
    },
    'python_share': python_share(parts, compiled, state, repeats),
    'compile': {
      name: {
        'seconds_to_trace': program.seconds_to_trace,
        'seconds_to_compile': program.seconds_to_compile,
        'mebibytes': program.bytes / 2**20,
      }
      for name, program in (('actor', act), ('learner', learn))
    },
    'seconds': timing.spread(seconds),
  }


def _copy(tree):
  return jax.tree.map(jnp.copy, tree)


def _jitted(function, *args):
  """Returns a function without arguments that runs the compiled function."""
  compiled = jax.jit(function)
  return lambda: compiled(*args)


def _loss(params, parts, tasks, observations, trajectories):
  """Returns the loss for advantages of 1, and its components."""
  return total_loss.loss(
    params,
    params,
    parts.network,
    tasks,
    observations,
    trajectories,
    jnp.ones(trajectories.log_prob_cell.shape),
    parts.update,
  )


def _loss_of(parts):
  return lambda params, *data: _loss(params, parts, *data)


def python_share(
  parts: agent.Parts,
  programs: Mapping[str, Callable[..., Any]],
  state: types.TrainingState,
  repeats: int,
) -> float:
  """Measures the share of an update during which no program runs.

  Args:
    parts: parts of the update.
    programs: compiled programs of the update, see `agent.programs`.
    state: initial state.
    repeats: number of timed updates.

  Returns:
    1 minus the ratio of the seconds in programs to the seconds in updates.
  """
  inside, whole = timing.Stopwatch(), timing.Stopwatch()
  step = whole.wrap(
    agent.make_step(
      {name: inside.wrap(program) for name, program in programs.items()}
    )
  )
  state, _ = step(_copy(state))  # The first update compiles.
  inside.seconds = whole.seconds = 0.0
  for _ in range(repeats):
    state, _ = step(state)
  return 1 - inside.seconds / whole.seconds


def trainer_overhead(
  step: Callable[[Any], tuple[Any, Any]],
  state: Any,
  updates: int,
  learning_rate: Callable[[int], float],
) -> float:
  """Measures the time that the trainer adds to the updates, relative to them.

  Loggers and the callbacks that run at every update are those of a training
  run. The progress line, evaluations and checkpoints are left out.

  Args:
    step: function that makes one update.
    state: initial state.
    updates: number of timed updates, after a warm-up update.
    learning_rate: number of updates made -> learning rate, which is logged.

  Returns:
    Ratio of the seconds in `Trainer.fit` to the seconds in `step`, minus 1.
  """
  inside, whole = timing.Stopwatch(), timing.Stopwatch()
  state, _ = step(_copy(state))
  with tempfile.TemporaryDirectory() as directory:
    trainer = trainer_lib.Trainer(
      step=inside.wrap(step),
      num_updates=int(state.step) + updates,
      logger=loggers.LoggerGroup(
        loggers.TensorBoardLogger(directory), loggers.JsonlLogger(directory)
      ),
      callbacks=(
        monitors.Throughput(1),
        monitors.LearningRate(learning_rate),
        stopping.Convergence('reward/total', 100, 0.02, stop=False),
      ),
    )
    whole.wrap(trainer.fit)(state)
  return whole.seconds / inside.seconds - 1
