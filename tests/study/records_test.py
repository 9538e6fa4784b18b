"""Tests of reading records of experiments from tables."""

import datetime
import decimal
import fractions
import io
import os
import pathlib
import tempfile
import time
from unittest import mock
import zipfile

from absl.testing import absltest
from absl.testing import parameterized
import numpy as np
import pandas as pd

from acme_cbo.infra import errors
from acme_cbo.study import records
from acme_cbo.study import tables

_NAN = np.nan


class _TestCase(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    folder = tempfile.TemporaryDirectory()
    self.addCleanup(folder.cleanup)
    self.folder = pathlib.Path(folder.name)

  def path(self, content: str | bytes, name: str = 'd.csv') -> pathlib.Path:
    path = self.folder / name
    path.write_bytes(
      content if isinstance(content, bytes) else content.encode()
    )
    return path

  def read(self, source, target: str = 'y', **options) -> records.Records:
    if isinstance(source, str | bytes):
      source = self.path(source)
    return records.read(source, target=target, **options)

  def error(self, source, target: str = 'y', **options) -> str:
    with self.assertRaises(errors.UsageError) as context:
      self.read(source, target, **options)
    return str(context.exception).replace(f'{self.folder}/', '')

  def assert_values(self, found: records.Records, names: str, values):
    self.assertEqual(found.variables, tuple(names.split()))
    self.assertEqual(found.values.dtype, np.float64)
    np.testing.assert_array_equal(found.values, np.asarray(values, float))

  def assert_warning(self, found: records.Records, *parts: str):
    self.assertTrue(
      any(all(x in warning for x in parts) for warning in found.warnings),
      found.warnings,
    )


class FileTest(_TestCase):
  @parameterized.parameters(
    'a,y\n1,2.5\n',
    'a;y\n1;2.5\n',
    'a;y\n1;2,5\n',
    'a\ty\n1\t2,5\n',
    '\ufeffa,y\n1,2.5',
    '\ufeff\ufeff"a",y\n1,2.5',
    'a,y\r1,2.5\r',
    'a,y\r\n1,2.5\r\n',
    'a,y\r\r\n1,2.5\r\r\n',
    '\n \n,\na,y\n\n1,2.5\n , \n\n',
    ' a , "y"\n 1 , "2.5"\n',
    'a,y\n"1\n",2.5\n',
    'a;y;\n1;2,5;\n',
    'a;y;;;\n1;2,5\n',
    'a;y\n1;2,5;;\n',
    ';a;y\n;1;2,5\n',
    'sep=;\na;y\n1;2,5\n',
    '"sep=;"\r\na;y\r\n1;2,5\r\n',
    'SEP=\t\na\ty\n1\t2.5\n',
  )
  def test_layouts_of_text_files(self, text):
    self.assert_values(self.read(text), 'a y', [[1, 2.5]])

  @parameterized.parameters('utf-8', 'utf-8-sig', 'utf-16')
  def test_encodings(self, encoding):
    found = self.read('Öl;y\n1;2\n'.encode(encoding))
    self.assert_values(found, 'Öl y', [[1, 2]])

  @parameterized.parameters(
    ('Öl,y\n1,2\n'.encode('latin-1'), 'line 1: not valid UTF-8; save'),
    ('a,y\n1,2\n'.encode('utf-16-le'), 'null characters'),
    ('a,y\n1,2\n'.encode('utf-16')[:-1], 'not valid UTF-16'),
    ('a,y\n1,2\n'.encode('utf-32'), 'null characters'),
    (b'PK\x03\x04', 'content of a workbook'),
    (b'', 'd.csv: the table is empty; the first row must have the names'),
    (b'\n \n', 'the table is empty'),
  )
  def test_files_without_a_readable_table(self, content, message):
    self.assertIn(message, self.error(content))

  @parameterized.parameters(
    # Only one separator finds the target, equal rows or numbers.
    ('Temp, °C;y\n20;3,5\n', ('Temp, °C', 'y')),
    ('Temp, °C;y\n', ('Temp, °C', 'y')),
    ('a\tb;c\ty\n1\t2\t3\n', ('a', 'b;c', 'y')),
    ('"a;b";y\n1;2\n', ('a;b', 'y')),
    ('a,"y;",y\n1,2,3\n', ('a', 'y;', 'y')),
    ('y\n3,5\n', ('y',)),
    ('y\n3\n', ('y',)),
  )
  def test_separator_is_found(self, text, variables):
    self.assertEqual(self.read(text).variables, variables)

  def test_separator_by_the_names_that_are_asked_for(self):
    text = 'a;b,y\n1;2,5\n'
    found = self.read(text, target='b,y')
    self.assertEqual(found.variables, ('a', 'b,y'))
    np.testing.assert_array_equal(found.values, [[1, 2.5]])
    found = self.read(text)
    self.assert_values(found, 'y', [[5]])
    self.assert_warning(found, "'a;b' is left out", "'1;2' in line 2")

  @parameterized.parameters(
    ('x;a,b\n', 'q', 'by commas or semicolons; put names'),
    ('a y\n1 2\n', 'y', 'separated by spaces or bars'),
    ('a|y\n1|2\n', 'y', 'separated by spaces or bars'),
  )
  def test_separator_is_not_found(self, text, target, message):
    self.assertIn(message, self.error(text, target))

  @parameterized.parameters(
    ('a,y\n"1,2\n3,4\n', 'line 2: the quotation marks do not match'),
    ('a,y\n1,2\n"3" b,4\n', 'line 3: the quotation marks do not match'),
    ('a,y\n"1" ,2\n', 'line 2: the quotation marks do not match'),
    ('"a,y\n1,2\n', 'line 1: the quotation marks do not match'),
    ('a,y\n"' + 'x' * 200_000 + '",2\n', 'line 2: the quotation marks'),
    ('a,y\n1,2\n\n3,4,5\n', 'line 4: 3 cells, but line 1 has 2 names'),
    ('a,y\n1\n1,2\n', 'line 2: 1 cell, but line 1 has 2 names'),
    ('a,y\n1,5,2,5\n3,1,4,2\n', 'line 2, line 3: 4 cells'),
    ('a,y\n"1\n",2\n\n"x\ny",3\n4,4\n', r"line 5, column 'a': 'x\ny'"),
    ('a,y\n1,2\n\ufeffa,y\n3,4\n', 'line 3 repeats the names'),
    ('# by X\na,y\n1,2\n', 'names of the columns are in line 2, it seems'),
    ('Title;;\n\na;b;y\n1;2;3\n', 'remove what is above line 3'),
    ('1,2\n3,4\n', 'line 1 has numbers; the first row must have the names'),
    ('1,5;2\n3;4\n', 'line 1 has numbers'),
    ('a,y\n1,2\n\x1a\n', 'line 3: 1 cell'),
  )
  def test_lines_that_are_wrong(self, text, message):
    error = self.error(text)
    self.assertIn(message, error)
    self.assertNotIn('problems', error)

  def test_units_below_the_names_are_one_problem(self):
    error = self.error('a,b,y\n°C,-,%\n1,2,3\n4,5,6\n')
    self.assertEqual(
      error,
      "d.csv: line 2 has no numbers but texts, such as '°C', '%'; the names "
      'must be in one row: write units in the names, and remove the row',
    )

  def test_files_of_other_kinds(self):
    self.assertIn('.xls files are not', self.error(self.path(b'', 'd.XLS')))
    self.assertIn('a directory', self.error(self.folder))
    self.assertIn('No such file', self.error(self.folder / 'none.csv'))
    self.assertIn('type int', self.error(5))
    os.mkfifo(self.folder / 'pipe.csv')
    self.assertIn('a pipe', self.error(self.folder / 'pipe.csv'))

  def test_limits(self):
    for name, limit in (('_MAX_ROWS', 2), ('_MAX_COLUMNS', 1)):
      with self.subTest(name), mock.patch.object(tables, name, limit):
        self.assertIn('at most', self.error('a,y\n1,2\n3,4\n5,6\n'))
        frame = pd.DataFrame({'a': [1, 2, 3], 'y': [1, 2, 3]})
        self.assertIn('at most', self.error(frame))
    with mock.patch.object(tables, '_MAX_BYTES', 5):
      self.assertIn('at most 5 bytes', self.error('a,y\n1,2\n'))

  def test_a_large_file_is_read_fast(self):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(20_000, 9)), columns=[*'abcdefghy'])
    frame['intervention_targets'] = ['', 'a', 'b;a', ''] * 5000
    frame.to_csv(self.folder / 'd.csv', index=False)
    start = time.process_time()
    found = self.read(self.folder / 'd.csv')
    # It takes a tenth of that on an idle machine.
    self.assertLess(time.process_time() - start, 2)
    np.testing.assert_array_equal(found.values, frame.to_numpy()[:, :9])


