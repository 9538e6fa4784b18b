"""Tests that the modules depend on each other one way only.

The imports are read from the sources; nothing is run.
"""

import ast
from collections.abc import Iterator
import itertools

from absl.testing import absltest

from tests.support import source_tree

# The floors of acme_cbo, from the ground up. A layer is a package or module; a
# part of a package with a row of its own, such as `experiments.main`, does not
# belong to the layer of the package. A layer imports itself and what its row
# says, all of which is on lower floors.
_FLOORS: tuple[dict[str, str], ...] = (
  {'types': '', 'infra': ''},
  {'scms': 'infra types', 'training': 'infra'},
  {'environments': 'infra scms types'},
  {'beliefs': 'environments types'},
  {'networks': 'beliefs environments infra scms types'},
  {'policies': 'beliefs environments infra networks scms types'},
  {
    'agents': 'beliefs environments infra networks policies scms types',
    'evaluation': 'beliefs environments infra networks policies scms types',
  },
  {
    'runtimes': (
      'agents beliefs environments infra networks policies scms types'
    ),
    'study': 'environments evaluation infra policies scms types',
  },
  {
    'experiments.config': (
      'agents environments evaluation infra networks runtimes scms training'
    ),
    'experiments.main': 'infra',
  },
  {'experiments.builder': 'agents experiments.config networks scms'},
  {
    # Trainings, sweeps, replay, results, flags, presets, the Python API.
    'experiments': (
      'agents evaluation experiments.builder experiments.config infra policies '
      'runtimes scms training types'
    ),
  },
  {
    'experiments.performance': (
      'agents beliefs environments evaluation experiments.builder '
      'experiments.config experiments.main infra networks policies runtimes '
      'scms training types'
    ),
    'experiments.validation': (
      'agents beliefs environments evaluation infra networks policies scms '
      'study types'
    ),
  },
  {
    'experiments.commands': (
      'evaluation experiments experiments.builder experiments.config '
      'experiments.main experiments.performance experiments.validation infra '
      'runtimes scms study'
    ),
  },
)
_MAY_IMPORT = {
  layer: set(below.split())
  for floor in _FLOORS
  for layer, below in floor.items()
}
_READERS_OF_CONFIGS = ('configs/', 'acme_cbo/experiments/flags.py')
_IMPORTING_FUNCTIONS = ('import_module', '__import__', 'run_module')
# The one import by name of a module of ours: of the command that the user
# names, and of nothing else.
_IMPORTS_BY_NAME = [
  (
    'acme_cbo/experiments/main.py',
    "importlib.import_module(f'acme_cbo.experiments.commands.{word}')",
  )
]


def _layer(path: str) -> str:
  """Returns 'scms' for acme_cbo/scms/graphs.py: the longest name with a row."""
  parts = path.removesuffix('.py').split('/')[1:]
  names = [*itertools.accumulate(parts, '{}.{}'.format)]
  rows = [name for name in names if name in _MAY_IMPORT]
  return [parts[0], *rows][-1]


def _imports_by_name(source: str) -> Iterator[str]:
  """Yields the calls in a source text that import a module of ours by name.

  These are the calls with a folder of ours, a relative name, `__name__` or
  `__package__` in their arguments. The others import what a user names.

  Args:
    source: Python source.
  """
  for call in ast.walk(ast.parse(source)):
    if not isinstance(call, ast.Call):
      continue
    function = ast.unparse(call.func).rpartition('.')[-1]
    if function not in _IMPORTING_FUNCTIONS:
      continue
    for argument in (*call.args, *(word.value for word in call.keywords)):
      if any(map(_names_a_folder_of_ours, ast.walk(argument))):
        yield ast.unparse(call)
        break


