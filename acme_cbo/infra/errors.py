"""Errors that a user can mend, which launchers show as one line, and others."""

from collections.abc import Sequence
import difflib
import signal as signals
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # What reads the command line does not wait for numpy.
  import numpy as np

# So many are named where none is close to what was written.
_MOST_NAMES = 20


def notes(error: BaseException) -> list[str]:
  """The notes of an exception."""
  return getattr(error, '__notes__', [])


def format_list(
  sentences: Sequence[str], most: int, rest: str, separator: str = '; '
) -> str:
  """Joins sentences, as many as fit a message, and counts the rest.

  Args:
    sentences: one or more.
    most: how many are spelled out.
    rest: what the others are, as 'more'.
    separator: between them.

  Returns:
    'a; b; and 3 more'.
  """
  left = len(sentences) - most
  more = [f'and {left} {rest}'] if left > 0 else []
  return separator.join([*sentences[:most], *more])


def did_you_mean(name: str, known: Sequence[str], prefix: str = '') -> str:
  """'; did you mean NAME?' where one is close, else nothing.

  Args:
    name: what was written.
    known: what could have been meant.
    prefix: what stands before each name.

  Returns:
    The end of a sentence.
  """
  close = difflib.get_close_matches(name, known, 1)
  if not close:
    upper = {other.upper(): other for other in known}
    close = [upper[name.upper()]] if name.upper() in upper else []
  return f'; did you mean {prefix}{close[0]}?' if close else ''


def did_you_mean_or_options(name: str, known: Sequence[str]) -> str:
  """`did_you_mean`, or where none is close, all that there are."""
  there_are = f'; there are {format_list(known, _MOST_NAMES, "more", ", ")}'
  return did_you_mean(name, known) or (there_are if known else '')


class UsageError(ValueError):
  """A flag, a config value or a directory that cannot be used."""


class PeerError(Exception):
  """Another process or thread, without which this one cannot go on, is lost."""


class Interrupted(Exception):
  """A signal ended what was under way, in good order.

  Attributes:
    signal: its number.
  """

  def __init__(self, signal: int, when: str):
    """Names the signal and how far it was, as 'after update 3'."""
    self.signal = signal
    super().__init__(f'{signals.Signals(signal).name} {when}')


class NonFiniteError(FloatingPointError):
  """A number of an update that is not finite, and which SCM it came from.

  Attributes:
    update: its number, counted from 1; of an evaluation, that before it.
    task: index of the SCM in the batch, the first where there are several.
    held_out: whether the batch is that of the evaluation.
  """

  def __init__(
    self,
    update: int,
    component: str,
    faulty: 'np.ndarray',
    seed: str,
    held_out: bool = False,
  ):
    """Names what is not finite.

    Args:
      update: its number.
      component: what is not finite, as 'reward/structure'.
      faulty: [B] bool, on which SCMs of the batch; on one at least.
      seed: from which the batch was drawn.
      held_out: whether it is that of the evaluation.
    """
    self.update = update
    self.task = int(faulty.argmax())
    self.held_out = held_out
    super().__init__(
      f'update {update}: {component} is not finite on '
      f'{"held-out " if held_out else ""}SCM {self.task} of {faulty.size} '
      f'(on {int(faulty.sum())} in all), drawn from the seed {seed}'
    )


def check_finite(
  update: int,
  components: Sequence[str],
  faulty: 'np.ndarray',
  seed: str,
  held_out: bool = False,
) -> None:
  """Raises at the first component that is not finite on some SCM.

  Args:
    update: its number, counted from 1.
    components: names of C components, causes first.
    faulty: [C, B] bool, where each is not finite.
    seed: from which the batch was drawn.
    held_out: whether it is that of the evaluation.

  Raises:
    NonFiniteError: there is such a component.
  """
  for component, row in zip(components, faulty, strict=True):
    if row.any():
      raise NonFiniteError(update, component, row, seed, held_out)
