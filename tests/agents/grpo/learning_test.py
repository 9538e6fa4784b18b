"""Tests of the loss against plain numpy, and of what an update does.

The network is linear, so that it compiles at once and has no gradient that is
stopped on purpose.
"""

import dataclasses
import functools
from typing import Any

from absl.testing import absltest
from absl.testing import parameterized
import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import scipy.stats

from acme_cbo.agents.grpo import acting
from acme_cbo.agents.grpo import config
from acme_cbo.agents.grpo import learning
from acme_cbo.agents.grpo import optimizer as optimizer_lib
from acme_cbo.agents.grpo import rewards
from acme_cbo.agents.grpo import total_loss
from acme_cbo.networks import action_distribution
from acme_cbo.networks import base
from acme_cbo.networks import tokens
from acme_cbo.scms import objective as objective_lib
from tests.support import miniature

_B, _G, _T = 4, 4, miniature.HORIZON.num_interventions
_NETWORK = miniature.linear_network()
_ADAM = optax.adam(1e-2)


def _add_up(updates, state, params=None):
  del params
  zeros = jax.tree.map(jnp.zeros_like, updates)
  return zeros, jax.tree.map(jnp.add, state, updates)


# Keeps the sum of the gradients, and moves nothing.
_ADD_UP = optax.GradientTransformation(
  lambda params: jax.tree.map(jnp.zeros_like, params), _add_up
)


@functools.cache
def _act():
  network, horizon = _NETWORK, miniature.HORIZON
  return jax.jit(
    lambda key, params, tasks: acting.act(
      jax.random.split(key, _B),
      params,
      network,
      tasks,
      horizon,
      _G,
      miniature.REWARDS,
    )
  )


def _init(optimizer=_ADAM, seed=0):
  task = jax.tree.map(lambda x: x[0], miniature.tasks(1))
  return learning.init(jax.random.key(seed), _NETWORK, optimizer, task)


@functools.cache
def _experience(seed=0, prior=miniature.PRIOR):
  """Tasks, observations and trajectories of the policy of `_init()`."""
  tasks = miniature.tasks(_B, prior)
  act = _act()
  data = act(jax.random.key(seed), _init().params, tasks)
  return jax.device_get((tasks, *data))


@functools.cache
def _updater(
  optimizer=_ADAM,
  reward_config=miniature.REWARDS,
  update_config=miniature.UPDATE,
):
  """The update as a compiled function of a state and experience."""

  @jax.jit
  def update(state, experience):
    return learning.update(
      state,
      _NETWORK,
      optimizer,
      *experience,
      reward_config=reward_config,
      update_config=update_config,
    )

  return update


@jax.jit
def _parents(params, problem, observations, rows):
  """[R, D] logits."""
  prefix = _NETWORK.prefix(params, problem, observations)
  return _NETWORK.full(params, problem, prefix, rows).parent_logits


def _after_row(head, params, problem, observations, rows, row, mask, fractions):
  """Output of a head of the network after `row`, for a partial intervention."""
  prefix = _NETWORK.prefix(params, problem, observations)
  encodings = _NETWORK.full(params, problem, prefix, rows)
  partial = action_distribution.PartialIntervention(
    mask, fractions, jnp.array(False)
  )
  encoding = base.select_rows(encodings, row)
  return head(params, problem, prefix, encoding, partial)


_turn = jax.jit(functools.partial(_after_row, _NETWORK.action_head))
_distribution = jax.jit(functools.partial(_after_row, _NETWORK.predict))


def _assert_trees_differ(test, a, b):
  pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
  test.assertFalse(all(np.array_equal(x, y) for x, y in pairs))


def _log_softmax(x):
  return x - np.log(np.exp(x).sum())


def _cross_entropy(logits, labels):
  logits, labels = np.asarray(logits), np.clip(labels, 0.0, 1.0)
  p = 1 / (1 + np.exp(-logits))
  return -(labels * np.log(p) + (1 - labels) * np.log1p(-p)).mean()


# One variable at a time, and all that there is.
_PRIORS = {'one': miniature.PRIOR, 'general': miniature.GENERAL}


