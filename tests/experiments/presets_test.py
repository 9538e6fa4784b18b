"""The presets, and the files of configs/ that name them."""

from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized
import ml_collections

from acme_cbo.experiments import config as config_lib
from acme_cbo.experiments import presets
from acme_cbo.infra import errors
from configs import grpo
from configs import rewards
from configs import simulator
from configs import workflow
from tests.support import made_up_component

# The presets that configs/grpo.py names.
_PRESETS = ('', 'smoke', 'linear', 'large', 'general')


def _from(config: ml_collections.ConfigDict) -> config_lib.GRPOConfig:
  return config_lib.GRPOConfig.from_dict(config.to_dict())


class PresetsTest(parameterized.TestCase):
  def test_are_those_of_the_file(self):
    self.assertEqual((*presets.PRESETS,), _PRESETS)

  @parameterized.parameters(*_PRESETS)
  def test_is_valid(self, name):
    config = grpo.get_config(name)
    self.assertTrue(config.is_locked)
    self.assertEqual(_from(config), presets.preset(name))
    self.assertEqual(config.name, f'grpo-{name}' if name else 'grpo')

  def test_the_default_is_that_of_the_fields(self):
    self.assertEqual(presets.preset(), config_lib.GRPOConfig())

  def test_linear(self):
    weights = presets.preset('linear').scms.family_weights
    self.assertEqual(weights.in_order, (1.0,) + (0.0,) * 7)

  def test_general(self):
    config = presets.preset('general')
    self.assertEqual(
      config.scms.family_weights.in_order,
      (1.0, 3.0, 1.0, 1.0, 1.0, 0.5, 3.0, 0.0),
    )
    self.assertEqual(config.grpo.baseline, 'reached')

  def test_an_unknown_preset_is_refused(self):
    with self.assertRaisesRegex(ValueError, "no preset 'smok'; .*smoke, lin"):
      grpo.get_config('smok')


class BalancesTest(parameterized.TestCase):
  @parameterized.parameters(
    ('balanced', (1.0, 0.5, 0.3, 0.1)),
    ('optimization_only', (1.0, 0.0, 0.0, 0.0)),
    ('structure_heavy', (0.5, 1.0, 0.5, 0.1)),
    ('exploration_heavy', (0.5, 0.3, 0.2, 1.0)),
  )
  def test_changes_the_weights_alone(self, balance, weights):
    config, usual = _from(rewards.get_config(balance)), presets.preset()
    self.assertEqual(config.name, f'grpo-{balance}')
    self.assertEqual(config.rewards, usual.rewards.with_weights(weights))
    self.assertEqual(
      config.to_dict() | {'name': '', 'rewards': {}},
      usual.to_dict() | {'name': '', 'rewards': {}},
    )

  def test_a_component_that_none_names_has_weight_0(self):
    defaults = made_up_component.GRPOConfig()
    with (
      made_up_component.added(),
      mock.patch.object(presets, '_DEFAULTS', defaults),
    ):
      self.assertEqual(presets.preset().rewards.weights[-1], 0.7)
      for name in presets.BALANCES:
        with self.subTest(name):
          *_, weight = presets.balance(name).rewards.weights
          self.assertEqual(weight, 0.0)

  def test_a_component_that_does_not_exist_is_refused(self):
    with (
      mock.patch.dict(presets.BALANCES, {'odd': {'novelty': 1.0}}),
      self.assertRaisesRegex(errors.UsageError, 'novelty'),
    ):
      presets.balance('odd')

  def test_a_preset_stands_behind_it(self):
    config = _from(rewards.get_config('structure_heavy:smoke'))
    self.assertEqual(config.name, 'grpo-smoke-structure_heavy')
    self.assertEqual(config.training, presets.preset('smoke').training)

  def test_an_unknown_balance_is_refused(self):
    with self.assertRaisesRegex(ValueError, "no balance 'even'; .*balanced"):
      rewards.get_config('even')


class SimulatorTest(parameterized.TestCase):
  @parameterized.parameters(
    ('a.b:C', 'a.b:C', ''), ('python c.py', '', 'python c.py')
  )
  def test_is_valid(self, source, make, command):
    config = _from(simulator.get_config(source))
    self.assertEqual(config.simulator.make, make)
    self.assertEqual(config.simulator.command, command)
    self.assertEqual(config.name, 'grpo-simulator')
    self.assertEqual(config.runtime.kind, 'threaded')

  def test_an_empty_one_is_refused(self):
    with self.assertRaisesRegex(ValueError, 'after the colon: module:func'):
      simulator.get_config(' ')


class WorkflowTest(parameterized.TestCase):
  @parameterized.parameters(
    ('', 260, 64), ('short', 60, 64), ('smoke', 4, 16), ('linear', 260, 64)
  )
  def test_sweep(self, preset, num_updates, num_tasks):
    configs = workflow.sweep(workflow.get_config(preset))
    self.assertEqual([*configs], [*presets.BALANCES])
    for name, config in configs.items():
      config.validate()
      self.assertEndsWith(config.name, name)
      self.assertEqual(config.training.num_updates, num_updates)
      self.assertEqual(config.grpo.num_tasks, num_tasks)


if __name__ == '__main__':
  absltest.main()
