import dataclasses
import functools
import sys
from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from acme_cbo import types
from acme_cbo.agents.grpo import acting
from acme_cbo.agents.grpo import agent
from acme_cbo.beliefs import belief as beliefs
from acme_cbo.environments import environment
from acme_cbo.evaluation import held_out
from acme_cbo.evaluation import rollouts
from acme_cbo.infra import errors
from acme_cbo.networks import action_distribution
from acme_cbo.networks import base as networks_base
from acme_cbo.networks import tokens
from acme_cbo.policies import base as policies_base
from acme_cbo.policies import heuristics
from acme_cbo.policies import prediction
from acme_cbo.policies import trained
from acme_cbo.scms import interventions as interventions_lib
from acme_cbo.scms import mechanisms
from acme_cbo.scms import objective as objective_lib
from acme_cbo.scms import priors
from acme_cbo.scms import simulate
from tests.support import hand_made_scms
from tests.support import miniature

_OBSERVATIONS = miniature.HORIZON.num_observations
_INTERVENTIONS = miniature.HORIZON.num_interventions
_FAMILIES = ['linear', 'fourier', 'tanh', 'sigmoid', 'product']
_GRAPHS = ['chain', 'fork', 'star', 'erdos_renyi', 'scale_free']


@jax.jit
def _chain(goal) -> types.Task:
  """Returns `hand_made_scms.chain` in other units, as a task."""
  scm = hand_made_scms.chain(1.0, location=[3.0, -2.0, 5.0, 0.0], scale=2.0)
  problem = scm.problem
  scm = scm._replace(
    problem=problem._replace(
      goal=goal,
      low=jnp.where(problem.exists, scm.location + 2 * problem.low, 0),
      high=jnp.where(problem.exists, scm.location + 2 * problem.high, 0),
    )
  )
  bank = simulate.noise_bank(jax.random.key(0), scm, 8)
  return types.Task(scm, objective_lib.objective(scm, bank, 6))


def _scripted(script: types.Intervention) -> policies_base.PolicyFunctions:
  """Returns a policy that makes the interventions of a script.

  Its belief is the last row that it observed, at first the mean of the
  observations, so that an `Outcome` contains the observed rows.
  """

  def init(problem, observations, num_interventions):
    del problem, num_interventions
    return jnp.int32(0), observations.mean(0)

  def choose(key, memory):
    del key
    return jax.tree.map(lambda leaf: leaf[memory[0]], script)

  def observe(memory, step, intervention, outcome):
    del memory, intervention
    return jnp.int32(step + 1), outcome

  return policies_base.PolicyFunctions(
    init,
    choose,
    observe,
    recommend=lambda memory: choose(None, memory),
    belief_states=lambda memory: {'row': memory[1]},
    parents=lambda row: row,
  )


def _act_eagerly(
  key, variables, fractions, task: types.Task
) -> rollouts.Outcome:
  script = jax.vmap(interventions_lib.intervene_on, (None, 0, 0))(
    task.scm.problem, variables, fractions
  )
  return rollouts.run_episode(
    key, _scripted(script), task, _OBSERVATIONS, _INTERVENTIONS
  )


_act = jax.jit(_act_eagerly)


def _run(choices, goal: float = 1.0, seed: int = 0) -> rollouts.Outcome:
  """Sets variables of the chain at fractions of their domains."""
  variables, fractions = map(jnp.array, zip(*choices, strict=True))
  return _act(jax.random.key(seed), variables, fractions, _chain(goal))


