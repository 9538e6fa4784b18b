"""Trains a policy and scores it beside the heuristics.

python launchers/train.py --config=configs/grpo.py --workdir=runs/mine
"""

from collections.abc import Sequence
import datetime
import pathlib
import sys

from absl import flags
from ml_collections import config_flags

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from acme_cbo import command_line

_CONFIG = config_flags.DEFINE_config_file(
  'config',
  help_string='Path of the config file, a preset behind it: configs/grpo.py '
  'is the quick start; :smoke only shows that it runs, :linear, :large.',
)
_WORKDIR = flags.DEFINE_string(
  'workdir', None, 'Directory of the run; runs/<name>-<time> if not given.'
)


def main(argv: Sequence[str]) -> None:
  """Reads the flags; the rest is `acme_cbo.train`."""
  del argv
  config = command_line.required_config(_CONFIG)
  command_line.use_compilation_cache()
  # Imported late, so that --help and a mistyped flag answer at once.
  from acme_cbo import errors  # noqa: PLC0415
  from acme_cbo import experiment  # noqa: PLC0415
  from acme_cbo import train  # noqa: PLC0415

  if _WORKDIR.value == '':
    raise errors.UsageError('--workdir is empty; name a directory')
  wired = experiment.from_config(config)
  now = datetime.datetime.now().strftime('%Y%m%d-%H%M%S')
  workdir = pathlib.Path(_WORKDIR.value or f'runs/{wired.name}-{now}')
  train.train_and_evaluate(wired, config.to_json_best_effort(indent=2), workdir)


if __name__ == '__main__':
  command_line.run(main)
