"""Reads records of experiments from a table, and reports all that is wrong.

A table has a row per experiment and a column per variable. A cell is a number
if it is written with the digits 0-9 and a decimal point, such as -1.5e3, or
True or False in a column that has nothing else but 0 and 1. A column may have
decimal commas where commas do not separate the cells. Nothing is guessed: a
cell that could be read in two ways, such as 1,234.5 or 5 %, is a problem.

The optional column `intervention_targets` names the variables that were set in
the row, such as `temperature;feed`. Rows where it is empty are passive records.
"""

from collections.abc import (
  Callable,
  Collection,
  Iterable,
  Iterator,
  Sequence,
  Set,
)
import csv
import datetime
import decimal as decimal_lib
import io
import itertools
import numbers
import os
import pathlib
import re
from typing import Any, BinaryIO, NamedTuple
import warnings as warnings_lib
import zipfile

import numpy as np
import pandas as pd

from acme_cbo.infra import errors
from acme_cbo.infra import files
from acme_cbo.infra import text as text_lib
from acme_cbo.scms.files import graph_files
from acme_cbo.scms.files import outliers

INTERVENTION_TARGETS = 'intervention_targets'

_MAX_BYTES = 256 * 10**6
_MAX_EXPANDED_BYTES = 10**9  # Of the members of a workbook.
_MAX_ROWS = 10**6
_MAX_COLUMNS = 1000
_MAX_SHEET_ROWS = 2**20  # As many as Excel allows.
_MAX_VALUE = 1e300  # Differences of values stay finite.
_MIN_COUNTED = 5  # Rows whose numbers are no coincidence.

_MAX_PROBLEMS = 20  # Sentences of an error.
_MAX_SHOWN = 40  # Characters of a name or cell in a sentence.
_MAX_PLACES = 3  # Rows or cells in a sentence.
_SAMPLE = 20  # Rows that help to find the separator.

_WORKBOOKS = ('.xlsx',)
_OTHER_FORMATS = (
  *('.xls', '.xlsb', '.xlsm', '.ods', '.numbers', '.gsheet'),
  *('.parquet', '.feather', '.pkl', '.json', '.mat', '.zip', '.gz'),
)
_OLE = b'\xd0\xcf\x11\xe0'  # Start of an .xls file, and of an encrypted .xlsx.
_ZIP = b'PK\x03\x04'
_UTF16 = (b'\xff\xfe', b'\xfe\xff')
_SEPARATORS = {',': 'commas', ';': 'semicolons', '\t': 'tabs'}
# Excel takes the separator from such a first line.
_DIRECTIVE = re.compile(r'"?sep=([,;\t])"?[,;\t]*(?=\r|\n)', re.IGNORECASE)
# The names, which may have line breaks in quotation marks.
_HEADER = re.compile(r'\s*((?:[^"\r\n]|"[^"]*")*)')
_MAX_HEADER = 10**6  # Characters in which to look for separators.
_QUOTED = re.compile(r'"[^"]*"')
_SPACE = re.compile(r'[\xa0\u1680\u2000-\u200a\u202f\u205f\u3000]')
_PANDAS_INDEX = re.compile(r'Unnamed: [0-9]+(_level_[0-9]+)?')
_MISSPELT_TARGETS = re.compile(r'interventions?[\s_.-]*targets?', re.IGNORECASE)

_MISSING = frozenset(
  ('', 'na', 'n/a', 'nan', 'null', 'none', '-', '?')  # In lower case.
)
_NUMBER = re.compile(r'[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?')
# In a cell of these characters alone, `float` finds numbers as `_NUMBER` does.
_PLAIN_CHARACTERS = b'0123456789+-.eE '
# Could be a number of thousands, or have a decimal mark.
_THOUSANDS = re.compile(r'[+-]?[1-9][0-9]{0,2}(?:\.[0-9]{3}|,[0-9]{3})')

