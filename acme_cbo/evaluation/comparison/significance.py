"""Statistical comparison of several models on a common measure.

A sample holds the values of one model on n independent units. The units are
episodes, if all models were evaluated on the same ones (paired samples), or
training seeds, if several were trained per configuration (independent samples).

Higher is better. A difference is one of means, its interval is Student's, and
its p-values are two-sided. A model is called better than another one if their
means differ significantly after Holm's correction over all pairs; tests of
ranks and effect sizes are reported beside that.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import functools
import itertools
from typing import Any

import numpy as np
import scipy.optimize
import scipy.stats
from statsmodels.stats import oneway

# No test is made with fewer units per model.
MIN_UNITS = 5
# Probability of detecting the smallest detectable difference.
POWER = 0.8
# Relative differences up to this size are attributed to rounding.
_ROUNDING = 1e-12
# Shapiro and Wilk's p-value is not accurate for larger samples.
_MAX_SHAPIRO_UNITS = 5000


class NoVarianceError(ValueError):
  """Raised if no difference can be tested, because none of them varies."""


@dataclasses.dataclass(frozen=True)
class Test:
  """Result of a statistical test.

  Attributes:
    name: name of the test.
    statistic: t, F, W or χ².
    df: degrees of freedom; empty if the test has none.
    p: two-sided p-value.
  """

  name: str
  statistic: float
  df: tuple[float, ...]
  p: float


@dataclasses.dataclass(frozen=True)
class Pair:
  """Comparison of two models.

  Attributes:
    difference: mean of the first model minus mean of the second.
    interval: confidence interval of the difference.
    test: test of the means: Student's for pairs, Welch's for independent
      samples.
    ranks: test of ranks: Wilcoxon's for pairs, Mann and Whitney's for
      independent samples.
    p_holm: p-value of `test`, corrected for all pairs of models.
    g: Hedges' g, the difference in standard deviations.
    g_interval: confidence interval of `g`.
    improvement: probability that the first model is above the second; ties
      count half.
    detectable: smallest difference that is detected with probability `POWER` if
      all pairs are corrected for by Bonferroni (Holm's correction is at least
      as powerful).
    decided: whether the first model is significantly better, by `p_holm`.
    untested: why there is no test; empty if there is one.
  """

  difference: float
  interval: tuple[float, float]
  test: Test
  ranks: Test
  p_holm: float
  g: float
  g_interval: tuple[float, float]
  improvement: float
  detectable: float
  decided: bool
  untested: str = ''


_NO_TEST = Test('', 0.0, (), 1.0)
# Comparison of samples that are equal on every unit.
_IDENTICAL = Pair(
  difference=0.0,
  interval=(0.0, 0.0),
  test=_NO_TEST,
  ranks=_NO_TEST,
  p_holm=1.0,
  g=0.0,
  g_interval=(0.0, 0.0),
  improvement=0.5,
  detectable=0.0,
  decided=False,
)


@dataclasses.dataclass(frozen=True)
class Comparison:
  """Comparison of several models.

  Attributes:
    paired: whether all samples have the same units.
    units: number of units of each model.
    ranking: names of the models, highest mean first.
    groups: maximal runs of the ranking within which no two models differ
      significantly; a single group of all models if there are too few units.
    pairs: {(first, second): `Pair`}, where the first model has the higher mean;
      empty if there are too few units.
    omnibus: test of all models at once; None for two models, with too few
      units, or if the test is undefined.
    assumptions: {assumption of the tests of means: test of the assumption}.
  """

  paired: bool
  units: dict[str, int]
  ranking: tuple[str, ...]
  groups: tuple[tuple[str, ...], ...]
  pairs: dict[tuple[str, str], Pair]
  omnibus: Test | None
  assumptions: dict[str, Test]


def compare(
  samples: Mapping[str, np.ndarray], paired: bool, confidence: float
) -> Comparison:
  """Compares every model with every other model.

  Args:
    samples: {model: [n] values}, higher is better; n may differ between models
      if they are not paired.
    paired: whether the i-th values of all samples belong to the same unit.
    confidence: confidence level of the intervals; a pair is decided if its
      corrected p-value is below 1 - confidence.

  Returns:
    The `Comparison`. Nothing is tested if a model has fewer than `MIN_UNITS`
    units.

  Raises:
    NoVarianceError: no difference varies over the units, and at least one is
      not 0.
    ValueError: there are fewer than two models, a value is not finite, or
      paired samples differ in length.
  """
  _check(samples, paired)
  samples = {name: _remove_rounding(x) for name, x in samples.items()}
  ranking = tuple(sorted(samples, key=lambda name: -samples[name].mean()))
  units = {name: len(sample) for name, sample in samples.items()}
  if min(units.values()) < MIN_UNITS:
    return Comparison(paired, units, ranking, (ranking,), {}, None, {})

  keys = [*itertools.combinations(ranking, 2)]
  uncorrected = {
    (first, second): _compare_pair(
      samples[first], samples[second], paired, confidence, len(keys)
    )
    for first, second in keys
  }
  untested = {key: x.untested for key, x in uncorrected.items() if x.untested}
  if untested and all(x.test is _NO_TEST for x in uncorrected.values()):
    (first, second), reason = next(iter(untested.items()))
    raise NoVarianceError(f'{first} and {second} differ by {reason}')
  # Pairs without a test do not count in the correction.
  tested = [x.test.p for x in uncorrected.values() if not x.untested]
  adjusted = iter(holm(tested))
  p_holm = [1.0 if x.untested else next(adjusted) for x in uncorrected.values()]
  pairs = {
    key: dataclasses.replace(
      pair,
      p_holm=float(p),
      decided=bool(p < 1 - confidence),
    )
    for (key, pair), p in zip(uncorrected.items(), p_holm, strict=True)
  }
  return Comparison(
    paired,
    units,
    ranking,
    _groups(ranking, pairs),
    pairs,
    omnibus([*samples.values()], paired) if len(ranking) > 2 else None,
    _assumptions(samples, ranking, paired),
  )


def _check(samples, paired):
  if len(samples) < 2:
    raise ValueError(
      f'{len(samples)} models; a comparison needs at least two models'
    )
  for name, sample in samples.items():
    if not len(sample):
      raise ValueError(f'there are no values of {name}')
    if not np.isfinite(sample).all():
      raise ValueError(f'a value of {name} is not finite')
  lengths = {len(sample) for sample in samples.values()}
  if paired and len(lengths) > 1:
    raise ValueError(
      f'samples of {sorted(lengths)} units cannot be paired; all models must '
      'be evaluated on the same units'
    )


def _remove_rounding(sample: np.ndarray) -> np.ndarray:
  """Returns the sample, made exactly constant if it varies by rounding only."""
  if np.ptp(sample) <= _ROUNDING * np.abs(sample).max():
    return np.full_like(sample, sample[0])
  return sample


def _compare_pair(
  first: np.ndarray,
  second: np.ndarray,
  paired: bool,
  confidence: float,
  num_pairs: int,
) -> Pair:
  """Compares two samples, without Holm's correction over all pairs."""
  difference = float(first.mean() - second.mean())
  spread = np.ptp(first - second) if paired else np.ptp(first) + np.ptp(second)
  rounding = _ROUNDING * max(np.abs(first).max(), np.abs(second).max())
  if spread <= rounding:
    if abs(difference) <= rounding:
      return _IDENTICAL
    return dataclasses.replace(
      _IDENTICAL,
      difference=difference,
      interval=(difference, difference),
      improvement=1.0,
      untested=f'{difference:.3g} without any variance, so the difference '
      'cannot be tested',
    )
  if paired:
    ranks = scipy.stats.wilcoxon(first, second)
    name, rank_name = 'paired t', 'Wilcoxon'
  else:
    ranks = scipy.stats.mannwhitneyu(first, second)
    name, rank_name = 'Welch t', 'Mann-Whitney'
  standard_error, df = _standard_error(first, second, paired)
  # Computed here, since scipy's t-test warns if one of the samples is constant.
  t = difference / standard_error
  p = float(2 * scipy.stats.t.sf(abs(t), df))
  half_width = (
    float(scipy.stats.t.ppf((1 + confidence) / 2, df)) * standard_error
  )
  g, g_error = hedges_g(first, second, paired)
  margin = float(scipy.stats.norm.ppf((1 + confidence) / 2) * g_error)
  return Pair(
    difference=difference,
    interval=(difference - half_width, difference + half_width),
    test=Test(name, t, (df,), p),
    ranks=Test(rank_name, float(ranks.statistic), (), float(ranks.pvalue)),
    p_holm=p,
    g=g,
    g_interval=(g - margin, g + margin),
    improvement=probability_of_improvement(first, second, paired),
    detectable=detectable_difference(
      first, second, paired, 1 - (1 - confidence) / num_pairs
    ),
    decided=False,
  )


