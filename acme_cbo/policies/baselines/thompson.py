"""Thompson sampling over linear SCMs of unknown graph.

Thompson, "On the Likelihood that One Unknown Probability Exceeds Another in
View of the Evidence of Two Samples" (1933): each step draws a model from the
posterior and makes the intervention that is best in this model. The posterior
over graphs, weights and noise is that of `exact_posterior`.
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

# Number of models that a recommendation averages over.
_NUM_DRAWS = 128
# Prior of `exact_posterior`: number of rows that its mean is worth, scale of
# its matrix, and degrees of freedom of a variable without parents.
_MEAN_ROWS, _SCALE, _FREEDOM = 1.0, 0.5, 3.0


class LinearModel(NamedTuple):
  """A linear SCM, `u_j = constant_j + weights_j . u + noise_j`.

  Values are in the normalized units of the belief.

  Attributes:
    weights: [D, D] weights; row j belongs to the equation of variable j.
    constant: [D] constants.
    variance: [D] variances of the noise.
  """

  weights: np.ndarray
  constant: np.ndarray
  variance: np.ndarray


class _Memory(NamedTuple):
  """The problem and the belief about its existing variables.

  Attributes:
    problem: problem with all columns, as numpy arrays.
    kept: [D'] indices of the columns that exist.
    belief: state of the exact belief about these columns.
    spent: cost of all interventions so far.
  """

  problem: types.Problem
  kept: np.ndarray
  belief: Any
  spent: float


def posterior_thompson() -> base.PolicyFunctions:
  """Returns a policy that samples from the exact posterior over linear SCMs.

  Each step draws an SCM, including its graph, and makes the best intervention
  in it. The SCM is linear with normal noise in the normalized units of the
  belief and has no latent variables, so that the best values are ends of the
  domains. Ties between sets are broken at random. An outcome counts as one row,
  even if it averages many draws. At most 8 variables are supported. Once the
  budget affords no set, interventions are empty.

  Returns:
    The policy. It recommends the intervention with the largest mean of
    E[Y | do] over 128 posterior draws.
  """
  return base.PolicyFunctions(
    init=_init, choose=_choose, observe=_observe, recommend=_recommend
  )


def unsupported_reason(problem: types.Problem) -> str:
  """Returns why `posterior_thompson` does not support a problem, or ''."""
  number = int(np.asarray(problem.exists).sum())
  if number <= exact_posterior.MAX_VARIABLES:
    return ''
  return (
    f'{number} variables; the exact posterior supports at most '
    f'{exact_posterior.MAX_VARIABLES}'
  )


def _init(problem, observations, num_interventions):
  del num_interventions
  observations = search.check_observations(observations)
  problem = jax.tree.map(np.asarray, problem)
  reason = unsupported_reason(problem)
  if reason:
    raise errors.UsageError(reason)
  kept = np.flatnonzero(problem.exists)
  belief = beliefs.exact().init(
    _columns(problem, kept), jnp.asarray(observations[:, kept]), None
  )
  return _Memory(problem, kept, belief, spent=0.0)


def _columns(problem, kept):
  """Returns the problem restricted to some columns, without known edges."""
  problem = problem._replace(edges=None, levels=None)
  return jax.tree.map(
    lambda leaf: jnp.asarray(leaf[..., kept] if leaf.ndim else leaf), problem
  )


def _choose(key, memory):
  rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
  problem = memory.problem
  sets = _affordable(problem, memory.spent)
  if not sets:
    return _intervention(problem, np.zeros_like(problem.exists), problem.low)
  return _best(rng, memory, sets, sample_models(rng, *_posterior(memory), 1))


def _recommend(memory):
  rng = np.random.default_rng(0)
  problem = memory.problem
  models = sample_models(rng, *_posterior(memory), _NUM_DRAWS)
  return _best(rng, memory, _affordable(problem, 0.0), models)


def _affordable(problem, spent):
  """Returns the sets that the budget still affords, [D] bool each."""
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
  """Returns the evidence, and the log scores of all parent sets."""
  evidence = jax.tree.map(np.asarray, memory.belief.evidence)
  scores = _scores(memory.belief.evidence, memory.belief.problem.exists)
  return evidence, np.asarray(scores)


_scores = jax.jit(exact_posterior.log_scores)


def sample_models(
  rng: np.random.Generator,
  evidence: exact_posterior.Evidence,
  scores: np.ndarray,
  num_draws: int,
) -> list[LinearModel]:
  """Samples linear models from the posterior.

  Args:
    rng: random generator; its state advances.
    evidence: evidence about D variables.
    scores: [D, P] from `exact_posterior.log_scores`.
    num_draws: number of models.

  Returns:
    Models. Graphs are from `sample_graphs`. Weights and noise are from their
    posterior given the graph, under the conjugate normal-Wishart prior of BGe
    (Geiger and Heckerman, 2002).
  """
  graphs = sample_graphs(rng, scores, num_draws)
  return [_sample_equations(rng, evidence, parents) for parents in graphs]


def _sample_equations(rng, evidence, parents):
  """Samples weights, constants and noise variances, given the graph."""
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
    among_causes, with_j = matrix[np.ix_(causes, causes)], matrix[causes, j]
    slope = np.linalg.solve(among_causes, with_j)
    residual = matrix[j, j] - with_j @ slope
    freedom = count + causes.size + _FREEDOM
    variance[j] = residual / rng.chisquare(freedom)
    # The covariance of the slopes is `variance * inv(among_causes)`.
    root = np.linalg.cholesky(np.linalg.inv(among_causes))
    deviation = np.sqrt(variance[j])
    slope = slope + deviation * root @ rng.normal(size=causes.size)
    weights[j, causes] = slope
    center = mean[j] - mean[causes] @ slope
    constant[j] = center + deviation / np.sqrt(rows) * rng.normal()
  return LinearModel(weights, constant, variance)


def sample_graphs(
  rng: np.random.Generator, scores: np.ndarray, num_draws: int
) -> np.ndarray:
  """Samples graphs from the exact posterior.

  An order of the variables is drawn from the last to the first, in proportion
  to the weight of all graphs that are consistent with it (Koivisto and Sood,
  2004). The parents of each variable are then drawn from those before it.

  Args:
    rng: random generator; its state advances.
    scores: [D, P] from `exact_posterior.log_scores`.
    num_draws: number of graphs.

  Returns:
    [num_draws, D, D] bool, `[j, i]` where i is a parent of j.
  """
  num_variables = len(scores)
  members = exact_posterior.parent_sets(num_variables)  # [D, P, D]
  number = members @ (1 << np.arange(num_variables))  # [D, P]

  def within(j, before):
    """Returns [P] bool, the parent sets of j within the variables before it."""
    return (number[j] & ~before) == 0

  # `first`: log weight of all orders of a set that comes first. `last`: members
  # of each set, and the probability of each to be last in its order.
  first = np.zeros(1 << num_variables)
  last = {}
  for chosen in range(1, 1 << num_variables):
    variables = [j for j in range(num_variables) if chosen >> j & 1]
    others = [chosen ^ (1 << j) for j in variables]
    terms = np.array(
      [
        first[other] + np.logaddexp.reduce(scores[j][within(j, other)])
        for j, other in zip(variables, others, strict=True)
      ]
    )
    first[chosen] = np.logaddexp.reduce(terms)
    last[chosen] = variables, np.exp(terms - first[chosen])
  parents = np.zeros((num_draws, num_variables, num_variables), bool)
  for graph in parents:
    remaining = (1 << num_variables) - 1
    while remaining:
      variables, probabilities = last[remaining]
      j = rng.choice(variables, p=probabilities / probabilities.sum())
      remaining ^= 1 << j
      possible = np.flatnonzero(within(j, remaining))
      probabilities = special.softmax(scores[j][possible])
      graph[j] = members[j, rng.choice(possible, p=probabilities)]
  return parents


def expected_target(
  model: LinearModel, mask: np.ndarray, target: int
) -> tuple[float, np.ndarray]:
  """Computes E[Y | do] as a linear function of the values of an intervention.

  Args:
    model: linear model of D variables.
    mask: [D] bool, the variables that are intervened on.
    target: column of Y.

  Returns:
    The constant, and [D] slopes, 0 for variables that are not intervened on.
  """
  weights = np.where(mask[:, None], 0.0, model.weights)
  system = np.eye(mask.size) - weights
  effects = np.linalg.solve(system.T, np.eye(mask.size)[target])
  return effects @ np.where(mask, 0.0, model.constant), effects * mask


def _best(rng, memory, sets, models):
  """Returns the intervention with the best mean over models."""
  problem, kept = memory.problem, memory.kept
  goal = float(problem.goal)
  target = int(np.argmax(problem.target[kept]))
  ends = [
    np.asarray(
      normalization.asinh_normalize(memory.belief.units, jnp.asarray(end[kept]))
    )
    for end in (problem.low, problem.high)
  ]

  def evaluate(row):
    effects = [expected_target(model, row[kept], target) for model in models]
    constant = np.mean([constant for constant, _ in effects])
    slopes = goal * np.mean([slopes for _, slopes in effects], 0)
    # Ties between the ends are broken at random.
    coin = rng.random(slopes.size) < 0.5
    high = (slopes > 0) | ((slopes == 0) & coin)
    return goal * constant + slopes @ np.where(high, ends[1], ends[0]), high

  results = [evaluate(row) for row in sets]
  outcomes = np.array([outcome for outcome, _ in results])
  chosen = rng.choice(np.flatnonzero(outcomes == outcomes.max()))
  high = np.zeros_like(problem.exists)
  high[kept] = results[chosen][1]
  values = np.where(high, problem.high, problem.low)
  return _intervention(problem, sets[chosen], values)


def _intervention(problem, mask, values):
  values = np.where(mask, values, np.zeros_like(problem.low))
  return types.Intervention(jnp.asarray(mask), jnp.asarray(values))
