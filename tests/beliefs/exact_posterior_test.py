"""Tests of the exact posterior against sums over all orders and graphs."""

import functools
import itertools
import math

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from acme_cbo.beliefs import exact_posterior
from tests.support import chance


def _data(num_variables, seed=0, num_rows=12):
  """Rows of a linear SCM, the last four with a variable set."""
  rng = np.random.default_rng(seed)
  weights = np.tril(rng.normal(size=(num_variables, num_variables)), -1)
  mix = np.linalg.inv(np.eye(num_variables) - weights)
  rows = rng.normal(size=(num_rows, num_variables)) @ mix.T
  intervened = np.zeros(rows.shape, bool)
  for row in range(num_rows - 4, num_rows):
    chosen = rng.integers(num_variables)
    intervened[row, chosen] = True
    rows[row, chosen] = rng.normal()
  return rows, intervened


def _log_marginal(rows):
  """Log marginal likelihood of all columns: Kuipers et al. (2014), eq. 2."""
  count, num_columns = rows.shape
  mean_rows, degrees = 1.0, 2.0 + num_columns
  scale = 0.5 * np.eye(num_columns)
  mean = rows.mean(0)
  spread = (rows - mean).T @ (rows - mean)
  posterior = scale + spread
  posterior += count * mean_rows / (count + mean_rows) * np.outer(mean, mean)

  def log_normalizer(matrix, degrees):
    return (
      scipy.special.multigammaln(degrees / 2, num_columns)
      - degrees / 2 * np.linalg.slogdet(matrix)[1]
    )

  return (
    num_columns / 2 * math.log(mean_rows / (count + mean_rows))
    - count * num_columns / 2 * math.log(math.pi)
    + log_normalizer(posterior, degrees + count)
    - log_normalizer(scale, degrees)
  )


def _log_bge(data, variable, parents):
  """Log marginal likelihood of a variable given its parents."""
  rows, intervened = data
  rows = rows[~intervened[:, variable]]
  family = [*parents, variable]
  alone = _log_marginal(rows[:, list(parents)]) if parents else 0.0
  return _log_marginal(rows[:, family]) - alone


def _log_score(data, variable, parents):
  num_variables = data[0].shape[1]
  choices = num_variables * math.comb(num_variables - 1, len(parents))
  return _log_bge(data, variable, parents) - math.log(choices)


def _all_subsets(variables):
  for size in range(len(variables) + 1):
    yield from itertools.combinations(variables, size)


def _set_index(variable, parents):
  """Index of a parent set among those of its variable."""
  return sum(1 << (i - (i > variable)) for i in parents)


def _is_acyclic(parents_of):
  left = set(range(len(parents_of)))
  while left:
    free = {j for j in left if not left & set(parents_of[j])}
    if not free:
      return False
    left -= free
  return True


@functools.cache
def _graphs(num_variables):
  """All DAGs as tuples of parents, with their numbers of orders."""
  variables = range(num_variables)
  choices = [
    list(_all_subsets([i for i in variables if i != j])) for j in variables
  ]
  graphs = [g for g in itertools.product(*choices) if _is_acyclic(g)]

  def allows(graph, order):
    rank = {j: k for k, j in enumerate(order)}
    return all(rank[i] < rank[j] for j in variables for i in graph[j])

  orders = list(itertools.permutations(variables))
  return [(g, sum(allows(g, order) for order in orders)) for g in graphs]


def _posterior_over_graphs(data):
  """Posterior [D, P] by a sum over all graphs."""
  num_variables = data[0].shape[1]
  score = functools.cache(lambda j, parents: _log_score(data, j, parents))
  logs, graphs = [], _graphs(num_variables)
  for graph, num_orders in graphs:
    terms = [score(j, parents) for j, parents in enumerate(graph)]
    logs.append(sum(terms) + math.log(num_orders))
  weights = scipy.special.softmax(logs)
  posterior = np.zeros((num_variables, 1 << (num_variables - 1)))
  for (graph, _), weight in zip(graphs, weights, strict=True):
    for j, parents in enumerate(graph):
      posterior[j, _set_index(j, parents)] += weight
  return posterior


def _posterior_over_orders(data):
  """Posterior [D, P] by a sum over all orders and the sets they allow."""
  num_variables = data[0].shape[1]
  score = functools.cache(lambda j, parents: _log_score(data, j, parents))
  total, posterior = 0.0, np.zeros((num_variables, 1 << (num_variables - 1)))
  for order in itertools.permutations(range(num_variables)):
    tables = []
    for k, j in enumerate(order):
      sets = list(_all_subsets(sorted(order[:k])))
      tables.append((j, sets, np.exp([score(j, parents) for parents in sets])))
    weight = math.prod(w.sum() for _, _, w in tables)
    total += weight
    for j, sets, w in tables:
      for parents, share in zip(sets, w / w.sum(), strict=True):
        posterior[j, _set_index(j, parents)] += weight * share
  return posterior / total


