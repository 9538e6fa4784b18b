"""Reads files that another program or person may have written.

Every reader takes only regular files, so that it never waits for a pipe or a
device, and none that is larger than its caller allows. Everything that is wrong
with a file is a `errors.UsageError` that names it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
import contextlib
import json
import math
import os
import pathlib
import re
import stat
from typing import Any, BinaryIO, TypeVar

from acme_cbo.infra import errors

T = TypeVar('T')

# Largest whole number in a JSON file; larger ones fit into no array.
_MAX_INT = 2**64
_CHUNK_BYTES = 2**24
# An escaped control character other than a newline, return or tab, after an
# even number of backslashes; or one of those that JSON allows unescaped.
_CONTROL = re.compile(
  rb'(?<!\\)(?:\\\\)*(\\u00(?:0[0-8bBcCeEfF]|1[0-9a-fA-F]|7[fF]'
  rb'|[89][0-9a-fA-F])|\\[bf]|\x7f|\xc2[\x80-\x9f])'
)
_KINDS = {
  stat.S_IFDIR: 'a directory',
  stat.S_IFIFO: 'a pipe',
  stat.S_IFSOCK: 'a socket',
  stat.S_IFCHR: 'a device',
  stat.S_IFBLK: 'a device',
}


def open_regular(
  path: pathlib.Path, max_bytes: int, flags: int = 0
) -> BinaryIO:
  """Opens a regular file for reading, without waiting.

  Args:
    path: the file.
    max_bytes: largest allowed size.
    flags: further flags of `os.open`, such as `os.O_NOFOLLOW`.

  Returns:
    The open file. It may grow beyond `max_bytes` while it is read.

  Raises:
    errors.UsageError: the file cannot be opened, is not a regular file, or is
      too large.
  """
  try:
    # Without O_NONBLOCK, opening a pipe waits for its writer.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | flags)
  except OSError as error:
    raise errors.UsageError(
      f'{path} cannot be read: {error.strerror}'
    ) from error
  except ValueError as error:  # A path with a null character in it.
    raise errors.UsageError(f'{str(path)!r} is not a valid path') from error
  status = os.fstat(descriptor)
  kind = _KINDS.get(stat.S_IFMT(status.st_mode))
  if kind or status.st_size > max_bytes:
    os.close(descriptor)
    if not kind:
      raise _too_large(path, max_bytes)
    raise errors.UsageError(
      f'{path} cannot be read: it is {kind}; name a regular file'
    )
  return open(descriptor, 'rb')


def make_private(directory: pathlib.Path) -> None:
  """Creates a directory in which nobody else can write.

  Args:
    directory: path; missing parents are created too.

  Raises:
    errors.UsageError: it cannot be created, or it exists, and others own it or
      can write there, or can replace it by way of a directory above it.
  """
  try:
    for path in (*reversed(directory.parents), directory):
      if not path.exists():
        path.mkdir(mode=0o700, exist_ok=True)
    real = directory.resolve()
    statuses = {path: path.stat() for path in (real, *real.parents)}
  except OSError as error:
    raise errors.UsageError(
      f'{directory} cannot be created: {error.strerror}'
    ) from error
  if not stat.S_ISDIR(statuses[real].st_mode):
    raise errors.UsageError(f'{directory} is no directory')
  if message := _foreign(statuses.pop(real)):
    raise errors.UsageError(
      f'{directory} {message}; remove it, or run: chmod go-w {directory}'
    )
  for path, status in statuses.items():
    # Users often have a group of their own. In a sticky directory, such as
    # /tmp, nobody can replace the directories of others.
    writers = 0 if status.st_mode & stat.S_ISVTX else stat.S_IWOTH
    if message := _foreign(status, writers):
      raise errors.UsageError(
        f'{directory} is not safe: {path}, above it, {message}'
      )


def read_own(path: pathlib.Path, max_bytes: int) -> bytes:
  """Reads a file that nobody else can have written.

  Args:
    path: the file; links are not followed.
    max_bytes: largest allowed size.

  Returns:
    Its content.

  Raises:
    errors.UsageError: as for `read_bytes`, or the file is a link, others own it
      or can write to it.
  """
  with open_regular(path, max_bytes, os.O_NOFOLLOW) as file:
    if message := _foreign(os.fstat(file.fileno())):
      raise errors.UsageError(f'{path} {message}')
    return file.read()


def _foreign(
  status: os.stat_result, writers: int = stat.S_IWGRP | stat.S_IWOTH
) -> str:
  """Returns how others control a file or directory; '' if they do not.

  Args:
    status: status of the file or directory.
    writers: bits of the mode that let others write.
  """
  if status.st_uid not in (0, os.geteuid()):
    return 'belongs to another user'
  if status.st_mode & writers:
    return 'can be written to by others'
  return ''


@contextlib.contextmanager
def naming(path: pathlib.Path) -> Iterator[None]:
  """Adds the path to an `OSError` that lacks it, as of a failed write."""
  try:
    yield
  except OSError as error:
    if error.errno:  # Without one, the text would no longer be shown.
      error.filename = error.filename or str(path)
    raise


def check_tree(directory: pathlib.Path) -> None:
  """Raises unless a directory holds nothing but regular files and directories.

  Whoever writes into a directory that somebody else has made would follow its
  links out of it, or wait for its pipes.

  Args:
    directory: the directory; it may itself be a link.

  Raises:
    errors.UsageError: something in it is a link, a pipe or a device.
  """
  for folder, folders, names in os.walk(directory):
    for name in (*folders, *names):
      path = os.path.join(folder, name)
      mode = os.lstat(path).st_mode
      if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        kind = 'a link' if stat.S_ISLNK(mode) else 'no regular file'
        raise errors.UsageError(
          f'{path} is {kind}; only a directory of regular files can be '
          'continued: remove it, or put a copy in its place'
        )


def read_bytes(path: pathlib.Path, max_bytes: int) -> bytes:
  """Reads a file.

  Args:
    path: the file.
    max_bytes: largest allowed size.

  Returns:
    Its content.

  Raises:
    errors.UsageError: the file cannot be read, is not a regular file, or is too
      large.
  """
  chunks, size = [], 0
  with open_regular(path, max_bytes) as file:
    try:
      # Reading `max_bytes` at once would allocate them.
      while size <= max_bytes and (chunk := file.read(_CHUNK_BYTES)):
        chunks.append(chunk)
        size += len(chunk)
    except OSError as error:
      raise errors.UsageError(
        f'{path} cannot be read: {error.strerror}'
      ) from error
  if size > max_bytes:  # Some files of the system report no size.
    raise _too_large(path, max_bytes)
  return b''.join(chunks)


def read_text(path: pathlib.Path, max_bytes: int) -> str:
  """Reads a text file in UTF-8, with or without a byte order mark.

  Args:
    path: the file.
    max_bytes: largest allowed size.

  Returns:
    The text.

  Raises:
    errors.UsageError: as for `read_bytes`, or the file is not UTF-8.
  """
  content = read_bytes(path, max_bytes)
  try:
    return content.decode('utf-8-sig')
  except UnicodeDecodeError as error:
    line = content[: error.start].count(b'\n') + 1
    raise errors.UsageError(
      f'{path}, line {line}: not valid UTF-8; save the file as UTF-8'
    ) from error


def read_json(path: pathlib.Path, max_bytes: int, advice: str = '') -> Any:
  """Reads a JSON file.

  Args:
    path: the file.
    max_bytes: largest allowed size.
    advice: what to do about a damaged file, the end of the error message.

  Returns:
    The value.

  Raises:
    errors.UsageError: as for `read_bytes`, or `parse_json` fails.
  """
  try:
    return parse_json(read_bytes(path, max_bytes))
  except errors.UsageError:
    raise
  except ValueError as error:
    raise errors.UsageError(
      f'{path} is damaged: {error}{advice and f"; {advice}"}'
    ) from error


def read_lines(
  path: pathlib.Path,
  max_bytes: int,
  parse: Callable[[bytes], T],
  advice: str,
) -> tuple[list[T], int | None]:
  """Reads the lines of a log, the last of which a kill may have cut off.

  Args:
    path: the file, which need not exist.
    max_bytes: largest allowed size.
    parse: function of a line; it raises a `TypeError` or a `ValueError` if the
      line is damaged.
    advice: what to do about a damaged line, the end of the error message.

  Returns:
    Results of `parse` on the complete lines, and the offset of the incomplete
    last line, or None if there is none.

  Raises:
    errors.UsageError: as for `read_bytes`, or a line is damaged.
  """
  content = read_bytes(path, max_bytes) if path.exists() else b''
  complete = content.rfind(b'\n') + 1
  results = []
  for number, line in enumerate(content[:complete].splitlines(), 1):
    try:
      results.append(parse(line))
    except (TypeError, ValueError) as error:
      raise errors.UsageError(
        f'{path}, line {number}, is damaged: {error}; {advice}'
      ) from error
  return results, complete if complete < len(content) else None


def parse_json(content: bytes) -> Any:
  """Parses JSON with finite numbers of 64 bits and texts that can be shown.

  Args:
    content: JSON value in UTF-8.

  Returns:
    The value.

  Raises:
    ValueError: the content is not JSON, is nested too deeply, or has a number
      that is too large or not finite, or a control character.
  """
  # Most values have none of these bytes, and the search takes longer.
  suspicious = any(byte in content for byte in (b'\\', b'\x7f', b'\xc2'))
  if suspicious and (control := _CONTROL.search(content)):
    raise ValueError(
      f'the JSON value has a control character ({control[1].decode()!r})'
    )
  try:
    # Of bytes, json would guess the encoding.
    return json.loads(
      content.decode('utf-8-sig'),
      parse_int=_int,
      parse_float=_float,
      parse_constant=_float,
    )
  except RecursionError as error:
    raise ValueError('the JSON value is nested too deeply') from error
  except UnicodeDecodeError as error:
    raise ValueError('the JSON value is not valid UTF-8') from error


def _too_large(path: pathlib.Path, max_bytes: int) -> errors.UsageError:
  return errors.UsageError(
    f'{path} is too large: at most {max_bytes:,} bytes are allowed'
  )


def _int(text: str) -> int:
  # Python refuses to convert thousands of digits, with advice for programmers.
  value = int(text) if len(text) < 30 else _MAX_INT
  if abs(value) >= _MAX_INT:
    raise ValueError(f'the number {_short(text)} is too large')
  return value


def _float(text: str) -> float:
  value = float(text)
  if not math.isfinite(value):
    raise ValueError(f'the number {_short(text)} is not finite')
  return value


def _short(text: str) -> str:
  return text if len(text) <= 20 else f'{text[:20]}... ({len(text)} digits)'
