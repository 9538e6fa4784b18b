"""The whole validation of a configuration: each requirement, its figure.

no silent failures    what is forbidden or not finite raises and says where
real history          the policy answers to the rows that it was given
continuous reward     1 at the optimum each time, between 0 and 1 elsewhere
exploits              nine scripts beside honest play, each component and sum
other units           nothing depends on units, signs, or the numbering
zero out              each component alone moves behaviour its way, and none
                      has an effect at weight 0
learning              the given balance raises score and parents' F1 together
"""

from collections.abc import Iterator, Sequence
import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from acme_cbo import types
from acme_cbo.agents.grpo import agent
from acme_cbo.agents.grpo import config as grpo_config
from acme_cbo.agents.grpo import optimizer
from acme_cbo.agents.grpo import rewards
from acme_cbo.beliefs import belief as beliefs
from acme_cbo.beliefs import exact_posterior
from acme_cbo.environments import environment
from acme_cbo.evaluation import held_out
from acme_cbo.evaluation import statistics
from acme_cbo.experiments.validation import exploits
from acme_cbo.experiments.validation import invariance
from acme_cbo.experiments.validation import trainings
from acme_cbo.infra import errors
from acme_cbo.scms import config as scms_config
from acme_cbo.scms import graphs
from acme_cbo.scms import mechanisms
from acme_cbo.scms import priors

# Of every interval and test.
_CONFIDENCE = 0.99
# By how much of the range an exploit has to lie behind honest play, and by how
# much it may seem ahead, for the luck of the draws, where it is good work.
_MARGIN = 0.2
_LUCK = 0.05
# Tasks on which scripts and policies are scored.
_NUM_TASKS = 256
# Seed of the tasks; no training shares it.
_SEED = 0x7A11D

# Trainings of one component alone: as few variables and steps as show it.
_ALONE_UPDATES = 200
_ALONE_TASKS = 16
_ALONE_GENERATIONS = 8
_ALONE_VARIABLES = 4
_ALONE_HORIZON = environment.Horizon(num_observations=10, num_interventions=5)
_ALONE_LEARNING_RATE = 1.5e-2
# Trainings with the configuration as it was given, but for their length.
NUM_UPDATES = 120


class Check(NamedTuple):
  """One claim and its verdict.

  Attributes:
    requirement: what it belongs to.
    claim: what was asked.
    passed: whether it holds.
    figure: the number that says so.
  """

  requirement: str
  claim: str
  passed: bool
  figure: str

  def __str__(self) -> str:
    verdict = 'pass' if self.passed else 'FAIL'
    return f'{verdict}  {self.requirement:<18}  {self.claim}: {self.figure}'


def validate(parts: agent.Parts, num_seeds: int) -> Iterator[Check]:
  """Validates a configuration, check by check, the quick ones first.

  Args:
    parts: of an update, as the configuration has them, with an optimizer for
      `NUM_UPDATES`.
    num_seeds: independent trainings behind each claim about learning.

  Yields:
    The checks as they are made.

  Raises:
    errors.UsageError: there are more variables than the exact belief takes,
      fewer steps than it takes to see one depend on another, hardly an SCM
      with a parent of the target that may be set, or none with a variable that
      is not a parent.
  """
  if parts.horizon.num_interventions < 2:
    raise errors.UsageError(
      'config.horizon.num_interventions is '
      f'{parts.horizon.num_interventions}; the validation needs 2 or more, to '
      'see that a decision follows from what came of the one before'
    )
  if parts.prior.max_variables > exact_posterior.MAX_VARIABLES:
    raise errors.UsageError(
      f'config.scms.max_variables is {parts.prior.max_variables}; the '
      'validation compares with the exact belief, which takes at most '
      f'{exact_posterior.MAX_VARIABLES}'
    )
  tasks = tasks_of(parts)
  others = beliefs.candidates(tasks.scm.problem) & ~graphs.target_parents(
    tasks.scm
  )
  if not others.any():
    raise errors.UsageError(
      'every variable of every SCM is a parent of its target; the validation '
      'sees whether parents are told from other variables: give another graph '
      'than STAR a share in config.scms.graph_weights'
    )
  yield from no_silent_failures(parts, tasks)
  yield from real_history(parts, tasks)
  yield from scripted(parts, tasks)
  yield from telescoping(parts, tasks)
  yield from other_units(parts, tasks)
  yield from weight_zero(parts, tasks)
  yield from zero_out(parts, num_seeds)
  yield from learning(parts, num_seeds)