def _edge_probabilities(log_posterior):
  """Probability of each edge from [D, P] log probabilities: [D, D]."""
  members = exact_posterior.parent_sets(log_posterior.shape[0])
  return jnp.einsum(
    'jp,jpi->ji', jnp.exp(log_posterior), members.astype(log_posterior.dtype)
  )


@functools.partial(jax.jit, static_argnames='num_variables')
def _scores(rows, intervened, exists, num_variables):
  evidence = exact_posterior.add_rows(
    exact_posterior.empty_evidence(num_variables), rows, intervened
  )
  return exact_posterior.log_scores(evidence, exists)


def _evaluate(data):
  """Scores and posterior of rows in which no column is padding."""
  rows, intervened = data
  num_variables = rows.shape[1]
  exists = np.ones(num_variables, bool)
  scores = _scores(rows, intervened, exists, num_variables)
  return np.asarray(scores), np.exp(
    jax.jit(exact_posterior.log_posterior)(scores)
  )


class ExactTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.enterContext(jax.enable_x64(True))

  @parameterized.parameters(2, 3, 5)
  def test_scores_against_another_bge(self, num_variables):
    data = _data(num_variables)
    scores, _ = _evaluate(data)
    for j in range(num_variables):
      others = [i for i in range(num_variables) if i != j]
      for parents in _all_subsets(others):
        expected = _log_score(data, j, parents)
        actual = scores[j, _set_index(j, parents)]
        self.assertAlmostEqual(actual, expected, delta=1e-9)

  @parameterized.parameters(2, 3, 4)
  def test_posterior_against_every_graph(self, num_variables):
    data = _data(num_variables)
    _, actual = _evaluate(data)
    np.testing.assert_allclose(actual, _posterior_over_graphs(data), atol=1e-9)

  @parameterized.parameters(3, 5)
  def test_posterior_against_every_order(self, num_variables):
    data = _data(num_variables, seed=1)
    _, actual = _evaluate(data)
    np.testing.assert_allclose(actual, _posterior_over_orders(data), atol=1e-9)

  def test_graphs_of_one_equivalence_class_have_one_score(self):
    rows, _ = _data(3)
    scores, _ = _evaluate((rows, np.zeros(rows.shape, bool)))

    def score(*graph):
      return sum(
        scores[j, _set_index(j, parents)]
        + math.log(3 * math.comb(2, len(parents)))
        for j, parents in enumerate(graph)
      )

    chain, back = score((), (0,), (1,)), score((1,), (2,), ())
    fork, collider = score((1,), (), (1,)), score((), (0, 2), ())
    self.assertAlmostEqual(chain, back, delta=1e-9)
    self.assertAlmostEqual(chain, fork, delta=1e-9)
    self.assertGreater(abs(chain - collider), 1e-2)

  def test_rows_can_be_added_one_by_one(self):
    rows, intervened = _data(4)
    step = jax.jit(exact_posterior.add_rows)
    evidence = exact_posterior.empty_evidence(4)
    for row, was_set in zip(rows, intervened, strict=True):
      evidence = step(evidence, row[None], was_set[None])
    at_once = step(exact_posterior.empty_evidence(4), rows, intervened)
    for name, a, b in zip(at_once._fields, evidence, at_once, strict=True):
      with self.subTest(name):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)

  def test_padding_changes_nothing(self):
    rows, intervened = _data(3)
    scores, expected = _evaluate((rows, intervened))
    del scores
    columns = np.array([1, 2, 4])
    exists = np.isin(np.arange(5), columns)
    wide, was_set = np.zeros((len(rows), 5)), np.zeros((len(rows), 5), bool)
    wide[:, columns], was_set[:, columns] = rows, intervened
    scores = _scores(wide, was_set, exists, 5)
    padded = np.exp(jax.jit(exact_posterior.log_posterior)(scores))
    for j, wide_j in enumerate(columns):
      for parents in _all_subsets([i for i in range(3) if i != j]):
        number = _set_index(wide_j, columns[list(parents)])
        self.assertAlmostEqual(
          padded[wide_j, number],
          expected[j, _set_index(j, parents)],
          delta=1e-12,
        )
    np.testing.assert_allclose(padded.sum(1), 1)
    np.testing.assert_allclose(padded[~exists][:, 0], 1)

  def test_index_of_a_set(self):
    rng = np.random.default_rng(0)
    parents = (rng.random((6, 6)) < 0.5) & ~np.eye(6, dtype=bool)
    number = np.asarray(exact_posterior.set_index(jnp.asarray(parents)))
    expected = [_set_index(j, np.flatnonzero(parents[j])) for j in range(6)]
    np.testing.assert_array_equal(number, expected)
    members = exact_posterior.parent_sets(6)[np.arange(6), number]
    np.testing.assert_array_equal(members, parents)

  def test_refuses_more_than_eight_variables(self):
    with self.assertRaisesRegex(ValueError, 'at most 8, got 9'):
      exact_posterior.parent_sets(9)


