"""What methods are compared on: systems by name, by group, and from files."""

from collections.abc import Callable, Mapping, Sequence
import functools
import pathlib
from typing import Any, NamedTuple

from acme_cbo import types
from acme_cbo.infra import errors
from acme_cbo.scms import benchmarks
from acme_cbo.scms import families
from acme_cbo.scms import optimum
from acme_cbo.scms import shifts
from acme_cbo.scms import systems
from acme_cbo.scms.files import yaml_spec

# Names that stand for several.
GROUPS: dict[str, tuple[str, ...]] = {
  'benchmarks': tuple(benchmarks.TEXTS),
  'families': tuple(families.FAMILIES),
  'shifts': shifts.NAMES,
}


class Environment(NamedTuple):
  """A system, or a family of which each repeat draws a fresh one.

  Attributes:
    name: as tables show it.
    make: number of the repeat -> its system.
    held_out: whether the trained policy never met its like, that is, as many
      variables, that kind of graph, and that kind of equations; None where no
      trained policy plays.
    fresh: whether each repeat has a system of its own.
    digest: of what it is made from, if that may change.
    search: finds what the interventions on a system can reach.
  """

  name: str
  make: Callable[[int], systems.System]
  held_out: bool | None = None
  fresh: bool = False
  digest: str = ''
  search: Callable[[systems.System], optimum.Optimum] = optimum.search


# What `resolve` is, so that tests can have environments of their own.
Resolve = Callable[[Sequence[str], Mapping[str, Any]], list[Environment]]


def resolve(
  texts: Sequence[str], about: Mapping[str, Any]
) -> list[Environment]:
  """The environments that a list names.

  Args:
    texts: names of benchmarks, families, shifts and groups, and paths of YAML
      files.
    about: what the trained policy was trained for, see `saving.load`;
      empty where none plays.

  Returns:
    One `Environment` for each, several for a group, in the same order.

  Raises:
    errors.UsageError: there is no such name or file, the file describes no
      system, or a shift is asked for and there is nothing to shift.
  """
  names = [name for text in texts for name in GROUPS.get(text, (text,))]
  found = [_environment(name, about) for name in names]
  if not about:
    return found
  return [
    one
    if one.held_out is not None
    else one._replace(held_out=_is_held_out(about['scms'], one.make(0).scm))
    for one in found
  ]


def _is_held_out(trained_on: Mapping[str, Any], scm: types.SCM) -> bool:
  """Whether a prior draws no SCM of that size, graph and equations."""
  kinds = (
    (trained_on['graph_weights'], int(scm.graph)),
    (trained_on['family_weights'], int(scm.family)),
  )
  return scm.order.size > trained_on['max_variables'] or any(
    kind == systems.NO_KIND or not weights[kind] for weights, kind in kinds
  )


def _environment(text: str, about: Mapping[str, Any]) -> Environment:
  if text in benchmarks.TEXTS:
    system = benchmarks.load(text)
    return Environment(
      text, lambda repeat: system, digest=systems.digest(system)
    )
  if text in families.FAMILIES:
    make = families.FAMILIES[text]
    return Environment(text, make, fresh=text in families.DRAWN)
  if text in shifts.NAMES:
    return _shifted(text, about)
  if text.endswith(('.yaml', '.yml')):
    return _from_file(pathlib.Path(text))
  known = [*GROUPS, *benchmarks.TEXTS, *families.FAMILIES, *shifts.NAMES]
  hint = errors.did_you_mean(text, known)
  file = pathlib.Path(f'{text}.yaml')
  if file.exists():
    hint = f'; did you mean the file {file}?'
  raise errors.UsageError(
    f'--scm: there is no SCM {text!r}{hint}; '
    f'there are {", ".join([*GROUPS, *benchmarks.TEXTS, *shifts.NAMES])}, the '
    'families that acme_cbo/scms/families.py names, and files that end in .yaml'
  )


def _shifted(name: str, about: Mapping[str, Any]) -> Environment:
  if not about:
    raise errors.UsageError(
      f'--scm: {name} is told from what a policy was trained on; name one, '
      '--workdir= or --policy=, and let grpo play'
    )
  prior = shifts.prior(about, name)
  return Environment(
    name,
    functools.partial(shifts.system, name, prior),
    held_out=name != shifts.AS_TRAINED,
    fresh=True,
    digest=shifts.digest(prior),
  )


def _from_file(path: pathlib.Path) -> Environment:
  system = yaml_spec.read(path)
  try:
    yaml_spec.check_finite(system)
  except errors.UsageError as error:
    raise errors.UsageError(f'{path}: {error}') from error
  return Environment(
    system.name, lambda repeat: system, digest=systems.digest(system)
  )
