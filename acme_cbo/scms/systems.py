"""A system to experiment on: an SCM with names, and what is known of it."""

from collections.abc import Sequence
import hashlib
from typing import NamedTuple

import jax
import numpy as np

from acme_cbo import types
from acme_cbo.scms import formulas

# The graph and the family of an SCM that no prior drew.
NO_KIND = -1


class System(NamedTuple):
  """An SCM with names.

  Attributes:
    name: of the system.
    source: where it comes from, in one line; may be empty.
    variables: names of the D columns, latent variables too.
    scm: the model.
    optimum_hint: an intervention that is known to be best, or None.
  """

  name: str
  source: str
  variables: tuple[str, ...]
  scm: types.SCM
  optimum_hint: types.Intervention | None = None


def digest(system: System) -> str:
  """SHA-256 of all that makes a system what it is, but for its name."""
  leaves, structure = jax.tree.flatten((system.scm, system.optimum_hint))
  sha256 = hashlib.sha256(repr((system.variables, structure)).encode())
  for leaf in leaves:
    sha256.update(np.asarray(leaf, order='C').tobytes())
  return sha256.hexdigest()


def describe(variables: Sequence[str], intervention: types.Intervention) -> str:
  """'do(B = -5, D = 3.276)', or 'no intervention'."""
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
  """Which variable first has values that are not finite, and why.

  Args:
    system: the system.
    intervention: what was set.
    u: [S, D] from `simulate.propagate`.

  Returns:
    A sentence; empty where all values are finite.
  """
  scm = system.scm
  rows = np.asarray(u)
  for j in np.asarray(scm.order):
    faulty = ~np.isfinite(rows[:, j])
    if not faulty.any():
      continue
    row = rows[np.argmax(faulty)]
    causes = ', '.join(
      f'{system.variables[i]} = {row[i]:.6g}'
      for i in np.flatnonzero(np.asarray(scm.parents)[j])
    )
    name = system.variables[j]
    if isinstance(scm.mechanism, formulas.Formulas):
      name = f"{name}: '{scm.mechanism.texts[j]}'"
    return (
      f'{system.name}: {name} is {row[j]:g} under '
      f'{describe(system.variables, intervention)}'
      f'{f" where {causes}" if causes else ""}'
    )
  return ''
