"""Evaluates methods on SCMs; rerunning the same command resumes.

acme-cbo evaluate --workdir=runs/mine --out=runs/mine/evaluation
acme-cbo evaluate --scm=toy,my.yaml --methods=random,oracle --out=o
"""

from collections.abc import Sequence

from absl import flags

from acme_cbo.experiments import flags as experiments_flags
from acme_cbo.infra import cli
from acme_cbo.infra import jax_environment

experiments_flags.define_evaluation(['benchmarks'], 'method')
flags.DEFINE_list(
  'methods',
  ['grpo', 'cbo', 'gp_bo', 'random'],
  'Methods to evaluate: grpo, cbo, gp_bo, posterior_thompson, '
  'explore_then_commit, slope, random, oracle.',
)
flags.DEFINE_string(
  'workdir', None, 'Run directory of the policy that is evaluated as grpo.'
)
flags.DEFINE_string(
  'policy',
  None,
  'Directory of a saved policy that is evaluated as grpo, instead of '
  '--workdir; the default is the policy shipped with the package.',
)
flags.DEFINE_integer(
  'observations',
  100,
  'Number of observations before the first intervention.',
)
flags.DEFINE_integer(
  'interventions', 40, 'Maximum number of interventions per episode.'
)


def run(argv: Sequence[str] | None = None) -> None:
  """Runs the command, by default with the arguments of the process."""
  cli.run(main, argv)


def main(argv: Sequence[str]) -> None:
  """Evaluates as the flags say, see `evaluation.run`."""
  del argv
  jax_environment.set_defaults(small_programs=True)
  # Imported late, so that --help and a mistyped flag answer at once.
  from acme_cbo.evaluation import config  # noqa: PLC0415
  from acme_cbo.evaluation import run as evaluation  # noqa: PLC0415
  from acme_cbo.scms import registry  # noqa: PLC0415

  evaluation.run(config.method_config_from_flags(flags.FLAGS), registry.resolve)
