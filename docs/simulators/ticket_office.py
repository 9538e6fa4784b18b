"""A ticket office: a simulator that is a separate program.

It reads and writes lines of JSON, so that it could be written in any language,
and needs only Python's standard library. Customers arrive at random and leave
if the queue is long. A seed is a town. See docs/simulators.md.
"""

import json
import math
import random
import sys

_PROBLEM = {
  'variables': ['price', 'advertising', 'clerks', 'queue', 'profit'],
  'target': 'profit',
  'goal': 'maximize',
  'domains': {'price': [5, 40], 'advertising': [0, 200], 'clerks': [1, 12]},
}
_MINUTES = 240


class Town:
  """Properties that differ between towns, and the simulation."""

  def __init__(self, seed):
    rng = random.Random(seed)
    self.worth = rng.uniform(12, 30)  # Price that half of them would pay.
    self.people = rng.uniform(0.5, 2.0)  # Passers-by per minute.
    self.reach = rng.uniform(20, 150)  # Advertising with half of its effect.
    self.patience = rng.uniform(5, 30)  # Minutes of waiting.
    self.wage = rng.uniform(20, 60)
    self.habits = {
      'price': rng.uniform(10, 30),
      'advertising': rng.uniform(20, 120),
      'clerks': rng.uniform(2, 7),
    }

  def evening(self, rng, chosen):
    """Simulates one evening by minutes; returns a row of all variables."""
    busy = rng.gauss(0, 1)  # Busy days have more clerks, higher prices.
    lean = {'price': 0.1, 'advertising': 0.0, 'clerks': 0.15}
    row = {
      name: max(habit * (1 + lean[name] * busy + rng.gauss(0, 0.12)), 0.5)
      for name, habit in self.habits.items()
    } | chosen
    reached = 1 + row['advertising'] / (self.reach + row['advertising'])
    willing = 1 / (1 + math.exp((row['price'] - self.worth) / 3))
    rate = self.people * reached * willing * math.exp(0.15 * busy)
    waiting, sold, queue = 0.0, 0.0, 0.0
    for _ in range(_MINUTES):
      minutes_to_wait = 2 * waiting / row['clerks']
      stay = math.exp(-minutes_to_wait / self.patience)
      waiting += max(rng.gauss(rate, math.sqrt(rate)), 0) * stay
      served = min(waiting, row['clerks'] / 2)
      waiting, sold, queue = waiting - served, sold + served, queue + waiting
    cost = row['advertising'] + row['clerks'] * self.wage
    return [
      *(row[name] for name in ('price', 'advertising', 'clerks')),
      queue / _MINUTES,
      sold * row['price'] - cost,
    ]


def main():
  """Writes the problem, then answers every line of standard input."""
  print(json.dumps(_PROBLEM), flush=True)
  for line in sys.stdin:
    request = json.loads(line)
    if 'reset' in request:
      seed, rollout, number = (
        request['reset'][name]
        for name in ('seed', 'rollout', 'num_observations')
      )
      town, rng = Town(seed), random.Random(seed + 1)
      answer = {'observations': [town.evening(rng, {}) for _ in range(number)]}
      rng = random.Random(f'{seed} {rollout}')
    else:
      answer = {'outcome': town.evening(rng, request['step'])}
    print(json.dumps(answer), flush=True)


if __name__ == '__main__':
  main()
