"""Trains configurations with several seeds each, and says which is better.

python launchers/workflow.py --config=configs/workflow.py --workdir=runs/study
The same command goes on after Ctrl-C or a kill; what is finished stays.
"""

from collections.abc import Sequence
import os
import pathlib
import sys

from absl import flags
from ml_collections import config_flags

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from acme_cbo.experiments import executors
from acme_cbo.experiments import flags as experiments_flags
from acme_cbo.experiments import sweep as sweep_lib
from acme_cbo.experiments import sweep_config
from acme_cbo.infra import cli
from acme_cbo.infra import errors

_CONFIG = config_flags.DEFINE_config_file(
  'config',
  help_string='Path of a study, a preset behind it: configs/workflow.py '
  'compares reward balances, :short in half an hour; :smoke only runs.',
)
_WORKDIR = flags.DEFINE_string('workdir', None, 'Directory of the study.')
_JOBS = flags.DEFINE_integer(
  'jobs', None, 'Trainings at a time; 2, or as many as there are cores.'
)
_EXECUTOR = flags.DEFINE_enum(
  'executor', 'local', ['local', 'slurm'], 'Where they run.'
)
_SLURM = flags.DEFINE_list('slurm', [], 'As timeout_min=600,cpus_per_task=8.')


def main(argv: Sequence[str]) -> None:
  """Reads the flags; the rest is `acme_cbo.workflow`."""
  del argv
  config = experiments_flags.required_config(
    _CONFIG, 'configs/workflow.py', False
  )
  if not _WORKDIR.value:
    raise errors.UsageError('name a directory for the study: --workdir=')
  sweep = experiments_flags.required_function(_CONFIG, 'sweep')
  executor = executors.from_flags(_EXECUTOR.value, _SLURM.value)
  jobs = _JOBS.value or min(2, len(os.sched_getaffinity(0)))
  failed = sweep_lib.run(
    config,
    sweep_config.expand(sweep, _CONFIG.value),
    sweep_lib.Settings(pathlib.Path(_WORKDIR.value), jobs, executor),
  )
  for sentence in failed:
    print(f'error: {sentence}', file=sys.stderr)
  sys.exit(1 if failed else 0)


if __name__ == '__main__':
  cli.run(main)
