"""Two SCMs from the literature, in numpy, for tests of the baselines.

They are ToyGraph and CompleteGraph of Aglietti et al., "Causal Bayesian
Optimization" (2020). The target is minimized.
"""

from collections.abc import Callable, Mapping, Sequence
import itertools
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from acme_cbo import types

# (values so far [S] by name, noise [S]) -> [S].
Equation = Callable[[Mapping[str, np.ndarray], np.ndarray], np.ndarray]


class KnownSCM(NamedTuple):
  """An SCM in numpy; variables are named by single letters, causes first.

  Attributes:
    equations: {variable: equation}.
    parents: {variable: its parents}.
    latent: latent variables.
    domains: {settable variable: domain}.
  """

  equations: dict[str, Equation]
  parents: dict[str, str]
  latent: str
  domains: dict[str, tuple[float, float]]

  def sample(self, rng, settings: Mapping[int, float], num_rows: int):
    """Samples [S, D] rows under do(); latent variables are 0."""
    values = {}
    for j, (name, equation) in enumerate(self.equations.items()):
      noise = rng.normal(size=num_rows)
      free = equation(values, noise)
      values[name] = np.full(num_rows, settings[j]) if j in settings else free
    return np.stack(
      [
        np.zeros(num_rows) if n in self.latent else v for n, v in values.items()
      ],
      1,
    )

  def to_scm(self, sets: Sequence[str] | None = None, **problem) -> types.SCM:
    """Returns graph and problem; by default all sets are allowed."""
    names = list(self.equations)
    if sets is None:
      sets = [
        ''.join(chosen)
        for size in range(1, len(self.domains) + 1)
        for chosen in itertools.combinations(self.domains, size)
      ]
    low, high = np.array([self.domains.get(n, (0.0, 0.0)) for n in names]).T
    defaults = dict(
      exists=np.array([n not in self.latent for n in names]),
      sets=np.array([[n in chosen for n in names] for chosen in sets]),
      target=np.array([n == 'Y' for n in names]),
      goal=-1.0,
      low=low,
      high=high,
      cost=np.ones(len(names)),
      budget=np.inf,
      samples=1.0,
    )
    arrays = {n: jnp.asarray(v) for n, v in (defaults | problem).items()}
    return types.SCM(
      problem=types.Problem(**arrays),
      mechanism=None,
      present=jnp.ones(len(names), bool),
      parents=jnp.array(
        [[n in self.parents[child] for n in names] for child in names]
      ),
      order=jnp.arange(len(names)),
      location=jnp.zeros(len(names)),
      scale=jnp.ones(len(names)),
      graph=jnp.int32(0),
      family=jnp.int32(0),
    )


def toy() -> KnownSCM:
  """Returns ToyGraph; the best is -2.1718, by do(Z = -3.2003)."""
  return KnownSCM(
    equations={
      'X': lambda v, e: e,
      'Z': lambda v, e: np.exp(-v['X']) + e,
      'Y': lambda v, e: np.cos(v['Z']) - np.exp(-v['Z'] / 20) + e,
    },
    parents={'X': '', 'Z': 'X', 'Y': 'Z'},
    latent='',
    domains={'X': (-5.0, 5.0), 'Z': (-5.0, 20.0)},
  )


def complete() -> KnownSCM:
  """Returns CompleteGraph; the best is about -3.48, by do(B = -5, D = 3.28)."""
  return KnownSCM(
    equations={
      'U': lambda v, e: e,
      'V': lambda v, e: e,
      'F': lambda v, e: e,
      'A': lambda v, e: v['F'] ** 2 + v['U'] + e,
      'B': lambda v, e: v['V'] + e,
      'C': lambda v, e: np.exp(-v['B']) + e,
      'D': lambda v, e: np.exp(-v['C']) / 10 + e,
      'E': lambda v, e: np.cos(v['A']) + v['C'] / 10 + e,
      'Y': lambda v, e: (
        np.cos(v['D'])
        - v['D'] / 5
        + np.sin(v['E'])
        - v['E'] / 4
        + v['U']
        + np.exp(-v['V'])
        + e
      ),
    },
    parents={
      'U': '',
      'V': '',
      'F': '',
      'A': 'FU',
      'B': 'V',
      'C': 'B',
      'D': 'C',
      'E': 'AC',
      'Y': 'DEUV',
    },
    latent='UV',
    domains={'B': (-5.0, 4.0), 'D': (-5.0, 5.0), 'E': (-6.0, 3.0)},
  )
