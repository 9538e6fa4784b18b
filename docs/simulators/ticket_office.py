"""A ticket office: a simulator that is a program of its own.

It reads and writes lines of JSON, and could be in any language; it needs
nothing but Python. Customers come at random and leave where the queue is long.
A seed is a town. See docs/simulators.md.
"""

import json
import math
import random
import sys

_SAYS = {
  'variables': ['price', 'advertising', 'clerks', 'queue', 'profit'],
  'target': 'profit',
  'goal': 'maximize',
  'domains': {'price': [5, 40], 'advertising': [0, 200], 'clerks': [1, 12]},
}
_MINUTES = 240


class Town:
  """What differs from town to town."""

  def __init__(self, seed):
    rng = random.Random(seed)
    self.worth = rng.uniform(12, 30)  # What most would pay for a ticket.
    self.people = rng.uniform(0.5, 2.0)  # Who come by in a minute.
    self.reach = rng.uniform(20, 150)  # Advertising that reaches most of them.
    self.patience = rng.uniform(5, 30)  # Minutes.
    self.wage = rng.uniform(20, 60)
    self.habits = {
      'price': rng.uniform(10, 30),
      'advertising': rng.uniform(20, 120),
      'clerks': rng.uniform(2, 7),
    }

  def evening(self, rng, chosen):
    """One evening, minute by minute: a row of all variables."""
    busy = rng.gauss(0, 1)  # More clerks, and dearer tickets, on a busy day.
    lean = {'price': 0.1, 'advertising': 0.0, 'clerks': 0.15}
    row = {
      name: max(habit * (1 + lean[name] * busy + rng.gauss(0, 0.12)), 0.5)
      for name, habit in self.habits.items()
    } | chosen
    told = 1 + row['advertising'] / (self.reach + row['advertising'])
    willing = 1 / (1 + math.exp((row['price'] - self.worth) / 3))
    rate = self.people * told * willing * math.exp(0.15 * busy)
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
  """Answers every line."""
  print(json.dumps(_SAYS), flush=True)
  for line in sys.stdin:
    asked = json.loads(line)
    if 'reset' in asked:
      seed, rollout, number = (
        asked['reset'][name] for name in ('seed', 'rollout', 'num_observations')
      )
      town, rng = Town(seed), random.Random(seed + 1)
      answer = {'observations': [town.evening(rng, {}) for _ in range(number)]}
      rng = random.Random(f'{seed} {rollout}')
    else:
      answer = {'outcome': town.evening(rng, asked['step'])}
    print(json.dumps(answer), flush=True)


if __name__ == '__main__':
  main()
