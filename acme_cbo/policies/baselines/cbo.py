"""Causal Bayesian optimization, which is given the true graph."""

import functools
from typing import NamedTuple

import numpy as np

from acme_cbo import types
from acme_cbo.infra import errors
from acme_cbo.policies import base
from acme_cbo.policies.baselines import causal_prior
from acme_cbo.policies.baselines import identification
from acme_cbo.policies.baselines import search

# Number of draws that a causal prior propagates.
_NUM_DRAWS = 64


def cbo(scm: types.SCM) -> base.PolicyFunctions:
  """Returns the policy of causal Bayesian optimization, given the true graph.

  It follows Aglietti et al., "Causal Bayesian Optimization" (2020). Each
  allowed, possibly optimal set has its own Gaussian process. The prior mean is
  the estimate of E[Y | do] from the observations, and the kernel is
  `gaussian_processes.Kernel`, with s the estimated standard deviation of Y
  under do(). If the effect of a set is not identified by
  `identification.is_identified`, the prior mean is that of the observations and
  s is 0. The next intervention maximizes the expected improvement per cost,
  over all sets.

  It differs from the paper in four ways. Every step is an intervention: all
  observations are given at the start, so that there is no choice between
  observing and intervening. There are no initial interventional data: the first
  improvement is over the mean of the observations. The improvement is averaged
  over hyperparameters, see `gaussian_processes.sample`; otherwise the search
  often stays at the first local optimum. The improvement takes the noise of
  outcomes into account, see `search`.

  Args:
    scm: SCM of which only the graph is used.

  Returns:
    The policy. It recommends the intervention with the highest posterior mean
    among those that it made.
  """
  graph = identification.observed_graph(scm)

  def possibly_optimal(problem):
    sets = identification.possibly_optimal_sets(scm._replace(problem=problem))
    if not sets:
      raise errors.UsageError(
        'by the graph, no allowed set affects the target; allow interventions '
        'on an ancestor of the target'
      )
    return sets

  return search.policy(
    search.Search(
      sets=possibly_optimal,
      prior=search.Prior(functools.partial(_fit_causal, graph), _causal),
      per_cost=True,
      num_initial=lambda masks: 0,
      own_units=False,
    )
  )


class _CausalState(NamedTuple):
  """Inputs of the causal prior of a set, see `causal_prior.predict`.

  Attributes:
    regressions: regressions of all variables.
    mask: [D] bool, the set.
    role: [D] int32, from `causal_prior.roles`.
    low: [D] lower ends of the domains, standardized.
    width: [D] widths of the domains, standardized.
    goal: [] +1 to maximize the target, -1 to minimize it.
  """

  regressions: causal_prior.Regressions
  mask: np.ndarray
  role: np.ndarray
  low: np.ndarray
  width: np.ndarray
  goal: np.ndarray


def _fit_causal(graph, problem, standardized, masks):
  """Returns one `_CausalState` per set; `search.Prior.fit` of this method."""
  target = int(np.argmax(problem.target))
  factors = identification.factorize(graph, target)
  rows, location, scale = standardized
  regressions = causal_prior.fit(factors, target, rows, _NUM_DRAWS)

  def state(mask):
    role = causal_prior.roles(factors, target, mask)
    identified = identification.is_identified(
      graph, target, np.flatnonzero(mask)
    )
    return _CausalState(
      regressions=regressions,
      mask=mask,
      # If no variable has a role, mean and s are 0.
      role=role if identified else np.zeros_like(role),
      low=(problem.low - location) / scale,
      width=(problem.high - problem.low) / scale,
      goal=problem.goal,
    )

  return [state(mask) for mask in masks]


def _causal(state, fractions):
  """Predicts the target; `search.Prior.evaluate` of this method."""
  values = state.low + fractions * state.width
  mean, deviation = causal_prior.predict(
    state.regressions, state.mask, state.role, values
  )
  return state.goal * mean, deviation
