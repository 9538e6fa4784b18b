"""Validation of a configuration: checks of its requirements, with evidence.

no silent failures    invalid or non-finite values raise an informative error
history               the policy depends on the rows of the episode
continuous reward     1 at the optimum every time, between 0 and 1 elsewhere
exploits              nine scripts earn less than honest ones, by component and
                      in the sum
invariance            nothing depends on units, signs, or the order of variables
reward weights        each component alone improves what it rewards, and has no
                      effect at weight 0
learning              the configured weights increase both score and parents'
                      AUROC
"""

from collections.abc import Iterator, Sequence
import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from acme_cbo import types
from acme_cbo.agents.grpo import agent
from acme_cbo.agents.grpo import optimizer
from acme_cbo.agents.grpo import rewards
from acme_cbo.beliefs import belief as beliefs
from acme_cbo.beliefs import exact_posterior
from acme_cbo.environments import config as environments_config
from acme_cbo.environments import environment
from acme_cbo.evaluation import held_out
from acme_cbo.evaluation import statistics
from acme_cbo.experiments.validation import exploits
from acme_cbo.experiments.validation import invariance
from acme_cbo.experiments.validation import trainings
from acme_cbo.infra import errors
from acme_cbo.scms import config as scms_config
from acme_cbo.scms import graphs
from acme_cbo.scms import priors

# Confidence level of every interval and test.
_CONFIDENCE = 0.99
# Share of the range by which an exploit must earn less than the honest script,
# and by which a script may seem to earn more, by chance, in a component that it
# does not exploit.
_MARGIN = 0.2
_TOLERANCE = 0.05
# Number of tasks on which scripts and policies are scored.
_NUM_TASKS = 256
# The same for `structure`, where returns differ more, and some of the scripts
# hardly earn less than the honest one.
_NUM_STRUCTURE_TASKS = 2048
# Seed of the tasks, which no training run uses.
_SEED = 0x7A11D

# Training runs with a single component: as small as shows an effect.
_ALONE_UPDATES = 200
_ALONE_TASKS = 16
_ALONE_GENERATIONS = 8
_ALONE_VARIABLES = 4
_ALONE_HORIZON = environments_config.HorizonConfig(
  num_observations=10, num_interventions=5
)
_ALONE_LEARNING_RATE = 1.5e-2
# Number of untrained policies that trained ones are compared with.
_NUM_UNTRAINED = 64
# Length of the training runs with the given configuration.
NUM_UPDATES = 120


class Check(NamedTuple):
  """Result of one check.

  Attributes:
    requirement: name of the requirement.
    claim: claim that is checked.
    passed: whether the claim holds; None if it could not be checked.
    figure: evidence, or why there is none, as text.
  """

  requirement: str
  claim: str
  passed: bool | None
  figure: str

  @property
  def verdict(self) -> str:
    """'pass', 'FAIL', or 'skip' if the claim could not be checked."""
    if self.passed is None:
      return 'skip'
    return 'pass' if self.passed else 'FAIL'

  def __str__(self) -> str:
    return (
      f'{self.verdict}  {self.requirement:<18}  {self.claim}: {self.figure}'
    )


