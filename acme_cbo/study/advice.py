"""Advice on a study: what to recommend, how sure it is, when to stop, and why.

Which experiment is recommended, the policy decides; how sure that is, its
predictions say.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import math
from typing import NamedTuple

import numpy as np
from scipy import special

from acme_cbo.infra import errors
from acme_cbo.policies import prediction as prediction_lib
from acme_cbo.study import digits
from acme_cbo.study import space as space_lib
from acme_cbo.study import state as state_lib

# Predictions for interventions, {variable: value} each.
Predict = Callable[
  [Sequence[Mapping[str, float]]], Sequence[prediction_lib.Prediction]
]
# Outcomes that a sentence lists.
_MAX_OUTCOMES = 5
# One of fewer outcomes cannot be told to be far from the others, by this many
# times their range.
_MIN_KNOWN = 5
_FAR = 3
# The advice is to stop when the recommendation is the same after this many
# experiments, plus this share of all that are planned. In simulated studies
# that loses little; docs/studies.md has the figures.
_STABLE = 4
_STABLE_SHARE = 0.15
# The rest of simulated studies gained this much of the width of the interval of
# the recommendation, times the share of the experiments that was left.
_GAIN = 0.06


@dataclasses.dataclass(frozen=True)
class Trial:
  """A suggested experiment.

  Attributes:
    number: number of the experiment, to report its outcome by.
    do: {variable: value to set it to}.
    prediction: prediction of the target under it, or None as long as there is
      nothing to predict from.
    why: what is known about it, in a sentence.
    warnings: how the study is outside of what the policy was trained on.
    gp_bo: what the method `gp_bo` would do instead, {variable: value}, or None
      where that was not asked for.
  """

  number: int
  do: dict[str, float | bool]
  prediction: prediction_lib.Estimate | None
  why: str
  warnings: tuple[str, ...]
  gp_bo: dict[str, float] | None = None


class Recommendation(NamedTuple):
  """The best setting found so far.

  Attributes:
    number: number of the experiment that it repeats, or None if it was not
      tried.
    do: {variable: value}.
    prediction: prediction of the target under it.
    nothing: prediction of the target under no intervention, or None without
      records.
    better_than_nothing: probability that its expected target is better, or None
      without records.
    runner_up: {variable: value} of the best other setting, or None.
    better_than_runner_up: probability that its expected target is better, or
      None without a runner-up.
  """

  number: int | None
  do: dict[str, float]
  prediction: prediction_lib.Estimate
  nothing: prediction_lib.Estimate | None
  better_than_nothing: float | None
  runner_up: dict[str, float] | None
  better_than_runner_up: float | None


class StopAdvice(NamedTuple):
  """Whether to go on.

  Attributes:
    stop: whether the advice is to stop.
    unchanged: number of the last experiments after which the recommendation is
      the same.
    expected_gain: expected improvement of the target by the rest of the
      experiments, in its own units: what they gained on average in simulated
      studies with as wide an interval of the recommendation.
    experiments_left: number of experiments that the rest of the budget pays
      for, or None where there is no limit.
    reason: the advice in a sentence.
  """

  stop: bool
  unchanged: int
  expected_gain: float
  experiments_left: int | None
  reason: str


def recommendation(
  state: state_lib.State,
  predict: Predict,
  number: int,
  untried: Sequence[dict[str, float]] = (),
) -> Recommendation:
  """Returns what there is to say about a recommended experiment.

  Args:
    state: state of the study.
    predict: predictions for interventions, {variable: value} each.
    number: number of the recommended experiment.
    untried: allowed interventions to recommend instead, if one of them has a
      better expected target.
  """
  sign = state.settings.sign
  found = state.space.nearest(state.experiments[number].do)
  assert found is not None
  candidates = [found, *untried]
  tried = [dict(one.do) for one in state.observed if state.space.has(one.do)]
  predicted = predict([*candidates, *tried])
  k = int(np.argmax([sign * one.mean for one in predicted[: len(candidates)]]))
  do, best = candidates[k], predicted[k]
  others = [
    (other, prediction)
    for other, prediction in zip(
      tried, predicted[len(candidates) :], strict=True
    )
    if state.space.distance(other, do) > space_lib.SAME
  ]

  def is_better_than(other):
    better, worse = (best, other) if sign > 0 else (other, best)
    return float(better.probability_above(worse))

  runner_up = better_than_runner_up = None
  if others:
    runner_up, prediction = max(others, key=lambda one: sign * one[1].mean)
    better_than_runner_up = is_better_than(prediction)
  nothing = _predict_nothing(state)
  return Recommendation(
    number if do is found else None,
    do,
    best.estimate,
    None if nothing is None else nothing.estimate,
    None if nothing is None else is_better_than(nothing),
    runner_up,
    better_than_runner_up,
  )


def _predict_nothing(
  state: state_lib.State,
) -> prediction_lib.Prediction | None:
  """Predicts the target under no intervention, from the passive records.

  It is the posterior of a normal distribution, nothing of which was known: None
  where there are fewer than two records.

  Args:
    state: state of the study.
  """
  column = state.settings.columns.index(state.settings.target)
  passive = state.records[:, column]
  n = len(passive)
  if n < 2:
    return None
  mean, deviation = float(np.mean(passive)), float(np.std(passive, ddof=1))
  quantiles = deviation * special.stdtrit(n - 1, prediction_lib.LEVELS)
  return prediction_lib.Prediction(
    mean,
    mean + quantiles * math.sqrt(1 / n),
    mean + quantiles * math.sqrt(1 + 1 / n),
  )


def evidence(
  state: state_lib.State,
  do: Mapping[str, float],
  causes: Mapping[str, float],
) -> str:
  """Returns, in a sentence, what is known about an intervention.

  Args:
    state: state of the study.
    do: {variable: value}.
    causes: {variable: probability that it is a direct cause of the target}.
  """
  target = state.settings.target
  sentences = [experience(state, do)]
  if _replicates(state, do):
    sentences.append(f'a replicate tells how much {target} varies')
  for name in do:
    parts = []
    if name in causes:
      parts.append(f'p = {causes[name]:.2f} that it is a direct cause')
    correlation = _correlation(state, name)
    if correlation is not None:
      parts.append(f'r = {correlation:.2f} with {target} in the records')
    if parts:
      sentences.append(f'{name}: {", ".join(parts)}')
  return '; '.join(sentences)


def experience(state: state_lib.State, do: Mapping[str, float]) -> str:
  """Returns, in a sentence, which experiments were like an intervention.

  Args:
    state: state of the study.
    do: {variable: value}.
  """
  target = state.settings.target
  setting = shown(state, do)
  if replicates := _replicates(state, do):
    outcomes = [target_text(state, one.outcome[target]) for one in replicates]
    times = {1: 'once', 2: 'twice'}.get(len(outcomes), f'{len(outcomes)} times')
    listed = errors.format_list(outcomes, _MAX_OUTCOMES, 'more', ', ')
    return f'about {setting} was set {times}: {target} {listed}'
  same_set = [one for one in state.observed if one.do.keys() == do.keys()]
  if same_set:
    near = min(same_set, key=lambda one: state.space.distance(one.do, do))
    result = target_text(state, near.outcome[target])
    return (
      f'the nearest of {len(same_set)} experiments on the same variables is '
      f'number {near.number}, at {shown(state, near.do)}: {target} {result}'
    )
  # A prediction is then little more than the prior.
  return f'no experiment has set exactly {" and ".join(do)} yet'


def _replicates(state, do) -> list[state_lib.Experiment]:
  """Returns the experiments of an intervention, or of nearly the same."""
  return [
    one
    for one in state.observed
    if one.do.keys() == do.keys()
    and state.space.distance(one.do, do) <= space_lib.SAME
  ]


def shown(
  state: state_lib.State, do: Mapping[str, float], sign: str = ' '
) -> str:
  """Returns an intervention, as in 'feed 2.5, stirring 400'.

  Args:
    state: state of the study.
    do: {variable: value}.
    sign: text between a name and its value.
  """
  return ', '.join(
    f'{name}{sign}{value_text(state, name, x)}' for name, x in do.items()
  )


def value_text(state: state_lib.State, name: str, value: float) -> str:
  """Returns a value of a variable with the digits that can be set."""
  one = state.space.variables.get(name)
  return digits.exact(value) if one is None else one.format(value)


def target_text(state: state_lib.State, value: float) -> str:
  """Returns an outcome with as many digits as the spread of all is worth.

  Args:
    state: state of the study.
    value: value of the target.
  """
  return digits.of_range(value, state.target_range)


def oddities(state: state_lib.State, numbers: Sequence[int]) -> list[str]:
  """Returns what may be slips of the pen in experiments, in sentences.

  Args:
    state: state of the study with the experiments.
    numbers: numbers of the experiments.
  """
  target = state.settings.target
  passive = state.records[:, state.settings.columns.index(target)]
  outcomes = {one.number: one.outcome[target] for one in state.observed}
  sentences = []
  for number in numbers:
    experiment = state.experiments[number]
    action = 'amend' if experiment.status == 'observed' else 'withdraw'
    correct = f'if it is a slip, {action} experiment {number}'
    for name, value in experiment.do.items():
      one = state.space.variables.get(name)
      if one is None:
        continue
      allowed = {name: one.nearest(value)}
      if state.space.distance({name: value}, allowed) > space_lib.SAME:
        sentences.append(
          f'{name} was set to {digits.exact(value)}, and it may be '
          f'{one.describe()}; {correct}'
        )
    others = [y for other, y in outcomes.items() if other != number]
    known = np.append(passive, others)
    if number in outcomes and len(known) >= _MIN_KNOWN:
      value, low, high = outcomes[number], known.min(), known.max()
      far = _FAR * (high - low)
      if not low - far <= value <= high + far:
        sentences.append(
          f'{target} is {digits.exact(value)}, and all other values lie '
          f'between {digits.exact(float(low))} and '
          f'{digits.exact(float(high))}; {correct}'
        )
  return sentences


def _correlation(state: state_lib.State, name: str) -> float | None:
  """Returns the correlation of a variable with the target in the records."""
  columns = state.settings.columns
  pair = state.records[
    :, [columns.index(name), columns.index(state.settings.target)]
  ]
  pair = pair[np.isfinite(pair).all(1)]
  if len(pair) < 5 or not np.ptp(pair, axis=0).all():
    return None
  return float(np.corrcoef(pair.T)[0, 1])


def stop_advice(
  state: state_lib.State, best: Recommendation, unchanged: int, planned: int
) -> StopAdvice:
  """Advises whether the rest of the experiments is worth its cost.

  Args:
    state: state of the study.
    best: the current recommendation.
    unchanged: number of the last experiments after which it is the same.
    planned: number of experiments that the study has room for.
  """
  left = experiments_left(state)
  low, high = best.prediction.interval
  share_left = 1.0 if left is None else min(1.0, left / planned)
  gain = _GAIN * (high - low) * share_left
  needed = math.ceil(_STABLE + _STABLE_SHARE * planned)
  stop = unchanged >= needed
  if left == 0:
    return StopAdvice(True, unchanged, 0.0, 0, 'no experiments are left')
  since = (
    f'the recommendation is the same after {unchanged} experiments in a row'
    if unchanged > 1
    else 'the recommendation is new'
  )
  advice = 'stop' if stop else f'go on until it is the same after {needed}'
  more = 'more experiments' if left is None else f'the {left} that are left'
  reason = (
    f'{since}: {advice}; {more} are expected to improve '
    f'{state.settings.target} by {digits.estimate(gain, high - low)} in all'
  )
  return StopAdvice(stop, unchanged, gain, left, reason)


def experiments_left(state: state_lib.State) -> int | None:
  """Returns how many experiments the limits of a study leave at most."""
  settings = state.settings
  limits = []
  if settings.experiments is not None:
    limits.append(settings.experiments - len(state.counted))
  if settings.budget is not None:
    limits.append(state.num_affordable(settings.budget - state.spent))
  return max(0, min(limits)) if limits else None
