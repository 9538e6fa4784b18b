"""Measures of an episode by which trained models are compared.

All of them are shares of the possible gain, counts, or seconds, so that SCMs
with different units can be averaged.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from acme_cbo.evaluation import episodes as episodes_lib

# An episode is a success if its score is at least this.
SUCCESS = 0.9


class Measure(NamedTuple):
  """A quantity of an episode.

  Attributes:
    title: name that reports show.
    sign: 1 if higher is better, -1 if lower is better.
    meaning: description that reports show, without a period.
  """

  title: str
  sign: int
  meaning: str


MEASURES = {
  'score': Measure(
    'score',
    1,
    'share of the possible gain that the last recommendation achieves: 0 is no '
    'intervention, 1 the best one',
  ),
  'simple_regret': Measure(
    'simple regret',
    -1,
    'share of the possible gain that the last recommendation misses',
  ),
  'cumulative_regret': Measure(
    'cumulative regret',
    -1,
    'share of the possible gain that each intervention misses, summed over all '
    'interventions of the episode',
  ),
  'success': Measure(
    'success',
    1,
    f'share of episodes with a score of {SUCCESS} or more',
  ),
  'convergence': Measure(
    'convergence',
    -1,
    'number of interventions after which the score of the recommendation stays '
    f'at {SUCCESS} or more; one more than were allowed if it never does',
  ),
  'parent_f1': Measure(
    'parents, F1',
    1,
    "F1 score of the belief about the target's direct causes after the last "
    'intervention',
  ),
  'seconds': Measure(
    'seconds',
    -1,
    'computing time per decision, median over an episode',
  ),
}


def episode_measures(
  episode: episodes_lib.Episode, num_interventions: int
) -> dict[str, float]:
  """Computes all `MEASURES` of an episode.

  Args:
    episode: an episode with at least one intervention.
    num_interventions: T, the number of interventions that were allowed.

  Returns:
    {name: value}. `parent_f1` is NaN if the method has no belief, and if the
    target has no direct causes and none is believed to be one.
  """
  steps = episode.steps
  gain = episode.optimum - episode.no_intervention
  recommended = np.asarray(steps['score'])
  achieved = (
    np.asarray(steps['expected_outcome']) - episode.no_intervention
  ) / gain
  failures = np.flatnonzero(recommended < SUCCESS)
  converged_at = failures[-1] + 2 if len(failures) else 1
  succeeded = recommended[-1] >= SUCCESS
  return {
    'score': float(recommended[-1]),
    'simple_regret': float(1 - recommended[-1]),
    'cumulative_regret': float((1 - achieved).sum()),
    'success': float(succeeded),
    'convergence': float(converged_at if succeeded else num_interventions + 1),
    'parent_f1': _parent_f1(episode),
    'seconds': float(np.median(steps['seconds'])),
  }


def _parent_f1(episode: episodes_lib.Episode) -> float:
  if not episode.parent_probabilities:
    return float('nan')
  (belief,) = episode.parent_probabilities.values()
  predicted, causes = np.asarray(belief) > 0.5, np.asarray(episode.causes, bool)
  total = predicted.sum() + causes.sum()
  return (
    float(2 * (predicted & causes).sum() / total) if total else float('nan')
  )


def curve_columns(num_interventions: int) -> list[str]:
  """Returns the names of the columns with the score after each intervention."""
  return [f'score_after_{step}' for step in range(1, num_interventions + 1)]


def table(
  model: str, episodes: Sequence[episodes_lib.Episode], num_interventions: int
) -> pd.DataFrame:
  """Returns a row for each episode of a model, sorted by SCM and repeat.

  Args:
    model: name of the model.
    episodes: episodes of at most T interventions; the score of an episode that
      ended early is carried forward.
    num_interventions: T, the number of interventions that were allowed.

  Returns:
    A table with the columns `model`, `scm`, `repeat`, `no_intervention`,
    `optimum`, `MEASURES` and `curve_columns(num_interventions)`.
  """
  rows = []
  for episode in sorted(episodes, key=lambda e: (e.scm, e.repeat)):
    scores = episode.steps['score']
    scores = [*scores, *[scores[-1]] * (num_interventions - len(scores))]
    rows.append(
      {
        'model': model,
        'scm': episode.scm,
        'repeat': episode.repeat,
        'no_intervention': episode.no_intervention,
        'optimum': episode.optimum,
        **episode_measures(episode, num_interventions),
        **dict(zip(curve_columns(num_interventions), scores, strict=True)),
      }
    )
  return pd.DataFrame(rows)
