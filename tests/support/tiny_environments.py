"""Environments that are small, or fail, for evaluations; and a small policy."""

from collections.abc import Callable, Mapping, Sequence
import os
import pathlib
import signal
import time
from typing import Any

import jax
import numpy as np

from acme_cbo.infra import errors
from acme_cbo.networks import config
from acme_cbo.networks import tokens
from acme_cbo.networks import transformer
from acme_cbo.policies import saving
from acme_cbo.scms import optimum
from acme_cbo.scms import registry
from acme_cbo.scms import systems
from tests.support import hand_made_scms

_NAMES = ('A', 'B', 'Y', 'padding')


def _system(name: str, scm, variables=_NAMES) -> systems.System:
  return systems.System(name, 'a test', variables, scm, None)


def chain(repeat: int = 0) -> systems.System:
  """A -> B -> Y, linear, to be maximised; the best is do(A = -1): 1."""
  del repeat
  return _system('chain', hand_made_scms.chain(1.0))


def fresh(repeat: int) -> systems.System:
  """B alone may be set, Y = B + e, and Y = 2 B + e in every other repeat.

  Its arrays have the shapes of `chain`, so that it needs no other programs.
  """
  number = repeat % 2
  linear = np.zeros((4, 4))
  linear[2, 1] = 1 + number
  scm = hand_made_scms.scm(
    hand_made_scms.mechanism(4, linear=linear),
    hand_made_scms.problem(4, 2, settable=[1], size=3),
  )
  return _system(f'fresh {number}', scm)


def numbered(repeat: int) -> systems.System:
  """The same one each time, under another name."""
  return fresh(0)._replace(name=f'number {repeat}')


def flat(repeat: int) -> systems.System:
  """Nothing that is done to A moves Y."""
  del repeat
  scm = hand_made_scms.scm(
    hand_made_scms.mechanism(2), hand_made_scms.problem(2, 1)
  )
  return _system('flat', scm, ('A', 'Y'))


def wide(repeat: int) -> systems.System:
  """Nine variables, of which the first moves the last."""
  del repeat
  linear = np.zeros((9, 9))
  linear[8, 0] = 1.0
  scm = hand_made_scms.scm(
    hand_made_scms.mechanism(9, linear=linear),
    hand_made_scms.problem(9, 8, settable=[0]),
  )
  return _system('wide', scm, tuple('ABCDEFGHY'))


_FOUND: dict[tuple[str, float], optimum.Optimum] = {}


def search(system: systems.System) -> optimum.Optimum:
  """On few draws and once for each system: it would take most of the time."""
  which = system.name, float(system.scm.problem.budget)
  if which not in _FOUND:
    _FOUND[which] = optimum.search(system, num_draws=optimum.NUM_SEARCH_DRAWS)
  return _FOUND[which]


def _search_first(act: Callable[[], None]) -> Callable[..., optimum.Optimum]:
  """Searches the first repeat of `numbered`; before the others it acts."""

  def search_one(system):
    if system.name != 'number 0':
      act()
    return search(fresh(0))

  return search_one


def _fail() -> None:
  raise RuntimeError('broken on purpose')


# What happens in the process that plays the second repeat.
_ACTS = {
  'fails': _fail,
  'dies': lambda: os.kill(os.getpid(), signal.SIGKILL),
  'lasts': lambda: time.sleep(600),
}


def save_policy(directory: pathlib.Path, seed: int = 0) -> None:
  """Saves a small policy that was never trained.

  Args:
    directory: for it.
    seed: of its parameters.
  """
  architecture = config.NetworkConfig(
    width=8,
    num_blocks=1,
    num_heads=2,
    mlp_factor=1,
    num_cells=3,
    belief_input='none',
  )
  params = jax.jit(transformer.make(architecture).init)(
    jax.random.PRNGKey(seed),
    hand_made_scms.problem(2, 1),
    np.zeros((2, 2)),
    tokens.start_row(2),
  )
  about = {
    'scms': {'max_variables': 2},
    'horizon': {'num_observations': 20, 'num_interventions': 2},
  }
  saving.save(directory, architecture, params, about)


def resolve(
  texts: Sequence[str], about: Mapping[str, Any]
) -> list[registry.Environment]:
  """The systems above, and files of which only the content counts."""
  del about
  known = {
    'chain': registry.Environment('chain', chain, search=search),
    **{
      make.__name__: registry.Environment(
        make.__name__, make, held_out=False, fresh=True, search=search
      )
      for make in (fresh, flat, wide)
    },
    **{
      name: registry.Environment(
        name,
        numbered,
        held_out=False,
        fresh=True,
        search=_search_first(act),
      )
      for name, act in _ACTS.items()
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
