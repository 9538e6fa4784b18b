"""What the episodes of several methods come to, SCM by SCM.

The independent unit is the repeat: all methods met the same data and noise in
it, so that they are compared in pairs.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from acme_cbo.evaluation import episodes as episodes_lib
from acme_cbo.evaluation import statistics

# What `of_episode` tells of an episode.
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
# The one whose differences from all others are reported.
_REFERENCE = 'grpo'


def table(episodes: Sequence[episodes_lib.Episode]) -> pd.DataFrame:
  """One row per method, SCM, repeat and step, as `results.csv` holds it."""
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


def of_episode(
  episode: episodes_lib.Episode, num_interventions: int
) -> dict[str, float]:
  """How good one episode was.

  With y the expected outcomes signed by the goal, y* the optimum's, y0 that of
  no intervention, r that of the last recommendation and H interventions:

  `score = (r - y0) / (y* - y0)`; `simple_regret = y* - r`; `cumulative_regret =
  Σ (y* - y)`; `mean_regret`, that over the interventions that were made;
  `gap = (max y - y0) / (y* - y0)`; and, with h the first step that reached
  max y, `gap_speed = (gap + (H - h) / H) / (1 + (H - 1) / H)`, the GAP of
  "Causal Entropy Optimization" (Branchini et al., 2023), but with y* from the
  SCM, not from the best of all methods.

  Args:
    episode: of one intervention at least.
    num_interventions: H, those that were allowed.

  Returns:
    {name: value} for each of `MEASURES`; the first two in the target's units.
  """
  goal, steps = episode.goal, episode.steps
  y0, top = goal * episode.no_intervention, goal * episode.optimum
  y = goal * np.asarray(steps['expected_outcome'])
  last = goal * steps['recommended_expected'][-1]
  gap = float((y.max() - y0) / (top - y0))
  found_at = int(y.argmax()) + 1
  speed = (num_interventions - found_at) / num_interventions
  most = 1 + (num_interventions - 1) / num_interventions
  return {
    'best_expected': steps['best_expected'][-1],
    'recommended_expected': steps['recommended_expected'][-1],
    'score': (last - y0) / (top - y0),
    'simple_regret': top - last,
    'cumulative_regret': float((top - y).sum()),
    'mean_regret': float((top - y).mean()),
    'gap': gap,
    'gap_speed': (gap + speed) / most,
  }


def summarise(
  episodes: Sequence[episodes_lib.Episode],
  num_interventions: int,
  confidence: float,
) -> dict[str, Any]:
  """What all of it comes to.

  Args:
    episodes: the same repeats of every method on every SCM.
    num_interventions: H, those that were allowed.
    confidence: of the intervals.

  Returns:
    `{'scms': {scm: {'goal', 'no_intervention', 'optimum', 'methods': {method:
    {each of MEASURES, 'parents', 'seconds_per_decision', 'repeats',
    'interventions' (the mean of those made), 'ended_early'}}, 'grpo_minus':
    {method: {each of MEASURES}}}}, 'overall': {method: {'score',
    'seconds_per_decision'}}}`; the score of what did not play on every SCM is
    None. Differences of expected outcomes are in the target's units: negative
    is better where the goal is -1.
  """
  scms, scores = {}, {}
  for scm in dict.fromkeys(episode.scm for episode in episodes):
    played = by_method([e for e in episodes if e.scm == scm])
    values = {
      method: _measured(part, num_interventions)
      for method, part in played.items()
    }
    for method, measured in values.items():
      scores.setdefault(method, []).append(measured[MEASURES.index('score')])
    first = next(iter(played.values()))
    scms[scm] = {
      'goal': float(np.mean([e.goal for e in first])),
      'no_intervention': float(np.mean([e.no_intervention for e in first])),
      'optimum': float(np.mean([e.optimum for e in first])),
      'methods': {
        method: {
          **_named(statistics.estimates(values[method], confidence)),
          'parents': _parents(part),
          'seconds_per_decision': _seconds(part),
          'repeats': len(part),
          'interventions': float(
            np.mean([len(e.steps['outcome']) for e in part])
          ),
          'ended_early': sum(
            len(e.steps['outcome']) < num_interventions for e in part
          ),
        }
        for method, part in played.items()
      },
      'grpo_minus': {
        method: _named(
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
        'seconds_per_decision': _seconds(
          [e for e in episodes if e.method == method]
        ),
      }
      for method, strata in scores.items()
    },
  }


def by_method(
  episodes: Sequence[episodes_lib.Episode],
) -> dict[str, list[episodes_lib.Episode]]:
  """{method: its episodes in the order of the repeats}.

  Raises:
    ValueError: a method lacks a repeat that another one has.
  """
  found: dict[str, list[episodes_lib.Episode]] = {}
  for episode in sorted(episodes, key=lambda e: e.repeat):
    found.setdefault(episode.method, []).append(episode)
  repeats = {m: [e.repeat for e in part] for m, part in found.items()}
  if len({tuple(each) for each in repeats.values()}) > 1:
    raise ValueError(f'methods are compared in pairs; their repeats: {repeats}')
  # In the order in which they were given.
  return {e.method: found[e.method] for e in episodes}


def curves(
  episodes: Sequence[episodes_lib.Episode],
  column: str,
  num_interventions: int,
  normalised: bool,
) -> dict[str, np.ndarray]:
  """A column of the results over the steps of every episode.

  Args:
    episodes: on one SCM.
    column: as 'best_expected'.
    num_interventions: T.
    normalised: 0 at no intervention and 1 at the optimum, in place of the
      target's units.

  Returns:
    {method: [n, T]}. What ended early stays where it ended.
  """

  def one(episode):
    values = np.asarray(episode.steps[column])
    if normalised:
      gain = episode.optimum - episode.no_intervention
      values = (values - episode.no_intervention) / gain
    return np.pad(values, (0, num_interventions - len(values)), 'edge')

  return {
    method: np.stack([one(episode) for episode in part])
    for method, part in by_method(episodes).items()
  }


def seconds(
  episodes: Sequence[episodes_lib.Episode], num_interventions: int
) -> dict[str, np.ndarray]:
  """Seconds of computing up to each step.

  Args:
    episodes: on any SCMs.
    num_interventions: T.

  Returns:
    {method: [T] sum of the medians over episodes of each step, of those that
    reached it}.
  """
  of_step: dict[str, list[list[float]]] = {}
  for episode in episodes:
    steps = of_step.setdefault(
      episode.method, [[] for _ in range(num_interventions)]
    )
    for step, spent in zip(steps, episode.steps['seconds'], strict=False):
      step.append(spent)
  return {
    method: np.cumsum([np.median(step) if step else 0.0 for step in steps])
    for method, steps in of_step.items()
  }


def _measured(episodes, num_interventions):
  """Of each of `MEASURES`, a value for each episode: [K, n]."""
  rows = [of_episode(episode, num_interventions) for episode in episodes]
  return np.array([[row[name] for row in rows] for name in MEASURES])


def _named(estimates):
  return dict(zip(MEASURES, estimates, strict=True))


def _seconds(episodes) -> float:
  """The median over all decisions."""
  return float(
    np.median(np.concatenate([e.steps['seconds'] for e in episodes]))
  )


def _parents(episodes) -> dict[str, Any]:
  """Quality of each belief after the last step, over all repeats."""
  causes = np.concatenate([np.asarray(e.causes, bool) for e in episodes])
  return {
    belief: statistics.parent_set_quality(
      np.concatenate([e.believed[belief] for e in episodes]),
      causes,
      np.ones_like(causes),
    )
    if len(np.unique(causes)) == 2
    else {'undefined': 'all candidates are parents of the target, or none is'}
    for belief in episodes[0].believed
  }
