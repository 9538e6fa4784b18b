"""Fits an SCM to data, given its graph.

Each variable is regressed on its causes, in float64 and in standard deviations
from its mean. The residual is the noise of the variable, which is taken to be
normal. There are two kinds of fits:

`linear`: least squares. With latent variables, the likelihood of a linear SCM
with normal noise is maximized by expectation maximization (Dempster, Laird and
Rubin, 1977); the scale of a latent variable is arbitrary. The effect of a
variable on another is identifiable only if no latent variable causes both
(Brito and Pearl, Structural Equation Modeling 9, 2002); other graphs are
errors.

`features`: a linear part, and random Fourier features of a radial kernel
(Rahimi and Recht, 2007) under a ridge penalty. The length scale and the penalty
are those of `_LENGTH_SCALES` and `_PENALTIES` with the smallest leave-one-out
squared error, whose mean is the variance of the noise. Latent variables are not
supported.
"""

import csv
import io
import math
import pathlib
import re
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from acme_cbo import types
from acme_cbo.infra import errors
from acme_cbo.infra import files
from acme_cbo.scms import assemble
from acme_cbo.scms import graphs
from acme_cbo.scms import mechanisms
from acme_cbo.scms.files import graph_files

KINDS = ('linear', 'features')

_MAX_BYTES = 5 * 10**7
_MAX_VALUE = 1e30  # Fits into float32, and its square into float64.
_NUMBER = re.compile(r'[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?')
_MISSING = ('', 'na', 'n/a', 'nan', 'null', 'none', '?')

_ROWS_PER_COEFFICIENT = 10
_MIN_ROWS_OF_FEATURES = 50
# Largest mean in standard deviations: beyond it the resolution of float32 is
# too coarse for the values of a variable.
_MAX_OFFSET = 1e4
# Smallest eigenvalue of a correlation matrix: below it causes are collinear.
_MIN_EIGENVALUE = 1e-9

# In standard deviations, for one cause; they grow as the root of the number of
# causes.
_LENGTH_SCALES = (0.5, 1.0, 2.0, 4.0)
# Variance of the noise over the variance of the sum of all features.
_PENALTIES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)

_NUM_STARTS = 8
_MAX_ITERATIONS = 5000
_MIN_INCREASE = 1e-10  # Of the log likelihood per row.
_MIN_VARIANCE = 1e-6


class Table(NamedTuple):
  """Observational rows.

  Attributes:
    names: names of the columns.
    rows: [N, D] float64, finite.
  """

  names: tuple[str, ...]
  rows: np.ndarray


def read_csv(path: str | pathlib.Path) -> Table:
  """Reads a CSV file of numbers with a header.

  Args:
    path: file of comma-separated values in UTF-8.

  Returns:
    The table.

  Raises:
    errors.UsageError: the file cannot be read, a name is empty or duplicate,
      the length of a row differs from that of the header, or a value is missing
      or not a finite number.
  """
  path = pathlib.Path(path)
  text = files.read_text(path, _MAX_BYTES)
  reader = csv.reader(
    io.StringIO(text, newline=''), strict=True, skipinitialspace=True
  )
  rows = []
  try:
    names = tuple(name.strip() for name in next(reader, []))
    for n, name in enumerate(names):
      if not name or name in names[:n]:
        reason = f'repeats the name {name!r}' if name else 'has no name'
        raise errors.UsageError(
          f'{path}, line 1: column {n + 1} {reason}; the header must have '
          'distinct names'
        )
    for row in reader:
      where = f'{path}, line {reader.line_num}'
      if len(row) != len(names):
        raise errors.UsageError(
          f'{where}: the row has {len(row)} values, and the header has '
          f'{len(names)} names; give one value per name'
        )
      rows.append(
        [
          _number(value, f'{where}, column {name!r}')
          for value, name in zip(row, names, strict=True)
        ]
      )
  except csv.Error as error:
    raise errors.UsageError(
      f'{path}, line {reader.line_num}: {error}'
    ) from error
  if not rows:
    raise errors.UsageError(f'{path} has no rows of data below the header')
  return Table(names, np.array(rows))


