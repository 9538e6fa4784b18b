"""Configs of the rewards, the update and the optimizer. Needs no jax."""

from collections.abc import Sequence
import dataclasses
from typing import Any, Literal

from acme_cbo.infra import config_schema
from acme_cbo.infra import errors

_MANY = 10**7


def _weight(default: float, meaning: str) -> Any:
  return config_schema.field(
    default, f'weight of {meaning}', low=0.0, high=1000.0
  )


@dataclasses.dataclass(frozen=True)
class RewardConfig(config_schema.Section):
  """Weight of each component of the reward, and how the components are made.

  The float fields are the weights; their names are the `COMPONENTS`, whose
  functions are in `rewards.components`.
  """

  optimization: float = _weight(
    1.0, 'the optimization reward (outcome between worst and best)'
  )
  structure: float = _weight(
    0.5, "the structure reward (information gained on the target's parents)"
  )
  parent: float = _weight(
    0.3, 'the parent reward (interventions on parents of the target)'
  )
  exploration: float = _weight(
    0.1, 'the exploration reward (new variables and regions)'
  )
  outcome: Literal['expected', 'sampled'] = config_schema.field(
    'expected',
    'whether the optimization reward uses the expected or the sampled outcome',
  )
  potential: Literal['log_posterior', 'entropy'] = config_schema.field(
    'log_posterior',
    'what the structure reward pays for: a higher log posterior of the true '
    'parents, or lower entropy of the belief',
  )
  best: Literal['made', 'recommended'] = config_schema.field(
    'made',
    'what is the best so far, which grpo.simple_regret_share counts: the best '
    'intervention made, or the one made that the policy predicts to be best',
  )
  parents: Literal['belief', 'truth'] = config_schema.field(
    'belief',
    'whether the parent reward uses the belief before the intervention or the '
    'truth',
  )
  belief: Literal['learned', 'exact'] = config_schema.field(
    'learned',
    'belief behind the structure and parent rewards: that of the network, or '
    'exact inference as if the SCM was linear (at most 8 variables, 100 rows)',
  )

  @property
  def weights(self) -> tuple[float, ...]:
    """Weights in the order of `COMPONENTS`."""
    return tuple(getattr(self, name) for name in COMPONENTS)

  def with_weights(self, weights: Sequence[float]) -> 'RewardConfig':
    """Returns the same config with other weights, in that order."""
    return dataclasses.replace(
      self, **dict(zip(COMPONENTS, weights, strict=True))
    )

  def check(self, path: str) -> None:
    """Raises where all weights are 0."""
    if not any(self.weights):
      raise errors.UsageError(
        f'all weights in {path} are 0, and no intervention would be better '
        f'than another; raise one of {", ".join(COMPONENTS)}'
      )


# Names of the components of the reward; the order of every array of them.
COMPONENTS: tuple[str, ...] = tuple(
  name
  for name, field in config_schema.fields(RewardConfig).items()
  if field.kind is float
)