class ScoreTest(parameterized.TestCase):
  @parameterized.parameters(
    # See `hand_made_scms.chain`: E[Y | do(x0)] = -1 - 2 x0 for x0 in [-1, 2]
    # and E[Y | do(x1)] = -x1 for x1 in [-0.5, 2]; -1 without an intervention.
    # The maximum is 1, by x0 = -1, and the minimum -5, by x0 = 2.
    (1.0, [(0, 0.0), (0, 1 / 3), (0, 1.0)], [1.0, 0.0, -2.0]),
    (-1.0, [(0, 0.0), (0, 1 / 3), (0, 1.0)], [-0.5, 0.0, 1.0]),
    (1.0, [(1, 0.0), (1, 0.6), (1, 1.0)], [0.75, 0.0, -0.5]),
    (-1.0, [(1, 0.0), (1, 0.6), (1, 1.0)], [-0.375, 0.0, 0.25]),
  )
  def test_by_hand(self, goal, choices, expected):
    outcome = _run(choices, goal)
    np.testing.assert_allclose(outcome.score, expected, atol=1e-5)
    # Values are in the variables' own units.
    problem = _chain(goal).scm.problem
    variable, fraction = map(np.array, zip(*choices, strict=True))
    mask, values = outcome.intervention
    np.testing.assert_array_equal(mask, variable[:, None] == np.arange(4))
    low, high = problem.low[variable], problem.high[variable]
    np.testing.assert_allclose(
      values.sum(1), low + fraction * (high - low), atol=1e-5
    )
    # The observed row is the belief of the scripted policy.
    target = outcome.parents['row'][1:, np.argmax(problem.target)]
    np.testing.assert_array_equal(outcome.target, target)

  @pytest.mark.fault
  @parameterized.product(
    fault=(('reset', [False, True]), ('step', [True, False])),
    value=(np.nan, np.inf),
  )
  def test_flags_what_is_not_finite(self, fault, value):
    name, finite = fault
    choices = [(0, 0.0), (0, 0.5), (1, 0.5)]
    self.assertTrue(_run(choices).finite.all())
    original = getattr(environment, name)

    def corrupted(*arguments):
      return original(*arguments).at[..., 0].set(value)

    with (
      mock.patch.object(environment, name, corrupted),
      # The compiled program would ignore the mock.
      mock.patch.object(sys.modules[__name__], '_act', _act_eagerly),
    ):
      outcome = _run(choices)
    self.assertEqual(outcome.finite.tolist(), finite)
    # The score comes from the SCM, so that only the flags show the fault.
    self.assertTrue(np.isfinite(outcome.score).all())

  def test_what_is_recommended_after_the_last_step(self):
    outcome = _run([(0, 0.0), (0, 0.5), (1, 0.2)])
    # The scripted policy recommends what it made last.
    self.assertEqual(
      outcome.after_last, {'score_recommended': outcome.score[-1]}
    )

  def test_predictions_after_the_last_step(self):
    # In own units E[Y | do(x0 = v)] is 9 - 2 v, and E[Y | do(x1 = v)] 3 - v.
    # The former is predicted within 1, the latter to be higher by 10.
    def predict(memory, asked):
      del memory
      truth = jnp.where(
        asked.mask[:, 0], 9 - 2 * asked.values[:, 0], 13 - asked.values[:, 1]
      )
      values = truth[:, None] + jnp.linspace(-1, 1, prediction.NUM_VALUES)
      return prediction.Prediction(truth, values, 2 * values)

    task = _chain(1.0)
    results = []
    for variable in (0, 1):
      script = interventions_lib.intervene_on(
        task.scm.problem, jnp.int32(variable), jnp.float32(0.3)
      )
      script = jax.tree.map(lambda leaf: jnp.stack([leaf] * 3), script)
      policy = _scripted(script)._replace(predict=predict)
      run = jax.jit(
        lambda key, policy=policy: rollouts.run_episode(
          key, policy, task, _OBSERVATIONS, _INTERVENTIONS
        )
      )
      results.append(run(jax.random.key(0)).after_last)
    right, wrong = results
    self.assertEqual(right['coverage_recommended'], 1)
    self.assertEqual(wrong['coverage_recommended'], 0)
    # Of a uniform distribution around the truth 1 / 2 - 1 / 3.
    ratio = wrong['crps_recommended'] / right['crps_recommended']
    self.assertAlmostEqual(ratio, (10 - 1 / 3) / (1 / 6), delta=1)
    # Some of the random interventions set x0, and others x1.
    self.assertBetween(right['coverage_random'], 0.1, 0.9)
    share = right['coverage_random']
    mixture = share + (1 - share) * ratio
    self.assertAlmostEqual(
      right['crps_random'] / right['crps_recommended'], mixture, delta=0.5
    )

  def test_no_intervention_is_0_and_the_best_is_1(self):
    objective = _chain(-1.0).objective
    self.assertEqual(rollouts.score(objective.baseline, objective), 0)
    self.assertEqual(rollouts.score(objective.best, objective), 1)


