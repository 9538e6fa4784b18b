"""Tests that a trajectory records the interventions, outcomes and rewards.

The outputs of the network are computed again by `network.full`, and the
rewards by numpy from the interventions and outcomes alone.
"""

import functools

from absl.testing import absltest
from absl.testing import parameterized
import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acme_cbo import types
from acme_cbo.agents.grpo import acting
from acme_cbo.agents.grpo import config
from acme_cbo.agents.grpo import rewards
from acme_cbo.agents.grpo import total_loss
from acme_cbo.beliefs import belief as beliefs
from acme_cbo.environments import environment
from acme_cbo.networks import action_distribution
from acme_cbo.networks import base
from acme_cbo.networks import outcome_distribution
from acme_cbo.networks import tokens
from acme_cbo.scms import simulate
from tests.support import miniature

_B, _G, _Z = 16, 3, 2
_N = miniature.HORIZON.num_observations
_T = miniature.HORIZON.num_interventions
_D = miniature.GENERAL.max_variables


def _tasks():
  """Draws tasks with pairs of variables, budgets, samples, latent causes."""
  return miniature.tasks(_B, miniature.GENERAL)


@functools.cache
def _params():
  network = miniature.network()
  params = jax.jit(network.init)(
    jax.random.key(1),
    jax.tree.map(lambda x: x[0], _tasks().scm.problem),
    jnp.zeros((2, _D)),
    tokens.start_row(_D),
  )
  return miniature.loud(params, gain=1.5)


# As unlike the usual ones as can be.
_OTHER_KINDS = config.RewardConfig(
  outcome='sampled', potential='entropy', parents='truth', belief='exact'
)


@functools.cache
def _act(seed=0, kinds=miniature.REWARDS):
  """Observations and trajectories of `_B` tasks, `_G` rollouts each."""
  return _jit_act(jax.random.PRNGKey(seed), _params(), _tasks(), kinds)


@functools.partial(jax.jit, static_argnames='kinds')
def _jit_act(key, params, tasks, kinds):
  network = miniature.network()
  keys = jax.random.split(key, _B)
  return acting.act(keys, params, network, tasks, miniature.HORIZON, _G, kinds)


@functools.cache
def _said():
  """Returns parent logits [B, G, T + 1, D], `StepDistribution` [B, G, T, Z]."""
  network = miniature.network()

  def rollout(problem, observations, trajectory):
    rows = tokens.episode_rows(
      problem, trajectory.intervened, trajectory.outcomes
    )
    prefix = network.prefix(_params(), problem, observations)
    encodings = network.full(_params(), problem, prefix, rows)
    choices = total_loss.step_distributions(
      network, _params(), problem, prefix, encodings, trajectory
    )
    return encodings.parent_logits, choices

  group = jax.vmap(rollout, (None, None, 0))
  return jax.jit(jax.vmap(group))(_tasks().scm.problem, *_act())


def _episodes(kinds=miniature.REWARDS):
  """Yields the indices b, g, the task and the trajectory of each rollout."""
  _, trajectories = jax.tree.map(np.asarray, _act(kinds=kinds))
  for b, g in np.ndindex(_B, _G):
    task = jax.tree.map(lambda x, b=b: x[b], _tasks())
    trajectory = jax.tree.map(lambda x, b=b, g=g: x[b, g], trajectories)
    yield b, g, task, trajectory


def _interventions(trajectory):
  """Yields the intervention of each step, its values read off the outcome."""
  for mask, outcome in zip(
    trajectory.intervened, trajectory.outcomes, strict=True
  ):
    yield types.Intervention._make((mask, np.where(mask, outcome, 0)))


def _sets_in_reach(problem, trajectory):
  """Returns the sets that the budget allows at each step, by Python floats."""
  cost, left = np.asarray(problem.cost, np.float64), float(problem.budget)
  sets = [frozenset(np.flatnonzero(row)) for row in problem.sets if row.any()]
  found = []
  for mask in trajectory.intervened:
    found.append([s for s in sets if sum(cost[j] for j in s) <= left])
    left -= cost[mask].sum()
  return found


def _sigmoid(x):
  return 1 / (1 + np.exp(-x))


