"""Reads the one YAML file in which a person describes a system of their own.

  name: toy
  target: Y
  goal: minimize                   # or maximize
  variables:
    X: {equation: "e", domain: [-5, 5], cost: 1}
    Z: {equation: "exp(-X) + e", domain: [-5, 20], cost: 10}
    Y: {equation: "cos(Z) - exp(-Z / 20) + e"}
    U: {equation: "e", noise: {uniform: [-1, 1]}, latent: true}
  interventions: {max_size: 2}     # or {sets: [[X], [Z], [X, Z]]}
  budget: 100                      # of cost
  source: where it comes from
  optimum: {Z: -3.2003}            # where it is known

`formulas` says what an equation may hold; the name of a variable is a letter,
then up to 63 letters, digits or _. A variable without a domain may not be set.
The last four may be left out: then one variable is set at a time, and nothing
limits the cost. A variable costs 1, and its noise is normal of mean 0 and
deviation 1, unless given: normal [mean, deviation], uniform [low, high],
laplace [location, scale], gamma [shape, location, scale], or none.

Where the equations are not known, they are fitted to data, given the graph:

  name: cells
  target: Akt
  goal: maximize
  graph: cells.dot                 # see `graph_files`
  data: cells.csv                  # names, then rows of numbers
  fit: linear                      # or features, see `fit`
  variables:                       # that may be set, without equations
    PKA: {domain: [0, 100], cost: 2}
    PKC: {}                        # from its least to its greatest value

The two files are looked for beside this one. They call the variables the same,
and there . and - may join the parts of a name, too. Without `variables` all but
the target may be set. `nodes` says what YAML may hold.
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
from acme_cbo.scms import assemble
from acme_cbo.scms import formulas
from acme_cbo.scms import graphs
from acme_cbo.scms import intervention_sets
from acme_cbo.scms import simulate
from acme_cbo.scms import systems
from acme_cbo.scms.files import fit
from acme_cbo.scms.files import graph_files
from acme_cbo.scms.files import yaml_nodes

_MAX_BYTES = 256 * 1024
_MAX_VARIABLES = 200
_MAX_SETS = 50_000
# Of `check_finite`.
_MAX_CHECKED_SETS = 200
_NUM_CHECKED_DRAWS = 256

_NEEDED = ('name', 'target', 'goal')
_FITTED = ('graph', 'data', 'fit')
_TOP = (
  *_NEEDED,
  'variables',
  *_FITTED,
  'interventions',
  'budget',
  'source',
  'optimum',
)
_VARIABLE = ('equation', 'domain', 'cost', 'noise', 'latent')
_SETTABLE = ('domain', 'cost')
_INTERVENTIONS = ('max_size', 'sets')
_GOALS = {'minimize': -1.0, 'maximize': 1.0}
_SYSTEM_NAME = re.compile(r'[A-Za-z0-9][A-Za-z0-9._-]{0,63}')


def read(path: str | os.PathLike[str]) -> systems.System:
  """Reads a file.

  Args:
    path: of the file.

  Returns:
    The system, in the precision that jax is set to.

  Raises:
    errors.UsageError: it cannot be read, or does not describe a system; in one
      line, with line and column.
  """
  path = pathlib.Path(path)
  return parse(graph_files.read_text(path, _MAX_BYTES), str(path))


def parse(text: str, file: str = 'text') -> systems.System:
  """Reads a text.

  Args:
    text: of a file.
    file: what complaints call it; graph and data lie beside it.

  Returns:
    The system, in the precision that jax is set to.

  Raises:
    errors.UsageError: as `read`.
  """
  if len(text) > _MAX_BYTES:
    raise errors.UsageError(
      f'{file}: larger than {_MAX_BYTES // 1024} KiB; a system is described in '
      'less'
    )
  try:
    root = yaml_nodes.compose(text)
    return _Reader(text, pathlib.Path(file).parent).system(root)
  except yaml_nodes.Complaint as complaint:
    raise errors.UsageError(
      f'{file}:{complaint.place}: {complaint}'
    ) from complaint


def check_finite(system: systems.System, seed: int = 0) -> None:
  """Refuses a system whose variables can have no finite value.

  Samples it under no intervention, and under interventions on each allowed set
  (on 200 of them where there are more): at the ends of the domains and at a
  random point between.

  Args:
    system: the system.
    seed: of the draws.

  Raises:
    errors.UsageError: a value is not finite; names variable, equation and
      intervention.
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
  draw = jax.jit(simulate.noise_bank, static_argnums=2)
  bank = draw(jax.random.key(seed), system.scm, _NUM_CHECKED_DRAWS)
  propagate = jax.jit(simulate.propagate)
  finite = jax.jit(
    lambda scm, attempts, bank: jax.lax.map(
      lambda one: jnp.isfinite(simulate.propagate(scm, one, bank)).all(),
      attempts,
    )
  )
  attempts = types.Intervention(
    jnp.asarray(mask), jnp.asarray(values, low.dtype)
  )
  fine = np.asarray(finite(system.scm, attempts, bank))
  if not fine.all():
    first = jax.tree.map(lambda leaf: leaf[int(np.argmin(fine))], attempts)
    u = propagate(system.scm, first, bank)
    raise errors.UsageError(systems.describe_non_finite(system, first, u))