class CellTest(_TestCase):
  @parameterized.parameters(
    ('1e5', 1e5),
    ('+1.5E-3', 1.5e-3),
    (' 1 ', 1),
    ('\xa01', 1),
    ('1.', 1),
    ('.5', 0.5),
    ('-0', 0),
    ('007', 7),
    ('0.1000000000000000055511151231257827', 0.1),
    ('1e-999', 0),
  )
  def test_numbers(self, cell, value):
    found = self.read(f'a,y\n"{cell}",1\n,2\n')
    self.assert_values(found, 'a y', [[value, 1], [_NAN, 2]])

  @parameterized.parameters(
    *('', ' ', 'NA', 'n/a', 'NaN', 'nan', 'NULL', 'None', '-', ' ? ')
  )
  def test_missing_values(self, cell):
    found = self.read(f'a,y\n"{cell}",1\n2,2\n')
    self.assert_values(found, 'a y', [[_NAN, 1], [2, 2]])

  @parameterized.parameters(
    ('1,234.5', 'without marks between thousands'),
    ('1.234,5', 'without marks between thousands'),
    ('1.234.567', 'without marks between thousands'),
    ('1,234', 'without marks between thousands'),
    ("1'234.5", 'without marks between thousands'),
    ('1 234', 'without marks between thousands'),
    ('1\u202f234,5', 'without marks between thousands'),
    ('1_000', 'without marks between thousands'),
    ('1,5', 'with a decimal point'),
    ('45%', 'the number alone'),
    ('45 %', 'the number alone'),
    ('€ 5', 'the number alone'),
    ('5 EUR', 'the number alone'),
    ('$1,234.50', 'the number alone'),
    ('5 mg/L', 'the number alone'),
    ('20 °C', 'the number alone'),
    ('<0.1', 'the number alone'),
    ('5 ± 0.1', 'the number alone'),
    ("'5", 'the number alone'),
    ('−5', 'of the keyboard'),
    ('５', 'of the keyboard'),
    ('٣', 'of the keyboard'),
    ('inf', 'give a finite number'),
    ('-Infinity', 'give a finite number'),
    ('1e301', 'too large; give a finite number within'),
    ('1e999', 'too large'),
    ('True', 'write 1 and 0'),
  )
  def test_cells_that_are_meant_as_numbers(self, cell, advice):
    # Even a column of nothing else is not taken for text.
    error = self.error(f'a,y\n"{cell}",1\n"{cell}",2\n1.5,3\n')
    self.assertIn(f"column 'a': {cell!r} in line 2, {cell!r} in line 3", error)
    self.assertIn(advice, error)

  @parameterized.parameters(
    *('0x1F', '-NaN', '#N/A', '#DIV/0!', 'n.a.', '<LOD', '1d5', '1.5.2', '(5)'),
    *('1e', '++1', '5mg', '10^3', '12:30', '2024-01-02', '01.02.2024', 'x'),
    *('1 2', '1;2', 'e5', '.', '1/2', 'ja', '\u200b1', '1,2,3', 'A1', '--'),
  )
  def test_cells_that_are_no_numbers(self, cell):
    error = self.error(f'a,y\n"{cell}",1\n2,2\n')
    self.assertEqual(
      error,
      f"d.csv: line 2, column 'a': {cell!r} is not a number; write a number, "
      'or leave the cell empty',
    )
    found = self.read(f'a,y\n"{cell}",1\n2,2\n"{cell}",3\n')
    self.assert_values(found, 'y', [[1], [2], [3]])
    self.assert_warning(found, "'a' is left out", f'{cell!r} in line 2')

  def test_truth_values(self):
    found = self.read('a,b,y\nTRUE,1,1\nfalse,False,2\n,true,3\n')
    self.assert_values(found, 'a b y', [[1, 1, 1], [0, 0, 2], [_NAN, 1, 3]])

  def test_two_texts_may_be_written_as_numbers(self):
    found = self.read('a,y\nwahr,1\nfalsch,2\nwahr,3\n')
    self.assert_warning(found, "write 0 and 1 for 'falsch' and 'wahr'")

  def test_decimal_commas(self):
    found = self.read('a;b;y\n1,5;1.5;1\n-,5e3;,\n'.replace(',\n', '2.5;2\n'))
    self.assert_values(found, 'a b y', [[1.5, 1.5, 1], [-500, 2.5, 2]])

  def test_the_decimal_mark_of_most_cells_counts(self):
    error = self.error('a;y\n1,5;1\n2,5;2\n3.5;3\n')
    self.assertIn("line 4, column 'a': '3.5' is not a number", error)
    error = self.error('a;y\n1.5;1\n2,5;2\n3.5;3\n')
    self.assertIn("line 3, column 'a': '2,5' is not a number", error)
    error = self.error('a;y\n1,5;1\nn.a.;2\n')
    self.assertIn("line 3, column 'a': 'n.a.' is not a number", error)

  @parameterized.parameters(
    ('1.234;1,5;2', '1.234', '1,5'),
    ('1,234;0.5;2', '1,234', '0.5'),
  )
  def test_thousands_beside_the_other_decimal_mark(self, line, cell, other):
    error = self.error(f'a;b;y\n{line}\n')
    self.assertIn(f'{cell!r} may be a number of thousands', error)
    self.assertIn(f"column 'b' has numbers such as {other!r}", error)

  def test_commas_of_a_frame_may_be_of_thousands(self):
    frame = pd.DataFrame({'a': ['1,234', '999', '2,500'], 'y': [0.5, 0.7, 0.1]})
    self.assertIn('may be a number of thousands', self.error(frame))
    frame['a'] = ['1,234', '0,5', '2,5']
    self.assertEqual(self.read(frame).values[0, 0], 1.234)

  @parameterized.parameters('1,234;1;2', '1.234;1;2', '0.123;1,5;2')
  def test_three_decimals_alone_are_decimals(self, line):
    self.assertLess(self.read(f'a;b;y\n{line}\n').values[0, 0], 2)


