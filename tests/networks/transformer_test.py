"""Tests that all forms of evaluation agree, and tests of symmetries.

They run in float64, where they hold to 1e-9, so that any larger difference is a
mistake and not rounding.
"""

import functools
from typing import Any, NamedTuple

from absl.testing import absltest
from absl.testing import parameterized
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acme_cbo import types
from acme_cbo.beliefs import belief as beliefs
from acme_cbo.networks import action_distribution
from acme_cbo.networks import base
from acme_cbo.networks import tokens as tokens_lib
from acme_cbo.policies import trained
from acme_cbo.scms import intervention_sets
from acme_cbo.scms import interventions
from acme_cbo.scms import simulate
from tests.support import chance
from tests.support import miniature

_NETWORK = miniature.network(num_blocks=2)


class _Episode(NamedTuple):
  """A problem, its data, and P partial interventions."""

  problem: types.Problem
  observations: jax.Array
  rows: base.Rows
  partials: action_distribution.PartialIntervention


class _Outputs(NamedTuple):
  """All outputs after each of R rows, for each of P partial interventions."""

  tokens: Any  # [R, D, W]
  parent_logits: Any  # [R, D]
  joint_logits: Any  # [R, P, D, C]
  none_logit: Any  # [R, P]
  outcome_logits: Any  # [R, P, D, C]
  none_outcome: Any  # [R, P]
  predicted: Any  # [R, P, 4 K], parameters of the predicted mixtures


def _episode(num_variables, num_observations, num_steps, seed=0):
  """Draws an episode on a problem without an SCM."""
  rng = np.random.default_rng(seed)
  # All seeds share one problem, in which at least two variables are settable.
  problem_rng = np.random.default_rng(1)
  target = problem_rng.integers(num_variables)
  is_target = np.arange(num_variables) == target
  settable = ~is_target & (problem_rng.random(num_variables) < 0.7)
  settable[[target - 1, target - 2]] = True
  centre = problem_rng.normal(size=num_variables)
  width = problem_rng.uniform(1, 3, num_variables)
  sets = intervention_sets.subsets(settable, 2)
  kept = problem_rng.random(len(sets)) < 0.8
  kept[:2] = kept[-1] = True
  problem = types.Problem(
    exists=jnp.array(np.ones(num_variables, bool)),
    sets=jnp.array(sets & kept[:, None]),
    target=jnp.array(is_target),
    goal=jnp.array(1.0),
    low=jnp.array(centre - width),
    high=jnp.array(centre + width),
    cost=jnp.array(problem_rng.uniform(1, 20, num_variables)),
    budget=jnp.array(15.0 * num_steps),
    samples=jnp.array(1000.0),
    edges=jnp.array(_known_edges(num_variables, target, problem_rng)),
  )
  # The second and the last step set the same variables, so that the
  # Gaussian processes have related rows.
  index = rng.choice(np.flatnonzero(kept), num_steps)
  index[-1] = index[min(1, num_steps - 1)]
  intervened = sets[index]
  values = rng.normal(size=(num_steps, num_variables))
  inside = centre + width * rng.uniform(-1, 1, values.shape)
  rows = tokens_lib.episode_rows(
    problem,
    jnp.array(intervened),
    jnp.array(np.where(intervened, inside, values)),
  )
  observations = rng.normal(size=(num_observations, num_variables))
  # No variable, the first of the last pair, and the whole pair.
  pair = np.flatnonzero(sets[-1])
  mask = np.zeros((3, num_variables), bool)
  mask[1, pair[0]] = mask[2, pair] = True
  partials = action_distribution.PartialIntervention(
    jnp.array(mask),
    jnp.array(np.where(mask, problem_rng.random(mask.shape), 0.0)),
    jnp.zeros(3, bool),
  )
  return _Episode(problem, jnp.array(observations), rows, partials)


def _known_edges(num_variables, target, rng):
  """Draws what is known of each ordered pair; the target has a known cause."""
  edges = rng.choice([-1.0, 0.0, 1.0], (num_variables, num_variables))
  edges[target, target - 1] = 1.0
  return np.where(np.eye(num_variables), 0.0, edges)


@functools.cache
def _params():
  # In float32 whatever the precision of the test that runs first.
  with jax.enable_x64(False):
    problem, observations, rows, _ = _episode(4, 3, 1)
    init = jax.jit(_NETWORK.init)
    params = init(jax.random.key(1), problem, observations, rows)
    return miniature.loud(params, gain=1.5)


