"""Tests of the distribution: its metadata, the lock, and what a wheel holds."""

import importlib
import importlib.metadata
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
import zipfile

from absl.testing import absltest
from packaging import requirements
from packaging import utils
from packaging import version

import acme_cbo
from tests.support import source_tree

_ROOT = source_tree.ROOT
_PYPROJECT = tomllib.loads((_ROOT / 'pyproject.toml').read_text())
_PROJECT = _PYPROJECT['project']
# A program beside the package, which shows what a training writes, and a module
# that pandas imports to read Excel files.
_NOT_IMPORTED = {'openpyxl', 'tensorboard'}
# Commands of test.sh that are not imported.
_TEST_PROGRAMS = {'pyrefly', 'pytest-timeout', 'pytest-xdist', 'ruff'}


def _lock() -> dict[str, dict[str, version.Version]]:
  """Returns {heading: {package: version}} of requirements.txt."""
  sections: dict[str, dict[str, version.Version]] = {}
  for line in (_ROOT / 'requirements.txt').read_text().splitlines():
    if heading := re.fullmatch('# --- (.*) ---', line):
      sections[heading[1]] = {}
    elif pin := re.match(r'([\w.-]+)==([^\s#]+)', line):
      name = utils.canonicalize_name(pin[1])
      [*sections.values()][-1][name] = version.Version(pin[2])
  return sections


def _declared(lines: list[str]) -> dict[str, requirements.Requirement]:
  parsed = [requirements.Requirement(line) for line in lines]
  return {utils.canonicalize_name(one.name): one for one in parsed}


def _imported(*folders: str) -> set[str]:
  """Returns the distributions that the files of some folders import."""
  distributions = importlib.metadata.packages_distributions()
  names = {
    name.partition('.')[0]
    for path in source_tree.sources()
    if path.startswith(tuple(f'{folder}/' for folder in folders))
    for name in source_tree.imported((_ROOT / path).read_text())
  }
  names -= {*sys.stdlib_module_names, *source_tree.FOLDERS}
  return {utils.canonicalize_name(distributions[name][0]) for name in names}


class DependenciesTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.lock = _lock()
    self.dependencies = _declared(_PROJECT['dependencies'])
    self.extras = {
      name: _declared(lines)
      for name, lines in _PROJECT['optional-dependencies'].items()
    }
    # Extras for users, which the tests need too.
    self.others = set().union(
      *(names for extra, names in self.extras.items() if extra != 'test')
    )

  def test_what_is_imported_is_declared(self):
    self.assertSetEqual(
      _imported('acme_cbo', 'configs', 'launchers') | _NOT_IMPORTED,
      set(self.dependencies),
    )

  def test_what_the_tests_import_is_declared(self):
    declared = self.dependencies | self.extras['test']
    self.assertContainsSubset(_imported('tests'), declared)
    self.assertContainsSubset(
      set(self.extras['test']) - _imported('tests') - _TEST_PROGRAMS,
      self.others,
    )

  def test_the_lock_has_all_and_satisfies_the_bounds(self):
    pins = {k: v for section in self.lock.values() for k, v in section.items()}
    for declared in (self.dependencies, *self.extras.values()):
      for name, requirement in declared.items():
        with self.subTest(name):
          self.assertIn(name, pins)
          self.assertTrue(requirement.specifier.contains(pins[name]))
          self.assertStartsWith(str(requirement.specifier), '>=')

  def test_the_lock_satisfies_the_bound_of_the_build_backend(self):
    ((name, requirement),) = _declared(
      _PYPROJECT['build-system']['requires']
    ).items()
    self.assertStartsWith(str(requirement.specifier), '>=')
    pins = {k: v for section in self.lock.values() for k, v in section.items()}
    self.assertTrue(requirement.specifier.contains(pins[name]))

  def test_sections_of_the_lock_are_the_declared_groups(self):
    self.assertSameElements(
      self.lock['Dependencies of acme_cbo'], self.dependencies
    )
    for extra, declared in self.extras.items():
      with self.subTest(extra):
        others = self.others if extra == 'test' else set()
        self.assertSameElements(
          self.lock[f'Optional: {extra}'], set(declared) - others
        )

  def test_the_environment_is_the_lock(self):
    for section in self.lock.values():
      for name, pin in section.items():
        with self.subTest(name):
          installed = importlib.metadata.version(name)
          self.assertEqual(version.Version(installed), pin)


