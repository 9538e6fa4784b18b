"""Samples and expectations of an SCM under interventions."""

import jax
import jax.numpy as jnp

from acme_cbo import types
from acme_cbo.scms import mechanisms


def propagate(
  scm: types.SCM, intervention: types.Intervention, noise: jax.Array
) -> jax.Array:
  """Evaluates the structural equations under do(), from causes to effects.

  Args:
    scm: the model.
    intervention: the intervention.
    noise: [S, D] noise of all variables, from `mechanisms.noise` or
      `mechanisms.stratified_noise`.

  Returns:
    [S, D] values in internal units, including latent variables; 0 where a
    variable is padding.
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
  """Samples from an SCM under do(), by ancestral sampling.

  Args:
    key: random key, consumed.
    scm: the model.
    intervention: the intervention.
    num_samples: number of samples, S.

  Returns:
    [S, D] values in the variables' own units; 0 where a variable is padding
    or latent.
  """
  num_variables = scm.present.shape[-1]
  noise = mechanisms.noise(key, scm.mechanism, num_samples, num_variables)
  u = propagate(scm, intervention, noise)
  return _in_own_units(scm, intervention, u)


def _in_own_units(scm, intervention, u):
  """Converts [..., D] internal values to observed ones, in own units."""
  value = scm.location + scm.scale * u
  # A set variable has exactly its set value, whatever the rounding of units.
  value = jnp.where(intervention.mask, intervention.values, value)
  return jnp.where(scm.problem.exists, value, 0.0)


def noise_bank(key: jax.Array, scm: types.SCM, num_draws: int) -> jax.Array:
  """Samples the noise draws over which E[Y | do] is averaged.

  For a linear SCM every draw is the mean of the noise, 0: the outcome without
  noise is the expectation, in closed form.

  Args:
    key: random key, consumed.
    scm: the model.
    num_draws: number of draws, S.

  Returns:
    [S, D] noise of all variables.
  """
  linear = scm.family == mechanisms.Family.LINEAR
  drawn = mechanisms.stratified_noise(
    key, scm.mechanism, num_draws, scm.present.shape[-1]
  )
  return jnp.where(linear, 0.0, drawn)


def expectation(
  scm: types.SCM, bank: jax.Array, intervention: types.Intervention
) -> tuple[jax.Array, jax.Array]:
  """Returns E[x | do] of all variables, and the expected outcome.

  Args:
    scm: the model.
    bank: [S, D] noise draws from `noise_bank`.
    intervention: the intervention, on any number of variables.

  Returns:
    [D] expectations in the variables' own units, 0 where a variable is padding
    or latent; and [] expectation of the target, signed by the goal, in the
    SCM's internal units.
  """
  u = propagate(scm, intervention, bank).mean(0)
  target = jnp.where(scm.problem.target, u, 0.0).sum()
  return _in_own_units(scm, intervention, u), scm.problem.goal * target


def in_target_units(scm: types.SCM, outcome: jax.Array) -> jax.Array:
  """Converts an outcome of `expected_outcome` to the target's own units.

  Args:
    scm: the model.
    outcome: [] outcome in internal units, signed by the goal.

  Returns:
    [] value of the target, in its own units.
  """
  location, scale = (
    jnp.where(scm.problem.target, x, 0.0).sum()
    for x in (scm.location, scm.scale)
  )
  return location + scale * scm.problem.goal * outcome


def expected_outcome(
  scm: types.SCM, bank: jax.Array, intervention: types.Intervention
) -> jax.Array:
  """Returns E[Y | do], signed by the goal, in the SCM's internal units.

  Args:
    scm: the model.
    bank: [S, D] noise draws from `noise_bank`.
    intervention: the intervention, on any number of variables.

  Returns:
    [] mean outcome; higher is better.
  """
  return expectation(scm, bank, intervention)[1]


def target_samples(
  scm: types.SCM, bank: jax.Array, intervention: types.Intervention
) -> jax.Array:
  """Returns the samples of which `expected_outcome` is the mean: [S]."""
  u = propagate(scm, intervention, bank)
  return scm.problem.goal * jnp.where(scm.problem.target, u, 0.0).sum(-1)


def sampled_outcome(scm: types.SCM, values: jax.Array) -> jax.Array:
  """Returns the outcomes of sampled rows, comparable to `expected_outcome`.

  Args:
    scm: the model.
    values: [..., D] rows in the variables' own units.

  Returns:
    [...] values of the target in internal units, signed by the goal; higher is
    better.
  """
  u = (values - scm.location) / scm.scale
  return scm.problem.goal * jnp.where(scm.problem.target, u, 0.0).sum(-1)


def relabel(scm: types.SCM, permutation: jax.Array) -> types.SCM:
  """Permutes the columns of an SCM.

  Args:
    scm: the model; its mechanism is a `types.Mechanism`.
    permutation: [D] int32; new column k holds old variable `permutation[k]`.

  Returns:
    The same SCM, with its variables in the new order.
  """
  new_index = jnp.argsort(permutation)
  mechanism, problem = scm.mechanism, scm.problem
  rows = jax.tree.map(lambda leaf: leaf[permutation], mechanism)
  return scm._replace(
    problem=jax.tree.map(
      lambda leaf: leaf[..., permutation] if leaf.ndim else leaf,
      problem._replace(
        edges=None if problem.edges is None else problem.edges[permutation]
      ),
    ),
    present=scm.present[permutation],
    mechanism=rows._replace(
      linear=rows.linear[:, permutation],
      hidden=rows.hidden[:, :, permutation],
      unevenness=(
        None if rows.unevenness is None else rows.unevenness[:, permutation]
      ),
    ),
    parents=scm.parents[permutation][:, permutation],
    order=new_index[scm.order],
    location=scm.location[permutation],
    scale=scm.scale[permutation],
  )
