"""The validation of the smoke preset passes, and of a broken reward fails."""

import contextlib
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
from acme_cbo.environments import environment
from acme_cbo.experiments import builder
from acme_cbo.experiments.commands import validate as command
from acme_cbo.experiments.validation import exploits
from acme_cbo.experiments.validation import invariance
from acme_cbo.experiments.validation import validate as validation_validate
from acme_cbo.infra import errors
from acme_cbo.scms import priors
from configs import grpo
from tests.support import miniature


def _failed(checks):
  return [f'{check.claim}: {check.figure}' for check in checks if not check[2]]


def _parts():
  config = grpo.get_config('smoke')
  config.training.num_updates = validation_validate.NUM_UPDATES
  return builder.from_config(config.to_dict()).parts


@pytest.mark.slow
@pytest.mark.timeout(3600)
class ValidateTest(absltest.TestCase):
  def test_smoke_passes(self):
    checks = list(validation_validate.validate(_parts(), num_seeds=8))
    self.assertEmpty(_failed(checks))
    self.assertGreater(len(checks), 50)


class ReportTest(absltest.TestCase):
  def test_has_a_row_for_each_check(self):
    page = validation_validate.report(
      'python launchers/validate.py --config=mine.py',
      [
        validation_validate.Check(
          'exploits', 'zigzag against sum', True, 'by 0.4'
        ),
        validation_validate.Check(
          'zero out', 'parent alone', False, '0.3 -> 0.2'
        ),
      ],
    )
    self.assertIn('\npython launchers/validate.py --config=mine.py\n', page)
    self.assertIn('\n1 of 2 checks passed.\n', page)
    rows = page.splitlines()[-2:]
    self.assertEqual(
      rows,
      [
        '| exploits | zigzag against sum | by 0.4 | pass |',
        '| zero out | parent alone | 0.3 -> 0.2 | **FAIL** |',
      ],
    )


