"""Registry of the systems for evaluation: by name, by group and from files."""

from collections.abc import Callable, Mapping, Sequence
import functools
import os
import pathlib
from typing import Any, NamedTuple

from acme_cbo import types
from acme_cbo.infra import errors
from acme_cbo.scms import benchmarks
from acme_cbo.scms import config
from acme_cbo.scms import families
from acme_cbo.scms import graphs
from acme_cbo.scms import mechanisms
from acme_cbo.scms import optimum
from acme_cbo.scms import shifts
from acme_cbo.scms import systems
from acme_cbo.scms.files import yaml_spec

# Names of groups of systems.
GROUPS: dict[str, tuple[str, ...]] = {
  'benchmarks': tuple(benchmarks.TEXTS),
  'families': tuple(families.FAMILIES),
  'shifts': shifts.NAMES,
}


class Environment(NamedTuple):
  """A system, or a family from which each repeat draws another system.

  Attributes:
    name: name in tables.
    make: index of the repeat -> system.
    held_out: whether the system is outside the training distribution of the
      trained policy, in its number of variables, its kind of graph or its kind
      of equations; None if no trained policy is evaluated.
    fresh: whether each repeat has a different system.
    digest: hash of the definition; empty if the definition is part of the code.
    search: function that finds the best and worst outcomes on a system.
  """

  name: str
  make: Callable[[int], systems.System]
  held_out: bool | None = None
  fresh: bool = False
  digest: str = ''
  search: Callable[[systems.System], optimum.Optimum] = optimum.search


# Type of `resolve`; tests pass a function with environments of their own.
Resolve = Callable[[Sequence[str], Mapping[str, Any]], list[Environment]]


def resolve(
  names: Sequence[str], metadata: Mapping[str, Any]
) -> list[Environment]:
  """Returns the environments with the given names.

  Args:
    names: names of benchmarks, families, shifts and groups, and paths of YAML
      files.
    metadata: training metadata of the trained policy, see `saving.load`; empty
      if no trained policy is evaluated.

  Returns:
    One `Environment` per name, several for a group, in the same order.

  Raises:
    errors.UsageError: a name or file does not exist, a file does not describe a
      system, or a shift is requested without a trained policy.
  """
  members = [member for name in names for member in GROUPS.get(name, (name,))]
  environments = [_environment(name, metadata) for name in members]
  if not metadata:
    return environments
  return [
    environment
    if environment.held_out is not None
    else environment._replace(
      held_out=_is_held_out(metadata, environment.make(0).scm)
    )
    for environment in environments
  ]


def _is_held_out(metadata: Mapping[str, Any], scm: types.SCM) -> bool:
  """Returns whether a training prior cannot draw SCMs like this one.

  Args:
    metadata: training metadata of the trained policy.
    scm: the model.

  Returns:
    Whether the prior excludes its size, its kind of graph or its equations.
  """
  prior = metadata['scms']
  most_variables = max(size[-1] for size in config.trained_sizes(metadata))
  kinds = (
    (prior['graph_weights'], graphs.Graph, int(scm.graph)),
    (prior['family_weights'], mechanisms.Family, int(scm.family)),
  )
  return scm.order.size > most_variables or any(
    kind == systems.NO_KIND or not weights[members(kind).name.lower()]
    for weights, members, kind in kinds
  )


def _environment(name: str, metadata: Mapping[str, Any]) -> Environment:
  """Returns the environment of one name or file."""
  if name in benchmarks.TEXTS:
    system = benchmarks.load(name)
    return Environment(
      name, lambda repeat: system, digest=systems.digest(system)
    )
  if name in families.FAMILIES:
    make = families.FAMILIES[name]
    return Environment(name, make, fresh=name in families.DRAWN)
  if name in shifts.NAMES:
    return _shifted(name, metadata)
  if name.lower().endswith(('.yaml', '.yml')):
    return _from_file(pathlib.Path(name))
  choices = [*GROUPS, *benchmarks.TEXTS, *families.FAMILIES, *shifts.NAMES]
  hint = errors.did_you_mean(name, choices)
  if os.sep in name:
    hint = '; a path with a comma needs double quotes in a list of several SCMs'
  file = f'{name}.yaml'
  if os.path.exists(file):
    hint = f'; did you mean the file {file}?'
  raise errors.UsageError(
    f'there is no SCM {name!r}{hint}; use one of '
    f'{", ".join([*GROUPS, *benchmarks.TEXTS, *shifts.NAMES])}, one of the '
    'families in acme_cbo/scms/families.py, or a file that ends in .yaml'
  )


def _shifted(name: str, metadata: Mapping[str, Any]) -> Environment:
  """Returns the environment of a shift of the training prior."""
  if not metadata:
    raise errors.UsageError(
      f'{name} is a shift of the training distribution of a policy; '
      'include the method grpo, and name a policy unless it is the shipped one'
    )
  prior = shifts.prior(metadata, name)
  return Environment(
    name,
    functools.partial(shifts.system, name, prior),
    held_out=name != shifts.AS_TRAINED,
    fresh=True,
    digest=shifts.digest(prior),
  )


def _from_file(path: pathlib.Path) -> Environment:
  """Returns the environment that a YAML file describes."""
  system = yaml_spec.read(path)
  try:
    yaml_spec.check_finite(system)
  except errors.UsageError as error:
    raise errors.UsageError(f'{path}: {error}') from error
  return Environment(
    system.name, lambda repeat: system, digest=systems.digest(system)
  )
