"""Settings of the update. Nothing here needs jax."""

import dataclasses
from typing import Literal, NamedTuple


@dataclasses.dataclass(frozen=True)
class BatchConfig:
  """Size of an update: B SCMs, a group of G rollouts on each."""

  num_tasks: int
  num_generations: int


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
  """Muon with clipping, linear warm-up and cosine decay.

  Attributes:
    learning_rate: at its highest.
    warmup_updates: updates over which it rises.
    final_fraction: share of it that is left at the end.
    max_grad_norm: global norm at which a gradient is clipped.
    weight_decay: of the matrices.
  """

  learning_rate: float
  warmup_updates: int
  final_fraction: float
  max_grad_norm: float
  weight_decay: float


@dataclasses.dataclass(frozen=True)
class LearnerConfig:
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


@dataclasses.dataclass(frozen=True)
class LossConfig:
  """Options of the loss, named as in TRL's GRPOTrainer where that has them.

  TRL's `loss_type` is missing on purpose: with a fixed horizon its choices
  differ by a constant factor.

  Attributes:
    epsilon: lower bound of the clipped importance ratio is 1 - epsilon.
    epsilon_high: upper bound is 1 + epsilon_high.
    beta: weight of KL(policy || reference).
    baseline: what a return is compared with: the mean of its 'group'; or, where
      they had 'reached' more or less until then, that and what this has to do
      with it (see `without_reached`).
    scale_rewards: divide advantages by the deviation within the 'group', over
      the 'batch', or not at all ('none': Dr. GRPO, Liu et al., 2025).
    scale_components: 'group' divides the returns of each component by their
      deviation within the group before they are weighted, so that a component
      counts by its weight and not by its scale; 'none' leaves them.
    supervision: 'process' gives each step its return-to-go, 'outcome' gives
      all steps the return of the episode (DeepSeekMath, sections 4.1.2, 4.1.3).
    importance_sampling_level: one ratio a 'decision', one for each 'factor'
      of it (variable, cell), or one for the 'sequence' (GSPO, Zheng et al.,
      2025).
    simple_regret_share: how much of what `optimization` earns is for the best
      so far: 0 counts what every step earns (cumulative regret), 1 at every
      step the best of those until then (simple regret).
    regret_floor: of two regrets it counts by which factor they differ, down to
      about this one; 0 counts their difference.
    variable_entropy: weight of the entropy of the variable.
    cell_entropy: weight of the expected entropy of the cell.
  """

  epsilon: float
  epsilon_high: float
  beta: float
  baseline: Literal['group', 'reached']
  scale_rewards: Literal['group', 'batch', 'none']
  scale_components: Literal['group', 'none']
  supervision: Literal['process', 'outcome']
  importance_sampling_level: Literal['decision', 'factor', 'sequence']
  simple_regret_share: float
  regret_floor: float
  variable_entropy: float
  cell_entropy: float


class RewardWeights(NamedTuple):
  """Weight of each component in the reward."""

  optimization: float = 1.0
  structure: float = 0.5
  parent: float = 0.3
  exploration: float = 0.1


@dataclasses.dataclass(frozen=True)
class RewardKinds:
  """What the components are made of.

  Attributes:
    outcome: `optimization` is of the 'expected' outcome, or of the noisy one
      that was 'sampled'.
    potential: `structure` is the gain in the 'log_posterior' of the true
      parents, or the fall in the 'entropy' of the belief.
    parents: `parent` is by the 'belief' before the intervention, or the
      'truth'.
    belief: 'learned', the network's, or 'exact', that of a linear SCM of at
      most 8 variables.
  """

  outcome: Literal['expected', 'sampled']
  potential: Literal['log_posterior', 'entropy']
  parents: Literal['belief', 'truth']
  belief: Literal['learned', 'exact']
