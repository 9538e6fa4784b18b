"""Tests of whole runs, tiny ones, by the files that they leave."""

import contextlib
import dataclasses
import functools
import io
import json
import pathlib
import re
import tempfile
from typing import Any
from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from PIL import Image
import pytest
from tensorboard.backend.event_processing import event_accumulator

from acme_cbo.agents.grpo import agent
from acme_cbo.evaluation import held_out
from acme_cbo.experiments import builder
from acme_cbo.experiments import config as config_lib
from acme_cbo.experiments import presets
from acme_cbo.experiments import replay
from acme_cbo.experiments import train
from acme_cbo.infra import compilation
from acme_cbo.infra import config_schema
from acme_cbo.infra import errors
from acme_cbo.policies import saving
from acme_cbo.training import checkpoints

_TASKS = 24
_HEURISTICS = ('random', 'slope', 'explore_then_commit', 'oracle')
_POLICIES = ('grpo', *_HEURISTICS, 'untrained')
_SCORES = ('score_first', 'score_mean', 'score_best', 'score_last')
_AFTER_LAST = (
  'score_recommended',
  'coverage_recommended',
  'coverage_random',
  'crps_recommended',
  'crps_random',
)
_COMPONENTS = ('optimization', 'structure', 'parent', 'exploration')
_OF_UPDATES = {f'reward/{name}' for name in (*_COMPONENTS, 'total')} | {
  'loss/surrogate',
  'loss/parent',
  'loss/outcome',
  'loss/predicted_mean',
  'loss/predicted_outcome',
  'loss/total',
  'policy/kl_acting',
  'policy/kl_reference',
  'policy/clip_fraction',
  'policy/entropy_variable',
  'policy/entropy_cell',
  'train/dead_groups',
  'train/gradient_norm',
}
_RATES = {'perf/updates_per_second', 'perf/interventions_per_second'}
_OF_EVALUATIONS = {
  f'eval/{score}{group}'
  for score in (*_SCORES, *_AFTER_LAST)
  for group in ('', '_linear', '_nonlinear')
} | {
  f'belief/{belief}_{quality}_after_{step:02d}'
  for belief in ('learned', 'exact')
  for quality in ('f1', 'auroc', 'ece')
  for step in range(4)
}


def _config(seed: int, **changes: Any) -> config_lib.GRPOConfig:
  """The smoke preset, smaller still."""
  return config_schema.override(
    presets.preset('smoke'),
    {
      'seed': seed,
      'scms.max_variables': 4,
      'scms.num_hidden': 2,
      'scms.bank_size': 8,
      'horizon.num_observations': 4,
      'horizon.num_interventions': 3,
      'network.width': 8,
      'network.num_cells': 8,
      'grpo.num_tasks': 4,
      'grpo.num_generations': 4,
      'grpo.num_minibatches': 2,
      'training.num_updates': 5,
      'training.eval_every': 2,
      'training.checkpoint_every': 3,
      'evaluation.num_tasks': _TASKS,
      'evaluation.bank_size': 16,
      **changes,
    },
  )


class _HeldOut(held_out.HeldOut):
  """Compiles a policy once for all runs."""

  @functools.cached_property
  def _heuristics(self):
    return super().scores(held_out.HEURISTICS)

  def scores(self, factories):
    assert factories is held_out.HEURISTICS
    return self._heuristics

  network_scorer = functools.cache(held_out.HeldOut.network_scorer)


@dataclasses.dataclass
class _Run:
  workdir: pathlib.Path
  summary: dict[str, Any]
  printed: str

  def rows(self) -> list[dict[str, Any]]:
    lines = (self.workdir / 'metrics.jsonl').read_text().splitlines()
    return [json.loads(line) for line in lines]

  def same_each_time(self) -> list[dict[str, Any]]:
    """The rows without what the clock says."""
    return [
      {
        tag: value
        for tag, value in row.items()
        if tag != 'time' and not tag.startswith('perf/')
      }
      for row in self.rows()
    ]

  def results(self) -> pd.DataFrame:
    return pd.read_csv(self.workdir / 'results.csv')


def _train(seed: int, workdir: pathlib.Path) -> _Run:
  with (
    contextlib.redirect_stdout(io.StringIO()) as printed,
    contextlib.redirect_stderr(io.StringIO()),
  ):
    summary = train.train_and_evaluate(
      builder.from_config(_config(seed)), workdir
    )
  return _Run(workdir, summary, printed.getvalue())


