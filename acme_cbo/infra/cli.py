"""How every launcher starts and how it fails: one clear line, exit code not 0.

Only what a user can mend is shortened to a line. Everything else keeps its
traceback.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
import contextlib
import logging as std_logging
import os
import pathlib
import signal
import sys
import threading
import traceback
from typing import NoReturn

from absl import app
from absl import flags
from absl import logging

from acme_cbo.infra import config_schema
from acme_cbo.infra import errors

# Prefix of the names of threads that act, and may hang where nothing ends them.
ACTOR_THREAD = 'actor'

_CONFIG_HELP = flags.DEFINE_bool(
  'config_help', False, 'Lists every field of a config, and ends.'
)
# What is defined for a launcher is the launcher's, and in its --help.
flags.disclaim_key_flags()


def run(
  main: Callable[[Sequence[str]], None],
  takes_arguments: bool = False,
  passes_on: bool = False,
) -> None:
  """Parses the flags and calls `main`.

  Args:
    main: takes the arguments that are no flags, the launcher's path first.
    takes_arguments: whether there may be any.
    passes_on: whether flags that are not known are such arguments.

  Raises:
    SystemExit: with code 2 after an `errors.UsageError`, with 1 after an
      `errors.PeerError`, and with 128 more than the signal's number after an
      `errors.Interrupted`.
  """
  # Ctrl-C ends the process at once, and in silence, until a run takes it over:
  # what is imported and compiled first would show where it was, or swallow it.
  signal.signal(signal.SIGINT, signal.SIG_DFL)
  # What is logged is for whoever started it: no threads, no places in the code.
  logging.get_absl_handler().setFormatter(
    std_logging.Formatter('%(levelname)s: %(message)s')
  )

  def guarded(argv):
    with _ending_actors():
      _guard(main, argv, takes_arguments or passes_on)

  app.run(guarded, flags_parser=lambda argv: _parse(argv, passes_on))


def set_environment(
  small_programs: bool = False, several_processes: bool = False
) -> None:
  """Sets what jax and numpy read when they are imported; call it before.

  Compiled programs are kept for the next start. numpy's linear algebra has one
  thread: on matrices as small as those here several wait for each other, a
  hundred times as long as they work where the machine is busy. Products are of
  full float32: what a GPU takes for it by default has the digits of float16,
  too few for a Cholesky factor. XLA optimises at level 2 of 3, without its
  tiled emitter, and LLVM unrolls no loops: programs compile in three fifths of
  the time and run within a few hundredths as fast. JAX_COMPILATION_CACHE_DIR,
  JAX_ENABLE_COMPILATION_CACHE, OPENBLAS_NUM_THREADS,
  JAX_DEFAULT_MATMUL_PRECISION and XLA_FLAGS hold where they are set.

  Args:
    small_programs: whether what is run is a decision at a time, in which
      threads would wait for each other as numpy's do, and not whole batches.
    several_processes: whether they train as one, of which XLA warns that it is
      an experiment to survive the loss of one.
  """
  home = os.environ.get('XDG_CACHE_HOME') or pathlib.Path.home() / '.cache'
  directory = str(pathlib.Path(home) / 'acme_cbo' / 'jax')
  os.environ.setdefault('JAX_COMPILATION_CACHE_DIR', directory)
  os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0.5')
  os.environ.setdefault('OPENBLAS_NUM_THREADS', '1')
  os.environ.setdefault('JAX_DEFAULT_MATMUL_PRECISION', 'highest')
  if several_processes:
    os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
  xla_flags = [
    '--xla_backend_optimization_level=2',
    '--xla_backend_extra_options='
    'xla_cpu_disable_tiled_emitter,xla_cpu_disable_loop_unrolling',
  ]
  if small_programs:
    xla_flags.append('--xla_cpu_multi_thread_eigen=false')
  os.environ.setdefault('XLA_FLAGS', ' '.join(xla_flags))


def _parse(argv, passes_on):
  try:
    rest = flags.FLAGS(argv, known_only=passes_on)
  except flags.Error as error:
    # A config file that raises is quoted with its traceback, the cause last.
    sentence = str(error)
    if 'Traceback' in sentence:
      sentence = sentence.strip().splitlines()[-1]
    _fail(sentence)
  except (AttributeError, KeyError, TypeError, ValueError) as error:
    # What ml_collections raises for an override of a field that is not there,
    # or of another type; it wraps one exception in another.
    cause = error.args[0] if error.args else error
    sentence = cause.args[0] if isinstance(cause, Exception) else cause
    _fail(f'cannot override the config: {sentence}')
  # Libraries report their daily business as information, which hides ours.
  if flags.FLAGS['verbosity'].using_default_value:
    flags.FLAGS.verbosity = logging.WARNING
  return rest


@contextlib.contextmanager
def _ending_actors() -> Iterator[None]:
  """Ends the process where an actor hangs, which its end would wait for."""
  try:
    yield
  except BaseException as error:
    names = [thread.name for thread in threading.enumerate()]
    if not any(name.startswith(ACTOR_THREAD) for name in names):
      raise
    code = error.code if isinstance(error, SystemExit) else 1
    if not isinstance(error, SystemExit):
      traceback.print_exception(error)
    logging.flush()
    sys.stdout.flush()
    os._exit(code if isinstance(code, int) else 1)


def _guard(main, argv, takes_arguments):
  if len(argv) > 1 and not takes_arguments:
    _fail(f'unexpected argument {argv[1]!r}; flags begin with --')
  try:
    if _CONFIG_HELP.value:
      print(config_schema.table(), flush=True)
      return
    main(argv)
  except BrokenPipeError:
    # Who reads has enough, as `head`; what is still held back goes nowhere.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(128 + signal.SIGPIPE)
  except errors.UsageError as error:
    _fail(str(error))
  except errors.PeerError as error:
    print(f'error: {error}', *errors.notes(error), sep='\n', file=sys.stderr)
    sys.exit(1)
  except errors.Interrupted as error:
    lines = [f'interrupted: {error}', *errors.notes(error)]
    print(*lines, sep='\n', file=sys.stderr)
    sys.exit(128 + error.signal)


def _fail(sentence: str) -> NoReturn:
  line = ' '.join(sentence.split())
  print(f'error: {line}', file=sys.stderr)
  sys.exit(2)
