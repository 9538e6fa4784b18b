"""Rollouts of a policy: G episodes per SCM, which share its observations."""

from typing import Any

import jax
import jax.numpy as jnp

from acme_cbo import types
from acme_cbo.agents.grpo import config
from acme_cbo.agents.grpo import rewards
from acme_cbo.beliefs import belief as beliefs
from acme_cbo.environments import config as environments_config
from acme_cbo.environments import environment
from acme_cbo.networks import action_distribution
from acme_cbo.networks import base
from acme_cbo.policies import episode
from acme_cbo.policies import network_policy
from acme_cbo.scms import simulate


def rollout(
  key: jax.Array,
  params: Any,
  network: base.Network,
  task: types.Task,
  prefix: base.Prefix,
  observations: jax.Array,
  num_interventions: int,
  reward_config: config.RewardConfig,
) -> types.Trajectory:
  """Samples one episode.

  Args:
    key: consumed.
    params: parameters of the network.
    network: functions of the network.
    task: the SCM and its objective.
    prefix: encoded observations, shared by the group.
    observations: [N, D] rows that `prefix` encodes.
    num_interventions: T.
    reward_config: config of the rewards.

  Returns:
    The `Trajectory`.
  """
  max_set_size = task.objective.partial_outcome.size
  policy = network_policy.NetworkPolicy(
    network,
    params,
    task.scm.problem,
    prefix,
    num_interventions,
    max_set_size,
    {reward_config.belief: beliefs.FACTORIES[reward_config.belief]()},
  )

  recommends = reward_config.best == 'recommended'

  def choose(keys, memory):
    choice = policy.choose(keys, memory[0], action_distribution.sample)
    return choice.intervention, choice

  def observe(memory, *step):
    state, history = memory
    after = policy.observe(state, *step)
    return after, policy.extend(history, *step) if recommends else history

  def track(memory):
    """Returns the belief, and E[Y | do] of what would be recommended."""
    state, history = memory
    expected = jnp.zeros(())
    if recommends:
      expected = simulate.expected_outcome(
        task.scm, task.objective.bank, policy.best_made(state, history)
      )
    return state.belief_states[reward_config.belief], expected

  keys = jax.random.split(key, num_interventions + 1)
  question_key = keys[-1]
  keys = jax.vmap(lambda key: jax.random.split(key, max_set_size + 1))(
    keys[:-1]
  )
  steps = episode.on_device(
    choose,
    observe,
    track,
    (policy.begin(observations), policy.empty_history()),
    task,
    keys[:, :-1],
    keys[:, -1],
  )
  belief_states, recommended = steps.tracked
  return trajectory(
    task,
    reward_config,
    steps._replace(tracked=belief_states),
    recommended[1:] if recommends else None,
    question_key,
  )


def trajectory(
  task: types.Task,
  reward_config: config.RewardConfig,
  steps: episode.Steps,
  recommended: jax.Array | None,
  question_key: jax.Array,
) -> types.Trajectory:
  """Returns an episode as the learner needs it, with its rewards.

  Args:
    task: the SCM and its objective.
    reward_config: config of the rewards.
    steps: T steps, whose choices are `network_policy.Choice`, and which track
      states of the belief.
    recommended: [T] E[Y | do] of what would be recommended after each step;
      None where the best so far is the best that was made.
    question_key: random key that the learner uses.
  """
  components = rewards.components(
    task,
    reward_config,
    beliefs.FACTORIES[reward_config.belief](),
    steps.tracked,
    steps.intervention,
    steps.outcomes,
    steps.expected,
  )
  if recommended is None:
    reached = jax.lax.cummax(components[:, rewards.OPTIMIZATION])
  else:
    reached = rewards.optimization(recommended, task.objective)
  return types.Trajectory(
    decision=steps.choice.decision,
    intervened=steps.intervention.mask,
    values=steps.intervention.values,
    outcomes=steps.outcomes,
    affordable=steps.choice.affordable,
    log_prob_variable=steps.choice.log_prob_variable,
    log_prob_cell=steps.choice.log_prob_cell,
    components=components,
    expected_reward=rewards.optimization(steps.expected, task.objective),
    reached=reached,
    question_key=question_key,
  )


# Names of the rows of `non_finite_mask`, causes before their effects.
CHECKED_NAMES = (
  'observation',
  'outcome',
  'logit',
  *(f'reward/{name}' for name in rewards.COMPONENTS),
)


def non_finite_mask(
  observations: jax.Array, trajectories: types.Trajectory
) -> jax.Array:
  """Finds the tasks whose episodes contain values that are not finite.

  Args:
    observations: [B, N, D] observations of each task.
    trajectories: trajectories with leading axes [B, G].

  Returns:
    [len(CHECKED_NAMES), B] bool.
  """
  parts = (
    observations,
    trajectories.outcomes,
    # NaN if any logit of the decision is NaN.
    trajectories.log_prob_variable + trajectories.log_prob_cell,
    *jnp.moveaxis(trajectories.components, -1, 0),
  )
  return jnp.stack(
    [~jnp.isfinite(part).all(tuple(range(1, part.ndim))) for part in parts]
  )


def act(
  keys: jax.Array,
  params,
  network: base.Network,
  tasks: types.Task,
  horizon: environments_config.HorizonConfig,
  num_generations: int,
  reward_config: config.RewardConfig,
) -> tuple[jax.Array, types.Trajectory]:
  """Samples a group of rollouts on every task.

  Args:
    keys: [B] random keys, consumed.
    params: parameters of the network.
    network: functions of the network.
    tasks: B tasks.
    horizon: numbers of observations and interventions, N and T.
    num_generations: G, number of rollouts per task.
    reward_config: config of the rewards.

  Returns:
    [B, N, D] observations and trajectories with leading axes [B, G].
  """

  def group(key, task):
    key_reset, key_rollout = jax.random.split(key)
    observations = environment.reset(
      key_reset, task.scm, horizon.num_observations
    )
    prefix = network.prefix(params, task.scm.problem, observations)
    keys = jax.random.split(key_rollout, num_generations)
    trajectories = jax.vmap(
      lambda k: rollout(
        k,
        params,
        network,
        task,
        prefix,
        observations,
        horizon.num_interventions,
        reward_config,
      )
    )(keys)
    return observations, trajectories

  return jax.vmap(group)(keys, tasks)
