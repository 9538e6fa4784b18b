"""Programs compiled before they are called, at once, and kept as a whole.

jax keeps a compiled program under what it was traced to, so that every start
traces anew, for longer than it loads. Here programs are kept under all that
decides what is traced: the settings, the sources, what is installed, jax's own
settings and the machine. They are kept beside jax's, in a folder of its
persistent cache, and nowhere where there is none.
"""

from collections.abc import Callable, Iterator, Mapping
from concurrent import futures
import contextlib
import gc
import hashlib
import importlib.metadata
import os
import pathlib
import pickle
import sys
from typing import Any

from absl import logging
import jax
from jax import stages
from jax.experimental import serialize_executable
from jaxlib import xla_client

# Sets of programs that are kept, some 20 MB each; the latest used.
_MAX_SETS = 16
_PACKAGE = pathlib.Path(__file__).parents[1]


def ready(
  settings: Any,
  trace: Callable[[], Iterator[tuple[str, stages.Traced]]],
  on_compile: Callable[[], None],
) -> dict[str, stages.Compiled]:
  """Loads a set of programs, or compiles it, each while the next is traced.

  Args:
    settings: values whose `repr` tells apart whatever `trace` is of, beside the
      sources of this package.
    trace: yields programs by name.
    on_compile: called before they are compiled, where they have to be.

  Returns:
    {name: program}.
  """
  directory = jax.config.values['jax_compilation_cache_dir']
  if not directory or not jax.config.values['jax_enable_compilation_cache']:
    on_compile()
    return _compile(trace)
  path = pathlib.Path(directory) / 'sets' / _digest(settings)
  kept = _load(path)
  if kept is None:
    on_compile()
    kept = _compile(trace)
    _save(path, kept)
  return kept


def _compile(trace):
  with futures.ThreadPoolExecutor() as pool, _no_collection():
    compiling = {
      name: pool.submit(lambda traced=traced: traced.lower().compile())
      for name, traced in trace()
    }
    return {name: program.result() for name, program in compiling.items()}


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
  """While nothing becomes garbage, looking for it is a third of the time."""
  enabled = gc.isenabled()
  gc.disable()
  try:
    yield
  finally:
    if enabled:
      gc.enable()


def _digest(settings: Any) -> str:
  """SHA-256 of all that decides what is traced and compiled."""
  sources = sorted(_PACKAGE.rglob('*.py'))
  installed = importlib.metadata.distributions()
  # Of the machine, as in jax's own keys: what its processor can do.
  topology = xla_client.get_topology_for_devices(jax.local_devices())
  decisive = (
    settings,
    [(str(path.relative_to(_PACKAGE)), path.read_bytes()) for path in sources],
    sys.version,
    sorted(f'{found.name} {found.version}' for found in installed),
    {k: v for k, v in jax.config.values.items() if 'cache' not in k},
    os.environ.get('XLA_FLAGS'),
    topology.platform_version,
    topology.fingerprint(),
    len(jax.local_devices()),
  )
  return hashlib.sha256(repr(decisive).encode()).hexdigest()


def _load(path: pathlib.Path) -> dict[str, stages.Compiled] | None:
  """The programs in a file; None where there is none, or it is damaged."""
  try:
    content = path.read_bytes()
  except FileNotFoundError:
    return None
  digest, serialized = content[:32], content[32:]
  if hashlib.sha256(serialized).digest() != digest:
    logging.warning('%s is damaged; its programs are compiled anew', path)
    return None
  path.touch()
  # As safe as the programs themselves: who can write here can run code.
  kept = pickle.loads(serialized)  # noqa: S301
  return {
    name: serialize_executable.deserialize_and_load(*program)
    for name, program in kept.items()
  }


def _save(path: pathlib.Path, programs: Mapping[str, stages.Compiled]) -> None:
  """Writes programs, whole or not at all; the sets used longest ago go."""
  serialized = pickle.dumps(
    {
      name: serialize_executable.serialize(program)
      for name, program in programs.items()
    }
  )
  path.parent.mkdir(parents=True, exist_ok=True)
  written = path.with_name(f'{path.name}.{os.getpid()}')
  written.write_bytes(hashlib.sha256(serialized).digest() + serialized)
  written.replace(path)
  by_age = sorted(path.parent.iterdir(), key=lambda kept: kept.stat().st_mtime)
  for old in by_age[:-_MAX_SETS]:
    old.unlink(missing_ok=True)
