r"""Tests of texts of others: control characters, and cells like formulas."""

from absl.testing import absltest
from absl.testing import parameterized

from acme_cbo.infra import text


class TextTest(parameterized.TestCase):
  @parameterized.parameters(
    ('plain', 'plain'),
    ('é\n\t漢', 'é\n\t漢'),
    ('\x1b[2J', r'\x1b[2J'),
    ('a\rb\x07', r'a\rb\x07'),
    ('\x9b31m\x7f', r'\x9b31m\x7f'),
    ('a\u202eb', r'a\u202eb'),
  )
  def test_control_characters_are_escaped(self, raw, shown):
    self.assertEqual(text.printable(raw), shown)

  def test_line_breaks_are_kept_unless_said_otherwise(self):
    self.assertEqual(text.printable('a\nb'), 'a\nb')
    self.assertEqual(text.printable('a\nb', keep=''), r'a\nb')

  @parameterized.parameters(
    ("=cmd|' /C calc'!A0", "'=cmd|' /C calc'!A0"),
    ('@SUM(A1)', "'@SUM(A1)"),
    ('+a', "'+a"),
    ('-2+3+cmd', "'-2+3+cmd"),
    ("'=a", "''=a"),
    ('\t=a', "'\t=a"),
    (' =a', "' =a"),
    ('\N{FULLWIDTH EQUALS SIGN}a', "'\N{FULLWIDTH EQUALS SIGN}a"),
    ('-3', '-3'),
    ('+1e-5; -0.5', '+1e-5; -0.5'),
    ('grpo', 'grpo'),
    ("'quoted'", "'quoted'"),
    ('', ''),
  )
  def test_cells_like_formulas_are_quoted(self, cell, quoted):
    self.assertEqual(text.quote_cell(cell), quoted)
    self.assertEqual(text.unquote_cell(quoted), cell)


if __name__ == '__main__':
  absltest.main()
