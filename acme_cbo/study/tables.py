"""Reads the cells of tables: DataFrames, workbooks, and text files.

Here the kind of a file, its separator and its header are found. The cells stay
as they are written; `parsing` reads their numbers.
"""

from collections.abc import Callable, Iterator, Sequence, Set
import csv
import datetime
import decimal as decimal_lib
import io
import itertools
import numbers
import os
import pathlib
import re
from typing import Any, NamedTuple
import warnings as warnings_lib
import zipfile

import numpy as np
import pandas as pd

from acme_cbo.infra import errors
from acme_cbo.infra import files
from acme_cbo.infra import text as text_lib
from acme_cbo.study import parsing

_MAX_BYTES = 256 * 10**6
_MAX_EXPANDED_BYTES = 10**9  # Of the members of a workbook.
_MAX_ROWS = 10**6
_MAX_COLUMNS = 1000
_MAX_SHEET_ROWS = 2**20  # As many as Excel allows.
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


class Table(NamedTuple):
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
    first = [self.place(int(row)) for row in rows[: parsing.MAX_PLACES]]
    more = len(rows) - len(first)
    return ', '.join(first) + (f' and {more:,} more' if more else '')


def load(source: Any, wanted: Set[str]) -> Table:
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


def _load_frame(frame: pd.DataFrame) -> Table:
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
      names.append(parsing.normalized_name(label))
      columns.append(_frame_cells(frame.iloc[:, k]))
    else:
      problems.append(
        f'column {k + 1} has the name {parsing.show(str(label))} of the type '
        f'{type(label).__name__}; rename it to a text'
      )
  index = frame.index
  is_default = index.equals(pd.RangeIndex(len(frame)))

  def place(row: int) -> str:
    label = '' if is_default else f' (index {parsing.show(str(index[row]))})'
    return f'row {row}{label}'

  return _named_columns(
    Table(
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


def _load_workbook(source: str, content: bytes, wanted: Set[str]) -> Table:
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
    others = errors.format_list(
      [*map(parsing.show, titles[1:])], 20, 'more', ', '
    )
    warnings.append(
      f'only the first sheet, {parsing.show(titles[0])}, is read; left out: '
      f'{others}'
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


def _load_text(source: str, content: bytes, wanted: Set[str]) -> Table:
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
  found = len(set(map(parsing.normalized_name, header)) & wanted)
  same = [row for row in rows if len(row) == len(header)]
  cells = list(itertools.chain(*same))
  marks = '.' if separator == ',' else '.,'
  readable = [
    cell
    for cell in cells
    if any(isinstance(parsing.parse(cell, mark), float) for mark in marks)
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
) -> Table:
  """Makes a table of rows of cells, of which the first has the names.

  Args:
    source: name of the table in messages.
    wanted: as in `load`.
    unit: 'line' of a text file, or 'row' of a sheet, which is padded.
    rows: (number, cells) of all rows that are not blank.
    decimal_marks: as in `Table`.
    problems: as in `Table`.
    warnings: as in `Table`.
  """
  first_rows = [*itertools.islice(rows, 1 + _SAMPLE)]
  if not first_rows:
    reason = problems[0] if problems else 'the table is empty'
    raise errors.UsageError(
      f'{source}: {reason}; the first row must have the names of the columns'
    )
  (first, header), *first_rows = first_rows
  names = [parsing.normalized_name(cell) for cell in header]
  while not names[-1]:  # Separators at the ends of lines make no column.
    names.pop()
  _check_size(source, 0, len(names))
  if all(
    parsing.NUMBER.fullmatch(name.replace(',', '.')) for name in names if name
  ):
    raise errors.UsageError(
      f'{source}: {unit} {first} has numbers; the first row must have the '
      'names of the columns'
    )
  for line, row in [] if wanted & {*names} else first_rows:
    if wanted & {
      parsing.normalized_name(x)
      for cell in row
      for x in re.split('[,;\t]', cell)
    }:
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
      [f'{unit} {number}' for number in numbers],
      parsing.MAX_PLACES,
      'more',
      ', ',
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
    Table(
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


def _named_columns(table: Table) -> Table:
  """Leaves out empty columns without a name, and indices that pandas wrote."""
  names, columns = [], []
  for k, (name, cells) in enumerate(
    zip(table.names, table.columns, strict=True)
  ):
    where = f'column {k + 1}'
    if name:
      names.append(name)
      columns.append(cells)
    elif not parsing.is_blank(cells):
      values = parsing.read_column('', cells, '.').values
      if k == 0 and np.array_equal(values, np.arange(table.num_rows)):
        table.warnings.append(
          f'{where} is left out: it has no name and counts the rows, as the '
          'index of a DataFrame does'
        )
      else:
        table.problems.append(f'{where} has no name; give it one, or remove it')
  return table._replace(names=names, columns=columns)
