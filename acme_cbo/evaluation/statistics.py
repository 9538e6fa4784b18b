"""Statistics of scores: means, intervals, paired differences, belief quality.

A table of results is a DataFrame with one row per (policy, task) and the
columns `policy`, `task`, `family`, `graph`, `variables` and `SCORES`.
The independent unit is the task: all policies are scored on the same tasks.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
import scipy.stats

# Scores of the first, the mean, the best and the last intervention.
SCORES = ('score_first', 'score_mean', 'score_best', 'score_last')
# Keys of `parent_set_quality`.
QUALITIES = ('f1', 'auroc', 'ece')

_RESAMPLES = 4000
# Resamples per batch, which bounds the memory of the bootstrap.
_BATCH = 200
# Number of equal bins of [0, 1] in the expected calibration error.
_BINS = 10
# Least number of independent units for an interval.
_MIN_UNITS = 5


def interquartile_mean(values: np.ndarray, axis: int = -1) -> np.ndarray:
  """Computes the mean of the middle half (Agarwal et al., 2021)."""
  return scipy.stats.trim_mean(values, 0.25, axis=axis)


def bootstrap_interval(
  values: np.ndarray, confidence: float, statistic: Any = np.mean
) -> tuple[np.ndarray, np.ndarray]:
  """Computes a percentile bootstrap interval over the last axis.

  Args:
    values: [..., n] values of n independent units, n >= 5, finite.
    confidence: confidence level, such as 0.99.
    statistic: function of an array with an argument `axis`.

  Returns:
    [...] lower and upper bounds.

  Raises:
    ValueError: fewer than 5 units, or a value that is not finite.
  """
  if values.shape[-1] < _MIN_UNITS:
    raise ValueError(
      f'{values.shape[-1]} tasks are too few for an interval; it needs '
      f'{_MIN_UNITS} or more'
    )
  if not np.isfinite(values).all():
    raise ValueError('a value is not finite; an interval needs finite values')
  interval = scipy.stats.bootstrap(
    (values,),
    statistic,
    axis=-1,
    n_resamples=_RESAMPLES,
    batch=_BATCH,
    confidence_level=confidence,
    method='percentile',
    rng=np.random.default_rng(0),
  ).confidence_interval
  return interval.low, interval.high


def estimates(values: np.ndarray, confidence: float) -> list[dict[str, Any]]:
  """Computes means and interquartile means with bootstrap intervals.

  Args:
    values: [K, n] values of K quantities on n independent units, finite.
    confidence: confidence level of the intervals.

  Returns:
    `{'mean', 'interval', 'iqm', 'iqm_interval'}` for each quantity. With fewer
    than 5 units the intervals are None and `no_interval` gives the reason.
  """
  interval, iqm_interval = [None] * len(values), [None] * len(values)
  missing: dict[str, str] = {}
  if reason := no_interval_reason(values.shape[1]):
    missing['no_interval'] = reason
  else:
    interval, iqm_interval = (
      np.stack(bootstrap_interval(values, confidence, f), -1).tolist()
      for f in (np.mean, interquartile_mean)
    )
  iqm = interquartile_mean(values)
  return [
    {
      'mean': float(values[k].mean()),
      'interval': interval[k],
      'iqm': float(iqm[k]),
      'iqm_interval': iqm_interval[k],
      **missing,
    }
    for k in range(len(values))
  ]


def no_interval_reason(num_units: int) -> str:
  """Returns why there is no interval; empty for 5 or more units."""
  if num_units >= _MIN_UNITS:
    return ''
  return (
    f'{num_units} repeat{"" if num_units == 1 else "s"}; an interval needs '
    f'{_MIN_UNITS}'
  )


def stratified_band(
  strata: Sequence[np.ndarray], confidence: float
) -> tuple[np.ndarray, np.ndarray] | None:
  """Computes percentile bootstrap intervals of means over strata.

  Units are resampled within their strata (Agarwal et al., 2021, section 4.1).
  The intervals therefore cover the variation between repeats on the same SCMs,
  not the variation between SCMs.

  Args:
    strata: [n, T] values of T quantities for each stratum, such as the repeats
      on one SCM; finite.
    confidence: confidence level, such as 0.95.

  Returns:
    [T] lower and upper bounds; None if a stratum has fewer than 5 units.

  Raises:
    ValueError: a value is not finite.
  """
  resamples = _resample(strata)
  if resamples is None:
    return None
  # One stratum at a time, since all of them may not fit in memory.
  sums = np.add.reduce([stratum.sum(1) for stratum in resamples])
  return _percentiles(sums / sum(map(len, strata)), confidence)


def stratified_estimate(
  strata: Sequence[np.ndarray], confidence: float
) -> dict[str, Any]:
  """Computes mean and interquartile mean over strata, with intervals.

  Args:
    strata: [n] values of each stratum, finite.
    confidence: confidence level of the intervals, see `stratified_band`.

  Returns:
    A dict like the entries of `estimates`.

  Raises:
    ValueError: a value is not finite.
  """
  values = np.concatenate(strata)
  resamples = _resample(strata)
  missing: dict[str, str] = {}
  interval = iqm_interval = None
  if resamples is None:
    missing['no_interval'] = no_interval_reason(min(map(len, strata)))
  else:
    units = np.concatenate([*resamples], axis=1)
    interval, iqm_interval = (
      [float(end) for end in _percentiles(means, confidence)]
      for means in (units.mean(1), interquartile_mean(units, axis=1))
    )
  return {
    'mean': float(values.mean()),
    'interval': interval,
    'iqm': float(interquartile_mean(values)),
    'iqm_interval': iqm_interval,
    **missing,
  }


def student_band(
  values: np.ndarray, confidence: float
) -> tuple[np.ndarray, np.ndarray] | None:
  """Computes Student's t intervals of means, for few units.

  Args:
    values: [n, T] values of T quantities for each of n units, finite.
    confidence: confidence level, such as 0.95.

  Returns:
    [T] lower and upper bounds; None for fewer than 5 units.
  """
  n = len(values)
  if n < _MIN_UNITS:
    return None
  error = values.std(0, ddof=1) / np.sqrt(n)
  margin = scipy.stats.t.ppf((1 + confidence) / 2, n - 1) * error
  return values.mean(0) - margin, values.mean(0) + margin


def crossed_estimate(values: np.ndarray, confidence: float) -> dict[str, Any]:
  """Computes mean and interquartile mean of units crossed with SCMs.

  The values of a unit on different SCMs are correlated. The interval of the
  mean is therefore Student's interval of the means of units, and that of the
  interquartile mean of all values is a percentile bootstrap over whole units.

  Args:
    values: [n, S] values of n units on S SCMs, finite.
    confidence: confidence level of the intervals.

  Returns:
    A dict like the entries of `estimates`.
  """
  band = student_band(values.mean(1, keepdims=True), confidence)
  missing: dict[str, str] = {}
  interval = iqm_interval = None
  if band is None:
    missing['no_interval'] = no_interval_reason(len(values))
  else:
    interval = [float(end[0]) for end in band]
    rng = np.random.default_rng(0)
    resamples = values[
      rng.integers(len(values), size=(_RESAMPLES, len(values)))
    ]
    means = interquartile_mean(resamples.reshape(_RESAMPLES, -1))
    iqm_interval = [float(end) for end in _percentiles(means, confidence)]
  return {
    'mean': float(values.mean()),
    'interval': interval,
    'iqm': float(interquartile_mean(values.ravel())),
    'iqm_interval': iqm_interval,
    **missing,
  }


def _resample(
  strata: Sequence[np.ndarray],
) -> Iterator[np.ndarray] | None:
  """Resamples the units within each stratum, with replacement.

  Args:
    strata: [n, ...] values of each stratum.

  Returns:
    An iterator of [resamples, n, ...] for each stratum; None if a stratum has
    fewer than 5 units.

  Raises:
    ValueError: a value is not finite.
  """
  if not all(np.isfinite(stratum).all() for stratum in strata):
    raise ValueError('a value is not finite; an interval needs finite values')
  if min(map(len, strata)) < _MIN_UNITS:
    return None
  rng = np.random.default_rng(0)
  return (
    stratum[rng.integers(len(stratum), size=(_RESAMPLES, len(stratum)))]
    for stratum in strata
  )


def _percentiles(
  means: np.ndarray, confidence: float
) -> tuple[np.ndarray, np.ndarray]:
  tails = [(1 - confidence) / 2, (1 + confidence) / 2]
  low, high = np.quantile(means, tails, axis=0)
  return low, high


def lower_bound(values: np.ndarray, confidence: float) -> float:
  """Computes a one-sided lower confidence bound on a mean, by Student's t.

  Args:
    values: [n] values of n independent units, n >= 5, finite and not all the
      same.
    confidence: confidence level, such as 0.99.

  Returns:
    The lower bound.

  Raises:
    ValueError: fewer than 5 units, a value that is not finite, or no variance.
  """
  if len(values) < _MIN_UNITS:
    raise ValueError(f'{len(values)} values; a bound needs {_MIN_UNITS}')
  error = np.std(values, ddof=1) / np.sqrt(len(values))
  if not np.isfinite(error) or not error:
    raise ValueError(f'no bound on the mean of {values}: its error is {error}')
  quantile = scipy.stats.t.ppf(confidence, len(values) - 1)
  return float(np.mean(values) - quantile * error)


def lower_bound_of_difference(
  values: np.ndarray, others: np.ndarray, confidence: float
) -> float:
  """Computes a one-sided lower confidence bound on a difference of means.

  It is Welch's: the samples are independent and may differ in variance.

  Args:
    values: [n] values of n independent units, n >= 5, finite and not all the
      same.
    others: [m] values whose mean is subtracted, as `values`.
    confidence: confidence level, such as 0.99.

  Returns:
    The lower bound of the mean of `values` minus the mean of `others`.

  Raises:
    ValueError: fewer than 5 units in a sample, a value that is not finite, or
      no variance.
  """
  for sample in (values, others):
    lower_bound(sample, confidence)  # Raises at the same faults.
  test = scipy.stats.ttest_ind(
    values, others, equal_var=False, alternative='greater'
  )
  return float(test.confidence_interval(confidence).low)


def summarize(results: pd.DataFrame, confidence: float) -> dict[str, Any]:
  """Computes the scores of every policy, overall and by group.

  Groups with fewer than 5 tasks are left out of `by_family` and
  `by_variables`.

  Args:
    results: table with one row per (policy, task).
    confidence: confidence level of the intervals.

  Returns:
    `{policy: {'score_last': {'mean', 'interval', 'iqm', 'iqm_interval'}, ...,
    'num_tasks', 'by_family': {family: {...}}, 'by_variables': {...}}}`. The
    families include `nonlinear`, which pools all known ones but `linear`.
  """
  summary = {}
  for policy, rows in results.groupby('policy', sort=False):
    families = {str(key): part for key, part in rows.groupby('family')}
    nonlinear = rows[~rows['family'].isin(['linear', 'simulator'])]
    if len(nonlinear):
      families['nonlinear'] = nonlinear
    sizes = {str(key): part for key, part in rows.groupby('variables')}
    summary[str(policy)] = {
      **_scores(rows, confidence),
      'by_family': _by_group(families, confidence),
      'by_variables': _by_group(sizes, confidence),
    }
  return summary


def paired_differences(
  results: pd.DataFrame, policy: str, confidence: float
) -> dict[str, Any]:
  """Computes paired score differences between a policy and each other one.

  Args:
    results: table with one row per (policy, task).
    policy: name of the policy that the others are subtracted from.
    confidence: confidence level of the intervals.

  Returns:
    `{other: {score: {'mean', 'interval'}}}`.
  """
  wide = results.pivot(index='task', columns='policy', values=list(SCORES))
  others = [name for name in results['policy'].unique() if name != policy]
  differences = {}
  for other in others:
    values = np.stack(
      [
        (wide[score][policy] - wide[score][other]).to_numpy()
        for score in SCORES
      ]
    )
    low, high = bootstrap_interval(values, confidence)
    differences[str(other)] = {
      score: {
        'mean': float(values[i].mean()),
        'interval': [float(low[i]), float(high[i])],
      }
      for i, score in enumerate(SCORES)
    }
  return differences


def parent_set_quality(
  probability: np.ndarray, truth: np.ndarray, candidates: np.ndarray
) -> dict[str, float]:
  """Computes how well a belief separates parents of the target from the rest.

  Args:
    probability: [M, D] probability of being a parent, for M tasks.
    truth: [M, D] bool, whether each variable is a parent.
    candidates: [M, D] bool, whether each variable is counted.

  Returns:
    `f1` of the set of variables with a probability above one half, `auroc`, and
    `ece`, the expected calibration error (Guo et al., 2017, equation 3, with
    the probability in place of the confidence), over all candidates of all
    tasks.

  Raises:
    ValueError: all candidates are parents, or none is.
  """
  score, label = probability[candidates], truth[candidates]
  chosen = score > 0.5
  hits = (chosen & label).sum()
  positive = label.sum()
  if not positive or label.all():
    raise ValueError(
      'the quality of a belief needs parents and others among the candidates'
    )
  bin_of = np.minimum((score * _BINS).astype(int), _BINS - 1)
  gap = np.bincount(bin_of, score - label, minlength=_BINS)
  return {
    'f1': float(2 * hits / (chosen.sum() + positive)),
    'auroc': auroc(score, label),
    'ece': float(np.abs(gap).sum() / label.size),
  }


def auroc(score: np.ndarray, label: np.ndarray) -> float:
  """Computes the area under the ROC curve.

  Args:
    score: [n] scores.
    label: [n] bool, both values of which occur.

  Returns:
    The probability that a score with the label is above one without, plus half
    the probability that they are equal.
  """
  ranks = scipy.stats.rankdata(score)
  positive, negative = label.sum(), (~label).sum()
  above = ranks[label].sum() - positive * (positive + 1) / 2
  return float(above / (positive * negative))


def by_step(quality: pd.DataFrame) -> dict[str, Any]:
  """Returns the quality of beliefs as lists over the steps of an episode.

  Args:
    quality: table with a row per (`belief`, `group`, step), sorted by step, and
      the columns `QUALITIES`.

  Returns:
    `{belief: {group: {'f1': [T + 1], 'auroc': [T + 1], 'ece': [T + 1]}}}`.
  """
  result: dict[str, Any] = {}
  for (belief, group), rows in quality.groupby(['belief', 'group'], sort=False):
    result.setdefault(str(belief), {})[str(group)] = {
      name: rows[name].tolist() for name in QUALITIES
    }
  return result


def _by_group(groups, confidence):
  return {
    key: _scores(rows, confidence)
    for key, rows in groups.items()
    if len(rows) >= _MIN_UNITS
  }


def _scores(rows, confidence):
  values = rows[list(SCORES)].to_numpy(float).T
  low, high = bootstrap_interval(values, confidence)
  iqm = interquartile_mean(values)
  iqm_low, iqm_high = bootstrap_interval(values, confidence, interquartile_mean)
  scores: dict[str, Any] = {
    score: {
      'mean': float(values[i].mean()),
      'interval': [float(low[i]), float(high[i])],
      'iqm': float(iqm[i]),
      'iqm_interval': [float(iqm_low[i]), float(iqm_high[i])],
    }
    for i, score in enumerate(SCORES)
  }
  return scores | {'num_tasks': len(rows)}
