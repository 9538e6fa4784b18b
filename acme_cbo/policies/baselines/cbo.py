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

# Draws that a causal prior propagates.
_DRAWS = 64


def cbo(scm: types.SCM) -> base.Policy:
  """Causal Bayesian optimisation, told the true graph.

  Aglietti et al., "Causal Bayesian Optimization" (2020): one process for each
  possibly-optimal set that is allowed. Its prior mean is the estimate of
  E[Y | do] from the observations and its kernel has the term of `gp.Kernel`,
  with s the estimated deviation of Y under do(). Where the graph does not
  identify the effect of a set by `identification.is_identified`, the mean is
  that of the observations and s is 0. What is set next has the largest expected
  improvement by cost, over all sets.

  It departs from the paper in four ways. Every step is an intervention: all
  observations are given at the start, so that there is no choice between
  observing and intervening. No interventional data are given: the first
  improvement is over the mean of the observations. The improvement is averaged
  over hyperparameters, `gp.sample`, without which it often stays at the first
  local optimum. And it counts the noise of outcomes, see `_improve`.

  Args:
    scm: whose graph is told, and nothing else of it.

  Returns:
    The policy. It recommends the intervention of the highest posterior mean
    among those that it tried.
  """
  graph = identification.observed_graph(scm)

  def possibly_optimal(problem):
    sets = identification.possibly_optimal_sets(scm._replace(problem=problem))
    if not sets:
      raise errors.UsageError(
        'no allowed set has an effect on the target by the graph; allow one of '
        'its ancestors to be set'
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
  """What a causal prior knows of a set, see `causal_prior.predict`."""

  regressions: causal_prior.Regressions
  mask: np.ndarray
  role: np.ndarray
  low: np.ndarray
  width: np.ndarray
  goal: np.ndarray


def _fit_causal(graph, problem, standardised, masks):
  target = int(np.argmax(problem.target))
  factors = identification.factorise(graph, target)
  rows, location, scale = standardised
  regressions = causal_prior.fit(factors, target, rows, _DRAWS)

  def of(mask):
    role = causal_prior.roles(factors, target, mask)
    known = identification.is_identified(graph, target, np.flatnonzero(mask))
    return _CausalState(
      regressions=regressions,
      mask=mask,
      # With nothing propagated the mean and s are 0.
      role=role if known else np.zeros_like(role),
      low=(problem.low - location) / scale,
      width=(problem.high - problem.low) / scale,
      goal=problem.goal,
    )

  return [of(mask) for mask in masks]


def _causal(state, fractions):
  values = state.low + fractions * state.width
  mean, deviation = causal_prior.predict(
    state.regressions, state.mask, state.role, values
  )
  return state.goal * mean, deviation