class ColumnTest(_TestCase):
  def test_names_are_normalized(self):
    text = ' Te\u0301mp [°C]\xa0x ,y\n1,2\n'
    found = self.read(text, settable=['Témp [°C] x '])
    self.assertEqual(found.variables, ('Témp [°C] x', 'y'))

  @parameterized.parameters(
    ('a,y,a\n1,2,3\n', "2 columns have the name 'a'; rename all but one"),
    ('a, y,y\n1,2,3\n', "2 columns have the name 'y'"),
    ('a,,y\n1,2,3\n', 'column 2 has no name; give it one, or remove it'),
    (',a,y\n5,1,2\n', 'column 1 has no name'),
    ('"a\nb",y\n1,2\n', r"column 'a\nb' has line breaks or invisible"),
    ('a\u200bb,y\n1,2\n', r"column 'a\u200bb' has line breaks or invisible"),
    ('a\x1b[2J,y\n1,2\n', r"column 'a\x1b[2J' has line breaks or invisible"),
    ('a,yield\n1,2\n', "no column 'y', the target; there are a, yield"),
    ('a,Y\n1,2\n', "no column 'y', the target; did you mean Y?"),
  )
  def test_names_that_are_wrong(self, text, message):
    self.assertIn(message, self.error(text))

  @parameterized.parameters(
    (',a,y\n0,1,2\n1,3,4\n', 'column 1', 'counts the rows'),
    ('Unnamed: 0,a,y\n0,1,2\n1,3,4\n', "'Unnamed: 0'", 'index of a DataFrame'),
    ('a,d,y\n1,2024-01-02,2\n3,,4\n', "'d'", "'2024-01-02' in line 2"),
    ('a,d,y\n1,02.01.2024,2\n3,,4\n', "'d'", 'not numbers'),
    ('a,id,y\n1,A1,2\n3,A2,4\n', "'id'", 'not numbers'),
    ('a,e,y\n1,,2\n3,NA,4\n', "'e'", 'it has no values'),
    ('a,s,y\n1,"C(=O),N",2\n3,CC,4\n', "'s'", "'C(=O),N' in line 2"),
  )
  def test_columns_are_left_out(self, text, name, reason):
    found = self.read(text)
    self.assert_values(found, 'a y', [[1, 2], [3, 4]])
    self.assert_warning(found, f'{name} is left out', reason)

  def test_constant_columns_are_kept(self):
    found = self.read('a,y\n1,2\n1,3\n')
    self.assert_values(found, 'a y', [[1, 2], [1, 3]])
    self.assertEmpty(found.warnings)

  @parameterized.parameters(
    dict(settable=['s']), dict(variables=['s', 'y']), dict(target='s')
  )
  def test_columns_that_are_named_have_no_texts(self, **options):
    error = self.error('s,y\nDMF,1\nDMSO,2\n', **options)
    self.assertIn("'DMF' in line 2, 'DMSO' in line 3 are not numbers", error)

  def test_so_have_those_that_were_set(self):
    error = self.error('s,y,intervention_targets\nDMF,1,s\nDMSO,2,\n')
    self.assertIn("column 's': 'DMF' in line 2", error)

  @parameterized.parameters(
    (dict(settable=['b']), "no column 'b', a variable to set"),
    (
      dict(settable=['y']),
      "the target, 'y', is among the variables to set; remove it",
    ),
    (dict(variables=['a']), "the columns to read lack 'y', the target; add it"),
    (dict(variables=[]), "the columns to read lack 'y'"),
    (
      dict(variables=['y'], settable=['a']),
      "columns to read lack 'a', a variable",
    ),
    (dict(variables=['y', 'q']), "no column 'q', one of those to read"),
    (dict(settable='a'), "settable is 'a'; give a list"),
    (dict(variables=3), 'variables is 3; give a list'),
    (dict(settable=[3]), 'settable has 3; it must be the name'),
    (dict(target=''), "target has ''; it must be the name"),
    (dict(variables=['y', 'e']), "column 'e' has no values; give some"),
    (dict(target='intervention_targets'), 'can be no variable'),
  )
  def test_requests_that_cannot_be_met(self, options, message):
    self.assertIn(message, self.error('a,e,y\n1,,2\n3,,4\n', **options))

  def test_only_the_columns_that_are_asked_for_are_read(self):
    found = self.read('y,a,b\n1,2,x\n3,4,5\n', variables=['a', 'y'])
    self.assert_values(found, 'y a', [[1, 2], [3, 4]])

  def test_a_table_may_have_no_rows(self):
    found = self.read('a,intervention_targets,y\n', settable={'a': (0, 1)})
    self.assertEqual(found.variables, ('a', 'y'))
    self.assertEqual(found.values.shape, (0, 2))
    self.assertEqual(found.interventions, ())


