"""Tests that the smoke preset passes the validation, and faults fail it."""

import contextlib
import dataclasses
import io
from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acme_cbo.agents.grpo import agent
from acme_cbo.agents.grpo import rewards
from acme_cbo.environments import config as environments_config
from acme_cbo.environments import environment
from acme_cbo.experiments import builder
from acme_cbo.experiments import presets
from acme_cbo.experiments.commands import validate as command
from acme_cbo.experiments.validation import exploits
from acme_cbo.experiments.validation import invariance
from acme_cbo.experiments.validation import validate as validation_validate
from acme_cbo.infra import config_schema
from acme_cbo.infra import errors
from acme_cbo.scms import priors
from tests.support import made_up_component
from tests.support import miniature


def _failed(checks):
  return [
    f'{check.claim}: {check.figure}'
    for check in checks
    if check.verdict == 'FAIL'
  ]


def _parts():
  config = config_schema.override(
    presets.preset('smoke'),
    {'training.num_updates': validation_validate.NUM_UPDATES},
  )
  return builder.from_config(config).parts


@pytest.mark.slow
@pytest.mark.timeout(3600)
class ValidateTest(absltest.TestCase):
  def test_smoke_passes(self):
    checks = list(validation_validate.validate(_parts(), range(8)))
    self.assertEmpty(_failed(checks))
    self.assertGreater(len(checks), 50)


class ReportTest(absltest.TestCase):
  def test_has_a_row_for_each_check(self):
    page = validation_validate.report(
      'python launchers/validate.py --config=mine.py',
      [
        validation_validate.Check(
          'exploits', 'zigzag earns less in sum', True, 'by 0.4'
        ),
        validation_validate.Check(
          'reward weights', 'parent alone', False, '0.3 -> 0.2'
        ),
        validation_validate.Check('exploits', 'novelty', None, 'no script'),
      ],
    )
    self.assertIn('\npython launchers/validate.py --config=mine.py\n', page)
    self.assertIn('\n1 of 2 checks passed, 1 skipped.\n', page)
    rows = page.splitlines()[-3:]
    self.assertEqual(
      rows,
      [
        '| exploits | zigzag earns less in sum | by 0.4 | pass |',
        '| reward weights | parent alone | 0.3 -> 0.2 | **FAIL** |',
        '| exploits | novelty | no script | skip |',
      ],
    )


