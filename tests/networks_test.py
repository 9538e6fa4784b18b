"""Tests that the three evaluations are one function, and what it ignores.

Symmetries are tested in float64, where they hold to 1e-9: what is left is a
mistake and not rounding. The evaluations are compared in the float32 they
run in.
"""

import functools
from typing import NamedTuple

from absl.testing import absltest
from absl.testing import parameterized
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acme_cbo import networks
from acme_cbo import types
from acme_cbo.beliefs import belief as beliefs
from acme_cbo.evaluation import policies
from acme_cbo.scms import simulate
from tests import miniature

_NETWORK = miniature.network(num_blocks=2)


class _Episode(NamedTuple):
  problem: types.Problem
  observations: jax.Array
  rows: networks.Rows


def _episode(num_variables, num_observations, num_steps, seed=0):
  """Draws an episode on a problem that no SCM is behind."""
  rng = np.random.default_rng(seed)
  target = rng.integers(num_variables)
  is_target = np.arange(num_variables) == target
  settable = ~is_target & (rng.random(num_variables) < 0.7)
  settable[target - 1] = True
  centre = rng.normal(size=num_variables)
  width = rng.uniform(1, 3, num_variables)
  problem = types.Problem(
    exists=jnp.array(np.ones(num_variables, bool)),
    settable=jnp.array(settable),
    target=jnp.array(is_target),
    goal=jnp.array(1.0),
    low=jnp.array(centre - width),
    high=jnp.array(centre + width),
  )
  chosen = rng.choice(np.flatnonzero(settable), num_steps)
  rows = networks.episode_rows(
    jnp.array(chosen[:, None] == np.arange(num_variables)),
    jnp.array(rng.normal(size=(num_steps, num_variables))),
  )
  observations = rng.normal(size=(num_observations, num_variables))
  return _Episode(problem, jnp.array(observations), rows)


@functools.cache
def _params():
  # The same ones whichever test asks first.
  with jax.enable_x64(False):
    problem, observations, rows = _episode(4, 3, 1)
    init = jax.jit(_NETWORK.init)
    params = init(jax.random.key(1), problem, observations, rows)
    return miniature.loud(params, gain=1.5)


def _evaluate(params, episode):
  problem, observations, rows = episode
  prefix = _NETWORK.prefix(params, problem, observations)
  return _NETWORK.full(params, problem, prefix, rows)


_jit_evaluate = jax.jit(_evaluate)
_prefix = jax.jit(_NETWORK.prefix)
_append = jax.jit(_NETWORK.append)


def _heads(episode):
  """The heads after every row, in plain numpy."""
  return jax.tree.map(np.asarray, _jit_evaluate(_params(), episode))


def _exact_heads(episode):
  """The same in float64; `episode` was made under `jax.enable_x64`."""
  params = miniature.doubles(_params())
  return jax.tree.map(np.asarray, _jit_evaluate(params, episode))


def _assert_close(test, actual, expected, tolerance):
  for name, a, b in zip(expected._fields, actual, expected, strict=True):
    with test.subTest(name):
      np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def _columns(episode, columns):
  """The episode with its variables' columns taken in another order."""
  problem, observations, rows = episode
  return _Episode(
    jax.tree.map(lambda x: x[columns] if x.ndim else x, problem),
    observations[:, columns],
    rows._replace(
      values=rows.values[:, columns], intervened=rows.intervened[:, columns]
    ),
  )


def _turned(episode, sign):
  """The episode with its variables' values times `sign`, [D] of +-1."""
  problem, observations, rows = episode
  ends = sign * problem.low, sign * problem.high
  return _Episode(
    problem._replace(low=jnp.minimum(*ends), high=jnp.maximum(*ends)),
    sign * observations,
    rows._replace(values=sign * rows.values),
  )


def _turn_cells(heads, sign):
  """The heads with the cells of variables of a negative sign in reverse."""
  return jax.tree.map(
    lambda x: np.where(sign[:, None] < 0, x[..., ::-1], x) if x.ndim > 2 else x,
    heads,
  )


class EvaluationTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    # Float32 differs by the machine's order of sums.
    self.enterContext(jax.enable_x64(True))
    self.params = miniature.doubles(_params())
    # Three rollouts on one problem: the same observations, other rows.
    episodes = [_episode(4, 5, 4, seed) for seed in range(3)]
    rows = jax.tree.map(lambda *x: jnp.stack(x), *[e.rows for e in episodes])
    self.group = episodes[0]._replace(rows=rows)

  def _shared(self, params):
    problem, observations, rows = self.group
    prefix = _NETWORK.prefix(params, problem, observations)
    return jax.vmap(_NETWORK.full, (None, None, None, 0))(
      params, problem, prefix, rows
    )

  def _recomputed(self, params):
    problem, observations, rows = self.group
    return jax.vmap(lambda x, r: _evaluate(params, _Episode(problem, x, r)))(
      jnp.tile(observations, (3, 1, 1)), rows
    )

  def _with_gradient(self, evaluate):
    """The heads, and the gradient of a weighted sum of all of them."""

    def weigh(params):
      heads = evaluate(params)
      rng = np.random.default_rng(0)
      terms = [(rng.normal(size=x.shape) * x).sum() for x in heads]
      return sum(terms), heads

    gradient, heads = jax.jit(jax.grad(weigh, has_aux=True))(self.params)
    return heads, gradient

  def test_appended_shared_and_recomputed_agree(self):
    expected, expected_gradient = self._with_gradient(self._recomputed)
    shared, gradient = self._with_gradient(self._shared)
    _assert_close(self, shared, expected, 1e-9)
    for (path, a), b in zip(
      jax.tree.leaves_with_path(gradient),
      jax.tree.leaves(expected_gradient),
      strict=True,
    ):
      with self.subTest(jax.tree_util.keystr(path)):
        size = np.abs(b).max()
        self.assertGreater(size, 0)
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-9 * size)

    problem, observations, rows = self.group
    prefix = _prefix(self.params, problem, observations)
    cache = _NETWORK.empty_cache(5, 4)
    for i in range(5):
      row = jax.tree.map(lambda x, i=i: x[1, i : i + 1], rows)
      heads, cache = _append(self.params, problem, prefix, cache, i, row)
      here = jax.tree.map(lambda x, i=i: x[1, i], expected)
      _assert_close(self, heads, here, 1e-9)

  @pytest.mark.fault
  @parameterized.parameters(
    ('correction', np.nan), ('correction', -np.inf), ('parent', np.inf)
  )
  def test_one_logit_that_is_not_finite_is_not_overlooked(self, head, lost):
    problem, observations, rows = _episode(4, 5, 4)
    row = jax.tree.map(lambda leaf: leaf[:1], rows)
    params = jax.tree.map(jnp.array, self.params)
    bias = params[f'transformer/~/{head}']['b']
    params[f'transformer/~/{head}']['b'] = bias.at[-1].set(lost)
    prefix = _prefix(params, problem, observations)
    cache = _NETWORK.empty_cache(5, 4)
    heads, _ = _append(params, problem, prefix, cache, 0, row)
    for leaf in heads:
      self.assertTrue(np.isnan(leaf).all())

  def test_derivative_of_the_predictions_against_finite_differences(self):
    # Not that of the choice, which leaves what it begins from alone.
    rng = np.random.default_rng(0)
    episode = _episode(4, 5, 4)
    params = self.params
    direction = jax.tree.map(lambda x: rng.normal(size=x.shape), params)

    @jax.jit
    def along(step):
      moved = jax.tree.map(lambda x, d: x + step * d, params, direction)
      heads = _evaluate(moved, episode)
      return heads.parent_logits, heads.outcome_logits

    _, actual = jax.jvp(along, (0.0,), (1.0,))
    for a, right, left in zip(actual, along(1e-6), along(-1e-6), strict=True):
      np.testing.assert_allclose(a, (right - left) / 2e-6, 1e-5, 1e-5)


