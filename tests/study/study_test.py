"""Tests of studies, through the public API, on real files."""

import itertools
import json
import math
import pathlib
import tempfile
from typing import Any
import unicodedata

from absl.testing import absltest
from absl.testing import parameterized
import jax
import numpy as np
import pandas as pd

import acme_cbo
from acme_cbo.environments import problem as problem_lib
from acme_cbo.infra import errors
from acme_cbo.policies.baselines import gp_bo
from acme_cbo.scms import interventions
from acme_cbo.study import padding
from acme_cbo.study import terminal

_VARIABLES = {'a': {'domain': (-2, 2)}, 'b': {'domain': (-2, 2), 'step': 0.5}}
_COLUMNS = ['a', 'b', 'w', 'y']


def _records(number: int = 20, seed: int = 0) -> pd.DataFrame:
  """Returns records of a -> w -> y <- b."""
  rng = np.random.default_rng(seed)
  rows = [_experiment({}, rng) for _ in range(number)]
  return pd.DataFrame(rows, columns=_COLUMNS)


def _experiment(do, rng) -> dict[str, float]:
  a = do.get('a', rng.normal())
  b = do.get('b', rng.normal())
  w = a + 0.1 * rng.normal()
  return {'a': a, 'b': b, 'w': w, 'y': w - (b - 1) ** 2 + 0.1 * rng.normal()}


class StudyTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self._path = pathlib.Path(tempfile.mkdtemp()) / 'a.study'
    self._rng = np.random.default_rng(7)

  def _create(self, **arguments):
    arguments: dict[str, Any] = {
      'data': _records(),
      'target': 'y',
      'variables': _VARIABLES,
      **arguments,
    }
    return acme_cbo.Study.create(self._path, **arguments)

  def _observe(self, study, trial):
    study.observe(trial, _experiment(trial.do, self._rng))

  def test_a_study_that_is_opened_again_suggests_the_same(self):
    study = self._create()
    expected = []
    for _ in range(4):
      (trial,) = study.suggest()
      expected.append(trial.do)
      self._observe(study, trial)
    recommended = study.recommend()
    self._path = self._path.with_name('b.study')
    self._rng = np.random.default_rng(7)
    study = self._create()
    for do in expected:
      study = acme_cbo.Study.open(self._path)
      (trial,) = study.suggest()
      self.assertEqual(trial.do, do)
      self._observe(study, trial)
    self.assertEqual(acme_cbo.Study.open(self._path).recommend(), recommended)

  def test_gp_bo_beside_a_suggestion(self):
    study = self._create(interventions={'max_size': 2})
    for trial in study.suggest(3):
      self.assertIsNone(trial.gp_bo)
      self._observe(study, trial)
    exported = self._path.with_name('exported.json')
    exported.write_text(study.to_json())
    asked = study.suggest(2, gp_bo=True)
    again = acme_cbo.Study.from_json(exported, self._path.with_name('b.study'))
    self.assertEqual(
      [one.do for one in asked], [one.do for one in again.suggest(2)]
    )
    # It sets the largest sets of variables, within the steps of the study.
    others: list[Any] = [one.gp_bo for one in asked]
    for do in others:
      self.assertEqual(do.keys(), {'a', 'b'})
      self.assertEqual(study.state.space.complaint(do), '')
    self.assertNotEqual(*others)
    # Its own choice on the same data; its first ascent starts at random.
    problem = padding.problem(
      problem_lib.make(
        _COLUMNS, 'y', 'maximize', {'a': (-2, 2), 'b': (-2, 2)}, 2
      )
    )
    size = problem.exists.size
    with jax.enable_x64(True):
      method = gp_bo.gp_bo()
      rows = padding.columns(_records().to_numpy(), size)
      memory = method.init(problem, rows, 40)
      for step, one in enumerate(study.state.observed):
        made = jax.tree.map(
          lambda leaf: padding.columns(leaf, size),
          interventions.from_names(one.do, _COLUMNS),
        )
        outcome = np.array([one.outcome[name] for name in _COLUMNS])
        outcome = padding.columns(outcome, size)
        memory = method.observe(memory, step, made, outcome)
      chosen = method.choose(jax.random.key(0), memory)
    self.assertAlmostEqual(others[0]['a'], float(chosen.values[0]), delta=0.1)
    self.assertAlmostEqual(others[0]['b'], float(chosen.values[1]), delta=0.3)

  def test_improves(self):
    study = self._create(experiments=15)
    for _ in range(15):
      (trial,) = study.suggest()
      self._observe(study, trial)
    best: Any = study.recommend()
    # E[y] is at most 0, for do(b = 1) and for do(a = 2), and -2 for nothing.
    expected = best.do.get('a', 0.0) - (
      (best.do['b'] - 1) ** 2 if 'b' in best.do else 2
    )
    self.assertGreater(expected, -1.5)
    self.assertGreater(best.better_than_nothing, 0.5)
    with self.assertRaisesRegex(errors.UsageError, 'all 15 experiments'):
      study.suggest()

  def test_several_suggestions_differ(self):
    study = self._create()
    trials = [*study.suggest(3), *study.suggest(2)]
    self.assertEqual([trial.number for trial in trials], [1, 2, 3, 4, 5])
    settings = {tuple(trial.do.items()) for trial in trials}
    self.assertLen(settings, 5)
    self.assertEqual(
      [trial.do for trial in study.pending()], [trial.do for trial in trials]
    )

  def test_only_and_fixed(self):
    study = self._create(interventions={'max_size': 2})
    for trial in study.suggest(2, only=['b']):
      self.assertEqual([*trial.do], ['b'])
    for trial in study.suggest(2, fixed={'b': 0.5}):
      self.assertEqual(trial.do['b'], 0.5)
    with self.assertRaisesRegex(errors.UsageError, 'did you mean a'):
      study.suggest(only=['aa'])
    with self.assertRaisesRegex(errors.UsageError, 'in steps of 0.5'):
      study.suggest(fixed={'b': 0.3})

  def test_outcomes_of_others_count(self):
    study = self._create()
    number = study.observe(None, {'y': 0.9, 'b': 1.02}, do={'b': 1})
    frame = study.to_frame()
    self.assertEqual(number, 1)
    self.assertEqual(frame['b'][0], 1.02)
    self.assertFalse(frame['experiment_suggested'][0])
    best: Any = study.recommend()
    self.assertEqual(best.do, {'b': 1.0})  # An allowed value.

  def test_failed_experiments_are_avoided(self):
    study = self._create(variables={'a': {'domain': (-2, 2)}})
    for _ in range(5):
      (trial,) = study.suggest()
      study.fail(trial, reason='leak')
    (trial,) = study.suggest()
    wrong: Any = ((trial, trial.do), (trial, 'leak'), (None,))
    for arguments in wrong:
      with self.assertRaisesRegex(errors.UsageError, 'name the trial that has'):
        study.fail(*arguments)
    failed = [one.do['a'] for one in study.state.failed]
    self.assertLen(failed, 5)
    for i, value in enumerate(failed):
      for other in failed[:i]:
        self.assertGreaterEqual(abs(value - other), 0.2)

  def test_corrections_are_kept(self):
    study = self._create()
    (trial,) = study.suggest()
    study.observe(trial, {'y': 50.0})
    study.amend(trial, {'y': 5.0})
    self.assertEqual(study.to_frame()['y'][0], 5.0)
    study.withdraw(trial, reason='mixed up')
    self.assertEqual(study.to_frame()['experiment_status'][0], 'withdrawn')
    log = json.loads(study.log.export_json())
    self.assertEqual(
      [event['kind'] for event in log['events']],
      ['created', 'suggested', 'observed', 'amended', 'withdrawn'],
    )

  def test_goals_and_domains_change(self):
    study = self._create()
    study.change(
      goal='minimize', variables={'a': None, 'b': {'domain': (0, 1)}}, budget=2
    )
    (trial,) = study.suggest()
    self.assertEqual([*trial.do], ['b'])
    self.assertBetween(trial.do['b'], 0, 1)
    self._observe(study, trial)
    self._observe(study, study.suggest()[0])
    with self.assertRaisesRegex(errors.UsageError, 'the budget is spent'):
      study.suggest()

  def test_only_what_is_allowed_is_recommended(self):
    study = self._create()
    study.observe(None, {'y': 0.5}, do={'a': 1.5})
    study.observe(None, {'y': 0.4}, do={'b': 1.0})
    study.observe(None, {'y': -0.5}, do={'b': 0.0})
    study.observe(None, {'y': 9.0}, do={'w': 3.0})
    study.change(variables={'a': None, 'b': {'domain': (-2, 0.5)}})
    best: Any = study.recommend()
    self.assertEqual(best.do, {'b': 0.0})
    study.change(variables={'b': {'domain': (-2, -1)}})
    self.assertIsNone(study.recommend())

  def test_missing_values_and_more_records(self):
    data = _records()
    data.loc[3:8, 'w'] = np.nan
    study = self._create(data=data)
    study.add_records(_records(5, seed=1).drop(columns='w'))
    self.assertLen(study.state.records, 25)
    (trial,) = study.suggest()
    study.observe(trial, {'y': 1.0})
    self.assertIn(trial.number, [one.number for one in study.state.observed])
    study.suggest()

  def test_without_records(self):
    study = self._create(data=None, columns=_COLUMNS)
    self.assertEmpty(study.causes())
    self.assertIsNone(study.recommend())
    trials = study.suggest(3)
    self.assertIsNone(trials[0].prediction)
    for trial in trials:
      self._observe(study, trial)
    (trial,) = study.suggest()
    self.assertIsNotNone(trial.prediction)
    self.assertIsNotNone(study.recommend())

  def _observe_without_noise(self, study, trial):
    y = -((trial.do.get('a', 0.3) - 0.7) ** 2) - trial.do.get('b', 0.0) ** 2
    study.observe(trial, {'y': y})

  def test_a_target_without_noise(self):
    study = self._create(experiments=12)
    outcomes = []
    for number in range(12):
      (trial,) = study.suggest()
      before = [one for one in study.state.observed if one.do == trial.do]
      is_best = [max(outcomes) == one.outcome['y'] for one in before]
      if number == 3:
        # A quarter of the way, the best outcome is replicated.
        self.assertEqual(is_best, [True])
        self.assertIn('a replicate tells how much y varies', trial.why)
      self._observe_without_noise(study, trial)
      outcomes.append(study.state.observed[-1].outcome['y'])
    best = study.recommend()
    assert best is not None and best.number is not None
    # Of variables that have no replicates, it cannot know.
    same_set = [
      one.outcome['y']
      for one in study.state.observed
      if one.do.keys() == best.do.keys()
    ]
    self.assertEqual(
      study.state.experiments[best.number].outcome['y'], max(same_set)
    )

  @parameterized.parameters('abandon', 'fail')
  def test_what_was_given_up_is_not_suggested_again(self, give_up):
    study = self._create(experiments=12)
    for _ in range(3):
      self._observe_without_noise(study, *study.suggest())
    (replicate,) = study.suggest()
    getattr(study, give_up)(replicate)
    (other,) = study.suggest()
    self.assertGreater(study.state.space.distance(other.do, replicate.do), 0.01)

  def test_many_records(self):
    study = self._create(data=_records(2_000))
    self.assertLen(study.state.records, 2_000)
    study.suggest()

  def test_all_variables_at_once(self):
    mixture = {name: {'domain': (0, 1)} for name in 'ab'}
    study = self._create(
      variables=mixture, interventions='all', constraints=['a + b = 1']
    )
    for trial in study.suggest(5):
      self.assertAlmostEqual(sum(trial.do.values()), 1, delta=1e-9)

  def test_booleans(self):
    study = self._create(
      data=_records().assign(a=lambda table: table['a'] > 0),
      variables={'a': {'values': [False, True]}},
    )
    (trial,) = study.suggest()
    self.assertIsInstance(trial.do['a'], bool)
    study.observe(trial, {'y': 1})

  def test_a_table_of_outcomes(self):
    study = self._create()
    trials = study.suggest(2)
    table = pd.DataFrame(
      {
        'experiment': [2, None, 1],
        'intervention_targets': ['', 'b', ''],
        'b': [None, 0.5, None],
        'y': [1.0, 2.0, 3.0],
      }
    )
    self.assertEqual(study.observe_table(table), [2, 3, 1])
    self.assertEqual([one.do for one in study.state.observed][2], {'b': 0.5})
    self.assertEqual(
      [one.do for one in study.state.observed][:2], [one.do for one in trials]
    )
    # One wrong row, and nothing is stored.
    study.suggest()
    table = table.assign(experiment=np.array([4, np.nan, 9]))
    with self.assertRaisesRegex(errors.UsageError, 'there is no experiment 9'):
      study.observe_table(table)
    self.assertLen(study.pending(), 1)

  def test_tables_of_outcomes_are_taken_at_their_word(self):
    study = self._create()
    study.suggest(2)
    for table, message in (
      ({'experiment': ['#2'], 'y': [7.0]}, "'#2'"),
      ({'experiment': [2], 'b': ['ca. 1'], 'y': [7.0]}, "'ca. 1'"),
      ({'experiment': [1], 'yy': [7.0], 'y': [7.0]}, 'did you mean y'),
      ({'y': [7.0]}, 'say which experiment'),
    ):
      with self.assertRaisesRegex(errors.UsageError, message):
        study.observe_table(pd.DataFrame(table))
    self.assertLen(study.pending(), 2)

  def test_a_damaged_export_creates_nothing(self):
    study = self._create()
    study.suggest()
    export = json.loads(study.to_json())
    export['events'][1]['payload']['suggestions'][0] = {'a': 99.0}
    path = self._path.with_name('damaged.json')
    path.write_text(json.dumps(export))
    other = self._path.with_name('other.study')
    with self.assertRaisesRegex(errors.UsageError, 'event 1 cannot be used'):
      acme_cbo.Study.from_json(path, other)
    self.assertFalse(other.exists())
    path.write_text(study.to_json())
    self.assertLen(acme_cbo.Study.from_json(path, other).pending(), 1)

  def test_exported_tables_are_read_again(self):
    study = self._create()
    study.observe(None, {'y': 1.0, 'w': 3.0}, do={'a': 1.0})
    path = self._path.with_name('export.csv')
    path.write_text(study.to_csv())
    self._path = self._path.with_name('again.study')
    again = self._create(data=path, variables={'a': {'domain': (-2, 2)}})
    self.assertEqual(again.state.experiments[1].do, {'a': 1.0})
    self.assertIn("'experiment' is left out", ' '.join(again.warnings))

  def test_an_exported_table_has_no_more_than_the_outcomes(self):
    variables = {'=a': {'domain': (0, 1)}, 'never': {'domain': (0, 1)}}
    arguments: Any = dict(data=None, target='-y', variables=variables)
    study = self._create(**arguments)
    for number, y in enumerate((10.0, 99.0, 3.0), 1):
      study.observe(None, {'-y': y}, {'=a': 0.2 * number})
    study.suggest()
    study.fail(None, {'=a': 0.9})
    study.withdraw(2)
    path = self._path.with_name('export.csv')
    path.write_text(study.to_csv())
    with self.assertRaisesRegex(errors.UsageError, 'a table of experiments'):
      acme_cbo.Study.from_json(path, self._path.with_name('c.study'))
    self._path = self._path.with_name('again.study')
    again = self._create(**arguments | {'data': path})
    self.assertIn('3 rows are left out', ' '.join(again.warnings))
    self.assertEqual(
      [(one.do, one.outcome['-y']) for one in again.state.observed],
      [({'=a': 0.2}, 10.0), ({'=a': 0.6000000000000001}, 3.0)],
    )
    with self.assertRaisesRegex(errors.UsageError, 'amend it'):
      study.observe_table(path)

  def test_names_have_one_form(self):
    letter = unicodedata.normalize('NFD', 'é')
    data = pd.DataFrame({letter: [1.0, 2, 3], ' y ': [1.0, 2, 4]})
    study = self._create(
      data=data, target=' y', variables={letter: {'domain': (0, 3)}}
    )
    study.observe(None, {'y ': 3.0}, {letter: 2.0})
    (trial,) = study.suggest(only=[letter])
    self.assertEqual([*trial.do], ['é'])
    with self.assertRaisesRegex(errors.UsageError, 'are the same'):
      study.predict({letter: 1.0, 'é': 2.0})

  def test_two_objects_of_one_study(self):
    study = self._create()
    other = acme_cbo.Study.open(self._path)
    first, second = study.suggest()[0], other.suggest()[0]
    self.assertEqual((first.number, second.number), (1, 2))
    self.assertNotEqual(first.do, second.do)
    self._observe(other, first)
    self.assertEqual([one.number for one in study.pending()], [2])

  @parameterized.parameters(
    dict(target='z'),
    dict(variables={'q': {'domain': (0, 1)}}),
    dict(data=pd.DataFrame({'a': [1.0], 'b': [2.0], 'y': [math.nan]})),
    dict(budget=-1),
    dict(interventions='each'),
    dict(constraints=['a*b <= 1']),
    dict(constraints='a <= 1'),
    dict(columns='aby'),
    dict(edges={'required': ['q -> y']}),
    dict(edges={'required': ['a -> y'], 'forbidden': ['a -> y']}),
  )
  def test_nothing_is_created_from_wrong_arguments(self, **arguments):
    with self.assertRaises(errors.UsageError):
      self._create(**arguments)
    self.assertFalse(self._path.exists())

  def test_predictions(self):
    study = self._create()
    with self.assertRaisesRegex(errors.UsageError, "no variable 'w'"):
      study.predict({'w': 1})
    for _ in range(4):
      study.observe(None, {'y': 0.0}, do={'b': 0})
      study.observe(None, {'y': 1.0}, do={'b': 1})
    low, high = study.predict({'b': 1}).interval
    self.assertBetween(1.0, low, high)
    self.assertLess(high - low, 1)
    wider = study.predict({'b': -2})
    self.assertGreater(np.ptp(wider.interval), 2 * (high - low))
    self.assertGreater(np.ptp(wider.outcome_interval), np.ptp(wider.interval))

  @parameterized.parameters(5e3, 7e11, -7e-13)
  def test_few_outcomes_say_little_on_any_scale(self, y):
    study = self._create(data=None)
    study.observe(None, {'y': y}, {'a': 0.0})
    with self.assertRaisesRegex(errors.UsageError, 'or 3 outcomes'):
      study.predict({'a': 1.5})
    with self.assertRaisesRegex(errors.UsageError, 'it takes 3 outcomes'):
      study.stop_advice()
    study.observe(None, {'y': 2 * y}, {'a': 0.5})
    study.observe(None, {'y': 3 * y}, {'a': 1.0})
    low, high = study.predict({'a': -1.5}).interval
    self.assertGreater(high - low, abs(y))
    self.assertLess(high - low, 20 * abs(y))

  def test_recommends_what_was_not_tried_if_it_is_better(self):
    study = self._create()
    for b in (-2.0, -1.0, 0.0, 2.0):
      for _ in range(2):
        study.observe(None, {'y': -((b - 1) ** 2)}, {'b': b})
    tried: Any = study.recommend()
    self.assertIn(tried.number, (5, 6, 7, 8))
    best: Any = study.recommend(untried=True)
    self.assertGreaterEqual(best.prediction.mean, tried.prediction.mean)
    self.assertEqual(study.state.space.complaint(best.do), '')
    self.assertEqual(study.recommend(), tried)

  def test_known_edges(self):
    edges = {'required': ['w -> y'], 'forbidden': [('a', 'y')]}
    study = self._create(edges=edges)
    for _ in range(2):
      (trial,) = study.suggest()
      self._observe(study, trial)
      causes = study.causes()
      self.assertGreater(causes['w'], 0.9999)
      self.assertLess(causes['a'], 1e-4)
      self.assertBetween(causes['b'], 1e-3, 0.999)
    self.assertEqual(acme_cbo.Study.open(self._path).causes(), causes)
    study.change(edges=None)
    self.assertBetween(study.causes()['a'], 1e-3, 0.999)

  def test_a_withdrawn_suggestion(self):
    study = self._create()
    (trial,) = study.suggest()
    study.withdraw(trial)
    with self.assertRaisesRegex(errors.UsageError, 'without the number'):
      study.observe(trial, {'y': 1.0})
    self.assertEqual(study.observe(None, {'y': 1.0}, trial.do), 2)

  def test_slips_of_the_pen_are_told(self):
    study = self._create()
    for number, (y, a, message) in enumerate(
      (
        (512.0, 1.0, 'y is 512, and all other values lie between'),
        (1.0, 20.0, 'a was set to 20, and it may be between -2 and 2'),
        (1.0, 2.01, ''),
      ),
      1,
    ):
      study.warnings.clear()
      study.observe(None, {'y': y}, {'a': a})
      if not message:
        self.assertEmpty(study.warnings)
        continue
      (warning,) = study.warnings
      self.assertStartsWith(warning, message)
      self.assertEndsWith(warning, f'amend experiment {number}')
    study.fail(None, {'a': 20.0})
    self.assertEndsWith(study.warnings[-1], 'withdraw experiment 4')

  def test_wrong_types_are_told(self):
    study = self._create()
    wrong: Any = 'a'
    with self.assertRaisesRegex(errors.UsageError, "'a' must be a dict"):
      study.suggest(fixed=wrong)
    with self.assertRaisesRegex(
      errors.UsageError, r'event \[0\] has no records'
    ):
      study.withdraw(records=[0])  # type: ignore
    with self.assertRaisesRegex(errors.UsageError, 'must be a dict of'):
      study.change(variables=None)
    with self.assertRaisesRegex(errors.UsageError, 'within ±1e'):
      study.observe(None, {'y': 1e200}, {'a': 0.0})

  def test_budgets_of_any_size(self):
    variables = {'a': {'domain': (-2, 2), 'cost': 0.1}}
    study = self._create(variables=variables, budget=1e308)
    self.assertIn('1000000000 experiments', terminal.status(study.state))
    study.change(budget=0.3)
    study.suggest(3)
    with self.assertRaisesRegex(errors.UsageError, '0.3 of 0.3 is used'):
      study.suggest()

  def test_stop_advice(self):
    study = self._create(experiments=12)
    with self.assertRaisesRegex(errors.UsageError, 'there is no outcome yet'):
      study.stop_advice()
    recommended, gains, advice = [], [], None
    for number in range(1, 13):
      (trial,) = study.suggest()
      self._observe(study, trial)
      best: Any = study.recommend()
      recommended.append(best.do)
      advice = study.stop_advice()
      same = itertools.takewhile(best.do.__eq__, reversed(recommended))
      self.assertEqual(advice.unchanged, len([*same]))
      self.assertEqual(advice.experiments_left, 12 - number)
      if number < 12:
        self.assertEqual(advice.stop, advice.unchanged >= 4 + 0.15 * 12)
        low, high = best.prediction.interval
        gains.append(advice.expected_gain / (high - low))
      else:
        self.assertTrue(advice.stop)
        self.assertEqual(advice.expected_gain, 0)
    self.assertEqual(acme_cbo.Study.open(self._path).stop_advice(), advice)
    # The fewer are left, the less there is to gain.
    steps = -np.diff(gains)
    self.assertGreater(steps[0], 0)
    np.testing.assert_allclose(steps, steps[0])

  def test_a_variable_that_is_removed_stays_in_what_is_pending(self):
    study = self._create()
    (trial,) = study.suggest(only=['a'])
    study.change(variables={'a': None})
    (pending,) = study.pending()
    self.assertEqual(pending.do, trial.do)

  def test_the_runner_up_is_allowed(self):
    study = self._create()
    study.observe(None, {'y': 90.0}, do={'w': 3})
    study.observe(None, {'y': 1.0}, do={'b': 1})
    study.observe(None, {'y': 0.0}, do={'b': -1})
    best: Any = study.recommend()
    self.assertCountEqual([best.do, best.runner_up], [{'b': 1}, {'b': -1}])

  def test_records_that_set_what_is_no_column(self):
    study = self._create()
    table = _records().assign(z=1.0, intervention_targets='z')
    with self.assertRaisesRegex(errors.UsageError, "row 0 .* sets 'z'"):
      study.add_records(table)

  def test_numbers_of_trials_are_not_taken_for_a_counter(self):
    study = self._create()
    trials = study.suggest(5)
    rows = [_experiment(trial.do, self._rng) for trial in trials]
    table = pd.DataFrame(rows).assign(experiment=range(1, 6))
    warned = len(study.warnings)
    self.assertEqual(study.observe_table(table), [1, 2, 3, 4, 5])
    self.assertEmpty(study.warnings[warned:])

  def test_past_experiments_do_not_tell_when_to_stop(self):
    records = _records()
    records['intervention_targets'] = ['b'] * 10 + [''] * 10
    study = self._create(data=records)
    advice = study.stop_advice()
    self.assertEqual((advice.stop, advice.unchanged), (False, 0))
    self.assertIn('is new', advice.reason)


if __name__ == '__main__':
  absltest.main()