class ActorTest(parameterized.TestCase):
  def test_shapes(self):
    observations, trajectories = _act()
    self.assertEqual(observations.shape, (_B, _N, _D))
    steps = (_B, _G, _T)
    chex.assert_shape(list(trajectories.decision), (*steps, _Z))
    chex.assert_shape(
      [trajectories.log_prob_variable, trajectories.log_prob_cell], steps
    )
    chex.assert_shape(
      [trajectories.intervened, trajectories.values, trajectories.outcomes],
      (*steps, _D),
    )
    chex.assert_shape(trajectories.components, (*steps, 4))
    for leaf in jax.tree.leaves((observations, trajectories)):
      self.assertTrue(np.isfinite(leaf).all())

  def test_rollouts_of_a_group_differ(self):
    _, trajectories = _act()
    # Of means, what two that do the same see is the same.
    single = _tasks().scm.problem.samples == 1
    self.assertTrue(single.any())
    for outcomes in trajectories.outcomes[single]:
      self.assertLen(np.unique(outcomes, axis=0), _G)
    # Observations do not, and no two tasks share them.
    observations, _ = _act()
    self.assertLen(np.unique(observations, axis=0), _B)

  def test_one_key_one_experience(self):
    same = _jit_act(
      jax.random.PRNGKey(0), _params(), _tasks(), miniature.REWARDS
    )
    jax.tree.map(np.testing.assert_array_equal, same, _act())
    other, _ = _act(seed=1)
    self.assertFalse(np.array_equal(other, _act()[0]))

  def test_log_probabilities_are_those_of_the_full_pass(self):
    # As the learner computes them.
    _, trajectories = _act()
    _, choices = _said()
    log_prob = action_distribution.log_prob
    for _ in range(4):  # Over Z, T, G and B.
      log_prob = jax.vmap(log_prob)
    variable, cell = log_prob(choices, trajectories.decision)  # [B, G, T, Z]
    for actual, expected in (
      (trajectories.log_prob_variable, variable.sum(-1)),
      (trajectories.log_prob_cell, cell.sum(-1)),
    ):
      np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)
      self.assertGreater(np.std(actual), 0.1)

  def test_what_is_set_is_what_was_decided_and_allowed(self):
    counts = {}
    for b, g, task, trajectory in _episodes():
      problem, decision = task.scm.problem, trajectory.decision
      in_reach = _sets_in_reach(problem, trajectory)
      before = None
      for t, intervention in enumerate(_interventions(trajectory)):
        with self.subTest(f'SCM {b}, rollout {g}, step {t}'):
          np.testing.assert_array_equal(
            intervention.values, trajectory.values[t]
          )
          environment.check_intervention(problem, intervention)
          chosen = {
            int(j): fraction
            for j, fraction in zip(
              decision.variable[t], decision.fraction[t], strict=True
            )
            if j < _D
          }
          counts[len(chosen)] = counts.get(len(chosen), 0) + 1
          if in_reach[t]:
            self.assertIn(frozenset(chosen), in_reach[t])
            self.assertEqual(
              set(np.flatnonzero(intervention.mask)), set(chosen)
            )
            for j, fraction in chosen.items():
              low, high = problem.low[j], problem.high[j]
              place = (intervention.values[j] - low) / (high - low)
              self.assertAlmostEqual(place, fraction, places=4)
          else:
            # The budget is spent: what was set last stays.
            self.assertEmpty(chosen)
            self.assertEqual(trajectory.log_prob_variable[t], 0)
            self.assertEqual(trajectory.log_prob_cell[t], 0)
            jax.tree.map(np.testing.assert_array_equal, intervention, before)
          before = intervention
    # Of all kinds there were some.
    self.assertEqual(set(counts), {0, 1, 2})

  def test_the_first_intervention_can_always_be_paid_for(self):
    for _, _, task, trajectory in _episodes():
      self.assertNotEmpty(_sets_in_reach(task.scm.problem, trajectory)[0])

  def test_what_is_averaged_is_the_mean_over_the_bank(self):
    expectation = jax.jit(simulate.expectation)
    seen = set()
    for _, _, task, trajectory in _episodes():
      averaged = bool(task.scm.problem.samples > 1)
      seen.add(averaged)
      for intervention, outcome in zip(
        _interventions(trajectory), trajectory.outcomes, strict=True
      ):
        mean, _ = expectation(task.scm, task.objective.bank, intervention)
        error = np.abs(outcome - mean) / task.scm.scale
        if averaged:
          self.assertLess(error.max(), 1e-4)
        else:
          self.assertGreater(error.max(), 1e-2)
    self.assertLen(seen, 2)

  def test_latent_variables_are_never_seen(self):
    number = 0
    observations, _ = _act()
    for b, _, task, trajectory in _episodes():
      latent = task.scm.present & ~task.scm.problem.exists
      number += latent.sum()
      np.testing.assert_array_equal(trajectory.outcomes[:, latent], 0.0)
      np.testing.assert_array_equal(observations[b][:, latent], 0.0)
    self.assertGreater(number, 0)

  def test_paid_are_the_sets_that_the_rest_of_the_budget_pays_for(self):
    unpaid = 0
    for _, _, task, trajectory in _episodes():
      problem = task.scm.problem
      cost = np.asarray(trajectory.intervened) @ np.asarray(problem.cost)
      spent = np.cumsum(cost) - cost
      total = spent[:, None] + np.asarray(problem.sets) @ problem.cost
      paid = problem.sets.any(-1) & (total <= problem.budget)
      # But for those that are paid to the last cent.
      exact = np.abs(total - problem.budget) < 1e-3
      np.testing.assert_array_equal(trajectory.affordable | exact, paid | exact)
      unpaid += (problem.sets.any(-1) & ~paid).sum()
    self.assertGreater(unpaid, 0)

  def test_the_fraction_lies_in_the_cell(self):
    decision = jax.tree.map(np.asarray, _act()[1].decision)
    last = miniature.NUM_CELLS + 1
    edges = np.concatenate([[0], np.linspace(0, 1, last), [1]])
    self.assertTrue((edges[decision.cell] <= decision.fraction).all())
    self.assertTrue((decision.fraction <= edges[decision.cell + 1]).all())
    # Both ends were seen, and the inside.
    self.assertContainsSubset([0, last], decision.cell.flatten())
    self.assertFalse(np.isin(decision.cell, [0, last]).all())


