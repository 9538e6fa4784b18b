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

_ABOUT = {
  'scms': {'max_variables': 3},
  'horizon': {'num_observations': 20, 'num_interventions': 10},
}


class CheckTest(absltest.TestCase):
  def test_every_name_is_a_method(self):
    registry.check(registry.NAMES)

  def test_a_name_that_is_none(self):
    with self.assertRaisesRegex(
      errors.UsageError, "no method 'randon'; did you mean random.; there are "
    ):
      registry.check(['random', 'randon'])


class MakeTest(absltest.TestCase):
  def test_methods_in_the_order_in_which_they_are_named(self):
    made = registry.make(['slope', 'oracle', 'random'], {})
    self.assertEqual(list(made), ['slope', 'oracle', 'random'])
    self.assertEqual(
      {name: type(method) for name, method in made.items()},
      {
        'slope': registry.Traced,
        'oracle': registry.OnHost,
        'random': registry.Traced,
      },
    )

  def test_the_oracle_is_told_the_optimum(self):
    choice = hand_made_scms.do({1: 0.25}, 4)
    best = optimum.Optimum(np.zeros((2, 4)), 0.0, 0.0, 1.0, choice, ())
    scm = hand_made_scms.chain()
    oracle = registry.make(['oracle'], {})['oracle']
    assert isinstance(oracle, registry.OnHost)
    made = oracle.make(scm, best)
    memory = made.init(scm.problem, np.zeros((2, 4)), 3)
    for chosen in (
      made.choose(jax.random.key(0), memory),
      made.recommend(made.observe(memory, 0, choice, np.zeros(4))),
    ):
      np.testing.assert_array_equal(chosen.mask, choice.mask)
      np.testing.assert_array_equal(chosen.values, choice.values)


class RefusalTest(absltest.TestCase):
  def test_a_policy_that_is_told_the_exact_belief(self):
    for belief_input, refused in (('none', False), ('exact', True)):
      network = transformer.make(
        config.NetworkConfig(8, 1, 1, 1, 2, belief_input)
      )
      method = registry.make(['a'], {'a': (network, {})})['a']
      self.assertEmpty(method.refusal(hand_made_scms.problem(8, 0)))
      reason = method.refusal(hand_made_scms.problem(9, 0))
      self.assertEqual(bool(reason), refused)
      self.assertStartsWith(reason, '9 variables' if refused else '')


class BeyondTrainingTest(parameterized.TestCase):
  @parameterized.parameters(
    (20, 10, []),
    (5, 1, []),
    (21, 10, ['21 observations (trained on at most 20)']),
    (20, 40, ['40 interventions (trained on at most 10)']),
  )
  def test_of_an_episode(self, observations, interventions, expected):
    scm = hand_made_scms.chain()  # Of 3 variables and padding.
    found = registry.beyond_training(_ABOUT, scm, observations, interventions)
    self.assertEqual(found, expected)

  def test_of_the_variables(self):
    sets = np.eye(5)[:3] + np.eye(5)[1:4]
    scm = hand_made_scms.scm(
      hand_made_scms.mechanism(5), hand_made_scms.problem(5, 4, sets=sets)
    )
    self.assertEqual(
      registry.beyond_training(_ABOUT, scm, 20, 10),
      [
        '5 variables (trained on at most 3)',
        '2 variables set at a time (trained on at most 1)',
      ],
    )
    about = {**_ABOUT, 'scms': {'max_variables': 5, 'max_set_size': 2}}
    self.assertEmpty(registry.beyond_training(about, scm, 20, 10))

  def test_of_what_it_never_met(self):
    scm = hand_made_scms.chain()
    seen = np.array([False, True, True, False])
    problem = scm.problem._replace(
      exists=jnp.asarray(seen), samples=jnp.array(10), budget=jnp.array(7)
    )
    scm = scm._replace(problem=problem)
    self.assertEqual(
      registry.beyond_training(_ABOUT, scm, 20, 10),
      [
        'latent variables (trained without)',
        'averaged outcomes (trained without)',
        'a budget of cost (trained without)',
      ],
    )
    scms = {'max_variables': 3, 'latent': 0.1, 'averaged': 0.5, 'budgeted': 1}
    about = {**_ABOUT, 'scms': scms}
    self.assertEmpty(registry.beyond_training(about, scm, 20, 10))


if __name__ == '__main__':
  absltest.main()
