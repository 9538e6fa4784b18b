"""Exceptions of the package, and helpers for their messages.

Launchers show a `UsageError`, a `PeerError` and an `Interrupted` as one line,
without a traceback.
"""

from collections.abc import Sequence
import difflib
import signal as signals
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # Parsing the command line must not wait for numpy.
  import numpy as np

# Number of options listed if none is close to the given name.
_MAX_OPTIONS = 20


def notes(error: BaseException) -> list[str]:
  """Returns the notes of an exception."""
  return getattr(error, '__notes__', [])


def format_list(
  items: Sequence[str], limit: int, rest: str, separator: str = '; '
) -> str:
  """Joins the first items of a list and counts the rest.

  Args:
    items: one or more texts.
    limit: number of items to spell out.
    rest: noun for the other items, such as 'more'.
    separator: text between items.

  Returns:
    Text such as 'a; b; and 3 more'.
  """
  omitted = len(items) - limit
  tail = [f'and {omitted} {rest}'] if omitted > 0 else []
  return separator.join([*items[:limit], *tail])


def did_you_mean(name: str, options: Sequence[str], prefix: str = '') -> str:
  """Returns '; did you mean OPTION?' if an option is close, else ''.

  Args:
    name: name as the user wrote it.
    options: valid names.
    prefix: text before the suggested option, such as '--'.

  Returns:
    End of a sentence.
  """
  close = difflib.get_close_matches(name, options, 1)
  if not close:
    upper = {option.upper(): option for option in options}
    close = [upper[name.upper()]] if name.upper() in upper else []
  return f'; did you mean {prefix}{close[0]}?' if close else ''


def did_you_mean_or_options(name: str, options: Sequence[str]) -> str:
  """Returns `did_you_mean`, or a list of the options if none is close.

  Args:
    name: name as the user wrote it.
    options: valid names.
  """
  listing = f'; there are {format_list(options, _MAX_OPTIONS, "more", ", ")}'
  return did_you_mean(name, options) or (listing if options else '')


class UsageError(ValueError):
  """A flag, a config value or a file that the user has to correct."""


class PeerError(Exception):
  """Another process or thread that this one needs has failed or is lost."""


class Interrupted(Exception):
  """A signal ended the program gracefully.

  Attributes:
    signal: number of the signal.
  """

  def __init__(self, signal: int, when: str):
    """Creates the exception.

    Args:
      signal: number of the signal.
      when: progress made, such as 'after update 3'.
    """
    self.signal = signal
    super().__init__(f'{signals.Signals(signal).name} {when}')


class NonFiniteError(FloatingPointError):
  """A value in an update or an evaluation is not finite.

  Attributes:
    update: number of the update, counted from 1; for an evaluation, number of
      the update before it.
    task: index in the batch of the first SCM with such a value.
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
    """Creates the exception.

    Args:
      update: number of the update.
      component: name of the value, such as 'reward/structure'.
      faulty: [B] bool mask of the SCMs with such a value, at least one.
      seed: seed of the batch.
      held_out: whether the batch is that of the evaluation.
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
  """Raises for the first component that is not finite on some SCM.

  Args:
    update: number of the update, counted from 1.
    components: names of C components, causes before effects.
    faulty: [C, B] bool mask of non-finite values.
    seed: seed of the batch.
    held_out: whether the batch is that of the evaluation.

  Raises:
    NonFiniteError: a component is not finite on some SCM.
  """
  for component, row in zip(components, faulty, strict=True):
    if row.any():
      raise NonFiniteError(update, component, row, seed, held_out)