class LossTest(parameterized.TestCase):
  update_config = dataclasses.replace(
    miniature.UPDATE,
    parent_coefficient=0.7,
    outcome_coefficient=0.4,
    prediction_coefficient=0.6,
    epsilon=0.1,
    epsilon_high=0.3,
    beta=0.2,
    variable_entropy=0.5,
    cell_entropy=0.3,
  )

  def _set_up(self, kind):
    experience, params = _experience(prior=_PRIORS[kind]), _init().params
    self.enterContext(jax.enable_x64(True))
    self.experience = miniature.doubles(experience)
    # Off the policy that acted, by enough for some of the ratios to be clipped.
    self.params, self.reference = miniature.doubles(
      (miniature.loud(params, gain=1.2), miniature.loud(params, gain=0.5))
    )
    rng = np.random.default_rng(0)
    self.advantages = jnp.array(rng.normal(size=(_B, _G, _T)))

  @functools.cached_property
  def loss(self):
    def loss(params):
      return total_loss.loss(
        params,
        self.reference,
        _NETWORK,
        *self.experience,
        advantages=self.advantages,
        update_config=self.update_config,
      )

    return jax.jit(jax.value_and_grad(loss, has_aux=True))

  def _episode(self, task, observations, trajectory, advantages):
    """The parts of the loss of one rollout, in plain numpy."""
    problem, objective = task.scm.problem, task.objective
    num_variables = problem.exists.size
    rows = tokens.episode_rows(
      problem, trajectory.intervened, trajectory.outcomes
    )
    inputs = (problem, observations, rows)
    parent_logits = np.asarray(_parents(self.params, *inputs))
    truth = np.asarray(task.scm.parents)[np.argmax(problem.target)]
    others = np.asarray(problem.exists & ~problem.target)
    sets = [set(np.flatnonzero(row)) for row in problem.sets if row.any()]
    cost = np.asarray(problem.cost, float)

    def following(members, allowed):
      """Variables that may join `members` within an allowed set, in order."""
      more = {j for s in allowed if s > members for j in s - members}
      return sorted(more)

    def earned(outcome):
      return (outcome - objective.worst) / (objective.best - objective.worst)

    def predictions():
      """Loss of the predictions given each partial intervention and row."""
      width = np.where(others, problem.high - problem.low, 1)
      for p, mask in enumerate(objective.partial.mask):
        members = set(np.flatnonzero(mask))
        place = (objective.partial.values[p] - problem.low) / width
        place = np.where(mask, np.clip(place, 0, 1), 0.0)
        more = following(members, sets)
        for row in range(_T + 1):
          # The empty one after each row, and the others in turn.
          if p and p != 1 + row % (len(objective.partial.mask) - 1):
            continue
          output = _turn(self.params, *inputs, row, mask, place)
          logits: list[Any] = [np.asarray(output.outcome_logits)[more].ravel()]
          labels = [earned(objective.curves[p][more]).ravel()]
          if members:
            logits.append([output.none_outcome])
            labels.append([earned(objective.partial_outcome[p])])
          logit, label = np.concatenate(logits), np.concatenate(labels)
          # Nothing may be added to one variable, and alone it is predicted.
          yield _cross_entropy(logit, label) if len(logit) else 0.0

    target = np.argmax(problem.target)
    widths = np.where(others, problem.high - problem.low, 1)

    def normalized(own):
      """Values of the target, in deviations of the records, more is better."""
      of_target = np.asarray(observations)[:, target]
      standardized = (own - of_target.mean()) / of_target.std()
      return 3 * np.arcsinh(float(problem.goal) * standardized / 3)

    def surprise(row, mask, place, value, kind):
      """Minus the log density of a value after a row."""
      mixture = getattr(
        _distribution(self.params, *inputs, row, mask, place), kind
      )
      density = scipy.stats.norm.pdf(value, mixture.means, mixture.deviations)
      return -np.log(np.exp(mixture.log_weights) @ density)

    def own(outcome):
      """Target in its own units of an outcome in internal units."""
      scm = task.scm
      return scm.location[target] + (
        scm.scale[target] * float(problem.goal) * outcome
      )

    def of_made(row, step, kind):
      mask = trajectory.intervened[step]
      place = (trajectory.values[step] - problem.low) / widths
      place = np.where(mask, np.clip(place, 0, 1), 0.0)
      span = objective.best - objective.worst
      value = own(objective.worst + span * trajectory.expected_reward[step])
      if kind == 'outcome':
        value = trajectory.outcomes[step, target]
      return surprise(row, mask, place, normalized(value), kind)

    def of_questions():
      asked, outcomes = objective_lib.random_interventions(
        trajectory.question_key, problem, objective, _T + 1
      )
      for row in range(_T + 1):
        mask = np.asarray(asked.mask[row])
        place = (asked.values[row] - problem.low) / widths
        yield surprise(
          row,
          mask,
          np.where(mask, place, 0.0),
          normalized(own(outcomes[row])),
          'expected',
        )

    # floor(0.618), floor(2 * 0.236), floor(3 * 0.854).
    of_past = [
      of_made(row, step, 'expected') for row, step in enumerate([0, 0, 2], 1)
    ]
    of_next = [of_made(step, step, 'expected') for step in range(_T)]

    parts = {
      'loss/parent': [
        _cross_entropy(logits[others], truth[others])
        for logits in parent_logits
      ],
      'loss/outcome': list(predictions()),
      'loss/predicted_mean': [
        np.mean([*map(np.mean, (of_past, of_next, [*of_questions()]))])
      ],
      'loss/predicted_outcome': [
        of_made(step, step, 'outcome') for step in range(_T)
      ],
      'loss/surrogate': [],
      'policy/kl_reference': [],
      'policy/entropy_variable': [],
      'policy/entropy_cell': [],
      'policy/clip_fraction': [],
    }
    left = float(problem.budget)
    for t in range(_T):
      allowed = [s for s in sets if sum(cost[j] for j in s) <= left]
      left -= cost[trajectory.intervened[t]].sum()
      mask = np.zeros(num_variables, bool)
      place, closed = np.zeros(num_variables), False
      log_ratio = -trajectory.log_prob_variable[t]
      log_ratio = log_ratio - trajectory.log_prob_cell[t]
      divergence = entropy_variable = entropy_cell = 0.0
      decision = trajectory.decision
      for turn in range(decision.variable.shape[1]):
        members = set(np.flatnonzero(mask))
        more = [] if closed else following(members, allowed)
        stops = closed or not more or members in allowed
        now, before = (
          _turn(params, *inputs, t, mask, place)
          for params in (self.params, self.reference)
        )

        def joint(output, more=more, stops=stops):
          # One softmax over all pairs of a variable and a cell, and none.
          logits = np.asarray(output.joint_logits)[more].ravel()
          return _log_softmax(np.append(logits, [output.none_logit] * stops))

        log_p, log_q = joint(now), joint(before)
        p = np.exp(log_p)
        num_cells = miniature.NUM_CELLS + 2
        of_cells = p[: len(more) * num_cells].reshape(len(more), num_cells)
        of_variable = np.append(of_cells.sum(1), p[of_cells.size :])
        of_variable_log = -(of_variable * np.log(of_variable)).sum()
        divergence += (p * (log_p - log_q)).sum()
        entropy_variable += of_variable_log
        entropy_cell += -(p * log_p).sum() - of_variable_log
        j, cell = int(decision.variable[t, turn]), decision.cell[t, turn]
        if j == num_variables:
          log_ratio = log_ratio + log_p[-1]
          closed = True
        else:
          log_ratio = log_ratio + log_p[more.index(j) * num_cells + cell]
          mask[j], place[j] = True, decision.fraction[t, turn]
      ratio, advantage = np.exp(log_ratio), float(advantages[t])
      clipped = np.clip(ratio, 0.9, 1.3)
      least = min(ratio * advantage, clipped * advantage)
      parts['loss/surrogate'].append(-least)
      parts['policy/kl_reference'].append(divergence)
      parts['policy/entropy_variable'].append(entropy_variable)
      parts['policy/entropy_cell'].append(entropy_cell)
      parts['policy/clip_fraction'].append(least < ratio * advantage)
    return {name: np.mean(values) for name, values in parts.items()}

  @parameterized.parameters(*_PRIORS)
  def test_every_part_and_their_sum_against_plain_numpy(self, kind):
    self._set_up(kind)
    tasks, observations, trajectories = self.experience
    episodes = [
      self._episode(
        jax.tree.map(lambda x, b=b: x[b], tasks),
        observations[b],
        jax.tree.map(lambda x, b=b, g=g: x[b, g], trajectories),
        self.advantages[b, g],
      )
      for b, g in np.ndindex(_B, _G)
    ]
    expected = {
      name: np.mean([episode[name] for episode in episodes])
      for name in episodes[0]
    }
    expected['loss/total'] = (
      expected['loss/surrogate']
      + 0.2 * expected['policy/kl_reference']
      - 0.5 * expected['policy/entropy_variable']
      - 0.3 * expected['policy/entropy_cell']
      + 0.7 * expected['loss/parent']
      + 0.4 * expected['loss/outcome']
      + 0.6 * expected['loss/predicted_mean']
      + 0.6 * expected['loss/predicted_outcome']
    )
    (total, parts), _ = self.loss(self.params)
    self.assertBetween(expected['policy/clip_fraction'], 0.1, 0.9)
    for name, value in expected.items():
      with self.subTest(name):
        np.testing.assert_allclose(parts[name], value, rtol=1e-6)
    self.assertEqual(total, parts['loss/total'])
    if kind == 'general':
      # Decisions of none, of one and of two; and nothing left to decide.
      sizes = (trajectories.decision.variable < 5).sum(-1)
      self.assertEqual(set(np.unique(sizes)), {0, 1, 2})

  @parameterized.parameters(*_PRIORS)
  def test_gradient_against_finite_differences(self, kind):
    self._set_up(kind)
    _, gradient = self.loss(self.params)
    rng = np.random.default_rng(1)
    for name, leaf in self.params.items():
      for _ in range(3):
        direction = rng.normal(size=leaf.shape)

        def along(step, name=name, direction=direction):
          moved = {name: self.params[name] + step * direction}
          return self.loss(self.params | moved)[0][0]

        difference = (along(1e-6) - along(-1e-6)) / 2e-6
        slope = (gradient[name] * direction).sum()
        if kind == 'one' and name == 'none':
          self.assertEqual(slope, 0.0)  # None is no choice.
        else:
          # To stop after one of two is rare.
          least = 1e-6 if name == 'none' else 1e-4
          self.assertGreater(abs(slope), least, name)
        np.testing.assert_allclose(slope, difference, rtol=1e-5, atol=1e-8)


