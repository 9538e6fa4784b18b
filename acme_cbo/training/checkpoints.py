"""Checkpoints by Orbax, saved synchronously, checked when they are restored.

A checkpoint has three items: `state`, the arrays; `leaves`, the dtype and shape
of each of them by path; `metadata`, what the caller wants to know about it.
"""

from __future__ import annotations

from collections.abc import Mapping
import json
import os
import pathlib
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

StateT = TypeVar('StateT')

# Differences that an error message spells out.
_MAX_SHOWN = 5


class Checkpointer:
  """Saves and restores states by step. Use it as a context manager.

  The leaves of a state are jax arrays, typed keys of `jax.random.key` among
  them, but none weakly typed: a restore would lose that.
  """

  def __init__(
    self, directory: str | os.PathLike[str], max_to_keep: int | None = None
  ):
    """Opens a directory of checkpoints, which the first save creates.

    Args:
      directory: holds a directory for each step.
      max_to_keep: how many of the latest checkpoints to keep; None is all.
    """
    self._directory = pathlib.Path(directory).absolute()
    # An asynchronous save may be lost after it returned True.
    self._manager = ocp.CheckpointManager(
      self._directory,
      options=ocp.CheckpointManagerOptions(
        max_to_keep=max_to_keep, create=False, enable_async_checkpointing=False
      ),
    )

  def __enter__(self) -> Checkpointer:
    """Returns itself."""
    return self

  def __exit__(self, *unused: object) -> None:
    """Closes it."""
    self.close()

  def save(self, step: int, state: Any, metadata: Mapping[str, Any]) -> None:
    """Saves a state; when it returns, the checkpoint is on the disk.

    Args:
      step: the number of updates made; more than in any earlier checkpoint.
      state: a tree of jax arrays.
      metadata: values that JSON can hold, NaN and infinity excluded.
    """
    metadata = dict(metadata)
    json.dumps(metadata, allow_nan=False)  # Raises before anything is written.
    _check_leaves(state)
    self._directory.mkdir(parents=True, exist_ok=True)
    saved = self._manager.save(
      step,
      args=ocp.args.Composite(
        state=ocp.args.StandardSave(state),
        leaves=ocp.args.JsonSave(_describe(state)),
        metadata=ocp.args.JsonSave(metadata),
      ),
    )
    if not saved:
      raise RuntimeError(
        f'Orbax did not save step {step} in {self._directory}: a step must be'
        f' later than all that are there ({self._steps()}).'
      )

  def restore(
    self, template_state: StateT, step: int | None = None
  ) -> tuple[StateT, dict[str, Any]]:
    """Restores a state and its metadata.

    Args:
      template_state: has the structure, shapes and dtypes that are expected;
        arrays or what `jax.eval_shape` gives.
      step: which checkpoint; None is the latest.

    Returns:
      The state and the metadata.
    """
    wanted = self.latest_step() if step is None else step
    if wanted is None:
      raise FileNotFoundError(f'{self._directory} has no checkpoints.')
    if wanted not in self._manager.all_steps():
      raise FileNotFoundError(
        f'{self._directory} has no checkpoint of step {wanted}; the steps that'
        f' are there: {self._steps()}.'
      )
    path = self._directory / str(wanted)
    for item in ('state', 'leaves', 'metadata'):
      if not (path / item).is_dir():
        raise FileNotFoundError(
          f'The checkpoint {path} is damaged: it has no {item}; the steps that'
          f' are there: {self._steps()}.'
        )
    leaves = self._manager.restore(
      wanted, args=ocp.args.Composite(leaves=ocp.args.JsonRestore())
    )['leaves']
    _check_match(path, leaves, template_state)
    abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, template_state)
    restored = self._manager.restore(
      wanted,
      args=ocp.args.Composite(
        state=ocp.args.StandardRestore(abstract),
        metadata=ocp.args.JsonRestore(),
      ),
    )
    # Orbax ties arrays to their device; programs that were compiled for arrays
    # that are not tied would be compiled anew.
    state = jax.tree.map(jnp.asarray, jax.device_get(restored['state']))
    return state, restored['metadata']

  def latest_step(self, before: int | None = None) -> int | None:
    """Returns the latest step, or None where there is no checkpoint.

    Args:
      before: where to look: at the steps below it; None is everywhere.
    """
    steps = self._manager.all_steps()
    return max((s for s in steps if before is None or s < before), default=None)

  def close(self) -> None:
    """Releases what Orbax holds; a second call does nothing."""
    self._manager.close()

  def _steps(self) -> str:
    return ', '.join(map(str, sorted(self._manager.all_steps()))) or 'none'


def _by_path(state: Any) -> dict[str, Any]:
  leaves = jax.tree_util.tree_leaves_with_path(state)
  return {jax.tree_util.keystr(path): leaf for path, leaf in leaves}


def _describe(state: Any) -> dict[str, str]:
  """Returns dtype and shape by path, such as `{'.step': 'int32[]'}`."""
  return {
    path: f'{leaf.dtype}[{",".join(map(str, leaf.shape))}]'
    for path, leaf in _by_path(state).items()
  }


def _check_leaves(state: Any) -> None:
  for path, leaf in _by_path(state).items():
    if not isinstance(leaf, jax.Array):
      raise TypeError(
        f'Leaf {path} of the state is a {type(leaf).__name__}; every leaf of a'
        ' checkpoint must be a jax array.'
      )
    if jax.typeof(leaf).weak_type:
      raise TypeError(
        f'Leaf {path} of the state is weakly typed, which a restore would lose;'
        ' give it a dtype, as in jnp.array(0, jnp.int32).'
      )


def _check_match(path: pathlib.Path, saved: dict[str, str], template: Any):
  """Raises unless a checkpoint has exactly the leaves of a template."""
  expected = _describe(template)
  differences = [
    f'{leaf} is {saved.get(leaf, "missing")} and should be'
    f' {expected.get(leaf, "absent")}'
    for leaf in sorted(saved.keys() | expected.keys())
    if saved.get(leaf) != expected.get(leaf)
  ]
  if differences:
    more = len(differences) - _MAX_SHOWN
    raise ValueError(
      f'The checkpoint {path} does not fit the state that is expected: '
      + '; '.join(differences[:_MAX_SHOWN])
      + (f'; and {more} more differences.' if more > 0 else '.')
    )
