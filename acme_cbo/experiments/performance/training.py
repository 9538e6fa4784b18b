"""Acting, learning and whole training, beside ceilings and slower ways."""

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
from acme_cbo.networks import action_distribution
from acme_cbo.networks import tokens
from acme_cbo.runtimes import compilation
from acme_cbo.scms import priors
from acme_cbo.training import loggers
from acme_cbo.training import monitors
from acme_cbo.training import stopping
from acme_cbo.training import trainer as trainer_lib


class Work(NamedTuple):
  """What a program does, by XLA's cost analysis of what it compiled.

  Attributes:
    operations: of floating-point numbers, not only those of matrix products.
    bytes: read and written by its loops and products, from caches or memory.
  """

  operations: float
  bytes: float

  @classmethod
  def of(cls, function: Callable[..., Any], *args: Any) -> 'Work':
    """That of a function of arrays, or of their shapes.

    XLA counts the body of a loop once. The network has none but that over the
    rows of the processes of candidates, `candidate_features.append_rows`, of
    which that
    leaves all but one out: a hundredth of its operations.
    """
    costs: Any = jax.jit(function).lower(*args).compile().cost_analysis()
    return cls(costs['flops'], costs['bytes accessed'])

  def times(self, number: float) -> 'Work':
    """That of so many."""
    return Work(number * self.operations, number * self.bytes)

  def __add__(self, other: tuple) -> 'Work':
    return Work(self.operations + other[0], self.bytes + other[1])


class Compiled(NamedTuple):
  """A program and what it took to make it.

  Attributes:
    run: it.
    seconds_to_trace: in Python, to its lowered form.
    seconds_to_compile: with nothing kept from earlier.
    bytes: of memory, for what it works out on the way.
  """

  run: Callable[..., Any]
  seconds_to_trace: float
  seconds_to_compile: float
  bytes: int

  @classmethod
  def of(cls, function: Callable[..., Any], *args: Any) -> 'Compiled':
    """That of a function and of arrays such as it will be called with."""
    begin = time.perf_counter()
    lowered = jax.jit(function).lower(*args)
    traced = time.perf_counter()
    with compilation.cache_disabled():
      compiled: Any = lowered.compile()
      seconds = time.perf_counter() - traced
    return cls(
      compiled,
      traced - begin,
      seconds,
      compiled.memory_analysis().temp_size_in_bytes,
    )


def work_of_acting(parts: agent.Parts, params: Any, tasks: types.Task) -> Work:
  """That of the network in `acting.act`: of the loop as often as it turns.

  Args:
    parts: of the update.
    params: of the network.
    tasks: B of them.

  Returns:
    The `Work`; what simulates the SCMs is not counted.
  """
  network, horizon = parts.network, parts.horizon
  problems = tasks.scm.problem
  num_tasks, num_variables = problems.exists.shape
  group = (num_tasks, parts.num_generations)

  def zeros(shape, like):
    return jax.tree.map(lambda x: jnp.zeros((*shape, *x.shape), x.dtype), like)

  observations = jnp.zeros((num_tasks, horizon.num_observations, num_variables))
  row = zeros(group, tokens.start_row(num_variables))
  cache = zeros(
    group, network.empty_cache(horizon.num_interventions + 1, num_variables)
  )
  partial = zeros(group, action_distribution.empty_intervention(num_variables))

  def of_groups(function, *axes):
    """Over B tasks, and over G rollouts where an axis is 0."""
    return jax.vmap(
      jax.vmap(function, (None, None, None, *axes)), (None, 0, 0, *axes)
    )

  encode = jax.vmap(network.prefix, (None, 0, 0))
  prefix = jax.eval_shape(encode, params, problems, observations)
  append = of_groups(network.append, 0, None, 0)
  given = (params, problems, prefix, cache, jnp.int32(0), row)
  encoding, _ = jax.eval_shape(append, *given)
  decide = of_groups(network.action_head, 0, 0)
  num_turns = tasks.objective.partial_outcome.shape[-1]
  return (
    Work.of(encode, params, problems, observations)
    + Work.of(append, *given).times(horizon.num_interventions + 1)
    + Work.of(decide, params, problems, prefix, encoding, partial).times(
      horizon.num_interventions * num_turns
    )
  )


