"""Predicts E[Y | do] from observational data and the true graph.

This is the prior of Aglietti et al., "Causal Bayesian Optimization" (2020),
section 3.2. Each variable is regressed by a Gaussian process on the variables
that `identification.factorize` gives; samples are propagated through the
regressions under do().

  S  samples, D variables, N observational rows, C candidates

Values are standardized by the observations.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats
from scipy.stats import qmc

from acme_cbo.policies.baselines import gaussian_processes as gp
from acme_cbo.policies.baselines import identification

# Roles of a variable when samples are propagated.
_UNUSED, _SAMPLED, _REGRESSED = 0, 1, 2
# Rows beyond this number are ignored: the cost is quadratic in the number.
_MAX_ROWS = 200
# Prior length scale of a regression, in standard deviations of the regressors.
_LENGTH = 1.0
# Candidates that are evaluated at once.
_CHUNK = 16


class Regressions(NamedTuple):
  """Regressions of all variables on observational data.

  Attributes:
    order: int32, the target and its ancestors, causes first.
    component: [D, D] bool, see `identification.Factorization`.
    processes: Gaussian process at the data of each variable, with a leading
      axis D.
    data: data of each process, with a leading axis D.
    noise: [D] standard deviations of the noise.
    marginal: [S, D] samples of the variables without regressors: quantiles of
      the observations.
    normal: [S, D] standard normal samples.
    target: [] int32, index of the target.
  """

  order: jax.Array
  component: jax.Array
  processes: Any
  data: gp.Data
  noise: jax.Array
  marginal: jax.Array
  normal: jax.Array
  target: jax.Array


def fit(
  factors: identification.Factorization,
  target: int,
  observations: np.ndarray,
  num_draws: int,
) -> Regressions:
  """Regresses each variable on its regressors.

  Args:
    factors: factorization for the target.
    target: column of the target.
    observations: [N, D] standardized observations; the first 200 rows are used.
    num_draws: S, a power of 2.

  Returns:
    The regressions.
  """
  rows = observations[:_MAX_ROWS]
  num_rows, num_variables = rows.shape
  given = np.zeros((num_variables, num_variables), bool)
  component = np.zeros((num_variables, num_variables), bool)
  for j in factors.order:
    given[j, list(factors.given[j])] = True
    component[j, list(factors.component[j])] = True
  data = [
    gp.Data(
      gp.Points(rows, np.zeros(num_rows), np.zeros(num_rows)),
      outputs=rows[:, j],
      row_mask=np.ones(num_rows, bool),
    )
    for j in range(num_variables)
  ]
  priors = [gp.prior_mode(row, _LENGTH) for row in given]
  parameters = [
    gp.fit(given[j], data[j], priors[j]) if given[j].any() else priors[j]
    for j in range(num_variables)
  ]

  def stacked(trees):
    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)

  # The same samples at every call, so that predictions are smooth in the values
  # of the intervention.
  level = qmc.Sobol(2 * num_variables, rng=0).random(num_draws)
  marginal = [
    np.quantile(rows[:, j], level[:, j]) for j in range(num_variables)
  ]
  return Regressions(
    order=jnp.asarray(factors.order),
    component=jnp.asarray(component),
    processes=_processes(stacked(parameters), given, stacked(data)),
    data=jax.tree.map(jnp.asarray, stacked(data)),
    noise=jnp.asarray(np.exp([p.noise for p in parameters])),
    marginal=jnp.asarray(np.stack(marginal, 1)),
    normal=jnp.asarray(stats.norm.ppf(level[:, num_variables:])),
    target=jnp.asarray(target),
  )


_processes = jax.jit(jax.vmap(gp.process))


def roles(
  factors: identification.Factorization, target: int, mask: np.ndarray
) -> np.ndarray:
  """Returns how each variable takes part in predicting the target under do().

  Args:
    factors: factorization for the target.
    target: column of the target.
    mask: [D] bool, the variables that are intervened on.

  Returns:
    [D] int32: 0 where the variable is not needed, 1 where it has no regressors
    and is sampled from the observations, 2 where it is regressed.
  """
  role = np.full(mask.shape, _UNUSED, np.int32)
  needed = {target}
  for j in reversed(factors.order):
    if j in needed:
      role[j] = _REGRESSED if factors.given[j] else _SAMPLED
      needed |= {
        i for i in factors.given[j] if not mask[i] or i in factors.component[j]
      }
  return role


def predict(
  regressions: Regressions,
  mask: jax.Array,
  role: jax.Array,
  values: jax.Array,
) -> tuple[jax.Array, jax.Array]:
  """Predicts mean and standard deviation of the target under do().

  Args:
    regressions: result of `fit`.
    mask: [D] bool, the variables that are intervened on.
    role: [D] int32, result of `roles`.
    values: [C, D] values of the interventions; used where the mask is True.

  Returns:
    [C] means and [C] standard deviations, including noise.
  """

  def propagate(candidate):
    return _propagate(regressions, mask, role, candidate)

  return jax.lax.map(propagate, values, batch_size=min(_CHUNK, values.shape[0]))


def _propagate(regressions, mask, role, values):
  """Predicts [] mean and [] standard deviation for one candidate."""
  num_draws, num_variables = regressions.marginal.shape
  variables = jnp.arange(num_variables)
  zeros = jnp.zeros(num_draws)

  def unused(j, u):
    del j, u
    return zeros, zeros

  def sampled(j, u):
    del u
    return regressions.marginal[:, j], zeros

  def regressed(j, u):
    natural = regressions.component[j] | ~mask
    at_data, data = jax.tree.map(
      lambda leaf: leaf[j], (regressions.processes, regressions.data)
    )
    points = gp.Points(jnp.where(natural, u, values), zeros, zeros)
    mean, deviation = gp.predict(at_data, data, points)
    return mean, jnp.hypot(deviation, regressions.noise[j])

  def evaluate(u, j):
    mean, deviation = jax.lax.switch(
      role[j], (unused, sampled, regressed), j, u
    )
    value = mean + deviation * regressions.normal[:, j]
    u = jnp.where(variables == j, value[:, None], u)
    return u, (mean, deviation)

  start = jnp.zeros((num_draws, num_variables))
  _, (mean, deviation) = jax.lax.scan(evaluate, start, regressions.order)
  is_target = (regressions.order == regressions.target)[:, None]
  mean = jnp.where(is_target, mean, 0.0).sum(0)  # [S]
  variance = jnp.where(is_target, jnp.square(deviation), 0.0).sum(0)
  return mean.mean(), jnp.sqrt(variance.mean() + mean.var())
