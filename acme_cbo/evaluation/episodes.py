"""Episodes of methods on SCMs, stepped on the host in float64.

The observations depend on the seed, the name of the SCM and the repeat alone,
and the noise of an outcome also on the step. All methods therefore get the same
observations, and the same outcomes for the same interventions.
"""

from collections.abc import Callable, Sequence
import dataclasses
import hashlib
import time
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from acme_cbo import types
from acme_cbo.beliefs import belief as beliefs
from acme_cbo.environments import environment
from acme_cbo.infra import errors
from acme_cbo.policies import base
from acme_cbo.policies import episode
from acme_cbo.policies import prediction
from acme_cbo.scms import graphs
from acme_cbo.scms import intervention_sets
from acme_cbo.scms import optimum as optimum_lib
from acme_cbo.scms import simulate
from acme_cbo.scms import systems

# Keys of `Episode.steps`. `expected_outcome` is E[Y | do] of the intervention,
# `best_expected` the best one so far. `recommended_variables`,
# `recommended_values` and `recommended_expected` are those of the intervention
# that the method recommends after the step.
COLUMNS = (
  'variables',
  'values',
  'outcome',
  'expected_outcome',
  'best_expected',
  'recommended_variables',
  'recommended_values',
  'recommended_expected',
  'score',
  'seconds',
)


@dataclasses.dataclass(frozen=True)
class Protocol:
  """Settings that all episodes of an evaluation share.

  Attributes:
    num_observations: number N of observations, at least 2.
    num_interventions: maximum number T of interventions.
    num_samples: number of draws that each observed outcome is the mean of.
    budget: maximum total cost of the interventions of an episode; None for the
      budget of the SCM.
    edges: 'known' gives policies all edges of the graph; 'unknown' those alone
      that a YAML file lists.
    seed: random seed of data and noise.
  """

  num_observations: int
  num_interventions: int
  num_samples: int
  budget: float | None
  edges: Literal['unknown', 'known']
  seed: int


class StepRecord(NamedTuple):
  """One step of an episode.

  Attributes:
    intervention: the intervention.
    outcome: [D] observed outcome.
    recommended: intervention that the method recommends after the step.
    seconds: time to choose the intervention and to process the outcome.
  """

  intervention: types.Intervention
  outcome: np.ndarray
  recommended: types.Intervention
  seconds: float


class Episode(NamedTuple):
  """Result of an episode, made of JSON types.

  Expected outcomes are in the target's own units.

  Attributes:
    method: name of the method.
    scm: name of the SCM.
    repeat: number of the repeat, from 0.
    goal: 1 to maximize the target, -1 to minimize it.
    no_intervention: E[Y] without an intervention.
    optimum: E[Y | do] of the best intervention.
    steps: {name of `COLUMNS`: list with an entry for each intervention}.
    causes: whether each candidate is a parent of the target.
    parent_probabilities: {belief: probability after the last step that each
      candidate is a parent of the target}.
    predicted: of E[Y | do] of the last recommendation, as the method predicts
      it: `mean`, the ends of the interval, `low` and `high`, and `crps`, in
      units of the gain of the optimum; empty if it predicts nothing.
  """

  method: str
  scm: str
  repeat: int
  goal: float
  no_intervention: float
  optimum: float
  steps: dict[str, list[Any]]
  causes: list[bool]
  parent_probabilities: dict[str, list[float]]
  predicted: dict[str, float]


def episode_key(seed: int, scm: str, repeat: int) -> jax.Array:
  """Returns the random key of an episode.

  Args:
    seed: random seed of the evaluation.
    scm: name of the SCM.
    repeat: number of the repeat.
  """
  key = jax.random.PRNGKey(seed)
  digest = hashlib.sha256(scm.encode()).digest()
  for number in (*np.frombuffer(digest[:8], '<u4'), np.uint32(repeat)):
    key = jax.random.fold_in(key, number)
  return key


def with_protocol(scm: types.SCM, protocol: Protocol) -> types.SCM:
  """Returns the SCM with what the protocol says of its problem."""
  problem = scm.problem._replace(
    samples=jnp.asarray(protocol.num_samples, float)
  )
  if protocol.budget is not None:
    problem = problem._replace(budget=jnp.asarray(protocol.budget, float))
  if protocol.edges == 'known':
    problem = problem._replace(
      edges=graphs.known_edges(scm.parents, problem.exists)
    )
  return jax.tree.map(np.asarray, scm._replace(problem=problem))