class ChoicesTest(parameterized.TestCase):
  def test_are_those_of_the_actor(self):
    # In float32, in which both run.
    tasks, observations, trajectories = _experience(prior=miniature.GENERAL)
    params = _init().params

    @jax.jit
    @jax.vmap
    def log_probs(task, observations, trajectories):
      prefix = _NETWORK.prefix(params, task.scm.problem, observations)

      def of_rollout(trajectory):
        rows = tokens.episode_rows(
          task.scm.problem, trajectory.intervened, trajectory.outcomes
        )
        encodings = _NETWORK.full(params, task.scm.problem, prefix, rows)
        found = total_loss.step_distributions(
          _NETWORK, params, task.scm.problem, prefix, encodings, trajectory
        )
        first = total_loss.apply_after_rows(
          _NETWORK.action_head,
          params,
          task.scm.problem,
          prefix,
          base.select_rows(encodings, slice(-1)),
          jax.tree.map(
            lambda leaf: jnp.broadcast_to(leaf, (_T, *leaf.shape)),
            action_distribution.empty_intervention(5),
          ),
        )
        # The first turns may be known.
        again = total_loss.step_distributions(
          _NETWORK,
          params,
          task.scm.problem,
          prefix,
          encodings,
          trajectory,
          first,
        )
        log_prob = jax.vmap(jax.vmap(action_distribution.log_prob))
        return (
          log_prob(found, trajectory.decision),
          log_prob(again, trajectory.decision),
        )

      return jax.vmap(of_rollout)(trajectories)

    found = jax.device_get(log_probs(tasks, observations, trajectories))
    for variable, cell in found:
      for actual, expected in (
        (variable, trajectories.log_prob_variable),
        (cell, trajectories.log_prob_cell),
      ):
        np.testing.assert_allclose(actual.sum(-1), expected, rtol=0, atol=1e-5)
        self.assertGreater(np.std(expected), 0.1)


