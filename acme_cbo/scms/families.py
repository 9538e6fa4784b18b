"""Families of random SCMs, and three published networks of genes and crops.

`FAMILIES[name](repeat)` returns an SCM. It depends on the name and the repeat
only, not on the precision: numpy draws it, because draws of `jax.random` depend
on the precision. Every variable except the target may be set, one at a time.
Values are in the variables' own units.

- `chain_N`, `fork_N`, `star_N`, `sparse_N`, with N of 3, 5, 8, 10, 20, 30:
  linear; weights with a random sign and a magnitude of 0.5 to 1.5, noise with a
  standard deviation of 0.8 to 1.2, domains [-3, 3]. The target is maximized. It
  is the last variable of a chain, one of the effects of a fork, and the effect
  of a star. `sparse_N` has Erdos-Renyi graphs of expected degree 2.
- `er_linear_N`, `er_tanh_N`, with N of 10, 15, 20, 50, from Durand et al.,
  2025, "Causal Bayesian Optimization with Unknown Graphs"
  (https://arxiv.org/abs/2503.19554): Erdos-Renyi graphs with edge probability
  1 / (N - 1), domains [-5, 5]. Linear equations have weights N(2, 1) and noise
  of deviation 1; the others are networks of 5 tanh units, with all weights
  N(0, 1) and noise of deviation 0.1. The target is minimized.
- `caasl_10`, from Annadani et al., 2024, "Amortized Active Causal Induction
  with Deep Reinforcement Learning": 10 variables, Erdos-Renyi graphs of
  expected degree 3, weights N(0, 1 / in-degree), noise variances
  InvGamma(10, 1). The paper has no target; here a target is maximized over the
  domains [-1, 1], which are three deviations of the noise.
- `ecoli70`, genes of E. coli (Schaefer and Strimmer, 2005), `magic-niab` and
  `magic-irri`, genes and traits of wheat and of rice (Scutari et al., 2014):
  linear networks that come with pgmpy, the same for all repeats. The target,
  which is maximized, is the variable with the most ancestors; it has no
  effects. It is ftsJ for the genes and the yield, YLD, for both crops. Domains
  are the mean plus or minus two standard deviations.

Random SCMs have their columns in random order. Unless stated otherwise, the
target is drawn from the variables that have a cause. An SCM is rejected if no
variable, moved from one end of its domain to the other, changes the target by
at least the deviation of the target's own noise.
"""

from collections.abc import Callable
import functools
import importlib.util
import pathlib
from typing import Any, NamedTuple
import zlib

import jax.numpy as jnp
import numpy as np

from acme_cbo.infra import errors
from acme_cbo.infra import files
from acme_cbo.scms import assemble
from acme_cbo.scms import graphs
from acme_cbo.scms import mechanisms
from acme_cbo.scms import systems
from acme_cbo.scms.files import graph_files

_INSTALL = 'pip install --no-deps pgmpy==1.1.2'
_MAX_BYTES = 10**6
_NUM_UNITS = 5
_SIZES = (3, 5, 8, 10, 20, 30)
_SHAPES = {
  graphs.Graph.CHAIN: graphs.chain,
  graphs.Graph.FORK: graphs.fork,
  graphs.Graph.STAR: graphs.star,
}


class _Family(NamedTuple):
  """Specification of a family of random SCMs.

  Attributes:
    source: one line on its origin.
    size: number of variables, D.
    graph: kind of graph. In all kinds but ERDOS_RENYI the target is the last
      node.
    density: edge probability of an Erdos-Renyi graph.
    equations: function that draws fields of `types.Mechanism` from a generator
      and [D, D] parents.
    family: family of these equations.
    half_width: half the width of the domains, which are centered at 0.
    goal: 1 to maximize the target, -1 to minimize it.
  """

  source: str
  size: int
  graph: graphs.Graph
  density: float
  equations: Callable[[np.random.Generator, np.ndarray], dict[str, Any]]
  family: mechanisms.Family
  half_width: float
  goal: float


def _signed_linear(rng, parents):
  """Draws linear equations with weights of random sign and magnitude."""
  sign = rng.choice([-1.0, 1.0], parents.shape)
  return dict(
    linear=parents * sign * rng.uniform(0.5, 1.5, parents.shape),
    noise_scale=rng.uniform(0.8, 1.2, len(parents)),
  )


def _linear(rng, parents):
  """Draws the linear equations of Durand et al."""
  return dict(linear=parents * rng.normal(2.0, 1.0, parents.shape))