class ProblemTest(_TestCase):
  def test_all_are_reported_at_once(self):
    error = self.error(
      'a,b,b,y\n1,2,3,\n1,2,3,inf\nx,2,3,?\n1,2,3\n4,2,3,5\n5,2,3,-\n6,2,3,6\n'
      '7,2,3,7\n8,2,3,NA\n',
      settable=['c'],
    )
    self.assertEqual(
      error.split('\n'),
      [
        'd.csv has 6 problems:',
        '- line 5: 3 cells, but line 1 has 4 names; give one cell per name, '
        'and put cells that contain the separator in quotation marks',
        "- 2 columns have the name 'b'; rename all but one",
        "- there is no column 'c', a variable to set; there are a, b, b, y",
        "- line 4, column 'a': 'x' is not a number; write a number, or leave "
        'the cell empty',
        "- line 3, column 'y': 'inf' is not a number; give a finite number "
        'within ±1e+150, or leave the cell empty',
        "- line 2, line 4, line 7 and 1 more, column 'y': the target has no "
        'value; remove the row, or give the value',
      ],
    )

  def test_long_lists_are_cut(self):
    error = self.error('a,y\n' + 'x,1\n' * 5000 + '1,1\n' * 6000)
    self.assertIn("'x' in line 4 and 4,997 more cells are not", error)
    names = ','.join(f'a{k}' for k in range(30))
    error = self.error(f'{names},y\n{"x," * 30}1\n{"1," * 30}1\n')
    self.assertLen(error.split('\n'), 22)
    self.assertEndsWith(error, 'and 10 more problems')

  def test_control_characters_are_not_shown(self):
    for text in ('a\x1b[2J,y\n\x1b[31m,\x9b1\n1,2\n', '\u202ea,y\n1,\u202e\n'):
      self.assertTrue(self.error(text).replace('\n', '').isprintable())
    error = self.error(self.path('a\n', 'x\x1b.csv'))
    self.assertStartsWith(error, r'x\x1b.csv: there is no column')

  def test_long_cells_are_cut(self):
    self.assertLess(len(self.error(f'a,y\n{"x" * 10_000},1\n1,2\n')), 200)


