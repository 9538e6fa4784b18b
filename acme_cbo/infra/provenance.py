"""Which program this is: its sources, and what is installed beside it."""

import hashlib
import importlib.metadata
import importlib.resources
import pathlib
import sys

# Not by the place of this file: a module that moves must not make it smaller.
PACKAGE = pathlib.Path(str(importlib.resources.files('acme_cbo')))


def digest() -> str:
  """SHA-256 of this package's sources, of Python, and of all versions."""
  sources = sorted(PACKAGE.rglob('*.py'))
  found = importlib.metadata.distributions()
  decisive = (
    [(str(path.relative_to(PACKAGE)), path.read_bytes()) for path in sources],
    sys.version,
    sorted(f'{package.name} {package.version}' for package in found),
  )
  return hashlib.sha256(repr(decisive).encode()).hexdigest()
