"""Tests that a policy learns with our losses, and with no faulty learner.

The policy is a table of logits, so that a second trains one for 64 seeds: a
bar that one seed misses by bad luck would let the broken ones pass as well.
"""

from typing import NamedTuple

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from acme_cbo import types
from acme_cbo.agents.grpo import losses
from acme_cbo.agents.grpo import rewards
from acme_cbo.networks import action_distribution
from acme_cbo.scms import interventions
from acme_cbo.scms import objective as objective_lib
from acme_cbo.scms import simulate
from tests.support import hand_made_scms

_NUM_SEEDS = 64
_NUM_UPDATES = 60
_NUM_ITERATIONS = 2
_NUM_GENERATIONS = 16
_NUM_CELLS = 4
# Added to every reward: a baseline has to take it away again.
_SHIFT = 2.0


class _Learner(NamedTuple):
  """Faults of a learner; by default it has none.

  Attributes:
    learning_rate: of Adam.
    baseline: compare a rollout with its group.
    shuffled: give the advantages to other rollouts.
    sign: of the advantages.
    next_cell: by how many cells the record of what was done is off.
    next_variable: by how many variables it is.
    share_of_variable: weight of the variable in a decision's log probability.
  """

  learning_rate: float = 0.1
  baseline: bool = True
  shuffled: bool = False
  sign: float = 1.0
  next_cell: int = 0
  next_variable: int = 0
  share_of_variable: float = 1.0


_BROKEN = {
  'no_baseline': _Learner(baseline=False),
  'no_learning_rate': _Learner(learning_rate=0.0),
  'shuffled_advantages': _Learner(shuffled=True),
  'flipped_sign': _Learner(sign=-1.0),
  'cells_off_by_one': _Learner(next_cell=1),
  'variables_off_by_one': _Learner(next_variable=1),
  'wrong_log_probability': _Learner(share_of_variable=0.0),
}


def _problem():
  """Three causes of the target x3 = x0 - 0.6 x1 + 0.3 x2, all in [-1, 1]."""
  linear = np.zeros((4, 4))
  linear[3] = [1.0, -0.6, 0.3, 0.0]
  scm = hand_made_scms.scm(
    hand_made_scms.mechanism(4, linear=linear), hand_made_scms.problem(4, 3)
  )
  bank = simulate.noise_bank(jax.random.key(0), scm, 1)
  return scm, objective_lib.objective(scm, bank, _NUM_CELLS)


def _score(logits):
  """Expected rewards of policies [..., 4, C], worked out by hand.

  E[Y | do(x0 = x)] = x lies in [-1, 1] and no other cause reaches further: the
  reward is (E[Y | do] + 1) / 2. It is linear, so its mean over a cell is that
  at the cell's centre.
  """
  centres = (np.arange(_NUM_CELLS) + 0.5) / _NUM_CELLS
  x = 2 * np.concatenate([[0], centres, [1]]) - 1
  table = (np.array([[1.0], [-0.6], [0.3]]) * x + 1) / 2
  logits = np.asarray(logits, float)[..., :3, :]
  policy = np.exp(logits - logits.max((-1, -2), keepdims=True))
  return (policy * table).sum((-1, -2)) / policy.sum((-1, -2))


def _train(learner, key):
  """Trains one policy: its logits in the end."""
  scm, objective = _problem()
  optimizer = optax.adam(1.0)

  def choose(logits):
    nothing = action_distribution.empty_intervention(4)
    return action_distribution.step_distribution(
      logits, jnp.zeros(()), scm.problem.sets, nothing
    )

  def log_prob(logits, decision):
    variable, cell = action_distribution.log_prob(choose(logits), decision)
    return learner.share_of_variable * variable[None], cell[None]

  def act(key, logits):
    decision = types.Decision(*action_distribution.sample(key, choose(logits)))
    intervention = interventions.intervene_on(
      scm.problem, decision.variable, decision.fraction
    )
    outcome = simulate.expected_outcome(scm, objective.bank, intervention)
    recorded = decision._replace(
      variable=(decision.variable + learner.next_variable) % 3,
      cell=(decision.cell + learner.next_cell) % (_NUM_CELLS + 2),
    )
    return recorded, _SHIFT + rewards.optimization(outcome, objective)

  def advantages(key, earned):
    ours, _ = losses.group_advantages(earned[None, :, None], 'group')
    used = jnp.where(learner.baseline, ours[0, :, 0], earned)
    shuffled = jax.random.permutation(key, used)
    return learner.sign * jnp.where(learner.shuffled, shuffled, used)

  def update(carry, key):
    old_logits, opt_state = carry
    key_act, key_advantages = jax.random.split(key)
    keys = jax.random.split(key_act, _NUM_GENERATIONS)
    decisions, earned = jax.vmap(lambda k: act(k, old_logits))(keys)
    advantage = advantages(key_advantages, earned)

    def loss(logits):
      def rollout(decision, advantage):
        now, old = log_prob(logits, decision), log_prob(old_logits, decision)
        ratios = losses.log_ratios(*now, *old, level='decision')
        return losses.clipped_surrogate(ratios[0], advantage[None], 0.2, 0.2)

      return jax.vmap(rollout)(decisions, advantage).mean()

    logits = old_logits
    for _ in range(_NUM_ITERATIONS):
      steps, opt_state = optimizer.update(jax.grad(loss)(logits), opt_state)
      logits = logits + learner.learning_rate * steps
    return (logits, opt_state), None

  logits = jnp.zeros((4, _NUM_CELLS + 2))
  start = logits, optimizer.init(logits)
  (end, _), _ = jax.lax.scan(update, start, jax.random.split(key, _NUM_UPDATES))
  return end


_train_all = jax.jit(jax.vmap(_train, (None, 0)))


def _failures(learner):
  """Returns the bounds that a learner misses, and its score of each seed."""
  keys = jax.random.split(jax.random.key(0), _NUM_SEEDS)
  scores = _score(_train_all(jax.tree.map(jnp.array, learner), keys))
  gain = scores - 0.5  # What the uniform policy scores.
  bound = gain.mean() - 2.33 * gain.std(ddof=1) / np.sqrt(_NUM_SEEDS)
  reached = {
    'median': np.median(scores) >= 0.9,
    '85 % of the seeds': (scores >= 0.9).mean() >= 0.85,
    'gain': bound >= 0.15,
  }
  return [
    name for name, is_reached in reached.items() if not is_reached
  ], scores


@pytest.mark.stat
class LearningTest(parameterized.TestCase):
  def test_the_optimum_is_what_it_should_be(self):
    _, objective = jax.jit(_problem)()
    ends = (objective.worst, objective.best)
    np.testing.assert_allclose(ends, (-1, 1), atol=1e-6)
    np.testing.assert_array_equal(objective.choice.values, [1, 0, 0, 0])
    self.assertAlmostEqual(_score(np.zeros((4, _NUM_CELLS + 2))), 0.5)

  def test_ours_learns(self):
    failures, scores = _failures(_Learner())
    self.assertEmpty(failures, f'scores: {scores}')

  @parameterized.parameters(*_BROKEN)
  def test_broken_does_not(self, name):
    failures, scores = _failures(_BROKEN[name])
    self.assertNotEmpty(failures, f'scores: {scores}')


if __name__ == '__main__':
  absltest.main()
