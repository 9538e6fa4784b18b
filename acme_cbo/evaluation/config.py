"""Configs of evaluations and comparisons. Needs no jax.

A field made by `config_schema.field` is a setting: it has a default, a range
and a meaning, and with them a flag, see `experiments.flags.define_evaluation`.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import pathlib
from typing import Any, Literal, TypeVar

from acme_cbo.infra import config_schema
from acme_cbo.infra import errors

ConfigT = TypeVar('ConfigT', bound='EvaluationConfig')
_MANY = 10**9


def _scms(*default: str) -> Any:
  return config_schema.field(
    default,
    'SCMs to evaluate on: names, such as toy and chain_5; the groups '
    'benchmarks, families and shifts; YAML files',
    pattern='.+',
    form='the name of an SCM, of a group or of a file',
  )


@dataclasses.dataclass(frozen=True)
class EvaluationConfig(config_schema.Section):
  """Settings that evaluations and comparisons share."""

  scms: tuple[str, ...] = _scms('benchmarks')
  repeats: int = config_schema.field(
    20, 'number of episodes of each policy on each SCM', low=1, high=_MANY
  )
  samples: int = config_schema.field(
    1,
    'number of samples averaged into each observed outcome',
    low=1,
    high=_MANY,
  )
  budget: float | None = config_schema.field(
    None,
    'maximum total cost of the interventions of an episode; the default is the '
    "SCM's own budget",
    low=1e-12,
    high=1e12,
  )
  edges: Literal['unknown', 'known'] = config_schema.field(
    'unknown',
    'whether policies are given all edges of the graph, or those alone that a '
    'YAML file lists',
  )
  seed: int = config_schema.field(
    0, 'random seed for data and noise', low=0, high=2**32 - 1
  )
  confidence: float = config_schema.field(
    0.95,
    'confidence level of intervals and verdicts',
    low=1e-6,
    high=0.999999,
  )
  jobs: int = config_schema.field(
    1, 'number of worker processes', low=1, high=_MANY
  )
  out: pathlib.Path = config_schema.argument('output directory')  # noqa: RUF009

  def validate(self) -> None:
    """Raises an `errors.UsageError` unless every setting can be used."""
    config_schema.check(self, path='')

  def check(self, path: str) -> None:
    """Raises unless one or more SCMs are named, each once."""
    _check_distinct('scms', self.scms)


@dataclasses.dataclass(frozen=True)
class MethodEvaluationConfig(EvaluationConfig):
  """Settings of an evaluation of several methods."""

  methods: tuple[str, ...] = config_schema.field(
    ('grpo', 'cbo', 'gp_bo', 'random'),
    'methods to evaluate: grpo, cbo, gp_bo, posterior_thompson, '
    'explore_then_commit, slope, random, oracle',
    pattern='.+',
    form='the name of a method',
  )
  # Methods standardize by a standard deviation, which needs two observations.
  observations: int = config_schema.field(
    100,
    'number of observations before the first intervention',
    low=2,
    high=_MANY,
  )
  interventions: int = config_schema.field(
    40, 'maximum number of interventions per episode', low=1, high=_MANY
  )
  policies: Mapping[str, pathlib.Path] = config_schema.argument(
    '{method: directory of its trained policy}'
  )

  def check(self, path: str) -> None:
    """Raises unless the methods and the trained policies fit each other."""
    super().check(path)
    _check_distinct('methods', self.methods)
    if 'grpo' in self.methods and 'grpo' not in self.policies:
      raise errors.UsageError(
        'the method grpo needs a trained policy, and none is given'
      )
    for name, directory in self.policies.items():
      if name not in self.methods:
        raise errors.UsageError(
          f'a trained policy is given, {directory}, but {name} is not among '
          'the methods; add it, or leave the policy out'
        )


@dataclasses.dataclass(frozen=True)
class ComparisonConfig(EvaluationConfig):
  """Settings of a comparison of runs and evaluations."""

  scms: tuple[str, ...] = _scms('chain_5', 'fork_5', 'star_5', 'sparse_5')
  allow_mismatch: bool = config_schema.field(
    False,
    'compare and mark runs that were stopped early, or were trained or '
    'evaluated differently, instead of failing',
  )
  paths: tuple[pathlib.Path, ...] = config_schema.argument(
    'run directories, and directories or tables of evaluations'
  )
  left_out: tuple[str, ...] = config_schema.argument(
    'sentences about models that should be compared but are missing', ()
  )


def flag(field: str) -> str:
  """Returns the name of a field as a flag, and in the config of a sweep."""
  return 'scm' if field == 'scms' else field


def from_flags(cls: type[ConfigT], flags: Any, **arguments: Any) -> ConfigT:
  """Returns the config that flags describe.

  Args:
    cls: class of the config.
    flags: an object with the flags as attributes.
    arguments: values of the fields that are no settings, without `out`.

  Returns:
    The config, not validated.

  Raises:
    errors.UsageError: `--out` is not set.
  """
  if not flags.out:
    raise errors.UsageError(
      '--out is not set; name an output directory, as --out=DIRECTORY'
    )
  settings: dict[str, Any] = {}
  for name in config_schema.fields(cls):
    value = getattr(flags, flag(name))
    settings[name] = tuple(value) if isinstance(value, list) else value
  return cls(out=pathlib.Path(flags.out), **settings, **arguments)


def _check_distinct(name: str, values: Sequence[str]) -> None:
  if not values:
    raise errors.UsageError(f'{name} is empty; name one or more')
  for value in values:
    if values.count(value) > 1:
      raise errors.UsageError(f'{name} names {value} twice')
