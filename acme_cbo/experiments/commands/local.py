r"""Trains in several processes of this machine, started and ended together.

acme-cbo local --processes=3 --config=configs/grpo.py \
  --config.runtime.kind=threaded --workdir=runs/mine

All other flags are those of the command train. With runtime.kind=threaded, the
first process learns and the others act; with mesh, all do both, each on its own
devices.
"""

from collections.abc import Sequence
import os
import sys

from absl import flags

from acme_cbo.experiments import main as experiments_main
from acme_cbo.infra import child_process
from acme_cbo.infra import cli
from acme_cbo.runtimes import local_launch

_PROCESSES = flags.DEFINE_integer(
  'processes', 2, 'Number of processes to start.'
)


def run(argv: Sequence[str] | None = None) -> None:
  """Runs the command, by default with the arguments of the process."""
  cli.run(main, argv, passes_on=True)


def main(argv: Sequence[str]) -> None:
  """Starts the processes with the remaining flags."""
  os.environ['PYTHONPATH'] = child_process.python_path()
  train = experiments_main.child_command('train')
  sys.exit(local_launch.run(train, argv[1:], _PROCESSES.value))