class CheckTest(parameterized.TestCase):
  def test_str(self):
    check = validation_validate.Check(
      'reward weights', 'parent alone', False, '0.3 -> 0.2'
    )
    self.assertEqual(
      str(check), 'FAIL  reward weights      parent alone: 0.3 -> 0.2'
    )

  @parameterized.parameters((0.2, True), (0.0, False), (-0.2, False))
  def test_a_gain_must_be_significant(self, gain, passed):
    before = np.random.default_rng(0).normal(size=8)
    noise = 0.01 * np.random.default_rng(1).normal(size=8)
    check = validation_validate._gain(
      'reward weights', 'it rises', before, before + gain + noise
    )
    self.assertEqual(check.passed, passed)

  @parameterized.parameters((1e-5, True), (1e-3, False), (np.nan, False))
  def test_a_dependence_on_units_fails(self, difference, passed):
    differences = dict.fromkeys(invariance.Outputs._fields, 0.0)
    differences[invariance.Outputs._fields[1]] = difference
    episodes = {'transformed': (None, None)}
    with (
      mock.patch.object(
        validation_validate, '_episodes', return_value=[()] * 3
      ),
      mock.patch.object(
        invariance, 'make_evaluator', return_value=lambda *_: None
      ),
      mock.patch.object(
        invariance, 'equivalent_episodes', return_value=episodes
      ),
      mock.patch.object(
        invariance, 'max_differences', side_effect=[differences] * 3
      ),
    ):
      checks = list(
        validation_validate.invariances(miniature.parts(), miniature.tasks(1))
      )
    self.assertEqual([check.passed for check in checks], [passed])

  @pytest.mark.fault
  def test_errors_that_are_not_raised_fail(self):
    with (
      mock.patch.object(environment, 'check_intervention'),
      mock.patch.object(agent, 'make_step', return_value=lambda state: None),
    ):
      checks = list(
        validation_validate.no_silent_failures(
          miniature.parts(), miniature.tasks(16)
        )
      )
    self.assertLen(checks, 6)
    self.assertLen(_failed(checks), 6)

  def _passed_by_claim(self, deficits, reward_config=None):
    """Runs `scripts` with given returns; those of honest scripts are 0.6.

    Args:
      deficits: {exploit: what it earns less in each of the components}; 0.4
        everywhere if missing.
      reward_config: weights of the components, by default those of `miniature`.

    Returns:
      {claim: whether the check passed}.
    """
    tasks = miniature.tasks(8)
    parts = miniature.parts()
    if reward_config is not None:
      parts = dataclasses.replace(parts, rewards=reward_config)
    number = len(rewards.COMPONENTS)
    per_step = np.full((16, 5, number), 0.6)
    per_step[..., 1] /= 5  # The return of `structure` is a total.
    divisor = np.where(np.arange(number) == 1, 5, 1)
    components = {}
    for name in exploits.scripts():
      deficit = np.array(deficits.get(name, (0.4,) * number))
      deficit = 0.0 * deficit if name.startswith('honest') else deficit
      components[name] = per_step - deficit / divisor
    components['honest optimization'][..., 0] = 1.0
    with (
      mock.patch.object(
        validation_validate, '_tasks_with_parents', lambda *_: tasks
      ),
      mock.patch.object(exploits, 'run_scripts', lambda *_: components),
    ):
      checks = validation_validate.scripts(parts, tasks)
      return {check.claim: check.passed for check in checks}

  def test_exploits_that_earn_enough_less_pass(self):
    passed_by_claim = self._passed_by_claim({})
    # Four components and their sum, and two claims about the range.
    self.assertLen(passed_by_claim, 5 * len(exploits.EXPLOITS) + 2)
    self.assertTrue(all(passed_by_claim.values()), passed_by_claim)

  def test_a_component_without_honest_script_is_named(self):
    with made_up_component.added():
      passed_by_claim = self._passed_by_claim(
        {}, made_up_component.RewardConfig()
      )
    skipped = [
      claim for claim, passed in passed_by_claim.items() if passed is None
    ]
    self.assertEqual(skipped, ['no exploit pays off in novelty'])
    # The other components are compared as without it.
    self.assertLen(passed_by_claim, 5 * len(exploits.EXPLOITS) + 2 + 1)

  def test_an_exploit_that_earns_too_much_fails(self):
    # Boundary hugging does not try to exploit `structure` and `exploration`.
    passed_by_claim = self._passed_by_claim(
      {'boundary hugging': (-0.2, 0.1, 0.1, -0.2)}
    )
    failed = [claim for claim, passed in passed_by_claim.items() if not passed]
    self.assertEqual(
      failed,
      [
        'boundary hugging earns less in optimization',
        'boundary hugging earns less in parent',
        'boundary hugging earns no more in exploration',
        'boundary hugging earns less in sum',
      ],
    )

  def test_a_margin_that_is_not_significant_fails(self):
    deficit = np.zeros((16, 1, 1))
    deficit[::2] = 3.0  # The mean is 1.5, but half of the values are 0.
    passed_by_claim = self._passed_by_claim(
      {'same node': deficit * np.ones(4) / 2 - 0.3}
    )
    self.assertFalse(passed_by_claim['same node earns less in parent'])

  def test_a_reward_out_of_range_fails(self):
    with mock.patch.object(
      rewards, 'optimization', lambda outcome, objective: outcome * 0 + 2.0
    ):
      passed_by_claim = self._passed_by_claim({})
    failed = [claim for claim, passed in passed_by_claim.items() if not passed]
    self.assertEqual(failed, ['every valid intervention earns between 0 and 1'])

  def test_a_policy_without_memory_fails(self):
    same, later = validation_validate.history(
      miniature.parts(), miniature.tasks(1)
    )
    self.assertTrue(same.passed, same)
    self.assertFalse(later.passed, later)

  def test_the_network_has_a_memory(self):
    parts = miniature.parts(network=miniature.network())
    same, later = validation_validate.history(parts, miniature.tasks(1))
    self.assertTrue(same.passed, same)
    self.assertTrue(later.passed, later)

  def test_episodes_with_sets_and_a_budget_agree(self):
    parts = miniature.parts(
      network=miniature.network(), prior=miniature.GENERAL
    )
    # The second task has interventions on pairs only.
    tasks = jax.tree.map(
      lambda leaf: leaf[1:], miniature.tasks(2, miniature.GENERAL)
    )
    self.assertLess(tasks.scm.problem.budget[0], np.inf)
    self.assertNotIn(1, tasks.scm.problem.sets.sum(-1))
    same, _ = validation_validate.history(parts, tasks)
    self.assertTrue(same.passed, same)

  def test_a_forged_episode_fails(self):
    parts = miniature.parts(
      network=miniature.network(), prior=miniature.GENERAL
    )
    right = validation_validate._episodes

    def forged(*arguments):
      (episode,) = right(*arguments)
      record = episode.trajectories
      later = record.decision._replace(cell=(record.decision.cell + 1) % 5)
      return [episode._replace(trajectories=record._replace(decision=later))]

    with mock.patch.object(validation_validate, '_episodes', forged):
      same, _ = validation_validate.history(
        parts, miniature.tasks(1, miniature.GENERAL)
      )
    self.assertFalse(same.passed, same)

  def test_a_weight_of_zero_with_an_effect_fails(self):
    right = rewards.total

    def leaking(components, weights):
      return right(components, weights) + 1e-3 * components[..., 1]

    with mock.patch.object(rewards, 'total', leaking):
      checks = validation_validate.zero_weights(
        miniature.parts(), miniature.tasks(3)
      )
      passed = [check.passed for check in checks]
    self.assertEqual(passed, [True, False, True, True])

  def test_too_few_parents_that_can_be_set(self):
    few = miniature.tasks(16)
    with (
      mock.patch.object(priors, 'sample', lambda *_: few),
      self.assertRaisesRegex(
        errors.UsageError, 'increase config.scms.settable'
      ),
    ):
      validation_validate.tasks_of(miniature.parts())

  def test_no_variable_but_parents(self):
    tasks = miniature.tasks(16)
    stars = jnp.ones_like(tasks.scm.parents)
    stars = tasks._replace(scm=tasks.scm._replace(parents=stars))
    with (
      mock.patch.object(validation_validate, 'tasks_of', return_value=stars),
      self.assertRaisesRegex(errors.UsageError, 'other than STAR a weight'),
    ):
      next(validation_validate.validate(miniature.parts(), range(8)))

  def test_a_single_intervention_per_episode(self):
    horizon = environments_config.HorizonConfig(
      num_observations=4, num_interventions=1
    )
    with self.assertRaisesRegex(errors.UsageError, 'needs 2 or more'):
      next(
        validation_validate.validate(miniature.parts(horizon=horizon), range(8))
      )


