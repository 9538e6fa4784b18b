"""Best and worst interventions on a system, by exhaustive search in float64.

Every allowed set of variables is searched separately: a Sobol sequence and the
corners of its domains, then gradient ascent from the best few points. This
search uses few draws of the noise. Its results are evaluated on many draws, and
the best of them are optimized once more on these.
"""

import itertools
from typing import NamedTuple, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from scipy import optimize
from scipy.stats import qmc

from acme_cbo import types
from acme_cbo.infra import errors
from acme_cbo.scms import graphs
from acme_cbo.scms import intervention_sets
from acme_cbo.scms import simulate
from acme_cbo.scms import systems

# Standard errors of E[Y | do] were at most 0.0042 on toy, complete, psa and
# epidemiology, over 40 seeds; most were below 0.0001.
NUM_DRAWS = 2**14
NUM_SEARCH_DRAWS = 2**9
# Number of Sobol points, as powers of two: of all sets together, of a single
# variable at most, and of each set at least.
_LOG2_POINTS = 14
_LOG2_POINTS_OF_ONE = 8
_MIN_LOG2_POINTS_OF_SET = 5
# Corners of the domains of one set at most, as a power of two.
_MAX_LOG2_CORNERS = 6
# Total number of starts of ascents, times the variables that they optimize, and
# the minimum number of starts per set.
_NUM_STARTS = 128
_MIN_STARTS_OF_SET = 3
# Number of descents to the worst outcome.
_NUM_DESCENTS = 12
# Minimum distance between starts of one set, as a fraction of each domain.
_MIN_DISTANCE = 0.04
# Number of sets that are optimized on few draws, and then on many.
_MAX_SETS = 256
_NUM_CONTENDERS = 8
# Number of interventions that are evaluated together.
_BATCH = 2**3
# Step of the finite differences, as a fraction of a domain.
_STEP = 1e-6
# Relative difference below which two outcomes differ only by rounding.
_TOLERANCE = 1e-9


class SetOptimum(NamedTuple):
  """The best intervention on one set of variables.

  Attributes:
    variables: names of the variables in the set.
    outcome: E[Y | choice], in the target's own units.
    choice: the best intervention; float64 arrays on the host.
  """

  variables: tuple[str, ...]
  outcome: float
  choice: types.Intervention


class Optimum(NamedTuple):
  """Best and worst outcomes of the allowed interventions on a system.

  Outcomes are E[Y | do] in the target's own units, not signed by the goal: if
  the goal is to minimize, the best outcome is the lowest.

  Attributes:
    bank: [S, D] noise draws over which outcomes are averaged; float64 arrays on
      the host.
    baseline: outcome of no intervention.
    worst: worst outcome of an allowed intervention.
    best: best outcome of an allowed intervention.
    choice: intervention that attains `best`; the cheapest of several.
    by_set: best intervention on every set that the budget affords, in the order
      of the problem; limited to the 256 most promising sets. The 8 best are
      optimized on the whole bank, the others on the smaller search bank.
  """

  bank: np.ndarray
  baseline: float
  worst: float
  best: float
  choice: types.Intervention
  by_set: tuple[SetOptimum, ...]


def search(
  system: systems.System, num_draws: int = NUM_DRAWS, seed: int = 0
) -> Optimum:
  """Searches all allowed sets of variables for the best intervention.

  Args:
    system: system with an SCM of any mechanism and concrete arrays. Its
      `optimum_hint`, if any, is an additional start of an ascent.
    num_draws: number of noise draws over which outcomes are averaged, S; a
      multiple of 512.
    seed: random seed of the noise and of the search points.

  Returns:
    The `Optimum`.

  Raises:
    errors.UsageError: an outcome is not finite, all outcomes are the same, the
      budget affords no intervention, the hint sets variables that may not be
      set together, or `num_draws` is not a multiple of 512.
  """
  if num_draws < NUM_SEARCH_DRAWS or num_draws % NUM_SEARCH_DRAWS:
    raise errors.UsageError(
      f'the number of noise draws must be a multiple of {NUM_SEARCH_DRAWS}, '
      f'got {num_draws}'
    )
  with jax.enable_x64(True):
    return _Search(system, num_draws, seed).run()


