"""E[Y | do] as observational data and the true graph predict it.

The prior of Aglietti et al., "Causal Bayesian Optimization" (2020), section
3.2. Each variable is regressed on what `identification.factorise` gives it, by
a Gaussian process; draws are propagated through the regressions under do().

  S  draws, D variables, N observational rows, C candidates

Values are standardised by the observations.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats
from scipy.stats import qmc

from acme_cbo.policies.baselines import gaussian_processes as gp
from acme_cbo.policies.baselines import identification

# What becomes of a variable when draws are propagated.
_LEFT, _DRAWN, _REGRESSED = 0, 1, 2
# Rows beyond it are left out: the cost is that of their number, squared.
_MOST_ROWS = 200
# Length scale of a regression, a priori, in deviations of what is regressed on.
_LENGTH = 1.0
# Candidates that are propagated at once.
_CHUNK = 16


class Regressions(NamedTuple):
  """How each variable depends on others, as observed.

  Attributes:
    order: int32, the ancestors of the target and itself, causes first.
    component: [D, D] bool, see `identification.Factorisation`.
    processes: a process at the data for each variable; a leading axis D.
    data: its data; a leading axis D.
    noise: [D] standard deviations.
    drawn: [S, D] values of the variables that are given nothing: quantiles of
      the observations.
    normal: [S, D] standard normal draws.
    target: [] int32.
  """

  order: jax.Array
  component: jax.Array
  processes: Any
  data: gp.Data
  noise: jax.Array
  drawn: jax.Array
  normal: jax.Array
  target: jax.Array


def fit(
  factors: identification.Factorisation,
  target: int,
  observations: np.ndarray,
  num_draws: int,
) -> Regressions:
  """Regresses each variable on what it is given.

  Args:
    factors: of the target.
    target: its column.
    observations: [N, D] standardised; the first 200 rows are used.
    num_draws: S, a power of 2.

  Returns:
    The regressions.
  """
  rows = observations[:_MOST_ROWS]
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
      known=np.ones(num_rows, bool),
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

  # The same at every call: what is predicted is then smooth in what is set.
  level = qmc.Sobol(2 * num_variables, rng=0).random(num_draws)
  drawn = [np.quantile(rows[:, j], level[:, j]) for j in range(num_variables)]
  return Regressions(
    order=jnp.asarray(factors.order),
    component=jnp.asarray(component),
    processes=_processes(stacked(parameters), given, stacked(data)),
    data=jax.tree.map(jnp.asarray, stacked(data)),
    noise=jnp.asarray(np.exp([p.noise for p in parameters])),
    drawn=jnp.asarray(np.stack(drawn, 1)),
    normal=jnp.asarray(stats.norm.ppf(level[:, num_variables:])),
    target=jnp.asarray(target),
  )


_processes = jax.jit(jax.vmap(gp.process))


def roles(
  factors: identification.Factorisation, target: int, mask: np.ndarray
) -> np.ndarray:
  """Which variables have to be propagated to predict the target under do().

  Args:
    factors: of the target.
    target: its column.
    mask: [D] bool, what is set.

  Returns:
    [D] int32: 0 where the variable is left out, 1 where it is given nothing and
    drawn from the observations, 2 where it is regressed.
  """
  role = np.full(mask.shape, _LEFT, np.int32)
  needed = {target}
  for j in reversed(factors.order):
    if j in needed:
      role[j] = _REGRESSED if factors.given[j] else _DRAWN
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
  """Mean and deviation of the target under do().

  Args:
    regressions: from `fit`.
    mask: [D] bool, what is set.
    role: [D] int32, from `roles`.
    values: [C, D] what it is set to; used where the mask is True.

  Returns:
    [C] means and [C] standard deviations, those of the noise included.
  """

  def of_one(set_to):
    return _propagate(regressions, mask, role, set_to)

  return jax.lax.map(of_one, values, batch_size=min(_CHUNK, values.shape[0]))


def _propagate(regressions, mask, role, set_to):
  """Of one candidate: [] mean and [] deviation."""
  num_draws, num_variables = regressions.drawn.shape
  variables = jnp.arange(num_variables)
  no_draws = jnp.zeros(num_draws)

  def left(j, u):
    del j, u
    return no_draws, no_draws

  def drawn(j, u):
    del u
    return regressions.drawn[:, j], no_draws

  def regressed(j, u):
    natural = regressions.component[j] | ~mask
    at_data, data = jax.tree.map(
      lambda leaf: leaf[j], (regressions.processes, regressions.data)
    )
    points = gp.Points(jnp.where(natural, u, set_to), no_draws, no_draws)
    mean, deviation = gp.predict(at_data, data, points)
    return mean, jnp.hypot(deviation, regressions.noise[j])

  def evaluate(u, j):
    mean, deviation = jax.lax.switch(role[j], (left, drawn, regressed), j, u)
    value = mean + deviation * regressions.normal[:, j]
    u = jnp.where(variables == j, value[:, None], u)
    return u, (mean, deviation)

  start = jnp.zeros((num_draws, num_variables))
  _, (mean, deviation) = jax.lax.scan(evaluate, start, regressions.order)
  is_target = (regressions.order == regressions.target)[:, None]
  mean = jnp.where(is_target, mean, 0.0).sum(0)  # [S]
  variance = jnp.where(is_target, jnp.square(deviation), 0.0).sum(0)
  return mean.mean(), jnp.sqrt(variance.mean() + mean.var())
