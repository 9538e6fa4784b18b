"""Figures of a comparison."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib import figure as figure_lib
from matplotlib import ticker
import numpy as np

from acme_cbo.evaluation import plots
from acme_cbo.evaluation.comparison import measures
from acme_cbo.evaluation.comparison import verdict

_WIDTH = 6.0
# Of the axis of a ranking.
_LEAST_SPAN = 0.1
# Letters of names, and those that a line beside one takes, in a legend's row.
_LEGEND_LETTERS, _LINE_LETTERS = 92, 9


def ranking(about: Mapping[str, Any], confidence: float) -> figure_lib.Figure:
  """Draws means with intervals, and what cannot be told apart.

  A critical-difference diagram (Demšar, "Statistical Comparisons of Classifiers
  over Multiple Data Sets", 2006, section 3.2.4) of means: a bar joins models of
  which none is told from another one.

  Args:
    about: of the score, an entry of `measures` in what `verdict.found` returns.
    confidence: of the intervals.

  Returns:
    The figure.
  """
  names = about['ranking']
  # Where nothing could be decided, a bar would say no more.
  groups = [x for x in about['groups'] if len(x) > 1 and about['pairs']]
  figure = plots.empty(_WIDTH, 0.9 + 0.52 * len(names))
  axes, beside = figure.subplots(
    1, 2, sharey=True, width_ratios=(8, 0.35 + 0.3 * len(groups))
  )
  means = [about['models'][name]['mean'] for name in names]
  for row, name in enumerate(names):
    colour, _ = style(row)
    entry = about['models'][name]
    if entry['interval']:
      axes.plot(entry['interval'], [row, row], color=colour, lw=2.4)
    axes.plot(entry['mean'], row, 'o', color=colour, ms=7)
    # Above its line, where a long name takes no room from the others.
    axes.annotate(
      f'{_shown(name)}  {entry["mean"]:.3f}',
      (0, row - 0.34),
      xycoords=('axes fraction', 'data'),
      va='center',
      fontsize=9,
    )
  axes.set_yticks([])
  axes.set_ylim(len(names) - 0.6, -0.65)
  axes.margins(x=0.06)
  # Differences that are nothing are not drawn as if they were much.
  low, high = axes.get_xlim()
  if high - low < _LEAST_SPAN:
    middle = (max(means) + min(means)) / 2
    axes.set_xlim(middle - _LEAST_SPAN / 2, middle + _LEAST_SPAN / 2)
  intervals = any(entry['interval'] for entry in about['models'].values())
  axes.set_xlabel(
    f'score of the last recommendation{_mean(intervals, confidence)}'
  )
  axes.grid(axis='x', alpha=0.25)
  axes.spines[['top', 'right', 'left']].set_visible(False)
  for column, group in enumerate(groups):
    rows = [names.index(name) for name in group]
    beside.plot(
      [column, column],
      [min(rows) - 0.2, max(rows) + 0.2],
      color='0.25',
      lw=5,
      solid_capstyle='butt',
    )
  beside.set_xlim(-0.7, max(len(groups), 1) - 0.3)
  beside.axis('off')
  return figure


def curves(
  found: Mapping[str, Any], ranked: Sequence[str], confidence: float
) -> figure_lib.Figure:
  """Draws the score after each intervention, mean with band.

  Args:
    found: `curves` of what `verdict.found` returns.
    ranked: names, the best first.
    confidence: of the bands.

  Returns:
    The figure.
  """
  steps = np.arange(1, 1 + len(next(iter(found.values()))['mean']))
  figure = _banded(steps, found, ranked, confidence)
  (axes,) = figure.axes
  axes.set_xlabel('interventions')
  axes.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
  axes.set_ylabel('score of what is recommended')
  return figure


def profiles(
  found: Mapping[str, Any], ranked: Sequence[str], confidence: float
) -> figure_lib.Figure:
  """Draws the share of episodes whose score is above each threshold.

  Performance profiles (Agarwal et al., "Deep Reinforcement Learning at the Edge
  of the Statistical Precipice", 2021, section 4.2).

  Args:
    found: `profiles` of what `verdict.found` returns.
    ranked: names, the best first.
    confidence: of the bands.

  Returns:
    The figure.
  """
  figure = _banded(verdict.THRESHOLDS, found, ranked, confidence)
  (axes,) = figure.axes
  axes.axvline(measures.SUCCESS, color='0.6', lw=0.8, ls=':')
  axes.set_xlabel('score τ of the last recommendation')
  axes.set_ylabel('share of episodes above τ')
  axes.yaxis.set_major_formatter(ticker.PercentFormatter(1, 0))
  return figure


def training(
  learning: Mapping[str, Mapping[str, Mapping[str, list[float]]]],
  ranked: Sequence[str],
) -> figure_lib.Figure:
  """Draws the held-out score over the updates of each training.

  Args:
    learning: {configuration: {model: `updates` and `scores`}}.
    ranked: names, the best first.

  Returns:
    The figure; thin lines are seeds, thick ones their means.
  """
  figure = plots.empty(_WIDTH, 3.4)
  axes = figure.subplots()
  for name in [*ranked, *(name for name in learning if name not in ranked)]:
    if name not in learning:
      continue
    colour, line = style(ranked.index(name) if name in ranked else len(ranked))
    seeds = [
      dict(zip(curve['updates'], curve['scores'], strict=True))
      for curve in learning[name].values()
    ]
    for seed in seeds:
      axes.plot([*seed], [*seed.values()], color=colour, lw=0.7, alpha=0.5)
    # Some may have stopped early.
    common = sorted(set.intersection(*map(set, seeds)))
    means = [np.mean([seed[update] for seed in seeds]) for update in common]
    axes.plot(common, means, color=colour, ls=line, lw=2.0, label=_shown(name))
  axes.set_xlabel('updates')
  axes.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
  axes.set_ylabel('score of the last choice')
  _finish(figure)
  return figure


def _shown(name: str) -> str:
  """A name as matplotlib shows it: no formula, and not left out."""
  name = name.replace('$', r'\$')
  return f' {name}' if name.startswith('_') else name


def style(rank: int) -> tuple[str, Any]:
  """Colour and line of the model of a rank, the same in all figures."""
  return plots.STYLES[rank % len(plots.STYLES)]


def _banded(x, found, ranked, confidence) -> figure_lib.Figure:
  figure = plots.empty(_WIDTH, 3.4)
  axes = figure.subplots()
  for rank, name in enumerate(ranked):
    colour, line = style(rank)
    curve = found[name]
    axes.plot(
      x, curve['mean'], color=colour, ls=line, lw=2.0, label=_shown(name)
    )
    if curve['low']:
      axes.fill_between(
        x, curve['low'], curve['high'], color=colour, alpha=0.14, lw=0
      )
  axes.set_title(_of_bands(found, confidence), loc='left', fontsize=9)
  _finish(figure)
  return figure


def _finish(figure) -> None:
  (axes,) = figure.axes
  axes.margins(x=0.02)
  axes.grid(alpha=0.25)
  axes.spines[['top', 'right']].set_visible(False)
  lines, labels = axes.get_legend_handles_labels()
  figure.legend(
    lines,
    labels,
    loc='outside lower left',
    ncols=max(1, _LEGEND_LETTERS // (max(map(len, labels)) + _LINE_LETTERS)),
    frameon=False,
    fontsize=9,
    handlelength=3.2,
  )


def _mean(intervals: bool, confidence: float) -> str:
  return (
    f', mean with {100 * confidence:.6g}% interval' if intervals else ', mean'
  )


def _of_bands(found, confidence) -> str:
  if any(curve['low'] for curve in found.values()):
    return f'bands: {100 * confidence:.6g}% intervals'
  return 'too few units for intervals'
