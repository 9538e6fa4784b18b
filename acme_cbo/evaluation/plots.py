"""Figures of trainings and evaluations."""

from collections.abc import Sequence
import pathlib
from typing import Any, NamedTuple

from matplotlib import figure as figure_lib
from matplotlib import ticker
from matplotlib.backends import backend_agg
import numpy as np

from acme_cbo.infra import files

_COLOR = '#1b6ca8'
# Maximum number of steps whose values are shown as labels.
_MAX_LABELS = 12
# Okabe and Ito's palette for color-blind readers. The line styles differ too,
# which distinguishes the curves without color.
STYLES = (
  ('#0072b2', '-'),
  ('#d55e00', '--'),
  ('#009e73', '-.'),
  ('#cc79a7', ':'),
  ('#e69f00', (0, (5, 1, 1, 1, 1, 1))),
  ('#56b4e9', (0, (8, 2))),
  ('#777777', (0, (2, 1))),
  ('#000000', (0, (1, 3))),
)


def save(path: pathlib.Path, figure: figure_lib.Figure) -> None:
  """Writes a PNG file."""
  with files.naming(path):
    figure.savefig(path, dpi=150)


def learning_curve(
  updates: list[int],
  curves: dict[str, list[float]],
  baselines: dict[str, dict[str, float]],
  unit: str,
) -> figure_lib.Figure:
  """Draws the held-out score over updates, with the heuristics as lines.

  Args:
    updates: [n] number of updates made at each evaluation.
    curves: {group of SCMs, such as 'linear': [n] score of the last
      intervention at each evaluation}.
    baselines: `{heuristic: {group: score}}`.
    unit: unit of a score.

  Returns:
    The figure.
  """
  figure = empty(9, 3.8)
  axes = figure.subplots(1, len(curves), sharey=True, squeeze=False)[0]
  for axis, (group, curve) in zip(axes, curves.items(), strict=True):
    axis.plot(
      updates,
      curve,
      color=_COLOR,
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
    if len(curves) > 1:
      axis.set_title(f'{group} SCMs', fontsize=11)
    axis.set_xlabel('updates')
    axis.grid(alpha=0.25)
    axis.spines[['top', 'right']].set_visible(False)
  axes[0].set_ylabel(f'score of the last intervention\n({unit})')
  lines, labels = axes[0].get_legend_handles_labels()
  figure.legend(
    lines,
    labels,
    loc='outside lower center',
    ncol=len(labels),
    frameon=False,
    fontsize=9,
  )
  return figure


def rewards(
  curves: dict[str, Any],
  smoothed: dict[str, Any],
  converged_at: dict[str, int | None],
) -> figure_lib.Figure:
  """Draws each reward over updates, raw and smoothed.

  Args:
    curves: {reward: [n] values, the first after update 1}. They are drawn in
      this order, but for `total`, which is the first.
    smoothed: {reward: [n] smoothed values}.
    converged_at: {reward: update at which it had converged, None if it had
      not}.

  Returns:
    The figure.
  """
  curves = dict(sorted(curves.items(), key=lambda item: item[0] != 'total'))
  columns = 3
  figure = empty(9, 4.8)
  axes = figure.subplots(-(-len(curves) // columns), columns, squeeze=False)
  for axis in axes.flat[len(curves) :]:
    axis.remove()
  for axis, (name, values) in zip(axes.flat, curves.items(), strict=False):
    updates = range(1, len(values) + 1)
    axis.plot(updates, values, color=_COLOR, alpha=0.3, linewidth=0.8)
    axis.plot(updates, smoothed[name], color=_COLOR, linewidth=2.2)
    converged = converged_at[name]
    if converged:
      axis.axvline(converged, color='0.45', linestyle=':')
      axis.set_title(
        f'converged at {converged}', fontsize=9, loc='right', color='0.35'
      )
    axis.set_title(name.replace('_', ' '), fontsize=11, loc='left')
    axis.grid(alpha=0.25)
    axis.spines[['top', 'right']].set_visible(False)
  figure.supxlabel('updates (thin: raw; thick: smoothed)', fontsize=10)
  figure.supylabel('reward per step', fontsize=10)
  return figure


def episode(
  intervened: np.ndarray,
  values: np.ndarray,
  target: np.ndarray,
  score: np.ndarray,
  belief: np.ndarray,
  parents: np.ndarray,
  is_target: np.ndarray,
  goal: float,
) -> figure_lib.Figure:
  """Draws the interventions, the outcomes and the belief of one episode.

  Args:
    intervened: [T, D] bool, whether each step set each variable.
    values: [T, D] values that the variables were set to.
    target: [T] observed value of the target after each intervention.
    score: [T] normalized E[Y | do] of each intervention; 1 is the optimum.
    belief: [T + 1, D] probability that each variable is a parent of the target.
    parents: [D] bool, whether it is one.
    is_target: [D] bool, one-hot encoding of the target.
    goal: 1 to maximize the target, -1 to minimize it.

  Returns:
    The figure.
  """
  num_steps, num_variables = intervened.shape
  steps = np.arange(1, num_steps + 1)
  names = [
    f'x{i}{" (target)" if is_target[i] else ""}'
    f'{" (parent)" if parents[i] else ""}'
    for i in range(num_variables)
  ]
  figure = empty(9, 6.4)
  interventions, outcomes, beliefs = figure.subplots(
    3, 1, height_ratios=(num_variables, 5, num_variables)
  )
  step, variable = np.nonzero(intervened)
  interventions.scatter(steps[step], variable, s=60, color=_COLOR, zorder=3)
  if num_steps <= _MAX_LABELS:
    for column, row in zip(step, variable, strict=True):
      interventions.annotate(
        f'{values[column, row]:.3g}',
        (steps[column], row),
        xytext=(0, 6),
        textcoords='offset points',
        ha='center',
        fontsize=8,
      )
  interventions.set_title('interventions', loc='left', fontsize=11)
  outcomes.plot(
    steps, target, color='0.45', marker='o', label='observed target'
  )
  verb = 'maximize' if goal > 0 else 'minimize'
  outcomes.set_title(f'target (to {verb})', loc='left', fontsize=11)
  scores = outcomes.twinx()
  scores.plot(steps, score, color=_COLOR, linewidth=2.2, label='score')
  scores.axhline(1, color=_COLOR, linewidth=0.8, linestyle=':')
  scores.set_ylabel('score', color=_COLOR)
  scores.set_ylim(min(-0.05, score.min() - 0.05), 1.1)
  lines = [*outcomes.get_lines(), scores.get_lines()[0]]
  outcomes.legend(
    lines,
    [x.get_label() for x in lines],
    frameon=False,
    ncol=len(lines),
    loc='lower right',
    bbox_to_anchor=(1, 0.98),
  )
  image = beliefs.imshow(
    belief.T,
    aspect='auto',
    cmap='Blues',
    vmin=0,
    vmax=1,
    extent=(-0.5, num_steps + 0.5, num_variables - 0.5, -0.5),
  )
  figure.colorbar(
    image,
    ax=[interventions, outcomes, beliefs],
    label='probability',
    shrink=0.4,
    anchor=(0, 0),
  )
  beliefs.set_title(
    'belief in the parents of the target', loc='left', fontsize=11
  )
  beliefs.set_xlabel('interventions')
  for axis in (interventions, beliefs):
    axis.set_yticks(range(num_variables), names)
    axis.set_ylim(num_variables - 0.5, -0.7)
  for axis in (interventions, outcomes):
    axis.set_xlim(-0.5, num_steps + 0.5)
    axis.grid(alpha=0.25)
    axis.spines[['top', 'right']].set_visible(False)
  return figure


class Curve(NamedTuple):
  """A mean curve over the steps of an episode.

  Attributes:
    mean: [T] means.
    low: [T] lower ends of their intervals; None if there are none.
    high: [T] upper ends of their intervals; None if there are none.
    seconds: [T] computing time up to each step, as the x-axis; None to draw the
      curve over the number of interventions.
  """

  mean: np.ndarray
  low: np.ndarray | None
  high: np.ndarray | None
  seconds: np.ndarray | None = None


def methods(
  title: str,
  panels: dict[str, dict[str, Curve]],
  levels: dict[str, float],
  label: str,
  order: Sequence[str],
) -> figure_lib.Figure:
  """Draws curves of methods over interventions or over computing time.

  Args:
    title: title of the figure.
    panels: {title of a panel: {method: its curve}}.
    levels: {name: height} of horizontal reference lines.
    label: label of the y-axis.
    order: names of all methods, so that each has the same style in all figures.

  Returns:
    The figure.
  """
  figure = empty(4.8 * len(panels) + 2.2, 4.4)
  axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
  for axis, (name, curves) in zip(axes, panels.items(), strict=True):
    for i, (level, height) in enumerate(levels.items()):
      style = ('-', (0, (1, 1)))[i % 2]
      axis.axhline(height, color='0.55', lw=1.2, ls=style, label=level)
    for method, curve in curves.items():
      color, style = STYLES[list(order).index(method) % len(STYLES)]
      x = np.arange(1, len(curve.mean) + 1)
      if curve.seconds is not None:
        x = curve.seconds
      axis.plot(
        x,
        curve.mean,
        color=color,
        ls=style,
        lw=2.0,
        marker='o' if len(x) == 1 else None,
        label=method.replace('_', ' '),
      )
      if curve.low is not None and curve.high is not None:
        axis.fill_between(
          x, curve.low, curve.high, color=color, alpha=0.14, lw=0
        )
    axis.set_title(name, loc='left', fontsize=11)
    if any(curve.seconds is not None for curve in curves.values()):
      axis.set_xscale('log')
      axis.set_xlabel('computing time (s)')
    else:
      axis.set_xlabel('interventions')
      axis.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
    axis.margins(x=0.02)
    axis.grid(alpha=0.25)
    axis.spines[['top', 'right']].set_visible(False)
  axes[0].set_ylabel(label)
  figure.suptitle(title, x=0.01, ha='left', fontsize=12)
  lines, labels = axes[0].get_legend_handles_labels()
  figure.legend(
    [*lines[len(levels) :], *lines[: len(levels)]],
    [*labels[len(levels) :], *labels[: len(levels)]],
    loc='outside right center',
    frameon=False,
    fontsize=9,
    handlelength=3.2,
  )
  return figure


def scaling(results: dict[str, Any]) -> figure_lib.Figure:
  """Draws the time of an update over each size, and its expected growth.

  Args:
    results: result of `performance.scaling.measure`.

  Returns:
    The figure.
  """
  columns = -(-len(results) // 2)
  figure = empty(3 * columns, 5.6)
  panels = figure.subplots(2, columns, squeeze=False).ravel()
  for panel, (axis, result) in zip(panels, results.items(), strict=False):
    sizes = result['sizes']
    for part, (color, _) in zip(result['seconds'], STYLES, strict=False):
      seconds = np.array(result['seconds'][part])
      work = np.array(result['multiply_adds'][part])
      exponent = result['exponent'][part]
      label = f'{part}: {exponent:.2f}, expected {result["expected"][part]:.2f}'
      panel.plot(sizes, seconds, color=color, marker='o', label=label)
      expected = seconds[-1] * work / work[-1]
      panel.plot(sizes, expected, color=color, linestyle=':')
    panel.set(xscale='log', yscale='log')
    panel.set_xticks(sizes, [str(size) for size in sizes])
    panel.minorticks_off()
    panel.set_title(axis, fontsize=10)
    # Leaves room for the legend above the curves.
    panel.set_ylim(top=6 * panel.get_ylim()[1])
    panel.legend(
      fontsize=7,
      frameon=False,
      loc='upper left',
      title='exponent',
      title_fontsize=7,
      alignment='left',
    )
    panel.grid(alpha=0.3)
  for panel in panels[len(results) :]:
    panel.axis('off')
  for row in panels.reshape(2, columns):
    row[0].set_ylabel('seconds')
  figure.suptitle(
    'Seconds per update; dotted: growth of its multiply-adds, scaled to the '
    'largest size',
    fontsize=10,
  )
  return figure


def empty(width: float, height: float) -> figure_lib.Figure:
  """Returns an empty figure of that size in inches, without a window."""
  figure = figure_lib.Figure(figsize=(width, height), layout='constrained')
  backend_agg.FigureCanvasAgg(figure)
  return figure


def extract_curves(
  metrics: list[dict[str, Any]], tags: dict[str, str]
) -> tuple[list[int], dict[str, list[float]]]:
  """Extracts curves from the rows of a metrics file.

  Args:
    metrics: rows with a `step`; rows that lack one of the tags are skipped.
    tags: {name of a curve: its tag}.

  Returns:
    The steps, and {name of a curve: values}.
  """
  rows = [row for row in metrics if all(tag in row for tag in tags.values())]
  steps = [int(row['step']) for row in rows]
  return steps, {name: [row[tag] for row in rows] for name, tag in tags.items()}