class InterventionTest(_TestCase):
  @parameterized.parameters(
    ('', ()),
    ('-', ()),
    ('none', ()),
    ('a', ('a',)),
    (' a ; T, C ', ('T, C', 'a')),
    ('T, C;a', ('T, C', 'a')),
    ('T, C', ('T, C',)),
    ('a,b', ('a', 'b')),
    ('b ; a;', ('a', 'b')),
    ('b;b', ('b',)),
  )
  def test_names_are_read(self, cell, expected):
    text = f'"T, C",a,b,y,intervention_targets\n1,2,3,4,"{cell}"\n'
    found = self.read(text, settable=['a'])
    self.assertEqual(found.interventions, (expected,))
    self.assertEqual(found.variables, ('T, C', 'a', 'b', 'y'))

  @parameterized.parameters(
    ('A', "line 2, column 'intervention_targets': 'A' is no column; did you"),
    ('aa', 'is no column; did you mean a?'),
    ('do(a)', "'do(a)' is no column"),
    ('a=5', "'a=5' is no column"),
    ('a b', "'a b' is no column"),
    ('1', "'1' is no column"),
    ('intervention_targets', 'is no column'),
    ('y', "'y' is the target, which cannot be set; remove it"),
    ('b', "column 'b': it was set and has no value; give the value"),
  )
  def test_names_that_are_wrong(self, cell, message):
    error = self.error(f'a,b,y,intervention_targets\n2,,4,{cell}\n2,3,4,\n')
    self.assertIn(message, error)

  def test_variables_must_have_what_was_set(self):
    error = self.error(
      'a,b,y,intervention_targets\n2,3,4,b\n', variables=['a', 'y']
    )
    self.assertIn("'b' was set, and variables lacks it; add it", error)

  @parameterized.parameters('Intervention Targets', 'intervention_target')
  def test_the_column_may_be_misspelt(self, name):
    error = self.error(f'a,y,{name}\n1,2,a\n')
    self.assertIn("rename it to 'intervention_targets'", error)

  def test_many_wrong_names_take_no_time(self):
    rows = ''.join(f'1,2,name{k}\n' for k in range(20_000))
    error = self.error(f'name,y,intervention_targets\n{rows}')
    self.assertStartsWith(error, 'd.csv has 20,000 problems')


