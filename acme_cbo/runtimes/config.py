"""Config of the runtime. Nothing here needs jax."""

import dataclasses
from typing import Literal

from acme_cbo.infra import config_schema


@dataclasses.dataclass(frozen=True)
class RuntimeConfig(config_schema.Section):
  """Settings of actor and learner, see `runtimes.factory`."""

  kind: Literal['fused', 'mesh', 'threaded'] = config_schema.field(
    'fused',
    'actor and learner in turn on one device, or on all, or in threads',
  )
  num_actors: int = config_schema.field(
    1, 'number of actor threads, if threaded', low=1, high=1024
  )
  max_lag: int = config_schema.field(
    1,
    'largest age of the parameters of an actor, in updates; 0: lockstep',
    low=0,
    high=1024,
  )
  stall_seconds: float = config_schema.field(
    300.0,
    'seconds that the learner waits for an actor before it fails',
    low=0.1,
    high=1e6,
  )
