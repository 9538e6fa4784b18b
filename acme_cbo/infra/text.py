"""Text of others, made safe to show."""

import re

# All control characters of Unicode but newline and tab: a terminal may run
# commands that they encode.
_CONTROL = re.compile(r'[\x00-\x08\x0b-\x1f\x7f-\x9f]')
# Cells that a spreadsheet would run, after the apostrophes of `quote_cell`, and
# lists of numbers, which begin like them.
_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_NUMBERS = re.compile(r'[0-9eE+\-.,; ]*')


def has_control(text: str) -> bool:
  """Returns whether a text has control characters, or line breaks or tabs."""
  return bool(_CONTROL.search(text)) or '\n' in text or '\t' in text


def printable(text: str) -> str:
  r"""Returns a text with its control characters escaped, as in '\x1b'.

  Newlines and tabs stay.

  Args:
    text: any text.
  """
  return _CONTROL.sub(lambda match: f'\\x{ord(match[0]):02x}', text)


def quote_cell(text: str) -> str:
  """Returns the text of a CSV cell that no spreadsheet runs as a formula.

  Args:
    text: text of a cell.

  Returns:
    The text, after an apostrophe if it could be a formula, or if `unquote_cell`
    would take its own apostrophe for one.
  """
  is_formula = _FORMULA.match(text) and not _NUMBERS.fullmatch(text)
  return f"'{text}" if is_formula else text


def unquote_cell(text: str) -> str:
  """Returns the text that `quote_cell` quoted."""
  return text[1:] if text[:1] == "'" and _FORMULA.match(text) else text
