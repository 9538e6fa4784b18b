"""What the interventions on a system can reach, by brute force in float64.

Every allowed set of variables is searched by itself: points that cover its
domains evenly and their corners, then an ascent from the best few of them. The
search runs on few draws of the noise; what comes out of it is measured, and
climbed once more, on many.
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
# Points over all sets, along one variable at most, and of a set at least.
_LOG2_POINTS = 14
_LOG2_POINTS_OF_ONE = 8
_MIN_LOG2_POINTS_OF_SET = 5
_MAX_LOG2_CORNERS = 6
# From how many points ascents begin, times the variables that they move; of
# each set at least; descents to the worst; and how far apart such points are,
# as a share of each domain.
_NUM_STARTS = 128
_MIN_STARTS_OF_SET = 3
_NUM_DESCENTS = 12
_APART = 0.04
# Sets that are climbed on few draws and on many.
_MAX_SETS = 256
_NUM_CONTENDERS = 8
# Interventions that are measured together.
_BATCH = 2**3
# Of the differences that make a slope, as a share of a domain.
_STEP = 1e-6
# Of the outcomes, below which two of them are the same but for rounding.
_SAME = 1e-9


class SetOptimum(NamedTuple):
  """The best intervention on one set of variables.

  Attributes:
    variables: their names.
    outcome: E[Y | choice], in the target's own units.
    choice: the intervention; host arrays of float64.
  """

  variables: tuple[str, ...]
  outcome: float
  choice: types.Intervention


class Optimum(NamedTuple):
  """What the allowed interventions on a system can reach.

  Outcomes are E[Y | do] in the target's own units, as they are: where the goal
  is to minimise, the best is the lowest.

  Attributes:
    bank: [S, D] noise draws over which outcomes are averaged; float64, on the
      host.
    baseline: the outcome of no intervention.
    worst: the worst outcome of an allowed intervention.
    best: the best.
    choice: the intervention that reaches it; the cheapest where there are
      several.
    by_set: the best of every set that the budget pays for, in the order of the
      problem; of the 256 most promising where there are more. The 8 best are
      exact for the bank, the others to what the search on fewer draws finds.
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
  """Searches all sets of variables that may be set together.

  Args:
    system: with an SCM of any mechanism, concrete arrays; its hint, if it has
      one, is one more point to begin an ascent from.
    num_draws: S, over which outcomes are averaged; a multiple of 512.
    seed: of the noise and of the points.

  Returns:
    The `Optimum`.

  Raises:
    errors.UsageError: an outcome is not finite, or all are the same, or the
      number of draws does not fit.
  """
  if num_draws < NUM_SEARCH_DRAWS or num_draws % NUM_SEARCH_DRAWS:
    raise errors.UsageError(
      f'draws of the noise must be a multiple of {NUM_SEARCH_DRAWS}, got '
      f'{num_draws}'
    )
  with jax.enable_x64(True):
    return _Search(system, num_draws, seed).optimum()


class _Point(NamedTuple):
  """A place in the domains of one set, and the outcome: more is better."""

  row: int
  share: np.ndarray
  outcome: float


# Draws of the noise, part by part, so that one program, small enough for the
# caches of a processor, serves any number of them: arrays [few, D].
_Bank = list[jax.Array]


