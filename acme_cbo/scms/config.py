"""Config of the prior over SCMs. Nothing here needs jax."""

from collections.abc import Mapping
import dataclasses
from typing import Any

from acme_cbo.infra import config_schema
from acme_cbo.infra import errors


def _weight(default: float, kind: str) -> Any:
  return config_schema.field(
    default, f'relative frequency of {kind}', low=0.0, high=1000.0
  )


@dataclasses.dataclass(frozen=True)
class _Weights(config_schema.Section):
  """Relative frequencies of the members of an enumeration."""

  @property
  def in_order(self) -> tuple[float, ...]:
    """Weights in the order of the enumeration."""
    return tuple(vars(self).values())

  @classmethod
  def only(cls, name: str):
    """Returns weights that leave one member."""
    return cls(
      **{
        member.name: float(member.name == name)
        for member in dataclasses.fields(cls)
      }
    )

  def check(self, path: str) -> None:
    """Raises where all weights are 0."""
    if not any(self.in_order):
      raise errors.UsageError(
        f'all weights of {path} are 0; one of {", ".join(vars(self))} must be '
        'above 0'
      )


@dataclasses.dataclass(frozen=True)
class GraphWeights(_Weights):
  """Relative frequency of each `graphs.Graph`."""

  chain: float = _weight(1.0, 'chains')
  fork: float = _weight(1.0, 'forks: one variable causes all others')
  star: float = _weight(1.0, 'stars: all others cause one variable')
  erdos_renyi: float = _weight(2.0, 'Erdos-Renyi graphs')
  scale_free: float = _weight(1.0, 'scale-free graphs')


@dataclasses.dataclass(frozen=True)
class FamilyWeights(_Weights):
  """Relative frequency of each `mechanisms.Family`."""

  linear: float = _weight(2.0, 'SCMs with linear equations')
  fourier: float = _weight(
    1.0, 'SCMs with equations of random Fourier features'
  )
  tanh: float = _weight(1.0, 'SCMs with equations of tanh units')
  sigmoid: float = _weight(1.0, 'SCMs with equations of sigmoid units')
  product: float = _weight(1.0, 'SCMs with equations of products of causes')
  exponential: float = _weight(0.0, 'SCMs with equations of exponential units')
  mixed: float = _weight(0.0, 'SCMs whose equations mix the six kinds above')
  bumps: float = _weight(0.0, 'SCMs with equations of Gaussian bumps')


@dataclasses.dataclass(frozen=True)
class NoiseWeights(_Weights):
  """Relative frequency of each `mechanisms.Noise`."""

  normal: float = _weight(1.0, 'normal noise')
  uniform: float = _weight(1.0, 'uniform noise')
  laplace: float = _weight(1.0, 'Laplace noise')
  gumbel: float = _weight(0.0, 'Gumbel noise')
  student: float = _weight(0.0, "Student's noise, whose tails are heavy")


@dataclasses.dataclass(frozen=True)
class SetWeights(_Weights):
  """Relative frequency of the kinds of allowed sets of variables."""

  single: float = _weight(0.3, 'SCMs whose variables are set one at a time')
  any_size: float = _weight(0.5, 'SCMs whose sets have any size')
  largest: float = _weight(
    0.2, 'SCMs whose sets have the largest size, up to all settable variables'
  )


