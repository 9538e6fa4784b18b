"""What scores on held-out SCMs say, with intervals.

A table of results is a DataFrame with one row per (policy, task) and the
columns `policy`, `task`, `family`, `graph`, `variables` and `SCORES`.
The independent unit is the task: all policies met the same ones.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
import scipy.stats

# Score of the first choice, the mean over all choices, that of the best one and
# of the last one.
SCORES = ('score_first', 'score_mean', 'score_best', 'score_last')
# What `parent_set_quality` tells of a belief.
QUALITIES = ('f1', 'auroc', 'ece')

_RESAMPLES = 4000
# Bounds the memory of the resampling.
_BATCH = 200
# Equal parts of [0, 1] over which probabilities and frequencies are compared.
_BINS = 10
# Fewer tasks than this say nothing.
_MIN_TASKS = 5


def interquartile_mean(values: np.ndarray, axis: int = -1) -> np.ndarray:
  """Mean of the middle half (Agarwal et al., 2021), along an axis."""
  return scipy.stats.trim_mean(values, 0.25, axis=axis)


def bootstrap_interval(
  values: np.ndarray, confidence: float, statistic: Any = np.mean
) -> tuple[np.ndarray, np.ndarray]:
  """Percentile bootstrap interval over the last axis.

  Args:
    values: [..., n] values of n independent units, n >= 5, finite.
    confidence: as 0.99.
    statistic: function with an argument `axis`.

  Returns:
    [...] lower and upper bounds.

  Raises:
    ValueError: fewer than 5 units, or a value that is not finite.
  """
  if values.shape[-1] < _MIN_TASKS:
    raise ValueError(
      f'{values.shape[-1]} tasks are too few for an interval; '
      f'{_MIN_TASKS} are the least'
    )
  if not np.isfinite(values).all():
    raise ValueError('a value is not finite; an interval needs finite ones')
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
  """Means and interquartile means of quantities, with bootstrap intervals.

  Args:
    values: [K, n] of K quantities on n independent units, finite.
    confidence: of the intervals.

  Returns:
    For each, `{'mean', 'interval', 'iqm', 'iqm_interval'}`. Fewer than 5 units
    have None for an interval, and `no_interval` says why.
  """
  interval, iqm_interval = [None] * len(values), [None] * len(values)
  why: dict[str, str] = {}
  if few := too_few(values.shape[1]):
    why['no_interval'] = few
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
      **why,
    }
    for k in range(len(values))
  ]


def too_few(num_units: int) -> str:
  """Why so few units have no interval; empty where they have one."""
  if num_units >= _MIN_TASKS:
    return ''
  return (
    f'{num_units} repeat{"" if num_units == 1 else "s"}; an interval needs '
    f'{_MIN_TASKS}'
  )


def stratified_band(
  strata: Sequence[np.ndarray], confidence: float
) -> tuple[np.ndarray, np.ndarray] | None:
  """Percentile bootstrap intervals of means over strata.

  Units are drawn again within their strata (Agarwal et al., 2021, section 4.1),
  so that the interval says what other repeats on the same SCMs would give, not
  what other SCMs would.

  Args:
    strata: [n, T] values of T quantities, of each stratum, as the repeats on
      one SCM; finite.
    confidence: as 0.95.

  Returns:
    [T] lower and upper bounds; None where a stratum has fewer than 5 units.

  Raises:
    ValueError: a value is not finite.
  """
  drawn = _drawn_again(strata)
  if drawn is None:
    return None
  # One stratum after the other: all of them together may not fit in memory.
  sums = np.add.reduce([stratum.sum(1) for stratum in drawn])
  return _percentiles(sums / sum(map(len, strata)), confidence)


def stratified_estimate(
  strata: Sequence[np.ndarray], confidence: float
) -> dict[str, Any]:
  """Mean and interquartile mean over strata, with stratified intervals.

  Args:
    strata: [n] values of each stratum, finite.
    confidence: of the intervals, see `stratified_band`.

  Returns:
    As an entry of `estimates`.

  Raises:
    ValueError: a value is not finite.
  """
  values = np.concatenate(strata)
  drawn = _drawn_again(strata)
  why: dict[str, str] = {}
  interval = iqm_interval = None
  if drawn is None:
    why['no_interval'] = too_few(min(map(len, strata)))
  else:
    units = np.concatenate([*drawn], axis=1)
    interval, iqm_interval = (
      [float(end) for end in _percentiles(means, confidence)]
      for means in (units.mean(1), interquartile_mean(units, axis=1))
    )
  return {
    'mean': float(values.mean()),
    'interval': interval,
    'iqm': float(interquartile_mean(values)),
    'iqm_interval': iqm_interval,
    **why,
  }


def student_band(
  values: np.ndarray, confidence: float
) -> tuple[np.ndarray, np.ndarray] | None:
  """Student's intervals of means, for units too few to be drawn again.

  Args:
    values: [n, T] of T quantities of each unit, finite.
    confidence: as 0.95.

  Returns:
    [T] lower and upper bounds; None of fewer than 5 units.
  """
  n = len(values)
  if n < _MIN_TASKS:
    return None
  error = values.std(0, ddof=1) / np.sqrt(n)
  margin = scipy.stats.t.ppf((1 + confidence) / 2, n - 1) * error
  return values.mean(0) - margin, values.mean(0) + margin


def crossed_estimate(values: np.ndarray, confidence: float) -> dict[str, Any]:
  """Mean and interquartile mean of units that each have met every SCM.

  A unit is good or bad on all SCMs at once: whole ones are drawn again for the
  interval of the interquartile mean of all values, percentile bootstrap; that
  of the mean is Student's of the means of units.

  Args:
    values: [n, S] of n units on S SCMs, finite.
    confidence: of the intervals.

  Returns:
    As an entry of `estimates`.
  """
  band = student_band(values.mean(1, keepdims=True), confidence)
  why: dict[str, str] = {}
  interval = iqm_interval = None
  if band is None:
    why['no_interval'] = too_few(len(values))
  else:
    interval = [float(end[0]) for end in band]
    rng = np.random.default_rng(0)
    drawn = values[rng.integers(len(values), size=(_RESAMPLES, len(values)))]
    means = interquartile_mean(drawn.reshape(_RESAMPLES, -1))
    iqm_interval = [float(end) for end in _percentiles(means, confidence)]
  return {
    'mean': float(values.mean()),
    'interval': interval,
    'iqm': float(interquartile_mean(values.ravel())),
    'iqm_interval': iqm_interval,
    **why,
  }


def _drawn_again(
  strata: Sequence[np.ndarray],
) -> Iterator[np.ndarray] | None:
  """Units drawn again within each stratum: [resamples, n, ...] of each."""
  if not all(np.isfinite(stratum).all() for stratum in strata):
    raise ValueError('a value is not finite; an interval needs finite ones')
  if min(map(len, strata)) < _MIN_TASKS:
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
  """One-sided bound on a mean, by Student's t.

  Args:
    values: [n] of n independent units, n >= 5, finite and not all the same.
    confidence: as 0.99.

  Returns:
    The mean is above it with that confidence.

  Raises:
    ValueError: fewer than 5 units, one that is not finite, or no variance.
  """
  if len(values) < _MIN_TASKS:
    raise ValueError(f'{len(values)} values; a bound needs {_MIN_TASKS}')
  error = np.std(values, ddof=1) / np.sqrt(len(values))
  if not np.isfinite(error) or not error:
    raise ValueError(f'no bound on the mean of {values}: its error is {error}')
  quantile = scipy.stats.t.ppf(confidence, len(values) - 1)
  return float(np.mean(values) - quantile * error)


def summarise(results: pd.DataFrame, confidence: float) -> dict[str, Any]:
  """Scores of every policy, overall and by group.

  Groups with fewer than 5 tasks are left out of `by_family` and
  `by_variables`; the number of tasks stands in each entry.

  Args:
    results: one row per (policy, task).
    confidence: of the intervals.

  Returns:
    `{policy: {'score_last': {'mean', 'interval', 'iqm', 'iqm_interval'}, ...,
    'num_tasks', 'by_family': {family: {...}}, 'by_variables': {...}}}`. Beside
    the families stands `nonlinear`: all but `linear`, where they are known.
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
  """How far a policy is above each other one, task by task.

  Args:
    results: one row per (policy, task).
    policy: the one that the others are subtracted from.
    confidence: of the intervals.

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
  """How well a belief tells the parents of the target from the rest.

  Args:
    probability: [M, D] of being a parent, for M tasks.
    truth: [M, D] bool.
    candidates: [M, D] bool, the variables that count.

  Returns:
    `f1` of the set of probability over one half, `auroc`, and `ece`, the
    expected calibration error (Guo et al., 2017, equation 3, with the
    probability in place of the confidence), over all variables of all tasks.

  Raises:
    ValueError: all of the candidates are parents, or none is.
  """
  score, label = probability[candidates], truth[candidates]
  chosen = score > 0.5
  hits = (chosen & label).sum()
  ranks = scipy.stats.rankdata(score)
  positive, negative = label.sum(), (~label).sum()
  if not positive or not negative:
    raise ValueError('parents and others are both needed for a comparison')
  above = ranks[label].sum() - positive * (positive + 1) / 2
  bin_of = np.minimum((score * _BINS).astype(int), _BINS - 1)
  gap = np.bincount(bin_of, score - label, minlength=_BINS)
  return {
    'f1': float(2 * hits / (chosen.sum() + positive)),
    'auroc': float(above / (positive * negative)),
    'ece': float(np.abs(gap).sum() / label.size),
  }


def by_step(quality: pd.DataFrame) -> dict[str, Any]:
  """Quality of beliefs as lists over the steps of an episode.

  Args:
    quality: a row per (`belief`, `group`, step) in the order of the steps, with
      the columns `QUALITIES`.

  Returns:
    `{belief: {group: {'f1': [T + 1], 'auroc': [T + 1], 'ece': [T + 1]}}}`.
  """
  found: dict[str, Any] = {}
  for (belief, group), rows in quality.groupby(['belief', 'group'], sort=False):
    found.setdefault(str(belief), {})[str(group)] = {
      name: rows[name].tolist() for name in QUALITIES
    }
  return found


def _by_group(groups, confidence):
  return {
    key: _scores(rows, confidence)
    for key, rows in groups.items()
    if len(rows) >= _MIN_TASKS
  }


def _scores(rows, confidence):
  values = rows[list(SCORES)].to_numpy(float).T
  low, high = bootstrap_interval(values, confidence)
  middle = interquartile_mean(values)
  middle_low, middle_high = bootstrap_interval(
    values, confidence, interquartile_mean
  )
  scores: dict[str, Any] = {
    score: {
      'mean': float(values[i].mean()),
      'interval': [float(low[i]), float(high[i])],
      'iqm': float(middle[i]),
      'iqm_interval': [float(middle_low[i]), float(middle_high[i])],
    }
    for i, score in enumerate(SCORES)
  }
  return scores | {'num_tasks': len(rows)}