class VerdictTest(parameterized.TestCase):
  def test_is_a_line(self):
    check = validation_validate.Check(
      'zero out', 'parent alone', False, '0.3 -> 0.2'
    )
    self.assertEqual(
      str(check), 'FAIL  zero out            parent alone: 0.3 -> 0.2'
    )

  @parameterized.parameters((0.2, True), (0.0, False), (-0.2, False))
  def test_a_gain_is_beyond_chance_or_fails(self, gain, passed):
    before = np.random.default_rng(0).normal(size=8)
    noise = 0.01 * np.random.default_rng(1).normal(size=8)
    check = validation_validate._gain(
      'zero out', 'it rises', before, before + gain + noise
    )
    self.assertEqual(check.passed, passed)

  @parameterized.parameters((1e-5, True), (1e-3, False), (np.nan, False))
  def test_units_do_not_matter_or_it_fails(self, difference, passed):
    differences = dict.fromkeys(invariance.Said._fields, 0.0)
    differences[invariance.Said._fields[1]] = difference
    episode = {'told otherwise': (None, None)}
    with (
      mock.patch.object(
        validation_validate, '_episodes', return_value=[()] * 3
      ),
      mock.patch.object(invariance, 'listener', return_value=lambda *_: None),
      mock.patch.object(invariance, 'retold', return_value=episode),
      mock.patch.object(
        invariance, 'largest_difference', side_effect=[differences] * 3
      ),
    ):
      checks = list(
        validation_validate.other_units(miniature.parts(), miniature.tasks(1))
      )
    self.assertEqual([check.passed for check in checks], [passed])

  @pytest.mark.fault
  def test_what_is_let_through_fails(self):
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

  def _scripted(self, leads):
    """Verdicts where scripts lie behind honest play, whose returns are .6.

    Args:
      leads: {exploit: (of optimization, structure, parent, exploration)}, 0.4
        everywhere if not given.

    Returns:
      {claim: verdict}.
    """
    tasks = miniature.tasks(8)
    per_step = np.full((16, 5, 4), 0.6)
    per_step[..., 1] /= 5  # The return of `structure` is a total.
    played = {}
    for name in exploits.scripts():
      lead = np.array(leads.get(name, (0.4,) * 4))
      lead = 0.0 * lead if name.startswith('honest') else lead
      played[name] = per_step - lead / (1, 5, 1, 1)
    played['honest optimization'][..., 0] = 1.0
    with (
      mock.patch.object(
        validation_validate, '_tasks_with_parents', lambda *_: tasks
      ),
      mock.patch.object(exploits, 'play', lambda *_: played),
    ):
      checks = validation_validate.scripted(miniature.parts(), tasks)
      return {check.claim: check.passed for check in checks}

  def test_exploits_that_lie_far_enough_behind_pass(self):
    verdicts = self._scripted({})
    # Four components and their sum, and two claims about the optimum.
    self.assertLen(verdicts, 5 * len(exploits.EXPLOITS) + 2)
    self.assertTrue(all(verdicts.values()), verdicts)

  def test_an_exploit_that_comes_close_fails_where_it_is_after_it(self):
    # Boundary hugging is good work for `structure` and for `exploration`.
    verdicts = self._scripted({'boundary hugging': (-0.2, 0.1, 0.1, -0.2)})
    failed = [claim for claim, passed in verdicts.items() if not passed]
    self.assertEqual(
      failed,
      [
        'boundary hugging against optimization',
        'boundary hugging against parent',
        'boundary hugging is no better than honest play for exploration',
        'boundary hugging against sum',
      ],
    )

  def test_a_margin_that_may_be_luck_fails(self):
    lead = np.zeros((16, 1, 1))
    lead[::2] = 3.0  # 1.5 in the mean, and nothing half of the time.
    verdicts = self._scripted({'same node': lead * np.ones(4) / 2 - 0.3})
    self.assertFalse(verdicts['same node against parent'])

  def test_an_optimum_that_is_paid_once_fails(self):
    with mock.patch.object(
      rewards, 'optimization', lambda outcome, objective: outcome * 0 + 2.0
    ):
      verdicts = self._scripted({})
    failed = [claim for claim, passed in verdicts.items() if not passed]
    self.assertEqual(failed, ['anything that may be set earns between 0 and 1'])

  def test_a_policy_without_memory_fails(self):
    same, later = validation_validate.real_history(
      miniature.parts(), miniature.tasks(1)
    )
    self.assertTrue(same.passed, same)
    self.assertFalse(later.passed, later)

  def test_the_network_has_a_memory(self):
    parts = miniature.parts(network=miniature.network())
    same, later = validation_validate.real_history(parts, miniature.tasks(1))
    self.assertTrue(same.passed, same)
    self.assertTrue(later.passed, later)

  def test_the_record_of_sets_with_a_budget_is_what_was_done(self):
    parts = miniature.parts(
      network=miniature.network(), prior=miniature.GENERAL
    )
    # Of pairs alone.
    tasks = jax.tree.map(
      lambda leaf: leaf[1:], miniature.tasks(2, miniature.GENERAL)
    )
    self.assertLess(tasks.scm.problem.budget[0], np.inf)
    self.assertNotIn(1, tasks.scm.problem.sets.sum(-1))
    same, _ = validation_validate.real_history(parts, tasks)
    self.assertTrue(same.passed, same)

  def test_another_record_than_what_was_done_fails(self):
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
      same, _ = validation_validate.real_history(
        parts, miniature.tasks(1, miniature.GENERAL)
      )
    self.assertFalse(same.passed, same)

  def test_a_weight_of_zero_that_leaves_a_trace_fails(self):
    right = rewards.total

    def leaking(components, weights):
      return right(components, weights) + 1e-3 * components[..., 1]

    with mock.patch.object(rewards, 'total', leaking):
      checks = validation_validate.weight_zero(
        miniature.parts(), miniature.tasks(3)
      )
      passed = [check.passed for check in checks]
    self.assertEqual(passed, [True, False, True, True])

  def test_hardly_a_parent_that_may_be_set_is_refused(self):
    few = miniature.tasks(16)
    with (
      mock.patch.object(priors, 'sample', lambda *_: few),
      self.assertRaisesRegex(errors.UsageError, 'raise config.scms.settable'),
    ):
      validation_validate.tasks_of(miniature.parts())

  def test_nothing_but_parents_is_refused(self):
    tasks = miniature.tasks(16)
    stars = jnp.ones_like(tasks.scm.parents)
    stars = tasks._replace(scm=tasks.scm._replace(parents=stars))
    with (
      mock.patch.object(validation_validate, 'tasks_of', return_value=stars),
      self.assertRaisesRegex(errors.UsageError, 'than STAR a share'),
    ):
      next(validation_validate.validate(miniature.parts(), 8))

  def test_one_step_is_refused(self):
    horizon = environment.Horizon(num_observations=4, num_interventions=1)
    with self.assertRaisesRegex(errors.UsageError, 'needs 2 or more'):
      next(validation_validate.validate(miniature.parts(horizon=horizon), 8))


