"""Identity of the program: its sources and the installed packages."""

import functools
import hashlib
import importlib.resources
import pathlib
import sys

# Found by name and not relative to this file, so that moving this module does
# not change which sources the digest covers.
PACKAGE = pathlib.Path(str(importlib.resources.files('acme_cbo')))


@functools.cache
def digest() -> str:
  """Returns the SHA-256 of all sources, Python and package versions."""
  sources = sorted(PACKAGE.rglob('*.py'))
  # The names of these directories have the versions. Reading the metadata in
  # them takes a fifth of a second.
  packages = {
    path.name
    for directory in map(pathlib.Path, sys.path)
    for kind in ('dist', 'egg')
    for path in directory.glob(f'*.{kind}-info')
  }
  identity = (
    [(str(path.relative_to(PACKAGE)), path.read_bytes()) for path in sources],
    sys.version,
    sorted(packages),
  )
  return hashlib.sha256(repr(identity).encode()).hexdigest()