def _number(text, where):
  text = text.strip()
  if text.lower() in _MISSING:
    raise errors.UsageError(
      f'{where}: missing value ({text!r}); remove the row or fill in the value'
    )
  value = float(text) if _NUMBER.fullmatch(text) else math.nan
  if not abs(value) <= _MAX_VALUE:
    raise errors.UsageError(
      f'{where}: {text[:40]!r} is not a number within ±{_MAX_VALUE:g}'
    )
  return value


class FittedEquations(NamedTuple):
  """Structural equations that were fitted to data.

  Attributes:
    mechanism: structural equations of the D variables of the graph.
    family: `LINEAR`, or `FOURIER` for the kind `features`.
    location: [D] origins of the variables' units.
    scale: [D] scales of the variables' units.
    minimum: [D] smallest values in the data; 0 for latent variables.
    maximum: [D] largest values in the data; 0 for latent variables.
  """

  mechanism: types.Mechanism
  family: mechanisms.Family
  location: np.ndarray
  scale: np.ndarray
  minimum: np.ndarray
  maximum: np.ndarray


def fit(
  graph: graph_files.Graph,
  table: Table,
  kind: str,
  source: str,
  *,
  num_features: int = 100,
  seed: int = 0,
) -> FittedEquations:
  """Fits an SCM to data.

  Args:
    graph: causal graph.
    table: data; its columns are the observed variables of the graph, in any
      order.
    kind: one of `KINDS`, which the module docstring describes.
    source: name of graph and data in error messages.
    num_features: H, for the kind `features`.
    seed: random seed of the features, and of the initial values of expectation
      maximization.

  Returns:
    The `FittedEquations`, in the current precision of jax.

  Raises:
    errors.UsageError: the columns are not the observed variables of the graph,
      the data do not suffice, or the kind is unknown.
  """
  if kind not in KINDS:
    raise errors.UsageError(
      f'{source}: fit must be {" or ".join(KINDS)}, got {kind!r}'
    )
  rows = _columns(graph, table, source)
  mean, deviation = rows.mean(0), rows.std(0)
  _check_rows(graph, rows, mean, deviation, kind, source)

  def for_all(observed, latent_value):
    values = np.full(len(graph.variables), latent_value)
    values[~graph.latent] = observed
    return values

  # Standardized data; 0 for latent variables.
  standardized = np.zeros((len(rows), len(graph.variables)))
  standardized[:, ~graph.latent] = (rows - mean) / deviation
  rng = np.random.default_rng(seed)
  if kind == 'features':
    family = mechanisms.Family.FOURIER
    equations = _fit_features(standardized, graph.parents, num_features, rng)
  else:
    family = mechanisms.Family.LINEAR
    equations = _fit_linear(standardized, graph, rng, source)
  return FittedEquations(
    mechanism=assemble.equations(len(graph.variables), **equations),
    family=family,
    location=for_all(mean, 0.0),
    scale=for_all(deviation, 1.0),
    minimum=for_all(rows.min(0), 0.0),
    maximum=for_all(rows.max(0), 0.0),
  )


def _columns(graph, table, source):
  """Returns the rows with columns in the order of the graph's variables."""
  latent = dict(zip(graph.variables, graph.latent, strict=True))
  for name in table.names:
    if latent.get(name, True):
      reason = 'is latent in' if name in latent else 'is not a variable of'
      raise errors.UsageError(
        f'{source}: column {name!r} of the data {reason} the graph; remove the '
        'column or change the graph'
      )
  observed = [name for name in graph.variables if not latent[name]]
  missing = [name for name in observed if name not in table.names]
  if missing:
    raise errors.UsageError(
      f'{source}: the data have no column {", ".join(missing)}; add it, or '
      'mark it as latent in the graph'
    )
  return table.rows[:, [table.names.index(name) for name in observed]]


