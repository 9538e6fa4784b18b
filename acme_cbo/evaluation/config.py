"""Settings of an evaluation, and the flags they come from."""

from collections.abc import Mapping, Sequence
import dataclasses
import math
import pathlib
from typing import Any

from acme_cbo.infra import errors
from acme_cbo.policies import registry
from acme_cbo.policies import saving


@dataclasses.dataclass(frozen=True)
class Playing:
  """On what, and how, whoever is compared plays.

  Attributes:
    scms: names and files, see `registry.resolve`.
    repeats: episodes of each on each SCM.
    samples: draws of which each outcome is the mean.
    budget: what the interventions of an episode may cost; None is the SCM's.
    seed: of data and noise.
    confidence: of the intervals.
    jobs: processes.
    out: the directory.
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
class Settings(Playing):
  """What methods are compared, and how.

  Attributes:
    methods: of `registry.NAMES`, or of `policies`.
    policies: {method: directory of the trained policy that plays as it}.
    observations: N.
    interventions: T.
  """

  methods: tuple[str, ...]
  policies: Mapping[str, pathlib.Path]
  observations: int
  interventions: int


def from_flags(given: Any) -> Settings:
  """The settings that the flags of the launcher name.

  Args:
    given: the flags, or what has attributes of their names.

  Returns:
    The `Settings`, checked.

  Raises:
    errors.UsageError: one of them cannot be used.
  """
  if given.workdir and given.policy:
    raise errors.UsageError(
      '--workdir and --policy both name a trained policy; give one of them'
    )
  policy = saving.SHIPPED if 'grpo' in given.methods else None
  if given.policy:
    policy = pathlib.Path(given.policy)
  if given.workdir:
    policy = pathlib.Path(given.workdir) / 'policy'
  named = Settings(
    **vars(playing(given)),
    methods=tuple(given.methods),
    policies={'grpo': policy} if policy else {},
    observations=given.observations,
    interventions=given.interventions,
  )
  check(named)
  return named


def playing(given: Any) -> Playing:
  """What the flags of `flags.define_playing` name.

  Raises:
    errors.UsageError: no directory is named for what comes out.
  """
  if not given.out:
    raise errors.UsageError('name a directory for what comes out: --out=')
  names = ('repeats', 'samples', 'budget', 'seed', 'confidence', 'jobs')
  return Playing(
    scms=tuple(given.scm),
    out=pathlib.Path(given.out),
    **{name: getattr(given, name) for name in names},
  )


def check_playing(settings: Playing) -> None:
  """Raises an `errors.UsageError` at a setting that cannot be used."""
  _check_list('--scm', settings.scms)
  for name, least in (('repeats', 1), ('samples', 1), ('seed', 0), ('jobs', 1)):
    _check_least(settings, name, least)
  if settings.seed >= 2**32:
    raise errors.UsageError(
      f'--seed is {settings.seed}; it must be below {2**32}'
    )
  budget = settings.budget
  if budget is not None and not (budget > 0 and math.isfinite(budget)):
    raise errors.UsageError(
      f'--budget is {budget}; it must be a finite number above 0'
    )
  if not 0 < settings.confidence < 1:
    raise errors.UsageError(
      f'--confidence is {settings.confidence}; it must be between 0 and 1'
    )


def check(settings: Settings) -> None:
  """Raises an `errors.UsageError` at a setting that cannot be used."""
  check_playing(settings)
  _check_list('--methods', settings.methods)
  registry.check([x for x in settings.methods if x not in settings.policies])
  # A deviation, which methods standardise by, needs two observations.
  for name, least in (('observations', 2), ('interventions', 1)):
    _check_least(settings, name, least)
  if 'grpo' in settings.methods and 'grpo' not in settings.policies:
    raise errors.UsageError(
      'the method grpo is a trained policy, and none is named'
    )
  for name, directory in settings.policies.items():
    if name not in settings.methods:
      raise errors.UsageError(
        f'a trained policy is given, {directory}, but {name} is not among '
        '--methods; add it, or leave the policy out'
      )


def _check_list(flag: str, items: Sequence[str]) -> None:
  if not items or not all(items):
    raise errors.UsageError(
      f'{flag}={",".join(items)} has an empty entry; name one or more, '
      'parted by commas'
    )
  for item in items:
    if items.count(item) > 1:
      raise errors.UsageError(f'{flag} names {item} twice')


def _check_least(settings: Any, name: str, least: int) -> None:
  value = getattr(settings, name)
  if value < least:
    raise errors.UsageError(f'--{name} is {value}; it must be {least} or more')


@dataclasses.dataclass(frozen=True)
class HeldOutConfig:
  """The held-out SCMs.

  Attributes:
    num_tasks: how many.
    seed: from which they are drawn: the same for every training seed.
    bank_size: noise draws over which E[Y | do] is averaged.
    confidence: of every interval.
  """

  num_tasks: int
  seed: int
  bank_size: int
  confidence: float