@pytest.mark.fault
class FaultsTest(parameterized.TestCase):
  @parameterized.parameters(
    ('outcome', lambda lost, t: t._replace(outcomes=lost(t.outcomes))),
    (
      'logit',
      lambda lost, t: t._replace(log_prob_cell=lost(t.log_prob_cell)),
    ),
    (
      'logit',
      lambda lost, t: t._replace(log_prob_variable=lost(t.log_prob_variable)),
    ),
  )
  def test_says_what_and_on_which_task(self, name, spoil):
    observations, trajectories = _act()

    def lost(leaf):
      return leaf.at[(2, *[-1] * (leaf.ndim - 1))].set(jnp.nan)

    faulty = acting.non_finite_mask(observations, spoil(lost, trajectories))
    self.assertEqual(
      [tuple(place) for place in np.argwhere(faulty)],
      [(acting.CHECKED_NAMES.index(name), 2)],
    )

  def test_observations_and_rewards(self):
    observations, trajectories = _act()
    self.assertFalse(acting.non_finite_mask(observations, trajectories).any())
    observations = observations.at[1, 0, 0].set(jnp.inf)
    components = trajectories.components
    for i, name in enumerate(rewards.COMPONENTS):
      spoilt = components.at[0, 0, 0, i].set(-jnp.inf)
      faulty = acting.non_finite_mask(
        observations, trajectories._replace(components=spoilt)
      )
      self.assertEqual(
        [tuple(place) for place in np.argwhere(faulty)],
        [(0, 1), (acting.CHECKED_NAMES.index(f'reward/{name}'), 0)],
      )


