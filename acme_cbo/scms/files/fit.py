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

import array
from collections.abc import Sequence
import csv
import io
import math
import pathlib
import re
from typing import NamedTuple, NoReturn

import jax.numpy as jnp
import numpy as np

from acme_cbo import types
from acme_cbo.infra import errors
from acme_cbo.infra import files
from acme_cbo.scms import assemble
from acme_cbo.scms import graphs
from acme_cbo.scms import mechanisms
from acme_cbo.scms import systems
from acme_cbo.scms.files import graph_files
from acme_cbo.scms.files import outliers

KINDS = ('linear', 'features')

_MAX_BYTES = 5 * 10**7
_MAX_VALUE = 1e30  # Fits into float32, and its square into float64.
_NUMBER = re.compile(r'[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?')
_MISSING = ('', 'na', 'n/a', 'nan', 'null', 'none', '?')
_QUOTED = re.compile(r'"[^"]*"')
_DECIMAL_COMMA = re.compile(r'[0-9],[0-9]')
# Separators that spreadsheets write instead of commas.
_SEPARATORS = {';': 'semicolons (;)', '\t': 'tabs', '|': 'bars (|)'}
_MAX_SHOWN = 40  # Characters of a name or value in a sentence.
_MAX_LISTED = 5  # Names in a sentence.

_ROWS_PER_COEFFICIENT = 10
_MIN_ROWS_OF_FEATURES = 50
# Largest mean in standard deviations, by the precision of a system: beyond it
# the resolution is too coarse for the values of a variable. In float64 the
# limit is that of the fit, which subtracts the mean.
_MAX_OFFSET = {np.dtype('float32'): 1e4, np.dtype('float64'): 1e9}
# Smallest eigenvalue of a correlation matrix: below it causes are collinear.
_MIN_EIGENVALUE = 1e-9

