"""A trained policy on the disk: to be used without what trained it.

P/policy.json  the size of the network, what it was trained for, a digest
P/params.npz   the parameters, by module and name
"""

import hashlib
import json
import pathlib
from typing import Any, NamedTuple

import numpy as np

from acme_cbo.infra import errors
from acme_cbo.networks import base
from acme_cbo.networks import config
from acme_cbo.networks import transformer

# The policy that comes with the package, where no other one is named.
SHIPPED = pathlib.Path(__file__).parent / 'pretrained' / 'general'

_FORMAT = 1


class TrainedPolicy(NamedTuple):
  """A network with its parameters.

  Attributes:
    network: its functions.
    params: {module: {name: array}}.
    about: what `save` was told of it.
  """

  network: base.Network
  params: dict[str, dict[str, np.ndarray]]
  about: dict[str, Any]


def save(
  directory: pathlib.Path,
  architecture: config.NetworkConfig,
  params: dict[str, dict[str, Any]],
  about: dict[str, Any],
) -> None:
  """Writes a policy into a directory, over one that is there.

  Args:
    directory: made where it is missing.
    architecture: of its network.
    params: {module: {name: array}}.
    about: what it was trained for, as JSON can hold it.
  """
  directory.mkdir(parents=True, exist_ok=True)
  flat = {
    f'{module}:{name}': np.asarray(array)
    for module, arrays in params.items()
    for name, array in arrays.items()
  }
  # The description comes last: without it there is no policy.
  (directory / 'policy.json').unlink(missing_ok=True)
  with (directory / 'params.npz').open('wb') as file:
    np.savez(file, **flat)  # pyrefly: ignore[bad-argument-type]
  said: dict[str, Any] = {
    'format': _FORMAT,
    'architecture': vars(architecture),
    'about': about,
  }
  said['sha256'] = _digest(said, directory)
  text = json.dumps(said, indent=2, allow_nan=False)
  (directory / 'policy.json').write_text(text + '\n')


def load(directory: pathlib.Path) -> TrainedPolicy:
  """Reads what `save` wrote.

  Args:
    directory: of the policy.

  Returns:
    The `TrainedPolicy`.

  Raises:
    errors.UsageError: there is no policy, or it is damaged.
  """
  try:
    said = json.loads((directory / 'policy.json').read_text())
    if said['format'] != _FORMAT:
      raise errors.UsageError(
        f'the policy in {directory} has the format {said["format"]}; this '
        f'version reads {_FORMAT}'
      )
    if said.pop('sha256') != _digest(said, directory):
      raise errors.UsageError(
        f'the policy in {directory} is damaged: it is not what was saved'
      )
    architecture = config.NetworkConfig(**said['architecture'])
    params: dict[str, dict[str, np.ndarray]] = {}
    with np.load(directory / 'params.npz') as arrays:
      for path, array in arrays.items():
        module, _, name = path.rpartition(':')
        params.setdefault(module, {})[name] = array
    return TrainedPolicy(transformer.make(architecture), params, said['about'])
  except errors.UsageError:
    raise
  except OSError as error:
    raise errors.UsageError(
      f'{directory} holds no policy that can be read: {error.strerror}'
    ) from error
  except (KeyError, TypeError, ValueError) as error:
    raise errors.UsageError(
      f'{directory / "policy.json"} is damaged: {error!r}'
    ) from error


def _digest(said: dict[str, Any], directory: pathlib.Path) -> str:
  """SHA-256 of the description and of the parameters."""
  sha256 = hashlib.sha256(json.dumps(said, sort_keys=True).encode())
  sha256.update((directory / 'params.npz').read_bytes())
  return sha256.hexdigest()
