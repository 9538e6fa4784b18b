"""Best and worst interventions on a system, by exhaustive search in float64.

Every allowed set of variables is searched separately: a Sobol sequence and the
corners of its domains, then gradient ascent from the best few points. This
search uses few draws of the noise. Its results are evaluated on many draws, and
the best of them are optimized once more on these.

The result does not depend on the origin and the unit of the target: outcomes
are relative to that of no intervention, and every tolerance is relative to
their range.
"""

from collections.abc import Iterator, Sequence
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
from acme_cbo.scms import mechanisms
from acme_cbo.scms import rounding
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
# Least step of the finite differences, as a fraction of a domain.
_STEP = 1e-6
# Difference, as a fraction of the range of all outcomes, below which two
# outcomes are the same.
_TOLERANCE = 1e-9
# The best outcome has a gain that scores can be relative to if it is above
# these multiples of the target's deviation, of the range of all outcomes and of
# the last digit of float64.
_MIN_GAIN_OF_DEVIATION = 1e-3
_MIN_GAIN_OF_RANGE = 1e-6
_MIN_GAIN_OF_ROUNDING = 1e3
# Smaller and smaller neighborhoods of the best intervention, as fractions of a
# domain, and their points: each neighborhood contains whatever is between two
# points of the one before. Where the gain is this much higher in the middle one
# than in the first one that counts, and at the best point than in the middle
# one, it has no bound. Their widths are 1e-6 and 6e-11.
_NEIGHBORHOODS = 0.25 ** np.arange(2, 26)
_FIRST, _MIDDLE = 8, 15
_NEIGHBORS = np.array([-1, -0.75, -0.5, -0.25, 0.25, 0.5, 0.75, 1])
_GROWTH = 1.1
# Estimates of the tail index of the target, by Hill's estimator for several
# numbers of extremes. If all on the bank are below the first limit, more draws
# decide. The mean does not exist up to an index of 1.
_EXTREMES = (8, 16, 32, 64, 128)
_SUSPECT_TAIL_INDEX = 2.0
_NUM_TAIL_DRAWS = 2**18
TAIL_EXTREMES = (32, 128, 512)
MIN_TAIL_INDEX = 1.25


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
    deviation: standard deviation of the target without an intervention.
  """

  bank: np.ndarray
  baseline: float
  worst: float
  best: float
  choice: types.Intervention
  by_set: tuple[SetOptimum, ...]
  deviation: float


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
      set together, or `num_draws` is not a multiple of 512. Or the best outcome
      grows without bound, as at a pole inside a domain, which is found where
      the search ends at the pole. Or the mean of the target, without an
      intervention or under the best one, is that of a few extreme draws, as for
      a ratio whose denominator may be 0: its tail index is below 1.25. Poles
      that the search misses, and tails that do not show in 262,144 draws, are
      not found.
  """
  if num_draws < NUM_SEARCH_DRAWS or num_draws % NUM_SEARCH_DRAWS:
    raise errors.UsageError(
      f'the number of noise draws must be a multiple of {NUM_SEARCH_DRAWS}, '
      f'got {num_draws}'
    )
  with jax.enable_x64(True):
    return _Search(system, num_draws, seed).run()


def check_gain(system: systems.System, best: Optimum) -> None:
  """Raises unless there is a gain that scores can be relative to.

  Args:
    system: the system.
    best: its optimum.

  Raises:
    errors.UsageError: no intervention is better than none, or the gain of the
      best one is below a thousandth of the target's standard deviation, a
      millionth of the range of all outcomes or a thousand roundings.
  """
  gain = float(system.scm.problem.goal) * (best.best - best.baseline)
  if not gain > 0:
    raise errors.UsageError(
      f'no allowed intervention on {system.name} is better than none, so that '
      'scores are undefined'
    )
  target = system.variables[int(np.argmax(system.scm.problem.target))]
  for limit, reason in (
    (
      _MIN_GAIN_OF_DEVIATION * best.deviation,
      f'a thousandth of the standard deviation of {target}, {best.deviation:g}',
    ),
    (
      _MIN_GAIN_OF_RANGE * abs(best.best - best.worst),
      'a millionth of the difference between the best and the worst outcome, '
      f'{abs(best.best - best.worst):g}',
    ),
    (
      _MIN_GAIN_OF_ROUNDING * np.spacing(abs(best.best)),
      f'a thousand roundings of numbers as large as {best.best:g}; measure '
      f'{target} from another origin',
    ),
  ):
    if gain < limit:
      raise errors.UsageError(
        f'there is almost nothing to gain on {system.name}: the best '
        f'intervention, {systems.describe(system.variables, best.choice)}, '
        f'improves the mean of {target} by {gain:.3g}, less than {reason}. '
        'Scores relative to this gain would mean nothing; widen the domains, '
        'or allow other interventions'
      )


