"""Objective of an SCM: E[Y | do] and its range over the interventions."""

import jax
import jax.numpy as jnp

from acme_cbo import types
from acme_cbo.scms import intervention_sets
from acme_cbo.scms import interventions
from acme_cbo.scms import sampling
from acme_cbo.scms import simulate

# Number of points on each side of a grid point in the refined search.
_ZOOM = 4


def objective(
  scm: types.SCM,
  bank: jax.Array,
  num_cells: int,
  max_size: int = 1,
  key: jax.Array | None = None,
) -> types.Objective:
  """Computes outcomes over the domains, and the worst and best outcomes.

  Every variable is evaluated at the points of `interventions.grid`, then around
  its best and its worst point with a quarter of the grid spacing. Sets are
  searched greedily: the best variable and value are fixed before the next
  variable is added, and each value is then optimized once more with the others
  fixed. For single variables the result is optimal up to the resolution of the
  search; for larger sets it may be a local optimum.

  Args:
    scm: the model.
    bank: [S, D] noise draws from `simulate.noise_bank`.
    num_cells: number of cells per domain, K.
    max_size: size of the largest allowed set, Z.
    key: random key of the partial interventions, consumed. Required if Z > 1;
      otherwise the only partial intervention is the empty one.

  Returns:
    The `Objective`, with P = Z partial interventions.

  Raises:
    ValueError: Z > 1 and `key` is missing; or, outside `jit` and `vmap`, the
      best outcome is not above the worst, or not a number.
  """
  problem = scm.problem
  sets = problem.sets
  num_variables = problem.low.shape[-1]
  points = interventions.grid(num_cells)
  nothing = interventions.no_intervention(num_variables)

  def outcome(partial, variable, fraction):
    return simulate.expected_outcome(
      scm, bank, interventions.extend(problem, partial, variable, fraction)
    )

  outcomes_along = jax.vmap(outcome, (None, None, 0))

  def continuations(partial):
    """Returns [D, C] outcomes with one more variable, and [] without."""
    alone = simulate.expected_outcome(scm, bank, partial)
    curves = jax.vmap(outcomes_along, (None, 0, None))(
      partial, jnp.arange(num_variables), points
    )
    may = intervention_sets.may_add(sets, partial.mask)
    return jnp.where(may[:, None], curves, alone), alone

  first_curves, baseline = continuations(nothing)

  def add_best(sign, partial, curves):
    """Adds the best variable at its best value; also returns the outcome."""
    extreme = jnp.argmax(sign * curves, 1)
    nearby = _around(points[extreme], num_cells)  # [D, points]
    refined = jax.vmap(outcomes_along, (None, 0, 0))(
      partial, jnp.arange(num_variables), nearby
    )
    may = intervention_sets.may_add(sets, partial.mask)
    scores = jnp.where(may[:, None], sign * refined, -jnp.inf).flatten()
    index = jnp.argmax(scores)
    variable = jnp.where(may.any(), index // nearby.shape[1], num_variables)
    return interventions.extend(
      problem, partial, variable, nearby.flatten()[index]
    ), scores[index]

  def refine(sign, choice, score, member):
    """Optimizes the value of one chosen variable, with the others fixed."""
    variable = jnp.argsort(~choice.mask, stable=True)[member]
    rest = jnp.arange(num_variables) != variable
    others = types.Intervention(
      choice.mask & rest, jnp.where(rest, choice.values, 0.0)
    )
    curve = sign * outcomes_along(others, variable, points)
    nearby = _around(points[jnp.argmax(curve)][None], num_cells)[0]
    refined = sign * outcomes_along(others, variable, nearby)
    index = jnp.argmax(refined)
    better = choice.mask[variable] & (refined[index] > score)
    moved = interventions.extend(problem, others, variable, nearby[index])
    return _select(better, moved, choice), jnp.where(
      better, refined[index], score
    )

  def search(sign):
    """Finds the best (sign 1) or worst (sign -1) outcome and intervention.

    Also returns the partial intervention before each of the Z greedy steps.
    """
    partial, choice, score = nothing, nothing, -jnp.inf
    path = []
    for size in range(max_size):
      path.append(partial)
      curves = continuations(partial)[0] if size else first_curves
      partial, new_score = add_best(sign, partial, curves)
      allowed = intervention_sets.may_stop(sets, partial.mask)
      better = allowed & (new_score > score)
      choice = _select(better, partial, choice)
      score = jnp.where(better, new_score, score)
    if max_size > 1:
      for member in range(max_size):
        choice, score = refine(sign, choice, score, member)
    return sign * score, choice, path

  (best, worst), choices, paths = jax.vmap(search)(jnp.array([1.0, -1.0]))
  # Checked outside `jit` only; under it the prior rejects and redraws SCMs of
  # which the best intervention gains too little.
  if not isinstance(best, jax.core.Tracer) and not worst < best:
    raise ValueError(
      'no allowed intervention changes the target: the worst outcome is '
      f'{worst:.6g} and the best {best:.6g}; allow interventions on one of its '
      'causes'
    )

  partials, curves, outcomes = [nothing], [first_curves], [baseline]
  if max_size > 1:
    if key is None:
      raise ValueError('max_size > 1 needs a key for the partial interventions')
    levels = sampling.levels(
      key,
      {
        'variable': (max_size, num_variables),
        'point': (max_size,),
        'greedy': (),
      },
    )
    random = nothing
    for size in range(1, max_size):
      may = intervention_sets.may_add(sets, random.mask)
      variable = jnp.argmax(jnp.where(may, levels['variable'][size], -1.0))
      variable = jnp.where(may.any(), variable, num_variables)
      point = (levels['point'][size] * points.size).astype(jnp.int32)
      random = interventions.extend(problem, random, variable, points[point])
      greedy = jax.tree.map(lambda leaf: leaf[0], paths[size])
      partials.append(_select(levels['greedy'] < 0.5, greedy, random))
      new_curves, alone = continuations(partials[-1])
      curves.append(new_curves)
      outcomes.append(alone)
  return types.Objective(
    bank=bank,
    baseline=baseline,
    worst=worst,
    best=best,
    choice=jax.tree.map(lambda leaf: leaf[0], choices),
    partial=jax.tree.map(lambda *leaves: jnp.stack(leaves), *partials),
    partial_outcome=jnp.stack(outcomes),
    curves=jnp.stack(curves),
  )


def random_interventions(
  key: jax.Array,
  problem: types.Problem,
  objective: types.Objective,
  number: int,
) -> tuple[types.Intervention, jax.Array]:
  """Draws allowed interventions from those whose outcome an objective has.

  Args:
    key: random key, consumed.
    problem: the problem.
    objective: its objective.
    number: number of interventions, R.

  Returns:
    R interventions, and [R] their expected outcomes.
  """
  num_points = objective.curves.shape[-1]
  added = jnp.eye(problem.exists.size, dtype=bool)
  allowed = jax.vmap(
    lambda mask: (
      intervention_sets.may_add(problem.sets, mask)
      & jax.vmap(intervention_sets.may_stop, (None, 0))(
        problem.sets, mask | added
      )
    )
  )(objective.partial.mask)  # [P, D]
  levels = sampling.levels(
    key, {'pair': (number, allowed.size), 'point': (number,)}
  )
  pair = jnp.argmax(jnp.where(allowed.flatten(), levels['pair'], -1.0), -1)
  partial, variable = jnp.unravel_index(pair, allowed.shape)
  point = (levels['point'] * num_points).astype(jnp.int32)
  drawn = jax.vmap(interventions.extend, (None, 0, 0, 0))(
    problem,
    jax.tree.map(lambda leaf: leaf[partial], objective.partial),
    variable,
    interventions.grid(num_points - 2)[point],
  )
  return drawn, objective.curves[partial, variable, point]


def _around(points, num_cells):
  """Returns [D, 2 * _ZOOM + 1] fractions around each of [D] fractions."""
  offsets = jnp.arange(-_ZOOM, _ZOOM + 1) / (_ZOOM * num_cells)
  return jnp.clip(points[:, None] + offsets, 0.0, 1.0)


def _select(condition, on_true, on_false):
  """Applies `jnp.where` to the leaves of two trees."""
  return jax.tree.map(
    lambda a, b: jnp.where(condition, a, b), on_true, on_false
  )