def _action_heads(network, params, problem, prefix, encoding, partials):
  """Evaluates the action head for P partial interventions after one row."""
  return jax.vmap(
    lambda partial: network.action_head(
      params, problem, prefix, encoding, partial
    )
  )(partials)


def _predictions(network, params, problem, prefix, encoding, partials):
  """Predicts the outcomes of P interventions after one row: [P, 4 K]."""

  def parameters(partial):
    expected, outcome, *_ = network.predict(
      params, problem, prefix, encoding, partial
    )
    return jnp.concatenate([*expected, outcome.deviations])

  return jax.vmap(parameters)(partials)


def _evaluate_rows(network, params, prefix, episode):
  problem, _, rows, partials = episode
  encodings = network.full(params, problem, prefix, rows)
  heads, predicted = (
    jax.vmap(
      lambda encoding, function=function: function(
        network, params, problem, prefix, encoding, partials
      ),
      (base.ENCODING_IN_AXES,),
    )(encodings)
    for function in (_action_heads, _predictions)
  )
  return _Outputs._make(
    (encodings.tokens, encodings.parent_logits, *heads, predicted)
  )


def _evaluate(params, episode):
  problem, observations, _, _ = episode
  prefix = _NETWORK.prefix(params, problem, observations)
  return _evaluate_rows(_NETWORK, params, prefix, episode)


_jit_evaluate = jax.jit(_evaluate)
_prefix = jax.jit(_NETWORK.prefix)
_append = jax.jit(_NETWORK.append)
_jit_action_heads = jax.jit(functools.partial(_action_heads, _NETWORK))
_jit_predictions = jax.jit(functools.partial(_predictions, _NETWORK))


def _outputs(episode):
  """Returns the outputs as numpy arrays."""
  return jax.tree.map(np.asarray, _jit_evaluate(_params(), episode))


def _outputs_in_float64(episode):
  """Likewise in float64; `episode` was made under `jax.enable_x64`."""
  params = miniature.doubles(_params())
  return jax.tree.map(np.asarray, _jit_evaluate(params, episode))


def _assert_close(test, actual, expected, tolerance):
  for name, a, b in zip(expected._fields, actual, expected, strict=True):
    with test.subTest(name):
      np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def _reorder(episode, columns):
  """Returns the episode with its columns in another order."""
  problem, observations, rows, partials = episode
  return _Episode(
    _reorder_problem(problem, columns),
    observations[:, columns],
    rows._replace(
      values=rows.values[:, columns], intervened=rows.intervened[:, columns]
    ),
    partials._replace(
      mask=partials.mask[:, columns], fractions=partials.fractions[:, columns]
    ),
  )


def _reorder_problem(problem, columns):
  """Returns the problem with its variables in another order."""
  reordered = jax.tree.map(lambda x: x[..., columns] if x.ndim else x, problem)
  return reordered._replace(edges=reordered.edges[columns])


def _take(outputs, columns):
  """Returns the outputs of some columns."""
  return outputs._replace(
    tokens=outputs.tokens[:, columns],
    parent_logits=outputs.parent_logits[:, columns],
    joint_logits=outputs.joint_logits[:, :, columns],
    outcome_logits=outputs.outcome_logits[:, :, columns],
  )


def _flip(episode, sign):
  """Multiplies the values of the variables by `sign`, [D] of +-1."""
  problem, observations, rows, partials = episode
  ends = sign * problem.low, sign * problem.high
  fractions = partials.fractions
  fractions = jnp.where(partials.mask & (sign < 0), 1 - fractions, fractions)
  return _Episode(
    problem._replace(low=jnp.minimum(*ends), high=jnp.maximum(*ends)),
    sign * observations,
    rows._replace(values=sign * rows.values),
    partials._replace(fractions=fractions),
  )


def _flip_cells(outputs, sign):
  """Reverses the cells of variables of a negative sign."""

  def flip(x):
    return np.where(sign[:, None] < 0, x[..., ::-1], x)

  return outputs._replace(
    joint_logits=flip(outputs.joint_logits),
    outcome_logits=flip(outputs.outcome_logits),
  )


class EvaluationTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    # In float32 the order of sums, which depends on the machine, matters.
    self.enterContext(jax.enable_x64(True))
    self.params = miniature.doubles(_params())
    # Three rollouts on one problem: the same observations, different rows.
    episodes = [_episode(4, 5, 4, seed) for seed in range(3)]
    rows = jax.tree.map(lambda *x: jnp.stack(x), *[e.rows for e in episodes])
    self.group = episodes[0]._replace(rows=rows)

  def _shared(self, params):
    problem, observations, rows, partials = self.group
    prefix = _NETWORK.prefix(params, problem, observations)

    def evaluate(rows):
      episode = _Episode(problem, observations, rows, partials)
      return _evaluate_rows(_NETWORK, params, prefix, episode)

    return jax.vmap(evaluate)(rows)

  def _recomputed(self, params):
    problem, observations, rows, partials = self.group
    return jax.vmap(
      lambda x, r: _evaluate(params, _Episode(problem, x, r, partials))
    )(jnp.tile(observations, (3, 1, 1)), rows)

  def _with_gradient(self, evaluate):
    """Returns the outputs, and the gradient of a weighted sum of them."""

    def weighted_sum(params):
      outputs = evaluate(params)
      rng = np.random.default_rng(0)
      terms = [(rng.normal(size=x.shape) * x).sum() for x in outputs]
      return sum(terms), outputs

    gradient, outputs = jax.jit(jax.grad(weighted_sum, has_aux=True))(
      self.params
    )
    return outputs, gradient

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

    problem, observations, rows, partials = self.group
    prefix = _prefix(self.params, problem, observations)
    cache = _NETWORK.empty_cache(5, 4)
    one = jax.tree.map(lambda x: x[1], rows)
    full = jax.jit(_NETWORK.full)(self.params, problem, prefix, one)
    for i in range(5):
      row = jax.tree.map(lambda x, i=i: x[i : i + 1], one)
      encoding, cache = _append(self.params, problem, prefix, cache, i, row)
      heads = _jit_action_heads(
        self.params, problem, prefix, encoding, partials
      )
      predicted = _jit_predictions(
        self.params, problem, prefix, encoding, partials
      )
      outputs = _Outputs._make(
        (encoding.tokens, encoding.parent_logits, *heads, predicted)
      )
      here = jax.tree.map(lambda x, i=i: x[1, i], expected)
      _assert_close(self, outputs, here, 1e-9)
      row_mask = base.select_rows(full, i).row_mask
      np.testing.assert_array_equal(encoding.row_mask, row_mask)
      np.testing.assert_array_equal(
        row_mask, (np.arange(5) > 0) & (np.arange(5) <= i)
      )

  @pytest.mark.fault
  @parameterized.parameters(
    ('correction', np.nan),
    ('correction', -np.inf),
    ('none_correction', np.nan),
    ('candidate_outcome', np.inf),
    ('parent', np.inf),
  )
  def test_one_logit_that_is_not_finite_is_not_overlooked(self, head, value):
    problem, observations, rows, partials = _episode(4, 5, 4)
    row = jax.tree.map(lambda leaf: leaf[:1], rows)
    params = jax.tree.map(jnp.array, self.params)
    bias = params[f'transformer/~/{head}']['b']
    params[f'transformer/~/{head}']['b'] = bias.at[-1].set(value)
    prefix = _prefix(params, problem, observations)
    cache = _NETWORK.empty_cache(5, 4)
    encoding, _ = _append(params, problem, prefix, cache, 0, row)
    heads = _jit_action_heads(params, problem, prefix, encoding, partials)
    for leaf in heads:
      self.assertTrue(np.isnan(leaf).all())
    predicted = _jit_predictions(params, problem, prefix, encoding, partials)
    # Predictions read the tokens of the variables that are set.
    predicted = predicted[np.asarray(partials.mask).any(-1)]
    self.assertEqual(np.isnan(predicted).all(), head == 'parent')
    of_encoding = head == 'parent'
    for leaf in (encoding.tokens, encoding.parent_logits):
      self.assertEqual(np.isnan(leaf).all(), of_encoding)

  @pytest.mark.fault
  def test_one_prediction_that_is_not_finite_is_not_overlooked(self):
    problem, observations, rows, partials = _episode(4, 5, 4)
    params = jax.tree.map(jnp.array, self.params)
    bias = params['transformer/~/prediction_output']['b']
    # Of the noise of a single component.
    params['transformer/~/prediction_output']['b'] = bias.at[-1].set(np.nan)
    prefix = _prefix(params, problem, observations)
    encoding, _ = _append(
      params,
      problem,
      prefix,
      _NETWORK.empty_cache(5, 4),
      0,
      jax.tree.map(lambda leaf: leaf[:1], rows),
    )
    predicted = _jit_predictions(params, problem, prefix, encoding, partials)
    self.assertTrue(np.isnan(predicted).all())

  def test_derivative_of_the_predictions_against_finite_differences(self):
    # Not of the policy logits: they contain a `stop_gradient`.
    rng = np.random.default_rng(0)
    episode = _episode(4, 5, 4)
    params = self.params
    direction = jax.tree.map(lambda x: rng.normal(size=x.shape), params)

    @jax.jit
    def along(step):
      moved = jax.tree.map(lambda x, d: x + step * d, params, direction)
      outputs = _evaluate(moved, episode)
      return (
        outputs.parent_logits,
        outputs.outcome_logits,
        outputs.none_outcome,
        outputs.predicted,
      )

    _, actual = jax.jvp(along, (0.0,), (1.0,))
    for a, right, left in zip(actual, along(1e-6), along(-1e-6), strict=True):
      np.testing.assert_allclose(a, (right - left) / 2e-6, 1e-5, 1e-5)

  def test_the_policy_has_no_gradient_to_the_predictions(self):
    # The corrections are trained by the policy, the predictions are not.
    episode = _episode(4, 5, 4)

    def joint(params):
      outputs = _evaluate(params, episode)
      return outputs.joint_logits.sum() + outputs.none_logit.sum()

    gradient = jax.jit(jax.grad(joint))(self.params)
    for head in (
      'outcome',
      'candidate_outcome',
      'none_outcome',
      'prediction_hidden',
      'prediction_output',
    ):
      for leaf in gradient[f'transformer/~/{head}'].values():
        np.testing.assert_array_equal(leaf, 0.0)
    for head in ('correction', 'candidate_correction', 'none_correction'):
      leaf = gradient[f'transformer/~/{head}']['w']
      self.assertGreater(np.abs(leaf).max(), 0)