class WarningTest(_TestCase):
  def test_good_tables_have_none(self):
    rows = ''.join(f'{k % 7},{k},\n' for k in range(5)) + '1,9,a\n'
    found = self.read(f'a,y,intervention_targets\n{rows}', settable=['a'])
    self.assertEqual(found.warnings, ())

  def test_no_interventions_though_some_variables_are_settable(self):
    found = self.read('a,y\n1,2\n', settable=['a'])
    self.assert_warning(found, "no column 'intervention_targets'; in all rows")

  def test_columns_that_must_be_numeric(self):
    text = 'experiment,note,y\n#2,good,1\n3,,2\n#4,bad,3\n'
    self.assertEqual(self.read(text).variables, ('y',))
    with self.assertRaisesRegex(errors.UsageError, "'#2' in line 2"):
      self.read(text, numeric=['experiment', 'a'])

  def test_copies(self):
    found = self.read('a,y\n1,2\n,2\n1,2\n,2\n3,4\n')
    self.assert_warning(found, 'exact copies of earlier rows: 2 (line 4, line')
    # The same values are another record if something else was set.
    found = self.read('a,y,intervention_targets\n1,2,a\n1,2,\n')
    self.assertEmpty(found.warnings)

  def test_codes_for_missing_values(self):
    rows = ''.join(f'{k % 7},{k % 11}\n' for k in range(40))
    found = self.read(f'a,y\n{rows}-999,3\n,9999\n2,500\n')
    self.assert_warning(found, "line 42, column 'a': -999 is far from all")
    self.assert_warning(found, "line 43, column 'y': 9999 is far from all")
    self.assertNotIn('500', ''.join(found.warnings))

  def test_numbers_of_experiments(self):
    rows = ''.join(f'{k + 1},{k % 4}\n' for k in range(6))
    found = self.read(f'run,y\n{rows}')
    self.assertEqual(found.variables, ('run', 'y'))
    self.assert_warning(found, "'run' counts the rows; if it numbers")
    found = self.read(f'run,y\n{rows}', settable=['run'])
    self.assertNotIn('counts', ''.join(found.warnings))