def _tanh(rng, parents):
  """Draws networks with one hidden layer; root variables are noise only."""
  units = (len(parents), _NUM_UNITS)
  has_cause = parents.any(1)
  return dict(
    bias=has_cause * rng.normal(size=len(parents)),
    hidden=parents[:, None] * rng.normal(size=(*units, len(parents))),
    shift=has_cause[:, None] * rng.normal(size=units),
    output=has_cause[:, None] * rng.normal(size=units),
    activation=np.full(len(parents), mechanisms.Activation.TANH, np.int32),
    noise_scale=np.full(len(parents), 0.1),
  )


def _fan_in_scaled_linear(rng, parents):
  """Draws the linear equations of Annadani et al."""
  deviation = 1 / np.sqrt(np.maximum(parents.sum(1, keepdims=True), 1))
  return dict(
    linear=parents * deviation * rng.normal(size=parents.shape),
    noise_scale=1 / np.sqrt(rng.gamma(10.0, 1.0, len(parents))),
  )


def _draw_system(name: str, family: _Family, repeat: int) -> systems.System:
  """Draws one SCM of a family.

  Args:
    name: name of the family.
    family: its specification.
    repeat: index of the SCM, from 0; determines the random seed.

  Returns:
    The system. If it is linear, its best intervention is known.

  Raises:
    errors.UsageError: `repeat` is negative.
  """
  if repeat < 0:
    raise errors.UsageError(f'{name}: repeat must be 0 or more, got {repeat}')
  rng = np.random.default_rng([zlib.crc32(name.encode()), repeat])
  while True:
    parents, target = _graph(rng, family)
    if target is None:
      continue
    equations = family.equations(rng, parents)
    # [2, D], the low and the high end of each domain.
    ends = np.broadcast_to(
      family.half_width * np.array([[-1.0], [1.0]]), (2, family.size)
    )
    outcomes = _noiseless_target(equations, parents, target, ends)
    noise = np.broadcast_to(equations.get('noise_scale', 1.0), family.size)
    if np.abs(outcomes[1] - outcomes[0]).max() >= noise[target]:
      break
  linear = family.family == mechanisms.Family.LINEAR
  return assemble.system(
    f'{name}/{repeat}',
    family.source,
    [f'x{j}' for j in range(family.size)],
    parents=parents,
    target=target,
    goal=family.goal,
    sets=_singles(family.size, target),
    low=ends[0],
    high=ends[1],
    mechanism=assemble.equations(family.size, **equations),
    family=family.family,
    graph=family.graph,
    hint=_best(family.goal * outcomes, target, ends) if linear else None,
  )


def _graph(rng, family):
  """Draws [D, D] parents and the target, None if no variable has a cause."""
  size = family.size
  if family.graph in _SHAPES:
    # Padded to one size, so that jax compiles one program for all sizes.
    padded = _SHAPES[family.graph](jnp.int32(size), max(_SIZES))
    parents = np.asarray(padded)[:size, :size]
    candidates = np.array([size - 1])
  else:
    parents = np.tril(rng.random((size, size)) < family.density, -1)
    candidates = np.flatnonzero(parents.any(1))
  if not candidates.size:
    return parents, None
  columns = rng.permutation(size)  # Column k holds node `columns[k]`.
  target = np.argmax(columns == rng.choice(candidates))
  return parents[columns][:, columns], int(target)


def _noiseless_target(equations, parents, target, ends):
  """Computes the target without noise, with each variable set at its ends.

  It uses numpy, so that an SCM does not depend on the precision of jax.

  Args:
    equations: fields of `types.Mechanism`, linear or with tanh units.
    parents: [D, D] bool, `parents[j, i]`.
    target: index of the target.
    ends: [2, D] values that each variable is set to, one at a time.

  Returns:
    [2, D] values of the target, which are its means if the SCM is linear. The
    column of the target itself holds its value under no intervention.
  """
  num_variables = len(parents)
  # [2, D, D]: end, variable that is set, all variables.
  u = np.zeros((*ends.shape, num_variables))
  none = np.zeros((num_variables, 1, num_variables))
  linear = equations.get('linear', none[:, 0])
  hidden, shift = (
    equations.get('hidden', none),
    equations.get('shift', none[..., 0]),
  )
  output = equations.get('output', none[..., 0])
  bias = equations.get('bias', np.zeros(num_variables))
  for j in graph_files.causal_order(parents):
    units = np.tanh(u @ hidden[j].T + shift[j]) @ output[j]
    u[..., j] = bias[j] + u @ linear[j] + units
    if j != target:
      u[:, j, j] = ends[:, j]
  return u[..., target]


def _best(outcomes, target, ends):
  """Returns {variable: end of its domain} with the highest outcome."""
  others = np.arange(outcomes.shape[1]) != target
  index = np.argmax(np.where(others, outcomes, -np.inf))
  end, variable = np.unravel_index(index, outcomes.shape)
  return {int(variable): float(ends[end, variable])}


