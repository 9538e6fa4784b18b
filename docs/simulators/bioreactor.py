"""A bioreactor: a simulator in Python and numpy to train a policy on.

Cells grow on a feed in a heated and stirred tank and make a product. The best
temperature, the amount of feed that is too much and the stirring that damages
cells differ between strains. See docs/simulators.md.
"""

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

_HOURS, _STEPS = 24.0, 96


class Bioreactor:
  """One tank; a seed is a strain of cells with records of an earlier shift."""

  variables = ('temperature', 'feed', 'stirring', 'oxygen', 'cells', 'product')
  target = 'product'
  goal = 'maximize'
  # Degrees Celsius, grams per hour, revolutions per minute.
  domains = MappingProxyType(
    {
      'temperature': (22.0, 44.0),
      'feed': (0.1, 2.0),
      'stirring': (100.0, 900.0),
    }
  )

  def reset(self, seed: int, rollout: int, num_observations: int) -> np.ndarray:
    """Starts with a new strain; returns records of batches of one shift."""
    strain = np.random.default_rng(seed)
    self._best_temperature = strain.uniform(27.0, 40.0)
    self._width = strain.uniform(3.0, 7.0)
    self._growth = strain.uniform(0.15, 0.35)
    self._too_much_feed = strain.uniform(2.0, 12.0)
    self._tearing = strain.uniform(300.0, 900.0)
    self._yield = strain.uniform(0.1, 0.3)
    # Mean settings of the shift that the records come from.
    self._habits = strain.uniform((-4, 0.3, 250), (4, 1.2, 500))
    self._habits[0] += self._best_temperature
    self._noise = strain
    observed = [self._batch({}) for _ in range(num_observations)]
    self._noise = np.random.default_rng((seed, rollout))
    return np.array(observed)

  def step(self, intervention: Mapping[str, float]) -> np.ndarray:
    """Returns the outcome of a batch with some of the settings fixed."""
    return np.array(self._batch(intervention))

  def _batch(self, chosen):
    """Simulates a day in the tank by Euler's method."""
    # Warm days have less stirring: the settings are not independent.
    weather = self._noise.normal()
    habits = self._habits * (
      1
      + np.array([0.06, 0.1, -0.15]) * weather
      + np.array([0.04, 0.15, 0.1]) * self._noise.normal(size=3)
    )
    temperature, feed, stirring = (
      chosen.get(name, habit)
      for name, habit in zip(self.variables, habits, strict=False)
    )
    off = (temperature - self._best_temperature) / self._width
    warmth = np.exp(-(off**2))
    torn = 0.02 + 0.3 / (1 + np.exp((self._tearing - stirring) / 60))
    cells, sugar, product, oxygen = 0.5, 2.0, 0.0, 1.0
    for _ in range(_STEPS):
      hours = _HOURS / _STEPS
      fed = sugar / (0.3 + sugar + sugar**2 / self._too_much_feed)
      oxygen = (stirring / 300) / (stirring / 300 + 0.15 * cells)
      growth = self._growth * warmth * fed * oxygen
      product += hours * self._yield * growth * cells
      sugar = max(sugar + hours * (feed - 1.5 * growth * cells), 0.0)
      cells = max(cells + hours * (growth - torn * 0.3) * cells, 0.01)
    measured = np.array([oxygen, cells, product])
    measured *= np.exp(0.05 * self._noise.normal(size=3))
    return [temperature, feed, stirring, *measured]
