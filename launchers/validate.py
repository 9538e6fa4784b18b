"""Validates a configuration: every requirement with its figure; 1 if one fails.

python launchers/validate.py --config=configs/grpo.py:smoke
"""

from collections.abc import Sequence
import pathlib
import shlex
import sys

from absl import flags
from ml_collections import config_flags

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from acme_cbo.experiments import flags as experiments_flags
from acme_cbo.infra import cli
from acme_cbo.infra import errors

_CONFIG = config_flags.DEFINE_config_file('config', None, 'The config file.')
_SEEDS = flags.DEFINE_integer(
  'seeds', 8, 'Trainings behind each claim about learning.', lower_bound=8
)
_REPORT = flags.DEFINE_string(
  'report', '', 'Markdown file that the checks are written to as well.'
)


def main(argv: Sequence[str]) -> None:
  """Prints the checks as they are made; exits 1 unless all of them pass."""
  del argv
  config = experiments_flags.required_config(_CONFIG)
  cli.set_environment()
  # Imported late, so that --help and a mistyped flag answer at once.
  from acme_cbo.experiments import builder  # noqa: PLC0415
  from acme_cbo.experiments.validation import validate  # noqa: PLC0415

  config['training']['num_updates'] = validate.NUM_UPDATES
  parts = builder.from_config(config).parts
  report = _REPORT.value and pathlib.Path(_REPORT.value)
  if report and (report.is_dir() or not report.parent.is_dir()):
    raise errors.UsageError(
      f'--report={report} cannot be written; name a file in a directory that '
      'exists'
    )
  checks = []
  for check in validate.validate(parts, _SEEDS.value):
    checks.append(check)
    print(check, flush=True)
  print(f'\n{validate.total(checks)}')
  if report:
    command = shlex.join(['python', 'launchers/validate.py', *sys.argv[1:]])
    report.write_text(validate.report(command, checks))
  if not all(check.passed for check in checks):
    sys.exit(1)


if __name__ == '__main__':
  cli.run(main)
