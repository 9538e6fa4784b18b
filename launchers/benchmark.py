"""Measures how fast it is: shares of the machine's ceilings, and ratios.

python launchers/benchmark.py --config=configs/grpo.py --out=benchmark.json
With --botorch=PYTHON also beside BoTorch: see tests/peers/requirements.txt.
With --scaling=DIR instead how the costs grow with each size, and a figure.
"""

from collections.abc import Sequence
import pathlib
import signal
import sys

from absl import flags
from ml_collections import config_flags

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from acme_cbo import command_line
from acme_cbo import errors
from acme_cbo import run_directory

_ROOT = pathlib.Path(__file__).resolve().parents[1]
_PEER = _ROOT / 'tests' / 'peers' / 'botorch_step.py'
_CONFIG = config_flags.DEFINE_config_file(
  'config',
  help_string='Path of the config file, a preset behind it: '
  'configs/grpo.py, configs/grpo.py:smoke.',
)
_OUT = flags.DEFINE_string(
  'out', None, 'JSON file for the figures; without it they are only printed.'
)
_REPEATS = flags.DEFINE_integer(
  'repeats', 7, 'How often each program is timed.', lower_bound=1
)
_BOTORCH = flags.DEFINE_string(
  'botorch',
  None,
  'Python of an environment with BoTorch, to be compared with; without it, '
  'that comparison is not measured.',
)
_SCALING = flags.DEFINE_string(
  'scaling',
  None,
  'Measure how costs grow with each size instead, and write that here.',
)


def main(argv: Sequence[str]) -> None:
  """Prints the figures and writes them down."""
  del argv
  config = command_line.required_config(_CONFIG)
  if _SCALING.value and (_OUT.value or _BOTORCH.value):
    raise errors.UsageError('--scaling takes neither --out nor --botorch')
  command_line.set_environment()
  # As Ctrl-C, so that what it has started ends with it.
  signal.signal(signal.SIGTERM, signal.default_int_handler)
  # Imported late, so that --help and a mistyped flag answer at once.
  from acme_cbo.benchmark import report  # noqa: PLC0415
  from acme_cbo.benchmark import run  # noqa: PLC0415

  if _SCALING.value:
    print(run.scale(config, _REPEATS.value, pathlib.Path(_SCALING.value)))
    return
  botorch = [_BOTORCH.value, str(_PEER)] if _BOTORCH.value else []
  if _OUT.value:
    run_directory.check_file(pathlib.Path(_OUT.value), '--out')
  figures = run.measure(
    config,
    _REPEATS.value,
    botorch,
    lambda line: print(f'measuring {line} ...', file=sys.stderr, flush=True),
  )
  print(report.table(figures), flush=True)
  if _OUT.value:
    run_directory.write_json(pathlib.Path(_OUT.value), figures)


if __name__ == '__main__':
  command_line.run(main)
