"""Reads a system that a user describes in one YAML file.

  name: toy
  target: Y
  goal: minimize                   # or maximize
  variables:
    X: {equation: "e", domain: [-5, 5], cost: 1}
    Z: {equation: "exp(-X) + e", domain: [-5, 20], cost: 10}
    Y: {equation: "cos(Z) - exp(-Z / 20) + e"}
    U: {equation: "e", noise: {uniform: [-1, 1]}, latent: true}
  interventions: {max_size: 2}     # or {sets: [[X], [Z], [X, Z]]}
  budget: 100                      # total cost of all interventions
  edges: {forbidden: [Y -> X]}     # known to policies; or {required: [...]}
  source: reference or description
  optimum: {Z: -3.2003}            # the best intervention, if known

See `formulas` for the syntax of equations. The name of a variable is a letter,
followed by at most 63 letters, digits or _. A variable without a domain cannot
be intervened on. The last five keys are optional: by default an intervention
sets one variable, there is no cost budget, and no edge is known. A variable has
cost 1 by default, and its noise is standard normal. The noises are normal
[mean, deviation], uniform [low, high], laplace [location, scale], gamma [shape,
location, scale], and none.

If the equations are unknown, they can be fitted to data, given the graph:

  name: cells
  target: Akt
  goal: maximize
  graph: cells.dot                 # see `graph_files`
  data: cells.csv                  # a header of names, then rows of numbers
  fit: linear                      # or features, see `fit`
  variables:                       # those to intervene on, without equations
    PKA: {domain: [0, 100], cost: 2}
    PKC: {}                        # domain from its smallest to largest value

Paths are relative to the folder of the YAML file. Graph and data must use the
same names, which may also have parts joined by . or -; other columns of the
data are left out, with a warning. Without the key `variables`, all observed
variables but the target can be intervened on. See `yaml_nodes` for the
supported subset of YAML.
"""

from collections.abc import Callable, Sequence
import graphlib
import math
import os
import pathlib
import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import yaml

from acme_cbo import types
from acme_cbo.infra import errors
from acme_cbo.infra import files
from acme_cbo.scms import assemble
from acme_cbo.scms import formulas
from acme_cbo.scms import graphs
from acme_cbo.scms import intervention_sets
from acme_cbo.scms import known_edges
from acme_cbo.scms import simulate
from acme_cbo.scms import systems
from acme_cbo.scms.files import fit
from acme_cbo.scms.files import graph_files
from acme_cbo.scms.files import yaml_nodes

_MAX_BYTES = 256 * 1024
_MAX_VARIABLES = 200
# Limits of `check_finite`: sets, draws of a batch, and number of batches. The
# latter is lower for many variables, as the time grows with their square.
_MAX_CHECKED_SETS = 200
_NUM_CHECKED_DRAWS = 256
_NUM_CHECKED_BATCHES = 2**10
_MAX_CHECKED_SIZE = 2**18

_REQUIRED = ('name', 'target', 'goal')
_FITTED = ('graph', 'data', 'fit')
_TOP_LEVEL = (
  *_REQUIRED,
  'variables',
  *_FITTED,
  'interventions',
  'budget',
  'edges',
  'source',
  'optimum',
)
_VARIABLE = ('equation', 'domain', 'cost', 'noise', 'latent')
_SETTABLE = ('domain', 'cost')
_INTERVENTIONS = ('max_size', 'sets')
_GOALS = {'minimize': -1.0, 'maximize': 1.0}
_SYSTEM_NAME = re.compile(r'[A-Za-z0-9][A-Za-z0-9._-]{0,63}')


def read(path: str | os.PathLike[str]) -> systems.System:
  """Reads a YAML file.

  Args:
    path: path of the file.

  Returns:
    The system, in the current precision of jax.

  Raises:
    errors.UsageError: the file cannot be read or does not describe a system.
      The message is one line and names file, line and column.
  """
  path = pathlib.Path(path)
  return parse(files.read_text(path, _MAX_BYTES), str(path))