@pytest.mark.timeout(240)  # It compiles a whole run.
class RunTest(parameterized.TestCase):
  """Runs of the seeds 0, 0 and 1, which share what is compiled."""

  runs: dict[str, _Run]

  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    root = tempfile.TemporaryDirectory()
    cls.addClassCleanup(root.cleanup)
    # What the smoke preset switches on for the whole process.
    option = 'jax_disable_most_optimizations'
    cls.addClassCleanup(jax.config.update, option, jax.config.read(option))
    cls.parts = builder.from_config(_config(0)).parts
    compiled = agent.programs(cls.parts)
    cls.step = staticmethod(agent.make_step(compiled))
    from_config = builder.from_config
    for module, name, shared in (
      (compilation, 'load_or_compile', lambda *_: compiled),
      (held_out, 'HeldOut', functools.cache(_HeldOut)),
      (
        builder,
        'from_config',
        lambda config: dataclasses.replace(
          from_config(config), parts=cls.parts
        ),
      ),
    ):
      cls.enterClassContext(mock.patch.object(module, name, shared))
    cls.runs = {
      name: _train(seed, pathlib.Path(root.name) / 'runs' / name)
      for name, seed in (('first', 0), ('again', 0), ('other', 1))
    }

  def setUp(self):
    super().setUp()
    self.run_0 = self.runs['first']

  def test_files(self):
    workdir = self.run_0.workdir
    self.assertCountEqual(
      [path.name for path in workdir.iterdir()],
      [
        'config.json',
        'environment.json',
        'metrics.jsonl',
        'texts.jsonl',
        'tb',
        'checkpoints',
        'policy',
        'results.csv',
        'README.md',
        'summary.json',
        'learning_curve.png',
      ],
    )
    config = json.loads((workdir / 'config.json').read_text())
    self.assertEqual(config, json.loads(json.dumps(_config(0).to_dict())))
    with Image.open(workdir / 'learning_curve.png') as image:
      self.assertEqual((image.format, image.width), ('PNG', 1350))

  def test_summary_is_complete(self):
    text = (self.run_0.workdir / 'summary.json').read_text()
    summary = json.loads(text)
    self.assertEqual(summary, self.run_0.summary)
    config = _config(0)
    expected = {
      'name': 'grpo-smoke',
      'seed': 0,
      'updates': 5,
      'rewards': vars(config.rewards),
      'simple_regret_share': 0.0,
      'regret_floor': 0.0,
      'num_observations': 4,
      'num_interventions': 3,
      'held_out_tasks': _TASKS,
      'confidence': 0.99,
    }
    self.assertEqual({name: summary[name] for name in expected}, expected)
    self.assertGreater(summary['seconds'], 0)
    self.assertCountEqual(summary['evaluation'], _POLICIES)
    for entry in summary['evaluation'].values():
      self.assertContainsSubset({'linear', 'nonlinear'}, entry['by_family'])
      for group in (entry, *entry['by_family'].values()):
        for score in _SCORES:
          low, high = group[score]['interval']
          self.assertLessEqual(low, group[score]['mean'])
          self.assertLessEqual(group[score]['mean'], high)
    self.assertCountEqual(summary['grpo_minus'], set(_POLICIES) - {'grpo'})
    self.assertCountEqual(summary['belief'], ['learned', 'exact'])
    for groups in summary['belief'].values():
      self.assertCountEqual(groups, ['all', 'linear', 'nonlinear'])
      for quality in groups.values():
        self.assertCountEqual(quality, ['f1', 'auroc', 'ece'])

  def test_the_oracle_is_at_1_and_nobody_above(self):
    results = self.run_0.results()
    scores = np.asarray(results[list(_SCORES)], float)
    np.testing.assert_allclose(
      scores[np.asarray(results['policy'] == 'oracle')], 1, atol=1e-4
    )
    self.assertLess(scores.max(), 1.02)

  def test_results_have_a_row_for_each_policy_and_task(self):
    results = self.run_0.results()
    self.assertCountEqual(
      zip(results['policy'], results['task'], strict=True),
      [(policy, task) for policy in _POLICIES for task in range(_TASKS)],
    )
    # The tasks are the same for all policies.
    facts = results[['task', 'family', 'graph', 'variables']]
    self.assertLen(facts.drop_duplicates(), _TASKS)

  def test_means_of_the_results_are_those_of_the_summary(self):
    # By pandas alone.
    results = self.run_0.results()
    results['nonlinear'] = results['family'] != 'linear'
    means = results.groupby('policy')[list(_SCORES)].mean()
    by_family = results.groupby(['policy', 'nonlinear'])[list(_SCORES)].mean()
    for policy, entry in self.run_0.summary['evaluation'].items():
      families = entry['by_family']
      for score in _SCORES:
        for actual, expected in (
          (entry, means.loc[policy]),
          (families['linear'], by_family.loc[policy, False]),
          (families['nonlinear'], by_family.loc[policy, True]),
        ):
          self.assertAlmostEqual(
            actual[score]['mean'], expected[score], places=12
          )
    for other, entry in self.run_0.summary['grpo_minus'].items():
      for score in _SCORES:
        self.assertAlmostEqual(
          entry[score]['mean'],
          means.loc['grpo', score] - means.loc[other, score],
          places=12,
        )

  def test_metrics_have_every_step_and_every_tag(self):
    rows = self.run_0.rows()
    self.assertEqual([row['step'] for row in rows], [1, 0, 2, 3, 4, 5])
    for row in rows:
      evaluated = {tag for tag in row if tag in _OF_EVALUATIONS}
      expected = _OF_EVALUATIONS if row['step'] in (0, 2, 4, 5) else set()
      self.assertEqual(evaluated, expected)
      if row['step']:
        self.assertContainsSubset(_OF_UPDATES, row)
      else:
        self.assertEqual(row.keys() - {'step', 'time'}, _OF_EVALUATIONS)
      if row['step'] > 1:
        self.assertContainsSubset(_RATES, row)
        self.assertAlmostEqual(
          row['perf/interventions_per_second'],
          row['perf/updates_per_second'] * 4 * 4 * 3,
          delta=1e-6 * row['perf/interventions_per_second'],
        )

  def test_rewards_and_losses_add_up(self):
    config = _config(0)
    weights = vars(config.rewards)
    for row in self.run_0.rows():
      if 'loss/total' in row:
        self.assertAlmostEqual(
          row['reward/total'],
          sum(weights[name] * row[f'reward/{name}'] for name in _COMPONENTS),
          places=5,
        )
        self.assertAlmostEqual(
          row['loss/total'],
          row['loss/surrogate']
          + 0.5 * row['loss/parent']
          + 2.0 * row['loss/outcome']
          + 0.1 * row['loss/predicted_mean']
          + 0.1 * row['loss/predicted_outcome']
          - 0.003 * row['policy/entropy_variable']
          - 0.003 * row['policy/entropy_cell'],
          places=5,
        )

  def test_the_policy_is_that_of_the_last_update(self):
    network, params, about, _ = saving.load(self.run_0.workdir / 'policy')
    self.assertEqual(about['horizon'], vars(_config(0).horizon))
    self.assertEqual(about['updates'], 5)
    template = jax.eval_shape(
      lambda: agent.init(jax.random.PRNGKey(0), self.parts)
    )
    with checkpoints.Checkpointer(
      self.run_0.workdir / 'checkpoints'
    ) as checkpointer:
      last, _ = checkpointer.restore(template)
    jax.tree.map(np.testing.assert_array_equal, params, last.params)
    caches = [x.empty_cache(4, 4) for x in (network, self.parts.network)]
    self.assertEqual(*(jax.tree.map(np.shape, cache) for cache in caches))

  def test_the_page_about_it_says_what_was_measured(self):
    page = (self.run_0.workdir / 'README.md').read_text()
    self.assertStartsWith(page, '# grpo-smoke, seed 0\n')
    self.assertIn('systems of 3 to 4 variables', page)
    policy = str(self.run_0.workdir / 'policy')
    self.assertIn(f'acme_cbo.load_policy({policy!r})', page)
    printed = self.run_0.printed
    table = printed[printed.index('24 held-out SCMs') :].rsplit('\n\n', 1)[0]
    self.assertIn(table, page)

  def test_evaluations_are_those_of_the_results(self):
    # The first one is of the untrained policy, the last one of what came out.
    rows = [row for row in self.run_0.rows() if 'eval/score_last' in row]
    for row, policy in ((rows[0], 'untrained'), (rows[-1], 'grpo')):
      entry = self.run_0.summary['evaluation'][policy]
      for score in _SCORES:
        self.assertAlmostEqual(
          row[f'eval/{score}'], entry[score]['mean'], places=5
        )
        for family in ('linear', 'nonlinear'):
          self.assertAlmostEqual(
            row[f'eval/{score}_{family}'],
            entry['by_family'][family][score]['mean'],
            places=5,
          )
    for belief, groups in self.run_0.summary['belief'].items():
      for name, steps in groups['all'].items():
        tags = [f'belief/{belief}_{name}_after_{i:02d}' for i in range(4)]
        self.assertEqual([rows[-1][tag] for tag in tags], steps)

  def test_replay_makes_the_update_again(self):
    text = replay.replay(self.run_0.workdir, update=5, index=2)
    self.assertStartsWith(text, 'update 5, SCM 2\n')
    self.assertIn('reward/exploration', text)
    self.assertEndsWith(text, 'All values of the update are finite.')

  @pytest.mark.fault
  def test_replay_meets_what_the_run_met(self):
    def step(state):
      if int(state.step) == 3:
        raise errors.NonFiniteError(
          4, 'outcome', np.arange(4) == 1, 'of the test'
        )
      return self.step(state)

    with (
      mock.patch.object(agent, 'make_step', lambda *_: step),
      self.assertRaisesRegex(errors.NonFiniteError, 'update 4: outcome') as met,
    ):
      replay.replay(self.run_0.workdir, update=4, index=1)
    self.assertIn('update 4, SCM 1\n', met.exception.__notes__[0])

  @pytest.mark.fault
  def test_a_run_that_failed_says_how_to_see_it(self):
    workdir = self.run_0.workdir.parent / 'failed'

    def step(state):
      raise errors.NonFiniteError(1, 'logit', np.arange(4) == 3, 'of the test')

    with (
      mock.patch.object(agent, 'make_step', lambda *_: step),
      self.assertRaises(errors.NonFiniteError) as met,
    ):
      _train(0, workdir)
    self.assertEndsWith(
      met.exception.__notes__[0],
      f'launchers/replay.py --workdir={workdir} --update=1 --scm=3',
    )

  def test_replay_makes_the_evaluation_again(self):
    text = replay.replay_held_out(self.run_0.workdir, update=5, index=7)
    self.assertStartsWith(text, 'after update 5, held-out SCM 7\n')
    results = self.run_0.results()
    for policy in ('grpo', 'slope', 'oracle'):
      rows = results[results['policy'] == policy].set_index('task')
      (line,) = re.findall(rf'score of {policy}: (.*)', text)
      first, *_, last = line.split()
      self.assertEqual(first, f'{rows.loc[7, "score_first"]:.2f}')
      self.assertEqual(last, f'{rows.loc[7, "score_last"]:.2f}')

  @pytest.mark.fault
  def test_an_evaluation_that_failed_says_how_to_see_it(self):
    workdir = self.run_0.workdir.parent / 'failed evaluation'
    right = _HeldOut.network_scorer

    def scorer(tasks, network):
      score = right(tasks, network)

      def lost(params, update):
        outcome = score(params, update)
        if update < 4:
          return outcome
        lost = np.arange(_TASKS) == 3
        faulty = jnp.where(lost[:, None], np.nan, outcome.score)
        return tasks._check_finite(update, outcome._replace(score=faulty))

      return lost

    with (
      mock.patch.object(_HeldOut, 'network_scorer', scorer),
      self.assertRaisesRegex(
        errors.NonFiniteError, 'update 4: score is not finite on held-out SCM 3'
      ) as met,
    ):
      _train(0, workdir)
    self.assertEndsWith(
      met.exception.__notes__[-1],
      f"launchers/replay.py '--workdir={workdir}' --update=4 --scm=3 "
      '--held_out',
    )

  def test_replay_refuses_what_the_run_has_not(self):
    workdir = self.run_0.workdir
    for update, index, sentence in (
      (0, 0, '--update is 0; the run has 1 to 5'),
      (6, 0, '--update is 6; the run has 1 to 5'),
      (1, 4, '--scm is 4; the run has 0 to 3'),
    ):
      with self.assertRaisesRegex(errors.UsageError, sentence):
        replay.replay(workdir, update, index)
    with self.assertRaisesRegex(errors.UsageError, 'the run has 0 to 23'):
      replay.replay_held_out(workdir, 0, 24)
    with self.assertRaisesRegex(errors.UsageError, 'has no config.json'):
      replay.replay(workdir / 'tb', 1, 0)
    for text in ('{"name"', '[]'):
      damaged = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
      (damaged / 'config.json').write_text(text)
      with self.assertRaisesRegex(errors.UsageError, 'json is damaged'):
        replay.replay(damaged, 1, 0)

  def test_event_file_holds_the_same(self):
    events = event_accumulator.EventAccumulator(
      str(self.run_0.workdir / 'tb')
    ).Reload()
    expected = {}
    for row in self.run_0.rows():
      for tag, value in row.items():
        if tag not in ('step', 'time'):
          expected.setdefault(tag, []).append((row['step'], np.float32(value)))
    self.assertContainsSubset(_OF_UPDATES | _OF_EVALUATIONS | _RATES, expected)
    self.assertCountEqual(events.scalars.Keys(), expected)
    for tag, points in expected.items():
      actual = [(event.step, event.value) for event in events.Scalars(tag)]
      self.assertEqual(actual, points, tag)
    (text,) = events.Tensors('config/text_summary')
    self.assertIn(
      (self.run_0.workdir / 'config.json').read_text().strip(),
      text.tensor_proto.string_val[0].decode(),
    )

  def test_checkpoints_are_the_training(self):
    template = jax.eval_shape(
      lambda: agent.init(jax.random.PRNGKey(0), self.parts)
    )
    with checkpoints.Checkpointer(
      self.run_0.workdir / 'checkpoints'
    ) as checkpointer:
      halfway, _ = checkpointer.restore(template, 3)
      last, metadata = checkpointer.restore(template)
    self.assertEqual((int(halfway.step), int(last.step)), (3, 5))
    self.assertEqual(
      metadata['config'], json.loads(json.dumps(_config(0).to_dict()))
    )
    self.assertEqual(
      self.run_0.summary['parameters'],
      sum(leaf.size for leaf in jax.tree.leaves(last.params)),
    )
    # The last one scores what the run scored.
    tasks = train.held_out_tasks(builder.from_config(_config(0)))
    outcome = tasks.network_scorer(self.parts.network)(last.params, 5)
    results = self.run_0.results()
    scores = results[results['policy'] == 'grpo']['score_last']
    np.testing.assert_array_equal(
      outcome.score[:, -1], np.asarray(scores, np.float32)
    )
    # What goes on from the first one ends as the run did, bit for bit.
    # (A restored array is committed to its device, which would compile again.)
    halfway = jax.tree.map(jnp.asarray, jax.device_get(halfway))
    for _ in range(2):
      halfway, _ = self.step(halfway)
    for one, other in zip(
      jax.tree.leaves(halfway), jax.tree.leaves(last), strict=True
    ):
      np.testing.assert_array_equal(one, other)

  def test_a_seed_repeats_bit_for_bit(self):
    again = self.runs['again']
    self.assertEqual(again.same_each_time(), self.run_0.same_each_time())
    self.assertEqual(
      {**again.summary, 'seconds': 0}, {**self.run_0.summary, 'seconds': 0}
    )

  def test_another_seed_is_another_training_on_the_same_scms(self):
    other = self.runs['other']
    for one, two in zip(
      other.same_each_time(), self.run_0.same_each_time(), strict=True
    ):
      self.assertEqual(one.keys(), two.keys())
      for tag in ('reward/total', 'loss/total', 'eval/score_last'):
        if tag in one:
          self.assertNotEqual(one[tag], two[tag])
    for policy in _POLICIES:
      one, two = (
        run.summary['evaluation'][policy] for run in (other, self.run_0)
      )
      if policy in _HEURISTICS:
        self.assertEqual(one, two)
      else:
        self.assertNotEqual(one, two)

  def test_what_is_printed(self):
    printed = self.run_0.printed
    self.assertIn(f'tensorboard --logdir={self.run_0.workdir}', printed)
    self.assertIn('24 held-out SCMs, 4 observations, 3 interventions', printed)
    for policy in _POLICIES:
      self.assertRegex(printed, rf'(?m)^{policy} .* \[.*, .*\]')
    self.assertEndsWith(printed, f'all files are in {self.run_0.workdir}\n')


class UnfillablePriorTest(absltest.TestCase):
  def test_leaves_the_directory_to_the_next_attempt(self):
    config = _config(seed=0, **{'scms.min_gain': 50.0})
    experiment = builder.from_config(config)
    # Of its programs only the one that fills a bank is used, and compiled.
    self.enterContext(
      mock.patch.object(
        compilation,
        'load_or_compile',
        lambda *_: agent.programs(experiment.parts),
      )
    )
    directory = self.enterContext(tempfile.TemporaryDirectory())
    with self.assertRaisesRegex(errors.UsageError, 'lower scms.min_gain'):
      train.train_and_evaluate(experiment, pathlib.Path(directory))
    self.assertEmpty(list(pathlib.Path(directory).iterdir()))


if __name__ == '__main__':
  absltest.main()