def _check_rows(graph, rows, mean, deviation, kind, source):
  """Raises unless the data determine the equations.

  Raises:
    errors.UsageError: rows are too few, a variable varies too little, causes
      are collinear, or an effect is not identifiable.
  """
  if kind == 'features' and graph.latent.any():
    raise errors.UsageError(
      f'{source}: {graph.variables[np.argmax(graph.latent)]} is latent; only '
      'the fit linear supports latent variables'
    )
  coefficients = int(graph.parents.sum(1).max()) + 1
  needed = _ROWS_PER_COEFFICIENT * coefficients
  if kind == 'features':
    needed = max(needed, _MIN_ROWS_OF_FEATURES)
  if len(rows) < needed:
    raise errors.UsageError(
      f'{source}: the data have {len(rows)} rows; this fit needs at least '
      f'{needed}'
    )
  observed = np.flatnonzero(~graph.latent)
  for j, center, spread in zip(observed, mean, deviation, strict=True):
    if not max(abs(center) / _MAX_OFFSET, 1 / _MAX_VALUE) < spread:
      reason = 'is constant' if spread == 0 else 'varies too little'
      raise errors.UsageError(
        f'{source}: {graph.variables[j]} {reason} (mean {center:.6g}, '
        f'deviation {spread:.3g}); subtract a constant, or '
        'remove it from graph and data'
      )
  correlation = np.eye(len(graph.variables))
  correlation[np.ix_(observed, observed)] = np.corrcoef(rows.T)
  for j, row in enumerate(graph.parents):
    among = correlation[np.ix_(row, row)]
    if row.any() and np.linalg.eigvalsh(among)[0] < _MIN_EIGENVALUE:
      causes = ', '.join(np.array(graph.variables)[row])
      raise errors.UsageError(
        f'{source}: the causes of {graph.variables[j]} ({causes}) are '
        'collinear, so that their effects are not identifiable; remove one'
      )
  for i, j in np.argwhere(_bows(graph)):
    raise errors.UsageError(
      f'{source}: {graph.variables[i]} is a cause of {graph.variables[j]}, and '
      'the two share a latent cause, so that the effect is not identifiable; '
      'specify the SCM by equations'
    )


def _bows(graph):
  """Finds pairs of variables whose effect is not identifiable.

  Returns:
    [D, D] bool, `[i, j]` where i causes j and a latent variable causes both,
    each either directly or through latent variables alone.
  """
  latent, parents = graph.latent, graph.parents
  # [j, i]: a path leads from i to j, and all its variables but j are latent.
  hidden = np.asarray(graphs.ancestors(jnp.asarray(parents & latent[None])))
  directed = parents | (hidden.astype(int) @ parents > 0)
  confounded = hidden.astype(int) @ hidden.T > 0
  observed = ~latent
  return (directed & confounded & observed[:, None] & observed[None]).T


def _fit_linear(standardized, graph, rng, source):
  """Fits by least squares, or by maximum likelihood with latent variables."""
  moments = standardized.T @ standardized / len(standardized)
  if graph.latent.any():
    linear, variance = _maximize(moments, graph, rng, source)
  else:
    linear, variance = _regress(moments, graph.parents)
  return dict(linear=linear, noise_scale=np.sqrt(variance))


def _regress(moments, parents):
  """Regresses each variable on its parents, given second moments.

  Args:
    moments: [D, D] means of products.
    parents: [D, D] bool.

  Returns:
    [D, D] weights and [D] variances of the residuals.
  """
  linear = np.zeros_like(moments)
  for j, row in enumerate(parents):
    linear[j, row] = np.linalg.solve(moments[np.ix_(row, row)], moments[row, j])
  residual = np.eye(len(moments)) - linear
  variance = ((residual @ moments) * residual).sum(1)
  return linear, np.maximum(variance, 0.0)


