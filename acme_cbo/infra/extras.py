"""Imports of packages that only an optional extra installs."""

import importlib
from typing import Any

from acme_cbo.infra import errors


def import_module(name: str, user: str, requirement: str = '') -> Any:
  """Imports a module of an optional dependency.

  Args:
    name: Dotted name of the module.
    user: What needs it, such as the flag that was given.
    requirement: What to install, where it is not the name of the package.

  Returns:
    The module.

  Raises:
    errors.UsageError: It is not installed.
  """
  package = name.partition('.')[0]
  try:
    return importlib.import_module(name)
  except ModuleNotFoundError as error:
    if error.name != package:
      raise
    raise errors.UsageError(
      f'{user} needs the package {package}; install it by: '
      f'pip install {requirement or package}'
    ) from error
