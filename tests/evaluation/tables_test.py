from absl.testing import absltest
from absl.testing import parameterized
import pandas as pd

from acme_cbo.evaluation import tables


def _entry(mean, interval=True):
  around = [mean - 0.25, mean + 0.25] if interval else None
  return {'mean': mean, 'interval': around}


def _method(best, score, seconds, interval=True, parents=None):
  return {
    'best_expected': _entry(best, interval),
    'recommended_expected': _entry(best, interval),
    'score': _entry(score, interval),
    'simple_regret': _entry(1.0),
    'mean_regret': _entry(2.0),
    'gap': _entry(score),
    'gap_speed': _entry(0.5),
    'parents': parents or {},
    'seconds_per_decision': seconds,
    'interventions': 40.0,
  }


def _summary(interval=True, held_out=(None, None)):
  """Returns the summary of two SCMs; apart from the oracle `grpo` is best."""
  parents = {'learned': {'f1': 0.5, 'auroc': 0.75}, 'x': {'undefined': 'none'}}
  return {
    'settings': {
      'observations': 100,
      'interventions': 40,
      'samples': 1,
      'edges': 'unknown',
      'repeats': 20,
    },
    'confidence': 0.95,
    'warnings': ['beware'],
    'scms': {
      'toy': {
        'held_out': held_out[0],
        'fresh': False,
        'goal': -1.0,
        'no_intervention': -0.7,
        'optimum': -2.2,
        'methods': {
          'grpo': _method(-2.0, 0.9, 0.00123, interval, parents),
          'random': _method(-1.5, 0.5, 0.25, interval),
          'oracle': _method(-2.2, 1.0, 1e-5, interval),
        },
      },
      'large': {
        'held_out': held_out[1],
        'fresh': False,
        'goal': 1.0,
        'no_intervention': 0.0,
        'optimum': 2e4,
        'methods': {
          'grpo': _method(150.0, 0.25, 0.001, interval),
          'random': _method(150.0, 0.25, 0.25, interval),
          'oracle': _method(2e4, 1.0, 1e-5, interval),
        },
      },
    },
    'overall': {
      'grpo': {
        'score': _entry(0.6),
        'seconds_per_decision': 0.0011,
        'predicted': {'covered': 0.875, 'crps': 0.1234},
      },
      'random': {
        'score': _entry(0.4),
        'seconds_per_decision': 0.25,
        'predicted': None,
      },
      'oracle': {
        'score': _entry(1.0),
        'seconds_per_decision': 1e-5,
        'predicted': None,
      },
    },
  }


def _rows(page, title):
  """Returns the cells of the table under a title, without the rule."""
  part = page.split(f'## {title}')[1].split('##')[0].replace(r'\|', '!')
  lines = [x for x in part.splitlines() if x.startswith('|')]
  cells = [[c.strip() for c in x[1:-1].split('|')] for x in lines]
  assert len({len(row) for row in cells}) == 1, cells
  assert set(cells[1]) == {'---'}
  return [cells[0], *cells[2:]]


