"""Milliseconds of one more decision in a running study, beside other methods.

The study is of five variables, with 100 records and ten interventions made. A
decision is to take in what came out last and to choose what to set next.
"""

from collections.abc import Callable, Iterator, Sequence
import contextlib
import functools
import json
import subprocess
import tempfile
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from acme_cbo.environments import environment
from acme_cbo.evaluation import episodes
from acme_cbo.experiments.performance import recompute
from acme_cbo.experiments.performance import timing
from acme_cbo.infra import errors
from acme_cbo.networks import action_distribution
from acme_cbo.networks import base
from acme_cbo.policies import host_policy
from acme_cbo.policies import trained as trained_lib
from acme_cbo.policies.baselines import cbo
from acme_cbo.policies.baselines import gp_bo
from acme_cbo.scms import families

_SYSTEM = 'sparse_5'
_PROTOCOL = episodes.Protocol(
  num_observations=100,
  num_interventions=20,
  num_samples=1,
  budget=None,
  seed=0,
)
_MADE = 10
_IN_A_ROW = 5
_AT_ONCE = 1000


def measure(
  network: base.Network,
  params: Any,
  repeats: int,
  botorch: Sequence[str] = (),
) -> dict[str, Any]:
  """Times decisions of a policy, of it without its cache, and of others.

  In the process that `cli.set_environment(small_programs=True)` is
  called in before anything is computed, as where decisions are made.

  Args:
    network: of the policy.
    params: its parameters.
    repeats: decisions of each, in turn.
    botorch: the command that runs tests/peers/botorch_step.py; none leaves it
      out.

  Returns:
    `decision_ms`, by method: median and range; `ratios`, which are None where
    nothing was measured.

  Raises:
    errors.UsageError: that command fails.
  """
  with jax.enable_x64(True), contextlib.ExitStack() as stack:
    system = families.FAMILIES[_SYSTEM](0)
    scm = episodes.told(system.scm, _PROTOCOL)
    key = episodes.key_of(_PROTOCOL.seed, _SYSTEM, 0)

    def trained(network, params=params):
      return trained_lib.trained(
        network, params, ('learned',), 1, action_distribution.sample
      )

    def on_its_own(network):
      make = functools.partial(trained, network)
      return host_policy.compiled(make, params)(params)

    methods = {
      'grpo': on_its_own(network),
      'grpo_from_scratch': on_its_own(recompute.recomputing(network)),
      'cbo': cbo.cbo(scm),
      'gp_bo': gp_bo.gp_bo(),
    }
    reset = jax.jit(environment.reset, static_argnums=2)
    observations = np.asarray(reset(key, scm, _PROTOCOL.num_observations))
    # As `cbo` made it: of the sets that its graph leaves it.
    moves, _ = episodes.play(key, methods['cbo'], scm, _PROTOCOL)
    runs = {
      name: _decision(
        policy, scm.problem, observations, moves, consumed='grpo' in name
      )
      for name, policy in methods.items()
    }
    if botorch:
      rows = np.concatenate(
        [observations, [move.outcome for move in moves[:_MADE]]]
      )
      runs['botorch'] = stack.enter_context(_peer(botorch, scm.problem, rows))
    seconds = timing.interleaved(runs, repeats, _IN_A_ROW)
  with jax.enable_x64(False):
    run = _many(trained(network), scm.problem, observations, moves)
    many = timing.interleaved({'at_once': run}, repeats)
  median = timing.medians(seconds)

  def over(other, own='grpo'):
    return median[other] / median[own] if other in median else None

  return {
    'decision_ms': {
      name: {what: 1e3 * value for what, value in one.items()}
      for name, one in timing.spread(seconds).items()
    }
    | {
      f'grpo_of_{_AT_ONCE}_at_once': {
        what: 1e3 * value / _AT_ONCE
        for what, value in timing.spread(many)['at_once'].items()
      }
    },
    'ratios': {
      'decision_over_botorch': over('botorch'),
      'decision_over_cbo': over('cbo'),
      'decision_over_gp_bo': over('gp_bo'),
      'from_scratch_over_botorch': over('botorch', 'grpo_from_scratch'),
      'from_scratch_over_cbo': over('cbo', 'grpo_from_scratch'),
    },
  }


