"""Tests of complete, cut off, damaged and foreign output directories."""

import json
import pathlib
import tempfile

from absl.testing import absltest
from absl.testing import parameterized
import pytest

from acme_cbo.evaluation import episode_store
from acme_cbo.evaluation import episodes
from acme_cbo.infra import errors
from acme_cbo.infra import run_directory

# An episode without the columns of texts, which older versions do not have.
_STEPS = {
  name: [0.5]
  for name in episodes.COLUMNS
  if not name.endswith(('variables', 'values'))
}
_CONFIG = {
  'observations': 100,
  'interventions': 40,
  'samples': 1,
  'budget': None,
  'edges': 'unknown',
  'seed': 0,
  'repeats': 5,
  'methods': {'grpo': 'abc', 'random': ''},
  'scms': {'toy': '', 'mine': 'def'},
}


def _episode(method='random', repeat=0, scm='toy', **changes):
  steps = _STEPS | changes
  return episodes.Episode(
    method,
    scm,
    repeat,
    1.0,
    0.1,
    1 / 3,
    steps,
    [True],
    {'b': [0.1 + 0.2]},
    {'mean': 1.0, 'low': 1 / 3, 'high': 1.5, 'crps': 0.1},
  )


def _by_key(*finished):
  return {episode_store.key(episode): episode for episode in finished}


_FINISHED = _by_key(_episode('grpo'), _episode('random', 4, 'mine'))


