"""Policies compiled for use on the host, on data in float64."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax import flatten_util
import numpy as np

from acme_cbo import types
from acme_cbo.environments import normalization
from acme_cbo.policies import base


def compiled(
  make: Callable[[Any], base.PolicyFunctions], like: Any = ()
) -> Callable[[Any], base.PolicyFunctions]:
  """Returns a function that makes compiled policies for the host.

  The policies differ only in their parameters and share their programs. Data
  are normalized by `normalization.UnitConverter` before they become float32, so
  that a variable that is far from 0 or hardly varies loses no digits. The
  policy must not depend on units; no policy of this package does.

  Args:
    make: parameters -> a policy in float32, as in training, that `jit` can
      trace.
    like: example of the parameters.

  Returns:
    Parameters -> a policy on numpy arrays. Its `observe` consumes the memory.
  """
  with jax.enable_x64(False):
    # One array: passing an array costs as much as some layers do.
    _, unravel = flatten_util.ravel_pytree(like)

  def program(name, **options):
    def called(flat, *args):
      return getattr(make(unravel(flat)), name)(*args)

    return jax.jit(called, **options)

  programs = _Programs(
    program('init', static_argnums=3),
    program('choose'),
    program('recommend'),
    # Updated in place: copying the unchanged part of the memory would cost as
    # much as a small network.
    program('observe', donate_argnums=1),
  )

  def with_params(params):
    with jax.enable_x64(False):
      flat, _ = flatten_util.ravel_pytree(params)
    return _on_host(programs, flat, make(params))

  return with_params


class _Programs(NamedTuple):
  """Compiled functions of a policy; the first argument is the parameters."""

  init: Callable[..., Any]
  choose: Callable[..., Any]
  recommend: Callable[..., Any]
  observe: Callable[..., Any]


def _on_host(
  programs: _Programs, flat: jax.Array, policy: base.PolicyFunctions
) -> base.PolicyFunctions:
  """Returns the policy with these parameters."""

  def init(problem, observations, num_interventions):
    units = normalization.UnitConverter.fit(problem, observations)
    rows = units.to_normalized(observations)
    with jax.enable_x64(False):
      memory = programs.init(flat, units.problem, rows, num_interventions)
    return units, memory

  def choose(key, memory):
    units, inner = memory
    with jax.enable_x64(False):
      chosen = programs.choose(flat, key, inner)
    return units.to_own_intervention(chosen)

  def observe(memory, step, intervention, outcome):
    units, inner = memory
    mask = np.asarray(intervention.mask)
    values = np.where(
      mask, units.to_normalized(intervention.values), np.float32(0)
    )
    made = types.Intervention._make((mask, values))
    with jax.enable_x64(False):
      inner = programs.observe(
        flat, inner, step, made, units.to_normalized(outcome)
      )
    return units, inner

  def recommend(memory):
    units, inner = memory
    with jax.enable_x64(False):
      recommended = programs.recommend(flat, inner)
    return units.to_own_intervention(recommended)

  def parents(states):
    with jax.enable_x64(False):
      return policy.parents(states)

  return base.PolicyFunctions(
    init,
    choose,
    observe,
    recommend,
    lambda memory: policy.belief_states(memory[-1]),
    parents,
  )
