"""Makes XLA compile the tests' programs quickly, and caches the programs.

Tests run small programs, so that compilation takes most of their time. Only the
slow tests, which train, compile with all optimizations. XLA_FLAGS and
JAX_COMPILATION_CACHE_DIR hold where they are set.

Environment variables, because jax reads them when it is imported. Workers do
not share a cache: one could read what another one is still writing.
"""

import gc
import os
import pathlib

_ROOT = pathlib.Path(__file__).resolve().parents[1]
# They make compilation quick without making numbers less exact.
_QUICK = (
  '--xla_backend_optimization_level=0',
  '--xla_llvm_disable_expensive_passes=true',
  '--xla_cpu_use_fusion_emitters=false',
)


def pytest_configure(config):
  # What is traced stays, and going over it again and again takes 1/20 of all.
  gc.set_threshold(50_000, 20, 20)
  worker = os.environ.get('PYTEST_XDIST_WORKER', '')
  if worker or not config.option.numprocesses:  # What it sets, workers inherit.
    cache = _ROOT / '.pytest_cache' / 'jax' / worker
    os.environ.setdefault('JAX_COMPILATION_CACHE_DIR', str(cache))
  os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0.5')
  os.environ.setdefault('OPENBLAS_NUM_THREADS', '1')
  if config.option.markexpr == 'not slow':
    os.environ.setdefault('XLA_FLAGS', ' '.join(_QUICK))
