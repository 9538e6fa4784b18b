"""Tests that BUILD has what the source tree has; Bazel itself is not run."""

import ast
import importlib.metadata
import pathlib
import re
import shutil
import subprocess
import sys
import unittest

from absl.testing import absltest

from tests.support import source_tree

_BUILD = source_tree.ROOT / 'BUILD'
# Packages that are imported by name at run time, so that they are optional.
_LATE = {'@pip//submitit'}


def _package(path: str) -> str:
  """Returns the target of a file: its folder in acme_cbo, or 'root'."""
  parts = pathlib.PurePath(path).parts
  return parts[1] if len(parts) > 2 else 'root'


def _label(distribution: str) -> str:
  return f'@pip//{re.sub("[-_.]+", "_", distribution).lower()}'


def _imported() -> dict[str, set[str]]:
  """Returns {package: labels of what its files import}."""
  paths = source_tree.sources()
  distributions = importlib.metadata.packages_distributions()
  labels: dict[str, set[str]] = {}
  for path in paths:
    if not path.startswith('acme_cbo/'):
      continue
    package = _package(path)
    own = labels.setdefault(package, set())
    text = (source_tree.ROOT / path).read_text()
    for name in source_tree.imported(text):
      top = name.partition('.')[0]
      if top == 'acme_cbo':
        own.add(f':{_package(source_tree.module(name, paths))}')
      elif top not in sys.stdlib_module_names:
        own.add(_label(distributions[top][0]))
    own.discard(f':{package}')
  return labels


class BuildFileTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    # Starlark without load statements is Python.
    tree = ast.parse(_BUILD.read_text())
    values = {
      ast.unparse(node.targets[0]): ast.literal_eval(node.value)
      for node in tree.body
      if isinstance(node, ast.Assign)
    }
    self.packages, self.pip = (
      {package: names.split() for package, names in values[constant].items()}
      for constant in ('_PACKAGES', '_PIP')
    )

  def test_every_package_has_its_target(self):
    self.assertSameElements(self.packages, _imported())
    self.assertSameElements(self.pip, self.packages)

  def test_deps_are_the_imports(self):
    for package, labels in _imported().items():
      # Every file of a package imports acme_cbo/__init__.py.
      labels |= {':root'} - {f':{package}'}
      labels |= _LATE & {f'@pip//{name}' for name in self.pip[package]}
      for constant, values, prefix in (
        ('_PACKAGES', self.packages, ':'),
        ('_PIP', self.pip, '@pip//'),
      ):
        expected = sorted(
          label.removeprefix(prefix)
          for label in labels
          if label.startswith(prefix)
        )
        with self.subTest(f'{constant}, {package}'):
          line = f'write in {constant}: "{package}": "{" ".join(expected)}",'
          self.assertEqual(values[package], expected, line)

  def test_pip_labels_are_in_the_lock(self):
    lock = (source_tree.ROOT / 'requirements.txt').read_text()
    known = {_label(name) for name in re.findall('^([^=#\n]+)==', lock, re.M)}
    used = set(re.findall('"(@pip//[a-z0-9_]+)"', _BUILD.read_text()))
    used |= {f'@pip//{name}' for names in self.pip.values() for name in names}
    self.assertContainsSubset(used, known)

  @unittest.skipUnless(shutil.which('npx'), 'needs npx')
  def test_buildifier_has_no_complaint(self):
    buildifier = ['npx', '--yes', '@bazel/buildifier@8.2.1']
    try:
      subprocess.run(
        [*buildifier, '--version'], check=True, capture_output=True, timeout=60
      )
    except (subprocess.SubprocessError, OSError) as error:
      self.skipTest(f'buildifier is not available: {error}')
    done = subprocess.run(
      [*buildifier, '-mode=check', '-lint=warn', 'BUILD', 'MODULE.bazel'],
      cwd=source_tree.ROOT,
      capture_output=True,
      text=True,
      timeout=60,
    )
    self.assertEqual((done.returncode, done.stderr), (0, ''))


if __name__ == '__main__':
  absltest.main()
