"""Exact posterior over parent sets of linear SCMs with normal noise.

The score of a parent set is BGe (Geiger and Heckerman, "Parameter Priors for
Directed Acyclic Graphical Models", 2002; corrected as in Kuipers, Moffa and
Heckerman, "Addendum on the Scoring of Gaussian Directed Acyclic Graphical
Models", 2014). Rows in which a variable was set carry no information about its
causes and are excluded from its own score (Cooper and Yoo, 1999). Graphs are
summed over orders of the variables, by dynamic programming over their subsets
(Koivisto and Sood, "Exact Bayesian Structure Discovery in Bayesian Networks",
2004), so the prior of a graph is proportional to the number of its topological
orders. The prior of a parent set is uniform over the number of parents, and
over the sets of each size (Friedman and Koller, 2003).

Each variable has P = 2^(D-1) possible parent sets. Set p of variable j contains
the k-th of the other variables if bit k of p is set.

In 32 bits, log odds are accurate to .02 for 34 rows and to .1 for 100 rows; the
error is largest for nearly collinear data.

No function calls LAPACK: the determinants of all submatrices of a matrix are
computed by one recursion over Schur complements.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import gammaln
import numpy as np

MAX_VARIABLES = 8

# Normal-Wishart prior: the number of rows that its mean is worth, and the
# degrees of freedom of the Wishart in excess of the minimum, D + 1.
_MEAN_ROWS = 1.0
_FREEDOM = 1.0
# Log probability of impossible sets: sums and differences of it are finite.
_IMPOSSIBLE = -1e30


class Evidence(NamedTuple):
  """Sufficient statistics of each variable's equation.

  The equation of a variable counts the rows in which it was not set.

  Attributes:
    count: [D] number of rows.
    total: [D, D] sum of the rows; the first axis indexes the equation.
    scatter: [D, D, D] sum of the outer products of the rows; the first axis
      indexes the equation.
  """

  count: jax.Array
  total: jax.Array
  scatter: jax.Array


def empty_evidence(num_variables: int) -> Evidence:
  """Returns the statistics of zero rows."""
  square = (num_variables, num_variables)
  return Evidence(
    count=jnp.zeros(num_variables),
    total=jnp.zeros(square),
    scatter=jnp.zeros((num_variables, *square)),
  )


def add_rows(
  evidence: Evidence, rows: jax.Array, intervened: jax.Array
) -> Evidence:
  """Adds rows to the evidence.

  Args:
    evidence: evidence so far.
    rows: [N, D] values, normalized to a magnitude of about 1.
    intervened: [N, D] bool, variables set in each row.

  Returns:
    The updated evidence.
  """
  counted = (~intervened).astype(rows.dtype)
  return Evidence(
    count=evidence.count + counted.sum(0),
    total=evidence.total + jnp.einsum('nj,na->ja', counted, rows),
    scatter=evidence.scatter + jnp.einsum('nj,na,nb->jab', counted, rows, rows),
  )


def log_scores(evidence: Evidence, exists: jax.Array) -> jax.Array:
  """Computes log marginal likelihood plus log prior of each parent set.

  Args:
    evidence: evidence of D variables.
    exists: [D] bool, False where a variable is padding.

  Returns:
    [D, P] log scores; -1e30 where the set contains padding, or where the
    variable is padding and the set is not empty.
  """
  num_variables = exists.size
  sets = _sets(num_variables)
  size = jnp.arange(num_variables)  # Possible sizes of a parent set.
  num_existing = exists.sum()
  count = evidence.count[:, None]
  scale = _MEAN_ROWS * _FREEDOM / (_MEAN_ROWS + 1)

  log_minor, log_variance = _minors(_posterior_scatter(evidence, scale))
  # Degrees of freedom of the prior given a set, minus 1.
  freedom = _FREEDOM + 1 + size
  size_terms = (
    0.5 * jnp.log(_MEAN_ROWS / (count + _MEAN_ROWS))
    - 0.5 * count * jnp.log(jnp.pi)
    + gammaln((count + freedom + 1) / 2)
    - gammaln((freedom + 1) / 2)
    + (freedom + size + 1) / 2 * jnp.log(scale)
    + _log_prior(size, num_existing)
  )
  # Without the barrier XLA evaluates the gamma function for each of the P sets.
  size_terms = jax.lax.optimization_barrier(size_terms)[:, sets.size]
  degrees = count + freedom[sets.size]
  score = size_terms - 0.5 * log_minor - (degrees + 1) / 2 * log_variance

  absent = (~exists << np.arange(num_variables)).sum()
  possible = (sets.members & absent) == 0
  possible &= exists[:, None] | (sets.size == 0)
  return jnp.where(possible, score, _IMPOSSIBLE)


def log_posterior(scores: jax.Array) -> jax.Array:
  """Computes the log probability of each parent set of each variable.

  Args:
    scores: [D, P] log scores from `log_scores`.

  Returns:
    [D, P] log probabilities; the probabilities of a variable sum to 1.
  """
  tables = _sets(scores.shape[0])
  # Log weight of a variable whose parents are among a set: [D * P].
  among = _sum_over_subsets(scores).ravel()
  # Log weights summed over all orders of the variables of a set that precede
  # the rest (`first`), and over all orders of the rest that follow the set
  # (`after`). Both list sets by size.
  first, after = [jnp.zeros(1)], [jnp.zeros(1)]
  for level in tables.levels[1:]:
    terms = among[level.last_in] + first[-1][level.without]
    first.append(jax.nn.logsumexp(terms, -1))
  for level in tables.levels[-2::-1]:
    terms = among[level.next_in] + after[-1][level.with_next]
    after.append(jax.nn.logsumexp(terms, -1))
  total = first[-1][0]
  first, after = jnp.concatenate(first), jnp.concatenate(after[::-1])
  # Log weight of all orders in which exactly a set precedes the variable.
  before = first[tables.position] + after[tables.position_with]
  return scores + _sum_over_subsets(before[:, ::-1])[:, ::-1] - total


def parent_sets(num_variables: int) -> np.ndarray:
  """Returns the members of all parent sets: [D, P, D] bool, set p of j."""
  members = _sets(num_variables).members[..., None]
  return (members >> np.arange(num_variables) & 1).astype(bool)


def set_index(parents: jax.Array) -> jax.Array:
  """Returns the index of a parent set of each variable.

  Args:
    parents: [D, D] bool, `[j, i]` is True if i is a parent of j; False for
      i = j.

  Returns:
    [D] int32 in 0 .. P - 1.
  """
  num_variables = parents.shape[0]
  others = _sets(num_variables).others
  among_others = jnp.take_along_axis(parents, others, 1)
  return (among_others << np.arange(num_variables - 1)).sum(1)


class _Level(NamedTuple):
  """Index tables of the M sets of one size, for the recursions over orders.

  Attributes:
    last_in: [M, size] index into `among` of the weight of each member, if the
      other members precede it.
    without: [M, size] index, within the sets of size - 1, of the set without
      that member.
    next_in: [M, D - size] index into `among` of the weight of each nonmember,
      if the set precedes it.
    with_next: [M, D - size] index, within the sets of size + 1, of the set with
      that nonmember.
  """

  last_in: np.ndarray
  without: np.ndarray
  next_in: np.ndarray
  with_next: np.ndarray


class _Sets(NamedTuple):
  """Index tables of the sets of D variables, represented as D-bit integers.

  Attributes:
    others: [D, D - 1] all variables except that of the first axis.
    size: [P] number of variables in each parent set.
    members: [D, P] each parent set as a D-bit integer.
    levels: tables of all sets, by size from 0 to D.
    position: [D, P] position of each parent set among all sets sorted by size.
    position_with: [D, P] position of the parent set together with its variable.
  """

  others: np.ndarray
  size: np.ndarray
  members: np.ndarray
  levels: tuple[_Level, ...]
  position: np.ndarray
  position_with: np.ndarray


@functools.cache
def _sets(num_variables: int) -> _Sets:
  if num_variables > MAX_VARIABLES:
    raise ValueError(
      'the exact belief sums over all subsets of the variables and supports at '
      f'most {MAX_VARIABLES}, got {num_variables}'
    )
  variables = np.arange(num_variables)
  num_sets = 1 << (num_variables - 1)
  others = np.array([np.delete(variables, j) for j in variables])
  bits = np.arange(num_sets)[:, None] >> variables[:-1] & 1  # [P, D - 1]
  members = (bits << others[:, None]).sum(-1)
  # Index of a parent set, given the variable and the set as an integer.
  index = np.zeros((num_variables, 2 * num_sets), int)
  np.put_along_axis(index, members, np.arange(num_sets)[None], 1)

  all_sets = np.arange(2 * num_sets)
  count = (all_sets[:, None] >> variables & 1).sum(1)
  by_size = np.argsort(count, kind='stable')
  position = np.argsort(by_size, kind='stable')
  start = np.searchsorted(count[by_size], np.arange(num_variables + 2))

  def level(size):
    sets = by_size[start[size] : start[size + 1], None]
    is_member = (sets >> variables & 1).astype(bool)
    inside = np.nonzero(is_member)[1].reshape(len(sets), size)
    outside = np.nonzero(~is_member)[1].reshape(len(sets), num_variables - size)
    without, with_next = sets ^ (1 << inside), sets | (1 << outside)
    return _Level(
      last_in=inside * num_sets + index[inside, without],
      without=position[without] - start[max(size - 1, 0)],
      next_in=outside * num_sets + index[outside, sets],
      with_next=position[with_next] - start[size + 1],
    )

  tables = _Sets(
    others=others,
    size=bits.sum(1),
    members=members,
    levels=tuple(level(size) for size in range(num_variables + 1)),
    position=position[members],
    position_with=position[members | (1 << variables)[:, None]],
  )
  # Indices are 32-bit integers in either precision.
  return jax.tree.map(lambda table: table.astype(np.int32), tables)


def _posterior_scatter(evidence, scale):
  """Returns the matrix R of Kuipers et al. (2014), section 2, per equation."""
  num_variables = evidence.count.size
  count = evidence.count[:, None, None]
  mean = evidence.total / jnp.maximum(evidence.count, 1)[:, None]
  outer = mean[:, :, None] * mean[:, None, :]
  return (
    scale * jnp.eye(num_variables)
    + evidence.scatter
    - outer * count**2 / (count + _MEAN_ROWS)
  )


def _minors(matrices):
  """Computes log determinants of the submatrices of all parent sets.

  Args:
    matrices: [D, D, D] positive definite matrices, one for each variable.

  Returns:
    [D, P] log determinant of the submatrix of each parent set, and [D, P] log
    Schur complement of the variable's own diagonal entry given the set.
  """
  num_variables = matrices.shape[0]
  variables = np.arange(num_variables)
  # The variable itself comes last.
  order = np.concatenate(
    [_sets(num_variables).others, variables[:, None]], axis=1
  )
  rows = variables[:, None, None], order[:, :, None], order[:, None, :]
  rest = matrices[rows][:, None]  # [D, sets so far, remaining, remaining]
  log_minor = jnp.zeros((num_variables, 1))
  for _ in range(num_variables - 1):
    pivot, column = rest[..., :1, :1], rest[..., 1:, :1]
    rest = rest[..., 1:, 1:]
    complement = rest - column * jnp.swapaxes(column, -1, -2) / pivot
    with_pivot = log_minor + jnp.log(pivot[..., 0, 0])
    log_minor = jnp.concatenate([log_minor, with_pivot], 1)
    rest = jnp.concatenate([rest, complement], 1)
  return log_minor, jnp.log(rest[..., 0, 0])


def _sum_over_subsets(logs):
  """Returns `log sum_{q subset of p} exp(logs[q])` for every p: [D, P]."""
  num_variables, num_sets = logs.shape
  for bit in range(num_variables - 1):
    pairs = logs.reshape(num_variables, -1, 2, 1 << bit)
    without, with_bit = pairs[:, :, 0], pairs[:, :, 1]
    both = jnp.stack([without, jnp.logaddexp(without, with_bit)], 2)
    logs = both.reshape(num_variables, num_sets)
  return logs


def _log_prior(size, num_existing):
  """Returns the log prior of a parent set of a given size.

  The prior is uniform over sizes, and over the sets of each size.

  Args:
    size: [D] sizes.
    num_existing: [] number of variables that are not padding.

  Returns:
    [D] log probabilities.
  """
  others = num_existing - 1
  # Larger sets are excluded by `log_scores`.
  nonmembers = jnp.maximum(others - size, 0)
  return (
    gammaln(size + 1.0)
    + gammaln(nonmembers + 1.0)
    - gammaln(others + 1.0)
    - jnp.log(1.0 * num_existing)
  )
