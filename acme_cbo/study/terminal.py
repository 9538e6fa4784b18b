"""Texts of a study for a terminal, at most 80 columns wide."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import textwrap

import numpy as np

from acme_cbo.infra import errors
from acme_cbo.infra import text as text_lib
from acme_cbo.policies import prediction
from acme_cbo.study import advice
from acme_cbo.study import digits
from acme_cbo.study import evidence
from acme_cbo.study import state as state_lib

_WIDTH = 80
# Characters of a name in a table.
_MAX_NAME = 24
_MAX_ROWS = 20


def suggestions(state: state_lib.State, trials: Sequence[advice.Trial]) -> str:
  """Returns suggestions, each with its prediction and its evidence.

  Args:
    state: state of the study.
    trials: the suggestions.
  """
  lines = []
  for trial in trials:
    lines += _wrapped(
      f'experiment {trial.number}: set {advice.shown(state, trial.do, " = ")}',
      indent='',
    )
    if trial.prediction is not None:
      lines += _wrapped(_predicted(state, trial.prediction))
    lines += _wrapped(trial.why)
    if trial.gp_bo is not None:
      lines += _wrapped(
        'gp_bo, which learns from experiments on the largest sets alone, would '
        f'set {advice.shown(state, trial.gp_bo, " = ")}'
      )
  for warning in trials[-1].warnings if trials else ():
    lines += _wrapped(
      f'warning: the policy was not trained for this: {warning}', indent=''
    )
  return _printable(lines)


def predicted(
  state: state_lib.State, do: Mapping[str, float], one: prediction.Estimate
) -> str:
  """Returns a prediction.

  Args:
    state: state of the study.
    do: the intervention.
    one: its prediction.
  """
  lines = _wrapped(advice.shown(state, do, ' = '), indent='')
  lines += _wrapped(_predicted(state, one))
  lines += _wrapped(advice.experience(state, do))
  if complaint := state.space.complaint(do):
    lines += _wrapped(f'warning: the study does not allow it: {complaint}')
  return _printable(lines)


def recommended(
  state: state_lib.State,
  best: advice.Recommendation | None,
  stop: advice.StopAdvice | None,
) -> str:
  """Returns a recommendation, how sure it is, and whether to stop.

  Args:
    state: state of the study.
    best: the recommendation, or None.
    stop: the advice, or None.
  """
  first, *rest = verdict(state, best)
  lines = _wrapped(first, indent='')
  for sentence in rest:
    lines += _wrapped(sentence)
  if stop is not None:
    lines += _wrapped(f'{stop.reason[0].upper()}{stop.reason[1:]}.', indent='')
  return _printable(lines)


def verdict(
  state: state_lib.State, best: advice.Recommendation | None
) -> list[str]:
  """Returns the sentences that a recommendation consists of.

  Args:
    state: state of the study.
    best: the recommendation, or None.
  """
  if best is None:
    return [f'Nothing to recommend: {evidence.shortfall(state)}.']
  source = (
    'not tried yet' if best.number is None else f'experiment {best.number}'
  )
  sentences = [
    f'Set {advice.shown(state, best.do, " = ")} ({source}): '
    f'{_predicted(state, best.prediction)}.'
  ]
  if best.nothing is not None and best.better_than_nothing is not None:
    difference = best.prediction.mean - best.nothing.mean
    low, high = best.prediction.interval
    side = 'above' if difference > 0 else 'below'
    sentences.append(
      f'That is {digits.estimate(abs(difference), high - low)} {side} doing '
      f'nothing, {_estimate(best.nothing)}; it is better with a probability of '
      f'{best.better_than_nothing:.2f}.'
    )
  if best.runner_up is not None and best.better_than_runner_up is not None:
    other = advice.shown(state, best.runner_up, ' = ')
    p = best.better_than_runner_up
    sentences.append(
      f'It is better than the runner-up, {other}, with a probability of '
      f'{p:.2f}.'
    )
  return sentences


def causes(probabilities: Mapping[str, float], target: str) -> str:
  """Returns the probability of each variable to be a direct cause.

  Args:
    probabilities: {variable: probability}.
    target: name of the target.
  """
  if not probabilities:
    return (
      'nothing is known yet: it takes records, or '
      f'{evidence.NUM_SPREAD} outcomes'
    )
  rows = sorted(probabilities.items(), key=lambda item: -item[1])
  return _printable(
    [
      *_wrapped(f'probability to cause {target} directly', indent=''),
      *(
        f'  {text_lib.short(name, _MAX_NAME):<{_MAX_NAME}} {p:5.2f}  '
        + '#' * round(40 * p)
        for name, p in rows
      ),
      *_wrapped(
        'the belief of the policy; it may change much from one outcome to the '
        'next',
        indent='',
      ),
    ]
  )


def status(state: state_lib.State) -> str:
  """Returns what a study has, and what it has left.

  Args:
    state: state of the study.
  """
  return _printable(
    [
      line
      for sentence in progress(state)
      for line in _wrapped(sentence, indent='')
    ]
  )


def progress(state: state_lib.State) -> list[str]:
  """Returns what a study has, and what it has left, in sentences.

  Args:
    state: state of the study.
  """
  settings = state.settings
  past = sum(one.is_past for one in state.observed)
  sentences = [
    f'{settings.goal} {settings.target}: {len(state.records)} records, {past} '
    f'past experiments; in the study {len(state.observed) - past} outcomes, '
    f'{len(state.pending)} pending, {len(state.failed)} failed'
  ]
  if settings.budget is not None:
    reserved = sum(one.cost for one in state.pending)
    sentences.append(
      f'budget: {digits.cost(state.spent - reserved)} of '
      f'{digits.cost(settings.budget)} spent, {digits.cost(reserved)} reserved '
      'for what is pending'
    )
  known = settings.known_edges()
  if known is not None:
    for value, text in ((1, 'known causes'), (-1, 'ruled out as causes')):
      edges = [
        f'{settings.columns[cause]} -> {settings.columns[effect]}'
        for effect, cause in np.argwhere(known == value)
      ]
      if edges:
        listed = errors.format_list(edges, _MAX_ROWS, 'more', ', ')
        sentences.append(f'{text}: {listed}')
  left = advice.experiments_left(state)
  if left is not None:
    sentences.append(f'at most {left} experiments left')
  sentences += [
    f'pending: experiment {one.number}, {advice.shown(state, one.do, " = ")}'
    for one in state.pending[:_MAX_ROWS]
  ]
  if len(state.pending) > _MAX_ROWS:
    sentences.append(f'and {len(state.pending) - _MAX_ROWS} more pending')
  return sentences


def warning(sentence: str) -> str:
  """Returns a warning."""
  return message(f'warning: {sentence}')


def message(sentence: str) -> str:
  """Returns a sentence."""
  return _printable(_wrapped(sentence, indent=''))


def _predicted(state, one: prediction.Estimate) -> str:
  return (
    f'{state.settings.target} {_estimate(one)} expected, the outcome in '
    f'{_interval(one.outcome_interval)} ({100 * prediction.COVERAGE:.0f} %)'
  )


def _estimate(one: prediction.Estimate) -> str:
  """Returns an expected target and its interval, with the same digits."""
  low, high = one.interval
  mean = digits.estimate(one.mean, high - low)
  return f'{mean} {_interval(one.interval)}'


def _interval(ends: tuple[float, float]) -> str:
  low, high = ends
  low, high = (digits.estimate(end, high - low) for end in ends)
  return f'[{low}, {high}]'


def _wrapped(sentence: str, indent: str = '  ') -> list[str]:
  return textwrap.wrap(
    sentence,
    _WIDTH,
    initial_indent=indent,
    subsequent_indent='  ',
    break_on_hyphens=False,
  )


def _printable(lines: Sequence[str]) -> str:
  return text_lib.printable('\n'.join(lines))