class CausalityTest(parameterized.TestCase):
  def test_a_row_changes_only_the_outputs_after_it(self):
    episode = _episode(4, 5, 4)
    before = _outputs(episode)
    for changed in range(1, 5):
      other = episode.rows.values.at[changed].add(1.0)
      rows = episode.rows._replace(values=other)
      after = _outputs(episode._replace(rows=rows))
      for name, a, b in zip(before._fields, after, before, strict=True):
        with self.subTest(f'{name}, row {changed}'):
          np.testing.assert_array_equal(a[:changed], b[:changed])
          moved = np.abs(a - b).reshape(5, -1).max(1)
          self.assertGreater(moved[changed:].min(), 1e-4)

  def test_an_observation_changes_every_row(self):
    episode = _episode(4, 5, 4)
    before = _outputs(episode)
    observations = episode.observations.at[0, 0].add(1.0)
    after = _outputs(episode._replace(observations=observations))
    for name, a, b in zip(before._fields, after, before, strict=True):
      with self.subTest(name):
        moved = np.abs(a - b).reshape(5, -1).max(1)
        self.assertGreater(moved.min(), 1e-4)

  def test_the_values_of_the_start_row_are_not_read(self):
    episode = _episode(4, 5, 4)
    values = episode.rows.values.at[0].set(7.0)
    other = episode._replace(rows=episode.rows._replace(values=values))
    _assert_close(self, _outputs(other), _outputs(episode), 0)


class InitTest(parameterized.TestCase):
  def test_weights_have_the_deviation_of_their_fan_in(self):
    # LeCun's initialization for weights; all others are constant.
    problem, observations, rows, _ = _episode(4, 3, 1)
    init = jax.jit(_NETWORK.init)
    params = init(jax.random.key(1), problem, observations, rows)
    weights = []
    for module, leaves in params.items():
      for name, leaf in leaves.items():
        if name != 'w':
          expected = 1.0 if name in ('scale', 'start') else 0.0
          np.testing.assert_array_equal(leaf, expected)
          continue
        is_small = module.endswith(('correction', 'prediction_output'))
        small = 0.1 if is_small else 1.0
        standardized = np.ravel(leaf) * np.sqrt(len(leaf)) / small
        weights.append(standardized)
        with self.subTest(module):
          self.assertLessEqual(np.abs(standardized).max(), 2 / 0.8796)
          error = 1 / np.sqrt(2 * standardized.size)
          self.assertAlmostEqual(
            standardized.std(), 1, delta=chance.SIGMAS * error
          )
    together = np.concatenate(weights)
    # Two modules with one key would have half of their weights in common; by
    # chance, single precision has a few pairs among so many.
    self.assertGreater(np.unique(together).size, 0.99 * together.size)
    self.assertAlmostEqual(
      together.mean(), 0, delta=chance.SIGMAS / together.size**0.5
    )
    other = init(jax.random.key(2), problem, observations, rows)
    module = 'transformer/~/embedding'
    self.assertGreater(np.ptp(params[module]['w'] - other[module]['w']), 0.1)