class SinglePrecisionTest(parameterized.TestCase):
  @parameterized.parameters((5, 34, 0.02), (8, 34, 0.02), (8, 100, 0.1))
  def test_log_odds_of_edges(self, num_variables, num_rows, bound):
    def edges(rows, intervened):
      exists = jnp.ones(num_variables, bool)
      scores = _scores(rows, intervened, exists, num_variables)
      return _edge_probabilities(exact_posterior.log_posterior(scores))

    batch = [_data(num_variables, seed, num_rows) for seed in range(32)]
    rows, intervened = (np.stack(x) for x in zip(*batch, strict=True))
    rows = (rows - rows.mean(1, keepdims=True)) / rows.std(1, keepdims=True)
    run = jax.jit(jax.vmap(edges))
    single = scipy.special.logit(
      np.asarray(run(rows.astype(np.float32), intervened), float)
    )
    with jax.enable_x64(True):
      double = scipy.special.logit(np.asarray(run(rows, intervened)))
    # For larger log odds, 1 - p is lost in the rounding of p.
    accurate = np.abs(double) < 7
    self.assertGreater(accurate.mean(), 0.5)
    self.assertLess(np.abs(single[accurate] - double[accurate]).max(), bound)

  def test_calls_no_lapack(self):
    exists = jnp.ones(5, bool)
    compiled = jax.jit(
      lambda evidence: exact_posterior.log_posterior(
        exact_posterior.log_scores(evidence, exists)
      )
    )
    text = compiled.lower(exact_posterior.empty_evidence(5)).compile().as_text()
    self.assertNotIn('custom-call', str(text))


def _draw(rng, num_variables, num_observations, num_interventions):
  """Draws a graph and rows from the prior that the posterior assumes."""
  order = rng.permutation(num_variables)
  parents = np.zeros((num_variables, num_variables), bool)
  rows = np.zeros((num_observations + num_interventions, num_variables))
  intervened = np.zeros(rows.shape, bool)
  chosen = rng.integers(num_variables, size=num_interventions)
  intervened[num_observations + np.arange(num_interventions), chosen] = True
  values = rng.normal(size=rows.shape)
  # Sets of any size are equally likely, given that the order allows them.
  for k, j in enumerate(order):
    sets = list(_all_subsets(sorted(order[:k])))
    weights = [1 / math.comb(num_variables - 1, len(s)) for s in sets]
    weights = np.array(weights) / sum(weights)
    chosen_set = list(sets[rng.choice(len(sets), p=weights)])
    parents[j, chosen_set] = True
    size = len(chosen_set)
    # The normal-Wishart prior, one equation at a time.
    variance = 0.25 / rng.gamma((size + 3) / 2)
    slopes = rng.normal(size=size) * math.sqrt(variance / 0.5)
    intercept = rng.normal() * math.sqrt(variance)
    noise = rng.normal(size=len(rows)) * math.sqrt(variance)
    free = intercept + rows[:, chosen_set] @ slopes + noise
    rows[:, j] = np.where(intervened[:, j], values[:, j], free)
  return parents, rows, intervened


def _calibration(num_scms, ignore_interventions=False):
  """Calibration of edge probabilities: z of the total, chi2 over 10 bins."""
  rng = np.random.default_rng(0)
  drawn = [_draw(rng, 4, 8, 6) for _ in range(num_scms)]
  parents, rows, intervened = (np.stack(x) for x in zip(*drawn, strict=True))
  if ignore_interventions:
    intervened = np.zeros_like(intervened)

  def edges(rows, intervened):
    scores = _scores(rows, intervened, jnp.ones(4, bool), 4)
    return _edge_probabilities(exact_posterior.log_posterior(scores))

  with jax.enable_x64(True):
    predicted = np.asarray(jax.jit(jax.vmap(edges))(rows, intervened))
  off = ~np.eye(4, dtype=bool)
  predicted, true = predicted[:, off], parents[:, off]
  surprise = true - predicted
  # Edges of one SCM depend on each other, so sums per SCM are the samples.
  per_scm = surprise.sum(1)
  z = per_scm.mean() / (per_scm.std() / math.sqrt(num_scms))
  bins = np.minimum((predicted * 10).astype(int), 9)
  chi2 = 0.0
  for k in range(10):
    inside = np.where(bins == k, surprise, 0.0).sum(1)
    chi2 += inside.mean() ** 2 / (inside.var() / num_scms)
  return z, chi2


class CalibrationTest(absltest.TestCase):
  @pytest.mark.stat
  def test_edge_probabilities_are_calibrated(self):
    z, chi2 = _calibration(2000)
    self.assertLess(abs(z), chance.SIGMAS)
    # Ten squares of mean 1, or more where a bin has few edges: with other seeds
    # 14 on average, and 270 where interventions are ignored.
    self.assertLess(chi2, 60)

  @pytest.mark.stat
  def test_ignoring_interventions_is_miscalibrated(self):
    # Rows in which a variable was set hide the edges into it.
    _, chi2 = _calibration(2000, ignore_interventions=True)
    self.assertGreater(chi2, 90)


if __name__ == '__main__':
  absltest.main()
