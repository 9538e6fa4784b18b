"""Tests of the progress of jobs, on a terminal and elsewhere."""

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


class ProgressTableTest(absltest.TestCase):
  def test_prints_changes(self):
    stream = io.StringIO()
    table = sweep_progress.ProgressTable(stream, _ROWS)
    table.show(_ROWS)
    self.assertEmpty(stream.getvalue())
    changed = [
      _ROWS[0],
      sweep_progress.Row('b', sweep_progress.FAILED, 'no memory'),
      sweep_progress.Row('c', sweep_progress.RUNNING, ''),
    ]
    table.show(changed)
    table.show(changed)
    table.close()
    counts = '(1 finished, 1 failed, 1 running; 0:00:00)'
    self.assertEqual(
      stream.getvalue(),
      f'b: failed, no memory  {counts}\nc: running  {counts}\n',
    )

  def test_prints_running_jobs_periodically(self):
    stream = io.StringIO()
    with mock.patch('time.monotonic') as clock:
      clock.return_value = 0.0
      table = sweep_progress.ProgressTable(stream, _ROWS)
      for seconds in (20, 40, 60, 80):
        clock.return_value = seconds
        table.show(_ROWS)
    self.assertEqual(stream.getvalue(), 'b: 10%\nb: 10%\n')

  @mock.patch.dict(os.environ, {'TERM': 'xterm', 'COLUMNS': '60'})
  def test_a_table_on_a_terminal(self):
    stream = _Terminal()
    table = sweep_progress.ProgressTable(stream, _ROWS)
    table.show(_ROWS)
    table.close()
    lines = stream.getvalue().splitlines()
    first = next(i for i, line in enumerate(lines) if 'running' in line)
    # Running jobs come first: rows that do not fit are cut off below.
    for line, words in zip(
      lines[first : first + 4],
      (
        ('b', 'running', '10%'),
        ('a', 'finished', 'score 0.5'),
        ('c', 'waiting'),
        ('1 finished, 1 running, 1 waiting; 0:00:00',),
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