def total(checks: Sequence[Check]) -> str:
  """How many of the checks passed, in words."""
  return (
    f'{sum(check.passed for check in checks)} of {len(checks)} checks passed'
  )


def report(command: str, checks: Sequence[Check]) -> str:
  """What was found, as a page for people.

  Args:
    command: that which made the checks.
    checks: all of them.

  Returns:
    Markdown.
  """
  rows = [
    f'| {check.requirement} | {check.claim} | {check.figure} '
    f'| {"pass" if check.passed else "**FAIL**"} |'
    for check in checks
  ]
  return f"""# Validation

Made by

```sh
{command}
```

{total(checks)}.

Intervals and bounds are at {_CONFIDENCE:.0%}. An exploit has to lie behind
honest play by {_MARGIN} of the range, with an interval above 0, for each
component that it is after and for the weighted sum. Where a script is good work
for a component, as a zigzag of a cause is for learning of it, its interval has
to be above -{_LUCK}: it is no better than honest play.

The trainings of one component alone, {_ALONE_UPDATES} updates each, are on
linear SCMs of {_ALONE_VARIABLES} variables or fewer, with the exact belief and
without the predictions that are learnt beside the policy, so that a measure can
rise by behaviour alone; those of the last lines are with the configuration as
it is, for {NUM_UPDATES} updates. A policy is compared, seed by seed, with
itself before training, and with one for which all weights of the rewards were
0, so that only the predictions beside it were learnt.

| Requirement | Claim | Figure | |
|---|---|---|---|
{chr(10).join(rows)}
"""


def tasks_of(parts: agent.Parts) -> types.Task:
  """The tasks of a configuration that the quick checks are made on."""
  key = jax.random.fold_in(jax.random.PRNGKey(0), _SEED)
  return _tasks_with_parents(key, parts.prior)


def no_silent_failures(
  parts: agent.Parts, tasks: types.Task
) -> Iterator[Check]:
  """What is forbidden, and what is not finite, raises."""
  some = [_task(tasks, i) for i in range(16)]
  caught: dict[str, int] = {}
  for task in some:
    for name, intervention in exploits.refused(task).items():
      caught.setdefault(name, 0)
      try:
        environment.check_intervention(task.scm.problem, intervention)
      except ValueError:
        caught[name] += 1
  for name, count in caught.items():
    yield Check(
      'no silent failures',
      f'intervention refused: {name}',
      count == len(some),
      f'{count} of {len(some)}',
    )
  state = agent.initial_state(_SEED, parts)
  lost = state._replace(
    params=jax.tree.map(lambda leaf: leaf * jnp.nan, state.params)
  )
  try:
    agent.make_step(agent.programs(parts))(lost)
    said = 'nothing was raised'
  except errors.NonFiniteError as error:
    said = str(error)
  yield Check(
    'no silent failures',
    'parameters that are not finite are reported',
    'logit is not finite on SCM 0' in said,
    said,
  )


def real_history(parts: agent.Parts, tasks: types.Task) -> Iterator[Check]:
  """The policy's input is what happened."""
  listen = invariance.listener(parts)
  params = _loud(agent.initial_state(_SEED, parts).params)
  (episode,) = _episodes(parts, params, tasks, 1)
  said = listen(params, episode)
  rollouts = episode.trajectories
  steps = np.arange(rollouts.outcomes.shape[1])
  choice = np.asarray(said.choice)  # [G, T, Z, D, C]
  # What is left is the probability of adding none.
  none = 1 - choice.sum((-1, -2), keepdims=True)[..., 0]
  any_cell = np.broadcast_to(none[..., None], (*none.shape, choice.shape[-1]))
  which = np.indices(choice.shape[:3])
  chosen = np.concatenate([choice, any_cell], -2)[
    *which, rollouts.decision.variable, rollouts.decision.cell
  ].prod(-1)
  acted = np.exp(rollouts.log_prob_variable + rollouts.log_prob_cell)
  error = np.abs(chosen - acted).max()
  yield Check(
    'real history',
    'acting step by step and reading the record afterwards agree',
    bool(error < 1e-4),
    f'probabilities of decisions differ by {error:.1e}',
  )
  moved = rollouts._replace(
    outcomes=rollouts.outcomes
    + np.where(steps == 0, 1.0, 0.0)[:, None]
    * np.std(episode.observations, axis=0)
  )
  other = listen(params, episode._replace(trajectories=moved))
  change = np.abs(np.asarray(other.choice) - choice).max((0, 2, 3, 4))
  # Where the budget is spent in every rollout there is nothing to decide.
  able = choice.any((0, 2, 3, 4))
  later = change[1:][able[1:]]
  yield Check(
    'real history',
    'another first outcome changes later decisions and no earlier one',
    bool(change[0] == 0 and later.size and (later > 1e-4).all()),
    f'by {later.min(initial=np.inf):.1e} or more; '
    f'the first decision by {change[0]:.0e}',
  )


