"""Trains a policy and scores it beside the heuristics.

python launchers/train.py --config=configs/grpo.py --workdir=runs/mine
python launchers/train.py --resume --workdir=runs/mine
A field is set by --config.grpo.beta=0.01; --config_help lists all of them.
"""

from collections.abc import Sequence
import pathlib
import sys
from typing import Any

from absl import flags
from ml_collections import config_flags

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from acme_cbo.experiments import flags as experiments_flags
from acme_cbo.infra import cli
from acme_cbo.infra import errors
from acme_cbo.infra import run_directory

_CONFIG = config_flags.DEFINE_config_file(
  'config',
  help_string='Path of the config file, a preset behind it: configs/grpo.py '
  'is the quick start; :smoke only shows that it runs, :linear, :large, '
  ':general.',
)
_WORKDIR = flags.DEFINE_string(
  'workdir', None, 'Directory of the run; runs/<name>-<time> if not given.'
)
_RESUME = flags.DEFINE_bool('resume', False, 'Go on with the run in --workdir.')
_RESUME_STEP = flags.DEFINE_integer(
  'resume_step', None, 'Go on from the checkpoint of this step instead.'
)
experiments_flags.define_place()


def main(argv: Sequence[str]) -> None:
  """Reads the flags; the rest is `acme_cbo.train`."""
  del argv
  if _WORKDIR.value == '':
    raise errors.UsageError('--workdir is empty; name a directory')
  resume = _RESUME.value or _RESUME_STEP.value is not None
  if resume and _WORKDIR.value is None:
    raise errors.UsageError('name the run to resume: --workdir=')
  place = experiments_flags.place()
  config: dict[str, Any] | None = None  # As process 0 has it.
  if not resume or _CONFIG.value is not None:
    config = experiments_flags.required_config(_CONFIG)
  elif place is None or place.process_id == 0:
    config = run_directory.read_config(pathlib.Path(str(_WORKDIR.value)))
  cli.set_environment(several_processes=place is not None)
  # Imported late, so that --help and a mistyped flag answer at once.
  from acme_cbo.experiments import train  # noqa: PLC0415

  train.run(config, _WORKDIR.value, resume, _RESUME_STEP.value, place)


if __name__ == '__main__':
  cli.run(main)