class SizeTest(parameterized.TestCase):
  @parameterized.parameters((3, 2, 1), (5, 20, 10), (12, 50, 30))
  def test_one_set_of_parameters_for_every_size(
    self, num_variables, num_observations, num_steps
  ):
    outputs = _outputs(_episode(num_variables, num_observations, num_steps))
    rows, cells = num_steps + 1, miniature.NUM_CELLS + 2
    self.assertEqual(outputs.tokens.shape, (rows, num_variables, 8))
    self.assertEqual(outputs.parent_logits.shape, (rows, num_variables))
    for logits in (outputs.joint_logits, outputs.outcome_logits):
      self.assertEqual(logits.shape, (rows, 3, num_variables, cells))
    for logits in (outputs.none_logit, outputs.none_outcome):
      self.assertEqual(logits.shape, (rows, 3))
    for name, leaf in zip(outputs._fields, outputs, strict=True):
      with self.subTest(name):
        self.assertTrue(np.isfinite(leaf).all())
        self.assertGreater(leaf.std(), 0.1)

  def test_no_parameter_depends_on_the_number_of_variables(self):
    init = _NETWORK.init
    key = jax.random.key(0)
    few, many = (
      jax.eval_shape(init, key, *_episode(num_variables, 5, 2)[:3])
      for num_variables in (3, 12)
    )
    self.assertEqual(few, many)

  def test_one_observation_is_an_error(self):
    with self.assertRaisesRegex(
      ValueError, 'at least 2 observational rows, got 1'
    ):
      _outputs(_episode(4, 1, 2))

  def test_a_variable_that_was_constant_stays_finite(self):
    episode = _episode(4, 5, 4)
    observations = episode.observations.at[:, 1].set(2.0)
    outputs = _outputs(episode._replace(observations=observations))
    for name, leaf in zip(outputs._fields, outputs, strict=True):
      with self.subTest(name):
        self.assertTrue(np.isfinite(leaf).all())


