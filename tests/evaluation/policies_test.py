from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from acme_cbo import networks
from acme_cbo import types
from acme_cbo.evaluation import evaluate
from acme_cbo.evaluation import policies
from acme_cbo.scms import simulate
from tests import drawn_tasks
from tests import hand_made_scms
from tests import miniature

_KEY = jax.random.key(0)

# Column 2 is the target; 3 equals it, but may not be set; 4 is padding. The
# correlation of 0 with it is 1 / sqrt(5) = 0.45, that of 1 is -0.89, although
# 0 is of larger size, covariance and slope.
_ROWS = np.array(
  [
    [-300.0, 1.0, -1.0, -1.0, 0.0],
    [100.0, 3.0, -1.0, -1.0, 0.0],
    [-100.0, -3.0, 1.0, 1.0, 0.0],
    [300.0, -1.0, 1.0, 1.0, 0.0],
  ],
  np.float32,
)


def _problem(goal=1.0, settable=(0, 1)):
  return hand_made_scms.problem(
    5, 2, settable, goal, low=[-700, -2, 0, -9, 0], high=[500, 4, 0, 9, 0]
  )


def _do(variable, value):
  return hand_made_scms.do({variable: value}, 5)


def _outcome(target):
  return jnp.array([0.0, 0.0, target, 0.0, 0.0])


class PoliciesTestCase(parameterized.TestCase):
  def assert_sets(self, intervention, variable, value):
    expected = _do(variable, value)
    np.testing.assert_array_equal(intervention.mask, expected.mask)
    np.testing.assert_array_equal(intervention.values, expected.values)


class RandomTest(PoliciesTestCase):
  @pytest.mark.stat
  def test_covers_everything_evenly(self):
    policy, num_draws = policies.random(), 4000
    memory = policy.init(_problem(), _ROWS, 3)
    keys = jax.random.split(_KEY, num_draws)
    drawn = jax.jit(jax.vmap(policy.choose, (0, None)))(keys, memory)
    np.testing.assert_array_equal(drawn.mask.sum(1), 1)
    counts = np.asarray(drawn.mask.sum(0))
    np.testing.assert_array_equal(counts[2:], 0)
    self.assertGreater(stats.chisquare(counts[:2]).pvalue, 1e-4)
    for variable, low, width in ((0, -700, 1200), (1, -2, 6)):
      values = drawn.values[drawn.mask[:, variable], variable]
      uniform = stats.uniform(low, width)
      self.assertGreater(stats.kstest(values, uniform.cdf).pvalue, 1e-4)


class SlopeTest(PoliciesTestCase):
  @parameterized.parameters((1.0, -2.0), (-1.0, 4.0))
  def test_sets_the_strongest_to_its_better_end(self, goal, end):
    # The target falls with column 1.
    policy = policies.slope()
    memory = policy.init(_problem(goal), _ROWS, 3)
    np.testing.assert_allclose(
      memory.correlation,
      goal * np.array([0.2**0.5, -(0.8**0.5), 1, 1, 0]),
      rtol=1e-6,
    )
    self.assert_sets(policy.choose(_KEY, memory), 1, end)
    # What comes out is no reason to change.
    memory = policy.observe(memory, 0, _do(1, end), _outcome(-1e3))
    self.assert_sets(policy.choose(_KEY, memory), 1, end)

  @parameterized.parameters((1.0, 500.0), (-1.0, -700.0))
  def test_sets_what_may_be_set(self, goal, end):
    # The target rises with column 0.
    policy = policies.slope()
    memory = policy.init(_problem(goal, settable=[0]), _ROWS, 3)
    self.assert_sets(policy.choose(_KEY, memory), 0, end)

  def test_a_constant_has_no_slope(self):
    rows = _ROWS.copy()
    rows[:, 1] = 7.0
    policy = policies.slope()
    memory = policy.init(_problem(), rows, 3)
    self.assertEqual(memory.correlation[1], 0.0)
    self.assert_sets(policy.choose(_KEY, memory), 0, 500.0)


class ExploreThenCommitTest(PoliciesTestCase):
  @parameterized.parameters(
    # The first two are tried at their better ends, the strongest first; then
    # the outcomes 1 and 5 are compared.
    (1.0, -2.0, 500.0, 0),
    (-1.0, 4.0, -700.0, 1),
  )
  def test_tries_each_once_then_the_best(self, goal, first, second, best):
    policy = policies.explore_then_commit()
    memory = policy.init(_problem(goal), _ROWS, 5)
    for step, (variable, value, outcome) in enumerate(
      ((1, first, 1.0), (0, second, 5.0))
    ):
      chosen = policy.choose(_KEY, memory)
      self.assert_sets(chosen, variable, value)
      memory = policy.observe(memory, step, chosen, _outcome(outcome))
    for step in range(2, 5):
      chosen = policy.choose(_KEY, memory)
      self.assert_sets(chosen, best, (second, first)[best])
      # Committed: no later outcome counts.
      memory = policy.observe(memory, step, chosen, _outcome(-goal * 1e3))

  def test_tries_only_what_may_be_set(self):
    policy = policies.explore_then_commit()
    memory = policy.init(_problem(settable=[1]), _ROWS, 3)
    for step in range(3):
      chosen = policy.choose(_KEY, memory)
      self.assert_sets(chosen, 1, -2.0)
      memory = policy.observe(memory, step, chosen, _outcome(-1.0))


