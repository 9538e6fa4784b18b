"""Comparison of the models in a table of episodes, with its conclusions.

If a configuration was trained with several seeds, the independent unit is the
training seed, and its value is the mean over the episodes of that seed, where
all SCMs have the same weight. If single models are compared, the unit is the
episode, and models are paired: in an episode, all of them were evaluated on the
same SCM, data and noise.
"""

from collections.abc import Mapping, Sequence
import dataclasses
from typing import Any

import numpy as np
import pandas as pd

from acme_cbo.evaluation import statistics
from acme_cbo.evaluation.comparison import measures
from acme_cbo.evaluation.comparison import significance
from acme_cbo.infra import errors

# Measures without a sentence of their own: the score and its complement, and
# the computing time, which is no measure of quality.
_WITHOUT_SENTENCE = ('score', 'simple_regret', 'seconds')
SEED, EPISODE = 'training seed', 'episode'
# Scores at which the performance profiles are evaluated.
THRESHOLDS = np.linspace(-0.5, 1.0, 61)


def compare(
  table: pd.DataFrame, configurations: Mapping[str, str], confidence: float
) -> dict[str, Any]:
  """Compares the models of a table by all measures.

  Args:
    table: `measures.table` of all models, concatenated.
    configurations: {model: its configuration}; models of one configuration
      differ in their training seed only, and are compared with each other if
      there is no other configuration.
    confidence: confidence level of the intervals and the decisions.

  Returns:
    A dict that can be written as JSON: `unit` (`SEED` or `EPISODE`),
    `confidence`, `verdict` (sentences about the score), `beside` (sentences
    about other measures), `measures` {measure: `ranking`, `groups`, `models`
    {name: 'units', 'mean', 'sd', 'interval', 'iqm', 'iqm_interval'}, `pairs`,
    `omnibus`, `assumptions`, or `nothing`, the reason why there is nothing to
    compare}, `by_scm` {SCM: {name: 'mean', ...}}; `curves`, the score after
    each intervention, and `profiles`, the share of episodes with a score above
    each of `THRESHOLDS`, as {name: `mean`, `low`, `high`}, each a list; `low`
    and `high` are None if there are too few units.

  Raises:
    errors.UsageError: the models were not evaluated on the same episodes, or
      there is only one model.
  """
  if len(configurations) < 2:
    raise errors.UsageError('a comparison needs at least two models')
  _check_same_episodes(table)
  num_configurations = len(set(configurations.values()))
  by_seed = 1 < num_configurations < len(configurations)
  table = table.assign(
    name=table['model']
    if num_configurations == 1
    else table['model'].map(configurations)
  )
  unit = SEED if by_seed else EPISODE
  results = {
    measure: _compare_by(table, measure, by_seed, confidence)
    for measure in measures.MEASURES
  }
  steps = sum(column.startswith('score_after_') for column in table.columns)
  above = [f'above_{number}' for number in range(len(THRESHOLDS))]
  is_above = table['score'].to_numpy()[:, None] > THRESHOLDS
  profiles = pd.concat(
    [
      table[['name', 'scm', 'model', 'repeat']],
      pd.DataFrame(is_above.astype(float), columns=above, index=table.index),
    ],
    axis=1,
  )
  return {
    'unit': unit,
    'confidence': confidence,
    'verdict': sentences(results['score'], unit),
    'beside': _sentences_by_measure(results),
    'measures': results,
    'by_scm': {
      str(scm): _estimates(rows, 'score', by_seed, confidence)
      for scm, rows in table.groupby('scm', sort=False)
    },
    'curves': _bands(table, measures.curve_columns(steps), by_seed, confidence),
    'profiles': _bands(profiles, above, by_seed, confidence),
  }


def _check_same_episodes(table):
  """Raises unless all models were evaluated on the same SCMs and repeats."""
  ends = {
    model: rows.set_index(['scm', 'repeat'])[['no_intervention', 'optimum']]
    for model, rows in table.groupby('model', sort=False)
  }
  first, first_ends = next(iter(ends.items()))
  for model, model_ends in ends.items():
    unshared = [*first_ends.index.symmetric_difference(model_ends.index)]
    if unshared:
      scm, repeat = unshared[0]
      owner = first if (scm, repeat) in first_ends.index else model
      raise errors.UsageError(
        f'{first} and {model} were not evaluated on the same episodes: only '
        f'{owner} has {scm}, repeat {repeat}'
      )
    same = np.isclose(first_ends.loc[model_ends.index], model_ends, rtol=1e-5)
    if not same.all():
      scm, repeat = model_ends.index[int(np.flatnonzero(~same.all(1))[0])]
      raise errors.UsageError(
        f'{scm}, repeat {repeat}, is another SCM for {first} than for {model}: '
        'the outcome of no intervention or the optimum differs'
      )


