"""Tests of the report of a study, in a real browser."""

import pathlib
import tempfile

from absl.testing import absltest
from absl.testing import parameterized
import numpy as np
import pandas as pd
from playwright import sync_api

import acme_cbo
from tests.support import browser

# Names that are markup, that a narrow page has no room for, that matplotlib
# takes for a formula and for no label, and that its fonts lack.
_MARKUP = '<img src=x onerror=alert(1)>'
_LONG = 'temperature_of_the_second_reactor_after_cooling'
_WATCHED = '_$\\frac$温度'
_REASON = '<script>alert(2)</script> the pump broke'


def _study(path: pathlib.Path) -> acme_cbo.Study:
  """Creates a study with experiments of every status and hostile names."""
  rng = np.random.default_rng(0)
  records = pd.DataFrame(
    rng.uniform(size=(30, 4)), columns=[_MARKUP, _LONG, _WATCHED, 'y']
  )
  study = acme_cbo.Study.create(
    path,
    data=records,
    target='y',
    variables={
      _MARKUP: {'domain': (0, 1)},
      _LONG: {'domain': (0, 1), 'step': 0.1},
    },
    interventions={'max_size': 2},
    experiments=10,
  )
  for do in ({_MARKUP: 0.5}, {_LONG: 0.4}, {_MARKUP: 0.2, _LONG: 0.7}):
    study.observe(None, {'y': sum(do.values())}, do)
  first, second, _ = study.suggest(3)
  study.fail(first, reason=_REASON)
  study.abandon(second)
  study.amend(1, {'y': 0.6})
  return study


class ReportTest(parameterized.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    folder = pathlib.Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
    cls._page = folder / 'report.html'
    cls._browser = cls.enterClassContext(browser.chromium())
    cls._study = _study(folder / 'a.study')
    cls._study.report(cls._page)

  def _open(self, width: int) -> tuple[sync_api.Page, list[str], list[str]]:
    """Opens the report; returns it, what it requests and its messages."""
    context = self._browser.new_context(
      viewport={'width': width, 'height': 800}
    )
    self.addCleanup(context.close)
    page = context.new_page()
    requests: list[str] = []
    messages: list[str] = []
    page.on('request', lambda request: requests.append(request.url))
    page.on('console', lambda message: messages.append(message.text))
    page.on('pageerror', lambda error: messages.append(str(error)))
    page.on('dialog', lambda dialog: messages.append(dialog.message))
    page.goto(self._page.as_uri(), wait_until='networkidle')
    return page, requests, messages

  @parameterized.parameters(1200, 390)
  def test_it_stands_on_its_own_and_fits(self, width):
    page, requests, messages = self._open(width)
    self.assertEqual(requests, [self._page.as_uri()])
    self.assertEmpty(messages)
    self.assertEqual(page.locator('script, img, iframe, link').count(), 0)
    page_width = page.evaluate('document.documentElement.scrollWidth')
    self.assertLessEqual(page_width, width)
    figures = page.locator('svg')
    self.assertEqual(figures.count(), 3)
    for k in range(figures.count()):
      box = figures.nth(k).bounding_box()
      assert box is not None
      self.assertGreater(box['height'], 150)
      self.assertLessEqual(box['x'] + box['width'], width)

  def test_the_verdict_is_first_and_in_view(self):
    for width in (1200, 390):
      page, _, _ = self._open(width)
      verdict = page.locator('main p').first
      self.assertStartsWith(verdict.inner_text(), 'Set ')
      self.assertIn('y', verdict.inner_text())
      box = verdict.bounding_box()
      assert box is not None
      self.assertLess(box['y'] + box['height'], 800)

  def test_every_experiment_has_a_row(self):
    page, _, _ = self._open(1200)
    table = page.locator('h2:has-text("All experiments") + div table')
    rows = [
      [cell.strip() for cell in row.split('\t')]
      for row in table.inner_text().splitlines()
    ]
    self.assertEqual(
      rows[0], ['no.', 'status', 'y', _MARKUP, _LONG, _WATCHED, '']
    )
    self.assertEqual(
      [row[:2] for row in rows[1:]],
      [
        ['1', 'observed, not suggested, amended'],
        ['2', 'observed, not suggested'],
        ['3', 'observed, not suggested'],
        ['4', 'failed'],
        ['5', 'abandoned'],
        ['6', 'pending'],
      ],
    )
    self.assertEqual(rows[1][2], '0.6')
    self.assertEqual(rows[4][-1], _REASON)


if __name__ == '__main__':
  absltest.main()
