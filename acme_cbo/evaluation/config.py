"""Configs of evaluations, and the flags they are read from."""

from collections.abc import Mapping, Sequence
import dataclasses
import math
import pathlib
from typing import Any

from acme_cbo.infra import errors
from acme_cbo.policies import registry
from acme_cbo.policies import saving


@dataclasses.dataclass(frozen=True)
class EvaluationConfig:
  """Settings that evaluations and comparisons share.

  Attributes:
    scms: names of SCMs and paths of YAML files, see `registry.resolve`.
    repeats: number of episodes of each method on each SCM.
    samples: number of draws that each outcome is the mean of.
    budget: maximum total cost of the interventions of an episode; None for the
      budget of the SCM.
    seed: random seed of data and noise.
    confidence: confidence level of the intervals.
    jobs: number of processes.
    out: output directory.
  """

  scms: tuple[str, ...]
  repeats: int
  samples: int
  budget: float | None
  seed: int
  confidence: float
  jobs: int
  out: pathlib.Path


@dataclasses.dataclass(frozen=True)
class MethodEvaluationConfig(EvaluationConfig):
  """Settings of an evaluation of several methods.

  Attributes:
    methods: names from `registry.NAMES`, or keys of `policies`.
    policies: {method: directory of its trained policy}.
    observations: number N of observations before the first intervention.
    interventions: maximum number T of interventions per episode.
  """

  methods: tuple[str, ...]
  policies: Mapping[str, pathlib.Path]
  observations: int
  interventions: int


def config_from_flags(flags: Any) -> EvaluationConfig:
  """Returns the settings that the launchers of evaluations share.

  Args:
    flags: an object with the flags as attributes.

  Returns:
    The `EvaluationConfig`, not checked.

  Raises:
    errors.UsageError: `--out` is not set.
  """
  if not flags.out:
    raise errors.UsageError(
      '--out is not set; name an output directory, as --out=DIRECTORY'
    )
  names = ('repeats', 'samples', 'budget', 'seed', 'confidence', 'jobs')
  return EvaluationConfig(
    scms=tuple(flags.scm),
    out=pathlib.Path(flags.out),
    **{name: getattr(flags, name) for name in names},
  )


def method_config_from_flags(flags: Any) -> MethodEvaluationConfig:
  """Returns the config of the command `evaluate`.

  Args:
    flags: an object with the flags as attributes.

  Returns:
    The `MethodEvaluationConfig`, checked.

  Raises:
    errors.UsageError: a flag is missing or has an invalid value.
  """
  if flags.workdir and flags.policy:
    raise errors.UsageError(
      '--workdir and --policy both name a trained policy; give one of them'
    )
  policy = saving.SHIPPED if 'grpo' in flags.methods else None
  if flags.policy:
    policy = pathlib.Path(flags.policy)
  if flags.workdir:
    policy = pathlib.Path(flags.workdir) / 'policy'
  config = MethodEvaluationConfig(
    **vars(config_from_flags(flags)),
    methods=tuple(flags.methods),
    policies={'grpo': policy} if policy else {},
    observations=flags.observations,
    interventions=flags.interventions,
  )
  check_method_config(config)
  return config


def check_config(config: EvaluationConfig) -> None:
  """Raises an `errors.UsageError` if a shared setting is invalid."""
  _check_list('--scm', config.scms)
  for name, least in (('repeats', 1), ('samples', 1), ('seed', 0), ('jobs', 1)):
    _check_least(config, name, least)
  if config.seed >= 2**32:
    raise errors.UsageError(
      f'--seed is {config.seed}; it must be below {2**32}'
    )
  budget = config.budget
  if budget is not None and not (budget > 0 and math.isfinite(budget)):
    raise errors.UsageError(
      f'--budget is {budget}; it must be a finite number above 0'
    )
  if not 0 < config.confidence < 1:
    raise errors.UsageError(
      f'--confidence is {config.confidence}; it must be between 0 and 1'
    )


def check_method_config(config: MethodEvaluationConfig) -> None:
  """Raises an `errors.UsageError` if a setting is invalid."""
  check_config(config)
  _check_list('--methods', config.methods)
  registry.check([x for x in config.methods if x not in config.policies])
  # Methods standardize by a standard deviation, which needs two observations.
  for name, least in (('observations', 2), ('interventions', 1)):
    _check_least(config, name, least)
  if 'grpo' in config.methods and 'grpo' not in config.policies:
    raise errors.UsageError(
      'the method grpo needs a trained policy, and none is given'
    )
  for name, directory in config.policies.items():
    if name not in config.methods:
      raise errors.UsageError(
        f'a trained policy is given, {directory}, but {name} is not among '
        '--methods; add it, or leave the policy out'
      )


def _check_list(flag: str, items: Sequence[str]) -> None:
  if not items or not all(items):
    raise errors.UsageError(
      f'{flag}={",".join(items)} has an empty entry; name one or more, '
      'separated by commas'
    )
  for item in items:
    if items.count(item) > 1:
      raise errors.UsageError(f'{flag} names {item} twice')


def _check_least(config: EvaluationConfig, name: str, least: int) -> None:
  value = getattr(config, name)
  if value < least:
    raise errors.UsageError(f'--{name} is {value}; it must be {least} or more')
