"""Texts of a study for a terminal, at most 80 columns wide."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import textwrap

from acme_cbo.infra import text as text_lib
from acme_cbo.study import advice
from acme_cbo.study import prediction
from acme_cbo.study import state as state_lib

_WIDTH = 80
# Characters of a name in a table.
_MAX_NAME = 24
_MAX_ROWS = 20


def intervention(do: Mapping[str, float | bool]) -> str:
  """Returns an intervention, as in 'feed = 2.5, stirring = 400'."""
  return ', '.join(f'{name} = {value(x)}' for name, x in do.items())


def value(number: float | bool) -> str:
  """Returns a value with as many digits as people read."""
  return str(number) if isinstance(number, bool) else f'{number:.5g}'


def range_of(interval: tuple[float, float]) -> str:
  """Returns an interval, as in '[4.9, 5.7]'."""
  return f'[{interval[0]:.4g}, {interval[1]:.4g}]'


def suggestions(trials: Sequence[advice.Trial], target: str) -> str:
  """Returns suggestions, each with its prediction and its evidence.

  Args:
    trials: the suggestions.
    target: name of the target.
  """
  blocks = []
  for trial in trials:
    lines = [f'experiment {trial.number}: set {intervention(trial.do)}']
    if trial.prediction is not None:
      lines += _wrapped(_predicted(trial.prediction, target))
    lines += _wrapped(trial.why)
    blocks.append('\n'.join(lines))
  for warning in trials[-1].warnings if trials else ():
    blocks += textwrap.wrap(
      f'warning: the policy was not trained for this: {warning}', _WIDTH
    )
  return text_lib.printable('\n'.join(blocks))


def _predicted(one: prediction.Prediction, target: str) -> str:
  return (
    f'{target} {one.mean:.4g} {range_of(one.interval)} expected, the outcome '
    f'in {range_of(one.outcome_interval)} ({100 * prediction.COVERAGE:.0f} %)'
  )


def predicted(
  do: Mapping[str, float], one: prediction.Prediction, target: str
) -> str:
  """Returns a prediction.

  Args:
    do: the intervention.
    one: its prediction.
    target: name of the target.
  """
  lines = [intervention(do), *_wrapped(_predicted(one, target))]
  return text_lib.printable('\n'.join(lines))


def recommended(
  best: advice.Recommendation | None, target: str, goal: str
) -> str:
  """Returns a recommendation, and how sure it is.

  Args:
    best: the recommendation, or None.
    target: name of the target.
    goal: 'maximize' or 'minimize'.
  """
  if best is None:
    return 'no recommendation yet: it takes an outcome'
  lines = [f'set {intervention(best.do)} (experiment {best.number})']
  lines += _wrapped(_predicted(best.prediction, target))
  if best.nothing is not None and best.better_than_nothing is not None:
    difference = best.prediction.mean - best.nothing.mean
    side = 'above' if difference > 0 else 'below'
    lines += _wrapped(
      f'{abs(difference):.4g} {side} doing nothing ({best.nothing.mean:.4g} '
      f'{range_of(best.nothing.interval)}); better with a probability of '
      f'{best.better_than_nothing:.2f}'
    )
  lines += _wrapped(best.comparison())
  return text_lib.printable('\n'.join(lines))


def causes(probabilities: Mapping[str, float], target: str) -> str:
  """Returns the probability of each variable to be a direct cause.

  Args:
    probabilities: {variable: probability}.
    target: name of the target.
  """
  if not probabilities:
    return 'nothing is known yet: it takes records, or outcomes'
  rows = sorted(probabilities.items(), key=lambda item: -item[1])
  return text_lib.printable(
    '\n'.join(
      [
        f'probability to cause {target} directly',
        *(
          f'  {_short(name):<{_MAX_NAME}} {p:5.2f}  {"#" * round(40 * p)}'
          for name, p in rows
        ),
      ]
    )
  )


def status(state: state_lib.State) -> str:
  """Returns what a study has, and what it has left.

  Args:
    state: state of the study.
  """
  settings = state.settings
  left = advice.experiments_left(state)
  lines = [
    f'{settings.goal} {settings.target}: {len(state.records)} records, '
    f'{len(state.observed)} outcomes, {len(state.pending)} pending, '
    f'{len(state.failed)} failed'
  ]
  if settings.budget is not None:
    lines.append(f'budget: {state.spent:g} of {settings.budget:g} spent')
  if left is not None:
    lines.append(f'at most {left} experiments left')
  lines += [
    f'  pending: experiment {one.number}, {intervention(one.do)}'
    for one in state.pending[:_MAX_ROWS]
  ]
  if len(state.pending) > _MAX_ROWS:
    lines.append(f'  and {len(state.pending) - _MAX_ROWS} more')
  return text_lib.printable('\n'.join(lines))


def _short(name: str) -> str:
  return name if len(name) <= _MAX_NAME else f'{name[: _MAX_NAME - 1]}…'


def _wrapped(sentence: str) -> list[str]:
  return textwrap.wrap(
    sentence,
    _WIDTH,
    initial_indent='  ',
    subsequent_indent='  ',
    break_on_hyphens=False,
  )
