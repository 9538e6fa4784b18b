"""Ahead-of-time compilation, and a cache of compiled programs without tracing.

jax's persistent cache looks up a program by what it was traced and lowered to,
so that every start has to trace and lower again, which takes longer than
loading. This cache looks up a set of programs by everything that determines
their traces: the settings, the sources, the installed packages, jax's config
and the machine. It is the folder `sets` in the directory of jax's cache, and is
disabled if that is.
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
import re
import tempfile
from typing import Any

from absl import logging
import jax
from jax import stages
from jax.experimental import serialize_executable
from jax.experimental.compilation_cache import compilation_cache
from jaxlib import lapack
from jaxlib import xla_client
import numpy as np

from acme_cbo.infra import files
from acme_cbo.infra import provenance

# Number of most recently used sets to keep, about 20 MB each.
_MAX_SETS = 16
_DIGEST_SIZE = 32
_NAME = re.compile('[0-9a-f]{64}')
_MAX_BYTES = 4 * 10**9


def quick_options(few_runs: bool = False) -> dict[str, Any] | None:
  """Returns compiler options for programs that run for a few milliseconds.

  Without the fusion emitters, XLA compiles them for a CPU in two thirds of the
  time, and they run as fast.

  Args:
    few_runs: whether they run so few times that XLA should not optimize them:
      they compile in half of the time again, and run up to three times as long.
  """
  if jax.default_backend() != 'cpu':
    return None
  options = {'xla_cpu_use_fusion_emitters': False}
  return options | ({'xla_backend_optimization_level': 0} if few_runs else {})


def load_or_compile(
  settings: Any,
  devices: Sequence[jax.Device],
  trace: Callable[[], Iterator[tuple[str, stages.Traced]]],
  on_compile: Callable[[], None],
  options: Mapping[str, Any] | None = None,
) -> dict[str, stages.Compiled]:
  """Loads a set of programs from the cache or compiles it.

  Each program is compiled while the next one is traced. A cached set that
  cannot be loaded, or a set that cannot be saved, causes a warning only.

  Args:
    settings: JSON values that, together with the sources of this package,
      determine the traced programs.
    devices: devices that the programs run on.
    trace: function that yields names and traced programs.
    on_compile: function called before compilation, if that is necessary.
    options: options of the compiler, such as `quick_options`.

  Returns:
    Compiled programs by name.
  """
  directory = jax.config.values['jax_compilation_cache_dir']
  if not directory or not jax.config.values['jax_enable_compilation_cache']:
    on_compile()
    return _compile(trace, options)
  path = (
    pathlib.Path(directory) / 'sets' / _digest([settings, options], devices)
  )
  programs = _load(path, devices)
  if programs is None:
    on_compile()
    # A program loaded from jax's cache is incomplete when serialized again.
    with cache_disabled():
      programs = _compile(trace, options)
    _save(path, programs)
  return programs


def _compile(
  trace: Callable[[], Iterator[tuple[str, stages.Traced]]],
  options: Mapping[str, Any] | None,
) -> dict[str, stages.Compiled]:
  x64 = jax.config.values['jax_enable_x64']

  def compile_one(traced):
    with jax.enable_x64(x64):  # Each thread has its own.
      return traced.lower().compile(options and dict(options))

  with futures.ThreadPoolExecutor() as pool, _garbage_collection_disabled():
    compiled = {
      name: pool.submit(compile_one, traced) for name, traced in trace()
    }
    return {name: program.result() for name, program in compiled.items()}


@contextlib.contextmanager
def cache_disabled() -> Iterator[None]:
  """Context manager without jax's persistent compilation cache."""
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
def _garbage_collection_disabled() -> Iterator[None]:
  """Context manager without garbage collection, a third of the tracing time."""
  enabled = gc.isenabled()
  gc.disable()
  try:
    yield
  finally:
    if enabled:
      gc.enable()


def _digest(settings: Any, devices: Sequence[jax.Device]) -> str:
  """Returns the SHA-256 of everything that determines the compiled programs.

  Args:
    settings: see `load_or_compile`.
    devices: devices that the programs run on.
  """
  # The topology describes the processor, as in the keys of jax's cache.
  topology = xla_client.get_topology_for_devices(jax.local_devices())
  identity = (
    json.dumps(settings, sort_keys=True),
    provenance.digest(),
    {k: v for k, v in jax.config.values.items() if 'cache' not in k},
    os.environ.get('XLA_FLAGS'),
    topology.platform_version,
    topology.fingerprint(),
    # XLA splits loops by the number of threads.
    len(os.sched_getaffinity(0)),
    len(jax.local_devices()),
    # Each of several processes has its own part of a program.
    [device.id for device in devices],
    jax.process_index(),
  )
  return hashlib.sha256(repr(identity).encode()).hexdigest()


def _load(
  path: pathlib.Path, devices: Sequence[jax.Device]
) -> dict[str, stages.Compiled] | None:
  """Returns the programs in a file; None if it is missing or unusable."""
  try:
    if not path.exists():
      return None
    files.make_private(path.parent)
    content = files.read_own(path, _MAX_BYTES)
    with contextlib.suppress(OSError):
      # Fails harmlessly in a read-only cache.
      os.utime(path, follow_symlinks=False)
    digest, serialized = content[:_DIGEST_SIZE], content[_DIGEST_SIZE:]
    if hashlib.sha256(serialized).digest() != digest:
      raise ValueError('it is damaged')
    # jax serializes programs with Python types. Nobody else can have written
    # the file, and whoever could would not need pickle to run a program.
    programs = pickle.loads(serialized)  # noqa: S301
    # jax loads LAPACK when it lowers a call of it; a program that is loaded
    # without would call addresses that are not set, and end the process.
    lapack.prepare_lapack_call('potrf', np.dtype(np.float32))
    return {
      name: serialize_executable.deserialize_and_load(
        *program, execution_devices=devices
      )
      for name, program in programs.items()
    }
  # Another version of jax may raise any exception.
  except Exception as error:  # noqa: BLE001
    logging.warning('%s cannot be used; compiling again: %s', path, error)
    return None


def _save(path: pathlib.Path, programs: Mapping[str, stages.Compiled]) -> None:
  """Writes programs atomically and removes the least recently used sets."""
  try:
    serialized = pickle.dumps(
      {
        name: serialize_executable.serialize(program)
        for name, program in programs.items()
      }
    )
    files.make_private(path.parent)
    # Written outside the folder of sets, so that no process sees it incomplete.
    with tempfile.TemporaryDirectory(dir=path.parent.parent) as directory:
      new = pathlib.Path(directory) / path.name
      new.touch(mode=0o600)
      new.write_bytes(hashlib.sha256(serialized).digest() + serialized)
      new.replace(path)
    for old in _by_last_use(path.parent)[:-_MAX_SETS]:
      old.unlink(missing_ok=True)
  except Exception as error:  # noqa: BLE001 - of the disk or of jax.
    logging.warning('%s cannot be saved: %s', path, error)


def _by_last_use(directory: pathlib.Path) -> list[pathlib.Path]:
  """Returns the sets in a directory, the least recently used one first."""
  last_used = {}
  for path in directory.iterdir():
    if not _NAME.fullmatch(path.name) or not path.is_file():
      continue  # It is the user's own.
    with contextlib.suppress(FileNotFoundError):  # Another process removed it.
      last_used[path] = path.stat().st_mtime
  return sorted(last_used, key=last_used.__getitem__)
