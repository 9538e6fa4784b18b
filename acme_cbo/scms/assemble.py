"""Puts a named SCM together from arrays of numpy."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from acme_cbo import types
from acme_cbo.scms import graphs
from acme_cbo.scms import mechanisms
from acme_cbo.scms import systems
from acme_cbo.scms.files import graph_files


def system(
  name: str,
  source: str,
  variables: Sequence[str],
  *,
  parents: np.ndarray,
  target: int,
  goal: float,
  sets: np.ndarray,
  low: Any,
  high: Any,
  mechanism: Any,
  family: int,
  graph: int = graphs.Graph.ERDOS_RENYI,
  latent: Any = False,
  location: Any = 0.0,
  scale: Any = 1.0,
  cost: Any = 1.0,
  budget: float = np.inf,
  hint: dict[int, float] | None = None,
) -> systems.System:
  """A system of which one outcome of each experiment is watched.

  Args:
    name: what the system is called.
    source: where it comes from.
    variables: D names.
    parents: [D, D] bool, `parents[j, i]`, without a cycle.
    target: the variable to optimise.
    goal: 1 to maximise it, -1 to minimise it.
    sets: [M, D] bool, which variables may be set together.
    low: [D], or for all, lower ends of the domains.
    high: [D], or for all, upper ends of the domains.
    mechanism: the structural equations, see `equations`.
    family: for reports, and the LINEAR one has expectations in closed form;
      `systems.NO_KIND` if it is of none.
    graph: for reports alone.
    latent: [D], or for all, whether nobody watches.
    location: [D], or for all, the origins of the variables' units.
    scale: [D], or for all, the sizes of the variables' units.
    cost: [D], or for all, of setting each.
    budget: of cost, for all interventions together.
    hint: {variable: its value} of the best intervention.

  Returns:
    The system, in the precision that is current.
  """
  num_variables = len(variables)

  def each(value, dtype: type = float):
    return np.broadcast_to(np.asarray(value, dtype), num_variables)

  latent = each(latent, bool)
  scm = types.SCM(
    problem=types.Problem(
      **_arrays(
        exists=~latent,
        sets=sets,
        target=np.arange(num_variables) == target,
        goal=float(goal),
        low=np.where(latent, 0.0, low),
        high=np.where(latent, 0.0, high),
        cost=each(cost),
        budget=budget,
        samples=1.0,
      )
    ),
    mechanism=mechanism,
    **_arrays(
      present=each(True, bool),
      parents=parents,
      order=np.array(graph_files.causal_order(parents), np.int32),
      location=each(location),
      scale=each(scale),
      graph=np.int32(graph),
      family=np.int32(family),
    ),
  )
  best = None
  if hint is not None:
    mask, values = np.zeros(num_variables, bool), np.zeros(num_variables)
    mask[list(hint)], values[list(hint)] = True, list(hint.values())
    best = types.Intervention(**_arrays(mask=mask, values=values))
  return systems.System(name, source, tuple(variables), scm, best)


def equations(num_variables: int, **fields: Any) -> types.Mechanism:
  """Structural equations from what of them is not as usual.

  Args:
    num_variables: D.
    **fields: of `types.Mechanism`, as arrays of numpy; without any, a variable
      is its noise, which is standard normal.

  Returns:
    The mechanism, in the precision that is current.
  """
  num_hidden = fields['output'].shape[1] if 'output' in fields else 1
  units = (num_variables, num_hidden)
  usual = dict(
    bias=np.zeros(num_variables),
    linear=np.zeros((num_variables, num_variables)),
    hidden=np.zeros((*units, num_variables)),
    shift=np.zeros(units),
    output=np.zeros(units),
    activation=np.full(num_variables, mechanisms.Activation.COSINE, np.int32),
    noise=np.full(num_variables, mechanisms.Noise.NORMAL, np.int32),
    noise_scale=np.ones(num_variables),
  )
  return types.Mechanism(**_arrays(**(usual | fields)))


def _arrays(**values: Any) -> dict[str, Any]:
  return {name: jnp.asarray(value) for name, value in values.items()}
