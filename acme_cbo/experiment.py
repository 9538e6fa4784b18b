"""From a config to wired parts, and the run of a training.

The only reader of a `ConfigDict`. Every value is checked before anything
starts: its name, its type, its range, and how it fits the others.
"""

import dataclasses
import difflib
import json
import re
import typing
from typing import Any

import ml_collections

from acme_cbo import actor
from acme_cbo import errors
from acme_cbo import learner
from acme_cbo import losses
from acme_cbo import networks
from acme_cbo import rewards
from acme_cbo.beliefs import exact
from acme_cbo.runtimes import fused
from acme_cbo.scms import graphs
from acme_cbo.scms import mechanisms
from acme_cbo.scms import priors

_NAME = re.compile(r'[A-Za-z0-9][A-Za-z0-9._-]{0,63}')
_POSITIVE = (1e-12, 1e6)
_UNIT = (0.0, 1.0)
_COUNT = (1, 10**7)
_WEIGHT = (0.0, 1e3)

# Lowest and highest allowed value of every number.
_RANGES = {
  'seed': (0, 2**31 - 1),
  'scms.min_variables': (2, 64),
  'scms.max_variables': (2, 64),
  'scms.graph_weights': _WEIGHT,
  'scms.family_weights': _WEIGHT,
  'scms.min_density': _UNIT,
  'scms.max_density': _UNIT,
  'scms.min_noise': (1e-3, 100.0),
  'scms.max_noise': (1e-3, 100.0),
  'scms.settable': (0.01, 1.0),
  'scms.min_width': (1e-2, 100.0),
  'scms.max_width': (1e-2, 100.0),
  'scms.max_centre': (0.0, 100.0),
  'scms.min_gain': (1e-3, 100.0),
  'scms.num_hidden': (2, 256),
  'scms.bank_size': (8, 65536),
  'horizon.num_observations': (2, 10000),
  'horizon.num_interventions': (1, 1000),
  'rewards.optimization': _WEIGHT,
  'rewards.structure': _WEIGHT,
  'rewards.parent': _WEIGHT,
  'rewards.exploration': _WEIGHT,
  'network.width': (4, 4096),
  'network.num_blocks': (1, 64),
  'network.num_heads': (1, 64),
  'network.mlp_factor': (1, 16),
  # The best intervention is searched for on the same cells: fewer miss it.
  'network.num_cells': (8, 256),
  'grpo.num_tasks': _COUNT,
  'grpo.num_generations': (2, 4096),
  'grpo.num_iterations': (1, 100),
  'grpo.num_minibatches': _COUNT,
  'grpo.epsilon': (1e-6, 1.0),
  'grpo.epsilon_high': (1e-6, 100.0),
  'grpo.beta': _WEIGHT,
  'grpo.simple_regret_share': _UNIT,
  'grpo.variable_entropy': _WEIGHT,
  'grpo.cell_entropy': _WEIGHT,
  'grpo.parent_coefficient': _WEIGHT,
  'grpo.outcome_coefficient': _WEIGHT,
  'grpo.reference_every': _COUNT,
  'optimizer.learning_rate': _POSITIVE,
  'optimizer.warmup_updates': (0, 10**7),
  'optimizer.final_fraction': _UNIT,
  'optimizer.max_grad_norm': _POSITIVE,
  'optimizer.weight_decay': _WEIGHT,
  'training.num_updates': (0, 10**7),
  'training.eval_every': _COUNT,
  'training.checkpoint_every': _COUNT,
  'training.max_checkpoints': (1, 10**4),
  # Linear or nonlinear SCMs are then 5 or more, the least for an interval.
  'evaluation.num_tasks': (10, 10**6),
  'evaluation.seed': (0, 2**31 - 1),
  'evaluation.bank_size': (8, 65536),
  'evaluation.confidence': (0.5, 0.9999),
}


@dataclasses.dataclass(frozen=True)
class Batch:
  """Size of an update: B SCMs, a group of G rollouts on each."""

  num_tasks: int
  num_generations: int


@dataclasses.dataclass(frozen=True)
class Optimizer:
  """Muon with clipping, linear warm-up and cosine decay.

  Attributes:
    learning_rate: at its highest.
    warmup_updates: updates over which it rises.
    final_fraction: share of it that is left at the end.
    max_grad_norm: global norm at which a gradient is clipped.
    weight_decay: of the matrices.
  """

  learning_rate: float
  warmup_updates: int
  final_fraction: float
  max_grad_norm: float
  weight_decay: float


