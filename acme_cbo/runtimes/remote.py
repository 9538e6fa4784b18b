"""Actors in processes of their own, for the learner of `threaded`.

A thread of the learner stands for each: it sends parameters and a key, and gets
experience back. Arrays go as they are in memory; both sides know which.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from acme_cbo import types
from acme_cbo.agents.grpo import agent
from acme_cbo.runtimes import experience_queue
from acme_cbo.runtimes import process_group


def pack(tree: Any) -> bytes:
  """The bytes of all arrays of a tree, one after the other."""
  leaves = jax.tree.leaves(jax.device_get(tree))
  return b''.join(np.ascontiguousarray(leaf).tobytes() for leaf in leaves)


def unpack(content: bytes, like: Any) -> Any:
  """The tree of which `pack` made bytes.

  Args:
    content: the bytes.
    like: a tree of the same structure, shapes and dtypes; arrays or
      `jax.ShapeDtypeStruct`.

  Returns:
    The tree, of numpy arrays.

  Raises:
    ValueError: the bytes are not of such a tree.
  """
  leaves, structure = jax.tree.flatten(like)
  sizes = [np.dtype(leaf.dtype).itemsize * leaf.size for leaf in leaves]
  if sum(sizes) != len(content):
    raise ValueError(
      f'{len(content)} bytes came where arrays of {sum(sizes)} are expected'
    )
  found, start = [], 0
  for leaf, size in zip(leaves, sizes, strict=True):
    part = np.frombuffer(content[start : start + size], leaf.dtype)
    found.append(part.reshape(leaf.shape))
    start += size
  return jax.tree.unflatten(structure, found)


def make_collect(
  group: process_group.Coordinator,
  number: int,
  run: Mapping[str, Any],
  state: types.TrainingState,
) -> Callable[[experience_queue.WorkItem], agent.Experience]:
  """What a thread of the learner does for a ticket.

  Args:
    group: the processes.
    number: of that which acts.
    run: the programs, compiled.
    state: any one of the run.

  Returns:
    ticket -> `agent.Experience`, of numpy arrays.
  """
  tasks, _ = run['fill'].out_info
  data, _ = run['act'].out_info
  like = tasks, data, state.key

  def act(ticket):
    answer = group.request(
      number, {'update': ticket.update}, pack((ticket.params, ticket.key))
    )
    tasks, data, key = unpack(answer['payload'], like)
    return agent.Experience(tasks, data, answer['seed'], key)

  return act


def collect_for_learner(
  group: process_group.Worker,
  interrupted: Callable[[], int | None],
  run: Mapping[str, Callable[..., Any]],
  state: types.TrainingState,
) -> None:
  """Acts for the learner, until it ends.

  Args:
    group: the processes.
    interrupted: see `process_group.Worker.commands`.
    run: the programs.
    state: any one of the run.

  Raises:
    errors.Interrupted: the run was.
    errors.NonFiniteError: see `agent.collect`.
  """
  like = state.params, state.key
  for asked in group.commands(interrupted):
    params, key = unpack(asked['payload'], like)
    tasks, data, seed, key = agent.collect(run, params, key, asked['update'])
    group.reply({'seed': seed}, pack((tasks, data, key)))
