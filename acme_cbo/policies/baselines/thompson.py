"""Posterior sampling over linear SCMs of unknown graph.

Thompson, "On the Likelihood that One Unknown Probability Exceeds Another in
View of the Evidence of Two Samples" (1933): a model is drawn from the
posterior, and what would be best if it were true is done. The posterior is that
of `beliefs.exact`, over graphs, weights and noise.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

from acme_cbo import types
from acme_cbo.beliefs import belief as beliefs
from acme_cbo.beliefs import exact_posterior
from acme_cbo.environments import normalization
from acme_cbo.infra import errors
from acme_cbo.policies import base
from acme_cbo.policies.baselines import search
from acme_cbo.scms import intervention_sets

# Models over which a recommendation averages.
_DRAWS = 128
# Of the prior that `exact` scores with: rows that its mean is worth, the scale
# of its matrix, and degrees of freedom of a variable without parents.
_MEAN_ROWS, _SCALE, _FREEDOM = 1.0, 0.5, 3.0


class LinearModel(NamedTuple):
  """`u_j = constant_j + weights_j . u + noise`, in units.

  Attributes:
    weights: [D, D]; row j belongs to the equation of variable j.
    constant: [D].
    variance: [D] of the noise.
  """

  weights: np.ndarray
  constant: np.ndarray
  variance: np.ndarray


class _Memory(NamedTuple):
  """The problem and the belief about its existing variables.

  Attributes:
    problem: of numpy arrays, of all columns.
    kept: [D'] the columns that exist.
    belief: state of the exact belief about them.
    spent: what the interventions so far cost.
  """

  problem: types.Problem
  kept: np.ndarray
  belief: Any
  spent: float


def posterior_thompson() -> base.Policy:
  """Draws an SCM from the exact posterior and does what is best in it.

  The SCM is linear with normal noise in the units of the belief, its graph is
  drawn too, and no variable is latent. An outcome that is the mean of many
  draws counts as one row all the same. Up to 8 variables. In a linear SCM the
  best values are ends of the domains. Of sets that do equally well, one is
  drawn. Where no set is left that the budget pays for, nothing is set.

  Returns:
    The policy. It recommends what is best by the mean of E[Y | do] over 128
    draws.
  """
  return base.Policy(
    init=_init, choose=_choose, observe=_observe, recommend=_recommend
  )


def refusal(problem: types.Problem) -> str:
  """Why `posterior_thompson` cannot take a problem; empty where it can."""
  number = int(np.asarray(problem.exists).sum())
  if number <= exact_posterior.MAX_VARIABLES:
    return ''
  return (
    f'{number} variables; the exact posterior is summed over graphs of at '
    f'most {exact_posterior.MAX_VARIABLES}'
  )


def _init(problem, observations, num_interventions):
  del num_interventions
  observations = search.check_observations(observations)
  problem = jax.tree.map(np.asarray, problem)
  reason = refusal(problem)
  if reason:
    raise errors.UsageError(reason)
  kept = np.flatnonzero(problem.exists)
  belief = beliefs.exact().init(
    _columns(problem, kept), jnp.asarray(observations[:, kept]), None
  )
  return _Memory(problem, kept, belief, spent=0.0)


def _columns(problem, kept):
  """The problem of some of its columns."""
  return jax.tree.map(
    lambda leaf: jnp.asarray(leaf[..., kept] if leaf.ndim else leaf), problem
  )


def _choose(key, memory):
  rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
  problem = memory.problem
  sets = _affordable(problem, memory.spent)
  if not sets:
    return _do(problem, np.zeros_like(problem.exists), problem.low)
  return _best(rng, memory, sets, draw(rng, *_posterior(memory), 1))


def _recommend(memory):
  rng = np.random.default_rng(0)
  problem = memory.problem
  models = draw(rng, *_posterior(memory), _DRAWS)
  return _best(rng, memory, _affordable(problem, 0.0), models)


def _affordable(problem, spent):
  """The sets that can still be paid for, [D] bool each."""
  rows = np.asarray(intervention_sets.affordable(problem, spent))
  return [row for row in rows if row.any()]


def _observe(memory, step, intervention, outcome):
  del step
  mask = np.asarray(intervention.mask)
  belief = beliefs.exact().update(
    memory.belief,
    jnp.asarray(mask[memory.kept]),
    jnp.asarray(np.asarray(outcome)[memory.kept]),
    None,
  )
  spent = memory.spent + float(memory.problem.cost[mask].sum())
  return memory._replace(belief=belief, spent=spent)


def _posterior(memory):
  """The evidence, and the log score of each parent set of each variable."""
  evidence = jax.tree.map(np.asarray, memory.belief.evidence)
  scores = _scores(memory.belief.evidence, memory.belief.problem.exists)
  return evidence, np.asarray(scores)


_scores = jax.jit(exact_posterior.log_scores)


def draw(
  rng: np.random.Generator,
  evidence: exact_posterior.Evidence,
  scores: np.ndarray,
  num_draws: int,
) -> list[LinearModel]:
  """Linear models from the posterior.

  Args:
    rng: advanced.
    evidence: of D variables.
    scores: [D, P] from `exact_posterior.log_scores`.
    num_draws: how many.

  Returns:
    Models whose graphs are from `draw_graphs`, and weights and noise from their
    posterior given the graph: BGe's prior of them is the conjugate
    normal-Wishart one (Geiger and Heckerman, 2002).
  """
  graphs = draw_graphs(rng, scores, num_draws)
  return [_equations(rng, evidence, parents) for parents in graphs]


def _equations(rng, evidence, parents):
  num_variables = len(parents)
  weights = np.zeros((num_variables, num_variables))
  constant, variance = np.zeros(num_variables), np.zeros(num_variables)
  for j, row in enumerate(parents):
    causes = np.flatnonzero(row)
    count, total = evidence.count[j], evidence.total[j]
    rows = count + _MEAN_ROWS
    mean = total / rows
    matrix = (
      _SCALE * np.eye(num_variables)
      + evidence.scatter[j]
      - rows * np.outer(mean, mean)
    )
    among, with_j = matrix[np.ix_(causes, causes)], matrix[causes, j]
    slope = np.linalg.solve(among, with_j)
    rest = matrix[j, j] - with_j @ slope
    freedom = count + causes.size + _FREEDOM
    variance[j] = rest / rng.chisquare(freedom)
    # The covariance of the slopes is `variance / among`.
    root = np.linalg.cholesky(np.linalg.inv(among))
    deviation = np.sqrt(variance[j])
    slope = slope + deviation * root @ rng.normal(size=causes.size)
    weights[j, causes] = slope
    centre = mean[j] - mean[causes] @ slope
    constant[j] = centre + deviation / np.sqrt(rows) * rng.normal()
  return LinearModel(weights, constant, variance)


def draw_graphs(
  rng: np.random.Generator, scores: np.ndarray, num_draws: int
) -> np.ndarray:
  """Graphs from the posterior of `exact`.

  An order of the variables is drawn from the last to the first, in proportion
  to the weight of all graphs that agree with it (Koivisto and Sood, 2004), then
  the parents of each among those before it.

  Args:
    rng: advanced.
    scores: [D, P] from `exact_posterior.log_scores`.
    num_draws: how many.

  Returns:
    [num_draws, D, D] bool, `[j, i]` where i is a parent of j.
  """
  num_variables = len(scores)
  members = exact_posterior.parent_sets(num_variables)  # [D, P, D]
  number = members @ (1 << np.arange(num_variables))  # [D, P]

  def within(j, before):
    """Which parent sets of j are among those before it: [P]."""
    return (number[j] & ~before) == 0

  # Log weight of a variable, and of all orders of a set when it comes first.
  first = np.zeros(1 << num_variables)
  last = {}
  for chosen in range(1, 1 << num_variables):
    held = [j for j in range(num_variables) if chosen >> j & 1]
    others = [chosen ^ (1 << j) for j in held]
    terms = np.array(
      [
        first[other] + np.logaddexp.reduce(scores[j][within(j, other)])
        for j, other in zip(held, others, strict=True)
      ]
    )
    first[chosen] = np.logaddexp.reduce(terms)
    last[chosen] = held, np.exp(terms - first[chosen])
  parents = np.zeros((num_draws, num_variables, num_variables), bool)
  for graph in parents:
    left = (1 << num_variables) - 1
    while left:
      held, chances = last[left]
      j = rng.choice(held, p=chances / chances.sum())
      left ^= 1 << j
      possible = np.flatnonzero(within(j, left))
      chances = special.softmax(scores[j][possible])
      graph[j] = members[j, rng.choice(possible, p=chances)]
  return parents


def expected_target(
  model: LinearModel, mask: np.ndarray, target: int
) -> tuple[float, np.ndarray]:
  """E[Y | do] of a set, as a function of what it is set to.

  Args:
    model: of D variables.
    mask: [D] bool, the set.
    target: the column of Y.

  Returns:
    The constant, and [D] slopes, 0 for what is not set.
  """
  kept = np.where(mask[:, None], 0.0, model.weights)
  system = np.eye(mask.size) - kept
  effects = np.linalg.solve(system.T, np.eye(mask.size)[target])
  return effects @ np.where(mask, 0.0, model.constant), effects * mask


def _best(rng, memory, sets, models):
  """The best of some sets and of their values, by the mean over models."""
  problem, kept = memory.problem, memory.kept
  goal = float(problem.goal)
  target = int(np.argmax(problem.target[kept]))
  ends = [
    np.asarray(
      normalization.asinh_normalize(memory.belief.units, jnp.asarray(end[kept]))
    )
    for end in (problem.low, problem.high)
  ]

  def of(row):
    each = [expected_target(model, row[kept], target) for model in models]
    constant = np.mean([one for one, _ in each])
    slopes = goal * np.mean([one for _, one in each], 0)
    # Of an end that makes no difference, either.
    coin = rng.random(slopes.size) < 0.5
    high = (slopes > 0) | ((slopes == 0) & coin)
    return goal * constant + slopes @ np.where(high, ends[1], ends[0]), high

  reached = [of(row) for row in sets]
  outcomes = np.array([outcome for outcome, _ in reached])
  chosen = rng.choice(np.flatnonzero(outcomes == outcomes.max()))
  high = np.zeros_like(problem.exists)
  high[kept] = reached[chosen][1]
  values = np.where(high, problem.high, problem.low)
  return _do(problem, sets[chosen], values)


def _do(problem, mask, values):
  values = np.where(mask, values, np.zeros_like(problem.low))
  return types.Intervention(jnp.asarray(mask), jnp.asarray(values))
