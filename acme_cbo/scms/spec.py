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

`formulas` says what an equation may hold. A variable without a domain may not
be set. The last four may be left out: then one variable is set at a time, and
nothing limits the cost. A variable costs 1, and its noise is normal of mean 0
and deviation 1, unless given: normal [mean, deviation], uniform [low, high],
laplace [location, scale], gamma [shape, location, scale], or none.

YAML is taken apart node by node, never constructed: no tag, anchor or alias is
followed, a name is what was written (`NO` and `Y` are no truth values), and
whatever is wrong is told with its line and column.
"""

from collections.abc import Sequence
import graphlib
import math
import os
import pathlib
import re
from typing import NoReturn

import jax
import jax.numpy as jnp
import numpy as np
import yaml

from acme_cbo import errors
from acme_cbo import interventions
from acme_cbo import types
from acme_cbo.scms import assemble
from acme_cbo.scms import formulas
from acme_cbo.scms import graphs
from acme_cbo.scms import simulate
from acme_cbo.scms import systems

_MAX_BYTES = 256 * 1024
_MAX_DEPTH = 8
_MAX_VARIABLES = 200
_MAX_SETS = 50_000
# Numbers beyond it are nobody's units, and would be infinite in float32.
_MAX_NUMBER = 1e9
# Of `check_finite`.
_MAX_CHECKED_SETS = 200
_NUM_CHECKED_DRAWS = 256

_NEEDED = ('name', 'target', 'goal', 'variables')
_TOP = (*_NEEDED, 'interventions', 'budget', 'source', 'optimum')
_VARIABLE = ('equation', 'domain', 'cost', 'noise', 'latent')
_INTERVENTIONS = ('max_size', 'sets')
_GOALS = {'minimize': -1.0, 'maximize': 1.0}
_SYSTEM_NAME = re.compile(r'[A-Za-z0-9][A-Za-z0-9._-]{0,63}')
_NUMBER = re.compile(
  r'[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?', re.ASCII
)


_START = yaml.Mark('', 0, 0, 0, None, 0)


class _Complaint(Exception):
  """What is wrong, and the place: a mark of YAML's."""

  def __init__(self, what: str, mark: yaml.Mark, shift: int = 0):
    super().__init__(what)
    self.place = f'{mark.line + 1}:{mark.column + 1 + shift}'


class _Loader(yaml.SafeLoader):
  """Composes nodes, and refuses what would make one of them mean more."""

  _depth = 0

  def compose_node(self, parent, index):
    event = self.peek_event()
    mark = event.start_mark
    if isinstance(event, yaml.AliasEvent) or event.anchor:
      raise _Complaint('anchors (&) and aliases (*) are not read', mark)
    if event.tag:
      raise _Complaint('tags (!) are not read', mark)
    if self._depth == _MAX_DEPTH:
      raise _Complaint(f'nested over {_MAX_DEPTH} deep', mark)
    self._depth += 1
    node = super().compose_node(parent, index)
    self._depth -= 1
    return node


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
  try:
    with path.open('rb') as file:
      data = file.read(_MAX_BYTES + 1)
  except OSError as error:
    raise errors.UsageError(f'{path}: {error.strerror}') from error
  except ValueError as error:  # A path with a null character in it.
    raise errors.UsageError(f'{str(path)!r} is no path') from error
  if len(data) > _MAX_BYTES:
    raise errors.UsageError(
      f'{path}: larger than {_MAX_BYTES // 1024} KiB; a system is described in '
      'less'
    )
  try:
    text = data.decode('utf-8-sig')
  except UnicodeDecodeError as error:
    line = data.count(b'\n', 0, error.start) + 1
    raise errors.UsageError(
      f'{path}:{line}: not UTF-8 text (byte {error.start})'
    ) from error
  return parse(text, str(path))


