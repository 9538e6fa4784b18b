"""Measures how fast it is: shares of the machine's ceilings, and ratios.

python launchers/benchmark.py --config=configs/grpo.py --out=benchmark.json
With --botorch=PYTHON also beside BoTorch: see tests/peers/requirements.txt.
With --scaling=DIR instead how the costs grow with each size, and a figure;
with --exchange what processes exchange that train as one, and how many may.
"""

from collections.abc import Sequence
import pathlib
import sys

from absl import flags
from ml_collections import config_flags

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from acme_cbo.experiments import flags as experiments_flags
from acme_cbo.infra import cli
from acme_cbo.infra import errors

_ROOT = pathlib.Path(__file__).resolve().parents[1]
_PEER = _ROOT / 'tests' / 'peers' / 'botorch_step.py'
_CONFIG = config_flags.DEFINE_config_file(
  'config', help_string='Path of the config file, as configs/grpo.py:smoke.'
)
_OUT = flags.DEFINE_string('out', None, 'JSON file for the figures.')
_REPEATS = flags.DEFINE_integer(
  'repeats', 7, 'How often each program is timed.', lower_bound=1
)
_BOTORCH = flags.DEFINE_string(
  'botorch', None, 'Python of an environment with BoTorch, to compare with.'
)
_SCALING = flags.DEFINE_string(
  'scaling', None, 'Measure how costs grow with sizes, and write that here.'
)
_EXCHANGE = flags.DEFINE_bool('exchange', False, 'Measure that instead.')


def main(argv: Sequence[str]) -> None:
  """Prints the figures and writes them down."""
  del argv
  config = experiments_flags.required_config(_CONFIG)
  if (_SCALING.value or _EXCHANGE.value) and (_OUT.value or _BOTORCH.value):
    raise errors.UsageError('--out and --botorch are for the whole benchmark')
  cli.set_environment()
  # Imported late, so that --help and a mistyped flag answer at once.
  from acme_cbo.experiments.performance import run  # noqa: PLC0415

  if _EXCHANGE.value:
    print(run.exchange(config, _REPEATS.value))
  elif _SCALING.value:
    print(run.scale(config, _REPEATS.value, pathlib.Path(_SCALING.value)))
  else:
    botorch = [_BOTORCH.value, str(_PEER)] if _BOTORCH.value else []
    run.run(config, _REPEATS.value, botorch, _OUT.value)


if __name__ == '__main__':
  cli.run(main)
