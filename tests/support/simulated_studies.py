"""Rows of simulated studies."""

from acme_cbo.scms import shifts


def row(item, **changes):
  """Returns a row in which all is well, and the advice is to stop half-way."""
  number = item.length
  half = number // 2
  return {
    **item._asdict(),
    'same_decisions': True,
    'do': [{'x0': 0.0}] * number,
    'mean': [0.0] * number,
    'low': [-1.0] * number,
    'high': [1.0] * number,
    'gain': [1.0] * number,
    'stop': [False] * (half - 1) + [True] * (number - half + 1),
    'warnings': [0 if item.scm == shifts.AS_TRAINED else 1] * number,
    'expected': [0.5] * number,
    'score': [0.9] * number,
    'range': 4.0,
    'contained': [True, True, False],
    'crps': [0.1, 0.2, 0.3],
    'process_crps': [0.2, 0.4, 0.6],
  } | changes
