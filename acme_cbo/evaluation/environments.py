"""What methods are compared on: systems by name, by group, and from files."""

from collections.abc import Callable, Sequence
import hashlib
import pathlib
from typing import NamedTuple

from acme_cbo import errors
from acme_cbo.scms import benchmarks
from acme_cbo.scms import families
from acme_cbo.scms import optimum
from acme_cbo.scms import spec
from acme_cbo.scms import systems

# Names that stand for several.
GROUPS: dict[str, tuple[str, ...]] = {
  'benchmarks': tuple(benchmarks.TEXTS),
  'families': tuple(families.FAMILIES),
}


class Environment(NamedTuple):
  """A system, or a family of which each repeat draws a fresh one.

  Attributes:
    name: as tables show it.
    make: number of the repeat -> its system.
    held_out: whether its family was kept out of training; None where nobody
      said.
    fresh: whether each repeat has a system of its own.
    digest: of what it is made from, if that may change: a file's SHA-256.
    search: finds what the interventions on a system can reach.
  """

  name: str
  make: Callable[[int], systems.System]
  held_out: bool | None = None
  fresh: bool = False
  digest: str = ''
  search: Callable[[systems.System], optimum.Optimum] = optimum.objective


def resolve(texts: Sequence[str]) -> list[Environment]:
  """The environments that a list names.

  Args:
    texts: names of benchmarks, families and groups, paths of YAML files.

  Returns:
    One `Environment` for each, several for a group, in the same order.

  Raises:
    errors.UsageError: there is no such name or file, or the file describes no
      system.
  """
  return [found for text in texts for found in _resolve(text)]


def _resolve(text: str) -> list[Environment]:
  if text in GROUPS:
    return resolve(GROUPS[text])
  if text in benchmarks.TEXTS:
    system = benchmarks.load(text)
    return [Environment(text, lambda repeat: system)]
  if text in families.FAMILIES:
    return [Environment(text, families.FAMILIES[text], fresh=True)]
  if text.endswith(('.yaml', '.yml')):
    return [_from_file(pathlib.Path(text))]
  known = [*GROUPS, *benchmarks.TEXTS, *families.FAMILIES]
  raise errors.UsageError(
    f'--scm: there is no SCM {text!r}{errors.did_you_mean(text, known)}; '
    f'there are {", ".join([*GROUPS, *benchmarks.TEXTS])}, the families that '
    'acme_cbo/scms/families.py names, and files that end in .yaml'
  )


def _from_file(path: pathlib.Path) -> Environment:
  try:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
  except OSError as error:
    raise errors.UsageError(
      f'--scm: {path} cannot be read: {error.strerror}'
    ) from error
  system = spec.read(path)
  return Environment(system.name, lambda repeat: system, digest=digest)