class MarkdownTest(absltest.TestCase):
  def test_a_row_for_each_method_and_a_column_for_each_scm(self):
    head, none, optimum, grpo, random, oracle = _rows(
      tables.markdown(_summary()), 'Best E[Y | do]'
    )
    self.assertEqual(head, ['', 'toy', 'large', 's/decision'])
    # The decimals show a thousandth of the gain.
    self.assertEqual(none, ['no intervention', '-0.700', '0', ''])
    self.assertEqual(optimum, ['optimum', '-2.200', '20000', ''])
    self.assertEqual(
      grpo,
      [
        'grpo',
        '**-2.000 [-2.250, -1.750]**',
        '**150 [150, 150]**',
        '0.0011',
      ],
    )
    self.assertEqual(
      random,
      ['random', '-1.500 [-1.750, -1.250]', '**150 [150, 150]**', '0.25'],
    )
    # The oracle is better, but not ranked.
    self.assertEqual(oracle[1], '-2.200 [-2.450, -1.950]')

  def test_scores_have_a_column_over_all(self):
    head, grpo, random, _ = _rows(tables.markdown(_summary()), 'Score')
    self.assertEqual(head, ['', 'toy', 'large', 'all', 's/decision'])
    self.assertEqual(grpo[1], '**0.90 [0.65, 1.15]**')
    self.assertEqual(grpo[3:], ['**0.60 [0.35, 0.85]**', '0.0011'])
    self.assertEqual(random[3], '0.40 [0.15, 0.65]')

  def test_all_methods_on_all_scms(self):
    head, *rows = _rows(tables.markdown(_summary()), 'All methods')
    self.assertEqual(head[:2], ['SCM', 'method'])
    self.assertEqual(head[-3:], ['F1', 'AUROC', 's/decision'])
    self.assertEqual(
      [row[:2] for row in rows],
      [
        [scm, method]
        for scm in ('toy', 'large')
        for method in ('grpo', 'random', 'oracle')
      ],
    )
    self.assertEqual(
      rows[0][2:],
      [
        '**-2.000 [-2.250, -1.750]**',
        '**-2.000 [-2.250, -1.750]**',
        '**0.90 [0.65, 1.15]**',
        '1.000',
        '2.000',
        '0.90',
        '0.50',
        '0.50',
        '0.75',
        '0.0012',
      ],
    )
    self.assertEqual(rows[1][-3:], ['', '', '0.25'])

  def test_begins_with_the_settings(self):
    page = tables.markdown(_summary())
    self.assertStartsWith(
      page,
      '100 observations, 40 interventions, each outcome a single draw; '
      '20 repeats. In brackets: 95% intervals of the mean.',
    )
    self.assertIn('\n> beware\n', page)
    summary = _summary()
    summary['settings'] |= {'samples': 1000, 'edges': 'known'}
    page = tables.markdown(summary)
    self.assertIn('the mean of 1000 draws; all edges known; 20 repeats', page)

  def test_says_how_good_predictions_are(self):
    page = tables.markdown(_summary())
    self.assertIn('\ngrpo: 88% of the 90% intervals contain E[Y | do] of', page)
    self.assertIn('mean CRPS 0.123 of the gain of the optimum.', page)
    self.assertNotIn('random:', page)

  def test_shows_the_number_of_interventions_within_a_budget(self):
    summary = _summary()
    summary['scms']['toy']['methods']['random']['interventions'] = 7.5
    page = tables.markdown(summary)
    self.assertIn('40 interventions or fewer, each', page)
    head, *rows = _rows(page, 'All methods')
    self.assertEqual(head[2], 'made')
    self.assertEqual([row[2] for row in rows[:2]], ['40.0', '7.5'])

  def test_without_intervals(self):
    *_, grpo, random, oracle = _rows(
      tables.markdown(_summary(interval=False)), 'Best'
    )
    self.assertEqual(
      [row[1] for row in (grpo, random, oracle)],
      ['**-2.000**', '-1.500', '-2.200'],
    )

  def test_outcomes_in_different_units_are_not_averaged(self):
    summary = _summary()
    summary['scms']['toy']['fresh'] = True
    for title in ('Best', 'E[Y'):
      for row in _rows(tables.markdown(summary), title)[1:]:
        self.assertEqual(row[1], '-')
        self.assertNotEqual(row[2], '-')
    self.assertStartsWith(
      _rows(tables.markdown(summary), 'Score')[1][1], '**0.90'
    )
    summary['scms']['large']['fresh'] = True
    page = tables.markdown(summary)
    self.assertNotIn('## Best', page)
    self.assertIn('## Score', page)

  def test_shows_which_scms_were_held_out(self):
    page = tables.markdown(_summary(held_out=(True, False)))
    for title in ('Best', 'E[Y | do] of the last', 'Score'):
      _, held_out, *_ = _rows(page, title)
      self.assertEqual(held_out[:3], ['held out', 'yes', 'no'])
    head, *rows = _rows(page, 'All methods')
    self.assertEqual(head[1], 'held out')
    self.assertEqual([row[1] for row in rows], ['yes'] * 3 + ['no'] * 3)
    page = tables.markdown(_summary(held_out=(True, None)))
    _, held_out, *_ = _rows(page, 'Best')
    self.assertEqual(held_out[:3], ['held out', 'yes', ''])


class TerminalTest(absltest.TestCase):
  def test_is_the_table_of_the_page(self):
    summary = _summary(held_out=(False, True))
    table = tables.terminal(summary).split('\n\n')[1]
    head, *lines = table.splitlines()
    self.assertEqual(head.split()[:4], ['SCM', 'held', 'out', 'method'])
    rows = _rows(tables.markdown(summary), 'All methods')[1:]
    self.assertLen(lines, len(rows))
    for line, row in zip(lines, rows, strict=True):
      plain = [
        f'{cell.strip("*")} *' if cell.startswith('**') else cell
        for cell in row
      ]
      self.assertEqual(line.split(), ' '.join(plain).split())
    # Numbers are aligned, whether a star follows or not.
    first = lines[0].index('-2.000 [-2.250, -1.750] *')
    self.assertEqual(lines[1].index('-1.500 [-1.750, -1.250]'), first)


class CsvTest(parameterized.TestCase):
  @parameterized.parameters('str', 'object', 'category')
  def test_cells_like_formulas_are_quoted(self, dtype):
    table = pd.DataFrame(
      {'=h': pd.Series(['=1+1', 'a'], dtype=dtype), 'n': [-1, 2]}
    )
    self.assertEqual(tables.to_csv(table), "'=h,n\n'=1+1,-1\na,2\n")


if __name__ == '__main__':
  absltest.main()
