"""Orbax checkpoints, saved synchronously and verified when restored.

A checkpoint has three items: `state`, the arrays; `metadata`, JSON values given
by the caller; `digests`, dtype, shape and SHA-256 of every array by its path,
and the SHA-256 of the metadata.
"""

from __future__ import annotations

from collections.abc import Mapping
import hashlib
import json
import math
import os
import pathlib
import shutil
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from acme_cbo.infra import errors
from acme_cbo.infra import files

StateT = TypeVar('StateT')

# File of Orbax in the directory of a checkpoint.
_ORBAX_FILE = '_CHECKPOINT_METADATA'
# Number of differences that an error message lists.
_MAX_SHOWN = 5
# The metadata hold the rewards of every update.
_MAX_JSON_BYTES = 10**9


class Checkpointer:
  """Saves and restores states by step; a context manager.

  The leaves of a state are jax arrays, which include typed keys of
  `jax.random.key`. They must not be weakly typed, which a restore would lose.
  """

  def __init__(
    self,
    directory: str | os.PathLike[str],
    num_latest: int | None = None,
    num_best: int = 0,
  ):
    """Opens a directory of checkpoints, which the first save creates.

    Args:
      directory: directory with one subdirectory per step.
      num_latest: number of latest checkpoints to keep; None keeps all.
      num_best: number of checkpoints with the highest scores to keep, which may
        be among the latest.

    Raises:
      errors.UsageError: the score of a checkpoint cannot be read, or something
        in the directory is no regular file.
    """
    self._directory = pathlib.Path(directory).absolute()
    files.check_tree(self._directory)
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
        # An asynchronous save could be lost after it returned True.
        enable_async_checkpointing=False,
        multiprocessing_options=ocp.options.MultiprocessingOptions(
          primary_host=jax.process_index(),
          active_processes={jax.process_index()},
        ),
      ),
    )

  def __enter__(self) -> Checkpointer:
    """Returns the checkpointer."""
    return self

  def __exit__(self, *unused: object) -> None:
    """Closes the checkpointer."""
    self.close()

  def save(
    self,
    step: int,
    state: Any,
    metadata: Mapping[str, Any],
    score: float | None = None,
  ) -> None:
    """Saves a state; the checkpoint is on disk when this returns.

    Args:
      step: number of updates made, more than in any earlier checkpoint.
      state: tree of jax arrays.
      metadata: JSON values without NaN and infinity.
      score: score of an evaluation by which the best checkpoints are kept; None
        if the state was not evaluated.
    """
    # The round trip gives the values that will be read back, and raises before
    # anything is written.
    metadata = json.loads(json.dumps(dict(metadata), allow_nan=False))
    _check_leaves(state)
    digests = {'leaves': _digests(state), 'metadata': _digest(metadata)}
    digests['sha256'] = _digest(digests)
    self._directory.mkdir(parents=True, exist_ok=True)
    with files.naming(self._directory):
      self._remove_remains()
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
        f' later than all existing ones ({self._steps()}).'
      )
    for path in (self._directory / str(step), self._directory):
      descriptor = os.open(path, os.O_RDONLY)
      os.fsync(descriptor)
      os.close(descriptor)

  def restore(
    self, template_state: StateT, step: int | None = None
  ) -> tuple[StateT, dict[str, Any]]:
    """Restores a state and its metadata and verifies both.

    Args:
      template_state: tree of arrays or `jax.ShapeDtypeStruct` with the expected
        structure, shapes and dtypes.
      step: step of the checkpoint; None is the latest.

    Returns:
      State and metadata.

    Raises:
      errors.UsageError: the checkpoint does not exist, does not match the
        template, or is damaged; the message names the latest intact one.
    """
    step = self.latest_step() if step is None else step
    if step is None:
      raise errors.UsageError(f'{self._directory} has no checkpoints')
    if step not in self._manager.all_steps():
      raise errors.UsageError(
        f'{self._directory} has no checkpoint of step {step}; existing steps: '
        f'{self._steps()}'
      )
    try:
      return self._load(template_state, step)
    except _DamageError as damage:
      intact = self._latest_intact(template_state, step)
      raise errors.UsageError(
        f'the checkpoint {self._directory / str(step)} is damaged: {damage}; '
        + (
          'no earlier checkpoint is intact'
          if intact is None
          else f'the latest intact checkpoint before it has step {intact}: '
          f'resume from it with --resume_step={intact}'
        )
      ) from damage

  def latest_step(self, before: int | None = None) -> int | None:
    """Returns the latest step, or None if there is no checkpoint.

    Args:
      before: exclusive upper bound of the step; None is no bound.
    """
    steps = self._manager.all_steps()
    return max((s for s in steps if before is None or s < before), default=None)

  def delete_after(self, step: int) -> None:
    """Deletes all checkpoints with later steps, so that they can be saved anew.

    Args:
      step: latest step to keep.
    """
    for later in self._manager.all_steps():
      if later > step:
        self._manager.delete(later)

  def _remove_remains(self) -> None:
    """Removes what is left of a checkpoint if a kill ended its deletion."""
    for path in self._directory.iterdir():
      # Orbax does not see one without it, and would keep it for ever.
      if path.name.isdecimal() and not (path / _ORBAX_FILE).exists():
        shutil.rmtree(path)

  def close(self) -> None:
    """Releases the resources of Orbax; a second call does nothing."""
    self._manager.close()

  def _load(self, template: StateT, step: int) -> tuple[StateT, dict[str, Any]]:
    path = self._directory / str(step)
    for item in ('state', 'digests', 'metadata'):
      if not (path / item).is_dir():
        raise _DamageError(f'it has no {item}')
    digests = _read_object(path, 'digests')
    metadata = _read_object(path, 'metadata')
    if digests.pop('sha256', None) != _digest(digests):
      raise _DamageError('the digests do not match their SHA-256')
    if digests.get('metadata') != _digest(metadata):
      raise _DamageError('the metadata do not match their SHA-256')
    leaves: Any = digests.get('leaves')
    _check_match(path, leaves, template)
    abstract = jax.tree.map(_like_on_host, template)
    try:
      state = self._manager.restore(
        step,
        args=ocp.args.Composite(state=ocp.args.StandardRestore(abstract)),
      )['state']
    except Exception as error:
      # Orbax and the libraries below it raise errors of many types here.
      cause = (str(error).splitlines() or [''])[0]
      raise _DamageError(
        f'state cannot be read: {type(error).__name__}: {cause}'
      ) from error
    actual = _digests(state)
    damaged = [leaf for leaf in actual if actual[leaf] != leaves[leaf]]
    if damaged:
      raise _DamageError(
        f'{", ".join(damaged[:_MAX_SHOWN])} does not match its SHA-256'
      )
    # Orbax commits a restored key to its device, for which programs compiled
    # for uncommitted arrays would be compiled again.
    return jax.tree.map(jnp.asarray, jax.device_get(state)), metadata

  def _latest_intact(self, template: Any, before: int) -> int | None:
    for step in sorted(self._manager.all_steps(), reverse=True):
      if step < before:
        try:
          self._load(template, step)
          return step
        except _DamageError:
          continue
    return None

  def _steps(self) -> str:
    return ', '.join(map(str, sorted(self._manager.all_steps()))) or 'none'