def _strata(
  table: pd.DataFrame, columns: Sequence[str]
) -> dict[str, list[np.ndarray]]:
  """Returns {name: [n, K] values of its n episodes, for each SCM}.

  Episodes without a value are left out, and so are SCMs without any.
  """
  strata: dict[str, list[np.ndarray]] = {}
  for (name, _), rows in table.groupby(['name', 'scm'], sort=False):
    values = rows[[*columns]].dropna().to_numpy()
    if len(values):
      strata.setdefault(str(name), []).append(values)
  return strata


def _seed_means(
  table: pd.DataFrame, columns: Sequence[str]
) -> dict[str, np.ndarray]:
  """Returns {name: [n, S, K] means of its n seeds on each of S SCMs}.

  SCMs on which no seed has a value are left out, and then seeds that lack a
  value on any of the other SCMs.
  """
  seed_means = {}
  for name, rows in table.groupby('name', sort=False):
    means = rows.groupby(['model', 'scm'], sort=False)[[*columns]].mean()
    wide: Any = means.unstack('scm')
    wide = wide.dropna(axis=1, how='all').dropna()
    seed_means[str(name)] = (
      wide.to_numpy().reshape(len(wide), len(columns), -1).swapaxes(1, 2)
    )
  return seed_means


def _bands(
  table: pd.DataFrame, columns: Sequence[str], by_seed: bool, confidence: float
) -> dict[str, dict[str, Any]]:
  """Returns {name: `mean`, `low`, `high`}, each a list over the columns."""
  if by_seed:
    seeds = {n: x.mean(1) for n, x in _seed_means(table, columns).items()}
    means = {name: values.mean(0) for name, values in seeds.items()}
    intervals = {
      n: statistics.student_band(x, confidence) for n, x in seeds.items()
    }
  else:
    strata = _strata(table, columns)
    means = {name: np.concatenate(x).mean(0) for name, x in strata.items()}
    intervals = {
      name: statistics.stratified_band(x, confidence)
      for name, x in strata.items()
    }
  bands = {}
  for name, interval in intervals.items():
    low, high = interval or (None, None)
    bands[name] = {
      'mean': means[name].tolist(),
      'low': None if low is None else low.tolist(),
      'high': None if high is None else high.tolist(),
    }
  return bands


def _samples(
  table: pd.DataFrame, measure: str, by_seed: bool
) -> dict[str, np.ndarray]:
  """Returns {name: a value of each unit}; episodes are in the same order."""
  if by_seed:
    return {
      name: values[..., 0].mean(1)
      for name, values in _seed_means(table, [measure]).items()
    }
  wide = table.pivot(index=['scm', 'repeat'], columns='name', values=measure)
  wide = wide.dropna()
  return {name: wide[name].to_numpy() for name in table['name'].unique()}


def _estimates(
  table: pd.DataFrame, measure: str, by_seed: bool, confidence: float
) -> dict[str, dict[str, Any]]:
  """Returns {name: its mean and interquartile mean, with intervals}."""
  if by_seed:
    return {
      name: statistics.crossed_estimate(values[..., 0], confidence)
      for name, values in _seed_means(table, [measure]).items()
      if values.size
    }
  return {
    name: statistics.stratified_estimate(
      [stratum[:, 0] for stratum in strata], confidence
    )
    for name, strata in _strata(table, [measure]).items()
  }


def _compare_by(table, measure, by_seed, confidence) -> dict[str, Any]:
  """Returns the entry of a measure in `measures` of `compare`."""
  samples = _samples(table, measure, by_seed)
  empty = [name for name, sample in samples.items() if not len(sample)]
  if empty:
    return {'nothing': f'{empty[0]} has no values'}
  estimates = _estimates(table, measure, by_seed, confidence)
  models = {
    name: {
      'units': len(sample),
      'sd': float(np.std(sample, ddof=1)) if len(sample) > 1 else None,
      **estimates[name],
    }
    for name, sample in samples.items()
  }
  sign = measures.MEASURES[measure].sign
  try:
    comparison = significance.compare(
      {name: sign * sample for name, sample in samples.items()},
      paired=not by_seed,
      confidence=confidence,
    )
  except significance.NoVarianceError as error:
    return {'models': models, 'nothing': str(error)}
  return {
    'models': models,
    'ranking': list(comparison.ranking),
    'groups': [list(group) for group in comparison.groups],
    'pairs': [
      {
        'first': first,
        'second': second,
        **_pair_as_dict(pair, sign, len(samples[first]) * len(samples[second])),
      }
      for (first, second), pair in comparison.pairs.items()
    ],
    'omnibus': comparison.omnibus and dataclasses.asdict(comparison.omnibus),
    'assumptions': {
      assumption: dataclasses.asdict(test)
      for assumption, test in comparison.assumptions.items()
    },
  }


