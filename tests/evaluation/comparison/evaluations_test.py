"""Evaluations that are read back from their directories and tables."""

import json
import pathlib
import tempfile

from absl.testing import absltest
from absl.testing import parameterized

from acme_cbo.evaluation import aggregate
from acme_cbo.evaluation import episode_store
from acme_cbo.evaluation import episodes
from acme_cbo.evaluation.comparison import evaluations
from acme_cbo.evaluation.comparison import measures
from acme_cbo.infra import errors

_PROTOCOL = {
  'observations': 4,
  'interventions': 2,
  'samples': 1,
  'budget': None,
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
      'variables': [['A'], ['B']],
      'values': [[0.5], [1.0]],
      'outcome': [0.1, -1.2],
      'expected_outcome': expected,
      'best_expected': expected,
      'recommended_expected': expected,
      'score': [0.5, 1.0],
      'seconds': [0.1, 0.3],
    },
    causes=[True, False],
    believed={'learned': [0.9, 0.1]},
  )


class EvaluationsTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.out = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
    self.csv = self.out / 'results.csv'

  def _write(self, *played, repeats=1, scms=('toy',)):
    lines = b''.join(episode_store.encoded(one) + b'\n' for one in played)
    (self.out / 'episodes.jsonl').write_bytes(lines)
    config = _PROTOCOL | {'scms': dict.fromkeys(scms, ''), 'repeats': repeats}
    (self.out / 'config.json').write_text(json.dumps(config))
    aggregate.table(played).to_csv(self.csv, index=False)

  def test_a_directory(self):
    played = [_episode(), _episode('random')]
    self._write(*played)
    self.assertTrue(evaluations.is_one(self.out))
    found = evaluations.read(self.out)
    self.assertEqual(found.methods, {'slope': played[:1], 'random': played[1:]})
    self.assertEqual(found.protocol, _PROTOCOL)

  def test_a_table_says_the_same_but_of_beliefs(self):
    self._write(_episode(), _episode('random'))
    self.assertTrue(evaluations.is_one(self.csv))
    found = evaluations.read(self.csv)
    self.assertEqual(list(found.methods), ['slope', 'random'])
    self.assertEqual(found.protocol, {'interventions': 2})
    (read,) = found.methods['slope']
    of_table = measures.of_episode(read, 2)
    of_episode = measures.of_episode(_episode(), 2)
    self.assertEqual(of_episode.pop('parent_f1'), 1.0)
    self.assertNotEqual(of_table['parent_f1'], of_table.pop('parent_f1'))
    self.assertEqual(of_table, of_episode)

  def test_a_method_may_be_called_anything(self):
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

  def test_one_that_is_not_finished(self):
    self._write(_episode(), repeats=3)
    with self.assertRaisesRegex(
      errors.UsageError, 'not finished: on toy not all of 3 repeats'
    ):
      evaluations.read(self.out)

  def test_who_cannot_play_on_one_of_them_is_left_out(self):
    played = [_episode(), _episode('random'), _episode()._replace(scm='psa')]
    self._write(*played, scms=('toy', 'psa'))
    found = evaluations.read(self.out)
    self.assertEqual(list(found.methods), ['slope'])
    self.assertRegex(found.remarks[0], 'random of .* did not play on psa, and')
    self._write(*played, scms=('toy', 'psa', 'complete'))
    with self.assertRaisesRegex(errors.UsageError, 'finished: on complete'):
      evaluations.read(self.out)

  @parameterized.parameters(
    ('optimum', None, 'lacks the columns optimum;'),
    ('score', 'high', 'line 3: score is high; it must be a finite number'),
    ('seconds', float('inf'), 'line 3: seconds is inf'),
    ('method', '', 'line 3: method is empty; it must be a name'),
    ('repeat', 0.5, 'line 3: repeat is 0.5; it must be a whole number'),
    ('score', 1e308, r'line 3: score is 1e\+308; it must be a finite number'),
    ('optimum', 2.0, 'optimum is not the same in all steps of slope on toy'),
    ('step', 3, r'the steps of slope on toy, repeat 0, are 1, 3; they must'),
  )
  def test_a_table_that_is_none(self, column, value, sentence):
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

  @parameterized.parameters(b'', b'a,b\n"', b'\xff\xfe\x00')
  def test_what_is_no_table(self, content):
    self.csv.write_bytes(content)
    with self.assertRaisesRegex(errors.UsageError, 'results.csv'):
      evaluations.read(self.csv)

  def test_nothing_to_gain(self):
    self._write(_episode()._replace(optimum=1.0))
    with self.assertRaisesRegex(errors.UsageError, 'nothing can be gained'):
      evaluations.read(self.csv)

  def test_what_differs(self):
    path = pathlib.Path('e')
    first, other = (
      evaluations.Evaluation(path, {}, protocol, scms)
      for protocol, scms in (
        (_PROTOCOL, {'a': '1', 'b': '2'}),
        (_PROTOCOL | {'seed': 1, 'budget': 5.0}, {'b': '3', 'c': '4'}),
      )
    )
    self.assertEqual(
      evaluations.mismatches(first, other),
      [
        'budget is 5.0, not None',
        'seed is 1, not 0',
        'b is another SCM of that name',
      ],
    )
    # Of a table less is known.
    table = evaluations.Evaluation(path, {}, {'interventions': 2}, {})
    self.assertEmpty(evaluations.mismatches(first, table))
    short = evaluations.Evaluation(path, {}, {'interventions': 1}, {})
    self.assertEqual(
      evaluations.mismatches(first, short), ['interventions is 1, not 2']
    )

  @parameterized.parameters(
    dict(optimum=float('nan')),
    dict(optimum=1.0),
    dict(steps={'score': [1.0]}),
    dict(
      steps={
        'score': [float('nan')],
        'expected_outcome': [1.0],
        'seconds': [1.0],
      }
    ),
    dict(believed={'learned': [0.1]}),
    dict(repeat='0'),
  )
  def test_a_damaged_episode(self, **changes):
    self._write(_episode('random'))
    damaged = json.dumps(_episode()._replace(**changes)._asdict())
    with (self.out / 'episodes.jsonl').open('a') as file:
      file.write(f'{damaged}\n')
    with self.assertRaisesRegex(
      errors.UsageError, 'the episode of slope on toy, repeat .*0.*, is damaged'
    ):
      evaluations.read(self.out)


if __name__ == '__main__':
  absltest.main()
