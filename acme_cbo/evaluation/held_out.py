"""Held-out SCMs on which every policy of a run is scored."""

from collections.abc import Callable
import functools
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from acme_cbo import types
from acme_cbo.beliefs import belief as beliefs
from acme_cbo.beliefs import exact_posterior
from acme_cbo.environments import config as environments_config
from acme_cbo.evaluation import rollouts
from acme_cbo.evaluation import statistics
from acme_cbo.infra import errors
from acme_cbo.networks import action_distribution
from acme_cbo.networks import base as networks_base
from acme_cbo.policies import base as policies_base
from acme_cbo.policies import heuristics as heuristics_lib
from acme_cbo.policies import trained
from acme_cbo.scms import config
from acme_cbo.scms import graphs
from acme_cbo.scms import mechanisms
from acme_cbo.scms import priors


def _factory(
  make: Callable[[], policies_base.PolicyFunctions],
) -> policies_base.Factory:
  return lambda task: make()


# Policies without training, and the oracle as an upper bound.
HEURISTICS: dict[str, policies_base.Factory] = {
  **{name: _factory(make) for name, make in heuristics_lib.BY_NAME.items()},
  'oracle': heuristics_lib.oracle,
}

BELIEF_COLUMNS = ['belief', 'group', 'interventions', *statistics.QUALITIES]


def table(
  policy: str, outcome: rollouts.Outcome, **columns: Any
) -> pd.DataFrame:
  """Returns the scores of a policy as a table with a row per task.

  Args:
    policy: name of the policy.
    outcome: its result on the tasks.
    **columns: further columns.

  Returns:
    The columns `policy`, `task`, the further ones, and `statistics.SCORES`.
  """
  score = np.asarray(outcome.score, np.float64)
  return pd.DataFrame(
    {
      'policy': policy,
      'task': np.arange(len(score)),
      **columns,
      'score_first': score[:, 0],
      'score_mean': score.mean(1),
      'score_best': score.max(1),
      'score_last': score[:, -1],
    }
  )


