import json
import signal
from typing import Any

from absl.testing import absltest
from absl.testing import parameterized
import jax.numpy as jnp
import numpy as np

from acme_cbo.infra import errors
from acme_cbo.training import callbacks
from acme_cbo.training import loggers
from acme_cbo.training import trainer as trainer_lib
from tests.training import toy


def _trainer(recorder, others=None, **kwargs):
  evaluation = callbacks.Evaluation(recorder.evaluate, 2)
  parts: dict[str, Any] = {
    'step': recorder.step,
    'num_updates': 3,
    'logger': recorder,
    'callbacks': (evaluation, *((recorder,) if others is None else others)),
  }
  return trainer_lib.Trainer(**{**parts, **kwargs})


def _evaluation(step):
  return [('evaluate', step), ('on_validation_end', step)]


def _update(step, *between):
  return [
    ('step', step - 1),
    *between,
    ('on_train_batch_end', step),
    ('write', step),
    ('on_after_log', step),
  ]


class OrderTest(parameterized.TestCase):
  def test_the_whole_order_of_a_fit(self):
    recorder = toy.Recorder()
    trainer = _trainer(recorder)
    state = trainer.fit(toy.init())
    self.assertEqual(
      recorder.calls,
      [
        ('on_fit_start', 0),
        *_update(1)[:-1],
        *_evaluation(0),
        ('write', 0),
        ('on_after_log', 1),
        *_update(2, *_evaluation(2)),
        *_update(3, *_evaluation(3)),
        ('on_fit_end', 3),
        ('close',),
      ],
    )
    self.assertEqual((int(state.step), trainer.updates), (3, 3))

  def test_an_evaluation_due_at_the_end_runs_once(self):
    recorder = toy.Recorder()
    _trainer(recorder, num_updates=4).fit(toy.init())
    evaluations = [call for call in recorder.calls if call[0] == 'evaluate']
    self.assertEqual(evaluations, [('evaluate', x) for x in (0, 2, 4)])

  def test_resumes_as_if_it_had_never_stopped(self):
    recorder = toy.Recorder()
    before = _trainer(recorder, num_updates=2)
    state = before.fit(toy.init())
    saved = json.loads(json.dumps(before.state_dict()))
    recorder.calls.clear()
    trainer = _trainer(recorder)
    trainer.load_state_dict(saved)
    trainer.fit(state)
    self.assertEqual(
      recorder.calls,
      [
        ('on_fit_start', 2),
        *_update(3, *_evaluation(3)),
        ('on_fit_end', 3),
        ('close',),
      ],
    )

  def test_a_callback_stops_it(self):
    class Stop(trainer_lib.Callback):
      def on_train_batch_end(self, trainer, state, metrics):
        trainer.stop('enough')
        trainer.stop('more than enough')

    recorder = toy.Recorder()
    trainer = _trainer(recorder, (Stop(), recorder))
    self.assertEqual(int(trainer.fit(toy.init()).step), 1)
    self.assertEqual(trainer.stop_reason, 'enough')
    # The final state is evaluated.
    self.assertEqual(
      recorder.calls[-5:],
      [
        ('on_after_log', 1),
        *_evaluation(1),
        ('write', 1),
        ('on_fit_end', 1),
        ('close',),
      ][-5:],
    )

  def test_a_stop_is_not_forgotten_by_a_restart(self):
    class Stop(trainer_lib.Callback):
      def on_train_batch_end(self, trainer, state, metrics):
        trainer.stop('enough')

    recorder = toy.Recorder()
    trainer = _trainer(recorder, (Stop(),))
    state = trainer.fit(toy.init())
    again = _trainer(recorder, (Stop(),))
    again.load_state_dict(json.loads(json.dumps(trainer.state_dict())))
    self.assertEqual(int(again.fit(state).step), 1)
    self.assertEqual(again.stop_reason, 'enough')

  def test_changes_nothing_if_it_cannot_resume(self):
    class Gone(toy.Recorder):
      def check_state_dict(self, state):
        raise errors.UsageError('it is gone')

      def load_state_dict(self, state):
        raise AssertionError('It was changed.')

    saved = _trainer(toy.Recorder()).state_dict()
    trainer = _trainer(toy.Recorder(), logger=Gone())
    with self.assertRaisesRegex(errors.UsageError, 'it is gone'):
      trainer.load_state_dict(saved)

  @parameterized.parameters(
    ({'logger': None, 'callbacks': {}, 'stop_reason': None}, 'Evaluation'),
    ({'callbacks': {}}, 'the logger'),
    ([], 'the logger'),
  )
  def test_a_state_of_another_form_is_refused(self, state, owner):
    trainer = _trainer(toy.Recorder(), logger=loggers.NoopLogger())
    with self.assertRaisesRegex(
      errors.UsageError, f'no state that .*{owner} can restore'
    ):
      trainer.load_state_dict(state)

  def test_a_signal_ends_it_after_the_update(self):
    recorder = toy.Recorder()
    trainer = _trainer(
      recorder,
      get_signal=lambda: signal.SIGTERM if trainer.updates == 2 else None,
    )
    with self.assertRaisesRegex(errors.Interrupted, 'SIGTERM after update 2'):
      trainer.fit(toy.init())
    self.assertEqual(
      recorder.calls[-3:], [('on_after_log', 2), ('on_exception',), ('close',)]
    )
    self.assertIsNotNone(trainer.state)

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
          'on_validation_end',
          'on_validation_end',
          'on_train_batch_end',
          'on_after_log',
          'on_fit_end',
        )
        for name in ('one', 'two')
      ],
    )

  def test_works_without_logger_and_callbacks(self):
    trainer = trainer_lib.Trainer(step=toy.update, num_updates=2)
    self.assertEqual(int(trainer.fit(toy.init()).step), 2)