class SymmetryTest(parameterized.TestCase):
  """Changes that must leave the outputs of the network unchanged."""

  def setUp(self):
    super().setUp()
    self.enterContext(jax.enable_x64(True))
    self.episode = _episode(4, 5, 4)
    self.expected = _outputs_in_float64(self.episode)

  def test_permuted_variables_permute_the_outputs(self):
    for columns in ([1, 2, 3, 0], [3, 1, 0, 2]):
      columns = np.array(columns)
      expected = _take(self.expected, columns)
      actual = _outputs_in_float64(_reorder(self.episode, columns))
      _assert_close(self, actual, expected, 1e-9)

  def test_padding_changes_no_output(self):
    problem, observations, rows, partials = self.episode

    def pad(x):  # One column before the others and two after them.
      width = [(0, 0)] * (x.ndim - 1) + [(1, 2)]
      return jnp.pad(x, width) if x.ndim else x

    problem = jax.tree.map(pad, problem)
    # Empty sets among the others.
    sets, edges = (
      jnp.pad(x, ((1, 2), (0, 0))) for x in (problem.sets, problem.edges)
    )
    padded = _Episode(
      problem._replace(sets=sets, edges=edges),
      pad(observations),
      rows._replace(values=pad(rows.values), intervened=pad(rows.intervened)),
      partials._replace(
        mask=pad(partials.mask), fractions=pad(partials.fractions)
      ),
    )
    actual = _take(_outputs_in_float64(padded), np.arange(1, 5))
    _assert_close(self, actual, self.expected, 1e-9)

  def test_a_latent_variable_changes_no_output(self):
    # It is padding in the problem, in whatever column.
    problem, observations, rows, partials = self.episode
    columns = np.array([0, 4, 1, 2, 3])

    def with_latent(x):
      return jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, 1)])[..., columns]

    problem = jax.tree.map(lambda x: with_latent(x) if x.ndim else x, problem)
    low, high = (
      jnp.where(problem.exists, x, y)
      for x, y in ((problem.low, -3.0), (problem.high, 2.0))
    )
    edges = jnp.pad(problem.edges, ((0, 1), (0, 0)))[columns]
    latent = _Episode(
      problem._replace(low=low, high=high, edges=edges),
      with_latent(observations),
      rows._replace(
        values=with_latent(rows.values),
        intervened=with_latent(rows.intervened),
      ),
      partials._replace(
        mask=with_latent(partials.mask),
        fractions=with_latent(partials.fractions),
      ),
    )
    actual = _take(_outputs_in_float64(latent), np.array([0, 2, 3, 4]))
    _assert_close(self, actual, self.expected, 1e-9)

  def test_the_order_of_the_sets_does_not_matter(self):
    problem = self.episode.problem
    other = problem._replace(sets=problem.sets[::-1])
    actual = _outputs_in_float64(self.episode._replace(problem=other))
    _assert_close(self, actual, self.expected, 1e-9)

  def test_the_currency_does_not_matter(self):
    problem = self.episode.problem
    other = problem._replace(
      cost=1e3 * problem.cost, budget=1e3 * problem.budget
    )
    actual = _outputs_in_float64(self.episode._replace(problem=other))
    _assert_close(self, actual, self.expected, 1e-9)

  def test_costs_sets_and_samples_are_inputs(self):
    problem = self.episode.problem
    for other in (
      problem._replace(cost=problem.cost[::-1]),
      problem._replace(budget=jnp.array(jnp.inf)),
      problem._replace(samples=jnp.array(1.0)),
      problem._replace(sets=problem.sets & (problem.sets.sum(1) < 2)[:, None]),
    ):
      actual = _outputs_in_float64(self.episode._replace(problem=other))
      difference = np.abs(actual.joint_logits - self.expected.joint_logits)
      self.assertGreater(difference.max(), 1e-3)

  def test_known_edges_are_inputs(self):
    problem = self.episode.problem
    edges = np.asarray(problem.edges)
    none, unknown, reverse = (
      _outputs_in_float64(
        self.episode._replace(problem=problem._replace(edges=given))
      )
      for given in (None, jnp.zeros((4, 4)), jnp.array(edges.T))
    )
    _assert_close(self, unknown, none, 1e-12)
    for other in (unknown, reverse):
      difference = np.abs(other.joint_logits - self.expected.joint_logits)
      self.assertGreater(difference.max(), 1e-3)
    # What is known of the causes of the target is believed.
    known = edges[np.argmax(problem.target)]
    self.assertContainsSubset([-1, 1], np.unique(known))
    np.testing.assert_array_equal(
      self.expected.parent_logits[:, known != 0],
      np.broadcast_to(12 * known[known != 0], (5, int((known != 0).sum()))),
    )

  def test_the_order_of_the_observations_does_not_matter(self):
    observations = self.episode.observations[np.array([3, 0, 4, 1, 2])]
    actual = _outputs_in_float64(
      self.episode._replace(observations=observations)
    )
    _assert_close(self, actual, self.expected, 1e-9)

  def test_units_do_not_matter(self):
    factor = jnp.array([0.3, 2.0, 70.0, 1e-3])
    shift = jnp.array([-8.0, 0.5, 1e3, -2e-2])
    problem, observations, rows, partials = self.episode
    actual = _outputs_in_float64(
      _Episode(
        problem._replace(
          low=shift + factor * problem.low, high=shift + factor * problem.high
        ),
        shift + factor * observations,
        rows._replace(values=shift + factor * rows.values),
        partials,
      )
    )
    _assert_close(self, actual, self.expected, 1e-9)

  def test_to_minimize_is_to_maximise_the_negative(self):
    sign = jnp.where(self.episode.problem.target, -1.0, 1.0)
    episode = _flip(self.episode, sign)
    problem = episode.problem._replace(goal=-episode.problem.goal)
    actual = _outputs_in_float64(episode._replace(problem=problem))
    _assert_close(self, _flip_cells(actual, sign), self.expected, 1e-9)

  def test_the_negative_of_a_variable_reverses_its_cells(self):
    for column in np.flatnonzero(~self.episode.problem.target):
      sign = jnp.ones(4).at[column].set(-1.0)
      actual = _outputs_in_float64(_flip(self.episode, sign))
      actual = _flip_cells(actual, sign)
      _assert_close(self, actual, self.expected, 1e-9)

  def test_a_target_that_never_moved_has_its_goal(self):
    # No variable is correlated with it, but more is still better.
    observations = self.episode.observations
    constant = jnp.where(self.episode.problem.target, 2.0, observations)
    episode = self.episode._replace(observations=constant)
    other = episode.problem._replace(goal=-episode.problem.goal)
    up, down = (
      _outputs_in_float64(e) for e in (episode, episode._replace(problem=other))
    )
    difference = np.abs(up.outcome_logits - down.outcome_logits)
    self.assertGreater(difference.max(), 1e-2)

  def test_the_goal_matters(self):
    problem = self.episode.problem
    other = problem._replace(goal=-problem.goal)
    actual = _outputs_in_float64(self.episode._replace(problem=other))
    for name, a, b in zip(actual._fields, actual, self.expected, strict=True):
      with self.subTest(name):
        self.assertGreater(np.abs(a - b).max(), 1e-2)