class CausalityTest(parameterized.TestCase):
  def test_a_row_changes_what_comes_after_it_alone(self):
    episode = _episode(4, 5, 4)
    before = _heads(episode)
    for changed in range(1, 5):
      other = episode.rows.values.at[changed].add(1.0)
      rows = episode.rows._replace(values=other)
      after = _heads(episode._replace(rows=rows))
      for name, a, b in zip(before._fields, after, before, strict=True):
        with self.subTest(f'{name}, row {changed}'):
          np.testing.assert_array_equal(a[:changed], b[:changed])
          moved = np.abs(a - b).reshape(5, -1).max(1)
          self.assertGreater(moved[changed:].min(), 1e-4)

  def test_an_observation_changes_every_row(self):
    episode = _episode(4, 5, 4)
    before = _heads(episode)
    observations = episode.observations.at[0, 0].add(1.0)
    after = _heads(episode._replace(observations=observations))
    for name, a, b in zip(before._fields, after, before, strict=True):
      with self.subTest(name):
        moved = np.abs(a - b).reshape(5, -1).max(1)
        self.assertGreater(moved.min(), 1e-4)

  def test_the_values_of_the_start_row_are_not_read(self):
    episode = _episode(4, 5, 4)
    values = episode.rows.values.at[0].set(7.0)
    other = episode._replace(rows=episode.rows._replace(values=values))
    _assert_close(self, _heads(other), _heads(episode), 0)


class SizeTest(parameterized.TestCase):
  @parameterized.parameters((3, 2, 1), (5, 20, 10), (12, 50, 30))
  def test_one_set_of_parameters_for_every_size(
    self, num_variables, num_observations, num_steps
  ):
    heads = _heads(_episode(num_variables, num_observations, num_steps))
    rows, cells = num_steps + 1, miniature.NUM_CELLS + 2
    self.assertEqual(heads.joint_logits.shape, (rows, num_variables, cells))
    self.assertEqual(heads.parent_logits.shape, (rows, num_variables))
    self.assertEqual(heads.outcome_logits.shape, (rows, num_variables, cells))
    for name, leaf in zip(heads._fields, heads, strict=True):
      with self.subTest(name):
        self.assertTrue(np.isfinite(leaf).all())
        self.assertGreater(leaf.std(), 0.1)

  def test_no_parameter_knows_the_number_of_variables(self):
    init = _NETWORK.init
    key = jax.random.key(0)
    few, many = (
      jax.eval_shape(init, key, *_episode(num_variables, 5, 2))
      for num_variables in (3, 12)
    )
    self.assertEqual(few, many)

  def test_one_observation_is_an_error(self):
    with self.assertRaisesRegex(ValueError, '1 observational row.*needs 2'):
      _heads(_episode(4, 1, 2))

  def test_a_variable_that_was_constant_stays_finite(self):
    episode = _episode(4, 5, 4)
    observations = episode.observations.at[:, 1].set(2.0)
    heads = _heads(episode._replace(observations=observations))
    for name, leaf in zip(heads._fields, heads, strict=True):
      with self.subTest(name):
        self.assertTrue(np.isfinite(leaf).all())


