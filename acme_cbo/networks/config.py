"""Settings of the network. Nothing here needs jax."""

import dataclasses
from typing import Literal


@dataclasses.dataclass(frozen=True)
class NetworkConfig:
  """Size of the network.

  Attributes:
    width: W, of the residual stream.
    num_blocks: L.
    num_heads: A, divides the width.
    mlp_factor: width of an MLP's hidden layer over W.
    num_cells: K, the cells of a domain that the policy tells apart.
    belief_input: 'exact' tells each token how probable it is, by the exact
      belief, that its variable is a parent of the target; 'none' does not.
  """

  width: int
  num_blocks: int
  num_heads: int
  mlp_factor: int
  num_cells: int
  belief_input: Literal['none', 'exact']