def holm(p_values: Sequence[float] | np.ndarray) -> np.ndarray:
  """Corrects p-values so that the family-wise error rate is controlled.

  Holm, "A simple sequentially rejective multiple test procedure", 1979.

  Args:
    p_values: [n] p-values.

  Returns:
    [n] corrected p-values, at most 1.
  """
  # Not statsmodels' version, which collects garbage at every call, for 0.1 s.
  order = np.argsort(p_values)
  num_remaining = np.arange(len(order), 0, -1)
  stepped = np.maximum.accumulate(num_remaining * np.asarray(p_values)[order])
  return np.minimum(stepped, 1)[np.argsort(order)]


def hedges_g(
  first: np.ndarray, second: np.ndarray, paired: bool
) -> tuple[float, float]:
  """Computes the standardized difference of means and its standard error.

  Borenstein, Hedges, Higgins and Rothstein, "Introduction to Meta-Analysis",
  2009, equations 4.18 to 4.24 for independent samples; 4.26 to 4.31 for pairs,
  with the root of the mean of both variances as the deviation within.

  Args:
    first: [n] values.
    second: [m] values, m = n if paired.
    paired: whether the samples have the same units.

  Returns:
    Hedges' g and its standard error.
  """
  n, m = len(first), len(second)
  difference = first.mean() - second.mean()
  if paired:
    within = (first.var(ddof=1) + second.var(ddof=1)) / 2
    d = difference / np.sqrt(within)
    # 2 (1 - r), where r is the correlation of the samples.
    unshared = np.var(first - second, ddof=1) / within
    variance = (1 / n + d**2 / (2 * n)) * unshared
    df = n - 1
  else:
    df = n + m - 2
    squares = (n - 1) * first.var(ddof=1) + (m - 1) * second.var(ddof=1)
    d = difference / np.sqrt(squares / df)
    variance = (n + m) / (n * m) + d**2 / (2 * (n + m))
  correction = 1 - 3 / (4 * df - 1)
  return float(correction * d), float(correction * np.sqrt(variance))