def _check_scores(directory: pathlib.Path) -> None:
  """Raises an `errors.UsageError` unless Orbax can read all scores."""
  # Checkpoints that a kill left unfinished have other names, which Orbax skips.
  found = directory.glob('*/metrics/metrics')
  paths = {int(x.parts[-3]): x for x in found if x.parts[-3].isdecimal()}
  for step, path in sorted(paths.items()):
    try:
      metrics = files.parse_json(files.read_bytes(path, _MAX_JSON_BYTES))
      if metrics['score'] is not None:
        math.isfinite(metrics['score'])
    except (KeyError, TypeError, ValueError) as error:
      earlier = [x for x in paths if x < step]
      raise errors.UsageError(
        f'the checkpoint {path.parents[1]} is damaged: its score cannot be '
        f'read ({type(error).__name__}); remove that directory, and '
        + (
          f'resume with --resume_step={max(earlier)}'
          if earlier
          else 'start a new run: there is no earlier checkpoint'
        )
      ) from error


def _rank(metrics: Mapping[str, float | None]) -> float:
  """Returns the score for ranking; minus infinity without an evaluation."""
  score = metrics['score']
  return -math.inf if score is None else score


class _DamageError(Exception):
  """A checkpoint is not as it was saved."""


def _read_object(checkpoint: pathlib.Path, item: str) -> dict[str, Any]:
  """Reads a JSON item of a checkpoint, as Orbax stores it."""
  try:
    content = files.read_bytes(checkpoint / item / 'metadata', _MAX_JSON_BYTES)
    value = files.parse_json(content)
    if not isinstance(value, dict):
      raise ValueError('it is not a JSON object')
  except ValueError as error:
    raise _DamageError(f'{item} cannot be read: {error}') from error
  return value


