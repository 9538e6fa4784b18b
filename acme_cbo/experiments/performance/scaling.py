"""What an update costs as its sizes grow, beside what it should.

One size is varied at a time. The exponent of a cost is the slope of its
logarithm over that of the size, from the middle of the sizes on: before that
small programs cost what it takes to start them. It should be no more than that
of the multiplications and additions that there are, by the formulas below.
"""

from collections.abc import Callable, Iterator
import copy
import functools
from typing import Any

import jax
import numpy as np

from acme_cbo.agents.grpo import agent
from acme_cbo.experiments import builder
from acme_cbo.experiments.performance import timing
from acme_cbo.infra import errors
from acme_cbo.networks import candidate_features
from acme_cbo.networks import config as config_lib
from acme_cbo.scms import priors

# What is varied, and how: {name: (path in the config, sizes)}.
AXES: dict[str, tuple[str, tuple[int, ...]]] = {
  'variables, D': ('scms.max_variables', (3, 6, 12, 25, 50)),
  'interventions, T': ('horizon.num_interventions', (5, 10, 20, 40, 80)),
  'observations, N': ('horizon.num_observations', (10, 30, 100, 250, 500)),
  'rollouts of a group, G': ('grpo.num_generations', (4, 8, 16, 32, 64)),
  'SCMs, B': ('grpo.num_tasks', (1, 4, 16, 64, 256)),
  'width, W': ('network.width', (24, 48, 96, 192)),
  'blocks, L': ('network.num_blocks', (1, 2, 4, 8)),
}
WHO = ('actor', 'learner')
# SCMs of an update where they are not what is varied, and of a part of it.
_NUM_TASKS = 16
_PART = 8
# Operations on each element of a row's nearness to a candidate, of each width.
_NEARNESS = 6