_NUM_STEPS = 5
_MAX_SET_SIZE = 2


@jax.jit
@functools.partial(jax.vmap, in_axes=(None, 0, 0))
def _run_episode(params, scm, noise):
  """Runs a greedy episode with 4 observations, on given noise.

  Args:
    params: parameters of the network.
    scm: one `SCM`.
    noise: [4 + T, D] scaled noise of the observations and of the outcomes.

  Returns:
    [T, D] bool, the variables intervened on, and [T, D] fractions of the
    domains.
  """
  policy = trained.trained(
    _NETWORK, params, (), _MAX_SET_SIZE, action_distribution.mode
  )

  def observe(intervention, noise):
    u = simulate.propagate(scm, intervention, noise)
    values = scm.location + scm.scale * u
    values = jnp.where(intervention.mask, intervention.values, values)
    return jnp.where(scm.problem.exists, values, 0.0)

  def step(memory, inputs):
    index, noise = inputs
    # An empty intervention once the budget is spent.
    intervention = policy.choose(jax.random.key(0), memory)
    outcome = observe(intervention, noise[None])[0]
    return policy.observe(memory, index, intervention, outcome), intervention

  nothing = interventions.no_intervention(noise.shape[-1])
  memory = policy.init(scm.problem, observe(nothing, noise[:4]), _NUM_STEPS)
  inputs = (jnp.arange(_NUM_STEPS), noise[4:])
  _, intervention = jax.lax.scan(step, memory, inputs)
  return intervention.mask, interventions.to_fractions(
    scm.problem, intervention
  )


class BeliefInputTest(parameterized.TestCase):
  def test_is_the_exact_belief_after_each_row(self):
    self.enterContext(jax.enable_x64(True))
    problem, observations, rows, partials = _episode(4, 5, 4)
    network = miniature.network(belief_input='exact')
    inputs = []

    def record(next_method, args, kwargs, context):
      # A module has no name yet while it is constructed.
      called = context.method_name == '__call__'
      if called and context.module.name == 'embedding':
        inputs.append(args[0][..., -1])
      return next_method(*args, **kwargs)

    @jax.jit
    def recorded(params):
      inputs.clear()
      with hk.intercept_methods(record):
        prefix = network.prefix(params, problem, observations)
        encodings = network.full(params, problem, prefix, rows)
      return tuple(inputs), prefix, encodings

    params = jax.jit(network.init)(
      jax.random.key(1), problem, observations, rows
    )
    params = miniature.doubles(miniature.loud(params, gain=1.5))
    (in_prefix, after), prefix, encodings = recorded(params)
    belief = beliefs.exact()

    @jax.jit
    def parents():
      states = beliefs.unroll(
        belief, problem, observations, rows.intervened[1:], rows.values[1:]
      )
      return jax.vmap(belief.parents)(states)

    expected = np.asarray(parents())
    self.assertGreater(np.ptp(expected, 0).max(), 0.05)
    np.testing.assert_allclose(after, expected, atol=1e-9)
    before = np.broadcast_to(expected[0], in_prefix.shape)
    np.testing.assert_allclose(in_prefix, before, atol=1e-9)
    # Appended row by row, the outputs are the same.
    append = jax.jit(network.append)
    heads_of = jax.jit(functools.partial(_action_heads, network))
    cache = network.empty_cache(5, 4)
    for i in range(5):
      row = jax.tree.map(lambda x, i=i: x[i : i + 1], rows)
      appended, cache = append(params, problem, prefix, cache, i, row)
      heads = [
        heads_of(params, problem, prefix, encoding, partials)
        for encoding in (appended, base.select_rows(encodings, i))
      ]
      np.testing.assert_allclose(
        appended.tokens, encodings.tokens[i], atol=1e-9
      )
      _assert_close(self, heads[0], heads[1], 1e-9)


