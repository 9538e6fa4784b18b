"""The launcher of evaluations on systems that are small, as a program.

python tests/tiny_evaluation.py --scm=chain --methods=random --out=DIRECTORY
"""

from collections.abc import Sequence
import pathlib
import sys

from absl import flags
import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from acme_cbo import command_line
from acme_cbo import compare
from acme_cbo import errors
from acme_cbo.evaluation import environments
from acme_cbo.scms import mechanisms
from acme_cbo.scms import systems
from launchers import evaluate  # noqa: F401 It defines the flags.
from tests import hand_made_scms

_NAMES = ('A', 'B', 'Y', 'padding')


def _system(name: str, scm, variables=_NAMES) -> systems.System:
  return systems.System(name, 'a test', variables, scm, None)


def chain(repeat: int = 0) -> systems.System:
  """A -> B -> Y, linear, to be maximised; the best is do(A = -1): 1."""
  del repeat
  return _system('chain', hand_made_scms.chain(1.0))


def wave(repeat: int = 0) -> systems.System:
  """Y = 10 + 2 (cos(2 A) + B^2 / (1 + B^2 / 36) + e), to be minimised.

  A and B can be set alone, at a cost of 1, or together, at 2.
  """
  del repeat
  hidden = np.zeros((3, 2, 3))
  hidden[2, 0, 0] = hidden[2, 1, 1] = 2.0
  activation = np.full(3, mechanisms.Activation.COSINE)
  scm = hand_made_scms.scm(
    hand_made_scms.mechanism(
      3,
      2,
      hidden=hidden,
      output=[[0, 0], [0, 0], [1, 1]],
      activation=activation,
    ),
    hand_made_scms.problem(
      3,
      2,
      goal=-1.0,
      low=-2.0,
      high=2.0,
      sets=[[1, 0, 0], [0, 1, 0], [1, 1, 0]],
    ),
    location=10.0,
    scale=2.0,
    family=mechanisms.Family.FOURIER,
  )
  return _system('wave', scm, ('A', 'B', 'Y'))


def fresh(repeat: int) -> systems.System:
  """Y = (1 + repeat) A + e: another system in each repeat."""
  linear = np.zeros((2, 2))
  linear[1, 0] = 1 + repeat
  scm = hand_made_scms.scm(
    hand_made_scms.mechanism(2, linear=linear), hand_made_scms.problem(2, 1)
  )
  return _system(f'fresh {repeat}', scm, ('A', 'Y'))


def resolve(texts: Sequence[str]) -> list[environments.Environment]:
  """Those three, and files of which only the content counts."""
  known = {
    'chain': environments.Environment('chain', chain),
    'wave': environments.Environment('wave', wave, held_out=True),
    'fresh': environments.Environment('fresh', fresh, False, fresh=True),
  }
  found = []
  for text in texts:
    if text.endswith('.yaml'):
      digest = pathlib.Path(text).read_text()
      found.append(known['chain']._replace(name='file', digest=digest))
    elif text in known:
      found.append(known[text])
    else:
      raise errors.UsageError(f'--scm: there is no SCM {text!r}')
  return found


def main(argv: Sequence[str]) -> None:
  """As `launchers/evaluate.py`."""
  del argv
  compare.run(compare.from_flags(flags.FLAGS), resolve)


if __name__ == '__main__':
  command_line.run(main)