def _digest(value: Any) -> str:
  """Returns the SHA-256 of a JSON value."""
  text = json.dumps(value, sort_keys=True, allow_nan=False)
  return hashlib.sha256(text.encode()).hexdigest()


def _digests(state: Any) -> dict[str, dict[str, str]]:
  """Computes the digest of each array.

  Args:
    state: tree of arrays.

  Returns:
    {path: {'array': dtype and shape, 'sha256': SHA-256 of path, dtype, shape
    and bytes}}.
  """
  digests = {}
  for path, leaf in _by_path(state).items():
    array = _describe(leaf)
    if _is_key(leaf):
      leaf = jax.random.key_data(leaf)
    sha256 = hashlib.sha256(f'{path} {array} '.encode())
    sha256.update(np.ascontiguousarray(leaf).tobytes())
    digests[path] = {'array': array, 'sha256': sha256.hexdigest()}
  return digests


def _by_path(state: Any) -> dict[str, Any]:
  leaves = jax.tree_util.tree_leaves_with_path(state)
  return {jax.tree_util.keystr(path): leaf for path, leaf in leaves}


def _describe(leaf: Any) -> str:
  """Returns dtype and shape, such as `int32[2,3]`."""
  return f'{leaf.dtype}[{",".join(map(str, leaf.shape))}]'


def _is_key(leaf: Any) -> bool:
  return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _on_host(leaf: jax.Array) -> Any:
  """Returns a leaf in the form in which one process alone can save it."""
  return leaf if _is_key(leaf) else np.asarray(leaf)


def _like_on_host(leaf: Any) -> Any:
  """Returns a template of the value that `_on_host` returns."""
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


def _check_match(path: pathlib.Path, leaves: Any, template: Any):
  """Raises unless the leaves of a checkpoint match those of a template."""
  try:
    saved = {leaf: entry['array'] for leaf, entry in leaves.items()}
    {entry['sha256'] for entry in leaves.values()}
  except (AttributeError, KeyError, TypeError) as error:
    raise _DamageError('the digests are of another form') from error
  expected = {leaf: _describe(x) for leaf, x in _by_path(template).items()}
  differences = [
    f'{leaf} is {saved.get(leaf, "missing")} and should be'
    f' {expected.get(leaf, "absent")}'
    for leaf in sorted(saved.keys() | expected.keys())
    if saved.get(leaf) != expected.get(leaf)
  ]
  if differences:
    raise errors.UsageError(
      f'the checkpoint {path} does not match the expected state: '
      + errors.format_list(differences, _MAX_SHOWN, 'more differences')
    )