def _singles(size, target):
  """Returns [D, D] bool, a set for each variable, empty for the target."""
  return np.diag(np.arange(size) != target)


def _network(name: str, repeat: int) -> systems.System:
  """Loads a linear network from the data files of pgmpy, without importing it.

  Args:
    name: name of the network.
    repeat: ignored.

  Returns:
    The system.

  Raises:
    errors.UsageError: pgmpy is not installed, or its file has an unexpected
      format.
  """
  del repeat
  spec = importlib.util.find_spec('pgmpy')
  if spec is None or not spec.submodule_search_locations:
    raise errors.UsageError(
      f'{name} needs pgmpy, which is not installed; run {_INSTALL}'
    )
  path = pathlib.Path(
    spec.submodule_search_locations[0],
    'utils',
    'example_models',
    f'{name}.json',
  )
  network = files.read_json(path, _MAX_BYTES, f'run {_INSTALL}')
  try:
    names = list(network['nodes'])
    bias, linear, variance = _parse_cpds(names, network['cpds'])
  except (KeyError, TypeError, ValueError) as error:
    raise errors.UsageError(
      f'{path} does not contain a linear network ({error!r}); install the '
      f'supported version: {_INSTALL}'
    ) from error

  parents = linear != 0
  total = np.linalg.inv(np.eye(len(names)) - linear)
  mean, deviation = total @ bias, np.sqrt(np.square(total) @ variance)
  num_ancestors = np.asarray(graphs.ancestors(jnp.asarray(parents))).sum(1)
  target = int(np.argmax(num_ancestors))
  ends = np.stack([mean - 2 * deviation, mean + 2 * deviation])
  equations = dict(bias=bias, linear=linear, noise_scale=np.sqrt(variance))
  outcomes = _noiseless_target(equations, parents, target, ends)
  return assemble.system(
    name,
    f'{name}.json of pgmpy, from the Bayesian network repository of bnlearn',
    names,
    parents=parents,
    target=target,
    goal=1.0,
    sets=_singles(len(names), target),
    low=ends[0],
    high=ends[1],
    mechanism=assemble.equations(len(names), **equations),
    family=mechanisms.Family.LINEAR,
    hint=_best(outcomes, target, ends),
  )


def _parse_cpds(names, cpds):
  """Returns [D] constants, [D, D] weights and [D] variances of a network."""
  index = {name: j for j, name in enumerate(names)}
  bias, variance = np.zeros(len(names)), np.zeros(len(names))
  linear = np.zeros((len(names), len(names)))
  for name, j in index.items():
    cpd = cpds[name]
    (variance[j],) = cpd['variance']
    for cause, (weight,) in cpd['coefficients'].items():
      if cause == '(Intercept)':
        bias[j] = weight
      else:
        linear[j, index[cause]] = weight
  return bias, linear, variance


def _families():
  """Returns the specifications of all families, by name."""
  kinds = {
    'chain': graphs.Graph.CHAIN,
    'fork': graphs.Graph.FORK,
    'star': graphs.Graph.STAR,
    'sparse': graphs.Graph.ERDOS_RENYI,
  }
  random, linear = graphs.Graph.ERDOS_RENYI, mechanisms.Family.LINEAR
  specs: dict[str, _Family] = {}
  for kind, graph in kinds.items():
    for size in _SIZES:
      specs[f'{kind}_{size}'] = _Family(
        f'linear SCMs on a {kind} graph of {size} variables',
        size,
        graph,
        2 / (size - 1),
        _signed_linear,
        linear,
        3.0,
        1.0,
      )
  paper = 'Durand et al., 2025, https://arxiv.org/abs/2503.19554'
  for size in (10, 15, 20, 50):
    density = 1 / (size - 1)
    specs[f'er_linear_{size}'] = _Family(
      paper, size, random, density, _linear, linear, 5.0, -1.0
    )
    specs[f'er_tanh_{size}'] = _Family(
      paper, size, random, density, _tanh, mechanisms.Family.TANH, 5.0, -1.0
    )
  specs['caasl_10'] = _Family(
    'Annadani et al., 2024, "Amortized Active Causal Induction with Deep '
    'Reinforcement Learning"',
    10,
    random,
    3 / 9,
    _fan_in_scaled_linear,
    linear,
    1.0,
    1.0,
  )
  return specs


# Families in which each repeat is another SCM, and networks that are fixed.
DRAWN: dict[str, Callable[[int], systems.System]] = {
  name: functools.partial(_draw_system, name, family)
  for name, family in _families().items()
}
NETWORKS: dict[str, Callable[[int], systems.System]] = {
  name: functools.partial(_network, name)
  for name in ('ecoli70', 'magic-niab', 'magic-irri')
}
FAMILIES = DRAWN | NETWORKS