class DivergenceTest(parameterized.TestCase):
  def test_is_of_whole_decisions_at_every_level(self):
    # Another policy than the one that acted.
    params = _init(seed=1).params

    @jax.jit
    def parts_at_levels(params, experience):
      parts = {}
      for level in ('decision', 'factor', 'sequence'):
        update_config = dataclasses.replace(
          miniature.UPDATE, importance_sampling_level=level
        )
        _, parts[level] = total_loss.loss(
          params,
          params,
          _NETWORK,
          *experience,
          advantages=jnp.ones((_B, _G, _T)),
          update_config=update_config,
        )
      return parts

    parts = parts_at_levels(params, _experience())
    expected = parts['decision']
    self.assertGreater(expected['policy/kl_acting'], 1e-3)
    for level in ('factor', 'sequence'):
      np.testing.assert_allclose(
        parts[level]['policy/kl_acting'], expected['policy/kl_acting']
      )
      self.assertGreaterEqual(
        parts[level]['policy/log_ratio_max'], expected['policy/log_ratio_max']
      )


class UpdateTest(parameterized.TestCase):
  def test_on_policy_nothing_is_clipped(self):
    _, metrics = _updater()(_init(), _experience())
    self.assertEqual(metrics['policy/clip_fraction'], 0)
    self.assertLess(metrics['policy/log_ratio_max'], 1e-5)
    self.assertLess(abs(metrics['policy/kl_acting']), 1e-6)
    # Advantages have mean 0 in each group, and all ratios are 1.
    self.assertLess(abs(metrics['loss/surrogate']), 1e-6)
    self.assertGreater(metrics['train/gradient_norm'], 1e-3)

  def test_metrics_are_finite_scalars(self):
    _, metrics = _updater()(_init(), _experience())
    for name, value in metrics.items():
      with self.subTest(name):
        self.assertEqual(jnp.shape(value), ())
        self.assertTrue(np.isfinite(value))

  def test_rewards_are_means_of_the_components(self):
    _, metrics = _updater()(_init(), _experience())
    _, _, trajectories = _experience()
    components = np.asarray(trajectories.components)
    for i, name in enumerate(rewards.COMPONENTS):
      np.testing.assert_allclose(
        metrics[f'reward/{name}'], components[..., i].mean(), rtol=1e-5
      )
    np.testing.assert_allclose(
      metrics['reward/total'],
      (components * [1.0, 0.5, 0.3, 0.1]).sum(-1).mean(),
      rtol=1e-5,
    )
    np.testing.assert_allclose(
      metrics['reward/optimization_last'],
      components[:, :, -1, 0].mean(),
      rtol=1e-5,
    )
    np.testing.assert_allclose(
      metrics['reward/optimization_best'],
      components[..., 0].max(-1).mean(),
      rtol=1e-5,
    )

  def test_the_better_rollouts_become_more_likely(self):
    # The sum of advantage times log probability grows along its gradient.
    update_config = dataclasses.replace(
      miniature.UPDATE,
      variable_entropy=0.0,
      cell_entropy=0.0,
      num_iterations=5,
      parent_coefficient=0.0,
      outcome_coefficient=0.0,
    )
    update = _updater(update_config=update_config)
    _, metrics = update(_init(), _experience())
    # Mean over five passes; it is 0 in the first.
    self.assertLess(metrics['loss/surrogate'], -1e-3)
    self.assertGreater(metrics['policy/log_ratio_max'], 1e-2)

  def test_one_seed_one_result(self):
    update = _updater()
    first, metrics = update(_init(), _experience())
    second, again = update(_init(), _experience())
    chex.assert_trees_all_equal(first._replace(key=0), second._replace(key=0))
    chex.assert_trees_all_equal(metrics, again)
    np.testing.assert_array_equal(
      jax.random.key_data(first.key), jax.random.key_data(second.key)
    )
    third, _ = update(_init(), _experience(seed=1))
    _assert_trees_differ(self, first.params, third.params)
    _assert_trees_differ(self, _init().params, _init(seed=1).params)

  @parameterized.parameters(
    ('none', 'group'), ('group', 'group'), ('none', 'reached')
  )
  def test_advantages_are_those_of_the_weighted_rewards(
    self, scale_components, baseline
  ):
    # By numpy from the components: of the first the best so far counts at every
    # step, by factors, of the others every step; each is or is not divided by
    # its deviation within the group; from their sum is or is not taken what it
    # has to do with the best before; and it is divided by its deviation within
    # all groups.
    update_config = dataclasses.replace(
      miniature.UPDATE,
      simple_regret_share=1.0,
      regret_floor=0.1,
      baseline=baseline,
      supervision='outcome',
      scale_rewards='batch',
      scale_components=scale_components,
    )
    reward_config = config.RewardConfig(2.0, 0.0, 0.0, 1.0)
    update = _updater(_ADD_UP, reward_config, update_config)
    state, _ = update(_init(_ADD_UP), _experience())

    tasks, observations, trajectories = _experience()
    components = np.asarray(trajectories.components)
    factors = 1 - np.log1p(np.maximum(1 - components[..., 0], 0) / 0.1) / (
      np.log(11)
    )
    so_far = np.maximum.accumulate(factors, axis=-1)
    of_first, of_last = so_far.sum(-1), components[..., 3].sum(-1)

    def spread(x):  # Of a group that has none, 1: its advantages are 0.
      deviation = x.std(1, keepdims=True)
      return np.where(deviation > 1e-6, deviation, 1.0)

    if scale_components == 'group':
      of_first, of_last = (
        (x - x.mean(1, keepdims=True)) / spread(x) for x in (of_first, of_last)
      )
    earned = np.repeat((2 * of_first + of_last)[..., None], _T, -1)
    centred = earned - earned.mean(1, keepdims=True)
    if baseline == 'reached':
      before = np.concatenate(
        [np.zeros_like(so_far[..., :1]), so_far[..., :-1]], -1
      )
      before -= before.mean(1, keepdims=True)
      for step in range(1, _T):
        x, y = before[..., step], centred[..., step]
        centred[..., step] -= (x * y).sum() / (x * x).sum() * x
    advantages = centred / np.sqrt((centred**2).mean((0, 1)))

    @jax.jit
    @jax.grad
    def gradient(params):
      total, _ = total_loss.loss(
        params,
        params,
        _NETWORK,
        tasks,
        observations,
        trajectories,
        jnp.float32(advantages),
        update_config,
      )
      return total

    expected = gradient(_init().params)
    chex.assert_trees_all_close(
      state.opt_state, optimizer_lib.stack_by_shape(expected), atol=1e-5
    )

  def test_minibatches_hold_every_scm_once(self):
    # The mean over the minibatches, and over the parts of each of them, is the
    # gradient of the whole batch.
    def mean_gradient(num_minibatches, num_iterations, num_parts=1):
      update_config = dataclasses.replace(
        miniature.UPDATE,
        num_minibatches=num_minibatches,
        num_iterations=num_iterations,
        gradient_accumulation_steps=num_parts,
      )
      update = _updater(_ADD_UP, update_config=update_config)
      state, _ = update(_init(_ADD_UP), _experience())
      count = num_minibatches * num_iterations
      return jax.tree.map(lambda total: total / count, state.opt_state)

    whole = mean_gradient(1, 1)
    chex.assert_trees_all_close(mean_gradient(2, 3), whole, atol=1e-6)
    chex.assert_trees_all_close(mean_gradient(1, 1, 2), whole, atol=1e-6)
    with self.assertRaisesRegex(TypeError, 'reshape'):
      mean_gradient(3, 1)

  def test_dead_updates_are_counted_in_a_row(self):
    dead = _updater(reward_config=config.RewardConfig(0.0, 0.0, 0.0, 0.0))
    state, metrics = dead(_init(), _experience())
    self.assertEqual(state.dead_updates, 1)
    self.assertEqual(metrics['train/dead_groups'], 1)
    state, _ = dead(state, _experience())
    self.assertEqual(state.dead_updates, 2)
    state, metrics = _updater()(state, _experience())
    self.assertEqual(state.dead_updates, 0)
    self.assertLess(metrics['train/dead_groups'], 1)
    self.assertEqual(state.step, 3)

  def test_reference_is_renewed_every_second_update(self):
    update = _updater(
      update_config=dataclasses.replace(
        miniature.UPDATE, reference_every=2, beta=0.1
      )
    )
    states, divergences = [_init()], []
    for _ in range(3):
      state, metrics = update(states[-1], _experience())
      states.append(state)
      divergences.append(metrics['policy/kl_reference'])
    chex.assert_trees_all_equal(states[0].reference, states[0].params)
    chex.assert_trees_all_equal(states[1].reference, states[0].params)
    chex.assert_trees_all_equal(states[2].reference, states[2].params)
    chex.assert_trees_all_equal(states[3].reference, states[2].params)
    # The divergence is that before each update.
    self.assertEqual(divergences[0], 0)
    self.assertGreater(divergences[1], 1e-6)
    self.assertEqual(divergences[2], 0)


