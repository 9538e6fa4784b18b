"""Checkpoints by Orbax, saved synchronously, verified when they are restored.

A checkpoint has three items: `state`, the arrays; `metadata`, what the caller
wants to know about it; `digests`, dtype, shape and SHA-256 of every array by
its path, and the SHA-256 of the metadata.
"""

from __future__ import annotations

from collections.abc import Mapping
import hashlib
import json
import math
import os
import pathlib
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from acme_cbo.infra import errors

StateT = TypeVar('StateT')

# Differences that an error message spells out.
_MAX_SHOWN = 5


class Checkpointer:
  """Saves and restores states by step. Use it as a context manager.

  The leaves of a state are jax arrays, typed keys of `jax.random.key` among
  them, but none weakly typed: a restore would lose that.
  """

  def __init__(
    self,
    directory: str | os.PathLike[str],
    num_latest: int | None = None,
    num_best: int = 0,
  ):
    """Opens a directory of checkpoints, which the first save creates.

    Args:
      directory: holds a directory for each step.
      num_latest: how many of the latest checkpoints to keep; None is all.
      num_best: how many to keep of those with the highest scores, which may be
        among the latest.

    Raises:
      errors.UsageError: the score of a checkpoint cannot be read.
    """
    self._directory = pathlib.Path(directory).absolute()
    _check_scores(self._directory)
    keep = ocp.checkpoint_managers
    self._manager = ocp.CheckpointManager(
      self._directory,
      options=ocp.CheckpointManagerOptions(
        preservation_policy=keep.AnyPreservationPolicy(
          [
            keep.LatestN(num_latest),
            keep.BestN(get_metric_fn=_rank, n=num_best),
          ]
        ),
        best_fn=_rank,
        create=False,
        # An asynchronous save may be lost after it returned True.
        enable_async_checkpointing=False,
        multiprocessing_options=ocp.options.MultiprocessingOptions(
          primary_host=jax.process_index(),
          active_processes={jax.process_index()},
        ),
      ),
    )

  def __enter__(self) -> Checkpointer:
    """Returns itself."""
    return self

  def __exit__(self, *unused: object) -> None:
    """Closes it."""
    self.close()

  def save(
    self,
    step: int,
    state: Any,
    metadata: Mapping[str, Any],
    score: float | None = None,
  ) -> None:
    """Saves a state; when it returns, the checkpoint is on the disk.

    Args:
      step: the number of updates made; more than in any earlier checkpoint.
      state: a tree of jax arrays.
      metadata: values that JSON can hold, NaN and infinity excluded.
      score: of an evaluation, by which the best are kept.
    """
    # As it will be read back. Raises before anything is written.
    metadata = json.loads(json.dumps(dict(metadata), allow_nan=False))
    _check_leaves(state)
    digests = {'leaves': _digests(state), 'metadata': _digest(metadata)}
    digests['sha256'] = _digest(digests)
    self._directory.mkdir(parents=True, exist_ok=True)
    saved = self._manager.save(
      step,
      args=ocp.args.Composite(
        state=ocp.args.StandardSave(jax.tree.map(_on_host, state)),
        digests=ocp.args.JsonSave(digests),
        metadata=ocp.args.JsonSave(metadata),
      ),
      metrics={'score': score},
    )
    if not saved:
      raise RuntimeError(
        f'Orbax did not save step {step} in {self._directory}: a step must be'
        f' later than all that are there ({self._steps()}).'
      )
    for path in (self._directory / str(step), self._directory):
      descriptor = os.open(path, os.O_RDONLY)
      os.fsync(descriptor)
      os.close(descriptor)

  def restore(
    self, template_state: StateT, step: int | None = None
  ) -> tuple[StateT, dict[str, Any]]:
    """Restores a state and its metadata, if they are what was saved.

    Args:
      template_state: has the structure, shapes and dtypes that are expected;
        arrays or what `jax.eval_shape` gives.
      step: which checkpoint; None is the latest.

    Returns:
      The state and the metadata.

    Raises:
      errors.UsageError: there is no such checkpoint, it does not fit the
        template, or it is damaged; the sentence names the latest that is whole.
    """
    wanted = self.latest_step() if step is None else step
    if wanted is None:
      raise errors.UsageError(f'{self._directory} has no checkpoints')
    if wanted not in self._manager.all_steps():
      raise errors.UsageError(
        f'{self._directory} has no checkpoint of step {wanted}; the steps that '
        f'are there: {self._steps()}'
      )
    try:
      return self._load(template_state, wanted)
    except _Damage as damage:
      whole = self._latest_whole(template_state, wanted)
      raise errors.UsageError(
        f'the checkpoint {self._directory / str(wanted)} is damaged: {damage}; '
        + (
          'none of those before it is whole'
          if whole is None
          else f'the latest before it that is whole is that of step {whole}: '
          f'go on from there with --resume_step={whole}'
        )
      ) from damage

  def latest_step(self, before: int | None = None) -> int | None:
    """Returns the latest step, or None where there is no checkpoint.

    Args:
      before: where to look: at the steps below it; None is everywhere.
    """
    steps = self._manager.all_steps()
    return max((s for s in steps if before is None or s < before), default=None)

  def delete_after(self, step: int) -> None:
    """Deletes the checkpoints of later steps, to be made again."""
    for later in self._manager.all_steps():
      if later > step:
        self._manager.delete(later)

  def close(self) -> None:
    """Releases what Orbax holds; a second call does nothing."""
    self._manager.close()

  def _load(self, template: StateT, step: int) -> tuple[StateT, dict[str, Any]]:
    path = self._directory / str(step)
    items = self._read(
      step,
      digests=ocp.args.JsonRestore(),
      metadata=ocp.args.JsonRestore(),
    )
    digests, metadata = items['digests'], items['metadata']
    if digests.pop('sha256', None) != _digest(digests):
      raise _Damage('digests are not what was saved')
    if digests['metadata'] != _digest(metadata):
      raise _Damage('metadata are not what was saved')
    leaves = digests['leaves']
    _check_match(path, leaves, template)
    abstract = jax.tree.map(_like_on_host, template)
    state = self._read(step, state=ocp.args.StandardRestore(abstract))['state']
    found = _digests(state)
    lost = [leaf for leaf in found if found[leaf] != leaves[leaf]]
    if lost:
      raise _Damage(f'{", ".join(lost[:_MAX_SHOWN])} is not what was saved')
    # A key that Orbax restores is tied to its device; programs that were
    # compiled for arrays that are not would be compiled anew.
    return jax.tree.map(jnp.asarray, jax.device_get(state)), metadata

  def _read(self, step, **items):
    for name in items:
      if not (self._directory / str(step) / name).is_dir():
        raise _Damage(f'it has no {name}')
    try:
      return self._manager.restore(step, args=ocp.args.Composite(**items))
    except Exception as error:
      # Whatever Orbax and what is below it make of bytes that are not theirs.
      cause = (str(error).splitlines() or [''])[0]
      raise _Damage(
        f'{" and ".join(items)} cannot be read: {type(error).__name__}: {cause}'
      ) from error

  def _latest_whole(self, template: Any, before: int) -> int | None:
    for step in sorted(self._manager.all_steps(), reverse=True):
      if step < before:
        try:
          self._load(template, step)
          return step
        except _Damage:
          continue
    return None

  def _steps(self) -> str:
    return ', '.join(map(str, sorted(self._manager.all_steps()))) or 'none'


