"""Figures of a run."""

from collections.abc import Sequence
import pathlib
from typing import Any, NamedTuple

from matplotlib import figure as figure_lib
from matplotlib import ticker
from matplotlib.backends import backend_agg
import numpy as np

_COLOUR = '#1b6ca8'
_ORDER = (
  'total',
  'optimization',
  'optimization_last',
  'optimization_best',
  'structure',
  'parent',
  'exploration',
)
# Steps whose values are written beside them.
_MAX_LABELS = 12
# Okabe and Ito's colours, which people who see fewer tell apart too, and lines
# that differ without colour.
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
  figure.savefig(path, dpi=150)


def learning_curve(
  updates: list[int],
  curves: dict[str, list[float]],
  baselines: dict[str, dict[str, float]],
  unit: str,
) -> figure_lib.Figure:
  """Draws the last score of the policy over updates, beside the heuristics.

  Args:
    updates: [n] updates made at each evaluation.
    curves: score at each evaluation, for groups of SCMs, as 'linear'.
    baselines: `{heuristic: {group: score}}`.
    unit: of a score.

  Returns:
    The figure.
  """
  figure = empty(9, 3.8)
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
    if len(curves) > 1:
      axis.set_title(f'{group} SCMs', fontsize=11)
    axis.set_xlabel('updates')
    axis.grid(alpha=0.25)
    axis.spines[['top', 'right']].set_visible(False)
  axes[0].set_ylabel(f'score of the last choice\n({unit})')
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
  """Draws each reward over updates, with its noise and where it arrived.

  Args:
    curves: [n] values of each, the first after update 1.
    smoothed: the same without noise.
    converged_at: the update by which each was seen to stand still, if it did.

  Returns:
    The figure.
  """
  curves = dict(sorted(curves.items(), key=lambda item: _rank(item[0])))
  columns = 3
  figure = empty(9, 4.8)
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
        f'steady by {arrived}', fontsize=9, loc='right', color='0.35'
      )
    axis.set_title(name.replace('_', ' '), fontsize=11, loc='left')
    axis.grid(alpha=0.25)
    axis.spines[['top', 'right']].set_visible(False)
  figure.supxlabel('updates (thin: each; thick: smoothed)', fontsize=10)
  figure.supylabel('reward per step', fontsize=10)
  return figure


def _rank(name: str) -> int:
  """Where among the rewards one is drawn: their sum first, others last."""
  return _ORDER.index(name) if name in _ORDER else len(_ORDER)


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
  """Draws one episode: what was set, what came out, what was believed.

  Args:
    intervened: [T, D] bool, what each step set.
    values: [T, D] to what.
    target: [T] what the target was then.
    score: [T] E[Y | do] of the choice, 1 at the best.
    belief: [T + 1, D] that each variable is a parent of the target.
    parents: [D] bool, the truth.
    is_target: [D] bool, which variable it is about.
    goal: 1 to maximise it, -1 to minimise it.

  Returns:
    The figure.
  """
  num_steps, num_variables = intervened.shape
  steps = np.arange(1, num_steps + 1)
  names = [
    f'x{i}{", the target" if is_target[i] else ""}'
    f'{", a cause" if parents[i] else ""}'
    for i in range(num_variables)
  ]
  figure = empty(9, 6.4)
  chosen, came, believed = figure.subplots(
    3, 1, height_ratios=(num_variables, 5, num_variables)
  )
  step, variable = np.nonzero(intervened)
  chosen.scatter(steps[step], variable, s=60, color=_COLOUR, zorder=3)
  if num_steps <= _MAX_LABELS:
    for at, row in zip(step, variable, strict=True):
      chosen.annotate(
        f'{values[at, row]:.3g}',
        (steps[at], row),
        xytext=(0, 6),
        textcoords='offset points',
        ha='center',
        fontsize=8,
      )
  chosen.set_title('set to', loc='left', fontsize=11)
  came.plot(steps, target, color='0.45', marker='o', label='target, as seen')
  wanted = 'large' if goal > 0 else 'small'
  came.set_title(f'the target, to be {wanted}', loc='left', fontsize=11)
  of_score = came.twinx()
  of_score.plot(
    steps, score, color=_COLOUR, linewidth=2.2, label='score of the choice'
  )
  of_score.axhline(1, color=_COLOUR, linewidth=0.8, linestyle=':')
  of_score.set_ylabel('score', color=_COLOUR)
  of_score.set_ylim(min(-0.05, score.min() - 0.05), 1.1)
  lines = [*came.get_lines(), of_score.get_lines()[0]]
  came.legend(
    lines,
    [x.get_label() for x in lines],
    frameon=False,
    ncol=len(lines),
    loc='lower right',
    bbox_to_anchor=(1, 0.98),
  )
  image = believed.imshow(
    belief.T,
    aspect='auto',
    cmap='Blues',
    vmin=0,
    vmax=1,
    extent=(-0.5, num_steps + 0.5, num_variables - 0.5, -0.5),
  )
  figure.colorbar(
    image,
    ax=[chosen, came, believed],
    label='belief',
    shrink=0.4,
    anchor=(0, 0),
  )
  believed.set_title('belief in a cause', loc='left', fontsize=11)
  believed.set_xlabel('interventions')
  for axis in (chosen, believed):
    axis.set_yticks(range(num_variables), names)
    axis.set_ylim(num_variables - 0.5, -0.7)
  for axis in (chosen, came):
    axis.set_xlim(-0.5, num_steps + 0.5)
    axis.grid(alpha=0.25)
    axis.spines[['top', 'right']].set_visible(False)
  return figure


