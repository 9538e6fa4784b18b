import io
import json
import os
import pty
import re
import sys
import threading
import time
from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized

from acme_cbo.training import callbacks
from acme_cbo.training import progress
from acme_cbo.training import trainer as trainer_lib
from tests.training import toy

_METRICS = {'loss': 'train/loss', 'score': 'eval/score'}


def _trainer(
  stream,
  *others,
  metrics=None,
  evaluate=toy.evaluate,
  eval_every=2,
  clock=time.monotonic,
  step=toy.update,
  num_updates=5,
):
  evaluation = callbacks.Evaluation(evaluate, eval_every)
  bar = progress.Progress(
    metrics or _METRICS, evaluation, stream, every_seconds=10.0, clock=clock
  )
  return trainer_lib.Trainer(
    step=step, num_updates=num_updates, callbacks=(bar, evaluation, *others)
  )


class Simulation:
  """Run with a simulated clock; the first call of a kind also compiles."""

  def __init__(self, *, update, evaluation, compilation):
    self.now = 1000.0
    self._update = update
    self._evaluation = evaluation
    self._compilation = compilation
    self._first = {'update': True, 'evaluation': True}

  def _spend(self, what, seconds):
    self.now += seconds + self._compilation * self._first[what]
    self._first[what] = False

  def step(self, state):
    self._spend('update', self._update)
    return state._replace(step=state.step + 1), {'train/loss': 0.125}

  def evaluate(self, state):
    self._spend('evaluation', self._evaluation)
    return {'eval/score': 0.5}

  def fit(self, stream, num_updates=5, eval_every=2):
    _trainer(
      stream,
      evaluate=self.evaluate,
      eval_every=eval_every,
      clock=lambda: self.now,
      step=self.step,
      num_updates=num_updates,
    ).fit(toy.init())


class PlainProgressTest(parameterized.TestCase):
  def test_lines(self):
    # 7 updates of 6 s, evaluations of 3 s after 1, 4 and 7, each compiled in
    # 60 s: starts at 0; update at 66, evaluated at 129, updates at 135, 141 and
    # 147, evaluated at 150, updates at 156, 162, 168, evaluated at 171.
    stream = io.StringIO()
    Simulation(update=6.0, evaluation=3.0, compilation=60.0).fit(
      stream, num_updates=7, eval_every=4
    )
    rates = 'loss 0.125  score 0.5  0.167 updates/s'
    self.assertEqual(
      stream.getvalue().splitlines(),
      [
        '0%  0/7  starting …',
        '14%  1/7  ETA unknown  loss 0.125',
        '14%  1/7  ETA unknown  loss 0.125  score 0.5',
        # 12 s after the line before: 4 × 6 s and two evaluations, of which the
        # only one so far took 63 s.
        f'43%  3/7  ETA < 0:02:30  {rates}',
        f'57%  4/7  ETA 0:00:21  {rates}',  # 3 × 6 s + 3 s
        f'86%  6/7  ETA 0:00:09  {rates}',  # 6 s + 3 s
        f'100%  7/7  ETA 0:00:00  {rates}',
        f'100%  7/7  done in 0:02:51  {rates}',
      ],
    )
    self.assertNotIn('\r', stream.getvalue())
    self.assertNotIn('\x1b', stream.getvalue())

  def test_the_rate_is_that_of_the_latest_updates(self):
    # 100 updates that take 1 s, then 100 that take 4 s: the latest 50 count.
    simulation = Simulation(update=1.0, evaluation=0.0, compilation=0.0)
    inner = simulation.step

    def step(state):
      simulation._update = 1.0 if int(state.step) < 100 else 4.0
      return inner(state)

    simulation.step = step
    stream = io.StringIO()
    simulation.fit(stream, num_updates=200, eval_every=10)
    lines = {line.split()[1]: line for line in stream.getvalue().splitlines()}
    shown = 'loss 0.125  score 0.5'
    self.assertIn(f'ETA 0:01:40  {shown}  1 updates/s', lines['100/200'])
    self.assertIn(f'ETA 0:03:20  {shown}  0.25 updates/s', lines['150/200'])

  @parameterized.parameters(0, 1)
  def test_shortest_runs(self, num_updates):
    stream = io.StringIO()
    Simulation(update=6.0, evaluation=3.0, compilation=0.0).fit(
      stream, num_updates=num_updates
    )
    self.assertIn('done in', stream.getvalue().splitlines()[-1])

  def test_a_stream_that_claims_to_be_dumb_gets_lines(self):
    stream = io.StringIO()
    stream.isatty = lambda: True  # pyrefly: ignore[bad-assignment]
    with mock.patch.dict(os.environ, {'TERM': 'dumb'}):
      Simulation(update=6.0, evaluation=3.0, compilation=0.0).fit(stream)
    self.assertNotIn('\x1b', stream.getvalue())
    self.assertIn('ETA unknown', stream.getvalue().splitlines()[1])

  def test_environment_cannot_make_a_file_a_terminal(self):
    stream = io.StringIO()
    with mock.patch.dict(os.environ, {'FORCE_COLOR': '1'}):
      Simulation(update=6.0, evaluation=3.0, compilation=0.0).fit(stream)
    self.assertNotIn('\x1b', stream.getvalue())

  def test_a_tag_that_the_run_does_not_have_is_an_error_at_once(self):
    trainer = _trainer(io.StringIO(), metrics={'reward': 'reward/totl'})
    with self.assertRaisesRegex(
      ValueError, r"\['reward/totl'\].*'eval/score', .*'train/loss'"
    ):
      trainer.fit(toy.init())

  def test_a_resumed_run_shows_the_saved_values(self):
    first = _trainer(io.StringIO(), num_updates=2)
    state = first.fit(toy.init())
    stream = io.StringIO()
    trainer = _trainer(stream)
    trainer.load_state_dict(json.loads(json.dumps(first.state_dict())))
    trainer.fit(state)
    lines = stream.getvalue().splitlines()
    self.assertStartsWith(lines[0], '40%  2/5  starting')
    self.assertRegex(lines[0], r'loss \S+  score \S+$')


