"""Settings of the runtime. Nothing here needs jax."""

import dataclasses
from typing import Literal


@dataclasses.dataclass(frozen=True)
class RuntimeConfig:
  """How actor and learner are run.

  Attributes:
    kind: 'fused', in turn on one device; 'mesh', so on all of them; 'threaded',
      beside each other.
    num_actors: of 'threaded', how many threads act.
    max_lag: of 'threaded', how many updates old the parameters may be that an
      actor acts with; 0 is lockstep.
    stall_seconds: of 'threaded', how long the learner waits for actors.
  """

  kind: Literal['fused', 'mesh', 'threaded']
  num_actors: int
  max_lag: int
  stall_seconds: float