def scripted(parts: agent.Parts, tasks: types.Task) -> Iterator[Check]:
  """Optimum, worst, and every way to earn without doing the work."""
  key_tasks, key = jax.random.split(jax.random.PRNGKey(_SEED))
  # Linear SCMs are what the exact belief is the posterior of.
  linear = _tasks_with_parents(key_tasks, _linear(parts.prior))
  num_mixed = len(tasks.scm.family)
  both = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), tasks, linear)
  played = exploits.play(key, both, parts.horizon, parts.kinds)
  place = rewards.COMPONENTS.index('optimization')
  optimum = played['honest optimization'][..., place]
  yield Check(
    'continuous reward',
    'the optimum earns 1 at every step, however often it is set',
    bool(np.abs(optimum - 1).max() < 1e-3),
    f'{optimum.min():.4f} to {optimum.max():.4f}',
  )
  objective = tasks.objective
  curve = jax.vmap(
    jax.vmap(jax.vmap(rewards.optimization, (0, None)), (0, None))
  )(objective.curves[:, 0], objective)
  curve = np.asarray(curve)[np.asarray(tasks.scm.problem.settable)]
  yield Check(
    'continuous reward',
    'anything that may be set earns between 0 and 1',
    bool(curve.min() > -1e-4 and curve.max() < 1 + 1e-4),
    f'{curve.min():.4f} to {curve.max():.4f}',
  )
  earned = {
    name: exploits.returns(components, parts.weights)
    for name, components in played.items()
  }
  columns = (*rewards.COMPONENTS, 'sum')
  of_sum = max(
    exploits.HONEST,
    key=lambda name: earned[f'honest {name}'][:num_mixed, -1].mean(),
  )
  for name, (_, aims) in exploits.EXPLOITS.items():
    for column, component in enumerate(columns):
      honest = of_sum if component == 'sum' else component
      lead = earned[f'honest {honest}'][:, column] - earned[name][:, column]
      is_linear = component == 'structure'
      lead = lead[num_mixed:] if is_linear else lead[:num_mixed]
      low, high = statistics.bootstrap_interval(lead, _CONFIDENCE)
      if component in (*aims, 'sum'):
        claim = f'{name} against {component}'
        passed = lead.mean() >= _MARGIN and low > 0
      else:
        claim = f'{name} is no better than honest play for {component}'
        passed = low > -_LUCK
      yield Check(
        'exploits',
        claim,
        bool(passed),
        f'behind honest play by {lead.mean():.2f} [{low:.2f}, {high:.2f}]',
      )


def telescoping(parts: agent.Parts, tasks: types.Task) -> Iterator[Check]:
  """What `structure` pays in an episode is what was learnt, by any way."""
  parts = dataclasses.replace(
    parts, kinds=dataclasses.replace(parts.kinds, belief='exact')
  )
  episodes = _episodes(
    parts, agent.initial_state(_SEED, parts).params, tasks, 8
  )
  belief = beliefs.exact()

  @jax.jit
  def learnt(task, observations, rollout):
    states = beliefs.unroll(
      belief,
      task.scm.problem,
      observations,
      rollout.intervened,
      rollout.outcomes,
    )
    worth = jax.vmap(
      lambda state: rewards.potential(task, parts.kinds, belief, state)
    )(states)
    return worth[-1] - worth[0]

  place = rewards.COMPONENTS.index('structure')
  error = 0.0
  for episode in episodes:
    gained = jax.vmap(learnt, (None, None, 0))(*episode)
    paid = episode.trajectories.components[..., place].sum(1)
    error = np.maximum(error, np.abs(paid - gained).max())
  yield Check(
    'exploits',
    'going to and fro against structure',
    bool(error < 1e-3),
    f'an episode pays what was learnt in it, to {error:.0e}',
  )


