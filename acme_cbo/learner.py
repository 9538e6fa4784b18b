"""From trajectories to new parameters."""

from collections.abc import Callable
import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from optax import contrib

from acme_cbo import actor
from acme_cbo import distributions
from acme_cbo import interventions
from acme_cbo import losses
from acme_cbo import networks
from acme_cbo import rewards
from acme_cbo import types
from acme_cbo.beliefs import belief as beliefs
from acme_cbo.scms import simulate

_OPTIMIZATION = rewards.COMPONENTS.index('optimization')
# Root mean square of Adam's steps, in learning rates: Muon's are made like it.
_ADAM_STEP = 0.2
# Coefficients of an iteration of Newton and Schulz (Jordan et al., "Muon: An
# optimizer for hidden layers", 2024), once for each: given one by one they are
# looped over, and what an iteration does is compiled once.
_ORTHOGONALISATION = ((3.4445, -4.7750, 2.0315),) * 5
_GOLDEN = (math.sqrt(5) - 1) / 2


@dataclasses.dataclass(frozen=True)
class Settings:
  """Options of an update.

  Attributes:
    num_iterations: passes over the trajectories of an update.
    num_minibatches: gradient steps per pass.
    gradient_accumulation_steps: parts of a minibatch whose gradients are taken
      one after the other, for less memory; the two divide the number of SCMs.
    parent_coefficient: weight of the loss of the learned belief.
    outcome_coefficient: weight of the losses of the predicted rewards, of what
      could be set and of what was.
    reference_every: updates after which the reference policy is renewed.
  """

  num_iterations: int
  num_minibatches: int
  gradient_accumulation_steps: int
  parent_coefficient: float
  outcome_coefficient: float
  reference_every: int

  @property
  def steps_per_update(self) -> int:
    """Gradient steps that an update makes."""
    return self.num_iterations * self.num_minibatches


def schedule(
  learning_rate: float,
  warmup_steps: int,
  total_steps: int,
  final_fraction: float,
) -> optax.Schedule:
  """Learning rate by gradient step: a linear warm-up and a cosine decay."""
  # Also looked at on its own: a dozen small programs otherwise.
  return jax.jit(
    optax.warmup_cosine_decay_schedule(
      init_value=0.0,
      peak_value=learning_rate,
      warmup_steps=warmup_steps,
      decay_steps=total_steps,
      end_value=final_fraction * learning_rate,
    )
  )


def make_optimizer(
  schedule: optax.Schedule, max_grad_norm: float, weight_decay: float
) -> optax.GradientTransformation:
  """Muon with clipping by global norm, for `stacked` parameters.

  Matrices take steps along their orthogonalised momentum, scaled to the size
  of Adam's (Liu et al., "Muon is Scalable for LLM Training", 2025, section
  2.2); vectors take Adam's. The weight decay is that of the matrices.
  """
  return optax.chain(
    optax.clip_by_global_norm(max_grad_norm),
    contrib.muon(
      schedule,
      ns_coeffs=_ORTHOGONALISATION,
      weight_decay=weight_decay,
      consistent_rms=_ADAM_STEP,
      muon_weight_dimension_numbers=_of_matrices,
    ),
  )


def stacked(tree: Any) -> dict[str, jax.Array]:
  """All arrays of a shape as one: {'2x3': [number of them, 2, 3]}.

  What is done to each of many small parameters makes a program that takes
  longer to compile than the gradient of the network.
  """
  groups: dict[str, list[jax.Array]] = {}
  for leaf in jax.tree.leaves(tree):
    groups.setdefault(_shape(leaf), []).append(leaf)
  return {shape: jnp.stack(group) for shape, group in groups.items()}


def unstacked(stacks: dict[str, jax.Array], like: Any) -> Any:
  """The tree of which `stacked` made stacks; `like` is of its structure."""
  of_shape = {shape: iter(stack) for shape, stack in stacks.items()}
  return jax.tree.map(lambda leaf: next(of_shape[_shape(leaf)]), like)


def _of_matrices(stacks: Any) -> dict[str, Any]:
  """Which axes of each stack are those of matrices; None if they are not."""
  return {
    shape: contrib.MuonDimensionNumbers(1, 2) if shape.count('x') == 1 else None
    for shape in stacks
  }


def _shape(array):
  return 'x'.join(map(str, array.shape))


