"""Compares trained runs and evaluations: ranking, differences, significance.

acme-cbo compare runs/a runs/b --out=runs/a_and_b
acme-cbo compare 'runs/sweep/runs/*' --out=runs/sweep/again
acme-cbo compare runs/evaluated mine/results.csv --out=runs/compared

Runs that differ only in the seed count as one configuration. Policies of runs
are evaluated on the SCMs of --scm; existing evaluations are taken as they are.
Writes index.html, summary.json and units.csv.
"""

from collections.abc import Sequence

from absl import flags

from acme_cbo.evaluation import config
from acme_cbo.experiments import flags as experiments_flags
from acme_cbo.infra import cli
from acme_cbo.infra import jax_environment

experiments_flags.define_evaluation(config.ComparisonConfig)


def run(argv: Sequence[str] | None = None) -> None:
  """Runs the command, by default with the arguments of the process."""
  cli.run(main, argv, takes_arguments=True)


def main(argv: Sequence[str]) -> None:
  """Compares what the arguments name, see `evaluation.comparison.run`."""
  jax_environment.set_defaults(small_programs=True)
  # Imported late, so that --help and a mistyped flag answer at once.
  from acme_cbo.evaluation.comparison import run as comparison  # noqa: PLC0415
  from acme_cbo.scms import registry  # noqa: PLC0415

  settings = comparison.from_flags(flags.FLAGS, argv[1:])
  comparison.run(settings, registry.resolve)
