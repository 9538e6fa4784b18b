"""Evaluates methods on SCMs; rerunning the same command resumes.

acme-cbo evaluate --workdir=runs/mine --out=runs/mine/evaluation
acme-cbo evaluate --scm=toy,my.yaml --methods=random,oracle --out=o
"""

from collections.abc import Sequence

from absl import flags

from acme_cbo.evaluation import config
from acme_cbo.experiments import flags as experiments_flags
from acme_cbo.infra import cli
from acme_cbo.infra import jax_environment

experiments_flags.define_evaluation(config.MethodEvaluationConfig)
flags.DEFINE_string(
  'workdir', None, 'Run directory of the policy that is evaluated as grpo.'
)
flags.DEFINE_string(
  'policy',
  None,
  'Directory of a saved policy that is evaluated as grpo, instead of '
  '--workdir; the default is the policy shipped with the package.',
)


def run(argv: Sequence[str] | None = None) -> None:
  """Runs the command, by default with the arguments of the process."""
  cli.run(main, argv)


def main(argv: Sequence[str]) -> None:
  """Evaluates as the flags say, see `evaluation.run`."""
  del argv
  jax_environment.set_defaults(small_programs=True)
  # Imported late, so that --help and a mistyped flag answer at once.
  from acme_cbo.evaluation import run as evaluation  # noqa: PLC0415
  from acme_cbo.scms import registry  # noqa: PLC0415

  evaluation.run(evaluation.from_flags(flags.FLAGS), registry.resolve)
