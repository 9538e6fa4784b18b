"""Trains a policy and compares it with heuristics on held-out SCMs.

acme-cbo train --config=configs/grpo.py --workdir=runs/mine
acme-cbo train --resume --workdir=runs/mine

SCMs are structural causal models. --config.grpo.beta=0.01 overrides a field of
the config; --config_help lists all fields.
"""

from collections.abc import Sequence
import pathlib

from absl import flags

from acme_cbo.experiments import config as config_lib
from acme_cbo.experiments import flags as experiments_flags
from acme_cbo.infra import cli
from acme_cbo.infra import errors
from acme_cbo.infra import jax_environment

_CONFIG = experiments_flags.define_config(
  'Path of the config file, optionally followed by a preset; required unless '
  'a run is resumed. configs/grpo.py trains for minutes, configs/grpo.py:smoke '
  'checks that training runs, :linear has linear SCMs alone, :large a larger '
  'network, :general sets several variables at once and takes hours.'
)
_WORKDIR = flags.DEFINE_string(
  'workdir', None, 'Run directory; the default is runs/<name>-<time>.'
)
_RESUME = flags.DEFINE_bool('resume', False, 'Resume the run in --workdir.')
_RESUME_STEP = flags.DEFINE_integer(
  'resume_step',
  None,
  'Resume the run from the checkpoint of this update; deletes later ones.',
)
experiments_flags.define_processes()


def run(argv: Sequence[str] | None = None) -> None:
  """Runs the command, by default with the arguments of the process."""
  cli.run(main, argv, config_help=config_lib.help_text)


def main(argv: Sequence[str]) -> None:
  """Trains as the flags say, see `experiments.train`."""
  del argv
  if _WORKDIR.value == '':
    raise errors.UsageError('--workdir is empty; name a directory')
  resume = _RESUME.value or _RESUME_STEP.value is not None
  if resume and _WORKDIR.value is None:
    raise errors.UsageError('name the run to resume: --workdir=')
  process_spec = experiments_flags.process_spec()
  config: config_lib.GRPOConfig | None = None  # Sent by process 0.
  if not resume or _CONFIG.value is not None:
    config = experiments_flags.required_training_config(_CONFIG)
  elif process_spec is None or process_spec.process_id == 0:
    config = config_lib.read_to_resume(pathlib.Path(str(_WORKDIR.value)))
  jax_environment.set_defaults(several_processes=process_spec is not None)
  # Imported late, so that --help and a mistyped flag answer at once.
  from acme_cbo.experiments import train  # noqa: PLC0415

  train.run(config, _WORKDIR.value, resume, _RESUME_STEP.value, process_spec)
