"""Compares methods on SCMs; the same command goes on after a kill.

python launchers/evaluate.py --workdir=runs/mine --out=runs/mine/evaluation
python launchers/evaluate.py --scm=toy,my.yaml --methods=random,oracle --out=o
"""

from collections.abc import Sequence
import pathlib
import sys

from absl import flags

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from acme_cbo.experiments import flags as experiments_flags
from acme_cbo.infra import cli

experiments_flags.define_playing(['benchmarks'], 'method')
flags.DEFINE_list(
  'methods', ['grpo', 'cbo', 'gp_bo', 'random'], 'What is compared.'
)
flags.DEFINE_string('workdir', None, 'Run whose policy plays as grpo.')
flags.DEFINE_string(
  'policy',
  None,
  'Directory of a saved policy instead; without either, that of the package.',
)
flags.DEFINE_integer(
  'observations', 100, 'Records before the first intervention.'
)
flags.DEFINE_integer('interventions', 40, 'The most that an episode makes.')


def main(argv: Sequence[str]) -> None:
  """Reads the flags; the rest is `acme_cbo.evaluate`."""
  del argv
  cli.set_environment(small_programs=True)
  # Imported late, so that --help and a mistyped flag answer at once.
  from acme_cbo.evaluation import config  # noqa: PLC0415
  from acme_cbo.evaluation import run  # noqa: PLC0415
  from acme_cbo.scms import registry  # noqa: PLC0415

  run.run(config.method_config_from_flags(flags.FLAGS), registry.resolve)


if __name__ == '__main__':
  cli.run(main)
