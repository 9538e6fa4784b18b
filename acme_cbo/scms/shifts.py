"""Distribution shifts of the prior that a policy was trained on.

Each shift changes one aspect of the training prior, here without known edges,
allowed values and Student's noise. `as_trained` changes nothing else. The
others leave the range of training:

- `larger`: more variables than the largest training SCM, up to 1.5 times as
  many;
- `denser`: Erdos-Renyi graphs whose edge probability is between the highest of
  training and 1;
- `noisier`: noise ratios between the highest of training and twice that;
- `skewed`: Gumbel noise;
- `confounded`: the probability that a variable is latent is higher by 0.3, but
  at most 0.9;
- `bumps`: sums of Gaussian bumps as structural equations.
"""

from collections.abc import Callable, Mapping
import dataclasses
import hashlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from acme_cbo.infra import config_schema
from acme_cbo.scms import config
from acme_cbo.scms import priors
from acme_cbo.scms import systems

AS_TRAINED = 'as_trained'


# Name of each shift -> function from the training prior to the changed fields.
_CHANGES: dict[str, Callable[[config.Prior], dict[str, Any]]] = {
  AS_TRAINED: lambda prior: {},
  'larger': lambda prior: dict(
    min_variables=prior.max_variables + 1,
    max_variables=prior.max_variables + -(-prior.max_variables // 2),
  ),
  'denser': lambda prior: dict(
    graph_weights=config.GraphWeights.only('erdos_renyi'),
    min_density=prior.max_density,
    max_density=1.0,
  ),
  'noisier': lambda prior: dict(
    min_noise=prior.max_noise, max_noise=2 * prior.max_noise
  ),
  'skewed': lambda prior: dict(
    noise_weights=config.NoiseWeights.only('gumbel')
  ),
  'confounded': lambda prior: dict(latent=min(prior.latent + 0.3, 0.9)),
  'bumps': lambda prior: dict(
    family_weights=config.FamilyWeights.only('bumps')
  ),
}
NAMES = tuple(_CHANGES)


def prior(metadata: Mapping[str, Any], name: str) -> config.Prior:
  """Returns the training prior of a policy, shifted.

  Args:
    metadata: training metadata of the policy, see `saving.load`.
    name: name of the shift, one of `NAMES`.

  Returns:
    The shifted prior.
  """
  # A policy lacks the fields that were added after it was saved. Their
  # defaults leave the prior as it was.
  training_prior = config.Prior(
    **vars(
      config_schema.from_partial_dict(
        config.PriorConfig, metadata['scms'], 'scms'
      )
    ),
    # Only used to reject SCMs of little gain, so a coarse search suffices; the
    # evaluation searches the optimum of each system more finely.
    num_cells=2,
    num_interventions=metadata['horizon']['num_interventions'],
  )
  # All methods have to know the same, and any value may be set: not all of them
  # heed known edges and allowed values. The mean of an exponential of Student's
  # noise hangs on a few extreme draws: scores relative to it say nothing.
  training_prior = dataclasses.replace(
    training_prior,
    informed=0.0,
    stepped=0.0,
    noise_weights=dataclasses.replace(
      training_prior.noise_weights, student=0.0
    ),
  )
  return dataclasses.replace(training_prior, **_CHANGES[name](training_prior))


def digest(prior: config.Prior) -> str:
  """Returns the SHA-256 of the settings of a prior."""
  return hashlib.sha256(repr(prior).encode()).hexdigest()


def system(name: str, prior: config.Prior, repeat: int) -> systems.System:
  """Draws one system of a shifted prior.

  Args:
    name: name of the shift.
    prior: the shifted prior, from `prior`.
    repeat: index of the system, from 0; determines the random key.

  Returns:
    The system, in the current precision. Its numbers are the same in 32 and in
    64 bits.

  Raises:
    errors.UsageError: the prior rejects nearly every SCM.
  """
  # The same key yields other draws with 64-bit types enabled.
  with jax.enable_x64(False):
    key = jax.random.fold_in(jax.random.key(0), repeat)
    scm = jax.tree.map(
      lambda leaf: np.asarray(leaf[0]), priors.sample(key, prior, 1).scm
    )
  names = [f'x{j}' for j in range(prior.max_variables)]
  return systems.System(
    f'{name}/{repeat}',
    f'{name}: drawn from a prior of SCMs',
    tuple(names),
    jax.tree.map(_to_current_precision, scm),
  )


def _to_current_precision(leaf: np.ndarray) -> jax.Array:
  is_float = np.issubdtype(leaf.dtype, np.floating)
  return jnp.asarray(leaf, float if is_float else leaf.dtype)
