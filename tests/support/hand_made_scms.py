"""SCMs for tests, small enough for calculations by hand."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from acme_cbo import types
from acme_cbo.scms import graphs
from acme_cbo.scms import mechanisms


def _on_device(arrays: dict[str, Any]) -> dict[str, jax.Array]:
  """Converts arrays to jax, without a compiled program for each shape."""
  return jax.tree.map(jnp.asarray, arrays)


def mechanism(
  num_variables: int, num_hidden: int = 1, **fields
) -> types.Mechanism:
  """Builds a mechanism; by default every variable is standard normal noise."""
  units = (num_variables, num_hidden)
  arrays: dict[str, Any] = dict(
    bias=np.zeros(num_variables),
    linear=np.zeros((num_variables, num_variables)),
    hidden=np.zeros((*units, num_variables)),
    shift=np.zeros(units),
    output=np.zeros(units),
    activation=np.full(num_variables, mechanisms.Activation.TANH, np.int32),
    noise=np.full(num_variables, mechanisms.Noise.NORMAL, np.int32),
    noise_scale=np.ones(num_variables),
  )
  for name, value in fields.items():
    default = arrays[name]
    array = np.asarray(value, default.dtype)
    arrays[name] = np.broadcast_to(array, default.shape)
  return types.Mechanism(**_on_device(arrays))


def problem(
  num_variables: int,
  target: int,
  settable=None,
  goal: float = 1.0,
  low=-1.0,
  high=1.0,
  size: int | None = None,
  sets=None,
  budget: float = np.inf,
) -> types.Problem:
  """Builds a problem; by default all but the target may be set, one by one."""
  column = np.arange(num_variables)
  exists = column < (num_variables if size is None else size)
  is_target = column == target
  allowed = exists & ~is_target
  if settable is not None:
    allowed = np.isin(column, settable)
  arrays = dict(
    exists=exists,
    sets=np.diag(allowed) if sets is None else np.asarray(sets, bool),
    target=is_target,
    goal=np.float32(goal),
    low=np.where(exists, low, 0.0),
    high=np.where(exists, high, 0.0),
    cost=np.ones(num_variables),
    budget=np.float32(budget),
    samples=np.float32(1),
  )
  return types.Problem(**_on_device(arrays))


def scm(
  equations: types.Mechanism,
  public: types.Problem,
  order=None,
  location=0.0,
  scale=1.0,
  family: mechanisms.Family = mechanisms.Family.LINEAR,
) -> types.SCM:
  """Builds an SCM, with the parents that have nonzero weights."""
  num_variables = equations.bias.size
  parents = (equations.linear != 0) | (equations.hidden != 0).any(1)
  order = np.arange(num_variables) if order is None else order
  arrays = dict(
    order=np.asarray(order, np.int32),
    location=np.broadcast_to(np.float32(location), num_variables),
    scale=np.broadcast_to(np.float32(scale), num_variables),
    graph=np.int32(graphs.Graph.ERDOS_RENYI),
    family=np.int32(family),
  )
  return types.SCM(
    problem=public,
    mechanism=equations,
    present=public.exists,
    parents=parents,
    **_on_device(arrays),
  )


def do(settings: dict[int, float], num_variables: int) -> types.Intervention:
  """Returns the intervention {variable: value} on D variables."""
  mask, values = np.zeros(num_variables, bool), np.zeros(num_variables)
  for variable, value in settings.items():
    mask[variable], values[variable] = True, value
  return types.Intervention(**_on_device(dict(mask=mask, values=values)))


def chain(goal: float = 1.0, **units) -> types.SCM:
  """Returns x0 = e0, x1 = 1 + 2 x0 + e1, target x2 = -x1 + e2, padding x3.

  Without an intervention x1 has the mean 1 and the target -1.
  do(x0) in [-1, 2] gives the target the mean -1 - 2 x0, do(x1) in [-0.5, 2]
  gives it -x1.
  """
  linear = np.zeros((4, 4))
  linear[1, 0], linear[2, 1] = 2.0, -1.0
  return scm(
    mechanism(4, bias=[0.0, 1.0, 0.0, 0.0], linear=linear),
    problem(4, 2, goal=goal, low=[-1.0, -0.5, 0.0, 0.0], high=2.0, size=3),
    **units,
  )
