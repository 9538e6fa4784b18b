"""By what trained models are compared: a few numbers of every episode.

All of them are shares of what could be gained, counts, or seconds, so that
SCMs with different units can be averaged.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from acme_cbo.evaluation import episodes as episodes_lib

# An episode has succeeded where it reached so much of what could be gained.
SUCCESS = 0.9


class Measure(NamedTuple):
  """A quantity of an episode.

  Attributes:
    title: for people.
    sign: 1 where more is better, -1 where less is.
    meaning: a sentence.
  """

  title: str
  sign: int
  meaning: str


MEASURES = {
  'score': Measure(
    'score',
    1,
    'of the last recommendation: 0 is no intervention, 1 the best one',
  ),
  'simple_regret': Measure(
    'simple regret',
    -1,
    'what the last recommendation leaves of what could be gained',
  ),
  'cumulative_regret': Measure(
    'cumulative regret',
    -1,
    'what all interventions that were made left of it, summed',
  ),
  'success': Measure(
    'success',
    1,
    f'share of episodes whose score is {SUCCESS} or more',
  ),
  'convergence': Measure(
    'convergence',
    -1,
    'interventions after which the score of what is recommended stays at '
    f'{SUCCESS} or more; one more than there were where it does not',
  ),
  'parent_f1': Measure(
    'parents, F1',
    1,
    "of the belief in the target's direct causes after the last intervention",
  ),
  'seconds': Measure(
    'seconds',
    -1,
    'of computing for a decision, the median of an episode',
  ),
}


def of_episode(
  episode: episodes_lib.Episode, num_interventions: int
) -> dict[str, float]:
  """Each of `MEASURES`; NaN where there is none.

  Args:
    episode: of one intervention at least.
    num_interventions: T, those that were allowed.

  Returns:
    {name: value}. There is no F1 of what believes nothing, nor where no
    variable causes the target directly and none is believed to.
  """
  steps = episode.steps
  gain = episode.optimum - episode.no_intervention
  recommended = np.asarray(steps['score'])
  made = (
    np.asarray(steps['expected_outcome']) - episode.no_intervention
  ) / gain
  short_of = np.flatnonzero(recommended < SUCCESS)
  stays_from = short_of[-1] + 2 if len(short_of) else 1
  succeeded = recommended[-1] >= SUCCESS
  return {
    'score': float(recommended[-1]),
    'simple_regret': float(1 - recommended[-1]),
    'cumulative_regret': float((1 - made).sum()),
    'success': float(succeeded),
    'convergence': float(stays_from if succeeded else num_interventions + 1),
    'parent_f1': _parent_f1(episode),
    'seconds': float(np.median(steps['seconds'])),
  }


def _parent_f1(episode: episodes_lib.Episode) -> float:
  if not episode.believed:
    return float('nan')
  (belief,) = episode.believed.values()
  chosen, causes = np.asarray(belief) > 0.5, np.asarray(episode.causes, bool)
  named = chosen.sum() + causes.sum()
  return float(2 * (chosen & causes).sum() / named) if named else float('nan')


def after(num_interventions: int) -> list[str]:
  """Columns of the scores after each of so many interventions."""
  return [f'score_after_{step}' for step in range(1, num_interventions + 1)]


def table(
  model: str, episodes: Sequence[episodes_lib.Episode], num_interventions: int
) -> pd.DataFrame:
  """A row for each episode of a model, in the order of SCMs and repeats.

  Args:
    model: its name.
    episodes: of at most so many interventions; what ended early stays where it
      was.
    num_interventions: T, those that were allowed.

  Returns:
    Columns `model`, `scm`, `repeat`, `no_intervention`, `optimum`, `MEASURES`
    and those of `after`.
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
        **of_episode(episode, num_interventions),
        **dict(zip(after(num_interventions), scores, strict=True)),
      }
    )
  return pd.DataFrame(rows)
