"""A policy learns with our losses, and every broken learner is found out.

The policy is a table of logits, so that a second trains one for 64 seeds: a
bar that one seed misses by bad luck would let the broken ones pass as well.
"""

from collections.abc import Callable
import functools
from typing import NamedTuple

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from acme_cbo import distributions
from acme_cbo import losses
from acme_cbo import rewards
from acme_cbo import types
from acme_cbo.scms import simulate
from tests import hand_made_scms
from tests import miniature

_NUM_SEEDS = 64
_NUM_UPDATES = 60
_NUM_ITERATIONS = 2
_NUM_GENERATIONS = 16
_NUM_CELLS = 4
# Added to every reward: a baseline has to take it away again.
_SHIFT = 2.0


class _Learner(NamedTuple):
  """The parts that can be broken."""

  advantages: Callable[..., jax.Array]
  recorded: Callable[..., types.Decision] = lambda decision: decision
  log_prob: Callable[..., tuple] = distributions.log_prob
  learning_rate: float = 0.1


def _ours(key, rewards):
  """Group advantages of [G] rewards."""
  del key
  advantages, _ = losses.group_advantages(rewards[None, :, None], 'group')
  return advantages[0, :, 0]


def _shuffled(key, rewards):
  return jax.random.permutation(key, _ours(key, rewards))


def _next_cell(decision):
  return decision._replace(cell=(decision.cell + 1) % (_NUM_CELLS + 2))


def _next_variable(decision):
  return decision._replace(variable=(decision.variable + 1) % 3)


def _cell_alone(log_probs, decision):
  _, cell = distributions.log_prob(log_probs, decision)
  return jnp.zeros(()), cell


_OURS = _Learner(_ours)
_BROKEN = {
  'no_baseline': _Learner(lambda key, rewards: rewards),
  'no_learning_rate': _Learner(_ours, learning_rate=0.0),
  'shuffled_advantages': _Learner(_shuffled),
  'flipped_sign': _Learner(lambda key, rewards: -_ours(key, rewards)),
  'cells_off_by_one': _Learner(_ours, recorded=_next_cell),
  'variables_off_by_one': _Learner(_ours, recorded=_next_variable),
  'wrong_log_probability': _Learner(_ours, log_prob=_cell_alone),
}


@functools.cache
def _problem():
  """Three causes of the target x3 = x0 - 0.6 x1 + 0.3 x2, all in [-1, 1]."""
  linear = np.zeros((4, 4))
  linear[3] = [1.0, -0.6, 0.3, 0.0]
  scm = hand_made_scms.scm(
    hand_made_scms.mechanism(4, linear=linear), hand_made_scms.problem(4, 3)
  )
  bank = simulate.noise_bank(jax.random.key(0), scm, 1)
  return scm, simulate.objective(scm, bank, _NUM_CELLS)


def _score(logits):
  """Expected reward of the policy, worked out by hand.

  E[Y | do(x0 = x)] = x lies in [-1, 1] and no other cause reaches further: the
  reward is (E[Y | do] + 1) / 2. It is linear, so its mean over a cell is that
  at the cell's centre.
  """
  centres = (np.arange(_NUM_CELLS) + 0.5) / _NUM_CELLS
  x = 2 * np.concatenate([[0], centres, [1]]) - 1
  table = (np.array([[1.0], [-0.6], [0.3]]) * x + 1) / 2
  logits = np.asarray(logits, float)[:, :3]
  policy = np.exp(logits - logits.max((1, 2), keepdims=True))
  policy /= policy.sum((1, 2), keepdims=True)
  return (policy * table).sum((1, 2))


@functools.cache
def _train(learner: _Learner) -> tuple[np.ndarray, np.ndarray]:
  """Trains `_NUM_SEEDS` policies: their scores before and after."""
  scm, objective = _problem()
  optimizer = optax.adam(learner.learning_rate)

  def choose(logits):
    return distributions.choice(logits, scm.problem.settable)

  def act(key, logits):
    decision = distributions.sample(key, choose(logits))
    intervention = simulate.intervene_on(
      scm.problem, decision.variable, decision.fraction
    )
    outcome = simulate.expected_outcome(scm, objective.bank, intervention)
    return decision, _SHIFT + rewards.optimization(outcome, objective)

  def update(carry, key):
    logits, opt_state = carry
    key_act, key_advantages = jax.random.split(key)
    keys = jax.random.split(key_act, _NUM_GENERATIONS)
    decisions, earned = jax.vmap(lambda k: act(k, logits))(keys)
    decisions = jax.vmap(learner.recorded)(decisions)
    advantages = learner.advantages(key_advantages, earned)
    old_logits = logits

    def loss(logits):
      def rollout(decision, advantage):
        now = learner.log_prob(choose(logits), decision)
        old = learner.log_prob(choose(old_logits), decision)
        ratios = losses.log_ratios(
          *(x[None] for x in (*now, *old)), level='decision'
        )
        return losses.clipped_surrogate(ratios[0], advantage[None], 0.2, 0.2)

      return jax.vmap(rollout)(decisions, advantages).mean()

    for _ in range(_NUM_ITERATIONS):
      gradient = jax.grad(loss)(logits)
      steps, opt_state = optimizer.update(gradient, opt_state)
      logits = optax.apply_updates(logits, steps)
    return (logits, opt_state), None

  def train(key):
    logits = jnp.zeros((4, _NUM_CELLS + 2))
    keys = jax.random.split(key, _NUM_UPDATES)
    (end, _), _ = jax.lax.scan(update, (logits, optimizer.init(logits)), keys)
    return logits, end

  keys = jax.random.split(jax.random.key(0), _NUM_SEEDS)
  return tuple(_score(logits) for logits in jax.jit(jax.vmap(train))(keys))


def _failures(before, after):
  """Which parts of the bar a learner misses."""
  gain = after - before
  bound = gain.mean() - 2.33 * gain.std(ddof=1) / np.sqrt(gain.size)
  reached = {
    'median': np.median(after) >= 0.9,
    '85 % of the seeds': (after >= 0.9).mean() >= 0.85,
    'gain': bound >= 0.15,
  }
  return [name for name, is_reached in reached.items() if not is_reached]


@pytest.mark.stat
class LearningTest(miniature.TestCase):
  def test_the_optimum_is_what_it_should_be(self):
    _, objective = _problem()
    ends = (objective.worst, objective.best, objective.best_value)
    np.testing.assert_allclose(ends, (-1, 1, 1), atol=1e-6)
    self.assertEqual(objective.best_variable, 0)

  def test_ours_learns(self):
    before, after = _train(_OURS)
    np.testing.assert_allclose(before, 0.5)
    self.assertEqual(_failures(before, after), [], f'scores: {after}')

  @parameterized.parameters(*_BROKEN)
  def test_broken_does_not(self, name):
    self.assertNotEmpty(_failures(*_train(_BROKEN[name])))


if __name__ == '__main__':
  absltest.main()
