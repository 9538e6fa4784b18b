"""Fits an SCM to data, given its graph.

Each variable is regressed on its causes, in float64 and in deviations from its
mean; what is left over is its noise, which is taken to be normal.

`linear`: least squares. With latent variables the likelihood of a linear SCM
with normal noise is maximised by expectation maximisation (Dempster, Laird and
Rubin, 1977); the unit of a latent variable is of no account. What a variable
does to another can be told from data only where no latent variable is a cause
of both (Brito and Pearl, Structural Equation Modeling 9, 2002); other graphs
are refused.

`features`: a linear part, and random Fourier features of a radial kernel
(Rahimi and Recht, 2007) under a ridge penalty. Length scale and penalty are
those of `_LENGTH_SCALES` and `_PENALTIES` with the least squared error on rows
that are left out one at a time; the mean of it is the variance of the noise.
Latent variables are refused.
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
from acme_cbo.scms import assemble
from acme_cbo.scms import graphs
from acme_cbo.scms import mechanisms
from acme_cbo.scms.files import graph_files

KINDS = ('linear', 'features')

_MAX_BYTES = 5 * 10**7
_MAX_VALUE = 1e30  # Squares of it are float64, and it is float32.
_NUMBER = re.compile(r'[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?')
_MISSING = ('', 'na', 'n/a', 'nan', 'null', 'none', '?')

_ROWS_PER_COEFFICIENT = 10
_MIN_ROWS_OF_FEATURES = 50
# Above, float32 tells the values of a variable apart too badly.
_MAX_OFFSET = 1e4  # Of a mean, in deviations.
# Below, a cause is as good as a sum of others.
_MIN_EIGENVALUE = 1e-9

# In deviations of a variable, for one cause; times the root of their number.
_LENGTH_SCALES = (0.5, 1.0, 2.0, 4.0)
# Variance of the noise over that of what all features add up to.
_PENALTIES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)

_NUM_STARTS = 8
_MAX_ITERATIONS = 5000
_MIN_RISE = 1e-10  # Of the log likelihood per row.
_MIN_VARIANCE = 1e-6


class Table(NamedTuple):
  """Observational rows.

  Attributes:
    names: of the columns.
    rows: [N, D] float64, finite.
  """

  names: tuple[str, ...]
  rows: np.ndarray


def read_csv(path: str | pathlib.Path) -> Table:
  """Reads rows of numbers below a header.

  Args:
    path: a file of comma-separated values in UTF-8.

  Returns:
    The table.

  Raises:
    errors.UsageError: the file cannot be read, a name is empty or there twice,
      a row is of another length than the header, or a value is missing or no
      finite number.
  """
  path = pathlib.Path(path)
  text = graph_files.read_text(path, _MAX_BYTES)
  reader = csv.reader(
    io.StringIO(text, newline=''), strict=True, skipinitialspace=True
  )
  rows = []
  try:
    names = tuple(name.strip() for name in next(reader, []))
    for n, name in enumerate(names):
      if not name or name in names[:n]:
        what = f'{name!r} is there twice' if name else 'has no name'
        raise errors.UsageError(
          f'{path}, line 1: column {n + 1} {what}; a header of different names '
          'has to stand here'
        )
    for row in reader:
      where = f'{path}, line {reader.line_num}'
      if len(row) != len(names):
        raise errors.UsageError(
          f'{where}: {len(row)} values stand here, and {len(names)} names in '
          'the header; separate as many by commas'
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
    raise errors.UsageError(f'{path} holds no rows below a header of names')
  return Table(names, np.array(rows))


def _number(text, where):
  text = text.strip()
  if text.lower() in _MISSING:
    raise errors.UsageError(
      f'{where}: a value is missing ({text!r}); leave its row out or fill it in'
    )
  value = float(text) if _NUMBER.fullmatch(text) else math.nan
  if not abs(value) <= _MAX_VALUE:
    raise errors.UsageError(
      f'{where}: {text[:40]!r} is no number within {_MAX_VALUE:g} of 0'
    )
  return value


class Fitted(NamedTuple):
  """Structural equations of a graph.

  Attributes:
    mechanism: of the D variables of the graph.
    family: `LINEAR`, or `FOURIER` of the kind `features`.
    location: [D] origins of the variables' units.
    scale: [D] sizes of them.
    least: [D] of the values in the data; 0 where nobody watches.
    greatest: [D] likewise.
  """

  mechanism: types.Mechanism
  family: mechanisms.Family
  location: np.ndarray
  scale: np.ndarray
  least: np.ndarray
  greatest: np.ndarray


def fit(
  graph: graph_files.Graph,
  table: Table,
  kind: str,
  source: str,
  *,
  num_features: int = 100,
  seed: int = 0,
) -> Fitted:
  """Fits an SCM to data, for `kind` as at the top of this module.

  Args:
    graph: whose variables that are not latent the columns are, in any order.
    table: the data.
    kind: one of `KINDS`.
    source: what messages call graph and data.
    num_features: H, for the kind `features`.
    seed: of the features, and of where the search for what latent variables do
      begins.

  Returns:
    The `Fitted`, in the precision that is current.

  Raises:
    errors.UsageError: the columns are not the graph's variables, the data do
      not suffice, or there is no such kind.
  """
  if kind not in KINDS:
    raise errors.UsageError(
      f'{source}: the kind of a fit is {" or ".join(KINDS)}, not {kind!r}'
    )
  rows = _columns(graph, table, source)
  mean, deviation = rows.mean(0), rows.std(0)
  _check_rows(graph, rows, mean, deviation, kind, source)

  def of_all(watched, of_latent):
    values = np.full(len(graph.variables), of_latent)
    values[~graph.latent] = watched
    return values

  # In deviations; 0 where nobody watches.
  standard = np.zeros((len(rows), len(graph.variables)))
  standard[:, ~graph.latent] = (rows - mean) / deviation
  rng = np.random.default_rng(seed)
  if kind == 'features':
    family = mechanisms.Family.FOURIER
    equations = _fit_features(standard, graph.parents, num_features, rng)
  else:
    family = mechanisms.Family.LINEAR
    equations = _fit_linear(standard, graph, rng, source)
  return Fitted(
    mechanism=assemble.equations(len(graph.variables), **equations),
    family=family,
    location=of_all(mean, 0.0),
    scale=of_all(deviation, 1.0),
    least=of_all(rows.min(0), 0.0),
    greatest=of_all(rows.max(0), 0.0),
  )


def _columns(graph, table, source):
  """The rows in the order of the graph: [N, number that is watched]."""
  latent = dict(zip(graph.variables, graph.latent, strict=True))
  for name in table.names:
    if latent.get(name, True):
      why = 'is latent in' if name in latent else 'is no variable of'
      raise errors.UsageError(
        f'{source}: the column {name!r} of the data {why} the graph; leave it '
        'out, or mend the graph'
      )
  watched = [name for name in graph.variables if not latent[name]]
  missing = [name for name in watched if name not in table.names]
  if missing:
    raise errors.UsageError(
      f'{source}: the data have no column {", ".join(missing)}; add it, or say '
      'in the graph that it is latent'
    )
  return table.rows[:, [table.names.index(name) for name in watched]]


def _check_rows(graph, rows, mean, deviation, kind, source):
  """Refuses data from which the equations cannot be told.

  Raises:
    errors.UsageError: there are such.
  """
  if kind == 'features' and graph.latent.any():
    raise errors.UsageError(
      f'{source}: {graph.variables[np.argmax(graph.latent)]} is latent, which '
      'only the kind linear can fit'
    )
  coefficients = int(graph.parents.sum(1).max()) + 1
  needed = _ROWS_PER_COEFFICIENT * coefficients
  if kind == 'features':
    needed = max(needed, _MIN_ROWS_OF_FEATURES)
  if len(rows) < needed:
    raise errors.UsageError(
      f'{source}: the data have {len(rows)} rows, and this fit needs {needed}'
    )
  watched = np.flatnonzero(~graph.latent)
  for j, centre, spread in zip(watched, mean, deviation, strict=True):
    if not max(abs(centre) / _MAX_OFFSET, 1 / _MAX_VALUE) < spread:
      what = 'is constant' if spread == 0 else 'varies too little'
      raise errors.UsageError(
        f'{source}: {graph.variables[j]} {what} (mean {centre:.6g}, deviation '
        f'{spread:.3g}); give it another origin, or leave it out of the graph '
        'and the data'
      )
  correlation = np.eye(len(graph.variables))
  correlation[np.ix_(watched, watched)] = np.corrcoef(rows.T)
  for j, row in enumerate(graph.parents):
    among = correlation[np.ix_(row, row)]
    if row.any() and np.linalg.eigvalsh(among)[0] < _MIN_EIGENVALUE:
      causes = ', '.join(np.array(graph.variables)[row])
      raise errors.UsageError(
        f'{source}: of the causes of {graph.variables[j]} ({causes}) one '
        'follows from the others in every row, so that what each does cannot '
        'be told; leave one out'
      )
  for i, j in np.argwhere(_bows(graph)):
    raise errors.UsageError(
      f'{source}: {graph.variables[i]} is a cause of {graph.variables[j]}, and '
      'the two have a latent cause in common, so that no data tell what the '
      'one does to the other; write the SCM down by formulas'
    )


def _bows(graph):
  """[D, D] bool, [i, j] where i causes j and latent variables cause both.

  Not directly only: by way of latent variables alone.
  """
  latent, parents = graph.latent, graph.parents
  # [j, i]: a path leads from i to j, and all on it before j are latent.
  hidden = np.asarray(graphs.ancestors(jnp.asarray(parents & latent[None])))
  directed = parents | (hidden.astype(int) @ parents > 0)
  confounded = hidden.astype(int) @ hidden.T > 0
  seen = ~latent
  return (directed & confounded & seen[:, None] & seen[None]).T


def _fit_linear(standard, graph, rng, source):
  """Least squares, or the greatest likelihood with latent variables."""
  moments = standard.T @ standard / len(standard)
  if graph.latent.any():
    linear, variance = _maximise(moments, graph, rng, source)
  else:
    linear, variance = _regress(moments, graph.parents)
  return dict(linear=linear, noise_scale=np.sqrt(variance))


def _regress(moments, parents):
  """Least squares of each variable on its parents, from second moments.

  Args:
    moments: [D, D] means of products.
    parents: [D, D] bool.

  Returns:
    [D, D] weights and [D] variances of what is left over.
  """
  linear = np.zeros_like(moments)
  for j, row in enumerate(parents):
    linear[j, row] = np.linalg.solve(moments[np.ix_(row, row)], moments[row, j])
  residual = np.eye(len(moments)) - linear
  variance = ((residual @ moments) * residual).sum(1)
  return linear, np.maximum(variance, 0.0)


def _maximise(moments, graph, rng, source):
  """Expectation maximisation of a linear SCM.

  Args:
    moments: [D, D] means of products; those of latent variables are not used.
    graph: the graph.
    rng: where it starts.
    source: what messages call the fit.

  Returns:
    [D, D] weights and [D] variances of the noise.

  Raises:
    errors.UsageError: no maximum is found.
  """
  seen, hidden = ~graph.latent, graph.latent
  both = np.ix_(seen, seen)
  ends: list[tuple[float, np.ndarray, np.ndarray]] = []
  for _ in range(_NUM_STARTS):
    linear = graph.parents * rng.normal(size=graph.parents.shape) / 2
    variance = np.ones(len(seen))
    likelihood = -np.inf
    for _ in range(_MAX_ITERATIONS):
      total = np.linalg.inv(np.eye(len(seen)) - linear)
      implied = (total * variance) @ total.T
      inverse = np.linalg.inv(implied[both])
      before, likelihood = (
        likelihood,
        -0.5
        * (
          np.linalg.slogdet(implied[both])[1] + (inverse * moments[both]).sum()
        ),
      )
      if likelihood - before < _MIN_RISE:
        ends.append((likelihood, linear, variance))
        break
      # What the latent variables are expected to be, given the others.
      expect = np.zeros((len(seen), seen.sum()))
      expect[seen] = np.eye(seen.sum())
      expect[hidden] = implied[np.ix_(hidden, seen)] @ inverse
      spread = implied - expect @ implied[both] @ expect.T
      linear, variance = _regress(
        expect @ moments[both] @ expect.T + spread, graph.parents
      )
      variance = np.maximum(variance, _MIN_VARIANCE)
  if not ends:
    raise errors.UsageError(
      f'{source}: the likelihood still rises after {_MAX_ITERATIONS:,} steps; '
      'give more rows, or write the SCM down by formulas'
    )
  return max(ends, key=lambda end: end[0])[1:]


def _fit_features(standard, parents, num_features, rng):
  """Ridge regressions on random features of the causes."""
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
    causes, effect = standard[:, row], standard[:, j]
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
  """Regressions with each of the penalties, on the features alone.

  Rows are held out in closed form, from the diagonal of the hat matrix (Allen,
  Technometrics 16, 1974).

  Args:
    causes: [N, C] of one variable.
    features: [N, H] of them.
    effect: [N] the variable.

  Returns:
    For each penalty the mean squared error on rows that are held out, and
    [1 + C + H] weights: of a constant, of the causes and of the features.
  """
  num_features = features.shape[1]
  plain = np.concatenate([np.ones((len(causes), 1)), causes], 1)
  basis, triangle = np.linalg.qr(plain)
  # What the causes themselves do not explain.
  rest = features - basis @ (basis.T @ features)
  aim = effect - basis @ (basis.T @ effect)
  size, axes = np.linalg.eigh(rest.T @ rest)
  along = rest @ axes
  free = 1 - np.square(basis).sum(1)
  # A row that alone tells what a cause does cannot be held out.
  counts = free > _MIN_EIGENVALUE
  fits = []
  for penalty in _PENALTIES:
    # Of features of the variance that they have over all phases, 1 / 2.
    shrunk = np.maximum(size, 0.0) + penalty * num_features / 2
    inner = (along.T @ aim) / shrunk
    leverage = (np.square(along) / shrunk).sum(1)
    error = (aim - along @ inner)[counts] / (free - leverage)[counts]
    output = axes @ inner
    ends = np.linalg.solve(triangle, basis.T @ (effect - features @ output))
    fits.append((np.square(error).mean(), np.concatenate([ends, output])))
  return fits
