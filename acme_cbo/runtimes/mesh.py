"""The update of `fused` over many devices, of this process or of several.

Tasks are shared out, so that every device acts and learns on some of them; a
group is never split. Parameters are everywhere, and so are the tasks as they
are drawn: that takes less than it would to send them. What is exchanged are
rewards, from which advantages are made, and gradients.
"""

from collections.abc import Callable, Iterator, Mapping
import contextlib
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
  """All devices, each with an equal share of the tasks of every gradient step.

  Attributes:
    devices: in the order of the mesh.
    programs: as `agent.programs`, whose arrays are on all devices: whole on
      each of them but what 'act' brings, which is shared out by tasks.
  """

  layout = 'mesh'

  def __init__(
    self,
    parts: agent.Parts,
    group: process_group.Group = process_group.SINGLE_PROCESS,
  ):
    """Lays out an update over all devices of all processes.

    Args:
      parts: of the update.
      group: the processes.

    Raises:
      errors.UsageError: the tasks cannot be shared out evenly.
    """
    self._group = group
    self.devices = tuple(jax.devices())
    settings = parts.settings
    num_parts = settings.num_minibatches * settings.gradient_accumulation_steps
    size = parts.num_tasks // num_parts
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
    self._whole = NamedSharding(mesh, PartitionSpec())
    self.programs = _programs(parts, mesh, num_parts)

  def device_put(self, tree: agent.TreeT) -> agent.TreeT:
    """Copies of arrays that process 0 has, on all of the devices.

    Raises:
      errors.PeerError: another process was lost.
    """

    def whole(leaf):
      return jax.make_array_from_callback(
        leaf.shape, self._whole, lambda index: leaf[index]
      )

    self._group.barrier()
    with self._group.explain_failures():
      if self._group.size > 1:
        tree = multihost_utils.broadcast_one_to_all(tree)
      return jax.tree.map(whole, tree)

  def to_local(self, tree: agent.TreeT) -> agent.TreeT:
    """Arrays that every device has whole, as the first of this process does."""
    return jax.tree.map(lambda leaf: leaf.addressable_data(0), tree)

  @contextlib.contextmanager
  def session(
    self, run: Mapping[str, Callable[..., Any]], state: types.TrainingState
  ) -> Iterator[agent.Step]:
    """What makes updates, in all processes; see `fused.Fused.session`."""
    del state
    group, step = self._group, agent.make_step(run)
    assert isinstance(group, process_group.SingleProcess)

    def led(state):
      group.command({'step': True})
      with group.explain_failures():
        return step(state)

    yield led

  def run_worker(
    self,
    interrupted: Callable[[], int | None],
    run: Mapping[str, Callable[..., Any]],
    state: types.TrainingState,
  ) -> None:
    """Makes the updates that process 0 makes; see `fused.Fused.run_worker`."""
    group, step = self._group, agent.make_step(run)
    assert isinstance(group, process_group.Worker)
    state = self.device_put(self.to_local(state))
    for _ in group.commands(interrupted):
      with group.explain_failures():
        state, _ = step(state)


def _programs(
  parts: agent.Parts, mesh: jax.sharding.Mesh, num_parts: int
) -> dict[str, stages.Wrapped]:
  """`agent.programs` over a mesh, a share of each part on every device."""
  size = mesh.size
  everywhere, shared = PartitionSpec(), PartitionSpec(_AXIS)
  by_column = PartitionSpec(None, _AXIS)
  whole, by_task = NamedSharding(mesh, everywhere), NamedSharding(mesh, shared)

  def own(of_all: Any) -> Any:
    """Of what there is of every task, in their order, that of this device's."""

    def dealt(leaf):
      rest = leaf.shape[1:]
      of_parts = leaf.reshape(num_parts, size, -1, *rest)
      mine = jax.lax.dynamic_index_in_dim(
        of_parts, jax.lax.axis_index(_AXIS), axis=1, keepdims=False
      )
      return mine.reshape(-1, *rest)

    return jax.tree.map(dealt, of_all)

  def in_order(faults: jax.Array) -> jax.Array:
    """[C, B] as the devices have them, one after the other, by task."""
    by_device = faults.reshape(len(faults), size, num_parts, -1)
    return by_device.swapaxes(1, 2).reshape(faults.shape)

  def over_devices(function, taken, given):
    # That arrays are the same everywhere is for the tests to find out.
    return jax.shard_map(
      function, mesh=mesh, in_specs=taken, out_specs=given, check_vma=False
    )

  def act(params, key, tasks):
    data, faults = over_devices(
      lambda params, keys, tasks: agent.act_on_each(
        params, own(keys), own(tasks), parts
      ),
      (everywhere, everywhere, everywhere),
      (shared, by_column),
    )(params, agent.task_keys(key, tasks), tasks)
    return data, in_order(faults)

  def learn(state, tasks, observations, trajectories):
    return over_devices(
      lambda state, tasks, observations, trajectories: agent.learn(
        state, own(tasks), observations, trajectories, parts, _AXIS
      ),
      (everywhere, everywhere, shared, shared),
      everywhere,
    )(state, tasks, observations, trajectories)

  def learner_faults(state, tasks, observations, trajectories):
    # Task by task, and advantages may be of all of them: gathered first.
    def in_order_of_tasks(leaf):
      by_device = leaf.reshape(size, num_parts, -1, *leaf.shape[1:])
      return by_device.swapaxes(0, 1).reshape(leaf.shape)

    observations, trajectories = jax.tree.map(
      in_order_of_tasks, (observations, trajectories)
    )
    return agent.learner_faults(state, tasks, observations, trajectories, parts)

  def jit(function, taken, given, **kwargs):
    return jax.jit(function, in_shardings=taken, out_shardings=given, **kwargs)

  of_data = (whole, whole, by_task, by_task)
  return {
    'init': jit(lambda key: agent.init(key, parts), whole, whole),
    'fill': jit(
      lambda key: priors.fill(key, parts.prior, parts.num_tasks), whole, whole
    ),
    'act': jit(act, (whole, whole, whole), (by_task, whole)),
    'learn': jit(learn, of_data, whole, donate_argnums=0),
    'faults': jit(learner_faults, of_data, whole),
  }
