"""Reports of how well fitted systems fit their data.

Scores on a fitted system are scores on its equations. They hold for the system
that the data are from only as far as the equations do.
"""

from typing import Any

import jax
import numpy as np

from acme_cbo.evaluation import report
from acme_cbo.infra import errors
from acme_cbo.scms import optimum as optimum_lib
from acme_cbo.scms import simulate
from acme_cbo.scms import systems

_MAX_ROWS = 30  # Variables in the table.
_MAX_LISTED = 4  # Variables in a sentence.
_MAX_NAME = 16  # Characters of a name in the table.
_MAX_NUMBER = 8  # Characters of a number in the table.
# Part of a standard deviation by which a value may leave the data by rounding.
_TOLERANCE = 1e-6
_LEGEND = (
  'R2: leave-one-out, of a variable given its direct causes; 1 is perfect, 0\n'
  'no better than the mean; "latent" if unknown because a cause is latent.\n'
  'beyond: by how many standard deviations of the data the domain leaves\n'
  'them. Scores are those of the fitted equations; they hold for the real\n'
  'system only as far as these do.'
)

_expectation = jax.jit(simulate.expectation)


def summarize(
  system: systems.System, best: optimum_lib.Optimum
) -> dict[str, Any]:
  """Returns the quality of the fit and the optimum as JSON types.

  Must be called with 64-bit types enabled.

  Args:
    system: a fitted system.
    best: its optimum.

  Returns:
    The entry of the system in `summary.json`: 'kind', 'rows', and for each
    observed variable 'r2' (None without causes or with a latent one), 'causes'
    ('none', 'latent' or 'observed'), 'data' and 'domain' ([low, high]; None
    without a domain), 'deviation' (standard deviation of the data), 'beyond'
    and 'optimum', its expected value at the optimum.
  """
  quality, scm = system.fit, system.scm
  assert quality is not None
  expected = np.asarray(_expectation(scm, best.bank, best.choice)[0])
  parents, exists = np.asarray(scm.parents), np.asarray(scm.problem.exists)
  settable = np.asarray(scm.problem.settable)
  low, high = np.asarray(scm.problem.low), np.asarray(scm.problem.high)
  variables = {}
  for j in np.flatnonzero(exists):
    r2 = float(quality.r2[j])
    causes = 'observed' if parents[j].any() else 'none'
    if parents[j][~exists].any():
      causes = 'latent'
    variables[system.variables[j]] = {
      'r2': None if np.isnan(r2) else r2,
      'causes': causes,
      'data': [float(quality.minimum[j]), float(quality.maximum[j])],
      'deviation': float(scm.scale[j]),
      'domain': [float(low[j]), float(high[j])] if settable[j] else None,
      'beyond': float(quality.beyond[j]),
      'optimum': float(expected[j]),
    }
  return {
    'kind': quality.kind,
    'rows': quality.num_rows,
    'variables': variables,
  }


def optimum_warning(
  system: systems.System, best: optimum_lib.Optimum, entry: dict[str, Any]
) -> str:
  """Returns a sentence if the optimum lies outside the data, else ''.

  Args:
    system: a fitted system.
    best: its optimum.
    entry: result of `summarize`.
  """
  outside = []
  for name, variable in entry['variables'].items():
    (low, high), value = variable['data'], variable['optimum']
    margin = _TOLERANCE * variable['deviation']
    if not low - margin <= value <= high + margin:
      outside.append(f'{name} is {value:.6g} (data: {low:.6g} to {high:.6g})')
  if not outside:
    return ''
  choice = systems.describe(system.variables, best.choice)
  return (
    f'the optimum of the fitted equations, {choice}, lies outside the data: '
    f'there {errors.format_list(outside, _MAX_LISTED, "more", ", ")}; the real '
    'system may differ there, and so may its optimum'
  )


def table(name: str, entry: dict[str, Any]) -> str:
  """Returns a table of the quality of a fit, of at most 80 columns.

  Args:
    name: name of the system.
    entry: result of `summarize`.
  """
  lines = [['variable', 'R2', 'data', 'domain', 'beyond']]
  variables = entry['variables']
  for variable, values in [*variables.items()][:_MAX_ROWS]:
    deviation = values['deviation']
    r2 = {'none': '-', 'latent': 'latent'}.get(values['causes'])
    domain = values['domain']
    lines.append(
      [
        variable
        if len(variable) <= _MAX_NAME
        else f'{variable[: _MAX_NAME - 3]}...',
        r2 or ('-' if values['r2'] is None else _number(values['r2'], 0.1)),
        _range(values['data'], deviation),
        _range(domain, deviation) if domain else '-',
        _number(values['beyond'], 1.0) if values['beyond'] >= 0.05 else '-',
      ]
    )
  rest = len(variables) - _MAX_ROWS
  more = f'\n... and {rest} more in summary.json' if rest > 0 else ''
  return (
    f'{name}: equations fitted to {entry["rows"]:,} rows ({entry["kind"]})\n\n'
    f'{report.align(lines)}{more}\n\n{_LEGEND}'
  )


def _range(ends: list[float], deviation: float) -> str:
  low, high = (_number(end, deviation) for end in ends)
  return f'{low} to {high}'


def _number(value: float, deviation: float) -> str:
  """Formats a number to about a tenth of a standard deviation."""
  decimals = max(0, 1 - int(np.floor(np.log10(deviation))))
  text = f'{value:z.{decimals}f}'
  return text if len(text) <= _MAX_NUMBER else f'{value:.2g}'
