"""Config of the runtime. Nothing here needs jax."""

import dataclasses
from typing import Literal

from acme_cbo.infra import config_schema


@dataclasses.dataclass(frozen=True)
class RuntimeConfig(config_schema.Section):
  """Settings of actor and learner, see `runtimes.factory`."""

  kind: Literal['fused', 'mesh', 'threaded'] = config_schema.field(
    'fused',
    'fused: acting and learning take turns on one device; mesh: on all '
    'devices; threaded: they run at once in threads',
  )
  num_actors: int = config_schema.field(
    1,
    'number of actor threads; threaded runs of one process only',
    low=1,
    high=1024,
  )
  max_lag: int = config_schema.field(
    1,
    'largest age of the parameters of an actor, in updates; 0: actors wait for '
    'the learner',
    low=0,
    high=1024,
  )
  stall_seconds: float = config_schema.field(
    300.0,
    'seconds that the learner waits for an actor before the run fails',
    low=0.1,
    high=1e6,
  )
