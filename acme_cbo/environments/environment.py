"""Environment interface: passive observations, then interventions."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np

from acme_cbo import types
from acme_cbo.scms import intervention_sets
from acme_cbo.scms import interventions
from acme_cbo.scms import simulate

# Largest seed of a simulator: seeds fit a signed integer of 32 bits.
MAX_SEED = 2**31 - 1
# The seeds from this one on are never used in training. There are as many as
# held-out systems, or more.
FIRST_HELD_OUT_SEED = 2**31 - 2**20


class Simulator(Protocol):
  """Interface of a system that is not a JAX program."""

  @property
  def variables(self) -> Sequence[str]:
    """Names of the D variables."""
    ...

  @property
  def target(self) -> str:
    """Name of the variable to optimize."""
    ...

  @property
  def goal(self) -> str:
    """'maximize' or 'minimize'."""
    ...

  @property
  def domains(self) -> Mapping[str, Sequence[float]]:
    """{name: (low, high)} of the variables that may be set."""
    ...

  def reset(self, seed: int, rollout: int, num_observations: int) -> np.ndarray:
    """Starts an episode.

    Args:
      seed: random seed that determines the system and its observations, from 0
        to 2**31 - 1.
      rollout: index of the episode on this system, 0 or more; episodes differ
        only in the noise of their outcomes.
      num_observations: number of observational rows, N.

    Returns:
      [N, D] observational rows, in the variables' own units.
    """
    ...

  def step(self, intervention: Mapping[str, float]) -> np.ndarray:
    """Performs one intervention.

    Args:
      intervention: mapping from variable to its value, within its domain.

    Returns:
      [D] one noisy outcome of all variables, in the variables' own units; the
      variables of `intervention` have the values that they are set to.
    """
    ...


def reset(key: jax.Array, scm: types.SCM, num_observations: int) -> jax.Array:
  """Samples the observational data at the start of an episode.

  Args:
    key: random key, consumed.
    scm: the model.
    num_observations: number of rows, N.

  Returns:
    [N, D] observational rows, in the variables' own units.
  """
  nothing = interventions.no_intervention(scm.location.shape[-1])
  return simulate.sample(key, scm, nothing, num_observations)


def step(
  key: jax.Array, scm: types.SCM, intervention: types.Intervention
) -> jax.Array:
  """Performs one intervention and samples one outcome of all variables.

  Outside `jit` the intervention is checked first. Under `jit` it is not: the
  action space of a policy contains only allowed interventions.

  Args:
    key: random key, consumed.
    scm: the model.
    intervention: the intervention.

  Returns:
    [D] the outcome, in the variables' own units.

  Raises:
    ValueError: outside `jit`, if `check_intervention` rejects the intervention.
  """
  leaves = jax.tree.leaves((scm.problem, intervention))
  if not any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
    check_intervention(scm.problem, intervention)
  return simulate.sample(key, scm, intervention, 1)[0]


def apply_budget(
  problem: types.Problem,
  spent: jax.Array,
  chosen: types.Intervention,
  last: types.Intervention,
) -> tuple[types.Intervention, jax.Array]:
  """Repeats the last intervention once the budget is exhausted.

  Episodes on the device have T steps. Those after the end of the budget repeat
  the last one.

  Args:
    problem: the problem that defines costs and budget.
    spent: [] cost of all interventions so far.
    chosen: chosen intervention, on an affordable set if there is any.
    last: previous intervention.

  Returns:
    The intervention to perform, and [] the total cost after it.
  """
  is_over = intervention_sets.is_exhausted(problem, spent)
  performed = jax.tree.map(
    lambda new, old: jnp.where(is_over, old, new), chosen, last
  )
  return performed, spent + performed.mask @ problem.cost


def sample_outcome(
  key: jax.Array,
  scm: types.SCM,
  bank: jax.Array,
  intervention: types.Intervention,
) -> tuple[jax.Array, jax.Array]:
  """Samples the outcome of an intervention, and computes its expectation.

  Args:
    key: random key, consumed.
    scm: the model.
    bank: [S, D] noise draws from `simulate.noise_bank`.
    intervention: the intervention.

  Returns:
    [D] observed outcome, in the variables' own units: one sample of `step` if
    `problem.samples` is 1, else the mean over the bank. And [] E[Y | do] as
    `simulate.expected_outcome`, which is not observed.
  """
  single = step(key, scm, intervention)
  mean, expected = simulate.expectation(scm, bank, intervention)
  return jnp.where(scm.problem.samples > 1, mean, single), expected


def check_intervention(
  problem: types.Problem,
  intervention: types.Intervention,
  names: Sequence[str] | None = None,
) -> None:
  """Raises unless the problem allows an intervention.

  Args:
    problem: the problem that defines allowed sets and domains.
    intervention: the intervention; concrete arrays, not traced ones.
    names: names of the variables for error messages, instead of their numbers.

  Raises:
    ValueError: the arrays have a wrong shape, no variable is set, a variable is
      padding, latent, the target or not settable, its value is not finite or
      outside its domain, or the variables may not be set together.
  """
  mask = np.asarray(intervention.mask)
  values = np.asarray(intervention.values)
  shape = problem.low.shape
  if mask.shape != shape or values.shape != shape:
    raise ValueError(
      f'mask and values of an intervention must have shape {shape}, got '
      f'{mask.shape} and {values.shape}'
    )
  if not mask.any():
    raise ValueError('the intervention sets no variable; set at least one')

  def label(j):
    return f'variable {j}' if names is None else repr(names[j])

  for j in np.flatnonzero(mask):
    low, high = float(problem.low[j]), float(problem.high[j])
    value = float(values[j])
    name = label(j)
    if not problem.exists[j]:
      raise ValueError(
        f'{name} is padding or latent; the problem has '
        f'{int(jnp.sum(problem.exists))} observed variables'
      )
    if problem.target[j]:
      raise ValueError(f'{name} is the target, which may not be set')
    if not np.asarray(problem.settable)[j]:
      raise ValueError(f'{name} may not be set')
    if not np.isfinite(value):
      raise ValueError(f'{name} is set to {value}; set a finite value')
    if not low <= value <= high:
      raise ValueError(
        f'{name} is set to {value}, outside its domain [{low}, {high}]'
      )
  if not (np.asarray(problem.sets) == mask).all(-1).any():
    together = ', '.join(map(label, np.flatnonzero(mask)))
    raise ValueError(f'{together} may not be set together')
