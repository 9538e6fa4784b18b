"""`launchers/evaluate.py` on environments that are small, or fail.

python tests/tiny_evaluation.py --scm=chain --methods=random --out=DIRECTORY
"""

from collections.abc import Sequence
import pathlib
import sys

from absl import flags

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from acme_cbo import command_line
from launchers import evaluate as _launcher  # noqa: F401 It defines the flags.


def main(argv: Sequence[str]) -> None:
  """As that of the launcher."""
  del argv
  # Imported late, as there: the processes that it starts need not all of it.
  from acme_cbo import evaluate  # noqa: PLC0415
  from tests import tiny_environments  # noqa: PLC0415

  evaluate.run(evaluate.from_flags(flags.FLAGS), tiny_environments.resolve)


if __name__ == '__main__':
  command_line.run(main)
