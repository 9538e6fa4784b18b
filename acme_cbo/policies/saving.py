"""Saves and loads trained policies, independently of the training code.

P/policy.json  architecture of the network, training metadata, a digest
P/params.npz   parameters, by module and name
"""

from collections.abc import Mapping
import hashlib
import io
import json
import os
import pathlib
from typing import Any, NamedTuple
import zipfile

import jax
import jax.numpy as jnp
import numpy as np

from acme_cbo import types
from acme_cbo.environments import config as environments_config
from acme_cbo.infra import config_schema
from acme_cbo.infra import errors
from acme_cbo.infra import files
from acme_cbo.networks import base
from acme_cbo.networks import config
from acme_cbo.networks import factory
from acme_cbo.networks import tokens
from acme_cbo.scms import config as scms_config

# The policy that ships with the package: the default where none is given.
SHIPPED = pathlib.Path(__file__).parent / 'pretrained' / 'general'

_FORMAT = 1
_MAX_JSON_BYTES = 10**6
_MAX_ARRAY_BYTES = 2**30


class TrainedPolicy(NamedTuple):
  """A network with its parameters.

  Attributes:
    network: the network.
    params: {module: {name: array}}.
    metadata: metadata that were passed to `save`.
    architecture: architecture of the network.
  """

  network: base.Network
  params: dict[str, dict[str, np.ndarray]]
  metadata: dict[str, Any]
  architecture: config.NetworkConfig


def directory(path: str | os.PathLike[str] | None = None) -> pathlib.Path:
  """Returns the directory of a saved policy.

  Args:
    path: directory of a run, or of a saved policy; without it, the policy that
      comes with the package.
  """
  if path is None:
    return SHIPPED
  of_run = pathlib.Path(path) / 'policy'
  return of_run if os.path.isdir(of_run) else pathlib.Path(path)


def save(
  directory: pathlib.Path,
  architecture: config.NetworkConfig,
  params: dict[str, dict[str, Any]],
  metadata: dict[str, Any],
) -> None:
  """Writes a policy into a directory, replacing an existing one.

  Args:
    directory: output directory; created if it does not exist.
    architecture: architecture of the network.
    params: {module: {name: array}}.
    metadata: description of the training distribution, serializable as JSON.

  Raises:
    ValueError: the metadata hold a number that is not finite.
  """
  directory.mkdir(parents=True, exist_ok=True)
  flat = {name: np.asarray(array) for name, array in _flat(params).items()}
  # The JSON file is written last: a directory without it holds no policy, so
  # that an interrupted `save` is noticed.
  (directory / 'policy.json').unlink(missing_ok=True)
  with (directory / 'params.npz').open('wb') as file:
    np.savez(file, **flat)  # pyrefly: ignore[bad-argument-type]
  content: dict[str, Any] = {
    'format': _FORMAT,
    'architecture': vars(architecture),
    'about': metadata,
  }
  parameters = (directory / 'params.npz').read_bytes()
  content['sha256'] = _digest(content, parameters)
  text = json.dumps(content, indent=2, allow_nan=False)
  (directory / 'policy.json').write_text(text + '\n', encoding='utf-8')


def load(directory: pathlib.Path) -> TrainedPolicy:
  """Reads a policy that `save` wrote.

  Nothing in it is trusted: the architecture and the metadata must have the
  types and the ranges of their configs, and the parameters the names, shapes
  and dtypes of the network, and finite values. Only the parameters of the
  policy of the package are taken as they are, like its code, as tracing the
  network for its shapes takes as long as a fifth of a suggestion.

  Args:
    directory: directory of the policy.

  Returns:
    The `TrainedPolicy`.

  Raises:
    errors.UsageError: there is no policy, it is of another format, or it is
      damaged.
  """
  path, arrays = directory / 'policy.json', directory / 'params.npz'
  if not path.exists():
    raise errors.UsageError(
      f'cannot read a policy from {directory}: it has no policy.json'
    )
  content: Any = files.read_json(path, _MAX_JSON_BYTES)
  found = content.get('format') if isinstance(content, dict) else None
  if found != _FORMAT or type(found) is not int:
    raise errors.UsageError(
      f'the policy in {directory} has format {found!r}; this version reads '
      f'format {_FORMAT}'
    )
  parameters = files.read_bytes(arrays, _MAX_ARRAY_BYTES)
  if content.pop('sha256', None) != _digest(content, parameters):
    raise errors.UsageError(
      f'the policy in {directory} is damaged: its checksum does not match'
    )
  # A policy lacks the fields that were added after it was saved. Their
  # defaults give the network that it was trained with.
  architecture = config_schema.from_partial_dict(
    config.NetworkConfig,
    content.get('architecture'),
    f'{path} is damaged: architecture',
  )
  architecture.check(f'{path} is damaged: architecture')
  network = factory.make(architecture)
  metadata = check_training_settings(
    content.get('about'), f'{path} is damaged: about'
  )
  if directory == SHIPPED:
    with np.load(io.BytesIO(parameters)) as archive:
      params = _nested(archive)
  else:
    params = _nested(_read_arrays(arrays, parameters, _shapes(network)))
  return TrainedPolicy(network, params, metadata, architecture)


