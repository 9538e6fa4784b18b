"""Text of others, made safe to show."""

import re

# Cells that a spreadsheet would run, after the apostrophes of `quote_cell` and
# spaces, which some remove, and lists of numbers, which begin like them.
_FORMULA = re.compile(r"'*\s*[=+\-@\uff1d\uff0b\uff0d\uff20]|'*[\t\r\n]")
_NUMBERS = re.compile(r'[0-9eE+\-.,; ]*')


def printable(text: str, keep: str = '\n\t') -> str:
  r"""Returns a text whose characters can all be shown, as in '\x1b'.

  Control characters, by which a terminal may run commands, and characters that
  change the direction of the text are escaped.

  Args:
    text: any text.
    keep: characters that stay as they are.
  """
  if text.isprintable():
    return text
  return ''.join(
    character
    if character.isprintable() or character in keep
    else ascii(character)[1:-1]
    for character in text
  )


def short(text: str, length: int) -> str:
  """Returns a text, without its end where it has more characters than that.

  Args:
    text: any text.
    length: maximum number of characters.
  """
  return text if len(text) <= length else f'{text[: length - 1]}…'


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
