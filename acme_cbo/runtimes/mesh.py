"""Data-parallel runtime over the devices of one or several processes.

It makes the update of `fused`. Every device acts and learns on an equal share
of the tasks; groups are not split. Parameters are replicated, and so is the
sampling of tasks, which is cheaper than sending them. Devices exchange the
rewards, for the advantages, and the gradients.
"""

from collections.abc import Callable, Iterator, Mapping
import contextlib
import functools
from typing import Any

import jax
from jax import stages
from jax.experimental import multihost_utils
from jax.sharding import AxisType
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec

from acme_cbo import types
from acme_cbo.agents.grpo import agent
from acme_cbo.infra import errors
from acme_cbo.runtimes import fused
from acme_cbo.runtimes import process_group
from acme_cbo.scms import priors

_AXIS = 'tasks'


class Mesh(fused.Fused):
  """Runtime in which all devices share the tasks of every gradient step.

  Attributes:
    devices: devices in the order of the mesh.
    programs: programs of `agent.programs` over all devices. Arrays are
      replicated, except for the observations and trajectories of 'act', which
      are sharded by task.
  """

  layout = 'mesh'

  def __init__(
    self,
    parts: agent.Parts,
    group: process_group.Group = process_group.SINGLE_PROCESS,
  ):
    """Creates the runtime on all devices of all processes.

    Args:
      parts: parts of an update.
      group: processes that train together.

    Raises:
      errors.UsageError: the tasks cannot be divided evenly.
    """
    self._group = group
    self.devices = tuple(jax.devices())
    num_parts = parts.update.num_parts
    size = parts.update.num_tasks // num_parts
    if size % len(self.devices):
      raise errors.UsageError(
        f"config.runtime.kind is 'mesh', and {len(self.devices)} devices share "
        f'each part of a minibatch, which has {size} SCMs '
        '(config.grpo.num_tasks over num_minibatches and '
        'gradient_accumulation_steps); make it a multiple of '
        f'{len(self.devices)}'
      )
    mesh = jax.make_mesh(
      (len(self.devices),), (_AXIS,), (AxisType.Auto,), devices=self.devices
    )
    self._replicated = NamedSharding(mesh, PartitionSpec())
    make = functools.partial(_programs, mesh=mesh, num_parts=num_parts)
    whole = self._replicated
    start = jax.jit(
      lambda key: agent.init(key, parts),
      in_shardings=whole,
      out_shardings=whole,
    )
    self.programs = {'init': start} | agent.programs_of_all_sizes(parts, make)

  def device_put(self, tree: agent.TreeT) -> agent.TreeT:
    """Replicates the arrays of process 0 on all devices.

    Args:
      tree: tree of arrays; of several processes, only those of process 0 count.

    Returns:
      Replicated arrays.

    Raises:
      errors.PeerError: another process is lost.
    """

    def replicate(leaf):
      return jax.make_array_from_callback(
        leaf.shape, self._replicated, lambda index: leaf[index]
      )

    self._group.barrier()
    with self._group.explain_failures():
      if self._group.size > 1:
        tree = multihost_utils.broadcast_one_to_all(tree)
      return jax.tree.map(replicate, tree)

  def to_local(self, tree: agent.TreeT) -> agent.TreeT:
    """Returns the copies of replicated arrays on this process's first device.

    Args:
      tree: tree of replicated arrays.
    """
    return jax.tree.map(lambda leaf: leaf.addressable_data(0), tree)

  @contextlib.contextmanager
  def session(
    self,
    programs: Mapping[str, Callable[..., Any]],
    state: types.TrainingState,
  ) -> Iterator[agent.Step]:
    """Yields the function for updates in all processes.

    See `fused.Fused.session`.

    Args:
      programs: programs by name, compiled or not.
      state: state before the first update, as `device_put` gives it.
    """
    del state
    group, step = self._group, agent.make_step(programs)
    assert isinstance(group, process_group.SingleProcess)

    def step_all(state):
      group.command({'step': True})
      with group.explain_failures():
        return step(state)

    yield step_all

  def run_worker(
    self,
    get_signal: Callable[[], int | None],
    programs: Mapping[str, Callable[..., Any]],
    state: types.TrainingState,
  ) -> None:
    """Makes the updates that process 0 makes; see `fused.Fused.run_worker`."""
    group, step = self._group, agent.make_step(programs)
    assert isinstance(group, process_group.Worker)
    state = self.device_put(self.to_local(state))
    for _ in group.commands(get_signal):
      with group.explain_failures():
        state, _ = step(state)


