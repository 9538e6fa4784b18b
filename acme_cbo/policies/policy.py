"""Trained policies for use from Python, on arrays and named variables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
import functools
import numbers
import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from acme_cbo import types
from acme_cbo.environments import environment
from acme_cbo.environments import problem as problem_lib
from acme_cbo.infra import errors
from acme_cbo.policies import base
from acme_cbo.policies import host_policy
from acme_cbo.policies import prediction
from acme_cbo.policies import saving
from acme_cbo.policies import trained
from acme_cbo.scms import intervention_sets
from acme_cbo.scms import interventions
from acme_cbo.scms import known_edges


def load_policy(path: str | os.PathLike[str] | None = None) -> Policy:
  """Loads a trained policy.

  Args:
    path: directory of a run, or of a saved policy; without it, the policy that
      comes with the package.

  Returns:
    The `Policy`.

  Raises:
    UsageError: the directory holds no policy, or a damaged one.

  Example:
    >>> import acme_cbo
    >>> policy = acme_cbo.load_policy()
    >>> policy.metadata['horizon']['num_interventions']
    40
  """
  return _shipped() if path is None else _load(path)


@functools.cache
def _shipped() -> Policy:
  """Returns the policy of the package, whose programs all users share."""
  return _load(None)


def _load(path: str | os.PathLike[str] | None) -> Policy:
  return Policy(saving.load(saving.directory(path)))


class Policy:
  """A trained policy: it chooses interventions on systems it has never seen.

  Attributes:
    metadata: what the policy was trained for, as its `policy.json` has it.

  Example:
    Ten interventions on a system of three variables, here a simulated one:

    >>> import acme_cbo
    >>> import numpy as np
    >>> import pandas as pd
    >>> rng = np.random.default_rng(0)
    >>> def experiment(do):
    ...   x = do.get('x', rng.normal())
    ...   z = do.get('z', -x + 0.1 * rng.normal())
    ...   return {'x': x, 'z': z, 'y': -((z - 1) ** 2) + 0.1 * rng.normal()}
    >>> records = pd.DataFrame([experiment({}) for _ in range(50)])
    >>> session = acme_cbo.load_policy().start(
    ...   records, target='y', goal='maximize',
    ...   domains={'x': (-3, 3), 'z': (-3, 3)}, num_interventions=10)
    >>> for _ in range(10):
    ...   do = session.choose()
    ...   session.observe(experiment(do))
    >>> sorted(session.recommend()) in (['x'], ['z'])
    True
  """

  def __init__(self, saved: saving.TrainedPolicy):
    """Wraps a saved policy; see `load_policy`.

    Args:
      saved: the policy as it was read.
    """
    self.metadata: Mapping[str, Any] = saved.metadata
    self._saved = saved
    self._functions: dict[int, base.PolicyFunctions] = {}

  def start(
    self,
    observations: Any,
    variables: Sequence[str] | None = None,
    *,
    target: str,
    domains: Mapping[str, tuple[float, float]],
    num_interventions: int,
    goal: str = 'maximize',
    max_set_size: int = 1,
    costs: Mapping[str, float] | None = None,
    budget: float | None = None,
    edges: Mapping[str, Sequence[Any]] | None = None,
    seed: int = 0,
  ) -> Session:
    """Starts a sequence of interventions on one system.

    Args:
      observations: [N, D] passive records, at least 2: an array, or a DataFrame
        with a column for each variable.
      variables: names of the D columns of an array; of a DataFrame, names of
        the columns to use, by default all of them.
      target: name of the variable to optimize.
      domains: {variable: (low, high)} of each variable that may be set.
      num_interventions: T, number of interventions that are planned.
      goal: 'maximize' or 'minimize'.
      max_set_size: number of variables that one intervention sets at most.
      costs: {variable: cost of setting it once}; 1 where it is left out.
      budget: maximum total cost of all interventions; None is unlimited.
      edges: what is known of the graph, {'required': ['dose -> yield'],
        'forbidden': ['yield -> dose']}; either may be missing.
      seed: seed of the policy's draws.

    Returns:
      The `Session`.

    Raises:
      UsageError: an argument cannot be used; the sentence names it.
    """
    columns = list(getattr(observations, 'columns', ()))
    if variables is None and not columns:
      raise errors.UsageError(
        'name the columns of the observations: variables=[...]'
      )
    names = columns if variables is None else list(variables)
    if (
      not isinstance(num_interventions, numbers.Integral)
      or num_interventions < 1
    ):
      raise errors.UsageError(
        f'num_interventions is {num_interventions!r}; it must be an int of 1 '
        'or more'
      )
    problem = problem_lib.make(
      names, target, goal, domains, max_set_size, costs, budget
    )
    known = known_edges.parse(edges, names)
    if known is not None:
      problem = problem._replace(edges=jnp.asarray(known))
    for name in names if columns else []:
      if name not in columns:
        hint = errors.did_you_mean_or_options(
          str(name), list(map(str, columns))
        )
        raise errors.UsageError(
          f'the observations have no column {name!r}{hint}'
        )
    rows = _rows(observations[names] if columns else observations, names)
    functions = self.functions(intervention_sets.max_size(problem))
    return Session(functions, problem, names, rows, num_interventions, seed)

  def functions(self, max_set_size: int) -> base.PolicyFunctions:
    """Returns functions on numpy arrays, with which `Session` acts.

    They compile when they are first called, once for each shape of problem, and
    are kept in the cache of compiled programs.

    Args:
      max_set_size: number of variables that one intervention sets at most.
    """
    if max_set_size not in self._functions:
      saved = self._saved
      self._functions[max_set_size] = host_policy.compiled(
        lambda params: trained.deployed(saved.network, params, max_set_size),
        saved.params,
        [vars(saved.architecture), max_set_size],
      )(saved.params)
    return self._functions[max_set_size]


class Session:
  """A sequence of interventions on one system; made by `Policy.start`.

  Attributes:
    variables: names of the D variables.
    num_observed: number of outcomes observed so far.
  """

  def __init__(
    self,
    functions: base.PolicyFunctions,
    problem: types.Problem,
    variables: Sequence[str],
    observations: np.ndarray,
    num_interventions: int,
    seed: int,
  ):
    """Takes in the passive records.

    Args:
      functions: functions of the policy, for the host.
      problem: target, goal, domains, costs and budget.
      variables: names of the D variables.
      observations: [N, D] passive records.
      num_interventions: T, number of interventions that are planned.
      seed: seed of the policy's draws.
    """
    self.variables = tuple(variables)
    self.num_observed = 0
    self._functions = functions
    self._problem = problem
    self._num_interventions = num_interventions
    self._key = jax.random.PRNGKey(seed)
    self._chosen: types.Intervention | None = None
    self._made: list[types.Intervention] = []
    self._spent = 0.0
    self._memory = functions.init(problem, observations, num_interventions)

  def choose(self) -> dict[str, float]:
    """Returns the next intervention: {variable: value to set it to}.

    Raises:
      UsageError: all planned interventions were made, or the rest of the budget
        pays for none.
    """
    self._check_open()
    if intervention_sets.is_exhausted(self._problem, jnp.asarray(self._spent)):
      raise errors.UsageError(
        f'the budget is spent: {self._spent:g} of '
        f'{float(self._problem.budget):g}'
      )
    key = jax.random.fold_in(self._key, self.num_observed)
    self._chosen = self._functions.choose(key, self._memory)
    return self._named(self._chosen)

  def observe(
    self,
    outcome: Mapping[str, float] | pd.Series | Sequence[float] | np.ndarray,
    do: Mapping[str, float] | None = None,
  ) -> None:
    """Takes in the outcome of an intervention.

    Args:
      outcome: values of all variables: a dict or a Series by name, or values in
        the order of `variables`.
      do: the intervention that was made: {variable: value}; the one that was
        chosen last where it is left out.

    Raises:
      UsageError: a value is missing or not finite, the intervention is not
        allowed or costs more than the rest of the budget, or there is none to
        observe the outcome of.
    """
    self._check_open()
    row = _row(outcome, self.variables)
    made = self._chosen if do is None else self._intervention(do)
    if made is None:
      raise errors.UsageError(
        'no intervention was chosen since the last outcome: choose() first, or '
        'say which one was made, as do={...}'
      )
    cost = float(np.asarray(made.mask) @ self._problem.cost)
    budget = float(self._problem.budget)
    if not intervention_sets.is_within_budget(budget, self._spent + cost):
      raise errors.UsageError(
        f'the intervention costs {cost:g}; of the budget of {budget:g}, '
        f'{budget - self._spent:g} is left'
      )
    self._memory = self._functions.observe(
      self._memory, self.num_observed, made, row
    )
    self._made.append(made)
    self._spent += cost
    self.num_observed += 1
    self._chosen = None

  def recommend(self) -> dict[str, float]:
    """Returns the best intervention found: {variable: value}.

    It is one of those that were made, or, before the first one, the one that
    the policy holds to be best.
    """
    found = self._functions.recommend(self._memory)
    # The policy computes in float32, which moves the values a little.
    made = [x for x in self._made if np.array_equal(x.mask, found.mask)]
    width = np.where(found.mask, self._problem.high - self._problem.low, 1.0)
    return self._named(
      min(
        made,
        key=lambda x: np.abs((x.values - found.values) / width).max(),
        default=found,
      )
    )

  def predict(self, do: Mapping[str, float]) -> prediction.Estimate:
    """Predicts the target under an intervention.

    Args:
      do: {variable: value} of variables that have a domain; the values, and the
        set of variables, need not be allowed ones.

    Returns:
      The expected target with its interval of 90 %, and that of one more
      outcome, in the target's own units.

    Raises:
      UsageError: a variable is unknown or has no domain, or a value is not
        finite.
    """
    if not do:
      raise errors.UsageError('give one or more values: {variable: value}')
    asked = interventions.from_names(do, self.variables)
    settable = np.asarray(self._problem.settable)
    for j in np.flatnonzero(asked.mask & ~settable):
      raise errors.UsageError(
        f'{self.variables[j]!r} has no domain, so that nothing is known of '
        'setting it'
      )
    return base.predict_one(self._functions, self._memory, asked).estimate

  def parent_probabilities(self) -> dict[str, float]:
    """Returns {variable: probability that it is a direct cause of the target}.

    It is the belief of the network, after the latest outcome.
    """
    (belief,) = base.parent_probabilities(
      self._functions, self._memory
    ).values()
    candidates = ~np.asarray(self._problem.target)
    return {
      name: float(probability)
      for name, probability, is_candidate in zip(
        self.variables, belief, candidates, strict=True
      )
      if is_candidate
    }

  def _check_open(self):
    if self.num_observed >= self._num_interventions:
      raise errors.UsageError(
        f'all {self._num_interventions} interventions were made; start a new '
        'session with a larger num_interventions'
      )

  def _named(self, intervention):
    mask, values = map(np.asarray, intervention)
    return {self.variables[j]: float(values[j]) for j in np.flatnonzero(mask)}

  def _intervention(self, do):
    intervention = interventions.from_names(do, self.variables)
    try:
      environment.check_intervention(
        self._problem, intervention, self.variables
      )
    except ValueError as error:
      raise errors.UsageError(f'do={dict(do)}: {error}') from error
    return intervention


def _rows(observations: Any, names: Sequence[str]) -> np.ndarray:
  """Returns [N, D] observations as floats, checked."""
  if np.ma.is_masked(observations):
    raise errors.UsageError('observations has masked (missing) values')
  try:
    rows = np.asarray(observations)
  except ValueError as error:
    raise errors.UsageError(f'observations: {error}') from error
  if rows.ndim != 2 or rows.shape[1] != len(names):
    raise errors.UsageError(
      f'observations have the shape {rows.shape}; they must be rows of '
      f'{len(names)} values, one for each of {", ".join(map(str, names))}'
    )
  if len(rows) < 2:
    raise errors.UsageError(
      f'{len(rows)} observations; there must be 2 or more'
    )
  if rows.dtype.kind not in 'iuf':
    rows = np.vectorize(interventions.to_float, [float])(rows)
  for i, j in np.argwhere(~np.isfinite(rows)):
    value = np.asarray(observations)[i, j]
    raise errors.UsageError(
      f'observation {i} of {names[j]!r} is {_shown(value)}; it must be a '
      'finite number'
    )
  return rows.astype(np.float64)


def _row(outcome: Any, names: Sequence[str]) -> np.ndarray:
  """Returns [D] an outcome as floats, checked."""
  if isinstance(outcome, pd.Series):
    outcome = outcome.to_dict()
  if isinstance(outcome, Mapping):
    missing = [name for name in names if name not in outcome]
    unknown = [name for name in outcome if name not in names]
    if missing or unknown:
      raise errors.UsageError(
        f'the outcome has no value of {missing[0]!r}'
        if missing
        else f'the outcome has a value of {unknown[0]!r}, which is no variable'
      )
    outcome = [outcome[name] for name in names]
  values = list(outcome) if isinstance(outcome, Iterable) else [outcome]
  if len(values) != len(names):
    raise errors.UsageError(
      f'the outcome has {len(values)} values; it must have {len(names)}, one '
      f'for each of {", ".join(map(str, names))}'
    )
  for name, value in zip(names, values, strict=True):
    if not np.isfinite(interventions.to_float(value)):
      raise errors.UsageError(
        f'the outcome of {name!r} is {_shown(value)}; it must be a finite '
        'number'
      )
  return np.array(values, np.float64)


def _shown(value: Any) -> str:
  """Returns a wrong value for an error message: nan, but 'nan' in quotes."""
  return str(value) if isinstance(value, float) else repr(value)
