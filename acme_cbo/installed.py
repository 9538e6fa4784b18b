"""Which program this is: its sources, and what is installed beside it."""

import hashlib
import importlib.metadata
import pathlib
import sys

_PACKAGE = pathlib.Path(__file__).parent


def digest() -> str:
  """SHA-256 of this package's sources, of Python, and of all versions."""
  sources = sorted(_PACKAGE.rglob('*.py'))
  found = importlib.metadata.distributions()
  decisive = (
    [(str(path.relative_to(_PACKAGE)), path.read_bytes()) for path in sources],
    sys.version,
    sorted(f'{package.name} {package.version}' for package in found),
  )
  return hashlib.sha256(repr(decisive).encode()).hexdigest()
