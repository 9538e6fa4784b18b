"""Sampling from an SCM under do(), and what its interventions can reach."""

import jax
import jax.numpy as jnp

from acme_cbo import types
from acme_cbo.scms import mechanisms


def intervene_on(
  problem: types.Problem, variable: jax.Array, fraction: jax.Array
) -> types.Intervention:
  """do(variable = the point at `fraction` of its domain).

  Args:
    problem: whose domains are used.
    variable: [] int32.
    fraction: [] in [0, 1].

  Returns:
    An intervention on one variable.
  """
  mask = jnp.arange(problem.low.shape[-1]) == variable
  # Written so that fractions 0 and 1 give the ends to the bit, and clipped
  # because rounding can carry a fraction close to them beyond.
  value = (1 - fraction) * problem.low + fraction * problem.high
  value = jnp.clip(value, problem.low, problem.high)
  return types.Intervention(mask=mask, values=jnp.where(mask, value, 0.0))


def no_intervention(num_variables: int) -> types.Intervention:
  """do() of nothing, for D variables."""
  return types.Intervention(
    mask=jnp.zeros(num_variables, bool), values=jnp.zeros(num_variables)
  )


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
  u = propagate(scm, intervention, bank)
  outcome = jnp.where(scm.problem.target, u, 0.0).sum(-1)
  return scm.problem.goal * outcome.mean()


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


def grid(num_cells: int) -> jax.Array:
  """The points that stand for a domain's cells: its ends and K centres.

  Args:
    num_cells: K.

  Returns:
    [C] fractions in ascending order, C = K + 2.
  """
  centres = (jnp.arange(num_cells) + 0.5) / num_cells
  return jnp.concatenate([jnp.zeros(1), centres, jnp.ones(1)])


# Points per side with which an extremum is looked for around a cell's centre.
_ZOOM = 4


def objective(
  scm: types.SCM, bank: jax.Array, num_cells: int
) -> types.Objective:
  """Outcomes over the domains, and the worst and best that can be reached.

  Every settable variable is tried at the points of `grid`, then closer around
  its best and its worst point, at a quarter of their distance.

  Args:
    scm: the model.
    bank: [S, D] from `noise_bank`.
    num_cells: K.

  Returns:
    The `Objective`.

  Raises:
    ValueError: outside `jit` and `vmap`, where worst and best are the same or
      not finite.
  """
  problem = scm.problem
  num_variables = problem.low.shape[-1]
  variables = jnp.arange(num_variables)

  def outcome(variable, fraction):
    return expected_outcome(
      scm, bank, intervene_on(problem, variable, fraction)
    )

  along = jax.vmap(outcome, (None, 0))
  baseline = expected_outcome(scm, bank, no_intervention(num_variables))
  points = grid(num_cells)
  curve = jax.vmap(along, (0, None))(variables, points)  # [D, C]
  curve = jnp.where(problem.settable[:, None], curve, baseline)

  # Around the best and the worst point of each variable.
  extremes = jnp.stack([jnp.argmin(curve, 1), jnp.argmax(curve, 1)], 1)
  offsets = jnp.arange(-_ZOOM, _ZOOM + 1) / (_ZOOM * num_cells)
  around = jnp.clip(points[extremes][:, :, None] + offsets, 0.0, 1.0)
  around = around.reshape(num_variables, -1)
  close = jax.vmap(along)(variables, around)
  settable = problem.settable[:, None]
  best = jnp.argmax(jnp.where(settable, close, -jnp.inf))
  worst = jnp.argmin(jnp.where(settable, close, jnp.inf))
  least, most = close.flatten()[worst], close.flatten()[best]
  # Outside `jit`; under it the prior draws again what gains too little.
  if not isinstance(most, jax.core.Tracer) and not least < most:
    raise ValueError(
      f'no intervention that is allowed changes the target: the worst reaches '
      f'{least:.6g} and the best {most:.6g}; let a cause of it be set'
    )
  best_variable = best // around.shape[1]
  choice = intervene_on(problem, best_variable, around.flatten()[best])
  return types.Objective(
    bank=bank,
    baseline=baseline,
    worst=least,
    best=most,
    curve=curve,
    best_variable=best_variable.astype(jnp.int32),
    best_value=choice.values.sum(),
  )


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
