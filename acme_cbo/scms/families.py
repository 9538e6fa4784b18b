"""Families of SCMs that are drawn at random, and networks of genes and crops.

`FAMILIES[name](repeat)` is an SCM, the same one whenever it is asked for and in
either precision: numpy draws it, because what `jax.random` draws depends on the
precision. Every variable but the target may be set, on its own. Values are in
their own units.

- `chain_N`, `fork_N`, `star_N`, `sparse_N`, N of 3, 5, 8, 10, 20, 30: linear,
  weights of a random sign and a size of 0.5 to 1.5, noise of deviation 0.8 to
  1.2, domains [-3, 3]. The target is maximised: that of a chain is its end, of
  a fork one of the effects, of a star the effect. Sparse are Erdos-Renyi graphs
  of expected degree 2.
- `er_linear_N`, `er_tanh_N`, N of 10, 15, 20, 50, from Durand et al., 2025,
  "Causal Bayesian Optimization with Unknown Graphs"
  (https://arxiv.org/abs/2503.19554): Erdos-Renyi graphs with edge probability
  1 / (N - 1); weights N(2, 1) and noise of deviation 1, or a network of 5 tanh
  units, all weights N(0, 1), and noise of deviation 0.1; domains [-5, 5]. The
  target is minimised.
- `caasl_10`, from Annadani et al., 2024, "Amortized Active Causal Induction
  with Deep Reinforcement Learning": 10 variables, Erdos-Renyi of expected
  degree 3, weights N(0, 1 / in-degree), variances of the noise InvGamma(10, 1).
  The paper has no target: here it is maximised, over the domains [-1, 1], which
  are three deviations of the noise.
- `ecoli70`, genes of E. coli (Schaefer and Strimmer, 2005), `magic-niab` and
  `magic-irri`, genes and traits of wheat and of rice (Scutari et al., 2014):
  linear networks that come with pgmpy, each the same for all repeats. The
  target, which is maximised, is the variable with the most ancestors, so that
  there is most to find out; it has no effects. It is ftsJ, and twice YLD, the
  yield. Domains are two deviations to both sides of the mean.

The columns of what is drawn are in random order. Where nothing else is said,
the target is drawn from the variables that have a cause. An SCM is drawn again
where no variable, from one end of its domain to the other, moves the target by
as much as the deviation of the target's own noise.
"""

from collections.abc import Callable
import functools
import importlib.util
import json
import pathlib
from typing import Any, NamedTuple
import zlib

import jax.numpy as jnp
import numpy as np

from acme_cbo.infra import errors
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
  """What a family is drawn from.

  Attributes:
    source: where it comes from.
    size: D.
    graph: the shape; the target of one that is no Erdos-Renyi graph is its last
      node.
    density: of an Erdos-Renyi graph.
    equations: draws fields of `types.Mechanism`, given [D, D] parents.
    family: the kind of these.
    half_width: of the domains, around 0.
    goal: 1 to maximise the target, -1 to minimise it.
  """

  source: str
  size: int
  graph: graphs.Graph
  density: float
  equations: Callable[[np.random.Generator, np.ndarray], dict[str, Any]]
  family: mechanisms.Family
  half_width: float
  goal: float


def _signed(rng, parents):
  """Linear, of random signs and sizes."""
  sign = rng.choice([-1.0, 1.0], parents.shape)
  return dict(
    linear=parents * sign * rng.uniform(0.5, 1.5, parents.shape),
    noise_scale=rng.uniform(0.8, 1.2, len(parents)),
  )


def _linear(rng, parents):
  """Linear, of Durand et al."""
  return dict(linear=parents * rng.normal(2.0, 1.0, parents.shape))


def _tanh(rng, parents):
  """Networks of one hidden layer; what has no causes is noise alone."""
  units = (len(parents), _NUM_UNITS)
  caused = parents.any(1)
  return dict(
    bias=caused * rng.normal(size=len(parents)),
    hidden=parents[:, None] * rng.normal(size=(*units, len(parents))),
    shift=caused[:, None] * rng.normal(size=units),
    output=caused[:, None] * rng.normal(size=units),
    activation=np.full(len(parents), mechanisms.Activation.TANH, np.int32),
    noise_scale=np.full(len(parents), 0.1),
  )


def _shrunk(rng, parents):
  """Linear, of Annadani et al."""
  deviation = 1 / np.sqrt(np.maximum(parents.sum(1, keepdims=True), 1))
  return dict(
    linear=parents * deviation * rng.normal(size=parents.shape),
    noise_scale=1 / np.sqrt(rng.gamma(10.0, 1.0, len(parents))),
  )


def _drawn(name: str, family: _Family, repeat: int) -> systems.System:
  """One SCM of a family.

  Args:
    name: of the family.
    family: what it is drawn from.
    repeat: which one, from 0.

  Returns:
    The system; the best intervention is known if it is linear.

  Raises:
    errors.UsageError: `repeat` is negative.
  """
  if repeat < 0:
    raise errors.UsageError(
      f'{name}: the number of a repeat is 0 or more, not {repeat}'
    )
  rng = np.random.default_rng([zlib.crc32(name.encode()), repeat])
  while True:
    parents, target = _graph(rng, family)
    if target is None:
      continue
    equations = family.equations(rng, parents)
    # [2, D] at the low and at the high end of each domain.
    ends = np.broadcast_to(
      family.half_width * np.array([[-1.0], [1.0]]), (2, family.size)
    )
    outcomes = _without_noise(equations, parents, target, ends)
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
  """[D, D] parents, and the target; None where nothing has a cause."""
  size = family.size
  if family.graph in _SHAPES:
    # All of one shape, so that jax compiles one program for all sizes.
    padded = _SHAPES[family.graph](jnp.int32(size), max(_SIZES))
    parents = np.asarray(padded)[:size, :size]
    may_be_target = np.array([size - 1])
  else:
    parents = np.tril(rng.random((size, size)) < family.density, -1)
    may_be_target = np.flatnonzero(parents.any(1))
  if not may_be_target.size:
    return parents, None
  columns = rng.permutation(size)  # Column k holds node `columns[k]`.
  target = np.argmax(columns == rng.choice(may_be_target))
  return parents[columns][:, columns], int(target)


