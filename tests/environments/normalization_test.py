"""Tests of the normalization of variables."""

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np

from acme_cbo.environments import normalization
from tests.support import hand_made_scms


def _problem():
  """Returns a problem of which variable 2, the target, has no domain."""
  return hand_made_scms.problem(
    4, 2, low=[-1.0, -1.0, 0.0, -1.0], high=[1.0, 1.0, 0.0, 1.0]
  )


class FitTest(parameterized.TestCase):
  @parameterized.product(
    value=(0.0, 0.1, 14.62, 1e8 / 3), is_float64=(False, True)
  )
  def test_a_constant_target(self, value, is_float64):
    with jax.enable_x64(is_float64):
      rows = jnp.full((100, 4), value)
      location, scale = map(np.asarray, normalization.fit(_problem(), rows))
    self.assertEqual(location[2], np.asarray(rows)[0, 2])
    self.assertEqual(scale[2], 1.0)

  def test_a_variable_far_from_0(self):
    with jax.enable_x64(True):
      rows = 1e8 + jnp.tile(jnp.array([[-1e-3], [1e-3]]), (50, 4))
      scale = np.asarray(normalization.fit(_problem(), rows).scale)
    np.testing.assert_allclose(scale[2], 1e-3, rtol=1e-4)


class UnitConverterTest(absltest.TestCase):
  def test_ends_of_domains(self):
    problem = hand_made_scms.problem(4, 2, low=300.0, high=900.0)
    settable = np.asarray(problem.settable)
    rows = np.random.default_rng(0).normal(613.7, 187.3, (100, 4))
    units = normalization.UnitConverter.fit(problem, rows)
    low, high = map(np.asarray, (units.problem.low, units.problem.high))
    # The ends and the float32 numbers next to them.
    for values in (high, np.nextafter(high, np.float32(-np.inf))):
      own = units.to_own_units(values)[settable]
      np.testing.assert_array_equal(own, 900.0)
    for values in (low, np.nextafter(low, np.float32(np.inf))):
      own = units.to_own_units(values)[settable]
      np.testing.assert_array_equal(own, 300.0)
    inside = np.asarray((low + high) / 2)
    np.testing.assert_allclose(
      units.to_own_units(inside)[settable], 600.0, rtol=1e-6
    )


if __name__ == '__main__':
  absltest.main()
