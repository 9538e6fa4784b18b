"""Tests that README.md and docs/ name what exists, and that examples run."""

import json
import pathlib
import re
from typing import Any

from absl.testing import absltest
from absl.testing import parameterized
import pytest

from acme_cbo.experiments import sweep_config
from tests.support import source_tree

_MAX_README_LINES = 200
_PAGES = (
  'README.md',
  'CONTRIBUTING.md',
  *sorted(
    path.relative_to(source_tree.ROOT).as_posix()
    for path in (source_tree.ROOT / 'docs').glob('*.md')
  ),
)
_FENCE = re.compile(r'^```(\w*)\n(.*?)^```$', re.MULTILINE | re.DOTALL)
_LINK = re.compile(r'\]\(([^)\s]+)\)')
_HEADING = re.compile(r'^#+ (.*)$', re.MULTILINE)
_PATH = re.compile(
  r'(?<![\w./~-])(?:acme_cbo|configs|docs|launchers|tests)/[\w./-]*'
)
_MODULE = re.compile(r'`acme_cbo\.([\w.]+)')


def _text(page: str) -> str:
  return (source_tree.ROOT / page).read_text()


def _anchors(text: str) -> set[str]:
  """Returns the anchors that GitHub gives to the headings of a page."""
  headings = _HEADING.findall(_FENCE.sub('', text))
  return {
    re.sub(r'[^\w -]', '', heading.lower()).replace(' ', '-')
    for heading in headings
  }


def _run_example(page: str) -> dict[str, Any]:
  """Runs the one Python example of a page and returns its variables."""
  blocks = _FENCE.findall(_text(page))
  (example,) = [code for language, code in blocks if language == 'python']
  scope: dict[str, Any] = {}
  exec(compile(example, page, 'exec'), scope)  # noqa: S102 - our own page.
  return scope


class DocsTest(parameterized.TestCase):
  @parameterized.parameters(*_PAGES)
  def test_links_lead_somewhere(self, page):
    text = _FENCE.sub('', _text(page))
    for link in _LINK.findall(text):
      if re.match(r'https?:', link):
        continue
      with self.subTest(link):
        name, _, anchor = link.partition('#')
        path = (source_tree.ROOT / page).parent / name if name else page
        path = source_tree.ROOT / path
        self.assertTrue(path.exists())
        if anchor:
          self.assertIn(anchor, _anchors(path.read_text()))

  @parameterized.parameters(*_PAGES)
  def test_paths_exist(self, page):
    for path in _PATH.findall(_text(page)):
      with self.subTest(path):
        self.assertTrue((source_tree.ROOT / path.rstrip('.')).exists())

  @parameterized.parameters(*_PAGES)
  def test_modules_exist(self, page):
    package = source_tree.ROOT / 'acme_cbo'
    public = (package / '__init__.py').read_text()
    for name in _MODULE.findall(_text(page)):
      with self.subTest(name):
        # A package, a module, or a name in one of them.
        path, _, last = name.replace('.', '/').rpartition('/')
        candidates = (
          package / f'{name.replace(".", "/")}.py',
          package / name.replace('.', '/'),
          package / f'{path}.py',
        )
        self.assertTrue(
          any(candidate.exists() for candidate in candidates)
          or (not path and last in public)
        )

  def test_readme_is_short(self):
    self.assertLessEqual(
      len(_text('README.md').splitlines()), _MAX_README_LINES
    )

  def test_index_lists_every_page(self):
    index = _LINK.findall(_text('docs/README.md'))
    for page in _PAGES:
      if page.startswith('docs/') and page != 'docs/README.md':
        self.assertIn(pathlib.PurePath(page).name, index)

  def test_sweep_example_is_a_sweep(self):
    scope = _run_example('docs/comparisons.md')
    config = scope['get_config']()
    sweep_config.check(json.loads(config.to_json()))
    configs = sweep_config.expand(scope['sweep'], config)
    self.assertLen(configs, 3)

  @pytest.mark.slow
  @pytest.mark.timeout(600)
  def test_readme_example_runs(self):
    scope = _run_example('README.md')
    self.assertNotEmpty(scope['session'].recommend())


if __name__ == '__main__':
  absltest.main()
