"""Warnings that a study lies outside of what its policy was trained on."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from acme_cbo.policies import registry
from acme_cbo.scms import config
from acme_cbo.study import evidence
from acme_cbo.study import state as state_lib

# Number of passive records below which there are few, which tell no domain.
_MIN_RECORDS = 5
# Number of values below which a shape says too little.
_MIN_VALUES = 50
# Number of records, evenly spread over all, that shapes are read from: as many
# as the limits are of.
_MAX_RECORDS = 100
# Quantiles of .98, and of .02 of the correlation, over 600 systems of the
# training prior of the shipped policy with 100 records each; docs/studies.md
# has the command. They hold for priors like it.
_SKEWNESS = 1.3
_KURTOSIS = 27.0
_CORRELATION = 0.18


def warnings(state: state_lib.State, metadata: Mapping[str, Any]) -> list[str]:
  """Returns how a study lies outside of what a policy was trained on.

  Args:
    state: state of the study.
    metadata: training metadata of the policy, see `saving.load`.
  """
  num_interventions = evidence.num_interventions(
    state, len(state.observed), metadata['horizon']['num_interventions']
  )
  problem = evidence.problem(state, state.space.sets)
  # Of more records than it was trained on, a policy is shown as many.
  beyond = registry.beyond_training(metadata, problem, 0, num_interventions)
  fewest = min(_MIN_RECORDS, *(n for n, *_ in config.trained_sizes(metadata)))
  if len(state.records) < fewest and not state.space.sets_all:
    beyond.append(f'{len(state.records)} passive records')
  return [*beyond, *_far_domains(state, metadata['scms']), *_shapes(state)]


def _far_domains(state, scms):
  farthest = scms['max_centre'] + scms['max_width']
  columns = state.settings.columns
  for name, one in state.space.variables.items():
    present = state.records[:, columns.index(name)]
    present = present[~np.isnan(present)]
    if len(present) < _MIN_RECORDS or not np.ptp(present):
      continue
    ends = np.array([one.low, one.high])
    far = float(np.abs(ends - present.mean()).max() / present.std())
    if far > farthest:
      yield (
        f'a domain of {name!r} that reaches {far:.2g} standard deviations '
        f'from the mean of the records (trained on at most {farthest:g})'
      )


def record_shape(records: np.ndarray) -> dict[str, float]:
  """Describes passive records in the ways that training varies least.

  Args:
    records: [N, D] values, NaN where one is missing. Columns of fewer than 50
      different values are left out.

  Returns:
    `skewness`, the mean absolute skewness of the columns; `kurtosis`, the
    largest excess kurtosis of one; and `correlation`, the largest absolute
    correlation of two. NaN where there is no column, or no two.
  """
  moments, full = [], []
  for column in records.T:
    values = column[~np.isnan(column)]
    if np.unique(values).size >= _MIN_VALUES:
      standard = (values - values.mean()) / values.std()
      moments.append(((standard**3).mean(), (standard**4).mean() - 3))
      full.append(column)
  shape = dict.fromkeys(('skewness', 'kurtosis', 'correlation'), np.nan)
  if moments:
    skewness, kurtosis = np.transpose(moments)
    shape['skewness'] = float(np.abs(skewness).mean())
    shape['kurtosis'] = float(kurtosis.max())
  if len(full) > 1:
    # Of the rows that both columns have.
    table = pd.DataFrame(np.transpose(full))
    correlation = table.corr(min_periods=_MIN_VALUES).to_numpy()
    pairs = np.abs(correlation[np.triu_indices(len(full), 1)])
    if not np.isnan(pairs).all():
      shape['correlation'] = float(np.nanmax(pairs))
  return shape


def _shapes(state):
  step = max(1, -(-len(state.records) // _MAX_RECORDS))
  shape = record_shape(state.records[::step])
  for name, limit, text in (
    ('skewness', _SKEWNESS, 'skewed records: a mean absolute skewness of'),
    ('kurtosis', _KURTOSIS, 'heavy tails: a column with an excess kurtosis of'),
  ):
    if shape[name] > limit:
      yield f'{text} {shape[name]:.2g} (98% of training at most {limit:g})'
  if shape['correlation'] < _CORRELATION:
    yield (
      'much noise: no correlation of two columns above '
      f'{shape["correlation"]:.2f} (98% of training at least {_CORRELATION:g})'
    )
