"""The command evaluate on the environments of `tiny_environments`.

python tests/support/tiny_evaluation.py --scm=chain --methods=random --out=DIR
"""

from collections.abc import Sequence
import pathlib
import sys

from absl import flags

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

from acme_cbo.experiments.commands import evaluate as _  # noqa: F401 Flags.
from acme_cbo.infra import cli


def main(argv: Sequence[str]) -> None:
  """Runs the evaluation that the flags describe."""
  del argv
  # Imported here because the worker processes do not need all of it.
  from acme_cbo.evaluation import run  # noqa: PLC0415
  from tests.support import tiny_environments  # noqa: PLC0415

  run.run(run.from_flags(flags.FLAGS), tiny_environments.resolve)


if __name__ == '__main__':
  cli.run(main)