def other_units(parts: agent.Parts, tasks: types.Task) -> Iterator[Check]:
  """Nothing that is said depends on how the variables are measured."""
  params = _loud(agent.initial_state(_SEED, parts).params)
  episodes = _episodes(parts, params, tasks, 8)
  rng = np.random.default_rng(_SEED)
  worst: dict[str, dict[str, float]] = {}
  with jax.enable_x64(True):
    listen = invariance.listener(parts)
    wide = invariance.in_double(params)
    for episode in map(invariance.in_double, episodes):
      said = listen(wide, episode)
      for name, (told, expected) in invariance.retold(
        rng, episode, said
      ).items():
        found = worst.setdefault(
          name, dict.fromkeys(invariance.Said._fields, 0.0)
        )
        differences = invariance.largest_difference(
          listen(wide, told), expected
        )
        for what, error in differences.items():
          found[what] = float(np.maximum(found[what], error))
  for name, found in worst.items():
    # Not a number is larger than any.
    what = list(found)[np.argmax(list(found.values()))]
    yield Check(
      'other units',
      f'{name}, in float64',
      found[what] < 1e-4,
      f'largest change {found[what]:.0e}, of {what}',
    )


def weight_zero(parts: agent.Parts, tasks: types.Task) -> Iterator[Check]:
  """A component of weight 0 leaves no trace, to the bit."""
  state = agent.initial_state(_SEED, parts)
  index = np.arange(parts.num_tasks) % len(tasks.scm.family)
  batch = jax.tree.map(lambda leaf: leaf[index], tasks)
  (observations, trajectories), _ = agent.programs(parts)['act'](
    state.params, state.key, batch
  )

  @jax.jit
  def learn(weights, components):
    own = dataclasses.replace(
      parts, weights=grpo_config.RewardWeights(*weights)
    )
    given = trajectories._replace(components=components)
    after, _ = agent.learn(state, batch, observations, given, own)
    return after.params

  components = trajectories.components
  for i, name in enumerate(rewards.COMPONENTS):
    weights = jnp.array(parts.weights).at[i].set(0.0)
    nothing = learn(weights, components.at[..., i].set(0.0))
    anything = learn(weights, components)
    same = all(
      np.array_equal(a, b)
      for a, b in zip(*map(jax.tree.leaves, (nothing, anything)), strict=True)
    )
    yield Check(
      'zero out',
      f'{name} at weight 0 leaves the update as it is',
      same,
      'bitwise equal' if same else 'parameters differ',
    )


def zero_out(parts: agent.Parts, num_seeds: int) -> Iterator[Check]:
  """Each component alone raises its own measure over the untrained policy."""
  parts = _alone(parts)
  balances = [grpo_config.RewardWeights(*row) for row in np.eye(4)]
  seeds = list(range(num_seeds))
  before, after = trainings.train(parts, balances, seeds, _ALONE_UPDATES)
  both = jax.tree.map(lambda b, a: jnp.concatenate([b[None], a]), before, after)
  key = jax.random.fold_in(jax.random.PRNGKey(1), _SEED)
  tasks = priors.sample(key, parts.prior, _NUM_TASKS)
  untrained, *trained = trainings.measure(parts, both, key, tasks)
  for i, (name, found) in enumerate(
    zip(rewards.COMPONENTS, trained, strict=True)
  ):
    yield _gain(
      'zero out', f'{name} alone raises {name}', untrained[:, i], found[:, i]
    )


def learning(parts: agent.Parts, num_seeds: int) -> Iterator[Check]:
  """The given balance raises what it is for, together.

  The head that knows the parents learns beside the policy whatever is paid for:
  the control are trainings in which nothing is.
  """
  seeds = list(range(num_seeds))
  nothing = grpo_config.RewardWeights(0.0, 0.0, 0.0, 0.0)
  before, after = trainings.train(
    parts, [parts.weights, nothing], seeds, NUM_UPDATES
  )
  trained, control = (
    jax.tree.map(lambda leaf, w=w: leaf[w], after) for w in range(2)
  )
  tasks = held_out.HeldOut(_SEED, parts.prior, _NUM_TASKS, parts.horizon)
  score = tasks.network_scorer(parts.network)

  def measured(params, update):
    """[S, 2] mean score and F1 after the last intervention."""
    rows = []
    for seed in range(num_seeds):
      outcome = score(
        jax.tree.map(lambda leaf, s=seed: leaf[s], params), update
      )
      quality = tasks.belief_quality(outcome)
      of_all = (quality['belief'] == 'learned') & (quality['group'] == 'all')
      rows.append([outcome.score.mean(), quality[of_all]['f1'].iloc[-1]])
    return np.array(rows)

  random = tasks.scores({'random': held_out.HEURISTICS['random']})['random']
  chance = np.full(num_seeds, float(random.score.mean()))
  untrained, unpaid = measured(before, 0), measured(control, NUM_UPDATES)
  found = measured(trained, NUM_UPDATES)
  for claim, low_side, high_side in (
    ('held-out score over random', chance, found[:, 0]),
    ('held-out score over the untrained policy', untrained[:, 0], found[:, 0]),
    ('held-out score over training unpaid', unpaid[:, 0], found[:, 0]),
    (
      'F1 of the parents over the untrained policy',
      untrained[:, 1],
      found[:, 1],
    ),
    ('F1 of the parents over training unpaid', unpaid[:, 1], found[:, 1]),
  ):
    yield _gain('learning', claim, low_side, high_side)