def validate(parts: agent.Parts, seeds: range) -> Iterator[Check]:
  """Runs all checks of a configuration, the fast ones first.

  Args:
    parts: parts of an update of the configuration, with an optimizer for
      `NUM_UPDATES` updates.
    seeds: seed of each training run behind a claim about learning; with the
      first, the tasks of all statistical checks change too.

  Yields:
    The checks as they complete.

  Raises:
    errors.UsageError: there are more variables than the exact belief supports,
      fewer than two interventions, too few SCMs in which a parent of the target
      can be intervened on, or no SCM with a variable that is not a parent.
  """
  if parts.horizon.num_interventions < 2:
    raise errors.UsageError(
      'config.horizon.num_interventions is '
      f'{parts.horizon.num_interventions}; the validation needs 2 or more, to '
      'check that decisions depend on earlier outcomes'
    )
  if parts.prior.max_variables > exact_posterior.MAX_VARIABLES:
    raise errors.UsageError(
      f'config.scms.max_variables is {parts.prior.max_variables}; the '
      'validation uses the exact belief, which supports at most '
      f'{exact_posterior.MAX_VARIABLES}'
    )
  tasks = tasks_of(parts, seeds[0])
  others = beliefs.candidates(tasks.scm.problem) & ~graphs.target_parents(
    tasks.scm
  )
  if not others.any():
    raise errors.UsageError(
      'every variable of every SCM is a parent of its target, so that nothing '
      'shows whether parents are distinguished from other variables; give '
      'graphs other than STAR a weight in config.scms.graph_weights'
    )
  yield from no_silent_failures(parts, tasks)
  yield from history(parts, tasks)
  yield from scripts(parts, tasks, seeds[0])
  yield from telescoping(parts, tasks)
  yield from invariances(parts, tasks)
  yield from zero_weights(parts, tasks)
  yield from single_components(parts, seeds)
  yield from learning(parts, seeds)


def total(checks: Sequence[Check]) -> str:
  """Returns the number of checks that passed, in words."""
  verdicts = [check.verdict for check in checks]
  skipped = verdicts.count('skip')
  return (
    f'{verdicts.count("pass")} of {len(checks) - skipped} checks passed'
    + (f', {skipped} skipped' if skipped else '')
  )


def report(command: str, checks: Sequence[Check]) -> str:
  """Formats the checks as a Markdown page.

  Args:
    command: command that ran the checks.
    checks: all checks.

  Returns:
    Markdown.
  """
  rows = [
    f'| {check.requirement} | {check.claim} | {check.figure} '
    f'| {check.verdict.replace("FAIL", "**FAIL**")} |'
    for check in checks
  ]
  return f"""# Validation

Created by

```sh
{command}
```

{total(checks)}.

The confidence level of intervals and bounds is {_CONFIDENCE:.0%}. An exploit
must earn less than the honest script by {_MARGIN} of the range, with an
interval above 0, in each component that it tries to exploit and in the weighted
sum. In the other components, where a script may do useful work (a zigzag of a
cause is informative about it), the interval must be above -{_TOLERANCE}: the
script earns no more than the honest one. Scripts run on {_NUM_TASKS} SCMs, for
`structure` on {_NUM_STRUCTURE_TASKS} linear ones.

Training runs with a single component have {_ALONE_UPDATES} updates. They use
linear SCMs of at most {_ALONE_VARIABLES} variables, the exact belief, and no
auxiliary predictions, so that a measure can only increase by a change of
behavior. The runs of the last rows use the given configuration, for
{NUM_UPDATES} updates. A policy is compared, seed by seed, with itself before
training or with a policy trained with all reward weights 0, which learns the
auxiliary predictions only; in the last rows also with {_NUM_UNTRAINED}
untrained policies of other seeds, whose measures differ more than those of
trained ones.

| Requirement | Claim | Figure | |
|---|---|---|---|
{chr(10).join(rows)}
"""


def tasks_of(parts: agent.Parts, seed: int = 0) -> types.Task:
  """Returns the tasks of the fast checks."""
  key = jax.random.fold_in(jax.random.PRNGKey(0), _SEED + seed)
  return _tasks_with_parents(key, parts.prior, _NUM_TASKS)