class Terminal:
  """A real pseudo-terminal; `text` is all that was written to it."""

  def __enter__(self):
    self._master, slave = pty.openpty()
    self.stream = os.fdopen(slave, 'w', encoding='utf-8')
    self._bytes = b''
    self._reader = threading.Thread(target=self._read)
    self._reader.start()
    return self

  def _read(self):
    while not self._bytes.endswith(b'\x04'):
      self._bytes += os.read(self._master, 4096)

  def __exit__(self, *unused):
    self.stream.write('\x04')
    self.stream.close()
    self._reader.join()
    os.close(self._master)
    self.text = self._bytes[:-1].decode()


def _screen(written):
  """Returns the lines that a terminal shows after all that was written."""
  lines, row = [''], 0
  for token in re.findall(
    r'\x1b\[[?0-9;]*[A-Za-z]|\r|\n|[^\x1b\r\n]+', written
  ):
    if token == '\n':
      row += 1
      lines += [''] * (row == len(lines))
    elif token == '\x1b[2K':
      lines[row] = ''
    elif token == '\x1b[1A':
      row -= 1
    elif token[0] not in '\r\x1b':  # Colours and the cursor leave no trace.
      lines[row] += token
  return lines


@mock.patch.dict(os.environ, {'TERM': 'xterm', 'COLUMNS': '80'})
class TerminalProgressTest(absltest.TestCase):
  def test_draws_a_bar_in_place(self):
    with Terminal() as terminal:
      Simulation(update=6.0, evaluation=3.0, compilation=60.0).fit(
        terminal.stream
      )
    frames = [
      _screen(terminal.text[: match.end()])
      for match in re.finditer('\x1b\\[1A|$', terminal.text)
    ]
    # 5 updates and evaluations after 0, 2, 4 and 5: see PlainProgressTest.
    heads = [re.sub('[╸╺━]+', '━', frame[0]) for frame in frames]
    self.assertEqual(
      list(dict.fromkeys(heads)),
      [
        '━ 0%  0/5  starting …',
        '━ 20%  1/5  ETA unknown',
        '━ 40%  2/5  ETA < 0:03:27',  # 3 × 6 s + 3 × 63 s
        '━ 40%  2/5  ETA 0:00:24',  # 3 × 6 s + 2 × 3 s
        '━ 60%  3/5  ETA 0:00:18',
        '━ 80%  4/5  ETA 0:00:12',
        '━ 80%  4/5  ETA 0:00:09',
        '━ 100%  5/5  ETA 0:00:03',
        '━ 100%  5/5  ETA 0:00:00',
        '━ 100%  5/5  done in 0:02:42',
      ],
    )
    for frame in frames:
      self.assertLessEqual(len(frame), 3)  # Two lines, and the cursor's below.
      self.assertLessEqual(max(map(len, frame)), 80)
    self.assertEqual(
      frames[-1][1:],
      ['loss 0.125  score 0.5  0.167 updates/s', ''],
    )
    self.assertLess(
      terminal.text.index('\x1b[?25l'), terminal.text.index('\x1b[?25h')
    )

  def test_redraws_at_most_ten_times_a_second(self):
    with Terminal() as terminal:
      Simulation(update=0.001, evaluation=0.0, compilation=1.0).fit(
        terminal.stream, num_updates=1001, eval_every=2000
      )
    # 1000 updates take 1 s; evaluations, start and end draw too.
    self.assertBetween(terminal.text.count('\x1b[1A'), 5, 20)

  def test_an_exception_gives_the_terminal_back(self):
    with (
      Terminal() as terminal,
      Terminal() as other,
      mock.patch.object(sys, 'stdout', other.stream),
    ):
      recorder = toy.Recorder(
        failures={'on_train_batch_end': ValueError('broken')}
      )
      trainer = _trainer(terminal.stream, recorder)
      with self.assertRaisesRegex(ValueError, 'broken'):
        trainer.fit(toy.init())
      self.assertIs(sys.stdout, other.stream)
    self.assertTrue(terminal.text.endswith('\r\n\x1b[?25h'))

  def test_prints_go_above_the_bar(self):
    class Print(trainer_lib.Callback):
      def on_train_batch_end(self, trainer, state, metrics):
        print(f'hello {int(state.step)}')

    with (
      Terminal() as terminal,
      mock.patch.object(sys, 'stdout', terminal.stream),
    ):
      _trainer(terminal.stream, Print()).fit(toy.init())
    lines = _screen(terminal.text)
    self.assertEqual(lines[:5], [f'hello {step}' for step in range(1, 6)])
    self.assertRegex(lines[5], '^━+ 100%  5/5  done in')
    self.assertLen(lines, 8)

  def test_prints_to_a_pipe_stay_out_of_the_terminal(self):
    class Print(trainer_lib.Callback):
      def on_train_batch_end(self, trainer, state, metrics):
        print('hello')

    pipe = io.StringIO()
    with Terminal() as terminal, mock.patch.object(sys, 'stdout', pipe):
      _trainer(terminal.stream, Print()).fit(toy.init())
    self.assertEqual(pipe.getvalue(), 'hello\n' * 5)
    self.assertNotIn('hello', terminal.text)


if __name__ == '__main__':
  absltest.main()