class SymmetryTest(parameterized.TestCase):
  """What may not change an answer; by the same network on both sides."""

  def setUp(self):
    super().setUp()
    self.enterContext(jax.enable_x64(True))
    self.episode = _episode(4, 5, 4)
    self.expected = _exact_heads(self.episode)

  def test_permuted_variables_permute_the_answers(self):
    for columns in ([1, 2, 3, 0], [3, 1, 0, 2]):
      columns = np.array(columns)
      expected = jax.tree.map(lambda x, c=columns: x[:, c], self.expected)
      actual = _exact_heads(_columns(self.episode, columns))
      _assert_close(self, actual, expected, 1e-9)

  def test_padding_changes_no_answer(self):
    problem, observations, rows = self.episode

    def pad(x):  # One column before the others and two after them.
      width = [(0, 0)] * (x.ndim - 1) + [(1, 2)]
      return jnp.pad(x, width) if x.ndim else x

    padded = _Episode(
      jax.tree.map(pad, problem),
      pad(observations),
      rows._replace(values=pad(rows.values), intervened=pad(rows.intervened)),
    )
    actual = jax.tree.map(lambda x: x[:, 1:5], _exact_heads(padded))
    _assert_close(self, actual, self.expected, 1e-9)

  def test_the_order_of_the_observations_does_not_matter(self):
    observations = self.episode.observations[np.array([3, 0, 4, 1, 2])]
    actual = _exact_heads(self.episode._replace(observations=observations))
    _assert_close(self, actual, self.expected, 1e-9)

  def test_units_do_not_matter(self):
    factor = jnp.array([0.3, 2.0, 70.0, 1e-3])
    shift = jnp.array([-8.0, 0.5, 1e3, -2e-2])
    problem, observations, rows = self.episode
    actual = _exact_heads(
      _Episode(
        problem._replace(
          low=shift + factor * problem.low, high=shift + factor * problem.high
        ),
        shift + factor * observations,
        rows._replace(values=shift + factor * rows.values),
      )
    )
    _assert_close(self, actual, self.expected, 1e-9)

  def test_to_minimise_is_to_maximise_the_negative(self):
    sign = jnp.where(self.episode.problem.target, -1.0, 1.0)
    problem, observations, rows = _turned(self.episode, sign)
    problem = problem._replace(goal=-problem.goal)
    actual = _exact_heads(_Episode(problem, observations, rows))
    _assert_close(self, _turn_cells(actual, sign), self.expected, 1e-9)

  def test_the_negative_of_a_variable_turns_its_cells_round(self):
    for column in np.flatnonzero(~self.episode.problem.target):
      sign = jnp.ones(4).at[column].set(-1.0)
      actual = _exact_heads(_turned(self.episode, sign))
      actual = _turn_cells(actual, sign)
      _assert_close(self, actual, self.expected, 1e-9)

  def test_a_target_that_never_moved_has_its_goal(self):
    # Nothing was seen to fall or to rise with it, but more is still better.
    observations = self.episode.observations
    still = jnp.where(self.episode.problem.target, 2.0, observations)
    episode = self.episode._replace(observations=still)
    other = episode.problem._replace(goal=-episode.problem.goal)
    up, down = (
      _exact_heads(e) for e in (episode, episode._replace(problem=other))
    )
    difference = np.abs(up.outcome_logits - down.outcome_logits)
    self.assertGreater(difference.max(), 1e-2)

  def test_the_goal_matters(self):
    problem = self.episode.problem
    other = problem._replace(goal=-problem.goal)
    actual = _exact_heads(self.episode._replace(problem=other))
    for name, a, b in zip(actual._fields, actual, self.expected, strict=True):
      with self.subTest(name):
        self.assertGreater(np.abs(a - b).max(), 1e-2)


_NUM_STEPS = 5


@jax.jit
@functools.partial(jax.vmap, in_axes=(None, 0, 0))
def _play(params, scm, noise):
  """A greedy episode on given noise of its 4 observations and its steps.

  Args:
    params: of the network.
    scm: one `SCM`.
    noise: [4 + T, D] scaled noise.

  Returns:
    [T] variables, and [T] fractions of their domains.
  """
  policy = policies.trained(_NETWORK, params, ())

  def watch(intervention, noise):
    u = simulate.propagate(scm, intervention, noise)
    values = scm.location + scm.scale * u
    values = jnp.where(intervention.mask, intervention.values, values)
    return jnp.where(scm.problem.exists, values, 0.0)

  def step(memory, inputs):
    index, noise = inputs
    intervention = policy.choose(jax.random.key(0), memory)
    outcome = watch(intervention, noise[None])[0]
    return policy.observe(memory, index, intervention, outcome), intervention

  nothing = simulate.no_intervention(noise.shape[-1])
  memory = policy.init(scm.problem, watch(nothing, noise[:4]), _NUM_STEPS)
  inputs = (jnp.arange(_NUM_STEPS), noise[4:])
  _, intervention = jax.lax.scan(step, memory, inputs)
  low, high = scm.problem.low, scm.problem.high
  variable = jnp.argmax(intervention.mask, -1)
  value = intervention.values.sum(-1)
  return variable, (value - low[variable]) / (high - low)[variable]