def _mean_outcome(key, scm, intervention, num_samples):
  rows = simulate.sample(key, scm, intervention, num_samples)
  # Keeps set values exact, which their mean may not be.
  return jnp.where(intervention.mask, intervention.values, rows.mean(0))


_sample_observations = jax.jit(environment.reset, static_argnums=2)
_sample_outcome = jax.jit(_mean_outcome, static_argnums=3)


def run_episode(
  key: jax.Array,
  policy: base.PolicyFunctions,
  scm: types.SCM,
  protocol: Protocol,
) -> tuple[list[StepRecord], Any]:
  """Runs an episode; 64-bit precision has to be enabled.

  The episode ends early before an intervention that exceeds the budget, or if
  there is a budget and the policy sets no variable.

  Args:
    key: result of `episode_key`.
    policy: policy that chooses the interventions.
    scm: result of `with_protocol`, in float64.
    protocol: settings of the episode.

  Returns:
    A record of each step, and the memory of the policy after the last one.

  Raises:
    ValueError: the policy chose or recommended an intervention that the problem
      does not allow.
    errors.UsageError: an observation or an outcome is not finite.
  """
  problem = scm.problem
  key_data, key_noise, key_policy = jax.random.split(key, 3)
  observations = _sample_observations(key_data, scm, protocol.num_observations)
  _check_finite('an observation', scm, observations)
  memory = policy.init(problem, observations, protocol.num_interventions)
  jax.block_until_ready(memory)
  spent, seconds = 0.0, 0.0

  def choose(step, memory):
    nonlocal spent, seconds
    if intervention_sets.is_exhausted(problem, jnp.asarray(spent)):
      return None
    key_choice = jax.random.fold_in(key_policy, step)
    start = time.perf_counter()
    intervention = jax.block_until_ready(policy.choose(key_choice, memory))
    seconds = time.perf_counter() - start
    mask = np.asarray(intervention.mask)
    # The method may support fewer sets of variables than the problem allows.
    if np.isfinite(problem.budget) and not mask.any():
      return None
    environment.check_intervention(problem, intervention)
    spent += float(problem.cost[mask].sum())
    if not intervention_sets.is_within_budget(problem.budget, spent):
      return None
    return intervention

  def respond(step, intervention):
    key = jax.random.fold_in(key_noise, step)
    outcome = _sample_outcome(key, scm, intervention, protocol.num_samples)
    _check_finite(f'the outcome of step {step + 1}', scm, outcome[None])
    return outcome

  def observe(memory, step, intervention, outcome):
    nonlocal seconds
    start = time.perf_counter()
    memory = policy.observe(memory, step, intervention, outcome)
    jax.block_until_ready(memory)
    seconds += time.perf_counter() - start
    return memory

  records = []
  steps = episode.on_host(
    choose, respond, observe, memory, protocol.num_interventions
  )
  for intervention, outcome, memory in steps:
    recommended = policy.recommend(memory)
    environment.check_intervention(problem, recommended)
    records.append(
      StepRecord(intervention, np.asarray(outcome), recommended, seconds)
    )
  return records, memory


def predict_recommended(
  policy: base.PolicyFunctions, memory: Any, records: Sequence[StepRecord]
) -> prediction.Prediction | None:
  """Returns what a policy predicts of its last recommendation.

  Args:
    policy: the policy.
    memory: its memory after the last step.
    records: the steps.

  Returns:
    The prediction, or None if the policy predicts nothing.
  """
  if policy.predict is None:
    return None
  return base.predict_one(policy, memory, records[-1].recommended)


_target_samples = jax.jit(simulate.target_samples)


