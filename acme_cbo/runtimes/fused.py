"""Synchronous runtime: acts and learns in turn, in one process on one device.

The layout of actor and learner is that of Anakin in Podracer (Hessel et al.,
2021, https://arxiv.org/abs/2104.06272). The other runtimes derive from it.
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
  """Runtime on one device, and base class of all runtimes.

  Attributes:
    layout: name of the placement of arrays on devices; part of the key under
      which compiled programs are cached.
    devices: devices that the programs run on.
    programs: jitted programs by name, see `agent.programs`.
  """

  layout = 'one device'

  def __init__(self, parts: agent.Parts):
    """Creates the runtime on the first device of this process.

    Args:
      parts: parts of an update.
    """
    self.devices: tuple[jax.Device, ...] = tuple(jax.local_devices()[:1])
    self.programs = agent.programs(parts)

  def trace(self) -> Iterator[tuple[str, stages.Traced]]:
    """Traces the programs of an update without running them.

    Yields:
      Name and traced program of each.
    """
    return agent.trace_programs(self.programs)

  def init_state(
    self, programs: Mapping[str, Callable[..., Any]], seed: int
  ) -> types.TrainingState:
    """Returns the state before the first update, as `to_local` gives it.

    Args:
      programs: programs by name, compiled or not.
      seed: random seed of the run.

    Raises:
      errors.UsageError: the prior cannot fill a batch of tasks.
    """
    key = self.device_put(jax.random.PRNGKey(seed))
    priors.require_complete(*programs['fill'](key))
    return self.to_local(programs['init'](key))

  def device_put(self, tree: agent.TreeT) -> agent.TreeT:
    """Places arrays of this process as the programs expect them.

    Args:
      tree: tree of arrays.

    Returns:
      The same tree on the devices of the runtime.
    """
    return tree

  def to_local(self, tree: agent.TreeT) -> agent.TreeT:
    """Returns arrays of the runtime in a form that any program can use.

    Args:
      tree: tree of arrays on the devices of the runtime.

    Returns:
      The same tree on one device of this process.
    """
    return tree

  def session(
    self,
    programs: Mapping[str, Callable[..., Any]],
    state: types.TrainingState,
  ) -> contextlib.AbstractContextManager[agent.Step]:
    """Returns a context manager that yields the function for updates.

    Threads and other resources of the runtime exist inside it only.

    Args:
      programs: programs by name, compiled or not.
      state: state before the first update, as `device_put` gives it.
    """
    del state
    return contextlib.nullcontext(agent.make_step(programs))

  def run_worker(
    self,
    get_signal: Callable[[], int | None],
    programs: Mapping[str, Callable[..., Any]],
    state: types.TrainingState,
  ) -> None:
    """Takes part in the updates of process 0 until it ends the run.

    This is the main loop of every other process.

    Args:
      get_signal: function that returns the number of a received signal, or
        None.
      programs: programs by name, compiled or not.
      state: state before the first update.

    Raises:
      errors.Interrupted: a signal ended the run.
    """
    raise NotImplementedError('this runtime runs in a single process')
