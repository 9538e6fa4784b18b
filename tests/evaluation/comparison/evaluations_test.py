"""Tests of reading evaluations from directories and tables."""

import json
import os
import pathlib
import tempfile

from absl.testing import absltest
from absl.testing import parameterized

from acme_cbo.evaluation import aggregate
from acme_cbo.evaluation import episode_store
from acme_cbo.evaluation import episodes
from acme_cbo.evaluation import tables
from acme_cbo.evaluation.comparison import evaluations
from acme_cbo.evaluation.comparison import measures
from acme_cbo.infra import errors

_PROTOCOL = {
  'observations': 4,
  'interventions': 2,
  'samples': 1,
  'budget': None,
  'edges': 'unknown',
  'seed': 0,
}


def _episode(method='slope', repeat=0, goal=-1.0):
  expected = [0.0, -1.0]
  return episodes.Episode(
    method=method,
    scm='toy',
    repeat=repeat,
    goal=goal,
    no_intervention=1.0,
    optimum=-1.0,
    steps={
      'variables': ['A', 'B'],
      'values': ['0.5', '1'],
      'outcome': [0.1, -1.2],
      'expected_outcome': expected,
      'best_expected': expected,
      'recommended_expected': expected,
      'score': [0.5, 1.0],
      'seconds': [0.1, 0.3],
    },
    causes=[True, False],
    parent_probabilities={'learned': [0.9, 0.1]},
    predicted={},
  )


class EvaluationsTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.out = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
    self.csv = self.out / 'results.csv'

  def _write(self, *written, repeats=1, scms=('toy',)):
    lines = b''.join(episode_store.encode(x) + b'\n' for x in written)
    (self.out / 'episodes.jsonl').write_bytes(lines)
    config = _PROTOCOL | {
      'methods': dict.fromkeys((x.method for x in written), ''),
      'scms': dict.fromkeys(scms, ''),
      'repeats': repeats,
    }
    (self.out / 'config.json').write_text(json.dumps(config))
    aggregate.table(written).to_csv(self.csv, index=False)

  def test_a_directory(self):
    written = [_episode(), _episode('random')]
    self._write(*written)
    self.assertTrue(evaluations.is_evaluation(self.out))
    evaluation = evaluations.read(self.out)
    self.assertEqual(
      evaluation.methods, {'slope': written[:1], 'random': written[1:]}
    )
    self.assertEqual(evaluation.protocol, _PROTOCOL)

  def test_a_table_equals_the_directory_without_beliefs(self):
    self._write(_episode(), _episode('random'))
    self.assertTrue(evaluations.is_evaluation(self.csv))
    evaluation = evaluations.read(self.csv)
    self.assertEqual(list(evaluation.methods), ['slope', 'random'])
    self.assertEqual(evaluation.protocol, {'interventions': 2})
    (episode,) = evaluation.methods['slope']
    from_table = measures.episode_measures(episode, 2)
    expected = measures.episode_measures(_episode(), 2)
    self.assertEqual(expected.pop('parent_f1'), 1.0)
    # NaN differs from itself.
    self.assertNotEqual(from_table['parent_f1'], from_table.pop('parent_f1'))
    self.assertEqual(from_table, expected)

  def test_methods_of_a_table_with_unequal_steps(self):
    short = _episode('random')
    short = short._replace(steps={n: x[:1] for n, x in short.steps.items()})
    self._write(_episode(), short)
    with self.assertRaisesRegex(
      errors.UsageError,
      'slope has 2 interventions on toy, repeat 0, and random 1 on toy, repeat',
    ):
      evaluations.read(self.csv)

  def test_a_name_like_a_formula_is_the_same_in_the_table(self):
    name = "=cmd|' /C calc'!A0"
    self._write(_episode(name))
    self.csv.write_text(tables.to_csv(aggregate.table([_episode(name)])))
    self.assertIn(f"\n'{name}", self.csv.read_text())
    for path in (self.out, self.csv):
      self.assertEqual(list(evaluations.read(path).methods), [name])

  def test_a_pipe_is_no_table(self):
    os.mkfifo(self.csv)
    with self.assertRaisesRegex(errors.UsageError, 'results.csv .* is a pipe'):
      evaluations.read(self.csv)

  def test_a_method_may_be_called_na(self):
    self._write(_episode('NA'), _episode('None'))
    self.assertEqual(list(evaluations.read(self.csv).methods), ['NA', 'None'])

  def test_reading_leaves_a_torn_line_alone(self):
    self._write(_episode())
    log = self.out / 'episodes.jsonl'
    with log.open('ab') as file:
      file.write(b'{"method": "sl')
    content = log.read_bytes()
    self.assertLen(evaluations.read(self.out).methods['slope'], 1)
    self.assertEqual(log.read_bytes(), content)

  def test_an_unfinished_evaluation(self):
    self._write(_episode(), repeats=3)
    with self.assertRaisesRegex(
      errors.UsageError,
      'not finished: on toy, some of the 3 repeats are missing',
    ):
      evaluations.read(self.out)

  def test_a_method_without_one_of_the_scms_is_left_out(self):
    written = [_episode(), _episode('random'), _episode()._replace(scm='psa')]
    self._write(*written, scms=('toy', 'psa'))
    evaluation = evaluations.read(self.out)
    self.assertEqual(list(evaluation.methods), ['slope'])
    self.assertRegex(
      evaluation.remarks[0], 'random of .* was not evaluated on psa, and'
    )
    self._write(*written, scms=('toy', 'psa', 'complete'))
    with self.assertRaisesRegex(errors.UsageError, 'finished: on complete,'):
      evaluations.read(self.out)

  @parameterized.parameters(
    ('optimum', None, 'lacks the columns optimum;'),
    ('score', 'high', 'line 3: score is high; it must be a finite number'),
    ('seconds', float('inf'), 'line 3: seconds is inf'),
    ('method', '', 'line 3: method is empty; it must be a name'),
    ('method', 'a\x1b[2J', 'it must be a name without control characters'),
    ('scm', 'x' * 1001, 'of at most 1000 characters'),
    ('score', 70.0, 'has a score of 70, but the best is 1; a score is a sha'),
    ('expected_outcome', -2.0, 'outcome of -2, which is better than the opt'),
    ('seconds', -1.0, 'has a decision of -1 seconds'),
    ('repeat', 0.5, 'line 3: repeat is 0.5; it must be a whole number'),
    ('score', 1e308, r'line 3: score is 1e\+308; it must be a finite number'),
    ('optimum', 2.0, 'optimum is not the same in all steps of slope on toy'),
    ('step', 3, r'the steps of slope on toy, repeat 0, are 1, 3; they must'),
  )
  def test_an_invalid_table(self, column, value, sentence):
    self._write(_episode())
    table = aggregate.table([_episode()]).reset_index(drop=True)
    if value is None:
      table = table.drop(columns=column)
    else:
      table = table.astype({column: object})
      table.loc[1, column] = value
    table.to_csv(self.csv, index=False)
    with self.assertRaisesRegex(errors.UsageError, sentence):
      evaluations.read(self.csv)

  def test_rows_with_more_values_than_columns(self):
    self._write(_episode())
    header, *rows = self.csv.read_text().splitlines()
    self.csv.write_text('\n'.join([header, *(f'{row},' for row in rows)]))
    with self.assertRaisesRegex(errors.UsageError, 'more values than names of'):
      evaluations.read(self.csv)

  @parameterized.parameters(b'', b'a,b\n"', b'\xff\xfe\x00')
  def test_a_file_that_is_no_table(self, content):
    self.csv.write_bytes(content)
    with self.assertRaisesRegex(errors.UsageError, 'results.csv'):
      evaluations.read(self.csv)

  def test_nothing_to_gain(self):
    self._write(_episode()._replace(optimum=1.0))
    with self.assertRaisesRegex(errors.UsageError, 'has nothing to gain'):
      evaluations.read(self.csv)

  def test_mismatches(self):
    path = pathlib.Path('e')
    first, other = (
      evaluations.Evaluation(path, {}, protocol, scms)
      for protocol, scms in (
        (_PROTOCOL, {'a': '1', 'b': '2'}),
        (_PROTOCOL | {'seed': 1, 'budget': 5.0}, {'b': '3', 'c': '4'}),
      )
    )
    self.assertEqual(
      evaluations.find_mismatches(first, other),
      [
        'budget is 5.0, not None',
        'seed is 1, not 0',
        'b is another SCM of that name',
      ],
    )
    # A table has less of the protocol.
    table = evaluations.Evaluation(path, {}, {'interventions': 2}, {})
    self.assertEmpty(evaluations.find_mismatches(first, table))
    short = evaluations.Evaluation(path, {}, {'interventions': 1}, {})
    self.assertEqual(
      evaluations.find_mismatches(first, short), ['interventions is 1, not 2']
    )

  @parameterized.parameters(
    dict(optimum=float('nan')),
    dict(optimum=1.0),
    dict(optimum=1e101),
    dict(optimum=-2.0),
    dict(steps={'score': [1.0]}),
    dict(steps={}),
    dict(
      steps={name: 3 * [1.0] for name in _episode().steps if name[0] in 'bors'}
    ),
    dict(
      steps={
        'score': [float('nan')],
        'expected_outcome': [1.0],
        'seconds': [1.0],
      }
    ),
    dict(parent_probabilities={'learned': [0.1]}),
    dict(parent_probabilities={'learned': [0.1, 2.0]}),
    dict(repeat='0'),
    dict(method='x' * 10**6),
    dict(scm='\x07'),
  )
  def test_a_damaged_episode(self, **changes):
    self._write(_episode('random'))
    values = _episode()._replace(**changes)._asdict()
    values['believed'] = values.pop('parent_probabilities')
    with (self.out / 'episodes.jsonl').open('a') as file:
      file.write(f'{json.dumps(values)}\n')
    with self.assertRaisesRegex(
      errors.UsageError,
      'jsonl, line 2, is d|jsonl is damaged: the episode of slope on toy, rep',
    ):
      evaluations.read(self.out)


if __name__ == '__main__':
  absltest.main()
