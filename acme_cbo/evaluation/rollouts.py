"""Episodes of policies on SCMs, scanned on the device.

The same key gives all policies the same data and noise.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from acme_cbo import types
from acme_cbo.environments import environment
from acme_cbo.environments import normalization
from acme_cbo.policies import base
from acme_cbo.policies import episode as episode_lib
from acme_cbo.scms import objective as objective_lib
from acme_cbo.scms import simulate

# Tasks evaluated at once. The noise banks of more would not fit into the cache.
_CHUNK = 64
# Random interventions that are predicted after an episode.
_NUM_RANDOM = 16


class Outcome(NamedTuple):
  """Result of one episode.

  Attributes:
    score: [T] score of every intervention, see `score`: 0 for no intervention,
      1 for the best allowed one, negative if worse than no intervention.
    intervention: `Intervention` of [T, D] arrays, in the variables' own units.
    target: [T] observed target after each intervention, in its own units.
    parents: {belief: [T + 1, D] probability of being a parent of the target,
      before each step and after the last}, for each belief of the policy.
    finite: [2] bool, whether all observations and whether all outcomes are
      finite.
    after_last: results after the last step, [] each: `score_recommended`,
      the score of what the policy recommends; and, if it predicts, of E[Y | do]
      of that and of random interventions, the share that the intervals contain,
      and the mean CRPS, in deviations of the target in the observations:
      `coverage_recommended`, `coverage_random`, `crps_recommended`,
      `crps_random`.
  """

  score: jax.Array
  intervention: types.Intervention
  target: jax.Array
  parents: dict[str, jax.Array]
  finite: jax.Array
  after_last: dict[str, jax.Array]


def score(expected: jax.Array, objective: types.Objective) -> jax.Array:
  """Computes `(E[Y | do] - baseline) / (best - baseline)`.

  Args:
    expected: expected outcomes, signed by the goal.
    objective: objective of the task, signed by the goal.

  Returns:
    Scores of the shape of `expected`.
  """
  gain = objective.best - objective.baseline
  return (expected - objective.baseline) / gain


def run_episode(
  key: jax.Array,
  policy: base.PolicyFunctions,
  task: types.Task,
  num_observations: int,
  num_interventions: int,
) -> Outcome:
  """Runs one episode of a policy.

  Args:
    key: random key, consumed. The data and the noise of each step depend on it
      alone, so that policies with the same key get the same data and noise.
    policy: policy that chooses the interventions.
    task: the SCM and its objective.
    num_observations: number N of observations.
    num_interventions: number T of interventions.

  Returns:
    The `Outcome`.
  """
  scm, objective = task
  key_reset, key_noise, key_policy = jax.random.split(key, 3)
  # The episode is the same, whatever is asked after it.
  key_asked = jax.random.fold_in(key, 3)
  observations = environment.reset(key_reset, scm, num_observations)

  steps = episode_lib.on_device(
    lambda key, memory: (policy.choose(key, memory), ()),
    policy.observe,
    policy.belief_states,
    policy.init(scm.problem, observations, num_interventions),
    task,
    jax.random.split(key_policy, num_interventions),
    jax.random.split(key_noise, num_interventions),
  )
  return Outcome(
    score=score(steps.expected, objective),
    intervention=steps.intervention,
    target=jnp.where(scm.problem.target, steps.outcomes, 0.0).sum(-1),
    parents=policy.parents(steps.tracked),
    finite=jnp.stack(
      [jnp.isfinite(x).all() for x in (observations, steps.outcomes)]
    ),
    after_last=_after_last(key_asked, policy, steps.end, task, observations),
  )


def _after_last(key, policy, memory, task, observations):
  """Returns `Outcome.after_last`."""
  scm, objective = task
  recommended = policy.recommend(memory)
  expected = simulate.expected_outcome(scm, objective.bank, recommended)
  results = {'score_recommended': score(expected, objective)}
  if policy.predict is None:
    return results
  deviation = normalization.fit(scm.problem, observations).scale
  deviation = jnp.where(scm.problem.target, deviation, 0.0).sum()
  random, random_expected = objective_lib.random_interventions(
    key, scm.problem, objective, _NUM_RANDOM
  )
  for name, asked, outcomes in (
    (
      'recommended',
      jax.tree.map(lambda leaf: leaf[None], recommended),
      expected[None],
    ),
    ('random', random, random_expected),
  ):
    predicted = policy.predict(memory, asked)
    own = simulate.in_target_units(scm, outcomes)
    results[f'coverage_{name}'] = predicted.contains(own).mean()
    results[f'crps_{name}'] = (predicted.crps(own) / deviation).mean()
  return results


def evaluate(
  key: jax.Array,
  factory: base.Factory,
  tasks: types.Task,
  num_observations: int,
  num_interventions: int,
) -> Outcome:
  """Runs one episode of a policy on each of M tasks.

  Args:
    key: random key, consumed; use the same one for policies to be compared.
    factory: task -> its policy.
    tasks: the tasks, with a leading axis M.
    num_observations: number N of observations.
    num_interventions: number T of interventions.

  Returns:
    `Outcome` with a leading axis M.
  """
  num_tasks = tasks.scm.order.shape[0]

  def evaluate_task(inputs):
    key, task = inputs
    return run_episode(
      key, factory(task), task, num_observations, num_interventions
    )

  keys = jax.random.split(key, num_tasks)
  return jax.lax.map(
    evaluate_task, (keys, tasks), batch_size=min(_CHUNK, num_tasks)
  )
