"""Figures of a comparison report."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib import figure as figure_lib
from matplotlib import ticker
import numpy as np

from acme_cbo.evaluation import plots
from acme_cbo.evaluation.comparison import measures
from acme_cbo.evaluation.comparison import verdict

_WIDTH = 6.0
# Smallest width of the score axis of a ranking.
_MIN_SPAN = 0.1
# Width of a row of the legend, and of a line sample in it, in characters.
_LEGEND_CHARACTERS, _LINE_CHARACTERS = 92, 9


def ranking(result: Mapping[str, Any], confidence: float) -> figure_lib.Figure:
  """Draws mean scores with intervals, and joins models that do not differ.

  A critical-difference diagram (Demšar, "Statistical Comparisons of Classifiers
  over Multiple Data Sets", 2006, section 3.2.4) of means: a bar joins models of
  which no two differ significantly.

  Args:
    result: entry of the score in `measures` of `verdict.compare`.
    confidence: confidence level of the intervals.

  Returns:
    The figure.
  """
  names = result['ranking']
  # Without tests there is one group of all models, which carries no meaning.
  groups = [x for x in result['groups'] if len(x) > 1 and result['pairs']]
  figure = plots.empty(_WIDTH, 0.9 + 0.52 * len(names))
  axes, bars = figure.subplots(
    1, 2, sharey=True, width_ratios=(8, 0.35 + 0.3 * len(groups))
  )
  means = [result['models'][name]['mean'] for name in names]
  for row, name in enumerate(names):
    color, _ = style(row)
    entry = result['models'][name]
    if entry['interval']:
      axes.plot(entry['interval'], [row, row], color=color, lw=2.4)
    axes.plot(entry['mean'], row, 'o', color=color, ms=7)
    # The name is above the line, so that a long one does not shrink the axes.
    axes.annotate(
      f'{_label(name)}  {entry["mean"]:.3f}',
      (0, row - 0.34),
      xycoords=('axes fraction', 'data'),
      va='center',
      fontsize=9,
    )
  axes.set_yticks([])
  axes.set_ylim(len(names) - 0.6, -0.65)
  axes.margins(x=0.06)
  # A wide axis keeps negligible differences small.
  low, high = axes.get_xlim()
  if high - low < _MIN_SPAN:
    middle = (max(means) + min(means)) / 2
    axes.set_xlim(middle - _MIN_SPAN / 2, middle + _MIN_SPAN / 2)
  intervals = any(entry['interval'] for entry in result['models'].values())
  axes.set_xlabel(
    f'score of the last recommendation{_mean_note(intervals, confidence)}'
  )
  axes.grid(axis='x', alpha=0.25)
  axes.spines[['top', 'right', 'left']].set_visible(False)
  for column, group in enumerate(groups):
    rows = [names.index(name) for name in group]
    bars.plot(
      [column, column],
      [min(rows) - 0.2, max(rows) + 0.2],
      color='0.25',
      lw=5,
      solid_capstyle='butt',
    )
  bars.set_xlim(-0.7, max(len(groups), 1) - 0.3)
  bars.axis('off')
  return figure


def curves(
  bands: Mapping[str, Any], names: Sequence[str], confidence: float
) -> figure_lib.Figure:
  """Draws the mean score after each intervention, with its interval.

  Args:
    bands: `curves` of `verdict.compare`.
    names: names of the models, best first.
    confidence: confidence level of the intervals.

  Returns:
    The figure.
  """
  steps = np.arange(1, 1 + len(next(iter(bands.values()))['mean']))
  figure = _draw_bands(steps, bands, names, confidence)
  (axes,) = figure.axes
  axes.set_xlabel('interventions')
  axes.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
  axes.set_ylabel('score of the recommendation')
  return figure


def profiles(
  bands: Mapping[str, Any], names: Sequence[str], confidence: float
) -> figure_lib.Figure:
  """Draws the share of episodes whose score is above each threshold.

  Performance profiles (Agarwal et al., "Deep Reinforcement Learning at the Edge
  of the Statistical Precipice", 2021, section 4.2).

  Args:
    bands: `profiles` of `verdict.compare`.
    names: names of the models, best first.
    confidence: confidence level of the intervals.

  Returns:
    The figure.
  """
  figure = _draw_bands(verdict.THRESHOLDS, bands, names, confidence)
  (axes,) = figure.axes
  axes.axvline(measures.SUCCESS, color='0.6', lw=0.8, ls=':')
  axes.set_xlabel('score τ of the last recommendation')
  axes.set_ylabel('share of episodes above τ')
  axes.yaxis.set_major_formatter(ticker.PercentFormatter(1, 0))
  return figure


def training(
  learning_curves: Mapping[str, Mapping[str, Mapping[str, list[float]]]],
  names: Sequence[str],
) -> figure_lib.Figure:
  """Draws the held-out score over the updates of each training run.

  Args:
    learning_curves: {configuration: {model: `updates` and `scores`}}.
    names: names of the models or configurations, best first.

  Returns:
    The figure; thin lines are seeds, thick lines their means.
  """
  figure = plots.empty(_WIDTH, 3.4)
  axes = figure.subplots()
  unranked = (name for name in learning_curves if name not in names)
  for name in [*names, *unranked]:
    if name not in learning_curves:
      continue
    color, line = style(names.index(name) if name in names else len(names))
    seeds = [
      dict(zip(curve['updates'], curve['scores'], strict=True))
      for curve in learning_curves[name].values()
    ]
    for seed in seeds:
      axes.plot([*seed], [*seed.values()], color=color, lw=0.7, alpha=0.5)
    # Some seeds may have stopped early.
    common = sorted(set.intersection(*map(set, seeds)))
    means = [np.mean([seed[update] for seed in seeds]) for update in common]
    axes.plot(common, means, color=color, ls=line, lw=2.0, label=_label(name))
  axes.set_xlabel('updates')
  axes.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
  axes.set_ylabel('score of the last intervention')
  _finish(figure)
  return figure


def _label(name: str) -> str:
  """Escapes a name for matplotlib, which parses $ and hides leading _."""
  name = name.replace('$', r'\$')
  return f' {name}' if name.startswith('_') else name


def style(rank: int) -> tuple[str, Any]:
  """Returns color and line style of a rank, the same in all figures."""
  return plots.STYLES[rank % len(plots.STYLES)]


def _draw_bands(x, bands, names, confidence) -> figure_lib.Figure:
  """Draws a line with an interval for each model."""
  figure = plots.empty(_WIDTH, 3.4)
  axes = figure.subplots()
  for rank, name in enumerate(names):
    color, line = style(rank)
    curve = bands[name]
    axes.plot(
      x, curve['mean'], color=color, ls=line, lw=2.0, label=_label(name)
    )
    if curve['low']:
      axes.fill_between(
        x, curve['low'], curve['high'], color=color, alpha=0.14, lw=0
      )
  axes.set_title(_bands_note(bands, confidence), loc='left', fontsize=9)
  _finish(figure)
  return figure


def _finish(figure) -> None:
  """Adds grid and legend, and removes the frame."""
  (axes,) = figure.axes
  axes.margins(x=0.02)
  axes.grid(alpha=0.25)
  axes.spines[['top', 'right']].set_visible(False)
  lines, labels = axes.get_legend_handles_labels()
  figure.legend(
    lines,
    labels,
    loc='outside lower left',
    ncols=max(
      1, _LEGEND_CHARACTERS // (max(map(len, labels)) + _LINE_CHARACTERS)
    ),
    frameon=False,
    fontsize=9,
    handlelength=3.2,
  )


def _mean_note(intervals: bool, confidence: float) -> str:
  return (
    f', mean with {100 * confidence:.6g}% interval' if intervals else ', mean'
  )


def _bands_note(bands, confidence) -> str:
  if any(curve['low'] for curve in bands.values()):
    return f'bands: {100 * confidence:.6g}% intervals'
  return 'too few units for intervals'
