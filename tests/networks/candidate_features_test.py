"""Tests of what rows tell of candidates, against plain numpy."""

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats

from acme_cbo.networks import action_distribution
from acme_cbo.networks import candidate_features

_LENGTHS, _NOISES, _WIDTHS = (0.07, 0.25, 0.7), (0.03, 0.3), (0.05, 0.2)
_VARIANCE = 4.0
# Of two draws each outcome is the mean, unless the test says otherwise.
_SAMPLES = jnp.float32(2)
_POINTS = np.array([0.0, 0.25, 0.5, 0.75, 1.0])
_ROWS, _SIZE = 9, 4


def _rows(seed: int, chance_set: float):
  """Rows whose sets often are the same, the first of them unknown."""
  rng = np.random.default_rng(seed)
  kinds = np.array([[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0]], bool)
  intervened = kinds[rng.integers(3, size=_ROWS)] & (chance_set > 0)
  known = np.arange(_ROWS) > 0
  outcomes = np.where(known, rng.normal(size=_ROWS), 0.0)
  return known, outcomes, intervened, rng.random((_ROWS, _SIZE))


def _seen(rows) -> candidate_features.RowFeatures:
  known, outcomes, intervened, places = map(jnp.array, rows)
  return candidate_features.row_features(
    known, outcomes, intervened, places, jnp.array(_POINTS)
  )


def _partial(mask, places):
  return action_distribution.PartialIntervention(
    jnp.array(mask, bool),
    jnp.where(jnp.array(mask, bool), jnp.array(places), 0.0),
    jnp.array(False),
  )


# Nothing chosen, one variable, and a pair.
_PARTIALS = (
  _partial([0, 0, 0, 0], np.zeros(4)),
  _partial([1, 0, 0, 0], [0.4, 0, 0, 0]),
  _partial([1, 1, 0, 0], [0.4, 0.7, 0, 0]),
)


class SurrogateTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.enterContext(jax.enable_x64(True))
    self.active = _seen(_rows(0, 1))
    self.passive = _seen(_rows(1, 0))
    self.tried = candidate_features.append_rows(
      candidate_features.empty_history(_ROWS, _SIZE, len(_POINTS)),
      jnp.int32(0),
      self.active,
      _SAMPLES,
    )

  def _candidates(self, partial):
    """Set and places of each candidate, what is chosen alone last."""
    mask, places = np.asarray(partial.mask), np.asarray(partial.fractions)
    for j, point in np.ndindex(_SIZE, len(_POINTS)):
      more, there = mask.copy(), places.copy()
      # A variable that is chosen already is no candidate; nobody asks.
      if not mask[j]:
        more[j], there[j] = True, _POINTS[point]
      yield (j, point), more, there
    yield None, mask, places

  @parameterized.parameters(
    *((number, count) for number in range(3) for count in (0, 1, 5, _ROWS))
  )
  def test_what_is_told(self, number, count):
    partial = _PARTIALS[number]
    known = np.asarray(self.active.known) & (np.arange(_ROWS) < count)
    of_each, alone = candidate_features.candidate_features(
      self.passive, jnp.array(known), self.tried, jnp.array(_POINTS), partial
    )
    rows = [np.asarray(leaf)[known] for leaf in self.active[1:4]]
    for where, mask, place in self._candidates(partial):
      if where and np.asarray(partial.mask)[where[0]]:
        continue
      actual = alone if where is None else of_each[where]
      expected = self._expected(rows, mask, place)
      np.testing.assert_allclose(actual, expected, atol=1e-8)

  def _expected(self, rows, mask, place):
    y, intervened, x = rows
    best, n = max([0.0, *y]), len(y)
    same = (intervened == mask).all(1)
    alike = (intervened[:, None] == intervened[None]).all(-1)
    means, deviations, logs, reaches = [], [], [], []
    for length in _LENGTHS:

      def kernel(a, b, used, length=length):
        square = ((a[:, None] - b[None]) ** 2 * used).sum(-1)
        return np.exp(-square / 2 / length**2)

      for noise in _NOISES:
        # All of the rows; those that set other variables are independent.
        prior = kernel(x, x, intervened[:, None]) * alike
        prior += noise / 2 * np.eye(n)
        here = kernel(place[None], x, mask)[0] * same
        solved = np.linalg.solve(prior, np.stack([y, here], -1))
        # Rasmussen and Williams, equations 2.25 and 2.26, and the evidence of
        # Student's t: a signal of variance 4 before it, which counts as a row.
        shape, rate = 0.5, 0.5 * _VARIANCE
        logs.append(0.0)
        if n:
          t = scipy.stats.multivariate_t(
            np.zeros(n), prior * rate / shape, df=2 * shape
          )
          logs[-1] = t.logpdf(y)
        variance = (rate + y @ solved[:, 0] / 2) / (shape + n / 2)
        means.append(here @ solved[:, 0])
        left = max(1 - here @ solved[:, 1], 1e-6)
        deviations.append(np.sqrt(variance * left))
        reaches.append(np.sqrt(variance))
    belief = np.exp(np.array(logs) - max(logs))
    belief /= belief.sum()
    means, deviations = np.array(means), np.array(deviations)
    unit = belief @ reaches
    above = (means - best) / deviations
    improvement = deviations * (
      above * scipy.stats.norm.cdf(above) + scipy.stats.norm.pdf(above)
    )
    mean = belief @ means
    spread = belief @ (deviations**2 + (means - mean) ** 2)
    improves = belief @ improvement / unit
    pairs = belief.reshape(3, 2)
    of_lengths = (pairs * improvement.reshape(3, 2)).sum(1)
    of_lengths /= unit * (pairs.sum(1) + 1e-3)
    # All other rows, and those in which nothing was set.
    known = np.asarray(self.passive.known)
    all_y = np.append(y[~same], np.asarray(self.passive.outcomes)[known])
    all_x = np.concatenate([x[~same], np.asarray(self.passive.places)[known]])
    if not mask.any():
      # To set nothing is just what the passive rows did.
      all_y, all_x = y[~same], x[~same]
    weights, totals, nearest = [], [], []
    more = (intervened >= mask).all(1)
    for width in _WIDTHS:
      fall = (1 / (1 + ((all_x - place)[:, mask] / width) ** 2) ** 2).prod(1)
      weights.append(np.log1p(fall.sum()))
      totals.append((fall * all_y).sum() / (fall.sum() + 1e-3))
      fall = (1 / (1 + ((x - place)[:, mask] / width) ** 2) ** 2).prod(1)
      nearest.append(max([0, *(fall * np.exp((y - best) / unit))[more]]))
    return np.concatenate(
      [
        [mean, (mean - best) / unit, np.sqrt(spread) / unit, improves],
        [np.log(improves + 1e-4)],
        of_lengths,
        weights,
        totals,
        nearest,
        [best, np.log(unit)],
      ]
    )

  def test_row_by_row_is_at_once(self):
    tried = candidate_features.empty_history(_ROWS, _SIZE, len(_POINTS))
    for i in range(_ROWS):
      row = _seen([leaf[i : i + 1] for leaf in _rows(0, 1)])
      tried = candidate_features.append_rows(tried, jnp.int32(i), row, _SAMPLES)
    for name, a, b in zip(
      ('known', 'outcomes', 'intervened', 'places', 'nearness', *'if'),
      jax.tree.leaves(tried),
      jax.tree.leaves(self.tried),
      strict=True,
    ):
      np.testing.assert_allclose(a, b, atol=1e-9, err_msg=name)

  def test_later_rows_change_nothing_that_was_known_before(self):
    known = jnp.array(self.active.known & (np.arange(_ROWS) < 5))
    changed = self.active._replace(
      outcomes=self.active.outcomes.at[5:].set(100.0),
      places=self.active.places.at[5:].set(0.123),
    )
    tried = candidate_features.append_rows(
      candidate_features.empty_history(_ROWS, _SIZE, len(_POINTS)),
      jnp.int32(0),
      changed,
      _SAMPLES,
    )
    points = jnp.array(_POINTS)
    for partial in _PARTIALS:
      expected = candidate_features.candidate_features(
        self.passive, known, self.tried, points, partial
      )
      actual = candidate_features.candidate_features(
        self.passive, known, tried, points, partial
      )
      jax.tree.map(np.testing.assert_array_equal, actual, expected)

  def test_number_of_features(self):
    of_each, alone = candidate_features.candidate_features(
      self.passive,
      self.active.known,
      self.tried,
      jnp.array(_POINTS),
      _PARTIALS[0],
    )
    self.assertEqual(
      of_each.shape, (_SIZE, len(_POINTS), candidate_features.NUM_FEATURES)
    )
    self.assertEqual(alone.shape, (candidate_features.NUM_FEATURES,))

  def test_single_precision_is_close(self):
    """The worst case that matters: the same place again and again."""
    n = 40
    rng = np.random.default_rng(2)
    places = np.full((n, 1), 0.4) + 1e-3 * rng.random((n, 1))
    y = 3.0 + 0.01 * rng.normal(size=n)

    @jax.jit
    def told():
      seen = candidate_features.row_features(
        jnp.ones(n, bool),
        jnp.array(y),
        jnp.ones((n, 1), bool),
        jnp.array(places),
        jnp.array(_POINTS),
      )
      tried = candidate_features.append_rows(
        candidate_features.empty_history(n, 1, len(_POINTS)),
        jnp.int32(0),
        seen,
        samples=jnp.float32(1000),
      )
      nothing = action_distribution.empty_intervention(1)
      return candidate_features.candidate_features(
        seen, seen.known, tried, jnp.array(_POINTS), nothing
      )[0]

    with jax.enable_x64(False):
      single = told()
    self.assertEqual(single.dtype, jnp.float32)
    np.testing.assert_allclose(single, told(), atol=0.02)


if __name__ == '__main__':
  absltest.main()
