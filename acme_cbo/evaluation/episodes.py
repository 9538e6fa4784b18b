"""One episode of one method on one SCM, step by step on the host, in float64.

What is seen depends on the seed, the name of the SCM, the repeat and the step
alone, so that methods that do the same see the same: the observations are
equal, and so is the noise of each step.
"""

from collections.abc import Callable
import dataclasses
import hashlib
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from acme_cbo import types
from acme_cbo.beliefs import belief as beliefs
from acme_cbo.environments import environment
from acme_cbo.infra import errors
from acme_cbo.policies import base
from acme_cbo.policies import episode
from acme_cbo.scms import intervention_sets
from acme_cbo.scms import optimum as optimum_lib
from acme_cbo.scms import simulate
from acme_cbo.scms import systems

# What is told of every step; expected outcomes are E[Y | do], the best so far
# and that of what the method would recommend then.
COLUMNS = (
  'variables',
  'values',
  'outcome',
  'expected_outcome',
  'best_expected',
  'recommended_expected',
  'score',
  'seconds',
)


@dataclasses.dataclass(frozen=True)
class Protocol:
  """How every episode is played.

  Attributes:
    num_observations: N, at least 2.
    num_interventions: T, the most that may be made.
    num_samples: draws of which each outcome that is watched is the mean.
    budget: what all interventions of an episode may cost together; None is the
      SCM's own.
    seed: of data and noise.
  """

  num_observations: int
  num_interventions: int
  num_samples: int
  budget: float | None
  seed: int


class StepRecord(NamedTuple):
  """One step of an episode.

  Attributes:
    intervention: what was set.
    outcome: [D] what was watched.
    recommended: what the method then holds to be the best intervention.
    seconds: to choose, and to take in what came out.
  """

  intervention: types.Intervention
  outcome: np.ndarray
  recommended: types.Intervention
  seconds: float


class Episode(NamedTuple):
  """What an episode came to, as JSON can hold it; all in the target's units.

  Attributes:
    method: who chose.
    scm: its name.
    repeat: its number, from 0.
    goal: 1 where more is better, -1 where less is.
    no_intervention: E[Y] where nothing is done.
    optimum: E[Y | do] of the best intervention.
    steps: a list for each of `COLUMNS`, with an entry for each intervention.
    causes: whether each variable that could be is a parent of the target.
    believed: {name of a belief: the probability of it, after the last step}.
  """

  method: str
  scm: str
  repeat: int
  goal: float
  no_intervention: float
  optimum: float
  steps: dict[str, list[Any]]
  causes: list[bool]
  believed: dict[str, list[float]]


def key_of(seed: int, scm: str, repeat: int) -> jax.Array:
  """The key from which data and noise of an episode are drawn."""
  key = jax.random.PRNGKey(seed)
  digest = hashlib.sha256(scm.encode()).digest()
  for number in (*np.frombuffer(digest[:8], '<u4'), np.uint32(repeat)):
    key = jax.random.fold_in(key, number)
  return key


def told(scm: types.SCM, protocol: Protocol) -> types.SCM:
  """The SCM with what the protocol says of its problem."""
  problem = scm.problem._replace(
    samples=jnp.asarray(protocol.num_samples, float)
  )
  if protocol.budget is not None:
    problem = problem._replace(budget=jnp.asarray(protocol.budget, float))
  return jax.tree.map(np.asarray, scm._replace(problem=problem))


def _watch(key, scm, intervention, num_samples):
  rows = simulate.sample(key, scm, intervention, num_samples)
  # The mean of equal numbers is that number but for rounding.
  return jnp.where(intervention.mask, intervention.values, rows.mean(0))


_observe = jax.jit(environment.reset, static_argnums=2)
_watch_mean = jax.jit(_watch, static_argnums=3)


