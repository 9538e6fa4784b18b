"""Measures the speed of a config: acting, learning, decisions, startup.

acme-cbo benchmark --config=configs/grpo.py --out=benchmark.json

--botorch=PYTHON compares with BoTorch too: see tests/peers/requirements.txt.
--scaling=DIR measures instead how costs grow with each size, with a figure.
--exchange measures instead what processes that train together exchange.
"""

from collections.abc import Sequence
import pathlib

from absl import flags

from acme_cbo.experiments import config as config_lib
from acme_cbo.experiments import flags as experiments_flags
from acme_cbo.infra import cli
from acme_cbo.infra import errors
from acme_cbo.infra import jax_environment
from acme_cbo.infra import provenance

# It is not part of an installed package.
_PEER = provenance.PACKAGE.parent / 'tests' / 'peers' / 'botorch_step.py'
_CONFIG = experiments_flags.define_config(
  'Path of the config file, optionally followed by a preset, such as '
  'configs/grpo.py:smoke; required.'
)
_OUT = flags.DEFINE_string('out', None, 'JSON file for the measurements.')
_REPEATS = flags.DEFINE_integer(
  'repeats', 7, 'Number of timings of each measurement.', lower_bound=1
)
_BOTORCH = flags.DEFINE_string(
  'botorch',
  None,
  'Python executable of an environment with BoTorch, to compare with.',
)
_SCALING = flags.DEFINE_string(
  'scaling', None, 'Output directory; measure only how costs grow with sizes.'
)
_EXCHANGE = flags.DEFINE_bool(
  'exchange', False, 'Measure only the cost of communication.'
)


def run(argv: Sequence[str] | None = None) -> None:
  """Runs the command, by default with the arguments of the process."""
  cli.run(main, argv, config_help=config_lib.help_text)


def main(argv: Sequence[str]) -> None:
  """Prints the measurements and writes them to a file."""
  del argv
  config = experiments_flags.required_training_config(_CONFIG)
  if (_SCALING.value or _EXCHANGE.value) and (_OUT.value or _BOTORCH.value):
    raise errors.UsageError('--out and --botorch are for the whole benchmark')
  if _BOTORCH.value and not _PEER.exists():
    raise errors.UsageError(
      '--botorch needs tests/peers/botorch_step.py, which is not installed; '
      'run the benchmark from a clone of the project'
    )
  jax_environment.set_defaults()
  # Imported late, so that --help and a mistyped flag answer at once.
  from acme_cbo.experiments.performance import run as benchmark  # noqa: PLC0415

  if _EXCHANGE.value:
    print(benchmark.exchange(config, _REPEATS.value))
  elif _SCALING.value:
    print(benchmark.scale(config, _REPEATS.value, pathlib.Path(_SCALING.value)))
  else:
    botorch = [_BOTORCH.value, str(_PEER)] if _BOTORCH.value else []
    benchmark.run(config, _REPEATS.value, botorch, _OUT.value)
