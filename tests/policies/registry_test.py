"""Tests of the registry of methods."""

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np

from acme_cbo.infra import errors
from acme_cbo.networks import config
from acme_cbo.networks import transformer
from acme_cbo.policies import registry
from acme_cbo.scms import optimum
from tests.support import hand_made_scms

_METADATA = {
  'scms': {'max_variables': 3},
  'horizon': {'num_observations': 20, 'num_interventions': 10},
}


class CheckTest(absltest.TestCase):
  def test_every_name_is_a_method(self):
    registry.check(registry.NAMES)

  def test_an_unknown_name(self):
    with self.assertRaisesRegex(
      errors.UsageError,
      "unknown method 'randon'; did you mean random.; available methods: ",
    ):
      registry.check(['random', 'randon'])


class MakeTest(absltest.TestCase):
  def test_methods_are_in_the_order_of_their_names(self):
    methods = registry.make(['slope', 'oracle', 'random'], {})
    self.assertEqual(list(methods), ['slope', 'oracle', 'random'])
    self.assertEqual(
      {name: type(method) for name, method in methods.items()},
      {
        'slope': registry.TracedMethod,
        'oracle': registry.HostMethod,
        'random': registry.TracedMethod,
      },
    )

  def test_the_oracle_chooses_the_optimum(self):
    choice = hand_made_scms.do({1: 0.25}, 4)
    best = optimum.Optimum(np.zeros((2, 4)), 0.0, 0.0, 1.0, choice, (), 1.0)
    scm = hand_made_scms.chain()
    oracle = registry.make(['oracle'], {})['oracle']
    assert isinstance(oracle, registry.HostMethod)
    policy = oracle.make(scm, best)
    memory = policy.init(scm.problem, np.zeros((2, 4)), 3)
    for chosen in (
      policy.choose(jax.random.key(0), memory),
      policy.recommend(policy.observe(memory, 0, choice, np.zeros(4))),
    ):
      np.testing.assert_array_equal(chosen.mask, choice.mask)
      np.testing.assert_array_equal(chosen.values, choice.values)


class UnsupportedReasonTest(absltest.TestCase):
  def test_a_policy_with_the_exact_belief_as_input(self):
    for belief_input, unsupported in (('none', False), ('exact', True)):
      network = transformer.make(
        config.NetworkConfig(8, 1, 1, 1, 2, belief_input)
      )
      method = registry.make(['a'], {'a': (network, {})})['a']
      self.assertEmpty(method.unsupported_reason(hand_made_scms.problem(8, 0)))
      reason = method.unsupported_reason(hand_made_scms.problem(9, 0))
      self.assertEqual(bool(reason), unsupported)
      self.assertStartsWith(reason, '9 variables' if unsupported else '')


class BeyondTrainingTest(parameterized.TestCase):
  @parameterized.parameters(
    (20, 10, []),
    (5, 1, []),
    (21, 10, ['21 observations (trained on at most 20)']),
    (20, 40, ['40 interventions (trained on at most 10)']),
  )
  def test_of_an_episode(self, observations, interventions, expected):
    scm = hand_made_scms.chain()  # Of 3 variables and padding.
    phrases = registry.beyond_training(
      _METADATA, scm.problem, observations, interventions
    )
    self.assertEqual(phrases, expected)

  def test_of_the_variables(self):
    sets = np.eye(5)[:3] + np.eye(5)[1:4]
    scm = hand_made_scms.scm(
      hand_made_scms.mechanism(5), hand_made_scms.problem(5, 4, sets=sets)
    )
    self.assertEqual(
      registry.beyond_training(_METADATA, scm.problem, 20, 10),
      [
        '5 variables with the target and those never set '
        '(trained on at most 3)',
        '2 variables set at a time (trained on at most 1)',
      ],
    )
    metadata = {**_METADATA, 'scms': {'max_variables': 5, 'max_set_size': 2}}
    self.assertEmpty(registry.beyond_training(metadata, scm.problem, 20, 10))

  def test_of_further_sizes(self):
    scm = hand_made_scms.chain()
    horizon = _METADATA['horizon'] | {'mixture': '50x5x1x3 3x12x2x9'}
    self.assertEqual(
      registry.beyond_training(
        {**_METADATA, 'horizon': horizon}, scm.problem, 51, 13
      ),
      [
        '51 observations (trained on at most 50)',
        '13 interventions (trained on at most 12)',
      ],
    )

  def test_of_features_that_training_lacked(self):
    scm = hand_made_scms.chain()
    problem = scm.problem._replace(
      samples=jnp.array(10),
      budget=jnp.array(7),
      edges=jnp.zeros_like(scm.parents, float),
    )
    scm = scm._replace(problem=problem)
    self.assertEqual(
      registry.beyond_training(_METADATA, scm.problem, 20, 10, has_latent=True),
      [
        'latent variables (trained without)',
        'averaged outcomes (trained without)',
        'a budget of cost (trained without)',
        'known edges (trained without)',
      ],
    )
    scms = {
      'max_variables': 3,
      'latent': 0.1,
      'averaged': 0.5,
      'budgeted': 1,
      'informed': 0.3,
    }
    metadata = {**_METADATA, 'scms': scms}
    self.assertEmpty(
      registry.beyond_training(metadata, scm.problem, 20, 10, has_latent=True)
    )


if __name__ == '__main__':
  absltest.main()
