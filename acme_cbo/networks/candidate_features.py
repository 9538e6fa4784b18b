"""What rows tell of candidate interventions, in closed form.

A network can learn to look at rows that are close to a candidate, but it has to
learn how close; here it is told. Of the interventions on exactly the variables
of a candidate a Gaussian process tells what to expect there, and how surely
(Rasmussen and Williams, "Gaussian Processes for Machine Learning", 2006,
algorithm 2.1); of all other rows, in which the variables had such values for
other reasons, a weighted mean does (Nadaraya, 1964; Watson, 1964). And as long
as an intervention is not put together, it matters how good the best were that
began like it.

Nothing is fitted. There are a few processes of different lengths and noises.
How far the outcomes of each reach is known in closed form: an inverse gamma
prior on the variance of the signal leaves Student's t (section 9.9), whose
evidence says how much each process is to be believed; what they say together is
their average by it.

The inverse of a Cholesky factor grows by a row for every row that is seen, and
the rows before stay what they are. So what was known at any time is a sum over
its rows up to then, and adding a row costs the square of their number. Nothing
here calls LAPACK.

Places are shares of a domain, from the end at which the target was worse;
outcomes are in units of the observations. L lengths, G processes, each of one
length and one noise, B widths.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from acme_cbo.networks import action_distribution

# Of the processes: shares of a domain, and the variance of the noise of one
# outcome over that of the signal.
_LENGTHS = (0.07, 0.25, 0.7)
_NOISES = (0.03, 0.3)
# The mean of ever so many outcomes still has so much.
_LEAST_NOISE = 2e-3
# Variance of the signal before anything was tried, and the rows it counts for.
_VARIANCE = 4.0
_PRIOR_ROWS = 1.0
# Of the weighted means: shares of a domain.
_WIDTHS = (0.05, 0.2)
# Keeps the mean of no rows at 0.
_FEW_ROWS = 1e-3
# Improvements below it, in deviations of the signal, are told no more apart.
_LEAST_IMPROVEMENT = 1e-4

NUM_PROCESSES = len(_LENGTHS) * len(_NOISES)
NUM_FEATURES = 7 + len(_LENGTHS) + 3 * len(_WIDTHS)
# Which of them is the logarithm of the expected improvement.
LOG_IMPROVEMENT = 4


class RowFeatures(NamedTuple):
  """What is kept of R rows, of any kind.

  Attributes:
    known: [R] bool, False where there is nothing to see, yet or at all.
    outcomes: [R] of the target, more is better; 0 where nothing is known.
    intervened: [R, D] bool, what was set.
    places: [R, D] where each variable was.
    nearness: [B, D, R, C] to each candidate value, of the weighted means.
  """

  known: jax.Array
  outcomes: jax.Array
  intervened: jax.Array
  places: jax.Array
  nearness: jax.Array


class InterventionHistory(NamedTuple):
  """What is kept of R rows of interventions.

  Attributes:
    seen: the rows.
    inverse: [G, R, R] inverses of the Cholesky factors.
    whitened: [G, R] the same times the outcomes.
  """

  seen: RowFeatures
  inverse: jax.Array
  whitened: jax.Array


def empty_history(
  num_rows: int, num_variables: int, num_points: int
) -> InterventionHistory:
  """Room for R rows of D variables with C candidate values each."""
  return InterventionHistory(
    RowFeatures(
      known=jnp.zeros(num_rows, bool),
      outcomes=jnp.zeros(num_rows),
      intervened=jnp.zeros((num_rows, num_variables), bool),
      places=jnp.zeros((num_rows, num_variables)),
      nearness=jnp.zeros((len(_WIDTHS), num_variables, num_rows, num_points)),
    ),
    inverse=jnp.zeros((NUM_PROCESSES, num_rows, num_rows)),
    whitened=jnp.zeros((NUM_PROCESSES, num_rows)),
  )


def row_features(
  known: jax.Array,
  outcomes: jax.Array,
  intervened: jax.Array,
  places: jax.Array,
  points: jax.Array,
) -> RowFeatures:
  """What is to be kept of rows.

  Args:
    known: [R] bool, False where there is nothing to see.
    outcomes: [R] of the target, more is better.
    intervened: [R, D] bool, what was set.
    places: [R, D] where each variable was.
    points: [C] places of the candidates.

  Returns:
    The `Seen`.
  """
  nearness = _nearness(places.T[..., None] - points)
  return RowFeatures(
    known, jnp.where(known, outcomes, 0.0), intervened, places, nearness
  )


def append_rows(
  tried: InterventionHistory,
  position: jax.Array,
  new: RowFeatures,
  samples: jax.Array,
) -> InterventionHistory:
  """Adds rows of interventions.

  Args:
    tried: the rows before, with room for more.
    position: [] where the first of the new rows goes.
    new: Q of them.
    samples: [] draws of which the outcome of each row is the mean.

  Returns:
    All rows, those before unchanged.
  """
  noise = jnp.tile(jnp.array(_NOISES), len(_LENGTHS))  # [G]
  noise = jnp.maximum(noise / samples, _LEAST_NOISE)

  seen = RowFeatures(
    *(
      jax.lax.dynamic_update_slice_in_dim(
        old, of_new.astype(old.dtype), position, axis
      )
      for old, of_new, axis in zip(
        tried.seen, new, (0, 0, 0, 0, 2), strict=True
      )
    )
  )

  def absorb(carry, row):
    """The row of the inverses, and of the whitened outcomes, of a row."""
    inverse, whitened = carry
    here = jnp.arange(seen.known.size) == row
    same = (seen.intervened == seen.intervened[row]).all(-1)
    before = seen.known & seen.known[row] & (jnp.arange(here.size) < row)
    squares = _half_squares(seen.places - seen.places[row], _LENGTHS)
    squares = jnp.where(seen.intervened[row], squares, 0.0).sum(-1)  # [L, R]
    covariance = jnp.exp(-squares) * (same & before)
    factor = (inverse @ _of_each(covariance)[..., None])[..., 0]  # [G, R]
    left = 1 + noise - jnp.square(factor).sum(-1)
    scale = jax.lax.rsqrt(jnp.maximum(left, noise))[:, None]
    new = (here - (factor[:, None] @ inverse)[:, 0]) * scale
    new_whitened = (new * seen.outcomes).sum(-1, keepdims=True)
    inverse = jnp.where(here[:, None], new[:, None], inverse)
    return (inverse, jnp.where(here, new_whitened, whitened)), None

  rows = position + jnp.arange(new.known.size)
  start = tried.inverse, tried.whitened
  (inverse, whitened), _ = jax.lax.scan(absorb, start, rows)
  return InterventionHistory(seen, inverse, whitened)


def candidate_features(
  passive: RowFeatures,
  known: jax.Array,
  tried: InterventionHistory,
  points: jax.Array,
  partial: action_distribution.PartialIntervention,
) -> tuple[jax.Array, jax.Array]:
  """What rows tell of one more variable beside those chosen already.

  Args:
    passive: rows in which nothing was set.
    known: [R] bool, which of the rows tried are known of: the first ones.
    tried: rows of interventions.
    points: [C] places of the candidates.
    partial: what is chosen, in places.

  Returns:
    [D, C, NUM_FEATURES] of each candidate and [NUM_FEATURES] of what is chosen
    alone. Of all processes: what they expect; and in deviations of the signal,
    how far that is above the best seen, the deviation, the expected improvement
    and its logarithm. Of each length the expected improvement. Of each width
    how much else was seen nearby, its mean outcome, and how near and how good
    the best is that was tried with it: 1 there, less the further and the worse.
    The best seen and the logarithm of the deviation of the signal.
  """
  active = tried.seen._replace(known=known)
  best = jnp.max(active.outcomes, where=known, initial=0.0)
  tried = tried._replace(seen=active)
  reach, belief = _reach_and_belief(tried)  # [G], [G]
  unit = belief @ reach
  trust = belief.reshape(len(_LENGTHS), -1).sum(-1)

  def features(covariances, sums, nearest_best):
    """[K, NUM_FEATURES] of K interventions."""
    mean, variance = _posterior(tried, *covariances)
    deviation = reach[:, None] * jnp.sqrt(jnp.maximum(variance, 1e-6))
    above = (mean - best) / deviation
    density = jnp.exp(-0.5 * jnp.square(above)) / math.sqrt(2 * math.pi)
    improvement = deviation * (
      above * 0.5 * (1 + jax.lax.erf(above / math.sqrt(2))) + density
    )
    improvement = jnp.maximum(improvement, 0.0)
    expected = belief @ mean
    spread = belief @ (jnp.square(deviation) + jnp.square(mean - expected))
    improves = belief @ improvement / unit
    of_lengths = (belief[:, None] * improvement).reshape(
      len(_LENGTHS), len(_NOISES), -1
    )
    weight, total = sums
    same_for_all = jnp.stack([best, jnp.log(unit)])[:, None]
    return jnp.concatenate(
      [
        expected[None],
        (expected - best)[None] / unit,
        jnp.sqrt(spread)[None] / unit,
        improves[None],
        jnp.log(improves + _LEAST_IMPROVEMENT)[None],
        of_lengths.sum(1) / (unit * (trust[:, None] + _FEW_ROWS)),
        jnp.log1p(weight),
        total / (weight + _FEW_ROWS),
        nearest_best,
        jnp.broadcast_to(same_for_all, (2, mean.shape[1])),
      ]
    ).T

  goodness = jnp.exp((active.outcomes - best) / unit)
  # Apart, so that who asks for one alone does not wait for the other.
  of_each, alone = (
    features(*of_some)
    for of_some in zip(
      _covariances(active, points, partial),
      jax.tree.map(jnp.add, _sums(passive, partial), _sums(active, partial)),
      _nearest_best(active, partial, goodness),
      strict=True,
    )
  )
  return of_each.reshape(-1, points.size, NUM_FEATURES), alone[0]


def _reach_and_belief(tried):
  """How far the signal of each process reaches, and how probable it is.

  The deviation of the signal is that of its expected variance, of an inverse
  gamma distribution that began with `_VARIANCE` and counts `_PRIOR_ROWS`.

  Args:
    tried: the rows.

  Returns:
    [G] deviations, and [G] probabilities.
  """
  known = tried.seen.known
  number = _PRIOR_ROWS + known.sum()
  squares = _PRIOR_ROWS * _VARIANCE + jnp.where(
    known, jnp.square(tried.whitened), 0.0
  ).sum(-1)
  scales = jnp.diagonal(tried.inverse, axis1=-2, axis2=-1)  # [G, R]
  determinant = jnp.log(jnp.where(known, scales, 1.0)).sum(-1)
  evidence = determinant - 0.5 * number * jnp.log(squares)
  return jnp.sqrt(squares / number), jax.nn.softmax(evidence)


def _covariances(seen, points, partial):
  """Of rows with candidates, and with what is chosen.

  Each row has set what one candidate variable would complete, or none would, so
  that it has to do with the values of that one alone.

  Returns:
    Of each the covariances in variances of the signal, [L, R, C] and [L, R, 1],
    and which variable, or whether the chosen ones, the row belongs to: [D, R]
    and [1, R]. Of a row that belongs to none they are anything.
  """
  squares = _half_squares(seen.places - partial.fractions, _LENGTHS)
  squares = jnp.where(partial.mask, squares, 0.0).sum(-1)[..., None]
  candidates, alone = _same_sets(seen, partial)
  candidates &= ~partial.mask[:, None]
  own = jnp.where(candidates, seen.places.T, 0.0).sum(0)  # [R]
  of_own = _half_squares(own[:, None] - points, _LENGTHS)  # [L, R, C]
  return (
    (jnp.exp(-squares - of_own), candidates),
    (jnp.exp(-squares), alone[None]),
  )


def _posterior(tried, covariance, belongs):
  """Mean, and variance over the signal's, of each process: [G, M K] each.

  Args:
    tried: R rows, of which those of different sets tell nothing of each other.
    covariance: [L, R, K] of each row with the interventions it belongs to.
    belongs: [M, R] bool, to which K of M times as many interventions that is.
  """
  projected = tried.inverse @ _of_each(covariance)  # [G, R, K]
  projected = jnp.where(tried.seen.known[:, None], projected, 0.0)
  belongs = belongs.astype(projected.dtype)
  mean = belongs @ (tried.whitened[..., None] * projected)  # [G, M, K]
  variance = 1 - belongs @ jnp.square(projected)
  return mean.reshape(len(mean), -1), variance.reshape(len(mean), -1)


def _near_the_chosen(seen, partial):
  """How near each row is to what is chosen; 0 where it is not known: [B, R]."""
  closeness = _nearness(seen.places - partial.fractions)  # [B, R, D]
  return jnp.where(partial.mask, closeness, 1.0).prod(-1) * seen.known


def _sums(seen, partial):
  """Weights, and weighted outcomes, of the rows that set other variables.

  Near candidates, and near what is chosen: [2, B, D C], [2, B, 1].
  """
  given = _near_the_chosen(seen, partial)
  candidates, alone = _same_sets(seen, partial)
  both = jnp.stack([given, given * seen.outcomes])  # [2, B, R]
  each = (both[:, :, None] * ~candidates)[..., None, :] @ seen.nearness
  alone = (both * ~alone).sum(-1, keepdims=True)
  return each.reshape(*alone.shape[:-1], -1), alone


def _nearest_best(seen, partial, goodness):
  """The largest goodness times nearness of rows that set more.

  Of candidates, and of what is chosen: [B, D C], [B, 1].
  """
  given = _near_the_chosen(seen, partial)
  with_it = (partial.mask <= seen.intervened).all(-1)  # [R]
  given = given * goodness * with_it
  each = given[:, None, :, None] * seen.nearness
  each = jnp.where(seen.intervened.T[:, :, None], each, 0.0).max(-2)
  return each.reshape(len(_WIDTHS), -1), given.max(-1, keepdims=True)


def _same_sets(seen, partial):
  """Rows that set what a candidate would, or what is chosen: [D, R], [R]."""
  more = partial.mask | jnp.eye(partial.mask.size, dtype=bool)
  candidates = (seen.intervened == more[:, None]).all(-1)
  return candidates, (seen.intervened == partial.mask).all(-1)


def _of_each(of_lengths):
  """[L, ...] -> [G, ...], the processes of a length beside each other."""
  return jnp.repeat(of_lengths, len(_NOISES), axis=0)


def _half_squares(distance, lengths):
  return jnp.stack([0.5 * jnp.square(distance / length) for length in lengths])


def _nearness(distance):
  """1 at distance 0, and falling slowly: [...] -> [B, ...]."""
  return 1 / jnp.square(1 + 2 * _half_squares(distance, _WIDTHS))
