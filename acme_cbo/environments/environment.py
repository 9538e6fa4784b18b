"""The experiment: observe first, then set a variable and watch all of them."""

from collections.abc import Mapping, Sequence
import dataclasses
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np

from acme_cbo import types
from acme_cbo.scms import intervention_sets
from acme_cbo.scms import interventions
from acme_cbo.scms import simulate


@dataclasses.dataclass(frozen=True)
class Horizon:
  """Size of an episode.

  Attributes:
    num_observations: N, passive rows before the first intervention.
    num_interventions: T.
  """

  num_observations: int
  num_interventions: int


class Simulator(Protocol):
  """A system to experiment on that is no JAX program: any object with these."""

  @property
  def variables(self) -> Sequence[str]:
    """Names of the D variables."""
    ...

  @property
  def target(self) -> str:
    """Name of the one to optimise."""
    ...

  @property
  def goal(self) -> str:
    """'maximize' or 'minimize'."""
    ...

  @property
  def domains(self) -> Mapping[str, Sequence[float]]:
    """{name: (lowest, highest)} of those that may be set."""
    ...

  def reset(self, seed: int, rollout: int, num_observations: int) -> np.ndarray:
    """Begins an episode.

    Args:
      seed: of the system, one of many that differ, and of its observations.
      rollout: which of the episodes on it; they differ in nothing but the noise
        of what is watched after this.
      num_observations: N.

    Returns:
      [N, D] observational rows, in the variables' own units.
    """
    ...

  def step(self, intervention: Mapping[str, float]) -> np.ndarray:
    """Sets variables, by name, to values in their domains.

    Returns:
      [D] one noisy outcome of all variables.
    """
    ...


def reset(key: jax.Array, scm: types.SCM, num_observations: int) -> jax.Array:
  """The passive data that an episode begins with.

  Args:
    key: consumed.
    scm: the system.
    num_observations: N.

  Returns:
    [N, D] observational rows, in the variables' own units.
  """
  nothing = interventions.no_intervention(scm.location.shape[-1])
  return simulate.sample(key, scm, nothing, num_observations)


def step(
  key: jax.Array, scm: types.SCM, intervention: types.Intervention
) -> jax.Array:
  """Does one intervention and watches one noisy outcome of all variables.

  Pure. Outside `jit` the intervention is checked first; under it the policy
  has no way to express a forbidden one.

  Args:
    key: consumed.
    scm: the system.
    intervention: what is set.

  Returns:
    [D] the outcome, in the variables' own units.

  Raises:
    ValueError: as `check_intervention`, outside `jit`.
  """
  given = jax.tree.leaves((scm.problem, intervention))
  if not any(isinstance(leaf, jax.core.Tracer) for leaf in given):
    check_intervention(scm.problem, intervention)
  return simulate.sample(key, scm, intervention, 1)[0]


def apply_budget(
  problem: types.Problem,
  spent: jax.Array,
  chosen: types.Intervention,
  last: types.Intervention,
) -> tuple[types.Intervention, jax.Array]:
  """What is done: when no set can be paid for any more, the last one stays.

  Args:
    problem: with its budget.
    spent: [] of it so far.
    chosen: what somebody wants to set, of what can be paid for.
    last: what was set before.

  Returns:
    The intervention, and [] what is spent after it.
  """
  able = intervention_sets.affordable(problem, spent).any()
  done = jax.tree.map(lambda new, old: jnp.where(able, new, old), chosen, last)
  return done, spent + done.mask @ problem.cost


def sample_outcome(
  key: jax.Array,
  scm: types.SCM,
  bank: jax.Array,
  intervention: types.Intervention,
) -> tuple[jax.Array, jax.Array]:
  """`step`, or the mean of many such outcomes where the problem has more.

  Args:
    key: consumed.
    scm: the system.
    bank: [S, D] noise draws that stand for all of them.
    intervention: what is set.

  Returns:
    [D] the outcome, in the variables' own units: one draw where
    `problem.samples` is 1, else the mean over the bank. And [] E[Y | do], see
    `simulate.expected_outcome`, which nobody watches.
  """
  one = step(key, scm, intervention)
  mean, expected = simulate.expectation(scm, bank, intervention)
  return jnp.where(scm.problem.samples > 1, mean, one), expected


def check_intervention(
  problem: types.Problem, intervention: types.Intervention
) -> None:
  """Refuses an intervention that the problem does not allow.

  Args:
    problem: what may be set, and where.
    intervention: what somebody wants to set. Concrete arrays, not traced ones.

  Raises:
    ValueError: a variable is padding, the target or not settable, its value is
      not finite or out of its domain, nothing is set at all, or the variables
      may not be set together.
  """
  mask = np.asarray(intervention.mask)
  values = np.asarray(intervention.values)
  shape = problem.low.shape
  if mask.shape != shape or values.shape != shape:
    raise ValueError(
      f'an intervention has a mask and values of shape {shape}, got '
      f'{mask.shape} and {values.shape}'
    )
  if not mask.any():
    raise ValueError('the intervention sets no variable; set at least one')
  for j in np.flatnonzero(mask):
    low, high = float(problem.low[j]), float(problem.high[j])
    value = float(values[j])
    if not problem.exists[j]:
      raise ValueError(
        f'variable {j} is padding: the problem has '
        f'{int(jnp.sum(problem.exists))} variables'
      )
    if problem.target[j]:
      raise ValueError(f'variable {j} is the target, which may not be set')
    if not np.asarray(problem.settable)[j]:
      raise ValueError(f'variable {j} may not be set')
    if not np.isfinite(value):
      raise ValueError(f'variable {j} is set to {value}; set a finite value')
    if not low <= value <= high:
      raise ValueError(
        f'variable {j} is set to {value}, outside its domain [{low}, {high}]'
      )
  if not (np.asarray(problem.sets) == mask).all(-1).any():
    together = ', '.join(map(str, np.flatnonzero(mask)))
    raise ValueError(f'variables {together} may not be set together')
