"""Tests of the candidate features, against plain numpy."""

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
# Each outcome averages two draws, except where a test says otherwise.
_SAMPLES = jnp.float32(2)
_POINTS = np.array([0.0, 0.25, 0.5, 0.75, 1.0])
_ROWS, _SIZE = 9, 4
# An intervention on the first two sets all that may be set.
_SETTABLE = np.array([1, 1, 0, 0], bool)


def _rows(seed: int, chance_set: float):
  """Draws rows that often share their sets; the first one is masked."""
  rng = np.random.default_rng(seed)
  kinds = np.array([[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0]], bool)
  intervened = kinds[rng.integers(3, size=_ROWS)] & (chance_set > 0)
  row_mask = np.arange(_ROWS) > 0
  outcomes = np.where(row_mask, rng.normal(size=_ROWS), 0.0)
  return row_mask, outcomes, intervened, rng.random((_ROWS, _SIZE))


def _features(rows, records=None) -> candidate_features.RowFeatures:
  row_mask, outcomes, intervened, fractions = map(jnp.array, rows)
  return candidate_features.row_features(
    row_mask, outcomes, intervened, fractions, jnp.array(_POINTS), records
  )


def _partial(mask, fractions):
  return action_distribution.PartialIntervention(
    jnp.array(mask, bool),
    jnp.where(jnp.array(mask, bool), jnp.array(fractions), 0.0),
    jnp.array(False),
  )


# Nothing chosen, one variable, and a pair.
_PARTIALS = (
  _partial([0, 0, 0, 0], np.zeros(4)),
  _partial([1, 0, 0, 0], [0.4, 0, 0, 0]),
  _partial([1, 1, 0, 0], [0.4, 0.7, 0, 0]),
)


class CandidateFeaturesTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.enterContext(jax.enable_x64(True))
    self.passive = _features(_rows(1, 0))
    self.records = candidate_features.fit_records(
      self.passive, jnp.array(_SETTABLE)
    )
    self.active = _features(_rows(0, 1), self.records)
    self.history = candidate_features.append_rows(
      candidate_features.empty_history(_ROWS, _SIZE, len(_POINTS)),
      jnp.int32(0),
      self.active,
      _SAMPLES,
    )

  def _candidates(self, partial):
    """Yields set and fractions of each candidate; the partial one is last."""
    mask, fractions = np.asarray(partial.mask), np.asarray(partial.fractions)
    for j, point in np.ndindex(_SIZE, len(_POINTS)):
      new_mask, new_fractions = mask.copy(), fractions.copy()
      # A variable that is already chosen is no candidate.
      if not mask[j]:
        new_mask[j], new_fractions[j] = True, _POINTS[point]
      yield (j, point), new_mask, new_fractions
    yield None, mask, fractions

  @parameterized.parameters(
    *((number, count) for number in range(3) for count in (0, 1, 5, _ROWS))
  )
  def test_all_features(self, number, count):
    partial = _PARTIALS[number]
    row_mask = np.asarray(self.active.row_mask) & (np.arange(_ROWS) < count)
    of_each, alone = candidate_features.candidate_features(
      self.records,
      jnp.array(row_mask),
      self.history,
      jnp.array(_POINTS),
      partial,
      _SAMPLES,
    )
    rows = [np.asarray(leaf)[row_mask] for leaf in self.active[1:4]]
    rows.append(self._from_records(rows[1], rows[2]))
    for index, mask, position in self._candidates(partial):
      if index and np.asarray(partial.mask)[index[0]]:
        continue
      actual = alone if index is None else of_each[index]
      expected = self._expected(rows, partial, index, mask, position)
      np.testing.assert_allclose(actual, expected, atol=1e-8)

  def _from_records(self, intervened, x):
    """Returns what the records let expect of interventions that set all."""
    row_mask = np.asarray(self.passive.row_mask)
    y = np.asarray(self.passive.outcomes)[row_mask]
    known = np.asarray(self.passive.fractions)[row_mask]

    def kernel(a, b, length):
      square = ((a[:, None] - b[None])[..., _SETTABLE] ** 2).sum(-1)
      return np.exp(-square / 2 / length**2)

    logs, means = [], []
    for length in _LENGTHS:
      for noise in _NOISES:
        prior = kernel(known, known, length) + noise * np.eye(len(y))
        t = scipy.stats.multivariate_t(
          np.zeros(len(y)), prior * _VARIANCE, df=1
        )
        logs.append(t.logpdf(y))
        means.append(kernel(x, known, length) @ np.linalg.solve(prior, y))
    weights = np.exp(np.array(logs) - max(logs))
    expected = weights @ np.array(means) / weights.sum()
    return np.where((intervened == _SETTABLE).all(1), expected, 0)

  def _processes(self, rows, mask, position, any_row=True):
    """Returns belief, reaches, means and shares of variance of the processes.

    The last are the exact one, and that of the closest row alone. And it
    returns the probability that the records count.
    """
    y, intervened, x, offset = rows
    here_offset = self._from_records(mask[None], position[None])[0]
    n = len(y)
    same = (intervened == mask).all(1)
    alike = (intervened[:, None] == intervened[None]).all(-1)
    means, shares, logs, reaches, trusts = [], [], [], [], []
    for length in _LENGTHS:

      def kernel(a, b, used, length=length):
        square = ((a[:, None] - b[None]) ** 2 * used).sum(-1)
        return np.exp(-square / 2 / length**2)

      for noise in _NOISES:
        # All rows; those that set other variables are independent.
        prior = kernel(x, x, intervened[:, None]) * alike
        prior += noise / 2 * np.eye(n)
        here = kernel(position[None], x, mask)[0] * same * any_row
        # Rasmussen and Williams, equations 2.25 and 2.26, and the evidence by
        # Student's t: a prior signal variance of 4, worth one row. Once with
        # the outcomes as they are, once with what the records let expect as
        # their mean.
        shape, rate = 0.5, 0.5 * _VARIANCE
        variances, centers, evidences = [], [], []
        for counts in (0, 1):
          rest = y - counts * offset
          solved = np.linalg.solve(prior, rest)
          variances.append((rate + rest @ solved / 2) / (shape + n / 2))
          centers.append(here @ solved + counts * here_offset)
          evidences.append(0.0)
          if n:
            t = scipy.stats.multivariate_t(
              np.zeros(n), prior * rate / shape, df=2 * shape
            )
            evidences[-1] = t.logpdf(rest)
        shared = np.exp(np.array(evidences) - max(evidences))
        logs.append(np.log(shared.sum()) + max(evidences))
        shared /= shared.sum()
        trusts.append(shared[1])
        variance = shared @ variances
        means.append(shared @ centers)
        unsure = shared @ (np.array(centers) - means[-1]) ** 2 / variance
        closest = max([0.0, *here])
        exact = 1 - here @ np.linalg.solve(prior, here)
        shares.append(
          (exact + unsure, 1 - closest**2 / (1 + noise / 2) + unsure)
        )
        reaches.append(np.sqrt(variance))
    belief = np.exp(np.array(logs) - max(logs))
    belief /= belief.sum()
    trust = belief @ trusts
    return belief, *map(np.array, (reaches, means, shares)), trust

  def _averages(self, best, belief, reaches, means, shares):
    """Returns the averages over the processes, and their improvements."""
    deviations = reaches * np.sqrt(np.maximum(shares, 1e-6))
    unit = belief @ reaches
    above = (means - best) / deviations
    improvement = deviations * (
      above * scipy.stats.norm.cdf(above) + scipy.stats.norm.pdf(above)
    )
    mean = belief @ means
    spread = belief @ (deviations**2 + (means - mean) ** 2)
    improves = belief @ improvement / unit
    averages = [mean, (mean - best) / unit, np.sqrt(spread) / unit, improves]
    return [*averages, np.log(improves + 1e-4)], improvement

  def _completed(self, rows, partial, index, best, unit):
    """Returns the features of the completion of a candidate."""
    y, intervened, x, _ = rows
    chosen, fractions = np.asarray(partial.mask), np.asarray(partial.fractions)
    added = chosen | (np.arange(_SIZE) == index[0])
    fall = (1 / (1 + ((x - fractions)[:, chosen] / 0.2) ** 2) ** 2).prod(1)
    scores = np.where(
      (intervened >= added).all(1), fall * np.exp((y - best) / unit), 0
    )
    row = np.argmax(scores) if scores.any() else None
    position = np.where(chosen, fractions, 0.0 if row is None else x[row])
    position[index[0]] = _POINTS[index[1]]
    belief, reaches, means, shares, _ = self._processes(
      rows,
      added if row is None else intervened[row],
      position,
      any_row=row is not None,
    )
    averages, _ = self._averages(best, belief, reaches, means, shares[:, 1])
    mean, above, spread, _, log_improves = averages
    return [row is not None, mean, above, spread, log_improves]

  def _expected(self, rows, partial, index, mask, position):
    y, intervened, x, _ = rows
    best = max([0.0, *y])
    same = (intervened == mask).all(1)
    belief, reaches, means, shares, trust = self._processes(
      rows, mask, position
    )
    unit = belief @ reaches
    averages, improvement = self._averages(
      best, belief, reaches, means, shares[:, 0]
    )
    pairs = belief.reshape(3, 2)
    of_lengths = (pairs * improvement.reshape(3, 2)).sum(1)
    of_lengths /= unit * (pairs.sum(1) + 1e-3)
    if index is None:
      completed = [1, *averages[:3], averages[4]]
    else:
      completed = self._completed(rows, partial, index, best, unit)
    # All other rows, and those without intervention.
    row_mask = np.asarray(self.passive.row_mask)
    all_y = np.append(y[~same], np.asarray(self.passive.outcomes)[row_mask])
    all_x = np.concatenate(
      [x[~same], np.asarray(self.passive.fractions)[row_mask]]
    )
    if not mask.any():
      # The passive rows are of the same, empty set.
      all_y, all_x = y[~same], x[~same]
    weights, totals, nearest = [], [], []
    more = (intervened >= mask).all(1)
    for width in _WIDTHS:
      fall = (1 / (1 + ((all_x - position)[:, mask] / width) ** 2) ** 2).prod(1)
      weights.append(np.log1p(fall.sum()))
      totals.append((fall * all_y).sum() / (fall.sum() + 1e-3))
      fall = (1 / (1 + ((x - position)[:, mask] / width) ** 2) ** 2).prod(1)
      nearest.append(max([0, *(fall * np.exp((y - best) / unit))[more]]))
    return np.concatenate(
      [
        averages,
        of_lengths,
        weights,
        totals,
        nearest,
        [best, np.log(unit), trust],
        completed,
      ]
    )

  def test_appending_row_by_row_or_at_once_is_the_same(self):
    history = candidate_features.empty_history(_ROWS, _SIZE, len(_POINTS))
    for i in range(_ROWS):
      row = _features([leaf[i : i + 1] for leaf in _rows(0, 1)], self.records)
      history = candidate_features.append_rows(
        history, jnp.int32(i), row, _SAMPLES
      )
    for name, a, b in zip(
      (*candidate_features.RowFeatures._fields, 'inverse', 'whitened'),
      jax.tree.leaves(history),
      jax.tree.leaves(self.history),
      strict=True,
    ):
      np.testing.assert_allclose(a, b, atol=1e-9, err_msg=name)

  def test_masked_later_rows_change_nothing(self):
    row_mask = jnp.array(self.active.row_mask & (np.arange(_ROWS) < 5))
    changed = self.active._replace(
      outcomes=self.active.outcomes.at[5:].set(100.0),
      fractions=self.active.fractions.at[5:].set(0.123),
    )
    history = candidate_features.append_rows(
      candidate_features.empty_history(_ROWS, _SIZE, len(_POINTS)),
      jnp.int32(0),
      changed,
      _SAMPLES,
    )
    points = jnp.array(_POINTS)
    for partial in _PARTIALS:
      expected = candidate_features.candidate_features(
        self.records, row_mask, self.history, points, partial, _SAMPLES
      )
      actual = candidate_features.candidate_features(
        self.records, row_mask, history, points, partial, _SAMPLES
      )
      jax.tree.map(np.testing.assert_array_equal, actual, expected)

  def test_number_of_features(self):
    of_each, alone = candidate_features.candidate_features(
      self.records,
      self.active.row_mask,
      self.history,
      jnp.array(_POINTS),
      _PARTIALS[0],
      _SAMPLES,
    )
    self.assertEqual(
      of_each.shape, (_SIZE, len(_POINTS), candidate_features.NUM_FEATURES)
    )
    self.assertEqual(alone.shape, (candidate_features.NUM_FEATURES,))

  def test_single_precision_is_close(self):
    """Tests the worst case that matters: many rows at nearly one position."""
    n = 40
    rng = np.random.default_rng(2)
    fractions = np.full((n, 1), 0.4) + 1e-3 * rng.random((n, 1))
    y = 3.0 + 0.01 * rng.normal(size=n)

    @jax.jit
    def features():
      rows = candidate_features.row_features(
        jnp.ones(n, bool),
        jnp.array(y),
        jnp.ones((n, 1), bool),
        jnp.array(fractions),
        jnp.array(_POINTS),
      )
      history = candidate_features.append_rows(
        candidate_features.empty_history(n, 1, len(_POINTS)),
        jnp.int32(0),
        rows,
        samples=jnp.float32(1000),
      )
      nothing = action_distribution.empty_intervention(1)
      return candidate_features.candidate_features(
        candidate_features.fit_records(rows, jnp.zeros(1, bool)),
        rows.row_mask,
        history,
        jnp.array(_POINTS),
        nothing,
        samples=jnp.float32(1000),
      )[0]

    with jax.enable_x64(False):
      single = features()
    self.assertEqual(single.dtype, jnp.float32)
    np.testing.assert_allclose(single, features(), atol=0.02)


if __name__ == '__main__':
  absltest.main()
