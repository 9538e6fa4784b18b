import dataclasses
import json

from absl.testing import absltest
from absl.testing import parameterized
import jax
import numpy as np

from acme_cbo.infra import errors
from acme_cbo.scms import mechanisms
from acme_cbo.scms import registry
from acme_cbo.scms import shifts
from tests.support import miniature

# As a policy keeps it: JSON has no tuples.
_ABOUT = json.loads(
  json.dumps(
    {
      'scms': dataclasses.asdict(miniature.PRIOR) | {'latent': 0.1},
      'horizon': {'num_observations': 20, 'num_interventions': 10},
    }
  )
)


class PriorTest(parameterized.TestCase):
  def test_as_trained(self):
    expected = dataclasses.replace(
      miniature.PRIOR, latent=0.1, num_cells=2, num_interventions=10
    )
    self.assertEqual(shifts.prior(_ABOUT, shifts.AS_TRAINED), expected)

  @parameterized.parameters(
    # Of 3 to 5 variables.
    ('larger', dict(min_variables=6, max_variables=8)),
    (
      'denser',
      dict(
        graph_weights=(0.0, 0.0, 0.0, 1.0, 0.0),
        min_density=0.8,
        max_density=1.0,
      ),
    ),
    ('noisier', dict(min_noise=1.5, max_noise=3.0)),
    ('skewed', dict(noise_weights=(0.0, 0.0, 0.0, 1.0))),
    ('confounded', dict(latent=0.4)),
    ('bumps', dict(family_weights=(*[0.0] * 7, 1.0))),
  )
  def test_one_thing_is_changed(self, name, changes):
    trained_on = shifts.prior(_ABOUT, shifts.AS_TRAINED)
    self.assertEqual(
      shifts.prior(_ABOUT, name), dataclasses.replace(trained_on, **changes)
    )

  def test_a_policy_that_does_not_say(self):
    scms = {k: v for k, v in _ABOUT['scms'].items() if k != 'noise_weights'}
    with self.assertRaisesRegex(
      errors.UsageError, 'larger is told from .* not say its noise_weights;'
    ):
      shifts.prior(_ABOUT | {'scms': scms}, 'larger')

  def test_digests(self):
    digests = {shifts.digest(shifts.prior(_ABOUT, n)) for n in shifts.NAMES}
    self.assertLen(digests, len(shifts.NAMES))


class SystemTest(absltest.TestCase):
  def test_is_the_same_in_either_precision(self):
    prior = shifts.prior(_ABOUT, 'bumps')
    single = shifts.system('bumps', prior, 3)
    with jax.enable_x64(True):
      double = shifts.system('bumps', prior, 3)
    self.assertEqual(double.name, 'bumps/3')
    self.assertEqual(double.variables, ('x0', 'x1', 'x2', 'x3', 'x4'))
    self.assertEqual(double.scm.scale.dtype, np.float64)
    self.assertEqual(single.scm.scale.dtype, np.float32)
    jax.tree.map(np.testing.assert_array_equal, single.scm, double.scm)
    self.assertEqual(double.scm.family, mechanisms.Family.BUMPS)

  def test_each_repeat_has_its_own(self):
    prior = shifts.prior(_ABOUT, shifts.AS_TRAINED)
    one, two, again = (shifts.system('x', prior, n).scm for n in (0, 1, 0))
    jax.tree.map(np.testing.assert_array_equal, one, again)
    self.assertFalse(np.array_equal(one.scale, two.scale))


class EnvironmentsTest(absltest.TestCase):
  def test_what_is_held_out(self):
    found = registry.resolve(['shifts', 'toy'], _ABOUT)
    self.assertEqual([x.name for x in found], [*shifts.NAMES, 'toy'])
    self.assertEqual([x.held_out for x in found], [False] + [True] * 7)
    self.assertTrue(all(x.fresh for x in found[:-1]))
    system = found[1].make(0)
    self.assertLen(system.variables, 8)
    self.assertGreaterEqual(int(system.scm.present.sum()), 6)

  def test_needs_a_policy(self):
    with self.assertRaisesRegex(
      errors.UsageError, 'larger is told from what a policy was trained on'
    ):
      registry.resolve(['larger'], {})


if __name__ == '__main__':
  absltest.main()
