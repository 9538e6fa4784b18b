"""Rollouts: the prefix once per SCM, then T cached steps in each rollout."""

from collections.abc import Sequence
import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from acme_cbo import types
from acme_cbo.agents.grpo import config
from acme_cbo.agents.grpo import rewards
from acme_cbo.beliefs import belief as beliefs
from acme_cbo.environments import environment
from acme_cbo.networks import action_distribution
from acme_cbo.networks import base
from acme_cbo.networks import tokens
from acme_cbo.scms import intervention_sets
from acme_cbo.scms import interventions


class Player(NamedTuple):
  """What a policy knows of an episode under way.

  Attributes:
    encoding: after the latest row.
    cache: of the rows since the observations.
    believed: state of the belief.
    spent: [] of the budget.
    last: the intervention made last.
  """

  encoding: base.Encoding
  cache: base.Cache
  believed: Any
  spent: jax.Array
  last: types.Intervention


class Chosen(NamedTuple):
  """One choice, as a `types.Trajectory` holds it.

  Attributes:
    decision: `Decision` of [Z] arrays.
    intervention: what it comes to, and is done.
    paid: [M] bool, the sets that could be paid for.
    log_prob: [] of the variables, and [] of the cells.
  """

  decision: types.Decision
  intervention: types.Intervention
  paid: jax.Array
  log_prob: list[jax.Array]


@dataclasses.dataclass(frozen=True)
class Policy:
  """How the network plays an episode, step by step, whoever answers.

  Attributes:
    network: its functions.
    params: its parameters.
    problem: what may be seen of the system.
    prefix: the encoded observations, shared by a group.
    num_interventions: T.
    num_turns: Z.
    belief: that is followed.
  """

  network: base.Network
  params: Any
  problem: types.Problem
  prefix: base.Prefix
  num_interventions: int
  num_turns: int
  belief: beliefs.Belief

  def begin(self, observations: jax.Array) -> Player:
    """Before the first choice, after [N, D] observations."""
    num_variables = self.problem.low.shape[-1]
    empty = self.network.empty_cache(self.num_interventions + 1, num_variables)
    encoding, cache = self._append(empty, 0, tokens.start_row(num_variables))
    return Player(
      encoding,
      cache,
      self.belief.init(self.problem, observations, encoding.parent_logits),
      jnp.zeros(()),
      interventions.no_intervention(num_variables),
    )

  def choose(self, keys: Sequence[jax.Array], player: Player):
    """A choice, drawn from a key for each turn: `Chosen` and the `Player`."""
    sets = intervention_sets.affordable(self.problem, player.spent)
    decision, *log_prob = action_distribution.decide(
      keys,
      lambda partial: (
        self.network.action_head(
          self.params, self.problem, self.prefix, player.encoding, partial
        ).logits
      ),
      sets,
      action_distribution.sample,
    )
    intervention, spent = environment.apply_budget(
      self.problem,
      player.spent,
      interventions.from_decision(self.problem, decision),
      player.last,
    )
    chosen = Chosen(decision, intervention, sets.any(-1), log_prob)
    return chosen, player._replace(spent=spent, last=intervention)

  def watch(self, player: Player, step: jax.Array, outcome: jax.Array):
    """The `Player` after [D] the outcome of what it chose at a step."""
    mask = player.last.mask
    left = tokens.budget_left(
      self.problem, player.spent, 1 - (step + 1) / self.num_interventions
    )
    row = tokens.outcome_row(mask, outcome, left)
    encoding, cache = self._append(player.cache, step + 1, row)
    believed = self.belief.update(
      player.believed, mask, outcome, encoding.parent_logits
    )
    return player._replace(encoding=encoding, cache=cache, believed=believed)

  def _append(self, cache, position, row):
    return self.network.append(
      self.params, self.problem, self.prefix, cache, position, row
    )


def rollout(
  key: jax.Array,
  params,
  network: base.Network,
  task: types.Task,
  prefix: base.Prefix,
  observations: jax.Array,
  num_interventions: int,
  kinds: config.RewardKinds,
) -> types.Trajectory:
  """One sampled episode.

  Args:
    key: consumed.
    params: parameters of the network.
    network: its functions.
    task: the SCM and its objective.
    prefix: the encoded observations, shared by the group.
    observations: [N, D] themselves.
    num_interventions: T.
    kinds: of the rewards.

  Returns:
    The `Trajectory`.
  """
  num_turns = task.objective.partial_outcome.size
  policy = Policy(
    network,
    params,
    task.scm.problem,
    prefix,
    num_interventions,
    num_turns,
    beliefs.FACTORIES[kinds.belief](),
  )

  def act(player, inputs):
    step, key = inputs
    *key_turns, key_outcome = jax.random.split(key, num_turns + 1)
    chosen, after = policy.choose(key_turns, player)
    outcome, expected = environment.sample_outcome(
      key_outcome, task.scm, task.objective.bank, chosen.intervention
    )
    return policy.watch(after, step, outcome), (
      chosen,
      outcome,
      expected,
      player.believed,
    )

  steps = jnp.arange(num_interventions)
  keys = jax.random.split(key, num_interventions)
  end, history = jax.lax.scan(act, policy.begin(observations), (steps, keys))
  chosen, outcomes, expected, before = history
  believed = beliefs.append_state(before, end.believed)
  return trajectory(task, kinds, chosen, outcomes, expected, believed)


def trajectory(
  task: types.Task,
  kinds: config.RewardKinds,
  chosen: Chosen,
  outcomes: jax.Array,
  expected: jax.Array,
  believed: Any,
) -> types.Trajectory:
  """An episode as the learner needs it.

  Args:
    task: the SCM and its objective.
    kinds: of the rewards.
    chosen: of T steps.
    outcomes: [T, D] what was watched.
    expected: [T] E[Y | do] of each, see `simulate.expected_outcome`.
    believed: T + 1 states of the belief, before each step and after the last.

  Returns:
    The `Trajectory`.
  """
  return types.Trajectory(
    decision=chosen.decision,
    intervened=chosen.intervention.mask,
    values=chosen.intervention.values,
    outcomes=outcomes,
    affordable=chosen.paid,
    log_prob_variable=chosen.log_prob[0],
    log_prob_cell=chosen.log_prob[1],
    components=rewards.components(
      task,
      kinds,
      beliefs.FACTORIES[kinds.belief](),
      believed,
      chosen.intervention,
      outcomes,
      expected,
    ),
    expected_reward=rewards.optimization(expected, task.objective),
  )


# What an episode is made of, causes first.
CHECKED_NAMES = (
  'observation',
  'outcome',
  'logit',
  *(f'reward/{name}' for name in rewards.COMPONENTS),
)


def non_finite_mask(
  observations: jax.Array, trajectories: types.Trajectory
) -> jax.Array:
  """On which tasks something is not finite.

  Args:
    observations: [B, N, D].
    trajectories: with leading axes [B, G].

  Returns:
    [len(FAULTS), B] bool.
  """
  parts = (
    observations,
    trajectories.outcomes,
    # NaN where any logit of the decision is.
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
  horizon: environment.Horizon,
  num_generations: int,
  kinds: config.RewardKinds,
) -> tuple[jax.Array, types.Trajectory]:
  """A group of rollouts on every task.

  Args:
    keys: [B] of each task, consumed.
    params: parameters of the network.
    network: its functions.
    tasks: B tasks.
    horizon: N and T.
    num_generations: G.
    kinds: of the rewards.

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
        kinds,
      )
    )(keys)
    return observations, trajectories

  return jax.vmap(group)(keys, tasks)