class StackedTest(absltest.TestCase):
  def test_there_and_back(self):
    rng = np.random.default_rng(0)
    tree = {
      name: jnp.float32(rng.normal(size=shape))
      for name, shape in (('a', (2, 3)), ('b', (3,)), ('c', (2, 3)), ('d', ()))
    }
    stacks = optimizer_lib.stack_by_shape(tree)
    self.assertEqual(
      {shape: stack.shape for shape, stack in stacks.items()},
      {'2x3': (2, 2, 3), '3': (1, 3), '': (1,)},
    )
    np.testing.assert_array_equal(stacks['2x3'][1], tree['c'])
    chex.assert_trees_all_equal(optimizer_lib.unstack(stacks, tree), tree)


class OptimizerTest(absltest.TestCase):
  def test_learning_rate_warms_up_and_decays(self):
    # The step on a constant gradient is in proportion to the learning rate: up
    # in a line to 0.4 at step 4, then half a cosine down to 0.1 at step 12.
    optimizer = optimizer_lib.make_optimizer(
      optimizer_lib.schedule(0.4, 4, 12, 0.25), 1.0, 0.0
    )
    params = optimizer_lib.stack_by_shape(jnp.zeros((1, 1)))
    gradient = optimizer_lib.stack_by_shape(jnp.full((1, 1), 0.5))
    update = jax.jit(optimizer.update)
    state, rates = optimizer.init(params), []
    for _ in range(13):
      step, state = update(gradient, state, params)
      rates.append(-float(step['1x1'][0, 0, 0]))
    expected = [0, 0.1, 0.2, 0.3, 0.4]
    expected += [0.25 + 0.15 * np.cos(np.pi * t / 8) for t in range(1, 9)]
    rates = np.array(rates) * 0.4 / rates[4]
    np.testing.assert_allclose(rates, expected, atol=1e-5)

  def test_steps_of_matrices_are_orthogonal_and_as_large_as_adams(self):
    optimizer = optimizer_lib.make_optimizer(
      optimizer_lib.schedule(0.4, 0, 10, 1.0), 1.0, 0.0
    )
    # Singular values of 5, 2 and 1 become equal.
    rng = np.random.default_rng(0)
    left, _ = np.linalg.qr(rng.normal(size=(8, 3)))
    right, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    gradient = jnp.float32(left * [5, 2, 1] @ right.T)
    # Each on its own: the other of the same shape is as it were alone.
    other = jnp.float32(rng.normal(size=(8, 3)))
    params = optimizer_lib.stack_by_shape([jnp.zeros((8, 3))] * 2)
    steps, _ = jax.jit(optimizer.update)(
      optimizer_lib.stack_by_shape([gradient, other]),
      optimizer.init(params),
      params,
    )
    step, _ = optimizer_lib.unstack(steps, [gradient, other])
    # A step of root mean square 0.2 x 0.4 has the Frobenius norm of 3 values.
    expected = -0.2 * 0.4 * np.sqrt(8 * 3 / 3)
    singular = np.diag(left.T @ np.asarray(step) @ right)
    # Five steps of Newton and Schulz leave them within 0.3 of each other.
    np.testing.assert_allclose(singular / expected, 1, atol=0.35)
    np.testing.assert_allclose(
      left * singular @ right.T, step, atol=abs(expected) * 0.05
    )


if __name__ == '__main__':
  absltest.main()