def _without_noise(equations, parents, target, ends):
  """The target where one variable is set and no noise moves the others.

  In numpy, so that an SCM is the same in either precision.

  Args:
    equations: fields of `types.Mechanism`, linear or with tanh units.
    parents: [D, D] bool.
    target: the variable.
    ends: [2, D] values that each variable is set to.

  Returns:
    [2, D] values of the target: of a linear SCM, its means. Its own column is
    what it is where nothing is set.
  """
  num_variables = len(parents)
  # [2, D, D], the variable that is set and all variables.
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
  """The variable, and the end of its domain, with the greatest outcome."""
  others = np.arange(outcomes.shape[1]) != target
  place = np.argmax(np.where(others, outcomes, -np.inf))
  end, variable = np.unravel_index(place, outcomes.shape)
  return {int(variable): float(ends[end, variable])}


def _singles(size, target):
  """[D, D] bool, each variable but the target as a set."""
  return np.diag(np.arange(size) != target)


def _network(name: str, repeat: int) -> systems.System:
  """A linear network that comes with pgmpy, which is not imported.

  Args:
    name: of the network.
    repeat: of no account.

  Returns:
    The system.

  Raises:
    errors.UsageError: pgmpy is not installed, or its file is not as expected.
  """
  del repeat
  spec = importlib.util.find_spec('pgmpy')
  if spec is None or not spec.submodule_search_locations:
    raise errors.UsageError(
      f'{name} is read from pgmpy, which is not installed: {_INSTALL}'
    )
  path = pathlib.Path(
    spec.submodule_search_locations[0],
    'utils',
    'example_models',
    f'{name}.json',
  )
  text = graph_files.read_text(path, _MAX_BYTES)
  try:
    network = json.loads(text)
    names = list(network['nodes'])
    bias, linear, variance = _tables(names, network['cpds'])
  except (KeyError, TypeError, ValueError) as error:
    raise errors.UsageError(
      f'{path} holds no linear network ({error!r}); install the version that '
      f'does: {_INSTALL}'
    ) from error

  parents = linear != 0
  total = np.linalg.inv(np.eye(len(names)) - linear)
  mean, deviation = total @ bias, np.sqrt(np.square(total) @ variance)
  num_ancestors = np.asarray(graphs.ancestors(jnp.asarray(parents))).sum(1)
  target = int(np.argmax(num_ancestors))
  ends = np.stack([mean - 2 * deviation, mean + 2 * deviation])
  equations = dict(bias=bias, linear=linear, noise_scale=np.sqrt(variance))
  outcomes = _without_noise(equations, parents, target, ends)
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


def _tables(names, tables):
  """[D] constants, [D, D] weights and [D] variances of a network."""
  index = {name: j for j, name in enumerate(names)}
  bias, variance = np.zeros(len(names)), np.zeros(len(names))
  linear = np.zeros((len(names), len(names)))
  for name, j in index.items():
    table = tables[name]
    (variance[j],) = table['variance']
    for cause, (weight,) in table['coefficients'].items():
      if cause == '(Intercept)':
        bias[j] = weight
      else:
        linear[j, index[cause]] = weight
  return bias, linear, variance


def _families():
  """What `FAMILIES` holds, without the networks."""
  kinds = {
    'chain': graphs.Graph.CHAIN,
    'fork': graphs.Graph.FORK,
    'star': graphs.Graph.STAR,
    'sparse': graphs.Graph.ERDOS_RENYI,
  }
  random, linear = graphs.Graph.ERDOS_RENYI, mechanisms.Family.LINEAR
  drawn: dict[str, _Family] = {}
  for kind, graph in kinds.items():
    for size in _SIZES:
      drawn[f'{kind}_{size}'] = _Family(
        f'linear SCMs on a {kind} graph of {size} variables',
        size,
        graph,
        2 / (size - 1),
        _signed,
        linear,
        3.0,
        1.0,
      )
  paper = 'Durand et al., 2025, https://arxiv.org/abs/2503.19554'
  for size in (10, 15, 20, 50):
    density = 1 / (size - 1)
    drawn[f'er_linear_{size}'] = _Family(
      paper, size, random, density, _linear, linear, 5.0, -1.0
    )
    drawn[f'er_tanh_{size}'] = _Family(
      paper, size, random, density, _tanh, mechanisms.Family.TANH, 5.0, -1.0
    )
  drawn['caasl_10'] = _Family(
    'Annadani et al., 2024, "Amortized Active Causal Induction with Deep '
    'Reinforcement Learning"',
    10,
    random,
    3 / 9,
    _shrunk,
    linear,
    1.0,
    1.0,
  )
  return drawn


# Those of which each repeat is another SCM, and those that are always the same.
DRAWN: dict[str, Callable[[int], systems.System]] = {
  name: functools.partial(_drawn, name, family)
  for name, family in _families().items()
}
NETWORKS: dict[str, Callable[[int], systems.System]] = {
  name: functools.partial(_network, name)
  for name in ('ecoli70', 'magic-niab', 'magic-irri')
}
FAMILIES = DRAWN | NETWORKS
