"""Tests of a whole update, its errors, and its compiled program."""

import contextlib
import dataclasses
import functools
from unittest import mock

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
from acme_cbo.agents.grpo import losses
from acme_cbo.agents.grpo import rewards
from acme_cbo.environments import environment
from acme_cbo.infra import errors
from acme_cbo.scms import priors
from tests.support import miniature


@functools.cache
def _first_state(parts):
  return jax.device_get(
    jax.jit(lambda: agent.init(jax.random.PRNGKey(0), parts))()
  )


def _init(parts):
  """Returns the initial state in buffers that may be donated."""
  return jax.tree.map(jnp.asarray, _first_state(parts))


@contextlib.contextmanager
def _fixed_tasks():
  """Makes the prior return fixed tasks, so that it need not be compiled."""
  filled = miniature.tasks(4), True
  with mock.patch.object(priors, 'fill', lambda *_: filled):
    yield


@functools.cache
def _act(parts):
  """Returns the compiled actor."""
  state = jax.eval_shape(lambda: _init(parts))
  act = jax.jit(lambda params, key, tasks: agent.act(params, key, tasks, parts))
  return act.lower(state.params, state.key, miniature.tasks(4)).compile()


_MARKED = 2


def _is_marked(problem):
  """Returns whether a problem is that of the third of `miniature.tasks`."""
  low = miniature.tasks(4).scm.problem.low[_MARKED]
  return (problem.low == low).all()


def _spoil(module, name, problem_of=None, value=jnp.nan):
  """Makes a function return NaN, for the third task if given `problem_of`."""
  function = getattr(module, name)

  def patched(*arguments):
    is_faulty = (
      True if problem_of is None else _is_marked(problem_of(arguments))
    )
    return jax.tree.map(
      lambda leaf: jnp.where(is_faulty, value, leaf), function(*arguments)
    )

  return mock.patch.object(module, name, patched)


@contextlib.contextmanager
def _fixed_experience(parts):
  """Makes prior and actor return fixed data, so that they are not compiled."""
  state = _init(parts)
  collected = _act(miniature.parts())(
    state.params, state.key, miniature.tasks(4)
  )
  with _fixed_tasks(), mock.patch.object(agent, 'act', lambda *_: collected):
    yield


class StepTest(parameterized.TestCase):
  def test_is_the_actor_and_then_the_learner(self):
    parts = miniature.parts()
    learn = jax.jit(functools.partial(agent.learn, parts=parts))
    step = agent.make_step(agent.programs(parts))
    state, expected = _init(parts), _init(parts)
    observations = []
    for i in range(2):
      before = state
      key, _, key_act = jax.random.split(expected.key, 3)
      tasks = miniature.tasks(4)
      data, _ = _act(parts)(expected.params, key_act, tasks)
      expected, metrics = learn(expected._replace(key=key), tasks, *data)
      with _fixed_tasks():
        state, actual = step(state)
      self.assertEqual(state.step, i + 1)
      chex.assert_trees_all_close(actual, metrics, atol=1e-5)
      chex.assert_trees_all_close(state.params, expected.params, atol=1e-5)
      observations.append(data[0])
      # The state was donated.
      for leaf in jax.tree.leaves(before.params):
        self.assertTrue(leaf.is_deleted())
    # Every update has its own observations.
    self.assertFalse((observations[0] == observations[1]).all())

  def test_each_update_has_one_of_the_sizes(self):
    other = miniature.parts(
      horizon=dataclasses.replace(miniature.HORIZON, num_interventions=2),
      prior=dataclasses.replace(miniature.PRIOR, num_interventions=2),
    )
    programs = agent.programs(miniature.parts(other_sizes=(other,)))
    seen = []

    def noting(name, program):
      def run(*arguments):
        seen.append(name)
        return program(*arguments)

      return run

    step = agent.make_step(
      {name: noting(name, program) for name, program in programs.items()}
    )
    state = _init(miniature.parts())
    for _ in range(6):
      state, _ = step(state)
    # The size follows from the number of the update, in acting and learning.
    updates = np.reshape(seen, (6, 3)).tolist()
    sizes = [['fill', 'act', 'learn'], ['fill@1', 'act@1', 'learn@1']]
    numbers = [sizes.index(names) for names in updates]
    self.assertEqual(
      numbers, [np.random.default_rng(i).integers(2) for i in range(1, 7)]
    )
    self.assertLen({*numbers}, 2)


