"""The methods that are compared, and what each of them is told.

The trained policy, the heuristics and the methods that learn the graph are told
the problem and rows of data, nothing else. `cbo` knows the graph as well, and
`oracle` the answer.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from acme_cbo import types
from acme_cbo.beliefs import exact_posterior
from acme_cbo.infra import errors
from acme_cbo.networks import action_distribution
from acme_cbo.networks import base as networks_base
from acme_cbo.policies import base as policies_base
from acme_cbo.policies import heuristics
from acme_cbo.policies import trained as trained_lib
from acme_cbo.policies.baselines import cbo
from acme_cbo.policies.baselines import gp_bo
from acme_cbo.policies.baselines import thompson
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
# It knows the answer: a bound on the others, and no method.
BOUND = 'oracle'


class OnHost(NamedTuple):
  """A method in float64 that is made for a system.

  Attributes:
    make: (SCM, its optimum) -> `Policy`; what it uses of them, it was told.
    refusal: why it cannot take a problem; empty where it can.
  """

  make: Callable[[types.SCM, optimum.Optimum], policies_base.Policy]
  refusal: Callable[[types.Problem], str] = lambda problem: ''


class Traced(NamedTuple):
  """A method in float32 that `jit` can trace; one policy serves all systems.

  Attributes:
    make: (how many variables it may set at once, parameters) -> `Policy`.
    params: its parameters.
    kind: methods of one kind differ in their parameters alone.
    refusal: why it cannot take a problem; empty where it can.
  """

  make: Callable[[int, Any], policies_base.Policy]
  params: Any
  kind: Hashable
  refusal: Callable[[types.Problem], str] = lambda problem: ''


def check(names: Sequence[str]) -> None:
  """Raises an `errors.UsageError` at a name that no method has."""
  for name in names:
    if name not in NAMES:
      hint = errors.did_you_mean(name, NAMES)
      raise errors.UsageError(
        f'--methods: there is no method {name!r}{hint}; there are '
        f'{", ".join(NAMES)}'
      )


def make(
  names: Sequence[str], trained: Mapping[str, tuple[networks_base.Network, Any]]
) -> dict[str, OnHost | Traced]:
  """The methods of some names.

  Args:
    names: of `NAMES`, or of `trained`.
    trained: {name: a network and its parameters}.

  Returns:
    {name: method}, in the same order.
  """
  makers: dict[str, OnHost | Traced] = {
    'explore_then_commit': _heuristic(heuristics.explore_then_commit),
    'slope': _heuristic(heuristics.slope),
    'random': _heuristic(heuristics.random),
    'oracle': OnHost(lambda scm, best: heuristics.constant(best.choice)),
    'cbo': OnHost(lambda scm, best: cbo.cbo(scm)),
    'gp_bo': OnHost(lambda scm, best: gp_bo.gp_bo()),
    'posterior_thompson': OnHost(
      lambda scm, best: thompson.posterior_thompson(), thompson.refusal
    ),
  } | {name: _trained(*of) for name, of in trained.items()}
  return {name: makers[name] for name in names}


def _heuristic(make: Callable[[], policies_base.Policy]) -> Traced:
  return Traced(lambda num_turns, params: make(), (), make)


def _trained(network: networks_base.Network, params: Any) -> Traced:
  def make(num_turns, params):
    return trained_lib.trained(
      network, params, ('learned',), num_turns, action_distribution.sample
    )

  return Traced(make, params, network, _refusal(network))


def _refusal(network: networks_base.Network) -> Callable[[types.Problem], str]:
  """Why a trained policy cannot take a problem."""
  needs_belief = network.empty_cache(1, 1).evidence is not None

  def refusal(problem):
    number = problem.exists.size
    if not needs_belief or number <= exact_posterior.MAX_VARIABLES:
      return ''
    return (
      f'{number} variables; the exact belief, of which it is told, takes at '
      f'most {exact_posterior.MAX_VARIABLES}'
    )

  return refusal


def beyond_training(
  about: dict[str, Any],
  scm: types.SCM,
  num_observations: int,
  num_interventions: int,
) -> list[str]:
  """What of an SCM goes beyond all that a policy was trained on.

  Args:
    about: what the policy was trained for, see `saving.load`.
    scm: that it is to be used on.
    num_observations: N.
    num_interventions: T.

  Returns:
    A phrase for each, as '11 variables (trained on at most 8)'.
  """
  scms, horizon, problem = about['scms'], about['horizon'], scm.problem
  counts = {
    'variables': (int(np.asarray(problem.exists).sum()), scms['max_variables']),
    # What a policy says nothing of, it was trained before there was any.
    'variables set at a time': (
      intervention_sets.max_size(problem),
      scms.get('max_set_size', 1),
    ),
    'observations': (num_observations, horizon['num_observations']),
    'interventions': (num_interventions, horizon['num_interventions']),
  }
  latent = np.asarray(scm.present & ~problem.exists).any()
  kinds = {
    'latent variables': (latent, 'latent'),
    'averaged outcomes': (float(problem.samples) > 1, 'averaged'),
    'a budget of cost': (np.isfinite(float(problem.budget)), 'budgeted'),
  }
  return [
    *(
      f'{asked} {what} (trained on at most {most})'
      for what, (asked, most) in counts.items()
      if asked > most
    ),
    *(
      f'{what} (trained without)'
      for what, (asked, name) in kinds.items()
      if asked and not scms.get(name, 0)
    ),
  ]