def init(
  key: jax.Array,
  network: networks.Network,
  optimizer: optax.GradientTransformation,
  task: types.Task,
) -> types.TrainingState:
  """The state before the first update.

  Args:
    key: consumed.
    network: whose parameters are drawn.
    optimizer: of `stacked` parameters, whose state is begun.
    task: any one task; only its shapes are used.

  Returns:
    The `TrainingState`.
  """
  key_params, key = jax.random.split(key)
  num_variables = task.scm.order.shape[-1]
  params = network.init(
    key_params,
    task.scm.problem,
    jnp.zeros((2, num_variables)),
    networks.start_row(num_variables),
  )
  return types.TrainingState(
    params=params,
    reference=jax.tree.map(jnp.copy, params),
    opt_state=optimizer.init(stacked(params)),
    key=key,
    step=jnp.int32(0),
    dead_updates=jnp.int32(0),
  )


def after_every_row(
  said: Callable[..., Any],
  params,
  problem: types.Problem,
  prefix: networks.Prefix,
  encodings: networks.Encoding,
  partials: distributions.Partial,
  of_each_row: bool = True,
) -> Any:
  """What a network says in one turn after each of R rows.

  Args:
    said: its `turn` or its `predict`.
    params: its parameters.
    problem: of D variables.
    prefix: of the observations.
    encodings: after each row, from `Network.full`.
    partials: [R, ...] what is chosen already then.
    of_each_row: whether there is one for each row; else it is without the
      leading axis, the same for all.

  Returns:
    What it says with a leading axis R.
  """
  return jax.vmap(
    lambda encoding, partial: said(params, problem, prefix, encoding, partial),
    (networks.EVERY_ROW, 0 if of_each_row else None),
  )(encodings, partials)


def choices(
  network: networks.Network,
  params,
  problem: types.Problem,
  prefix: networks.Prefix,
  encodings: networks.Encoding,
  trajectory: types.Trajectory,
  first: networks.Turn | None = None,
) -> distributions.Choice:
  """The distributions that the decisions of an episode were drawn from.

  Args:
    network: its functions.
    params: its parameters.
    problem: of D variables.
    prefix: of the observations.
    encodings: after each of R rows, from `Network.full`.
    trajectory: the episode.
    first: [T, ...] the first turns, of nothing chosen yet, if they are known.

  Returns:
    `Choice` with the leading axes T and Z.
  """
  sets = problem.sets & trajectory.paid[..., None]  # [T, M, D]
  partials = jax.vmap(distributions.before_each_turn, (0, None))(
    trajectory.decision, problem.exists.size
  )  # [T, Z, ...]
  acting = networks.after(encodings, slice(-1))
  known = [] if first is None else [first]
  num_turns = trajectory.decision.variable.shape[-1]
  said = known + [
    after_every_row(
      network.turn,
      params,
      problem,
      prefix,
      acting,
      jax.tree.map(lambda leaf, turn=turn: leaf[:, turn], partials),
    )
    for turn in range(len(known), num_turns)
  ]
  joint_logits, none_logits = jax.tree.map(
    lambda *leaves: jnp.stack(leaves, 1), *[turn.logits for turn in said]
  )
  every_turn = jax.vmap(distributions.choice, (0, 0, None, 0))
  return jax.vmap(every_turn)(joint_logits, none_logits, sets, partials)


def _one_before_each(num_steps: int) -> np.ndarray:
  """One step of those up to each, of all ages: [T] of 0 to t.

  The golden ratio spreads them evenly, however many there are.
  """
  step = np.arange(num_steps)
  return ((step + 1) * ((step + 1) * _GOLDEN % 1)).astype(np.int32)