def _check_scores(directory: pathlib.Path) -> None:
  """Refuses scores that Orbax could not read as it opens the directory."""
  # What a kill left unfinished has another name, and Orbax passes it over.
  found = directory.glob('*/metrics/metrics')
  paths = {int(x.parts[-3]): x for x in found if x.parts[-3].isdecimal()}
  for step, path in sorted(paths.items()):
    try:
      score = json.loads(path.read_bytes())['score']
      if score is not None:
        math.isfinite(score)
    except (KeyError, TypeError, ValueError) as error:
      before = [other for other in paths if other < step]
      raise errors.UsageError(
        f'the checkpoint {path.parents[1]} is damaged: its score cannot be '
        f'read ({type(error).__name__}); remove that directory, and '
        + (
          f'go on with --resume_step={max(before)}'
          if before
          else 'begin anew: there is none before it'
        )
      ) from error


def _rank(metrics: Mapping[str, float | None]) -> float:
  """What was not scored is the worst."""
  score = metrics['score']
  return -math.inf if score is None else score


class _Damage(Exception):
  """Says how a checkpoint is not what was saved."""


def _digest(value: Any) -> str:
  """SHA-256 of what JSON can hold."""
  text = json.dumps(value, sort_keys=True, allow_nan=False)
  return hashlib.sha256(text.encode()).hexdigest()


def _digests(state: Any) -> dict[str, dict[str, str]]:
  """{path: dtype and shape, SHA-256 of path, those and bytes} of each array."""
  found = {}
  for path, leaf in _by_path(state).items():
    array = _describe(leaf)
    if _is_key(leaf):
      leaf = jax.random.key_data(leaf)
    sha256 = hashlib.sha256(f'{path} {array} '.encode())
    sha256.update(np.ascontiguousarray(leaf).tobytes())
    found[path] = {'array': array, 'sha256': sha256.hexdigest()}
  return found


def _by_path(state: Any) -> dict[str, Any]:
  leaves = jax.tree_util.tree_leaves_with_path(state)
  return {jax.tree_util.keystr(path): leaf for path, leaf in leaves}


def _describe(leaf: Any) -> str:
  """Dtype and shape, such as `int32[2,3]`."""
  return f'{leaf.dtype}[{",".join(map(str, leaf.shape))}]'


def _is_key(leaf: Any) -> bool:
  return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _on_host(leaf: jax.Array) -> Any:
  """As Orbax saves it, also where one of several processes alone does."""
  return leaf if _is_key(leaf) else np.asarray(leaf)


def _like_on_host(leaf: Any) -> Any:
  """What an array that `_on_host` made looks like."""
  if _is_key(leaf):
    return ocp.utils.to_shape_dtype_struct(leaf)
  return np.empty(leaf.shape, leaf.dtype)


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


def _check_match(path: pathlib.Path, leaves: dict[str, Any], template: Any):
  """Raises unless a checkpoint has exactly the leaves of a template."""
  saved = {leaf: entry['array'] for leaf, entry in leaves.items()}
  expected = {leaf: _describe(x) for leaf, x in _by_path(template).items()}
  differences = [
    f'{leaf} is {saved.get(leaf, "missing")} and should be'
    f' {expected.get(leaf, "absent")}'
    for leaf in sorted(saved.keys() | expected.keys())
    if saved.get(leaf) != expected.get(leaf)
  ]
  if differences:
    raise errors.UsageError(
      f'the checkpoint {path} does not fit the state that is expected: '
      + errors.format_list(differences, _MAX_SHOWN, 'more differences')
    )