class OneOfTest(PoliciesTestCase):
  def test_acts_as_the_one_of_its_number(self):
    candidates = (
      policies.slope(),
      policies.explore_then_commit(),
      policies.random(),
    )
    for index, policy in enumerate(candidates):
      one = policies.one_of(candidates, jnp.int32(index))
      memory, expected = (p.init(_problem(), _ROWS, 3) for p in (one, policy))
      for step in range(3):
        key = jax.random.fold_in(_KEY, step)
        chosen = policy.choose(key, expected)
        jax.tree.map(
          np.testing.assert_array_equal, one.choose(key, memory), chosen
        )
        outcome = _outcome(-step)
        memory = one.observe(memory, step, chosen, outcome)
        expected = policy.observe(expected, step, chosen, outcome)


class OracleTest(PoliciesTestCase):
  @parameterized.parameters((1.0, -1.0), (-1.0, 2.0))
  def test_knows_the_best_intervention(self, goal, value):
    scm = hand_made_scms.chain(goal)
    objective = jax.jit(simulate.objective, static_argnums=2)(
      scm, jnp.zeros((1, 4)), 2
    )
    policy = policies.oracle(types.Task(scm, objective))
    memory = policy.init(scm.problem, jnp.zeros((2, 4)), 3)
    chosen = policy.choose(_KEY, memory)
    np.testing.assert_array_equal(chosen.mask, [True, False, False, False])
    np.testing.assert_array_equal(chosen.values, [value, 0.0, 0.0, 0.0])


class TrainedTest(PoliciesTestCase):
  def test_appends_its_rows_and_takes_the_mode(self):
    rows = []

    def append(params, problem, prefix, cache, position, row):
      del problem, prefix
      rows.append((position, row))
      # Prefers the target, then cell number `position` of variable 1.
      logits = jnp.zeros((5, 4)).at[2].set(9.0).at[1, position].set(params)
      return networks.Heads(logits, jnp.full(5, 1.0 * position), logits), cache

    network = miniature.linear_network()._replace(append=append)
    policy = policies.trained(network, 2.0, ('learned',))
    memory = policy.init(_problem(), _ROWS, 2)
    # Cells of [-2, 4]: the lower end, two halves and the upper end.
    for step, value in enumerate((-2.0, -0.5)):
      chosen = policy.choose(_KEY, memory)
      self.assert_sets(chosen, 1, value)
      states = jax.tree.map(lambda leaf: leaf[None], policy.believed(memory))
      believed = policy.parents(states)
      self.assertEqual(list(believed), ['learned'])
      np.testing.assert_allclose(
        believed['learned'][0, _problem().exists & ~_problem().target],
        1 / (1 + np.exp(-step)),
        rtol=1e-6,
      )
      memory = policy.observe(memory, step, chosen, _outcome(step + 6.0))
    positions, appended = zip(*rows, strict=True)
    self.assertEqual(positions, (0, 1, 2))
    self.assertEqual([float(row.left[0]) for row in appended], [1, 0.5, 0])
    self.assertEqual([bool(row.start[0]) for row in appended], [1, 0, 0])
    np.testing.assert_array_equal(appended[2].values[0], _outcome(7.0))
    np.testing.assert_array_equal(
      appended[2].intervened[0], [False, True, False, False, False]
    )


class ScoresTest(parameterized.TestCase):
  """On drawn tasks: nobody beats the oracle."""

  @pytest.mark.stat
  def test_scores(self):
    tasks, num_interventions = drawn_tasks.some(256), 10
    factories = {
      'random': lambda task: policies.random(),
      'slope': lambda task: policies.slope(),
      'explore': lambda task: policies.explore_then_commit(),
      'oracle': policies.oracle,
    }
    scores = {}
    for name, factory in factories.items():
      play = jax.jit(
        lambda key, tasks, factory=factory: evaluate.evaluate(
          key, factory, tasks, 20, num_interventions
        )
      )
      scores[name] = np.asarray(play(_KEY, tasks).score)
      self.assertEqual(scores[name].shape, (256, num_interventions))
    np.testing.assert_allclose(scores['oracle'], 1.0, atol=1e-4)
    for name, score in scores.items():
      with self.subTest(name):
        # What the search for the best may miss: see simulate_test.
        self.assertLess(score.max(), 1.01)
    # Measured after ten interventions: 0.00, 0.48 and 0.58, to 0.05.
    for name in ('slope', 'explore'):
      gain = scores[name][:, -1].mean() - scores['random'].mean()
      self.assertGreater(gain, 0.25)


if __name__ == '__main__':
  absltest.main()