def parse(text: str, file: str = 'text') -> systems.System:
  """Reads a text.

  Args:
    text: of a file.
    file: what complaints call it.

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
    root = _compose(text)
    return _Reader(text).system(root)
  except _Complaint as complaint:
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
    lambda scm, todo, bank: jax.lax.map(
      lambda one: jnp.isfinite(simulate.propagate(scm, one, bank)).all(), todo
    )
  )
  todo = types.Intervention(jnp.asarray(mask), jnp.asarray(values, low.dtype))
  fine = np.asarray(finite(system.scm, todo, bank))
  if not fine.all():
    first = jax.tree.map(lambda leaf: leaf[int(np.argmin(fine))], todo)
    u = propagate(system.scm, first, bank)
    raise errors.UsageError(systems.not_finite(system, first, u))


def _compose(text: str) -> yaml.Node:
  """The tree of nodes of a text."""
  try:
    root = yaml.compose(text, Loader=_Loader)
  except yaml.reader.ReaderError as error:
    before = text[: error.position]
    mark = yaml.Mark(
      '', 0, before.count('\n'), len(before) - before.rfind('\n') - 1, None, 0
    )
    raise _Complaint('a character that no text has', mark) from error
  except yaml.MarkedYAMLError as error:
    what = ' '.join(f'{error.problem}'.split()).removeprefix('but ')
    raise _Complaint(
      f'not YAML: {what}', error.problem_mark or _START
    ) from error
  # A code of a character, or a version, that is too large for a number.
  except (ValueError, OverflowError) as error:
    raise _Complaint('not YAML: a number is too large', _START) from error
  if root is None:
    raise _Complaint('empty; it must describe a system', _START)
  return root


class _Variable:
  """One variable of the file: its name, and its fields as nodes."""

  def __init__(self, key: yaml.ScalarNode, fields: dict[str, yaml.Node]):
    self.key = key
    self.name = key.value
    self.fields = fields


class _Reader:
  """Makes a system of nodes; the text is there to find columns in."""

  def __init__(self, text: str):
    self._text = text

  def system(self, root: yaml.Node) -> systems.System:
    top = self._fields(root, 'the file', _TOP, _NEEDED)
    name = self._word(top['name'], 'name')
    if not _SYSTEM_NAME.fullmatch(name):
      self._refuse(
        top['name'],
        f'name {_short(name)} must be a letter or digit, then up to 63 '
        'letters, digits or . _ -',
      )
    goal = self._option(top['goal'], 'goal', list(_GOALS))
    source = self._word(top['source'], 'source') if 'source' in top else ''
    source = ' '.join(source.split())
    variables = self._variables(top['variables'])
    names = [variable.name for variable in variables]
    equations = [self._equation(v, names) for v in variables]
    self._check_order(variables, equations)
    noises = [
      self._noise(v, equation)
      for v, equation in zip(variables, equations, strict=True)
    ]
    latent = [self._latent(variable) for variable in variables]
    target = self._target(top['target'], variables, latent)
    domains = [self._domain(variable) for variable in variables]
    costs = [self._cost(variable) for variable in variables]
    settable = [domain is not None for domain in domains]
    if not any(settable):
      self._refuse(
        top['variables'], 'no variable has a domain: none may be set'
      )

    mechanism = formulas.Formulas(
      tuple(names),
      tuple(v.fields['equation'].value for v in variables),
      tuple(noises),
    )
    sets = self._sets(top.get('interventions'), root, names, settable)
    parents = mechanism.parents
    causes = np.asarray(graphs.ancestors(jnp.asarray(parents)))[target]
    if not (causes & sets.any(0)).any():
      self._refuse(
        top['target'],
        f'no variable that may be set is a cause of the target {names[target]}',
      )
    budget = math.inf
    if 'budget' in top:
      budget = self._positive(top['budget'], 'budget')
      cheapest = (sets * np.array(costs)).sum(1).min()
      if budget < cheapest:
        self._refuse(
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
      parents=parents,
      target=target,
      goal=_GOALS[goal],
      sets=sets,
      low=low,
      high=high,
      mechanism=mechanism,
      family=systems.NO_KIND,
      graph=systems.NO_KIND,
      latent=latent,
      cost=costs,
      budget=budget,
      hint=hint,
    )

  def _variables(self, node: yaml.Node) -> list[_Variable]:
    variables = []
    for key, value in self._pairs(node, 'variables'):
      try:
        formulas.check_name(key.value)
      except errors.UsageError as error:
        self._refuse(key, str(error))
      fields = self._fields(
        value, f'variable {key.value}', _VARIABLE, ('equation',)
      )
      variables.append(_Variable(key, fields))
    if not variables:
      self._refuse(node, 'variables is empty')
    if len(variables) > _MAX_VARIABLES:
      self._refuse(
        node, f'{len(variables)} variables; at most {_MAX_VARIABLES}'
      )
    return variables

  def _equation(
    self, variable: _Variable, names: Sequence[str]
  ) -> formulas.Equation:
    what = f'variable {variable.name}: equation'
    node = self._scalar(variable.fields['equation'], what)
    try:
      return formulas.parse(node.value, names)
    except formulas.FormulaError as error:
      shift = self._shift(node, error.column)
      inside = '' if shift is not None else f', column {error.column} of it'
      raise _Complaint(
        f'{what}: {error.what}{inside}', node.start_mark, shift or 0
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
      raise _Complaint(
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
    if not equation.noisy:
      self._refuse(
        node, f'{what} is given, but the equation does not mention e'
      )
    if isinstance(node, yaml.MappingNode):
      pairs = self._pairs(node, what)
      if len(pairs) != 1:
        self._refuse(node, f'{what} must be one distribution')
      kind, parameters = pairs[0][0].value, pairs[0][1]
      numbers = tuple(
        self._number(item, what) for item in self._items(parameters, what)
      )
    else:
      kind, numbers = self._word(node, what), ()
    noise = formulas.Noise(kind, numbers)
    try:
      formulas.check_noise(noise)
    except errors.UsageError as error:
      self._refuse(node, f'variable {variable.name}: {error}')
    return noise

  def _latent(self, variable: _Variable) -> bool:
    if 'latent' not in variable.fields:
      return False
    what = f'variable {variable.name}: latent'
    node = variable.fields['latent']
    latent = self._option(node, what, ['true', 'false']) == 'true'
    if latent and 'domain' in variable.fields:
      self._refuse(
        variable.fields['domain'],
        f'variable {variable.name} is latent: nobody sees it, so it may not be '
        'set; remove domain or latent',
      )
    return latent

  def _target(
    self,
    node: yaml.Node,
    variables: Sequence[_Variable],
    latent: Sequence[bool],
  ) -> int:
    names = [variable.name for variable in variables]
    target = self._index(node, 'target', names)
    if latent[target]:
      self._refuse(node, f'target {names[target]} is latent: nobody sees it')
    if 'domain' in variables[target].fields:
      self._refuse(
        variables[target].fields['domain'],
        f'variable {names[target]} is the target, which may not be set; remove '
        'its domain',
      )
    return target

  def _domain(self, variable: _Variable) -> tuple[float, float] | None:
    if 'domain' not in variable.fields:
      return None
    node = variable.fields['domain']
    what = f'variable {variable.name}: domain'
    numbers = [self._number(item, what) for item in self._items(node, what)]
    if len(numbers) != 2:
      self._refuse(node, f'{what} must be [low, high]')
    low, high = numbers
    # Also in float32, in which policies may be run.
    if not np.float32(low) < np.float32(high):
      self._refuse(
        node, f'{what} must be [low, high] with low < high, got '
        f'[{low:.9g}, {high:.9g}]'
      )  # fmt: skip
    return low, high

  def _cost(self, variable: _Variable) -> float:
    if 'cost' not in variable.fields:
      return 1.0
    node = variable.fields['cost']
    if 'domain' not in variable.fields:
      self._refuse(
        node,
        f'variable {variable.name} has a cost but no domain, so it may not be '
        'set; give it a domain or remove the cost',
      )
    return self._positive(node, f'variable {variable.name}: cost')

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
    fields = {} if node is None else self._fields(node, what, _INTERVENTIONS)
    if node is not None and len(fields) != 1:
      self._refuse(node, f'{what} must have either max_size or sets')
    if 'sets' in fields:
      return self._listed_sets(fields['sets'], names, settable)
    size = 1
    if 'max_size' in fields:
      inner = fields['max_size']
      size = self._number(inner, f'{what}: max_size')
      if size != int(size) or not 1 <= size <= len(allowed):
        self._refuse(
          inner,
          f'{what}: max_size must be a whole number, 1 to {len(allowed)} '
          f'(so many may be set), got {size:g}',
        )
      size = int(size)
    number = sum(math.comb(len(allowed), k) for k in range(1, size + 1))
    if number > _MAX_SETS:
      self._refuse(
        node or root,
        f'{what}: {number:,} sets of up to {size} out of {len(allowed)} '
        f'variables; at most {_MAX_SETS:,}: lower max_size or list the sets',
      )
    return interventions.subsets(np.array(settable), size)

  def _listed_sets(self, node, names, settable) -> np.ndarray:
    what = 'interventions: sets'
    members: dict[tuple[int, ...], None] = {}
    for inner in self._items(node, what):
      subset = []
      for item in self._items(inner, what):
        j = self._index(item, what, names)
        if not settable[j]:
          self._refuse(
            item, f'{what}: {names[j]} has no domain, so it may not be set'
          )
        if j in subset:
          self._refuse(item, f'{what}: {names[j]} is twice in one set')
        subset.append(j)
      if not subset:
        self._refuse(inner, f'{what}: an empty set')
      if tuple(sorted(subset)) in members:
        together = ', '.join(names[j] for j in subset)
        self._refuse(inner, f'{what}: [{together}] is there twice')
      members[tuple(sorted(subset))] = None
    if not 1 <= len(members) <= _MAX_SETS:
      self._refuse(
        node, f'{what}: {len(members)} sets; there must be 1 to {_MAX_SETS:,}'
      )
    sets = np.zeros((len(members), len(names)), bool)
    for row, subset in zip(sets, members, strict=True):
      row[np.array(subset)] = True
    return sets

  def _optimum(self, node, names, domains, sets) -> dict[int, float]:
    values: dict[int, float] = {}
    for key, value in self._pairs(node, 'optimum'):
      j = self._index(key, 'optimum', names)
      number = self._number(value, f'optimum: {names[j]}')
      if domains[j] is None:
        self._refuse(
          key, f'optimum: {names[j]} has no domain, so it may not be set'
        )
      low, high = domains[j]
      if not low <= number <= high:
        self._refuse(
          value,
          f'optimum: {names[j]} = {number:.9g} is outside its domain '
          f'[{low:.9g}, {high:.9g}]',
        )
      values[j] = number
    mask = np.isin(np.arange(len(names)), list(values))
    if not (sets == mask).all(1).any():
      together = ', '.join(names[j] for j in np.flatnonzero(mask))
      self._refuse(
        node, f'optimum: [{together}] is not among the sets of interventions'
      )
    return values

  def _refuse(self, node: yaml.Node, what: str) -> NoReturn:
    raise _Complaint(what, node.start_mark)

  def _pairs(
    self, node: yaml.Node, what: str
  ) -> list[tuple[yaml.ScalarNode, yaml.Node]]:
    """Keys, which are words, each once, and their nodes."""
    if not isinstance(node, yaml.MappingNode):
      self._refuse(node, f'{what} must be a mapping (key: value)')
    seen = set()
    for key, _ in node.value:
      self._word(key, f'a key of {what}')
      if key.value in seen:
        self._refuse(key, f'{what}: {_short(key.value)} is there twice')
      seen.add(key.value)
    return node.value

  def _fields(
    self,
    node: yaml.Node,
    what: str,
    known: Sequence[str],
    needed: Sequence[str] = (),
  ) -> dict[str, yaml.Node]:
    fields = {}
    for key, value in self._pairs(node, what):
      if key.value not in known:
        hint = errors.did_you_mean(key.value, known)
        there_are = f'; there are {", ".join(known)}'
        self._refuse(
          key,
          f'{what}: key {_short(key.value)} is unknown{hint or there_are}',
        )
      fields[key.value] = value
    for name in needed:
      if name not in fields:
        self._refuse(node, f'{what}: {name} is missing')
    return fields

  def _items(self, node: yaml.Node, what: str) -> list[yaml.Node]:
    if not isinstance(node, yaml.SequenceNode):
      self._refuse(node, f'{what} must be a list [...]')
    return node.value

  def _scalar(self, node: yaml.Node, what: str) -> yaml.ScalarNode:
    """A node that holds a text, which is not empty."""
    if not isinstance(node, yaml.ScalarNode):
      self._refuse(node, f'{what} must be a text')
    if not node.value.strip():
      self._refuse(node, f'{what} is empty')
    return node

  def _word(self, node: yaml.Node, what: str) -> str:
    """A text as it was written, whatever YAML would make of it."""
    return self._scalar(node, what).value

  def _option(self, node: yaml.Node, what: str, options: Sequence[str]) -> str:
    word = self._word(node, what)
    if word not in options:
      self._refuse(
        node, f'{what} must be {" or ".join(options)}, got {_short(word)}'
      )
    return word

  def _index(self, node: yaml.Node, what: str, names: Sequence[str]) -> int:
    word = self._word(node, what)
    if word not in names:
      hint = errors.did_you_mean(word, names)
      self._refuse(node, f'{what}: {_short(word)} is no variable{hint}')
    return list(names).index(word)

  def _number(self, node: yaml.Node, what: str) -> float:
    scalar = self._scalar(node, what)
    word = scalar.value
    if scalar.style is not None or not _NUMBER.fullmatch(word):
      self._refuse(node, f'{what} must be a finite number, got {_short(word)}')
    number = float(word)
    if abs(number) > _MAX_NUMBER:
      self._refuse(
        node,
        f'{what} must be a number within ±{_MAX_NUMBER:g}, got {_short(word)}',
      )
    return number

  def _positive(self, node: yaml.Node, what: str) -> float:
    number = self._number(node, what)
    if not np.float32(number) > 0:
      self._refuse(node, f'{what} must be positive, got {number:g}')
    return number


def _short(word: str) -> str:
  """A word in quotes, on one line and not too long."""
  return repr(word if len(word) <= 40 else f'{word[:40]}…')
