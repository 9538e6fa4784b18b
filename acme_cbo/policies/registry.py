"""Registry of the methods that an evaluation compares.

The trained policy, the heuristics and the methods that learn the graph are
given the problem and rows of data, nothing else. `cbo` is also given the true
graph, and `oracle` the best intervention.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from acme_cbo import types
from acme_cbo.beliefs import exact_posterior
from acme_cbo.infra import errors
from acme_cbo.networks import base as networks_base
from acme_cbo.policies import base as policies_base
from acme_cbo.policies import heuristics
from acme_cbo.policies import trained as trained_lib
from acme_cbo.policies.baselines import cbo
from acme_cbo.policies.baselines import gp_bo
from acme_cbo.policies.baselines import thompson
from acme_cbo.scms import config as scms_config
from acme_cbo.scms import intervention_sets
from acme_cbo.scms import optimum

NAMES = (
  'grpo',
  'cbo',
  'gp_bo',
  'posterior_thompson',
  'explore_then_commit',
  'slope',
  'random',
  'oracle',
)
# Method that knows the best intervention: an upper bound, not a competitor.
BOUND = 'oracle'


class HostMethod(NamedTuple):
  """A method that runs on the host in float64, with one policy per SCM.

  Attributes:
    make: (SCM, its optimum) -> `PolicyFunctions`. The method may use only what
      it is entitled to, see the docstring of this module.
    unsupported_reason: problem -> why the method does not support it, or an
      empty string.
  """

  make: Callable[[types.SCM, optimum.Optimum], policies_base.PolicyFunctions]
  unsupported_reason: Callable[[types.Problem], str] = lambda problem: ''


class TracedMethod(NamedTuple):
  """A method in float32 that `jit` can trace; one policy serves all SCMs.

  Attributes:
    make: (max_set_size, parameters) -> `PolicyFunctions`; `max_set_size` is the
      largest number of variables of an intervention.
    params: parameters of the method.
    kind: equal for methods that differ in their parameters alone.
    unsupported_reason: problem -> why the method does not support it, or an
      empty string.
  """

  make: Callable[[int, Any], policies_base.PolicyFunctions]
  params: Any
  kind: Hashable
  unsupported_reason: Callable[[types.Problem], str] = lambda problem: ''


def check(names: Sequence[str]) -> None:
  """Raises `errors.UsageError` if a name is not that of a method."""
  for name in names:
    if name not in NAMES:
      hint = errors.did_you_mean(name, NAMES)
      raise errors.UsageError(
        f'unknown method {name!r}{hint}; available methods: {", ".join(NAMES)}'
      )


def make(
  names: Sequence[str], trained: Mapping[str, tuple[networks_base.Network, Any]]
) -> dict[str, HostMethod | TracedMethod]:
  """Returns methods by their names.

  Args:
    names: names from `NAMES` or `trained`.
    trained: {name: (network, parameters)} of trained policies.

  Returns:
    {name: method}, in the order of `names`.
  """
  makers: dict[str, HostMethod | TracedMethod] = {
    **{name: _heuristic(make) for name, make in heuristics.BY_NAME.items()},
    'oracle': HostMethod(lambda scm, best: heuristics.constant(best.choice)),
    'cbo': HostMethod(lambda scm, best: cbo.cbo(scm)),
    'gp_bo': HostMethod(lambda scm, best: gp_bo.gp_bo()),
    'posterior_thompson': HostMethod(
      lambda scm, best: thompson.posterior_thompson(),
      thompson.unsupported_reason,
    ),
  } | {name: _trained(*policy) for name, policy in trained.items()}
  return {name: makers[name] for name in names}


def _heuristic(
  make: Callable[[], policies_base.PolicyFunctions],
) -> TracedMethod:
  return TracedMethod(lambda max_set_size, params: make(), (), make)


def _trained(network: networks_base.Network, params: Any) -> TracedMethod:
  def make(max_set_size, params):
    return trained_lib.deployed(network, params, max_set_size)

  return TracedMethod(make, params, network, _unsupported_reason(network))


def _unsupported_reason(
  network: networks_base.Network,
) -> Callable[[types.Problem], str]:
  """Returns `unsupported_reason` of a trained policy."""
  needs_belief = network.empty_cache(1, 1).evidence is not None

  def unsupported_reason(problem):
    number = problem.exists.size
    if not needs_belief or number <= exact_posterior.MAX_VARIABLES:
      return ''
    return (
      f'{number} variables; the exact belief, an input of this policy, '
      f'supports at most {exact_posterior.MAX_VARIABLES}'
    )

  return unsupported_reason


def beyond_training(
  metadata: Mapping[str, Any],
  problem: types.Problem,
  num_observations: int,
  num_interventions: int,
  has_latent: bool = False,
) -> list[str]:
  """Lists how a problem exceeds the distribution that a policy was trained on.

  Args:
    metadata: training metadata of the policy, see `saving.load`.
    problem: problem to use the policy on.
    num_observations: N.
    num_interventions: T.
    has_latent: whether some variables are known to be latent.

  Returns:
    Phrases such as '60 interventions (trained on at most 40)'.
  """
  most_observations, most_interventions, largest_set, most_variables = np.max(
    scms_config.trained_sizes(metadata), axis=0
  )
  counts = {
    'variables with the target and those never set': (
      int(np.asarray(problem.exists).sum()),
      most_variables,
    ),
    'variables set at a time': (
      intervention_sets.max_size(problem),
      largest_set,
    ),
    'observations': (num_observations, most_observations),
    'interventions': (num_interventions, most_interventions),
  }
  features = {
    'latent variables': (has_latent, 'latent'),
    'averaged outcomes': (float(problem.samples) > 1, 'averaged'),
    'a budget of cost': (np.isfinite(float(problem.budget)), 'budgeted'),
    'known edges': (problem.edges is not None, 'informed'),
  }
  return [
    *(
      f'{count} {label} (trained on at most {limit})'
      for label, (count, limit) in counts.items()
      if count > limit
    ),
    *(
      f'{label} (trained without)'
      for label, (present, key) in features.items()
      if present and not metadata['scms'].get(key, 0)
    ),
  ]