def parse(text: str, file: str = 'text') -> systems.System:
  """Parses the text of a YAML file.

  Args:
    text: content of the file.
    file: path of the file, for error messages; other files are looked up
      relative to its folder.

  Returns:
    The system, in the current precision of jax.

  Raises:
    errors.UsageError: as for `read`.
  """
  if len(text) > _MAX_BYTES:
    raise errors.UsageError(
      f'{file}: larger than {_MAX_BYTES // 1024} KiB, the limit for a system'
    )
  try:
    root = yaml_nodes.compose(text)
    return _Reader(text, pathlib.Path(file).parent).system(root)
  except yaml_nodes.NodeError as error:
    raise errors.UsageError(f'{file}:{error.position}: {error}') from error


def check_finite(system: systems.System, seed: int = 0) -> None:
  """Raises unless samples of a system are finite.

  Samples are drawn without intervention and under interventions on each allowed
  set (on 200 of them if there are more): at the lower ends, at the upper ends
  and at a random point of the domains. For up to 16 variables these are 262,144
  samples together, so that a value that is not finite in one of 50,000 samples
  is found almost surely.

  Args:
    system: the system.
    seed: random seed.

  Raises:
    errors.UsageError: a value is not finite. The message names the variable,
      its equation, the intervention, and the share of such samples.
  """
  problem = system.scm.problem
  rng = np.random.default_rng(seed)
  sets = np.asarray(problem.sets)
  sets = sets[sets.any(1)]
  if len(sets) > _MAX_CHECKED_SETS:
    sets = rng.choice(sets, _MAX_CHECKED_SETS, replace=False)
  low, high = np.asarray(problem.low), np.asarray(problem.high)
  between = low + rng.random(low.shape) * (high - low)
  mask = np.concatenate([np.zeros_like(sets[:1]), *[sets] * 3])
  points = np.repeat([low, high, between], len(sets), 0)
  values = np.concatenate([np.zeros_like(points[:1]), points])
  values = np.where(mask, np.clip(values, low, high), 0.0)
  candidates = types.Intervention(
    jnp.asarray(mask), jnp.asarray(values, low.dtype)
  )
  batches = min(_NUM_CHECKED_BATCHES, _MAX_CHECKED_SIZE // low.size**2)
  keys = jax.random.split(jax.random.key(seed), max(1, batches // len(mask)))
  is_finite = np.asarray(_are_finite(system.scm, candidates, keys)).all(0)
  if not is_finite.all():
    first = jax.tree.map(
      lambda leaf: leaf[int(np.argmin(is_finite))], candidates
    )
    banks = jax.vmap(_draw_checked, (None, 0))(system.scm, keys)
    bank = banks.reshape(-1, low.size)
    u = jax.jit(simulate.propagate)(system.scm, first, bank)
    raise errors.UsageError(systems.describe_non_finite(system, first, u))


@jax.jit
def _draw_checked(scm: types.SCM, key: jax.Array) -> jax.Array:
  return simulate.noise_bank(key, scm, _NUM_CHECKED_DRAWS)


@jax.jit
def _are_finite(
  scm: types.SCM, candidates: types.Intervention, keys: jax.Array
) -> jax.Array:
  """Returns whether all samples of interventions are finite.

  Args:
    scm: the model.
    candidates: C interventions.
    keys: [K] random keys, one for each batch of noise draws.

  Returns:
    [K, C] bool.
  """

  def check_batch(key):
    bank = _draw_checked(scm, key)
    return jax.lax.map(
      lambda intervention: jnp.isfinite(
        simulate.propagate(scm, intervention, bank)
      ).all(),
      candidates,
    )

  return jax.lax.map(check_batch, keys)


class _Variable(NamedTuple):
  """Description of a variable.

  Attributes:
    name: name of the variable.
    key: node of the name; the root if the file does not mention the variable.
    fields: nodes by their keys.
  """

  name: str
  key: yaml.Node
  fields: dict[str, yaml.Node]


class _Model(NamedTuple):
  """Variables and their equations, written in the file or fitted to data.

  Attributes:
    variables: the D variables.
    parents: [D, D] bool, `parents[j, i]` where i is a direct cause of j.
    latent: [D] True for latent variables.
    domains: [D] domain of each variable; None if it cannot be intervened on.
    equations: further keyword arguments of `assemble.system`.
  """

  variables: list[_Variable]
  parents: np.ndarray
  latent: Sequence[bool]
  domains: list[tuple[float, float] | None]
  equations: dict[str, Any]


class _Reader:
  """Builds a system from nodes.

  Attributes:
    _text: text of the file, to compute columns in equations.
    _folder: folder of the graph and data files.
  """

  def __init__(self, text: str, folder: pathlib.Path):
    self._text = text
    self._folder = folder

  def system(self, root: yaml.Node) -> systems.System:
    top = yaml_nodes.fields(root, 'the file', _TOP_LEVEL, _REQUIRED)
    name = yaml_nodes.word(top['name'], 'name')
    if not _SYSTEM_NAME.fullmatch(name):
      yaml_nodes.fail(
        top['name'],
        f'name {yaml_nodes.short(name)} must be a letter or digit, followed by '
        'at most 63 letters, digits or . _ -',
      )
    goal = yaml_nodes.option(top['goal'], 'goal', list(_GOALS))
    source = yaml_nodes.word(top['source'], 'source') if 'source' in top else ''
    source = ' '.join(source.split())
    is_fitted = not top.keys().isdisjoint(_FITTED)
    if is_fitted:
      model = self._fitted_model(top, root)
    else:
      model = self._written_model(top, root)
    domains = model.domains
    names = [variable.name for variable in model.variables]
    target = self._target(top['target'], names, model)
    costs = [
      self._cost(variable, domain is not None)
      for variable, domain in zip(model.variables, domains, strict=True)
    ]
    settable = [domain is not None for domain in domains]
    if not any(settable):
      yaml_nodes.fail(
        top.get('variables', root),
        'no variable has a domain, so that no intervention is possible',
      )
    sets = self._sets(top.get('interventions'), root, names, settable)
    causes = np.asarray(graphs.ancestors(jnp.asarray(model.parents)))[target]
    if not (causes & sets.any(0)).any():
      yaml_nodes.fail(
        top['target'],
        f'no variable with a domain is a cause of the target {names[target]}',
      )
    budget = math.inf
    if 'budget' in top:
      budget = yaml_nodes.positive(top['budget'], 'budget')
      cheapest = (sets * np.array(costs)).sum(1).min()
      if not intervention_sets.is_within_budget(budget, cheapest):
        yaml_nodes.fail(
          top['budget'],
          f'budget {budget:g} is too small for any intervention; the cheapest '
          f'costs {cheapest:g}',
        )
    edges = None
    if 'edges' in top:
      edges = self._edges(top['edges'], names, model)
    hint = None
    if 'optimum' in top:
      hint = self._optimum(top['optimum'], names, domains, sets)
    low, high = np.array([d or (0.0, 0.0) for d in domains]).T
    return assemble.system(
      name,
      source,
      names,
      parents=model.parents,
      target=target,
      goal=_GOALS[goal],
      sets=sets,
      low=low,
      high=high,
      latent=model.latent,
      cost=costs,
      budget=budget,
      edges=edges,
      hint=hint,
      graph=systems.NO_KIND,
      **model.equations,
    )

  def _written_model(
    self, top: dict[str, yaml.Node], root: yaml.Node
  ) -> _Model:
    """Builds the model from the equations in the file."""
    if 'variables' not in top:
      yaml_nodes.fail(
        root,
        'the file: variables is missing; give variables with equations, or '
        'graph, data and fit',
      )
    variables = self._variables(top['variables'])
    names = [variable.name for variable in variables]
    equations = [self._equation(v, names) for v in variables]
    self._check_order(variables, equations)
    noises = [
      self._noise(v, equation)
      for v, equation in zip(variables, equations, strict=True)
    ]
    mechanism = formulas.Formulas(
      tuple(names),
      tuple(v.fields['equation'].value for v in variables),
      tuple(noises),
    )
    return _Model(
      variables,
      mechanism.parents,
      [self._latent(variable) for variable in variables],
      [self._domain(variable) for variable in variables],
      {'mechanism': mechanism, 'family': systems.NO_KIND},
    )

  def _fitted_model(self, top: dict[str, yaml.Node], root: yaml.Node) -> _Model:
    """Builds the model by fitting the equations of a graph to data."""
    for name in _FITTED:
      if name not in top:
        yaml_nodes.fail(
          root,
          f'{", ".join(_FITTED)} must be given together: {name} is missing',
        )
    kind = yaml_nodes.option(top['fit'], 'fit', fit.KINDS)
    graph_path, data_path = (
      self._folder / yaml_nodes.word(top[name], name)
      for name in ('graph', 'data')
    )
    graph = _call(top['graph'], graph_files.read, graph_path)
    data = _call(top['data'], fit.read_csv, data_path, graph.variables)
    source = f'{graph_path} and {data_path}'
    fitted = _call(top['fit'], fit.fit, graph, data, kind, source)
    names = graph.variables
    described, pairs = {}, []
    if 'variables' in top:
      pairs = yaml_nodes.pairs(top['variables'], 'variables')
      if not pairs:
        yaml_nodes.fail(top['variables'], 'variables is empty')
    for key, value in pairs:
      name = names[yaml_nodes.index(key, 'variables', names)]
      fields = yaml_nodes.fields(value, f'variable {name}', _SETTABLE)
      described[name] = _Variable(name, key, fields)
    target = yaml_nodes.name(top['target'], 'target')
    variables, domains = [], []
    for j, name in enumerate(names):
      variable = described.get(name, _Variable(name, root, {}))
      if name in described and graph.latent[j]:
        yaml_nodes.fail(
          variable.key,
          f'variable {name} is latent, so that it cannot be intervened on',
        )
      domain = self._domain(variable)
      settable = name in described or (not described and name != target)
      if settable and not graph.latent[j]:
        domain = domain or (
          float(fitted.quality.minimum[j]),
          float(fitted.quality.maximum[j]),
        )
      variables.append(variable)
      domains.append(domain)
    return _Model(
      variables,
      graph.parents,
      graph.latent.tolist(),
      domains,
      {
        'mechanism': fitted.mechanism,
        'family': fitted.family,
        'location': fitted.location,
        'scale': fitted.scale,
        'fit': fit.compare_domains(fitted, names, domains),
      },
    )

  def _variables(self, node: yaml.Node) -> list[_Variable]:
    variables = []
    for key, value in yaml_nodes.pairs(node, 'variables'):
      try:
        formulas.check_name(key.value)
      except errors.UsageError as error:
        yaml_nodes.fail(key, str(error))
      fields = yaml_nodes.fields(
        value, f'variable {key.value}', _VARIABLE, ('equation',)
      )
      variables.append(_Variable(key.value, key, fields))
    if not variables:
      yaml_nodes.fail(node, 'variables is empty')
    if len(variables) > _MAX_VARIABLES:
      yaml_nodes.fail(
        node, f'{len(variables)} variables; at most {_MAX_VARIABLES}'
      )
    return variables

  def _equation(
    self, variable: _Variable, names: Sequence[str]
  ) -> formulas.Equation:
    label = f'variable {variable.name}: equation'
    node = yaml_nodes.scalar(variable.fields['equation'], label)
    try:
      return formulas.parse(node.value, names)
    except formulas.FormulaError as error:
      shift = self._shift(node, error.column)
      inside = '' if shift is not None else f', column {error.column}'
      raise yaml_nodes.NodeError(
        f'{label}{inside}: {error.reason}', node.start_mark, shift or 0
      ) from error

  def _shift(self, node: yaml.ScalarNode, column: int) -> int | None:
    """Returns the columns from the start of a node to a column of its value.

    It is None where the file does not hold the value verbatim, on one line.
    """
    start, end = node.start_mark, node.end_mark
    quotes = 1 if node.style in ('"', "'") else 0
    raw = self._text[start.index + quotes : end.index - quotes]
    if start.line != end.line or not raw.startswith(node.value[: column - 1]):
      return None
    return quotes + column - 1

  def _check_order(
    self,
    variables: Sequence[_Variable],
    equations: Sequence[formulas.Equation],
  ) -> None:
    """Raises if the equations have a cycle."""
    before = {
      variable.name: equation.names
      for variable, equation in zip(variables, equations, strict=True)
    }
    try:
      graphlib.TopologicalSorter(before).prepare()
    except graphlib.CycleError as error:
      cycle = error.args[1]
      # Start with the variable that comes first in the file.
      first = min(cycle, key=list(before).index)
      start = cycle.index(first)
      cycle = [*cycle[start:-1], *cycle[:start], first]
      node = variables[list(before).index(first)].fields['equation']
      raise yaml_nodes.NodeError(
        f'variable {first}: the equations have a cycle: {" -> ".join(cycle)}',
        node.start_mark,
      ) from error

  def _noise(
    self, variable: _Variable, equation: formulas.Equation
  ) -> formulas.Noise:
    if 'noise' not in variable.fields:
      return formulas.Noise() if equation.noisy else formulas.Noise('none', ())
    node = variable.fields['noise']
    label = f'variable {variable.name}: noise'
    if isinstance(node, yaml.MappingNode):
      pairs = yaml_nodes.pairs(node, label)
      if len(pairs) != 1:
        yaml_nodes.fail(node, f'{label} must be one distribution')
      kind, parameters = pairs[0][0].value, pairs[0][1]
      numbers = tuple(
        yaml_nodes.number(item, label)
        for item in yaml_nodes.items(parameters, label)
      )
    else:
      kind, numbers = yaml_nodes.word(node, label), ()
    noise = formulas.Noise(kind, numbers)
    try:
      formulas.check_noise(noise)
    except errors.UsageError as error:
      yaml_nodes.fail(node, f'variable {variable.name}: {error}')
    if kind != 'none' and not equation.noisy:
      yaml_nodes.fail(
        node, f'{label} is given, but the equation does not mention e'
      )
    return noise

  def _latent(self, variable: _Variable) -> bool:
    if 'latent' not in variable.fields:
      return False
    label = f'variable {variable.name}: latent'
    node = variable.fields['latent']
    latent = yaml_nodes.boolean(node, label)
    if latent and 'domain' in variable.fields:
      yaml_nodes.fail(
        variable.fields['domain'],
        f'variable {variable.name} is latent, so that it cannot be intervened '
        'on; remove domain or latent',
      )
    return latent

  def _target(
    self, node: yaml.Node, names: Sequence[str], model: _Model
  ) -> int:
    target = yaml_nodes.index(node, 'target', names)
    if model.latent[target]:
      yaml_nodes.fail(
        node, f'target {names[target]} is latent; it must be observed'
      )
    if model.domains[target] is not None:
      variable = model.variables[target]
      yaml_nodes.fail(
        variable.fields.get('domain', variable.key),
        f'variable {names[target]} is the target, which cannot be intervened '
        'on; remove its domain',
      )
    return target

  def _domain(self, variable: _Variable) -> tuple[float, float] | None:
    if 'domain' not in variable.fields:
      return None
    node = variable.fields['domain']
    label = f'variable {variable.name}: domain'
    numbers = [
      yaml_nodes.number(item, label) for item in yaml_nodes.items(node, label)
    ]
    if len(numbers) != 2:
      yaml_nodes.fail(node, f'{label} must be [low, high]')
    low, high = numbers
    # In float32, which policies may use.
    if not np.float32(low) < np.float32(high):
      yaml_nodes.fail(
        node, f'{label} must be [low, high] with low < high, got '
        f'[{low:.9g}, {high:.9g}]'
      )  # fmt: skip
    return low, high

  def _cost(self, variable: _Variable, settable: bool) -> float:
    if 'cost' not in variable.fields:
      return 1.0
    node = variable.fields['cost']
    if not settable:
      yaml_nodes.fail(
        node,
        f'variable {variable.name} has a cost but no domain; add a domain or '
        'remove the cost',
      )
    return yaml_nodes.positive(node, f'variable {variable.name}: cost')

  def _sets(
    self,
    node: yaml.Node | None,
    root: yaml.Node,
    names: Sequence[str],
    settable: Sequence[bool],
  ) -> np.ndarray:
    """Returns the allowed sets of variables: [M, D] bool."""
    label = 'interventions'
    allowed = np.flatnonzero(settable)
    fields = (
      {} if node is None else yaml_nodes.fields(node, label, _INTERVENTIONS)
    )
    if node is not None and len(fields) != 1:
      yaml_nodes.fail(
        node, f'{label} must have exactly one of max_size and sets'
      )
    if 'sets' in fields:
      return self._listed_sets(fields['sets'], names, settable)
    size = 1
    if 'max_size' in fields:
      inner = fields['max_size']
      size = yaml_nodes.number(inner, f'{label}: max_size')
      if size != int(size) or not 1 <= size <= len(allowed):
        yaml_nodes.fail(
          inner,
          f'{label}: max_size must be a whole number, 1 to {len(allowed)} '
          f'(the number of variables with a domain), got {size:g}',
        )
      size = int(size)
    try:
      return intervention_sets.subsets(np.array(settable), size)
    except errors.UsageError as error:
      yaml_nodes.fail(node or root, f'{label}: {error}')

  def _listed_sets(self, node, names, settable) -> np.ndarray:
    label = 'interventions: sets'
    members: dict[tuple[int, ...], None] = {}
    for inner in yaml_nodes.items(node, label):
      subset = []
      for item in yaml_nodes.items(inner, label):
        j = yaml_nodes.index(item, label, names)
        if not settable[j]:
          yaml_nodes.fail(
            item,
            f'{label}: {names[j]} has no domain, so that it cannot be '
            'intervened on',
          )
        if j in subset:
          yaml_nodes.fail(item, f'{label}: duplicate variable {names[j]}')
        subset.append(j)
      if not subset:
        yaml_nodes.fail(inner, f'{label}: empty set')
      if tuple(sorted(subset)) in members:
        together = ', '.join(names[j] for j in subset)
        yaml_nodes.fail(inner, f'{label}: duplicate set [{together}]')
      members[tuple(sorted(subset))] = None
    if not 1 <= len(members) <= intervention_sets.MAX_SETS:
      yaml_nodes.fail(
        node,
        f'{label}: {len(members)} sets; there must be 1 to '
        f'{intervention_sets.MAX_SETS:,}',
      )
    sets = np.zeros((len(members), len(names)), bool)
    for row, subset in zip(sets, members, strict=True):
      row[np.array(subset)] = True
    return sets

  def _edges(
    self, node: yaml.Node, names: Sequence[str], model: _Model
  ) -> np.ndarray | None:
    """Returns the known edges that policies are given; they have to be true."""
    listed = {
      key.value: [
        yaml_nodes.name(one, 'an edge')
        for one in yaml_nodes.items(value, f'edges: {key.value}')
      ]
      for key, value in yaml_nodes.pairs(node, 'edges')
    }
    is_latent = np.array(model.latent)
    observed = np.flatnonzero(~is_latent).tolist()
    of_observed = _call(
      node, known_edges.parse, listed, [names[j] for j in observed]
    )
    if of_observed is None:
      return None
    given = np.zeros((len(names), len(names)))
    given[np.ix_(observed, observed)] = of_observed
    true = graphs.known_edges(
      jnp.asarray(model.parents), jnp.asarray(~is_latent)
    )
    for effect, cause in np.argwhere((given != 0) & (given != true)):
      yaml_nodes.fail(
        node,
        f'edges: {names[cause]} -> {names[effect]} contradicts the graph',
      )
    return given

  def _optimum(self, node, names, domains, sets) -> dict[int, float]:
    values: dict[int, float] = {}
    for key, value in yaml_nodes.pairs(node, 'optimum'):
      j = yaml_nodes.index(key, 'optimum', names)
      number = yaml_nodes.number(value, f'optimum: {names[j]}')
      if domains[j] is None:
        yaml_nodes.fail(
          key,
          f'optimum: {names[j]} has no domain, so that it cannot be intervened '
          'on',
        )
      low, high = domains[j]
      if not low <= number <= high:
        yaml_nodes.fail(
          value,
          f'optimum: {names[j]} = {number:.9g} is outside its domain '
          f'[{low:.9g}, {high:.9g}]',
        )
      values[j] = number
    mask = np.isin(np.arange(len(names)), list(values))
    if not (sets == mask).all(1).any():
      together = ', '.join(names[j] for j in np.flatnonzero(mask))
      yaml_nodes.fail(
        node, f'optimum: [{together}] is not one of the allowed sets'
      )
    return values


def _call(node: yaml.Node, function: Callable[..., Any], *args: Any) -> Any:
  """Calls a function; its errors are raised at the position of a node."""
  try:
    return function(*args)
  except errors.UsageError as error:
    yaml_nodes.fail(node, str(error))
