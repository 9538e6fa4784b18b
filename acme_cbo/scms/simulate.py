"""Sampling from an SCM under do(), and what its interventions can reach."""

import jax
import jax.numpy as jnp

from acme_cbo import draws
from acme_cbo import interventions
from acme_cbo import types
from acme_cbo.scms import mechanisms


def intervene(
  problem: types.Problem, mask: jax.Array, fractions: jax.Array
) -> types.Intervention:
  """do(variables = the points at `fractions` of their domains).

  Args:
    problem: whose domains are used.
    mask: [D] bool, the variables.
    fractions: [D] in [0, 1], or [] for all of them.

  Returns:
    An intervention on all of them.
  """
  # Written so that fractions 0 and 1 give the ends to the bit, and clipped
  # because rounding can carry a fraction close to them beyond.
  values = (1 - fractions) * problem.low + fractions * problem.high
  values = jnp.clip(values, problem.low, problem.high)
  return types.Intervention(mask=mask, values=jnp.where(mask, values, 0.0))


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
  return intervene(problem, mask, fraction)


def also(
  problem: types.Problem,
  given: types.Intervention,
  variable: jax.Array,
  fraction: jax.Array,
) -> types.Intervention:
  """The given intervention and, with it, one on one more variable.

  Args:
    problem: whose domains are used.
    given: what is set already.
    variable: [] int32; D leaves the given as it is.
    fraction: [] in [0, 1], where in its domain.

  Returns:
    The intervention on all of them.
  """
  more = intervene_on(problem, variable, fraction)
  return types.Intervention(
    mask=given.mask | more.mask,
    values=jnp.where(more.mask, more.values, given.values),
  )


def carried_out(
  problem: types.Problem, decision: types.Decision
) -> types.Intervention:
  """What a decision of Z turns sets.

  Args:
    problem: whose domains are used.
    decision: of [Z] arrays.

  Returns:
    The intervention on all of its variables.
  """
  each = jax.vmap(intervene_on, (None, 0, 0))(
    problem, decision.variable, decision.fraction
  )
  return types.Intervention(each.mask.any(0), each.values.sum(0))


def fractions(
  problem: types.Problem, intervention: types.Intervention
) -> jax.Array:
  """Where in their domains variables are set.

  Args:
    problem: whose domains are used.
    intervention: of [..., D] arrays.

  Returns:
    [..., D] in [0, 1]; 0 where a variable is not set.
  """
  width = jnp.where(problem.settable, problem.high - problem.low, 1.0)
  share = (intervention.values - problem.low) / width
  return jnp.where(intervention.mask, jnp.clip(share, 0.0, 1.0), 0.0)


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
    key: consumed; from which the partial interventions `given` are drawn. Not
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
  points = grid(num_cells)
  nothing = no_intervention(num_variables)

  def outcome(given, variable, fraction):
    return expected_outcome(scm, bank, also(problem, given, variable, fraction))

  along = jax.vmap(outcome, (None, None, 0))

  def continued(given):
    """[D, C] outcomes of one more variable, and [] that of none."""
    as_it_is = expected_outcome(scm, bank, given)
    curve = jax.vmap(along, (None, 0, None))(
      given, jnp.arange(num_variables), points
    )
    may = interventions.may_add(sets, given.mask)
    return jnp.where(may[:, None], curve, as_it_is), as_it_is

  first, baseline = continued(nothing)

  def further(sign, given, curve):
    """The given with the variable and value that do most, and how much."""
    extreme = jnp.argmax(sign * curve, 1)
    around = _close_to(points[extreme], num_cells)  # [D, points]
    close = jax.vmap(along, (None, 0, 0))(
      given, jnp.arange(num_variables), around
    )
    may = interventions.may_add(sets, given.mask)
    reached = jnp.where(may[:, None], sign * close, -jnp.inf).flatten()
    most = jnp.argmax(reached)
    variable = jnp.where(may.any(), most // around.shape[1], num_variables)
    return also(problem, given, variable, around.flatten()[most]), reached[most]

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
    moved = also(problem, others, variable, around[most])
    return _pick(better, moved, choice), jnp.where(better, close[most], found)

  def search(sign):
    """The best (sign 1) or the worst (-1), and the way there."""
    given, choice, found = nothing, nothing, -jnp.inf
    passed = []
    for turn in range(max_size):
      passed.append(given)
      curve = continued(given)[0] if turn else first
      given, reached = further(sign, given, curve)
      whole = interventions.may_stop(sets, given.mask)
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
    drawn = draws.levels(
      key,
      {
        'variable': (max_size, num_variables),
        'point': (max_size,),
        'greedy': (),
      },
    )
    partial = nothing
    for turn in range(1, max_size):
      may = interventions.may_add(sets, partial.mask)
      variable = jnp.argmax(jnp.where(may, drawn['variable'][turn], -1.0))
      variable = jnp.where(may.any(), variable, num_variables)
      point = (drawn['point'][turn] * points.size).astype(jnp.int32)
      partial = also(problem, partial, variable, points[point])
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
    given=jax.tree.map(lambda *leaves: jnp.stack(leaves), *given),
    given_outcome=jnp.stack(outcomes),
    curves=jnp.stack(curves),
  )


def _close_to(points, num_cells):
  """[D, 2 * _ZOOM + 1] fractions around each of [D]."""
  offsets = jnp.arange(-_ZOOM, _ZOOM + 1) / (_ZOOM * num_cells)
  return jnp.clip(points[:, None] + offsets, 0.0, 1.0)


def _pick(condition, one, other):
  return jax.tree.map(lambda a, b: jnp.where(condition, a, b), one, other)


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