class ExpectedOutcome:
  """E[Y | do] of an SCM as a function, in the target's own units."""

  def __init__(self, scm: types.SCM, best: optimum_lib.Optimum):
    """Uses the noise bank of the optimum.

    Args:
      scm: the SCM.
      best: its optimum.
    """
    self._scm = scm
    self._bank = best.bank
    self._cache: dict[bytes, float] = {}

  def __call__(self, intervention: types.Intervention) -> float:
    """Returns E[Y | do], cached by intervention."""
    mask, values = (np.asarray(x) for x in intervention)
    key = mask.tobytes() + values.tobytes()
    if key not in self._cache:
      samples = np.asarray(_target_samples(self._scm, self._bank, intervention))
      # Their differences keep their digits if the target is far from 0.
      with np.errstate(invalid='ignore'):
        outcome = samples[0] + (samples - samples[0]).mean()
      if not np.isfinite(outcome):
        raise errors.UsageError(
          f'E[Y | do] of an intervention is {outcome:g}; the equations of a '
          'system must have finite values for all noise'
        )
      self._cache[key] = float(simulate.in_target_units(self._scm, outcome))
    return self._cache[key]


def evaluate_episode(
  method: str,
  repeat: int,
  name: str,
  system: systems.System,
  best: optimum_lib.Optimum,
  expected_outcome: Callable[[types.Intervention], float],
  records: list[StepRecord],
  parent_probabilities: dict[str, Any],
  predicted: prediction.Prediction | None,
) -> Episode:
  """Computes the expected outcomes and scores of an episode.

  Args:
    method: name of the method.
    repeat: number of the repeat.
    name: name of the SCM in the results.
    system: system of the episode.
    best: optimum of the system.
    expected_outcome: intervention -> E[Y | do].
    records: result of `run_episode`.
    parent_probabilities: {belief: [D] probability that each variable is a
      parent of the target}, see `policies.base.parent_probabilities`.
    predicted: result of `predict_recommended`.

  Returns:
    The `Episode`.
  """
  problem = system.scm.problem
  goal = float(problem.goal)
  target = int(np.argmax(problem.target))
  baseline, top = float(best.baseline), float(best.best)
  candidates = np.asarray(beliefs.candidates(problem))
  interventions = [record.intervention for record in records]
  recommended = [record.recommended for record in records]
  expected = list(map(expected_outcome, interventions))
  recommended_expected = list(map(expected_outcome, recommended))
  best_so_far = goal * np.maximum.accumulate(goal * np.asarray(expected))
  steps: dict[str, list[Any]] = {
    'variables': [_names(system, made) for made in interventions],
    'values': [_values(made) for made in interventions],
    'outcome': [float(record.outcome[target]) for record in records],
    'expected_outcome': expected,
    'best_expected': best_so_far.tolist(),
    'recommended_variables': [_names(system, each) for each in recommended],
    'recommended_values': [_values(each) for each in recommended],
    'recommended_expected': recommended_expected,
    'score': [(x - baseline) / (top - baseline) for x in recommended_expected],
    'seconds': [record.seconds for record in records],
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
    parent_probabilities={
      belief: np.asarray(probability, float)[candidates].tolist()
      for belief, probability in parent_probabilities.items()
    },
    predicted={}
    if predicted is None
    else {
      'mean': float(predicted.mean),
      **dict(zip(('low', 'high'), map(float, predicted.interval), strict=True)),
      'crps': float(predicted.crps(np.float64(recommended_expected[-1])))
      / abs(top - baseline),
    },
  )


def _names(system: systems.System, intervention: types.Intervention) -> str:
  """Returns the names of the variables that are set, 'A B'."""
  members = np.flatnonzero(intervention.mask)
  return ' '.join(system.variables[j] for j in members)


def _values(intervention: types.Intervention) -> str:
  """Returns the values that are set, '0.5 2', in the order of `_names`.

  These are the shortest texts from which the values can be read bit for bit.
  """
  values = np.asarray(intervention.values)[np.asarray(intervention.mask)]
  return ' '.join(repr(float(value)).removesuffix('.0') for value in values)


def _check_finite(what: str, scm: types.SCM, rows: Any) -> None:
  """Raises unless rows are finite.

  Args:
    what: description of the rows.
    scm: the SCM that they are sampled from.
    rows: [N, D] rows in the variables' own units.

  Raises:
    errors.UsageError: a value is not finite. The message names the first such
      variable, causes first, and its equation.
  """
  rows = np.asarray(rows)
  for j in np.asarray(scm.order):
    values = rows[~np.isfinite(rows[:, j]), j]
    if values.size:
      raise errors.UsageError(
        f'{systems.describe_equation(scm, j)} is {values[0]:g} in {what}; the '
        'equations of a system must have finite values for all noise'
      )