class RolloutTest(parameterized.TestCase):
  """The same symmetries of a whole episode: decide, observe, decide again."""

  def setUp(self):
    super().setUp()
    # Sets of two variables, costs and latent causes.
    scms = miniature.tasks(24, miniature.GENERAL).scm
    self.enterContext(jax.enable_x64(True))
    self.scms = miniature.doubles(scms)
    scale = self.scms.mechanism.noise_scale  # [M, D]
    rng = np.random.default_rng(0)
    shape = (len(scale), 4 + _NUM_STEPS, scale.shape[1])
    self.noise = rng.normal(size=shape) * scale[:, None]
    self.params = miniature.doubles(_params())
    self.masks, self.fractions = self._run(self.scms, self.noise)

  def _run(self, scms, noise):
    return map(np.asarray, _run_episode(self.params, scms, noise))

  def _assert_same(self, masks, fractions):
    np.testing.assert_array_equal(masks, self.masks)
    # A value is in float32 even here: of a value of 20 in a domain of width
    # 0.06 the fraction is accurate to 2e-5. Cells are at least 1 / 6 apart.
    np.testing.assert_allclose(fractions, self.fractions, rtol=0, atol=1e-4)

  def _in_units(self, factor, shift):
    """Returns the SCMs in other units, flipped where a factor is negative."""
    problem = self.scms.problem
    ends = jnp.stack([problem.low, problem.high])
    ends = jnp.where(problem.exists, shift + factor * ends, 0.0)
    return self.scms._replace(
      problem=problem._replace(low=ends.min(0), high=ends.max(0)),
      location=shift + factor * self.scms.location,
      scale=factor * self.scms.scale,
    )

  def test_the_decisions_are_worth_comparing(self):
    changes = (self.masks[:, 1:] != self.masks[:, :-1]).any((1, 2))
    self.assertGreater(changes.mean(), 0.25)
    sizes = np.bincount(self.masks.sum(-1).ravel(), minlength=3)
    # Empty sets occur once the budget is spent.
    self.assertGreater(sizes.min(), 4)
    cells = np.unique(self.fractions[self.masks].round(6))
    self.assertGreaterEqual(len(cells), 3)

  def test_relabelled(self):
    rng = np.random.default_rng(1)
    orders = np.stack([rng.permutation(5) for _ in self.noise])

    def take(x):
      return np.take_along_axis(x, orders[:, None], 2)

    masks, fractions = self._run(
      jax.jit(jax.vmap(simulate.relabel))(self.scms, orders), take(self.noise)
    )
    np.testing.assert_array_equal(masks, take(self.masks))
    np.testing.assert_allclose(fractions, take(self.fractions), atol=1e-4)

  def test_in_other_units(self):
    rng = np.random.default_rng(2)
    factor, shift = rng.normal(size=(2, *self.scms.location.shape))
    flipped = rng.random(factor.shape) < 0.5
    # The target is not flipped, so that the goal stays the same.
    flipped &= ~np.asarray(self.scms.problem.target)
    sign = np.where(flipped, -1.0, 1.0)
    scms = self._in_units(sign * np.exp(2 * factor), 10 * shift)
    masks, fractions = self._run(scms, self.noise)
    reverse = flipped[:, None] & masks
    self.assertGreater(reverse.sum() / masks.sum(), 0.25)
    self._assert_same(masks, np.where(reverse, 1 - fractions, fractions))

  def test_negated_target_and_goal(self):
    problem = self.scms.problem
    scms = self._in_units(jnp.where(problem.target, -1.0, 1.0), 0.0)
    scms = scms._replace(problem=scms.problem._replace(goal=-scms.problem.goal))
    self._assert_same(*self._run(scms, self.noise))


if __name__ == '__main__':
  absltest.main()