def no_silent_failures(
  parts: agent.Parts, tasks: types.Task
) -> Iterator[Check]:
  """Checks that invalid interventions and non-finite parameters raise."""
  first_tasks = [_task(tasks, i) for i in range(16)]
  num_raised: dict[str, int] = {}
  for task in first_tasks:
    for name, intervention in exploits.invalid_interventions(task).items():
      num_raised.setdefault(name, 0)
      try:
        environment.check_intervention(task.scm.problem, intervention)
      except ValueError:
        num_raised[name] += 1
  for name, count in num_raised.items():
    yield Check(
      'no silent failures',
      f'invalid intervention raises: {name}',
      count == len(first_tasks),
      f'{count} of {len(first_tasks)}',
    )
  state = agent.initial_state(_SEED, parts)
  corrupted = state._replace(
    params=jax.tree.map(lambda leaf: leaf * jnp.nan, state.params)
  )
  try:
    agent.make_step(agent.programs(parts))(corrupted)
    message = 'no error was raised'
  except errors.NonFiniteError as error:
    message = str(error)
  yield Check(
    'no silent failures',
    'non-finite parameters raise',
    'logit is not finite on SCM 0' in message,
    message,
  )


def history(parts: agent.Parts, tasks: types.Task) -> Iterator[Check]:
  """Checks that the policy depends on the actual rows of the episode."""
  evaluate = invariance.make_evaluator(parts)
  params = _amplify(agent.initial_state(_SEED, parts).params)
  (episode,) = _episodes(parts, params, tasks, 1)
  outputs = evaluate(params, episode)
  rollouts = episode.trajectories
  steps = np.arange(rollouts.outcomes.shape[1])
  choice = np.asarray(outputs.choice)  # [G, T, Z, D, C]
  # The rest is the probability of adding no further variable.
  none = 1 - choice.sum((-1, -2), keepdims=True)[..., 0]
  any_cell = np.broadcast_to(none[..., None], (*none.shape, choice.shape[-1]))
  indices = np.indices(choice.shape[:3])
  evaluated = np.concatenate([choice, any_cell], -2)[
    *indices, rollouts.decision.variable, rollouts.decision.cell
  ].prod(-1)
  sampled = np.exp(rollouts.log_prob_variable + rollouts.log_prob_cell)
  error = np.abs(evaluated - sampled).max()
  yield Check(
    'history',
    'probabilities when acting and when evaluating the episode are equal',
    bool(error < 1e-4),
    f'they differ by at most {error:.1e}',
  )
  shifted = rollouts._replace(
    outcomes=rollouts.outcomes
    + np.where(steps == 0, 1.0, 0.0)[:, None]
    * np.std(episode.observations, axis=0)
  )
  other = evaluate(params, episode._replace(trajectories=shifted))
  change = np.abs(np.asarray(other.choice) - choice).max((0, 2, 3, 4))
  # Steps at which the budget of every rollout is spent have no decision.
  has_decision = choice.any((0, 2, 3, 4))
  later = change[1:][has_decision[1:]]
  yield Check(
    'history',
    'another first outcome changes all later decisions, not the first one',
    bool(change[0] == 0 and later.size and (later > 1e-4).all()),
    f'later decisions by at least {later.min(initial=np.inf):.1e}; '
    f'the first decision by {change[0]:.0e}',
  )