def loss(
  params,
  reference,
  network: networks.Network,
  tasks: types.Task,
  observations: jax.Array,
  trajectories: types.Trajectory,
  advantages: jax.Array,
  settings: Settings,
  grpo: losses.Settings,
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """The loss over B groups, and its parts.

  Args:
    params: parameters that are differentiated.
    reference: parameters of the reference policy.
    network: its functions.
    tasks: B tasks.
    observations: [B, N, D].
    trajectories: with leading axes [B, G].
    advantages: [B, G, T].
    settings: of the learner.
    grpo: of the loss.

  Returns:
    [] the loss, and scalars to log.
  """

  def made(problem, prefix, encodings, trajectory):
    """The loss of what is predicted of one intervention made, after each."""
    steps = _one_before_each(len(trajectory.intervened))
    intervened = trajectory.intervened[steps]
    done = types.Intervention(intervened, trajectory.values[steps])
    predicted = after_every_row(
      network.predict,
      params,
      problem,
      prefix,
      networks.after(encodings, slice(1, None)),
      distributions.Partial(
        intervened,
        simulate.fractions(problem, done),
        jnp.zeros(len(steps), bool),
      ),
    )
    return losses.made_loss(predicted, trajectory.reached[steps])

  def episode(task, prefix, old_prefix, trajectory, advantage):
    problem, objective = task.scm.problem, task.objective
    rows = networks.episode_rows(
      problem, trajectory.intervened, trajectory.outcomes
    )
    encoding = network.full(params, problem, prefix, rows)
    # What is predicted of each partial intervention, after each row.
    given = distributions.Partial(
      objective.given.mask,
      simulate.fractions(problem, objective.given),
      jnp.zeros(len(objective.given_outcome), bool),
    )
    predicted = jax.vmap(
      lambda partial: after_every_row(
        network.turn,
        params,
        problem,
        prefix,
        encoding,
        partial,
        of_each_row=False,
      )
    )(given)  # [P, R, ...]
    # The first of them is of no variable, with which every decision begins.
    first = jax.tree.map(lambda leaf: leaf[0, :-1], predicted)
    log_probs = choices(
      network, params, problem, prefix, encoding, trajectory, first
    )
    variable, cell = jax.tree.map(
      lambda logs: logs.sum(1),
      jax.vmap(jax.vmap(distributions.log_prob))(
        log_probs, trajectory.decision
      ),
    )

    def log_ratios(level):
      return losses.log_ratios(
        variable,
        cell,
        trajectory.log_prob_variable,
        trajectory.log_prob_cell,
        level,
      )

    log_ratio = log_ratios(grpo.importance_sampling_level)
    # Of whole decisions, at whatever level the ratios are clipped.
    decision_log_ratio = log_ratios('decision')
    bounds = (grpo.epsilon, grpo.epsilon_high)
    surrogate = jax.vmap(
      lambda ratio: losses.clipped_surrogate(ratio, advantage, *bounds)
    )(log_ratio).sum()
    clipped = jax.vmap(
      lambda ratio: losses.clip_fraction(ratio, advantage, *bounds)
    )(log_ratio).mean()
    variable_entropy, cell_entropy = jax.vmap(jax.vmap(distributions.entropy))(
      log_probs
    )
    if grpo.beta:
      old_encoding = network.full(reference, problem, old_prefix, rows)
      old_log_probs = choices(
        network, reference, problem, old_prefix, old_encoding, trajectory
      )
      divergence = jax.vmap(jax.vmap(distributions.kl))(
        log_probs, old_log_probs
      )
      divergence = divergence.sum(1).mean()
    else:
      divergence = jnp.zeros(())
    truth = actor.target_parents(task.scm)
    parent = jax.vmap(
      lambda logits: losses.parent_loss(
        logits, truth, beliefs.candidates(problem)
      )
    )(encoding.parent_logits).mean()
    outcome = losses.outcome_loss(
      predicted.outcome_logits,
      predicted.none_outcome,
      rewards.optimization(objective.curves, objective),
      rewards.optimization(objective.given_outcome, objective),
      jax.vmap(interventions.may_add, (None, 0))(problem.sets, given.mask),
    )
    return {
      'loss/surrogate': surrogate,
      'loss/parent': parent,
      'loss/outcome': outcome,
      'loss/made': made(problem, prefix, encoding, trajectory),
      'policy/kl_reference': divergence,
      'policy/entropy_variable': variable_entropy.sum(1).mean(),
      'policy/entropy_cell': cell_entropy.sum(1).mean(),
      'policy/clip_fraction': clipped,
      # k3 estimate (Schulman, 2020) of KL(acting || trained).
      'policy/kl_acting': (
        jnp.exp(decision_log_ratio) - 1 - decision_log_ratio
      ).mean(),
      'policy/log_ratio_max': jnp.maximum(
        jnp.abs(log_ratio).max(), jnp.abs(decision_log_ratio).max()
      ),
    }

  def group(task, rows, trajectory, advantage):
    problem = task.scm.problem
    prefix = network.prefix(params, problem, rows)
    old_prefix = prefix
    if grpo.beta:
      old_prefix = network.prefix(reference, problem, rows)
    return jax.vmap(episode, (None, None, None, 0, 0))(
      task, prefix, old_prefix, trajectory, advantage
    )

  parts = jax.vmap(group)(tasks, observations, trajectories, advantages)
  largest = parts['policy/log_ratio_max'].max()
  parts = jax.tree.map(jnp.mean, parts)
  parts['policy/log_ratio_max'] = largest
  total = (
    parts['loss/surrogate']
    + grpo.beta * parts['policy/kl_reference']
    - grpo.variable_entropy * parts['policy/entropy_variable']
    - grpo.cell_entropy * parts['policy/entropy_cell']
    + settings.parent_coefficient * parts['loss/parent']
    + settings.outcome_coefficient
    * (parts['loss/outcome'] + parts['loss/made'])
  )
  return total, parts | {'loss/total': total}


def advantages(
  components: jax.Array, weights: rewards.Weights, grpo: losses.Settings
) -> tuple[jax.Array, jax.Array]:
  """How much better than its group each decision did.

  Args:
    components: [B, G, T, 4] rewards.
    weights: of the components.
    grpo: of the loss.

  Returns:
    [B, G, T] advantages and [B, T] bool, where the group is dead.
  """
  # The other components are of the path to the best, so all their steps count,
  # whichever regret does.
  earned = losses.by_factors(components[..., _OPTIMIZATION], grpo.regret_floor)
  counted = components.at[..., _OPTIMIZATION].set(
    losses.regret_rewards(earned, grpo.simple_regret_share)
  )
  returns = losses.returns(counted, grpo.supervision)  # [B, G, T, 4]
  if grpo.scale_components == 'group':
    returns, _ = jax.vmap(
      lambda of_one: losses.group_advantages(of_one, 'group'), -1, -1
    )(returns)
  group_returns = rewards.total(returns, weights)
  if grpo.baseline == 'reached':
    group_returns = losses.without_reached(
      group_returns, losses.best_before(earned)
    )
  return losses.group_advantages(group_returns, grpo.scale_rewards)


# What can be not finite in a loss, causes first.
FAULTS = (
  'loss/surrogate',
  'loss/parent',
  'loss/outcome',
  'loss/made',
  'policy/kl_reference',
  'policy/entropy_variable',
  'policy/entropy_cell',
  'policy/kl_acting',
  'policy/log_ratio_max',
  'loss/total',
  'gradient',
)


def faults(
  params,
  reference,
  network: networks.Network,
  tasks: types.Task,
  observations: jax.Array,
  trajectories: types.Trajectory,
  weights: rewards.Weights,
  settings: Settings,
  grpo: losses.Settings,
) -> jax.Array:
  """On which tasks a part of the loss, or its gradient, is not finite.

  Slow, task by task: for when an update has failed.

  Args:
    params: at which the loss is taken.
    reference: parameters of the reference policy.
    network: its functions.
    tasks: B tasks.
    observations: [B, N, D].
    trajectories: with leading axes [B, G].
    weights: of the reward components.
    settings: of the learner.
    grpo: of the loss.

  Returns:
    [len(FAULTS), B] bool.
  """
  judged, _ = advantages(trajectories.components, weights, grpo)

  def finite(data):
    batch = jax.tree.map(lambda leaf: leaf[None], data)
    gradient, parts = jax.grad(loss, has_aux=True)(
      params, reference, network, *batch, settings, grpo
    )
    parts['gradient'] = optax.tree.norm(gradient)
    return jnp.isfinite(jnp.stack([parts[name] for name in FAULTS]))

  data = (tasks, observations, trajectories, judged)
  return ~jax.lax.map(finite, data).T


def update(
  state: types.TrainingState,
  network: networks.Network,
  optimizer: optax.GradientTransformation,
  tasks: types.Task,
  observations: jax.Array,
  trajectories: types.Trajectory,
  weights: rewards.Weights,
  settings: Settings,
  grpo: losses.Settings,
  axis: str | None = None,
) -> tuple[types.TrainingState, dict[str, jax.Array]]:
  """One update: `num_iterations` passes of `num_minibatches` gradient steps.

  Where a loss or a gradient is not finite the parameters stay what they were
  before that step, so that `faults` finds it; the metrics show it.

  Args:
    state: before the update.
    network: its functions.
    optimizer: the gradient transformation, of `stacked` parameters.
    tasks: B tasks.
    observations: [B, N, D].
    trajectories: with leading axes [B, G].
    weights: of the reward components.
    settings: of the learner.
    grpo: of the loss.
    axis: of devices, within `jax.shard_map`, each of which is given other
      tasks, as many for every part of a minibatch, and the same state; None
      where all tasks are here.

  Returns:
    The state after the update, the same on every device, and scalars to log.
  """
  components = _of_all_tasks(trajectories.components, axis)  # [B, G, T, 4]
  judged, dead = advantages(components, weights, grpo)
  data = (tasks, observations, trajectories, _of_own_tasks(judged, axis))
  parts_of_passes = (
    settings.num_minibatches,
    settings.gradient_accumulation_steps,
  )
  batches = jax.tree.map(
    lambda leaf: leaf.reshape(*parts_of_passes, -1, *leaf.shape[1:]), data
  )

  def gradient_step(carry, batch):
    params, opt_state, sound = carry
    tree = unstacked(params, state.params)

    def gradient_of(part):
      gradient, parts = jax.grad(loss, has_aux=True)(
        tree, state.reference, network, *part, settings, grpo
      )
      return stacked(gradient), parts

    gradients, parts = jax.lax.map(gradient_of, batch)
    gradient = jax.tree.map(lambda leaf: leaf.mean(0), gradients)
    gradient, parts = _over_devices(gradient, parts, axis)
    parts['train/gradient_norm'] = optax.tree.norm(gradient)
    updates, new_opt_state = optimizer.update(gradient, opt_state, params)
    new = optax.apply_updates(params, updates), new_opt_state
    parts['train/update_norm'] = optax.tree.norm(updates)
    for name in ('loss/total', 'train/gradient_norm', 'train/update_norm'):
      sound &= jnp.isfinite(parts[name]).all()
    params, opt_state = jax.tree.map(
      lambda after, before: jnp.where(sound, after, before),
      new,
      (params, opt_state),
    )
    return (params, opt_state, sound), parts

  def one_pass(carry, _):
    return jax.lax.scan(gradient_step, carry, batches)

  (params, opt_state, _), parts = jax.lax.scan(
    one_pass,
    (stacked(state.params), state.opt_state, True),
    length=settings.num_iterations,
  )
  metrics: dict[str, Any] = jax.tree.map(jnp.mean, parts)
  metrics['policy/log_ratio_max'] = parts['policy/log_ratio_max'].max()
  metrics['train/parameter_norm'] = optax.tree.norm(params)
  metrics['reward/total'] = rewards.total(components, weights).mean()
  for i, name in enumerate(rewards.COMPONENTS):
    metrics[f'reward/{name}'] = components[..., i].mean()
  earned = components[..., _OPTIMIZATION]
  metrics['reward/optimization_last'] = earned[..., -1].mean()
  metrics['reward/optimization_best'] = earned.max(-1).mean()
  metrics['train/dead_groups'] = dead.mean()

  params = unstacked(params, state.params)
  step = state.step + 1
  reference = jax.lax.cond(
    step % settings.reference_every == 0,
    lambda: params,
    lambda: state.reference,
  )
  return state._replace(
    params=params,
    reference=reference,
    opt_state=opt_state,
    step=step,
    dead_updates=jnp.where(dead.all(), state.dead_updates + 1, 0),
  ), metrics


def _of_all_tasks(of_own: jax.Array, axis: str | None) -> jax.Array:
  """What every device has of its own tasks, one after the other: [B, ...]."""
  if axis is None:
    return of_own
  return jax.lax.all_gather(of_own, axis, tiled=True)


def _of_own_tasks(of_all: jax.Array, axis: str | None) -> jax.Array:
  """The part of this device, of what `_of_all_tasks` made."""
  if axis is None:
    return of_all
  size = len(of_all) // jax.lax.axis_size(axis)
  start = jax.lax.axis_index(axis) * size
  return jax.lax.dynamic_slice_in_dim(of_all, start, size)


def _over_devices(gradient: Any, parts: dict[str, jax.Array], axis: str | None):
  """Means over the devices, and of the log ratio the largest."""
  if axis is None:
    return gradient, parts
  largest = jax.lax.pmax(parts['policy/log_ratio_max'], axis)
  gradient, parts = jax.lax.pmean((gradient, parts), axis)
  return gradient, parts | {'policy/log_ratio_max': largest}