def play(
  key: jax.Array, policy: base.Policy, scm: types.SCM, protocol: Protocol
) -> tuple[list[StepRecord], Any]:
  """Plays an episode.

  It ends early before an intervention that the rest of the budget does not pay
  for, or where a policy with a budget sets nothing any more.

  Args:
    key: from `key_of`.
    policy: who chooses.
    scm: from `told`, of float64, which is in force.
    protocol: of the episode.

  Returns:
    The moves, and the memory of the policy after the last of them.

  Raises:
    ValueError: the policy chose or recommended what the problem does not allow.
    errors.UsageError: something that was seen is not finite.
  """
  problem = scm.problem
  key_data, key_noise, key_policy = jax.random.split(key, 3)
  observations = _observe(key_data, scm, protocol.num_observations)
  _check_finite('an observation', observations)
  memory = policy.init(problem, observations, protocol.num_interventions)
  jax.block_until_ready(memory)
  spent, seconds = 0.0, 0.0

  def choose(step, memory):
    nonlocal spent, seconds
    if not intervention_sets.affordable(problem, jnp.asarray(spent)).any():
      return None
    key_choice = jax.random.fold_in(key_policy, step)
    start = time.perf_counter()
    intervention = jax.block_until_ready(policy.choose(key_choice, memory))
    seconds = time.perf_counter() - start
    mask = np.asarray(intervention.mask)
    # A method that may set fewer sets than the problem allows.
    if np.isfinite(problem.budget) and not mask.any():
      return None
    environment.check_intervention(problem, intervention)
    spent += float(problem.cost[mask].sum())
    if not intervention_sets.is_within_budget(problem.budget, spent):
      return None
    return intervention

  def respond(step, intervention):
    key = jax.random.fold_in(key_noise, step)
    outcome = _watch_mean(key, scm, intervention, protocol.num_samples)
    _check_finite(f'the outcome of step {step + 1}', outcome)
    return outcome

  def observe(memory, step, intervention, outcome):
    nonlocal seconds
    start = time.perf_counter()
    memory = policy.observe(memory, step, intervention, outcome)
    jax.block_until_ready(memory)
    seconds += time.perf_counter() - start
    return memory

  moves = []
  steps = episode.on_host(
    choose, respond, observe, memory, protocol.num_interventions
  )
  for intervention, outcome, memory in steps:
    recommended = policy.recommend(memory)
    environment.check_intervention(problem, recommended)
    moves.append(
      StepRecord(intervention, np.asarray(outcome), recommended, seconds)
    )
  return moves, memory


def _expected(scm, bank, intervention):
  outcome = simulate.expected_outcome(scm, bank, intervention)
  return simulate.in_target_units(scm, outcome)


_expected_outcome = jax.jit(_expected)


class ExpectedOutcome:
  """Knows E[Y | do] of an SCM, in the target's own units."""

  def __init__(self, scm: types.SCM, best: optimum_lib.Optimum):
    """Takes the noise over which is averaged from the search.

    Args:
      scm: the model.
      best: what its interventions can reach.
    """
    self._scm = scm
    self._bank = best.bank
    self._known: dict[bytes, float] = {}

  def __call__(self, intervention: types.Intervention) -> float:
    """E[Y | do], computed once for each intervention."""
    mask, values = (np.asarray(x) for x in intervention)
    what = mask.tobytes() + values.tobytes()
    if what not in self._known:
      expected = _expected_outcome(self._scm, self._bank, intervention)
      _check_finite('E[Y | do] of an intervention', expected)
      self._known[what] = float(expected)
    return self._known[what]


def judged(
  method: str,
  repeat: int,
  name: str,
  system: systems.System,
  best: optimum_lib.Optimum,
  judge: Callable[[types.Intervention], float],
  moves: list[StepRecord],
  believed: dict[str, Any],
) -> Episode:
  """What an episode came to.

  Args:
    method: who chose.
    repeat: its number.
    name: of the SCM, in the results.
    system: that it was played on.
    best: what its interventions can reach.
    judge: intervention -> E[Y | do].
    moves: from `play`.
    believed: {belief: [D] probability of being a parent of the target}.

  Returns:
    The `Episode`.
  """
  problem = system.scm.problem
  goal = float(problem.goal)
  target = int(np.argmax(problem.target))
  baseline, top = float(best.baseline), float(best.best)
  candidates = np.asarray(beliefs.candidates(problem))
  expected = [judge(move.intervention) for move in moves]
  recommended = [judge(move.recommended) for move in moves]
  so_far = goal * np.maximum.accumulate(goal * np.asarray(expected))
  steps: dict[str, list[Any]] = {
    'variables': [
      ' '.join(system.variables[j] for j in np.flatnonzero(move[0].mask))
      for move in moves
    ],
    'values': [
      ' '.join(
        f'{float(x):.17g}'
        for x in np.asarray(move[0].values)[np.asarray(move[0].mask)]
      )
      for move in moves
    ],
    'outcome': [float(move.outcome[target]) for move in moves],
    'expected_outcome': expected,
    'best_expected': so_far.tolist(),
    'recommended_expected': recommended,
    'score': [(x - baseline) / (top - baseline) for x in recommended],
    'seconds': [move.seconds for move in moves],
  }
  return Episode(
    method=method,
    scm=name,
    repeat=repeat,
    goal=goal,
    no_intervention=baseline,
    optimum=top,
    steps=steps,
    causes=np.asarray(system.scm.parents)[target][candidates].tolist(),
    believed={
      belief: np.asarray(probability, float)[candidates].tolist()
      for belief, probability in believed.items()
    },
  )


def last_beliefs(policy: base.Policy, memory: Any) -> dict[str, np.ndarray]:
  """{belief: [D] probability that each variable is a parent of the target}."""
  states = jax.tree.map(
    lambda x: jnp.asarray(x)[None], policy.belief_states(memory)
  )
  return {
    belief: np.asarray(probability)[0]
    for belief, probability in policy.parents(states).items()
  }


def _check_finite(what: str, values: Any) -> None:
  finite = np.isfinite(values)
  if not finite.all():
    value = np.asarray(values)[~finite][0]
    raise errors.UsageError(
      f'{what} is {value:g}; a system needs equations whose values are finite, '
      'whatever its noise'
    )
