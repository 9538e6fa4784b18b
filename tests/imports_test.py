"""Tests that the modules depend on each other one way only.

The imports are read from the sources; nothing is run.
"""

from absl.testing import absltest

from tests.support import source_tree

# The floors of acme_cbo, from the ground up. A package imports itself and, of
# the floors below its own, only what stands here.
_GROUND = ('types', 'infra')
_WORLD = (*_GROUND, 'scms', 'environments')
_NETWORK = (*_WORLD, 'beliefs', 'networks')
_FLOORS = (
  {'types': (), 'infra': ()},
  {'scms': _GROUND, 'training': ('infra',)},
  {'environments': (*_GROUND, 'scms')},
  {'beliefs': _WORLD},
  {'networks': (*_WORLD, 'beliefs')},
  {'policies': _NETWORK},
  {
    'agents': (*_NETWORK, 'policies'),
    'evaluation': (*_NETWORK, 'policies'),
  },
  {'runtimes': (*_NETWORK, 'policies', 'agents')},
  {
    'experiments': (
      *_NETWORK,
      'training',
      'policies',
      'agents',
      'evaluation',
      'runtimes',
    )
  },
)
_MAY_IMPORT = {
  layer: (layer, *below) for floor in _FLOORS for layer, below in floor.items()
}
_READERS_OF_CONFIGS = ('configs/', 'acme_cbo/experiments/flags.py')


def _layer(path: str) -> str:
  """Returns 'scms' for acme_cbo/scms/graphs.py."""
  return path.split('/')[1].removesuffix('.py')


class ImportsTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.paths = source_tree.sources()
    self.texts = {
      path: (source_tree.ROOT / path).read_text() for path in self.paths
    }

  def _imported(self, path: str, types_too: bool = True) -> set[str]:
    """Returns the project's own files that a file imports."""
    names = source_tree.imported(self.texts[path], types_too)
    return {
      source_tree.module(name, self.paths)
      for name in names
      if name.partition('.')[0] in source_tree.FOLDERS
    }

  def test_imports_go_down(self):
    for path in self.paths:
      if not path.startswith('acme_cbo/') or path == 'acme_cbo/__init__.py':
        continue
      with self.subTest(path):
        layer = _layer(path)
        self.assertIn(layer, _MAY_IMPORT, f'{path} is on no floor: add {layer}')
        for file in self._imported(path):
          self.assertIn(
            _layer(file),
            _MAY_IMPORT[layer],
            f'{path} imports {file}, which {layer} may not (_FLOORS here)',
          )

  def test_floors_lead_down(self):
    below = set()
    for floor in _FLOORS:
      for layer, allowed in floor.items():
        self.assertContainsSubset(allowed, below, layer)
      below |= set(floor)

  def test_the_root_is_small(self):
    entries = {
      path.split('/')[1] for path in self.paths if path.startswith('acme_cbo/')
    }
    self.assertLessEqual(len(entries), 14, sorted(entries))

  def test_packages_import_nothing(self):
    # Importing a module then costs what the module itself imports. The root
    # imports the names of the API when they are first used.
    for path in self.paths:
      if path.endswith('__init__.py'):
        with self.subTest(path):
          imported = source_tree.imported(self.texts[path])
          of_root = {'importlib', 'typing.Any', 'typing.TYPE_CHECKING'}
          self.assertEqual(
            imported, of_root if path == 'acme_cbo/__init__.py' else set()
          )

  def test_nothing_goes_round(self):
    done, open_ = set(), []

    def visit(path: str):
      self.assertNotIn(path, open_, 'imports go round')
      if path not in done:
        open_.append(path)
        for file in self._imported(path, types_too=False):
          visit(file)
        done.add(open_.pop())

    for path in self.paths:
      visit(path)

  def test_configs_and_launchers_are_imported_by_no_module(self):
    for path in self.paths:
      if path.startswith('tests/'):
        continue
      with self.subTest(path):
        for file in self._imported(path):
          self.assertStartsWith(file, 'acme_cbo/')

  def test_config_dicts_are_read_at_the_top_only(self):
    for path in self.paths:
      names = source_tree.imported(self.texts[path], types_too=True)
      if any(name.partition('.')[0] == 'ml_collections' for name in names):
        with self.subTest(path):
          self.assertStartsWith(path, (*_READERS_OF_CONFIGS, 'tests/'))


if __name__ == '__main__':
  absltest.main()
