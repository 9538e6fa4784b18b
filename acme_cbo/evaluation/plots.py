"""Figures of a run."""

import pathlib
from typing import Any

from matplotlib import figure as figure_lib
from matplotlib.backends import backend_agg

_COLOUR = '#1b6ca8'


def learning_curve(
  path: pathlib.Path,
  updates: list[int],
  curves: dict[str, list[float]],
  baselines: dict[str, dict[str, float]],
) -> None:
  """Draws the last score of the policy over updates, beside the heuristics.

  Args:
    path: of the PNG file.
    updates: [n] updates made at each evaluation.
    curves: score at each evaluation, for 'linear' and 'nonlinear' SCMs.
    baselines: `{heuristic: {'linear': score, 'nonlinear': score}}`.
  """
  figure = figure_lib.Figure(figsize=(9, 3.8), layout='constrained')
  backend_agg.FigureCanvasAgg(figure)
  axes = figure.subplots(1, len(curves), sharey=True, squeeze=False)[0]
  for axis, (group, curve) in zip(axes, curves.items(), strict=True):
    axis.plot(
      updates,
      curve,
      color=_COLOUR,
      linewidth=2.2,
      marker='o',
      markersize=3.5,
      label='trained policy',
    )
    for i, (name, scores) in enumerate(baselines.items()):
      axis.axhline(
        scores[group],
        color='0.45',
        linewidth=1.1,
        linestyle=('-', '--', ':', '-.')[i % 4],
        label=name.replace('_', ' '),
      )
    axis.set_title(f'{group} SCMs', fontsize=11)
    axis.set_xlabel('updates')
    axis.grid(alpha=0.25)
    axis.spines[['top', 'right']].set_visible(False)
  axes[0].set_ylabel('score of the last choice\n(0 do nothing, 1 optimum)')
  lines, labels = axes[0].get_legend_handles_labels()
  figure.legend(
    lines,
    labels,
    loc='outside lower center',
    ncol=len(labels),
    frameon=False,
    fontsize=9,
  )
  figure.savefig(path, dpi=150)


def rewards(
  path: pathlib.Path,
  curves: dict[str, Any],
  smoothed: dict[str, Any],
  converged_at: dict[str, int | None],
) -> None:
  """Draws each reward over updates, with its noise and where it arrived.

  Args:
    path: of the PNG file.
    curves: [n] values of each, the first after update 1.
    smoothed: the same without noise.
    converged_at: the update by which each was seen to stand still, if it did.
  """
  columns = 3
  figure = figure_lib.Figure(figsize=(9, 4.8), layout='constrained')
  backend_agg.FigureCanvasAgg(figure)
  axes = figure.subplots(-(-len(curves) // columns), columns, squeeze=False)
  for axis in axes.flat[len(curves) :]:
    axis.remove()
  for axis, (name, values) in zip(axes.flat, curves.items(), strict=False):
    updates = range(1, len(values) + 1)
    axis.plot(updates, values, color=_COLOUR, alpha=0.3, linewidth=0.8)
    axis.plot(updates, smoothed[name], color=_COLOUR, linewidth=2.2)
    arrived = converged_at[name]
    if arrived:
      axis.axvline(arrived, color='0.45', linestyle=':')
      axis.set_title(
        f'still by update {arrived}', fontsize=9, loc='right', color='0.35'
      )
    axis.set_title(name.replace('_', ' '), fontsize=11, loc='left')
    axis.set_xlabel('updates')
    axis.grid(alpha=0.25)
    axis.spines[['top', 'right']].set_visible(False)
  figure.savefig(path, dpi=150)


def curves_of(
  metrics: list[dict[str, Any]], tags: dict[str, str]
) -> tuple[list[int], dict[str, list[float]]]:
  """Picks evaluation curves from the rows of a metrics file.

  Args:
    metrics: rows with a `step`; those without the tags are passed over.
    tags: tag of each curve.

  Returns:
    The steps, and the curves by name.
  """
  rows = [row for row in metrics if all(tag in row for tag in tags.values())]
  steps = [int(row['step']) for row in rows]
  return steps, {name: [row[tag] for row in rows] for name, tag in tags.items()}
