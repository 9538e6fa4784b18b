"""Policies that `jit` can trace, compiled for data in float64 on the host."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax import flatten_util
import jax.numpy as jnp
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

  def scaled(units, values):
    return np.float32((np.asarray(values) - units.location) / units.scale)

  def own(memory, intervention):
    """In the variables' own units, to the bit at the ends of a domain."""
    problem, units, _ = memory
    mask, values = (np.asarray(leaf) for leaf in intervention)
    values = np.clip(
      units.location + units.scale * values.astype(np.float64),
      problem.low,
      problem.high,
    )
    return types.Intervention._make((mask, np.where(mask, values, 0.0)))

  def init(problem, observations, num_interventions):
    problem = jax.tree.map(np.asarray, problem)
    rows = jnp.asarray(observations, jnp.float64)
    units = jax.tree.map(np.asarray, normalization.fit(problem, rows))
    seen = jax.tree.map(
      lambda leaf: leaf if leaf.dtype == bool else np.float32(leaf),
      problem._replace(
        low=scaled(units, problem.low), high=scaled(units, problem.high)
      ),
    )
    with jax.enable_x64(False):
      memory = programs.init(flat, seen, scaled(units, rows), num_interventions)
    return problem, units, memory

  def choose(key, memory):
    with jax.enable_x64(False):
      chosen = programs.choose(flat, key, memory[-1])
    return own(memory, chosen)

  def observe(memory, step, intervention, outcome):
    problem, units, inner = memory
    mask = np.asarray(intervention.mask)
    values = np.where(mask, scaled(units, intervention.values), np.float32(0))
    done = types.Intervention._make((mask, values))
    with jax.enable_x64(False):
      inner = programs.observe(flat, inner, step, done, scaled(units, outcome))
    return problem, units, inner

  def recommend(memory):
    with jax.enable_x64(False):
      recommended = programs.recommend(flat, memory[-1])
    return own(memory, recommended)

  def parents(states):
    with jax.enable_x64(False):
      return policy.parents(states)

  return base.Policy(
    init,
    choose,
    observe,
    recommend,
    lambda memory: policy.believed(memory[-1]),
    parents,
  )