def probability_of_improvement(
  first: np.ndarray, second: np.ndarray, paired: bool
) -> float:
  """Estimates the probability that the first model is above the second.

  Agarwal et al., "Deep Reinforcement Learning at the Edge of the Statistical
  Precipice", 2021, section 4.3; ties count half. Paired units are compared with
  each other only.
  """
  differences = first - second if paired else np.subtract.outer(first, second)
  return float((np.sign(differences).mean() + 1) / 2)


def detectable_difference(
  first: np.ndarray, second: np.ndarray, paired: bool, confidence: float
) -> float:
  """Computes the smallest difference of means detected with `POWER`.

  For samples of the same size and variance as these, by the noncentral t
  distribution (Cohen, "Statistical Power Analysis", 1988, section 2.4), with
  Welch's degrees of freedom for independent samples.
  """
  standard_error, df = _standard_error(first, second, paired)
  return standard_error * _noncentrality(df, confidence)


def _standard_error(
  first: np.ndarray, second: np.ndarray, paired: bool
) -> tuple[float, float]:
  """Computes the standard error of the difference of means, and its df.

  For independent samples by Welch, "The generalization of Student's problem
  when several different population variances are involved", 1947.
  """
  if paired:
    squares = np.array([np.var(first - second, ddof=1) / len(first)])
    df = float(len(first) - 1)
  else:
    squares = np.array([x.var(ddof=1) / len(x) for x in (first, second)])
    counts = np.array([len(first), len(second)])
    df = float(squares.sum() ** 2 / (squares**2 / (counts - 1)).sum())
  return float(np.sqrt(squares.sum())), df