class FrameTest(_TestCase):
  @parameterized.named_parameters(
    ('int', np.array([1, 2])),
    ('uint8', np.array([1, 2], np.uint8)),
    ('float16', np.array([1, 2], np.float16)),
    ('bool', [True, False], (1, 0)),
    ('nullable_int', pd.array([1, None], 'Int64'), (1, _NAN)),
    ('nullable_float', pd.array([1.5, None], 'Float64'), (1.5, _NAN)),
    ('nullable_bool', pd.array([True, None], 'boolean'), (1, _NAN)),
    ('string', pd.array(['1.5', None], 'string'), (1.5, _NAN)),
    ('categories', pd.Categorical([1.5, None]), (1.5, _NAN)),
    ('categories_of_text', pd.Categorical(['1.5', '2'])),
    ('sparse', pd.arrays.SparseArray([0.0, 1.0]), (0, 1)),
    ('masked', np.ma.masked_array([1.0, 2.0], [False, True]), (1, _NAN)),
    ('objects', np.array([1, '2.5'], object), (1, 2.5)),
    ('bools', np.array([np.True_, None], object), (1, _NAN)),
    ('missing', np.array([pd.NA, 5], object), (_NAN, 5)),
    ('nat', np.array([pd.NaT, 5], object), (_NAN, 5)),
    (
      'decimals',
      [decimal.Decimal('1.5'), fractions.Fraction(1, 4)],
      (1.5, 0.25),
    ),
    ('decimal_commas', ['1,5', '2'], (1.5, 2)),
    ('large', [2**70, 3], (2.0**70, 3)),
  )
  def test_types(self, cells, expected=None):
    found = self.read(pd.DataFrame({'a': cells, 'y': [1, 2]}))
    expected = np.array(cells, float) if expected is None else expected
    self.assert_values(found, 'a y', np.stack([expected, [1, 2]], 1))

  @parameterized.named_parameters(
    ('dates', pd.to_datetime(['2024-01-01', '2024-01-02']), "'2024-01-01'"),
    ('times', pd.to_timedelta([1, 2], 'h'), "'0 days 01:00:00'"),
    ('complex', np.array([1 + 2j, 2]), "'(1+2j)'"),
    ('lists', [['p'], ['q']], "'p'"),
    ('bytes', [b'1', b'2'], '"b\'1\'"'),
    ('categories', pd.Categorical(['p', 'q']), "'p'"),
    ('surrogates', ['\ud800', 'x'], r"'\ud800'"),
  )
  def test_types_without_numbers(self, cells, shown):
    frame = pd.DataFrame({'a': cells, 'y': [1, 2]})
    found = self.read(frame)
    self.assert_values(found, 'y', [[1], [2]])
    self.assert_warning(found, "'a' is left out", f'{shown} in row 0')
    self.assertIn(f"column 'a': {shown} in row 0", self.error(frame, 'a'))

  @parameterized.parameters(
    ([np.inf, 1.0], "row 0, column 'a': inf is too large"),
    ([-1e301, 1.0], "row 0, column 'a': -1e+301 is too large"),
    ([10**400, 1], "row 0, column 'a': 'inf' is not a number"),
    ([np.longdouble('1e400'), 1.0], "row 0, column 'a': inf is too large"),
    ([True, 2], "row 0, column 'a': 'True' is not a number; write 1 and 0"),
    ([datetime.date(2024, 1, 2), 1], "row 0, column 'a': '2024-01-02' is not"),
    ([datetime.datetime(2024, 1, 2), 1], "row 0, column 'a': '2024-01-02' is"),
  )
  def test_cells_that_are_wrong(self, cells, message):
    frame = pd.DataFrame({'a': cells, 'y': [1, 2]})
    self.assertIn(f'the DataFrame: {message}', self.error(frame))

  @parameterized.parameters(
    (
      pd.DataFrame(np.ones((2, 2))),
      "column 1 has the name '0' of the type int",
    ),
    (pd.DataFrame([[1, 2]], columns=['y', 'y']), "2 columns have the name 'y'"),
    (pd.DataFrame([[1, 2]], columns=['', 'y']), 'column 1 has no name'),
    (
      pd.DataFrame([[1]], columns=pd.MultiIndex.from_tuples([('a', 'y')])),
      'names of 2 levels',
    ),
    (pd.DataFrame(), "no column 'y'"),
  )
  def test_names_that_are_wrong(self, frame, message):
    self.assertIn(message, self.error(frame))

  def test_rows_are_named(self):
    frame = pd.DataFrame({'a': [1, 2], 'y': [1, None]})
    self.assertIn("row 1, column 'y': the target has", self.error(frame))
    frame = frame.set_axis(['p', 'q\x1b'])
    self.assertIn(r"row 1 (index 'q\x1b'), column 'y'", self.error(frame))

  def test_the_index_is_no_column(self):
    frame = pd.DataFrame({'i': [5, 3], 'y': [1, 2]}).set_index('i')
    self.assert_values(self.read(frame), 'y', [[1], [2]])

  def test_interventions(self):
    for cells in (['a', None], [['a'], ()]):
      frame = pd.DataFrame(
        {'a': [1, 2], 'y': [1, 2], 'intervention_targets': cells}
      )
      self.assertEqual(self.read(frame).interventions, (('a',), ()))
    frame = frame.assign(intervention_targets=np.nan)
    self.assertEqual(self.read(frame).interventions, ((), ()))

  def test_a_frame_is_read_as_its_file(self):
    frame = pd.DataFrame({'a': [0.1, 1 / 3], 'y': [1e-300, -1e150]})
    frame.to_csv(self.folder / 'd.csv', index=False)
    frame.to_excel(self.folder / 'd.xlsx', index=False)
    for source in (frame, self.folder / 'd.csv', self.folder / 'd.xlsx'):
      self.assert_values(self.read(source), 'a y', frame)

  def test_the_frame_is_not_changed(self):
    frame = pd.DataFrame({' a': [1.0, 2.0], 'y': [1, 2]})
    self.read(frame).values[:] = 7
    pd.testing.assert_frame_equal(
      frame, pd.DataFrame({' a': [1.0, 2.0], 'y': [1, 2]})
    )


