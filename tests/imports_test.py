"""Tests that the modules depend on each other one way only.

The imports are read from the sources; nothing is run.
"""

from absl.testing import absltest

from tests import build_file

_DOMAIN = (
  'types',
  'units',
  'draws',
  'interventions',
  'scms',
  'beliefs',
  'rewards',
  'environment',
  'simulators',
)
_ACTING = (*_DOMAIN, 'distributions', 'surrogate', 'networks', 'actor')
_LEARNING = (*_ACTING, 'losses', 'learner')

# What the modules of each layer may import from acme_cbo. A layer is a module
# or a package; the longest name that fits a module counts.
_LAYERS = {
  'types': (),
  'installed': (),
  'units': ('types',),
  'draws': (),
  'interventions': ('types',),
  'scms': ('types', 'draws', 'interventions', 'scms', 'errors'),
  'beliefs': ('types', 'units', 'beliefs'),
  'rewards': ('types', 'scms', 'rewards'),
  'environment': _DOMAIN,
  'simulators': (*_DOMAIN, 'errors'),
  'distributions': ('types', 'draws', 'interventions'),
  'surrogate': ('distributions',),
  'networks': (
    'types',
    'units',
    'beliefs',
    'distributions',
    'scms',
    'surrogate',
  ),
  'losses': (),
  'actor': _ACTING,
  'learner': _LEARNING,
  'runtimes': (*_LEARNING, 'runtimes', 'errors', 'installed'),
  'runtimes.pipeline': ('errors',),
  'runtimes.lines': (),
  'runtimes.processes': ('errors', 'installed', 'runtimes.lines'),
  'training': ('training', 'errors'),
  'evaluation': (*_ACTING, 'evaluation', 'errors'),
  'evaluation.statistics': (),
  'evaluation.significance': (),
  'evaluation.plots': ('evaluation.statistics',),
  'evaluation.report': ('evaluation.statistics', 'evaluation.plots'),
  'studies': (
    'evaluation',
    'studies',
    'errors',
    'schema',
    'run_directory',
    'episode_log',
  ),
  'errors': (),
  'schema': ('errors',),
  'command_line': (
    'errors',
    'schema',
    'runtimes.pipeline',
    'runtimes.processes',
  ),
  'cores': (),
  'together': ('errors', 'cores', 'runtimes.processes'),
  'trained_policy': ('errors', 'networks'),
  'run_directory': ('errors', 'schema', 'training.interruption'),
  'benchmark': (
    *_LEARNING,
    'runtimes',
    'errors',
    'training',
    'evaluation',
    'benchmark',
  ),
  'benchmark.run': ('',),
  'benchmark.exchange': ('',),
  'benchmark.scaling': ('',),
  'experiment': ('',),  # Everything.
  'dashboard': ('',),
  'results': ('',),
  'train': ('',),
  'replay': ('',),
  'evaluate': ('',),
  'compare': ('',),
  'workflow': ('',),
  'executors': ('errors', 'cores', 'leash', 'run_directory'),
  'leash': (),
  'players': ('',),
  'episode_log': ('',),
  'validation': (*_LEARNING, 'runtimes', 'evaluation', 'errors', 'validation'),
}
_READERS_OF_CONFIGS = ('configs/', 'launchers/')


def _layer(path: str) -> str:
  """Returns the layer of a path below acme_cbo; '' where it has none."""
  name = _name(path)
  fitting = [layer for layer in _LAYERS if _is_in(name, layer)]
  return max(fitting, key=len, default='')


def _name(path: str) -> str:
  """Returns 'scms.graphs' for acme_cbo/scms/graphs.py."""
  inner = path.removeprefix('acme_cbo/').removesuffix('.py')
  return inner.removesuffix('/__init__').replace('/', '.')


def _is_in(name: str, layer: str) -> bool:
  return f'{name}.'.startswith(f'{layer}.') or not layer


class ImportsTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.paths = build_file.sources()
    self.texts = {
      path: (build_file.ROOT / path).read_text() for path in self.paths
    }

  def _imported(self, path: str, types_too: bool = True) -> set[str]:
    """Returns the project's own files that a file imports."""
    names = build_file.imported(self.texts[path], types_too)
    return {
      build_file.module(name, self.paths)
      for name in names
      if name.partition('.')[0] in build_file.FOLDERS
    }

  def test_layers(self):
    for path in self.paths:
      if not path.startswith('acme_cbo/') or path.endswith('__init__.py'):
        continue
      with self.subTest(path):
        layer = _layer(path)
        self.assertTrue(
          layer, f'{path} is in no layer: add it to _LAYERS in imports_test.py'
        )
        for file in self._imported(path):
          self.assertTrue(
            any(_is_in(_name(file), prefix) for prefix in _LAYERS[layer]),
            f'{path} imports {file}; its layer, {layer}, may import only '
            f'{_LAYERS[layer]} (_LAYERS in imports_test.py)',
          )

  def test_packages_import_nothing(self):
    # What importing a module of theirs costs is then what the module says.
    for path in self.paths:
      if path.endswith('__init__.py'):
        with self.subTest(path):
          self.assertEmpty(build_file.imported(self.texts[path]))

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
        # A config may be a variant of another one.
        allowed = ['acme_cbo/']
        if path.startswith('configs/'):
          allowed.append('configs/')
        for file in self._imported(path):
          self.assertStartsWith(file, tuple(allowed))

  def test_config_dicts_are_read_at_the_top_only(self):
    for path in self.paths:
      names = build_file.imported(self.texts[path], types_too=True)
      if any(_is_in(name, 'ml_collections') for name in names):
        with self.subTest(path):
          self.assertStartsWith(path, (*_READERS_OF_CONFIGS, 'tests/'))


if __name__ == '__main__':
  absltest.main()