@dataclasses.dataclass(frozen=True)
class Training:
  """Cadence of a run, in updates.

  Attributes:
    num_updates: of the whole run.
    eval_every: updates between two evaluations.
    checkpoint_every: updates between two checkpoints.
    max_checkpoints: how many of the latest are kept.
    quick_compile: compile quickly rather than well.
  """

  num_updates: int
  eval_every: int
  checkpoint_every: int
  max_checkpoints: int
  quick_compile: bool


@dataclasses.dataclass(frozen=True)
class Evaluation:
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


@dataclasses.dataclass(frozen=True)
class Experiment:
  """Everything that a run is made of, checked.

  Attributes:
    name: of the run.
    seed: of the training.
    parts: of an update.
    training: its cadence.
    evaluation: the held-out SCMs.
  """

  name: str
  seed: int
  parts: fused.Parts
  training: Training
  evaluation: Evaluation


def from_config(config: ml_collections.ConfigDict) -> Experiment:
  """Wires the parts that a config describes.

  Args:
    config: as `configs/grpo.py` makes it.

  Returns:
    The `Experiment`.

  Raises:
    errors.UsageError: a field is missing, unknown, of the wrong type,
      out of its range, or does not fit another one. The sentence names it.
  """
  values = config.to_dict()
  top = (
    'name',
    'seed',
    'scms',
    'horizon',
    'rewards',
    'network',
    'grpo',
    'optimizer',
    'training',
    'evaluation',
  )
  _check_names('', values, top)
  if not isinstance(values['name'], str) or not _NAME.fullmatch(values['name']):
    raise errors.UsageError(
      f'config.name is {values["name"]!r}; a name begins with a letter or a '
      'digit, goes on with those, ".", "_" or "-", and has at most 64 of them'
    )
  _check_value('seed', values['seed'], int)

  (architecture,) = _section(values, 'network', networks.Architecture)
  (prior,) = _section(
    values, 'scms', priors.Prior, given={'num_cells': architecture.num_cells}
  )
  (horizon,) = _section(values, 'horizon', actor.Horizon)
  weights, kinds = _section(values, 'rewards', rewards.Weights, rewards.Kinds)
  grpo, settings, batch = _section(
    values, 'grpo', losses.Settings, learner.Settings, Batch
  )
  (optimizer,) = _section(values, 'optimizer', Optimizer)
  (training,) = _section(values, 'training', Training)
  (evaluation,) = _section(values, 'evaluation', Evaluation)
  _check_fit(architecture, prior, kinds, settings, batch)

  per_update = settings.steps_per_update
  parts = fused.Parts(
    network=networks.make(architecture),
    optimizer=learner.make_optimizer(
      learning_rate=optimizer.learning_rate,
      warmup_steps=optimizer.warmup_updates * per_update,
      total_steps=max(training.num_updates, optimizer.warmup_updates + 1)
      * per_update,
      final_fraction=optimizer.final_fraction,
      max_grad_norm=optimizer.max_grad_norm,
      weight_decay=optimizer.weight_decay,
    ),
    prior=prior,
    horizon=horizon,
    num_tasks=batch.num_tasks,
    num_generations=batch.num_generations,
    weights=weights,
    kinds=kinds,
    settings=settings,
    grpo=grpo,
  )
  return Experiment(
    name=values['name'],
    seed=values['seed'],
    parts=parts,
    training=training,
    evaluation=evaluation,
  )


def from_json(text: str) -> Experiment:
  """Wires the parts of a config that a run has written down.

  Args:
    text: of its `config.json`.

  Returns:
    The `Experiment`.

  Raises:
    errors.UsageError: it is no JSON object; or as `from_config`.
  """
  try:
    values = json.loads(text)
  except ValueError as error:
    raise errors.UsageError(f'config.json is damaged: {error}') from error
  if not isinstance(values, dict):
    raise errors.UsageError('config.json is damaged: it holds no object')
  return from_config(ml_collections.ConfigDict(values))


