"""Aggregates the episodes of several methods, SCM by SCM.

The independent unit is the repeat. Within a repeat all methods get the same
data and noise, so methods are compared in pairs.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from acme_cbo.evaluation import episodes as episodes_lib
from acme_cbo.evaluation import statistics

# Keys of `episode_measures`.
MEASURES = (
  'best_expected',
  'recommended_expected',
  'score',
  'simple_regret',
  'cumulative_regret',
  'mean_regret',
  'gap',
  'gap_speed',
)
COLUMNS = (
  'method',
  'scm',
  'repeat',
  'step',
  'no_intervention',
  'optimum',
  *episodes_lib.COLUMNS,
)
# Method whose differences from all others are reported.
_REFERENCE = 'grpo'


def table(episodes: Sequence[episodes_lib.Episode]) -> pd.DataFrame:
  """Returns the table of `results.csv`: a row per episode and step."""
  parts = [
    pd.DataFrame(
      {
        'method': episode.method,
        'scm': episode.scm,
        'repeat': episode.repeat,
        'step': np.arange(1, len(episode.steps['outcome']) + 1),
        'no_intervention': episode.no_intervention,
        'optimum': episode.optimum,
        **episode.steps,
      }
    )
    for episode in episodes
  ]
  return pd.concat([pd.DataFrame(columns=list(COLUMNS)), *parts])


def episode_measures(
  episode: episodes_lib.Episode, num_interventions: int
) -> dict[str, float]:
  """Computes the scores and regrets of one episode.

  With y the expected outcomes signed by the goal, y* that of the optimum, y0
  that of no intervention, r that of the last recommendation and H
  interventions:

  `score = (r - y0) / (y* - y0)`; `simple_regret = y* - r`; `cumulative_regret =
  Σ (y* - y)`; `mean_regret`, the mean of y* - y over the interventions made;
  `gap = (max y - y0) / (y* - y0)`; and, with h the first step that reached
  max y, `gap_speed = (gap + (H - h) / H) / (1 + (H - 1) / H)`. The latter is
  the GAP of "Causal Entropy Optimization" (Branchini et al., 2023), except that
  y* is that of the SCM, not the best value found by any method.

  Args:
    episode: an episode with at least one intervention.
    num_interventions: maximum number H of interventions.

  Returns:
    {name: value} for each of `MEASURES`; the first two in the target's units.
  """
  goal, steps = episode.goal, episode.steps
  y0, top = goal * episode.no_intervention, goal * episode.optimum
  y = goal * np.asarray(steps['expected_outcome'])
  last = goal * steps['recommended_expected'][-1]
  gap = float((y.max() - y0) / (top - y0))
  best_step = int(y.argmax()) + 1
  speed = (num_interventions - best_step) / num_interventions
  highest = 1 + (num_interventions - 1) / num_interventions
  return {
    'best_expected': steps['best_expected'][-1],
    'recommended_expected': steps['recommended_expected'][-1],
    'score': (last - y0) / (top - y0),
    'simple_regret': top - last,
    'cumulative_regret': float((top - y).sum()),
    'mean_regret': float((top - y).mean()),
    'gap': gap,
    'gap_speed': (gap + speed) / highest,
  }


def summarize(
  episodes: Sequence[episodes_lib.Episode],
  num_interventions: int,
  confidence: float,
) -> dict[str, Any]:
  """Computes the means, intervals and paired differences of all methods.

  Args:
    episodes: episodes with the same repeats of every method on an SCM.
    num_interventions: maximum number H of interventions.
    confidence: confidence level of the intervals.

  Returns:
    `{'scms': {scm: {'goal', 'no_intervention', 'optimum', 'methods': {method:
    {each of MEASURES, 'parents', 'seconds_per_decision', 'repeats',
    'interventions' (mean number made), 'ended_early' (number of episodes with
    fewer than H)}}, 'grpo_minus': {method: {each of MEASURES}}}}, 'overall':
    {method: {'score', 'seconds_per_decision', 'predicted'}}}`. The overall
    score is None for a method without episodes on some SCM; `predicted` has the
    share of the intervals that contain E[Y | do] of the recommendation,
    `covered`, and the mean `crps` in units of the gain of the optimum, or is
    None for a method that predicts nothing. Differences of expected outcomes
    are in the target's units: where the goal is -1, negative is better.

  Raises:
    ValueError: a method lacks a repeat that another one has.
  """
  scms, scores = {}, {}
  for scm in dict.fromkeys(episode.scm for episode in episodes):
    of_methods = _by_method([e for e in episodes if e.scm == scm])
    values = {
      method: _measures(part, num_interventions)
      for method, part in of_methods.items()
    }
    for method, measures in values.items():
      scores.setdefault(method, []).append(measures[MEASURES.index('score')])
    first = next(iter(of_methods.values()))
    scms[scm] = {
      'goal': float(np.mean([e.goal for e in first])),
      'no_intervention': float(np.mean([e.no_intervention for e in first])),
      'optimum': float(np.mean([e.optimum for e in first])),
      'methods': {
        method: {
          **_by_measure(statistics.estimates(values[method], confidence)),
          'parents': _belief_quality(part),
          'seconds_per_decision': _median_seconds(part),
          'repeats': len(part),
          'interventions': float(
            np.mean([len(e.steps['outcome']) for e in part])
          ),
          'ended_early': sum(
            len(e.steps['outcome']) < num_interventions for e in part
          ),
        }
        for method, part in of_methods.items()
      },
      'grpo_minus': {
        method: _by_measure(
          statistics.estimates(values[_REFERENCE] - other, confidence)
        )
        for method, other in values.items()
        if _REFERENCE in values and method != _REFERENCE
      },
    }
  return {
    'scms': scms,
    'overall': {
      method: {
        'score': statistics.stratified_estimate(strata, confidence)
        if len(strata) == len(scms)
        else None,
        'seconds_per_decision': _median_seconds(
          [e for e in episodes if e.method == method]
        ),
        'predicted': _predictions([e for e in episodes if e.method == method]),
      }
      for method, strata in scores.items()
    },
  }


def _by_method(
  episodes: Sequence[episodes_lib.Episode],
) -> dict[str, list[episodes_lib.Episode]]:
  """Returns {method: its episodes sorted by repeat}.

  Raises:
    ValueError: a method lacks a repeat that another one has.
  """
  groups: dict[str, list[episodes_lib.Episode]] = {}
  for episode in sorted(episodes, key=lambda e: e.repeat):
    groups.setdefault(episode.method, []).append(episode)
  repeats = {m: [e.repeat for e in part] for m, part in groups.items()}
  if len({tuple(each) for each in repeats.values()}) > 1:
    raise ValueError(
      'methods are compared in pairs and must have the same repeats; they have '
      f'{repeats}'
    )
  # Methods keep the order of `episodes`.
  return {e.method: groups[e.method] for e in episodes}


def curves(
  episodes: Sequence[episodes_lib.Episode],
  column: str,
  num_interventions: int,
  normalized: bool,
) -> dict[str, np.ndarray]:
  """Returns a column of the results as an array over the steps.

  Args:
    episodes: episodes on one SCM.
    column: name of the column, such as 'best_expected'.
    num_interventions: maximum number T of interventions.
    normalized: whether to rescale the values to 0 for no intervention and 1 for
      the optimum; otherwise they are in the target's units.

  Returns:
    {method: [n, T]}. Episodes that ended early are padded with their last
    value.
  """

  def curve(episode):
    values = np.asarray(episode.steps[column])
    if normalized:
      gain = episode.optimum - episode.no_intervention
      values = (values - episode.no_intervention) / gain
    return np.pad(values, (0, num_interventions - len(values)), 'edge')

  return {
    method: np.stack([curve(episode) for episode in part])
    for method, part in _by_method(episodes).items()
  }


def cumulative_seconds(
  episodes: Sequence[episodes_lib.Episode], num_interventions: int
) -> dict[str, np.ndarray]:
  """Computes the computing time up to each step.

  Args:
    episodes: episodes on any number of SCMs.
    num_interventions: maximum number T of interventions.

  Returns:
    {method: [T] seconds}, the cumulative sum of the median over the episodes
    that reached each step.
  """
  of_step: dict[str, list[list[float]]] = {}
  for episode in episodes:
    steps = of_step.setdefault(
      episode.method, [[] for _ in range(num_interventions)]
    )
    for step, seconds in zip(steps, episode.steps['seconds'], strict=False):
      step.append(seconds)
  return {
    method: np.cumsum([np.median(step) if step else 0.0 for step in steps])
    for method, steps in of_step.items()
  }


def _measures(episodes, num_interventions):
  """Returns [K, n] values of the `MEASURES` of each episode."""
  rows = [episode_measures(episode, num_interventions) for episode in episodes]
  return np.array([[row[name] for row in rows] for name in MEASURES])


def _by_measure(estimates):
  return dict(zip(MEASURES, estimates, strict=True))


def _median_seconds(episodes) -> float:
  """Returns the median time of a decision, over all episodes."""
  return float(
    np.median(np.concatenate([e.steps['seconds'] for e in episodes]))
  )


def _predictions(episodes) -> dict[str, float] | None:
  """Judges the predictions for the last recommendations, if there are any."""
  predicted = [(e.predicted, e) for e in episodes if e.predicted]
  if not predicted:
    return None
  return {
    'covered': float(
      np.mean(
        [
          one['low'] <= e.steps['recommended_expected'][-1] <= one['high']
          for one, e in predicted
        ]
      )
    ),
    'crps': float(np.mean([one['crps'] for one, _ in predicted])),
  }


def _belief_quality(episodes) -> dict[str, Any]:
  """Computes the quality of each belief after the last step."""
  causes = np.concatenate([np.asarray(e.causes, bool) for e in episodes])
  return {
    belief: statistics.parent_set_quality(
      np.concatenate([e.parent_probabilities[belief] for e in episodes]),
      causes,
      np.ones_like(causes),
    )
    if len(np.unique(causes)) == 2
    else {'undefined': 'all candidates are parents of the target, or none is'}
    for belief in episodes[0].parent_probabilities
  }