def _pair_as_dict(
  pair: significance.Pair, sign: int, product: int
) -> dict[str, Any]:
  """Returns a pair as a dict, with the sign of the measure restored.

  Args:
    pair: comparison of samples multiplied by `sign`, so that higher is better.
    sign: -1 if lower values of the measure are better, else 1.
    product: product of the numbers of units of both models.

  Returns:
    The fields of the pair, as differences of the measure itself.
  """
  fields: dict[str, Any] = dataclasses.asdict(pair)
  if sign < 0:
    fields |= {
      'difference': -pair.difference,
      'interval': sorted(-end for end in pair.interval),
      'g': -pair.g,
      'g_interval': sorted(-end for end in pair.g_interval),
    }
    fields['test']['statistic'] *= -1
    if pair.ranks.name == 'Mann-Whitney':
      fields['ranks']['statistic'] = product - pair.ranks.statistic
  return fields


def sentences(result: Mapping[str, Any], unit: str) -> list[str]:
  """Returns the conclusions about the score, in plain words.

  Args:
    result: entry of the score in `measures` of `compare`.
    unit: `SEED` or `EPISODE`.

  Returns:
    A sentence for each two neighbors in the ranking, and for each two models
    that differ significantly while none of the pairs between them does.
  """
  if 'nothing' in result:
    return [f'No conclusion: {result["nothing"]}.']
  ranking, pairs = result['ranking'], result['pairs']
  if not pairs:
    units = {name: entry['units'] for name, entry in result['models'].items()}
    least = min(units.values())
    model = (
      min(units, key=units.__getitem__)
      if max(units.values()) > least
      else 'each model'
    )
    return [
      f'No conclusion: {model} has {least} {unit}{"" if least == 1 else "s"}, '
      f'and at least {significance.MIN_UNITS} are needed.'
    ]
  by_names = {(pair['first'], pair['second']): pair for pair in pairs}
  return [
    _sentence(by_names[ranking[i], ranking[j]], len(pairs))
    for i in range(len(ranking))
    for j in range(i + 1, len(ranking))
    if j == i + 1 or _is_minimal(by_names, ranking, i, j)
  ]


def _sentences_by_measure(results: Mapping[str, Any]) -> list[str]:
  """Returns a sentence for each other measure with a significant best model."""
  lines = []
  for measure, result in results.items():
    if measure in _WITHOUT_SENTENCE or not result.get('pairs'):
      continue
    best = result['ranking'][0]
    worse = [
      pair['second']
      for pair in result['pairs']
      if pair['first'] == best and pair['decided']
    ]
    if worse:
      title = measures.MEASURES[measure].title
      lines.append(f'By {title}, {best} is better than {", ".join(worse)}.')
  return lines


def _is_minimal(
  by_names: Mapping[tuple[str, str], Mapping[str, Any]],
  ranking: Sequence[str],
  i: int,
  j: int,
) -> bool:
  """Returns whether models i and j differ, and no pair ranked between them."""
  return by_names[ranking[i], ranking[j]]['decided'] and not any(
    by_names[ranking[a], ranking[b]]['decided']
    for a in range(i, j + 1)
    for b in range(a + 1, j + 1)
    if (a, b) != (i, j)
  )


def _sentence(pair: Mapping[str, Any], num_pairs: int) -> str:
  first, second = pair['first'], pair['second']
  if pair['untested']:
    return (
      f'No conclusion about {first} and {second}: they differ by '
      f'{pair["untested"]}.'
    )
  low, high = pair['interval']
  if low == high == 0:
    return f'{first} and {second} have identical scores.'
  difference = f'{pair["difference"]:.3g} [{low:.2g}, {high:.2g}]'
  if pair['decided']:
    return (
      f'{first} is better than {second} by {difference} of the possible gain.'
    )
  uncorrected = ''
  if low > 0 or high < 0:
    uncorrected = (
      ' (the interval excludes 0, but is not corrected for testing '
      f'{num_pairs} pairs)'
    )
  return (
    f'The difference between {first} and {second} is not significant: '
    f'{difference} of the possible gain{uncorrected}; the smallest difference '
    f'detectable with a probability of {significance.POWER:.0%} is '
    f'{pair["detectable"]:.2g}.'
  )