class BudgetTest(parameterized.TestCase):
  def test_the_last_intervention_is_repeated_when_the_budget_is_spent(self):
    # x0 costs 2 and x1 costs 5 of 8: after x1 and x0 nothing is affordable.
    task = _chain(1.0)
    problem = task.scm.problem._replace(
      cost=jnp.array([2.0, 5.0, 1, 1]), budget=jnp.array(8.0)
    )
    task = task._replace(scm=task.scm._replace(problem=problem))
    variables, fractions = jnp.array([1, 0, 1]), jnp.array([0.5, 0.25, 0.0])
    outcome = _act(jax.random.key(0), variables, fractions, task)
    mask, values = outcome.intervention
    np.testing.assert_array_equal(
      mask[:, :2], np.array([[0, 1], [1, 0], [1, 0]], bool)
    )
    np.testing.assert_array_equal(values[1], values[2])
    # By hand: E[Y | do(x0)] = -1 - 2 x0 at x0 = -0.25, and the baseline is -1.
    np.testing.assert_allclose(outcome.score[1:], [0.25, 0.25], atol=1e-5)
    # The outcome is observed again, with other noise.
    self.assertNotEqual(outcome.target[1], outcome.target[2])
    free = _act(jax.random.key(0), variables, fractions, _chain(1.0))
    self.assertTrue(free.intervention.mask[2, 1])
    jax.tree.map(
      lambda a, b: np.testing.assert_array_equal(a[:2], b[:2]),
      (outcome.score, outcome.target),
      (free.score, free.target),
    )

  def test_averaged_outcomes_have_no_noise(self):
    task = _chain(1.0)
    problem = task.scm.problem._replace(samples=jnp.array(1000.0))
    task = task._replace(scm=task.scm._replace(problem=problem))
    variables, fractions = jnp.array([1, 1, 0]), jnp.array([0.5, 0.5, 0.5])
    outcome = _act(jax.random.key(0), variables, fractions, task)
    self.assertEqual(outcome.target[0], outcome.target[1])
    # By hand: x1 is 0.75 before scaling, so the target is -0.75, which is
    # 5 + 2 times that in its own units. The noise bank of a linear SCM is 0.
    np.testing.assert_allclose(outcome.target[0], 3.5, rtol=1e-6)


class RandomKeyTest(parameterized.TestCase):
  def test_depends_on_the_key_alone(self):
    # The target is x2 = -x1 + e2 under any intervention. This gives e2 from the
    # rows that two policies observe.
    def data_and_noise(choices, seed):
      rows = np.float64(_run(choices, seed=seed).parents['row'])
      scm = _chain(1.0).scm
      rows = (rows - scm.location) / scm.scale
      return rows[0, :3], rows[1:, 2] + rows[1:, 1]

    observed, noise = data_and_noise([(0, 0.0), (0, 0.0), (0, 0.0)], seed=0)
    same_observed, same_noise = data_and_noise(
      [(1, 0.5), (0, 0.9), (1, 0.1)], seed=0
    )
    np.testing.assert_array_equal(observed, same_observed)
    np.testing.assert_allclose(noise, same_noise, atol=1e-3)
    other_observed, other_noise = data_and_noise(
      [(1, 0.5), (0, 0.9), (1, 0.1)], seed=1
    )
    # One of three draws may be close to another by chance.
    self.assertGreater(np.abs(observed - other_observed).max(), 1e-2)
    self.assertGreater(np.abs(noise - other_noise).max(), 1e-2)
    self.assertGreater(np.ptp(noise), 1e-2)


def _evaluate(factory: policies_base.Factory, tasks: types.Task):
  run = jax.jit(
    lambda key, tasks: rollouts.evaluate(
      key, factory, tasks, _OBSERVATIONS, _INTERVENTIONS
    )
  )
  return run(jax.random.key(5), tasks)


@functools.cache
def _random_outcome():
  return _evaluate(held_out.HEURISTICS['random'], miniature.tasks(16))