class MetadataTest(absltest.TestCase):
  def test_console_script(self):
    module, _, function = _PROJECT['scripts']['acme-cbo'].partition(':')
    self.assertTrue(
      callable(getattr(importlib.import_module(module), function))
    )

  def test_version_is_in_one_place(self):
    self.assertIn('version', _PROJECT['dynamic'])
    module, _, name = _PYPROJECT['tool']['setuptools']['dynamic']['version'][
      'attr'
    ].rpartition('.')
    self.assertEqual(
      getattr(importlib.import_module(module), name), acme_cbo.__version__
    )
    self.assertRegex(acme_cbo.__version__, r'^\d+\.\d+\.\d+$')
    version.Version(acme_cbo.__version__)

  def test_commands_have_launchers(self):
    commands = (_ROOT / 'acme_cbo/experiments/commands').glob('[!_]*.py')
    launchers = (_ROOT / 'launchers').glob('*.py')
    self.assertSameElements(
      [path.name for path in commands], [path.name for path in launchers]
    )
    for path in (_ROOT / 'launchers').glob('*.py'):
      with self.subTest(path.name):
        self.assertLess(len(path.read_text().splitlines()), 15)

  def test_license(self):
    self.assertEqual(_PROJECT['license'], 'Apache-2.0')
    text = (_ROOT / 'LICENSE').read_text()
    self.assertIn('END OF TERMS AND CONDITIONS', text)


class WheelTest(absltest.TestCase):
  """Builds a wheel without network and runs what is in it."""

  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    root = pathlib.Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
    # setuptools writes build/ beside its sources.
    source = root / 'source'
    for folder in ('acme_cbo', 'configs'):
      shutil.copytree(
        _ROOT / folder,
        source / folder,
        ignore=shutil.ignore_patterns('__pycache__'),
      )
    for name in ('pyproject.toml', 'setup.py', 'README.md', 'LICENSE'):
      shutil.copy(_ROOT / name, source)
    done = subprocess.run(
      [
        *(sys.executable, '-m', 'pip', 'wheel', '--no-deps', '--no-index'),
        *('--no-build-isolation', '--wheel-dir', str(root), str(source)),
      ],
      capture_output=True,
      text=True,
      timeout=100,
    )
    if done.returncode:
      raise AssertionError(done.stdout + done.stderr)
    (wheel,) = root.glob('*.whl')
    cls.name = wheel.name
    cls.site, cls.empty = root / 'site', root / 'empty'
    cls.empty.mkdir()
    with zipfile.ZipFile(wheel) as archive:
      archive.extractall(cls.site)

  def test_has_all_files_of_the_package(self):
    for folder, below in (('acme_cbo', ''), ('configs', 'acme_cbo')):
      for path in (_ROOT / folder).rglob('*'):
        if path.is_file() and '__pycache__' not in path.parts:
          with self.subTest(path):
            installed = self.site / below / path.relative_to(_ROOT)
            self.assertEqual(installed.read_bytes(), path.read_bytes())

  def test_has_nothing_else(self):
    self.assertEqual(
      sorted(path.name for path in self.site.iterdir()),
      ['acme_cbo', f'acme_cbo-{acme_cbo.__version__}.dist-info'],
    )
    self.assertTrue((self.site / 'acme_cbo' / 'py.typed').exists())
    (info,) = self.site.glob('*.dist-info')
    self.assertTrue((info / 'licenses' / 'LICENSE').exists())
    self.assertIn(
      'acme-cbo = acme_cbo.experiments.main:main',
      (info / 'entry_points.txt').read_text(),
    )

  def test_configs_import_no_other_config(self):
    for path in (self.site / 'acme_cbo' / 'configs').glob('*.py'):
      with self.subTest(path.name):
        names = source_tree.imported(path.read_text())
        self.assertFalse([n for n in names if n.startswith('configs')])

  def test_commands_run_from_it(self):
    for arguments, expected in (
      (['--version'], f'acme-cbo {acme_cbo.__version__}\n'),
      (['train', '--help'], 'acme-cbo train --config=configs/grpo.py'),
      (['train', '--config=configs/grpo.py:x'], "no preset 'x'"),
      (['workflow', '--config=configs/workflow.py:smoke'], '--workdir='),
    ):
      with self.subTest(arguments):
        done = subprocess.run(
          [sys.executable, '-P', '-m', 'acme_cbo.experiments.main', *arguments],
          cwd=self.empty,
          env=os.environ | {'PYTHONPATH': str(self.site)},
          stdout=subprocess.PIPE,
          stderr=subprocess.STDOUT,
          text=True,
          timeout=60,
        )
        self.assertIn(expected, done.stdout)
        self.assertNotIn('Traceback', done.stdout)
        self.assertNotIn('launchers/', done.stdout)


if __name__ == '__main__':
  absltest.main()
