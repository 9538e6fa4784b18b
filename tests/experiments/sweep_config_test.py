"""Tests of the config of a sweep and of its trainings."""

import json
import pathlib
import tempfile
from typing import Any

from absl.testing import absltest
from absl.testing import parameterized

from acme_cbo.experiments import sweep_config
from acme_cbo.infra import errors
from configs import grpo
from configs import workflow


class TrainingsTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.root = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
    self.config = grpo.get_config('smoke').to_dict()

  def _trainings(self, *names, seeds=(0, 1)):
    configurations = dict.fromkeys(names, self.config)
    return sweep_config.make_trainings(configurations, seeds, self.root)

  def test_all_configurations_of_a_seed_before_the_next(self):
    trainings = self._trainings('a', 'b')
    self.assertEqual(
      [one.name for one in trainings],
      ['a, seed 0', 'b, seed 0', 'a, seed 1', 'b, seed 1'],
    )
    self.assertEqual(
      trainings[3].config, self.config | {'name': 'b', 'seed': 1}
    )
    self.assertEqual(trainings[3].directory, self.root / 'b-seed1')
    self.assertFalse(trainings[3].is_started())

  def test_how_a_training_stands(self):
    (one,) = self._trainings('a', seeds=(0,))
    one.directory.mkdir()
    (one.directory / 'config.json').write_text(json.dumps(one.config))
    self.assertTrue(one.is_started())
    self.assertEqual(one.summary()['status'], 'killed')
    for status in ('interrupted', 'failed', 'diverged', 'finished'):
      summary = {'status': status, 'updates': 3}
      (one.directory / 'summary.json').write_text(json.dumps(summary))
      self.assertEqual(one.is_finished(), status == 'finished')

  def test_a_directory_of_another_training_is_refused(self):
    (one,) = self._trainings('a', seeds=(0,))
    one.directory.mkdir()
    (one.directory / 'config.json').write_text(json.dumps(one.config))
    self._trainings('a', 'b')  # More configurations are not another sweep.
    self.config['optimizer']['learning_rate'] = 1.0
    with self.assertRaisesRegex(
      errors.UsageError,
      r'a-seed0 has a run .*learning_rate: 0.006 -> 1.0; choose',
    ):
      self._trainings('a', 'b')

  @parameterized.parameters(
    (('a/b',), (0,), "a/b: config.name is 'a/b'"),
    (('a',), (), 'config.seeds is empty'),
    (('a',), (1, 1), 'config.seeds is 1, 1; give one or more'),
    (('a',), (-1,), 'a: .*config.seed'),
  )
  def test_refuses(self, names, seeds, sentence):
    with self.assertRaisesRegex(errors.UsageError, sentence):
      self._trainings(*names, seeds=seeds)


class CheckTest(parameterized.TestCase):
  @parameterized.parameters(
    (('seeds',), None, 'config lacks the field seeds of a sweep'),
    (('seeds',), 3, 'config.seeds is 3; see configs/workflow.py'),
    (('seeds',), (0, 'a'), "config.seeds has 'a'; use integers"),
    (('seeds',), (True,), 'config.seeds has True; use integers'),
    (('evaluation', 'scm'), (1,), 'config.evaluation.scm has 1; each entry'),
    (('evaluation', 'scm'), None, 'config.evaluation lacks the field scm'),
    (('notes',), {1, 2}, 'has a value that JSON cannot hold'),
    (('notes',), float('nan'), 'has a value that JSON cannot hold'),
    (('evaluation', 'scm'), 'toy', "config.evaluation.scm is 'toy'; it "),
    (('evaluation', 'repeats'), True, 'config.evaluation.repeats is True'),
    (('evaluation', 'repeats'), 0, 'config.evaluation.repeats is 0; it must'),
    (('evaluation', 'budget'), -1.0, 'config.evaluation.budget is -1.0; it '),
    (('evaluation', 'allow_mismatch'), 1, 'allow_mismatch is 1; it must be'),
    (('evaluation', 'jobs'), 1, 'has the unknown field jobs'),
  )
  def test_refuses(self, path, value, sentence):
    config = workflow.get_config().to_dict()
    sweep_config.check(config)
    *sections, name = path
    inner = config[sections[0]] if sections else config
    inner[name] = value
    if value is None:
      del inner[name]
    with self.assertRaisesRegex(errors.UsageError, sentence):
      sweep_config.check(config)


