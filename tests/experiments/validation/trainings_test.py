"""Tests that vectorized training runs equal those of the runtime."""

import dataclasses

from absl.testing import absltest
from absl.testing import parameterized
import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from acme_cbo.agents.grpo import agent
from acme_cbo.agents.grpo import config
from acme_cbo.experiments.validation import trainings
from acme_cbo.experiments.validation import validate
from tests.support import miniature

_BALANCES = [(1.0, 0.5, 0.3, 0.1), (0.0, 0.0, 0.0, 1.0)]
_SEEDS = [3, 5]
_NUM_UPDATES = 2


@pytest.mark.slow
@pytest.mark.timeout(600)  # Compiles a whole training run.
class TrainingsTest(parameterized.TestCase):
  def test_each_equals_the_run_of_its_seed_and_weights(self):
    before, after = trainings.train(
      miniature.parts(), _BALANCES, _SEEDS, _NUM_UPDATES
    )
    steps = [
      agent.make_step(
        agent.programs(miniature.parts(rewards=config.RewardConfig(*weights)))
      )
      for weights in _BALANCES
    ]
    for s, seed in enumerate(_SEEDS):
      for w, step in enumerate(steps):
        state = agent.init(jax.random.PRNGKey(seed), miniature.parts())
        params = jax.tree.map(lambda leaf, s=s: leaf[s], before)
        chex.assert_trees_all_close(params, state.params, atol=1e-6)
        for _ in range(_NUM_UPDATES):
          state, _ = step(state)
        params = jax.tree.map(lambda leaf, w=w, s=s: leaf[w, s], after)
        chex.assert_trees_all_close(params, state.params, atol=1e-4)
    # All seeds and weights give different policies.
    leaves = np.concatenate(
      [np.reshape(leaf, (4, -1)) for leaf in jax.tree.leaves(after)], 1
    )
    self.assertLen(np.unique(leaves.round(3), axis=0), 4)

  @pytest.mark.fault
  def test_a_failure_reports_update_and_seed(self):
    # The second gradient step is not finite.
    broken = optax.scale_by_schedule(
      lambda count: jnp.where(count == 1, jnp.nan, 1.0)
    )
    prior = dataclasses.replace(miniature.PRIOR, min_gain=1e6)
    for parts, sentence in (
      (miniature.parts(optimizer=broken), 'update 2 .* a value is not finite'),
      (miniature.parts(prior=prior), 'update 1 .* the prior rejects'),
    ):
      with self.assertRaisesRegex(FloatingPointError, sentence):
        trainings.train(parts, _BALANCES, _SEEDS, _NUM_UPDATES)

  def test_measures_are_means_of_the_rewards(self):
    parts = miniature.parts()
    keys = jax.random.split(jax.random.key(0), 2)
    params = jax.vmap(lambda key: agent.init(key, parts).params)(keys)
    key, tasks = jax.random.key(1), miniature.tasks(4)
    stacked = jax.tree.map(lambda leaf: leaf[None], params)
    measured = trainings.measure(parts, stacked, key, tasks)
    self.assertEqual(measured.shape, (1, 2, 4))
    for i in range(2):
      own = jax.tree.map(lambda leaf, i=i: leaf[i], params)
      (_, trajectories), _ = agent.act(own, key, tasks, parts)
      components = np.asarray(trajectories.components)  # [B, G, T, 4]
      expected = components.mean((0, 1, 2))
      expected[1] = components[..., 1].sum(2).mean()
      np.testing.assert_allclose(measured[0, i], expected, atol=1e-5)


class ValidateTest(absltest.TestCase):
  def test_more_variables_than_the_exact_belief_takes(self):
    wide = dataclasses.replace(miniature.PRIOR, max_variables=9)
    checks = validate.validate(miniature.parts(prior=wide), range(8))
    with self.assertRaisesRegex(ValueError, 'max_variables is 9; .*at most 8'):
      next(checks)


if __name__ == '__main__':
  absltest.main()
