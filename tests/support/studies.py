"""States of studies for tests."""

from typing import Any

import numpy as np

from acme_cbo.study import state as state_lib

# Settable are `a` and `b`; the target is `y`.
COLUMNS = ['a', 'b', 'w', 'y']
# Training metadata of a policy.
METADATA = {
  'scms': {'max_variables': 8, 'max_centre': 2.5, 'max_width': 6.0},
  'horizon': {'num_observations': 100, 'num_interventions': 40},
}


def records(number: int = 20) -> np.ndarray:
  """Returns records of `COLUMNS`."""
  return np.random.default_rng(0).standard_normal((number, len(COLUMNS)))


def state(*events: tuple[str, dict[str, Any]], **settings) -> state_lib.State:
  """Returns a state with records after (kind, payload) events."""
  made = state_lib.State()
  created = {
    'target': 'y',
    'goal': 'maximize',
    'columns': COLUMNS,
    'variables': {'a': {'domain': [-2, 2]}, 'b': {'domain': [-2, 2]}},
    'interventions': {'max_size': 2},
  }
  made.apply('created', created | settings)
  rows = records()
  made.apply('records', {'interventions': {}, 'size': len(rows), 'rows': rows})
  for kind, payload in events:
    made.apply(kind, payload)
  return made


def observed(y: float, **do: float) -> tuple[str, dict[str, Any]]:
  """Returns the event of an outcome that nobody suggested."""
  return 'observed', {'outcomes': [{'do': do, 'outcome': {'y': y}}]}
