import pathlib
import re
import sys
import tempfile
from typing import Any
from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized

from acme_cbo.infra import errors
from acme_cbo.training import callbacks
from acme_cbo.training import checkpoints
from acme_cbo.training import trainer as trainer_lib
from tests.training import toy


def _trainer(*others, **kwargs):
  parts: dict[str, Any] = {
    'step': toy.update,
    'num_updates': 5,
    'callbacks': (callbacks.Evaluation(toy.evaluate, 2), *others),
  }
  return trainer_lib.Trainer(**{**parts, **kwargs})


class CallbackTest(absltest.TestCase):
  def test_has_exactly_six_hooks_that_do_nothing(self):
    hooks = [name for name in vars(trainer_lib.Callback) if name[0] != '_']
    self.assertEqual(
      hooks,
      [
        'on_fit_start',
        'on_train_batch_end',
        'on_validation_end',
        'on_after_log',
        'on_fit_end',
        'on_exception',
        'state_dict',
        'load_state_dict',
      ],
    )
    _trainer(trainer_lib.Callback()).fit(toy.init())
    trainer_lib.Callback().on_exception(_trainer(), ValueError())


class Mine(trainer_lib.Callback):
  """A callback as a user would write it."""


class Every(trainer_lib.Callback):
  """A callback with arguments."""

  def __init__(self, every: int, name: str = 'x'):
    self.arguments = every, name


class LoadTest(parameterized.TestCase):
  def test_makes_them_by_name(self):
    one, two = callbacks.load((f'{__name__}:Mine', f'{__name__}:Mine'))
    self.assertIsInstance(one, Mine)
    self.assertIsNot(one, two)

  def test_arguments_are_passed_as_keywords(self):
    name = f'{__name__}:Every'
    one, two = callbacks.load(
      ((name, {'every': 5}), [name, {'name': 'y', 'every': 2}])
    )
    assert isinstance(one, Every) and isinstance(two, Every)
    self.assertEqual(one.arguments, (5, 'x'))
    self.assertEqual(two.arguments, (2, 'y'))

  @parameterized.parameters(
    (
      'Every',
      {},
      r"wrong arguments for Every\(.*\): missing a required argument: 'every'$",
    ),
    (
      'Every',
      {'evry': 2},
      r"the argument 'evry', which Every\(.*\) does not take; did you mean ev",
    ),
    ('Mine', {'every': 1}, r"'every', which Mine\(\) does not take$"),
  )
  def test_wrong_arguments_are_named(self, cls, arguments, sentence):
    with self.assertRaisesRegex(
      errors.UsageError, f"has '{__name__}:{cls}' with .*{sentence}"
    ):
      callbacks.load(((f'{__name__}:{cls}', arguments),))

  @parameterized.parameters(
    (
      'no_such_module:A',
      "cannot be imported: No module named 'no_such_module'",
    ),
    (f'{__name__}:Yours', 'cannot be imported: .*Yours'),
    ('pathlib:Path', 'is no subclass of acme_cbo.training.trainer.Callback'),
  )
  def test_what_it_cannot_make_is_named(self, name, sentence):
    with self.assertRaisesRegex(
      errors.UsageError, f"has '{name}', .*{sentence}"
    ):
      callbacks.load((name,))


class DocumentedTest(absltest.TestCase):
  def test_what_the_docs_show_works_as_it_stands(self):
    docs = pathlib.Path(__file__).parents[2] / 'docs/grpo_training_system.md'
    (code,) = re.findall(r'```python\n(.*?)```', docs.read_text(), re.DOTALL)
    root = self.enterContext(tempfile.TemporaryDirectory())
    (pathlib.Path(root) / 'my_callbacks.py').write_text(code)
    with mock.patch.object(sys, 'path', [root, *sys.path]):
      (own,) = callbacks.load(('my_callbacks:Entropy',))
    recorder = toy.Recorder()

    class Policy(trainer_lib.Callback):
      def on_train_batch_end(self, trainer, state, metrics):
        metrics |= {'policy/entropy_variable': 1.0, 'policy/entropy_cell': 0.5}

    _trainer(Policy(), own, logger=recorder, num_updates=1).fit(toy.init())
    self.assertEqual(recorder.metrics[-1][1]['policy/entropy'], 1.5)


class EvaluationTest(parameterized.TestCase):
  @parameterized.parameters((5, 4), (6, 4), (0, 1))
  def test_how_many_are_num_remaining(self, num_updates, expected):
    counts = []

    class Count(trainer_lib.Callback):
      def on_validation_end(self, trainer, state, metrics):
        counts.append(evaluation.num_remaining(trainer))

    evaluation = callbacks.Evaluation(toy.evaluate, 2)
    trainer = _trainer(num_updates=num_updates, callbacks=(evaluation, Count()))
    self.assertEqual(evaluation.num_remaining(trainer), expected)
    trainer.fit(toy.init())
    self.assertEqual(counts, list(reversed(range(expected))))

  def test_every_must_be_positive(self):
    with self.assertRaisesRegex(ValueError, 'every is 0'):
      callbacks.Evaluation(toy.evaluate, 0)


class CheckpointTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.directory = self.enterContext(tempfile.TemporaryDirectory())
    self.checkpointer = self.enterContext(
      checkpoints.Checkpointer(self.directory)
    )

  def _steps(self):
    return sorted(int(x.name) for x in pathlib.Path(self.directory).iterdir())

  def test_saves_every_so_many_updates_and_at_both_ends(self):
    callback = callbacks.Checkpoint(self.checkpointer, 3, {'run': 'a'})
    _trainer(callback).fit(toy.init())
    self.assertEqual(self._steps(), [0, 3, 5])
    _, metadata = self.checkpointer.restore(toy.init(), step=3)
    self.assertEqual((metadata['run'], metadata['step']), ('a', 3))
    self.assertIn('train/loss', metadata['metrics'])
    # The evaluation to resume from.
    self.assertEqual(
      metadata['trainer']['callbacks']['Evaluation 1'], {'latest': 2}
    )

  def test_saves_what_was_evaluated_with_its_score(self):
    callback = callbacks.Checkpoint(self.checkpointer, 9, {}, 'eval/score')
    state = _trainer(callback).fit(toy.init())
    self.assertEqual(self._steps(), [0, 2, 4, 5])
    _, metadata = self.checkpointer.restore(toy.init(), step=5)
    self.assertEqual(
      metadata['metrics']['eval/score'], toy.evaluate(state)['eval/score']
    )

  def test_does_not_save_the_last_update_twice(self):
    callback = callbacks.Checkpoint(self.checkpointer, 5, {})
    state = _trainer(callback).fit(toy.init())
    _trainer(callback).fit(state)
    self.assertEqual(self._steps(), [0, 5])

  @parameterized.parameters(
    (ValueError('broken'), [0]),
    (errors.Interrupted(15, 'after update 2'), [0, 2]),
  )
  def test_saves_after_an_interruption_and_no_other_exception(
    self, exception, steps
  ):
    class Raise(trainer_lib.Callback):
      def on_after_log(self, trainer, state, metrics):
        if trainer.updates == 2:
          raise exception

    callback = callbacks.Checkpoint(self.checkpointer, 9, {})
    with self.assertRaises(type(exception)):
      _trainer(Raise(), callback).fit(toy.init())
    self.assertEqual(self._steps(), steps)

  def test_every_must_be_positive(self):
    with self.assertRaisesRegex(ValueError, 'every is 0'):
      callbacks.Checkpoint(self.checkpointer, 0, {})


if __name__ == '__main__':
  absltest.main()
