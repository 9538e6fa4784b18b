"""The report of a comparison as one page that needs nothing beside it.

What differs from one making of the same comparison to the next, dates and
seconds, stands in the last section alone.
"""

import base64
from collections.abc import Mapping, Sequence
import pathlib
from typing import Any

import jinja2

from acme_cbo.evaluation.comparison import figures
from acme_cbo.evaluation.comparison import measures

_TEMPLATE = pathlib.Path(__file__).with_name('page.html.jinja')
# Of the clock of a machine, and so not the same twice.
_TIMED = 'seconds'


def render(summary: Mapping[str, Any], images: Mapping[str, bytes]) -> str:
  """The page.

  Args:
    summary: what `run.run` returns.
    images: {name of a figure: PNG}; one that is missing is left out.

  Returns:
    HTML; all that comes from files or flags is escaped.
  """
  environment = jinja2.Environment(
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
  )
  template = environment.from_string(_TEMPLATE.read_text(encoding='utf-8'))
  of_measures = summary['measures']
  ranked = ranking(summary)
  return template.render(
    names=ranked,
    colours={name: figures.style(rank)[0] for rank, name in enumerate(ranked)},
    verdict=summary['verdict'],
    beside=summary['beside'],
    marks=marks(summary),
    unit=summary['unit'],
    confidence=percent(summary['confidence']),
    sizes=_sizes(summary),
    few=not of_measures['score'].get('pairs'),
    intervals=any(
      entry['interval'] for entry in of_measures['score']['models'].values()
    ),
    overview=_overview(of_measures, ranked),
    meanings={
      one.title: one.meaning
      for name, one in measures.MEASURES.items()
      if name != _TIMED
    },
    images={
      name: base64.b64encode(image).decode() for name, image in images.items()
    },
    by_scm=_by_scm(summary['by_scm'], ranked),
    details=[
      _details(name, about, ranked)
      for name, about in of_measures.items()
      if name != _TIMED
    ],
    differences=_differences(summary['differences']),
    success=measures.SUCCESS,
    played=summary['played'],
    models=summary['models'],
    seconds=_details(_TIMED, of_measures[_TIMED], ranked),
    made=summary['made'],
  )


def ranking(summary: Mapping[str, Any]) -> list[str]:
  """The names that are compared, the highest score first."""
  about = summary['measures']['score']
  return about.get('ranking') or list(about['models'])


def marks(summary: Mapping[str, Any]) -> list[str]:
  """What is to be known before anything is believed."""
  return [
    *summary['remarks'],
    *(
      f'Take care with {model}: {sentence}.'
      for model, about in summary['models'].items()
      for sentence in about['mismatches']
    ),
  ]


def number(value: float | None) -> str:
  """A figure with three digits."""
  if value is None:
    return '–'
  return f'{value + 0.0:.3g}'.replace('-', '−')  # Of -0.0 it makes 0.0.


def percent(share: float) -> str:
  """As .95 is 95%, and .999 is 99.9%."""
  return f'{100 * share:.6g}%'


def interval(ends: Sequence[float] | None) -> str:
  """An interval in brackets; empty where there is none."""
  return f'[{number(ends[0])}, {number(ends[1])}]' if ends else ''


def _p(value: float) -> str:
  return '< .001' if value < 0.001 else f'{value:.3f}'.removeprefix('0')


def _sizes(summary) -> str:
  """How much was compared, in a phrase."""
  models = summary['measures']['score']['models']
  units = sorted({entry['units'] for entry in models.values()})
  many = ' to '.join(
    str(count) for count in (units[0], units[-1])[-len(units) :]
  )
  plural = '' if units[-1] == 1 else 's'
  scms = len(summary['by_scm'])
  return (
    f'{len(models)} models, {many} {summary["unit"]}{plural} each, on '
    f'{scms} kind{"" if scms == 1 else "s"} of SCM'
  )


def _overview(of_measures, ranked) -> dict[str, Any]:
  """A row for each name, a column for each measure."""
  shown = [name for name in measures.MEASURES if name != _TIMED]
  best = {name: _best(name, of_measures[name]) for name in shown}
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
          _estimate(of_measures[measure].get('models', {}).get(name))
          | {'best': name in best[measure]}
          for measure in shown
        ],
      )
      for name in ranked
    ],
  }


def _best(measure: str, about: Mapping[str, Any]) -> list[str]:
  """The first of the ranking, and those that are not told from it."""
  if not about.get('pairs'):
    return []
  first = about['ranking'][0]
  return [first] + [
    pair['second']
    for pair in about['pairs']
    if pair['first'] == first and not pair['decided']
  ]


def _estimate(entry: Mapping[str, Any] | None) -> dict[str, Any]:
  if entry is None:
    return {'mean': '–', 'interval': ''}
  return {
    'mean': number(entry['mean']),
    'interval': interval(entry['interval']),
  }


def _by_scm(found, ranked) -> list[tuple[str, list[dict[str, Any]]]]:
  rows = []
  for scm, entries in found.items():
    top = max(entry['mean'] for entry in entries.values())
    rows.append(
      (
        scm,
        [
          _estimate(entries.get(name))
          | {'best': name in entries and entries[name]['mean'] == top}
          for name in ranked
        ],
      )
    )
  return rows


def _details(name, about, ranked) -> dict[str, Any]:
  """All that is known of a measure, as text."""
  omnibus = about.get('omnibus')
  return {
    'title': measures.MEASURES[name].title,
    'meaning': measures.MEASURES[name].meaning,
    'nothing': about.get('nothing', ''),
    'models': [
      [
        who,
        str(entry['units']),
        number(entry['mean']),
        interval(entry['interval']),
        number(entry['sd']),
        number(entry['iqm']),
        interval(entry['iqm_interval']),
      ]
      for who in about.get('ranking', ranked)
      if (entry := about.get('models', {}).get(who))
    ],
    'pairs': [
      {
        'names': (pair['first'], pair['second']),
        'decided': pair['decided'],
        'cells': ['', '', '', '', '', '', '']
        if pair['untested']
        else [
          f'{number(pair["difference"])} {interval(pair["interval"])}',
          _p(pair['test']['p']),
          _p(pair['p_holm']),
          _p(pair['ranks']['p']),
          f'{number(pair["g"])} {interval(pair["g_interval"])}',
          f'{pair["improvement"]:.0%}',
          number(pair['detectable']),
        ],
      }
      for pair in about.get('pairs', [])
    ],
    'tests': tuple(
      next(
        (
          pair[kind]['name']
          for pair in about.get('pairs', [])
          if pair[kind]['name']
        ),
        title,
      )
      for kind, title in (('test', 'test'), ('ranks', 'ranks'))
    ),
    'omnibus': _test(omnibus) if omnibus and omnibus['name'] else '',
    'assumptions': [
      (what, _test(test), test['p'] < 0.05)
      for what, test in about.get('assumptions', {}).items()
    ],
  }


def _test(test: Mapping[str, Any]) -> str:
  df = ', '.join(number(value) for value in test['df'])
  return (
    f'{test["name"]}{f" ({df})" if df else ""} = {number(test["statistic"])}, '
    f'p {"" if test["p"] < 0.001 else "= "}{_p(test["p"])}'
  )


def _differences(found) -> dict[str, Any]:
  heads = list(dict.fromkeys(name for row in found.values() for name in row))
  return {
    'heads': heads,
    'rows': [
      (setting, [str(values.get(name, '–')) for name in heads])
      for setting, values in found.items()
    ],
  }
