"""Reads records of experiments from a table, and reports all that is wrong.

A table has a row per experiment and a column per variable. A cell is a number
if it is written with the digits 0-9 and a decimal point, such as -1.5e3, or
True or False in a column that has nothing else but 0 and 1. A column may have
decimal commas where commas do not separate the cells. Nothing is guessed: a
cell that could be read in two ways, such as 1,234.5 or 5 %, is a problem.

The optional column `intervention_targets` names the variables that were set in
the row, such as `temperature;feed`. Rows where it is empty are passive records.
"""

from collections.abc import Collection, Iterable, Sequence
import itertools
import os
import re
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import pandas as pd

from acme_cbo.infra import errors
from acme_cbo.infra import text as text_lib
from acme_cbo.scms.files import outliers
from acme_cbo.study import parsing
from acme_cbo.study import tables

INTERVENTION_TARGETS = 'intervention_targets'
# Column of an exported study; only rows of these have an outcome.
_STATUS = 'experiment_status'
_WITH_OUTCOME = ('', 'observed')
_WITHOUT_OUTCOME = ('pending', 'failed', 'abandoned', 'withdrawn')
_MIN_COUNTED = 5  # Rows whose numbers are no coincidence.
_MAX_PROBLEMS = 20  # Sentences of an error.
_PANDAS_INDEX = re.compile(r'Unnamed: [0-9]+(_level_[0-9]+)?')
_MISSPELT_TARGETS = re.compile(r'interventions?[\s_.-]*targets?', re.IGNORECASE)
# Could be a number of thousands, or have a decimal mark.
_THOUSANDS = re.compile(r'[+-]?[1-9][0-9]{0,2}(?:\.[0-9]{3}|,[0-9]{3})')


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
  table = _with_outcomes(tables.load(source, wanted))
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
    column = parsing.read_column(name, cells, table.decimal_marks)
    reason = '' if name in required else _reason_to_leave_out(table, column)
    if reason and not (name in numeric and column.faults):
      if name not in numeric:
        warnings.append(f'column {parsing.show(name)} is left out: {reason}')
    else:
      columns.append(column)

  problems += _decimal_problems(table, columns)
  columns, header_problems = _without_second_header(table, columns)
  problems += header_problems
  for column in columns:
    is_set = column.name in set_anywhere and np.array(
      [column.name in names for names in interventions]
    )
    # Of a variable to set, nothing has to be known.
    is_required = column.name in required and column.name not in settable
    if column.name in settable and table.num_rows and column.missing.all():
      warnings.append(f'column {parsing.show(column.name)} has no values')
    problems += _column_problems(
      table, column, column.name == target, is_required, is_set
    )
  if problems:
    raise _error(table.source, problems)

  values = np.empty((table.num_rows, len(columns)))
  for k, column in enumerate(columns):
    values[:, k] = column.values
  names = tuple(column.name for column in columns)
  warnings += _value_warnings(table, names, values, {*required, *numeric})
  warnings += _record_warnings(table, values, interventions, bool(settable))
  return Records(names, values, interventions, tuple(warnings))


def _with_outcomes(table: tables.Table) -> tables.Table:
  """Leaves out the rows of an exported study that have no outcome."""
  if _STATUS not in table.names:
    return table
  status = [
    str(cell).strip() for cell in table.columns[table.names.index(_STATUS)]
  ]
  if not {*status} <= {*_WITH_OUTCOME, *_WITHOUT_OUTCOME}:
    return table
  kept = [k for k, one in enumerate(status) if one in _WITH_OUTCOME]
  if len(kept) == table.num_rows:
    return table
  others = sorted({*status} - {*_WITH_OUTCOME})
  warning = (
    f'{table.num_rows - len(kept)} rows are left out: their experiments are '
    f'{" or ".join(others)}'
  )
  return table._replace(
    columns=[
      cells[kept] if isinstance(cells, np.ndarray) else [cells[k] for k in kept]
      for cells in table.columns
    ],
    num_rows=len(kept),
    place=lambda row: table.place(kept[row]),
    warnings=[*table.warnings, warning],
  )


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
  """Returns the names that an argument has, in their normal form."""
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
  return [parsing.normalized_name(name) for name in names]


def _reason_to_leave_out(table: tables.Table, column: parsing.Column) -> str:
  """Returns why a column is no variable, or '' if it is one."""
  if _PANDAS_INDEX.fullmatch(column.name):
    return 'it had no name when pandas read it, like the index of a DataFrame'
  no_numbers = column.faults.get(parsing.NOT_A_NUMBER, [])
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
  texts = sorted(text for text in texts if text.lower() not in parsing.MISSING)
  if len(texts) == 2 < num_present:
    one, other = map(parsing.show, texts)
    reason += f'; to use it, write 0 and 1 for {one} and {other}'
  return reason


