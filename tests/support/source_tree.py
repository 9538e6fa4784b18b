"""Reads the imports of the source tree; nothing of it is run."""

import ast
from collections.abc import Collection
import pathlib

ROOT = pathlib.Path(__file__).resolve().parents[2]
FOLDERS = ('acme_cbo', 'configs', 'launchers', 'tests')


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
    source: Python source. Imports in it are absolute, as `imports_test` checks.
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