def _maximize(moments, graph, rng, source):
  """Fits a linear SCM with latent variables by expectation maximization.

  Args:
    moments: [D, D] means of products; those of latent variables are not used.
    graph: causal graph.
    rng: random generator of the initial values.
    source: name of the fit in error messages.

  Returns:
    [D, D] weights and [D] variances of the noise.

  Raises:
    errors.UsageError: no start converges.
  """
  observed, latent = ~graph.latent, graph.latent
  both = np.ix_(observed, observed)
  ends: list[tuple[float, np.ndarray, np.ndarray]] = []
  for _ in range(_NUM_STARTS):
    linear = graph.parents * rng.normal(size=graph.parents.shape) / 2
    variance = np.ones(len(observed))
    likelihood = -np.inf
    for _ in range(_MAX_ITERATIONS):
      total = np.linalg.inv(np.eye(len(observed)) - linear)
      implied = (total * variance) @ total.T
      inverse = np.linalg.inv(implied[both])
      before, likelihood = (
        likelihood,
        -0.5
        * (
          np.linalg.slogdet(implied[both])[1] + (inverse * moments[both]).sum()
        ),
      )
      if likelihood - before < _MIN_INCREASE:
        ends.append((likelihood, linear, variance))
        break
      # Regression of the latent variables on the observed ones.
      expect = np.zeros((len(observed), observed.sum()))
      expect[observed] = np.eye(observed.sum())
      expect[latent] = implied[np.ix_(latent, observed)] @ inverse
      spread = implied - expect @ implied[both] @ expect.T
      linear, variance = _regress(
        expect @ moments[both] @ expect.T + spread, graph.parents
      )
      variance = np.maximum(variance, _MIN_VARIANCE)
  if not ends:
    raise errors.UsageError(
      f'{source}: expectation maximization did not converge within '
      f'{_MAX_ITERATIONS:,} steps; provide more rows, or specify the SCM by '
      'equations'
    )
  return max(ends, key=lambda end: end[0])[1:]


def _fit_features(standardized, parents, num_features, rng):
  """Fits ridge regressions on random features of the causes."""
  num_variables = len(parents)
  units = (num_variables, num_features)
  arrays = dict(
    bias=np.zeros(num_variables),
    linear=np.zeros((num_variables, num_variables)),
    hidden=np.zeros((*units, num_variables)),
    shift=np.zeros(units),
    output=np.zeros(units),
    noise_scale=np.ones(num_variables),
  )
  for j, row in enumerate(parents):
    if not row.any():
      continue
    causes, effect = standardized[:, row], standardized[:, j]
    directions = rng.normal(size=(num_features, row.sum()))
    shift = rng.uniform(0, 2 * np.pi, num_features)
    fits = []
    for length in _LENGTH_SCALES:
      hidden = directions / (length * np.sqrt(row.sum()))
      fits += [
        (error, hidden, weights)
        for error, weights in _ridges(
          causes, np.cos(causes @ hidden.T + shift), effect
        )
      ]
    error, hidden, weights = min(fits, key=lambda fit: fit[0])
    arrays['bias'][j] = weights[0]
    arrays['linear'][j, row] = weights[1:-num_features]
    arrays['output'][j] = weights[-num_features:]
    arrays['hidden'][j][:, row], arrays['shift'][j] = hidden, shift
    arrays['noise_scale'][j] = np.sqrt(error)
  return arrays


def _ridges(causes, features, effect):
  """Fits a ridge regression for each penalty; only features are penalized.

  The leave-one-out error is computed in closed form, from the diagonal of the
  hat matrix (Allen, Technometrics 16, 1974).

  Args:
    causes: [N, C] values of the causes.
    features: [N, H] features of the causes.
    effect: [N] values of the variable.

  Returns:
    For each penalty the mean squared leave-one-out error, and the [1 + C + H]
    weights of the constant, the causes and the features, in that order.
  """
  num_features = features.shape[1]
  plain = np.concatenate([np.ones((len(causes), 1)), causes], 1)
  basis, triangle = np.linalg.qr(plain)
  # The parts that a linear regression on the causes does not explain.
  rest = features - basis @ (basis.T @ features)
  residual = effect - basis @ (basis.T @ effect)
  size, axes = np.linalg.eigh(rest.T @ rest)
  projected = rest @ axes
  free = 1 - np.square(basis).sum(1)
  # A row that alone determines the effect of a cause cannot be held out.
  counts = free > _MIN_EIGENVALUE
  fits = []
  for penalty in _PENALTIES:
    # The variance of a feature over all phases is 1 / 2.
    shrunk = np.maximum(size, 0.0) + penalty * num_features / 2
    inner = (projected.T @ residual) / shrunk
    leverage = (np.square(projected) / shrunk).sum(1)
    error = (residual - projected @ inner)[counts] / (free - leverage)[counts]
    output = axes @ inner
    ends = np.linalg.solve(triangle, basis.T @ (effect - features @ output))
    fits.append((np.square(error).mean(), np.concatenate([ends, output])))
  return fits