def _programs(
  parts: agent.Parts, mesh: jax.sharding.Mesh, num_parts: int
) -> dict[str, stages.Wrapped]:
  """Returns the programs of one size, see `agent.programs`, over a mesh.

  Args:
    parts: parts of an update of this size.
    mesh: mesh of all devices, with one axis.
    num_parts: number of parts into which an update divides its tasks, one for
      each gradient computation; every device has an equal share of each.

  Returns:
    Jitted programs by name.
  """
  size = mesh.size
  replicated, sharded = PartitionSpec(), PartitionSpec(_AXIS)
  by_column = PartitionSpec(None, _AXIS)
  whole = NamedSharding(mesh, replicated)
  by_task = NamedSharding(mesh, sharded)

  def select_shard(tree: Any) -> Any:
    """Selects the tasks of this device, [B, ...] -> [B / devices, ...]."""

    def select(leaf):
      rest = leaf.shape[1:]
      by_part = leaf.reshape(num_parts, size, -1, *rest)
      shard = jax.lax.dynamic_index_in_dim(
        by_part, jax.lax.axis_index(_AXIS), axis=1, keepdims=False
      )
      return shard.reshape(-1, *rest)

    return jax.tree.map(select, tree)

  def in_task_order(mask: jax.Array) -> jax.Array:
    """Reorders a [C, B] mask from the order of devices to that of tasks."""
    by_device = mask.reshape(len(mask), size, num_parts, -1)
    return by_device.swapaxes(1, 2).reshape(mask.shape)

  def over_devices(function, in_specs, out_specs):
    # Tests check instead that replicated results are equal on all devices.
    return jax.shard_map(
      function,
      mesh=mesh,
      in_specs=in_specs,
      out_specs=out_specs,
      check_vma=False,
    )

  def act(params, key, tasks):
    data, non_finite_mask = over_devices(
      lambda params, keys, tasks: agent.act_with_keys(
        params, select_shard(keys), select_shard(tasks), parts
      ),
      (replicated, replicated, replicated),
      (sharded, by_column),
    )(params, agent.task_keys(key, tasks), tasks)
    return data, in_task_order(non_finite_mask)

  def learn(state, tasks, observations, trajectories):
    return over_devices(
      lambda state, tasks, observations, trajectories: agent.learn(
        state, select_shard(tasks), observations, trajectories, parts, _AXIS
      ),
      (replicated, replicated, sharded, sharded),
      replicated,
    )(state, tasks, observations, trajectories)

  def learner_non_finite_mask(state, tasks, observations, trajectories):
    # Advantages may depend on all tasks, so that their data are gathered first.
    def gather_in_task_order(leaf):
      by_device = leaf.reshape(size, num_parts, -1, *leaf.shape[1:])
      return by_device.swapaxes(0, 1).reshape(leaf.shape)

    observations, trajectories = jax.tree.map(
      gather_in_task_order, (observations, trajectories)
    )
    return agent.learner_non_finite_mask(
      state, tasks, observations, trajectories, parts
    )

  def jit(function, in_shardings, out_shardings, **kwargs):
    return jax.jit(
      function,
      in_shardings=in_shardings,
      out_shardings=out_shardings,
      **kwargs,
    )

  data_shardings = (whole, whole, by_task, by_task)
  return {
    'fill': jit(
      lambda key: priors.fill(key, parts.prior, parts.update.num_tasks),
      whole,
      whole,
    ),
    'act': jit(act, (whole, whole, whole), (by_task, whole)),
    'learn': jit(learn, data_shardings, whole, donate_argnums=0),
    'faults': jit(learner_non_finite_mask, data_shardings, whole),
  }
