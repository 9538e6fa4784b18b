"""The objective of an SCM: E[Y | do] and its range over the interventions."""

import jax
import jax.numpy as jnp

from acme_cbo import types
from acme_cbo.scms import intervention_sets
from acme_cbo.scms import interventions
from acme_cbo.scms import sampling
from acme_cbo.scms import simulate

# Points per side with which an extremum is looked for around a cell's centre.
_ZOOM = 4


def objective(
  scm: types.SCM,
  bank: jax.Array,
  num_cells: int,
  max_size: int = 1,
  key: jax.Array | None = None,
) -> types.Objective:
  """Outcomes over the domains, and the worst and best that can be reached.

  Every variable is tried at the points of `grid`, then closer around its best
  and its worst point, at a quarter of their distance. For sets the best
  variable and value are kept, and one more is looked for on top of them; each
  is then tried again beside the others. For one variable this finds the best
  to the resolution of the search, for several not always.

  Args:
    scm: the model.
    bank: [S, D] from `noise_bank`.
    num_cells: K.
    max_size: Z, variables that an allowed set holds at most.
    key: consumed; from which the partial interventions `partial` are drawn. Not
      needed where Z is 1 and the only one is that of no variable.

  Returns:
    The `Objective`, with P = Z partial interventions.

  Raises:
    ValueError: outside `jit` and `vmap`, where worst and best are the same or
      not finite.
  """
  problem = scm.problem
  sets = problem.sets
  num_variables = problem.low.shape[-1]
  points = interventions.grid(num_cells)
  nothing = interventions.no_intervention(num_variables)

  def outcome(given, variable, fraction):
    return simulate.expected_outcome(
      scm, bank, interventions.extend(problem, given, variable, fraction)
    )

  along = jax.vmap(outcome, (None, None, 0))

  def continued(given):
    """[D, C] outcomes of one more variable, and [] that of none."""
    as_it_is = simulate.expected_outcome(scm, bank, given)
    curve = jax.vmap(along, (None, 0, None))(
      given, jnp.arange(num_variables), points
    )
    may = intervention_sets.may_add(sets, given.mask)
    return jnp.where(may[:, None], curve, as_it_is), as_it_is

  first, baseline = continued(nothing)

  def further(sign, given, curve):
    """The given with the variable and value that do most, and how much."""
    extreme = jnp.argmax(sign * curve, 1)
    around = _close_to(points[extreme], num_cells)  # [D, points]
    close = jax.vmap(along, (None, 0, 0))(
      given, jnp.arange(num_variables), around
    )
    may = intervention_sets.may_add(sets, given.mask)
    reached = jnp.where(may[:, None], sign * close, -jnp.inf).flatten()
    most = jnp.argmax(reached)
    variable = jnp.where(may.any(), most // around.shape[1], num_variables)
    return interventions.extend(
      problem, given, variable, around.flatten()[most]
    ), reached[most]

  def again(sign, choice, found, turn):
    """Tries one of the chosen variables elsewhere, beside the others."""
    variable = jnp.argsort(~choice.mask, stable=True)[turn]
    rest = jnp.arange(num_variables) != variable
    others = types.Intervention(
      choice.mask & rest, jnp.where(rest, choice.values, 0.0)
    )
    curve = sign * along(others, variable, points)
    around = _close_to(points[jnp.argmax(curve)][None], num_cells)[0]
    close = sign * along(others, variable, around)
    most = jnp.argmax(close)
    better = choice.mask[variable] & (close[most] > found)
    moved = interventions.extend(problem, others, variable, around[most])
    return _pick(better, moved, choice), jnp.where(better, close[most], found)

  def search(sign):
    """The best (sign 1) or the worst (-1), and the way there."""
    given, choice, found = nothing, nothing, -jnp.inf
    passed = []
    for turn in range(max_size):
      passed.append(given)
      curve = continued(given)[0] if turn else first
      given, reached = further(sign, given, curve)
      whole = intervention_sets.may_stop(sets, given.mask)
      better = whole & (reached > found)
      choice = _pick(better, given, choice)
      found = jnp.where(better, reached, found)
    if max_size > 1:
      for turn in range(max_size):
        choice, found = again(sign, choice, found, turn)
    return sign * found, choice, passed

  (most, least), choices, passed = jax.vmap(search)(jnp.array([1.0, -1.0]))
  # Outside `jit`; under it the prior draws again what gains too little.
  if not isinstance(most, jax.core.Tracer) and not least < most:
    raise ValueError(
      f'no intervention that is allowed changes the target: the worst reaches '
      f'{least:.6g} and the best {most:.6g}; let a cause of it be set'
    )

  given, curves, outcomes = [nothing], [first], [baseline]
  if max_size > 1:
    if key is None:
      raise ValueError('partial interventions are drawn from a key; give one')
    drawn = sampling.levels(
      key,
      {
        'variable': (max_size, num_variables),
        'point': (max_size,),
        'greedy': (),
      },
    )
    partial = nothing
    for turn in range(1, max_size):
      may = intervention_sets.may_add(sets, partial.mask)
      variable = jnp.argmax(jnp.where(may, drawn['variable'][turn], -1.0))
      variable = jnp.where(may.any(), variable, num_variables)
      point = (drawn['point'][turn] * points.size).astype(jnp.int32)
      partial = interventions.extend(problem, partial, variable, points[point])
      best_so_far = jax.tree.map(lambda leaf: leaf[0], passed[turn])
      given.append(_pick(drawn['greedy'] < 0.5, best_so_far, partial))
      curve, as_it_is = continued(given[-1])
      curves.append(curve)
      outcomes.append(as_it_is)
  return types.Objective(
    bank=bank,
    baseline=baseline,
    worst=least,
    best=most,
    choice=jax.tree.map(lambda leaf: leaf[0], choices),
    partial=jax.tree.map(lambda *leaves: jnp.stack(leaves), *given),
    partial_outcome=jnp.stack(outcomes),
    curves=jnp.stack(curves),
  )


def _close_to(points, num_cells):
  """[D, 2 * _ZOOM + 1] fractions around each of [D]."""
  offsets = jnp.arange(-_ZOOM, _ZOOM + 1) / (_ZOOM * num_cells)
  return jnp.clip(points[:, None] + offsets, 0.0, 1.0)


def _pick(condition, one, other):
  return jax.tree.map(lambda a, b: jnp.where(condition, a, b), one, other)
