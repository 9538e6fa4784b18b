import dataclasses
import types
from typing import Any
from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized
import jax.numpy as jnp
import numpy as np

from acme_cbo.training import trainer as trainer_lib
from tests.training import toy


def _trainer(recorder, callbacks=None, **kwargs):
  parts: dict[str, Any] = {
    'step': recorder.step,
    'evaluate': recorder.evaluate,
    'num_updates': 3,
    'eval_every': 2,
    'interventions_per_update': 10,
    'logger': recorder,
    'callbacks': (recorder,) if callbacks is None else callbacks,
  }
  return trainer_lib.Trainer(**{**parts, **kwargs})


def _evaluation(step):
  return [('evaluate', step), ('write', step), ('on_eval_end', step)]


def _update(step):
  return [('step', step - 1), ('write', step), ('on_step_end', step)]


class OrderTest(parameterized.TestCase):
  def test_the_whole_order_of_a_fit(self):
    recorder = toy.Recorder()
    state = _trainer(recorder).fit(toy.init())
    self.assertEqual(
      recorder.calls,
      [
        ('on_fit_start', 0),
        *_evaluation(0),
        *_update(1),
        *_update(2),
        *_evaluation(2),
        *_update(3),
        *_evaluation(3),
        ('on_fit_end', 3),
        ('close',),
      ],
    )
    self.assertEqual(int(state.step), 3)

  def test_an_evaluation_that_is_due_at_the_end_happens_once(self):
    recorder = toy.Recorder()
    _trainer(recorder, num_updates=4).fit(toy.init())
    evaluations = [call for call in recorder.calls if call[0] == 'evaluate']
    self.assertEqual(evaluations, [('evaluate', x) for x in (0, 2, 4)])

  def test_begins_at_the_step_of_the_state(self):
    recorder = toy.Recorder()
    _trainer(recorder).fit(toy.init(step=2))
    self.assertEqual(
      recorder.calls,
      [
        ('on_fit_start', 2),
        *_evaluation(2),
        *_update(3),
        *_evaluation(3),
        ('on_fit_end', 3),
        ('close',),
      ],
    )

  def test_a_finished_state_is_evaluated_and_not_updated(self):
    recorder = toy.Recorder()
    _trainer(recorder).fit(toy.init(step=3))
    self.assertEqual(
      recorder.calls,
      [('on_fit_start', 3), *_evaluation(3), ('on_fit_end', 3), ('close',)],
    )

  def test_callbacks_are_called_in_their_order(self):
    recorder = toy.Recorder()
    one = toy.Recorder(recorder.calls, 'one.')
    two = toy.Recorder(recorder.calls, 'two.')
    _trainer(recorder, (one, two), num_updates=1).fit(toy.init())
    hooks = [call[0] for call in recorder.calls if 'on_' in call[0]]
    self.assertEqual(
      hooks,
      [
        f'{name}.{hook}'
        for hook in (
          'on_fit_start',
          'on_eval_end',
          'on_step_end',
          'on_eval_end',
          'on_fit_end',
        )
        for name in ('one', 'two')
      ],
    )

  def test_works_without_logger_and_callbacks(self):
    trainer = trainer_lib.Trainer(
      step=toy.update,
      evaluate=toy.evaluate,
      num_updates=2,
      eval_every=5,
      interventions_per_update=1,
    )
    self.assertEqual(int(trainer.fit(toy.init()).step), 2)


