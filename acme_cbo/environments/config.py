"""Settings of simulators. Nothing here needs jax."""

from __future__ import annotations

from typing import NamedTuple


class SimulatorConfig(NamedTuple):
  """Where simulators come from; none of both where there are none.

  Attributes:
    make: 'module:function' that makes one, called without arguments.
    command: that starts a process which is one, see `Process`.
  """

  make: str
  command: str

  def __bool__(self) -> bool:
    """Whether there are any."""
    return bool(self.make or self.command)