def scripts(
  parts: agent.Parts, tasks: types.Task, seed: int = 0
) -> Iterator[Check]:
  """Checks the range of the rewards, and that no exploit pays off."""
  key_tasks, key = jax.random.split(jax.random.PRNGKey(_SEED + seed))
  # `structure` is evaluated on linear SCMs, for which the exact belief is the
  # posterior.
  linear = _tasks_with_parents(
    key_tasks, _linear(parts.prior), _NUM_STRUCTURE_TASKS
  )
  num_mixed = len(tasks.scm.family)
  both = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), tasks, linear)
  components_by_script = exploits.run_scripts(
    key, both, parts.horizon, parts.rewards
  )
  index = rewards.COMPONENTS.index('optimization')
  optimum = components_by_script['honest optimization'][..., index]
  yield Check(
    'continuous reward',
    'the optimum earns 1 at every step, also when repeated',
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
    'every valid intervention earns between 0 and 1',
    bool(curve.min() > -1e-4 and curve.max() < 1 + 1e-4),
    f'{curve.min():.4f} to {curve.max():.4f}',
  )
  returns = {
    name: exploits.returns(components, parts.rewards.weights)
    for name, components in components_by_script.items()
  }
  for component in rewards.COMPONENTS:
    if component not in exploits.HONEST:
      yield Check(
        'exploits',
        f'no exploit pays off in {component}',
        None,
        'exploits.HONEST has no script for it to compare with',
      )
  columns = (*rewards.COMPONENTS, 'sum')
  best_honest = max(
    exploits.HONEST,
    key=lambda name: returns[f'honest {name}'][:num_mixed, -1].mean(),
  )
  for name, (_, targets) in exploits.EXPLOITS.items():
    for column, component in enumerate(columns):
      if component not in (*exploits.HONEST, 'sum'):
        continue
      honest = best_honest if component == 'sum' else component
      deficit = (
        returns[f'honest {honest}'][:, column] - returns[name][:, column]
      )
      is_linear = component == 'structure'
      deficit = deficit[num_mixed:] if is_linear else deficit[:num_mixed]
      low, high = statistics.bootstrap_interval(deficit, _CONFIDENCE)
      if component in (*targets, 'sum'):
        claim = f'{name} earns less in {component}'
        passed = deficit.mean() >= _MARGIN and low > 0
      else:
        claim = f'{name} earns no more in {component}'
        passed = low > -_TOLERANCE
      yield Check(
        'exploits',
        claim,
        bool(passed),
        f'{deficit.mean():.2f} [{low:.2f}, {high:.2f}] below the honest script',
      )


def telescoping(parts: agent.Parts, tasks: types.Task) -> Iterator[Check]:
  """Checks that `structure` telescopes to the gain of the whole episode."""
  parts = dataclasses.replace(
    parts, rewards=dataclasses.replace(parts.rewards, belief='exact')
  )
  episodes = _episodes(
    parts, agent.initial_state(_SEED, parts).params, tasks, 8
  )
  belief = beliefs.exact()

  @jax.jit
  def total_gain(task, observations, rollout):
    states = beliefs.unroll(
      belief,
      task.scm.problem,
      observations,
      rollout.intervened,
      rollout.outcomes,
    )
    potentials = jax.vmap(
      lambda state: rewards.potential(task, parts.rewards, belief, state)
    )(states)
    return potentials[-1] - potentials[0]

  index = rewards.COMPONENTS.index('structure')
  error = 0.0
  for episode in episodes:
    gain = jax.vmap(total_gain, (None, None, 0))(*episode)
    reward = episode.trajectories.components[..., index].sum(1)
    error = np.maximum(error, np.abs(reward - gain).max())
  yield Check(
    'exploits',
    'going back and forth earns nothing in structure',
    bool(error < 1e-3),
    f'its sum equals the gain of the episode up to {error:.0e}',
  )


def invariances(parts: agent.Parts, tasks: types.Task) -> Iterator[Check]:
  """Checks invariance to units, signs and the order of the variables."""
  params = _amplify(agent.initial_state(_SEED, parts).params)
  episodes = _episodes(parts, params, tasks, 8)
  rng = np.random.default_rng(_SEED)
  worst: dict[str, dict[str, float]] = {}
  with jax.enable_x64(True):
    evaluate = invariance.make_evaluator(parts)
    params = invariance.to_float64(params)
    for episode in map(invariance.to_float64, episodes):
      outputs = evaluate(params, episode)
      for name, (transformed, expected) in invariance.equivalent_episodes(
        rng, episode, outputs
      ).items():
        largest = worst.setdefault(
          name, dict.fromkeys(invariance.Outputs._fields, 0.0)
        )
        differences = invariance.max_differences(
          evaluate(params, transformed), expected
        )
        for output, error in differences.items():
          largest[output] = float(np.maximum(largest[output], error))
  for name, largest in worst.items():
    # `np.argmax` and `np.maximum` treat NaN as larger than any number.
    output = list(largest)[np.argmax(list(largest.values()))]
    yield Check(
      'invariance',
      f'{name}, in float64',
      largest[output] < 1e-4,
      f'largest change {largest[output]:.0e}, in {output}',
    )


