"""Errors that a user can mend, which launchers show as one line, and others."""

from collections.abc import Sequence

import numpy as np


class UsageError(ValueError):
  """A flag, a config value or a directory that cannot be used."""


class NonFiniteError(FloatingPointError):
  """A number of an update that is not finite, and which SCM it came from.

  Attributes:
    update: its number, counted from 1.
    task: index of the SCM in the batch, the first where there are several.
  """

  def __init__(
    self, update: int, component: str, faulty: np.ndarray, seed: str
  ):
    """Names what is not finite.

    Args:
      update: its number.
      component: what is not finite, as 'reward/structure'.
      faulty: [B] bool, on which SCMs of the batch; on one at least.
      seed: from which the batch was drawn.
    """
    self.update = update
    self.task = int(np.argmax(faulty))
    super().__init__(
      f'update {update}: {component} is not finite on SCM {self.task} of '
      f'{faulty.size} (on {int(faulty.sum())} in all), drawn from the seed '
      f'{seed}'
    )


def check_finite(
  update: int, components: Sequence[str], faulty: np.ndarray, seed: str
) -> None:
  """Raises at the first component that is not finite on some SCM.

  Args:
    update: its number, counted from 1.
    components: names of C components, causes first.
    faulty: [C, B] bool, where each is not finite.
    seed: from which the batch was drawn.

  Raises:
    NonFiniteError: there is such a component.
  """
  for component, row in zip(components, np.asarray(faulty), strict=True):
    if row.any():
      raise NonFiniteError(update, component, row, seed)
