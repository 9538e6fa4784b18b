"""What a table of episodes says of the models in it, and in which words.

The independent unit is the training seed where a configuration was trained with
several: then a value is the mean of a seed's episodes, all SCMs counting the
same. Where single models are compared it is the episode, paired: all have met
the same SCM, data and noise in it.
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

# Measures that say the same as it, or nothing of how good a policy is.
_OF_SCORE = ('score', 'simple_regret', 'seconds')
SEED, EPISODE = 'training seed', 'episode'
# The thresholds of the performance profiles.
THRESHOLDS = np.linspace(-0.5, 1.0, 61)


def found(
  table: pd.DataFrame, configurations: Mapping[str, str], confidence: float
) -> dict[str, Any]:
  """All comparisons of the models of a table.

  Args:
    table: from `measures.table`, of every model.
    configurations: {model: its configuration}; models of one configuration
      differ in their seeds alone, and are compared with each other where there
      is no other configuration.
    confidence: of the intervals and the decisions.

  Returns:
    What JSON can hold: `unit` (`SEED` or `EPISODE`), `confidence`, `verdict`
    (sentences), `beside` (such, of other measures), `measures` {measure:
    `ranking`, `groups`, `models` {name: 'units', 'mean', 'sd', 'interval',
    'iqm', 'iqm_interval'}, `pairs`, `omnibus`, `assumptions`, or `nothing`, why
    there is nothing to compare}, `by_scm` {SCM: {name: 'mean', ...}}; `curves`,
    the score after each intervention, and `profiles`, the share of episodes
    whose score is above each of `THRESHOLDS`, as {name: `mean`, `low`, `high`},
    lists of which the last two are None where there are too few units.

  Raises:
    errors.UsageError: models have not played the same episodes, or there is
      one model alone.
  """
  if len(configurations) < 2:
    raise errors.UsageError('a comparison needs two models or more')
  _check_same_episodes(table)
  kinds = len(set(configurations.values()))
  several = 1 < kinds < len(configurations)
  table = table.assign(
    name=table['model'] if kinds == 1 else table['model'].map(configurations)
  )
  unit = SEED if several else EPISODE
  of_measures = {
    measure: _measure(table, measure, several, confidence)
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
    'verdict': sentences(of_measures['score'], unit),
    'beside': _by_other_measures(of_measures),
    'measures': of_measures,
    'by_scm': {
      str(scm): _estimates(part, 'score', several, confidence)
      for scm, part in table.groupby('scm', sort=False)
    },
    'curves': _bands(table, measures.after(steps), several, confidence),
    'profiles': _bands(profiles, above, several, confidence),
  }


def _check_same_episodes(table):
  """Raises unless all models have met the same SCMs as often."""
  met = {
    model: part.set_index(['scm', 'repeat'])[['no_intervention', 'optimum']]
    for model, part in table.groupby('model', sort=False)
  }
  first, of_first = next(iter(met.items()))
  for model, of_model in met.items():
    lacking = [*of_first.index.symmetric_difference(of_model.index)]
    if lacking:
      scm, repeat = lacking[0]
      where = first if (scm, repeat) in of_first.index else model
      raise errors.UsageError(
        f'{first} and {model} have not played the same episodes: only {where} '
        f'has played {scm}, repeat {repeat}'
      )
    same = np.isclose(of_first.loc[of_model.index], of_model, rtol=1e-5)
    if not same.all():
      scm, repeat = of_model.index[int(np.flatnonzero(~same.all(1))[0])]
      raise errors.UsageError(
        f'{scm}, repeat {repeat}, of {first} is another SCM than that of '
        f'{model}: what can be gained is not the same'
      )


def _strata(
  table: pd.DataFrame, columns: Sequence[str]
) -> dict[str, list[np.ndarray]]:
  """{name: [n, K] values of its episodes on each SCM}, where they have any."""
  found: dict[str, list[np.ndarray]] = {}
  for (name, _), part in table.groupby(['name', 'scm'], sort=False):
    values = part[[*columns]].dropna().to_numpy()
    if len(values):
      found.setdefault(str(name), []).append(values)
  return found


def _of_seeds(
  table: pd.DataFrame, columns: Sequence[str]
) -> dict[str, np.ndarray]:
  """{name: [n, S, K] means of its seeds on each SCM}.

  Without seeds that have none on some SCM, and SCMs on which no seed has one.
  """
  found = {}
  for name, part in table.groupby('name', sort=False):
    means = part.groupby(['model', 'scm'], sort=False)[[*columns]].mean()
    wide: Any = means.unstack('scm')
    wide = wide.dropna(axis=1, how='all').dropna()
    found[str(name)] = (
      wide.to_numpy().reshape(len(wide), len(columns), -1).swapaxes(1, 2)
    )
  return found


def _bands(
  table: pd.DataFrame, columns: Sequence[str], several: bool, confidence: float
) -> dict[str, dict[str, Any]]:
  """{name: `mean`, `low`, `high`} of columns, each a list of all columns."""
  if several:
    seeds = {n: x.mean(1) for n, x in _of_seeds(table, columns).items()}
    means = {name: values.mean(0) for name, values in seeds.items()}
    bands = {
      n: statistics.student_band(x, confidence) for n, x in seeds.items()
    }
  else:
    strata = _strata(table, columns)
    means = {name: np.concatenate(x).mean(0) for name, x in strata.items()}
    bands = {
      name: statistics.stratified_band(x, confidence)
      for name, x in strata.items()
    }
  found = {}
  for name, band in bands.items():
    low, high = band or (None, None)
    found[name] = {
      'mean': means[name].tolist(),
      'low': None if low is None else low.tolist(),
      'high': None if high is None else high.tolist(),
    }
  return found


def _samples(
  table: pd.DataFrame, measure: str, several: bool
) -> dict[str, np.ndarray]:
  """{name: a value of each unit}; episodes in the same order for all."""
  if several:
    return {
      name: values[..., 0].mean(1)
      for name, values in _of_seeds(table, [measure]).items()
    }
  wide = table.pivot(index=['scm', 'repeat'], columns='name', values=measure)
  wide = wide.dropna()
  return {name: wide[name].to_numpy() for name in table['name'].unique()}


def _estimates(
  table: pd.DataFrame, measure: str, several: bool, confidence: float
) -> dict[str, dict[str, Any]]:
  """{name: its mean and interquartile mean, with intervals}."""
  if several:
    return {
      name: statistics.crossed_estimate(values[..., 0], confidence)
      for name, values in _of_seeds(table, [measure]).items()
      if values.size
    }
  return {
    name: statistics.stratified_estimate(
      [stratum[:, 0] for stratum in strata], confidence
    )
    for name, strata in _strata(table, [measure]).items()
  }


def _measure(table, measure, several, confidence) -> dict[str, Any]:
  samples = _samples(table, measure, several)
  empty = [name for name, sample in samples.items() if not len(sample)]
  if empty:
    return {'nothing': f'{empty[0]} has no values'}
  estimates = _estimates(table, measure, several, confidence)
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
    compared = significance.compare(
      {name: sign * sample for name, sample in samples.items()},
      paired=not several,
      confidence=confidence,
    )
  except significance.NoVarianceError as error:
    return {'models': models, 'nothing': str(error)}
  return {
    'models': models,
    'ranking': list(compared.ranking),
    'groups': [list(group) for group in compared.groups],
    'pairs': [
      {
        'first': first,
        'second': second,
        **_turned(pair, sign, len(samples[first]) * len(samples[second])),
      }
      for (first, second), pair in compared.pairs.items()
    ],
    'omnibus': compared.omnibus and dataclasses.asdict(compared.omnibus),
    'assumptions': {
      what: dataclasses.asdict(test)
      for what, test in compared.assumptions.items()
    },
  }


def _turned(pair: significance.Pair, sign: int, product: int) -> dict[str, Any]:
  """A pair in the measure's own direction.

  Args:
    pair: of samples where higher is better.
    sign: -1 where less is better.
    product: of the numbers of units of both.
  """
  found: dict[str, Any] = dataclasses.asdict(pair)
  if sign < 0:
    found |= {
      'difference': -pair.difference,
      'interval': sorted(-end for end in pair.interval),
      'g': -pair.g,
      'g_interval': sorted(-end for end in pair.g_interval),
    }
    found['test']['statistic'] *= -1
    if pair.ranks.name == 'Mann-Whitney':
      found['ranks']['statistic'] = product - pair.ranks.statistic
  return found


def sentences(about: Mapping[str, Any], unit: str) -> list[str]:
  """Who is better by the score, in plain words.

  Args:
    about: the entry of the score in what `found` returns.
    unit: of it.

  Returns:
    A sentence for each two neighbours of the ranking, and for each two models
    of which neighbours between them could not be told apart, but they can.
  """
  if 'nothing' in about:
    return [f'Nothing is decided: {about["nothing"]}.']
  ranking, pairs = about['ranking'], about['pairs']
  if not pairs:
    units = {name: entry['units'] for name, entry in about['models'].items()}
    least = min(units.values())
    who = (
      min(units, key=units.__getitem__) if max(units.values()) > least else ''
    )
    return [
      f'Nothing is decided: {f"{who} has" if who else "there are"} {least} '
      f'{unit}{"" if least == 1 else "s"}{"" if who else " of each"}, and '
      f'{significance.MIN_UNITS} are the least.'
    ]
  of_pair = {(pair['first'], pair['second']): pair for pair in pairs}
  return [
    _sentence(of_pair[ranking[i], ranking[j]], len(pairs))
    for i in range(len(ranking))
    for j in range(i + 1, len(ranking))
    if j == i + 1 or _first_told(of_pair, ranking, i, j)
  ]


def _by_other_measures(of_measures: Mapping[str, Any]) -> list[str]:
  """Of whom the best is told by measures that are not the score's own."""
  found = []
  for measure, about in of_measures.items():
    if measure in _OF_SCORE or not about.get('pairs'):
      continue
    best = about['ranking'][0]
    worse = [
      pair['second']
      for pair in about['pairs']
      if pair['first'] == best and pair['decided']
    ]
    if worse:
      title = measures.MEASURES[measure].title
      found.append(f'By {title}, {best} is better than {", ".join(worse)}.')
  return found


