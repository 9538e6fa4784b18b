"""Predictions of E[Y | do] from the experiments of a study.

Each set of variables that was intervened on has a Gaussian process of its own;
their hyperparameters are shared, and predictions are averaged over samples of
them. Before any experiment on a set, its interventions are expected to do
nothing, give or take the amplitude of the processes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from scipy import special

from acme_cbo.infra import compilation
from acme_cbo.policies.baselines import gaussian_processes as gp
from acme_cbo.study import padding
from acme_cbo.study import state as state_lib

# Probability that an interval contains what it is of.
COVERAGE = 0.9
# Factor of the standard deviations of E[Y | do], by which the intervals of
# simulated studies attain their coverage.
_STRETCH = 1.2
# Mode of the prior: length scale, in shares of a domain, and amplitude and
# noise, in deviations of the target. A few outcomes tell little of the noise;
# these values are those that predicted simulated studies best.
_LENGTH = 0.3
_AMPLITUDE = 1.5
_NOISE = 0.7
_DEVIATION = gp.Parameters(length=1.0, amplitude=1.0, noise=0.75)
# The model is fitted to the latest of more experiments; its time is cubic.
_MAX_EXPERIMENTS = 500
# Distance, in shares of domains, that leaves no correlation: length scales are
# at most 1e3.
_APART = 1e6


class Prediction(NamedTuple):
  """Prediction of the target under an intervention, in its own units.

  Attributes:
    mean: expected target.
    deviation: standard deviation of the expected target.
    noise: standard deviation of an outcome around the expected target.
  """

  mean: float
  deviation: float
  noise: float

  @property
  def interval(self) -> tuple[float, float]:
    """Interval of the expected target, of the coverage `COVERAGE`."""
    return self._interval(self.deviation)

  @property
  def outcome_interval(self) -> tuple[float, float]:
    """Interval of the next outcome, of the coverage `COVERAGE`."""
    return self._interval(float(np.hypot(self.deviation, self.noise)))

  def _interval(self, deviation):
    half = float(special.ndtri((1 + COVERAGE) / 2) * deviation)
    return self.mean - half, self.mean + half


class Model:
  """Model of E[Y | do], fitted to the experiments of a study.

  Attributes:
    scale: standard deviation of the target without interventions, or of its
      outcomes.
  """

  def __init__(self, state: state_lib.State):
    """Fits the model.

    Args:
      state: state of the study, with an experiment or two records.
    """
    self._state = state
    self._sets: dict[frozenset[str], int] = {}
    settings = state.settings
    column = settings.columns.index(settings.target)
    passive = state.records[:, column]
    observed = state.observed[-_MAX_EXPERIMENTS:]
    outcomes = np.array([one.outcome[settings.target] for one in observed])
    basis = passive if len(passive) >= 2 else np.append(passive, outcomes)
    self._location = float(np.mean(basis))
    # The target may be constant as long as nothing is set. Where it has had one
    # value only, nobody knows on what scale it varies: on that of the value.
    self.scale = next(
      (
        float(np.std(values, ddof=1))
        for values in (basis, outcomes)
        if len(values) > 1
        and np.ptp(values) > 1e-9 * max(abs(self._location), 1e-300)
      ),
      abs(self._location) or 1.0,
    )
    self._passive = passive
    number = len(state.space.variables)
    self._columns = np.arange(_size(number)) < number
    points = self._points([one.do for one in observed])
    size = _size(len(observed))
    self._data = gp.Data(
      gp.Points(*(padding.rows(leaf, size) for leaf in points)),
      padding.rows((outcomes - self._location) / self.scale, size),
      np.arange(size) < len(observed),
    )
    prior = gp.prior_mode(self._columns, _LENGTH)._replace(
      amplitude=np.log(_AMPLITUDE), noise=np.log(_NOISE)
    )
    prior = jax.tree.map(np.asarray, prior)
    arguments = self._columns, self._data, prior
    with jax.enable_x64(True):
      programs = _fitting_programs(*arguments)
      mode = gp.fit(*arguments, programs=programs)
      self._samples = gp.sample(*arguments, mode, programs)

  def predict(
    self, interventions: Sequence[Mapping[str, float]]
  ) -> list[Prediction]:
    """Predicts the target under interventions.

    Args:
      interventions: {variable: value} of each.

    Returns:
      A `Prediction` of each.
    """
    weights, means, covariances = self.joint(interventions)
    variances = np.diagonal(covariances, axis1=1, axis2=2)
    mean = weights @ means
    variance = weights @ (variances + (means - mean) ** 2)
    noise = np.sqrt(weights @ np.exp(2 * self._samples.parameters.noise))
    return [
      Prediction(
        float(mean[i]),
        float(np.sqrt(max(variance[i], 0.0))),
        self.scale * float(noise),
      )
      for i in range(len(interventions))
    ]

  def joint(
    self, interventions: Sequence[Mapping[str, float]]
  ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Predicts expected targets jointly.

    Args:
      interventions: P interventions, {variable: value}.

    Returns:
      [K] weights of the samples of the hyperparameters, [K, P] expected targets
      and [K, P, P] their covariances, in the target's own units.
    """
    size = _size(len(interventions))
    points = gp.Points(
      *(padding.rows(leaf, size) for leaf in self._points(interventions))
    )
    arguments = self._samples.parameters, self._columns, self._data, points
    with jax.enable_x64(True):
      predict = _stored(
        'predict',
        lambda: iter([('predict', _predict_jointly.trace(*arguments))]),
        [self._columns.size, self._data.row_mask.size, size],
      )['predict']
      means, covariances = map(np.asarray, predict(*arguments))
    used = slice(len(interventions))
    return (
      np.exp(self._samples.log_weight),
      self._location + self.scale * means[:, used],
      (_STRETCH * self.scale) ** 2 * covariances[:, used, used],
    )

  def predict_nothing(self) -> Prediction | None:
    """Predicts the target under no intervention, from the passive records.

    None if there are fewer than two.
    """
    n = len(self._passive)
    if n < 2:
      return None
    deviation = float(np.std(self._passive, ddof=1))
    # Student's distribution, expressed by the normal one's quantile.
    share = (1 + COVERAGE) / 2
    widening = special.stdtrit(n - 1, share) / special.ndtri(share)
    return Prediction(
      float(np.mean(self._passive)),
      float(widening * deviation / np.sqrt(n)),
      deviation,
    )

  def _points(self, interventions) -> gp.Points:
    variables = self._state.space.variables
    inputs = np.zeros((len(interventions), self._columns.size))
    for i, do in enumerate(interventions):
      group = self._sets.setdefault(frozenset(do), len(self._sets))
      inputs[i] = _APART * group
      for j, (name, one) in enumerate(variables.items()):
        if name in do:
          inputs[i, j] += (do[name] - one.low) / (one.high - one.low)
    zeros = np.zeros(len(interventions))
    return gp.Points(inputs, zeros, zeros)


@jax.jit
def _predict_jointly(parameters, columns, data, points):
  """Returns [K, P] means and [K, P, P] covariances."""

  def of_one(one):
    return gp.predict_jointly(gp.process(one, columns, data), data, points)

  return jax.vmap(of_one)(parameters)


def _fitting_programs(columns, data, prior) -> gp.Programs:
  return gp.Programs(
    **_stored(
      'fit',
      lambda: gp.programs_for(_DEVIATION).trace(columns, data, prior),
      [columns.size, data.row_mask.size],
    )
  )


def _stored(name, trace, sizes) -> dict[str, Any]:
  """Returns programs, traced once for each of a few sizes and kept on disk."""
  key = name, *sizes
  if key not in _programs:
    _programs[key] = compilation.load_or_compile(
      ['study', *key],
      jax.local_devices()[:1],
      trace,
      lambda: None,
      compilation.quick_options(few_runs=True),
    )
  return _programs[key]


_programs: dict[Any, dict[str, Any]] = {}


def _size(number: int) -> int:
  """Returns the number that rows, points or columns are padded to."""
  # Few sizes where they cost little: each is compiled.
  return padding.size(number, 4 if number <= 128 else 2)
