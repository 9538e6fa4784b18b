"""Whatever the units, what is said of an episode stays the same.

In float64, where only units could make a difference.
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


def _each(low, high):
  """A number for each variable."""
  numbers = strategies.floats(low, high, allow_nan=False)
  return strategies.lists(
    numbers, min_size=_NUM_VARIABLES, max_size=_NUM_VARIABLES
  ).map(np.array)


@functools.partial(jax.jit, static_argnums=2)
@functools.partial(jax.vmap, in_axes=(0, 0, None))
@functools.partial(jax.vmap, in_axes=(0, None, None))
def _wander(key, problem, num_steps):
  """Decisions at random, and what they set while there is a budget."""
  even = jnp.zeros((_NUM_VARIABLES, miniature.NUM_CELLS + 2)), jnp.zeros(())

  def step(carry, key):
    spent, last = carry
    sets = intervention_sets.affordable(problem, spent)
    keys = list(jax.random.split(key))
    decision, *_ = action_distribution.decide(
      keys, lambda partial: even, sets, action_distribution.sample
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
  """Parts, loud parameters, and what a group did that chose at random.

  On problems of sets, with budgets and latent causes.
  """
  parts = miniature.parts(network=miniature.network(), prior=miniature.GENERAL)
  params = miniature.loud(
    jax.jit(lambda k: agent.init(k, parts))(jax.random.key(3)).params, gain=3.0
  )
  tasks = jax.device_get(miniature.tasks(_NUM_TASKS, miniature.GENERAL))
  rng = np.random.default_rng(0)
  shape = _NUM_TASKS, parts.num_generations, parts.horizon.num_interventions
  scm = tasks.scm

  def rows(*axes) -> Any:
    """Values of the size that the variables have."""
    noise = rng.normal(size=(_NUM_TASKS, *axes, _NUM_VARIABLES))
    wide = (slice(None), *[None] * len(axes))
    values = scm.location[wide] + scm.scale[wide] * noise
    return np.float32(np.where(scm.problem.exists[wide], values, 0.0))

  decision, done = jax.device_get(
    _wander(
      jax.random.split(jax.random.key(0), shape[:2]), scm.problem, shape[2]
    )
  )
  outcomes = np.where(done.mask, done.values, rows(*shape[1:]))
  nothing: Any = np.zeros(shape, np.float32)
  affordable: Any = np.ones((*shape, np.shape(scm.problem.sets)[1]), bool)
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
  )
  observations = rows(parts.horizon.num_observations)
  return parts, params, invariance.Episode(tasks, observations, trajectories)


class UnitsTestCase(parameterized.TestCase):
  """Listens to recorded episodes in float64."""

  def setUp(self):
    super().setUp()
    self.enterContext(jax.enable_x64(True))

  def listen(self, episode):
    _, params, _ = _recorded()
    return _listener()(invariance.in_double(params), episode)

  def episode(self, index):
    _, _, episodes = _recorded()
    one = jax.tree.map(lambda leaf: np.asarray(leaf[index]), episodes)
    return invariance.in_double(one)

  def assert_same(self, index, told, expected=None, tolerance=_TOLERANCE):
    expected = expected or self.listen(self.episode(index))
    found = self.listen(told)
    for name, error in invariance.largest_difference(found, expected).items():
      self.assertLess(error, tolerance, name)
    for one, other in zip(found.choice, expected.choice, strict=True):
      flat = [np.reshape(x, (len(x), -1)) for x in (one, other)]
      best = [x.argmax(1) for x in flat]
      np.testing.assert_array_equal(*best)


@functools.cache
def _listener():
  return invariance.listener(_recorded()[0])


class RetoldTest(UnitsTestCase):
  @hypothesis.given(_indices, _each(-12, 12), _each(-1000, 1000))
  @_settings
  def test_units_do_not_matter(self, index, exponent, shift):
    episode = self.episode(index)
    self.assert_same(index, invariance.measured(episode, 10.0**exponent, shift))

  @hypothesis.given(
    _indices, strategies.permutations(range(_NUM_VARIABLES)).map(np.array)
  )
  @_settings
  def test_numbers_do_not_matter(self, index, permutation):
    episode = self.episode(index)
    self.assert_same(
      index,
      invariance.renumbered(episode, permutation),
      invariance.renumber_said(self.listen(episode), permutation),
    )

  @parameterized.parameters(range(_NUM_TASKS))
  def test_to_minimise_is_to_maximise_the_negative(self, index):
    told = invariance.negated(self.episode(index))
    self.assertEqual(
      told.task.scm.problem.goal, -self.episode(index).task.scm.problem.goal
    )
    self.assert_same(index, told)

  def test_what_is_recorded_is_worth_telling(self):
    _, _, (task, _, trajectories) = _recorded()
    sizes = trajectories.decision.variable < _NUM_VARIABLES
    self.assertEqual(set(np.unique(sizes.sum(-1))), {0, 1, 2})
    latent = task.scm.present & ~task.scm.problem.exists
    self.assertTrue(latent.any())

  def test_a_difference_would_be_seen(self):
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
      differences = invariance.largest_difference(
        self.listen(changed), self.listen(episode)
      )
      self.assertGreater(differences[name], 100 * _TOLERANCE)

  def test_what_is_said_is_not_even(self):
    said = self.listen(self.episode(0))
    for name, values in zip(invariance.Said._fields, said, strict=True):
      self.assertGreater(np.ptp(values), 0.1, name)


if __name__ == '__main__':
  absltest.main()
