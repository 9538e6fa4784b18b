"""Parses the numbers in the columns of a table, and says what is none."""

from collections.abc import Sequence, Set
import itertools
import re
from typing import Any, NamedTuple

import numpy as np

from acme_cbo.infra import text as text_lib
from acme_cbo.scms.files import graph_files

MAX_VALUE = 1e150  # Squares of values stay finite.
MAX_SHOWN = 40  # Characters of a name or cell in a sentence.
MAX_PLACES = 3  # Rows or cells in a sentence.
_SPACE = re.compile(r'[\xa0\u1680\u2000-\u200a\u202f\u205f\u3000]')

MISSING = frozenset(
  ('', 'na', 'n/a', 'nan', 'null', 'none', '-', '?')  # In lower case.
)
NUMBER = re.compile(r'[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?')
# In a cell of these characters alone, `float` finds numbers as `NUMBER` does.
_PLAIN_CHARACTERS = b'0123456789+-.eE '

NOT_A_NUMBER = 'write a number, or leave the cell empty'
_TRUTH = 'write 1 and 0 for True and False among numbers'
TOO_LARGE = f'give a finite number within ±{MAX_VALUE:g}'
_PLAIN = r'(?:[0-9]+[.,]?[0-9]*|[.,][0-9]+)(?:[eE][+-]?[0-9]+)?'
_GROUPED = r"[0-9]{1,3}(?:[.,'’_\s][0-9]{3})+(?:[.,][0-9]*)?"
_ANY = f'(?:{_GROUPED}|{_PLAIN})'
# Cells that are meant as numbers, and what to write instead.
_ALMOST_NUMBERS = tuple(
  (re.compile(pattern, re.IGNORECASE), advice)
  for pattern, advice in (
    ('true|false', _TRUTH),
    ('[+-]?inf(inity)?', f'{TOO_LARGE}, or leave the cell empty'),
    (
      f'[+-]?{_GROUPED}',
      'write numbers without marks between thousands, such as 1234.5',
    ),
    (
      f'[+-]?{_PLAIN}',
      'write all numbers of the column with a decimal point, such as 1.5',
    ),
    (
      # A comparison, a currency, a number, a tolerance, and a unit.
      rf"'?(?:[<>≤≥~≈=±]\s*)*(?:[$€£¥]\s*)?[+-]?{_ANY}(?:\s*±\s*{_ANY})?"
      r'(?:\s*[%‰°$€£¥]\w{0,9}|\s+[^\W\d_]\S{0,9})?',
      'write the number alone; a unit belongs in the name of the column',
    ),
    (
      r'[+\-−–﹣－]?\s*[\d٫．]+(?:[.,]\d*)?(?:e[+\-−]?\d+)?',
      'write numbers with the characters 0-9, - and . of the keyboard',
    ),
  )
)


class Column(NamedTuple):
  """A column whose cells are read.

  Attributes:
    name: name of the column.
    cells: [N] as in `tables.Table`.
    values: [N] float64; NaN where a value is missing, and at faults.
    faults: {what to write instead: rows of the cells that are no numbers}.
    decimal_mark: the one that all numbers were read with.
  """

  name: str
  cells: Any
  values: np.ndarray
  faults: dict[str, list[int]]
  decimal_mark: str

  @property
  def missing(self) -> np.ndarray:
    """[N] whether a row has no value."""
    missing = np.isnan(self.values)
    for rows in self.faults.values():
      missing[rows] = False
    return missing

  def cell(self, row: int) -> str:
    """Returns a cell for a message."""
    cell = self.cells[row]
    return show(cell.strip()) if isinstance(cell, str) else str(cell)


def show(text: str) -> str:
  """Returns a text of the table in quotation marks, safe to print."""
  return repr(text if len(text) <= MAX_SHOWN else f'{text[:MAX_SHOWN]}...')


def normalized_name(text: str) -> str:
  """Returns a name without spaces around it, in normal form.

  An apostrophe that an exported table has before it is left out, too.
  """
  # They look like spaces, so that nobody could tell why the names differ.
  name = _SPACE.sub(' ', text).strip()
  return graph_files.normalized_name(text_lib.unquote_cell(name))


