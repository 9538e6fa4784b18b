import dataclasses
import json

from absl.testing import absltest
from absl.testing import parameterized
import jax
import numpy as np

from acme_cbo.infra import errors
from acme_cbo.scms import config
from acme_cbo.scms import mechanisms
from acme_cbo.scms import registry
from acme_cbo.scms import shifts
from tests.support import miniature

# As in a saved policy: JSON has no tuples.
_METADATA = json.loads(
  json.dumps(
    {
      'scms': {
        name: value
        for name, value in dataclasses.asdict(miniature.PRIOR).items()
        if name not in ('num_cells', 'num_interventions')
      }
      | {'latent': 0.1},
      'horizon': {'num_observations': 20, 'num_interventions': 10},
    }
  )
)


class PriorTest(parameterized.TestCase):
  def test_as_trained(self):
    expected = dataclasses.replace(
      miniature.PRIOR, latent=0.1, num_cells=2, num_interventions=10
    )
    self.assertEqual(shifts.prior(_METADATA, shifts.AS_TRAINED), expected)

  def test_knows_no_edges_and_allows_all_values_and_means_exist(self):
    scms = _METADATA['scms'] | {'informed': 0.5, 'stepped': 0.5}
    scms['noise_weights'] = scms['noise_weights'] | {'student': 1.0}
    self.assertEqual(
      shifts.prior({**_METADATA, 'scms': scms}, shifts.AS_TRAINED),
      shifts.prior(_METADATA, shifts.AS_TRAINED),
    )

  @parameterized.parameters(
    # The training prior has 3 to 5 variables.
    ('larger', dict(min_variables=6, max_variables=8)),
    (
      'denser',
      dict(
        graph_weights=config.GraphWeights(0.0, 0.0, 0.0, 1.0, 0.0),
        min_density=0.8,
        max_density=1.0,
      ),
    ),
    ('noisier', dict(min_noise=1.5, max_noise=3.0)),
    ('skewed', dict(noise_weights=config.NoiseWeights(0.0, 0.0, 0.0, 1.0))),
    ('confounded', dict(latent=0.4)),
    ('bumps', dict(family_weights=config.FamilyWeights.only('bumps'))),
  )
  def test_changes_one_aspect(self, name, changes):
    training_prior = shifts.prior(_METADATA, shifts.AS_TRAINED)
    self.assertEqual(
      shifts.prior(_METADATA, name),
      dataclasses.replace(training_prior, **changes),
    )

  def test_a_setting_that_was_added_later_has_its_default(self):
    scms = {k: v for k, v in _METADATA['scms'].items() if k != 'noiseless'}
    scms['noise_weights'] = {
      k: v for k, v in scms['noise_weights'].items() if k != 'student'
    }
    self.assertEqual(
      shifts.prior(_METADATA | {'scms': scms}, 'larger'),
      shifts.prior(_METADATA, 'larger'),
    )

  def test_digests(self):
    digests = {shifts.digest(shifts.prior(_METADATA, n)) for n in shifts.NAMES}
    self.assertLen(digests, len(shifts.NAMES))


class SystemTest(absltest.TestCase):
  def test_is_the_same_in_either_precision(self):
    prior = shifts.prior(_METADATA, 'bumps')
    single = shifts.system('bumps', prior, 3)
    with jax.enable_x64(True):
      double = shifts.system('bumps', prior, 3)
    self.assertEqual(double.name, 'bumps/3')
    self.assertEqual(double.variables, ('x0', 'x1', 'x2', 'x3', 'x4'))
    self.assertEqual(double.scm.scale.dtype, np.float64)
    self.assertEqual(single.scm.scale.dtype, np.float32)
    jax.tree.map(np.testing.assert_array_equal, single.scm, double.scm)
    self.assertEqual(double.scm.family, mechanisms.Family.BUMPS)

  def test_each_repeat_has_its_own_system(self):
    prior = shifts.prior(_METADATA, shifts.AS_TRAINED)
    one, two, again = (shifts.system('x', prior, n).scm for n in (0, 1, 0))
    jax.tree.map(np.testing.assert_array_equal, one, again)
    self.assertFalse(np.array_equal(one.scale, two.scale))


class EnvironmentsTest(absltest.TestCase):
  def test_all_but_as_trained_are_held_out(self):
    environments = registry.resolve(['shifts', 'toy'], _METADATA)
    self.assertEqual([x.name for x in environments], [*shifts.NAMES, 'toy'])
    self.assertEqual([x.held_out for x in environments], [False] + [True] * 7)
    self.assertTrue(all(x.fresh for x in environments[:-1]))
    system = environments[1].make(0)
    self.assertLen(system.variables, 8)
    self.assertGreaterEqual(int(system.scm.present.sum()), 6)

  def test_needs_a_policy(self):
    with self.assertRaisesRegex(
      errors.UsageError, 'larger is a shift of the training distribution'
    ):
      registry.resolve(['larger'], {})


if __name__ == '__main__':
  absltest.main()