def _first_told(
  of_pair: Mapping[tuple[str, str], Mapping[str, Any]],
  ranking: Sequence[str],
  i: int,
  j: int,
) -> bool:
  """Whether two models are told apart and none between them is."""
  return of_pair[ranking[i], ranking[j]]['decided'] and not any(
    of_pair[ranking[a], ranking[b]]['decided']
    for a in range(i, j + 1)
    for b in range(a + 1, j + 1)
    if (a, b) != (i, j)
  )


def _sentence(pair: Mapping[str, Any], num_pairs: int) -> str:
  first, second = pair['first'], pair['second']
  if pair['untested']:
    return (
      f'Nothing is decided between {first} and {second}: they differ by '
      f'{pair["untested"]}.'
    )
  low, high = pair['interval']
  if low == high == 0:
    return f'{first} and {second} came to the same score everywhere.'
  by = f'{pair["difference"]:.3g} [{low:.2g}, {high:.2g}]'
  if pair['decided']:
    return f'{first} is better than {second} by {by} of what could be gained.'
  alone = ''
  if low > 0 or high < 0:
    alone = (
      '; that interval, of one pair alone, leaves out 0, but among '
      f'{num_pairs} pairs such a one comes by chance'
    )
  return (
    f'The data cannot tell {first} from {second}: the difference is {by} of '
    f'what could be gained{alone}, and one of {pair["detectable"]:.2g} would '
    f'have been found in {significance.POWER:.0%} of such studies.'
  )
