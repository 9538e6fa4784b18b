"""Actors in other processes, for the learner of `threaded`.

One thread of the learner's process stands for each of these actors: it sends
parameters and a random key and receives experience. Arrays are sent as raw
bytes; structure, shapes and dtypes are known on both sides.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from acme_cbo import types
from acme_cbo.agents.grpo import agent
from acme_cbo.infra import errors
from acme_cbo.runtimes import connection
from acme_cbo.runtimes import experience_queue
from acme_cbo.runtimes import process_group


def pack(tree: Any) -> bytes:
  """Concatenates the bytes of all arrays of a tree.

  Args:
    tree: tree of arrays.

  Returns:
    Bytes of its leaves in their order.
  """
  leaves = jax.tree.leaves(jax.device_get(tree))
  return b''.join(np.ascontiguousarray(leaf).tobytes() for leaf in leaves)


def num_bytes(like: Any) -> int:
  """Returns the number of bytes that `pack` returns.

  Args:
    like: see `unpack`.
  """
  return sum(
    np.dtype(leaf.dtype).itemsize * leaf.size for leaf in jax.tree.leaves(like)
  )


def unpack(content: bytes, like: Any) -> Any:
  """Inverts `pack`.

  Args:
    content: return value of `pack`.
    like: tree of arrays or `jax.ShapeDtypeStruct` with the same structure,
      shapes and dtypes.

  Returns:
    Tree of numpy arrays.

  Raises:
    ValueError: the number of bytes does not match the template.
  """
  leaves, structure = jax.tree.flatten(like)
  if num_bytes(leaves) != len(content):
    raise ValueError(
      f'received {len(content)} bytes, but the arrays have {num_bytes(leaves)}'
    )
  arrays, start = [], 0
  for leaf in leaves:
    size = num_bytes(leaf)
    part = np.frombuffer(content[start : start + size], leaf.dtype)
    arrays.append(part.reshape(leaf.shape))
    start += size
  return jax.tree.unflatten(structure, arrays)


def make_collect(
  group: process_group.Coordinator,
  process_id: int,
  programs: Mapping[str, Any],
  state: types.TrainingState,
) -> Callable[[experience_queue.WorkItem], agent.Experience]:
  """Returns the function of a thread that stands for an actor process.

  Args:
    group: processes that train together.
    process_id: number of the actor process.
    programs: compiled programs by name.
    state: any training state of the run, for its shapes.

  Returns:
    Function from a work item to its `agent.Experience`, of numpy arrays.
  """

  def collect(item: experience_queue.WorkItem) -> agent.Experience:
    own = agent.programs_of_update(programs, item.update)
    tasks, _ = own['fill'].out_info
    data, _ = own['act'].out_info
    like = tasks, data, state.key
    reply = group.request(
      process_id, item.update, pack((item.params, item.key)), num_bytes(like)
    )
    tasks, data, key = unpack(reply['payload'], like)
    seed = connection.printable(reply.get('seed'))
    return agent.Experience(tasks, data, seed, key)

  return collect


def collect_for_learner(
  group: process_group.Worker,
  get_signal: Callable[[], int | None],
  programs: Mapping[str, Callable[..., Any]],
  state: types.TrainingState,
) -> None:
  """Collects experience on request of process 0 until it ends the run.

  Args:
    group: processes that train together.
    get_signal: see `process_group.Worker.commands`.
    programs: programs by name.
    state: any training state of the run, for its shapes.

  Raises:
    errors.Interrupted: a signal ended the run.
    errors.NonFiniteError: see `agent.collect`.
    errors.PeerError: process 0 sent parameters of another size.
  """
  like = state.params, state.key
  for command in group.commands(get_signal):
    update = command['update']
    try:
      params, key = unpack(command['payload'], like)
    except ValueError as error:
      raise errors.PeerError(f'{group.coordinator}: {error}') from error
    tasks, data, seed, key = agent.collect(programs, params, key, update)
    group.reply(update, {'seed': seed}, pack((tasks, data, key)))