@functools.cache
def _noncentrality(df: float, confidence: float) -> float:
  """Returns the difference, in standard errors, detected with `POWER`."""
  bound = scipy.stats.t.ppf((1 + confidence) / 2, df)

  def excess_power(noncentrality):
    # The probability of exceeding the bound on the other side is negligible.
    return scipy.stats.nct.sf(bound, df, noncentrality) - POWER

  root: Any = scipy.optimize.brentq(excess_power, 0.0, bound + 5)
  return float(root)


def _groups(
  ranking: tuple[str, ...], pairs: Mapping[tuple[str, str], Pair]
) -> tuple[tuple[str, ...], ...]:
  """Returns the maximal runs of a ranking in which no pair is decided."""
  groups: list[tuple[str, ...]] = []
  for start in range(len(ranking)):
    end = start + 1
    while end < len(ranking) and all(
      not pairs[ranking[i], ranking[end]].decided for i in range(start, end)
    ):
      end += 1
    group = ranking[start:end]
    if not groups or not set(group) <= set(groups[-1]):
      groups.append(group)
  return tuple(groups)


def omnibus(samples: Sequence[np.ndarray], paired: bool) -> Test | None:
  """Tests all models at once: Friedman's test of ranks, or Welch's ANOVA.

  Args:
    samples: [n] values of each model.
    paired: whether the samples have the same units.

  Returns:
    The `Test`; None for independent samples of which one has no variance.
  """
  if all(np.array_equal(sample, samples[0]) for sample in samples):
    return _NO_TEST
  if paired:
    result: Any = scipy.stats.friedmanchisquare(*samples)
    name, df = 'Friedman', (len(samples) - 1,)
  elif not all(np.ptp(sample) for sample in samples):
    return None  # Welch's ANOVA weighs models by their inverse variance.
  else:
    result = oneway.anova_oneway(samples, use_var='unequal')
    name, df = 'Welch ANOVA', tuple(map(float, result.df))
  return Test(name, float(result.statistic), df, float(result.pvalue))


def _assumptions(
  samples: Mapping[str, np.ndarray], ranking: tuple[str, ...], paired: bool
) -> dict[str, Test]:
  """Tests the assumptions of the tests of means."""
  if paired:
    normal = {
      f'{first} - {second}': samples[first] - samples[second]
      for first, second in itertools.combinations(ranking, 2)
    }
  else:
    normal = {name: samples[name] for name in ranking}
  tests = {}
  for name, values in normal.items():
    if np.ptp(values) and len(values) <= _MAX_SHAPIRO_UNITS:
      result = scipy.stats.shapiro(values)
      tests[f'{name} is normal'] = Test(
        'Shapiro-Wilk', float(result.statistic), (), float(result.pvalue)
      )
  if not paired and any(np.ptp(values) for values in normal.values()):
    result = scipy.stats.levene(*normal.values(), center='median')
    tests['variances are equal'] = Test(
      'Brown-Forsythe', float(result.statistic), (), float(result.pvalue)
    )
  return tests
