"""Sampling from an SCM under do(), and what its interventions can reach."""

import jax
import jax.numpy as jnp

from acme_cbo import types
from acme_cbo.scms import mechanisms


def propagate(
  scm: types.SCM, intervention: types.Intervention, noise: jax.Array
) -> jax.Array:
  """Evaluates the structural equations from causes to effects under do().

  Args:
    scm: the model.
    intervention: what is set.
    noise: [S, D] of every variable, from `mechanisms`.

  Returns:
    [S, D] internal values, those of latent variables too; 0 where a variable is
    padding.
  """
  values = (intervention.values - scm.location) / scm.scale
  variables = jnp.arange(noise.shape[-1])

  def evaluate(u, j):
    free = mechanisms.value(scm.mechanism, j, u, noise)
    value = jnp.where(intervention.mask[j], values[j], free)
    value = jnp.where(scm.present[j], value, 0.0)
    return jnp.where(variables == j, value[:, None], u), None

  return jax.lax.scan(evaluate, jnp.zeros_like(noise), scm.order)[0]


def sample(
  key: jax.Array,
  scm: types.SCM,
  intervention: types.Intervention,
  num_samples: int,
) -> jax.Array:
  """Ancestral sampling under do().

  Args:
    key: consumed.
    scm: the model.
    intervention: what is set.
    num_samples: S.

  Returns:
    [S, D] values in the variables' own units; 0 where a variable is padding
    or latent.
  """
  num_variables = scm.present.shape[-1]
  noise = mechanisms.noise(key, scm.mechanism, num_samples, num_variables)
  u = propagate(scm, intervention, noise)
  return _in_own_units(scm, intervention, u)


def _in_own_units(scm, intervention, u):
  """[..., D] values as they are watched."""
  value = scm.location + scm.scale * u
  # What is set is set to the bit, whatever the rounding of the units.
  value = jnp.where(intervention.mask, intervention.values, value)
  return jnp.where(scm.problem.exists, value, 0.0)


def noise_bank(key: jax.Array, scm: types.SCM, num_draws: int) -> jax.Array:
  """Noise draws over which E[Y | do] is averaged.

  A linear SCM gets its noise's mean, 0, in every draw: the outcome without
  noise is then the expectation in closed form.

  Args:
    key: consumed.
    scm: the model.
    num_draws: S.

  Returns:
    [S, D] noise of every variable.
  """
  linear = scm.family == mechanisms.Family.LINEAR
  drawn = mechanisms.stratified_noise(
    key, scm.mechanism, num_draws, scm.present.shape[-1]
  )
  return jnp.where(linear, 0.0, drawn)


def expectation(
  scm: types.SCM, bank: jax.Array, intervention: types.Intervention
) -> tuple[jax.Array, jax.Array]:
  """E[x | do] of all variables, and of the target as it is judged.

  Args:
    scm: the model.
    bank: [S, D] from `noise_bank`.
    intervention: what is set, on one variable or several.

  Returns:
    [D] in the variables' own units, 0 where a variable is padding or latent;
    and [] of the target, signed by the goal, in the SCM's internal units.
  """
  u = propagate(scm, intervention, bank).mean(0)
  target = jnp.where(scm.problem.target, u, 0.0).sum()
  return _in_own_units(scm, intervention, u), scm.problem.goal * target


def in_target_units(scm: types.SCM, outcome: jax.Array) -> jax.Array:
  """An outcome as `expected_outcome` gives it, in the target's own units."""
  location, scale = (
    jnp.where(scm.problem.target, x, 0.0).sum()
    for x in (scm.location, scm.scale)
  )
  return location + scale * scm.problem.goal * outcome


def expected_outcome(
  scm: types.SCM, bank: jax.Array, intervention: types.Intervention
) -> jax.Array:
  """E[Y | do], signed by the goal, in the SCM's internal units.

  Args:
    scm: the model.
    bank: [S, D] from `noise_bank`.
    intervention: what is set, on one variable or several.

  Returns:
    [] the mean outcome: more is better.
  """
  return expectation(scm, bank, intervention)[1]


def sampled_outcome(scm: types.SCM, values: jax.Array) -> jax.Array:
  """The target of rows, in the units and with the sign of `expected_outcome`.

  Args:
    scm: the model.
    values: [..., D] rows in the variables' own units.

  Returns:
    [...] outcomes: more is better.
  """
  u = (values - scm.location) / scm.scale
  return scm.problem.goal * jnp.where(scm.problem.target, u, 0.0).sum(-1)


def relabel(scm: types.SCM, permutation: jax.Array) -> types.SCM:
  """The same SCM with its variables in another order of the columns.

  Args:
    scm: the model.
    permutation: [D] int32; new column k holds old variable `permutation[k]`.

  Returns:
    The relabelled SCM.
  """
  new_place = jnp.argsort(permutation)
  mechanism, problem = scm.mechanism, scm.problem
  rows = jax.tree.map(lambda leaf: leaf[permutation], mechanism)
  return scm._replace(
    problem=jax.tree.map(
      lambda leaf: leaf[..., permutation] if leaf.ndim else leaf, problem
    ),
    present=scm.present[permutation],
    mechanism=rows._replace(
      linear=rows.linear[:, permutation],
      hidden=rows.hidden[:, :, permutation],
    ),
    parents=scm.parents[permutation][:, permutation],
    order=new_place[scm.order],
    location=scm.location[permutation],
    scale=scm.scale[permutation],
  )
