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

from acme_cbo import command_line

command_line.define_playing(['chain_5', 'fork_5', 'star_5', 'sparse_5'], 'run')
flags.DEFINE_bool(
  'allow_mismatch',
  False,
  'Compare also what was stopped early, or trained or evaluated otherwise, '
  'and mark it.',
)


def main(argv: Sequence[str]) -> None:
  """Reads the flags; the rest is `acme_cbo.compare`."""
  command_line.set_environment(small_programs=True)
  # Imported late, so that --help and a mistyped flag answer at once.
  from acme_cbo import compare  # noqa: PLC0415
  from acme_cbo.evaluation import environments  # noqa: PLC0415

  settings = compare.from_flags(flags.FLAGS, argv[1:])
  compare.run(settings, environments.resolve)


if __name__ == '__main__':
  command_line.run(main, takes_arguments=True)
