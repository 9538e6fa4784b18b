"""SCMs as those that a policy was trained on, and SCMs off that distribution.

Each shift changes one thing of the prior of the policy's training and leaves
the rest. `as_trained` changes nothing; the others begin where training ended:

- `larger`: up to half as many variables again, and more than the most;
- `denser`: Erdos-Renyi graphs, from the highest edge probability to all edges;
- `noisier`: from the highest share of noise to twice that;
- `skewed`: Gumbel noise;
- `confounded`: three in ten more of the variables are latent;
- `bumps`: sums of Gaussian bumps as structural equations.
"""

from collections.abc import Callable, Mapping
import dataclasses
import hashlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from acme_cbo.infra import errors
from acme_cbo.scms import config
from acme_cbo.scms import graphs
from acme_cbo.scms import mechanisms
from acme_cbo.scms import priors
from acme_cbo.scms import systems

AS_TRAINED = 'as_trained'


def _only(member: Any) -> tuple[float, ...]:
  """Weights that leave one kind."""
  return tuple(float(other == member) for other in type(member))


# What of the prior each of them changes.
_CHANGES: dict[str, Callable[[config.PriorConfig], dict[str, Any]]] = {
  AS_TRAINED: lambda prior: {},
  'larger': lambda prior: dict(
    min_variables=prior.max_variables + 1,
    max_variables=prior.max_variables + -(-prior.max_variables // 2),
  ),
  'denser': lambda prior: dict(
    graph_weights=_only(graphs.Graph.ERDOS_RENYI),
    min_density=prior.max_density,
    max_density=1.0,
  ),
  'noisier': lambda prior: dict(
    min_noise=prior.max_noise, max_noise=2 * prior.max_noise
  ),
  'skewed': lambda prior: dict(noise_weights=_only(mechanisms.Noise.GUMBEL)),
  'confounded': lambda prior: dict(latent=min(prior.latent + 0.3, 0.9)),
  'bumps': lambda prior: dict(family_weights=_only(mechanisms.Family.BUMPS)),
}
NAMES = tuple(_CHANGES)


def prior(about: Mapping[str, Any], name: str) -> config.PriorConfig:
  """The prior of a policy's training, shifted.

  Args:
    about: what the policy was trained for, see `saving.load`.
    name: of `NAMES`.

  Returns:
    The `Prior`.

  Raises:
    errors.UsageError: the policy does not say what it was trained on.
  """
  given: dict[str, Any] = {
    **about.get('scms', {}),
    **about.get('horizon', {}),
    # Of the search by which the prior refuses an SCM; what is best is searched
    # more closely where the SCM is played on.
    'num_cells': 2,
  }
  fields = [field.name for field in dataclasses.fields(config.PriorConfig)]
  unknown = [field for field in fields if field not in given]
  if unknown:
    raise errors.UsageError(
      f'--scm: {name} is told from what the policy was trained on, and the '
      f'policy does not say its {", ".join(unknown)}; train one with this '
      'version'
    )
  # JSON has lists where a prior has tuples.
  known: dict[str, Any] = {
    field: tuple(given[field])
    if isinstance(given[field], list)
    else given[field]
    for field in fields
  }
  trained_on = config.PriorConfig(**known)
  return dataclasses.replace(trained_on, **_CHANGES[name](trained_on))


def digest(prior: config.PriorConfig) -> str:
  """SHA-256 of the settings from which systems are drawn."""
  return hashlib.sha256(repr(prior).encode()).hexdigest()


def system(name: str, prior: config.PriorConfig, repeat: int) -> systems.System:
  """One system.

  Args:
    name: of the distribution.
    prior: from `prior`.
    repeat: which one, from 0.

  Returns:
    The system, in the precision that is current; the same one in either.

  Raises:
    errors.UsageError: the prior refuses nearly every SCM that it draws.
  """
  # What is drawn depends on the precision.
  with jax.enable_x64(False):
    key = jax.random.fold_in(jax.random.key(0), repeat)
    drawn = jax.tree.map(
      lambda leaf: np.asarray(leaf[0]), priors.sample(key, prior, 1).scm
    )
  names = [f'x{j}' for j in range(prior.max_variables)]
  return systems.System(
    f'{name}/{repeat}',
    f'{name}: drawn from a prior of SCMs',
    tuple(names),
    jax.tree.map(_in_current_precision, drawn),
  )


def _in_current_precision(leaf: np.ndarray) -> jax.Array:
  real = np.issubdtype(leaf.dtype, np.floating)
  return jnp.asarray(leaf, float if real else leaf.dtype)