class BeliefInputTest(parameterized.TestCase):
  def test_is_what_the_exact_belief_says_after_each_row(self):
    self.enterContext(jax.enable_x64(True))
    problem, observations, rows = _episode(4, 5, 4)
    network = miniature.network(belief_input='exact')
    told = []

    def listen(next_method, args, kwargs, context):
      # While a module is made, it has no name yet.
      called = context.method_name == '__call__'
      if called and context.module.name == 'embedding':
        told.append(args[0][..., -1])
      return next_method(*args, **kwargs)

    @jax.jit
    def listened(params):
      told.clear()
      with hk.intercept_methods(listen):
        prefix = network.prefix(params, problem, observations)
        heads = network.full(params, problem, prefix, rows)
      return tuple(told), prefix, heads

    params = jax.jit(network.init)(
      jax.random.key(1), problem, observations, rows
    )
    params = miniature.doubles(miniature.loud(params, gain=1.5))
    (in_prefix, after), prefix, heads = listened(params)
    belief = beliefs.exact()

    @jax.jit
    def believed():
      states = beliefs.follow(
        belief, problem, observations, rows.intervened[1:], rows.values[1:]
      )
      return jax.vmap(belief.parents)(states)

    expected = np.asarray(believed())
    self.assertGreater(np.ptp(expected, 0).max(), 0.05)
    np.testing.assert_allclose(after, expected, atol=1e-9)
    before = np.broadcast_to(expected[0], in_prefix.shape)
    np.testing.assert_allclose(in_prefix, before, atol=1e-9)
    # Row by row, from what was known before it, it is the same.
    append = jax.jit(network.append)
    cache = network.empty_cache(5, 4)
    for i in range(5):
      row = jax.tree.map(lambda x, i=i: x[i : i + 1], rows)
      appended, cache = append(params, problem, prefix, cache, i, row)
      here = jax.tree.map(lambda x, i=i: x[i], heads)
      _assert_close(self, appended, here, 1e-9)


class RolloutTest(parameterized.TestCase):
  """The same symmetries of a whole episode: decide, watch, decide again."""

  def setUp(self):
    super().setUp()
    scms = miniature.tasks(16).scm
    self.enterContext(jax.enable_x64(True))
    self.scms = miniature.doubles(scms)
    scale = self.scms.mechanism.noise_scale  # [M, D]
    rng = np.random.default_rng(0)
    shape = (len(scale), 4 + _NUM_STEPS, scale.shape[1])
    self.noise = rng.normal(size=shape) * scale[:, None]
    self.params = miniature.doubles(_params())
    self.variables, self.fractions = self._play(self.scms, self.noise)

  def _play(self, scms, noise):
    return _play(self.params, scms, noise)

  def _assert_same(self, variables, fractions):
    np.testing.assert_array_equal(variables, self.variables)
    # A value is in float32 even here: one of 20 in a domain of width 0.06 tells
    # its fraction to 2e-5. Cells are 1 / 6 apart at least.
    np.testing.assert_allclose(fractions, self.fractions, rtol=0, atol=1e-4)

  def _in_units(self, factor, shift):
    """The same SCMs in other units, turned round where a factor is negative."""
    problem = self.scms.problem
    ends = jnp.stack([problem.low, problem.high])
    ends = jnp.where(problem.exists, shift + factor * ends, 0.0)
    return self.scms._replace(
      problem=problem._replace(low=ends.min(0), high=ends.max(0)),
      location=shift + factor * self.scms.location,
      scale=factor * self.scms.scale,
    )

  def test_the_decisions_are_worth_comparing(self):
    changes = (self.variables[:, 1:] != self.variables[:, :-1]).any(1)
    self.assertGreater(changes.mean(), 0.25)
    cells = np.unique(self.fractions.round(6))
    self.assertGreaterEqual(len(cells), 3)

  def test_relabelled(self):
    rng = np.random.default_rng(1)
    orders = np.stack([rng.permutation(5) for _ in self.noise])
    variables, fractions = self._play(
      jax.jit(jax.vmap(simulate.relabel))(self.scms, orders),
      np.take_along_axis(self.noise, orders[:, None], 2),
    )
    self._assert_same(np.take_along_axis(orders, variables, 1), fractions)

  def test_in_other_units(self):
    rng = np.random.default_rng(2)
    factor, shift = rng.normal(size=(2, *self.scms.location.shape))
    turned = rng.random(factor.shape) < 0.5
    # The goal is that of a target which is not turned.
    turned &= ~np.asarray(self.scms.problem.target)
    sign = np.where(turned, -1.0, 1.0)
    scms = self._in_units(sign * np.exp(2 * factor), 10 * shift)
    variables, fractions = self._play(scms, self.noise)
    where = np.take_along_axis(turned, np.asarray(variables), 1)
    self.assertGreater(where.mean(), 0.25)
    self._assert_same(variables, np.where(where, 1 - fractions, fractions))

  def test_target_and_goal_turned_round(self):
    problem = self.scms.problem
    scms = self._in_units(jnp.where(problem.target, -1.0, 1.0), 0.0)
    scms = scms._replace(problem=scms.problem._replace(goal=-scms.problem.goal))
    self._assert_same(*self._play(scms, self.noise))


if __name__ == '__main__':
  absltest.main()
