"""Scaling of the cost of an update with its sizes, measured and expected.

One size is varied at a time. The exponent of a cost is the slope of its
logarithm over the logarithm of the size, fitted to the upper half of the sizes,
since the time of small programs is dominated by overhead. It should not exceed
the exponent of the number of multiply-adds, given by the formulas below.
"""

from collections.abc import Callable, Iterator
import functools
from typing import Any

import jax
import numpy as np

from acme_cbo.agents.grpo import agent
from acme_cbo.experiments import builder
from acme_cbo.experiments import config as experiments_config
from acme_cbo.experiments.performance import timing
from acme_cbo.infra import config_schema
from acme_cbo.infra import errors
from acme_cbo.networks import candidate_features
from acme_cbo.networks import config as config_lib
from acme_cbo.scms import priors

# Sizes that are varied: {name: (path in the config, values)}.
AXES: dict[str, tuple[str, tuple[int, ...]]] = {
  'variables, D': ('scms.max_variables', (3, 6, 12, 25, 50)),
  'interventions, T': ('horizon.num_interventions', (5, 10, 20, 40, 80)),
  'observations, N': ('horizon.num_observations', (10, 30, 100, 250, 500)),
  'rollouts of a group, G': ('grpo.num_generations', (4, 8, 16, 32, 64)),
  'SCMs, B': ('grpo.num_tasks', (1, 4, 16, 64, 256)),
  'width, W': ('network.width', (24, 48, 96, 192)),
  'blocks, L': ('network.num_blocks', (1, 2, 4, 8)),
}
PROGRAMS = ('actor', 'learner')
# SCMs per update, unless their number is varied, and per gradient chunk.
_NUM_TASKS = 16
_CHUNK_SIZE = 8
# Operations per element of the nearness of rows to candidates, at all widths.
_NEARNESS_OPERATIONS = 6


