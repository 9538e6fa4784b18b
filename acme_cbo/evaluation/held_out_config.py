"""Config of the held-out evaluation of a training run. Needs no jax."""

import dataclasses

from acme_cbo.infra import config_schema


@dataclasses.dataclass(frozen=True)
class HeldOutConfig(config_schema.Section):
  """The held-out SCMs that every evaluation of a run scores the policy on."""

  # Linear or nonlinear SCMs are then 5 or more, the least for an interval.
  num_tasks: int = config_schema.field(
    1024, 'number of held-out SCMs', low=10, high=10**6
  )
  # The same for every training seed.
  seed: int = config_schema.field(
    1, 'random seed of the held-out SCMs', low=0, high=2**31 - 1
  )
  bank_size: int = config_schema.field(
    64,
    'number of noise draws behind the expected outcome of an intervention',
    low=8,
    high=65536,
  )
  confidence: float = config_schema.field(
    0.99,
    'confidence level of the intervals in the results',
    low=0.5,
    high=0.9999,
  )
