"""Tables of episodes in the form of `measures.table`."""

import pandas as pd

from acme_cbo.evaluation.comparison import measures


def table(scores, num_scms=2):
  """Returns a table of {model: [n] scores on each of the SCMs}."""
  rows = []
  for model, values in scores.items():
    for scm in range(num_scms):
      for repeat, score in enumerate(values):
        row = dict.fromkeys(measures.MEASURES, 0.0)
        row |= {'score': score + scm, 'simple_regret': 1 - score - scm}
        row |= {'no_intervention': 0.0, 'optimum': 10.0 + repeat}
        row |= {'score_after_1': 0.0, 'score_after_2': score + scm}
        rows.append({'model': model, 'scm': f's{scm}', 'repeat': repeat, **row})
  return pd.DataFrame(rows)