class HeldOut:
  """M held-out tasks, with the same data and noise for all policies.

  The tasks are sampled on first access.

  Attributes:
    heuristics: {name: factory of a policy without training}.
    description: the tasks and the score, as a sentence.
    unit: unit of a score.
  """

  unit = '0: no intervention, 1: optimum'

  heuristics: ClassVar[dict[str, policies_base.Factory]] = HEURISTICS

  def __init__(
    self,
    seed: int,
    prior: config.Prior,
    num_tasks: int,
    horizon: environments_config.HorizonConfig,
  ):
    """Stores the settings.

    Args:
      seed: random seed of tasks, data and noise.
      prior: distribution of the SCMs.
      num_tasks: number M of tasks.
      horizon: numbers of observations and interventions.
    """
    self._seed = seed
    self._prior = prior
    self._num_tasks = num_tasks
    self._horizon = horizon
    self.description = (
      f'{num_tasks} held-out SCMs, {horizon.num_observations} observations, '
      f'{horizon.num_interventions} interventions. '
      'Score: 0 = no intervention, 1 = the best one.'
    )
    # The exact belief is left out if there are too many variables for it.
    self._kinds = [
      kind
      for kind in beliefs.FACTORIES
      if kind != 'exact' or prior.max_variables <= exact_posterior.MAX_VARIABLES
    ]

  @functools.cached_property
  def _keys(self) -> jax.Array:
    """Returns the random key of the tasks, and that of data and noise."""
    # Training folds nothing into its key, so that no seed repeats these draws.
    key = jax.random.fold_in(jax.random.PRNGKey(self._seed), 0x4E1D)
    return jax.random.split(key)

  @functools.cached_property
  def tasks(self) -> types.Task:
    """The SCMs and their objectives.

    Raises:
      errors.UsageError: the prior rejects nearly every SCM.
    """
    return priors.sample(self._keys[0], self._prior, self._num_tasks)

  @functools.cached_property
  def scm(self) -> types.SCM:
    """The SCMs of the tasks, as numpy arrays."""
    return jax.device_get(self.tasks.scm)

  @property
  def problem(self) -> types.Problem:
    """The problems of the tasks, as numpy arrays."""
    return self.scm.problem

  @functools.cached_property
  def is_linear(self) -> np.ndarray:
    """[M] bool, whether the SCM of each task is linear."""
    return np.asarray(self.scm.family) == mechanisms.Family.LINEAR

  @functools.cached_property
  def parents(self) -> np.ndarray:
    """[M, D] bool, whether each variable is a parent of the target."""
    return np.asarray(graphs.target_parents(self.tasks.scm))

  def scores(
    self, factories: dict[str, policies_base.Factory]
  ) -> dict[str, rollouts.Outcome]:
    """Evaluates policies without parameters, all in one program.

    Args:
      factories: {name: task -> policy}.

    Returns:
      {name: `Outcome`}.

    Raises:
      errors.NonFiniteError: a score is not finite.
    """

    @jax.jit
    def run(index, key, tasks):
      def factory(task):
        return policies_base.select(
          [f(task) for f in factories.values()], index
        )

      return self._evaluate(key, factory, tasks)

    return {
      name: self._check_finite(
        0, run(jnp.int32(index), self._keys[1], self.tasks)
      )
      for index, name in enumerate(factories)
    }

  def network_scorer(
    self, network: networks_base.Network
  ) -> Callable[[Any, int], rollouts.Outcome]:
    """Returns a compiled evaluation of a network.

    Args:
      network: the network.

    Returns:
      (parameters, number of the update that they come from) -> `Outcome`. It
      raises an `errors.NonFiniteError` if a score or a belief is not finite.
    """

    def run(params: Any, key: jax.Array, tasks: types.Task):
      max_set_size = tasks.objective.partial_outcome.shape[-1]
      policy = trained.trained(
        network, params, self._kinds, max_set_size, action_distribution.mode
      )
      return self._evaluate(key, lambda task: policy, tasks)

    compiled = jax.jit(run)
    return lambda params, update: self._check_finite(
      update, compiled(params, self._keys[1], self.tasks)
    )

  def table(self, policy: str, outcome: rollouts.Outcome) -> pd.DataFrame:
    """Returns the table of results of a policy, see `statistics`."""
    return table(
      policy,
      outcome,
      family=[mechanisms.Family(i).name.lower() for i in self.scm.family],
      graph=[graphs.Graph(i).name.lower() for i in self.scm.graph],
      variables=self.scm.problem.exists.sum(-1),
    )

  def groups(self) -> dict[str, np.ndarray]:
    """Returns [M] bool masks of 'all', 'linear' and 'nonlinear', if any."""
    groups = {
      'all': np.ones_like(self.is_linear),
      'linear': self.is_linear,
      'nonlinear': ~self.is_linear,
    }
    return {name: mask for name, mask in groups.items() if mask.any()}

  def belief_quality(self, outcome: rollouts.Outcome) -> pd.DataFrame:
    """Returns the quality of each belief as a table.

    Args:
      outcome: result of a policy on these tasks.

    Returns:
      A row per belief, group and step, with the columns `belief`, `group`,
      `interventions` (number of interventions so far) and those of
      `statistics.parent_set_quality`. A group in which all candidates are
      parents, or none is, is left out, since its quality is undefined.
    """
    rows = []
    all_candidates = np.asarray(beliefs.candidates(self.tasks.scm.problem))
    for belief, probability in outcome.parents.items():
      steps = np.asarray(probability).swapaxes(0, 1)
      for group, mask in self.groups().items():
        candidates = all_candidates & mask[:, None]
        if len(np.unique(self.parents[candidates])) == 2:
          rows += [
            {
              'belief': belief,
              'group': group,
              'interventions': step,
              **statistics.parent_set_quality(
                probability, self.parents, candidates
              ),
            }
            for step, probability in enumerate(steps)
          ]
    return pd.DataFrame(rows, columns=BELIEF_COLUMNS)

  def _check_finite(self, update, outcome):
    """Returns the outcome, or raises an `errors.NonFiniteError`."""
    components = {'score': outcome.score}
    components |= {f'belief {kind}': p for kind, p in outcome.parents.items()}
    components |= outcome.after_last
    non_finite = [
      *~np.asarray(outcome.finite).T,
      *(
        ~np.isfinite(values).reshape(len(values), -1).all(1)
        for values in map(np.asarray, components.values())
      ),
    ]
    errors.check_finite(
      update,
      ['observation', 'outcome', *components],
      np.stack(non_finite),
      f'{self._seed}',
      held_out=True,
    )
    return outcome

  def _evaluate(self, key, factory, tasks):
    horizon = self._horizon
    return rollouts.evaluate(
      key,
      factory,
      tasks,
      horizon.num_observations,
      horizon.num_interventions,
    )
