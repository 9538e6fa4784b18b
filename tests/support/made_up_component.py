"""A fifth component of the reward, to test that nothing else lists them."""

from collections.abc import Iterator
import contextlib
import dataclasses
from unittest import mock

from acme_cbo.agents.grpo import config
from acme_cbo.agents.grpo import rewards
from acme_cbo.experiments import config as experiments_config
from acme_cbo.infra import config_schema


@dataclasses.dataclass(frozen=True)
class RewardConfig(config.RewardConfig):
  novelty: float = config_schema.field(0.7, 'weight', low=0.0, high=1.0)


@dataclasses.dataclass(frozen=True)
class GRPOConfig(experiments_config.GRPOConfig):
  rewards: RewardConfig = dataclasses.field(default_factory=RewardConfig)


@contextlib.contextmanager
def added() -> Iterator[None]:
  """Adds `novelty` to the components, with the weights of `RewardConfig`."""
  names = (*config.COMPONENTS, 'novelty')
  with (
    mock.patch.object(config, 'COMPONENTS', names),
    mock.patch.object(rewards, 'COMPONENTS', names),
  ):
    yield