def _names_a_folder_of_ours(node: ast.AST) -> bool:
  if isinstance(node, ast.Constant) and isinstance(node.value, str):
    top, dot, _ = node.value.partition('.')
    return top in source_tree.FOLDERS or (not top and bool(dot))
  name = getattr(node, 'attr', getattr(node, 'id', ''))
  return name in ('__name__', '__package__', '__path__')


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

  def _imported_layers(self) -> dict[str, dict[str, str]]:
    """Returns {layer: {other layer that it imports: an example}}."""
    layers: dict[str, dict[str, str]] = {}
    for path in self.paths:
      if path.startswith('acme_cbo/') and path != 'acme_cbo/__init__.py':
        layer = _layer(path)
        examples = layers.setdefault(layer, {})
        for file in self._imported(path):
          if _layer(file) != layer:
            examples[_layer(file)] = f'{path} imports {file}'
    return layers

  def test_every_layer_imports_what_its_row_says(self):
    layers = self._imported_layers()
    self.assertSameElements(layers, _MAY_IMPORT)
    for layer, examples in layers.items():
      for other, example in examples.items():
        with self.subTest(example):
          self.assertIn(
            other,
            _MAY_IMPORT[layer],
            f'{example}: {layer} may not import {other} (_FLOORS here)',
          )
      with self.subTest(layer):
        unused = _MAY_IMPORT[layer] - set(examples)
        self.assertEmpty(unused, f'_FLOORS: take {unused} from {layer}')

  def test_floors_lead_down(self):
    below = set()
    for floor in _FLOORS:
      for layer in floor:
        self.assertContainsSubset(_MAY_IMPORT[layer], below, layer)
      below |= set(floor)

  def test_no_layer_may_import_everything(self):
    below = set()
    for i, floor in enumerate(_FLOORS):
      for layer in floor:
        # Only the ground is below the second floor.
        if i >= 2:
          self.assertNotEmpty(below - _MAY_IMPORT[layer], layer)
      below |= set(floor)

  def test_no_import_goes_past_the_table(self):
    found = []
    for path in self.paths:
      # The root imports the names of the API when they are first used.
      if path.startswith('acme_cbo/') and path != 'acme_cbo/__init__.py':
        calls = _imports_by_name(self.texts[path])
        found += [(path, call) for call in calls]
        # Called by another name, it would not be found.
        self.assertNotIn(
          'importlib.import_module',
          source_tree.imported(self.texts[path]),
          path,
        )
    self.assertEqual(found, _IMPORTS_BY_NAME)

  def test_imports_by_name_are_found(self):
    for call in (
      "importlib.import_module('acme_cbo')",
      "importlib.import_module('acme_cbo.scms.graphs')",
      "importlib.import_module(f'acme_cbo.{name}')",
      "importlib.import_module('acme_cbo.' + name)",
      "importlib.import_module(name='acme_cbo.scms')",
      "importlib.import_module('configs.grpo')",
      "importlib.import_module('.graphs', 'x')",
      "importlib.import_module(f'{__package__}.graphs')",
      "importlib.import_module(f'{scms.__name__}.graphs')",
      'importlib.import_module(x.__package__)',
      "extras.import_module('acme_cbo.scms', 'x')",
      "runpy.run_module('acme_cbo.experiments.main')",
      "__import__('acme_cbo.scms')",
    ):
      with self.subTest(call):
        self.assertEqual([*_imports_by_name(f'def f():\n  {call}')], [call])
    for call in ('importlib.import_module(module)', "f('acme_cbo.scms')"):
      with self.subTest(call):
        self.assertEmpty([*_imports_by_name(call)])

  def test_no_import_is_relative(self):
    for path, text in self.texts.items():
      with self.subTest(path):
        for node in ast.walk(ast.parse(text)):
          if isinstance(node, ast.ImportFrom):
            self.assertEqual(node.level, 0, ast.unparse(node))

  def test_the_root_is_small(self):
    # One module and 12 packages; __init__.py and py.typed.
    entries = [
      path.name
      for path in (source_tree.ROOT / 'acme_cbo').iterdir()
      if path.name != '__pycache__' and not path.name.startswith('.')
    ]
    self.assertIn('py.typed', entries)
    self.assertLessEqual(len(entries), 15, sorted(entries))

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
