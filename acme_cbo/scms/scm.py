"""A structural causal model with named variables, for use from Python."""

from __future__ import annotations

from collections.abc import Mapping
import os

from absl import logging
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from acme_cbo import types
from acme_cbo.infra import errors
from acme_cbo.scms import benchmarks
from acme_cbo.scms import interventions
from acme_cbo.scms import simulate
from acme_cbo.scms import systems
from acme_cbo.scms.files import yaml_spec

_NUM_DRAWS = 4096


# Compiled once for all models of one structure.
_sample = jax.jit(simulate.sample, static_argnums=3)


@jax.jit
def _expected_outcome(
  scm: types.SCM, intervention: types.Intervention
) -> jax.Array:
  """Returns E[target | do], a mean over draws of the noise."""
  bank = simulate.noise_bank(jax.random.PRNGKey(0), scm, _NUM_DRAWS)
  outcome = simulate.expected_outcome(scm, bank, intervention)
  return simulate.in_target_units(scm, outcome)


class SCM:
  """A structural causal model to experiment on.

  Attributes:
    name: name of the model.
    variables: names of the variables that are observed.
    target: name of the variable to optimize.
    goal: 'maximize' or 'minimize'.
    domains: {variable: (low, high)} of each variable that may be set.

  Example:
    >>> import acme_cbo
    >>> scm = acme_cbo.SCM.from_text('''
    ... name: mine
    ... target: y
    ... goal: minimize
    ... variables:
    ...   x: {equation: "e", domain: [-2, 2]}
    ...   y: {equation: "(x - 1) ** 2 + 0.1 * e"}
    ... ''')
    >>> scm.sample(3).shape
    (3, 2)
    >>> round(scm.expected_outcome({'x': 1.0}), 1)
    0.0
  """

  def __init__(self, system: systems.System):
    """Names the parts of a model; see `from_yaml` and `named`.

    Logs what may be wrong with the data, if the model was fitted to data.

    Args:
      system: arrays of the model, and names of its variables.
    """
    for warning in system.fit.warnings if system.fit else ():
      logging.warning('%s: %s', system.name, warning)
    problem = jax.tree.map(np.asarray, system.scm.problem)
    observed = np.flatnonzero(problem.exists)
    self._system = system
    self._observed = observed
    self.name = system.name
    self.variables = tuple(system.variables[j] for j in observed)
    self.target = system.variables[int(np.argmax(problem.target))]
    self.goal = 'maximize' if problem.goal > 0 else 'minimize'
    self.domains = {
      system.variables[j]: (float(problem.low[j]), float(problem.high[j]))
      for j in np.flatnonzero(problem.settable)
    }

  @classmethod
  def from_yaml(cls, path: str | os.PathLike[str]) -> SCM:
    """Reads a model from a YAML file; docs/benchmarks.md describes its form.

    Raises:
      UsageError: the file cannot be read or describes no model; the sentence
        has its line and column.
    """
    with jax.enable_x64(True):
      return cls(yaml_spec.read(path))

  @classmethod
  def from_text(cls, text: str) -> SCM:
    """Reads a model from the text of a YAML file, see `from_yaml`."""
    with jax.enable_x64(True):
      return cls(yaml_spec.parse(text))

  @classmethod
  def named(cls, name: str) -> SCM:
    """Returns a benchmark of the literature, such as 'toy' or 'ackley'.

    Raises:
      UsageError: there is no benchmark of that name.
    """
    if name not in benchmarks.TEXTS:
      hint = errors.did_you_mean_or_options(name, list(benchmarks.TEXTS))
      raise errors.UsageError(f'there is no benchmark {name!r}{hint}')
    with jax.enable_x64(True):
      return cls(benchmarks.load(name))

  def sample(
    self,
    num_samples: int,
    do: Mapping[str, float] | None = None,
    seed: int = 0,
  ) -> pd.DataFrame:
    """Samples rows of the observed variables.

    Args:
      num_samples: number of rows, at least 1.
      do: {variable: value} of an intervention; nothing is set without it.
      seed: seed of the noise.

    Returns:
      A DataFrame of `num_samples` rows, one column for each of `variables`.

    Raises:
      UsageError: `do` sets what may not be set, or outside its domain.
    """
    with jax.enable_x64(True):
      rows = _sample(
        jax.random.PRNGKey(seed),
        self._system.scm,
        self._intervention(do or {}),
        num_samples,
      )
    rows = np.asarray(rows)[:, self._observed]
    return pd.DataFrame(rows, columns=list(self.variables))

  def expected_outcome(self, do: Mapping[str, float] | None = None) -> float:
    """Returns E[target | do], the mean over 4,096 draws of the noise.

    Args:
      do: {variable: value} of an intervention; nothing is set without it.

    Raises:
      UsageError: `do` sets what may not be set, or outside its domain.
    """
    scm = self._system.scm
    with jax.enable_x64(True):
      outcome = _expected_outcome(scm, self._intervention(do or {}))
    return float(outcome)

  def _intervention(self, do: Mapping[str, float]) -> types.Intervention:
    intervention = interventions.from_names(do, self._system.variables)
    for name, value in do.items():
      if name not in self.domains:
        raise errors.UsageError(
          f'{name!r} may not be set; {", ".join(map(repr, self.domains))} may'
        )
      low, high = self.domains[name]
      if not low <= value <= high:
        raise errors.UsageError(
          f'{name!r} is set to {value}, outside its domain [{low:g}, {high:g}]'
        )
    return jax.tree.map(jnp.asarray, intervention)
