"""Tables of an evaluation: fixed-width text for the terminal, and Markdown."""

import math
from typing import Any, NamedTuple

import pandas as pd

from acme_cbo.evaluation import report
from acme_cbo.evaluation import statistics
from acme_cbo.infra import text
from acme_cbo.policies import prediction
from acme_cbo.policies import registry


class _Measure(NamedTuple):
  """A measure that the tables show.

  Attributes:
    title: title of its column.
    name: one of `aggregate.MEASURES`.
    rank: the one of `aggregate.MEASURES` whose highest mean is marked as the
      best; '' to mark none.
    in_units: whether it is in the target's units.
    with_interval: whether its interval is shown.
  """

  title: str
  name: str
  rank: str = ''
  in_units: bool = False
  with_interval: bool = False


# GAP and score rank methods as the expected outcomes do, and stay comparable if
# every repeat has an SCM, or a goal, of its own.
_BEST = _Measure('best E[Y|do]', 'best_expected', 'gap', True, True)
_RECOMMENDED = _Measure(
  'recommended', 'recommended_expected', 'score', True, True
)
_SCORE = _Measure('score', 'score', 'score', False, True)
_MEASURES = (
  _BEST,
  _RECOMMENDED,
  _SCORE,
  _Measure('simple regret', 'simple_regret', in_units=True),
  _Measure('mean regret', 'mean_regret', in_units=True),
  _Measure('GAP', 'gap'),
  _Measure('GAP, speed', 'gap_speed'),
)
_SECONDS = 's/decision'
_LEGEND = (
  'score: of the last recommendation, 0 is no intervention and 1 the optimum. '
  'GAP: the same for\nthe best intervention made; with speed, higher the '
  'earlier it was made. F1, AUROC: of the\nbelief in the parents of the target.'
)


def markdown(summary: dict[str, Any]) -> str:
  """Returns the text of `table.md`.

  Args:
    summary: result of `aggregate.summarize`, with `held_out` (True, False or
      None) and `fresh` (whether each repeat has an SCM of its own, in units of
      its own) in the entry of each SCM, and `settings`, `confidence` and
      `warnings`.

  Returns:
    Text in GitHub's Markdown.
  """
  in_units = [
    '\n## Best E[Y | do] of all interventions made\n',
    _markdown(_rows_by_method(summary, _BEST)),
    '\n## E[Y | do] of the last recommendation\n',
    _markdown(_rows_by_method(summary, _RECOMMENDED)),
  ]
  all_fresh = all(scm['fresh'] for scm in summary['scms'].values())
  return '\n'.join(
    [
      f'{_description(summary)} The best mean is in bold; `{registry.BOUND}` '
      'is given the optimum and not ranked.',
      *(f'\n> {sentence}' for sentence in summary['warnings']),
      *([] if all_fresh else in_units),
      '\n## Score of the last recommendation (0: no intervention, 1: '
      'optimum)\n',
      _markdown(_rows_by_method(summary, _SCORE)),
      '\n## All methods on all SCMs\n',
      _markdown(_all_rows(summary, '**{}**', '{}')),
      f'\n{_LEGEND}{_about_predictions(summary)}\n',
    ]
  )


def terminal(summary: dict[str, Any]) -> str:
  """Returns a fixed-width table of all methods on all SCMs.

  Args:
    summary: see `markdown`.

  Returns:
    Lines of text.
  """
  table = report.align(
    _all_rows(summary, '{} *', '{}  '), 2 + _has_held_out(summary)
  )
  return (
    f'{_description(summary)} A star marks the best mean.\n\n'
    f'{table}\n\n{_LEGEND}{_about_predictions(summary)}'
  )


def _description(summary):
  """Returns the settings of the evaluation as a sentence."""
  settings = summary['settings']
  samples, repeats = settings['samples'], settings['repeats']
  reason = statistics.no_interval_reason(repeats)
  outcome = 'a single draw' if samples == 1 else f'the mean of {samples} draws'
  edges = 'all edges known; ' if settings['edges'] == 'known' else ''
  return (
    f'{settings["observations"]} observations, {settings["interventions"]} '
    f'interventions{" or fewer" if _ended_early(summary) else ""}, each '
    f'outcome {outcome}; {edges}'
    + (
      f'{reason}.'
      if reason
      else f'{repeats} repeats. In brackets: {summary["confidence"]:.0%} '
      'intervals of the mean.'
    )
  )


def _about_predictions(summary):
  """Returns a line for each method that predicts what it recommends."""
  return ''.join(
    f'\n{method}: {one["covered"]:.0%} of the '
    f'{prediction.COVERAGE:.0%} intervals contain E[Y | do] of the last '
    f'recommendation;\nmean CRPS {one["crps"]:.3f} of the gain of the optimum.'
    for method, entry in summary['overall'].items()
    if (one := entry['predicted']) is not None
  )


