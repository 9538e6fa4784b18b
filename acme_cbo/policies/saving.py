"""Saves and loads trained policies, independently of the training code.

P/policy.json  architecture of the network, training metadata, a digest
P/params.npz   parameters, by module and name
"""

import hashlib
import json
import os
import pathlib
from typing import Any, NamedTuple

import numpy as np

from acme_cbo.infra import config_schema
from acme_cbo.infra import errors
from acme_cbo.networks import base
from acme_cbo.networks import config
from acme_cbo.networks import factory
from acme_cbo.scms import config as scms_config

# The policy that ships with the package: the default where none is given.
SHIPPED = pathlib.Path(__file__).parent / 'pretrained' / 'general'

_FORMAT = 1


class TrainedPolicy(NamedTuple):
  """A network with its parameters.

  Attributes:
    network: the network.
    params: {module: {name: array}}.
    metadata: metadata that were passed to `save`.
  """

  network: base.Network
  params: dict[str, dict[str, np.ndarray]]
  metadata: dict[str, Any]


def directory(path: str | os.PathLike[str] | None = None) -> pathlib.Path:
  """Returns the directory of a saved policy.

  Args:
    path: directory of a run, or of a saved policy; without it, the policy that
      comes with the package.
  """
  if path is None:
    return SHIPPED
  of_run = pathlib.Path(path) / 'policy'
  return of_run if of_run.is_dir() else pathlib.Path(path)


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
  flat = {
    f'{module}:{name}': np.asarray(array)
    for module, arrays in params.items()
    for name, array in arrays.items()
  }
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
  content['sha256'] = _digest(content, directory)
  text = json.dumps(content, indent=2, allow_nan=False)
  (directory / 'policy.json').write_text(text + '\n')


def load(directory: pathlib.Path) -> TrainedPolicy:
  """Reads a policy that `save` wrote.

  Args:
    directory: directory of the policy.

  Returns:
    The `TrainedPolicy`.

  Raises:
    errors.UsageError: there is no policy, it is of another format, or it is
      damaged.
  """
  try:
    content = json.loads((directory / 'policy.json').read_text())
    if content['format'] != _FORMAT:
      raise errors.UsageError(
        f'the policy in {directory} has format {content["format"]}; this '
        f'version reads format {_FORMAT}'
      )
    if content.pop('sha256') != _digest(content, directory):
      raise errors.UsageError(
        f'the policy in {directory} is damaged: its checksum does not match'
      )
    # A policy lacks the fields that were added after it was saved. Their
    # defaults give the network that it was trained with.
    architecture = config_schema.from_dict(
      config.NetworkConfig,
      vars(config.NetworkConfig()) | content['architecture'],
      f'{directory / "policy.json"} is damaged: architecture',
    )
    metadata = scms_config.with_named_weights(content['about'])
    params: dict[str, dict[str, np.ndarray]] = {}
    with np.load(directory / 'params.npz') as arrays:
      for path, array in arrays.items():
        module, _, name = path.rpartition(':')
        params.setdefault(module, {})[name] = array
    return TrainedPolicy(factory.make(architecture), params, metadata)
  except errors.UsageError:
    raise
  except OSError as error:
    raise errors.UsageError(
      f'cannot read a policy from {directory}: {error.strerror}'
    ) from error
  except (KeyError, TypeError, ValueError) as error:
    raise errors.UsageError(
      f'{directory / "policy.json"} is damaged: {error!r}'
    ) from error


def _digest(content: dict[str, Any], directory: pathlib.Path) -> str:
  """Returns the SHA-256 of the JSON content and of the parameters."""
  sha256 = hashlib.sha256(json.dumps(content, sort_keys=True).encode())
  sha256.update((directory / 'params.npz').read_bytes())
  return sha256.hexdigest()