_NOT_A_NUMBER = 'write a number, or leave the cell empty'
_TRUTH = 'write 1 and 0 for True and False among numbers'
_TOO_LARGE = 'give a finite number within ±1e300'
_PLAIN = r'(?:[0-9]+[.,]?[0-9]*|[.,][0-9]+)(?:[eE][+-]?[0-9]+)?'
_GROUPED = r"[0-9]{1,3}(?:[.,'’_\s][0-9]{3})+(?:[.,][0-9]*)?"
_ANY = f'(?:{_GROUPED}|{_PLAIN})'
# Cells that are meant as numbers, and what to write instead.
_ALMOST_NUMBERS = tuple(
  (re.compile(pattern, re.IGNORECASE), advice)
  for pattern, advice in (
    ('true|false', _TRUTH),
    ('[+-]?inf(inity)?', f'{_TOO_LARGE}, or leave the cell empty'),
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


class Records(NamedTuple):
  """Records of experiments.

  Attributes:
    variables: names of the D numeric columns, in the order of the table.
    values: [N, D] float64; NaN where a value is missing, which is never in the
      column of the target, nor where a variable was set.
    interventions: [N] names of the variables that were set in each row, in the
      order of the table; () for a passive record.
    warnings: sentences on what was left out, or may be wrong.
  """

  variables: tuple[str, ...]
  values: np.ndarray
  interventions: tuple[tuple[str, ...], ...]
  warnings: tuple[str, ...]


def read(
  source: pd.DataFrame | str | os.PathLike[str] | BinaryIO,
  *,
  target: str,
  settable: Collection[str] = (),
  variables: Sequence[str] | None = None,
  numeric: Collection[str] = (),
) -> Records:
  """Reads records of experiments.

  Args:
    source: a DataFrame, or the path of a CSV, TSV or .xlsx file, whose first
      row has the names of the columns, or an open stream of a CSV or TSV file
      such as `sys.stdin.buffer`. Of a workbook, the first sheet is read.
    target: name of the variable to optimize.
    settable: names of the variables that experiments may set.
    variables: names of the columns to read, which include the target and all
      that may be set; by default all columns with numbers.
    numeric: names of columns that have numbers wherever the table has them:
      they are not left out for texts in their cells, and silently where they
      have no values.

  Returns:
    The `Records`; there are none if the table has only names.

  Raises:
    errors.UsageError: the file cannot be read, or the table has problems; the
      message has a sentence for each of them.
  """
  target = _argument('target', [target])[0]
  settable = _argument('settable', settable)
  chosen = None if variables is None else _argument('variables', variables)
  wanted = {target, *settable, *(chosen or ())}
  table = _load(source, wanted)
  problems, warnings = [*table.problems], [*table.warnings]
  problems += _name_problems(table.names)
  problems += _request_problems(table.names, target, settable, chosen)
  interventions, targets_problems = _interventions(table, target, chosen)
  problems += targets_problems

  set_anywhere = set(itertools.chain(*set(interventions)))
  required = {*wanted, *set_anywhere}
  columns = []
  for name, cells in zip(table.names, table.columns, strict=True):
    if name == INTERVENTION_TARGETS or (chosen and name not in required):
      continue
    column = _read_column(name, cells, table.decimal_marks)
    reason = '' if name in required else _reason_to_leave_out(table, column)
    if reason and not (name in numeric and column.faults):
      if name not in numeric:
        warnings.append(f'column {_show(name)} is left out: {reason}')
    else:
      columns.append(column)

  problems += _decimal_problems(table, columns)
  columns, header_problems = _without_second_header(table, columns)
  problems += header_problems
  for column in columns:
    is_set = column.name in set_anywhere and np.array(
      [column.name in names for names in interventions]
    )
    problems += _column_problems(
      table, column, column.name == target, column.name in required, is_set
    )
  if problems:
    raise _error(table.source, problems)

  values = np.empty((table.num_rows, len(columns)))
  for k, column in enumerate(columns):
    values[:, k] = column.values
  names = tuple(column.name for column in columns)
  warnings += _value_warnings(table, names, values, required)
  warnings += _record_warnings(table, values, interventions, bool(settable))
  return Records(names, values, interventions, tuple(warnings))


class _Table(NamedTuple):
  """A table whose cells are not read yet.

  Attributes:
    source: name of the table in messages.
    names: [C] names of the columns.
    columns: [C] the [N] cells of each column: texts, or float64 with NaN where
      a value is missing.
    num_rows: N.
    place: function of a row's index; it returns the place, such as 'line 2'.
    decimal_marks: what a number may have before its decimals: '.' or '.,'.
    is_text: whether the table is a text file.
    problems: sentences on what is wrong.
    warnings: sentences on what was left out.
  """

  source: str
  names: list[str]
  columns: list[Any]
  num_rows: int
  place: Callable[[int], str]
  decimal_marks: str
  is_text: bool
  problems: list[str]
  warnings: list[str]

  def places(self, rows: Sequence[int] | np.ndarray) -> str:
    """Returns the places of the first rows, and counts the others."""
    first = [self.place(int(row)) for row in rows[:_MAX_PLACES]]
    more = len(rows) - len(first)
    return ', '.join(first) + (f' and {more:,} more' if more else '')


class _Column(NamedTuple):
  """A column whose cells are read.

  Attributes:
    name: name of the column.
    cells: [N] as in `_Table`.
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
    return _show(cell.strip()) if isinstance(cell, str) else str(cell)


def _show(text: str) -> str:
  """Returns a text of the table in quotation marks, safe to print."""
  return repr(text if len(text) <= _MAX_SHOWN else f'{text[:_MAX_SHOWN]}...')


def _error(source: str, problems: Sequence[str]) -> errors.UsageError:
  if len(problems) == 1:
    return errors.UsageError(f'{source}: {problems[0]}')
  listing = errors.format_list(
    [f'- {problem}' for problem in problems],
    _MAX_PROBLEMS,
    'more problems',
    '\n',
  )
  return errors.UsageError(
    f'{source} has {len(problems):,} problems:\n{listing}'
  )


def _argument(argument: str, names: Any) -> list[str]:
  """Returns the names that an argument has, as `_name` writes them."""
  if isinstance(names, str) or not isinstance(names, Iterable):
    raise errors.UsageError(
      f'{argument} is {names!r}; give a list of names of columns'
    )
  names = list(names)
  for name in names:
    if not isinstance(name, str) or not name.strip():
      raise errors.UsageError(
        f'{argument} has {name!r}; it must be the name of a column'
      )
  return [_name(name) for name in names]


def _name(text: str) -> str:
  """Returns a name without spaces around it, in normal form."""
  # They look like spaces, so that nobody could tell why the names differ.
  return graph_files.normalized_name(_SPACE.sub(' ', text).strip())


def _load(source: Any, wanted: Set[str]) -> _Table:
  """Loads a table.

  Args:
    source: a DataFrame, a path or an open stream.
    wanted: names that columns must have, which tell separators from names.
  """
  if isinstance(source, pd.DataFrame):
    return _load_frame(source)
  if hasattr(source, 'read'):
    name = text_lib.printable(str(getattr(source, 'name', 'the stream')), '')
    content = source.read(_MAX_BYTES + 1)
    if len(content) > _MAX_BYTES:
      raise errors.UsageError(
        f'{name} is too large: at most {_MAX_BYTES:,} bytes are allowed'
      )
    return _load_text(name, content, wanted)
  if not isinstance(source, str | os.PathLike):
    raise errors.UsageError(
      f'the records are of the type {type(source).__name__}; give a pandas '
      'DataFrame, or the path of a CSV, TSV or .xlsx file'
    )
  path = pathlib.Path(source)
  name = text_lib.printable(str(path), keep='')
  suffix = path.suffix.lower()
  if suffix in _OTHER_FORMATS:
    raise errors.UsageError(
      f'{name} is not read, as {suffix} files are not supported; save the '
      'table as .xlsx or CSV'
    )
  content = files.read_bytes(path, _MAX_BYTES)
  if suffix in _WORKBOOKS:
    return _load_workbook(name, content, wanted)
  if content.startswith((_OLE, _ZIP)):
    raise errors.UsageError(
      f'{name} has the content of a workbook; save it as .xlsx or CSV, with '
      'the suffix of its format'
    )
  return _load_text(name, content, wanted)


def _load_frame(frame: pd.DataFrame) -> _Table:
  """Loads a DataFrame; its index only serves to name the rows."""
  source = 'the DataFrame'
  if frame.columns.nlevels > 1:
    raise errors.UsageError(
      f'{source} has names of {frame.columns.nlevels} levels; give each column '
      'one text as its name'
    )
  _check_size(source, len(frame), frame.shape[1])
  names, columns, problems = [], [], []
  for k, label in enumerate(frame.columns):
    if isinstance(label, str):
      names.append(_name(label))
      columns.append(_frame_cells(frame.iloc[:, k]))
    else:
      problems.append(
        f'column {k + 1} has the name {_show(str(label))} of the type '
        f'{type(label).__name__}; rename it to a text'
      )
  index = frame.index
  is_default = index.equals(pd.RangeIndex(len(frame)))

  def place(row: int) -> str:
    label = '' if is_default else f' (index {_show(str(index[row]))})'
    return f'row {row}{label}'

  return _named_columns(
    _Table(
      *(source, names, columns, len(frame), place),
      decimal_marks='.,',
      is_text=False,
      problems=problems,
      warnings=[],
    )
  )


def _frame_cells(series: pd.Series) -> Any:
  """Returns the cells of a column: floats if its type has only numbers."""
  kind = pd.api.types
  if kind.is_numeric_dtype(series) and not kind.is_complex_dtype(series):
    with np.errstate(over='ignore'):  # An infinite value will be a problem.
      return series.to_numpy(np.float64, na_value=np.nan)
  return [_text(cell) for cell in series]


def _text(cell: Any) -> str:
  """Returns a cell as a text, from which its value can be read."""
  if isinstance(cell, str):
    return cell
  if cell is None or cell is pd.NA or cell is pd.NaT or cell is np.ma.masked:
    return ''
  if isinstance(cell, bool | np.bool_ | decimal_lib.Decimal):
    return str(cell)
  if isinstance(cell, numbers.Integral) and abs(int(cell)) < 2**53:
    return str(int(cell))
  if isinstance(cell, numbers.Real):
    try:
      return repr(float(cell))
    except OverflowError:
      return 'inf'
  if isinstance(cell, list | tuple | set | frozenset):
    return ';'.join(map(str, cell))
  if isinstance(cell, datetime.datetime) and cell.time() == datetime.time():
    return str(cell.date())
  return str(cell)


def _load_workbook(source: str, content: bytes, wanted: Set[str]) -> _Table:
  """Loads the first sheet of an .xlsx file."""
  if content.startswith(_OLE):
    raise errors.UsageError(
      f'{source} is an old .xls file or has a password; save it as .xlsx '
      'without a password, or as CSV'
    )
  try:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
      # No member can expand beyond the size that is declared here.
      size = sum(member.file_size for member in archive.infolist())
    if size > _MAX_EXPANDED_BYTES:
      raise errors.UsageError(
        f'{source} expands to {size:,} bytes; at most {_MAX_EXPANDED_BYTES:,} '
        'are allowed: save the sheet as CSV'
      )
    titles, rows = _first_sheet(source, content)
  except ImportError as error:
    raise errors.UsageError(
      f'{source} cannot be read without openpyxl; run: pip install '
      'openpyxl, or save the table as CSV'
    ) from error
  except (errors.UsageError, MemoryError):
    raise
  # Damaged files make zipfile, openpyxl and the parser of XML raise all sorts.
  except Exception as error:
    reason = text_lib.printable(str(error), keep='')[:200]
    raise errors.UsageError(
      f'{source} is no valid .xlsx file ({reason or type(error).__name__}); '
      'save it again, or as CSV'
    ) from error
  warnings = []
  if titles[1:]:
    others = errors.format_list([*map(_show, titles[1:])], 20, 'more', ', ')
    warnings.append(
      f'only the first sheet, {_show(titles[0])}, is read; left out: {others}'
    )
  return _from_rows(source, wanted, 'row', iter(rows), '.,', [], warnings)


def _first_sheet(
  source: str, content: bytes
) -> tuple[list[str], list[tuple[int, list[str]]]]:
  """Returns the titles of all sheets, and (number, cells) of the first's rows.

  Blank rows are left out.
  """
  rows = []
  with (
    warnings_lib.catch_warnings(action='ignore'),  # On styles and the like.
    pd.ExcelFile(io.BytesIO(content), engine='openpyxl') as workbook,
  ):
    book: Any = workbook.book
    sheet, *others = book.worksheets  # Without charts.
    sheet.reset_dimensions()  # Some programs write wrong ones.
    for line, cells in enumerate(sheet.iter_rows(values_only=True), 1):
      if line > _MAX_SHEET_ROWS:
        raise errors.UsageError(
          f'{source} has more rows than the {_MAX_SHEET_ROWS:,} of Excel; save '
          'the sheet as CSV'
        )
      row = [_text(cell) for cell in cells]
      if ''.join(row).strip():
        rows.append((line, row))
    return [sheet.title, *(other.title for other in others)], rows


def _load_text(source: str, content: bytes, wanted: Set[str]) -> _Table:
  """Loads a text file."""
  text = _decode(source, content)
  separator, text = _find_separator(source, text, wanted)
  problems: list[str] = []

  def rows():
    reader, end = _csv_reader(text, separator), 0
    try:
      for row in reader:
        line, end = end + 1, reader.line_num
        if row and (row[0].strip() or ''.join(row).strip()):
          yield line, row
    except csv.Error as error:
      reason = text_lib.printable(str(error), keep='')
      problems.append(
        f'line {end + 1}: the quotation marks do not match ({reason}), and the '
        'lines from there on are not read; close every quotation mark, and '
        'double one within a text'
      )

  decimal_marks = '.' if separator == ',' else '.,'
  return _from_rows(source, wanted, 'line', rows(), decimal_marks, problems, [])


def _decode(source: str, content: bytes) -> str:
  encoding = 'utf-16' if content.startswith(_UTF16) else 'utf-8'
  try:
    text = content.decode(encoding)
  except UnicodeDecodeError as error:
    line = content[: error.start].count(b'\n') + 1
    raise errors.UsageError(
      f'{source}, line {line}: not valid {encoding.upper()}; save the file as '
      'UTF-8 ("CSV UTF-8" in Excel)'
    ) from error
  if '\0' in text:
    raise errors.UsageError(
      f'{source} has null characters, as other kinds of files have; save it as '
      'CSV in UTF-8'
    )
  # The byte order mark; there are more where files were joined.
  return text.replace('\ufeff', '')


def _csv_reader(text: str, separator: str) -> Any:
  return csv.reader(
    io.StringIO(text, newline=''),
    delimiter=separator,
    skipinitialspace=True,
    strict=True,
  )


def _find_separator(
  source: str, text: str, wanted: Set[str]
) -> tuple[str, str]:
  """Returns the separator, and the text without a line that names it."""
  if directive := _DIRECTIVE.match(text):
    return directive[1], text[directive.end() :]
  match = _HEADER.match(text, 0, _MAX_HEADER)
  header = _QUOTED.sub('', match[1] if match else '')
  found = [separator for separator in _SEPARATORS if separator in header]
  if len(found) == 1:
    return found[0], text
  words = {*re.split(r'[\s|]+', header)}
  if not found and words & wanted - {header.strip()}:
    raise errors.UsageError(
      f'{source}, line 1: the names are separated by spaces or bars; save the '
      'table with commas, semicolons or tabs between its cells'
    )
  scores = {
    separator: _separator_score(text, separator, wanted)
    for separator in found or _SEPARATORS
  }
  best = [key for key in scores if scores[key] == max(scores.values())]
  if found and len(best) > 1:
    listed = ' or '.join(_SEPARATORS[separator] for separator in best)
    raise errors.UsageError(
      f'{source}, line 1: the cells may be separated by {listed}; put names '
      'with such characters in quotation marks'
    )
  return best[0], text


def _separator_score(
  text: str, separator: str, wanted: Set[str]
) -> tuple[float, float, float]:
  """Rates a separator: names found, rows as long as the header, and numbers."""
  rows = []
  try:
    for row in _csv_reader(text, separator):
      if ''.join(row).strip():
        rows.append([cell.strip() for cell in row])
      if len(rows) > _SAMPLE:
        break
  except csv.Error:
    return 0.0, 0.0, 0.0
  header, *rows = rows or [[]]
  found = len(set(map(_name, header)) & wanted)
  same = [row for row in rows if len(row) == len(header)]
  cells = list(itertools.chain(*same))
  marks = '.' if separator == ',' else '.,'
  readable = [
    cell
    for cell in cells
    if any(isinstance(_reading(cell, mark), float) for mark in marks)
  ]
  return found, len(same) / (len(rows) or 1), len(readable) / (len(cells) or 1)


def _from_rows(
  source: str,
  wanted: Set[str],
  unit: str,
  rows: Iterator[tuple[int, list[str]]],
  decimal_marks: str,
  problems: list[str],
  warnings: list[str],
) -> _Table:
  """Makes a table of rows of cells, of which the first has the names.

  Args:
    source: name of the table in messages.
    wanted: as in `_load`.
    unit: 'line' of a text file, or 'row' of a sheet, which is padded.
    rows: (number, cells) of all rows that are not blank.
    decimal_marks: as in `_Table`.
    problems: as in `_Table`.
    warnings: as in `_Table`.
  """
  first_rows = [*itertools.islice(rows, 1 + _SAMPLE)]
  if not first_rows:
    reason = problems[0] if problems else 'the table is empty'
    raise errors.UsageError(
      f'{source}: {reason}; the first row must have the names of the columns'
    )
  (first, header), *first_rows = first_rows
  names = [_name(cell) for cell in header]
  while not names[-1]:  # Separators at the ends of lines make no column.
    names.pop()
  _check_size(source, 0, len(names))
  if all(_NUMBER.fullmatch(name.replace(',', '.')) for name in names if name):
    raise errors.UsageError(
      f'{source}: {unit} {first} has numbers; the first row must have the '
      'names of the columns'
    )
  for line, row in [] if wanted & {*names} else first_rows:
    if wanted & {_name(x) for cell in row for x in re.split('[,;\t]', cell)}:
      raise errors.UsageError(
        f'{source}: the names of the columns are in {unit} {line}, it seems, '
        f'and must be in the first row; remove what is above {unit} {line}'
      )
  # One list: the garbage collector would go through a list per row.
  cells: list[str] = []
  lines: list[int] = []
  repeated: list[int] = []
  lengths: dict[int, list[int]] = {}
  num_rows = 0
  width = len(names)
  for line, row in itertools.islice(
    itertools.chain(first_rows, rows), _MAX_ROWS + 1
  ):
    num_rows += 1
    if len(row) != width:
      while len(row) > width and not row[-1].strip():
        row.pop()
      if unit == 'row':
        row += [''] * (width - len(row))
    if row == header[:width]:
      repeated.append(line)
    elif len(row) == width:
      lines.append(line)
      cells += row
    else:
      lengths.setdefault(len(row), []).append(line)
  _check_size(source, num_rows, width)

  def place(row: int) -> str:
    return f'{unit} {lines[row]}'

  def listed(numbers: list[int]) -> str:
    return errors.format_list(
      [f'{unit} {number}' for number in numbers], _MAX_PLACES, 'more', ', '
    )

  for line in repeated:
    problems.append(
      f'{unit} {line} repeats the names of the columns; remove it'
    )
  for length, numbers_ in lengths.items():
    problems.append(
      f'{listed(numbers_)}: {_count(length, "cell")}, but {unit} {first} has '
      f'{_count(width, "name")}; give one cell per name, and put cells '
      'that contain the separator in quotation marks'
    )
  return _named_columns(
    _Table(
      source=source,
      names=names,
      columns=[cells[k::width] for k in range(width)],
      num_rows=len(lines),
      place=place,
      decimal_marks=decimal_marks,
      is_text=unit == 'line',
      problems=problems,
      warnings=warnings,
    )
  )


def _check_size(source: str, num_rows: int, num_columns: int) -> None:
  if num_rows > _MAX_ROWS or num_columns > _MAX_COLUMNS:
    raise errors.UsageError(
      f'{source} is too large: at most {_MAX_ROWS:,} rows and '
      f'{_MAX_COLUMNS:,} columns are allowed'
    )


def _count(number: int, noun: str) -> str:
  return f'{number:,} {noun}{"" if number == 1 else "s"}'


def _named_columns(table: _Table) -> _Table:
  """Leaves out empty columns without a name, and indices that pandas wrote."""
  names, columns = [], []
  for k, (name, cells) in enumerate(
    zip(table.names, table.columns, strict=True)
  ):
    where = f'column {k + 1}'
    if name:
      names.append(name)
      columns.append(cells)
    elif not _is_blank(cells):
      values = _read_column('', cells, '.').values
      if k == 0 and np.array_equal(values, np.arange(table.num_rows)):
        table.warnings.append(
          f'{where} is left out: it has no name and counts the rows, as the '
          'index of a DataFrame does'
        )
      else:
        table.problems.append(f'{where} has no name; give it one, or remove it')
  return table._replace(names=names, columns=columns)


def _is_blank(cells: Any) -> bool:
  if isinstance(cells, np.ndarray):
    return bool(np.isnan(cells).all())
  return not ''.join(cells).strip()


def _reading(text: str, decimal_mark: str) -> float | str:
  """Returns the value of a cell, or what to write instead.

  Args:
    text: the cell, without spaces around it.
    decimal_mark: '.' or ','; of a comma, numbers may have no point.
  """
  if text.lower() in _MISSING:
    return np.nan
  number = text
  if decimal_mark == ',':
    number = '' if '.' in text else text.replace(',', '.')
  if _NUMBER.fullmatch(number):
    return float(number)
  if len(text) <= _MAX_SHOWN:
    for pattern, advice in _ALMOST_NUMBERS:
      if pattern.fullmatch(text):
        return advice
  return _NOT_A_NUMBER


def _read_column(name: str, cells: Any, decimal_marks: str) -> _Column:
  """Reads the cells of a column.

  Args:
    name: name of the column.
    cells: [N] texts or floats.
    decimal_marks: '.', or '.,' if the column may have decimal commas. It has
      them if more of its cells are numbers then.
  """
  if isinstance(cells, np.ndarray):
    return _Column(name, cells, *_checked(cells, {}), decimal_mark='.')
  # Most columns have numbers and empty cells only, which are read at once.
  column = _read_numbers(name, cells, {''}, decimal_marks)
  if column:
    return column
  missing = {cell for cell in set(cells) if cell.strip().lower() in _MISSING}
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
) -> _Column | None:
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
  return _Column(name, cells, *_checked(values, {}), decimal_mark=mark)


def _read_each(
  name: str, cells: Sequence[str], missing: Set[str], decimal_mark: str
) -> _Column:
  """Reads a column, some cells of which are no numbers."""
  readings = {
    cell: _reading(cell.strip(), decimal_mark) for cell in set(cells) - missing
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
  return _Column(
    name, cells, *_checked(values, faults), decimal_mark=decimal_mark
  )


def _checked(
  values: np.ndarray, faults: dict[str, list[int]]
) -> tuple[np.ndarray, dict[str, list[int]]]:
  """Returns values within bounds; the others are faults."""
  beyond = np.abs(values) > _MAX_VALUE
  if beyond.any():
    faults = {**faults, _TOO_LARGE: np.flatnonzero(beyond).tolist()}
    values = np.where(beyond, np.nan, values)
  return values, faults


def _reason_to_leave_out(table: _Table, column: _Column) -> str:
  """Returns why a column is no variable, or '' if it is one."""
  if _PANDAS_INDEX.fullmatch(column.name):
    return 'it had no name when pandas read it, like the index of a DataFrame'
  no_numbers = column.faults.get(_NOT_A_NUMBER, [])
  num_present = table.num_rows - int(column.missing.sum())
  if table.num_rows and not num_present:
    return 'it has no values'
  # Where most cells are meant as numbers, the others are mistakes.
  if 2 * len(no_numbers) <= num_present:
    return ''
  row = no_numbers[0]
  example = f'{column.cell(row)} in {table.place(row)}'
  reason = f'most of its cells are not numbers, such as {example}'
  texts = {cell.strip() for cell in column.cells}
  texts = sorted(text for text in texts if text.lower() not in _MISSING)
  if len(texts) == 2 < num_present:
    one, other = map(_show, texts)
    reason += f'; to use it, write 0 and 1 for {one} and {other}'
  return reason


def _name_problems(names: Sequence[str]) -> list[str]:
  """Returns what is wrong with the names of the columns."""
  problems = []
  for name in dict.fromkeys(names):
    if not name.isprintable():
      problems.append(
        f'column {_show(name)} has line breaks or invisible characters in its '
        'name; rename it'
      )
    if (count := names.count(name)) > 1:
      problems.append(
        f'{count} columns have the name {_show(name)}; rename all but one'
      )
  return problems


def _hint(name: str, options: Collection[str]) -> str:
  """Returns the end of a sentence: a column that was meant, or all of them."""
  shown = [option for option in options if option.isprintable()]
  return errors.did_you_mean_or_options(
    name[:_MAX_SHOWN], [x for x in shown if len(x) <= _MAX_SHOWN]
  )


# What names a column, for messages.
_ROLES = {
  'target': ', the target',
  'settable': ', a variable to set',
  'variables': ', one of those to read',
}


def _request_problems(
  names: Sequence[str],
  target: str,
  settable: Sequence[str],
  chosen: Sequence[str] | None,
) -> list[str]:
  """Returns what is wrong with the columns that the caller names."""
  problems = []
  roles: dict[str, str] = {}
  for role, wanted in (
    ('target', [target]),
    ('settable', settable),
    ('variables', chosen or ()),
  ):
    for name in wanted:
      roles.setdefault(name, role)
  columns = [name for name in names if name != INTERVENTION_TARGETS]
  for name, role in roles.items():
    if name == INTERVENTION_TARGETS:
      problems.append(f'{name!r}{_ROLES[role]}, can be no variable')
    elif name not in columns:
      problems.append(
        f'there is no column {_show(name)}{_ROLES[role]}{_hint(name, columns)}'
      )
    elif chosen is not None and name not in chosen:
      problems.append(
        f'the columns to read lack {_show(name)}{_ROLES[role]}; add it'
      )
  if target in settable:
    problems.append(
      f'the target, {_show(target)}, is among the variables to set; remove it'
    )
  if INTERVENTION_TARGETS not in names:
    for name in filter(_MISSPELT_TARGETS.fullmatch, names):
      problems.append(
        f'column {_show(name)}: rename it to {INTERVENTION_TARGETS!r}'
      )
  return problems


def _interventions(
  table: _Table, target: str, chosen: Sequence[str] | None
) -> tuple[tuple[tuple[str, ...], ...], list[str]]:
  """Reads the column of intervention targets.

  Args:
    table: the table.
    target: name of the variable to optimize.
    chosen: names of the columns to read; None for all.

  Returns:
    [N] names of the variables that were set, without those that are wrong, and
    what is wrong.
  """
  if INTERVENTION_TARGETS not in table.names:
    return ((),) * table.num_rows, []
  order = {
    name: k
    for k, name in enumerate(table.names)
    if name != INTERVENTION_TARGETS
  }
  cells = table.columns[table.names.index(INTERVENTION_TARGETS)]
  if isinstance(cells, np.ndarray):
    cells = ['' if np.isnan(cell) else f'{cell:g}' for cell in cells]
  read = {cell: _split_targets(cell, order) for cell in set(cells)}
  wrong: dict[str, list[int]] = {}
  valid = {}
  for cell, names in read.items():
    bad = {
      name
      for name in names
      if name not in order or name == target or name not in (chosen or order)
    }
    wrong.update((name, []) for name in bad)
    valid[cell] = tuple(sorted(names - bad, key=lambda name: order[name]))
  if wrong:
    for row, cell in enumerate(cells):
      for name in read[cell] & wrong.keys():
        wrong[name].append(row)
  problems = []
  for name, rows in sorted(wrong.items(), key=lambda item: item[1]):
    if name == target:
      reason = 'is the target, which cannot be set; remove it'
    elif name in order:
      reason = 'was set, and variables lacks it; add it'
    else:
      # Looking for similar names takes long.
      hint = _hint(name, order) if len(problems) < _MAX_PROBLEMS else ''
      reason = f'is no column{hint}'
    problems.append(
      f'{table.places(rows)}, column {INTERVENTION_TARGETS!r}: {_show(name)} '
      f'{reason}'
    )
  return tuple(valid[cell] for cell in cells), problems


def _split_targets(cell: str, columns: Collection[str]) -> set[str]:
  """Returns the names in a cell; names of columns may have separators."""
  names = set()
  for part in [cell] if _name(cell) in columns else cell.split(';'):
    names |= {
      _name(name)
      for name in ([part] if _name(part) in columns else part.split(','))
    }
  return {x for x in names if x in columns or x.lower() not in _MISSING}


def _decimal_problems(table: _Table, columns: Sequence[_Column]) -> list[str]:
  """Finds numbers such as 1.234 beside columns that have decimal commas.

  They may be thousands. So may 1,234 be beside columns with decimal points.
  """
  if not table.is_text or all(x.decimal_mark == '.' for x in columns):
    return []
  with_mark: dict[str, list[_Column]] = {'.': [], ',': []}
  first: dict[str, int] = {}
  ambiguous = []
  for column in columns:
    mark = column.decimal_mark
    rows = [k for k, cell in enumerate(column.cells) if mark in cell]
    if rows:
      with_mark[mark].append(column)
      first[column.name] = rows[0]
      if all(_THOUSANDS.fullmatch(column.cells[k].strip()) for k in rows):
        ambiguous.append(column)
  problems = []
  for column in ambiguous:
    other = with_mark[',' if column.decimal_mark == '.' else '.']
    if other:
      row = first[column.name]
      example = other[0].cell(first[other[0].name])
      problems.append(
        f'{table.place(row)}, column {_show(column.name)}: {column.cell(row)} '
        f'may be a number of thousands, since column {_show(other[0].name)} '
        f'has numbers such as {example}; write one decimal mark everywhere, '
        'and no marks between thousands'
      )
  return problems


def _without_second_header(
  table: _Table, columns: list[_Column]
) -> tuple[list[_Column], list[str]]:
  """Finds units below the names; they are one problem, not one per column."""
  with_text = [
    column for column in columns if 0 in column.faults.get(_NOT_A_NUMBER, ())
  ]
  if len(with_text) < 2 or any(
    not np.isnan(column.values[0]) for column in columns
  ):
    return columns, []
  without = []
  for column in columns:
    faults = {
      advice: [row for row in rows if row]
      for advice, rows in column.faults.items()
    }
    faults = {advice: rows for advice, rows in faults.items() if rows}
    # Not 'missing' either, which would be a further problem.
    values = np.where(np.arange(table.num_rows) == 0, 0.0, column.values)
    without.append(column._replace(faults=faults, values=values))
  texts = ', '.join(column.cell(0) for column in with_text[:_MAX_PLACES])
  return without, [
    f'{table.place(0)} has no numbers but texts, such as {texts}; the names '
    'must be in one row: write units in the names, and remove the row'
  ]


def _column_problems(
  table: _Table,
  column: _Column,
  is_target: bool,
  is_required: bool,
  is_set: np.ndarray | bool,
) -> list[str]:
  """Returns what is wrong with the cells of a column.

  Args:
    table: the table.
    column: the column.
    is_target: whether it is the target.
    is_required: whether the caller or a row names the column.
    is_set: [N] whether the variable was set in a row; False if never.
  """
  name = f'column {_show(column.name)}'
  problems = []
  for advice, rows in column.faults.items():
    row = rows[0]
    if len(rows) == 1:
      problems.append(
        f'{table.place(row)}, {name}: {column.cell(row)} {_fault(advice)}; '
        f'{advice}'
      )
      continue
    cells = [
      f'{column.cell(row)} in {table.place(row)}' for row in rows[:_MAX_PLACES]
    ]
    more = len(rows) - len(cells)
    rest = f' and {more:,} more cells' if more else ''
    problems.append(
      f'{name}: {", ".join(cells)}{rest} {_fault(advice, True)}; {advice}'
    )
  missing = column.missing
  if is_target and missing.any():
    problems.append(
      f'{table.places(np.flatnonzero(missing))}, {name}: the target has no '
      'value; remove the row, or give the value'
    )
  elif (missing & is_set).any():
    problems.append(
      f'{table.places(np.flatnonzero(missing & is_set))}, {name}: it was set '
      'and has no value; give the value it was set to'
    )
  elif is_required and missing.any() and missing.all():
    problems.append(f'{name} has no values; give some, or do not name it')
  return problems


def _fault(advice: str, plural: bool = False) -> str:
  be = 'are' if plural else 'is'
  if advice == _TOO_LARGE:
    return f'{be} too large'
  return f'{be} not {"numbers" if plural else "a number"}'


def _value_warnings(
  table: _Table,
  names: Sequence[str],
  values: np.ndarray,
  required: Collection[str],
) -> list[str]:
  """Describes columns that look like codes or like numbers of rows."""
  warnings = []
  for name, column in zip(names, values.T, strict=True):
    rows = np.flatnonzero(~np.isnan(column))
    if not len(rows):
      continue
    present = column[rows]
    is_code = np.isin(np.abs(present), outliers.MISSING_CODES)
    is_code &= outliers.find(present)
    if is_code.any():
      warnings.append(
        f'{table.places(rows[is_code])}, column {_show(name)}: '
        f'{present[is_code][0]:.8g} is far from all other values; if it stands '
        'for a missing value, leave the cell empty'
      )
    counts = np.arange(len(column)) + column[0]
    if (
      name not in required
      and len(column) >= _MIN_COUNTED
      and column[0] in (0, 1)
      and np.array_equal(column, counts)
    ):
      warnings.append(
        f'column {_show(name)} counts the rows; if it numbers the experiments, '
        'leave it out by naming the other columns'
      )
  return warnings


def _record_warnings(
  table: _Table,
  values: np.ndarray,
  interventions: Sequence[tuple[str, ...]],
  any_settable: bool,
) -> list[str]:
  """Describes what may be wrong with the records as a whole."""
  warnings = []
  if (
    any_settable and table.num_rows and INTERVENTION_TARGETS not in table.names
  ):
    warnings.append(
      f'there is no column {INTERVENTION_TARGETS!r}; in all rows, nothing is '
      'taken to have been set'
    )
  rows = pd.DataFrame(values)
  rows['interventions'] = list(interventions)
  duplicates = np.flatnonzero(rows.duplicated())
  if len(duplicates):
    warnings.append(
      f'exact copies of earlier rows: {len(duplicates):,} '
      f'({table.places(duplicates)}); remove them if they are the same '
      'experiments'
    )
  return warnings
