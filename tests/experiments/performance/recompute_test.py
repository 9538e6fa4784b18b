"""Tests that the baselines without cache and groups compute the same."""

import functools

from absl.testing import absltest
import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from acme_cbo.agents.grpo import acting
from acme_cbo.agents.grpo import agent
from acme_cbo.agents.grpo import total_loss
from acme_cbo.environments import config
from acme_cbo.experiments.performance import recompute
from tests.support import miniature

_NETWORK = miniature.network()
_SLOW = recompute.without_cache(_NETWORK)
_HORIZON = config.HorizonConfig(num_observations=3, num_interventions=2)


@functools.cache
def _params():
  parts = miniature.parts(network=_NETWORK)
  return agent.initial_state(0, parts).params


@functools.cache
def _act(network):
  return jax.jit(
    lambda params, tasks: acting.act(
      jax.random.split(jax.random.PRNGKey(0), 2),
      params,
      network,
      tasks,
      _HORIZON,
      3,
      miniature.REWARDS,
    )
  )(_params(), miniature.tasks(2))


def _gradient(network, *data):
  def loss(params, tasks, observations, trajectories):
    advantages = jnp.cumsum(jnp.ones(trajectories.log_prob_cell.shape), -1)
    return total_loss.loss(
      params,
      params,
      network,
      tasks,
      observations,
      trajectories,
      advantages,
      miniature.UPDATE,
    )[0]

  return jax.jit(jax.grad(loss))(_params(), *data)


@pytest.mark.oracle
class RecomputeTest(absltest.TestCase):
  def _assert_same_gradient(self, actual, expected):
    chex.assert_trees_all_equal_shapes(actual, expected)
    difference = jax.tree.map(lambda a, b: a - b, actual, expected)
    size = optax.tree.norm(expected)
    self.assertGreater(size, 1e-3)
    self.assertLess(optax.tree.norm(difference), 1e-4 * size)

  def test_episodes_are_the_same(self):
    _, cached = _act(_NETWORK)
    _, recomputed = _act(_SLOW)
    self.assertEqual(cached.outcomes.shape, (2, 3, 2, 5))
    np.testing.assert_allclose(
      recomputed.outcomes, cached.outcomes, rtol=1e-4, atol=1e-6
    )
    # All rollouts differ, so that confusing them would be detected.
    self.assertLen(np.unique(cached.outcomes.reshape(6, -1), axis=0), 6)

  @pytest.mark.slow
  def test_gradients_are_the_same(self):
    data = (miniature.tasks(2), *_act(_NETWORK))
    expected = _gradient(_NETWORK, *data)
    self._assert_same_gradient(_gradient(_SLOW, *data), expected)
    ungrouped = recompute.ungroup(*data)
    self.assertEqual(ungrouped[1].shape, (6, 3, 5))
    self._assert_same_gradient(_gradient(_NETWORK, *ungrouped), expected)


if __name__ == '__main__':
  absltest.main()
