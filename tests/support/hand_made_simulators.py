"""Simulators for tests: a correct one, and faulty ones.

`python tests/support/hand_made_simulators.py FAULT` runs one as a process.
"""

import json
import os
import sys
import time
from types import MappingProxyType
from typing import Any

import numpy as np

# Seconds: longer than any timeout, and long enough for a short one.
_SLEEPS = {'sleeps': 30, 'hangs': 2}


class Slope:
  """y = sign * x / 300 + z + noise, where the seed determines the sign."""

  variables: Any = ('x', 'z', 'y')
  target: Any = 'y'
  goal: Any = 'maximize'
  domains: Any = MappingProxyType({'x': (-1000.0, 3000.0), 'z': (0.0, 1.0)})

  def reset(self, seed, rollout, num_observations) -> Any:
    """See `environment.Simulator`."""
    rng = np.random.default_rng(seed)
    self.sign = rng.choice([-1, 1])
    self.rng = rng
    rows = [self._row({}) for _ in range(num_observations)]
    self.rng = np.random.default_rng((seed, rollout))
    return np.array(rows)

  def step(self, intervention) -> Any:
    """See `environment.Simulator`."""
    return np.array(self._row(intervention))

  def _row(self, chosen):
    x = chosen.get('x', self.rng.normal(1000, 300))
    z = chosen.get('z', self.rng.uniform())
    return [x, z, self.sign * x / 300 + z + 0.1 * self.rng.normal()]


class Faulty(Slope):
  """Simulator with the fault `what`, mostly in the third step."""

  what = 'raises'

  def reset(self, seed, rollout, num_observations):
    """See `environment.Simulator`."""
    self.steps = 0
    rows = super().reset(seed, rollout, num_observations)
    if self.what == 'differs':
      rows = rows + rollout
    return rows[1:] if self.what == 'short' else rows

  def step(self, intervention):
    """See `environment.Simulator`."""
    self.steps += 1
    row = super().step(intervention)
    if self.steps < 3:
      return row
    if self.what == 'raises':
      raise RuntimeError('broken on purpose')
    if self.what in _SLEEPS:
      time.sleep(_SLEEPS[self.what])
    if self.what == 'dies':
      os._exit(7)
    return {'nan': row * np.nan, 'wide': [*row, 0.0]}.get(self.what, row)


def serve(simulator: Slope, what: str) -> None:
  """Serves a simulator in lines of JSON, with the fault `what`."""
  description = {
    'variables': simulator.variables,
    'target': simulator.target,
    'goal': simulator.goal,
    'domains': dict(simulator.domains),
  }
  if what == 'says nothing':
    return
  if what == 'is silent':
    time.sleep(30)
  print(
    'hello' if what == 'is no JSON' else json.dumps(description), flush=True
  )
  if what == 'closes':
    os.close(1)
    time.sleep(30)
  for line in sys.stdin:
    request = json.loads(line)
    if 'reset' in request:
      rows = simulator.reset(**request['reset'])
      answer = {'observations': rows.tolist()}
    else:
      answer = {'outcome': list(simulator.step(request['step']))}
    print(json.dumps({} if what == 'forgets' else answer), flush=True)
  if what == 'stays':
    time.sleep(30)


if __name__ == '__main__':
  Faulty.what = sys.argv[1]
  serve(Faulty(), sys.argv[1])