@pytest.mark.fault
class RefusalTest(parameterized.TestCase):
  def test_a_prior_that_cannot_fill_a_batch(self):
    prior = dataclasses.replace(miniature.PRIOR, min_gain=1e6)
    parts = miniature.parts(prior=prior)
    state = _init(parts)
    with self.assertRaisesRegex(ValueError, 'lower scms.min_gain'):
      agent.make_step(agent.programs(parts))(state)
    # The state was not donated yet.
    self.assertEqual(state.step, 0)

  def test_a_policy_that_leaves_its_data_behind(self):
    update = dataclasses.replace(miniature.UPDATE, num_iterations=5)
    parts = miniature.parts(optimizer=optax.sgd(1e4), update=update)
    message = r'update 1: .*ratio of \d+\.\d is beyond.*learning_rate'
    with (
      _fixed_experience(parts),
      self.assertRaisesRegex(FloatingPointError, message),
    ):
      agent.make_step(agent.programs(parts))(_init(parts))

  def test_groups_without_advantages(self):
    parts = miniature.parts(rewards=config.RewardConfig(0.0, 0.0, 0.0, 0.0))
    step, state = agent.make_step(agent.programs(parts)), _init(parts)
    with _fixed_experience(parts):
      for _ in range(19):
        state, metrics = step(state)
        self.assertEqual(metrics['train/dead_groups'], 1)
      message = 'update 20: zero advantage: .* 20 updates.*reward weights'
      with self.assertRaisesRegex(FloatingPointError, message):
        step(state)


@pytest.mark.fault
class NonFiniteTest(parameterized.TestCase):
  def _message(self, parts=None):
    parts = parts or miniature.parts()
    state = _init(parts)
    _, key_tasks, _ = jax.random.split(state.key, 3)
    with _fixed_tasks(), self.assertRaises(errors.NonFiniteError) as caught:
      agent.make_step(agent.programs(parts))(state)
    message = str(caught.exception)
    self.assertEndsWith(
      message, f'drawn from the seed {jax.random.key_data(key_tasks).tolist()}'
    )
    return message

  def test_names_update_component_and_scm(self):
    # Values computed from the outcome are not finite either: the cause comes
    # first.
    with _spoil(environment, 'step', lambda given: given[1].problem):
      self.assertStartsWith(
        self._message(),
        f'update 1: outcome is not finite on SCM {_MARKED} of 4 (on 1 in',
      )

  def test_gradient_of_a_loss_that_is_finite(self):
    outcome_loss = losses.outcome_loss
    table = rewards.optimization(
      miniature.tasks(4).objective.curves[_MARKED],
      jax.tree.map(lambda leaf: leaf[_MARKED], miniature.tasks(4).objective),
    )

    def patched(logits, nones, rewarded, *others):
      value = outcome_loss(logits, nones, rewarded, *others)
      marked = (jnp.abs(rewarded - table) < 1e-4).all()
      # The derivative of the root is infinite at 0, where its value is 0.
      return value + jnp.sqrt(jnp.where(marked, 0 * value, 1.0))

    with mock.patch.object(losses, 'outcome_loss', patched):
      self.assertStartsWith(
        self._message(), f'update 1: gradient is not finite on SCM {_MARKED}'
      )

  @parameterized.parameters(np.nan, np.inf)
  def test_optimizer_of_finite_gradients(self, value):
    lost = optax.GradientTransformation(
      optax.identity().init,
      lambda updates, state, params=None: (
        jax.tree.map(lambda leaf: jnp.full_like(leaf, value), updates),
        state,
      ),
    )
    parts = miniature.parts(optimizer=lost)
    with (
      _fixed_experience(parts),
      self.assertRaisesRegex(FloatingPointError, 'train/update_norm, though'),
    ):
      agent.make_step(agent.programs(parts))(_init(parts))

  @parameterized.parameters(np.nan, np.inf)
  def test_parameters_stay_where_it_happened(self, value):
    parts = miniature.parts()
    state = _init(parts)
    before = jax.tree.map(np.array, state.params)
    collected, _ = _act(parts)(state.params, state.key, miniature.tasks(4))
    with _spoil(losses, 'outcome_loss', value=value):
      after, metrics = jax.jit(functools.partial(agent.learn, parts=parts))(
        state, miniature.tasks(4), *collected
      )
    jax.tree.map(np.testing.assert_array_equal, after.params, before)
    self.assertFalse(np.isfinite(metrics['loss/outcome']))


class LapackTest(parameterized.TestCase):
  """Several LAPACK calls in one program can hang jax 0.10 on a small CPU."""

  def test_actor_and_learner_call_no_lapack(self):
    parts = miniature.parts(network=miniature.network())
    state = jax.eval_shape(lambda: _init(parts))
    tasks = miniature.tasks(4)
    act = jax.jit(functools.partial(agent.act, parts=parts))
    act = act.lower(state.params, state.key, tasks)
    learn = jax.jit(functools.partial(agent.learn, parts=parts))
    learn = learn.lower(state, tasks, *act.out_info[0])
    self.assertEmpty(miniature.lapack_calls(act))
    self.assertEmpty(miniature.lapack_calls(learn))

  def test_lapack_calls_are_detected(self):
    inverse = jax.jit(jnp.linalg.inv).lower(jnp.eye(3))
    self.assertNotEmpty(miniature.lapack_calls(inverse))


if __name__ == '__main__':
  absltest.main()