@dataclasses.dataclass(frozen=True)
class UpdateConfig(config_schema.Section):
  """Batch, loss and gradient steps of an update: the section `grpo`.

  Options of the loss are named as in TRL's GRPOTrainer where that has them.
  TRL's `loss_type` is missing on purpose: with a fixed horizon its choices
  differ by a constant factor.

  - `baseline`: the mean return of the group; or also the part of a return that
    follows from what was reached before, see `losses.subtract_reached`.
  - `scale_rewards`: deviation within the group (DeepSeekMath) or the batch, or
    no division at all (Dr. GRPO, Liu et al., 2025).
  - `scale_components`: where 'group', the returns of each component are divided
    by their deviation within the group before they are weighted, so that a
    component counts by its weight and not by its scale.
  - `supervision`: return-to-go or return of the episode for each step
    (DeepSeekMath, sections 4.1.2 and 4.1.3).
  - `importance_sampling_level`: one ratio per decision, per factor of it
    (variable, cell), or per sequence (GSPO, Zheng et al., 2025).
  - `simple_regret_share`: 0 counts what every step earns (cumulative regret), 1
    at every step the best of those so far (simple regret).
  """

  num_tasks: int = config_schema.field(
    64, 'number of SCMs per update, B', low=1, high=_MANY
  )
  num_generations: int = config_schema.field(
    4, 'number of rollouts per SCM, the group size G', low=2, high=4096
  )
  num_iterations: int = config_schema.field(
    1, 'number of passes over the rollouts of an update', low=1, high=100
  )
  num_minibatches: int = config_schema.field(
    4, 'number of gradient steps per pass', low=1, high=_MANY
  )
  # Half a minibatch at a time stays in the cache of the processor.
  gradient_accumulation_steps: int = config_schema.field(
    2,
    'number of parts that a minibatch is split into, to save memory',
    low=1,
    high=_MANY,
  )
  epsilon: float = config_schema.field(
    0.2, 'importance ratios are clipped below 1 - epsilon', low=1e-6, high=1.0
  )
  epsilon_high: float = config_schema.field(
    0.2,
    'importance ratios are clipped above 1 + epsilon_high',
    low=1e-6,
    high=100.0,
  )
  beta: float = _weight(0.0, 'KL(policy || reference)')
  reference_every: int = config_schema.field(
    50,
    'number of updates until the policy becomes the reference policy again',
    low=1,
    high=_MANY,
  )
  baseline: Literal['group', 'reached'] = config_schema.field(
    'group',
    'what is subtracted from a return: the mean of the group; or also the part '
    'that follows from the best outcome so far',
  )
  scale_rewards: Literal['group', 'batch', 'none'] = config_schema.field(
    'group',
    'whether advantages are divided by the standard deviation of the returns '
    'in the group, in the batch, or not at all',
  )
  scale_components: Literal['group', 'none'] = config_schema.field(
    'none',
    'whether each component is divided by its standard deviation in the group '
    'before it is weighted',
  )
  supervision: Literal['process', 'outcome'] = config_schema.field(
    'process',
    'return of an intervention: the rewards from it on (process), or of the '
    'whole episode (outcome)',
  )
  importance_sampling_level: Literal['decision', 'factor', 'sequence'] = (
    config_schema.field(
      'decision',
      'whether a decision, each of its factors (variable, cell) or the whole '
      'episode has an importance ratio',
    )
  )
  simple_regret_share: float = config_schema.field(
    0.0,
    'share of the optimization reward that counts the best outcome so far',
    low=0.0,
    high=1.0,
  )
  regret_floor: float = config_schema.field(
    0.0,
    '0: reward is linear in the regret; above 0: logarithmic for regrets above '
    'about this value',
    low=0.0,
    high=1.0,
  )
  variable_entropy: float = _weight(0.003, 'the entropy bonus of the variable')
  cell_entropy: float = _weight(0.003, 'the expected entropy bonus of the cell')
  parent_coefficient: float = _weight(0.5, 'the loss of the learned belief')
  outcome_coefficient: float = _weight(
    2.0, 'the loss of the predicted rewards of candidates'
  )
  prediction_coefficient: float = _weight(
    0.1, 'the losses of the predicted distributions of outcomes'
  )

  @property
  def steps_per_update(self) -> int:
    """Number of gradient steps per update."""
    return self.num_iterations * self.num_minibatches

  @property
  def num_parts(self) -> int:
    """Number of parts that each pass takes the gradient of."""
    return self.num_minibatches * self.gradient_accumulation_steps

  def check(self, path: str) -> None:
    """Raises unless all parts of a minibatch have as many SCMs."""
    if self.num_tasks % self.num_parts:
      raise errors.UsageError(
        f'{path}.num_minibatches times {path}.gradient_accumulation_steps is '
        f'{self.num_parts}; it must divide {path}.num_tasks, which is '
        f'{self.num_tasks}'
      )


@dataclasses.dataclass(frozen=True)
class OptimizerConfig(config_schema.Section):
  """Muon with clipping, linear warm-up and cosine decay."""

  learning_rate: float = config_schema.field(
    6e-3, 'peak learning rate', low=1e-12, high=1e6
  )
  warmup_updates: int = config_schema.field(
    5, 'number of updates of the linear warm-up', low=0, high=_MANY
  )
  final_fraction: float = config_schema.field(
    0.05,
    'ratio of the last learning rate to the peak',
    low=0.0,
    high=1.0,
  )
  max_grad_norm: float = config_schema.field(
    1.0, 'global norm that gradients are clipped to', low=1e-12, high=1e6
  )
  weight_decay: float = config_schema.field(
    1e-4, 'weight decay (matrices only)', low=0.0, high=1000.0
  )
