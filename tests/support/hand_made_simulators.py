"""Simulators for tests: one that is as it should be, and what can be wrong.

python tests/support/hand_made_simulators.py WHAT is one of them as a process.
"""

import json
import os
import sys
import time
from types import MappingProxyType
from typing import Any

import numpy as np

# Longer than anybody waits, and long enough to be missed.
_SLEEPS = {'sleeps': 30, 'hangs': 2}


class Slope:
  """y is x times what the seed says, which is 1 or -1, and z."""

  variables: Any = ('x', 'z', 'y')
  target: Any = 'y'
  goal: Any = 'maximize'
  domains: Any = MappingProxyType({'x': (-1000.0, 3000.0), 'z': (0.0, 1.0)})

  def reset(self, seed, rollout, num_observations) -> Any:
    """As `environment.Simulator`."""
    rng = np.random.default_rng(seed)
    self.sign = rng.choice([-1, 1])
    self.rng = rng
    rows = [self._row({}) for _ in range(num_observations)]
    self.rng = np.random.default_rng((seed, rollout))
    return np.array(rows)

  def step(self, intervention) -> Any:
    """As `environment.Simulator`."""
    return np.array(self._row(intervention))

  def _row(self, chosen):
    x = chosen.get('x', self.rng.normal(1000, 300))
    z = chosen.get('z', self.rng.uniform())
    return [x, z, self.sign * x / 300 + z + 0.1 * self.rng.normal()]


class Faulty(Slope):
  """The third step of every episode is as `what` says."""

  what = 'raises'

  def reset(self, seed, rollout, num_observations):
    """As `environment.Simulator`."""
    self.steps = 0
    rows = super().reset(seed, rollout, num_observations)
    if self.what == 'differs':
      rows = rows + rollout
    return rows[1:] if self.what == 'short' else rows

  def step(self, intervention):
    """As `environment.Simulator`."""
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
  """Answers lines of JSON."""
  says = {
    'variables': simulator.variables,
    'target': simulator.target,
    'goal': simulator.goal,
    'domains': dict(simulator.domains),
  }
  if what == 'says nothing':
    return
  if what == 'is silent':
    time.sleep(30)
  print('hello' if what == 'is no JSON' else json.dumps(says), flush=True)
  if what == 'closes':
    os.close(1)
    time.sleep(30)
  for line in sys.stdin:
    asked = json.loads(line)
    if 'reset' in asked:
      rows = simulator.reset(**asked['reset'])
      answer = {'observations': rows.tolist()}
    else:
      answer = {'outcome': list(simulator.step(asked['step']))}
    print(json.dumps({} if what == 'forgets' else answer), flush=True)
  if what == 'stays':
    time.sleep(30)


if __name__ == '__main__':
  Faulty.what = sys.argv[1]
  serve(Faulty(), sys.argv[1])
