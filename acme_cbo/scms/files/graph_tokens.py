"""Tokens of graph files in DOT, DAGitty, GML and BIF."""

from collections.abc import Callable, Iterator
import re
from typing import NamedTuple

from acme_cbo.infra import errors
from acme_cbo.scms.files import edge_marks

MAX_LENGTH = 64  # Characters of a name, and of a token in an error message.

# A letter, a digit or _, or a mark that the normal form joins with a letter.
_LETTER = r'[\w\u0300-\u036f\u0653-\u0655\u3099\u309a]'
NAME = re.compile(rf'{_LETTER}+(?:[.-]{_LETTER}+)*')
_NUMBER = (
  r'[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?(?![\w.-])'
  r'|[-+](?i:inf|nan)\b'
)
# Quantifiers that never give back what they took: a string may be long.
_ESCAPED_STRING = r'"(?:[^"\\]++|\\.)*+"'
_PLAIN_STRING = r'"[^"]*+"'
_ESCAPE = re.compile(r'\\(\r?\n|")')
_BRACKET = re.compile('[<>]')


def _pattern(string: str) -> re.Pattern[str]:
  return re.compile(
    r'(?P<blank>\s+|//[^\n]*|#[^\n]*|/\*.*?\*/)'
    rf'|(?P<string>{string})|(?P<number>{_NUMBER})|(?P<word>{NAME.pattern})'
    r'|(?P<mark><->|->|<-|--|/\*|.)',
    re.DOTALL,
  )


_DOT = _pattern(_ESCAPED_STRING)
_OTHER = _pattern(_PLAIN_STRING)


class Token(NamedTuple):
  """A word, a number, a string or a punctuation mark.

  Attributes:
    text: the token as the file has it, including quotes; '' after the end.
    line: its line, counted from 1.
    value: its text without quotes and escapes.
    kind: name of a group of the pattern, or 'html'.
  """

  text: str
  line: int
  value: str
  kind: str

  @property
  def is_word(self) -> bool:
    """Whether it is a word or a string."""
    return self.text[:1] == '"' or NAME.fullmatch(self.text) is not None

  @property
  def is_value(self) -> bool:
    """Whether it is a word, a string, a number or HTML."""
    return self.is_word or self.kind in ('number', 'html')


class Tokens:
  """Stream of the tokens of a text.

  Attributes:
    next: the next token; the last one is returned again and again.
    after: the token after the next one.
  """

  def __init__(
    self,
    text: str,
    error: Callable[[int, str], errors.UsageError],
    dot: bool = False,
  ):
    """Initializes the stream.

    Args:
      text: content of the file.
      error: function from a line and a sentence to an error.
      dot: whether strings are those of DOT: with escapes, or HTML.
    """
    self._error = error
    self._tokens = _read_tokens(text, error, dot)
    self.next = next(self._tokens)
    self.after = next(self._tokens, self.next)

  def take(self) -> Token:
    """Takes the next token."""
    token = self.next
    self.next = self.after
    self.after = next(self._tokens, self.after)
    return token

  def skip(self, *texts: str) -> bool:
    """Takes the next token if it is one of these; returns whether it was."""
    if self.next.text.lower() not in texts:
      return False
    self.take()
    return True

  def expect(self, *texts: str) -> None:
    """Takes the next token, which must be one of these."""
    if not self.skip(*texts):
      raise self.error(' or '.join(texts) or 'the end of the file')

  def word(self, expected: str = 'a variable name') -> Token:
    """Takes the next token, which must be a word."""
    if not self.next.is_word:
      raise self.error(expected)
    return self.take()

  def value(self) -> str:
    """Takes the next token, which must be a value; returns its value."""
    if not self.next.is_value:
      raise self.error('a number or a word')
    return self.take().value

  def skip_block(self) -> None:
    """Takes a block in braces."""
    self.expect('{')
    begin, depth = self.next.line, 1
    while depth:
      if not self.next.text:
        raise self._error(begin, 'this { is never closed')
      text = self.take().text
      depth += (text == '{') - (text == '}')

  def error(self, expected: str) -> errors.UsageError:
    """Returns an error at the next token, to be raised by the caller.

    Args:
      expected: description of what would be right instead.
    """
    token = self.next
    actual = token.text[:MAX_LENGTH] or 'the end of the file'
    reason = edge_marks.check_mark(token.text) if token.kind == 'mark' else ''
    return self._error(
      token.line, reason or f'expected {expected}, got {actual}'
    )


def _read_tokens(text, error, dot) -> Iterator[Token]:
  """Yields the tokens of a text; arguments as for `Tokens`."""
  pattern = _DOT if dot else _OTHER
  line, position, last = 1, 0, ''
  while position < len(text):
    match = pattern.match(text, position)
    assert match is not None and match.lastgroup is not None
    kind, token = match.lastgroup, match.group()
    # Elsewhere < may begin an arrow.
    if dot and last == '=' and token[0] == '<':
      kind, token = 'html', _html(text, position)
    if token in ('"', '/*') or (token == '<' and kind == 'html'):
      raise error(line, f'{token} is never closed')
    if kind == 'string':
      value = token[1:-1]
      if dot:
        value = _ESCAPE.sub(lambda escape: escape[1].strip(), value)
      yield Token(token, line, value, kind)
    elif kind != 'blank':
      yield Token(token, line, token, kind)
    last = last if kind == 'blank' else token
    position += len(token)
    line += token.count('\n')
  yield Token('', line, '', 'mark')


def _html(text, start):
  """Returns the text in balanced < >, or '<' if they are not balanced."""
  depth = 0
  for match in _BRACKET.finditer(text, start):
    depth += 1 if match.group() == '<' else -1
    if not depth:
      return text[start : match.end()]
  return '<'