def _decision(
  policy, problem, observations, moves, consumed
) -> Callable[[], Any]:
  """A run of the tenth `observe` and the choice after it.

  Where the memory is consumed, the tenth outcome comes again and again.
  """
  before = policy.init(problem, observations, _PROTOCOL.num_interventions)
  for step, move in enumerate(moves[: _MADE - 1]):
    before = policy.observe(before, step, move.intervention, move.outcome)
  last = moves[_MADE - 1]
  key = jax.random.PRNGKey(0)

  def run():
    nonlocal before
    after = policy.observe(before, _MADE - 1, last.intervention, last.outcome)
    if consumed:
      before = after
    return policy.choose(key, after)

  return run


def _many(policy, problem, observations, moves) -> Callable[[], Any]:
  """A run of the same for many studies in one program."""
  problem = jax.tree.map(
    lambda x: jnp.asarray(x, None if x.dtype == bool else jnp.float32), problem
  )
  memory = policy.init(
    problem,
    jnp.asarray(observations, jnp.float32),
    _PROTOCOL.num_interventions,
  )
  last = jax.tree.map(
    lambda x: jnp.asarray(x, None if x.dtype == bool else jnp.float32),
    (moves[_MADE - 1].intervention, moves[_MADE - 1].outcome),
  )
  memories = jax.tree.map(
    lambda x: jnp.repeat(jnp.asarray(x)[None], _AT_ONCE, 0), memory
  )
  keys = jax.random.split(jax.random.PRNGKey(0), _AT_ONCE)

  @jax.jit
  def decide(keys, memories):
    def one(key, memory):
      memory = policy.observe(memory, _MADE - 1, *last)
      return policy.choose(key, memory), memory

    return jax.vmap(one)(keys, memories)

  return lambda: decide(keys, memories)


@contextlib.contextmanager
def _peer(
  command: Sequence[str], problem: Any, rows: np.ndarray
) -> Iterator[Callable[[], Any]]:
  """A run of a step of BoTorch, in a process of its own."""
  target = int(np.argmax(problem.target))
  others = np.flatnonzero(problem.settable)
  data = {
    'inputs': rows[:, others].tolist(),
    'outcomes': (float(problem.goal) * rows[:, target]).tolist(),
    'low': np.asarray(problem.low)[others].tolist(),
    'high': np.asarray(problem.high)[others].tolist(),
  }
  with contextlib.ExitStack() as stack:
    complaints = stack.enter_context(tempfile.TemporaryFile('w+'))
    try:
      started = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=complaints,
        text=True,
      )
    except OSError as error:
      raise errors.UsageError(
        f'--botorch={command[0]} cannot be started: {error.strerror}'
      ) from error
    process = stack.enter_context(started)
    assert process.stdin
    assert process.stdout
    questions, answers = process.stdin, process.stdout

    @stack.callback
    def close():
      with contextlib.suppress(BrokenPipeError):
        questions.close()

    def ask(line):
      # What has ended may have answered before.
      with contextlib.suppress(BrokenPipeError):
        questions.write(line + '\n')
        questions.flush()
      answer = answers.readline()
      if not answer:
        process.wait()
        complaints.seek(0)
        last = complaints.read().strip().splitlines()[-1:]
        raise errors.UsageError(
          f'--botorch: {command[0]} ended: {"".join(last)}'
        )
      try:
        return json.loads(answer)
      except json.JSONDecodeError as error:
        raise errors.UsageError(
          f'--botorch: {command[0]} is no Python that has BoTorch: it said '
          f'{answer.strip()[:60]!r}'
        ) from error

    ask(json.dumps(data))
    yield lambda: ask('step')