class WorkbookTest(_TestCase):
  def workbook(self, rows, sheets=('Sheet',)) -> pathlib.Path:
    path = self.folder / 'd.xlsx'
    with pd.ExcelWriter(path, engine='openpyxl') as writer:
      for sheet in sheets:
        pd.DataFrame(rows).to_excel(
          writer, sheet_name=sheet, header=False, index=False
        )
    return path

  def test_cells(self):
    path = self.workbook(
      [
        [None, None, None, None, None],
        [None, 'a', 'b', 'd', 'y'],
        [None, 1.5, True, datetime.datetime(2024, 1, 2), '1,5'],
        [None, None, None, None, None],
        [None, '2.5', False, None, 2],
      ]
    )
    found = self.read(path)
    self.assert_values(found, 'a b y', [[1.5, 1, 1.5], [2.5, 0, 2]])
    self.assert_warning(found, "'d' is left out", "'2024-01-02' in row 3")

  def test_only_the_first_sheet_is_read(self):
    found = self.read(self.workbook([['y'], [1]], ['one', 'two', 'three']))
    self.assert_warning(found, "first sheet, 'one', is", "'two', 'three'")

  @parameterized.parameters(
    (
      [['a', 'y'], [1, 2], [None, None], ['n.a.', 3]],
      "row 4, column 'a': 'n.a",
    ),
    ([['a', 'y'], [1, 2], [1, '#DIV/0!']], "row 3, column 'y': '#DIV/0!' is"),
    ([['a', 'y'], [1, 2], [3, None]], "row 3, column 'y': the target has no"),
    ([['a', 'y', None], [1, 2, 'note']], 'row 2: 3 cells, but row 1 has 2'),
    ([['Title', None], ['a', 'y'], [1, 2]], 'columns are in row 2, it seems'),
    ([['a', 'y'], ['1,5', 2], [1.5, 2]], "row 2, column 'a': '1,5' is not"),
    ([[]], 'the table is empty'),
  )
  def test_rows_that_are_wrong(self, rows, message):
    self.assertIn(message, self.error(self.workbook(rows)))

  def test_rows_beyond_those_of_excel(self):
    path = self.workbook([['y'], [1], [2]])
    with mock.patch.object(tables, '_MAX_SHEET_ROWS', 2):
      self.assertIn('more rows than', self.error(path))

  @parameterized.parameters(
    (b'a,y\n1,2\n', 'no valid .xlsx file'),
    (b'PK\x03\x04', 'no valid .xlsx file'),
    (b'', 'no valid .xlsx file'),
    (b'\xd0\xcf\x11\xe0', 'has a password; save it as .xlsx'),
  )
  def test_files_that_are_no_workbooks(self, content, message):
    self.assertIn(message, self.error(self.path(content, 'd.xlsx')))

  def test_damaged_workbooks(self):
    content = self.workbook([['a', 'y'], [1, 2]]).read_bytes()
    for damage in ('no sheet', 'cut', 'no parts', 'no xml'):
      with self.subTest(damage):
        buffer = io.BytesIO()
        with (
          zipfile.ZipFile(io.BytesIO(content)) as old,
          zipfile.ZipFile(buffer, 'w') as new,
        ):
          for name in old.namelist() if damage != 'no parts' else []:
            is_sheet = name.endswith('sheet1.xml')
            part = b'<x>' if is_sheet and damage == 'no xml' else old.read(name)
            if not (is_sheet and damage == 'no sheet'):
              new.writestr(name, part)
        damaged = buffer.getvalue()
        damaged = damaged[: len(damaged) // 2] if damage == 'cut' else damaged
        error = self.error(self.path(damaged, 'd.xlsx'))
        self.assertStartsWith(error, 'd.xlsx is no valid .xlsx file')
        self.assertNotIn('\n', error)

  def test_bombs_are_not_expanded(self):
    path = self.folder / 'd.xlsx'
    with (
      zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive,
      archive.open('xl/workbook.xml', 'w') as member,
    ):
      member.write(bytes(10**6))
    with mock.patch.object(tables, '_MAX_EXPANDED_BYTES', 10**5):
      self.assertIn('expands to 1,000,000 bytes', self.error(path))

  def test_openpyxl_is_asked_for(self):
    path = self.workbook([['y'], [1]])
    with mock.patch.object(pd, 'ExcelFile', side_effect=ImportError('x')):
      self.assertIn('pip install openpyxl', self.error(path))


if __name__ == '__main__':
  absltest.main()