class Curve(NamedTuple):
  """A mean over the steps of an episode.

  Attributes:
    mean: [T].
    low: [T] lower ends of its intervals; None where there are none.
    high: [T] upper ends.
    seconds: [T] of computing up to each step, where it is drawn over them.
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
  """Draws how good methods are over what they make, or over what they take.

  Args:
    title: of the figure.
    panels: {title: {method: its curve}}, a panel for each.
    levels: {name: height} of lines to compare with.
    label: of the vertical axis.
    order: names of methods; one has the same style in every figure.

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
      colour, style = STYLES[list(order).index(method) % len(STYLES)]
      over = np.arange(1, len(curve.mean) + 1)
      if curve.seconds is not None:
        over = curve.seconds
      axis.plot(
        over,
        curve.mean,
        color=colour,
        ls=style,
        lw=2.0,
        marker='o' if len(over) == 1 else None,
        label=method.replace('_', ' '),
      )
      if curve.low is not None and curve.high is not None:
        axis.fill_between(
          over, curve.low, curve.high, color=colour, alpha=0.14, lw=0
        )
    axis.set_title(name, loc='left', fontsize=11)
    if any(curve.seconds is not None for curve in curves.values()):
      axis.set_xscale('log')
      axis.set_xlabel('seconds of computing')
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


def scaling(found: dict[str, Any]) -> figure_lib.Figure:
  """Draws seconds over each size, and how they should grow.

  Args:
    found: what `benchmark.scaling.measure` returns.

  Returns:
    The figure.
  """
  columns = -(-len(found) // 2)
  figure = empty(3 * columns, 5.6)
  panels = figure.subplots(2, columns, squeeze=False).ravel()
  for panel, (axis, of) in zip(panels, found.items(), strict=False):
    sizes = of['sizes']
    for who, (colour, _) in zip(of['seconds'], STYLES, strict=False):
      seconds = np.array(of['seconds'][who])
      work = np.array(of['multiply_adds'][who])
      exponent, should_be = of['exponent'][who], of['expected'][who]
      exponents = f'{exponent:.2f}, expected {should_be:.2f}'
      panel.plot(
        sizes, seconds, color=colour, marker='o', label=f'{who}: {exponents}'
      )
      expected = seconds[-1] * work / work[-1]
      panel.plot(sizes, expected, color=colour, linestyle=':')
    panel.set(xscale='log', yscale='log')
    panel.set_xticks(sizes, [str(size) for size in sizes])
    panel.minorticks_off()
    panel.set_title(axis, fontsize=10)
    # Room for what is said, above the curves.
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
  for panel in panels[len(found) :]:
    panel.axis('off')
  for row in panels.reshape(2, columns):
    row[0].set_ylabel('seconds')
  figure.suptitle(
    'Seconds of an update; dotted, as its multiplications and additions grow, '
    'through the largest size',
    fontsize=10,
  )
  return figure


def empty(width: float, height: float) -> figure_lib.Figure:
  """An empty figure of that many inches, which belongs to no window."""
  figure = figure_lib.Figure(figsize=(width, height), layout='constrained')
  backend_agg.FigureCanvasAgg(figure)
  return figure


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
