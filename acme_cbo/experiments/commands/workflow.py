"""Trains configurations with several seeds each and compares them.

acme-cbo workflow --config=configs/workflow.py --workdir=runs/sweep

Rerunning the same command resumes; finished trainings are kept.
"""

from collections.abc import Sequence
import os
import pathlib
import sys

from absl import flags

from acme_cbo.experiments import flags as experiments_flags
from acme_cbo.infra import cli
from acme_cbo.infra import errors

_CONFIG = experiments_flags.define_config(
  'Path of the config file of a sweep, optionally followed by a preset; '
  'required. configs/workflow.py compares weights of the rewards (three hours '
  'on two cores), configs/workflow.py:short does so in 40 minutes, :smoke '
  'checks that a sweep runs.'
)
_WORKDIR = flags.DEFINE_string(
  'workdir', None, 'Directory of the sweep; required.'
)
_JOBS = flags.DEFINE_integer(
  'jobs',
  None,
  'Maximum number of simultaneous trainings; the default is 2, or the number '
  'of cores if that is smaller.',
)
_EXECUTOR = flags.DEFINE_enum(
  'executor', 'local', ['local', 'slurm'], 'Where the trainings run.'
)
_SLURM = flags.DEFINE_list(
  'slurm',
  [],
  "submitit's Slurm parameters, such as timeout_min=600,cpus_per_task=8.",
)


def run(argv: Sequence[str] | None = None) -> None:
  """Runs the command, by default with the arguments of the process."""
  cli.run(main, argv)


def main(argv: Sequence[str]) -> None:
  """Runs the sweep that the flags describe, see `experiments.sweep`."""
  del argv
  config = experiments_flags.required_config(_CONFIG, 'configs/workflow.py')
  if not _WORKDIR.value:
    raise errors.UsageError('name a directory for the sweep: --workdir=')
  # Imported late, so that --help and a mistyped flag answer at once.
  from acme_cbo.experiments import executors  # noqa: PLC0415
  from acme_cbo.experiments import sweep as sweep_lib  # noqa: PLC0415
  from acme_cbo.experiments import sweep_config  # noqa: PLC0415

  sweep = experiments_flags.required_function(_CONFIG, 'sweep')
  executor = executors.from_flags(_EXECUTOR.value, _SLURM.value)
  jobs = _JOBS.value or min(2, len(os.sched_getaffinity(0)))
  failures = sweep_lib.run(
    config,
    sweep_config.expand(sweep, _CONFIG.value),
    pathlib.Path(_WORKDIR.value),
    jobs,
    executor,
  )
  for sentence in failures:
    print(f'error: {sentence}', file=sys.stderr)
  sys.exit(1 if failures else 0)