class _Variable(NamedTuple):
  """What is said of a variable.

  Attributes:
    name: its own.
    key: where it is said.
    fields: nodes by their keys.
  """

  name: str
  key: yaml.Node
  fields: dict[str, yaml.Node]


class _Model(NamedTuple):
  """Variables and their equations, as a file says them or as they are fitted.

  Attributes:
    variables: D of them.
    parents: [D, D] bool.
    latent: [D] whether nobody watches.
    domains: [D] of those that may be set; None of the others.
    equations: what else `assemble.system` takes.
  """

  variables: list[_Variable]
  parents: np.ndarray
  latent: Sequence[bool]
  domains: list[tuple[float, float] | None]
  equations: dict[str, Any]


class _Reader:
  """Makes a system of nodes.

  The text is there to find columns in, other files are looked for in a folder.
  """

  def __init__(self, text: str, folder: pathlib.Path):
    self._text = text
    self._folder = folder

  def system(self, root: yaml.Node) -> systems.System:
    top = yaml_nodes.fields(root, 'the file', _TOP, _NEEDED)
    name = yaml_nodes.word(top['name'], 'name')
    if not _SYSTEM_NAME.fullmatch(name):
      yaml_nodes.refuse(
        top['name'],
        f'name {yaml_nodes.short(name)} must be a letter or digit, then up to '
        '63 '
        'letters, digits or . _ -',
      )
    goal = yaml_nodes.option(top['goal'], 'goal', list(_GOALS))
    source = yaml_nodes.word(top['source'], 'source') if 'source' in top else ''
    source = ' '.join(source.split())
    is_fitted = not top.keys().isdisjoint(_FITTED)
    model = (self._fitted if is_fitted else self._written)(top, root)
    domains = model.domains
    names = [variable.name for variable in model.variables]
    target = self._target(top['target'], names, model)
    costs = [
      self._cost(variable, domain is not None)
      for variable, domain in zip(model.variables, domains, strict=True)
    ]
    settable = [domain is not None for domain in domains]
    if not any(settable):
      yaml_nodes.refuse(
        top.get('variables', root), 'no variable has a domain: none may be set'
      )
    sets = self._sets(top.get('interventions'), root, names, settable)
    causes = np.asarray(graphs.ancestors(jnp.asarray(model.parents)))[target]
    if not (causes & sets.any(0)).any():
      yaml_nodes.refuse(
        top['target'],
        f'no variable that may be set is a cause of the target {names[target]}',
      )
    budget = math.inf
    if 'budget' in top:
      budget = yaml_nodes.positive(top['budget'], 'budget')
      cheapest = (sets * np.array(costs)).sum(1).min()
      if budget < cheapest:
        yaml_nodes.refuse(
          top['budget'],
          f'budget {budget:g} pays for no intervention; the cheapest costs '
          f'{cheapest:g}',
        )
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
      hint=hint,
      graph=systems.NO_KIND,
      **model.equations,
    )

  def _written(self, top: dict[str, yaml.Node], root: yaml.Node) -> _Model:
    """What the equations of the file say."""
    if 'variables' not in top:
      yaml_nodes.refuse(
        root,
        'the file: variables is missing, with their equations; or graph, data '
        'and fit, where they are not known',
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

  def _fitted(self, top: dict[str, yaml.Node], root: yaml.Node) -> _Model:
    """What data say of the equations of a graph."""
    for name in _FITTED:
      if name not in top:
        yaml_nodes.refuse(
          root, f'{", ".join(_FITTED)} belong together: {name} is missing'
        )
    kind = yaml_nodes.option(top['fit'], 'fit', fit.KINDS)
    of_graph, of_data = (
      self._folder / yaml_nodes.word(top[name], name)
      for name in ('graph', 'data')
    )
    graph = _found(top['graph'], graph_files.read, of_graph)
    data = _found(top['data'], fit.read_csv, of_data)
    both = f'{of_graph} and {of_data}'
    found = _found(top['fit'], fit.fit, graph, data, kind, both)
    names = graph.variables
    said, pairs = {}, []
    if 'variables' in top:
      pairs = yaml_nodes.pairs(top['variables'], 'variables')
      if not pairs:
        yaml_nodes.refuse(top['variables'], 'variables is empty')
    for key, value in pairs:
      yaml_nodes.index(key, 'variables', names)
      fields = yaml_nodes.fields(value, f'variable {key.value}', _SETTABLE)
      said[key.value] = _Variable(key.value, key, fields)
    target = yaml_nodes.word(top['target'], 'target')
    variables, domains = [], []
    for j, name in enumerate(names):
      variable = said.get(name, _Variable(name, root, {}))
      if name in said and graph.latent[j]:
        yaml_nodes.refuse(
          variable.key,
          f'variable {name} is latent: nobody sees it, so it may not be set',
        )
      domain = self._domain(variable)
      may = name in said or (not said and name != target)
      if may and not graph.latent[j]:
        domain = domain or (found.least[j], found.greatest[j])
      variables.append(variable)
      domains.append(domain)
    return _Model(
      variables,
      graph.parents,
      graph.latent.tolist(),
      domains,
      {
        'mechanism': found.mechanism,
        'family': found.family,
        'location': found.location,
        'scale': found.scale,
      },
    )

  def _variables(self, node: yaml.Node) -> list[_Variable]:
    variables = []
    for key, value in yaml_nodes.pairs(node, 'variables'):
      try:
        formulas.check_name(key.value)
      except errors.UsageError as error:
        yaml_nodes.refuse(key, str(error))
      fields = yaml_nodes.fields(
        value, f'variable {key.value}', _VARIABLE, ('equation',)
      )
      variables.append(_Variable(key.value, key, fields))
    if not variables:
      yaml_nodes.refuse(node, 'variables is empty')
    if len(variables) > _MAX_VARIABLES:
      yaml_nodes.refuse(
        node, f'{len(variables)} variables; at most {_MAX_VARIABLES}'
      )
    return variables

  def _equation(
    self, variable: _Variable, names: Sequence[str]
  ) -> formulas.Equation:
    what = f'variable {variable.name}: equation'
    node = yaml_nodes.scalar(variable.fields['equation'], what)
    try:
      return formulas.parse(node.value, names)
    except formulas.FormulaError as error:
      shift = self._shift(node, error.column)
      inside = '' if shift is not None else f', column {error.column}'
      raise yaml_nodes.Complaint(
        f'{what}{inside}: {error.reason}', node.start_mark, shift or 0
      ) from error

  def _shift(self, node: yaml.ScalarNode, column: int) -> int | None:
    """Columns from the start of a scalar to a column of its value, if known.

    Known where the value stands in the file as it is, on one line.
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
    """Refuses causes that go in a circle."""
    before = {
      variable.name: equation.names
      for variable, equation in zip(variables, equations, strict=True)
    }
    try:
      graphlib.TopologicalSorter(before).prepare()
    except graphlib.CycleError as error:
      cycle = error.args[1]
      # Told from whichever of its variables stands first in the file.
      first = min(cycle, key=list(before).index)
      start = cycle.index(first)
      cycle = [*cycle[start:-1], *cycle[:start], first]
      node = variables[list(before).index(first)].fields['equation']
      raise yaml_nodes.Complaint(
        f'variable {first}: causes go in a circle: {" -> ".join(cycle)}',
        node.start_mark,
      ) from error

  def _noise(
    self, variable: _Variable, equation: formulas.Equation
  ) -> formulas.Noise:
    if 'noise' not in variable.fields:
      return formulas.Noise() if equation.noisy else formulas.Noise('none', ())
    node = variable.fields['noise']
    what = f'variable {variable.name}: noise'
    if isinstance(node, yaml.MappingNode):
      pairs = yaml_nodes.pairs(node, what)
      if len(pairs) != 1:
        yaml_nodes.refuse(node, f'{what} must be one distribution')
      kind, parameters = pairs[0][0].value, pairs[0][1]
      numbers = tuple(
        yaml_nodes.number(item, what)
        for item in yaml_nodes.items(parameters, what)
      )
    else:
      kind, numbers = yaml_nodes.word(node, what), ()
    noise = formulas.Noise(kind, numbers)
    try:
      formulas.check_noise(noise)
    except errors.UsageError as error:
      yaml_nodes.refuse(node, f'variable {variable.name}: {error}')
    if kind != 'none' and not equation.noisy:
      yaml_nodes.refuse(
        node, f'{what} is given, but the equation does not mention e'
      )
    return noise

  def _latent(self, variable: _Variable) -> bool:
    if 'latent' not in variable.fields:
      return False
    what = f'variable {variable.name}: latent'
    node = variable.fields['latent']
    latent = yaml_nodes.option(node, what, ['true', 'false']) == 'true'
    if latent and 'domain' in variable.fields:
      yaml_nodes.refuse(
        variable.fields['domain'],
        f'variable {variable.name} is latent: nobody sees it, so it may not be '
        'set; remove domain or latent',
      )
    return latent

  def _target(
    self, node: yaml.Node, names: Sequence[str], model: _Model
  ) -> int:
    target = yaml_nodes.index(node, 'target', names)
    if model.latent[target]:
      yaml_nodes.refuse(
        node, f'target {names[target]} is latent: nobody sees it'
      )
    if model.domains[target] is not None:
      variable = model.variables[target]
      yaml_nodes.refuse(
        variable.fields.get('domain', variable.key),
        f'variable {names[target]} is the target, which may not be set; remove '
        'its domain',
      )
    return target

  def _domain(self, variable: _Variable) -> tuple[float, float] | None:
    if 'domain' not in variable.fields:
      return None
    node = variable.fields['domain']
    what = f'variable {variable.name}: domain'
    numbers = [
      yaml_nodes.number(item, what) for item in yaml_nodes.items(node, what)
    ]
    if len(numbers) != 2:
      yaml_nodes.refuse(node, f'{what} must be [low, high]')
    low, high = numbers
    # Also in float32, in which policies may be run.
    if not np.float32(low) < np.float32(high):
      yaml_nodes.refuse(
        node, f'{what} must be [low, high] with low < high, got '
        f'[{low:.9g}, {high:.9g}]'
      )  # fmt: skip
    return low, high

  def _cost(self, variable: _Variable, may_be_set: bool) -> float:
    if 'cost' not in variable.fields:
      return 1.0
    node = variable.fields['cost']
    if not may_be_set:
      yaml_nodes.refuse(
        node,
        f'variable {variable.name} has a cost but no domain, so it may not be '
        'set; give it a domain or remove the cost',
      )
    return yaml_nodes.positive(node, f'variable {variable.name}: cost')

  def _sets(
    self,
    node: yaml.Node | None,
    root: yaml.Node,
    names: Sequence[str],
    settable: Sequence[bool],
  ) -> np.ndarray:
    """The sets that may be set together: [M, D] bool."""
    what = 'interventions'
    allowed = np.flatnonzero(settable)
    fields = (
      {} if node is None else yaml_nodes.fields(node, what, _INTERVENTIONS)
    )
    if node is not None and len(fields) != 1:
      yaml_nodes.refuse(node, f'{what} must have either max_size or sets')
    if 'sets' in fields:
      return self._listed_sets(fields['sets'], names, settable)
    size = 1
    if 'max_size' in fields:
      inner = fields['max_size']
      size = yaml_nodes.number(inner, f'{what}: max_size')
      if size != int(size) or not 1 <= size <= len(allowed):
        yaml_nodes.refuse(
          inner,
          f'{what}: max_size must be a whole number, 1 to {len(allowed)} '
          f'(so many may be set), got {size:g}',
        )
      size = int(size)
    number = sum(math.comb(len(allowed), k) for k in range(1, size + 1))
    if number > _MAX_SETS:
      yaml_nodes.refuse(
        node or root,
        f'{what}: {number:,} sets of up to {size} out of {len(allowed)} '
        f'variables; at most {_MAX_SETS:,}: lower max_size or list the sets',
      )
    return intervention_sets.subsets(np.array(settable), size)

  def _listed_sets(self, node, names, settable) -> np.ndarray:
    what = 'interventions: sets'
    members: dict[tuple[int, ...], None] = {}
    for inner in yaml_nodes.items(node, what):
      subset = []
      for item in yaml_nodes.items(inner, what):
        j = yaml_nodes.index(item, what, names)
        if not settable[j]:
          yaml_nodes.refuse(
            item, f'{what}: {names[j]} has no domain, so it may not be set'
          )
        if j in subset:
          yaml_nodes.refuse(item, f'{what}: {names[j]} is twice in one set')
        subset.append(j)
      if not subset:
        yaml_nodes.refuse(inner, f'{what}: an empty set')
      if tuple(sorted(subset)) in members:
        together = ', '.join(names[j] for j in subset)
        yaml_nodes.refuse(inner, f'{what}: [{together}] is there twice')
      members[tuple(sorted(subset))] = None
    if not 1 <= len(members) <= _MAX_SETS:
      yaml_nodes.refuse(
        node, f'{what}: {len(members)} sets; there must be 1 to {_MAX_SETS:,}'
      )
    sets = np.zeros((len(members), len(names)), bool)
    for row, subset in zip(sets, members, strict=True):
      row[np.array(subset)] = True
    return sets

  def _optimum(self, node, names, domains, sets) -> dict[int, float]:
    values: dict[int, float] = {}
    for key, value in yaml_nodes.pairs(node, 'optimum'):
      j = yaml_nodes.index(key, 'optimum', names)
      number = yaml_nodes.number(value, f'optimum: {names[j]}')
      if domains[j] is None:
        yaml_nodes.refuse(
          key, f'optimum: {names[j]} has no domain, so it may not be set'
        )
      low, high = domains[j]
      if not low <= number <= high:
        yaml_nodes.refuse(
          value,
          f'optimum: {names[j]} = {number:.9g} is outside its domain '
          f'[{low:.9g}, {high:.9g}]',
        )
      values[j] = number
    mask = np.isin(np.arange(len(names)), list(values))
    if not (sets == mask).all(1).any():
      together = ', '.join(names[j] for j in np.flatnonzero(mask))
      yaml_nodes.refuse(
        node, f'optimum: [{together}] is not among the sets of interventions'
      )
    return values


def _found(node: yaml.Node, read: Callable[..., Any], *args: Any) -> Any:
  """What other files say; complaints begin with the place that asked."""
  try:
    return read(*args)
  except errors.UsageError as error:
    yaml_nodes.refuse(node, str(error))
