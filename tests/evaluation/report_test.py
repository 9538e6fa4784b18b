import contextlib
import io
import re
from typing import Any

from absl.testing import absltest
import numpy as np
import pandas as pd

from acme_cbo.evaluation import report
from acme_cbo.experiments import presets
from acme_cbo.policies import saving


def _score(mean, low, high):
  return {
    'mean': mean,
    'interval': [low, high],
    'iqm': mean + 0.1,
    'iqm_interval': [low, high],
  }


def _entry(first, mean, last, families):
  reach = 0.125
  scores = {
    f'score_{name}': _score(value, value - reach, value + reach)
    for name, value in (
      ('first', first),
      ('mean', mean),
      ('best', max(first, last)),
      ('last', last),
    )
  }
  by_family = {
    family: {'score_last': _score(value, value, value)}
    for family, value in families.items()
  }
  return {**scores, 'by_family': by_family}


_EVALUATION = {
  'slope': _entry(0.5, 0.5, 0.25, {'fourier': 0.125, 'linear': 0.75}),
  'oracle': _entry(1.0, 1.0, 1.0, {'linear': 1.0, 'nonlinear': 1.0}),
  'b': _entry(1.5, -1.0, -1.5, {}),
}


def _cells(line):
  """Returns {end: cell} of a line whose cells are separated by two blanks."""
  matches = re.finditer(r'\S+(?: \S+)*', line)
  return {match.end(): match.group() for match in matches}


class ScoreTableTest(absltest.TestCase):
  def test_by_hand(self):
    head, *lines = report.score_table(_EVALUATION).splitlines()
    names = {
      end: name for end, name in _cells(head).items() if name != 'policy'
    }
    self.assertEqual(
      '; '.join(names.values()),
      'first; mean; best; last; last, IQM; linear; nonlinear; fourier',
    )
    table = {}
    for line in lines:
      (_, policy), *cells = _cells(line).items()
      # Raises a KeyError unless numbers are aligned with the column names.
      table[policy] = {names[end]: cell for end, cell in cells}
    self.assertEqual(list(table), ['oracle', 'slope', 'b'])  # By last score.
    self.assertEqual(
      table['slope'],
      {
        'first': '0.50 [0.38, 0.62]',
        'mean': '0.50 [0.38, 0.62]',
        'best': '0.50 [0.38, 0.62]',
        'last': '0.25 [0.12, 0.38]',
        'last, IQM': '0.35',
        'linear': '0.75',
        'fourier': '0.12',
      },
    )
    self.assertEqual(
      table['b'],
      {
        'first': '1.50 [1.38, 1.62]',
        'mean': '-1.00 [-1.12, -0.88]',
        'best': '1.50 [1.38, 1.62]',
        'last': '-1.50 [-1.62, -1.38]',
        'last, IQM': '-1.40',
      },
    )


class DifferenceTableTest(absltest.TestCase):
  def test_by_hand(self):
    text = report.difference_table(
      'grpo',
      {
        'random': {
          'score_mean': _score(0.5, 0.25, 0.75),
          'score_last': _score(0.5, 0.125, 0.875),
        },
        'oracle': {
          'score_mean': _score(-0.5, -0.75, -0.25),
          'score_last': _score(-0.5, -0.75, -0.25),
        },
        # Above in one of the two only.
        'slope': {
          'score_mean': _score(0.5, 0.25, 0.75),
          'score_last': _score(0.25, -0.25, 0.75),
        },
      },
      0.99,
    )
    head, *lines = map(_cells, text.splitlines())
    self.assertEqual(
      list(head.values()),
      ['grpo minus', 'mean', 'last', 'at 99%'],
    )
    above, below = '+0.50 [+0.25, +0.75]', '-0.50 [-0.75, -0.25]'
    self.assertEqual(
      [list(line.values()) for line in lines],
      [
        ['random', above, '+0.50 [+0.12, +0.88]', 'above'],
        ['oracle', below, below, 'below'],
        ['slope', above, '+0.25 [-0.25, +0.75]', 'undecided'],
      ],
    )
    (ends,) = {tuple(line)[1:] for line in lines}
    self.assertEqual(tuple(head)[1:], ends)

  def test_an_interval_that_ends_at_0_is_undecided(self):
    for low, high in ((0.0, 1.0), (-1.0, 0.0)):
      score = _score(0.5, low, high)
      text = report.difference_table(
        'a', {'b': {'score_mean': score, 'score_last': score}}, 0.9
      )
      self.assertEndsWith(text, 'undecided')


class ModelCardTest(absltest.TestCase):
  def test_its_code_runs(self):
    config = presets.preset().to_dict()
    config['horizon']['num_interventions'] = 3
    card = report.model_card(
      {
        'name': 'grpo',
        'seed': 0,
        'updates': 1,
        'parameters': 1,
        'simple_regret_share': 0.0,
        'regret_floor': 0.0,
        'described': '',
        'confidence': 0.99,
        'evaluation': {},
        'grpo_minus': {},
        'belief': {},
      },
      config,
      [
        {
          'command': 'acme-cbo train',
          'git': None,
          'versions': {'jax': '1'},
          'devices': ['cpu'],
        }
      ],
      str(saving.SHIPPED),
    )
    (code,) = re.findall('```python\n(.*?)```', card, re.DOTALL)
    made = []

    def experiment(do):
      made.append(do)
      return {'x': 0.0, 'z': 0.0, 'y': 0.0} | do

    rows = np.random.default_rng(0).normal(size=(20, 3))
    names: dict[str, Any] = {
      'records': pd.DataFrame(rows, columns=['x', 'z', 'y']),
      'experiment': experiment,
    }
    with contextlib.redirect_stdout(io.StringIO()) as printed:
      exec(code, names)  # noqa: S102
    self.assertLen(made, 3)
    self.assertEqual(names['session'].num_observed, 3)
    self.assertRegex(printed.getvalue(), r"^\{'[xz]': ")


class BeliefTableTest(absltest.TestCase):
  def test_shows_the_first_and_the_last_step(self):
    quality = {'f1': [0.1, 0.9, 0.2], 'auroc': [0.5, 0.6], 'ece': [0.3, 0.04]}
    text = report.belief_table({'learned': {'all': quality, 'linear': quality}})
    head, *lines = (line.split() for line in text.splitlines())
    self.assertEqual(head[:4], ['belief', 'SCMs', 'F1', 'AUROC'])
    numbers = ['0.10', '->', '0.20', '0.50', '->', '0.60', '0.30', '->', '0.04']
    self.assertEqual(
      lines, [['learned', 'all', *numbers], ['learned', 'linear', *numbers]]
    )


class FormatIntervalTest(absltest.TestCase):
  def test_by_hand(self):
    entry = {'mean': 1.25, 'interval': [-0.5, 2.0]}
    self.assertEqual(report.format_interval(entry), '1.25 [-0.50, 2.00]')
    self.assertEqual(
      report.format_interval(entry, sign=True, decimals=1), '+1.2 [-0.5, +2.0]'
    )
    self.assertEqual(
      report.format_interval({'mean': 1.25, 'interval': None}), '1.25'
    )


if __name__ == '__main__':
  absltest.main()
