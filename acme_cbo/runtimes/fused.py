"""Actor and learner in turn, in one process on one device.

What the other runtimes run in other ways is here: what an update is made of,
its programs, and its two halves, with all that they refuse.
"""

from collections.abc import Callable, Iterator, Mapping
import contextlib
from typing import Any

import jax
from jax import stages

from acme_cbo import types
from acme_cbo.agents.grpo import agent
from acme_cbo.scms import priors


class Fused:
  """The runtime of this file, and what every runtime has.

  Attributes:
    layout: of arrays on devices, by which programs are told apart.
    devices: that its programs are of.
    programs: see `programs`.
  """

  layout = 'one device'

  def __init__(self, parts: agent.Parts):
    """Takes the first device of this process."""
    self.devices: tuple[jax.Device, ...] = tuple(jax.local_devices()[:1])
    self.programs = agent.programs(parts)

  def trace(self) -> Iterator[tuple[str, stages.Traced]]:
    """Traces the programs that every update calls; see `trace`."""
    return agent.trace(self.programs)

  def init_state(
    self, run: Mapping[str, Callable[..., Any]], seed: int
  ) -> types.TrainingState:
    """The state before the first update, see `to_local`.

    Args:
      run: its programs, compiled or not.
      seed: of the run.

    Raises:
      errors.UsageError: training could not draw from the prior.
    """
    key = self.device_put(jax.random.PRNGKey(seed))
    priors.require_complete(*run['fill'](key))
    return self.to_local(run['init'](key))

  def device_put(self, tree: agent.TreeT) -> agent.TreeT:
    """Arrays of this process as the programs take them."""
    return tree

  def to_local(self, tree: agent.TreeT) -> agent.TreeT:
    """What of a state any other program of this process can take."""
    return tree

  def session(
    self,
    run: Mapping[str, Callable[..., Any]],
    state: types.TrainingState,
  ) -> contextlib.AbstractContextManager[agent.Step]:
    """What makes updates, while it is entered.

    Args:
      run: its programs, compiled or not.
      state: that the first update will be given.
    """
    del state
    return contextlib.nullcontext(agent.make_step(run))

  def run_worker(
    self,
    interrupted: Callable[[], int | None],
    run: Mapping[str, Callable[..., Any]],
    state: types.TrainingState,
  ) -> None:
    """Does what process 0 says, in any other process, until it ends.

    Args:
      interrupted: see `process_group.Worker.commands`.
      run: its programs, compiled or not.
      state: that the run begins with.

    Raises:
      errors.Interrupted: the run was.
    """
    raise NotImplementedError('it runs in one process')
