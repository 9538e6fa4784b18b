"""Report of a comparison as one self-contained HTML page.

Content that differs between two runs of the same comparison, the date and the
computing time, is in the last section only.
"""

import base64
from collections.abc import Mapping, Sequence
import pathlib
from typing import Any

from acme_cbo.evaluation import html
from acme_cbo.evaluation.comparison import figures
from acme_cbo.evaluation.comparison import measures

_TEMPLATE = pathlib.Path(__file__).with_name('page.html.jinja')
# The measure that is not reproducible.
_TIMING = 'seconds'


def render(summary: Mapping[str, Any], images: Mapping[str, bytes]) -> str:
  """Renders the page.

  Args:
    summary: return value of `run.run`.
    images: {name of a figure: PNG}; missing figures are left out of the page.

  Returns:
    HTML, in which all content from files and flags is escaped.
  """
  results = summary['measures']
  names = ranking(summary)
  return html.render(
    _TEMPLATE,
    names=names,
    colors={name: figures.style(rank)[0] for rank, name in enumerate(names)},
    verdict=summary['verdict'],
    beside=summary['beside'],
    warnings=warnings(summary),
    unit=summary['unit'],
    confidence=format_percent(summary['confidence']),
    sizes=_sizes(summary),
    few=not results['score'].get('pairs'),
    intervals=any(
      entry['interval'] for entry in results['score']['models'].values()
    ),
    overview=_overview(results, names),
    meanings={
      measure.title: measure.meaning
      for name, measure in measures.MEASURES.items()
      if name != _TIMING
    },
    images={
      name: base64.b64encode(image).decode() for name, image in images.items()
    },
    by_scm=_by_scm(summary['by_scm'], names),
    details=[
      _details(name, result, names)
      for name, result in results.items()
      if name != _TIMING
    ],
    differences=_differences(summary['differences']),
    success=measures.SUCCESS,
    protocol=summary['played'],
    models=summary['models'],
    seconds=_details(_TIMING, results[_TIMING], names),
    made=summary['made'],
  )


def ranking(summary: Mapping[str, Any]) -> list[str]:
  """Returns the names that are compared, highest score first."""
  result = summary['measures']['score']
  return result.get('ranking') or list(result['models'])


def warnings(summary: Mapping[str, Any]) -> list[str]:
  """Returns sentences about what limits the comparison."""
  return [
    *summary['remarks'],
    *(
      f'{model} may not be comparable: {sentence}.'
      for model, metadata in summary['models'].items()
      for sentence in metadata['mismatches']
    ),
  ]


def format_number(value: float | None) -> str:
  """Formats a number with three significant digits; None is a dash."""
  if value is None:
    return '–'
  # The sum turns -0.0 into 0.0.
  return f'{value + 0.0:.3g}'.replace('-', '−')


def format_percent(share: float) -> str:
  """Formats a share as percent, for example 0.999 as 99.9%."""
  return f'{100 * share:.6g}%'


def format_interval(ends: Sequence[float] | None) -> str:
  """Formats an interval in brackets; None is an empty text."""
  return f'[{format_number(ends[0])}, {format_number(ends[1])}]' if ends else ''


def _format_p(value: float) -> str:
  return '< .001' if value < 0.001 else f'{value:.3f}'.removeprefix('0')


def _sizes(summary) -> str:
  """Returns the numbers of models, units and SCMs, in words."""
  models = summary['measures']['score']['models']
  units = sorted({entry['units'] for entry in models.values()})
  num_units = ' to '.join(
    str(count) for count in (units[0], units[-1])[-len(units) :]
  )
  plural = '' if units[-1] == 1 else 's'
  scms = len(summary['by_scm'])
  return (
    f'{len(models)} models, {num_units} {summary["unit"]}{plural} each, on '
    f'{scms} kind{"" if scms == 1 else "s"} of SCM'
  )