class _Point(NamedTuple):
  """A point in the domains of one set, with its outcome.

  Attributes:
    row: index of the set.
    fractions: [size of the set] positions within the domains, in [0, 1].
    outcome: outcome in internal units, signed by the goal: higher is better;
      relative to the origin of the search.
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
    self._samples_batch = jax.jit(jax.vmap(_target_samples, (None, None, 0, 0)))
    # An intervention that sets nothing: [1, D] mask and values.
    nothing = np.zeros((1, problem.low.size))
    self._nothing = nothing > 0, nothing
    # Outcomes are relative to that of no intervention on the search bank, so
    # that they keep their digits if the target is far from 0.
    self._origin = 0.0
    self._origin = self._outcomes(*self._nothing, self._search_bank)[0]
    # Set once the range of the outcomes is known, see `_set_scale`.
    self._scale, self._step = 1.0, _STEP

  def run(self) -> Optimum:
    """Runs the search."""
    explored = self._explore()
    self._set_scale([point for points in explored for point in points])
    best, worst = self._best(explored), self._worst(explored)
    baseline = self._outcomes(*self._nothing, self._bank)[0]
    highest = _highest(best)
    tolerance = max(
      _TOLERANCE * (highest - worst),
      rounding.resolution(self._origin + np.array([highest, worst])),
    )
    choice = min(
      (point for point in best if highest - point.outcome <= tolerance),
      key=lambda point: self._cost[self._sets[point.row]].sum(),
    )
    self._check_bounded(choice)
    natural = self._check_tails(choice)
    if not highest - worst > tolerance:
      raise errors.UsageError(
        f'{self._system.name}: no allowed intervention changes the target, all '
        f'outcomes are {self._in_target_units(highest):.6g}; allow '
        'interventions on one of its causes'
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
      deviation=self._deviation(natural),
    )

  def _set_scale(self, points: list[_Point]) -> None:
    """Sets the unit of the outcomes that are optimized, and their step.

    The unit is the gain over no intervention, to which scores are relative, or
    the range of all outcomes where this is smaller or there is no gain.

    Args:
      points: all explored points.
    """
    highest, lowest = (f(map(_outcome, points)) for f in (max, min))
    span = highest - lowest
    gain = highest if highest > _MIN_GAIN_OF_RANGE * span else span
    self._scale = min(span, gain) or 1.0
    # A smaller step would amplify the rounding of a target that is far from 0.
    magnitude = abs(self._origin) + max(abs(highest), abs(lowest))
    rounded = np.finfo(float).eps * magnitude / self._scale
    self._step = max(_STEP, np.sqrt(rounded))

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
      steps = self._step * np.eye(len(fractions))
      near = np.clip(fractions + np.concatenate([steps, -steps]), 0.0, 1.0)
      points = [start._replace(fractions=p) for p in [fractions.copy(), *near]]
      points = self._evaluate(points, bank)
      best = max([best, points[0]], key=lambda point: sign * point.outcome)
      above, below = np.split(
        np.array([point.outcome for point in points[1:]]), 2
      )
      widths = (near[: len(fractions)] - near[len(fractions) :]).sum(1)
      slope = (above - below) / widths
      factor = -sign / self._scale
      return factor * points[0].outcome, factor * slope

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
    """Computes the outcomes of a list of interventions, all of them finite.

    Args:
      mask: [n, D] bool, variables that are set.
      values: [n, D] values they are set to.
      bank: noise draws to average over.

    Returns:
      [n] outcomes.
    """
    outcomes = self._means(mask, values, bank)
    if not np.isfinite(outcomes).all():
      i = int(np.argmin(np.isfinite(outcomes)))
      self._raise_non_finite(_intervention(mask[i], values[i]), bank)
    return outcomes

  def _means(
    self, mask: np.ndarray, values: np.ndarray, bank: _Bank
  ) -> np.ndarray:
    """Returns the outcomes of a list of interventions, in batches: [n]."""
    means = []
    for start in range(0, len(mask), _BATCH):
      batch = slice(start, start + _BATCH)
      samples = self._samples(mask[batch], values[batch], bank)
      with np.errstate(invalid='ignore', over='ignore'):
        means.append((samples - self._origin).mean(1))
    return np.concatenate(means)

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
    internal = jnp.asarray(self._origin + outcome)
    return float(simulate.in_target_units(self._scm, internal))

  def _check_bounded(self, point: _Point) -> None:
    """Raises if the outcome grows without bound towards a point nearby.

    Args:
      point: the best point, at which a search for a maximum has ended.

    Raises:
      errors.UsageError: in ever smaller neighborhoods there are ever better
        points, down to the resolution of float64.
    """
    point = self._evaluate([point], self._search_bank)[0]
    gains = []
    for width in _NEIGHBORHOODS:
      neighbors = []
      for j in range(len(point.fractions)):
        near = np.tile(point.fractions, (len(_NEIGHBORS), 1))
        near[:, j] = np.clip(near[:, j] + width * _NEIGHBORS, 0.0, 1.0)
        points = [point._replace(fractions=fractions) for fractions in near]
        masks, values = zip(*map(self._mask_and_values, points), strict=True)
        means = self._means(
          np.stack(masks), np.stack(values), self._search_bank
        )
        # An undefined outcome is not a better one.
        means = np.where(np.isnan(means), -np.inf, means)
        best = int(np.argmax(means))
        neighbors.append(points[best]._replace(outcome=means[best]))
      gains.append(_highest(neighbors))
      point = max([point, *neighbors], key=_outcome)
    first, middle = gains[_FIRST], gains[_MIDDLE]
    gain = point.outcome
    if gain > _GROWTH * middle > _GROWTH * max(0.0, _GROWTH * first):
      where = systems.describe(
        self._system.variables, _intervention(*self._mask_and_values(point))
      )
      raise errors.UsageError(
        f'{self._system.name}: the mean of {self._target_name()} has no finite '
        f'best value: it grows without bound near {where}, up to '
        f'{self._in_target_units(gain):.3g}; change the equation or the '
        'domain, for instance so that there is no division by 0'
      )

  def _check_tails(self, choice: _Point) -> np.ndarray:
    """Raises if a few extreme draws determine the mean of the target.

    Args:
      choice: the best point.

    Returns:
      [S] samples of the target without an intervention, on the bank.

    Raises:
      errors.UsageError: without an intervention, or at the best point, all
        estimates of the tail index are below 1.25.
    """
    mask, values = (
      np.concatenate([nothing, chosen[None]])
      for nothing, chosen in zip(
        self._nothing, self._mask_and_values(choice), strict=True
      )
    )
    samples = self._samples(mask, values, self._bank)
    for i in range(len(mask)):
      if tail_index(samples[i], _EXTREMES) > _SUSPECT_TAIL_INDEX:
        continue
      more = [
        self._samples(mask, values, _split(np.asarray(draws)))[i]
        for draws in self._more_draws(_NUM_TAIL_DRAWS)
      ]
      index = tail_index(np.concatenate(more), TAIL_EXTREMES)
      if index < MIN_TAIL_INDEX:
        where = systems.describe(
          self._system.variables, _intervention(mask[i], values[i])
        )
        raise errors.UsageError(
          f'{self._system.name}: the mean of {self._target_name()} under '
          f'{where} does not exist or cannot be estimated: a few extreme draws '
          f'determine it (tail index {index:.2f}; a mean needs more than 1). '
          'Change the equations so that no denominator may be 0 and no '
          'exponent is large'
        )
    return samples[0]

  def _samples(
    self, mask: np.ndarray, values: np.ndarray, bank: _Bank
  ) -> np.ndarray:
    """Returns the samples of which outcomes are the means.

    Args:
      mask: [n, D] bool, variables that are set; n is at most the batch size.
      values: [n, D] values they are set to.
      bank: S noise draws.

    Returns:
      [n, S] values of the target in internal units, signed by the goal.
    """
    index = np.minimum(np.arange(_BATCH), len(mask) - 1)
    batch = mask[index], values[index]
    # All parts start before the first one is waited for.
    samples = [self._samples_batch(self._scm, part, *batch) for part in bank]
    return np.concatenate(samples, 1)[: len(mask)]

  def _more_draws(self, number: int) -> Iterator[jax.Array]:
    """Yields further draws of the noise, in arrays as long as the bank."""
    size = len(self._draws)
    draw = jax.jit(simulate.noise_bank, static_argnums=2)
    for i in range(number // size):
      key = jax.random.fold_in(jax.random.key(self._seed), i)
      yield draw(key, self._scm, size)

  def _deviation(self, natural: np.ndarray) -> float:
    """Returns the target's standard deviation without an intervention.

    Args:
      natural: [S] samples of the target without an intervention.
    """
    target = int(np.argmax(self._scm.problem.target))
    scale = float(self._scm.scale[target])
    if int(self._scm.family) != mechanisms.Family.LINEAR:
      return scale * float(rounding.standard_deviation(natural))
    # The bank of a linear SCM has no noise.
    mechanism = self._scm.mechanism
    unit = np.eye(len(mechanism.linear))
    effects = np.linalg.inv(unit - mechanism.linear)[target]
    return scale * float(np.linalg.norm(effects * mechanism.noise_scale))

  def _target_name(self) -> str:
    target = int(np.argmax(self._scm.problem.target))
    return self._system.variables[target]

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


def tail_index(values: np.ndarray, extremes: Sequence[int]) -> float:
  """Estimates how heavy the tails of a distribution are, by Hill's estimator.

  The probability of a value beyond x falls like x to the power of minus the
  tail index. Hill, "A Simple General Approach to Inference About the Tail of a
  Distribution", 1975.

  Args:
    values: [n] independent draws.
    extremes: numbers of draws, those farthest from the median, of which the
      index is estimated; all below n.

  Returns:
    The largest of the estimates, so that a few equal extremes do not count as a
    heavy tail; infinite if values other than the extremes are all the same.
  """
  distances = np.sort(np.abs(values - np.median(values)))[::-1]
  if max(extremes) >= len(values) or not distances[max(extremes)] > 0:
    return np.inf
  logs = np.log(distances[: max(extremes) + 1])
  means = np.array([logs[:k].mean() - logs[k] for k in extremes])
  return 1 / means.min() if means.min() > 0 else np.inf


def _target_samples(scm, bank, mask, values):
  return simulate.target_samples(scm, bank, types.Intervention(mask, values))


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