def _gain(requirement, claim, before, after) -> Check:
  """That a measure rises, seed by seed: [S] before and after."""
  low = statistics.lower_bound(after - before, _CONFIDENCE)
  return Check(
    requirement,
    claim,
    low > 0,
    f'{before.mean():.3f} -> {after.mean():.3f}, gain at least {low:.3f}; '
    f'{len(after)} seeds',
  )


def _alone(parts: agent.Parts) -> agent.Parts:
  """The parts with which one component at a time is trained.

  Nothing but the rewards teaches the policy, and the belief is the exact one
  of the linear SCMs that it is trained on, so that a measure can rise by
  behaviour alone.
  """
  prior = parts.prior
  return dataclasses.replace(
    parts,
    optimizer=optimizer.make_optimizer(
      optimizer.schedule(_ALONE_LEARNING_RATE, 3, _ALONE_UPDATES, 0.05),
      max_grad_norm=1.0,
      weight_decay=1e-4,
    ),
    prior=dataclasses.replace(
      _linear(prior),
      min_variables=min(prior.min_variables, _ALONE_VARIABLES),
      max_variables=min(prior.max_variables, _ALONE_VARIABLES),
    ),
    horizon=_ALONE_HORIZON,
    num_tasks=_ALONE_TASKS,
    num_generations=_ALONE_GENERATIONS,
    kinds=dataclasses.replace(parts.kinds, belief='exact'),
    settings=dataclasses.replace(
      parts.settings,
      num_iterations=1,
      num_minibatches=1,
      gradient_accumulation_steps=1,
      parent_coefficient=0.0,
      outcome_coefficient=0.0,
    ),
  )


def _linear(prior: scms_config.PriorConfig) -> scms_config.PriorConfig:
  """The prior with linear SCMs alone."""
  weights = [0.0] * len(mechanisms.Family)
  weights[mechanisms.Family.LINEAR] = 1.0
  return dataclasses.replace(prior, family_weights=tuple(weights))


def _loud(params):
  """Parameters whose policy and beliefs are far from even."""
  rng = np.random.default_rng(_SEED)
  return jax.tree.map(
    lambda leaf: (
      2 * leaf + 0.1 * rng.normal(size=leaf.shape).astype(leaf.dtype)
    ),
    params,
  )


def _tasks_with_parents(
  key: jax.Array, prior: scms_config.PriorConfig
) -> types.Task:
  """Tasks whose targets have a parent that may be set."""
  tasks = priors.sample(key, prior, 2 * _NUM_TASKS)
  parents = tasks.scm.problem.settable & graphs.target_parents(tasks.scm)
  fitting = np.flatnonzero(np.asarray(parents.any(1)))[:_NUM_TASKS]
  if fitting.size < _NUM_TASKS:
    raise errors.UsageError(
      f'of {2 * _NUM_TASKS} SCMs only {fitting.size} have a parent of the '
      f'target that may be set; the validation needs {_NUM_TASKS}: raise '
      'config.scms.settable'
    )
  return jax.tree.map(lambda leaf: leaf[fitting], tasks)


def _task(tasks: Any, index: int) -> Any:
  return jax.tree.map(lambda leaf: np.asarray(leaf[index]), tasks)


def _episodes(parts, params, tasks, num_episodes) -> list[invariance.Episode]:
  """A group of rollouts on each of the first tasks."""
  some = jax.tree.map(lambda leaf: leaf[:num_episodes], tasks)
  data, _ = agent.programs(parts)['act'](
    params, jax.random.PRNGKey(_SEED), some
  )
  episodes = invariance.Episode(some, *data)
  return [_task(episodes, i) for i in range(num_episodes)]