def _fails(config):
  raise KeyError(config)


class ExpandTest(parameterized.TestCase):
  def test_plain_values(self):
    config = grpo.get_config('smoke')
    configurations = sweep_config.expand(lambda name: {name: config}, 'a')
    self.assertEqual(configurations, {'a': config.to_dict()})

  @parameterized.parameters(
    (_fails, r"failed: KeyError\('a'\), in line \d+ of .*sweep_config_test.py"),
    (lambda config: None, 'returned None; it must return'),
    (lambda config: {}, 'returned {}; it must return'),
    (lambda config: {1: {}}, 'returned 1: {}; it must map a string'),
    (lambda config: {'b': 2}, "returned 'b': 2; it must map a string"),
    (lambda: {}, 'failed: TypeError'),
  )
  def test_refuses(self, sweep, sentence):
    with self.assertRaisesRegex(errors.UsageError, sentence):
      sweep_config.expand(sweep, 'a')


class ComparableTest(parameterized.TestCase):
  @parameterized.parameters(
    ('grpo.num_tasks', 32, 'b, seed 0 cannot .* 7,680 interventions, a, se'),
    ('evaluation.seed', 7, 'evaluation.seed is 7, but 1 in a, seed 0'),
    ('training.patience', 2, 'training.patience may end it early'),
  )
  def test_what_the_comparison_would_refuse(self, name, value, sentence):
    configs: dict[str, Any] = {}
    for one in 'ab':
      config = grpo.get_config('smoke')
      if one == 'b':
        config.update_from_flattened_dict({name: value})
      configs[one] = config.to_dict()
    trainings = sweep_config.make_trainings(
      configs, (0,), pathlib.Path('nowhere')
    )
    with self.assertRaisesRegex(errors.UsageError, sentence):
      sweep_config.check_comparable(trainings, False)
    sweep_config.check_comparable(trainings, True)
    sweep_config.check_comparable(trainings[:1], False)


class DefaultsTest(absltest.TestCase):
  def test_are_those_of_a_comparison(self):
    evaluation = workflow.get_config().to_dict()['evaluation']
    self.assertEqual(
      evaluation,
      {
        'scm': ('chain_5', 'fork_5', 'star_5', 'sparse_5'),
        'repeats': 20,
        'samples': 1,
        'budget': None,
        'edges': 'unknown',
        'seed': 0,
        'confidence': 0.95,
        'allow_mismatch': False,
      },
    )

  def test_a_budget_can_be_set(self):
    config = workflow.get_config()
    config.evaluation.budget = 5.0
    sweep_config.check(config.to_dict())


class BalancesTest(parameterized.TestCase):
  @parameterized.parameters('', 'short', 'smoke', 'linear')
  def test_a_sweep_of_reward_balances(self, preset):
    config = workflow.get_config(preset)
    trainings = sweep_config.make_trainings(
      {name: one.to_dict() for name, one in workflow.sweep(config).items()},
      config.seeds,
      pathlib.Path('nowhere'),
    )
    self.assertLen(trainings, 4 * len(config.seeds))
    self.assertLen({str(one.config['rewards']) for one in trainings}, 4)
    rest = {
      json.dumps(one.config | {'rewards': None, 'name': '', 'seed': 0})
      for one in trainings
    }
    self.assertLen(rest, 1)


if __name__ == '__main__':
  absltest.main()
