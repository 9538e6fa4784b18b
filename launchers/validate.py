"""Validates a configuration: every requirement with its figure; 1 if one fails.

python launchers/validate.py --config=configs/grpo.py:smoke
"""

from collections.abc import Sequence
import pathlib
import sys

from absl import flags
from ml_collections import config_flags

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from acme_cbo import command_line

_CONFIG = config_flags.DEFINE_config_file('config', None, 'The config file.')
_SEEDS = flags.DEFINE_integer(
  'seeds', 8, 'Trainings behind each claim about learning.', lower_bound=5
)


def main(argv: Sequence[str]) -> None:
  """Prints the checks as they are made; exits 1 unless all of them pass."""
  del argv
  config = command_line.required_config(_CONFIG)
  command_line.use_compilation_cache()
  # Imported late, so that --help and a mistyped flag answer at once.
  from acme_cbo import experiment  # noqa: PLC0415
  from acme_cbo.validation import validate  # noqa: PLC0415

  parts = experiment.from_config(config).parts
  verdicts = []
  for check in validate.validate(parts, _SEEDS.value):
    verdicts.append(check.passed)
    print(
      f'{"pass" if check.passed else "FAIL"}  {check.requirement:<18}  '
      f'{check.claim}: {check.figure}',
      flush=True,
    )
  print(f'\n{sum(verdicts)} of {len(verdicts)} checks passed')
  if not all(verdicts):
    sys.exit(1)


if __name__ == '__main__':
  command_line.run(main)