def _ended_early(summary):
  """Returns whether a budget ended an episode early."""
  return any(
    entry['interventions'] < summary['settings']['interventions']
    for scm in summary['scms'].values()
    for entry in scm['methods'].values()
  )


def _rows_by_method(summary, measure):
  """Returns a row per method with a column per SCM, and its seconds."""
  scms = summary['scms']
  overall = {'methods': summary['overall']}
  with_all = measure is _SCORE and len(scms) > 1
  blank = [''] * (with_all + 1)
  lines = [['', *scms, *(['all'] if with_all else []), _SECONDS]]
  if _has_held_out(summary):
    lines.append(['held out', *map(_held_out, scms.values()), *blank])
  if measure.in_units:
    for name in ('no intervention', 'optimum'):
      values = (
        '-'
        if scm['fresh']
        else f'{scm[name.replace(" ", "_")]:.{_decimals(scm)}f}'
        for scm in scms.values()
      )
      lines.append([name, *values, *blank])
  for method, entry in summary['overall'].items():
    columns = [*scms.values(), *([overall] if with_all else [])]
    cells = (_cell(scm, method, measure, '**{}**', '{}') for scm in columns)
    lines.append([method, *cells, _seconds(entry)])
  return lines


def _all_rows(summary, best, other):
  """Returns a row per SCM and method; `best` and `other` format the cells."""
  has_held_out, ended_early = _has_held_out(summary), _ended_early(summary)
  lines = [
    [
      'SCM',
      *(['held out'] if has_held_out else []),
      'method',
      *(['made'] if ended_early else []),
      *(measure.title for measure in _MEASURES),
      'F1',
      'AUROC',
      _SECONDS,
    ]
  ]
  for name, scm in summary['scms'].items():
    for method, entry in scm['methods'].items():
      lines.append(
        [
          name,
          *([_held_out(scm)] if has_held_out else []),
          method,
          *([f'{entry["interventions"]:.1f}'] if ended_early else []),
          *(_cell(scm, method, x, best, other) for x in _MEASURES),
          _quality(entry, 'f1'),
          _quality(entry, 'auroc'),
          _seconds(entry),
        ]
      )
  return lines


def _cell(scm, method, measure, best, other):
  """Formats a measure of a method, by `best` for the best one, or `other`."""
  entry = scm['methods'].get(method, {}).get(measure.name)
  if entry is None or (measure.in_units and scm['fresh']):
    return '-'
  if not measure.with_interval:
    entry = entry | {'interval': None}
  decimals = _decimals(scm) if measure.in_units else 2
  text = report.format_interval(entry, decimals=decimals)
  if not measure.rank:
    return text
  ranks = {
    name: values[measure.rank]['mean']
    for name, values in scm['methods'].items()
    if name != registry.BOUND and values[measure.rank]
  }
  is_best = method in ranks and ranks[method] == max(ranks.values())
  return (best if is_best else other).format(text)


def _decimals(scm) -> int:
  """Returns the decimals that show a thousandth of the optimum's gain."""
  gain = abs(scm['optimum'] - scm['no_intervention'])
  return max(0, 3 - math.floor(math.log10(gain))) if gain else 3


def _quality(entry, name):
  qualities = entry['parents'].values()
  return ', '.join(f'{q[name]:.2f}' for q in qualities if name in q)


def _seconds(entry):
  return f'{entry["seconds_per_decision"]:.2g}'


def _has_held_out(summary):
  """Returns whether it is known of an SCM if it was held out of training."""
  return any(scm['held_out'] is not None for scm in summary['scms'].values())


def _held_out(scm):
  return {True: 'yes', False: 'no', None: ''}[scm['held_out']]


def _markdown(lines):
  # An unescaped bar would end the cell.
  head, *rows = (
    '| ' + ' | '.join(cell.replace('|', r'\|') for cell in line) + ' |'
    for line in lines
  )
  rule = '|---' * len(lines[0]) + '|'
  return '\n'.join([head, rule, *rows])


def to_csv(table: pd.DataFrame, header: bool = True) -> str:
  """Returns a table as CSV; cells that a spreadsheet would run are quoted.

  Args:
    table: any table.
    header: whether the first line has the names of the columns.
  """

  def quote(cell: Any) -> Any:
    return text.quote_cell(cell) if isinstance(cell, str) else cell

  quoted = table.apply(
    lambda column: (
      column
      if pd.api.types.is_numeric_dtype(column.dtype)
      else column.map(quote)
    )
  )
  return quoted.rename(columns=quote).to_csv(index=False, header=header)
