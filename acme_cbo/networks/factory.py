"""Makes the network that a config describes."""

from acme_cbo.networks import base
from acme_cbo.networks import config
from acme_cbo.networks import transformer


def make(architecture: config.NetworkConfig) -> base.Network:
  """Returns the network of a config, for any D, N and T.

  Another kind of network needs a module like `transformer`, a field of
  `config.NetworkConfig`, and its case here.
  """
  return transformer.make(architecture)
