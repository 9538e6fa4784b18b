"""Compiled programs are kept for the next run, by each worker for itself.

Read before any test imports jax. Workers that share a directory could read
what another one is still writing.
"""

import os
import pathlib

_ROOT = pathlib.Path(__file__).resolve().parents[1]
os.environ.setdefault(
  'JAX_COMPILATION_CACHE_DIR',
  str(
    _ROOT / '.pytest_cache' / 'jax' / os.environ.get('PYTEST_XDIST_WORKER', '')
  ),
)
os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0.5')
