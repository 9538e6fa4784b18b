"""The launcher of evaluations on systems that are small, as a program.

python tests/tiny_evaluation.py --scm=chain --methods=random --out=DIRECTORY
"""

from collections.abc import Sequence
import os
import pathlib
import signal
import sys
import time

from absl import flags
import jax
import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from acme_cbo import command_line
from acme_cbo import compare
from acme_cbo import errors
from acme_cbo import networks
from acme_cbo import trained_policy
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


def fails(repeat: int) -> systems.System:
  """Has no second repeat."""
  if repeat:
    raise RuntimeError('broken on purpose')
  return fresh(0)


def dies(repeat: int) -> systems.System:
  """Takes the process with it in the second repeat."""
  if repeat:
    os.kill(os.getpid(), signal.SIGKILL)
  return fresh(0)


def lasts(repeat: int) -> systems.System:
  """Takes ten minutes from the second repeat on."""
  if repeat:
    time.sleep(600)
  return fresh(0)


def flat(repeat: int) -> systems.System:
  """Nothing that is done to A moves Y."""
  del repeat
  scm = hand_made_scms.scm(
    hand_made_scms.mechanism(2), hand_made_scms.problem(2, 1)
  )
  return _system('flat', scm, ('A', 'Y'))


def save_policy(directory: pathlib.Path, seed: int = 0) -> None:
  """Saves a small policy that was never trained.

  Args:
    directory: for it.
    seed: of its parameters.
  """
  architecture = networks.Architecture(
    width=8,
    num_blocks=1,
    num_heads=2,
    mlp_factor=1,
    num_cells=3,
    belief_input='none',
  )
  params = jax.jit(networks.make(architecture).init)(
    jax.random.PRNGKey(seed),
    hand_made_scms.problem(2, 1),
    np.zeros((2, 2)),
    networks.start_row(2),
  )
  about = {
    'scms': {'max_variables': 2},
    'horizon': {'num_observations': 20, 'num_interventions': 2},
  }
  trained_policy.save(directory, architecture, params, about)


def resolve(texts: Sequence[str]) -> list[environments.Environment]:
  """The systems above, and files of which only the content counts."""
  known = {
    'chain': environments.Environment('chain', chain),
    'wave': environments.Environment('wave', wave, held_out=True),
    **{
      make.__name__: environments.Environment(
        make.__name__, make, held_out=False, fresh=True
      )
      for make in (fresh, fails, dies, lasts, flat)
    },
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
