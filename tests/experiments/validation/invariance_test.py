"""Tests that outputs do not depend on units, signs and order of variables.

In float64, so that rounding makes no difference.
"""

import functools
from typing import Any

from absl.testing import absltest
from absl.testing import parameterized
import hypothesis
from hypothesis import strategies
import jax
import jax.numpy as jnp
import numpy as np

from acme_cbo import types
from acme_cbo.agents.grpo import agent
from acme_cbo.experiments.validation import invariance
from acme_cbo.networks import action_distribution
from acme_cbo.scms import intervention_sets
from acme_cbo.scms import interventions
from tests.support import miniature

_NUM_VARIABLES = 5
_NUM_TASKS = 5
_TOLERANCE = 1e-4

_settings = hypothesis.settings(
  max_examples=25, deadline=None, derandomize=True, database=None
)
_indices = strategies.integers(0, _NUM_TASKS - 1)


def _numbers(low, high):
  """Returns a strategy for [D] numbers."""
  numbers = strategies.floats(low, high, allow_nan=False)
  return strategies.lists(
    numbers, min_size=_NUM_VARIABLES, max_size=_NUM_VARIABLES
  ).map(np.array)


@functools.partial(jax.jit, static_argnums=2)
@functools.partial(jax.vmap, in_axes=(0, 0, None))
@functools.partial(jax.vmap, in_axes=(0, None, None))
def _sample_interventions(key, problem, num_steps):
  """Samples uniform decisions, and interventions within the budget."""
  uniform = jnp.zeros((_NUM_VARIABLES, miniature.NUM_CELLS + 2)), jnp.zeros(())

  def step(carry, key):
    spent, last = carry
    sets = intervention_sets.affordable(problem, spent)
    keys = list(jax.random.split(key))
    decision, *_ = action_distribution.decide(
      keys, lambda partial: uniform, sets, action_distribution.sample
    )
    done = jax.tree.map(
      lambda new, old: jnp.where(sets.any(), new, old),
      interventions.from_decision(problem, decision),
      last,
    )
    return (spent + done.mask @ problem.cost, done), (decision, done)

  start = jnp.zeros(()), interventions.no_intervention(_NUM_VARIABLES)
  return jax.lax.scan(step, start, jax.random.split(key, num_steps))[1]


@functools.cache
def _recorded():
  """Returns parts, amplified parameters, and episodes of random actions.

  The SCMs have interventions on sets, budgets and latent causes.
  """
  parts = miniature.parts(network=miniature.network(), prior=miniature.GENERAL)
  params = miniature.loud(
    jax.jit(lambda k: agent.init(k, parts))(jax.random.key(3)).params, gain=3.0
  )
  tasks = jax.device_get(miniature.tasks(_NUM_TASKS, miniature.GENERAL))
  rng = np.random.default_rng(0)
  shape = (
    _NUM_TASKS,
    parts.update.num_generations,
    parts.horizon.num_interventions,
  )
  scm = tasks.scm

  def rows(*axes) -> Any:
    """Samples values in the range of the variables."""
    noise = rng.normal(size=(_NUM_TASKS, *axes, _NUM_VARIABLES))
    wide = (slice(None), *[None] * len(axes))
    values = scm.location[wide] + scm.scale[wide] * noise
    return np.float32(np.where(scm.problem.exists[wide], values, 0.0))

  decision, done = jax.device_get(
    _sample_interventions(
      jax.random.split(jax.random.key(0), shape[:2]), scm.problem, shape[2]
    )
  )
  outcomes = np.where(done.mask, done.values, rows(*shape[1:]))
  nothing: Any = np.zeros(shape, np.float32)
  affordable: Any = np.ones((*shape, np.shape(scm.problem.sets)[1]), bool)
  question_keys: Any = np.zeros((*shape[:2], 2), np.uint32)
  trajectories = types.Trajectory(
    decision=decision,
    intervened=done.mask,
    values=done.values,
    outcomes=outcomes,
    affordable=affordable,
    log_prob_variable=nothing,
    log_prob_cell=nothing,
    components=nothing,
    expected_reward=nothing,
    reached=nothing,
    question_key=question_keys,
  )
  observations = rows(parts.horizon.num_observations)
  return parts, params, invariance.Episode(tasks, observations, trajectories)


class InvarianceTestCase(parameterized.TestCase):
  """Evaluates recorded episodes in float64."""

  def setUp(self):
    super().setUp()
    self.enterContext(jax.enable_x64(True))

  def evaluate(self, episode):
    _, params, _ = _recorded()
    return _evaluator()(invariance.to_float64(params), episode)

  def episode(self, index):
    _, _, episodes = _recorded()
    episode = jax.tree.map(lambda leaf: np.asarray(leaf[index]), episodes)
    return invariance.to_float64(episode)

  def assert_same(self, index, episode, expected=None, tolerance=_TOLERANCE):
    expected = expected or self.evaluate(self.episode(index))
    outputs = self.evaluate(episode)
    for name, error in invariance.max_differences(outputs, expected).items():
      self.assertLess(error, tolerance, name)
    for choices in zip(outputs.choice, expected.choice, strict=True):
      flat = [np.reshape(x, (len(x), -1)) for x in choices]
      best = [x.argmax(1) for x in flat]
      np.testing.assert_array_equal(*best)


@functools.cache
def _evaluator():
  return invariance.make_evaluator(_recorded()[0])


class TransformationTest(InvarianceTestCase):
  @hypothesis.given(_indices, _numbers(-12, 12), _numbers(-1000, 1000))
  @_settings
  def test_units_do_not_matter(self, index, exponent, shift):
    episode = self.episode(index)
    self.assert_same(index, invariance.rescale(episode, 10.0**exponent, shift))

  @hypothesis.given(
    _indices, strategies.permutations(range(_NUM_VARIABLES)).map(np.array)
  )
  @_settings
  def test_order_does_not_matter(self, index, permutation):
    episode = self.episode(index)
    self.assert_same(
      index,
      invariance.permute(episode, permutation),
      invariance.permute_outputs(self.evaluate(episode), permutation),
    )

  @parameterized.parameters(range(_NUM_TASKS))
  def test_minimizing_is_maximizing_the_negative(self, index):
    negated = invariance.negate_target(self.episode(index))
    self.assertEqual(
      negated.task.scm.problem.goal, -self.episode(index).task.scm.problem.goal
    )
    self.assert_same(index, negated)

  def test_episodes_have_sets_and_latent_causes(self):
    _, _, (task, _, trajectories) = _recorded()
    sizes = trajectories.decision.variable < _NUM_VARIABLES
    self.assertEqual(set(np.unique(sizes.sum(-1))), {0, 1, 2})
    latent = task.scm.present & ~task.scm.problem.exists
    self.assertTrue(latent.any())

  def test_a_change_is_detected(self):
    episode = self.episode(0)
    for name, changed in (
      ('choice', episode._replace(observations=2 * episode.observations)),
      (
        'rewards',
        episode._replace(
          task=episode.task._replace(
            objective=episode.task.objective._replace(worst=-99.0)
          )
        ),
      ),
    ):
      differences = invariance.max_differences(
        self.evaluate(changed), self.evaluate(episode)
      )
      self.assertGreater(differences[name], 100 * _TOLERANCE)

  def test_outputs_are_not_constant(self):
    outputs = self.evaluate(self.episode(0))
    for name, values in zip(invariance.Outputs._fields, outputs, strict=True):
      self.assertGreater(np.ptp(values), 0.1, name)


if __name__ == '__main__':
  absltest.main()
