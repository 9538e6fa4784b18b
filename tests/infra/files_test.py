"""Tests of the reader of files that others have written."""

import os
import pathlib
import socket
import tempfile
from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized

from acme_cbo.infra import errors
from acme_cbo.infra import files


class FilesTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    root = self.enterContext(tempfile.TemporaryDirectory())
    self._folder = pathlib.Path(root)

  def _write(self, content):
    path = self._folder / 'file'
    path.write_bytes(content)
    return path

  def test_reads_the_whole_file_up_to_the_limit(self):
    path = self._write(b'12345')
    self.assertEqual(files.read_bytes(path, 5), b'12345')
    with self.assertRaisesRegex(
      errors.UsageError, r'file is too large: at most 4 bytes are allowed'
    ):
      files.read_bytes(path, 4)

  def test_a_file_of_the_system_without_a_size_is_limited_too(self):
    with self.assertRaisesRegex(errors.UsageError, 'too large: at most 3 b'):
      files.read_bytes(pathlib.Path('/proc/self/status'), 3)

  def test_takes_only_regular_files_and_does_not_wait(self):
    pipe = self._folder / 'pipe'
    os.mkfifo(pipe)
    loop = self._folder / 'loop'
    loop.symlink_to(loop)
    address = self._folder / 'socket'
    with socket.socket(socket.AF_UNIX) as server:
      server.bind(str(address))
      for path, reason in (
        (pipe, 'it is a pipe; name a regular file'),
        (self._folder, 'it is a directory; name a regular file'),
        (pathlib.Path('/dev/zero'), 'it is a device; name a regular file'),
        (loop, 'Too many levels of symbolic links'),
        (address, 'No such device or address'),
        (self._folder / 'none', 'No such file or directory'),
      ):
        with (
          self.subTest(path.name),
          self.assertRaisesRegex(
            errors.UsageError, f'{path} cannot be read: {reason}'
          ),
        ):
          files.read_bytes(path, 10)
    with self.assertRaisesRegex(errors.UsageError, r"'a\\x00b' is not a valid"):
      files.read_bytes(pathlib.Path('a\0b'), 10)

  def test_a_link_to_a_regular_file_is_read(self):
    link = self._folder / 'link'
    link.symlink_to(self._write(b'1'))
    self.assertEqual(files.read_bytes(link, 10), b'1')

  def test_a_tree_of_regular_files(self):
    (self._folder / 'a' / 'b').mkdir(parents=True)
    (self._folder / 'a' / 'b' / 'c').write_text('x')
    files.check_tree(self._folder)
    files.check_tree(self._folder / 'none')
    link = self._folder.parent / f'{self._folder.name}.link'
    link.symlink_to(self._folder)
    self.addCleanup(link.unlink)
    files.check_tree(link)

  @parameterized.parameters(
    (lambda path: path.symlink_to('/tmp'), 'a link'),
    (lambda path: path.symlink_to('nowhere'), 'a link'),
    (os.mkfifo, 'no regular file'),
  )
  def test_a_tree_with_something_else(self, make, kind):
    (self._folder / 'a').mkdir()
    path = self._folder / 'a' / 'odd'
    make(path)
    with self.assertRaisesRegex(errors.UsageError, f'{path} is {kind}; only'):
      files.check_tree(self._folder)

  def test_a_limit_is_not_allocated(self):
    self.assertEqual(files.read_bytes(self._write(b'a'), 2**50), b'a')

  def test_files_longer_than_a_chunk(self):
    path = self._write(b'abcde')
    with mock.patch.object(files, '_CHUNK_BYTES', 2):
      self.assertEqual(files.read_bytes(path, 5), b'abcde')

  def test_text_is_utf8_with_or_without_a_byte_order_mark(self):
    self.assertEqual(files.read_text(self._write(b'\xef\xbb\xbfa'), 9), 'a')
    with self.assertRaisesRegex(errors.UsageError, 'line 2: not valid UTF-8'):
      files.read_text(self._write(b'a\n\xff'), 9)

  def test_json(self):
    path = self._write(rb'{"a": [1, -2.5, true, null, "NaN", "\ud83d\ude00"]}')
    self.assertEqual(
      files.read_json(path, 100),
      {'a': [1, -2.5, True, None, 'NaN', '\N{GRINNING FACE}']},
    )

  @parameterized.parameters(
    (b'[' * 10**5, 'nested too deeply'),
    (b'1' + b'0' * 400, r'the number 1(0){19}\.\.\. \(401 digits\) is too lar'),
    (b'1' + b'0' * 10**4, r'\(10001 digits\) is too large'),
    (b'-18446744073709551616', 'is too large'),
    (b'[1e999]', 'the number 1e999 is not finite'),
    (b'NaN', 'the number NaN is not finite'),
    (b'-Infinity', 'the number -Infinity is not finite'),
    (b'"\xff"', 'not valid UTF-8'),
    ('{"a": 1}'.encode('utf-16'), 'not valid UTF-8'),
    (b'{"a": ', 'Expecting value'),
    (b'', 'Expecting value'),
  )
  def test_json_that_is_damaged(self, content, reason):
    path = self._write(content)
    with self.assertRaisesRegex(
      errors.UsageError, f'{path} is damaged: .*{reason}.*; remove it$'
    ):
      files.read_json(path, 10**6, 'remove it')


if __name__ == '__main__':
  absltest.main()