# Distance of a domain from the data, in standard deviations, that is far.
_FAR = 3.0

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
    path: file of the rows, for messages.
    names: names of the columns.
    rows: [N, C] float64, finite.
    lines: [N] line of the file on which each row starts, counted from 1.
    left_out: names of the other columns of the file, as a sentence shows them.
  """

  path: str
  names: tuple[str, ...]
  rows: np.ndarray
  lines: np.ndarray
  left_out: tuple[str, ...] = ()


def read_csv(path: str | pathlib.Path, variables: Sequence[str]) -> Table:
  """Reads the columns of some variables from a CSV file with a header.

  All other columns are left out, whatever they contain. Blank lines at the end
  of the file are no rows.

  Args:
    path: file of comma-separated values in UTF-8.
    variables: names of the columns to read; the file may lack some of them.

  Returns:
    The table.

  Raises:
    errors.UsageError: the file cannot be read, the values are not separated by
      commas, a name is duplicate, the length of a row differs from that of the
      header, or a value is missing or not a finite number.
  """
  path = pathlib.Path(path)
  text = files.read_text(path, _MAX_BYTES)
  if '\0' in text:
    raise errors.UsageError(
      f'{path} has null characters, as texts in UTF-16 have; save it as UTF-8'
    )
  _check_separator(path, text)
  reader = csv.reader(
    io.StringIO(text, newline=''), strict=True, skipinitialspace=True
  )
  values, lines = array.array('d'), array.array('q')
  line = blank = end = 0
  try:
    header = [
      graph_files.normalized_name(name.strip()) for name in next(reader, [])
    ]
    columns = _find_columns(path, header, set(variables))
    names = tuple(header[k] for k in columns)
    end = reader.line_num
    for row in reader:
      line, end = end + 1, reader.line_num
      if not ''.join(row).strip():
        blank = blank or line
        continue
      if blank:
        raise errors.UsageError(
          f'{path}, line {blank}: the line has no values, and rows follow; '
          'remove the line'
        )
      if len(row) != len(header):
        raise errors.UsageError(
          f'{path}, line {line}: the row has {len(row)} values, and the header '
          f'has {len(header)} names; give one value per name'
        )
      for k in columns:
        value = row[k].strip()
        number = float(value) if _NUMBER.fullmatch(value) else math.nan
        if not abs(number) <= _MAX_VALUE:
          _fail_value(f'{path}, line {line}, column {_short(header[k])}', value)
        values.append(number)
      lines.append(line)
  except csv.Error as error:
    raise errors.UsageError(
      f'{path}, line {end + 1}: {error}; check the quotation marks'
    ) from error
  if not lines:
    raise errors.UsageError(f'{path} has no rows of data below the header')
  read = set(columns)
  return Table(
    path=str(path),
    names=names,
    rows=np.array(values).reshape(len(lines), len(names)),
    lines=np.array(lines),
    left_out=tuple(
      _short(name) if name else f'column {k + 1}, which has no name'
      for k, name in enumerate(header)
      if k not in read
    ),
  )


def _check_separator(path: pathlib.Path, text: str) -> None:
  """Raises if the first line has a separator, and it is not a comma."""
  first, second, *_ = [*text.split('\n', 2), '']
  first = _QUOTED.sub('', first)
  for separator, name in _SEPARATORS.items():
    if separator in first and ',' not in first:
      decimal = _DECIMAL_COMMA.search(second)
      raise errors.UsageError(
        f'{path}, line 1: the values are separated by {name}'
        f'{", and numbers have decimal commas" if decimal else ""}; save the '
        'table with commas between values'
        f'{" and decimal points in numbers" if decimal else ""}'
      )


def _find_columns(
  path: pathlib.Path, header: Sequence[str], variables: set[str]
) -> list[int]:
  """Returns the indices of the columns that are variables.

  Raises:
    errors.UsageError: a variable has two columns, or the first line has no
      names.
  """
  if header and all(map(_NUMBER.fullmatch, header)):
    raise errors.UsageError(
      f'{path}, line 1: the first line has numbers; it must have the names of '
      'the columns'
    )
  columns: dict[str, int] = {}
  for k, name in enumerate(header):
    if name in columns:
      raise errors.UsageError(
        f'{path}, line 1: column {k + 1} repeats the name {_short(name)}; the '
        'header must have distinct names'
      )
    if name in variables:
      columns[name] = k
  return list(columns.values())


def _fail_value(where: str, text: str) -> NoReturn:
  if text.lower() in _MISSING:
    raise errors.UsageError(
      f'{where}: missing value ({text!r}); remove the row or fill in the value'
    )
  hint = ''
  if ',' in text and _NUMBER.fullmatch(text.replace(',', '.', 1)):
    hint = '; write a decimal point, and no comma between thousands'
  raise errors.UsageError(
    f'{where}: {_short(text)} is not a number within ±{_MAX_VALUE:g}{hint}'
  )


def _short(text: str) -> str:
  return repr(text if len(text) <= _MAX_SHOWN else f'{text[:_MAX_SHOWN]}...')


class FittedEquations(NamedTuple):
  """Structural equations that were fitted to data.

  Attributes:
    mechanism: structural equations of the D variables of the graph.
    family: `LINEAR`, or `FOURIER` for the kind `features`.
    location: [D] origins of the variables' units.
    scale: [D] scales of the variables' units: standard deviations of the data.
    quality: how well the equations fit the data.
  """

  mechanism: types.Mechanism
  family: mechanisms.Family
  location: np.ndarray
  scale: np.ndarray
  quality: systems.FitQuality


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
      order. `quality.warnings` of the result says what may be wrong with it.
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

  def for_all(observed, latent_value=0.0):
    values = np.full(len(graph.variables), latent_value)
    values[~graph.latent] = observed
    return values

  # Standardized data; 0 for latent variables.
  standardized = np.zeros((len(rows), len(graph.variables)))
  standardized[:, ~graph.latent] = (rows - mean) / deviation
  rng = np.random.default_rng(seed)
  if kind == 'features':
    family = mechanisms.Family.FOURIER
    equations, r2 = _fit_features(
      standardized, graph.parents, num_features, rng
    )
  else:
    family = mechanisms.Family.LINEAR
    equations = _fit_linear(standardized, graph, rng, source)
    r2 = _linear_r2(standardized, graph)
  observed = [graph.variables[j] for j in np.flatnonzero(~graph.latent)]
  has_causes = np.any(graph.parents[~graph.latent], 1)
  return FittedEquations(
    mechanism=assemble.equations(len(graph.variables), **equations),
    family=family,
    location=for_all(mean),
    scale=for_all(deviation, 1.0),
    quality=systems.FitQuality(
      kind=kind,
      num_rows=len(rows),
      minimum=for_all(rows.min(0)),
      maximum=for_all(rows.max(0)),
      r2=r2,
      beyond=for_all(0.0),
      warnings=_table_warnings(table, observed, rows, has_causes),
    ),
  )


def compare_domains(
  fitted: FittedEquations,
  variables: Sequence[str],
  domains: Sequence[tuple[float, float] | None],
) -> systems.FitQuality:
  """Measures how far the domains leave the data.

  Args:
    fitted: result of `fit`.
    variables: names of the D variables.
    domains: [D] domain of each variable; None if it cannot be intervened on.

  Returns:
    The quality of the fit, with `beyond` and a warning for each variable whose
    domain is far from the data.
  """
  quality = fitted.quality
  beyond = np.zeros(len(variables))
  warnings = []
  for j, domain in enumerate(domains):
    if domain is None:
      continue
    low, high = domain
    minimum, maximum = quality.minimum[j], quality.maximum[j]
    beyond[j] = max(minimum - low, high - maximum, 0.0) / fitted.scale[j]
    if beyond[j] > _FAR:
      warnings.append(
        f'the domain of {variables[j]}, {low:.8g} to {high:.8g}, reaches '
        f'{beyond[j]:.3g} standard deviations beyond the data, {minimum:.8g} '
        f'to {maximum:.8g}; nothing is known there: choose a smaller domain'
      )
  return quality._replace(
    beyond=beyond, warnings=(*quality.warnings, *warnings)
  )


def _table_warnings(
  table: Table,
  variables: Sequence[str],
  rows: np.ndarray,
  has_causes: np.ndarray,
) -> tuple[str, ...]:
  """Describes what may be wrong with a table.

  Args:
    table: the table.
    variables: names of the C observed variables.
    rows: [N, C] their values.
    has_causes: [C] whether a variable has causes.
  """
  warnings = []
  if table.left_out:
    listed = errors.format_list(table.left_out, _MAX_LISTED, 'more', ', ')
    warnings.append(
      f'{table.path}: not in the graph and therefore left out: {listed}'
    )
  for name, values, is_effect in zip(
    variables, rows.T, has_causes, strict=True
  ):
    usual = np.median(values)
    unusual = np.flatnonzero(values != usual)
    where = f'{table.path}, line {table.lines[unusual[0]]}: {name}'
    if len(unusual) == 1:
      warnings.append(
        f'{where} is {values[unusual[0]]:.8g}, and {usual:.8g} in all other '
        f'rows, so that all that is known of {name} rests on this row; add '
        f'rows in which {name} varies, or remove it from the graph'
      )
      continue
    low, high = values.min(), values.max()
    if is_effect and ((values == low) | (values == high)).all():
      warnings.append(
        f'{table.path}: {name} has only the values {low:.8g} and {high:.8g}; '
        'it is fitted as if it were continuous, as in a linear probability '
        'model, so that other values may be expected of it'
      )
    is_outlier = outliers.find(values)
    if is_outlier.any():
      n = np.argmax(is_outlier)
      rest = values[~is_outlier]
      distance = abs(values[n] - rest.mean()) / rest.std()
      more = is_outlier.sum() - 1
      warnings.append(
        f'{table.path}, line {table.lines[n]}: {name} is {values[n]:.8g}, '
        f'{distance:.3g} standard deviations from the mean of the other rows'
        f'{f" (and so in {more} more rows)" if more else ""}; remove the row '
        'if this is an error or stands for a missing value'
      )
  return tuple(warnings)


def _columns(graph, table, source):
  """Returns the rows with columns in the order of the graph's variables."""
  columns = {name: k for k, name in enumerate(table.names)}
  observed = []
  for name, latent in zip(graph.variables, graph.latent, strict=True):
    if latent and name in columns:
      raise errors.UsageError(
        f'{source}: column {name!r} of the data is latent in the graph; remove '
        'the column or change the graph'
      )
    if not latent:
      observed.append(name)
  missing = [name for name in observed if name not in columns]
  if missing:
    others = errors.format_list(table.left_out, _MAX_LISTED, 'more', ', ')
    raise errors.UsageError(
      f'{source}: the data have no column '
      f'{errors.format_list(missing, _MAX_LISTED, "more", ", ")}; add it, or '
      'mark it as latent in the graph'
      f'{f"; columns that are not in the graph: {others}" if others else ""}'
    )
  return table.rows[:, [columns[name] for name in observed]]


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
  max_offset = _MAX_OFFSET[jnp.zeros(()).dtype]
  for j, values, center, spread in zip(
    observed, rows.T, mean, deviation, strict=True
  ):
    name = graph.variables[j]
    if values.min() == values.max():
      raise errors.UsageError(
        f'{source}: {name} is {values[0]:z.8g} in all rows; remove it from the '
        'graph, or add rows in which it varies'
      )
    if spread < 1 / _MAX_VALUE:
      raise errors.UsageError(
        f'{source}: {name} varies too little (deviation {spread:.3g}); write '
        'it in a smaller unit, in the table and its domain'
      )
    if spread < abs(center) / max_offset:
      raise errors.UsageError(
        f'{source}: {name} varies too little for values that are so far from 0 '
        f'(mean {center:.6g}, deviation {spread:.3g}); subtract '
        f'{values.min():.17g} from {name}, in the table and its domain'
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


def _linear_r2(standardized, graph):
  """Returns the leave-one-out R2 of each variable, see `FitQuality`.

  An equation without latent causes is a least squares regression, also if other
  variables are latent.
  """
  r2 = np.full(len(graph.variables), np.nan)
  for j, row in enumerate(graph.parents):
    if row.any() and not graph.latent[row].any() and not graph.latent[j]:
      effect = standardized[:, j]
      basis, _, free = _orthogonalize(standardized[:, row])
      counts = free > _MIN_EIGENVALUE
      residual = effect - basis @ (basis.T @ effect)
      r2[j] = _r2(residual[counts] / free[counts], effect, counts)
  return r2


def _r2(left_out, effect, counts):
  """Returns 1 - the squared error relative to that of the mean, both left out.

  Args:
    left_out: [N'] leave-one-out errors of the rows that count.
    effect: [N] values of the variable.
    counts: [N] which rows count.
  """
  values = effect[counts]
  if not np.ptp(values) > 0:
    return np.nan
  # Of the mean of the other rows.
  mean_errors = (values - values.mean()) * len(values) / (len(values) - 1)
  return 1 - np.square(left_out).mean() / np.square(mean_errors).mean()


def _orthogonalize(causes):
  """Decomposes a linear regression on the causes.

  Args:
    causes: [N, C] values of the causes.

  Returns:
    [N, 1 + C] orthonormal basis of the constant and the causes, [1 + C, 1 + C]
    coordinates of these in the basis, and [N] 1 - the leverage of each row.
    Where that is 0, a row alone determines the effect of a cause and cannot be
    left out.
  """
  plain = np.concatenate([np.ones((len(causes), 1)), causes], 1)
  basis, triangle = np.linalg.qr(plain)
  return basis, triangle, 1 - np.square(basis).sum(1)


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
  """Fits ridge regressions on random features of the causes.

  Returns:
    The arrays of the equations, and the [D] leave-one-out R2.
  """
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
  r2 = np.full(num_variables, np.nan)
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
        (np.square(left_out).mean(), hidden, weights, left_out)
        for left_out, weights in _ridges(
          causes, np.cos(causes @ hidden.T + shift), effect
        )
      ]
    error, hidden, weights, left_out = min(fits, key=lambda fit: fit[0])
    arrays['bias'][j] = weights[0]
    arrays['linear'][j, row] = weights[1:-num_features]
    arrays['output'][j] = weights[-num_features:]
    arrays['hidden'][j][:, row], arrays['shift'][j] = hidden, shift
    arrays['noise_scale'][j] = np.sqrt(error)
    counts = _orthogonalize(causes)[2] > _MIN_EIGENVALUE
    r2[j] = _r2(left_out, effect, counts)
  return arrays, r2


def _ridges(causes, features, effect):
  """Fits a ridge regression for each penalty; only features are penalized.

  The leave-one-out error is computed in closed form, from the diagonal of the
  hat matrix (Allen, Technometrics 16, 1974).

  Args:
    causes: [N, C] values of the causes.
    features: [N, H] features of the causes.
    effect: [N] values of the variable.

  Returns:
    For each penalty the leave-one-out errors of the rows that can be left out,
    and the [1 + C + H] weights of the constant, the causes and the features, in
    that order.
  """
  num_features = features.shape[1]
  basis, triangle, free = _orthogonalize(causes)
  # The parts that a linear regression on the causes does not explain.
  rest = features - basis @ (basis.T @ features)
  residual = effect - basis @ (basis.T @ effect)
  size, axes = np.linalg.eigh(rest.T @ rest)
  projected = rest @ axes
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
    fits.append((error, np.concatenate([ends, output])))
  return fits
