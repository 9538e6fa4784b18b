"""Settings of simulators. Nothing here needs jax."""

from __future__ import annotations

from typing import NamedTuple


class SimulatorConfig(NamedTuple):
  """Source of simulators; both fields are empty if none are used.

  Attributes:
    make: 'module:function', a function without arguments that returns a
      simulator.
    command: command line that starts a simulator as a process, see
      `simulator_process.Process`.
  """

  make: str
  command: str

  def __bool__(self) -> bool:
    """Returns whether simulators are used."""
    return bool(self.make or self.command)