@pytest.mark.timeout(180)  # The programs are slow to compile.
class EvaluateTest(parameterized.TestCase):
  @parameterized.parameters(miniature.PRIOR, miniature.GENERAL)
  def test_oracle_scores_1(self, prior):
    tasks = miniature.tasks(16, prior)
    outcome = _evaluate(heuristics.oracle, tasks)
    np.testing.assert_allclose(
      outcome.score, np.ones((16, _INTERVENTIONS)), atol=1e-4
    )
    for actual, expected in zip(
      outcome.intervention, tasks.objective.choice, strict=True
    ):
      expected = np.tile(expected[:, None], (1, _INTERVENTIONS, 1))
      np.testing.assert_array_equal(actual, expected)

  def test_random_scores_below_the_oracle(self):
    outcome = _random_outcome()
    # Scores exceed 1 by at most the resolution of the search for the optimum.
    self.assertLess(outcome.score.max(), 1.02)
    self.assertLess(outcome.score.mean(), 0.5)
    self.assertEmpty(outcome.parents)

  def test_the_chunk_size_makes_no_difference(self):
    # 16 tasks are three chunks and a remainder.
    with mock.patch.object(rollouts, '_CHUNK', 5):
      outcome = _evaluate(held_out.HEURISTICS['random'], miniature.tasks(16))
    np.testing.assert_array_equal(
      outcome.intervention.mask, _random_outcome().intervention.mask
    )
    np.testing.assert_allclose(
      outcome.score, _random_outcome().score, atol=1e-5
    )

  def test_trained_policy_is_the_network_on_the_whole_episode(self):
    # The expected decisions do not use the actor's cache: after every step the
    # whole episode goes through `full`, and the most probable decision has the
    # largest logit among the allowed ones. The four tasks allow pairs and have
    # budgets that are spent before the end of the episode.
    num_tasks = 4
    tasks = miniature.tasks(num_tasks, miniature.GENERAL)
    problem = tasks.scm.problem
    costs = problem.sets @ problem.cost[..., None]
    dearest = jnp.max(costs, axis=(-2, -1))
    problem = problem._replace(budget=1.001 * dearest)
    tasks = tasks._replace(scm=tasks.scm._replace(problem=problem))
    network = miniature.network()
    num_variables = tasks.scm.order.shape[1]
    example = jax.tree.map(lambda leaf: leaf[0], tasks.scm.problem)
    no_rows = jnp.zeros((2, num_variables)), tokens.start_row(num_variables)
    params = miniature.loud(
      jax.jit(network.init)(jax.random.key(0), example, *no_rows), gain=3.0
    )
    outcome = _evaluate(
      lambda task: trained.trained(
        network, params, ('learned', 'exact'), 2, action_distribution.mode
      ),
      tasks,
    )

    @jax.jit
    def evaluate_head(
      problem, observations, intervened, outcomes, row, mask, fractions
    ):
      prefix = network.prefix(params, problem, observations)
      rows = tokens.episode_rows(problem, intervened, outcomes)
      encodings = network.full(params, problem, prefix, rows)
      encoding = networks_base.select_rows(encodings, row)
      partial = action_distribution.PartialIntervention(
        mask, fractions, jnp.array(False)
      )
      output = network.action_head(params, problem, prefix, encoding, partial)
      return encodings.parent_logits, output

    @jax.jit
    def advance(key, task, mask, values):
      chosen = types.Intervention(mask, jnp.where(mask, values, 0.0))
      return environment.sample_outcome(
        key, task.scm, task.objective.bank, chosen
      )

    def evaluate_logits(episode, row, chosen):
      mask, fractions = np.zeros(num_variables, bool), np.zeros(num_variables)
      for j, position in chosen.items():
        mask[j], fractions[j] = True, position
      _, output = evaluate_head(*episode, row, mask, fractions)
      return np.asarray(output.joint_logits), float(output.none_logit)

    def decide(logits_of, sets, fraction_of):
      """Returns {variable: fraction} of the decision, by sets of Python."""
      chosen = {}
      for _ in range(2):
        more = {j for s in sets if s > set(chosen) for j in s - set(chosen)}
        if not more:
          break
        joint, none = logits_of(chosen)
        joint = {j: joint[j] for j in more}
        if set(chosen) in sets and none >= max(
          scipy.special.logsumexp(logits) for logits in joint.values()
        ):
          break
        j = max(joint, key=lambda j: joint[j].max())
        chosen[j] = fraction_of(joint[j])
      return chosen

    def fraction(logits):
      cell, last = int(logits.argmax()), miniature.NUM_CELLS + 1
      if cell in (0, last):
        return float(cell == last)
      # Of three cells only the middle one has two neighbors.
      offset = 0.0
      if cell == 2:
        left, middle, right = logits[1:4].astype(float)
        offset = 0.5 * (right - left) / (2 * middle - left - right)
      return (cell - 0.5 + offset) / miniature.NUM_CELLS

    @jax.jit
    def exact_parents(problem, observations, intervened, outcomes):
      belief = beliefs.exact()
      no_logits = jnp.zeros(num_variables)
      state = belief.init(problem, observations, no_logits)
      probabilities = [belief.parents(state)]
      for t in range(_INTERVENTIONS):
        state = belief.update(state, intervened[t], outcomes[t], no_logits)
        probabilities.append(belief.parents(state))
      return jnp.stack(probabilities)

    sizes = []
    reset = jax.jit(environment.reset, static_argnums=2)
    for i, key in enumerate(jax.random.split(jax.random.key(5), num_tasks)):
      task = jax.tree.map(lambda leaf, i=i: leaf[i], tasks)
      problem, objective = task.scm.problem, task.objective
      key_reset, key_noise, _ = jax.random.split(key, 3)
      observations = reset(key_reset, task.scm, _OBSERVATIONS)
      # Later rows are empty; no row attends to a later one.
      intervened = np.zeros((_INTERVENTIONS, num_variables), bool)
      outcomes = np.zeros((_INTERVENTIONS, num_variables), np.float32)
      cost, left = np.asarray(problem.cost, float), float(problem.budget)
      low, width = problem.low, problem.high - problem.low
      values = np.zeros(num_variables, np.float32)
      for t, key_t in enumerate(jax.random.split(key_noise, _INTERVENTIONS)):
        episode = problem, observations, intervened, outcomes
        logits_of = functools.partial(evaluate_logits, episode, t)
        sets = [set(np.flatnonzero(row)) for row in problem.sets if row.any()]
        sets = [s for s in sets if sum(cost[list(s)]) <= left]
        chosen = {}
        if sets:
          chosen = decide(logits_of, sets, fraction)
          intervened[t, list(chosen)] = True
          values = np.zeros(num_variables, np.float32)
          for j, position in chosen.items():
            values[j] = np.clip(
              low[j] + position * width[j], low[j], problem.high[j]
            )
        else:
          intervened[t] = intervened[t - 1]
        left -= cost[intervened[t]].sum()
        sizes.append(len(chosen))
        outcomes[t], expected = advance(key_t, task, intervened[t], values)
        np.testing.assert_array_equal(
          outcome.intervention.mask[i, t], intervened[t]
        )
        gain = objective.best - objective.baseline
        np.testing.assert_allclose(
          outcome.score[i, t], (expected - objective.baseline) / gain, atol=1e-3
        )
      parent_logits, _ = evaluate_head(
        problem,
        observations,
        intervened,
        outcomes,
        0,
        np.zeros(num_variables, bool),
        np.zeros(num_variables),
      )
      np.testing.assert_allclose(
        outcome.parents['learned'][i],
        scipy.special.expit(parent_logits) * (problem.exists & ~problem.target),
        atol=1e-4,
      )
      np.testing.assert_allclose(
        outcome.parents['exact'][i],
        exact_parents(problem, observations, intervened, outcomes),
        atol=1e-4,
      )
    # No variable if the budget is spent, one, and two.
    self.assertEqual(set(sizes), {0, 1, 2})
    # The parameters are large enough for different choices.
    self.assertGreater(np.unique(outcome.score.round(3)).size, num_tasks)