def zero_weights(parts: agent.Parts, tasks: types.Task) -> Iterator[Check]:
  """Checks that a component with weight 0 has no effect on the update."""
  state = agent.initial_state(_SEED, parts)
  index = np.arange(parts.update.num_tasks) % len(tasks.scm.family)
  batch = jax.tree.map(lambda leaf: leaf[index], tasks)
  (observations, trajectories), _ = agent.programs(parts)['act'](
    state.params, state.key, batch
  )

  @jax.jit
  def learn(weights, components):
    own = dataclasses.replace(
      parts, rewards=parts.rewards.with_weights(tuple(weights))
    )
    changed = trajectories._replace(components=components)
    new_state, _ = agent.learn(state, batch, observations, changed, own)
    return new_state.params

  components = trajectories.components
  for i, name in enumerate(rewards.COMPONENTS):
    weights = jnp.array(parts.rewards.weights).at[i].set(0.0)
    without = learn(weights, components.at[..., i].set(0.0))
    with_component = learn(weights, components)
    same = all(
      np.array_equal(a, b)
      for a, b in zip(
        *map(jax.tree.leaves, (without, with_component)), strict=True
      )
    )
    yield Check(
      'reward weights',
      f'{name} at weight 0 does not change the update',
      same,
      'bitwise equal' if same else 'parameters differ',
    )


def single_components(parts: agent.Parts, seeds: range) -> Iterator[Check]:
  """Checks that training with a single component increases it."""
  parts = _alone(parts)
  balances = [tuple(row) for row in np.eye(len(rewards.COMPONENTS)).tolist()]
  before, after = trainings.train(parts, balances, seeds, _ALONE_UPDATES)
  both = jax.tree.map(lambda b, a: jnp.concatenate([b[None], a]), before, after)
  key = jax.random.fold_in(jax.random.PRNGKey(1), _SEED + seeds[0])
  tasks = priors.sample(key, parts.prior, _NUM_TASKS)
  untrained, *trained = trainings.measure(parts, both, key, tasks)
  for i, (name, measured) in enumerate(
    zip(rewards.COMPONENTS, trained, strict=True)
  ):
    yield _gain(
      'reward weights',
      f'{name} alone increases {name}',
      untrained[:, i],
      measured[:, i],
    )


def learning(parts: agent.Parts, seeds: range) -> Iterator[Check]:
  """Checks that the configured weights increase score and parents' AUROC.

  The head that predicts the parents learns from an auxiliary loss with any
  reward weights; therefore the control is training with all weights 0.
  Untrained policies differ much from seed to seed, trained ones little: the
  untrained are more, and independent of the trained.
  """
  nothing = (0.0,) * len(rewards.COMPONENTS)
  _, after = trainings.train(
    parts, [parts.rewards.weights, nothing], seeds, NUM_UPDATES
  )
  trained, control = (
    jax.tree.map(lambda leaf, w=w: leaf[w], after) for w in range(2)
  )
  tasks = held_out.HeldOut(
    _SEED + seeds[0], parts.prior, _NUM_TASKS, parts.horizon
  )
  score = tasks.network_scorer(parts.network)

  def measure(params, update):
    """Returns [S, 2] mean score, and AUROC after the last intervention."""
    rows = []
    for seed in range(len(jax.tree.leaves(params)[0])):
      outcome = score(
        jax.tree.map(lambda leaf, s=seed: leaf[s], params), update
      )
      quality = tasks.belief_quality(outcome)
      selected = (quality['belief'] == 'learned') & (quality['group'] == 'all')
      rows.append([outcome.score.mean(), quality[selected]['auroc'].iloc[-1]])
    return np.array(rows)

  random = tasks.scores({'random': held_out.HEURISTICS['random']})['random']
  chance = np.full(len(seeds), float(random.score.mean()))
  others = jax.vmap(lambda key: agent.init(key, parts).params)(
    jax.random.split(jax.random.PRNGKey(_SEED + seeds[0]), _NUM_UNTRAINED)
  )
  untrained, unrewarded = measure(others, 0), measure(control, NUM_UPDATES)
  trained = measure(trained, NUM_UPDATES)
  yield _gain('learning', 'held-out score above random', chance, trained[:, 0])
  for i, measured in enumerate(('held-out score', "parents' AUROC")):
    yield _gain(
      'learning',
      f'{measured} above untrained policies',
      untrained[:, i],
      trained[:, i],
      paired=False,
    )
    yield _gain(
      'learning',
      f'{measured} above training without rewards',
      unrewarded[:, i],
      trained[:, i],
    )