def _name_problems(names: Sequence[str]) -> list[str]:
  """Returns what is wrong with the names of the columns."""
  problems = []
  for name in dict.fromkeys(names):
    if not name.isprintable():
      problems.append(
        f'column {parsing.show(name)} has line breaks or invisible characters '
        'in its name; rename it'
      )
    if (count := names.count(name)) > 1:
      problems.append(
        f'{count} columns have the name {parsing.show(name)}; rename all but '
        'one'
      )
  return problems


def _hint(name: str, options: Collection[str]) -> str:
  """Returns the end of a sentence: a column that was meant, or all of them."""
  shown = [option for option in options if option.isprintable()]
  return errors.did_you_mean_or_options(
    name[: parsing.MAX_SHOWN], [x for x in shown if len(x) <= parsing.MAX_SHOWN]
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
        f'there is no column {parsing.show(name)}{_ROLES[role]}'
        f'{_hint(name, columns)}'
      )
    elif chosen is not None and name not in chosen:
      problems.append(
        f'the columns to read lack {parsing.show(name)}{_ROLES[role]}; add it'
      )
  if target in settable:
    problems.append(
      f'the target, {parsing.show(target)}, is among the variables to set; '
      'remove it'
    )
  if INTERVENTION_TARGETS not in names:
    for name in filter(_MISSPELT_TARGETS.fullmatch, names):
      problems.append(
        f'column {parsing.show(name)}: rename it to {INTERVENTION_TARGETS!r}'
      )
  return problems


def _interventions(
  table: tables.Table, target: str, chosen: Sequence[str] | None
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
      f'{table.places(rows)}, column {INTERVENTION_TARGETS!r}: '
      f'{parsing.show(name)} {reason}'
    )
  return tuple(valid[cell] for cell in cells), problems


def _split_targets(cell: str, columns: Collection[str]) -> set[str]:
  """Returns the names in a cell; names of columns may have separators."""
  names = set()
  cell = text_lib.unquote_cell(cell)
  for part in (
    [cell] if parsing.normalized_name(cell) in columns else cell.split(';')
  ):
    names |= {
      parsing.normalized_name(name)
      for name in (
        [part] if parsing.normalized_name(part) in columns else part.split(',')
      )
    }
  return {x for x in names if x in columns or x.lower() not in parsing.MISSING}


def _decimal_problems(
  table: tables.Table, columns: Sequence[parsing.Column]
) -> list[str]:
  """Finds numbers such as 1.234 beside columns that have decimal commas.

  They may be thousands. So may 1,234 be beside columns with decimal points.
  """
  if all(x.decimal_mark == '.' for x in columns):
    return []
  with_mark: dict[str, list[parsing.Column]] = {'.': [], ',': []}
  first: dict[str, int] = {}
  ambiguous = []
  for column in columns:
    mark = column.decimal_mark
    if isinstance(column.cells, np.ndarray):
      continue
    rows = [k for k, cell in enumerate(column.cells) if mark in cell]
    if rows:
      with_mark[mark].append(column)
      first[column.name] = rows[0]
      if all(_THOUSANDS.fullmatch(column.cells[k].strip()) for k in rows):
        ambiguous.append(column)
  problems = []
  for column in ambiguous:
    other = with_mark[',' if column.decimal_mark == '.' else '.']
    row = first[column.name]
    if other:
      example = other[0].cell(first[other[0].name])
      since = (
        f', since column {parsing.show(other[0].name)} has numbers such as '
        f'{example}'
      )
    elif not table.is_text and column.decimal_mark == ',':
      since = ''  # Its separators say nothing about the commas of numbers.
    else:
      continue
    problems.append(
      f'{table.place(row)}, column {parsing.show(column.name)}: '
      f'{column.cell(row)} may be a number of thousands{since}; write one '
      'decimal mark everywhere, and no marks between thousands'
    )
  return problems


def _without_second_header(
  table: tables.Table, columns: list[parsing.Column]
) -> tuple[list[parsing.Column], list[str]]:
  """Finds units below the names; they are one problem, not one per column."""
  with_text = [
    column
    for column in columns
    if 0 in column.faults.get(parsing.NOT_A_NUMBER, ())
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
  texts = ', '.join(
    column.cell(0) for column in with_text[: parsing.MAX_PLACES]
  )
  return without, [
    f'{table.place(0)} has no numbers but texts, such as {texts}; the names '
    'must be in one row: write units in the names, and remove the row'
  ]


def _column_problems(
  table: tables.Table,
  column: parsing.Column,
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
  name = f'column {parsing.show(column.name)}'
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
      f'{column.cell(row)} in {table.place(row)}'
      for row in rows[: parsing.MAX_PLACES]
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
  if advice == parsing.TOO_LARGE:
    return f'{be} too large'
  return f'{be} not {"numbers" if plural else "a number"}'


def _value_warnings(
  table: tables.Table,
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
        f'{table.places(rows[is_code])}, column {parsing.show(name)}: '
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
        f'column {parsing.show(name)} counts the rows; if it numbers the '
        'experiments, leave it out by naming the other columns'
      )
  return warnings


def _record_warnings(
  table: tables.Table,
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
