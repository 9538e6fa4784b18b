"""Programs of this project as processes of their own."""

from collections.abc import Sequence
import pathlib
import subprocess
import sys

_ROOT = pathlib.Path(__file__).resolve().parents[2]


def start(
  program: str, *flags: str, before: Sequence[str] = (), **kwargs
) -> subprocess.Popen:
  """Starts a program, its path from the root; all it says is on stdout."""
  return subprocess.Popen(
    [*before, sys.executable, program, *flags],
    cwd=_ROOT,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
    **kwargs,
  )


def finish(
  program: str, *flags: str, timeout: float = 300, **kwargs
) -> tuple[int, str]:
  """Runs a program to its end; returns its exit code and its output."""
  with start(program, *flags, **kwargs) as process:
    output, _ = process.communicate(timeout=timeout)
  return process.returncode, output