def multiply_adds(
  architecture: config_lib.NetworkConfig, parts: agent.Parts
) -> dict[str, dict[str, float]]:
  """Counts the multiply-adds of the network's forward passes in an update.

  Args:
    architecture: config of the network.
    parts: parts of the update, for SCMs with interventions on single variables.

  Returns:
    {'actor' or 'learner': {term: number of multiply-adds}}.
  """
  width, num_blocks = architecture.width, architecture.num_blocks
  num_cells = architecture.num_cells + 2
  num_variables = parts.prior.max_variables
  observations = parts.horizon.num_observations
  steps = parts.horizon.num_interventions
  rollouts = parts.update.num_generations
  rows = steps + 1
  projected = width + 2 * (width // architecture.num_heads)
  per_token = num_blocks * (
    2 * width * (projected + width) + 2 * architecture.mlp_factor * width**2
  )
  tokens = num_variables * (observations + rollouts * rows)
  # Records are added to the processes one by one.
  records = min(observations, candidate_features.MAX_RECORDS)
  # Terms of a decision: the heads for each variable, and for each candidate.
  features = candidate_features.NUM_FEATURES + 7
  heads = num_variables * 2 * width * (width + 27 + num_cells)
  candidates = num_variables * num_cells * 32 * (features + 2)
  processes = candidate_features.NUM_PROCESSES * rows * (rows + num_variables)
  nearness = (
    num_variables * num_cells * _NEARNESS_OPERATIONS * (rows + observations)
  )
  decision = {
    'decisions': heads + candidates,
    'surrogate': num_cells * processes + nearness,
  }

  def terms(decisions):
    return {
      'tokens': tokens * per_token,
      'attention across variables': (
        tokens * num_blocks * 2 * num_variables * width
      ),
      'attention across rows': (
        num_blocks
        * 2
        * width
        * num_variables
        * (
          observations * observations + rollouts * rows * (observations + rows)
        )
      ),
      'processes of the records': (
        2 * candidate_features.NUM_PROCESSES * records**3
      ),
      **{term: rollouts * decisions * n for term, n in decision.items()},
    }

  # After each step, the learner also predicts the outcome of an earlier one.
  per_scm = {'actor': terms(steps), 'learner': terms(rows + steps)}
  return {
    program: {term: parts.update.num_tasks * n for term, n in counts.items()}
    for program, counts in per_scm.items()
  }


def measure(
  config: experiments_config.GRPOConfig,
  repeats: int,
  report_progress: Callable[[str], None],
  axes: dict[str, tuple[str, tuple[int, ...]]] | None = None,
) -> dict[str, Any]:
  """Times acting and learning along each axis.

  Args:
    config: config of a training run with the sizes that are not varied, except
      that there are 16 SCMs, all with the maximum number of variables.
    repeats: number of timed calls of each program.
    report_progress: function that is called with a line for each size.
    axes: axes to measure; `AXES` if None.

  Returns:
    {axis: {'sizes': [n], 'seconds': {program: [n] medians}, 'multiply_adds':
    {program: [n] counts}, 'exponent': {program: exponent of the seconds},
    'expected': {program: exponent of the multiply-adds}, 'largest': {program:
    [n] terms with the most multiply-adds}}}.

  Raises:
    errors.UsageError: interventions may be on several variables.
  """
  if config.scms.max_set_size > 1:
    raise errors.UsageError(
      f'config.scms.max_set_size is {config.scms.max_set_size}; the '
      'expected cost of an update is known for 1 only'
    )
  results = {}
  for axis, (path, sizes) in (axes or AXES).items():
    seconds, work = [], []
    for size in sizes:
      experiment = builder.from_config(_with_size(config, path, size))
      architecture = experiment.config.network
      seconds.append(_seconds(experiment.parts, repeats))
      jax.clear_caches()
      work.append(multiply_adds(architecture, experiment.parts))
      timings = ', '.join(f'{p} {s:.3g} s' for p, s in seconds[-1].items())
      report_progress(f'{axis} = {size}: {timings}')
    costs = {p: [by_program[p] for by_program in seconds] for p in PROGRAMS}
    counts = {
      p: [sum(by_program[p].values()) for by_program in work] for p in PROGRAMS
    }
    results[axis] = {
      'sizes': list(sizes),
      'seconds': costs,
      'multiply_adds': counts,
      'exponent': {p: exponent(sizes, costs[p]) for p in PROGRAMS},
      'expected': {p: exponent(sizes, counts[p]) for p in PROGRAMS},
      'largest': {
        p: [
          max(by_program[p], key=lambda term: by_program[p][term])
          for by_program in work
        ]
        for p in PROGRAMS
      },
    }
  return results


def exponent(sizes, costs) -> float:
  """Fits the exponent of a power law to the upper half of the sizes."""
  upper = slice((len(sizes) - 1) // 2, None)
  slope, _ = np.polyfit(np.log(sizes[upper]), np.log(costs[upper]), 1)
  return float(slope)


def _with_size(
  config: experiments_config.GRPOConfig, path: str, size: int
) -> experiments_config.GRPOConfig:
  """Returns the config with one size changed, and the others made uniform."""
  varied = config_schema.override(
    config, {'grpo.num_tasks': _NUM_TASKS, path: size}
  )
  return config_schema.override(
    varied,
    {
      'scms.min_variables': varied.scms.max_variables,
      # One pass, in chunks as large as those of the default config.
      'grpo.num_minibatches': 1,
      'grpo.gradient_accumulation_steps': max(
        1, varied.grpo.num_tasks // _CHUNK_SIZE
      ),
    },
  )


def _seconds(parts: agent.Parts, repeats: int) -> dict[str, float]:
  """Returns the median seconds of the two halves of an update."""
  key = jax.random.PRNGKey(0)
  state = agent.initial_state(0, parts)
  tasks = priors.sample(key, parts.prior, parts.update.num_tasks)
  act = agent.programs(parts)['act']
  # Not that of `agent.programs`, which donates the state.
  learn = jax.jit(functools.partial(agent.learn, parts=parts))
  data, _ = act(state.params, key, tasks)
  seconds = timing.time_interleaved(
    {
      'actor': lambda: act(state.params, key, tasks),
      'learner': lambda: learn(state, tasks, *data),
    },
    repeats,
  )
  return timing.medians(seconds)


def table(results: dict[str, Any]) -> str:
  """Formats the exponents, and the largest terms, as text."""
  lines = [
    f'{"":<24}{"":>10}{"actor":>16}{"learner":>18}',
    f'{"exponent of the time":<24}{"sizes":>10}'
    f'{"actual":>8}{"expected":>10}{"actual":>8}{"expected":>10}'
    '   largest terms of the learner',
  ]
  lines += _rows(results)
  return '\n'.join(lines)


def _rows(results) -> Iterator[str]:
  for axis, result in results.items():
    sizes, largest = result['sizes'], result['largest']['learner']
    ends = list(dict.fromkeys((largest[0], largest[-1])))
    yield (
      f'{axis:<24}{f"{sizes[0]} to {sizes[-1]}":>10}'
      + ''.join(
        f'{result["exponent"][p]:>8.2f}{result["expected"][p]:>10.2f}'
        for p in PROGRAMS
      )
      + f'   {", then ".join(ends)}'
    )
