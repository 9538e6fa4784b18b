"""Report of a study as one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import io
import pathlib
from typing import Any
import warnings as warnings_lib

import matplotlib as mpl
from matplotlib import figure as figure_lib
from matplotlib import ticker
import numpy as np

from acme_cbo.evaluation import html
from acme_cbo.evaluation import plots
from acme_cbo.infra import text as text_lib
from acme_cbo.policies import prediction
from acme_cbo.study import advice
from acme_cbo.study import digits
from acme_cbo.study import state as state_lib
from acme_cbo.study import terminal

_TEMPLATE = pathlib.Path(__file__).with_name('report.html.jinja')
# Points of a curve over a domain.
_POINTS = 60
# Panels of the figure of the variables.
_MAX_PANELS = 10
# Inches; as wide as a page that is narrow can show with legible text.
_WIDTH = 5
# Characters of a name in a figure.
_MAX_NAME = 22
_BLUE, _ORANGE, _GREY = '#0072b2', '#d55e00', '#777777'


def render(
  state: state_lib.State,
  predict: advice.Predict,
  best: advice.Recommendation | None,
  stop: advice.StopAdvice | None,
  beliefs: Sequence[Mapping[str, float]],
  warnings: Sequence[str],
) -> str:
  """Renders the page.

  Args:
    state: state of the study.
    predict: predictions for interventions; none if there is nothing to learn
      from.
    best: the recommendation, or None.
    stop: whether to go on, or None.
    beliefs: {variable: probability to be a direct cause} before the first
      experiment and after each.
    warnings: how the study is outside of what the policy was trained on.

  Returns:
    HTML, in which all content of the study is escaped.
  """
  settings = state.settings
  figures = {}
  if beliefs and state.observed:
    figures['outcomes'] = _svg(_outcomes, state, predict, best)
    figures['variables'] = _svg(_variables, state, predict, best)
  if len(beliefs) > 1:
    figures['causes'] = _svg(_causes, beliefs, settings.target)
  return html.render(
    _TEMPLATE,
    target=settings.target,
    goal=settings.goal,
    verdict=terminal.verdict(state, best),
    stop=stop,
    progress=terminal.progress(state),
    coverage=f'{100 * prediction.COVERAGE:.0f}%',
    figures=figures,
    causes=sorted(
      (beliefs[-1] if beliefs else {}).items(), key=lambda x: -x[1]
    ),
    variables=[
      (name, one.describe(), digits.exact(one.cost))
      for name, one in state.space.variables.items()
    ],
    constraints=settings.constraints,
    columns=[name for name in settings.columns if name != settings.target],
    experiments=[_row(state, one) for one in state.experiments.values()],
    warnings=warnings,
  )


def _row(state: state_lib.State, one: state_lib.Experiment) -> dict[str, Any]:
  """Returns the cells of an experiment."""
  others = [x for x in state.settings.columns if x != state.settings.target]
  values = one.values
  return {
    'number': one.number,
    'status': _status(one),
    'cells': [
      (
        advice.value_text(state, name, values[name]) if name in values else '',
        name in one.do,
      )
      for name in others
    ],
    'target': advice.target_text(state, values[state.settings.target])
    if state.settings.target in values
    else '',
    'reason': one.reason,
  }


def _status(one: state_lib.Experiment) -> str:
  """Returns the status of an experiment, and where it came from."""
  words = ['past' if one.is_past else one.status]
  if not (one.is_past or one.is_suggested):
    words.append('not suggested')
  if one.is_amended:
    words.append('amended')
  return ', '.join(words)


def _outcomes(state, predict, best) -> figure_lib.Figure:
  """Draws outcomes and expected targets over the experiments."""
  target, observed = state.settings.target, state.observed
  predicted = predict([one.do for one in observed])
  sign = state.settings.sign
  numbers = [one.number for one in observed]
  means = np.array([one.mean for one in predicted])
  figure = plots.empty(_WIDTH, 3.4)
  axis = figure.subplots()
  axis.scatter(
    numbers,
    [one.outcome[target] for one in observed],
    color=_GREY,
    s=22,
    label='outcome',
    zorder=3,
  )
  low, high = np.transpose([one.interval for one in predicted])
  axis.vlines(
    numbers, low, high, color=_BLUE, alpha=0.5, label='its expected value'
  )
  axis.step(
    numbers,
    sign * np.maximum.accumulate(sign * means),
    where='post',
    color=_BLUE,
    linewidth=2,
    label='best expected so far',
  )
  if best is not None and best.nothing is not None:
    axis.axhline(
      best.nothing.mean, color='0.45', linestyle=':', label='doing nothing'
    )
  axis.set_xlabel('experiment')
  axis.set_ylabel(_label(target))
  axis.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
  _finish(figure, axis)
  return figure


def _variables(state, predict, best) -> figure_lib.Figure:
  """Draws a panel for each variable: outcomes, prediction, pending, best."""
  target = state.settings.target
  names = [*state.space.variables][:_MAX_PANELS]
  columns = min(2, len(names))
  rows = -(-len(names) // columns)
  figure = plots.empty(_WIDTH, 2.3 * rows + 1)
  grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
  for axis, name in zip(grid.flat, names, strict=False):
    one = state.space.variables[name]
    rest = {}
    if frozenset([name]) not in state.space.sets and best is not None:
      rest = {other: x for other, x in best.do.items() if other != name}
    points = np.linspace(one.low, one.high, _POINTS)
    predicted = predict([{**rest, name: float(x)} for x in points])
    low, high = np.transpose([p.interval for p in predicted])
    axis.fill_between(points, low, high, color=_BLUE, alpha=0.15, linewidth=0)
    axis.plot(
      points,
      [p.mean for p in predicted],
      color=_BLUE,
      label='expected'
      + (f', with {advice.shown(state, rest, " = ")}' if rest else ''),
    )
    for alone in (False, True):
      shown = [
        x for x in state.observed if name in x.do and (len(x.do) == 1) == alone
      ]
      axis.scatter(
        [x.do[name] for x in shown],
        [x.outcome[target] for x in shown],
        color=_GREY if alone else 'none',
        edgecolor=_GREY,
        s=20,
        label='outcome' if alone else 'outcome, other variables set too',
        zorder=3,
      )
    for number, pending in enumerate(state.pending):
      if name in pending.do:
        axis.axvline(
          pending.do[name],
          color=_ORANGE,
          linestyle='--',
          linewidth=1.2,
          label='pending' if not number else None,
        )
    if best is not None and name in best.do:
      axis.plot(
        best.do[name],
        best.prediction.mean,
        marker='*',
        markersize=13,
        color=_ORANGE,
        linestyle='none',
        label='recommended'
        + (', other variables set too' if len(best.do) > 1 else ''),
        zorder=4,
      )
    axis.set_xlabel(_label(name))
    axis.grid(alpha=0.25)
    axis.spines[['top', 'right']].set_visible(False)
  for axis in [*grid.flat][len(names) :]:
    axis.set_visible(False)
  for row in grid:
    row[0].set_ylabel(_label(target))
  handles: dict[str, Any] = {}
  for axis in grid.flat:
    for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
      handles.setdefault(label, handle)
  figure.legend(
    handles.values(),
    handles.keys(),
    loc='outside lower center',
    ncol=2,
    frameon=False,
    fontsize=9,
  )
  return figure


def _causes(beliefs, target) -> figure_lib.Figure:
  """Draws the belief in the direct causes over the experiments."""
  last = beliefs[-1]
  names = sorted(last, key=lambda name: -last[name])[: len(plots.STYLES)]
  figure = plots.empty(_WIDTH, 3)
  axis = figure.subplots()
  for name, (color, line) in zip(names, plots.STYLES, strict=False):
    axis.plot(
      range(len(beliefs)),
      [belief[name] for belief in beliefs],
      color=color,
      linestyle=line,
      linewidth=2,
      label=_label(name),
    )
  axis.set_ylim(-0.02, 1.02)
  axis.set_xlabel('outcomes')
  axis.set_ylabel(f'probability to\ncause {_label(target)} directly')
  axis.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
  _finish(figure, axis)
  return figure


def _finish(figure, axis) -> None:
  axis.grid(alpha=0.25)
  axis.spines[['top', 'right']].set_visible(False)
  figure.legend(loc='outside lower center', ncol=2, frameon=False, fontsize=9)


def _label(name: str) -> str:
  """Returns the text of a name that has room in a figure."""
  text = text_lib.short(text_lib.printable(name), _MAX_NAME)
  # matplotlib leaves labels out of a legend that begin with an underscore.
  return f' {text}' if text.startswith('_') else text


def _svg(draw: Callable[..., figure_lib.Figure], *arguments) -> str:
  """Returns a figure as SVG, whose text the browser draws.

  Args:
    draw: function that draws it.
    *arguments: its arguments.
  """
  buffer = io.StringIO()
  settings = {
    # The same figure gives the same text.
    'svg.hashsalt': 'acme_cbo',
    'svg.fonttype': 'none',
    # Names are text, whatever they look like.
    'text.parse_math': False,
  }
  with mpl.rc_context(settings), warnings_lib.catch_warnings():
    # The browser has other fonts, with the letters of other languages.
    warnings_lib.filterwarnings('ignore', 'Glyph .* missing from font')
    draw(*arguments).savefig(buffer, format='svg', metadata={'Date': None})
  text = buffer.getvalue()
  return text[text.index('<svg') :]
