"""Tasks from the training prior, drawn once for all tests."""

import dataclasses
import functools

import jax
import numpy as np

from acme_cbo import types
from acme_cbo.experiments import config as experiments_config
from acme_cbo.experiments import presets
from acme_cbo.scms import config as config_lib
from acme_cbo.scms import interventions
from acme_cbo.scms import priors
from acme_cbo.scms import simulate


def _prior(config: experiments_config.GRPOConfig) -> config_lib.Prior:
  return config_lib.Prior(
    **vars(config.scms),
    num_cells=config.network.num_cells,
    num_interventions=config.horizon.num_interventions,
  )


# A smaller noise bank makes outcomes less precise and changes nothing else.
PRIOR = dataclasses.replace(_prior(presets.preset()), bank_size=32)
# With sets of variables, costs, latent causes and every family; less precise,
# and without what makes an SCM harder to compute again.
GENERAL = dataclasses.replace(
  _prior(presets.preset('general')),
  bank_size=16,
  num_cells=16,
  budgeted=0.5,
  noise_weights=config_lib.NoiseWeights(),
  noiseless=0.0,
  uneven=0.0,
  confounded=0.0,
  informed=0.0,
  stepped=0.0,
  family_weights=config_lib.FamilyWeights(
    linear=1.0, exponential=0.5, mixed=3.0, bumps=1.0
  ),
)
NUM_ROWS = 500
_PER_CALL = 500

# The program of the prior is large and runs for seconds only: full optimization
# doubles the time of compilation and saves less than half the run time.
QUICK: dict[str, bool | str] = {'xla_backend_optimization_level': '1'}


@functools.cache
def lowered(prior: config_lib.Prior = PRIOR) -> jax.stages.Lowered:
  """Lowers `priors.fill` for 500 tasks."""
  return priors.fill.lower(jax.random.key(0), prior, _PER_CALL)


@functools.cache
def program(prior: config_lib.Prior = PRIOR) -> jax.stages.Compiled:
  """Compiles `priors.fill` for 500 tasks."""
  return lowered(prior).compile(compiler_options=QUICK)


@functools.cache
def batch(seed: int, prior: config_lib.Prior = PRIOR) -> types.Task:
  """Samples 500 tasks, as numpy arrays with a leading axis."""
  drawn, complete = program(prior)(jax.random.key(seed))
  if not complete:
    raise ValueError(f'the prior does not fill a batch: {prior}')
  return jax.tree.map(np.asarray, drawn)


@functools.cache
def tasks() -> types.Task:
  """Returns 1,000 tasks of `PRIOR`."""
  batches = [batch(seed) for seed in range(2)]
  return jax.tree.map(lambda *leaves: np.concatenate(leaves), *batches)


def some(
  num_tasks: int,
  family: int | None = None,
  prior: config_lib.Prior = PRIOR,
) -> types.Task:
  """Returns the first tasks of a batch, optionally of one family."""
  drawn = batch(0, prior)
  families = drawn.scm.family
  fitting = families >= 0 if family is None else families == family
  first = np.flatnonzero(fitting)[:num_tasks]
  if first.size < num_tasks:
    raise ValueError(
      f'a batch of {_PER_CALL} holds {first.size} such tasks, not {num_tasks}'
    )
  return jax.tree.map(lambda leaf: leaf[first], drawn)


def unstack(tree, index: int):
  """Returns one element of a tree along its leading axis."""
  return jax.tree.map(lambda leaf: leaf[index], tree)


@functools.cache
def observations() -> np.ndarray:
  """Samples [1000, NUM_ROWS, D] observations of the tasks, in own units."""
  nothing = interventions.no_intervention(PRIOR.max_variables)
  scms = tasks().scm
  keys = jax.random.split(jax.random.key(2), scms.family.size)
  draw = jax.vmap(lambda k, scm: simulate.sample(k, scm, nothing, NUM_ROWS))
  return np.asarray(jax.jit(draw)(keys, scms), np.float64)


def closure(parents: jax.typing.ArrayLike) -> np.ndarray:
  """Returns ancestors `[..., j, i]`, by extending paths edge by edge."""
  edges = np.asarray(parents, int)
  reach = edges
  for _ in range(edges.shape[-1]):
    reach = ((reach + reach @ edges) > 0).astype(int)
  return reach > 0
