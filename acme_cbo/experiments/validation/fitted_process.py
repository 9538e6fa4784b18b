"""E[Y | do] by Gaussian processes: what the predictions of a policy must beat.

Each set of variables that was intervened on has a process of its own; their
hyperparameters are shared, and predictions are averaged over samples of them.
Before any experiment on a set, its interventions are expected to do nothing,
give or take the amplitude of the processes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import jax
import numpy as np
from scipy import special

from acme_cbo.policies import prediction
from acme_cbo.policies.baselines import gaussian_processes as gp
from acme_cbo.study import padding
from acme_cbo.study import state as state_lib

# Factor of the standard deviations of E[Y | do], by which the intervals of
# simulated studies attain their coverage.
_STRETCH = 1.2
# Mode of the prior: length scale, in shares of a domain, and amplitude and
# noise, in deviations of the target. A few outcomes tell little of the noise;
# these values are those that predicted simulated studies best.
_LENGTH = 0.3
_AMPLITUDE = 1.5
_NOISE = 0.7
_PROGRAMS = gp.programs_for(
  gp.Parameters(length=1.0, amplitude=1.0, noise=0.75)
)
# Distance, in shares of domains, that leaves no correlation: length scales are
# at most 1e3.
_APART = 1e6


class FittedProcess:
  """Model of E[Y | do], fitted to the experiments of a study."""

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
    observed = state.observed
    outcomes = np.array([one.outcome[settings.target] for one in observed])
    basis = passive if len(passive) >= 2 else np.append(passive, outcomes)
    self._location = float(np.mean(basis))
    # The target may be constant as long as nothing is set. Where it has had one
    # value only, nobody knows on what scale it varies: on that of the value.
    self._scale = next(
      (
        float(np.std(values, ddof=1))
        for values in (basis, outcomes)
        if len(values) > 1
        and np.ptp(values) > 1e-9 * max(abs(self._location), 1e-300)
      ),
      abs(self._location) or 1.0,
    )
    number = len(state.space.variables)
    self._columns = np.arange(_size(number)) < number
    points = self._points([one.do for one in observed])
    size = _size(len(observed))
    self._data = gp.Data(
      gp.Points(*(padding.rows(leaf, size) for leaf in points)),
      padding.rows((outcomes - self._location) / self._scale, size),
      np.arange(size) < len(observed),
    )
    prior = gp.prior_mode(self._columns, _LENGTH)._replace(
      amplitude=np.log(_AMPLITUDE), noise=np.log(_NOISE)
    )
    prior = jax.tree.map(np.asarray, prior)
    arguments = self._columns, self._data, prior
    with jax.enable_x64(True):
      mode = gp.fit(*arguments, programs=_PROGRAMS)
      self._samples = gp.sample(*arguments, mode, _PROGRAMS)

  def predict(
    self, interventions: Sequence[Mapping[str, float]]
  ) -> list[prediction.Prediction]:
    """Predicts the target under interventions.

    Args:
      interventions: {variable: value} of each.

    Returns:
      A normal `Prediction` of each.
    """
    size = _size(len(interventions))
    points = gp.Points(
      *(padding.rows(leaf, size) for leaf in self._points(interventions))
    )
    parameters = self._samples.parameters
    with jax.enable_x64(True):
      means, deviations = map(
        np.asarray, _predict(parameters, self._columns, self._data, points)
      )
    weights = np.exp(self._samples.log_weight)
    mean = weights @ means
    variance = _STRETCH**2 * weights @ (deviations**2 + (means - mean) ** 2)
    noise = weights @ np.exp(2 * parameters.noise)
    quantiles = self._scale * special.ndtri(prediction.LEVELS)
    centers = self._location + self._scale * mean
    return [
      prediction.Prediction(
        centers[i],
        centers[i] + quantiles * np.sqrt(variance[i]),
        centers[i] + quantiles * np.sqrt(variance[i] + noise),
      )
      for i in range(len(interventions))
    ]

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
def _predict(parameters, columns, data, points):
  """Returns [K, P] means and [K, P] standard deviations."""
  return jax.vmap(
    lambda one: gp.predict(gp.process(one, columns, data), data, points)
  )(parameters)


def _size(number: int) -> int:
  """Returns the number that rows, points or columns are padded to."""
  # Few sizes where they cost little: each is compiled.
  return padding.size(number, 4 if number <= 128 else 2)