def _gain(requirement, claim, before, after, paired=True) -> Check:
  """Checks that a measure increases.

  Args:
    requirement: name of the requirement.
    claim: claim that is checked.
    before: [S] values before, or [U] values of others.
    after: [S] values after.
    paired: whether the values before and after belong to the same seeds.
  """
  low = (
    statistics.lower_bound(after - before, _CONFIDENCE)
    if paired
    else statistics.lower_bound_of_difference(after, before, _CONFIDENCE)
  )
  return Check(
    requirement,
    claim,
    low > 0,
    f'{before.mean():.3f} -> {after.mean():.3f}, gain at least {low:.3f}; '
    f'{len(after)} seeds',
  )


def _alone(parts: agent.Parts) -> agent.Parts:
  """Returns the parts of the training runs with a single component.

  There are no auxiliary losses, and the belief is the exact posterior of the
  linear SCMs, so that a measure can only increase by a change of behavior.
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
    rewards=dataclasses.replace(parts.rewards, belief='exact'),
    update=dataclasses.replace(
      parts.update,
      num_tasks=_ALONE_TASKS,
      num_generations=_ALONE_GENERATIONS,
      num_iterations=1,
      num_minibatches=1,
      gradient_accumulation_steps=1,
      parent_coefficient=0.0,
      outcome_coefficient=0.0,
    ),
  )


def _linear(prior: scms_config.Prior) -> scms_config.Prior:
  """Returns the prior restricted to linear SCMs."""
  return dataclasses.replace(
    prior, family_weights=scms_config.FamilyWeights.only('linear')
  )


def _amplify(params):
  """Returns parameters whose policy and beliefs are far from uniform."""
  rng = np.random.default_rng(_SEED)
  return jax.tree.map(
    lambda leaf: (
      2 * leaf + 0.1 * rng.normal(size=leaf.shape).astype(leaf.dtype)
    ),
    params,
  )


def _tasks_with_parents(
  key: jax.Array, prior: scms_config.Prior, number: int
) -> types.Task:
  """Returns tasks whose target has a parent that can be intervened on."""
  tasks = priors.sample(key, prior, 2 * number)
  parents = tasks.scm.problem.settable & graphs.target_parents(tasks.scm)
  fitting = np.flatnonzero(np.asarray(parents.any(1)))[:number]
  if fitting.size < number:
    raise errors.UsageError(
      f'only {fitting.size} of {2 * number} SCMs have a parent of the target '
      f'that can be intervened on; the validation needs {number}: increase '
      'config.scms.settable'
    )
  return jax.tree.map(lambda leaf: leaf[fitting], tasks)


def _task(tasks: Any, index: int) -> Any:
  return jax.tree.map(lambda leaf: np.asarray(leaf[index]), tasks)


def _episodes(parts, params, tasks, num_episodes) -> list[invariance.Episode]:
  """Returns a group of rollouts on each of the first tasks."""
  first_tasks = jax.tree.map(lambda leaf: leaf[:num_episodes], tasks)
  data, _ = agent.programs(parts)['act'](
    params, jax.random.PRNGKey(_SEED), first_tasks
  )
  episodes = invariance.Episode(first_tasks, *data)
  return [_task(episodes, i) for i in range(num_episodes)]
