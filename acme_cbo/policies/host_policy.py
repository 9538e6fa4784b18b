"""Policies that `jit` can trace, compiled for data in float64 on the host."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax import flatten_util
import numpy as np

from acme_cbo import types
from acme_cbo.environments import normalization
from acme_cbo.policies import base


def compiled(
  make: Callable[[Any], base.Policy], like: Any = ()
) -> Callable[[Any], base.Policy]:
  """Policies as ones of the host, to be called where float64 is in force.

  They differ in their parameters alone and share their programs. Data are
  brought to units in which they are of size 1 before they become float32: a
  policy loses no digits of a variable that is far from 0 or hardly moves. It
  must not depend on units, as none in `policies` does.

  Args:
    make: parameters -> a policy whose programs are of float32, as in training.
    like: any such parameters.

  Returns:
    Parameters -> a policy of numpy arrays, compiled inside. `observe` consumes
    the memory.
  """
  with jax.enable_x64(False):
    # One array: each one that is handed over costs as much as some layers do.
    _, unravel = flatten_util.ravel_pytree(like)

  def program(name, **options):
    def called(flat, *args):
      return getattr(make(unravel(flat)), name)(*args)

    return jax.jit(called, **options)

  programs = _Programs(
    program('init', static_argnums=3),
    program('choose'),
    program('recommend'),
    # Written in place: copies of what has not changed would cost as much as a
    # small network does.
    program('observe', donate_argnums=1),
  )

  def of(params):
    with jax.enable_x64(False):
      flat, _ = flatten_util.ravel_pytree(params)
    return _on_host(programs, flat, make(params))

  return of


class _Programs(NamedTuple):
  """Functions of a policy, compiled, of parameters in one array before all."""

  init: Callable[..., Any]
  choose: Callable[..., Any]
  recommend: Callable[..., Any]
  observe: Callable[..., Any]


def _on_host(
  programs: _Programs, flat: jax.Array, policy: base.Policy
) -> base.Policy:
  """The policy of some parameters."""

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

  return base.Policy(
    init,
    choose,
    observe,
    recommend,
    lambda memory: policy.belief_states(memory[-1]),
    parents,
  )
