"""Which of several models is better, and how surely.

A sample is what one model came to on n independent units: SCMs, where models
have met the same ones, so that samples are paired unit by unit; or training
seeds, where several were trained of each configuration, so that they are not.

Higher is better. A difference is one of means, its interval Student's, and its
p-values are two-sided. What is called better or worse is so by the means, after
Holm's correction over all pairs; ranks and shares stand beside them.
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

# Fewer units decide nothing.
MIN_UNITS = 5
# Probability with which the smallest detectable difference would be found.
POWER = 0.8
# Differences no larger than this, relative to the values, are rounding.
_ROUNDING = 1e-12
# Shapiro and Wilk's p is not known for larger samples.
_MOST_FOR_SHAPIRO = 5000


class NoVarianceError(ValueError):
  """A difference cannot be tested, for it is the same wherever one looks."""


@dataclasses.dataclass(frozen=True)
class Test:
  """What a test says.

  Attributes:
    name: whose test it is.
    statistic: t, F, W or χ².
    df: its degrees of freedom, where it has any.
    p: two-sided.
  """

  name: str
  statistic: float
  df: tuple[float, ...]
  p: float


@dataclasses.dataclass(frozen=True)
class Pair:
  """One model beside another one.

  Attributes:
    difference: of the means, the first less the second.
    interval: of the difference.
    test: of the means: Student's of pairs, Welch's of independent samples.
    ranks: Wilcoxon's of pairs, Mann and Whitney's of independent samples.
    p_holm: of `test`, corrected for all pairs of models.
    g: Hedges' g, the difference in standard deviations.
    g_interval: of it.
    improvement: probability that the first is above the second, ties half.
    detectable: the least difference that would be found with `POWER`, were all
      pairs corrected for (by Bonferroni, of which Holm's is no worse).
    decided: whether the first is better beyond chance, by `p_holm`.
    untested: why there is no test; empty where there is one.
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


_NOTHING_TO_TEST = Test('', 0.0, (), 1.0)
# Of samples without a difference on any unit.
_THE_SAME = Pair(
  difference=0.0,
  interval=(0.0, 0.0),
  test=_NOTHING_TO_TEST,
  ranks=_NOTHING_TO_TEST,
  p_holm=1.0,
  g=0.0,
  g_interval=(0.0, 0.0),
  improvement=0.5,
  detectable=0.0,
  decided=False,
)


@dataclasses.dataclass(frozen=True)
class Comparison:
  """Several models beside each other.

  Attributes:
    paired: whether the units of the samples are the same.
    units: of each model.
    ranking: names, the highest mean first.
    groups: of the ranking, parts as long as can be in which no model is told
      from another one; one of all of them where there are too few units.
    pairs: {(name, other): `Pair`}, the one of the higher mean first; empty
      where there are too few units.
    omnibus: a test of all models at once; None of two, of too few units, and
      where there is none.
    assumptions: {what a test of means assumes: what a test of that says}.
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
  """Compares every model with every other one.

  Args:
    samples: {model: [n] values}, higher is better; n may differ where they are
      not paired.
    paired: whether the i-th units of all samples are the same.
    confidence: of the intervals; what is less probable by chance than what is
      left of 1 is decided.

  Returns:
    The `Comparison`. Fewer than `MIN_UNITS` units of a model decide nothing.

  Raises:
    NoVarianceError: no two models differ by anything but the same on every
      unit, and two do differ.
    ValueError: there are fewer than two models, a value is not finite, or
      paired samples differ in length.
  """
  _check(samples, paired)
  samples = {name: _steady(sample) for name, sample in samples.items()}
  ranking = tuple(sorted(samples, key=lambda name: -samples[name].mean()))
  units = {name: len(sample) for name, sample in samples.items()}
  if min(units.values()) < MIN_UNITS:
    return Comparison(paired, units, ranking, (ranking,), {}, None, {})

  both = [*itertools.combinations(ranking, 2)]
  compared = {
    (name, other): _pair(
      samples[name], samples[other], paired, confidence, len(both)
    )
    for name, other in both
  }
  untested = {names: x.untested for names, x in compared.items() if x.untested}
  if untested and all(x.test is _NOTHING_TO_TEST for x in compared.values()):
    (first, second), why = next(iter(untested.items()))
    raise NoVarianceError(f'{first} and {second} differ by {why}')
  # What cannot be tested is no test to correct for.
  tested = [x.test.p for x in compared.values() if not x.untested]
  after = iter(holm(tested))
  corrected = [1.0 if x.untested else next(after) for x in compared.values()]
  pairs = {
    names: dataclasses.replace(
      pair,
      p_holm=float(p),
      decided=bool(p < 1 - confidence),
    )
    for (names, pair), p in zip(compared.items(), corrected, strict=True)
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
    raise ValueError(f'{len(samples)} models; a comparison needs two')
  for name, sample in samples.items():
    if not len(sample):
      raise ValueError(f'there are no values of {name}')
    if not np.isfinite(sample).all():
      raise ValueError(f'a value of {name} is not finite')
  lengths = {len(sample) for sample in samples.values()}
  if paired and len(lengths) > 1:
    raise ValueError(
      f'samples of {sorted(lengths)} units cannot be paired; all models have '
      'to meet the same ones'
    )


def _steady(sample: np.ndarray) -> np.ndarray:
  """The sample, without what rounding makes of a value that is always one."""
  if np.ptp(sample) <= _ROUNDING * np.abs(sample).max():
    return np.full_like(sample, sample[0])
  return sample


def _pair(
  first: np.ndarray,
  second: np.ndarray,
  paired: bool,
  confidence: float,
  num_pairs: int,
) -> Pair:
  """Two samples beside each other, not yet corrected for any others."""
  difference = float(first.mean() - second.mean())
  spread = np.ptp(first - second) if paired else np.ptp(first) + np.ptp(second)
  rounding = _ROUNDING * max(np.abs(first).max(), np.abs(second).max())
  if spread <= rounding:
    if abs(difference) <= rounding:
      return _THE_SAME
    return dataclasses.replace(
      _THE_SAME,
      difference=difference,
      interval=(difference, difference),
      improvement=1.0,
      untested=f'{difference:.3g} without any variance, so that there is '
      'nothing to test it by',
    )
  if paired:
    ranks = scipy.stats.wilcoxon(first, second)
    name, name_of_ranks = 'paired t', 'Wilcoxon'
  else:
    ranks = scipy.stats.mannwhitneyu(first, second)
    name, name_of_ranks = 'Welch t', 'Mann-Whitney'
  standard_error, df = _standard_error(first, second, paired)
  # scipy's own warns of a sample that is constant, as one of the two may be.
  t = difference / standard_error
  p = float(2 * scipy.stats.t.sf(abs(t), df))
  reach = float(scipy.stats.t.ppf((1 + confidence) / 2, df)) * standard_error
  effect, error = hedges_g(first, second, paired)
  margin = float(scipy.stats.norm.ppf((1 + confidence) / 2) * error)
  return Pair(
    difference=difference,
    interval=(difference - reach, difference + reach),
    test=Test(name, t, (df,), p),
    ranks=Test(name_of_ranks, float(ranks.statistic), (), float(ranks.pvalue)),
    p_holm=p,
    g=effect,
    g_interval=(effect - margin, effect + margin),
    improvement=improvement(first, second, paired),
    detectable=detectable(
      first, second, paired, 1 - (1 - confidence) / num_pairs
    ),
    decided=False,
  )


def holm(p_values: Sequence[float] | np.ndarray) -> np.ndarray:
  """Corrected so that the chance of one false positive of all is kept.

  Holm, "A simple sequentially rejective multiple test procedure", 1979.
  """
  # That of statsmodels collects garbage at every call, for .1 s.
  order = np.argsort(p_values)
  left = np.arange(len(order), 0, -1)
  stepped = np.maximum.accumulate(left * np.asarray(p_values)[order])
  return np.minimum(stepped, 1)[np.argsort(order)]


def hedges_g(
  first: np.ndarray, second: np.ndarray, paired: bool
) -> tuple[float, float]:
  """Standardised difference of means, and its standard error.

  Borenstein, Hedges, Higgins and Rothstein, "Introduction to Meta-Analysis",
  2009, equations 4.18 to 4.24 for independent samples; 4.26 to 4.31 for pairs,
  with the root of the mean of both variances as the deviation within.

  Args:
    first: [n] values.
    second: [m] values, m = n if paired.
    paired: whether their units are the same.

  Returns:
    g and its standard error.
  """
  n, m = len(first), len(second)
  difference = first.mean() - second.mean()
  if paired:
    within = (first.var(ddof=1) + second.var(ddof=1)) / 2
    d = difference / np.sqrt(within)
    # 2 (1 - r), of their correlation r.
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


def improvement(first: np.ndarray, second: np.ndarray, paired: bool) -> float:
  """Probability that a unit of the first is above one of the second.

  Agarwal et al., "Deep Reinforcement Learning at the Edge of the Statistical
  Precipice", 2021, section 4.3; ties count half. Paired units meet their own.
  """
  left = first - second if paired else np.subtract.outer(first, second)
  return float((np.sign(left).mean() + 1) / 2)


def detectable(
  first: np.ndarray, second: np.ndarray, paired: bool, confidence: float
) -> float:
  """The least difference of means found with probability `POWER`.

  Of so many units with deviations as these have, by the noncentral t
  distribution (Cohen, "Statistical Power Analysis", 1988, section 2.4), of
  independent samples with Welch's degrees of freedom.
  """
  standard_error, df = _standard_error(first, second, paired)
  return standard_error * _noncentrality(df, confidence)


def _standard_error(
  first: np.ndarray, second: np.ndarray, paired: bool
) -> tuple[float, float]:
  """Of the difference of means, and its degrees of freedom; of Welch's test.

  Welch, "The generalization of Student's problem when several different
  population variances are involved", 1947, of samples that are not paired.
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
  """A difference in standard errors that is found with `POWER`."""
  bound = scipy.stats.t.ppf((1 + confidence) / 2, df)

  def surplus(noncentrality):
    # Of being beyond the other bound there is no chance worth counting.
    return scipy.stats.nct.sf(bound, df, noncentrality) - POWER

  found: Any = scipy.optimize.brentq(surplus, 0.0, bound + 5)
  return float(found)


def _groups(
  ranking: tuple[str, ...], pairs: Mapping[tuple[str, str], Pair]
) -> tuple[tuple[str, ...], ...]:
  """Longest parts of a ranking in which no model is told from another one."""
  found: list[tuple[str, ...]] = []
  for start in range(len(ranking)):
    end = start + 1
    while end < len(ranking) and all(
      not pairs[ranking[i], ranking[end]].decided for i in range(start, end)
    ):
      end += 1
    part = ranking[start:end]
    if not found or not set(part) <= set(found[-1]):
      found.append(part)
  return tuple(found)


def omnibus(samples: Sequence[np.ndarray], paired: bool) -> Test | None:
  """Tests of all models at once: Friedman's of ranks, or Welch's ANOVA.

  None of independent samples of which one has no variance.
  """
  if all(np.array_equal(sample, samples[0]) for sample in samples):
    return _NOTHING_TO_TEST
  if paired:
    said: Any = scipy.stats.friedmanchisquare(*samples)
    name, df = 'Friedman', (len(samples) - 1,)
  elif not all(np.ptp(sample) for sample in samples):
    return None  # It weighs by variances.
  else:
    said = oneway.anova_oneway(samples, use_var='unequal')
    name, df = 'Welch ANOVA', tuple(map(float, said.df))
  return Test(name, float(said.statistic), df, float(said.pvalue))


def _assumptions(
  samples: Mapping[str, np.ndarray], ranking: tuple[str, ...], paired: bool
) -> dict[str, Test]:
  """Tests of what tests of means assume."""
  if paired:
    normal = {
      f'{first} - {second}': samples[first] - samples[second]
      for first, second in itertools.combinations(ranking, 2)
    }
  else:
    normal = {name: samples[name] for name in ranking}
  found = {}
  for name, values in normal.items():
    if np.ptp(values) and len(values) <= _MOST_FOR_SHAPIRO:
      said = scipy.stats.shapiro(values)
      found[f'{name} is normal'] = Test(
        'Shapiro-Wilk', float(said.statistic), (), float(said.pvalue)
      )
  if not paired and any(np.ptp(values) for values in normal.values()):
    said = scipy.stats.levene(*normal.values(), center='median')
    found['variances are equal'] = Test(
      'Brown-Forsythe', float(said.statistic), (), float(said.pvalue)
    )
  return found