def is_blank(cells: Any) -> bool:
  """Returns whether a column has no value: [N] texts or floats."""
  if isinstance(cells, np.ndarray):
    return bool(np.isnan(cells).all())
  return not ''.join(cells).strip()


def parse(text: str, decimal_mark: str) -> float | str:
  """Returns the value of a cell, or what to write instead.

  Args:
    text: the cell, without spaces around it.
    decimal_mark: '.' or ','; of a comma, numbers may have no point.
  """
  if text.lower() in MISSING:
    return np.nan
  number = text
  if decimal_mark == ',':
    number = '' if '.' in text else text.replace(',', '.')
  if NUMBER.fullmatch(number):
    return float(number)
  if len(text) <= MAX_SHOWN:
    for pattern, advice in _ALMOST_NUMBERS:
      if pattern.fullmatch(text):
        return advice
  return NOT_A_NUMBER


def read_column(name: str, cells: Any, decimal_marks: str) -> Column:
  """Reads the cells of a column.

  Args:
    name: name of the column.
    cells: [N] texts or floats.
    decimal_marks: '.', or '.,' if the column may have decimal commas. It has
      them if more of its cells are numbers then.
  """
  if isinstance(cells, np.ndarray):
    return Column(name, cells, *_checked(cells, {}), decimal_mark='.')
  # Most columns have numbers and empty cells only, which are read at once.
  column = _read_numbers(name, cells, {''}, decimal_marks)
  if column:
    return column
  missing = {cell for cell in set(cells) if cell.strip().lower() in MISSING}
  column = _read_numbers(name, cells, missing, decimal_marks)
  if column:
    return column
  best = _read_each(name, cells, missing, '.')
  bad = itertools.chain(*best.faults.values())
  if ',' in decimal_marks and any(',' in cells[row] for row in bad):
    other = _read_each(name, cells, missing, ',')
    best = min(best, other, key=lambda x: sum(map(len, x.faults.values())))
  return best


def _read_numbers(
  name: str, cells: Sequence[str], missing: Set[str], decimal_marks: str
) -> Column | None:
  """Reads a column if all its cells are numbers or missing, else None."""
  present = [k for k, cell in enumerate(cells) if cell not in missing]
  texts = [cells[k] for k in present]
  joined = ' '.join(texts)
  mark = '.'
  if ',' in joined and ',' in decimal_marks and '.' not in joined:
    mark = ','
    joined = joined.replace(',', '.')
    texts = [text.replace(',', '.') for text in texts]
  if joined.encode(errors='replace').translate(None, _PLAIN_CHARACTERS):
    return None
  values = np.full(len(cells), np.nan)
  try:
    values[present] = np.fromiter(map(float, texts), np.float64, len(texts))
  except ValueError:
    return None
  return Column(name, cells, *_checked(values, {}), decimal_mark=mark)


def _read_each(
  name: str, cells: Sequence[str], missing: Set[str], decimal_mark: str
) -> Column:
  """Reads a column, some cells of which are no numbers."""
  readings = {
    cell: parse(cell.strip(), decimal_mark) for cell in set(cells) - missing
  }
  values = np.full(len(cells), np.nan)
  faults: dict[str, list[int]] = {}
  for row, cell in enumerate(cells):
    reading = readings.get(cell, np.nan)
    if isinstance(reading, str):
      faults.setdefault(reading, []).append(row)
    else:
      values[row] = reading
  if [*faults] == [_TRUTH] and np.isin(values[~np.isnan(values)], (0, 1)).all():
    for row in faults.pop(_TRUTH):
      values[row] = cells[row].strip().lower() == 'true'
  return Column(
    name, cells, *_checked(values, faults), decimal_mark=decimal_mark
  )


def _checked(
  values: np.ndarray, faults: dict[str, list[int]]
) -> tuple[np.ndarray, dict[str, list[int]]]:
  """Returns values within bounds; the others are faults."""
  beyond = np.abs(values) > MAX_VALUE
  if beyond.any():
    faults = {**faults, TOO_LARGE: np.flatnonzero(beyond).tolist()}
    values = np.where(beyond, np.nan, values)
  return values, faults