class _TestCase(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    root = self.enterContext(tempfile.TemporaryDirectory())
    self.out = pathlib.Path(root) / 'out'


class EpisodeLogTest(_TestCase):
  def setUp(self):
    super().setUp()
    self.out.mkdir()
    self.path = self.out / 'episodes.jsonl'

  def _append(self, *written):
    log = episode_store.EpisodeLog(self.out)
    for episode in written:
      self.assertEqual(log.append(episode_store.encode(episode)), episode)
    return log

  def test_every_bit_is_restored(self):
    written = [_episode(repeat=i, score=[0.1 * i + 1e-17]) for i in range(3)]
    self._append(*written)
    restored = episode_store.EpisodeLog(self.out).episodes
    self.assertEqual(list(restored.values()), written)
    self.assertEqual(list(restored), [('random', 'toy', i) for i in range(3)])

  def test_an_empty_directory_holds_none(self):
    self.assertEmpty(episode_store.EpisodeLog(self.out).episodes)

  @pytest.mark.fault
  def test_last_line_cut_off_anywhere(self):
    self._append(_episode(), _episode(repeat=1))
    content = self.path.read_bytes()
    first = content.index(b'\n') + 1
    for size in range(first, len(content)):
      self.path.write_bytes(content[:size])
      log = self._append()
      self.assertEqual(list(log.episodes), [('random', 'toy', 0)])
      self.assertEqual(self.path.read_bytes(), content[:first])
    # The episode that is run again is complete.
    self._append(_episode(repeat=1))
    self.assertEqual(self.path.read_bytes(), content)

  @pytest.mark.fault
  def test_first_line_cut_off(self):
    self._append(_episode())
    self.path.write_bytes(self.path.read_bytes()[:-1])
    self.assertEmpty(self._append().episodes)
    self.assertEqual(self.path.read_bytes(), b'')

  @parameterized.parameters(b'nonsense', b'{}', b'[]', b'\xff\xfe', b'')
  @pytest.mark.fault
  def test_damage_before_the_last_line_is_named(self, line):
    self._append(_episode())
    complete = episode_store.encode(_episode(repeat=1))
    with self.path.open('ab') as file:
      file.write(line + b'\n' + complete + b'\n')
    with self.assertRaisesRegex(
      errors.UsageError, r'jsonl, line 2, is damaged.*; remove the line'
    ):
      episode_store.EpisodeLog(self.out)

  @parameterized.parameters(
    ({'method': 5}, 'method is 5'),
    ({'repeat': -1}, 'repeat is -1'),
    ({'repeat': True}, 'repeat is True'),
    ({'goal': 0}, 'goal is 0'),
    ({'optimum': '1'}, "optimum is '1'"),
    ({'causes': [1]}, r'causes is \[1\]'),
    ({'steps': []}, r'steps is \[\]'),
    ({'steps': _STEPS | {'score': ['1']}}, r"score is \['1'\], for 1 scores"),
    ({'steps': _STEPS | {'seconds': [1.0, 2.0]}}, r'2.0\], for 1 s'),
    ({'steps': _STEPS | {'values': [0.5]}}, r'values is \[0.5\], for'),
    ({'steps': {}}, 'it has no outcome'),
    ({'steps': _STEPS | {'score': []}}, 'it has no score'),
    ({'steps': _STEPS | {'seconds': [-1.0]}}, 'a decision of -1 seconds'),
    ({'optimum': 0.1}, 'optimum is 0.1'),
    ({'optimum': 1e200}, r'optimum is 1e\+200'),
    ({'method': 'x' * 1001}, 'method is .xxx'),
    ({'predicted': {'mean': 1.0}}, "predicted is {'mean': 1.0}"),
    ({'predicted': [1.0]}, r'predicted is \[1.0\]'),
    ({'believed': {'learned': [1.5]}}, r'the belief learned is \[1.5\]'),
    ({'believed': {'learned': 'x'}}, "the belief learned is 'x', for 1 cand"),
    ({'believed': {'learned': [0.1, 0.2]}}, r'\[0.1, 0.2\], for 1 candidates'),
    ({'more': 1}, "unexpected keyword argument 'more'"),
  )
  def test_a_value_of_another_type_is_named(self, change, sentence):
    values = json.loads(episode_store.encode(_episode(score=[1.0])))
    self.path.write_text(json.dumps(values | change) + '\n')
    with self.assertRaisesRegex(
      errors.UsageError, f'jsonl, line 1, is damaged: .*{sentence}'
    ):
      episode_store.EpisodeLog(self.out)

  @pytest.mark.fault
  def test_the_same_episode_twice_is_refused(self):
    self._append(_episode())
    with self.path.open('ab') as file:
      file.write(self.path.read_bytes())
    with self.assertRaisesRegex(errors.UsageError, 'two episodes of'):
      episode_store.EpisodeLog(self.out)

  def test_non_finite_values_are_not_written(self):
    with self.assertRaises(ValueError):
      episode_store.encode(_episode(score=[float('nan')]))

  def test_order(self):
    log = self._append(
      _episode('b', 1), _episode('a', 1), _episode('b', 0), _episode('a', 0)
    )
    keys = [episode_store.key(e) for e in log.ordered(['toy'], ['b', 'a'])]
    self.assertEqual(keys, [(m, 'toy', i) for m in 'ba' for i in (0, 1)])


class DirectoryTest(_TestCase):
  def _begin(self, finished=None, **changes):
    run_directory.prepare_resumable(
      self.out, '--out', 'an evaluation', 'methods'
    )
    return episode_store.record_start(
      self.out, _CONFIG | changes, ['a device'], finished or {}
    )

  def test_makes_a_new_directory(self):
    self.out = self.out / 'a' / 'b'
    self._begin()
    config = json.loads((self.out / 'config.json').read_text())
    self.assertEqual(config, _CONFIG)

  @parameterized.parameters(
    ({'scms': 5}, 'scms is 5; it must be an object of digests'),
    ({'methods': {'a': 1}}, "methods is {'a': 1}; it must be an object of"),
    ({'interventions': 10**12}, 'interventions is 1000000000000; it must be'),
    ({'interventions': None}, 'interventions is None; it must be a number'),
    ({'repeats': 'all'}, "repeats is 'all'; it must be a number"),
  )
  def test_a_config_of_another_form_is_damaged(self, change, sentence):
    self._begin()
    (self.out / 'config.json').write_text(json.dumps(_CONFIG | change))
    with self.assertRaisesRegex(
      errors.UsageError, f'config.json is damaged: {sentence}'
    ):
      self._begin()

  def test_a_directory_with_a_link_is_not_continued(self):
    self._begin()
    outside = self.out.parent / 'mine'
    outside.write_text('mine')
    (self.out / 'episodes.jsonl').symlink_to(outside)
    with self.assertRaisesRegex(errors.UsageError, 'episodes.jsonl is a link'):
      self._begin()
    # Of a first start that was killed.
    for path in self.out.iterdir():
      path.unlink()
    (self.out / 'config.json.new').symlink_to(outside)
    with self.assertRaisesRegex(errors.UsageError, 'config.json.new is a link'):
      self._begin()
    self.assertEqual(outside.read_text(), 'mine')

  @parameterized.parameters(
    {},
    dict(repeats=6),
    dict(methods={'slope': '', 'grpo': 'abc', 'random': ''}),
    dict(scms={'toy': '', 'mine': 'def', 'psa': ''}),
  )
  def test_resumes_with_the_same_or_more(self, **changes):
    self._begin()
    self.assertLen(self._begin(_FINISHED, **changes), 2)
    config = json.loads((self.out / 'config.json').read_text())
    self.assertEqual(config, _CONFIG | changes)

  @parameterized.parameters(
    (dict(observations=50), 'observations was 100 and is 50'),
    (dict(interventions=41), 'interventions was 40 and is 41'),
    (dict(samples=2), 'samples was 1 and is 2'),
    (dict(budget=3.5), 'budget was None and is 3.5'),
    (dict(seed=1), 'seed was 0 and is 1'),
    (dict(repeats=4), 'repeats was 5 and is 4'),
    (dict(methods={'grpo': 'abc'}), 'random was among the methods and is not'),
    (
      dict(methods={'grpo': 'xyz', 'random': ''}),
      'the trained policy of grpo has changed',
    ),
    (dict(scms={'mine': 'def'}), 'toy was among the scms and is not'),
    (
      dict(scms={'toy': '', 'mine': 'xyz'}),
      'the SCM mine has changed',
    ),
  )
  def test_refuses_another_evaluation(self, changes, sentence):
    self._begin()
    with self.assertRaisesRegex(
      errors.UsageError, f'holds another evaluation: {sentence}; choose'
    ):
      self._begin(_FINISHED, **changes)
    # Nothing was touched.
    config = json.loads((self.out / 'config.json').read_text())
    self.assertEqual(config, _CONFIG)
    # Without finished episodes every setting may change.
    self._begin(**changes)
    config = json.loads((self.out / 'config.json').read_text())
    self.assertEqual(config, _CONFIG | changes)

  @parameterized.parameters(
    (dict(scm='mine'), dict(repeat=5), 'is not one of the 5 repeats'),
    (dict(), dict(score=[0.5] * 41), 'has more than 40 interventions'),
    (dict(), dict(optimum=0.5), 'differs from another method in the goal, the'),
    (dict(), dict(causes=[False]), 'differs from another method in the goal,'),
    (
      dict(method='grpo', repeat=1),
      dict(parent_probabilities={}),
      'has other beliefs than another repeat',
    ),
  )
  def test_refuses_episodes_that_contradict(self, key, changes, sentence):
    self._begin()
    steps = {k: x for k, x in changes.items() if k in _STEPS}
    fields = {k: x for k, x in changes.items() if k not in steps}
    odd = _episode(**key, **steps)._replace(**fields)
    with self.assertRaisesRegex(
      errors.UsageError, f'jsonl is damaged: .* on .*, {sentence}'
    ):
      self._begin(_by_key(_episode('grpo'), odd))

  def test_methods_and_scms_without_episodes_may_be_left_out(self):
    self._begin()
    finished = _by_key(_episode(), _episode(repeat=2))
    fewer = dict(methods={'random': ''}, scms={'toy': ''}, repeats=3)
    self._begin(finished, **fewer)
    with self.assertRaisesRegex(errors.UsageError, 'repeats was 3 and is 2'):
      self._begin(finished, **fewer | dict(repeats=2))

  def test_refuses_a_directory_of_something_else(self):
    self.out.mkdir()
    (self.out / 'thesis.tex').write_text('')
    with self.assertRaisesRegex(errors.UsageError, 'contains something other'):
      self._begin()
    (self.out / 'config.json').write_text('{"name": "a training"}')
    with self.assertRaisesRegex(errors.UsageError, 'contains something other'):
      self._begin()

  @pytest.mark.fault
  def test_starts_after_a_kill_during_the_first_start(self):
    # `record_start` writes the environment first, each file as .new and then
    # renamed.
    self._begin()
    for left in (
      ['environment.json.new'],
      ['environment.json'],
      ['environment.json', 'config.json.new'],
    ):
      for path in self.out.iterdir():
        path.unlink()
      for name in left:
        text = '{"starts": []}' if name == 'environment.json' else '{'
        (self.out / name).write_text(text)
      self._begin()
      config = json.loads((self.out / 'config.json').read_text())
      self.assertEqual(config, _CONFIG)

  def test_refuses_a_file(self):
    self.out.write_text('')
    with self.assertRaisesRegex(errors.UsageError, 'cannot be created, read'):
      self._begin()


if __name__ == '__main__':
  absltest.main()
