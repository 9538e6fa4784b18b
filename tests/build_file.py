"""Writes BUILD from the imports of the source tree: python tests/build_file.py.

One target a file, named after it: //:acme_cbo/losses is acme_cbo/losses.py.
"""

import ast
from collections.abc import Collection
import functools
import importlib.metadata
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
_distributions = functools.cache(importlib.metadata.packages_distributions)
FOLDERS = ('acme_cbo', 'configs', 'launchers', 'tests')
_HEADER = '''"""Bazel targets of acme_cbo, one a Python file.

Written by `python tests/build_file.py`: run it when files or imports change.
"""

load("@rules_python//python:defs.bzl", {loaded})

package(default_visibility = ["//visibility:public"])

# For the tests that read files by their paths.
filegroup(
    name = "tree",
    srcs = glob([
        "*",
        "acme_cbo/**",
        "configs/**",
        "docs/**",
        "launchers/**",
        "tests/**",
    ]),
)
'''


def sources(root: pathlib.Path = ROOT) -> list[str]:
  """Returns the paths, relative to `root`, of the project's Python files.

  But for those of `tests/peers`, which run in an environment of their own.
  """
  return sorted(
    path.relative_to(root).as_posix()
    for folder in FOLDERS
    for path in (root / folder).rglob('[!.]*.py')
    if path.parent != root / 'tests' / 'peers'
  )


def imported(source: str, types_too: bool = False) -> set[str]:
  """Returns the dotted names that a source text imports, wherever in it.

  Args:
    source: Python source. Imports in it are absolute, which ruff sees to.
    types_too: Whether to count what stands under `if typing.TYPE_CHECKING`.

  Returns:
    `a.b` for `import a.b`, and `a.b` for `from a import b`, be `b` a module or
    a name in the module `a`.
  """
  names = set()
  nodes: list[ast.AST] = [ast.parse(source)]
  for node in nodes:
    if isinstance(node, ast.Import):
      names |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
      names |= {f'{node.module}.{alias.name}' for alias in node.names}
    skipped = (
      isinstance(node, ast.If)
      and not types_too
      and ast.unparse(node.test).endswith('TYPE_CHECKING')
    )
    nodes += () if skipped else ast.iter_child_nodes(node)
  return names


def module(name: str, paths: Collection[str]) -> str:
  """Returns which of `paths` is behind an imported dotted name of ours."""
  # `a.b.c` is the module or package a/b/c, or the name c in the module a/b.
  path = name.replace('.', '/')
  for file in (
    f'{path}.py',
    f'{path}/__init__.py',
    f'{path.rpartition("/")[0]}.py',
  ):
    if file in paths:
      return file
  raise ValueError(f'{name} is imported, but there is no such file')


def _label(name: str, paths: Collection[str]) -> str | None:
  """Returns the label behind an imported name; None for Python's own."""
  top = name.partition('.')[0]
  if top in FOLDERS:
    return ':' + module(name, paths).removesuffix('.py')
  if top in sys.stdlib_module_names:
    return None
  distributions = _distributions().get(top)
  if not distributions:
    raise ValueError(f'{name} is imported, but no installed package has it')
  # The name that rules_python gives to a line of requirements.txt.
  return '@pip//' + re.sub(r'[-_.]+', '_', distributions[0]).lower()


def _rule(path: str, source: str, paths: Collection[str]) -> str:
  """Returns the BUILD rule of one file."""
  try:
    labels = [_label(name, paths) for name in imported(source)]
  except ValueError as error:
    raise ValueError(f'{path}: {error}') from error
  deps = {label for label in labels if label}
  kind, before, after = 'py_library', '', ''
  if path.startswith('launchers/'):
    kind, after = 'py_binary', '    data = glob(["configs/*.py"]),\n'
    # A launcher runs the config that it is told to.
    deps |= {f':{p[:-3]}' for p in paths if p.startswith('configs/')}
  elif path.startswith('tests/'):
    if '__file__' in source:
      after = '    data = [":tree"],\n'
    if path.endswith('_test.py'):
      kind = 'py_test'
    else:
      before = '    testonly = True,\n'
  listed = ', '.join(f'"{label}"' for label in sorted(deps))
  if len(deps) > 1:
    listed = '\n        ' + listed.replace(', ', ',\n        ') + ',\n    '
  after += f'    deps = [{listed}],\n' if deps else ''
  name = path.removesuffix('.py')
  return (
    f'{kind}(\n    name = "{name}",\n{before}    srcs = ["{path}"],\n{after})\n'
  )


def render(root: pathlib.Path = ROOT) -> str:
  """Returns the text of BUILD for the source tree under `root`."""
  paths = sources(root)
  rules = [_rule(path, (root / path).read_text(), paths) for path in paths]
  kinds = sorted({rule.partition('(')[0] for rule in rules})
  loaded = ', '.join(f'"{kind}"' for kind in kinds)
  return '\n'.join([_HEADER.format(loaded=loaded), *rules])


if __name__ == '__main__':
  (ROOT / 'BUILD').write_text(render())
