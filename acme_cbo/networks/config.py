"""Config of the network. Nothing here needs jax."""

import dataclasses
from typing import Literal

from acme_cbo.infra import config_schema
from acme_cbo.infra import errors


@dataclasses.dataclass(frozen=True)
class NetworkConfig(config_schema.Section):
  """Size of the transformer, and its inputs.

  The default of a field that is added must leave the network as it was: saved
  policies lack the field.
  """

  width: int = config_schema.field(
    48, 'width of the residual stream, W', low=4, high=4096
  )
  num_blocks: int = config_schema.field(
    3, 'number of transformer blocks, L', low=1, high=64
  )
  num_heads: int = config_schema.field(
    3, 'number of attention heads, a divisor of the width', low=1, high=64
  )
  mlp_factor: int = config_schema.field(
    2, 'ratio of the hidden width of an MLP to the width', low=1, high=16
  )
  # The best intervention is searched for on the same cells: fewer miss it.
  num_cells: int = config_schema.field(
    16, 'number of cells that the policy cuts a domain into, K', low=8, high=256
  )
  belief_input: Literal['none', 'exact'] = config_schema.field(
    'none',
    'whether tokens carry the exact probability that their variable is a '
    'parent, as if the SCM was linear (at most 8 variables, 100 rows)',
  )

  def check(self, path: str) -> None:
    """Raises unless the heads divide the width."""
    if self.width % self.num_heads:
      raise errors.UsageError(
        f'{path}.num_heads is {self.num_heads}; it must divide the width, '
        f'which is {self.width}'
      )