@pytest.mark.slow
@pytest.mark.timeout(600)
class BrokenTest(parameterized.TestCase):
  def _run(self):
    """Exit code and output of the command, up to the scripted exploits."""
    checks = [
      validation_validate.no_silent_failures,
      validation_validate.scripted,
      validation_validate.telescoping,
    ]

    def some(parts, num_seeds):
      del num_seeds
      tasks = validation_validate.tasks_of(parts)
      for check in checks:
        yield from check(parts, tasks)

    config = grpo.get_config('smoke')
    code = 0
    with (
      mock.patch.object(validation_validate, 'validate', some),
      mock.patch.object(command, '_CONFIG', mock.Mock(value=config)),
      mock.patch.object(command, '_SEEDS', mock.Mock(value=8)),
      mock.patch.object(command, '_REPORT', mock.Mock(value='')),
      contextlib.redirect_stdout(io.StringIO()) as printed,
    ):
      try:
        command.main(['validate'])
      except SystemExit as leaving:
        code = leaving.code
    return code, printed.getvalue()

  def test_the_right_reward_passes(self):
    code, printed = self._run()
    self.assertEqual(code, 0, printed)
    self.assertNotIn('FAIL', printed)

  def test_a_reward_of_improvement_fails(self):
    # That of the predecessor: it pays for getting better, not for being good.
    right = rewards.optimization

    def improvement(outcome, objective):
      reward = right(outcome, objective)
      return jnp.where(reward > 0.99, 0.0, reward)

    with mock.patch.object(rewards, 'optimization', improvement):
      code, printed = self._run()
    self.assertEqual(code, 1)
    self.assertIn('FAIL  continuous reward', printed)
    self.assertIn('FAIL  exploits', printed)

  def test_a_structure_reward_that_can_be_farmed_fails(self):
    right = rewards.structure

    def positive_part(before, after):
      return jnp.maximum(right(before, after), 0.0)

    with mock.patch.object(rewards, 'structure', positive_part):
      code, printed = self._run()
    self.assertEqual(code, 1)
    self.assertIn('FAIL  exploits            going to and fro', printed)

  @parameterized.parameters(
    ('parent', 'duplicates against parent'),
    ('exploration', 'same node against exploration'),
  )
  def test_a_reward_that_pays_for_anything_fails(self, name, claim):
    right = getattr(rewards, name)

    def generous(*arguments):
      return jnp.ones_like(right(*arguments))

    with mock.patch.object(rewards, name, generous):
      code, printed = self._run()
    self.assertEqual(code, 1)
    self.assertIn(f'FAIL  exploits            {claim}', printed)


if __name__ == '__main__':
  absltest.main()
