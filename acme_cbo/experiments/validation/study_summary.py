"""Summary of simulated studies: are predictions right, and is advice good?

The studies are judged by E[Y | do] of their systems, see `studies`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from statsmodels.stats import proportion

from acme_cbo.evaluation import statistics
from acme_cbo.experiments.validation import studies
from acme_cbo.scms import shifts

# Loss of score that stopping early may cost.
HARMLESS = 0.03


def summarize(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
  """Summarizes studies, by the distribution that their systems are from.

  Args:
    rows: results of `studies.run`.

  Returns:
    A row for the prior, for all its shifts together and for each of them, with
    the columns of `COLUMNS`.
  """
  table = pd.DataFrame([_measures(row) for row in rows])
  is_prior = table['scm'] == shifts.AS_TRAINED
  groups = {
    'training prior': table[is_prior],
    'shifted priors': table[~is_prior],
    **{name: table[table['scm'] == name] for name in studies.SHIFTED},
  }
  return pd.DataFrame(
    {
      name: [len(part), *(part[column].mean() for column in [*COLUMNS][1:])]
      for name, part in groups.items()
    },
    index=[*COLUMNS],
  ).T


# Columns of a summary, with what they are.
COLUMNS = {
  'studies': 'number of studies',
  'same': 'share of them in which `evaluate` makes the same experiments',
  'covered': (
    'share of the 90% intervals of what is recommended at the end that contain '
    'its expected target'
  ),
  'width': (
    'their mean half width; 1 is the range between no intervention and the '
    'best one'
  ),
  'random': 'the same share for random interventions',
  'crps': (
    'mean CRPS of E[Y | do] of what is recommended at the end and of random '
    'interventions, in deviations of the records'
  ),
  'process': 'the same of a process that is fitted to each set',
  'score': 'mean score of what is recommended at the end',
  'saved': 'mean share of the experiments that is left at the advice to stop',
  'harmless': (
    f'share of studies in which stopping costs at most {HARMLESS} of the score'
  ),
  'warned': 'share of studies with a warning',
}


def _measures(row: Mapping[str, Any]) -> dict[str, Any]:
  """Returns what a study contributes to the columns of `COLUMNS`."""
  number = len(row['score'])
  stops = [step for step, stop in enumerate(row['stop'], 1) if stop]
  end = min([*stops, number])
  return {
    'scm': row['scm'],
    'same': row['same_decisions'],
    'covered': row['low'][-1] <= row['expected'][-1] <= row['high'][-1],
    'width': (row['high'][-1] - row['low'][-1]) / 2 / row['range'],
    # The first one is what is recommended.
    'random': np.mean(row['contained'][1:]),
    'crps': np.mean(row['crps']),
    'process': np.mean(row['process_crps']),
    'score': row['score'][-1],
    'saved': 1 - end / number,
    'harmless': row['score'][end - 1] >= row['score'][-1] - HARMLESS,
    'warned': row['warnings'][0] > 0,
  }


def auroc(rows: Sequence[Mapping[str, Any]]) -> float:
  """Returns how well the number of warnings tells shifts from the prior.

  Args:
    rows: results of `studies.run`.

  Returns:
    The probability that a study of a shift has more warnings than one of the
    prior, plus half the probability that it has as many.
  """
  number = np.array([row['warnings'][0] for row in rows])
  is_shifted = np.array([row['scm'] != shifts.AS_TRAINED for row in rows])
  return statistics.auroc(number, is_shifted)


def table(rows: Sequence[Mapping[str, Any]]) -> str:
  """Returns the summary of studies for a terminal.

  Args:
    rows: results of `studies.run`.
  """
  summary = summarize(rows)
  lines = summary.to_string(
    formatters={'studies': '{:.0f}'.format}, float_format='{:.2f}'.format
  )
  return f'{lines}\n\n{_about_shares(summary)}\n{_about_warnings(rows)}'


def report(command: str, rows: Sequence[Mapping[str, Any]]) -> str:
  """Formats the summary of studies as a Markdown page.

  Args:
    command: command that simulated them.
    rows: results of `studies.run`.
  """
  summary = summarize(rows)
  lines = [
    ['', *COLUMNS],
    ['---'] * (1 + len(COLUMNS)),
    *(
      [
        str(name),
        f'{values.iloc[0]:.0f}',
        *map('{:.2f}'.format, values.iloc[1:]),
      ]
      for name, values in summary.iterrows()
    ),
  ]
  lengths = ', '.join(map(str, studies.LENGTHS))
  cells = '\n'.join(f'| {" | ".join(line)} |' for line in lines)
  meanings = '\n'.join(f'- `{name}`: {text}' for name, text in COLUMNS.items())
  return f"""# Simulated studies

Created by

```sh
{command}
```

Each study is of another system, with {studies.NUM_RECORDS} records and up to
{lengths} single noisy outcomes, asked and told through `Study` with the
shipped policy. The systems are those of
`evaluate --scm=shifts`: half of the distribution that the policy was trained
on, half of its shifts. What `Study` reads off its predictions was chosen on
other systems (`--first=100000`).

{cells}

{meanings}

{_about_shares(summary)}

{_about_warnings(rows)}
"""


def _about_shares(summary: pd.DataFrame) -> str:
  """Returns the intervals of the shares, which are Wilson's."""
  sentences = []
  for column in ('covered', 'harmless'):
    intervals = []
    for name, values in summary.head(2).iterrows():
      number = values['studies']
      low, high = proportion.proportion_confint(
        round(values[column] * number), number, method='wilson'
      )
      intervals.append(f'{name} [{low:.2f}, {high:.2f}]')
    sentences.append(f'95% intervals of `{column}`: {", ".join(intervals)}.')
  return '\n'.join(sentences)


def _about_warnings(rows) -> str:
  return (
    'The number of warnings tells the shifts from the training prior with an '
    f'AUROC of {auroc(rows):.2f}.'
  )
