"""Closed-form features of candidate interventions, computed from rows of data.

A network could learn to attend to the rows close to a candidate, but it would
have to learn how close. These features spare it that:

  * Rows that intervene on exactly the variables of the candidate are the data
    of a Gaussian process, which predicts a mean and a standard deviation
    (Rasmussen and Williams, "Gaussian Processes for Machine Learning", 2006,
    algorithm 2.1).
  * All other rows, in which the variables had such values for other reasons,
    enter a kernel-weighted mean (Nadaraya, 1964; Watson, 1964).
  * While an intervention is still partial, each candidate is also completed:
    the best row that extends it gives the other variables and their values, and
    the Gaussian process of that set of variables predicts the result.
  * If an intervention sets all variables that may be set, a Gaussian process of
    the observations may be the mean of that of the interventions. Confounding
    forbids it; its probability follows from the evidence.

Nothing is fitted. Instead there are a few processes of different length scales
and noise levels. Their signal variance has a closed-form posterior: under an
inverse gamma prior the marginal likelihood is Student's t (section 9.9). This
evidence weights the processes, and their predictions are averaged with these
weights.

The inverse of a Cholesky factor grows by one row per data row and leaves the
earlier rows unchanged. A prediction from the first rows alone is thus a sum
over these rows, and adding a row costs the square of their number. Nothing here
calls LAPACK.

Positions are fractions of a domain, measured from the end at which the target
was worse; outcomes are in units of the observations. There are L length scales,
G processes (one per pair of a length scale and a noise level) and B kernel
widths.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from acme_cbo.networks import action_distribution
from acme_cbo.scms import intervention_sets

# Length scales of the processes, as fractions of a domain, and noise levels:
# variance of the noise of one outcome over that of the signal.
_LENGTHS = (0.07, 0.25, 0.7)
_NOISES = (0.03, 0.3)
# Lower bound of the noise level, however many draws an outcome averages.
_MIN_NOISE = 2e-3
# Prior of the signal variance: its mean, and the number of rows it is worth.
_VARIANCE = 4.0
_PRIOR_ROWS = 1.0
# Kernel widths of the weighted means, as fractions of a domain.
_WIDTHS = (0.05, 0.2)
# Added to sums of weights, so that the mean of no rows is 0.
_WEIGHT_OFFSET = 1e-3
# Added to expected improvements, in standard deviations of the signal, before
# the logarithm is taken.
_IMPROVEMENT_OFFSET = 1e-4
# Number of observations in their process, whose cost is the cube of it.
MAX_RECORDS = 128

NUM_PROCESSES = len(_LENGTHS) * len(_NOISES)
NUM_FEATURES = 13 + len(_LENGTHS) + 3 * len(_WIDTHS)
# Indices of features: the expected outcome, its standard deviation, and the
# logarithm of its expected improvement; the logarithm of the scale; and the
# expected improvement again, of the completion.
EXPECTED = 0
DEVIATION = 2
LOG_IMPROVEMENT = 4
LOG_SCALE = 6 + len(_LENGTHS) + 3 * len(_WIDTHS)
LOG_COMPLETED_IMPROVEMENT = NUM_FEATURES - 1


class RowFeatures(NamedTuple):
  """R rows, observational or interventional, as the features need them.

  Attributes:
    row_mask: [R] bool, False for rows that do not count: the start row, and
      rows that are not there yet.
    outcomes: [R] values of the target, more is better; 0 where masked.
    intervened: [R, D] bool, True where the variable was intervened on.
    fractions: [R, D] position of each variable in its domain.
    nearness: [B, D, R, C] nearness of each row to each candidate value.
    correlation: [L, D, R, C] factor of the correlation of each row with each
      candidate, that of the candidate's variable.
    from_records: [R] outcome that the observations let expect, where all
      variables are set that may be; else 0.
  """

  row_mask: jax.Array
  outcomes: jax.Array
  intervened: jax.Array
  fractions: jax.Array
  nearness: jax.Array
  correlation: jax.Array
  from_records: jax.Array


# Axis of the rows in each array of `RowFeatures`.
_ROW_AXES = (0, 0, 0, 0, 2, 2, 0)


class Records(NamedTuple):
  """The N observations, and the process in which they count as interventions.

  Attributes:
    rows: the observations.
    settable: [D] bool, the variables that may be set.
    coefficients: [L, N] weight of the correlation with each observation in the
      expected outcome, averaged over the processes; 0 after the first
      `MAX_RECORDS` observations.
  """

  rows: RowFeatures
  settable: jax.Array
  coefficients: jax.Array


class InterventionHistory(NamedTuple):
  """R rows of interventions, with the state of the Gaussian processes.

  Attributes:
    rows: the rows.
    inverse: [G, R, R] inverses of the Cholesky factors.
    whitened: [G, R, 2] products of the inverses and the outcomes, as they are,
      and less what the observations let expect.
  """

  rows: RowFeatures
  inverse: jax.Array
  whitened: jax.Array


def empty_history(
  num_rows: int, num_variables: int, num_points: int
) -> InterventionHistory:
  """Returns room for R rows of D variables with C candidate values each."""
  return InterventionHistory(
    RowFeatures(
      row_mask=jnp.zeros(num_rows, bool),
      outcomes=jnp.zeros(num_rows),
      intervened=jnp.zeros((num_rows, num_variables), bool),
      fractions=jnp.zeros((num_rows, num_variables)),
      nearness=jnp.zeros((len(_WIDTHS), num_variables, num_rows, num_points)),
      correlation=jnp.zeros(
        (len(_LENGTHS), num_variables, num_rows, num_points)
      ),
      from_records=jnp.zeros(num_rows),
    ),
    inverse=jnp.zeros((NUM_PROCESSES, num_rows, num_rows)),
    whitened=jnp.zeros((NUM_PROCESSES, num_rows, 2)),
  )


def row_features(
  row_mask: jax.Array,
  outcomes: jax.Array,
  intervened: jax.Array,
  fractions: jax.Array,
  points: jax.Array,
  records: Records | None = None,
) -> RowFeatures:
  """Computes the features of rows.

  Args:
    row_mask: [R] bool, False for rows that do not count.
    outcomes: [R] values of the target, more is better.
    intervened: [R, D] bool, True where the variable was intervened on.
    fractions: [R, D] position of each variable in its domain.
    points: [C] positions of the candidates.
    records: the observations; None where the rows are the observations.

  Returns:
    The `RowFeatures`.
  """
  from_records = jnp.zeros(row_mask.shape)
  if records is not None:
    correlations = _correlations(
      records.settable, fractions[:, None] - records.rows.fractions
    )  # [L, R, N]
    expected = (correlations @ records.coefficients[..., None]).sum((0, 2))
    is_whole = (intervened == records.settable).all(-1) & row_mask
    from_records = jnp.where(is_whole, expected, 0.0)
  distance = fractions.T[..., None] - points  # [D, R, C]
  return RowFeatures(
    row_mask,
    jnp.where(row_mask, outcomes, 0.0),
    intervened,
    fractions,
    _nearness(distance),
    jnp.exp(-_half_squares(distance, _LENGTHS)),
    from_records,
  )


def fit_records(rows: RowFeatures, settable: jax.Array) -> Records:
  """Fits the process in which the observations count as interventions.

  Args:
    rows: N observations.
    settable: [D] bool, the variables that may be set.
  """
  number = min(rows.row_mask.size, MAX_RECORDS)
  first = RowFeatures(
    *(
      jax.lax.slice_in_dim(leaf, 0, number, axis=axis)
      for leaf, axis in zip(rows, _ROW_AXES, strict=True)
    )
  )
  history = append_rows(
    empty_history(number, settable.size, rows.nearness.shape[-1]),
    jnp.int32(0),
    first._replace(
      intervened=jnp.broadcast_to(settable, first.intervened.shape)
    ),
    jnp.float32(1),
  )
  posterior = _signal_posterior(history)
  coefficients = (posterior.weights[:, None] * posterior.solved[0]).reshape(
    len(_LENGTHS), len(_NOISES), -1
  )
  rest = rows.row_mask.size - number
  return Records(
    rows, settable, jnp.pad(coefficients.sum(1), [(0, 0), (0, rest)])
  )


def append_rows(
  history: InterventionHistory,
  position: jax.Array,
  new: RowFeatures,
  samples: jax.Array,
) -> InterventionHistory:
  """Appends rows of interventions.

  Args:
    history: earlier rows, with room for more.
    position: [] index of the first of the new rows.
    new: Q new rows.
    samples: [] number of draws that each outcome averages.

  Returns:
    All rows; the earlier ones are unchanged.
  """
  noise = _noise_levels(samples)
  rows = RowFeatures(
    *(
      jax.lax.dynamic_update_slice_in_dim(
        old, added.astype(old.dtype), position, axis
      )
      for old, added, axis in zip(history.rows, new, _ROW_AXES, strict=True)
    )
  )

  outcomes = jnp.stack(
    [rows.outcomes, rows.outcomes - rows.from_records], -1
  )  # [R, 2]

  def append_row(carry, index):
    """Computes one row of the inverses and of the whitened outcomes."""
    inverse, whitened = carry
    here = jnp.arange(rows.row_mask.size) == index
    same = (rows.intervened == rows.intervened[index]).all(-1)
    before = rows.row_mask & rows.row_mask[index]
    before &= jnp.arange(here.size) < index
    covariance = _correlations(
      rows.intervened[index], rows.fractions - rows.fractions[index]
    ) * (same & before)  # [L, R]
    factor = (inverse @ _repeat_lengths(covariance)[..., None])[
      ..., 0
    ]  # [G, R]
    residual = 1 + noise - jnp.square(factor).sum(-1)
    scale = jax.lax.rsqrt(jnp.maximum(residual, noise))[:, None]
    new = (here - (factor[:, None] @ inverse)[:, 0]) * scale
    here = here[:, None]
    inverse = jnp.where(here, new[:, None], inverse)
    whitened = jnp.where(here, (new @ outcomes)[:, None], whitened)
    return (inverse, whitened), None

  indices = position + jnp.arange(new.row_mask.size)
  start = history.inverse, history.whitened
  (inverse, whitened), _ = jax.lax.scan(append_row, start, indices)
  return InterventionHistory(rows, inverse, whitened)


def candidate_features(
  observations: Records,
  row_mask: jax.Array,
  history: InterventionHistory,
  points: jax.Array,
  partial: action_distribution.PartialIntervention,
  samples: jax.Array,
) -> tuple[jax.Array, jax.Array]:
  """Computes features of every candidate, given the partial intervention.

  A candidate extends the partial intervention by one variable at one point. The
  features are, in this order:

    averaged over all processes: the expected outcome; and, in standard
      deviations of the signal, how far it exceeds the best outcome so far, its
      standard deviation, and the expected improvement, followed by the
      logarithm of the latter;
    for each length scale: the expected improvement;
    for each kernel width: the log number of other rows nearby;
    for each kernel width: their mean outcome;
    for each kernel width: nearness times goodness of the best row that extends
      the candidate: 1 at the best row, less the further and the worse;
    the best outcome so far, the log standard deviation of the signal, and the
      probability that the observations count as interventions;
    of the completion of the candidate, see `_completions`: whether there is
    one; and averaged over all processes, as above, the expected outcome, how
    far it exceeds the best, its standard deviation and the logarithm of the
    expected improvement.

  Args:
    observations: rows without intervention.
    row_mask: [R] bool, rows of the history to use: the first ones.
    history: rows of interventions.
    points: [C] positions of the candidates.
    partial: partial intervention, its values as positions.
    samples: [] number of draws that each outcome averages.

  Returns:
    [D, C, NUM_FEATURES] features of each candidate and [NUM_FEATURES] features
    of the partial intervention as it is.
  """
  active = history.rows._replace(row_mask=row_mask)
  best = jnp.max(active.outcomes, where=row_mask, initial=0.0)
  history = history._replace(rows=active)
  posterior = _signal_posterior(history)
  deviations, weights = posterior.deviations, posterior.weights
  unit = weights @ deviations
  length_weights = weights.reshape(len(_LENGTHS), -1).sum(-1)

  def summarize(mean, variance):
    """Averages [G, K] predictions; also returns [G, K] improvements."""
    deviation = deviations[:, None] * jnp.sqrt(jnp.maximum(variance, 1e-6))
    above = (mean - best) / deviation
    density = jnp.exp(-0.5 * jnp.square(above)) / math.sqrt(2 * math.pi)
    improvement = deviation * (
      above * 0.5 * (1 + jax.lax.erf(above / math.sqrt(2))) + density
    )
    improvement = jnp.maximum(improvement, 0.0)
    expected = weights @ mean
    spread = weights @ (jnp.square(deviation) + jnp.square(mean - expected))
    mean_improvement = weights @ improvement / unit
    averages = (
      expected,
      (expected - best) / unit,
      jnp.sqrt(spread) / unit,
      mean_improvement,
      jnp.log(mean_improvement + _IMPROVEMENT_OFFSET),
    )
    return averages, improvement

  def completed_features(is_complete, averages):
    """Returns [5, K], the features of completions."""
    expected, above, spread, _, log_improvement = averages
    return jnp.stack(
      [
        is_complete.astype(above.dtype),
        expected,
        above,
        spread,
        log_improvement,
      ]
    )

  def features(predictions, sums, nearest_best, completed):
    """Returns [K, NUM_FEATURES], the features of K interventions."""
    averages, improvement = summarize(
      *_predict(history, posterior, *predictions)
    )
    by_length = (weights[:, None] * improvement).reshape(
      len(_LENGTHS), len(_NOISES), -1
    )
    weight, total = sums
    counts = weights @ posterior.trust
    shared = jnp.stack([best, jnp.log(unit), counts])[:, None]
    return jnp.concatenate(
      [
        jnp.stack(averages),
        by_length.sum(1) / (unit * (length_weights[:, None] + _WEIGHT_OFFSET)),
        jnp.log1p(weight),
        total / (weight + _WEIGHT_OFFSET),
        nearest_best,
        jnp.broadcast_to(shared, (3, improvement.shape[1])),
        # What is complete as it is is its own completion.
        completed_features(*(completed or (jnp.ones(1), averages))),
      ]
    ).T

  # Later rows may be far better than the best so far.
  goodness = jnp.exp(jnp.where(row_mask, active.outcomes - best, 0.0) / unit)
  is_complete, from_records, *of_completions = _completions(
    history, posterior, observations, points, partial, goodness, samples
  )
  passive = observations.rows
  # Computed separately, so that a caller that needs only one of them does not
  # pay for the other.
  of_candidates, of_partial = (
    features(*inputs)
    for inputs in zip(
      _covariances(observations, active, points, partial, from_records),
      jax.tree.map(jnp.add, _sums(passive, partial), _sums(active, partial)),
      _nearest_best(active, partial, goodness),
      ((is_complete, summarize(*of_completions)[0]), None),
      strict=True,
    )
  )
  of_candidates = of_candidates.reshape(-1, points.size, NUM_FEATURES)
  return of_candidates, of_partial[0]


class _Posterior(NamedTuple):
  """Posterior over the G processes.

  Attributes:
    deviations: [G] standard deviations of the signal.
    weights: [G] posterior probabilities.
    trust: [G] probability, given each process, that the observations count as
      interventions on all variables that may be set.
    solved: [2, G, R] inverse covariance times the outcomes: the mean over
      whether the observations count, and how much more it is where they do.
  """

  deviations: jax.Array
  weights: jax.Array
  trust: jax.Array
  solved: jax.Array


def _signal_posterior(history):
  """Returns the `_Posterior`.

  The standard deviation is the root of the expected variance under an inverse
  gamma distribution, whose prior has the mean `_VARIANCE` and counts for
  `_PRIOR_ROWS` rows. Before any evidence the observations count with a
  probability of one half.

  Args:
    history: rows of interventions.
  """
  row_mask = history.rows.row_mask
  number = _PRIOR_ROWS + row_mask.sum()
  whitened = jnp.where(row_mask[:, None], history.whitened, 0.0)
  squares = _PRIOR_ROWS * _VARIANCE + jnp.square(whitened).sum(-2)  # [G, 2]
  scales = jnp.diagonal(history.inverse, axis1=-2, axis2=-1)  # [G, R]
  determinant = jnp.log(jnp.where(row_mask, scales, 1.0)).sum(-1)
  evidence = determinant[:, None] - 0.5 * number * jnp.log(squares)
  joint = jnp.exp(jax.nn.log_softmax(evidence, (0, 1)))
  trust = jax.nn.softmax(evidence, -1)  # [G, 2]
  variance = (trust * squares).sum(-1) / number
  solved = jnp.swapaxes(history.inverse, -1, -2) @ whitened  # [G, R, 2]
  difference = solved[..., 1] - solved[..., 0]
  mean = solved[..., 0] + trust[:, 1:] * difference
  return _Posterior(
    jnp.sqrt(variance),
    joint.sum(-1),
    trust[:, 1],
    jnp.stack([mean, difference]),
  )


def _add_records(posterior, mean, difference, from_records):
  """Adds to predictions the mean that the processes vary around.

  It is what the observations let expect, if they count, and 0 if not.

  Args:
    posterior: the posterior of the processes.
    mean: [G, K] predictions of how far the outcome is from that mean.
    difference: [G, K] how much more they are where the observations count.
    from_records: [K] what the observations let expect.

  Returns:
    [G, K] expected outcomes, and [G, K] the part of the variance, over that of
    the signal, that comes from not knowing whether the observations count.
  """
  trust = posterior.trust[:, None]
  spread = trust * (1 - trust) * jnp.square(difference + from_records)
  return (
    mean + trust * from_records,
    spread / jnp.square(posterior.deviations)[:, None],
  )


def _covariances(observations, rows, points, partial, from_records):
  """Computes prior covariances of rows with candidates.

  A row belongs to at most one candidate variable: the one that extends the
  partial intervention to the variables of the row. Its covariances depend on
  the position of that variable alone.

  Args:
    observations: the observations.
    rows: R rows.
    points: [C] positions of the candidates.
    partial: partial intervention.
    from_records: [D, C] what the observations let expect of candidates that set
      all variables.

  Returns:
    Two triples, for the candidates and for the partial intervention as it is:
    covariances over the signal variance, [L, R, C] and [L, R, 1]; the variable,
    if any, whose candidates a row belongs to, [D, R] bool, or whether it
    belongs to the partial intervention, [1, R] bool; and what the observations
    let expect, [D C] and [1]. The covariances of a row that belongs to none are
    arbitrary.
  """
  given = _correlations(partial.mask, rows.fractions - partial.fractions)
  given = given[..., None]  # [L, R, 1]
  candidates, alone = _same_sets(rows, partial)
  candidates &= ~partial.mask[:, None]
  own = jnp.where(candidates, rows.fractions.T, 0.0).sum(0)  # [R]
  of_own = jnp.exp(-_half_squares(own[:, None] - points, _LENGTHS))
  more = partial.mask | jnp.eye(partial.mask.size, dtype=bool)
  is_whole = (more == observations.settable).all(-1)
  of_partial = row_features(
    jnp.ones(1, bool),
    jnp.zeros(1),
    partial.mask[None],
    partial.fractions[None],
    points,
    observations,
  ).from_records
  return (
    (
      given * of_own,
      candidates,
      jnp.where(is_whole[:, None], from_records, 0.0).flatten(),
    ),
    (given, alone[None], of_partial),
  )


def _completions(
  history, posterior, observations, points, partial, goodness, samples
):
  """Predicts the outcomes of candidates that the best row completes.

  The best of the rows that extend a candidate, by goodness times nearness to
  the partial intervention, gives the variables that the candidate lacks, and
  their values. A candidate that no row extends is taken as it is.

  Args:
    history: R rows.
    posterior: the posterior of the processes.
    observations: the observations.
    points: [C] positions of the candidates.
    partial: partial intervention.
    goodness: [R] goodness of the outcome of each row.
    samples: [] number of draws that each outcome averages.

  Returns:
    [D C] bool, whether a row extends the candidate; [D, C] what the
    observations let expect; [G, D C] means, and [G, D C] upper bounds of the
    variances, over that of the signal, from the closest row alone.
  """
  rows = history.rows
  nearness = _nearness_to_partial(rows, partial)[-1]
  extends = intervention_sets.contain(rows.intervened, partial.mask)
  scores = jnp.where(extends, nearness * goodness, 0.0)
  scores = jnp.where(rows.intervened.T, scores, 0.0)  # [D, R]
  is_complete = scores.max(-1) > 0  # [D]
  chosen = jnp.argmax(scores, -1)  # [D]
  own = jnp.eye(partial.mask.size, dtype=bool)
  sets = jnp.where(
    is_complete[:, None], rows.intervened[chosen], partial.mask | own
  )  # [D, D]
  values = jnp.where(partial.mask, partial.fractions, rows.fractions[chosen])
  others = sets & ~own

  def factors(fractions):
    """Returns [L, D, R] correlations with the values of the others."""
    return _correlations(others[:, None], fractions - values[:, None])

  same = (rows.intervened == sets[:, None]).all(-1) & rows.row_mask
  same &= is_complete[:, None]  # [D, R]
  factor = (factors(rows.fractions) * same)[..., None, :]  # [L, D, 1, R]
  solved = posterior.solved.reshape(2, len(_LENGTHS), 1, len(_NOISES), -1)
  # The products share their last factor, also with predictions after other
  # rows: few large products instead of many small ones.
  mean, difference = jnp.swapaxes(
    (solved * factor) @ rows.correlation, 2, 3
  ).reshape(2, NUM_PROCESSES, -1)
  closest = (jnp.swapaxes(factor, -1, -2) * rows.correlation).max(-2)
  closest = jnp.square(closest).reshape(len(_LENGTHS), -1)
  noise = _noise_levels(samples)[:, None]
  variance = 1 - _repeat_lengths(closest) / (1 + noise)

  weighted = factors(observations.rows.fractions)
  weighted *= observations.coefficients[:, None]  # [L, D, N]
  from_records = (weighted[..., None, :] @ observations.rows.correlation).sum(
    (0, 2)
  )  # [D, C]
  is_whole = (sets == observations.settable).all(-1)
  from_records = jnp.where(is_whole[:, None], from_records, 0.0)
  mean, spread = _add_records(
    posterior, mean, difference, from_records.flatten()
  )
  is_complete = jnp.repeat(is_complete, points.size)
  return is_complete, from_records, mean, variance + spread


def _predict(history, posterior, covariance, belongs, from_records):
  """Computes the prediction of each process at M K interventions.

  Args:
    history: R rows; rows of different sets of variables are independent.
    posterior: the posterior of the processes.
    covariance: [L, R, K] covariance of each row with the K interventions that
      it belongs to.
    belongs: [M, R] bool, the group of K interventions that each row belongs to.
    from_records: [M K] what the observations let expect.

  Returns:
    [G, M K] means and [G, M K] variances over that of the signal.
  """
  number = belongs.shape[-1]
  inverse = history.inverse.reshape(len(_LENGTHS), -1, number)
  projected = (inverse @ covariance).reshape(NUM_PROCESSES, number, -1)
  belongs = (belongs & history.rows.row_mask).astype(projected.dtype)
  variance = 1 - belongs @ jnp.square(projected)  # [G, M, K]
  solved = posterior.solved.reshape(2, len(_LENGTHS), len(_NOISES), 1, -1)
  each = (solved * belongs).swapaxes(0, 1)  # [L, 2, noises, M, R]
  mean, difference = (
    (each.reshape(len(_LENGTHS), -1, number) @ covariance)
    .reshape(len(_LENGTHS), 2, -1)
    .swapaxes(0, 1)
    .reshape(2, NUM_PROCESSES, -1)
  )  # [2, G, M K]
  mean, spread = _add_records(posterior, mean, difference, from_records)
  return mean, variance.reshape(mean.shape) + spread


def _nearness_to_partial(rows, partial):
  """Computes the nearness of rows to the partial intervention: [B, R].

  It is 0 for rows that are masked.
  """
  closeness = _nearness(rows.fractions - partial.fractions)  # [B, R, D]
  factors = jnp.where(partial.mask, closeness, 1.0)
  # Factor by factor, as in `intervention_sets.contain`.
  product = functools.reduce(jnp.multiply, jnp.unstack(factors, axis=-1))
  return product * rows.row_mask


def _sums(rows, partial):
  """Sums weights and weighted outcomes over rows of other sets of variables.

  Args:
    rows: R rows.
    partial: partial intervention.

  Returns:
    [2, B, D C] sums near each candidate and [2, B, 1] sums near the partial
    intervention.
  """
  nearness = _nearness_to_partial(rows, partial)
  candidates, alone = _same_sets(rows, partial)
  both = jnp.stack([nearness, nearness * rows.outcomes])  # [2, B, R]
  each = (both[:, :, None] * ~candidates)[..., None, :] @ rows.nearness
  alone = (both * ~alone).sum(-1, keepdims=True)
  return each.reshape(*alone.shape[:-1], -1), alone


def _nearest_best(rows, partial, goodness):
  """Computes the largest goodness times nearness of rows that set more.

  Args:
    rows: R rows.
    partial: partial intervention.
    goodness: [R] goodness of the outcome of each row.

  Returns:
    [B, D C] maxima for the candidates and [B, 1] maxima for the partial
    intervention.
  """
  nearness = _nearness_to_partial(rows, partial)
  extends = intervention_sets.contain(rows.intervened, partial.mask)
  nearness = nearness * goodness * extends
  each = nearness[:, None, :, None] * rows.nearness
  each = jnp.where(rows.intervened.T[:, :, None], each, 0.0).max(-2)
  return each.reshape(len(_WIDTHS), -1), nearness.max(-1, keepdims=True)


def _same_sets(rows, partial):
  """Compares the variables that rows and candidates intervene on.

  Returns:
    [D, R] bool, True where a row intervenes on the partial intervention's
    variables and this one; [R] bool, True where on the former alone.
  """
  more = partial.mask | jnp.eye(partial.mask.size, dtype=bool)
  candidates = (rows.intervened == more[:, None]).all(-1)
  return candidates, (rows.intervened == partial.mask).all(-1)


def _noise_levels(samples):
  """Returns the variance of the noise over that of the signal: [G]."""
  noise = jnp.tile(jnp.array(_NOISES), len(_LENGTHS))
  return jnp.maximum(noise / samples, _MIN_NOISE)


def _repeat_lengths(array):
  """Repeats entries of length scales for processes: [L, ...] -> [G, ...]."""
  return jnp.repeat(array, len(_NOISES), axis=0)


def _correlations(mask, differences):
  """Computes correlations over some variables: [..., D] -> [L, ...]."""
  squares = jnp.where(mask, jnp.square(differences), 0.0).sum(-1)
  return jnp.stack([jnp.exp(-0.5 / length**2 * squares) for length in _LENGTHS])


def _half_squares(distance, lengths):
  return jnp.stack([0.5 * jnp.square(distance / length) for length in lengths])


def _nearness(distance):
  """Computes kernel weights, 1 at distance 0: [...] -> [B, ...]."""
  return 1 / jnp.square(1 + 2 * _half_squares(distance, _WIDTHS))
