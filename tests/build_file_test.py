"""Tests that BUILD is complete, up to date and well formed."""

import ast
import collections
import pathlib
import re
import shutil
import subprocess
import tempfile

from absl.testing import absltest

from tests import build_file

_BUILDIFIER = '@bazel/buildifier@8.2.1'


def _rules() -> list[dict]:
  """Returns the attributes of every target in BUILD, with its `kind`."""
  rules = []
  for node in ast.parse((build_file.ROOT / 'BUILD').read_text()).body:
    call = node.value if isinstance(node, ast.Expr) else None
    if isinstance(call, ast.Call) and isinstance(call.func, ast.Name):
      attributes = {
        keyword.arg: ast.literal_eval(keyword.value)
        for keyword in call.keywords
        if not isinstance(keyword.value, ast.Call)  # glob(...)
      }
      rules.append({'kind': call.func.id, **attributes})
  return [rule for rule in rules if 'name' in rule]


def _pinned() -> list[str]:
  """Returns the packages that requirements.txt names for acme_cbo's own use."""
  text = (build_file.ROOT / 'requirements.txt').read_text()
  direct = text.partition('\n# --- Needed by the above')[0]
  names = re.findall(r'^([\w.-]+)==', direct, re.MULTILINE)
  return [re.sub(r'[-_.]+', '_', name).lower() for name in names]


class BuildFileTest(absltest.TestCase):
  def test_is_what_the_imports_say(self):
    self.assertEqual(
      (build_file.ROOT / 'BUILD').read_text(),
      build_file.render(),
      'BUILD is stale: run `python tests/build_file.py`',
    )

  def test_every_source_is_in_one_target(self):
    listed = collections.Counter(
      source for rule in _rules() for source in rule.get('srcs', [])
    )
    found = [
      path.relative_to(build_file.ROOT).as_posix()
      for folder in ('acme_cbo', 'configs', 'launchers', 'tests')
      for path in (build_file.ROOT / folder).glob('**/*.py')
      if path.parent.name != 'peers'
    ]
    self.assertEqual(listed, collections.Counter(found))

  def test_every_dependency_exists(self):
    names = {f':{rule["name"]}' for rule in _rules()}
    names |= {f'@pip//{name}' for name in _pinned()}
    for rule in _rules():
      with self.subTest(rule['name']):
        self.assertContainsSubset(rule.get('deps', []), names)

  def test_small_tree_against_targets_written_by_hand(self):
    files = {
      'acme_cbo/__init__.py': '"""Docstring."""',
      'acme_cbo/types.py': 'import os\nfrom typing import Any\nimport jax',
      'acme_cbo/deep/er.py': (
        'from acme_cbo import types\nfrom acme_cbo.deep.two import name\n'
        'def f():\n  import haiku as hk\n'
      ),
      'acme_cbo/deep/two.py': (
        'if typing.TYPE_CHECKING:\n  from acme_cbo.deep import er\n'
      ),
      'configs/grpo.py': 'import ml_collections',
      'launchers/train.py': "if __name__ == '__main__':\n  pass",
      'tests/types_test.py': 'import acme_cbo.types\n__file__',
    }
    expected = {
      'acme_cbo/__init__': ('py_library', None),
      'acme_cbo/types': ('py_library', ['@pip//jax']),
      'acme_cbo/deep/er': (
        'py_library',
        [':acme_cbo/deep/two', ':acme_cbo/types', '@pip//dm_haiku'],
      ),
      'acme_cbo/deep/two': ('py_library', None),
      'configs/grpo': ('py_library', ['@pip//ml_collections']),
      'launchers/train': ('py_binary', [':configs/grpo']),
      'tests/types_test': ('py_test', [':acme_cbo/types']),
    }
    with tempfile.TemporaryDirectory() as folder:
      root = pathlib.Path(folder)
      for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
      text = build_file.render(root)
      (root / 'acme_cbo/types.py').write_text('import acme_cbo.absent.file')
      with self.assertRaisesRegex(ValueError, 'types.py: acme_cbo.absent.'):
        build_file.render(root)
    actual = {}
    for node in ast.parse(text).body:
      if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        given = {word.arg: word.value for word in node.value.keywords}
        if 'srcs' in given and isinstance(given['srcs'], ast.List):
          deps = given.get('deps')
          actual[ast.literal_eval(given['name'])] = (
            ast.unparse(node.value.func),
            ast.literal_eval(deps) if deps else None,
          )
    self.assertEqual(actual, expected)

  def test_buildifier_finds_nothing(self):
    if shutil.which('npx') is None:
      self.skipTest('buildifier runs through npx, which is not installed')
    result = subprocess.run(
      ('npx', '--yes', _BUILDIFIER, '-mode=check', '-lint=warn', 'BUILD'),
      cwd=build_file.ROOT,
      capture_output=True,
      text=True,
      check=False,
    )
    self.assertEqual(result.returncode, 0, result.stdout + result.stderr)


if __name__ == '__main__':
  absltest.main()