def measure(parts: agent.Parts, repeats: int) -> dict[str, Any]:
  """Times acting, learning, and both, beside ceilings and slower ways.

  Args:
    parts: of an update; its sizes are what is measured.
    repeats: runs of each, in turn.

  Returns:
    `sizes`; `seconds`, with the spread of each run; `ceilings` and
    `operations` and their `ceiling_share`; `memory_share` of bytes read and
    written;
    `interventions_per_second`; `ratios`, how many times as fast; `compile`; and
    `python_share`, of an update. What cannot be measured is None: the exact
    belief of more variables than it takes.
  """
  key = jax.random.PRNGKey(0)
  state = agent.initial_state(0, parts)
  params = state.params
  tasks = priors.sample(key, parts.prior, parts.num_tasks)
  settings = parts.settings
  slow = dataclasses.replace(
    parts,
    network=recompute.recomputing(parts.network),
    # Its histories do not fit the memory at once.
    settings=dataclasses.replace(
      settings,
      gradient_accumulation_steps=parts.num_tasks // settings.num_minibatches,
    ),
  )

  def act_with(parts, of_trajectories=lambda both: both):
    return lambda params, key, tasks: of_trajectories(
      agent.act(params, key, tasks, parts)[0]
    )

  def learn_with(parts):
    return lambda state, tasks, observations, trajectories: agent.learn(
      state, tasks, observations, trajectories, parts
    )

  def without_rewards(both):
    observations, trajectories = both
    return observations, trajectories._replace(
      components=None, expected_reward=None
    )

  def gradient(params, *data):
    return jax.grad(_loss, has_aux=True)(params, parts, *data)[0]

  act = Compiled.of(act_with(parts), params, key, tasks)
  observations, trajectories = act.run(params, key, tasks)
  data = (tasks, observations, trajectories)
  learn = Compiled.of(learn_with(parts), state, *data)
  num_chunks = settings.num_minibatches * settings.gradient_accumulation_steps
  chunk = jax.tree.map(lambda x: x[: parts.num_tasks // num_chunks], data)
  alone = recompute.ungroup(*chunk)
  optimize = (
    optimizer.stacked(params),
    state.opt_state,
    optimizer.stacked(params),
  )
  ungrouped = dataclasses.replace(
    parts,
    num_tasks=parts.num_tasks * parts.num_generations,
    num_generations=1,
  )
  of_one = recompute.ungroup(*data)[0]
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
  others = {
    'update': lambda: step(_copy(state)),
    'forward': _jitted(_loss_of(parts), params, *chunk),
    'gradient': _jitted(gradient, params, *chunk),
    'optimizer': _jitted(parts.optimizer.update, *optimize),
    'gradient_unshared': _jitted(gradient, params, *alone),
    'act_unshared': _jitted(act_with(ungrouped), params, key, of_one),
    'act_without_rewards': _jitted(
      act_with(parts, without_rewards), params, key, tasks
    ),
    'act_recomputed': _jitted(act_with(slow), params, key, tasks),
    'learn_recomputed': _jitted(learn_with(slow), state, *data),
  }
  if parts.prior.max_variables <= exact_posterior.MAX_VARIABLES:
    with_exact = dataclasses.replace(
      parts, kinds=dataclasses.replace(parts.kinds, belief='exact')
    )
    others['act_with_exact_belief'] = _jitted(
      act_with(with_exact), params, key, tasks
    )
  seconds = timing.interleaved(
    {name: ceiling.run for name, ceiling in ceilings.items()}
    | programs
    | others,
    repeats,
  )
  median = timing.medians(seconds)
  rate = {name: c.amount / median[name] for name, c in ceilings.items()}
  forward = Work.of(_loss_of(parts), params, *chunk)
  both = Work.of(gradient, params, *chunk)
  # Of a loop the body is counted once. With one set of coefficients for all
  # iterations the optimizer writes them out.
  written_out = jax.tree_util.tree_map_with_path(
    lambda path, leaf: (
      leaf[0] if jax.tree_util.keystr(path).endswith('.ns_coeffs') else leaf
    ),
    state.opt_state,
  )
  stacks, _, _ = optimize
  optimizing = Work.of(parts.optimizer.update, stacks, written_out, stacks)
  steps = settings.steps_per_update
  work = {
    'actor': work_of_acting(parts, params, tasks),
    'learner': both.times(num_chunks * settings.num_iterations)
    + optimizing.times(steps),
    'forward': forward,
    'gradient': both,
    'optimizer': optimizing,
  }
  timed = median | {'actor': median['act'], 'learner': median['learn']}
  made = (
    parts.num_tasks * parts.num_generations * parts.horizon.num_interventions
  )
  whole = median['act'] + median['learn'] + median['prior']
  slowly = (
    median['act_recomputed'] + median['learn_recomputed'] + median['prior']
  )
  return {
    'sizes': {
      'num_tasks': parts.num_tasks,
      'num_generations': parts.num_generations,
      **parts.horizon.__dict__,
      'max_variables': parts.prior.max_variables,
    },
    'ceilings': {
      'operations_per_second': rate['matrix_product'],
      'bytes_per_second': rate['memory'],
    },
    'ceiling_share': {
      name: done.operations / timed[name] / rate['matrix_product']
      for name, done in work.items()
    },
    'operations': {name: done.operations for name, done in work.items()},
    'memory_share': {
      name: done.bytes / timed[name] / rate['memory']
      for name, done in work.items()
    },
    'interventions_per_second': {
      'actor': made / median['act'],
      'learner': made / median['learn'],
      'training': made / median['update'],
    },
    'ratios': {
      'cached_over_recompute': median['act_recomputed'] / median['act'],
      'unshared_over_recompute': median['act_recomputed']
      / median['act_unshared'],
      'shared_over_unshared': median['gradient_unshared'] / median['gradient'],
      'training_over_recompute': slowly / whole,
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
  """A run of a function on arrays, compiled."""
  compiled = jax.jit(function)
  return lambda: compiled(*args)


def _loss(params, parts, tasks, observations, trajectories):
  """The loss, for advantages of 1, and its parts."""
  return total_loss.loss(
    params,
    params,
    parts.network,
    tasks,
    observations,
    trajectories,
    jnp.ones(trajectories.log_prob_cell.shape),
    parts.settings,
    parts.grpo,
  )


def _loss_of(parts):
  return lambda params, *data: _loss(params, parts, *data)


def python_share(
  parts: agent.Parts,
  programs: Mapping[str, Callable[..., Any]],
  state: types.TrainingState,
  repeats: int,
) -> float:
  """Share of an update in which none of its programs runs.

  Args:
    parts: of the update.
    programs: its `agent.programs`.
    state: to begin with.
    repeats: updates that are timed.

  Returns:
    1 less the seconds in programs over all.
  """
  inside, whole = timing.Stopwatch(), timing.Stopwatch()
  step = whole.timed(
    agent.make_step({name: inside.timed(run) for name, run in programs.items()})
  )
  state, _ = step(_copy(state))  # It compiles.
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
  """What the trainer adds to its updates, as a share of theirs.

  Loggers and the callbacks that watch every update write as in a run; the line
  of progress is left out, and so are evaluations and checkpoints, which are
  work of their own.

  Args:
    step: makes one update.
    state: to begin with.
    updates: how many are made, after one that is not counted.
    learning_rate: by the number of updates made, to be logged.

  Returns:
    Seconds of `Trainer.fit` over those in `step`, less 1.
  """
  inside, whole = timing.Stopwatch(), timing.Stopwatch()
  state, _ = step(_copy(state))
  with tempfile.TemporaryDirectory() as directory:
    trainer = trainer_lib.Trainer(
      step=inside.timed(step),
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
    whole.timed(trainer.fit)(state)
  return whole.seconds / inside.seconds - 1