def _fingerprint(key, prior, num_tasks):
  """Replaces `priors.sample`; the units of the tasks identify the key."""
  del prior
  tasks = miniature.tasks(num_tasks)
  location = jnp.broadcast_to(
    jax.random.normal(key, (5,)), tasks.scm.location.shape
  )
  return tasks._replace(scm=tasks.scm._replace(location=location))


def _held_out(seed: int = 1) -> held_out.HeldOut:
  """Returns 16 tasks that are sampled already."""
  tasks = held_out.HeldOut(seed, miniature.PRIOR, 16, miniature.HORIZON)
  tasks.tasks = miniature.tasks(16)
  return tasks


def _no_interventions():
  """Returns empty interventions of 16 tasks, 3 steps and 5 variables."""
  return types.Intervention(jnp.zeros((16, 3, 5), bool), jnp.zeros((16, 3, 5)))


def _outcome(parents):
  """Returns an outcome of 16 tasks that is zero apart from the beliefs."""
  zeros = jnp.zeros((16, 3))
  finite = jnp.ones((16, 2), bool)
  return rollouts.Outcome(
    zeros, _no_interventions(), zeros, parents, finite, {}
  )


class HeldOutTest(parameterized.TestCase):
  def test_table_has_a_row_for_each_task(self):
    tasks = _held_out()
    outcome = rollouts.Outcome(
      score=jnp.arange(48.0).reshape(16, 3),
      intervention=_no_interventions(),
      target=jnp.zeros((16, 3)),
      parents={},
      finite=jnp.ones((16, 2), bool),
      after_last={},
    )
    table = tasks.table('mine', outcome)
    scm = tasks.tasks.scm
    expected = {
      'policy': ['mine'] * 16,
      'task': list(range(16)),
      'family': [_FAMILIES[i] for i in scm.family],
      'graph': [_GRAPHS[i] for i in scm.graph],
      'variables': [int(row.sum()) for row in scm.problem.exists],
      'score_first': list(range(0, 48, 3)),
      'score_mean': list(range(1, 48, 3)),
      'score_best': list(range(2, 48, 3)),
      'score_last': list(range(2, 48, 3)),
    }
    self.assertEqual(table.to_dict('list'), expected)
    self.assertEqual(
      tasks.is_linear.tolist(), [name == 'linear' for name in table['family']]
    )

  def test_belief_quality_has_a_row_for_each_group_and_step(self):
    tasks = _held_out()
    scm = jax.device_get(tasks.tasks.scm)
    target = scm.problem.target.argmax(1)
    truth = np.array(scm.parents[np.arange(16), target], np.float32)
    # The probabilities of padding and of the target are ignored.
    others = scm.problem.exists & ~scm.problem.target
    truth[~others] = 0.7
    probability = np.stack([np.full_like(truth, 0.5), 1 - truth, truth], 1)
    outcome = _outcome({'mine': jnp.array(probability)})
    quality = tasks.belief_quality(outcome)
    self.assertEqual(list(quality['group'].unique()), list(tasks.groups()))
    self.assertEqual(set(quality['belief']), {'mine'})
    share = truth[others].mean()
    first = quality[quality['group'] == 'all'].to_dict('records')
    for row, interventions, f1, auroc, ece in zip(
      first,
      range(3),
      (0.0, 0.0, 1.0),
      (0.5, 0.0, 1.0),
      (abs(0.5 - share), 1.0, 0.0),
      strict=True,
    ):
      self.assertEqual(row['interventions'], interventions)
      self.assertAlmostEqual(row['f1'], f1)
      self.assertAlmostEqual(row['auroc'], auroc)
      self.assertAlmostEqual(row['ece'], ece, places=6)
    linear = scm.family == mechanisms.Family.LINEAR
    share = truth[linear][others[linear]].mean()
    row = quality[quality['group'] == 'linear'].iloc[0]
    self.assertAlmostEqual(row['ece'], abs(0.5 - share), places=6)

  def test_belief_quality_is_empty_if_all_candidates_are_parents(self):
    tasks = _held_out()
    parents = {'mine': jnp.zeros((16, 4, 5))}
    outcome = _outcome(parents)
    with mock.patch.object(tasks, 'parents', np.ones((16, 5), bool)):
      self.assertEmpty(tasks.belief_quality(outcome))

  @pytest.mark.fault
  @parameterized.product(
    name=('observation', 'outcome', 'score', 'belief mine'),
    value=(np.nan, np.inf),
  )
  def test_non_finite_components_are_named_with_their_scm(self, name, value):
    outcome = _outcome({'mine': jnp.zeros((16, 4, 5))})
    flags = ('observation', 'outcome')
    if name in flags:
      # Set by `rollouts.run_episode`, see `ScoreTest`.
      finite = outcome.finite.at[3, flags.index(name)].set(False)
      outcome = outcome._replace(finite=finite)
    elif name == 'score':
      outcome = outcome._replace(score=outcome.score.at[3, 1].set(value))
    else:
      parents = {'mine': outcome.parents['mine'].at[3, 2, 1].set(value)}
      outcome = outcome._replace(parents=parents)
    tasks = _held_out()
    tasks._check_finite(7, _outcome({}))
    with self.assertRaisesRegex(
      errors.NonFiniteError, f'update 7: {name} is not finite on held-out SCM 3'
    ):
      tasks._check_finite(7, outcome)

  @pytest.mark.fault
  def test_non_finite_outcomes_of_heuristics_raise(self):
    outcome = _outcome({})._replace(finite=jnp.zeros((16, 2), bool))
    tasks = _held_out()
    with (
      mock.patch.object(tasks, '_evaluate', lambda *unused: outcome),
      self.assertRaisesRegex(errors.NonFiniteError, 'update 0: observation'),
    ):
      tasks.scores({'random': held_out.HEURISTICS['random']})

  def test_the_exact_belief_needs_few_variables(self):
    for max_variables, expected in (
      (8, ['learned', 'exact']),
      (9, ['learned']),
    ):
      prior = dataclasses.replace(miniature.PRIOR, max_variables=max_variables)
      tasks = held_out.HeldOut(0, prior, 16, miniature.HORIZON)
      self.assertEqual(tasks._kinds, expected)

  def test_all_policies_get_the_same_observations(self):
    # The first belief of a scripted policy is the mean of its observations.
    factories: dict[str, policies_base.Factory] = {}
    for variable in ('0', '1'):
      mask = jnp.tile(jnp.arange(5) == int(variable), (3, 1))
      script = types.Intervention(mask, jnp.zeros((3, 5)))
      factories[variable] = lambda task, script=script: _scripted(script)
    outcomes = _held_out().scores(factories)
    observed = [
      np.asarray(one.parents['row'][:, 0]) for one in outcomes.values()
    ]
    np.testing.assert_array_equal(observed[0], observed[1])
    self.assertLen(np.unique(observed[0], axis=0), 16)
    # The policies differ.
    for variable, outcome in outcomes.items():
      done = np.unique(np.nonzero(outcome.intervention.mask)[-1])
      self.assertEqual(set(done), {int(variable)})

  def test_shares_no_draw_with_training(self):
    parts = miniature.parts()
    num_updates = 50

    def record(tasks, complete):
      self.assertTrue(complete)
      draws.append(np.asarray(tasks.scm.location[0]))
      return tasks

    def learn(state, *unused):
      metrics = {'policy/log_ratio_max': jnp.zeros(())}
      return state._replace(step=state.step + 1), metrics

    draws = []
    fine = jnp.zeros((len(acting.CHECKED_NAMES), 1), bool)
    with (
      mock.patch.object(priors, 'fill', lambda *of: (_fingerprint(*of), True)),
      mock.patch.object(priors, 'require_complete', record),
      mock.patch.object(agent, 'act', lambda *unused: ((None, None), fine)),
      mock.patch.object(agent, 'learn', learn),
    ):
      step = agent.make_step(agent.programs(parts))
      for seed in range(4):
        tasks = held_out.HeldOut(seed, miniature.PRIOR, 16, miniature.HORIZON)
        self.assertLen(tasks.parents, 16)
        state = agent.init(jax.random.PRNGKey(seed), parts)
        for _ in range(num_updates):
          state, _ = step(state)
    self.assertLen(draws, 4 * num_updates + 4)
    self.assertLen(np.unique(draws, axis=0), len(draws))


if __name__ == '__main__':
  absltest.main()
