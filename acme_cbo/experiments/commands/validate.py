"""Checks the rewards, the invariances and the learning of a configuration.

acme-cbo validate --config=configs/grpo.py:smoke

Prints a line for each check, and exits with 1 if one fails. Trainings have 120
updates, whatever training.num_updates is.
"""

from collections.abc import Sequence
import sys

from absl import flags

from acme_cbo.experiments import config as config_lib
from acme_cbo.experiments import flags as experiments_flags
from acme_cbo.infra import cli
from acme_cbo.infra import config_schema
from acme_cbo.infra import jax_environment
from acme_cbo.infra import run_directory

_CONFIG = experiments_flags.define_config(
  'Path of the config file, optionally followed by a preset; required.'
)
_SEEDS = flags.DEFINE_integer(
  'seeds',
  8,
  'Number of trainings behind each claim about learning.',
  lower_bound=8,
)
_FIRST_SEED = flags.DEFINE_integer(
  'first_seed',
  0,
  'Seed of the first training and of the SCMs; the trainings have this one and '
  'the next ones.',
  lower_bound=0,
  upper_bound=2**31 - 2**20,
)
_REPORT = flags.DEFINE_string(
  'report', '', 'Markdown file that the checks are also written to.'
)


def run(argv: Sequence[str] | None = None) -> None:
  """Runs the command, by default with the arguments of the process."""
  cli.run(main, argv, config_help=config_lib.help_text)


def main(argv: Sequence[str]) -> None:
  """Prints the checks as they finish; exits 1 if one fails."""
  del argv
  config = experiments_flags.required_training_config(_CONFIG)
  jax_environment.set_defaults()
  # Imported late, so that --help and a mistyped flag answer at once.
  from acme_cbo.experiments import builder  # noqa: PLC0415
  from acme_cbo.experiments.validation import validate  # noqa: PLC0415

  config = config_schema.override(
    config, {'training.num_updates': validate.NUM_UPDATES}
  )
  parts = builder.from_config(config).parts
  report = _REPORT.value and cli.output_file('report', _REPORT.value)
  checks = []
  seeds = range(_FIRST_SEED.value, _FIRST_SEED.value + _SEEDS.value)
  for check in validate.validate(parts, seeds):
    checks.append(check)
    print(check, flush=True)
  print(f'\n{validate.total(checks)}')
  if report:
    run_directory.write_text(report, validate.report(cli.invocation(), checks))
  if any(check.verdict == 'FAIL' for check in checks):
    sys.exit(1)