def read_description(directory: pathlib.Path) -> str:
  """Returns the text of `policy.json`, which identifies a saved policy.

  It includes a digest of the parameters.

  Args:
    directory: directory of the policy.

  Raises:
    errors.UsageError: the policy cannot be read.
  """
  return files.read_text(directory / 'policy.json', _MAX_JSON_BYTES)


def check_training_settings(metadata: Any, path: str) -> dict[str, Any]:
  """Returns the settings that a policy was trained with, in present form.

  Args:
    metadata: metadata of a policy, or config of a run, from a file.
    path: path of the value, for error messages.

  Raises:
    errors.UsageError: the sizes of the episodes or the distribution of SCMs are
      missing, or wrong.
  """
  if not isinstance(metadata, dict):
    raise errors.UsageError(f'{path} is no object')
  metadata = scms_config.with_named_weights(metadata)
  for name, cls, required in (
    (
      'scms',
      scms_config.PriorConfig,
      ('max_variables', 'graph_weights', 'family_weights'),
    ),
    (
      'horizon',
      environments_config.HorizonConfig,
      ('num_observations', 'num_interventions'),
    ),
  ):
    section: Any = metadata.get(name)
    config_schema.from_partial_dict(cls, section, f'{path}.{name}')
    for field in required:
      if field not in section:
        raise errors.UsageError(f'{path}.{name}.{field} is missing')
  return metadata


def _shapes(network: base.Network) -> dict[str, jax.ShapeDtypeStruct]:
  """Returns shape and dtype of each parameter: {'module:name': ...}.

  They do not depend on the numbers of variables and rows.
  """
  struct: Any = jax.ShapeDtypeStruct
  column, columns = struct((2,), jnp.float32), struct((2, 2), jnp.float32)
  mask, number = struct((2,), bool), struct((), jnp.float32)
  problem = types.Problem(
    exists=mask,
    sets=struct((2, 2), bool),
    target=mask,
    goal=number,
    low=column,
    high=column,
    cost=column,
    budget=number,
    samples=number,
  )
  # Parameters are float32, whatever the precision of the caller.
  with jax.enable_x64(False):
    params = jax.eval_shape(
      network.init, jax.random.key(0), problem, columns, tokens.start_row(2)
    )
  return _flat(params)


def _flat(params: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
  """Returns {'module:name': array} of {module: {name: array}}."""
  return {
    f'{module}:{name}': array
    for module, arrays in params.items()
    for name, array in arrays.items()
  }


def _nested(
  arrays: Mapping[str, np.ndarray],
) -> dict[str, dict[str, np.ndarray]]:
  """Returns {module: {name: array}}; inverts `_flat`."""
  params: dict[str, dict[str, np.ndarray]] = {}
  for name, array in arrays.items():
    module, _, short = name.rpartition(':')
    params.setdefault(module, {})[short] = array
  return params


def _read_arrays(
  path: pathlib.Path, content: bytes, shapes: dict[str, jax.ShapeDtypeStruct]
) -> dict[str, np.ndarray]:
  """Reads the parameters of a network.

  Args:
    path: path of the file, for error messages.
    content: content of the file.
    shapes: expected shape and dtype by `module:name`.

  Returns:
    The arrays, by `module:name`.

  Raises:
    errors.UsageError: the file is damaged, or an array is not as expected.
  """
  try:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
      members = {x.filename.removesuffix('.npy'): x for x in archive.infolist()}
      if members.keys() != shapes.keys():
        odd = sorted(members.keys() ^ shapes.keys())
        raise ValueError(
          f'{odd[0]} is {"unknown to" if odd[0] in members else "missing for"} '
          'the network'
        )
      # Nothing is compressed, so that no more is read than the file holds.
      if sum(x.file_size for x in members.values()) > len(content):
        raise ValueError('its arrays are larger than the file')
      return {
        name: _read_array(name, archive.read(members[name]), expected)
        for name, expected in shapes.items()
      }
  # zipfile and numpy raise errors of many types.
  except Exception as error:
    raise errors.UsageError(f'{path} is damaged: {error}') from error


def _read_array(
  name: str, content: bytes, expected: jax.ShapeDtypeStruct
) -> np.ndarray:
  """Returns an array in numpy's format; see `_read_arrays`.

  Args:
    name: name of the array, for error messages.
    content: content of its file.
    expected: expected shape and dtype.

  Raises:
    ValueError: the array is not as expected, or damaged.
  """
  stream = io.BytesIO(content)
  np.lib.format.read_magic(stream)
  # Before anything is allocated for the shape that the file claims.
  shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
  if shape != expected.shape or dtype != expected.dtype:
    raise ValueError(
      f'{name} is {dtype}{list(shape)}, but the network has '
      f'{expected.dtype}{list(expected.shape)}'
    )
  stream.seek(0)
  array = np.lib.format.read_array(stream, allow_pickle=False)
  if not np.isfinite(array).all():
    raise ValueError(f'{name} has values that are not finite')
  return array


def _digest(content: dict[str, Any], parameters: bytes) -> str:
  """Returns the SHA-256 of the JSON content and of the file of parameters."""
  sha256 = hashlib.sha256(json.dumps(content, sort_keys=True).encode())
  sha256.update(parameters)
  return sha256.hexdigest()