def multiply_adds(
  architecture: config_lib.NetworkConfig, parts: agent.Parts
) -> dict[str, dict[str, float]]:
  """What the network takes in an update, forward, by what it is for.

  Args:
    architecture: of the network.
    parts: of the update, of SCMs of which one variable is set at a time.

  Returns:
    {'actor' or 'learner': {term: multiplications and additions}}.
  """
  width, num_blocks = architecture.width, architecture.num_blocks
  num_cells = architecture.num_cells + 2
  num_variables = parts.prior.max_variables
  observations = parts.horizon.num_observations
  steps = parts.horizon.num_interventions
  rollouts = parts.num_generations
  rows = steps + 1
  projected = width + 2 * (width // architecture.num_heads)
  of_a_token = num_blocks * (
    2 * width * (projected + width) + 2 * architecture.mlp_factor * width**2
  )
  tokens = num_variables * (observations + rollouts * rows)
  # Of a decision: what is asked of each variable, and of each candidate.
  features = candidate_features.NUM_FEATURES + 7
  asked = num_variables * 2 * width * (width + 27 + num_cells)
  candidates = num_variables * num_cells * 32 * (features + 2)
  of_processes = (
    candidate_features.NUM_PROCESSES * rows * (rows + num_variables)
  )
  nearness = num_variables * num_cells * _NEARNESS * (rows + observations)
  decision = {
    'decisions': asked + candidates,
    'surrogate': num_cells * of_processes + nearness,
  }

  def of(decisions):
    return {
      'tokens': tokens * of_a_token,
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
      **{term: rollouts * decisions * each for term, each in decision.items()},
    }

  # The learner also predicts, after each step, what one made before earned.
  of_an_scm = {'actor': of(steps), 'learner': of(rows + steps)}
  return {
    who: {term: parts.num_tasks * n for term, n in terms.items()}
    for who, terms in of_an_scm.items()
  }


def measure(
  config: dict[str, Any],
  repeats: int,
  tell: Callable[[str], None],
  axes: dict[str, tuple[str, tuple[int, ...]]] | None = None,
) -> dict[str, Any]:
  """Times acting and learning over each axis.

  Args:
    config: checked; its sizes are those that are not varied, but for the SCMs,
      of which there are 16 that all have as many variables as the largest.
    repeats: runs of each.
    tell: is told of each size that was measured.
    axes: those of `AXES` if not given.

  Returns:
    {axis: {'sizes': [n], 'seconds': {who: [n] medians}, 'multiply_adds': {who:
    [n]}, 'exponent' and 'expected': {who: exponents of the two}, 'largest':
    {who: [n] term that is the most of the work}}}.

  Raises:
    errors.UsageError: several variables may be set at a time.
  """
  if config['scms']['max_set_size'] > 1:
    raise errors.UsageError(
      'what an update should cost is known where one variable is set at a '
      f'time; config.scms.max_set_size is {config["scms"]["max_set_size"]}'
    )
  found = {}
  for axis, (path, sizes) in (axes or AXES).items():
    seconds, work = [], []
    for size in sizes:
      experiment = builder.from_config(_varied(config, path, size))
      architecture = config_lib.NetworkConfig(
        **experiment.parts_from['network']
      )
      seconds.append(_seconds(experiment.parts, repeats))
      jax.clear_caches()
      work.append(multiply_adds(architecture, experiment.parts))
      told = ', '.join(f'{who} {s:.3g} s' for who, s in seconds[-1].items())
      tell(f'{axis} = {size}: {told}')
    costs = {who: [of[who] for of in seconds] for who in WHO}
    sums = {who: [sum(of[who].values()) for of in work] for who in WHO}
    found[axis] = {
      'sizes': list(sizes),
      'seconds': costs,
      'multiply_adds': sums,
      'exponent': {who: exponent(sizes, costs[who]) for who in WHO},
      'expected': {who: exponent(sizes, sums[who]) for who in WHO},
      'largest': {
        who: [max(of[who], key=lambda term: of[who][term]) for of in work]
        for who in WHO
      },
    }
  return found


def exponent(sizes, costs) -> float:
  """Slope of the logarithm of a cost, over the upper half of the sizes."""
  upper = slice((len(sizes) - 1) // 2, None)
  slope, _ = np.polyfit(np.log(sizes[upper]), np.log(costs[upper]), 1)
  return float(slope)


def _varied(config, path, size) -> dict[str, Any]:
  varied = copy.deepcopy(config)
  varied['grpo']['num_tasks'] = _NUM_TASKS
  section, field = path.split('.')
  varied[section][field] = size
  scms, grpo = varied['scms'], varied['grpo']
  scms['min_variables'] = scms['max_variables']
  # One pass, in parts that are as large as those of the default.
  grpo['num_minibatches'] = 1
  grpo['gradient_accumulation_steps'] = max(1, grpo['num_tasks'] // _PART)
  return varied


def _seconds(parts: agent.Parts, repeats: int) -> dict[str, float]:
  """Medians of an update's two halves."""
  key = jax.random.PRNGKey(0)
  state = agent.initial_state(0, parts)
  tasks = priors.sample(key, parts.prior, parts.num_tasks)
  act = agent.programs(parts)['act']
  # Not that of `agent.programs`, which takes the state away.
  learn = jax.jit(functools.partial(agent.learn, parts=parts))
  data, _ = act(state.params, key, tasks)
  seconds = timing.interleaved(
    {
      'actor': lambda: act(state.params, key, tasks),
      'learner': lambda: learn(state, tasks, *data),
    },
    repeats,
  )
  return timing.medians(seconds)


def table(found: dict[str, Any]) -> str:
  """The exponents, and what the largest term of the work is."""
  lines = [
    f'{"":<24}{"":>10}{"actor":>16}{"learner":>18}',
    f'{"exponent of the time":<24}{"sizes":>10}'
    f'{"found":>8}{"expected":>10}{"found":>8}{"expected":>10}'
    '   most of the learner, at the ends',
  ]
  lines += _rows(found)
  return '\n'.join(lines)


def _rows(found) -> Iterator[str]:
  for axis, of in found.items():
    sizes, largest = of['sizes'], of['largest']['learner']
    ends = list(dict.fromkeys((largest[0], largest[-1])))
    yield (
      f'{axis:<24}{f"{sizes[0]} to {sizes[-1]}":>10}'
      + ''.join(
        f'{of["exponent"][who]:>8.2f}{of["expected"][who]:>10.2f}'
        for who in WHO
      )
      + f'   {", then ".join(ends)}'
    )
