"""Small environments, some of which fail, and a small untrained policy."""

from collections.abc import Callable, Mapping, Sequence
import os
import pathlib
import signal
import time
from typing import Any

import jax
import numpy as np

from acme_cbo.infra import config_schema
from acme_cbo.infra import errors
from acme_cbo.networks import config
from acme_cbo.networks import tokens
from acme_cbo.networks import transformer
from acme_cbo.policies import saving
from acme_cbo.scms import config as scms_config
from acme_cbo.scms import optimum
from acme_cbo.scms import registry
from acme_cbo.scms import systems
from tests.support import hand_made_scms

_NAMES = ('A', 'B', 'Y', 'padding')


def _system(name: str, scm, variables=_NAMES) -> systems.System:
  return systems.System(name, 'a test', variables, scm, None)


def chain(repeat: int = 0) -> systems.System:
  """Returns A -> B -> Y, linear, to maximize; the best is do(A = -1): 1."""
  del repeat
  return _system('chain', hand_made_scms.chain(1.0))


def fresh(repeat: int) -> systems.System:
  """Returns Y = B + e, or Y = 2 B + e in every other repeat.

  Only B can be set. The arrays have the shapes of `chain`, so that both share
  compiled programs.
  """
  index = repeat % 2
  linear = np.zeros((4, 4))
  linear[2, 1] = 1 + index
  scm = hand_made_scms.scm(
    hand_made_scms.mechanism(4, linear=linear),
    hand_made_scms.problem(4, 2, settable=[1], size=3),
  )
  return _system(f'fresh {index}', scm)


def numbered(repeat: int) -> systems.System:
  """Returns the same system for every repeat, with a name of its own."""
  return fresh(0)._replace(name=f'number {repeat}')


def flat(repeat: int) -> systems.System:
  """Returns a system in which A has no effect on Y."""
  del repeat
  scm = hand_made_scms.scm(
    hand_made_scms.mechanism(2), hand_made_scms.problem(2, 1)
  )
  return _system('flat', scm, ('A', 'Y'))


def wide(repeat: int) -> systems.System:
  """Returns nine variables, of which the first is the parent of the last."""
  del repeat
  linear = np.zeros((9, 9))
  linear[8, 0] = 1.0
  scm = hand_made_scms.scm(
    hand_made_scms.mechanism(9, linear=linear),
    hand_made_scms.problem(9, 8, settable=[0]),
  )
  return _system('wide', scm, tuple('ABCDEFGHY'))


_OPTIMA: dict[tuple[str, float], optimum.Optimum] = {}


def search(system: systems.System) -> optimum.Optimum:
  """Finds the optimum on few draws, and caches it, to save time."""
  key = system.name, float(system.scm.problem.budget)
  if key not in _OPTIMA:
    _OPTIMA[key] = optimum.search(system, num_draws=optimum.NUM_SEARCH_DRAWS)
  return _OPTIMA[key]


def _search_with(
  side_effect: Callable[[], None],
) -> Callable[..., optimum.Optimum]:
  """Returns a `search` with a side effect for all but the first repeat."""

  def search_repeat(system):
    if system.name != 'number 0':
      side_effect()
    return search(fresh(0))

  return search_repeat


def _fail() -> None:
  raise RuntimeError('broken on purpose')


# Side effects in the process that runs the second repeat.
_SIDE_EFFECTS = {
  'fails': _fail,
  'dies': lambda: os.kill(os.getpid(), signal.SIGKILL),
  'lasts': lambda: time.sleep(600),
}


def save_policy(directory: pathlib.Path, seed: int = 0) -> None:
  """Saves a small untrained policy.

  Args:
    directory: directory that it is saved to.
    seed: random seed of its parameters.
  """
  architecture = config.NetworkConfig(
    width=8,
    num_blocks=1,
    num_heads=2,
    mlp_factor=1,
    num_cells=8,
    belief_input='none',
  )
  params = jax.jit(transformer.make(architecture).init)(
    jax.random.PRNGKey(seed),
    hand_made_scms.problem(2, 1),
    np.zeros((2, 2)),
    tokens.start_row(2),
  )
  metadata = {
    'scms': config_schema.to_dict(
      scms_config.PriorConfig(min_variables=2, max_variables=2)
    ),
    'horizon': {'num_observations': 20, 'num_interventions': 2},
  }
  saving.save(directory, architecture, params, metadata)


def resolve(
  texts: Sequence[str], metadata: Mapping[str, Any]
) -> list[registry.Environment]:
  """Finds the systems above; a YAML file stands for `chain` with its digest."""
  del metadata
  environments = {
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
        search=_search_with(side_effect),
      )
      for name, side_effect in _SIDE_EFFECTS.items()
    },
  }
  resolved = []
  for text in texts:
    if text.endswith('.yaml'):
      digest = pathlib.Path(text).read_text()
      chain_from_file = environments['chain']._replace(
        name='file', digest=digest
      )
      resolved.append(chain_from_file)
    elif text in environments:
      resolved.append(environments[text])
    else:
      raise errors.UsageError(f'there is no SCM {text!r}')
  return resolved
