"""Construction of named SCMs from numpy arrays."""

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
  edges: np.ndarray | None = None,
  hint: dict[int, float] | None = None,
  fit: systems.FitQuality | None = None,
) -> systems.System:
  """Builds a system in which one outcome per intervention is observed.

  Arguments of shape [D] may also be scalars, which apply to all variables.

  Args:
    name: name of the system.
    source: one line on its origin.
    variables: names of the D variables.
    parents: [D, D] bool, `parents[j, i]`, acyclic.
    target: index of the variable to optimize.
    goal: 1 to maximize it, -1 to minimize it.
    sets: [M, D] bool, the sets of variables that may be set together.
    low: [D] lower ends of the domains.
    high: [D] upper ends of the domains.
    mechanism: structural equations, see `equations`.
    family: a `mechanisms.Family`, or `systems.NO_KIND`. Expectations of the
      LINEAR family are computed in closed form.
    graph: a `graphs.Graph`, or `systems.NO_KIND`.
    latent: [D] whether a variable is latent.
    location: [D] origins of the variables' units.
    scale: [D] sizes of the variables' units.
    cost: [D] cost of setting each variable.
    budget: maximum total cost of all interventions.
    edges: [D, D] what is known of the graph, as `types.Problem.edges`.
    hint: mapping from variable to value of the best intervention, if known.
    fit: how well the equations fit the data, if they were fitted.

  Returns:
    The system, in the current precision.
  """
  num_variables = len(variables)

  def broadcast(value, dtype: type = float):
    return np.broadcast_to(np.asarray(value, dtype), num_variables)

  latent = broadcast(latent, bool)
  scm = types.SCM(
    problem=types.Problem(
      **_arrays(
        exists=~latent,
        sets=sets,
        target=np.arange(num_variables) == target,
        goal=float(goal),
        low=np.where(latent, 0.0, low),
        high=np.where(latent, 0.0, high),
        cost=broadcast(cost),
        budget=budget,
        samples=1.0,
        **({} if edges is None else {'edges': edges}),
      )
    ),
    mechanism=mechanism,
    **_arrays(
      present=broadcast(True, bool),
      parents=parents,
      order=np.array(graph_files.causal_order(parents), np.int32),
      location=broadcast(location),
      scale=broadcast(scale),
      graph=np.int32(graph),
      family=np.int32(family),
    ),
  )
  best = None
  if hint is not None:
    mask, values = np.zeros(num_variables, bool), np.zeros(num_variables)
    mask[list(hint)], values[list(hint)] = True, list(hint.values())
    best = types.Intervention(**_arrays(mask=mask, values=values))
  return systems.System(name, source, tuple(variables), scm, best, fit)


def equations(num_variables: int, **fields: Any) -> types.Mechanism:
  """Builds structural equations from fields that differ from the defaults.

  Args:
    num_variables: number of variables, D.
    **fields: fields of `types.Mechanism`, as numpy arrays. By default every
      variable equals its noise, which is standard normal.

  Returns:
    The mechanism, in the current precision.
  """
  num_hidden = fields['output'].shape[1] if 'output' in fields else 1
  units = (num_variables, num_hidden)
  defaults = dict(
    bias=np.zeros(num_variables),
    linear=np.zeros((num_variables, num_variables)),
    hidden=np.zeros((*units, num_variables)),
    shift=np.zeros(units),
    output=np.zeros(units),
    activation=np.full(num_variables, mechanisms.Activation.COSINE, np.int32),
    noise=np.full(num_variables, mechanisms.Noise.NORMAL, np.int32),
    noise_scale=np.ones(num_variables),
  )
  return types.Mechanism(**_arrays(**(defaults | fields)))


def _arrays(**values: Any) -> dict[str, Any]:
  return {name: jnp.asarray(value) for name, value in values.items()}
