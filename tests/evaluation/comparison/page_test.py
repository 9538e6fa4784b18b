"""Tests of the content of the report page, and of its escaping."""

import html.parser
import re

from absl.testing import absltest
import numpy as np

from acme_cbo.evaluation.comparison import measures
from acme_cbo.evaluation.comparison import page
from acme_cbo.evaluation.comparison import verdict
from tests.evaluation.comparison import tables

_EVIL = '<script>alert("x")</script>'


def _summary(scores, configurations=None, **changes):
  """Returns a summary like that of `run.run`."""
  return {
    'models': {
      name: {
        'configuration': name,
        'path': f'runs/{name}',
        'seed': 0,
        'updates': None,
        'code': None,
        'mismatches': [],
      }
      for name in scores
    },
    'remarks': [],
    'differences': {},
    'played': {'SCMs': 's0, s1', 'budget': None},
    'training': {},
    **verdict.compare(
      tables.table(scores), configurations or {m: m for m in scores}, 0.95
    ),
    'made': {
      'time': '2026-01-01T00:00:00+00:00',
      'command': 'compare',
      'git': None,
      'python': '3.11',
      'versions': {'jax': '0.1'},
      'platform': 'Linux',
      'devices': ['cpu'],
      'cpus': 2,
    },
  } | changes


class _Reader(html.parser.HTMLParser):
  """Parser that collects the text and the elements of a page."""

  def __init__(self, text):
    super().__init__()
    self.words, self.tags = [], []
    self.feed(text)

  def handle_starttag(self, tag, attrs):
    self.tags.append((tag, dict(attrs)))

  def handle_data(self, data):
    self.words.append(data)

  def text(self):
    return ' '.join(' '.join(self.words).split())


class PageTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    rng = np.random.default_rng(0)
    self.scores = {
      name: rng.normal(level, 0.1, 20)
      for name, level in (('good', 1.0), ('bad', 0.0), ('as bad', 0.0))
    }

  def test_the_verdict_comes_first(self):
    summary = _summary(self.scores)
    read = _Reader(page.render(summary, {'ranking': b'PNG'})).text()
    body = read.partition('Comparison of ')[2]
    self.assertStartsWith(body, 'good; ')
    positions = [body.index(sentence) for sentence in summary['verdict']]
    self.assertLess(positions[0], 60)
    self.assertLess(max(positions), body.index('Ranking'))

  def test_every_measure_has_its_number(self):
    summary = _summary(self.scores)
    read = _Reader(page.render(summary, {})).text()
    for name, result in summary['measures'].items():
      self.assertIn(measures.MEASURES[name].title.lower(), read.lower())
      for entry in result['models'].values():
        self.assertIn(page.format_number(entry['mean']), read)

  def test_page_is_self_contained(self):
    text = page.render(_summary(self.scores), {'curves': b'PNG'})
    (image,) = [attrs for tag, attrs in _Reader(text).tags if tag == 'img']
    self.assertEqual(image['src'], 'data:image/png;base64,UE5H')
    self.assertTrue(image['alt'])
    self.assertEmpty(re.findall(r'(?:src|href)="(?!data:)', text))
    self.assertNotIn('http', text)

  def test_content_is_escaped(self):
    self.scores[_EVIL] = self.scores.pop('good')
    summary = _summary(
      self.scores,
      remarks=[_EVIL],
      differences={_EVIL: {_EVIL: _EVIL}},
      played={_EVIL: _EVIL},
    )
    summary['models'][_EVIL] |= {'path': _EVIL, 'mismatches': [_EVIL]}
    summary['made']['command'] = _EVIL
    text = page.render(summary, {})
    self.assertNotIn('<script', text)
    self.assertEqual(_Reader(text).text().count(_EVIL), 41)

  def test_models_that_are_not_comparable_have_a_warning(self):
    summary = _summary(self.scores, remarks=['a, seed 1 failed: no memory.'])
    summary['models']['bad']['mismatches'] = ['it is not finished']
    self.assertEqual(
      page.warnings(summary),
      [
        'a, seed 1 failed: no memory.',
        'bad may not be comparable: it is not finished.',
      ],
    )
    read = _Reader(page.render(summary, {})).text()
    for sentence in page.warnings(summary):
      self.assertIn(sentence, read)

  def test_only_the_last_section_depends_on_time(self):
    first, second = (_summary(self.scores | {}) for _ in range(2))
    second['made'] = second['made'] | {'time': '2027', 'command': 'again'}
    for entry in second['measures']['seconds']['models'].values():
      entry['mean'] = 123.0
    pages = [page.render(summary, {}) for summary in (first, second)]
    self.assertNotEqual(*pages)
    heads = [
      text.partition('<h2>Date and computing time</h2>') for text in pages
    ]
    self.assertEqual(heads[0][0], heads[1][0])
    self.assertTrue(heads[0][1])

  def test_too_few_seeds(self):
    summary = _summary(self.scores, {name: name[-3:] for name in self.scores})
    read = _Reader(page.render(summary, {})).text()
    self.assertIn('No conclusion', read)
    self.assertIn('1 to 2 training seeds each', read)

  def test_numbers(self):
    self.assertEqual(page.format_number(-0.12345), '−0.123')
    self.assertEqual(page.format_number(-0.0), '0')
    self.assertEqual(page.format_number(None), '–')
    self.assertEqual(page.format_interval([0.1, 0.25]), '[0.1, 0.25]')
    self.assertEqual(page.format_interval(None), '')


if __name__ == '__main__':
  absltest.main()
