"""Configs of episodes and of simulators. Nothing here needs jax."""

import dataclasses

from acme_cbo.infra import config_schema
from acme_cbo.infra import errors
from acme_cbo.scms import config as scms_config


@dataclasses.dataclass(frozen=True)
class HorizonConfig(config_schema.Section):
  """Size of an episode: N observations, then T interventions."""

  num_observations: int = config_schema.field(
    20,
    'number of observations before the first intervention',
    low=2,
    high=10000,
  )
  num_interventions: int = config_schema.field(
    10, 'number of interventions of an episode', low=1, high=1000
  )
  mixture: str = config_schema.field(
    '',
    'further sizes, each as likely for an update: numbers of observations, '
    "interventions, variables per set and variables, '20x10x3x8 3x9x2x4'",
    pattern=r'|\d+x\d+x\d+x\d+( \d+x\d+x\d+x\d+)*',
    form="empty or 'NxTxZxD NxTxZxD ...'",
  )

  @property
  def further_sizes(self) -> list[list[int]]:
    """Sizes [N, T, Z, D] of `mixture`."""
    return scms_config.parse_sizes(self.mixture)


@dataclasses.dataclass(frozen=True)
class SimulatorConfig(config_schema.Section):
  """Source of simulators to train on; empty where SCMs are drawn."""

  make: str = config_schema.field(
    '',
    'function that returns a simulator to train on instead of SCMs; needs '
    'runtime.kind=threaded',
    pattern=r'|\w+(\.\w+)*:\w+',
    form="empty or 'module:function'",
  )
  command: str = config_schema.field(
    '',
    'command that starts a simulator process; not together with make',
    pattern=r'.*',
    form='a command on one line',
  )

  def __bool__(self) -> bool:
    """Returns whether there is a simulator."""
    return bool(self.make or self.command)

  def check(self, path: str) -> None:
    """Raises where there are two."""
    if self.make and self.command:
      raise errors.UsageError(
        f'{path} has both make and command; leave one of them empty'
      )
