"""Benchmark of the time per decision, of the policy and of other methods.

The episode has five variables, 100 observations and ten interventions so far.
A decision comprises observing the last outcome and choosing the next
intervention.
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
  edges='unknown',
  seed=0,
)
_NUM_MADE = 10
_CALLS_PER_TURN = 5
_BATCH_SIZE = 1000


def measure(
  network: base.Network,
  params: Any,
  repeats: int,
  botorch: Sequence[str] = (),
) -> dict[str, Any]:
  """Times decisions of a policy, with and without cache, and of baselines.

  `jax_environment.set_defaults(small_programs=True)` must have been called in
  this process before, as it is wherever policies are evaluated.

  Args:
    network: network of the policy.
    params: parameters of the policy.
    repeats: number of turns of each method.
    botorch: command that runs tests/peers/botorch_step.py; empty to leave
      BoTorch out.

  Returns:
    `decision_ms`, {method: {'median', 'min', 'max'}}, and `ratios`, which are
    None for methods that were not measured.

  Raises:
    errors.UsageError: the command `botorch` fails.
  """
  with jax.enable_x64(True), contextlib.ExitStack() as stack:
    system = families.FAMILIES[_SYSTEM](0)
    scm = episodes.with_protocol(system.scm, _PROTOCOL)
    key = episodes.episode_key(_PROTOCOL.seed, _SYSTEM, 0)

    def trained(network, params=params):
      return trained_lib.deployed(network, params, max_set_size=1)

    def on_host(network):
      make = functools.partial(trained, network)
      return host_policy.compiled(make, params)(params)

    methods = {
      'grpo': on_host(network),
      'grpo_from_scratch': on_host(recompute.without_cache(network)),
      'cbo': cbo.cbo(scm),
      'gp_bo': gp_bo.gp_bo(),
    }
    reset = jax.jit(environment.reset, static_argnums=2)
    observations = np.asarray(reset(key, scm, _PROTOCOL.num_observations))
    # Recorded with `cbo`, so that all interventions are on sets that it models.
    records, _ = episodes.run_episode(key, methods['cbo'], scm, _PROTOCOL)
    functions = {
      name: _decision(
        policy, scm.problem, observations, records, donated='grpo' in name
      )
      for name, policy in methods.items()
    }
    if botorch:
      rows = np.concatenate(
        [observations, [record.outcome for record in records[:_NUM_MADE]]]
      )
      functions['botorch'] = stack.enter_context(
        _peer(botorch, scm.problem, rows)
      )
    seconds = timing.time_interleaved(functions, repeats, _CALLS_PER_TURN)
  with jax.enable_x64(False):
    decide_batch = _batch_decision(
      trained(network), scm.problem, observations, records
    )
    batch_seconds = timing.time_interleaved({'batch': decide_batch}, repeats)
  median = timing.medians(seconds)

  def ratio(other, own='grpo'):
    return median[other] / median[own] if other in median else None

  return {
    'decision_ms': {
      name: {statistic: 1e3 * value for statistic, value in times.items()}
      for name, times in timing.spread(seconds).items()
    }
    | {
      f'grpo_of_{_BATCH_SIZE}_at_once': {
        statistic: 1e3 * value / _BATCH_SIZE
        for statistic, value in timing.spread(batch_seconds)['batch'].items()
      }
    },
    'ratios': {
      'decision_over_botorch': ratio('botorch'),
      'decision_over_cbo': ratio('cbo'),
      'decision_over_gp_bo': ratio('gp_bo'),
      'from_scratch_over_botorch': ratio('botorch', 'grpo_from_scratch'),
      'from_scratch_over_cbo': ratio('cbo', 'grpo_from_scratch'),
    },
  }


def _decision(
  policy, problem, observations, records, donated
) -> Callable[[], Any]:
  """Returns a function that observes the tenth outcome and decides.

  If `observe` donates its state, every call observes the tenth outcome again,
  on top of the state of the call before.
  """
  state = policy.init(problem, observations, _PROTOCOL.num_interventions)
  for step, record in enumerate(records[: _NUM_MADE - 1]):
    state = policy.observe(state, step, record.intervention, record.outcome)
  last = records[_NUM_MADE - 1]
  key = jax.random.PRNGKey(0)

  def decide():
    nonlocal state
    next_state = policy.observe(
      state, _NUM_MADE - 1, last.intervention, last.outcome
    )
    if donated:
      state = next_state
    return policy.choose(key, next_state)

  return decide


def _batch_decision(
  policy, problem, observations, records
) -> Callable[[], Any]:
  """Returns a function that decides in many episodes in one program."""
  problem = jax.tree.map(
    lambda x: jnp.asarray(x, None if x.dtype == bool else jnp.float32), problem
  )
  state = policy.init(
    problem,
    jnp.asarray(observations, jnp.float32),
    _PROTOCOL.num_interventions,
  )
  last = jax.tree.map(
    lambda x: jnp.asarray(x, None if x.dtype == bool else jnp.float32),
    (records[_NUM_MADE - 1].intervention, records[_NUM_MADE - 1].outcome),
  )
  states = jax.tree.map(
    lambda x: jnp.repeat(jnp.asarray(x)[None], _BATCH_SIZE, 0), state
  )
  keys = jax.random.split(jax.random.PRNGKey(0), _BATCH_SIZE)

  @jax.jit
  @jax.vmap
  def decide(key, state):
    state = policy.observe(state, _NUM_MADE - 1, *last)
    return policy.choose(key, state), state

  return lambda: decide(keys, states)


@contextlib.contextmanager
def _peer(
  command: Sequence[str], problem: Any, rows: np.ndarray
) -> Iterator[Callable[[], Any]]:
  """Starts BoTorch in a child process; yields a function that makes a step."""
  target = int(np.argmax(problem.target))
  others = np.flatnonzero(problem.settable)
  data = {
    'inputs': rows[:, others].tolist(),
    'outcomes': (float(problem.goal) * rows[:, target]).tolist(),
    'low': np.asarray(problem.low)[others].tolist(),
    'high': np.asarray(problem.high)[others].tolist(),
  }
  with contextlib.ExitStack() as stack:
    stderr = stack.enter_context(tempfile.TemporaryFile('w+'))
    try:
      child = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
      )
    except OSError as error:
      raise errors.UsageError(
        f'--botorch={command[0]} cannot be started: {error.strerror}'
      ) from error
    process = stack.enter_context(child)
    assert process.stdin
    assert process.stdout
    requests, responses = process.stdin, process.stdout

    @stack.callback
    def close():
      with contextlib.suppress(BrokenPipeError):
        requests.close()

    def request(line):
      # A process that has ended may have responded before.
      with contextlib.suppress(BrokenPipeError):
        requests.write(line + '\n')
        requests.flush()
      response = responses.readline()
      if not response:
        process.wait()
        stderr.seek(0)
        last = stderr.read().strip().splitlines()[-1:]
        raise errors.UsageError(
          f'--botorch: {command[0]} exited: {"".join(last)}'
        )
      try:
        return json.loads(response)
      except json.JSONDecodeError as error:
        raise errors.UsageError(
          f'--botorch: {command[0]} is not a Python with BoTorch; its output '
          f'was {response.strip()[:60]!r}'
        ) from error

    line = json.dumps(data)
    request(line)  # The first step includes the imports.
    yield lambda: request(line)
