"""Compares trained runs and evaluations: who is better, and how surely?

python launchers/compare.py runs/a runs/b --out=runs/a_and_b
python launchers/compare.py 'runs/study/runs/*' --out=runs/study/again
python launchers/compare.py runs/evaluated mine/results.csv --out=runs/beside
Runs whose settings differ in the seed alone are of one configuration. Writes
index.html, summary.json, units.csv.
"""

from collections.abc import Sequence
import pathlib
import sys

from absl import flags

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from acme_cbo.experiments import flags as experiments_flags
from acme_cbo.infra import cli

experiments_flags.define_playing(
  ['chain_5', 'fork_5', 'star_5', 'sparse_5'], 'run'
)
flags.DEFINE_bool(
  'allow_mismatch',
  False,
  'Compare also what was stopped early, or trained or evaluated otherwise, '
  'and mark it.',
)


def main(argv: Sequence[str]) -> None:
  """Reads the flags; the rest is `acme_cbo.compare`."""
  cli.set_environment(small_programs=True)
  # Imported late, so that --help and a mistyped flag answer at once.
  from acme_cbo.evaluation.comparison import run  # noqa: PLC0415
  from acme_cbo.scms import registry  # noqa: PLC0415

  settings = run.from_flags(flags.FLAGS, argv[1:])
  run.run(settings, registry.resolve)


if __name__ == '__main__':
  cli.run(main, takes_arguments=True)
