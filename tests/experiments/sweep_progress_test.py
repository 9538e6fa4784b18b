"""What is shown of jobs, on a terminal and elsewhere."""

import io
import os
import pathlib
import tempfile
from unittest import mock

from absl.testing import absltest

from acme_cbo.experiments import sweep_progress

_ROWS = [
  sweep_progress.Row('a', sweep_progress.FINISHED, 'score 0.5'),
  sweep_progress.Row('b', sweep_progress.RUNNING, '10%'),
  sweep_progress.Row('c', sweep_progress.WAITING, ''),
]


class _Terminal(io.StringIO):
  def isatty(self):
    return True


class BoardTest(absltest.TestCase):
  def test_lines_tell_what_changes(self):
    stream = io.StringIO()
    shown = sweep_progress.ProgressTable(stream, _ROWS)
    shown.show(_ROWS)
    self.assertEmpty(stream.getvalue())
    changed = [
      _ROWS[0],
      sweep_progress.Row('b', sweep_progress.FAILED, 'no memory'),
      sweep_progress.Row('c', sweep_progress.RUNNING, ''),
    ]
    shown.show(changed)
    shown.show(changed)
    shown.close()
    counts = '(1 finished, 1 failed, 1 at work; 0:00:00)'
    self.assertEqual(
      stream.getvalue(),
      f'b: failed, no memory  {counts}\nc: at work  {counts}\n',
    )

  def test_lines_tell_now_and_then_what_is_at_work(self):
    stream = io.StringIO()
    with mock.patch('time.monotonic') as clock:
      clock.return_value = 0.0
      shown = sweep_progress.ProgressTable(stream, _ROWS)
      for seconds in (20, 40, 60, 80):
        clock.return_value = seconds
        shown.show(_ROWS)
    self.assertEqual(stream.getvalue(), 'b: 10%\nb: 10%\n')

  @mock.patch.dict(os.environ, {'TERM': 'xterm', 'COLUMNS': '60'})
  def test_a_table_on_a_terminal(self):
    stream = _Terminal()
    shown = sweep_progress.ProgressTable(stream, _ROWS)
    shown.show(_ROWS)
    shown.close()
    lines = stream.getvalue().splitlines()
    first = next(i for i, line in enumerate(lines) if 'at work' in line)
    # Who is at work stands above: what does not fit is cut off below.
    for line, words in zip(
      lines[first : first + 4],
      (
        ('b', 'at work', '10%'),
        ('a', 'finished', 'score 0.5'),
        ('c', 'waiting'),
        ('1 finished, 1 at work, 1 waiting; 0:00:00',),
      ),
      strict=True,
    ):
      for word in words:
        self.assertIn(word, line)

  def test_the_last_line_of_a_log(self):
    with tempfile.TemporaryDirectory() as directory:
      log = pathlib.Path(directory) / 'log'
      self.assertEqual(sweep_progress.last_line(log), '')
      log.write_text('')
      self.assertEqual(sweep_progress.last_line(log), '')
      log.write_bytes(b'x' * 9999 + b'\nsecond\n  \xff last \n\n')
      self.assertEqual(sweep_progress.last_line(log), '\ufffd last')


if __name__ == '__main__':
  absltest.main()
