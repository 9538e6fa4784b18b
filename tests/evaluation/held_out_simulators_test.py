"""Tests of the held-out systems of a simulator."""

from typing import Any
from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized
import numpy as np

from acme_cbo.environments import config as environments_config
from acme_cbo.environments import problem as problem_lib
from acme_cbo.evaluation import held_out
from acme_cbo.evaluation import held_out_simulators
from acme_cbo.infra import errors
from tests.support import hand_made_simulators as made


def _held_out(make: Any = made.Slope, seed=1, num_tasks=3):
  return held_out_simulators.HeldOutSimulators(
    seed,
    make,
    problem_lib.from_simulator(make(), 1),
    num_tasks,
    environments_config.HorizonConfig(4, 2),
    60.0,
  )


class _Strict(made.Slope):
  """Simulator that records its seeds and refuses values outside its domains."""

  domains: Any = {'x': (-0.7, 0.3), 'z': (0.0, 0.1)}  # noqa: RUF012
  seeds: Any = set()  # noqa: RUF012

  def reset(self, seed, rollout, num_observations):
    """See `environment.Simulator`."""
    self.seeds.add(np.int32(seed))
    return super().reset(seed, rollout, num_observations)

  def step(self, intervention):
    """See `environment.Simulator`."""
    for name, value in intervention.items():
      low, high = self.domains[name]
      if not low <= value <= high:
        raise ValueError(f'{name} is {value!r}')
    return super().step(intervention)


def _scores(make, names=('random',)):
  factories = {name: held_out.HEURISTICS[name] for name in names}
  return _held_out(make).scores(factories)


class HeldOutSimulatorsTest(parameterized.TestCase):
  def test_values_and_seeds_are_within_their_ranges(self):
    # 'slope' sets the ends of the domains, to the bit.
    outcomes = _scores(_Strict, ('slope', 'random'))
    values = outcomes['slope'].intervention.values
    self.assertTrue({-0.7, 0.3, 0.1} & {*np.ravel(values)})
    self.assertLen(_Strict.seeds, 3)

  @parameterized.parameters((0, 10), (1, 128), (2**31 - 1, 10**6))
  def test_seeds_are_distinct_and_not_those_of_training(self, seed, num_tasks):
    seeds = _held_out(seed=seed, num_tasks=num_tasks)._seeds
    self.assertLen({*seeds}, num_tasks)
    self.assertGreaterEqual(min(seeds), 2**31 - 2**20)
    self.assertLess(max(seeds), 2**31)

  def test_problem_has_all_digits(self):
    np.testing.assert_array_equal(
      _held_out(_Strict).problem.high, [[0.3, 0.1, 0]] * 3
    )

  def test_outcomes_need_the_values_that_were_set(self):
    step = made.Slope.step
    with (
      mock.patch.object(made.Slope, 'step', lambda *args: 0 * step(*args)),
      self.assertRaisesRegex(errors.UsageError, "as '[xz]', which was set to"),
    ):
      _scores(made.Slope)


if __name__ == '__main__':
  absltest.main()