class _Search:
  """The parts of one search; `float64` is in force wherever it is used."""

  def __init__(self, system: systems.System, num_draws: int, seed: int):
    scm = jax.tree.map(_widened, system.scm)
    self._system = system._replace(scm=scm)
    problem = jax.tree.map(np.asarray, scm.problem)
    target = int(np.argmax(problem.target))
    # Only the target and its causes are worked out.
    causes = np.asarray(graphs.ancestors(scm.parents))[target]
    order = np.asarray(scm.order)
    needed = order[causes[order] | (order == target)]
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
    self._bank = _parts(self._draws)
    self._few = _parts(np.asarray(draw(key_search, scm, NUM_SEARCH_DRAWS)))
    self._seed = seed
    self._many = jax.jit(jax.vmap(_expected, (None, None, 0, 0)))

  def optimum(self) -> Optimum:
    explored = self._explore()
    best, worst = self._best(explored), self._worst(explored)
    size = self._low.size
    nothing = np.zeros((1, size))
    baseline = self._outcomes(nothing > 0, nothing, self._bank)[0]
    highest = _highest(best)
    same = _SAME * max(abs(highest), abs(worst))
    if not highest - worst > same:
      raise errors.UsageError(
        f'{self._system.name}: no intervention that is allowed changes the '
        f'target: all come to {self._own(highest):.6g}; let a cause of '
        'it be set'
      )
    chosen = min(
      (point for point in best if highest - point.outcome <= same),
      key=lambda point: self._cost[self._sets[point.row]].sum(),
    )
    by_set = tuple(
      SetOptimum(
        tuple(self._system.variables[j] for j in self._sets[point.row]),
        self._own(point.outcome),
        _intervention(*self._settings(point)),
      )
      for point in best
    )
    return Optimum(
      bank=self._draws,
      baseline=self._own(baseline),
      worst=self._own(worst),
      best=self._own(chosen.outcome),
      choice=_intervention(*self._settings(chosen)),
      by_set=by_set,
    )

  def _explore(self) -> list[list[_Point]]:
    """Points of every set, with their outcomes on few draws."""
    share = _LOG2_POINTS - int(np.ceil(np.log2(len(self._sets))))
    points = []
    for row, columns in enumerate(self._sets):
      size = len(columns)
      most = _LOG2_POINTS_OF_ONE if size == 1 else _LOG2_POINTS
      log2 = max(min(most, share), _MIN_LOG2_POINTS_OF_SET)
      sobol = qmc.Sobol(size, rng=self._seed).random_base2(log2)
      corners = itertools.product((0.0, 1.0), repeat=size)
      if size > _MAX_LOG2_CORNERS:
        rng = np.random.default_rng(self._seed)
        corners = rng.integers(0, 2, (2**_MAX_LOG2_CORNERS, size))
      place = np.concatenate([np.array(list(corners), float), sobol])
      points.append([_Point(row, where, np.nan) for where in place])
    flat = self._measured(
      [point for of_set in points for point in of_set], self._few
    )
    ends = np.cumsum([len(of_set) for of_set in points])[:-1]
    return [
      flat[start:end]
      for start, end in zip([0, *ends], [*ends, len(flat)], strict=True)
    ]

  def _best(self, explored: list[list[_Point]]) -> list[_Point]:
    """The best point of each set, on many draws."""
    promising = sorted(explored, key=_highest, reverse=True)[:_MAX_SETS]
    moved = sum(len(self._sets[of_set[0].row]) for of_set in promising)
    number = max(_MIN_STARTS_OF_SET, _NUM_STARTS // moved)
    climbed = [
      [self._climbed(p, self._few, 1.0) for p in _apart(of_set, 1.0, number)]
      for of_set in promising
    ]
    climbed.sort(key=_highest, reverse=True)
    found = self._hint()
    for rank, of_set in enumerate(climbed):
      # Few draws may take the second best of a set for its best.
      number = _MIN_STARTS_OF_SET if rank < _NUM_CONTENDERS else 1
      found += sorted(of_set, key=_outcome, reverse=True)[:number]
    best = {}
    for point in sorted(self._measured(found, self._bank), key=_outcome):
      best[point.row] = point
    contenders = sorted(best.values(), key=_outcome, reverse=True)
    for point in contenders[:_NUM_CONTENDERS]:
      best[point.row] = self._climbed(point, self._bank, 1.0)
    return [best[row] for row in sorted(best)]

  def _worst(self, explored: list[list[_Point]]) -> float:
    """The worst outcome over all sets, on many draws."""
    points = [point for of_set in explored for point in of_set]
    starts = _apart(points, -1.0, _NUM_DESCENTS)
    found = [self._climbed(p, self._few, -1.0) for p in starts]
    found = self._measured(found, self._bank)
    lowest = min(found, key=_outcome)
    return self._climbed(lowest, self._bank, -1.0).outcome

  def _hint(self) -> list[_Point]:
    hint = self._system.optimum_hint
    if hint is None:
      return []
    columns = np.flatnonzero(np.asarray(hint.mask))
    rows = [np.array_equal(columns, other) for other in self._sets]
    if not any(rows):
      allowed = np.asarray(self._scm.problem.sets) == np.asarray(hint.mask)
      if allowed.all(1).any():
        return []  # The budget does not pay for it.
      raise errors.UsageError(
        f'{self._system.name}: the hint sets variables that may not be set '
        'together'
      )
    values = np.asarray(hint.values, float)[columns]
    low, high = self._low[columns], self._high[columns]
    # Rounding can carry a value that was given in float32 beyond an end.
    share = np.clip((values - low) / (high - low), 0.0, 1.0)
    return [_Point(rows.index(True), share, np.nan)]

  def _climbed(self, start: _Point, bank: _Bank, sign: float) -> _Point:
    """The end of an ascent (sign 1) or descent (-1) from a point."""
    best = start._replace(outcome=-sign * np.inf)

    def negative(share):
      nonlocal best
      # Differences, at the ends of a domain from one side. They cost no program
      # of their own, and are finite where a root has no slope.
      steps = _STEP * np.eye(len(share))
      near = np.clip(share + np.concatenate([steps, -steps]), 0.0, 1.0)
      points = [start._replace(share=p) for p in [share.copy(), *near]]
      measured = self._measured(points, bank)
      best = max([best, measured[0]], key=lambda point: sign * point.outcome)
      above, below = np.split(
        np.array([point.outcome for point in measured[1:]]), 2
      )
      widths = (near[: len(share)] - near[len(share) :]).sum(1)
      slope = (above - below) / widths
      return -sign * measured[0].outcome, -sign * slope

    optimize.minimize(
      negative, start.share, jac=True, bounds=[(0.0, 1.0)] * len(start.share),
      method='L-BFGS-B', options={'maxiter': 100},
    )  # fmt: skip
    return best

  def _measured(self, points: list[_Point], bank: _Bank) -> list[_Point]:
    """The same points with their outcomes on a bank."""
    mask = np.zeros((len(points), self._low.size), bool)
    values = np.zeros(mask.shape)
    for i, point in enumerate(points):
      mask[i], values[i] = self._settings(point)
    outcomes = self._outcomes(mask, values, bank)
    return [
      point._replace(outcome=outcome)
      for point, outcome in zip(points, outcomes, strict=True)
    ]

  def _outcomes(
    self, mask: np.ndarray, values: np.ndarray, bank: _Bank
  ) -> np.ndarray:
    """Outcomes of P interventions [P, D], batch by batch: [P]."""
    number = len(mask)
    batches = []
    for start in range(0, number, _BATCH):
      # The last batch is filled up: one program for all of them.
      index = np.minimum(np.arange(start, start + _BATCH), number - 1)
      batch = mask[index], values[index]
      outcomes = [self._many(self._scm, part, *batch) for part in bank]
      batches.append(np.mean(outcomes, 0))
    outcomes = np.concatenate(batches)[:number]
    if not np.isfinite(outcomes).all():
      i = int(np.argmin(np.isfinite(outcomes)))
      self._refuse(_intervention(mask[i], values[i]), bank)
    return outcomes

  def _settings(self, point: _Point) -> tuple[np.ndarray, np.ndarray]:
    """What is set, and to what: [D], [D]."""
    columns = self._sets[point.row]
    low, high = self._low[columns], self._high[columns]
    mask, values = np.zeros(self._low.size, bool), np.zeros(self._low.size)
    mask[columns] = True
    # So that 0 and 1 are the ends to the bit.
    values[columns] = (1 - point.share) * low + point.share * high
    return mask, values

  def _own(self, outcome: float) -> float:
    return float(simulate.in_target_units(self._scm, jnp.asarray(outcome)))

  def _refuse(self, intervention: types.Intervention, bank: _Bank) -> NoReturn:
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
  """On the host, so that float64 outlives the search."""
  held = types.Intervention(jnp.asarray(mask), jnp.asarray(values))
  return jax.tree.map(np.asarray, held)


def _parts(draws: np.ndarray) -> _Bank:
  if (draws == draws[0]).all():
    draws = draws[:1]  # No noise counts.
  number = max(1, len(draws) // NUM_SEARCH_DRAWS)
  return [jnp.asarray(part) for part in np.split(draws, number)]


def _outcome(point: _Point) -> float:
  return point.outcome


def _highest(points: list[_Point]) -> float:
  return max(map(_outcome, points))


def _apart(points: list[_Point], sign: float, number: int) -> list[_Point]:
  """The best points (sign -1: the worst) that are not close together."""
  chosen: list[_Point] = []
  outcomes = np.array([point.outcome for point in points])
  if outcomes.min() == outcomes.max():
    return points[:1]
  for i in np.argsort(-sign * outcomes):
    point = points[i]
    if all(
      other.row != point.row or np.abs(other.share - point.share).max() > _APART
      for other in chosen
    ):
      chosen.append(point)
    if len(chosen) == number:
      break
  return chosen


def _widened(leaf: jax.Array) -> jax.Array:
  """The same array, floats in float64."""
  is_float = jnp.issubdtype(leaf.dtype, jnp.floating)
  return jnp.asarray(leaf, float if is_float else leaf.dtype)
