"""Programs compiled before they are called, at once, and kept as a whole.

jax keeps a compiled program under what it was traced to, so that every start
traces anew, for longer than it loads. Here programs are kept under all that
decides what is traced: the settings, the sources, what is installed, jax's own
settings and the machine. They are kept beside jax's, in a folder of its
persistent cache, and nowhere where there is none.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent import futures
import contextlib
import gc
import hashlib
import json
import os
import pathlib
import pickle
import tempfile
from typing import Any

from absl import logging
import jax
from jax import stages
from jax.experimental import serialize_executable
from jax.experimental.compilation_cache import compilation_cache
from jaxlib import xla_client

from acme_cbo.infra import provenance

# Sets of programs that are kept, some 20 MB each; the latest used.
_MAX_SETS = 16
_DIGEST_SIZE = 32


def load_or_compile(
  settings: Any,
  devices: Sequence[jax.Device],
  trace: Callable[[], Iterator[tuple[str, stages.Traced]]],
  on_compile: Callable[[], None],
) -> dict[str, stages.Compiled]:
  """Loads a set of programs, or compiles it, each while the next is traced.

  What is kept and cannot be used, or cannot be kept, is warned of: the programs
  are the same, and only take longer to be there.

  Args:
    settings: values that JSON can hold and that, beside the sources of this
      package, tell apart whatever `trace` is of.
    devices: that the programs are of.
    trace: yields programs by name.
    on_compile: called before they are compiled, where they have to be.

  Returns:
    {name: program}.
  """
  directory = jax.config.values['jax_compilation_cache_dir']
  if not directory or not jax.config.values['jax_enable_compilation_cache']:
    on_compile()
    return _compile(trace)
  path = pathlib.Path(directory) / 'sets' / _digest(settings, devices)
  kept = _load(path, devices)
  if kept is None:
    on_compile()
    # What jax itself has kept lacks parts when it is serialised again.
    with cache_disabled():
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
def cache_disabled() -> Iterator[None]:
  """Compiles as if nothing ever had been, and lets jax keep nothing."""
  name = 'jax_enable_compilation_cache'
  enabled = jax.config.values[name]
  try:
    jax.config.update(name, False)
    compilation_cache.reset_cache()
    yield
  finally:
    jax.config.update(name, enabled)
    compilation_cache.reset_cache()


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


def _digest(settings: Any, devices: Sequence[jax.Device]) -> str:
  """SHA-256 of all that decides what is traced and compiled."""
  # Of the machine, as in jax's own keys: what its processor can do.
  topology = xla_client.get_topology_for_devices(jax.local_devices())
  decisive = (
    json.dumps(settings, sort_keys=True),
    provenance.digest(),
    {k: v for k, v in jax.config.values.items() if 'cache' not in k},
    os.environ.get('XLA_FLAGS'),
    topology.platform_version,
    topology.fingerprint(),
    # Loops are split by the number of threads.
    len(os.sched_getaffinity(0)),
    len(jax.local_devices()),
    # Of several processes each has its own half of a program.
    [device.id for device in devices],
    jax.process_index(),
  )
  return hashlib.sha256(repr(decisive).encode()).hexdigest()


def _load(
  path: pathlib.Path, devices: Sequence[jax.Device]
) -> dict[str, stages.Compiled] | None:
  """The programs in a file; None where there is none, or none to be used."""
  try:
    content = path.read_bytes()
    with contextlib.suppress(OSError):
      os.utime(path)  # As good where nothing may be written.
    digest, serialized = content[:_DIGEST_SIZE], content[_DIGEST_SIZE:]
    if hashlib.sha256(serialized).digest() != digest:
      raise ValueError('it is damaged')
    # What jax makes of a program has Python's types in it. It is as safe as the
    # program itself: who can write here can run code.
    kept = pickle.loads(serialized)  # noqa: S301
    return {
      name: serialize_executable.deserialize_and_load(
        *program, execution_devices=devices
      )
      for name, program in kept.items()
    }
  except FileNotFoundError:
    return None
  # Whatever the version of jax that reads it makes of it.
  except Exception as error:  # noqa: BLE001
    logging.warning('%s is not used, and compiled anew: %s', path, error)
    return None


def _save(path: pathlib.Path, programs: Mapping[str, stages.Compiled]) -> None:
  """Writes programs, whole or not at all; the sets used longest ago go."""
  try:
    serialized = pickle.dumps(
      {
        name: serialize_executable.serialize(program)
        for name, program in programs.items()
      }
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not among the sets, and of this process alone, before it is whole.
    with tempfile.TemporaryDirectory(dir=path.parent.parent) as directory:
      written = pathlib.Path(directory) / path.name
      written.write_bytes(hashlib.sha256(serialized).digest() + serialized)
      written.replace(path)
    for old in _by_use(path.parent)[:-_MAX_SETS]:
      old.unlink(missing_ok=True)
  except Exception as error:  # noqa: BLE001 - of the disk, or of jax.
    logging.warning('%s cannot be kept: %s', path, error)


def _by_use(directory: pathlib.Path) -> list[pathlib.Path]:
  """The sets in a directory, the one used longest ago first."""
  used = {}
  for path in filter(pathlib.Path.is_file, directory.iterdir()):
    with contextlib.suppress(FileNotFoundError):  # Another process was faster.
      used[path] = path.stat().st_mtime
  return sorted(used, key=used.__getitem__)