def _section(
  values: dict[str, Any],
  section: str,
  *classes: Any,
  given: dict[str, Any] | None = None,
) -> list[Any]:
  """Builds dataclasses or NamedTuples from one section of a config.

  Args:
    values: the whole config.
    section: its part; holds every field of every class, and no other.
    *classes: what is built.
    given: fields that another section holds.

  Returns:
    One instance of each class.
  """
  given = given or {}
  found = values[section]
  if not isinstance(found, dict):
    raise errors.UsageError(
      f'config.{section} is {found!r}; it must be a section'
    )
  hints = [typing.get_type_hints(cls) for cls in classes]
  names = [name for hint in hints for name in hint if name not in given]
  _check_names(f'{section}.', found, names)
  for hint in hints:
    for name, kind in hint.items():
      if name not in given:
        _check_value(f'{section}.{name}', found[name], kind)
  # A tuple given as a list is one; settings are hashed.
  known = {
    name: tuple(value) if isinstance(value, list) else value
    for name, value in (found | given).items()
  }
  return [
    cls(**{name: known[name] for name in hint})
    for cls, hint in zip(classes, hints, strict=True)
  ]


def _check_names(prefix, found, expected):
  for name in found:
    if name not in expected:
      close = difflib.get_close_matches(name, expected, 1)
      hint = f'; did you mean {prefix}{close[0]}?' if close else ''
      raise errors.UsageError(f'config.{prefix}{name} is unknown{hint}')
  for name in expected:
    if name not in found:
      raise errors.UsageError(f'config.{prefix}{name} is missing')


def _check_value(path: str, value: Any, kind: Any) -> None:
  """Raises unless a value has the type and the range of its field."""
  if typing.get_origin(kind) is typing.Literal:
    options = typing.get_args(kind)
    if value not in options:
      raise errors.UsageError(
        f'config.{path} is {value!r}; it must be one of '
        f'{", ".join(map(repr, options))}'
      )
    return
  if kind is bool:
    if not isinstance(value, bool):
      raise errors.UsageError(
        f'config.{path} is {value!r}; it must be True or False'
      )
    return
  if typing.get_origin(kind) is tuple:
    if not isinstance(value, tuple | list):
      raise errors.UsageError(
        f'config.{path} is {value!r}; it must be a tuple of numbers'
      )
    for item in value:
      _check_value(path, item, typing.get_args(kind)[0])
    return
  allowed = (int,) if kind is int else (int, float)
  if isinstance(value, bool) or not isinstance(value, allowed):
    raise errors.UsageError(
      f'config.{path} is {value!r}; it must be a number of type {kind.__name__}'
    )
  low, high = _RANGES[path]
  # NaN is within no range, and every range is finite.
  if not low <= value <= high:
    raise errors.UsageError(
      f'config.{path} is {value}; it must be at least {low} and at most {high}'
    )


def _check_fit(architecture, prior, kinds, settings, batch):
  """Raises unless the values fit each other."""
  for name in ('variables', 'density', 'noise', 'width'):
    low, high = (getattr(prior, f'{end}_{name}') for end in ('min', 'max'))
    if low > high:
      raise errors.UsageError(
        f'config.scms.min_{name} is {low}, above config.scms.max_{name}, '
        f'which is {high}'
      )
  for name, kind in (
    ('graph_weights', graphs.Graph),
    ('family_weights', mechanisms.Family),
  ):
    weights = getattr(prior, name)
    members = [member.name.lower() for member in kind]
    if len(weights) != len(members) or not sum(weights):
      raise errors.UsageError(
        f'config.scms.{name} is {tuple(weights)}; it must have one weight for '
        f'each of {", ".join(members)}, and one of them above 0'
      )
  if architecture.width % architecture.num_heads:
    raise errors.UsageError(
      f'config.network.num_heads is {architecture.num_heads}; it must divide '
      f'config.network.width, which is {architecture.width}'
    )
  for name, kind, other in (
    ('rewards.belief', kinds.belief, 'learned'),
    ('network.belief_input', architecture.belief_input, 'none'),
  ):
    if kind == 'exact' and prior.max_variables > exact.MAX_VARIABLES:
      raise errors.UsageError(
        f"config.{name} is 'exact', which sums over all sets of at most "
        f'{exact.MAX_VARIABLES} variables; config.scms.max_variables is '
        f'{prior.max_variables}: lower it, or choose {other!r}'
      )
  if batch.num_tasks % settings.num_minibatches:
    raise errors.UsageError(
      f'config.grpo.num_minibatches is {settings.num_minibatches}; it must '
      f'divide config.grpo.num_tasks, which is {batch.num_tasks}'
    )