def _overview(results, names) -> dict[str, Any]:
  """Returns the overview table: a row per model, a column per measure."""
  shown = [name for name in measures.MEASURES if name != _TIMING]
  best = {name: _best(results[name]) for name in shown}
  return {
    'heads': [
      f'{measures.MEASURES[name].title} '
      f'{"↑" if measures.MEASURES[name].sign > 0 else "↓"}'
      for name in shown
    ],
    'rows': [
      (
        name,
        [
          _estimate(results[measure].get('models', {}).get(name))
          | {'best': name in best[measure]}
          for measure in shown
        ],
      )
      for name in names
    ],
  }


def _best(result: Mapping[str, Any]) -> list[str]:
  """Returns the best model and those not significantly different from it."""
  if not result.get('pairs'):
    return []
  first = result['ranking'][0]
  return [first] + [
    pair['second']
    for pair in result['pairs']
    if pair['first'] == first and not pair['decided']
  ]


def _estimate(entry: Mapping[str, Any] | None) -> dict[str, Any]:
  if entry is None:
    return {'mean': '–', 'interval': ''}
  return {
    'mean': format_number(entry['mean']),
    'interval': format_interval(entry['interval']),
  }


def _by_scm(by_scm, names) -> list[tuple[str, list[dict[str, Any]]]]:
  rows = []
  for scm, entries in by_scm.items():
    top = max(entry['mean'] for entry in entries.values())
    rows.append(
      (
        scm,
        [
          _estimate(entries.get(name))
          | {'best': name in entries and entries[name]['mean'] == top}
          for name in names
        ],
      )
    )
  return rows


def _details(name, result, names) -> dict[str, Any]:
  """Returns all results for a measure, as text."""
  omnibus = result.get('omnibus')
  return {
    'title': measures.MEASURES[name].title,
    'meaning': measures.MEASURES[name].meaning,
    'nothing': result.get('nothing', ''),
    'models': [
      [
        model,
        str(entry['units']),
        format_number(entry['mean']),
        format_interval(entry['interval']),
        format_number(entry['sd']),
        format_number(entry['iqm']),
        format_interval(entry['iqm_interval']),
      ]
      for model in result.get('ranking', names)
      if (entry := result.get('models', {}).get(model))
    ],
    'pairs': [
      {
        'names': (pair['first'], pair['second']),
        'decided': pair['decided'],
        'cells': ['', '', '', '', '', '', '']
        if pair['untested']
        else [
          _with_interval(pair['difference'], pair['interval']),
          _format_p(pair['test']['p']),
          _format_p(pair['p_holm']),
          _format_p(pair['ranks']['p']),
          _with_interval(pair['g'], pair['g_interval']),
          f'{pair["improvement"]:.0%}',
          format_number(pair['detectable']),
        ],
      }
      for pair in result.get('pairs', [])
    ],
    'tests': tuple(
      next(
        (
          pair[kind]['name']
          for pair in result.get('pairs', [])
          if pair[kind]['name']
        ),
        title,
      )
      for kind, title in (('test', 'test'), ('ranks', 'ranks'))
    ),
    'omnibus': _test(omnibus) if omnibus and omnibus['name'] else '',
    'assumptions': [
      (assumption, _test(test), test['p'] < 0.05)
      for assumption, test in result.get('assumptions', {}).items()
    ],
  }


def _with_interval(value: float, ends: Sequence[float]) -> str:
  return f'{format_number(value)} {format_interval(ends)}'


def _test(test: Mapping[str, Any]) -> str:
  df = ', '.join(format_number(value) for value in test['df'])
  return (
    f'{test["name"]}{f" ({df})" if df else ""} = '
    f'{format_number(test["statistic"])}, '
    f'p {"" if test["p"] < 0.001 else "= "}{_format_p(test["p"])}'
  )


def _differences(differences) -> dict[str, Any]:
  heads = list(
    dict.fromkeys(name for row in differences.values() for name in row)
  )
  return {
    'heads': heads,
    'rows': [
      (setting, [str(values.get(name, '–')) for name in heads])
      for setting, values in differences.items()
    ],
  }
