"""Named systems: an SCM with names of its variables and its provenance."""

from collections.abc import Sequence
import hashlib
from typing import NamedTuple

import jax
import numpy as np

from acme_cbo import types
from acme_cbo.scms import formulas

# Value of `SCM.graph` and `SCM.family` for SCMs that belong to no kind.
NO_KIND = -1


class FitQuality(NamedTuple):
  """Quality of the fit of a system's equations, and the ranges of its data.

  Attributes:
    kind: kind of the fit, such as 'linear'.
    num_rows: number of rows of the data.
    minimum: [D] smallest values in the data; 0 for latent variables.
    maximum: [D] largest values in the data; 0 for latent variables.
    r2: [D] leave-one-out R2: 1 - the mean squared error of predicting a row of
      the variable from its causes, by the equation that is fitted to all other
      rows, relative to that of the mean of all other rows. Rows that alone
      determine the effect of a cause do not count. NaN if the variable has no
      causes or latent ones, or does not vary in the rows that count.
    beyond: [D] distance by which the domain leaves the range of the data, in
      standard deviations of the data; 0 if it does not, or there is no domain.
    warnings: sentences about what may be wrong with the data and the domains.
  """

  kind: str
  num_rows: int
  minimum: np.ndarray
  maximum: np.ndarray
  r2: np.ndarray
  beyond: np.ndarray
  warnings: tuple[str, ...]


class System(NamedTuple):
  """An SCM with names.

  Attributes:
    name: name of the system.
    source: one line on its origin, such as a publication; may be empty.
    variables: names of the D columns, including latent variables.
    scm: the model.
    optimum_hint: known best intervention, or None.
    fit: how well the equations fit the data; None if they were not fitted.
  """

  name: str
  source: str
  variables: tuple[str, ...]
  scm: types.SCM
  optimum_hint: types.Intervention | None = None
  fit: FitQuality | None = None


def digest(system: System) -> str:
  """Returns the SHA-256 of the model of a system and its hint."""
  leaves, structure = jax.tree.flatten((system.scm, system.optimum_hint))
  sha256 = hashlib.sha256(repr((system.variables, structure)).encode())
  for leaf in leaves:
    sha256.update(np.asarray(leaf, order='C').tobytes())
  return sha256.hexdigest()


def describe(variables: Sequence[str], intervention: types.Intervention) -> str:
  """Formats an intervention, as in 'do(B = -5, D = 3.276)'.

  Args:
    variables: names of the D variables.
    intervention: the intervention.

  Returns:
    The text; 'no intervention' if no variable is set.
  """
  mask, values = np.asarray(intervention.mask), np.asarray(intervention.values)
  if not mask.any():
    return 'no intervention'
  settings = [
    f'{name} = {value:.6g}'
    for name, value, is_set in zip(variables, values, mask, strict=True)
    if is_set
  ]
  return f'do({", ".join(settings)})'


def describe_non_finite(
  system: System, intervention: types.Intervention, u: jax.Array
) -> str:
  """Names the first variable, in causal order, with non-finite values.

  Args:
    system: the system.
    intervention: intervention under which the values were computed.
    u: [S, D] values from `simulate.propagate`.

  Returns:
    A sentence with the variable, its equation if it is a formula, its value and
    the values of its causes; empty if all values are finite.
  """
  scm = system.scm
  rows = np.asarray(u)
  for j in np.asarray(scm.order):
    non_finite = ~np.isfinite(rows[:, j])
    if not non_finite.any():
      continue
    row = rows[np.argmax(non_finite)]
    causes = ', '.join(
      f'{system.variables[i]} = {row[i]:.6g}'
      for i in np.flatnonzero(np.asarray(scm.parents)[j])
    )
    name = describe_equation(scm, j, system.variables)
    share = non_finite.mean()
    return (
      f'{system.name}: {name} is {row[j]:g} under '
      f'{describe(system.variables, intervention)}'
      f'{f" where {causes}" if causes else ""}'
      f'{f", in {share:.2g} of the draws" if share < 1 else ""}'
    )
  return ''


def describe_equation(
  scm: types.SCM, j: int, variables: Sequence[str] | None = None
) -> str:
  """Returns a variable with its equation, as in "Z: 'exp(-X) + e'".

  Args:
    scm: the model.
    j: index of the variable.
    variables: names of the D variables, or None for their numbers; formulas
      have the names themselves.

  Returns:
    The text; only the name if the equation is not a formula.
  """
  if isinstance(scm.mechanism, formulas.Formulas):
    return f"{scm.mechanism.names[j]}: '{scm.mechanism.texts[j]}'"
  return f'variable {j}' if variables is None else variables[j]