class ComponentsTest(parameterized.TestCase):
  def _assert_component(self, name, expected_of, kinds=miniature.REWARDS):
    index = rewards.COMPONENTS.index(name)
    seen = []
    for b, g, task, trajectory in _episodes(kinds):
      with self.subTest(f'SCM {b}, rollout {g}'):
        actual = trajectory.components[:, index]
        seen.extend(actual)
        expected = expected_of(b, g, task, trajectory)
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)
    self.assertGreater(np.std(seen), 0.01)

  def test_optimization(self):
    @jax.jit
    def expected_outcome(task, intervention):
      return simulate.expected_outcome(
        task.scm, task.objective.bank, intervention
      )

    def expected(b, g, task, trajectory):
      del b, g
      objective = task.objective
      outcomes = np.array(
        [
          expected_outcome(task, intervention)
          for intervention in _interventions(trajectory)
        ]
      )
      worst, best = float(objective.worst), float(objective.best)
      return (outcomes - worst) / (best - worst)

    self._assert_component('optimization', expected)

  def test_structure(self):
    def expected(b, g, task, trajectory):
      del trajectory
      problem, parents = task.scm.problem, np.asarray(task.scm.parents)
      target = int(np.flatnonzero(problem.target)[0])
      others = np.flatnonzero(problem.exists & ~problem.target)
      truth = parents[target, others]
      belief = _sigmoid(_said()[0][b, g][:, others])  # [T + 1, .]
      right = np.where(truth, belief, 1 - belief)
      return np.diff(np.log2(right).mean(1))

    self._assert_component('structure', expected)

  def test_parent(self):
    def expected(b, g, task, trajectory):
      problem = task.scm.problem
      belief = _sigmoid(_said()[0][b, g]) * (problem.exists & ~problem.target)
      mask = trajectory.intervened
      return (belief[:_T] * mask).sum(1) / mask.sum(1)

    self._assert_component('parent', expected)

  def test_optimization_of_the_sampled_outcome(self):
    def expected(b, g, task, trajectory):
      del b, g
      scm = task.scm
      worst, best = task.objective.worst, task.objective.best
      target = np.flatnonzero(scm.problem.target)[0]
      u = trajectory.outcomes[:, target] - scm.location[target]
      outcome = scm.problem.goal * u / scm.scale[target]
      return (outcome - worst) / (best - worst)

    self._assert_component('optimization', expected, _OTHER_KINDS)

  def test_structure_by_the_entropy_of_the_exact_belief(self):
    belief = beliefs.exact()

    @jax.jit
    def entropies(problem, observations, intervened, outcomes):
      def step(state, row):
        state = belief.update(state, *row, None)
        return state, belief.entropy(state)

      state = belief.init(problem, observations, None)
      _, later = jax.lax.scan(step, state, (intervened, outcomes))
      return jnp.append(belief.entropy(state), later)

    def expected(b, g, task, trajectory):
      del g
      problem = task.scm.problem
      observations = _act(kinds=_OTHER_KINDS)[0][b]
      rows = trajectory.intervened, trajectory.outcomes
      nats = np.asarray(entropies(problem, observations, *rows))
      num_candidates = problem.exists.sum() - 1
      return -np.diff(nats / np.log(2) / num_candidates)

    self._assert_component('structure', expected, _OTHER_KINDS)

  def test_parent_by_the_truth(self):
    def expected(b, g, task, trajectory):
      del b, g
      target = np.flatnonzero(task.scm.problem.target)[0]
      mask = trajectory.intervened
      return (mask * task.scm.parents[target]).sum(1) / mask.sum(1)

    self._assert_component('parent', expected, _OTHER_KINDS)

  def test_kinds_change_the_rewards_alone(self):
    observations, trajectories = _act()
    others, other = _act(kinds=_OTHER_KINDS)
    np.testing.assert_array_equal(others, observations)
    for name in ('decision', 'intervened', 'values'):
      jax.tree.map(
        np.testing.assert_array_equal,
        getattr(other, name),
        getattr(trajectories, name),
      )
    # Two programs may differ in the last bit.
    np.testing.assert_allclose(other.outcomes, trajectories.outcomes, rtol=1e-6)

  def test_the_best_that_was_made(self):
    for _, _, _, trajectory in _episodes():
      np.testing.assert_allclose(
        trajectory.reached,
        np.maximum.accumulate(trajectory.expected_reward),
        rtol=1e-5,
        atol=1e-6,
      )

  def test_the_best_that_would_be_recommended(self):
    # Of those made so far, the one whose predicted mean is highest.
    network = miniature.network()

    def means(problem, observations, trajectory):
      rows = tokens.episode_rows(
        problem, trajectory.intervened, trajectory.outcomes
      )
      prefix = network.prefix(_params(), problem, observations)
      encodings = network.full(_params(), problem, prefix, rows)
      made = types.Intervention(trajectory.intervened, trajectory.values)
      asked = action_distribution.of_intervention(problem, made)

      def after_row(encoding, partial):
        return outcome_distribution.mean(
          network.predict(
            _params(), problem, prefix, encoding, partial
          ).expected
        )

      each = jax.vmap(after_row, (None, 0))
      return jax.vmap(each, (base.ENCODING_IN_AXES, None))(encodings, asked)

    kinds = config.RewardConfig(best='recommended')
    group = jax.vmap(means, (None, None, 0))
    predicted = jax.jit(jax.vmap(group))(
      _tasks().scm.problem, *_act(kinds=kinds)
    )  # [B, G, T + 1, T]
    worse = 0
    for b, g, _, trajectory in _episodes(kinds):
      for step in range(_T):
        best = np.argmax(predicted[b, g, step + 1, : step + 1])
        np.testing.assert_allclose(
          trajectory.reached[step],
          trajectory.expected_reward[best],
          rtol=1e-4,
          atol=1e-4,
        )
      worse += (np.diff(trajectory.reached) < -1e-3).any()
    self.assertGreater(worse, 0)

  def test_exploration(self):
    def expected(b, g, task, trajectory):
      del b, g
      problem = task.scm.problem
      low, width = problem.low, problem.high - problem.low
      earned, visited, places = [], [], []
      for intervention in _interventions(trajectory):
        terms, new = [], []
        for j in np.flatnonzero(intervention.mask):
          fraction = (intervention.values[j] - low[j]) / width[j]
          place = j, min(int(4 * fraction), 3)
          new.append(place)
          same = 0.5 ** visited.count(j) + 0.5 ** places.count(place)
          terms.append(same / 2)
        visited += [j for j, _ in new]
        places += new
        earned.append(np.mean(terms))
      return earned

    self._assert_component('exploration', expected)


if __name__ == '__main__':
  absltest.main()
