from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from acme_cbo import types
from acme_cbo.environments import normalization
from acme_cbo.evaluation import rollouts
from acme_cbo.networks import action_distribution
from acme_cbo.networks import base
from acme_cbo.networks import outcome_distribution
from acme_cbo.policies import base as policies_base
from acme_cbo.policies import heuristics
from acme_cbo.policies import trained
from acme_cbo.scms import interventions
from acme_cbo.scms import objective as objective_lib
from tests.support import chance
from tests.support import drawn_tasks
from tests.support import hand_made_scms
from tests.support import miniature

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


def _sets_and_costs(goal=1.0, budget=np.inf):
  """Any of 0 and 1, or both; they cost 3 and 5, or 8."""
  sets = [[1, 0, 0, 0, 0], [0, 1, 0, 0, 0], [1, 1, 0, 0, 0], [0] * 5]
  return _problem(goal)._replace(
    sets=jnp.array(sets, bool),
    cost=jnp.array([3.0, 5.0, 100, 100, 100]),
    budget=jnp.array(budget),
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

  def assert_does(self, intervention, settings):
    expected = hand_made_scms.do(settings, 5)
    np.testing.assert_array_equal(intervention.mask, expected.mask)
    np.testing.assert_array_equal(intervention.values, expected.values)


class RandomTest(PoliciesTestCase):
  @pytest.mark.stat
  def test_covers_everything_evenly(self):
    policy, num_draws = heuristics.random(), 4000
    memory = policy.init(_problem(), _ROWS, 3)
    keys = jax.random.split(_KEY, num_draws)
    drawn = jax.jit(jax.vmap(policy.choose, (0, None)))(keys, memory)
    np.testing.assert_array_equal(drawn.mask.sum(1), 1)
    counts = np.asarray(drawn.mask.sum(0))
    np.testing.assert_array_equal(counts[2:], 0)
    self.assertGreater(stats.chisquare(counts[:2]).pvalue, chance.LEAST_P)
    for variable, low, width in ((0, -700, 1200), (1, -2, 6)):
      values = drawn.values[drawn.mask[:, variable], variable]
      uniform = stats.uniform(low, width)
      self.assertGreater(
        stats.kstest(values, uniform.cdf).pvalue, chance.LEAST_P
      )

  @pytest.mark.stat
  def test_takes_every_set_that_can_be_paid_for_as_often(self):
    policy, num_draws = heuristics.random(), 3000
    keys = jax.random.split(_KEY, num_draws)
    choose = jax.jit(jax.vmap(policy.choose, (0, None)))
    memory = policy.init(_sets_and_costs(budget=20.0), _ROWS, 3)
    for spent, kinds in ((0.0, [1, 2, 3]), (14.0, [1, 2]), (16.5, [1])):
      drawn = choose(keys, memory._replace(spent=jnp.array(spent)))
      kind = np.asarray(drawn.mask) @ [1, 2, 9, 9, 9]
      found, counts = np.unique(kind, return_counts=True)
      np.testing.assert_array_equal(found, kinds)
      even = num_draws / len(kinds)
      bound = chance.SIGMAS * np.sqrt(even)
      self.assertLess(np.abs(counts - even).max(), bound)
      np.testing.assert_array_equal(drawn.values[~drawn.mask], 0.0)

  def test_keeps_account_and_recommends_what_came_out_best(self):
    for goal in (1.0, -1.0):
      policy = heuristics.random()
      memory = policy.init(_sets_and_costs(goal, budget=30.0), _ROWS, 3)
      for step, (settings, outcome) in enumerate(
        (({0: 1.0}, 2.0), ({0: 5.0, 1: 3.0}, 9.0), ({1: -1.0}, -3.0))
      ):
        done = hand_made_scms.do(settings, 5)
        memory = policy.observe(memory, step, done, _outcome(outcome))
      self.assertEqual(memory.spent, 3 + 8 + 5)
      best = {0: 5.0, 1: 3.0} if goal > 0 else {1: -1.0}
      self.assert_does(policy.recommend(memory), best)


class SlopeTest(PoliciesTestCase):
  @parameterized.parameters((1.0, -2.0), (-1.0, 4.0))
  def test_sets_the_strongest_to_its_better_end(self, goal, end):
    # The target falls with column 1.
    policy = heuristics.slope()
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
    policy = heuristics.slope()
    memory = policy.init(_problem(goal, settable=[0]), _ROWS, 3)
    self.assert_sets(policy.choose(_KEY, memory), 0, end)

  @parameterized.parameters(
    # Two slopes are more than one, the second alone is the larger.
    (20.0, 0.0, {0: 500.0, 1: -2.0}),
    (20.0, 12.0, {0: 500.0, 1: -2.0}),
    (20.0, 14.0, {1: -2.0}),
    (20.0, 16.5, {0: 500.0}),
    (np.inf, 1e6, {0: 500.0, 1: -2.0}),
  )
  def test_sets_what_can_be_paid_for(self, budget, spent, expected):
    policy = heuristics.slope()
    memory = policy.init(_sets_and_costs(budget=budget), _ROWS, 3)
    done = hand_made_scms.do({0: 1.0}, 5)
    after = policy.observe(memory, 0, done, _outcome(0.0))
    self.assertEqual(after.spent, 3.0)
    memory = memory._replace(spent=jnp.array(spent))
    self.assert_does(policy.choose(_KEY, memory), expected)
    # What it recommends it need not pay for.
    best = {0: 500.0, 1: -2.0}
    self.assert_does(policy.recommend(memory), best)

  def test_a_constant_has_no_slope(self):
    rows = _ROWS.copy()
    rows[:, 1] = 7.0
    policy = heuristics.slope()
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
    policy = heuristics.explore_then_commit()
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
    policy = heuristics.explore_then_commit()
    memory = policy.init(_problem(settable=[1]), _ROWS, 3)
    for step in range(3):
      chosen = policy.choose(_KEY, memory)
      self.assert_sets(chosen, 1, -2.0)
      memory = policy.observe(memory, step, chosen, _outcome(-1.0))

  def test_tries_every_set_once_the_steepest_first(self):
    policy = heuristics.explore_then_commit()
    memory = policy.init(_sets_and_costs(), _ROWS, 6)
    both, second, first = {0: 500.0, 1: -2.0}, {1: -2.0}, {0: 500.0}
    self.assert_does(policy.recommend(memory), both)  # By its slopes alone.
    for step, (expected, outcome, best) in enumerate(
      (
        (both, 1.0, both),
        (second, 4.0, second),
        (first, 2.0, second),
        (second, -9.0, second),  # No later outcome counts.
        (second, -9.0, second),
      )
    ):
      chosen = policy.choose(_KEY, memory)
      self.assert_does(chosen, expected)
      memory = policy.observe(memory, step, chosen, _outcome(outcome))
      self.assert_does(policy.recommend(memory), best)

  def test_tries_and_repeats_what_can_be_paid_for(self):
    policy = heuristics.explore_then_commit()
    memory = policy.init(_sets_and_costs(budget=19.0), _ROWS, 6)
    for step, (expected, outcome) in enumerate(
      (
        ({0: 500.0, 1: -2.0}, 9.0),  # 11 are left,
        ({1: -2.0}, 3.0),  # 6,
        ({0: 500.0}, 1.0),  # and 3. The best two are too dear now.
        ({0: 500.0}, 1.0),
      )
    ):
      chosen = policy.choose(_KEY, memory)
      self.assert_does(chosen, expected)
      memory = policy.observe(memory, step, chosen, _outcome(outcome))
    self.assertEqual(memory.common.spent, 19.0)
    # And yet it is what it recommends.
    self.assert_does(policy.recommend(memory), {0: 500.0, 1: -2.0})


class OneOfTest(PoliciesTestCase):
  def test_acts_as_the_one_of_its_number(self):
    candidates = (
      heuristics.slope(),
      heuristics.explore_then_commit(),
      heuristics.random(),
    )
    for index, policy in enumerate(candidates):
      one = policies_base.select(candidates, jnp.int32(index))
      memory, expected = (p.init(_problem(), _ROWS, 3) for p in (one, policy))
      for step in range(3):
        key = jax.random.fold_in(_KEY, step)
        chosen = policy.choose(key, expected)
        jax.tree.map(
          np.testing.assert_array_equal, one.choose(key, memory), chosen
        )
        jax.tree.map(
          np.testing.assert_array_equal,
          one.recommend(memory),
          policy.recommend(expected),
        )
        outcome = _outcome(-step)
        memory = one.observe(memory, step, chosen, outcome)
        expected = policy.observe(expected, step, chosen, outcome)


class OracleTest(PoliciesTestCase):
  @parameterized.parameters((1.0, -1.0), (-1.0, 2.0))
  def test_knows_the_best_intervention(self, goal, value):
    scm = hand_made_scms.chain(goal)
    objective = jax.jit(objective_lib.objective, static_argnums=2)(
      scm, jnp.zeros((1, 4)), 2
    )
    policy = heuristics.oracle(types.Task(scm, objective))
    memory = policy.init(scm.problem, jnp.zeros((2, 4)), 3)
    chosen = policy.choose(_KEY, memory)
    np.testing.assert_array_equal(chosen.mask, [True, False, False, False])
    np.testing.assert_array_equal(chosen.values, [value, 0.0, 0.0, 0.0])
    jax.tree.map(
      np.testing.assert_array_equal, policy.recommend(memory), chosen
    )


class TrainedTest(PoliciesTestCase):
  def _network(self, head, rows=None):
    """A network whose action head is `head(params, position, partial)`."""

    def append(params, problem, prefix, cache, position, row):
      del params, problem, prefix
      if rows is not None:
        rows.append((position, row))
      tokens = jnp.full((5, 1), 1.0 * position)
      known = jnp.zeros(0, bool)
      nothing = miniature.EMPTY_HISTORY
      return base.Encoding(tokens, tokens[:, 0], known, nothing), cache

    def turn(params, problem, prefix, encoding, partial):
      del problem, prefix
      joint, none = head(params, encoding.tokens[0, 0], partial)
      return base.ActionHeadOutput(joint, none, joint, none)

    def predict(*args):
      certain = outcome_distribution.Mixture(
        jnp.zeros(1), turn(*args).none_outcome[None], jnp.full(1, 1e-3)
      )
      return outcome_distribution.OutcomeDistribution(
        certain,
        certain,
        normalization.Normalization(jnp.zeros(()), jnp.ones(())),
      )

    return miniature.linear_network()._replace(
      append=append, action_head=turn, predict=predict
    )

  def test_appends_its_rows_and_takes_the_mode(self):
    rows = []

    def head(params, position, partial):
      del partial
      # Prefers the target, then cell number `position` of variable 1.
      logits = jnp.zeros((5, 4)).at[2].set(9.0)
      return logits.at[1, position.astype(int)].set(params), jnp.array(99.0)

    policy = trained.trained(
      self._network(head, rows), 2.0, ('learned',), 1, action_distribution.mode
    )
    memory = policy.init(_problem(), _ROWS, 2)
    # Cells of [-2, 4]: the lower end, two halves and the upper end.
    for step, value in enumerate((-2.0, -0.5)):
      chosen = policy.choose(_KEY, memory)
      self.assert_sets(chosen, 1, value)
      states = jax.tree.map(
        lambda leaf: leaf[None], policy.belief_states(memory)
      )
      probabilities = policy.parents(states)
      self.assertEqual(list(probabilities), ['learned'])
      np.testing.assert_allclose(
        probabilities['learned'][0, _problem().exists & ~_problem().target],
        1 / (1 + np.exp(-step)),
        rtol=1e-6,
      )
      memory = policy.observe(memory, step, chosen, _outcome(step + 6.0))
    positions, appended = zip(*rows, strict=True)
    self.assertEqual(positions, (0, 1, 2))
    self.assertEqual(
      [float(row.budget_left[0]) for row in appended], [1, 0.5, 0]
    )
    self.assertEqual([bool(row.start[0]) for row in appended], [1, 0, 0])
    np.testing.assert_array_equal(appended[2].values[0], _outcome(7.0))
    np.testing.assert_array_equal(
      appended[2].intervened[0], [False, True, False, False, False]
    )

  def test_chooses_one_after_the_other_what_it_can_pay_for(self):
    rows = []

    def head(params, position, partial):
      del params, position
      # First 1 at its upper end, then 0 at its lower end; less than a second
      # one, but more than any other first one, it likes none.
      first = jnp.zeros((5, 4)).at[1, 3].set(5.0).at[0, 3].set(2.0)
      second = jnp.zeros((5, 4)).at[0, 0].set(5.0)
      return jnp.where(partial.mask[1], second, first), jnp.array(4.0)

    policy = trained.trained(
      self._network(head, rows), None, (), 2, action_distribution.mode
    )
    memory = policy.init(_sets_and_costs(budget=20.0), _ROWS, 10)
    both = {0: -700.0, 1: 4.0}
    for step, (expected, left) in enumerate(
      (
        (both, 12 / 20),
        (both, 4 / 20),
        # 0 alone, and no other beside it.
        ({0: 500.0}, 1 / 20),
      )
    ):
      chosen = policy.choose(_KEY, memory)
      self.assert_does(chosen, expected)
      self.assert_does(policy.recommend(memory), both)
      memory = policy.observe(memory, step, chosen, _outcome(0.0))
      np.testing.assert_allclose(rows[-1][1].budget_left[0], left, rtol=1e-6)
    # Nothing can be paid for any more.
    self.assert_does(policy.choose(_KEY, memory), {})
    self.assert_does(policy.recommend(memory), both)

  def _liking_the_first_quarter(self, samples, **options):
    """Draws either half of the domain of variable 1, [-2, 4].

    Of what is chosen it predicts the more the nearer it is to -0.5. The most
    probable decision is the upper end.
    """

    def head(params, position, partial):
      del params, position
      logits = jnp.full((5, 4), -99.0).at[1, 1:4].set([1.0, 1.0, 1.2])
      return logits, -jnp.abs(partial.fractions[1] - 0.25)

    policy = trained.trained(
      self._network(head, []),
      None,
      (),
      1,
      action_distribution.sample,
      **options,
    )
    problem = _problem()._replace(samples=jnp.float32(samples))
    return policy, policy.init(problem, _ROWS, 8)

  def _made(self, policy, memory, outcomes):
    """Returns the memory after (place in the domain, outcome) of variable 1.

    Outcomes are in deviations of the records.
    """
    problem = memory.problem
    deviation = np.asarray(_ROWS).std(0)[np.asarray(problem.target)].item()
    for step, (place, outcome) in enumerate(outcomes):
      chosen = interventions.intervene_on(
        problem, jnp.int32(1), jnp.float32(place)
      )
      signed = _outcome(float(problem.goal) * outcome * deviation)
      memory = policy.observe(memory, step, chosen, signed)
    return memory

  def test_recommends_what_it_predicts_to_be_best_of_what_it_did(self):
    policy, memory = self._liking_the_first_quarter(1.0)
    self.assert_sets(policy.recommend(memory), 1, 4.0)
    done = []
    for step, key in enumerate(jax.random.split(_KEY, 8)):
      chosen = policy.choose(key, memory)
      done.append(float(chosen.values[1]))
      memory = policy.observe(memory, step, chosen, _outcome(0.0))
      best = min(done, key=lambda value: abs(value + 0.5))
      self.assert_sets(policy.recommend(memory), 1, best)
    self.assertGreater(np.ptp(done), 1.0)

  def assert_recommends(self, policy, memory, place):
    value = float(policy.recommend(memory).values[1])
    self.assertAlmostEqual(value, -2 + 6 * place, delta=1e-5)

  @parameterized.parameters(
    # Two deviations of a difference are 2.83 of the records.
    (1.0, 2.7, False),
    (1.0, 3.0, True),
    (100.0, 0.27, False),
    (100.0, 0.3, True),
  )
  def test_what_came_out_worse_than_noise_explains_is_not_recommended(
    self, samples, worse, is_out
  ):
    policy, memory = self._liking_the_first_quarter(samples)
    memory = self._made(policy, memory, [(0.25, 0.0), (0.9, worse)])
    self.assert_recommends(policy, memory, 0.9 if is_out else 0.25)

  @parameterized.parameters(
    # 0.25 is liked; 0.9 was better.
    (([0.25, 0.0], [0.9, 0.5]), 0.25),
    (([0.25, 0.0], [0.9, 0.5], [0.9, 0.5]), 0.9),
    # The noise is that of all outcomes on the same variables.
    (([0.25, 0.0], [0.25, 0.0], [0.9, 0.5]), 0.9),
    (([0.5, -0.1], [0.5, -0.1], [0.25, 0.0], [0.9, 0.5]), 0.9),
    # Of one pair, the noise is at most 56 times the difference, with 99 %.
    (([0.25, 0.0], [0.9, 0.5], [0.9, 0.497]), 0.9),
    (([0.25, 0.0], [0.9, 0.5], [0.9, 0.496]), 0.25),
    # Of three outcomes, it is at most 10 times their deviation.
    (([0.25, 0.0], [0.9, 0.5], [0.9, 0.483], [0.9, 0.466]), 0.9),
    (([0.25, 0.0], [0.9, 0.5], [0.9, 0.482], [0.9, 0.464]), 0.25),
  )
  def test_replicates_bound_the_noise(self, outcomes, place):
    policy, memory = self._liking_the_first_quarter(1.0)
    memory = self._made(policy, memory, outcomes)
    self.assert_recommends(policy, memory, place)

  @parameterized.parameters(
    # 8 are planned: it is time after 2, 4 and 6.
    ([0.3, 0.6], True),
    ([0.3, 0.6, 0.4], False),
    ([0.3, 0.6, 0.4, 0.5], True),
    ([0.3, 0.6, 0.3, 0.5], False),
  )
  def test_replicates_the_best_outcome(self, places, is_repeated):
    policy, memory = self._liking_the_first_quarter(1.0, replicates=True)
    outcomes = [(place, -abs(place - 0.6)) for place in places]
    memory = self._made(policy, memory, outcomes)
    value = float(policy.choose(_KEY, memory).values[1])
    self.assertEqual(np.isclose(value, -2 + 6 * 0.6, atol=1e-5), is_repeated)

  def test_replicates_nothing_that_is_not_allowed(self):
    policy, memory = self._liking_the_first_quarter(1.0, replicates=True)
    memory = self._made(policy, memory, [(0.3, 0.0), (0.6, 1.0)])
    problem = memory.problem
    for changes in (
      {'sets': problem.sets & ~(jnp.arange(5) == 1)},
      {'cost': jnp.full(5, 9.0), 'budget': jnp.float32(10.0)},
      {'high': jnp.full(5, 1.5)},
    ):
      other = memory._replace(problem=problem._replace(**changes))
      with self.subTest(str([*changes])):
        value = float(policy.choose(_KEY, other).values[1])
        self.assertNotAlmostEqual(value, 1.6, delta=1e-4)


class ScoresTest(parameterized.TestCase):
  """Scores on drawn tasks: no policy beats the oracle."""

  @pytest.mark.stat
  def test_scores(self):
    tasks, num_interventions = drawn_tasks.some(256), 10
    factories = {
      'random': lambda task: heuristics.random(),
      'slope': lambda task: heuristics.slope(),
      'explore': lambda task: heuristics.explore_then_commit(),
      'oracle': heuristics.oracle,
    }
    scores = {}
    for name, factory in factories.items():
      play = jax.jit(
        lambda key, tasks, factory=factory: rollouts.evaluate(
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