class MetricsTest(parameterized.TestCase):
  def test_values_are_those_of_the_update_and_of_the_evaluation(self):
    recorder = toy.Recorder()
    _trainer(recorder, num_updates=1).fit(toy.init())
    expected_state, expected = toy.update(toy.init())
    (at_0, before), (at_1, update), (at_1_again, after) = recorder.metrics
    self.assertEqual((at_0, at_1, at_1_again), (0, 1, 1))
    self.assertEqual(before, {'eval/score': 3.0})  # 0 + 1 + 2
    self.assertEqual(update['train/loss'], float(expected['train/loss']))
    self.assertIs(type(update['train/loss']), float)
    self.assertEqual(after, toy.evaluate(expected_state))

  @parameterized.parameters(0, 7)
  def test_rates_leave_out_compilation_and_evaluation(self, start):
    # By a clock of our own: the first update takes 100 s and the later ones
    # 1/4 s, all of which passes while the metrics are on their way to the host;
    # an evaluation takes 50 s.
    now = [0.0]

    class Late:
      """A scalar that arrives late, as after an asynchronous dispatch."""

      def __init__(self, seconds):
        self._seconds = seconds

      def __array__(self, dtype=None, copy=None):
        now[0] += self._seconds
        return np.float32(1).reshape(())

    def step(state):
      late = Late(100.0 if int(state.step) == start else 0.25)
      return state._replace(step=state.step + 1), {'train/loss': late}

    def evaluate(state):
      now[0] += 50.0
      return {'eval/score': 0.0}

    recorder = toy.Recorder()
    trainer = _trainer(
      recorder, step=step, evaluate=evaluate, num_updates=start + 4
    )
    clock = types.SimpleNamespace(perf_counter=lambda: now[0])
    with mock.patch.object(trainer_lib, 'time', clock):
      trainer.fit(toy.init(start))
    perf = [
      (
        x - start,
        {tag: y for tag, y in metrics.items() if tag.startswith('perf/')},
      )
      for x, metrics in recorder.metrics
      if 'train/loss' in metrics
    ]
    rates = {
      'perf/updates_per_second': 4.0,
      'perf/interventions_per_second': 40.0,
    }
    self.assertEqual(
      perf,
      [
        (1, {'perf/compile_seconds': 100.0}),
        (2, rates),
        (3, rates),
        (4, rates),
      ],
    )

  @parameterized.parameters(np.nan, np.inf, -np.inf)
  def test_an_update_that_is_not_finite_raises_and_is_not_logged(self, value):
    recorder = toy.Recorder()

    def step(state):
      state, metrics = toy.update(state)
      if int(state.step) == 2:
        metrics = {**metrics, 'reward/total': jnp.float32(value)}
      return state, metrics

    with self.assertRaisesRegex(
      FloatingPointError, rf'update 2 .*reward/total = {value}\.$'
    ):
      _trainer(recorder, step=step).fit(toy.init())
    self.assertEqual([x for x, _ in recorder.metrics], [0, 1])
    self.assertLen(recorder.exceptions, 1)

  def test_every_metric_that_is_not_finite_is_named(self):
    recorder = toy.Recorder()

    def evaluate(state):
      return {'eval/a': np.nan, 'eval/b': 1.0, 'eval/c': -np.inf}

    with self.assertRaisesRegex(
      FloatingPointError, r'update 0 .*: eval/a = nan, eval/c = -inf\.$'
    ):
      _trainer(recorder, evaluate=evaluate).fit(toy.init())

  def test_a_metric_that_is_not_a_scalar_is_named(self):
    recorder = toy.Recorder()

    def evaluate(state):
      return {'eval/fine': 1.0, 'eval/vector': np.zeros(1)}

    with self.assertRaisesRegex(ValueError, r"\{'eval/vector': \(1,\)\}"):
      _trainer(recorder, evaluate=evaluate).fit(toy.init())


class ExceptionTest(parameterized.TestCase):
  @parameterized.product(
    call=(
      'step',
      'evaluate',
      'write',
      'on_fit_start',
      'on_step_end',
      'on_eval_end',
      'on_fit_end',
    ),
    exception=(RuntimeError('broken'), KeyboardInterrupt()),
  )
  def test_reaches_every_callback_and_propagates_unchanged(
    self, call, exception
  ):
    recorder = toy.Recorder(failures={call: exception})
    witnesses = toy.Recorder(), toy.Recorder()
    trainer = _trainer(recorder, (witnesses[0], recorder, witnesses[1]))
    with self.assertRaises(type(exception)) as caught:
      trainer.fit(toy.init())
    self.assertIs(caught.exception, exception)
    self.assertFalse(getattr(exception, '__notes__', []))
    for witness in (*witnesses, recorder):
      self.assertLen(witness.exceptions, 1)
      self.assertIs(witness.exceptions[0], exception)
    self.assertEqual(recorder.calls.count(('close',)), 1)
    self.assertEqual(recorder.calls[-1], ('close',))

  def test_a_failing_clean_up_hides_nothing(self):
    first = RuntimeError('first')
    recorder = toy.Recorder(
      failures={
        'step': first,
        'on_exception': ValueError('second'),
        'close': OSError('third'),
      }
    )
    witness = toy.Recorder()
    with self.assertRaises(RuntimeError) as caught:
      _trainer(recorder, (recorder, witness)).fit(toy.init())
    self.assertIs(caught.exception, first)
    self.assertLen(witness.exceptions, 1)
    second, third = first.__notes__
    self.assertIn("ValueError('second')", second)
    self.assertIn("OSError('third')", third)

  def test_a_logger_that_fails_to_close_raises(self):
    recorder = toy.Recorder(failures={'close': OSError('disk full')})
    with self.assertRaisesRegex(OSError, 'disk full'):
      _trainer(recorder).fit(toy.init())

  def test_a_step_that_does_not_count_raises(self):
    recorder = toy.Recorder()

    def step(state):
      return state, {'train/loss': 0.0}

    with self.assertRaisesRegex(ValueError, 'After update 1 .* is 0'):
      _trainer(recorder, step=step).fit(toy.init())

  def test_a_state_beyond_the_end_raises(self):
    recorder = toy.Recorder()
    with self.assertRaisesRegex(ValueError, '4 updates already.* is 3'):
      _trainer(recorder).fit(toy.init(step=4))
    self.assertEqual(recorder.calls, [('on_exception',), ('close',)])

  @parameterized.parameters(
    ('num_updates', -1), ('eval_every', 0), ('interventions_per_update', 0)
  )
  def test_numbers_that_make_no_sense_are_refused(self, name, value):
    with self.assertRaisesRegex(ValueError, f'{name} is {value}'):
      _trainer(toy.Recorder(), **{name: value})

  def test_is_frozen(self):
    trainer = _trainer(toy.Recorder())
    with self.assertRaises(dataclasses.FrozenInstanceError):
      trainer.num_updates = 5  # pyrefly: ignore[read-only]


if __name__ == '__main__':
  absltest.main()