@dataclasses.dataclass(frozen=True)
class PriorConfig(config_schema.Section):
  """Distribution of SCMs that a policy is trained on."""

  min_variables: int = config_schema.field(
    3, 'number of variables of the smallest SCM', low=2, high=64
  )
  max_variables: int = config_schema.field(
    8, 'number of variables of the largest SCM', low=2, high=64
  )
  graph_weights: GraphWeights = dataclasses.field(default_factory=GraphWeights)
  family_weights: FamilyWeights = dataclasses.field(
    default_factory=FamilyWeights
  )
  noise_weights: NoiseWeights = dataclasses.field(default_factory=NoiseWeights)
  set_weights: SetWeights = dataclasses.field(default_factory=SetWeights)
  min_density: float = config_schema.field(
    0.2, 'lowest edge probability of Erdos-Renyi graphs', low=0.0, high=1.0
  )
  max_density: float = config_schema.field(
    0.8, 'highest edge probability of Erdos-Renyi graphs', low=0.0, high=1.0
  )
  min_noise: float = config_schema.field(
    0.3,
    'lowest ratio of the noise of a variable to its signal',
    low=1e-3,
    high=100.0,
  )
  max_noise: float = config_schema.field(
    1.5,
    'highest ratio of the noise of a variable to its signal',
    low=1e-3,
    high=100.0,
  )
  settable: float = config_schema.field(
    0.8, 'probability that a variable can be set', low=0.01, high=1.0
  )
  min_width: float = config_schema.field(
    1.0,
    'smallest half-width of a domain, in standard deviations',
    low=1e-2,
    high=100.0,
  )
  max_width: float = config_schema.field(
    3.0,
    'largest half-width of a domain, in standard deviations',
    low=1e-2,
    high=100.0,
  )
  max_centre: float = config_schema.field(
    1.0,
    'largest distance of the center of a domain from the mean, in standard '
    'deviations',
    low=0.0,
    high=100.0,
  )
  min_gain: float = config_schema.field(
    0.1,
    'smallest gain of the best intervention, in standard deviations of the '
    'target',
    low=1e-3,
    high=100.0,
  )
  min_length_scale: float = config_schema.field(
    0.7,
    'shortest length scale of Fourier equations, in standard deviations of the '
    'causes',
    low=0.05,
    high=2.5,
  )
  max_set_size: int = config_schema.field(
    1, 'largest number of variables set at once', low=1, high=8
  )
  latent: float = config_schema.field(
    0.0, 'probability that a variable is latent', low=0.0, high=0.9
  )
  averaged: float = config_schema.field(
    0.0,
    'share of SCMs whose outcomes are means of about 1000 samples',
    low=0.0,
    high=1.0,
  )
  noiseless: float = config_schema.field(
    0.0,
    'share of SCMs whose target has no noise; in half of them, only variables '
    'without causes have any',
    low=0.0,
    high=1.0,
  )
  uneven: float = config_schema.field(
    0.0,
    'share of SCMs whose noise grows or shrinks with the causes',
    low=0.0,
    high=1.0,
  )
  confounded: float = config_schema.field(
    0.0,
    'share of SCMs with a strong latent cause of the target and of one of its '
    'parents',
    low=0.0,
    high=1.0,
  )
  informed: float = config_schema.field(
    0.0,
    'share of SCMs of whose edges some, or all, are known',
    low=0.0,
    high=1.0,
  )
  stepped: float = config_schema.field(
    0.0,
    'share of SCMs of whose variables about half have a few allowed values',
    low=0.0,
    high=1.0,
  )
  budgeted: float = config_schema.field(
    0.0, 'share of SCMs with a budget for costs', low=0.0, high=1.0
  )
  num_hidden: int = config_schema.field(
    8,
    'number of hidden units of a Fourier, tanh or bumps equation',
    low=2,
    high=256,
  )
  bank_size: int = config_schema.field(
    32,
    'number of noise draws behind the expected outcome of an intervention',
    low=8,
    high=65536,
  )

  def check(self, path: str) -> None:
    """Raises where a lower end is above the upper one."""
    for name in ('variables', 'density', 'noise', 'width'):
      low, high = getattr(self, f'min_{name}'), getattr(self, f'max_{name}')
      if low > high:
        raise errors.UsageError(
          f'{path}.min_{name} is {low}, above {path}.max_{name}, which is '
          f'{high}'
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prior(PriorConfig):
  """A `PriorConfig` with the two sizes that other sections decide.

  Attributes:
    num_cells: number of cells that a domain is cut into, K.
    num_interventions: number of interventions that a budget is meant for, T.
  """

  num_cells: int
  num_interventions: int


def parse_sizes(text: str) -> list[list[int]]:
  """Returns the sizes [N, T, Z, D] in a text.

  Args:
    text: numbers of observations, of interventions, of variables per set and of
      variables of each size, such as '20x10x2x8 60x20x6x8', or empty.
  """
  return [[*map(int, size.split('x'))] for size in text.split()]


def trained_sizes(metadata: Mapping[str, Any]) -> list[list[int]]:
  """Returns the sizes [N, T, Z, D] that a policy was trained on.

  Args:
    metadata: training metadata of the policy, see `saving.load`. Policies of
      earlier versions lack what was added since; they were trained without.
  """
  scms, horizon = metadata['scms'], metadata['horizon']
  first = [
    horizon['num_observations'],
    horizon['num_interventions'],
    scms.get('max_set_size', 1),
    scms['max_variables'],
  ]
  return [first, *parse_sizes(horizon.get('mixture', ''))]


def with_named_weights(config: Mapping[str, Any]) -> dict[str, Any]:
  """Returns a config, or the metadata of a policy, in its present form.

  Files of earlier versions hold the weights as lists, by position, and lack
  members that were added at the end.

  Args:
    config: values with a section 'scms', or without one.

  Returns:
    The same values, with the weights by name.
  """
  scms = config.get('scms')
  if not isinstance(scms, Mapping):
    return dict(config)
  named = dict(scms)
  for name, cls, number in (
    ('graph_weights', GraphWeights, 5),
    ('family_weights', FamilyWeights, 8),
    ('noise_weights', NoiseWeights, 4),
  ):
    weights = named.get(name)
    members = [member.name for member in dataclasses.fields(cls)[:number]]
    if isinstance(weights, list | tuple) and len(weights) == number:
      named[name] = vars(cls()) | dict(zip(members, weights, strict=True))
  return {**config, 'scms': named}
