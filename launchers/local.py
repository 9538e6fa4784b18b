"""Trains in several processes of this machine: starts them, ends them together.

python launchers/local.py --processes=3 --config=configs/grpo.py
  --config.runtime.kind=threaded --workdir=runs/mine

All other flags are those of launchers/train.py. Of the kind 'threaded', process
0 learns and the others act; of the kind 'mesh', all do both on their devices.
"""

from collections.abc import Sequence
import pathlib
import sys

from absl import flags

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from acme_cbo.infra import cli
from acme_cbo.runtimes import local_launch

_PROCESSES = flags.DEFINE_integer('processes', 2, 'How many there are.')


def main(argv: Sequence[str]) -> None:
  """Starts them with what is left of the flags."""
  train = pathlib.Path(__file__).with_name('train.py')
  sys.exit(local_launch.run(str(train), argv[1:], _PROCESSES.value))


if __name__ == '__main__':
  cli.run(main, passes_on=True)