class _Point(NamedTuple):
  """A point in the domains of one set, with its outcome.

  Attributes:
    row: index of the set.
    fractions: [size of the set] positions within the domains, in [0, 1].
    outcome: outcome in internal units, signed by the goal: higher is better.
  """

  row: int
  fractions: np.ndarray
  outcome: float


# Noise draws in equal parts, arrays of [NUM_SEARCH_DRAWS, D]: one compiled
# program, small enough for the caches of a CPU, evaluates any number of draws.
_Bank = list[jax.Array]


class _Search:
  """State of one search; must be used with 64-bit types enabled."""

  def __init__(self, system: systems.System, num_draws: int, seed: int):
    scm = jax.tree.map(_to_float64, system.scm)
    self._system = system._replace(scm=scm)
    problem = jax.tree.map(np.asarray, scm.problem)
    target = int(np.argmax(problem.target))
    # Only the target and its ancestors are evaluated.
    ancestors = np.asarray(graphs.ancestors(scm.parents))[target]
    order = np.asarray(scm.order)
    needed = order[ancestors[order] | (order == target)]
    self._scm = scm._replace(order=jnp.asarray(needed))
    self._low, self._high = problem.low, problem.high
    self._cost = problem.cost
    affordable = np.asarray(
      intervention_sets.affordable(problem, jnp.zeros(()))
    )
    self._sets = [np.flatnonzero(row) for row in affordable if row.any()]
    if not self._sets:
      cheapest = (problem.sets @ problem.cost)[problem.sets.any(1)].min()
      raise errors.UsageError(
        f'{system.name}: the budget {problem.budget:g} pays for no '
        f'intervention; the cheapest costs {cheapest:g}'
      )
    key_bank, key_search = jax.random.split(jax.random.key(seed))
    draw = jax.jit(simulate.noise_bank, static_argnums=2)
    self._draws = np.asarray(draw(key_bank, scm, num_draws))
    self._bank = _split(self._draws)
    self._search_bank = _split(
      np.asarray(draw(key_search, scm, NUM_SEARCH_DRAWS))
    )
    self._seed = seed
    self._expected_batch = jax.jit(jax.vmap(_expected, (None, None, 0, 0)))

  def run(self) -> Optimum:
    """Runs the search."""
    explored = self._explore()
    best, worst = self._best(explored), self._worst(explored)
    size = self._low.size
    nothing = np.zeros((1, size))
    baseline = self._outcomes(nothing > 0, nothing, self._bank)[0]
    highest = _highest(best)
    tolerance = _TOLERANCE * max(abs(highest), abs(worst))
    if not highest - worst > tolerance:
      raise errors.UsageError(
        f'{self._system.name}: no allowed intervention changes the target, all '
        f'outcomes are {self._in_target_units(highest):.6g}; allow '
        'interventions on one of its causes'
      )
    choice = min(
      (point for point in best if highest - point.outcome <= tolerance),
      key=lambda point: self._cost[self._sets[point.row]].sum(),
    )
    by_set = tuple(
      SetOptimum(
        tuple(self._system.variables[j] for j in self._sets[point.row]),
        self._in_target_units(point.outcome),
        _intervention(*self._mask_and_values(point)),
      )
      for point in best
    )
    return Optimum(
      bank=self._draws,
      baseline=self._in_target_units(baseline),
      worst=self._in_target_units(worst),
      best=self._in_target_units(choice.outcome),
      choice=_intervention(*self._mask_and_values(choice)),
      by_set=by_set,
    )

  def _explore(self) -> list[list[_Point]]:
    """Returns points of every set, with their outcomes on the search bank."""
    fair_share = _LOG2_POINTS - int(np.ceil(np.log2(len(self._sets))))
    by_set = []
    for row, columns in enumerate(self._sets):
      size = len(columns)
      limit = _LOG2_POINTS_OF_ONE if size == 1 else _LOG2_POINTS
      log2 = max(min(limit, fair_share), _MIN_LOG2_POINTS_OF_SET)
      sobol = qmc.Sobol(size, rng=self._seed).random_base2(log2)
      corners = itertools.product((0.0, 1.0), repeat=size)
      if size > _MAX_LOG2_CORNERS:
        rng = np.random.default_rng(self._seed)
        corners = rng.integers(0, 2, (2**_MAX_LOG2_CORNERS, size))
      fractions = np.concatenate([np.array(list(corners), float), sobol])
      by_set.append([_Point(row, fraction, np.nan) for fraction in fractions])
    flat = self._evaluate(
      [point for points in by_set for point in points], self._search_bank
    )
    ends = np.cumsum([len(points) for points in by_set])[:-1]
    return [
      flat[start:end]
      for start, end in zip([0, *ends], [*ends, len(flat)], strict=True)
    ]

  def _best(self, explored: list[list[_Point]]) -> list[_Point]:
    """Returns the best point of each set, with its outcome on the bank."""
    promising = sorted(explored, key=_highest, reverse=True)[:_MAX_SETS]
    total_size = sum(len(self._sets[points[0].row]) for points in promising)
    number = max(_MIN_STARTS_OF_SET, _NUM_STARTS // total_size)
    local_optima = [
      [
        self._ascend(point, self._search_bank, 1.0)
        for point in _select_starts(points, 1.0, number)
      ]
      for points in promising
    ]
    local_optima.sort(key=_highest, reverse=True)
    candidates = self._hint()
    for rank, points in enumerate(local_optima):
      # On few draws the second best point of a set may look like its best.
      number = _MIN_STARTS_OF_SET if rank < _NUM_CONTENDERS else 1
      candidates += sorted(points, key=_outcome, reverse=True)[:number]
    best = {}
    for point in sorted(self._evaluate(candidates, self._bank), key=_outcome):
      best[point.row] = point
    contenders = sorted(best.values(), key=_outcome, reverse=True)
    for point in contenders[:_NUM_CONTENDERS]:
      best[point.row] = self._ascend(point, self._bank, 1.0)
    return [best[row] for row in sorted(best)]

  def _worst(self, explored: list[list[_Point]]) -> float:
    """Returns the worst outcome over all sets, on the bank."""
    points = [point for of_set in explored for point in of_set]
    starts = _select_starts(points, -1.0, _NUM_DESCENTS)
    minima = [self._ascend(p, self._search_bank, -1.0) for p in starts]
    minima = self._evaluate(minima, self._bank)
    lowest = min(minima, key=_outcome)
    return self._ascend(lowest, self._bank, -1.0).outcome

  def _hint(self) -> list[_Point]:
    """Returns the point of the system's hint, if it has an affordable one."""
    hint = self._system.optimum_hint
    if hint is None:
      return []
    columns = np.flatnonzero(np.asarray(hint.mask))
    is_hint = [np.array_equal(columns, members) for members in self._sets]
    if not any(is_hint):
      allowed = np.asarray(self._scm.problem.sets) == np.asarray(hint.mask)
      if allowed.all(1).any():
        return []  # The budget does not afford it.
      raise errors.UsageError(
        f'{self._system.name}: the hint sets variables that may not be set '
        'together'
      )
    values = np.asarray(hint.values, float)[columns]
    low, high = self._low[columns], self._high[columns]
    # Rounding can carry a value that was given in float32 beyond an end.
    fractions = np.clip((values - low) / (high - low), 0.0, 1.0)
    return [_Point(is_hint.index(True), fractions, np.nan)]

  def _ascend(self, start: _Point, bank: _Bank, sign: float) -> _Point:
    """Returns the best point of an ascent (sign 1) or descent (sign -1)."""
    best = start._replace(outcome=-sign * np.inf)

    def loss(fractions):
      nonlocal best
      # Finite differences, one-sided at the ends of a domain. They need no
      # compiled program of their own, and are finite where the derivative of a
      # square root is not.
      steps = _STEP * np.eye(len(fractions))
      near = np.clip(fractions + np.concatenate([steps, -steps]), 0.0, 1.0)
      points = [start._replace(fractions=p) for p in [fractions.copy(), *near]]
      points = self._evaluate(points, bank)
      best = max([best, points[0]], key=lambda point: sign * point.outcome)
      above, below = np.split(
        np.array([point.outcome for point in points[1:]]), 2
      )
      widths = (near[: len(fractions)] - near[len(fractions) :]).sum(1)
      slope = (above - below) / widths
      return -sign * points[0].outcome, -sign * slope

    optimize.minimize(
      loss, start.fractions, jac=True,
      bounds=[(0.0, 1.0)] * len(start.fractions), method='L-BFGS-B',
      options={'maxiter': 100},
    )  # fmt: skip
    return best

  def _evaluate(self, points: list[_Point], bank: _Bank) -> list[_Point]:
    """Returns the points with their outcomes on a bank."""
    mask = np.zeros((len(points), self._low.size), bool)
    values = np.zeros(mask.shape)
    for i, point in enumerate(points):
      mask[i], values[i] = self._mask_and_values(point)
    outcomes = self._outcomes(mask, values, bank)
    return [
      point._replace(outcome=outcome)
      for point, outcome in zip(points, outcomes, strict=True)
    ]

  def _outcomes(
    self, mask: np.ndarray, values: np.ndarray, bank: _Bank
  ) -> np.ndarray:
    """Computes the outcomes of a list of interventions, in batches.

    Args:
      mask: [n, D] bool, variables that are set.
      values: [n, D] values they are set to.
      bank: noise draws to average over.

    Returns:
      [n] outcomes.
    """
    number = len(mask)
    batches = []
    for start in range(0, number, _BATCH):
      # The last batch is padded, so that all batches share one program.
      index = np.minimum(np.arange(start, start + _BATCH), number - 1)
      batch = mask[index], values[index]
      outcomes = [
        self._expected_batch(self._scm, part, *batch) for part in bank
      ]
      batches.append(np.mean(outcomes, 0))
    outcomes = np.concatenate(batches)[:number]
    if not np.isfinite(outcomes).all():
      i = int(np.argmin(np.isfinite(outcomes)))
      self._raise_non_finite(_intervention(mask[i], values[i]), bank)
    return outcomes

  def _mask_and_values(self, point: _Point) -> tuple[np.ndarray, np.ndarray]:
    """Converts a point to the mask [D] and values [D] of an intervention."""
    columns = self._sets[point.row]
    low, high = self._low[columns], self._high[columns]
    mask, values = np.zeros(self._low.size, bool), np.zeros(self._low.size)
    mask[columns] = True
    # This form gives the ends bit for bit at fractions 0 and 1.
    values[columns] = (1 - point.fractions) * low + point.fractions * high
    return mask, values

  def _in_target_units(self, outcome: float) -> float:
    return float(simulate.in_target_units(self._scm, jnp.asarray(outcome)))

  def _raise_non_finite(
    self, intervention: types.Intervention, bank: _Bank
  ) -> NoReturn:
    """Raises an error that names the first variable that is not finite."""
    u = simulate.propagate(
      self._scm,
      jax.tree.map(jnp.asarray, intervention),
      jnp.concatenate(bank),
    )
    raise errors.UsageError(
      systems.describe_non_finite(self._system, intervention, u)
      or f'{self._system.name}: the mean of the target is not finite under '
      f'{systems.describe(self._system.variables, intervention)}'
    )


def _expected(scm, bank, mask, values):
  return simulate.expected_outcome(scm, bank, types.Intervention(mask, values))


def _intervention(mask: np.ndarray, values: np.ndarray) -> types.Intervention:
  """Returns an intervention of host arrays, which stay float64 afterwards."""
  intervention = types.Intervention(jnp.asarray(mask), jnp.asarray(values))
  return jax.tree.map(np.asarray, intervention)


def _split(draws: np.ndarray) -> _Bank:
  """Splits [S, D] draws into equal parts of NUM_SEARCH_DRAWS."""
  if (draws == draws[0]).all():
    draws = draws[:1]  # All draws are the same.
  number = max(1, len(draws) // NUM_SEARCH_DRAWS)
  return [jnp.asarray(part) for part in np.split(draws, number)]


def _outcome(point: _Point) -> float:
  return point.outcome


def _highest(points: list[_Point]) -> float:
  return max(map(_outcome, points))


def _select_starts(
  points: list[_Point], sign: float, number: int
) -> list[_Point]:
  """Selects the best (sign -1: worst) points that are not close together."""
  starts: list[_Point] = []
  outcomes = np.array([point.outcome for point in points])
  if outcomes.min() == outcomes.max():
    return points[:1]
  for i in np.argsort(-sign * outcomes):
    point = points[i]
    if all(
      start.row != point.row
      or np.abs(start.fractions - point.fractions).max() > _MIN_DISTANCE
      for start in starts
    ):
      starts.append(point)
    if len(starts) == number:
      break
  return starts


def _to_float64(leaf: jax.Array) -> jax.Array:
  """Converts floating-point arrays to float64; returns others unchanged."""
  is_float = jnp.issubdtype(leaf.dtype, jnp.floating)
  return jnp.asarray(leaf, float if is_float else leaf.dtype)