class MetricsTest(parameterized.TestCase):
  def test_a_row_has_what_the_update_and_its_evaluation_gave(self):
    recorder = toy.Recorder()
    _trainer(recorder, num_updates=1).fit(toy.init())
    expected_state, expected = toy.update(toy.init())
    (at_0, before), (at_1, after) = recorder.metrics
    self.assertEqual((at_0, at_1), (0, 1))
    self.assertEqual(before, {'eval/score': 3.0})  # 0 + 1 + 2
    self.assertEqual(after['train/loss'], float(expected['train/loss']))
    self.assertIs(type(after['train/loss']), float)
    self.assertGreater(after.pop('perf/update_seconds'), 0)
    self.assertEqual(after.keys(), {'train/loss', 'eval/score'})
    self.assertEqual(
      after['eval/score'], toy.evaluate(expected_state)['eval/score']
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
    self.assertEqual([x for x, _ in recorder.metrics], [1, 0])
    self.assertLen(recorder.exceptions, 1)

  def test_names_every_metric_that_is_not_finite(self):
    recorder = toy.Recorder()

    recorder.evaluate = lambda state: {
      'eval/a': np.nan,
      'eval/b': 1.0,
      'eval/c': -np.inf,
    }
    with self.assertRaisesRegex(
      FloatingPointError, r'update 0 .*: eval/a = nan, eval/c = -inf\.$'
    ):
      _trainer(recorder).fit(toy.init())

  def test_a_metric_that_is_not_a_scalar_is_named(self):
    recorder = toy.Recorder()

    recorder.evaluate = lambda state: {
      'eval/fine': 1.0,
      'eval/vector': np.zeros(1),  # pyrefly: ignore[bad-assignment]
    }
    with self.assertRaisesRegex(ValueError, r"\{'eval/vector': \(1,\)\}"):
      _trainer(recorder).fit(toy.init())


class ExceptionTest(parameterized.TestCase):
  @parameterized.product(
    call=(
      'step',
      'evaluate',
      'write',
      'on_fit_start',
      'on_train_batch_end',
      'on_validation_end',
      'on_after_log',
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
    for witness in (*witnesses, recorder):
      self.assertLen(witness.exceptions, 1)
      self.assertIs(witness.exceptions[0], exception)
    self.assertEqual(recorder.calls.count(('close',)), 1)
    self.assertEqual(recorder.calls[-1], ('close',))

  def test_a_callback_that_raises_is_named(self):
    class Broken(trainer_lib.Callback):
      def on_validation_end(self, trainer, state, metrics):
        raise ValueError('broken')

    with self.assertRaisesRegex(ValueError, 'broken') as caught:
      _trainer(toy.Recorder(), (Broken(),)).fit(toy.init())
    self.assertEqual(
      errors.notes(caught.exception),
      ['raised by the callback Broken in on_validation_end'],
    )

  def test_a_metric_of_a_callback_that_is_not_finite_is_named(self):
    class Lost(trainer_lib.Callback):
      def on_train_batch_end(self, trainer, state, metrics):
        metrics['mine/lost'] = float('nan')

    with self.assertRaisesRegex(FloatingPointError, 'update 1 .*mine/lost'):
      _trainer(toy.Recorder(), (Lost(),)).fit(toy.init())

  @parameterized.parameters(ValueError, TypeError)
  def test_a_state_that_cannot_be_kept_is_named(self, exception):
    class Broken(trainer_lib.Callback):
      def state_dict(self):
        if exception is ValueError:
          raise ValueError('broken')
        return {'x': np.float32(1)}

    with self.assertRaises(exception) as caught:
      _trainer(toy.Recorder(), (Broken(),)).state_dict()
    self.assertEqual(
      errors.notes(caught.exception),
      ['raised by the callback Broken in state_dict'],
    )

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
    with self.assertRaisesRegex(ValueError, 'already has 4 updates.* is 3'):
      _trainer(recorder).fit(toy.init(step=4))
    self.assertEqual(recorder.calls, [('on_exception',), ('close',)])

  def test_a_negative_number_of_updates_is_refused(self):
    with self.assertRaisesRegex(ValueError, 'num_updates is -1'):
      _trainer(toy.Recorder(), num_updates=-1)


if __name__ == '__main__':
  absltest.main()
