"""Tables of methods on SCMs, for the terminal and for GitHub."""

import math
from typing import Any, NamedTuple

from acme_cbo.evaluation import report
from acme_cbo.evaluation import statistics
from acme_cbo.policies import registry


class _Measure(NamedTuple):
  """A quantity of a table.

  Attributes:
    title: of its column.
    name: of `comparison.MEASURES`.
    rank: of those, the one whose highest mean marks the best; '' marks none.
    in_units: whether it is in the target's units.
    with_interval: whether its interval is shown.
  """

  title: str
  name: str
  rank: str = ''
  in_units: bool = False
  with_interval: bool = False


# GAP and score rank as the expected outcomes do, also where each repeat has an
# SCM of its own, or a goal.
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
  'score: of the last recommendation, 0 no intervention and 1 the optimum. '
  'GAP: the same of\nthe best intervention made; with speed, the more the '
  'earlier. F1, AUROC: of the belief in\nthe direct causes of the target.'
)


def markdown(found: dict[str, Any]) -> str:
  """The page of a comparison.

  Args:
    found: from `comparison.summarise`, with `held_out` (True, False or None)
      and `fresh` (whether each repeat has an SCM of its own, in units of its
      own) in the entry of each SCM, and `settings`, `confidence` and
      `warnings`.

  Returns:
    GitHub's Markdown.
  """
  in_units = [
    '\n## Best E[Y | do] of all interventions made\n',
    _markdown(_side_by_side(found, _BEST)),
    '\n## E[Y | do] of the last recommendation\n',
    _markdown(_side_by_side(found, _RECOMMENDED)),
  ]
  all_fresh = all(about['fresh'] for about in found['scms'].values())
  return '\n'.join(
    [
      f'{_what(found)} The best mean in bold; `{registry.BOUND}` knows the '
      'answer and does not compete.',
      *(f'\n> {sentence}' for sentence in found['warnings']),
      *([] if all_fresh else in_units),
      '\n## Score of the last recommendation: 0 no intervention, 1 optimum\n',
      _markdown(_side_by_side(found, _SCORE)),
      '\n## Every method on every SCM\n',
      _markdown(_all(found, '**{}**', '{}')),
      f'\n{_LEGEND}\n',
    ]
  )


def terminal(found: dict[str, Any]) -> str:
  """Every method on every SCM, as text of fixed width; `found` as above."""
  return (
    f'{_what(found)} A star marks the best mean.\n\n'
    f'{report.align(_all(found, "{} *", "{}  "), 2 + _has_marks(found))}\n\n'
    f'{_LEGEND}'
  )


def _what(found):
  settings = found['settings']
  samples, repeats = settings['samples'], settings['repeats']
  few = statistics.no_interval_reason(repeats)
  each = 'one draw' if samples == 1 else f'the mean of {samples} draws'
  return (
    f'{settings["observations"]} observations, {settings["interventions"]} '
    f'interventions{" or fewer" if _ended_early(found) else ""}, each watched '
    f'as {each}; '
    + (
      f'{few}.'
      if few
      else f'{repeats} repeats. In brackets: {found["confidence"]:.0%} '
      'intervals of the mean.'
    )
  )


def _ended_early(found):
  """Whether a budget ended an episode before its last intervention."""
  return any(
    entry['interventions'] < found['settings']['interventions']
    for about in found['scms'].values()
    for entry in about['methods'].values()
  )


def _side_by_side(found, measure):
  """A row for each method, a column for each SCM, seconds in the last one."""
  scms = found['scms']
  overall = {'methods': found['overall']}
  with_all = measure is _SCORE and len(scms) > 1
  blank = [''] * (with_all + 1)
  lines = [['', *scms, *(['all'] if with_all else []), _SECONDS]]
  if _has_marks(found):
    lines.append(['held out', *map(_held_out, scms.values()), *blank])
  if measure.in_units:
    for known in ('no intervention', 'optimum'):
      values = (
        '-'
        if about['fresh']
        else f'{about[known.replace(" ", "_")]:.{_decimals(about)}f}'
        for about in scms.values()
      )
      lines.append([known, *values, *blank])
  for name, entry in found['overall'].items():
    shown = [*scms.values(), *([overall] if with_all else [])]
    cells = (_cell(about, name, measure, '**{}**', '{}') for about in shown)
    lines.append([name, *cells, _seconds(entry)])
  return lines


def _all(found, best, other):
  """A row for each method on each SCM, seconds in the last column."""
  marks, ended_early = _has_marks(found), _ended_early(found)
  lines = [
    [
      'SCM',
      *(['held out'] if marks else []),
      'method',
      *(['made'] if ended_early else []),
      *(measure.title for measure in _MEASURES),
      'F1',
      'AUROC',
      _SECONDS,
    ]
  ]
  for scm, about in found['scms'].items():
    for name, entry in about['methods'].items():
      lines.append(
        [
          scm,
          *([_held_out(about)] if marks else []),
          name,
          *([f'{entry["interventions"]:.1f}'] if ended_early else []),
          *(_cell(about, name, x, best, other) for x in _MEASURES),
          _quality(entry, 'f1'),
          _quality(entry, 'auroc'),
          _seconds(entry),
        ]
      )
  return lines


def _cell(about, name, measure, best, other):
  """The value of a method on an SCM, in one of two formats."""
  entry = about['methods'].get(name, {}).get(measure.name)
  if entry is None or (measure.in_units and about['fresh']):
    return '-'
  if not measure.with_interval:
    entry = entry | {'interval': None}
  decimals = _decimals(about) if measure.in_units else 2
  text = report.format_interval(entry, decimals=decimals)
  if not measure.rank:
    return text
  ranks = {
    method: values[measure.rank]['mean']
    for method, values in about['methods'].items()
    if method != registry.BOUND and values[measure.rank]
  }
  is_best = name in ranks and ranks[name] == max(ranks.values())
  return (best if is_best else other).format(text)


def _decimals(about) -> int:
  """So many that a thousandth of what can be gained is seen."""
  gain = abs(about['optimum'] - about['no_intervention'])
  return max(0, 3 - math.floor(math.log10(gain))) if gain else 3


def _quality(entry, name):
  found = entry['parents'].values()
  return ', '.join(f'{q[name]:.2f}' for q in found if name in q)


def _seconds(entry):
  return f'{entry["seconds_per_decision"]:.2g}'


def _has_marks(found):
  """Whether anybody said of an SCM whether it was kept out of training."""
  return any(about['held_out'] is not None for about in found['scms'].values())


def _held_out(about):
  return {True: 'yes', False: 'no', None: ''}[about['held_out']]


def _markdown(lines):
  # A bar in a cell would end it.
  head, *rows = (
    '| ' + ' | '.join(cell.replace('|', r'\|') for cell in line) + ' |'
    for line in lines
  )
  rule = '|---' * len(lines[0]) + '|'
  return '\n'.join([head, rule, *rows])
