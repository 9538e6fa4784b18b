"""Makes the table of the study in psa.yaml, from the benchmark `psa`.

184 patients were only observed; 16 others got aspirin or a statin, of a dose
between 0 and 1.
"""

import pathlib

import numpy as np
import pandas as pd

import acme_cbo

_NAMES = {
  'A': 'age',
  'M': 'bmi',
  'R': 'aspirin',
  'S': 'statin',
  'C': 'cancer',
  'Y': 'psa',
}
_DIGITS = dict(age=0, bmi=1, aspirin=2, statin=2, cancer=2, psa=2)


def table() -> pd.DataFrame:
  """Returns the table."""
  system = acme_cbo.SCM.named('psa')
  rng = np.random.default_rng(0)
  rows = [system.sample(184, seed=0).assign(intervention_targets='')]
  for i in range(16):
    drug = 'SR'[i % 2]
    do = {drug: round(rng.uniform(0, 1), 2)}
    patient = system.sample(1, do, seed=1000 + i)
    rows.append(patient.assign(intervention_targets=_NAMES[drug]))
  return pd.concat(rows).rename(columns=_NAMES).round(_DIGITS)


if __name__ == '__main__':
  table().to_csv(pathlib.Path(__file__).parent / 'psa.csv', index=False)
