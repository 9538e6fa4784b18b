"""Identity of the program: its sources and the installed packages."""

import functools
import hashlib
import importlib.metadata
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
  packages = importlib.metadata.distributions()
  identity = (
    [(str(path.relative_to(PACKAGE)), path.read_bytes()) for path in sources],
    sys.version,
    sorted(f'{package.name} {package.version}' for package in packages),
  )
  return hashlib.sha256(repr(identity).encode()).hexdigest()