@pytest.mark.slow
@pytest.mark.timeout(600)
class BrokenTest(parameterized.TestCase):
  def _run(self):
    """Exit code and output of the command, up to the scripted exploits."""
    checks = [
      validation_validate.no_silent_failures,
      validation_validate.scripts,
      validation_validate.telescoping,
    ]

    def validate(parts, seeds):
      del seeds
      tasks = validation_validate.tasks_of(parts)
      for check in checks:
        yield from check(parts, tasks)

    config = presets.preset('smoke')
    code = 0
    with (
      mock.patch.object(validation_validate, 'validate', validate),
      mock.patch.object(command, '_CONFIG', mock.Mock(value=config)),
      mock.patch.object(command, '_SEEDS', mock.Mock(value=8)),
      mock.patch.object(command, '_FIRST_SEED', mock.Mock(value=0)),
      mock.patch.object(command, '_REPORT', mock.Mock(value='')),
      contextlib.redirect_stdout(io.StringIO()) as printed,
    ):
      try:
        command.main(['validate'])
      except SystemExit as leaving:
        code = leaving.code
    return code, printed.getvalue()

  def test_the_actual_reward_passes(self):
    code, printed = self._run()
    self.assertEqual(code, 0, printed)
    self.assertNotIn('FAIL', printed)

  def test_a_reward_of_improvement_fails(self):
    # It rewards an improvement, and nothing for repeating the optimum.
    right = rewards.optimization

    def improvement(outcome, objective):
      reward = right(outcome, objective)
      return jnp.where(reward > 0.99, 0.0, reward)

    with mock.patch.object(rewards, 'optimization', improvement):
      code, printed = self._run()
    self.assertEqual(code, 1)
    self.assertIn('FAIL  continuous reward', printed)
    self.assertIn('FAIL  exploits', printed)

  def test_a_structure_reward_that_can_be_exploited_fails(self):
    right = rewards.structure

    def positive_part(before, after):
      return jnp.maximum(right(before, after), 0.0)

    with mock.patch.object(rewards, 'structure', positive_part):
      code, printed = self._run()
    self.assertEqual(code, 1)
    self.assertIn('FAIL  exploits            going back and forth', printed)

  @parameterized.parameters(
    ('parent', 'duplicates earns less in parent'),
    ('exploration', 'same node earns less in exploration'),
  )
  def test_a_reward_for_any_intervention_fails(self, name, claim):
    right = getattr(rewards, name)

    def generous(*arguments):
      return jnp.ones_like(right(*arguments))

    with mock.patch.object(rewards, name, generous):
      code, printed = self._run()
    self.assertEqual(code, 1)
    self.assertIn(f'FAIL  exploits            {claim}', printed)


if __name__ == '__main__':
  absltest.main()
